//! What of a log is under way: handed over, or left behind for later; and what of it is settled.
//!
//! Pure. Must not know Kafka or the log. A token is the place of a record in the order in which
//! they were read, so that numbers missing in between (settled before, or void) cost nothing.
//!
//! Invariants: numbers increase along the window; a report counts once, and a token that left the
//! window counts nothing; the front of the window is never settled, so memory is bounded by
//! [`WINDOW_MAX`] and the low mark is never behind.

use std::collections::VecDeque;
use std::ops::Range;

use crate::wal::{Class, SeqNo};

/// Most records from the oldest unsettled one to the newest read. It bounds memory, and what may
/// be sent twice after a crash, when one partition lags behind the others.
pub(super) const WINDOW_MAX: usize = 1 << 19;

/// A record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flown {
    pub(super) seq: SeqNo,
    /// Index of its topic-partition.
    pub(super) partition: u32,
    /// What it takes of the budget. A record is far below 4 GiB.
    pub(super) cost: u32,
    /// Bytes of its key and value.
    pub(super) len: u32,
    /// When it was handed over, in milliseconds since the shipper began.
    pub(super) at_millis: u32,
}

impl Flown {
    pub(super) fn new(seq: SeqNo, index: usize, cost: u64, len: usize, at_millis: u32) -> Flown {
        Flown {
            seq,
            partition: u32::try_from(index).unwrap_or(u32::MAX),
            cost: u32::try_from(cost).unwrap_or(u32::MAX),
            len: u32::try_from(len).unwrap_or(u32::MAX),
            at_millis,
        }
    }

    /// The index of its topic-partition, for lists.
    pub(super) fn index(&self) -> usize {
        usize::try_from(self.partition).unwrap_or(usize::MAX)
    }
}

/// Where a record of the window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Read, and left behind: its partition takes nothing now.
    Waiting,
    /// Handed over, and not reported.
    InFlight,
    /// Handed over carefully, because it may be refused, and not reported.
    Tried,
    /// Settled, and the log does not know it yet.
    Settled(Class),
    /// Settled, and the log was told.
    Told,
}

/// Everything of one log that is under way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Token of the front of the window.
    base: u64,
    window: VecDeque<(Flown, State)>,
    in_flight: usize,
}

