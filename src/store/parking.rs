//! Parking logs: where the records of a partition wait that takes nothing for long, so that the
//! lane they came from goes on without them.
//!
//! Owns: which partition has which log, how a record stands in it, and their place on disk,
//! `parked/LANE/TOPIC/PARTITION`. Must not know why a partition takes nothing.
//!
//! Invariants: a parking log holds records of one lane and one topic, in the order of their
//! numbers in that lane, each with that number; a log that was opened stays open, so that a
//! reference to it lives as long as the store; and from the opening on it keeps what is shipped, until
//! somebody says that its lane knows what was moved.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::boots::Boots;
use super::outcome::Origins;
use super::{DIRECTORY_MODE, Error, Lane, LaneView, StoreView, io_error, sync_directory};
use crate::wal::{self, Durability, Encode, OnFull, Record, SeqNo, Wal};

/// The directory of the parking logs.
pub(super) const PARKED: &str = "parked";
/// The log that partitions of one topic share, or that holds what no partition can be named for.
const SHARED: &str = "any";
/// Most logs that serve one partition alone; beyond them the partitions of a topic share one.
pub const PARKING_LOGS_MAX: usize = 64;
/// Slots for logs of both kinds. A topic beyond them is not parked.
const SLOTS: usize = 2 * PARKING_LOGS_MAX;
/// Small, because there may be many. A record longer than half of it is not parked.
const SEGMENT_SIZE: u64 = 8 << 20;
/// Bytes in front of a record: its number in its lane, and when it was appended there.
const PREFIX_LEN: usize = 16;

/// The parking logs of a store.
#[derive(Debug)]
pub(super) struct Parking {
    dir: PathBuf,
    /// Filled from the front.
    logs: Box<[OnceLock<ParkingLog>]>,
    /// How many are filled; held while one is made.
    count: Mutex<usize>,
}

/// One parking log.
#[derive(Debug)]
pub struct ParkingLog {
    lane: String,
    topic: Arc<str>,
    partition: Option<u32>,
    wal: Wal,
    origins: Mutex<Origins>,
}

impl ParkingLog {
    /// Whether a record of so many bytes can be parked.
    #[cfg(feature = "kafka")]
    pub(crate) fn takes(len: usize) -> bool {
        len <= record_bytes_max() - PREFIX_LEN
    }

    /// The name of the lane that its records come from.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lane
    }

    /// The topic of all of them.
    #[must_use]
    pub const fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Their partition; `None`: any.
    #[must_use]
    pub const fn partition(&self) -> Option<u32> {
        self.partition
    }

    /// The log itself.
    pub(super) const fn wal(&self) -> &Wal {
        &self.wal
    }

    /// What became of its records.
    #[must_use]
    pub fn totals(&self) -> wal::Totals {
        self.wal.totals()
    }

    /// Appends a record of the lane as the lane keeps it; durable after [`ParkingLog::sync`].
    ///
    /// # Errors
    ///
    /// [`Error::Log`]: nothing was appended. Full, or the record is longer than half a segment: it
    /// stays where it is.
    pub fn append(&self, origin: SeqNo, time_micros: i64, raw: &[u8]) -> Result<(), Error> {
        let record = Parked {
            origin,
            time_micros,
            raw,
        };
        // The sync waits for all of them.
        let seq = self.wal.append(&record)?.seq();
        self.origins.lock().note(origin, seq);
        Ok(())
    }

    /// Whether what is settled here stays on disk, as it does from the opening on: the only trace of
    /// records that their lane does not know to be moved.
    #[cfg(feature = "kafka")]
    pub(crate) fn keep(&self, is_kept: bool) {
        self.wal.keep_from(is_kept.then_some(SeqNo::ZERO));
    }

    /// The number here of a record of the lane that was moved since the log was opened.
    pub(super) fn place_of(&self, origin: SeqNo) -> Option<SeqNo> {
        self.origins.lock().get(origin)
    }

    /// Waits until everything appended is on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Log`]: what was appended since the last sync has no known outcome.
    pub fn sync(&self) -> Result<(), Error> {
        self.wal.sync()?;
        Ok(())
    }
}

