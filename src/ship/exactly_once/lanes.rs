//! The lanes of a store, all at once: a thread each.
//!
//! Owns what they share, and the one picture that is shown of all. Must not know transactions. A
//! commit, a takeover and a look for the last outcome block their thread, each for as long as the
//! cluster likes; so lanes that took turns would wait for each other's, the alarms for the bulk.
//!
//! Invariants: together they keep within the flight budget, the drain rate and the quota of what is
//! parked; a lane that fails or never ends holds up no other, and begins again after a pause where all
//! are shipped until they are told to stop; what was lost is told once.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::committer::{Committer, PAUSE};
use super::letters;
use super::{Committed, Error, ExactlyOnceOptions, Progress, Until};
use crate::kafka::Settings;
use crate::ship::crew;
use crate::ship::link::{DrainRate, LinkState};
use crate::ship::restart::{self, Restarts};
use crate::ship::{Drained, Held};
use crate::store::{Lane, Store};

/// How often the caller is told at most, unless something was lost.
const TELL_INTERVAL: Duration = Duration::from_millis(200);

/// Below this, a transaction of a lane is but a few records.
const BUDGET_MIN: u64 = 256 * 1024;

/// What the lanes of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    /// `None` without a limit: a lock for each record is felt.
    rate: Option<Mutex<DrainRate>>,
    /// Bytes that wait in parking logs.
    parked_bytes: AtomicU64,
    /// Verdicts on records of a topic since anything of it was committed.
    verdicts: Mutex<HashMap<Arc<str>, u32>>,
}

impl Shared {
    pub(super) fn new(options: &ExactlyOnceOptions) -> Arc<Shared> {
        let limit = options.ship.drain_rate;
        let rate = || Mutex::new(DrainRate::new(limit, Instant::now()));
        Arc::new(Shared {
            rate: limit.is_some().then(rate),
            parked_bytes: AtomicU64::new(0),
            verdicts: Mutex::default(),
        })
    }

    /// One more verdict on a record of a topic; how many there are in a row. `before`: those of earlier
    /// runs, asked for with the first one.
    pub(super) fn verdict(&self, topic: &Arc<str>, before: impl FnOnce() -> u32) -> u32 {
        let is_known = self.verdicts.lock().contains_key(topic);
        // It is read from the disk, and no other lane waits for that.
        let before = if is_known { 0 } else { before() };
        let mut verdicts = self.verdicts.lock();
        let count = verdicts.entry(Arc::clone(topic)).or_insert(before);
        *count = count.saturating_add(1);
        *count
    }

