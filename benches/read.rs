//! What opening and reading cost, beside what the machine allows in the same run.
//!
//! `cargo bench --no-default-features --bench read` makes a backlog of 10 GiB, or of what fits, in
//! `FERRYLOG_BENCH_DIR` or the target directory, and prints rows of `docs/benchmarks.md`. Cold means that
//! this machine's memory holds nothing of a file; a host below it may.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrylog::wal::{Durability, SegmentInfo, View, Wal};

use support::limits::{make_cold, read_cold, read_warm};
use support::meter::{Call, Kind, Meter};
use support::table::{self, Goal, Pairs, Series};
use support::{allocations, directory, with_level};

const RECORD: [u8; 256] = [0x5a; 256];
const BACKLOG: u64 = 10 << 30;
/// Left free on the disk, whatever the backlog.
const SPARE: u64 = 8 << 30;
const SEGMENT: u64 = 64 << 20;
/// Where the frames of a segment begin.
const BODY: u64 = 128 << 10;
/// Records that nearly fill a segment.
const NEARLY_FULL: u64 = 240_000;
const ROUNDS: usize = 11;
/// Segments that the reader reads in one round, from memory: 512 MiB.
const READ_SEGMENTS: usize = 8;

fn main() {
    let dir = directory();
    let free = rustix::fs::statvfs(dir.path()).expect("statvfs");
    let room = (free.f_bavail * free.f_frsize).saturating_sub(SPARE);
    let size = BACKLOG.min(room) / SEGMENT * SEGMENT;
    assert!(size >= 4 * SEGMENT, "there is no room for a backlog");
    table::head();
    fill(dir.path(), size);
    opening(dir.path());
    reading(dir.path());
}

/// Records, unsettled, in so many bytes of segments.
fn fill(dir: &Path, size: u64) {
    let wal = Wal::open(dir, with_level(Durability::Os)).expect("a log");
    // A record takes 264 bytes, a segment 249,000 of them.
    for _ in 0..size / SEGMENT * (SEGMENT / 270) {
        drop(wal.append(&RECORD).expect("appended"));
    }
    wal.close().expect("closed");
}

/// Opening with everything cold, and once more with the newest segment in memory.
fn opening(dir: &Path) {
    let (mut headers, mut whole) = (Series::default(), Series::default());
    let (mut cold, mut warm) = (Pairs::default(), Pairs::default());
    let mut count = 0;
    for _ in 0..ROUNDS {
        let segments = fill_newest(dir);
        count = segments.len();
        segments.iter().for_each(|segment| make_cold(&segment.path));
        let newest = &segments[count - 1].path;
        let opened = Open::time(dir, newest, false);
        headers.push(opened.headers.as_secs_f64() * 1e3);
        whole.push(opened.whole.as_secs_f64() * 1e3);
        let bytes = opened.scanned as f64 / 1e9;
        let limit = read_cold(&[newest]);
        let len = newest.metadata().expect("metadata").len() as f64 / 1e9;
        cold.push(bytes / opened.scan.as_secs_f64(), len / limit.as_secs_f64());

        let segments = fill_newest(dir);
        let newest = &segments[segments.len() - 1].path;
        read_warm(&[newest]);
        let opened = Open::time(dir, newest, true);
        let limit = read_warm(&[newest]);
        let bytes = opened.scanned as f64 / 1e9;
        let len = newest.metadata().expect("metadata").len() as f64 / 1e9;
        warm.push(bytes / opened.scan.as_secs_f64(), len / limit.as_secs_f64());
    }
    let gib = (count as u64 * SEGMENT) >> 30;
    table::figure(
        &format!(
            "open with a backlog of {gib} GiB in {count} segments, cold: up to the first frame; all of it took {} ms",
            whole.told(0)
        ),
        headers.median(),
        format!("{} ms", headers.told(0)),
        Goal::AtMost(200.0),
    );
    cold.row(
        "the scan of the newest segment in it; limit: L5",
        "GB/s",
        2,
        Goal::AtLeast(0.8),
    );
    warm.row(
        "the same from memory; limit: L6",
        "GB/s",
        2,
        Goal::AtLeast(0.8),
    );
}

/// Fills the newest segment nearly up, as it is when a process ends anywhere.
fn fill_newest(dir: &Path) -> Vec<SegmentInfo> {
    let wal = Wal::open(dir, with_level(Durability::Os)).expect("a log");
    for _ in 0..NEARLY_FULL {
        drop(wal.append(&RECORD).expect("appended"));
    }
    wal.close().expect("closed");
    View::open(dir).expect("a log").segments()
}

/// One opening, in parts.
struct Open {
    /// Until the first frame of the newest segment is read.
    headers: Duration,
    /// From then until its last one is.
    scan: Duration,
    scanned: u64,
    whole: Duration,
}

impl Open {
    fn time(dir: &Path, newest: &Path, warm: bool) -> Self {
        let meter = Meter::default();
        meter.trace();
        meter.keep_warm(warm);
        let start = Instant::now();
        let wal = Wal::open_on(Arc::new(meter.clone()), dir, with_level(Durability::Os));
        let whole = start.elapsed();
        drop(wal.expect("a log"));
        let calls = meter.take_trace();
        let in_body =
            |call: &&Call| call.kind == Kind::Read && call.path == newest && call.position >= BODY;
        let first = calls.iter().position(|call| in_body(&call));
        let calls = &calls[first.expect("it is scanned")..];
        // What follows the scan begins with a write, and may look once more at the end.
        let scan = calls.iter().take_while(|call| call.kind == Kind::Read);
        let last = scan.filter(in_body).last().expect("the first one");
        Self {
            headers: calls[0].start - start,
            scan: last.end - calls[0].start,
            scanned: newest.metadata().expect("metadata").len() - BODY,
            whole,
        }
    }
}

/// A reader over segments that are in memory.
fn reading(dir: &Path) {
    let view = View::open(dir).expect("a log");
    let segments = view.segments();
    let read = &segments[1..=READ_SEGMENTS.min(segments.len() - 2)];
    let paths: Vec<PathBuf> = read.iter().map(|segment| segment.path.clone()).collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let bytes: u64 = read.iter().map(|segment| segment.file_bytes).sum();
    let (from, to) = (read[0].base, read[read.len() - 1].next);
    let mut pairs = Pairs::default();
    let mut allocated = 0;
    // The first round warms up.
    for round in 0..=ROUNDS {
        let mut reader = view.reader(from);
        let before = allocations::counts().1;
        let start = Instant::now();
        let mut payload = 0;
        while reader.position() < to {
            let record = reader.next().expect("readable").expect("durable");
            payload += record.payload.len() as u64;
        }
        let time = start.elapsed();
        assert_eq!(payload, (to - from) * RECORD.len() as u64);
        allocated = allocations::counts().1 - before;
        let limit = read_warm(&paths);
        if round > 0 {
            let rate = |time: Duration| bytes as f64 / 1e9 / time.as_secs_f64();
            pairs.push(rate(time), rate(limit));
        }
    }
    let what = "reader, 256 B, from memory, each record handed out; limit: L6";
    pairs.row(what, "GB/s", 2, Goal::AtLeast(0.8));
    let records = to - from;
    let each = allocated as f64 / records as f64;
    table::figure(
        "allocations by the reader for a record",
        each,
        format!("{each:.5}: {allocated} for {records}, one for each MiB that is read"),
        Goal::AtMost(0.001),
    );
}
