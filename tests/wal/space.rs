//! Full disks: a state that ends by itself.

use ferrylog::wal::{Class, Durability, Error, OnFull, Options, SeqNo, Wal, Worker};

use crate::common::{
    Records, append_all, assert_no_engine_thread_panicked, assert_same, describe, open, open_still,
    options, read_all, sized, try_open_with, until, with_level,
};
use crate::faulty::{ENOSPC, Failure, Faulty, Kind, Survivors};

const SEGMENT: &str = "segment-";

fn rejecting() -> Options {
    let mut options = options();
    options.on_full = OnFull::Reject;
    options
}

/// From now on there is no space, for whatever segment.
fn no_space(disk: &Faulty) {
    disk.fail_next(Kind::Write, SEGMENT, usize::MAX, Failure::Errno(ENOSPC));
}

#[track_caller]
fn assert_full(error: &Error, was_staged: bool) {
    assert!(
        matches!(error, Error::Full { staged, .. } if *staged == was_staged),
        "{}",
        describe(error)
    );
}

/// Appends until the disk is full: how many were acknowledged before the first was not, and all
/// records that got a number.
fn fill_disk(wal: &Wal<Faulty>, len: usize) -> (usize, Records) {
    let (mut acknowledged, mut all) = (None, Records::new());
    for number in 0.. {
        let bytes = sized(number, len);
        let seq = wal.marks().next;
        match wal.append_wait(&bytes) {
            // The keeper may have found a page meanwhile.
            Ok(_) => all.push((seq, bytes)),
            Err(error @ Error::Full { staged: true, .. }) => {
                assert!(describe(&error).contains("No space left"), "{error}");
                acknowledged.get_or_insert(all.len());
                all.push((seq, bytes));
            }
            Err(error) => {
                assert_full(&error, false);
                assert_eq!(wal.marks().next, seq, "nothing was appended");
                return (acknowledged.unwrap_or(all.len()), all);
            }
        }
        assert!(number < 10_000, "the disk is never full");
    }
    unreachable!("an endless range");
}

#[test]
fn a_full_disk_ends_by_itself_and_costs_nothing() {
    // Each capacity lets space run out somewhere else: in a group, a seal, a preamble, a header.
    for pages in (512..528).chain(600..604) {
        let disk = Faulty::new(pages);
        disk.set_capacity(Some(pages * 4096));
        let wal = try_open_with(&disk, rejecting()).unwrap();
        let (acknowledged, mut expected) = fill_disk(&wal, 9000);
        assert!(acknowledged > 100);
        let found = read_all(&wal);
        assert_same(&found, &expected[..found.len()].to_vec());
        assert!(acknowledged <= found.len());
        for survivors in [Survivors::None, Survivors::Some, Survivors::All] {
            let after = disk.copy();
            after.lose_power(survivors);
            after.set_capacity(None);
            let found = read_all(&open(&after));
            assert!(found.len() <= expected.len(), "invented");
            assert_same(&found, &expected[..found.len()].to_vec());
            assert!(acknowledged <= found.len());
        }
        disk.set_capacity(None);
        let last = sized(1, 5000);
        until("space", || match wal.append_wait(&last) {
            Ok(seq) => {
                expected.push((seq, last.clone()));
                true
            }
            Err(error) => {
                assert_full(&error, false);
                false
            }
        });
        assert_same(&read_all(&wal), &expected);
        let disk = disk.power_cut(Survivors::None);
        assert_same(&read_all(&open(&disk)), &expected);
    }
    assert_no_engine_thread_panicked();
}

#[test]
fn blocking_appends_and_waits_go_on_in_order_when_space_returns() {
    let disk = Faulty::new(1);
    disk.set_capacity(Some(2 << 20));
    let mut options = options();
    options.memory_budget = 512 << 10;
    let wal = try_open_with(&disk, options).unwrap();
    let records: Vec<Vec<u8>> = (0..400).map(|number| sized(number, 10_000)).collect();
    std::thread::scope(|scope| {
        let appender = scope.spawn(|| {
            for record in &records {
                wal.append_wait(record).unwrap();
            }
        });
        until("a full disk", || disk.fired() > 3);
        assert!(!appender.is_finished());
        assert!(matches!(
            wal.try_append(&records[0]),
            Ok(_) | Err(Error::Full { .. })
        ));
        disk.set_capacity(None);
        appender.join().unwrap();
    });
    let payloads: Vec<Vec<u8>> = read_all(&wal).into_iter().map(|(_, bytes)| bytes).collect();
    assert!(
        payloads
            .iter()
            .filter(|bytes| **bytes != records[0])
            .eq(&records[1..])
    );
}

