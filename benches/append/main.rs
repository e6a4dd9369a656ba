//! What appending costs, beside what the machine allows in the same run.
//!
//! `cargo bench --no-default-features --bench append` prints criterion's figures of single steps and
//! then the table of `docs/benchmarks.md`; `-- --table` prints the table alone. Limits and engine take
//! turns. The files lie in `FERRYLOG_BENCH_DIR`, or else in the target directory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

#[path = "../support/mod.rs"]
mod support;

mod burst;
mod cost;
mod rotation;
mod sustained;
mod waiting;

use std::time::Duration;

use criterion::{Criterion, Throughput};

use burst::{Burst, Single};
use support::limits::Limits;
use support::table;

/// The record of most rows.
const RECORD: [u8; 256] = [0x5a; 256];

fn main() {
    let argument = |name: &str| std::env::args().any(|argument| argument == name);
    if argument(cost::SATURATE) {
        return cost::saturate();
    }
    let dir = support::directory();
    let mut limits = Limits::new(dir.path());
    if !argument("--table") {
        criterion(&mut limits);
    }
    table::head();
    burst::rows(&mut limits);
    sustained::rows(&mut limits);
    waiting::rows(&mut limits);
    rotation::rows();
    cost::rows();
}

fn criterion(limits: &mut Limits) {
    let (burst, single) = (Burst::new(), Single::new());
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Bytes(burst::BYTES));
    group.bench_function("L1 copy and checksum", |b| {
        b.iter_custom(|n| times(n, || limits.copy_and_checksum(burst::BYTES)))
    });
    group.bench_function("L2 write 256 KiB", |b| {
        b.iter_custom(|n| times(n, || limits.write(burst::BYTES)))
    });
    group.throughput(Throughput::Elements(burst::RECORDS));
    group.bench_function("os, 256 B, one appender", |b| {
        b.iter_custom(|n| times(n, || burst.run()))
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("L4 write 4 KiB and fdatasync", |b| {
        b.iter_custom(|n| times(n, || limits.write_and_sync()))
    });
    group.bench_function("disk, 256 B, one waiting appender", |b| {
        b.iter_custom(|n| times(n, || single.run()))
    });
    group.finish();
}

fn times(count: u64, mut run: impl FnMut() -> Duration) -> Duration {
    (0..count).map(|_| run()).sum()
}
