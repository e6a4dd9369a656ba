//! The active segment: beginning one, writing groups into it, sealing it.
//!
//! Owns: [`Files`], what it takes to begin a segment; [`Active`], its file and its next position. Must
//! not know: staging, waiters, or when a sync is due.
//!
//! Order of durable steps: the file's name, then preamble and header; where groups are rewritten (R2)
//! these and a sync come first, and only then the header that makes them count.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::dictionary::Dictionary;
use super::error::Error;
use super::frame::{Kind, MAX_SEGMENT_NUMBER, PAGE};
use super::fs::{File, Fs};
use super::gap::{Gaps, MOST_GAPS, TOO_MANY};
use super::group::{Group, Place, frame_span};
use super::marks::Atomics;
use super::options::Options;
use super::pool::{Fill, Pool};
use super::reader::Live;
use super::rest::{OVERHEAD, Packer};
use super::scan::Life;
use super::segment::{
    BODY, FIELDS_LEN, HEADER_POSITIONS, INDEX_STEP, Predecessor, SLOT_POSITIONS, Seal,
    SegmentHeader,
};
use super::seq::{LogId, SeqNo};
use super::slots::StandIn;
use super::wait::Bell;

/// What it takes to begin a segment.
#[derive(Debug)]
pub(crate) struct Files<F: Fs> {
    pub fs: Arc<F>,
    pub dir: PathBuf,
    pub options: Options,
    pub log_id: LogId,
    pub marks: Atomics,
    pub pool: Mutex<Pool>,
    pub fill: Fill,
    /// In the hands of whoever writes.
    pub packer: Mutex<Packer>,
    pub dictionary: RwLock<Dictionary>,
    /// Largest number of a segment that was ever begun, in vain or not: none is used twice.
    pub last_number: AtomicU64,
    /// What the preamble of a segment tells of those before it.
    pub gaps: Mutex<Gaps>,
    pub keeper: Bell,
}

/// The active segment: the one that is appended to. Whoever holds the write token writes it.
#[derive(Debug)]
pub(crate) struct Active<F: Fs> {
    pub file: Arc<F::File>,
    pub path: PathBuf,
    pub header: SegmentHeader,
    /// Where the next group goes.
    pub position: u64,
    /// The quota has room for all of it.
    pub reserved: bool,
    /// What does not fill the page at `position` yet; the tail slots hold copies of it.
    pub pending: Option<Group>,
    seal: Seal,
}

impl<F: Fs> Files<F> {
    /// Writes a segment's preamble and header; `groups` are what a rewrite puts between them, synced.
    /// The header itself is not synced here. Where there is no space for it all, nothing is left.
    pub(crate) fn begin_segment(
        &self,
        header: SegmentHeader,
        groups: &mut VecDeque<Group>,
    ) -> Result<Active<F>, Error> {
        let (file, path) = self.pool.lock().take(&*self.fs, &self.dir)?;
        self.begin_in(file, path.clone(), header, groups)
            .inspect_err(|error| self.discard(error, path))
    }

    /// As [`begin_segment`](Self::begin_segment), with the header synced.
    pub(crate) fn begin_durably(
        &self,
        header: SegmentHeader,
        groups: &mut VecDeque<Group>,
    ) -> Result<Active<F>, Error> {
        let active = self.begin_segment(header, groups)?;
        active
            .sync()
            .inspect_err(|error| self.discard(error, active.path.clone()))?;
        Ok(active)
    }

    /// A segment that could not begin for lack of space takes none.
    fn discard(&self, error: &Error, path: PathBuf) {
        if error.is_full() {
            self.fill.stop();
            self.pool.lock().discard(&*self.fs, &self.dir, path);
        }
    }

