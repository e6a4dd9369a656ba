//! Room for the next letter: what is given up for it, and what time gives up.
//!
//! Owns the order in which letters go, and the numbers of the log's files. It must not know what a
//! letter says.
//!
//! Invariants: before a letter is appended there is room within the quota for a whole segment more,
//! so the log's own quota is never met in the middle of a write. Space comes back a segment at a
//! time, the oldest first: so only what stands in the way of that is given up, and a letter that the
//! dead-letter topic has goes before the policy is asked about one that is nowhere else.

use std::{ops::Range, time::Duration};

use super::{
    DeadLetters,
    codec::LETTER_OVERHEAD_MAX,
    index::Slip,
    letter::{Copied, DeadLetterOptions, LETTERS_MAX, OnLettersFull, QUOTA_MIN, State},
};
use crate::{
    store::{Error, segments},
    wal::{self, Class, OnFull, SeqNo, fs::Fs},
};

/// Memory for letters on their way to disk: a sync follows at once.
const MEMORY_BUDGET: usize = 1 << 20;
/// A clock that says less was never set: the year 2025 began then. What was kept while the clock said
/// so has no known age and does not expire.
const CLOCK_SET_MILLIS: i64 = 1_735_689_600_000;

/// The size of the log's segments for this quota.
pub(super) fn segment_size(quota_bytes: u64) -> Result<u64, Error> {
    if quota_bytes < QUOTA_MIN {
        let reason =
            format!("the quota of the dead letters is {quota_bytes}: use at least {QUOTA_MIN}");
        return Err(wal::Error::Options { reason }.into());
    }
    Ok(segments::size(quota_bytes))
}

/// What a lane leaves free of the largest record that a log can hold, so that each of its records can
/// be kept as a dead letter: that takes the letter's own bytes, and a frame for an edit's second record.
const ROOM_FOR_LETTER: usize = 4096;
const _: () = assert!(LETTER_OVERHEAD_MAX + 1024 <= ROOM_FOR_LETTER);

/// Has a lane take no record that no letter could hold.
pub(in crate::store) fn leave_room(lane: &mut wal::Options) {
    let largest = wal::Options::default().max_record_bytes - ROOM_FOR_LETTER;
    lane.max_record_bytes = lane.max_record_bytes.min(largest);
}

impl DeadLetterOptions {
    /// Checks everything that can be told without a disk.
    pub(in crate::store) fn check(&self) -> Result<(), Error> {
        if self.retention.is_zero() {
            let reason =
                "the retention of the dead letters is zero: none would wait for a decision";
            return Err(wal::Error::Options {
                reason: reason.into(),
            }
            .into());
        }
        segment_size(self.quota_bytes).map(drop)
    }
}

/// What the log is opened with; the rest it has in common with the lanes.
pub(super) fn wal_options(segment_size: u64, lanes: &wal::Options) -> wal::Options {
    wal::Options {
        segment_size,
        memory_budget: MEMORY_BUDGET,
        // Refusals are rare: no file waits for the next one.
        max_spares: 0,
        on_full: OnFull::Reject,
        on_corruption: lanes.on_corruption,
        compression: lanes.compression,
        keys: lanes.keys.clone(),
        ..wal::Options::default()
    }
}

impl<F: Fs> DeadLetters<F> {
    /// How full the log is, in percent of what makes it give up or refuse letters. An alarm is due
    /// at 80.
    #[must_use]
    pub fn fill_percent(&self) -> u8 {
        let (letters, bytes) = {
            // The others are forgotten where there are too many.
            let counts = self.index.lock().counts();
            (
                counts.kept + counts.pending + counts.unreadable,
                counts.bytes,
            )
        };
        let segments = self.wal.segment_starts().len() as u64;
        // The newest segment is nearly empty or nearly full: its letters say which.
        let of_segments = (segments.saturating_sub(1), self.segments_max());
        let of_bytes = (bytes, self.segments_max() * self.segment_size);
        let of_letters = (letters, LETTERS_MAX as u64);
        let percent = |(part, whole): (u64, u64)| (part * 100 / whole.max(1)).min(100);
        let most = [of_segments, of_bytes, of_letters].map(percent);
        u8::try_from(most.into_iter().max().unwrap_or(0)).unwrap_or(100)
    }

