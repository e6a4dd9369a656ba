//! When the schedule log of a store is opened, and who brings what is due to its lane.
//!
//! Owns the moment of opening: with the store, or with the first record where there is none yet. It
//! must not know what is in the log.
//!
//! Invariants: a store in which nothing was ever due later has no such directory, and nothing of this is
//! on its way. Nothing is fired but by who calls for it: opening a store leaves what is due waiting.

use std::{
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use super::{Patience, SCHEDULE, Schedule, ScheduleOptions, Scheduled, Whereabouts};
use crate::{
    message::{Due, MessageRef},
    store::{Error, Lane, Store, StoreOptions, clock::Clock, make_directory, sync_directory},
    wal::{self, Class, LogId, SeqNo, Ticket, Totals, Watched},
};

/// Longest pause while anything waits: so soon a clock that was set, or a machine that slept, is noticed.
/// Also the pause after an error, and where what is due cannot go to its lane.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A schedule log that may not be open yet.
#[derive(Debug)]
pub(in crate::store) struct Lazy {
    store: PathBuf,
    options: ScheduleOptions,
    wal: wal::Options,
    pub(super) open: OnceLock<Schedule>,
    /// Held while it is opened; whether it is never to be again.
    opening: Mutex<bool>,
    bell: Bell,
    /// Why not all that was due went to its lane the last time.
    why: Mutex<Option<String>>,
}

/// Where a scheduled record is that waits no more.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Fired<'a> {
    /// In this lane.
    To(&'a Lane, SeqNo),
    /// In none, as far as is known: this became of it.
    Never(Class),
}

/// Rung when something may be due earlier than thought.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    ringing: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock() = true;
        self.ringing.notify_all();
    }

    /// Waits until it rings, or for so long.
    fn wait(&self, pause: Option<Duration>) {
        let mut rung = self.rung.lock();
        if !*rung {
            match pause {
                Some(pause) => drop(self.ringing.wait_for(&mut rung, pause)),
                None => self.ringing.wait(&mut rung),
            }
        }
        *rung = false;
    }
}

impl Lazy {
    /// Of the store in this directory: what it has in common with a lane is as `default` has it.
    pub(in crate::store) fn new(store: &Path, options: &StoreOptions) -> Self {
        Self {
            store: store.into(),
            options: options.schedule,
            wal: options.default.wal.clone(),
            open: OnceLock::new(),
            opening: Mutex::default(),
            bell: Bell::default(),
            why: Mutex::default(),
        }
    }

    /// Whether there is a log.
    pub(in crate::store) fn is_there(&self) -> bool {
        self.store.join(SCHEDULE).is_dir()
    }

    /// The log, made now if there is none.
    fn get(&self, clock: &Clock) -> Result<&Schedule, Error> {
        if let Some(schedule) = self.open.get() {
            return Ok(schedule);
        }
        let is_shut = self.opening.lock();
        if *is_shut {
            return Err(wal::Error::Closed.into());
        }
        if let Some(schedule) = self.open.get() {
            return Ok(schedule);
        }
        let dir = self.store.join(SCHEDULE);
        make_directory(&dir)?;
        sync_directory(&self.store)?;
        let schedule = Schedule::open(&dir, self.options, &self.wal, clock)?;
        Ok(self.open.get_or_init(|| schedule))
    }

    /// Adds what waits to what became of all records.
    pub(in crate::store) fn add_to(&self, totals: &mut Totals) {
        if let Some(schedule) = self.open.get() {
            let (waiting, lost) = schedule.counts();
            totals.accepted += waiting + lost;
            totals.scheduled += waiting;
            totals.lost += lost;
        }
    }

    /// Writes, syncs and closes the log.
    pub(in crate::store) fn shut(&self) -> Result<(), Error> {
        *self.opening.lock() = true;
        self.open.get().map_or(Ok(()), Schedule::shut)
    }

    /// Closes the log for good.
    pub(in crate::store) fn close(&mut self) {
        drop(self.open.take());
    }
}

impl Store {
    /// Opens the schedule log, if there is one, and decides about what was on its way to a lane.
    pub(in crate::store) fn open_schedule(&self) -> Result<(), Error> {
        if self.schedule.is_there() {
            self.schedule.get(&self.clock)?.resolve(&self.lanes)?;
        }
        Ok(())
    }

    /// Whether something that is due then is so now: it needs no schedule.
    #[must_use]
    pub fn is_due(&self, due: Due) -> bool {
        match due {
            Due::After(millis) => millis == 0,
            Due::At(millis) => {
                let now = self.now();
                now.is_trusted && now.reading.wall_millis >= millis
            }
        }
    }

