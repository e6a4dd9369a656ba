//! One value: from what somebody wrote to its type, and back.
//!
//! Pure. Owns the units, and the sentence that says what is allowed; `words` has the words. Must not know
//! which key a value belongs to, nor where it was written.
//!
//! Invariant: what is shown reads back as the same value.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::key_file::KeyFile;
use crate::ship::DrainWindow;
use crate::ship::dead_letter::DeadLetterTopic;

/// How records get to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Delivery {
    /// At least once, by an idempotent producer: [`ship::drain`](crate::ship::drain).
    #[default]
    Idempotent,
    /// In transactions: [`ship::exactly_once`](crate::ship::exactly_once).
    ExactlyOnce,
}

/// A number of bytes, at least 1: `64 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A number of bytes, or `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

/// Bytes a second, `1 MiB/s`, or `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<NonZeroU64>);

/// What was written. It may be a secret.
#[derive(Clone)]
pub(super) enum Raw {
    /// A text of the file.
    Text(String),
    /// A text from where there are only texts: the environment and the command line.
    Plain(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Raw>),
    /// A section of a name of its own, of which nothing else need be said.
    Section,
    /// Something that no key takes, by its name.
    Other(&'static str),
}

impl Raw {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Plain(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            Self::Plain(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

/// As it was written.
impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Plain(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Bool(is) => write!(f, "{is}"),
            Self::List(_) => f.write_str("a list"),
            Self::Section => f.write_str("a section"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// What the values of a type look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text, and what it says.
    Text(&'static str),
    Bool,
    Count,
    Factor,
    Size,
    Limit,
    Rate,
    Duration,
    List,
    Words(&'static [&'static str]),
}

pub(super) const UNLIMITED: &str = "unlimited";

impl Kind {
    /// What is allowed.
    pub(super) fn allowed(self) -> String {
        const SIZE: &str = "a size such as \"64 MiB\", in B, KiB, MiB, GiB or TiB";
        match self {
            Self::Text(what) => what.to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Count => "a whole number from 1 on".to_owned(),
            Self::Factor => "a number from 1 to 100".to_owned(),
            Self::Size => SIZE.to_owned(),
            Self::Limit => format!("\"{UNLIMITED}\", or {SIZE}"),
            Self::Rate => format!("\"{UNLIMITED}\", or bytes a second such as \"64 KiB/s\""),
            Self::Duration => {
                "a duration such as \"200ms\" or \"1h 30m\", in ms, s, m, h or d".into()
            }
            Self::List => "a list of texts".to_owned(),
            Self::Words(words) => words.join(" | "),
        }
    }
}

/// A type that a key may have.
pub(super) trait Value: Sized {
    const KIND: Kind;

    /// `None`: it is none of what [`Kind::allowed`] says.
    fn read(raw: &Raw) -> Option<Self>;

    /// Null: there is none.
    fn shown(&self) -> Json;

    /// What an empty text says. `None`: nothing, as if the key were not there.
    fn of_nothing() -> Option<Self> {
        None
    }
}

/// A value in its place, whatever its type.
pub(super) trait Setting {
    fn kind(&self) -> Kind;
    /// Whether it was changed; if not, what was written is not allowed.
    fn set(&mut self, raw: &Raw) -> bool;
    fn shown(&self) -> Json;
}

impl<T: Value> Setting for T {
    fn kind(&self) -> Kind {
        T::KIND
    }

    fn set(&mut self, raw: &Raw) -> bool {
        let read = T::read(raw);
        let is_allowed = read.is_some();
        if let Some(value) = read {
            *self = value;
        }
        is_allowed
    }

    fn shown(&self) -> Json {
        Value::shown(self)
    }
}

/// An empty text is none. Of an `Option` in another one it is none of the inner one: that is said, and counts
/// before what is said elsewhere.
impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(raw: &Raw) -> Option<Self> {
        if raw.text() == Some("") {
            return Some(T::of_nothing());
        }
        T::read(raw).map(Some)
    }

    fn shown(&self) -> Json {
        match self.as_ref().map(Value::shown) {
            None => Json::Null,
            Some(Json::Null) => "".into(),
            Some(shown) => shown,
        }
    }

    fn of_nothing() -> Option<Self> {
        Some(None)
    }
}

impl Value for String {
    const KIND: Kind = Kind::Text("a text");

    fn read(raw: &Raw) -> Option<Self> {
        raw.text().map(Into::into)
    }

    fn shown(&self) -> Json {
        self.as_str().into()
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Text("a path");

    fn read(raw: &Raw) -> Option<Self> {
        raw.text().filter(|text| !text.is_empty()).map(Into::into)
    }

    fn shown(&self) -> Json {
        self.to_string_lossy().into()
    }
}

/// The keys in it are read when all is known that was given.
impl Value for KeyFile {
    const KIND: Kind = PathBuf::KIND;

    fn read(raw: &Raw) -> Option<Self> {
        PathBuf::read(raw).map(Self::at)
    }

    fn shown(&self) -> Json {
        self.path().to_string_lossy().into()
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Bool;

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Bool(is) => Some(*is),
            Raw::Plain(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn shown(&self) -> Json {
        (*self).into()
    }
}

impl Value for u64 {
    const KIND: Kind = Kind::Count;

    fn read(raw: &Raw) -> Option<Self> {
        raw.integer().filter(|number| *number > 0)
    }

    fn shown(&self) -> Json {
        (*self).into()
    }
}

impl Value for u32 {
    const KIND: Kind = Kind::Count;

    fn read(raw: &Raw) -> Option<Self> {
        u64::read(raw)?.try_into().ok()
    }

    fn shown(&self) -> Json {
        (*self).into()
    }
}

impl Value for f64 {
    const KIND: Kind = Kind::Factor;

    fn read(raw: &Raw) -> Option<Self> {
        let number = match raw {
            Raw::Float(number) => *number,
            Raw::Integer(number) => i32::try_from(*number).ok()?.into(),
            Raw::Plain(text) => text.parse().ok()?,
            _ => return None,
        };
        (1.0..=100.0).contains(&number).then_some(number)
    }

    fn shown(&self) -> Json {
        (*self).into()
    }
}

impl Value for Size {
    const KIND: Kind = Kind::Size;

    fn read(raw: &Raw) -> Option<Self> {
        let bytes = raw.integer().or_else(|| bytes(raw.text()?));
        bytes.filter(|bytes| *bytes > 0).map(Self)
    }

    fn shown(&self) -> Json {
        bytes_text(self.0).into()
    }
}

impl Value for Limit {
    const KIND: Kind = Kind::Limit;

    fn read(raw: &Raw) -> Option<Self> {
        if raw.text() == Some(UNLIMITED) {
            return Some(Self(None));
        }
        Size::read(raw).map(|size| Self(Some(size.0)))
    }

    fn shown(&self) -> Json {
        self.0.map_or(UNLIMITED.into(), bytes_text).into()
    }
}

impl Value for Rate {
    const KIND: Kind = Kind::Rate;

    fn read(raw: &Raw) -> Option<Self> {
        let limit = match raw.text().and_then(|text| text.strip_suffix("/s")) {
            Some(size) => Limit(Some(bytes(size)?)),
            None => Limit::read(raw)?,
        };
        match limit.0 {
            None => Some(Self(None)),
            Some(bytes) => NonZeroU64::new(bytes).map(|bytes| Self(Some(bytes))),
        }
    }

    fn shown(&self) -> Json {
        let text = |rate: NonZeroU64| format!("{}/s", bytes_text(rate.get()));
        self.0.map_or(UNLIMITED.into(), text).into()
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Duration;

    fn read(raw: &Raw) -> Option<Self> {
        duration(raw.text()?)
    }

    fn shown(&self) -> Json {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        let fits = |(_, unit): &&(&str, u64)| millis.is_multiple_of(*unit);
        let (name, unit) = DURATIONS.iter().rev().find(fits).unwrap_or(&DURATIONS[0]);
        if millis == 0 {
            return "0s".into();
        }
        format!("{}{name}", millis / unit).into()
    }
}

impl Value for Vec<String> {
    const KIND: Kind = Kind::List;

    /// Where there are only texts, with commas between.
    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::List(parts) => parts.iter().map(String::read).collect(),
            Raw::Plain(text) => {
                let parts = text.split(',').map(str::trim);
                let parts = parts.filter(|part| !part.is_empty());
                Some(parts.map(Into::into).collect())
            }
            _ => None,
        }
    }

    fn shown(&self) -> Json {
        self.as_slice().into()
    }
}

impl Value for DrainWindow {
    const KIND: Kind =
        Kind::Text("spans of hours such as \"22:00-06:00\", with commas between; always, if empty");

    fn read(raw: &Raw) -> Option<Self> {
        raw.text()?.parse().ok()
    }

    fn shown(&self) -> Json {
        self.to_string().into()
    }
}

impl Value for DeadLetterTopic {
    const KIND: Kind = Kind::Text(
        "a topic's name, in which {topic} stands for the record's own, such as \"{topic}.dlq\"",
    );

    fn read(raw: &Raw) -> Option<Self> {
        Self::new(raw.text()?).ok()
    }

    fn shown(&self) -> Json {
        self.template().into()
    }
}

/// From the smallest on.
const SIZES: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// In milliseconds, from the smallest on.
const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A whole number and a unit in front of a text, and the text behind; blanks around each of them.
fn number_and_unit<'a>(text: &'a str, units: &[(&str, u64)]) -> Option<(u64, &'a str)> {
    let text = text.trim_start();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let (_, unit) = units.iter().find(|(unit, _)| *unit == name)?;
    Some((
        number.parse::<u64>().ok()?.checked_mul(*unit)?,
        rest.trim_start(),
    ))
}

fn bytes(text: &str) -> Option<u64> {
    let (bytes, rest) = number_and_unit(text, &SIZES)?;
    rest.is_empty().then_some(bytes)
}

fn bytes_text(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes.is_multiple_of(*unit);
    let (name, unit) = SIZES.iter().rev().find(fits).unwrap_or(&SIZES[0]);
    format!("{} {name}", bytes / unit)
}

/// One number with its unit, or several of them: `1h 30m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (mut millis, mut rest) = number_and_unit(text, &DURATIONS)?;
    while !rest.is_empty() {
        let (more, behind) = number_and_unit(rest, &DURATIONS)?;
        millis = millis.checked_add(more)?;
        rest = behind;
    }
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.into())
    }

    fn plain(text: &str) -> Raw {
        Raw::Plain(text.into())
    }

    #[test]
    fn a_size_is_a_whole_number_of_binary_units() {
        for (written, expected) in [
            ("1 B", 1),
            ("64 MiB", 64 << 20),
            ("8GiB", 8 << 30),
            (" 3  KiB ", 3 << 10),
            ("1 TiB", 1 << 40),
        ] {
            assert_eq!(
                Size::read(&text(written)),
                Some(Size(expected)),
                "{written}"
            );
        }
        for wrong in [
            "",
            "8",
            "8 GB",
            "8 gib",
            "8 G",
            "1.5 GiB",
            "-1 B",
            "0 B",
            "MiB",
            "8 GiB 1 B",
            "8 MiB/s",
            "20000000 TiB",
            "99999999999999999999 B",
        ] {
            assert_eq!(Size::read(&text(wrong)), None, "{wrong}");
        }
        // A number without quotes is bytes; elsewhere there are no quotes.
        assert_eq!(Size::read(&Raw::Integer(4096)), Some(Size(4096)));
        assert_eq!(Size::read(&plain("4096")), Some(Size(4096)));
        assert_eq!(Size::read(&Raw::Integer(-1)), None);
    }

    #[test]
    fn a_duration_has_a_unit_and_may_have_several() {
        for (written, millis) in [
            ("200ms", 200),
            ("1s", 1000),
            ("1h 30m", 5_400_000),
            ("1m30s", 90_000),
            ("30 d", 30 * 86_400_000),
            ("0s", 0),
        ] {
            let expected = Duration::from_millis(millis);
            assert_eq!(Duration::read(&text(written)), Some(expected), "{written}");
        }
        for wrong in [
            "",
            "5",
            "5 sec",
            "1.5s",
            "s",
            "1h,30m",
            "-1s",
            "1H",
            "999999999999999999d",
        ] {
            assert_eq!(Duration::read(&text(wrong)), None, "{wrong}");
        }
        // Of seconds, or of what? A unit must be there.
        assert_eq!(Duration::read(&Raw::Integer(5)), None);
    }

    #[test]
    fn a_limit_and_a_rate_may_be_unlimited() {
        assert_eq!(Limit::read(&text("unlimited")), Some(Limit(None)));
        assert_eq!(Limit::read(&text("1 KiB")), Some(Limit(Some(1024))));
        assert_eq!(Rate::read(&text("unlimited")), Some(Rate(None)));
        for written in ["1 KiB", "1 KiB/s"] {
            let rate = Rate::read(&text(written)).unwrap();
            assert_eq!(rate.0.map(NonZeroU64::get), Some(1024));
        }
        for wrong in ["0 B/s", "none", "1 KiB/m", "/s"] {
            assert_eq!(Rate::read(&text(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn only_where_there_are_no_types_a_text_is_a_number_or_a_yes() {
        assert_eq!(bool::read(&plain("true")), Some(true));
        assert_eq!(bool::read(&text("true")), None);
        assert_eq!(u32::read(&plain("7")), Some(7));
        assert_eq!(u32::read(&text("7")), None);
        assert_eq!(u32::read(&Raw::Integer(1 << 40)), None);
        assert_eq!(u64::read(&Raw::Integer(0)), None);
        assert_eq!(f64::read(&plain("2.5")), Some(2.5));
        for wrong in [0.5, 101.0, f64::NAN] {
            assert_eq!(f64::read(&Raw::Float(wrong)), None);
        }
        let list = Vec::<String>::read(&plain("a, b,,c "));
        assert_eq!(list.unwrap(), ["a", "b", "c"]);
        assert_eq!(Vec::<String>::read(&text("a")), None);
        assert_eq!(Vec::<String>::read(&Raw::List(vec![Raw::Bool(true)])), None);
    }

    #[test]
    fn an_empty_text_is_none() {
        assert_eq!(Option::<Duration>::read(&plain("")), Some(None));
        assert_eq!(Option::<String>::read(&text("")), Some(None));
        assert_eq!(Option::<Duration>::read(&text("x")), None);
        assert_eq!(Size::read(&text("")), None);
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        for bytes in [1, 1023, 1024, 1 << 20, (1 << 20) + 1, 3 << 40, u64::MAX] {
            let shown = Value::shown(&Size(bytes));
            assert_eq!(
                Size::read(&text(shown.as_str().unwrap())),
                Some(Size(bytes))
            );
        }
        for millis in [
            0,
            1,
            999,
            1000,
            61_000,
            3_600_000,
            90_000_000,
            86_400_000 * 400,
        ] {
            let duration = Duration::from_millis(millis);
            let shown = Value::shown(&duration);
            assert_eq!(
                Duration::read(&text(shown.as_str().unwrap())),
                Some(duration)
            );
        }
    }
}
