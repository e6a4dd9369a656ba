//! Reading a segment's frames in order, and telling where they stop and why.
//!
//! Owns: the step from frame to frame, the search behind a stop. Must not know: whether a stop is the
//! end of the log or damage: that is `recovery`'s and `verify`'s.
//!
//! Invariants: nothing read is used before its checksum held; memory is bounded by one frame; every
//! loop moves forward (R12).

use std::io;

use bytes::Bytes;

use super::frame::{
    Codec, Decoded, HEADER_LEN, Header, Kind, PAGE, RECORD_HEADER_LEN, definitions, holds_records,
    u32_at, was_header,
};
use super::fs::File;
use super::gap::{Gap, MAX_GAPS, decode_gaps};
use super::options::MAX_BATCH_BYTES;
use super::rest::may_have;
use super::segment::BODY;
use super::seq::SeqNo;
use super::slots::StandIn;
use super::window::{CHUNK, Window};

/// Largest frame that was ever written; a header that claims more is not believed.
const MAX_FRAME_LEN: u64 = MAX_BATCH_BYTES as u64 + PAGE as u64;
/// Most records of one frame.
const MAX_COUNT: u64 = (MAX_BATCH_BYTES / RECORD_HEADER_LEN) as u64;

/// Which life of which segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life {
    pub number: u64,
    pub salt: u64,
}

/// What stands at a position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum At {
    /// A whole frame of this life.
    Frame(Header),
    /// A header of this life, but not its payload (row F).
    BadPayload(Header),
    /// A header of this life that this version does not understand.
    Unknown(&'static str),
    /// What is left of a header of this life.
    BadHeader,
    /// The disk does not give what stands here (row K).
    Unreadable,
    /// Zeros, or bytes of something else.
    Nothing,
}

impl At {
    /// What is wrong where a certain frame should stand.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::BadPayload(_) => "the payload does not match its checksum",
            Self::BadHeader => "the frame header does not match its checksum",
            Self::Unknown(what) => what,
            Self::Frame(_) => "a frame of other records stands here",
            Self::Unreadable => "the disk cannot read it",
            Self::Nothing => "no frame is here",
        }
    }
}

/// Looks at one position.
pub(crate) fn look<F: File>(
    window: &mut Window,
    file: &F,
    life: Life,
    position: u64,
) -> io::Result<At> {
    window.get(file, position, HEADER_LEN)?;
    if window.lacks(position, HEADER_LEN as u64) {
        return Ok(At::Unreadable);
    }
    let bytes = window.get(file, position, HEADER_LEN)?;
    let header = match Header::decode(bytes, life.salt) {
        // L: a good checksum in the wrong place is misdirected or stale.
        Decoded::Header(h) if (h.segment, h.position) == (life.number, position) => h,
        Decoded::Unknown(what) => return Ok(At::Unknown(what)),
        Decoded::Header(_) | Decoded::Invalid => {
            return Ok(if was_header(bytes, life.salt) {
                At::BadHeader
            } else {
                At::Nothing
            });
        }
    };
    let len = u64::from(header.payload_len);
    if len > MAX_FRAME_LEN || position + HEADER_LEN as u64 + len > window.limit {
        return Ok(At::BadPayload(header));
    }
    let payload = payload(window, file, &header)?;
    if window.lacks(position, HEADER_LEN as u64 + len) {
        return Ok(At::Unreadable);
    }
    Ok(if is_whole(&header, &payload) {
        At::Frame(header)
    } else {
        At::BadPayload(header)
    })
}

/// Whether this is the payload that the header was made for, and what its kind says (F5).
pub(crate) fn is_whole(header: &Header, payload: &[u8]) -> bool {
    header.covers(payload)
        && may_have(header.kind, header.codec)
        && match header.kind {
            // F12: what is compressed or encrypted shows when it is read.
            Kind::Records if header.codec != Codec::PLAIN => u64::from(header.count) <= MAX_COUNT,
            Kind::Records => holds_records(payload, header.count),
            Kind::Dictionary if header.codec.encrypted => header.count == 0,
            Kind::Dictionary => header.count == 0 && definitions(payload).is_some(),
            // F11: a gap is about numbers that were given, or durable, before it.
            Kind::Gap => {
                let end = header.first_seq.max(header.durable_seq);
                let gaps = decode_gaps(payload).filter(|_| header.count == 0);
                gaps.is_some_and(|gaps| gaps.iter().all(|gap| gap.seqs.end <= end))
            }
            Kind::Start | Kind::Seal | Kind::Ignorable(_) => header.count == 0,
        }
}

/// A frame whose header [`look`] returned: header and stored payload.
pub(crate) fn frame<F: File>(window: &mut Window, file: &F, header: &Header) -> io::Result<Bytes> {
    let len = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
    window.slice(file, header.position, HEADER_LEN + len)
}

