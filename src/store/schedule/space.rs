//! Room for what waits, and giving back the space of what does not any more.
//!
//! Owns the numbers of the log's files, and appending again what waits for long. It must not know when
//! anything is due.
//!
//! Invariants: before an entry is appended there is room within the quota for a whole segment more. Only
//! a prefix of the log is ever settled: so holes cannot pile up in its cursor. What is appended again is
//! durable before its old place is given up, and keeps its id.

use super::{
    Schedule,
    codec::{self, Entry, OVERHEAD_MAX},
};
use crate::{
    store::{Error, Lane, segments},
    wal::{self, Class, OnFull, SeqNo},
};

/// Most records that wait at a time: a bound on memory, about 100 bytes each.
pub const SCHEDULED_MAX: usize = 1 << 16;
/// Smallest quota.
pub const SCHEDULE_QUOTA_MIN: u64 = 8 << 20;
/// Memory for what is not on disk yet.
const MEMORY_BUDGET: usize = 4 << 20;
/// Segments that are not worth tidying up: the newest, and the one that fills next.
const SEGMENTS_FREE: u64 = 2;

/// How what is due later is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ScheduleOptions {
    /// Most bytes that the log takes, at least [`SCHEDULE_QUOTA_MIN`]. Default: 256 MiB. Half of it can
    /// always be used, and a record may be as long as a 64th of it, up to what its lane takes. At most
    /// [`SCHEDULED_MAX`] records wait at a time, however short they are.
    pub quota_bytes: u64,
}

impl Default for ScheduleOptions {
    fn default() -> Self {
        Self {
            quota_bytes: 256 << 20,
        }
    }
}

impl ScheduleOptions {
    /// Checks everything that can be told without a disk.
    pub(in crate::store) fn check(self) -> Result<(), Error> {
        segment_size(self.quota_bytes).map(drop)
    }
}

/// The size of the log's segments for this quota.
pub(super) fn segment_size(quota_bytes: u64) -> Result<u64, Error> {
    if quota_bytes < SCHEDULE_QUOTA_MIN {
        let reason = format!(
            "the quota of the schedule is {quota_bytes}: use at least {SCHEDULE_QUOTA_MIN}"
        );
        return Err(wal::Error::Options { reason }.into());
    }
    Ok(segments::size(quota_bytes))
}

/// What the log is opened with; the rest it has in common with the lane `default`.
pub(super) fn wal_options(segment_size: u64, lanes: &wal::Options) -> wal::Options {
    wal::Options {
        durability: lanes.durability,
        sync_interval: lanes.sync_interval,
        linger: lanes.linger,
        segment_size,
        memory_budget: MEMORY_BUDGET,
        max_spares: 1,
        on_full: OnFull::Reject,
        on_corruption: lanes.on_corruption,
        compression: lanes.compression,
        keys: lanes.keys.clone(),
        ..wal::Options::default()
    }
}

/// A record that waits takes more bytes than in its lane, and must fit there all the same.
const _: () = assert!(OVERHEAD_MAX < 4096);

impl Lane {
    /// Whether a message of so many bytes, its topic inline, will fit when it is due.
    pub(super) fn check_len(&self, len: usize) -> Result<(), Error> {
        /// Of the number by which it waited, and of its uptime.
        const NUMBERS: usize = 32;
        let (len, max) = (len + NUMBERS, self.wal.options().max_record_bytes);
        if len <= max {
            Ok(())
        } else {
            Err(wal::Error::TooLarge { len, max }.into())
        }
    }

    /// As [`Wal::keep_from`](wal::Wal::keep_from).
    pub(super) fn keep_from(&self, from: Option<SeqNo>) {
        self.wal.keep_from(from);
    }
}

