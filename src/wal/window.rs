//! A window on a file: buffered reading that goes on behind pages the disk no longer gives.
//!
//! Owns: the chunk in memory, halving what cannot be read, remembering what that was (row K). Must
//! not know: what the bytes mean, or what is done where they are missing.
//!
//! Invariants: a page that could not be read is zeros here, and whoever judges bytes asks
//! [`Window::lacks`] first; it is not asked for again as long as the file is the same. Media take
//! seconds to say that they cannot read, so the cost is bounded: a single bad page fails 10 reads (1 MiB
//! down to 4 KiB), a region of nothing else two a page.

use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::frame::PAGE;
use super::fs::{File, PAGE_TRIES, is_unreadable};
use super::scan::Life;
use super::segment::SLOT_POSITIONS;
use super::slots::{StandIn, stand_ins};

/// Bytes read at a time.
pub(crate) const CHUNK: usize = 1 << 20;

/// A window on a file: one chunk in memory, handed out in slices without a copy.
#[derive(Debug)]
pub(crate) struct Window {
    chunk: Bytes,
    start: u64,
    /// Nothing at or above it is read: a chunk never holds bytes that may still change.
    pub limit: u64,
    stand_ins: Vec<StandIn>,
    unreadable: Unreadable,
}

impl Window {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            chunk: Bytes::new(),
            start: 0,
            limit,
            stand_ins: Vec::new(),
            unreadable: Unreadable::default(),
        }
    }

    /// Moves to another file, or begins the same one anew, keeping the memory.
    pub(crate) fn reset(&mut self, limit: u64, stand_ins: Vec<StandIn>) {
        self.renew(limit, stand_ins);
        self.unreadable.0.clear();
    }

    /// Moves to what the file has become, keeping the memory.
    pub(crate) fn renew(&mut self, limit: u64, stand_ins: Vec<StandIn>) {
        self.start = u64::MAX;
        self.limit = limit;
        self.stand_ins = stand_ins;
    }

    /// Reads the tail slots; where they stand in for pages of the file, these are read from now on.
    pub(crate) fn read_slots<F: File>(&mut self, file: &F, life: Life) -> io::Result<bool> {
        let found = stand_ins(self, file, life)?;
        let any = !found.is_empty();
        self.stand_ins.extend(found);
        self.start = u64::MAX;
        Ok(any)
    }

    /// A page cannot be read.
    pub(crate) fn note_unreadable(&mut self, page: u64) {
        self.unreadable.note(page);
    }

    /// Whether a tail slot could not be read, so that nobody knows for which page it stands in.
    pub(crate) fn lacks_slot(&self) -> bool {
        let lacks = |slot| self.unreadable.meets(slot..slot + PAGE as u64);
        SLOT_POSITIONS.into_iter().any(lacks)
    }

    /// The pages that are read from tail slots.
    pub(crate) fn into_stand_ins(self) -> Vec<StandIn> {
        self.stand_ins
    }

    /// Whether any of these bytes could not be read, and no tail slot stands in for them: what
    /// [`get`](Self::get) returned for them is nothing.
    pub(crate) fn lacks(&self, position: u64, len: u64) -> bool {
        let end = position.saturating_add(len);
        self.unreadable.meets(position..end) && {
            let first = position / PAGE as u64 * PAGE as u64;
            (first..end).step_by(PAGE).any(|page| {
                self.unreadable.meets(page..page + PAGE as u64)
                    && self.stand_ins.iter().all(|slot| {
                        slot.position != page || slot.end() < end.min(page + PAGE as u64)
                    })
            })
        }
    }

    pub(crate) fn has_stand_in(&self, position: u64) -> bool {
        self.stand_ins.iter().any(|slot| slot.position == position)
    }

    /// Whether any bytes could not be read so far.
    pub(crate) fn lacks_any(&self) -> bool {
        !self.unreadable.0.is_empty()
    }

    /// Up to `want` bytes at `position`; fewer only at the limit or the end of the file.
    pub(crate) fn get<F: File>(
        &mut self,
        file: &F,
        position: u64,
        want: usize,
    ) -> io::Result<&[u8]> {
        let range = self.load(file, position, want)?;
        Ok(&self.chunk[range])
    }

    /// The same as a slice that outlives the window.
    pub(crate) fn slice<F: File>(
        &mut self,
        file: &F,
        position: u64,
        want: usize,
    ) -> io::Result<Bytes> {
        let range = self.load(file, position, want)?;
        Ok(self.chunk.slice(range))
    }

    fn load<F: File>(&mut self, file: &F, position: u64, want: usize) -> io::Result<Range<usize>> {
        let end = self.start.saturating_add(self.chunk.len() as u64);
        if position < self.start || position + want as u64 > end {
            self.start = position;
            let left = usize::try_from(self.limit.saturating_sub(position)).unwrap_or(usize::MAX);
            let len = want.max(CHUNK).min(left);
            // The old chunk is used again unless somebody still holds a slice of it.
            let mut buffer = std::mem::take(&mut self.chunk)
                .try_into_mut()
                .unwrap_or_default();
            if buffer.capacity() < len {
                buffer = BytesMut::with_capacity(len);
            }
            buffer.resize(len, 0);
            let mut read = self.unreadable.read(file, &mut buffer, position)?;
            for stand_in in &self.stand_ins {
                read = read.max(stand_in.cover(&mut buffer, read, position));
            }
            buffer.truncate(read);
            self.chunk = buffer.freeze();
        }
        let at = usize::try_from(position - self.start)
            .unwrap_or(usize::MAX)
            .min(self.chunk.len());
        Ok(at..at.saturating_add(want).min(self.chunk.len()))
    }
}

