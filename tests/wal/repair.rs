//! Promised records that are gone: the log opens without them, says so, and keeps what is left of them.

use ferrylog::wal::{Cause, Class, Error, FindingKind, Gap, SeqNo, Wal};

use crate::common::{
    Records, append_all, append_apart, append_sized, assert_no_engine_thread_panicked, assert_same,
    describe, drain, open, read_all, record, sized, try_open_strictly, until, view, write_sized,
};
use crate::crash::recover_halfway;
use crate::damage::{CURSORS, frames, verify};
use crate::faulty::{Faulty, Survivors};

/// A log of ten records, each acknowledged alone and each promised by the cursor, whose process was
/// killed.
pub(crate) fn killed(seed: u64) -> (Faulty, Records) {
    let disk = Faulty::new(seed);
    let wal = open(&disk);
    let records = append_apart(&wal, 0..10);
    wal.save_cursor().unwrap();
    wal.save_cursor().unwrap();
    (disk.kill(), records)
}

/// So many records in several segments, each promised by the cursor; the process was killed.
pub(crate) fn long(seed: u64, count: u64) -> (Faulty, Records) {
    let disk = Faulty::new(seed);
    let wal = open(&disk);
    let records = append_sized(&wal, 0..count, 50_000);
    wal.save_cursor().unwrap();
    wal.save_cursor().unwrap();
    (disk.kill(), records)
}

pub(crate) fn without(records: &Records, lost: std::ops::Range<u64>) -> Records {
    let kept = records.iter().filter(|(seq, _)| !lost.contains(&seq.get()));
    kept.cloned().collect()
}

pub(crate) fn lose_cursors(disk: &Faulty) {
    for name in CURSORS {
        disk.overwrite(name, 0, &[0xa5; 8]);
    }
}

pub(crate) fn numbers(gaps: &[Gap]) -> Vec<(u64, u64)> {
    let numbers = |gap: &Gap| (gap.seqs.start.get(), gap.seqs.end.get());
    gaps.iter().map(numbers).collect()
}

/// The gap is there at once, at the next opening, and after both cursors are lost; readers pass it,
/// and a strict opening takes it as known.
#[track_caller]
pub(crate) fn assert_gap(
    mut disk: Faulty,
    lost: std::ops::Range<u64>,
    cause: Cause,
    kept: &Records,
) {
    let before = disk.copy();
    let error = try_open_strictly(&before).expect_err("it is not known yet");
    assert!(
        matches!(error, Error::Corrupt { .. }),
        "{}",
        describe(&error)
    );
    assert!(view(&disk).unwrap().damage().is_some());
    assert!(!verify(&disk).is_clean());

    let wal = open(&disk);
    let opened = wal.opened().clone();
    assert_eq!(numbers(&opened.gaps), [(lost.start, lost.end)], "{opened}");
    assert_eq!(opened.gaps[0].cause, cause);
    assert!(opened.to_string().contains("lost"), "{opened}");
    assert_same(&read_all(&wal), kept);
    let check = |wal: &Wal<Faulty>, what: &str| {
        let totals = wal.totals();
        assert!(totals.balances(), "{what}: {totals:?}");
        assert_eq!(totals.lost, lost.end - lost.start, "{what}: {totals:?}");
        assert_eq!(totals.queued, kept.len() as u64, "{what}: {totals:?}");
    };
    check(&wal, "at once");
    drop(wal);
    for life in ["closed", "killed", "without a cursor"] {
        if life == "without a cursor" {
            lose_cursors(&disk);
        }
        let viewed = view(&disk).unwrap();
        assert!(viewed.damage().is_none(), "{life}");
        assert_eq!(viewed.totals().lost, lost.end - lost.start, "{life}");
        assert_same(&drain(viewed.reader(SeqNo::ZERO)).unwrap(), kept);
        let verified = verify(&disk);
        assert!(verified.is_clean(), "{life}: {:?}", verified.findings);
        let wal = try_open_strictly(&disk).unwrap_or_else(|e| panic!("{life}: {}", describe(&e)));
        assert_eq!(wal.opened().gaps, [], "{life}");
        check(&wal, life);
        assert_same(&read_all(&wal), kept);
        disk = disk.kill();
    }
    // It goes on, and what is lost holds nothing up.
    let wal = open(&disk);
    append_all(&wal, 100..103);
    wal.settle(SeqNo::ZERO..wal.marks().durable, Class::Shipped);
    let totals = wal.totals();
    assert_eq!(wal.marks().acked, wal.marks().durable);
    assert_eq!(totals.lost, lost.end - lost.start, "{totals:?}");
    assert_eq!(totals.queued, 0, "{totals:?}");
    until("release", || wal.marks().first.get() >= lost.end);
    assert!(wal.totals().balances());
    assert_no_engine_thread_panicked();
}

