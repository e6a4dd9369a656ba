//! What can go wrong with a store.
//!
//! Owns the sentences; what to do next is the caller's to say. It must not know how a log fails:
//! that is the log's own error, handed on.

use std::{error, fmt, io, path::PathBuf};

use crate::{
    message::Invalid,
    wal::{self, SeqNo},
};

/// What can go wrong with a store.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The directory holds something that is no store. Nothing was written.
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// There is no store to look at.
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused something around the logs.
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The options of a lane are wrong or contradict another's. Nothing was opened or written.
    Options {
        /// The lane.
        lane: String,
        /// What is wrong.
        reason: String,
    },
    /// What is said of a topic or tenant cannot be, or contradicts something. Nothing was opened or
    /// written.
    Routing {
        /// Of what, such as `tenant acme`.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The log of a lane would not open; no other lane stays open then.
    Lane {
        /// The lane.
        lane: String,
        /// What its log said.
        source: wal::Error,
    },
    /// The message breaks a limit: it was not appended, and never can be.
    Invalid(Invalid),
    /// There is no room for another dead letter. Nothing was given up for it; keep the record, and
    /// come again when letters were decided about, or space was made.
    DeadLettersFull {
        /// What is full.
        reason: String,
    },
    /// There is no room for another record that is due later. Nothing was taken; come again when some
    /// were due, or space was made.
    ScheduleFull {
        /// What is full.
        reason: String,
    },
    /// The message has a due time, and a lane takes only what is due: give it to
    /// [`Store::schedule`](super::Store::schedule). Nothing was appended.
    NotDue,
    /// No letter of this number lies open. Nothing was changed.
    NoSuchLetter {
        /// The number.
        seq: SeqNo,
    },
    /// The log refused.
    Log(wal::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAStore { path } => {
                write!(
                    f,
                    "{} holds something that is no ferrylog store",
                    path.display()
                )
            }
            Self::NoStore { path } => write!(f, "there is no store in {}", path.display()),
            Self::Io { action, path, .. } => write!(f, "could not {action} {}", path.display()),
            Self::Options { lane, reason } => write!(f, "lane {lane}: {reason}"),
            Self::Routing { what, reason } => write!(f, "{what}: {reason}"),
            Self::Lane { lane, source } => write!(f, "lane {lane}: {source}"),
            Self::DeadLettersFull { reason } => {
                write!(f, "no room for another dead letter: {reason}")
            }
            Self::ScheduleFull { reason } => {
                write!(f, "no room for a record that is due later: {reason}")
            }
            Self::NotDue => f.write_str("a lane takes only what is due, and this is due later"),
            Self::NoSuchLetter { seq } => write!(f, "no dead letter {seq} lies open"),
            // These add nothing of their own: the cause is the whole message.
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Log(error) => error.fmt(f),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::NotAStore { .. }
            | Self::NoStore { .. }
            | Self::Options { .. }
            | Self::Routing { .. }
            | Self::DeadLettersFull { .. }
            | Self::ScheduleFull { .. }
            | Self::NotDue
            | Self::NoSuchLetter { .. } => None,
            Self::Io { source, .. } => Some(source),
            Self::Invalid(invalid) => invalid.source(),
            Self::Log(error) | Self::Lane { source: error, .. } => error.source(),
        }
    }
}

impl Error {
    /// Names the lane whose log would not open.
    pub(super) fn of_lane(lane: &str) -> impl FnOnce(wal::Error) -> Self {
        move |source| Self::Lane {
            lane: lane.into(),
            source,
        }
    }
}

impl From<wal::Error> for Error {
    fn from(error: wal::Error) -> Self {
        Self::Log(error)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}
