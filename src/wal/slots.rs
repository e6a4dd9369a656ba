//! Tail slots: two pages of a segment's reserved area that hold the page its end does not fill yet.
//!
//! Owns: which slot may be written, and which page a slot stands in for. Must not know: what is
//! pending, or when it is written.
//!
//! Invariants: a slot is not written while it holds the only durable copy of a record, nor while a
//! running sync covers it (R1); a slot stands in only where it holds more whole frames than its
//! page does in its place.

use std::io;

use bytes::Bytes;

use super::frame::{Decoded, HEADER_LEN, Header, PAGE};
use super::fs::{File, read_page};
use super::scan::{Life, is_whole};
use super::segment::{BODY, SLOT_POSITIONS};
use super::seq::SeqNo;
use super::window::Window;

/// What the two slots hold, as the writer knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Slots {
    /// Holds the only durable copy of records.
    durable: Option<usize>,
    /// Covered by a running sync.
    syncing: Option<usize>,
    /// Written since the last sync began.
    written: Option<usize>,
}

impl Slots {
    /// The slot that may be written now, if there is one.
    pub(crate) fn free(&self) -> Option<usize> {
        let taken = [self.durable, self.syncing];
        let free = |slot: &usize| !taken.contains(&Some(*slot));
        // What no sync covers yet is no promise: it is written again, and the other slot is spared.
        self.written.or_else(|| (0..2).find(free))
    }

    /// This slot holds all that is pending.
    pub(crate) fn wrote(&mut self, slot: usize) {
        self.written = Some(slot);
    }

    /// What was pending went to its place: what no sync covers yet is no copy of anything.
    pub(crate) fn flushed(&mut self) {
        self.written = None;
    }

    /// A sync begins, because something was written since the last one: the pending page, or it went
    /// to its place.
    pub(crate) fn sync_begins(&mut self) {
        self.syncing = self.written.take();
    }

    /// It succeeded: what the other slot holds is in the slot that it covered, or in its place.
    pub(crate) fn synced(&mut self) {
        self.durable = self.syncing.take();
    }
}

/// A page that is read instead of the one at its position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StandIn {
    pub position: u64,
    /// The number of its first record.
    pub first_seq: SeqNo,
    pub page: Bytes,
}

impl StandIn {
    /// The slot page that was written for the place its first frame names.
    fn of(page: Bytes, life: Life) -> Option<Self> {
        let Decoded::Header(first) = Header::decode(&page, life.salt) else {
            return None;
        };
        let own = first.segment == life.number
            && first.position >= BODY
            && first.position.is_multiple_of(PAGE as u64);
        own.then_some(Self {
            position: first.position,
            first_seq: first.first_seq,
            page,
        })
    }

    /// Position behind it.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.page.len() as u64
    }

    /// Puts the page where it belongs in a chunk that begins at `start` and holds `filled` bytes of
    /// the file. Returns where the page ends in the chunk, or 0.
    pub(crate) fn cover(&self, chunk: &mut [u8], filled: usize, start: u64) -> usize {
        let from = self.position.max(start);
        let to = self.end().min(start + chunk.len() as u64);
        if from >= to {
            return 0;
        }
        let index = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let (at, end) = (index(from - start), index(to - start));
        if filled < at {
            // The file ends before its page.
            chunk[filled..at].fill(0);
        }
        let page = index(from - self.position);
        chunk[at..end].copy_from_slice(&self.page[page..page + end - at]);
        end
    }
}

/// The slots of a file that stand in for pages below the window's limit.
pub(crate) fn stand_ins<F: File>(
    window: &mut Window,
    file: &F,
    life: Life,
) -> io::Result<Vec<StandIn>> {
    let mut found: Vec<StandIn> = Vec::new();
    for position in SLOT_POSITIONS {
        let Some(page) = read_page(file, position)? else {
            window.note_unreadable(position);
            continue;
        };
        let Some(mut slot) = StandIn::of(page.into(), life) else {
            continue;
        };
        if window.has_stand_in(slot.position) {
            // A live log's own copy: what a slot holds beyond it is not durable (R14).
            continue;
        }
        let limit = window.limit;
        let reach = |page: &[u8]| whole_frames(page, life, slot.position, limit);
        let mut best = reach(window.get(file, slot.position, PAGE)?);
        let twin = found
            .iter()
            .position(|other| other.position == slot.position);
        if let Some(twin) = twin {
            best = best.max(reach(&found[twin].page));
        }
        let own = reach(&slot.page);
        if own > best {
            // What is whole behind its frames in the page's place stays.
            slot.page.truncate(own.1);
            found.retain(|other| other.position != slot.position);
            found.push(slot);
        }
    }
    Ok(found)
}

