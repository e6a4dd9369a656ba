//! A record that takes the link longer to carry than a request may.
//!
//! Owns how such a record is recognised, and what is done about one that does not cross even so. Must
//! not know librdkafka. A request that timed out is sent again from its first byte, for ever, and is
//! told of no record. Invariants: only a record that was alone on its way is judged, and only where the
//! leader of its partition answers once the record is off the link; what becomes of it is the operator's choice
//! ([`OnTooSlow`]), and by default it is held.

use std::time::{Duration, Instant};

use super::health::{HoldReason, reason_of_leader};
use super::settle::{Flown, State};
use super::shipper::Shipper;
use super::source::Source;
use super::tend::SILENCE_MAX;
use super::{Error, OnTooSlow, Sink};
use crate::kafka::{ErrorClass, Failure, Persistence, SOCKET_TIMEOUT_MAX};

/// Less does not take a link that works at all as long as a request may.
pub(super) const LARGE: u64 = 32 * 1024;

/// When one that did not cross is tried again: it keeps the link from others for as long as it may
/// take.
pub(super) const TOO_SLOW_PAUSE: Duration = Duration::from_secs(60 * 60);

/// The longest that a request may take, and as long as a link in use may be silent.
pub(super) const BUSY_MAX: Duration = SOCKET_TIMEOUT_MAX.saturating_add(SILENCE_MAX);

/// librdkafka's code for a request that timed out.
pub(super) const TIMED_OUT: i32 = -185;

/// What is told of a record that did not cross in `waited`.
pub(super) fn failure(bytes: u64, waited: Duration) -> Failure {
    Failure {
        class: ErrorClass::Network,
        code: TIMED_OUT,
        name: HoldReason::TooSlow { bytes, waited }.to_string(),
        persistence: Persistence::Possibly,
    }
}

/// For how long a record has been on its way.
fn had(millis: u32, flown: &Flown) -> Duration {
    Duration::from_millis(millis.wrapping_sub(flown.at_millis).into())
}

impl<S: Sink> Shipper<'_, S> {
    /// A request timed out. Of a record that was alone on its way, on a link that is there, it says that it
    /// needs longer than a request may: it gets the longest time there is. Of more it says nothing: the
    /// flight budget lets no more out than crosses in seconds, so the link is dead.
    pub(super) fn request_timed_out(&mut self) {
        let owes = |&index: &usize| {
            let health = &self.health[index];
            health.outstanding > health.stuck() && !health.is_tried()
        };
        let mut owing = (0..self.health.len()).filter(owes);
        let (Some(index), None) = (owing.next(), owing.next()) else {
            return;
        };
        let is_large = self.health[index].outstanding == 1 && self.budget.of(index) >= LARGE;
        if !is_large || !self.link.is_up() {
            return;
        }
        let Some((source, only)) = self.oldest_under_way(index) else {
            return;
        };
        self.health[index].search_slow(source, only.seq);
        self.search_begins("a record takes longer than a request may");
    }

    /// For how long the one record that may take long is on its way, if it is all there is. What is silent lies
    /// with a producer that cannot send it.
    pub(super) fn one_large(&mut self, now: Instant) -> Option<Duration> {
        let moves = |&i: &usize| self.health[i].outstanding > 0 && !self.budget.is_stuck(i);
        let mut moving = (0..self.health.len()).filter(moves);
        let (index, other) = (moving.next(), moving.next());
        match (index, other, self.letters.moving(now)) {
            (Some(index), None, 0) => {
                let is_large = self.budget.of(index) >= LARGE;
                let is_it = is_large && self.health[index].outstanding == 1;
                let millis = self.millis(now);
                let only = self.oldest_under_way(index).filter(|_| is_it)?;
                Some(had(millis, &only.1))
            }
            (None, _, 1) => {
                let (cost, since) = self.letters.oldest()?;
                (cost >= LARGE).then(|| now.saturating_duration_since(since))
            }
            _ => None,
        }
    }

    /// Whether that is why the cluster is silent: no longer than a request may take. What is on its way for
    /// longer is with a producer that cannot send it.
    pub(super) fn is_silent_behind_one(&mut self, now: Instant) -> bool {
        self.one_large(now).is_some_and(|had| had < BUSY_MAX)
    }

    /// The oldest record of a partition that is on its way, and its source.
    fn oldest_under_way(&self, index: usize) -> Option<(usize, Flown)> {
        let oldest = |(place, source): (usize, &Source<'_>)| {
            let flight = &source.flight;
            let tried = flight.under_way(index, State::Tried);
            let found = flight.under_way(index, State::InFlight).chain(tried).next();
            found.map(|flown| (place, flown))
        };
        self.sources.iter().enumerate().find_map(oldest)
    }

    /// A trial, or a piece of a search, is one large record alone on its way, and its request timed out: it
    /// gets the longest time there is. True if it is so.
    fn turns_slow(&mut self, index: usize, now: Instant) -> bool {
        if !self.link.is_up() || self.one_large(now).is_none() {
            return false;
        }
        let Some((source, only)) = self.oldest_under_way(index) else {
            return false;
        };
        self.health[index].turns_slow(source, only.seq);
        true
    }

    /// A request of what is sent carefully timed out: what had all the time there is, and was alone, is
    /// too slow if the link was there all the time.
    pub(super) fn patience_ended(&mut self, now: Instant) -> Result<(), Error> {
        let millis = self.millis(now);
        let mut ended = Vec::new();
        let mut is_one_slow = false;
        for index in 0..self.health.len() {
            if !self.health[index].is_tried() {
                continue;
            }
            if !self.health[index].is_slow() {
                is_one_slow |= self.turns_slow(index, now);
                continue;
            }
            let only = self.oldest_under_way(index);
            let only = only.filter(|_| self.health[index].outstanding == 1);
            let only = only.map(|(_, flown)| (had(millis, &flown), u64::from(flown.len)));
            if only.is_none_or(|(had, _)| had >= self.options.too_slow_after) {
                ended.push((index, only));
            }
        }
        if ended.is_empty() && !is_one_slow {
            return Ok(());
        }
        self.needs_care = true;
        // Before the cluster is asked: nothing is on the link then.
        self.sink.rebuild_careful();
        for (index, only) in ended {
            // The one before may have taken long.
            let now = self.sink.now();
            if let (true, Some((had, bytes))) = (self.health[index].blame(), only)
                && self.is_there(index, had, now)?
            {
                match self.leader(index).map(reason_of_leader) {
                    Some(None) => self.too_slow(index, bytes, now),
                    Some(Some(why)) => self.hold(index, why, now),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn too_slow(&mut self, index: usize, bytes: u64, now: Instant) {
        let waited = self.options.too_slow_after;
        match self.options.on_too_slow {
            OnTooSlow::DeadLetter => self.health[index].piece_too_slow(failure(bytes, waited)),
            OnTooSlow::Hold => {
                let why = HoldReason::TooSlow { bytes, waited };
                self.health[index].hold_for(why, TOO_SLOW_PAUSE, now);
            }
        }
    }
}
