//! The loop: read, place, poll, settle, tend the link, care for what was left behind, again.
//!
//! Owns the order of these steps for one cluster and the logs that are shipped to it; the promise
//! stands in [`super`]. What becomes of a record is decided in `place`, what a refusal means in
//! `judge`, what is done for partitions that take nothing in `care`, and about a link or producer
//! that fails in `tend`.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::collect::POLL_WAIT;
use super::content::Replaced;
use super::health::Health;
use super::judge::Refused;
use super::letters::Letters;
use super::link::{DrainRate, Link, Pulse, WindowClock};
use super::place::Placed;
use super::progress::{Counters, Drained, Lost, Progress};
use super::restamp::TopicMemory;
use super::share::Share;
use super::source::Source;
use super::streams::Turns;
use super::topics::Topics;
use super::{Error, ShipOptions, Sink, Until};
use crate::kafka::Report;
use crate::store::{DeadLetters, Lane, Now, Store, Stream};

/// Records handed over between two polls: reports are taken while librdkafka still has work.
const RECORDS_PER_TURN: usize = 2048;

/// Records of one lane before it is asked again whose turn it is.
const RECORDS_PER_SHARE: usize = 32;

/// And what they take of the budget: on a thin link a lane waits for a little of each other one.
const BYTES_PER_SHARE: u64 = 8 * 1024;

/// Polls in a row that bring nothing before the wait is doubled, so that a gateway's processor may
/// sleep on a slow link; and how often it is doubled.
const QUIET_POLLS: u32 = 16;
const QUIET_DOUBLINGS_MAX: u32 = 4;

/// How long to wait for records when all are shipped; bounds how late a stop is seen.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// How often progress is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// How a turn of handing over ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is more to hand over at once.
    More,
    /// What is next waits, for its partition or for the link.
    Held,
    /// Nothing more fits: whose turn it is gets the next room.
    Full,
    /// Everything on disk was read.
    Dry,
}

pub(super) struct Shipper<'a, S: Sink> {
    pub(super) store: &'a Store,
    /// Those of its cluster.
    pub(super) lanes: Vec<&'a Lane>,
    /// The dead letters, if there were any before this run.
    pub(super) letters_before: Option<&'a DeadLetters>,
    /// The time of day, as of this turn.
    pub(super) time: Now,
    pub(super) sink: &'a mut S,
    pub(super) options: &'a ShipOptions,
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(&Progress),

    pub(super) sources: Vec<Source<'a>>,
    share: Share,
    /// By lane.
    pub(super) turns: Vec<Turns>,
    /// The link came up since the last turn.
    pub(super) came_up: bool,
    pub(super) topics: Topics,
    /// By partition index.
    pub(super) health: Vec<Health>,
    /// By the topic's number.
    pub(super) memory: Vec<TopicMemory>,
    pub(super) budget: Budget,
    pub(super) link: Link,
    pub(super) rate: DrainRate,
    pub(super) window: WindowClock,
    pulse: Pulse,
    /// When something was last acknowledged, the link came up, or there was nothing to ship.
    pub(super) progressed: Instant,
    /// When anything was last acknowledged.
    pub(super) acknowledged: Option<Instant>,
    /// Why a link that counts as up is doubted.
    pub(super) doubt: Option<String>,
    /// Why the producer is spent.
    pub(super) spent: Option<String>,
    /// Whether a refusal spent it.
    pub(super) was_refused: bool,
    /// Whether nothing was acknowledged since the producer was replaced.
    pub(super) is_unproven: bool,
    /// What came back in the poll that is being taken in.
    pub(super) refusals: Vec<Refused>,
    /// Partitions with a record to give up, because another one was taken.
    pub(super) doomed: Vec<usize>,
    /// What goes in the place of records.
    pub(super) replaced: Replaced,
    /// Records that were appended to a parking log in this turn: source, log, token.
    pub(super) parked: Vec<(usize, usize, u64)>,
    /// Bytes that wait in parking logs.
    pub(super) parked_bytes: u64,
    /// Why and when nothing more could be parked.
    pub(super) parking_failed: Option<(String, Instant)>,
    pub(super) letters: Letters<'a>,
    /// Something changed that `care` has to look at at once.
    pub(super) needs_care: bool,
    pub(super) cared: Instant,
    /// When a silent leader may be asked again.
    pub(super) next_question: Instant,
    /// When the cluster was last asked for leaders.
    pub(super) asked_leaders: Option<Instant>,

    /// The value of the identity header: the lane's log id and `-`, then the number.
    pub(super) id: String,
    pub(super) id_prefix_len: usize,
    pub(super) id_lane: Option<usize>,
    pub(super) reports: Vec<Report>,
    /// Polls in a row that brought nothing.
    pub(super) quiet_polls: u32,
    pub(super) started: Instant,
    /// A time, and how many milliseconds after the start it is.
    counted: (Instant, u32),
    pub(super) told: Instant,
    shown: Instant,
    shown_shipped: u64,
    pub(super) counters: Counters,
}

