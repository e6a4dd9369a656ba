//! One appender: bursts at level `os` beside L1 and L2, single records at level `disk` beside L4.

use std::time::{Duration, Instant};

use ferrylog::wal::{Class, Durability, Wal};

use crate::RECORD;
use crate::support::limits::Limits;
use crate::support::table::{Goal, Pairs, Series, micros, millions};
use crate::support::{directory, settle, with_level};

/// Records of one burst: 8 MiB, half of the default memory budget.
pub(crate) const RECORDS: u64 = 32 << 10;
pub(crate) const BYTES: u64 = RECORDS * RECORD.len() as u64;
const ROUNDS: usize = 61;
/// Single records of one round; their median counts.
const SINGLES: usize = 40;

pub(crate) fn rows(limits: &mut Limits) {
    let burst = Burst::new();
    let (mut l1, mut l2) = (Series::default(), Series::default());
    let mut bursts = Pairs::default();
    for _ in 0..ROUNDS {
        let (copy, write) = (limits.copy_and_checksum(BYTES), limits.write(BYTES));
        l1.push(millions(RECORDS, copy));
        l2.push(millions(RECORDS, write));
        bursts.push(
            millions(RECORDS, burst.run()),
            millions(RECORDS, copy + write),
        );
    }
    drop(burst);
    let both = format!(
        "`os`, 256 B, one appender, bursts of 8 MiB; limit: 1/(1/L1 + 1/L2), of L1 {} and L2 {} M/s",
        l1.told(1),
        l2.told(1)
    );
    bursts.row(&both, "M/s", 2, Goal::AtLeast(0.7));

    let single = Single::new();
    let mut singles = Pairs::default();
    for _ in 0..ROUNDS {
        let (mut own, mut limit) = (Series::default(), Series::default());
        for _ in 0..SINGLES {
            limit.push(micros(limits.write_and_sync()));
            own.push(micros(single.run()));
        }
        singles.push(own.median(), limit.median());
    }
    let what = "`disk`, 256 B, one waiting appender, p50; limit: L4's p50";
    singles.row(what, "us", 1, Goal::AtMost(1.15));
}

/// A log at level `os` that writes into recycled files.
pub(crate) struct Burst {
    wal: Wal,
    _dir: tempfile::TempDir,
}

impl Burst {
    pub(crate) fn new() -> Self {
        let dir = directory();
        let wal = Wal::open(dir.path().join("os"), with_level(Durability::Os)).expect("a log");
        let burst = Self { wal, _dir: dir };
        for _ in 0..32 {
            burst.run();
        }
        burst
    }

    /// A burst, up to the acknowledgement of its last record.
    pub(crate) fn run(&self) -> Duration {
        let start = Instant::now();
        for _ in 1..RECORDS {
            drop(self.wal.append(&RECORD).expect("appended"));
        }
        self.wal.append_wait(&RECORD).expect("written");
        let time = start.elapsed();
        self.wal.sync().expect("synced");
        settle(&self.wal);
        time
    }
}

/// A log at level `disk` that writes into recycled files.
pub(crate) struct Single {
    wal: Wal,
    _dir: tempfile::TempDir,
}

impl Single {
    pub(crate) fn new() -> Self {
        let dir = directory();
        let wal = Wal::open(dir.path().join("disk"), with_level(Durability::Disk)).expect("a log");
        let single = Self { wal, _dir: dir };
        // Three segments' worth, in a few large steps.
        let large = vec![0x5a; 4 << 20];
        for _ in 0..48 {
            single.append(&large);
        }
        single
    }

    pub(crate) fn run(&self) -> Duration {
        self.append(&RECORD)
    }

    fn append(&self, record: &[u8]) -> Duration {
        let start = Instant::now();
        let seq = self.wal.append_wait(record).expect("durable");
        let time = start.elapsed();
        self.wal.settle(seq..seq + 1, Class::Shipped);
        time
    }
}
