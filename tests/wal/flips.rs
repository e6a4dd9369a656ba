//! Rot, byte by byte: what it may cost is the frame it is in, never a neighbour, never the truth.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrylog::wal::{Keys, Options, SeqNo};

use crate::common::{
    BODY, Records, append_all, assert_no_engine_thread_panicked, describe, drain_past_damage, open,
    options, read_all, sized, try_open_with, view,
};
use crate::faulty::Faulty;
use crate::random::{self, Random};

const PAGE: u64 = 4096;
const HEADERS: [u64; 2] = [0, 64 << 10];

/// A frame as it was written.
#[derive(Clone, Debug)]
struct Frame {
    bytes: Range<u64>,
    seqs: Range<SeqNo>,
}

/// A log at rest, and what is known about it.
pub(crate) struct Store {
    disk: Faulty,
    keys: Keys,
    records: Records,
    /// Its segments, oldest first, with their frames.
    segments: Vec<(String, Vec<Frame>)>,
    definitions: Vec<Vec<u8>>,
}

impl Store {
    fn new(disk: Faulty, keys: Keys, records: Records, definitions: Vec<Vec<u8>>) -> Self {
        let segments = view(&disk).unwrap().segments();
        let names = segments
            .iter()
            .map(|segment| segment.path.file_name().unwrap().to_string_lossy());
        let segments: Vec<_> = names
            .map(|name| (name.to_string(), frames(&disk, &name)))
            .collect();
        // Cut at their ends, as recovery cuts them.
        for (name, frames) in &segments {
            let end = frames.last().unwrap().bytes.end.next_multiple_of(PAGE);
            disk.set_file_len(name, end.min(disk.file_len(name)));
        }
        Self {
            disk,
            keys,
            records,
            segments,
            definitions,
        }
    }

    fn frame_at(&self, segment: usize, position: u64) -> Option<&Frame> {
        let frames = &self.segments[segment].1;
        frames.iter().find(|frame| frame.bytes.contains(&position))
    }

    fn damage(&self, segment: usize, position: u64, mask: u8) {
        let name = &self.segments[segment].0;
        let byte = self.disk.bytes(name, position, 1)[0];
        self.disk.overwrite(name, position, &[byte ^ mask]);
    }

    /// Nothing is there that was not appended, and nothing is missing but what was hit.
    #[track_caller]
    fn check(&self, found: &Records, hit: &Range<SeqNo>, at: &str) {
        let mut found = found.iter();
        let mut next = found.next();
        for record in &self.records {
            if next == Some(record) {
                next = found.next();
            } else {
                assert!(hit.contains(&record.0), "{at}: lost {}", record.0);
            }
        }
        assert_eq!(next.map(|(seq, _)| seq), None, "{at}: nobody wrote it so");
    }

    /// The log as it lies there with a byte changed, through both faces.
    fn check_both(&self, segment: usize, position: u64, at: &str) {
        let frame = self.frame_at(segment, position);
        let hit = &frame.map_or(SeqNo::ZERO..SeqNo::ZERO, |frame| frame.seqs.clone());
        // A damaged frame in the newest segment is found by opening.
        let repairable = segment + 1 == self.segments.len() && frame.is_some();
        let viewed = view(&self.disk).and_then(|view| view.with_keys(self.keys.clone()));
        let viewed = viewed.unwrap_or_else(|e| panic!("{at}: {}", describe(&e)));
        let verified = viewed.verify(&mut |_, _| ()).unwrap();
        let (found, lost) = drain_past_damage(viewed.reader(SeqNo::ZERO)).unwrap();
        self.check(&found, hit, at);
        assert!(viewed.damage().is_none() || repairable, "{at}");
        let missing = (self.records.len() - found.len()) as u64;
        if missing > 0 {
            assert!(!verified.is_clean(), "{at}: a loss nobody tells of");
        }
        let told: u64 = lost.iter().map(|range| range.end - range.start).sum();
        assert_eq!(told, missing, "{at}: {lost:?}");
        assert_eq!(verified.records, found.len() as u64, "{at}");

        let mut options = options();
        options.keys = self.keys.clone();
        match try_open_with(&self.disk.copy(), options) {
            Err(error) => panic!("{at}: {}", describe(&error)),
            Ok(wal) => {
                let (found, _) = drain_past_damage(wal.reader(SeqNo::ZERO)).unwrap();
                self.check(&found, hit, at);
                assert!(wal.totals().balances(), "{at}");
                let repaired = !wal.opened().gaps.is_empty();
                assert!(!repaired || repairable, "{at}: {}", wal.opened());
                for (id, text) in (0..).zip(&self.definitions) {
                    let found = wal.definition(id);
                    let lost = repaired && found.is_none();
                    let same = found.as_deref() == Some(&text[..]);
                    assert!(lost || same, "{at}: definition {id}");
                }
                let seq = wal.append_wait(&sized(1, 10)).unwrap();
                assert!(self.records.iter().all(|(old, _)| *old < seq), "{at}");
            }
        }
    }
}

/// The frames of a whole segment.
fn frames(disk: &Faulty, name: &str) -> Vec<Frame> {
    let bytes = disk.bytes(name, 0, disk.file_len(name) as usize);
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let magic = u32_at(BODY as usize);
    let mut frames: Vec<Frame> = Vec::new();
    for at in (BODY as usize..bytes.len()).step_by(64) {
        let behind = frames.last().is_none_or(|f| f.bytes.end <= at as u64);
        if behind && u32_at(at) == magic {
            let first = SeqNo::new(u64_at(at + 16));
            frames.push(Frame {
                bytes: at as u64..at as u64 + 64 + u64::from(u32_at(at + 48)),
                seqs: first..first + u64::from(u32_at(at + 56)),
            });
        }
    }
    frames
}

