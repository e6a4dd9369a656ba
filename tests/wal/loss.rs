//! Damage that shows while the log runs: it is given up on demand, durably before anybody passes it.

use ferrylog::wal::{
    Cause, Class, Durability, Error, FindingKind, Gap, OnCorruption, OnFull, Reader, SeqNo, Wal,
};

use crate::common::{
    Records, assert_no_engine_thread_panicked, assert_same, describe, open, options, read_all,
    record, sized, try_open_strictly, try_open_with, until, view,
};
use crate::damage::{frames, verify};
use crate::faulty::{EIO, Failure, Fault, Faulty, Kind, PAGE, Survivors};
use crate::repair::{long, lose_cursors, numbers, without};

/// Reads to the end and gives up what is in the way.
fn read_past<F: ferrylog::wal::fs::Fs>(
    wal: &Wal<F>,
    reader: &mut Reader<F>,
) -> Result<(Records, Vec<Gap>), Error> {
    let (mut records, mut gaps) = (Records::new(), Vec::new());
    loop {
        match reader.next() {
            Ok(Some(record)) => records.push((record.seq, record.payload.to_vec())),
            Ok(None) => return Ok((records, gaps)),
            Err(Error::Corrupt { .. }) => gaps.extend(wal.give_up(reader)?),
            // The keeper was faster.
            Err(Error::Released { first }) => *reader = wal.reader(first),
            Err(error) => return Err(error),
        }
    }
}

/// File and position of the frame of this record of [`long`].
fn place(disk: &Faulty, seq: u64) -> (String, u64) {
    let segments = view(disk).unwrap().segments();
    let segment = segments
        .iter()
        .rfind(|segment| segment.base.get() <= seq)
        .unwrap();
    let name = segment.path.file_name().unwrap().to_str().unwrap();
    let frame = frames(disk, name, 1)[(seq - segment.base.get()) as usize];
    (name.into(), frame)
}

fn damage(disk: &Faulty, seq: u64) -> (String, u64) {
    let (name, frame) = place(disk, seq);
    disk.overwrite(&name, frame + 20, &[0xa5; 3]);
    (name, frame)
}

fn lost_and_queued(wal: &Wal<Faulty>) -> (u64, u64) {
    let totals = wal.totals();
    assert!(totals.balances(), "{totals:?}");
    (totals.lost, totals.queued)
}

/// In sealed segments and in the one that was sealed last, one record and two neighbours.
#[test]
fn what_is_given_up_is_lost_once_and_for_ever_and_no_reader_stops_there_again() {
    for damaged in [20..21, 20..22, 0..1, 59..60] {
        let (disk, records) = long(90, 60);
        let wal = open(&disk);
        let mut lost_in = String::new();
        let mut at = 0;
        for seq in damaged.clone().rev() {
            (lost_in, at) = damage(&disk, seq);
        }
        let kept = without(&records, damaged.clone());
        let damaged_bytes = disk.bytes(&lost_in, at, 64);
        let mut reader = wal.reader(SeqNo::ZERO);
        let error = loop {
            match reader.next() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, Error::Corrupt { position, .. } if *position == at),
            "{}",
            describe(&error)
        );
        assert_eq!(lost_and_queued(&wal), (0, 60), "nothing is lost by reading");

        let gap = wal.give_up(&mut reader).unwrap().unwrap();
        let outcome = |seq| wal.outcome(SeqNo::new(seq)).unwrap();
        for seq in 0..60 {
            let is_lost = damaged.contains(&seq).then_some(Class::Lost);
            assert_eq!(outcome(seq), is_lost, "{seq}");
        }
        assert_eq!(
            numbers(std::slice::from_ref(&gap)),
            [(damaged.start, damaged.end)]
        );
        assert_eq!((gap.cause, gap.position), (Cause::Damaged, at));
        let copy = gap.quarantine().unwrap();
        let copy = copy.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(disk.bytes(&copy, 0, 64) == damaged_bytes);
        let count = damaged.end - damaged.start;
        assert_eq!(lost_and_queued(&wal), (count, 60 - count));
        assert_eq!(wal.give_up(&mut reader).unwrap(), None, "once");
        let rest: Records = kept
            .iter()
            .filter(|(seq, _)| seq.get() >= damaged.end)
            .cloned()
            .collect();
        assert_same(&read_past(&wal, &mut reader).unwrap().0, &rest);
        assert_same(&read_all(&wal), &kept);

        // Also for those who come later, by cursor or without one, and over rotations.
        let mut disk = disk.power_cut(Survivors::None);
        for life in ["at once", "later", "without a cursor"] {
            if life == "without a cursor" {
                lose_cursors(&disk);
            }
            assert!(
                verify(&disk).is_clean(),
                "{life}: {:?}",
                verify(&disk).findings
            );
            let found = verify(&disk).findings;
            assert!(
                found.iter().all(|f| f.kind == FindingKind::Lost),
                "{life}: {found:?}"
            );
            let wal =
                try_open_strictly(&disk).unwrap_or_else(|e| panic!("{life}: {}", describe(&e)));
            assert_eq!(wal.opened().gaps, [], "{life}");
            assert_eq!(wal.totals().lost, count, "{life}");
            assert_same(&read_all(&wal)[..kept.len()].to_vec(), &kept);
            for number in 0..30 {
                wal.append_wait(&sized(number, 50_000)).unwrap();
            }
            disk = disk.power_cut(Survivors::None);
        }
    }
    assert_no_engine_thread_panicked();
}

