//! Why shipping ended before it was done, by whose turn it is next.
//!
//! Whatever the error: nothing is lost. What was acknowledged is settled in the log, and the rest
//! is there for the next run.

use std::error;
use std::fmt;
use std::time::Duration;

use crate::kafka::{self, Failure};
use crate::store;
use crate::wal::SeqNo;

/// Why shipping ended before it was done. Nothing is lost: the next run goes on where it ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No usable link for too long. Try again when there is one.
    Unreachable {
        /// The servers tried.
        servers: String,
        /// How long nothing was acknowledged.
        waited: Duration,
        /// The last reason.
        why: String,
    },
    /// The cluster does not have the topic. Create it.
    UnknownTopic {
        /// The topic.
        topic: String,
        /// The first record for it.
        seq: SeqNo,
    },
    /// The cluster does not tell about the topic. Correct its permissions.
    Topic {
        /// The topic.
        topic: String,
        /// The first record for it.
        seq: SeqNo,
        /// The cluster's answer.
        source: kafka::Error,
    },
    /// The record names a partition its topic does not have. Add partitions to the topic.
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition the record names.
        partition: i32,
        /// How many there are.
        count: u32,
        /// The record.
        seq: SeqNo,
    },
    /// The cluster refused a record, or the batch it was in. Correct what it complains about.
    Refused {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The first record that came back.
        seq: SeqNo,
        /// The cluster's reason.
        failure: Failure,
    },
    /// The bytes of a record are no message this version knows. A newer version may read it.
    Undecodable {
        /// The record.
        seq: SeqNo,
        /// What is wrong with the bytes.
        reason: String,
    },
    /// Producers failed one after the other and delivered nothing. Look at the brokers' logs.
    Spent {
        /// How many were built.
        rebuilds: u32,
        /// Why the last one failed.
        reason: String,
    },
    /// An option makes no sense. Correct it.
    Option {
        /// Its key in a configuration.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The configuration of the client is not accepted. Correct it.
    Kafka(kafka::Error),
    /// The log could not be read or the cursor not be written.
    Store(store::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable {
                servers,
                waited,
                why,
            } => write!(
                f,
                "no usable link to {servers} for {} s: {why}; nothing is lost, try again when there is one",
                waited.as_secs()
            ),
            Error::UnknownTopic { topic, seq } => write!(
                f,
                "topic `{topic}` does not exist on the cluster (first needed by record {seq}); \
                 create it and run this again, nothing is lost"
            ),
            Error::Topic { topic, seq, .. } => write!(
                f,
                "the cluster does not tell about topic `{topic}` (first needed by record {seq})"
            ),
            Error::NoPartition {
                topic,
                partition,
                count,
                seq,
            } => write!(
                f,
                "record {seq} is for partition {partition} of topic `{topic}`, which has {count} \
                 (0 to {}); add partitions to the topic and run this again, nothing is lost",
                count.saturating_sub(1)
            ),
            Error::Refused {
                topic,
                partition,
                seq,
                failure,
            } => write!(
                f,
                "topic `{topic}` partition {partition} refuses record {seq} or one sent with it: {failure}; \
                 correct that and run this again, nothing is lost"
            ),
            Error::Undecodable { seq, reason } => write!(
                f,
                "record {seq} is no message this version can read: {reason}; it is kept, and so is all behind it"
            ),
            Error::Spent { rebuilds, reason } => write!(
                f,
                "{rebuilds} producers failed one after the other and delivered nothing: {reason}"
            ),
            Error::Option { key, reason } => write!(f, "{key}: {reason}"),
            Error::Kafka(_) => f.write_str("the Kafka client could not be used"),
            Error::Store(_) => f.write_str("the log could not be shipped from"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Topic { source, .. } | Error::Kafka(source) => Some(source),
            Error::Store(source) => Some(source),
            Error::Unreachable { .. }
            | Error::UnknownTopic { .. }
            | Error::NoPartition { .. }
            | Error::Refused { .. }
            | Error::Undecodable { .. }
            | Error::Spent { .. }
            | Error::Option { .. } => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(source: store::Error) -> Error {
        Error::Store(source)
    }
}

impl From<kafka::Error> for Error {
    fn from(source: kafka::Error) -> Error {
        Error::Kafka(source)
    }
}
