//! The crash oracle sees: a log is given a disk that behaves as the bugs of an engine would make it,
//! and each must be noticed. What is no bug must not be.
//!
//! Owns: the bugs. Must not know: the oracle (`crash.rs`), which gets such a disk as any other.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ferrylog::wal::fs::{Access, Entry, File, Fs};

use crate::common::BODY;
use crate::crash::{Pace, history};
use crate::damage::{SLOTS, u64_at};
use crate::faulty::{Faulty, Handle, Held};

/// What goes wrong between the log and its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    /// Records are acknowledged without a sync.
    AckBeforeSync,
    /// One sync in eight is forgotten.
    SyncForgotten,
    /// A segment is synced only after the next cursor was.
    CursorBeforeSegment,
    /// A saved cursor is not synced.
    CursorNotSynced,
    /// Only one of the two slots is ever written.
    OneCursorSlot,
    /// New names are not made durable.
    DirectorySyncSkipped,
    /// A failed sync is taken for a success.
    FailedSyncIgnored,
    /// A failed sync is tried again on the same file (R2).
    FailedSyncRetried,
    /// A write ends early, and nobody looks (R11).
    ShortWrite,
    /// One write in thirty never happens.
    WriteForgotten,
    /// One write in thirty lands a page behind its place.
    WriteMisplaced,
    /// A file is cut a page before its end.
    CutTooShort,
    /// The cursor's files are not found again.
    CursorNotFound,
    /// Only one of the two tail slots is ever written.
    OneTailSlot,
    /// Opening reads what is cached, and not what is on the medium (R3).
    CacheKept,
    /// A write touches the page in front of it again (R1).
    PageWrittenAgain,
    /// A full segment is not synced before its successor is written (R13).
    SuccessorFirst,
    /// No limit lies ahead of the numbers (R4b).
    NumbersReused,
    /// A frame of an earlier life is taken for a live one (R10).
    StaleFrameTrusted,
    /// What was lost is not known as lost the next time.
    GapForgotten,
    /// What the disk does not give is taken for zeros.
    UnreadableIsBlank,
}

const BUGS: [Bug; 21] = [
    Bug::AckBeforeSync,
    Bug::SyncForgotten,
    Bug::CursorBeforeSegment,
    Bug::CursorNotSynced,
    Bug::OneCursorSlot,
    Bug::DirectorySyncSkipped,
    Bug::FailedSyncIgnored,
    Bug::FailedSyncRetried,
    Bug::ShortWrite,
    Bug::WriteForgotten,
    Bug::WriteMisplaced,
    Bug::CutTooShort,
    Bug::CursorNotFound,
    Bug::OneTailSlot,
    Bug::CacheKept,
    Bug::PageWrittenAgain,
    Bug::SuccessorFirst,
    Bug::NumbersReused,
    Bug::StaleFrameTrusted,
    Bug::GapForgotten,
    Bug::UnreadableIsBlank,
];

/// What looks odd and is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Oddity {
    None,
    /// The clock goes backwards, and jumps.
    Clock,
    /// Every life of a file gets the same salt: the segment number in each frame still tells them
    /// apart (R8).
    Salt,
    /// Every sync is done twice, and every write.
    Twice,
}

const ODDITIES: [Oddity; 4] = [Oddity::None, Oddity::Clock, Oddity::Salt, Oddity::Twice];

/// A disk with a bug in front of it.
#[derive(Clone, Debug)]
struct Planted {
    disk: Faulty,
    bug: Option<Bug>,
    oddity: Oddity,
    shared: Arc<Shared>,
}

#[derive(Default, Debug)]
struct Shared {
    /// Operations that may go wrong, counted.
    count: AtomicU64,
    clock: AtomicI64,
    /// Syncs that were put off, and whether their time has come.
    late: Mutex<Vec<Arc<Handle>>>,
    due: AtomicBool,
}

