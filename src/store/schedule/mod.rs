//! The schedule log: records that are due later, kept until they are.
//!
//! Owns the log in `schedule/` beside the lanes: records that wait, and marks that say which of them
//! went to their lane ([`codec`]). It must not know who sends, nor what becomes of a record in its lane.
//!
//! - A record keeps the number it got here first, its *id*, wherever its bytes stand.
//! - It goes to its lane once, over crashes: `fire` has the order of steps.
//! - What waits is what the entries say, derived by reading the log once when it is opened. The log's
//!   own settlement means nothing but space: everything in front of the oldest record that waits is
//!   void.
//!
//! Space comes back from the front, so what waits for long is appended again (`space`).
//!
//! Order of locks: firing -> writing -> state. The log is never called with `state` held.

mod codec;
mod due;
mod fire;
mod index;
mod lazy;
mod round;
mod space;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::HashMap, path::Path, time::Duration};

use parking_lot::Mutex;

#[doc(hidden)]
pub use codec::reread as reread_schedule;
pub(super) use lazy::{Fired, Lazy};
pub use space::{SCHEDULE_QUOTA_MIN, SCHEDULED_MAX, ScheduleOptions};

use super::{Error, Lane, Now, boots::Boots, clock::Clock, outcome::Origins};
use crate::{
    message::MessageRef,
    wal::{self, Record, SeqNo, Ticket, Wal, Watch},
};
use codec::{Entry, Foreign, VERSION};
use due::{Accepted, Times};
use fire::Firing;
use index::{Index, Slip};

/// The directory of the schedule log.
pub(super) const SCHEDULE: &str = "schedule";

/// How long who does not wait gives others to append theirs: far longer than that takes, and shorter than
/// any sync that they may wait for.
const TURN: Duration = Duration::from_millis(1);

/// What one who appends waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Patience {
    /// Nothing.
    None,
    /// Whoever appends now; not for memory.
    ForTurn,
    /// Memory, too.
    ForRoom,
}

/// What waits for its time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Scheduled {
    /// Records that wait.
    pub waiting: u64,
    /// When the next of them is due, in milliseconds since 1970 by the machine's clock as it is now;
    /// `None`: nothing waits.
    pub next_millis: Option<i64>,
    /// How many of them cannot become due before the wall clock can be trusted, which it cannot now.
    pub need_clock: u64,
    /// Numbers of the log that the disk does not give any more. Each may have been a record that waited.
    pub lost: u64,
    /// Bytes of the records that wait.
    pub bytes: u64,
    /// Why what is due does not get to its lane, if it does not.
    pub why: Option<String>,
}

/// The schedule log of a store, open for appending. Threads share it by reference.
#[derive(Debug)]
pub(super) struct Schedule {
    wal: Wal,
    quota_bytes: u64,
    segment_size: u64,
    /// What is on its way to a lane; held by who fires.
    firing: Mutex<Option<Firing>>,
    /// Held while entries are appended: over a sync only where memory is short, or records are appended
    /// again.
    writing: Mutex<()>,
    state: Mutex<State>,
    /// Who waits for a record to be fired, by its id.
    watch: Watch,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    lanes: Lanes,
    /// How many in the index stand in their lane already.
    in_lane: usize,
    /// By place of the lane: where what was fired since the log was opened stands there.
    fired: HashMap<usize, Origins>,
    /// What waited and the disk does not give any more, each standing for itself; the oldest are forgotten.
    lost: Origins,
    /// Those of them that nobody told yet who waits for them.
    untold: Vec<u64>,
    /// Why the first record is held that its lane refused for good.
    held: Option<String>,
}

impl State {
    /// Why some are held, if some are.
    fn why_held(&self) -> Option<String> {
        let first = self.held.as_ref()?;
        match self.index.held() {
            0 => None,
            1 => Some(first.clone()),
            count => Some(format!("{first}; others like it: {}", count - 1)),
        }
    }
}

/// The names of the lanes that entries speak of, each with a place.
#[derive(Debug, Default)]
struct Lanes(Vec<String>);

impl Lanes {
    fn place(&mut self, name: &str) -> usize {
        let known = self.0.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        })
    }

    fn name(&self, place: usize) -> &str {
        self.0.get(place).map_or("", String::as_str)
    }
}

