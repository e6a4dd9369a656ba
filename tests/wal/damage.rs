//! Bytes on disk that are not what was written: rot, a stranger's hand, garbage.

use std::collections::BTreeSet;

use ferrylog::wal::{Class, Error, FindingKind, SeqNo, Verified};

use crate::common::{
    BODY, Records, append_all, append_apart, assert_no_engine_thread_panicked, assert_same,
    describe, drain, open, open_still, options, read_all, record, sized, try_open,
    try_open_strictly, view,
};
use crate::faulty::{Faulty, Kind};
use crate::random::{self, Random};

const PAGE: usize = 4096;
const HEADERS: [u64; 2] = [0, 64 << 10];
pub(crate) const SLOTS: [u64; 2] = [32 << 10, 96 << 10];
pub(crate) const CURSORS: [&str; 2] = ["cursor-a", "cursor-b"];

/// A log that was filled and closed: these records in this many segments.
fn closed(disk: &Faulty, count: u64) -> Records {
    let wal = open(disk);
    let records = append_all(&wal, 0..count);
    wal.close().unwrap();
    records
}

pub(crate) fn verify(disk: &Faulty) -> Verified {
    view(disk).unwrap().verify(&mut |_, _| ()).unwrap()
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Opening refuses where it is told to, and changes no file.
#[track_caller]
fn assert_refused_untouched(disk: &Faulty) -> Error {
    disk.clear_trace();
    let error = try_open_strictly(disk).expect_err("it must be refused");
    let changes = [Kind::Write, Kind::SetLen, Kind::Rename, Kind::Remove];
    let changed: Vec<_> = disk
        .trace()
        .into_iter()
        .filter(|op| changes.contains(&op.kind))
        .collect();
    assert!(changed.is_empty(), "{} operations", changed.len());
    error
}

/// Where the frames of this kind begin, by a walk over every place where one may.
pub(crate) fn frames(disk: &Faulty, name: &str, kind: u8) -> Vec<u64> {
    let bytes = disk.bytes(name, 0, disk.file_len(name) as usize);
    // A spare may be empty.
    let Some(magic) = bytes.get(BODY as usize..BODY as usize + 4) else {
        return Vec::new();
    };
    (BODY as usize..bytes.len())
        .step_by(64)
        .filter(|&at| &bytes[at..at + 4] == magic && bytes[at + 60] == kind)
        .map(|at| at as u64)
        .collect()
}

#[test]
fn f1_the_reserved_area_holds_two_equal_headers_the_slots_and_zeros() {
    let disk = Faulty::new(30);
    closed(&disk, 10);
    let name = disk.names("segment-").remove(0);
    let reserved = disk.bytes(&name, 0, BODY as usize);
    let [a, b] = HEADERS.map(|at| &reserved[at as usize..at as usize + PAGE]);
    assert!(a == b && a.starts_with(b"FERRYSEG"));
    let pages = [HEADERS, SLOTS].concat();
    let in_use = |at: u64| pages.iter().any(|&p| (p..p + PAGE as u64).contains(&at));
    let rest = (0..).zip(&reserved).filter(|(at, _)| !in_use(*at));
    assert_eq!(rest.filter(|(_, byte)| **byte != 0).count(), 0);

    // A byte that came into the zeros is found.
    assert!(verify(&disk).is_clean());
    disk.overwrite(&name, 40 << 10, &[1]);
    let found = verify(&disk).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, FindingKind::Corrupt);
    // No record is touched by it.
    assert_eq!(read_all(&open(&disk)).len(), 10);
}

#[test]
fn f2_f3_one_copy_of_a_header_is_enough_and_verify_names_the_other() {
    for copy in HEADERS {
        let disk = Faulty::new(31);
        let records = closed(&disk, 1000);
        for name in disk.names("segment-") {
            disk.overwrite(&name, copy + 80, &[0xa5]);
        }
        let verified = verify(&disk);
        assert!(!verified.is_clean());
        assert_eq!(verified.findings.len() as u64, verified.segments);
        assert_same(&read_all(&open(&disk)), &records);
    }
}

#[test]
fn f3_a_segment_without_any_header_is_missed_and_nothing_is_changed() {
    let disk = Faulty::new(32);
    closed(&disk, 1000);
    let mut missed = 0;
    for name in disk.names("segment-") {
        // A spare has no header to lose.
        if frames(&disk, &name, 1).is_empty() {
            continue;
        }
        let disk = disk.copy();
        for copy in HEADERS {
            disk.overwrite(&name, copy, &[0; PAGE]);
        }
        let error = assert_refused_untouched(&disk);
        assert!(
            matches!(error, Error::Corrupt { .. }),
            "{}",
            describe(&error)
        );
        missed += 1;
    }
    assert!(missed >= 2, "{missed} segments");
}

