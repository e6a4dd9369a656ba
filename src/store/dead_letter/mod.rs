//! The dead-letter log: what was refused for good, kept where nobody has to be asked.
//!
//! Owns the log in `dead-letters/` beside the lanes: letters, and changes of their state, as records
//! of one log ([`codec`]). It must not know Kafka, who refused, or who decides what becomes of a letter.
//!
//! - A letter is durable when [`DeadLetters::add`] returns, and an origin stands here once: whoever
//!   settles a record as dead-lettered does so after that, and asks [`DeadLetters::holds`] when it
//!   starts anew.
//! - Replay is a change of state (`kept -> pending -> replayed`): the bytes are never appended again.
//!   An edit appends a new letter and gives up the old one, both or none.
//! - What became of a letter is what the records say. The log's own settlement follows from it and is
//!   made anew when it is opened: replayed is shipped, given up is dropped, kept too long is expired.
//!   The record of a change is void: it is behind every letter it names, so it leaves the disk with
//!   them or after them, and nothing in the log's sum is missing.
//!
//! Space comes back in the order of age, a segment at a time (`space`).
//!
//! Order of locks: writing -> readers -> index. The log is never called with `index` held.

mod codec;
mod index;
mod lazy;
mod letter;
mod read;
mod space;
mod view;

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;

pub use codec::Malformed;
pub(super) use lazy::{DEAD_LETTERS, Lazy, dir};
pub use letter::{
    Body, CLASS_LEN_MAX, Cause, Content, Copied, DeadLetterCounts, DeadLetterOptions, LANE_LEN_MAX,
    LETTERS_MAX, Letter, OnLettersFull, Origin, QUOTA_MIN, REASON_LEN_MAX, Stage, State,
    StoredLetter,
};
pub(super) use space::leave_room;
pub use view::{DeadLetterReader, DeadLetterView};

use super::Error;
use crate::{
    message::MessageRef,
    wal::{
        self, Class, LogId, Reader, Record, SeqNo, Totals, Wal,
        fs::{Fs, RealFs},
    },
};
use codec::{CHANGE_SEQS_MAX, Change, Entry};
use index::{Index, Slip};

/// The dead-letter log of a store, open for appending. Threads share it by reference.
#[derive(Debug)]
pub struct DeadLetters<F: Fs = RealFs> {
    wal: Wal<F>,
    /// For its clock: the log stamps its records with the same.
    fs: Arc<F>,
    options: DeadLetterOptions,
    segment_size: u64,
    /// Held while records are appended and made durable: one change of state after the other.
    writing: Mutex<()>,
    index: Mutex<Index>,
    /// Where the walks over pending and over uncopied letters have come to.
    readers: Mutex<[Option<Reader<F>>; 2]>,
}

impl<F: Fs> DeadLetters<F> {
    /// Opens the log in `dir`, or makes a new one, on a file system that a test chooses. `wal` gives
    /// what the letters have in common with the records they come from: keys, compression, and what
    /// to do about damage. Reads the log once.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if an option is out of range or the log refuses, which names its reason.
    pub fn open_on(
        fs: Arc<F>,
        dir: &Path,
        options: DeadLetterOptions,
        wal: &wal::Options,
    ) -> Result<Self, Error> {
        let segment_size = space::segment_size(options.quota_bytes)?;
        let wal = Wal::open_on(fs.clone(), dir, space::wal_options(segment_size, wal))?;
        let letters = Self {
            wal,
            fs,
            options,
            segment_size,
            writing: Mutex::default(),
            index: Mutex::default(),
            readers: Mutex::default(),
        };
        letters.derive()?;
        Ok(letters)
    }