/// Where a record is that was scheduled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Whereabouts {
    /// It is not due yet, or about to be fired.
    Waits,
    /// It was fired since the store was opened.
    InLane { lane: String, seq: SeqNo },
    /// It waited, and the disk does not give it any more.
    Lost,
    /// It was fired before, or so many were since that it is not known any more.
    Forgotten,
}

/// What the entries of a log say, one after the other.
#[derive(Debug, Default)]
struct Told {
    index: Index,
    lanes: Lanes,
    /// A firing that was announced, and not said to be over.
    open: Option<Announced>,
}

/// A firing as it was announced.
#[derive(Debug)]
struct Announced {
    number: SeqNo,
    lane: String,
    from: SeqNo,
    ids: Vec<u64>,
}

impl Told {
    fn take_in(&mut self, record: &Record, opened: &Now, boots: &Boots) -> Result<(), Foreign> {
        match codec::decode(&record.payload)? {
            Entry::Scheduled(scheduled) => {
                let slip = Slip {
                    seq: record.seq,
                    times: Times::of(scheduled.due, scheduled.accepted, opened, boots),
                    lane: self.lanes.place(&scheduled.lane),
                    len: record.payload.len() as u64,
                };
                self.index
                    .insert(scheduled.id.unwrap_or(record.seq.get()), slip);
            }
            // One without an end, with another behind it, was never appended to its lane.
            Entry::Firing { lane, from, ids } => {
                self.open = Some(Announced {
                    number: record.seq,
                    lane,
                    from,
                    ids,
                });
            }
            Entry::Fired { firing } => {
                if let Some(open) = self.open.take_if(|open| open.number == firing) {
                    open.ids.iter().for_each(|id| self.index.remove(*id));
                }
            }
            Entry::CalledOff { firing } => {
                self.open.take_if(|open| open.number == firing);
            }
        }
        Ok(())
    }
}

/// Entries of another version stop whoever reads them: to pass over one might lose a record.
fn foreign(dir: &Path, record: &Record) -> Error {
    let start = record.payload.get(..2).unwrap_or_default();
    wal::Error::Version {
        path: dir.into(),
        found: format!(
            "entry {} begins with {start:?}, version {VERSION} is known here",
            record.seq
        ),
    }
    .into()
}

