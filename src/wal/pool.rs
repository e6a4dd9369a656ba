//! Files for segments to come: spares for their next life, and zeros ahead of the tail.
//!
//! Owns: which files are free, and how far the active one is filled. Must not know: frames.
//!
//! Invariants: a file in the pool has zeroed header pages, durably, and a durable name (R6). The
//! filler never writes where the writer may be writing.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::directory::{IDENTITIES, Segment, Survey, segment_name};
use super::error::Error;
use super::frame::PAGE;
use super::fs::{Access, File, Fs};
use super::options::FILL_BYTES;
use super::segment::{BODY, HEADER_POSITIONS};
use super::seq::LogId;

/// Free files, and the next new name.
#[derive(Debug)]
pub(crate) struct Pool {
    spares: Vec<PathBuf>,
    /// Files that could not be filled or removed for lack of space; not one of them is live.
    discarded: Vec<PathBuf>,
    next_identity: u64,
}

impl Pool {
    fn new(spares: Vec<PathBuf>, largest_identity: u64) -> Self {
        Self {
            spares,
            discarded: Vec::new(),
            next_identity: (largest_identity + 1) % IDENTITIES,
        }
    }

    /// Of the files that are not live. Other logs' files are left alone. A file with unreadable header
    /// pages does not live again: it goes, or is left alone where nobody can say what is in it.
    pub(crate) fn of<F: Fs>(
        fs: &F,
        survey: &Survey,
        log_id: LogId,
        chain: &[Segment],
    ) -> Result<Self, Error> {
        let off_chain = survey.segments.iter().filter(|segment| {
            segment.header.log_id == log_id && !chain.iter().any(|live| live.path == segment.path)
        });
        let (unreadable, off_chain): (Vec<_>, Vec<_>) = off_chain.partition(|s| s.unreadable);
        for Segment { path, .. } in unreadable {
            fs.remove(path).map_err(Error::io("remove", path))?;
        }
        let headless = survey.headless.iter().filter(|h| !h.unreadable);
        let spares: Vec<(&PathBuf, bool)> = off_chain
            .into_iter()
            .map(|segment| (&segment.path, false))
            .chain(headless.map(|headless| (&headless.path, headless.blank)))
            .collect();
        for (path, _) in spares.iter().filter(|(_, blank)| !blank) {
            clear_headers(fs, path)?;
        }
        let spares = spares.into_iter().map(|(path, _)| path.clone()).collect();
        Ok(Self::new(spares, survey.largest_identity))
    }

    pub(crate) fn len(&self) -> usize {
        self.spares.len()
    }

    /// The spare that is taken next.
    pub(crate) fn next(&self) -> Option<&Path> {
        self.spares.last().map(PathBuf::as_path)
    }

