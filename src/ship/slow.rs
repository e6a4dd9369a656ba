//! A record that takes the link longer to carry than a request may.
//!
//! Owns how such a record is recognised, and what is done about one that does not cross even so. Must
//! not know librdkafka. A request that timed out is sent again from its first byte, for ever, and is
//! told of no record. Invariants: only a record that was alone on its way is judged; what becomes of it
//! is the operator's choice ([`OnTooSlow`]), and by default it is held.

use std::time::{Duration, Instant};

use super::health::HoldReason;
use super::settle::{Flown, State};
use super::shipper::Shipper;
use super::source::Source;
use super::{OnTooSlow, Sink};
use crate::kafka::{ErrorClass, Failure, Persistence};

/// Less does not take a link that works at all as long as a request may.
pub(super) const LARGE: u64 = 32 * 1024;

/// When one that did not cross is tried again: it keeps the link from others for as long as it may
/// take.
pub(super) const TOO_SLOW_PAUSE: Duration = Duration::from_secs(60 * 60);

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
        let Some((source, only)) = self.last_under_way(index) else {
            return;
        };
        self.health[index].search_slow(source, only);
        self.search_begins("a record takes longer than a request may");
    }

    /// A request of what is sent carefully timed out: what had all the time there is, and was alone, is
    /// too slow.
    pub(super) fn patience_ended(&mut self, now: Instant) {
        let after = self.options.too_slow_after;
        let after_millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        let millis = self.millis(now);
        let mut is_any = false;
        for index in 0..self.health.len() {
            if !self.health[index].is_tried() || !self.health[index].is_slow() {
                continue;
            }
            let only = self.only_one(index);
            let has_had = |flown: &Flown| millis.wrapping_sub(flown.at_millis);
            if only.is_some_and(|flown| has_had(&flown) < after_millis) {
                continue;
            }
            is_any = true;
            self.needs_care = true;
            let (true, Some(flown)) = (self.health[index].blame(), only) else {
                continue;
            };
            let (bytes, waited) = (u64::from(flown.len), after);
            match self.options.on_too_slow {
                OnTooSlow::DeadLetter => {
                    self.health[index].piece_too_slow(failure(bytes, waited));
                }
                OnTooSlow::Hold => {
                    let why = HoldReason::TooSlow { bytes, waited };
                    self.health[index].hold_for(why, TOO_SLOW_PAUSE, now);
                }
            }
        }
        if is_any {
            self.sink.rebuild_careful();
        }
    }

    /// The record of a partition that is on its way carefully, if it is one.
    fn only_one(&self, index: usize) -> Option<Flown> {
        let tried = |source: &Source<'_>| source.flight.under_way(index, State::Tried).next();
        let only = self.sources.iter().find_map(tried);
        only.filter(|_| self.health[index].outstanding == 1)
    }
}
