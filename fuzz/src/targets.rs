//! Bytes in, and everything that must hold whatever they are: no panic, no endless loop, bounded memory,
//! numbers in order, the law of conservation, and a log that opened takes records and keeps them.
//!
//! Owns: the way from a fuzzer's bytes to a log, and the oracle. Must not know: who drives it; the
//! fuzzer does, and a test with seeds of its own. Checksums are put right first: they would keep a
//! fuzzer out for ever.

#![allow(unreachable_pub, reason = "a test includes this file, too")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ferrylog::message::{Header, Message, MessageRef, codec};
use ferrylog::store;
use ferrylog::wal::{Class, Compression, Error, Keys, Options, Reader, SeqNo, Totals, View, Wal};

use crate::faulty::Faulty;

const DIR: &str = "/log";
const PAGE: usize = 4096;
const BODY: usize = 128 << 10;
const FRAME: usize = 64;
/// How a frame's magic reads before the salt goes in.
const MAGIC: &[u8; 4] = b"FRAM";
const HEADERS: [u64; 2] = [0, 64 << 10];
const CURSORS: [&str; 2] = ["cursor-a", "cursor-b"];

fn options() -> Options {
    let mut options = Options::default();
    options.segment_size = 1 << 20;
    options.sync_interval = Duration::from_secs(3600);
    options
}

fn open(disk: &Faulty) -> Result<Wal<Faulty>, Error> {
    Wal::open_on(Arc::new(disk.clone()), Path::new(DIR), at_rest(0))
}

/// How records lie on the disk: 0 plain, 1 LZ4, 2 Zstandard, 3 encrypted; where the build can. The key
/// to what is encrypted is always there.
fn at_rest(how: u8) -> Options {
    let mut options = options();
    if cfg!(all(
        feature = "lz4",
        feature = "zstd",
        feature = "encryption"
    )) {
        let (id, key) = (NonZeroU32::MIN, [7; 32]);
        options.keys = Keys::none().read_with(id, key);
        match how {
            1 => options.compression = Compression::Lz4,
            2 => options.compression = Compression::Zstd { level: 1 },
            3 => options.keys = Keys::none().write_with(id, key),
            _ => {}
        }
    }
    options
}

/// A log of three lives, the last one closed or killed (bit 0); how it lies there (bits 6 and 7).
fn base(which: u8) -> Faulty {
    static BASES: [OnceLock<[Faulty; 2]>; 4] = [const { OnceLock::new() }; 4];
    let how = which >> 6;
    let bases = BASES[usize::from(how)].get_or_init(|| {
        let mut disk = Faulty::new(1);
        for life in 0..3_u8 {
            let wal = Wal::open_on(Arc::new(disk.clone()), Path::new(DIR), at_rest(how)).unwrap();
            if matches!(how, 1 | 2) {
                // What fits into a page is not compressed.
                wal.append_wait(&[life; 5000]).unwrap();
            }
            wal.define(&[life; 5]).unwrap();
            for len in [3, 0, 90] {
                wal.append_wait(&vec![life; len][..]).unwrap();
            }
            wal.append_batch(&[[life; 9], [9; 9]])
                .unwrap()
                .wait()
                .unwrap();
            if life == 0 {
                wal.settle(SeqNo::ZERO..SeqNo::new(2), Class::Shipped);
            }
            if life == 2 {
                let killed = disk.kill();
                let closed = killed.copy();
                drop(wal);
                open(&closed).unwrap().close().unwrap();
                return [killed, closed];
            }
            wal.close().unwrap();
            disk = disk.copy();
        }
        unreachable!("the third life returns")
    });
    bases[usize::from(which & 1)].copy()
}

