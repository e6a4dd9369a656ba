//! The intent: what was about to be committed to Kafka when a process ended, and who this store is.
//!
//! Owns one file of two pages that are written in turn, each with a checksum: a write that a power
//! loss tears leaves the one before. Must not know how an intent is resolved, nor Kafka.
//!
//! Invariants: [`IntentFile::write`] returns once the intent is durable; an intent is written only
//! after the one before it was decided, so the newest is the only one that may be in doubt. The
//! file is written in place for ever: its inode tells the store from its copies.

use std::{
    fs,
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Error, io_error, sync_directory};
use crate::wal::{
    LogId, SeqNo,
    fs::{Fs, RealFs},
};

const PAGE: usize = 4096;
const MAGIC: [u8; 8] = *b"FERRYINT";
const VERSION: u16 = 1;
const CHECKSUM_AT: usize = PAGE - 4;
/// Times that this store was opened to ship: older ones are forgotten.
const SESSIONS_MAX: usize = 128;
const SESSIONS_AT: usize = 2048;
/// A topic's name and a cluster's id; both are far shorter.
const TEXTS_AT: usize = 256;
const TEXT_MAX: usize = 255;
const LOG_AT: usize = 184;
/// What the operating system calls this machine.
const MACHINE_ID: &str = "/etc/machine-id";

const _: () = assert!(SESSIONS_AT + 8 * SESSIONS_MAX <= CHECKSUM_AT);
const _: () = assert!(TEXTS_AT + 2 * TEXT_MAX <= SESSIONS_AT);

/// What a transaction is known by: drawn anew for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nonce {
    /// 128 random bits; all zero is none.
    pub bits: [u8; 16],
    /// Drawn each time the store is opened to ship.
    pub session: u64,
    /// Counts the transactions of this store, from 1 on.
    pub number: u64,
}

impl Nonce {
    /// The one of no transaction.
    pub const NONE: Nonce = Nonce {
        bits: [0; 16],
        session: 0,
        number: 0,
    };
}

/// One transaction that is, or was, about to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Its own.
    pub nonce: Nonce,
    /// That of the last transaction before it that was committed.
    pub previous: Nonce,
    /// The log it carries records of: the lane's own, or one of its parking logs.
    pub log: LogId,
    /// What it settles there. Everything below is settled.
    pub span: Range<SeqNo>,
    /// The cluster.
    pub cluster_id: String,
    /// Whether its progress record is in the offsets of a group, under this topic and partition, and
    /// not in the topic itself.
    pub is_in_offsets: bool,
    /// Where its progress record is.
    pub topic: String,
    /// Where its progress record is.
    pub partition: i32,
    /// Where its progress record is, if the cluster told.
    pub partition_offset: Option<i64>,
    /// Where the progress record before is, if that is known.
    pub previous_partition_offset: Option<i64>,
    /// Whether it is known to be aborted. Whether it is known to be committed is told by the cursor.
    pub is_aborted: bool,
}

/// What the newest page holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    generation: u64,
    /// The log it belongs to: that of another log which was in its place is nothing to this one.
    log_id: LogId,
    identity: LogId,
    inode: u64,
    machine: [u8; 16],
    /// Newest first.
    sessions: Vec<u64>,
    intent: Option<Intent>,
}

/// The file that keeps the intents of a lane.
#[derive(Debug)]
pub struct IntentFile {
    path: PathBuf,
    file: fs::File,
    slot: Slot,
    /// Drawn when the file was opened.
    session: u64,
    is_copy: bool,
}

impl IntentFile {
    /// Opens the file at `path`, or makes a new one that holds no intent.
    pub(super) fn open(path: &Path, log_id: LogId) -> Result<Self, Error> {
        let file = open_or_make(path)?;
        let read = |at| read_page(&file, at).map_err(io_error("read", path));
        let newest = newest([read(0)?, read(1)?], path, log_id)?;
        let inode = file.metadata().map_err(io_error("look at", path))?.ino();
        let machine = machine();
        let session = RealFs
            .random()
            .map_err(io_error("draw a number for", path))?;
        let here = |slot: &Slot| slot.inode == inode && slot.machine == machine;
        let is_copy = newest.as_ref().is_some_and(|slot| !here(slot));
        let slot = newest.unwrap_or(Slot {
            generation: 0,
            log_id,
            identity: log_id,
            inode,
            machine,
            sessions: Vec::new(),
            intent: None,
        });
        let path = path.to_path_buf();
        Ok(Self {
            path,
            file,
            slot: Slot {
                inode,
                machine,
                ..slot
            },
            session,
            is_copy,
        })
    }

