//! The loop: read, hand over, poll, settle, tend the link, again.
//!
//! Owns the order of these steps for one lane and one sink; the promise stands in [`super`], what is
//! done about a link or a producer that fails in `tend`.

use std::fmt::Write as _;
use std::mem;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::budget::{self, Budget};
use super::link::{DrainRate, Link, WindowClock};
use super::settle::{Flight, Flown};
use super::topics::{Topic, Topics};
use super::{Drained, Error, ID_HEADER, Progress, ShipOptions, Sink, Until, partition};
use crate::kafka::{ErrorClass, Failure, Outcome, Outgoing, Report, SendError};
use crate::message::Message;
use crate::store::{self, Entry, Lane, LaneReader};
use crate::wal::{self, Class, Gap, SeqNo};

/// Records handed over between two polls: reports are taken while librdkafka still has work.
const RECORDS_PER_TURN: usize = 2048;

/// How long a poll waits when there is nothing to hand over; doubled while nothing is reported, so
/// that a gateway's processor may sleep on a slow link.
const POLL_WAIT: Duration = Duration::from_millis(1);

/// Polls in a row that bring nothing before the wait is doubled, and how often it is doubled.
const QUIET_POLLS: u32 = 16;
const QUIET_DOUBLINGS_MAX: u32 = 4;

/// How long to wait for records when all are shipped; bounds how late a stop is seen.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// How often the log is told of what is settled behind the oldest unsettled record; the cursor
/// is not saved more often either.
const TELL_INTERVAL: Duration = Duration::from_millis(100);

/// How often progress is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// A record that was read and not handed over.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) seq: SeqNo,
    pub(super) message: Message,
}

/// How a turn of handing over ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is more to hand over at once.
    More,
    /// Link, budget or queue hold the next record back.
    Held,
    /// Everything on disk was handed over.
    Dry,
}

pub(super) struct Shipper<'a, S: Sink> {
    pub(super) lane: &'a Lane,
    pub(super) sink: &'a mut S,
    pub(super) options: &'a ShipOptions,
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(&Progress),

    pub(super) reader: LaneReader<'a>,
    /// Below this, a record may be settled already, by an earlier run or an earlier producer.
    pub(super) settled_below: SeqNo,
    pub(super) pending: Option<Pending>,
    pub(super) topics: Topics,
    pub(super) budget: Budget,
    pub(super) flight: Flight,
    pub(super) link: Link,
    rate: DrainRate,
    pub(super) window: WindowClock,
    /// When something was last acknowledged, the link came up, or there was nothing to ship.
    pub(super) progressed: Instant,
    /// Why a link that counts as up is doubted.
    pub(super) doubt: Option<String>,
    /// Why the producer is spent.
    pub(super) spent: Option<String>,
    /// The oldest record that was refused.
    refused: Option<(Flown, Failure)>,
    /// What was given up and not told yet.
    lost: Vec<Gap>,

    /// The value of the identity header: the log's id and `-`, then the number.
    id: String,
    id_prefix_len: usize,
    reports: Vec<Report>,
    /// Polls in a row that brought nothing.
    quiet_polls: u32,
    started: Instant,
    told: Instant,
    shown: Instant,
    shown_shipped: u64,
    shipped: u64,
    shipped_bytes: u64,
    pub(super) rebuilds: u32,
    pub(super) rebuilds_in_vain: u32,
}

