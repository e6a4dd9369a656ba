//! A broker that is gone, or that we cannot reach, under `drain --exactly-once`: what it leads waits, and
//! nothing of it dies.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::ship::exactly_once::ExactlyOnceOptions;
use ferrylog::ship::{Held, OnTooSlow, Progress};
use ferrylog::store::Store;
use ferrylog::wal::{Durability, Options};
use tempfile::TempDir;

use crate::committed_holds::ship_to;
use crate::copies::{self, Content};
use crate::gateway::{self, content_of};
use crate::kafka::{Builder, Kafka, wait_for};
use crate::random;

/// Longest wait for what must happen at last.
const SOON: Duration = Duration::from_secs(120);

const COUNT: u64 = 50_000;
const LEN: usize = 100;

/// Partitions that the other broker leads.
const DEAD: usize = 10;

/// A store for two topics, which lead to a broker each.
struct Test {
    store: Store,
    seed: u64,
    options: ExactlyOnceOptions,
    _dir: TempDir,
}

/// Two brokers. The first one has all that transactions need, and leads the topic `alive`; the other one
/// leads `dead`.
fn start(builder: Builder) -> (Kafka, Test) {
    let kafka = builder.brokers(2).start();
    kafka.create_topic_on("__transaction_state", &[&[0]]);
    kafka.create_topic_on("ferrylog-progress", &[&[0]]);
    kafka.create_topic_on("alive", &[&[0], &[0]]);
    kafka.create_topic_on("dead", &[&[1][..]; DEAD]);
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.durability = Durability::Os;
    let mut transactions = ExactlyOnceOptions::default();
    // Nothing here is too large for a link.
    transactions.ship.on_too_slow = OnTooSlow::DeadLetter;
    transactions.transaction_timeout = Duration::from_secs(10);
    let test = Test {
        store: Store::open(dir.path().join("store"), options).unwrap(),
        seed: random::seed(),
        options: transactions,
        _dir: dir,
    };
    (kafka, test)
}

impl Test {
    fn content(&self, n: u64) -> Content {
        content_of(self.seed, n, LEN)
    }

    fn fill(&self, range: Range<u64>) {
        gateway::fill(self.store.lane(), range, self.seed, LEN, topic);
    }

    fn ship(&self, servers: String, check: impl FnOnce(&dyn Fn() -> Progress)) {
        ship_to(&self.store, &Settings::new(servers), &self.options, check);
    }

    /// All that was appended has arrived once, and in order.
    fn check(&self, kafka: &Kafka, count: u64) {
        let log_id = self.store.lane().log_id().to_string();
        for name in ["alive", "dead"] {
            let expected: BTreeSet<u64> = (0..count).filter(|n| topic(*n) == name).collect();
            let content = |n| self.content(n);
            let repeats = copies::check_those(kafka, name, &log_id, expected, content);
            assert_eq!(repeats.duplicates, 0, "{name}");
        }
        assert_eq!(self.store.totals().dead_lettered, 0);
    }
}

fn topic(n: u64) -> &'static str {
    ["alive", "dead"][(n % 2) as usize]
}

/// Whether the partitions of `dead` are held for that, and nothing else.
fn is_held(now: &Progress, why: &str) -> bool {
    let is_it = |held: &Held| *held.topic == *"dead" && held.why.kind() == why;
    now.held.len() == DEAD && now.held.iter().all(is_it)
}

#[test]
fn what_a_broker_leads_that_is_gone_from_the_start_is_parked_and_all_the_rest_goes_on() {
    let (mut kafka, test) = start(Kafka::with());
    kafka.stop_broker(1);
    wait_for("its end", SOON, || kafka.leaders("dead") == [-1; DEAD]);
    test.fill(0..COUNT);
    let alive = kafka.watch("alive");
    let started = Instant::now();
    test.ship(kafka.bootstrap_servers(), |now| {
        wait_for("the rest", SOON, || alive.total() >= COUNT / 2);
        println!("{:.1?}: {:?}", started.elapsed(), now().why);
        wait_for("the holds", SOON, || is_held(&now(), "no_leader"));
        test.fill(COUNT..2 * COUNT);
        wait_for("more", SOON, || now().shipped == COUNT);
        assert_eq!(test.store.lane().totals().queued, 0, "it is not parked");
        kafka.restart();
        wait_for("the end", SOON, || now().queued == 0);
        println!("{:.1?}: all", started.elapsed());
    });
    test.check(&kafka, 2 * COUNT);
}

