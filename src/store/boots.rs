//! The file `boots`: how far uptime and wall clock were apart, for each boot that learned the time.
//!
//! Owns its bytes (F14 in `docs/format.md`), and its way to the disk. Must not know records, nor
//! when a clock is right.
//!
//! Invariants: what was learned first about a boot stays. The file is never needed: without it times
//! stay as they were, and what it would tell expires nothing. So whatever is wrong with it is no
//! reason to refuse a store.

#![deny(clippy::indexing_slicing)]

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::RwLock;

const FILE: &str = "boots";
const TEMPORARY: &str = "boots.tmp";
const MAGIC: &[u8; 8] = b"FERRYBTS";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 16;
const ENTRY_LEN: usize = 16;
const CHECKSUM_LEN: usize = 4;
/// Boots that are remembered: one a day for three years, in 16 KiB.
const BOOTS_MAX: usize = 1024;
/// How long after a failed save the next one is tried.
const RETRY_MILLIS: u64 = 60_000;

/// What is known about each boot.
#[derive(Debug)]
pub(super) struct Boots {
    dir: PathBuf,
    known: RwLock<Known>,
    /// There is nothing to learn any more before the next boot.
    is_done: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    /// Boot and offset, the newest last.
    offsets: Vec<(u64, i64)>,
    /// The last of them is not on disk yet.
    is_unsaved: bool,
    /// Another version's file is not ours to replace.
    is_foreign: bool,
    /// The uptime before which saving is not tried again.
    save_at: u64,
}

impl Boots {
    /// What the store in `dir` remembers; nothing, where that cannot be read.
    pub(super) fn load(dir: &Path) -> Self {
        let found = fs::read(dir.join(FILE)).map_or(Found::Bad, |bytes| decode(&bytes));
        let known = match found {
            Found::Boots(offsets) => Known {
                offsets,
                ..Known::default()
            },
            Found::Foreign => Known {
                is_foreign: true,
                ..Known::default()
            },
            Found::Bad => Known::default(),
        };
        Self {
            dir: dir.into(),
            known: RwLock::new(known),
            is_done: AtomicBool::new(false),
        }
    }

    /// What is added to an uptime of that boot to get a wall time, in milliseconds.
    pub(super) fn offset(&self, boot: u64) -> Option<i64> {
        find(&self.known.read().offsets, boot)
    }

    /// Remembers the offset of the running boot, unless one is known; on disk, too, if that works:
    /// after a failure a minute passes before the next try.
    pub(super) fn learn(&self, boot: u64, offset: i64, uptime_millis: u64) {
        if self.is_done.load(Ordering::Relaxed) {
            return;
        }
        let mut known = self.known.write();
        // It may have been retired meanwhile.
        if self.is_done.load(Ordering::Relaxed) {
            return;
        }
        if find(&known.offsets, boot).is_none() {
            known.offsets.push((boot, offset));
            let surplus = known.offsets.len().saturating_sub(BOOTS_MAX);
            known.offsets.drain(..surplus);
            known.is_unsaved = true;
        }
        if known.is_unsaved && !known.is_foreign {
            if uptime_millis < known.save_at {
                return;
            }
            if save(&self.dir, &known.offsets).is_err() {
                known.save_at = uptime_millis.saturating_add(RETRY_MILLIS);
                return;
            }
            known.is_unsaved = false;
        }
        self.is_done.store(true, Ordering::Relaxed);
    }

    /// Learns nothing more: from now on another store may write the file.
    pub(super) fn retire(&self) {
        // Not in the middle of a save.
        let _known = self.known.write();
        self.is_done.store(true, Ordering::Relaxed);
    }
}

/// The newest stand last, and are asked for most.
fn find(offsets: &[(u64, i64)], boot: u64) -> Option<i64> {
    let known = offsets.iter().rev().find(|(of, _)| *of == boot);
    known.map(|(_, offset)| *offset)
}

/// Replaces the file as a whole: after a crash it is the old one or the new one.
fn save(dir: &Path, offsets: &[(u64, i64)]) -> io::Result<()> {
    let fresh = dir.join(TEMPORARY);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&encode(offsets))?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(FILE))?;
    fs::File::open(dir)?.sync_all()
}

