//! Several lanes in a store: opened together, kept apart, never forgotten.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ferrylog::message::MessageRef;
use ferrylog::store::{Error, Lane, LaneOptions, Order, Store, StoreOptions, StoreView};
use ferrylog::wal::{self, Class, OnFull, Options, Wal};
use tempfile::tempdir;

fn append(lane: &Lane, count: usize) {
    let message = MessageRef {
        value: Some(b"v"),
        ..MessageRef::to("t")
    };
    for _ in 0..count {
        lane.append_wait(&message).unwrap();
    }
}

fn settle(lane: &Lane) {
    let marks = lane.marks();
    lane.settle(marks.acked..marks.durable, Class::Shipped);
}

fn names(store: &Store) -> Vec<&str> {
    store.lanes().iter().map(Lane::name).collect()
}

/// Lanes of these names, each with a topic pattern `NAME-*`.
fn with_lanes(names: &[&str]) -> StoreOptions {
    let mut options = StoreOptions::default();
    for name in names {
        let mut lane = LaneOptions::default();
        lane.topics = vec![format!("{name}-*")];
        options.lanes.insert((*name).into(), lane);
    }
    options
}

#[test]
fn each_lane_is_what_its_options_say_and_a_log_of_its_own() {
    let dir = tempdir().unwrap();
    let mut options = StoreOptions::priorities(&Options::default());
    let low = options.lanes.get_mut("low").unwrap();
    low.expires_after = Some(Duration::from_secs(60));
    low.order = Order::LiveFirst;
    low.topics = vec!["debug".into(), "trace-*".into()];
    let store = Store::open_with(dir.path(), &options).unwrap();
    assert_eq!(names(&store), ["default", "high", "low", "normal"]);
    assert_eq!(store.lane().name(), "default");

    let low = store.lane_named("low").unwrap();
    let high = store.lane_named("high").unwrap();
    assert_eq!((low.weight(), high.weight()), (1, 8));
    assert_eq!((low.order(), high.order()), (Order::LiveFirst, Order::Fifo));
    assert_eq!(low.expires_after(), Some(Duration::from_secs(60)));
    assert!(store.lanes().iter().all(Lane::is_configured));
    assert!(store.lane_named("none").is_none());
    for (topic, lane) in [("debug", "low"), ("trace-x", "low"), ("temps", "default")] {
        assert_eq!(store.route(topic).name(), lane, "{topic}");
    }

    append(low, 2);
    append(high, 3);
    assert_ne!(low.log_id(), high.log_id());
    assert_eq!((low.totals().queued, high.totals().queued), (2, 3));
    assert_eq!(store.lane().totals().accepted, 0);
    store.close().unwrap();

    let view = StoreView::open(dir.path()).unwrap();
    let seen: Vec<(&str, u64)> = view
        .lanes()
        .iter()
        .map(|lane| (lane.name(), lane.totals().queued))
        .collect();
    assert_eq!(
        seen,
        [("default", 0), ("high", 3), ("low", 2), ("normal", 0)]
    );
}

#[test]
fn a_lane_that_is_no_longer_configured_is_opened_and_drains() {
    let dir = tempdir().unwrap();
    let store = Store::open_with(dir.path(), &with_lanes(&["old", "new"])).unwrap();
    append(store.route("old-1"), 5);
    store.close().unwrap();

    let store = Store::open_with(dir.path(), &with_lanes(&["new"])).unwrap();
    assert_eq!(names(&store), ["default", "new", "old"]);
    let old = store.lane_named("old").unwrap();
    assert!(!old.is_configured() && old.totals().queued == 5);
    assert_eq!(old.expires_after(), None);
    // Nothing new goes there.
    assert_eq!(store.route("old-1").name(), "default");
    let mut reader = old.reader(old.marks().acked);
    let mut count = 0;
    while reader.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 5);
    drop(reader);
    settle(old);
    store.close().unwrap();

    let store = Store::open(dir.path(), Options::default()).unwrap();
    let old = store.lane_named("old").unwrap();
    assert_eq!(old.totals().queued, 0);
    assert!(!store.lane_named("new").unwrap().is_configured());
}

#[test]
fn wrong_options_leave_no_trace() {
    let dir = tempdir().unwrap();
    let at = dir.path().join("store");
    let mut twice = with_lanes(&["a", "b"]);
    twice.default.topics = vec!["a-*".into()];
    let mut pattern = with_lanes(&["a"]);
    pattern.default.topics = vec!["not a topic".into()];
    let mut weight = with_lanes(&["a"]);
    weight.default.weight = 0;
    let mut log = with_lanes(&["a"]);
    log.lanes.get_mut("a").unwrap().wal.memory_budget = 0;
    let name = with_lanes(&["../a"]);
    for (options, part) in [
        (twice, "lane a: \"a-*\" fits topics"),
        (pattern, "lane default: no topic fits"),
        (weight, "lane default: its weight is 0"),
        (log, "lane a: memory_budget is 0"),
        (name, "lane ../a: a name is"),
    ] {
        let error = Store::open_with(&at, &options).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!at.exists(), "{error}");
    }
}

