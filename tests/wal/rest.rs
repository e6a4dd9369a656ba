//! Records at rest: compressed, encrypted, both; keys that are right, wrong, missing, new.

use std::collections::BTreeSet;

use ferrylog::wal::{Compression, Error, Keys, OnCorruption, Options, SeqNo, Verified, View, Wal};

use crate::common::{
    Records, append_all, assert_same, describe, drain, drain_past_damage, key, keys, options,
    read_all, sized, try_open_with, view,
};
use crate::damage::{frames, u64_at, verify};
use crate::faulty::{EIO, Failure, Faulty, Kind};
use crate::flips::{assert_each_byte_costs_its_frame, small};
use crate::random::Random;

const LZ4: Compression = Compression::Lz4;
const ZSTD: Compression = Compression::Zstd { level: 3 };
const RECORDS: u8 = 1;
const DICTIONARY: u8 = 4;

fn with(compression: Compression, keys: Keys) -> Options {
    let mut options = options();
    options.compression = compression;
    options.keys = keys;
    options
}

#[track_caller]
fn open_with(disk: &Faulty, compression: Compression, keys: Keys) -> Wal<Faulty> {
    try_open_with(disk, with(compression, keys)).unwrap_or_else(|e| panic!("{}", describe(&e)))
}

#[track_caller]
fn refused(disk: &Faulty, keys: Keys) -> Error {
    let before = disk.copy();
    let refused = try_open_with(disk, with(Compression::None, keys));
    let error = refused.expect_err("it must be refused");
    for name in [disk.names("segment-"), disk.names("cursor-")].concat() {
        let len = before.file_len(&name);
        assert_eq!(disk.file_len(&name), len);
        let same = disk.bytes(&name, 0, len as usize) == before.bytes(&name, 0, len as usize);
        assert!(same, "{name} was changed");
    }
    assert_eq!(disk.names("quarantine"), before.names("quarantine"));
    error
}

/// A key of this id, but not the one that all tests use.
fn wrong(id: u32) -> Keys {
    Keys::none().write_with(key(id).0, [0xee; 32])
}

#[track_caller]
fn assert_key(error: &Error, expected: u32, given: bool) {
    match error {
        Error::Key { path, id, is_given } => {
            assert_eq!((*id, *is_given), (expected, given), "{error}");
            assert!(path.to_string_lossy().contains("segment-"), "{error}");
        }
        other => panic!("{}", describe(other)),
    }
}

fn read_with(disk: &Faulty, keys: Keys) -> Records {
    let view = view(disk).unwrap().with_keys(keys).unwrap();
    drain(view.reader(SeqNo::ZERO)).unwrap()
}

/// Text that becomes smaller, noise that does not, tiny ones and a large one.
fn mixed(seed: u64, count: u64) -> Vec<Vec<u8>> {
    let mut random = Random(seed);
    let one = |number| match number % 7 {
        0 => b"temperature=21.5;humidity=40;site=north".repeat(1 + number as usize % 90),
        1 => (0..random.below(30_000))
            .map(|_| random.next() as u8)
            .collect(),
        2 => Vec::new(),
        3 if number % 100 == 3 => sized(number, 300_000),
        _ => sized(number, random.below(2000) as usize),
    };
    (0..count).map(one).collect()
}

fn append_records(wal: &Wal<Faulty>, records: &[Vec<u8>]) -> Records {
    let appended = records.iter().map(|bytes| {
        let ticket = wal.append(bytes).unwrap();
        (ticket.seq(), bytes.clone())
    });
    let appended = appended.collect();
    wal.sync().unwrap();
    appended
}

#[test]
fn f12_every_codec_reads_back_over_rotation_and_kill_and_verifies_without_a_key() {
    for (at, compression) in [Compression::None, LZ4, ZSTD].into_iter().enumerate() {
        for id in [0, 2] {
            let what = format!("{compression:?}, key {id}");
            let mut disk = Faulty::new(70 + at as u64);
            let mut records = Records::new();
            for life in 0..2 {
                let wal = open_with(&disk, compression, keys(id));
                assert_same(&read_all(&wal), &records);
                wal.define(&[b'a' + life; 20]).unwrap();
                for part in mixed(u64::from(life), 700).chunks(50) {
                    records.extend(append_records(&wal, part));
                }
                let batch: Vec<Vec<u8>> = (0..40).map(|n| sized(n, 5000)).collect();
                let first = wal.append_batch(&batch).unwrap().wait().unwrap();
                records.extend((0..).map(|n| first + n).zip(batch));
                assert_same(&read_all(&wal), &records);
                disk = disk.kill();
            }
            let segments = view(&disk).unwrap().segments().len();
            assert!(segments > 3, "{what}: {segments} segments");
            let verified = verify(&disk);
            assert!(verified.findings.is_empty(), "{what}: {verified:?}");
            assert_eq!(verified.records, records.len() as u64, "{what}");
            assert_same(&read_with(&disk, keys(0)), &records);
            let wal = open_with(&disk, Compression::None, keys(0));
            assert_same(&read_all(&wal), &records);
            for id in 0..2 {
                let text = [b'a' + id as u8; 20];
                assert_eq!(wal.definition(id).as_deref(), Some(&text[..]), "{what}");
            }
            assert!(wal.totals().balances());
        }
    }
}

