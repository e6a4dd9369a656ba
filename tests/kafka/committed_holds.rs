//! Partitions that take nothing under `drain --exactly-once`, while it runs: only they wait, and they go
//! on by themselves.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::exactly_once::{self, Committed, ExactlyOnceOptions};
use ferrylog::ship::{Block, LinkState, Progress, Until};
use ferrylog::store::{Store, Stream};
use ferrylog::wal::{Class, Durability, Options, SeqNo, Wal};

use crate::committed_letters::bury_one;
use crate::copies;
use crate::gateway::{self, content_of};
use crate::kafka::{Kafka, Operation, Resource, USER, wait_for};
use crate::random;

/// Longest wait for what must happen at last.
const SOON: Duration = Duration::from_secs(60);

/// As [`ship_to`].
pub(crate) fn ship(
    store: &Store,
    kafka: &Kafka,
    options: &ExactlyOnceOptions,
    check: impl FnOnce(&dyn Fn() -> Progress),
) {
    ship_to(
        store,
        &Settings::new(kafka.bootstrap_servers()),
        options,
        check,
    );
}

/// Ships until `check` is done with it, which sees how far it is.
pub(crate) fn ship_to(
    store: &Store,
    settings: &Settings,
    options: &ExactlyOnceOptions,
    check: impl FnOnce(&dyn Fn() -> Progress),
) {
    let mut options = options.clone();
    options.ship.until = Until::Stopped;
    options.ship.timeout = None;
    let (stop, newest) = (AtomicBool::new(false), Mutex::new(None::<Progress>));
    let mut tell = |now: &Progress| *newest.lock().unwrap() = Some(now.clone());
    thread::scope(|scope| {
        let run = || exactly_once::drain(store, settings, &options, &stop, &mut tell);
        let shipping = scope.spawn(run);
        let now = || {
            wait_for("progress", SOON, || newest.lock().unwrap().is_some());
            newest.lock().unwrap().clone().unwrap()
        };
        // A failed check has to end the thread, too.
        let checked = catch_unwind(AssertUnwindSafe(|| check(&now)));
        let has_ended = shipping.is_finished();
        stop.store(true, Ordering::Relaxed);
        let ended = shipping.join().unwrap();
        println!("{ended:?}");
        if let Err(panic) = checked {
            resume_unwind(panic);
        }
        assert!(!has_ended, "it is to go on whatever is held");
        ended.unwrap();
    });
}

/// Ships all that there is.
fn drain(store: &Store, kafka: &Kafka) -> Committed {
    let options = ExactlyOnceOptions::default();
    let settings = Settings::new(kafka.bootstrap_servers());
    let go_on = AtomicBool::new(false);
    exactly_once::drain(store, &settings, &options, &go_on, &mut |_| {}).unwrap()
}

