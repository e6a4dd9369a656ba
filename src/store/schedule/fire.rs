//! From the schedule log to the lane, once.
//!
//! Owns the order of steps, one batch of one lane at a time:
//!
//! 1. `firing`, with the ids and the lane's end, durable in the schedule log; from before then on the
//!    lane lets nothing from that end on leave its disk;
//! 2. the records, as one batch, durable in the lane, each with its id;
//! 3. `fired`, durable in the schedule log; then the lane may release.
//!
//! A crash before 1 is durable left nothing; behind 3 nothing is open. In between the lane is read from
//! the end that 1 names: the batch is there, whole, or it never will be, because nobody appends it but
//! for a `firing` of its own. It must not know clocks beyond asking what is due.
//!
//! Invariants: what was begun is brought to an end before anything else is begun, also after an error;
//! a record is in the index until it is durable that it was fired. Nothing here waits for space.

use std::{
    future::Future,
    ops::Range,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use super::{
    Announced, Schedule,
    codec::{self, Entry},
    round::{Round, named},
};
use crate::{
    message::{
        Header, Message,
        codec::{DecodeError, decode},
    },
    store::{Error, Lane, LaneReader, Now},
    wal::{self, Durability, SeqNo, wait::with_thread_waker},
};

/// How often a wait looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(100);

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Firing {
    number: SeqNo,
    pub(super) lane: String,
    from: SeqNo,
    pub(super) ids: Vec<u64>,
    state: Progress,
}

/// How far it is known to have come.
#[derive(Debug)]
enum Progress {
    /// Announced by a process that did not come to an end.
    Found,
    /// Announced, durably; these are the messages.
    Announced(Vec<Message>),
    /// In the lane, at these numbers.
    Appended(Range<SeqNo>),
    /// In the lane, durably; or it never will be.
    Known { is_there: bool },
}

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Another one follows.
    Taken,
    /// It was the last.
    Last,
    /// It was told to stop before.
    Stopped,
}

impl Firing {
    /// One that the log told of when it was opened.
    pub(super) fn found(announced: Announced) -> Self {
        Self {
            number: announced.number,
            lane: announced.lane,
            from: announced.from,
            ids: announced.ids,
            state: Progress::Found,
        }
    }
}

