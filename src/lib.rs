#![cfg_attr(feature = "kafka", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "kafka"),
    doc = "A write-ahead log for the edge, without what ferries it to Kafka: the engine [`wal`], and messages in lanes, [`store`]."
)]

#[cfg(feature = "agent")]
pub mod cli;

#[cfg(feature = "config")]
pub mod config;

#[cfg(feature = "kafka")]
pub mod event;
#[cfg(feature = "kafka")]
pub mod producer;

#[cfg(feature = "kafka")]
pub mod ship;
pub mod store;

#[cfg(feature = "kafka")]
pub mod kafka;
pub mod message;
pub mod wal;

pub use message::MessageRef;
#[cfg(feature = "kafka")]
pub use producer::{Outcome, Producer, Receipt, SendError};

/// Its programs compile.
#[cfg(all(doctest, feature = "kafka"))]
#[doc = include_str!("../docs/guide.md")]
struct Guide;

/// Its programs compile.
#[cfg(all(doctest, feature = "kafka"))]
#[doc = include_str!("../docs/migrating.md")]
struct Migrating;
