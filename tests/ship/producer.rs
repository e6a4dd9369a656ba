//! The producer: what it promises to the program that holds it, whatever the cluster does.

use std::collections::HashSet;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use ferrylog::kafka::{Consumer, MockKafka, Settings};
use ferrylog::message::{Expires, MessageRef};
use ferrylog::producer::{Builder, NotDelivered, NotDurable, Unhealthy};
use ferrylog::ship::ShipOptions;
use ferrylog::store::{LaneOptions, Store, StoreOptions};
use ferrylog::wal::{Class, Durability, Options};
use ferrylog::{Outcome, Producer, Receipt, SendError};

use crate::support::options;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A producer and its receipts go where a program wants them.
const _: () = {
    const fn goes_anywhere<T: Send + Sync + Clone + 'static>() {}
    goes_anywhere::<Producer>();
    goes_anywhere::<Receipt<'_>>();
};

pub(crate) fn builder(dir: &Path, mock: &MockKafka) -> Builder {
    Producer::builder(dir, Settings::new(mock.bootstrap_servers())).ship(options())
}

pub(crate) fn open(dir: &Path, mock: &MockKafka) -> Producer {
    builder(dir, mock).open().unwrap()
}

pub(crate) fn with_value<'a>(topic: &'a str, value: &'a [u8]) -> MessageRef<'a> {
    MessageRef {
        value: Some(value),
        ..MessageRef::to(topic)
    }
}

/// What librdkafka refuses, but not before it is to be used: a file that is not there.
pub(crate) fn wrong(mock: &MockKafka) -> Settings {
    let mut settings = Settings::new(mock.bootstrap_servers());
    settings.properties = vec![
        ("security.protocol".into(), "ssl".into()),
        ("ssl.ca.location".into(), "/no/such/file".into()),
    ];
    settings
}

/// The identities that a topic of one partition holds, each once.
fn ids(mock: &MockKafka, topic: &str) -> HashSet<String> {
    let settings = Settings::new(mock.bootstrap_servers());
    let mut consumer = Consumer::new(&settings).unwrap();
    let mut left = consumer.end(topic, 0, DEADLINE).unwrap();
    consumer.assign(&[(topic, 1)]).unwrap();
    let mut ids = HashSet::new();
    let deadline = Instant::now() + DEADLINE;
    while left > 0 {
        assert!(Instant::now() < deadline, "{left} did not arrive");
        consumer
            .poll(Duration::from_millis(100), &mut |record| {
                ids.insert(record.header("ferry-id").unwrap().to_owned());
                left -= 1;
            })
            .unwrap();
    }
    ids
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest runtime there is.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn without_a_network_it_opens_and_takes_records_and_they_arrive_when_there_is_one() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = open(&dir.path().join("store"), &mock);
    let receipts: Vec<Receipt<'_>> = (0..1000)
        .map(|_| producer.send(&with_value("t", b"21.4")).unwrap())
        .collect();
    producer.flush().unwrap();
    receipts[999].durable().wait().unwrap();
    block_on(receipts[0].durable()).unwrap();
    let waits = receipts[0].delivered().wait_for(Duration::from_millis(50));
    assert_eq!(waits, Err(NotDelivered::TimedOut));
    assert_eq!(receipts[0].outcomes().next(), Some(None));
    let unhealthy = producer.health(Duration::ZERO).unwrap_err();
    assert!(
        matches!(unhealthy, Unhealthy::Offline { .. }) && unhealthy.takes_records(),
        "{unhealthy}"
    );
    assert!(producer.status().why.is_some());

    mock.up().unwrap();
    producer.health(DEADLINE).unwrap();
    for receipt in &receipts {
        assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
        // Whoever asks late is told the same.
        assert_eq!(block_on(receipt.delivered()), Ok(Outcome::Shipped));
    }
    let sent: HashSet<String> = receipts.iter().map(Receipt::id).collect();
    assert_eq!(ids(&mock, "t"), sent);
    assert_eq!(producer.stats().totals.shipped, 1000);
    assert!(producer.close(DEADLINE).unwrap().is_empty());
}

