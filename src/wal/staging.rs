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
use super::frame::{
    Codec, HEADER_LEN, Header, Kind, PAGE, delay_records, encode_definition, encode_record,
    record_span,
};
use super::gap::{GAP_LEN, Gap};
use super::options::{BUFFER_BYTES, FRAME_BYTES};
use super::seq::SeqNo;

/// A frame in a buffer; what its header still lacks is known when it is written.
#[derive(Clone, Copy, Debug)]
struct Staged {
    at: usize,
    first_seq: SeqNo,
    count: u32,
    base_time_micros: i64,
    payload_len: usize,
    kind: Kind,
    more: bool,
}

/// One group on its way: encoded frames with room for their headers.
#[derive(Debug)]
pub(crate) struct Group {
    bytes: Vec<u8>,
    used: usize,
    frames: Vec<Staged>,
    /// The number after its last record.
    pub end_seq: SeqNo,
    pub records: u64,
    pub first_time_micros: i64,
    pub last_time_micros: i64,
}

/// What the writer knows when it gives a group its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub segment: u64,
    pub salt: u64,
    pub position: u64,
    pub durable_seq: SeqNo,
    pub acked_seq: SeqNo,
}

impl Group {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity.next_multiple_of(PAGE)],
            used: 0,
            frames: Vec::with_capacity(16),
            end_seq: SeqNo::ZERO,
            records: 0,
            first_time_micros: 0,
            last_time_micros: 0,
        }
    }

    fn clear(&mut self) {
        self.used = 0;
        self.records = 0;
        self.frames.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that it takes in the file: whole pages (R1).
    pub(crate) fn padded_len(&self) -> usize {
        self.used.next_multiple_of(PAGE)
    }

    pub(crate) fn first_seq(&self) -> SeqNo {
        self.frames
            .first()
            .map_or(self.end_seq, |frame| frame.first_seq)
    }

    fn room(&self) -> usize {
        self.bytes.len() - self.used
    }

    /// Adds a frame without records and returns its payload.
    pub(crate) fn push_frame(
        &mut self,
        kind: Kind,
        payload_len: usize,
        next_seq: SeqNo,
        now_micros: i64,
    ) -> &mut [u8] {
        self.open_frame(kind, next_seq, now_micros);
        self.end_seq = next_seq;
        let start = self.used;
        self.grow(payload_len, 0);
        &mut self.bytes[start..self.used]
    }

    /// Encodes records from `next_seq` on.
    fn encode<E: Encode>(&mut self, records: &[E], payload: usize, next_seq: SeqNo, now: i64) {
        let mut next_seq = next_seq;
        // A batch that fits into the rest of a frame is not split.
        let mut begin = self.delta_millis(payload, now).is_none();
        for (index, record) in records.iter().enumerate() {
            let len = record.encoded_len();
            let span = record_span(len);
            let delta = match self.delta_millis(span, now) {
                Some(delta) if !begin => delta,
                _ => {
                    if index > 0
                        && let Some(last) = self.frames.last_mut()
                    {
                        last.more = true;
                    }
                    self.open_frame(Kind::Records, next_seq, now);
                    begin = false;
                    0
                }
            };
            let end = self.used + span;
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            record.encode(encode_record(len, delta, &mut self.bytes[self.used..end]));
            self.grow(span, 1);
            next_seq = next_seq + 1;
        }
        self.end_seq = next_seq;
        self.records += records.len() as u64;
    }

    /// Takes in what another group holds, where that fits, also if each payload gets so many bytes
    /// `more`; records go on in the last frame. False: it does not fit, and nothing has changed.
    pub(crate) fn absorb(&mut self, other: &Self, more: usize) -> bool {
        let before = self.extent();
        for frame in &other.frames {
            let fits = self.absorb_frame(frame, &other.bytes[frame.at + HEADER_LEN..]);
            if !fits || self.padded_len_with(more) > self.bytes.len() {
                self.cut(before, self.end_seq);
                return false;
            }
        }
        if self.records == 0 {
            self.first_time_micros = other.first_time_micros;
        }
        self.last_time_micros = other.last_time_micros;
        self.records += other.records;
        self.end_seq = other.end_seq;
        true
    }

    fn absorb_frame(&mut self, frame: &Staged, payload: &[u8]) -> bool {
        let payload = &payload[..frame.payload_len];
        let delay = self
            .delta_millis(payload.len(), frame.base_time_micros)
            .filter(|_| frame.kind == Kind::Records && !frame.more);
        if let Some(delay) = delay
            && let Some(out) = self.bytes[self.used..].get_mut(..payload.len())
        {
            out.copy_from_slice(payload);
            if delay_records(out, delay) {
                self.grow(payload.len(), frame.count);
                return true;
            }
        }
        if self.used.next_multiple_of(HEADER_LEN) + HEADER_LEN + payload.len() > self.bytes.len() {
            return false;
        }
        self.open_frame(frame.kind, frame.first_seq, frame.base_time_micros);
        self.bytes[self.used..][..payload.len()].copy_from_slice(payload);
        self.grow(payload.len(), frame.count);
        if let Some(last) = self.frames.last_mut() {
            last.more = frame.more;
        }
        true
    }

    /// The last frame has so much more payload.
    fn grow(&mut self, payload: usize, records: u32) {
        self.used += payload;
        if let Some(last) = self.frames.last_mut() {
            last.payload_len += payload;
            last.count += records;
        }
    }

    /// How far the buffer is filled: bytes, frames, and the last one as it is.
    fn extent(&self) -> (usize, usize, Option<Staged>) {
        (self.used, self.frames.len(), self.frames.last().copied())
    }

    /// Takes back what was encoded beyond an earlier extent.
    fn cut(&mut self, (used, frames, last): (usize, usize, Option<Staged>), end_seq: SeqNo) {
        self.used = used;
        self.frames.truncate(frames);
        if let (Some(frame), Some(last)) = (self.frames.last_mut(), last) {
            *frame = last;
        }
        self.end_seq = end_seq;
    }

    /// Where `span` more bytes may go on in the last frame: the milliseconds since the frame's base,
    /// which fit (F6).
    #[inline]
    fn delta_millis(&self, span: usize, now: i64) -> Option<u16> {
        let frame = self.frames.last()?;
        if frame.kind != Kind::Records || frame.payload_len + span > FRAME_BYTES {
            return None;
        }
        u16::try_from(now.checked_sub(frame.base_time_micros)?.div_euclid(1000)).ok()
    }

    /// Begins a frame at the next multiple of its header's length; its payload grows from `used` on.
    fn open_frame(&mut self, kind: Kind, first_seq: SeqNo, base_time_micros: i64) {
        let at = self.used.next_multiple_of(HEADER_LEN);
        self.bytes[self.used..at].fill(0);
        self.frames.push(Staged {
            at,
            first_seq,
            count: 0,
            base_time_micros,
            payload_len: 0,
            kind,
            more: false,
        });
        self.used = at + HEADER_LEN;
    }

    /// Finishes the headers for this place and returns the bytes to write there: whole pages.
    /// Calling it again for another place is how a group is rewritten (R2).
    pub(crate) fn place(&mut self, place: Place) -> &[u8] {
        assert!(place.position.is_multiple_of(PAGE as u64));
        let padded = self.padded_len();
        self.bytes[self.used..padded].fill(0);
        for frame in &self.frames {
            let start = frame.at + HEADER_LEN;
            let (head, payload) =
                self.bytes[frame.at..start + frame.payload_len].split_at_mut(HEADER_LEN);
            let header = Header {
                position: place.position + frame.at as u64,
                payload_crc: crc32fast::hash(payload),
                ..frame.header(&place)
            };
            header.encode(place.salt, head);
        }
        &self.bytes[..padded]
    }

    /// The frames as they are before they have positions: headers and payloads.
    pub(crate) fn frames(&self, place: Place) -> impl Iterator<Item = (Header, &[u8])> {
        self.frames.iter().map(move |frame| {
            let start = frame.at + HEADER_LEN;
            let payload = &self.bytes[start..start + frame.payload_len];
            (frame.header(&place), payload)
        })
    }

    /// As [`padded_len`](Self::padded_len), where each payload may be `more` bytes longer.
    pub(crate) fn padded_len_with(&self, more: usize) -> usize {
        let spans = self.frames.iter().map(|f| frame_span(f.payload_len + more));
        spans.sum::<usize>().next_multiple_of(PAGE)
    }
}

impl Staged {
    /// The header, but for its position and the payload's checksum.
    fn header(&self, place: &Place) -> Header {
        let payload_len = u32::try_from(self.payload_len).unwrap_or(u32::MAX);
        assert!(payload_len as usize == self.payload_len);
        Header {
            segment: place.segment,
            position: 0,
            first_seq: self.first_seq,
            durable_seq: place.durable_seq,
            acked_seq: place.acked_seq,
            base_time_micros: self.base_time_micros,
            payload_len,
            payload_crc: 0,
            count: self.count,
            kind: self.kind,
            codec: Codec::PLAIN,
            more: self.more,
        }
    }
}

/// Bytes that a frame with this payload takes in a group.
pub(crate) const fn frame_span(payload_len: usize) -> usize {
    (HEADER_LEN + payload_len).next_multiple_of(HEADER_LEN)
}

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
        self.held += page.bytes.len();
    }

    /// Takes back what is durable now.
    pub(crate) fn recycle(&mut self, mut group: Group) {
        if group.bytes.len() == BUFFER_BYTES && self.held <= self.budget {
            group.clear();
            self.free.push(group);
        } else {
            self.held -= group.bytes.len();
        }
    }
}
