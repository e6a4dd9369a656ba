//! A record that makes something on the way cut each connection it is sent over: it is found, and held
//! alone; nothing else waits for it, and it goes when the cause is gone.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::exactly_once::{self, ExactlyOnceOptions};
use ferrylog::ship::{Held, Progress, ShipOptions, Until};
use ferrylog::store::Store;
use ferrylog::wal::{Durability, Options, SeqNo};
use tempfile::TempDir;

use crate::committed_letters::bury_one;
use crate::copies::{self, Content, Repeats};
use crate::gateway::content_of;
use crate::kafka::{Kafka, wait_for};
use crate::random;
use crate::shipping::Shipping;

const TOPIC: &str = "t";
const PARTITIONS: u64 = 3;
const COUNT: u64 = 9_000;

/// The record that breaks the connection.
const SUSPECT: u64 = 4_000;

/// What it holds, and no other one.
const FORBIDDEN: &[u8] = b"no connection carries this";

/// Longest wait for what must happen at last.
const SOON: Duration = Duration::from_secs(60);

struct Scratch {
    kafka: Kafka,
    store: Arc<Store>,
    seed: u64,
    _dir: TempDir,
}

impl Scratch {
    fn new() -> Scratch {
        let kafka = Kafka::with().relayed().start();
        kafka.create_topic(TOPIC, PARTITIONS as i32);
        kafka.relay(0).forbid(FORBIDDEN);
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.durability = Durability::Os;
        let scratch = Scratch {
            kafka,
            store: Arc::new(Store::open(dir.path().join("store"), options).unwrap()),
            seed: random::seed(),
            _dir: dir,
        };
        scratch.fill(COUNT);
        scratch
    }

    fn content(seed: u64, n: u64) -> Content {
        // Without a key: partitions are named.
        match n {
            SUSPECT => (None, FORBIDDEN.to_vec()),
            n => (None, content_of(seed, n, 100).1),
        }
    }

    /// Appends records until there are `count`, to the partitions in turn.
    fn fill(&self, count: u64) {
        let lane = self.store.lane();
        for n in lane.totals().accepted..count {
            let (key, value) = Scratch::content(self.seed, n);
            let message = MessageRef {
                partition: Some((n % PARTITIONS) as i32),
                key: key.as_deref(),
                value: Some(&value),
                ..MessageRef::to(TOPIC)
            };
            // The sync below waits for all of them.
            drop(lane.append(&message).unwrap());
        }
        lane.sync().unwrap();
    }

    fn settings(&self) -> Settings {
        let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Settings {
            properties: vec![
                // So that it can be read on the way.
                property("compression.type", "none"),
                // Connects again at once, so that there is time for many losses.
                property("reconnect.backoff.max.ms", "500"),
            ],
            ..Settings::new(self.kafka.bootstrap_servers())
        }
    }

    /// Records below `count` that need not wait for the suspect.
    fn free(count: u64) -> u64 {
        let waits = |n: &u64| n % PARTITIONS == SUSPECT % PARTITIONS && *n >= SUSPECT;
        count - (0..count).filter(waits).count() as u64
    }

    /// Whether just the partition of the suspect is held, for that.
    fn is_found(held: &[Held]) -> bool {
        let is_it = |held: &Held| {
            held.why.kind() == "suspect" && held.partition == Some((SUSPECT % PARTITIONS) as u32)
        };
        held.len() == 1 && is_it(&held[0])
    }

    /// From the moment on that the suspect is to be found: all else arrives, soon, and goes on doing so
    /// while the suspect is tried again and again.
    fn check_the_rest_goes_on(&self) {
        let started = Instant::now();
        let arrived = |count| {
            let began = Instant::now();
            wait_for("the others", SOON, || {
                self.arrived() == Scratch::free(count)
            });
            began.elapsed()
        };
        arrived(COUNT);
        println!("all others after {:.1?}", started.elapsed());
        for round in 1..=5 {
            let tries = self.kafka.relay(0).forbade();
            wait_for("a trial", SOON, || self.kafka.relay(0).forbade() > tries);
            let count = COUNT + 300 * round;
            self.fill(count);
            let took = arrived(count);
            println!("others took {took:.1?} beside trial {round}");
            assert!(took < Duration::from_secs(5), "they wait for it: {took:?}");
        }
    }

    /// Distinct records that readers of what is committed see.
    fn arrived(&self) -> u64 {
        let consumed = self.kafka.consume(TOPIC);
        let ids = consumed.iter().map(|r| r.header("ferry-id").unwrap());
        ids.collect::<BTreeSet<_>>().len() as u64
    }

