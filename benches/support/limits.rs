//! What the machine allows: L1 to L6, each measured beside what it limits.
//!
//! Owns: the file that the limits write to. Must not know: logs.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ferrylog::wal::fs::File as _;

/// L1's chunk: as much as one frame.
const CHUNK: usize = 64 << 10;
/// L2's and L3's write: as much as one group at saturation.
const WRITE: usize = 256 << 10;
/// L3's bytes between two syncs.
const SYNC: usize = 4 << 20;
/// L4's write.
const PAGE: usize = 4096;
/// L5's and L6's read.
const READ: usize = 1 << 20;
/// As much as three segments, which is what a log goes round in.
const FILE: u64 = 192 << 20;

pub(crate) struct Limits {
    source: Vec<u8>,
    copy: Vec<u8>,
    /// Written before in full: it has no unwritten extents, and does not grow.
    file: File,
    position: u64,
}

impl Limits {
    pub(crate) fn new(dir: &Path) -> Self {
        let file = File::create_new(dir.join("limit")).expect("a file");
        let source = vec![0x5a; WRITE];
        for position in (0..FILE).step_by(WRITE) {
            file.write_all_at(&source, position).expect("filled");
        }
        file.sync_all().expect("synced");
        Self {
            copy: vec![0; CHUNK],
            source,
            file,
            position: 0,
        }
    }

    /// L1: copying and checksumming so many bytes.
    pub(crate) fn copy_and_checksum(&mut self, bytes: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..bytes / CHUNK as u64 {
            self.copy.copy_from_slice(black_box(&self.source[..CHUNK]));
            black_box(crc32fast::hash(&self.copy));
        }
        start.elapsed()
    }

    /// L2: writing so many bytes to the system. The sync is not counted, as it is not for a log
    /// that does not wait for it.
    pub(crate) fn write(&mut self, bytes: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..bytes / WRITE as u64 {
            self.write_once(WRITE);
        }
        let time = start.elapsed();
        self.sync();
        time
    }

    /// L3: writing so many bytes with a sync every 4 MiB, the last one included.
    pub(crate) fn stream(&mut self, bytes: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..bytes / SYNC as u64 {
            for _ in 0..SYNC / WRITE {
                self.write_once(WRITE);
            }
            self.sync();
        }
        start.elapsed()
    }

    /// L4: one page and its sync.
    pub(crate) fn write_and_sync(&mut self) -> Duration {
        let start = Instant::now();
        self.write_once(PAGE);
        self.sync();
        start.elapsed()
    }

    fn write_once(&mut self, len: usize) {
        self.file
            .write_all_at(&self.source[..len], self.position)
            .expect("written");
        self.position += len as u64;
        if FILE - self.position < WRITE as u64 {
            self.position = 0;
        }
    }

    fn sync(&self) {
        self.file.sync_data().expect("synced");
    }
}

/// Drops a file's pages from this machine's memory. What is below it may still have them.
pub(crate) fn make_cold(path: &Path) {
    let file = File::open(path).expect("a file");
    file.sync_all().expect("synced");
    file.drop_cache().expect("dropped");
}

/// L5: reading files from the medium, one after the other.
pub(crate) fn read_cold(paths: &[&Path]) -> Duration {
    paths.iter().for_each(|path| make_cold(path));
    read(paths, |_| {})
}

/// L6: reading files from memory, and checksumming. The first pass is not counted: it warms.
pub(crate) fn read_warm(paths: &[&Path]) -> Duration {
    read(paths, |chunk| _ = black_box(crc32fast::hash(chunk)))
}

fn read(paths: &[&Path], each: impl Fn(&[u8])) -> Duration {
    let mut buffer = vec![0; READ];
    let start = Instant::now();
    for path in paths {
        let file = File::open(path).expect("a file");
        let mut position = 0;
        loop {
            let count = FileExt::read_at(&file, &mut buffer, position).expect("read");
            if count == 0 {
                break;
            }
            each(&buffer[..count]);
            position += count as u64;
        }
    }
    start.elapsed()
}
