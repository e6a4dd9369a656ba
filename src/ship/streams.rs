//! Several sources of one lane: its parking logs, and the two streams of a `live_first` lane.
//!
//! Owns in which order they are served, which partition's records go by which parking log, also over
//! a restart, and when the newest records become a stream of their own.
//! Must not know what becomes of a record.
//!
//! When the link comes up and a `live_first` lane is far behind, what waits becomes *backlog*: the
//! range of its newest source ends there, and another source, the *live* one, begins with the
//! newest records. Backlog of several outages is served the oldest first.
//!
//! ```text
//!     settled  |  backlog 1  |  settled  |  backlog 2  |  settled  |
//! low mark ----^                                          live ----^  ^ end of the log
//! ```
//!
//! Invariants: each number of a log is in the range of exactly one source, and ranges end but never
//! shrink behind what was read: so each source keeps the order of its records over rebuilds, as a
//! lane's only source does. A lane has one source without an end, and at most [`SOURCES_MAX`].
//! The records of a partition in its own parking log are older than those in the one that its topic
//! shares, and those are older than the lane's: each go behind the older ones.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::shipper::Shipper;
use super::source::Source;
use super::{Error, Sink};
use crate::store::{Lane, Order, ParkingLog, Stream};

/// Most sources of a lane's own log at a time. With more outages than that in one backlog the live
/// source does not jump but reads on: each hole costs a range in the log's cursor.
const SOURCES_MAX: usize = 9;

/// A lane is far behind with more records than this, which is what a slow link carries within the few
/// seconds that nobody would call an outage,
const FAR_RECORDS: u64 = 10_000;

/// or if its next record is older than this.
const FAR_AGE: Duration = Duration::from_secs(10);

/// So many of the newest records that wait are live: what a gateway has to tell when it is back.
const NEWEST: u64 = 1000;

/// How far above the low mark the log keeps settlements, less what is read in one turn: the live
/// source stops there until the backlog moved.
const REACH: u64 = (1 << 24) - (1 << 16);

/// So many records of a parking log are read while its partition takes nothing: more than a piece of a search.
const PARKED_READ: usize = 4096;

/// Of so many turns with room for something, the backlog has the first go in one: so it drains even
/// where more is appended than the lane's share of the link carries.
const BACKLOG_TURN: u32 = 8;

/// In which order the sources of a lane are served.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    /// Places of sources: parking logs, then the live one, then the backlog, oldest first.
    order: Vec<usize>,
    /// How many of them are before the backlog.
    before_backlog: usize,
    count: u32,
}

impl Turns {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The source that is the `n`-th of this turn.
    pub(super) fn nth(&self, n: usize) -> usize {
        let skipped = match self.count % BACKLOG_TURN == BACKLOG_TURN - 1 {
            true => self.before_backlog,
            false => 0,
        };
        self.order[(n + skipped) % self.order.len()]
    }

    /// A turn is over.
    pub(super) fn served(&mut self, had_room: bool) {
        self.count = self.count.wrapping_add(u32::from(had_room));
    }
}

/// How many of the records that wait the live stream of a lane leaves behind.
fn jump(waiting: u64, age: Option<Duration>, beyond_low_mark: u64) -> Option<u64> {
    let is_far = waiting > FAR_RECORDS || age.is_some_and(|age| age > FAR_AGE);
    // Half of the reach is for what is yet to come.
    (waiting > 0 && is_far && beyond_low_mark <= REACH / 2)
        .then(|| waiting - NEWEST.min(waiting / 2))
}

impl<'a, S: Sink> Shipper<'a, S> {
    /// Ships from one more log of a lane, or another time from the lane's own.
    pub(super) fn add_source(&mut self, stream: Stream<'a>, lane: usize) -> usize {
        // At least once: a record that a lane does not know to be moved may be sent again.
        if let Some(log) = stream.parked() {
            log.keep(false);
        }
        self.sources.push(Source::new(stream, lane));
        self.arrange(lane);
        self.sources.len() - 1
    }

