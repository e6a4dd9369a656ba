//! The store as its users see it: one module a subject.

#![allow(clippy::unwrap_used, reason = "what cannot go on here panics")]

mod clusters;
mod lanes;
#[path = "../support/random.rs"]
mod random;
mod schedule;
mod time;