    /// The newest intent, if there ever was one.
    #[must_use]
    pub fn intent(&self) -> Option<&Intent> {
        self.slot.intent.as_ref()
    }

    /// As whom this lane ships: its log's id, unless a repair gave it another one.
    #[must_use]
    pub fn identity(&self) -> LogId {
        self.slot.identity
    }

    /// Whether the file was last written in another place: the store was copied, restored or moved.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// Whether a transaction of this store had this nonce, or may have had it, and which.
    #[must_use]
    pub fn knows(&self, nonce: &Nonce) -> Known {
        let Some(intent) = &self.slot.intent else {
            return Known::Never;
        };
        if *nonce == intent.nonce {
            return Known::Newest;
        }
        if *nonce == intent.previous && intent.previous != Nonce::NONE {
            return Known::Previous;
        }
        let is_older =
            self.slot.sessions.contains(&nonce.session) && nonce.number < intent.nonce.number;
        if is_older { Known::Older } else { Known::Never }
    }

    /// A nonce for the next transaction.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system gives no random number.
    pub fn draw(&self) -> Result<Nonce, Error> {
        let random = || {
            let drawn = RealFs.random();
            drawn.map_err(io_error("draw a number for", &self.path))
        };
        let mut bits = [0; 16];
        bits[..8].copy_from_slice(&random()?.to_le_bytes());
        bits[8..].copy_from_slice(&random()?.to_le_bytes());
        let newest = self.slot.intent.as_ref().map_or(0, |i| i.nonce.number);
        Ok(Nonce {
            bits,
            session: self.session,
            number: newest + 1,
        })
    }

    /// Makes an intent durable. The one before it is decided.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: which of the two is on disk is not known. Nothing may be committed by it.
    ///
    /// # Panics
    ///
    /// Panics if a text in it is longer than 255 bytes; Kafka's are not.
    pub fn write(&mut self, intent: Intent) -> Result<(), Error> {
        let mut slot = self.slot.clone();
        if slot.sessions.first() != Some(&intent.nonce.session) {
            slot.sessions.insert(0, intent.nonce.session);
            slot.sessions.truncate(SESSIONS_MAX);
        }
        slot.intent = Some(intent);
        self.save(slot)?;
        // From here on this is where the newest intent was written.
        self.is_copy = false;
        Ok(())
    }

    /// Notes whether the newest intent is known to be aborted.
    ///
    /// # Errors
    ///
    /// As [`IntentFile::write`]; it is only looked up again.
    pub fn note_aborted(&mut self, is_aborted: bool) -> Result<(), Error> {
        let mut slot = self.slot.clone();
        match &mut slot.intent {
            Some(intent) if intent.is_aborted != is_aborted => intent.is_aborted = is_aborted,
            _ => return Ok(()),
        }
        self.save(slot)
    }

    /// Makes this store another gateway: what its copies do is no longer its matter. Every intent is
    /// forgotten.
    ///
    /// # Errors
    ///
    /// As [`IntentFile::write`].
    pub fn renew_identity(&mut self) -> Result<LogId, Error> {
        let mut slot = self.slot.clone();
        slot.identity = LogId::new(self.draw()?.bits);
        slot.sessions.clear();
        slot.intent = None;
        self.save(slot)?;
        self.is_copy = false;
        Ok(self.slot.identity)
    }

    fn save(&mut self, mut slot: Slot) -> Result<(), Error> {
        slot.generation += 1;
        let at = (slot.generation % 2) * PAGE as u64;
        self.file
            .write_all_at(&slot.encode(), at)
            .and_then(|()| self.file.sync_data())
            .map_err(io_error("write", &self.path))?;
        self.slot = slot;
        Ok(())
    }
}