impl<'a, S: Sink> Shipper<'a, S> {
    pub(super) fn new(
        lane: &'a Lane,
        sink: &'a mut S,
        options: &'a ShipOptions,
        stop: &'a AtomicBool,
        progress: &'a mut dyn FnMut(&Progress),
    ) -> Shipper<'a, S> {
        let now = Instant::now();
        let marks = lane.marks();
        let id = format!("{}-", lane.log_id());
        Shipper {
            lane,
            sink,
            options,
            stop,
            progress,
            reader: lane.reader(marks.acked),
            settled_below: marks.next,
            pending: None,
            topics: Topics::default(),
            budget: Budget::new(options.max_in_flight_bytes),
            flight: Flight::default(),
            link: Link::new(options.link.backoff(), now),
            rate: DrainRate::new(options.drain_rate, now),
            window: WindowClock::new(),
            progressed: now,
            doubt: None,
            spent: None,
            refused: None,
            lost: Vec::new(),
            id_prefix_len: id.len(),
            id,
            reports: Vec::new(),
            quiet_polls: 0,
            started: now,
            told: now,
            shown: now,
            shown_shipped: 0,
            shipped: 0,
            shipped_bytes: 0,
            rebuilds: 0,
            rebuilds_in_vain: 0,
        }
    }

    /// Ships until done, stopped or failed; then settles what is known and saves the cursor.
    pub(super) fn run(mut self) -> Result<Drained, Error> {
        let ended = self.carry();
        // Whatever the end, what is in flight may still arrive: the less is sent twice.
        if self.link.is_up() {
            self.finish_flight(self.options.stop_grace);
        }
        self.tell_all();
        let saved = self.lane.save_cursor();
        self.show_progress(Instant::now());
        let is_empty = ended?;
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        saved?;
        Ok(Drained {
            shipped: self.shipped,
            shipped_bytes: self.shipped_bytes,
            rebuilds: self.rebuilds,
            is_empty,
            elapsed: self.started.elapsed(),
        })
    }

    /// The loop. True when the lane is empty, false when told to stop.
    fn carry(&mut self) -> Result<bool, Error> {
        while !self.stop.load(Ordering::Relaxed) {
            let turn = self.hand_over(Instant::now())?;
            let wait = match turn {
                Turn::More => Duration::ZERO,
                Turn::Held | Turn::Dry => {
                    POLL_WAIT * (1 << (self.quiet_polls / QUIET_POLLS).min(QUIET_DOUBLINGS_MAX))
                }
            };
            let now = self.collect(wait);
            if let Some(error) = self.refusal() {
                return Err(error);
            }
            self.tend(now)?;
            if turn == Turn::Dry && self.flight.is_empty() && self.pending.is_none() {
                if self.options.until == Until::Empty && self.lane.totals().queued == 0 {
                    return Ok(true);
                }
                self.lane.wait_durable(self.reader.position(), IDLE_WAIT);
            }
            if now.saturating_duration_since(self.shown) >= PROGRESS_INTERVAL {
                self.show_progress(now);
            }
        }
        Ok(false)
    }

    /// Hands records over until something holds the next one back.
    fn hand_over(&mut self, now: Instant) -> Result<Turn, Error> {
        for _ in 0..RECORDS_PER_TURN {
            let next = match self.pending.take() {
                Some(pending) => pending,
                None => match self.read()? {
                    Some(read) => read,
                    None => return Ok(Turn::Dry),
                },
            };
            if !self.link.is_up() || !self.send(&next, now)? {
                self.pending = Some(next);
                return Ok(Turn::Held);
            }
        }
        Ok(Turn::More)
    }

    /// The next record on disk. What cannot be read is given up and told at once; what was dropped for
    /// space meanwhile is passed.
    fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut read_anew = false;
        loop {
            match self.reader.next() {
                Err(store::Error::Log(wal::Error::Corrupt { .. })) if !read_anew => {
                    match self.lane.give_up(&mut self.reader)? {
                        Some(gap) => {
                            self.lost.push(gap);
                            self.show_progress(Instant::now());
                        }
                        // The disk gives it now, or the frame is whole and holds what nobody wrote.
                        None => read_anew = true,
                    }
                }
                Err(store::Error::Log(wal::Error::Released { first })) => {
                    self.reader = self.lane.reader(first);
                }
                entry => return Ok(entry?),
            }
        }
    }

    /// The next record on disk that is not settled.
    fn read(&mut self) -> Result<Option<Pending>, Error> {
        while let Some(entry) = self.next_entry()? {
            let seq = entry.seq;
            if seq < self.settled_below && self.lane.is_settled(seq) {
                continue;
            }
            let message = entry.message.map_err(|undecodable| Error::Undecodable {
                seq,
                reason: undecodable.reason.to_string(),
            })?;
            return Ok(Some(Pending { seq, message }));
        }
        Ok(None)
    }

    /// Hands one record to the sink; false if it has to wait.
    fn send(&mut self, next: &Pending, now: Instant) -> Result<bool, Error> {
        let Pending { seq, message } = next;
        let Some(topic) = self.topic(next, now)? else {
            return Ok(false);
        };
        let partition = chosen_partition(*seq, message, topic.count)?;
        let index = topic.index(partition);

        self.id.truncate(self.id_prefix_len);
        // Writing to a string cannot fail.
        let _ = write!(self.id, "{seq}");
        let own = [(ID_HEADER, Some(self.id.as_bytes()))];
        let own = if self.options.id_header {
            &own[..]
        } else {
            &[]
        };
        let joined: Vec<_>;
        let headers = if message.headers().next().is_none() {
            own
        } else {
            let given = message.headers().map(|h| (h.name, h.value));
            joined = given.chain(own.iter().copied()).collect();
            &joined[..]
        };

        let key = message.key.as_deref();
        let value = message.value.as_deref();
        let len = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        let cost = budget::cost(len, headers);
        if !self.flight.has_room() || !self.budget.has_room(index, cost) {
            return Ok(false);
        }
        if !self.rate.has_room(now) {
            if self.flight.is_empty() {
                self.nothing_asked(now);
            }
            return Ok(false);
        }
        let flown = Flown {
            seq: *seq,
            partition: u32::try_from(index).unwrap_or(u32::MAX),
            cost: u32::try_from(cost).unwrap_or(u32::MAX),
            len: u32::try_from(len).unwrap_or(u32::MAX),
        };
        let sent = self.sink.send(&Outgoing {
            topic: &message.topic,
            partition: i32::try_from(partition).unwrap_or(i32::MAX),
            key,
            value,
            headers,
            timestamp_millis: message.timestamp_millis,
            token: self.flight.next_token(),
        });
        match sent {
            Ok(()) => {
                self.flight.push(flown);
                self.budget.take(index, u64::from(flown.cost), now);
                self.rate.take(u64::from(flown.len));
            }
            Err(SendError::QueueFull) => return Ok(false),
            Err(SendError::Failed(failure)) => {
                self.failed(flown, failure);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is known of a record's topic, asking the cluster if need be; `None` if it is silent.
    fn topic(&mut self, next: &Pending, now: Instant) -> Result<Option<Topic>, Error> {
        let known = self.topics.get(&next.message.topic);
        if known.is_some() {
            return Ok(known);
        }
        self.ask(&next.message.topic, next.seq, now)?;
        Ok(self.topics.get(&next.message.topic))
    }

    /// Polls the sink, settles what was acknowledged, keeps what failed for the judge. Returns
    /// the time after the poll.
    fn collect(&mut self, wait: Duration) -> Instant {
        let mut reports = mem::take(&mut self.reports);
        self.sink.poll(wait, &mut reports);
        let now = Instant::now();
        let shipped_before = self.shipped;
        self.quiet_polls = if reports.is_empty() {
            self.quiet_polls.saturating_add(1)
        } else {
            0
        };
        for report in reports.drain(..) {
            match report.outcome {
                Outcome::Delivered { .. } => {
                    if let Some(flown) = self.flight.settle(report.token) {
                        let index = usize::try_from(flown.partition).unwrap_or(usize::MAX);
                        self.budget.acknowledge(index, u64::from(flown.cost));
                        self.shipped += 1;
                        self.shipped_bytes += u64::from(flown.len);
                    }
                }
                Outcome::Failed(failure) => {
                    // It stays unsettled: the next producer, or the next run, sends it again.
                    if let Some(flown) = self.flight.get(report.token) {
                        self.failed(flown, failure);
                    }
                }
            }
        }
        self.reports = reports;
        if self.shipped > shipped_before {
            self.rebuilds_in_vain = 0;
            self.progressed = now;
            self.link_acknowledged(now);
            self.budget.measure(now);
            let lane = self.lane;
            self.flight
                .tell_front(|run| lane.settle(run, Class::Shipped));
        }
        if now.saturating_duration_since(self.told) >= TELL_INTERVAL {
            self.tell_all();
            self.told = now;
        }
        now
    }

    pub(super) fn tell_all(&mut self) {
        let lane = self.lane;
        let settle = |run| lane.settle(run, Class::Shipped);
        self.flight.tell_front(settle);
        self.flight.tell_all(settle);
    }

    /// Remembers a failure by what it means; what is done about it is decided by the loop.
    fn failed(&mut self, flown: Flown, failure: Failure) {
        match failure.class {
            ErrorClass::Poison | ErrorClass::BadTime | ErrorClass::Held | ErrorClass::Blocked => {
                let is_older = |(oldest, _): &(Flown, Failure)| flown.seq < oldest.seq;
                if self.refused.as_ref().is_none_or(is_older) {
                    self.refused = Some((flown, failure));
                }
            }
            // librdkafka gave the record back although it may try for ever: only a new producer
            // takes it again in order.
            _ => {
                self.spent.get_or_insert_with(|| failure.to_string());
            }
        }
    }

    /// The error for a refused record, if one was.
    pub(super) fn refusal(&mut self) -> Option<Error> {
        let (flown, failure) = self.refused.take()?;
        let index = usize::try_from(flown.partition).unwrap_or(usize::MAX);
        let (topic, partition) = self.topics.named(index)?;
        Some(Error::Refused {
            topic: topic.to_string(),
            partition,
            seq: flown.seq,
            failure,
        })
    }

    /// Polls until everything in flight is reported, or `grace` is over.
    pub(super) fn finish_flight(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        while self.sink.in_flight() > 0 && Instant::now() < deadline {
            self.collect(POLL_WAIT);
        }
    }

    fn show_progress(&mut self, now: Instant) {
        let millis = now.saturating_duration_since(self.shown).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX).max(1);
        (self.progress)(&Progress {
            shipped: self.shipped,
            shipped_bytes: self.shipped_bytes,
            queued: self.lane.totals().queued,
            in_flight: self.sink.in_flight(),
            records_per_second: (self.shipped - self.shown_shipped).saturating_mul(1000) / millis,
            link_state: self.link.state(),
            link: self.link.sentence(now),
            link_changes: self.link.changes(),
            link_tries: self.link.tries(),
            ladder: self.link.ladder().clone(),
            lost: mem::take(&mut self.lost),
        });
        self.shown = now;
        self.shown_shipped = self.shipped;
    }
}

/// The partition a record names, else the one its key or number chooses.
fn chosen_partition(seq: SeqNo, message: &Message, count: NonZeroU32) -> Result<u32, Error> {
    let Some(named) = message.partition else {
        return Ok(partition::choose(seq, message.key.as_deref(), count));
    };
    let valid = u32::try_from(named).ok().filter(|&n| n < count.get());
    valid.ok_or_else(|| Error::NoPartition {
        topic: message.topic.to_string(),
        partition: named,
        count: count.get(),
        seq,
    })
}
