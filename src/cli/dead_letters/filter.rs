//! Which letters a command is about.
//!
//! Owns the arguments of the choice and what a time may look like. Everything that is given must hold.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::failure::{Exit, Failure};
use crate::{store::StoredLetter, wal::SeqNo};

/// A choice of letters: all that is given must hold
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Numbers of the letters
    #[arg(value_name = "SEQ")]
    seqs: Vec<u64>,

    /// Tried last at this time or later: 2026-11-21T20:51:53Z, 2026-11-21, or 90s, 30m, 12h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<i64>,

    /// Tried last before this time
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<i64>,

    /// Of this class: poison for one
    #[arg(long, value_name = "WORD")]
    class: Option<String>,

    /// For this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,

    /// With this key
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
}

impl Filter {
    /// Whether nothing was given.
    pub(super) const fn is_empty(&self) -> bool {
        let Self {
            seqs,
            since,
            until,
            class,
            topic,
            key,
        } = self;
        seqs.is_empty()
            && since.is_none()
            && until.is_none()
            && class.is_none()
            && topic.is_none()
            && key.is_none()
    }

    /// Refuses what no letter can pass.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if until <= since => {
                let text = "--until is not after --since: no letter can lie between them";
                Err(Failure::new(Exit::Usage, "usage", text).next("exchange the two times"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn seqs(&self) -> &[u64] {
        &self.seqs
    }

    /// What can be told of a letter before it is read.
    pub(super) fn may_pass(&self, seq: SeqNo) -> bool {
        self.seqs.is_empty() || self.seqs.contains(&seq.get())
    }

    pub(super) fn passes(&self, letter: &StoredLetter) -> bool {
        let body = &letter.body;
        let key = body.content.as_ref().ok().and_then(|m| m.key.as_deref());
        let time = body.last_attempt_millis;
        self.may_pass(letter.seq)
            && self.since.is_none_or(|since| since <= time)
            && self.until.is_none_or(|until| time < until)
            && self.class.as_ref().is_none_or(|class| *class == body.class)
            && self.topic.is_none() | (self.topic.as_deref() == body.topic())
            && self.key.is_none() | (self.key.as_ref().map(String::as_bytes) == key)
    }
}

fn instant(text: &str) -> Result<i64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    instant_at(text, now).ok_or_else(|| "use 2026-11-21T20:51:53Z, 2026-11-21, or 12h".into())
}

/// A time, or how long before `now_millis` it was.
fn instant_at(text: &str, now_millis: i64) -> Option<i64> {
    const UNITS: [(char, i64); 4] = [
        ('s', 1000),
        ('m', 60_000),
        ('h', 3_600_000),
        ('d', 86_400_000),
    ];
    let ago = UNITS.into_iter().find_map(|(unit, millis)| {
        let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
        Some(now_millis.saturating_sub(i64::from(count).saturating_mul(millis)))
    });
    ago.or_else(|| moment(text))
}

/// Without an offset it is UTC, without a time of day the day's beginning.
fn moment(text: &str) -> Option<i64> {
    let time = text.parse::<jiff::Timestamp>().ok();
    let time = time.or_else(|| {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    });
    time.map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_or_an_age() {
        let now = 1_000_000_000_000;
        assert_eq!(instant_at("90s", now), Some(now - 90_000));
        assert_eq!(instant_at("30m", now), Some(now - 1_800_000));
        assert_eq!(instant_at("12h", now), Some(now - 43_200_000));
        assert_eq!(instant_at("7d", now), Some(now - 604_800_000));
        for same in [
            "1970-01-02",
            "1970-01-02T00:00",
            "1970-01-02T00:00:00Z",
            "1970-01-02T01:00+01:00",
            "1970-01-01 23:00:00.000-01:00",
        ] {
            assert_eq!(instant_at(same, now), Some(86_400_000), "{same}");
        }
        for wrong in [
            "",
            "h",
            "-1h",
            "1.5h",
            "1w",
            "yesterday",
            "12",
            "2026-02-30",
        ] {
            assert_eq!(instant_at(wrong, now), None, "{wrong}");
        }
    }
}
