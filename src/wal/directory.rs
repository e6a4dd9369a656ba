//! The files of a log: their names, and which of them are live.
//!
//! Owns: names, reading header pages and cursor slots, the walk along the chain. Must not know:
//! frames, or what to do about what is missing.
//!
//! Invariants: names are permanent and carry identity only; nothing here changes a file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::cursor::{Slot, SlotFound};
use super::error::Error;
use super::fs::{self, Access, Entry, Fs};
use super::segment::{HEADER_POSITIONS, PageFound, SegmentHeader};
use super::seq::LogId;

/// The file whose lock says that the log is open.
pub(crate) const LOCK: &str = "lock";
/// The two slots of the cursor.
pub(crate) const CURSORS: [&str; 2] = ["cursor-a", "cursor-b"];
/// A file that has no name of its own yet; leftovers are removed at open.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Identities are below it: a stranger's file with a larger number in its name is not ours.
pub(crate) const IDENTITIES: u64 = 1 << 48;

/// Creates a file under the temporary name of `path`, in place of what an earlier attempt left.
pub(crate) fn create_temporary<F: Fs>(fs: &F, path: &Path) -> Result<(F::File, PathBuf), Error> {
    let fresh = path.with_extension(&TEMPORARY[1..]);
    match fs.remove(&fresh) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("remove", &fresh)(e)),
        _ => {}
    }
    let file = fs
        .open(&fresh, Access::CreateNew)
        .map_err(Error::io("create", &fresh))?;
    Ok((file, fresh))
}

/// Gives a file that was created so, and synced, the name `path` in `dir`, durably.
pub(crate) fn name_durably<F: Fs>(
    fs: &F,
    dir: &Path,
    fresh: &Path,
    path: &Path,
) -> Result<(), Error> {
    fs.rename(fresh, path).map_err(Error::io("rename", fresh))?;
    fs.sync_dir(dir).map_err(Error::io("sync", dir))
}

/// The name of the segment file with this identity.
pub(crate) fn segment_name(identity: u64) -> String {
    format!("segment-{identity:08}")
}

/// The identity in a segment file's name.
pub(crate) fn segment_identity(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?;
    let identity = digits.parse().ok()?;
    (identity < IDENTITIES && segment_name(identity) == name).then_some(identity)
}

/// A segment file with a valid header.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub path: PathBuf,
    pub header: SegmentHeader,
    pub file_len: u64,
    /// Both header copies are valid and agree.
    pub both_copies: bool,
    /// A header page cannot be read.
    pub unreadable: bool,
}

/// A segment file without a valid header.
#[derive(Clone, Debug)]
pub(crate) struct Headless {
    pub path: PathBuf,
    pub file_len: u64,
    /// Both header pages are zero: certainly a spare.
    pub blank: bool,
    /// A header page cannot be read.
    pub unreadable: bool,
}

/// Everything in a log's directory, as it was found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// By number.
    pub segments: Vec<Segment>,
    pub headless: Vec<Headless>,
    /// The valid cursor slots by file.
    pub slots: [Option<Slot>; 2],
    /// Cursor files that exist and hold something else than zeros.
    pub written_slots: usize,
    pub temporary: Vec<PathBuf>,
    /// The largest identity in any segment's name.
    pub largest_identity: u64,
}

impl Survey {
    /// Reads the header pages and the cursor of a directory.
    ///
    /// # Errors
    ///
    /// [`Error::Version`] where a file must not be touched by this version (row N).
    pub(crate) fn of<F: Fs>(fs: &F, dir: &Path) -> Result<Self, Error> {
        let mut survey = Self::default();
        for entry in fs.list(dir).map_err(Error::io("list", dir))? {
            let path = dir.join(&entry.name);
            if entry.name.ends_with(TEMPORARY) {
                survey.temporary.push(path);
            } else if let Some(index) = CURSORS.iter().position(|name| *name == entry.name) {
                survey.read_slot(fs, index, path)?;
            } else if let Some(identity) = segment_identity(&entry.name) {
                survey.largest_identity = survey.largest_identity.max(identity);
                survey.read_header(fs, path, &entry)?;
            }
        }
        survey.segments.sort_by_key(|segment| segment.header.number);
        Ok(survey)
    }

