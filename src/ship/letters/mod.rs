//! Dead letters on their way to Kafka: sent again to where they belong, or copied to the dead-letter
//! topic.
//!
//! Owns the order of the steps from the log to the sink; what is under way stands in `state`, what
//! becomes of it in `report`. Must not know how a letter looks in Kafka (that is [`dead_letter`]) nor why it died.
//!
//! Invariants: letters go carefully, and of a topic-partition one at a time, so that a refusal says
//! something about one letter and about nothing else; in one walk the letters of a partition go in
//! their order; a letter never overtakes or judges the records of a lane, and never becomes another
//! dead letter; what a report says is durable before it is acted on.

mod breaker;
mod report;
mod state;

use std::time::Instant;

pub(super) use state::Letters;
use state::{Errand, Flying, Ready, Sent, WALK_PAUSE, is_silent};

use super::budget::{self, Room};
use super::dead_letter;
use super::health::HoldReason;
use super::place::{partition_of, token_of};
use super::shipper::Shipper;
use super::tend::Answer;
use super::{Error, Sink};
use crate::kafka::{Outgoing, SendError};
use crate::store::{DeadLetters, StoredLetter};

/// The source number in the tokens of letters: no log has it.
pub(super) const LETTERS: usize = 0xffff;

/// Most letters in flight.
const FLYING_MAX: usize = 64;

/// Most letters that are looked at in one turn.
const PER_TURN: u32 = 64;

/// Kafka's codes for a topic nobody can have, and for a partition that is not there.
const NO_TOPIC: i32 = 17;
const NO_PARTITION: i32 = 3;