/// What this store knows of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is that of the newest intent.
    Newest,
    /// It is that of the last transaction that was committed before the newest intent.
    Previous,
    /// It is an older one of this store.
    Older,
    /// Another store drew it, or this one after it was copied.
    Never,
}

/// The identity that a lane ships as, without opening the file for writing.
pub(super) fn identity(path: &Path, log_id: LogId) -> Result<LogId, Error> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(log_id),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let read = |at| read_page(&file, at).map_err(io_error("read", path));
    let slot = newest([read(0)?, read(1)?], path, log_id)?;
    Ok(slot.map_or(log_id, |slot| slot.identity))
}

fn open_or_make(path: &Path) -> Result<fs::File, Error> {
    let existing = fs::OpenOptions::new().read(true).write(true).open(path);
    match existing {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened.map_err(io_error("open", path)),
    }
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io_error("create", path))?;
    // Its whole length now, so that a sync of an intent has no metadata to write.
    file.write_all_at(&[0; 2 * PAGE], 0)
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", path))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

fn read_page(file: &fs::File, index: u64) -> io::Result<[u8; PAGE]> {
    let mut page = [0; PAGE];
    match file.read_exact_at(&mut page, index * PAGE as u64) {
        // A file that a crash left too short.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok([0; PAGE]),
        read => read.map(|()| page),
    }
}

/// The newest valid page. What a newer version wrote is not overwritten.
fn newest(pages: [[u8; PAGE]; 2], path: &Path, log_id: LogId) -> Result<Option<Slot>, Error> {
    let refused = |page: &[u8; PAGE]| is_whole(page) && Slot::decode(page).is_none();
    if pages.iter().any(refused) {
        return Err(io_error("understand", path)(io::Error::new(
            ErrorKind::InvalidData,
            "a newer version wrote it",
        )));
    }
    let found = pages.iter().filter_map(Slot::decode);
    let ours = found.filter(|slot| slot.log_id == log_id);
    Ok(ours.max_by_key(|slot| slot.generation))
}

/// What the system calls this machine; zeros where it has no name.
fn machine() -> [u8; 16] {
    let text = fs::read_to_string(MACHINE_ID).unwrap_or_default();
    u128::from_str_radix(text.trim(), 16)
        .unwrap_or(0)
        .to_le_bytes()
}

fn checksum(page: &[u8; PAGE]) -> [u8; 4] {
    crc32fast::hash(&page[..CHECKSUM_AT]).to_le_bytes()
}

fn is_whole(page: &[u8; PAGE]) -> bool {
    page[..8] == MAGIC && page[CHECKSUM_AT..] == checksum(page)
}

impl Slot {
    fn encode(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(16, &self.generation.to_le_bytes());
        put(24, &self.identity.bytes());
        put(40, &self.inode.to_le_bytes());
        put(48, &self.machine);
        put(168, &self.log_id.bytes());
        put(10, &[length_byte(self.sessions.len())]);
        for (index, session) in self.sessions.iter().enumerate() {
            put(SESSIONS_AT + 8 * index, &session.to_le_bytes());
        }
        if let Some(intent) = &self.intent {
            let flags = 1
                | u8::from(intent.is_aborted) << 1
                | u8::from(intent.partition_offset.is_some()) << 2
                | u8::from(intent.previous_partition_offset.is_some()) << 3
                | u8::from(intent.is_in_offsets) << 4;
            let (topic, cluster) = (intent.topic.as_bytes(), intent.cluster_id.as_bytes());
            put(11, &[flags]);
            put(12, &[length_byte(topic.len()), length_byte(cluster.len())]);
            for (at, nonce) in [(64, &intent.nonce), (96, &intent.previous)] {
                put(at, &nonce.bits);
                put(at + 16, &nonce.session.to_le_bytes());
                put(at + 24, &nonce.number.to_le_bytes());
            }
            put(128, &intent.span.start.get().to_le_bytes());
            put(136, &intent.span.end.get().to_le_bytes());
            put(144, &intent.partition_offset.unwrap_or(0).to_le_bytes());
            let previous = intent.previous_partition_offset.unwrap_or(0);
            put(152, &previous.to_le_bytes());
            put(LOG_AT, &intent.log.bytes());
            put(160, &intent.partition.to_le_bytes());
            put(TEXTS_AT, topic);
            put(TEXTS_AT + TEXT_MAX, cluster);
        }
        let sum = checksum(&page);
        page[CHECKSUM_AT..].copy_from_slice(&sum);
        page
    }

