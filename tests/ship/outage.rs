//! A day without a network, in the time of a scripted sink: a moment for us.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrylog::kafka::{self, Report};
use ferrylog::ship::{self, LinkState, ShipOptions, Sink, Until};

use crate::sink::{Scripted, forward};
use crate::support::Scratch;

const DAY: Duration = Duration::from_secs(24 * 3600);
const COUNT: u64 = 1000;

/// A cluster in a time of its own, to which something happens as that passes.
struct Timed<F> {
    cluster: Scripted,
    now: Instant,
    happens: F,
    rebuilds: u32,
    /// How often it waited: whoever does so seldom is idle.
    waits: u64,
}

impl<F: FnMut(&mut Scripted, Instant)> Timed<F> {
    fn new(cluster: Scripted, happens: F) -> Timed<F> {
        Timed {
            cluster,
            now: Instant::now(),
            happens,
            rebuilds: 0,
            waits: 0,
        }
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
        self.waits += 1;
        (self.happens)(&mut self.cluster, self.now);
    }
}

impl<F: FnMut(&mut Scripted, Instant)> Sink for Timed<F> {
    forward!(cluster: send begin_piece end_piece in_flight partitions trouble probe address);

    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        self.passes(timeout);
        self.cluster.poll(timeout, reports);
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        self.rebuilds += 1;
        self.cluster.rebuild()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn pause(&mut self, pause: Duration) {
        self.passes(pause);
    }
}

/// Goes away when the cluster has some records, and comes back after this time; says how long ago it went.
fn goes_away(lasts: Duration) -> impl FnMut(&mut Scripted, Instant) -> Option<Duration> {
    let mut began = None;
    move |cluster, now| {
        if began.is_none() && cluster.written_count as u64 > COUNT / 3 {
            began = Some(now);
            cluster.away_polls = u32::MAX;
        }
        let since = began.map(|began| now - began);
        if since.is_some_and(|since| since >= lasts) {
            cluster.away_polls = 0;
        }
        since
    }
}

/// As where a broker begins again: one partition is heard of seconds after the others, and its records are
/// on their way all the time.
#[test]
fn after_an_outage_the_partition_that_is_heard_of_last_costs_no_producer() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..COUNT);
    let mut cluster = Scripted::new(1, 4);
    cluster.steps_max = 10;
    let is_last = Arc::new(AtomicBool::new(false));
    cluster.leaderless = Some((0, Arc::clone(&is_last)));
    let mut outage = goes_away(Duration::from_secs(20));
    let mut timed = Timed::new(cluster, |cluster: &mut Scripted, now| {
        let since = outage(cluster, now);
        let is_silent = since.is_some_and(|since| since < Duration::from_secs(24));
        is_last.store(is_silent, Ordering::Relaxed);
    });
    let mut options = ShipOptions::default();
    options.park_after = Duration::ZERO;
    let stop = AtomicBool::new(false);
    let drained = ship::drain_into(&scratch.store, &mut timed, &options, &stop, &mut |now| {
        assert_eq!(now.held, [], "{:?}", now.why);
    });
    assert_eq!(drained.unwrap().shipped, COUNT);
    assert_eq!(
        (timed.rebuilds, timed.cluster.written_count as u64),
        (0, COUNT)
    );
}

/// A partition takes nothing until some moment, as when its disk is full. It is between two trials.
#[test]
fn a_refusal_of_all_records_kills_none_whenever_it_ends() {
    const STEPS: u32 = 30;
    for step in 0..STEPS {
        let scratch = Scratch::new();
        scratch.fill("t", 0..20);
        let mut cluster = Scripted::new(u64::from(step), 1);
        cluster.flaky = (0..20).collect();
        let lasts = Duration::from_millis(20_011) * step / STEPS;
        let stop = AtomicBool::new(false);
        let mut ends = None;
        let mut timed = Timed::new(cluster, |cluster: &mut Scripted, now| {
            if now >= *ends.get_or_insert(now + lasts) {
                cluster.flaky.clear();
            }
            stop.store(scratch.queued() == 0, Ordering::Relaxed);
        });
        let mut options = ShipOptions::default();
        options.timeout = None;
        // Only so it rests in the time of the sink.
        options.until = Until::Stopped;
        options.interval = Duration::from_millis(1);
        options.retry.max_attempts = 3;
        options.retry.jitter = false;
        let drained = ship::drain_into(&scratch.store, &mut timed, &options, &stop, &mut |_| {});
        assert_eq!(drained.unwrap().shipped, 20, "{lasts:?}");
        assert_eq!(
            timed.cluster.seqs(),
            [(0..20).collect::<Vec<_>>()],
            "{lasts:?}"
        );
    }
}

/// One refusal counts as an attempt too many here: so none may be counted.
#[test]
fn a_day_of_outage_counts_no_attempt_is_told_as_one_change_and_idles() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..COUNT);
    let mut cluster = Scripted::new(1, 4);
    cluster.steps_max = 10;
    let mut day = goes_away(DAY);
    let mut outage = Timed::new(cluster, |cluster: &mut Scripted, now| {
        day(cluster, now);
    });
    let mut options = ShipOptions::default();
    options.timeout = None;
    options.retry.max_attempts = 1;
    let start = outage.now;
    let (mut states, mut sentences) = (Vec::new(), BTreeSet::new());
    let (mut tries, mut changes) = (0, 0);
    let drained = ship::drain_into(
        &scratch.store,
        &mut outage,
        &options,
        &AtomicBool::new(false),
        &mut |progress| {
            if states.last() != Some(&progress.link_state)
                && progress.link_state != LinkState::Probing
            {
                states.push(progress.link_state);
            }
            // Without the numbers in them: how long it has been so, and when it is tried again.
            let sentence = progress.why.as_deref().unwrap_or_default();
            sentences.insert(sentence.replace(|c: char| c.is_ascii_digit(), ""));
            (tries, changes) = (progress.link_tries, progress.link_changes);
        },
    );
    let drained = drained.unwrap();
    println!(
        "{tries} tries, {changes} changes, {} rebuilds, {} waits, {states:?}, {sentences:#?}",
        outage.rebuilds, outage.waits
    );
    assert!(outage.now - start > DAY);
    assert_eq!(drained.shipped, COUNT);
    assert_eq!(outage.cluster.written_count as u64, COUNT, "a duplicate");
    assert_eq!(scratch.store.totals().dead_lettered, 0);
    assert_eq!(states, [LinkState::Up, LinkState::Down, LinkState::Up]);
    // A producer that is replaced meanwhile is two more.
    assert!(changes <= 5, "{changes}");
    assert!(
        sentences.len() < 10,
        "a sentence a try: {}",
        sentences.len()
    );
    assert!((33_000..36_000).contains(&tries), "{tries}");
    let a_second = outage.waits / DAY.as_secs();
    assert!(a_second <= 100, "it woke up {a_second} times a second");
}
