//! One record of a partition that stops it, beside others of the same partition: in one log, in two
//! lanes, in parking logs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferrylog::message::MessageRef;
use ferrylog::ship::{self, Drained, Error, ShipOptions, Sink, Until};
use ferrylog::store::{LaneOptions, Store, StoreOptions};
use ferrylog::wal::{Options, Wal};
use tempfile::TempDir;

use crate::support::options;
use crate::world::{Chaos, World};

const TOPIC: &str = "t";
const LANES: [&str; 2] = ["default", "other"];

/// A store with two lanes, and a cluster with one topic.
struct Test {
    dir: TempDir,
    store: Store,
    world: World,
    options: ShipOptions,
}

impl Test {
    fn new(seed: u64, partitions: Option<u32>) -> Test {
        Test::in_dir(tempfile::tempdir().unwrap(), seed, partitions)
    }

    fn in_dir(dir: TempDir, seed: u64, partitions: Option<u32>) -> Test {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.counts.insert(TOPIC.to_owned(), partitions);
        let mut options = options();
        options.timeout = Some(Duration::from_secs(2));
        options.retry.initial_backoff = Duration::from_millis(1);
        options.retry.max_backoff = Duration::from_millis(2);
        options.retry.max_attempts = 3;
        Test {
            store: open(&dir),
            dir,
            world,
            options,
        }
    }

