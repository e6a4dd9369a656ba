//! The oracle: what a user of a log knows, and what must hold after every recovery because of it.
//!
//! Owns: the promises, judged from outside. Must not know: what was done to the log, but for the harm
//! that a disk did without telling anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ferrylog::wal::fs::Fs;
use ferrylog::wal::{Class, Durability, Error, SeqNo, Wal};

use crate::common::{BODY, Records, describe, drain_past_damage};
use crate::damage::{CURSORS, SLOTS, u64_at};
use crate::faulty::Faulty;

pub(crate) const CLASSES: [Class; 5] = [
    Class::Shipped,
    Class::DeadLettered,
    Class::Expired,
    Class::Dropped,
    Class::Moved,
];

/// What a user of the log knows, and may rely on.
#[derive(Clone, Default)]
pub(crate) struct Known {
    /// Handed to the log, and not lost in a crash since.
    pub(crate) given: BTreeMap<SeqNo, Vec<u8>>,
    /// Every number ever given is below it.
    pub(crate) next: SeqNo,
    /// Acknowledged at level `disk`, and at level `os`.
    pub(crate) disk: BTreeSet<SeqNo>,
    pub(crate) os: BTreeSet<SeqNo>,
    pub(crate) batches: Vec<Range<SeqNo>>,
    pub(crate) settled: BTreeMap<SeqNo, Class>,
    /// What was settled when the cursor was last saved.
    pub(crate) saved: BTreeMap<SeqNo, Class>,
    pub(crate) definitions: BTreeMap<u32, Vec<u8>>,
    pub(crate) sync_failed: bool,
    /// The log may give up its oldest records for space.
    pub(crate) gives_up_oldest: bool,
    /// What the disk did.
    pub(crate) harm: Harm,
}

/// Harm that a disk did without telling anybody, as far as records are concerned.
#[derive(Clone, Default)]
pub(crate) struct Harm {
    /// Places that were hurt so far.
    wounds: usize,
    /// Records of which the frame was hurt.
    hurt: BTreeSet<SeqNo>,
    /// Hurt records that somebody settled just before, perhaps in vain: then they are lost.
    unsure: BTreeSet<SeqNo>,
    /// A cursor was hurt: what is settled may be what an earlier one knew.
    pub(crate) cursor: bool,
    /// The largest promise that is still on the disk. What is not below it may be taken for an
    /// unfinished last write.
    promised: SeqNo,
}

impl Known {
    pub(crate) fn give(&mut self, range: Range<SeqNo>, records: &[Vec<u8>]) {
        assert!(range.start >= self.next, "{} was given before", range.start);
        self.next = range.end;
        assert_eq!(range.end - range.start, records.len() as u64);
        for (index, bytes) in records.iter().enumerate() {
            self.given.insert(range.start + index as u64, bytes.clone());
        }
    }

    pub(crate) fn acknowledge(&mut self, below: SeqNo, level: Durability) {
        let given = self.given.range(..below).map(|(seq, _)| *seq);
        match level {
            Durability::Memory => {}
            Durability::Os => self.os.extend(given),
            Durability::Disk => self.disk.extend(given),
        }
    }

    /// Settles what was given of a range, and has no outcome yet.
    pub(crate) fn settle<F: Fs>(&mut self, wal: &Wal<F>, range: Range<SeqNo>, class: Class) {
        // What was lost in a crash is void: it has no outcome to get.
        let given = self.given.range(range.start..range.end.max(range.start));
        for seq in given.map(|(seq, _)| *seq) {
            if !wal.is_settled(seq) {
                self.settled.insert(seq, class);
            }
        }
        wal.settle(range, class);
    }

    /// Takes note of where the records are, before harm is done, and of the harm.
    pub(crate) fn note_harm(&mut self, before: &Faulty, after: &Faulty) {
        let wounds = after.wounds();
        // Where a file is gone what was lost in it stays lost.
        self.harm.wounds = self.harm.wounds.max(wounds.len());
        self.harm.cursor |= wounds.iter().any(|wound| wound.name.starts_with("cursor-"));
        if wounds.is_empty() {
            return;
        }
        for frame in before
            .names("segment-")
            .iter()
            .flat_map(|n| frames(before, n))
        {
            let touches =
                |range: &Range<u64>| range.start < frame.place.end && frame.place.start < range.end;
            let is_hurt = |w: &crate::faulty::Wound| w.name == frame.name && touches(&w.range);
            if wounds.iter().any(is_hurt) {
                let seqs = self.given.range(frame.seqs.clone()).map(|(seq, _)| *seq);
                self.harm.hurt.extend(seqs);
            }
        }
        self.harm.promised = promised(after);
    }

