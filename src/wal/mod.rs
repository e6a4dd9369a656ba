//! The engine: a segmented, checksummed, group-committed log in one directory.
//!
//! Owns: everything from an appended byte string to its place on disk and back, the cursor of the
//! one consumer, and recovery. Must not know: Kafka, messages, async runtimes, configuration files.
//!
//! A record is *durable* once a successful `fdatasync` covers it. Four marks move, in this order:
//! `first <= acked <= durable <= next`. The promises are `docs/durability.md`, the bytes
//! `docs/format.md`; rules R1 to R14 are cited where they are kept.
//!
//! Order of locks: giving up -> cursor -> write token -> sync token -> ledger -> segments -> staging ->
//! dictionary. The settled state, the pool, the filler and the waiters are leaves.

mod active;
mod ballast;
mod cipher;
mod compress;
mod core;
mod cursor;
mod dictionary;
mod directory;
mod encode;
mod error;
mod found;
mod frame;
pub mod fs;
mod gap;
mod group;
mod headless;
mod keeper;
mod lead;
mod ledger;
mod loss;
mod marks;
mod open;
mod options;
mod outcome;
mod pool;
mod quarantine;
mod quota;
mod reader;
mod recovery;
mod rest;
mod scan;
mod segment;
mod seq;
mod settled;
mod shortage;
mod slots;
mod staging;
mod ticket;
mod verify;
mod view;
pub(crate) mod wait;
mod window;
mod worker;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::core::Core;
use self::fs::{Fs, RealFs};
use self::wait::with_thread_waker;
use parking_lot::Mutex;

pub(crate) use self::outcome::{Watch, Watched};

pub use self::cipher::Keys;
pub use self::compress::Compression;
pub use self::encode::Encode;
pub use self::error::Error;
pub use self::gap::{Cause, Gap};
pub use self::open::Opened;
pub use self::options::{Durability, OnCorruption, OnFull, Options};
pub use self::reader::{Reader, Record};
pub use self::seq::{LogId, SeqNo};
pub use self::settled::{Class, Totals};
pub use self::ticket::{Acknowledged, Ticket};
pub use self::verify::{Finding, FindingKind, Verified};
pub use self::view::{SegmentInfo, View};
#[doc(hidden)]
pub use self::worker::Worker;

/// How far a log has come. `first <= acked <= durable <= next`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Marks {
    /// Oldest record that is still on disk.
    pub first: SeqNo,
    /// Everything below is settled.
    pub acked: SeqNo,
    /// Everything below is on disk.
    pub durable: SeqNo,
    /// The number the next record gets.
    pub next: SeqNo,
}

/// An open log. Threads share it by reference; there is one per directory, held by a lock.
#[derive(Debug)]
pub struct Wal<F: Fs = RealFs> {
    core: Arc<Core<F>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    opened: Opened,
    closed: AtomicBool,
    /// Until it is closed.
    lock: Mutex<Option<F::Lock>>,
}

impl Wal {
    /// Opens the log in `dir`, creating the directory and a new log where there is none.
    ///
    /// Everything that was acknowledged at level `disk` is there (`docs/durability.md`, P1); an
    /// unfinished last write is cut off; [`opened`](Self::opened) says what was found. Costs one
    /// read of each segment's header and one scan of the newest segment.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if the log is open already. [`Error::Corrupt`] if promised bytes are gone and
    /// [`Options::on_corruption`] says so, or no header is left: nothing was changed, `ferrylog
    /// verify` says what is readable. [`Error::Key`] if the newest segment is encrypted and does not
    /// open with [`Options::keys`]. [`Error::Version`], [`Error::Feature`] and
    /// [`Error::ForeignLog`] if the files are not this version's or not one log's.
    /// [`Error::Options`] if an option is out of range. [`Error::Io`] for the rest.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        Self::open_on(Arc::new(RealFs), dir, options)
    }
}

