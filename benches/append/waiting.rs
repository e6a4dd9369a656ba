//! Many that wait for each of their records: 64 threads, and 64 tasks on one thread.
//!
//! Beside them 64 acknowledgements in one L4, as many as one sync can give to 64 waiters. What other
//! crates do with 64 threads is measured in `docs/examples/compare`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::wal::{Class, Durability, Wal};

use crate::RECORD;
use crate::support::limits::Limits;
use crate::support::meter::Meter;
use crate::support::table::{Goal, Pairs, Series};
use crate::support::{directory, tasks, with_level};

const WAITERS: usize = 64;
const ROUNDS: usize = 11;
const TURN: Duration = Duration::from_millis(500);
/// L4's of one round.
const SYNCS: usize = 500;

/// Runs for [`TURN`] and counts acknowledgements.
type Turn = fn(&Wal<Meter>) -> u64;

pub(crate) fn rows(limits: &mut Limits) {
    let dir = directory();
    let meter = Meter::default();
    let fs = Arc::new(meter.clone());
    let wal = Wal::open_on(fs, dir.path(), with_level(Durability::Disk)).expect("a log");
    let runs: [(&str, Turn); 2] = [
        ("`disk`, 64 threads, each waiting every time", threads),
        (
            "`disk`, 64 tasks on one thread, each awaiting every time",
            await_all,
        ),
    ];
    let mut measured = runs.map(|_| (Pairs::default(), Series::default()));
    // The first round warms up.
    for round in 0..=ROUNDS {
        for ((_, run), (pairs, shared)) in runs.iter().zip(&mut measured) {
            let syncs = meter.counts().syncs.load(Relaxed);
            let start = Instant::now();
            let acks = run(&wal) as f64;
            let time = start.elapsed();
            let syncs = meter.counts().syncs.load(Relaxed) - syncs;
            let start = Instant::now();
            (0..SYNCS).for_each(|_| _ = limits.write_and_sync());
            let limit = start.elapsed() / SYNCS as u32;
            if round > 0 {
                let limit = WAITERS as f64 / limit.as_secs_f64();
                pairs.push(acks / time.as_secs_f64() / 1e3, limit / 1e3);
                shared.push(acks / syncs as f64);
            }
        }
    }
    for ((what, _), (pairs, shared)) in runs.iter().zip(&measured) {
        let shared = shared.told(1);
        let what = format!("{what}: {shared} acknowledgements a sync; limit: 64 in one L4");
        pairs.row(&what, "k/s", 1, Goal::None);
    }
}

fn threads(wal: &Wal<Meter>) -> u64 {
    let (start, acks) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..WAITERS {
            scope.spawn(|| {
                let mut own = 0;
                while start.elapsed() < TURN {
                    let seq = wal.append_wait(&RECORD).expect("durable");
                    wal.settle(seq..seq + 1, Class::Shipped);
                    own += 1;
                }
                acks.fetch_add(own, Relaxed);
            });
        }
    });
    acks.into_inner()
}

fn await_all(wal: &Wal<Meter>) -> u64 {
    let (start, acks) = (Instant::now(), AtomicU64::new(0));
    tasks::run((0..WAITERS).map(|_| async {
        while start.elapsed() < TURN {
            let ticket = wal.append(&RECORD).expect("appended");
            let seq = ticket.await.expect("durable");
            wal.settle(seq..seq + 1, Class::Shipped);
            acks.fetch_add(1, Relaxed);
        }
    }));
    acks.into_inner()
}
