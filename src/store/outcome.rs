//! What became of a record, to ask for or to wait for.
//!
//! Owns: following a record that was moved into the parking log where it waits, and the futures that
//! wait for outcomes. Must not know who settles records, nor any async runtime: a waker is all it needs.
//!
//! Invariants: an outcome that is told is final: *moved* is none. Where nobody knows any more what
//! became of a moved record, it is called unknown; nothing is guessed.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::schedule::Fired;
use super::{Error, Lane, Parking, ParkingLog, Store};
use crate::wal::{self, Class, SeqNo, Wal, Watch, Watched};

/// Most runs of moved records that a parking log remembers the origin of: a quarter of a megabyte.
const RUNS_MAX: usize = 4096;

/// Where the records of a lane stand in a parking log that were moved since it was opened.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// By first number in the lane: the first number here, and how many follow in both.
    runs: BTreeMap<SeqNo, (SeqNo, u64)>,
}

impl Origins {
    /// A record of the lane stands here under this number.
    pub(super) fn note(&mut self, origin: SeqNo, seq: SeqNo) {
        if let Some((&first, (at, count))) = self.runs.range_mut(..origin).next_back()
            && (first + *count, *at + *count) == (origin, seq)
        {
            *count += 1;
            return;
        }
        self.runs.insert(origin, (seq, 1));
        if self.runs.len() > RUNS_MAX {
            self.runs.pop_first();
        }
    }

    /// The number here of a record of the lane.
    pub(super) fn get(&self, origin: SeqNo) -> Option<SeqNo> {
        let (&first, &(at, count)) = self.runs.range(..=origin).next_back()?;
        let place = origin - first;
        (place < count).then(|| at + place)
    }
}

impl Store {
    /// The final outcome of a record of a lane; `None`: it has none yet. Of one that was moved to a
    /// parking log, what became of it there. [`Class::Unknown`] where it is not known any more, which
    /// is so for many of the records that were settled before the store was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Log`]: it has none, and will get none while this store is open, because the store was
    /// closed, or the log failed before the record was on disk.
    pub fn outcome(&self, lane: &Lane, seq: SeqNo) -> Result<Option<Class>, Error> {
        match self.find(lane, seq) {
            Some((wal, at)) => Ok(wal.outcome(at)?),
            None => Ok(Some(Class::Unknown)),
        }
    }

    /// Waits for the outcomes of records of a lane; nothing is registered before the first poll.
    ///
    /// It gives the outcome of the first of them that was not shipped, else [`Class::Shipped`].
    /// Fails as [`outcome`](Self::outcome).
    pub fn settlement<'a>(&'a self, lane: &'a Lane, range: Range<SeqNo>) -> Settlement<'a> {
        Settlement {
            store: self,
            lane,
            is_scheduled: false,
            left: range,
            class: Class::Shipped,
            watched: None,
        }
    }

    /// [`settlement`](Self::settlement) for what was scheduled, by the numbers that
    /// [`schedule`](Self::schedule) gave: it waits for each to be due, and follows it to its lane.
    pub fn settlement_of_scheduled(&self, range: Range<SeqNo>) -> Settlement<'_> {
        Settlement {
            is_scheduled: true,
            ..self.settlement(self.lane(), range)
        }
    }

    /// Waits until no record is left without an outcome, in any lane or parking log. Fails as
    /// [`outcome`](Self::outcome).
    pub fn emptied(&self) -> Emptied<'_> {
        Emptied {
            store: self,
            watched: None,
        }
    }

    /// The log that a record is settled in, and its number there. `None`: it was moved, and nobody
    /// knows where any more.
    fn find<'a>(&'a self, lane: &'a Lane, seq: SeqNo) -> Option<(&'a Wal, SeqNo)> {
        if !matches!(lane.wal.outcome(seq), Ok(Some(Class::Moved))) {
            return Some((&lane.wal, seq));
        }
        let logs = self.parking.iter().flat_map(Parking::logs);
        let mut of_lane = logs.filter(|log| log.lane() == lane.name());
        of_lane.find_map(|log| Some((log.wal(), log.place_of(seq)?)))
    }

    fn poll_outcome<'a>(
        &'a self,
        lane: &'a Lane,
        seq: SeqNo,
        watched: &mut Option<Watched<'a>>,
        waker: &Waker,
    ) -> Poll<Result<Class, Error>> {
        loop {
            let Some((wal, at)) = self.find(lane, seq) else {
                return Poll::Ready(Ok(Class::Unknown));
            };
            match wal.outcome(at)? {
                // It was moved since it was looked for.
                Some(Class::Moved) if std::ptr::eq(wal, &raw const lane.wal) => {}
                Some(Class::Moved) => return Poll::Ready(Ok(Class::Unknown)),
                Some(class) => return Poll::Ready(Ok(class)),
                None if is_watched(watched.as_ref(), wal.watch(), at, waker) => {
                    return Poll::Pending;
                }
                // Then it is looked at once more: it may have been settled before this.
                None => *watched = Some(wal.watch().add(at, waker)),
            }
        }
    }

    /// The logs that records are shipped from.
    fn shipped_from(&self) -> impl Iterator<Item = &Wal> {
        let lanes = self.lanes.iter().map(|lane| &lane.wal);
        lanes.chain(self.parking_logs().map(ParkingLog::wal))
    }
}

