//! Rules R1 to R14 of `docs/durability.md`, each by a test that carries its name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferrylog::wal::{Class, Durability, Error, SeqNo};

use crate::common::{
    BODY, append_all, append_apart, assert_no_engine_thread_panicked, assert_same, describe, open,
    options, read_all, record, sized, try_open, try_open_strictly, try_open_with, until,
    with_level,
};
use crate::faulty::{EIO, Failure, Fault, Faulty, Kind, Op, PAGE, Survivors};

const SEGMENT: &str = "segment-";

fn is_segment(op: &Op) -> bool {
    op.name.starts_with(SEGMENT)
}

/// Appends, rotates, settles and releases until a file lives a second time; then closes, opens again.
fn recycle_and_reopen(disk: &Faulty) {
    let mut number = 0;
    for _ in 0..3 {
        let wal = open(disk);
        for _ in 0..10 {
            for _ in 0..4 {
                drop(wal.append(&sized(number, 50_000)).unwrap());
                number += 1;
            }
            let durable = wal.sync().unwrap();
            wal.settle(wal.marks().acked..durable, Class::Shipped);
        }
        // Everything but the active segment leaves.
        until("release", || wal.marks().first + 40 > wal.marks().next);
        for _ in 0..60 {
            drop(wal.append(&sized(number, 50_000)).unwrap());
            number += 1;
        }
        wal.close().unwrap();
    }
}