    fn begin_in(
        &self,
        file: F::File,
        path: PathBuf,
        header: SegmentHeader,
        groups: &mut VecDeque<Group>,
    ) -> Result<Active<F>, Error> {
        assert!(header.number <= MAX_SEGMENT_NUMBER);
        let file = Arc::new(file);
        let filled = file.len().map_err(Error::io("measure", &path))?;
        self.fill.reset(&path, filled, header.size);
        let seal = Seal {
            first_seq: header.base_seq,
            ..Seal::default()
        };
        let mut active = Active {
            file: file.clone(),
            path,
            header,
            position: BODY,
            reserved: false,
            pending: None,
            seal,
        };
        if self.gaps.lock().len() > MOST_GAPS {
            return Err(Error::corrupt(&self.dir, 0, TOO_MANY));
        }
        let mut preamble = self.preamble(&header);
        active.write(self, &mut preamble)?;
        // R2: groups that are rewritten go in front of the header that makes them count.
        let rewritten = !groups.is_empty();
        for group in groups.iter_mut() {
            active.write(self, group)?;
        }
        if rewritten {
            file.sync().map_err(Error::io("sync", &active.path))?;
        }
        let page = header.encode_page();
        for position in HEADER_POSITIONS {
            file.write_at(&page, position)
                .map_err(Error::io("write", &active.path))?;
        }
        Ok(active)
    }

    /// The start frame, and once more every definition and every gap so far.
    fn preamble(&self, header: &SegmentHeader) -> Group {
        let now = self.fs.now_micros();
        let dictionary = self.dictionary.read();
        let definitions = dictionary.payload_len();
        let gaps = self.gaps.lock();
        let gaps_len = gaps.payload_len();
        let spans = [FIELDS_LEN, definitions, gaps_len].map(frame_span);
        let mut group = Group::with_capacity(spans.iter().sum());
        group
            .push_frame(Kind::Start, FIELDS_LEN, header.base_seq, now)
            .copy_from_slice(&header.encode_fields());
        // An encrypted segment has one in any case: opening sees by it whether the key is right.
        if definitions > 0 || header.key.is_some() {
            let out = group.push_frame(Kind::Dictionary, definitions, header.base_seq, now);
            dictionary.encode(out);
        }
        if gaps_len > 0 {
            gaps.encode(group.push_frame(Kind::Gap, gaps_len, header.base_seq, now));
        }
        group
    }

    /// A group as it is stored at this place, under the segment's key.
    fn packed<'a>(
        &self,
        packer: &'a mut Packer,
        group: &'a mut Group,
        place: Place,
        key: Option<NonZeroU32>,
    ) -> Result<&'a [u8], Error> {
        let key = (key, &self.options.keys);
        packer
            .place(group, place, key, || self.fs.random())
            .map_err(Error::io("encrypt for", &self.dir))
    }

    /// A header for a new life, with the next segment number.
    pub(crate) fn new_header(
        &self,
        base_seq: SeqNo,
        seq_limit: SeqNo,
        previous: Predecessor,
    ) -> Result<SegmentHeader, Error> {
        Ok(SegmentHeader {
            log_id: self.log_id,
            number: self.last_number.fetch_add(1, Ordering::SeqCst) + 1,
            salt: self
                .fs
                .random()
                .map_err(Error::io("draw randomness for", &self.dir))?,
            base_seq,
            created_micros: self.fs.now_micros(),
            size: self.options.segment_size,
            key: self.options.keys.current(),
            seq_limit,
            durable_seq: self.marks.durable(),
            previous,
        })
    }
}

impl<F: Fs> Active<F> {
    /// The active segment as readers see it: nothing of it is durable yet.
    pub(crate) fn live(&self) -> Live {
        Live {
            life: Life {
                number: self.header.number,
                salt: self.header.salt,
            },
            path: self.path.clone(),
            key: self.header.key,
            base_seq: self.header.base_seq,
            void_from: self.header.previous.next_seq,
            end: BODY,
            next_seq: self.header.base_seq,
            stand_ins: Vec::new(),
            unreadable: false,
        }
    }

    /// Most bytes that a group can take here.
    pub(crate) fn most_len(&self, group: &Group) -> u64 {
        group.padded_len_with(self.overhead()) as u64
    }

    /// Bytes that a payload may get longer.
    fn overhead(&self) -> usize {
        self.header.key.map_or(0, |_| OVERHEAD)
    }