#[test]
fn a_receipt_tells_a_record_that_was_dead_lettered_from_its_neighbours() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(mock.bootstrap_servers());
    // What is longer the client refuses as a broker would.
    let property = ("message.max.bytes".to_owned(), "2000".to_owned());
    settings.properties.push(property);
    let producer = Producer::builder(dir.path().join("store"), settings)
        .ship(options())
        .open()
        .unwrap();
    let (short, long) = (with_value("t", b"short"), [b'x'; 5000]);
    let before = producer.send(&short).unwrap();
    let batch = [short, with_value("t", &long), short];
    let batch = producer.send_batch(&batch).unwrap();
    let gone = MessageRef {
        expires: Some(Expires::After(1)),
        ..short
    };
    let gone = producer.send(&gone).unwrap();
    let behind = producer.send(&short).unwrap();
    let asked: Vec<_> = [&before, &batch, &gone, &behind]
        .into_iter()
        .map(|receipt| {
            let receipt = receipt.clone().into_owned();
            thread::spawn(move || receipt.delivered().wait().unwrap())
        })
        .collect();
    mock.up().unwrap();
    let told: Vec<Outcome> = asked.into_iter().map(|t| t.join().unwrap()).collect();
    let outcomes = [
        Outcome::Shipped,
        Outcome::DeadLettered,
        Outcome::Expired,
        Outcome::Shipped,
    ];
    assert_eq!(told, outcomes);
    let each: Vec<Outcome> = batch.outcomes().flatten().collect();
    assert_eq!(
        each,
        [Outcome::Shipped, Outcome::DeadLettered, Outcome::Shipped]
    );
    let totals = producer.stats().totals;
    assert_eq!((totals.dead_lettered, totals.expired), (1, 1));
    assert!(totals.balances(), "{totals:?}");
}

#[test]
fn a_parked_record_is_delivered_when_it_leaves_its_parking_log() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut ship = options();
    ship.park_after = Duration::from_millis(1);
    ship.retry.max_backoff = Duration::from_millis(50);
    let producer = builder(&dir.path().join("store"), &mock)
        .ship(ship)
        .open()
        .unwrap();
    let late = producer.send(&with_value("late", b"1")).unwrap();
    let early = {
        let late = late.clone().into_owned();
        // It waits in the lane first, and in the parking log then.
        thread::spawn(move || late.delivered().wait())
    };
    let other = producer.send(&with_value("t", b"2")).unwrap();
    assert_eq!(other.delivered().wait(), Ok(Outcome::Shipped));
    until("it is parked", || producer.stats().shipping.parked == 1);
    let second = producer.send(&with_value("late", b"3")).unwrap();
    let waits = late.delivered().wait_for(Duration::from_millis(1));
    assert_eq!(waits, Err(NotDelivered::TimedOut), "parked is not final");
    let unhealthy = producer.health(Duration::ZERO).unwrap_err();
    assert!(matches!(unhealthy, Unhealthy::Held { .. }), "{unhealthy}");
    mock.create_topic("late", 1).unwrap();
    assert_eq!(early.join().unwrap(), Ok(Outcome::Shipped));
    assert_eq!(second.delivered().wait(), Ok(Outcome::Shipped));
    assert_eq!(ids(&mock, "late"), HashSet::from([late.id(), second.id()]));
    assert!(producer.close(DEADLINE).unwrap().is_empty());
}

