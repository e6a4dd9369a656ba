//! The watermarks of an open log.
//!
//! Owns: how far writing, syncing and settling have come, and how far a sync is urgent. Must not know:
//! who moves them.
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
    urgent: AtomicU64,
}

impl Atomics {
    pub(crate) fn new(durable: SeqNo, acked: SeqNo) -> Self {
        Self {
            written: durable.get().into(),
            durable: durable.get().into(),
            acked: acked.get().into(),
            urgent: 0.into(),
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

    /// Whether something is to be synced that must not wait for company.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent.load(SeqCst) > self.durable.load(SeqCst)
    }

    /// What lies below this number must not wait for company.
    pub(crate) fn set_urgent(&self, seq: SeqNo) {
        self.urgent.fetch_max(seq.get(), SeqCst);
    }
}
