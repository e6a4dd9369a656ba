//! The logs of a lane that transactions are made of: its own, and its parking logs.
//!
//! Owns the reader of each, the search for a refused record in it, and whether it is held. Must not
//! know transactions. Invariant: the records of one log are read in the order of their numbers, and a
//! log that is held is read one record at a time, when a trial is due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::exhausted::Attempted;
use super::lanes::Shared;
use super::transact::Carried;
use crate::ship::bisect::Bisect;
use crate::ship::health::HoldReason;
use crate::ship::hold::tells_of_missing;
use crate::ship::retry::{Judged, WAIT_MAX};
use crate::ship::{Held, RetryPolicy};
use crate::store::{self, Entry, Lane, LaneReader, Store, Stream};
use crate::wal::{Gap, LogId, SeqNo};

/// One log to ship from.
pub(super) struct Source<'a> {
    pub(super) stream: Stream<'a>,
    reader: LaneReader<'a>,
    /// Below this, a record may be settled already.
    pub(super) settled_below: SeqNo,
    /// Below this, it is of an earlier run, which may have died in the middle of something.
    pub(super) earlier_below: SeqNo,
    /// Read, and not handed over.
    pub(super) pending: Option<Entry>,
    /// The search for a refused record, or for one that breaks the connection; a transaction a piece.
    pub(super) bisect: Option<Bisect>,
    /// Whether it is the latter.
    is_suspicion: bool,
    pub(super) hold: Option<Hold>,
    /// The refusals of its oldest record, if it is refused for now.
    pub(super) attempted: Option<Attempted>,
    pub(super) judged: Judged<SeqNo>,
    /// Whether something of it was committed in this run.
    pub(super) has_taken: bool,
    /// Trials in a row in which it said nothing.
    pub(super) silences: u32,
    /// Whether it has anything to ship, as far as is known.
    pub(super) is_active: bool,
    /// What waits in it, if it is a parking log.
    pub(super) parked_bytes: u64,
    /// The newest number in its lane of what stands in a parking log, which keeps all of it for that.
    newest_kept: Option<SeqNo>,
    /// What was given up and not told yet.
    pub(super) lost: Vec<Gap>,
}

/// Why a log is not shipped from.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) why: HoldReason,
    since: Instant,
    pub(super) next_try: Instant,
    failures: u32,
}

