//! What is wrong with a configuration: all of it, each with its place.
//!
//! Owns the sentences. Must not know the keys. Invariant: no sentence has a secret in it.

use std::error;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
#[non_exhaustive]
pub enum Place {
    /// Nowhere: it is the default.
    Default,
    /// In the file.
    File {
        /// Its name.
        file: PathBuf,
        /// From 1 on.
        line: usize,
    },
    /// In a variable of the environment.
    Environment {
        /// Its name.
        variable: String,
    },
    /// On the command line.
    Argument {
        /// Its name.
        option: &'static str,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Environment { variable } => f.write_str(variable),
            Self::Argument { option } => f.write_str(option),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The key that it is about, if it is about one.
    pub key: Option<String>,
    /// What is wrong, and what is allowed.
    pub reason: String,
}

impl Problem {
    pub(super) fn new(place: &Place, key: &str, reason: impl Into<String>) -> Self {
        Self {
            place: place.clone(),
            key: Some(key.into()),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::Default {
            write!(f, "{}: ", self.place)?;
        }
        if let Some(key) = &self.key {
            write!(f, "`{key}` ")?;
        }
        f.write_str(&self.reason)
    }
}

/// Why a configuration is refused: nothing of it is in effect. Correct all of it, then try again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Error {
    /// What is wrong, in the order of the lines; never empty.
    pub problems: Vec<Problem>,
}

impl Error {
    /// Nothing is said about this key, and there is no default.
    pub(crate) fn missing(key: &str) -> Self {
        Problem::new(&Place::Default, key, "must be given").into()
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index > 0 { "\n" } else { "" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl error::Error for Error {}