    fn check(&self, count: u64) -> Repeats {
        let log_id = self.store.lane().log_id().to_string();
        let content = |n| Scratch::content(self.seed, n);
        let repeats = copies::check(&self.kafka, TOPIC, &log_id, count, content);
        println!("{repeats:?}");
        assert!(self.store.dead_letters_if_any().unwrap().is_none());
        repeats
    }
}

#[test]
fn a_record_that_breaks_the_connection_is_found_and_held_and_nothing_else_waits_for_it() {
    let scratch = Scratch::new();
    let mut options = ShipOptions::default();
    options.park_after = Duration::from_secs(3);
    let started = Instant::now();
    let shipping = Shipping::start(&scratch.store, scratch.settings(), options);
    let progress = shipping.wait_for("the suspect", |p| Scratch::is_found(&p.held));
    println!(
        "found after {:.1?} and {} lost connections: {:?}",
        started.elapsed(),
        scratch.kafka.relay(0).forbade(),
        progress.why
    );
    scratch.check_the_rest_goes_on();
    shipping.wait_for("the hold", |p| Scratch::is_found(&p.held));
    scratch.kafka.relay(0).pass();
    shipping.wait_until_empty();
    println!("{:?}", shipping.end());
    scratch.check(COUNT + 1500);
}

#[test]
fn a_record_that_breaks_the_connection_is_parked_alone_and_its_lane_goes_on_in_transactions() {
    let scratch = Scratch::new();
    let mut options = ExactlyOnceOptions::default();
    options.ship.until = Until::Stopped;
    options.ship.timeout = None;
    let settings = scratch.settings();
    let (stop, newest) = (AtomicBool::new(false), Mutex::new(None::<Progress>));
    let mut tell = |now: &Progress| *newest.lock().unwrap() = Some(now.clone());
    thread::scope(|scope| {
        let run = || exactly_once::drain(&scratch.store, &settings, &options, &stop, &mut tell);
        let shipping = scope.spawn(run);
        // A failed check has to end the thread, too.
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let started = Instant::now();
            let is_found = || {
                newest
                    .lock()
                    .unwrap()
                    .as_ref()
                    .is_some_and(|p| Scratch::is_found(&p.held))
            };
            wait_for("the suspect", SOON, is_found);
            println!(
                "found after {:.1?} and {} lost connections: {:?}",
                started.elapsed(),
                scratch.kafka.relay(0).forbade(),
                newest.lock().unwrap().as_ref().unwrap().why
            );
            scratch.check_the_rest_goes_on();
            assert!(is_found());
            scratch.kafka.relay(0).pass();
            wait_for("the end", SOON, || scratch.store.totals().queued == 0);
        }));
        stop.store(true, Ordering::Relaxed);
        println!("{:?}", shipping.join().unwrap().unwrap());
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(scratch.check(COUNT + 1500).duplicates, 0);
}

/// Somebody decided to send it again.
#[test]
fn a_letter_that_breaks_the_connection_is_kept_with_the_reason_in_transactions() {
    let scratch = Scratch::new();
    let (ours, settings) = (&scratch.store, scratch.settings());
    let letters = ours.dead_letters().unwrap();
    let letter = bury_one(
        ours,
        SeqNo::new(SUSPECT),
        &MessageRef {
            value: Some(FORBIDDEN),
            ..MessageRef::to(TOPIC)
        },
    );
    letters.mark_pending(&[letter]).unwrap();
    let (stop, mut told) = (AtomicBool::new(false), None);
    let options = ExactlyOnceOptions::default();
    let started = Instant::now();
    let ended = exactly_once::drain(ours, &settings, &options, &stop, &mut |now| {
        told.clone_from(&now.letter_refused);
    });
    let drained = ended.unwrap().drained;
    println!("{:.1?}: {told:?}, {drained:?}", started.elapsed());
    assert!(drained.is_empty, "{:?}", drained.held);
    assert_eq!(drained.shipped, COUNT - 1);
    assert_eq!(drained.counters.replays_refused, 1);
    assert!(told.unwrap().contains("the connection is lost"));
    assert_eq!((letters.counts().kept, letters.counts().pending), (1, 0));
    // The cause is gone.
    scratch.kafka.relay(0).pass();
    letters
        .mark_pending(&letters.open_letters(|_, _, _| true))
        .unwrap();
    let ended = exactly_once::drain(ours, &settings, &options, &stop, &mut |_| {});
    assert_eq!(ended.unwrap().drained.counters.replayed, 1);
    assert_eq!(scratch.arrived(), COUNT);
}
