//! Several clusters and tenants: one that is down, slow or turns us away concerns no other.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ferrylog::kafka::{Consumer, MockKafka, Settings};
use ferrylog::message::{Header, MessageRef};
use ferrylog::producer::{Builder, OpenError, Unhealthy};
use ferrylog::ship::{
    self, Delivery, OnExhausted, Recovery, RetryOverride, ShipOptions, lanes_of_none,
};
use ferrylog::store::{MAIN_CLUSTER, Store, StoreOptions, TenantOptions};
use ferrylog::wal::OnFull;
use ferrylog::{Outcome, Producer, SendError};

use crate::producer::until;
use crate::support::options;
use crate::world::{Chaos, World};

const DEADLINE: Duration = Duration::from_secs(60);
const AUDIT: &str = "audit";

fn mock() -> MockKafka {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    mock
}

fn settings(mock: &MockKafka) -> Settings {
    Settings::new(mock.bootstrap_servers())
}

/// The records of the tenant acme go to another cluster.
fn with_acme() -> StoreOptions {
    let mut acme = TenantOptions::default();
    acme.cluster = Some(AUDIT.into());
    let mut options = StoreOptions::default();
    options.tenants.insert("acme".into(), acme);
    options
}

const ACME: [Header<'static>; 1] = [Header {
    name: "tenant",
    value: Some(b"acme"),
}];

fn message<'a>(is_acme: bool, value: &'a [u8]) -> MessageRef<'a> {
    MessageRef {
        headers: if is_acme { &ACME } else { &[] },
        value: Some(value),
        ..MessageRef::to("t")
    }
}

/// Appends `count` records for each of the two clusters.
fn fill(store: &Store, count: u64) {
    for n in 0..count {
        let value = n.to_string();
        for is_acme in [false, true] {
            let message = message(is_acme, value.as_bytes());
            let place = store.routed(&message).place;
            drop(store.lanes()[place].append(&message).unwrap());
        }
    }
    store
        .lanes()
        .iter()
        .for_each(|lane| _ = lane.sync().unwrap());
}

fn clusters(main: &MockKafka, audit: &MockKafka) -> BTreeMap<String, Settings> {
    [
        (MAIN_CLUSTER.to_owned(), settings(main)),
        (AUDIT.to_owned(), settings(audit)),
    ]
    .into()
}

