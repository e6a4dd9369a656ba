//! What can go wrong in the engine, grouped by what the caller does next.
//!
//! Owns: the error type and its text. Must not know: how an error came about.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::seq::{LogId, SeqNo};

/// What can go wrong in the engine, grouped by what the caller should do next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. While opening: nothing was changed. While running: nothing
    /// that was acknowledged is affected.
    Io {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Bytes that were promised no longer check out. Never returned for a torn tail. Nothing on
    /// disk was changed; `ferrylog verify` lists what is readable.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Byte position in the file.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The batch can never fit. Nothing was appended; do not retry.
    TooLarge {
        /// Bytes of the record or encoded batch.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The memory budget is used up by records that are not on disk yet. Nothing was appended;
    /// wait for a ticket and try again, or use `append`, which blocks.
    Busy,
    /// There is no space: the disk is full, or the quota is reached. This ends by itself when space returns; nothing that was
    /// acknowledged is affected. Free space or settle records, and go on.
    Full {
        /// What was attempted, and the answer.
        reason: String,
        /// False: nothing was appended. True: the record keeps its number and its place in memory,
        /// and is written as soon as there is space, unless the log is closed before; until then its
        /// outcome is unknown (P8).
        staged: bool,
    },
    /// There is no space, and the policy gives up what comes: nothing was appended, and nobody will
    /// try again. `Wal::refused` counts it.
    Dropped {
        /// What was attempted, and the answer.
        reason: String,
    },
    /// A write or sync failed and so did the one rewrite to a fresh segment: the log takes nothing
    /// more. What was acknowledged is safe; **the outcome of what was waiting is unknown**, it may
    /// come back after recovery (P8). Reopen the log.
    Failed {
        /// The first failure.
        reason: String,
    },
    /// The log is closed.
    Closed,
    /// Another process, or another part of this one, has the log open.
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// There is no log in this directory (only for opening without creating).
    NotALog {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a newer version, with a feature this one must not ignore. Nothing was changed.
    Version {
        /// The file.
        path: PathBuf,
        /// What is not understood.
        found: String,
    },
    /// Records or definitions are encrypted, and do not open: their key was not given, or is another
    /// one. Nothing is damaged, and nothing was changed: come again with the right key.
    Key {
        /// The segment.
        path: PathBuf,
        /// The id of its key.
        id: u32,
        /// A key of this id was given.
        is_given: bool,
    },
    /// This build lacks a feature of the crate. Nothing is damaged, and nothing was changed.
    Feature {
        /// The segment.
        path: PathBuf,
        /// The feature.
        feature: &'static str,
    },
    /// Files of two logs are mixed in one directory. Nothing was changed; take the foreign ones out.
    ForeignLog {
        /// The file that does not belong.
        path: PathBuf,
        /// The log it belongs to.
        found: LogId,
        /// The log of the other files.
        expected: LogId,
    },
    /// The records asked for were released: all of them had been settled.
    Released {
        /// The oldest record that is left.
        first: SeqNo,
    },
    /// An option is outside its range.
    Options {
        /// Which one, what it is, and what it may be.
        reason: String,
    },
}

impl Error {
    /// Makes an [`Error::Io`]; use with `map_err`. The path is copied only where there is an error.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.into(),
            source,
        }
    }

    /// With its cause, on one line.
    pub(crate) fn describe(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    /// Whether it says that there is no space right now.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }

    /// The one place where corruption is declared: a breakpoint, a counter, a log line.
    pub(crate) fn corrupt(
        path: impl Into<PathBuf>,
        position: u64,
        reason: impl Into<String>,
    ) -> Self {
        Self::Corrupt {
            path: path.into(),
            position,
            reason: reason.into(),
        }
    }
}

const STAGED: &str = "what was appended is in memory, and is written when space returns, unless the log is closed before; until then its outcome is unknown";
const NOT_STAGED: &str = "nothing was appended";
const NO_KEY: &str = "which was not given";
const OTHER_KEY: &str =
    "and the one given does not open it: it is another key, or somebody changed bytes and checksum";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, .. } => write!(f, "could not {action} {}", path.display()),
            Self::Corrupt {
                path,
                position,
                reason,
            } => {
                write!(
                    f,
                    "{} is corrupt at position {position}: {reason}",
                    path.display()
                )
            }
            Self::TooLarge { len, max } => {
                write!(f, "{len} bytes are over the limit of {max} bytes")
            }
            Self::Busy => f.write_str("the memory budget is used up by records not yet on disk"),
            Self::Full { reason, staged } => {
                let kept = if *staged { STAGED } else { NOT_STAGED };
                write!(f, "no space: {reason}; {kept}")
            }
            Self::Dropped { reason } => {
                write!(
                    f,
                    "given up for lack of space, nothing was appended: {reason}"
                )
            }
            Self::Failed { reason } => {
                write!(
                    f,
                    "the log failed and must be reopened; the outcome of what was waiting is unknown: {reason}"
                )
            }
            Self::Closed => f.write_str("the log is closed"),
            Self::Locked { path } => write!(f, "{} is held by another process", path.display()),
            Self::NotALog { path } => write!(f, "there is no log in {}", path.display()),
            Self::Version { path, found } => {
                write!(f, "{} needs a newer version: {found}", path.display())
            }
            Self::Key { path, id, is_given } => {
                let why = if *is_given { OTHER_KEY } else { NO_KEY };
                write!(f, "{} is encrypted with key {id}, {why}", path.display())
            }
            Self::Feature { path, feature } => {
                write!(
                    f,
                    "{} needs a build with the feature {feature}",
                    path.display()
                )
            }
            Self::ForeignLog {
                path,
                found,
                expected,
            } => {
                write!(
                    f,
                    "{} belongs to log {found}, the others to {expected}",
                    path.display()
                )
            }
            Self::Released { first } => {
                write!(f, "these records were released; the oldest left is {first}")
            }
            Self::Options { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Corrupt { .. }
            | Self::TooLarge { .. }
            | Self::Busy
            | Self::Full { .. }
            | Self::Dropped { .. }
            | Self::Failed { .. }
            | Self::Closed
            | Self::Locked { .. }
            | Self::NotALog { .. }
            | Self::Version { .. }
            | Self::Key { .. }
            | Self::Feature { .. }
            | Self::ForeignLog { .. }
            | Self::Released { .. }
            | Self::Options { .. } => None,
        }
    }
}