    /// Something of these topics was taken.
    pub(super) fn ends_the_row<'t>(&self, topics: impl Iterator<Item = &'t Arc<str>>) {
        let mut verdicts = self.verdicts.lock();
        if verdicts.values().any(|count| *count > 0) {
            for topic in topics {
                if let Some(count) = verdicts.get_mut(topic) {
                    *count = 0;
                }
            }
        }
    }

    /// Whether a record may be sent now.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        let rate = self.rate.as_ref();
        rate.is_none_or(|rate| rate.lock().has_room(now))
    }

    /// A record of so many bytes was sent.
    pub(super) fn take(&self, bytes: u64) {
        if let Some(rate) = &self.rate {
            rate.lock().take(bytes);
        }
    }

    pub(super) fn parked_bytes(&self) -> u64 {
        self.parked_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn park(&self, bytes: u64) {
        self.parked_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn unpark(&self, bytes: u64) {
        self.parked_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Ships every lane, and ends when the last one does.
pub(super) fn drain(
    store: &Store,
    kafka: &Settings,
    options: &ExactlyOnceOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Committed, Error> {
    let shared = Shared::new(options);
    let lanes = &super::super::some_lanes_of(store, &options.ship.cluster)?[..];
    if let [only] = lanes {
        return Committer::new(store, only, kafka, options, &shared, stop, progress)?.run();
    }
    let each: Vec<ExactlyOnceOptions> = share(store, lanes, options);
    let (tell, told) = mpsc::channel();
    let run = |place: usize| {
        let (shared, options, lane) = (&shared, &each[place], lanes[place]);
        let tell = tell.clone();
        // Nobody listens any more when this cannot be sent.
        let tell = move |told| _ = tell.send((place, told));
        move || {
            let ship = || {
                let mut show = |now: &Progress| tell(Ok(Box::new(now.clone())));
                Committer::new(store, lane, kafka, options, shared, stop, &mut show)?.run()
            };
            let is_once = options.ship.until == Until::Empty;
            let is_over = || is_once || stop.load(Ordering::Relaxed);
            go_on(ship, is_over, |why| tell(Err(why)))
        }
    };
    let jobs: Vec<_> = (0..lanes.len()).map(run).collect();
    drop(tell);
    let shown = &mut *progress;
    // It owns what is told: where it ends early nobody listens any more.
    let show = move || show(lanes, &told, shown);
    let all = crew::work_together(jobs, show).map_err(Error::Thread)?;
    let all: Vec<Committed> = all.into_iter().collect::<Result<_, _>>()?;
    // Every store has a lane.
    let done = all.into_iter().reduce(Committed::and);
    let done = done.ok_or_else(|| Error::Option {
        key: "lanes",
        reason: "there is none".to_owned(),
    })?;
    finish_letters(store, lanes, kafka, options, stop, progress, done)
}

/// Begins again after a pause what ended with an error or a panic, until it is over.
fn go_on(
    ship: impl Fn() -> Result<Committed, Error>,
    is_over: impl Fn() -> bool,
    tell: impl Fn(String),
) -> Result<Committed, Error> {
    let mut restarts = Restarts::new();
    loop {
        let began = Instant::now();
        let ended = panic::catch_unwind(AssertUnwindSafe(&ship));
        if let Ok(Ok(done)) = ended {
            return Ok(done);
        }
        tell(restart::told(&ended));
        let pause = restarts.pause(began.elapsed());
        let paused = Instant::now();
        while !is_over() && paused.elapsed() < pause {
            thread::sleep(PAUSE);
        }
        if is_over() {
            return ended.unwrap_or_else(|panic| panic::resume_unwind(panic));
        }
    }
}

/// The lane that ships the dead letters may have ended before another one wrote its last.
fn finish_letters(
    store: &Store,
    lanes: &[&Lane],
    kafka: &Settings,
    options: &ExactlyOnceOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
    mut done: Committed,
) -> Result<Committed, Error> {
    let is_new = done.drained.counters.dead_lettered > 0;
    if !is_new || !letters::are_left(store, options) || stop.load(Ordering::Relaxed) {
        return Ok(done);
    }
    let shared = Shared::new(options);
    let more = Committer::new(store, lanes[0], kafka, options, &shared, stop, progress)?.run()?;
    let is_new = |before: &Held| {
        let same = |now: &Held| now.topic == before.topic && now.partition == before.partition;
        !more.drained.held.iter().any(same)
    };
    done.drained.held.retain(is_new);
    let mut all = done.and(more);
    let is_empty = lanes.iter().all(|lane| queued(store, lane) == 0);
    all.drained.is_empty = is_empty && !letters::are_left(store, options);
    Ok(all)
}

/// The place of a lane, and how far it is or why it ended.
type Told = (usize, Result<Box<Progress>, String>);

/// The options of each lane: of the flight budget, what its weight gives it among those that have
/// anything to ship.
fn share(store: &Store, lanes: &[&Lane], options: &ExactlyOnceOptions) -> Vec<ExactlyOnceOptions> {
    let weight = |lane: &&Lane| {
        let ships = options.ship.until == Until::Stopped || queued(store, lane) > 0;
        if ships {
            u64::from(lane.weight().max(1))
        } else {
            0
        }
    };
    let weights: Vec<u64> = lanes.iter().map(weight).collect();
    let all: u64 = weights.iter().sum();
    let whole = u128::from(options.ship.max_in_flight_bytes);
    let options = |weight: &u64| {
        let part = whole * u128::from(*weight) / u128::from(all.max(1));
        let part = u64::try_from(part).unwrap_or(u64::MAX);
        let mut own = options.clone();
        own.ship.max_in_flight_bytes = part.max(BUDGET_MIN).min(own.ship.max_in_flight_bytes);
        own
    };
    weights.iter().map(options).collect()
}

/// Records of a lane without an outcome, those in its parking logs too.
fn queued(store: &Store, lane: &Lane) -> u64 {
    let parked = store.parking_logs().filter(|log| log.lane() == lane.name());
    lane.totals().queued + parked.map(|log| log.totals().queued).sum::<u64>()
}

/// Tells the caller how far all of them are, until the last one ended.
fn show(lanes: &[&Lane], told: &mpsc::Receiver<Told>, progress: &mut dyn FnMut(&Progress)) {
    let mut newest: Vec<Option<Box<Progress>>> = lanes.iter().map(|_| None).collect();
    let mut stopped: Vec<Option<String>> = vec![None; lanes.len()];
    let mut lost = Vec::new();
    let mut shown = None;
    loop {
        let heard = told.recv();
        let is_over = heard.is_err();
        let is_trouble = matches!(heard, Ok((_, Err(_))));
        match heard {
            Ok((place, Ok(mut now))) => {
                lost.append(&mut now.lost);
                newest[place] = Some(now);
                stopped[place] = None;
            }
            Ok((place, Err(why))) => stopped[place] = Some(why),
            Err(mpsc::RecvError) => {}
        }
        let is_due = shown.is_none_or(|at: Instant| at.elapsed() >= TELL_INTERVAL);
        if is_due || is_over || is_trouble || !lost.is_empty() {
            let each = lanes.iter().zip(&newest).zip(&stopped);
            let each = each.map(|((lane, now), stopped)| (lane.name(), now.as_deref(), stopped));
            if let Some(mut all) = merged(each) {
                all.lost = std::mem::take(&mut lost);
                progress(&all);
                shown = Some(Instant::now());
            }
        }
        if is_over {
            return;
        }
    }
}

/// One picture of all lanes.
fn merged<'a>(
    lanes: impl Iterator<Item = (&'a str, Option<&'a Progress>, &'a Option<String>)>,
) -> Option<Progress> {
    let mut all: Option<Progress> = None;
    for (name, now, stopped) in lanes {
        let mut now = match (now, stopped) {
            (None, None) => continue,
            (now, _) => now.cloned().unwrap_or_default(),
        };
        let why = stopped.as_ref().map(|why| format!("stopped: {why}"));
        now.why = why.or(now.why).map(|why| format!("lane `{name}`: {why}"));
        now.trouble = stopped.as_ref().and(now.why.clone());
        all = Some(match all {
            None => now,
            Some(before) => both(before, now),
        });
    }
    all
}

fn both(mut all: Progress, now: Progress) -> Progress {
    all.shipped += now.shipped;
    all.shipped_bytes += now.shipped_bytes;
    all.queued += now.queued;
    all.in_flight += now.in_flight;
    all.records_per_second += now.records_per_second;
    all.link_changes += now.link_changes;
    all.link_tries += now.link_tries;
    // The lane whose link is not up has something to tell.
    if all.link_state == LinkState::Up {
        (all.link_state, all.link, all.ladder) = (now.link_state, now.link, now.ladder);
        all.rests = now.rests;
    }
    all.why = joined(all.why, now.why);
    all.trouble = joined(all.trouble, now.trouble);
    all.held.extend(now.held);
    all.letter_refused = all.letter_refused.or(now.letter_refused);
    all.counters.add(&now.counters);
    all
}

fn joined(first: Option<String>, second: Option<String>) -> Option<String> {
    match (first, second) {
        (Some(first), Some(second)) => Some(format!("{first}; {second}")),
        (first, second) => first.or(second),
    }
}

impl Committed {
    /// Both together.
    fn and(self, other: Committed) -> Committed {
        let mut held = self.drained.held;
        held.extend(other.drained.held);
        let mut counters = self.drained.counters;
        counters.add(&other.drained.counters);
        Committed {
            drained: Drained {
                shipped: counters.shipped,
                shipped_bytes: counters.shipped_bytes,
                rebuilds: counters.rebuilds,
                is_empty: self.drained.is_empty && other.drained.is_empty,
                held,
                counters,
                elapsed: self.drained.elapsed.max(other.drained.elapsed),
            },
            transactions: self.transactions + other.transactions,
            aborted: self.aborted + other.aborted,
            alarm: self.alarm.or(other.alarm),
        }
    }
}