#[test]
fn closing_tells_what_is_left_and_the_next_one_ships_it() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let producer = open(&store, &mock);
    let clone = producer.clone();
    let receipt = producer.send(&with_value("t", b"1"));
    let receipt = receipt.unwrap().into_owned();
    let waiter = {
        let receipt = receipt.clone();
        thread::spawn(move || receipt.delivered().wait())
    };
    until("it says why", || producer.status().why.is_some());
    let closed = producer.close(Duration::from_millis(100)).unwrap();
    assert_eq!(closed.totals.queued, 1);
    assert!(closed.why.is_some());
    assert_eq!(waiter.join().unwrap(), Err(NotDelivered::Closed));
    assert_eq!(receipt.delivered().wait(), Err(NotDelivered::Closed));
    // It was on disk before the end.
    assert_eq!(receipt.durable().wait(), Ok(()));
    let refused = clone.send(&with_value("t", b"2")).unwrap_err();
    assert!(matches!(refused, SendError::Closed), "{refused}");
    assert!(matches!(
        clone.health(Duration::ZERO),
        Err(Unhealthy::Closed)
    ));
    assert_eq!(clone.close(DEADLINE).unwrap().totals.queued, 1, "once more");

    // The directory is free although all of these are still there.
    let next = open(&store, &mock);
    mock.up().unwrap();
    assert!(next.close(DEADLINE).unwrap().is_empty());
    assert_eq!(ids(&mock, "t"), HashSet::from([receipt.id()]));
    drop((producer, clone, receipt));
}

#[test]
fn dropping_it_ends_soon_and_loses_nothing() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let sent: Vec<Receipt<'static>> = {
        let producer = open(&store, &mock);
        let send = |_| producer.send(&with_value("t", b"1")).unwrap().into_owned();
        let sent: Vec<Receipt<'_>> = (0..100).map(send).collect();
        sent[99].durable().wait().unwrap();
        sent
    };
    assert_eq!(sent[0].delivered().wait(), Err(NotDelivered::Closed));
    let left = Store::open(&store, Options::default()).unwrap();
    assert_eq!(left.totals().queued, 100);
    left.close().unwrap();
    mock.up().unwrap();
    let next = open(&store, &mock);
    assert!(next.close(DEADLINE).unwrap().is_empty());
    assert_eq!(ids(&mock, "t"), sent.iter().map(Receipt::id).collect());
}

