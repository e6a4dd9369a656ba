//! Housekeeping: saving the cursor, releasing segments, keeping files ready.
//!
//! Owns: the two cursor files and the order in which a segment leaves the log. Must not know:
//! threads or clocks: a thin shell in `mod` says when.
//!
//! Order of durable steps: one cursor file is rewritten only after the other one's sync returned; a
//! segment leaves when *both* durably name a later oldest one, then its header pages are zeroed,
//! then it is a spare (R6).

use std::path::Path;
use std::sync::atomic::Ordering;

use super::Wal;
use super::core::Core;
use super::cursor::Slot;
use super::directory::{CURSORS, create_temporary, name_durably};
use super::error::Error;
use super::fs::{Access, File, Fs};
use super::open::oldest_needed;
use super::options::{OnFull, SEQ_LEAD};
use super::reader::Live;
use super::seq::SeqNo;
use super::settled::Class;

/// The cursor's two files and what is durable in them.
#[derive(Debug)]
pub(crate) struct CursorFiles<F: Fs> {
    /// A file whose write or sync failed is given up (R2); the next save makes a new one.
    files: [Option<F::File>; 2],
    /// What each file durably holds.
    saved: [Option<Slot>; 2],
    /// The one that is written next: never the only valid one.
    next: usize,
    pub unclean_ends: u64,
}

impl<F: Fs> CursorFiles<F> {
    /// Takes over the files as they were found, creating those that are missing. One without a valid
    /// slot, be it that its page cannot be read, is not written to: the next save replaces it.
    pub(crate) fn open(
        fs: &F,
        dir: &Path,
        saved: [Option<Slot>; 2],
        unclean_ends: u64,
    ) -> Result<Self, Error> {
        let generation = |slot: &Option<Slot>| slot.as_ref().map(|slot| slot.generation);
        let next = usize::from(generation(&saved[0]) > generation(&saved[1]));
        let file = |at: usize| {
            let path = dir.join(CURSORS[at]);
            match fs.open(&path, Access::Write) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    let file = fs
                        .open(&path, Access::CreateNew)
                        .map_err(Error::io("create", &path))?;
                    fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
                    Ok(Some(file))
                }
                file => {
                    let file = file.map_err(Error::io("open", &path))?;
                    Ok(saved[at].as_ref().map(|_| file))
                }
            }
        };
        Ok(Self {
            files: [file(0)?, file(1)?],
            saved,
            next,
            unclean_ends,
        })
    }

    fn newest(&self) -> Option<&Slot> {
        self.saved
            .iter()
            .flatten()
            .max_by_key(|slot| slot.generation)
    }

    /// The oldest segment that either file still names.
    fn oldest_named(&self) -> u64 {
        self.saved
            .iter()
            .map(|slot| slot.as_ref().map_or(0, |slot| slot.oldest))
            .min()
            .unwrap_or(0)
    }

    /// Writes a slot to the file whose turn it is, durably.
    pub(crate) fn save(&mut self, fs: &F, dir: &Path, mut slot: Slot) -> Result<(), Error> {
        slot.generation = self.newest().map_or(0, |slot| slot.generation) + 1;
        let page = slot.encode();
        let path = dir.join(CURSORS[self.next]);
        // The file does not count as anything while it is being rewritten.
        self.saved[self.next] = None;
        let file = self.files[self.next]
            .take()
            .filter(|file| file.write_at(&page, 0).and_then(|()| file.sync()).is_ok());
        self.files[self.next] = Some(match file {
            Some(file) => file,
            // R2: never again on the same file. What it holds is unknown; a new one replaces it.
            None => replace(fs, dir, &path, &page)?,
        });
        self.saved[self.next] = Some(slot);
        self.next = 1 - self.next;
        Ok(())
    }
}

