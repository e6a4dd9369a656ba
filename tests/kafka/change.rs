//! Settings that change while records flow in transactions: each record once all the same.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::Delivery;
use ferrylog::ship::exactly_once::{ExactlyOnceOptions, ProgressIn};
use ferrylog::{Outcome, Producer, Receipt};
use tempfile::TempDir;

use crate::kafka::{Kafka, wait_for};

const TOPIC: &str = "changed";
const SOON: Duration = Duration::from_secs(60);

fn options(producer: &Producer) -> ExactlyOnceOptions {
    match producer.shipping().delivery {
        Delivery::ExactlyOnce(options) => *options,
        _ => panic!("not in transactions"),
    }
}

fn send(producer: &Producer, number: usize) -> Receipt<'_> {
    let value = number.to_string();
    let message = MessageRef {
        key: Some(b"one partition"),
        value: Some(value.as_bytes()),
        ..MessageRef::to(TOPIC)
    };
    producer.send(&message).unwrap()
}

#[test]
fn settings_of_transactions_may_change_while_records_flow_and_each_arrives_once() {
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3);
    let dir = TempDir::new().unwrap();
    let builder = Producer::builder(dir.path(), Settings::new(kafka.bootstrap_servers()));
    let producer = builder.exactly_once(ExactlyOnceOptions::default());
    let producer = producer.open().unwrap();
    let stop = AtomicBool::new(false);
    let receipts = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut receipts = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                receipts.push(send(&producer, receipts.len()));
                if receipts.len().is_multiple_of(20) {
                    receipts[receipts.len() - 1].durable().wait().unwrap();
                }
            }
            receipts
        });
        for round in 0..8_u64 {
            let shipped = || producer.stats().totals.shipped;
            let before = shipped();
            let mut changed = options(&producer);
            changed.max_records = 100 + round;
            changed.progress = match round % 2 {
                0 => ProgressIn::Topic,
                _ => ProgressIn::Offsets,
            };
            changed.ship.drain_rate = NonZeroU64::new(10_000_000 + round);
            // The last ones gather for a while.
            changed.ship.interval = Duration::from_millis(250) * u32::from(round > 5);
            let mut shipping = producer.shipping();
            shipping.delivery = Delivery::ExactlyOnce(Box::new(changed));
            producer.set_shipping(shipping).unwrap();
            wait_for("shipping goes on", SOON, || shipped() > before);
        }
        stop.store(true, Ordering::Relaxed);
        sending.join().unwrap()
    });
    for receipt in &receipts {
        assert_eq!(receipt.delivered().wait_for(SOON), Ok(Outcome::Shipped));
    }
    assert_eq!(producer.stats().restarts, 0, "{:?}", producer.status().why);

    // Between two beats nothing goes, and closing waits for none.
    let mut shipping = producer.shipping();
    shipping.delivery.ship_mut().interval = Duration::from_secs(3600);
    producer.set_shipping(shipping).unwrap();
    wait_for("it rests", SOON, || {
        let status = producer.status();
        let progress = status.clusters[0].progress.as_ref();
        progress.is_some_and(|progress| progress.rests.is_some())
    });
    let last = send(&producer, receipts.len());
    assert!(producer.close(SOON).unwrap().is_empty());
    assert_eq!(last.delivered().wait(), Ok(Outcome::Shipped));

    let read = kafka.consume(TOPIC);
    let numbers: Vec<usize> = read
        .iter()
        .map(|record| {
            let value = record.value.as_deref().unwrap();
            std::str::from_utf8(value).unwrap().parse().unwrap()
        })
        .collect();
    println!("{} records, 9 changes", numbers.len());
    assert_eq!(numbers, (0..=receipts.len()).collect::<Vec<_>>());
}
