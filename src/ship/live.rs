//! The two streams of a `live_first` lane: the newest records go at once, the backlog beside them.
//!
//! Owns which numbers are whose. Pure; it must not know the log, Kafka, or how the two share the link.
//!
//! When the link comes up and the lane is far behind, what waits becomes a *hole*, and the *live*
//! stream goes on behind it, at the end of the log. The *backlog* stream reads the holes, the oldest
//! first; when none is left there is one stream again.
//!
//! ```text
//!     settled   | hole 1 |   settled   | hole 2 |  settled  |
//! low mark -----^ backlog                        live ------^         ^ end of the log
//! ```
//!
//! Invariants: every number that is still to be read is in exactly one stream. Holes are in order, apart,
//! below the live stream, and never more than [`HOLES_MAX`]: each one costs a range in the cursor.
//! But for [`Live::rewind`] the numbers of either stream only grow, so each keeps the order of the log.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::wal::SeqNo;

/// Most holes at a time. With more outages than that, the live stream does not jump but reads on.
pub const HOLES_MAX: usize = 8;
/// How far above the low mark the log keeps settlements: the live stream stops there until the
/// backlog moved. A jump leaves half of it to the records that are yet to come.
const REACH: u64 = 1 << 24;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Reads the holes.
    Backlog,
    /// Reads on from the last jump.
    Live,
}

/// How far behind is far: either is enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Far {
    /// Records that wait.
    pub records: u64,
    /// Age of the oldest of them.
    pub age: Duration,
}

impl Default for Far {
    fn default() -> Self {
        Self {
            // What a slow link carries within the few seconds that nobody would call an outage.
            records: 10_000,
            age: Duration::from_secs(10),
        }
    }
}

/// Which numbers are whose.
#[derive(Clone, Debug)]
pub struct Live {
    /// What is left of them to be read.
    holes: VecDeque<Range<SeqNo>>,
    /// Where the live stream reads next. The last jump went to the end of the last hole.
    next: SeqNo,
}

impl Live {
    /// One stream from `from` on. So does a store begin that was reopened, whatever was open before: who
    /// reads passes over what is settled.
    #[must_use]
    pub const fn new(from: SeqNo) -> Self {
        Self {
            holes: VecDeque::new(),
            next: from,
        }
    }

    /// The link came up. True: the live stream was moved to `end`, the end of the log, because what it
    /// had still to read is far behind; `low` is the low mark, and `age` that of the next record, if
    /// somebody knows it.
    pub fn link_up(&mut self, low: SeqNo, end: SeqNo, age: Option<Duration>, far: &Far) -> bool {
        let waiting = end - self.next;
        let is_far = waiting > far.records || age.is_some_and(|age| age > far.age);
        if waiting == 0 || !is_far || end - low > REACH / 2 {
            return false;
        }
        let is_full = self.holes.len() == HOLES_MAX;
        match self.holes.back_mut() {
            // Nothing was read since the last jump.
            Some(hole) if hole.end == self.next => hole.end = end,
            Some(_) if is_full => return false,
            Some(_) | None => self.holes.push_back(self.next..end),
        }
        self.next = end;
        true
    }

    /// What a stream may read next: numbers in this range and no others. `None`: it has nothing.
    #[must_use]
    pub fn range(&self, stream: Stream, low: SeqNo) -> Option<Range<SeqNo>> {
        match stream {
            Stream::Backlog => self.holes.front().cloned(),
            Stream::Live => Some(self.next..low + REACH).filter(|range| !range.is_empty()),
        }
    }

    /// A stream is done with everything of its own below `to`: it handed it over, or it is settled or
    /// not there.
    pub fn passed(&mut self, stream: Stream, to: SeqNo) {
        match stream {
            Stream::Live => self.next = self.next.max(to),
            Stream::Backlog => {
                if let Some(hole) = self.holes.front_mut() {
                    hole.start = hole.start.max(to);
                    if hole.is_empty() {
                        self.holes.pop_front();
                    }
                }
            }
        }
    }

    /// A number that was handed over is in doubt, because its producer is gone: it is read again. Name all
    /// of them, in any order.
    ///
    /// What the live stream read before its last jump belongs to the backlog from now on, and all holes
    /// become one. Who reads passes over what is settled in between.
    pub fn rewind(&mut self, seq: SeqNo) {
        match (self.holes.front(), self.holes.back()) {
            (Some(first), Some(last)) if seq < last.end => {
                let hole = first.start.min(seq)..last.end;
                self.holes.clear();
                self.holes.push_back(hole);
            }
            // Without holes there is one stream.
            _ => self.next = self.next.min(seq),
        }
    }

