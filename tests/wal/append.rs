//! What is appended is read back, in order, over close and reopen.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use ferrylog::wal::{
    Class, Durability, Encode, Error, Options, Record, SeqNo, Ticket, View, Wal, Worker,
};

use crate::common::{self, open_still, record};
use crate::faulty::{Faulty, Kind, Op};

fn read_all(wal: &Wal) -> Vec<Record> {
    let mut reader = wal.reader(wal.marks().first);
    std::iter::from_fn(|| reader.next().expect("readable")).collect()
}

fn options() -> Options {
    let mut options = Options::default();
    options.segment_size = 1 << 20;
    options
}

#[test]
fn what_is_appended_is_read_back_over_reopening_and_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    for life in 0..5u64 {
        let wal = Wal::open(dir.path(), options()).unwrap();
        assert_eq!(wal.opened().created, life == 0);
        assert!(wal.opened().clean, "{:?}", wal.opened());
        assert_eq!(wal.marks().next, SeqNo::new(next));
        for _ in 0..1000 {
            let ticket = wal.append(&record(next)).unwrap();
            assert_eq!(ticket.seq(), SeqNo::new(next));
            next += 1;
            if next % 100 == 0 {
                ticket.wait().unwrap();
            }
        }
        wal.sync().unwrap();
        let records = read_all(&wal);
        assert_eq!(records.len() as u64, next);
        for (number, found) in records.iter().enumerate() {
            assert_eq!(found.seq, SeqNo::new(number as u64));
            assert_eq!(found.payload, record(number as u64), "record {number}");
        }
        assert!(wal.totals().balances());
        assert_eq!(wal.totals().queued, next);
        wal.close().unwrap();
        let view = View::open(dir.path()).unwrap();
        let verified = view.verify(&mut |_, _| ()).unwrap();
        assert_eq!(verified.findings, [], "{verified:?}");
        assert_eq!(verified.records, next);
    }
}

#[test]
fn settled_segments_are_released_and_their_files_live_again() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), options()).unwrap();
    for number in 0..20_000 {
        drop(wal.append(&record(number)).unwrap());
        if number % 500 == 499 {
            let durable = wal.sync().unwrap();
            wal.settle(wal.marks().acked..durable, Class::Shipped);
        }
    }
    let totals = wal.totals();
    assert!(totals.balances());
    assert_eq!((totals.shipped, totals.queued), (20_000, 0));
    wal.close().unwrap();
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    let wal = Wal::open(dir.path(), options()).unwrap();
    assert_eq!(wal.marks().next, SeqNo::new(20_000));
    assert!(
        files < 40,
        "{files} files are left of 30 MB in segments of 1 MiB"
    );
    assert!(wal.marks().first > SeqNo::ZERO, "segments were released");
    assert!(
        wal.reader(wal.marks().acked).next().unwrap().is_none(),
        "nothing is left to ship"
    );
    assert_eq!(wal.totals().shipped, 20_000);
}

/// Over restarts too: the first save of an opening, and a crash behind it, keep as much.
#[test]
fn what_is_to_be_kept_stays_on_disk_though_it_is_settled_until_it_is_let_go() {
    let mut disk = Faulty::new(56);
    let mut keeping = options();
    let append = |wal: &Wal<Faulty>, from: u64| {
        for number in from..from + 3_000 {
            drop(wal.append(&record(number)).unwrap());
        }
        let durable = wal.sync().unwrap();
        wal.settle(wal.marks().acked..durable, Class::Shipped);
        wal.save_cursor().unwrap();
        wal.release_settled().unwrap();
    };
    let held = SeqNo::new(3_000);
    {
        let wal = Wal::open_still(Arc::new(disk.clone()), common::DIR, keeping.clone()).unwrap();
        append(&wal, 0);
        wal.keep_from(Some(held));
        append(&wal, 3_000);
        append(&wal, 6_000);
        let first = wal.marks().first;
        assert!(first > SeqNo::ZERO && first <= held, "{first}");
    }
    keeping.keep_from = Some(held);
    for _ in 0..3 {
        let wal = Wal::open_still(Arc::new(disk.clone()), common::DIR, keeping.clone()).unwrap();
        // Cut short right behind the opening.
        disk = disk.kill();
        drop(wal);
        let wal = Wal::open_still(Arc::new(disk.clone()), common::DIR, keeping.clone()).unwrap();
        let next = wal.marks().next.get();
        append(&wal, next);
        assert!(wal.marks().first <= held);
        let mut reader = wal.reader(held);
        assert_eq!(reader.next().unwrap().unwrap().seq, held);
    }
    let wal = Wal::open_still(Arc::new(disk.clone()), common::DIR, keeping).unwrap();
    wal.keep_from(None);
    wal.release_settled().unwrap();
    assert!(wal.marks().first > held);
}