fn payload<F: File>(window: &mut Window, file: &F, header: &Header) -> io::Result<Bytes> {
    let mut frame = frame(window, file, header)?;
    Ok(frame.split_off(frame.len().min(HEADER_LEN)))
}

fn starts_with_magic(bytes: &[u8], salt: u64) -> bool {
    bytes.len() >= 4 && u32_at(bytes, 0) == super::frame::MAGIC ^ u32_at(&salt.to_le_bytes(), 0)
}

/// A walk along the frames of one segment.
#[derive(Debug)]
pub(crate) struct Walk {
    pub life: Life,
    /// Where the next frame is looked for.
    pub position: u64,
    /// The SeqNo it must begin with.
    pub expected: SeqNo,
    /// The tail slots were looked at.
    slots_read: bool,
}

/// One step of a [`Walk`].
#[derive(Debug)]
pub(crate) enum Step {
    /// The next frame; `padding` bytes were passed over to reach it.
    Frame {
        header: Header,
        padding: std::ops::Range<u64>,
    },
    /// No frame that continues the walk; what stands at its position instead.
    Stop(At),
}

impl Walk {
    pub(crate) fn new(life: Life, base: SeqNo) -> Self {
        Self {
            life,
            position: BODY,
            expected: base,
            slots_read: false,
        }
    }

    /// Steps over the next frame, or stops and stays. Where frames stop, tail slots may stand in.
    pub(crate) fn step<F: File>(&mut self, window: &mut Window, file: &F) -> io::Result<Step> {
        let here = self.position;
        let step = self.step_once(window, file)?;
        if matches!(step, Step::Stop(_)) && !self.slots_read {
            self.slots_read = true;
            if window.read_slots(file, self.life)? {
                // It may have stopped at the next page, and a slot stands in for this one.
                self.position = here;
                return self.step_once(window, file);
            }
        }
        Ok(step)
    }

    fn step_once<F: File>(&mut self, window: &mut Window, file: &F) -> io::Result<Step> {
        let here = self.position;
        let first = look(window, file, self.life, here)?;
        if let At::Frame(header) = first
            && header.first_seq == self.expected
        {
            return Ok(self.pass(header, here));
        }
        // A group ends on a page boundary; the next one begins there.
        let boundary = here.next_multiple_of(PAGE as u64);
        if boundary != here && matches!(first, At::Nothing | At::Unreadable) {
            match look(window, file, self.life, boundary)? {
                At::Frame(header) if header.first_seq == self.expected => {
                    return Ok(self.pass(header, here));
                }
                At::Nothing | At::Frame(_) => {}
                stop => {
                    self.position = boundary;
                    return Ok(Step::Stop(stop));
                }
            }
        }
        Ok(Step::Stop(first))
    }

    /// Where it goes on behind a damaged stretch: at the next valid header of `least` or a later number
    /// that leads on, else at the segment's end, a position and a number. Never back, whatever end a
    /// damaged header names.
    pub(crate) fn landing<F: File>(
        &self,
        window: &mut Window,
        file: &F,
        least: SeqNo,
        end: (u64, SeqNo),
    ) -> io::Result<(u64, SeqNo)> {
        let mut next = None;
        search(window, file, self.life, self.position, |header| {
            if header.first_seq >= least && self.may_go_on_at(&header) {
                next.get_or_insert((header.position, header.first_seq));
            }
            next.is_none()
        })?;
        let end = (end.0.max(self.position), end.1.max(self.expected));
        Ok(next.unwrap_or(end))
    }

    /// Whether a header that was found by searching from a stop leads on from it. A frame of other
    /// numbers at the stop itself does, too: those between are not here.
    pub(crate) fn may_go_on_at(&self, header: &Header) -> bool {
        header.first_seq >= self.expected
            && (header.position > self.position || header.first_seq > self.expected)
    }

    /// Goes on behind a damaged region.
    pub(crate) fn jump(&mut self, to: (u64, SeqNo)) {
        (self.position, self.expected) = to;
    }

    fn pass(&mut self, header: Header, from: u64) -> Step {
        self.position = header.position + header.span();
        self.expected = header.end_seq();
        Step::Frame {
            header,
            padding: from..header.position,
        }
    }
}

/// The valid headers at or behind `from`, searched in steps of 64 bytes; a search that `seen`
/// answers with false ends there.
pub(crate) fn search<F: File>(
    window: &mut Window,
    file: &F,
    life: Life,
    from: u64,
    mut seen: impl FnMut(Header) -> bool,
) -> io::Result<()> {
    let mut position = from.next_multiple_of(HEADER_LEN as u64);
    loop {
        let bytes = window.get(file, position, CHUNK)?;
        let steps = bytes.chunks_exact(HEADER_LEN).enumerate();
        let mut candidates = Vec::new();
        for (index, bytes) in steps {
            if starts_with_magic(bytes, life.salt)
                && let Decoded::Header(header) = Header::decode(bytes, life.salt)
                && (header.segment, header.position)
                    == (life.number, position + (index * HEADER_LEN) as u64)
            {
                candidates.push(header);
            }
        }
        let passed = (bytes.len() / HEADER_LEN * HEADER_LEN) as u64;
        if passed == 0 || !candidates.into_iter().all(&mut seen) {
            return Ok(());
        }
        position += passed;
    }
}

