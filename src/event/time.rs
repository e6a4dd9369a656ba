//! When something happened, as RFC 3339 has it.
//!
//! Owns the text and its precision. Must not know which clock says it.
//!
//! Invariant: what is written is an RFC 3339 time in UTC with milliseconds, in a year of four digits.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The first and last moment that is written: the years 0 to 9999, but for the last day, in which some
/// places have the year 10000.
const MIN_MILLIS: i64 = -62_167_219_200_000;
const MAX_MILLIS: i64 = 253_402_207_200_000;

/// A moment, exact to the millisecond: `2026-11-21T20:51:53.004Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Time {
    millis: i64,
}

impl Time {
    /// So many milliseconds after the beginning of 1970. What is no year of four digits is the first or
    /// last moment of them.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self {
            millis: millis.clamp(MIN_MILLIS, MAX_MILLIS),
        }
    }

    /// Milliseconds since the beginning of 1970.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.millis
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In range, so there is always one.
        let time = jiff::Timestamp::from_millisecond(self.millis).unwrap_or_default();
        write!(f, "{time:.3}")
    }
}

/// A text is no time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NoTime;

impl fmt::Display for NoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no time: use one like 2026-11-21T20:51:53.004Z")
    }
}

impl std::error::Error for NoTime {}

/// Any offset is understood; what is finer than a millisecond is cut off.
impl FromStr for Time {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        let time: jiff::Timestamp = text.parse().map_err(|_| NoTime)?;
        let nanos = time.as_nanosecond();
        let millis = i64::try_from(nanos.div_euclid(1_000_000)).map_err(|_| NoTime)?;
        let is_written = (MIN_MILLIS..=MAX_MILLIS).contains(&millis);
        is_written.then_some(Self { millis }).ok_or(NoTime)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_has_it_and_reads_back() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_522_900_584_000, "2018-04-05T03:56:24.000Z"),
            (MIN_MILLIS, "0000-01-01T00:00:00.000Z"),
            (MAX_MILLIS, "9999-12-30T22:00:00.000Z"),
        ] {
            let time = Time::from_millis(millis);
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse(), Ok(time));
            assert_eq!(time.millis(), millis);
        }
        assert_eq!(Time::from_millis(i64::MIN).millis(), MIN_MILLIS);
        assert_eq!(Time::from_millis(i64::MAX).millis(), MAX_MILLIS);
    }

    #[test]
    fn other_ways_to_write_it_are_understood() {
        for text in [
            "2018-04-05T03:56:24Z",
            "2018-04-05T05:56:24+02:00",
            "2018-04-05t03:56:24.000999999z",
        ] {
            let time = Time::from_millis(1_522_900_584_000);
            assert_eq!(text.parse(), Ok(time), "{text}");
        }
        let before: Time = "1969-12-31T23:59:59.9999Z".parse().unwrap();
        assert_eq!(before.millis(), -1, "cut off towards the past");
        for text in [
            "",
            "now",
            "2018-04-05",
            "2018-04-05T03:56:24",
            "-000001-01-01T00:00:00Z",
        ] {
            assert_eq!(text.parse::<Time>(), Err(NoTime), "{text}");
        }
    }
}
