//! Background work: what is done when a bell rings, whoever does it.
//!
//! Owns: the three workers and a round of each. Must not know: threads; a thin shell in `mod` has one
//! for each worker, and a test goes round by round instead, in an order that it chooses.

use std::time::Duration;

use super::core::Core;
use super::fs::Fs;
use super::options::{SAVE_INTERVAL, WRITE_DELAY};
use super::wait::{Bell, Heard};
use super::writer::Partial;

/// Who works in the background.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Worker {
    /// Writes what is staged.
    Flusher,
    /// Makes durable what is written.
    Syncer,
    /// Saves the cursor, releases segments, keeps files ready, tries for space.
    Keeper,
}

impl Worker {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Flusher, Self::Syncer, Self::Keeper];

    pub(crate) const fn thread_name(self) -> &'static str {
        match self {
            Self::Flusher => "wal-flusher",
            Self::Syncer => "wal-syncer",
            Self::Keeper => "wal-keeper",
        }
    }
}

impl<F: Fs> Core<F> {
    pub(crate) fn bell(&self, worker: Worker) -> &Bell {
        match worker {
            Worker::Flusher => &self.flusher,
            Worker::Syncer => &self.syncer,
            Worker::Keeper => &self.files.keeper,
        }
    }

    /// How long work that nobody waits for may wait for company.
    fn delay(&self, worker: Worker) -> Duration {
        match worker {
            Worker::Flusher => WRITE_DELAY,
            Worker::Syncer => self.files.options.sync_interval,
            Worker::Keeper => SAVE_INTERVAL,
        }
    }

    /// Works until the bell says stop: what a thread does.
    pub(crate) fn work(&self, worker: Worker) {
        while self.bell(worker).wait(self.delay(worker)) == Heard::Ring {
            self.round(worker);
        }
    }

    /// One round, if the bell has rung. True: there was one.
    pub(crate) fn step(&self, worker: Worker) -> bool {
        let rung = self.bell(worker).hear() == Some(Heard::Ring);
        if rung {
            self.round(worker);
        }
        rung
    }

    fn round(&self, worker: Worker) {
        match worker {
            Worker::Flusher => {
                // An error has made the log fail, or space is short: who is to know was told.
                drop(self.flush(self.writer.lock(), Partial::Later));
            }
            Worker::Syncer => drop(self.write_and_sync(self.sync.lock())),
            Worker::Keeper => {
                let kept = self.keep();
                if let Err(error) = &kept {
                    self.note_background(error.describe());
                }
                if kept.is_err() || self.shortage.lasts() || self.ballast.lasts() {
                    self.files.keeper.ring_soon();
                }
            }
        }
    }
}