/// Creates or replaces a cursor file in one step: there is never a half-written one.
pub(crate) fn replace<F: Fs>(
    fs: &F,
    dir: &Path,
    path: &Path,
    page: &[u8],
) -> Result<F::File, Error> {
    let (file, fresh) = create_temporary(fs, path)?;
    file.write_at(page, 0).map_err(Error::io("write", &fresh))?;
    file.sync().map_err(Error::io("sync", &fresh))?;
    name_durably(fs, dir, &fresh, path)?;
    Ok(file)
}

impl<F: Fs> Wal<F> {
    /// The first number of each live segment, oldest first. All records of a segment leave the disk
    /// together, once they are settled and a newer one has begun.
    pub fn segment_starts(&self) -> Vec<SeqNo> {
        let segments = self.core.segments.0.lock();
        segments.iter().map(|live| live.base_seq).collect()
    }

    /// Gives the disk back now what else the next round of housekeeping would: the oldest segments,
    /// as far as all in them is settled.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: what is settled stays so, and the next round tries again.
    pub fn release_settled(&self) -> Result<(), Error> {
        if self.is_shut() {
            return Err(Error::Closed);
        }
        self.core.release()
    }

    /// From now on nothing from this number on leaves the disk, settled or not; `None`: what is settled
    /// leaves as ever. It holds until it is changed or the log is closed: whoever needs it over a restart
    /// says so again with [`Options::keep_from`](crate::wal::Options::keep_from).
    ///
    /// What left before is gone. [`OnFull::DropOldest`] finds no space in what is kept.
    pub fn keep_from(&self, from: Option<SeqNo>) {
        let from = from.unwrap_or(SeqNo::LIMIT).get();
        self.core.keep.store(from, Ordering::SeqCst);
        self.core.files.keeper.ring_soon();
    }
}

impl<F: Fs> Core<F> {
    /// Saves the cursor: what is settled, what is synced, and the next limit for SeqNos (R4b).
    pub(crate) fn save_cursor(&self, clean: bool) -> Result<(), Error> {
        let mut files = self.cursor.lock();
        let slot = self.slot(&files, clean);
        let bound = slot.seq_limit.get() - SEQ_LEAD / 2;
        let (fs, dir) = (&*self.files.fs, &self.files.dir);
        match files.save(fs, dir, slot.clone()) {
            Err(error) if error.is_full() && self.give_up_ballast()? => {
                files.save(fs, dir, slot)?;
            }
            saved => saved?,
        }
        drop(files);
        // Only what is durable may be used.
        self.staging.lock().seq_bound = SeqNo::new(bound);
        self.space.notify_all();
        Ok(())
    }

    fn slot(&self, files: &CursorFiles<F>, clean: bool) -> Slot {
        let (low, runs, totals) = {
            let settled = self.settled.lock();
            let (runs, totals) = settled.to_slot_parts();
            (settled.low(), runs, totals)
        };
        let synced = self.files.marks.durable();
        // The newest segment is named only once its header is durable. A rotation between the two
        // looks would pass the proof of one segment on to the next.
        let ledger = self.ledger.lock();
        let segments = self.segments.0.lock();
        let proven = ledger.proven;
        drop(ledger);
        let newest = segments.len().saturating_sub(if proven { 1 } else { 2 });
        let newest = segments
            .get(newest)
            .map_or((0, 0), |live| (live.life.number, live.life.salt));
        let keep = SeqNo::new(self.keep.load(Ordering::SeqCst));
        let oldest = oldest_needed(&segments, low.min(keep), newest.0);
        drop(segments);
        let next = self.staging.lock().next_seq;
        Slot {
            log_id: self.files.log_id,
            generation: 0,
            low,
            oldest,
            newest,
            synced,
            seq_limit: next + SEQ_LEAD,
            origin: SeqNo::ZERO,
            totals,
            unclean_ends: files.unclean_ends,
            clean,
            runs,
        }
    }