/// Two lives: single records, an empty one, a batch, one over two pages, a definition.
pub(crate) fn small(options: &Options) -> Store {
    let disk = Faulty::new(50);
    let mut records = Records::new();
    let definitions = vec![vec![b'a'; 9], vec![b'b'; 50]];
    for life in 0..2u64 {
        let wal = try_open_with(&disk, options.clone()).unwrap();
        wal.define(&definitions[life as usize]).unwrap();
        records.extend(append_all(&wal, 0..1));
        let batch: Vec<Vec<u8>> = [0, 30, 700].map(|len| sized(life, len)).into();
        let ticket = wal.append_batch(&batch).unwrap();
        let first = ticket.seq();
        ticket.wait().unwrap();
        records.extend((0..).map(|n| first + n).zip(batch));
        let long = sized(10 + life, [900, 4200][life as usize]);
        records.push((wal.append_wait(&long).unwrap(), long));
        wal.close().unwrap();
    }
    assert!(read_all(&try_open_with(&disk.copy(), options.clone()).unwrap()) == records);
    Store::new(disk, options.keys.clone(), records, definitions)
}

/// A megabyte or two, of all sizes, over several segments.
fn large(seed: u64) -> Store {
    let disk = Faulty::new(seed);
    let mut random = Random(seed);
    let wal = open(&disk);
    let mut records = Records::new();
    for number in 0..400 {
        let bytes = sized(number, random.below(20_000) as usize);
        records.push((wal.append(&bytes).unwrap().seq(), bytes));
        if random.one_in(20) {
            wal.sync().unwrap();
        }
    }
    wal.close().unwrap();
    Store::new(disk, Keys::none(), records, Vec::new())
}

/// Every byte that holds data: the fields of both header copies and every frame; of the zeros in
/// between and behind one in each 32.
#[test]
fn p3_r12_a_byte_that_rots_costs_at_most_the_frame_it_is_in() {
    let store = small(&options());
    assert!(store.segments.iter().all(|(_, frames)| frames.len() >= 4));
    assert_each_byte_costs_its_frame(&store);
}

/// Damages one byte after the other.
pub(crate) fn assert_each_byte_costs_its_frame(pristine: &Store) {
    let seed = random::seed();
    let mut places = Vec::new();
    for (segment, (name, _)) in pristine.segments.iter().enumerate() {
        let len = pristine.disk.file_len(name);
        let bytes = pristine.disk.bytes(name, 0, len as usize);
        let in_header = |at| HEADERS.iter().any(|&h| (h..h + 160).contains(&at));
        let some = (0..len).filter(|&at| {
            bytes[at as usize] != 0
                || in_header(at)
                || pristine.frame_at(segment, at).is_some()
                || at.is_multiple_of(32)
        });
        places.extend(some.map(|at| (segment, at)));
    }
    println!("{} places", places.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store {
                    disk: pristine.disk.copy(),
                    keys: pristine.keys.clone(),
                    records: pristine.records.clone(),
                    segments: pristine.segments.clone(),
                    definitions: pristine.definitions.clone(),
                };
                while let Some(&(segment, at)) = places.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let mask = 1 + Random(seed ^ at).below(255) as u8;
                    store.damage(segment, at, mask);
                    let place = format!("seed {seed}, segment {segment}, byte {at} ^ {mask}");
                    store.check_both(segment, at, &place);
                    store.damage(segment, at, mask);
                    store.disk.clear_trace();
                }
            });
        }
    });
    assert_no_engine_thread_panicked();
}

#[test]
fn p3_r12_scattered_rot_in_a_large_store_costs_only_the_frames_it_is_in() {
    let seed = random::seed();
    let store = large(seed);
    assert!(store.segments.len() > 3);
    let mut random = Random(seed);
    for round in 0..300 {
        let segment = random.below(store.segments.len() as u64) as usize;
        let len = store.disk.file_len(&store.segments[segment].0);
        let at = BODY + random.below(len - BODY);
        let mask = 1 + random.below(255) as u8;
        store.damage(segment, at, mask);
        let place = format!("seed {seed}, round {round}, segment {segment}, byte {at} ^ {mask}");
        store.check_both(segment, at, &place);
        store.damage(segment, at, mask);
        store.disk.clear_trace();
    }
}

/// Many at once: each costs its own frame.
#[test]
fn r9_the_rest_of_a_damaged_segment_is_never_given_up() {
    let seed = random::seed();
    let store = large(seed);
    let mut random = Random(seed);
    let mut hit = vec![false; store.records.len()];
    // The newest segment's damage may be refused: that is another test's.
    for segment in 0..store.segments.len() - 1 {
        for _ in 0..5 {
            let frames = &store.segments[segment].1;
            let frame = &frames[random.below(frames.len() as u64) as usize];
            let len = frame.bytes.end - frame.bytes.start;
            store.damage(segment, frame.bytes.start + random.below(len), 0x40);
            for seq in frame.seqs.start.get()..frame.seqs.end.get() {
                hit[seq as usize] = true;
            }
        }
    }
    let (found, _) = drain_past_damage(view(&store.disk).unwrap().reader(SeqNo::ZERO)).unwrap();
    let mut next = found.iter().peekable();
    for (record, hit) in store.records.iter().zip(&hit) {
        if next.peek() == Some(&record) {
            next.next();
        } else {
            assert!(hit, "seed {seed}: lost {}", record.0);
        }
    }
    assert!(next.next().is_none(), "seed {seed}: nobody wrote it so");
    assert!(found.len() < store.records.len() && found.len() > store.records.len() / 4);
}
