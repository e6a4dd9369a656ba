//! What is in flight, in the order in which it was handed over; and what of it is settled.
//!
//! Pure. Must not know Kafka or the log. A token is the place of a record in that order, so that
//! numbers missing in between (settled before, or void) cost nothing.
//!
//! Invariants: numbers increase along the window; a report counts once, and a token from before a
//! [`Flight::clear`] counts nothing; the front of the window is never settled, so memory is bounded
//! by [`WINDOW_MAX`] and the low mark is never behind.

use std::collections::VecDeque;
use std::ops::Range;

use crate::wal::SeqNo;

/// Most records from the oldest unsettled one to the newest handed over. It bounds memory, and
/// what may be sent twice after a crash, when one partition lags behind the others.
pub(super) const WINDOW_MAX: usize = 1 << 20;

/// A record that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flown {
    pub(super) seq: SeqNo,
    /// Index of its topic-partition.
    pub(super) partition: u32,
    /// What it takes of the budget. A record is far below 4 GiB.
    pub(super) cost: u32,
    /// Bytes of its key and value.
    pub(super) len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InFlight,
    Settled,
    /// Settled, and the log was told.
    Told,
}

/// Everything in flight.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Token of the front of the window.
    base: u64,
    window: VecDeque<(Flown, State)>,
}

impl Flight {
    /// Whether one more may be handed over.
    pub(super) fn has_room(&self) -> bool {
        self.window.len() < WINDOW_MAX
    }

    /// The token of the record that is pushed next.
    pub(super) fn next_token(&self) -> u64 {
        self.base + length(&self.window)
    }

    /// A record was handed over with [`Flight::next_token`].
    pub(super) fn push(&mut self, flown: Flown) {
        if let Some((newest, _)) = self.window.back() {
            assert!(newest.seq < flown.seq, "handed over out of order");
        }
        self.window.push_back((flown, State::InFlight));
    }

    /// Looks up what a token stands for.
    pub(super) fn get(&self, token: u64) -> Option<Flown> {
        let index = usize::try_from(token.checked_sub(self.base)?).ok()?;
        self.window.get(index).map(|(flown, _)| *flown)
    }

    /// A record reached its final outcome. `None` if that was known, or it is not in flight.
    pub(super) fn settle(&mut self, token: u64) -> Option<Flown> {
        let index = usize::try_from(token.checked_sub(self.base)?).ok()?;
        let (flown, state) = self.window.get_mut(index)?;
        if *state != State::InFlight {
            return None;
        }
        *state = State::Settled;
        Some(*flown)
    }

    /// Hands over runs of settled numbers at the front: the low mark moves past them.
    pub(super) fn tell_front(&mut self, told: impl FnMut(Range<SeqNo>)) {
        let mut runs = Runs::new(told);
        while let Some(&(flown, state)) = self.window.front() {
            match state {
                State::InFlight => break,
                State::Settled => runs.add(flown.seq),
                State::Told => {}
            }
            self.window.pop_front();
            self.base += 1;
        }
    }

    /// Hands over runs of settled numbers behind the front. Walks the whole window: do it seldom.
    pub(super) fn tell_all(&mut self, told: impl FnMut(Range<SeqNo>)) {
        let mut runs = Runs::new(told);
        for (flown, state) in &mut self.window {
            if *state == State::Settled {
                runs.add(flown.seq);
                *state = State::Told;
            }
        }
    }

    /// The oldest record that is not settled, once all settled ones before it were told.
    pub(super) fn front(&self) -> Option<Flown> {
        self.window.front().map(|(flown, _)| *flown)
    }

    /// Forgets what is in flight: its outcome is in doubt. Tell all that is settled before.
    pub(super) fn clear(&mut self) {
        let untold = self.window.iter().any(|(_, s)| *s == State::Settled);
        assert!(!untold, "the log was not told of all that is settled");
        self.base += length(&self.window);
        self.window.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }
}

fn length(window: &VecDeque<(Flown, State)>) -> u64 {
    u64::try_from(window.len()).unwrap_or(u64::MAX)
}

/// Joins neighbouring numbers into half-open ranges; the last one is handed over on drop.
struct Runs<F: FnMut(Range<SeqNo>)> {
    told: F,
    run: Option<Range<SeqNo>>,
}

impl<F: FnMut(Range<SeqNo>)> Runs<F> {
    fn new(told: F) -> Runs<F> {
        Runs { told, run: None }
    }

    fn add(&mut self, seq: SeqNo) {
        match &mut self.run {
            Some(run) if run.end == seq => run.end = seq + 1,
            _ => {
                let begun = self.run.replace(seq..seq + 1);
                begun.into_iter().for_each(&mut self.told);
            }
        }
    }
}

impl<F: FnMut(Range<SeqNo>)> Drop for Runs<F> {
    fn drop(&mut self) {
        self.run.take().into_iter().for_each(&mut self.told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(flight: &mut Flight, seq: u64) -> u64 {
        let token = flight.next_token();
        flight.push(Flown {
            seq: SeqNo::new(seq),
            partition: 0,
            cost: 1,
            len: 1,
        });
        token
    }

    fn front(flight: &mut Flight) -> Vec<Range<u64>> {
        let mut told = Vec::new();
        flight.tell_front(|run| told.push(run.start.get()..run.end.get()));
        told
    }

    fn all(flight: &mut Flight) -> Vec<Range<u64>> {
        let mut told = Vec::new();
        flight.tell_all(|run| told.push(run.start.get()..run.end.get()));
        told
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one run is expected")]
    fn runs_are_joined_whatever_the_order_of_reports() {
        let mut flight = Flight::default();
        let tokens: Vec<u64> = (10..20).map(|seq| push(&mut flight, seq)).collect();
        for &i in &[3, 1, 2, 5, 8] {
            assert!(flight.settle(tokens[i]).is_some());
        }
        assert_eq!(front(&mut flight), []);
        assert_eq!(flight.front().map(|f| f.seq), Some(SeqNo::new(10)));
        flight.settle(tokens[0]);
        assert_eq!(front(&mut flight), [10..14]);
        assert_eq!(flight.front().map(|f| f.seq), Some(SeqNo::new(14)));
        assert_eq!(all(&mut flight), [15..16, 18..19]);
        // Told once, and not again when the front passes over it.
        flight.settle(tokens[4]);
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
            .for_each(|&t| assert!(flight.settle(t).is_some()));
        assert_eq!(front(&mut flight), [1..3, 1 << 40..(1 << 40) + 2]);
        assert!(flight.is_empty());
    }

    #[test]
    fn a_report_counts_once() {
        let mut flight = Flight::default();
        let token = push(&mut flight, 7);
        assert!(flight.settle(token).is_some());
        assert!(flight.settle(token).is_none());
        front(&mut flight);
        assert!(flight.settle(token).is_none());
        assert!(flight.settle(token + 1).is_none());
    }

    #[test]
    fn a_report_from_before_a_clear_counts_nothing() {
        let mut flight = Flight::default();
        let old = push(&mut flight, 7);
        flight.clear();
        let new = push(&mut flight, 7);
        assert_ne!(old, new);
        assert!(flight.settle(old).is_none());
        assert_eq!(flight.settle(new).map(|f| f.seq), Some(SeqNo::new(7)));
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn records_are_handed_over_in_order() {
        let mut flight = Flight::default();
        push(&mut flight, 7);
        push(&mut flight, 7);
    }
}
