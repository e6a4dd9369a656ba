//! A look at the dead letters of a store that another process may have open.
//!
//! Owns [`DeadLetterView`]. It takes no lock and writes nothing; what it knows is as of when it looked.

use std::sync::Arc;

use super::{
    DEAD_LETTERS, DeadLetterCounts, Entry, Index, LogId, SeqNo, StoredLetter, Totals, codec, dir,
    letter::State, take_in,
};
use crate::{
    store::{Error, LaneView, StoreView, boots::Boots},
    wal::{self, Reader, View},
};

/// The dead letters as they were when it was opened.
#[derive(Debug)]
pub struct DeadLetterView {
    view: View,
    index: Index,
    damaged: u64,
}

impl DeadLetterView {
    /// Reads the log once. `None`: there is none, or none yet.
    fn open(view: Result<View, wal::Error>) -> Result<Option<Self>, Error> {
        let view = match view {
            Err(wal::Error::NotALog { .. }) => return Ok(None),
            view => view?,
        };
        let mut seen = Self {
            index: Index::default(),
            damaged: 0,
            view,
        };
        let mut reader = seen.view.reader(seen.view.marks().first);
        loop {
            match reader.next() {
                Ok(Some(record)) => drop(take_in(&mut seen.index, &record)),
                Ok(None) => break,
                Err(error) => seen.damaged += pass(&mut reader, error)?,
            }
        }
        let view = &seen.view;
        seen.index.give_up_where(|seq| view.is_settled(seq));
        Ok(Some(seen))
    }

    /// Letters whose bytes are there, oldest first, whatever became of them.
    #[must_use]
    pub fn letters(&self) -> DeadLetterReader<'_> {
        DeadLetterReader {
            seen: self,
            reader: self.view.reader(self.view.marks().first),
        }
    }

    /// The letter of this number, if its bytes are there.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if they cannot be read.
    pub fn get(&self, seq: SeqNo) -> Result<Option<StoredLetter>, Error> {
        if self.index.get(seq).is_none() {
            return Ok(None);
        }
        let mut letters = DeadLetterReader {
            seen: self,
            reader: self.view.reader(seq),
        };
        Ok(letters.next()?.filter(|letter| letter.seq == seq))
    }

    /// Letters by what became of them, and the space they take.
    #[must_use]
    pub fn counts(&self) -> DeadLetterCounts {
        let totals = self.totals();
        DeadLetterCounts {
            replayed: totals.shipped,
            dropped: totals.dropped,
            expired: totals.expired,
            ..self.index.counts()
        }
    }

    /// What became of every letter, as the log's cursor was last saved.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.view.totals()
    }

    /// The identity of the log.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.view.log_id()
    }

    /// Numbers that cannot be read because their bytes are damaged.
    #[must_use]
    pub const fn damaged(&self) -> u64 {
        self.damaged
    }
}

impl StoreView {
    /// The dead letters, if there ever was one. Reads all of them once, now.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if their log cannot be read.
    pub fn dead_letters(&self) -> Result<Option<DeadLetterView>, Error> {
        DeadLetterView::open(self.look(&dir(&self.dir)))
    }

    /// The files of the dead letters, if there ever was one: for who checks every byte.
    ///
    /// # Errors
    ///
    /// [`Error::Lane`] if they cannot be read.
    pub fn dead_letter_log(&self) -> Result<Option<LaneView>, Error> {
        let boots = Arc::new(Boots::load(&self.dir));
        match LaneView::open(DEAD_LETTERS, self.look(&dir(&self.dir)), boots) {
            Err(Error::Lane {
                source: wal::Error::NotALog { .. },
                ..
            }) => Ok(None),
            view => view.map(Some),
        }
    }
}

/// Reads letters in order.
#[derive(Debug)]
pub struct DeadLetterReader<'a> {
    seen: &'a DeadLetterView,
    reader: Reader,
}

impl DeadLetterReader<'_> {
    /// The next letter; changes of state and what cannot be read are passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if a file cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results would have to end after the first error"
    )]
    pub fn next(&mut self) -> Result<Option<StoredLetter>, Error> {
        loop {
            let record = match self.reader.next() {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(None),
                Err(error) => {
                    pass(&mut self.reader, error)?;
                    continue;
                }
            };
            let slip = self.seen.index.get(record.seq);
            if let Some(slip) = slip.filter(|slip| slip.state != State::Unreadable)
                && let Ok(Entry::Letter(body)) = codec::decode(&record.payload)
            {
                return Ok(Some(StoredLetter {
                    seq: record.seq,
                    state: slip.state,
                    copied: slip.copied,
                    body: *body,
                }));
            }
        }
    }
}

/// Goes on behind damage; returns how many numbers that passes over.
fn pass(reader: &mut Reader, error: wal::Error) -> Result<u64, Error> {
    if !matches!(error, wal::Error::Corrupt { .. }) {
        return Err(error.into());
    }
    let passed = reader.skip_damage()?;
    Ok(passed.end - passed.start)
}
