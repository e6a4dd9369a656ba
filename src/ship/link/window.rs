//! The hours of the day in which a link is used.
//!
//! Owns the text of a window and what it means for a minute of the day. All but [`local_minute`] is
//! pure. Must not know what is held back. Invariant: a clock that nobody set closes no
//! window: records that wait for ever are worse than traffic at a dear hour.

use std::error;
use std::fmt;
use std::mem;
use std::str::FromStr;
use std::time::{Duration, Instant};

const MINUTES_A_DAY: u16 = 24 * 60;

/// How often the clock is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// A clock that shows an earlier year was not set since the machine started.
const FIRST_YEAR: i16 = 2025;

/// Hours of the day, in local time: `22:00-06:00`, or several with commas between; always, if
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainWindow {
    /// First minute and the one behind the last, which may be on the next day.
    spans: Vec<(u16, u16)>,
}

/// A text that names no hours of the day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadWindow {
    span: String,
}

impl fmt::Display for BadWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no span of hours such as 22:00-06:00", self.span)
    }
}

impl error::Error for BadWindow {}

impl FromStr for DrainWindow {
    type Err = BadWindow;

    fn from_str(text: &str) -> Result<DrainWindow, BadWindow> {
        if text.trim().is_empty() {
            return Ok(DrainWindow::default());
        }
        let span = |text: &str| {
            let (from, to) = text.split_once('-')?;
            let (from, to) = (minute(from)?, minute(to)?);
            // Equal ones could mean the whole day, or none of it.
            (from != to && from < MINUTES_A_DAY).then_some((from, to))
        };
        let spans = text.split(',').map(str::trim).map(|text| {
            span(text).ok_or_else(|| BadWindow {
                span: text.to_owned(),
            })
        });
        Ok(DrainWindow {
            spans: spans.collect::<Result<_, _>>()?,
        })
    }
}

impl fmt::Display for DrainWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (from, to)) in self.spans.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}-{}", clock(*from), clock(*to))?;
        }
        Ok(())
    }
}

impl DrainWindow {
    /// Whether it is always open.
    pub fn is_always(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether it is open in a minute of the day.
    pub fn is_open(&self, minute: u16) -> bool {
        let is_in = |&(from, to): &(u16, u16)| {
            if from < to {
                from <= minute && minute < to
            } else {
                from <= minute || minute < to
            }
        };
        self.is_always() || self.spans.iter().any(is_in)
    }

    /// The minute of the day at which it opens or closes next; never, if `None`.
    pub fn changes_at(&self, minute: u16) -> Option<u16> {
        let is_open = self.is_open(minute);
        (1..MINUTES_A_DAY)
            .map(|later| (minute + later) % MINUTES_A_DAY)
            .find(|later| self.is_open(*later) != is_open)
    }

    /// Why nothing is sent in a minute of the day; `None` if it is open.
    fn closed(&self, minute: u16) -> Option<String> {
        if self.is_open(minute) {
            return None;
        }
        let opens = self.changes_at(minute).map(clock).unwrap_or_default();
        Some(format!(
            "outside of the drain window {self}, which opens at {opens}"
        ))
    }
}

/// The minute of the day, from `hh:mm`; `24:00` is the end of the day.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str| {
        let is_number = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_number)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= MINUTES_A_DAY).then_some(minute)
}

fn clock(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// What a look at a window shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ship) enum Look {
    /// It is closed, and why.
    Closed(String),
    /// It is open again.
    Opened,
}

/// Looks at a window now and then.
#[derive(Debug)]
pub(in crate::ship) struct WindowClock {
    looked: Option<Instant>,
    was_closed: bool,
}

impl WindowClock {
    pub(in crate::ship) fn new() -> WindowClock {
        WindowClock {
            looked: None,
            was_closed: false,
        }
    }

    /// What is seen; `None` if it is open as before, or was looked at just now. `local_minute`
    /// gives nothing while the time is not known: then it is open.
    pub(in crate::ship) fn look(
        &mut self,
        window: &DrainWindow,
        now: Instant,
        local_minute: impl FnOnce() -> Option<u16>,
    ) -> Option<Look> {
        let is_recent = |looked| now.saturating_duration_since(looked) < INTERVAL;
        if window.is_always() || self.looked.is_some_and(is_recent) {
            return None;
        }
        self.looked = Some(now);
        let closed = local_minute().and_then(|minute| window.closed(minute));
        let was_closed = mem::replace(&mut self.was_closed, closed.is_some());
        closed
            .map(Look::Closed)
            .or_else(|| was_closed.then_some(Look::Opened))
    }
}

