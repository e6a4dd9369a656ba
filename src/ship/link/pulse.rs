//! Shipping at intervals: all that is there, then nothing until the next beat.
//!
//! Pure; time is passed in. Must not know what is sent. Invariants: what is there at a beat is handed over
//! before it rests again; it rests for no longer than one interval; without an interval it never does.

use std::time::{Duration, Instant};

/// When to ship, if not always.
#[derive(Debug)]
pub(in crate::ship) struct Pulse {
    /// None: always.
    interval: Option<Duration>,
    /// The last beat.
    beat: Instant,
    rests: bool,
}

impl Pulse {
    /// Begins with a beat. Of no length: it never rests.
    pub(in crate::ship) fn new(interval: Duration, now: Instant) -> Pulse {
        Pulse {
            interval: (!interval.is_zero()).then_some(interval),
            beat: now,
            rests: false,
        }
    }

    /// Whether nothing is to be handed over now.
    pub(in crate::ship) fn rests(&mut self, now: Instant) -> bool {
        let Some(interval) = self.interval.filter(|_| self.rests) else {
            return false;
        };
        let since = now.saturating_duration_since(self.beat);
        if since >= interval {
            self.rests = false;
            // A beat that was missed, because there was more than fits between two, is not made up for.
            self.beat = now;
        }
        self.rests
    }

    /// All that was there was handed over, or cannot be.
    pub(in crate::ship) fn caught_up(&mut self) {
        self.rests = self.interval.is_some();
    }

    /// How long it rests yet, if it does.
    pub(in crate::ship) fn left(&self, now: Instant) -> Option<Duration> {
        let interval = self.interval.filter(|_| self.rests)?;
        Some(interval.saturating_sub(now.saturating_duration_since(self.beat)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn it_rests_from_when_all_is_handed_over_until_the_next_beat() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut pulse = Pulse::new(MINUTE, start);
        assert!(!pulse.rests(start) && pulse.left(start).is_none());
        assert!(!pulse.rests(after(50)), "there is more");
        pulse.caught_up();
        assert!(pulse.rests(after(50)) && pulse.rests(after(59)));
        assert_eq!(pulse.left(after(50)), Some(MINUTE / 6));
        assert!(!pulse.rests(after(61)), "the next beat");
        pulse.caught_up();
        // Counted from that one.
        assert!(pulse.rests(after(120)) && !pulse.rests(after(121)));
        // More than fits between two beats: the next one is at once, and only one.
        pulse.caught_up();
        assert!(!pulse.rests(after(500)));
        pulse.caught_up();
        assert!(pulse.rests(after(501)) && !pulse.rests(after(560)));
    }

    #[test]
    fn without_an_interval_it_never_rests() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Duration::ZERO, start);
        pulse.caught_up();
        assert!(!pulse.rests(start) && pulse.left(start).is_none());
    }
}
