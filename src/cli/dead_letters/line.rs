//! How a letter is told: a JSON line, a line for people, or all of it.
//!
//! The shape of a JSON line is a contract with programs in other languages: keys are only ever added.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::super::{
    export::{Headers, serialize_bytes},
    output,
};
use crate::{
    message::Message,
    ship::dead_letter::time_text,
    store::{Copied, StoredLetter},
};

/// One letter.
pub(super) struct Line<'a> {
    letter: &'a StoredLetter,
    /// With headers and value.
    is_full: bool,
}

impl<'a> Line<'a> {
    pub(super) const fn brief(letter: &'a StoredLetter) -> Self {
        let is_full = false;
        Self { letter, is_full }
    }

    pub(super) const fn full(letter: &'a StoredLetter) -> Self {
        let is_full = true;
        Self { letter, is_full }
    }

    /// One line, as much as fits the eye.
    pub(super) fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        let body = &self.letter.body;
        writeln!(
            out,
            "{:>6}  {:8}  {}  {}  {} ({}): {}",
            self.letter.seq.get(),
            self.letter.state.name(),
            time_text(body.last_attempt_millis),
            body.topic().unwrap_or("no message"),
            body.class,
            body.code,
            one_line(&body.reason),
        )
    }

    /// All that is known, a row each.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let (letter, body) = (self.letter, &self.letter.body);
        let state = match letter.copied {
            Copied::No => letter.state.name().into(),
            Copied::Yes => format!("{}, copied", letter.state.name()),
            Copied::Refused(code) => format!("{}, copy refused: {code}", letter.state.name()),
        };
        let mut rows = vec![("letter", letter.seq.to_string()), ("state", state)];
        if let Some(old) = body.replaces {
            rows.push(("replaces", old.to_string()));
        }
        rows.extend([
            ("record", format!("{} of lane {}", body.origin, body.lane)),
            (
                "refused",
                format!("{} ({}) at stage {}", body.class, body.code, body.stage),
            ),
            ("reason", one_line(&body.reason)),
            (
                "tried",
                format!(
                    "{}, first {}, last {}",
                    output::count(body.attempts.into(), "time"),
                    time_text(body.first_attempt_millis),
                    time_text(body.last_attempt_millis)
                ),
            ),
        ]);
        match &body.content {
            Ok(message) => rows.extend(message_rows(message)),
            Err(raw) => rows.push(("raw", BASE64.encode(raw))),
        }
        rows
    }
}

fn message_rows(message: &Message) -> Vec<(&'static str, String)> {
    let topic = match message.partition {
        Some(partition) => format!("{}, partition {partition}", message.topic),
        None => (*message.topic).into(),
    };
    let mut rows = vec![
        ("topic", topic),
        ("time", time_text(message.timestamp_millis)),
        ("key", text(message.key.as_deref())),
    ];
    for header in message.headers() {
        let value = text(header.value);
        rows.push(("header", format!("{}: {value}", one_line(header.name))));
    }
    rows.push(("value", text(message.value.as_deref())));
    rows
}

/// Text that may go to a terminal: nothing in it moves the cursor.
fn one_line(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.into()
        }
    };
    text.chars().map(shown).collect()
}

/// Text as it is, other bytes as base64, nothing as null.
fn text(bytes: Option<&[u8]>) -> String {
    match bytes.map(str::from_utf8) {
        None => "null".into(),
        Some(Ok(text)) => one_line(text),
        Some(Err(_)) => format!("base64 {}", BASE64.encode(bytes.unwrap_or_default())),
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (letter, body) = (self.letter, &self.letter.body);
        let (copied, copy_code) = match letter.copied {
            Copied::No => ("no", None),
            Copied::Yes => ("yes", None),
            Copied::Refused(code) => ("refused", Some(code)),
        };
        let message = body.content.as_ref();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("seq", &letter.seq.get())?;
        map.serialize_entry("state", letter.state.name())?;
        map.serialize_entry("copied", copied)?;
        map.serialize_entry("copy_code", &copy_code)?;
        map.serialize_entry("replaces", &body.replaces.map(|old| old.get()))?;
        map.serialize_entry("lane", &body.lane)?;
        map.serialize_entry("log_id", &body.origin.log_id.to_string())?;
        map.serialize_entry("origin_seq", &body.origin.seq.get())?;
        map.serialize_entry("class", &body.class)?;
        map.serialize_entry("code", &body.code)?;
        map.serialize_entry("stage", body.stage.name())?;
        map.serialize_entry("reason", &body.reason)?;
        map.serialize_entry("attempts", &body.attempts)?;
        map.serialize_entry("first_attempt", &time_text(body.first_attempt_millis))?;
        map.serialize_entry("last_attempt", &time_text(body.last_attempt_millis))?;
        map.serialize_entry("topic", &body.topic())?;
        match message {
            Ok(message) => {
                map.serialize_entry("partition", &message.partition)?;
                serialize_bytes(&mut map, ("key", "key_base64"), message.key.as_deref())?;
                map.serialize_entry("timestamp", &message.timestamp_millis)?;
                if self.is_full {
                    map.serialize_entry("headers", &Headers(message))?;
                    let value = message.value.as_deref();
                    serialize_bytes(&mut map, ("value", "value_base64"), value)?;
                }
            }
            Err(raw) if self.is_full => {
                map.serialize_entry("raw_base64", &BASE64.encode(raw))?;
            }
            Err(_) => {}
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_refused_moves_the_cursor_of_a_terminal() {
        assert_eq!(text(Some(b"a\x1b[2Jb\n")), "a\\u{1b}[2Jb\\n");
        assert_eq!(text(Some("21.4 °C".as_bytes())), "21.4 °C");
        assert_eq!(text(Some(b"\xff")), "base64 /w==");
        assert_eq!(text(None), "null");
    }
}