/// Appending, rotating and settling go on; the gap is told by each segment that follows.
#[test]
fn damage_in_the_active_segment_is_given_up_while_it_grows() {
    for unreadable in [false, true] {
        let disk = Faulty::new(91);
        let wal = open(&disk);
        // Larger than what shares pages.
        let mut records: Records = (0..6)
            .map(|number| {
                let bytes = sized(number, 5000);
                (wal.append_wait(&bytes).unwrap(), bytes)
            })
            .collect();
        let name = disk.names("segment-").remove(0);
        let frame = frames(&disk, &name, 1)[4];
        if unreadable {
            disk.make_unreadable(&name, frame / PAGE);
        } else {
            disk.overwrite(&name, frame + 20, &[0xa5; 3]);
        }
        // Behind it, staged and not on disk yet.
        drop(wal.append(&record(6)).unwrap());
        let mut reader = wal.reader(SeqNo::ZERO);
        let (found, gaps) = read_past(&wal, &mut reader).unwrap();
        assert_eq!(numbers(&gaps), [(4, 5)]);
        let cause = if unreadable {
            Cause::Unreadable
        } else {
            Cause::Damaged
        };
        assert_eq!(gaps[0].cause, cause);
        records.push((SeqNo::new(6), record(6)));
        assert_same(&found, &without(&records, 4..5));
        for number in 7..60 {
            let bytes = sized(number, 50_000);
            records.push((wal.append_wait(&bytes).unwrap(), bytes));
        }
        let (found, gaps) = read_past(&wal, &mut reader).unwrap();
        assert_eq!(gaps, []);
        assert_same(&found, &records[7..].to_vec());
        let disk = disk.kill();
        lose_cursors(&disk);
        let wal = try_open_strictly(&disk).unwrap();
        assert_same(&read_all(&wal), &without(&records, 4..5));
        assert_eq!(lost_and_queued(&wal), (1, 59));
    }
}