#[test]
fn several_producers_on_several_stores_do_not_know_of_each_other() {
    let mocks = [(); 2].map(|()| MockKafka::start(1).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let producers: Vec<Producer> = mocks
        .iter()
        .zip(["a", "b"])
        .map(|(mock, name)| {
            mock.create_topic("t", 1).unwrap();
            open(&dir.path().join(name), mock)
        })
        .collect();
    mocks[1].down().unwrap();
    let receipts: Vec<Receipt<'_>> = producers
        .iter()
        .map(|producer| producer.send(&with_value("t", b"1")).unwrap())
        .collect();
    assert_eq!(receipts[0].delivered().wait(), Ok(Outcome::Shipped));
    assert!(producers[0].close(DEADLINE).unwrap().is_empty());
    assert_eq!(receipts[1].outcomes().next(), Some(None));
    mocks[1].up().unwrap();
    assert_eq!(receipts[1].delivered().wait(), Ok(Outcome::Shipped));
    for (mock, receipt) in mocks.iter().zip(&receipts) {
        assert_eq!(ids(mock, "t"), HashSet::from([receipt.id()]));
    }
    let locked = Producer::builder(dir.path().join("b"), Settings::new("127.0.0.1:1")).open();
    assert!(locked.is_err(), "one at a time for each store");
}

#[test]
fn messages_go_to_the_lane_of_their_topic_or_the_one_they_name_and_wrong_ones_are_refused_by_type()
{
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    mock.create_topic("alarms", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut store = StoreOptions::default();
    let mut alarms = LaneOptions::default();
    alarms.topics = vec!["alarm*".into()];
    store.lanes.insert("high".into(), alarms);
    let producer = builder(&dir.path().join("store"), &mock)
        .store(store)
        .default_topic("t")
        .open()
        .unwrap();
    let (temp, alarm) = (with_value("", b"1"), with_value("alarms", b"2"));
    let receipts = [temp, alarm].map(|message| producer.send(&message).unwrap());
    assert_eq!(receipts.each_ref().map(Receipt::lane), ["default", "high"]);
    for (lane, expected) in [
        ("high", "high"),
        ("default", "default"),
        ("none", "default"),
    ] {
        let lane = Some(lane);
        let receipt = producer.send(&MessageRef { lane, ..temp }).unwrap();
        assert_eq!(receipt.lane(), expected);
    }
    let both = producer.send_batch(&[temp, alarm]).unwrap_err();
    assert!(matches!(both, SendError::SeveralLanes { .. }), "{both}");
    let batch = producer.send_batch(&[temp, with_value("t", b"3")]).unwrap();
    assert_eq!(batch.outcomes().count(), 2);
    assert_eq!(batch.delivered().wait(), Ok(Outcome::Shipped));
    let empty = producer.send_batch(&[]).unwrap();
    assert_eq!(empty.durable().wait(), Ok(()));
    assert_eq!(empty.delivered().wait(), Ok(Outcome::Shipped));

    let before = producer.stats().totals.accepted;
    let invalid = producer
        .send(&with_value("no such topic", b""))
        .unwrap_err();
    assert!(matches!(invalid, SendError::Invalid(_)), "{invalid}");
    let value = vec![0; 17 << 20];
    let too_large = producer.send(&with_value("t", &value)).unwrap_err();
    assert!(
        matches!(too_large, SendError::TooLarge { .. }),
        "{too_large}"
    );
    let half = producer.send_batch(&[temp, with_value("t", &value)]);
    assert!(half.is_err());
    assert_eq!(
        producer.stats().totals.accepted,
        before,
        "whole or not at all"
    );
    assert!(producer.close(DEADLINE).unwrap().is_empty());
    assert_eq!(ids(&mock, "t").len(), 6);
}

#[test]
fn wrong_settings_are_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut settings = Settings::new("127.0.0.1:1");
    settings.properties.push(("acks".into(), "1".into()));
    assert!(Producer::builder(&store, settings).open().is_err());
    let builder = Producer::builder(&store, Settings::new("127.0.0.1:1"));
    assert!(builder.clone().default_topic("a b").open().is_err());
    let mut ship = ShipOptions::default();
    ship.link.timeout = Duration::ZERO;
    assert!(builder.ship(ship).open().is_err());
    assert!(!store.exists());
}

#[test]
fn a_shipper_that_ends_with_an_error_begins_again_and_the_sender_hears_nothing_of_it() {
    let mock = MockKafka::start(1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::builder(dir.path().join("store"), wrong(&mock));
    let producer = producer.open().unwrap();
    until("it began again", || producer.stats().restarts >= 3);
    let receipt = producer.send(&with_value("t", b"1")).unwrap();
    receipt.durable().wait().unwrap();
    let unhealthy = producer.health(Duration::ZERO).unwrap_err();
    assert!(
        matches!(unhealthy, Unhealthy::Shipping { .. }) && unhealthy.takes_records(),
        "{unhealthy}"
    );
    let status = producer.status();
    let trouble = status.clusters[0].trouble.clone().unwrap();
    assert!(status.why.unwrap().contains(&trouble.error));
    let closed = producer.close(Duration::ZERO).unwrap();
    assert!(trouble.since.elapsed() < trouble.pause, "it waits for none");
    let why = closed.why.unwrap();
    assert!(why.contains(&trouble.error), "{why}");
    assert_eq!(closed.totals.queued, 1);
}

/// A producer that takes four records of 220 KiB before one is on disk.
fn open_small(dir: &Path, mock: &MockKafka, mut options: Options) -> Producer {
    options.memory_budget = 1 << 20;
    options.max_record_bytes = 256 << 10;
    let store = StoreOptions::new(options);
    let producer = builder(&dir.join("store"), mock).store(store);
    producer.open().unwrap()
}

#[test]
fn where_memory_is_used_up_try_send_says_full_and_the_others_wait() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.durability = Durability::Memory;
    let producer = open_small(dir.path(), &mock, options);
    let value = vec![b'x'; 200 << 10];
    let message = with_value("t", &value);
    let mut sent = 0;
    let full = loop {
        match producer.try_send(&message) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 10_000, "never full");
    };
    assert!(matches!(full, SendError::Full { .. }), "{full}");
    for _ in 0..20 {
        drop(block_on(producer.send_async(&message)).unwrap());
        drop(producer.send(&message).unwrap());
        let batch = block_on(producer.send_batch_async(&[message, message])).unwrap();
        assert_eq!(batch.range().end - batch.range().start, 2);
    }
    producer.flush().unwrap();
    assert_eq!(producer.stats().totals.accepted, sent + 80);
}