    /// Meets the parking logs of earlier runs, and what of their records the lanes do not know to
    /// be there.
    pub(super) fn meet_parked(&mut self) -> Result<(), Error> {
        let store = self.store;
        let mut logs: Vec<_> = store.parking_logs().collect();
        logs.sort_by_key(|log| log.partition().is_none());
        let has_shared = |own: &ParkingLog| {
            let its = (None, own.lane(), own.topic());
            store
                .parking_logs()
                .any(|log| (log.partition(), log.lane(), log.topic()) == its)
        };
        let mut of_own = HashSet::new();
        for log in logs {
            let is_its = |lane: &&Lane| lane.name() == log.lane();
            let Some(place) = self.lanes.iter().position(is_its) else {
                continue;
            };
            let lane = self.lanes[place];
            let stream = Stream::of_parking(lane, log);
            let marks = stream.marks();
            let low = lane.marks().acked;
            let mut reader = stream.reader(marks.first);
            let (mut moved, mut parked, mut lost) = (HashSet::new(), (0, 0), Vec::new());
            // Only what a topic's partitions share goes on to one of their own.
            let is_own = log.partition().is_some();
            let is_compared = is_own && has_shared(log);
            while let Some(entry) = stream.next_readable(&mut reader, &mut lost)? {
                if entry.origin >= low {
                    self.sources[place].moved.insert(entry.origin);
                }
                if entry.seq >= marks.acked {
                    parked.0 += u64::try_from(entry.raw.len()).unwrap_or(0);
                    parked.1 += 1;
                    let it = (place, entry.origin);
                    if is_compared {
                        of_own.insert(it);
                    } else if !is_own && of_own.contains(&it) {
                        moved.insert(entry.seq);
                    }
                }
            }
            let source = self.add_source(stream, place);
            self.parked_bytes += parked.0;
            let source = &mut self.sources[source];
            (source.moved, source.parked, source.lost) = (moved, parked, lost);
        }
        Ok(())
    }

    /// Everything of a topic goes to the parking log that its partitions share. Where one has
    /// records in a log of its own, those are older: what the shared one has of it goes there, too.
    pub(super) fn capture_all(&mut self, topic: &Arc<str>, lane: usize, shared: usize) {
        let Some(topic) = self.topics.get(topic) else {
            return;
        };
        let partitions = (0..topic.count).map(|number| topic.index(number));
        for index in partitions.chain([topic.nowhere()]) {
            let own = self.sources[lane].captured(index);
            if own.is_some_and(|own| own != shared) {
                self.sources[shared].capture(index, own);
            }
            self.sources[lane].capture(index, Some(shared));
        }
    }

    /// A topic's partitions are known: what of them stands in parking logs goes first.
    pub(super) fn capture_known(&mut self, name: &Arc<str>) {
        let Some(topic) = self.topics.get(name) else {
            return;
        };
        let mut shared = Vec::new();
        for place in self.lanes.len()..self.sources.len() {
            let parked = &self.sources[place];
            let lane = parked.lane;
            let Some(log) = parked.stream.parked().filter(|log| log.topic() == name) else {
                continue;
            };
            if parked.stream.totals().queued == 0 {
                continue;
            }
            match log.partition() {
                None => shared.push((lane, place)),
                Some(number) if number < topic.count => {
                    self.sources[lane].capture(topic.index(number), Some(place));
                }
                Some(_) => {}
            }
        }
        for (lane, place) in shared {
            self.capture_all(name, lane, place);
        }
    }

    /// Partitions whose parking log is empty take their records themselves again.
    pub(super) fn end_parking(&mut self) {
        for place in self.lanes.len()..self.sources.len() {
            let parked = &self.sources[place];
            let is_log = parked.stream.parked().is_some();
            if !is_log || !parked.flight.is_empty() || parked.stream.totals().queued > 0 {
                continue;
            }
            for source in 0..self.sources.len() {
                let captured: Vec<usize> = self.sources[source].captures(place).collect();
                for index in captured {
                    if self.health[index].is_flowing() {
                        let older = self.sources[place].captured(index);
                        self.sources[source].capture(index, older);
                    }
                }
            }
        }
    }

    /// The source of the parking log that a partition's records go to.
    pub(super) fn captured(&self, source: usize, index: usize) -> Option<usize> {
        let place = match self.sources[source].stream.parked() {
            Some(_) => source,
            None => self.sources[source].lane,
        };
        self.sources[place].captured(index)
    }

    /// Puts the sources of a lane into the order in which they are served.
    fn arrange(&mut self, lane: usize) {
        let sources = self.sources.iter().enumerate();
        let mut order: Vec<usize> = sources
            .filter(|(_, source)| source.lane == lane)
            .map(|(place, _)| place)
            .collect();
        let is_backlog = |source: &Source<'_>| source.until().is_some();
        order.sort_by_key(|place| {
            let source = &self.sources[*place];
            let is_own = source.stream.parked().is_none();
            (is_own, is_backlog(source), source.from())
        });
        let first = order.iter().position(|p| is_backlog(&self.sources[*p]));
        let turns = &mut self.turns[lane];
        turns.before_backlog = first.unwrap_or(0);
        turns.order = order;
    }

