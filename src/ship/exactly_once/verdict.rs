//! What becomes of a record that was refused although it was alone in its transaction, or is no message.
//!
//! Owns the way to the dead letters. Invariants: a verdict falls only on a record that stood alone; a record
//! is settled only once its dead letter is durable, and one that has a letter is not sent; after many
//! verdicts in a row nothing more goes there.

use std::sync::Arc;
use std::time::Instant;

use super::Error;
use super::committer::Committer;
use super::source::stuck;
use super::transact::Carried;
use crate::kafka::{ErrorClass, Failure, Persistence};
use crate::ship::health::{HoldReason, STORM, reason_of};
use crate::ship::{OnBadTimestamp, OnExhausted, OnPoison, judge, storm};
use crate::store::{Entry, ParkingLog, Undecodable};
use crate::wal::{Class, SeqNo};

impl Committer<'_> {
    /// A record was refused although it was alone: it goes to the dead letters, or its partition is
    /// held and parked.
    pub(super) fn refused_alone(
        &mut self,
        carried: Carried,
        failure: Failure,
    ) -> Result<(), Error> {
        let index = carried.index();
        let Some((topic, known, partition)) = self.topics.named(index) else {
            return Ok(());
        };
        let (topic, ordinal) = (Arc::clone(topic), known.ordinal);
        let Some(entry) = self.find(carried.seq)? else {
            return Ok(());
        };
        if failure.class == ErrorClass::BadTime && self.restamp(ordinal, &entry) {
            return Ok(());
        }
        let why = if matches!(failure.class, ErrorClass::Held | ErrorClass::Transient) {
            if failure.class == ErrorClass::Transient
                && let Some(attempted) = self.attempted(index, &entry, &failure)
            {
                return self.exhausted(&entry, attempted);
            }
            reason_of(&failure)
        } else if self.policy(&entry).on_poison == OnPoison::Halt {
            HoldReason::Halted(failure)
        } else {
            let attempts = self.sources[self.current].judged.again(entry.seq);
            let earlier = || {
                // Where their log cannot be opened, this one finds no place there either.
                let letters = self.store.dead_letters_if_any().ok().flatten();
                let stream = self.sources[self.current].stream;
                storm::earlier(self.store, stream, letters, &topic, entry.seq)
            };
            // One record makes no storm, however often it is tried.
            let is_new = attempts == 1;
            let verdicts = is_new.then(|| self.shared.verdict(&topic, earlier));
            if verdicts.is_some_and(|count| count >= STORM) {
                HoldReason::EverythingRefused(failure)
            } else if let OnExhausted::Callback(decide) = self.policy(&entry).on_exhausted
                && (self.current > 0 || ParkingLog::takes(entry.raw.len()))
            {
                // What it asks for takes a place where the record may wait.
                if self.current > 0 {
                    return self.recover(&entry, &failure, attempts, &*decide);
                }
                HoldReason::Recovering
            } else {
                match judge::bury(self.store, self.lane, &entry, partition, &failure, attempts) {
                    Ok(()) => return self.dead_lettered(&entry),
                    Err(error) => HoldReason::NoDeadLetters(error.to_string()),
                }
            }
        };
        self.hold_alone(carried, why)
    }

    /// A record goes to the dead letters by the operator's choice, without an attempt.
    pub(super) fn bury_slow(&mut self, carried: Carried, failure: &Failure) -> Result<(), Error> {
        let Some(entry) = self.find(carried.seq)? else {
            return Ok(());
        };
        let index = carried.index();
        let partition = self.topics.named(index).and_then(|(.., number)| number);
        match judge::bury(self.store, self.lane, &entry, partition, failure, 0) {
            Ok(()) => {
                self.sources[self.current].hold = None;
                self.dead_lettered(&entry)
            }
            Err(error) => self.hold_alone(carried, HoldReason::NoDeadLetters(error.to_string())),
        }
    }

    /// Holds the partition of a record in front of it, and parks what is of it.
    pub(super) fn hold_alone(&mut self, carried: Carried, why: HoldReason) -> Result<(), Error> {
        if self.current > 0 {
            self.hold(self.current, why);
            return Ok(());
        }
        let index = carried.index();
        let Some((topic, _, partition)) = self.topics.named(index) else {
            return Ok(());
        };
        let topic = Arc::clone(topic);
        match self.parking_source(&topic, partition)? {
            Some(log) => self.hold(log, why),
            None => return Err(stuck(&topic, partition, why)),
        }
        Ok(())
    }

    /// Something of these partitions was committed: what is refused there is refused for itself.
    pub(super) fn taken(&self, carried: &[Carried]) {
        let topic = |carried: &Carried| {
            let index = carried.index();
            self.topics.named(index).map(|(topic, ..)| topic)
        };
        self.shared.ends_the_row(carried.iter().filter_map(topic));
    }

    /// A record of the current log; none if it cannot be read any more.
    fn find(&mut self, seq: SeqNo) -> Result<Option<Entry>, Error> {
        let source = &mut self.sources[self.current];
        source.rewind();
        while let Some(entry) = source.read()? {
            if entry.seq >= seq {
                return Ok((entry.seq == seq).then_some(entry));
            }
        }
        Ok(None)
    }

    /// Whether a refused timestamp is replaced and the record tried once more.
    fn restamp(&mut self, topic: usize, entry: &Entry) -> bool {
        let Ok(message) = &entry.message else {
            return false;
        };
        let (time, now) = (message.timestamp_millis, Instant::now());
        let memory = self.memory.entry(topic).or_default();
        let is_new = memory.stamp(time, now, 0).is_none();
        let is_wanted = self.options.ship.on_bad_timestamp == OnBadTimestamp::Restamp;
        if is_wanted && is_new {
            memory.refused(time, now);
        }
        is_wanted && is_new
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
        let buried = judge::bury(self.store, self.lane, entry, None, &failure, 0);
        Ok(match buried {
            Ok(()) => Ok(self.dead_lettered(entry)?),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Whether a record has a dead letter, and is not settled: an earlier run died in between, or this one
    /// was not told that it is durable. `None`: their log cannot be opened, which only the records of
    /// earlier runs have to wait for.
    pub(super) fn has_letter(&mut self, entry: &Entry, is_earlier: bool) -> Option<bool> {
        let letters = match is_earlier {
            true => self.letters.opened(self.store)?,
            false => self.store.dead_letters_opened(),
        };
        Some(letters.is_some_and(|letters| letters.holds(self.lane.log_id(), entry.origin)))
    }

    /// Settles a record whose letter is durable.
    pub(super) fn dead_lettered(&mut self, entry: &Entry) -> Result<(), Error> {
        let stream = self.sources[self.current].stream;
        stream.settle(entry.seq..entry.seq + 1, Class::DeadLettered);
        stream.save_cursor()?;
        self.counters.dead_lettered += 1;
        Ok(())
    }
}