fn header_number(op: &Op) -> Option<u64> {
    let page = op.page.as_ref().filter(|_| is_segment(op) && !op.zeros)?;
    let is_header = op.position == 0 || op.position == 64 << 10;
    is_header.then(|| u64_at(&page[..], 56))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn r1_segments_are_written_in_whole_pages_and_no_page_with_records_twice_in_a_life() {
    let disk = Faulty::new(1);
    recycle_and_reopen(&disk);
    let mut written: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut lives = 0;
    for op in disk.trace() {
        if op.kind != Kind::Write {
            continue;
        }
        assert_eq!(
            (op.position % PAGE, op.len % PAGE),
            (0, 0),
            "{} {}",
            op.name,
            op.position
        );
        let pages = written.entry(op.inode).or_default();
        if op.name.starts_with("ballast") {
            continue;
        }
        if !is_segment(&op) {
            assert_eq!((op.position, op.len), (0, PAGE), "{}", op.name);
            continue;
        }
        if op.zeros && op.position == 0 {
            pages.clear();
            lives += 1;
        }
        for page in op.position / PAGE..(op.position + op.len) / PAGE {
            assert!(!pages.contains(&page), "page {page} of {} again", op.name);
            if !op.zeros {
                pages.insert(page);
            }
        }
    }
    assert!(lives > 3, "files lived again {lives} times");
}

/// Operations on segments and cursors that change or promise something, from the first failure on.
fn after_failure(disk: &Faulty) -> Vec<Op> {
    let trace = disk.trace();
    let failed = trace.iter().position(|op| op.failed).expect("a failure");
    trace[failed..].to_vec()
}

/// R2, for whatever file the failed sync was of: it is never synced again.
fn assert_never_synced_again(disk: &Faulty) {
    let after = after_failure(disk);
    let again = after[1..]
        .iter()
        .filter(|op| op.kind == Kind::Sync && op.inode == after[0].inode);
    assert_eq!(again.count(), 0, "{} was synced again", after[0].name);
}

fn assert_groups_then_header(after: &[Op]) {
    let poisoned = after[0].inode;
    let fresh: Vec<&Op> = after
        .iter()
        .filter(|op| is_segment(op) && op.inode != poisoned && !op.zeros)
        .filter(|op| matches!(op.kind, Kind::Write | Kind::Sync))
        .collect();
    let first = fresh[0].inode;
    let order: Vec<&str> = fresh
        .iter()
        .filter(|op| op.inode == first)
        .map(|op| match (op.kind, op.position) {
            (Kind::Sync, _) => "sync",
            (_, position) if position < BODY => "header",
            _ => "group",
        })
        .collect();
    let headers = order
        .iter()
        .position(|step| *step == "header")
        .expect("a header");
    assert_eq!(
        order[..2],
        ["group", "group"],
        "preamble, then the rewritten group"
    );
    assert_eq!(order[headers - 1], "sync", "{order:?}");
    assert_eq!(
        order[headers..headers + 3],
        ["header", "header", "sync"],
        "{order:?}"
    );
}

#[test]
fn r2_one_failed_sync_costs_nothing_and_the_file_is_never_synced_again() {
    for failure in [Failure::Errno(EIO), Failure::Done, Failure::KeepDirty] {
        let disk = Faulty::new(2);
        let wal = open(&disk);
        let mut expected = append_all(&wal, 0..3);
        disk.clear_trace();
        disk.fail_next(Kind::Sync, SEGMENT, 1, failure);
        expected.extend(append_all(&wal, 3..6));
        assert_eq!(disk.fired(), 1);
        assert_never_synced_again(&disk);
        assert_groups_then_header(&after_failure(&disk));
        assert!(
            wal.background_error()
                .is_some_and(|what| what.contains("fdatasync"))
        );
        assert_same(&read_all(&wal), &expected);
        let disk = disk.power_cut(Survivors::None);
        assert_same(&read_all(&open(&disk)), &expected);
    }
}

#[test]
fn r2_a_segment_that_was_never_synced_is_left_out_of_the_chain() {
    let disk = Faulty::new(3);
    let wal = open(&disk);
    let mut expected = append_all(&wal, 0..1);
    // Fill the first segment, so that the last append rotates: its sync is the new file's first.
    let big = sized(1, 500_000);
    expected.push((wal.append_wait(&big).unwrap(), big.clone()));
    disk.clear_trace();
    disk.fail(Fault {
        kind: Some(Kind::Sync),
        name: SEGMENT,
        skip: 1, // the barrier's
        times: 1,
        failure: Failure::Errno(EIO),
    });
    expected.push((wal.append_wait(&big).unwrap(), big));
    assert_eq!(disk.fired(), 1);
    assert_never_synced_again(&disk);
    expected.extend(append_all(&wal, 5..8));
    assert_same(&read_all(&wal), &expected);
    for survivors in [Survivors::None, Survivors::All, Survivors::Some] {
        let after = disk.copy();
        after.lose_power(survivors);
        let wal = open(&after);
        assert_same(&read_all(&wal), &expected);
        wal.close().unwrap();
    }
}

/// P8 as well: what waited is told that its outcome is unknown.
#[test]
fn r2_a_sync_that_fails_twice_fails_the_log_and_every_waiter_is_told() {
    let disk = Faulty::new(4);
    let wal = open(&disk);
    let acknowledged = append_all(&wal, 0..5);
    disk.fail_next(Kind::Sync, SEGMENT, 2, Failure::Errno(EIO));
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (5..10)
            .map(|number| {
                let wal = &wal;
                scope.spawn(move || wal.append_wait(&record(number)))
            })
            .collect();
        for waiter in waiters {
            let error = waiter
                .join()
                .unwrap()
                .expect_err("nothing can be acknowledged");
            let text = describe(&error);
            assert!(matches!(error, Error::Failed { .. }), "{text}");
            assert!(text.contains("unknown"), "{text}");
        }
    });
    assert!(matches!(wal.append(&record(11)), Err(Error::Failed { .. })));
    assert!(matches!(wal.sync(), Err(Error::Failed { .. })));
    assert!(matches!(wal.close(), Err(Error::Failed { .. })));
    assert_never_synced_again(&disk);
    for survivors in [Survivors::None, Survivors::All, Survivors::Some] {
        let after = disk.copy();
        after.lose_power(survivors);
        let wal = open(&after);
        let found = read_all(&wal);
        assert_same(&found[..5].to_vec(), &acknowledged);
        assert!(found.len() <= 10, "invented {}", found.len());
    }
    assert_no_engine_thread_panicked();
}