impl Schedule {
    /// Sees to it that so many entries find room. Called with `writing` held.
    pub(super) fn make_room(&self, count: usize) -> Result<(), Error> {
        let is_full = |what: String| Error::ScheduleFull { reason: what };
        if self.state.lock().index.len() + count > SCHEDULED_MAX {
            return Err(is_full(format!(
                "{SCHEDULED_MAX} records wait until they are due, which is the most"
            )));
        }
        if self.has_room() {
            return Ok(());
        }
        // What is on its way to a lane is not moved under the feet of who sends it there.
        if let Some(firing) = self.firing.try_lock()
            && firing.is_none()
        {
            self.tidy()?;
        }
        if self.has_room() {
            return Ok(());
        }
        Err(is_full(format!(
            "records that wait until they are due take {} bytes, the quota is {}",
            self.state.lock().index.bytes(),
            self.quota_bytes
        )))
    }

    fn has_room(&self) -> bool {
        let most = segments::count(self.quota_bytes, self.segment_size) - 1;
        self.segments() <= most
    }

    fn segments(&self) -> u64 {
        self.wal.segment_starts().len() as u64
    }

    /// Gives back the space in front of the oldest record that waits; where less than half of the log
    /// waits, appends its oldest part again, too, as often as that helps. Called with `writing` held
    /// and nothing on its way to a lane.
    pub(super) fn tidy(&self) -> Result<(), Error> {
        self.settle_front();
        // Each round gives up a segment; what all of them hold is copied once at most.
        for _ in 0..self.segments() {
            let waiting = self.state.lock().index.bytes();
            if self.segments() <= SEGMENTS_FREE + 2 * waiting.div_ceil(self.segment_size) {
                break;
            }
            self.wal.release_settled()?;
            self.append_oldest_again()?;
        }
        Ok(self.wal.release_settled()?)
    }

    /// Nothing in front of the oldest record that waits is needed any more.
    pub(super) fn settle_front(&self) {
        let durable = self.wal.marks().durable;
        let oldest = self.state.lock().index.oldest();
        let end = oldest.map_or(durable, |oldest| oldest.min(durable));
        self.wal.settle(SeqNo::ZERO..end, Class::Void);
    }

    fn append_oldest_again(&self) -> Result<(), Error> {
        let starts = self.wal.segment_starts();
        let [first, second, ..] = *starts else {
            return Ok(());
        };
        let waiting: Vec<(SeqNo, u64)> = {
            let state = self.state.lock();
            state.index.within(first..second).collect()
        };
        let seqs: Vec<SeqNo> = waiting.iter().map(|(seq, _)| *seq).collect();
        let mut moved = Vec::with_capacity(waiting.len());
        for (entry, (_, id)) in self.read(&seqs)?.into_iter().zip(waiting) {
            let Some(mut entry) = entry else {
                self.lose(id);
                continue;
            };
            entry.id = Some(id);
            let again = codec::encode(&Entry::Scheduled(entry));
            moved.push((id, self.wal.append(&again)?.seq()));
        }
        self.wal.sync()?;
        let mut state = self.state.lock();
        for (id, seq) in moved {
            state.index.moved(id, seq);
        }
        drop(state);
        self.settle_front();
        Ok(())
    }

    /// The records at these places, which are in order and durable; `None`: the disk does not give it
    /// any more.
    pub(super) fn read(&self, seqs: &[SeqNo]) -> Result<Vec<Option<codec::Scheduled>>, Error> {
        /// A reader goes on over so many records; beyond that a new one is cheaper.
        const READ_AHEAD_MAX: u64 = 1024;
        let Some(&first) = seqs.first() else {
            return Ok(Vec::new());
        };
        let mut reader = self.wal.reader(first);
        let mut read = Vec::with_capacity(seqs.len());
        let mut next = None;
        for &seq in seqs {
            if reader.position() + READ_AHEAD_MAX < seq {
                reader = self.wal.reader(seq);
            }
            while next
                .as_ref()
                .is_none_or(|next: &wal::Record| next.seq < seq)
            {
                match reader.next() {
                    Ok(None) => break,
                    Ok(record) => next = record,
                    Err(wal::Error::Corrupt { .. }) => {
                        self.wal.give_up(&mut reader)?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let record = next.as_ref().filter(|record| record.seq == seq);
            read.push(
                record.and_then(|record| match codec::decode(&record.payload) {
                    Ok(Entry::Scheduled(scheduled)) => Some(scheduled),
                    _ => None,
                }),
            );
        }
        Ok(read)
    }
}
