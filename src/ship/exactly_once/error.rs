//! Why shipping exactly once stopped, where only a person can go on.
//!
//! Whatever the reason: nothing is lost, nothing is sent twice.

use std::error;
use std::fmt;
use std::ops::Range;

use crate::kafka::{self, TransactionError};
use crate::wal::SeqNo;

/// Why shipping exactly once stopped. Nothing is lost, and nothing is sent twice.
#[derive(Debug)]
#[non_exhaustive]
pub enum Halt {
    /// Nobody can tell whether the last transaction was committed: the cluster that knew is not this
    /// one, or has lost it. Find out, and decide.
    InDoubt {
        /// The records it carried.
        span: Range<SeqNo>,
        /// The dead letters it carried instead.
        letters: Vec<SeqNo>,
        /// Why it cannot be looked up.
        why: String,
    },
    /// Another store ships with the same identity: this one is a copy, or has one, or is an old
    /// backup. Give one of the two a new identity.
    Foreign {
        /// Who the store is.
        identity: String,
        /// What was found.
        why: String,
    },
    /// The topic of the progress records cannot be used. Create it, or allow this client to.
    ProgressTopic {
        /// Its name.
        topic: String,
        /// The cluster's answer.
        source: kafka::Error,
    },
    /// The cluster allows this client no transactions. Correct its permissions.
    Transactions(TransactionError),
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Halt::InDoubt { letters, why, .. } if !letters.is_empty() => write!(
                f,
                "nobody knows whether {} dead letters from {} on are in Kafka: {why}; nothing is lost, but only a person can decide",
                letters.len(),
                letters[0]
            ),
            Halt::InDoubt { span, why, .. } => write!(
                f,
                "nobody knows whether records {} to {} are in Kafka: {why}; nothing is lost, but only a person can decide",
                span.start,
                span.end.get().saturating_sub(1)
            ),
            Halt::Foreign { identity, why } => write!(
                f,
                "another store ships as {identity}: {why}; nothing is lost, but both together would send records twice"
            ),
            Halt::ProgressTopic { topic, .. } => {
                write!(
                    f,
                    "the topic `{topic}`, which keeps the progress, cannot be used"
                )
            }
            Halt::Transactions(_) => f.write_str("the cluster allows no transactions here"),
        }
    }
}

impl error::Error for Halt {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Halt::ProgressTopic { source, .. } => Some(source),
            Halt::Transactions(source) => Some(source),
            Halt::InDoubt { .. } | Halt::Foreign { .. } => None,
        }
    }
}
