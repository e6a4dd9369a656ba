//! Copies of damaged regions, made before the log goes on without them.
//!
//! Owns: the files in `quarantine/`. Must not know: why a region counts as damaged.
//!
//! Order of durable steps: a copy is written and synced under a temporary name, renamed, and its
//! directory synced, all before anything else of the log is changed. Where there is no room for a
//! copy, its region stays in the segment.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

use super::directory::{create_temporary, name_durably};
use super::error::Error;
use super::found::Found;
use super::frame::PAGE;
use super::fs::{Access, File, Fs};
use super::gap::{Gap, QUARANTINE};
use super::options::MAX_QUARANTINE_BYTES;

/// Copies what is damaged, and notes in each gap whether there is a copy.
pub(crate) fn quarantine<F: Fs>(fs: &F, dir: &Path, found: &mut Found) -> Result<(), Error> {
    let mut fresh = std::mem::take(&mut found.fresh);
    for gap in fresh.iter_mut().filter(|gap| gap.len > 0) {
        if let Some(segment) = found.segment(gap.segment) {
            keep(fs, dir, &segment.path, gap)?;
        }
    }
    found.fresh = fresh;
    Ok(())
}

fn keep<F: Fs>(fs: &F, dir: &Path, segment: &Path, gap: &mut Gap) -> Result<(), Error> {
    let file = fs
        .open(segment, Access::Read)
        .map_err(Error::io("open", segment))?;
    let region = gap.position..gap.position.saturating_add(gap.len);
    let room = room(fs, dir)?;
    if region.end - region.start > room {
        return Ok(());
    }
    let path = dir.join(gap.quarantine_path());
    let parent = dir.join(QUARANTINE);
    fs.create_dir(&parent)
        .map_err(Error::io("create directory", &parent))?;
    let (copy, fresh) = create_temporary(fs, &path)?;
    gap.len = match copy_used(&file, &copy, region).and_then(|len| copy.sync().map(|()| len)) {
        Err(e) if e.kind() == ErrorKind::StorageFull => {
            return fs.remove(&fresh).map_err(Error::io("remove", &fresh));
        }
        len => len.map_err(Error::io("copy to", &fresh))?,
    };
    if gap.len == 0 {
        // Nothing but zeros is left of it.
        return fs.remove(&fresh).map_err(Error::io("remove", &fresh));
    }
    name_durably(fs, &parent, &fresh, &path)?;
    gap.quarantined = true;
    Ok(())
}

/// Bytes that may still be copied.
fn room<F: Fs>(fs: &F, dir: &Path) -> Result<u64, Error> {
    let parent = dir.join(QUARANTINE);
    let used: u64 = match fs.list(&parent) {
        Err(e) if e.kind() == ErrorKind::NotFound => 0,
        entries => entries
            .map_err(Error::io("list", &parent))?
            .iter()
            .map(|entry| entry.len)
            .sum(),
    };
    Ok(MAX_QUARANTINE_BYTES.saturating_sub(used))
}

/// Copies a region without the pages of zeros at its end; returns the length of what was copied. Pages of zeros
/// in between become holes.
fn copy_used<F: File>(from: &F, to: &F, region: Range<u64>) -> io::Result<u64> {
    const CHUNK: usize = 16 * PAGE;
    let mut chunk = vec![0; CHUNK];
    let (mut position, mut used) = (region.start, 0);
    while position < region.end {
        let len = usize::try_from(region.end - position).map_or(CHUNK, |left| left.min(CHUNK));
        let read = from.read_at(&mut chunk[..len], position)?;
        if read == 0 {
            break;
        }
        let at = position - region.start;
        if let Some(last) = chunk[..read].iter().rposition(|&byte| byte != 0) {
            let len = (last + 1).next_multiple_of(PAGE).min(read);
            to.write_at(&chunk[..len], at)?;
            used = at + len as u64;
        }
        position += read as u64;
    }
    Ok(used)
}
