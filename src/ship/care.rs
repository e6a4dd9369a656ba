//! What is done for partitions that take nothing: trials, pieces of a search, parking, and the way
//! back.
//!
//! Owns when a partition is tried again and from which record on. Invariants: a trial is the
//! oldest record of its partition and source that waits; a partition's records go to its parking
//! log from the oldest waiting one on, and past it again only when that log is empty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget;
use super::health::{Health, HoldReason, Phase, SILENT};
use super::hold::tells_of_missing;
use super::place::Placed;
use super::retry::Attempted;
use super::settle::WINDOW_MAX;
use super::shipper::Shipper;
use super::source::Source;
use super::tend::Answer;
use super::topics::Topic;
use super::{Error, Sink};
use crate::store::{Entry, Stream};
use crate::wal::{Class, SeqNo};

/// How often held partitions are looked after, unless something changed.
const CARE_INTERVAL: Duration = Duration::from_millis(100);

/// How long the cluster may take to tell about the leaders of a topic.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long nothing is parked after it failed.
const PARKING_PAUSE: Duration = Duration::from_secs(5);

/// Bytes of a piece: far below librdkafka's limit for one batch (`batch.size`, 1 MB).
const PIECE_BYTES: u64 = 256 * 1024;

/// The name under which records are held that are no messages.
const UNDECODABLE: &str = "(undecodable)";

impl<'a, S: Sink> Shipper<'a, S> {
    pub(super) fn care(&mut self, now: Instant) -> Result<(), Error> {
        if !self.needs_care && now.saturating_duration_since(self.cared) < CARE_INTERVAL {
            return Ok(());
        }
        self.needs_care = false;
        self.cared = now;
        self.sources.iter_mut().for_each(Source::pass_dropped);
        // What was settled, in whatever way, is not on its way any more.
        let sources = &self.sources;
        self.replaced
            .retain(|(source, seq), _| sources[*source].flight.find(*seq).is_some());
        self.hold_silent(now);
        self.end_vain_trials(now);
        self.mark_stuck(now);
        self.begin_parking(now)?;
        self.end_parking();
        self.ask_again(now)?;
        self.serve(now)?;
        self.turn_back(now);
        Ok(())
    }

    /// Holds partitions that owe an answer while others get theirs.
    fn hold_silent(&mut self, now: Instant) {
        let silent = |health: &Health| health.is_flowing() && health.is_silent(now);
        let silent: Vec<usize> = (0..self.health.len())
            .filter(|&index| silent(&self.health[index]))
            .collect();
        let leaderless = self.leaderless(&silent, now);
        for index in silent {
            let health = &self.health[index];
            if leaderless.contains(&index) {
                self.hold(index, HoldReason::NoLeader, now);
            } else if health.is_passed_over(self.acknowledged) || self.is_stranded(index, now) {
                self.hold(index, HoldReason::Silent, now);
            }
        }
        self.take_back(now);
    }

    /// Has librdkafka give back what silent partitions owe, where that keeps them from being parked
    /// or others from the flight. It gives back all that it holds or nothing.
    fn take_back(&mut self, now: Instant) {
        let mut stuck = 0;
        let (mut is_spent, mut is_tried) = (false, false);
        for (index, health) in self.health.iter().enumerate() {
            let is_captured = || self.sources.iter().any(|s| s.captured(index).is_some());
            if health.stuck() == 0 || is_captured() {
                continue;
            }
            let is_parked_next = self.is_to_be_parked(index, now);
            // A trial is with another producer, and is one record.
            if health.is_tried() {
                is_tried |= is_parked_next;
            } else {
                stuck += self.budget.of(index);
                is_spent |= is_parked_next;
            }
        }
        if is_tried {
            self.sink.rebuild_careful();
        }
        if is_spent || stuck > self.budget.limit() / 2 {
            self.spent
                .get_or_insert_with(|| "a partition takes nothing".to_owned());
        }
    }

    /// Whether the records of a partition are to be parked.
    fn is_to_be_parked(&self, index: usize, now: Instant) -> bool {
        self.may_park(now) && self.health[index].is_held_for(self.options.park_after, now)
    }

