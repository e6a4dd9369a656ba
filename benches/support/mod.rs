//! What the benchmarks of the engine share: limits, medians, counters, a table, an appender.
//!
//! Must not know: what is measured.

#![allow(dead_code, reason = "each benchmark uses its own part")]

pub(crate) mod allocations;
pub(crate) mod limits;
pub(crate) mod meter;
pub(crate) mod table;
pub(crate) mod tasks;

use std::collections::VecDeque;
use std::path::PathBuf;

use ferrylog::wal::fs::Fs;
use ferrylog::wal::{Class, Durability, Options, Ticket, Wal};

/// A directory on a disk, not on a tmpfs: in `FERRYLOG_BENCH_DIR`, or else in the target directory.
pub(crate) fn directory() -> tempfile::TempDir {
    let parent = std::env::var_os("FERRYLOG_BENCH_DIR")
        .map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    tempfile::Builder::new()
        .prefix("bench")
        .tempdir_in(parent)
        .expect("a directory")
}

pub(crate) fn with_level(durability: Durability) -> Options {
    let mut options = Options::default();
    options.durability = durability;
    options
}

/// Settles everything that is on disk.
pub(crate) fn settle<F: Fs>(wal: &Wal<F>) {
    let marks = wal.marks();
    wal.settle(marks.acked..marks.durable, Class::Shipped);
}

/// Tickets that the sustained appender leaves open.
pub(crate) const OUTSTANDING: usize = 4096;
/// Records between two settlements: a consumer that keeps up.
const SETTLE_EVERY: u64 = 32 << 10;

/// One thread that appends so many records with [`OUTSTANDING`] tickets open, until all are
/// acknowledged. `consumed`: what is on disk is settled, so that segments are recycled.
pub(crate) fn stream<'a, F: Fs>(
    wal: &'a Wal<F>,
    count: u64,
    consumed: bool,
    mut append: impl FnMut() -> Ticket<'a, F>,
) {
    let mut open: VecDeque<Ticket<'a, F>> = VecDeque::with_capacity(OUTSTANDING);
    for index in 0..count {
        if open.len() == OUTSTANDING
            && let Some(oldest) = open.pop_front()
        {
            oldest.wait().expect("acknowledged");
            while open.front().is_some_and(Ticket::is_acknowledged) {
                _ = open.pop_front();
            }
        }
        open.push_back(append());
        if consumed && index % SETTLE_EVERY == 0 {
            settle(wal);
        }
    }
    if let Some(last) = open.pop_back() {
        last.wait().expect("acknowledged");
    }
}