    fn decode(page: &[u8; PAGE]) -> Option<Self> {
        if !is_whole(page) || page[8..10] != VERSION.to_le_bytes() {
            return None;
        }
        let session_count = usize::from(page[10]);
        if session_count > SESSIONS_MAX {
            return None;
        }
        let sessions = (0..session_count).map(|index| u64_at(page, SESSIONS_AT + 8 * index));
        let intent = if page[11] == 0 {
            None
        } else {
            Some(decode_intent(page)?)
        };
        Some(Self {
            generation: u64_at(page, 16),
            log_id: LogId::new(sixteen_at(page, 168)),
            identity: LogId::new(sixteen_at(page, 24)),
            inode: u64_at(page, 40),
            machine: sixteen_at(page, 48),
            sessions: sessions.collect(),
            intent,
        })
    }
}

fn decode_intent(page: &[u8; PAGE]) -> Option<Intent> {
    let flag = |bit: u8| page[11] & 1 << bit != 0;
    let text = |at: usize, len: u8| {
        let bytes = page.get(at..at + usize::from(len))?;
        Some(str::from_utf8(bytes).ok()?.to_owned())
    };
    let nonce = |at| Nonce {
        bits: sixteen_at(page, at),
        session: u64_at(page, at + 16),
        number: u64_at(page, at + 24),
    };
    let partition_offset = |at| u64_at(page, at).cast_signed();
    let (start, end) = (u64_at(page, 128), u64_at(page, 136));
    Some(Intent {
        nonce: nonce(64),
        previous: nonce(96),
        log: LogId::new(sixteen_at(page, LOG_AT)),
        span: SeqNo::new(start)..SeqNo::new(end),
        cluster_id: text(TEXTS_AT + TEXT_MAX, page[13])?,
        is_in_offsets: flag(4),
        topic: text(TEXTS_AT, page[12])?,
        partition: i32::from_le_bytes([page[160], page[161], page[162], page[163]]),
        partition_offset: flag(2).then(|| partition_offset(144)),
        previous_partition_offset: flag(3).then(|| partition_offset(152)),
        is_aborted: flag(1),
    })
}

fn length_byte(len: usize) -> u8 {
    let byte = u8::try_from(len);
    assert!(byte.is_ok(), "longer than 255");
    byte.unwrap_or(0)
}

