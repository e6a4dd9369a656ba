//! Staging: where appenders copy records into frames, in memory.
//!
//! Owns: SeqNos as they are handed out, the buffers, their budget. Must not know: files, positions,
//! checksums: those are the writer's. Everything here runs under one lock; the only system call is the clock.
//!
//! Invariants: a buffer is one group; a batch lies in one buffer; buffers leave in the order in
//! which they were filled; bytes held never exceed the budget, but for one larger group alone.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};

use super::encode::Encode;
use super::frame::{HEADER_LEN, Kind, PAGE, encode_definition, record_span};
use super::gap::{GAP_LEN, Gap};
use super::group::Group;
use super::options::{BUFFER_BYTES, FRAME_BYTES};
use super::seq::SeqNo;

/// The staging area.
#[derive(Debug)]
pub(crate) struct Staging {
    /// The number the next record gets.
    pub next_seq: SeqNo,
    /// No number at or above it is handed out (R4b: half of the lead below the durable limit).
    pub seq_bound: SeqNo,
    pub closed: bool,
    current: Option<Group>,
    full: VecDeque<Group>,
    free: Vec<Group>,
    /// Bytes of all buffers that exist: free, filling, full, or handed out.
    held: usize,
    budget: usize,
}

/// What an append asks for, measured before the lock is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub count: u64,
    /// Bytes of the records with their headers.
    pub payload: usize,
    /// Most bytes that the batch can take, its frame headers included.
    pub total: usize,
}

impl Need {
    pub(crate) fn of<E: Encode>(records: &[E]) -> Self {
        let payload = records
            .iter()
            .map(|r| record_span(r.encoded_len()))
            .sum::<usize>();
        // Each frame but the last is more than half full or holds one large record alone.
        let frames = records.len().min(2 * payload / FRAME_BYTES + 2);
        Self {
            count: records.len() as u64,
            payload,
            total: payload + 2 * HEADER_LEN * (frames + 1),
        }
    }
}

/// Why there is no room right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// The budget is used up: wait for a sync.
    Budget,
    /// The SeqNo limit must be moved by a cursor save first.
    Limit,
}

/// What an append left behind for its caller to act on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub first: SeqNo,
    pub count: u64,
    /// Staging was empty before: somebody should see to it that it is written.
    pub was_empty: bool,
}

impl Staging {
    pub(crate) fn new(next_seq: SeqNo, seq_bound: SeqNo, budget: usize) -> Self {
        Self {
            next_seq,
            seq_bound,
            closed: false,
            current: None,
            full: VecDeque::new(),
            free: Vec::new(),
            held: 0,
            budget,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.current.as_ref().is_none_or(Group::is_empty)
    }

    /// Whether all there is may still be added to.
    pub(crate) fn is_partial(&self) -> bool {
        self.full.is_empty() && !self.is_empty()
    }

    /// Makes room for one batch in one buffer, or says what to wait for. True: another buffer is
    /// full now and should be written.
    pub(crate) fn make_room(&mut self, need: Need) -> Result<bool, Wait> {
        if self.next_seq + need.count > self.seq_bound {
            return Err(Wait::Limit);
        }
        if self
            .current
            .as_ref()
            .is_some_and(|group| group.room() >= need.total)
        {
            return Ok(false);
        }
        if let Some(empty) = self.current.take_if(|group| group.is_empty()) {
            self.recycle(empty);
        }
        let size = need.total.next_multiple_of(PAGE).max(BUFFER_BYTES);
        let reused = if size == BUFFER_BYTES {
            self.free.pop()
        } else {
            None
        };
        let next = match reused {
            Some(group) => group,
            None => self.allocate(size).ok_or(Wait::Budget)?,
        };
        let full = self.current.replace(next);
        let filled = full.is_some();
        self.full.extend(full);
        Ok(filled)
    }

    /// A new buffer, where the budget allows one; idle buffers give way to it.
    fn allocate(&mut self, size: usize) -> Option<Group> {
        while self.held + size > self.budget && self.free.pop().is_some() {
            self.held -= BUFFER_BYTES;
        }
        (self.held == 0 || self.held + size <= self.budget).then(|| {
            self.held += size;
            Group::with_capacity(size)
        })
    }

    /// Encodes a batch for which [`make_room`](Self::make_room) made room.
    ///
    /// # Panics
    ///
    /// Panics if an `encode` does; then nothing of the batch was appended (P3).
    pub(crate) fn append<E: Encode>(&mut self, records: &[E], need: Need, now: i64) -> Appended {
        let was_empty = self.is_empty();
        let first = self.next_seq;
        let Some(group) = self.current.as_mut() else {
            unreachable!("make_room left a current buffer");
        };
        if group.is_empty() {
            group.first_time_micros = now;
        }
        group.last_time_micros = now;
        let before = group.extent();
        let encoded = panic::catch_unwind(AssertUnwindSafe(|| {
            group.encode(records, need.payload, first, now);
        }));
        if let Err(panicked) = encoded {
            group.cut(before, first);
            panic::resume_unwind(panicked);
        }
        self.next_seq = group.end_seq;
        Appended {
            first,
            count: need.count,
            was_empty,
        }
    }

    /// Puts a definition in front of the records that follow.
    pub(crate) fn define(&mut self, id: u32, bytes: &[u8], now: i64) {
        if let Some(group) = self.current.as_mut() {
            let payload = record_span(bytes.len());
            let out = group.push_frame(Kind::Dictionary, payload, self.next_seq, now);
            encode_definition(id, bytes, out);
        }
    }

    /// Names what is lost, behind everything staged so far.
    pub(crate) fn lose(&mut self, gap: &Gap, now: i64) {
        if let Some(group) = self.current.as_mut() {
            gap.encode(group.push_frame(Kind::Gap, GAP_LEN, self.next_seq, now));
        }
    }

    /// The next group to write, oldest first.
    pub(crate) fn take(&mut self) -> Option<Group> {
        self.full
            .pop_front()
            .or_else(|| self.current.take_if(|group| !group.is_empty()))
    }

    /// Takes back a group that could not be written: it is the next one again.
    pub(crate) fn put_back(&mut self, group: Group) {
        self.full.push_front(group);
    }

    /// A page that was pending is kept until it is durable in its place: it counts, too.
    pub(crate) fn hold(&mut self, page: &Group) {
        self.held += page.capacity();
    }

    /// Takes back a group of which a copy is kept.
    pub(crate) fn exchange(&mut self, group: Group, copy: &Group) {
        self.hold(copy);
        self.recycle(group);
    }

    /// Takes back what is not needed any more.
    pub(crate) fn recycle(&mut self, mut group: Group) {
        if group.capacity() == BUFFER_BYTES && self.held <= self.budget {
            group.clear();
            self.free.push(group);
        } else {
            self.held -= group.capacity();
        }
    }
}
