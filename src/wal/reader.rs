//! Reading records in order, and the list of live segments that readers and the writer share.
//!
//! Owns: [`Reader`], [`Segments`]. Must not know: who writes, or what is settled.
//!
//! Invariants: nothing at or above the durable end is read (R14), so nothing is shipped
//! that is not on disk (P7), and a chunk in memory is never stale; a checksum is checked on the very bytes that are handed out.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::cipher::Keys;
use super::directory::was_released;
use super::error::Error;
use super::frame::{Codec, Header, Kind, holds_records, record_at};
use super::fs::{Access, Fs};
use super::gap::{Cause, Gap, Gaps, MAX_GAPS};
use super::rest::{Sealed, unpack};
use super::scan::{At, Life, Step, Walk, frame};
use super::seq::SeqNo;
use super::slots::StandIn;
use super::window::Window;

/// A live segment, as far as its records are durable.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub life: Life,
    pub path: PathBuf,
    /// The key that its records are encrypted with.
    pub key: Option<NonZeroU32>,
    pub base_seq: SeqNo,
    /// Numbers from here to the base are void: none was ever given.
    pub void_from: SeqNo,
    /// Position behind the last durable frame.
    pub end: u64,
    /// The number after the last durable record.
    pub next_seq: SeqNo,
    /// Pages that are known to be read from elsewhere than their place.
    pub stand_ins: Vec<StandIn>,
    /// A page of the file could not be read: it does not live again.
    pub unreadable: bool,
}

/// The live segments, oldest first, and the gaps in them; only the last segment still grows.
#[derive(Debug, Default)]
pub(crate) struct Segments(pub Mutex<VecDeque<Live>>, pub Mutex<Gaps>);

impl Segments {
    /// The first segment that holds `seq` or later numbers.
    fn find(&self, seq: SeqNo) -> Result<Option<Live>, Error> {
        let list = self.0.lock();
        match list.front() {
            Some(first) if seq < first.void_from => Err(Error::Released {
                first: first.base_seq,
            }),
            _ => Ok(list.iter().find(|live| live.next_seq > seq).cloned()),
        }
    }

    /// Whether the segment of this number is live.
    pub(crate) fn holds(&self, number: u64) -> bool {
        self.0.lock().iter().any(|live| live.life.number == number)
    }

    /// The oldest number that is left.
    pub(crate) fn first_seq(&self) -> SeqNo {
        self.0
            .lock()
            .front()
            .map_or(SeqNo::ZERO, |first| first.base_seq)
    }
}

/// One record, as it was appended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Record {
    /// Its number.
    pub seq: SeqNo,
    /// Wall clock when it was appended: microseconds since 1970, exact to two milliseconds.
    pub time_micros: i64,
    /// Its bytes: a slice of the buffer they were read into, without a copy. Holding on to it holds
    /// on to the buffer, 1 MiB.
    pub payload: Bytes,
}

/// Reads records in the order of their numbers, and only durable ones.
#[derive(Debug)]
pub struct Reader<F: Fs = super::fs::RealFs> {
    fs: Arc<F>,
    pub(crate) segments: Arc<Segments>,
    keys: Keys,
    window: Window,
    open: Option<Open<F::File>>,
    frame: Option<Records>,
    next: SeqNo,
}

#[derive(Debug)]
struct Open<F> {
    live: Live,
    file: F,
    walk: Walk,
}

/// The rest of one frame's records.
#[derive(Debug)]
struct Records {
    payload: Bytes,
    at: usize,
    seq: SeqNo,
    end_seq: SeqNo,
    base_time_micros: i64,
}

impl Iterator for Records {
    type Item = Record;

    #[inline]
    fn next(&mut self) -> Option<Record> {
        if self.seq >= self.end_seq {
            return None;
        }
        let at = record_at(&self.payload, self.at)?;
        let record = Record {
            seq: self.seq,
            time_micros: self
                .base_time_micros
                .saturating_add(1000 * i64::from(at.time_delta_millis)),
            payload: self.payload.slice(at.start..at.end),
        };
        self.at = at.next;
        self.seq = self.seq + 1;
        Some(record)
    }
}

