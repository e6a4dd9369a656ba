//! The file with the keys of what lies on disk.
//!
//! Pure. Owns its lines. Must not know logs, nor who reads the file. Invariant: nothing of a line is
//! repeated, whatever is wrong with it.

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use crate::wal::Keys;

/// Hexadecimal digits of a key.
const DIGITS: usize = 64;

/// A file with a key on each line: its number, which names it for ever, and 64 hexadecimal digits. The
/// first is the one that is written with, the others are those of what was written before.
///
/// ```text
/// 2 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
/// 1 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
/// ```
#[derive(Clone, Debug, Default)]
pub struct KeyFile {
    path: PathBuf,
    keys: Keys,
}

/// What is wrong with a file of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BadKeys {
    /// There is no key in it.
    None,
    /// A line is no key.
    Line {
        /// Its number, from 1 on.
        number: usize,
    },
    /// A line has the number of a key before it.
    Twice {
        /// Its number, from 1 on.
        number: usize,
    },
}

impl fmt::Display for BadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("there is no key in it"),
            Self::Line { number } => write!(
                f,
                "line {number} is no key: use a number from 1 on and {DIGITS} hexadecimal digits"
            ),
            Self::Twice { number } => write!(f, "line {number} has the number of another key"),
        }
    }
}

impl std::error::Error for BadKeys {}

impl KeyFile {
    /// A file that nobody has read yet.
    pub(super) fn at(path: PathBuf) -> Self {
        Self {
            path,
            keys: Keys::none(),
        }
    }

    /// The file at this path, with this text. Empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    ///
    /// [`BadKeys`] says which line is wrong, and nothing of it.
    pub fn new(path: impl Into<PathBuf>, text: &str) -> Result<Self, BadKeys> {
        let mut keys = Keys::none();
        let mut seen = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, key) = key(line).ok_or(BadKeys::Line { number })?;
            keys = match seen.is_empty() {
                true => keys.write_with(id, key),
                false => keys.read_with(id, key),
            };
            if seen.contains(&id) {
                return Err(BadKeys::Twice { number });
            }
            seen.push(id);
        }
        if seen.is_empty() {
            return Err(BadKeys::None);
        }
        let path = path.into();
        Ok(Self { path, keys })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys in it.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}

fn key(line: &str) -> Option<(NonZeroU32, [u8; DIGITS / 2])> {
    let (id, digits) = line.trim().split_once(char::is_whitespace)?;
    let digits = digits.trim();
    if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; DIGITS / 2];
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some((id.parse().ok()?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const OLD: &str = "2C26B46B68FFC68FF99B453C1D30413413422D706483BFA0F98A5E886266E7AE";

    #[test]
    fn the_first_key_writes_and_the_others_read() {
        let text = format!("# of the site\n\n2 {NEW}\r\n 1\t{OLD} \n");
        let file = KeyFile::new("/k", &text).unwrap();
        assert_eq!(file.keys().current(), NonZeroU32::new(2));
        assert_eq!(file.path(), Path::new("/k"));
        let (id, bytes) = key(&format!("7 {NEW}")).unwrap();
        assert_eq!((id.get(), bytes[0], bytes[31]), (7, 0x9f, 0x08));
    }

    #[test]
    fn what_is_no_key_is_told_by_its_line_alone() {
        for (text, wrong) in [
            (String::new(), BadKeys::None),
            ("# none\n".into(), BadKeys::None),
            (NEW.into(), BadKeys::Line { number: 1 }),
            (format!("0 {NEW}"), BadKeys::Line { number: 1 }),
            (format!("1 {NEW}0"), BadKeys::Line { number: 1 }),
            (
                format!("\n1 {}", NEW.replace('9', "+")),
                BadKeys::Line { number: 2 },
            ),
            (format!("1 {NEW}\n1 {OLD}"), BadKeys::Twice { number: 2 }),
        ] {
            let told = KeyFile::new("/k", &text).unwrap_err();
            assert_eq!(told, wrong, "{text}");
            assert!(!told.to_string().contains("86d08"), "{told}");
        }
        let shown = format!("{:?}", KeyFile::new("/k", &format!("1 {NEW}")));
        assert!(
            !shown.contains("86d08") && !shown.contains("159"),
            "{shown}"
        );
    }
}
