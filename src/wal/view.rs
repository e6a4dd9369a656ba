//! A look at a log without lock, sync or write.
//!
//! Owns: [`View`]. Must not know: writing. It works on a live log and on a dead one, judges nothing
//! above the last promise, and a segment that was released meanwhile is no corruption.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Marks;
use super::cipher::Keys;
use super::dictionary::Dictionary;
use super::error::Error;
use super::found::Found;
use super::fs::{Fs, RealFs};
use super::gap::Gaps;
use super::reader::{Live, Reader, Segments};
use super::seq::{LogId, SeqNo};
use super::settled::{Settled, Totals};

/// A log as it was when [`View::open`] looked at it.
#[derive(Debug)]
pub struct View<F: Fs = RealFs> {
    pub(crate) fs: Arc<F>,
    pub(crate) found: Found,
    damage: Option<Error>,
    pub(crate) segments: Arc<Segments>,
    settled: Settled,
    dictionary: Dictionary,
    keys: Keys,
}

/// How often a log that seems damaged is looked at before that is believed.
const LOOKS_MAX: u32 = 4;

fn look<F: Fs>(fs: &F, dir: &Path) -> Result<(Found, Option<Error>), Error> {
    let not_a_log = || Error::NotALog { path: dir.into() };
    let found = match Found::of(fs, dir) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(not_a_log());
        }
        found => found?.ok_or_else(not_a_log)?,
    };
    let damage = found.damage(dir);
    Ok((found, damage))
}

/// One live segment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its file.
    pub path: PathBuf,
    /// Its number in the log.
    pub number: u64,
    /// First record's number.
    pub base: SeqNo,
    /// The number after its last record.
    pub next: SeqNo,
    /// Bytes of the file.
    pub file_bytes: u64,
}

impl View {
    /// Looks at the log in `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::NotALog`] if there is none. [`Error::Io`] if it cannot be read. [`Error::Corrupt`]
    /// only if nothing can be told about it; damage to records shows when they are read, and in
    /// [`verify`](Self::verify).
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_on(Arc::new(RealFs), dir)
    }
}

impl<F: Fs> View<F> {
    /// [`open`](View::open) on another file system.
    ///
    /// # Errors
    ///
    /// As [`open`](View::open).
    pub fn open_on(fs: Arc<F>, dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        // A live log moves on while it is looked at: what seems damaged may only be newer.
        let mut looks = 1;
        let (found, damage) = loop {
            match look(&*fs, dir) {
                Ok((_, Some(_))) | Err(Error::Corrupt { .. }) if looks < LOOKS_MAX => looks += 1,
                seen => break seen?,
            }
        };
        let (live, voids) = found.live();
        let settled = found.settled(voids);
        // What is encrypted is unknown without its key; all the rest can be told.
        let keys = Keys::none();
        let dictionary = found.dictionary(&keys).unwrap_or_default();
        // What nobody has declared lost yet is damage to a reader, too.
        let known = Gaps::new(found.known.clone());
        let segments = Arc::new(Segments(Mutex::new(live), Mutex::new(known)));
        Ok(Self {
            fs,
            found,
            damage,
            segments,
            settled,
            dictionary,
            keys,
        })
    }

    /// The same with keys: without them records and definitions that are encrypted cannot be read. All
    /// else needs none, [`verify`](Self::verify) neither.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if the newest segment is encrypted and does not open with them.
    pub fn with_keys(mut self, keys: Keys) -> Result<Self, Error> {
        self.dictionary = self.found.dictionary(&keys)?;
        self.keys = keys;
        Ok(self)
    }

    /// How far the log has come. `durable` and `next` are both the end that was found.
    pub fn marks(&self) -> Marks {
        let acked = self.settled.low();
        // Of a log that lost its end the cursor may know more than the segments.
        let slot = self.found.survey.slot();
        let settled_end = slot.map_or(acked, |slot| slot.settled_end().max(acked));
        let next = self.found.end.next_seq.max(settled_end);
        Marks {
            first: self.segments.first_seq().min(acked),
            acked,
            durable: next,
            next,
        }
    }

    /// The terms of the conservation law, as the cursor was last saved.
    pub fn totals(&self) -> Totals {
        self.settled.totals(self.marks().next)
    }

    /// The log's identity.
    pub fn log_id(&self) -> LogId {
        self.found.log_id
    }

    /// What opening would have to repair, or refuse; a gap that is known is no damage.
    pub fn damage(&self) -> Option<&Error> {
        self.damage.as_ref()
    }

    /// The bytes that this id stands for, unless they are encrypted and the key is missing.
    pub fn definition(&self, id: u32) -> Option<Bytes> {
        self.dictionary.text(id)
    }

    /// Whether this number has its outcome already.
    pub fn is_settled(&self, seq: SeqNo) -> bool {
        self.settled.is_settled(seq)
    }

    /// A reader that begins at `from` and ends where the log ended when it was looked at.
    pub fn reader(&self, from: SeqNo) -> Reader<F> {
        let keys = self.keys.clone();
        Reader::new(self.fs.clone(), self.segments.clone(), keys, from)
    }

    /// The live segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let info = |(live, segment): (&Live, &super::directory::Segment)| SegmentInfo {
            path: live.path.clone(),
            number: live.life.number,
            base: live.base_seq,
            next: live.next_seq,
            file_bytes: segment.file_len,
        };
        let live: VecDeque<Live> = self.segments.0.lock().clone();
        live.iter().zip(&self.found.chain).map(info).collect()
    }
}
