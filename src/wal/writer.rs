//! Writing: the way of a group from staging to disk, rotation, and what happens when a sync fails.
//!
//! Owns: the write token, the sync token, the ledger between them, publishing `written` and
//! `durable`. Must not know: threads or who calls; the cursor; how readers read.
//!
//! One holder of the *write token* takes groups from staging, gives them positions and writes them;
//! one holder of the *sync token* calls `fdatasync` and publishes. Order of locks, everywhere:
//! write token -> sync token -> ledger -> segments -> staging. A holder of the sync token may only
//! *try* the write token.
//!
//! Order of durable steps: a segment's last sync returns before anything of its successor is
//! written (R13). Groups that are not durable stay in memory, so that one failed sync costs nothing
//! (R2).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use parking_lot::MutexGuard;

use super::core::{Core, Files};
use super::error::Error;
use super::frame::{Kind, MAX_SEGMENT_NUMBER};
use super::fs::{File, Fs};
use super::options::{Durability, SYNC_BYTES};
use super::reader::Live;
use super::scan::Life;
use super::segment::{
    BODY, EndKind, FIELDS_LEN, HEADER_POSITIONS, INDEX_STEP, Predecessor, Seal, SegmentHeader,
};
use super::seq::SeqNo;
use super::staging::{Group, Place, frame_span};

/// The write token: who holds it alone gives positions and writes.
#[derive(Debug)]
pub(crate) struct Writer<F: Fs> {
    file: Arc<F::File>,
    path: PathBuf,
    pub header: SegmentHeader,
    /// Where the next group goes.
    position: u64,
    seal: Seal,
}

/// What is written but not known to be durable, in the active file.
#[derive(Debug)]
pub(crate) struct Ledger<F: Fs> {
    file: Arc<F::File>,
    groups: VecDeque<Group>,
    bytes: u64,
    /// Something was written since the last sync began.
    dirty: bool,
    /// Position behind the last group written.
    end: u64,
    pub durable_end: u64,
    /// The segment had a successful sync: its header is durable.
    pub proven: bool,
    /// A write or sync of the file failed: it is poisoned (R2).
    broken: Option<String>,
}

/// The sync token. Holding it is the permission to call `fdatasync` on the active file.
pub(crate) type SyncToken<'a> = MutexGuard<'a, ()>;

impl<F: Fs> Ledger<F> {
    fn new(file: Arc<F::File>, end: u64) -> Self {
        Self {
            file,
            groups: VecDeque::new(),
            bytes: 0,
            dirty: true,
            end,
            durable_end: BODY,
            proven: false,
            broken: None,
        }
    }
}

/// A segment that was begun: header and preamble are written, nothing is synced.
pub(crate) struct Begun<F: Fs> {
    pub writer: Writer<F>,
    pub ledger: Ledger<F>,
}

impl<F: Fs> Begun<F> {
    /// Makes header, preamble and groups durable.
    pub(crate) fn sync(mut self) -> Result<Self, Error> {
        let ledger = &mut self.ledger;
        ledger
            .file
            .sync()
            .map_err(Error::io("sync", &self.writer.path))?;
        ledger.dirty = false;
        ledger.durable_end = ledger.end;
        ledger.proven = true;
        Ok(self)
    }
}

impl<F: Fs> Files<F> {
    /// Writes a segment's preamble and header; `groups` are what a rewrite puts between them, synced.
    /// The header itself is not synced here.
    pub(crate) fn begin_segment(
        &self,
        header: SegmentHeader,
        groups: &mut VecDeque<Group>,
    ) -> Result<Begun<F>, Error> {
        let (file, path) = self.pool.lock().take(&*self.fs, &self.dir)?;
        assert!(header.number <= MAX_SEGMENT_NUMBER);
        let file = Arc::new(file);
        let filled = file.len().map_err(Error::io("measure", &path))?;
        self.fill.reset(&path, filled, header.size);
        let seal = Seal {
            first_seq: header.base_seq,
            ..Seal::default()
        };
        let mut writer = Writer {
            file: file.clone(),
            path,
            header,
            position: BODY,
            seal,
        };
        let mut preamble = self.preamble(&header);
        writer.write(self, &mut preamble)?;
        // R2: groups that are rewritten go in front of the header that makes them count.
        let rewritten = !groups.is_empty();
        for group in groups.iter_mut() {
            writer.write(self, group)?;
        }
        if rewritten {
            file.sync().map_err(Error::io("sync", &writer.path))?;
        }
        let page = header.encode_page();
        for position in HEADER_POSITIONS {
            file.write_at(&page, position)
                .map_err(Error::io("write", &writer.path))?;
        }
        let ledger = Ledger::new(file, writer.position);
        Ok(Begun { writer, ledger })
    }