#[test]
fn r2_closing_a_failed_log_does_not_sync_the_poisoned_file() {
    let disk = Faulty::new(5);
    let mut options = options();
    options.sync_interval = Duration::from_millis(1);
    let wal = try_open_with(&disk, options).unwrap();
    let acknowledged = append_all(&wal, 0..2);
    disk.clear_trace();
    disk.fail_next(Kind::Sync, SEGMENT, 2, Failure::Errno(EIO));
    // Every record is durable, and the log fails all the same: over a definition.
    wal.define(b"temps").unwrap();
    until("failure", || wal.append(&record(9)).is_err());
    assert!(wal.close().is_err());
    assert_never_synced_again(&disk);
    let wal = open(&disk.power_cut(Survivors::None));
    assert!(!wal.opened().clean);
    assert_same(&read_all(&wal)[..2].to_vec(), &acknowledged);
    assert_no_engine_thread_panicked();
}

#[test]
fn r2_a_failed_write_is_mended_as_a_failed_sync_is() {
    for failure in [Failure::Errno(EIO), Failure::Half, Failure::Done] {
        let disk = Faulty::new(6);
        let wal = open(&disk);
        let mut expected = append_all(&wal, 0..3);
        disk.fail_next(Kind::Write, SEGMENT, 1, failure);
        expected.extend(append_all(&wal, 3..6));
        assert_same(&read_all(&wal), &expected);
        assert_same(
            &read_all(&open(&disk.power_cut(Survivors::Some))),
            &expected,
        );
    }
}

#[test]
fn r2_records_acknowledged_at_level_os_survive_a_failed_sync() {
    let disk = Faulty::new(7);
    let wal = try_open_with(&disk, with_level(Durability::Os)).unwrap();
    let expected = append_all(&wal, 0..20);
    assert_eq!(wal.marks().durable, SeqNo::ZERO);
    disk.fail_next(Kind::Sync, SEGMENT, 1, Failure::Errno(EIO));
    assert_eq!(wal.sync().unwrap(), SeqNo::new(20));
    assert_same(
        &read_all(&open(&disk.power_cut(Survivors::None))),
        &expected,
    );
}

#[test]
fn r2_a_sync_that_failed_for_the_filler_costs_nothing() {
    let disk = Faulty::new(23);
    // Before there is anything to fill: the filler may be faster than this thread.
    disk.hold(Kind::SyncZeros);
    disk.fail_next(Kind::SyncZeros, SEGMENT, 1, Failure::Errno(EIO));
    let wal = try_open_with(&disk, with_level(Durability::Os)).unwrap();
    let expected = append_all(&wal, 0..20);
    disk.await_held(1);
    // It takes the records' pages with it.
    disk.release();
    until("failure", || disk.fired() == 1);
    wal.sync().unwrap();
    assert_same(&read_all(&wal), &expected);
    assert_same(
        &read_all(&open(&disk.power_cut(Survivors::None))),
        &expected,
    );
}

#[test]
fn r2_a_cursor_file_whose_sync_failed_is_replaced() {
    for failing in [Kind::Sync, Kind::Write] {
        let disk = Faulty::new(8);
        let wal = open(&disk);
        append_all(&wal, 0..3);
        wal.settle(SeqNo::ZERO..SeqNo::new(2), Class::Shipped);
        disk.clear_trace();
        disk.fail_next(failing, "cursor-", 1, Failure::Errno(EIO));
        wal.save_cursor().unwrap();
        let after = after_failure(&disk);
        assert!(
            after
                .iter()
                .any(|op| op.kind == Kind::Rename && op.name == after[0].name)
        );
        assert_never_synced_again(&disk);
        for _ in 0..3 {
            wal.save_cursor().unwrap();
        }
        assert_never_synced_again(&disk);
        let wal = open(&disk.power_cut(Survivors::None));
        assert_eq!(wal.totals().shipped, 2);
    }
}

