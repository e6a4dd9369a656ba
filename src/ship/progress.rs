//! What a shipper tells about itself: how far it is, what it counted, and why nothing moves.
//!
//! Owns the shapes and the sentences. Must not know how any of it comes about. Invariant: counters
//! only grow.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Sink;
use super::health::HoldReason;
use super::link::{Ladder, LinkState};
use super::shipper::Shipper;
use crate::store::{Lane, Store};
use crate::wal::Gap;

/// How far shipping is; handed to the caller a few times a second, and at once when something was
/// lost.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Records acknowledged since the start.
    pub shipped: u64,
    /// Bytes of their keys and values.
    pub shipped_bytes: u64,
    /// Records without an outcome, in the lanes and their parking logs.
    pub queued: u64,
    /// Records handed over and not acknowledged.
    pub in_flight: usize,
    /// Records acknowledged per second since the last call.
    pub records_per_second: u64,
    /// The state of the link.
    pub link_state: LinkState,
    /// The state of the link in one sentence, with since when and why.
    pub link: String,
    /// How long nothing is sent yet, because it rests between two beats of
    /// [`ShipOptions::interval`](super::ShipOptions::interval).
    pub rests: Option<Duration>,
    /// How often the state of the link changed; tries that change nothing do not count.
    pub link_changes: u64,
    /// How often a link that was not up was tried.
    pub link_tries: u64,
    /// What each rung of the probe said last.
    pub ladder: Ladder,
    /// Why nothing moves, or not everything, in one sentence; none if all is well.
    pub why: Option<String>,
    /// Which of several lanes that are shipped in transactions pause after an error, and what it was; they
    /// begin again by themselves, and the others go on.
    pub trouble: Option<String>,
    /// The partitions that take nothing.
    pub held: Vec<Held>,
    /// What was said about the dead letter that was refused last, sent again or as a copy.
    pub letter_refused: Option<String>,
    /// What was counted since the start.
    pub counters: Counters,
    /// What could not be read any more since the last call: given up, settled as lost.
    pub lost: Vec<Lost>,
}

/// Records that cannot be read any more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lost {
    /// The lane they were appended to.
    pub lane: String,
    /// Which they are, and what is known of the damage.
    pub gap: Gap,
}

impl Lost {
    pub(super) fn of(lane: &Lane, gaps: &mut Vec<Gap>) -> impl Iterator<Item = Lost> {
        gaps.drain(..).map(|gap| Lost {
            lane: lane.name().to_owned(),
            gap,
        })
    }
}

/// What was done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Drained {
    /// Records acknowledged.
    pub shipped: u64,
    /// Bytes of their keys and values.
    pub shipped_bytes: u64,
    /// How often the producer was replaced.
    pub rebuilds: u32,
    /// Whether everything was shipped or settled otherwise. If not, it was told to stop, or all
    /// that is left is [`held`](Drained::held).
    pub is_empty: bool,
    /// The partitions that took nothing at the end, each with its reason.
    pub held: Vec<Held>,
    /// What was counted.
    pub counters: Counters,
    /// How long it took.
    pub elapsed: Duration,
}

/// A partition that takes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number; none: the whole topic, or what no partition can be named for.
    pub partition: Option<u32>,
    /// Why.
    pub why: HoldReason,
    /// For how long.
    pub lasted: Duration,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic `{}`", self.topic)?;
        if let Some(partition) = self.partition {
            write!(f, " partition {partition}")?;
        }
        write!(f, " held for {} s: {}", self.lasted.as_secs(), self.why)
    }
}

/// What a shipper counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Records acknowledged.
    pub shipped: u64,
    /// Bytes of their keys and values.
    pub shipped_bytes: u64,
    /// Records that went to the dead letters.
    pub dead_lettered: u64,
    /// Records that grew too old.
    pub expired: u64,
    /// Records that a retry policy gave up.
    pub dropped: u64,
    /// Records that were moved to a parking log.
    pub parked: u64,
    /// Records that came back with a refusal, siblings of the refused one among them.
    pub refused: u64,
    /// Dead letters that were sent again and acknowledged.
    pub replayed: u64,
    /// Dead letters that were refused once more: they are kept.
    pub replays_refused: u64,
    /// Dead letters that the dead-letter topic has a copy of, or a pointer to.
    pub copied: u64,
    /// Copies that the dead-letter topic refused.
    pub copies_refused: u64,
    /// Producers that were replaced.
    pub rebuilds: u32,
    /// Time from hand-over to acknowledgement.
    pub delivery: Histogram,
}