/// What is in the transaction under way then keeps Kafka from ending it.
#[test]
fn what_a_broker_leads_that_dies_arrives_once_it_is_back() {
    let (mut kafka, test) = start(Kafka::with());
    test.fill(0..COUNT);
    let started = Instant::now();
    let dead = kafka.watch("dead");
    test.ship(kafka.bootstrap_servers(), |now| {
        dead.wait_for_growth(0, COUNT / 20);
        kafka.stop_broker(1);
        println!("{:.1?}: {} across", started.elapsed(), now().shipped);
        test.fill(COUNT..2 * COUNT);
        wait_for("the reason", SOON, || {
            let why = now().why.unwrap_or_default();
            why.contains("has not ended the last transaction")
        });
        println!("{:.1?}: {:?}", started.elapsed(), now().why);
        kafka.restart();
        wait_for("the end", SOON, || now().queued == 0);
        println!("{:.1?}: all", started.elapsed());
    });
    test.check(&kafka, 2 * COUNT);
}

#[test]
fn what_a_broker_leads_that_cannot_be_reached_is_parked_and_all_the_rest_goes_on() {
    let (kafka, test) = start(Kafka::with().relayed());
    test.fill(0..COUNT);
    let started = Instant::now();
    let (alive, dead) = (kafka.watch("alive"), kafka.watch("dead"));
    test.ship(kafka.bootstrap_servers(), |now| {
        dead.wait_for_growth(0, COUNT / 20);
        kafka.relay(1).black_hole();
        println!("{:.1?}: {} across", started.elapsed(), now().shipped);
        test.fill(COUNT..2 * COUNT);
        wait_for("the rest", SOON, || alive.total() >= COUNT);
        println!("{:.1?}: {:?}", started.elapsed(), now().why);
        wait_for("the holds", SOON, || is_held(&now(), "silent"));
        // Trials of all these leave the lane most of its time.
        for n in 2..6 {
            let from = Instant::now();
            test.fill(n * COUNT..(n + 1) * COUNT);
            wait_for("more", SOON, || test.store.lane().totals().queued == 0);
            println!("{:.1?}: {n}", from.elapsed());
        }
        kafka.relay(1).pass();
        wait_for("the end", 2 * SOON, || now().queued == 0);
        println!("{:.1?}: all", started.elapsed());
    });
    test.check(&kafka, 6 * COUNT);
}

/// A large record takes a thin link long, and who leads it may be silent for that alone: the leader is asked.
#[test]
fn a_large_record_whose_broker_cannot_be_reached_is_parked_soon_and_never_too_slow() {
    const SMALL: u64 = 100;
    const LARGE: usize = 40_000;
    let (kafka, mut test) = start(Kafka::with().relayed());
    // What is late once had the longest time.
    test.options.ship.too_slow_after = test.options.transaction_timeout;
    let lane = test.store.lane();
    for n in (0..3 * SMALL).step_by(SMALL as usize) {
        gateway::fill(lane, n..n + 1, test.seed, LARGE, |_| "dead");
        gateway::fill(lane, n + 1..n + SMALL, test.seed, LEN, |_| "alive");
    }
    kafka.relay(1).black_hole();
    let started = Instant::now();
    test.ship(kafka.bootstrap_servers(), |now| {
        wait_for("the rest", SOON, || now().shipped == 3 * (SMALL - 1));
        println!("{:.1?}: {:?}", started.elapsed(), now().why);
        wait_for("the holds", SOON, || {
            let held = now().held;
            let is_silent = |held: &Held| *held.topic == *"dead" && held.why.kind() == "silent";
            !held.is_empty() && held.iter().all(is_silent)
        });
        assert_eq!(test.store.lane().totals().queued, 0, "it is not parked");
        kafka.relay(1).pass();
        wait_for("the end", 2 * SOON, || now().queued == 0);
        println!("{:.1?}: all", started.elapsed());
    });
    assert_eq!(test.store.totals().dead_lettered, 0);
    for (name, len) in [("alive", LEN), ("dead", LARGE)] {
        let is_large = |n: &u64| n.is_multiple_of(SMALL);
        let expected = (0..3 * SMALL).filter(|n| is_large(n) == (name == "dead"));
        let content = |n| content_of(test.seed, n, len);
        let log_id = lane.log_id().to_string();
        let repeats = copies::check_those(&kafka, name, &log_id, expected.collect(), content);
        assert_eq!(repeats.duplicates, 0, "{name}");
    }
}
