//! Crashes between the steps of a firing: of each record there is one, wherever it was cut.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool, mpsc},
    thread,
    time::Duration,
};

use super::{
    fire::Step,
    round::{Round, lane_of},
};
use crate::{
    message::{Due, MessageRef},
    store::{
        ClockOptions, Error, LaneOptions, Reading, Store, StoreOptions, StoreView, TimeSource,
    },
    wal::{self, Class, SeqNo},
};

static GO: AtomicBool = AtomicBool::new(false);

/// A machine whose clocks stand still, one minute after it booted in 1970.
#[derive(Debug)]
struct Still;

impl TimeSource for Still {
    fn boot(&self) -> u64 {
        1
    }

    fn read(&self) -> Reading {
        Reading {
            wall_millis: 60_000,
            uptime_millis: 60_000,
        }
    }

    fn is_synchronised(&self) -> bool {
        false
    }
}

fn open(dir: &Path) -> Store {
    Store::open_with(dir, &options()).unwrap()
}

fn options() -> StoreOptions {
    let wal = wal::Options {
        segment_size: 1 << 20,
        max_spares: 0,
        ..wal::Options::default()
    };
    StoreOptions {
        default: LaneOptions::new(wal),
        clock: ClockOptions {
            source: Arc::new(Still),
            ..ClockOptions::default()
        },
        ..StoreOptions::default()
    }
}

/// What a crash leaves at this moment: every file as it is. The logs keep house meanwhile: a file may
/// go, and a segment only before a cursor that is copied says so.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let entries = fs::read_dir(from).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort_by_key(|name| name.to_string_lossy().starts_with("cursor-"));
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else if let Err(error) = fs::copy(&from, to) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{from:?}");
        }
    }
}

fn schedule(store: &Store, values: &[&str]) {
    for value in values {
        let message = MessageRef {
            due: Some(Due::After(0)),
            value: Some(value.as_bytes()),
            ..MessageRef::to("t")
        };
        let ticket = store.schedule(store.lane(), &[message]).unwrap();
        ticket.wait().unwrap();
    }
}

/// The values in the lane, from a number on, of records that were fired.
fn fired(store: &Store, from: SeqNo) -> Vec<String> {
    let mut reader = store.lane().reader(from);
    let entries = std::iter::from_fn(|| reader.next().unwrap());
    let messages = entries.map(|entry| entry.message.unwrap());
    let fired = messages.filter(|message| message.scheduled.is_some());
    let value = |value: Option<bytes::Bytes>| String::from_utf8(value.unwrap().into()).unwrap();
    fired.map(|message| value(message.value)).collect()
}

/// A copy of the store after each step, from the announcement to the end; `between` is done behind the
/// append to the lane.
fn cut_everywhere(store: &Store, dir: &Path, copies: &Path, between: impl Fn(&Store)) -> usize {
    let schedule = store.schedule.open.get().unwrap();
    let mut count = 0;
    let mut cut = || {
        copy(dir, &copies.join(count.to_string()));
        count += 1;
    };
    cut();
    let mut open = schedule
        .begin(store.lanes(), &store.now(), &Round::default())
        .unwrap()
        .unwrap();
    cut();
    for step in 0.. {
        let lane = lane_of(store.lanes(), &open.lane);
        let taken = schedule.step(&mut open, lane, &GO).unwrap();
        if step == 0 {
            store.lane().sync().unwrap();
            between(store);
        }
        cut();
        if taken == Step::Last {
            break;
        }
    }
    count
}

#[test]
#[cfg_attr(miri, ignore = "it calls the system")]
fn a_crash_between_any_two_steps_and_another_behind_its_recovery_fires_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let (live, copies) = (dir.path().join("live"), dir.path().join("copies"));
    let store = open(&live);
    store.lane().append_wait(&MessageRef::to("t")).unwrap();
    schedule(&store, &["a", "b", "c"]);
    let count = cut_everywhere(&store, &live, &copies, |_| {});
    assert_eq!(count, 5);
    for step in 0..count {
        let at = copies.join(step.to_string());
        let is_there = step >= 2;
        let seen = StoreView::open(&at).unwrap();
        let seen = seen.scheduled(&store.now()).unwrap().unwrap();
        assert_eq!(seen.waiting, if is_there { 0 } else { 3 }, "step {step}");

        // Opened and cut short again, then opened to fire, with more to come.
        let opened = open(&at);
        let totals = opened.totals();
        assert_eq!((totals.accepted, totals.scheduled), (4, seen.waiting));
        assert!(totals.balances(), "{totals:?}");
        let again = copies.join(format!("{step}-again"));
        copy(&at, &again);
        drop(opened);
        for at in [at, again] {
            let opened = open(&at);
            schedule(&opened, &["d"]);
            opened.fire_due(&GO).unwrap();
            assert_eq!(
                fired(&opened, SeqNo::ZERO),
                ["a", "b", "c", "d"],
                "step {step}"
            );
            assert_eq!(opened.scheduled().waiting, 0);
            drop(opened);
            let opened = open(&at);
            opened.fire_due(&GO).unwrap();
            let totals = opened.totals();
            assert_eq!((totals.accepted, totals.queued), (5, 5), "step {step}");
        }
    }
}