fn encode(offsets: &[(u64, i64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + ENTRY_LEN * offsets.len() + CHECKSUM_LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0]);
    for (boot, offset) in offsets {
        out.extend_from_slice(&boot.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
    }
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

#[derive(PartialEq, Eq, Debug)]
enum Found {
    Boots(Vec<(u64, i64)>),
    /// A newer version wrote it.
    Foreign,
    Bad,
}

fn decode(bytes: &[u8]) -> Found {
    // F14: the checksum first: what does not check out has no version either.
    let Some((body, checksum)) = bytes.split_last_chunk() else {
        return Found::Bad;
    };
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Found::Bad;
    }
    let Some((header, entries)) = body.split_first_chunk::<HEADER_LEN>() else {
        return Found::Bad;
    };
    match header.strip_prefix(MAGIC) {
        Some([VERSION, 0, 0, 0, 0, 0, 0, 0]) => {}
        Some(_) => return Found::Foreign,
        None => return Found::Bad,
    }
    let (entries, []) = entries.as_chunks::<ENTRY_LEN>() else {
        return Found::Bad;
    };
    let number = |half: &[u8]| {
        half.iter()
            .rev()
            .fold(0, |n, byte| n << 8 | u64::from(*byte))
    };
    let entry = |entry: &[u8; ENTRY_LEN]| {
        let (boot, offset) = entry.split_at(8);
        (number(boot), number(offset).cast_signed())
    };
    Found::Boots(entries.iter().map(entry).collect())
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests may fail by panic")]
mod tests {
    use super::*;

    const OFFSETS: [(u64, i64); 3] = [(7, 1_700_000_000_000), (u64::MAX, -1), (0, i64::MIN)];

    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn f14_what_is_learned_is_remembered_and_what_was_first_stays() {
        let dir = tempfile::tempdir().unwrap();
        let boots = Boots::load(dir.path());
        assert_eq!(boots.offset(7), None);
        boots.learn(7, 100, 0);
        boots.learn(7, 200, 0);
        assert_eq!(boots.offset(7), Some(100));

        let next = Boots::load(dir.path());
        next.learn(7, 300, 0);
        assert_eq!(next.offset(7), Some(100));
        let next = Boots::load(dir.path());
        next.learn(8, -5, 0);
        let last = Boots::load(dir.path());
        assert_eq!((last.offset(7), last.offset(8)), (Some(100), Some(-5)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn f14_whoever_gave_the_directory_away_learns_and_writes_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let former = Boots::load(dir.path());
        former.retire();
        Boots::load(dir.path()).learn(7, 100, 0);
        former.learn(7, 200, 0);
        assert_eq!(former.offset(7), None);
        assert_eq!(Boots::load(dir.path()).offset(7), Some(100));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn f14_of_many_boots_the_newest_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let many: Vec<(u64, i64)> = (0..1024).map(|boot| (boot, 1)).collect();
        save(dir.path(), &many).unwrap();
        let boots = Boots::load(dir.path());
        boots.learn(5_000, 2, 0);
        let boots = Boots::load(dir.path());
        assert_eq!(boots.offset(0), None);
        assert_eq!((boots.offset(1), boots.offset(5_000)), (Some(1), Some(2)));
    }

    #[test]
    fn f14_every_changed_bit_and_every_cut_is_noticed() {
        let whole = encode(&OFFSETS);
        assert_eq!(decode(&whole), Found::Boots(OFFSETS.into()));
        assert_eq!(decode(&encode(&[])), Found::Boots(Vec::new()));
        for len in 0..whole.len() {
            assert_eq!(decode(&whole[..len]), Found::Bad, "cut to {len}");
        }
        for bit in 0..8 * whole.len() {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&changed), Found::Bad, "bit {bit}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn f14_a_newer_versions_file_is_left_alone_and_a_bad_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut newer = encode(&OFFSETS);
        newer[8] = VERSION + 1;
        let body = newer.len() - CHECKSUM_LEN;
        let checksum = crc32fast::hash(&newer[..body]).to_le_bytes();
        newer[body..].copy_from_slice(&checksum);
        fs::write(&path, &newer).unwrap();
        let boots = Boots::load(dir.path());
        boots.learn(9, 9, 0);
        assert_eq!(
            boots.offset(9),
            Some(9),
            "it is known as long as this process lives"
        );
        assert_eq!(fs::read(&path).unwrap(), newer);

        fs::write(&path, b"garbage").unwrap();
        let boots = Boots::load(dir.path());
        boots.learn(9, 9, 0);
        assert_eq!(fs::read(&path).unwrap(), encode(&[(9, 9)]));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn a_save_that_failed_is_tried_again_after_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let later = dir.path().join("later");
        let boots = Boots::load(&later);
        boots.learn(1, 1, 0);
        fs::create_dir(&later).unwrap();
        boots.learn(1, 1, 59_999);
        assert!(!later.join(FILE).exists());
        boots.learn(1, 1, 60_000);
        assert_eq!(Boots::load(&later).offset(1), Some(1));
    }
}
