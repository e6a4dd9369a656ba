//! Other settings while a producer runs: nothing is lost, nothing out of order, and what is wrong changes
//! nothing.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::kafka::{Consumer, MockKafka, Settings};
use ferrylog::producer::{ChangeError, OpenError};
use ferrylog::ship::dead_letter::DeadLetterTopic;
use ferrylog::ship::exactly_once::ExactlyOnceOptions;
use ferrylog::ship::{Delivery, OnExhausted};
use ferrylog::store::{MAIN_CLUSTER, StoreOptions};
use ferrylog::{Outcome, Producer, Receipt};
use tempfile::TempDir;

use crate::producer::{DEADLINE, builder, open, until, with_value, wrong};
use crate::support::options;

fn mock() -> MockKafka {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    mock
}

/// The values of a topic of one partition, in order.
fn values(mock: &MockKafka) -> Vec<u64> {
    read(mock).into_iter().map(|(value, _)| value).collect()
}

/// The same, each with whether it has its identity with it.
fn read(mock: &MockKafka) -> Vec<(u64, bool)> {
    let mut consumer = Consumer::new(&Settings::new(mock.bootstrap_servers())).unwrap();
    let mut left = consumer.end("t", 0, DEADLINE).unwrap();
    consumer.assign(&[("t", 1)]).unwrap();
    let (mut values, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while left > 0 {
        assert!(Instant::now() < deadline, "{left} did not arrive");
        let take = &mut |record: &ferrylog::kafka::Consumed<'_>| {
            let text = std::str::from_utf8(record.value().unwrap()).unwrap();
            let has_id = record.header("ferry-id").is_some();
            values.push((text.parse().unwrap(), has_id));
            left -= 1;
        };
        consumer.poll(Duration::from_millis(100), take).unwrap();
    }
    values
}

fn send(producer: &Producer, value: u64) -> Receipt<'_> {
    let text = value.to_string();
    producer.send(&with_value("t", text.as_bytes())).unwrap()
}

fn outcomes(receipts: &[Receipt<'_>]) {
    for receipt in receipts {
        let outcome = receipt.delivered().wait_for(DEADLINE).unwrap();
        assert_eq!(outcome, Outcome::Shipped);
    }
}

#[test]
fn settings_may_change_while_records_flow_and_none_is_lost_or_out_of_order() {
    let (dir, mock) = (TempDir::new().unwrap(), mock());
    let producer = open(dir.path(), &mock);
    let stop = AtomicBool::new(false);
    let (receipts, changes) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut receipts = Vec::new();
            while !stop.load(Ordering::Relaxed) || receipts.len() < 5_000 {
                receipts.push(send(&producer, receipts.len() as u64));
                // No faster than a disk, so that what is to be read back stays little.
                if receipts.len().is_multiple_of(20) {
                    receipts[receipts.len() - 1].durable().wait().unwrap();
                }
            }
            receipts
        });
        let mut changes = 0_u64;
        for round in 0..12 {
            let shipped = producer.stats().totals.shipped;
            let mut shipping = producer.shipping();
            let ship = shipping.delivery.ship_mut();
            ship.max_in_flight_bytes = (1 + round % 3) << 20;
            ship.drain_rate = NonZeroU64::new(10_000_000 + round);
            ship.retry.max_attempts += 1;
            ship.id_header = round % 2 == 0;
            producer.set_shipping(shipping).unwrap();
            changes += 1;
            // It goes on by the new ones.
            until("shipping goes on", || {
                producer.stats().totals.shipped > shipped
            });
        }
        stop.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), changes)
    });
    outcomes(&receipts);
    let stats = producer.stats();
    assert_eq!(stats.restarts, 0, "a change is no error");
    assert!(stats.totals.balances() && changes == 12, "{stats:?}");
    assert_eq!(stats.totals.shipped, receipts.len() as u64);
    let attempts = producer.shipping().delivery.ship().retry.max_attempts;
    assert_eq!(attempts, 10 + 12);
    let sent = receipts.len() as u64;
    drop(producer);
    // First copies in order; what comes twice repeats a run.
    let mut next = 0;
    let mut ids = [0; 2];
    for (value, has_id) in read(&mock) {
        ids[usize::from(has_id)] += 1;
        assert!(value <= next, "{value} before {next}");
        next = next.max(value + 1);
    }
    assert_eq!(next, sent);
    // Each setting had its time.
    assert!(ids[0] > 0 && ids[1] > 0, "{ids:?}");
}

#[test]
fn what_waits_for_a_cluster_goes_to_where_it_is_now() {
    let (dir, mock) = (TempDir::new().unwrap(), mock());
    // Nobody listens there.
    let producer = Producer::open(dir.path(), "127.0.0.1:1").unwrap();
    let receipts: Vec<Receipt<'_>> = (0..500).map(|n| send(&producer, n)).collect();
    until("the link is down", || {
        producer.status().clusters[0].progress.is_some()
    });
    let mut shipping = producer.shipping();
    let there = Settings::new(mock.bootstrap_servers());
    shipping.clusters.insert(MAIN_CLUSTER.into(), there);
    producer.set_shipping(shipping).unwrap();
    outcomes(&receipts);
    assert_eq!(values(&mock), (0..500).collect::<Vec<_>>());
    producer.health(DEADLINE).unwrap();
}

