//! What a caller may choose, and every bound of the engine in one place.
//!
//! Owns: defaults, limits, and the reason for each number. Must not know: files or threads.

use std::time::Duration;

use super::cipher::Keys;
use super::compress::Compression;
use super::error::Error;
use super::rest::Packer;
use super::seq::SeqNo;

/// What an acknowledgement of an append means (`docs/durability.md`, P1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Durability {
    /// Staged in memory: survives nothing. For data that may be lost.
    Memory,
    /// Written to the operating system: survives `kill -9` (P2); a power loss may cost what was written
    /// since the last sync, at most [`Options::sync_interval`] or 4 MiB.
    Os,
    /// A successful `fdatasync` covers it: survives power loss.
    Disk,
}

impl Durability {
    /// The name used in configuration, on the command line and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Os => "os",
            Self::Disk => "disk",
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Durability {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Memory, Self::Os, Self::Disk]
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| format!("unknown durability {name:?}: use disk, os or memory"))
    }
}

/// What an append meets when there is no space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnFull {
    /// It is staged while the memory budget lasts, and then waits, as do tickets: for a source that
    /// can wait.
    #[default]
    Block,
    /// It fails with [`Error::Full`], as do tickets that wait: for a source that keeps the record.
    Reject,
    /// The oldest segment is given up, however little of it is settled: what is not gets the class
    /// [`Dropped`](super::Class::Dropped). For data whose value fades. The newest segment stays.
    DropOldest,
    /// It fails with [`Error::Dropped`]: the record is given up. What is staged already waits for
    /// space. For a history that must be whole.
    DropNewest,
}

/// How a log is opened. The defaults suit an edge gateway with a flash disk.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// What an acknowledgement means unless an append asks for more. Default: [`Durability::Disk`].
    pub durability: Durability,
    /// Bytes of a segment file, 1 MiB to 4 GiB, a multiple of 4 KiB. Default: 64 MiB. Existing
    /// segments keep the size they were made with.
    pub segment_size: u64,
    /// Longest time that written data stays unsynced, also when appending pauses. Default: 1 s.
    pub sync_interval: Duration,
    /// How long a sync that somebody waits for waits for company: fewer syncs and less wear of a flash
    /// disk, and each acknowledgement at level `disk` so much later. At most 1 s and `sync_interval`.
    /// [`Wal::sync`](super::Wal::sync), closing, a segment that is full and memory that is used up wait
    /// for no company. Default: none, the sync under way is company enough.
    pub linger: Duration,
    /// Most bytes held in memory: staged, and written but not yet synced. Default: 16 MiB. One group
    /// larger than this is admitted when nothing else is held.
    pub memory_budget: usize,
    /// Largest record, in bytes. Default: 16 MiB less the frame around it, or half a segment.
    pub max_record_bytes: usize,
    /// Released segment files kept for their next life; more are removed. Default: 2.
    pub max_spares: usize,
    /// Most bytes of all files in the directory, spares included; at least three segments. Default:
    /// none. Room is reserved a segment at a time, so appending stops up to one segment earlier.
    pub quota_bytes: Option<u64>,
    /// What happens while there is no space, on the disk or within the quota. Default: [`OnFull::Block`].
    pub on_full: OnFull,
    /// What opening does where promised records are gone. Default: [`OnCorruption::Quarantine`].
    pub on_corruption: OnCorruption,
    /// How records are compressed on disk. Default: [`Compression::None`].
    pub compression: Compression,
    /// What records and definitions are encrypted with on disk, and what older ones were encrypted
    /// with. Needs the feature `encryption`. Default: [`Keys::none`].
    pub keys: Keys,
    /// Nothing from this number on leaves the disk, settled or not, until
    /// [`Wal::keep_from`](super::Wal::keep_from) says otherwise. Default: none.
    pub keep_from: Option<SeqNo>,
}

