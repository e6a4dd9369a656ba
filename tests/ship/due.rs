//! What is due later, sent through a producer: it arrives when it is due, also after a restart.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ferrylog::kafka::{Consumer, MockKafka, Settings};
use ferrylog::message::{Due, MessageRef};
use ferrylog::producer::{NotDelivered, Unhealthy};
use ferrylog::store::StoreOptions;
use ferrylog::{Outcome, SendError};

use crate::producer::{DEADLINE, block_on, builder, open, until, with_value};

/// Far longer than it takes to look at what is not due yet.
const SOON: Duration = Duration::from_millis(2000);

fn due<'a>(topic: &'a str, value: &'a [u8], due: Due) -> MessageRef<'a> {
    MessageRef {
        due: Some(due),
        ..with_value(topic, value)
    }
}

fn soon<'a>(topic: &'a str, value: &'a [u8]) -> MessageRef<'a> {
    due(topic, value, Due::After(2000))
}

/// Identity and value of all that a topic of one partition holds, in order.
fn records(mock: &MockKafka, topic: &str) -> Vec<(String, Vec<u8>)> {
    let settings = Settings::new(mock.bootstrap_servers());
    let mut consumer = Consumer::new(&settings).unwrap();
    let end = consumer.end(topic, 0, DEADLINE).unwrap();
    consumer.assign(&[(topic, 1)]).unwrap();
    let (mut records, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while (records.len() as i64) < end {
        assert!(Instant::now() < deadline, "{records:?}");
        consumer
            .poll(Duration::from_millis(100), &mut |record| {
                let id = record.header("ferry-id").unwrap().to_owned();
                records.push((id, record.value().unwrap_or_default().to_vec()));
            })
            .unwrap();
    }
    records
}

#[test]
fn a_record_that_is_due_later_arrives_then_and_its_receipt_tells() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = open(dir.path(), &mock);
    let sent = Instant::now();
    let receipt = producer.send(&soon("t", b"later")).unwrap();
    assert!(receipt.is_scheduled() && receipt.lane() == "default");
    receipt.durable().wait().unwrap();
    let waits = receipt.delivered().wait_for(Duration::ZERO);
    assert_eq!(waits, Err(NotDelivered::TimedOut));
    assert_eq!(
        (receipt.fired_id(), receipt.outcomes().next()),
        (None, Some(None))
    );
    let status = producer.status();
    assert_eq!((status.totals.accepted, status.totals.scheduled), (1, 1));
    assert_eq!(status.scheduled.waiting, 1);

    let now = producer.send(&due("t", b"now", Due::After(0))).unwrap();
    assert!(!now.is_scheduled());
    assert_eq!(now.delivered().wait(), Ok(Outcome::Shipped));
    assert_eq!(block_on(receipt.delivered()), Ok(Outcome::Shipped));
    assert!(sent.elapsed() >= SOON, "{:?}", sent.elapsed());
    assert_eq!(receipt.outcomes().next(), Some(Some(Outcome::Shipped)));
    let expected = [
        (now.id(), b"now".to_vec()),
        (receipt.fired_id().unwrap(), b"later".to_vec()),
    ];
    assert_eq!(records(&mock, "t"), expected);
    let totals = producer.stats().totals;
    assert!(totals.balances() && totals.shipped == 2, "{totals:?}");
}

#[test]
fn what_waits_survives_a_restart_and_an_outage_and_arrives_once() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = open(dir.path(), &mock);
    let sent = Instant::now();
    let receipt = producer.send(&soon("t", b"a")).unwrap();
    let far = due("t", b"far", Due::After(3_600_000));
    let far = block_on(producer.send_async(&far)).unwrap();
    producer.flush().unwrap();
    let closed = producer.close(Duration::ZERO).unwrap();
    assert_eq!((closed.totals.scheduled, closed.is_empty()), (2, false));
    assert_eq!(receipt.delivered().wait(), Err(NotDelivered::Closed));
    assert_eq!(far.delivered().wait(), Err(NotDelivered::Closed));
    assert!(matches!(
        producer.send(&soon("t", b"b")),
        Err(SendError::Closed)
    ));

    // It is fired without a network.
    let producer = open(dir.path(), &mock);
    until("it is fired", || producer.status().totals.queued == 1);
    assert!(sent.elapsed() >= SOON);
    let producer = {
        drop(producer);
        open(dir.path(), &mock)
    };
    mock.up().unwrap();
    until("it arrives", || producer.status().totals.shipped == 1);
    let values: Vec<_> = records(&mock, "t")
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(values, [b"a"]);
    let totals = producer.status().totals;
    assert!(totals.balances() && totals.scheduled == 1, "{totals:?}");
}

#[test]
fn what_is_due_and_does_not_get_to_its_lane_is_told_as_unhealthy() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = open(dir.path(), &mock);
    let large = vec![b'x'; 200_000];
    producer
        .send(&soon("t", &large))
        .unwrap()
        .durable()
        .wait()
        .unwrap();
    producer.close(Duration::ZERO).unwrap();

    let mut store = StoreOptions::default();
    store.default.wal.max_record_bytes = 100_000;
    let producer = builder(dir.path(), &mock).store(store).open().unwrap();
    let is_told = || {
        matches!(
            producer.health(Duration::ZERO),
            Err(Unhealthy::Scheduled { .. })
        )
    };
    until("it is told", is_told);
    let unhealthy = producer.health(Duration::ZERO).unwrap_err();
    assert!(unhealthy.takes_records(), "{unhealthy}");
    let told = "record 0 does not go to lane default";
    assert!(unhealthy.to_string().contains(told), "{unhealthy}");
    let why = producer.status().why.unwrap();
    assert_eq!(why.matches(told).count(), 1, "{why}");
    let small = producer.send(&due("t", b"small", Due::After(1))).unwrap();
    assert_eq!(small.delivered().wait(), Ok(Outcome::Shipped));
}

#[test]
fn a_batch_waits_as_a_whole_or_not_at_all() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = open(dir.path(), &mock);
    let some = [soon("t", b"a"), with_value("t", b"b")];
    let refused = producer.send_batch(&some).unwrap_err();
    assert!(matches!(refused, SendError::SomeDueLater), "{refused}");
    assert_eq!(producer.stats().totals.accepted, 0, "not at all");
    let wrong = producer.send(&due("t", b"", Due::At(-1))).unwrap_err();
    assert!(matches!(wrong, SendError::Invalid(_)), "{wrong}");
    // What is due already waits for nothing, as when it is sent by itself.
    let past = due("t", b"c", Due::After(0));
    let at_once = producer.send_batch(&[past, with_value("t", b"d")]).unwrap();
    assert!(!at_once.is_scheduled());
    assert_eq!(at_once.delivered().wait(), Ok(Outcome::Shipped));
    // One that has become due while the others have not goes with them.
    let all = producer
        .send_batch(&[soon("t", b"a"), due("t", b"b", Due::After(0))])
        .unwrap();
    assert!(all.is_scheduled());
    assert_eq!(all.range().end - all.range().start, 2);
    assert_eq!(all.delivered().wait(), Ok(Outcome::Shipped));
    let values: HashSet<_> = records(&mock, "t").into_iter().map(|(_, v)| v).collect();
    assert_eq!(
        values,
        HashSet::from([b"a", b"b", b"c", b"d"].map(|value| value.to_vec()))
    );
}