/// A record as it stands in a parking log (F15).
struct Parked<'a> {
    origin: SeqNo,
    time_micros: i64,
    raw: &'a [u8],
}

impl Encode for Parked<'_> {
    fn encoded_len(&self) -> usize {
        PREFIX_LEN + self.raw.len()
    }

    fn encode(&self, out: &mut [u8]) {
        let (prefix, raw) = out.split_at_mut(PREFIX_LEN);
        let (origin, time) = prefix.split_at_mut(8);
        origin.copy_from_slice(&self.origin.get().to_le_bytes());
        time.copy_from_slice(&self.time_micros.to_le_bytes());
        raw.copy_from_slice(self.raw);
    }
}

/// The number, time and bytes that a record of a parking log had in its lane; `None` if it is too
/// short to be one.
pub(super) fn unwrap(record: &Record) -> Option<(SeqNo, i64, Bytes)> {
    let origin = record.payload.first_chunk()?;
    let time = record.payload.get(8..)?.first_chunk()?;
    let origin = u64::from_le_bytes(*origin);
    (origin < SeqNo::LIMIT.get()).then(|| {
        let raw = record.payload.slice(PREFIX_LEN..);
        (SeqNo::new(origin), i64::from_le_bytes(*time), raw)
    })
}

impl Parking {
    /// Opens the parking logs that are there, of these lanes.
    pub(super) fn open(store: &Path, lanes: &[Lane]) -> Result<Self, Error> {
        let parking = Self {
            dir: store.join(PARKED),
            logs: (0..SLOTS).map(|_| OnceLock::new()).collect(),
            count: Mutex::new(0),
        };
        for lane in lanes {
            for (topic, partition) in on_disk(&parking.dir.join(lane.name()))? {
                parking.make(lane, &topic.as_str().into(), partition)?;
            }
        }
        Ok(parking)
    }

    /// All logs there are, oldest first.
    pub(super) fn logs(&self) -> impl Iterator<Item = &ParkingLog> {
        self.logs.iter().map_while(OnceLock::get)
    }

    /// The log for a partition of a lane, made where there is none; the one that its topic shares
    /// once there are too many. `None`: there is no room for more logs.
    pub(super) fn log(
        &self,
        lane: &Lane,
        topic: &Arc<str>,
        partition: Option<u32>,
    ) -> Result<Option<&ParkingLog>, Error> {
        let find = |partition| {
            let is_it = |log: &&ParkingLog| {
                log.partition == partition && log.topic == *topic && log.lane == lane.name()
            };
            self.logs().find(is_it)
        };
        let own = self.logs().filter(|log| log.partition.is_some()).count();
        if let Some(log) = find(partition) {
            return Ok(Some(log));
        }
        let partition = partition.filter(|_| own < PARKING_LOGS_MAX);
        match find(partition) {
            Some(log) => Ok(Some(log)),
            None => self.make(lane, topic, partition),
        }
    }

    fn make(
        &self,
        lane: &Lane,
        topic: &Arc<str>,
        partition: Option<u32>,
    ) -> Result<Option<&ParkingLog>, Error> {
        let mut count = self.count.lock();
        let Some(slot) = self.logs.get(*count) else {
            return Ok(None);
        };
        let topic_dir = self.dir.join(lane.name()).join(&**topic);
        let dir = topic_dir.join(name_of(partition));
        if !dir.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(DIRECTORY_MODE)
                .create(&dir)
                .map_err(io_error("make the directory", &dir))?;
            // The names outlive a power loss before anything in them is settled elsewhere.
            let parents = dir.ancestors().skip(1).take(4);
            parents.into_iter().try_for_each(sync_directory)?;
        }
        let log = ParkingLog {
            lane: lane.name().into(),
            topic: Arc::clone(topic),
            partition,
            wal: Wal::open(&dir, options(lane))?,
            origins: Mutex::default(),
        };
        *count += 1;
        Ok(Some(slot.get_or_init(|| log)))
    }

    /// Writes, syncs and closes them all.
    pub(super) fn shut(&self) -> Result<(), Error> {
        let mut closed = Ok(());
        for log in self.logs() {
            closed = closed.and(log.wal.shut().map_err(Error::from));
        }
        closed
    }
}