    /// The link came up: `live_first` lanes that are far behind begin a live stream.
    pub(super) fn begin_streams(&mut self) {
        for place in 0..self.lanes.len() {
            let lane = self.lanes[place];
            if lane.order() == Order::LiveFirst && self.begin_live(place) {
                self.arrange(place);
            }
        }
    }

    /// True if the newest records of a lane are a stream of their own from now on.
    fn begin_live(&mut self, lane: usize) -> bool {
        let is_own = |s: &Source<'_>| s.lane == lane && s.stream.parked().is_none();
        let own: Vec<usize> = (0..self.sources.len())
            .filter(|place| is_own(&self.sources[*place]))
            .collect();
        let newest = own.iter().find(|p| self.sources[**p].until().is_none());
        let Some(&newest) = newest else {
            return false;
        };
        let source = &self.sources[newest];
        let (stream, from, marks) = (source.stream, source.from(), source.stream.marks());
        let next = source.pending.as_ref();
        let age = next.and_then(|entry| stream.lane().age_of(entry, &self.time));
        let position = source.position();
        let waiting = marks.durable - position;
        let Some(left_behind) = jump(waiting, age, marks.durable - marks.acked) else {
            return false;
        };
        // What was read stays with its source, though that may have gone back to read it again.
        let end = source.flight.end().max(position + left_behind);
        let settled_below = source.settled_below;
        let is_untouched = source.flight.is_empty() && position == from;
        let before = own
            .iter()
            .find(|p| self.sources[**p].until() == Some(from) && is_untouched);
        if let Some(&before) = before {
            // A link that only comes and goes makes one range.
            self.sources[before].end_at(end);
            self.sources[newest].begin_at(end);
            return true;
        }
        let done = own.iter().copied().find(|p| self.sources[*p].is_done());
        if done.is_none() && own.len() >= SOURCES_MAX {
            return false;
        }
        self.sources[newest].end_at(end);
        let live = done.unwrap_or_else(|| self.add_source(stream, lane));
        self.sources[live].begin_at(end);
        self.sources[live].settled_below = settled_below;
        true
    }

    /// Whether enough was read of a parking log whose partition takes nothing: the rest waits on disk.
    pub(super) fn is_read_enough(&mut self, place: usize) -> bool {
        let source = &self.sources[place];
        if source.flight.len() < PARKED_READ {
            return false;
        }
        let Some(log) = source.stream.parked() else {
            return false;
        };
        let index = match (self.topics.get(log.topic()), log.partition()) {
            (Some(topic), Some(number)) if number < topic.count => topic.index(number),
            (Some(topic), _) if topic.count == 0 => topic.nowhere(),
            _ => return false,
        };
        !self.health[index].is_flowing()
    }

    /// Whether a live stream is too far ahead of its backlog for the log to keep what is settled.
    pub(super) fn is_out_of_reach(&self, place: usize) -> bool {
        let source = &self.sources[place];
        let has_backlog = self.turns[source.lane].before_backlog > 0;
        has_backlog
            && source.until().is_none()
            && source.stream.parked().is_none()
            && source.position() - source.stream.marks().acked > REACH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_jumps_if_it_is_far_behind_in_records_or_in_time() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(jump(FAR_RECORDS, None, FAR_RECORDS), None);
        assert_eq!(jump(10_001, None, 10_001), Some(9_001));
        assert_eq!(jump(4, seconds(10), 4), None);
        assert_eq!(jump(4, seconds(11), 4), Some(2));
        assert_eq!(jump(1, seconds(11), 1), Some(1));
        assert_eq!(jump(0, seconds(11), 1), None);
        assert_eq!(jump(1_000_000, None, REACH / 2), Some(999_000));
        assert_eq!(jump(1_000_000, None, REACH / 2 + 1), None, "out of reach");
    }

    #[test]
    fn the_backlog_goes_first_in_one_of_eight_turns_with_room() {
        let mut turns = Turns {
            order: vec![3, 5, 0, 4],
            before_backlog: 2,
            count: 0,
        };
        let mut firsts = Vec::new();
        for turn in 0..32 {
            firsts.push(turns.nth(0));
            let mut all: Vec<usize> = (0..turns.len()).map(|n| turns.nth(n)).collect();
            all.sort_unstable();
            assert_eq!(all, [0, 3, 4, 5], "each is served once");
            turns.served(turn % 2 == 0);
        }
        assert_eq!(firsts.iter().filter(|first| **first == 0).count(), 4);
        assert!(firsts.iter().all(|first| [0, 3].contains(first)));
    }
}
