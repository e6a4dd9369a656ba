//! What a dead letter is: a record that Kafka, a schema or the codec refused, and why.
//!
//! Owns the shapes: one that borrows, to be kept ([`Letter`]), one that is read back
//! ([`StoredLetter`]), and the states between. It must not know how either is written.
//!
//! Invariant: whatever became of a letter, its content is what the producer gave, byte for byte.

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::{
    message::{Message, MessageRef},
    wal::{LogId, SeqNo},
};

/// Longest class, in bytes; what is longer is cut.
pub const CLASS_LEN_MAX: usize = 32;
/// Longest reason, in bytes; what is longer is cut. A reason is a sentence, not a stack trace.
pub const REASON_LEN_MAX: usize = 1024;
/// Longest lane name that a letter tells, in bytes; what is longer is cut.
pub const LANE_LEN_MAX: usize = 255;
/// Most letters of one log, whatever became of them, as long as their bytes are on disk. Each takes
/// about 150 bytes of memory, so all of them 40 MiB.
pub const LETTERS_MAX: usize = 1 << 18;

/// Where a dead letter comes from. Two letters of one origin are one record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// The log.
    pub log_id: LogId,
    /// Its number there.
    pub seq: SeqNo,
}

/// As the `ferry-id` header has it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.log_id, self.seq)
    }
}

/// Where a record failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Stage {
    /// Its bytes in the log are no message.
    Decode,
    /// It does not fit its schema.
    Schema,
    /// No topic or partition takes it.
    Route,
    /// A broker refused it.
    Produce,
}

impl Stage {
    /// All stages, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Decode, Self::Schema, Self::Route, Self::Produce];

    /// The word used in headers and in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Schema => "schema",
            Self::Route => "route",
            Self::Produce => "produce",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why and when a record died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cause<'a> {
    /// One word for the kind of refusal, `poison` for one; cut to [`CLASS_LEN_MAX`].
    pub class: &'a str,
    /// The code of the one who refused: Kafka's own, negative for librdkafka's.
    pub code: i32,
    /// Where it failed.
    pub stage: Stage,
    /// What was said, for a person; cut to [`REASON_LEN_MAX`].
    pub reason: &'a str,
    /// How often it was tried alone.
    pub attempts: u32,
    /// When it was tried first, in milliseconds since 1970.
    pub first_attempt_millis: i64,
    /// When it was tried last.
    pub last_attempt_millis: i64,
}

/// What the record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Content<'a> {
    /// A message. Its partition is the one that was chosen, its timestamp never missing.
    Message(MessageRef<'a>),
    /// Bytes that are no message.
    Raw(&'a [u8]),
}

/// A record that is given up, to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Letter<'a> {
    /// Where it comes from.
    pub origin: Origin,
    /// The lane of that log; cut to [`LANE_LEN_MAX`].
    pub lane: &'a str,
    /// Why it is given up.
    pub cause: Cause<'a>,
    /// The record.
    pub content: Content<'a>,
}

/// What was decided about a letter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum State {
    /// It lies here until somebody decides.
    Kept,
    /// It is to be sent again.
    Pending,
    /// It was sent again, and Kafka has it.
    Replayed,
    /// An operator gave it up, or an edited one took its place.
    Dropped,
    /// Its time or its space was over.
    Gone,
    /// Its bytes are no letter that this version knows. It stays until its space is needed.
    Unreadable,
}

impl State {
    /// The word used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Pending => "pending",
            Self::Replayed => "replayed",
            Self::Dropped => "dropped",
            Self::Gone => "gone",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether anything can still be decided about it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Kept | Self::Pending)
    }
}

/// Whether the dead-letter topic has a letter, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Copied {
    /// Not yet, or no such topic is wanted.
    No,
    /// Kafka has it.
    Yes,
    /// Kafka refused it with this code: it stays here alone.
    Refused(i32),
}

/// A letter as it was read back.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StoredLetter {
    /// Its number in the dead-letter log.
    pub seq: SeqNo,
    /// What was decided about it.
    pub state: State,
    /// Whether the dead-letter topic has it.
    pub copied: Copied,
    /// What it says.
    pub body: Body,
}

/// What a letter says.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Body {
    /// Where the record comes from.
    pub origin: Origin,
    /// The letter whose place it took: this one was edited.
    pub replaces: Option<SeqNo>,
    /// The lane of the origin's log.
    pub lane: String,
    /// One word for the kind of refusal.
    pub class: String,
    /// The code of the one who refused.
    pub code: i32,
    /// Where it failed.
    pub stage: Stage,
    /// What was said.
    pub reason: String,
    /// How often it was tried alone.
    pub attempts: u32,
    /// When it was tried first, in milliseconds since 1970.
    pub first_attempt_millis: i64,
    /// When it was tried last.
    pub last_attempt_millis: i64,
    /// The record: a message, or the bytes that are none.
    pub content: Result<Message, Bytes>,
}

impl Body {
    /// Why it died, to be written once more.
    #[must_use]
    pub fn cause(&self) -> Cause<'_> {
        Cause {
            class: &self.class,
            code: self.code,
            stage: self.stage,
            reason: &self.reason,
            attempts: self.attempts,
            first_attempt_millis: self.first_attempt_millis,
            last_attempt_millis: self.last_attempt_millis,
        }
    }

    /// The topic it was for, if its bytes are a message.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        Some(&*self.content.as_ref().ok()?.topic)
    }
}

/// Letters by what became of them, and the space they take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DeadLetterCounts {
    /// Nobody has decided about them.
    pub kept: u64,
    /// They wait to be sent again.
    pub pending: u64,
    /// Sent again, in the life of the log.
    pub replayed: u64,
    /// Given up by an operator, replaced by an edited one, or given up for space; in the life of the log.
    pub dropped: u64,
    /// Kept for longer than the retention; in the life of the log.
    pub expired: u64,
    /// Of those kept or pending: Kafka has a copy.
    pub copied: u64,
    /// Of those kept or pending: Kafka refused the copy.
    pub copy_refused: u64,
    /// Records that this version cannot read. They count as kept in the log's own sum.
    pub unreadable: u64,
    /// Bytes of letters on disk, whatever became of them.
    pub bytes: u64,
    /// Most bytes that the log may take; zero where that is not known, in a view.
    pub quota: u64,
}

/// What happens to a new letter when neither copied nor outdated ones can make room for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnLettersFull {
    /// It is refused, and its partition waits: nothing is lost.
    #[default]
    Hold,
    /// The oldest letters are given up for it, and counted.
    DropOldest,
}

/// How dead letters are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeadLetterOptions {
    /// Most bytes that the log takes, at least [`QUOTA_MIN`]. Default: 1 GiB. Below 1 GiB a letter has
    /// at most 1/64 of it.
    pub quota_bytes: u64,
    /// How long a letter is kept that nobody decides about; not zero. Default: 30 days.
    pub retention: Duration,
    /// What happens when there is no room.
    pub on_full: OnLettersFull,
}

/// Smallest quota: eight of the smallest segments.
pub const QUOTA_MIN: u64 = 8 << 20;

impl Default for DeadLetterOptions {
    fn default() -> Self {
        Self {
            quota_bytes: 1 << 30,
            retention: Duration::from_hours(30 * 24),
            on_full: OnLettersFull::Hold,
        }
    }
}
