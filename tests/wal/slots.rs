//! Records that do not fill a page: they share one, and are durable in a tail slot until it is full.

use ferrylog::wal::{Class, Durability, Error, SeqNo, Wal};

use crate::common::{
    BODY, Records, append_all, append_sized, assert_no_engine_thread_panicked, assert_same,
    describe, drain, drain_past_damage, open, open_still, options, read_all, sized, try_open, view,
    with_level,
};
use crate::damage::{SLOTS, frames, verify};
use crate::faulty::{Failure, Faulty, Kind, Survivors};

const PAGE: u64 = 4096;

/// Records of 200 bytes, each synced alone.
fn append_singly(wal: &Wal<Faulty>, numbers: std::ops::Range<u64>) -> Records {
    append_sized(wal, numbers, 200)
}

fn segment(disk: &Faulty) -> String {
    disk.names("segment-").pop().unwrap()
}

#[test]
fn a_record_synced_alone_takes_a_share_of_a_page_and_one_write() {
    let disk = Faulty::new(70);
    let wal = open_still(&disk, options()).unwrap();
    disk.clear_trace();
    let records = append_singly(&wal, 0..1900);
    let trace = disk.trace();
    let name = segment(&disk);
    let writes = |kept: fn(u64) -> bool| {
        let own = trace
            .iter()
            .filter(|op| op.kind == Kind::Write && op.name == name);
        own.filter(|op| op.len == PAGE && kept(op.position)).count() as u64
    };
    // 208 bytes each in frames of a page, and nothing else: 19 records a page.
    let pages = 1900 / 19;
    assert_eq!(writes(|position| position >= BODY), pages - 1, "full pages");
    assert_eq!(
        writes(|position| position < BODY),
        1900,
        "one to a slot for each record"
    );
    wal.close().unwrap();
    let used = frames(&disk, &name, 1).last().unwrap() + PAGE - frames(&disk, &name, 1)[0];
    assert!(
        1900 * 208 * 10 >= used * 9,
        "at least 0.9 of dense: {used} bytes"
    );
    assert_same(
        &drain(view(&disk).unwrap().reader(SeqNo::ZERO)).unwrap(),
        &records,
    );
    assert!(verify(&disk).is_clean());
}

#[test]
fn what_stands_in_a_slot_alone_is_read_at_once_by_everyone_and_survives() {
    for count in 1..45 {
        let disk = Faulty::new(71);
        let wal = open(&disk);
        let mut reader = wal.reader(SeqNo::ZERO);
        let mut records = Records::new();
        for number in 0..count {
            records.extend(append_singly(&wal, number..number + 1));
            let found = reader.next().unwrap().unwrap();
            assert_eq!(found.seq.get(), number, "of {count}");
            assert!(found.payload == records[number as usize].1);
            assert!(reader.next().unwrap().is_none());
        }
        assert_same(&read_all(&wal), &records);
        // Two more lives: then it is no longer the newest segment that needs its slot.
        let mut disk = disk.power_cut(Survivors::None);
        for life in ["first", "second"] {
            assert_same(
                &drain(view(&disk).unwrap().reader(SeqNo::ZERO)).unwrap(),
                &records,
            );
            let verified = verify(&disk);
            assert!(
                verified.is_clean(),
                "{life} of {count}: {:?}",
                verified.findings
            );
            let wal = open(&disk);
            assert_eq!(wal.opened().gaps, [], "{life} of {count}");
            assert_same(&read_all(&wal), &records);
            records.extend(append_singly(&wal, 100..103));
            disk = disk.power_cut(Survivors::None);
        }
        assert_same(&read_all(&open(&disk)), &records);
    }
    assert_no_engine_thread_panicked();
}

#[test]
fn a_reader_that_lags_behind_the_page_reads_each_record_once() {
    let disk = Faulty::new(72);
    let wal = open(&disk);
    for step in 1..7 {
        let mut reader = wal.reader(wal.marks().next);
        let mut expected = Records::new();
        for number in 0..40 {
            expected.extend(append_singly(&wal, number..number + 1));
            if number % step == 0 {
                let (seq, bytes) = expected.remove(0);
                let found = reader.next().unwrap().unwrap();
                assert_eq!(found.seq, seq, "every {step}");
                assert!(found.payload == bytes);
            }
        }
        assert_same(&drain(reader).unwrap(), &expected);
    }
}

