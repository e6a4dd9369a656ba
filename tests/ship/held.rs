//! What a partition that takes nothing meets: drops for space, expiry, a shared parking log, a search, a
//! callback.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ferrylog::message::MessageRef;
use ferrylog::ship::{self, OnExhausted, OnTooSlow, Recovery, ShipOptions, Until};
use ferrylog::store::{Lane, LaneOptions, Store, StoreOptions};
use ferrylog::wal::{OnFull, Options};

use crate::sink::{Fault, Passing, Scripted};
use crate::support::{Scratch, options};

const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// What happens one after the other, each when so many milliseconds have passed.
struct Steps<const COUNT: usize> {
    at_millis: [u128; COUNT],
    next: usize,
}

impl<const COUNT: usize> Steps<COUNT> {
    fn at(at_millis: [u128; COUNT]) -> Self {
        Self { at_millis, next: 0 }
    }

    /// The one whose time has come.
    fn due(&mut self, since: Duration) -> Option<usize> {
        let at = *self.at_millis.get(self.next)?;
        let step = self.next;
        self.next += usize::from(since.as_millis() >= at);
        (self.next > step).then_some(step)
    }
}

/// Appends records for one partition; each is its number.
fn put(lane: &Lane, topic: &str, partition: i32, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let value = n.to_le_bytes();
        let message = MessageRef {
            partition: Some(partition),
            value: Some(&value),
            ..MessageRef::to(topic)
        };
        // The sync below waits for all of them.
        drop(lane.append(&message).unwrap());
    }
    lane.sync().unwrap();
}

/// A log that keeps the newest 6 MiB.
fn drop_oldest() -> Scratch {
    let mut options = Options::default();
    options.segment_size = 1 << 20;
    options.quota_bytes = Some(6 << 20);
    options.on_full = OnFull::DropOldest;
    Scratch::with(options)
}

/// Without parking, until it is stopped.
fn patient() -> ShipOptions {
    let mut options = options();
    options.until = Until::Stopped;
    options.timeout = None;
    options.park_after = FOR_EVER;
    options
}

/// The first copies of what a partition holds.
fn first_copies(cluster: &Scripted, topic: &str, partition: i32) -> Vec<u64> {
    let mut seen = HashSet::new();
    let written = cluster.by_topic.get(&(topic.to_owned(), partition));
    let written = written.into_iter().flatten().copied();
    written.filter(|seq| seen.insert(*seq)).collect()
}

#[test]
fn what_is_dropped_for_space_while_its_topic_is_missing_waits_no_more() {
    let scratch = drop_oldest();
    put(scratch.store.lane(), "late", 0, 0..100);
    let mut cluster = Scripted::new(1, 1);
    cluster.missing.insert("late".to_owned());
    let mut options = patient();
    // Of a link that carries nothing though something waits, which is not so.
    options.timeout = Some(Duration::from_secs(2));
    let stop = AtomicBool::new(false);
    let mut passing = Passing::new(cluster, |cluster: &mut Scripted, since| {
        if since > Duration::from_millis(500) && !cluster.missing.is_empty() {
            scratch.fill_with("t", 13_000, &[7; 1000]);
            cluster.missing.clear();
        }
        stop.store(since > Duration::from_secs(5), Ordering::Relaxed);
    });
    ship::drain_into(&scratch.store, &mut passing, &options, &stop, &mut |_| {}).unwrap();
    let totals = scratch.store.lane().totals();
    assert!(totals.balances() && totals.queued == 0, "{totals:?}");
    assert!(totals.dropped >= 100, "{totals:?}");
    assert!(
        !passing
            .cluster
            .by_topic
            .contains_key(&("late".to_owned(), 0))
    );
}

