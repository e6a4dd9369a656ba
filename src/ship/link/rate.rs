//! At most so many bytes a second: a bucket that is filled by time and emptied by records.
//!
//! Pure; time is passed in. Must not know what is sent. Invariants: over any time, no more is let
//! through than the rate allows, one second's worth that had gathered before, and one record; a record
//! larger than the bucket passes once the bucket is not empty, and its debt is worked off.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What may gather while nothing is sent.
const GATHERS: Duration = Duration::from_secs(1);

const NANOS: i128 = 1_000_000_000;

/// A limit on bytes a second.
#[derive(Debug)]
pub(in crate::ship) struct DrainRate {
    /// Bytes a second; no limit if `None`.
    rate: Option<NonZeroU64>,
    /// In bytes times nanoseconds, so that nothing is lost to rounding. Never above `rate * GATHERS`.
    credit: i128,
    filled: Instant,
}

impl DrainRate {
    /// Begins with a full bucket.
    pub(in crate::ship) fn new(rate: Option<NonZeroU64>, now: Instant) -> DrainRate {
        let mut new = DrainRate {
            rate,
            credit: 0,
            filled: now,
        };
        new.credit = new.credit_max();
        new
    }

    /// Whether a record may be sent now.
    pub(in crate::ship) fn has_room(&mut self, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        let elapsed = now.saturating_duration_since(self.filled).as_nanos();
        // An endless wait fills the bucket, too.
        let elapsed = i128::try_from(elapsed).unwrap_or(i128::MAX);
        let gained = i128::from(rate.get()).saturating_mul(elapsed);
        self.credit = self.credit.saturating_add(gained).min(self.credit_max());
        // Of several who ask, one may have looked at the clock earlier: that time is given out.
        self.filled = self.filled.max(now);
        self.credit > 0
    }

    /// Whether it held a record back when it was last asked.
    pub(in crate::ship) fn holds_back(&self) -> bool {
        self.rate.is_some() && self.credit <= 0
    }

    /// A record of so many bytes was sent.
    pub(in crate::ship) fn take(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.credit = self.credit.saturating_sub(i128::from(bytes) * NANOS);
        }
    }

    fn credit_max(&self) -> i128 {
        let nanos = i128::try_from(GATHERS.as_nanos()).unwrap_or(i128::MAX);
        self.rate.map_or(0, |rate| i128::from(rate.get()) * nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes let through in so many milliseconds, asked each millisecond, in records of this size.
    fn through(rate: Option<u64>, record: u64, millis: u64) -> u64 {
        let start = Instant::now();
        let mut limit = DrainRate::new(rate.and_then(NonZeroU64::new), start);
        let mut sent = 0;
        for millisecond in 0..millis {
            let now = start + Duration::from_millis(millisecond);
            let mut turn = 0;
            while turn < 100 && limit.has_room(now) {
                limit.take(record);
                sent += record;
                turn += 1;
            }
        }
        sent
    }

    #[test]
    fn no_more_passes_than_the_rate_one_second_and_one_record() {
        for rate in [1_000, 8_000, 1_000_000] {
            for record in [1, 100, 999, 50_000] {
                let sent = through(Some(rate), record, 20_000);
                assert!(sent <= 21 * rate + record, "{rate} {record}: {sent}");
                // And no less than the rate, as far as 100 records a millisecond can be it.
                let least = (20 * rate - rate / 500).min(20_000 * 100 * record);
                assert!(
                    sent >= least.saturating_sub(record),
                    "{rate} {record}: {sent}"
                );
            }
        }
    }

    #[test]
    fn without_a_limit_all_passes() {
        assert_eq!(through(None, 1000, 10), 10 * 100 * 1000);
    }

    #[test]
    fn a_large_record_passes_and_is_worked_off() {
        let start = Instant::now();
        let mut limit = DrainRate::new(NonZeroU64::new(1000), start);
        assert!(limit.has_room(start));
        limit.take(10_000);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!limit.has_room(after(9)) && limit.holds_back());
        assert!(limit.has_room(after(10)));
    }

    #[test]
    fn a_night_without_traffic_gathers_one_second_and_no_more() {
        let start = Instant::now();
        let mut limit = DrainRate::new(NonZeroU64::new(1000), start);
        let morning = start + Duration::from_secs(8 * 3600);
        assert!(limit.has_room(morning));
        limit.take(1000);
        assert!(!limit.has_room(morning));
    }

    #[test]
    fn who_looked_at_the_clock_earlier_gives_no_time_out_twice() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let mut limit = DrainRate::new(NonZeroU64::new(1000), start);
        assert!(limit.has_room(later));
        limit.take(1_000_000);
        for _ in 0..1_000 {
            assert!(!limit.has_room(start) && !limit.has_room(later));
        }
    }
}