#[test]
fn r2_a_cursor_file_that_could_not_be_replaced_is_not_synced_again_either() {
    let disk = Faulty::new(9);
    let wal = open(&disk);
    append_all(&wal, 0..3);
    wal.settle(SeqNo::ZERO..SeqNo::new(2), Class::Shipped);
    disk.clear_trace();
    disk.fail_next(Kind::Create, "cursor-", 1, Failure::Errno(EIO));
    disk.fail_next(Kind::Sync, "cursor-", 1, Failure::Errno(EIO));
    // The keeper may come first: what counts is that it is saved in the end, by another file.
    while disk.fired() < 2 {
        drop(wal.save_cursor());
    }
    wal.save_cursor().unwrap();
    wal.save_cursor().unwrap();
    wal.save_cursor().unwrap();
    let trace = disk.trace();
    let failed = trace
        .iter()
        .position(|op| op.failed && op.kind == Kind::Sync)
        .unwrap();
    let again = trace[failed + 1..]
        .iter()
        .filter(|op| op.kind == Kind::Sync && op.inode == trace[failed].inode);
    assert_eq!(again.count(), 0, "{} was synced again", trace[failed].name);
    let wal = open(&disk.power_cut(Survivors::None));
    assert_eq!(wal.totals().shipped, 2);
}

#[test]
fn r3_opening_syncs_and_drops_the_cache_before_it_reads() {
    let disk = Faulty::new(10);
    let wal = open(&disk);
    append_all(&wal, 0..3);
    let newest = disk.names(SEGMENT).pop().unwrap();
    let disk = disk.kill();
    drop(wal);
    let wal = open(&disk);
    let trace = disk.trace();
    let first_write = trace.iter().position(|op| op.kind == Kind::Write).unwrap();
    let opening = &trace[..first_write];
    for name in ["cursor-a", "cursor-b", &newest] {
        let at = |kind| {
            opening
                .iter()
                .rposition(|op| op.kind == kind && op.name == name)
        };
        let (sync, drop_cache, read) = (at(Kind::Sync), at(Kind::DropCache), at(Kind::Read));
        assert!(
            sync.is_some() && sync < drop_cache && drop_cache < read,
            "{name}"
        );
    }
    let sync_dir = opening
        .iter()
        .position(|op| op.kind == Kind::SyncDir)
        .unwrap();
    let read = opening
        .iter()
        .rposition(|op| op.kind == Kind::Read)
        .unwrap();
    assert!(sync_dir < read);
    drop(wal);
}

#[test]
fn r3_what_only_the_cache_showed_is_not_taken_for_durable() {
    for seed in 0..20 {
        let disk = Faulty::new(100 + seed);
        let wal = open(&disk);
        let acknowledged = append_all(&wal, 0..5);
        disk.fail_next(Kind::Sync, SEGMENT, 2, Failure::Errno(EIO));
        assert!(wal.append_wait(&sized(9, 60_000)).is_err());
        let disk = disk.kill();
        drop(wal);
        let wal = open(&disk);
        let found = read_all(&wal);
        assert_same(&found[..5].to_vec(), &acknowledged);
        let wal = open(&disk.power_cut(Survivors::None));
        assert_same(&read_all(&wal), &found);
    }
}

#[test]
fn r3_if_that_sync_fails_opening_fails_and_changes_nothing() {
    for name in [SEGMENT, "cursor-a", "cursor-b"] {
        let disk = Faulty::new(11);
        let wal = open(&disk);
        let expected = append_all(&wal, 0..3);
        let disk = disk.kill();
        drop(wal);
        disk.fail_next(Kind::Sync, name, 1, Failure::Errno(EIO));
        let error = try_open(&disk).expect_err("opening goes on");
        assert!(
            matches!(error, Error::Io { action: "sync", .. }),
            "{}",
            describe(&error)
        );
        assert!(disk.trace().iter().all(|op| op.kind != Kind::Write));
        assert_same(&read_all(&open(&disk)), &expected);
    }
}