/// Also in the middle of a log (row D): the slot is a second copy of the page that was written last.
#[test]
fn f13_where_a_page_is_bad_in_its_place_the_slot_stands_in() {
    let disk = Faulty::new(73);
    let wal = open(&disk);
    let mut records = append_singly(&wal, 0..10);
    let large = sized(10, 5000);
    records.push((wal.append_wait(&large).unwrap(), large));
    let disk = disk.power_cut(Survivors::None);
    drop(wal);
    let name = segment(&disk);
    let page = frames(&disk, &name, 1)[0];
    assert!(page.is_multiple_of(PAGE));
    disk.overwrite(&name, page, &[0xa5; PAGE as usize]);
    let wal = open(&disk);
    assert_eq!(wal.opened().gaps, []);
    assert_same(&read_all(&wal), &records);
}

/// What one slot loses the other one has, but for the last record; and that is told, if it was promised.
#[test]
fn a_slot_that_rots_costs_the_last_record_at_most() {
    for count in 2..19 {
        for slot in SLOTS {
            for promised in [false, true] {
                let disk = Faulty::new(74);
                let wal = open(&disk);
                let mut records = append_singly(&wal, 0..count);
                if promised {
                    wal.save_cursor().unwrap();
                }
                let disk = disk.power_cut(Survivors::None);
                drop(wal);
                disk.overwrite(&segment(&disk), slot + 70, &[0xa5; 9]);
                let wal = open(&disk);
                let at = format!("{count} records, slot at {slot}: {}", wal.opened());
                let found = read_all(&wal);
                let gaps = &wal.opened().gaps;
                if found.len() < records.len() {
                    let last = records.pop().unwrap().0;
                    assert!(
                        !promised || gaps.len() == 1 && gaps[0].seqs == (last..last + 1),
                        "{at}"
                    );
                } else {
                    assert_eq!(*gaps, [], "{at}");
                }
                assert_same(&found, &records);
                assert!(wal.totals().balances(), "{at}");
            }
        }
    }
}

/// A seed found it: of the page in its place only the front is there, and a damaged frame follows it.
#[test]
fn a_slot_stands_in_for_a_page_also_where_the_next_page_is_damaged() {
    let disk = Faulty::new(79);
    let wal = open_still(&disk, options()).unwrap();
    let records = [sized(0, 600), sized(1, 8)];
    wal.append_wait(&records[0]).unwrap();
    wal.define(b"a frame between").unwrap();
    wal.append_wait(&records[1]).unwrap();
    wal.save_cursor().unwrap();
    let ticket = wal.append(&sized(2, 7000)).unwrap();
    ticket.wait_for(Durability::Os).unwrap();
    let disk = disk.kill();
    let name = segment(&disk);
    let all = frames(&disk, &name, 1);
    let [first, second, third] = all[..] else {
        panic!("{all:?}")
    };
    assert_eq!((first % PAGE, third), (0, first + PAGE));
    assert!(second >= first + 704);
    disk.overwrite(&name, first + 704, &[0; 4096 - 704]);
    disk.overwrite(&name, third + 100, &[0xa5; 9]);
    let wal = open(&disk);
    assert_eq!(wal.opened().gaps, []);
    let expected: Records = (0..).map(SeqNo::new).zip(records).collect();
    assert_same(&read_all(&wal), &expected);
}

/// A seed found it: a crash while a slot is written may leave an old frame and, in the next sector, one
/// that follows a longer frame. Nothing between them is there; the other slot has it.
#[test]
fn a_slot_of_two_ages_does_not_stand_in_for_more_than_it_holds() {
    const SECTOR: usize = 512;
    let disk = Faulty::new(78);
    let wal = open_still(&disk, options()).unwrap();
    // A frame of 496 bytes, which the next record makes 512.
    let records = [sized(0, 424), sized(1, 8)];
    wal.append_wait(&records[0]).unwrap();
    let name = segment(&disk);
    let written = |slot: &u64| disk.bytes(&name, *slot, 4) != [0; 4];
    let slot = SLOTS.into_iter().find(written).unwrap();
    let old = disk.bytes(&name, slot, SECTOR);
    wal.append_wait(&records[1]).unwrap();
    assert!(disk.bytes(&name, slot, SECTOR) == old, "the other slot");
    wal.save_cursor().unwrap();
    wal.define(b"next").unwrap();
    let ticket = wal.append(&sized(2, 8)).unwrap();
    ticket.wait_for(Durability::Os).unwrap();
    assert!(disk.bytes(&name, slot, SECTOR) != old, "this one again");
    let disk = disk.kill();
    disk.overwrite(&name, slot, &old);
    let wal = open(&disk);
    assert_eq!(wal.opened().gaps, []);
    let expected: Records = (0..).map(SeqNo::new).zip(records).collect();
    assert_same(&read_all(&wal), &expected);
}