/// The values that a topic of one partition holds, in order.
fn values(mock: &MockKafka, topic: &str) -> Vec<u64> {
    let mut consumer = Consumer::new(&settings(mock)).unwrap();
    let mut left = consumer.end(topic, 0, DEADLINE).unwrap();
    consumer.assign(&[(topic, 1)]).unwrap();
    let (mut values, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while left > 0 {
        assert!(Instant::now() < deadline, "{left} did not arrive");
        consumer
            .poll(Duration::from_millis(100), &mut |record| {
                let value = std::str::from_utf8(record.value().unwrap()).unwrap();
                values.push(value.parse().unwrap());
                left -= 1;
            })
            .unwrap();
    }
    values
}

fn queued(store: &Store) -> Vec<(&str, u64)> {
    let lanes = store.lanes().iter();
    lanes
        .map(|lane| {
            assert!(lane.totals().balances());
            (lane.name(), lane.totals().queued)
        })
        .collect()
}

const GIVEN_UP_AFTER: Duration = Duration::from_secs(4);

fn quick() -> Delivery {
    let mut options = options();
    // A cluster that is away is given up after this.
    options.timeout = Some(GIVEN_UP_AFTER);
    Delivery::AtLeastOnce(Box::new(options))
}

/// Ships to both; how long the main one took.
fn drain(store: &Store, main: &MockKafka, audit: &MockKafka) -> (Duration, bool) {
    let stop = AtomicBool::new(false);
    let (clusters, mut seen) = (clusters(main, audit), HashSet::new());
    let mut ended = ship::drain_all(store, &clusters, &quick(), &stop, &mut |name, _| {
        seen.insert(name.to_owned());
    });
    for name in [MAIN_CLUSTER, AUDIT] {
        assert!(seen.contains(name), "{name} says nothing");
    }
    let main = ended.remove(MAIN_CLUSTER).unwrap().unwrap().drained;
    assert!(main.is_empty, "{:?}", main.held);
    let audit = ended.remove(AUDIT).unwrap();
    let is_empty = audit.is_ok_and(|ended| ended.drained.is_empty);
    (main.elapsed, is_empty)
}

const COUNT: u64 = 20_000;

#[test]
fn a_cluster_that_is_down_slow_or_turns_us_away_holds_up_no_other_and_gets_its_own_later() {
    let expected: Vec<u64> = (0..COUNT).collect();
    for fault in ["none", "down", "slow", "blocked"] {
        let (main, audit) = (mock(), mock());
        match fault {
            "down" => audit.down().unwrap(),
            "slow" => audit.round_trip(Duration::from_millis(300)).unwrap(),
            // Cluster authorisation failed.
            "blocked" => audit.refuse_produce(&[31; 500]).unwrap(),
            _ => {}
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::open_with(&path, &with_acme()).unwrap();
        fill(&store, COUNT);
        let (took, is_empty) = drain(&store, &main, &audit);
        println!("{fault}: the main cluster took {took:?}");
        assert_eq!(values(&main, "t"), expected, "{fault}");
        match fault {
            "none" => assert!(is_empty),
            "down" | "blocked" => assert!(!is_empty, "{fault}"),
            _ => {}
        }
        // Far less in truth.
        assert!(took < GIVEN_UP_AFTER, "{fault}: {took:?}");
        assert_eq!(queued(&store)[0], ("default", 0), "{fault}");
        store.close().unwrap();
        // Another run, with a cluster that is well; what it has is not sent again.
        let audit = match fault {
            "blocked" => mock(),
            _ => audit,
        };
        audit.up().unwrap();
        audit.round_trip(Duration::ZERO).unwrap();
        let store = Store::open_with(&path, &with_acme()).unwrap();
        assert_eq!(queued(&store)[1].0, "default@audit~acme");
        let (_, is_empty) = drain(&store, &main, &audit);
        assert!(is_empty, "{fault}");
        // What was in doubt when a slow one was given up may be there twice.
        let mut met = HashSet::new();
        let first_copies = values(&audit, "t").into_iter().filter(|n| met.insert(*n));
        assert_eq!(first_copies.collect::<Vec<_>>(), expected, "{fault}");
        assert_eq!(values(&main, "t").len() as u64, COUNT, "{fault}");
    }
}

fn builder(dir: &Path, main: &MockKafka) -> Builder {
    Producer::builder(dir, settings(main)).ship(options())
}

#[test]
fn a_producer_names_the_cluster_that_is_away_and_ships_to_the_other_over_a_restart() {
    let (main, audit) = (mock(), mock());
    audit.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let builder = builder(&dir.path().join("store"), &main).store(with_acme());
        builder.cluster(AUDIT, settings(&audit)).open().unwrap()
    };
    let producer = open();
    let receipts: Vec<_> = (0..2000_u64)
        .map(|n| {
            let value = (n / 2).to_string();
            let message = message(n % 2 == 1, value.as_bytes());
            producer.send(&message).unwrap()
        })
        .collect();
    for receipt in receipts.iter().step_by(2) {
        assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    }
    assert_eq!(receipts[1].lane(), "default@audit~acme");
    let health = producer.health(Duration::ZERO).unwrap_err();
    let is_its = matches!(&health, Unhealthy::Offline { cluster, .. } if cluster == AUDIT);
    assert!(is_its && health.takes_records(), "{health}");
    let status = producer.status();
    assert!(
        status
            .why
            .unwrap()
            .starts_with("cluster audit: the link is")
    );
    let names: Vec<&str> = status.clusters.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, [AUDIT, MAIN_CLUSTER]);
    let closed = producer.close(Duration::from_millis(10)).unwrap();
    assert_eq!(closed.totals.queued, 1000);
    drop(producer);

    let producer = open();
    audit.up().unwrap();
    assert!(producer.close(DEADLINE).unwrap().is_empty());
    let expected: Vec<u64> = (0..1000).collect();
    assert_eq!(values(&main, "t"), expected);
    assert_eq!(values(&audit, "t"), expected);
}

