//! What version 1 wrote stays readable, and what is written today is version 1, byte for byte.
//!
//! `tests/data/v1` holds a log of three lives: closed, closed, killed; `tests/data/v1-without-slots` the
//! same, written before there were tail slots. In `tests/data/v1-at-rest` the first life is LZ4 and
//! encrypted, the second Zstandard, the third encrypted. `FERRYLOG_WRITE_V1=1` writes what is written
//! today anew; a change of these bytes is a change of the format, or a compressor's that was upgraded:
//! then the old folder stays beside the new one, to be read.

use std::fs;
use std::path::PathBuf;

use ferrylog::wal::{Class, Compression, Options, SeqNo};

use crate::common::{Records, assert_same, drain, options, read_all, sized, try_open_with, view};
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

/// The options of each life.
type Lives = [Options; 3];

fn plain() -> Lives {
    [options(), options(), options()]
}

/// The log of `tests/data/v1`, on a disk of its own, and its records.
fn made_today(lives: &Lives) -> (Faulty, Records) {
    let mut disk = Faulty::new(SEED);
    let mut records = Records::new();
    for (life, options) in (0..3u64).zip(lives) {
        disk.set_clock(CLOCK_MICROS + 1_000_000 * life as i64);
        let wal = try_open_with(&disk, options.clone()).unwrap();
        if let Some(text) = TEXTS.get(life as usize) {
            assert_eq!(wal.define(text).unwrap(), Some(life as u32));
        }
        // The definition and the first records in one group, then a batch, then one by one.
        let batch: Vec<Vec<u8>> = lengths(life).map(|len| sized(life, len)).collect();
        let first = wal.append_batch(&batch).unwrap().wait().unwrap();
        records.extend((0..).zip(batch).map(|(n, bytes)| (first + n, bytes)));
        // What fits into a page is not compressed.
        let packs = options.compression != Compression::None;
        for (n, len) in (0..if packs { 3 } else { 2 }).zip([300, 300, 6000]) {
            let bytes = sized(100 * life + n, len);
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
        assert_readable(&committed(name), &plain());
    }
}

fn assert_readable(disk: &Faulty, lives: &Lives) {
    let (_, records) = made_today(lives);
    let verified = view(disk).unwrap().verify(&mut |_, _| ()).unwrap();
    assert!(verified.is_clean(), "{:?}", verified.findings);
    let viewed = view(disk).unwrap().with_keys(lives[2].keys.clone());
    assert_same(
        &drain(viewed.unwrap().reader(SeqNo::ZERO)).unwrap(),
        &records,
    );
    let wal = try_open_with(disk, lives[2].clone()).unwrap();
    assert_same(&read_all(&wal), &records);
    for (id, text) in (0..).zip(TEXTS) {
        assert_eq!(wal.definition(id).unwrap(), text);
    }
    let (totals, count) = (wal.totals(), records.len() as u64);
    assert!(totals.balances());
    assert_eq!((totals.accepted, totals.queued), (count, count - 5 - 4));
    assert_eq!((totals.shipped, totals.dead_lettered), (4, 5));
    wal.append_wait(b"and it goes on").unwrap();
}

#[test]
fn what_is_written_today_is_version_1_byte_for_byte() {
    assert_written_so("v1", &plain());
}

fn assert_written_so(folder_name: &str, lives: &Lives) {
    let folder = folder(folder_name);
    if std::env::var_os("FERRYLOG_WRITE_V1").is_some() {
        let (disk, _) = made_today(lives);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in all(&disk, "segment-").iter().chain(&all(&disk, "cursor-")) {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let expected = all(&committed(folder_name), "segment-");
    assert_eq!(expected.len(), 3);
    // The flusher may be faster than the batch behind a definition, and write it as a group of its own.
    let differs = |_: &u32| all(&made_today(lives).0, "segment-") != expected;
    let attempts = (1..=10).take_while(differs).count();
    assert!(attempts < 10, "other bytes than version 1 wrote");
}

#[cfg(all(feature = "lz4", feature = "zstd", feature = "encryption"))]
mod at_rest {
    use std::collections::BTreeSet;

    use super::*;
    use crate::common::keys;
    use crate::damage::frames;

    fn lives() -> Lives {
        let [mut first, mut second, mut third] = plain();
        (first.compression, first.keys) = (Compression::Lz4, keys(1));
        (second.compression, second.keys) = (Compression::Zstd { level: 3 }, keys(0));
        third.keys = keys(2);
        [first, second, third]
    }

    #[test]
    fn f12_what_version_1_wrote_compressed_and_encrypted_is_opened_and_read() {
        let disk = committed("v1-at-rest");
        let codecs: BTreeSet<u8> = disk
            .names("segment-")
            .iter()
            .flat_map(|name| frames(&disk, name, 1).into_iter().map(move |at| (name, at)))
            .map(|(name, at)| disk.bytes(name, at + 61, 1)[0])
            .collect();
        assert!(
            codecs.is_superset(&[0x81, 0x02, 0x80].into()),
            "{codecs:x?}"
        );
        assert_readable(&disk, &lives());
    }

    #[test]
    fn f12_what_is_written_today_compressed_and_encrypted_is_version_1_byte_for_byte() {
        assert_written_so("v1-at-rest", &lives());
    }
}
