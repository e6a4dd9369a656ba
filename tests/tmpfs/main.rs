//! Full disks for real: the engine on a small tmpfs. Mounting needs root, so this is a target of its
//! own that never skips: without the right to mount it fails and says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ferrylog::wal::{Class, Error, OnFull, Options, SeqNo, Wal};

/// A file system of this many bytes; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .status()
            .expect("the mount command");
        assert!(mounted.success(), "these tests mount a tmpfs: run as root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Somebody else takes all the space that is left.
    fn take_all(&self) {
        let path = self.path().join("other");
        let mut other = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        while other.write_all(&[1; 4096]).is_ok() {}
    }

    fn give_back(&self) {
        fs::remove_file(self.path().join("other")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}

fn options(on_full: OnFull) -> Options {
    let mut options = Options::default();
    options.segment_size = 1 << 20;
    options.on_full = on_full;
    options
}

fn record(number: u64) -> Vec<u8> {
    let mut bytes = vec![number as u8; 10_000];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

/// Every record from `first` on is there, in order, up to at least `end`.
#[track_caller]
fn assert_whole(wal: &Wal, first: SeqNo, end: u64) {
    let mut reader = wal.reader(first);
    let mut next = first.get();
    while let Some(found) = reader.next().unwrap() {
        assert_eq!(found.seq.get(), next);
        assert!(found.payload == record(next), "bytes of record {next}");
        next += 1;
    }
    assert!(next >= end, "{next} of {end} records");
}

/// Appends until there is no space; how many were acknowledged before.
fn fill(wal: &Wal) -> u64 {
    for number in wal.marks().next.get().. {
        match wal.append_wait(&record(number)) {
            Ok(seq) => assert_eq!(seq.get(), number),
            Err(error @ Error::Full { .. }) => {
                assert!(error.to_string().contains("No space left"), "{error}");
                return number;
            }
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("an endless range")
}

#[test]
fn a_full_disk_ends_by_itself_and_costs_nothing() {
    let disk = Small::mount(8 << 20);
    fs::write(disk.path().join("other"), vec![1; 2 << 20]).unwrap();
    let dir = disk.path().join("log");
    let wal = Wal::open(&dir, options(OnFull::Reject)).unwrap();
    wal.append_wait(&record(0)).unwrap();
    until("the ballast", || dir.join("ballast").exists());
    let acknowledged = fill(&wal);
    assert!(acknowledged > 300);
    assert_whole(&wal, SeqNo::ZERO, acknowledged);

    // What is shipped makes room, also where somebody takes what is left.
    disk.take_all();
    wal.settle(SeqNo::ZERO..SeqNo::new(200), Class::Shipped);
    wal.save_cursor().unwrap();
    until("space", || {
        wal.shortage().is_none() && wal.marks().first > SeqNo::ZERO
    });
    let more = fill(&wal);
    assert!(more > acknowledged + 50);
    assert_whole(&wal, wal.marks().acked, more);
    assert!(wal.totals().balances());

    // Closing says that a record may be missing, unless the keeper made room for the last one since
    // (without a race: `closing_on_a_full_disk_ends_with_an_error_and_loses_nothing_acknowledged`);
    // opening needs no space but the ballast's.
    match wal.close() {
        Ok(marks) => assert_eq!(marks.durable, marks.next),
        Err(error) => assert!(matches!(error, Error::Full { .. }), "{error}"),
    }
    disk.take_all();
    let wal = Wal::open(&dir, options(OnFull::Block)).unwrap();
    assert_eq!(wal.totals().shipped, 200);
    assert_whole(&wal, wal.marks().acked, more);

    // And it goes on when the other one goes.
    let end = wal.marks().next;
    let batch: Vec<Vec<u8>> = (0..40).map(|_| vec![7; 12_000]).collect();
    let ticket = wal.append_batch(&batch).unwrap();
    until("no space", || {
        wal.shortage().is_some() || ticket.is_acknowledged()
    });
    disk.give_back();
    assert_eq!(ticket.wait().unwrap(), end);
    wal.close().unwrap();
}

#[test]
fn a_log_that_drops_its_oldest_never_stops_on_a_full_disk() {
    let disk = Small::mount(6 << 20);
    let wal = Wal::open(disk.path().join("log"), options(OnFull::DropOldest)).unwrap();
    for number in 0..2000 {
        wal.append_wait(&record(number)).unwrap();
    }
    let (totals, acked) = (wal.totals(), wal.marks().acked);
    assert!(totals.balances());
    assert_eq!((totals.accepted, totals.dropped), (2000, acked.get()));
    assert!(totals.queued > 100 && totals.dropped > 1000, "{totals:?}");
    assert_whole(&wal, acked, 2000);
    wal.close().unwrap();
}