#[test]
fn what_is_for_a_cluster_that_nobody_gave_is_held_with_a_sentence_and_goes_when_it_is_given() {
    let (main, audit) = (mock(), mock());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let refused = builder(&path, &main).store(with_acme()).open().unwrap_err();
    assert!(
        matches!(&refused, OpenError::Cluster { name } if name == AUDIT),
        "{refused}"
    );
    assert!(!path.exists(), "something was touched");
    let store = Store::open_with(&path, &with_acme()).unwrap();
    fill(&store, 10);
    store.close().unwrap();

    // The tenant is no longer configured, and neither is its cluster.
    let producer = builder(&path, &main).open().unwrap();
    drop(producer.send(&message(true, b"10")).unwrap());
    let alone = |health: &Unhealthy| matches!(health, Unhealthy::NoCluster { .. });
    let deadline = Instant::now() + DEADLINE;
    let health = loop {
        let health = producer.health(Duration::ZERO).unwrap_err();
        if alone(&health) {
            break health;
        }
        assert!(Instant::now() < deadline, "{health}");
        std::thread::yield_now();
    };
    assert!(health.takes_records());
    assert_eq!(
        health.to_string(),
        "lane default@audit~acme waits for the cluster `audit`, which nobody gave"
    );
    assert_eq!(producer.status().why, Some(health.to_string()));
    until("main is empty", || producer.status().totals.queued == 10);
    let closed = producer.close(Duration::from_secs(1)).unwrap();
    assert_eq!(closed.totals.queued, 10);
    drop(producer);
    assert_eq!(values(&main, "t").len(), 11);

    let producer = builder(&path, &main)
        .cluster(AUDIT, settings(&audit))
        .open()
        .unwrap();
    assert!(producer.close(DEADLINE).unwrap().is_empty());
    assert_eq!(values(&audit, "t"), (0..10).collect::<Vec<_>>());
    let store = Store::open(&path, ferrylog::wal::Options::default()).unwrap();
    assert!(lanes_of_none(&store, &BTreeMap::new()).is_empty());
}

#[test]
fn a_tenant_whose_quota_is_full_is_refused_alone() {
    let main = mock();
    main.down().unwrap();
    let mut options = StoreOptions::default();
    options.default.wal.segment_size = 1 << 20;
    options.default.wal.on_full = OnFull::Reject;
    let mut acme = TenantOptions::default();
    acme.quota_bytes = Some(3 << 20);
    options.tenants.insert("acme".into(), acme);
    let dir = tempfile::tempdir().unwrap();
    let producer = builder(&dir.path().join("s"), &main).store(options);
    let producer = producer.open().unwrap();
    let value = vec![0; 100_000];
    let send = |is_acme| {
        let receipt = producer.send(&message(is_acme, &value))?;
        drop(receipt.durable().wait());
        Ok::<(), SendError>(())
    };
    let refused = (0..100).find_map(|_| send(true).err()).unwrap();
    let is_its = matches!(&refused, SendError::Full { lane, .. } if lane == "default~acme");
    assert!(is_its, "{refused}");
    for _ in 0..100 {
        send(false).unwrap();
    }
    assert_eq!(
        producer.stats().totals.accepted,
        producer.stats().totals.queued
    );
}