    /// Whether a record that was promised may be missing: the disk hurt it, and the log names it; or
    /// the promise went with it.
    fn is_excused(&self, seq: SeqNo, is_named: bool) -> bool {
        let Harm {
            wounds,
            hurt,
            promised,
            ..
        } = &self.harm;
        let is_hurt = hurt.contains(&seq) || *wounds > 1;
        *wounds > 0 && (seq >= *promised || is_hurt && is_named)
    }

    fn unsure(&self) -> impl Iterator<Item = SeqNo> {
        let Harm { hurt, unsure, .. } = &self.harm;
        let settled = self.settled.keys().copied();
        settled.filter(|seq| {
            unsure.contains(seq) || hurt.contains(seq) && !self.saved.contains_key(seq)
        })
    }

    /// A new life: what is here now stays, and what is not never comes back.
    pub(crate) fn go_on<F: Fs>(&mut self, wal: &Wal<F>, found: &Found, at: &str) {
        // What was settled but not saved is open again.
        self.settled.retain(|seq, _| wal.is_settled(*seq));
        self.harm.unsure = self.unsure().collect();
        self.saved = self.settled.clone();
        self.sync_failed = false;
        self.os.clear();
        let here: BTreeSet<SeqNo> = found.records.iter().map(|(seq, _)| *seq).collect();
        // What is damaged still counts, until a gap names it.
        let is_damaged = |seq: &SeqNo| found.damaged.iter().any(|range| range.contains(seq));
        self.given
            .retain(|seq, _| here.contains(seq) || is_damaged(seq));
        self.disk = self.given.keys().copied().collect();
        let in_use: Vec<u32> = self.definitions.keys().copied().collect();
        for id in in_use {
            match wal.definition(id) {
                Some(text) => assert!(text == self.definitions[&id], "{at}: id {id}"),
                // It was never durable, and neither was a record behind it.
                None => _ = self.definitions.remove(&id),
            }
        }
    }
}

/// A frame of records, by its header.
struct Frame {
    name: String,
    place: Range<u64>,
    seqs: Range<SeqNo>,
    durable: SeqNo,
    /// Both checksums hold.
    whole: bool,
}

/// The frames of the life that the headers of a file name.
fn frames(disk: &Faulty, name: &str) -> Vec<Frame> {
    let bytes = disk.bytes(name, 0, disk.file_len(name) as usize);
    let mut found = Vec::new();
    let salts: BTreeSet<[u8; 8]> = [0, 64 << 10]
        .into_iter()
        .filter_map(|at| bytes.get(at + 64..at + 72)?.try_into().ok())
        .collect();
    let u32_at = |bytes: &[u8], at: usize| u64_at(&bytes[at..at + 8], 0) as u32;
    for salt in salts {
        let magic = (u32::from_le_bytes(*b"FRAM") ^ u32_at(&salt, 0)).to_le_bytes();
        let slots = SLOTS.iter().flat_map(|&at| at..at + 4096);
        let places = slots.chain(BODY..bytes.len() as u64).step_by(64);
        for at in places.map(|at| at as usize) {
            let header = &bytes[at..(at + 64).min(bytes.len())];
            if header.len() < 64 || !header.starts_with(&magic) || header[60] != 1 {
                continue;
            }
            let len = u32_at(header, 48) as usize;
            let payload = bytes.get(at + 64..at + 64 + len);
            let crc = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
            let whole = crc(&[&salt, &header[8..]].concat()) == header[4..8]
                && payload.is_some_and(|payload| crc(payload) == header[52..56]);
            let first = SeqNo::new(u64_at(header, 16) % (1 << 60));
            found.push(Frame {
                name: name.into(),
                place: at as u64..(at + 64 + len) as u64,
                seqs: first..first + u64::from(u32_at(&header[8..], 48)),
                durable: SeqNo::new(u64_at(header, 24) % (1 << 60)),
                whole,
            });
        }
    }
    found
}

/// The largest promise in the cursors and in frames that are whole.
fn promised(disk: &Faulty) -> SeqNo {
    let slots = CURSORS.iter().filter_map(|name| {
        let is_there = disk.names(name).first() == Some(&(*name).to_string());
        let page = is_there.then(|| disk.bytes(name, 0, 4096))?;
        let whole =
            page.len() == 4096 && crc32fast::hash(&page[..4092]).to_le_bytes() == page[4092..];
        whole.then(|| SeqNo::new(u64_at(&page, 72)))
    });
    let names = disk.names("segment-");
    let frames = names.iter().flat_map(|name| frames(disk, name));
    let told = frames
        .filter(|frame| frame.whole)
        .map(|frame| frame.durable);
    slots.chain(told).max().unwrap_or_default()
}

/// What can be read.
pub(crate) struct Found {
    pub(crate) records: Records,
    /// The numbers of what is damaged in sealed segments.
    pub(crate) damaged: Vec<Range<SeqNo>>,
}

