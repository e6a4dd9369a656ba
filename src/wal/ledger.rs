//! The ledger between writing and syncing: what is in the active segment, and how far it is durable.
//!
//! Owns: the groups that are kept in memory until they are durable in their place (R2), and where
//! that is. Must not know: who writes, or who syncs.
//!
//! Invariant: everything written is durable in its place, or in `groups`, or in the pending page.

use std::collections::VecDeque;
use std::sync::Arc;

use super::active::Active;
use super::error::Error;
use super::fs::Fs;
use super::group::Group;
use super::segment::{BODY, EndKind};
use super::seq::SeqNo;
use super::slots::{Slots, StandIn};

/// What is written but not known to be durable, in the active file.
#[derive(Debug)]
pub(crate) struct Ledger<F: Fs> {
    file: Arc<F::File>,
    pub groups: VecDeque<Group>,
    /// Bytes of `groups`.
    pub bytes: u64,
    /// Something was written since the last sync began.
    dirty: bool,
    /// Position behind the last group written to its place.
    end: u64,
    /// The pending page as a slot holds it, if anything is pending.
    tail: Option<StandIn>,
    pub slots: Slots,
    pub durable_end: u64,
    /// The number after the last record that is durable in its place.
    durable_next: SeqNo,
    /// The segment had a successful sync: its header is durable.
    pub proven: bool,
    /// Nothing more goes into the file; `groups` and what follows go on in a fresh segment.
    pub over: Option<Over>,
}

/// Why a segment is over before its successor began.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    pub reason: String,
    pub kind: EndKind,
}

impl Over {
    /// A write or sync failed. After a sync that failed the file is poisoned (R2); after a write, its
    /// place may hold a part of a group, which nothing may follow (R1).
    pub(crate) fn failed(error: &Error) -> Self {
        let kind = if error.is_full() {
            EndKind::DiskFull
        } else {
            EndKind::IoError
        };
        Self {
            reason: error.describe(),
            kind,
        }
    }
}

/// What a sync covers that begins now.
#[derive(Debug)]
pub(crate) struct Covered<F: Fs> {
    pub file: Arc<F::File>,
    groups: usize,
    pub end: u64,
    pub tail: Option<StandIn>,
    pub end_seq: SeqNo,
}

impl<F: Fs> Ledger<F> {
    /// Of a segment that was just begun with records below `next`; `proven`: and synced.
    pub(crate) fn new(active: &Active<F>, proven: bool, next: SeqNo) -> Self {
        Self {
            file: active.file.clone(),
            groups: VecDeque::new(),
            bytes: 0,
            dirty: !proven,
            end: active.position,
            tail: None,
            slots: Slots::default(),
            durable_end: if proven { active.position } else { BODY },
            durable_next: next,
            proven,
            over: None,
        }
    }

    /// Everything up to here was written to its place, and nothing is pending.
    pub(crate) fn wrote(&mut self, end: u64) {
        self.end = end;
        self.tail = None;
        self.slots.flushed();
        self.dirty = true;
    }

    /// The pending page was written to a slot.
    pub(crate) fn wrote_page(&mut self, slot: usize, page: StandIn) {
        self.slots.wrote(slot);
        self.tail = Some(page);
        self.dirty = true;
    }

    /// Keeps a group until it is durable in its place.
    pub(crate) fn keep(&mut self, group: Group) {
        self.bytes += group.padded_len() as u64;
        self.groups.push_back(group);
    }

    /// A sync begins; `end_seq` is the number after the last record written. `None`: it would do
    /// nothing, or must not be asked for.
    pub(crate) fn sync_begins(&mut self, end_seq: SeqNo) -> Option<Covered<F>> {
        if self.over.is_some() || !self.dirty {
            return None;
        }
        self.dirty = false;
        self.slots.sync_begins();
        Some(Covered {
            file: self.file.clone(),
            groups: self.groups.len(),
            end: self.end,
            tail: self.tail.clone(),
            end_seq,
        })
    }

    /// It succeeded. Returns the groups that need not be kept any longer.
    pub(crate) fn synced(&mut self, covered: &Covered<F>) -> Vec<Group> {
        let durable: Vec<Group> = self.groups.drain(..covered.groups).collect();
        self.bytes -= durable
            .iter()
            .map(|group| group.padded_len() as u64)
            .sum::<u64>();
        self.durable_end = covered.end;
        let pending = covered.tail.as_ref().map(|tail| tail.first_seq);
        self.durable_next = pending.unwrap_or(covered.end_seq);
        self.slots.synced();
        self.proven = true;
        durable
    }

    /// What is durable without a slot: where it ends, and the number after it.
    pub(crate) fn durable_place(&self) -> (u64, SeqNo) {
        (self.durable_end, self.durable_next)
    }
}