/// Row D.
#[test]
fn a_damaged_frame_costs_itself_alone_and_its_bytes_are_kept() {
    for at in 0..9 {
        let (disk, records) = killed(50);
        let name = disk.names("segment-").remove(0);
        let frame = frames(&disk, &name, 1)[at];
        disk.overwrite(&name, frame + [4, 30, 70][at % 3], &[0xa5; 3]);
        let damaged = disk.bytes(&name, frame, 64);

        let opened = open(&disk.copy()).opened().clone();
        let path = opened.gaps[0].quarantine().unwrap();
        let copied = disk.copy();
        drop(open(&copied));
        let copy = copied.bytes(path.file_name().unwrap().to_str().unwrap(), 0, 64);
        assert!(copy == damaged, "the copy begins as the region does");

        let lost = at as u64..at as u64 + 1;
        assert_gap(disk, lost.clone(), Cause::Damaged, &without(&records, lost));
    }
}

/// Row E: what was promised goes up to where it was promised.
#[test]
fn a_damaged_last_frame_is_lost_up_to_the_last_promise() {
    for first in 7..10 {
        let (disk, records) = killed(51);
        let name = disk.names("segment-").remove(0);
        for frame in &frames(&disk, &name, 1)[first..] {
            disk.overwrite(&name, *frame, &[0xa5; 64]);
        }
        let lost = first as u64..10;
        assert_gap(disk, lost.clone(), Cause::Damaged, &without(&records, lost));
    }
}

/// Nothing that was promised lies between: it goes on there.
#[test]
fn a_frame_that_begins_where_the_promise_ends_is_kept() {
    let disk = Faulty::new(52);
    let wal = open(&disk);
    append_apart(&wal, 0..4);
    let disk = disk.kill();
    lose_cursors(&disk);
    let name = disk.names("segment-").remove(0);
    // The last frame promises what is before it, and nobody promises the last frame.
    disk.overwrite(&name, frames(&disk, &name, 1)[2] + 70, &[0xa5; 3]);
    let wal = open(&disk);
    assert_eq!(numbers(&wal.opened().gaps), [(2, 3)]);
    let found: Vec<u64> = read_all(&wal).iter().map(|(seq, _)| seq.get()).collect();
    assert_eq!(found, [0, 1, 3]);
}

/// Row E with frames behind: above the promise nothing is lost, and nothing is kept behind damage.
#[test]
fn a_frame_behind_the_promise_is_cut_and_not_lost() {
    let disk = Faulty::new(59);
    let wal = open(&disk);
    append_apart(&wal, 0..5);
    write_sized(&wal, 5..9, 40_000);
    let disk = disk.kill();
    lose_cursors(&disk);
    let name = disk.names("segment-").remove(0);
    for frame in &frames(&disk, &name, 1)[4..6] {
        disk.overwrite(&name, frame + 20, &[0xa5; 3]);
    }
    let wal = open(&disk);
    assert_eq!(numbers(&wal.opened().gaps), [(4, 5)]);
    assert!(wal.opened().unproven_bytes > 0, "{}", wal.opened());
    let found: Vec<u64> = read_all(&wal).iter().map(|(seq, _)| seq.get()).collect();
    assert_eq!(found, [0, 1, 2, 3]);
    assert_eq!((wal.totals().lost, wal.totals().queued), (1, 4));
}

