//! Shipping at intervals, in the time of a scripted sink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrylog::Outcome;
use ferrylog::kafka::{MockKafka, Outgoing, Report, SendError};
use ferrylog::ship::{self, LinkState, Sink, Until};
use tempfile::TempDir;

use crate::producer::{DEADLINE, builder, until, with_value};
use crate::sink::{Scripted, forward};
use crate::support::{Scratch, options};

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(60);
/// Between two records, and how long they come.
const EVERY: Duration = Duration::from_secs(7);
const LENGTH: Duration = Duration::from_secs(20 * 60);

/// A site that has something to say every now and then.
struct Site<'a> {
    cluster: Scripted,
    scratch: &'a Scratch,
    stop: &'a AtomicBool,
    start: Instant,
    now: Instant,
    /// When each record was appended, and when it was handed over.
    appended: Vec<Instant>,
    sent: Vec<Instant>,
}

impl Site<'_> {
    fn passes(&mut self, time: Duration) {
        self.now += time;
        let count = self.appended.len() as u64;
        if self.now < self.start + LENGTH {
            if self.now >= self.start + EVERY * (count as u32 + 1) {
                self.scratch.fill("t", count..count + 1);
                self.appended.push(self.now);
            }
        } else if self.scratch.queued() == 0 {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Sink for Site<'_> {
    forward!(cluster: begin_piece end_piece in_flight partitions trouble probe rebuild address);

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        self.sent.push(self.now);
        self.cluster.send(record)
    }

    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        self.passes(timeout);
        self.cluster.poll(timeout, reports);
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn pause(&mut self, pause: Duration) {
        self.passes(pause);
    }
}

#[test]
fn what_gathers_in_an_interval_goes_at_once_and_nothing_goes_between() {
    let (scratch, stop) = (Scratch::new(), AtomicBool::new(false));
    let start = Instant::now();
    let mut site = Site {
        cluster: Scripted::new(1, 3),
        scratch: &scratch,
        stop: &stop,
        start,
        now: start,
        appended: Vec::new(),
        sent: Vec::new(),
    };
    let mut options = options();
    options.until = Until::Stopped;
    options.timeout = None;
    options.interval = INTERVAL;
    let mut rests = 0;
    let told = &mut |progress: &ship::Progress| {
        if progress.rests.is_some() {
            assert!(progress.link.contains("rests for "), "{}", progress.link);
            // To rest is no outage.
            assert_ne!(progress.link_state, LinkState::Disabled);
            rests += 1;
        }
    };
    ship::drain_into(&scratch.store, &mut site, &options, &stop, told).unwrap();
    assert!(rests > 100, "{rests}");
    let count = site.appended.len();
    assert!(
        count > 160 && site.cluster.written_count == count,
        "{count}"
    );
    let mut bursts = vec![site.sent[0]];
    for (appended, sent) in site.appended.iter().zip(&site.sent) {
        let waited = sent.saturating_duration_since(*appended);
        assert!(waited <= INTERVAL + SECOND, "{waited:?}");
        let since = sent.saturating_duration_since(bursts[bursts.len() - 1]);
        if since > SECOND {
            assert!(since >= INTERVAL - SECOND, "{since:?} after the last beat");
            bursts.push(*sent);
        }
    }
    assert!((18..=21).contains(&bursts.len()), "{}", bursts.len());
}

#[test]
fn who_ships_until_all_is_gone_does_not_rest() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..1000);
    let mut options = options();
    options.interval = Duration::from_secs(3600);
    let mut sink = Scripted::new(2, 3);
    let stop = AtomicBool::new(false);
    let mut reports = 0;
    let drained = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |now| {
        reports += 1;
        assert_eq!(now.rests, None);
    });
    assert_eq!(drained.unwrap().shipped, 1000);
    assert!(reports > 0, "nothing was told");
}

#[test]
fn closing_waits_for_no_beat() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    let mut ship = options();
    ship.interval = Duration::from_secs(3600);
    let dir = TempDir::new().unwrap();
    let producer = builder(dir.path(), &mock).ship(ship).open().unwrap();
    let first = producer.send(&with_value("t", b"1")).unwrap();
    until("it rests", || {
        let status = producer.status();
        let progress = status.clusters[0].progress.as_ref();
        progress.is_some_and(|progress| progress.rests.is_some())
    });
    // To rest is no trouble.
    producer.health(DEADLINE).unwrap();
    let second = producer.send(&with_value("t", b"2")).unwrap();
    let closed = producer.close(DEADLINE).unwrap();
    assert!(closed.is_empty(), "{closed:?}");
    for receipt in [first, second] {
        assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    }
}
