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
use std::sync::atomic::Ordering::SeqCst;

use parking_lot::MutexGuard;

use super::active::Active;
use super::core::Core;
use super::error::Error;
use super::fs::{File, Fs};
use super::group::Group;
use super::ledger::{Ledger, Over};
use super::segment::{EndKind, Predecessor, SegmentHeader};
use super::seq::SeqNo;
use super::slots::StandIn;

/// The sync token. Holding it is the permission to call `fdatasync` on the active file.
pub(crate) type SyncToken<'a> = MutexGuard<'a, ()>;

/// What becomes of a buffer that is not full, behind one that was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Partial {
    /// It is written, too.
    Now,
    /// Where nobody waits it is left to be filled until the next round: it costs as much as a full one.
    Later,
}

impl<F: Fs> Core<F> {
    /// Writes what is staged. The caller holds the write token and, where it has it, lends the sync
    /// token for a rotation. [`Error::Full`] passes, and what could not be written is kept; any other
    /// error is final: the log has failed.
    pub(crate) fn write_staged(
        &self,
        writer: &mut Active<F>,
        token: Option<&SyncToken<'_>>,
        partial: Partial,
    ) -> Result<(), Error> {
        self.mend(writer, token)?;
        self.write_groups(writer, token, partial)
    }

    pub(super) fn write_groups(
        &self,
        writer: &mut Active<F>,
        token: Option<&SyncToken<'_>>,
        partial: Partial,
    ) -> Result<(), Error> {
        let mut is_first = true;
        loop {
            self.missed.store(false, SeqCst);
            let group = {
                let mut staging = self.staging.lock();
                let is_awaited = self.waiters.are_some() || self.files.marks.is_urgent();
                let may_wait = partial == Partial::Later && !is_first && !is_awaited;
                if may_wait && staging.is_partial() {
                    self.flusher.ring_soon();
                    return Ok(());
                }
                staging.take()
            };
            let Some(group) = group else { return Ok(()) };
            self.write_group(writer, group, token)?;
            is_first = false;
        }
    }

    fn write_group(
        &self,
        writer: &mut Active<F>,
        group: Group,
        token: Option<&SyncToken<'_>>,
    ) -> Result<(), Error> {
        if let Err(error) = self.room_for(writer, writer.most_len(&group), token) {
            self.staging.lock().put_back(group);
            return Err(self.halt(error));
        }
        let pending = writer.absorb(&group) || {
            self.flush_page(writer, token);
            !self.is_over() && writer.absorb(&group)
        };
        if pending {
            self.recycle([group]);
            self.write_page(writer, token);
        } else {
            writer.note(&group);
            self.put_group(writer, group, token);
        }
        self.go_on(writer, token)?;
        self.wake();
        match token {
            // Not only once all is written: the disk works while the next group is on its way.
            None => self.ring_syncer(),
            // Whoever waits or not: it is synced after `sync_interval` at the latest.
            Some(_) => self.syncer.ring_soon(),
        }
        Ok(())
    }

    /// Writes the pending page to a tail slot, or to its place where no slot is free.
    fn write_page(&self, writer: &mut Active<F>, token: Option<&SyncToken<'_>>) {
        // Under the lock: no sync begins while a slot is half written.
        let mut ledger = self.ledger.lock();
        let Some(slot) = ledger.slots.free() else {
            drop(ledger);
            return self.flush_page(writer, token);
        };
        match writer.write_slot(&self.files, slot) {
            Ok((page, end_seq)) => {
                ledger.wrote_page(slot, page);
                self.files.marks.set_written(end_seq);
            }
            Err(error) => {
                drop(ledger);
                self.end_segment(&error, token);
            }
        }
    }

    /// Writes what is pending to its place.
    fn flush_page(&self, writer: &mut Active<F>, token: Option<&SyncToken<'_>>) {
        if let Some(page) = self.take_page(writer) {
            self.put_group(writer, page, token);
        }
    }

    fn take_page(&self, writer: &mut Active<F>) -> Option<Group> {
        let page = writer.pending.take()?;
        self.staging.lock().hold(&page);
        Some(page)
    }

    /// Writes a group to its place and keeps it until it is durable there. Where the segment is over
    /// it is only kept: it goes on with the others.
    fn put_group(&self, writer: &mut Active<F>, mut group: Group, token: Option<&SyncToken<'_>>) {
        let written = !self.is_over() && {
            let written = writer.put(&self.files, &mut group);
            written
                .inspect_err(|error| self.end_segment(error, token))
                .is_ok()
        };
        let group = self.cut_to_size(group);
        let mut ledger = self.ledger.lock();
        if written {
            ledger.wrote(writer.position);
            self.files.marks.set_written(group.end_seq);
        }
        ledger.keep(group);
    }