    /// One round of housekeeping: zeros ahead of the tail, cursor, released segments, a spare; where
    /// space is short, a try from time to time.
    pub(crate) fn keep(&self) -> Result<(), Error> {
        // On a full disk there are no zeros, but the cursor has its place.
        let filled = self.fill_ahead();
        if self.cursor_moved() {
            self.save_cursor(false)?;
        }
        self.release()?;
        if self.shortage.is_due() {
            self.try_for_space()?;
        }
        let max = self.files.options.max_spares;
        self.files
            .pool
            .lock()
            .shrink(&*self.files.fs, &self.files.dir, max)?;
        if !self.shortage.lasts() {
            self.prepare_spare()?;
            self.keep_ballast()?;
        }
        filled
    }

    /// Tries to write what a lack of space held up; where the policy says so, at the cost of the
    /// oldest segments.
    fn try_for_space(&self) -> Result<(), Error> {
        loop {
            let tried = self.retry_write();
            let give_up_oldest = self.files.options.on_full == OnFull::DropOldest;
            match tried {
                Err(Error::Full { .. }) if give_up_oldest && self.drop_oldest()? => {}
                tried => return tried,
            }
        }
    }

    /// Settles what is not settled of the oldest segment as dropped and releases it. False: only the
    /// newest one is left.
    fn drop_oldest(&self) -> Result<bool, Error> {
        let (count, end) = {
            let segments = self.segments.0.lock();
            (segments.len(), segments.front().map(|live| live.next_seq))
        };
        let Some(end) = end.filter(|_| count > 1) else {
            return Ok(false);
        };
        let dropped = self.settle(SeqNo::ZERO..end, |settled| {
            let mut dropped = 0;
            // A segment may hold more numbers than are kept above the low mark at once.
            while settled.low() < end {
                let low = settled.low();
                dropped += settled.settle(low..end, Class::Dropped);
                assert!(
                    low < settled.low(),
                    "the low mark moves over what is settled"
                );
            }
            dropped
        });
        self.note_background(format!(
            "{dropped} records below {end} were dropped for space"
        ));
        self.release()?;
        Ok(self.segments.0.lock().len() < count)
    }

    fn fill_ahead(&self) -> Result<(), Error> {
        while self.files.fill.step(&*self.files.fs)? {}
        Ok(())
    }

    fn cursor_moved(&self) -> bool {
        let files = self.cursor.lock();
        let now = self.slot(&files, false);
        files.newest().is_none_or(|saved| {
            (saved.low, saved.synced, saved.newest, &saved.totals)
                != (now.low, now.synced, now.newest, &now.totals)
        })
    }

    /// R6: releases the oldest segments, as far as all in them is settled.
    pub(crate) fn release(&self) -> Result<(), Error> {
        let wanted = {
            let files = self.cursor.lock();
            self.slot(&files, false).oldest
        };
        let releasable = || {
            self.segments
                .0
                .lock()
                .front()
                .is_some_and(|l| l.life.number < wanted)
        };
        // Each file must say so: at most two saves.
        for _ in 0..2 {
            if releasable() && self.cursor.lock().oldest_named() < wanted {
                self.save_cursor(false)?;
            }
        }
        let named = self.cursor.lock().oldest_named();
        loop {
            let released = {
                let mut segments = self.segments.0.lock();
                if segments.len() < 2 || segments[0].life.number >= named {
                    return Ok(());
                }
                segments.pop_front()
            };
            if let Some(Live {
                path, unreadable, ..
            }) = released
            {
                let max = if unreadable {
                    0
                } else {
                    self.files.options.max_spares
                };
                self.files
                    .pool
                    .lock()
                    .release(&*self.files.fs, &self.files.dir, path, max)?;
                self.shortage.hurry();
            }
        }
    }

    /// Has a file ready before a rotation needs one.
    fn prepare_spare(&self) -> Result<(), Error> {
        let half_full = self.ledger.lock().durable_end > self.files.options.segment_size / 2;
        let mut pool = self.files.pool.lock();
        if half_full && pool.len() == 0 && self.files.options.max_spares > 0 {
            pool.prepare(&*self.files.fs, &self.files.dir)?;
        }
        Ok(())
    }
}