fn is_watched(watched: Option<&Watched<'_>>, watch: &Watch, seq: SeqNo, waker: &Waker) -> bool {
    watched.is_some_and(|watched| watched.is(watch, seq, waker))
}

/// The future of the outcomes of records: [`Store::settlement`]. Dropping it forgets the question.
#[derive(Debug)]
#[must_use = "it waits for nothing until it is polled"]
pub struct Settlement<'a> {
    store: &'a Store,
    lane: &'a Lane,
    /// What is left are numbers of the schedule.
    is_scheduled: bool,
    left: Range<SeqNo>,
    class: Class,
    watched: Option<Watched<'a>>,
}

impl Future for Settlement<'_> {
    type Output = Result<Class, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        while !this.left.is_empty() {
            let (seq, waker) = (this.left.start, context.waker());
            let place = if this.is_scheduled {
                match this.store.poll_fired(seq, &mut this.watched, waker)? {
                    Poll::Ready(place) => place,
                    Poll::Pending => return Poll::Pending,
                }
            } else {
                Fired::To(this.lane, seq)
            };
            let polled = match place {
                Fired::To(lane, seq) => {
                    let watched = &mut this.watched;
                    this.store.poll_outcome(lane, seq, watched, waker)?
                }
                Fired::Never(class) => Poll::Ready(class),
            };
            let Poll::Ready(class) = polled else {
                return Poll::Pending;
            };
            if this.class == Class::Shipped {
                this.class = class;
            }
            this.left.start = seq + 1;
        }
        this.watched = None;
        Poll::Ready(Ok(this.class))
    }
}

/// The future of an empty store: [`Store::emptied`].
#[derive(Debug)]
#[must_use = "it waits for nothing until it is polled"]
pub struct Emptied<'a> {
    store: &'a Store,
    watched: Option<Watched<'a>>,
}

impl Future for Emptied<'_> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (this, waker) = (self.get_mut(), context.waker());
        loop {
            let mut failed = Ok(());
            let next = this.store.shipped_from().find_map(|wal| {
                let is_left = wal.totals().queued > 0;
                // The low mark stands at the oldest of them.
                let oldest = is_left.then(|| wal.marks().acked)?;
                match wal.outcome(oldest) {
                    // The others are waited for all the same.
                    Err(error @ wal::Error::Failed { .. }) => {
                        failed = Err(error.into());
                        None
                    }
                    outcome => Some((wal, oldest, outcome)),
                }
            });
            let Some((wal, oldest, outcome)) = next else {
                this.watched = None;
                return Poll::Ready(failed);
            };
            if outcome?.is_some() {
                continue;
            }
            if is_watched(this.watched.as_ref(), wal.watch(), oldest, waker) {
                return Poll::Pending;
            }
            this.watched = Some(wal.watch().add(oldest, waker));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_record_is_found_and_the_oldest_are_forgotten_first() {
        let mut origins = Origins::default();
        let seq = SeqNo::new;
        for (origin, at) in [(5, 0), (6, 1), (8, 2), (9, 4)] {
            origins.note(seq(origin), seq(at));
        }
        assert_eq!(origins.runs.len(), 3);
        for (origin, at) in [
            (4, None),
            (5, Some(0)),
            (6, Some(1)),
            (7, None),
            (8, Some(2)),
            (9, Some(4)),
            (10, None),
        ] {
            assert_eq!(origins.get(seq(origin)), at.map(seq), "{origin}");
        }
        for n in 0..RUNS_MAX as u64 {
            origins.note(seq(100 + 2 * n), seq(5 + n));
        }
        assert_eq!(origins.runs.len(), RUNS_MAX);
        assert_eq!(
            (origins.get(seq(9)), origins.get(seq(100))),
            (None, Some(seq(5)))
        );
    }
}
