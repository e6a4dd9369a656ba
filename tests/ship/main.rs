//! The delivery promise, tested by fault: against a scripted sink, where every order of events can
//! be had, and against librdkafka and its mock cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

#[path = "../support/random.rs"]
mod random;

mod mock;
mod scripted;
mod sink;
mod support;