/// The fields of the newest header on the disk: its predecessor's end, and how that one ended.
fn newest_previous(disk: &Faulty) -> (u64, u32) {
    let headers = disk
        .names(SEGMENT)
        .into_iter()
        .map(|name| disk.bytes(&name, 0, 160));
    let newest = headers
        .max_by_key(|page| u64::from_le_bytes(page[56..64].try_into().unwrap()))
        .unwrap();
    (
        u64::from_le_bytes(newest[136..144].try_into().unwrap()),
        u32::from_le_bytes(newest[152..156].try_into().unwrap()),
    )
}

#[test]
fn r1_nothing_is_written_behind_a_group_that_ran_out_of_space() {
    let disk = Faulty::new(2);
    let wal = try_open_with(&disk, with_level(Durability::Os)).unwrap();
    let mut expected = append_all(&wal, 0..20);
    disk.clear_trace();
    disk.fail_next(Kind::Write, SEGMENT, 1, Failure::Errno(ENOSPC));
    expected.extend(append_all(&wal, 20..25));
    wal.sync().unwrap();
    let trace = disk.trace();
    let failed = trace.iter().position(|op| op.failed).unwrap();
    let old = &trace[failed];
    let after: Vec<Kind> = trace[failed + 1..]
        .iter()
        .filter(|op| op.inode == old.inode && !op.zeros)
        .map(|op| op.kind)
        .collect();
    assert_eq!(
        after,
        [Kind::Sync],
        "what was written before is made durable in its place"
    );
    // 4: disk-full. Nothing at or above this end counts, so the group's place does not.
    assert_eq!(newest_previous(&disk), (old.position, 4));
    assert_same(&read_all(&open(&disk.power_cut(Survivors::All))), &expected);
}

#[test]
fn r2_a_sync_that_finds_no_space_is_not_repeated_on_its_file_and_nothing_is_lost() {
    let disk = Faulty::new(3);
    let wal = open(&disk);
    let mut expected = append_all(&wal, 0..3);
    disk.clear_trace();
    // The active file's, then those of three fresh ones.
    disk.fail_next(Kind::Sync, SEGMENT, 4, Failure::Errno(ENOSPC));
    expected.extend(append_all(&wal, 3..6));
    assert_eq!(disk.fired(), 4);
    let trace = disk.trace();
    for failed in trace.iter().filter(|op| op.failed) {
        let syncs = trace
            .iter()
            .filter(|op| op.kind == Kind::Sync && op.inode == failed.inode);
        assert!(
            syncs.collect::<Vec<_>>().last().unwrap().failed,
            "{} was synced again",
            failed.name
        );
    }
    assert_same(&read_all(&wal), &expected);
    assert_same(
        &read_all(&open(&disk.power_cut(Survivors::None))),
        &expected,
    );
}

#[test]
fn a_life_that_could_not_begin_is_over_wherever_space_ran_out() {
    // Preamble, rewritten group, one header copy or the other, or the name; three times over.
    for skip in 0..6 {
        for kind in [Kind::Write, Kind::SyncDir, Kind::Create] {
            let disk = Faulty::new(40 + skip as u64);
            let wal = open(&disk);
            let mut expected = append_all(&wal, 0..3);
            let first = disk.names(SEGMENT).len();
            disk.fail_next(Kind::Sync, SEGMENT, 1, Failure::Errno(ENOSPC));
            disk.fail(crate::faulty::Fault {
                kind: Some(kind),
                name: if kind == Kind::SyncDir { "" } else { SEGMENT },
                skip,
                times: 3,
                failure: Failure::Errno(ENOSPC),
            });
            expected.extend(append_all(&wal, 3..12));
            assert_same(&read_all(&wal), &expected);
            let headers = disk
                .trace()
                .into_iter()
                .filter(|op| op.position == 0 && !op.zeros);
            let numbers: Vec<u64> = headers
                .filter(|op| op.name.starts_with(SEGMENT))
                .filter_map(|op| op.page)
                .map(|page| u64::from_le_bytes(page[56..64].try_into().unwrap()))
                .collect();
            assert!(
                numbers.is_sorted_by(|a, b| a < b),
                "a number lived twice: {numbers:?}"
            );
            disk.heal();
            assert!(
                disk.names(SEGMENT).len() <= first + 2,
                "files are left behind"
            );
            let after = disk.power_cut(Survivors::Some);
            let wal = open(&after);
            assert_same(&read_all(&wal), &expected);
            assert!(wal.totals().balances());
        }
    }
    assert_no_engine_thread_panicked();
}

