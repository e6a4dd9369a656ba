//! Kafka, as the shipper needs it: a producer that never gives up by itself, a probe, a consumer
//! that reads back, and librdkafka's embedded mock cluster.
//!
//! Owns everything that touches `rdkafka`; no other folder names it. Must not know the log, the
//! store, messages or the shipper. Invariants: what librdkafka reports is handed on, never judged
//! here; nothing blocks longer than the timeout it was given; no secret reaches an error or a
//! debug line.

mod admin;
mod breaks;
mod classify;
mod client;
mod consumer;
mod hand_over;
mod leader;
mod mock;
mod probe;
mod producer;
mod register;
mod scan;
mod transaction;

use std::error;
use std::fmt;
use std::time::Duration;

pub use admin::create_topic;
pub use breaks::Breaks;
pub use classify::{ErrorClass, Persistence};
pub use client::{SOCKET_TIMEOUT_MAX, Settings, is_secret};
pub use consumer::{Consumed, Consumer};
pub use leader::Leader;
pub use mock::MockKafka;
pub use probe::{Ping, Plan, Probed, Prober, Require, Rung, TARGETS_MAX};
pub(crate) use probe::{bad_server, names_none};
pub use producer::{Failure, Outcome, Outgoing, Partitions, Producer, Report, SendError, Trouble};
pub use register::{Register, Registered};
pub use scan::{Scan, Scanned, bounds};
pub use transaction::{TransactionClass, TransactionError, TransactionalProducer};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What can go wrong between this crate and a cluster, grouped by what the caller does next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A property that would break a delivery promise was set. Remove it.
    Forbidden {
        /// The property's name.
        property: String,
        /// Which promise it would break, and what to do instead.
        reason: &'static str,
    },
    /// librdkafka does not accept the configuration. Correct it.
    Configuration {
        /// What librdkafka says; values of secret properties are left out.
        reason: String,
    },
    /// Nothing answered. The link may come back: try again.
    Unreachable {
        /// What was tried.
        action: &'static str,
        /// How long an answer was waited for.
        timeout: Duration,
        /// librdkafka's or Kafka's code.
        code: i32,
        /// The code's name and text.
        name: String,
    },
    /// The cluster answered that it has no such topic. Create it.
    UnknownTopic {
        /// The topic's name.
        topic: String,
    },
    /// The cluster answered with a refusal.
    Refused {
        /// What was tried.
        action: &'static str,
        /// The topic it was about.
        topic: String,
        /// What it means.
        class: ErrorClass,
        /// librdkafka's or Kafka's code.
        code: i32,
        /// The code's name and text.
        name: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Forbidden { property, reason } => {
                write!(f, "the Kafka property `{property}` cannot be set: {reason}")
            }
            Error::Configuration { reason } => {
                write!(f, "librdkafka refuses the configuration: {reason}")
            }
            Error::Unreachable {
                action,
                timeout,
                code,
                name,
            } => write!(
                f,
                "{action} got no answer within {timeout:?}: {name}, code {code}"
            ),
            Error::UnknownTopic { topic } => {
                write!(f, "the cluster has no topic `{topic}`")
            }
            Error::Refused {
                action,
                topic,
                code,
                name,
                ..
            } => write!(
                f,
                "{action} was refused for topic `{topic}`: {name}, code {code}"
            ),
        }
    }
}

impl error::Error for Error {}

impl Error {
    /// An error of `action` on `topic`, by the class of its code.
    fn of(action: &'static str, topic: &str, timeout: Duration, code: RDKafkaErrorCode) -> Error {
        let (number, name) = number_and_name(code);
        let class = match code {
            // An administrative request whose broker went away.
            RDKafkaErrorCode::Fail => ErrorClass::Network,
            _ => classify::classify(code, Persistence::No),
        };
        match class {
            ErrorClass::Network | ErrorClass::Transient => Error::Unreachable {
                action,
                timeout,
                code: number,
                name,
            },
            _ if is_unknown_topic(code) => Error::UnknownTopic {
                topic: topic.to_owned(),
            },
            class => Error::Refused {
                action,
                topic: topic.to_owned(),
                class,
                code: number,
                name,
            },
        }
    }
}

fn is_unknown_topic(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicId
    )
}

/// The code behind any error of the client library; `Fail` where it carries none.
fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// Kafka's number for a code, and its name with librdkafka's text, as `Name (text)`.
fn number_and_name(code: RDKafkaErrorCode) -> (i32, String) {
    (code as i32, code.to_string())
}
