//! Random numbers that a seed repeats.

#![allow(dead_code, reason = "shared: not every test needs all of it")]

use std::{
    collections::hash_map::RandomState,
    env,
    hash::{BuildHasher, Hasher},
};

/// A new seed, or the one in `FERRYLOG_TEST_SEED`; printed, so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = match env::var("FERRYLOG_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    println!("FERRYLOG_TEST_SEED={seed}");
    seed
}

/// SplitMix64: the same numbers everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `of` times.
    pub(crate) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// Between 0 and 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.below(1 << 32) as f64 / (1_u64 << 32) as f64
    }
}