#[test]
fn what_compresses_takes_less_of_the_disk() {
    let used = |compression, keys| {
        let disk = Faulty::new(80);
        let wal = open_with(&disk, compression, keys);
        let text = b"temperature=21.5;humidity=40;site=north".repeat(20);
        append_records(&wal, &vec![text; 3000]);
        wal.close().unwrap();
        verify(&disk).bytes
    };
    let plain = used(Compression::None, Keys::none());
    for compression in [LZ4, ZSTD] {
        for id in [0, 1] {
            let packed = used(compression, keys(id));
            assert!(packed < plain / 4, "{compression:?}: {packed} of {plain}");
        }
    }
}

#[test]
fn f12_nothing_of_a_record_or_a_definition_is_on_an_encrypted_disk() {
    let (record, topic) = (b"a secret of the north site", b"a topic of the north site");
    for id in [0, 1] {
        let disk = Faulty::new(81);
        for _ in 0..2 {
            let wal = open_with(&disk, Compression::None, keys(id));
            wal.define(topic).unwrap();
            wal.append_wait(record).unwrap();
            wal.close().unwrap();
        }
        let all: Vec<u8> = disk
            .names("")
            .iter()
            .flat_map(|name| disk.bytes(name, 0, disk.file_len(name) as usize))
            .collect();
        for needle in [&record[..], topic] {
            let found = all.windows(8).any(|bytes| bytes == &needle[..8]);
            assert_eq!(found, id == 0, "key {id}");
        }
    }
}

#[test]
fn f12_a_wrong_or_missing_key_is_refused_before_anything_is_changed() {
    let disk = Faulty::new(82);
    let wal = open_with(&disk, LZ4, keys(2));
    let records = append_all(&wal, 0..20);
    let disk = disk.kill();
    assert_key(&refused(&disk, Keys::none()), 2, false);
    let other = Keys::none().write_with(key(3).0, key(3).1);
    assert_key(&refused(&disk, other), 2, false);
    assert_key(&refused(&disk, wrong(2)), 2, true);
    // Nothing was defined: the key is checked all the same. A log without records, too.
    let empty = Faulty::new(83);
    open_with(&empty, LZ4, keys(2)).close().unwrap();
    assert_key(&refused(&empty, wrong(2)), 2, true);

    let viewed = view(&disk).unwrap();
    assert!(viewed.damage().is_none());
    assert_eq!(viewed.totals().queued, 20);
    let error = viewed.with_keys(wrong(2)).unwrap_err();
    assert_key(&error, 2, true);
    assert_same(&read_with(&disk, keys(0)), &records);
    let wal = open_with(&disk, LZ4, keys(2));
    assert_eq!(wal.opened().gaps, []);
    assert_same(&read_all(&wal), &records);
}

/// Three lives with keys 1, 2 and 3.
fn three_keys() -> (Faulty, [Records; 3]) {
    let mut disk = Faulty::new(84);
    let lives = [1, 2, 3].map(|id| {
        let wal = open_with(&disk, ZSTD, keys(id));
        wal.define(&[id as u8; 9]).unwrap();
        let records = append_all(&wal, 0..10);
        wal.close().unwrap();
        disk = disk.copy();
        records
    });
    (disk, lives)
}

fn key_ids(disk: &Faulty) -> Vec<u64> {
    let segments = view(disk).unwrap().segments();
    let name = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().to_string();
    let id = |name: String| u64_at(&disk.bytes(&name, 96, 8), 0) & 0xffff_ffff;
    segments.iter().map(|s| id(name(&s.path))).collect()
}

