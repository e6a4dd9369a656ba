//! A day without a network, in the time of a scripted sink: a moment for us.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ferrylog::kafka::{self, Report};
use ferrylog::ship::{self, LinkState, ShipOptions, Sink};

use crate::sink::{Scripted, forward};
use crate::support::Scratch;

const DAY: Duration = Duration::from_secs(24 * 3600);
const COUNT: u64 = 1000;

/// A cluster that goes away when it has some records, and comes back after a day.
struct Outage {
    cluster: Scripted,
    now: Instant,
    began: Option<Instant>,
    rebuilds: u32,
}

impl Outage {
    fn passes(&mut self, time: Duration) {
        self.now += time;
        if self.began.is_none() && self.cluster.written_count as u64 > COUNT / 3 {
            self.began = Some(self.now);
            self.cluster.away_polls = u32::MAX;
        }
        if let Some(began) = self.began
            && self.now >= began + DAY
        {
            self.cluster.away_polls = 0;
        }
    }
}

impl Sink for Outage {
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

/// One refusal counts as an attempt too many here: so none may be counted.
#[test]
fn a_day_of_outage_counts_no_attempt_and_is_told_as_one_change() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..COUNT);
    let mut cluster = Scripted::new(1, 4);
    cluster.steps_max = 10;
    let mut outage = Outage {
        cluster,
        now: Instant::now(),
        began: None,
        rebuilds: 0,
    };
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
        "{tries} tries, {changes} changes, {} rebuilds, {states:?}, {sentences:#?}",
        outage.rebuilds
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
}