/// What is settled keeps its outcome, what is in flight gets the one that comes first, and the low mark
/// passes only what has one.
#[test]
fn p6_records_in_flight_and_settled_ones_keep_their_account_over_a_loss() {
    let (disk, _) = long(92, 60);
    let wal = open(&disk);
    for seq in [12, 13, 14, 15] {
        damage(&disk, seq);
    }
    let seq = SeqNo::new;
    // 13 was shipped from another reader's memory, 14 is in flight, and so are 10 and 20.
    wal.settle(seq(0)..seq(10), Class::Shipped);
    wal.settle(seq(13)..seq(14), Class::Shipped);
    let (_, gaps) = read_past(&wal, &mut wal.reader(seq(10))).unwrap();
    assert_eq!(numbers(&gaps), [(12, 16)]);
    assert_eq!(lost_and_queued(&wal), (3, 46));
    assert_eq!(wal.marks().acked, seq(10));
    assert_eq!(
        wal.settle(seq(14)..seq(15), Class::Shipped),
        0,
        "it was first"
    );
    wal.settle(seq(20)..seq(21), Class::Shipped);
    for life in 0..2 {
        assert_eq!(lost_and_queued(&wal), (3, 45), "life {life}");
        wal.save_cursor().unwrap();
    }
    assert_eq!(wal.settle(seq(10)..seq(12), Class::Shipped), 2);
    assert_eq!(wal.marks().acked, seq(16), "behind the gap");
    wal.save_cursor().unwrap();
    let wal = open(&disk.kill());
    assert_eq!(lost_and_queued(&wal), (3, 43));
    let totals = wal.totals();
    assert_eq!(
        (totals.shipped, wal.marks().acked),
        (14, seq(16)),
        "{totals:?}"
    );
}

/// Each finds all the rest, and the damage is given up once.
#[test]
fn readers_that_meet_the_same_damage_make_one_gap() {
    let (disk, records) = long(93, 60);
    let wal = open(&disk);
    for seq in [5, 6, 30, 58] {
        damage(&disk, seq);
    }
    let read = || read_past(&wal, &mut wal.reader(SeqNo::ZERO)).unwrap();
    let (one, other) = std::thread::scope(|scope| {
        let (one, other) = (scope.spawn(read), scope.spawn(read));
        (one.join().unwrap(), other.join().unwrap())
    });
    let kept: Records = records
        .into_iter()
        .filter(|(seq, _)| ![5, 6, 30, 58].contains(&seq.get()))
        .collect();
    assert_same(&one.0, &kept);
    assert_same(&other.0, &kept);
    let mut gaps = numbers(&[one.1, other.1].concat());
    gaps.sort_unstable();
    assert_eq!(gaps, [(5, 7), (30, 31), (58, 59)]);
    assert_eq!(lost_and_queued(&wal), (4, 56));
}

/// At any operation of a repair: the gap is durable before the low mark passes it, and the next life
/// comes to the same end.
#[test]
fn a_loss_that_is_cut_short_anywhere_ends_the_same_in_the_next_life() {
    let (disk, records) = long(94, 60);
    let kept = without(&records, 20..21);
    let first_life = |disk: &Faulty, operation: usize| {
        let wal = open(disk);
        damage(disk, 20);
        // When 20 has its outcome the low mark goes to the end.
        wal.settle(SeqNo::ZERO..SeqNo::new(20), Class::Shipped);
        wal.settle(SeqNo::new(21)..SeqNo::new(60), Class::Shipped);
        wal.save_cursor().unwrap();
        let mut reader = wal.reader(SeqNo::new(20));
        assert!(reader.next().is_err());
        disk.clear_trace();
        disk.fail(Fault {
            kind: None,
            name: "",
            skip: operation,
            times: usize::MAX,
            failure: Failure::Errno(EIO),
        });
        let gap = wal.give_up(&mut reader);
        let saved = wal.save_cursor();
        let after = disk.kill();
        let operations = disk.trace().len();
        after.heal();
        (after, gap, saved.is_ok(), operations)
    };
    let (complete, gap, saved, operations) = first_life(&disk.copy(), usize::MAX);
    assert!(gap.unwrap().is_some() && saved);
    assert_eq!(lost_and_queued(&open(&complete)), (1, 0));
    assert!(operations > 15, "{operations} operations");
    let mut given_up = 0;
    for operation in 0..operations + 3 {
        for survivors in [Survivors::None, Survivors::All, Survivors::Some] {
            let at = format!("operation {operation}, {survivors:?}");
            let (disk, gap, _, _) = first_life(&disk.copy(), operation);
            disk.lose_power(survivors);
            let seen = view(&disk).unwrap();
            let passed = seen.marks().acked > SeqNo::new(20);
            if passed {
                // The gap says so, also where the cursor is lost.
                let disk = disk.copy();
                lose_cursors(&disk);
                let lost = view(&disk).unwrap().totals().lost;
                assert_eq!(lost, 1, "{at}: passed, and nobody knows");
            }
            let wal = open(&disk);
            if gap.is_ok_and(|gap| gap.is_some()) {
                given_up += 1;
                assert_eq!(lost_and_queued(&wal), (1, 0), "{at}: it was durable");
            }
            read_past(&wal, &mut wal.reader(wal.marks().acked)).unwrap();
            assert_eq!(lost_and_queued(&wal), (1, 0), "{at}");
            let first = wal.marks().first;
            drop(wal);
            let mut kept = kept.clone();
            kept.retain(|(seq, _)| *seq >= first);
            let wal = open(&disk);
            let mut found = read_all(&wal);
            found.retain(|(seq, _)| *seq < SeqNo::new(60));
            kept.retain(|(seq, _)| *seq >= wal.marks().first);
            assert_same(&found, &kept);
        }
    }
    assert!(given_up > 0);
    assert_no_engine_thread_panicked();
}