/// The minute of the day by the local clock, if that was set at all.
pub(in crate::ship) fn local_minute() -> Option<u16> {
    let time = jiff::Zoned::now();
    let number = |n: i8| u16::try_from(n).ok();
    let minute = number(time.hour())? * 60 + number(time.minute())?;
    (time.year() >= FIRST_YEAR).then_some(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> DrainWindow {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_open_in_its_minutes_and_no_others() {
        type Within = fn(u16) -> bool;
        let cases: [(&str, Within); 6] = [
            ("", |_| true),
            ("01:30-02:00", |m| (90..120).contains(&m)),
            ("22:00-06:00", |m| !(360..1320).contains(&m)),
            ("22:00-24:00", |m| m >= 1320),
            ("00:00-24:00", |_| true),
            ("22:00-06:00, 05:00-07:00,12:00-12:01", |m| {
                !(420..1320).contains(&m) || m == 720
            }),
        ];
        for (text, is_within) in cases {
            for minute in 0..MINUTES_A_DAY {
                assert_eq!(
                    window(text).is_open(minute),
                    is_within(minute),
                    "{text} {minute}"
                );
            }
        }
    }

    #[test]
    fn it_changes_where_the_next_minute_differs() {
        let night = window("22:00-06:00");
        for (minute, changes) in [(0, 360), (359, 360), (360, 1320), (1319, 1320), (1320, 360)] {
            assert_eq!(night.changes_at(minute), Some(changes), "{minute}");
        }
        assert_eq!(window("").changes_at(0), None);
        assert_eq!(window("00:00-24:00").changes_at(0), None);
        // Adjacent spans are one.
        assert_eq!(window("01:00-02:00,02:00-03:00").changes_at(60), Some(180));
    }

    #[test]
    fn what_names_no_hours_is_refused() {
        for text in [
            "22-06",
            "22:00",
            "22:00-",
            "24:00-01:00",
            "25:00-26:00",
            "22:60-23:00",
            "1:00-2:00",
            "22:00-22:00",
            "22:00-06:00,",
            "+1:00-02:00",
            "24:01-01:00",
            "a",
            "-",
        ] {
            let error = text.parse::<DrainWindow>().unwrap_err();
            assert!(error.to_string().contains("is no span"), "{text}");
        }
    }

    #[test]
    fn a_window_reads_as_it_was_written() {
        for text in ["", "22:00-06:00", "01:00-02:00,22:00-24:00"] {
            assert_eq!(window(text).to_string(), text);
        }
    }

    #[test]
    fn the_clock_is_looked_at_once_a_second_and_says_why() {
        let start = Instant::now();
        let night = window("22:00-06:00");
        let mut clock = WindowClock::new();
        let why = "outside of the drain window 22:00-06:00, which opens at 22:00";
        let closed = Some(Look::Closed(why.to_owned()));
        assert_eq!(clock.look(&night, start, || Some(720)), closed);
        let soon = start + Duration::from_millis(999);
        assert_eq!(clock.look(&night, soon, || panic!("looked")), None);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(clock.look(&night, after(1), || Some(1319)), closed);
        assert_eq!(
            clock.look(&night, after(2), || Some(1320)),
            Some(Look::Opened)
        );
        assert_eq!(clock.look(&night, after(3), || Some(1320)), None);
        // A window without hours costs nothing.
        assert_eq!(clock.look(&window(""), after(4), || panic!("looked")), None);
    }

    #[test]
    fn a_clock_that_nobody_set_closes_no_window() {
        let mut clock = WindowClock::new();
        let look = clock.look(&window("22:00-06:00"), Instant::now(), || None);
        assert_eq!(look, None);
    }

    #[test]
    fn the_local_clock_has_a_minute_of_the_day() {
        assert!(local_minute().is_some_and(|minute| minute < MINUTES_A_DAY));
    }
}
