//! A partition or a topic that takes nothing: it is held and says why, then parked; all others go
//! on, and its records arrive in order when the cause is gone.
//!
//! The loop is called as a library and runs until it is told to stop, as in a service: nobody
//! starts it again.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::ship::{Held, LinkState, ShipOptions};
use ferrylog::store::Store;
use ferrylog::wal::{Durability, Options};
use tempfile::TempDir;

use crate::copies::{self, Repeats};
use crate::gateway::{self, content_of};
use crate::kafka::{Kafka, Operation, Resource, USER, wait_for};
use crate::random;
use crate::shipping::Shipping;

const LEN: usize = 100;

/// Longest wait for what must happen at last.
const SOON: Duration = Duration::from_secs(60);

/// How long a partition is held here before it is parked.
const PARK_AFTER: Duration = Duration::from_secs(3);

/// A store whose record `n` goes to the topic that `n` chooses in turn.
struct Scratch {
    store: Arc<Store>,
    topics: Vec<String>,
    seed: u64,
    dir: TempDir,
}

/// The smallest there are: what is released shows on the disk.
const SEGMENT: u64 = 1 << 20;

impl Scratch {
    fn new(topics: &[&str]) -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.durability = Durability::Os;
        options.segment_size = SEGMENT;
        Scratch {
            store: Arc::new(Store::open(dir.path().join("store"), options).unwrap()),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            seed: random::seed(),
            dir,
        }
    }

    /// Bytes of the files of the lane itself.
    fn lane_bytes(&self) -> u64 {
        let files = fs::read_dir(self.dir.path().join("store/lanes/default")).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    }

    fn topic(&self, n: u64) -> &str {
        &self.topics[n as usize % self.topics.len()]
    }

    /// Appends records until there are `count`.
    fn fill(&self, count: u64) {
        let lane = self.store.lane();
        let new = lane.totals().accepted..count;
        gateway::fill(lane, new, self.seed, LEN, |n| self.topic(n));
    }

    /// Ships it on a thread of its own, until it is told to stop.
    fn ship(&self, kafka: &Kafka) -> Shipping {
        let settings = Settings {
            properties: kafka.client_properties(),
            ..Settings::new(kafka.bootstrap_servers())
        };
        let mut options = ShipOptions::default();
        options.park_after = PARK_AFTER;
        Shipping::start(&self.store, settings, options)
    }

    /// Judges what arrived of the first `count` records in one of the topics.
    fn check(&self, kafka: &Kafka, topic: &str, count: u64) -> Repeats {
        let expected: BTreeSet<u64> = (0..count).filter(|&n| self.topic(n) == topic).collect();
        let log_id = self.store.lane().log_id().to_string();
        let content = |n| content_of(self.seed, n, LEN);
        let repeats = copies::check_those(kafka, topic, &log_id, expected, content);
        println!("{topic}: {repeats:?}");
        repeats
    }
}

#[test]
fn what_a_dead_broker_leads_waits_and_all_the_rest_goes_on() {
    const COUNT: u64 = 200_000;
    let mut kafka = Kafka::with().brokers(2).start();
    kafka.create_topic_on("alive", &[&[0], &[0]]);
    kafka.create_topic_on("dead", &[&[1], &[1]]);
    let scratch = Scratch::new(&["alive", "dead"]);
    scratch.fill(COUNT);
    let (alive, dead) = (kafka.watch("alive"), kafka.watch("dead"));
    let shipping = scratch.ship(&kafka);
    dead.wait_for_growth(0, COUNT / 20);
    kafka.stop_broker(1);
    let arrived = alive.total();
    println!("{arrived} of {} when it was killed", COUNT / 2);
    assert!(arrived < COUNT / 2, "it was killed too late");
    // More comes, so that what is parked is not only what was there.
    scratch.fill(2 * COUNT);
    let started = Instant::now();
    shipping.wait_for("the living", |_| alive.total() >= COUNT);
    println!("all of the living after {:.1?}", started.elapsed());
    // Silent first, and without a leader once the others have noticed.
    shipping.wait_for("holds of the dead alone", |progress| {
        let held = &progress.held;
        let kinds = ["silent", "no_leader"];
        let is_it = |held: &Held| *held.topic == *"dead" && kinds.contains(&held.why.kind());
        held.len() == 2 && held.iter().all(is_it)
    });
    // Parked as a whole: the lane goes on without it.
    wait_for("parking", SOON, || {
        scratch.store.lane().totals().queued == 0
    });
    println!("all of the dead parked after {:.1?}", started.elapsed());
    // How long the living take for what comes now, and once both are there.
    let alive_until = |count| {
        let started = Instant::now();
        scratch.fill(count);
        shipping.wait_for("the living", |_| alive.total() >= count / 2);
        started.elapsed()
    };
    let beside_dead = alive_until(3 * COUNT);
    kafka.restart();
    shipping.wait_until_empty();
    let beside_living = alive_until(4 * COUNT);
    println!("{beside_dead:.1?} beside a dead broker, {beside_living:.1?} beside a living one");
    // Any wait for the dead one would be its timeout.
    let most = beside_living.mul_f64(1.5) + Duration::from_secs(1);
    assert!(beside_dead < most, "the rate is not the full one");
    let progress = shipping.wait_until_empty();
    println!("all there after {:.1?}", started.elapsed());
    assert_eq!(progress.counters.dead_lettered, 0);
    println!("{:?}", shipping.end());
    for topic in ["alive", "dead"] {
        let repeats = scratch.check(&kafka, topic, 4 * COUNT);
        // What was in doubt when the broker died, once.
        assert!(repeats.runs <= 1, "{repeats:?}");
    }
}