/// As for threads: whole or not, refused as a whole, all that was sent on disk, the rest told at the end.
#[test]
fn a_task_sends_batches_flushes_asks_for_health_and_closes_as_a_thread_does() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut options = Options::default();
    options.durability = Durability::Memory;
    let producer = builder(&store, &mock)
        .store(StoreOptions::new(options))
        .default_topic("t")
        .open()
        .unwrap();
    block_on(async {
        let values = ["1", "2", "3"].map(str::as_bytes);
        // Some without a topic of their own.
        let batch = ["t", "", "t"].into_iter().zip(values);
        let batch: Vec<_> = batch
            .map(|(topic, value)| with_value(topic, value))
            .collect();
        let sent = producer.send_batch_async(&batch).await.unwrap();
        assert_eq!(sent.delivered().await, Ok(Outcome::Shipped));
        let none = producer.send_batch_async(&[]).await.unwrap();
        assert_eq!(none.outcomes().count(), 0);
        let wrong = [with_value("t", b"4"), with_value("no topic", b"5")];
        let refused = producer.send_batch_async(&wrong).await.unwrap_err();
        assert!(matches!(refused, SendError::Invalid(_)), "{refused}");
        producer.health_async(DEADLINE).await.unwrap();
        mock.down().unwrap();
        let held = producer.send_batch_async(&batch).await.unwrap();
        producer.flush_async().await.unwrap();
        let on_disk = pin!(held.durable()).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(on_disk, Poll::Ready(Ok(())));
        let soon = Duration::from_millis(50);
        until("the link is lost", || {
            producer.health(Duration::ZERO).is_err()
        });
        let unhealthy = producer.health_async(soon).await.unwrap_err();
        assert!(unhealthy.takes_records(), "{unhealthy}");
        let closed = producer.close_async(soon).await.unwrap();
        assert_eq!(closed.totals.queued, 3);
        let sent = producer.send_batch_async(&batch).await;
        assert!(matches!(sent, Err(SendError::Closed)));
    });
    assert_eq!(
        Store::open(&store, Options::default())
            .unwrap()
            .lane()
            .totals()
            .queued,
        3
    );
}

#[test]
fn a_question_for_health_that_nobody_waits_for_any_more_keeps_nothing_open() {
    let is_asked = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
        names.flatten().any(|name| name == "ferrylog health\n")
    };
    let mock = MockKafka::start(1).unwrap();
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let producer = open(&store, &mock);
    drop(producer.send(&with_value("t", b"1")).unwrap());
    let is_well = || producer.health(Duration::ZERO).is_ok();
    until("the link is missed", || !is_well());
    let ask = || {
        let mut asked = Box::pin(producer.health_async(Duration::MAX));
        let polled = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        asked
    };
    let asked = ask();
    until("it is asked", is_asked);
    drop(asked);
    until("nobody asks", || !is_asked());
    drop(ask());
    drop(producer);
    Store::open(&store, Options::default()).unwrap();
}