#[test]
fn the_prefix_of_a_tenant_stands_before_its_topics_in_kafka_once() {
    let main = mock();
    main.create_topic("acme.t", 1).unwrap();
    let mut acme = TenantOptions::default();
    acme.topic_prefix = "acme.".into();
    let mut options = StoreOptions::default();
    options.tenants.insert("acme".into(), acme);
    let dir = tempfile::tempdir().unwrap();
    let producer = builder(dir.path(), &main).store(options).open().unwrap();
    let with_prefix = MessageRef {
        topic: "acme.t",
        ..message(false, b"1")
    };
    let both = MessageRef {
        headers: &ACME,
        ..with_prefix
    };
    let batch = [message(true, b"0"), with_prefix, both];
    drop(producer.send_batch(&batch).unwrap());
    drop(producer.send(&message(true, b"3")).unwrap());
    drop(producer.send(&message(false, b"4")).unwrap());
    assert!(producer.close(DEADLINE).unwrap().is_empty());
    assert_eq!(values(&main, "acme.t"), [0, 1, 1, 3]);
    assert_eq!(values(&main, "t"), [4]);
}

/// Ships ten records to a partition of which one is refused so often while the others are taken; what is
/// left of it, and how often it was refused.
fn refuse(store: &Store, times: u32, options: &ShipOptions) -> (Vec<u64>, u32) {
    let mut world = World::new(7);
    world.counts.insert("t".to_owned(), Some(1));
    world.flaky.insert(0, times);
    let stop = AtomicBool::new(false);
    let mut at_poll = |_: &mut World| {};
    let mut sink = Chaos {
        world: &mut world,
        stop: &stop,
        at_poll: &mut at_poll,
    };
    ship::Sink::rebuild(&mut sink).unwrap();
    ship::drain_into(store, &mut sink, options, &stop, &mut |_| {}).unwrap();
    let written = world.written.get(&("t".to_owned(), 0)).cloned();
    let written = written.unwrap_or_default().into_iter().map(|(n, _)| n);
    (written.collect(), times - world.flaky[&0])
}

fn store_with_ten(options: &StoreOptions, is_acme: bool) -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), options).unwrap();
    for n in 0..10_u64 {
        let value = n.to_string();
        let message = MessageRef {
            partition: Some(0),
            ..message(is_acme, value.as_bytes())
        };
        let routed = store.routed(&message);
        assert_eq!(routed.place, 0, "they share a lane");
        drop(store.lane().append(&message).unwrap());
    }
    store.lane().sync().unwrap();
    (store, dir)
}

