//! What becomes of one record that was read: handed over, left behind, parked, or settled.
//!
//! Owns the order of these questions. Invariant: of a partition that is behind, searched or held,
//! nothing is handed over here, so that no record overtakes another of its partition and source.

use std::fmt::Write as _;
use std::time::Instant;

use super::budget::{self, Room};
use super::content::Content;
use super::health::{HoldReason, Phase};
use super::settle::{Flown, State, WINDOW_MAX};
use super::shipper::Shipper;
use super::source::Source;
use super::tend::Answer;
use super::topics::Topic;
use super::{Error, Sink, partition};
use crate::kafka::{ErrorClass, Failure, Outgoing, SendError};
use crate::message::{Message, header};
use crate::store::Entry;
use crate::wal::{Class, SeqNo};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// Handed over; so many bytes of the budget.
    Sent(u64),
    /// It needs no flight: settled, in flight already, parked, or left behind.
    Done,
    /// Its partition or its window has no room: the same record again later.
    Waits,
    /// Link, budget or queue have no room: the same record again later, and nothing else before
    /// it, or what is small would take each bit of room from what is large.
    Full,
}

impl<S: Sink> Shipper<'_, S> {
    /// Decides about the next record of a source.
    pub(super) fn place(
        &mut self,
        source: usize,
        entry: &Entry,
        now: Instant,
    ) -> Result<Placed, Error> {
        let seq = entry.seq;
        let from = &self.sources[source];
        let known = from.flight.find(seq);
        match known {
            Some((_, State::Waiting)) => {}
            Some((_, State::InFlight | State::Tried | State::Settled(_) | State::Told)) => {
                return Ok(Placed::Done);
            }
            None if from.is_settled(seq) => return Ok(Placed::Done),
            None if from.flight.len() >= WINDOW_MAX => return Ok(Placed::Waits),
            None if from.moved.contains(&seq) => {
                return Ok(self.settle_unsent(source, entry, Class::Moved));
            }
            None if seq < from.earlier_below && self.is_buried(source, entry) => {
                return Ok(self.settle_unsent(source, entry, Class::DeadLettered));
            }
            None => {}
        }
        let Ok(message) = &entry.message else {
            return self.undecodable(source, entry, now);
        };
        if self.expires(source, entry) {
            return Ok(Placed::Done);
        }
        let Some(index) = self.index_of(entry, message, now)? else {
            return Ok(Placed::Full);
        };
        let from = &self.sources[source];
        if from.behind(index).is_some() {
            return Ok(self.leave(source, index, entry));
        }
        if let Some(log) = self.captured(source, index) {
            return self.park(source, log, index, entry, now);
        }
        match &self.health[index].phase {
            Phase::Flowing => {
                let cost = budget::cost(entry.raw.len(), &[]);
                if !self.may_be_given(index, cost, now) {
                    return Ok(self.leave(source, index, entry));
                }
            }
            Phase::Held { .. } if self.health[index].allowance(source, now) > 0 => {}
            Phase::Held { .. } | Phase::Searched(_) => {
                return Ok(self.leave(source, index, entry));
            }
        }
        self.send(source, index, entry, message, now)
    }

    /// Settles a record that is too old now. False: it is not.
    pub(super) fn expires(&mut self, source: usize, entry: &Entry) -> bool {
        let lane = self.sources[source].stream.lane();
        let is_expired = entry.message.is_ok() && lane.is_expired(entry, &self.time);
        if is_expired {
            self.counters.expired += 1;
            self.settle_unsent(source, entry, Class::Expired);
        }
        is_expired
    }

    /// Whether a record stands among the dead letters, put there before a crash.
    fn is_buried(&self, source: usize, entry: &Entry) -> bool {
        let log_id = self.sources[source].stream.lane().log_id();
        self.letters_before
            .is_some_and(|letters| letters.holds(log_id, entry.origin))
    }

    /// The record waits behind the reader.
    fn leave(&mut self, source: usize, index: usize, entry: &Entry) -> Placed {
        self.note(source, index, entry);
        // Else all may seem to wait for a person, and nobody has asked whether it is to be parked.
        self.needs_care |= self.sources[source].behind(index).is_none();
        self.sources[source].leave(index, entry.seq);
        Placed::Done
    }

    /// Enters a record into the flight as waiting, unless it stands there; returns its token.
    pub(super) fn note(&mut self, source: usize, index: usize, entry: &Entry) -> u64 {
        let flight = &mut self.sources[source].flight;
        let partition = u32::try_from(index).unwrap_or(u32::MAX);
        if let Some((token, _)) = flight.find(entry.seq) {
            flight.moves_to(token, partition);
            return token;
        }
        let token = flight.next_token();
        let waiting = Flown::new(entry.seq, index, 0, 0, 0);
        flight.push(waiting, State::Waiting);
        token
    }

    /// Settles a record that was not handed over.
    pub(super) fn settle_unsent(&mut self, source: usize, entry: &Entry, class: Class) -> Placed {
        let token = self.note(source, usize::MAX, entry);
        self.sources[source].flight.settle(token, class);
        Placed::Done
    }

    /// The partition index of a record; `None` if the cluster is silent about its topic.
    fn index_of(
        &mut self,
        entry: &Entry,
        message: &Message,
        now: Instant,
    ) -> Result<Option<usize>, Error> {
        let topic = match self.topics.get(&message.topic) {
            Some(topic) => topic,
            None => match self.ask(&message.topic, now)? {
                Answer::Silence => return Ok(None),
                Answer::Count | Answer::No => {
                    let Some(topic) = self.topics.get(&message.topic) else {
                        return Ok(None);
                    };
                    topic
                }
            },
        };
        let key = message.key.as_deref();
        let index = partition_of(topic, message.partition, entry.origin, key);
        if index == topic.nowhere() && self.health[index].is_flowing() {
            let why = HoldReason::NoPartition {
                named: message.partition.unwrap_or(0),
                count: topic.count,
            };
            self.hold(index, why, now);
        }
        Ok(Some(index))
    }

    /// Hands one record to the sink.
    pub(super) fn send(
        &mut self,
        source: usize,
        index: usize,
        entry: &Entry,
        message: &Message,
        now: Instant,
    ) -> Result<Placed, Error> {
        let Some((_, topic, Some(partition))) = self.topics.named(index) else {
            return Ok(self.leave(source, index, entry));
        };
        if !self.has_rate(now) {
            return Ok(Placed::Full);
        }
        let late = self.restamped(topic.ordinal, message, now);
        if self.options.id_header {
            self.write_identity(source, entry);
        }
        let text = late.map(|_| message.timestamp_millis.to_string());
        let id = [(header::ID, Some(self.id.as_bytes()))];
        let time = text.as_ref().map(|t| (header::TIME, Some(t.as_bytes())));
        let id = if self.options.id_header { &id[..] } else { &[] };
        let content = Content::of(&self.replaced, source, entry, message);
        let mut joined = Vec::new();
        let (headers, len) = (content.headers(id, time, &mut joined), content.len());
        let cost = budget::cost(len, headers);
        match self.budget.room(index, cost) {
            Room::Yes => {}
            Room::NotHere => return Ok(Placed::Waits),
            Room::No => return Ok(Placed::Full),
        }
        let to = self.health[index].way();
        let flight = &self.sources[source].flight;
        let known = flight.find(entry.seq).map(|(token, _)| token);
        let sent = self.sink.send(&Outgoing {
            topic: &message.topic,
            partition: i32::try_from(partition).unwrap_or(i32::MAX),
            key: content.key,
            value: content.value,
            headers,
            timestamp_millis: late.unwrap_or(message.timestamp_millis),
            token: token_of(source, known.unwrap_or_else(|| flight.next_token())),
            is_careful: to == State::Tried,
        });
        let flown = Flown::new(entry.seq, index, cost, len, self.millis(now));
        match sent {
            Ok(()) => {
                self.handed_over(source, index, flown, to, now);
                Ok(Placed::Sent(u64::from(flown.cost)))
            }
            Err(SendError::QueueFull) => Ok(Placed::Full),
            Err(SendError::Failed(failure)) => {
                Ok(self.not_taken(source, index, entry, to, &failure))
            }
        }
    }

    /// Whether the drain rate lets a record through.
    fn has_rate(&mut self, now: Instant) -> bool {
        let has_room = self.rate.has_room(now);
        if !has_room && !self.is_busy() {
            self.nothing_asked(now);
        }
        has_room
    }

    /// The client library took the record.
    fn handed_over(&mut self, source: usize, index: usize, flown: Flown, to: State, now: Instant) {
        let flight = &mut self.sources[source].flight;
        match flight.find(flown.seq) {
            Some((token, _)) => flight.hand_over(token, flown, to),
            None => flight.push(flown, to),
        }
        self.health[index].handed_over(to, now);
        self.budget.take(index, u64::from(flown.cost), now);
        self.rate.take(u64::from(flown.len));
    }

    /// The client library did not take the record.
    fn not_taken(
        &mut self,
        source: usize,
        index: usize,
        entry: &Entry,
        to: State,
        failure: &Failure,
    ) -> Placed {
        let is_spent = matches!(failure.class, ErrorClass::Fatal | ErrorClass::Network);
        if is_spent {
            if to == State::InFlight {
                self.spent.get_or_insert_with(|| failure.to_string());
            }
            return Placed::Full;
        }
        // It was never on its way: what is said about it is about it alone.
        self.note(source, index, entry);
        self.sources[source].leave(index, entry.seq);
        self.refused(source, index, entry.seq, true, failure);
        Placed::Waits
    }

    /// The value of the identity header: the log's id, `-`, the number in it.
    fn write_identity(&mut self, source: usize, entry: &Entry) {
        if self.id_lane != Some(self.sources[source].lane) {
            let lane = self.sources[source].stream.lane();
            self.id.clear();
            let _ = write!(self.id, "{}-", lane.identity());
            self.id_prefix_len = self.id.len();
            self.id_lane = Some(self.sources[source].lane);
        }
        self.id.truncate(self.id_prefix_len);
        // Writing to a string cannot fail.
        let _ = write!(self.id, "{}", entry.origin);
    }

    /// Appends a record to a parking log. It is settled once that is durable.
    fn park(
        &mut self,
        source: usize,
        log: usize,
        index: usize,
        entry: &Entry,
        now: Instant,
    ) -> Result<Placed, Error> {
        let Some(parking) = self.sources[log].stream.parked() else {
            return Ok(self.leave(source, index, entry));
        };
        if self.parked_bytes >= self.options.parked_quota {
            // What was shipped since is still in it.
            self.parked_bytes = self.sources.iter().map(Source::parked_bytes).sum();
        }
        let appended = if self.parked_bytes < self.options.parked_quota {
            let appended = parking.append(entry.origin, entry.time_micros, &entry.raw);
            appended.map_err(|error| error.to_string())
        } else {
            Err("the quota of parked records is used up".to_owned())
        };
        if let Err(why) = appended {
            self.parking_failed = Some((why, now));
            return Ok(self.leave(source, index, entry));
        }
        self.parked_bytes += u64::try_from(entry.raw.len()).unwrap_or(0);
        self.sources[log].note_parked(entry);
        let token = self.note(source, index, entry);
        self.parked.push((source, log, token));
        Ok(Placed::Done)
    }
}

/// The index of the partition a record names, else of the one its key or number chooses.
pub(super) fn partition_of(
    topic: Topic,
    named: Option<i32>,
    number: SeqNo,
    key: Option<&[u8]>,
) -> usize {
    let Some(count) = std::num::NonZeroU32::new(topic.count) else {
        return topic.nowhere();
    };
    match named {
        None => topic.index(partition::choose(number, key, count)),
        Some(named) => {
            let valid = u32::try_from(named).ok().filter(|&n| n < count.get());
            valid.map_or(topic.nowhere(), |number| topic.index(number))
        }
    }
}

/// A token for the sink: the source's place, and the record's place in its flight.
pub(super) fn token_of(source: usize, place: u64) -> u64 {
    (u64::try_from(source).unwrap_or(0) << SOURCE_SHIFT) | place
}

/// The source and the place in its flight that a token stands for.
pub(super) fn source_of(token: u64) -> (usize, u64) {
    let source = usize::try_from(token >> SOURCE_SHIFT).unwrap_or(usize::MAX);
    (source, token & ((1 << SOURCE_SHIFT) - 1))
}

/// A log would have to take 2^48 records in one run of the shipper to outgrow this.
const SOURCE_SHIFT: u32 = 48;
