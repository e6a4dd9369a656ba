//! Several lanes on a link that is too thin for all of them: each gets its share, and an alarm does
//! not wait behind what lies in bulk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::ship::{LinkState, ShipOptions};
use ferrylog::store::{LaneOptions, Order, Store, StoreOptions};
use ferrylog::wal::{Durability, Options};
use tempfile::TempDir;

use crate::gateway;
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
pub(crate) fn fill(store: &Store, topic: &str, seed: u64, count: u64, len: usize) {
    gateway::fill(store.route(topic), 0..count, seed, len, |_| topic);
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
fn ten_lanes_share_a_thin_line_by_their_weights_and_none_starves() {
    const WEIGHTS: [u32; 10] = [8, 8, 8, 4, 4, 4, 4, 1, 1, 1];
    const RATE: u32 = 800_000;
    /// Looked at when so many have arrived.
    const COUNT: u64 = 20_000;
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    let sum: u32 = WEIGHTS.iter().sum();
    let lanes: Vec<(String, u32)> = (0..).map(|n| format!("t{n}")).zip(WEIGHTS).collect();
    let (store, _dir) = open(&lanes);
    for (topic, weight) in &lanes {
        kafka.create_topic(topic, 1);
        let share = COUNT * u64::from(*weight) / u64::from(sum);
        fill(&store, topic, seed, share * 3 / 2, 400);
    }
    kafka.relay(0).limit(RATE);
    let watches: Vec<_> = lanes.iter().map(|(topic, _)| kafka.watch(topic)).collect();
    let mut options = ShipOptions::default();
    // A line in between, so that the tail of what is in flight says little.
    options.max_in_flight_bytes = 256 * 1024;
    let settings = Settings::new(kafka.bootstrap_servers());
    let shipping = Shipping::start(&store, settings, options);
    let mut counts;
    loop {
        counts = watches
            .iter()
            .map(|watch| watch.total())
            .collect::<Vec<_>>();
        if counts.iter().sum::<u64>() >= COUNT {
            break;
        }
    }
    let total: u64 = counts.iter().sum();
    for ((topic, weight), count) in lanes.iter().zip(&counts) {
        let got = *count as f64 / total as f64;
        let fair = f64::from(*weight) / f64::from(sum);
        println!("weight {weight}: {count} records, {got:.4}, fair {fair:.4}");
        assert!(
            (got - fair).abs() <= fair / 10.0,
            "{topic}: {got} of {fair}"
        );
        assert!(store.route(topic).totals().queued > 0, "{topic} is empty");
    }
    kafka.relay(0).pass();
    shipping.wait_until_empty();
}

#[test]
fn after_an_outage_the_newest_records_arrive_within_two_seconds_and_the_backlog_beside_them() {
    const BACKLOG: u64 = 1_000_000;
    const SOON: Duration = Duration::from_secs(2);
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    kafka.create_topic("bulk", 4);
    kafka.create_topic("newest", 1);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Options::default();
    log.durability = Durability::Os;
    let mut options = StoreOptions::new(log);
    options.default.order = Order::LiveFirst;
    let store = Arc::new(Store::open_with(dir.path().join("store"), &options).unwrap());
    let shipping = ship(&store, &kafka);
    fill(&store, "bulk", seed, 10, 20);
    shipping.wait_for("the first ones", |progress| progress.shipped == 10);
    kafka.relay(0).refuse();
    kafka.relay(0).cut();
    fill(&store, "bulk", seed, BACKLOG, 100);
    shipping.wait_for("the outage", |progress| {
        progress.link_state == LinkState::Down
    });
    fill(&store, "newest", seed, 1, 20);
    let (bulk, newest) = (kafka.watch("bulk"), kafka.watch("newest"));
    kafka.relay(0).pass();
    // However long librdkafka takes to connect to each broker again.
    bulk.wait_for_growth(10, 1);
    for n in 0..10 {
        let since = Instant::now();
        newest.wait_for_growth(n, 1);
        let queued = store.lane().totals().queued;
        println!("{n}: {:.2?}, {queued} in the backlog", since.elapsed());
        assert!(since.elapsed() < SOON);
        if queued == 0 {
            assert!(n > 2, "nothing was left to wait behind");
            break;
        }
        bulk.wait_for_growth(bulk.total(), BACKLOG / 20);
        fill(&store, "newest", seed, 1, 20);
    }
    shipping.wait_until_empty();
    let drained = shipping.end();
    let arrived = bulk.total() + newest.total();
    assert_eq!(arrived, drained.shipped);
    assert_eq!(store.lane().totals().accepted, arrived);
    // In each partition what was sent in two streams is in order in both of them.
    let mut streams: std::collections::BTreeMap<(i32, bool), u64> = Default::default();
    kafka.consume_each("bulk", |record| {
        let id = record.header("ferry-id").unwrap();
        let seq: u64 = id.split_once('-').unwrap().1.parse().unwrap();
        let is_live = seq >= 10 + BACKLOG + 1 - 1000;
        let before = streams.insert((record.partition, is_live), seq);
        assert!(before < Some(seq), "{seq} after {before:?}");
    });
}
