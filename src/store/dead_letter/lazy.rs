//! When the dead-letter log of a store is opened: with the first letter, or the first look for one.
//!
//! Owns that moment and the directory. It must not know what is in the log.
//!
//! Invariants: a store that never had a dead letter has no such directory; the directory's name is
//! durable before a letter in it is.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;

use super::{DeadLetterOptions, DeadLetters};
use crate::{
    store::{Error, Store, StoreOptions, make_directory, sync_directory},
    wal::{self, fs::RealFs},
};

/// The directory of the dead letters, beside the lanes'.
pub(in crate::store) const DEAD_LETTERS: &str = "dead-letters";

/// A dead-letter log that may not be open yet.
#[derive(Debug)]
pub(in crate::store) struct Lazy {
    store: PathBuf,
    options: DeadLetterOptions,
    wal: wal::Options,
    /// Whether there was a log at the first look: since then nobody but the store makes one.
    was_there: OnceLock<bool>,
    open: OnceLock<DeadLetters>,
    opening: Mutex<()>,
}

impl Lazy {
    /// Of the store in this directory: what the letters have in common with a lane is as `default`
    /// has it.
    pub(in crate::store) fn new(store: &Path, options: &StoreOptions) -> Self {
        Self {
            store: store.into(),
            options: options.dead_letters,
            wal: options.default.wal.clone(),
            was_there: OnceLock::new(),
            open: OnceLock::new(),
            opening: Mutex::default(),
        }
    }

    /// The log, opened now if it is not; made now if there is none.
    pub(in crate::store) fn get(&self) -> Result<&DeadLetters, Error> {
        if let Some(letters) = self.open.get() {
            return Ok(letters);
        }
        let _opening = self.opening.lock();
        if let Some(letters) = self.open.get() {
            return Ok(letters);
        }
        let dir = dir(&self.store);
        make_directory(&dir)?;
        sync_directory(&self.store)?;
        let letters = DeadLetters::open_on(Arc::new(RealFs), &dir, self.options, &self.wal)?;
        Ok(self.open.get_or_init(|| letters))
    }

    /// The log, if there is one.
    pub(in crate::store) fn get_if_any(&self) -> Result<Option<&DeadLetters>, Error> {
        let was_there = || *self.was_there.get_or_init(|| dir(&self.store).is_dir());
        match self.open.get() {
            None if was_there() => self.get().map(Some),
            open => Ok(open),
        }
    }

    /// The log, if it is open.
    pub(in crate::store) fn opened(&self) -> Option<&DeadLetters> {
        self.open.get()
    }

    /// The log, if it is open, to be dropped.
    pub(in crate::store) fn take(&mut self) -> Option<DeadLetters> {
        self.open.take()
    }
}

impl Store {
    /// The dead letters; their log is opened with the first call, and made where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory cannot be made, [`Error::Log`] if the log refuses. The next call
    /// tries again.
    pub fn dead_letters(&self) -> Result<&DeadLetters, Error> {
        self.dead_letters.get()
    }

    /// The dead letters, if there ever was one: makes nothing.
    ///
    /// # Errors
    ///
    /// As [`dead_letters`](Self::dead_letters).
    pub fn dead_letters_if_any(&self) -> Result<Option<&DeadLetters>, Error> {
        self.dead_letters.get_if_any()
    }

    /// The dead letters, if anybody looked at them since the store was opened: opens nothing.
    #[must_use]
    pub fn dead_letters_opened(&self) -> Option<&DeadLetters> {
        self.dead_letters.opened()
    }
}

/// Where the dead letters of the store in `store` are.
pub(in crate::store) fn dir(store: &Path) -> PathBuf {
    store.join(DEAD_LETTERS)
}
