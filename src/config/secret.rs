//! What must not be shown.
//!
//! Must not know what it is for. Invariant: the text leaves this type by [`Secret::reveal`] alone.

use std::fmt;

use serde::{Serialize, Serializer};

use super::value::Raw;

const HIDDEN: &str = "***";

/// A text that is printed as `***`, whoever prints it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for who needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// The value of a librdkafka property.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Property {
    /// It may be shown.
    Plain(String),
    /// It may not, as its name says.
    Secret(Secret),
}

impl Property {
    /// The value of the property of this name.
    #[must_use]
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        if crate::kafka::is_secret(name) {
            Self::Secret(Secret::new(value))
        } else {
            Self::Plain(value.into())
        }
    }

    /// What librdkafka is given.
    #[must_use]
    pub fn reveal(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(secret) => secret.reveal(),
        }
    }

    /// `None`: it is no text, number or yes.
    pub(super) fn read(name: &str, raw: &Raw) -> Option<Self> {
        let text = match raw {
            Raw::Text(text) | Raw::Plain(text) => text.clone(),
            Raw::Integer(number) => number.to_string(),
            Raw::Float(number) => number.to_string(),
            Raw::Bool(is) => is.to_string(),
            Raw::List(_) | Raw::Section | Raw::Other(_) => return None,
        };
        Some(Self::new(name, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_printed_by_nobody() {
        let secret = Property::new("sasl.password", "hunter2");
        let Property::Secret(inner) = &secret else {
            panic!("{secret:?}")
        };
        let json = serde_json::to_string(&secret).unwrap();
        for shown in [
            format!("{secret:?} {inner:?} {inner:#?}"),
            inner.to_string(),
            json,
        ] {
            assert!(
                shown.contains("***") && !shown.contains("hunter2"),
                "{shown}"
            );
        }
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        let plain = Property::new("sasl.username", "site-17");
        assert_eq!(serde_json::to_string(&plain).unwrap(), "\"site-17\"");
    }
}
