//! What no request can be carrying any more: the cluster answers, and the broker of a partition cannot be
//! reached.
//!
//! Owns when that is believed where no other partition's acknowledgement shows it, and that what lies with a
//! producer for such a broker keeps no other from the flight for good. Must not know why the broker
//! cannot be reached. Invariants: nothing dies of it; what silent partitions are given unasked takes a part
//! of the flight in all; questions to their leaders take a tenth of the time.

use std::time::{Duration, Instant};

use super::Sink;
use super::budget::Room;
use super::health::{Health, HoldReason, reason_of_leader};
use super::shipper::Shipper;
use super::slow::BUSY_MAX;
use super::tend::SILENCE_MAX;

/// What the flight budget lets out crosses in seconds, and a link in use is silent for a quarter of this at
/// most before the cluster is asked.
const STRANDED: Duration = SILENCE_MAX.saturating_mul(4);

/// Between two trials in vain, or questions, it is at least this long: that nobody leads a partition is told at
/// once.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// For how long nothing silent is tried again, nor its leader asked, after that took so long: it gets a tenth
/// of the time.
pub(super) fn pause_after(tried: Duration) -> Duration {
    (tried * 9).max(PAUSE_MIN)
}

impl<S: Sink> Shipper<'_, S> {
    /// Whether what a partition owes can be with no request any more. It may leave no room for anything that
    /// would show that by its acknowledgement.
    pub(super) fn is_stranded(&mut self, index: usize, now: Instant) -> bool {
        let longest = self.stranded_after(self.health[index].is_slow(), now);
        self.health[index].is_silent_for(longest, now) && self.link.up_for(now) >= STRANDED
    }

    /// After which time: a large record that is alone, and one that is known as slow, may take longest.
    pub(super) fn stranded_after(&mut self, is_slow: bool, now: Instant) -> Duration {
        match is_slow || self.one_large(now).is_some() {
            true => BUSY_MAX,
            false => STRANDED,
        }
    }

    /// Leaves the flight to others where what is in it cannot be sent: what a silent partition owes, and the trial
    /// of one that got no answer, unless its leader gave one before.
    pub(super) fn mark_stuck(&mut self, now: Instant) {
        for (index, health) in self.health.iter().enumerate() {
            let is_vain = !health.is_tried() || (!health.is_asked && health.is_silent(now));
            let owes = health.is_mute() && health.outstanding > 0;
            let is_stuck = (owes && is_vain) || self.letters.is_stuck_at(index, now);
            self.budget.set_stuck(index, is_stuck);
        }
    }

    /// What silent partitions take of the flight.
    fn owed_by_silent(&self) -> u64 {
        let mute = (0..self.health.len()).filter(|&index| self.health[index].is_mute());
        mute.map(|index| self.budget.of(index)).sum()
    }

    /// Takes trials and letters back that keep others from the flight in vain.
    pub(super) fn end_vain_trials(&mut self, now: Instant) {
        let mut vain = Vec::new();
        for index in 0..self.health.len() {
            if self.health[index].is_tried() && self.is_stranded(index, now) {
                vain.push(index);
            }
        }
        let owed: u64 = vain.iter().map(|&index| self.budget.of(index)).sum();
        let letters = match self.link.up_for(now) >= STRANDED {
            true => self.stranded_letters(now),
            false => 0,
        };
        if owed + letters <= self.budget.limit() / 2 {
            return;
        }
        self.sink.rebuild_careful();
        for index in vain {
            self.hold(index, HoldReason::Silent, now);
        }
    }

    /// Whether a held partition may be given so much as a trial. Where silent ones would take too much of the
    /// flight, its leader has to answer first.
    pub(super) fn may_be_tried(&mut self, index: usize, cost: u64, now: Instant) -> bool {
        let is_small = self.owed_by_silent() + cost <= self.budget.limit() / 2;
        self.health[index].is_asked = !is_small;
        if is_small || !self.health[index].is_mute() {
            return true;
        }
        if now < self.next_question || self.budget.room(index, cost) != Room::Yes {
            return false;
        }
        self.answers(index, now)
    }

    /// Whether so much may be given to a partition that takes what comes: the broker that others are silent for
    /// may be this one's, too, and nothing would be heard of anybody for long.
    pub(super) fn may_be_given(&mut self, index: usize, cost: u64, now: Instant) -> bool {
        let is_small = cost <= self.budget.limit() / 2;
        is_small
            || self.budget.is_heard(index)
            || !self.health.iter().any(Health::is_mute)
            || self.budget.room(index, cost) != Room::Yes
            || self.answers(index, now)
    }

    /// Whether the leader of a partition answers. It is held if not.
    fn answers(&mut self, index: usize, now: Instant) -> bool {
        let mute = self.health.iter().filter(|health| health.is_mute());
        let Err((why, pause)) = self.ask_leader(index, mute.count().max(1), now) else {
            return true;
        };
        let now = self.sink.now();
        self.health[index].hold_for(why, pause, now);
        false
    }

    /// Asks whether the leader of a partition answers. If not: why it is held, and for how long, that each of
    /// so many has its turn.
    pub(super) fn ask_leader(
        &mut self,
        index: usize,
        turns: usize,
        now: Instant,
    ) -> Result<(), (HoldReason, Duration)> {
        let why = match self.leader(index).map(reason_of_leader) {
            Some(None) => {
                // Whatever kept others silent may be over for all.
                let mute = self.health.iter_mut().filter(|health| health.is_mute());
                mute.for_each(|health| health.try_now(now));
                self.letters.try_silent_again(now);
                return Ok(());
            }
            Some(Some(why)) => why,
            None => HoldReason::Silent,
        };
        let asked = self.sink.now();
        let pause = pause_after(asked.saturating_duration_since(now));
        self.next_question = asked + pause;
        Err((
            why,
            pause.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX)),
        ))
    }
}
