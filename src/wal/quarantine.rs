//! Copies of damaged regions, made before the log goes on without them.
//!
//! Owns: the files in `quarantine/`. Must not know: why a region counts as damaged.
//!
//! Order of durable steps: a copy is written and synced under a temporary name, renamed, and its
//! directory synced, all before anything else of the log is changed. Where there is no room for a
//! copy, its region stays in the segment. What cannot be read is zeros in the copy (row K).

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
use super::window::Window;

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

/// Copies one region, where there is room.
pub(crate) fn keep<F: Fs>(fs: &F, dir: &Path, segment: &Path, gap: &mut Gap) -> Result<(), Error> {
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
    let copied = copy_used(&file, &copy, region).and_then(|copied| copy.sync().map(|()| copied));
    let copied = match copied {
        Err(e) if e.kind() == ErrorKind::StorageFull => {
            return fs.remove(&fresh).map_err(Error::io("remove", &fresh));
        }
        copied => copied.map_err(Error::io("copy to", &fresh))?,
    };
    gap.len = copied.len;
    if !copied.any {
        // Nothing but zeros is left of it, or nothing at all.
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

/// What was copied of a region.
struct Copied {
    /// Without the pages of zeros at its end. Unreadable ones count: nobody knows what is in them.
    len: u64,
    /// Something else than zeros was there.
    any: bool,
}

/// Copies what can be read of a region. Pages of zeros become holes, and so do unreadable ones.
fn copy_used<F: File>(from: &F, to: &F, region: Range<u64>) -> io::Result<Copied> {
    const CHUNK: usize = 16 * PAGE;
    let mut window = Window::new(region.end);
    let mut copied = Copied { len: 0, any: false };
    let mut position = region.start;
    loop {
        let bytes = window.get(from, position, CHUNK)?;
        let (read, at) = (bytes.len() as u64, position - region.start);
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            let len = (last + 1).next_multiple_of(PAGE).min(bytes.len());
            to.write_at(&bytes[..len], at)?;
            copied.len = at + len as u64;
            copied.any = true;
        }
        if window.lacks(position, read) {
            copied.len = at + read;
        }
        if read < CHUNK as u64 {
            break;
        }
        position += read;
    }
    if copied.any {
        to.set_len(copied.len)?;
    }
    Ok(copied)
}