/// Each record names its partition; every fifth is of another topic.
#[test]
fn a_topic_made_anew_with_fewer_partitions_holds_the_records_of_those_it_lacks_and_no_others() {
    const COUNT: u64 = 10_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("goes", 4);
    kafka.create_topic("stays", 1);
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.durability = Durability::Os;
    let store = Store::open(dir.path().join("store"), options).unwrap();
    let place = |n: u64| match n % 5 {
        4 => ("stays", 0),
        partition => ("goes", partition as i32),
    };
    let content = |n| (None, content_of(seed, n, 100).1);
    let fill = |range: std::ops::Range<u64>| {
        for n in range {
            let (topic, partition) = place(n);
            let message = MessageRef {
                partition: Some(partition),
                value: Some(&content(n).1),
                ..MessageRef::to(topic)
            };
            drop(store.lane().append(&message).unwrap());
        }
        store.lane().sync().unwrap();
    };
    fill(0..COUNT);
    ship(&store, &kafka, &ExactlyOnceOptions::default(), |now| {
        wait_for("the first ones", SOON, || store.totals().queued == 0);
        kafka.delete_topic("goes");
        kafka.create_topic("goes", 2);
        fill(COUNT..2 * COUNT);
        let held = || -> Vec<(String, Option<u32>, &'static str)> {
            let told = now().held.into_iter();
            told.map(|held| (held.topic.to_string(), held.partition, held.why.kind()))
                .collect()
        };
        let expected = [2, 3].map(|n| ("goes".to_owned(), Some(n), "no_partition"));
        wait_for("the holds", SOON, || {
            let mut held = held();
            held.sort_unstable();
            held == expected
        });
        println!("{:?}", now().why);
        wait_for("the others", SOON, || {
            now().queued == 2 * COUNT / 5 && store.lane().totals().queued == 0
        });
        // And goes on doing so, also with what is for them.
        fill(2 * COUNT..3 * COUNT);
        wait_for("more of the others", SOON, || {
            now().queued == 4 * COUNT / 5 && store.lane().totals().queued == 0
        });
        kafka.add_partitions("goes", 4);
        wait_for("the end", SOON, || now().queued == 0);
        assert_eq!(now().counters.dead_lettered, 0);
    });
    let log_id = store.lane().log_id().to_string();
    for (topic, from) in [("goes", COUNT), ("stays", 0)] {
        let expected: BTreeSet<u64> = (from..3 * COUNT).filter(|n| place(*n).0 == topic).collect();
        let repeats = copies::check_those(&kafka, topic, &log_id, expected, content);
        assert_eq!(repeats.duplicates, 0, "{topic}");
    }
}

/// What is refused, and what is no message, has to go there; all else has not.
#[test]
fn dead_letters_that_cannot_be_kept_hold_what_needs_them_and_nothing_else() {
    const COUNT: u64 = 5_000;
    const LIMIT: (&str, &str) = ("max.message.bytes", "20000");
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic_with("t", 2, &[LIMIT]);
    kafka.create_topic("other", 1);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("store");
    Store::open(&data, Options::default())
        .unwrap()
        .close()
        .unwrap();
    let lane = Wal::open(data.join("lanes/default"), Options::default()).unwrap();
    drop(lane.append(b"\xff is no version").unwrap());
    lane.close().unwrap();
    // Where their directory would be.
    let in_the_way = data.join("dead-letters");
    fs::write(&in_the_way, b"").unwrap();
    let mut options = Options::default();
    options.durability = Durability::Os;
    let store = Store::open(&data, options).unwrap();
    let is_bad = |n: u64| n == COUNT / 2;
    let content = |n| {
        let len = if is_bad(n) { 30_000 } else { 100 };
        content_of(seed, n, len).1
    };
    let fill = |range: std::ops::Range<u64>| {
        for n in range {
            let message = MessageRef {
                partition: Some(if n % 3 == 2 { 0 } else { (n % 3) as i32 }),
                value: Some(&content(n)),
                ..MessageRef::to(if n % 3 == 2 { "other" } else { "t" })
            };
            drop(store.lane().append(&message).unwrap());
        }
        store.lane().sync().unwrap();
    };
    let stuck = (COUNT / 2) % 3;
    assert!(stuck < 2, "it is of the topic with a limit");
    // Numbers are one more than in the log, which begins with what is no message.
    let waits = |n: u64| n % 3 == stuck && n >= COUNT / 2;
    let free = |count| (0..count).filter(|n| !waits(*n)).count() as u64;
    fill(0..COUNT);
    let mut transactions = ExactlyOnceOptions::default();
    transactions.ship.retry.max_backoff = Duration::from_secs(1);
    ship(&store, &kafka, &transactions, |now| {
        for count in [COUNT, 2 * COUNT] {
            wait_for("what needs them not", SOON, || {
                now().shipped == free(count) && store.lane().totals().queued == 0
            });
            let told = now();
            let held = told.held.iter();
            let mut held: Vec<_> = held
                .map(|held| (&*held.topic, held.partition, held.why.kind()))
                .collect();
            held.sort_unstable();
            let why = "no_dead_letters";
            let partition = Some(u32::try_from(stuck).unwrap());
            assert_eq!(held, [("(undecodable)", None, why), ("t", partition, why)]);
            assert!(
                told.why
                    .unwrap()
                    .contains("finds no place in the dead letters")
            );
            if count == COUNT {
                fill(COUNT..2 * COUNT);
            }
        }
        fs::remove_file(&in_the_way).unwrap();
        wait_for("the end", SOON, || now().queued == 0);
        let told = now();
        assert_eq!(told.counters.dead_lettered, 2);
        assert!(told.held.is_empty(), "{:?}", told.held);
    });
    assert_eq!(store.dead_letters().unwrap().counts().kept, 2);
    let log_id = store.lane().log_id().to_string();
    let mut found = BTreeSet::new();
    for topic in ["t", "other"] {
        let mut newest = [None; 2];
        kafka.consume_each(topic, |record| {
            let n = copies::identify(&record, &log_id) - 1;
            assert!(found.insert(n), "{n} is there twice");
            let before = newest[record.partition as usize].replace(n);
            assert!(before < Some(n), "{n} after {before:?}");
        });
    }
    assert_eq!(found, (0..2 * COUNT).filter(|n| !is_bad(*n)).collect());
}

