//! The engine through its public face: one module a subject.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

#[path = "../support/faulty.rs"]
mod faulty;
#[path = "../support/random.rs"]
mod random;
#[path = "../../fuzz/src/targets.rs"]
mod targets;

mod append;
mod common;
mod crash;
mod damage;
mod everywhere;
mod flips;
mod forged;
mod hostile;
mod linger;
mod loss;
mod oracle;
mod planted;
mod repair;
#[cfg(all(feature = "lz4", feature = "zstd", feature = "encryption"))]
mod rest;
mod rules;
mod seeds;
mod slots;
mod slots_harmed;
mod space;
mod unreadable;
mod v1;
