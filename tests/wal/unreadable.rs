//! Pages that the disk does not give any more (row K): each costs the frames that lie on it, it is told
//! as what it is, and the file is kept.

use std::ops::Range;

use ferrylog::wal::{Cause, Class, Error, FindingKind, SeqNo};

use crate::common::{
    BODY, Records, append_all, append_sized, assert_no_engine_thread_panicked, assert_same,
    describe, drain, drain_past_damage, open, read_all, sized, try_open_strictly, until, view,
    write_sized,
};
use crate::damage::{CURSORS, frames, u64_at, verify};
use crate::faulty::{Faulty, Kind, PAGE};
use crate::repair::{assert_gap, killed, long, lose_cursors, numbers, without};

/// The numbers in the frames that lie on a page.
pub(crate) fn numbers_on(disk: &Faulty, name: &str, page: u64) -> Vec<Range<u64>> {
    let frames = frames(disk, name, 1).into_iter().map(|at| {
        let header = disk.bytes(name, at, 64);
        let payload = u64::from(u32::from_le_bytes(header[48..52].try_into().unwrap()));
        let count = u64::from(u32::from_le_bytes(header[56..60].try_into().unwrap()));
        let first = u64_at(&header, 16);
        (at..at + 64 + payload, first..first + count)
    });
    let bytes = page * PAGE..(page + 1) * PAGE;
    frames
        .filter(|(at, _)| at.start < bytes.end && bytes.start < at.end)
        .map(|(_, numbers)| numbers)
        .collect()
}

/// A hundred records in some segments, all promised, and the segments' names.
fn named(seed: u64) -> (Faulty, Records, Vec<String>) {
    let (disk, records) = long(seed, 100);
    let segments = view(&disk).unwrap().segments();
    assert!(segments.len() >= 5, "{} segments", segments.len());
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let names = segments.iter().map(|segment| name(&segment.path)).collect();
    (disk, records, names)
}

#[test]
fn an_unreadable_page_costs_the_frames_that_lie_on_it() {
    let (disk, records) = killed(70);
    let name = disk.names("segment-").remove(0);
    let last = frames(&disk, &name, 1)[9] / PAGE;
    let mut met = 0;
    for page in BODY / PAGE + 1..=last {
        let disk = disk.copy();
        let on_page = numbers_on(&disk, &name, page);
        disk.make_unreadable(&name, page);
        if let [numbers] = &on_page[..] {
            let kept = without(&records, numbers.clone());
            assert_gap(disk, numbers.clone(), Cause::Unreadable, &kept);
            met += 1;
        }
    }
    assert!(met >= 10, "{met} pages");
}

/// At or above W: nothing says that it was promised, but no torn write looks like this.
#[test]
fn an_unreadable_end_is_told_and_kept_whole_and_is_no_torn_tail() {
    let (disk, records) = killed(71);
    lose_cursors(&disk);
    let name = disk.names("segment-").remove(0);
    let last = frames(&disk, &name, 1)[9];
    disk.make_unreadable(&name, last / PAGE);
    let len = disk.file_len(&name);

    let error = try_open_strictly(&disk).expect_err("it is refused");
    assert!(matches!(error, Error::Corrupt { position, .. } if position == last));
    let found = verify(&disk).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, FindingKind::Unreadable);
    assert_eq!((found[0].position, &found[0].seqs), (last, &None));

    for life in 0..2 {
        let wal = open(&disk);
        assert_same(&read_all(&wal), &without(&records, 9..10));
        assert_eq!(wal.totals().lost, 0, "it was not promised");
        assert_eq!(disk.file_len(&name), len, "nothing was cut");
        let gaps = &wal.opened().gaps;
        if life == 0 {
            assert_eq!(numbers(gaps), [(9, 9)]);
            assert_eq!((gaps[0].cause, gaps[0].position), (Cause::Unreadable, last));
        } else {
            assert_eq!(gaps[..], [], "it is told once");
        }
    }
}

/// What can be read behind it counts: the page is why the frames stop, and not a write that was torn.
#[test]
fn frames_behind_an_unreadable_page_are_kept_promised_or_not() {
    let disk = Faulty::new(72);
    let wal = open(&disk);
    append_sized(&wal, 0..5, 5000);
    write_sized(&wal, 5..9, 40_000);
    let disk = disk.kill();
    lose_cursors(&disk);
    let name = disk.names("segment-").remove(0);
    disk.make_unreadable(&name, frames(&disk, &name, 1)[6] / PAGE + 2);
    for _ in 0..2 {
        let wal = open(&disk);
        let found: Vec<u64> = read_all(&wal).iter().map(|(seq, _)| seq.get()).collect();
        assert_eq!(found, [0, 1, 2, 3, 4, 5, 7, 8]);
        assert_eq!((wal.totals().lost, wal.totals().queued), (1, 8));
        assert!(wal.totals().balances());
    }
}