#[test]
fn r4_recovery_cuts_the_old_segment_after_the_new_header_and_writes_nothing_into_it() {
    let disk = Faulty::new(12);
    let wal = open(&disk);
    let expected = append_apart(&wal, 0..3);
    let disk = disk.power_cut(Survivors::None);
    drop(wal);
    let old = disk.names(SEGMENT).pop().unwrap();
    disk.set_file_len(&old, disk.file_len(&old).max(BODY) + 3 * PAGE);
    let wal = open(&disk);
    let trace = disk.trace();
    assert!(
        trace
            .iter()
            .all(|op| op.kind != Kind::Write || op.name != old)
    );
    let cut = trace
        .iter()
        .position(|op| op.kind == Kind::SetLen && op.name == old)
        .unwrap();
    // R1: cutting a page writes it again.
    assert_eq!(trace[cut].len % PAGE, 0);
    let header = trace
        .iter()
        .rposition(|op| op.kind == Kind::Write && header_number(op).is_some());
    let header = header.unwrap();
    let between = &trace[header..cut];
    assert!(
        between
            .iter()
            .any(|op| op.kind == Kind::Sync && op.inode == trace[header].inode)
    );
    assert!(
        trace[cut..]
            .iter()
            .any(|op| op.kind == Kind::Sync && op.name == old)
    );
    assert_same(&read_all(&wal), &expected);
}

#[test]
fn r4_a_crash_loop_without_records_costs_no_files() {
    for survivors in [Survivors::None, Survivors::All, Survivors::Some] {
        let mut disk = Faulty::new(13);
        let wal = open(&disk);
        let expected = append_all(&wal, 0..3);
        let mut counts = Vec::new();
        for _ in 0..20 {
            disk = disk.power_cut(survivors);
            let wal = open(&disk);
            assert_same(&read_all(&wal), &expected);
            assert!(wal.totals().balances());
            assert_eq!(wal.totals().queued, 3);
            counts.push(disk.names(SEGMENT).len());
        }
        assert!(
            counts.iter().all(|&count| count <= 3),
            "{survivors:?}: {counts:?}"
        );
    }
}

#[test]
fn r4b_no_number_is_given_twice_over_crashes() {
    let mut disk = Faulty::new(14);
    let mut given = BTreeSet::new();
    let mut unclean = 0;
    for life in 0..12 {
        let wal = open(&disk);
        assert_eq!(wal.opened().unclean_ends, unclean);
        for number in 0..5 {
            // Not waited for: they may be lost, their numbers are used up all the same.
            let ticket = wal.append(&record(number)).unwrap();
            assert!(given.insert(ticket.seq()), "{} twice", ticket.seq());
        }
        assert!(wal.totals().balances());
        if life % 3 == 2 {
            wal.close().unwrap();
            disk = disk.copy();
        } else {
            disk = disk.power_cut(Survivors::Some);
            unclean += 1;
        }
    }
}

#[test]
fn r4b_no_number_is_given_near_the_durable_limit_while_the_cursor_cannot_be_saved() {
    let disk = Faulty::new(15);
    let mut options = options();
    options.segment_size = 64 << 20;
    options.memory_budget = 64 << 20;
    let wal = try_open_with(&disk, options).unwrap();
    disk.fail_next(Kind::Write, "cursor-", usize::MAX, Failure::Errno(EIO));
    let batch = vec![[0u8; 0]; 1_000_000];
    for _ in 0..8 {
        wal.append_batch(&batch).unwrap().wait().unwrap();
    }
    // 2^23 numbers are free to use: the ninth million is not.
    let next = wal.marks().next;
    let error = wal.append_batch(&batch).expect_err("beyond the limit");
    assert!(matches!(error, Error::Io { .. }), "{}", describe(&error));
    assert_eq!(wal.marks().next, next, "nothing was appended");
    disk.heal();
    wal.append_batch(&batch).unwrap().wait().unwrap();
    assert_eq!(wal.marks().next, next + 1_000_000);
}

