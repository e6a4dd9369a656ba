//! A dead letter that may be what breaks the connection, or that takes the link longer than a request
//! may.
//!
//! Owns how such a letter is found, and that it holds up nothing: letters share their connection with
//! trials and searches, which would wait for it for ever. Must not know why a connection is lost.
//! Invariants: only a letter that was alone on its way is judged; it lies where it was then, with the
//! reason, and a person decides.

use std::time::Instant;

use super::state::{Errand, Flying, Letters, is_silent};
use crate::kafka::Leader;
use crate::ship::health::{Health, HoldReason, SUSPICION};
use crate::ship::shipper::Shipper;
use crate::ship::slow::{LARGE, TIMED_OUT};
use crate::ship::suspect::TRANSPORT;
use crate::ship::{Error, Sink};

/// So many losses in a row with a letter alone on its way are its fault. Nothing tries it again by
/// itself, so one is not enough.
const LOSSES_ALONE: u32 = 8;

impl Letters<'_> {
    /// Whether a letter is on its way that nothing else may share a connection with.
    pub(in crate::ship) fn is_alone(&self) -> bool {
        self.is_suspicious && !self.flying.is_empty()
    }
}

impl<S: Sink> Shipper<'_, S> {
    /// Whether records are on their way carefully, and may be heard of soon.
    pub(super) fn is_anything_tried(&self) -> bool {
        self.health.iter().any(|h| h.is_tried() && h.stuck() == 0)
    }

    /// Connections of what is sent carefully were lost.
    pub(in crate::ship) fn letters_lost(&mut self, times: u32, now: Instant) {
        let letters = &mut self.letters;
        if letters.flying.is_empty() {
            return;
        }
        letters.losses = letters.losses.saturating_add(times);
        let is_only_one = letters.flying.len() == 1;
        if letters.is_suspicious && is_only_one && letters.losses >= LOSSES_ALONE {
            letters.is_suspicious = false;
            self.give_up_under_way(TRANSPORT, &HoldReason::Suspect.to_string(), now);
        } else if !letters.is_suspicious && letters.losses >= SUSPICION {
            (letters.is_suspicious, letters.losses) = (true, 0);
            // They come back, and go one at a time.
            self.sink.rebuild_careful();
        }
    }

    /// A request of what is sent carefully timed out: a large letter that was alone gets all the time that
    /// there is, and is given up if that does not do. Of more it says nothing.
    pub(in crate::ship) fn letter_timed_out(&mut self, now: Instant) -> Result<(), Error> {
        let [only] = self.letters.flying[..] else {
            return Ok(());
        };
        if only.cost < LARGE || self.is_anything_tried() {
            return Ok(());
        }
        let waited = self.options.too_slow_after;
        let had = now.saturating_duration_since(only.at);
        if had < waited {
            self.letters.slow = Some(only.seq);
            self.sink.be_patient(waited);
            return Ok(());
        }
        // Before the cluster is asked: nothing is on the link then.
        self.sink.rebuild_careful();
        if self.is_there(only.index, had, now)? && self.leader(only.index) == Some(Leader::Answers)
        {
            let bytes = only.len;
            let why = HoldReason::TooSlow { bytes, waited }.to_string();
            self.give_up_under_way(TIMED_OUT, &why, now);
        }
        Ok(())
    }

    /// What letters take of the flight that no request can be carrying any more.
    pub(in crate::ship) fn stranded_letters(&mut self, now: Instant) -> u64 {
        let longest = self.stranded_after(self.letters.slow.is_some(), now);
        let is_stranded = |f: &&Flying| now.saturating_duration_since(f.at) >= longest;
        let stranded = self.letters.flying.iter().filter(is_stranded);
        stranded.map(|flying| flying.cost).sum()
    }

    /// Whether a letter may be handed over while some partition takes nothing. Where it would take too much of the
    /// flight, the leader of its own has to answer first; if not, it waits.
    pub(super) fn may_try_letter(&mut self, index: usize, cost: u64, now: Instant) -> bool {
        let silent = self.letters.flying.iter().filter(|f| is_silent(f, now));
        let owed: u64 = silent.map(|flying| flying.cost).sum();
        let is_doubted = !self.letters.lines.is_empty() || self.health.iter().any(Health::is_mute);
        if !is_doubted || owed + cost <= self.budget.limit() / 2 {
            return true;
        }
        if now < self.next_question {
            return false;
        }
        let turns = self.letters.lines.len().max(1);
        let Err((why, pause)) = self.ask_leader(index, turns, now) else {
            return true;
        };
        let now = self.sink.now();
        self.hold_line(index, why, now);
        if let Some(line) = self.letters.lines.get_mut(&index) {
            line.next_try = line.next_try.max(now + pause);
        }
        false
    }

    /// The letter that is on its way, alone, is not to be sent as it is. A copy may be a pointer.
    fn give_up_under_way(&mut self, code: i32, why: &str, now: Instant) {
        let Some(&Flying { place, .. }) = self.letters.flying.first() else {
            return;
        };
        let Some(flying) = self.land(place, now) else {
            return;
        };
        let Flying { errand, seq, .. } = flying;
        self.letters.losses = 0;
        self.letters.slow = None;
        self.budget.give_back(flying.index, flying.cost);
        if errand == Errand::Copy && self.letters.pointers.insert(seq) {
            self.letters.walk_back(errand, seq);
        } else {
            self.give_letter_up(errand, seq, code, why);
        }
        // What it holds of it would be sent for ever.
        self.sink.rebuild_careful();
    }
}