    /// Removes spares until so many are left. True: there were more.
    pub(crate) fn shrink<F: Fs>(
        &mut self,
        fs: &F,
        dir: &Path,
        max_spares: usize,
    ) -> Result<bool, Error> {
        let surplus = self.spares.len().saturating_sub(max_spares);
        for path in self.spares.drain(..surplus) {
            fs.remove(&path).map_err(Error::io("remove", &path))?;
        }
        if surplus > 0 {
            fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        Ok(surplus > 0)
    }

    /// A file for a new life: a spare, or one that is created with a durable name.
    pub(crate) fn take<F: Fs>(&mut self, fs: &F, dir: &Path) -> Result<(F::File, PathBuf), Error> {
        if let Some(path) = self.spares.pop() {
            let file = fs
                .open(&path, Access::Write)
                .map_err(Error::io("open", &path))?;
            return Ok((file, path));
        }
        self.create(fs, dir)
    }

    /// Makes a spare, so that a rotation need not.
    pub(crate) fn prepare<F: Fs>(&mut self, fs: &F, dir: &Path) -> Result<(), Error> {
        let (_, path) = self.create(fs, dir)?;
        self.spares.push(path);
        Ok(())
    }

    fn create<F: Fs>(&mut self, fs: &F, dir: &Path) -> Result<(F::File, PathBuf), Error> {
        let (file, path) = loop {
            let path = dir.join(segment_name(self.next_identity));
            self.next_identity = (self.next_identity + 1) % IDENTITIES;
            match fs.open(&path, Access::CreateNew) {
                // A directory, a link: something that is not listed has the name.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                file => break (file.map_err(Error::io("create", &path))?, path),
            }
        };
        // The name must be durable before any record in the file is acknowledged.
        if let Err(error) = fs.sync_dir(dir) {
            self.discard(fs, dir, path);
            return Err(Error::io("sync", dir)(error));
        }
        Ok((file, path))
    }

    /// Removes a file whose life could not begin, so that its space is free again. It may hold a
    /// header: that names a segment number which is never used again, so it counts for nothing.
    pub(crate) fn discard<F: Fs>(&mut self, fs: &F, dir: &Path, path: PathBuf) {
        self.discarded.push(path);
        // What cannot be removed now, or not durably, is harmless: it is tried again with the next
        // one, and is a spare for the next open.
        self.discarded.retain(|path| match fs.remove(path) {
            Ok(()) => false,
            Err(error) => error.kind() != ErrorKind::NotFound,
        });
        drop(fs.sync_dir(dir));
    }

    /// Takes in a file that is no longer live, or removes it where there are enough.
    pub(crate) fn release<F: Fs>(
        &mut self,
        fs: &F,
        dir: &Path,
        path: PathBuf,
        max_spares: usize,
    ) -> Result<(), Error> {
        if self.spares.len() >= max_spares {
            fs.remove(&path).map_err(Error::io("remove", &path))?;
            return fs.sync_dir(dir).map_err(Error::io("sync", dir));
        }
        clear_headers(fs, &path)?;
        self.spares.push(path);
        Ok(())
    }
}

/// R6: a spare has no header: its last life can never be taken for a live one.
pub(crate) fn clear_headers<F: Fs>(fs: &F, path: &Path) -> Result<(), Error> {
    let file = fs
        .open(path, Access::Write)
        .map_err(Error::io("open", path))?;
    for position in HEADER_POSITIONS {
        file.write_at(&[0; PAGE], position)
            .map_err(Error::io("write", path))?;
    }
    file.sync().map_err(Error::io("sync", path))
}

/// How far the active file is filled with zeros.
///
/// A file that grows with each write pays for a journal commit with each sync; so zeros are written
/// ahead of the tail, in steps, by another thread. Recycled files are filled already.
#[derive(Debug, Default)]
pub(crate) struct Fill {
    state: Mutex<FillState>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct FillState {
    path: PathBuf,
    /// The writer writes nowhere below it any more, and up to it right now.
    tail: u64,
    filled: u64,
    size: u64,
    busy: Option<Range<u64>>,
}

impl Fill {
    /// Starts anew for the next active file, of which nothing is written yet.
    pub(crate) fn reset(&self, path: &Path, filled: u64, size: u64) {
        let mut state = self.state.lock();
        self.wait_idle(&mut state, u64::MAX);
        *state = FillState {
            path: path.into(),
            tail: BODY,
            filled,
            size,
            busy: None,
        };
    }

    /// The file needs no more zeros: nothing is written to it any more.
    pub(crate) fn stop(&self) {
        self.reset(Path::new(""), 0, 0);
    }

    /// The writer is about to write up to `tail`: waits for zeros that are being written there.
    /// True: the file should be filled further.
    pub(crate) fn advance(&self, tail: u64) -> bool {
        let mut state = self.state.lock();
        self.wait_idle(&mut state, tail);
        state.tail = tail;
        state.next_step().is_some()
    }

    fn wait_idle(&self, state: &mut MutexGuard<'_, FillState>, tail: u64) {
        while state.busy.as_ref().is_some_and(|busy| tail > busy.start) {
            self.done.wait(state);
        }
    }

    /// Writes one step of zeros and makes it durable, if the file needs it. True: it did.
    pub(crate) fn step<F: Fs>(&self, fs: &F) -> Result<bool, Error> {
        let (path, range) = {
            let mut state = self.state.lock();
            let Some(range) = state.next_step() else {
                return Ok(false);
            };
            state.busy = Some(range.clone());
            (state.path.clone(), range)
        };
        let written = write_zeros(fs, &path, range.clone());
        {
            let mut state = self.state.lock();
            state.busy = None;
            // A failed step is not tried again: the writer gets the same error, or none.
            state.filled = range.end;
            self.done.notify_all();
        }
        // Through a file handle of its own: an error must be told to the writer's handle, too.
        written?.sync().map_err(Error::io("sync", &path))?;
        Ok(true)
    }
}

fn write_zeros<F: Fs>(fs: &F, path: &Path, range: Range<u64>) -> Result<F::File, Error> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let file = fs
        .open(path, Access::Write)
        .map_err(Error::io("open", path))?;
    let mut position = range.start;
    while position < range.end {
        let len = usize::try_from(range.end - position)
            .unwrap_or(ZEROS.len())
            .min(ZEROS.len());
        file.write_at(&ZEROS[..len], position)
            .map_err(Error::io("fill", path))?;
        position += len as u64;
    }
    Ok(file)
}

impl FillState {
    fn next_step(&self) -> Option<Range<u64>> {
        let start = self.filled.max(self.tail);
        let needed = self.busy.is_none() && start < self.size && start - self.tail < FILL_BYTES;
        needed.then(|| start..(start + FILL_BYTES).min(self.size))
    }
}
