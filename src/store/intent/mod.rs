//! The intent: what was about to be committed to Kafka when a process ended, and who this store is.
//!
//! Owns one file of two pages (`page`) that are written in turn, each with a checksum: a write that a power
//! loss tears leaves the one before. Must not know how an intent is resolved, nor Kafka.
//!
//! Invariants: [`IntentFile::write`] returns once the intent is durable; an intent is written only
//! after the one before it was decided, so the newest is the only one that may be in doubt. The
//! file is written in place for ever: its inode tells the store from its copies.

mod page;

use std::{
    fs,
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use page::{PAGE, SESSIONS_MAX, Slot, is_whole};

use super::{Error, io_error, sync_directory};
use crate::wal::{
    LogId, SeqNo,
    fs::{Fs, RealFs},
};

/// What the operating system calls this machine.
const MACHINE_ID: &str = "/etc/machine-id";

/// What a transaction is known by: drawn anew for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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

/// The dead letters that a transaction carries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentLetters {
    /// Their numbers, [`SENT_LETTERS_MAX`] at most.
    pub seqs: Vec<SeqNo>,
    /// Whether they are copies for the dead-letter topic, and not sent again.
    pub are_copies: bool,
    /// Whether it is known to be committed, and what became of each is written down.
    pub is_done: bool,
}

/// Dead letters that were committed, and that their log did not take word of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owed {
    /// The log they are in.
    pub log: LogId,
    /// Which they are.
    pub letters: SentLetters,
}

/// Most dead letters in a transaction: their numbers stand in the intent.
pub const SENT_LETTERS_MAX: usize = 128;

/// One transaction that is, or was, about to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Intent {
    /// Its own.
    pub nonce: Nonce,
    /// That of the last transaction before it that was committed.
    pub previous: Nonce,
    /// The log it carries records of: the lane's own, or one of its parking logs.
    pub log: LogId,
    /// What it settles there. Everything below is settled.
    pub span: Range<SeqNo>,
    /// The dead letters it carries instead, of the log above.
    pub letters: Option<SentLetters>,
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
            owed: None,
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
    /// Panics if a text in it is longer than 255 bytes, as Kafka's are not, if there are more than
    /// [`SENT_LETTERS_MAX`] letters, or any while others are [`owed`](Self::owed).
    pub fn write(&mut self, intent: Intent) -> Result<(), Error> {
        let letters = intent.letters.as_ref().map_or(0, |l| l.seqs.len());
        assert!(letters <= SENT_LETTERS_MAX, "{letters} letters");
        let mut slot = self.slot.clone();
        assert!(letters == 0 || slot.owed.is_none(), "others are owed");
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

    /// Notes that the letters of the newest intent are known to be sent: and written down in their log,
    /// or `owed`, which every intent tells from now on.
    ///
    /// # Errors
    ///
    /// As [`IntentFile::write`]; it is only looked up again.
    pub fn note_letters_done(&mut self, is_owed: bool) -> Result<(), Error> {
        let mut slot = self.slot.clone();
        if let Some(intent) = slot.intent.as_mut()
            && let Some(letters) = intent.letters.as_mut()
        {
            letters.is_done = true;
            slot.owed = is_owed.then(|| Owed {
                log: intent.log,
                letters: letters.clone(),
            });
        }
        self.save(slot)
    }

    /// The letters that are known to be sent and not written down.
    #[must_use]
    pub fn owed(&self) -> Option<&Owed> {
        self.slot.owed.as_ref()
    }

    /// These are written down. The next intent does not tell of them; until then they are written down
    /// once more after a crash, which changes nothing.
    pub fn forget_owed(&mut self) {
        self.slot.owed = None;
    }

    /// Makes this store another gateway: what its copies do is no longer its matter. Every intent is
    /// forgotten, and what is [`owed`](Self::owed).
    ///
    /// # Errors
    ///
    /// As [`IntentFile::write`].
    pub fn renew_identity(&mut self) -> Result<LogId, Error> {
        let mut slot = self.slot.clone();
        slot.identity = LogId::new(self.draw()?.bits);
        slot.sessions.clear();
        (slot.intent, slot.owed) = (None, None);
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
#[non_exhaustive]
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

#[cfg(test)]
mod tests {
    use super::page::{CHECKSUM_AT, checksum};
    use super::*;

    const LOG: LogId = LogId::new([7; 16]);

    fn intent(file: &IntentFile, previous: Nonce, start: u64) -> Intent {
        Intent {
            nonce: file.draw().unwrap(),
            previous,
            log: LOG,
            span: SeqNo::new(start)..SeqNo::new(start + 10),
            letters: (start == 3).then(|| SentLetters {
                seqs: (0..SENT_LETTERS_MAX as u64).map(SeqNo::new).collect(),
                are_copies: true,
                is_done: false,
            }),
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
    fn letters_that_are_owed_are_told_by_every_intent_until_they_are_written_down() {
        let (_dir, path) = scratch();
        let mut file = IntentFile::open(&path, LOG).unwrap();
        let mut next = intent(&file, Nonce::NONE, 3);
        next.log = LogId::new([9; 16]);
        let letters = next.letters.clone().unwrap();
        file.write(next).unwrap();
        file.note_letters_done(true).unwrap();
        for start in 10..13 {
            let read = IntentFile::open(&path, LOG).unwrap();
            let owed = read.owed().unwrap();
            assert_eq!(owed.log, LogId::new([9; 16]));
            assert_eq!(owed.letters.seqs, letters.seqs);
            assert!(owed.letters.are_copies && owed.letters.is_done);
            file = read;
            let next = intent(&file, Nonce::NONE, start);
            file.write(next.clone()).unwrap();
            assert_eq!(IntentFile::open(&path, LOG).unwrap().intent(), Some(&next));
        }
        file.forget_owed();
        assert_eq!(file.owed(), None);
        file.write(intent(&file, Nonce::NONE, 20)).unwrap();
        assert_eq!(IntentFile::open(&path, LOG).unwrap().owed(), None);
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
