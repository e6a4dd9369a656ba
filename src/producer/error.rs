//! What can go wrong for the one who sends, by what to do next.
//!
//! Owns the sentences. Nothing here comes from Kafka: what it says is in [`Status`](super::Status).

use std::error::Error;
use std::fmt;
use std::io;

#[cfg(feature = "config")]
use crate::config;
use crate::event;
use crate::message::Invalid;
use crate::ship;
use crate::store::{self, Lane};
use crate::wal;

/// Why a producer could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The default topic can be none. Nothing was touched.
    Topic(Invalid),
    /// No event could be written with that source or version. Nothing was touched.
    Event(event::Error),
    /// A lane, topic or tenant goes to a cluster that nobody gave. Nothing was touched; give it with
    /// [`Builder::cluster`](super::Builder::cluster).
    Cluster {
        /// Its name.
        name: String,
    },
    /// A setting of the Kafka client or of shipping is wrong. Nothing was touched; correct it.
    Ship(ship::Error),
    /// A configuration is wrong, and says where. Nothing was touched; correct it.
    #[cfg(feature = "config")]
    Configuration(config::Error),
    /// The store could not be opened.
    Store(store::Error),
    /// The system gave no thread. The store is closed again.
    Thread(io::Error),
}

impl From<ship::Error> for OpenError {
    fn from(error: ship::Error) -> Self {
        Self::Ship(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(_) => f.write_str("the default topic is none"),
            Self::Event(error) => error.fmt(f),
            Self::Cluster { name } => {
                write!(f, "the options name a cluster `{name}` that is not given")
            }
            Self::Ship(error) => error.fmt(f),
            #[cfg(feature = "config")]
            Self::Configuration(error) => error.fmt(f),
            Self::Store(_) => f.write_str("the store could not be opened"),
            Self::Thread(_) => f.write_str("there is no thread to ship with"),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Topic(source) => Some(source),
            Self::Event(error) => error.source(),
            Self::Cluster { .. } => None,
            Self::Ship(error) => error.source(),
            #[cfg(feature = "config")]
            Self::Configuration(error) => error.source(),
            Self::Store(source) => Some(source),
            Self::Thread(source) => Some(source),
        }
    }
}

/// Why the settings of a producer stay as they were.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// They are wrong: no producer could be opened with them. Correct them.
    Wrong(OpenError),
    /// These keys differ, and count only when a store is opened. Leave them as they are, or close this
    /// producer and open another one.
    Reopen {
        /// Their names.
        keys: Vec<String>,
    },
    /// It was not opened from a configuration, so nobody knows what would change. Use
    /// [`set_shipping`](super::Producer::set_shipping).
    NotConfigured,
    /// The producer is closed, or about to be. Open another one.
    Closed,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(error) => error.fmt(f),
            Self::Reopen { keys } => write!(
                f,
                "the store must be opened anew for a change of {}",
                keys.join(", ")
            ),
            Self::NotConfigured => f.write_str("the producer was not opened from a configuration"),
            Self::Closed => f.write_str("the producer is closed"),
        }
    }
}

impl Error for ChangeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Wrong(error) => error.source(),
            Self::Reopen { .. } | Self::NotConfigured | Self::Closed => None,
        }
    }
}

/// Why a message was not appended, by what to do next.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// There is no room right now: the memory is used up by what is not on disk yet, or there is no
    /// space and the lane does not wait for it. Try again later, or use [`send`](super::Producer::send),
    /// which waits. Other lanes, those of other tenants among them, may take records all the same.
    Full {
        /// The lane.
        lane: String,
        /// What is full.
        reason: String,
    },
    /// There is no space, and the lane gives up what comes. It is counted; nobody will try again.
    Dropped {
        /// The lane.
        lane: String,
        /// What is full.
        reason: String,
    },
    /// It is longer than its lane takes. Never try it again as it is.
    TooLarge {
        /// Bytes of the record or batch.
        len: usize,
        /// The most that is possible.
        max: usize,
    },
    /// A part of it breaks a limit of Kafka's or the log's. Never try it again as it is.
    Invalid(Invalid),
    /// An event cannot be made or written. The reason says whether it ever can.
    Event(event::Error),
    /// The topics of a batch belong to different lanes, which cannot be all or nothing. Send a batch
    /// for each.
    SeveralLanes {
        /// The lane of the first message.
        first: String,
        /// The lane of another one.
        other: String,
    },
    /// An interceptor does not want it, or panicked. Whether it ever will is for the reason to say.
    Refused {
        /// What it said.
        reason: String,
    },
    /// Some messages of a batch are due later and some have no due time: they cannot be all or nothing. Send
    /// a batch for each.
    SomeDueLater,
    /// The producer is closed, or about to be. Open another one.
    Closed,
    /// The log of the lane takes nothing more after a disk failed it twice. What was acknowledged is
    /// safe. Close this producer and open another one.
    Failed {
        /// The first failure.
        reason: String,
    },
    /// The operating system refused something else. Try again later.
    Store(store::Error),
}

impl From<event::Error> for SendError {
    fn from(error: event::Error) -> Self {
        Self::Event(error)
    }
}