    /// The start frame and every definition so far.
    fn preamble(&self, header: &SegmentHeader) -> Group {
        let now = self.fs.now_micros();
        let dictionary = self.dictionary.read();
        let definitions = dictionary.payload_len();
        let mut group = Group::with_capacity(frame_span(FIELDS_LEN) + frame_span(definitions));
        group
            .push_frame(Kind::Start, FIELDS_LEN, header.base_seq, now)
            .copy_from_slice(&header.encode_fields());
        if definitions > 0 {
            let out = group.push_frame(Kind::Dictionary, definitions, header.base_seq, now);
            dictionary.encode(out);
        }
        group
    }

    /// A header for a new life.
    pub(crate) fn new_header(
        &self,
        number: u64,
        base_seq: SeqNo,
        seq_limit: SeqNo,
        previous: Predecessor,
    ) -> Result<SegmentHeader, Error> {
        Ok(SegmentHeader {
            log_id: self.log_id,
            number,
            salt: self
                .fs
                .random()
                .map_err(Error::io("draw randomness for", &self.dir))?,
            base_seq,
            created_micros: self.fs.now_micros(),
            size: self.options.segment_size,
            seq_limit,
            durable_seq: self.marks.durable(),
            previous,
        })
    }
}

impl<F: Fs> Core<F> {
    /// Writes what is staged. The caller holds the write token and, where it has it, lends the sync
    /// token for a rotation. An error is final: the log has failed.
    pub(crate) fn write_staged(
        &self,
        writer: &mut Writer<F>,
        token: Option<&SyncToken<'_>>,
    ) -> Result<(), Error> {
        self.mend(writer, token)?;
        loop {
            let group = self.staging.lock().take();
            let Some(group) = group else { return Ok(()) };
            self.write_group(writer, group, token)
                .map_err(|e| self.fail(&e))?;
        }
    }

    fn write_group(
        &self,
        writer: &mut Writer<F>,
        mut group: Group,
        token: Option<&SyncToken<'_>>,
    ) -> Result<(), Error> {
        while !writer.has_room(group.padded_len() as u64) {
            self.rotate(writer, token)?;
        }
        let written = writer.write(&self.files, &mut group);
        let end_seq = group.end_seq;
        {
            let mut ledger = self.ledger.lock();
            ledger.bytes += group.padded_len() as u64;
            ledger.end = writer.position;
            ledger.dirty = true;
            ledger.groups.push_back(group);
            match written {
                Ok(()) => self.files.marks.set_written(end_seq),
                Err(error) => ledger.broken = Some(describe(&error)),
            }
        }
        self.mend(writer, token)?;
        self.wake();
        // Whoever waits or not: it is synced after `sync_interval` at the latest.
        self.syncer.ring_soon();
        Ok(())
    }

    /// After writing without syncing: has the syncer begin now, if somebody waits for the disk or
    /// so much is unsynced that it holds up appends or a rotation (R13).
    pub(crate) fn ring_syncer(&self) {
        let most = (self.files.options.memory_budget as u64 / 4).min(SYNC_BYTES);
        if !self.waiters.is_empty() || self.ledger.lock().bytes >= most {
            self.syncer.ring();
        }
    }

    /// Syncs what was written before and publishes it. On failure the file is poisoned; the caller
    /// goes on to [`mend`](Self::mend) with the write token.
    pub(crate) fn sync_written(&self, _token: &SyncToken<'_>) {
        let (file, groups, end) = {
            let mut ledger = self.ledger.lock();
            if ledger.broken.is_some() || !ledger.dirty {
                return;
            }
            ledger.dirty = false;
            (ledger.file.clone(), ledger.groups.len(), ledger.end)
        };
        let synced = file.sync();
        let mut ledger = self.ledger.lock();
        if let Err(error) = synced {
            // Asking again could be told "fine" although the pages are gone (R2).
            ledger.broken = Some(format!("fdatasync failed: {error}"));
            return;
        }
        let durable: Vec<Group> = ledger.groups.drain(..groups).collect();
        ledger.bytes -= durable
            .iter()
            .map(|group| group.padded_len() as u64)
            .sum::<u64>();
        ledger.durable_end = end;
        ledger.proven = true;
        let end_seq = durable.last().map(|group| group.end_seq);
        self.publish_durable(end, end_seq);
        drop(ledger);
        self.recycle(durable);
        self.wake();
        self.files.keeper.ring_soon();
    }