/// How far whole frames reach from the start of a page that belongs at this position: frames, so that
/// of two equal stretches none is preferred, and the number after the last record.
fn whole_frames(page: &[u8], life: Life, position: u64, limit: u64) -> (SeqNo, usize) {
    let (mut at, mut end_seq) = (0, SeqNo::ZERO);
    while let Some(Decoded::Header(header)) =
        page.get(at..).map(|bytes| Header::decode(bytes, life.salt))
    {
        let payload = usize::try_from(header.payload_len)
            .ok()
            .and_then(|len| page.get(at + HEADER_LEN..)?.get(..len));
        let here = (header.segment, header.position) == (life.number, position + at as u64);
        let whole = payload.is_some_and(|payload| is_whole(&header, payload));
        // A page whose sectors are of two ages may go on with a frame that does not follow.
        let follows = at == 0 || header.first_seq == end_seq;
        if !here || !whole || !follows || header.position + header.span() > limit {
            break;
        }
        end_seq = header.end_seq();
        at += usize::try_from(header.span()).unwrap_or(PAGE);
    }
    (end_seq, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records are numbers, from and to; and whether the copy is durable.
    type Copy = (u64, u64, bool);

    /// A writer and a syncer that do what they may do, in any order.
    #[derive(Clone, Default)]
    struct Model {
        slots: Slots,
        content: [Copy; 2],
        /// The last page that went to its place; all before it are durable up to `durable_place`.
        place: Copy,
        durable_place: u64,
        appended: u64,
        acked: u64,
        /// Something was written since the last sync began.
        dirty: bool,
        /// What a running sync covers, and what it is to acknowledge.
        running: Option<([Copy; 3], u64)>,
    }

    impl Model {
        fn step(&self, action: u32) -> Option<Self> {
            let mut next = self.clone();
            match action {
                0 => {
                    next.appended += 1;
                    next.dirty = true;
                    match next.slots.free() {
                        Some(slot) => {
                            next.content[slot] = (next.place.1, next.appended, false);
                            next.slots.wrote(slot);
                        }
                        None => next.flush(),
                    }
                }
                1 if next.place.1 < next.appended => next.flush(),
                2 if next.dirty && next.running.is_none() => {
                    next.dirty = false;
                    let [a, b] = next.content;
                    next.running = Some(([a, b, next.place], next.appended));
                    next.slots.sync_begins();
                }
                3 => {
                    let (covered, acked) = next.running.take()?;
                    for (slot, covered) in next.content.iter_mut().zip(covered) {
                        // What was written again meanwhile may be on disk, or not, or half.
                        slot.2 |= *slot == covered;
                    }
                    next.durable_place = next.durable_place.max(covered[2].1);
                    next.acked = acked;
                    next.slots.synced();
                }
                _ => return None,
            }
            Some(next)
        }

        fn flush(&mut self) {
            self.place = (self.place.1, self.appended, false);
            self.dirty = true;
            self.slots.flushed();
        }

        /// The end of what a power cut leaves for certain.
        fn durable(&self) -> u64 {
            let slots = self.content.iter().filter(|copy| copy.2);
            let ends = slots.filter(|copy| copy.0 <= self.durable_place);
            ends.map(|copy| copy.1).fold(self.durable_place, u64::max)
        }

        /// Histories of so many more steps, each checked after each step.
        fn walk(&self, depth: u32) -> u64 {
            assert!(self.durable() >= self.acked, "{:?}", self.slots);
            if depth == 0 {
                return 1;
            }
            let next = (0..4).filter_map(|action| self.step(action));
            next.map(|next| next.walk(depth - 1)).sum()
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn r1_no_slot_with_the_only_durable_copy_is_written_in_any_history() {
        assert!(Model::default().walk(11) > 10_000);
    }
}