impl SendError {
    /// What a lane said.
    pub(super) fn of(lane: &Lane, error: store::Error) -> Self {
        let lane = || lane.name().to_owned();
        match error {
            store::Error::Invalid(invalid) => Self::Invalid(invalid),
            store::Error::ScheduleFull { reason } => Self::Full {
                lane: lane(),
                reason,
            },
            store::Error::Log(wal::Error::TooLarge { len, max }) => Self::TooLarge { len, max },
            store::Error::Log(wal::Error::Full { reason, .. }) => Self::Full {
                lane: lane(),
                reason,
            },
            store::Error::Log(error @ wal::Error::Busy) => Self::Full {
                lane: lane(),
                reason: error.to_string(),
            },
            store::Error::Log(wal::Error::Dropped { reason }) => Self::Dropped {
                lane: lane(),
                reason,
            },
            store::Error::Log(wal::Error::Failed { reason }) => Self::Failed { reason },
            store::Error::Log(wal::Error::Closed) => Self::Closed,
            error => Self::Store(error),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { lane, reason } => {
                write!(f, "no room in lane {lane}, try again later: {reason}")
            }
            Self::Dropped { lane, reason } => {
                write!(f, "given up for lack of space in lane {lane}: {reason}")
            }
            Self::TooLarge { len, max } => write!(f, "{len} bytes are over the limit of {max}"),
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Event(error) => error.fmt(f),
            Self::SeveralLanes { first, other } => write!(
                f,
                "a batch is for one lane, and this is for {first} and {other}"
            ),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
            Self::SomeDueLater => f.write_str(
                "a batch is due later as a whole or not at all, and some of this has no due time",
            ),
            Self::Closed => f.write_str("the producer is closed"),
            Self::Failed { reason } => write!(
                f,
                "the log failed, close the producer and open another one: {reason}"
            ),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Invalid(invalid) => invalid.source(),
            Self::Event(error) => error.source(),
            Self::Store(error) => error.source(),
            Self::Full { .. }
            | Self::Dropped { .. }
            | Self::TooLarge { .. }
            | Self::SeveralLanes { .. }
            | Self::Refused { .. }
            | Self::SomeDueLater
            | Self::Closed
            | Self::Failed { .. } => None,
        }
    }
}

/// Why it cannot be said that records are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotDurable {
    /// There is no space, and the lane does not wait for it. They are in memory and written when there is;
    /// ask again. If the producer is closed or the process ends before, they may be gone.
    Full {
        /// What is full.
        reason: String,
    },
    /// The log failed: whether they are on disk is not known before it is opened again.
    Failed {
        /// The first failure.
        reason: String,
    },
}

impl From<wal::Error> for NotDurable {
    fn from(error: wal::Error) -> Self {
        match error {
            wal::Error::Full { reason, .. } => Self::Full { reason },
            wal::Error::Failed { reason } => Self::Failed { reason },
            error => Self::Failed {
                reason: error.describe(),
            },
        }
    }
}

impl From<store::Error> for NotDurable {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Log(error) => error.into(),
            error => Self::Failed {
                reason: error.to_string(),
            },
        }
    }
}

impl fmt::Display for NotDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { reason } => {
                write!(f, "not on disk yet, there is no space: {reason}")
            }
            Self::Failed { reason } => {
                write!(
                    f,
                    "whether it is on disk is not known, the log failed: {reason}"
                )
            }
        }
    }
}

impl Error for NotDurable {}

/// Why it cannot be said what became of records. None of it means that they were not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotDelivered {
    /// Nothing became of them in that time: they wait in the store. Ask again.
    TimedOut,
    /// The producer was closed before: those that are on disk are shipped by the next one.
    Closed,
    /// The log failed before they were on disk: whether they are is known when it is opened again.
    Failed {
        /// The first failure.
        reason: String,
    },
}

impl From<store::Error> for NotDelivered {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Log(wal::Error::Closed) => Self::Closed,
            store::Error::Log(wal::Error::Failed { reason }) => Self::Failed { reason },
            error => Self::Failed {
                reason: error.to_string(),
            },
        }
    }
}

impl fmt::Display for NotDelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("not delivered yet, it waits in the store"),
            Self::Closed => f.write_str("the producer was closed before it was delivered"),
            Self::Failed { reason } => {
                write!(f, "the log failed before it was on disk: {reason}")
            }
        }
    }
}

impl Error for NotDelivered {}

/// Why it cannot be said that a producer closed in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseError {
    /// A log could not be closed cleanly. What was acknowledged is safe; what was not may be gone.
    Store(store::Error),
    /// A callback or a waker called it, on a thread that is itself to end, and so cannot wait for that. Nothing more is
    /// taken, and shipping stops; when the callback has returned and what is in flight has ended, the
    /// store is closed. To wait for that, close it on another thread.
    InCallback,
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store(_) => "the store could not be closed cleanly",
            Self::InCallback => {
                "the producer closes when the callback that told it to has returned"
            }
        })
    }
}

impl Error for CloseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(source) => Some(source),
            Self::InCallback => None,
        }
    }
}