    fn publish_durable(&self, end: u64, end_seq: Option<SeqNo>) {
        if let Some(active) = self.segments.0.lock().back_mut() {
            active.end = end;
            active.next_seq = end_seq.unwrap_or(active.next_seq);
        }
        if let Some(end_seq) = end_seq {
            self.files.marks.set_durable(end_seq);
        }
    }

    fn recycle(&self, groups: Vec<Group>) {
        let mut staging = self.staging.lock();
        groups.into_iter().for_each(|group| staging.recycle(group));
        drop(staging);
        self.space.notify_all();
    }

    /// Ends the active segment with a seal, if anything is in it.
    pub(crate) fn seal_for_close(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        if writer.seal.count == 0 {
            return Ok(());
        }
        writer.write_seal(&self.files)?;
        writer.file.sync().map_err(Error::io("sync", &writer.path))
    }

    /// Seals the active segment, syncs it, and only then begins the next one (R13).
    fn rotate(&self, writer: &mut Writer<F>, lent: Option<&SyncToken<'_>>) -> Result<(), Error> {
        let sealed = writer.write_seal(&self.files);
        {
            let mut ledger = self.ledger.lock();
            ledger.end = writer.position;
            ledger.dirty = true;
            if let Err(error) = sealed {
                ledger.broken = Some(describe(&error));
            }
        }
        let own;
        let token = match lent {
            Some(token) => token,
            None => {
                own = self.sync.lock();
                &own
            }
        };
        self.sync_written(token);
        if self.ledger.lock().broken.is_some() {
            // The rewrite begins a new segment, which is what was wanted.
            return self.mend(writer, Some(token));
        }
        let end = (self.ledger.lock().durable_end, self.files.marks.durable());
        let header = self.successor(&writer.header, EndKind::Sealed, end)?;
        let begun = self.files.begin_segment(header, &mut VecDeque::new())?;
        self.enter(writer, begun);
        Ok(())
    }

    /// The header of the segment after `old`, which ends at this position and number.
    fn successor(
        &self,
        old: &SegmentHeader,
        kind: EndKind,
        (end, next_seq): (u64, SeqNo),
    ) -> Result<SegmentHeader, Error> {
        let previous = Predecessor {
            number: old.number,
            salt: old.salt,
            end,
            next_seq,
            kind,
        };
        self.files
            .new_header(old.number + 1, next_seq, self.seq_limit(), previous)
    }

    /// Makes a begun segment the active one.
    fn enter(&self, writer: &mut Writer<F>, begun: Begun<F>) {
        *writer = begun.writer;
        *self.ledger.lock() = begun.ledger;
        self.segments.0.lock().push_back(writer.live());
    }

    /// R2: after a failed write or sync, writes what is not durable to a fresh segment, once. If
    /// that fails as well the log takes nothing more.
    fn mend(&self, writer: &mut Writer<F>, lent: Option<&SyncToken<'_>>) -> Result<(), Error> {
        self.check_failed()?;
        let Some(reason) = self.ledger.lock().broken.clone() else {
            return Ok(());
        };
        let _own = lent.is_none().then(|| self.sync.lock());
        self.note_background(format!("{reason}; going on in a fresh segment"));
        self.rewrite(writer).map_err(|error| {
            self.fail(&format_args!(
                "{reason}; then, rewriting: {}",
                describe(&error)
            ))
        })
    }

    /// Rewrites what is not durable; the caller holds both tokens.
    fn rewrite(&self, writer: &mut Writer<F>) -> Result<(), Error> {
        let (mut groups, proven, durable_end) = {
            let mut ledger = self.ledger.lock();
            (
                std::mem::take(&mut ledger.groups),
                ledger.proven,
                ledger.durable_end,
            )
        };
        let header = if proven {
            self.successor(
                &writer.header,
                EndKind::IoError,
                (durable_end, self.files.marks.durable()),
            )?
        } else {
            // Nothing of the poisoned segment is durable, its header neither: it is left out.
            let old = &writer.header;
            self.files
                .new_header(old.number + 1, old.base_seq, self.seq_limit(), old.previous)?
        };
        // Only the header makes the groups count: it is synced after them.
        let begun = self.files.begin_segment(header, &mut groups)?.sync()?;
        let end = begun.ledger.end;
        if !proven {
            self.segments.0.lock().pop_back();
        }
        self.enter(writer, begun);
        self.publish_durable(end, groups.back().map(|group| group.end_seq));
        self.recycle(groups.into());
        self.wake();
        Ok(())
    }

