//! Everything at once, by seed: several lanes and topics, poison, records that are not taken for a
//! while, records that expire, a topic whose exhausted records are dropped, a lane whose newest go first, topics
//! that come later, spent producers, lost links, stops, reopened stores and forgotten
//! cursors. However it went, each record has one outcome, and first copies are in order.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ferrylog::message::{Expires, MessageRef};
use ferrylog::ship::{self, OnExhausted, RetryOverride, Sink};
use ferrylog::store::{LaneOptions, Order, Store, StoreOptions};
use ferrylog::wal::Durability;

use crate::random::Random;
use crate::support::{forget_cursor, options};
use crate::world::{Chaos, World};

const SEEDS: std::ops::Range<u64> = 0..5;
const WORKERS: usize = 6;
const LANES: [&str; 3] = ["default", "alarm", "bulk"];
const TOPICS: u64 = 5;
/// How many partitions each topic has, while it is there.
const COUNTS: [u32; 5] = [1, 2, 3, 4, 2];

/// What is exhausted there is dropped.
const DROPPING: &str = "t3";
/// Where the newest may go first.
const LIVE: usize = 2;

fn store_options(is_live_first: bool) -> StoreOptions {
    let mut lane = LaneOptions::default();
    // No machine fails here, only the way to the cluster.
    lane.wal.durability = Durability::Os;
    lane.wal.segment_size = 1 << 20;
    let others = LANES[1..].iter();
    let mut options = StoreOptions::default();
    options.lanes = others.map(|name| ((*name).into(), lane.clone())).collect();
    if is_live_first {
        let live = options.lanes.get_mut(LANES[LIVE]).unwrap();
        live.order = Order::LiveFirst;
    }
    options.default = lane;
    options
}

fn queued(store: &Store) -> Vec<u64> {
    let lanes = store.lanes().iter();
    lanes.map(|lane| lane.totals().queued).collect()
}

/// What a test of one seed keeps.
struct Test {
    dir: tempfile::TempDir,
    random: Random,
    world: World,
    appended: u64,
    /// By number: the lane.
    lanes: HashMap<u64, usize>,
    /// Those that may be given up without a word: they expire, or are dropped once exhausted.
    mortal: HashSet<u64>,
    is_live_first: bool,
    /// Records without an outcome when the store was closed, by lane.
    queued: Vec<u64>,
    /// A cursor had no room for all that was settled above its low mark: that was queued again.
    overflowed: bool,
    /// Whether a record may be there twice.
    forgets: bool,
}

impl Test {
    fn new(seed: u64) -> Test {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut world = World::new(random.next());
        for topic in 0..TOPICS {
            let count = (!random.one_in(3)).then_some(COUNTS[topic as usize]);
            world.counts.insert(format!("t{topic}"), count);
        }
        Test {
            dir: tempfile::tempdir().unwrap(),
            random,
            world,
            appended: 0,
            lanes: HashMap::new(),
            mortal: HashSet::new(),
            is_live_first: seed % 2 == 1,
            queued: Vec::new(),
            overflowed: false,
            forgets: false,
        }
    }

    fn open(&mut self) -> Store {
        let options = store_options(self.is_live_first);
        let store = Store::open_with(self.dir.path().join("s"), &options).unwrap();
        let more = |(before, now): (&u64, u64)| *before < now;
        if self.queued.iter().zip(queued(&store)).any(more) {
            println!("{:?} were queued, now {:?}", self.queued, queued(&store));
            self.overflowed = true;
        }
        store
    }

