//! The records of a span: each is handed to its partition, or moved to a parking log, or stops it.
//!
//! Owns what is between a log and librdkafka. Must not know transactions. Invariants: records are handed
//! over in the order of their numbers, and none is passed that is not settled; of a partition that
//! has a parking log with anything in it, nothing else is handed over, so that the order holds.

use std::fmt::Write as _;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::Error;
use super::committer::{Committer, random};
use super::partitions::partition_of;
use super::source::{Hold, Source, stuck};
use super::transact::{Carried, Transaction};
use crate::kafka::{ErrorClass, Failure, Outgoing, Persistence, SendError};
use crate::message::{Message, header};
use crate::ship::content::Content;
use crate::ship::health::HoldReason;
use crate::ship::slow::TOO_SLOW_PAUSE;
use crate::ship::{budget, overrides};
use crate::store::{Entry, Stream};
use crate::wal::Class;

/// Records that are parked before that is made durable, at most.
const PARKED_MAX: usize = 10_000;

/// The name under which records are held that are no messages.
const UNDECODABLE: &str = "(undecodable)";

/// Where a record goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    partition: u32,
    /// The index of the topic-partition.
    pub(super) index: usize,
}

/// What is next in a log.
pub(super) enum Next {
    /// The pending record goes there.
    Ready(Place),
    /// Everything on disk was passed.
    Dry,
    /// The cluster does not answer.
    Silent(String),
    /// A parking log whose records cannot go: it is held. Or nobody can tell whether the next record has
    /// a dead letter.
    Held,
    /// A record of the lane that can neither go nor be parked.
    Stuck(Error),
}

/// Where a record may go.
enum Placed {
    At(Place),
    Silent(String),
    /// Its partition, or no partition, takes it.
    Nowhere(Option<u32>, HoldReason),
    /// It follows those of its partition that are parked.
    Behind(usize),
}

impl<'a> Committer<'a> {
    /// Moves on to the next record that can be handed over; `passed` counts those that were settled
    /// on the way, or before.
    pub(super) fn next(&mut self, passed: &mut u64) -> Result<Next, Error> {
        loop {
            let source = &mut self.sources[self.current];
            let entry = match source.pending.take() {
                Some(entry) => entry,
                None => match source.read()? {
                    Some(entry) => entry,
                    None => return Ok(Next::Dry),
                },
            };
            match self.is_over(&entry)? {
                Some(true) => {
                    *passed += 1;
                    continue;
                }
                Some(false) => {}
                None => {
                    self.sources[self.current].pending = Some(entry);
                    return Ok(Next::Held);
                }
            }
            let placed = match &entry.message {
                Ok(message) => self.place(&entry, message),
                Err(undecodable) => match self.undecodable(&entry, undecodable)? {
                    Ok(()) => {
                        self.sources[self.current].hold = None;
                        *passed += 1;
                        continue;
                    }
                    Err(why) => Placed::Nowhere(None, HoldReason::NoDeadLetters(why)),
                },
            };
            let parked = match placed {
                Placed::At(place) => {
                    self.sources[self.current].pending = Some(entry);
                    return Ok(Next::Ready(place));
                }
                Placed::Silent(why) => {
                    self.sources[self.current].pending = Some(entry);
                    return Ok(Next::Silent(why));
                }
                Placed::Nowhere(_, why) if self.current > 0 => {
                    self.sources[self.current].pending = Some(entry);
                    self.hold(self.current, why);
                    return Ok(Next::Held);
                }
                Placed::Nowhere(partition, why) => self.park_held(&entry, partition, why)?,
                Placed::Behind(log) => self.park(log, &entry)?,
            };
            if let Err(error) = parked {
                self.sources[self.current].pending = Some(entry);
                return Ok(Next::Stuck(error));
            }
            *passed += 1;
        }
    }

    /// Whether a record has its outcome without being sent: it had it before, or has it by this. `None`:
    /// the dead letters do not tell.
    fn is_over(&mut self, entry: &Entry) -> Result<Option<bool>, Error> {
        let source = &self.sources[self.current];
        let (stream, own) = (source.stream, entry.seq..entry.seq + 1);
        // Of what is parked the dead letter may have become durable without anybody being told.
        let may_be_over = entry.seq < source.settled_below || self.current > 0;
        if stream.is_over(entry.seq, may_be_over) {
            return Ok(Some(true));
        }
        let is_earlier = entry.seq < source.earlier_below;
        if may_be_over || is_earlier {
            let Some(has_letter) = self.has_letter(entry, is_earlier) else {
                return Ok(None);
            };
            if has_letter {
                self.dead_lettered(entry)?;
                return Ok(Some(true));
            }
        }
        // Looking into an empty set makes a hash all the same.
        let may_be_moved = self.current == 0 && !self.moved.is_empty();
        if may_be_moved && self.moved.remove(&entry.seq) {
            stream.settle(own, Class::Moved);
            return Ok(Some(true));
        }
        let is_expired = self.lane.is_expired(entry, &self.now);
        if is_expired {
            stream.settle(own, Class::Expired);
            self.counters.expired += 1;
        }
        Ok(Some(is_expired))
    }