    /// Derives from the records what became of each letter, and settles it anew.
    fn derive(&self) -> Result<(), Error> {
        let mut reader = self.wal.reader(self.wal.marks().first);
        let mut index = Index::default();
        loop {
            match reader.next() {
                Ok(Some(record)) => self.settle(&take_in(&mut index, &record)),
                Ok(None) => break,
                // What cannot be read is lost with cause and count; the letters behind it are not.
                Err(wal::Error::Corrupt { .. }) => {
                    self.wal.give_up(&mut reader)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        index.give_up_where(|seq| self.wal.is_settled(seq));
        index.forget_ended();
        *self.index.lock() = index;
        Ok(())
    }

    /// Keeps one record that is given up. It is durable when this returns its number. A record of the
    /// same origin that stands here already is not kept twice: its number is returned, also where it
    /// was edited or replayed since.
    ///
    /// # Errors
    ///
    /// [`Error::DeadLettersFull`]: there is no room; if that is the disk's fault the letter may be
    /// written later, and adding it again then returns its number. [`Error::Invalid`] and
    /// [`wal::Error::TooLarge`]: it can never be kept as it is. Any other [`Error::Log`]: whether it is
    /// durable is not known; the log takes nothing more until it is opened again.
    pub fn add(&self, letter: &Letter<'_>) -> Result<SeqNo, Error> {
        let seqs = self.add_all(std::slice::from_ref(letter))?;
        // One letter in, one number out.
        Ok(seqs.first().copied().unwrap_or_default())
    }

    /// [`add`](Self::add) for many, with one sync for all that fit a quarter of a segment. Returns
    /// their numbers in the same order.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add). The letters before the one that failed may be durable: adding all of them
    /// again keeps none twice.
    pub fn add_all(&self, letters: &[Letter<'_>]) -> Result<Vec<SeqNo>, Error> {
        let _writing = self.writing.lock();
        let mut seqs = Vec::with_capacity(letters.len());
        let mut unsynced = u64::MAX;
        for letter in letters {
            let standing = self.index.lock().of_origin(&letter.origin);
            if let Some(seq) = standing {
                seqs.push(seq);
                continue;
            }
            if let Content::Message(message) = &letter.content {
                message.check()?;
            }
            let payload = codec::letter(letter, None);
            let len = payload.len() as u64;
            let is_full = self.index.lock().len() >= LETTERS_MAX;
            if is_full || unsynced.saturating_add(len) > self.segment_size / 4 {
                self.sync()?;
                self.make_room()?;
                unsynced = 0;
            }
            unsynced += len;
            let seq = self.wal.append(&payload).map_err(full)?.seq();
            self.note(seq, letter.origin, letter.lane, len, None);
            seqs.push(seq);
        }
        // One that stood already may wait for its sync still: its first append was told of no space.
        if seqs.iter().any(|&seq| seq >= self.wal.marks().durable) {
            self.sync()?;
        }
        Ok(seqs)
    }

    /// Whether a record of this log and number stands here, durably: kept, pending, replayed, or given
    /// up but still on disk.
    #[must_use]
    pub fn holds(&self, log_id: LogId, seq: SeqNo) -> bool {
        let letter = self.index.lock().of_origin(&Origin { log_id, seq });
        letter.is_some_and(|letter| letter < self.wal.marks().durable)
    }

    /// Marks letters to be sent again. Returns how many were kept until now; durable.
    ///
    /// # Errors
    ///
    /// [`Error::Log`], [`Error::DeadLettersFull`]: whether the change is durable is not known; make it
    /// again, which changes nothing twice. So for every change of state.
    pub fn mark_pending(&self, seqs: &[SeqNo]) -> Result<u64, Error> {
        self.change(Change::Pending, seqs)
    }

    /// Withdraws letters from being sent again: an operator says so, or Kafka refused them once more.
    /// Returns how many were pending; durable.
    ///
    /// # Errors
    ///
    /// As [`mark_pending`](Self::mark_pending).
    pub fn mark_kept(&self, seqs: &[SeqNo]) -> Result<u64, Error> {
        self.change(Change::Kept, seqs)
    }

    /// Says that Kafka has these letters where they belong. Returns for how many that is new; durable.
    ///
    /// # Errors
    ///
    /// As [`mark_pending`](Self::mark_pending).
    pub fn mark_replayed(&self, seqs: &[SeqNo]) -> Result<u64, Error> {
        self.change(Change::Replayed, seqs)
    }

    /// Says that the dead-letter topic has these letters. Returns for how many that is new; durable.
    ///
    /// # Errors
    ///
    /// As [`mark_pending`](Self::mark_pending).
    pub fn mark_copied(&self, seqs: &[SeqNo]) -> Result<u64, Error> {
        self.change(Change::Copied, seqs)
    }

    /// Says that the dead-letter topic refused this letter with this code: it stays here alone, and is
    /// not tried again. True: that is new; durable.
    ///
    /// # Errors
    ///
    /// As [`mark_pending`](Self::mark_pending).
    pub fn mark_copy_refused(&self, seq: SeqNo, code: i32) -> Result<bool, Error> {
        Ok(self.change(Change::CopyRefused(code), &[seq])? == 1)
    }

    /// Gives letters up for good. Returns how many lay open until now; durable.
    ///
    /// # Errors
    ///
    /// As [`mark_pending`](Self::mark_pending).
    pub fn drop_letters(&self, seqs: &[SeqNo]) -> Result<u64, Error> {
        self.change(Change::Dropped, seqs)
    }

    fn change(&self, change: Change, seqs: &[SeqNo]) -> Result<u64, Error> {
        let _writing = self.writing.lock();
        let fresh: Vec<SeqNo> = {
            let index = self.index.lock();
            let is_fresh = |seq: &&SeqNo| index.outcome(**seq, change).is_some();
            let mut fresh: Vec<SeqNo> = seqs.iter().filter(is_fresh).copied().collect();
            fresh.sort_unstable();
            fresh.dedup();
            fresh
        };
        if fresh.is_empty() {
            return Ok(0);
        }
        // A change takes a few bytes and may be what makes room: it is taken beyond the quota.
        let mut changes = Vec::new();
        for seqs in fresh.chunks(CHANGE_SEQS_MAX) {
            changes.push(
                self.wal
                    .append(&codec::change(change, seqs))
                    .map_err(full)?
                    .seq(),
            );
        }
        self.sync()?;
        // Only what is durable is told: a crash must not take a decision back that was acted on.
        let mut ends: Vec<(SeqNo, Class)> = changes.into_iter().map(|c| (c, Class::Void)).collect();
        {
            let mut index = self.index.lock();
            ends.extend(
                fresh
                    .iter()
                    .filter_map(|&seq| Some((seq, index.apply(seq, change)?))),
            );
        }
        self.settle(&ends);
        Ok(fresh.len() as u64)
    }

    /// Keeps another content in the place of a letter: the old one is given up, and the new one has
    /// its origin and its cause. Both or neither, durable when this returns the new number.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchLetter`] if it does not lie open. Otherwise as [`add`](Self::add).
    pub fn edit(&self, seq: SeqNo, message: &MessageRef<'_>) -> Result<SeqNo, Error> {
        message.check()?;
        let _writing = self.writing.lock();
        let old = self.get(seq)?.filter(|letter| letter.state.is_open());
        let old = old.ok_or(Error::NoSuchLetter { seq })?;
        let letter = Letter {
            origin: old.body.origin,
            lane: &old.body.lane,
            cause: old.body.cause(),
            content: Content::Message(*message),
        };
        let payload = codec::letter(&letter, Some(seq));
        let len = payload.len() as u64;
        self.make_room()?;
        if self.index.lock().outcome(seq, Change::Dropped).is_none() {
            // It was the oldest, and making room has given it up.
            return Err(Error::NoSuchLetter { seq });
        }
        let records = [payload, codec::change(Change::Dropped, &[seq])];
        let new = self.wal.append_batch(&records).map_err(full)?.seq();
        // Both at once, also where the sync has to wait for space: the new one is not read before it
        // is durable, and the old one is not read again.
        self.note(new, old.body.origin, &old.body.lane, len, Some(seq));
        self.index.lock().apply(seq, Change::Dropped);
        self.sync()?;
        self.settle(&[(seq, Class::Dropped), (new + 1, Class::Void)]);
        Ok(new)
    }

    /// Letters by what became of them, and the space they take.
    #[must_use]
    pub fn counts(&self) -> DeadLetterCounts {
        let totals = self.wal.totals();
        DeadLetterCounts {
            replayed: totals.shipped,
            dropped: totals.dropped,
            expired: totals.expired,
            quota: self.options.quota_bytes,
            ..self.index.lock().counts()
        }
    }

    /// What became of every letter of the log: its own conservation law.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.wal.totals()
    }

    /// The identity of the log: part of what names an edited letter.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.wal.log_id()
    }

    /// Writes and syncs everything, and leaves the mark of a clean end.
    ///
    /// # Errors
    ///
    /// [`Error::Log`]: the next open recovers as after a crash.
    pub fn close(self) -> Result<(), Error> {
        self.shut()
    }

    pub(in crate::store) fn shut(&self) -> Result<(), Error> {
        Ok(self.wal.shut()?)
    }

    fn note(&self, seq: SeqNo, origin: Origin, lane: &str, len: u64, replaces: Option<SeqNo>) {
        let mut index = self.index.lock();
        let slip = Slip {
            origin: Some(origin),
            cluster: index.cluster(lane),
            state: State::Kept,
            copied: Copied::No,
            len,
            time_millis: self.fs.now_micros() / 1000,
        };
        index.insert(seq, slip, replaces);
    }

    fn sync(&self) -> Result<(), Error> {
        self.wal.sync().map(drop).map_err(full)
    }

    fn settle(&self, ends: &[(SeqNo, Class)]) {
        for &(seq, class) in ends {
            self.wal.settle(seq..seq + 1, class);
        }
    }
}

/// Takes one record of the log into the index. Returns the outcomes that follow from it.
fn take_in(index: &mut Index, record: &Record) -> Vec<(SeqNo, Class)> {
    let slip = |origin, cluster, state| Slip {
        origin,
        cluster,
        state,
        copied: Copied::No,
        len: record.payload.len() as u64,
        time_millis: record.time_micros / 1000,
    };
    match codec::decode(&record.payload) {
        Ok(Entry::Letter(body)) => {
            let cluster = index.cluster(&body.lane);
            let slip = slip(Some(body.origin), cluster, State::Kept);
            index.insert(record.seq, slip, body.replaces);
            Vec::new()
        }
        Ok(Entry::Change { change, seqs }) => {
            let mut ends = vec![(record.seq, Class::Void)];
            let ended = |seq| Some((seq, index.apply(seq, change)?));
            ends.extend(seqs.into_iter().filter_map(ended));
            ends
        }
        Err(_) => {
            let cluster = index.cluster("");
            index.insert(record.seq, slip(None, cluster, State::Unreadable), None);
            Vec::new()
        }
    }
}

/// There is no space for the log: another word for the same at this height.
fn full(error: wal::Error) -> Error {
    match error {
        wal::Error::Full { reason, .. } | wal::Error::Dropped { reason } => {
            Error::DeadLettersFull { reason }
        }
        error => Error::Log(error),
    }
}
