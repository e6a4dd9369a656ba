//! Several lanes on a link that is too thin for all of them: each gets its share, and an alarm does
//! not wait behind what lies in bulk.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::ShipOptions;
use ferrylog::store::{LaneOptions, Store, StoreOptions};
use ferrylog::wal::{Durability, Options};
use tempfile::TempDir;

use crate::gateway::content_of;
use crate::kafka::Kafka;
use crate::random;
use crate::shipping::Shipping;

/// A lane of its own for each of these topics, with these weights.
fn open(lanes: &[(String, u32)]) -> (Arc<Store>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Options::default();
    log.durability = Durability::Os;
    let mut options = StoreOptions::new(log.clone());
    for (topic, weight) in lanes {
        let mut lane = LaneOptions::new(log.clone());
        (lane.topics, lane.weight) = (vec![topic.clone()], *weight);
        options.lanes.insert(topic.clone(), lane);
    }
    let store = Store::open_with(dir.path().join("store"), &options).unwrap();
    (Arc::new(store), dir)
}

/// Appends `count` records with keys for a topic, to the lane that is its own.
fn fill(store: &Store, topic: &str, seed: u64, count: u64, len: usize) {
    let lane = store.route(topic);
    for n in 0..count {
        let (key, value) = content_of(seed, n, len);
        let message = MessageRef {
            key: key.as_deref(),
            value: Some(&value),
            ..MessageRef::to(topic)
        };
        // The sync below waits for all of them.
        drop(lane.append(&message).unwrap());
    }
    lane.sync().unwrap();
}

fn ship(store: &Arc<Store>, kafka: &Kafka) -> Shipping {
    let settings = Settings::new(kafka.bootstrap_servers());
    Shipping::start(store, settings, ShipOptions::default())
}

#[test]
fn an_alarm_crosses_a_thin_line_within_ten_seconds_whatever_lies_in_bulk() {
    const RATE: u32 = 64_000 / 8;
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    kafka.create_topic("bulk", 4);
    kafka.create_topic("alarm", 1);
    let (store, _dir) = open(&[("bulk".to_owned(), 1), ("alarm".to_owned(), 8)]);
    // Twice of what crosses in all of this test.
    fill(&store, "bulk", seed, 2_000, 400);
    kafka.relay(0).limit(RATE);
    let (bulk, alarm) = (kafka.watch("bulk"), kafka.watch("alarm"));
    let shipping = ship(&store, &kafka);
    bulk.wait_for_growth(0, 100);
    for n in 1..=3 {
        let raised = Instant::now();
        fill(&store, "alarm", seed, 1, 100);
        alarm.wait_for_growth(n - 1, 1);
        let took = raised.elapsed();
        println!("alarm {n}: {took:.1?}, {} in bulk", bulk.total());
        assert!(took < Duration::from_secs(10), "{took:?}");
        // Then the flight is full of bulk again.
        bulk.wait_for_growth(bulk.total(), 50);
    }
    assert!(store.route("bulk").totals().queued > 0, "nothing is left");
    kafka.relay(0).pass();
    shipping.wait_until_empty();
}

#[test]
fn ten_lanes_share_a_thin_line_by_their_weights() {
    const WEIGHTS: [u32; 10] = [8, 8, 8, 4, 4, 4, 1, 1, 1, 1];
    const LEN: usize = 1000;
    const RATE: u32 = 400_000;
    const LASTS: Duration = Duration::from_secs(20);
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    let named = WEIGHTS.iter().enumerate();
    let lanes: Vec<(String, u32)> = named.map(|(n, &w)| (format!("lane-{n}"), w)).collect();
    let (store, _dir) = open(&lanes);
    for (topic, _) in &lanes {
        kafka.create_topic(topic, 4);
        // More than the heaviest lane gets. One partition gets no more than an eighth of the flight.
        fill(&store, topic, seed, 3_000, LEN);
    }
    kafka.relay(0).limit(RATE);
    let watches: Vec<_> = lanes.iter().map(|(topic, _)| kafka.watch(topic)).collect();
    let shipping = ship(&store, &kafka);
    let counts = || -> Vec<u64> { watches.iter().map(|watch| watch.total()).collect() };
    // Not what fills the flight at first.
    thread::sleep(LASTS / 4);
    let before = counts();
    thread::sleep(LASTS);
    let after = counts();
    let grown: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    println!("{before:?} to {after:?}: {grown:?}");
    let total: u64 = grown.iter().sum();
    let weights: u32 = WEIGHTS.iter().sum();
    for ((topic, weight), grown) in lanes.iter().zip(&grown) {
        let fair = total as f64 * f64::from(*weight) / f64::from(weights);
        let share = *grown as f64 / fair;
        println!("{topic}: {share:.2} of its share");
        assert!(store.route(topic).totals().queued > 0, "{topic} is empty");
        assert!((0.9..1.1).contains(&share), "{topic}: {share:.2}");
    }
    kafka.relay(0).pass();
    shipping.wait_until_empty();
}