#[test]
fn one_topic_of_ten_that_is_missing_is_parked_and_arrives_when_it_is_created() {
    const COUNT: u64 = 200_000;
    const MISSING: &str = "t3";
    let topics = [
        "t0", "t1", "t2", MISSING, "t4", "t5", "t6", "t7", "t8", "t9",
    ];
    let kafka = Kafka::start();
    let others = topics.iter().filter(|&&topic| topic != MISSING);
    others
        .clone()
        .for_each(|topic| kafka.create_topic(topic, 2));
    let scratch = Scratch::new(&topics);
    scratch.fill(COUNT);
    let shipping = scratch.ship(&kafka);
    shipping.wait_until_held(MISSING, "unknown_topic");
    shipping.wait_for("the others", |progress| {
        progress.counters.shipped == COUNT / 10 * 9
    });
    // All of the missing one is parked, so no segment of the lane is kept for it.
    wait_for("parking", SOON, || {
        scratch.store.lane().totals().queued == 0
    });
    let marks = scratch.store.lane().marks();
    assert_eq!(marks.acked.get(), COUNT);
    scratch.fill(2 * COUNT);
    wait_for("parking", SOON, || {
        scratch.store.lane().totals().queued == 0
    });
    // The newest one, two spares, the next one, and the cursor.
    wait_for("the segments to go", SOON, || {
        scratch.lane_bytes() < 5 * SEGMENT
    });
    shipping.wait_until_held(MISSING, "unknown_topic");
    kafka.create_topic(MISSING, 2);
    let progress = shipping.wait_until_empty();
    assert_eq!(progress.counters.shipped, 2 * COUNT);
    assert_eq!(progress.counters.dead_lettered, 0);
    println!("{:?}", shipping.end());
    for topic in topics {
        let repeats = scratch.check(&kafka, topic, 2 * COUNT);
        assert_eq!(repeats.duplicates, 0, "{topic}");
    }
}

#[test]
fn a_topic_deleted_and_created_again_gets_all_that_it_had_not_taken() {
    const COUNT: u64 = 100_000;
    let kafka = Kafka::start();
    kafka.create_topic("stays", 2);
    kafka.create_topic("goes", 2);
    let scratch = Scratch::new(&["stays", "goes"]);
    scratch.fill(COUNT);
    let shipping = scratch.ship(&kafka);
    shipping.wait_until_empty();
    kafka.delete_topic("goes");
    scratch.fill(2 * COUNT);
    shipping.wait_until_held("goes", "unknown_topic");
    let stays = kafka.watch("stays");
    wait_for("the other one", SOON, || stays.total() == COUNT);
    kafka.create_topic("goes", 2);
    let progress = shipping.wait_until_empty();
    assert_eq!(progress.counters.dead_lettered, 0);
    println!("{:?}", shipping.end());
    assert_eq!(scratch.check(&kafka, "stays", 2 * COUNT).duplicates, 0);
    // What was shipped before went with the topic.
    let content = |n| content_of(scratch.seed, n, LEN);
    let log_id = scratch.store.lane().log_id().to_string();
    let rest = (COUNT..2 * COUNT).filter(|&n| scratch.topic(n) == "goes");
    let repeats = copies::check_those(&kafka, "goes", &log_id, rest.collect(), content);
    assert_eq!(repeats.duplicates, 0);
}

#[test]
fn a_right_that_is_withdrawn_holds_its_topic_until_it_is_granted_again() {
    const COUNT: u64 = 100_000;
    let kafka = Kafka::with().with_acls().start();
    for topic in ["free", "closed"] {
        kafka.create_topic(topic, 2);
        kafka.grant(USER, Resource::Topic(topic), Operation::Write);
    }
    let scratch = Scratch::new(&["free", "closed"]);
    scratch.fill(COUNT);
    let shipping = scratch.ship(&kafka);
    shipping.wait_until_empty();
    kafka.withdraw(USER, Resource::Topic("closed"));
    kafka.grant(USER, Resource::Topic("closed"), Operation::Describe);
    // Rights are withdrawn when the broker has heard of it, which no answer tells.
    let mut count = COUNT;
    while shipping.newest().is_none_or(|p| p.held.is_empty()) {
        count += 1000;
        scratch.fill(count);
        thread::sleep(Duration::from_millis(20));
        assert!(count < 20 * COUNT, "it is not withdrawn");
    }
    count += COUNT;
    scratch.fill(count);
    let progress = shipping.wait_until_held("closed", "refused");
    assert_eq!(progress.link_state, LinkState::Up);
    let free = kafka.watch("free");
    wait_for("the other one", SOON, || free.total() == count / 2);
    kafka.grant(USER, Resource::Topic("closed"), Operation::Write);
    let progress = shipping.wait_until_empty();
    assert_eq!(progress.counters.dead_lettered, 0);
    println!("{:?}", shipping.end());
    for topic in ["free", "closed"] {
        assert_eq!(scratch.check(&kafka, topic, count).duplicates, 0);
    }
}
