//! How much may be in flight: enough to fill the link, never more than it carries in a few seconds.
//!
//! Pure; time is passed in. Must not know records or Kafka. Without a bound, a batch that takes
//! longer than the request timeout to cross a thin link is sent again from its first byte, for
//! ever; and a fleet that comes back after an outage arrives all at once.
//!
//! Invariants: `in_flight` is the sum over the partitions; one record may always be in flight,
//! however large, beside what lies with a producer that cannot send it; a partition that is not heard of holds at most its share while others have
//! something in flight.

use std::time::{Duration, Instant};

/// Memory a record in flight takes besides its key and value; measured, rounded up.
const RECORD_OVERHEAD: u64 = 256;

/// Memory a header takes besides its name and value; measured, rounded up.
const HEADER_OVERHEAD: u64 = 128;

/// What is in flight should cross the link in this many seconds.
const CROSSING_SECONDS: u64 = 4;

/// Below this, a link that works at all would spend its time on round trips.
const MIN_BYTES: u64 = 32 * 1024;

/// What a new connection starts with.
const FIRST_BYTES: u64 = 64 * 1024;

/// The share of a partition that is not heard of while others are: one that is stuck leaves the
/// rest to them.
const PARTITION_SHARE: u64 = 8;

/// What even a partition that is heard of leaves to the others, should it get stuck.
const RESERVED_SHARE: u64 = 16;

/// Whether a record may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Yes,
    /// Its partition has its share; others may follow.
    NotHere,
    /// Everything that may be in flight is.
    No,
}

/// Shortest time with something in flight over which goodput is measured.
const SAMPLE: Duration = Duration::from_millis(250);

/// The flight budget of one cluster, in bytes of memory.
#[derive(Debug)]
pub(super) struct Budget {
    max: u64,
    /// What slow start allows; doubles with each budget that was acknowledged.
    ramp: u64,
    /// Acknowledged since `ramp` last changed.
    ramp_acknowledged: u64,
    /// Bytes per second that were acknowledged lately; none before the first sample.
    goodput: Option<u64>,
    /// Since when something is in flight, as far as it is not in `sample_time`.
    busy_since: Option<Instant>,
    /// Idle time says nothing about the link: only time with something in flight counts.
    sample_time: Duration,
    sample_bytes: u64,
    in_flight: u64,
    /// What of it lies with a producer that cannot send it.
    stuck: u64,
    /// Acknowledged since the beginning.
    acknowledged: u64,
    /// By the index that the caller gives to each topic-partition.
    partitions: Vec<Part>,
}

/// One topic-partition.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    in_flight: u64,
    is_stuck: bool,
    /// What `acknowledged` was when it was last heard of.
    heard_at: Option<u64>,
}

impl Budget {
    pub(super) fn new(max: u64) -> Budget {
        Budget {
            max,
            ramp: FIRST_BYTES,
            ramp_acknowledged: 0,
            goodput: None,
            busy_since: None,
            sample_time: Duration::ZERO,
            sample_bytes: 0,
            in_flight: 0,
            stuck: 0,
            acknowledged: 0,
            partitions: Vec::new(),
        }
    }

    /// What may be in flight now.
    pub(super) fn limit(&self) -> u64 {
        let carried = self.goodput.map_or(u64::MAX, |bytes| {
            bytes.saturating_mul(CROSSING_SECONDS).max(MIN_BYTES)
        });
        self.ramp.min(carried).min(self.max)
    }

    /// Whether a record of this cost may follow into this partition.
    ///
    /// What is in flight comes back in turn. So a partition that works is heard of before a whole
    /// budget of others was acknowledged, and may hold what falls to it: how the lanes share the
    /// link is not decided here.
    pub(super) fn room(&self, partition: usize, cost: u64) -> Room {
        let part = self.part(partition);
        let limit = self.limit();
        if self.in_flight == self.stuck {
            return Room::Yes;
        }
        if self.in_flight.saturating_add(cost) > limit {
            return Room::No;
        }
        if part.in_flight == self.in_flight || part.in_flight == 0 {
            return Room::Yes;
        }
        let share = match self.is_heard(partition) {
            true => limit - limit / RESERVED_SHARE,
            false => limit / PARTITION_SHARE,
        };
        match part.in_flight.saturating_add(cost) <= share {
            true => Room::Yes,
            false => Room::NotHere,
        }
    }