/// R2: the sync of the gap fails; then that of the rewrite, too.
#[test]
fn r2_a_gap_whose_sync_fails_goes_to_a_fresh_segment_or_nothing_is_given_up() {
    for failures in [1, 2] {
        let (disk, records) = long(95, 60);
        let wal = open(&disk);
        damage(&disk, 20);
        let mut reader = wal.reader(SeqNo::new(20));
        assert!(reader.next().is_err());
        disk.fail_next(Kind::Sync, "segment-", failures, Failure::Errno(EIO));
        let gap = wal.give_up(&mut reader);
        if failures == 1 {
            assert_eq!(numbers(&[gap.unwrap().unwrap()]), [(20, 21)]);
            assert_eq!(lost_and_queued(&wal), (1, 59));
        } else {
            assert!(matches!(gap, Err(Error::Failed { .. })));
            assert_eq!(lost_and_queued(&wal), (0, 60));
            assert!(matches!(reader.next(), Err(Error::Corrupt { .. })));
        }
        let disk = disk.power_cut(Survivors::None);
        let wal = open(&disk);
        let (found, _) = read_past(&wal, &mut wal.reader(SeqNo::ZERO)).unwrap();
        assert_same(&found, &without(&records, 20..21));
        assert_eq!(lost_and_queued(&wal), (1, 59));
    }
}

#[test]
fn on_a_full_disk_nothing_is_given_up_until_space_returns() {
    let (disk, records) = long(96, 60);
    let mut options = options();
    options.on_full = OnFull::Reject;
    let wal = try_open_with(&disk, options).unwrap();
    damage(&disk, 20);
    disk.set_capacity(Some(disk.used()));
    let filled = (0..100).find_map(|number| wal.append_wait(&sized(number, 50_000)).err());
    assert!(matches!(filled, Some(Error::Full { .. })));
    let mut reader = wal.reader(SeqNo::new(20));
    assert!(reader.next().is_err());
    let error = wal.give_up(&mut reader).expect_err("there is no space");
    assert!(
        matches!(error, Error::Full { .. } | Error::Io { .. }),
        "{}",
        describe(&error)
    );
    assert_eq!(wal.totals().lost, 0);
    disk.set_capacity(None);
    until("space", || wal.append_wait(&record(1)).is_ok());
    assert!(wal.give_up(&mut reader).unwrap().is_some());
    let found = read_past(&wal, &mut reader).unwrap().0;
    assert_same(&found[..39].to_vec(), &records[21..].to_vec());
    assert_eq!(wal.totals().lost, 1);
}

