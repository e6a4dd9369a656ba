//! Ballast: a small file that is given up so that a full disk still has room for the cursor.
//!
//! Owns: making the file and giving it up. Must not know: who is short of space.
//!
//! Invariants: it holds nothing; a log without it is whole.

use std::io::ErrorKind;
use std::path::Path;

use super::core::Core;
use super::directory::TEMPORARY;
use super::error::Error;
use super::fs::{Access, File, Fs};
use super::keeper::replace;

/// The file's name.
pub(crate) const BALLAST: &str = "ballast";
/// Room for two cursor files and for the first pages of a segment, several times over.
pub(crate) const BALLAST_BYTES: usize = 64 << 10;

/// Gives the file up. False: there was none.
pub(crate) fn give_up<F: Fs>(fs: &F, dir: &Path) -> Result<bool, Error> {
    let path = dir.join(BALLAST);
    match fs.remove(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        removed => removed.map_err(Error::io("remove", &path))?,
    }
    fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    Ok(true)
}

/// Makes the file, if it is not there.
fn make<F: Fs>(fs: &F, dir: &Path) -> Result<(), Error> {
    let path = dir.join(BALLAST);
    match fs.open(&path, Access::Read).and_then(|file| file.len()) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        len => return len.map(drop).map_err(Error::io("open", &path)),
    }
    // No zeros: some file systems give them no room.
    replace(fs, dir, &path, &[0xba; BALLAST_BYTES])
        .map(drop)
        .inspect_err(|_| {
            // A part of it would take the room that others need; the next open removes it as well.
            drop(fs.remove(&path.with_extension(&TEMPORARY[1..])));
        })
}

impl<F: Fs> Core<F> {
    /// Gives the ballast up, where there is one; it is made again when space returns.
    pub(crate) fn give_up_ballast(&self) -> Result<bool, Error> {
        let given = give_up(&*self.files.fs, &self.files.dir)?;
        if given {
            self.ballast.begin("given up for the cursor".into());
        }
        Ok(given)
    }

    /// Makes the ballast, if it is missing and a try is due.
    pub(crate) fn keep_ballast(&self) -> Result<(), Error> {
        if !self.ballast.is_due() {
            return Ok(());
        }
        match make(&*self.files.fs, &self.files.dir) {
            Ok(()) => _ = self.ballast.end(),
            Err(error) if error.is_full() => self.ballast.begin(error.describe()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