impl Flight {
    /// How many records the window holds.
    pub(super) fn len(&self) -> usize {
        self.window.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// How many were handed over and not reported.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The token and state of a record that was read before.
    pub(super) fn find(&self, seq: SeqNo) -> Option<(u64, State)> {
        if seq >= self.end() {
            return None;
        }
        let index = self.window.partition_point(|(flown, _)| flown.seq < seq);
        let (flown, state) = self.window.get(index)?;
        (flown.seq == seq).then_some((self.base + length(index), *state))
    }

    /// The token of the record that is pushed next.
    pub(super) fn next_token(&self) -> u64 {
        self.base + length(self.window.len())
    }

    /// A record was read for the first time.
    pub(super) fn push(&mut self, flown: Flown, state: State) {
        if let Some((newest, _)) = self.window.back() {
            assert!(newest.seq < flown.seq, "read out of order");
        }
        self.in_flight += usize::from(is_under_way(state));
        self.window.push_back((flown, state));
    }

    /// A record that was left behind is handed over.
    pub(super) fn hand_over(&mut self, token: u64, flown: Flown, to: State) {
        if let Some((place, state)) = self.at(token)
            && *state == State::Waiting
        {
            (*place, *state) = (flown, to);
            self.in_flight += 1;
        }
    }

    /// A record that waits is of another partition than it was, since its topic has another count.
    pub(super) fn moves_to(&mut self, token: u64, partition: u32) {
        if let Some((flown, State::Waiting)) = self.at(token) {
            flown.partition = partition;
        }
    }

    /// Where the record of a token stands.
    pub(super) fn state(&self, token: u64) -> Option<State> {
        let index = usize::try_from(token.checked_sub(self.base)?).ok()?;
        self.window.get(index).map(|(_, state)| *state)
    }

    fn at(&mut self, token: u64) -> Option<&mut (Flown, State)> {
        let index = usize::try_from(token.checked_sub(self.base)?).ok()?;
        self.window.get_mut(index)
    }

    /// A record that was handed over came back without an outcome.
    pub(super) fn give_back(&mut self, token: u64) -> Option<Flown> {
        let (flown, state) = self.at(token)?;
        if !is_under_way(*state) {
            return None;
        }
        *state = State::Waiting;
        let flown = *flown;
        self.in_flight -= 1;
        Some(flown)
    }

    /// A record reached its final outcome. `None` if that was known, or it left the window.
    pub(super) fn settle(&mut self, token: u64, class: Class) -> Option<Flown> {
        let (flown, state) = self.at(token)?;
        let before = *state;
        if matches!(before, State::Settled(_) | State::Told) {
            return None;
        }
        *state = State::Settled(class);
        let flown = *flown;
        self.in_flight -= usize::from(is_under_way(before));
        Some(flown)
    }

    /// Everything that was handed over, but not carefully, is in doubt: it waits to be handed over
    /// again.
    pub(super) fn recall(&mut self, mut recalled: impl FnMut(Flown)) {
        for (flown, state) in &mut self.window {
            if *state == State::InFlight {
                *state = State::Waiting;
                self.in_flight -= 1;
                recalled(*flown);
            }
        }
    }

    /// What waits below the log's own low mark was dropped for space, and is over. True if there was any.
    pub(super) fn pass_below(&mut self, acked: SeqNo) -> bool {
        let mut is_any = false;
        let below = self
            .window
            .iter_mut()
            .take_while(|(flown, _)| flown.seq < acked);
        for (_, state) in below.filter(|(_, state)| *state == State::Waiting) {
            (*state, is_any) = (State::Told, true);
        }
        is_any
    }

    /// A record that waits is in its log no more, which knows what became of it.
    pub(super) fn pass(&mut self, seq: SeqNo) {
        let token = self.find(seq).map(|(token, _)| token);
        if let Some((_, state @ State::Waiting)) = token.and_then(|token| self.at(token)) {
            *state = State::Told;
        }
    }

    /// Hands over runs of settled numbers at the front: the low mark moves past them.
    pub(super) fn tell_front(&mut self, told: impl FnMut(Range<SeqNo>, Class)) {
        let mut runs = Runs::new(told);
        while let Some(&(flown, state)) = self.window.front() {
            match state {
                State::Waiting | State::InFlight | State::Tried => break,
                State::Settled(class) => runs.add(flown.seq, class),
                State::Told => {}
            }
            self.window.pop_front();
            self.base += 1;
        }
    }

    /// Hands over runs of settled numbers behind the front. Walks the whole window: do it seldom.
    pub(super) fn tell_all(&mut self, told: impl FnMut(Range<SeqNo>, Class)) {
        let mut runs = Runs::new(told);
        for (flown, state) in &mut self.window {
            if let State::Settled(class) = *state {
                runs.add(flown.seq, class);
                *state = State::Told;
            }
        }
    }

    /// The oldest record that is not settled, once all settled ones before it were told.
    pub(super) fn front(&self) -> Option<Flown> {
        self.window.front().map(|(flown, _)| *flown)
    }

    /// The number after the newest record of the window; 0 if it is empty.
    pub(super) fn end(&self) -> SeqNo {
        let newest = self.window.back();
        newest.map_or(SeqNo::ZERO, |(flown, _)| flown.seq + 1)
    }

    /// The records of a partition in this state, oldest first.
    pub(super) fn under_way(&self, index: usize, state: State) -> impl Iterator<Item = Flown> {
        let is_it = move |&&(flown, its): &&(Flown, State)| flown.index() == index && its == state;
        self.window.iter().filter(is_it).map(|(flown, _)| *flown)
    }

    /// The records that wait, from this number on, oldest first.
    pub(super) fn waiting_from(&self, seq: SeqNo) -> impl Iterator<Item = Flown> {
        let from = self.window.partition_point(|(flown, _)| flown.seq < seq);
        let waits = |&&(_, state): &&(Flown, State)| state == State::Waiting;
        let found = self.window.range(from..).filter(waits);
        found.map(|(flown, _)| *flown)
    }
}

fn is_under_way(state: State) -> bool {
    matches!(state, State::InFlight | State::Tried)
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Joins neighbouring numbers of one class into half-open ranges; the last one is handed over on
/// drop.
struct Runs<F: FnMut(Range<SeqNo>, Class)> {
    told: F,
    run: Option<(Range<SeqNo>, Class)>,
}

impl<F: FnMut(Range<SeqNo>, Class)> Runs<F> {
    fn new(told: F) -> Runs<F> {
        Runs { told, run: None }
    }

    fn add(&mut self, seq: SeqNo, class: Class) {
        match &mut self.run {
            Some((run, of)) if run.end == seq && *of == class => run.end = seq + 1,
            _ => {
                if let Some((run, class)) = self.run.replace((seq..seq + 1, class)) {
                    (self.told)(run, class);
                }
            }
        }
    }
}

impl<F: FnMut(Range<SeqNo>, Class)> Drop for Runs<F> {
    fn drop(&mut self) {
        if let Some((run, class)) = self.run.take() {
            (self.told)(run, class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flown(seq: u64) -> Flown {
        Flown {
            seq: SeqNo::new(seq),
            partition: 0,
            cost: 1,
            len: 1,
            at_millis: 0,
        }
    }

    fn push(flight: &mut Flight, seq: u64) -> u64 {
        let token = flight.next_token();
        flight.push(flown(seq), State::InFlight);
        token
    }

    fn ship(flight: &mut Flight, token: u64) -> Option<Flown> {
        flight.settle(token, Class::Shipped)
    }

    fn front(flight: &mut Flight) -> Vec<Range<u64>> {
        let mut told = Vec::new();
        flight.tell_front(|run, _| told.push(run.start.get()..run.end.get()));
        told
    }

    fn all(flight: &mut Flight) -> Vec<Range<u64>> {
        let mut told = Vec::new();
        flight.tell_all(|run, _| told.push(run.start.get()..run.end.get()));
        told
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one run is expected")]
    fn runs_are_joined_whatever_the_order_of_reports() {
        let mut flight = Flight::default();
        let tokens: Vec<u64> = (10..20).map(|seq| push(&mut flight, seq)).collect();
        for &i in &[3, 1, 2, 5, 8] {
            assert!(ship(&mut flight, tokens[i]).is_some());
        }
        assert_eq!(front(&mut flight), []);
        assert_eq!(flight.front().map(|f| f.seq), Some(SeqNo::new(10)));
        ship(&mut flight, tokens[0]);
        assert_eq!(front(&mut flight), [10..14]);
        assert_eq!(flight.front().map(|f| f.seq), Some(SeqNo::new(14)));
        assert_eq!(all(&mut flight), [15..16, 18..19]);
        // Told once, and not again when the front passes over it.
        ship(&mut flight, tokens[4]);
        assert_eq!(front(&mut flight), [14..15]);
        assert_eq!(all(&mut flight), []);
    }

    #[test]
    fn numbers_that_are_missing_part_the_runs() {
        let mut flight = Flight::default();
        let tokens: Vec<u64> = [1, 2, 1 << 40, (1 << 40) + 1]
            .map(|seq| push(&mut flight, seq))
            .into();
        tokens
            .iter()
            .for_each(|&t| assert!(ship(&mut flight, t).is_some()));
        assert_eq!(front(&mut flight), [1..3, 1 << 40..(1 << 40) + 2]);
        assert!(flight.is_empty());
    }

    #[test]
    fn a_report_counts_once() {
        let mut flight = Flight::default();
        let token = push(&mut flight, 7);
        assert!(ship(&mut flight, token).is_some());
        assert!(ship(&mut flight, token).is_none());
        front(&mut flight);
        assert!(ship(&mut flight, token).is_none());
        assert!(ship(&mut flight, token + 1).is_none());
    }

    #[test]
    fn what_was_recalled_waits_and_is_settled_by_the_report_of_its_next_flight() {
        let mut flight = Flight::default();
        let tokens: Vec<u64> = (3..6).map(|seq| push(&mut flight, seq)).collect();
        ship(&mut flight, tokens[1]);
        let mut recalled = Vec::new();
        flight.recall(|flown| recalled.push(flown.seq.get()));
        assert_eq!((recalled, flight.in_flight()), (vec![3, 5], 0));
        assert_eq!(
            flight.find(SeqNo::new(3)),
            Some((tokens[0], State::Waiting))
        );
        let told = Some((tokens[1], State::Settled(Class::Shipped)));
        assert_eq!(flight.find(SeqNo::new(4)), told);
        assert_eq!(flight.find(SeqNo::new(6)), None);
        flight.hand_over(tokens[0], flown(3), State::Tried);
        flight.recall(|flown| panic!("{flown:?} was handed over carefully"));
        assert_eq!(flight.in_flight(), 1);
        assert!(ship(&mut flight, tokens[0]).is_some());
        assert_eq!(front(&mut flight).len(), 1);
        assert_eq!(flight.find(SeqNo::new(4)), None);
    }

    #[test]
    fn runs_are_parted_by_class() {
        let mut flight = Flight::default();
        for (seq, class) in [(0, Class::Shipped), (1, Class::Moved), (2, Class::Moved)] {
            let token = push(&mut flight, seq);
            flight.settle(token, class);
        }
        let mut told = Vec::new();
        flight.tell_front(|run, class| told.push((run.start.get()..run.end.get(), class)));
        assert_eq!(told, [(0..1, Class::Shipped), (1..3, Class::Moved)]);
    }

    #[test]
    #[should_panic(expected = "read out of order")]
    fn records_are_read_in_order() {
        let mut flight = Flight::default();
        push(&mut flight, 7);
        push(&mut flight, 7);
    }
}