    /// A group in no more memory than it needs, where it leaves half of its buffer empty: who appends
    /// gets the buffer back, and does not wait for a sync of little.
    fn cut_to_size(&self, group: Group) -> Group {
        let Some(copy) = group.cut_to_size() else {
            return group;
        };
        self.staging.lock().exchange(group, &copy);
        self.space.notify_all();
        copy
    }

    /// A write failed: nothing more goes into the segment.
    fn end_segment(&self, error: &Error, token: Option<&SyncToken<'_>>) {
        if error.is_full() {
            // What was written before is whole: where it can be made durable it stays.
            let own = token.is_none().then(|| self.sync.lock());
            if let Some(token) = token.or(own.as_ref()) {
                self.sync_written(token);
            }
        }
        let mut ledger = self.ledger.lock();
        // The first reason stays.
        ledger.over.get_or_insert_with(|| Over::failed(error));
    }

    fn is_over(&self) -> bool {
        self.ledger.lock().over.is_some()
    }

    /// Sees to it that the active segment has room for so much, within the quota.
    fn room_for(
        &self,
        writer: &mut Active<F>,
        len: u64,
        token: Option<&SyncToken<'_>>,
    ) -> Result<(), Error> {
        if !writer.reserved {
            self.files.reserve_rest(&writer.path)?;
            writer.reserved = true;
        }
        while !writer.has_room(len) {
            self.rotate(writer, token)?;
        }
        Ok(())
    }

    /// Syncs what was written before and publishes it. On failure the file is poisoned; the caller
    /// goes on to [`mend`](Self::mend) with the write token.
    pub(crate) fn sync_written(&self, _token: &SyncToken<'_>) {
        let begun = {
            let mut ledger = self.ledger.lock();
            ledger.sync_begins(self.files.marks.written())
        };
        let Some(covered) = begun else { return };
        let synced = covered.file.sync();
        let mut ledger = self.ledger.lock();
        if let Err(error) = synced {
            // Asking again could be told "fine" although the pages are gone (R2).
            let error = Error::io("fdatasync", "the active segment")(error);
            ledger.over = Some(Over::failed(&error));
            return;
        }
        let durable = ledger.synced(&covered);
        self.publish_durable(covered.end, covered.tail, covered.end_seq);
        drop(ledger);
        self.recycle(durable);
        self.wake();
        self.files.keeper.ring_soon();
    }

    fn publish_durable(&self, end: u64, tail: Option<StandIn>, end_seq: SeqNo) {
        // Under the lock: what a reader finds here is below the mark already, so it may be settled.
        let mut segments = self.segments.0.lock();
        if let Some(active) = segments.back_mut() {
            active.end = tail.as_ref().map_or(end, StandIn::end);
            active.next_seq = end_seq;
            active.stand_ins = tail.into_iter().collect();
        }
        self.files.marks.set_durable(end_seq);
    }

    fn recycle(&self, groups: impl IntoIterator<Item = Group>) {
        let mut staging = self.staging.lock();
        groups.into_iter().for_each(|group| staging.recycle(group));
        drop(staging);
        self.space.notify_all();
    }

    /// Ends the active segment with a seal, if anything is in it.
    pub(crate) fn seal_for_close(&self) -> Result<(), Error> {
        // R2: after a failure the active file may be a poisoned one.
        self.check_failed()?;
        self.check_shortage()?;
        let mut writer = self.writer.lock();
        if writer.is_empty() {
            // Definitions, perhaps, that no record followed.
            drop(writer);
            return self.write_and_sync(self.sync.lock());
        }
        writer.write_seal(&self.files)?;
        writer.sync()
    }

    /// Seals the active segment, syncs it, and only then begins the next one (R13).
    fn rotate(&self, writer: &mut Active<F>, lent: Option<&SyncToken<'_>>) -> Result<(), Error> {
        self.flush_page(writer, lent);
        if self.is_over() {
            // That begins a new segment, which is what was wanted.
            return self.go_on(writer, lent);
        }
        let sealed = writer.write_seal(&self.files);
        let own;
        let token = match lent {
            Some(token) => token,
            None => {
                own = self.sync.lock();
                &own
            }
        };
        if sealed.as_ref().err().is_none_or(Error::is_full) {
            // On a full disk the segment ends without a seal; what is in it is whole.
            self.ledger.lock().wrote(writer.position);
            self.sync_written(token);
        }
        let over = {
            let mut ledger = self.ledger.lock();
            if let Err(error) = sealed {
                ledger.over.get_or_insert_with(|| Over::failed(&error));
            }
            ledger.over.is_some()
        };
        if over {
            return self.go_on(writer, Some(token));
        }
        let end = self.ledger.lock().durable_place();
        let header = self.successor(&writer.header, EndKind::Sealed, end)?;
        let begun = self
            .files
            .reserve_next()
            .and_then(|()| self.files.begin_segment(header, &mut VecDeque::new()));
        let next = begun.inspect_err(|error| {
            // Nothing follows the seal, also when it is tried again.
            self.ledger.lock().over = Some(Over {
                reason: error.describe(),
                kind: EndKind::Sealed,
            });
        })?;
        let base = next.header.base_seq;
        self.enter(writer, next, false, base);
        // What is settled of older segments is wanted soon: it spares a new file and its zeros.
        self.files.keeper.ring();
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
        self.files.new_header(next_seq, self.seq_limit(), previous)
    }

