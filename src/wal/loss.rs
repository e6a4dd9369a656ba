//! A loss that shows while the log runs: a frame that a reader cannot read any more.
//!
//! Owns: the way from the damage to a gap that everybody goes on behind. Must not know: how readers
//! find damage, or what is done about the records that are gone.
//!
//! Order of durable steps: a copy of the region; the gap, appended as a frame and synced; only then its
//! numbers are settled, and readers pass it. A crash in between leaves the damage to be found again,
//! or the gap to be known by the next opening. Segments that begin meanwhile name it in their
//! preamble from before it is appended: so the newest one always tells it.

use std::sync::Arc;

use super::core::Core;
use super::error::Error;
use super::frame::HEADER_LEN;
use super::fs::Fs;
use super::gap::{GAP_LEN, Gap, MOST_GAPS, TOO_MANY};
use super::group::frame_span;
use super::options::OnCorruption;
use super::quarantine::keep;
use super::reader::Reader;
use super::staging::Need;
use super::writer::Partial;

impl<F: Fs> Core<F> {
    /// Gives up what the reader cannot read; `None` if nothing is missing there (any more).
    pub(crate) fn give_up(&self, reader: &mut Reader<F>) -> Result<Option<Gap>, Error> {
        assert!(
            Arc::ptr_eq(&reader.segments, &self.segments),
            "a reader of another log"
        );
        // Of two readers that met the same damage the second one finds the gap.
        let _alone = self.giving_up.lock();
        let Some((mut gap, path)) = reader.missing()? else {
            return Ok(None);
        };
        if self.files.options.on_corruption == OnCorruption::Refuse {
            return Err(Error::corrupt(path, gap.position, gap.to_string()));
        }
        if self.files.gaps.lock().len() >= MOST_GAPS {
            return Err(Error::corrupt(path, gap.position, TOO_MANY));
        }
        keep(&*self.files.fs, &self.files.dir, &path, &mut gap)?;
        if !self.segments.holds(gap.segment) {
            // It was released meanwhile, so all in it was settled; and the copy may be of another life.
            return Ok(None);
        }
        {
            let first = self.segments.first_seq();
            let mut gaps = self.files.gaps.lock();
            *gaps = gaps.with(&gap, first);
        }
        self.append_gap(&gap)?;
        self.settle(gap.seqs.clone(), |settled| settled.lose(gap.seqs.clone()));
        let first = self.segments.first_seq();
        let mut known = self.segments.1.lock();
        *known = known.with(&gap, first);
        drop(known);
        self.files.keeper.ring_soon();
        Ok(Some(gap))
    }

    /// Makes a gap durable: a frame behind everything staged so far.
    fn append_gap(&self, gap: &Gap) -> Result<(), Error> {
        if let Some(full) = self.full(false) {
            return Err(full);
        }
        let need = Need {
            count: 0,
            payload: GAP_LEN,
            total: frame_span(GAP_LEN) + HEADER_LEN,
        };
        let now = self.files.fs.now_micros();
        self.room(need, true)?.lose(gap, now);
        let mut writer = self.writer.lock();
        let token = self.sync.lock();
        self.write_staged(&mut writer, Some(&token), Partial::Now)?;
        self.sync_written(&token);
        // Where that sync failed, the fresh segment holds the gap twice.
        let done = self.go_on(&mut writer, Some(&token));
        // A syncer that waits for the sync token tries this one next.
        drop(writer);
        done
    }
}
