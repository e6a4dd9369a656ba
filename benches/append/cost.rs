//! What a record costs beside time: bytes on the disk, capacity, allocations, system calls.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use ferrylog::wal::{Durability, SeqNo, View, Wal};

use crate::RECORD;
use crate::support::meter::Meter;
use crate::support::table::{Goal, Series, figure, row};
use crate::support::{allocations, directory, stream, with_level};

/// The smallest record of the rows about bytes.
const SMALL: [u8; 200] = [0x5a; 200];
/// 100 MiB.
const RECORDS: u64 = 512 << 10;
const ROUNDS: usize = 5;
/// Segments of the row about capacity: small, so that a few thousand records fill one.
const SEGMENT: u64 = 4 << 20;

pub(crate) fn rows() {
    amplification();
    capacity();
    allocated();
    system_calls();
}

fn amplification() {
    for (what, consumed, goal) in [
        ("recycled files", true, 1.10),
        ("files in their first life", false, 2.10),
    ] {
        let dir = directory();
        let wal = Wal::open(dir.path(), with_level(Durability::Disk)).expect("a log");
        let (mut process, mut device) = (Series::default(), Series::default());
        // The first round is the files' first life.
        for round in 0..=ROUNDS {
            let before = (process_bytes(), device_bytes(dir.path()));
            stream(&wal, RECORDS, consumed, || {
                wal.append(&SMALL).expect("appended")
            });
            wal.sync().expect("synced");
            let after = (process_bytes(), device_bytes(dir.path()));
            if round > 0 || !consumed {
                let bytes = (RECORDS * SMALL.len() as u64) as f64;
                process.push((after.0 - before.0) as f64 / bytes);
                device.push((after.1 - before.1) as f64 / bytes);
            }
        }
        figure(
            &format!(
                "bytes written per byte of records of 200 B, {what}, `disk`, 4,096 tickets open"
            ),
            device.median(),
            format!(
                "{} on the device, also by others; {} that this process made dirty, in whole folios",
                device.told(3),
                process.told(3)
            ),
            Goal::AtMost(goal),
        );
    }
}

/// Bytes that this process made dirty: of a page in a large folio, the whole folio.
fn process_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("/proc/self/io");
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok())
        .expect("write_bytes")
}

/// Bytes that everybody wrote to the device of this directory.
fn device_bytes(dir: &Path) -> u64 {
    let id = dir.metadata().expect("metadata").dev();
    let (major, minor) = ((id >> 8) & 0xfff, (id & 0xff) | ((id >> 12) & 0xfff00));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    let sectors = stat.split_ascii_whitespace().nth(6);
    sectors
        .and_then(|count| count.parse::<u64>().ok())
        .unwrap_or(0)
        * 512
}

/// Records that a segment takes when each is synced by itself, beside one that is filled at once.
/// How long the pauses between them are makes no difference to that: nothing else is pending. It does
/// to what is written, because the cursor is saved in between.
fn capacity() {
    let (dense, _) = one_segment(|wal| {
        stream(wal, SEGMENT / 100, false, || {
            wal.append(&SMALL).expect("appended")
        });
    });
    let (single, written) = one_segment(|wal| _ = wal.append_wait(&SMALL).expect("durable"));
    let ratio = single / dense;
    let slow = [
        (Duration::from_secs(1), 6),
        (Duration::from_millis(100), 30),
    ]
    .map(|(pause, count)| written_slowly(pause, count));
    row(
        format!(
            "records of 200 B in a segment of 4 MiB, each synced by itself; limit: filled at once; written {written:.0} B a record, {:.0} B at one a second, {:.0} B at ten",
            slow[0], slow[1]
        ),
        format!("{single:.0}"),
        format!("{dense:.0}"),
        format!("{ratio:.2}"),
        Goal::AtLeast(0.9).told(),
        Goal::AtLeast(0.9).is_met_by(ratio),
    );
}

fn small_segments(dir: &Path) -> (Wal<Meter>, Meter) {
    let meter = Meter::default();
    let mut options = with_level(Durability::Disk);
    options.segment_size = SEGMENT;
    let wal = Wal::open_on(Arc::new(meter.clone()), dir, options).expect("a log");
    (wal, meter)
}

