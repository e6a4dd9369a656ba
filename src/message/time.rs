//! Times as people and JSON have them: RFC 3339, in UTC, to the millisecond.
//!
//! Pure. It must not know clocks, nor zones beyond an offset that a text names.

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// A time as text: `2026-11-21T20:51:53.004Z`.
#[must_use]
pub fn to_text(millis: i64) -> String {
    let (year, month, day) = date_of(millis.div_euclid(DAY));
    let of_day = millis.rem_euclid(DAY);
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Milliseconds since 1970 of a text like `2026-11-21`, `2026-11-21T20:51:53Z` or
/// `2026-11-21 20:51:53.004+01:00`. Without a zone it is UTC. `None`: it is no such text.
#[must_use]
pub fn from_text(text: &str) -> Option<i64> {
    let (date, time) = text.split_at_checked(10)?;
    let mut parts = date.split('-');
    let (year, month, day) = (
        number(parts.next()?, 4)?,
        number(parts.next()?, 2)?,
        number(parts.next()?, 2)?,
    );
    let days = days_to(year, month, day);
    // What is no date, the 30th of February for one, is another date when it comes back.
    if parts.next().is_some() || date_of(days) != (year, month, day) {
        return None;
    }
    let of_day = if time.is_empty() {
        0
    } else {
        time_of_day(time.strip_prefix(['T', 't', ' '])?)?
    };
    Some(days * DAY + of_day)
}

/// Milliseconds since midnight in UTC, which an offset may put on another day.
fn time_of_day(text: &str) -> Option<i64> {
    let (time, offset_minutes) = match text.find(['Z', 'z', '+', '-']) {
        None => (text, 0),
        Some(at) => {
            let (time, zone) = text.split_at(at);
            match zone.split_at(1) {
                ("Z" | "z", "") => (time, 0),
                ("+", offset) => (time, hours_and_minutes(offset)?),
                ("-", offset) => (time, -hours_and_minutes(offset)?),
                _ => return None,
            }
        }
    };
    let (minutes, seconds) = match time.split_at_checked(5)? {
        (minutes, "") => (minutes, ":00"),
        parts => parts,
    };
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let seconds = number(seconds.strip_prefix(':')?, 2).filter(|s| *s < 60)?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let minutes = hours_and_minutes(minutes)? - offset_minutes;
    Some((minutes * 60 + seconds) * 1000 + millis)
}

fn hours_and_minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let hours = number(hours, 2).filter(|hours| *hours < 24)?;
    let minutes = number(minutes, 2).filter(|minutes| *minutes < 60)?;
    Some(hours * 60 + minutes)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

// Howard Hinnant's algorithms: a year begins in March, so that a leap day is its last one, and 400
// years, an era, always have the same number of days.

const ERA_DAYS: i64 = 146_097;
/// From the 1st of March of year 0 to 1970.
const EPOCH: i64 = 719_468;

/// Year, month and day of a day since 1970.
const fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year + era * 400 + next, month, day)
}

/// The day since 1970 of a year, month and day.
const fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_told_right() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_500, "2023-11-14T22:13:20.500Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(to_text(millis), text);
            assert_eq!(from_text(text), Some(millis), "{text}");
        }
        assert!(!to_text(i64::MAX).is_empty() && !to_text(i64::MIN).is_empty());
    }

    #[test]
    fn every_day_of_a_thousand_years_comes_back() {
        for day in -200_000..200_000 {
            let millis = day * DAY + 12_345;
            assert_eq!(from_text(&to_text(millis)), Some(millis));
        }
    }

    #[test]
    fn a_time_may_be_short_and_have_an_offset() {
        let noon = from_text("2026-11-21T12:00:00Z");
        for same in [
            "2026-11-21T12:00",
            "2026-11-21 12:00:00",
            "2026-11-21t12:00:00.0z",
            "2026-11-21T13:30+01:30",
            "2026-11-20T23:00-13:00",
            "2026-11-21T12:00:00.0009Z",
        ] {
            assert_eq!(from_text(same), noon, "{same}");
        }
        assert_eq!(from_text("2026-11-21"), noon.map(|noon| noon - DAY / 2));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2026",
            "2026-02-30",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "2026-1-011",
            "2026-11-21T",
            "2026-11-21T24:00",
            "2026-11-21T12:60",
            "2026-11-21T12:00:60",
            "2026-11-21T12:00:00.",
            "2026-11-21T12:00:00.x",
            "2026-11-21T12:00Zx",
            "2026-11-21T12:00+1",
            "2026-11-21X12:00",
            "2026-11-21T1",
            "2026-11-äö",
            "+026-11-21",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
