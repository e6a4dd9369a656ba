//! A record that may be what breaks the connection.
//!
//! Owns the way from a lost connection to the search for such a record, and to its hold. Must not
//! know why a connection is lost. Invariants: a loss counts against what was on its way on that
//! connection's producer, and only until something of the partition is acknowledged; of what is
//! suspected one piece is on its way at a time; a record is held when the connection was lost with it
//! alone, and never dies of that.

use std::time::Instant;

use super::health::{Health, HoldReason};
use super::settle::State;
use super::shipper::Shipper;
use super::source::Source;
use super::{Error, Sink};
use crate::wal::SeqNo;

/// librdkafka's code for a connection that was lost.
pub(super) const TRANSPORT: i32 = -195;

impl<S: Sink> Shipper<'_, S> {
    /// Looks whether connections broke, and at what that says about records on their way.
    pub(super) fn watch_breaks(&mut self, now: Instant) -> Result<(), Error> {
        let breaks = self.sink.breaks(false);
        if breaks.timeouts > 0 {
            self.request_timed_out();
        }
        if breaks.losses > 0 {
            self.connection_lost(breaks.losses, false);
            // All of them: nothing of the others that are on the same connection arrives either.
            for index in 0..self.health.len() {
                let health = &self.health[index];
                if !health.is_tried() && health.is_suspected() {
                    self.search_suspect(index);
                }
            }
        }
        let breaks = self.sink.breaks(true);
        if breaks.timeouts > 0 {
            self.letter_timed_out(now)?;
            self.patience_ended(now)?;
        }
        if breaks.losses > 0 {
            self.connection_lost(breaks.losses, true);
            self.suspect_tried(now);
            self.letters_lost(breaks.losses, now);
        }
        Ok(())
    }

    fn connection_lost(&mut self, times: u32, is_tried: bool) {
        let those = self.health.iter_mut().filter(|h| h.is_tried() == is_tried);
        those.for_each(|health| health.connection_lost(times));
    }

    /// One of the records of a partition that are on their way is suspected: it is searched for like a
    /// refused one.
    fn search_suspect(&mut self, index: usize) {
        let Some((source, last)) = self.last_under_way(index) else {
            return;
        };
        self.health[index].search_suspect(source, last);
        self.search_begins("a record is suspected to break the connection");
    }

    /// What is on its way is taken back, to be sent carefully.
    pub(super) fn search_begins(&mut self, why: &str) {
        self.needs_care = true;
        // It says nothing about the link.
        self.was_refused = true;
        self.spent.get_or_insert_with(|| why.to_owned());
    }

    /// The newest record of a partition that is on its way, but not carefully, and its source.
    pub(super) fn last_under_way(&self, index: usize) -> Option<(usize, SeqNo)> {
        let last = |(place, source): (usize, &Source<'_>)| {
            let last = source.flight.under_way(index, State::InFlight).last();
            last.map(|last| (place, last.seq))
        };
        self.sources.iter().enumerate().find_map(last)
    }

    /// Whether records of a partition have to wait because others that are suspected are on their way:
    /// a connection that is lost is to tell which ones it were.
    pub(super) fn is_behind_suspects(&self, index: usize) -> bool {
        let is_under_way = |h: &Health| h.is_suspicious() && h.outstanding > 0;
        self.health[index].is_suspicious() && self.health.iter().any(is_under_way)
    }

    /// Draws the conclusions for what was sent carefully.
    fn suspect_tried(&mut self, now: Instant) {
        let mut is_any = false;
        for index in 0..self.health.len() {
            let health = &mut self.health[index];
            if !health.is_tried() || !health.is_suspected() {
                continue;
            }
            is_any = true;
            self.needs_care = true;
            if health.blame() {
                self.hold(index, HoldReason::Suspect, now);
            }
        }
        if is_any {
            self.sink.rebuild_careful();
        }
    }
}
