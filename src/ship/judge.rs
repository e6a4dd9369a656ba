//! What is done about records that Kafka refuses.
//!
//! Owns the way from a refusal to a verdict, and from a verdict to the dead letters, a gap, or a
//! hold. Invariants: a verdict falls only on a record that stood alone; a record that goes to the
//! dead letters is settled only once it is durable there; where a verdict cannot be carried out,
//! its partition is held in front of it.

use std::time::{Duration, Instant};

use super::health::{HoldReason, Phase, Piece, STORM, reason_of};
use super::place::Placed;
use super::retry::{Attempted, Decide, OnExhausted, OnPoison, Recovery, RetryPolicy};
use super::shipper::Shipper;
use super::storm;
use super::{Error, OnBadTimestamp, Sink, overrides};
use crate::kafka::{ErrorClass, Failure};
use crate::message::{Message, MessageRef};
use crate::store::{self, Cause, Content, Entry, Lane, Letter, Origin, Stage, Store};
use crate::wal::{Class, SeqNo};

/// Records of one partition and source that came back in one poll.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) source: usize,
    pub(super) index: usize,
    count: usize,
    /// Whether all of them were handed over carefully, or not at all: no other source's record was
    /// in one batch with them.
    is_careful: bool,
    first: SeqNo,
    last: SeqNo,
    failure: Failure,
}

impl Refused {
    /// Whether it is of this partition and source.
    pub(super) fn is_of(&self, source: usize, index: usize) -> bool {
        self.source == source && self.index == index
    }
}