/// What could not be read of a file: ranges of whole pages, in order and apart.
#[derive(Default, Debug)]
struct Unreadable(Vec<Range<u64>>);

impl Unreadable {
    fn meets(&self, range: Range<u64>) -> bool {
        let first = self.0.partition_point(|known| known.end <= range.start);
        self.0
            .get(first)
            .is_some_and(|known| known.start < range.end)
    }

    /// Fills the buffer up to the end of the file. What cannot be read is halved down to single pages;
    /// those that are left are noted, and zeros.
    fn read<F: File>(&mut self, file: &F, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let end = position + buffer.len() as u64;
        let first_page = position / PAGE as u64 * PAGE as u64;
        let is_page = end <= first_page + PAGE as u64;
        let known = self.meets(position..end);
        // A page that is given at the second or fourth time was there.
        let tries = match (known, is_page) {
            (true, _) => 0,
            (false, true) => PAGE_TRIES,
            (false, false) => 1,
        };
        for _ in 0..tries {
            match file.read_at(buffer, position) {
                Err(error) if is_unreadable(&error) => {}
                read => return read,
            }
        }
        if is_page {
            buffer.fill(0);
            if !known {
                self.note(first_page);
            }
            return Ok(buffer.len());
        }
        let half = (position + buffer.len() as u64 / 2) / PAGE as u64 * PAGE as u64;
        let middle = half.max(first_page + PAGE as u64) - position;
        let middle = usize::try_from(middle).unwrap_or(buffer.len());
        let (front, back) = buffer.split_at_mut(middle);
        let read = self.read(file, front, position)?;
        if read < front.len() {
            return Ok(read);
        }
        Ok(read + self.read(file, back, position + read as u64)?)
    }

    fn note(&mut self, page: u64) {
        let end = page + PAGE as u64;
        let at = self.0.partition_point(|known| known.end < page);
        match self.0.get_mut(at) {
            Some(known) if known.start <= end => {
                known.start = known.start.min(page);
                known.end = known.end.max(end);
            }
            Some(_) | None => self.0.insert(at, page..end),
        }
        // What it touches on its other side is the same stretch.
        if let Some(next) = self.0.get(at + 1).cloned()
            && self.0[at].end == next.start
        {
            self.0[at].end = next.end;
            self.0.remove(at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What a page is full of; never zero.
    fn name_of(page: u64) -> u8 {
        page.to_le_bytes()[0] | 1
    }

    /// 300 pages, and which of them cannot be read.
    #[derive(Debug)]
    struct Pages {
        bad: Vec<u64>,
        failed: Mutex<Vec<Range<u64>>>,
    }

    const PAGES: u64 = 300;

    impl File for Pages {
        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            let len = (buffer.len() as u64).min((PAGES * PAGE as u64).saturating_sub(position));
            let asked = position + buffer.len() as u64;
            let range = position / PAGE as u64..asked.div_ceil(PAGE as u64);
            if self.bad.iter().any(|page| range.contains(page)) {
                self.failed.lock().unwrap().push(range);
                return Err(io::Error::from_raw_os_error(5));
            }
            for (at, byte) in (position..position + len).zip(buffer.iter_mut()) {
                *byte = name_of(at / PAGE as u64);
            }
            Ok(usize::try_from(len).unwrap())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!()
        }

        fn sync(&self) -> io::Result<()> {
            unreachable!()
        }

        fn len(&self) -> io::Result<u64> {
            unreachable!()
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            unreachable!()
        }

        fn drop_cache(&self) -> io::Result<()> {
            unreachable!()
        }
    }

    /// Reads the whole file in steps of 64 bytes, and returns the ranges that failed.
    fn read_all(bad: &[u64], from: u64) -> Vec<Range<u64>> {
        let file = Pages {
            bad: bad.into(),
            failed: Mutex::default(),
        };
        let mut window = Window::new(u64::MAX);
        for start in [from, from + 64] {
            for position in (start..PAGES * PAGE as u64).step_by(64) {
                let page = position / PAGE as u64;
                let bytes = window.get(&file, position, 64).unwrap().to_vec();
                let is_bad = bad.contains(&page);
                assert_eq!(window.lacks(position, 64), is_bad, "page {page} of {bad:?}");
                let byte = if is_bad { 0 } else { name_of(page) };
                assert!(bytes.iter().all(|&b| b == byte), "page {page} of {bad:?}");
            }
            assert!(
                window
                    .get(&file, PAGES * PAGE as u64, 64)
                    .unwrap()
                    .is_empty()
            );
        }
        assert_eq!(window.lacks_any(), !bad.is_empty());
        file.failed.into_inner().unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn a_page_that_cannot_be_read_costs_its_own_bytes_and_a_few_reads_once() {
        for from in [0, 64, 4032, 4096] {
            for page in [1, 2, 100, 255, 256, 299] {
                let failed = read_all(&[page], from);
                assert!(
                    failed.len() <= 9 + PAGE_TRIES,
                    "page {page} from {from}: {failed:?}"
                );
                let alone = failed.iter().filter(|range| range.end - range.start == 1);
                assert_eq!(
                    alone.count(),
                    PAGE_TRIES,
                    "page {page} from {from}: {failed:?}"
                );
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn however_many_pages_cannot_be_read_the_reads_that_fail_are_bounded() {
        let all: Vec<u64> = (0..PAGES).collect();
        let every_third: Vec<u64> = (0..PAGES).step_by(3).collect();
        for bad in [&all, &every_third, &vec![5, 6, 4, 9, 7]] {
            let alone = PAGE_TRIES * bad.len();
            let most = alone + (9 * bad.len()).min(all.len() + 4);
            let count = read_all(bad, 0).len();
            assert!(count <= most, "{count} for {} pages", bad.len());
        }
    }
}
