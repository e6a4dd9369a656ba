//! One table from an error code, and whether the record may have been persisted, to what it means.
//!
//! Pure. Must not know what is done about it. Invariants: only what a cluster said about records
//! it did not keep is a refusal; whatever leaves a record's fate in doubt is [`ErrorClass::Fatal`],
//! which judges nobody; every code that the client library knows stands in the table.

use rdkafka::error::RDKafkaErrorCode as Code;

/// What an error means for the record or the client it came with, and so what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorClass {
    /// It is no error: the cluster has the record already.
    Accepted,
    /// The link or the cluster is not there. Probe, wait; it judges no record.
    Network,
    /// The partition takes nothing now and may later. Hold it and try again.
    Transient,
    /// The record, or one in its batch, is refused for what it is, and would be again.
    Poison,
    /// The record's timestamp, or one in its batch, is refused.
    BadTime,
    /// The topic or partition is refused until a person changes something. Hold it, alarm.
    Held,
    /// The client is refused until a person changes something. Alarm, try slowly.
    Blocked,
    /// This client instance is spent, or what it held is in doubt. Build a new one and send again.
    Fatal,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [ErrorClass; 8] = [
        ErrorClass::Accepted,
        ErrorClass::Network,
        ErrorClass::Transient,
        ErrorClass::Poison,
        ErrorClass::BadTime,
        ErrorClass::Held,
        ErrorClass::Blocked,
        ErrorClass::Fatal,
    ];

    /// Whether it is a broker's answer about a record that it did not keep.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            ErrorClass::Transient | ErrorClass::Poison | ErrorClass::BadTime | ErrorClass::Held
        )
    }

    /// Its word in output, dead letters and metrics; stable.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorClass::Accepted => "accepted",
            ErrorClass::Network => "network",
            ErrorClass::Transient => "transient",
            ErrorClass::Poison => "poison",
            ErrorClass::BadTime => "bad_time",
            ErrorClass::Held => "held",
            ErrorClass::Blocked => "blocked",
            ErrorClass::Fatal => "fatal",
        }
    }

    /// Whether sending the same record again, by itself or later, may succeed without a change of
    /// record, topic or configuration.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            ErrorClass::Accepted | ErrorClass::Network | ErrorClass::Transient | ErrorClass::Fatal
        )
    }
}

/// Whether a record that came back may be in Kafka all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Persistence {
    /// It is not there.
    No,
    /// Nobody knows.
    Possibly,
    /// It is there.
    Yes,
}

/// Judges one code.
pub(super) fn classify(code: Code, persistence: Persistence) -> ErrorClass {
    // A code of a newer library: to hold the partition loses nothing.
    match (of_code(code).unwrap_or(ErrorClass::Transient), persistence) {
        (_, Persistence::Yes) => ErrorClass::Accepted,
        // A verdict on a record that may have been kept is none.
        (class, Persistence::Possibly) if class.is_refusal() => ErrorClass::Fatal,
        (class, Persistence::Possibly | Persistence::No) => class,
    }
}

/// The class of a code; none if the code is newer than the table.
fn of_code(code: Code) -> Option<ErrorClass> {
    let row = TABLE.iter().find(|(codes, _)| codes.contains(&code));
    row.map(|(_, class)| *class)
}

