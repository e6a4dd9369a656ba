//! The watermarks of an open log.
//!
//! Owns: how far writing, syncing and settling have come. Must not know: who moves them.
//!
//! Invariants: `acked <= durable <= written`; none moves back.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::seq::SeqNo;

/// Where appends stand. `acked <= durable <= written <= next`.
#[derive(Debug)]
pub(crate) struct Atomics {
    written: AtomicU64,
    durable: AtomicU64,
    acked: AtomicU64,
}

impl Atomics {
    pub(crate) fn new(durable: SeqNo, acked: SeqNo) -> Self {
        Self {
            written: durable.get().into(),
            durable: durable.get().into(),
            acked: acked.get().into(),
        }
    }

    pub(crate) fn written(&self) -> SeqNo {
        SeqNo::new(self.written.load(SeqCst))
    }

    pub(crate) fn durable(&self) -> SeqNo {
        SeqNo::new(self.durable.load(SeqCst))
    }

    pub(crate) fn acked(&self) -> SeqNo {
        SeqNo::new(self.acked.load(SeqCst))
    }

    pub(crate) fn set_written(&self, seq: SeqNo) {
        self.written.fetch_max(seq.get(), SeqCst);
    }

    pub(crate) fn set_durable(&self, seq: SeqNo) {
        self.set_written(seq);
        self.durable.fetch_max(seq.get(), SeqCst);
    }

    pub(crate) fn set_acked(&self, seq: SeqNo) {
        self.acked.fetch_max(seq.get(), SeqCst);
    }
}