    /// Makes a begun segment the active one.
    fn enter(&self, writer: &mut Active<F>, mut next: Active<F>, proven: bool, next_seq: SeqNo) {
        next.reserved = true;
        *self.ledger.lock() = Ledger::new(&next, proven, next_seq);
        *writer = next;
        let previous = writer.header.previous;
        let mut segments = self.segments.0.lock();
        if let Some(old) = segments.back_mut() {
            // What a slot of it held goes on in the next one.
            (old.end, old.next_seq) = (previous.end, previous.next_seq);
            old.stand_ins.clear();
        }
        segments.push_back(writer.live());
    }

    /// If the segment is over, goes on in a fresh one; an error while space is short, whether it is
    /// over or not: a shortage that lasts is the keeper's to try.
    pub(super) fn mend(
        &self,
        writer: &mut Active<F>,
        lent: Option<&SyncToken<'_>>,
    ) -> Result<(), Error> {
        self.check_failed()?;
        self.check_shortage()?;
        self.go_on(writer, lent)
    }

    /// R2: if the segment is over, writes what is not durable to a fresh one, once. If that fails as
    /// well the log takes nothing more; but for lack of space, which ends: then nothing has changed.
    pub(crate) fn go_on(
        &self,
        writer: &mut Active<F>,
        lent: Option<&SyncToken<'_>>,
    ) -> Result<(), Error> {
        self.check_failed()?;
        let Some(over) = self.ledger.lock().over.clone() else {
            return Ok(());
        };
        let _own = lent.is_none().then(|| self.sync.lock());
        self.note_background(format!("{}; going on in a fresh segment", over.reason));
        let mut groups = std::mem::take(&mut self.ledger.lock().groups);
        groups.extend(self.take_page(writer));
        self.rewrite(writer, over.kind, groups)
            .map_err(|error| match error {
                full if full.is_full() => self.halt(full),
                error => self.fail(&format_args!(
                    "{}; then, rewriting: {}",
                    over.reason,
                    error.describe()
                )),
            })
    }

    /// Rewrites what is not durable; the caller holds both tokens.
    fn rewrite(
        &self,
        writer: &mut Active<F>,
        kind: EndKind,
        mut groups: VecDeque<Group>,
    ) -> Result<(), Error> {
        let (proven, durable_place) = {
            let ledger = self.ledger.lock();
            (ledger.proven, ledger.durable_place())
        };
        let old = &writer.header;
        let header = if proven {
            self.successor(old, kind, durable_place)
        } else {
            // Nothing of the poisoned segment is durable, its header neither: it is left out.
            self.files
                .new_header(old.base_seq, self.seq_limit(), old.previous)
        };
        // Only the header makes the groups count: it is synced after them.
        let begun = header.and_then(|header| {
            self.files.reserve_next()?;
            self.files.begin_durably(header, &mut groups)
        });
        // Whatever failed: they are tried again, or never acknowledged.
        let fresh = match begun {
            Ok(fresh) => fresh,
            Err(error) => {
                self.ledger.lock().groups = groups;
                return Err(error);
            }
        };
        let end = fresh.position;
        let base = fresh.header.base_seq;
        let end_seq = groups.back().map_or(base, |group| group.end_seq);
        if !proven {
            self.segments.0.lock().pop_back();
        }
        self.enter(writer, fresh, true, end_seq);
        self.publish_durable(end, None, end_seq);
        self.recycle(groups);
        self.wake();
        Ok(())
    }

    /// An error while space is short: what is staged is kept.
    fn check_shortage(&self) -> Result<(), Error> {
        self.full(true).map_or(Ok(()), Err)
    }

    /// What happens when writing cannot go on: for lack of space it waits for the keeper's next try,
    /// else the log has failed.
    fn halt(&self, error: Error) -> Error {
        if matches!(error, Error::Full { .. }) {
            return error;
        }
        let reason = error.describe();
        if !error.is_full() {
            return self.fail(&reason);
        }
        self.shortage.begin(reason.clone());
        self.files.keeper.ring();
        self.wake_appenders();
        self.wake();
        Error::Full {
            reason,
            staged: true,
        }
    }
}