#[test]
fn many_damaged_frames_are_many_gaps_and_neighbours_one() {
    let (disk, records) = killed(53);
    let name = disk.names("segment-").remove(0);
    let all = frames(&disk, &name, 1);
    for at in [1, 4, 5, 7] {
        disk.overwrite(&name, all[at] + 20, &[0xa5; 3]);
    }
    let wal = open(&disk);
    assert_eq!(numbers(&wal.opened().gaps), [(1, 2), (4, 6), (7, 8)]);
    let kept = [0, 2, 3, 6, 8, 9].map(|at: usize| records[at].clone());
    assert_same(&read_all(&wal), &kept.to_vec());
    assert_eq!(wal.totals().lost, 4);
}

/// What was settled before the damage was found keeps its outcome.
#[test]
fn a_record_that_was_shipped_before_it_was_damaged_is_not_lost() {
    let disk = Faulty::new(54);
    let wal = open(&disk);
    append_apart(&wal, 0..10);
    wal.settle(SeqNo::ZERO..SeqNo::new(2), Class::Shipped);
    wal.settle(SeqNo::new(5)..SeqNo::new(6), Class::DeadLettered);
    wal.save_cursor().unwrap();
    let disk = disk.kill();
    let name = disk.names("segment-").remove(0);
    for frame in &frames(&disk, &name, 1)[1..7] {
        disk.overwrite(&name, *frame, &[0xa5; 64]);
    }
    for _ in 0..2 {
        let wal = open(&disk);
        let totals = wal.totals();
        assert!(totals.balances());
        assert_eq!((totals.shipped, totals.dead_lettered), (2, 1));
        assert_eq!((totals.lost, totals.queued), (4, 3), "{totals:?}");
        assert_eq!(wal.marks().acked, SeqNo::new(7));
    }
}

/// Row O: a crash at any operation of a repair, and again in the next one, changes nothing.
#[test]
fn a_repair_that_is_cut_short_anywhere_ends_the_same_the_next_time() {
    let (disk, records) = killed(55);
    let name = disk.names("segment-").remove(0);
    let all = frames(&disk, &name, 1);
    disk.overwrite(&name, all[3] + 20, &[0xa5; 3]);
    disk.overwrite(&name, all[9] + 20, &[0xa5; 3]);
    let kept = without(&without(&records, 3..4), 9..10);
    let complete = disk.copy();
    complete.clear_trace();
    drop(open(&complete));
    let operations = complete.trace().len();
    assert!(operations > 40, "{operations} operations");
    for operation in 0..operations {
        for survivors in [Survivors::None, Survivors::All, Survivors::Some] {
            let disk = recover_halfway(&disk.copy(), operation);
            disk.lose_power(survivors);
            let disk = recover_halfway(&disk, operations - operation);
            disk.lose_power(survivors);
            let wal = open(&disk);
            let at = format!("operation {operation}, {survivors:?}");
            assert_same(&read_all(&wal), &kept);
            let totals = wal.totals();
            assert!(totals.balances(), "{at}");
            assert_eq!((totals.lost, totals.queued), (2, 8), "{at}: {totals:?}");
            drop(wal);
            let verified = verify(&disk);
            assert!(verified.is_clean(), "{at}: {:?}", verified.findings);
            let lost = |found: &&ferrylog::wal::Finding| found.kind == FindingKind::Lost;
            assert_eq!(verified.findings.iter().filter(lost).count(), 2, "{at}");
        }
    }
    assert_no_engine_thread_panicked();
}

/// An id whose definition was lost is not given to something else: records that use it are still there.
#[test]
fn f7_an_id_that_may_have_been_lost_is_not_given_again() {
    let disk = Faulty::new(56);
    let wal = open(&disk);
    assert_eq!(wal.define(b"first").unwrap(), Some(0));
    append_all(&wal, 0..2);
    let lost = wal.define(b"lost").unwrap().unwrap();
    append_all(&wal, 2..5);
    let disk = disk.kill();
    let name = disk.names("segment-").remove(0);
    let definition = *frames(&disk, &name, 4).last().unwrap();
    disk.overwrite(&name, definition + 70, &[0xa5; 3]);
    for _ in 0..2 {
        let wal = open(&disk);
        assert_eq!(wal.definition(0).unwrap(), &b"first"[..]);
        assert_eq!(wal.definition(lost), None);
        assert!(wal.define(b"other").unwrap().unwrap() > lost);
    }
}

