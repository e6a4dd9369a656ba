//! No space: a state that ends by itself, and what callers are told meanwhile.
//!
//! Owns: whether space is short, why, and when the next try is due. Must not know: files; who tries.
//!
//! Invariants: while it lasts nobody but the keeper writes records, one try a round and ever fewer
//! rounds, so that a full disk costs neither processor time nor wear; nothing staged is given up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Most rounds of the keeper between two tries: 16 of 200 ms, about 3 s.
const MAX_PAUSE: u32 = 16;

/// Whether space is short.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    /// Spares the lock where space is not short.
    lasts: AtomicBool,
    refused: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reason: String,
    /// Rounds that the last failed try asked to pause.
    pause: u32,
    /// Rounds to go until the next try.
    left: u32,
}

impl Shortage {
    /// Space is short, or still is: the pause before the next try doubles.
    pub(crate) fn begin(&self, reason: String) {
        let mut state = self.state.lock();
        let pause = (state.pause * 2).clamp(1, MAX_PAUSE);
        *state = State {
            reason,
            pause,
            left: pause,
        };
        self.lasts.store(true, Ordering::SeqCst);
    }

    /// Space is back. True: it was short.
    pub(crate) fn end(&self) -> bool {
        let mut state = self.state.lock();
        *state = State::default();
        self.lasts.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn lasts(&self) -> bool {
        self.lasts.load(Ordering::SeqCst)
    }

    /// Why space is short, if it is.
    pub(crate) fn reason(&self) -> Option<String> {
        self.lasts().then(|| self.state.lock().reason.clone())
    }

    /// Records were not appended.
    pub(crate) fn refuse(&self, records: u64) {
        self.refused.fetch_add(records, Ordering::SeqCst);
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// One round of the keeper has come. True: it is time for a try.
    pub(crate) fn is_due(&self) -> bool {
        if !self.lasts() {
            return false;
        }
        let mut state = self.state.lock();
        state.left = state.left.saturating_sub(1);
        state.left == 0
    }

    /// Something was freed: the next round tries, and pauses start from the shortest again.
    pub(crate) fn hurry(&self) {
        let mut state = self.state.lock();
        state.pause = 0;
        state.left = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_grow_rarer_and_freed_space_hurries_them() {
        let shortage = Shortage::default();
        assert!(!shortage.is_due());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            shortage.begin("full".into());
            let rounds = 1 + (0..100).take_while(|_| !shortage.is_due()).count();
            pauses.push(rounds);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16]);
        shortage.begin("full".into());
        shortage.hurry();
        assert!(shortage.is_due());
        assert_eq!(shortage.reason().as_deref(), Some("full"));
        assert!(shortage.end() && !shortage.end() && !shortage.lasts());
    }
}
