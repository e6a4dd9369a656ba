//! What the fuzzer calls: `targets`, on the simulated disk of the tests.

#[cfg(feature = "config")]
pub mod config;
#[path = "../../tests/support/faulty.rs"]
#[allow(dead_code, reason = "shared: not every user needs all of it")]
mod faulty;
#[path = "../../tests/support/random.rs"]
mod random;
pub mod targets;
