//! When records are due, as somebody writes it.
//!
//! Pure. Must not know what waits, nor what time it is.

use std::time::Duration;

use crate::config::duration;
use crate::event::Time;
use crate::message::Due;

/// What may be written.
const ALLOWED: &str =
    "use an interval such as 10s, \"1h 30m\" or PT10S, or a time such as 2026-11-21T20:51:53Z";

/// An interval from the append on, or a time.
pub(super) fn due(text: &str) -> Result<Due, &'static str> {
    if let Some(interval) = duration(text).or_else(|| iso(text)) {
        let millis = u64::try_from(interval.as_millis()).map_err(|_| ALLOWED)?;
        return Ok(Due::After(millis));
    }
    let time: Time = text.parse().map_err(|_| ALLOWED)?;
    match time.millis() {
        millis @ 0.. => Ok(Due::At(millis)),
        _ => Err("it is before 1970"),
    }
}

/// As ISO 8601 has it: `PT1H30M`.
fn iso(text: &str) -> Option<Duration> {
    let text = text.strip_prefix(['P', 'p']).map(|_| text)?;
    let interval: jiff::SignedDuration = text.parse().ok()?;
    interval.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_or_a_time_is_understood_and_nothing_else() {
        for (text, expected) in [
            ("10s", Due::After(10_000)),
            ("1h 30m", Due::After(5_400_000)),
            ("2d", Due::After(172_800_000)),
            ("0s", Due::After(0)),
            ("PT10S", Due::After(10_000)),
            ("pt1h30m", Due::After(5_400_000)),
            ("PT0.5S", Due::After(500)),
            ("1970-01-01T00:00:01Z", Due::At(1_000)),
            ("2026-11-21T20:51:53.004+01:00", Due::At(1_795_290_713_004)),
        ] {
            assert_eq!(due(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "PT-1S",
            "-PT1S",
            "P",
            "tomorrow",
            "2026-11-21",
            "20:51",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(due(text).is_err(), "{text}");
        }
    }
}
