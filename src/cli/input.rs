//! Where lines come from: files and standard input, read on a thread of their own.
//!
//! Owns the reading; what the bytes mean is not its business. A read may block for ever (a
//! terminal, a pipe) and cannot be interrupted: so nobody waits for the thread, only for what it
//! sends.
//!
//! Invariants: the chunks come in the order of the sources, and each source ends with exactly one
//! [`Chunk::End`] or [`Chunk::Failed`]; at most a few chunks are held.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::failure::{Exit, Failure};

/// One read of the input: large enough that its cost does not count, small enough for the cache.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that may wait between the reader and the log.
const CHUNKS_WAITING: usize = 4;
/// Where lines come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    StandardInput,
    File { path: PathBuf, len: Option<u64> },
}

impl Source {
    pub(super) fn name(&self) -> String {
        match self {
            Self::StandardInput => "standard input".into(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }

    /// Its length, where that is known before it is read.
    pub(super) const fn len(&self) -> Option<u64> {
        match self {
            Self::StandardInput => None,
            Self::File { len, .. } => *len,
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Self::StandardInput => Box::new(io::stdin()),
            Self::File { path, .. } => Box::new(File::open(path)?),
        })
    }
}

/// Looks at every file before anything is appended: a name that is wrong costs nothing then.
pub(super) fn sources(files: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    if files.is_empty() {
        return Ok(vec![Source::StandardInput]);
    }
    let look = |path: &PathBuf| {
        if path.as_os_str() == "-" {
            return Ok(Source::StandardInput);
        }
        let checked = fs::metadata(path).and_then(|metadata| {
            if metadata.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            if metadata.is_file() {
                File::open(path)?;
            }
            Ok(metadata.is_file().then_some(metadata.len()))
        });
        match checked {
            Ok(len) => Ok(Source::File {
                path: path.clone(),
                len,
            }),
            Err(error) => Err(unreadable(Exit::Usage, &error)
                .context(&path.display().to_string())
                .fact("nothing was sent")),
        }
    };
    files.iter().map(look).collect()
}

pub(super) fn unreadable(exit: Exit, error: &io::Error) -> Failure {
    Failure::new(exit, "input", format!("could not be read: {error}"))
}

/// A piece of the input.
pub(super) enum Chunk {
    Bytes(Vec<u8>),
    End,
    Failed(io::Error),
}

/// Reads the sources one after the other on a thread of its own. The thread ends with the last of
/// them, when nobody takes the chunks any more, or with the process: a read cannot be interrupted.
pub(super) fn read(sources: Vec<Source>) -> Receiver<Chunk> {
    let (chunks, taken) = sync_channel(CHUNKS_WAITING);
    thread::spawn(move || {
        for source in sources {
            let last = match source.open().and_then(|input| read_one(input, &chunks)) {
                Ok(()) => Chunk::End,
                Err(error) => Chunk::Failed(error),
            };
            if chunks.send(last).is_err() {
                return;
            }
        }
    });
    taken
}

fn read_one(mut input: impl Read, chunks: &SyncSender<Chunk>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                let chunk = buffer.get(..len).unwrap_or_default().to_vec();
                if chunks.send(Chunk::Bytes(chunk)).is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
