//! The loop: connect, resolve, ship transactions, replace the producer, again.
//!
//! Owns that order and the picture of it that is shown. Must not know what is in a transaction
//! (`transact`), how an identity is taken over (`connect`) or a doubt resolved (`resolve`).

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::decide::{self, Last};
use super::lanes::Shared;
use super::letters::Letters;
use super::pace::Pace;
use super::silent::Late;
use super::source::{self, Source};
use super::transact::Turn;
use super::{Committed, Drained, Error, ExactlyOnceOptions, Progress, Until};
use crate::kafka::{Register, Report, Settings, TransactionalProducer};
use crate::ship::budget::Budget;
use crate::ship::content::Replaced;
use crate::ship::link::{Link, LinkState, Look, Pulse, WindowClock, local_minute};
use crate::ship::restamp::TopicMemory;
use crate::ship::topics::Topics;
use crate::ship::{Counters, Held, Lost};
use crate::store::{IntentFile, Lane, Nonce, Now, Store, Stream};
use crate::wal::{LogId, SeqNo};

/// How long to wait for records when all are shipped; bounds how late a stop is seen.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// Pause while something is waited for; bounds how late a stop is seen.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// How often progress is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct Committer<'a> {
    pub(super) store: &'a Store,
    pub(super) lane: &'a Lane,
    pub(super) kafka: &'a Settings,
    pub(super) options: &'a ExactlyOnceOptions,
    pub(super) shared: &'a Shared,
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(&Progress),

    pub(super) intents: IntentFile,
    pub(super) transactional_id: String,
    pub(super) producer: TransactionalProducer,
    pub(super) cluster_id: String,
    /// Where the progress records of this lane are.
    pub(super) progress_partition: i32,
    /// The offsets that may keep them instead.
    pub(super) register: Option<Register>,
    /// Whose progress these hold, and since when; none if that is not known, or nobody's.
    pub(super) registered: Option<(Nonce, Instant)>,

    /// The lane's own log, and its parking logs.
    pub(super) sources: Vec<Source<'a>>,
    /// The one that the transaction under way is of.
    pub(super) current: usize,
    /// What time it is, by which records are too old.
    pub(super) now: Now,
    /// Records of the lane that stand in a parking log, and are not known to be settled.
    pub(super) moved: HashSet<SeqNo>,
    /// Records that were appended to a parking log, and are not settled yet: log, number.
    pub(super) parked: Vec<(usize, SeqNo)>,
    /// What goes in the place of records, by source.
    pub(super) replaced: Replaced,
    /// Refused timestamps of a topic, by its number.
    pub(super) memory: HashMap<usize, TopicMemory>,
    pub(super) letters: Letters,
    pub(super) topics: Topics,
    /// Partitions, by index, that the cluster had no leader for when it was asked last.
    pub(super) leaderless: HashSet<usize>,
    /// When one of the silent logs may be tried.
    pub(super) next_silent_trial: Instant,
    pub(super) late: Option<Late>,
    pub(super) budget: Budget,
    pub(super) pace: Pace,
    pub(super) link: Link,
    window: WindowClock,
    pulse: Pulse,
    /// What is going on beside the link, for a person.
    pub(super) note: Option<String>,
    pub(super) alarm: Option<String>,
    /// Another producer took over the transactional id, and whose it is was not looked up since.
    pub(super) is_fenced: bool,
    /// How often in a row, without a commit between.
    pub(super) fences: u32,
    /// When something was last committed, the link came up, or there was nothing to ship.
    pub(super) progressed: Instant,
    pub(super) reports: Vec<Report>,

    pub(super) id: String,
    pub(super) id_prefix_len: usize,
    started: Instant,
    shown: Instant,
    shown_shipped: u64,
    pub(super) in_flight: usize,
    pub(super) counters: Counters,
    pub(super) transactions: u64,
    pub(super) aborted: u64,
}

/// Whether a lane is the first of its cluster.
fn is_first(store: &Store, lane: &Lane) -> bool {
    let mut lanes = store.lanes().iter();
    let first = lanes.find(|other| other.cluster() == lane.cluster());
    first.is_some_and(|first| std::ptr::eq(first, lane))
}

