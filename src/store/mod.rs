//! The store: what lies in one data directory.
//!
//! Owns the directory's layout (`lanes/NAME/` is one log), its creation, and who may open it how:
//! [`Store`] to append and settle, one at a time, or [`StoreView`] to look, at any time.
//!
//! It must not know Kafka, nor the command line, nor how a log keeps its bytes.
//!
//! Invariants: a directory that holds anything but a store is never written to. The names of the
//! directories are durable before a record in them is acknowledged.

mod lane;

use std::{
    error, fmt, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

pub use lane::{Entry, Lane, LaneReader, LaneView, Undecodable};

use crate::{message::Invalid, wal};

/// The directory of the lanes.
const LANES: &str = "lanes";
/// The lane that every store has.
const DEFAULT_LANE: &str = "default";
/// Only the owner may read what a gateway has to say.
const DIRECTORY_MODE: u32 = 0o700;

/// A data directory, open for appending and settling. Only one at a time exists for a directory.
#[derive(Debug)]
pub struct Store {
    lane: Lane,
}

impl Store {
    /// Opens the store in `dir`, or makes a new one where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::NotAStore`] if `dir` holds something else: nothing was written there.
    /// [`Error::Io`] if a directory cannot be made, [`Error::Log`] if the log refuses, which names
    /// its reason; [`wal::Error::Locked`] among them means that another process has it.
    pub fn open(dir: impl AsRef<Path>, options: wal::Options) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let lanes = dir.join(LANES);
        if !lanes.is_dir() && holds_something(dir)? {
            return Err(Error::NotAStore { path: dir.into() });
        }
        let lane = lanes.join(DEFAULT_LANE);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&lane)
            .map_err(io_error("make the directory", &lane))?;
        // The names must outlive a power loss before anything in them is acknowledged, also when
        // the process that made them was killed before it came to this line.
        sync_directory(&lanes)?;
        sync_directory(dir)?;
        match dir.canonicalize().ok().as_deref().and_then(Path::parent) {
            // A parent that may not be read was not written to by us either.
            Some(parent) if fs::read_dir(parent).is_ok() => sync_directory(parent)?,
            Some(_) | None => {}
        }
        Ok(Self {
            lane: Lane::open(DEFAULT_LANE, &lane, options)?,
        })
    }

    /// The lane `default`.
    #[must_use]
    pub const fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Writes and syncs everything, and leaves the mark of a clean end. Dropping a store does the
    /// same, but cannot tell of a failure.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if the last write or sync fails: then what was not acknowledged yet may be
    /// lost.
    pub fn close(self) -> Result<(), Error> {
        self.lane.close()
    }
}

/// A look into a data directory: takes no lock, writes nothing, and works while another process
/// appends.
#[derive(Debug)]
pub struct StoreView {
    lanes: Vec<LaneView>,
}

impl StoreView {
    /// Opens the store in `dir` to look at it.
    ///
    /// # Errors
    ///
    /// [`Error::NoStore`] if there is none, [`Error::NotAStore`] if `dir` holds something else,
    /// [`Error::Log`] if a log of it cannot be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let lanes = dir.join(LANES);
        if !lanes.is_dir() {
            return Err(if holds_something(dir)? {
                Error::NotAStore { path: dir.into() }
            } else {
                Error::NoStore { path: dir.into() }
            });
        }
        let lane = LaneView::open(DEFAULT_LANE, &lanes.join(DEFAULT_LANE))?;
        Ok(Self { lanes: vec![lane] })
    }

    /// The lanes, by name.
    #[must_use]
    pub fn lanes(&self) -> &[LaneView] {
        &self.lanes
    }
}

/// Whether `dir` is there and not empty. A new file system comes with `lost+found`: that is empty.
fn holds_something(dir: &Path) -> Result<bool, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error("read the directory", dir)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(io_error("read the directory", dir))?;
        if entry.file_name() != "lost+found" {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    fs::File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("sync the directory", path))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// What can go wrong with a store.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The directory holds something that is no store. Nothing was written.
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// There is no store to look at.
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused something around the logs.
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The message breaks a limit: it was not appended, and never can be.
    Invalid(Invalid),
    /// The log refused.
    Log(wal::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAStore { path } => {
                write!(
                    f,
                    "{} holds something that is no ferrylog store",
                    path.display()
                )
            }
            Self::NoStore { path } => write!(f, "there is no store in {}", path.display()),
            Self::Io { action, path, .. } => write!(f, "could not {action} {}", path.display()),
            // These two add nothing of their own: the cause is the whole message.
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Log(error) => error.fmt(f),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::NotAStore { .. } | Self::NoStore { .. } => None,
            Self::Io { source, .. } => Some(source),
            Self::Invalid(invalid) => invalid.source(),
            Self::Log(error) => error.source(),
        }
    }
}

impl From<wal::Error> for Error {
    fn from(error: wal::Error) -> Self {
        Self::Log(error)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}
