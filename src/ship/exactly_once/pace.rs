//! How large the next transaction may be, and how long it may last.
//!
//! Pure. Must not know what is in it. Invariants: at least one record; a transaction that timed out
//! is followed by smaller ones, down to one record, before its time is stretched; one that was
//! committed lets the next be twice as large.

use std::time::Duration;

/// Above it a broker refuses, unless it is told otherwise (`transaction.max.timeout.ms`).
const TIMEOUT_MAX: Duration = Duration::from_secs(15 * 60);

/// Less is no time for a transaction.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Pace {
    records_max: u64,
    records: u64,
    timeout_first: Duration,
    timeout: Duration,
    timeout_max: Duration,
}

impl Pace {
    pub(super) fn new(records_max: u64, timeout: Duration) -> Pace {
        Pace {
            records_max: records_max.max(1),
            records: records_max.max(1),
            timeout_first: timeout,
            timeout,
            timeout_max: TIMEOUT_MAX,
        }
    }

    /// Most records in the next transaction.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// `transaction.timeout.ms` of the next producer.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// One of `records` was committed.
    pub(super) fn committed(&mut self, records: u64) {
        if records >= self.records {
            self.records = self.records.saturating_mul(2).min(self.records_max);
        }
        if self.records > 1 {
            self.timeout = self.timeout_first;
        }
    }

    /// The longest that it may become.
    pub(super) fn timeout_max(&self) -> Duration {
        self.timeout_max
    }

    /// The cluster allows none that is as long: from now on half of it is the longest. False if that is
    /// nothing any more.
    pub(super) fn refused(&mut self) -> bool {
        let half = self.timeout / 2;
        if half < TIMEOUT_MIN {
            return false;
        }
        (self.timeout, self.timeout_max) = (half, half);
        self.timeout_first = self.timeout_first.min(half);
        true
    }

    /// The record that nothing helped is out of the way.
    pub(super) fn begin_anew(&mut self) {
        self.timeout = self.timeout_first;
    }

    /// One of `records` timed out.
    pub(super) fn timed_out(&mut self, records: u64) {
        if records <= 1 {
            self.timeout = (self.timeout * 2).min(self.timeout_max);
        }
        self.records = (records / 4).clamp(1, self.records_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn timeouts_quarter_the_records_and_then_double_the_time() {
        let mut pace = Pace::new(50_000, 30 * SECOND);
        let mut seen = Vec::new();
        for _ in 0..15 {
            pace.timed_out(pace.records());
            seen.push((pace.records(), pace.timeout().as_secs()));
        }
        assert_eq!(
            seen[..10],
            [
                (12_500, 30),
                (3_125, 30),
                (781, 30),
                (195, 30),
                (48, 30),
                (12, 30),
                (3, 30),
                (1, 30),
                (1, 60),
                (1, 120)
            ]
        );
        assert_eq!(seen[14], (1, 900));
        pace.committed(1);
        assert_eq!((pace.records(), pace.timeout()), (2, 30 * SECOND));
    }

    #[test]
    fn a_timeout_that_the_cluster_refuses_is_halved_and_not_reached_again() {
        let mut pace = Pace::new(1, 30 * SECOND);
        (0..3).for_each(|_| pace.timed_out(1));
        assert_eq!(pace.timeout(), 240 * SECOND);
        assert!(pace.refused());
        (0..3).for_each(|_| pace.timed_out(1));
        assert_eq!(
            (pace.timeout(), pace.timeout_max()),
            (120 * SECOND, 120 * SECOND)
        );
        pace.begin_anew();
        assert_eq!(pace.timeout(), 30 * SECOND);
        let mut timeouts = Vec::new();
        while pace.refused() {
            pace.begin_anew();
            timeouts.push(pace.timeout().as_millis());
        }
        assert_eq!(timeouts, [15_000, 7500, 3750, 1875]);
    }

    #[test]
    fn it_grows_only_by_what_was_used() {
        let mut pace = Pace::new(1000, SECOND);
        pace.timed_out(1000);
        pace.committed(3);
        assert_eq!(pace.records(), 250);
        pace.committed(250);
        pace.committed(500);
        pace.committed(1000);
        assert_eq!(pace.records(), 1000);
    }
}