impl<F: Fs> Wal<F> {
    /// [`open`](Wal::open) on another file system: how tests inject faults.
    ///
    /// # Errors
    ///
    /// As [`open`](Wal::open).
    pub fn open_on(fs: Arc<F>, dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let wal = Self::open_still(fs, dir, options)?;
        Worker::ALL
            .into_iter()
            .try_for_each(|worker| wal.spawn(worker))?;
        Ok(wal)
    }

    /// [`open_on`](Wal::open_on) without threads: nothing happens in the background but what
    /// [`step`](Self::step) does, so a test can repeat an order of events. What waits for space, or
    /// lingers, waits until then.
    ///
    /// # Errors
    ///
    /// As [`open`](Wal::open).
    #[doc(hidden)]
    pub fn open_still(fs: Arc<F>, dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let (core, opened, lock) = open::open(fs, dir.as_ref(), options)?;
        Ok(Self {
            core: Arc::new(core),
            threads: Mutex::default(),
            opened,
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Has a worker do what it would do now, if there is anything. True: there was.
    #[doc(hidden)]
    pub fn step(&self, worker: Worker) -> bool {
        self.core.step(worker)
    }

    fn spawn(&self, worker: Worker) -> Result<(), Error> {
        let core = self.core.clone();
        let thread = thread::Builder::new()
            .name(worker.thread_name().into())
            .spawn(move || core.work(worker))
            .map_err(Error::io("start a thread for", &self.core.files.dir))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Appends one record and returns at once; the ticket tells when it is acknowledged.
    ///
    /// Blocks only while the memory budget is used up. A dropped ticket takes nothing back.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], [`Error::Closed`]: nothing was appended. [`Error::Full`],
    /// [`Error::Dropped`]: there is no space, and [`Options::on_full`] says not to wait for it;
    /// nothing was appended.
    /// [`Error::Failed`]: the log takes nothing more; reopen it. [`Error::Io`], or [`Error::Full`]
    /// whatever the policy: the cursor could not be saved, which has to happen every 8 million
    /// records; nothing was appended.
    pub fn append<E: Encode + ?Sized>(&self, record: &E) -> Result<Ticket<'_, F>, Error> {
        self.ticket(&[record], true)
    }

    /// [`append`](Self::append) that does not block.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append), and [`Error::Busy`] where that would block: nothing was appended.
    pub fn try_append<E: Encode + ?Sized>(&self, record: &E) -> Result<Ticket<'_, F>, Error> {
        self.ticket(&[record], false)
    }

    /// Appends one record and waits until it is acknowledged at the log's level.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append). After [`Error::Failed`], and [`Error::Full`] that says `staged`,
    /// the outcome of this record is unknown.
    pub fn append_wait<E: Encode + ?Sized>(&self, record: &E) -> Result<SeqNo, Error> {
        let level = self.core.files.options.durability;
        let appended = self.core.stage(&[record], true)?;
        // Else the flusher is not rung: this thread is about to write by itself.
        if level == Durability::Memory && appended.was_empty {
            self.core.flusher.ring_soon();
        }
        self.core.wait(appended.first + appended.count, level)?;
        Ok(appended.first)
    }

    /// Appends a batch, which recovery keeps whole or not at all. The numbers are consecutive.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append); [`Error::TooLarge`] also for the batch as a whole.
    ///
    /// # Panics
    ///
    /// Panics if the batch is empty.
    pub fn append_batch<E: Encode>(&self, records: &[E]) -> Result<Ticket<'_, F>, Error> {
        self.ticket(records, true)
    }

    /// [`append_batch`](Self::append_batch) that does not block.
    ///
    /// # Errors
    ///
    /// As [`append_batch`](Self::append_batch), and [`Error::Busy`] where that would block: nothing was
    /// appended.
    ///
    /// # Panics
    ///
    /// Panics if the batch is empty.
    pub fn try_append_batch<E: Encode>(&self, records: &[E]) -> Result<Ticket<'_, F>, Error> {
        self.ticket(records, false)
    }

