//! What an append costs, beside what the machine allows in the same run.
//!
//! `cargo bench --no-default-features --bench append` prints criterion's figures and then the ratio
//! table of `docs/benchmarks.md`: limits and engine alternate, medians of many rounds. `-- --table`
//! prints the table alone. The files lie in `FERRYLOG_BENCH_DIR`, or else in the target directory,
//! so that they are on a disk and not on a tmpfs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use ferrylog::wal::{Class, Durability, Options, Wal};

const RECORD: [u8; 256] = [0x5a; 256];
/// Records of one burst: 8 MiB, half of the default memory budget.
const BURST: u64 = 32 << 10;
const CHUNK: usize = 64 << 10;
const WRITE: usize = 256 << 10;
const ROUNDS: usize = 31;

fn main() {
    let mut bench = Bench::new();
    if !std::env::args().any(|argument| argument == "--table") {
        criterion(&mut bench);
    }
    table(&mut bench);
}

fn criterion(bench: &mut Bench) {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut group = criterion.benchmark_group("append");
    let burst_bytes = BURST * RECORD.len() as u64;
    group.throughput(Throughput::Bytes(burst_bytes));
    group.bench_function("L1 copy and checksum", |b| {
        b.iter_custom(|n| times(n, || bench.copy_and_checksum()))
    });
    group.bench_function("L2 write 256 KiB", |b| {
        b.iter_custom(|n| times(n, || bench.write_recycled()))
    });
    group.throughput(Throughput::Elements(BURST));
    group.bench_function("os, 256 B, one appender", |b| {
        b.iter_custom(|n| times(n, || bench.burst()))
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("L4 write 4 KiB and fdatasync", |b| {
        b.iter_custom(|n| times(n, || bench.write_and_sync()))
    });
    group.bench_function("disk, 256 B, one waiting appender", |b| {
        b.iter_custom(|n| times(n, || bench.append_and_wait()))
    });
    group.finish();
}

fn times(count: u64, mut run: impl FnMut() -> Duration) -> Duration {
    (0..count).map(|_| run()).sum()
}

/// Limits and engine, alternating.
fn table(bench: &mut Bench) {
    let mut burst = Series::default();
    let (mut l1, mut l2) = (Series::default(), Series::default());
    for _ in 0..ROUNDS {
        l1.push(bench.copy_and_checksum());
        l2.push(bench.write_recycled());
        burst.push(bench.burst());
    }
    let (mut l4, mut disk) = (Series::default(), Series::default());
    for _ in 0..ROUNDS * 40 {
        l4.push(bench.write_and_sync());
        disk.push(bench.append_and_wait());
    }
    let rate = |time: Duration| BURST as f64 / time.as_secs_f64() / 1e6;
    let limit = l1.median() + l2.median();
    println!(
        "L1 copy and checksum, 64 KiB at a time   {:8.2} M records/s of 256 B",
        rate(l1.median())
    );
    println!(
        "L2 write of 256 KiB, recycled file       {:8.2} M records/s of 256 B",
        rate(l2.median())
    );
    println!(
        "L4 write of 4 KiB and fdatasync          {:8.1} us p50",
        micros(l4.median())
    );
    println!(
        "os, 256 B, one appender                  {:8.2} M records/s",
        rate(burst.median())
    );
    println!(
        "disk, 256 B, one waiting appender        {:8.1} us p50",
        micros(disk.median())
    );
    println!(
        "os / (1/(1/L1 + 1/L2))                   {:8.2}",
        limit.as_secs_f64() / burst.median().as_secs_f64()
    );
    println!(
        "disk p50 / L4 p50                        {:8.2}",
        micros(disk.median()) / micros(l4.median())
    );
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[derive(Default)]
struct Series(Vec<Duration>);

impl Series {
    fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    fn median(&mut self) -> Duration {
        self.0.sort_unstable();
        self.0[self.0.len() / 2]
    }
}

struct Bench {
    source: Vec<u8>,
    copy: Vec<u8>,
    file: File,
    file_len: u64,
    position: u64,
    os: Wal,
    disk: Wal,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let parent = std::env::var_os("FERRYLOG_BENCH_DIR")
            .map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
        let dir = tempfile::Builder::new()
            .prefix("append")
            .tempdir_in(parent)
            .expect("a directory");
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(dir.path().join("limit"))
            .expect("a file");
        let file_len = 64 << 20;
        for position in (0..file_len).step_by(WRITE) {
            file.write_all_at(&[0; WRITE], position).expect("filled");
        }
        file.sync_all().expect("synced");
        let open = |name: &str, durability| {
            let mut options = Options::default();
            options.durability = durability;
            Wal::open(dir.path().join(name), options).expect("a log")
        };
        let mut bench = Self {
            source: vec![0x5a; CHUNK],
            copy: vec![0; CHUNK],
            file,
            file_len,
            position: 0,
            os: open("os", Durability::Os),
            disk: open("disk", Durability::Disk),
            _dir: dir,
        };
        // Until both logs write into recycled files.
        for _ in 0..32 {
            bench.burst();
        }
        for _ in 0..20_000 {
            bench.append_and_wait();
        }
        bench
    }

    /// L1, for the bytes of one burst.
    fn copy_and_checksum(&mut self) -> Duration {
        let start = Instant::now();
        for _ in 0..BURST as usize * RECORD.len() / CHUNK {
            self.copy.copy_from_slice(black_box(&self.source));
            black_box(crc32fast::hash(&self.copy));
        }
        start.elapsed()
    }

    /// L2, for the bytes of one burst. The sync is not counted, as it is not for the engine.
    fn write_recycled(&mut self) -> Duration {
        let data = vec![0x5a; WRITE];
        let start = Instant::now();
        for _ in 0..BURST as usize * RECORD.len() / WRITE {
            self.file
                .write_all_at(&data, self.position)
                .expect("written");
            self.position = (self.position + WRITE as u64) % self.file_len;
        }
        let time = start.elapsed();
        self.file.sync_data().expect("synced");
        time
    }

    /// L4.
    fn write_and_sync(&mut self) -> Duration {
        let start = Instant::now();
        self.file
            .write_all_at(&self.copy[..4096], self.position)
            .expect("written");
        self.file.sync_data().expect("synced");
        let time = start.elapsed();
        self.position = (self.position + 4096) % self.file_len;
        time
    }

    /// A burst at level `os`, up to the acknowledgement of its last record.
    fn burst(&mut self) -> Duration {
        let start = Instant::now();
        for _ in 1..BURST {
            drop(self.os.append(&RECORD).expect("appended"));
        }
        self.os.append_wait(&RECORD).expect("written");
        let time = start.elapsed();
        let durable = self.os.sync().expect("synced");
        self.os
            .settle(self.os.marks().acked..durable, Class::Shipped);
        time
    }

    fn append_and_wait(&mut self) -> Duration {
        let start = Instant::now();
        let seq = self.disk.append_wait(&RECORD).expect("durable");
        let time = start.elapsed();
        self.disk.settle(seq..seq + 1, Class::Shipped);
        time
    }
}
