//! The real file system, with every call counted, and on demand written down.
//!
//! Owns: counters and the trace. Must not know: what the bytes mean, but for the magic that begins a
//! segment's header page.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Instant;

use ferrylog::wal::fs::{Access, Entry, File, Fs, RealFs};

/// Calls so far, and bytes.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// `fdatasync` of segments.
    pub(crate) syncs: AtomicU64,
    /// Everything that reached the system: opens, reads, writes, syncs, and the rest.
    pub(crate) calls: AtomicU64,
    /// Segment files that were made anew.
    pub(crate) created: AtomicU64,
    /// Segments that were begun.
    pub(crate) begun: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    /// A write of the second copy of a segment's header: the segment has begun.
    Begin,
    Sync,
}

/// One call on a segment file.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) thread: ThreadId,
    pub(crate) path: PathBuf,
    pub(crate) position: u64,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<State>);

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    trace: Mutex<Vec<Call>>,
    tracing: AtomicBool,
    /// Files stay in memory where the log asks for them to be dropped.
    warm: AtomicBool,
}

impl Meter {
    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Starts to write down the calls on segments.
    pub(crate) fn trace(&self) {
        self.0.tracing.store(true, Relaxed);
    }

    pub(crate) fn take_trace(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.trace.lock().expect("nobody panicked"))
    }

    /// Keeps files in memory, also where the log asks for the opposite; or not.
    pub(crate) fn keep_warm(&self, warm: bool) {
        self.0.warm.store(warm, Relaxed);
    }

    fn count(&self) {
        self.0.counts.calls.fetch_add(1, Relaxed);
    }
}

fn is_segment(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("segment-"))
}

impl Fs for Meter {
    type File = Metered;
    type Lock = fs::File;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.count();
        RealFs.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.count();
        RealFs.list(dir)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Metered> {
        self.count();
        if access == Access::CreateNew && is_segment(path) {
            self.0.counts.created.fetch_add(1, Relaxed);
        }
        Ok(Metered {
            file: RealFs.open(path, access)?,
            path: is_segment(path).then(|| path.into()),
            meter: self.clone(),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.count();
        RealFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.count();
        RealFs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.count();
        RealFs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<fs::File>> {
        self.count();
        RealFs.lock(path)
    }

    fn now_micros(&self) -> i64 {
        // No system call: the kernel answers from memory.
        RealFs.now_micros()
    }

    fn random(&self) -> io::Result<u64> {
        self.count();
        RealFs.random()
    }
}

/// A file of a [`Meter`].
#[derive(Debug)]
pub(crate) struct Metered {
    file: fs::File,
    /// Of a segment.
    path: Option<PathBuf>,
    meter: Meter,
}

impl Metered {
    fn call<T>(&self, kind: Kind, position: u64, run: impl FnOnce(&fs::File) -> T) -> T {
        self.meter.count();
        let state = &*self.meter.0;
        let Some(path) = self.path.as_ref().filter(|_| state.tracing.load(Relaxed)) else {
            return run(&self.file);
        };
        let start = Instant::now();
        let done = run(&self.file);
        let call = Call {
            kind,
            thread: thread::current().id(),
            path: path.clone(),
            position,
            start,
            end: Instant::now(),
        };
        state.trace.lock().expect("nobody panicked").push(call);
        done
    }
}

impl File for Metered {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.call(Kind::Read, position, |file| {
            File::read_at(file, buffer, position)
        })
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let counts = self.meter.counts();
        counts.written_bytes.fetch_add(bytes.len() as u64, Relaxed);
        let kind = if position == 64 << 10 && bytes.starts_with(b"FERRYSEG") {
            counts.begun.fetch_add(1, Relaxed);
            Kind::Begin
        } else {
            Kind::Write
        };
        self.call(kind, position, |file| file.write_at(bytes, position))
    }

    fn sync(&self) -> io::Result<()> {
        if self.path.is_some() {
            self.meter.counts().syncs.fetch_add(1, Relaxed);
        }
        self.call(Kind::Sync, 0, File::sync)
    }

    fn len(&self) -> io::Result<u64> {
        self.meter.count();
        File::len(&self.file)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.meter.count();
        File::set_len(&self.file, len)
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.meter.count();
        if self.meter.0.warm.load(Relaxed) {
            return Ok(());
        }
        self.file.drop_cache()
    }
}
