//! Why shipping ended before it was done, by whose turn it is next.
//!
//! Whatever the error: nothing is lost. What was acknowledged is settled in the log, and the rest
//! is there for the next run.

use std::error;
use std::fmt;
use std::io;
use std::time::Duration;

use super::exactly_once::Halt;
use super::progress::Held;
use crate::kafka;
use crate::store;

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
    /// Nothing was acknowledged for too long, and what is left is held. Correct what the cluster
    /// complains about.
    Held {
        /// The partitions that take nothing, each with its reason.
        held: Vec<Held>,
    },
    /// An option makes no sense: it says which. Correct it.
    Option {
        /// Its name.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Shipping exactly once stopped where only a person can go on.
    ExactlyOnce(Halt),
    /// The configuration of the client is not accepted. Correct it.
    Kafka(kafka::Error),
    /// A log could not be read, written or its cursor be saved.
    Store(store::Error),
    /// The system gives no thread for one of several lanes or clusters: none of them was shipped. Try
    /// again when it has some.
    Thread(io::Error),
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
            Error::Held { held } => {
                f.write_str("what is left is held")?;
                for held in held {
                    write!(f, "; {held}")?;
                }
                Ok(())
            }
            Error::Option { key, reason } => write!(f, "{key}: {reason}"),
            // It adds nothing of its own.
            Error::ExactlyOnce(halt) => halt.fmt(f),
            Error::Kafka(_) => f.write_str("the Kafka client could not be used"),
            Error::Store(_) => f.write_str("the log could not be shipped from"),
            Error::Thread(_) => f.write_str("the system gives no thread to ship with"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Kafka(source) => Some(source),
            Error::Store(source) => Some(source),
            Error::Thread(source) => Some(source),
            Error::Unreachable { .. } | Error::Held { .. } | Error::Option { .. } => None,
            Error::ExactlyOnce(halt) => halt.source(),
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
