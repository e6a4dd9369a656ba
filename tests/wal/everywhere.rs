//! A small life of a log from its creation to its end, cut short at every operation, and the recovery
//! from there cut short at every operation again.
//!
//! Owns: the life, and the walk. Must not know: what must hold, which is the oracle's.

use std::sync::atomic::{AtomicUsize, Ordering};

use ferrylog::wal::{Class, Durability, Error, SeqNo, Wal, Worker};

use crate::common::{describe, open_still, options, sized, view};
use crate::crash::recover_halfway;
use crate::faulty::{Faulty, Survivors};
use crate::oracle::{Known, check};

const ENDS: [Option<Survivors>; 4] = [
    None,
    Some(Survivors::None),
    Some(Survivors::Some),
    Some(Survivors::All),
];

/// Appends records that are acknowledged at a level.
fn append(
    wal: &Wal<Faulty>,
    known: &mut Known,
    level: Durability,
    lens: &[usize],
) -> Result<(), Error> {
    let number = known.next.get();
    let records: Vec<Vec<u8>> = (number..)
        .zip(lens)
        .map(|(n, len)| sized(n, *len))
        .collect();
    let ticket = wal.append_batch(&records)?;
    known.give(ticket.range(), &records);
    known.batches.push(ticket.range());
    let end = ticket.range().end;
    ticket.wait_for(level)?;
    known.acknowledge(end, level);
    Ok(())
}

fn settle_and_keep(wal: &Wal<Faulty>, known: &mut Known, below: SeqNo) {
    known.settle(wal, SeqNo::ZERO..below, Class::Shipped);
    while wal.step(Worker::Keeper) && wal.background_error().is_none() {}
}

/// Everything that a log does, once: creation, groups, a rotation, a release, the next life of the
/// file, and the end.
fn live(disk: &Faulty, known: &mut Known) -> Result<(), Error> {
    let mut options = options();
    options.max_spares = 1;
    let wal = open_still(disk, options)?;
    append(&wal, known, Durability::Disk, &[100])?;
    append(&wal, known, Durability::Os, &[5000, 0, 20])?;
    // Two such fill a segment.
    append(&wal, known, Durability::Disk, &[300_000, 200_000])?;
    append(&wal, known, Durability::Disk, &[300_000, 200_000])?;
    append(&wal, known, Durability::Os, &[10])?;
    settle_and_keep(&wal, known, SeqNo::new(6));
    append(&wal, known, Durability::Disk, &[300_000, 200_000])?;
    drop(append(&wal, known, Durability::Memory, &[7]));
    settle_and_keep(&wal, known, SeqNo::new(9));
    let end = wal.marks().next;
    wal.close()?;
    known.acknowledge(end, Durability::Disk);
    known.saved = known.settled.clone();
    Ok(())
}

fn ended(disk: &Faulty, survivors: Option<Survivors>) -> Faulty {
    let after = disk.copy();
    if let Some(survivors) = survivors {
        after.lose_power(survivors);
    }
    after
}

/// The oracle's judgement of what is left; returns how many operations the recovery took.
fn judge(disk: &Faulty, known: &Known, killed: bool, at: &str) -> usize {
    disk.clear_trace();
    let wal = open_still(disk, options()).unwrap_or_else(|e| panic!("{at}: {}", describe(&e)));
    let operations = disk.trace().len();
    check(&wal, known, killed, at);
    operations
}

#[test]
fn a_life_cut_short_anywhere_and_its_recovery_anywhere_again_keeps_all_promises() {
    let whole = Faulty::new(1);
    live(&whole, &mut Known::default()).unwrap_or_else(|error| panic!("{}", describe(&error)));
    let operations = whole.trace().len();
    let lived_again = view(&whole).unwrap().segments();
    assert!(lived_again.iter().any(|segment| segment.number == 3));
    assert_eq!(whole.names("segment-").len(), 2, "a file lives again");
    let (next, judged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(1, Ordering::SeqCst);
                    if first > operations {
                        return;
                    }
                    judged.fetch_add(cut_short(first), Ordering::SeqCst);
                }
            });
        }
    });
    let judged = judged.into_inner();
    println!("{operations} operations, {judged} recoveries");
    assert!(judged > 20 * operations);
}

/// The life cut short at this operation, in all ways, and the recovery from each at every one of its
/// operations. Returns how many recoveries were judged.
fn cut_short(first: usize) -> usize {
    let disk = Faulty::new(1);
    let mut known = Known::default();
    disk.die_in(first);
    drop(live(&disk, &mut known));
    let mut judged = 0;
    for end in ENDS {
        let at = format!("operation {first}, {end:?}");
        let steps = judge(&ended(&disk, end), &known, end.is_none(), &at);
        for second in 0..steps {
            let next = ENDS[(first + second) % 4];
            let at = format!("{at}, then {second}, {next:?}");
            let after = ended(&recover_halfway(&ended(&disk, end), second), next);
            judge(&after, &known, end.is_none() && next.is_none(), &at);
        }
        judged += 1 + steps;
    }
    judged
}