impl<S: Sink> Shipper<'_, S> {
    /// Remembers a refusal until all reports of this poll are in.
    pub(super) fn refused(
        &mut self,
        source: usize,
        index: usize,
        seq: SeqNo,
        is_careful: bool,
        failure: &Failure,
    ) {
        let same = |known: &&mut Refused| known.is_of(source, index);
        if let Some(known) = self.refusals.iter_mut().find(same) {
            known.count += 1;
            known.is_careful &= is_careful;
            known.first = known.first.min(seq);
            known.last = known.last.max(seq);
            return;
        }
        self.refusals.push(Refused {
            source,
            index,
            count: 1,
            is_careful,
            first: seq,
            last: seq,
            failure: failure.clone(),
        });
    }

    /// Draws the conclusions from all that was refused in the last poll.
    pub(super) fn judge(&mut self, now: Instant) -> Result<(), Error> {
        for refused in std::mem::take(&mut self.refusals) {
            self.counters.refused += u64::try_from(refused.count).unwrap_or(0);
            self.needs_care = true;
            // What is sent carefully spends no producer but its own.
            self.was_refused |= !refused.is_careful;
            match refused.failure.class {
                ErrorClass::Held => {
                    self.hold(refused.index, reason_of(&refused.failure), now);
                }
                ErrorClass::Blocked => {
                    let failure = &refused.failure;
                    self.blocked(failure.code, &failure.name, now);
                }
                _ => self.judge_batch(&refused, now)?,
            }
        }
        for index in 0..self.health.len() {
            match self.health[index].piece_ended() {
                None => {}
                Some(Piece::Next) => self.needs_care = true,
                Some(Piece::Over) => {
                    self.health[index].release();
                    self.needs_care = true;
                }
                Some(Piece::TooSlow(failure)) => {
                    let Phase::Searched(search) = &self.health[index].phase else {
                        continue;
                    };
                    let source = search.source;
                    self.needs_care = true;
                    // No broker refused it: no attempt is counted, it is the operator's choice.
                    if let Some(entry) = self.sources[source].left_behind(index, 0)? {
                        self.dead_letter(source, index, &entry, &failure, 0, now)?;
                    }
                }
                Some(Piece::Verdict(failure)) => {
                    let Phase::Searched(search) = &self.health[index].phase else {
                        continue;
                    };
                    let source = search.source;
                    self.needs_care = true;
                    if let Some(entry) = self.sources[source].left_behind(index, 0)? {
                        self.verdict(source, index, &entry, &failure, now)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn judge_batch(&mut self, refused: &Refused, now: Instant) -> Result<(), Error> {
        let Refused {
            source,
            index,
            count,
            last,
            ..
        } = *refused;
        let failure = &refused.failure;
        match &self.health[index].phase {
            Phase::Flowing if failure.class == ErrorClass::Transient => {
                self.hold(index, reason_of(failure), now);
            }
            Phase::Flowing => self.health[index].search(source, count, last),
            Phase::Searched(_) if failure.class == ErrorClass::Transient => {
                self.hold(index, reason_of(failure), now);
            }
            Phase::Searched(_) => {
                self.health[index].piece_refused(source, last, failure.clone());
            }
            // A trial is one record.
            Phase::Held { .. } if count == 1 && refused.is_careful => self.alone(refused, now)?,
            Phase::Held { .. } => self.hold(index, reason_of(failure), now),
        }
        Ok(())
    }

    /// A trial came back: the oldest record that waits, or the one behind it.
    fn alone(&mut self, refused: &Refused, now: Instant) -> Result<(), Error> {
        let Refused { source, index, .. } = *refused;
        let failure = &refused.failure;
        if failure.class != ErrorClass::Transient {
            return match self.sources[source].at(index, refused.first)? {
                Some(entry) => self.verdict(source, index, &entry, failure, now),
                None => Ok(()),
            };
        }
        let Some(entry) = self.sources[source].at(index, refused.first)? else {
            self.hold(index, reason_of(failure), now);
            return Ok(());
        };
        let policy = self.policy(source, &entry);
        let (most, millis) = (policy.attempts(), self.millis(now));
        let health = &mut self.health[index];
        health.attempt(source, refused.first, failure.clone(), most, millis);
        health.hold(reason_of(failure), &policy, now, super::tend::random());
        let attempted = self.health[index].attempted.as_ref();
        if attempted.is_some_and(Attempted::is_tried_enough) && self.is_other(source, index)? {
            // The proof follows at once: until then the refusal of all might end.
            self.health[index].hold_for(reason_of(failure), Duration::ZERO, now);
        }
        Ok(())
    }

    /// The retry policy of a record.
    fn policy(&self, source: usize, entry: &Entry) -> RetryPolicy {
        let lane = self.sources[source].stream.lane();
        overrides::of_record(self.options, self.store, lane, entry)
    }

    /// Carries out what a record that was refused alone, for itself, has coming.
    fn verdict(
        &mut self,
        source: usize,
        index: usize,
        entry: &Entry,
        failure: &Failure,
        now: Instant,
    ) -> Result<(), Error> {
        let ordinal = self.ordinal(index);
        if failure.class == ErrorClass::BadTime && self.restamp(ordinal, entry, now) {
            return Ok(());
        }
        self.count_earlier(source, index, entry)?;
        let attempts = self.health[index].judged(source, entry.seq);
        if self.verdicts_in_a_row(index) >= STORM {
            self.hold_topic(index, &HoldReason::EverythingRefused(failure.clone()), now);
            return Ok(());
        }
        let policy = self.policy(source, entry);
        match (policy.on_poison, policy.on_exhausted) {
            (OnPoison::Halt, _) => {
                self.hold(index, HoldReason::Halted(failure.clone()), now);
                Ok(())
            }
            (OnPoison::DeadLetter, OnExhausted::Callback(decide)) => {
                self.recover(source, index, entry, failure, attempts, &*decide, now)
            }
            (OnPoison::DeadLetter, _) => {
                self.dead_letter(source, index, entry, failure, attempts, now)
            }
        }
    }

    /// A record was refused often enough while another one of its partition was taken.
    pub(super) fn exhausted(&mut self, index: usize, now: Instant) -> Result<(), Error> {
        let Some(attempted) = self.health[index].attempted.take() else {
            return Ok(());
        };
        let (source, attempts, failure) = (attempted.source, attempted.count, attempted.failure);
        let oldest = self.sources[source].left_behind(index, 0)?;
        let Some(entry) = oldest.filter(|entry| entry.seq == attempted.seq) else {
            return Ok(());
        };
        match self.policy(source, &entry).on_exhausted {
            OnExhausted::DeadLetter => {
                self.dead_letter(source, index, &entry, &failure, attempts, now)
            }
            OnExhausted::Halt => {
                self.hold(index, HoldReason::Halted(failure), now);
                Ok(())
            }
            OnExhausted::Drop => {
                self.settle_unsent(source, &entry, Class::Dropped);
                self.counters.dropped += 1;
                Ok(())
            }
            OnExhausted::Callback(decide) => {
                self.recover(source, index, &entry, &failure, attempts, &*decide, now)
            }
        }
    }

    /// Asks the callback, and carries out its answer.
    #[expect(
        clippy::too_many_arguments,
        reason = "the record and what is known of it"
    )]
    fn recover(
        &mut self,
        source: usize,
        index: usize,
        entry: &Entry,
        failure: &Failure,
        attempts: u32,
        decide: &Decide,
        now: Instant,
    ) -> Result<(), Error> {
        let Ok(message) = &entry.message else {
            return Ok(());
        };
        let lane = self.sources[source].stream.lane();
        let failed = overrides::failed(self.store, lane, entry, message, attempts, failure);
        match decide(&failed) {
            Recovery::DeadLetter => {
                return self.dead_letter(source, index, entry, failure, attempts, now);
            }
            Recovery::Drop => {
                self.settle_unsent(source, entry, Class::Dropped);
                self.counters.dropped += 1;
                if self.health[index].held().is_some() {
                    self.health[index].release();
                }
            }
            Recovery::Retry(after) => {
                self.health[index].hold_for(HoldReason::Recovering, after, now);
            }
            Recovery::Replace(replacement) => {
                self.replaced.insert((source, entry.seq), replacement);
                self.health[index].hold_for(HoldReason::Recovering, Duration::ZERO, now);
            }
        }
        Ok(())
    }

    /// Makes the record durable among the dead letters and settles it; or holds its partition.
    pub(super) fn dead_letter(
        &mut self,
        source: usize,
        index: usize,
        entry: &Entry,
        failure: &Failure,
        attempts: u32,
        now: Instant,
    ) -> Result<(), Error> {
        let lane = self.sources[source].stream.lane();
        let named = self.topics.named(index);
        let partition = named.and_then(|(.., partition)| partition);
        match bury(self.store, lane, entry, partition, failure, attempts) {
            Ok(()) => {
                self.settle_unsent(source, entry, Class::DeadLettered);
                self.counters.dead_lettered += 1;
                self.letter_added(now);
                if self.health[index].held().is_some() {
                    self.health[index].release();
                }
            }
            Err(error) => self.hold(index, HoldReason::NoDeadLetters(error.to_string()), now),
        }
        Ok(())
    }

    /// A record that is no message of a version that is known.
    pub(super) fn undecodable(
        &mut self,
        source: usize,
        entry: &Entry,
        now: Instant,
    ) -> Result<Placed, Error> {
        let index = self.undecodable_index();
        if self.sources[source].behind(index).is_some() || !self.may_try(index, source, now) {
            self.note(source, index, entry);
            self.sources[source].leave(index, entry.seq);
            return Ok(Placed::Done);
        }
        self.note(source, index, entry);
        self.sources[source].leave(index, entry.seq);
        self.bury_undecodable(source, index, entry, now)?;
        if self.health[index].is_flowing() {
            self.sources[source].caught_up(index);
        }
        Ok(Placed::Done)
    }

    /// Puts a record that is no message among the dead letters, or holds what is behind it.
    pub(super) fn bury_undecodable(
        &mut self,
        source: usize,
        index: usize,
        entry: &Entry,
        now: Instant,
    ) -> Result<(), Error> {
        let Err(undecodable) = &entry.message else {
            return Ok(());
        };
        let failure = Failure {
            class: ErrorClass::Poison,
            code: 0,
            name: undecodable.reason.to_string(),
            persistence: crate::kafka::Persistence::No,
        };
        self.dead_letter(source, index, entry, &failure, 0, now)
    }

    fn may_try(&self, index: usize, source: usize, now: Instant) -> bool {
        self.health[index].allowance(source, now) > 0
    }

    /// Whether a refused timestamp is replaced and the record tried once more.
    fn restamp(&mut self, ordinal: usize, entry: &Entry, now: Instant) -> bool {
        let Ok(message) = &entry.message else {
            return false;
        };
        if self.options.on_bad_timestamp != OnBadTimestamp::Restamp
            || self.restamped(ordinal, message, now).is_some()
        {
            return false;
        }
        self.memory[ordinal].refused(message.timestamp_millis, now);
        true
    }

    /// The timestamp that a record is sent with in place of its own.
    pub(super) fn restamped(&self, ordinal: usize, message: &Message, now: Instant) -> Option<i64> {
        let memory = self.memory.get(ordinal)?;
        memory.stamp(message.timestamp_millis, now, self.time.reading.wall_millis)
    }

    /// Holds a partition and says when it is tried again.
    pub(super) fn hold(&mut self, index: usize, why: HoldReason, now: Instant) {
        let topic = self.topics.named(index).map_or("", |(topic, ..)| &**topic);
        let lane = match self.any_behind(index) {
            Some(source) => self.sources[source].stream.lane(),
            None => self.store.route(topic),
        };
        let policy = overrides::of_topic(self.options, self.store, lane, topic);
        self.health[index].hold(why, &policy, now, super::tend::random());
    }

    /// A storm does not end with a process: at the first verdict on a topic those of earlier runs are
    /// counted, too.
    fn count_earlier(&mut self, source: usize, index: usize, entry: &Entry) -> Result<(), Error> {
        let ordinal = self.ordinal(index);
        if std::mem::replace(&mut self.memory[ordinal].is_counted, true) {
            return Ok(());
        }
        // What was taken since ends the row.
        self.tell_all();
        if let Ok(message) = &entry.message {
            let letters = self.store.dead_letters_if_any()?;
            let stream = self.sources[source].stream;
            let (topic, seq) = (&message.topic, entry.seq);
            let earlier = storm::earlier(self.store, stream, letters, topic, seq);
            self.health[index].verdicts += earlier;
        }
        Ok(())
    }

    /// Verdicts on a topic since anything was acknowledged, partition by partition.
    fn verdicts_in_a_row(&self, index: usize) -> u32 {
        let Some((_, topic, _)) = self.topics.named(index) else {
            return 0;
        };
        let of = |partition| self.health[topic.index(partition)].verdicts;
        let partitions: u32 = (0..topic.count).map(of).sum();
        partitions + self.health[topic.nowhere()].verdicts
    }

    /// Holds all partitions of the topic that an index is of.
    fn hold_topic(&mut self, index: usize, why: &HoldReason, now: Instant) {
        let Some((_, topic, _)) = self.topics.named(index) else {
            return;
        };
        for partition in 0..topic.count {
            self.hold(topic.index(partition), why.clone(), now);
        }
    }
}

/// Makes a record durable among the dead letters. `partition` is the one it was sent to.
///
/// # Errors
///
/// There is no place for it.
pub(super) fn bury(
    store: &Store,
    lane: &Lane,
    entry: &Entry,
    partition: Option<u32>,
    failure: &Failure,
    attempts: u32,
) -> Result<(), store::Error> {
    let now = lane.now().reading.wall_millis;
    let cause = Cause {
        class: failure.class.name(),
        code: failure.code,
        stage: match &entry.message {
            Ok(_) => Stage::Produce,
            Err(_) => Stage::Decode,
        },
        // Its code stands beside it.
        reason: &failure.name,
        attempts,
        first_attempt_millis: now,
        last_attempt_millis: now,
    };
    let add = |content: Content<'_>| {
        store.dead_letters()?.add(&Letter {
            origin: Origin {
                log_id: lane.log_id(),
                seq: entry.origin,
            },
            lane: lane.name(),
            cause,
            content,
        })
    };
    let partition = partition.and_then(|number| i32::try_from(number).ok());
    let added = match &entry.message {
        Ok(message) => message.with_ref(|message| {
            add(Content::Message(MessageRef {
                partition: message.partition.or(partition),
                ..*message
            }))
        }),
        Err(undecodable) => add(Content::Raw(&undecodable.raw)),
    };
    added.map(drop)
}
