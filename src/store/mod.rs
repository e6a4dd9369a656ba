//! The store: what lies in one data directory.
//!
//! Owns the directory's layout (`lanes/NAME/` is one log, whose name says for which cluster, `lanes/NAME.intent` what is about to be
//! committed from it, `dead-letters/`, `schedule/` and `parked/LANE/TOPIC/PARTITION/` are other logs, `boots` is a
//! file about time), its creation, and who may open it how:
//! [`Store`] to append and settle, one at a time, or [`StoreView`] to look, at any time.
//!
//! It must not know Kafka, nor the command line, nor how a log keeps its bytes.
//!
//! Invariants: a directory that holds anything but a store is never written to. The names of the
//! directories are durable before a record in them is acknowledged. A lane that is on disk is open,
//! whatever the options say: a record is never left in one that nobody looks at.

mod boots;
mod clock;
mod dead_letter;
mod error;
mod intent;
mod lane;
mod lane_name;
mod names;
mod options;
mod outcome;
mod parking;
mod reader;
mod route;
mod router;
mod schedule;
mod segments;
mod stream;
mod told;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use clock::{ClockOptions, Now, Reading, SystemTime, TimeSource, Trust};
pub use dead_letter::{
    Body, CLASS_LEN_MAX, Cause, Content, Copied, DeadLetterCounts, DeadLetterOptions,
    DeadLetterReader, DeadLetterView, DeadLetters, LANE_LEN_MAX, LETTERS_MAX, Letter, Malformed,
    OnLettersFull, Origin, QUOTA_MIN, REASON_LEN_MAX, Stage, State, StoredLetter,
};
pub use error::Error;
pub use intent::{Intent, IntentFile, Known, Nonce, Owed, SENT_LETTERS_MAX, SentLetters};
pub use lane::{Lane, LaneView};
pub use lane_name::{LANE_NAME_LEN_MAX, LaneName, MAIN_CLUSTER, is_lane_name};
pub use options::{
    DEFAULT_LANE, LANES_MAX, LaneOptions, Order, StoreOptions, TENANT_HEADER, TenantOptions,
    WEIGHT_MAX,
};
pub use outcome::{Emptied, Settlement};
pub use parking::{PARKING_LOGS_MAX, ParkingLog};
pub use reader::{Entry, LaneReader, Undecodable};
pub use router::Routed;
#[doc(hidden)]
pub use schedule::reread_schedule;
pub use schedule::{SCHEDULE_QUOTA_MIN, SCHEDULED_MAX, ScheduleOptions, Scheduled};
pub use stream::Stream;
pub use told::Told;

use crate::{
    message::{Message, MessageRef},
    wal::{self, Keys, View},
};
use boots::Boots;
use clock::Clock;
use parking::Parking;
use router::Router;

/// The directory of the lanes.
const LANES: &str = "lanes";
/// Only the owner may read what a gateway has to say.
const DIRECTORY_MODE: u32 = 0o700;

/// A data directory, open for appending and settling. Only one at a time exists for a directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// `default` is the first: opened before all others and closed after them, so that its lock is
    /// the store's.
    lanes: Vec<Lane>,
    parking: Option<Parking>,
    dead_letters: dead_letter::Lazy,
    schedule: schedule::Lazy,
    router: Router,
    clock: Arc<Clock>,
}

impl Store {
    /// Opens the store in `dir`, or makes a new one where there is none, with the one lane `default`
    /// and those that are there already.
    ///
    /// # Errors
    ///
    /// As [`Store::open_with`].
    pub fn open(dir: impl AsRef<Path>, options: wal::Options) -> Result<Self, Error> {
        Self::open_with(dir, &StoreOptions::new(options))
    }

