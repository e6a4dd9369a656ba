//! Who waits for a sync may wait for company first, and never for more than that.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use ferrylog::wal::fs::Fs;
use ferrylog::wal::{Durability, Error, OnFull, Options, SeqNo, Wal, Worker};

use crate::common::{open_still, options, record, sized, try_open_with, until};
use crate::faulty::{EIO, ENOSPC, Failure, Faulty, Kind};

/// The longest that there is: who is not woken before it is over is seen to wait.
const LONG: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(30);

fn lingering(linger: Duration) -> Options {
    let mut options = options();
    options.linger = linger;
    options
}

fn syncs(disk: &Faulty) -> usize {
    let trace = disk.trace();
    let of_records = trace
        .iter()
        .filter(|op| op.kind == Kind::Sync && op.name.starts_with("segment-"));
    of_records.count()
}

/// Runs `meanwhile` once so many threads have appended a record each and wait for it.
fn while_they_wait<F: Fs>(wal: &Wal<F>, count: u64, meanwhile: impl FnOnce()) {
    let end = wal.marks().next + count;
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..count)
            .map(|n| scope.spawn(move || wal.append_wait(&record(n))))
            .collect();
        until("they append", || wal.marks().next == end);
        meanwhile();
        for waiter in waiters {
            assert!(waiter.join().unwrap().unwrap() < end);
        }
    });
    assert!(wal.marks().durable >= end);
}

/// Without threads a sync comes when the test says so: here the linger is over.
#[test]
fn those_who_come_while_one_lingers_share_one_sync() {
    let disk = Faulty::new(70);
    let wal = open_still(&disk, lingering(LONG)).unwrap();
    for round in 0..4 {
        disk.clear_trace();
        while_they_wait(&wal, 8, || {
            assert_eq!((wal.marks().durable.get(), syncs(&disk)), (8 * round, 0));
            until("one rings", || wal.step(Worker::Syncer));
        });
        assert_eq!(syncs(&disk), 1);
        // Whoever rang last, nothing is left to do.
        wal.step(Worker::Syncer);
        assert_eq!(syncs(&disk), 1);
    }
}

/// Without threads nobody ends a linger: who waited for its end would wait for ever.
#[test]
fn what_needs_a_sync_lingers_for_nobody_and_takes_along_who_does() {
    let disk = Faulty::new(71);
    let wal = open_still(&disk, lingering(LONG)).unwrap();
    disk.clear_trace();
    while_they_wait(&wal, 8, || assert_eq!(wal.sync().unwrap(), SeqNo::new(8)));
    assert_eq!(syncs(&disk), 1);
    // A rotation: a segment has 1 MiB.
    let before = wal.segment_starts().len();
    while_they_wait(&wal, 1, || {
        while wal.segment_starts().len() == before {
            let ticket = wal.append(&sized(1, 100_000)).unwrap();
            ticket.wait_for(Durability::Os).unwrap();
        }
    });
    let last = wal.append(&record(9)).unwrap().seq();
    assert_eq!(wal.close().unwrap().durable, last + 1);
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn who_is_alone_is_acknowledged_once_the_linger_is_over_thread_and_task_alike() {
    let wal = try_open_with(&Faulty::new(72), lingering(SHORT)).unwrap();
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    for number in 0..5 {
        let begun = Instant::now();
        wal.append_wait(&record(number)).unwrap();
        assert!(begun.elapsed() >= SHORT, "{:?}", begun.elapsed());
        let begun = Instant::now();
        let mut task = Box::pin(wal.append(&record(number)).unwrap().into_future());
        while task.as_mut().poll(&mut context).is_pending() {
            thread::park();
        }
        assert!(begun.elapsed() >= SHORT, "{:?}", begun.elapsed());
    }
    // Nobody waits for it, so nobody lingers.
    let ticket = wal.append(&record(10)).unwrap();
    ticket.wait_for(Durability::Os).unwrap();
    assert_eq!(wal.marks().durable, SeqNo::new(10));
}

#[test]
fn appends_that_wait_for_memory_do_not_linger() {
    const APPENDS: u32 = 100;
    let mut options = lingering(LONG);
    options.memory_budget = 512 << 10;
    let wal = try_open_with(&Faulty::new(73), options).unwrap();
    let begun = Instant::now();
    while_they_wait(&wal, 4, || {
        for number in 0..APPENDS {
            drop(wal.append(&sized(number.into(), 200_000)).unwrap());
        }
    });
    assert!(
        begun.elapsed() < LONG * APPENDS / 4,
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn who_lingers_is_told_what_becomes_of_it_whatever_the_disk_does() {
    for on_full in [OnFull::Block, OnFull::Reject] {
        let disk = Faulty::new(74);
        let mut options = lingering(SHORT);
        options.on_full = on_full;
        let wal = try_open_with(&disk, options).unwrap();
        while_they_wait(&wal, 4, || ());
        // R2: it goes on in a fresh segment.
        while_they_wait(&wal, 4, || {
            disk.fail_next(Kind::Sync, "segment-", 1, Failure::Errno(EIO));
        });
        disk.fail_next(Kind::Write, "segment-", 1000, Failure::Errno(ENOSPC));
        match on_full {
            OnFull::Reject => {
                let error = wal.append_wait(&record(0)).unwrap_err();
                assert!(matches!(error, Error::Full { .. }), "{error}");
                disk.heal();
            }
            _ => while_they_wait(&wal, 4, || {
                until("space is short", || wal.shortage().is_some());
                disk.heal();
            }),
        }
        until("space is back", || wal.shortage().is_none());
        while_they_wait(&wal, 4, || ());
        disk.fail_next(Kind::Sync, "", 1000, Failure::Errno(EIO));
        let error = wal.append_wait(&record(0)).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{error}");
    }
}

#[test]
fn a_linger_that_nobody_would_want_is_refused() {
    let refused = |linger, sync_interval| {
        let mut options = lingering(linger);
        options.sync_interval = sync_interval;
        open_still(&Faulty::new(75), options)
            .unwrap_err()
            .to_string()
    };
    let reason = refused(2 * LONG, 4 * LONG);
    assert!(
        reason.contains("linger is 2s: use at most sync_interval and 1 s"),
        "{reason}"
    );
    let reason = refused(2 * SHORT, SHORT);
    assert!(
        reason.contains("linger is 60ms: use at most sync_interval and 1 s, here 30ms"),
        "{reason}"
    );
}