    fn append(&mut self, store: &Store) {
        for _ in 0..self.random.below(600) {
            let n = self.appended;
            self.appended += 1;
            let lane = self.random.below(LANES.len() as u64) as usize;
            self.lanes.insert(n, lane);
            let topic = format!("t{}", self.random.below(TOPICS));
            let key = format!("key-{}", self.random.below(9));
            let value = n.to_string();
            // Most of these arrive, or are refused, before that.
            let expires = self.random.one_in(20).then(|| self.random.below(200));
            let message = MessageRef {
                expires: expires.map(Expires::After),
                key: (!self.random.one_in(4)).then_some(key.as_bytes()),
                value: Some(value.as_bytes()),
                ..MessageRef::to(&topic)
            };
            match self.random.below(150) {
                0 => drop(self.world.poison.insert(n)),
                1 => drop(self.world.unsendable.insert(n)),
                2 => {
                    // Taken in time, or never; but never two of these side by side.
                    let is_first = !self.world.flaky.values().any(|left| *left > 2);
                    let times = if is_first { u32::MAX } else { 2 };
                    self.world.flaky.insert(n, times);
                }
                _ => {}
            }
            if expires.is_some() || (topic == DROPPING && self.world.flaky.contains_key(&n)) {
                self.mortal.insert(n);
            }
            let lane = store.lane_named(LANES[lane]).unwrap();
            drop(lane.append(&message).unwrap());
        }
        store.lanes().iter().for_each(|lane| {
            lane.sync().unwrap();
        });
    }

    /// One more of each lane for each partition: beside it a record that is never taken is judged.
    fn append_to_each(&mut self, store: &Store) {
        for (lane, name) in LANES.iter().enumerate() {
            for (topic, count) in COUNTS.iter().enumerate() {
                for partition in 0..*count {
                    let n = self.appended;
                    self.appended += 1;
                    self.lanes.insert(n, lane);
                    let (topic, value) = (format!("t{topic}"), n.to_string());
                    let message = MessageRef {
                        partition: i32::try_from(partition).ok(),
                        value: Some(value.as_bytes()),
                        ..MessageRef::to(&topic)
                    };
                    let lane = store.lane_named(name).unwrap();
                    lane.append_wait(&message).unwrap();
                }
            }
        }
    }