impl<F: Fs> Reader<F> {
    pub(crate) fn new(fs: Arc<F>, segments: Arc<Segments>, keys: Keys, from: SeqNo) -> Self {
        Self {
            fs,
            segments,
            keys,
            window: Window::new(0),
            open: None,
            frame: None,
            next: from,
        }
    }

    /// The number that is read next, or a void number before it.
    pub fn position(&self) -> SeqNo {
        self.next
    }

    /// The next durable record; `None` when there is none for now: ask again later.
    ///
    /// # Errors
    ///
    /// [`Error::Released`] if the record is gone because all of its segment was settled.
    /// [`Error::Corrupt`] if its bytes no longer check out, or the disk does not give them any more:
    /// [`Wal::give_up`](super::Wal::give_up) goes on behind them. [`Error::Io`] if reading failed otherwise.
    /// [`Error::Key`] if it is encrypted and its key was not given, or is another one;
    /// [`Error::Feature`] if this build cannot decompress it: neither is damage. The reader stays where it is.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would end at the first None"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, Error> {
        loop {
            if let Some(record) = self.frame.as_mut().and_then(Iterator::next) {
                if record.seq < self.next {
                    continue;
                }
                self.next = record.seq + 1;
                return Ok(Some(record));
            }
            self.frame = None;
            if !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// Moves to the next frame with records at or above `next`; false: nothing durable is left.
    fn advance(&mut self) -> Result<bool, Error> {
        loop {
            let Some(open) = self
                .open
                .as_mut()
                .filter(|o| o.walk.expected < o.live.next_seq)
            else {
                if !self.open_segment()? {
                    return Ok(false);
                }
                continue;
            };
            let step = open
                .walk
                .step(&mut self.window, &open.file)
                .map_err(Error::io("read", &open.live.path))?;
            match step {
                Step::Frame { header, .. }
                    if header.kind == Kind::Records && self.next < header.end_seq() =>
                {
                    self.enter(&header)?;
                    return Ok(true);
                }
                Step::Frame { .. } => {}
                Step::Stop(at) => {
                    self.note_unreadable();
                    self.pass_gap(&at)?;
                }
            }
        }
    }

    /// A file with pages that cannot be read is not to live again.
    fn note_unreadable(&self) {
        if let Some(open) = self.open.as_ref().filter(|_| self.window.lacks_any()) {
            let mut live = self.segments.0.lock();
            let live = live.iter_mut().filter(|live| live.life == open.live.life);
            live.for_each(|live| live.unreadable = true);
        }
    }

    /// Goes on behind a damaged region, if all that is asked for and should be in it is a known gap.
    fn pass_gap(&mut self, found: &At) -> Result<(), Error> {
        let Some(Open { live, file, walk }) = &mut self.open else {
            return Ok(());
        };
        let known = self.segments.1.lock().end_at(walk.expected);
        let to = walk
            .landing(&mut self.window, file, known, (live.end, live.next_seq))
            .map_err(Error::io("read", &live.path))?;
        if known < to.1 && self.next < to.1 {
            return Err(self.stopped(found.reason()));
        }
        walk.jump(to);
        self.next = self.next.max(known);
        Ok(())
    }

    /// What is missing where the reader stopped and nobody has given up yet, and its file. It is read
    /// anew: a disk may give at last what it did not.
    pub(crate) fn missing(&mut self) -> Result<Option<(Gap, PathBuf)>, Error> {
        let Some(Open { live, file, walk }) = &self.open else {
            return Ok(None);
        };
        let path = &live.path;
        self.window.reset(live.end, live.stand_ins.clone());
        let here = (walk.position, walk.expected);
        let mut walk = Walk::new(live.life, live.base_seq);
        walk.jump(here);
        let step = walk.step(&mut self.window, file);
        let cause = match step.map_err(Error::io("read", path))? {
            Step::Frame { .. } => return Ok(None),
            Step::Stop(At::Unknown(what)) => {
                let found = format!("{what}, at position {}", walk.position);
                let path = path.clone();
                return Err(Error::Version { path, found });
            }
            Step::Stop(At::Unreadable) => Cause::Unreadable,
            Step::Stop(_) => Cause::Damaged,
        };
        let gaps = self.segments.1.lock().clone();
        let known = gaps.end_at(walk.expected);
        let end = (live.end, live.next_seq);
        let (position, seq) = if gaps.len() < MAX_GAPS {
            walk.landing(&mut self.window, file, known, end)
                .map_err(Error::io("read", path))?
        } else {
            // Too many to tell apart: the rest of the segment counts as one.
            end
        };
        if seq <= known || seq <= self.next {
            return Ok(None);
        }
        let gap = Gap {
            position: walk.position,
            len: position.saturating_sub(walk.position),
            ..Gap::new(known..seq, cause, live.life.number)
        };
        Ok(Some((gap, path.clone())))
    }

    fn enter(&mut self, header: &Header) -> Result<(), Error> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let frame = frame(&mut self.window, &open.file, header)
            .map_err(Error::io("read", &open.live.path))?;
        let Live { life, key, .. } = open.live;
        let unpacked = unpack(header, &frame, life.salt, key, &self.keys);
        let payload = unpacked
            .and_then(|payload| {
                // Of a payload that is stored as it is, the walk has seen to it.
                let whole = header.codec == Codec::PLAIN || holds_records(&payload, header.count);
                whole
                    .then_some(payload)
                    .ok_or(Sealed::Malformed("no records"))
            })
            .map_err(|sealed| {
                // Asked again it says so again.
                open.walk.jump((header.position, header.first_seq));
                sealed.into_error(&open.live.path, header.position, key)
            })?;
        self.frame = Some(Records {
            payload,
            at: 0,
            seq: header.first_seq,
            end_seq: header.end_seq(),
            base_time_micros: header.base_time_micros,
        });
        Ok(())
    }