    /// Segments that may be live before a letter is appended: one more may have to begin for it.
    fn segments_max(&self) -> u64 {
        segments::count(self.options.quota_bytes, self.segment_size) - 1
    }

    fn has_room(&self) -> bool {
        self.wal.segment_starts().len() as u64 <= self.segments_max()
            && self.index.lock().len() < LETTERS_MAX
    }

    /// Makes room for the next letters, at most a quarter of a segment of them.
    ///
    /// # Errors
    ///
    /// [`Error::DeadLettersFull`] if the policy is to hold: nothing was given up that is nowhere else.
    pub(super) fn make_room(&self) -> Result<(), Error> {
        self.index.lock().forget_ended();
        while !self.has_room() {
            let Some(oldest) = self.oldest_share() else {
                return Err(self.no_room("its newest segment alone"));
            };
            let only_here = |slip: &Slip| match slip.state {
                State::Kept | State::Pending => slip.copied != Copied::Yes,
                State::Unreadable => true,
                State::Replayed | State::Dropped | State::Gone => false,
            };
            let letters = self.index.lock();
            let stands_in_the_way = letters
                .range(oldest.clone())
                .any(|(_, slip)| only_here(slip));
            drop(letters);
            if stands_in_the_way && self.options.on_full == OnLettersFull::Hold {
                return Err(self.no_room("letters that nobody decided about and no topic has"));
            }
            self.wal.settle(oldest.clone(), Class::Dropped);
            self.wal.release_settled()?;
            self.index.lock().remove(SeqNo::ZERO..oldest.end);
        }
        Ok(())
    }

    /// What is given up at once: the oldest segment, or where there are too many letters in the
    /// newest one, its oldest part.
    fn oldest_share(&self) -> Option<Range<SeqNo>> {
        let starts = self.wal.segment_starts();
        let durable = self.wal.marks().durable;
        let first = *starts.first()?;
        let end = match starts.get(1) {
            Some(&second) => second,
            None => {
                let index = self.index.lock();
                let mut letters = index.range(SeqNo::ZERO..durable);
                letters.nth(LETTERS_MAX / 16)?.0
            }
        };
        Some(first..end.min(durable))
    }

    fn no_room(&self, with: &str) -> Error {
        let reason = format!(
            "the dead-letter log is full with {with}: {} letters, a quota of {} bytes",
            self.index.lock().len(),
            self.options.quota_bytes
        );
        Error::DeadLettersFull { reason }
    }

    /// Gives up what was kept for longer than the retention; returns how many letters. `now_millis` is
    /// a time that the caller trusts: one that is not known to be right must not be passed in.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if space could not be given back; the letters are given up all the same.
    pub fn expire(&self, now_millis: i64) -> Result<u64, Error> {
        let retention = millis(self.options.retention);
        let is_over = |slip: &Slip| {
            slip.time_millis >= CLOCK_SET_MILLIS
                && now_millis.saturating_sub(slip.time_millis) > retention
        };
        let _writing = self.writing.lock();
        let durable = self.wal.marks().durable;
        let over: Vec<SeqNo> = {
            let mut index = self.index.lock();
            let unended = |slip: &Slip| slip.state.is_open() || slip.state == State::Unreadable;
            let over = index.range(SeqNo::ZERO..durable);
            let over = over.filter(|(_, slip)| unended(slip) && is_over(slip));
            let over: Vec<SeqNo> = over.map(|(seq, _)| seq).collect();
            over.iter().for_each(|&seq| index.give_up(seq));
            over
        };
        for &seq in &over {
            self.wal.settle(seq..seq + 1, Class::Expired);
        }
        if !over.is_empty() {
            self.wal.release_settled()?;
        }
        // Also of letters that were decided about: their segments may have gone since.
        let first = self.wal.marks().first;
        self.index.lock().remove(SeqNo::ZERO..first);
        Ok(over.len() as u64)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