/// Reads everything, past all damage.
pub(crate) fn read<F: Fs>(wal: &Wal<F>, at: &str) -> Found {
    loop {
        let first = wal.marks().first;
        match drain_past_damage(wal.reader(first)) {
            // The keeper was faster.
            Err(Error::Released { .. }) if wal.marks().first > first => {}
            read => {
                let (records, damaged) = read.unwrap_or_else(|e| panic!("{at}: {}", describe(&e)));
                return Found { records, damaged };
            }
        }
    }
}

/// Everything that must hold after a recovery. Returns what was found.
pub(crate) fn check<F: Fs>(wal: &Wal<F>, known: &Known, killed: bool, at: &str) -> Found {
    let all = read(wal, at);
    let Found {
        records: found,
        damaged,
    } = &all;
    let marks = wal.marks();
    let numbers: BTreeSet<SeqNo> = found.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers.len(), found.len(), "{at}: a number twice");
    assert!(found.is_sorted_by_key(|(seq, _)| *seq), "{at}: order");
    for (seq, bytes) in found {
        let given = known.given.get(seq);
        assert!(
            given.is_some_and(|given| given == bytes),
            "{at}: {seq} was not given so"
        );
    }
    assert!(wal.opened().recovered_end <= marks.next, "{at}");
    assert!(marks.next >= known.next, "{at}: numbers may be given twice");
    check_promised(wal, known, killed, at, (&numbers, damaged));
    for batch in &known.batches {
        let whole = numbers.range(batch.clone()).count() as u64;
        let len = batch.end - batch.start;
        let excused = batch.start < marks.first || known.harm.wounds > 0;
        assert!(
            excused || whole == 0 || whole == len,
            "{at}: {whole} of {len} of a batch"
        );
    }
    check_settled(wal, known, at, (&numbers, damaged));
    if known.harm.wounds == 0 {
        assert_eq!(damaged, &[], "{at}: nothing was damaged");
        assert_eq!(wal.opened().gaps, [], "{at}: nothing was damaged");
        assert_eq!(wal.totals().lost, 0, "{at}: nothing was damaged");
    }
    all
}

type Readable<'a> = (&'a BTreeSet<SeqNo>, &'a [Range<SeqNo>]);

/// P1 and P2.
fn check_promised<F: Fs>(
    wal: &Wal<F>,
    known: &Known,
    killed: bool,
    at: &str,
    (numbers, damaged): Readable<'_>,
) {
    let first = wal.marks().first;
    let mut due = known.disk.clone();
    if killed && !known.sync_failed {
        due.extend(&known.os);
    }
    for seq in due.difference(numbers).copied() {
        let settled = known.settled.contains_key(&seq) || known.gives_up_oldest;
        let is_named = wal.is_settled(seq) || damaged.iter().any(|range| range.contains(&seq));
        assert!(
            seq < first && settled || known.is_excused(seq, is_named),
            "{at}: {seq} is gone, {:?}",
            wal.opened()
        );
    }
}

/// The cursor knows what was saved and nothing that nobody settled; P6.
fn check_settled<F: Fs>(wal: &Wal<F>, known: &Known, at: &str, (numbers, damaged): Readable<'_>) {
    for seq in known.saved.keys().filter(|_| !known.harm.cursor) {
        assert!(wal.is_settled(*seq), "{at}: {seq} was settled, and saved");
    }
    for seq in numbers.iter().filter(|seq| wal.is_settled(**seq)) {
        assert!(
            known.settled.contains_key(seq),
            "{at}: nobody settled {seq}"
        );
    }
    let totals = wal.totals();
    assert!(totals.balances(), "{at}: {totals:?}");
    let unreadable = damaged.iter().flat_map(|range| {
        let numbers = range.start.get()..range.end.get();
        numbers.map(SeqNo::new)
    });
    let held = numbers.iter().copied().chain(unreadable);
    let queued = held.filter(|seq| !wal.is_settled(*seq)).count() as u64;
    assert_eq!(totals.queued, queued, "{at}: the log holds what is queued");
    assert!(totals.unknown == 0 || known.harm.cursor, "{at}");
    if known.harm.cursor {
        return;
    }
    let still = known
        .settled
        .iter()
        .filter(|(seq, _)| wal.is_settled(**seq));
    let classes: Vec<Class> = still.map(|(_, class)| *class).collect();
    let by_class = CLASSES.map(|class| classes.iter().filter(|c| **c == class).count() as u64);
    let unsure = known.unsure().count() as u64;
    let mut counted = [
        totals.shipped,
        totals.dead_lettered,
        totals.expired,
        totals.dropped,
        totals.moved,
    ];
    if known.gives_up_oldest {
        assert!(counted[3] + unsure >= by_class[3], "{at}");
        counted[3] = by_class[3];
    }
    for (counted, known) in counted.into_iter().zip(by_class) {
        let possible = known.saturating_sub(unsure)..=known;
        assert!(
            possible.contains(&counted),
            "{at}: {totals:?}, {by_class:?}"
        );
    }
}
