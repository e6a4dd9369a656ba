//! The quota: room for a whole segment is reserved before anything is written to it.
//!
//! Owns: what the directory takes, and whether one more segment fits. Must not know: what is given
//! up where it does not.
//!
//! Invariants: the files of the directory never take more than the quota, because a segment counts
//! in full from its beginning on; what is measured are the files, never a counter (R7).

use std::io;
use std::path::{Path, PathBuf};

use super::active::Files;
use super::ballast::{BALLAST, BALLAST_BYTES};
use super::error::Error;
use super::frame::PAGE;
use super::fs::Fs;

impl<F: Fs> Files<F> {
    /// Reserves room for the next segment; spares that it does not need give way.
    pub(crate) fn reserve_next(&self) -> Result<(), Error> {
        let next = self.pool.lock().next().map(Path::to_path_buf);
        self.reserve(next, 1)
    }

    /// Reserves room for the rest of a segment that was begun without asking: opening does.
    pub(crate) fn reserve_rest(&self, active: &Path) -> Result<(), Error> {
        self.reserve(Some(active.into()), 0)
    }

    fn reserve(&self, file: Option<PathBuf>, spares: usize) -> Result<(), Error> {
        let Some(quota) = self.options.quota_bytes else {
            return Ok(());
        };
        loop {
            let used = self.used_with(file.as_deref())?;
            if used <= quota {
                return Ok(());
            }
            if !self.pool.lock().shrink(&*self.fs, &self.dir, spares)? {
                let reason = format!("another segment would make it {used} bytes of {quota}");
                let full = io::Error::new(io::ErrorKind::StorageFull, reason);
                return Err(Error::io("stay within the quota in", &self.dir)(full));
            }
        }
    }

    /// Bytes of the directory's files once this one is a full segment.
    fn used_with(&self, file: Option<&Path>) -> Result<u64, Error> {
        let entries = self
            .fs
            .list(&self.dir)
            .map_err(Error::io("list", &self.dir))?;
        let name = file.and_then(Path::file_name);
        let is_it = |entry_name: &str| name.is_some_and(|name| name == entry_name);
        let grown = entries.iter().find(|entry| is_it(&entry.name));
        let others = entries.iter().filter(|entry| !is_it(&entry.name));
        let ballast = if entries.iter().any(|entry| entry.name == BALLAST) {
            0
        } else {
            BALLAST_BYTES as u64
        };
        // A page for a cursor file that is replaced.
        Ok(others.map(|entry| entry.len).sum::<u64>()
            + ballast
            + grown
                .map_or(0, |entry| entry.len)
                .max(self.options.segment_size)
            + PAGE as u64)
    }
}
