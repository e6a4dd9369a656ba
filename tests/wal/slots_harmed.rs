//! Tail slots where a disk does harm: what a slot still holds must neither hide what stands in its
//! page's place, nor show what no sync covers.

use ferrylog::wal::{Class, SeqNo, Wal, Worker};

use crate::common::{append_sized, open, open_still, options, read_all, sized, until, write_sized};
use crate::damage::{SLOTS, frames};
use crate::faulty::{Faulty, Kind, PAGE, Survivors};
use crate::repair::lose_cursors;

fn only_segment(disk: &Faulty) -> String {
    disk.names("segment-").remove(0)
}

fn numbers(wal: &Wal<Faulty>) -> Vec<u64> {
    read_all(wal).iter().map(|(seq, _)| seq.get()).collect()
}

/// A reader that meets damage looks at the slots: what was only written is not for it.
#[test]
fn r14_behind_damage_a_slot_that_no_sync_covers_is_not_read() {
    for given_up in [false, true] {
        let disk = Faulty::new(110);
        let wal = open_still(&disk, options()).unwrap();
        append_sized(&wal, 0..3, 5000);
        let name = only_segment(&disk);
        disk.overwrite(&name, frames(&disk, &name, 1)[0] + 20, &[0xa5; 3]);
        if given_up {
            let mut reader = wal.reader(SeqNo::ZERO);
            reader.next().unwrap_err();
            wal.give_up(&mut reader).unwrap().unwrap();
        }
        append_sized(&wal, 3..4, 100);
        write_sized(&wal, 4..5, 100);
        let mut reader = wal.reader(SeqNo::new(u64::from(!given_up)));
        for expected in 1..4 {
            let found = reader.next().unwrap().unwrap();
            assert_eq!(found.seq.get(), expected);
            wal.settle(found.seq..found.seq + 1, Class::Shipped);
        }
        assert!(reader.next().unwrap().is_none(), "durable is 4");
    }
}

/// A log whose first page went to its place while a slot kept an earlier, shorter copy of it: the
/// records 0 and 1 in one frame, the others in frames of their own.
fn with_stale_slot() -> (Faulty, String, Vec<u64>) {
    let disk = Faulty::new(111);
    let wal = open_still(&disk, options()).unwrap();
    append_sized(&wal, 0..1, 100);
    disk.hold(Kind::Sync);
    std::thread::scope(|scope| {
        scope.spawn(|| append_sized(&wal, 1..2, 100));
        disk.await_held(1);
        for number in 2..5 {
            wal.define(format!("topic {number}").as_bytes()).unwrap();
            drop(wal.append(&sized(number, 100)).unwrap());
        }
        // One slot is durable, the other one is being synced: the page goes to its place.
        while wal.step(Worker::Flusher) {}
        disk.release();
    });
    append_sized(&wal, 5..6, 100);
    wal.save_cursor().unwrap();
    wal.save_cursor().unwrap();
    let name = only_segment(&disk);
    let places = frames(&disk, &name, 1);
    let disk = disk.power_cut(Survivors::None);
    assert_eq!(numbers(&open(&disk.copy())), [0, 1, 2, 3, 4, 5]);
    (disk, name, places)
}

#[test]
fn r9_where_a_slot_is_older_than_its_page_a_flipped_byte_still_costs_its_frame_alone() {
    let (disk, name, places) = with_stale_slot();
    for (at, &place) in places.iter().enumerate() {
        let disk = disk.copy();
        disk.overwrite(&name, place + 70, &[0xa5]);
        let found = numbers(&open(&disk));
        let hit = if at == 0 {
            0..2
        } else {
            at as u64 + 1..at as u64 + 2
        };
        let all = (0..6).filter(|number| !hit.contains(number));
        assert!(
            all.clone().all(|n| found.contains(&n)),
            "frame {at}: {found:?}"
        );
    }
}

#[test]
fn an_unreadable_page_is_told_where_a_slot_is_older_than_it() {
    let (disk, name, places) = with_stale_slot();
    disk.make_unreadable(&name, places[0] / PAGE);
    let wal = open(&disk);
    let (found, totals) = (numbers(&wal), wal.totals());
    assert!(found.len() < 6 && found.contains(&5), "{found:?}");
    assert!(!wal.opened().gaps.is_empty());
    assert_eq!(totals.lost + totals.queued, 6, "{totals:?}");
}

/// Row K: nobody knows what stood in it, and its file is no spare.
#[test]
fn an_unreadable_slot_is_told_and_its_file_does_not_live_again() {
    for bad in [vec![SLOTS[0]], vec![SLOTS[1]], SLOTS.to_vec()] {
        let disk = Faulty::new(112);
        let wal = open(&disk);
        append_sized(&wal, 0..5, 100);
        let name = only_segment(&disk);
        let disk = disk.power_cut(Survivors::None);
        drop(wal);
        for slot in &bad {
            disk.make_unreadable(&name, slot / PAGE);
        }
        let wal = open(&disk);
        let found = numbers(&wal).len();
        assert!(
            found == 5 || !wal.opened().gaps.is_empty(),
            "{bad:?}: {found} of 5"
        );
        let end = wal.append_wait(&sized(9, 100)).unwrap();
        wal.settle(SeqNo::ZERO..end + 1, Class::Shipped);
        until("removal", || !disk.names("segment-").contains(&name));
    }
}

#[test]
fn a_gap_that_stands_in_a_slot_alone_is_kept_without_a_cursor() {
    let disk = Faulty::new(113);
    let wal = open(&disk);
    append_sized(&wal, 0..3, 5000);
    let name = only_segment(&disk);
    let place = frames(&disk, &name, 1)[1];
    wal.close().unwrap();
    let wal = open(&disk);
    disk.overwrite(&name, place + 20, &[0xa5; 3]);
    let mut reader = wal.reader(SeqNo::ZERO);
    reader.next().unwrap();
    reader.next().unwrap_err();
    wal.give_up(&mut reader).unwrap().unwrap();
    let mut disk = disk.power_cut(Survivors::None);
    for _ in 0..3 {
        lose_cursors(&disk);
        let wal = open(&disk);
        assert_eq!(wal.opened().gaps, []);
        assert_eq!((numbers(&wal), wal.totals().lost), (vec![0, 2], 1));
        disk = disk.power_cut(Survivors::None);
    }
}
