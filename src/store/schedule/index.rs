//! What waits for its time, and what of it is due.
//!
//! Owns the order in which things are due. Pure: the time is passed in. It must not know a log.
//!
//! Invariants: bounded, some hundred bytes a record; an id stands here once, at one place of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{
    Bound::{Excluded, Unbounded},
    Range,
};
use std::time::Duration;

use super::due::Times;
use crate::{store::Now, wal::SeqNo};

/// What is known of a record that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slip {
    /// Where its bytes stand.
    pub(super) seq: SeqNo,
    pub(super) times: Times,
    /// Its lane, as the one who made this says.
    pub(super) lane: usize,
    pub(super) len: u64,
}

/// Records that wait, by the id that each keeps.
#[derive(Debug, Default)]
pub(super) struct Index {
    slips: BTreeMap<u64, Slip>,
    by_seq: BTreeSet<(SeqNo, u64)>,
    by_wall: BTreeSet<(i64, u64)>,
    by_uptime: BTreeSet<(u64, u64)>,
    /// How many are never due.
    held: usize,
    bytes: u64,
}

impl Index {
    /// Takes a record in; one of the same id stands at the newer place from then on.
    pub(super) fn insert(&mut self, id: u64, slip: Slip) {
        self.remove(id);
        self.by_seq.insert((slip.seq, id));
        self.by_wall
            .extend(slip.times.wall_millis.map(|at| (at, id)));
        self.by_uptime
            .extend(slip.times.uptime_millis.map(|at| (at, id)));
        self.bytes += slip.len;
        self.held += usize::from(slip.times == Times::NEVER);
        self.slips.insert(id, slip);
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(slip) = self.slips.remove(&id) else {
            return;
        };
        self.by_seq.remove(&(slip.seq, id));
        if let Some(at) = slip.times.wall_millis {
            self.by_wall.remove(&(at, id));
        }
        if let Some(at) = slip.times.uptime_millis {
            self.by_uptime.remove(&(at, id));
        }
        self.bytes -= slip.len;
        self.held -= usize::from(slip.times == Times::NEVER);
    }

    /// It stays, and is never due.
    pub(super) fn hold(&mut self, id: u64) {
        if let Some(slip) = self.get(id) {
            let times = Times::NEVER;
            self.insert(id, Slip { times, ..slip });
        }
    }

