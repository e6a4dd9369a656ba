//! What a shipper reads and settles: a lane's own log, or one of its parking logs.
//!
//! Owns nothing: it is one face for both. Must not know where records go.

use std::ops::Range;
use std::time::Duration;

use super::{Entry, Error, Lane, LaneReader, ParkingLog};
use crate::wal::{self, Class, Gap, LogId, Marks, SeqNo, Totals, Wal};

/// A log of the store to ship from.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    lane: &'a Lane,
    parked: Option<&'a ParkingLog>,
}

impl<'a> Stream<'a> {
    /// The lane's own log.
    #[must_use]
    pub const fn of_lane(lane: &'a Lane) -> Self {
        Self { lane, parked: None }
    }

    /// A parking log of the lane.
    #[must_use]
    pub const fn of_parking(lane: &'a Lane, log: &'a ParkingLog) -> Self {
        let parked = Some(log);
        Self { lane, parked }
    }

    /// The lane that its records were appended to.
    #[must_use]
    pub const fn lane(&self) -> &'a Lane {
        self.lane
    }

    /// The parking log, if it is one.
    #[must_use]
    pub const fn parked(&self) -> Option<&'a ParkingLog> {
        self.parked
    }

    const fn wal(&self) -> &'a Wal {
        match self.parked {
            Some(log) => log.wal(),
            None => &self.lane.wal,
        }
    }

    /// The identity of the log.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.wal().log_id()
    }

    /// Reads what is on disk, from `from` on.
    #[must_use]
    pub fn reader(&self, from: SeqNo) -> LaneReader<'a> {
        match self.parked {
            Some(log) => self.lane.parked_reader(log.wal().reader(from)),
            None => self.lane.reader(from),
        }
    }

    /// The next record on disk. What was released since the reader came there is passed.
    ///
    /// # Errors
    ///
    /// As [`LaneReader::next`], but never that the record was released.
    pub fn next(&self, reader: &mut LaneReader<'a>) -> Result<Option<Entry>, Error> {
        loop {
            match reader.next() {
                Err(Error::Log(wal::Error::Released { first })) => *reader = self.reader(first),
                next => return next,
            }
        }
    }

    /// As [`next`](Self::next), but what cannot be read any more is given up, and noted in `lost`.
    ///
    /// # Errors
    ///
    /// As [`LaneReader::next`], and [`Lane::give_up`].
    pub fn next_readable(
        &self,
        reader: &mut LaneReader<'a>,
        lost: &mut Vec<Gap>,
    ) -> Result<Option<Entry>, Error> {
        let mut read_anew = false;
        loop {
            match self.next(reader) {
                Err(Error::Log(wal::Error::Corrupt { .. })) if !read_anew => {
                    match self.give_up(reader)? {
                        Some(gap) => lost.push(gap),
                        // The disk gives it now, or the frame is whole and holds what nobody wrote.
                        None => read_anew = true,
                    }
                }
                entry => return entry,
            }
        }
    }

    /// As [`Lane::give_up`].
    ///
    /// # Errors
    ///
    /// As [`Lane::give_up`].
    ///
    /// # Panics
    ///
    /// As [`Lane::give_up`].
    pub fn give_up(&self, reader: &mut LaneReader<'_>) -> Result<Option<Gap>, Error> {
        Ok(self.wal().give_up(&mut reader.reader)?)
    }

    /// As [`Lane::settle`].
    pub fn settle(&self, range: Range<SeqNo>, class: Class) {
        self.wal().settle(range, class);
    }

    /// Whether a record has its final outcome.
    #[must_use]
    pub fn is_settled(&self, seq: SeqNo) -> bool {
        self.wal().is_settled(seq)
    }

    /// [`is_settled`](Self::is_settled) of a record that was read: it takes a lock only where the record may
    /// be settled above the low mark. What is dropped for space lies below that, while a reader has it in its hand.
    #[cfg(feature = "kafka")]
    pub(crate) fn is_over(&self, seq: SeqNo, may_be_above: bool) -> bool {
        seq < self.wal().acked() || may_be_above && self.is_settled(seq)
    }

    /// At or above this nothing is settled.
    #[cfg(feature = "kafka")]
    pub(crate) fn settled_end(&self) -> SeqNo {
        self.wal().settled_end()
    }

    /// Makes all settlements durable now.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if the cursor cannot be written.
    pub fn save_cursor(&self) -> Result<(), Error> {
        Ok(self.wal().save_cursor()?)
    }

    /// As [`Lane::wait_durable`].
    #[must_use]
    pub fn wait_durable(&self, beyond: SeqNo, timeout: Duration) -> SeqNo {
        self.wal().wait_durable(beyond, timeout)
    }

    /// How far the log has come.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.wal().marks()
    }

    /// What became of its records.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.wal().totals()
    }
}