    /// Whether so many bytes have room behind the pending page, and the seal behind them.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        let pending = self.pending.as_ref().map_or(0, |_| PAGE as u64);
        self.position + pending + len + Seal::room(self.header.size) <= self.header.size
    }

    /// Writes a group behind the last one; what was pending has been written before.
    pub(crate) fn write(&mut self, files: &Files<F>, group: &mut Group) -> Result<(), Error> {
        self.note(group);
        self.put(files, group)
    }

    /// Takes a small group into the pending page; false, and nothing done, where it does not fit.
    pub(crate) fn absorb(&mut self, group: &Group) -> bool {
        if self.most_len(group) > PAGE as u64 {
            return false;
        }
        let overhead = self.overhead();
        let pending = self
            .pending
            .get_or_insert_with(|| Group::with_capacity(PAGE));
        let fits = pending.absorb(group, overhead);
        if fits {
            self.note(group);
        } else if pending.is_empty() {
            self.pending = None;
        }
        fits
    }

    /// Writes the pending page into a slot, for the place where it belongs.
    pub(crate) fn write_slot(
        &mut self,
        files: &Files<F>,
        slot: usize,
    ) -> Result<(StandIn, SeqNo), Error> {
        let place = self.place(files);
        let Some(pending) = &mut self.pending else {
            unreachable!("a group was absorbed");
        };
        let (first_seq, end_seq) = (pending.first_seq(), pending.end_seq);
        let mut packer = files.packer.lock();
        let page = files.packed(&mut packer, pending, place, self.header.key)?;
        self.file
            .write_at(page, SLOT_POSITIONS[slot])
            .map_err(Error::io("write", &self.path))?;
        let page = StandIn {
            position: self.position,
            first_seq,
            page: Bytes::copy_from_slice(page),
        };
        Ok((page, end_seq))
    }

    /// Writes a group, or the pending page, at the end.
    pub(crate) fn put(&mut self, files: &Files<F>, group: &mut Group) -> Result<(), Error> {
        let mut packer = files.packer.lock();
        let bytes = files.packed(&mut packer, group, self.place(files), self.header.key)?;
        let end = self.position + bytes.len() as u64;
        if files.fill.advance(end) && bytes.len() < 64 << 10 {
            files.keeper.ring();
        }
        self.file
            .write_at(bytes, self.position)
            .map_err(Error::io("write", &self.path))?;
        // A group ends on a page boundary; positions in between belong to its padding (R1).
        self.position = end;
        Ok(())
    }

    /// Where the next page goes, and what is known by now.
    fn place(&self, files: &Files<F>) -> Place {
        Place {
            segment: self.header.number,
            salt: self.header.salt,
            position: self.position,
            durable_seq: files.marks.durable(),
            acked_seq: files.marks.acked(),
        }
    }

    /// Keeps count for the seal.
    pub(crate) fn note(&mut self, group: &Group) {
        if group.records == 0 {
            return;
        }
        let indexed = self
            .seal
            .index
            .last()
            .map_or(0, |(_, position)| position / INDEX_STEP + 1);
        if self.position / INDEX_STEP >= indexed {
            self.seal.index.push((group.first_seq(), self.position));
        }
        if self.seal.count == 0 {
            self.seal.first_time_micros = group.first_time_micros;
        }
        self.seal.count += group.records;
        self.seal.last_seq = group.end_seq;
        self.seal.last_time_micros = group.last_time_micros;
    }

    /// Writes what is pending, and the seal frame; the caller syncs.
    pub(crate) fn write_seal(&mut self, files: &Files<F>) -> Result<(), Error> {
        if let Some(mut page) = self.pending.take() {
            self.put(files, &mut page)?;
        }
        let len = self.seal.len();
        let mut group = Group::with_capacity(frame_span(len));
        let next_seq = files.marks.written();
        self.seal
            .encode(group.push_frame(Kind::Seal, len, next_seq, files.fs.now_micros()));
        self.write(files, &mut group)
    }

    /// Whether any record is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.seal.count == 0
    }

    /// Makes everything written so far durable; only for a segment that nobody else syncs.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync().map_err(Error::io("sync", &self.path))
    }
}