#[test]
fn f12_a_new_key_begins_a_new_segment_and_old_ones_stay_readable_with_theirs() {
    let (disk, lives) = three_keys();
    assert_eq!(key_ids(&disk), [1, 2, 3]);
    let all = lives.concat();
    assert_same(&read_with(&disk, keys(0)), &all);
    // And back to none.
    let wal = open_with(&disk, Compression::None, keys(0));
    let more = append_all(&wal, 0..5);
    assert_same(&read_all(&wal), &[all, more].concat());
    for id in 0..3 {
        assert_eq!(wal.definition(id).unwrap(), vec![1 + id as u8; 9]);
    }
    assert_eq!(key_ids(&disk), [1, 2, 3, 0]);
}

#[test]
fn f12_a_segment_whose_key_is_missing_stops_the_reader_and_is_no_damage() {
    let (disk, lives) = three_keys();
    let newest = Keys::none().write_with(key(3).0, key(3).1);
    for on_corruption in [OnCorruption::Quarantine, OnCorruption::Refuse] {
        let mut options = with(ZSTD, newest.clone());
        options.on_corruption = on_corruption;
        let disk = disk.copy();
        let wal = try_open_with(&disk, options).unwrap();
        assert_eq!(wal.opened().gaps, []);
        let mut reader = wal.reader(SeqNo::ZERO);
        for _ in 0..3 {
            assert_key(&reader.next().unwrap_err(), 1, false);
            assert_eq!(reader.position(), SeqNo::ZERO);
        }
        let from = lives[2][0].0;
        assert_same(&drain(wal.reader(from)).unwrap(), &lives[2]);
        assert!(verify(&disk).findings.is_empty());
        assert_eq!(wal.totals().lost, 0);
    }
    let second = wrong(2).read_with(key(3).0, key(3).1);
    let second = second.read_with(key(1).0, key(1).1);
    let viewed = view(&disk).unwrap().with_keys(second).unwrap();
    let mut reader = viewed.reader(SeqNo::ZERO);
    for (seq, _) in &lives[0] {
        assert_eq!(reader.next().unwrap().unwrap().seq, *seq);
    }
    assert_key(&reader.next().unwrap_err(), 2, true);
    assert_key(&reader.next().unwrap_err(), 2, true);
}

#[test]
fn without_keys_a_view_tells_all_but_records_and_definitions() {
    let (disk, lives) = three_keys();
    let viewed = view(&disk).unwrap();
    assert_eq!(viewed.marks().next, lives[2][9].0 + 1);
    assert_eq!(viewed.totals().queued, 30);
    assert_eq!(viewed.definition(0), None);
    assert_key(&viewed.reader(SeqNo::ZERO).next().unwrap_err(), 1, false);
    let viewed = viewed.with_keys(keys(0)).unwrap();
    assert_eq!(viewed.definition(0).unwrap(), vec![1; 9]);
}

/// All nonces of a segment, with the frames' positions.
fn nonces(disk: &Faulty, name: &str) -> Vec<Vec<u8>> {
    let kinds = [RECORDS, DICTIONARY].map(|kind| frames(disk, name, kind));
    let nonce = |at: u64| disk.bytes(name, at + 64, 24);
    kinds.concat().into_iter().map(nonce).collect()
}

#[test]
fn r2_f12_what_is_written_again_after_a_failed_sync_is_encrypted_again() {
    for compression in [Compression::None, LZ4, ZSTD] {
        let disk = Faulty::new(85);
        let wal = open_with(&disk, compression, keys(1));
        let mut records = append_all(&wal, 0..5);
        for round in 0..4 {
            disk.heal();
            disk.fail_next(Kind::Sync, "segment-", 1, Failure::Errno(EIO));
            records.extend(append_records(&wal, &mixed(round, 120)));
            assert_eq!(disk.fired() as u64, round + 1);
        }
        assert_same(&read_all(&wal), &records);
        let disk = disk.kill();
        let mut seen = BTreeSet::new();
        let mut count = 0;
        for name in disk.names("segment-") {
            for nonce in nonces(&disk, &name) {
                count += 1;
                assert!(seen.insert(nonce), "a nonce twice, in {name}");
            }
        }
        assert!(count > 20, "{count} frames");
        let wal = open_with(&disk, compression, keys(1));
        assert_same(&read_all(&wal), &records);
        assert!(verify(&disk).is_clean());
    }
}

/// Where a log's only segment with records is, and its records frames.
fn only(disk: &Faulty) -> (String, Vec<u64>) {
    let name = disk.names("segment-").remove(0);
    let at = frames(disk, &name, RECORDS);
    (name, at)
}

/// Changes a frame and puts its checksums right.
fn forge(disk: &Faulty, name: &str, at: u64, change: impl Fn(&mut [u8])) {
    let salt = disk.bytes(name, 64, 8);
    let len = u64_at(&disk.bytes(name, at + 48, 8), 0) as u32 as usize;
    let mut frame = disk.bytes(name, at, 64 + len);
    change(&mut frame);
    let crc = crc32fast::hash(&frame[64..]);
    frame[52..56].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&[&salt, &frame[8..64]].concat());
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(name, at, &frame);
}

