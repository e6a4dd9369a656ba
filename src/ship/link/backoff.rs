//! When to try again.
//!
//! Pure; randomness is passed in. Must not know what is tried.

use std::time::Duration;

use crate::ship::retry::WAIT_MAX;

/// When to try again after a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Backoff {
    /// The longest wait before the second try; the first is made at once.
    pub initial: Duration,
    /// By how much the longest wait grows with each try; at least 1.
    pub multiplier: f64,
    /// The longest wait at all. A try costs one SYN; longer waits only deliver later.
    pub max: Duration,
    /// The link must stay up this long for the waits to start over.
    pub stable: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Profile::Normal.backoff()
    }
}

/// What a try costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// Nothing to speak of.
    #[default]
    Normal,
    /// Money: by the byte, or for a connection that is made.
    Metered,
}

impl Profile {
    /// The waits for it.
    pub fn backoff(self) -> Backoff {
        let (initial, max) = match self {
            Profile::Normal => (Duration::from_millis(250), Duration::from_secs(5)),
            Profile::Metered => (Duration::from_secs(60), Duration::from_secs(30 * 60)),
        };
        Backoff {
            initial,
            multiplier: 2.0,
            max,
            stable: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// The longest wait after so many losses in a row: none after none.
    pub(super) fn longest_wait(&self, losses: u32) -> Duration {
        let Some(growths) = losses.checked_sub(1) else {
            return Duration::ZERO;
        };
        let growths = i32::try_from(growths).unwrap_or(i32::MAX);
        let seconds = self.initial.as_secs_f64() * self.multiplier.powi(growths);
        // What is too large to be a duration is larger than the largest wait.
        Duration::try_from_secs_f64(seconds).map_or(self.max, |wait| wait.min(self.max))
    }

    /// The key of a value that makes no sense, and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.initial.is_zero() {
            let reason = "0 would make tries follow each other at once".to_owned();
            return Err(("link.backoff.initial", reason));
        }
        if !(1.0..=100.0).contains(&self.multiplier) {
            let reason = format!("{} is not from 1 to 100", self.multiplier);
            return Err(("link.backoff.multiplier", reason));
        }
        if self.max > WAIT_MAX {
            let reason = format!("{:?} is more than a year", self.max);
            return Err(("link.backoff.max", reason));
        }
        if self.max < self.initial {
            let Backoff { initial, max, .. } = self;
            let reason =
                format!("the longest wait of {max:?} is less than the initial one of {initial:?}");
            return Err(("link.backoff.max", reason));
        }
        Ok(())
    }
}

/// A wait between nothing and `longest`, so that a fleet does not try in step. `random` is evenly
/// spread over all of `u64`.
pub(in crate::ship) fn jittered(longest: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    // The high half of the product is `random` scaled to `nanos`, below it.
    let scaled = (u128::from(nanos) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let longest = Duration::from_secs(4);
        assert_eq!(jittered(longest, 0), Duration::ZERO);
        assert_eq!(jittered(longest, u64::MAX / 2 + 1), Duration::from_secs(2));
        assert!(jittered(longest, u64::MAX) <= longest);
    }

    #[test]
    fn waits_grow_by_the_multiplier_up_to_the_maximum_and_never_overflow() {
        let backoff = Backoff {
            multiplier: 3.0,
            ..Backoff::default()
        };
        let waits = [0, 1, 2, 3, 4, u32::MAX].map(|n| backoff.longest_wait(n).as_millis());
        assert_eq!(waits, [0, 250, 750, 2250, 5000, 5000]);
        let constant = Backoff {
            multiplier: 1.0,
            ..backoff
        };
        assert_eq!(constant.longest_wait(u32::MAX).as_millis(), 250);
    }

    #[test]
    fn a_metered_link_is_tried_every_half_hour_at_last() {
        let metered = Profile::Metered.backoff();
        let waits = [1, 2, 6, 7].map(|n| metered.longest_wait(n).as_secs() / 60);
        assert_eq!(waits, [1, 2, 30, 30]);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        let good = Backoff::default();
        let zero = Duration::ZERO;
        for (backoff, name) in [
            (
                Backoff {
                    initial: zero,
                    ..good
                },
                "link.backoff.initial",
            ),
            (
                Backoff {
                    multiplier: 0.5,
                    ..good
                },
                "link.backoff.multiplier",
            ),
            (
                Backoff {
                    multiplier: f64::NAN,
                    ..good
                },
                "link.backoff.multiplier",
            ),
            (
                Backoff {
                    max: Duration::from_millis(1),
                    ..good
                },
                "link.backoff.max",
            ),
        ] {
            assert_eq!(backoff.check().unwrap_err().0, name);
        }
        assert_eq!(good.check(), Ok(()));
        assert_eq!(Profile::Metered.backoff().check(), Ok(()));
    }
}