/// Frames that follow one another, and what stands where they stop.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// Behind the last whole frame.
    pub end: u64,
    pub next_seq: SeqNo,
    pub records: u64,
    /// The last frame is a seal.
    pub sealed: bool,
    /// The largest `acked_seq` in any of its frames.
    pub acked: SeqNo,
    /// First frame of a batch that does not end before the stop: a batch counts whole or not (P3).
    pub unfinished: Option<(u64, SeqNo)>,
    /// Frames with definitions, as they are stored.
    pub definitions: Vec<(Header, Bytes)>,
    /// Gaps that its frames tell of.
    pub gaps: Vec<Gap>,
    /// Where and on what it stops.
    pub stop: (u64, At),
    /// The header with which the next stretch begins.
    pub after: Option<Header>,
}

/// What a scan of a segment found; the material of recovery's decision.
#[derive(Debug)]
pub(crate) struct Tail {
    /// At least one; nothing follows the last one.
    pub stretches: Vec<Stretch>,
    /// The largest `durable_seq` in any valid header.
    pub promise: SeqNo,
    /// Pages that were read from tail slots.
    pub stand_ins: Vec<StandIn>,
    /// Pages of the file cannot be read, frames or not.
    pub unreadable: bool,
}

/// Scans one segment: every stretch of frames, and where it stops.
pub(crate) fn scan_tail<F: File>(
    file: &F,
    life: Life,
    base: SeqNo,
    limit: u64,
) -> io::Result<Tail> {
    let mut window = Window::new(limit);
    let mut walk = Walk::new(life, base);
    let mut tail = Tail {
        stretches: Vec::new(),
        promise: SeqNo::ZERO,
        stand_ins: Vec::new(),
        unreadable: false,
    };
    loop {
        let mut stretch = Stretch::at(walk.position, walk.expected);
        loop {
            match walk.step(&mut window, file)? {
                Step::Frame { header, .. } => {
                    tail.promise = tail.promise.max(header.durable_seq);
                    stretch.accept(&mut window, file, &header)?;
                }
                Step::Stop(at) => {
                    // The frames may go on in a slot, where no seal says that they do not.
                    let at = match at {
                        At::Nothing if !stretch.sealed && window.lacks_slot() => At::Unreadable,
                        at => at,
                    };
                    stretch.stop = (walk.position, at);
                    break;
                }
            }
        }
        // Where there are too many to tell apart, the last one swallows the rest.
        let crowded = tail.stretches.len() >= MAX_GAPS;
        let mut after = None;
        search(&mut window, file, life, walk.position, |header| {
            // The header at the stop itself may be good while its payload is not.
            tail.promise = tail.promise.max(header.durable_seq);
            if walk.may_go_on_at(&header) && (crowded || after.is_none()) {
                after = Some(header);
            }
            crowded || after.is_none()
        })?;
        stretch.after = after;
        tail.stretches.push(stretch);
        tail.unreadable = window.lacks_any();
        match after {
            Some(header) => walk.jump((header.position, header.first_seq)),
            None => {
                tail.stand_ins = window.into_stand_ins();
                return Ok(tail);
            }
        }
    }
}

impl Stretch {
    fn at(position: u64, next_seq: SeqNo) -> Self {
        Self {
            end: position,
            next_seq,
            records: 0,
            sealed: false,
            acked: SeqNo::ZERO,
            unfinished: None,
            definitions: Vec::new(),
            gaps: Vec::new(),
            stop: (position, At::Nothing),
            after: None,
        }
    }

    fn accept<F: File>(
        &mut self,
        window: &mut Window,
        file: &F,
        header: &Header,
    ) -> io::Result<()> {
        self.end = header.position + header.span();
        self.next_seq = header.end_seq();
        self.records += u64::from(header.count);
        self.sealed = header.kind == Kind::Seal;
        self.acked = self.acked.max(header.acked_seq);
        match header.kind {
            Kind::Records if header.more => {
                self.unfinished
                    .get_or_insert((header.position, header.first_seq));
            }
            Kind::Records => self.unfinished = None,
            Kind::Dictionary => {
                // A copy: a slice would hold on to a whole read buffer.
                let frame = Bytes::copy_from_slice(&frame(window, file, header)?);
                self.definitions.push((*header, frame));
            }
            Kind::Gap => {
                let payload = payload(window, file, header)?;
                self.gaps.extend(decode_gaps(&payload).unwrap_or_default());
            }
            Kind::Start | Kind::Seal | Kind::Ignorable(_) => {}
        }
        Ok(())
    }
}