    /// Takes messages that are due later, for a lane, all or none of them: each waits in the schedule log,
    /// over restarts, until it is due, and goes to the lane then. The numbers of the ticket are theirs in
    /// that log. One without a due time is due at once.
    ///
    /// In the lane the order is that of firing: the longest overdue first. What is left open in a message
    /// counts from there: its timestamp, and the age by which it expires. Nothing is fired but by
    /// [`fire_due`](Self::fire_due) and [`fire_until`](Self::fire_until).
    ///
    /// # Errors
    ///
    /// Nothing was taken. [`Error::ScheduleFull`], or [`wal::Error::Full`]: come again later.
    /// [`Error::Invalid`] and [`wal::Error::TooLarge`]: it can never be taken. [`Error::Io`] or another
    /// [`Error::Log`]: the log cannot be made, or takes nothing more.
    ///
    /// # Panics
    ///
    /// Panics if there are no messages.
    pub fn schedule(&self, lane: &Lane, messages: &[MessageRef<'_>]) -> Result<Ticket<'_>, Error> {
        self.add_to_schedule(lane, messages, Patience::ForRoom)
    }

    /// [`schedule`](Self::schedule) that does not block.
    ///
    /// # Errors
    ///
    /// As [`schedule`](Self::schedule), and [`wal::Error::Busy`] where that would block.
    ///
    /// # Panics
    ///
    /// As [`schedule`](Self::schedule).
    pub fn try_schedule(
        &self,
        lane: &Lane,
        messages: &[MessageRef<'_>],
    ) -> Result<Ticket<'_>, Error> {
        self.add_to_schedule(lane, messages, Patience::None)
    }

    /// [`try_schedule`](Self::try_schedule) that waits for its turn where others append at the same time, but
    /// not for memory.
    ///
    /// # Errors
    ///
    /// As [`try_schedule`](Self::try_schedule).
    ///
    /// # Panics
    ///
    /// As [`schedule`](Self::schedule).
    pub fn schedule_in_turn(
        &self,
        lane: &Lane,
        messages: &[MessageRef<'_>],
    ) -> Result<Ticket<'_>, Error> {
        self.add_to_schedule(lane, messages, Patience::ForTurn)
    }

    fn add_to_schedule(
        &self,
        lane: &Lane,
        messages: &[MessageRef<'_>],
        patience: Patience,
    ) -> Result<Ticket<'_>, Error> {
        let schedule = self.schedule.get(&self.clock)?;
        let (ticket, is_next) = schedule.add(lane, messages, &self.clock, patience)?;
        if is_next {
            self.schedule.bell.ring();
        }
        Ok(ticket)
    }

    /// Brings what is due to its lane now, or until `stop`; returns how many records that was. Waits for
    /// syncs, never for space. A record that its lane cannot take any more, or whose lane is gone, waits on:
    /// [`scheduled`](Self::scheduled) says why.
    ///
    /// # Errors
    ///
    /// [`Error::Log`]: what stands in the way, in the schedule log or a lane, where others have what is
    /// theirs. Nothing is lost by it, and nothing is fired twice: call it again.
    pub fn fire_due(&self, stop: &AtomicBool) -> Result<u64, Error> {
        let Some(schedule) = self.schedule.open.get() else {
            return Ok(0);
        };
        let fired = schedule.fire(&self.lanes, || self.clock.now(), stop);
        let error = fired.as_ref().err().map(ToString::to_string);
        let waits = schedule.why_waits(&self.lanes, &self.clock.now());
        let why: Vec<String> = error.into_iter().chain(waits).collect();
        *self.schedule.why.lock() = (!why.is_empty()).then(|| why.join("; "));
        fired
    }

    /// Brings each record to its lane when it is due, until `stop` is set and
    /// [`wake_schedule`](Self::wake_schedule) called. Sleeps until the next one is due, for at most a second
    /// while anything waits, because a clock may be set. An error is told by
    /// [`scheduled`](Self::scheduled), and tried again.
    pub fn fire_until(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            // What was due by then has been tried: where it waits all the same, it does so for a pause.
            let begun = self.now();
            let pause = match self.fire_due(stop) {
                Ok(_) => self.schedule.open.get().and_then(|schedule| {
                    let state = schedule.state.lock();
                    let next = state.index.upcoming(&begun);
                    (state.index.len() > 0).then(|| next.unwrap_or(PAUSE_MAX).min(PAUSE_MAX))
                }),
                Err(_) => Some(PAUSE_MAX),
            };
            self.schedule.bell.wait(pause);
        }
    }

    /// Has [`fire_until`](Self::fire_until) look at the clock, and whether it is to stop.
    pub fn wake_schedule(&self) {
        self.schedule.bell.ring();
    }

    /// What waits for its time.
    #[must_use]
    pub fn scheduled(&self) -> Scheduled {
        let scheduled = self.schedule.open.get();
        let scheduled = scheduled.map(|schedule| schedule.scheduled(&self.now()));
        Scheduled {
            why: self.schedule.why.lock().clone(),
            ..scheduled.unwrap_or_default()
        }
    }

    /// Where a record is that was scheduled since the store was opened; `None`: it waits, it was lost, or it
    /// is not known any more.
    #[must_use]
    pub fn fired(&self, number: SeqNo) -> Option<(&Lane, SeqNo)> {
        match self.where_now(number).ok()?? {
            Fired::To(lane, seq) => Some((lane, seq)),
            Fired::Never(_) => None,
        }
    }

    /// [`outcome`](Self::outcome) of a record that was scheduled since the store was opened; `None` while it
    /// waits, too. [`Class::Lost`]: the disk lost it while it waited.
    ///
    /// # Errors
    ///
    /// As [`outcome`](Self::outcome).
    pub fn outcome_of_scheduled(&self, number: SeqNo) -> Result<Option<Class>, Error> {
        match self.where_now(number)? {
            Some(Fired::To(lane, seq)) => self.outcome(lane, seq),
            Some(Fired::Never(class)) => Ok(Some(class)),
            None => Ok(None),
        }
    }

    /// A ticket for what was scheduled since the store was opened, to wait for it again; `None`: nothing was.
    #[must_use]
    pub fn ticket_of_scheduled(&self, range: std::ops::Range<SeqNo>) -> Option<Ticket<'_>> {
        let schedule = self.schedule.open.get()?;
        Some(schedule.wal.ticket_of(range))
    }

