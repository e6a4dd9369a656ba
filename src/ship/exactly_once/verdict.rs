//! What becomes of a record that was refused although it was alone in its transaction, or is no message.
//!
//! Owns the way to the dead letters. Invariants: a verdict falls only on a record that stood alone; a record
//! is settled only once its dead letter is durable, and one that has a letter is not sent; after many
//! verdicts in a row nothing more goes there.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Error;
use super::committer::Committer;
use super::source::stuck;
use super::transact::Carried;
use crate::kafka::{ErrorClass, Failure, Persistence};
use crate::message::MessageRef;
use crate::ship::OnPoison;
use crate::ship::health::{HoldReason, STORM};
use crate::store::{self, Cause, Content, Entry, Letter, Origin, Stage, Undecodable};
use crate::wal::Class;

impl Committer<'_> {
    /// A record was refused although it was alone: it goes to the dead letters, or its partition is
    /// held and parked.
    pub(super) fn refused_alone(
        &mut self,
        carried: Carried,
        failure: Failure,
    ) -> Result<(), Error> {
        let index = usize::try_from(carried.partition).unwrap_or(usize::MAX);
        let Some((topic, known, partition)) = self.topics.named(index) else {
            return Ok(());
        };
        let (topic, ordinal) = (Arc::clone(topic), known.ordinal);
        let why = if failure.class == ErrorClass::Held {
            HoldReason::Refused(failure)
        } else if self.options.ship.retry.on_poison == OnPoison::Halt {
            HoldReason::Halted(failure)
        } else {
            let verdicts = self.verdicts.entry(ordinal).or_default();
            *verdicts += 1;
            if *verdicts >= STORM {
                HoldReason::EverythingRefused(failure)
            } else {
                match self.bury(carried, partition, &failure)? {
                    Ok(()) => return Ok(()),
                    Err(why) => HoldReason::NoDeadLetters(why),
                }
            }
        };
        if self.current > 0 {
            self.hold(self.current, why);
            return Ok(());
        }
        match self.parking_source(&topic, partition)? {
            Some(log) => self.hold(log, why),
            None => return Err(stuck(&topic, partition, why)),
        }
        Ok(())
    }

    /// Something of these partitions was committed: what is refused there is refused for itself.
    pub(super) fn taken(&mut self, carried: &[Carried]) {
        if self.verdicts.is_empty() {
            return;
        }
        for carried in carried {
            let index = usize::try_from(carried.partition).unwrap_or(usize::MAX);
            if let Some((_, topic, _)) = self.topics.named(index) {
                self.verdicts.remove(&topic.ordinal);
            }
        }
    }

    /// Makes the refused record a dead letter; the inner error: there is no place for it.
    fn bury(
        &mut self,
        carried: Carried,
        partition: Option<u32>,
        failure: &Failure,
    ) -> Result<Result<(), String>, Error> {
        let source = &mut self.sources[self.current];
        source.rewind();
        while let Some(entry) = source.read()? {
            if entry.seq < carried.seq {
                continue;
            }
            let buried = self.letter(&entry, partition, failure);
            return Ok(match buried {
                Ok(()) => Ok(self.dead_lettered(&entry)?),
                Err(error) => Err(error.to_string()),
            });
        }
        Ok(Ok(()))
    }

    /// A record that is no message goes to the dead letters as it is.
    pub(super) fn undecodable(
        &mut self,
        entry: &Entry,
        undecodable: &Undecodable,
    ) -> Result<Result<(), String>, Error> {
        let failure = Failure {
            class: ErrorClass::Poison,
            persistence: Persistence::No,
            code: 0,
            name: undecodable.reason.to_string(),
        };
        Ok(match self.letter(entry, None, &failure) {
            Ok(()) => Ok(self.dead_lettered(entry)?),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Whether a record has a dead letter, of a run that died before it was settled.
    pub(super) fn has_letter(&self, entry: &Entry) -> Result<bool, Error> {
        let letters = self.store.dead_letters_if_any()?;
        Ok(letters.is_some_and(|letters| letters.holds(self.lane.log_id(), entry.origin)))
    }

    /// Settles a record whose letter is durable.
    pub(super) fn dead_lettered(&mut self, entry: &Entry) -> Result<(), Error> {
        let stream = self.sources[self.current].stream;
        stream.settle(entry.seq..entry.seq + 1, Class::DeadLettered);
        stream.save_cursor()?;
        self.counters.dead_lettered += 1;
        Ok(())
    }

    fn letter(
        &self,
        entry: &Entry,
        partition: Option<u32>,
        failure: &Failure,
    ) -> Result<(), store::Error> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.map_or(0, |s| i64::try_from(s.as_millis()).unwrap_or(i64::MAX));
        let cause = Cause {
            class: failure.class.name(),
            code: failure.code,
            stage: match &entry.message {
                Ok(_) => Stage::Produce,
                Err(_) => Stage::Decode,
            },
            reason: &failure.to_string(),
            attempts: u32::from(entry.message.is_ok()),
            first_attempt_millis: now,
            last_attempt_millis: now,
        };
        let add = |content: Content<'_>| {
            self.store.dead_letters()?.add(&Letter {
                origin: Origin {
                    log_id: self.lane.log_id(),
                    seq: entry.origin,
                },
                lane: self.lane.name(),
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
}
