//! The seam to the outside world: files, directories, clock, randomness.
//!
//! Owns: every system call of the engine. Must not know: what the bytes mean. Tests put a
//! simulated disk behind [`Fs`]; everything else uses [`RealFs`].
//!
//! Invariants: short writes loop and interrupted calls are repeated here, so that a caller sees
//! only done or failed (R11). A failed [`File::sync`] is never repeated here (R2).

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of a page.
const PAGE: usize = 4096;
/// How often a page is asked for alone before it counts as unreadable.
pub(crate) const PAGE_TRIES: usize = 4;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing a file that exists.
    Write,
    /// Reading and writing a file that must not exist yet.
    CreateNew,
}

/// A regular file in a directory. Anything else (directories, links, sockets) is not listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The file's name within its directory.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// The outside world.
#[expect(
    clippy::missing_errors_doc,
    reason = "all of them: what the system answers"
)]
pub trait Fs: Send + Sync + Debug + 'static {
    /// An open file.
    type File: File;
    /// A held lock; released when dropped, and by the operating system when the process ends.
    type Lock: Send + Sync + Debug + 'static;

    /// Creates the directory and its parents, open to the owner only, and makes the entries durable.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The regular files of a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Self::File>;
    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in the directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of a file, creating it; `None` if somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
    /// Wall clock: microseconds since 1970, as the system believes it.
    fn now_micros(&self) -> i64;
    /// 64 random bits.
    fn random(&self) -> io::Result<u64>;
}

/// An open file. Positions and lengths are in bytes.
#[expect(
    clippy::missing_errors_doc,
    reason = "all of them: what the system answers"
)]
#[expect(clippy::len_without_is_empty, reason = "a file is no collection")]
pub trait File: Send + Sync + Debug + 'static {
    /// Reads until `buffer` is full or the file ends; returns how much was read.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `bytes`, or fails with an unknown part of them written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Makes the file's data and length durable (`fdatasync`). After a failure nothing is known
    /// about what was written since the last success, and asking again proves nothing (R2).
    fn sync(&self) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Asks for synced pages to be dropped from memory, so that the next read comes from the medium.
    fn drop_cache(&self) -> io::Result<()>;
}

/// The operating system's own file system.
#[derive(Clone, Copy, Default, Debug)]
pub struct RealFs;

impl Fs for RealFs {
    type File = fs::File;
    type Lock = fs::File;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir
            .ancestors()
            .take_while(|d| !d.as_os_str().is_empty() && !d.exists())
            .collect();
        for new in missing.iter().rev() {
            match fs::DirBuilder::new().mode(0o700).create(new) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                done => done?,
            }
            self.sync_dir(
                new.parent()
                    .filter(|p| !p.as_os_str().is_empty())
                    .unwrap_or(Path::new(".")),
            )?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A name that is no text is none of ours; a file may vanish while a live log is viewed.
            let (Ok(name), true) = (
                entry.file_name().into_string(),
                entry.file_type()?.is_file(),
            ) else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => entries.push(Entry {
                    name,
                    len: metadata.len(),
                }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(0o600).custom_flags(open_flags());
        match access {
            Access::Read => {}
            Access::Write => _ = options.write(true),
            Access::CreateNew => _ = options.write(true).create_new(true),
        }
        options.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<fs::File>> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(open_flags())
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    /// By the coarse clock where there is one: exact to a tick of the kernel (1 to 10 ms), and a
    /// quarter of the price, which is paid for every record.
    fn now_micros(&self) -> i64 {
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::RealtimeCoarse;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Realtime;
        let now = rustix::time::clock_gettime(clock);
        now.tv_sec
            .saturating_mul(1_000_000)
            .saturating_add(now.tv_nsec / 1000)
    }

    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(
                &mut bytes[filled..],
                rustix::rand::GetRandomFlags::empty(),
            ) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Whether a read failed because the medium no longer gives these bytes: `EIO`; of NVMe and some file
/// systems also `ENODATA`, `EBADMSG` and `EUCLEAN`. Any other error says nothing about them.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    use rustix::io::Errno;
    #[cfg(target_os = "linux")]
    const UNREADABLE: [Errno; 4] = [Errno::IO, Errno::NODATA, Errno::BADMSG, Errno::UCLEAN];
    #[cfg(not(target_os = "linux"))]
    const UNREADABLE: [Errno; 2] = [Errno::IO, Errno::BADMSG];
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_some_and(|errno| UNREADABLE.contains(&errno))
}

/// One page, with zeros behind the end of the file; `None` where the medium does not give it. It is
/// asked a few times: a medium, or what lies before it, may fail once and not again.
pub(crate) fn read_page<F: File>(file: &F, position: u64) -> io::Result<Option<Vec<u8>>> {
    for _ in 0..PAGE_TRIES {
        let mut page = vec![0; PAGE];
        match file.read_at(&mut page, position) {
            Err(error) if is_unreadable(&error) => {}
            read => {
                page[read?..].fill(0);
                return Ok(Some(page));
            }
        }
    }
    Ok(None)
}

/// What is no regular file is an error, not a place to write to or to wait at: a link is not followed,
/// a pipe not waited for.
fn open_flags() -> i32 {
    use rustix::fs::OFlags;
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_all_at(bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        fs::File::set_len(self, len)
    }

    fn drop_cache(&self) -> io::Result<()> {
        rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }
}
