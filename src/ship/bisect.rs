//! The search for one bad record in a batch that was refused.
//!
//! Pure. Must not know Kafka, nor what is done with the record that is found. A cluster refuses a
//! batch as a whole, with one code for every record in it; so a refusal judges nobody until the
//! record stood alone.
//!
//! Invariants: a piece holds one record at least; only one piece is under way; a verdict falls on
//! a piece of one record alone; the search ends, because each refusal halves the piece and
//! everything else moves it on.

use crate::wal::SeqNo;

/// How far pieces may grow while they are taken: far below librdkafka's limit for one batch
/// (`batch.num.messages`, 10,000).
const PIECE_MAX: usize = 4096;

/// One search, over the records of one partition in one log, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bisect {
    piece: usize,
    /// One of so many records that come next is bad; 0: nothing is known.
    suspects: usize,
    /// Records that were taken since the last verdict: the next bad one may be as far away.
    taken: usize,
    /// The newest record that came back: behind it nobody is suspected.
    last: SeqNo,
}

/// What a refused piece says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing yet: its first half comes next.
    Halved,
    /// It was one record: that record is refused for itself.
    Verdict,
}

impl Bisect {
    /// A search among `refused` records that came back, the newest of which is `last`.
    pub(super) fn new(refused: usize, last: SeqNo) -> Bisect {
        Bisect {
            piece: refused.div_ceil(2).clamp(1, PIECE_MAX),
            suspects: refused,
            taken: 0,
            last,
        }
    }

    /// How many records to hand over next, and nothing more until they are settled.
    pub(super) fn piece(&self) -> usize {
        self.piece
    }

    /// More records than those the search began with came back, up to this one.
    pub(super) fn reaches(&mut self, last: SeqNo) {
        self.last = self.last.max(last);
    }

    /// A piece of `handed` records came back.
    pub(super) fn refused(&mut self, handed: usize) -> Refusal {
        if handed <= 1 {
            // Bad ones may come at regular distances, or one upon the other.
            self.piece = (std::mem::take(&mut self.taken) / 4).clamp(1, PIECE_MAX);
            self.suspects = 0;
            return Refusal::Verdict;
        }
        self.piece = handed / 2;
        self.suspects = handed;
        Refusal::Halved
    }

    /// A piece of `handed` records was taken: half of the suspects that are left come next, or where
    /// there are none, twice as many.
    pub(super) fn taken(&mut self, handed: usize) {
        self.taken = self.taken.saturating_add(handed);
        self.suspects = self.suspects.saturating_sub(handed);
        let next = match self.suspects {
            0 => handed.saturating_mul(2),
            left => left / 2,
        };
        self.piece = next.clamp(1, PIECE_MAX);
    }

    /// Whether everything that came back is behind, when all up to `seq` is settled.
    pub(super) fn is_over(&self, seq: SeqNo) -> bool {
        seq >= self.last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Plays a cluster that refuses every batch with a bad record in it. Returns the verdicts, the
    /// order of the accepted, and the round trips.
    fn search(count: u64, bad: &BTreeSet<u64>) -> (Vec<u64>, Vec<u64>, u32) {
        let (mut verdicts, mut accepted, mut trips) = (Vec::new(), Vec::new(), 0);
        let all = usize::try_from(count).unwrap();
        let mut bisect = Bisect::new(all, SeqNo::new(count - 1));
        let mut next = 0;
        while next == 0 || !bisect.is_over(SeqNo::new(next - 1)) {
            let end = count.min(next + u64::try_from(bisect.piece()).unwrap());
            let handed = usize::try_from(end - next).unwrap();
            trips += 1;
            if bad.range(next..end).next().is_none() {
                accepted.extend(next..end);
                bisect.taken(handed);
                next = end;
            } else if bisect.refused(handed) == Refusal::Verdict {
                verdicts.push(next);
                next += 1;
            }
        }
        (verdicts, accepted, trips)
    }

    #[test]
    fn every_set_of_bad_records_among_ten_is_found_and_no_sibling_with_it() {
        for bits in 0u32..1 << 10 {
            let bad: BTreeSet<u64> = (0..10).filter(|n| bits >> n & 1 == 1).collect();
            let (verdicts, accepted, _) = search(10, &bad);
            assert_eq!(verdicts, bad.iter().copied().collect::<Vec<_>>());
            let good: Vec<u64> = (0..10).filter(|n| !bad.contains(n)).collect();
            assert_eq!(accepted, good, "in order, and each once");
        }
    }

    #[test]
    fn one_among_many_costs_a_few_times_the_logarithm_in_round_trips() {
        for place in [0, 1, 499, 500, 998, 999] {
            let (verdicts, accepted, trips) = search(1000, &BTreeSet::from([place]));
            assert_eq!((verdicts, accepted.len()), (vec![place], 999));
            assert!(trips <= 30, "{trips} round trips for record {place}");
        }
    }

    #[test]
    fn one_in_a_hundred_costs_ten_round_trips_each() {
        let mut state = 1_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        };
        let bad: BTreeSet<u64> = (0..20_000).filter(|_| random() % 100 == 0).collect();
        let (verdicts, _, trips) = search(20_000, &bad);
        let each = f64::from(trips) / f64::from(u32::try_from(verdicts.len()).unwrap());
        println!("{each} round trips for each of {}", verdicts.len());
        assert!(each < 10.5, "{each}");
    }

    #[test]
    fn a_batch_of_one_is_judged_when_it_stood_alone() {
        let mut bisect = Bisect::new(1, SeqNo::new(7));
        assert_eq!(bisect.piece(), 1);
        assert_eq!(bisect.refused(1), Refusal::Verdict);
        assert!(bisect.is_over(SeqNo::new(7)));
        bisect.reaches(SeqNo::new(9));
        assert!(!bisect.is_over(SeqNo::new(8)));
    }
}
