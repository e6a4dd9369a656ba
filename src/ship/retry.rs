//! How often and when a refused record is tried again, and what becomes of it then.
//!
//! Pure; randomness is passed in. Must not know Kafka or the log. Invariant: the wait between two
//! tries is never longer than [`RetryPolicy::max_backoff`], nor than [`WAIT_MAX`].

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::link::jittered;
use crate::kafka::Failure;
use crate::message::Message;
use crate::wal::SeqNo;

/// The longest wait of all. A program that means never may say [`Duration::MAX`], behind which there is no
/// instant.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What is done about a record that Kafka refuses, and about a partition that takes nothing.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts after which a record is exhausted. An attempt counts only when a broker refused
    /// this record alone and took another one of its partition since the attempt before.
    pub max_attempts: u32,
    /// Wait after the first failure in a row.
    pub initial_backoff: Duration,
    /// Each further wait is this many times as long.
    pub multiplier: f64,
    /// The longest wait.
    pub max_backoff: Duration,
    /// Whether a wait is drawn evenly from nothing to its length, so that a fleet does not try in
    /// step.
    pub jitter: bool,
    /// What becomes of a record whose attempts are exhausted.
    pub on_exhausted: OnExhausted,
    /// What becomes of a record that is refused for what it is: one attempt is enough.
    pub on_poison: OnPoison,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 10,
            initial_backoff: Duration::from_millis(200),
            multiplier: 2.0,
            max_backoff: Duration::from_secs(30),
            jitter: true,
            on_exhausted: OnExhausted::DeadLetter,
            on_poison: OnPoison::DeadLetter,
        }
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("max_attempts", &self.max_attempts)
            .field("initial_backoff", &self.initial_backoff)
            .field("multiplier", &self.multiplier)
            .field("max_backoff", &self.max_backoff)
            .field("jitter", &self.jitter)
            .field("on_exhausted", &self.on_exhausted)
            .field("on_poison", &self.on_poison)
            .finish()
    }
}

impl RetryPolicy {
    /// After how many trials the record behind it is tried, to prove which one is to blame. That one passes
    /// by it, so where nothing follows from the proof there is none.
    pub(super) fn attempts(&self) -> u32 {
        match self.on_exhausted {
            OnExhausted::Halt => u32::MAX,
            _ => self.max_attempts,
        }
    }

    /// The wait before the next try, after so many failures in a row. `random` is evenly spread
    /// over all of `u64`.
    pub(super) fn wait(&self, failures: u32, random: u64) -> Duration {
        let factor = self
            .multiplier
            .max(1.0)
            .powi(i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX));
        let seconds = self.initial_backoff.as_secs_f64() * factor;
        let longest = Duration::try_from_secs_f64(seconds)
            .unwrap_or(self.max_backoff)
            .min(self.max_backoff)
            .min(WAIT_MAX);
        if self.jitter {
            jittered(longest, random)
        } else {
            longest
        }
    }
}

/// Another record of the partition proves that a refused one is to blame only if it was handed over
/// so soon after: in a longer time what was refused may be over, and nobody to blame.
pub(super) const PROOF_MILLIS: u32 = 1000;

/// A record that was refused alone for what says nothing about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempted {
    pub(super) source: usize,
    pub(super) seq: SeqNo,
    /// How often.
    pub(super) count: u32,
    /// How often it may be.
    pub(super) most: u32,
    /// With what, the last time.
    pub(super) failure: Failure,
    /// When, the last time.
    pub(super) at_millis: u32,
}

impl Attempted {
    pub(super) fn is(&self, source: usize, seq: SeqNo) -> bool {
        (self.source, self.seq) == (source, seq)
    }

    /// Whether another record of its partition that is handed over then, and taken, proves that it is
    /// to blame.
    pub(super) fn is_proved_by(&self, handed_over_millis: u32) -> bool {
        self.is_tried_enough() && handed_over_millis.wrapping_sub(self.at_millis) < PROOF_MILLIS
    }

    /// Whether it was refused as often as it may be.
    pub(super) fn is_tried_enough(&self) -> bool {
        self.count >= self.most
    }
}

/// The record that was refused for itself last, and how often.
#[derive(Clone, Debug)]
pub(super) struct Judged<K>(Option<(K, u32)>);

