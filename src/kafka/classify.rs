//! One pure function from an error code to what it means for a record.
//!
//! Must not know what is done about it. Invariant: only what a cluster said about the record
//! itself is [`ErrorClass::Refused`]; whatever leaves its fate in doubt, or may pass by waiting,
//! is not.

use rdkafka::error::RDKafkaErrorCode;

/// What an error code means for the record or the client it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorClass {
    /// The link or the cluster is not there, or not ready. Wait; it judges no record.
    Network,
    /// This client instance is spent. Build a new one and go on; it judges no record.
    Fatal,
    /// The cluster said no, and would say it again.
    Refused,
}

/// Judges one code.
pub(super) fn classify(code: RDKafkaErrorCode) -> ErrorClass {
    use RDKafkaErrorCode as Code;
    match code {
        // librdkafka has no connection, or lost it, or ran out of patience on it.
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::SSL
        | Code::OperationTimedOut
        | Code::MessageTimedOut
        | Code::TimedOutQueue
        | Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::Retry
        | Code::WaitCache
        | Code::InProgress
        // The cluster answered that it is not ready.
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::RequestTimedOut
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::NotController
        | Code::KafkaStorageError
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::StaleBrokerEpoch
        | Code::ThrottlingQuotaExceeded
        | Code::RebootstrapRequired => ErrorClass::Network,

        // The producer's identity or sequence is spent; what was queued in it went nowhere for sure.
        Code::Fatal
        | Code::GaplessGuarantee
        | Code::Fenced
        | Code::Inconsistent
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId
        | Code::ProducerFenced => ErrorClass::Fatal,

        _ => ErrorClass::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_judges_no_record() {
        for code in [
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::AllBrokersDown,
            RDKafkaErrorCode::Resolve,
            RDKafkaErrorCode::RequestTimedOut,
            RDKafkaErrorCode::NotEnoughReplicas,
            RDKafkaErrorCode::LeaderNotAvailable,
        ] {
            assert_eq!(classify(code), ErrorClass::Network, "{code}");
        }
    }

    #[test]
    fn what_was_purged_is_in_doubt_and_not_refused() {
        for code in [
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::PurgeInflight,
            RDKafkaErrorCode::GaplessGuarantee,
            RDKafkaErrorCode::UnknownProducerId,
        ] {
            assert_eq!(classify(code), ErrorClass::Fatal, "{code}");
        }
    }

    #[test]
    fn what_a_broker_says_about_a_record_is_a_refusal() {
        for code in [
            RDKafkaErrorCode::MessageSizeTooLarge,
            RDKafkaErrorCode::InvalidRecord,
            RDKafkaErrorCode::InvalidTimestamp,
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::UnknownTopicOrPartition,
            RDKafkaErrorCode::PolicyViolation,
        ] {
            assert_eq!(classify(code), ErrorClass::Refused, "{code}");
        }
    }
}