#[test]
fn p1_no_acknowledgement_comes_before_a_successful_sync_of_the_records_bytes() {
    let disk = Faulty::new(55);
    let wal = common::open(&disk);
    for number in 0..300 {
        disk.clear_trace();
        // To its place, and to a tail slot.
        let len = [9_000, 90][usize::from(number % 3 > 0)];
        wal.append_wait(&common::sized(number, len)).unwrap();
        let trace = disk.trace();
        let records =
            |op: &Op| op.kind == Kind::Write && op.name.starts_with("segment-") && !op.zeros;
        let written = trace.iter().rposition(records).expect("a write");
        let inode = trace[written].inode;
        let covers = |op: &Op| op.kind == Kind::Sync && op.inode == inode && !op.failed;
        assert!(trace[written..].iter().any(covers), "record {number}");
    }
}

/// Encodes itself, or panics.
struct Fragile(Option<Vec<u8>>);

impl Encode for Fragile {
    fn encoded_len(&self) -> usize {
        self.0.as_ref().map_or(100_000, Vec::len)
    }

    fn encode(&self, out: &mut [u8]) {
        out.copy_from_slice(self.0.as_ref().expect("a record that cannot be encoded"));
    }
}

#[test]
fn p3_a_batch_that_panics_while_it_is_encoded_leaves_nothing_of_itself() {
    let disk = Faulty::new(54);
    let wal = common::open(&disk);
    let whole = |number| Fragile(Some(record(number)));
    let first = [whole(0), whole(1)];
    wal.append_batch(&first).unwrap().wait().unwrap();
    // Staged with it in one frame, and behind it.
    drop(wal.append(&record(2)).unwrap());
    let broken = [whole(7), whole(8), Fragile(None), whole(9)];
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(wal.append_batch(&broken));
    }));
    assert!(panicked.is_err());
    drop(wal.append(&record(3)).unwrap());
    wal.sync().unwrap();
    let expected: Vec<_> = (0..4).map(|n| (SeqNo::new(n), record(n))).collect();
    common::assert_same(&common::read_all(&wal), &expected);
    wal.close().unwrap();
    common::assert_same(&common::read_all(&common::open(&disk)), &expected);
}

/// A reader that stands where numbers were skipped goes on behind them.
#[test]
fn a_reader_crosses_void_numbers_also_when_what_lay_before_is_released() {
    let disk = Faulty::new(53);
    let wal = common::open(&disk);
    common::append_all(&wal, 0..3);
    let disk = disk.kill();
    let wal = common::open(&disk);
    let mut reader = wal.reader(SeqNo::ZERO);
    let read = std::iter::from_fn(|| reader.next().unwrap()).count();
    assert_eq!(read, 3);
    wal.settle(SeqNo::ZERO..SeqNo::new(3), Class::Shipped);
    common::until("release", || wal.marks().first > SeqNo::new(3));
    let seq = wal.append_wait(b"behind the void").unwrap();
    assert_eq!(reader.next().unwrap().map(|record| record.seq), Some(seq));
    let mut again = wal.reader(SeqNo::new(3));
    assert_eq!(again.next().unwrap().map(|record| record.seq), Some(seq));
    let mut gone = wal.reader(SeqNo::ZERO);
    assert!(matches!(gone.next(), Err(Error::Released { .. })));
}