impl<K> Judged<K> {
    pub(super) const NONE: Self = Self(None);
}

impl<K: PartialEq> Judged<K> {
    /// One was refused for itself; returns how often this one was in a row.
    pub(super) fn again(&mut self, record: K) -> u32 {
        let before = self.0.take().filter(|(judged, _)| *judged == record);
        let count = before.map_or(1, |(_, count)| count.saturating_add(1));
        self.0 = Some((record, count));
        count
    }
}

/// What becomes of a record that is refused for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnPoison {
    /// It goes to the dead letters, and its partition goes on; or [`OnExhausted::Callback`] decides, where
    /// there is one.
    #[default]
    DeadLetter,
    /// Its partition is held in front of it.
    Halt,
}

/// What a program decides about a record that Kafka refused for good.
pub(super) type Decide = dyn Fn(&FailedRecord<'_>) -> Recovery + Send + Sync;

/// What becomes of a record whose attempts are exhausted.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum OnExhausted {
    /// It goes to the dead letters, and its partition goes on.
    #[default]
    DeadLetter,
    /// Its partition is held in front of it, and it is tried on. Without transactions its attempts are not
    /// counted: the record behind it would pass.
    Halt,
    /// It is given up, as a gap that is counted.
    Drop,
    /// A function of the program decides, on the shipping thread: it must not block for long. It is asked
    /// about a record that is refused for what it is, too, unless that [halts](OnPoison::Halt).
    Callback(Arc<dyn Fn(&FailedRecord<'_>) -> Recovery + Send + Sync>),
}

/// Two functions are the same only where one is a clone of the other.
impl PartialEq for OnExhausted {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Callback(own), Self::Callback(other)) => Arc::ptr_eq(own, other),
            _ => mem::discriminant(self) == mem::discriminant(other),
        }
    }
}

impl fmt::Debug for OnExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnExhausted::DeadLetter => "DeadLetter",
            OnExhausted::Halt => "Halt",
            OnExhausted::Drop => "Drop",
            OnExhausted::Callback(_) => "Callback",
        })
    }
}

/// A record that Kafka refused for good: what a recovery callback is shown.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FailedRecord<'a> {
    /// Its number in its lane.
    pub seq: SeqNo,
    /// That lane.
    pub lane: &'a str,
    /// Its tenant, if it has one that the options know.
    pub tenant: Option<&'a str>,
    /// What it holds.
    pub message: &'a Message,
    /// How often it was refused alone.
    pub attempts: u32,
    /// What the cluster said last.
    pub failure: &'a Failure,
}

/// What a recovery callback answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// It goes to the dead letters.
    DeadLetter,
    /// It is tried again after this time, a year at most, its partition held meanwhile. Of an exhausted record,
    /// and without transactions, the one behind it was taken by then: that is how it is known to be to blame.
    Retry(Duration),
    /// It is given up, as a gap that is counted.
    Drop,
    /// This goes in its place, under its identity. The topic and partition stay. As to its order, see
    /// [`Retry`](Self::Retry).
    Replace(Replacement),
}

/// What goes in the place of a record.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Replacement {
    /// The key; `None` is Kafka's null.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is Kafka's null, a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, by name and value; `None`: those of the record.
    pub headers: Option<Vec<(String, Option<Vec<u8>>)>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_the_multiplier_to_the_maximum() {
        let policy = RetryPolicy {
            jitter: false,
            ..RetryPolicy::default()
        };
        let waits: Vec<u128> = (1..12)
            .map(|failures| policy.wait(failures, 0).as_millis())
            .collect();
        assert_eq!(
            waits,
            [
                200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000
            ]
        );
        assert_eq!(policy.wait(u32::MAX, 0), policy.max_backoff);
        let never = RetryPolicy {
            initial_backoff: Duration::MAX,
            max_backoff: Duration::MAX,
            ..policy
        };
        assert_eq!(never.wait(1, 0), WAIT_MAX);
    }

    #[test]
    fn a_wait_with_jitter_lies_between_nothing_and_its_length() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.wait(3, 0), Duration::ZERO);
        assert_eq!(policy.wait(3, u64::MAX / 2 + 1), Duration::from_millis(400));
        assert!(policy.wait(3, u64::MAX) <= Duration::from_millis(800));
    }
}