/// A log whose last records stand in the slots alone, every byte of them and of what is around changed.
#[test]
fn r12_no_byte_of_a_slot_makes_a_wrong_record_or_an_error() {
    let disk = Faulty::new(75);
    let wal = open(&disk);
    let records = append_all(&wal, 0..9);
    wal.settle(SeqNo::ZERO..SeqNo::new(2), Class::Shipped);
    let disk = disk.kill();
    drop(wal);
    let name = segment(&disk);
    let mut changed = 0;
    for slot in SLOTS {
        let page = disk.bytes(&name, slot, PAGE as usize);
        let used = page.iter().rposition(|&byte| byte != 0).unwrap_or(0) + 9;
        for at in (0..200).chain((200..used).step_by(13)) {
            let disk = disk.copy();
            disk.overwrite(&name, slot + at as u64, &[page[at] ^ 0x41]);
            let viewed = view(&disk).unwrap();
            let _ = viewed.verify(&mut |_, _| ()).unwrap();
            let (found, _) = drain_past_damage(viewed.reader(SeqNo::ZERO)).unwrap();
            assert!(
                found.iter().all(|record| records.contains(record)),
                "{slot} + {at}"
            );
            let wal = try_open(&disk).unwrap_or_else(|e| panic!("{slot} + {at}: {}", describe(&e)));
            let found = read_all(&wal);
            assert!(
                found.len() + 1 >= records.len(),
                "{slot} + {at}: {}",
                found.len()
            );
            assert_same(&found, &records[..found.len()].to_vec());
            changed += 1;
        }
    }
    assert!(changed > 400, "{changed} bytes");
    assert_no_engine_thread_panicked();
}

/// R2: what stands in a slot goes on in the fresh segment with the record whose sync failed.
#[test]
fn r2_a_failed_sync_takes_the_pending_page_along() {
    for before in 0..40 {
        let disk = Faulty::new(76);
        let wal = open(&disk);
        let mut records = append_singly(&wal, 0..before);
        disk.fail_next(Kind::Sync, "segment-", 1, Failure::Errno(5));
        records.extend(append_singly(&wal, before..before + 3));
        assert_same(&read_all(&wal), &records);
        assert!(wal.totals().balances());
        let disk = disk.power_cut(Survivors::None);
        drop(wal);
        let wal = open(&disk);
        assert_eq!(wal.opened().gaps, []);
        assert_same(&read_all(&wal), &records);
    }
}

/// Level `os` writes often and syncs seldom: it fills pages as well.
#[test]
fn records_that_are_only_written_share_pages_too() {
    let disk = Faulty::new(77);
    let wal = open(&disk);
    let records: Records = (0..100)
        .map(|number| {
            let bytes = sized(number, 200);
            let ticket = wal.append(&bytes).unwrap();
            let seq = ticket.seq();
            ticket.wait_for(Durability::Os).unwrap();
            (seq, bytes)
        })
        .collect();
    let disk = disk.kill();
    drop(wal);
    assert!(
        frames(&disk, &segment(&disk), 1).len() <= 100 / 19,
        "19 a page"
    );
    assert_same(&read_all(&open(&disk)), &records);
}

/// By what it takes, and not by what it might have: also what is written page by page.
#[test]
fn what_no_sync_covers_counts_against_the_memory_budget() {
    for (len, expected) in [(3_000, 50..128), (9_000, 20..43), (60_000, 4..9)] {
        let disk = Faulty::new(79);
        let mut options = with_level(Durability::Os);
        options.memory_budget = 512 << 10;
        let wal = open_still(&disk, options).unwrap();
        for round in 1..3 {
            let taken = (0..1000).take_while(|&number| {
                let tried = wal.try_append(&sized(number, len));
                let busy = matches!(tried, Err(Error::Busy));
                assert!(busy || tried.unwrap().wait().is_ok());
                !busy
            });
            let taken = taken.count();
            assert!(
                expected.contains(&taken),
                "{taken} of {len} B in round {round}"
            );
            wal.sync().unwrap();
        }
    }
}