#[test]
fn f7_definitions_keep_their_ids_over_rotation_close_and_crash() {
    let mut disk = Faulty::new(33);
    let mut known: Vec<(u32, Vec<u8>)> = Vec::new();
    for life in 0..4u8 {
        let wal = open(&disk);
        for (id, text) in &known {
            assert_eq!(wal.definition(*id).unwrap(), text);
            assert_eq!(wal.define(text).unwrap(), Some(*id));
        }
        let text = vec![b'a' + life; 10 + usize::from(life)];
        let id = wal.define(&text).unwrap().unwrap();
        assert!(known.iter().all(|(other, _)| *other != id));
        known.push((id, text));
        for number in 0..30 {
            drop(wal.append(&sized(number, 50_000)).unwrap());
        }
        wal.sync().unwrap();
        if life % 2 == 0 {
            wal.close().unwrap();
        } else {
            disk = disk.kill();
        }
    }
    assert!(disk.names("segment-").len() > 4, "it rotated");
}

#[test]
fn f7_more_definitions_than_64_kib_are_declined_and_the_log_goes_on() {
    let disk = Faulty::new(34);
    let wal = open(&disk);
    let text = |n: u32| [&n.to_le_bytes()[..], &[b'x'; 996]].concat();
    let given = (0..100)
        .take_while(|n| wal.define(&text(*n)).unwrap().is_some())
        .count();
    assert!((60..66).contains(&given), "{given}");
    assert_eq!(wal.define(&text(0)).unwrap(), Some(0));
    append_all(&wal, 0..3);
    wal.close().unwrap();
    let wal = open(&disk);
    assert_eq!(wal.define(&text(99)).unwrap(), None);
    assert_eq!(wal.definition(1).unwrap(), text(1));
}

#[test]
fn r7_f8_a_damaged_seal_costs_no_record() {
    let disk = Faulty::new(35);
    let records = closed(&disk, 1000);
    let mut damaged = 0;
    for name in disk.names("segment-") {
        for seal in frames(&disk, &name, 3) {
            disk.overwrite(&name, seal + 64 + 8, &[0xff; 24]);
            damaged += 1;
        }
    }
    assert!(damaged >= 3, "{damaged} seals");
    assert_same(&read_all(&open(&disk)), &records);
    let viewed = view(&disk).unwrap();
    assert_same(&drain(viewed.reader(SeqNo::ZERO)).unwrap(), &records);
}

/// P5 and R9: what was promised and is damaged is corruption; what was not is a torn tail.
#[test]
fn r9_a_checksum_error_ends_the_log_only_where_nothing_was_promised() {
    let (mut corrupt, mut torn) = (0, 0);
    for at in 0..5 {
        let disk = Faulty::new(36);
        let wal = open_still(&disk, options()).unwrap();
        let records = append_apart(&wal, 0..5);
        let disk = disk.kill();
        drop(wal);
        let name = disk.names("segment-").remove(0);
        // The records were acknowledged one by one: a frame each.
        let frame = frames(&disk, &name, 1)[at];
        let last = disk.bytes(&name, frames(&disk, &name, 1)[4], 32);
        let saved = CURSORS.map(|name| u64_at(&disk.bytes(name, 72, 8), 0));
        let promised = saved.into_iter().max().unwrap().max(u64_at(&last, 24));
        disk.overwrite(&name, frame + 30, &[0xa5]);
        if at as u64 >= promised.min(4) && promised <= 4 {
            let wal = open(&disk);
            assert!(wal.opened().unproven_bytes > 0);
            assert_same(&read_all(&wal), &records[..at].to_vec());
            torn += 1;
        } else {
            let found = verify(&disk);
            assert!(
                found
                    .findings
                    .iter()
                    .any(|f| f.kind == FindingKind::Corrupt)
            );
            let error = assert_refused_untouched(&disk);
            let text = describe(&error);
            assert!(matches!(error, Error::Corrupt { .. }), "{text}");
            assert!(text.contains(&format!("record {at}")), "{text}");
            corrupt += 1;
        }
    }
    assert!(corrupt >= 4 && corrupt + torn == 5, "{corrupt} and {torn}");
}

#[test]
fn f9_one_damaged_slot_of_the_cursor_leaves_the_other() {
    for damaged in CURSORS {
        let disk = Faulty::new(37);
        let wal = open(&disk);
        append_all(&wal, 0..10);
        for end in [3, 5, 7] {
            wal.settle(SeqNo::ZERO..SeqNo::new(end), Class::Shipped);
            wal.save_cursor().unwrap();
        }
        let disk = disk.kill();
        let generation = |name| u64_at(&disk.bytes(name, 32, 8), 0);
        let newest = CURSORS.into_iter().max_by_key(|name| generation(name));
        disk.overwrite(damaged, 100, &[0xa5]);
        let wal = open(&disk);
        assert!(!wal.opened().cursor_lost);
        let shipped = wal.totals().shipped;
        assert!(wal.totals().balances());
        // The older one may be a step behind: what it does not know is shipped again.
        let expected = if newest == Some(damaged) {
            5..=7
        } else {
            7..=7
        };
        assert!(expected.contains(&shipped), "{shipped}");
        assert_eq!(wal.totals().queued, 10 - shipped);
    }
}