/// Row I: a segment in the middle, and the oldest one; row J: the newest.
#[test]
fn a_missing_segment_is_a_gap_between_its_neighbours() {
    let (disk, records) = long(57, 100);
    let segments = view(&disk).unwrap().segments();
    assert!(segments.len() >= 5, "{} segments", segments.len());
    for (at, segment) in segments.iter().enumerate() {
        let disk = disk.copy();
        disk.delete(segment.path.file_name().unwrap().to_str().unwrap());
        let lost = segment.base.get()..segment.next.get();
        let cause = if at + 1 == segments.len() {
            Cause::MissingTail
        } else {
            Cause::MissingSegment
        };
        let kept = without(&records, lost.clone());
        if at > 0 {
            assert_gap(disk, lost, cause, &kept);
        } else {
            // Nothing before it is left: the log begins behind it.
            for _ in 0..2 {
                let wal = open(&disk);
                assert_same(&read_all(&wal), &kept);
                let totals = wal.totals();
                assert_eq!(totals.lost, lost.end - lost.start, "{totals:?}");
                assert_eq!(totals.queued, kept.len() as u64, "{totals:?}");
            }
        }
    }
    // All of them.
    for segment in &segments {
        disk.delete(segment.path.file_name().unwrap().to_str().unwrap());
    }
    let wal = open(&disk);
    assert_eq!((wal.totals().lost, wal.totals().queued), (100, 0));
    assert!(wal.append_wait(&record(1)).unwrap().get() >= 100);
    assert!(wal.totals().balances());
}

/// Rows G and H: the chain, the cursor, or the promises of its frames say that a file is live, and its
/// start frame says what its header was.
#[test]
fn a_segment_that_lost_both_header_copies_is_told_by_its_start_frame() {
    let disk = Faulty::new(58);
    let wal = open(&disk);
    let records: Records = (0..60)
        .map(|number| {
            let bytes = sized(number, 50_000);
            (wal.append_wait(&bytes).unwrap(), bytes)
        })
        .collect();
    let disk = disk.kill();
    let segments = view(&disk).unwrap().segments();
    for cursor in [true, false] {
        for segment in &segments {
            let mut disk = disk.copy();
            let name = segment.path.file_name().unwrap().to_str().unwrap();
            for copy in [0, 64 << 10] {
                disk.overwrite(name, copy + 100, &[0xa5; 3]);
            }
            if !cursor {
                lose_cursors(&disk);
            }
            for life in 0..3 {
                let at = format!("segment {}, cursor {cursor}, life {life}", segment.number);
                let wal =
                    try_open_strictly(&disk).unwrap_or_else(|e| panic!("{at}: {}", describe(&e)));
                assert_same(&read_all(&wal), &records);
                assert_eq!((wal.totals().lost, wal.totals().queued), (0, 60), "{at}");
                disk = disk.kill();
            }
        }
    }
    // Damage in such a segment is damage, and not a release, also where one copy is gone to zeros.
    let name = segments[1].path.file_name().unwrap().to_str().unwrap();
    let frame = frames(&disk, name, 1)[2];
    for second in [vec![0xa5; 3], vec![0; 4096]] {
        let disk = disk.copy();
        disk.overwrite(name, 100, &[0xa5; 3]);
        disk.overwrite(name, 64 << 10, &second);
        disk.overwrite(name, frame + 70, &[0xa5; 3]);
        let wal = open(&disk);
        let read = drain(wal.reader(SeqNo::ZERO));
        assert!(
            matches!(read, Err(Error::Corrupt { .. })),
            "{:?}",
            read.is_ok()
        );
    }
}
