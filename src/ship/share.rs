//! Sharing the link between lanes, by weight and in bytes.
//!
//! Owns whose turn it is. Pure; it must not know what a lane is, nor what makes it ready.
//!
//! Each lane has a *tag*: the bytes it was charged, divided by its weight. The ready lane with the
//! lowest tag is next; the clock of all this, the *present*, is the tag that the last charged lane had.
//!
//! Invariants: of two lanes that stay ready, the charges divided by the weights never differ by more
//! than one charge of each, divided alike; so a lane that stays ready waits for a bounded number of
//! bytes, and none starves. A lane that was not ready while others were charged starts at the present:
//! it gathers no credit, and its debt is worked off meanwhile. Asking changes nothing.

use std::cmp::Reverse;

/// One byte of a lane of weight 1: large enough that rounding a charge is never seen.
const BYTE: u128 = 1 << 32;

/// Whose turn it is.
#[derive(Clone, Debug)]
pub struct Share {
    lanes: Vec<Account>,
    present: u128,
}

#[derive(Clone, Debug)]
struct Account {
    weight: u32,
    tag: u128,
}

impl Share {
    /// Lanes of these weights, named by their index. A weight of 0 counts as 1.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let account = |weight: u32| Account {
            weight: weight.max(1),
            tag: 0,
        };
        Self {
            lanes: weights.into_iter().map(account).collect(),
            present: 0,
        }
    }

    /// The lane that is to be served next, of those that are ready: that may have a record to be
    /// handed over. `None`: none is. Looks at each lane once.
    pub fn next(&self, ready: impl Fn(usize) -> bool) -> Option<usize> {
        (0..self.lanes.len())
            .filter(|lane| ready(*lane))
            // Of equals the heaviest: what is urgent waits for nobody.
            .min_by_key(|lane| (self.tag(*lane), Reverse(self.lanes[*lane].weight)))
    }

    /// Counts what a lane has just handed over. 0 bytes: there was nothing, or no room; whoever waits
    /// keeps its claim.
    ///
    /// # Panics
    ///
    /// Panics if there is no such lane.
    pub fn charge(&mut self, lane: usize, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.present = self.tag(lane);
        let account = &mut self.lanes[lane];
        let cost = BYTE * (bytes as u128) / u128::from(account.weight);
        account.tag = self.present + cost;
    }

    /// Nothing waits in any lane: no debt outlives that.
    pub fn forgive(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.tag = 0);
        self.present = 0;
    }

    fn tag(&self, lane: usize) -> u128 {
        self.lanes[lane].tag.max(self.present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64: small, and the same everywhere.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((z ^ (z >> 31)) >> 33).unwrap() % end
        }
    }

    /// Serves `count` turns with all lanes ready and records of these sizes; the bytes of each lane.
    fn serve(share: &mut Share, count: usize, mut size: impl FnMut(usize) -> usize) -> Vec<usize> {
        let mut bytes = vec![0; share.lanes.len()];
        for _ in 0..count {
            let lane = share.next(|_| true).unwrap();
            let size = size(lane);
            share.charge(lane, size);
            bytes[lane] += size;
        }
        bytes
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn ten_lanes_get_what_their_weights_say_whatever_the_sizes() {
        let weights = [8, 8, 8, 4, 4, 4, 4, 1, 1, 1];
        let total: u32 = weights.iter().sum();
        for seed in 0..100 {
            let mut random = Random(seed);
            // Each lane has its own sizes, from tiny to large.
            let largest: Vec<usize> = (0..10).map(|_| 1 << random.below(15)).collect();
            let mut share = Share::new(weights);
            let bytes = serve(&mut share, 200_000, |lane| 1 + random.below(largest[lane]));
            let sum: usize = bytes.iter().sum();
            for (lane, weight) in weights.into_iter().enumerate() {
                let fair = sum as f64 * f64::from(weight) / f64::from(total);
                let off = (bytes[lane] as f64 - fair).abs();
                // Two records of the largest size, from the invariant; a small run is all edge.
                let edge = 2.0 * f64::from(weight) * 16_384.0;
                assert!(off <= edge, "seed {seed}, lane {lane}: {off} of {fair}");
                if fair > 10.0 * edge {
                    assert!(
                        off <= fair / 10.0,
                        "seed {seed}, lane {lane}: {off} of {fair}"
                    );
                }
            }
        }
    }

    /// Every history of five turns of three lanes that come and go, with two sizes each.
    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn of_two_lanes_that_stay_ready_none_is_ahead_by_more_than_a_record_each() {
        const TURNS: u32 = 5;
        let weights = [1_u32, 2, 4];
        for (small, large) in [(1, 1), (1, 9), (5, 7)] {
            let sizes = [small, large, small];
            for history in 0..8_usize.pow(TURNS) {
                let mut share = Share::new(weights);
                let mut since = [0_i64; 3];
                for turn in 0..TURNS {
                    let mask = history >> (3 * turn) & 7;
                    let ready = |lane: usize| mask >> lane & 1 == 1;
                    let next = share.next(ready);
                    assert_eq!(next.is_some(), mask != 0);
                    let Some(next) = next else {
                        since = [0; 3];
                        continue;
                    };
                    assert!(ready(next));
                    share.charge(next, sizes[next]);
                    // Twelfths of a byte: every weight divides them.
                    let cost = |lane: usize| {
                        i64::try_from(sizes[lane]).unwrap() * 12 / i64::from(weights[lane])
                    };
                    for (pair, (a, b)) in [(0, 1), (0, 2), (1, 2)].into_iter().enumerate() {
                        since[pair] += if next == a { cost(a) } else { 0 };
                        since[pair] -= if next == b { cost(b) } else { 0 };
                        if !(ready(a) && ready(b)) {
                            since[pair] = 0;
                        }
                        assert!(
                            since[pair].abs() <= cost(a) + cost(b),
                            "history {history:o}: lanes {a} and {b} are {since:?} apart"
                        );
                    }
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn an_idle_lane_that_comes_back_is_served_at_once_and_does_not_burst() {
        let mut share = Share::new([1, 8]);
        for _ in 0..100_000 {
            assert_eq!(share.next(|lane| lane == 0), Some(0));
            share.charge(0, 1000);
        }
        assert_eq!(
            share.next(|_| true),
            Some(1),
            "what is urgent waits for nobody"
        );
        let bytes = serve(&mut share, 900, |_| 1000);
        assert!((95..=105).contains(&(bytes[0] / 1000)), "{bytes:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn one_huge_record_is_paid_for_and_then_forgotten() {
        let mut share = Share::new([1, 1]);
        share.charge(0, 16_000_000);
        let bytes = serve(&mut share, 32_000, |_| 1000);
        assert_eq!(bytes[1] - bytes[0], 16_000_000);

        // While it is idle, others work its debt off.
        share.charge(0, 16_000_000);
        for _ in 0..16_001 {
            assert_eq!(share.next(|lane| lane == 1), Some(1));
            share.charge(1, 1000);
        }
        assert_eq!(share.next(|_| true), Some(0));

        // And when nothing waits at all, nothing is left of it.
        share.charge(0, 16_000_000);
        share.forgive();
        let bytes = serve(&mut share, 100, |_| 1000);
        assert_eq!(bytes, [50_000, 50_000]);
    }

    /// As on a slow link: there is room for one record, then for none, and each lane is asked every time.
    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn whoever_finds_no_room_keeps_its_claim() {
        let weights = [8, 4, 1];
        let mut share = Share::new(weights);
        let mut bytes = [0; 3];
        for _ in 0..13_000 {
            let mut is_ready = [true; 3];
            let mut has_room = true;
            while let Some(lane) = share.next(|lane| is_ready[lane]) {
                let sent = if has_room { 1_000 } else { 0 };
                share.charge(lane, sent);
                bytes[lane] += sent;
                (has_room, is_ready[lane]) = (false, false);
            }
        }
        for (lane, weight) in weights.into_iter().enumerate() {
            let fair = 1_000_000 * usize::try_from(weight).unwrap();
            assert!(bytes[lane].abs_diff(fair) <= 8_000, "{bytes:?}");
        }
    }

    #[test]
    fn no_weight_is_nothing() {
        let mut share = Share::new([0, 1]);
        assert_eq!(serve(&mut share, 100, |_| 10), [500, 500]);
    }

    #[test]
    fn without_lanes_it_is_nobodys_turn() {
        assert_eq!(Share::new([]).next(|_| true), None);
    }
}