    fn ship(&mut self, store: &Store, timeout: Duration) -> bool {
        let stop = AtomicBool::new(false);
        let mut options = options();
        options.timeout = Some(timeout);
        options.park_after = Duration::from_millis(self.random.below(20));
        options.stop_grace = Duration::from_millis(self.random.below(2) * 50);
        options.retry.initial_backoff = Duration::from_millis(1);
        options.retry.max_backoff = Duration::from_millis(4);
        options.retry.max_attempts = 3;
        let mut dropping = RetryOverride::default();
        dropping.on_exhausted = Some(OnExhausted::Drop);
        let of_topics = &mut options.retry_overrides.topics;
        of_topics.insert(DROPPING.to_owned(), dropping);
        self.world.is_stopped = false;
        let mut sink = Chaos {
            world: &mut self.world,
            stop: &stop,
            at_poll: &mut |_| {},
        };
        sink.rebuild().unwrap();
        let ended = ship::drain_into(store, &mut sink, &options, &stop, &mut |_| {});
        self.world.lose_process();
        if self.world.faults == 0 {
            println!("{ended:?}");
        }
        match ended {
            Ok(drained) => drained.is_empty,
            Err(ship::Error::Held { .. } | ship::Error::Unreachable { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn round(&mut self) {
        let store = self.open();
        self.append(&store);
        self.world.faults = [0, 10, 100][self.random.below(3) as usize];
        self.world.stop_after = self.random.one_in(2).then(|| self.random.below(700));
        if self.random.one_in(3) {
            // A topic comes or goes.
            let topic = self.random.below(TOPICS);
            let count = self.world.counts.get_mut(&format!("t{topic}")).unwrap();
            *count = match count {
                Some(_) => None,
                None => Some(COUNTS[topic as usize]),
            };
        }
        let was_empty = self.ship(&store, Duration::from_millis(100));
        println!("{} appended, empty: {was_empty}", self.appended);
        let is_forgotten = self.forgets && self.random.one_in(3);
        self.queued = queued(&store);
        store.close().unwrap();
        if is_forgotten {
            forget_cursor(&self.dir.path().join("s"), LANES[0]);
        }
    }

    fn last_round(&mut self) -> Store {
        for topic in 0..TOPICS {
            let count = Some(COUNTS[topic as usize]);
            self.world.counts.insert(format!("t{topic}"), count);
        }
        self.world.faults = 0;
        self.world.stop_after = None;
        let store = self.open();
        self.append_to_each(&store);
        let is_empty = self.ship(&store, Duration::from_secs(5));
        for log in store.parking_logs() {
            println!(
                "{} {} {:?}: {:?}",
                log.lane(),
                log.topic(),
                log.partition(),
                log.totals()
            );
        }
        for lane in store.lanes() {
            println!("{}: {:?}", lane.name(), lane.totals());
        }
        assert!(is_empty, "something never goes");
        store
    }

    /// Returns how many records are there more than once.
    fn check(&self, store: &Store) -> usize {
        let mut repeats = 0;
        let mut outcome = vec![0; usize::try_from(self.appended).unwrap()];
        for (place, records) in &self.world.written {
            let mut newest: HashMap<usize, u64> = HashMap::new();
            let mut seen = HashSet::new();
            for (n, id) in records {
                if !seen.insert(n) {
                    // Only what nobody was told of, or was forgotten.
                    let may_be = self.forgets || self.overflowed || self.world.in_doubt.contains(n);
                    assert!(may_be, "{n} twice in {place:?}");
                    repeats += 1;
                    continue;
                }
                let (_, seq) = id.split_once('-').unwrap();
                let seq: u64 = seq.parse().unwrap();
                let lane = self.lanes[n];
                let before = newest.insert(lane, seq);
                assert!(
                    before < Some(seq) || (self.is_live_first && lane == LIVE),
                    "lane {lane}, {place:?}: {seq} after {before:?}"
                );
                outcome[usize::try_from(*n).unwrap()] += 1;
            }
        }
        if let Some(letters) = store.dead_letters_if_any().unwrap() {
            for seq in letters.open_letters(|_, _, _| true) {
                let letter = letters.get(seq).unwrap().unwrap();
                let value = letter.body.content.as_ref().unwrap().value.clone().unwrap();
                let n: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
                outcome[usize::try_from(n).unwrap()] += 1;
                let is_guilty = self.world.poison.contains(&n)
                    || self.world.unsendable.contains(&n)
                    || self.world.flaky.contains_key(&n);
                assert!(is_guilty, "{n} is dead, and was never refused alone");
            }
        }
        let mut given_up = 0;
        for (n, count) in (0_u64..).zip(&outcome) {
            match count {
                0 if self.mortal.contains(&n) => given_up += 1,
                count => assert_eq!(*count, 1, "outcomes of {n}"),
            }
        }
        let totals = store.lanes().iter().map(ferrylog::store::Lane::totals);
        let totals = totals.chain(
            store
                .parking_logs()
                .map(ferrylog::store::ParkingLog::totals),
        );
        let mut told = 0;
        for totals in totals {
            assert!(totals.balances() && totals.queued == 0, "{totals:?}");
            told += totals.expired + totals.dropped;
        }
        // One of which nobody was told may be there all the same; with a cursor its counts are forgotten.
        let is_told = self.forgets || given_up <= told;
        assert!(is_told, "{given_up} are gone, {told} are told");
        println!("{given_up} given up of {}", self.mortal.len());
        repeats
    }
}

/// Several at a time: they wait more than they work.
fn run_all(forgets: bool) {
    let seeds = Mutex::new(seeds());
    let repeats = AtomicUsize::new(0);
    let work = || {
        while let Some(seed) = { seeds.lock().unwrap().next() } {
            repeats.fetch_add(run(seed, forgets), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().unwrap();
        }
    });
    let repeats = repeats.into_inner();
    println!("{repeats} repeated");
}

fn run(seed: u64, forgets: bool) -> usize {
    let mut test = Test::new(seed);
    test.forgets = forgets;
    for _ in 0..2 + test.random.below(4) {
        test.round();
    }
    let store = test.last_round();
    test.check(&store)
}

#[test]
fn whatever_happens_each_record_has_one_outcome_and_first_copies_are_in_order() {
    run_all(false);
}

#[test]
fn a_forgotten_cursor_repeats_runs_and_changes_neither_outcome_nor_order() {
    run_all(true);
}

/// Or those that are named.
fn seeds() -> std::ops::Range<u64> {
    match std::env::var("FERRYLOG_TEST_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").unwrap();
            from.parse().unwrap()..to.parse().unwrap()
        }
        Err(_) => SEEDS,
    }
}