    fn read_slot<F: Fs>(&mut self, fs: &F, index: usize, path: PathBuf) -> Result<(), Error> {
        let page = match read_page(fs, &path, 0) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
            page => page?,
        };
        let Some(page) = page else {
            // A bad slot, but never one that was not written.
            self.written_slots += 1;
            return Ok(());
        };
        self.written_slots += usize::from(page.iter().any(|&byte| byte != 0));
        match Slot::decode(&page) {
            SlotFound::Slot(slot) => self.slots[index] = Some(slot),
            SlotFound::Refused => {
                return Err(Error::Version {
                    path,
                    found: "cursor version".into(),
                });
            }
            SlotFound::Bad => {}
        }
        Ok(())
    }

    fn read_header<F: Fs>(&mut self, fs: &F, path: PathBuf, entry: &Entry) -> Result<(), Error> {
        let pages = match header_pages(fs, &path) {
            // Removed meanwhile by the live log that is being viewed.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
            pages => pages?,
        };
        let file_len = entry.len;
        let unreadable = pages.contains(&PageFound::Unreadable);
        match pick_header(&path, &pages)? {
            Some(header) => {
                let both_copies = pages.iter().all(|page| *page == PageFound::Header(header));
                self.segments.push(Segment {
                    path,
                    header,
                    file_len,
                    both_copies,
                    unreadable,
                });
            }
            None => {
                let blank = pages.iter().all(|page| *page == PageFound::Blank);
                self.headless.push(Headless {
                    path,
                    file_len,
                    blank,
                    unreadable,
                });
            }
        }
        Ok(())
    }

    /// The slot that counts: the valid one of the higher generation.
    pub(crate) fn slot(&self) -> Option<&Slot> {
        self.slots
            .iter()
            .flatten()
            .max_by_key(|slot| slot.generation)
    }

    /// Whether anything here was ever a log.
    pub(crate) fn is_log(&self) -> bool {
        !self.segments.is_empty()
            || self.written_slots > 0
            || self.headless.iter().any(|h| !h.blank)
    }

    /// Row N: all files must belong to one log.
    pub(crate) fn log_id(&self) -> Result<Option<LogId>, Error> {
        let Some(id) = self
            .slot()
            .map(|slot| slot.log_id)
            .or_else(|| self.segments.last().map(|segment| segment.header.log_id))
        else {
            return Ok(None);
        };
        // Single foreign files are ignored; where most are foreign the directory is not ours.
        let (own, foreign): (Vec<_>, Vec<_>) = self
            .segments
            .iter()
            .partition(|segment| segment.header.log_id == id);
        let other_slot = self.slots.iter().flatten().any(|slot| slot.log_id != id);
        match foreign.first() {
            Some(segment) if other_slot || foreign.len() >= own.len().max(1) => {
                Err(Error::ForeignLog {
                    path: segment.path.clone(),
                    found: segment.header.log_id,
                    expected: id,
                })
            }
            _ => Ok(Some(id)),
        }
    }

    /// Rows G and H: a file whose header is told by its start frame counts as a segment again.
    pub(crate) fn adopt(&mut self, path: &Path, header: SegmentHeader) {
        if let Some(at) = self.headless.iter().position(|h| h.path == path) {
            let found = self.headless.remove(at);
            self.segments.push(Segment {
                path: found.path,
                header,
                file_len: found.file_len,
                both_copies: false,
                unreadable: found.unreadable,
            });
            self.segments.sort_by_key(|segment| segment.header.number);
        }
    }

    /// The live chain, oldest first: walked back from the newest segment by number and salt. A hole is
    /// jumped: the highest segment below it goes on (row I).
    pub(crate) fn chain(&self, id: LogId) -> Vec<Segment> {
        let oldest = self.slot().map_or(0, |slot| slot.oldest);
        let own = || {
            self.segments
                .iter()
                .filter(move |s| s.header.log_id == id && s.header.number >= oldest)
        };
        let mut chain: Vec<Segment> = own().next_back().into_iter().cloned().collect();
        while let Some(first) = chain.last() {
            let previous = first.header.previous;
            // A segment that begins above the end that is named for it is not the one that was meant.
            let below = || own().filter(|s| s.header.base_seq <= previous.next_seq);
            let named = below()
                .find(|s| (s.header.number, s.header.salt) == (previous.number, previous.salt));
            let next = || below().rfind(|s| s.header.number < previous.number);
            match named.or_else(next) {
                Some(segment) if segment.header.number < first.header.number => {
                    chain.push(segment.clone());
                }
                Some(_) | None => break,
            }
        }
        chain.reverse();
        chain
    }
}

impl Segment {
    /// Whether `next` follows in the log, with nothing missing in between.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        let previous = &next.header.previous;
        (self.header.number, self.header.salt) == (previous.number, previous.salt)
    }
}

/// Whether a segment file has ended this life: it has a header of another one, or both copies are
/// cleared (R6). A damaged header says nothing.
pub(crate) fn was_released<F: Fs>(fs: &F, path: &Path, life: (u64, u64)) -> Result<bool, Error> {
    let pages = header_pages(fs, path)?;
    Ok(match pick_header(path, &pages)? {
        Some(header) => (header.number, header.salt) != life,
        None => pages.iter().all(|page| *page == PageFound::Blank),
    })
}

fn header_pages<F: Fs>(fs: &F, path: &Path) -> Result<[PageFound; 2], Error> {
    let [a, b] = HEADER_POSITIONS;
    let found = |position| {
        let page = read_page(fs, path, position)?;
        Ok(page.map_or(PageFound::Unreadable, |page| {
            SegmentHeader::decode_page(&page)
        }))
    };
    Ok([found(a)?, found(b)?])
}

/// F3: of two valid copies that differ the higher number wins.
fn pick_header(path: &Path, pages: &[PageFound; 2]) -> Result<Option<SegmentHeader>, Error> {
    let mut best: Option<SegmentHeader> = None;
    for page in pages {
        match page {
            PageFound::Refused(found) => {
                return Err(Error::Version {
                    path: path.into(),
                    found: (*found).into(),
                });
            }
            PageFound::Header(header) if best.is_none_or(|best| best.number < header.number) => {
                best = Some(*header);
            }
            PageFound::Header(_)
            | PageFound::Blank
            | PageFound::Damaged
            | PageFound::Unreadable => {}
        }
    }
    Ok(best)
}

/// One page of a file, `None` where the disk does not give it.
fn read_page<F: Fs>(fs: &F, path: &Path, position: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = fs
        .open(path, Access::Read)
        .map_err(Error::io("open", path))?;
    fs::read_page(&file, position).map_err(Error::io("read", path))
}