fn u64_at(page: &[u8; PAGE], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&page[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn sixteen_at(page: &[u8; PAGE], at: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&page[at..at + 16]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId::new([7; 16]);

    fn intent(file: &IntentFile, previous: Nonce, start: u64) -> Intent {
        Intent {
            nonce: file.draw().unwrap(),
            previous,
            log: LOG,
            span: SeqNo::new(start)..SeqNo::new(start + 10),
            cluster_id: "a cluster".into(),
            is_in_offsets: start == 4,
            topic: "ferrylog-progress".into(),
            partition: 11,
            partition_offset: Some(1 << 40),
            previous_partition_offset: None,
            is_aborted: false,
        }
    }

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("default.intent");
        (dir, path)
    }

    #[test]
    fn what_was_written_last_is_read_back() {
        let (_dir, path) = scratch();
        let mut file = IntentFile::open(&path, LOG).unwrap();
        assert_eq!((file.intent(), file.identity()), (None, LOG));
        let mut previous = Nonce::NONE;
        for start in 0..5 {
            let next = intent(&file, previous, start);
            file.write(next.clone()).unwrap();
            let read = IntentFile::open(&path, LOG).unwrap();
            assert_eq!(read.intent(), Some(&next));
            assert!(!read.is_copy());
            previous = next.nonce;
        }
        file.note_aborted(true).unwrap();
        let read = IntentFile::open(&path, LOG).unwrap();
        assert!(read.intent().unwrap().is_aborted);
    }

    #[test]
    fn a_torn_write_at_any_byte_leaves_the_intent_before() {
        let (_dir, path) = scratch();
        let mut file = IntentFile::open(&path, LOG).unwrap();
        let first = intent(&file, Nonce::NONE, 0);
        file.write(first.clone()).unwrap();
        let before = fs::read(&path).unwrap();
        let second = intent(&file, first.nonce, 10);
        file.write(second.clone()).unwrap();
        let after = fs::read(&path).unwrap();
        let changed = |at: &usize| before[*at] != after[*at];
        let changed: Vec<usize> = (0..after.len()).filter(changed).collect();
        for &torn in changed.iter().step_by(7) {
            let mut bytes = after.clone();
            let rest = torn..(torn / PAGE + 1) * PAGE;
            bytes[rest.clone()].copy_from_slice(&before[rest]);
            fs::write(&path, bytes).unwrap();
            let read = IntentFile::open(&path, LOG).unwrap();
            assert_eq!(read.intent(), Some(&first), "torn at {torn}");
        }
        fs::write(&path, after).unwrap();
        let read = IntentFile::open(&path, LOG).unwrap();
        assert_eq!(read.intent(), Some(&second));
    }

    #[test]
    fn a_copy_is_told_from_the_original_until_it_writes() {
        let (dir, path) = scratch();
        let mut file = IntentFile::open(&path, LOG).unwrap();
        file.write(intent(&file, Nonce::NONE, 0)).unwrap();
        let copied = dir.path().join("copied");
        fs::copy(&path, &copied).unwrap();
        let mut copy = IntentFile::open(&copied, LOG).unwrap();
        assert!(copy.is_copy());
        assert!(!IntentFile::open(&path, LOG).unwrap().is_copy());
        // Both go on: what the copy draws now, the original does not know, and the other way round.
        let previous = copy.intent().unwrap().nonce;
        let next = intent(&copy, previous, 10);
        copy.write(next.clone()).unwrap();
        assert!(!copy.is_copy());
        assert_eq!(copy.knows(&next.nonce), Known::Newest);
        assert_eq!(file.knows(&next.nonce), Known::Never);
        assert_eq!(file.knows(&previous), Known::Newest);
        file.write(intent(&file, previous, 10)).unwrap();
        file.write(intent(&file, previous, 20)).unwrap();
        let ours = file.intent().unwrap().nonce;
        assert_eq!(copy.knows(&ours), Known::Never);
    }

    #[test]
    fn older_nonces_of_earlier_openings_are_known_and_a_new_identity_forgets_them() {
        let (_dir, path) = scratch();
        let mut nonces = Vec::new();
        for start in 0..4 {
            let mut file = IntentFile::open(&path, LOG).unwrap();
            let previous = file.intent().map_or(Nonce::NONE, |intent| intent.nonce);
            file.write(intent(&file, previous, start)).unwrap();
            nonces.push(file.intent().unwrap().nonce);
        }
        let mut file = IntentFile::open(&path, LOG).unwrap();
        let known: Vec<Known> = nonces.iter().map(|nonce| file.knows(nonce)).collect();
        assert_eq!(
            known,
            [Known::Older, Known::Older, Known::Previous, Known::Newest]
        );
        assert_eq!(file.knows(&Nonce::NONE), Known::Never);
        let identity = file.renew_identity().unwrap();
        assert_ne!(identity, LOG);
        assert_eq!(super::identity(&path, LOG).unwrap(), identity);
        let file = IntentFile::open(&path, LOG).unwrap();
        assert_eq!((file.identity(), file.intent()), (identity, None));
        assert_eq!(file.knows(&nonces[3]), Known::Never);
    }

    #[test]
    fn a_page_of_a_newer_version_is_not_overwritten() {
        let (_dir, path) = scratch();
        let mut file = IntentFile::open(&path, LOG).unwrap();
        file.write(intent(&file, Nonce::NONE, 0)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let mut page = [0; PAGE];
        page.copy_from_slice(&bytes[PAGE..]);
        page[8] = 9;
        let sum = checksum(&page);
        page[CHECKSUM_AT..].copy_from_slice(&sum);
        bytes[PAGE..].copy_from_slice(&page);
        fs::write(&path, bytes).unwrap();
        assert!(matches!(
            IntentFile::open(&path, LOG),
            Err(Error::Io { .. })
        ));
    }
}
