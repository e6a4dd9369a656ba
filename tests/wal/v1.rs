//! What version 1 wrote stays readable, and what is written today is version 1, byte for byte.
//!
//! `tests/data/v1` holds a log of three lives: closed, closed, killed; `tests/data/v1-without-slots` the
//! same, written before there were tail slots. `FERRYLOG_WRITE_V1=1` writes the former anew; a change
//! of these bytes is a change of the format.

use std::fs;
use std::path::PathBuf;

use ferrylog::wal::{Class, SeqNo};

use crate::common::{Records, assert_same, drain, open, read_all, sized, view};
use crate::faulty::Faulty;

const SEED: u64 = 60;
/// 2026-01-01 00:00:00 UTC.
const CLOCK_MICROS: i64 = 1_767_225_600_000_000;
const TEXTS: [&[u8]; 2] = [b"ttemps", b"tpressure"];

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn lengths(life: u64) -> impl Iterator<Item = usize> {
    (0..12).map(move |n| (n * n * 37 + life as usize * 5) % 900)
}

/// The log of `tests/data/v1`, on a disk of its own, and its records.
fn made_today() -> (Faulty, Records) {
    let mut disk = Faulty::new(SEED);
    let mut records = Records::new();
    for life in 0..3u64 {
        disk.set_clock(CLOCK_MICROS + 1_000_000 * life as i64);
        let wal = open(&disk);
        if let Some(text) = TEXTS.get(life as usize) {
            assert_eq!(wal.define(text).unwrap(), Some(life as u32));
        }
        // The definition and the first records in one group, then a batch, then one by one.
        let batch: Vec<Vec<u8>> = lengths(life).map(|len| sized(life, len)).collect();
        let first = wal.append_batch(&batch).unwrap().wait().unwrap();
        records.extend((0..).zip(batch).map(|(n, bytes)| (first + n, bytes)));
        for n in 0..2 {
            let bytes = sized(100 * life + n, 300);
            records.push((wal.append_wait(&bytes).unwrap(), bytes));
        }
        // Never all of a segment, or its file would live again.
        wal.settle(SeqNo::ZERO..SeqNo::new(3 + life), Class::Shipped);
        wal.settle(first + 2..first + 4, Class::DeadLettered);
        wal.save_cursor().unwrap();
        if life < 2 {
            wal.close().unwrap();
            disk = disk.copy();
        } else {
            disk = disk.kill();
        }
    }
    (disk, records)
}

/// What counts of a file: the filler may have put zeros behind it.
fn without_zeros(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|&byte| byte != 0);
    bytes.truncate(end.map_or(0, |at| at + 1));
    bytes
}

fn all(disk: &Faulty, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = disk.bytes(&name, 0, disk.file_len(&name) as usize);
        (name, without_zeros(bytes))
    };
    let files = disk.names(prefix).into_iter().map(read);
    files.filter(|(_, bytes)| !bytes.is_empty()).collect()
}

/// The committed files, on a disk of their own.
fn committed(name: &str) -> Faulty {
    let disk = Faulty::new(SEED + 1);
    for entry in fs::read_dir(folder(name)).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        // A cursor slot is a whole page.
        let len = (bytes.len() as u64).next_multiple_of(4096);
        disk.put(&entry.file_name().to_string_lossy(), &bytes, len);
    }
    disk
}

#[test]
fn what_version_1_wrote_is_opened_and_read() {
    for name in ["v1", "v1-without-slots"] {
        assert_readable(&committed(name));
    }
}

fn assert_readable(disk: &Faulty) {
    let (_, records) = made_today();
    let verified = view(disk).unwrap().verify(&mut |_, _| ()).unwrap();
    assert!(verified.is_clean(), "{:?}", verified.findings);
    let viewed = view(disk).unwrap();
    assert_same(&drain(viewed.reader(SeqNo::ZERO)).unwrap(), &records);
    let wal = open(disk);
    assert_same(&read_all(&wal), &records);
    for (id, text) in (0..).zip(TEXTS) {
        assert_eq!(wal.definition(id).unwrap(), text);
    }
    let totals = wal.totals();
    assert!(totals.balances());
    assert_eq!((totals.accepted, totals.queued), (42, 42 - 5 - 4));
    assert_eq!((totals.shipped, totals.dead_lettered), (4, 5));
    wal.append_wait(b"and it goes on").unwrap();
}

#[test]
fn what_is_written_today_is_version_1_byte_for_byte() {
    if std::env::var_os("FERRYLOG_WRITE_V1").is_some() {
        let (disk, _) = made_today();
        fs::create_dir_all(folder("v1")).unwrap();
        for (name, bytes) in all(&disk, "segment-").iter().chain(&all(&disk, "cursor-")) {
            fs::write(folder("v1").join(name), bytes).unwrap();
        }
    }
    let expected = all(&committed("v1"), "segment-");
    assert_eq!(expected.len(), 3);
    // The flusher may be faster than the batch behind a definition, and write it as a group of its own.
    let differs = |_: &u32| all(&made_today().0, "segment-") != expected;
    let attempts = (1..=10).take_while(differs).count();
    assert!(attempts < 10, "other bytes than version 1 wrote");
}