fn three_frames(compression: Compression, keys: Keys) -> (Faulty, Records) {
    let disk = Faulty::new(86);
    let wal = open_with(&disk, compression, keys);
    let text: Vec<Vec<u8>> = (0..3).map(|n| vec![n; 5000]).collect();
    let append = |bytes: Vec<u8>| (wal.append_wait(&bytes).unwrap(), bytes);
    let records = text.into_iter().map(append).collect();
    wal.close().unwrap();
    (disk, records)
}

fn look(disk: &Faulty, keys: Keys) -> (View<Faulty>, Verified) {
    let viewed = view(disk).unwrap().with_keys(keys).unwrap();
    let verified = viewed.verify(&mut |_, _| ()).unwrap();
    (viewed, verified)
}

#[test]
fn r12_f12_a_frame_that_claims_four_gigabytes_is_corrupt_and_its_neighbours_are_read() {
    for (compression, id) in [(LZ4, 0), (ZSTD, 0)] {
        let (disk, records) = three_frames(compression, keys(id));
        let (name, at) = only(&disk);
        forge(&disk, &name, at[1], |frame| frame[64..68].fill(0xff));
        let (viewed, _) = look(&disk, keys(0));
        let (found, lost) = drain_past_damage(viewed.reader(SeqNo::ZERO)).unwrap();
        let without: Records = [&records[..1], &records[2..]].concat();
        assert_same(&found, &without);
        assert_eq!(lost, [records[1].0..records[2].0]);
    }
}

#[test]
fn f12_a_frame_under_right_checksums_that_nobody_encrypted_is_never_a_record() {
    let cases: [fn(&mut [u8]); 4] = [
        |frame| frame[64 + 30] ^= 1, // ciphertext
        |frame| frame[64] ^= 1,      // nonce
        |frame| frame[40] ^= 1,      // base time: bound to the payload
        |frame| frame[61] ^= 0x80,   // "not encrypted"
    ];
    for (case, change) in cases.into_iter().enumerate() {
        let (disk, records) = three_frames(Compression::None, keys(1));
        let (name, at) = only(&disk);
        forge(&disk, &name, at[1], change);
        let (viewed, _) = look(&disk, keys(0));
        let mut reader = viewed.reader(SeqNo::ZERO);
        assert_eq!(reader.next().unwrap().unwrap().payload, records[0].1);
        // Asked again it says so again.
        for _ in 0..2 {
            match reader.next() {
                Err(Error::Key { id: 1, .. }) => assert!(case < 3, "case {case}"),
                Err(Error::Corrupt { .. }) => assert_eq!(case, 3),
                other => panic!("case {case}: {other:?}"),
            }
            assert_eq!(reader.position(), records[1].0);
        }
    }
}

#[test]
fn a_compression_level_that_does_not_exist_is_refused() {
    for level in [0, -1, 23] {
        let options = with(Compression::Zstd { level }, Keys::none());
        let error = try_open_with(&Faulty::new(87), options).unwrap_err();
        assert!(matches!(error, Error::Options { .. }), "{error}");
    }
}

/// Batches as large as they may be, in the smallest segment, where encryption adds to each frame.
#[test]
fn the_largest_batch_fits_into_a_segment_also_encrypted() {
    let disk = Faulty::new(88);
    let wal = open_with(&disk, LZ4, keys(3));
    let mut random = Random(88);
    let mut noise = |len: usize| -> Vec<u8> { (0..len).map(|_| random.next() as u8).collect() };
    let mut records = Records::new();
    for _ in 0..4 {
        let mut batch: Vec<Vec<u8>> = (0..15).map(|_| noise(33_000)).collect();
        batch.push(noise(25_000));
        let first = wal.append_batch(&batch).unwrap().wait().unwrap();
        records.extend((0..).map(|n| first + n).zip(batch));
    }
    assert_same(&read_all(&wal), &records);
    for name in disk.names("segment-") {
        let len = disk.file_len(&name);
        assert!(len <= 1 << 20, "{name}: {len}");
    }
}

/// Rot is rot, and never a wrong key.
#[test]
fn f12_a_byte_that_rots_at_rest_costs_at_most_the_frame_it_is_in() {
    for (compression, keys) in [(LZ4, keys(1)), (ZSTD, Keys::none())] {
        assert_each_byte_costs_its_frame(&small(&with(compression, keys)));
    }
}