    /// Whether a partition was heard of before a whole budget of others was acknowledged.
    pub(super) fn is_heard(&self, partition: usize) -> bool {
        let heard_at = self.part(partition).heard_at;
        heard_at.is_some_and(|at| self.acknowledged - at <= self.limit())
    }

    pub(super) fn is_stuck(&self, partition: usize) -> bool {
        self.part(partition).is_stuck
    }

    /// Whether what a partition has in flight lies with a producer that cannot send it: it says nothing about
    /// the link, and leaves it to others.
    pub(super) fn set_stuck(&mut self, partition: usize, is_stuck: bool) {
        let Some(part) = self.partitions.get_mut(partition) else {
            return;
        };
        match (part.is_stuck, is_stuck) {
            (false, true) => self.stuck += part.in_flight,
            (true, false) => self.stuck -= part.in_flight,
            _ => {}
        }
        part.is_stuck = is_stuck;
    }

    /// A record was handed over.
    pub(super) fn take(&mut self, partition: usize, cost: u64, now: Instant) {
        self.busy_since.get_or_insert(now);
        if self.partitions.len() <= partition {
            self.partitions.resize(partition + 1, Part::default());
        }
        let part = &mut self.partitions[partition];
        part.in_flight += cost;
        self.stuck += if part.is_stuck { cost } else { 0 };
        self.in_flight += cost;
    }

    /// It is in flight no more.
    fn land(&mut self, partition: usize, cost: u64) {
        assert!(self.in_flight >= cost, "more came back than was taken");
        let part = &mut self.partitions[partition];
        part.in_flight -= cost;
        self.stuck -= if part.is_stuck { cost } else { 0 };
        self.in_flight -= cost;
    }

    /// A record was acknowledged.
    pub(super) fn acknowledge(&mut self, partition: usize, cost: u64) {
        self.land(partition, cost);
        self.acknowledged += cost;
        self.partitions[partition].heard_at = Some(self.acknowledged);
        self.sample_bytes += cost;
        self.ramp_acknowledged += cost;
    }

    /// A record came back: it takes nothing any more, and says nothing about the link.
    pub(super) fn give_back(&mut self, partition: usize, cost: u64) {
        self.land(partition, cost);
    }

    /// What a partition has in flight.
    pub(super) fn of(&self, partition: usize) -> u64 {
        self.part(partition).in_flight
    }

    fn part(&self, partition: usize) -> Part {
        self.partitions.get(partition).copied().unwrap_or_default()
    }

    /// Draws the conclusions from what was acknowledged since; to be called once after each poll.
    pub(super) fn measure(&mut self, now: Instant) {
        if let Some(since) = self.busy_since {
            self.sample_time += now.saturating_duration_since(since);
            self.busy_since = (self.in_flight > self.stuck).then_some(now);
        }
        if self.sample_time >= SAMPLE && self.sample_bytes > 0 {
            let millis = u64::try_from(self.sample_time.as_millis()).unwrap_or(u64::MAX);
            let rate = self.sample_bytes.saturating_mul(1000) / millis.max(1);
            self.goodput = Some(match self.goodput {
                Some(before) => before / 2 + rate / 2,
                None => rate,
            });
            self.begin_sample();
        }
        let limit = self.limit();
        if self.ramp_acknowledged >= limit {
            self.ramp = limit
                .saturating_mul(2)
                .clamp(FIRST_BYTES, self.max.max(FIRST_BYTES));
            self.ramp_acknowledged = 0;
        }
    }

    /// A request timed out: too much was in flight.
    pub(super) fn timed_out(&mut self) {
        self.ramp = (self.limit() / 4).max(MIN_BYTES);
        self.ramp_acknowledged = 0;
    }