/// Row M.
#[test]
fn f9_without_any_cursor_the_frames_say_what_was_settled_and_it_counts_as_unknown() {
    let disk = Faulty::new(38);
    let wal = open(&disk);
    append_all(&wal, 0..10);
    wal.settle(SeqNo::ZERO..SeqNo::new(6), Class::Shipped);
    // The next frame carries the mark.
    append_all(&wal, 10..11);
    let disk = disk.kill();
    for name in CURSORS {
        disk.overwrite(name, 0, &[0xa5; 8]);
    }
    let wal = open(&disk);
    assert!(wal.opened().cursor_lost);
    let totals = wal.totals();
    assert!(totals.balances(), "{totals:?}");
    assert_eq!((totals.unknown, totals.queued), (6, 5), "{totals:?}");
    assert!(wal.marks().next.get() >= 1 << 32, "no number twice");
}

#[test]
fn f10_a_slot_whose_totals_do_not_add_up_is_invalid() {
    let disk = Faulty::new(39);
    let wal = open(&disk);
    append_all(&wal, 0..10);
    wal.settle(SeqNo::ZERO..SeqNo::new(4), Class::Shipped);
    wal.save_cursor().unwrap();
    wal.save_cursor().unwrap();
    let disk = disk.kill();
    for name in CURSORS {
        let mut page = disk.bytes(name, 0, PAGE);
        // One more was shipped, it says, and its checksum is right.
        page[96] += 1;
        let crc = crc32fast::hash(&page[..PAGE - 4]).to_le_bytes();
        page[PAGE - 4..].copy_from_slice(&crc);
        disk.overwrite(name, 0, &page);
    }
    assert!(open(&disk).opened().cursor_lost);
}

/// Row N.
#[test]
fn files_of_another_log_are_named_and_nothing_is_changed() {
    let (disk, other) = (Faulty::new(40), Faulty::new(41));
    closed(&disk, 10);
    closed(&other, 10);
    let name = other.names("segment-").remove(0);
    let len = other.file_len(&name);
    disk.put(
        "segment-99999999",
        &other.bytes(&name, 0, len as usize),
        len,
    );
    let error = assert_refused_untouched(&disk);
    assert!(
        matches!(&error, Error::ForeignLog { path, .. } if path.ends_with("segment-99999999")),
        "{}",
        describe(&error)
    );
}

/// A header whose checksum is right, and whose numbers are absurd.
#[test]
fn r12_numbers_that_no_log_reaches_are_damage() {
    let fields = [
        (56, u64::MAX),
        (56, (1 << 38) - 1),
        (72, 1 << 62),
        (88, u64::MAX),
        (104, u64::MAX),
    ];
    for (field, value) in fields {
        for cursor_lost in [false, true] {
            let disk = Faulty::new(43);
            let records = closed(&disk, 10);
            let name = disk.names("segment-").remove(0);
            for copy in HEADERS {
                let mut page = disk.bytes(&name, copy, PAGE);
                page[field..field + 8].copy_from_slice(&u64::to_le_bytes(value));
                let crc = crc32fast::hash(&page[..PAGE - 4]).to_le_bytes();
                page[PAGE - 4..].copy_from_slice(&crc);
                disk.overwrite(&name, copy, &page);
            }
            if cursor_lost {
                for name in CURSORS {
                    disk.overwrite(name, 0, &[0; PAGE]);
                }
            }
            if let Ok(viewed) = view(&disk) {
                let _ = viewed.verify(&mut |_, _| ());
            }
            if cursor_lost {
                let error = assert_refused_untouched(&disk);
                let text = describe(&error);
                assert!(matches!(error, Error::Corrupt { .. }), "{text}");
            } else {
                // The header is not believed; the cursor names the life that the start frame tells.
                let wal = try_open_strictly(&disk).unwrap();
                assert_same(&read_all(&wal), &records);
            }
        }
    }
}