    /// Ships until all is shipped, or `at_poll` is told by its answer that it is enough.
    fn ship_until(
        &mut self,
        mut enough: impl FnMut(&Store, &mut World) -> bool,
    ) -> Result<Drained, Error> {
        let stop = AtomicBool::new(false);
        let store = &self.store;
        let mut at_poll = |world: &mut World| {
            if enough(store, world) {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let mut sink = Chaos {
            world: &mut self.world,
            stop: &stop,
            at_poll: &mut at_poll,
        };
        sink.rebuild().unwrap();
        ship::drain_into(store, &mut sink, &self.options, &stop, &mut |_| {})
    }

    fn ship(&mut self) {
        let drained = self.ship_until(|_, _| false).unwrap();
        assert!(drained.is_empty, "{:?}", drained.held);
    }

    /// The values that a partition holds, in its order.
    fn written(&self, partition: i32) -> Vec<u64> {
        let records = self.world.written.get(&(TOPIC.to_owned(), partition));
        let records = records.into_iter().flatten();
        records.map(|(n, _)| *n).collect()
    }

    /// The values among the dead letters, and the codes they were refused with.
    fn dead(&self) -> Vec<(u64, i32)> {
        let Some(letters) = self.store.dead_letters_if_any().unwrap() else {
            return Vec::new();
        };
        let all = letters.open_letters(|_, _, _| true).into_iter();
        let of = |seq| letters.get(seq).unwrap().unwrap().body;
        all.map(of)
            .map(|body| {
                let value = body.content.unwrap().value.unwrap();
                (
                    std::str::from_utf8(&value).unwrap().parse().unwrap(),
                    body.code,
                )
            })
            .collect()
    }
}

fn open(dir: &TempDir) -> Store {
    let mut options = StoreOptions::default();
    options
        .lanes
        .insert(LANES[1].into(), LaneOptions::default());
    Store::open_with(dir.path().join("s"), &options).unwrap()
}

/// Appends these values to a lane, for one partition.
fn append(store: &Store, lane: usize, partition: i32, values: impl IntoIterator<Item = u64>) {
    let lane = store.lane_named(LANES[lane]).unwrap();
    for n in values {
        let value = n.to_string();
        let message = MessageRef {
            partition: Some(partition),
            value: Some(value.as_bytes()),
            ..MessageRef::to(TOPIC)
        };
        drop(lane.append(&message).unwrap());
    }
    lane.sync().unwrap();
}

/// Never taken.
const NEVER: u32 = u32::MAX;

#[test]
fn a_record_alone_in_its_log_is_exhausted_when_one_of_another_log_is_taken() {
    let mut test = Test::new(1, Some(1));
    append(&test.store, 0, 0, [0]);
    append(&test.store, 1, 0, 1..6);
    test.world.flaky.insert(0, NEVER);
    test.ship();
    assert_eq!(test.dead(), [(0, -1)]);
    assert_eq!(test.written(0), [1, 2, 3, 4, 5]);
    let attempts = NEVER - test.world.flaky[&0];
    assert!(attempts < 10, "{attempts}");
}

/// Both have the number 0 in their logs, too.
#[test]
fn what_comes_into_one_lane_is_neither_passed_over_nor_buried_for_a_record_of_another() {
    for count in 1..3 {
        let mut test = Test::new(2, Some(1));
        append(&test.store, 1, 0, [0]);
        test.world.flaky.insert(0, NEVER);
        let mut is_there = false;
        let drained = test.ship_until(|store, world| {
            if !is_there && world.flaky[&0] < NEVER - 5 {
                is_there = true;
                append(store, 0, 0, 1..=count);
            }
            false
        });
        assert!(drained.unwrap().is_empty);
        assert_eq!(test.dead(), [(0, -1)]);
        assert_eq!(test.written(0), (1..=count).collect::<Vec<_>>());
    }
}

#[test]
fn each_of_two_that_follow_each_other_is_refused_for_its_own_fault() {
    let mut test = Test::new(3, Some(1));
    append(&test.store, 0, 0, 0..10);
    test.world.flaky.insert(0, NEVER);
    test.world.poison.insert(1);
    test.ship();
    assert_eq!(test.dead(), [(1, 87), (0, -1)]);
    assert_eq!(test.written(0), (2..10).collect::<Vec<_>>());
}

#[test]
fn what_is_doubted_is_forgotten_with_the_record() {
    let mut test = Test::new(8, Some(1));
    append(&test.store, 0, 0, [0]);
    test.world.flaky.insert(0, NEVER);
    test.options.until = Until::Stopped;
    let mut is_there = false;
    test.ship_until(|store, world| {
        let totals = store.lane().totals();
        if world.flaky[&0] < NEVER - 5 {
            world.poison.insert(0);
        }
        if totals.dead_lettered == 1 && !is_there {
            is_there = true;
            world.flaky.insert(1, 1);
            append(store, 0, 0, 1..4);
        }
        is_there && store.lane().totals().queued == 0
    })
    .unwrap();
    assert_eq!(test.dead(), [(0, 87)]);
    assert_eq!(test.written(0), [1, 2, 3]);
}

/// The producer is spent while the last record is acknowledged, and nothing asks for the link again.
#[test]
fn what_is_shipped_ends_though_the_producer_is_spent_with_the_last_record() {
    let mut test = Test::new(10, Some(1));
    append(&test.store, 0, 0, [0]);
    test.world.flaky.insert(0, 1);
    let mut polls = 0;
    let drained = test.ship_until(|_, world| {
        if !world.careful.is_empty() {
            world.spend();
        }
        polls += 1;
        polls > 100_000
    });
    assert!(drained.unwrap().is_empty);
    assert_eq!(test.written(0), [0]);
}

#[test]
fn what_waits_for_a_topic_follows_the_partition_that_it_gets_when_the_topic_comes() {
    let mut test = Test::new(4, None);
    append(&test.store, 0, 0, 0..3000);
    test.world.poison.insert(0);
    let mut polls = 0;
    test.options.until = Until::Stopped;
    test.ship_until(|store, world| {
        polls += 1;
        if polls == 20 {
            world.counts.insert(TOPIC.to_owned(), Some(1));
        }
        store.lane().totals().queued == 0
    })
    .unwrap();
    assert_eq!(test.dead(), [(0, 87)]);
    assert_eq!(test.written(0), (1..3000).collect::<Vec<_>>());
}

fn moved(store: &Store) -> u64 {
    store.lane().totals().moved
}

/// A partition is parked twice, and then its topic is missing.
#[test]
fn what_was_parked_by_partition_goes_before_what_was_parked_by_topic() {
    let mut test = Test::new(5, Some(1));
    test.options.park_after = Duration::ZERO;
    test.options.retry.max_attempts = NEVER;
    for (first, end) in [(0, 100), (100, 1000)] {
        test.ship();
        append(&test.store, 0, 0, first..end);
        test.world.flaky = HashMap::from([(first, NEVER)]);
        test.ship_until(|store, _| moved(store) == end).unwrap();
        test.world.flaky.clear();
    }
    append(&test.store, 0, 0, 1000..2000);
    test.world.counts.insert(TOPIC.to_owned(), None);
    test.ship_until(|store, _| moved(store) == 2000).unwrap();
    let logs = test.store.parking_logs();
    let queued: Vec<_> = logs
        .map(|log| (log.partition(), log.totals().queued))
        .collect();
    assert_eq!(queued, [(Some(0), 900), (None, 1000)]);

    append(&test.store, 0, 0, 2000..3000);
    test.world.counts.insert(TOPIC.to_owned(), Some(1));
    test.world.flaky = HashMap::from([(100, NEVER)]);
    let dir = test.dir.path().join("s/parked/default/t/any");
    let cursors = ["cursor-a", "cursor-b"].map(|slot| dir.join(slot));
    let before = cursors.each_ref().map(|path| std::fs::read(path).ok());
    let own = |store: &Store| store.parking_logs().next().unwrap().totals().accepted;
    test.ship_until(|store, _| own(store) >= 1500).unwrap();

    // A crash that forgot the settlements of the log that is shared.
    let Test {
        dir, store, world, ..
    } = test;
    store.close().unwrap();
    for (path, bytes) in cursors.iter().zip(before) {
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap_or(()),
        }
    }
    let mut test = Test::in_dir(dir, 6, Some(1));
    test.world.written = world.written;
    test.ship();
    assert_eq!(test.written(0), (0..3000).collect::<Vec<_>>());
}

/// Those of the log that the topic shares are what it is compared with.
#[test]
fn a_record_alone_in_its_parking_log_is_exhausted_when_one_behind_it_is_taken() {
    let mut test = Test::new(9, Some(1));
    test.options.park_after = Duration::ZERO;
    append(&test.store, 0, 0, [0]);
    test.world.flaky.insert(0, NEVER);
    test.ship_until(|store, _| moved(store) == 1).unwrap();
    append(&test.store, 0, 0, 1..10);
    test.world.counts.insert(TOPIC.to_owned(), None);
    test.ship_until(|store, _| moved(store) == 10).unwrap();
    test.world.counts.insert(TOPIC.to_owned(), Some(1));
    test.ship();
    assert_eq!(test.dead(), [(0, -1)]);
    assert_eq!(test.written(0), (1..10).collect::<Vec<_>>());
}

/// A store whose lane begins with so many records that are no messages.
fn with_garbage(count: u8) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).close().unwrap();
    let log = Wal::open(dir.path().join("s/lanes/default"), Options::default()).unwrap();
    for n in 0..count {
        log.append_wait(&[255, n][..]).unwrap();
    }
    log.close().unwrap();
    dir
}

#[test]
fn a_record_that_is_no_message_needs_no_link_and_stops_none() {
    let mut test = Test::in_dir(with_garbage(3), 6, Some(1));
    test.world.away_polls = u64::MAX;
    test.ship();
    assert_eq!(test.store.lane().totals().dead_lettered, 3);
}

#[test]
fn records_that_are_no_messages_keep_their_places_until_the_dead_letters_take_them() {
    let mut test = Test::in_dir(with_garbage(5), 7, Some(1));
    append(&test.store, 0, 0, 0..5);
    let in_the_way = test.dir.path().join("s/dead-letters");
    std::fs::write(&in_the_way, "").unwrap();
    test.options.until = Until::Stopped;
    let mut polls = 0;
    test.ship_until(|store, _| {
        polls += 1;
        if polls == 10 {
            std::fs::remove_file(&in_the_way).unwrap();
        }
        store.lane().totals().queued == 0
    })
    .unwrap();
    assert_eq!(test.store.lane().totals().dead_lettered, 5);
    assert_eq!(test.written(0), [0, 1, 2, 3, 4]);
}
