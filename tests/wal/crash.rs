//! Short lives that end in every way, from a printed seed: what was promised is there in the next one.
//!
//! [`history`] is the oracle. It drives a log on any disk that is dressed as one, and panics at the
//! first promise that is broken; `planted.rs` shows that it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ferrylog::wal::fs::Fs;
use ferrylog::wal::{Class, Durability, SeqNo, Wal};

use crate::common::{
    Records, append_all, assert_no_engine_thread_panicked, assert_same, describe, drain, open,
    read_all, sized, try_open, try_open_with, until, view, with_level,
};
use crate::faulty::{EIO, Failure, Fault, Faulty, Kind, Survivors};
use crate::random::Random;

const CLASSES: [Class; 5] = [
    Class::Shipped,
    Class::DeadLettered,
    Class::Expired,
    Class::Dropped,
    Class::Moved,
];

/// What a user of the log knows, and may rely on.
#[derive(Default)]
struct Known {
    /// Handed to the log, and not lost in a crash since.
    given: BTreeMap<SeqNo, Vec<u8>>,
    /// Every number ever given is below it.
    next: SeqNo,
    /// Acknowledged at level `disk`, and at level `os`.
    disk: BTreeSet<SeqNo>,
    os: BTreeSet<SeqNo>,
    batches: Vec<Range<SeqNo>>,
    settled: BTreeMap<SeqNo, Class>,
    /// What was settled when the cursor was last saved.
    saved: BTreeMap<SeqNo, Class>,
    definitions: BTreeMap<u32, Vec<u8>>,
    sync_failed: bool,
}

impl Known {
    fn give(&mut self, range: Range<SeqNo>, records: &[Vec<u8>]) {
        assert!(range.start >= self.next, "{} was given before", range.start);
        self.next = range.end;
        assert_eq!(range.end - range.start, records.len() as u64);
        for (index, bytes) in records.iter().enumerate() {
            self.given.insert(range.start + index as u64, bytes.clone());
        }
    }

    fn acknowledge(&mut self, below: SeqNo, level: Durability) {
        let given: Vec<SeqNo> = self.given.range(..below).map(|(seq, _)| *seq).collect();
        match level {
            Durability::Memory => {}
            Durability::Os => self.os.extend(given),
            Durability::Disk => self.disk.extend(given),
        }
    }
}

/// One life: some of everything.
fn live<F: Fs>(wal: &Wal<F>, disk: &Faulty, known: &mut Known, random: &mut Random) {
    let record = |random: &mut Random| {
        let len = match random.below(12) {
            0 => 0,
            1..6 => random.below(40),
            6..10 => random.below(3000),
            _ => random.below(100_000),
        };
        sized(random.next(), len as usize)
    };
    for _ in 0..random.below(60) {
        match random.below(20) {
            0..8 => {
                let bytes = record(random);
                let ticket = wal.append(&bytes).unwrap();
                known.give(ticket.range(), &[bytes]);
                let end = ticket.range().end;
                match random.below(4) {
                    0 => {
                        ticket.wait_for(Durability::Disk).unwrap();
                        known.acknowledge(end, Durability::Disk);
                    }
                    1 => {
                        ticket.wait_for(Durability::Os).unwrap();
                        known.acknowledge(end, Durability::Os);
                    }
                    _ => drop(ticket),
                }
            }
            8..12 => {
                let most = if random.one_in(4) { 300 } else { 8 };
                let count = 1 + random.below(most);
                let batch: Vec<Vec<u8>> = (0..count)
                    .map(|_| sized(random.next(), random.below(1500) as usize))
                    .collect();
                let ticket = wal.append_batch(&batch).unwrap();
                known.batches.push(ticket.range());
                known.give(ticket.range(), &batch);
                let end = ticket.range().end;
                if random.one_in(3) {
                    ticket.wait_for(Durability::Disk).unwrap();
                    known.acknowledge(end, Durability::Disk);
                }
            }
            12 => {
                let end = wal.marks().next;
                assert!(wal.sync().unwrap() >= end);
                known.acknowledge(end, Durability::Disk);
            }
            13..17 => settle(wal, known, random),
            17 => {
                wal.save_cursor().unwrap();
                known.saved = known.settled.clone();
            }
            18 => {
                let text = vec![b'a' + random.below(26) as u8; 1 + random.below(60) as usize];
                let id = wal.define(&text).unwrap().unwrap();
                assert_eq!(wal.definition(id).unwrap(), text);
                known.definitions.insert(id, text);
            }
            _ if random.one_in(3) => {
                known.sync_failed = true;
                disk.heal();
                disk.fail_next(Kind::Sync, "segment-", 1, Failure::Errno(EIO));
            }
            _ => {}
        }
        let marks = wal.marks();
        assert!(marks.first <= marks.acked && marks.acked <= marks.durable);
        assert!(marks.durable <= marks.next);
        assert!(wal.totals().balances());
    }
    // Now and then everything goes, so that files live again.
    if random.one_in(6) {
        let durable = wal.sync().unwrap();
        known.acknowledge(durable, Durability::Disk);
        let open: Vec<SeqNo> = known
            .disk
            .iter()
            .copied()
            .filter(|seq| *seq >= wal.marks().acked && !wal.is_settled(*seq))
            .collect();
        known
            .settled
            .extend(open.into_iter().map(|seq| (seq, Class::Shipped)));
        wal.settle(wal.marks().acked..durable, Class::Shipped);
        wal.save_cursor().unwrap();
        wal.save_cursor().unwrap();
        known.saved = known.settled.clone();
        let first = wal.marks().first;
        if view(disk).is_ok_and(|view| view.segments().len() > 2) {
            until("release", || wal.marks().first > first);
        }
    }
}