    fn place(&mut self, entry: &Entry, message: &Message) -> Placed {
        let known = self.topics.get(&message.topic);
        // A parking log is tried because the cluster may know better by now.
        let is_asked = match known {
            None => true,
            Some(topic) => {
                let hold = self.sources[self.current].hold.as_ref();
                self.current > 0
                    && (partition_of(entry, message, topic).is_none()
                        || hold.is_some_and(Hold::is_for_partitions))
            }
        };
        if is_asked && let Err(why) = self.ask(&message.topic) {
            return Placed::Silent(why);
        }
        let Some(topic) = self.topics.get(&message.topic) else {
            return Placed::Silent(String::new());
        };
        let partition = partition_of(entry, message, topic);
        // One that the topic does not have is held like any other.
        let named = message.partition.filter(|_| topic.count > 0);
        let home = partition.or_else(|| u32::try_from(named?).ok());
        if self.current == 0
            && let Some(log) = self.captured(&message.topic, home)
        {
            return Placed::Behind(log);
        }
        match partition {
            // A transaction that holds a record of it could be neither committed nor aborted.
            Some(partition) if self.is_leaderless(topic.index(partition)) => {
                Placed::Nowhere(home, HoldReason::NoLeader)
            }
            Some(partition) => Placed::At(Place {
                partition,
                index: topic.index(partition),
            }),
            None => {
                let count = topic.count;
                let missing = |named| HoldReason::NoPartition { named, count };
                let why = named.map_or(HoldReason::UnknownTopic, missing);
                Placed::Nowhere(home, why)
            }
        }
    }

