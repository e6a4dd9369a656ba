//! One appender that keeps 4,096 tickets open, beside L3; the last sync counts for both.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ferrylog::wal::{Durability, Wal};

use crate::RECORD;
use crate::support::limits::Limits;
use crate::support::meter::Meter;
use crate::support::table::{Goal, Pairs, millions};
use crate::support::{directory, stream, with_level};

/// Records of one round: 128 MiB, so that two segments or more are begun in each.
const RECORDS: u64 = 512 << 10;
const BYTES: u64 = RECORDS * RECORD.len() as u64;
const ROUNDS: usize = 11;

pub(crate) fn rows(limits: &mut Limits) {
    let levels = [Durability::Os, Durability::Disk];
    let recycled = levels.map(|level| Stream::new(level, true));
    let mut pairs = [Pairs::default(), Pairs::default()];
    // The first round is the files' first life.
    for round in 0..=ROUNDS {
        for (stream, pairs) in recycled.iter().zip(&mut pairs) {
            let (own, limit) = (stream.run(), limits.stream(BYTES));
            if round > 0 {
                pairs.push(millions(RECORDS, own), millions(RECORDS, limit));
            } else {
                stream.meter.counts().created.store(0, Relaxed);
            }
        }
    }
    for (stream, pairs) in recycled.iter().zip(&pairs) {
        let fresh = stream.meter.counts().created.load(Relaxed);
        let what = format!(
            "`{}`, 256 B, 4,096 tickets open, recycled files ({fresh} new ones in all rounds); limit: L3",
            stream.level
        );
        pairs.row(&what, "M/s", 2, Goal::AtLeast(0.8));
    }
    drop(recycled);
    for level in levels {
        let stream = Stream::new(level, false);
        let mut pairs = Pairs::default();
        for _ in 0..ROUNDS {
            let (own, limit) = (stream.run(), limits.stream(BYTES));
            pairs.push(millions(RECORDS, own), millions(RECORDS, limit));
        }
        let what = format!("`{level}`, the same into files in their first life; limit: L3");
        pairs.row(&what, "M/s", 2, Goal::AtLeast(0.45));
    }
}

struct Stream {
    wal: Wal<Meter>,
    meter: Meter,
    level: Durability,
    consumed: bool,
    _dir: tempfile::TempDir,
}

impl Stream {
    fn new(level: Durability, consumed: bool) -> Self {
        let dir = directory();
        let meter = Meter::default();
        let fs = Arc::new(meter.clone());
        let wal = Wal::open_on(fs, dir.path().join("log"), with_level(level)).expect("a log");
        Self {
            wal,
            meter,
            level,
            consumed,
            _dir: dir,
        }
    }

    fn run(&self) -> Duration {
        let start = Instant::now();
        stream(&self.wal, RECORDS, self.consumed, || {
            self.wal.append(&RECORD).expect("appended")
        });
        // At every level: sustained is what the disk keeps up with.
        self.wal.sync().expect("synced");
        start.elapsed()
    }
}
