//! The configuration: a TOML file, the environment and the command line, as one typed [`Config`].
//!
//! ```
//! use std::path::Path;
//! use ferrylog::config::{Environment, settle};
//!
//! let text = "[kafka]\nbootstrap_servers = \"127.0.0.1:9092\"";
//! let file = Some((Path::new("ferrylog.toml"), text));
//! let read_secret = |path: &Path| std::fs::read_to_string(path);
//! let loaded = settle(file, &Environment::default(), &[], &read_secret)?;
//! assert!(loaded.config.settings().is_some());
//! # Ok::<(), ferrylog::config::Error>(())
//! ```
//!
//! Owns the names of the keys, what a value looks like, and which of several wins. Must not know
//! commands, nor how what it configures works: a rule of a room below is asked for there.
//!
//! Invariants: one table ([`keys`](self)) makes the types, the errors, the example, the schema and
//! what is shown; a wrong configuration is refused whole, with all that is wrong; no secret is
//! shown, whatever shows it.

mod check;
mod convert;
mod environment;
mod error;
mod file;
mod given;
mod key_file;
mod keys;
mod load;
mod path;
mod print;
mod schema;
mod secret;
mod section;
mod value;
mod words;

pub use convert::Preset;
pub use environment::Environment;
pub use error::{Error, Place, Problem};
pub use key_file::{BadKeys, KeyFile};
pub use keys::{
    ClusterConfig, Config, DeadLetterConfig, EventsConfig, KafkaConfig, LaneConfig, LinkConfig,
    RetryConfig, ShippingConfig, StoreConfig, TenantConfig, TopicConfig,
};
pub use load::{Argument, Loaded, Row, load, settle};
pub use print::{example, toml};
pub use schema::schema;
pub use secret::{Property, Secret};
#[cfg(feature = "agent")]
pub(crate) use value::duration;
pub use value::{Delivery, Limit, Rate, Size};

/// The program in the documentation compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/configuration.md")]
struct Documentation;

#[cfg(test)]
mod tests;