/// Header fields of the frames of a segment: position, first SeqNo, durable SeqNo, count, span.
fn frames(disk: &Faulty, name: &str) -> Vec<(u64, u64, u64, u32, u64)> {
    let bytes = disk.bytes(name, 0, disk.file_len(name) as usize);
    let magic = &bytes[BODY as usize..BODY as usize + 4];
    let mut at = BODY as usize;
    let mut found = Vec::new();
    while at + 64 <= bytes.len() {
        if &bytes[at..at + 4] == magic {
            let number = |field: usize| u64_at(&bytes, at + field);
            let len = number(48) as u32;
            let span = (64 + u64::from(len)).next_multiple_of(64);
            let count = (number(56) & 0xffff_ffff) as u32;
            found.push((at as u64, number(16), number(24), count, span));
            at += span as usize;
        } else {
            at += 64;
        }
    }
    found
}

#[test]
fn r5_every_frame_carries_the_durable_mark_of_its_time() {
    let disk = Faulty::new(16);
    let wal = open(&disk);
    append_apart(&wal, 0..4);
    let name = disk.names(SEGMENT).remove(0);
    let promises: Vec<(u64, u64)> = frames(&disk, &name)
        .iter()
        .filter(|frame| frame.3 > 0)
        .map(|frame| (frame.1, frame.2))
        .collect();
    assert_eq!(promises, [(0, 0), (1, 1), (2, 2), (3, 3)]);
    let disk = disk.power_cut(Survivors::None);
    drop(wal);
    // The third record is promised by the fourth's header: to lose it is corruption, not a tail.
    let third = frames(&disk, &name)
        .iter()
        .find(|frame| frame.1 == 2 && frame.3 > 0)
        .copied();
    disk.overwrite(&name, third.unwrap().0 + 70, &[0xa5; 3]);
    disk.clear_trace();
    let error = try_open_strictly(&disk).expect_err("promised records are gone");
    assert!(
        matches!(error, Error::Corrupt { .. }),
        "{}",
        describe(&error)
    );
    assert!(
        describe(&error).contains("record 2"),
        "{}",
        describe(&error)
    );
    assert!(
        disk.trace()
            .iter()
            .all(|op| op.kind != Kind::Write && op.kind != Kind::SetLen)
    );
}

#[test]
fn r6_a_segment_is_cleared_only_when_both_cursors_durably_name_a_later_one() {
    let disk = Faulty::new(17);
    recycle_and_reopen(&disk);
    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    let mut durable: BTreeMap<String, u64> = BTreeMap::new();
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    let mut cleared: BTreeMap<u64, bool> = BTreeMap::new();
    let mut releases = 0;
    for op in disk.trace() {
        match (op.kind, &op.page) {
            (Kind::Write, Some(page)) if op.name.starts_with("cursor-") => {
                written.insert(op.name.clone(), u64_at(&page[..], 48));
            }
            (Kind::Sync, _) if op.name.starts_with("cursor-") => {
                if let Some(oldest) = written.get(&op.name) {
                    let name = op.name.trim_end_matches(".tmp").to_owned();
                    durable.insert(name, *oldest);
                }
            }
            (Kind::Write, Some(_)) if op.zeros && is_segment(&op) && op.position < BODY => {
                let number = numbers[&op.inode];
                assert_eq!(durable.len(), 2);
                // A last segment without records becomes a spare at once: it holds nothing.
                assert!(
                    durable.values().all(|&oldest| oldest >= number),
                    "{number}: {durable:?}"
                );
                releases += u32::from(durable.values().all(|&oldest| oldest > number));
                cleared.insert(op.inode, false);
            }
            (Kind::Sync | Kind::SyncZeros, _) if cleared.contains_key(&op.inode) => {
                cleared.insert(op.inode, true);
            }
            (Kind::Write, _) if !op.zeros && is_segment(&op) => {
                assert!(
                    cleared.remove(&op.inode).unwrap_or(true),
                    "cleared, but not durably"
                );
                numbers.extend(header_number(&op).map(|number| (op.inode, number)));
            }
            _ => {}
        }
    }
    assert!(
        releases >= 4,
        "{releases} pages of released segments were cleared"
    );
}