    /// The parking log that the records of a partition go to.
    fn captured(&self, topic: &Arc<str>, partition: Option<u32>) -> Option<usize> {
        let captures = |source: &Source<'_>| {
            let Some(log) = source.stream.parked() else {
                return false;
            };
            let is_its = log.partition().is_none() || log.partition() == partition;
            (source.is_active || source.hold.is_some()) && is_its && log.topic() == topic
        };
        self.sources.iter().position(captures)
    }

    /// Holds a log's partition.
    pub(super) fn hold(&mut self, source: usize, why: HoldReason) {
        if let HoldReason::TooSlow { .. } = why {
            return self.sources[source].hold_for(why, TOO_SLOW_PAUSE);
        }
        let parked = self.sources[source].stream.parked();
        let topic = parked.map_or("", |log| log.topic());
        let retry = overrides::of_topic(&self.options.ship, self.store, self.lane, topic);
        self.sources[source].hold(why, &retry, Instant::now(), random());
    }

    /// Parks the first record of a partition that takes nothing, or one that is no message and finds no
    /// place in the dead letters.
    fn park_held(
        &mut self,
        entry: &Entry,
        partition: Option<u32>,
        why: HoldReason,
    ) -> Result<Result<(), Error>, Error> {
        let topic = match &entry.message {
            Ok(message) => Arc::clone(&message.topic),
            Err(_) => UNDECODABLE.into(),
        };
        let Some(log) = self.parking_source(&topic, partition)? else {
            return Ok(Err(stuck(&topic, partition, why)));
        };
        self.hold(log, why);
        self.park(log, entry)
    }

    /// The place of a parking log among the sources; `None`: there is no room for one more.
    pub(super) fn parking_source(
        &mut self,
        topic: &Arc<str>,
        partition: Option<u32>,
    ) -> Result<Option<usize>, Error> {
        let Some(log) = self.store.parking_log(self.lane, topic, partition)? else {
            return Ok(None);
        };
        let is_it = |s: &Source<'a>| s.stream.parked().is_some_and(|p| std::ptr::eq(p, log));
        if let Some(place) = self.sources.iter().position(is_it) {
            return Ok(Some(place));
        }
        let stream = Stream::of_parking(self.lane, log);
        self.sources.push(Source::new(stream));
        Ok(Some(self.sources.len() - 1))
    }

    /// Appends a record to a parking log. It is settled once that is durable.
    fn park(&mut self, log: usize, entry: &Entry) -> Result<Result<(), Error>, Error> {
        let Some(parking) = self.sources[log].stream.parked() else {
            return Ok(Ok(()));
        };
        if self.shared.parked_bytes() >= self.options.ship.parked_quota {
            let held = self.sources[log].hold.as_ref().map(|hold| hold.why.clone());
            let why = held.unwrap_or(HoldReason::Silent);
            return Ok(Err(stuck(parking.topic(), parking.partition(), why)));
        }
        if let Err(error) = parking.append(entry.origin, entry.time_micros, &entry.raw) {
            return Ok(Err(error.into()));
        }
        self.sources[log].is_active = true;
        self.sources[log].parked(self.shared, &entry.raw);
        self.sources[log].keep(entry.origin);
        self.parked.push((log, entry.seq));
        if self.parked.len() >= PARKED_MAX {
            self.settle_parked()?;
        }
        Ok(Ok(()))
    }

    /// Makes durable what was parked, and settles it in the lane.
    pub(super) fn settle_parked(&mut self) -> Result<(), Error> {
        if self.parked.is_empty() {
            return Ok(());
        }
        let parked = mem::take(&mut self.parked);
        let mut logs: Vec<usize> = parked.iter().map(|(log, _)| *log).collect();
        logs.sort_unstable();
        logs.dedup();
        for log in logs {
            if let Some(log) = self.sources[log].stream.parked() {
                log.sync()?;
            }
        }
        let lane = &self.sources[0].stream;
        for (_, seq) in &parked {
            lane.settle(*seq..*seq + 1, Class::Moved);
        }
        self.counters.parked += u64::try_from(parked.len()).unwrap_or(0);
        // What is shipped from a parking log is never read from its lane again.
        lane.save_cursor()?;
        Ok(())
    }

    /// The timestamp that a message is sent with in place of its own.
    fn restamped(&self, message: &Message, place: Place, now: Instant) -> Option<i64> {
        if self.memory.is_empty() {
            return None;
        }
        let (_, topic, _) = self.topics.named(place.index)?;
        let memory = self.memory.get(&topic.ordinal)?;
        memory.stamp(
            message.timestamp_millis,
            now,
            self.lane.now().reading.wall_millis,
        )
    }

    /// Hands the pending record to librdkafka; false if it has to wait.
    pub(super) fn send(&mut self, place: Place, now: Instant, open: &mut Transaction) -> bool {
        let Some(entry) = self.sources[self.current].pending.take() else {
            return false;
        };
        let Ok(message) = &entry.message else {
            return false;
        };
        let late = self.restamped(message, place, now);
        let source = &mut self.sources[self.current];
        if self.options.ship.id_header {
            self.id.truncate(self.id_prefix_len);
            // Writing to a string cannot fail.
            let _ = write!(self.id, "{}", entry.origin);
        }
        let own = [(header::ID, Some(self.id.as_bytes()))];
        let own = &own[..usize::from(self.options.ship.id_header)];
        let text = late.map(|_| message.timestamp_millis.to_string());
        let time = text.as_ref().map(|t| (header::TIME, Some(t.as_bytes())));
        let content = Content::of(&self.replaced, self.current, &entry, message);
        let mut joined = Vec::new();
        let (headers, len) = (content.headers(own, time, &mut joined), content.len());
        let cost = budget::cost(len, headers);
        let room = self.budget.room(place.index, cost);
        if room != budget::Room::Yes || !self.shared.has_room(now) {
            source.pending = Some(entry);
            return false;
        }
        let sent = self.producer.producer().send(&Outgoing {
            topic: &message.topic,
            partition: i32::try_from(place.partition).unwrap_or(i32::MAX),
            key: content.key,
            value: content.value,
            headers,
            timestamp_millis: late.unwrap_or(message.timestamp_millis),
            token: u64::try_from(open.carried.len()).unwrap_or(u64::MAX),
            is_careful: false,
        });
        let carried = Carried {
            seq: entry.seq,
            cost: u32::try_from(cost).unwrap_or(u32::MAX),
            partition: u32::try_from(place.index).unwrap_or(u32::MAX),
        };
        if let Err(SendError::QueueFull) = sent {
            source.pending = Some(entry);
        }
        let is_sent = self.carried(sent, carried, len, now, open);
        if is_sent {
            open.bytes += length(len);
        }
        is_sent
    }

    /// Notes what became of a record, or of a letter, of `len` bytes that was offered to librdkafka; false
    /// if it is not on its way.
    pub(super) fn carried(
        &mut self,
        sent: Result<(), SendError>,
        carried: Carried,
        len: usize,
        now: Instant,
        open: &mut Transaction,
    ) -> bool {
        match sent {
            Ok(()) => {
                self.budget
                    .take(carried.index(), u64::from(carried.cost), now);
                self.shared.take(length(len));
                open.carried.push(carried);
                true
            }
            Err(SendError::QueueFull) => false,
            Err(SendError::Failed(failure)) => {
                // The newest of the transaction, which is to be aborted.
                open.carried.push(Carried { cost: 0, ..carried });
                open.record_failed(failure);
                false
            }
        }
    }

    /// Meets what an earlier run parked and did not settle in the lane.
    pub(super) fn meet_parked(&mut self) -> Result<(), Error> {
        let low = self.lane.marks().acked;
        for source in &mut self.sources[1..] {
            // What this process appended before and did not sync cannot be read yet.
            if let Some(log) = source.stream.parked()
                && source.stream.marks().next > source.stream.marks().durable
            {
                log.sync()?;
            }
            let marks = source.stream.marks();
            let mut reader = source.stream.reader(marks.first);
            let stream = source.stream;
            while let Some(entry) = stream.next_readable(&mut reader, &mut source.lost)? {
                source.keep(entry.origin);
                if entry.origin >= low {
                    self.moved.insert(entry.origin);
                }
                if entry.seq >= marks.acked {
                    source.parked(self.shared, &entry.raw);
                }
            }
        }
        Ok(())
    }
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// What librdkafka said, where it names no code.
pub(super) fn failure(why: &str) -> Failure {
    Failure {
        class: ErrorClass::Fatal,
        persistence: Persistence::Possibly,
        code: 0,
        name: why.to_owned(),
    }
}
