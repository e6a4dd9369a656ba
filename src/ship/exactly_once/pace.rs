//! How large the next transaction may be, and how long it may last.
//!
//! Pure. Must not know what is in it. Invariants: at least one record; a transaction that timed out
//! is followed by smaller ones, down to one record, before its time is stretched; one that was
//! committed lets the next be twice as large.

use std::time::Duration;

/// Above it a broker refuses, unless it is told otherwise (`transaction.max.timeout.ms`).
const TIMEOUT_MAX: Duration = Duration::from_secs(15 * 60);

#[derive(Debug)]
pub(super) struct Pace {
    records_max: u64,
    records: u64,
    timeout_first: Duration,
    timeout: Duration,
}

impl Pace {
    pub(super) fn new(records_max: u64, timeout: Duration) -> Pace {
        Pace {
            records_max: records_max.max(1),
            records: records_max.max(1),
            timeout_first: timeout,
            timeout,
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

    /// The record that nothing helped is out of the way.
    pub(super) fn begin_anew(&mut self) {
        self.timeout = self.timeout_first;
    }

    /// One of `records` timed out.
    pub(super) fn timed_out(&mut self, records: u64) {
        if records <= 1 {
            self.timeout = (self.timeout * 2).min(TIMEOUT_MAX);
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
