//! A record that takes a thin line longer than a request may: it arrives, if it can at all, and is held
//! or given up by policy if it cannot; nothing else waits for it for good.
//!
//! Times are short here; with `KAFKA_LONG=1` they are those that users have (64 kbit/s, 60 s, 300 s).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::exactly_once::{self, ExactlyOnceOptions};
use ferrylog::ship::{self, Held, OnTooSlow, ShipOptions, Until};
use ferrylog::store::Store;
use ferrylog::wal::{Durability, Options};
use tempfile::TempDir;

use crate::copies::{self, Content};
use crate::gateway::content_of;
use crate::kafka::Kafka;
use crate::random;

const TOPIC: &str = "t";
const PARTITIONS: u64 = 3;
const COUNT: u64 = 60;

/// It crosses the line in more time than a request has.
const SLOW: u64 = 21;

/// It does not cross in the longest time there is.
const TOO_SLOW: u64 = 31;

/// How thin the line is, and what takes how long on it.
struct Plan {
    bytes_per_second: u32,
    /// `socket.timeout.ms`, and that of a transaction.
    timeout: Duration,
    too_slow_after: Duration,
}

fn plan() -> Plan {
    let seconds = Duration::from_secs;
    match std::env::var_os("KAFKA_LONG") {
        None => Plan {
            bytes_per_second: 16_000,
            timeout: seconds(4),
            too_slow_after: seconds(16),
        },
        Some(_) => Plan {
            bytes_per_second: 8_000,
            timeout: seconds(60),
            too_slow_after: seconds(300),
        },
    }
}

impl Plan {
    /// Bytes that take the line as long as this.
    fn bytes(&self, time: Duration) -> usize {
        (f64::from(self.bytes_per_second) * time.as_secs_f64()) as usize
    }

    fn content(&self, seed: u64, n: u64) -> Content {
        let len = match n {
            SLOW => self.bytes(self.timeout.mul_f64(1.5)),
            TOO_SLOW => self.bytes(self.too_slow_after.mul_f64(1.5)),
            _ => 100,
        };
        (None, content_of(seed, n, len).1)
    }
}

struct Scratch {
    plan: Plan,
    kafka: Kafka,
    store: Store,
    settings: Settings,
    seed: u64,
    _dir: TempDir,
}

impl Scratch {
    fn new() -> Scratch {
        let plan = plan();
        let kafka = Kafka::with().relayed().start();
        kafka.create_topic_with(
            TOPIC,
            PARTITIONS as i32,
            &[("max.message.bytes", "10000000")],
        );
        kafka.relay(0).limit(plan.bytes_per_second);
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.durability = Durability::Os;
        let store = Store::open(dir.path().join("store"), options).unwrap();
        let seed = random::seed();
        for n in 0..COUNT {
            let (_, value) = plan.content(seed, n);
            let message = MessageRef {
                partition: Some((n % PARTITIONS) as i32),
                value: Some(&value),
                ..MessageRef::to(TOPIC)
            };
            drop(store.lane().append(&message).unwrap());
        }
        store.lane().sync().unwrap();
        // A connection that is given up leaves on the line what the system holds of it: on loopback, where a
        // segment is 64 KiB, that would be minutes.
        let held = ("socket.send.buffer.bytes".to_owned(), "16384".to_owned());
        let settings = Settings {
            properties: vec![held],
            ..Settings::new(kafka.bootstrap_servers())
        };
        Scratch {
            plan,
            kafka,
            store,
            settings,
            seed,
            _dir: dir,
        }
    }

    fn options(&self, on_too_slow: OnTooSlow) -> ShipOptions {
        let mut options = ShipOptions::default();
        options.timeout = Some(self.plan.too_slow_after * 10);
        options.too_slow_after = self.plan.too_slow_after;
        options.on_too_slow = on_too_slow;
        options
    }

    /// Whether only the record that is too slow is held.
    fn check_held(&self, held: &[Held]) {
        println!("{held:?}");
        let [only] = held else {
            panic!("{held:?}");
        };
        assert_eq!(only.why.kind(), "too_slow");
        assert_eq!(only.partition, Some((TOO_SLOW % PARTITIONS) as u32));
    }

    /// Whether the one that is too slow is there all the same: what a request that was given up had on the
    /// line may arrive.
    fn is_there(&self, n: u64) -> bool {
        let id = format!("{}-{n}", self.store.lane().log_id());
        let all = self.kafka.consume(TOPIC);
        all.iter()
            .any(|record| record.header("ferry-id") == Some(&id))
    }

