//! Who writes and syncs: the flusher, the syncer, or a waiter that leads.
//!
//! Owns: which tokens each of them takes, and what is left to others. Must not know: how a group comes to disk.
//!
//! Invariant: what is staged is written by who holds the write token now, or somebody was rung for it.

use std::sync::atomic::Ordering::SeqCst;

use parking_lot::MutexGuard;

use super::active::Active;
use super::core::Core;
use super::error::Error;
use super::fs::Fs;
use super::options::Durability;
use super::writer::{Partial, SyncToken};

impl<F: Fs> Core<F> {
    /// Writes what is staged, and leaves the sync to others.
    pub(crate) fn flush(
        &self,
        mut writer: MutexGuard<'_, Active<F>>,
        partial: Partial,
    ) -> Result<(), Error> {
        let written = self.write_staged(&mut writer, None, partial);
        drop(writer);
        // What was staged since the last look: the syncer, rung for it, found the token taken.
        if written.is_ok() && self.missed.load(SeqCst) {
            self.ring_for(Durability::Disk);
        }
        written
    }

    /// One try to write what a lack of space held up; anybody else may write again if it succeeds.
    pub(crate) fn retry_write(&self) -> Result<(), Error> {
        if !self.shortage.lasts() {
            return Ok(());
        }
        {
            let mut writer = self.writer.lock();
            self.go_on(&mut writer, None)?;
            self.write_groups(&mut writer, None, Partial::Now)?;
            self.shortage.end();
        }
        self.wake_appenders();
        self.wake();
        self.flusher.ring();
        self.syncer.ring();
        Ok(())
    }

    /// Mends if a sync failed; for a caller that holds no token.
    fn mend_if_broken(&self) -> Result<(), Error> {
        let over = self.ledger.lock().over.is_some();
        if over {
            self.mend(&mut self.writer.lock(), None)?;
            // Who found the write token taken meanwhile waits for somebody to write.
            self.ring_syncer();
        }
        Ok(())
    }

    /// Writes and syncs everything staged so far, in one go: what a leading waiter and the syncer do.
    pub(crate) fn write_and_sync(&self, token: SyncToken<'_>) -> Result<(), Error> {
        // Who writes right now may be waiting for this token: only try. It is told before it lets go.
        self.missed.store(true, SeqCst);
        let written = match self.writer.try_lock() {
            Some(mut writer) => self.write_staged(&mut writer, Some(&token), Partial::Now),
            None => Ok(()),
        };
        self.sync_written(&token);
        drop(token);
        written.and_then(|()| self.mend_if_broken())
    }

    /// Leads, if nobody else does and it does not linger: true if something was written and synced.
    pub(crate) fn lead(&self, level: Durability) -> Result<bool, Error> {
        if level == Durability::Os {
            let Some(writer) = self.writer.try_lock() else {
                return Ok(false);
            };
            return self.flush(writer, Partial::Now).map(|()| true);
        }
        if self.lingers() {
            return Ok(false);
        }
        let Some(mut writer) = self.writer.try_lock() else {
            return Ok(false);
        };
        let Some(token) = self.sync.try_lock() else {
            return Ok(false);
        };
        self.write_staged(&mut writer, Some(&token), Partial::Now)?;
        // The next group may be written while this one is synced.
        drop(writer);
        self.sync_written(&token);
        drop(token);
        self.mend_if_broken()?;
        Ok(true)
    }
}