impl Hold {
    /// A first hold, or one more in a row; `random` is evenly spread over all of `u64`.
    pub(super) fn again(
        before: Option<Hold>,
        why: HoldReason,
        retry: &RetryPolicy,
        now: Instant,
        random: u64,
    ) -> Hold {
        let (since, failures) = match before {
            Some(hold) => (hold.since, hold.failures.saturating_add(1)),
            None => (now, 1),
        };
        Hold {
            why,
            since,
            next_try: now + retry.wait(failures, random).max(Duration::from_millis(1)),
            failures,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next_try
    }

    /// Whether the cluster, asked for the partitions, may tell that it is over.
    pub(super) fn is_for_partitions(&self) -> bool {
        match &self.why {
            HoldReason::NoLeader => true,
            HoldReason::Refused(failure) => tells_of_missing(failure),
            _ => false,
        }
    }

    /// Whether only a person can end it, as far as trying tells.
    pub(super) fn is_stuck(&self) -> bool {
        self.why.is_definite() && self.failures >= 2
    }

    /// For a person.
    pub(super) fn told(&self, topic: &Arc<str>, partition: Option<u32>, now: Instant) -> Held {
        Held {
            topic: Arc::clone(topic),
            partition,
            why: self.why.clone(),
            lasted: now.saturating_duration_since(self.since),
        }
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(stream: Stream<'a>) -> Source<'a> {
        let marks = stream.marks();
        Source {
            stream,
            reader: stream.reader(marks.acked),
            settled_below: stream.settled_end(),
            earlier_below: marks.next,
            pending: None,
            bisect: None,
            is_suspicion: false,
            hold: None,
            attempted: None,
            judged: Judged::NONE,
            has_taken: false,
            silences: 0,
            is_active: stream.totals().queued > 0,
            parked_bytes: 0,
            newest_kept: None,
            lost: Vec::new(),
        }
    }

    /// Reads on from the oldest unsettled record.
    pub(super) fn rewind(&mut self) {
        let read = self.reader.position().max(self.stream.settled_end());
        self.settled_below = self.settled_below.max(read);
        self.pending = None;
        self.reader = self.stream.reader(self.stream.marks().acked);
    }

    /// Whether it is held because it said nothing.
    pub(super) fn is_silent(&self) -> bool {
        let hold = self.hold.as_ref();
        hold.is_some_and(|hold| hold.why == HoldReason::Silent)
    }

    /// The first number behind all that was handed over.
    pub(super) fn position(&self) -> SeqNo {
        let pending = self.pending.as_ref();
        pending.map_or(self.reader.position(), |entry| entry.seq)
    }

    /// The next record on disk. What cannot be read is given up; what was dropped for space meanwhile
    /// is passed.
    pub(super) fn read(&mut self) -> Result<Option<Entry>, store::Error> {
        self.stream.next_readable(&mut self.reader, &mut self.lost)
    }

    /// A record was parked in it.
    pub(super) fn parked(&mut self, shared: &Shared, raw: &[u8]) {
        let bytes = u64::try_from(raw.len()).unwrap_or(0);
        self.parked_bytes += bytes;
        shared.park(bytes);
    }

    /// A parking log keeps its records, this one of the lane among them, until the lane is sure to know
    /// that it was moved: a cursor keeps only so many runs above its mark.
    pub(super) fn keep(&mut self, origin: SeqNo) {
        if let (None, Some(log)) = (self.newest_kept, self.stream.parked()) {
            log.keep(true);
        }
        self.newest_kept = self.newest_kept.max(Some(origin));
    }

    /// Whether it keeps records for a lane that has passed them all.
    pub(super) fn keeps_in_vain(&self, acked: SeqNo) -> bool {
        self.newest_kept.is_some_and(|newest| newest < acked)
    }

    /// Keeps what is settled no longer.
    pub(super) fn free_kept(&mut self) {
        self.newest_kept = None;
        if let Some(log) = self.stream.parked() {
            log.keep(false);
        }
    }

    /// Holds it, or goes on holding it; `random` is evenly spread over all of `u64`.
    pub(super) fn hold(&mut self, why: HoldReason, retry: &RetryPolicy, now: Instant, random: u64) {
        self.hold = Some(Hold::again(self.hold.take(), why, retry, now, random));
    }

    /// Holds it for a time of somebody's choice.
    pub(super) fn hold_for(&mut self, why: HoldReason, wait: Duration) {
        let now = Instant::now();
        self.hold = Some(Hold {
            why,
            since: self.hold.take().map_or(now, |hold| hold.since),
            next_try: now + wait.min(WAIT_MAX),
            failures: 0,
        });
    }

    /// Goes on with the search for a bad record among several, or begins it.
    pub(super) fn search(&mut self, carried: &[Carried], is_suspicion: bool) {
        let Some(newest) = carried.last() else {
            return;
        };
        match &mut self.bisect {
            Some(bisect) => _ = bisect.refused(carried.len()),
            None => self.bisect = Some(Bisect::new(carried.len(), newest.seq)),
        }
        self.is_suspicion = is_suspicion;
    }

    /// Whether what is searched for breaks the connection.
    pub(super) fn is_suspicion(&self) -> bool {
        self.bisect.is_some() && self.is_suspicion
    }

    /// A transaction was committed: the search goes on behind it, or is over.
    pub(super) fn taken(&mut self, carried: &[Carried]) {
        if let (Some(bisect), Some(newest)) = (&mut self.bisect, carried.last()) {
            bisect.taken(carried.len());
            if bisect.is_over(newest.seq) {
                self.bisect = None;
            }
        }
    }

    /// Whether records of it may be tried.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.hold.as_ref().is_none_or(|hold| hold.is_due(now))
    }

    /// Why it is held, for a person.
    pub(super) fn held(&self, now: Instant) -> Option<Held> {
        let (hold, parked) = (self.hold.as_ref()?, self.stream.parked()?);
        Some(hold.told(parked.topic(), parked.partition(), now))
    }
}

/// The logs of a lane: its own first.
pub(super) fn sources<'a>(store: &'a Store, lane: &'a Lane) -> Vec<Source<'a>> {
    let parked = store.parking_logs().filter(|log| log.lane() == lane.name());
    let parked = parked.map(|log| Source::new(Stream::of_parking(lane, log)));
    let own = Source::new(Stream::of_lane(lane));
    std::iter::once(own).chain(parked).collect()
}

/// A log of a lane by its identity.
pub(super) fn stream_of<'a>(store: &'a Store, lane: &'a Lane, log: LogId) -> Option<Stream<'a>> {
    let own = Stream::of_lane(lane);
    let parked = store.parking_logs().filter(|log| log.lane() == lane.name());
    let parked = parked.map(|log| Stream::of_parking(lane, log));
    std::iter::once(own)
        .chain(parked)
        .find(|stream| stream.log_id() == log)
}

/// A record that can neither go nor be parked stops its lane.
pub(super) fn stuck(topic: &Arc<str>, partition: Option<u32>, why: HoldReason) -> Error {
    Error::Held {
        held: vec![Held {
            topic: Arc::clone(topic),
            partition,
            why,
            lasted: Duration::ZERO,
        }],
    }
}