    /// Mends if a sync failed; for a caller that holds no token.
    fn mend_if_broken(&self) -> Result<(), Error> {
        let broken = self.ledger.lock().broken.is_some();
        if broken {
            self.mend(&mut self.writer.lock(), None)
        } else {
            Ok(())
        }
    }

    /// Writes and syncs everything staged so far, in one go: what a leading waiter and the syncer do.
    pub(crate) fn write_and_sync(&self, token: SyncToken<'_>) -> Result<(), Error> {
        // Somebody who writes right now may be waiting for this token: only try.
        let written = match self.writer.try_lock() {
            Some(mut writer) => self.write_staged(&mut writer, Some(&token)),
            None => Ok(()),
        };
        self.sync_written(&token);
        drop(token);
        written.and_then(|()| self.mend_if_broken())
    }

    /// Leads, if nobody else does: true if something was written and synced.
    pub(crate) fn lead(&self, level: Durability) -> Result<bool, Error> {
        if level == Durability::Os {
            let Some(mut writer) = self.writer.try_lock() else {
                return Ok(false);
            };
            self.write_staged(&mut writer, None)?;
            drop(writer);
            self.ring_syncer();
            return Ok(true);
        }
        let Some(mut writer) = self.writer.try_lock() else {
            return Ok(false);
        };
        let Some(token) = self.sync.try_lock() else {
            return Ok(false);
        };
        self.write_staged(&mut writer, Some(&token))?;
        // The next group may be written while this one is synced.
        drop(writer);
        self.sync_written(&token);
        drop(token);
        self.mend_if_broken()?;
        Ok(true)
    }
}

impl<F: Fs> Writer<F> {
    /// The active segment as readers see it: nothing of it is durable yet.
    pub(crate) fn live(&self) -> Live {
        Live {
            life: Life {
                number: self.header.number,
                salt: self.header.salt,
            },
            path: self.path.clone(),
            base_seq: self.header.base_seq,
            end: BODY,
            next_seq: self.header.base_seq,
        }
    }

    fn has_room(&self, len: u64) -> bool {
        self.position + len + Seal::room(self.header.size) <= self.header.size
    }

    fn write(&mut self, files: &Files<F>, group: &mut Group) -> Result<(), Error> {
        let bytes = group.place(Place {
            segment: self.header.number,
            salt: self.header.salt,
            position: self.position,
            durable_seq: files.marks.durable(),
            acked_seq: files.marks.acked(),
        });
        let end = self.position + bytes.len() as u64;
        if files.fill.advance(end) && bytes.len() < 64 << 10 {
            files.keeper.ring();
        }
        self.file
            .write_at(bytes, self.position)
            .map_err(Error::io("write", &self.path))?;
        self.note(group);
        // A group ends on a page boundary; positions in between belong to its padding (R1).
        self.position = end;
        Ok(())
    }

    /// Keeps count for the seal.
    fn note(&mut self, group: &Group) {
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

    /// Writes the seal frame; the caller syncs.
    pub(crate) fn write_seal(&mut self, files: &Files<F>) -> Result<(), Error> {
        let len = self.seal.len();
        let mut group = Group::with_capacity(frame_span(len));
        let next_seq = files.marks.written();
        self.seal
            .encode(group.push_frame(Kind::Seal, len, next_seq, files.fs.now_micros()));
        self.write(files, &mut group)
    }
}

/// An error with its cause, on one line.
pub(crate) fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Where appends stand. `acked <= durable <= written <= next`.
#[derive(Debug)]
pub(crate) struct Atomics {
    written: AtomicU64,
    durable: AtomicU64,
    acked: AtomicU64,
}

impl Atomics {
    pub(crate) fn new(durable: SeqNo, acked: SeqNo) -> Self {
        Self {
            written: durable.get().into(),
            durable: durable.get().into(),
            acked: acked.get().into(),
        }
    }

    pub(crate) fn written(&self) -> SeqNo {
        SeqNo::new(self.written.load(SeqCst))
    }

    pub(crate) fn durable(&self) -> SeqNo {
        SeqNo::new(self.durable.load(SeqCst))
    }

    pub(crate) fn acked(&self) -> SeqNo {
        SeqNo::new(self.acked.load(SeqCst))
    }

    fn set_written(&self, seq: SeqNo) {
        self.written.fetch_max(seq.get(), SeqCst);
    }

    fn set_durable(&self, seq: SeqNo) {
        self.set_written(seq);
        self.durable.fetch_max(seq.get(), SeqCst);
    }

    pub(crate) fn set_acked(&self, seq: SeqNo) {
        self.acked.fetch_max(seq.get(), SeqCst);
    }
}