    /// A new connection: it may be another link than before.
    pub(super) fn reconnected(&mut self, now: Instant) {
        self.ramp = FIRST_BYTES;
        self.ramp_acknowledged = 0;
        self.goodput = None;
        self.busy_since = self.busy_since.map(|_| now);
        self.begin_sample();
    }

    fn begin_sample(&mut self) {
        self.sample_time = Duration::ZERO;
        self.sample_bytes = 0;
    }
}

/// The memory one record takes while it is in flight; `payload_len` is its key and value.
pub(super) fn cost(payload_len: usize, headers: &[(&str, Option<&[u8]>)]) -> u64 {
    let of_headers = headers.iter().map(|(name, value)| {
        HEADER_OVERHEAD + length(name.len()) + length(value.map_or(0, <[u8]>::len))
    });
    RECORD_OVERHEAD + length(payload_len) + of_headers.sum::<u64>()
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 64 * 1024 * 1024;

    /// Acknowledges `bytes` that were in flight for `time`.
    fn carry(budget: &mut Budget, now: &mut Instant, bytes: u64, time: Duration) {
        budget.take(0, bytes, *now);
        *now += time;
        budget.acknowledge(0, bytes);
        budget.measure(*now);
    }

    #[test]
    fn a_new_connection_starts_small_and_doubles_with_each_budget_acknowledged() {
        let mut now = Instant::now();
        let mut budget = Budget::new(MAX);
        let mut limits = Vec::new();
        for _ in 0..4 {
            let limit = budget.limit();
            limits.push(limit);
            carry(&mut budget, &mut now, limit, Duration::from_millis(1));
        }
        assert_eq!(limits, [64 << 10, 128 << 10, 256 << 10, 512 << 10]);
        budget.reconnected(now);
        assert_eq!(budget.limit(), FIRST_BYTES);
    }

    #[test]
    fn a_fast_link_is_bounded_by_the_maximum_alone() {
        let mut now = Instant::now();
        let mut budget = Budget::new(MAX);
        for _ in 0..40 {
            let limit = budget.limit();
            carry(&mut budget, &mut now, limit, Duration::from_millis(10));
        }
        assert_eq!(budget.limit(), MAX);
    }

    /// 64 kbit/s: a budget must cross in a few seconds, or a batch never does within a timeout.
    #[test]
    fn a_thin_link_carries_its_budget_in_a_few_seconds() {
        let mut now = Instant::now();
        let mut budget = Budget::new(MAX);
        for _ in 0..20 {
            let limit = budget.limit();
            assert!(
                limit <= 128 * 1024,
                "{limit} bytes on a link of 8,000 a second"
            );
            carry(
                &mut budget,
                &mut now,
                limit,
                Duration::from_millis(limit / 8),
            );
        }
        assert_eq!(budget.limit(), MIN_BYTES);
    }

    #[test]
    fn a_timeout_quarters_the_budget_down_to_its_floor() {
        let mut now = Instant::now();
        let mut budget = Budget::new(MAX);
        for _ in 0..4 {
            let limit = budget.limit();
            carry(&mut budget, &mut now, limit, Duration::from_millis(1));
        }
        let before = budget.limit();
        budget.timed_out();
        assert_eq!(budget.limit(), before / 4);
        for _ in 0..10 {
            budget.timed_out();
        }
        assert_eq!(budget.limit(), MIN_BYTES);
    }

    #[test]
    fn a_partition_alone_may_use_everything_and_else_its_share() {
        let now = Instant::now();
        let mut budget = Budget::new(MAX);
        let limit = budget.limit();
        budget.take(0, limit / 2, now);
        assert_eq!(budget.room(0, limit / 2), Room::Yes);
        assert_eq!(budget.room(0, limit / 2 + 1), Room::No);
        // A second partition may always begin, and is then held to its share.
        assert_eq!(budget.room(1, limit / 2), Room::Yes);
        budget.take(1, limit / 16, now);
        assert_eq!(budget.room(1, limit / 16), Room::Yes);
        assert_eq!(budget.room(1, limit / 16 + 1), Room::NotHere);
        assert_eq!(budget.room(0, 1), Room::NotHere);
    }

    #[test]
    fn a_partition_that_is_heard_of_may_hold_what_falls_to_it_and_a_stuck_one_may_not() {
        let now = Instant::now();
        let mut budget = Budget::new(MAX);
        let limit = budget.limit();
        budget.take(0, limit / 4, now);
        budget.take(1, limit / 4, now);
        budget.acknowledge(0, 100);
        assert_eq!(budget.room(0, limit / 4), Room::Yes);
        assert_eq!(budget.room(1, 1), Room::NotHere, "nothing is known of it");
        // It leaves a little to others, should it get stuck.
        budget.acknowledge(1, limit / 4 - 1);
        assert_eq!(budget.room(0, limit * 3 / 4), Room::NotHere);
        // And then it does, while a budget of others comes back.
        for _ in 0..7 {
            assert_eq!(budget.room(0, 1), Room::Yes);
            budget.take(1, limit / 8, now);
            budget.acknowledge(1, limit / 8);
        }
        assert_eq!(budget.room(0, 1), Room::NotHere);
        budget.acknowledge(0, 100);
        assert_eq!(budget.room(0, 1), Room::Yes);
    }

    #[test]
    fn one_record_larger_than_the_budget_goes_alone() {
        let now = Instant::now();
        let mut budget = Budget::new(MAX);
        assert_eq!(budget.room(5, 10 * MAX), Room::Yes);
        budget.take(5, 10 * MAX, now);
        assert_eq!(budget.room(0, 1), Room::No);
        budget.acknowledge(5, 10 * MAX);
        assert_eq!(budget.room(0, 1), Room::Yes);
    }

    #[test]
    fn idle_time_is_no_evidence_of_a_thin_link() {
        let mut now = Instant::now();
        let mut budget = Budget::new(MAX);
        for _ in 0..20 {
            now += Duration::from_secs(60);
            let limit = budget.limit();
            carry(&mut budget, &mut now, limit, Duration::from_millis(300));
        }
        assert!(budget.limit() > 100 * FIRST_BYTES, "{}", budget.limit());
    }

    #[test]
    fn what_lies_with_a_producer_that_cannot_send_it_makes_no_link_thin() {
        let mut now = Instant::now();
        let mut budget = Budget::new(MAX);
        budget.take(1, 1000, now);
        budget.set_stuck(1, true);
        for _ in 0..100 {
            now += Duration::from_secs(60);
            budget.take(0, 300, now);
            now += Duration::from_millis(3);
            budget.acknowledge(0, 300);
            budget.measure(now);
        }
        assert_eq!(budget.limit(), FIRST_BYTES);
        assert_eq!(budget.room(0, 10 * MAX), Room::Yes, "one may always go");
        budget.set_stuck(1, false);
        assert_eq!(budget.room(0, 10 * MAX), Room::No);
        budget.measure(now);
        for _ in 0..20 {
            now += Duration::from_secs(60);
            budget.take(0, 300, now);
            budget.acknowledge(0, 300);
            budget.measure(now);
        }
        assert_eq!(budget.limit(), MIN_BYTES, "it was on its way all the time");
    }

    /// A stall leaves a budget so small that all of it is acknowledged at once, again and again.
    #[test]
    fn a_budget_that_empties_with_each_round_trip_grows_back() {
        let mut now = Instant::now();
        let mut budget = Budget::new(MAX);
        carry(&mut budget, &mut now, 10_000, Duration::from_secs(20));
        assert_eq!(budget.limit(), MIN_BYTES);
        let since = now;
        while now - since < Duration::from_secs(3) {
            let limit = budget.limit();
            carry(
                &mut budget,
                &mut now,
                limit / PARTITION_SHARE,
                Duration::from_millis(10),
            );
        }
        assert!(budget.limit() > 16 * MIN_BYTES, "{}", budget.limit());
    }

    #[test]
    fn headers_are_counted() {
        assert_eq!(cost(8, &[]), 264);
        assert_eq!(
            cost(8, &[("ab", Some(b"cde")), ("f", None)]),
            264 + 133 + 129
        );
    }
}
