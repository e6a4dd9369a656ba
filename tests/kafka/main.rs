//! What is promised about a real Apache Kafka, tested against one.
//!
//! `link` and `shipper` call the library; `input`, `faults` and `kills` run the program, as a user
//! would. Each test has a broker of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

#[path = "../support/kafka.rs"]
mod kafka;
#[path = "../support/program.rs"]
#[allow(dead_code, reason = "shared: not every test needs all of it")]
mod program;
#[path = "../support/random.rs"]
mod random;

mod copies;
mod faults;
mod gateway;
mod input;
mod kills;
mod link;
mod shipper;
