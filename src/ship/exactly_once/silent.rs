//! A partition that takes nothing of a transaction while the cluster answers: nobody leads it, or its broker
//! cannot be reached from here.
//!
//! Owns how it is told from a slow link, and how long a trial of it may last. Must not know why it is so.
//! Invariants: nothing dies of silence; it is told only of a partition that took no record of the
//! transaction, and of a large record only by its leader's silence on a link with nothing else on it; trials
//! of all that is silent take a tenth of the lane's time. A transaction that holds a record of such a
//! partition cannot be committed, and one that nobody leads keeps the cluster from ending it, too: so it is
//! parked, and each trial is short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::committer::Committer;
use super::span::Place;
use super::transact::{Carried, Load, Transaction};
use crate::kafka::Leader;
use crate::ship::health::{HoldReason, SILENT, reason_of_leader};
use crate::ship::slow::LARGE;
use crate::ship::stranded::pause_after;
use crate::ship::tend::{LEADER_TIMEOUT, SILENCE_MAX};

/// Each trial of a log may last twice as long as the one before, so often: a new producer takes its time on
/// a slow link.
const DOUBLINGS_MAX: u32 = 2;

/// So many bytes more let a trial last once more as long: the slowest link that works at all.
const BYTES_PER_SILENCE: u64 = 4 * 1024;

/// The first record of each partition that took nothing of a transaction, if that is not for the link:
/// something else of it was taken, or it is a record alone that any link carries in that time.
pub(super) fn silent(open: &Transaction) -> Vec<Carried> {
    let mut first: BTreeMap<u32, Option<Carried>> = BTreeMap::new();
    for carried in &open.carried {
        let is_taken = carried.cost == 0;
        let known = first
            .entry(carried.partition)
            .or_insert_with(|| (!is_taken).then_some(*carried));
        if is_taken {
            *known = None;
        }
    }
    let is_any_taken = open.progress.is_some() || first.values().any(Option::is_none);
    let is_told = is_any_taken || open.carried.len() == 1;
    let silent = first.into_values().flatten();
    silent.filter(|_| is_told).collect()
}

/// What takes the link long: silence alone does not tell of it.
pub(super) fn is_large(carried: &Carried) -> bool {
    u64::from(carried.cost) >= LARGE
}

/// Large records that a transaction was late for. They are judged by the next producer, when nothing of them
/// is on the link any more.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) large: Vec<Carried>,
    /// It was one record, alone, and had the longest time there is.
    pub(super) is_hopeless: bool,
    /// The log they are of.
    pub(super) source: usize,
    pub(super) load: Load,
    pub(super) bytes: u64,
    pub(super) started: Instant,
    pub(super) ended: Instant,
}