#[test]
fn a_waiter_that_is_not_to_wait_is_told_and_its_record_comes_when_space_does() {
    let disk = Faulty::new(5);
    let wal = try_open_with(&disk, rejecting()).unwrap();
    no_space(&disk);
    let batch: Vec<Vec<u8>> = (0..3).map(|number| sized(number, 9000)).collect();
    let ticket = wal.append_batch(&batch).unwrap();
    assert_full(&ticket.wait().unwrap_err(), true);
    assert_full(&wal.append(b"one more").unwrap_err(), false);
    assert_full(&wal.try_append(b"one more").unwrap_err(), false);
    assert_full(&wal.sync().unwrap_err(), true);
    disk.heal();
    until("space", || wal.marks().durable == SeqNo::new(3));
    until("appends", || wal.append_wait(b"one more").is_ok());
    assert_eq!(read_all(&wal).len(), 4);
}

#[test]
fn closing_on_a_full_disk_ends_with_an_error_and_loses_nothing_acknowledged() {
    let disk = Faulty::new(6);
    let wal = open(&disk);
    let acknowledged = append_all(&wal, 0..5);
    no_space(&disk);
    drop(wal.append(&sized(5, 9000)).unwrap());
    assert_full(&wal.close().unwrap_err(), true);
    disk.heal();
    let wal = open(&disk);
    assert!(!wal.opened().clean);
    assert_same(&read_all(&wal), &acknowledged);
}

#[test]
fn a_full_disk_is_tried_now_and_then_however_many_wait() {
    let disk = Faulty::new(7);
    let wal = open(&disk);
    append_all(&wal, 0..2);
    no_space(&disk);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let wal = &wal;
            scope.spawn(move || wal.append_wait(&sized(number, 40_000)).unwrap());
        }
        until("the third try", || {
            let creations = disk
                .trace()
                .into_iter()
                .filter(|op| op.kind == Kind::Create);
            creations.count() >= 4
        });
        let failures = disk.trace().into_iter().filter(|op| op.failed).count();
        assert!(failures < 20, "{failures} operations failed in a few tries");
        disk.heal();
    });
    assert_eq!(read_all(&wal).len(), 18);
}

const QUOTA: u64 = 5 << 20;

fn with_quota(on_full: OnFull) -> Options {
    let mut options = options();
    options.quota_bytes = Some(QUOTA);
    options.on_full = on_full;
    options
}

#[track_caller]
fn assert_within_quota(disk: &Faulty) {
    let len = disk.total_len();
    assert!(len <= QUOTA, "{len} bytes of {QUOTA}");
}

#[test]
fn a_quota_blocks_appends_until_segments_are_released() {
    let disk = Faulty::new(8);
    let wal = try_open_with(&disk, with_quota(OnFull::Block)).unwrap();
    let records: Vec<Vec<u8>> = (0..200).map(|number| sized(number, 100_000)).collect();
    std::thread::scope(|scope| {
        let appender = scope.spawn(|| {
            for record in &records {
                wal.append_wait(record).unwrap();
            }
        });
        let mut reader = wal.reader(SeqNo::ZERO);
        for expected in &records {
            let mut next = None;
            until("a record", || {
                assert_within_quota(&disk);
                // Only what stands still is settled, so that the quota is reached again and again.
                if wal.shortage().is_some() && reader.position() > wal.marks().acked {
                    wal.settle(wal.marks().acked..reader.position(), Class::Shipped);
                }
                next = reader.next().unwrap();
                next.is_some()
            });
            assert!(next.unwrap().payload == expected[..], "order");
        }
        appender.join().unwrap();
    });
    assert!(wal.totals().balances());
    assert_eq!(wal.totals().accepted, 200);
}

