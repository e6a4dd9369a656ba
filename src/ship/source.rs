//! One log to ship from: what was read of it, what of that is under way, and what was left behind.
//!
//! Owns the readers and the flight of a [`Stream`]. Must not know the sink, nor why a record is
//! left behind. Invariants: it takes care of the numbers of its range and of no others; a record that was read and neither settled nor handed over stands in
//! the flight as waiting, and its partition is marked as behind from there on; while it is, no
//! later record of the partition is handed over by the reader, so that the order holds.

use std::collections::HashSet;

use super::settle::{Flight, Flown};
use crate::store::{self, Entry, LaneReader, Stream};
use crate::wal::{Gap, SeqNo};

pub(super) struct Source<'a> {
    pub(super) stream: Stream<'a>,
    /// Place of its lane in the sharing of the link.
    pub(super) lane: usize,
    /// Its numbers: up to the end of the log, or below this one.
    from: SeqNo,
    until: Option<SeqNo>,
    reader: LaneReader<'a>,
    /// Read, and not placed yet.
    pub(super) pending: Option<Entry>,
    pub(super) flight: Flight,
    /// Below this, a record may be settled already.
    pub(super) settled_below: SeqNo,
    /// Below this, it is of an earlier run, which may have died in the middle of something.
    pub(super) earlier_below: SeqNo,
    /// Records at or above the low mark that stand in a parking log already.
    pub(super) moved: HashSet<SeqNo>,
    /// Of a parking log: bytes of the records that were put there or found there, and their count.
    pub(super) parked: (u64, u64),
    /// By partition index: of the records behind the reader, none that waits is older.
    behind: Vec<Option<SeqNo>>,
    /// By partition index: the source of the parking log that its records go to.
    captured: Vec<Option<usize>>,
    /// A reader for the records of one partition that were left behind.
    side: Option<(usize, LaneReader<'a>)>,
    /// What was given up and not told yet.
    pub(super) lost: Vec<Gap>,
}