impl Counters {
    /// Counts what another shipper counted as well.
    pub fn add(&mut self, other: &Counters) {
        self.shipped += other.shipped;
        self.shipped_bytes += other.shipped_bytes;
        self.dead_lettered += other.dead_lettered;
        self.expired += other.expired;
        self.dropped += other.dropped;
        self.parked += other.parked;
        self.refused += other.refused;
        self.replayed += other.replayed;
        self.replays_refused += other.replays_refused;
        self.copied += other.copied;
        self.copies_refused += other.copies_refused;
        self.rebuilds += other.rebuilds;
        let both = self.delivery.buckets.iter_mut();
        both.zip(other.delivery.buckets).for_each(|(a, b)| *a += b);
        self.delivery.sum_millis += other.delivery.sum_millis;
    }

    /// Everything that was acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.shipped + self.replayed + self.copied
    }
}

/// How long things took, in milliseconds: bucket `n` counts what took less than 2^n and not less
/// than half of that; the last one, whatever took longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; 24],
    sum_millis: u64,
}

impl Histogram {
    pub(super) fn record(&mut self, millis: u32) {
        let bucket = usize::try_from(u32::BITS - millis.leading_zeros()).unwrap_or(0);
        let last = self.buckets.len() - 1;
        self.buckets[bucket.min(last)] += 1;
        self.sum_millis = self.sum_millis.saturating_add(millis.into());
    }

    /// The buckets, by upper bound.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long all of them took together.
    pub fn sum_millis(&self) -> u64 {
        self.sum_millis
    }
}

impl<S: Sink> Shipper<'_, S> {
    /// The partitions that take nothing, each with its reason.
    pub(super) fn all_held(&self, now: Instant) -> Vec<Held> {
        let held = self
            .health
            .iter()
            .enumerate()
            .filter_map(|(index, health)| {
                let (why, since) = health.held()?;
                let (topic, _, partition) = self.topics.named(index)?;
                self.topics.is_current(index).then(|| Held {
                    topic: Arc::clone(topic),
                    partition,
                    why: why.clone(),
                    lasted: now.saturating_duration_since(since),
                })
            });
        let mut held: Vec<Held> = held.collect();
        held.extend(self.held_letters(now));
        held
    }

    /// Why nothing moves, or not everything.
    pub(super) fn why(&self, now: Instant) -> Option<String> {
        if self.link_wanted() && !self.link.is_up() {
            return Some(format!("the link is {}", self.link.sentence(now)));
        }
        let held = self.all_held(now);
        let held = held.first().map(|first| match held.len() {
            1 => first.to_string(),
            more => format!("{first}; and {} more are held", more - 1),
        });
        let told: Vec<String> = held.into_iter().chain(self.letters.alarm()).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

/// Leaves word in the store why nothing moves, whenever that changed.
pub(super) struct Teller<'a> {
    store: &'a Store,
    cluster: &'a str,
    /// Not the words, in which time passes.
    told: Option<(bool, LinkState, usize)>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(store: &'a Store, cluster: &'a str) -> Teller<'a> {
        Teller {
            store,
            cluster,
            told: None,
        }
    }

    /// Told before whoever asked for the progress is.
    pub(super) fn before(mut self, progress: &mut dyn FnMut(&Progress)) -> impl FnMut(&Progress) {
        move |now| {
            self.tell(now);
            progress(now);
        }
    }

    fn tell(&mut self, now: &Progress) {
        let told = Some((now.why.is_some(), now.link_state, now.held.len()));
        if self.told != told {
            self.told = told;
            self.store.tell(self.cluster, now.why.as_deref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_holds_what_took_up_to_twice_as_long_as_the_one_before() {
        let mut histogram = Histogram::default();
        for millis in [0, 1, 2, 3, 4, u32::MAX] {
            histogram.record(millis);
        }
        assert_eq!(histogram.buckets()[..4], [1, 1, 2, 1]);
        assert_eq!(histogram.buckets().last(), Some(&1));
        assert_eq!(histogram.count(), 6);
    }
}