/// A cursor keeps so many runs of what is settled above its mark, and no more: the parking log has to
/// remember the others until the mark is past them.
#[test]
fn what_was_shipped_from_a_parking_log_before_its_lane_knew_is_not_sent_again() {
    const COUNT: u64 = 2_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("goes", 1);
    kafka.create_topic("stays", 1);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("store");
    let mut options = Options::default();
    options.durability = Durability::Os;
    let store = Store::open(&data, options.clone()).unwrap();
    let is_moved = |n: u64| n % 2 == 1;
    // Those that are moved are longer than two segments of a parking log.
    let content = |n| (None, content_of(seed, n, 20_000).1);
    for n in 0..COUNT {
        let topic = if is_moved(n) { "stays" } else { "goes" };
        let message = MessageRef {
            value: Some(&content(n).1),
            ..MessageRef::to(topic)
        };
        drop(store.lane().append(&message).unwrap());
    }
    store.lane().sync().unwrap();

    // What a run does that dies while it looks for a refused record in front of them.
    let lane = Stream::of_lane(store.lane());
    let log = store.parking_log(store.lane(), &"stays".into(), Some(0));
    let log = log.unwrap().unwrap();
    let mut reader = lane.reader(SeqNo::ZERO);
    let mut moved = Vec::new();
    while let Some(entry) = lane.next(&mut reader).unwrap() {
        if is_moved(entry.seq.get()) {
            log.append(entry.origin, entry.time_micros, &entry.raw)
                .unwrap();
            moved.push(entry.seq);
        }
    }
    log.sync().unwrap();
    for seq in moved {
        lane.settle(seq..seq + 1, Class::Moved);
    }
    let parked = Stream::of_parking(store.lane(), log);
    parked.settle(SeqNo::ZERO..parked.marks().next, Class::Shipped);
    store.close().unwrap();

    let store = Store::open(&data, options).unwrap();
    assert!(store.lane().totals().queued > COUNT / 2, "it knows all");
    let ended = drain(&store, &kafka);
    assert_eq!(ended.drained.shipped, COUNT / 2, "{ended:?}");
    assert_eq!(store.totals().queued, 0);
    let log_id = store.lane().log_id().to_string();
    let expected: BTreeSet<u64> = (0..COUNT).filter(|n| !is_moved(*n)).collect();
    let repeats = copies::check_those(&kafka, "goes", &log_id, expected, content);
    assert_eq!(repeats.duplicates, 0);
    // And then it forgets them: what is left is the newest segment and a spare.
    let segments = || {
        let names = fs::read_dir(data.join("parked/default/stays/0")).unwrap();
        let names = names.map(|name| name.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("segment-"))
            .count()
    };
    wait_for("the segments to go", SOON, || segments() == 2);
}

