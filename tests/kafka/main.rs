//! What is promised about a real Apache Kafka, tested against one.
//!
//! `clusters`, `link`, `shipper`, `holds`, `suspects`, `slow`, `lanes`, `committed_brokers`, `committed_lanes`, `committed_letters`, `time`, `hammer`, `examples` and `dead_letters` call the library; `input`, `faults`, `kills`, `outages`, `restraints`, `parity`, `offsets` and `poison` run
//! the program, as a user would. Each test has a broker of its own. `bed` and `relay` test what the
//! faults are caused with. With `KAFKA_LONG=1` the outages last as long as they may with the timeouts
//! that users have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]
#![allow(clippy::big_endian_bytes, reason = "Kafka's requests are big-endian")]

#[path = "../support/kafka.rs"]
mod kafka;
#[path = "../support/program.rs"]
#[allow(dead_code, reason = "shared: not every test needs all of it")]
mod program;
#[path = "../support/random.rs"]
mod random;

mod bed;
mod change;
mod clusters;
mod committed_brokers;
mod committed_holds;
mod committed_lanes;
mod committed_letters;
mod copies;
mod dead_letters;
mod exactly_once;
mod examples;
mod faults;
mod gateway;
mod hammer;
mod holds;
mod input;
mod kills;
mod lanes;
mod link;
mod offsets;
mod outages;
mod parity;
mod poison;
mod process;
mod relay;
mod restraints;
mod shipper;
mod shipping;
mod slow;
mod suspects;
mod time;
mod transactions;