/// What was shipped from the lane meanwhile stays on its disk for as long as it has to be found there.
#[test]
#[cfg_attr(miri, ignore = "it calls the system")]
fn a_lane_that_ships_at_once_and_runs_on_does_not_hide_what_was_fired() {
    let dir = tempfile::tempdir().unwrap();
    let (live, copies) = (dir.path().join("live"), dir.path().join("copies"));
    let store = open(&live);
    schedule(&store, &["a", "b"]);
    let large = vec![7; 100_000];
    let run_on = |store: &Store| {
        let lane = store.lane();
        for _ in 0..60 {
            let message = MessageRef {
                value: Some(&large),
                ..MessageRef::to("t")
            };
            lane.append_wait(&message).unwrap();
        }
        let end = lane.sync().unwrap();
        lane.settle(lane.marks().acked..end, Class::Shipped);
        lane.wal.release_settled().unwrap();
    };
    let count = cut_everywhere(&store, &live, &copies, run_on);
    // The end is durable: what was kept may go.
    run_on(&store);
    assert!(store.lane().marks().first > SeqNo::new(2));
    for step in 2..count {
        let at = copies.join(step.to_string());
        for life in 0..3 {
            let opened = open(&at);
            run_on(&opened);
            assert_eq!(opened.fire_due(&GO).unwrap(), 0, "step {step}, life {life}");
            let totals = opened.totals();
            assert_eq!((totals.scheduled, totals.queued), (0, 0));
            assert_eq!(totals.accepted, 2 + 60 * (life + 2));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it calls the system")]
fn a_lane_that_refuses_does_not_hold_up_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options();
    let mut other = LaneOptions::new(options.default.wal.clone());
    other.topics = vec!["other".into()];
    options.lanes.insert("other".into(), other);
    let store = Store::open_with(dir.path(), &options).unwrap();
    schedule(&store, &["a", "b"]);
    let message = MessageRef {
        due: Some(Due::After(0)),
        ..MessageRef::to("other")
    };
    let other = store.route("other");
    store.schedule(other, &[message]).unwrap().wait().unwrap();
    // Nothing says so before something is appended.
    store.lane().shut().unwrap();
    let refused = store.fire_due(&GO).unwrap_err();
    assert!(
        matches!(refused, Error::Log(wal::Error::Closed)),
        "{refused}"
    );
    assert_eq!((other.totals().queued, store.scheduled().waiting), (1, 2));
    assert_eq!(store.scheduled().why, Some(refused.to_string()));
}

#[test]
#[cfg_attr(miri, ignore = "it calls the system")]
fn who_does_not_wait_waits_for_nobody_who_appends() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    schedule(&store, &["a"]);
    let message = MessageRef {
        due: Some(Due::After(0)),
        ..MessageRef::to("t")
    };
    let others = store.schedule.open.get().unwrap();
    let (tell, told) = mpsc::channel();
    let writing = others.writing.lock();
    let heard = thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            let refused = store.try_schedule(store.lane(), &[message]).map(drop);
            tell.send(refused).unwrap();
        });
        let heard = told.recv_timeout(Duration::from_secs(30));
        drop(writing);
        heard
    });
    assert!(
        matches!(heard, Ok(Err(Error::Log(wal::Error::Busy)))),
        "{heard:?}"
    );
    drop(store.try_schedule(store.lane(), &[message]).unwrap());
    assert_eq!(store.scheduled().waiting, 2);
}

/// An announcement that was not followed by anything does not count, whatever comes behind it.
#[test]
#[cfg_attr(miri, ignore = "it calls the system")]
fn an_announcement_that_came_to_nothing_is_superseded_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (live, copies) = (dir.path().join("live"), dir.path().join("copies"));
    let store = open(&live);
    schedule(&store, &["a"]);
    let first = store.schedule.open.get().unwrap();
    let begun = first.begin(store.lanes(), &store.now(), &Round::default());
    drop(begun.unwrap().unwrap());
    schedule(&store, &["b"]);
    let count = cut_everywhere(&store, &live, &copies, |_| {});
    for step in 0..count {
        let opened = open(&copies.join(step.to_string()));
        opened.fire_due(&GO).unwrap();
        assert_eq!(fired(&opened, SeqNo::ZERO), ["a", "b"], "step {step}");
    }
}
