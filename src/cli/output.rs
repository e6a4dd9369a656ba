//! How results look: numbers, tables, JSON, progress.
//!
//! Owns the formats only; what is told is the command's business.
//!
//! Invariant: nothing here panics on a closed pipe.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::failure::Ended;

/// Standard output, with colour only where a terminal shows it.
pub(super) fn stdout() -> impl Write {
    anstream::AutoStream::auto(io::stdout().lock())
}

/// Writes one JSON value and a line end.
pub(super) fn json(value: &impl Serialize) -> Result<(), Ended> {
    let mut out = io::stdout().lock();
    json_line(&mut out, value)?;
    Ok(out.flush()?)
}

/// Writes one JSON value and a line end to `out`, which the caller flushes.
pub(super) fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// A number with thousands apart: `1,234,567`.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 record`, `2 records`.
pub(super) fn count(value: u64, thing: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", number(value))
}

/// Bytes in binary units: `512 B`, `1.5 KiB`, `64.0 MiB`.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    // 1023.95 would be shown as 1024.0.
    while scaled >= 1023.95 {
        scaled /= 1024.0;
        unit = units.next();
    }
    format!("{scaled:.1} {}", unit.unwrap_or(&"EiB"))
}

/// Things per second, rounded to what can be read: `812 k/s`.
pub(super) fn rate(value: u64, elapsed: Duration) -> String {
    let per_second = value as f64 / elapsed.as_secs_f64().max(1e-9);
    if per_second >= 1e6 {
        format!("{:.1} M/s", per_second / 1e6)
    } else if per_second >= 1e4 {
        format!("{:.0} k/s", per_second / 1e3)
    } else {
        format!("{per_second:.0}/s")
    }
}

/// Marks what is as it should be.
pub(super) fn good(text: &str) -> String {
    format!("\x1b[32m{text}\x1b[0m")
}

/// Marks what needs somebody's eyes.
pub(super) fn bad(text: &str) -> String {
    format!("\x1b[31m{text}\x1b[0m")
}

/// Lines of `name  text`, the texts below each other.
pub(super) fn table(out: &mut impl Write, rows: &[(&str, String)]) -> io::Result<()> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, text) in rows {
        writeln!(out, "{name:width$}  {text}")?;
    }
    Ok(())
}

/// How long work runs before its progress is shown.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Progress on standard error, where that is a terminal and the work takes more than a second.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    since: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            since: Instant::now(),
            bar: None,
        }
    }

    /// `done` bytes are done, of `total` if that is known.
    pub(super) fn bytes(&mut self, done: u64, total: Option<u64>) {
        self.show(
            done,
            total,
            "{binary_bytes}",
            "{binary_total_bytes}",
            "{binary_bytes_per_sec}",
        );
    }

    /// `done` records are done, of `total` if that is known.
    pub(super) fn records(&mut self, done: u64, total: Option<u64>) {
        self.show(
            done,
            total,
            "{human_pos}",
            "{human_len} records",
            "{per_sec}",
        );
    }

    /// Says in words what goes on.
    pub(super) fn message(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    fn show(&mut self, done: u64, total: Option<u64>, at: &str, of: &str, speed: &str) {
        if self.bar.is_none() && self.since.elapsed() >= SHOWN_AFTER {
            let (bar, template) = match total {
                Some(total) => (
                    ProgressBar::new(total),
                    format!(
                        "{} {{bar:30}} {at} of {of}, {speed}, {{eta}} left {{wide_msg}}",
                        self.what
                    ),
                ),
                None => (
                    ProgressBar::new_spinner(),
                    format!("{} {{spinner}} {at}, {speed} {{wide_msg}}", self.what),
                ),
            };
            // The templates are ours; the default one is no worse than none.
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(count(1, "record"), "1 record");
        assert_eq!(count(2_000, "record"), "2,000 records");
    }

    #[test]
    fn bytes_are_readable_at_every_edge() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn rates_are_readable() {
        let second = Duration::from_secs(1);
        assert_eq!(rate(12, second), "12/s");
        assert_eq!(rate(812_345, second), "812 k/s");
        assert_eq!(rate(8_123_456, second), "8.1 M/s");
    }

    #[test]
    fn a_table_puts_the_texts_below_each_other() {
        let mut out = Vec::new();
        table(&mut out, &[("a", "1".into()), ("long", "2".into())]).unwrap();
        assert_eq!(out, b"a     1\nlong  2\n");
    }
}