    /// Whether there is but one stream.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.holes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64: small, and the same everywhere.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % end
        }
    }

    /// A lane, as far as its numbers go.
    #[derive(Clone)]
    struct Lane {
        live: Live,
        end: u64,
        /// Handed over how often, and by whom first.
        handed: Vec<(u32, Option<Stream>)>,
        settled: Vec<bool>,
        /// The newest first copy of each stream.
        newest: [Option<u64>; 2],
        history: String,
    }

    impl Lane {
        fn new() -> Self {
            Self {
                live: Live::new(SeqNo::ZERO),
                end: 0,
                handed: Vec::new(),
                settled: Vec::new(),
                newest: [None; 2],
                history: String::new(),
            }
        }

        fn low(&self) -> SeqNo {
            let settled = self.settled.iter().take_while(|settled| **settled);
            SeqNo::new(settled.count() as u64)
        }

        fn append(&mut self) {
            self.end += 1;
            self.handed.push((0, None));
            self.settled.push(false);
        }

        /// The link comes up; far is more than `records`.
        fn link_up(&mut self, records: u64) {
            let far = Far {
                records,
                age: Duration::MAX,
            };
            let (low, end) = (self.low(), SeqNo::new(self.end));
            let waiting = end - self.live.next;
            let jumped = self.live.link_up(low, end, None, &far);
            assert!(!jumped || self.live.next == end && waiting > records);
        }

        /// A stream hands over its next record, passing over what is settled.
        fn hand_over(&mut self, stream: Stream) -> Option<u64> {
            let range = self.live.range(stream, self.low())?;
            let end = self.end.min(range.end.get());
            for seq in range.start.get()..end {
                self.live.passed(stream, SeqNo::new(seq + 1));
                let index = usize::try_from(seq).unwrap();
                if self.settled[index] {
                    continue;
                }
                let (count, first) = &mut self.handed[index];
                *count += 1;
                if first.is_none() {
                    *first = Some(stream);
                    let newest = &mut self.newest[stream as usize];
                    assert!(*newest < Some(seq), "{}: {seq} overtaken", self.history);
                    *newest = Some(seq);
                }
                return Some(seq);
            }
            // All of that hole was settled.
            (stream == Stream::Backlog).then(|| self.hand_over(stream))?
        }

        fn check(&self) {
            let holes = &self.live.holes;
            assert!(holes.len() <= HOLES_MAX, "{}", self.history);
            let mut below = SeqNo::ZERO;
            for hole in holes {
                assert!(
                    below <= hole.start && hole.start < hole.end,
                    "{}",
                    self.history
                );
                below = hole.end;
            }
            assert!(below <= self.live.next, "{}", self.history);
            // What nobody has handed over is in exactly one stream.
            for seq in 0..self.end {
                let index = usize::try_from(seq).unwrap();
                let seq = SeqNo::new(seq);
                let streams = holes.iter().filter(|hole| hole.contains(&seq)).count()
                    + usize::from(seq >= self.live.next);
                let is_to_come = self.handed[index].0 == 0;
                assert!(streams <= 1, "{}: {seq} twice", self.history);
                assert!(!is_to_come || streams == 1, "{}: {seq} lost", self.history);
            }
        }

        /// Both streams until nothing is left; what they handed over.
        fn drain(&mut self) -> Vec<u64> {
            let mut handed = Vec::new();
            while let Some(seq) = self
                .hand_over(Stream::Backlog)
                .or_else(|| self.hand_over(Stream::Live))
            {
                handed.push(seq);
            }
            self.check();
            assert!(self.live.is_joined(), "{}", self.history);
            handed
        }
    }

    /// Every history of nine events, without a producer that dies: each number is handed over once.
    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn every_number_is_in_one_stream_and_each_stream_is_in_order() {
        fn go_on(lane: &Lane, left: u32, jumps: &mut u32) {
            let mut last = lane.clone();
            last.drain();
            assert!(
                last.handed.iter().all(|(count, _)| *count == 1),
                "{}",
                lane.history
            );
            *jumps += u32::from(lane.live.holes.len() > 1);
            if left == 0 {
                return;
            }
            for event in "2ulb".chars() {
                let mut next = lane.clone();
                next.history.push(event);
                match event {
                    '2' => (0..2).for_each(|_| next.append()),
                    'u' => next.link_up(1),
                    'l' => drop(next.hand_over(Stream::Live)),
                    _ => drop(next.hand_over(Stream::Backlog)),
                }
                next.check();
                go_on(&next, left - 1, jumps);
            }
        }
        let mut jumps = 0;
        go_on(&Lane::new(), 9, &mut jumps);
        assert!(jumps > 100, "{jumps} histories with two holes");
    }

    /// Long histories with acknowledgements out of order and producers that die.
    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn what_is_in_doubt_is_read_again_and_nothing_is_lost() {
        let (mut most_holes, mut twice) = (0, 0);
        for seed in 0..2_000 {
            let mut random = Random(seed);
            let mut lane = Lane::new();
            lane.history = format!("seed {seed}");
            let mut flying: Vec<u64> = Vec::new();
            for _ in 0..200 {
                match random.below(12) {
                    0..=3 => (0..=random.below(4)).for_each(|_| lane.append()),
                    4..=5 => lane.link_up(random.below(4)),
                    6..=7 => flying.extend(lane.hand_over(Stream::Live)),
                    8 => flying.extend(lane.hand_over(Stream::Backlog)),
                    9..=10 if !flying.is_empty() => {
                        let index = random.below(flying.len() as u64);
                        let seq = flying.swap_remove(usize::try_from(index).unwrap());
                        lane.settled[usize::try_from(seq).unwrap()] = true;
                    }
                    11 if random.below(4) == 0 => {
                        for seq in &flying {
                            lane.live.rewind(SeqNo::new(*seq));
                        }
                        flying.clear();
                    }
                    _ => {}
                }
                lane.check();
                most_holes = most_holes.max(lane.live.holes.len());
            }
            flying.extend(lane.drain());
            for seq in flying {
                lane.settled[usize::try_from(seq).unwrap()] = true;
            }
            assert_eq!(lane.low().get(), lane.end, "seed {seed}: lost");
            twice += lane.handed.iter().filter(|(count, _)| *count > 1).count();
        }
        assert!(
            most_holes == HOLES_MAX && twice > 1000,
            "{most_holes} {twice}"
        );
    }

    #[test]
    fn the_stream_jumps_if_it_is_far_behind_in_records_or_in_time() {
        let far = Far {
            records: 10,
            age: Duration::from_secs(5),
        };
        let seconds = |n| Some(Duration::from_secs(n));
        for (end, age, jumps) in [
            (10, None, false),
            (11, None, true),
            (1, seconds(5), false),
            (1, seconds(6), true),
            (0, seconds(6), false),
        ] {
            let mut live = Live::new(SeqNo::ZERO);
            let end = SeqNo::new(end);
            assert_eq!(
                live.link_up(SeqNo::ZERO, end, age, &far),
                jumps,
                "{end} {age:?}"
            );
            assert_eq!(live.is_joined(), !jumps);
        }
    }

    #[test]
    fn the_live_stream_stays_within_reach_of_the_low_mark() {
        let low = SeqNo::new(1000);
        let mut live = Live::new(low);
        let far = Far::default();
        let beyond = low + REACH / 2 + 1;
        assert!(
            !live.link_up(low, beyond, None, &far),
            "no settlement would be kept"
        );
        assert!(live.link_up(low, low + REACH / 2, None, &far));
        live.passed(Stream::Live, low + REACH);
        assert_eq!(live.range(Stream::Live, low), None);
        assert_eq!(
            live.range(Stream::Live, low + 1),
            Some(low + REACH..low + REACH + 1)
        );
        assert_eq!(live.range(Stream::Backlog, low), Some(low..low + REACH / 2));
    }

    #[test]
    fn a_link_that_only_comes_and_goes_makes_one_hole() {
        let mut live = Live::new(SeqNo::ZERO);
        for end in 1..100 {
            let far = Far {
                records: 0,
                ..Far::default()
            };
            assert!(live.link_up(SeqNo::ZERO, SeqNo::new(end), None, &far));
        }
        assert_eq!(live.holes, [SeqNo::ZERO..SeqNo::new(99)]);
    }
}