    /// All that are there arrived in order.
    fn check(&self, expected: impl Iterator<Item = u64>) -> copies::Repeats {
        let log_id = self.store.lane().log_id().to_string();
        let content = |n| self.plan.content(self.seed, n);
        let expected: BTreeSet<u64> = expected.collect();
        let repeats = copies::check_those(&self.kafka, TOPIC, &log_id, expected, content);
        println!("{repeats:?}");
        repeats
    }
}

/// Prints what changes, for who looks into a failure of many minutes.
fn tell(before: &mut String, started: Instant, now: &ship::Progress) {
    let held = now.held.iter().map(|held| held.why.kind());
    let held: Vec<&str> = held.collect();
    let (link, rebuilds) = (now.link_state, now.counters.rebuilds);
    let text = format!(
        "{} shipped, {link:?}, held {held:?}, {rebuilds} rebuilds",
        now.shipped
    );
    if text != *before {
        println!("{:.1?}: {text}; {}", started.elapsed(), now.link);
        *before = text;
    }
}

/// Those that need not wait for it.
fn is_free(n: &u64) -> bool {
    n % PARTITIONS != TOO_SLOW % PARTITIONS || *n < TOO_SLOW
}

#[test]
fn what_does_not_cross_a_thin_line_is_held_or_dead_lettered_and_what_does_with_more_time_arrives() {
    let scratch = Scratch::new();
    let drain = |on_too_slow| {
        let started = Instant::now();
        let (options, stop) = (scratch.options(on_too_slow), AtomicBool::new(false));
        let mut settings = scratch.settings.clone();
        let timeout = scratch.plan.timeout.as_millis().to_string();
        let timeout = ("socket.timeout.ms".to_owned(), timeout);
        settings.properties.push(timeout);
        let mut before = String::new();
        let mut tell = |now: &ship::Progress| tell(&mut before, started, now);
        let drained = ship::drain(&scratch.store, &settings, &options, &stop, &mut tell);
        println!("{:.1?}", started.elapsed());
        drained.unwrap()
    };
    let drained = drain(OnTooSlow::Hold);
    scratch.check_held(&drained.held);
    assert!(scratch.store.dead_letters_if_any().unwrap().is_none());
    let is_there = scratch.is_there(TOO_SLOW);
    scratch.check((0..COUNT).filter(|n| is_free(n) || (*n == TOO_SLOW && is_there)));
    let drained = drain(OnTooSlow::DeadLetter);
    assert!(drained.is_empty, "{:?}", drained.held);
    let is_there = scratch.is_there(TOO_SLOW);
    scratch.check((0..COUNT).filter(|n| *n != TOO_SLOW || is_there));
    let letters = scratch.store.dead_letters().unwrap();
    let all = letters.open_letters(|_, _, _| true);
    assert_eq!(all.len(), 1);
    let body = letters.get(all[0]).unwrap().unwrap().body;
    println!("{} {} {}", body.class, body.code, body.reason);
    assert_eq!((body.origin.seq.get(), body.attempts), (TOO_SLOW, 0));
}

#[test]
fn what_does_not_cross_a_thin_line_is_parked_and_its_lane_goes_on_in_transactions() {
    let scratch = Scratch::new();
    let drain = |on_too_slow, until, stop_when: &dyn Fn(&ship::Progress) -> bool| {
        let started = Instant::now();
        let mut options = ExactlyOnceOptions::default();
        options.ship = scratch.options(on_too_slow);
        options.ship.until = until;
        options.transaction_timeout = scratch.plan.timeout;
        let stop = AtomicBool::new(false);
        let mut before = String::new();
        let mut tell = |now: &ship::Progress| {
            tell(&mut before, started, now);
            stop.fetch_or(stop_when(now), Ordering::Relaxed);
        };
        // There a request has as long as its transaction.
        let settings = &scratch.settings;
        let store = &scratch.store;
        let done = exactly_once::drain(store, settings, &options, &stop, &mut tell).unwrap();
        println!("{:.1?}, {} aborted", started.elapsed(), done.aborted);
        done.drained
    };
    let free = (0..COUNT).filter(is_free).count() as u64;
    let is_done = |now: &ship::Progress| {
        let is_parked = scratch.store.lane().totals().queued == 0;
        now.shipped == free && !now.held.is_empty() && is_parked
    };
    let drained = drain(OnTooSlow::Hold, Until::Stopped, &is_done);
    scratch.check_held(&drained.held);
    assert_eq!(scratch.check((0..COUNT).filter(is_free)).duplicates, 0);
    // On a better line.
    scratch.kafka.relay(0).pass();
    let drained = drain(OnTooSlow::Hold, Until::Empty, &|_| false);
    assert!(drained.is_empty, "{:?}", drained.held);
    assert_eq!(scratch.check(0..COUNT).duplicates, 0);
}