/// How shipping with one producer ended.
enum Ended {
    /// Everything is shipped that can be, or it was told to stop.
    Done,
    /// The producer carries no further transaction.
    Spent(String),
}

impl<'a> Committer<'a> {
    pub(super) fn new(
        store: &'a Store,
        lane: &'a Lane,
        kafka: &'a Settings,
        options: &'a ExactlyOnceOptions,
        shared: &'a Shared,
        stop: &'a AtomicBool,
        progress: &'a mut dyn FnMut(&Progress),
    ) -> Result<Committer<'a>, Error> {
        let now = Instant::now();
        let intents = lane.intents()?;
        let identity = intents.identity();
        let prefix = &options.transactional_id_prefix;
        let transactional_id = format!("{prefix}.{identity}.{}", lane.name());
        let pace = Pace::new(options.max_records, options.transaction_timeout);
        let producer = TransactionalProducer::new(kafka, &transactional_id, pace.timeout())?;
        let id = format!("{identity}-");
        Ok(Committer {
            store,
            lane,
            kafka,
            options,
            shared,
            stop,
            progress,
            intents,
            transactional_id,
            producer,
            cluster_id: String::new(),
            progress_partition: 0,
            register: None,
            registered: None,
            sources: source::sources(store, lane),
            current: 0,
            now: lane.now(),
            moved: HashSet::new(),
            parked: Vec::new(),
            replaced: Replaced::new(),
            memory: HashMap::new(),
            letters: Letters::new(is_first(store, lane), now),
            topics: Topics::default(),
            leaderless: HashSet::new(),
            next_silent_trial: now,
            late: None,
            budget: Budget::new(options.ship.max_in_flight_bytes),
            pace,
            link: Link::new(options.ship.link.backoff(), now),
            window: WindowClock::new(),
            pulse: options.ship.pulse(now),
            note: None,
            alarm: None,
            is_fenced: false,
            fences: 0,
            progressed: now,
            reports: Vec::new(),
            id_prefix_len: id.len(),
            id,
            started: now,
            shown: now,
            shown_shipped: 0,
            in_flight: 0,
            counters: Counters::default(),
            transactions: 0,
            aborted: 0,
        })
    }

    /// Ships until done, stopped or failed; then saves the cursors.
    pub(super) fn run(mut self) -> Result<Committed, Error> {
        self.meet_parked()?;
        let ended = self.carry();
        let saved = self.save_cursors();
        self.in_flight = 0;
        // A last picture of one that fails would say that it goes on.
        if ended.is_ok() || self.sources.iter().any(|source| !source.lost.is_empty()) {
            self.show(Instant::now());
        }
        ended?;
        saved?;
        Ok(Committed {
            drained: Drained {
                shipped: self.counters.shipped,
                shipped_bytes: self.counters.shipped_bytes,
                rebuilds: self.counters.rebuilds,
                is_empty: self.queued() == 0 && !self.letters_wait(),
                held: self.held(Instant::now()),
                counters: self.counters.clone(),
                elapsed: self.started.elapsed(),
            },
            transactions: self.transactions,
            aborted: self.aborted,
            alarm: self.alarm.take(),
        })
    }

    fn save_cursors(&mut self) -> Result<(), Error> {
        let save = |source: &Source<'_>| source.stream.save_cursor();
        self.sources.iter().try_for_each(save)?;
        Ok(())
    }

    /// Records without an outcome, in the lane and its parking logs.
    fn queued(&self) -> u64 {
        let queued = |source: &Source<'_>| source.stream.totals().queued;
        self.sources.iter().map(queued).sum()
    }

    fn held(&self, now: Instant) -> Vec<Held> {
        let held = self.sources.iter().filter_map(|source| source.held(now));
        held.chain(self.held_letters(now)).collect()
    }

    /// The loop: until it is done, or told to stop.
    fn carry(&mut self) -> Result<(), Error> {
        let is_idle = self.queued() == 0 && !self.letters_wait();
        if is_idle && self.options.ship.until == Until::Empty {
            return Ok(());
        }
        loop {
            if !self.connect()? || !self.resolve()? {
                return Ok(());
            }
            match self.ship()? {
                Ended::Done => return Ok(()),
                Ended::Spent(why) => self.renew(&why)?,
            }
        }
    }

    /// Transactions, one after the other, while this producer is good for them.
    fn ship(&mut self) -> Result<Ended, Error> {
        // Else what the last producer parked is read and parked once more.
        self.settle_parked()?;
        self.judge_late()?;
        for source in &mut self.sources {
            source.rewind();
        }
        while !self.is_stopped() {
            if !self.is_in_window() || self.pulse.rests(Instant::now()) {
                self.progressed = Instant::now();
                self.pause("")?;
                continue;
            }
            let mut is_dry = true;
            let mut place = self.sources.len() + 1;
            // The dead letters, then the parking logs, which hold what is older than what the lane has
            // for their partitions.
            while place > 0 && !self.is_stopped() {
                place -= 1;
                let turn = if place == self.sources.len() {
                    self.letters_turn()?
                } else {
                    self.turn(place)?
                };
                match turn {
                    Turn::Done => is_dry = false,
                    Turn::Dry | Turn::Held => {}
                    Turn::Silent(why) => {
                        self.link.lost(&why, Instant::now(), random());
                        if !self.await_link()? {
                            return Ok(Ended::Done);
                        }
                        is_dry = false;
                    }
                    Turn::Spent(why) => return Ok(Ended::Spent(why)),
                }
                self.show_often();
            }
            if is_dry && self.is_done() {
                return Ok(Ended::Done);
            }
            if is_dry {
                self.pulse.caught_up();
                self.nothing_goes()?;
                let lane = &self.sources[0];
                match lane.pending {
                    // It is durable, and waits for something else.
                    Some(_) => thread::sleep(IDLE_WAIT),
                    None => _ = lane.stream.wait_durable(lane.position(), IDLE_WAIT),
                }
            }
        }
        Ok(Ended::Done)
    }

    /// All that is left waits: for the caller's time, where that is to end.
    fn nothing_goes(&mut self) -> Result<(), Error> {
        let is_left = self.queued() > 0 || self.letters_wait();
        let is_awaited = self.options.ship.until == Until::Empty && is_left;
        if !is_awaited {
            self.progressed = Instant::now();
        } else if let Some(timeout) = self.options.ship.timeout
            && self.progressed.elapsed() >= timeout
        {
            let held = self.held(Instant::now());
            if !held.is_empty() {
                return Err(Error::Held { held });
            }
        }
        Ok(())
    }

    /// A transaction of one log, if it is its turn.
    fn turn(&mut self, place: usize) -> Result<Turn, Error> {
        let source = &self.sources[place];
        let is_due = source.is_active && source.is_due(Instant::now());
        if place > 0 && (!is_due || self.waits_for_trial(place)) {
            return Ok(Turn::Held);
        }
        self.current = place;
        self.now = self.lane.now();
        let proof = match place > 0 && self.is_to_be_proved(place) {
            true => self.prove()?,
            false => None,
        };
        let turn = match proof {
            // While the proof is fresh.
            Some(Turn::Done) if self.is_proved(place) => self.transact(),
            Some(turn) => Ok(turn),
            None => self.transact(),
        };
        // What is left decides whether its partition's records follow it.
        let source = &mut self.sources[place];
        source.is_active = source.stream.totals().queued > 0;
        if !source.is_active {
            self.shared.unpark(std::mem::take(&mut source.parked_bytes));
        }
        self.free_kept(place)?;
        turn
    }

    /// Frees the parking logs, but those that wait, of what they kept for the lane only.
    fn free_kept(&mut self, place: usize) -> Result<(), Error> {
        let acked = self.lane.marks().acked;
        let mut is_saved = false;
        for (log, source) in self.sources.iter_mut().enumerate().skip(1) {
            if (source.is_active && log != place) || !source.keeps_in_vain(acked) {
                continue;
            }
            if !is_saved {
                self.lane.save_cursor()?;
                is_saved = true;
            }
            source.free_kept();
        }
        Ok(())
    }

    /// Whether all is shipped but what a person has to look at.
    fn is_done(&self) -> bool {
        let is_done = |source: &Source<'_>| {
            let is_held = |why: &source::Hold| why.why.is_definite();
            source.stream.totals().queued == 0 || source.hold.as_ref().is_some_and(is_held)
        };
        self.options.ship.until == Until::Empty
            && (self.letters.is_needed || self.sources.iter().all(is_done))
            && (!self.letters_wait() || self.letters.is_stuck)
    }

    /// Whether records may be shipped at this hour of the day.
    fn is_in_window(&mut self) -> bool {
        let now = Instant::now();
        let window = &self.options.ship.drain_window;
        match self.window.look(window, now, local_minute) {
            Some(Look::Closed(why)) => self.link.disabled(&why, now),
            Some(Look::Opened) => {
                self.link.enabled(now);
                self.link.answered(now);
            }
            None => {}
        }
        self.link.state() != LinkState::Disabled
    }

    /// What the store knows of its last transaction.
    pub(super) fn last(&self) -> Last {
        let intent = self.intents.intent();
        let stream = intent.and_then(|intent| self.stream_of(intent.log));
        let acked = stream.map_or(SeqNo::ZERO, |stream| stream.marks().acked);
        decide::last(intent, acked)
    }

    pub(super) fn stream_of(&self, log: LogId) -> Option<Stream<'a>> {
        source::stream_of(self.store, self.lane, log)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A moment's wait in which progress is shown; the error of a wait that is too long.
    pub(super) fn pause(&mut self, why: &str) -> Result<(), Error> {
        let waited = self.progressed.elapsed();
        if let Some(timeout) = self.options.ship.timeout
            && waited >= timeout
        {
            return Err(Error::Unreachable {
                servers: self.kafka.bootstrap_servers.clone(),
                waited,
                why: why.to_owned(),
            });
        }
        self.show_often();
        thread::sleep(PAUSE);
        Ok(())
    }

    pub(super) fn show_often(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.shown) >= PROGRESS_INTERVAL {
            self.show(now);
        }
    }

    pub(super) fn show(&mut self, now: Instant) {
        let millis = now.saturating_duration_since(self.shown).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX).max(1);
        let mut link = self.link.sentence(now);
        let rests = self.pulse.left(now);
        if let Some(left) = rests {
            link.push_str(&format!(", rests for {} s", left.as_secs()));
        }
        let held = self.held(now);
        let why: Option<String> = match (&self.note, held.first()) {
            (Some(note), _) => Some(note.clone()),
            (None, _) if !self.link.is_up() => Some(format!("the link is {link}")),
            (None, held) => held.map(ToString::to_string),
        };
        let why: Vec<String> = why.into_iter().chain(self.letters.alarm()).collect();
        let why = (!why.is_empty()).then(|| why.join("; "));
        let lost = self.sources.iter_mut();
        let lost = lost.flat_map(|s| Lost::of(s.stream.lane(), &mut s.lost));
        let lost = lost.collect();
        let queued = self.queued();
        (self.progress)(&Progress {
            shipped: self.counters.shipped,
            shipped_bytes: self.counters.shipped_bytes,
            queued,
            in_flight: self.in_flight,
            records_per_second: (self.counters.shipped - self.shown_shipped).saturating_mul(1000)
                / millis,
            link_state: self.link.state(),
            link,
            rests,
            link_changes: self.link.changes(),
            link_tries: self.link.tries(),
            ladder: self.link.ladder().clone(),
            why,
            trouble: None,
            held,
            letter_refused: self.letters.refused.clone(),
            counters: self.counters.clone(),
            lost,
        });
        self.shown = now;
        self.shown_shipped = self.counters.shipped;
    }
}

impl Drop for Committer<'_> {
    /// Whoever ships the lane next counts anew what is parked of it.
    fn drop(&mut self) {
        let parked = self.sources.iter().map(|source| source.parked_bytes);
        self.shared.unpark(parked.sum());
    }
}

/// Evenly spread, and different each time: what the standard library seeds its tables with.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