#[test]
fn a_full_budget_makes_try_append_busy_and_append_wait() {
    let disk = Faulty::new(50);
    let mut options = common::with_level(Durability::Os);
    options.memory_budget = 1 << 20;
    let wal = common::try_open_with(&disk, options).unwrap();
    // Only a sync gives memory back, and none comes to an end.
    disk.hold(Kind::Sync);
    let mut taken = 0;
    let busy = loop {
        match wal.try_append(&common::sized(taken, 10_000)) {
            Ok(ticket) => drop(ticket),
            Err(error) => break error,
        }
        taken += 1;
        assert!(taken < 1000, "it grows without bound");
    };
    assert!(matches!(busy, Error::Busy), "{busy}");
    thread::scope(|scope| {
        let blocked = scope.spawn(|| wal.append_wait(&common::sized(taken, 10_000)).unwrap());
        disk.await_held(1);
        assert!(!blocked.is_finished());
        disk.release();
        assert_eq!(blocked.join().unwrap().get(), taken);
    });
    wal.sync().unwrap();
    assert_eq!(common::read_all(&wal).len() as u64, taken + 1);
}

/// A write of little costs as much as one of a whole buffer.
#[test]
fn behind_a_full_buffer_what_nobody_waits_for_is_left_to_be_filled_until_the_next_round() {
    let wal = open_still(&Faulty::new(82), common::with_level(Durability::Os)).unwrap();
    let fill = |from: u64| {
        let append = |number| wal.append(&common::sized(number, 10_000)).unwrap();
        (from..from + 30).map(append).collect::<Vec<_>>()
    };
    let written = |tickets: &[Ticket<'_, Faulty>]| {
        let reached = tickets.iter().filter(|ticket| ticket.is_acknowledged());
        reached.count()
    };
    let first = fill(0);
    assert!(wal.step(Worker::Flusher));
    assert!((20..30).contains(&written(&first)), "{}", written(&first));
    assert!(wal.step(Worker::Flusher), "it rang for the rest");
    assert_eq!(written(&first), 30);
    assert!(!wal.step(Worker::Flusher), "nothing is left");

    let mut second = fill(30);
    let mut waits = second.pop().unwrap().reaching(Durability::Os);
    let mut poll = || Pin::new(&mut waits).poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll().is_pending());
    assert!(wal.step(Worker::Flusher));
    assert!(poll().is_ready(), "somebody waits");
}

#[test]
fn what_can_never_fit_is_refused_and_nothing_is_appended() {
    let disk = Faulty::new(51);
    let wal = common::open(&disk);
    let max = 512 << 10;
    let error = wal.append(&vec![0; max + 1]).expect_err("over the limit");
    assert!(
        matches!(error, Error::TooLarge { len, .. } if len > max),
        "{error}"
    );
    let batch = vec![vec![0; 300_000]; 3];
    let error = wal.append_batch(&batch).expect_err("over the limit");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert_eq!(wal.marks().next, SeqNo::ZERO);
}

/// Wakes a thread and counts.
struct Woken(AtomicU64, Thread);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.unpark();
    }
}

/// Many tasks on one thread: awaiting needs no runtime and no thread of its own.
#[test]
fn tickets_are_awaited_by_many_tasks_on_one_thread() {
    const TASKS: u64 = 64;
    let disk = Faulty::new(52);
    let wal = common::open(&disk);
    let woken = Arc::new(Woken(AtomicU64::new(0), thread::current()));
    let waker = Waker::from(woken.clone());
    let context = &mut Context::from_waker(&waker);
    let mut tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let ticket = wal.append(&record(number)).unwrap();
            Some(Box::pin(ticket.into_future()))
        })
        .collect();
    let mut seqs = Vec::new();
    while seqs.len() < tasks.len() {
        for task in &mut tasks {
            if let Some(waiting) = task
                && let Poll::Ready(seq) = waiting.as_mut().poll(context)
            {
                seqs.push(seq.unwrap().get());
                *task = None;
            }
        }
        if seqs.len() < tasks.len() {
            thread::park();
        }
    }
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(0..TASKS));
    assert_eq!(wal.marks().durable.get(), TASKS);
    assert!(woken.0.load(Ordering::SeqCst) <= TASKS, "woken in vain");
}

#[test]
fn f7_an_id_that_no_record_used_yet_survives_closing() {
    let disk = Faulty::new(9);
    let wal = open_still(&disk, common::options()).unwrap();
    let first = wal.define(b"a").unwrap();
    wal.close().unwrap();
    let wal = common::open(&disk);
    assert_ne!(wal.define(b"b").unwrap(), first);
    assert_eq!(wal.define(b"a").unwrap(), first);
}