    /// Opens the store in `dir`, or makes a new one where there is none, with these lanes.
    ///
    /// A lane that is there and not among them is opened, too, so that it drains: see
    /// [`Lane::is_configured`]. Either all lanes are open after this or none is.
    ///
    /// # Errors
    ///
    /// [`Error::Options`] if the options are wrong, [`Error::NotAStore`] if `dir` holds something
    /// else: nothing was written there. [`Error::Io`] if a directory cannot be made or read,
    /// [`Error::Lane`] if a log refuses, which names its reason; [`wal::Error::Locked`] among them means
    /// that another process has the store.
    pub fn open_with(dir: impl AsRef<Path>, options: &StoreOptions) -> Result<Self, Error> {
        let dir = dir.as_ref();
        options.check()?;
        let router = Router::new(options)?;
        let lanes_dir = dir.join(LANES);
        if !lanes_dir.is_dir() && holds_something(dir)? {
            return Err(Error::NotAStore { path: dir.into() });
        }
        for name in router.names() {
            make_directory(&lanes_dir.join(name.to_string()))?;
        }
        // The names must outlive a power loss before anything in them is acknowledged, also when
        // the process that made them was killed before it came to this line.
        sync_directory(&lanes_dir)?;
        sync_directory(dir)?;
        match dir.canonicalize().ok().as_deref().and_then(Path::parent) {
            // A parent that may not be read was not written to by us either.
            Some(parent) if fs::read_dir(parent).is_ok() => sync_directory(parent)?,
            Some(_) | None => {}
        }
        // From here on a failure drops what is open already.
        let mut store = Self {
            dir: dir.into(),
            lanes: Vec::new(),
            parking: None,
            dead_letters: dead_letter::Lazy::new(dir, options),
            schedule: schedule::Lazy::new(dir, options),
            router,
            clock: Arc::new(Clock::open(dir, options.clock.clone())),
        };
        for name in store.router.names().to_vec() {
            let lane = options.of(&name);
            store.open_lane(&lanes_dir, name, lane, true)?;
        }
        for (text, name) in lanes_on_disk(&lanes_dir)? {
            if store.lane_named(&text).is_none() {
                store.open_lane(&lanes_dir, name, options.of_unnamed(), false)?;
            }
        }
        store.parking = Some(Parking::open(dir, &store.lanes)?);
        store.open_schedule()?;
        Ok(store)
    }

    /// What became of every record, in all lanes. One that was moved to a parking log is told by
    /// what became of it there; one that is due later is scheduled, until its lane has it.
    #[must_use]
    pub fn totals(&self) -> wal::Totals {
        let mut all = wal::Totals::default();
        self.lanes.iter().for_each(|lane| all.add(&lane.totals()));
        let parked: Vec<_> = self.parking_logs().map(ParkingLog::totals).collect();
        parked.iter().for_each(|totals| all.add(totals));
        // Counted in both logs. What only the parking log knows of is settled in its lane soon.
        let both = all
            .moved
            .min(parked.iter().map(|totals| totals.accepted).sum());
        all.moved -= both;
        all.accepted -= both;
        self.schedule.add_to(&mut all);
        all
    }

    /// The parking logs, oldest first.
    pub fn parking_logs(&self) -> impl Iterator<Item = &ParkingLog> {
        self.parking.iter().flat_map(Parking::logs)
    }

    /// The parking log for a partition of a lane, made where there is none; the one that the
    /// partitions of its topic share once there are [`PARKING_LOGS_MAX`]. `None`: there is no room
    /// for more.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Log`] if it cannot be made: nothing was moved.
    pub fn parking_log(
        &self,
        lane: &Lane,
        topic: &Arc<str>,
        partition: Option<u32>,
    ) -> Result<Option<&ParkingLog>, Error> {
        match &self.parking {
            Some(parking) => parking.log(lane, topic, partition),
            None => Ok(None),
        }
    }

    fn open_lane(
        &mut self,
        lanes_dir: &Path,
        name: LaneName,
        mut options: LaneOptions,
        is_configured: bool,
    ) -> Result<(), Error> {
        // Until the schedule has looked what it brought there.
        options.wal.keep_from = self.schedule.is_there().then_some(wal::SeqNo::ZERO);
        let clock = Arc::clone(&self.clock);
        let dir = lanes_dir.join(name.to_string());
        let lane = Lane::open(name, &dir, clock, options, is_configured)?;
        self.lanes.push(lane);
        Ok(())
    }

