//! When something is due, by clocks that may be wrong.
//!
//! Owns the rule: what was accepted in this boot counts on the boot's own clock, an earlier boot's
//! only where the wall clock is known at both ends. It must not know what is due, nor who fires it.
//!
//! Invariants: nothing is ever due too early, and a wall clock that is not trusted makes nothing due.
//! What is due by an interval is so some day, even where no clock is ever right.

use crate::{
    message::{Due, Uptime},
    store::{
        Now,
        boots::Boots,
        clock::{self},
    },
};

/// When something was accepted: what is known of that moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Accepted {
    pub(super) uptime: Uptime,
    /// If that clock could be believed.
    pub(super) wall_millis: Option<i64>,
}

impl Accepted {
    pub(super) fn at(now: &Now) -> Self {
        Self {
            uptime: Uptime {
                boot: now.boot,
                millis: now.reading.uptime_millis,
            },
            wall_millis: now.is_trusted.then_some(now.reading.wall_millis),
        }
    }
}

/// When something is due by the clocks of this boot; the first that comes decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Times {
    /// Milliseconds since 1970, by a wall clock that is trusted then.
    pub(super) wall_millis: Option<i64>,
    /// Milliseconds since the machine booted.
    pub(super) uptime_millis: Option<u64>,
}

impl Times {
    /// Never, whatever the clocks say.
    pub(super) const NEVER: Self = Self {
        wall_millis: None,
        uptime_millis: None,
    };

    /// `opened` is when this process began to look after it.
    pub(super) fn of(due: Due, accepted: Accepted, opened: &Now, boots: &Boots) -> Self {
        let millis = match due {
            Due::At(millis) => {
                return Self {
                    wall_millis: Some(millis),
                    uptime_millis: None,
                };
            }
            Due::After(millis) => millis,
        };
        if accepted.uptime.boot == opened.boot {
            return Self {
                wall_millis: None,
                uptime_millis: Some(accepted.uptime.millis.saturating_add(millis)),
            };
        }
        // It is at least as old as this process: so it is due some day, whatever becomes known.
        let wall = accepted.wall_millis;
        let wall = wall.or_else(|| clock::wall_millis(accepted.uptime, boots));
        Self {
            wall_millis: wall.map(|wall| wall.saturating_add_unsigned(millis)),
            uptime_millis: Some(opened.reading.uptime_millis.saturating_add(millis)),
        }
    }

    /// For how many milliseconds it has been due; `None`: it is not, as far as can be known.
    pub(super) fn overdue(self, now: &Now) -> Option<u64> {
        let by_wall = self.wall_millis.filter(|_| now.is_trusted);
        let by_wall = by_wall.and_then(|at| {
            let late = now.reading.wall_millis.saturating_sub(at);
            (late >= 0).then(|| late.unsigned_abs())
        });
        let by_uptime = self.uptime_millis;
        let by_uptime = by_uptime.and_then(|at| now.reading.uptime_millis.checked_sub(at));
        by_wall.max(by_uptime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::clock::tests::{NOW, boots, now};

    /// Every combination of what it waits for, where it was accepted, and what is known now: the
    /// first moments at which it is due, by uptime and by a trusted wall clock.
    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn it_is_due_by_the_boots_clock_or_between_two_trusted_ends() {
        let boots = boots();
        let opened = now(7_000, 20_000, false);
        let at = |boot, millis, wall_millis| Accepted {
            uptime: Uptime { boot, millis },
            wall_millis,
        };
        let after = Due::After(5_000);
        for (what, due, accepted, by_uptime, by_wall) in [
            (
                "a time of day",
                Due::At(NOW),
                at(1, 9, None),
                None,
                Some(NOW),
            ),
            (
                "of another boot",
                Due::At(NOW),
                at(3, 9, None),
                None,
                Some(NOW),
            ),
            ("this boot", after, at(1, 9_000, None), Some(14_000), None),
            (
                "this boot, trusted",
                after,
                at(1, 9_000, Some(NOW)),
                Some(14_000),
                None,
            ),
            (
                "a trusted boot",
                after,
                at(3, 9, Some(NOW)),
                Some(25_000),
                Some(NOW + 5_000),
            ),
            (
                "a boot of known time",
                after,
                at(2, 40_000, None),
                Some(25_000),
                Some(NOW - 55_000),
            ),
            (
                "of unknown time",
                after,
                at(3, 40_000, None),
                Some(25_000),
                None,
            ),
            (
                "beyond any clock",
                Due::After(u64::MAX),
                at(1, 9, None),
                Some(u64::MAX),
                None,
            ),
        ] {
            let times = Times::of(due, accepted, &opened, &boots);
            let expected = Times {
                wall_millis: by_wall,
                uptime_millis: by_uptime,
            };
            assert_eq!(times, expected, "{what}");
        }
    }

    #[test]
    fn an_untrusted_wall_clock_makes_nothing_due_and_the_later_of_two_delays_counts() {
        let times = |wall_millis, uptime_millis| Times {
            wall_millis,
            uptime_millis,
        };
        for (times, by_trusted, by_untrusted) in [
            (times(Some(NOW), None), Some(0), None),
            (times(Some(NOW + 1), None), None, None),
            (times(Some(NOW - 7), None), Some(7), None),
            (times(None, Some(50)), Some(0), Some(0)),
            (times(None, Some(51)), None, None),
            (times(Some(NOW - 7), Some(51)), Some(7), None),
            (times(Some(NOW - 7), Some(40)), Some(10), Some(10)),
            (
                times(Some(i64::MIN), None),
                Some(i64::MAX.unsigned_abs()),
                None,
            ),
        ] {
            assert_eq!(times.overdue(&now(NOW, 50, true)), by_trusted, "{times:?}");
            assert_eq!(
                times.overdue(&now(NOW, 50, false)),
                by_untrusted,
                "{times:?}"
            );
        }
    }
}