/// Fills a segment: the records in it, and the bytes written for each.
fn one_segment(append: impl Fn(&Wal<Meter>)) -> (f64, f64) {
    let dir = directory();
    let (wal, meter) = small_segments(dir.path());
    let written = meter.counts().written_bytes.load(Relaxed);
    while meter.counts().begun.load(Relaxed) < 2 {
        append(&wal);
    }
    let written = meter.counts().written_bytes.load(Relaxed) - written;
    let records = wal.close().expect("closed").next - SeqNo::ZERO;
    let first = View::open(dir.path()).expect("a log").segments().remove(0);
    let in_first = (first.next - first.base) as f64;
    (in_first, written as f64 / records as f64)
}

/// Bytes written for each record where so much time lies between two.
fn written_slowly(pause: Duration, count: u32) -> f64 {
    let dir = directory();
    let (wal, meter) = small_segments(dir.path());
    // Filling ahead is no part of it: let it be over.
    thread::sleep(Duration::from_secs(1));
    let before = meter.counts().written_bytes.load(Relaxed);
    for _ in 0..count {
        wal.append_wait(&SMALL).expect("durable");
        thread::sleep(pause);
    }
    let written = meter.counts().written_bytes.load(Relaxed) - before;
    written as f64 / f64::from(count)
}

fn allocated() {
    let dir = directory();
    let wal = Wal::open(dir.path(), with_level(Durability::Disk)).expect("a log");
    let (mut append, mut all) = (0, 0);
    // Without waiting, until the budget is used up: from then on all buffers are there.
    (0..RECORDS).for_each(|_| drop(wal.append(&RECORD).expect("appended")));
    for round in 0..=ROUNDS {
        let before = allocations::counts().0;
        let mut own = 0;
        stream(&wal, RECORDS, true, || {
            let before = allocations::counts().1;
            let ticket = wal.append(&RECORD).expect("appended");
            own += allocations::counts().1 - before;
            ticket
        });
        if round > 0 {
            append += own;
            all += allocations::counts().0 - before;
        }
    }
    let records = ROUNDS as u64 * RECORDS;
    figure(
        &format!("allocations by {records} appends, `disk`, 4,096 tickets open"),
        append as f64,
        format!("{append}; {all} by all threads, for writing and syncing"),
        Goal::AtMost(0.0),
    );
}

/// The argument with which this program runs itself, to be counted.
pub(crate) const SATURATE: &str = "--saturate";
const COUNTED: u64 = 1 << 20;

/// Appends for [`system_calls`]: level and number of records are the last two arguments.
pub(crate) fn saturate() {
    let arguments: Vec<String> = std::env::args().collect();
    let [.., level, count] = &arguments[..] else {
        panic!("a level and a number");
    };
    let dir = directory();
    let level = level.parse().expect("a level");
    let wal = Wal::open(dir.path(), with_level(level)).expect("a log");
    let count: u64 = count.parse().expect("a number");
    stream(&wal, RECORDS + count, true, || {
        wal.append(&RECORD).expect("appended")
    });
}

/// What the kernel counts of this program, less what it counts without the records.
fn system_calls() {
    for level in [Durability::Os, Durability::Disk] {
        let what =
            format!("system calls of all threads for a record, `{level}`, 4,096 tickets open");
        let goal = Goal::AtMost(1.0 / 200.0);
        let counted = [perf as fn(&str, u64) -> Option<u64>, strace]
            .into_iter()
            .find_map(|count| {
                let all = count(level.name(), COUNTED)?;
                Some(all.saturating_sub(count(level.name(), 0)?) as f64 / COUNTED as f64)
            });
        match counted {
            Some(calls) => {
                let told = format!("{calls:.5}: one in {:.0} records", 1.0 / calls);
                figure(&what, calls, told, goal);
            }
            None => row(
                what,
                "neither perf nor strace can count here",
                "-",
                "-",
                goal.told(),
                "-",
            ),
        }
    }
}

fn perf(level: &str, count: u64) -> Option<u64> {
    let arguments = ["stat", "-x,", "-e", "raw_syscalls:sys_enter"];
    let told = run_under("perf", &arguments, level, count)?;
    told.lines()
        .find_map(|line| line.split(',').next()?.parse().ok())
}

fn strace(level: &str, count: u64) -> Option<u64> {
    let told = run_under("strace", &["-f", "-c"], level, count)?;
    let total = told.lines().find(|line| line.ends_with(" total"))?;
    total.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// What a tool says on standard error of this program that appends.
fn run_under(tool: &str, arguments: &[&str], level: &str, count: u64) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let done = Command::new(tool)
        .args(arguments)
        .arg(program)
        .args([SATURATE, level, &count.to_string()])
        .output()
        .ok()?;
    String::from_utf8(done.stderr).ok()
}
