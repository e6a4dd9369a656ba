//! Why a partition takes nothing, as a word and as a sentence.
//!
//! Pure. Must not know what is done about it. Invariant: the words are stable, programs go by them.

use std::time::Duration;

use crate::kafka::{ErrorClass, Failure, Leader};

/// Why a partition is held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldReason {
    /// The cluster does not have the topic.
    UnknownTopic,
    /// Records name a partition that the topic does not have.
    NoPartition {
        /// The partition.
        named: i32,
        /// How many the topic has.
        count: u32,
    },
    /// The cluster says no until a person changes something.
    Refused(Failure),
    /// The cluster says not now.
    NotNow(Failure),
    /// Nothing was acknowledged for a while, though other partitions get their acknowledgements.
    Silent,
    /// The cluster has no leader for it: its broker is gone.
    NoLeader,
    /// Every record is refused for itself: many in a row.
    EverythingRefused(Failure),
    /// A record is refused for itself, and the policy is to stop in front of it.
    Halted(Failure),
    /// A record has to go to the dead letters, and they take nothing.
    NoDeadLetters(String),
    /// The connection was lost each time while this record was on its way, alone.
    Suspect,
    /// The record does not cross the link in the longest time that a request may take.
    TooSlow {
        /// Its key and value.
        bytes: u64,
        /// That time.
        waited: Duration,
    },
    /// A recovery callback asked for time.
    Recovering,
}

impl HoldReason {
    /// Whether only a person or a change on the cluster can end it, as far as is known.
    pub fn is_definite(&self) -> bool {
        !matches!(
            self,
            HoldReason::Silent
                | HoldReason::NoLeader
                | HoldReason::NotNow(_)
                | HoldReason::Recovering
        )
    }

    /// A word for programs and metrics; stable.
    pub fn kind(&self) -> &'static str {
        match self {
            HoldReason::UnknownTopic => "unknown_topic",
            HoldReason::NoPartition { .. } => "no_partition",
            HoldReason::Refused(_) => "refused",
            HoldReason::NotNow(_) => "not_now",
            HoldReason::Silent => "silent",
            HoldReason::NoLeader => "no_leader",
            HoldReason::EverythingRefused(_) => "everything_refused",
            HoldReason::Halted(_) => "halted",
            HoldReason::NoDeadLetters(_) => "no_dead_letters",
            HoldReason::Suspect => "suspect",
            HoldReason::TooSlow { .. } => "too_slow",
            HoldReason::Recovering => "recovering",
        }
    }
}

impl std::fmt::Display for HoldReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HoldReason::UnknownTopic => f.write_str("it does not exist on the cluster; create it"),
            HoldReason::NoPartition { named, count } => write!(
                f,
                "records are for partition {named}, and the topic has {count}; add partitions to it"
            ),
            HoldReason::Refused(failure) => write!(f, "refused: {failure}"),
            HoldReason::NotNow(failure) => write!(f, "takes nothing now: {failure}"),
            HoldReason::NoLeader => f.write_str("the cluster has no leader for it"),
            HoldReason::Silent => f.write_str("nothing is acknowledged, while others are"),
            HoldReason::EverythingRefused(failure) => write!(f, "everything refused: {failure}"),
            HoldReason::Halted(failure) => {
                write!(f, "stopped in front of a refused record: {failure}")
            }
            HoldReason::NoDeadLetters(why) => {
                write!(
                    f,
                    "a refused record finds no place in the dead letters: {why}"
                )
            }
            HoldReason::Suspect => {
                f.write_str("suspect: the connection is lost each time this record is sent")
            }
            HoldReason::TooSlow { bytes, waited } => write!(
                f,
                "too big for this link: {bytes} bytes did not cross it in {} s",
                waited.as_secs()
            ),
            HoldReason::Recovering => f.write_str("the recovery callback asked for time"),
        }
    }
}

/// What a refusal of a class asks for, where it is about more than the record.
pub(super) fn reason_of(failure: &Failure) -> HoldReason {
    match failure.class {
        ErrorClass::Held => HoldReason::Refused(failure.clone()),
        _ => HoldReason::NotNow(failure.clone()),
    }
}

/// Why a partition is held by what is known of its leader; `None` if that answers.
pub(super) fn reason_of_leader(leader: Leader) -> Option<HoldReason> {
    match leader {
        Leader::Answers => None,
        Leader::Silent => Some(HoldReason::Silent),
        Leader::None => Some(HoldReason::NoLeader),
    }
}

/// Whether a topic or partition is what is missing: Kafka's codes 3 and 100, librdkafka's own.
pub(super) fn tells_of_missing(failure: &Failure) -> bool {
    matches!(failure.code, 3 | 100 | -188 | -190)
}
