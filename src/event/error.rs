//! What can be wrong with an event: with one that is made, and with one that is read.

use std::error;
use std::fmt;
use std::io;

/// Why an event cannot be made, written or routed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The payload has no JSON: keys that are no texts, or what its own `Serialize` refuses. Never try
    /// it again as it is.
    Data(serde_json::Error),
    /// An attribute cannot stand in this format. Never try it again as it is.
    Attribute {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system gave nothing to make an id of. Try again.
    Random(io::Error),
    /// A route leads nowhere, or contradicts another one. The routes are as before.
    Route {
        /// The event types it is for.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(_) => f.write_str("the payload of the event has no json"),
            Self::Attribute { name, reason } => {
                write!(f, "the {name} of the event {reason}")
            }
            Self::Random(_) => f.write_str("the system gave nothing to make an id of"),
            Self::Route { pattern, reason } => write!(f, "no route for {pattern:?}: {reason}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Data(source) => Some(source),
            Self::Random(source) => Some(source),
            Self::Attribute { .. } | Self::Route { .. } => None,
        }
    }
}

/// Why a message is no event.
#[derive(Debug)]
#[non_exhaustive]
pub enum ParseError {
    /// The value, or what should be JSON in it, is none, or a member is missing or of another type.
    Json(serde_json::Error),
    /// An attribute is missing, or is no text.
    Attribute {
        /// Its name.
        name: &'static str,
    },
    /// It is of another version of CloudEvents.
    SpecVersion {
        /// The one found.
        found: String,
    },
    /// Its data is something else than JSON.
    ContentType {
        /// The media type.
        found: String,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(_) => f.write_str("the value is no event"),
            Self::Attribute { name } => write!(f, "the {name} of the event is missing or no text"),
            Self::SpecVersion { found } => {
                write!(f, "cloudevents {found:?} are not known, 1.0 are")
            }
            Self::ContentType { found } => write!(f, "the data is {found:?}, not json"),
        }
    }
}

impl error::Error for ParseError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Json(source) => Some(source),
            Self::Attribute { .. } | Self::SpecVersion { .. } | Self::ContentType { .. } => None,
        }
    }
}

impl From<serde_json::Error> for ParseError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}
