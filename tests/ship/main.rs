//! The delivery promise, tested by fault: against a scripted sink, where every order of events can
//! be had, and against librdkafka and its mock cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

#[path = "../support/faulty.rs"]
#[allow(dead_code, reason = "shared: not every test needs all of it")]
mod faulty;
#[path = "../support/random.rs"]
mod random;

mod change;
mod chaos;
mod closing;
mod clusters;
#[cfg(feature = "config")]
mod configured;
mod dead_letters;
mod due;
mod events;
mod examples;
mod exhausted;
mod held;
mod interceptors;
mod interval;
mod lanes;
mod letters;
mod mock;
mod outage;
#[cfg(feature = "config")]
mod parity;
mod producer;
mod read;
mod refusals;
mod scripted;
mod sink;
mod slow;
mod stale;
mod support;
mod trials;
mod world;