impl Committer<'_> {
    /// When a transaction is given up.
    pub(super) fn deadline(&self, open: &Transaction) -> Instant {
        match self.is_silent_trial(open) {
            true => {
                let more = u32::try_from(open.bytes / BYTES_PER_SILENCE).unwrap_or(0);
                let doublings = self.sources[self.current].silences.min(DOUBLINGS_MAX);
                let time = SILENT * (1 + more) * (1 << doublings);
                open.deadline.min(open.started + time)
            }
            false => open.deadline,
        }
    }

    /// Whether a transaction is a trial of a partition that said nothing, or of what an earlier run parked.
    pub(super) fn is_silent_trial(&self, open: &Transaction) -> bool {
        open.load == Load::Span && open.bytes < LARGE && self.is_silence_tried()
    }

    /// Whether the current log said nothing when it was last tried, or an earlier run parked it.
    fn is_silence_tried(&self) -> bool {
        let source = &self.sources[self.current];
        match &source.hold {
            Some(hold) => matches!(hold.why, HoldReason::Silent | HoldReason::NoLeader),
            None => self.current > 0 && !source.has_taken,
        }
    }

    /// A trial of a large record would last long: it is not begun while nobody answers for its partition. True
    /// if that is so.
    pub(super) fn is_vain(&mut self, place: Place) -> bool {
        let pending = self.sources[self.current].pending.as_ref();
        let len = pending.map_or(0, |entry| {
            u64::try_from(entry.raw.len()).unwrap_or(u64::MAX)
        });
        if len < LARGE || !self.is_silence_tried() {
            return false;
        }
        let started = Instant::now();
        let doublings = self.sources[self.current].silences.min(DOUBLINGS_MAX);
        let asked = self.leader(place.index, SILENT * (1 << doublings));
        let Some(why) = asked.and_then(reason_of_leader) else {
            return false;
        };
        self.hold(self.current, why);
        self.tried_in_vain(started);
        true
    }

    /// Who leads a partition; `None`: nobody tells.
    fn leader(&mut self, index: usize, timeout: Duration) -> Option<Leader> {
        let (topic, _, partition) = self.topics.named(index)?;
        let producer = self.producer.producer();
        producer.leader(topic, partition?, timeout).ok()
    }

    /// Judges what the last producer was late for: it is too slow for the link, or its leader is silent.
    pub(super) fn judge_late(&mut self) -> Result<(), Error> {
        // If it took long to get here the link was lost, and nothing is known.
        let is_news = |late: &Late| late.ended.elapsed() < SILENCE_MAX;
        let Some(late) = self.late.take().filter(is_news) else {
            return Ok(());
        };
        self.current = late.source;
        for &carried in &late.large {
            if self.is_stopped() || !is_news(&late) {
                break;
            }
            let Some(leader) = self.leader(carried.index(), LEADER_TIMEOUT) else {
                break;
            };
            match reason_of_leader(leader) {
                Some(why) => {
                    self.pace.begin_anew();
                    self.hold_one(carried, why, late.load, late.started)?;
                }
                None if late.is_hopeless => self.too_slow(carried, late.bytes, late.load)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Whether a silent log has to wait for its turn.
    pub(super) fn waits_for_trial(&self, place: usize) -> bool {
        let source = &self.sources[place];
        let is_tried = source.hold.is_none() && !source.has_taken;
        (is_tried || source.is_silent()) && Instant::now() < self.next_silent_trial
    }

    /// A trial of a silent log was in vain: the others are next.
    pub(super) fn tried_in_vain(&mut self, started: Instant) {
        let pause = pause_after(started.elapsed());
        self.next_silent_trial = Instant::now() + pause;
        let count = self.sources.iter().filter(|s| s.is_silent()).count();
        let source = &mut self.sources[self.current];
        source.silences = source.silences.saturating_add(1);
        if source.is_silent() {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            source.hold_for(HoldReason::Silent, pause.saturating_mul(count));
        }
    }

    /// One of them took something: whatever kept them silent may be over for all.
    pub(super) fn try_silent_again(&mut self) {
        let now = Instant::now();
        self.next_silent_trial = now;
        for source in &mut self.sources {
            source.silences = 0;
            if let Some(hold) = source.hold.as_mut().filter(|h| h.why == HoldReason::Silent) {
                hold.next_try = now;
            }
        }
    }

    /// Holds and parks partitions that took nothing.
    pub(super) fn hold_silent(
        &mut self,
        silent: Vec<Carried>,
        open: &Transaction,
    ) -> Result<(), Error> {
        for carried in silent {
            let index = carried.index();
            let Some((topic, ..)) = self.topics.named(index) else {
                continue;
            };
            let topic = Arc::clone(topic);
            // If nobody answers, it is the link.
            if self.is_stopped() || self.ask(&topic).is_err() {
                break;
            }
            let why = match self.is_leaderless(index) {
                true => HoldReason::NoLeader,
                false => HoldReason::Silent,
            };
            self.hold_one(carried, why, open.load, open.started)?;
        }
        Ok(())
    }

    fn hold_one(
        &mut self,
        carried: Carried,
        why: HoldReason,
        load: Load,
        started: Instant,
    ) -> Result<(), Error> {
        match load {
            Load::Letters { .. } => {
                let (index, now) = (carried.index(), Instant::now());
                self.hold_line(index, why, now);
                let pause = pause_after(started.elapsed());
                self.letters.pause_line(index, now + pause);
                Ok(())
            }
            Load::Span | Load::Base => self.hold_alone(carried, why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::SeqNo;

    /// The numbers of the first records of silent partitions, where records of these partitions, which take
    /// so much of the budget, were taken or not.
    fn of(records: &[(u32, bool)], is_progress_taken: bool, cost: u64) -> Vec<u64> {
        let mut open = Transaction::new(SeqNo::ZERO, 0, Load::Span, Duration::ZERO);
        open.progress = is_progress_taken.then_some(None);
        for (seq, &(partition, is_taken)) in (0..).zip(records) {
            open.carried.push(Carried {
                seq: SeqNo::new(seq),
                cost: if is_taken {
                    0
                } else {
                    cost.try_into().unwrap()
                },
                partition,
            });
        }
        silent(&open)
            .iter()
            .map(|carried| carried.seq.get())
            .collect()
    }

    #[test]
    fn silent_is_what_took_nothing_while_something_else_was_taken() {
        let nobody: [u64; 0] = [];
        assert_eq!(
            of(&[(0, true), (1, false), (1, false), (2, false)], false, 9),
            [1, 3]
        );
        // It took some, so it takes them slowly.
        assert_eq!(of(&[(0, true), (1, false), (1, true)], true, 9), nobody);
        assert_eq!(of(&[(0, false), (0, true)], true, 9), nobody);
        // The link.
        assert_eq!(of(&[(0, false), (1, false)], false, 9), nobody);
        assert_eq!(of(&[(0, false), (1, false)], true, 9), [0, 1]);
        // One alone.
        for is_progress_taken in [false, true] {
            assert_eq!(of(&[(0, false)], is_progress_taken, 9), [0]);
            assert_eq!(of(&[(0, true), (1, false)], is_progress_taken, LARGE), [1]);
        }
        assert_eq!(of(&[], true, 0), nobody);
    }
}