#[test]
fn r8_r10_an_earlier_life_of_a_file_is_never_revived() {
    let disk = Faulty::new(18);
    let wal = open(&disk);
    let first_life = disk.names(SEGMENT).remove(0);
    for number in 0..18 {
        wal.append_wait(&sized(number, 50_000)).unwrap();
    }
    let old = disk.bytes(&first_life, 0, 1 << 20);
    wal.settle(SeqNo::ZERO..wal.marks().durable, Class::Shipped);
    until("release", || wal.marks().first > SeqNo::ZERO);
    // Rotate until the file lives again.
    let life = |disk: &Faulty| u64_at(&disk.bytes(&first_life, 56, 8), 0);
    for number in 100.. {
        if life(&disk) > u64_at(&old, 56) {
            break;
        }
        assert!(number < 1000, "the file is not used again");
        wal.append_wait(&sized(number, 50_000)).unwrap();
        wal.settle(SeqNo::ZERO..wal.marks().durable, Class::Shipped);
        wal.save_cursor().unwrap();
    }
    let expected = append_all(&wal, 7..9);
    let (low, next) = (wal.marks().acked, wal.marks().next);
    let disk = disk.kill();
    drop(wal);
    let end = frames(&disk, &first_life)
        .last()
        .map(|frame| frame.0 + frame.4)
        .unwrap();
    let end = end.next_multiple_of(PAGE) as usize;
    // Every frame of the first life where it once stood; and the last frame of this life once more.
    disk.overwrite(&first_life, end as u64, &old[end..]);
    let last = disk.bytes(&first_life, end as u64 - PAGE, PAGE as usize);
    disk.overwrite(&first_life, 900 << 10, &last);
    let wal = open(&disk);
    assert_eq!(wal.opened().recovered_end, next);
    let mut found = read_all(&wal);
    found.retain(|(seq, _)| *seq >= low);
    assert_same(&found[found.len() - 2..].to_vec(), &expected);
    assert_eq!(found.len() as u64, wal.totals().queued);
}

/// The script whose n-th operation fails. Returns what was acknowledged and what may come back.
fn fragile_life(disk: &Faulty) -> (Vec<(SeqNo, u64)>, bool) {
    let mut acknowledged = Vec::new();
    let mut told = false;
    let wal = match try_open(disk) {
        Ok(wal) => wal,
        Err(_) => return (acknowledged, true),
    };
    // In front of a record that is waited for: its write is over before anybody asks for errors.
    told |= wal.define(b"temps").is_err();
    for number in 0..26u64 {
        let bytes = sized(number, if number % 3 == 0 { 90_000 } else { 500 });
        match wal.append_wait(&bytes) {
            Ok(seq) => acknowledged.push((seq, number)),
            Err(_) => told = true,
        }
        if number % 7 == 6 {
            wal.settle(wal.marks().acked..wal.marks().durable, Class::Shipped);
            told |= wal.save_cursor().is_err();
        }
    }
    told |= wal.background_error().is_some();
    told |= wal.close().is_err();
    (acknowledged, told)
}