    /// How many are never due.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Its bytes stand elsewhere now.
    pub(super) fn moved(&mut self, id: u64, seq: SeqNo) {
        if let Some(slip) = self.get(id) {
            self.insert(id, Slip { seq, ..slip });
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<Slip> {
        self.slips.get(&id).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.slips.len()
    }

    /// Bytes of all that waits.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the first of them stands.
    pub(super) fn oldest(&self) -> Option<SeqNo> {
        self.by_seq.first().map(|(seq, _)| *seq)
    }

    /// Those that stand in a stretch of the log, in its order.
    pub(super) fn within(&self, range: Range<SeqNo>) -> impl Iterator<Item = (SeqNo, u64)> {
        self.by_seq.range((range.start, 0)..(range.end, 0)).copied()
    }

    /// What is due, the longest overdue first; of two the one that was accepted first.
    pub(super) fn due(&self, now: &Now) -> impl Iterator<Item = (u64, Slip)> {
        let wall = now.is_trusted.then_some(now.reading.wall_millis);
        let by_wall = wall.map(|now| self.by_wall.range(..=(now, u64::MAX)));
        let by_wall = by_wall.into_iter().flatten().map(|(_, id)| *id);
        let by_uptime = (..=(now.reading.uptime_millis, u64::MAX), &self.by_uptime);
        let by_uptime = by_uptime.1.range(by_uptime.0).map(|(_, id)| *id);
        let mut due: Vec<(u64, u64, Slip)> = Vec::new();
        for id in by_wall.chain(by_uptime) {
            if let Some(slip) = self.get(id)
                && let Some(late) = slip.times.overdue(now)
            {
                due.push((u64::MAX - late, id, slip));
            }
        }
        due.sort_unstable_by_key(|(order, id, _)| (*order, *id));
        // One that is due by both clocks stands here twice, side by side.
        due.dedup_by_key(|(_, id, _)| *id);
        due.into_iter().map(|(_, id, slip)| (id, slip))
    }

    /// How long until the next one is due, if no clock is set meanwhile; `None`: by what is known, never.
    pub(super) fn next(&self, now: &Now) -> Option<Duration> {
        let by_uptime = self.by_uptime.first();
        let by_uptime = by_uptime.map(|(at, _)| at.saturating_sub(now.reading.uptime_millis));
        let by_wall = self.by_wall.first().filter(|_| now.is_trusted);
        let by_wall = by_wall.map(|(at, _)| {
            let left = at.saturating_sub(now.reading.wall_millis);
            left.max(0).unsigned_abs()
        });
        let left = by_uptime.into_iter().chain(by_wall).min()?;
        Some(Duration::from_millis(left))
    }

    /// How long until one becomes due that is not yet, by what is known.
    pub(super) fn upcoming(&self, now: &Now) -> Option<Duration> {
        let (uptime, wall) = (now.reading.uptime_millis, now.reading.wall_millis);
        let later = (Excluded((uptime, u64::MAX)), Unbounded);
        let by_uptime = self.by_uptime.range(later).next();
        let by_uptime = by_uptime.map(|(at, _)| at - uptime);
        let later = (Excluded((wall, u64::MAX)), Unbounded);
        let by_wall = self.by_wall.range(later).next();
        let by_wall = by_wall.filter(|_| now.is_trusted);
        let by_wall = by_wall.map(|(at, _)| at.abs_diff(wall));
        let left = by_uptime.into_iter().chain(by_wall).min()?;
        Some(Duration::from_millis(left))
    }

    /// When the first one is due by a wall clock, trusted or not, and how many know no other.
    pub(super) fn by_wall(&self) -> (Option<i64>, u64) {
        let first = self.by_wall.first().map(|(at, _)| *at);
        let others = self.by_uptime.len() + self.held;
        let only = self.slips.len().saturating_sub(others);
        (first, only as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::clock::tests::now;

    fn slip(seq: u64, wall_millis: Option<i64>, uptime_millis: Option<u64>) -> Slip {
        Slip {
            seq: SeqNo::new(seq),
            times: Times {
                wall_millis,
                uptime_millis,
            },
            lane: 0,
            len: 10,
        }
    }

    /// Every set of up to four records out of six kinds, at every moment and with every verdict on
    /// the clock: what is due and when the next one is, against the rule read word by word.
    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn what_is_due_is_what_a_look_at_each_says_in_the_order_of_delay() {
        let kinds = [
            (Some(2), None),
            (None, Some(2)),
            (Some(1), Some(3)),
            (Some(3), Some(1)),
            (Some(3), None),
            (None, Some(4)),
        ];
        for set in 0_usize..kinds.len().pow(4) {
            let mut index = Index::default();
            let mut slips = Vec::new();
            for n in 0..4_u32 {
                let (wall, uptime) = kinds[set / kinds.len().pow(n) % kinds.len()];
                let slip = slip(n.into(), wall, uptime);
                index.insert(n.into(), slip);
                slips.push((u64::from(n), slip));
            }
            for moment in 0..6 {
                for is_trusted in [true, false] {
                    let now = now(moment, moment.unsigned_abs(), is_trusted);
                    let late = |slip: &Slip| slip.times.overdue(&now);
                    let mut expected: Vec<_> = slips.clone();
                    expected.retain(|(_, slip)| late(slip).is_some());
                    expected.sort_by_key(|(id, slip)| (std::cmp::Reverse(late(slip)), *id));
                    let due: Vec<_> = index.due(&now).collect();
                    assert_eq!(due, expected, "{set} {moment} {is_trusted}");
                    // Nothing is due before the next one is said to be, and then something is.
                    let next = index.next(&now).map(|left| left.as_millis());
                    assert_eq!(next == Some(0), !due.is_empty());
                    // What is due hides nothing that comes.
                    let left = slips.iter().flat_map(|(_, slip)| {
                        let by_uptime = slip.times.uptime_millis.map(u64::cast_signed);
                        let by_wall = slip.times.wall_millis.filter(|_| is_trusted);
                        [by_uptime, by_wall]
                    });
                    let left = left.flatten().map(|at| at - moment);
                    let left = left.filter(|left| *left > 0).min();
                    let upcoming = index.upcoming(&now);
                    let upcoming = upcoming.map(|left| left.as_millis());
                    assert_eq!(upcoming, left.map(|left| left.unsigned_abs().into()));
                }
            }
        }
    }

    #[test]
    fn an_id_stands_at_one_place_and_what_is_removed_is_gone_everywhere() {
        let mut index = Index::default();
        index.insert(5, slip(5, Some(9), Some(9)));
        index.insert(6, slip(6, None, Some(9)));
        index.moved(5, SeqNo::new(8));
        index.moved(77, SeqNo::new(9));
        assert_eq!((index.len(), index.bytes()), (2, 20));
        assert_eq!(index.oldest(), Some(SeqNo::new(6)));
        let all = index.within(SeqNo::ZERO..SeqNo::new(9));
        assert_eq!(
            all.collect::<Vec<_>>(),
            [(SeqNo::new(6), 6), (SeqNo::new(8), 5)]
        );
        index.insert(7, slip(9, Some(1), None));
        index.hold(7);
        index.moved(7, SeqNo::new(10));
        assert_eq!((index.held(), index.by_wall()), (1, (Some(9), 0)));
        assert_eq!(index.due(&now(5, 5, true)).next(), None, "nor elsewhere");
        index.remove(7);
        assert_eq!(index.held(), 0);
        index.remove(5);
        index.remove(5);
        index.remove(6);
        assert_eq!((index.len(), index.bytes(), index.oldest()), (0, 0, None));
        assert_eq!(index.next(&now(99, 99, true)), None);
        assert_eq!(index.by_wall(), (None, 0));
    }
}