impl<'a, S: Sink> Shipper<'a, S> {
    pub(super) fn new(
        store: &'a Store,
        lanes: Vec<&'a Lane>,
        sink: &'a mut S,
        options: &'a ShipOptions,
        stop: &'a AtomicBool,
        progress: &'a mut dyn FnMut(&Progress),
    ) -> Shipper<'a, S> {
        let now = sink.now();
        let mut shipper = Shipper {
            share: Share::new(lanes.iter().map(|lane| lane.weight())),
            turns: vec![Turns::default(); lanes.len()],
            lanes: lanes.clone(),
            letters_before: None,
            time: store.now(),
            store,
            sink,
            options,
            stop,
            progress,
            sources: Vec::new(),
            came_up: false,
            topics: Topics::default(),
            health: Vec::new(),
            memory: Vec::new(),
            budget: Budget::new(options.max_in_flight_bytes),
            link: Link::new(options.link.backoff(), now),
            rate: DrainRate::new(options.drain_rate, now),
            window: WindowClock::new(),
            pulse: options.pulse(now),
            progressed: now,
            acknowledged: None,
            doubt: None,
            spent: None,
            was_refused: false,
            is_unproven: false,
            refusals: Vec::new(),
            doomed: Vec::new(),
            replaced: Replaced::new(),
            parked: Vec::new(),
            parked_bytes: 0,
            parking_failed: None,
            letters: Letters::new(now),
            needs_care: false,
            cared: now,
            next_question: now,
            asked_leaders: None,
            id: String::new(),
            id_prefix_len: 0,
            id_lane: None,
            reports: Vec::new(),
            quiet_polls: 0,
            started: now,
            counted: (now, 0),
            told: now,
            shown: now,
            shown_shipped: 0,
            counters: Counters::default(),
        };
        for (place, lane) in lanes.into_iter().enumerate() {
            shipper.add_source(Stream::of_lane(lane), place);
        }
        shipper
    }

    /// Ships until done, stopped or failed; then settles what is known and saves the cursors.
    pub(super) fn run(mut self) -> Result<Drained, Error> {
        self.letters_before = self.store.dead_letters_if_any()?;
        self.meet_parked()?;
        let ended = self.carry();
        // Whatever the end, what is in flight may still arrive: the less is sent twice.
        if self.link.is_up() {
            self.finish_flight(self.options.stop_grace);
        }
        self.tell_all();
        let saved: Result<Vec<()>, _> = self
            .sources
            .iter()
            .map(|source| source.stream.save_cursor())
            .collect();
        self.show_progress(self.sink.now());
        let is_empty = ended?;
        saved?;
        Ok(Drained {
            counters: self.counters.clone(),
            shipped: self.counters.shipped,
            shipped_bytes: self.counters.shipped_bytes,
            rebuilds: self.counters.rebuilds,
            is_empty,
            held: self.all_held(self.sink.now()),
            elapsed: self.sink.now().saturating_duration_since(self.started),
        })
    }

    /// The loop. True when everything is empty, false when told to stop or when nothing is left
    /// but what is held.
    fn carry(&mut self) -> Result<bool, Error> {
        while !self.is_stopped() {
            let turn = self.hand_over_if_due()?;
            let wait = match turn {
                Turn::More => Duration::ZERO,
                Turn::Held | Turn::Full | Turn::Dry => {
                    POLL_WAIT * (1 << (self.quiet_polls / QUIET_POLLS).min(QUIET_DOUBLINGS_MAX))
                }
            };
            let now = self.collect(wait)?;
            self.tend(now)?;
            // Without a link nothing is taken care of.
            let needs_care = self.needs_care && self.link.is_up();
            if turn == Turn::Dry && !self.is_busy() && !needs_care {
                if self.options.until == Until::Empty {
                    if self.queued() == 0 && !self.letters_wait() {
                        return Ok(true);
                    }
                    if self.is_stuck(now) {
                        return Ok(false);
                    }
                }
                self.share.forgive();
                self.rest();
            }
            if now.saturating_duration_since(self.shown) >= PROGRESS_INTERVAL {
                self.show_progress(now);
            }
        }
        Ok(false)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Hands records over, unless it rests until the next beat.
    fn hand_over_if_due(&mut self) -> Result<Turn, Error> {
        let now = self.sink.now();
        // A search that has begun goes on: it would take an interval for each of its steps.
        if self.pulse.rests(now) && !self.needs_care {
            return Ok(Turn::Dry);
        }
        let turn = self.hand_over(now)?;
        let is_over = match turn {
            Turn::Dry => true,
            // What is left waits for a partition that takes nothing.
            Turn::Held => self.link.is_up() && !self.is_busy(),
            Turn::More | Turn::Full => false,
        };
        if is_over && !self.needs_care {
            self.pulse.caught_up();
        }
        Ok(turn)
    }

    /// Waits for something new in the lanes, or a little where that is not to be looked at yet.
    fn rest(&mut self) {
        if self.pulse.left(self.sink.now()).is_some() {
            self.sink.pause(IDLE_WAIT);
            return;
        }
        let lanes = u32::try_from(self.lanes.len()).unwrap_or(1);
        let wait = self.sink.rest(IDLE_WAIT) / lanes.max(1);
        let is_newest = |s: &&Source<'_>| s.stream.parked().is_none() && s.until().is_none();
        for source in self.sources.iter().filter(is_newest) {
            let position = source.position();
            if source.stream.wait_durable(position, wait) > position {
                return;
            }
        }
    }

    /// Whether something was handed over and not reported.
    pub(super) fn is_busy(&self) -> bool {
        let flies = |source: &Source<'_>| source.flight.in_flight() > 0;
        self.letters.in_flight() > 0 || self.sources.iter().any(flies)
    }

    /// Hands records over until something holds the next one back.
    fn hand_over(&mut self, now: Instant) -> Result<Turn, Error> {
        if !self.link.is_up() {
            return self.look(now);
        }
        self.time = self.store.now();
        if mem::take(&mut self.came_up) {
            self.begin_streams();
        }
        self.care(now)?;
        self.send_letters(now)?;
        let mut ready: Vec<bool> = vec![true; self.lanes.len()];
        let mut turn = Turn::Dry;
        let mut left = RECORDS_PER_TURN;
        while left > 0 {
            let Some(lane) = self.share.next(|lane| ready[lane]) else {
                break;
            };
            let (bytes, ended) = self.advance(lane, now)?;
            self.share
                .charge(lane, usize::try_from(bytes).unwrap_or(usize::MAX));
            left = left.saturating_sub(RECORDS_PER_SHARE);
            match ended {
                Turn::More => {}
                Turn::Dry => ready[lane] = false,
                Turn::Held => {
                    ready[lane] = false;
                    turn = Turn::Held;
                }
                Turn::Full => {
                    turn = Turn::Full;
                    break;
                }
            }
        }
        self.settle_parked()?;
        Ok(if left == 0 { Turn::More } else { turn })
    }

    /// Without a link: whether there is anything to ship, and for which topic.
    fn look(&mut self, now: Instant) -> Result<Turn, Error> {
        let mut turn = Turn::Dry;
        self.meet_letters(now);
        if self.letters_wait() {
            turn = Turn::Held;
        }
        for source in 0..self.sources.len() {
            while let Some(entry) = self.sources[source].read()? {
                turn = Turn::Held;
                // What is no message needs no link, and there is no topic to try one with.
                if entry.message.is_err() && self.place(source, &entry, now)? == Placed::Done {
                    continue;
                }
                self.sources[source].pending = Some(entry);
                break;
            }
            if !self.sources[source].flight.is_empty() {
                turn = Turn::Held;
            }
        }
        Ok(turn)
    }

    /// Places a few records of a lane; what is parked of it goes first.
    fn advance(&mut self, lane: usize, now: Instant) -> Result<(u64, Turn), Error> {
        let (mut bytes, mut turn) = (0, Turn::Dry);
        for turn_of in 0..self.turns[lane].len() {
            let source = self.turns[lane].nth(turn_of);
            if self.is_out_of_reach(source) || self.is_read_enough(source) {
                turn = Turn::Held;
                continue;
            }
            for _ in 0..RECORDS_PER_SHARE {
                if bytes >= BYTES_PER_SHARE {
                    break;
                }
                let Some(entry) = self.sources[source].read()? else {
                    break;
                };
                match self.place(source, &entry, now)? {
                    Placed::Sent(cost) => bytes += cost,
                    Placed::Done => {}
                    Placed::Waits => {
                        self.sources[source].pending = Some(entry);
                        if turn == Turn::Dry {
                            turn = Turn::Held;
                        }
                        break;
                    }
                    Placed::Full => {
                        self.sources[source].pending = Some(entry);
                        self.turns[lane].served(bytes > 0);
                        return Ok((bytes, Turn::Full));
                    }
                }
                turn = Turn::More;
            }
            if !self.sources[source].lost.is_empty() {
                self.show_progress(self.sink.now());
            }
        }
        self.turns[lane].served(bytes > 0);
        Ok((bytes, turn))
    }

    /// Records without an outcome, in all logs.
    pub(super) fn queued(&self) -> u64 {
        let lanes = self.lanes.len();
        let sources = self.sources.iter().enumerate();
        // A lane's other sources are of the same log.
        let logs = sources.filter(|(place, s)| *place < lanes || s.stream.parked().is_some());
        logs.map(|(_, log)| log.stream.totals().queued).sum()
    }

    /// The number of an index's topic.
    pub(super) fn ordinal(&self, index: usize) -> usize {
        self.topics
            .named(index)
            .map_or(0, |(_, topic, _)| topic.ordinal)
    }

    /// Milliseconds since the shipper began, modulo 2^32: the difference of two is the time between
    /// them, up to 49 days.
    #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32")]
    pub(super) fn millis(&mut self, now: Instant) -> u32 {
        // Asked for each record, of a time that is read once a turn.
        if self.counted.0 != now {
            let millis = now.saturating_duration_since(self.started).as_millis();
            self.counted = (now, millis as u32);
        }
        self.counted.1
    }

    /// Makes the lists that go by partition and topic as long as there are of them.
    pub(super) fn fit_lists(&mut self, now: Instant) {
        self.health
            .resize_with(self.topics.indexes(), || Health::new(now));
        self.memory
            .resize_with(self.topics.len(), TopicMemory::default);
    }

    fn show_progress(&mut self, now: Instant) {
        let millis = now.saturating_duration_since(self.shown).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX).max(1);
        let mut link = self.link.sentence(now);
        if self.link.is_up() && self.rate.holds_back() {
            link.push_str(", held back by the drain rate");
        }
        let rests = self.pulse.left(now);
        if let Some(left) = rests {
            link.push_str(&format!(", rests for {} s", left.as_secs()));
        }
        let shipped = self.counters.shipped;
        let lost = self.sources.iter_mut();
        let lost = lost.flat_map(|s| Lost::of(s.stream.lane(), &mut s.lost));
        let lost = lost.collect();
        let progress = Progress {
            shipped,
            shipped_bytes: self.counters.shipped_bytes,
            queued: self.queued(),
            in_flight: self.sink.in_flight(),
            records_per_second: (shipped - self.shown_shipped).saturating_mul(1000) / millis,
            link_state: self.link.state(),
            link,
            rests,
            link_changes: self.link.changes(),
            link_tries: self.link.tries(),
            ladder: self.link.ladder().clone(),
            why: self.why(now),
            trouble: None,
            held: self.all_held(now),
            letter_refused: self.letters.refused.clone(),
            counters: self.counters.clone(),
            lost,
        };
        (self.progress)(&progress);
        self.shown = now;
        self.shown_shipped = shipped;
    }
}
