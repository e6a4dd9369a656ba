//! Reading letters back, one after the other.
//!
//! Owns the walks over the letters that wait for something, and where each has come to. It must not
//! know what is done with a letter.
//!
//! Invariants: nothing is read that is not durable. What can no longer be read is lost, with cause and
//! count, and stops no walk.

use super::{
    DeadLetters, StoredLetter,
    codec::{self, Entry},
    index::Index,
    letter::State,
};
use crate::{
    store::Error,
    wal::{self, Reader, Record, SeqNo, fs::Fs},
};

/// A reader goes on over so many records to the one it is asked for; beyond that a new one is cheaper.
const READ_AHEAD_MAX: u64 = 1024;

/// Which walk reads a letter.
#[derive(Clone, Copy)]
enum Walk {
    Pending = 0,
    Uncopied = 1,
}

impl<F: Fs> DeadLetters<F> {
    /// Whether any letter is to be sent again to this cluster: that of the lane it comes from.
    #[must_use]
    pub fn has_pending(&self, cluster: &str) -> bool {
        self.index.lock().next_pending(cluster, None).is_some()
    }

    /// Whether any letter of this cluster lies open that the dead-letter topic neither has nor refused.
    #[must_use]
    pub fn has_uncopied(&self, cluster: &str) -> bool {
        self.index.lock().next_uncopied(cluster, None).is_some()
    }

    /// The oldest letter behind `after` that is to be sent again to this cluster.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if it cannot be read; where its bytes are damaged, it is counted as lost and the
    /// one behind it is returned.
    pub fn next_pending(
        &self,
        cluster: &str,
        after: Option<SeqNo>,
    ) -> Result<Option<StoredLetter>, Error> {
        let find = |index: &Index, after| index.next_pending(cluster, after);
        self.next(Walk::Pending, after, find)
    }

    /// The oldest letter of this cluster behind `after` that lies open and that the dead-letter topic
    /// neither has nor refused.
    ///
    /// # Errors
    ///
    /// As [`next_pending`](Self::next_pending).
    pub fn next_uncopied(
        &self,
        cluster: &str,
        after: Option<SeqNo>,
    ) -> Result<Option<StoredLetter>, Error> {
        let find = |index: &Index, after| index.next_uncopied(cluster, after);
        self.next(Walk::Uncopied, after, find)
    }

    fn next(
        &self,
        walk: Walk,
        mut after: Option<SeqNo>,
        find: impl Fn(&Index, Option<SeqNo>) -> Option<SeqNo>,
    ) -> Result<Option<StoredLetter>, Error> {
        loop {
            let Some(seq) = find(&self.index.lock(), after) else {
                return Ok(None);
            };
            if seq >= self.wal.marks().durable {
                return Ok(None);
            }
            if let Some(letter) = self.read(walk, seq)? {
                return Ok(Some(letter));
            }
            after = Some(seq);
        }
    }

    /// The letter of this number, if its bytes are still there and can be read.
    ///
    /// # Errors
    ///
    /// As [`next_pending`](Self::next_pending).
    pub fn get(&self, seq: SeqNo) -> Result<Option<StoredLetter>, Error> {
        self.read(Walk::Pending, seq)
    }

    fn read(&self, walk: Walk, seq: SeqNo) -> Result<Option<StoredLetter>, Error> {
        let Some(slip) = self.index.lock().get(seq).copied() else {
            return Ok(None);
        };
        let Some(record) = self.record(walk, seq)? else {
            return Ok(None);
        };
        let Ok(Entry::Letter(body)) = codec::decode(&record.payload) else {
            return Ok(None);
        };
        Ok(Some(StoredLetter {
            seq,
            state: slip.state,
            copied: slip.copied,
            body: *body,
        }))
    }

    fn record(&self, walk: Walk, seq: SeqNo) -> Result<Option<Record>, Error> {
        let mut readers = self.readers.lock();
        let [pending, uncopied] = &mut *readers;
        let slot = match walk {
            Walk::Pending => pending,
            Walk::Uncopied => uncopied,
        };
        let near = |reader: &Reader<F>| {
            reader.position() <= seq && seq - reader.position() <= READ_AHEAD_MAX
        };
        let mut reader = slot
            .take()
            .filter(near)
            .unwrap_or_else(|| self.wal.reader(seq));
        loop {
            match reader.next() {
                Ok(Some(record)) if record.seq < seq => {}
                Ok(found) => {
                    *slot = Some(reader);
                    return Ok(found.filter(|record| record.seq == seq));
                }
                Err(wal::Error::Released { .. }) => return Ok(None),
                Err(wal::Error::Corrupt { .. }) => {
                    if let Some(gap) = self.wal.give_up(&mut reader)? {
                        self.index.lock().remove(gap.seqs);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Numbers of the letters that lie open and pass, oldest first. `pass` sees the time of the
    /// append in milliseconds since 1970.
    #[must_use]
    pub fn open_letters(&self, pass: impl Fn(SeqNo, State, i64) -> bool) -> Vec<SeqNo> {
        let durable = self.wal.marks().durable;
        let index = self.index.lock();
        let all = index.range(SeqNo::ZERO..durable);
        all.filter(|(seq, slip)| slip.state.is_open() && pass(*seq, slip.state, slip.time_millis))
            .map(|(seq, _)| seq)
            .collect()
    }
}
