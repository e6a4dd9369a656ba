//! What the handles and threads of one open log share: appending, waiting, failing.
//!
//! Owns: the state of an open log and the way of an append up to its acknowledgement. Must not know:
//! threads (they are a thin shell in `mod`), recovery.
//!
//! Invariants: `first <= acked <= durable <= written <= next`; the staging lock is held for one
//! encode and nothing else; an error after staging means *outcome unknown*, and says so.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::active::{Active, Files};
use super::encode::Encode;
use super::error::Error;
use super::fs::Fs;
use super::keeper::CursorFiles;
use super::ledger::Ledger;
use super::options::{Durability, OnFull, SEQ_LEAD, SYNC_BYTES};
use super::outcome::Watch;
use super::reader::Segments;
use super::seq::SeqNo;
use super::settled::Settled;
use super::shortage::Shortage;
use super::staging::{Appended, Need, Staging, Wait};
use super::wait::{Bell, Waiters, with_thread_waker};

/// The shared state of an open log.
#[derive(Debug)]
pub(crate) struct Core<F: Fs> {
    pub files: Files<F>,
    pub staging: Mutex<Staging>,
    /// Notified when the budget or the SeqNo limit may let an append go on.
    pub space: Condvar,
    /// The write token.
    pub writer: Mutex<Active<F>>,
    /// The sync token.
    pub sync: Mutex<()>,
    pub ledger: Mutex<Ledger<F>>,
    pub segments: Arc<Segments>,
    pub settled: Mutex<Settled>,
    /// Segments with this number or a later one stay, whatever is settled.
    pub keep: AtomicU64,
    /// Who waits for something to be settled.
    pub watch: Watch,
    /// Held while a loss becomes a gap.
    pub giving_up: Mutex<()>,
    pub cursor: Mutex<CursorFiles<F>>,
    pub waiters: Waiters,
    /// Told like the waiters, but nobody hurries for them: a shipper that waits for records must not
    /// turn level `os` into `disk`.
    pub watchers: Waiters,
    /// The syncer found the write token taken, perhaps, since its holder last looked at staging.
    pub missed: AtomicBool,
    pub flusher: Bell,
    pub syncer: Bell,
    pub failure: OnceLock<String>,
    /// The last thing that went wrong without anybody waiting for it.
    pub background: Mutex<Option<String>>,
    /// No space right now: only the keeper writes, and tries from time to time.
    pub shortage: Shortage,
    /// The ballast is missing.
    pub ballast: Shortage,
}

impl<F: Fs> Core<F> {
    /// Stages a batch; blocks while there is no room, or not.
    pub(crate) fn stage<E: Encode>(&self, records: &[E], block: bool) -> Result<Appended, Error> {
        let need = self.measure(records)?;
        let mut staging = self.room(need, block)?;
        Ok(staging.append(records, need, self.files.fs.now_micros()))
    }