fn settle<F: Fs>(wal: &Wal<F>, known: &mut Known, random: &mut Random) {
    let (acked, durable) = (wal.marks().acked, wal.marks().durable);
    if acked == durable {
        return;
    }
    let from = if random.one_in(2) {
        0
    } else {
        random.below((durable - acked).min(50))
    };
    let range = acked + from..(acked + from + random.below(40)).min(durable);
    let class = CLASSES[random.below(5) as usize];
    for seq in known
        .given
        .range(range.start..range.end.max(range.start))
        .map(|(seq, _)| *seq)
    {
        // What was lost in a crash is void: it has no outcome to get.
        if !wal.is_settled(seq) {
            known.settled.insert(seq, class);
        }
    }
    wal.settle(range, class);
}

/// Everything that must hold after a recovery. Returns what was found.
fn check<F: Fs>(wal: &Wal<F>, known: &mut Known, killed: bool, seed: u64) -> Records {
    let found = read_all(wal);
    let marks = wal.marks();
    let numbers: BTreeSet<SeqNo> = found.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers.len(), found.len(), "seed {seed}: a number twice");
    assert!(
        found.is_sorted_by_key(|(seq, _)| *seq),
        "seed {seed}: order"
    );
    for (seq, bytes) in &found {
        let given = known.given.get(seq);
        assert!(
            given.is_some_and(|given| given == bytes),
            "seed {seed}: {seq} was not given so"
        );
    }
    let mut due = known.disk.clone();
    if killed && !known.sync_failed {
        due.extend(&known.os);
    }
    for seq in due {
        let gone = seq < marks.first && known.saved.contains_key(&seq);
        let gone = gone || seq < marks.first && known.settled.contains_key(&seq);
        assert!(
            gone || numbers.contains(&seq),
            "seed {seed}: {seq} is gone, {:?}",
            wal.opened()
        );
    }
    for batch in &known.batches {
        let whole = numbers.range(batch.clone()).count() as u64;
        let len = batch.end - batch.start;
        let released = batch.start < marks.first;
        assert!(
            released || whole == 0 || whole == len,
            "seed {seed}: {whole} of {len} of a batch"
        );
    }
    for seq in known.saved.keys() {
        assert!(
            wal.is_settled(*seq),
            "seed {seed}: {seq} was settled, and saved"
        );
    }
    // What was settled but not saved is open again.
    known.settled.retain(|seq, _| wal.is_settled(*seq));
    for seq in numbers.iter().filter(|seq| wal.is_settled(**seq)) {
        assert!(
            known.settled.contains_key(seq),
            "seed {seed}: nobody settled {seq}"
        );
    }
    let totals = wal.totals();
    assert!(totals.balances(), "seed {seed}: {totals:?}");
    let queued = numbers.iter().filter(|seq| !wal.is_settled(**seq)).count();
    assert_eq!(
        totals.queued, queued as u64,
        "seed {seed}: the log holds what is queued"
    );
    let count = |class| known.settled.values().filter(|c| **c == class).count() as u64;
    let by_class = CLASSES.map(count);
    let counted = [
        totals.shipped,
        totals.dead_lettered,
        totals.expired,
        totals.dropped,
        totals.moved,
    ];
    assert_eq!(counted, by_class, "seed {seed}: totals by class");
    assert_eq!((totals.lost, totals.unknown), (0, 0), "seed {seed}");
    assert_eq!(wal.opened().gaps, [], "seed {seed}: nothing was damaged");
    found
}