/// Nothing was ever written behind a seal.
#[test]
fn an_unreadable_page_behind_a_clean_end_is_no_loss() {
    let disk = Faulty::new(73);
    let wal = open(&disk);
    let records = append_all(&wal, 0..10);
    wal.close().unwrap();
    let name = disk.names("segment-").remove(0);
    let seal = *frames(&disk, &name, 3).last().unwrap();
    disk.make_unreadable(&name, seal / PAGE + 1);
    let wal = try_open_strictly(&disk).unwrap();
    assert!(wal.opened().clean && wal.opened().gaps.is_empty());
    assert_same(&read_all(&wal), &records);
}

#[test]
fn one_readable_copy_of_a_header_is_enough_and_the_file_does_not_live_again() {
    let (disk, records, names) = named(74);
    for copy in [0, (64 << 10) / PAGE] {
        let disk = disk.copy();
        for name in &names {
            disk.make_unreadable(name, copy);
        }
        let found = verify(&disk).findings;
        assert_eq!(found.len(), names.len(), "{found:?}");
        let unreadable = |found: &ferrylog::wal::Finding| {
            found.kind == FindingKind::Unreadable && found.position == copy * PAGE
        };
        assert!(found.iter().all(unreadable), "{found:?}");
        let wal = try_open_strictly(&disk).unwrap();
        assert_same(&read_all(&wal), &records);

        disk.clear_trace();
        wal.settle(SeqNo::ZERO..wal.marks().durable, Class::Shipped);
        until("release", || wal.marks().first.get() >= 100);
        until("removal", || {
            names.iter().all(|name| !disk.names("").contains(name))
        });
        let written = |name: &String| {
            let trace = disk.trace();
            trace
                .iter()
                .any(|op| op.kind == Kind::Write && op.name == *name)
        };
        assert!(!names.iter().any(written), "nothing is written into it");
    }
}

/// Rows G and H: the start frame is the header.
#[test]
fn a_segment_with_two_unreadable_headers_is_told_by_its_start_frame() {
    let (disk, records, names) = named(75);
    for cursor in [true, false] {
        for name in &names {
            let mut disk = disk.copy();
            for page in [0, (64 << 10) / PAGE] {
                disk.make_unreadable(name, page);
            }
            if !cursor {
                lose_cursors(&disk);
            }
            for life in 0..3 {
                let at = format!("{name}, cursor {cursor}, life {life}");
                let wal =
                    try_open_strictly(&disk).unwrap_or_else(|e| panic!("{at}: {}", describe(&e)));
                assert_same(&read_all(&wal), &records);
                disk = disk.kill();
            }
        }
    }
}

/// Nobody knows what is in it: it is neither live nor a spare, and it stays.
#[test]
fn a_file_that_tells_nothing_is_left_alone() {
    let (disk, _, names) = named(76);
    for page in [0, (64 << 10) / PAGE, BODY / PAGE] {
        disk.make_unreadable(&names[2], page);
    }
    let before = disk.bytes(&names[2], 0, BODY as usize);
    for _ in 0..3 {
        let wal = open(&disk);
        wal.append_wait(&sized(1, 400_000)).unwrap();
        wal.append_wait(&sized(2, 400_000)).unwrap();
        wal.append_wait(&sized(3, 400_000)).unwrap();
        assert!(wal.totals().balances() && wal.totals().lost > 0);
        drop(wal);
        assert!(disk.bytes(&names[2], 0, BODY as usize) == before);
    }
}

/// Row M, for one slot and for both. What cannot be read is replaced, and not written to.
#[test]
fn an_unreadable_cursor_slot_is_a_bad_one() {
    for lost in [&CURSORS[..1], &CURSORS[1..], &CURSORS[..]] {
        let disk = Faulty::new(77);
        let wal = open(&disk);
        let records = append_all(&wal, 0..10);
        wal.settle(SeqNo::ZERO..SeqNo::new(4), Class::Shipped);
        wal.save_cursor().unwrap();
        wal.save_cursor().unwrap();
        append_all(&wal, 10..11);
        let disk = disk.kill();
        for name in lost {
            disk.make_unreadable(name, 0);
        }
        disk.clear_trace();
        let wal = open(&disk);
        assert_eq!(wal.opened().cursor_lost, lost.len() == 2);
        assert!(wal.totals().balances());
        let totals = wal.totals();
        assert_eq!(totals.shipped + totals.unknown, 4, "{totals:?}");
        assert_same(&read_all(&wal)[..10].to_vec(), &records);
        wal.save_cursor().unwrap();
        wal.save_cursor().unwrap();
        for name in lost {
            let trace = disk.trace();
            let of = |kind| {
                trace
                    .iter()
                    .position(|op| op.kind == kind && op.name == **name)
            };
            let replaced = of(Kind::Rename).unwrap();
            assert!(of(Kind::Write).is_none_or(|written| replaced < written));
        }
    }
}

