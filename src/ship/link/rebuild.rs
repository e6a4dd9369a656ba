//! Whether a producer that is not known to be spent should be replaced all the same.
//!
//! Pure. Must not know how. It is the last resort against a client that is stuck: addresses that are
//! stale, a connection that is kept and of no use.

use std::time::Duration;

/// How long a producer may be of no use.
const USELESS_MAX: Duration = Duration::from_secs(5 * 60);

/// The shortest time between two.
const INTERVAL: Duration = Duration::from_secs(30 * 60);

/// What is known, each for how long; `None` if it is not so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uselessness {
    /// No broker answered the producer, although the probe passes.
    pub(super) unanswered: Option<Duration>,
    /// The link is up, something is in flight, and nothing was acknowledged.
    pub(super) unacknowledged: Option<Duration>,
    /// The producer in use was built to replace another.
    pub(super) rebuilt: Option<Duration>,
}

/// Why the producer should be replaced, if it should.
pub(super) fn rebuild_due(known: Uselessness) -> Option<&'static str> {
    let is_long = |time: Option<Duration>| time.is_some_and(|time| time >= USELESS_MAX);
    if known.rebuilt.is_some_and(|time| time < INTERVAL) {
        return None;
    }
    if is_long(known.unanswered) {
        return Some("no broker answered the producer for 5 minutes, although the probe passes");
    }
    if is_long(known.unacknowledged) {
        return Some("nothing was acknowledged for 5 minutes, although the cluster answers");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_useless_minutes_are_needed_and_half_an_hour_since_the_last() {
        let times = [None, Some(0), Some(299), Some(300), Some(1799), Some(1800)];
        for unanswered in times {
            for unacknowledged in times {
                for rebuilt in times {
                    let due = rebuild_due(Uselessness {
                        unanswered: unanswered.map(Duration::from_secs),
                        unacknowledged: unacknowledged.map(Duration::from_secs),
                        rebuilt: rebuilt.map(Duration::from_secs),
                    });
                    let useless = unanswered.max(unacknowledged).is_some_and(|s| s >= 300);
                    let recent = rebuilt.is_some_and(|s| s < 1800);
                    assert_eq!(due.is_some(), useless && !recent, "{unanswered:?}");
                }
            }
        }
    }
}