#[test]
fn what_is_left_of_a_held_partition_when_its_oldest_were_dropped_goes_in_order() {
    let scratch = drop_oldest();
    let lane = scratch.store.lane();
    put(lane, "held", 1, 0..100);
    scratch.fill_with("t", 4_000, &[7; 1000]);
    put(lane, "held", 1, 100..200);
    let mut cluster = Scripted::new(1, 2);
    cluster.flaky = (0..100).chain(4_100..4_200).collect();
    let stop = AtomicBool::new(false);
    let mut steps = Steps::at([500, 1500, 2000, 5000]);
    let mut passing = Passing::new(cluster, |cluster: &mut Scripted, since| {
        match steps.due(since) {
            Some(0) => scratch.fill_with("t", 2_500, &[7; 1000]),
            Some(1) => put(lane, "held", 1, 200..210),
            Some(2) => cluster.flaky.clear(),
            Some(_) => stop.store(true, Ordering::Relaxed),
            None => {}
        }
    });
    let store = &scratch.store;
    ship::drain_into(store, &mut passing, &patient(), &stop, &mut |_| {}).unwrap();
    assert_eq!(lane.totals().queued, 0);
    let arrived = first_copies(&passing.cluster, "held", 1);
    assert!(
        arrived
            .iter()
            .copied()
            .eq((4_100..4_200).chain(6_700..6_710)),
        "{arrived:?}"
    );
}

/// Records for a partition that does not exist have their topic share a parking log.
#[test]
fn a_shared_parking_log_takes_nothing_of_partitions_that_are_there() {
    for (seed, poison) in [(0, 97), (1, 97), (2, u64::MAX), (3, u64::MAX)] {
        let scratch = Scratch::new();
        let lane = scratch.store.lane();
        put(lane, "t", 0, 0..1000);
        put(lane, "t", 7, 1000..1006);
        put(lane, "t", 0, 1006..2000);
        let mut cluster = Scripted::new(seed, 2);
        cluster.poison = (1..2000).filter(|n| n % poison == 0).collect();
        let dead = cluster.poison.len() as u64;
        if poison == u64::MAX {
            cluster.faults.push_back((700, Fault::Spent));
        }
        let mut options = patient();
        options.until = Until::Empty;
        options.timeout = Some(Duration::from_secs(60));
        options.park_after = Duration::ZERO;
        let stop = AtomicBool::new(false);
        let mut passing = Passing::new(cluster, |_: &mut Scripted, _| {});
        ship::drain_into(&scratch.store, &mut passing, &options, &stop, &mut |_| {}).unwrap();
        let totals = scratch.store.totals();
        assert_eq!(
            (totals.queued, totals.dead_lettered),
            (6, dead),
            "{totals:?}"
        );
        assert!(
            first_copies(&passing.cluster, "t", 0).is_sorted(),
            "seed {seed}"
        );
    }
}

/// Its partition has no leader: what is on its way there is in doubt when the shared log begins.
#[test]
fn a_shared_parking_log_that_begins_beside_records_on_their_way_lets_none_pass_them() {
    let scratch = Scratch::new();
    let lane = scratch.store.lane();
    put(lane, "t", 0, 0..50);
    put(lane, "t", 7, 50..51);
    let is_gone = Arc::new(AtomicBool::new(true));
    let mut cluster = Scripted::new(0, 2);
    cluster.leaderless = Some((0, Arc::clone(&is_gone)));
    let mut options = patient();
    options.park_after = Duration::from_secs(8);
    let stop = AtomicBool::new(false);
    let mut steps = Steps::at([6_000, 9_500, 10_000, 12_000]);
    let mut passing = Passing::new(cluster, |cluster: &mut Scripted, since| {
        match steps.due(since) {
            Some(0) => put(lane, "t", 0, 51..61),
            Some(1) => {
                put(lane, "t", 1, 61..62);
                cluster.faults.push_back((0, Fault::Spent));
            }
            Some(2) => is_gone.store(false, Ordering::Relaxed),
            Some(_) => stop.store(true, Ordering::Relaxed),
            None => {}
        }
    });
    ship::drain_into(&scratch.store, &mut passing, &options, &stop, &mut |_| {}).unwrap();
    let arrived = first_copies(&passing.cluster, "t", 0);
    assert!(
        arrived.iter().copied().eq((0..50).chain(51..61)),
        "{arrived:?}"
    );
}