/// As for threads: others may wait for company with a sync, who flushes does not.
#[test]
fn a_task_that_flushes_waits_for_no_company() {
    const LINGER: Duration = Duration::from_secs(1);
    let mock = MockKafka::start(1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.linger = LINGER;
    let producer = builder(&dir.path().join("store"), &mock)
        .store(StoreOptions::new(options))
        .open()
        .unwrap();
    let flushed = || {
        drop(producer.send(&with_value("t", b"1")).unwrap());
        let begun = Instant::now();
        block_on(producer.flush_async()).unwrap();
        begun.elapsed()
    };
    // A disk may be slow now and then.
    let quickest = (0..5).map(|_| flushed()).min().unwrap();
    assert!(quickest < LINGER / 2, "{quickest:?}");
}

/// The definition of its topic takes memory that no number stands for.
#[test]
fn a_batch_of_a_task_waits_for_the_memory_of_its_own_new_topic() {
    let mock = MockKafka::start(1).unwrap();
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = open_small(dir.path(), &mock, Options::default());
    let value = vec![b'x'; 220 << 10];
    drop(producer.send_batch(&[with_value("t", &value); 4]).unwrap());
    producer.flush().unwrap();
    let batch = [with_value("another", &value); 4];
    drop(block_on(producer.send_batch_async(&batch)).unwrap());
}

/// Where a sync takes so little time, all is on disk again and again while others go on taking memory.
#[test]
fn a_batch_of_a_task_waits_for_memory_that_others_take_meanwhile() {
    let mock = MockKafka::start(1).unwrap();
    mock.down().unwrap();
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.unwrap();
    let producer = open_small(dir.path(), &mock, Options::default());
    let value = vec![b'x'; 220 << 10];
    // Nearly all of the memory.
    let batch = [with_value("t", &value); 4];
    let is_over = AtomicBool::new(false);
    let send_one_by_one = || {
        while !is_over.load(Ordering::SeqCst) {
            let sent = producer.send(&with_value("t", b"1")).unwrap();
            sent.durable().wait().unwrap();
        }
    };
    let sent = thread::scope(|scope| {
        (0..3).for_each(|_| drop(scope.spawn(send_one_by_one)));
        let mut sends = (0..300).map(|_| block_on(producer.send_batch_async(&batch)));
        let sent = sends.try_for_each(|sent| sent.map(drop));
        is_over.store(true, Ordering::SeqCst);
        sent
    });
    sent.unwrap();
}

#[test]
fn a_close_that_nobody_waits_for_any_more_closes_all_the_same() {
    let mock = MockKafka::start(1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = open(&dir.path().join("store"), &mock);
    {
        let closing = pin!(producer.close_async(Duration::ZERO));
        let polled = closing.poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending() || polled.is_ready());
    }
    until("it is closed", || producer.status().is_closed);
    assert_eq!(producer.close(DEADLINE).unwrap().totals.queued, 0);
}

#[test]
fn closing_ends_the_wait_of_those_who_wait_for_space() {
    let mock = MockKafka::start(1).unwrap();
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.segment_size = 1 << 20;
    options.memory_budget = 1 << 20;
    options.max_record_bytes = 100 << 10;
    options.quota_bytes = Some(8 << 20);
    let producer = builder(&dir.path().join("store"), &mock)
        .store(StoreOptions::new(options))
        .open()
        .unwrap();
    let (value, waiting) = (vec![b'x'; 90 << 10], producer.clone());
    let sender = thread::spawn(move || {
        let mut last = None;
        loop {
            match waiting.send(&with_value("t", &value)) {
                Ok(receipt) => last = Some(receipt.into_owned()),
                Err(error) => return (error, last.unwrap()),
            }
        }
    });
    let durable = {
        until("space is short", || {
            let unhealthy = producer.health(Duration::ZERO);
            matches!(unhealthy, Err(Unhealthy::NoSpace { .. }))
        });
        let waiting = producer.clone();
        thread::spawn(move || {
            let sent = block_on(waiting.send_async(&with_value("t", b"1")));
            sent.map(Receipt::into_owned)
        })
    };
    // Whether the last records got their place is for it to say.
    drop(producer.close(Duration::ZERO));
    let (refused, last) = sender.join().unwrap();
    assert!(matches!(refused, SendError::Closed), "{refused}");
    let told = last.durable().wait();
    let is_over = matches!(&told, Err(NotDurable::Failed { .. }));
    assert!(is_over, "it had no place, and will have none: {told:?}");
    assert_eq!(last.delivered().wait(), Err(NotDelivered::Closed));
    drop(durable.join().unwrap());
}

/// Threads and tasks send while the cluster comes and goes; each waits for some of its records.
#[test]
fn whoever_waits_is_told_while_the_cluster_comes_and_goes() {
    /// The mock cluster forgets the oldest of 5 MiB. Who waits for delivery is slow enough by that.
    const DURABLE_MAX: usize = 2_000;
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let producer = open(&store, &mock);
    let is_over = AtomicBool::new(false);
    let sent: HashSet<String> = thread::scope(|scope| {
        let senders: Vec<_> = (0..8)
            .map(|n| {
                let (producer, is_over) = (producer.clone(), &is_over);
                scope.spawn(move || {
                    let (message, mut sent) = (with_value("t", b"21.4"), Vec::new());
                    let most = if n % 4 < 2 { DURABLE_MAX } else { usize::MAX };
                    while sent.len() < most && !is_over.load(Ordering::Relaxed) {
                        let receipt = match n % 2 {
                            0 => producer.send(&message).unwrap(),
                            _ => block_on(producer.send_async(&message)).unwrap(),
                        };
                        match n % 4 {
                            0 => receipt.durable().wait().unwrap(),
                            1 => block_on(receipt.durable()).unwrap(),
                            2 => assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped)),
                            _ => assert_eq!(block_on(receipt.delivered()), Ok(Outcome::Shipped)),
                        }
                        sent.push(receipt);
                    }
                    let shipped = |receipt: &Receipt<'_>| receipt.delivered().wait();
                    assert!(
                        sent.iter()
                            .all(|receipt| shipped(receipt) == Ok(Outcome::Shipped))
                    );
                    sent.iter().map(Receipt::id).collect::<Vec<_>>()
                })
            })
            .collect();
        for _ in 0..3 {
            let before = producer.stats().totals.shipped;
            until("it ships", || producer.stats().totals.shipped > before + 10);
            mock.down().unwrap();
            until("it is told", || producer.health(Duration::ZERO).is_err());
            mock.up().unwrap();
            producer.health(DEADLINE).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        let of = |sender: thread::ScopedJoinHandle<'_, Vec<String>>| sender.join().unwrap();
        senders.into_iter().flat_map(of).collect()
    });
    let closed = producer.close(DEADLINE).unwrap();
    assert!(closed.is_empty() && closed.totals.balances(), "{closed:?}");
    assert_eq!(closed.totals.shipped, u64::try_from(sent.len()).unwrap());
    println!("{} records", sent.len());
    assert_eq!(ids(&mock, "t"), sent);
}