/// The table. Codes 1 and up are Kafka's own (protocol guide, "Error Codes"), those below zero
/// librdkafka's.
#[rustfmt::skip]
const TABLE: &[(&[Code], ErrorClass)] = &[
    // A retry of what had arrived: its offset is not known.
    (&[Code::NoError, Code::DuplicateSequenceNumber], ErrorClass::Accepted),
    // No connection, a lost one, or one without an answer.
    (&[Code::BrokerTransportFailure, Code::AllBrokersDown, Code::Resolve, Code::SSL,
        Code::OperationTimedOut, Code::MessageTimedOut, Code::TimedOutQueue, Code::BrokerDestroy,
        Code::DestroyBroker, Code::RebootstrapRequired], ErrorClass::Network),
    // The cluster is not ready, or not now.
    (&[Code::LeaderNotAvailable, Code::NotLeaderForPartition, Code::RequestTimedOut,
        Code::BrokerNotAvailable, Code::ReplicaNotAvailable, Code::NetworkException,
        Code::CoordinatorLoadInProgress, Code::CoordinatorNotAvailable, Code::NotCoordinator,
        Code::NotEnoughReplicas, Code::NotEnoughReplicasAfterAppend, Code::NotController,
        Code::KafkaStorageError, Code::FencedLeaderEpoch, Code::UnknownLeaderEpoch,
        Code::StaleBrokerEpoch, Code::StaleControllerEpoch, Code::ThrottlingQuotaExceeded,
        Code::OffsetNotAvailable, Code::PreferredLeaderNotAvailable,
        Code::EligibleLeadersNotAvailable, Code::ReassignmentInProgress,
        Code::ConcurrentTransactions, Code::LogDirNotFound, Code::UnknownBroker,
        Code::ISRInsufficient, Code::Unknown, Code::Retry, Code::WaitCache, Code::InProgress,
        Code::PreviousInProgress, Code::WaitingForCoordinator, Code::NodeUpdate,
        Code::OperationNotAttempted, Code::Interrupted, Code::QueueFull], ErrorClass::Transient),
    // What a broker, or librdkafka before it, will not take as it is.
    (&[Code::InvalidMessage, Code::InvalidMessageSize, Code::MessageSizeTooLarge,
        Code::MessageBatchTooLarge, Code::PolicyViolation, Code::InvalidRecord, Code::BadMessage,
        Code::BadCompression, Code::InvalidArgument, Code::InvalidDifferentRecord,
        Code::KeySerialization, Code::ValueSerialization], ErrorClass::Poison),
    (&[Code::InvalidTimestamp], ErrorClass::BadTime),
    // A topic that is missing, forbidden, or set up otherwise.
    (&[Code::TopicAuthorizationFailed, Code::UnknownTopicOrPartition, Code::UnknownTopic,
        Code::UnknownPartition, Code::UnknownTopicId, Code::InvalidTopic,
        Code::UnsupportedCompressionType, Code::UnsupportedForMessageFormat,
        Code::InvalidRequiredAcks, Code::InvalidPartitions, Code::InvalidConfig,
        Code::InvalidReplicationFactor, Code::InvalidReplicaAssignment, Code::ReadOnly,
        Code::TopicAlreadyExists, Code::TopicDeletionDisabled, Code::ResourceNotFound,
        Code::DuplicateResource], ErrorClass::Held),
    // This client may not, or does not speak the cluster's language.
    (&[Code::Authentication, Code::SaslAuthenticationFailed, Code::ClusterAuthorizationFailed,
        Code::TransactionalIdAuthorizationFailed, Code::GroupAuthorizationFailed,
        Code::DelegationTokenAuthorizationFailed, Code::UnsupportedVersion,
        Code::UnsupportedSASLMechanism, Code::IllegalSASLState, Code::SecurityDisabled,
        Code::DelegationTokenAuthDisabled, Code::DelegationTokenNotFound,
        Code::DelegationTokenOwnerMismatch, Code::DelegationTokenRequestNotAllowed,
        Code::DelegationTokenExpired, Code::InvalidPrincipalType, Code::UnacceptableCredential,
        Code::PrincipalDeserializationFailure, Code::ListenerNotFound,
        Code::InvalidTransactionTimeout, Code::UnsupportedFeature, Code::UnknownProtocol,
        Code::NotImplemented, Code::NotConfigured, Code::InvalidRequest,
        Code::CriticalSystemResource], ErrorClass::Blocked),
    // The producer's identity or sequence is spent; what it held went nowhere for sure.
    (&[Code::Fatal, Code::GaplessGuarantee, Code::Fenced, Code::Inconsistent, Code::PurgeQueue,
        Code::PurgeInflight, Code::OutOfOrderSequenceNumber, Code::InvalidProducerEpoch,
        Code::InvalidProducerIdMapping, Code::UnknownProducerId, Code::ProducerFenced,
        Code::InvalidTransactionalState, Code::TransactionCoordinatorFenced, Code::State,
        Code::Conflict, Code::Outdated, Code::Fail, Code::Application], ErrorClass::Fatal),
    // No producer meets these. Should one, to hold the partition loses nothing.
    (&[Code::Begin, Code::End, Code::EndAll, Code::PartitionEOF, Code::FileSystem,
        Code::UnknownGroup, Code::ExistingSubscription, Code::AssignPartitions,
        Code::RevokePartitions, Code::NoOffset, Code::KeyDeserialization,
        Code::ValueDeserialization, Code::Partial, Code::NoEnt, Code::Underflow,
        Code::InvalidType, Code::PollExceeded, Code::AssignmentLost, Code::Noop,
        Code::AutoOffsetReset, Code::LogTruncation, Code::OffsetOutOfRange,
        Code::OffsetMetadataTooLarge, Code::IllegalGeneration, Code::InconsistentGroupProtocol,
        Code::InvalidGroupId, Code::UnknownMemberId, Code::InvalidSessionTimeout,
        Code::RebalanceInProgress, Code::InvalidCommitOffsetSize, Code::NonEmptyGroup,
        Code::GroupIdNotFound, Code::FetchSessionIdNotFound, Code::InvalidFetchSessionEpoch,
        Code::MemberIdRequired, Code::GroupMaxSizeReached, Code::FencedInstanceId,
        Code::ElectionNotNeeded, Code::NoReassignmentInProgress, Code::GroupSubscribedToTopic,
        Code::UnstableOffsetCommit, Code::InconsistentVoterSet, Code::InvalidUpdateVersion,
        Code::FeatureUpdateFailed, Code::FencedMemberEpoch, Code::UnreleasedInstanceId,
        Code::UnsupportedAssignor, Code::StaleMemberEpoch, Code::UnknownSubscriptionId,
        Code::TelemetryTooLarge], ErrorClass::Transient),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn each(codes: &[Code], class: ErrorClass) {
        for &code in codes {
            assert_eq!(classify(code, Persistence::No), class, "{code}");
        }
    }

    /// librdkafka's own list, so that a new version of it cannot bring a code unseen.
    #[test]
    #[expect(unsafe_code, reason = "the binding has no safe way to list the codes")]
    fn every_code_of_the_library_stands_in_the_table() {
        let (mut descriptions, mut count) = (std::ptr::null(), 0);
        // SAFETY: both are written by the call; the list is static and has `count` entries.
        let known = unsafe {
            rdkafka::bindings::rd_kafka_get_err_descs(&raw mut descriptions, &raw mut count);
            std::slice::from_raw_parts(descriptions, count)
        };
        // Between librdkafka's codes and Kafka's there are entries without a name.
        let codes = known.iter().filter(|entry| !entry.desc.is_null());
        let codes: Vec<Code> = codes.map(|entry| entry.code.into()).collect();
        assert!(codes.len() > 150, "{} codes", codes.len());
        for code in codes {
            assert!(of_code(code).is_some(), "{code:?} has no class");
        }
    }

    #[test]
    fn codes_mean_what_the_table_of_refusals_says() {
        each(
            &[
                Code::BrokerTransportFailure,
                Code::OperationTimedOut,
                Code::AllBrokersDown,
                Code::Resolve,
                Code::SSL,
            ],
            ErrorClass::Network,
        );
        each(
            &[
                Code::LeaderNotAvailable,
                Code::NetworkException,
                Code::ThrottlingQuotaExceeded,
                Code::KafkaStorageError,
                Code::NotEnoughReplicas,
                Code::Unknown,
            ],
            ErrorClass::Transient,
        );
        each(
            &[
                Code::MessageSizeTooLarge,
                Code::InvalidRecord,
                Code::PolicyViolation,
                Code::BadMessage,
            ],
            ErrorClass::Poison,
        );
        each(&[Code::InvalidTimestamp], ErrorClass::BadTime);
        each(
            &[
                Code::TopicAuthorizationFailed,
                Code::UnknownTopicOrPartition,
                Code::UnknownTopic,
                Code::UnsupportedCompressionType,
            ],
            ErrorClass::Held,
        );
        each(
            &[
                Code::Authentication,
                Code::SaslAuthenticationFailed,
                Code::ClusterAuthorizationFailed,
                Code::UnsupportedVersion,
            ],
            ErrorClass::Blocked,
        );
        each(
            &[
                Code::OutOfOrderSequenceNumber,
                Code::Fatal,
                Code::Fenced,
                Code::GaplessGuarantee,
                Code::UnknownProducerId,
                Code::PurgeQueue,
            ],
            ErrorClass::Fatal,
        );
        each(&[Code::DuplicateSequenceNumber], ErrorClass::Accepted);
    }

    #[test]
    fn what_may_have_been_kept_is_never_refused_and_what_was_kept_is_accepted() {
        for code in [
            Code::InvalidRecord,
            Code::InvalidTimestamp,
            Code::Unknown,
            Code::TopicAuthorizationFailed,
        ] {
            assert_eq!(classify(code, Persistence::Possibly), ErrorClass::Fatal);
            assert_eq!(classify(code, Persistence::Yes), ErrorClass::Accepted);
        }
        let lost = classify(Code::BrokerTransportFailure, Persistence::Possibly);
        assert_eq!(lost, ErrorClass::Network);
    }

    #[test]
    fn names_of_classes_are_distinct() {
        let names = ErrorClass::ALL.map(ErrorClass::name);
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
