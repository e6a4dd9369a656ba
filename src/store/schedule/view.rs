//! A look at the schedule of a store that another process may have open.
//!
//! It takes no lock and writes nothing; what it knows is as of when it looked.

use std::sync::Arc;

use super::{Announced, Foreign, SCHEDULE, Scheduled, Told, fire, foreign, look};
use crate::{
    store::{Error, LaneView, Now, StoreView, boots::Boots},
    wal,
};

impl StoreView {
    /// What waits for its time, as things stood at the last look at the disk. Reads the schedule log once;
    /// `None`: there is none.
    ///
    /// What was accepted in this boot of the machine is due by this boot's clock; of what is due by an
    /// interval since an earlier one, the time is told as if the store were opened now.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if the log cannot be read.
    pub fn scheduled(&self, now: &Now) -> Result<Option<Scheduled>, Error> {
        let dir = self.dir.join(SCHEDULE);
        let view = match self.look(&dir) {
            Err(wal::Error::NotALog { .. }) => return Ok(None),
            view => view?,
        };
        let boots = Boots::load(&self.dir);
        let mut told = Told::default();
        let mut reader = view.reader(view.marks().first);
        loop {
            match reader.next() {
                Ok(Some(record)) => told
                    .take_in(&record, now, &boots)
                    .map_err(|Foreign| foreign(&dir, &record))?,
                Ok(None) => break,
                Err(wal::Error::Corrupt { .. }) => {
                    reader.skip_damage()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(open) = told.open.take()
            && self.is_fired(&open)?
        {
            open.ids.iter().for_each(|id| told.index.remove(*id));
        }
        Ok(Some(Scheduled {
            lost: view.totals().lost,
            ..look(&told.index, now)
        }))
    }

    /// Whether what a firing announced stands in its lane.
    fn is_fired(&self, open: &Announced) -> Result<bool, Error> {
        let Some(lane) = self.lanes.iter().find(|lane| lane.name() == open.lane) else {
            return Ok(false);
        };
        fire::is_there(|from| lane.reader(from), open.from, &open.ids)
    }

    /// The files of the schedule log, if there is one: for who checks every byte.
    ///
    /// # Errors
    ///
    /// [`Error::Lane`] if they cannot be read.
    pub fn schedule_log(&self) -> Result<Option<LaneView>, Error> {
        let boots = Arc::new(Boots::load(&self.dir));
        match LaneView::open(SCHEDULE, self.look(&self.dir.join(SCHEDULE)), boots) {
            Err(Error::Lane {
                source: wal::Error::NotALog { .. },
                ..
            }) => Ok(None),
            view => view.map(Some),
        }
    }
}
