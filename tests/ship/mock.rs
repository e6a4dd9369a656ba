//! The same promise with librdkafka in the way, against its mock cluster on loopback.

use std::collections::{BTreeMap, HashSet};
use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ferrylog::kafka::{Consumer, MockKafka, Settings};
use ferrylog::ship::{self, Drained, Error, LinkState, Progress};

use crate::support::{Scratch, options};

const DEADLINE: Duration = Duration::from_secs(60);

fn drain(
    scratch: &Scratch,
    settings: &Settings,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Drained, Error> {
    let stop = AtomicBool::new(false);
    ship::drain(&scratch.store, settings, &options(), &stop, progress)
}

/// Reads all that a topic holds: by partition, the numbers in the identities.
fn read_back(settings: &Settings, topic: &str, partitions: u32) -> BTreeMap<i32, Vec<u64>> {
    let mut consumer = Consumer::new(settings).unwrap();
    let end = |p| consumer.end(topic, p, DEADLINE).unwrap();
    let mut left: i64 = (0..i32::try_from(partitions).unwrap()).map(end).sum();
    consumer.assign(&[(topic, partitions)]).unwrap();
    let mut found: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    let deadline = Instant::now() + DEADLINE;
    while left > 0 {
        assert!(Instant::now() < deadline, "{left} did not arrive");
        consumer
            .poll(Duration::from_millis(100), &mut |record| {
                let id = record.header("ferry-id").unwrap();
                let seq = id.split_once('-').unwrap().1.parse().unwrap();
                found.entry(record.partition()).or_default().push(seq);
                left -= 1;
            })
            .unwrap();
    }
    found
}

/// Every number once, each partition in order.
fn check(found: &BTreeMap<i32, Vec<u64>>, count: u64) {
    for seqs in found.values() {
        assert!(seqs.is_sorted_by(|a, b| a < b), "order, or a duplicate");
    }
    let mut all: Vec<u64> = found.values().flatten().copied().collect();
    all.sort_unstable();
    assert_eq!(all, (0..count).collect::<Vec<_>>());
}

#[test]
fn what_is_appended_arrives_once_and_in_order() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 4).unwrap();
    let settings = Settings::new(mock.bootstrap_servers());
    let scratch = Scratch::new();
    scratch.fill("t", 0..20_000);
    let drained = drain(&scratch, &settings, &mut |_| {}).unwrap();
    assert_eq!((drained.shipped, drained.rebuilds), (20_000, 0));
    check(&read_back(&settings, "t", 4), 20_000);
    assert_eq!(scratch.queued(), 0);
    assert_eq!(drain(&scratch, &settings, &mut |_| {}).unwrap().shipped, 0);
}

#[test]
fn a_cluster_that_comes_late_gets_everything() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 2).unwrap();
    mock.down().unwrap();
    let settings = Settings::new(mock.bootstrap_servers());
    let scratch = Scratch::new();
    scratch.fill("t", 0..5000);
    let mut was_down = false;
    let drained = drain(&scratch, &settings, &mut |progress| {
        if progress.link_state != LinkState::Up && !was_down {
            was_down = true;
            mock.up().unwrap();
        }
    });
    assert_eq!(drained.unwrap().shipped, 5000);
    assert!(was_down, "the outage was seen");
    check(&read_back(&settings, "t", 2), 5000);
}

#[test]
fn a_link_lost_midway_costs_no_record() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 2).unwrap();
    let settings = Settings::new(mock.bootstrap_servers());
    let scratch = Scratch::new();
    scratch.fill("t", 0..5000);
    // Slow enough that the first report of progress comes midway.
    mock.round_trip(Duration::from_millis(150)).unwrap();
    let mut outage = 0;
    let drained = drain(&scratch, &settings, &mut |progress| {
        if outage == 0 && progress.in_flight > 0 {
            outage = 1;
            mock.down().unwrap();
        } else if outage == 1 && progress.link_state != LinkState::Up {
            outage = 2;
            mock.round_trip(Duration::ZERO).unwrap();
            mock.up().unwrap();
        }
    });
    assert_eq!(drained.unwrap().shipped, 5000);
    assert_eq!(outage, 2, "the outage was seen");
    // The mock keeps what an idempotent producer sends twice, so only first copies are judged.
    let mut found = read_back(&settings, "t", 2);
    for seqs in found.values_mut() {
        let mut met = HashSet::new();
        seqs.retain(|seq| met.insert(*seq));
    }
    check(&found, 5000);
    assert_eq!(scratch.queued(), 0);
}

#[test]
fn an_unknown_topic_is_named_and_not_created() {
    let mock = MockKafka::start(1).unwrap();
    let settings = Settings::new(mock.bootstrap_servers());
    let scratch = Scratch::new();
    scratch.fill("misspelt", 0..10);
    for _ in 0..2 {
        let drained = drain(&scratch, &settings, &mut |_| {}).unwrap();
        let held: Vec<_> = drained.held.iter().map(|held| &*held.topic).collect();
        assert_eq!((held, drained.is_empty), (vec!["misspelt"], false));
        assert_eq!(drained.held[0].why.kind(), "unknown_topic");
    }
    assert_eq!(scratch.queued(), 10);
}

/// One batch is refused, and accepted in pieces: nobody was to blame.
#[test]
fn a_refused_batch_is_sent_again_in_pieces_and_nothing_overtakes_it() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let settings = Settings::new(mock.bootstrap_servers());
    let scratch = Scratch::new();
    scratch.fill("t", 0..20_000);
    // Kafka's INVALID_RECORD, for the third request.
    mock.refuse_produce(&[0, 0, 87]).unwrap();
    let drained = drain(&scratch, &settings, &mut |_| {}).unwrap();
    assert_eq!((drained.shipped, drained.rebuilds), (20_000, 1));
    assert_eq!(drained.counters.dead_lettered, 0);
    check(&read_back(&settings, "t", 1), 20_000);
    assert_eq!(scratch.queued(), 0);
}

#[test]
fn a_spent_producer_is_replaced_and_everything_arrives() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let settings = Settings::new(mock.bootstrap_servers());
    let scratch = Scratch::new();
    scratch.fill("t", 0..20_000);
    // Kafka's INVALID_PRODUCER_ID_MAPPING: nothing that librdkafka heals by itself.
    mock.refuse_produce(&[0, 0, 49]).unwrap();
    let drained = drain(&scratch, &settings, &mut |_| {}).unwrap();
    assert_eq!((drained.shipped, drained.rebuilds), (20_000, 1));
    check(&read_back(&settings, "t", 1), 20_000);
}

#[test]
fn nobody_there_is_said_after_the_timeout_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let scratch = Scratch::new();
    scratch.fill("t", 0..10);
    let mut options = options();
    options.timeout = Some(Duration::from_secs(1));
    let stop = AtomicBool::new(false);
    let settings = Settings::new(address.clone());
    let started = Instant::now();
    let error = ship::drain(&scratch.store, &settings, &options, &stop, &mut |_| {});
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(scratch.queued(), 10);
}