#[test]
fn what_the_disk_gives_after_all_is_not_given_up() {
    let (disk, records) = long(97, 60);
    let wal = open(&disk);
    let (name, frame) = place(&disk, 20);
    let page = disk.bytes(&name, frame, PAGE as usize);
    disk.make_unreadable(&name, frame / PAGE);
    let mut reader = wal.reader(SeqNo::new(20));
    assert!(matches!(reader.next(), Err(Error::Corrupt { .. })));
    disk.overwrite(&name, frame, &page);
    assert_eq!(wal.give_up(&mut reader).unwrap(), None);
    assert_same(
        &read_past(&wal, &mut reader).unwrap().0,
        &records[20..].to_vec(),
    );
    assert_eq!(lost_and_queued(&wal), (0, 60));
}

#[test]
fn whoever_is_to_refuse_damage_gives_nothing_up() {
    let (disk, _) = long(98, 60);
    let mut options = options();
    options.on_corruption = OnCorruption::Refuse;
    let wal = try_open_with(&disk, options).unwrap();
    damage(&disk, 20);
    let mut reader = wal.reader(SeqNo::new(20));
    assert!(reader.next().is_err());
    disk.clear_trace();
    assert!(matches!(
        wal.give_up(&mut reader),
        Err(Error::Corrupt { .. })
    ));
    assert!(disk.trace().iter().all(|op| op.kind != Kind::Create));
    assert_eq!(lost_and_queued(&wal), (0, 60));
    assert!(matches!(reader.next(), Err(Error::Corrupt { .. })));
}

/// It holds no record that is asked for.
#[test]
fn damage_in_front_of_where_a_reader_begins_is_not_its_business() {
    let (disk, records) = long(99, 60);
    let wal = open(&disk);
    let (name, _) = damage(&disk, 20);
    let next = (22..).find(|seq| place(&disk, *seq).0 == name).unwrap();
    let (found, gaps) = read_past(&wal, &mut wal.reader(SeqNo::new(next))).unwrap();
    assert_same(&found, &records[next as usize..].to_vec());
    assert_eq!(gaps, []);
}

/// A file with pages that a reader could not read is removed, and not recycled.
#[test]
fn a_file_that_a_reader_found_unreadable_does_not_live_again() {
    let (disk, _) = long(100, 60);
    let wal = open(&disk);
    let (name, frame) = damage(&disk, 20);
    disk.make_unreadable(&name, frame / PAGE);
    let (_, gaps) = read_past(&wal, &mut wal.reader(SeqNo::ZERO)).unwrap();
    assert_eq!(gaps[0].cause, Cause::Unreadable);
    wal.settle(SeqNo::ZERO..SeqNo::new(60), Class::Shipped);
    until("release", || wal.marks().first.get() >= 60);
    until("removal", || !disk.names("").contains(&name));
}

/// The last of very many takes the rest of its segment: the list of gaps stays within bounds.
#[test]
fn r12_more_damage_than_can_be_told_apart_is_told_as_one() {
    let disk = Faulty::new(101);
    let mut options = options();
    options.segment_size = 16 << 20;
    options.durability = Durability::Os;
    let wal = try_open_with(&disk, options).unwrap();
    for number in 0..2200 {
        wal.append_wait(&sized(number, 4000)).unwrap();
    }
    wal.sync().unwrap();
    let name = disk.names("segment-").remove(0);
    for frame in frames(&disk, &name, 1).iter().step_by(2) {
        disk.overwrite(&name, frame + 70, &[0xa5; 3]);
    }
    let (found, gaps) = read_past(&wal, &mut wal.reader(SeqNo::ZERO)).unwrap();
    assert_eq!((gaps.len(), found.len()), (1025, 1024));
    assert_eq!(lost_and_queued(&wal), (2200 - 1024, 1024));
    let wal = open(&disk.kill());
    assert_eq!(lost_and_queued(&wal), (2200 - 1024, 1024));
    assert_same(&read_all(&wal), &found);
}
