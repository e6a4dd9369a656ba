//! Groups: frames in a buffer, on their way from staging to disk.
//!
//! Owns: how records become frames, and what of a frame is known only when it has its place. Must not
//! know: locks, files, who numbers the records.
//!
//! Invariants: frames lie one behind the other, each at a multiple of its header's length; a group takes
//! whole pages in the file; placed again, it is the same but for its place.

use super::encode::Encode;
use super::frame::{
    Codec, HEADER_LEN, Header, Kind, PAGE, delay_records, encode_record, record_span,
};
use super::options::FRAME_BYTES;
use super::seq::SeqNo;

/// A frame in a buffer; what its header still lacks is known when it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
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

    /// A copy in a buffer of its size, where half of this one is empty.
    pub(crate) fn cut_to_size(&self) -> Option<Self> {
        (self.padded_len() <= self.bytes.len() / 2).then(|| Self {
            bytes: self.bytes[..self.padded_len()].to_vec(),
            frames: self.frames.clone(),
            ..*self
        })
    }

    pub(super) fn clear(&mut self) {
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

    /// Bytes of its buffer.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn room(&self) -> usize {
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
    pub(super) fn encode<E: Encode>(
        &mut self,
        records: &[E],
        payload: usize,
        next_seq: SeqNo,
        now: i64,
    ) {
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
    pub(super) fn extent(&self) -> (usize, usize, Option<Staged>) {
        (self.used, self.frames.len(), self.frames.last().copied())
    }

    /// Takes back what was encoded beyond an earlier extent.
    pub(super) fn cut(
        &mut self,
        (used, frames, last): (usize, usize, Option<Staged>),
        end_seq: SeqNo,
    ) {
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