#[test]
fn one_lane_that_does_not_open_leaves_none_open() {
    let dir = tempdir().unwrap();
    let options = with_lanes(&["a", "b"]);
    Store::open_with(dir.path(), &options)
        .unwrap()
        .close()
        .unwrap();
    let lane_dir = |name: &str| dir.path().join("lanes").join(name);

    for name in ["a", "b", "default"] {
        let held = Wal::open(lane_dir(name), Options::default()).unwrap();
        let error = Store::open_with(dir.path(), &options).unwrap_err();
        assert!(
            matches!(&error, Error::Lane { lane, source: wal::Error::Locked { .. } } if lane == name),
            "{error}"
        );
        for other in ["a", "b", "default"].into_iter().filter(|o| *o != name) {
            let free = Wal::open(lane_dir(other), Options::default()).unwrap();
            free.close().unwrap();
        }
        held.close().unwrap();
    }
    Store::open_with(dir.path(), &options).unwrap();
}

/// The names of the directories and what is in them reach the disk in any order.
#[test]
fn a_crash_while_lanes_are_made_leaves_a_store_that_opens() {
    let lanes = ["default", "a", "b"];
    // For each lane: no directory, an empty one, one with the lock only, or a log.
    for state in 0..4_usize.pow(3) {
        let dir = tempdir().unwrap();
        fs::create_dir(dir.path().join("lanes")).unwrap();
        let (mut left, mut logs) = (state, 0);
        for name in lanes {
            let lane = dir.path().join("lanes").join(name);
            match left % 4 {
                0 => {}
                1 => fs::create_dir(&lane).unwrap(),
                2 => {
                    fs::create_dir(&lane).unwrap();
                    fs::write(lane.join("lock"), "").unwrap();
                }
                _ => {
                    let wal = Wal::open(&lane, Options::default()).unwrap();
                    wal.append_wait(b"x").unwrap();
                    logs += 1;
                    drop(wal);
                }
            }
            left /= 4;
        }
        assert_view(dir.path(), logs, state);
        let store = Store::open_with(dir.path(), &with_lanes(&["a", "b"])).unwrap();
        let kept: u64 = store.lanes().iter().map(|l| l.totals().queued).sum();
        assert_eq!((names(&store).len(), kept), (3, logs), "state {state}");
        drop(store);
        // Also where none of them is configured.
        if state % 8 != 0 {
            continue;
        }
        let store = Store::open(dir.path(), Options::default()).unwrap();
        assert_eq!(names(&store).len(), 3, "state {state}");
    }
}

fn assert_view(dir: &Path, logs: u64, state: usize) {
    match StoreView::open(dir) {
        Ok(view) => assert_eq!(view.lanes().len() as u64, logs, "state {state}"),
        Err(Error::NoStore { .. }) => assert_eq!(logs, 0, "state {state}"),
        Err(error) => panic!("state {state}: {error}"),
    }
}

#[test]
fn what_is_no_lane_is_left_alone() {
    let dir = tempdir().unwrap();
    Store::open(dir.path(), Options::default())
        .unwrap()
        .close()
        .unwrap();
    let lanes = dir.path().join("lanes");
    fs::create_dir(lanes.join("lost+found")).unwrap();
    fs::create_dir(lanes.join("Upper")).unwrap();
    fs::write(lanes.join("notes"), "a file").unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(names(&store), ["default"]);
    assert_eq!(StoreView::open(dir.path()).unwrap().lanes().len(), 1);
    assert!(fs::read_dir(lanes.join("Upper")).unwrap().next().is_none());
}

#[test]
fn a_quota_is_the_lanes_own() {
    let dir = tempdir().unwrap();
    let mut options = with_lanes(&["full"]);
    let log = &mut options.lanes.get_mut("full").unwrap().wal;
    log.segment_size = 1 << 20;
    log.quota_bytes = Some(3 << 20);
    log.on_full = OnFull::Reject;
    let store = Store::open_with(dir.path(), &options).unwrap();
    let value = vec![7; 100_000];
    let message = MessageRef {
        value: Some(&value),
        ..MessageRef::to("full-1")
    };
    let full = store.route("full-1");
    let taken = (0..100).find(|_| full.append_wait(&message).is_err());
    assert!(taken.is_some_and(|taken| taken > 5), "{taken:?}");
    for _ in 0..100 {
        store.lane().append_wait(&message).unwrap();
    }
}