#[test]
fn a_reader_passes_over_damage_to_every_whole_frame() {
    let disk = Faulty::new(44);
    let wal = open(&disk);
    let records = append_apart(&wal, 0..200);
    wal.close().unwrap();
    let name = disk.names("segment-").remove(0);
    let damaged = [20, 21, 50].map(|at| frames(&disk, &name, 1)[at]);
    for frame in damaged {
        disk.overwrite(&name, frame + 70, &[0xa5; 2]);
    }
    let viewed = view(&disk).unwrap();
    let mut reader = viewed.reader(SeqNo::ZERO);
    let (mut found, mut passed) = (Records::new(), Vec::new());
    loop {
        match reader.next() {
            Ok(Some(record)) => found.push((record.seq, record.payload.to_vec())),
            Ok(None) => break,
            Err(Error::Corrupt { .. }) => passed.push(reader.skip_damage().unwrap()),
            Err(error) => panic!("{}", describe(&error)),
        }
    }
    let seqs = |range: std::ops::Range<SeqNo>| range.start.get()..range.end.get();
    let passed: Vec<u64> = passed.into_iter().flat_map(seqs).collect();
    assert_eq!(passed, [20, 21, 50]);
    let mut whole = records;
    whole.retain(|(seq, _)| !passed.contains(&seq.get()));
    assert_same(&found, &whole);
}

/// One change that no program of ours makes.
fn damage(disk: &Faulty, random: &mut Random) {
    let mut names = disk.names("segment-");
    names.extend(disk.names("cursor-"));
    if names.is_empty() {
        return;
    }
    let one = |random: &mut Random| names[random.below(names.len() as u64) as usize].clone();
    let name = one(random);
    let len = disk.file_len(&name);
    let position = if random.one_in(2) {
        // Where it hurts: headers, cursor fields, the first frames.
        [0, 64 << 10, BODY, BODY + 4096][random.below(4) as usize] + random.below(256)
    } else {
        random.below(len.max(1))
    };
    match random.below(10) {
        0..4 => disk.overwrite(&name, position, &random.next().to_le_bytes()[..1]),
        4 => disk.overwrite(&name, position, &[0xff; 8]),
        5 => disk.overwrite(&name, position & !0xfff, &[0; PAGE]),
        6 => {
            let garbage: Vec<u8> = (0..PAGE).map(|_| random.next() as u8).collect();
            disk.overwrite(&name, position, &garbage);
        }
        7 => disk.set_file_len(&name, random.below(2 * len + 1)),
        8 => disk.swap(&name, &one(random)),
        _ => disk.delete(&name),
    }
}

#[test]
fn r12_whatever_stands_on_disk_is_refused_or_read_and_never_a_panic() {
    let seed = random::seed();
    let mut outcomes = [0; 2];
    for round in 0..200 {
        let mut random = Random(seed ^ round);
        let mut disk = Faulty::new(seed ^ round);
        let wal = open(&disk);
        for number in 0..random.below(60) {
            drop(wal.append(&sized(number, 40_000)).unwrap());
        }
        let durable = wal.sync().unwrap();
        wal.settle(SeqNo::ZERO..SeqNo::new(durable.get() / 3), Class::Shipped);
        disk = if random.one_in(2) {
            wal.close().unwrap();
            disk.copy()
        } else {
            disk.kill()
        };
        for _ in 0..1 + random.below(4) {
            damage(&disk, &mut random);
        }
        if let Ok(viewed) = view(&disk) {
            // Both may find damage; neither may panic, hang or invent.
            let _ = viewed.verify(&mut |_, _| ());
            let _ = drain(viewed.reader(viewed.marks().first));
        }
        let strict = random.one_in(2);
        let opened = if strict {
            try_open_strictly(&disk)
        } else {
            try_open(&disk)
        };
        outcomes[usize::from(opened.is_ok())] += 1;
        if let Ok(wal) = opened {
            assert!(wal.totals().balances(), "round {round}");
            for (seq, bytes) in drain(wal.reader(wal.marks().first)).unwrap_or_default() {
                assert!(bytes == sized(seq.get(), 40_000), "round {round}: {seq}");
            }
            wal.append_wait(&record(1)).unwrap();
        }
    }
    println!("{} refused, {} opened", outcomes[0], outcomes[1]);
    assert!(outcomes.iter().all(|&count| count > 5), "{outcomes:?}");
    assert_no_engine_thread_panicked();
}

/// A length that reaches to the end of the world is no reason to allocate it.
#[test]
fn r12_garbage_behind_a_right_header_is_a_tail() {
    let disk = Faulty::new(42);
    let wal = open(&disk);
    append_apart(&wal, 0..3);
    let disk = disk.kill();
    let name = disk.names("segment-").remove(0);
    let last = *frames(&disk, &name, 1).last().unwrap();
    let next = (last + 8192) & !0xfff;
    let magic = disk.bytes(&name, last, 4);
    let mut garbage = vec![0xff; 64];
    garbage[..4].copy_from_slice(&magic);
    disk.overwrite(&name, next, &garbage);
    let seqs: BTreeSet<u64> = read_all(&open(&disk))
        .iter()
        .map(|(seq, _)| seq.get())
        .collect();
    assert_eq!(seqs, BTreeSet::from([0, 1, 2]));
}