/// A lane for another cluster, which the next producer was not told of.
fn with_a_lane_of_another(dir: &TempDir, mock: &MockKafka) -> Producer {
    let mut store = StoreOptions::default();
    store.topic_clusters.insert("t".into(), "audit".into());
    let nowhere = Settings::new("127.0.0.1:1");
    let first = builder(dir.path(), mock)
        .store(store)
        .cluster("audit", nowhere);
    let first = first.open().unwrap();
    (0..100).for_each(|n| drop(send(&first, n)));
    drop(first);
    open(dir.path(), mock)
}

#[test]
fn a_cluster_that_nobody_gave_is_given_and_taken_away_while_it_runs() {
    let (dir, main, audit) = (TempDir::new().unwrap(), mock(), mock());
    let producer = with_a_lane_of_another(&dir, &main);
    assert_eq!(producer.status().clusters.len(), 1);
    assert!(
        producer
            .status()
            .why
            .unwrap()
            .contains("waits for the cluster `audit`")
    );
    let before = producer.shipping();
    let mut shipping = before.clone();
    let there = Settings::new(audit.bootstrap_servers());
    shipping.clusters.insert("audit".into(), there);
    producer.set_shipping(shipping).unwrap();
    until("it arrives", || producer.stats().totals.queued == 0);
    assert_eq!(values(&audit), (0..100).collect::<Vec<_>>());
    assert_eq!(producer.status().clusters.len(), 2);
    // No configured lane goes there.
    producer.set_shipping(before).unwrap();
    assert_eq!(producer.status().clusters.len(), 1);
    producer.health(DEADLINE).unwrap();
    send(&producer, 1).delivered().wait_for(DEADLINE).unwrap();
}

#[test]
fn what_is_wrong_is_refused_whole_and_the_settings_before_it_go_on() {
    let (dir, mock) = (TempDir::new().unwrap(), mock());
    let decides = |_: &ferrylog::ship::FailedRecord<'_>| ferrylog::ship::Recovery::Drop;
    let producer = builder(dir.path(), &mock)
        .default_topic("t")
        .on_exhausted(decides);
    let producer = producer.open().unwrap();
    let before = format!("{:?}", producer.shipping());
    let refused = |change: &dyn Fn(&mut ferrylog::producer::Shipping)| {
        let mut shipping = producer.shipping();
        shipping.delivery.ship_mut().max_in_flight_bytes = 7 << 20;
        change(&mut shipping);
        producer.set_shipping(shipping).unwrap_err()
    };
    let told = refused(&|shipping| drop(shipping.clusters.remove(MAIN_CLUSTER)));
    assert!(
        matches!(told, ChangeError::Wrong(OpenError::Cluster { .. })),
        "{told}"
    );
    let told = refused(&|shipping| {
        shipping.delivery.ship_mut().link.timeout = Duration::from_secs(1_000);
    });
    assert!(told.to_string().starts_with("link.timeout"), "{told}");
    let told = refused(&|shipping| {
        let letters = &mut shipping.delivery.ship_mut().dead_letters;
        letters.topic = Some(DeadLetterTopic::new("t").unwrap());
    });
    assert!(told.to_string().starts_with("dead_letter.topic"), "{told}");
    let told = refused(&|shipping| {
        let mut once = ExactlyOnceOptions::default();
        // The cluster would abort each transaction before it is full.
        once.max_time = Some(once.transaction_timeout);
        shipping.delivery = Delivery::ExactlyOnce(Box::new(once));
    });
    assert!(told.to_string().starts_with("max_time"), "{told}");
    let told = refused(&|shipping| {
        let mut once = ExactlyOnceOptions::default();
        once.transaction_timeout = Duration::from_millis(999);
        shipping.delivery = Delivery::ExactlyOnce(Box::new(once));
    });
    let key = "transaction_timeout";
    assert!(told.to_string().starts_with(key), "{told}");
    let told = refused(&|shipping| {
        shipping
            .clusters
            .insert(MAIN_CLUSTER.into(), Settings::new("a:0"));
    });
    assert!(
        matches!(told, ChangeError::Wrong(OpenError::Ship(_))),
        "{told}"
    );
    assert_eq!(format!("{:?}", producer.shipping()), before);
    send(&producer, 0).delivered().wait_for(DEADLINE).unwrap();

    // The program's own function stays, whatever is said about exhausted records.
    let mut shipping = producer.shipping();
    shipping.delivery = Delivery::AtLeastOnce(Box::default());
    producer.set_shipping(shipping).unwrap();
    let shipping = producer.shipping();
    assert!(matches!(
        shipping.delivery.ship().retry.on_exhausted,
        OnExhausted::Callback(_)
    ));

    producer.close(Duration::ZERO).unwrap();
    let told = producer.set_shipping(shipping).unwrap_err();
    assert!(matches!(told, ChangeError::Closed), "{told}");
}

#[test]
fn a_pause_after_an_error_ends_when_the_settings_are_put_right() {
    let (dir, mock) = (TempDir::new().unwrap(), mock());
    let producer = Producer::builder(dir.path(), wrong(&mock)).ship(options());
    let producer = producer.open().unwrap();
    let receipt = send(&producer, 0);
    let mut pausing = None;
    until("it pauses", || {
        let trouble = producer.status().clusters[0].trouble.clone();
        pausing = trouble.filter(|trouble| trouble.pause >= Duration::from_secs(8));
        pausing.is_some()
    });
    let mut shipping = producer.shipping();
    let right = Settings::new(mock.bootstrap_servers());
    shipping.clusters.insert(MAIN_CLUSTER.into(), right);
    producer.set_shipping(shipping).unwrap();
    outcomes(&[receipt]);
    let trouble = pausing.unwrap();
    assert!(trouble.since.elapsed() < trouble.pause);
    producer.health(DEADLINE).unwrap();
}
