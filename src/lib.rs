#![doc = include_str!("../README.md")]

#[cfg(feature = "agent")]
pub mod cli;

#[cfg(feature = "config")]
pub mod config;

#[cfg(feature = "kafka")]
pub mod ship;
pub mod store;

#[cfg(feature = "kafka")]
pub mod kafka;
pub mod message;
pub mod wal;