/// The file of the newest segment that holds records.
fn newest(disk: &Faulty) -> String {
    let segments = View::open_on(Arc::new(disk.clone()), Path::new(DIR))
        .unwrap()
        .segments();
    let with_records = segments.iter().rfind(|segment| segment.next > segment.base);
    let path = &with_records.unwrap().path;
    path.file_name().unwrap().to_str().unwrap().into()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Puts right what a frame at this place cannot be valid without.
fn seal_frame(bytes: &mut [u8], position: usize, (number, salt): (u64, u64)) {
    let len = u32_at(bytes, 48) as usize;
    if let Some(payload) = bytes.get(FRAME..FRAME.saturating_add(len)) {
        let crc = crc32fast::hash(payload);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    }
    let magic = u32_at(MAGIC, 0) ^ salt as u32;
    bytes[..4].copy_from_slice(&magic.to_le_bytes());
    let place = number << 26 | (position / FRAME) as u64;
    bytes[8..16].copy_from_slice(&place.to_le_bytes());
    let crc = crc32fast::hash(&[&salt.to_le_bytes()[..], &bytes[8..FRAME]].concat());
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Zeros change nothing: a fuzzer begins with what is valid.
fn change(bytes: &mut [u8], by: &[u8]) {
    for (byte, change) in bytes.iter_mut().zip(by) {
        *byte ^= change;
    }
}

/// Puts right the checksum that ends a page.
fn seal_page(page: &mut [u8]) {
    let crc = crc32fast::hash(&page[..PAGE - 4]);
    page[PAGE - 4..].copy_from_slice(&crc.to_le_bytes());
}

/// Number and salt of a segment's life.
fn life(disk: &Faulty, name: &str) -> (u64, u64) {
    let header = disk.bytes(name, 0, 72);
    (u64_at(&header, 56), u64_at(&header, 64))
}

/// Reads to the end, past all damage: in order, and within what fits.
fn drain(mut reader: Reader<Faulty>) -> Vec<(SeqNo, Bytes)> {
    let mut found: Vec<(SeqNo, Bytes)> = Vec::new();
    for _ in 0..1 << 16 {
        match reader.next() {
            Ok(Some(record)) => {
                assert!(found.last().is_none_or(|(last, _)| *last < record.seq));
                found.push((record.seq, record.payload));
            }
            Ok(None) => return found,
            Err(Error::Corrupt { .. }) => drop(reader.skip_damage().unwrap()),
            // A changed payload under a right checksum is as if it were under another key.
            Err(Error::Released { .. } | Error::Key { .. }) => return found,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a small log without an end")
}

/// Whether a slot may lie under a right checksum: then it counts records that never were.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cursor {
    Honest,
    Forged,
}

/// Whatever stands on the disk.
fn check(disk: &Faulty, cursor: Cursor) {
    let conserves = |totals: Totals| cursor == Cursor::Forged || totals.balances();
    if let Ok(view) = View::open_on(Arc::new(disk.clone()), Path::new(DIR)) {
        view.verify(&mut |_, _| ()).unwrap();
        drain(view.reader(view.marks().first));
        assert!(conserves(view.totals()));
    }
    let Ok(wal) = open(disk) else { return };
    let marks = wal.marks();
    assert!(marks.first <= marks.acked && marks.acked <= marks.durable);
    assert!(marks.durable <= marks.next);
    assert!(conserves(wal.totals()));
    drain(wal.reader(marks.first));
    let text = b"one more";
    let id = wal.define(text).unwrap();
    let seq = wal.append_wait(text).unwrap();
    assert!(seq >= marks.next);
    wal.close().unwrap();
    let wal = open(disk).unwrap();
    assert_eq!(
        id.and_then(|id| wal.definition(id)).as_deref(),
        id.map(|_| &text[..])
    );
    assert_eq!(drain(wal.reader(seq)), [(seq, Bytes::from_static(text))]);
    assert!(conserves(wal.totals()));
}

/// A change of one frame: which one, then of its header from the SeqNo on, then of its payload.
pub fn frame(data: &[u8]) {
    let [which, data @ ..] = data else { return };
    let disk = base(*which);
    let name = newest(&disk);
    let life = life(&disk, &name);
    let mut bytes = disk.bytes(&name, BODY as u64, 64 << 10);
    // So that every frame has a page behind it.
    bytes.resize(bytes.len().next_multiple_of(PAGE) + PAGE, 0);
    let magic = bytes[..4].to_vec();
    let frames: Vec<usize> = (0..bytes.len() - PAGE)
        .step_by(FRAME)
        .filter(|&at| bytes[at..].starts_with(&magic))
        .collect();
    let at = frames[usize::from(which >> 1 & 0x1f) % frames.len()];
    let page = &mut bytes[at..at + PAGE];
    change(&mut page[16..], data);
    seal_frame(page, BODY + at, life);
    disk.overwrite(&name, BODY as u64, &bytes);
    check(&disk, Cursor::Honest);
}

/// A change of the newest segment's body. Where a magic stands then, there stands a frame.
pub fn segment(data: &[u8]) {
    let [which, data @ ..] = data else { return };
    let disk = base(*which);
    let name = newest(&disk);
    let life = life(&disk, &name);
    let mut body = disk.bytes(&name, BODY as u64, data.len().clamp(64 << 10, 256 << 10));
    let magic = body[..4].to_vec();
    for at in (0..body.len()).step_by(FRAME) {
        if body[at..].starts_with(&magic) {
            body[at..at + 4].copy_from_slice(MAGIC);
        }
    }
    change(&mut body, data);
    for at in (0..body.len()).step_by(FRAME) {
        if body[at..].starts_with(MAGIC) {
            seal_frame(&mut body[at..], BODY + at, life);
        }
    }
    if which & 2 == 2 {
        // Nothing but the frames says what was promised.
        for name in CURSORS {
            disk.delete(name);
        }
    }
    disk.overwrite(&name, BODY as u64, &body);
    check(&disk, Cursor::Honest);
}

/// Changes to a directory, eight bytes each: what, which file, where, with which byte.
pub fn directory(data: &[u8]) {
    let [which, data @ ..] = data else { return };
    let disk = base(*which);
    for change in data.chunks_exact(8).take(16) {
        let mut names = disk.names("segment-");
        names.extend(disk.names("cursor-"));
        if names.is_empty() {
            break;
        }
        let pick = |at: usize| names[usize::from(change[at]) % names.len()].clone();
        let (name, position) = (pick(1), u64::from(u32_at(change, 2)) % (2 << 20));
        match change[0] % 9 {
            0 => disk.overwrite(&name, position, &change[6..7]),
            1 => disk.overwrite(&name, position & !0xfff, &[change[6]; PAGE]),
            2 => disk.set_file_len(&name, position),
            3 => disk.delete(&name),
            4 => disk.swap(&name, &pick(6)),
            5 => {
                let len = disk.file_len(&name);
                let copy = disk.bytes(&name, 0, len.min(1 << 20) as usize);
                disk.put(&format!("segment-{:08}", change[6]), &copy, len);
            }
            // A field of a header or a slot, under a right checksum, in one copy or in both.
            6..=8 => {
                for at in HEADERS.into_iter().take(1 + usize::from(change[0] & 1)) {
                    let mut page = disk.bytes(&name, at, PAGE);
                    if page.len() < PAGE {
                        continue;
                    }
                    let field = 8 + (position as usize % 32) * 8;
                    page[field + usize::from(change[7] & 7)] = change[6];
                    seal_page(&mut page);
                    disk.overwrite(&name, at, &page);
                }
            }
            _ => {}
        }
    }
    check(&disk, Cursor::Forged);
}

/// A change of the cursor's fields, in one slot or in both.
pub fn cursor(data: &[u8]) {
    let [which, data @ ..] = data else { return };
    let disk = base(which & 1);
    let mut page = disk.bytes(CURSORS[0], 0, PAGE);
    page[12..16].fill(0);
    change(&mut page[32..PAGE - 4], data);
    page[12] = which >> 4;
    if which & 2 == 2 {
        // What is settled is what the totals say.
        let above: u64 = page[256..]
            .chunks_exact(16)
            .take(usize::from(page[12]))
            .map(|run| u64_at(run, 8) >> 8)
            .fold(0, u64::wrapping_add);
        let below = u64_at(&page, 40).wrapping_sub(u64_at(&page, 88));
        let others = (1..8)
            .map(|class| u64_at(&page, 96 + 8 * class))
            .fold(0, u64::wrapping_add);
        let first = below.wrapping_add(above).wrapping_sub(others);
        page[96..104].copy_from_slice(&first.to_le_bytes());
    }
    seal_page(&mut page);
    for name in &CURSORS[usize::from(which & 4 == 4)..] {
        disk.put(name, &page, PAGE as u64);
    }
    check(&disk, Cursor::Forged);
}

/// A record as a message: what decodes is the same once it was encoded again.
pub fn message(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    let resolve = |id: u32| id.is_multiple_of(2).then(|| "even".into());
    let Ok(message) = codec::decode(&payload, 7, resolve) else {
        return;
    };
    let headers: Vec<Header<'_>> = message.headers().collect();
    let again = MessageRef {
        topic: &message.topic,
        lane: None,
        partition: message.partition,
        key: message.key.as_deref(),
        headers: &headers,
        timestamp_millis: Some(message.timestamp_millis),
        expires: message.expires,
        due: None,
        uptime: message.uptime,
        value: message.value.as_deref(),
    };
    let mut out = vec![0; codec::encoded_len(&again, codec::Topic::Inline)];
    codec::encode(&again, codec::Topic::Inline, &mut out);
    let same = codec::decode(&Bytes::from(out), 9, |_| None).unwrap();
    // The headers' own bytes may differ: a number has more than one encoding.
    assert!(same.headers().eq(message.headers()));
    let rest = |m: Message| (m.topic, m.partition, m.key, m.timestamp_millis, m.value);
    let times = |m: &Message| (m.expires, m.uptime);
    assert_eq!(times(&same), times(&message));
    assert_eq!(rest(same), rest(message));
}

/// An entry of the schedule log: what decodes is the same once it was written again.
pub fn schedule(data: &[u8]) {
    assert_ne!(
        store::reread_schedule(&Bytes::copy_from_slice(data)),
        Some(false)
    );
}
