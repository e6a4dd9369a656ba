//! What becomes of dead letters by their reports, and of their log.
//!
//! Owns what is written down about a letter. Must not know in which order letters go. Invariants: what
//! a report says is durable before it is acted on; a letter that is refused once more lies where it
//! was; where the log fails, nothing but the letters is held up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::{End, Errand, Flying, Line};
use crate::kafka::{ErrorClass, Failure};
use crate::ship::health::{HoldReason, Phase, reason_of};
use crate::ship::progress::Held;
use crate::ship::shipper::Shipper;
use crate::ship::tend::random;
use crate::ship::{Sink, overrides};
use crate::store::{self, DeadLetters};
use crate::wal::SeqNo;

/// How often letters are looked at that were kept for too long.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked at how full the log is.
const FILL_INTERVAL: Duration = Duration::from_secs(1);

/// The name under which the log of the dead letters is told of, where it fails.
const LOG_NAME: &str = "(dead letters)";

/// Kafka's codes for a record and a batch that are too large.
const TOO_LARGE: [i32; 2] = [10, 18];

impl<S: Sink> Shipper<'_, S> {
    /// Looks whether there are dead letters by now.
    pub(in crate::ship) fn meet_letters(&mut self, now: Instant) {
        if self.letters.log.is_some() {
            return;
        }
        match self.store.dead_letters_if_any() {
            Ok(None) => {}
            Ok(log) => (self.letters.log, self.letters.trouble) = (log, None),
            Err(error) => self.letters.failed(&error, now),
        }
    }

    /// A record was buried: its copy may go at once.
    pub(in crate::ship) fn letter_added(&mut self, now: Instant) {
        self.meet_letters(now);
        self.letters.is_stuck = false;
        self.letters.next_look = now;
    }

    /// Whether letters wait to be sent, or to be written down as sent.
    pub(in crate::ship) fn letters_wait(&self) -> bool {
        let copies = self.options.dead_letters.topic.is_some();
        let cluster = &self.options.cluster;
        let waits =
            |log: &DeadLetters| log.has_pending(cluster) || (copies && log.has_uncopied(cluster));
        !self.letters.ended.is_empty() || self.letters.log.is_some_and(waits)
    }

    /// The topic of a letter that waits, whose cluster is to be asked for it.
    pub(in crate::ship) fn letter_topic(&self) -> Option<Arc<str>> {
        let log = self.letters.log?;
        let cluster = &self.options.cluster;
        let pending = log.next_pending(cluster, None).ok().flatten();
        if let Some(topic) = pending.as_ref().and_then(|letter| letter.body.topic()) {
            return Some(topic.into());
        }
        let topic = self.options.dead_letters.topic.as_ref()?;
        let uncopied = log.next_uncopied(cluster, None).ok().flatten()?;
        Some(topic.of(uncopied.body.topic()).ok()?.into())
    }

    /// Gives up what was kept for too long, and sees how much room there is.
    pub(super) fn keep_letters(&mut self, log: &DeadLetters, now: Instant) {
        let is_due = |last: Option<Instant>, interval| {
            last.is_none_or(|last| now.saturating_duration_since(last) >= interval)
        };
        if self.time.is_trusted && is_due(self.letters.expired, EXPIRY_INTERVAL) {
            self.letters.expired = Some(now);
            if let Err(error) = log.expire(self.time.reading.wall_millis) {
                self.letters.failed(&error, now);
            }
        }
        if is_due(self.letters.fill.map(|(_, at)| at), FILL_INTERVAL) {
            self.letters.fill = Some((log.fill_percent(), now));
        }
    }

    /// A letter was acknowledged.
    pub(in crate::ship) fn letter_delivered(&mut self, place: u64, now: Instant) {
        let Some(flying) = self.land(place, now) else {
            return;
        };
        let Flying { index, seq, .. } = flying;
        self.budget.acknowledge(index, flying.cost);
        self.letters.lines.remove(&index);
        self.letters.losses = 0;
        let is_held = matches!(self.health[index].phase, Phase::Held { .. });
        if is_held && self.any_behind(index).is_none() && self.health[index].outstanding == 0 {
            self.health[index].release();
        }
        let end = match flying.errand {
            Errand::Replay => {
                self.counters.replayed += 1;
                End::Replayed
            }
            Errand::Copy => {
                self.counters.copied += 1;
                self.letters.pointers.remove(&seq);
                End::Copied
            }
        };
        self.letters.ended.push((seq, end));
    }

    /// A letter came back.
    pub(in crate::ship) fn letter_came_back(&mut self, place: u64, failure: Failure, now: Instant) {
        if let Some(flying) = self.land(place, now) {
            self.budget.give_back(flying.index, flying.cost);
            self.letter_refused(&flying, failure, now);
        }
    }

    pub(super) fn land(&mut self, place: u64, now: Instant) -> Option<Flying> {
        let flying = &mut self.letters.flying;
        let found = flying.iter().position(|flying| flying.place == place)?;
        self.letters.next_look = now;
        // A partition may be held in front of this letter.
        self.needs_care = true;
        Some(flying.swap_remove(found))
    }

    pub(super) fn letter_refused(&mut self, flying: &Flying, failure: Failure, now: Instant) {
        let Flying {
            errand, seq, index, ..
        } = *flying;
        let is_too_large = TOO_LARGE.contains(&failure.code);
        match failure.class {
            ErrorClass::Poison
                if errand == Errand::Copy && is_too_large && self.letters.pointers.insert(seq) => {}
            ErrorClass::Poison | ErrorClass::BadTime => {
                self.give_letter_up(errand, seq, failure.code, &failure.to_string());
                return;
            }
            class => {
                if class == ErrorClass::Blocked {
                    self.blocked(failure.code, &failure.name, now);
                }
                self.hold_line(index, reason_of(&failure), now);
            }
        }
        self.letters.walk_back(errand, seq);
    }

    pub(super) fn hold_line(&mut self, index: usize, why: HoldReason, now: Instant) {
        let known = self.letters.lines.remove(&index);
        let (since, failures) = known.map_or((now, 1), |known| {
            (known.since, known.failures.saturating_add(1))
        });
        let policy = overrides::of_letters(self.options, self.store, &self.topics, index);
        let next_try = now + policy.wait(failures, random());
        let line = Line {
            why,
            since,
            failures,
            next_try,
        };
        self.letters.lines.insert(index, line);
    }

    /// A letter is not to be sent as it is: it lies where it was, and a person decides.
    pub(super) fn give_letter_up(&mut self, errand: Errand, seq: SeqNo, code: i32, why: &str) {
        let (end, what) = match errand {
            Errand::Replay => {
                self.counters.replays_refused += 1;
                (End::Kept, "once more")
            }
            Errand::Copy => {
                self.counters.copies_refused += 1;
                self.letters.pointers.remove(&seq);
                (End::CopyRefused(code), "as a copy")
            }
        };
        self.letters.ended.push((seq, end));
        self.letters.refused = Some(format!("dead letter {seq} was refused {what}: {why}"));
    }

    /// Writes down what became of letters: one sync for each kind of outcome.
    pub(in crate::ship) fn mark_letters(&mut self, now: Instant) {
        let Some(log) = self.letters.log else { return };
        if self.letters.ended.is_empty() {
            return;
        }
        let ended = &self.letters.ended;
        let of = |wanted: End| -> Vec<SeqNo> {
            let found = ended.iter().filter(|(_, end)| *end == wanted);
            found.map(|(seq, _)| *seq).collect()
        };
        let mark = || -> Result<(), store::Error> {
            log.mark_replayed(&of(End::Replayed))?;
            log.mark_kept(&of(End::Kept))?;
            log.mark_copied(&of(End::Copied))?;
            for &(seq, end) in ended {
                if let End::CopyRefused(code) = end {
                    log.mark_copy_refused(seq, code)?;
                }
            }
            Ok(())
        };
        match mark() {
            Ok(()) => {
                self.letters.ended.clear();
                self.letters.trouble = None;
            }
            Err(error) => self.letters.failed(&error, now),
        }
    }

    /// What holds letters back, where a lane's records are not held for it, too.
    pub(in crate::ship) fn held_letters(&self, now: Instant) -> Vec<Held> {
        let lines = self.letters.lines.iter();
        let lines = lines.filter(|(index, _)| self.health[**index].is_flowing());
        let mut held: Vec<Held> = lines
            .filter_map(|(&index, line)| {
                let (topic, _, partition) = self.topics.named(index)?;
                Some(Held {
                    topic: Arc::clone(topic),
                    partition,
                    why: line.why.clone(),
                    lasted: now.saturating_duration_since(line.since),
                })
            })
            .collect();
        held.extend(self.letters.trouble.iter().map(|(why, since)| Held {
            topic: LOG_NAME.into(),
            partition: None,
            why: HoldReason::NoDeadLetters(why.clone()),
            lasted: now.saturating_duration_since(*since),
        }));
        held
    }
}