impl<S: Sink> Shipper<'_, S> {
    /// Hands letters over, as far as there are any and there is room for them.
    pub(super) fn send_letters(&mut self, now: Instant) -> Result<(), Error> {
        if now < self.letters.next_look {
            return Ok(());
        }
        self.letters.next_look = now + WALK_PAUSE;
        self.meet_letters(now);
        let Some(log) = self.letters.log else {
            return Ok(());
        };
        self.mark_letters(now);
        if self.letters.trouble.is_some() && !self.letters.ended.is_empty() {
            return Ok(());
        }
        self.keep_letters(log, now);
        if self.options.dead_letters.topic.is_some() {
            self.walk(log, Errand::Copy, now)?;
        } else {
            self.letters.walk(Errand::Copy).is_over = true;
        }
        self.walk(log, Errand::Replay, now)?;
        if self.letters.walks.iter().all(|walk| walk.is_over) {
            self.letters.begin_anew(now);
        }
        Ok(())
    }

    fn walk(&mut self, log: &DeadLetters, errand: Errand, now: Instant) -> Result<(), Error> {
        for _ in 0..PER_TURN {
            let walk = self.letters.walk(errand);
            if walk.is_over {
                return Ok(());
            }
            let Some(ready) = walk.next.take() else {
                let after = walk.after;
                let found = match errand {
                    Errand::Replay => log.next_pending(&self.options.cluster, after),
                    Errand::Copy => log.next_uncopied(&self.options.cluster, after),
                };
                match found {
                    Ok(Some(letter)) => self.make_ready(log, errand, &letter),
                    Ok(None) => walk.is_over = true,
                    Err(error) => {
                        self.letters.failed(&error, now);
                        return Ok(());
                    }
                }
                continue;
            };
            let most = if self.letters.is_suspicious {
                1
            } else {
                FLYING_MAX
            };
            let is_full = self.letters.flying.len() >= most
                || (errand == Errand::Replay && self.letters.awaits_copy(ready.seq));
            if is_full || self.send_letter(errand, &ready, now)? == Sent::Waits {
                self.letters.walk(errand).next = Some(ready);
                return Ok(());
            }
        }
        // There is more to look at.
        self.letters.next_look = now;
        Ok(())
    }

    /// Makes the message of the letter that a walk has come to, unless it can have none.
    fn make_ready(&mut self, log: &DeadLetters, errand: Errand, letter: &StoredLetter) {
        let seq = letter.seq;
        self.letters.walk(errand).after = Some(seq);
        if self.letters.is_under_way(errand, seq) {
            return;
        }
        let options = &self.options.dead_letters;
        let message = match (errand, &options.topic) {
            (Errand::Copy, None) => return,
            (Errand::Replay, _) => {
                dead_letter::replay(letter, log.log_id(), self.options.id_header)
                    .ok_or(("its bytes are no message; edit it".to_owned(), 0))
            }
            (Errand::Copy, Some(topic)) => {
                let is_pointer = self.letters.pointers.contains(&seq);
                let len_max = if is_pointer { 0 } else { options.len_max };
                let copy = dead_letter::copy(letter, log.log_id(), topic, options.style, len_max);
                copy.map_err(|invalid| (invalid.to_string(), NO_TOPIC))
            }
        };
        match message {
            Ok(message) => {
                let topic = message.topic.as_str().into();
                let ready = Ready {
                    seq,
                    message,
                    topic,
                };
                self.letters.walk(errand).next = Some(ready);
            }
            Err((why, code)) => self.give_letter_up(errand, seq, code, &why),
        }
    }

    /// Hands a letter over, or passes it by.
    fn send_letter(&mut self, errand: Errand, ready: &Ready, now: Instant) -> Result<Sent, Error> {
        let Some(index) = self.index_of_letter(ready, now)? else {
            return Ok(Sent::Waits);
        };
        if self.letters.passed.contains(&index) {
            self.letters.passed_count += 1;
            return Ok(Sent::Done);
        }
        let Some((_, topic, partition)) = self.topics.named(index) else {
            return Ok(Sent::Done);
        };
        let Some(partition) = partition else {
            if topic.count == 0 {
                // The topic itself is held, and asked for again.
                self.pass_by(index, now);
            } else {
                let why = format!("topic `{}` has no such partition", ready.topic);
                self.give_letter_up(errand, ready.seq, NO_PARTITION, &why);
            }
            return Ok(Sent::Done);
        };
        let before = self.letters.flying.iter().find(|f| f.index == index);
        if before.is_some_and(|before| !is_silent(before, now)) {
            return Ok(Sent::Waits);
        }
        if before.is_some() || !self.takes_letters(index, now) {
            self.pass_by(index, now);
            return Ok(Sent::Done);
        }
        if self.letters.is_suspicious && self.is_anything_tried() {
            return Ok(Sent::Waits);
        }
        if !self.rate.has_room(now) {
            if !self.is_busy() {
                self.nothing_asked(now);
            }
            self.letters.next_look = now;
            return Ok(Sent::Waits);
        }
        if self.letters.slow == Some(ready.seq) {
            self.sink.be_patient(self.options.too_slow_after);
        }
        Ok(self.hand_letter_over(errand, ready, index, partition, now))
    }

    fn hand_letter_over(
        &mut self,
        errand: Errand,
        ready: &Ready,
        index: usize,
        partition: u32,
        now: Instant,
    ) -> Sent {
        let message = &ready.message;
        let (headers, len) = (message.header_refs(), message.content_len());
        let flying = Flying {
            place: self.letters.next_place,
            errand,
            seq: ready.seq,
            index,
            cost: budget::cost(len, &headers),
            len: u64::try_from(len).unwrap_or(u64::MAX),
            at: now,
        };
        // It goes before the lanes, which take what room there is.
        self.letters.next_look = now;
        match self.budget.room(index, flying.cost) {
            Room::Yes => {}
            Room::NotHere => {
                self.pass_by(index, now);
                return Sent::Done;
            }
            Room::No => return Sent::Waits,
        }
        if !self.may_try_letter(index, flying.cost, now) {
            self.pass_by(index, now);
            return Sent::Done;
        }
        let sent = self.sink.send(&Outgoing {
            topic: &message.topic,
            partition: i32::try_from(partition).unwrap_or(i32::MAX),
            key: message.key.as_deref(),
            value: message.value.as_deref(),
            headers: &headers,
            // Zero is the time of sending.
            timestamp_millis: message.timestamp_millis.unwrap_or(0),
            token: token_of(LETTERS, flying.place),
            is_careful: true,
        });
        match sent {
            Ok(()) => {
                if self.letters.flying.is_empty() {
                    self.letters.losses = 0;
                }
                self.letters.next_place += 1;
                self.letters.flying.push(flying);
                self.budget.take(index, flying.cost, now);
                self.rate.take(flying.len);
                Sent::Done
            }
            Err(SendError::QueueFull) => Sent::Waits,
            Err(SendError::Failed(failure)) => {
                self.letter_refused(&flying, failure, now);
                Sent::Done
            }
        }
    }

    /// The partition index of a letter; `None` if the cluster is silent about its topic.
    fn index_of_letter(&mut self, ready: &Ready, now: Instant) -> Result<Option<usize>, Error> {
        if self.topics.get(&ready.topic).is_none()
            && self.ask(&ready.topic, now)? == Answer::Silence
        {
            return Ok(None);
        }
        let message = &ready.message;
        let topic = self.topics.get(&ready.topic);
        Ok(topic
            .map(|topic| partition_of(topic, message.partition, ready.seq, message.key.as_deref())))
    }

    /// Whether a partition takes a letter now. Where it is held in front of records of a lane, those
    /// find out when it takes something again; where it is held in front of nothing, a letter does.
    fn takes_letters(&self, index: usize, now: Instant) -> bool {
        let health = &self.health[index];
        let may_try = self.any_behind(index).is_none() && health.outstanding == 0;
        let line = self.letters.lines.get(&index);
        (health.is_flowing() || may_try) && line.is_none_or(|line| now >= line.next_try)
    }

    /// The letters of a partition are passed by in this walk.
    fn pass_by(&mut self, index: usize, now: Instant) {
        let is_definite = |why: &HoldReason, failures: u32| why.is_definite() && failures >= 2;
        let health = &self.health[index];
        let by_health = health
            .held()
            .is_some_and(|(why, _)| is_definite(why, health.failures));
        let line = self.letters.lines.get(&index);
        let by_line =
            line.is_some_and(|line| now < line.next_try && is_definite(&line.why, line.failures));
        self.letters.passed.insert(index);
        self.letters.passed_count += 1;
        self.letters.is_definite &= by_health || by_line;
    }
}