/// What opening does where promised records are gone (`docs/durability.md`, rows D to J).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnCorruption {
    /// Goes on behind the damage: its bytes are copied to `quarantine/` in the log's directory, the
    /// numbers that are gone are settled as [`lost`](super::Class::Lost), and
    /// [`Opened::gaps`](super::Opened::gaps) names them.
    #[default]
    Quarantine,
    /// Refuses with [`Error::Corrupt`] and changes nothing.
    Refuse,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Disk,
            // Large enough that a rotation's sync is rare, small enough that space returns soon.
            segment_size: 64 << 20,
            sync_interval: Duration::from_secs(1),
            linger: Duration::ZERO,
            // Four times the 4 MiB that force a sync: staging goes on while one sync runs.
            memory_budget: 16 << 20,
            max_record_bytes: MAX_BATCH_BYTES,
            max_spares: 2,
            quota_bytes: None,
            on_full: OnFull::default(),
            on_corruption: OnCorruption::Quarantine,
            compression: Compression::None,
            keys: Keys::none(),
            keep_from: None,
        }
    }
}

/// Smallest segment: reserved area, dictionary and seal still leave half of it for a batch.
pub(crate) const MIN_SEGMENT_SIZE: u64 = 1 << 20;
/// Largest segment: a position divided by 64 has 26 bits in the frame header.
pub(crate) const MAX_SEGMENT_SIZE: u64 = 4 << 30;

/// F1: whether a segment can have this size.
pub(crate) const fn is_segment_size(size: u64) -> bool {
    MIN_SEGMENT_SIZE <= size && size <= MAX_SEGMENT_SIZE && size.is_multiple_of(4096)
}

/// Largest encoded batch, frame headers included; half a segment where that is less.
pub(crate) const MAX_BATCH_BYTES: usize = 16 << 20;
/// Records of one frame, unless a single record is larger (a damaged payload costs one frame).
pub(crate) const FRAME_BYTES: usize = 64 << 10;
/// One staging buffer, which is one group and one write: stays in the second-level cache between
/// the copy, the checksum and the write.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;
/// Unsynced bytes that start a sync at every level, so that the rotation barrier waits for little.
pub(crate) const SYNC_BYTES: u64 = 4 << 20;
/// Longest linger: who waits for an acknowledgement longer is better served by level `os`.
const MAX_LINGER: Duration = Duration::from_secs(1);
/// Step of filling a file with zeros ahead of its tail.
pub(crate) const FILL_BYTES: u64 = 4 << 20;
/// All definitions of a log together, headers included: they are repeated at the start of every segment.
pub(crate) const MAX_DICTIONARY_BYTES: usize = 64 << 10;
/// SeqNos that a cursor save reserves ahead (R4b), so that a crash makes none be given twice (P4). None in the last half of them is handed out.
pub(crate) const SEQ_LEAD: u64 = 1 << 24;
/// Added to the largest known limit when both cursor files are lost (R4b).
pub(crate) const SEQ_JUMP: u64 = 1 << 32;
/// Copies of damaged regions that a log keeps; what does not fit stays where it is.
pub(crate) const MAX_QUARANTINE_BYTES: u64 = 256 << 20;
/// Time between two saves of the cursor.
pub(crate) const SAVE_INTERVAL: Duration = Duration::from_millis(200);
/// How long staged records wait for company when nobody waits for them.
pub(crate) const WRITE_DELAY: Duration = Duration::from_millis(1);
/// Settlements above the low mark that are kept in memory; the shipper's window is far smaller.
pub(crate) const MAX_WINDOW: usize = 1 << 24;

impl Options {
    /// Largest encoded batch in a segment of this size.
    pub(crate) fn max_batch_bytes(&self) -> usize {
        usize::try_from(self.segment_size / 2)
            .map_or(MAX_BATCH_BYTES, |half| half.min(MAX_BATCH_BYTES))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let size = self.segment_size;
        if !is_segment_size(size) {
            return Err(Error::Options {
                reason: format!("segment_size is {size}: use 1 MiB to 4 GiB, a multiple of 4 KiB"),
            });
        }
        // One that is over, one that begins, and one that may be given up between them.
        let least = 3 * size;
        if self.quota_bytes.is_some_and(|quota| quota < least) {
            return Err(Error::Options {
                reason: format!("quota_bytes is too small: use at least {least}, three segments"),
            });
        }
        if self.memory_budget < 2 * BUFFER_BYTES {
            return Err(Error::Options {
                reason: format!(
                    "memory_budget is {}: use at least 512 KiB",
                    self.memory_budget
                ),
            });
        }
        let most = self.sync_interval.min(MAX_LINGER);
        if self.linger > most {
            return Err(Error::Options {
                reason: format!(
                    "linger is {:?}: use at most sync_interval and 1 s, here {most:?}",
                    self.linger
                ),
            });
        }
        Packer::new(self).map(drop)
    }
}