    /// What time it is: what [`Lane::age_of`] and [`Lane::is_expired`] are asked with. It reads the clocks,
    /// so once a turn is enough; the first time in a boot that the wall clock is right, it writes that
    /// down.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// The lane `default`.
    ///
    /// # Panics
    ///
    /// Never: every store has it.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        &self.lanes[0]
    }

    /// All lanes: `default`, the others that were asked for by name, then those that were only found.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The lane of this name, if there is one.
    #[must_use]
    pub fn lane_named(&self, name: &str) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.name() == name)
    }

    /// The lane that a topic's records go to that name no tenant: the one whose pattern fits it best,
    /// else `default`.
    #[must_use]
    pub fn route(&self, topic: &str) -> &Lane {
        &self.lanes[self.routed(&MessageRef::to(topic)).place]
    }

    /// Where a record goes: its lane, by its own word, or by its topic and tenant; and its topic in Kafka. It
    /// is appended with that one.
    #[must_use]
    #[inline]
    pub fn routed<'a>(&self, message: &MessageRef<'a>) -> Routed<'a> {
        self.router.route(message)
    }

    /// The tenant of a record that was appended, if it is one of the options, and the record's topic without
    /// that tenant's prefix.
    #[must_use]
    pub fn told_of<'a>(&self, message: &'a Message) -> (Option<&str>, &'a str) {
        self.router.told(&message.topic, message.headers())
    }

    /// The same of a record of which the topic alone is known.
    #[must_use]
    pub fn told_of_topic<'a>(&self, topic: &'a str) -> (Option<&str>, &'a str) {
        self.router.told(topic, std::iter::empty())
    }

    /// Writes and syncs everything, and leaves the mark of a clean end. Dropping a store does the
    /// same, but cannot tell of a failure.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if the last write or sync of a lane fails: then what was not acknowledged yet in
    /// it may be lost. The others are closed all the same.
    pub fn close(self) -> Result<(), Error> {
        self.shut()
    }

    /// [`close`](Self::close) where others still refer to the store: to wait for what was appended,
    /// or to look. From then on it takes nothing, and another one may have the directory.
    pub(crate) fn shut(&self) -> Result<(), Error> {
        // The time may have become known since the last look.
        self.clock.now();
        self.clock.boots().retire();
        let letters = self.dead_letters.opened();
        let mut closed = letters.map_or(Ok(()), DeadLetters::shut);
        closed = closed.and(self.schedule.shut());
        closed = closed.and(self.parking.as_ref().map_or(Ok(()), Parking::shut));
        // Backwards: who finds `default` unlocked finds all of them unlocked.
        for lane in self.lanes.iter().rev() {
            closed = closed.and(lane.shut());
        }
        closed
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.dead_letters.take());
        self.schedule.close();
        drop(self.parking.take());
        // As `shut`; behind it, this writes nothing.
        self.clock.now();
        // Backwards, as `close`: who finds `default` unlocked finds all of them unlocked.
        while self.lanes.pop().is_some() {}
    }
}

/// A look into a data directory: takes no lock, writes nothing, and works while another process
/// appends.
#[derive(Debug)]
pub struct StoreView {
    dir: PathBuf,
    keys: Keys,
    lanes: Vec<LaneView>,
}

impl StoreView {
    /// Opens the store in `dir` to look at it.
    ///
    /// # Errors
    ///
    /// [`Error::NoStore`] if there is none, [`Error::NotAStore`] if `dir` holds something else,
    /// [`Error::Lane`] if a log of it cannot be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(dir, Keys::none())
    }

    /// The same with the keys of what is encrypted in it: without them records of that cannot be read, but
    /// what became of them can be told, and every byte checked.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`wal::Error::Key`] of a lane that none of them opens.
    pub fn open_with(dir: impl AsRef<Path>, keys: Keys) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let lanes_dir = dir.join(LANES);
        if !lanes_dir.is_dir() {
            return Err(if holds_something(dir)? {
                Error::NotAStore { path: dir.into() }
            } else {
                Error::NoStore { path: dir.into() }
            });
        }
        let boots = Arc::new(Boots::load(dir));
        let mut lanes = Vec::new();
        for name in lanes_on_disk(&lanes_dir)?.into_keys() {
            match LaneView::open(
                &name,
                look(&lanes_dir.join(&name), &keys),
                Arc::clone(&boots),
            ) {
                Ok(lane) => lanes.push(lane),
                // It was only just made, or the process that made it died there: nothing is in it.
                Err(Error::Lane {
                    source: wal::Error::NotALog { .. },
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        if lanes.is_empty() {
            return Err(Error::NoStore { path: dir.into() });
        }
        Ok(Self {
            dir: dir.into(),
            keys,
            lanes,
        })
    }

    /// A look at one log, with the keys.
    fn look(&self, dir: &Path) -> Result<View, wal::Error> {
        look(dir, &self.keys)
    }

    /// The lanes, by name.
    #[must_use]
    pub fn lanes(&self) -> &[LaneView] {
        &self.lanes
    }
}

/// A look at a log. Keys that open nothing are an error, none at all is not.
fn look(dir: &Path, keys: &Keys) -> Result<View, wal::Error> {
    let view = View::open(dir)?;
    match keys.is_none() {
        true => Ok(view),
        false => view.with_keys(keys.clone()),
    }
}

/// The lanes that have a directory. One of another name is none of ours.
fn lanes_on_disk(lanes_dir: &Path) -> Result<BTreeMap<String, LaneName>, Error> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(lanes_dir).map_err(io_error("read the directory", lanes_dir))? {
        let entry = entry.map_err(io_error("read the directory", lanes_dir))?;
        let name = entry.file_name().into_string().ok();
        if let Some(name) = name.and_then(|name| LaneName::parse(&name))
            && entry.path().is_dir()
        {
            names.insert(name.to_string(), name);
        }
    }
    Ok(names)
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

/// Makes a directory of the store, with those above it.
fn make_directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
        .map_err(io_error("make the directory", path))
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