#[test]
fn r11_whichever_operation_fails_nothing_acknowledged_is_lost_and_nothing_is_silent() {
    let clean = Faulty::new(19);
    fragile_life(&clean);
    let operations = clean.trace().len();
    assert!(operations > 80, "{operations} operations");
    for failure in [Failure::Errno(EIO), Failure::Half, Failure::Done] {
        for nth in 0..operations {
            let disk = Faulty::new(19);
            disk.fail(Fault {
                kind: None,
                name: "",
                skip: nth,
                times: 1,
                failure,
            });
            let (acknowledged, told) = fragile_life(&disk);
            let trace = disk.trace();
            let failed = trace.iter().find(|op| op.failed);
            // A cursor file that fails is replaced, a missing one to be removed is no loss; zeros that
            // are filled ahead while the log closes are nobody's any more.
            let silent = failed.is_some_and(|op| {
                is_segment(op) && !op.zeros && matches!(op.kind, Kind::Write | Kind::Sync)
            });
            assert!(
                !silent || told,
                "operation {nth} failed in silence: {failed:?}"
            );
            disk.heal();
            let after = disk.power_cut(Survivors::Some);
            let wal = try_open(&after).unwrap_or_else(|error| {
                panic!("operation {nth} ({failed:?}): {}", describe(&error))
            });
            let first = wal.marks().first;
            let acked = wal.marks().acked;
            let found: BTreeMap<SeqNo, Vec<u8>> = read_all(&wal).into_iter().collect();
            for (seq, number) in acknowledged {
                if seq < first && seq < acked {
                    continue;
                }
                let len = if number % 3 == 0 { 90_000 } else { 500 };
                let same = found
                    .get(&seq)
                    .is_some_and(|bytes| *bytes == sized(number, len));
                assert!(same, "operation {nth} ({failed:?}): record {seq} is gone");
            }
            assert!(wal.totals().balances(), "operation {nth}");
        }
    }
    assert_no_engine_thread_panicked();
}

#[test]
fn r13_nothing_of_a_segment_is_written_before_its_predecessor_is_synced() {
    for fail in [false, true] {
        let disk = Faulty::new(20);
        if fail {
            disk.fail(Fault {
                kind: Some(Kind::Sync),
                name: SEGMENT,
                skip: 4,
                times: 1,
                failure: Failure::Errno(EIO),
            });
        }
        recycle_and_reopen(&disk);
        let mut unsynced: BTreeMap<u64, u64> = BTreeMap::new();
        let mut newest = 0;
        let mut rotations = 0;
        for op in disk.trace().iter().filter(|op| is_segment(op)) {
            match op.kind {
                Kind::Write if !op.zeros => {
                    if op.inode != newest {
                        newest = op.inode;
                        rotations += 1;
                        assert!(unsynced.is_empty(), "{} begins: {unsynced:?}", op.name);
                    }
                    unsynced.insert(op.inode, op.position);
                }
                // A failed sync ends the file: its records are written again elsewhere.
                Kind::Sync => _ = unsynced.remove(&op.inode),
                _ => {}
            }
        }
        assert!(rotations > 5, "{rotations} rotations");
    }
}

/// P7 rests on it: the shipper reads by such a reader.
#[test]
fn r14_a_reader_sees_only_what_is_durable() {
    for level in [Durability::Memory, Durability::Os, Durability::Disk] {
        let disk = Faulty::new(21);
        let wal = try_open_with(&disk, with_level(level)).unwrap();
        let mut reader = wal.reader(SeqNo::ZERO);
        disk.hold(Kind::Sync);
        let expected: Vec<Vec<u8>> = (0..50).map(record).collect();
        for bytes in &expected {
            wal.append(bytes)
                .unwrap()
                .wait_for(level.min(Durability::Os))
                .unwrap();
        }
        assert!(reader.next().unwrap().is_none(), "{level}: not synced yet");
        assert_eq!(wal.marks().durable, SeqNo::ZERO);
        disk.release();
        wal.sync().unwrap();
        for bytes in &expected {
            let record = reader.next().unwrap().expect("durable now");
            assert!(record.payload == bytes, "{level}: bytes of {}", record.seq);
        }
        assert!(reader.next().unwrap().is_none());
    }
}

#[test]
fn r14_at_level_os_a_sync_comes_within_the_interval_also_when_idle() {
    for level in [Durability::Memory, Durability::Os] {
        let disk = Faulty::new(22);
        let mut options = with_level(level);
        options.sync_interval = Duration::from_millis(20);
        let wal = try_open_with(&disk, options).unwrap();
        let seq = wal.append_wait(&record(7)).unwrap();
        let durable = wal.wait_durable(seq, Duration::from_secs(20));
        assert!(durable > seq, "{level}: nobody synced it");
    }
}