impl Planted {
    fn new(disk: &Faulty, bug: Option<Bug>, oddity: Oddity) -> Self {
        Self {
            disk: disk.clone(),
            bug,
            oddity,
            shared: Arc::default(),
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn put_off(&self, handle: Arc<Handle>) {
        self.shared.due.store(false, Ordering::SeqCst);
        self.shared.late.lock().unwrap().push(handle);
    }

    fn sync_late(&self) -> io::Result<()> {
        let late = std::mem::take(&mut *self.shared.late.lock().unwrap());
        late.iter().try_for_each(|handle| handle.sync())
    }

    fn one_in(&self, of: u64) -> bool {
        self.shared.count.fetch_add(1, Ordering::SeqCst) % of == of - 1
    }
}

#[derive(Debug)]
struct PlantedFile {
    on: Planted,
    name: String,
    handle: Arc<Handle>,
    /// The last write was a seal.
    sealed: AtomicBool,
}

impl Fs for Planted {
    type File = PlantedFile;
    type Lock = Held;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = self.disk.list(dir)?;
        if self.has(Bug::CursorNotFound) {
            entries.retain(|entry| !entry.name.starts_with("cursor-"));
        }
        Ok(entries)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<PlantedFile> {
        let name = path.file_name().map(|name| name.to_string_lossy().into());
        Ok(PlantedFile {
            on: self.clone(),
            name: name.unwrap_or_default(),
            handle: Arc::new(self.disk.open(path, access)?),
            sealed: AtomicBool::new(false),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.has(Bug::DirectorySyncSkipped) {
            return Ok(());
        }
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Held>> {
        self.disk.lock(path)
    }

    fn now_micros(&self) -> i64 {
        let step = self.shared.clock.fetch_add(1, Ordering::SeqCst);
        match (self.oddity, step % 7) {
            (Oddity::Clock, 0) => i64::MAX - step,
            (Oddity::Clock, 1) => i64::MIN + step,
            (Oddity::Clock, _) => 1_700_000_000_000_000 - 999 * step,
            _ => self.disk.now_micros(),
        }
    }

    fn random(&self) -> io::Result<u64> {
        match self.oddity {
            Oddity::Salt => Ok(7),
            _ => self.disk.random(),
        }
    }
}

impl PlantedFile {
    fn is_segment(&self) -> bool {
        self.name.starts_with("segment-")
    }

    fn has(&self, bug: Bug) -> bool {
        self.on.has(bug)
    }

    /// Life of the file, as the magic of its frames and their header checksum take it in.
    fn salt(&self) -> io::Result<[u8; 8]> {
        let mut salt = [0; 8];
        self.handle.read_at(&mut salt, 64)?;
        Ok(salt)
    }

    /// Gap frames look like frames of a kind that may be ignored.
    fn hide_gaps(&self, buffer: &mut [u8]) -> io::Result<()> {
        let salt = self.salt()?;
        let magic = magic(salt);
        for at in (0..buffer.len().saturating_sub(63)).step_by(64) {
            let header = &mut buffer[at..at + 64];
            if header.starts_with(&magic) && header[60] == GAP {
                header[60] = 200;
                seal_header(header, salt);
            }
        }
        Ok(())
    }

    /// Behind the start of a new life its first numbers are given to what an earlier one left there.
    fn revive(&self, start: &[u8], position: u64) -> io::Result<()> {
        let mut header = [0; 64];
        let read = self.handle.read_at(&mut header, position)?;
        let salt: [u8; 8] = start[64 + 64..64 + 72].try_into().unwrap();
        if read < 64 || header[60] != RECORDS {
            return Ok(());
        }
        let place = (u64_at(start, 8) >> 26 << 26) | (position / 64);
        header[..4].copy_from_slice(&magic(salt));
        header[8..16].copy_from_slice(&place.to_le_bytes());
        header[16..24].copy_from_slice(&start[16..24]);
        header[24..32].copy_from_slice(&start[24..32]);
        seal_header(&mut header, salt);
        self.handle.write_at(&header, position)
    }
}

const RECORDS: u8 = 1;
const SEAL: u8 = 3;
const GAP: u8 = 5;

fn magic(salt: [u8; 8]) -> [u8; 4] {
    let mut magic = *b"FRAM";
    magic
        .iter_mut()
        .zip(salt)
        .for_each(|(byte, salt)| *byte ^= salt);
    magic
}

/// Puts the checksum of a frame header right.
fn seal_header(header: &mut [u8], salt: [u8; 8]) {
    let crc = crc32fast::hash(&[&salt, &header[8..64]].concat());
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// A page of a cursor or a segment's header names no number above those in use.
fn lower_limit(page: &mut [u8]) {
    let (limit, least) = match page.get(..8) {
        Some(b"FERRYCUR") => (80, 72),
        Some(b"FERRYSEG") => (104, 72),
        _ => return,
    };
    if page.len() == 4096 && crc32fast::hash(&page[..4092]).to_le_bytes() == page[4092..] {
        page.copy_within(least..least + 8, limit);
        let crc = crc32fast::hash(&page[..4092]);
        page[4092..].copy_from_slice(&crc.to_le_bytes());
    }
}

impl File for PlantedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let read = match self.handle.read_at(buffer, position) {
            Err(_) if self.has(Bug::UnreadableIsBlank) => {
                buffer.fill(0);
                return Ok(buffer.len());
            }
            read => read?,
        };
        match self.on.bug {
            Some(Bug::NumbersReused) => lower_limit(&mut buffer[..read]),
            Some(Bug::GapForgotten) if self.is_segment() => self.hide_gaps(&mut buffer[..read])?,
            _ => {}
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        if self.on.oddity == Oddity::Twice {
            self.handle.write_at(bytes, position)?;
        }
        if self.is_segment() {
            let is_seal = position > BODY && bytes[60] == SEAL;
            self.sealed.store(is_seal, Ordering::SeqCst);
            if self.has(Bug::CursorBeforeSegment) && self.on.shared.due.load(Ordering::SeqCst) {
                self.on.sync_late()?;
            }
        }
        match self.on.bug {
            Some(Bug::OneCursorSlot) if self.name == "cursor-b" => Ok(()),
            Some(Bug::ShortWrite) if self.is_segment() && bytes.len() > 8192 => {
                self.handle.write_at(&bytes[..bytes.len() - 4096], position)
            }
            Some(Bug::OneTailSlot) if self.is_segment() && position == SLOTS[1] => {
                self.handle.write_at(bytes, SLOTS[0])
            }
            Some(Bug::PageWrittenAgain) if self.is_segment() && position > BODY => {
                let mut before = [0; 4096];
                let read = self.handle.read_at(&mut before, position - 4096)?;
                self.handle.write_at(&before[..read], position - 4096)?;
                self.handle.write_at(bytes, position)
            }
            Some(Bug::StaleFrameTrusted) if self.is_segment() && position == BODY => {
                self.handle.write_at(bytes, position)?;
                self.revive(bytes, position + bytes.len() as u64)
            }
            Some(Bug::WriteForgotten) if self.is_segment() && self.on.one_in(30) => Ok(()),
            Some(Bug::WriteMisplaced) if self.is_segment() && self.on.one_in(30) => {
                self.handle.write_at(bytes, position + 4096)
            }
            _ => self.handle.write_at(bytes, position),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.on.bug {
            Some(Bug::AckBeforeSync) if self.is_segment() => return Ok(()),
            Some(Bug::SyncForgotten) if self.is_segment() && self.on.one_in(8) => return Ok(()),
            Some(Bug::CursorNotSynced) if self.name.starts_with("cursor-") => return Ok(()),
            Some(Bug::FailedSyncIgnored) => return self.handle.sync().or(Ok(())),
            Some(Bug::FailedSyncRetried) => {
                return self.handle.sync().or_else(|_| self.handle.sync());
            }
            Some(Bug::CursorBeforeSegment) if self.is_segment() => {
                self.on.put_off(self.handle.clone());
                return Ok(());
            }
            Some(Bug::SuccessorFirst) if self.sealed.load(Ordering::SeqCst) => return Ok(()),
            _ => {}
        }
        self.handle.sync()?;
        if self.on.oddity == Oddity::Twice {
            self.handle.sync()?;
        }
        self.on.shared.due.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.handle.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let short = self.has(Bug::CutTooShort) && len > 128 << 10;
        self.handle.set_len(if short { len - 4096 } else { len })
    }

    fn drop_cache(&self) -> io::Result<()> {
        if self.has(Bug::CacheKept) {
            return Ok(());
        }
        self.handle.drop_cache()
    }
}

/// The oracle's verdict on a log with this disk: the first promise that it saw broken.
fn verdict(seed: u64, bug: Option<Bug>, oddity: Oddity) -> Result<(), String> {
    let run = || {
        history(seed, Pace::Steps, None, |disk| {
            Planted::new(disk, bug, oddity)
        })
    };
    catch_unwind(AssertUnwindSafe(run))
        .map(drop)
        .map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()))
                .unwrap_or_default()
        })
}

#[test]
fn every_planted_bug_is_seen() {
    let missed: Vec<Bug> = std::thread::scope(|scope| {
        let search = |bug| {
            let seen = (0..1000)
                .find_map(|seed| Some((seed, verdict(seed, Some(bug), Oddity::None).err()?)));
            println!("{bug:?}: {seen:?}");
            seen.is_none()
        };
        let searches = BUGS.map(|bug| (bug, scope.spawn(move || search(bug))));
        let missed = searches
            .into_iter()
            .filter_map(|(bug, search)| search.join().unwrap().then_some(bug));
        missed.collect()
    });
    assert!(missed.is_empty(), "the oracle is blind to {missed:?}");
}

#[test]
fn what_is_no_bug_is_not_taken_for_one() {
    std::thread::scope(|scope| {
        for oddity in ODDITIES {
            scope.spawn(move || {
                for seed in 0..25 {
                    verdict(seed, None, oddity)
                        .unwrap_or_else(|broken| panic!("{oddity:?}, seed {seed}: {broken}"));
                }
            });
        }
    });
}