    /// Opens the segment of `next`, or takes up where the open one ended before.
    fn open_segment(&mut self) -> Result<bool, Error> {
        let Some(live) = self.segments.find(self.next)? else {
            return Ok(false);
        };
        self.next = self.next.max(live.base_seq);
        if let Some(open) = self
            .open
            .as_mut()
            .filter(|open| open.live.life == live.life)
        {
            let tail = open.live.stand_ins.last();
            if let Some(tail) = tail.filter(|tail| open.walk.position > tail.position) {
                // The page has grown since, and its last frame with it.
                open.walk.jump((tail.position, tail.first_seq));
            }
            if open.live.stand_ins == live.stand_ins {
                self.window.limit = live.end;
            } else {
                self.window.renew(live.end, live.stand_ins.clone());
            }
            open.live = live;
            return Ok(true);
        }
        let file = match self.fs.open(&live.path, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(self.released()),
            file => file.map_err(Error::io("open", &live.path))?,
        };
        self.note_unreadable();
        self.window.reset(live.end, live.stand_ins.clone());
        let walk = Walk::new(live.life, live.base_seq);
        self.open = Some(Open { live, file, walk });
        Ok(true)
    }

    /// Passes over what [`next`](Self::next) just called corrupt, to the next whole frame or the end
    /// of the segment. Returns the numbers passed over, those of records that cannot be read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read; the reader stays where it is.
    pub fn skip_damage(&mut self) -> Result<Range<SeqNo>, Error> {
        let from = self.next;
        if let Some(Open { live, file, walk }) = &mut self.open {
            let (least, end) = (walk.expected, (live.end, live.next_seq));
            let next = walk.landing(&mut self.window, file, least, end);
            walk.jump(next.map_err(Error::io("read", &live.path))?);
            self.next = self.next.max(walk.expected);
        }
        Ok(from..self.next)
    }

    /// A frame that should be there is not: released meanwhile, or corrupt.
    fn stopped(&mut self, found: &str) -> Error {
        let Some(open) = &self.open else {
            return self.released();
        };
        let (path, life) = (&open.live.path, open.live.life);
        match was_released(&*self.fs, path, (life.number, life.salt)) {
            Ok(false) => {
                let expected = open.walk.expected;
                let reason = format!("record {expected} should be here: {found}");
                Error::corrupt(path, open.walk.position, reason)
            }
            Ok(true) => {
                self.open = None;
                self.released()
            }
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                self.open = None;
                self.released()
            }
            Err(error) => error,
        }
    }

    fn released(&self) -> Error {
        Error::Released {
            first: self.segments.first_seq().max(self.next + 1),
        }
    }
}