#[test]
fn drop_oldest_gives_up_whole_segments_and_accounts_for_each_record() {
    let disk = Faulty::new(9);
    let wal = try_open_with(&disk, with_quota(OnFull::DropOldest)).unwrap();
    let mut expected = Records::new();
    for number in 0..300 {
        let bytes = sized(number, 50_000);
        expected.push((wal.append_wait(&bytes).unwrap(), bytes));
        if number == 5 {
            assert_eq!(wal.settle(SeqNo::ZERO..SeqNo::new(3), Class::Shipped), 3);
        }
        assert_within_quota(&disk);
    }
    let (totals, marks) = (wal.totals(), wal.marks());
    assert!(totals.balances());
    assert_eq!((totals.accepted, totals.shipped), (300, 3));
    assert!(totals.dropped > 100 && marks.acked == SeqNo::new(3 + totals.dropped));
    let left = marks.acked.get() as usize;
    assert_same(&read_all(&wal), &expected[left..].to_vec());
    let outcome = |seq: SeqNo| wal.outcome(seq).unwrap();
    assert_eq!(outcome(SeqNo::new(2)), Some(Class::Shipped));
    assert_eq!(outcome(SeqNo::new(3)), Some(Class::Dropped));
    assert_eq!(
        outcome(SeqNo::new(marks.acked.get() - 1)),
        Some(Class::Dropped)
    );
    assert_eq!(outcome(marks.acked), None);
    // What was dropped stays so, whoever comes late.
    assert_eq!(wal.settle(SeqNo::ZERO..marks.acked, Class::Shipped), 0);
    assert_eq!(wal.settle(SeqNo::ZERO..marks.acked + 2, Class::Shipped), 2);
    assert_eq!(wal.totals().dropped, totals.dropped);
    assert!(matches!(
        wal.reader(SeqNo::ZERO).next(),
        Err(Error::Released { .. })
    ));
    for survivors in [Survivors::None, Survivors::Some] {
        let after = disk.copy();
        after.lose_power(survivors);
        let wal = open(&after);
        // Durable before the segments left.
        assert_eq!(wal.totals().dropped, totals.dropped);
        assert!(wal.totals().balances());
        let found = read_all(&wal);
        assert_same(
            &found[found.len() - 10..].to_vec(),
            &expected[290..].to_vec(),
        );
    }
    assert_no_engine_thread_panicked();
}

#[test]
fn what_comes_is_refused_or_given_up_and_never_counted_as_accepted() {
    for on_full in [OnFull::Reject, OnFull::DropNewest] {
        let disk = Faulty::new(10);
        let mut options = with_quota(on_full);
        options.durability = Durability::Os;
        let wal = try_open_with(&disk, options).unwrap();
        let mut refused = 0;
        for number in 0..200 {
            match wal.append(&sized(number, 50_000)) {
                Ok(ticket) => until("a place", || {
                    ticket.is_acknowledged() || wal.shortage().is_some()
                }),
                Err(Error::Full { staged: false, .. }) if on_full == OnFull::Reject => refused += 1,
                Err(Error::Dropped { .. }) if on_full == OnFull::DropNewest => refused += 1,
                Err(error) => panic!("{}", describe(&error)),
            }
            assert_within_quota(&disk);
        }
        assert!(refused > 50);
        assert_eq!(wal.refused(), refused);
        assert_eq!(wal.totals().accepted, 200 - refused);
        assert!(wal.totals().balances());
        // The oldest are settled, and what was staged has its place.
        let durable = wal.marks().durable;
        wal.settle(wal.marks().acked..durable, Class::Shipped);
        until("space", || wal.shortage().is_none());
        assert_eq!(wal.sync().unwrap(), SeqNo::new(200 - refused));
        until("appends", || wal.append_wait(b"one more").is_ok());
        assert_within_quota(&disk);
    }
}

#[test]
fn who_waits_for_memory_is_refused_once_space_is_short() {
    for on_full in [OnFull::Reject, OnFull::DropNewest] {
        let disk = Faulty::new(13);
        let mut options = options();
        options.on_full = on_full;
        options.memory_budget = 512 << 10;
        let wal = open_still(&disk, options).unwrap();
        no_space(&disk);
        let record = sized(0, 100_000);
        while wal.try_append(&record).is_ok() {}
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| wal.append(&record).map(drop));
            // Who waits for memory asks for a sync.
            until("somebody waits", || wal.step(Worker::Syncer));
            let refused = waits.join().unwrap().unwrap_err();
            match on_full {
                OnFull::Reject => assert_full(&refused, false),
                _ => assert!(matches!(refused, Error::Dropped { .. }), "{refused}"),
            }
        });
        assert!(wal.shortage().is_some());
    }
}

#[test]
fn a_quota_holds_over_any_number_of_openings() {
    let disk = Faulty::new(11);
    let mut acknowledged = Records::new();
    for life in 0..12 {
        let mut options = with_quota(OnFull::Reject);
        // Room for what opening takes: three pages.
        options.quota_bytes = Some(QUOTA - 3 * 4096);
        let wal = try_open_with(&disk, options).unwrap();
        for number in 0..30 {
            let bytes = sized(number, 30_000);
            match wal.append_wait(&bytes) {
                Ok(seq) => acknowledged.push((seq, bytes)),
                Err(error) => {
                    assert!(matches!(error, Error::Full { .. }), "{}", describe(&error));
                    break;
                }
            }
        }
        assert_within_quota(&disk);
        if life % 3 == 0 {
            drop(wal.close());
        }
    }
    let found = read_all(&open(&disk));
    assert!(acknowledged.iter().all(|record| found.contains(record)));
    assert!(acknowledged.len() > 100);
}