/// The store alone: what was settled is told exactly, moved records by what became of them.
#[test]
fn a_store_follows_moved_records_into_their_parking_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), Options::default()).unwrap();
    let lane = store.lane();
    for _ in 0..4 {
        lane.append_wait(&with_value("t", b"1")).unwrap();
    }
    let all = lane.marks().first..lane.marks().next;
    let seq = |n| all.start + n;
    let outcome = |n| store.outcome(lane, seq(n)).unwrap();
    let log = store
        .parking_log(lane, &"t".into(), Some(0))
        .unwrap()
        .unwrap();
    log.append(seq(1), 0, b"raw").unwrap();
    log.append(seq(3), 0, b"raw").unwrap();
    log.sync().unwrap();
    lane.settle(seq(1)..seq(2), Class::Moved);
    assert_eq!([0, 1, 2].map(outcome), [None, None, None]);
    // One that no log of this process knows.
    lane.settle(seq(2)..seq(3), Class::Moved);
    assert_eq!(outcome(2), Some(Class::Unknown));
    let stream = ferrylog::store::Stream::of_parking(lane, log);
    let at = stream.marks().first;
    stream.settle(at..at + 1, Class::DeadLettered);
    assert_eq!(outcome(1), Some(Class::DeadLettered));
    // In its parking log already, and not settled in the lane: the lane's word counts.
    stream.settle(at + 1..at + 2, Class::Expired);
    assert_eq!(outcome(3), None);
    lane.settle(seq(3)..seq(4), Class::Moved);
    assert_eq!(outcome(3), Some(Class::Expired));
    lane.settle(seq(0)..seq(1), Class::Shipped);
    assert_eq!(outcome(0), Some(Class::Shipped));
    let worst = block_on(store.settlement(lane, all.clone())).unwrap();
    assert_eq!(worst, Class::DeadLettered, "the first that was not shipped");
    block_on(store.emptied()).unwrap();
}