/// Its letter was added, and whoever added it was not told that it is durable.
#[test]
fn what_was_parked_is_not_sent_once_its_dead_letter_is_found() {
    let kafka = Kafka::start();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), Options::default()).unwrap();
    let message = MessageRef {
        value: Some(b"one or the other"),
        ..MessageRef::to("late")
    };
    let seq = store.lane().append_wait(&message).unwrap();
    ship(&store, &kafka, &ExactlyOnceOptions::default(), |now| {
        wait_for("it to be parked", SOON, || now().counters.parked == 1);
        bury_one(&store, seq, &message);
        kafka.create_topic("late", 1);
        wait_for("the end", SOON, || now().queued == 0);
        let counters = now().counters;
        assert_eq!((counters.shipped, counters.dead_lettered), (0, 1));
    });
    assert!(kafka.consume("late").is_empty());
}

/// By a run in this process, which ended before it was on disk and settled in its lane.
#[test]
fn what_was_parked_a_moment_ago_is_not_parked_once_more() {
    let kafka = Kafka::start();
    kafka.create_topic("t", 1);
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.durability = Durability::Os;
    options.sync_interval = Duration::from_secs(3600);
    let store = Store::open(dir.path().join("store"), options).unwrap();
    let message = MessageRef {
        value: Some(b"once"),
        ..MessageRef::to("t")
    };
    drop(store.lane().append(&message).unwrap());
    store.lane().sync().unwrap();
    let lane = Stream::of_lane(store.lane());
    let log = store.parking_log(store.lane(), &"t".into(), Some(0));
    let log = log.unwrap().unwrap();
    let entry = lane.next(&mut lane.reader(SeqNo::ZERO)).unwrap().unwrap();
    log.append(entry.origin, entry.time_micros, &entry.raw)
        .unwrap();
    let ended = drain(&store, &kafka);
    assert_eq!(ended.drained.shipped, 1, "{ended:?}");
    assert_eq!(store.totals().queued, 0);
    assert_eq!(kafka.consume("t").len(), 1);
}

/// As it is on the first day, and when somebody takes them away.
#[test]
fn transactions_that_are_not_allowed_block_the_link_until_they_are() {
    const COUNT: u64 = 20_000;
    // What is blocked is tried once a minute or so.
    const RETRIED: Duration = Duration::from_secs(150);
    let seed = random::seed();
    let kafka = Kafka::with().with_acls().start();
    for topic in ["t", "ferrylog-progress"] {
        kafka.create_topic(topic, 2);
        kafka.grant(USER, Resource::Topic(topic), Operation::Write);
    }
    kafka.grant(USER, Resource::Topic("ferrylog-progress"), Operation::Read);
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.durability = Durability::Os;
    let store = Store::open(dir.path().join("store"), options).unwrap();
    let content = |n| content_of(seed, n, 100);
    let fill = |numbers| gateway::fill(store.lane(), numbers, seed, 100, |_| "t");
    let id = format!("ferrylog.{}.default", store.lane().log_id());
    let settings = Settings {
        properties: kafka.client_properties(),
        ..Settings::new(kafka.bootstrap_servers())
    };
    let mut transactions = ExactlyOnceOptions::default();
    // Else a transaction is open all the time.
    transactions.max_records = 500;
    fill(0..COUNT);
    ship_to(&store, &settings, &transactions, |now| {
        let is_blocked = || matches!(now().link_state, LinkState::Blocked(Block::Authorization));
        wait_for("the block", SOON, is_blocked);
        println!("{:?}", now().why);
        assert!(now().why.unwrap().contains("TransactionalIdAuthorization"));
        assert_eq!(now().queued, COUNT);
        kafka.grant(USER, Resource::TransactionalId(&id), Operation::Write);
        wait_for("some", RETRIED, || now().queued < COUNT / 2);
        kafka.withdraw(USER, Resource::TransactionalId(&id));
        fill(COUNT..2 * COUNT);
        wait_for("the block", SOON, is_blocked);
        kafka.grant(USER, Resource::TransactionalId(&id), Operation::Write);
        wait_for("the end", RETRIED, || now().queued == 0);
        assert_eq!(now().counters.dead_lettered, 0);
    });
    let log_id = store.lane().log_id().to_string();
    let expected = (0..2 * COUNT).collect();
    let repeats = copies::check_those(&kafka, "t", &log_id, expected, content);
    assert_eq!(repeats.duplicates, 0);
}