/// The copy is the region with its readable pages, and zeros where the others were.
#[test]
fn what_can_be_read_of_a_region_is_copied() {
    let disk = Faulty::new(78);
    let wal = open(&disk);
    for number in 0..4 {
        wal.append_wait(&sized(number, 20_000)).unwrap();
    }
    wal.save_cursor().unwrap();
    let disk = disk.kill();
    let name = disk.names("segment-").remove(0);
    let frame = frames(&disk, &name, 1)[2];
    let mut region = disk.bytes(&name, frame, 5 * PAGE as usize);
    disk.make_unreadable(&name, frame / PAGE + 2);
    region[2 * PAGE as usize..3 * PAGE as usize].fill(0);
    let wal = open(&disk);
    assert_eq!(numbers(&wal.opened().gaps), [(2, 3)]);
    let path = wal.opened().gaps[0].quarantine().unwrap();
    let copy = path.file_name().unwrap().to_str().unwrap();
    assert!(disk.bytes(copy, 0, 1 << 20) == region);
}

/// A neighbour of a hole in the chain is scanned, too.
#[test]
fn an_unreadable_page_in_front_of_a_missing_segment_is_a_gap_of_its_own() {
    let (disk, records, names) = named(79);
    let segments = view(&disk).unwrap().segments();
    disk.delete(&names[2]);
    let frame = frames(&disk, &names[1], 1)[5];
    disk.make_unreadable(&names[1], frame / PAGE + 1);
    let damaged = segments[1].base.get() + 5;
    let missing = segments[2].base.get()..segments[2].next.get();
    let wal = open(&disk);
    let gaps = &wal.opened().gaps;
    assert_eq!(
        numbers(gaps),
        [(damaged, damaged + 1), (missing.start, missing.end)]
    );
    assert_eq!(gaps[0].cause, Cause::Unreadable);
    assert_eq!(gaps[1].cause, Cause::MissingSegment);
    let kept = without(&without(&records, damaged..damaged + 1), missing);
    assert_same(&read_all(&wal), &kept);
}

/// Opening does not scan a sealed segment: its reader says what is wrong, and `verify`.
#[test]
fn a_reader_names_an_unreadable_page_and_passes_to_the_next_frame() {
    let (disk, records, names) = named(80);
    let segment = &view(&disk).unwrap().segments()[1];
    let frame = frames(&disk, &names[1], 1)[3];
    disk.make_unreadable(&names[1], frame / PAGE + 4);
    let seq = segment.base.get() + 3;
    let found = verify(&disk).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, FindingKind::Unreadable);
    let lost = SeqNo::new(seq)..SeqNo::new(seq + 1);
    assert_eq!(found[0].seqs, Some(lost.clone()));

    let wal = open(&disk);
    let error = drain(wal.reader(SeqNo::ZERO)).expect_err("it cannot be read");
    assert!(matches!(error, Error::Corrupt { position, .. } if position == frame));
    let (kept, passed) = drain_past_damage(wal.reader(SeqNo::ZERO)).unwrap();
    assert_eq!(passed, [lost]);
    assert_same(&kept, &without(&records, seq..seq + 1));
    let (kept, _) = drain_past_damage(view(&disk).unwrap().reader(SeqNo::ZERO)).unwrap();
    assert_same(&kept, &without(&records, seq..seq + 1));
}

/// A disk that gives nothing of the newest segment costs two reads a page and scan, and no record of the
/// others.
#[test]
fn a_segment_that_cannot_be_read_at_all_costs_its_records_and_bounded_time() {
    let (disk, records, names) = named(81);
    let newest = names.last().unwrap();
    let pages = disk.file_len(newest).div_ceil(PAGE);
    for page in 0..pages {
        disk.make_unreadable(newest, page);
    }
    disk.clear_trace();
    let wal = open(&disk);
    let trace = disk.trace();
    let reads = trace
        .iter()
        .filter(|op| op.kind == Kind::Read && op.name == *newest);
    let reads = reads.count() as u64;
    assert!(reads < 8 * pages, "{reads} reads of {pages} pages");
    let found = read_all(&wal);
    assert_same(&found, &records[..found.len()].to_vec());
    assert_eq!(wal.totals().lost, 100 - found.len() as u64);
    assert!(wal.totals().balances());
    assert_no_engine_thread_panicked();
}