    fn ticket<E: Encode>(&self, records: &[E], block: bool) -> Result<Ticket<'_, F>, Error> {
        let appended = self.core.stage(records, block)?;
        if appended.was_empty {
            self.core.flusher.ring_soon();
        }
        Ok(Ticket {
            core: &self.core,
            first: appended.first,
            end: appended.first + appended.count,
        })
    }

    /// Waits until everything appended so far is on disk; returns the durable mark. It does not linger
    /// ([`Options::linger`]).
    ///
    /// # Errors
    ///
    /// [`Error::Failed`], [`Error::Full`]: what of it is on disk is unknown.
    pub fn sync(&self) -> Result<SeqNo, Error> {
        let end = self.core.staging.lock().next_seq;
        self.core.files.marks.set_urgent(end);
        self.core.wait(end, Durability::Disk)?;
        Ok(self.core.files.marks.durable())
    }

    /// The id of a short byte string that records refer to. The same bytes always get the same id,
    /// for the life of the log; the definition is on disk before any record appended after this.
    /// `None`: 64 KiB of definitions are in use; write the bytes into the record instead.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub fn define(&self, text: &[u8]) -> Result<Option<u32>, Error> {
        self.core.define(text, true)
    }

    /// [`define`](Self::define) that does not block.
    ///
    /// # Errors
    ///
    /// As [`try_append`](Self::try_append).
    pub fn try_define(&self, text: &[u8]) -> Result<Option<u32>, Error> {
        self.core.define(text, false)
    }

    /// The bytes that [`define`](Self::define) gave this id for.
    pub fn definition(&self, id: u32) -> Option<Bytes> {
        self.core.files.dictionary.read().text(id)
    }

    /// A reader that begins at `from`.
    pub fn reader(&self, from: SeqNo) -> Reader<F> {
        let files = &self.core.files;
        let keys = files.options.keys.clone();
        Reader::new(files.fs.clone(), self.core.segments.clone(), keys, from)
    }

    /// Gives up what [`Reader::next`] just called [`Error::Corrupt`]: keeps a copy, makes the gap durable,
    /// settles its numbers as [`Lost`](Class::Lost) unless they are settled already; then every reader goes
    /// on behind it. The bytes are read once more before. `None`: nothing is missing there, the disk gives it
    /// after all, or another reader gave it up; go on reading.
    ///
    /// Blocks while the memory budget is used up, and for a sync.
    ///
    /// # Errors
    ///
    /// Nothing was settled: call it again, or stop. [`Error::Corrupt`] if
    /// [`Options::on_corruption`] says not to go on behind damage. [`Error::Io`] if the copy cannot be
    /// made; [`Error::Version`] if a newer version can read it; [`Error::Full`], [`Error::Dropped`], [`Error::Failed`], [`Error::Closed`] as when appending.
    ///
    /// # Panics
    ///
    /// Panics if the reader is another log's.
    pub fn give_up(&self, reader: &mut Reader<F>) -> Result<Option<Gap>, Error> {
        self.core.give_up(reader)
    }

    /// Settles a range: each number in it gets its one final outcome, unless it has one already.
    ///
    /// Kept in memory at once, on disk within 200 ms or with [`save_cursor`](Self::save_cursor). A
    /// range more than 16 million numbers above the low mark is not settled.
    ///
    /// # Panics
    ///
    /// Panics if the range reaches beyond the durable mark: what is not on disk cannot be settled.
    /// Returns how many got theirs by this call: an acknowledgement that comes after its records
    /// were dropped for space counts for none of them.
    pub fn settle(&self, range: Range<SeqNo>, class: Class) -> u64 {
        assert!(
            range.end <= self.core.files.marks.durable(),
            "a record is settled only once it is durable"
        );
        let settled = range.clone();
        let fresh = self.core.settle(range, |all| all.settle(settled, class));
        self.core.files.keeper.ring_soon();
        fresh
    }

    /// Makes what is settled durable now.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the last saved cursor still holds; try again.
    pub fn save_cursor(&self) -> Result<(), Error> {
        if self.is_shut() {
            return Err(Error::Closed);
        }
        self.core.save_cursor(false)
    }

    /// Waits until something at or above `beyond` is durable, or for `timeout`; returns the durable
    /// mark.
    pub fn wait_durable(&self, beyond: SeqNo, timeout: Duration) -> SeqNo {
        let deadline = Instant::now() + timeout;
        loop {
            let durable = self.core.files.marks.durable();
            let left = deadline.saturating_duration_since(Instant::now());
            if durable > beyond || left.is_zero() || self.core.failure.get().is_some() {
                return durable;
            }
            with_thread_waker(|waker| self.core.watchers.add(beyond + 1, Durability::Disk, waker));
            if self.core.files.marks.durable() <= beyond {
                thread::park_timeout(left);
            }
        }
    }

    /// How far the log has come.
    pub fn marks(&self) -> Marks {
        // In this order each mark is at most the one read after it.
        let first = self.core.segments.first_seq();
        let acked = self.core.files.marks.acked();
        let durable = self.core.files.marks.durable();
        Marks {
            first: first.min(acked),
            acked,
            durable,
            next: self.core.staging.lock().next_seq,
        }
    }

    /// The terms of the conservation law, as of now.
    pub fn totals(&self) -> Totals {
        let settled = self.core.settled.lock();
        let next = self.core.staging.lock().next_seq;
        settled.totals(next)
    }

    /// The log's identity.
    pub fn log_id(&self) -> LogId {
        self.core.files.log_id
    }

    /// What it was opened with.
    pub fn options(&self) -> &Options {
        &self.core.files.options
    }

    /// What opening found.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Why there is no space right now, if there is none.
    pub fn shortage(&self) -> Option<String> {
        self.core.shortage.reason()
    }

    /// Records that were not appended for lack of space since the log was opened. They never got a
    /// number, so none of the [`totals`](Self::totals) holds them.
    pub fn refused(&self) -> u64 {
        self.core.shortage.refused()
    }

    /// Why the log takes nothing more until it is reopened, if that is so.
    pub fn failure(&self) -> Option<String> {
        self.core.failure.get().cloned()
    }

    /// What last went wrong in the background without harm to any record: a cursor that could not
    /// be saved, a segment that had to be left behind.
    pub fn background_error(&self) -> Option<String> {
        self.core.background.lock().clone()
    }

    /// Writes and syncs what is staged, and marks the end as clean.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`], [`Error::Full`] or [`Error::Io`]: the next open recovers as after a crash;
    /// what was not acknowledged may be gone.
    pub fn close(self) -> Result<Marks, Error> {
        self.shut()?;
        Ok(self.marks())
    }

    /// [`close`](Self::close) where others still refer to the log: to wait for what was appended, or to
    /// look. From then on it takes nothing, and another one may have the directory.
    pub(crate) fn shut(&self) -> Result<(), Error> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let shut = self.finish();
        if let Err(error) = &shut {
            // What is not on disk by now will not be: nobody is to wait for it, or to ask again.
            self.core
                .fail(&format_args!("closed: {}", error.describe()));
        }
        self.core.wake();
        self.core.watch.wake_all();
        drop(self.lock.lock().take());
        shut
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn finish(&self) -> Result<(), Error> {
        self.core.staging.lock().closed = true;
        self.core.space.notify_all();
        // Where space is short this is the last try; then a waiter waits no longer.
        let synced = self.core.retry_write().and_then(|()| self.sync());
        for worker in Worker::ALL {
            self.core.bell(worker).stop();
        }
        for thread in self.threads.lock().drain(..) {
            // A panic over there has been reported already; nothing of ours depends on it.
            drop(thread.join());
        }
        synced?;
        self.core.seal_for_close()?;
        self.core.save_cursor(true)
    }
}

impl<F: Fs> Drop for Wal<F> {
    /// Closes, for those who did not; an error is what recovery is for.
    fn drop(&mut self) {
        drop(self.shut());
    }
}