#[test]
fn a_large_record_of_a_partition_that_takes_nothing_costs_no_producer() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    for _ in 0..20 {
        let message = MessageRef {
            partition: Some(0),
            value: Some(&[1; 40_000]),
            ..MessageRef::to("t")
        };
        drop(store.lane().append(&message).unwrap());
    }
    put(store.lane(), "t", 1, 0..400);
    let mut cluster = Scripted::new(1, 2);
    let is_gone = Arc::new(AtomicBool::new(true));
    cluster.leaderless = Some((0, Arc::clone(&is_gone)));
    let mut options = patient();
    options.max_in_flight_bytes = 64 * 1024;
    let stop = AtomicBool::new(false);
    let mut last = 0;
    let mut passing = Passing::new(cluster, |_: &mut Scripted, since: Duration| {
        let seconds = since.as_secs();
        // Others get their answers.
        if seconds > last {
            last = seconds;
            put(store.lane(), "t", 1, 0..1);
        }
        is_gone.store(seconds < 9, Ordering::Relaxed);
        stop.store(seconds >= 12, Ordering::Relaxed);
    });
    ship::drain_into(store, &mut passing, &options, &stop, &mut |_| {}).unwrap();
    assert!(
        passing.cluster.rebuild_count <= 2,
        "{} producers",
        passing.cluster.rebuild_count
    );
    assert_eq!(first_copies(&passing.cluster, "t", 0).len(), 20);
}

#[test]
fn a_record_that_is_given_all_the_time_there_is_costs_no_producer_meanwhile() {
    let scratch = Scratch::new();
    for n in 0..100_u64 {
        let message = MessageRef {
            value: Some(&[1; 60_000][..if n == 10 { 60_000 } else { 10 }]),
            ..MessageRef::to("t")
        };
        drop(scratch.store.lane().append(&message).unwrap());
    }
    scratch.store.lane().sync().unwrap();
    let mut cluster = Scripted::new(1, 4);
    cluster.too_slow = HashSet::from([10]);
    let mut options = options();
    options.on_too_slow = OnTooSlow::DeadLetter;
    options.too_slow_after = Duration::from_secs(2);
    options.max_in_flight_bytes = 32 * 1024;
    let stop = AtomicBool::new(false);
    let mut passing = Passing::new(cluster, |_: &mut Scripted, _| {});
    ship::drain_into(&scratch.store, &mut passing, &options, &stop, &mut |_| {}).unwrap();
    assert!(
        passing.cluster.rebuild_count <= 5,
        "{} producers",
        passing.cluster.rebuild_count
    );
    assert_eq!(passing.cluster.written_count, 99);
}

#[test]
fn what_grew_too_old_while_its_partition_took_nothing_is_not_tried() {
    let mut store_options = StoreOptions::default();
    store_options.default.expires_after = Some(Duration::from_millis(300));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path().join("store"), &store_options).unwrap();
    put(store.lane(), "t", 0, 0..10);
    let mut cluster = Scripted::new(1, 1);
    cluster.flaky = (0..10).collect();
    let appended = Instant::now();
    let mut passing = Passing::new(cluster, |cluster: &mut Scripted, _| {
        if appended.elapsed() > Duration::from_millis(400) {
            cluster.flaky.clear();
        }
    });
    let stop = AtomicBool::new(false);
    let mut options = patient();
    options.until = Until::Empty;
    ship::drain_into(&store, &mut passing, &options, &stop, &mut |_| {}).unwrap();
    assert_eq!(passing.cluster.written_count, 0);
    assert_eq!(store.lane().totals().expired, 10);
}