impl StoreView {
    /// The files of the parking logs, each named by its lane, topic and partition.
    ///
    /// # Errors
    ///
    /// [`Error::Lane`] if one cannot be read, [`Error::Io`] if a directory cannot.
    pub fn parking_logs(&self) -> Result<Vec<LaneView>, Error> {
        let boots = Arc::new(Boots::load(&self.dir));
        let mut logs = Vec::new();
        for lane in &self.lanes {
            let dir = self.dir.join(PARKED).join(lane.name());
            for (topic, partition) in on_disk(&dir)? {
                let partition = name_of(partition);
                let name = format!("{}/{topic}/{partition}", lane.name());
                let view = self.look(&dir.join(topic).join(partition));
                match LaneView::open(&name, view, Arc::clone(&boots)) {
                    Ok(log) => logs.push(log),
                    // It was only just made: nothing is in it.
                    Err(Error::Lane {
                        source: wal::Error::NotALog { .. },
                        ..
                    }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(logs)
    }
}

/// The name of the log of a partition in the directory of its topic.
fn name_of(partition: Option<u32>) -> String {
    partition.map_or_else(|| SHARED.to_owned(), |number| number.to_string())
}

/// The topics and partitions that the directory of a lane has logs of, in order.
fn on_disk(dir: &Path) -> Result<Vec<(String, Option<u32>)>, Error> {
    let mut found = Vec::new();
    for topic in names(dir)? {
        for name in names(&dir.join(&topic))? {
            let partition = name.parse().ok();
            if partition.is_some() || name == SHARED {
                found.push((topic.clone(), partition));
            }
        }
    }
    Ok(found)
}

/// How a parking log of a lane is kept: as the lane, but small, and told when it is full.
fn options(lane: &Lane) -> wal::Options {
    let mut options = lane.wal.options().clone();
    options.durability = Durability::Os;
    options.segment_size = SEGMENT_SIZE;
    options.memory_budget = options.memory_budget.min(4 << 20);
    options.max_record_bytes = record_bytes_max();
    options.max_spares = 1;
    options.quota_bytes = options
        .quota_bytes
        .map(|bytes| (bytes / 2).max(4 * SEGMENT_SIZE));
    options.on_full = OnFull::Reject;
    options.keep_from = Some(SeqNo::ZERO);
    options
}

fn record_bytes_max() -> usize {
    let half = usize::try_from(SEGMENT_SIZE / 2).unwrap_or(usize::MAX);
    wal::Options::default().max_record_bytes.min(half)
}

/// The names in a directory, in order; none where it is not there.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = || io_error("read the directory", dir);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed()(error))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f15_a_parked_record_follows_its_number_and_time() {
        let parked = Parked {
            origin: SeqNo::new(5),
            time_micros: -2,
            raw: b"as it was",
        };
        let mut bytes = vec![0; parked.encoded_len()];
        parked.encode(&mut bytes);
        let time = (-2_i64).to_le_bytes();
        assert_eq!(
            bytes,
            [&[5, 0, 0, 0, 0, 0, 0, 0], &time, &b"as it was"[..]].concat()
        );
        let payload = |len: usize| Record {
            seq: SeqNo::new(0),
            payload: Bytes::copy_from_slice(&bytes[..len]),
            time_micros: 0,
        };
        let whole = (SeqNo::new(5), -2, Bytes::from_static(b"as it was"));
        assert_eq!(unwrap(&payload(bytes.len())), Some(whole));
        assert_eq!(unwrap(&payload(15)), None);
    }
}
