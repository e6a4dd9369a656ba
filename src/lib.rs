#![doc = include_str!("../README.md")]

pub mod store;

pub mod message;
pub mod wal;