    /// The oldest entry of the schedule log that is not on disk yet, if there is one: its sync gives room.
    #[must_use]
    pub fn unsynced_scheduled(&self) -> Option<Ticket<'_>> {
        let wal = &self.schedule.open.get()?.wal;
        let marks = wal.marks();
        (marks.durable < marks.next).then(|| wal.ticket_of(marks.durable..marks.durable + 1))
    }

    /// What of the schedule log is not on disk yet, if there is any.
    #[must_use]
    pub fn all_unsynced_scheduled(&self) -> Option<Ticket<'_>> {
        let wal = &self.schedule.open.get()?.wal;
        let marks = wal.marks();
        (marks.durable < marks.next).then(|| wal.ticket_of(marks.durable..marks.next))
    }

    /// The identity of the schedule log, if there is one.
    #[must_use]
    pub fn schedule_id(&self) -> Option<LogId> {
        Some(self.schedule.open.get()?.wal.log_id())
    }

    /// Waits until everything that was scheduled before is on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if a write or sync failed.
    pub fn sync_schedule(&self) -> Result<(), Error> {
        if let Some(schedule) = self.schedule.open.get() {
            schedule.wal.sync()?;
        }
        Ok(())
    }

    /// Why the schedule log takes nothing more until the store is opened again, if that is so.
    #[must_use]
    pub fn schedule_failure(&self) -> Option<String> {
        self.schedule.open.get()?.wal.failure()
    }

    /// Where a scheduled record stands, once it was fired, or what became of it else; `None` while it waits.
    fn where_now(&self, number: SeqNo) -> Result<Option<Fired<'_>>, Error> {
        let unknown = Fired::Never(Class::Unknown);
        let Some(schedule) = self.schedule.open.get() else {
            return Ok(Some(unknown));
        };
        Ok(Some(match schedule.find(number) {
            Whereabouts::InLane { lane, seq } => {
                let lane = self.lane_named(&lane);
                lane.map_or(unknown, |lane| Fired::To(lane, seq))
            }
            Whereabouts::Lost => Fired::Never(Class::Lost),
            Whereabouts::Forgotten => unknown,
            // Whoever closes the log wakes those who registered before that.
            Whereabouts::Waits if schedule.wal.is_shut() => {
                return Err(wal::Error::Closed.into());
            }
            Whereabouts::Waits => return Ok(None),
        }))
    }

    /// The same for a future, which is woken while it waits.
    pub(in crate::store) fn poll_fired<'a>(
        &'a self,
        number: SeqNo,
        watched: &mut Option<Watched<'a>>,
        waker: &Waker,
    ) -> Result<Poll<Fired<'a>>, Error> {
        let mut found = self.where_now(number)?;
        if found.is_none()
            && let Some(schedule) = self.schedule.open.get()
        {
            // Anew each time: who was woken stands in the list no more. Then it is looked at once more: it
            // may have been fired before this.
            *watched = Some(schedule.watch.add(number, waker));
            found = self.where_now(number)?;
        }
        Ok(found.map_or(Poll::Pending, Poll::Ready))
    }
}