impl Schedule {
    /// Decides about a firing that was cut short, before anybody else appends to its lane; then has all
    /// lanes release what they kept for that. Where there is no space to write it down, that lane keeps
    /// its records until there is.
    pub(super) fn resolve(&self, lanes: &[Lane]) -> Result<(), Error> {
        let mut firing = self.firing.lock();
        for lane in lanes {
            let open = firing.as_ref().filter(|open| open.lane == lane.name());
            lane.keep_from(open.map(|open| open.from));
        }
        let Some(open) = firing.as_mut() else {
            return Ok(());
        };
        let lane = named(lanes, &open.lane);
        let is_there = match lane {
            Some(lane) => is_there(|from| lane.reader(from), open.from, &open.ids)?,
            None => false,
        };
        if is_there {
            self.state.lock().in_lane = open.ids.len();
        }
        open.state = Progress::Known { is_there };
        match self.conclude(open, lane) {
            Ok(()) => *firing = None,
            // It is decided; saying so can wait for space.
            Err(Error::Log(error)) if error.is_full() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Brings what is due to its lane, until nothing is, or `stop`. Returns how many records that was.
    ///
    /// # Errors
    ///
    /// What stands in the way, of a lane once the others have what is theirs. What was begun is gone on with
    /// by the next call.
    pub(super) fn fire(
        &self,
        lanes: &[Lane],
        now: impl Fn() -> Now,
        stop: &AtomicBool,
    ) -> Result<u64, Error> {
        let mut firing = self.firing.lock();
        let (mut fired, mut round) = (0, Round::default());
        while !stop.load(Ordering::SeqCst) {
            if firing.is_none() {
                *firing = self.begin(lanes, &now(), &round)?;
            }
            let Some(open) = firing.as_mut() else {
                break;
            };
            let lane = named(lanes, &open.lane);
            let is_announced = matches!(open.state, Progress::Announced(_));
            match self.step(open, lane, stop) {
                Ok(Step::Taken) if is_announced => fired += open.ids.len() as u64,
                Ok(Step::Taken) => {}
                Ok(Step::Last) => {
                    let fired = firing.take();
                    let writing = self.writing.lock();
                    let tidied = self.tidy();
                    drop(writing);
                    // Whoever was told of so many others that this one was forgotten hears so, too.
                    fired.iter().for_each(|fired| self.wake(&fired.ids));
                    self.tell_lost();
                    tidied?;
                }
                Ok(Step::Stopped) => break,
                // What was not appended to its lane does not stand in the way of anything else.
                Err(error) if is_announced => {
                    open.state = Progress::Known { is_there: false };
                    self.conclude(open, lane)?;
                    self.refused(open, error, &mut round);
                    *firing = None;
                }
                Err(error) => return Err(error),
            }
        }
        round.ended().map(|()| fired)
    }

    /// Announces the next batch.
    pub(super) fn begin(
        &self,
        lanes: &[Lane],
        now: &Now,
        round: &Round,
    ) -> Result<Option<Firing>, Error> {
        while let Some((lane, batch)) = self.next_batch(lanes, now, round) {
            let taken = self.read_batch(batch)?;
            if taken.is_empty() {
                continue;
            }
            let (ids, messages): (Vec<u64>, _) = taken.into_iter().unzip();
            let from = lane.marks().next;
            lane.keep_from(Some(from));
            let announced = self.announce(lane.name(), from, &ids);
            let number = announced.inspect_err(|_| lane.keep_from(None))?;
            return Ok(Some(Firing {
                number,
                lane: lane.name().into(),
                from,
                ids,
                state: Progress::Announced(messages),
            }));
        }
        Ok(None)
    }

    /// The ids and messages of a batch, in its order, but for those that the disk does not give any more.
    fn read_batch(&self, batch: Vec<(SeqNo, u64)>) -> Result<Vec<(u64, Message)>, Error> {
        let ordered = batch.into_iter().enumerate();
        let mut batch: Vec<_> = ordered.map(|(order, (seq, id))| (seq, id, order)).collect();
        batch.sort_unstable();
        let seqs: Vec<SeqNo> = batch.iter().map(|(seq, ..)| *seq).collect();
        // Only a tidying up moves what waits, and none begins while something is fired.
        if seqs.last() >= Some(&self.wal.marks().durable) {
            self.wal.sync()?;
        }
        let mut read = Vec::with_capacity(batch.len());
        for (entry, (_, id, order)) in self.read(&seqs)?.into_iter().zip(&batch) {
            match entry.map(|entry| message(&entry)) {
                Some(Ok(message)) => read.push((*order, *id, message)),
                // What is no message was never taken in.
                Some(Err(_)) | None => self.lose(*id),
            }
        }
        self.tell_lost();
        read.sort_unstable_by_key(|(order, ..)| *order);
        let read = read.into_iter();
        Ok(read.map(|(_, id, message)| (id, message)).collect())
    }

    /// Step 1. Where it fails the entry may become durable all the same: it is one without an end, and
    /// nothing was appended for it.
    fn announce(&self, lane: &str, from: SeqNo, ids: &[u64]) -> Result<SeqNo, Error> {
        let entry = Entry::Firing {
            lane: lane.into(),
            from,
            ids: ids.to_vec(),
        };
        self.write_down(&entry)
    }

    /// Takes a firing one step on.
    pub(super) fn step(
        &self,
        open: &mut Firing,
        lane: Option<&Lane>,
        stop: &AtomicBool,
    ) -> Result<Step, Error> {
        open.state = match (&open.state, lane) {
            (Progress::Known { .. }, lane) => {
                self.conclude(open, lane)?;
                return Ok(Step::Last);
            }
            // No lane goes while the store is open.
            (Progress::Found, _) | (_, None) => return Ok(Step::Stopped),
            (Progress::Announced(messages), Some(lane)) => {
                let Some(range) = append(lane, &open.ids, messages, stop)? else {
                    return Ok(Step::Stopped);
                };
                self.note(open, lane, &range);
                Progress::Appended(range)
            }
            (Progress::Appended(range), Some(lane)) => {
                if !is_on_disk(lane, range.clone(), stop)? {
                    return Ok(Step::Stopped);
                }
                Progress::Known { is_there: true }
            }
        };
        Ok(Step::Taken)
    }

    /// Tells who waits for these records where they stand now.
    fn note(&self, open: &Firing, lane: &Lane, range: &Range<SeqNo>) {
        let mut state = self.state.lock();
        let place = state.lanes.place(lane.name());
        state.in_lane = open.ids.len();
        let fired = state.fired.entry(place).or_default();
        for (id, seq) in open.ids.iter().zip(range.start.get()..) {
            fired.note(SeqNo::new(*id), SeqNo::new(seq));
        }
        drop(state);
        self.wake(&open.ids);
    }

    /// Appends a mark, and waits until it is on disk. Meanwhile others may append: what they append means
    /// the same in front of a mark as behind it. Not so a record that is appended again, which waits anew if
    /// it stands behind *fired*; but only a tidying up does that, and none begins while something is fired.
    fn write_down(&self, mark: &Entry) -> Result<SeqNo, Error> {
        let writing = self.writing.lock();
        let number = self.wal.append(&codec::encode(mark))?.seq();
        drop(writing);
        self.wal.sync()?;
        Ok(number)
    }

    /// Step 3.
    fn conclude(&self, open: &Firing, lane: Option<&Lane>) -> Result<(), Error> {
        let firing = open.number;
        let is_there = matches!(open.state, Progress::Known { is_there: true });
        let entry = if is_there {
            Entry::Fired { firing }
        } else {
            Entry::CalledOff { firing }
        };
        self.write_down(&entry)?;
        if is_there {
            let mut state = self.state.lock();
            open.ids.iter().for_each(|id| state.index.remove(*id));
            state.in_lane = 0;
        }
        if let Some(lane) = lane {
            lane.keep_from(None);
        }
        Ok(())
    }
}

fn message(entry: &codec::Scheduled) -> Result<Message, DecodeError> {
    decode(&entry.message, 0, |_| None)
}

/// Step 2, as far as memory. `None`: it was told to stop before there was room.
fn append(
    lane: &Lane,
    ids: &[u64],
    messages: &[Message],
    stop: &AtomicBool,
) -> Result<Option<Range<SeqNo>>, Error> {
    let headers = messages.iter().map(|message| message.headers().collect());
    let headers: Vec<Vec<Header<'_>>> = headers.collect();
    let given = messages.iter().zip(&headers);
    let given = given.map(|(message, headers)| message.as_given(headers));
    let given: Vec<_> = ids.iter().copied().zip(given).collect();
    loop {
        match lane.append_fired(&given) {
            Ok(ticket) => return Ok(Some(ticket.range())),
            // A sync gives room.
            Err(Error::Log(wal::Error::Busy)) => {
                let marks = lane.marks();
                if !is_on_disk(lane, marks.durable..marks.next, stop)? {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until records of a lane are on disk. False: it was told to stop before.
fn is_on_disk(lane: &Lane, range: Range<SeqNo>, stop: &AtomicBool) -> Result<bool, Error> {
    let mut reaching = pin!(lane.ticket_of(range).reaching(Durability::Disk));
    with_thread_waker(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            if let Poll::Ready(reached) = reaching.as_mut().poll(&mut context) {
                reached?;
                return Ok(true);
            }
            if stop.load(Ordering::SeqCst) {
                return Ok(false);
            }
            thread::park_timeout(GLANCE);
        }
    })
}

/// Whether a lane holds records with one of these ids, from a number on.
pub(super) fn is_there<'a>(
    read: impl Fn(SeqNo) -> LaneReader<'a>,
    from: SeqNo,
    ids: &[u64],
) -> Result<bool, Error> {
    let mut reader = read(from);
    loop {
        match reader.next() {
            Ok(None) => return Ok(false),
            Ok(Some(entry)) => {
                let id = entry.message.ok().and_then(|message| message.scheduled);
                if id.is_some_and(|id| ids.contains(&id)) {
                    return Ok(true);
                }
            }
            Err(Error::Log(wal::Error::Released { first })) => reader = read(first),
            Err(Error::Log(wal::Error::Corrupt { .. })) => {
                reader.skip_damage()?;
            }
            Err(error) => return Err(error),
        }
    }
}