    /// Those of silent partitions that the cluster has no leader for. It is asked a topic at a time,
    /// and not again for a while.
    fn leaderless(&mut self, silent: &[usize], now: Instant) -> Vec<usize> {
        let is_early = |at: Instant| now.saturating_duration_since(at) < SILENT;
        if silent.is_empty() || self.asked_leaders.is_some_and(is_early) {
            return Vec::new();
        }
        self.asked_leaders = Some(now);
        let mut found = Vec::new();
        let mut asked: Vec<usize> = Vec::new();
        for &index in silent {
            let Some((name, topic, _)) = self.topics.named(index) else {
                continue;
            };
            if asked.contains(&topic.ordinal) {
                continue;
            }
            asked.push(topic.ordinal);
            let without = self.sink.leaderless(name, LEADERS_TIMEOUT);
            let valid = without.into_iter().filter(|&number| number < topic.count);
            found.extend(valid.map(|number| topic.index(number)));
        }
        found
    }

    /// Gives partitions that are held for long a parking log.
    fn begin_parking(&mut self, now: Instant) -> Result<(), Error> {
        if !self.may_park(now) {
            return Ok(());
        }
        for source in 0..self.sources.len() {
            if self.sources[source].stream.parked().is_some() {
                continue;
            }
            let is_full = self.sources[source].flight.len() > WINDOW_MAX / 2;
            let behind: Vec<usize> = self.sources[source].all_behind().map(|(i, _)| i).collect();
            for index in behind {
                let is_wanted = is_full || self.is_to_be_parked(index, now);
                let health = &self.health[index];
                let is_ready = !health.is_flowing() && health.outstanding == 0;
                if is_ready && is_wanted && self.captured(source, index).is_none() {
                    self.begin_parking_of(source, index, now)?;
                    if matches!(self.health[index].phase, Phase::Searched(_)) {
                        // The search begins anew among what is parked.
                        self.health[index].release();
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_parking_of(&mut self, source: usize, index: usize, now: Instant) -> Result<(), Error> {
        let Some((topic, _, partition)) = self.topics.named(index) else {
            return Ok(());
        };
        let topic = Arc::clone(topic);
        if &*topic == UNDECODABLE {
            return Ok(());
        }
        let (lane, first) = (
            self.sources[source].stream.lane(),
            self.sources[source].lane,
        );
        let Some(log) = self.store.parking_log(lane, &topic, partition)? else {
            let why = "there are as many parking logs as there may be".to_owned();
            self.parking_failed = Some((why, now));
            return Ok(());
        };
        let is_it = |s: &Source<'a>| s.stream.parked().is_some_and(|p| std::ptr::eq(p, log));
        let place = match self.sources.iter().position(is_it) {
            Some(place) => place,
            None => {
                let stream = Stream::of_parking(lane, log);
                self.add_source(stream, first)
            }
        };
        // Other partitions of the topic go on as they did: what a shared log holds of them comes with
        // their count, and is older then.
        self.sources[first].capture(index, Some(place));
        Ok(())
    }

    /// Asks again for topics that the cluster did not have.
    fn ask_again(&mut self, now: Instant) -> Result<(), Error> {
        for index in 0..self.health.len() {
            let health = &self.health[index];
            let Some((why, _)) = health.held() else {
                continue;
            };
            let Some((name, topic, partition)) = self.topics.named(index) else {
                continue;
            };
            let asks = partition.is_none() || is_missing(why);
            let source = self.any_behind(index).unwrap_or(0);
            if !asks
                || &**name == UNDECODABLE
                || !self.topics.is_current(index)
                || health.allowance(source, now) == 0
            {
                continue;
            }
            let (name, why) = (Arc::clone(name), why.clone());
            match self.ask(&name, now)? {
                Answer::Silence => return Ok(()),
                Answer::No => {}
                Answer::Count => {
                    let is_same = self.topics.get(&name) == Some(topic);
                    // A topic that was gone is back, but a partition that a record names is not.
                    let waits = self.any_behind(index).is_some();
                    if is_same && partition.is_none() && waits {
                        self.hold(index, why, now);
                    } else if !is_same || partition.is_none() {
                        self.health[index].release();
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn any_behind(&self, index: usize) -> Option<usize> {
        self.sources.iter().position(|s| s.behind(index).is_some())
    }

    /// Hands over what held and searched partitions may be given.
    fn serve(&mut self, now: Instant) -> Result<(), Error> {
        for source in 0..self.sources.len() {
            let behind: Vec<usize> = self.sources[source].all_behind().map(|(i, _)| i).collect();
            let mut is_searched = false;
            for index in behind {
                let health = &self.health[index];
                is_searched |= matches!(health.phase, Phase::Searched(_));
                let may = health.allowance(source, now);
                let is_ours = self.captured(source, index).is_none();
                if may == 0
                    || !is_ours
                    || !self.topics.is_current(index)
                    || self.letters.is_on_its_way(index)
                    || self.letters.is_alone()
                    || self.is_behind_suspects(index)
                {
                    continue;
                }
                if health.is_slow() {
                    self.sink.be_patient(self.options.too_slow_after);
                }
                match self.health[index].phase {
                    Phase::Flowing => {}
                    Phase::Held { .. } => self.try_one(source, index, now)?,
                    Phase::Searched(_) => self.try_piece(source, index, may, now)?,
                }
            }
            if !is_searched {
                self.sources[source].put_side_away();
            }
        }
        Ok(())
    }

    /// One record of a held partition. Where the oldest was refused alone too often, and just now, the
    /// one behind it: if that is taken, it was the record and not the partition.
    fn try_one(&mut self, source: usize, index: usize, now: Instant) -> Result<(), Error> {
        let Some(mut entry) = self.waiting(source, index, 0)? else {
            self.sources[source].caught_up(index);
            return Ok(());
        };
        let (millis, attempted) = (self.millis(now), self.health[index].attempted.as_ref());
        let doubts_it = |a: &Attempted| a.is(source, entry.seq) && a.is_proved_by(millis);
        let mut is_oldest = true;
        if attempted.is_some_and(doubts_it) {
            match self.waiting(source, index, 1)? {
                Some(next) => (entry, is_oldest) = (next, false),
                None if self.is_other_log(source, index) => return Ok(()),
                None => {}
            }
        }
        let Ok(message) = &entry.message else {
            // The dead letters took nothing when it was met; they may now.
            return self.bury_undecodable(source, index, &entry, now);
        };
        let cost = budget::cost(entry.raw.len(), &[]);
        if !self.may_be_tried(index, cost, now) {
            return Ok(());
        }
        if let Placed::Sent(_) = self.send(source, index, &entry, message, now)?
            && is_oldest
        {
            self.sources[source].cared_for(index, entry.seq + 1);
        }
        Ok(())
    }

    /// The record that a partition left behind, `skip` after the oldest one, and that is not too old now.
    fn waiting(
        &mut self,
        source: usize,
        index: usize,
        skip: usize,
    ) -> Result<Option<Entry>, Error> {
        loop {
            match self.sources[source].left_behind(index, skip)? {
                Some(entry) if self.expires(source, &entry) => {}
                entry => return Ok(entry),
            }
        }
    }

    /// Whether another record waits beside the oldest one of a source and partition.
    pub(super) fn is_other(&mut self, source: usize, index: usize) -> Result<bool, Error> {
        let is_next = self.sources[source].left_behind(index, 1)?.is_some();
        Ok(is_next || self.is_other_log(source, index))
    }

    /// Whether records of another log wait: one that is alone in its own is judged by those.
    fn is_other_log(&self, source: usize, index: usize) -> bool {
        let waits = |other: usize| {
            other != source
                && self.sources[other].behind(index).is_some()
                && self.captured(other, index).is_none()
        };
        (0..self.sources.len()).any(waits)
    }

    /// A piece of a search, as much of it as there is room for.
    fn try_piece(
        &mut self,
        source: usize,
        index: usize,
        piece: usize,
        now: Instant,
    ) -> Result<(), Error> {
        let Some((topic, _, Some(partition))) = self.topics.named(index) else {
            return Ok(());
        };
        let topic = Arc::clone(topic);
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        let is_whole = piece > 1 && self.sink.begin_piece(&topic, partition);
        let piece = if is_whole { piece } else { 1 };
        let handed = self.hand_over_piece(source, index, piece, now);
        if is_whole {
            self.sink.end_piece(&topic, partition);
        }
        // A first record that the client library refused is a piece that came back.
        let was_refused = self.refusals.iter().any(|r| r.is_of(source, index));
        self.health[index].piece_handed_over(handed?.max(usize::from(was_refused)));
        Ok(())
    }

    /// Returns how many records were handed over.
    fn hand_over_piece(
        &mut self,
        source: usize,
        index: usize,
        piece: usize,
        now: Instant,
    ) -> Result<usize, Error> {
        let (mut handed, mut bytes) = (0, 0);
        while handed < piece && bytes < PIECE_BYTES {
            let Some(entry) = self.waiting(source, index, 0)? else {
                if handed == 0 {
                    self.health[index].release();
                    self.sources[source].caught_up(index);
                }
                break;
            };
            let Ok(message) = &entry.message else {
                break;
            };
            let Placed::Sent(cost) = self.send(source, index, &entry, message, now)? else {
                break;
            };
            self.sources[source].cared_for(index, entry.seq + 1);
            handed += 1;
            bytes += cost;
        }
        Ok(handed)
    }

    /// Has readers go back to what was left behind and can be taken care of now.
    fn turn_back(&mut self, now: Instant) {
        let may_park = self.may_park(now);
        for source in 0..self.sources.len() {
            let can_go = |(index, _): (usize, SeqNo)| {
                let is_open = self.health[index].is_flowing() || !self.topics.is_current(index);
                let goes = match self.captured(source, index) {
                    Some(_) => may_park,
                    None => is_open,
                };
                goes.then_some(index)
            };
            let behind = self.sources[source].all_behind();
            let partitions: Vec<usize> = behind.filter_map(can_go).collect();
            self.sources[source].rewind(&partitions);
        }
    }

    fn may_park(&self, now: Instant) -> bool {
        let failed = self.parking_failed.as_ref();
        failed.is_none_or(|(_, at)| now.saturating_duration_since(*at) >= PARKING_PAUSE)
    }

    /// Makes durable what was parked in this turn, and settles it in its lane.
    pub(super) fn settle_parked(&mut self) -> Result<(), Error> {
        if self.parked.is_empty() {
            return Ok(());
        }
        let parked = std::mem::take(&mut self.parked);
        let mut logs: Vec<usize> = parked.iter().map(|(_, log, _)| *log).collect();
        logs.sort_unstable();
        logs.dedup();
        for log in logs {
            if let Some(log) = self.sources[log].stream.parked() {
                log.sync()?;
            }
        }
        let mut lanes: Vec<usize> = parked.iter().map(|(source, ..)| *source).collect();
        for (source, _, token) in parked {
            self.sources[source].flight.settle(token, Class::Moved);
            self.counters.parked += 1;
        }
        self.tell_all();
        lanes.sort_unstable();
        lanes.dedup();
        // What is shipped from a parking log is never read from its lane again.
        for lane in lanes {
            self.sources[lane].stream.save_cursor()?;
        }
        Ok(())
    }

    /// The index of records that are no messages.
    pub(super) fn undecodable_index(&mut self) -> usize {
        let name: Arc<str> = UNDECODABLE.into();
        if self.topics.get(&name).is_none() {
            self.topics.insert(&name, 0);
            self.fit_lists(self.sink.now());
        }
        self.topics.get(&name).map_or(0, Topic::nowhere)
    }

    /// Whether all that is left is held, each for a reason that only a person can change.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        let is_settled = |(index, _): (usize, SeqNo)| {
            let health = &self.health[index];
            let held = health.held().filter(|(why, _)| why.is_definite());
            held.is_some() && health.is_tried_enough()
        };
        // What is queued and not behind is not read yet.
        let mut behind = self.sources.iter().flat_map(Source::all_behind).peekable();
        let is_read = behind.peek().is_some() || self.queued() == 0;
        !self.all_held(now).is_empty()
            && (!self.letters_wait() || self.letters.is_stuck())
            && is_read
            && behind.all(is_settled)
    }
}

/// Whether a topic or partition is what is missing.
fn is_missing(why: &HoldReason) -> bool {
    match why {
        HoldReason::UnknownTopic | HoldReason::NoPartition { .. } => true,
        HoldReason::Refused(failure) => tells_of_missing(failure),
        _ => false,
    }
}