    /// The staging lock, with room for a batch under it.
    #[inline]
    pub(crate) fn room(&self, need: Need, block: bool) -> Result<MutexGuard<'_, Staging>, Error> {
        let mut staging = self.staging.lock();
        loop {
            self.check_failed()?;
            if staging.closed {
                return Err(Error::Closed);
            }
            if let Some(error) = self.refusal() {
                self.shortage.refuse(need.count);
                return Err(error);
            }
            match staging.make_room(need) {
                Ok(filled) => {
                    if filled {
                        self.flusher.ring();
                    }
                    return Ok(staging);
                }
                Err(Wait::Budget) => {
                    // Only a sync gives memory back.
                    self.files.marks.set_urgent(staging.next_seq);
                    self.syncer.ring();
                    if !block {
                        return Err(self.full(false).unwrap_or(Error::Busy));
                    }
                    self.space.wait(&mut staging);
                }
                Err(Wait::Limit) => {
                    drop(staging);
                    self.save_cursor(false).map_err(|error| {
                        if error.is_full() {
                            return Error::Full {
                                reason: error.describe(),
                                staged: false,
                            };
                        }
                        error
                    })?;
                    staging = self.staging.lock();
                }
            }
        }
    }

    fn measure<E: Encode>(&self, records: &[E]) -> Result<Need, Error> {
        assert!(!records.is_empty(), "a batch holds at least one record");
        let largest = records.iter().map(Encode::encoded_len).max().unwrap_or(0);
        let max = self.files.options.max_record_bytes;
        if largest > max {
            return Err(Error::TooLarge { len: largest, max });
        }
        let need = Need::of(records);
        let max = self.files.options.max_batch_bytes();
        if need.total > max {
            return Err(Error::TooLarge {
                len: need.total,
                max,
            });
        }
        Ok(need)
    }

    /// Gives bytes an id and puts the definition in front of what is appended from now on.
    pub(crate) fn define(&self, text: &[u8], block: bool) -> Result<Option<u32>, Error> {
        if let Some(id) = self.files.dictionary.read().id(text) {
            return Ok(Some(id));
        }
        let need = Need {
            count: 0,
            ..self.measure(&[text])?
        };
        let mut staging = self.room(need, block)?;
        // Under the staging lock: nobody can use the id in a record before its definition.
        let mut dictionary = self.files.dictionary.write();
        if let Some(id) = dictionary.id(text) {
            return Ok(Some(id));
        }
        let Some(id) = dictionary.define(text) else {
            return Ok(None);
        };
        staging.define(id, text, self.files.fs.now_micros());
        // The record that follows finds staging in use, and so leaves the bell to us.
        self.flusher.ring_soon();
        Ok(Some(id))
    }

    /// Whether everything below `end` has reached this level.
    pub(crate) fn reached(&self, end: SeqNo, level: Durability) -> bool {
        match level {
            Durability::Memory => true,
            Durability::Os => self.files.marks.written() >= end,
            Durability::Disk => self.files.marks.durable() >= end,
        }
    }

    /// Waits until everything below `end` has reached this level. A waiter that finds both tokens
    /// free, and does not linger, does the work itself: handing it to a thread costs more than the
    /// sync saves.
    pub(crate) fn wait(&self, end: SeqNo, level: Durability) -> Result<(), Error> {
        loop {
            if self.reached(end, level) {
                return Ok(());
            }
            self.check_failed()?;
            self.check_space()?;
            match self.lead(level) {
                Ok(true) => continue,
                // Where nothing else is said a waiter waits for space, too.
                Err(Error::Full { .. }) => self.check_space()?,
                Ok(false) => {}
                Err(error) => return Err(error),
            }
            with_thread_waker(|waker| self.waiters.add(end, level, waker));
            self.ring_for(level);
            if !self.reached(end, level) && !self.gives_up_waiting() {
                thread::park();
            }
        }
    }

    /// Sees to it that a background thread brings staged records to this level.
    pub(crate) fn ring_for(&self, level: Durability) {
        match level {
            Durability::Memory | Durability::Os => self.flusher.ring(),
            Durability::Disk if self.lingers() => {
                self.syncer.ring_within(self.files.options.linger);
            }
            Durability::Disk => self.syncer.ring(),
        }
    }

    /// Whether who waits for a sync waits for company first, and so leads none.
    pub(crate) fn lingers(&self) -> bool {
        !self.files.options.linger.is_zero() && !self.files.marks.is_urgent()
    }

    /// After writing without syncing: has the syncer begin now, if a sync is urgent or so much is
    /// unsynced that it holds up appends or a rotation (R13); as it may linger, if somebody waits for
    /// the disk; else after `sync_interval`.
    pub(crate) fn ring_syncer(&self) {
        let most = (self.files.options.memory_budget as u64 / 4).min(SYNC_BYTES);
        if self.files.marks.is_urgent() || self.ledger.lock().bytes >= most {
            self.syncer.ring();
        } else if self.waiters.want_disk() {
            self.ring_for(Durability::Disk);
        } else {
            self.syncer.ring_soon();
        }
    }

    /// Wakes the waiters that have what they wait for; all of them if they are not to wait longer.
    pub(crate) fn wake(&self) {
        let all = self.gives_up_waiting();
        for list in [&self.waiters, &self.watchers] {
            list.wake(|end, level| all || self.reached(end, level));
        }
    }

    /// Whether a waiter that does not have what it waits for gets an error.
    fn gives_up_waiting(&self) -> bool {
        self.check_failed().is_err() || self.check_space().is_err()
    }

    /// An error if space is short and waiters are not to wait for it.
    pub(crate) fn check_space(&self) -> Result<(), Error> {
        let Some(error) = self.full(true) else {
            return Ok(());
        };
        match self.files.options.on_full {
            // Closing cannot wait for ever.
            OnFull::Block | OnFull::DropOldest | OnFull::DropNewest
                if !self.staging.lock().closed =>
            {
                Ok(())
            }
            OnFull::Block | OnFull::Reject | OnFull::DropOldest | OnFull::DropNewest => Err(error),
        }
    }

    /// What an append is told while space is short, where it is not to wait.
    fn refusal(&self) -> Option<Error> {
        match self.files.options.on_full {
            OnFull::Block | OnFull::DropOldest => None,
            OnFull::Reject => self.full(false),
            OnFull::DropNewest => {
                let reason = self.shortage.reason()?;
                Some(Error::Dropped { reason })
            }
        }
    }

    /// What to say while space is short.
    pub(crate) fn full(&self, staged: bool) -> Option<Error> {
        let reason = self.shortage.reason()?;
        Some(Error::Full { reason, staged })
    }

    /// The log takes nothing more: what was waiting is told that its outcome is unknown.
    pub(crate) fn fail(&self, reason: &dyn fmt::Display) -> Error {
        self.failure.get_or_init(|| reason.to_string());
        // Nobody tries for space any more.
        self.shortage.end();
        self.wake_appenders();
        self.wake();
        self.watch.wake_all();
        self.check_failed().err().unwrap_or(Error::Closed)
    }

    /// Has the appends that wait for memory look again at what holds them.
    pub(crate) fn wake_appenders(&self) {
        // Under the lock: who is about to wait has seen what is new, or is woken.
        drop(self.staging.lock());
        self.space.notify_all();
    }

    pub(crate) fn check_failed(&self) -> Result<(), Error> {
        match self.failure.get() {
            Some(reason) => Err(Error::Failed {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Changes how numbers in a range are settled, and wakes who waits for one of them.
    pub(crate) fn settle<T>(
        &self,
        range: Range<SeqNo>,
        change: impl FnOnce(&mut Settled) -> T,
    ) -> T {
        let (done, low, is_watched) = {
            let mut settled = self.settled.lock();
            let done = change(&mut settled);
            (done, settled.low(), self.watch.is_watched())
        };
        self.files.marks.set_acked(low);
        if is_watched {
            self.watch.wake(range);
        }
        done
    }

    /// Remembers what went wrong in the background; the log goes on.
    pub(crate) fn note_background(&self, what: String) {
        *self.background.lock() = Some(what);
    }

    /// R4b: the limit that stands durably in the cursor.
    pub(crate) fn seq_limit(&self) -> SeqNo {
        self.staging.lock().seq_bound + SEQ_LEAD / 2
    }
}
