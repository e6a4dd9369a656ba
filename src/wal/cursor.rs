//! The cursor's slots: the bytes in which what is settled outlives the process.
//!
//! Owns: the bytes of a slot (`docs/format.md`, F9). Must not know: files, or how settling works.
//!
//! Invariant: every valid slot satisfies `low mark - origin + settled above it = sum of totals` (F10).

use super::frame::{MAX_SEGMENT_NUMBER, PAGE, u32_at, u64_at};
use super::options::MAX_WINDOW;
use super::segment::{page_holds, seal_page};
use super::seq::{LogId, SeqNo};
use super::settled::{Class, MAX_RUNS, Run};

const MAGIC: [u8; 8] = *b"FERRYCUR";
const VERSION: u16 = 1;
const FLAG_CLEAN: u16 = 1;
const RUNS_AT: usize = 256;
const RUN_LEN: usize = 16;
const TOTALS_AT: usize = 96;

const _: () = assert!(RUNS_AT + MAX_RUNS * RUN_LEN <= PAGE - 4);
const _: () = assert!(TOTALS_AT + 8 * Class::ALL.len() <= RUNS_AT);

/// F9: one slot of the cursor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub log_id: LogId,
    pub generation: u64,
    pub low: SeqNo,
    /// Number of the oldest live segment.
    pub oldest: u64,
    /// Number and salt of the newest segment whose header is durable.
    pub newest: (u64, u64),
    /// `durable_seq` when the slot was written.
    pub synced: SeqNo,
    pub seq_limit: SeqNo,
    /// The log's first number.
    pub origin: SeqNo,
    pub totals: [u64; Class::ALL.len()],
    pub unclean_ends: u64,
    pub clean: bool,
    pub runs: Vec<Run>,
}

/// What the bytes of a cursor file turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SlotFound {
    /// A valid slot.
    Slot(Slot),
    /// Its checksum holds, but this version does not understand it.
    Refused,
    /// No valid slot.
    Bad,
}

impl Slot {
    pub(crate) fn encode(&self) -> [u8; PAGE] {
        assert!(self.runs.len() <= MAX_RUNS);
        let mut page = [0; PAGE];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(10, &(if self.clean { FLAG_CLEAN } else { 0 }).to_le_bytes());
        put(
            12,
            &u32::try_from(self.runs.len()).unwrap_or(0).to_le_bytes(),
        );
        put(16, &self.log_id.bytes());
        for (at, number) in [
            (32, self.generation),
            (40, self.low.get()),
            (48, self.oldest),
            (56, self.newest.0),
            (64, self.newest.1),
            (72, self.synced.get()),
            (80, self.seq_limit.get()),
            (88, self.origin.get()),
            (160, self.unclean_ends),
        ] {
            put(at, &number.to_le_bytes());
        }
        for (index, total) in self.totals.iter().enumerate() {
            put(TOTALS_AT + 8 * index, &total.to_le_bytes());
        }
        for (index, run) in self.runs.iter().enumerate() {
            let at = RUNS_AT + RUN_LEN * index;
            let len = run.range.end - run.range.start;
            put(at, &run.range.start.get().to_le_bytes());
            put(
                at + 8,
                &(len << 8 | u64::from(run.class.code())).to_le_bytes(),
            );
        }
        seal_page(&mut page);
        page
    }

    pub(crate) fn decode(page: &[u8]) -> SlotFound {
        if !page_holds(page) || page[0..8] != MAGIC {
            return SlotFound::Bad;
        }
        if u16::from_le_bytes([page[8], page[9]]) != VERSION {
            return SlotFound::Refused;
        }
        Self::decode_fields(page).map_or(SlotFound::Bad, SlotFound::Slot)
    }

    fn decode_fields(page: &[u8]) -> Option<Self> {
        let count = usize::try_from(u32_at(page, 12))
            .ok()
            .filter(|&count| count <= MAX_RUNS)?;
        let low = SeqNo::new(u64_at(page, 40));
        let mut runs = Vec::with_capacity(count);
        let mut from = low;
        for index in 0..count {
            let at = RUNS_AT + RUN_LEN * index;
            let start = SeqNo::new(u64_at(page, at));
            let packed = u64_at(page, at + 8);
            let class = Class::from_code(packed.to_le_bytes()[0])?;
            let range = start..start + (packed >> 8);
            if range.start < from || range.is_empty() || packed >> 8 > MAX_WINDOW as u64 {
                return None;
            }
            from = range.end;
            runs.push(Run { range, class });
        }
        let mut totals = [0; Class::ALL.len()];
        for (index, total) in totals.iter_mut().enumerate() {
            *total = u64_at(page, TOTALS_AT + 8 * index);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&page[16..32]);
        let slot = Self {
            log_id: LogId::new(id),
            generation: u64_at(page, 32),
            low,
            oldest: u64_at(page, 48),
            newest: (u64_at(page, 56), u64_at(page, 64)),
            synced: SeqNo::new(u64_at(page, 72)),
            seq_limit: SeqNo::new(u64_at(page, 80)),
            origin: SeqNo::new(u64_at(page, 88)),
            totals,
            unclean_ends: u64_at(page, 160),
            clean: u16::from_le_bytes([page[10], page[11]]) & FLAG_CLEAN != 0,
            runs,
        };
        let seqs = [from, slot.synced, slot.seq_limit];
        let plausible = seqs.iter().all(|seq| *seq < SeqNo::LIMIT)
            && slot.oldest.max(slot.newest.0) <= MAX_SEGMENT_NUMBER;
        let within_limit = from.max(slot.synced) <= slot.seq_limit;
        (plausible && within_limit && slot.balances()).then_some(slot)
    }

    /// Nothing at or above it is settled.
    pub(crate) fn settled_end(&self) -> SeqNo {
        self.runs.last().map_or(self.low, |run| run.range.end)
    }

    /// F10: what is settled below and above the mark is what the totals say, class by class above it.
    fn balances(&self) -> bool {
        let mut above = [0u64; Class::ALL.len()];
        for run in &self.runs {
            above[run.class.index()] += run.range.end - run.range.start;
        }
        let sum = self
            .totals
            .iter()
            .try_fold(0u64, |sum, &total| sum.checked_add(total));
        self.low >= self.origin
            && sum == (self.low - self.origin).checked_add(above.iter().sum())
            && above
                .iter()
                .zip(&self.totals)
                .all(|(above, total)| above <= total)
    }
}
