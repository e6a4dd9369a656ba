//! What a record is sent with whose timestamp Kafka refuses.
//!
//! Owns what is remembered of refused timestamps. Pure; time is passed in. Must not know how a
//! refusal is found out. Invariant: what was refused of a topic is believed for a while only, and
//! says nothing about records that are older.

use std::time::{Duration, Instant};

/// How long a refused timestamp says something about the next ones of its topic.
const BAD_TIME_FOR: Duration = Duration::from_secs(600);

/// A record further ahead of our own clock than this is wrong by our clock, too.
const AHEAD_MILLIS: i64 = 30 * 60 * 1000;

/// A timestamp that says "none" (KIP-32): no broker refuses it, and none deletes by it.
const NO_TIMESTAMP: i64 = -1;

/// What is remembered of a topic.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicMemory {
    /// Timestamps from here on were refused, and until when that is believed.
    bad_time: Option<(i64, Instant)>,
    /// Whether the refusals of earlier runs are counted.
    pub(super) is_counted: bool,
}

impl TopicMemory {
    /// A record with this timestamp was refused for it.
    pub(super) fn refused(&mut self, timestamp_millis: i64, now: Instant) {
        self.bad_time = Some((timestamp_millis, now + BAD_TIME_FOR));
    }

    /// The timestamp that a record is sent with in place of its own.
    pub(super) fn stamp(
        &self,
        timestamp_millis: i64,
        now: Instant,
        wall_millis: i64,
    ) -> Option<i64> {
        let (from, until) = self.bad_time?;
        (timestamp_millis >= from && now < until).then(|| stamp(timestamp_millis, wall_millis))
    }
}

/// The timestamp in place of a refused one: now, where our own clock calls it wrong, too; else our
/// clock is the one that is wrong, and none is given.
fn stamp(refused_millis: i64, now_millis: i64) -> i64 {
    if refused_millis.saturating_sub(now_millis) > AHEAD_MILLIS {
        now_millis
    } else {
        NO_TIMESTAMP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_timestamp_becomes_now_unless_our_own_clock_is_the_wrong_one() {
        let now = 1_700_000_000_000;
        assert_eq!(stamp(now + AHEAD_MILLIS + 1, now), now);
        assert_eq!(stamp(now + 1000, now), NO_TIMESTAMP);
        assert_eq!(stamp(0, now), NO_TIMESTAMP);
        assert_eq!(stamp(i64::MAX, now), now);
    }

    #[test]
    fn a_refusal_speaks_of_the_same_and_later_times_for_ten_minutes() {
        let now = Instant::now();
        let mut memory = TopicMemory::default();
        assert_eq!(memory.stamp(5, now, 0), None);
        memory.refused(5, now);
        assert_eq!(memory.stamp(4, now, 0), None);
        assert_eq!(memory.stamp(5, now, 0), Some(NO_TIMESTAMP));
        assert_eq!(memory.stamp(5, now + BAD_TIME_FOR, 0), None);
    }
}