impl Schedule {
    /// Opens the log in `dir`, or makes a new one. Reads it once.
    fn open(
        dir: &Path,
        options: ScheduleOptions,
        wal: &wal::Options,
        clock: &Clock,
    ) -> Result<Self, Error> {
        let segment_size = space::segment_size(options.quota_bytes)?;
        let wal = Wal::open(dir, space::wal_options(segment_size, wal))?;
        let (mut told, opened) = (Told::default(), clock.now());
        let mut reader = wal.reader(wal.marks().first);
        loop {
            match reader.next() {
                Ok(Some(record)) => told
                    .take_in(&record, &opened, clock.boots())
                    .map_err(|Foreign| foreign(dir, &record))?,
                Ok(None) => break,
                // What cannot be read is lost with cause and count; what is behind it is not.
                Err(wal::Error::Corrupt { .. }) => {
                    wal.give_up(&mut reader)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let firing = told.open.map(Firing::found);
        let schedule = Self {
            wal,
            quota_bytes: options.quota_bytes,
            segment_size,
            writing: Mutex::default(),
            state: Mutex::new(State {
                index: told.index,
                lanes: told.lanes,
                ..State::default()
            }),
            firing: Mutex::new(firing),
            watch: Watch::default(),
        };
        Ok(schedule)
    }

    /// Takes messages for a lane, all or none: they wait until each is due. The ticket's numbers are
    /// their ids. True: one of them is due before all that waited.
    fn add(
        &self,
        lane: &Lane,
        messages: &[MessageRef<'_>],
        clock: &Clock,
        patience: Patience,
    ) -> Result<(Ticket<'_>, bool), Error> {
        let added = self.append(lane, messages, clock, patience);
        // Making room may have found some lost.
        self.tell_lost();
        added
    }

    fn append(
        &self,
        lane: &Lane,
        messages: &[MessageRef<'_>],
        clock: &Clock,
        patience: Patience,
    ) -> Result<(Ticket<'_>, bool), Error> {
        let now = clock.now();
        let accepted = Accepted::at(&now);
        let mut entries = Vec::with_capacity(messages.len());
        let mut waits = Vec::with_capacity(messages.len());
        for message in messages {
            message.check()?;
            let due = message.due.unwrap_or(crate::message::Due::After(0));
            let bytes = codec::message(message);
            lane.check_len(bytes.len())?;
            let scheduled = codec::Scheduled {
                id: None,
                due,
                accepted,
                lane: lane.name().into(),
                message: bytes.into(),
            };
            let entry = codec::encode(&Entry::Scheduled(scheduled));
            let times = Times::of(due, accepted, &now, clock.boots());
            waits.push((times, entry.len() as u64));
            entries.push(entry);
        }
        let _writing = match patience {
            Patience::None => self.writing.try_lock_for(TURN).ok_or(wal::Error::Busy)?,
            Patience::ForTurn | Patience::ForRoom => self.writing.lock(),
        };
        self.make_room(entries.len())?;
        let ticket = match patience {
            Patience::ForRoom => self.wal.append_batch(&entries),
            Patience::None | Patience::ForTurn => self.wal.try_append_batch(&entries),
        }?;
        let mut state = self.state.lock();
        let place = state.lanes.place(lane.name());
        let (count, next) = (state.index.len(), state.index.upcoming(&now));
        let is_due = waits.iter().any(|(times, _)| times.overdue(&now).is_some());
        for (seq, (times, len)) in (ticket.seq().get()..).zip(waits) {
            let slip = Slip {
                seq: SeqNo::new(seq),
                times,
                lane: place,
                len,
            };
            state.index.insert(seq, slip);
        }
        let is_next = match (state.index.upcoming(&now), next) {
            (Some(now), Some(before)) => now < before,
            (now, _) => now.is_some(),
        };
        Ok((ticket, count == 0 || is_due || is_next))
    }

    /// Records that wait, and numbers that the disk does not give any more.
    fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        let waiting = (state.index.len() - state.in_lane) as u64;
        drop(state);
        (waiting, self.wal.totals().lost)
    }

    fn scheduled(&self, now: &Now) -> Scheduled {
        let (waiting, lost) = self.counts();
        let state = self.state.lock();
        Scheduled {
            waiting,
            lost,
            ..look(&state.index, now)
        }
    }

    /// What became of a record.
    fn find(&self, id: SeqNo) -> Whereabouts {
        let state = self.state.lock();
        let mut fired = state.fired.iter();
        let fired = fired.find_map(|(lane, at)| Some((*lane, at.get(id)?)));
        if let Some((lane, seq)) = fired {
            let lane = state.lanes.name(lane).to_owned();
            return Whereabouts::InLane { lane, seq };
        }
        match state.index.get(id.get()) {
            Some(_) => Whereabouts::Waits,
            None if state.lost.get(id).is_some() => Whereabouts::Lost,
            None => Whereabouts::Forgotten,
        }
    }

    /// The disk does not give a record any more that waits: it is lost, and counted by the log. Who calls
    /// this calls [`tell_lost`](Self::tell_lost) once it holds no lock.
    fn lose(&self, id: u64) {
        let mut state = self.state.lock();
        state.index.remove(id);
        state.lost.note(SeqNo::new(id), SeqNo::new(id));
        state.untold.push(id);
    }

    fn tell_lost(&self) {
        let untold = std::mem::take(&mut self.state.lock().untold);
        self.wake(&untold);
    }

    /// Tells who waits for these records to look at them. To be called where no lock but `firing` is held: a
    /// waker is the program's own code.
    fn wake(&self, ids: &[u64]) {
        for id in ids {
            if !self.watch.is_watched() {
                break;
            }
            let id = SeqNo::new(*id);
            self.watch.wake(id..id + 1);
        }
    }

    fn shut(&self) -> Result<(), Error> {
        let shut = self.wal.shut();
        self.watch.wake_all();
        Ok(shut?)
    }
}

/// What an index says to a person.
fn look(index: &Index, now: &Now) -> Scheduled {
    let (by_wall, only_by_wall) = index.by_wall();
    let next = index.next(now).map(|left| {
        let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
        now.reading.wall_millis.saturating_add(left)
    });
    let need_clock = if now.is_trusted { 0 } else { only_by_wall };
    Scheduled {
        waiting: index.len() as u64,
        next_millis: next.or(by_wall),
        need_clock,
        bytes: index.bytes(),
        ..Scheduled::default()
    }
}
