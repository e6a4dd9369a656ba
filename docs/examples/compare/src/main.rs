//! ferrylog beside other logs for Rust: the same records, the same disk, taking turns in one run.
//!
//! `cargo run --release` prints two Markdown tables: medians of all turns, and in brackets their
//! spread. The files lie in `FERRYLOG_BENCH_DIR`, or else beside the program, so that they are on a
//! disk and not on a tmpfs.

mod logs;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::wal::{Class, Durability};
use logs::{Commit, Ferry, Fjall, Log, Okay, Raft};

const RECORD: [u8; 256] = [0x5a; 256];
const ROUNDS: usize = 7;
/// One turn of one log.
const TURN: Duration = Duration::from_millis(700);
const THREADS: [u32; 3] = [1, 8, 64];
const TASKS: usize = 64;
/// Records of one turn without syncs: 49 MiB.
const BULK: usize = 200_000;
/// What a log still does in the background is not to burden the next one's turn.
const PAUSE: Duration = Duration::from_millis(100);

fn main() {
    let program = std::env::current_exe().expect("the program's path");
    let parent = std::env::var_os("FERRYLOG_BENCH_DIR").map_or(program, PathBuf::from);
    let parent = parent.ancestors().find(|path| path.is_dir());
    let dir = tempfile::Builder::new()
        .prefix("compare")
        .tempdir_in(parent.expect("a directory"))
        .expect("a directory");
    let disk = Ferry::open(dir.path(), "ferrylog, disk", Durability::Disk);
    let os = Ferry::open(dir.path(), "ferrylog, os", Durability::Os);
    let okay = Okay::open(dir.path());
    let raft = Raft::open(dir.path());
    let fjall = Fjall::open(dir.path());
    let commit = Commit::open(dir.path());
    let durable: [&dyn Log; 4] = [&disk, &okay, &raft, &fjall];
    let unsynced: [&dyn Log; 4] = [&os, &raft, &fjall, &commit];

    let mut acks = vec![[const { Series::new() }; THREADS.len()]; durable.len()];
    let mut tasks = Series::new();
    let mut bulk = vec![Series::new(); unsynced.len()];
    // The first round warms up: files grow, and are recycled from then on.
    for round in 0..=ROUNDS {
        for (column, &count) in THREADS.iter().enumerate() {
            for (log, rows) in durable.iter().zip(&mut acks) {
                rows[column].push(round, threads(*log, count));
                log.rest();
                thread::sleep(PAUSE);
            }
        }
        tasks.push(round, async_tasks(&disk));
        disk.rest();
        for (log, series) in unsynced.iter().zip(&mut bulk) {
            series.push(round, append(*log, &os));
            log.rest();
            thread::sleep(PAUSE);
        }
    }
    print(&durable, &mut acks, &mut tasks);
    print_unsynced(&unsynced, &mut bulk);
}

/// Acknowledgements a second, each of so many threads waiting for each record.
fn threads(log: &dyn Log, count: u32) -> f64 {
    let (stop, acks) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..count {
            let (stop, acks) = (&stop, &acks);
            scope.spawn(move || {
                let mut own = 0;
                while !stop.load(Ordering::Relaxed) && log.durable(thread, &RECORD) {
                    own += 1;
                }
                acks.fetch_add(own, Ordering::Relaxed);
            });
        }
        thread::sleep(TURN);
        stop.store(true, Ordering::Relaxed);
    });
    acks.into_inner() as f64 / start.elapsed().as_secs_f64()
}

/// Acknowledgements a second of as many tasks on one thread of a runtime, each awaiting each record.
fn async_tasks(log: &Ferry) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let start = Instant::now();
    let acks = local.block_on(&runtime, async {
        let wal = Rc::new(log.wal.clone());
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let wal = wal.clone();
                tokio::task::spawn_local(async move {
                    let mut own = 0;
                    while start.elapsed() < TURN {
                        let ticket = wal.append(&RECORD).expect("appended");
                        let seq = ticket.await.expect("durable");
                        wal.settle(seq..seq + 1, Class::Shipped);
                        own += 1;
                    }
                    own
                })
            })
            .collect();
        let mut acks = 0;
        for task in tasks {
            acks += task.await.expect("done");
        }
        acks
    });
    f64::from(acks) / start.elapsed().as_secs_f64()
}

/// Records a second of one thread that waits for nothing; of ours, until the last one is written to
/// the system as well, which is what the others' calls have done when they return.
fn append(log: &dyn Log, os: &Ferry) -> f64 {
    let start = Instant::now();
    for _ in 1..BULK {
        assert!(log.append(&RECORD), "{} appends", log.name());
    }
    if log.name() == os.name() {
        os.wal.append_wait(&RECORD).expect("written");
    } else {
        log.append(&RECORD);
    }
    BULK as f64 / start.elapsed().as_secs_f64()
}

fn print(logs: &[&dyn Log], acks: &mut [[Series; THREADS.len()]], tasks: &mut Series) {
    println!(
        "| durable acknowledgements/s | 1 thread | 8 threads | 64 threads | 64 tasks, one thread |"
    );
    println!("|---|---|---|---|---|");
    for (index, (log, rows)) in logs.iter().zip(acks.iter_mut()).enumerate() {
        let [one, eight, many] = rows.each_mut().map(|series| series.to_string());
        let tasks = if index == 0 {
            tasks.to_string()
        } else {
            "-".into()
        };
        println!("| {} | {one} | {eight} | {many} | {tasks} |", log.name());
    }
    let mut best = |column: usize| {
        let peers = acks[1..].iter_mut();
        peers.map(|rows| rows[column].median()).fold(0.0, f64::max)
    };
    let best = [best(0), best(1), best(2)];
    let ours: Vec<f64> = acks[0]
        .iter_mut()
        .zip(best)
        .map(|(series, best)| series.median() / best)
        .collect();
    println!(
        "| ours / the best other one | {:.2} | {:.2} | {:.2} | {:.2} of its 64 threads |",
        ours[0],
        ours[1],
        ours[2],
        tasks.median() / best[2]
    );
    println!();
}

fn print_unsynced(logs: &[&dyn Log], bulk: &mut [Series]) {
    println!("| one thread, 256 B, no sync awaited | records/s | what its calls mean |");
    println!("|---|---|---|");
    for (log, series) in logs.iter().zip(bulk.iter_mut()) {
        println!(
            "| {} | {} | {} |",
            log.name(),
            series.to_string(),
            log.meaning()
        );
    }
}

/// What one log did in all its turns.
#[derive(Clone, Debug)]
struct Series(Vec<f64>);

impl Series {
    const fn new() -> Self {
        Self(Vec::new())
    }

    /// The first round does not count.
    fn push(&mut self, round: usize, value: f64) {
        if round > 0 {
            self.0.push(value);
        }
    }

    fn median(&mut self) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[self.0.len() / 2]
    }

    fn to_string(&mut self) -> String {
        let median = self.median();
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        format!(
            "{} ({} to {})",
            thousands(median),
            thousands(least),
            thousands(most)
        )
    }
}

fn thousands(value: f64) -> String {
    format!("{:.1} k", value / 1000.0)
}