/// Four lives on a disk; `dress` is what stands between the log and it.
pub(crate) fn history<F: Fs + Clone>(seed: u64, dress: impl Fn(&Faulty) -> F) {
    let mut random = Random(seed);
    let mut disk = Faulty::new(seed);
    let mut known = Known::default();
    let mut killed = false;
    for _ in 0..4 {
        let level =
            [Durability::Memory, Durability::Os, Durability::Disk][random.below(3) as usize];
        let wal = try_open_with(&dress(&disk), with_level(level))
            .unwrap_or_else(|error| panic!("seed {seed}: {}", describe(&error)));
        let found = check(&wal, &mut known, killed, seed);
        known.saved = known.settled.clone();
        known.sync_failed = false;
        // What is here now stays, and what is not never comes back.
        known.disk = found.iter().map(|(seq, _)| *seq).collect();
        known.os.clear();
        let Known {
            given, disk: kept, ..
        } = &mut known;
        given.retain(|seq, _| kept.contains(seq));
        let in_use: Vec<u32> = known.definitions.keys().copied().collect();
        for id in in_use {
            match wal.definition(id) {
                Some(text) => assert!(text == known.definitions[&id], "seed {seed}: id {id}"),
                // It was never durable, and neither was a record behind it.
                None => _ = known.definitions.remove(&id),
            }
        }
        live(&wal, &disk, &mut known, &mut random);
        killed = false;
        disk = match random.below(6) {
            0 => {
                let end = wal.marks().next;
                match wal.close() {
                    Ok(marks) => {
                        assert_eq!((marks.durable, marks.next), (end, end));
                        known.acknowledge(end, Durability::Disk);
                        known.saved = known.settled.clone();
                    }
                    // The seal's sync failed: the next life begins as after a crash.
                    Err(error) => assert!(known.sync_failed, "{}", describe(&error)),
                }
                disk.copy()
            }
            1 | 2 => {
                killed = true;
                disk.kill()
            }
            3 => disk.power_cut(Survivors::None),
            4 => disk.power_cut(Survivors::All),
            _ => disk.power_cut(Survivors::Some),
        };
        disk.heal();
        let verified = view(&disk).unwrap().verify(&mut |_, _| ()).unwrap();
        assert!(verified.is_clean(), "seed {seed}: {:?}", verified.findings);
        // A recovery that is cut short changes nothing for the next one.
        if random.one_in(3) {
            recover_halfway(&disk, random.below(60) as usize);
            disk.lose_power(Survivors::Some);
            killed = false;
        }
    }
    let wal = open(&disk);
    let mut found = check(&wal, &mut known, killed, seed);
    drop(wal);
    let viewed = view(&disk).unwrap();
    // Meanwhile a segment of which all was settled may have gone.
    found.retain(|(seq, _)| *seq >= viewed.marks().first);
    assert_same(&drain(viewed.reader(viewed.marks().first)).unwrap(), &found);
    let wal = open(&disk.kill());
    found.retain(|(seq, _)| *seq >= wal.marks().first);
    assert_same(&read_all(&wal), &found);
}

/// Opens, and fails for good at some operation.
pub(crate) fn recover_halfway(disk: &Faulty, operation: usize) {
    disk.fail(Fault {
        kind: None,
        name: "",
        skip: operation,
        times: usize::MAX,
        failure: Failure::Errno(EIO),
    });
    drop(try_open(disk));
    disk.heal();
    disk.clear_trace();
}

/// All of P1, P2, P3, P4, P5 and P6 at once.
#[test]
fn whatever_ends_a_life_the_next_one_keeps_its_promises() {
    let seeds = std::env::var("WAL_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(150);
    let from = std::env::var("WAL_SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    println!("seeds {from} to {} (WAL_SEED, WAL_SEEDS)", from + seeds);
    let next = AtomicU64::new(from);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= from + seeds {
                        return;
                    }
                    history(seed, Faulty::clone);
                }
            });
        }
    });
    assert_no_engine_thread_panicked();
}

#[test]
fn a_second_recovery_equals_the_first() {
    for seed in 0..20 {
        let disk = Faulty::new(seed);
        let wal = open(&disk);
        append_all(&wal, 0..10);
        drop(wal.append(&sized(11, 200_000)).unwrap());
        let disk = disk.power_cut(Survivors::Some);
        let first = read_all(&open(&disk.copy()));
        assert_same(&read_all(&open(&disk)), &first);
    }
}