#[test]
fn a_callback_that_asks_for_time_is_told_how_often_and_makes_no_storm() {
    let scratch = Scratch::new();
    put(scratch.store.lane(), "t", 0, 0..6);
    put(scratch.store.lane(), "t", 1, 6..10);
    let mut cluster = Scripted::new(1, 2);
    cluster.poison = HashSet::from([3]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut options = options();
    let tell = Arc::clone(&told);
    options.retry.on_exhausted = OnExhausted::Callback(Arc::new(move |failed| {
        let mut told = tell.lock().unwrap();
        told.push(failed.attempts);
        match told.len() {
            110 => Recovery::Drop,
            _ => Recovery::Retry(Duration::from_millis(1)),
        }
    }));
    let stop = AtomicBool::new(false);
    let mut passing = Passing::new(cluster, |_: &mut Scripted, _| {});
    let drained = ship::drain_into(&scratch.store, &mut passing, &options, &stop, &mut |_| {});
    assert!(drained.unwrap().is_empty);
    assert!(told.lock().unwrap().iter().copied().eq(1..=110));
}

#[test]
fn a_time_that_never_comes_holds_its_partition_and_nothing_else() {
    let scratch = Scratch::new();
    put(scratch.store.lane(), "t", 0, 0..6);
    put(scratch.store.lane(), "t", 1, 6..10);
    let mut cluster = Scripted::new(1, 2);
    cluster.poison = HashSet::from([3]);
    let mut options = options();
    let never = |_: &ship::FailedRecord<'_>| Recovery::Retry(Duration::MAX);
    options.retry.on_exhausted = OnExhausted::Callback(Arc::new(never));
    options.timeout = Some(Duration::from_secs(2));
    let stop = AtomicBool::new(false);
    let mut passing = Passing::new(cluster, |_: &mut Scripted, _| {});
    // It ends because that partition is held, or by the timeout: it does not panic.
    drop(ship::drain_into(
        &scratch.store,
        &mut passing,
        &options,
        &stop,
        &mut |_| {},
    ));
    assert_eq!(first_copies(&passing.cluster, "t", 1), [6, 7, 8, 9]);
    assert_eq!(first_copies(&passing.cluster, "t", 0), [0, 1, 2]);
}

#[test]
fn where_an_exhausted_record_halts_its_partition_none_passes_it() {
    let scratch = Scratch::new();
    put(scratch.store.lane(), "t", 0, 0..10);
    let mut cluster = Scripted::new(1, 1);
    cluster.flaky = HashSet::from([3]);
    let mut options = patient();
    options.until = Until::Empty;
    options.retry.max_attempts = 3;
    options.retry.initial_backoff = Duration::from_millis(1);
    options.retry.max_backoff = Duration::from_millis(2);
    options.retry.on_exhausted = OnExhausted::Halt;
    let stop = AtomicBool::new(false);
    let mut passing = Passing::new(cluster, |cluster: &mut Scripted, since| {
        if since > Duration::from_secs(1) {
            cluster.flaky.clear();
        }
    });
    ship::drain_into(&scratch.store, &mut passing, &options, &stop, &mut |_| {}).unwrap();
    assert!(first_copies(&passing.cluster, "t", 0).into_iter().eq(0..10));
}

#[test]
fn the_waits_of_a_lane_are_its_own_though_it_claims_no_topic() {
    let mut store_options = StoreOptions::default();
    let lanes = &mut store_options.lanes;
    lanes.insert("alarm".to_owned(), LaneOptions::default());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path().join("store"), &store_options).unwrap();
    put(store.lane_named("alarm").unwrap(), "t", 0, 0..5);
    let mut cluster = Scripted::new(1, 1);
    cluster.flaky = (0..5).collect();
    let mut options = options();
    options.retry.initial_backoff = Duration::from_secs(20);
    options.retry.jitter = false;
    let mut quick = ship::RetryOverride::default();
    quick.initial_backoff = Some(Duration::from_millis(5));
    quick.max_backoff = Some(Duration::from_millis(5));
    let of_lanes = &mut options.retry_overrides.lanes;
    of_lanes.insert("alarm".to_owned(), quick);
    let stop = AtomicBool::new(false);
    let mut took = Duration::ZERO;
    let mut passing = Passing::new(cluster, |cluster: &mut Scripted, since| {
        took = since;
        if took > Duration::from_millis(500) {
            cluster.flaky.clear();
        }
    });
    ship::drain_into(&store, &mut passing, &options, &stop, &mut |_| {}).unwrap();
    drop(passing);
    assert!(took < Duration::from_secs(5), "{took:?}");
}