impl<'a> Source<'a> {
    pub(super) fn new(stream: Stream<'a>, lane: usize) -> Source<'a> {
        let marks = stream.marks();
        Source {
            stream,
            lane,
            from: marks.acked,
            until: None,
            reader: stream.reader(marks.acked),
            pending: None,
            flight: Flight::default(),
            settled_below: stream.settled_end(),
            earlier_below: marks.next,
            moved: HashSet::new(),
            parked: (0, 0),
            behind: Vec::new(),
            captured: Vec::new(),
            side: None,
            lost: Vec::new(),
        }
    }

    /// The first of its numbers.
    pub(super) fn from(&self) -> SeqNo {
        self.from
    }

    /// Where its numbers end, unless they go on with the log.
    pub(super) fn until(&self) -> Option<SeqNo> {
        self.until
    }

    /// Whether nothing of its range is left to take care of.
    pub(super) fn is_done(&self) -> bool {
        let is_read = self.until.is_some_and(|until| self.position() >= until);
        is_read && self.pending.is_none() && self.flight.is_empty()
    }

    /// Ends its range at `end`, which is not below what was read, or ended it before.
    pub(super) fn end_at(&mut self, end: SeqNo) {
        // The record that showed that the former end was passed is in the range now.
        if let Some(until) = self.until.filter(|until| self.position() > *until) {
            self.read_from(until);
        }
        self.until = Some(end);
    }

    /// Takes a new range, from `from` to the end of the log, when the one before is done.
    pub(super) fn begin_at(&mut self, from: SeqNo) {
        assert!(self.flight.is_empty(), "something is under way");
        (self.from, self.until) = (from, None);
        self.behind.clear();
        self.read_from(from);
    }

    /// The number of the record that is read next.
    pub(super) fn position(&self) -> SeqNo {
        match &self.pending {
            Some(pending) => pending.seq,
            None => self.reader.position(),
        }
    }

    /// The next record on disk. What cannot be read is given up; what was dropped for space
    /// meanwhile is passed.
    pub(super) fn read(&mut self) -> Result<Option<Entry>, store::Error> {
        if let Some(pending) = self.pending.take() {
            return Ok(Some(pending));
        }
        loop {
            if self
                .until
                .is_some_and(|until| self.reader.position() >= until)
            {
                return Ok(None);
            }
            match self.stream.next_readable(&mut self.reader, &mut self.lost) {
                Ok(Some(entry)) if self.until.is_some_and(|until| entry.seq >= until) => {}
                entry => return entry,
            }
        }
    }

    /// Whether a record that is not in the flight has its final outcome.
    pub(super) fn is_settled(&self, seq: SeqNo) -> bool {
        self.stream.is_over(seq, seq < self.settled_below)
    }

    /// Where the oldest record of a partition may be that was left behind.
    pub(super) fn behind(&self, index: usize) -> Option<SeqNo> {
        self.behind.get(index).copied().flatten()
    }

    /// The partitions that have records behind the reader, and from where on.
    pub(super) fn all_behind(&self) -> impl Iterator<Item = (usize, SeqNo)> {
        let found = self.behind.iter().enumerate();
        found.filter_map(|(index, behind)| Some((index, (*behind)?)))
    }

    /// A record of a partition waits behind the reader.
    pub(super) fn leave(&mut self, index: usize, seq: SeqNo) {
        let oldest = self.behind(index).map_or(seq, |before| before.min(seq));
        *slot(&mut self.behind, index) = Some(oldest);
    }

    /// Everything of a partition before `seq` was taken care of.
    pub(super) fn cared_for(&mut self, index: usize, seq: SeqNo) {
        if let Some(behind) = self.behind.get_mut(index) {
            *behind = behind.map(|before| before.max(seq));
        }
    }

    /// Nothing of a partition waits behind the reader.
    pub(super) fn caught_up(&mut self, index: usize) {
        if let Some(behind) = self.behind.get_mut(index) {
            *behind = None;
        }
    }

    /// Reads again from the oldest record on that may wait of these partitions: what waits there is
    /// met once more. The others stay behind. What is settled before the oldest record that waits
    /// is not read again, and nothing is left out if the reader is on its way from further behind.
    pub(super) fn rewind(&mut self, partitions: &[usize]) {
        let behind = partitions.iter().filter_map(|&index| self.behind(index));
        let (Some(seq), Some(front)) = (behind.min(), self.flight.front()) else {
            partitions.iter().for_each(|&index| self.caught_up(index));
            return;
        };
        let seq = seq.max(front.seq);
        if seq < self.position() {
            self.read_from(seq);
        }
        partitions.iter().for_each(|&index| self.caught_up(index));
    }

    fn read_from(&mut self, seq: SeqNo) {
        self.pending = None;
        // What was read before stands in the flight, or is settled.
        let read = self.reader.position().max(self.stream.settled_end());
        self.settled_below = self.settled_below.max(read);
        self.reader = self.stream.reader(seq);
    }

    /// Everything handed over, but not carefully, is in doubt, and waits again.
    pub(super) fn recall(&mut self, mut recalled: impl FnMut(Flown)) {
        let mut flight = std::mem::take(&mut self.flight);
        flight.recall(|flown| {
            self.leave(flown.index(), flown.seq);
            recalled(flown);
        });
        self.flight = flight;
    }

    /// The source of the parking log that a partition's records go to. Kept by a lane's first
    /// source for all of them.
    pub(super) fn captured(&self, index: usize) -> Option<usize> {
        self.captured.get(index).copied().flatten()
    }

    pub(super) fn capture(&mut self, index: usize, by: Option<usize>) {
        *slot(&mut self.captured, index) = by;
    }

    /// The partitions whose records go to this source's log.
    pub(super) fn captures(&self, by: usize) -> impl Iterator<Item = usize> {
        let found = self.captured.iter().enumerate();
        found.filter_map(move |(index, captured)| (*captured == Some(by)).then_some(index))
    }

    /// The next record that a partition left behind: of those that wait, the `skip`-th from the
    /// oldest on. `None`: there is none.
    pub(super) fn left_behind(
        &mut self,
        index: usize,
        skip: usize,
    ) -> Result<Option<Entry>, store::Error> {
        let Some(from) = self.behind(index) else {
            return Ok(None);
        };
        loop {
            let of_it = |flown: &Flown| flown.index() == index;
            let Some(flown) = self.flight.waiting_from(from).filter(of_it).nth(skip) else {
                return Ok(None);
            };
            if let Some(entry) = self.at(index, flown.seq)? {
                return Ok(Some(entry));
            }
            // It was dropped for space, or given up: not all that waits is.
            self.flight.pass(flown.seq);
        }
    }

    /// What was dropped for space while it waited is over, and nothing waits for it.
    pub(super) fn pass_dropped(&mut self) {
        if !self.flight.pass_below(self.stream.marks().acked) {
            return;
        }
        for (index, behind) in self.behind.iter_mut().enumerate() {
            let waits = |from: &SeqNo| {
                let mut waiting = self.flight.waiting_from(*from);
                waiting.any(|flown| flown.index() == index)
            };
            *behind = behind.filter(waits);
        }
    }

    /// A record was put into this parking log, or found there.
    pub(super) fn note_parked(&mut self, entry: &Entry) {
        self.parked.0 += u64::try_from(entry.raw.len()).unwrap_or(0);
        self.parked.1 += 1;
    }

    /// Bytes of the records that wait in this parking log, by their mean length.
    pub(super) fn parked_bytes(&self) -> u64 {
        let (bytes, count) = self.parked;
        let waiting = u128::from(bytes) * u128::from(self.stream.totals().queued);
        u64::try_from(waiting / u128::from(count.max(1))).unwrap_or(u64::MAX)
    }

    /// The record of this number, by a reader that stays with one partition.
    pub(super) fn at(&mut self, index: usize, seq: SeqNo) -> Result<Option<Entry>, store::Error> {
        let near =
            |(of, reader): &(usize, LaneReader<'_>)| *of == index && reader.position() <= seq;
        if !self.side.as_ref().is_some_and(near) {
            self.side = Some((index, self.stream.reader(seq)));
        }
        let Some((_, reader)) = &mut self.side else {
            return Ok(None);
        };
        while let Some(entry) = self.stream.next_readable(reader, &mut self.lost)? {
            if entry.seq >= seq {
                return Ok((entry.seq == seq).then_some(entry));
            }
        }
        Ok(None)
    }

    /// Lets go of the file that the side reader holds.
    pub(super) fn put_side_away(&mut self) {
        self.side = None;
    }
}

fn slot<T: Default + Clone>(list: &mut Vec<T>, index: usize) -> &mut T {
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}