#[test]
fn after_a_peak_the_spares_go() {
    let disk = Faulty::new(12);
    let wal = open(&disk);
    for number in 0..100 {
        drop(wal.append(&sized(number, 100_000)).unwrap());
    }
    let durable = wal.sync().unwrap();
    assert!(disk.names(SEGMENT).len() > 8);
    wal.settle(SeqNo::ZERO..durable, Class::Shipped);
    until("release", || disk.names(SEGMENT).len() == 3);
    wal.close().unwrap();
    let mut options = options();
    options.max_spares = 0;
    let wal = try_open_with(&disk, options).unwrap();
    append_all(&wal, 0..1);
    wal.settle(durable..durable + 1, Class::Shipped);
    until("the last spares", || disk.names(SEGMENT).len() <= 2);
}

#[test]
fn the_cursor_is_saved_on_a_full_disk_at_the_cost_of_the_ballast() {
    let disk = Faulty::new(13);
    let wal = open(&disk);
    append_all(&wal, 0..5);
    until("the ballast", || disk.names("ballast") == ["ballast"]);
    assert_eq!(disk.bytes("ballast", 0, 1 << 20).len(), 64 << 10);
    disk.set_capacity(Some(0));
    wal.settle(SeqNo::ZERO..SeqNo::new(3), Class::Shipped);
    // Not in place: a new file must replace it.
    disk.fail_next(Kind::Write, "cursor-", 1, Failure::Errno(ENOSPC));
    disk.set_capacity(Some(disk.used()));
    until("the save", || wal.save_cursor().is_ok() && disk.fired() > 0);
    until("without ballast", || disk.names("ballast").is_empty());
    let after = disk.copy();
    after.lose_power(Survivors::None);
    after.set_capacity(None);
    assert_eq!(open(&after).totals().shipped, 3);
    disk.set_capacity(None);
    until("the ballast", || disk.names("ballast") == ["ballast"]);
}

#[test]
fn a_log_opens_on_a_full_disk_and_goes_on_when_space_returns() {
    let disk = Faulty::new(14);
    let wal = open(&disk);
    let mut expected = append_all(&wal, 0..30);
    until("the ballast", || disk.names("ballast") == ["ballast"]);
    let disk = disk.power_cut(Survivors::None);
    drop(wal);
    // No spare, no page.
    disk.set_capacity(Some(disk.used()));
    let wal = open(&disk);
    assert_same(&read_all(&wal), &expected);
    assert!(disk.names("ballast").is_empty());
    wal.settle(SeqNo::ZERO..SeqNo::new(10), Class::Shipped);
    wal.save_cursor().unwrap();
    disk.set_capacity(Some(disk.used()));
    for number in 0..4 {
        let bytes = sized(number, 400_000);
        expected.push((wal.append(&bytes).unwrap().seq(), bytes));
    }
    until("no space", || wal.shortage().is_some());
    disk.set_capacity(None);
    wal.sync().unwrap();
    assert_same(&read_all(&wal), &expected);
    until("the ballast", || disk.names("ballast") == ["ballast"]);
}

/// A seed found it: where no life could begin, what was to go into it was forgotten, and the next
/// acknowledgement covered it.
#[test]
fn whatever_fails_when_a_segment_begins_what_is_not_durable_is_kept() {
    let disk = Faulty::new(8);
    let wal = open_still(&disk, options()).unwrap();
    let records: Vec<Vec<u8>> = (0..3).map(|number| sized(number, 2000)).collect();
    let end = wal.append(&records[0]).unwrap().range().end;
    disk.fail_next(Kind::Sync, SEGMENT, 1, Failure::Errno(ENOSPC));
    disk.fail_next(Kind::Random, "", 2, Failure::Errno(ENOSPC));
    wal.step(Worker::Flusher);
    wal.step(Worker::Syncer);
    assert!(wal.shortage().is_some());
    assert!(wal.marks().durable < end);
    while wal.shortage().is_some() {
        assert!(wal.step(Worker::Keeper), "nobody tries for space");
    }
    for record in &records[1..] {
        wal.append_wait(record).unwrap();
    }
    let expected: Records = (0..).map(SeqNo::new).zip(records).collect();
    assert_same(&read_all(&wal), &expected);
    let disk = disk.power_cut(Survivors::None);
    assert_same(&read_all(&open(&disk)), &expected);
}