#[test]
fn a_tenant_in_a_shared_lane_has_its_own_retry_policy_and_its_callback_is_told_whose_record_it_is()
{
    let mut options_of_store = StoreOptions::default();
    let acme = TenantOptions::default();
    options_of_store.tenants.insert("acme".into(), acme);
    let asked = Arc::new(AtomicU32::new(0));
    let mut options = options();
    options.retry.initial_backoff = Duration::from_millis(1);
    options.retry.max_backoff = Duration::from_millis(2);
    options.retry.max_attempts = 8;
    options.retry.on_exhausted = OnExhausted::DeadLetter;
    let mut of_acme = RetryOverride::default();
    of_acme.max_attempts = Some(2);
    let calls = Arc::clone(&asked);
    let callback = OnExhausted::Callback(Arc::new(move |failed| {
        assert_eq!((failed.lane, failed.tenant), ("default", Some("acme")));
        calls.fetch_add(failed.attempts, Ordering::Relaxed);
        Recovery::Drop
    }));
    of_acme.on_exhausted = Some(callback);
    options
        .retry_overrides
        .tenants
        .insert("acme".into(), of_acme);
    for is_acme in [false, true] {
        let (store, _dir) = store_with_ten(&options_of_store, is_acme);
        let (written, attempts) = refuse(&store, u32::MAX, &options);
        assert_eq!(written, (1..10).collect::<Vec<_>>());
        let totals = store.totals();
        println!("tenant: {is_acme}, {attempts} refusals, {totals:?}");
        assert!(totals.balances());
        if is_acme {
            assert_eq!((totals.dropped, totals.dead_lettered), (1, 0));
            assert!(attempts < 8, "{attempts}");
        } else {
            assert_eq!((totals.dropped, totals.dead_lettered), (0, 1));
            assert!(attempts >= 8, "{attempts}");
        }
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn the_function_that_a_builder_is_given_decides_about_exhausted_records() {
    let main = mock();
    main.down().unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let calls = Arc::clone(&asked);
    let dir = tempfile::tempdir().unwrap();
    let mut quick = options();
    quick.retry.initial_backoff = Duration::from_millis(1);
    quick.retry.max_backoff = Duration::from_millis(2);
    quick.retry.max_attempts = 1;
    let builder = Producer::builder(dir.path(), settings(&main)).on_exhausted(move |failed| {
        assert_eq!((failed.seq.get(), failed.tenant), (0, None));
        calls.fetch_add(1, Ordering::Relaxed);
        Recovery::Drop
    });
    // Whatever the order in which a builder is told.
    let producer = builder.ship(quick).open().unwrap();
    for n in 0..10_u64 {
        let sent = producer.send(&message(false, n.to_string().as_bytes()));
        drop(sent.unwrap());
    }
    producer.flush().unwrap();
    // All of them together, and the first one alone; the one behind it is taken.
    main.refuse_produce(&[-1, -1]).unwrap();
    main.up().unwrap();
    let closed = producer.close(DEADLINE).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1, "{closed:?}");
    assert_eq!((closed.totals.shipped, closed.totals.dropped), (9, 1));
    assert_eq!(values(&main, "t"), (1..10).collect::<Vec<_>>());
}

#[test]
fn dead_letters_are_sent_again_to_the_cluster_that_refused_them() {
    let (main, audit) = (mock(), mock());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), &with_acme()).unwrap();
    fill(&store, 1);
    // What is longer the client refuses as a broker would.
    let long = vec![b'9'; 3000];
    for is_acme in [false, true] {
        let message = message(is_acme, &long);
        let place = store.routed(&message).place;
        store.lanes()[place].append_wait(&message).unwrap();
    }
    let stop = AtomicBool::new(false);
    let small = |mock: &MockKafka| {
        let mut settings = settings(mock);
        let property = ("message.max.bytes".to_owned(), "2000".to_owned());
        settings.properties.push(property);
        settings
    };
    let clusters = [
        (MAIN_CLUSTER.to_owned(), small(&main)),
        (AUDIT.to_owned(), small(&audit)),
    ];
    let clusters = clusters.into();
    for (_, ended) in ship::drain_all(&store, &clusters, &quick(), &stop, &mut |_, _| {}) {
        let drained = ended.unwrap().drained;
        assert_eq!((drained.shipped, drained.counters.dead_lettered), (1, 1));
    }
    let letters = store.dead_letters().unwrap();
    let all = letters.open_letters(|_, _, _| true);
    assert_eq!(letters.mark_pending(&all).unwrap(), 2);
    assert!(letters.has_pending(MAIN_CLUSTER) && letters.has_pending(AUDIT));
    // Only the one that is shipped to gets its own.
    let mut only = options();
    only.cluster = AUDIT.into();
    let drained = ship::drain(&store, &settings(&audit), &only, &stop, &mut |_| {}).unwrap();
    assert_eq!((drained.counters.replayed, drained.is_empty), (1, true));
    assert!(letters.has_pending(MAIN_CLUSTER) && !letters.has_pending(AUDIT));
    let consumer = Consumer::new(&settings(&main)).unwrap();
    assert_eq!(consumer.end("t", 0, DEADLINE).unwrap(), 1);
    let consumer = Consumer::new(&settings(&audit)).unwrap();
    assert_eq!(consumer.end("t", 0, DEADLINE).unwrap(), 2);
}
