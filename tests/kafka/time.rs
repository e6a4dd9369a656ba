//! Records of a gateway whose clock is wrong: none is lost by that, and each has its time in Kafka.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::{self, Drained, ShipOptions};
use ferrylog::store::{Reading, Store, StoreOptions, TimeSource};
use ferrylog::wal::{Durability, Options};
use tempfile::TempDir;

use crate::kafka::Kafka;

const HOUR: i64 = 3_600_000;

/// Clocks that the test sets.
#[derive(Debug)]
struct Machine(Mutex<(Reading, bool)>);

impl Machine {
    fn new(wall_millis: i64, is_synchronised: bool) -> Arc<Machine> {
        let reading = Reading {
            wall_millis,
            uptime_millis: 60_000,
        };
        Arc::new(Machine(Mutex::new((reading, is_synchronised))))
    }

    fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        let reading = &mut self.0.lock().unwrap().0;
        reading.wall_millis += millis.cast_signed();
        reading.uptime_millis += millis;
    }

    /// NTP steps the clock.
    fn step(&self, wall_millis: i64) {
        let mut state = self.0.lock().unwrap();
        (state.0.wall_millis, state.1) = (wall_millis, true);
    }
}

impl TimeSource for Machine {
    fn boot(&self) -> u64 {
        7
    }

    fn read(&self) -> Reading {
        self.0.lock().unwrap().0
    }

    fn is_synchronised(&self) -> bool {
        self.0.lock().unwrap().1
    }
}

/// Not after the log's own clock, which is the system's coarse one: a tick behind.
fn real_millis() -> i64 {
    const TICK_MAX: i64 = 20;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap() - TICK_MAX
}

fn open(machine: &Arc<Machine>, expires_after: Option<Duration>) -> (Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Options::default();
    log.durability = Durability::Os;
    let mut options = StoreOptions::new(log);
    options.default.expires_after = expires_after;
    options.clock.source = machine.clone();
    let store = Store::open_with(dir.path().join("store"), &options).unwrap();
    (store, dir)
}

/// Appends records with the time of the append, or another one.
fn fill(store: &Store, count: u64, timestamp_millis: Option<i64>) {
    for n in 0..count {
        let value = n.to_string();
        let message = MessageRef {
            value: Some(value.as_bytes()),
            timestamp_millis,
            ..MessageRef::to("t")
        };
        // The sync below waits for all of them.
        drop(store.lane().append(&message).unwrap());
    }
    store.lane().sync().unwrap();
}

fn drain(store: &Store, kafka: &Kafka) -> Drained {
    let settings = Settings::new(kafka.bootstrap_servers());
    let stop = false.into();
    ship::drain(
        store,
        &settings,
        &ShipOptions::default(),
        &stop,
        &mut |_| {},
    )
    .unwrap()
}

#[test]
fn what_was_appended_in_1970_expires_by_its_true_age_and_arrives_with_its_true_time() {
    let kafka = Kafka::start();
    kafka.create_topic("t", 2);
    let machine = Machine::new(5_000, false);
    let (store, _dir) = open(&machine, Some(Duration::from_secs(3600)));
    fill(&store, 50, None);
    machine.pass(Duration::from_secs(3 * 3600));
    fill(&store, 100, None);
    machine.pass(Duration::from_secs(10 * 60));
    let now = real_millis();
    machine.step(now);
    fill(&store, 100, None);
    let drained = drain(&store, &kafka);
    // Those of more than three hours ago, which the step did not make older.
    assert_eq!((drained.counters.expired, drained.shipped), (50, 200));
    let mut times: Vec<i64> = Vec::new();
    kafka.consume_each("t", |record| {
        assert_eq!(record.header("ferry-time"), None);
        times.push(record.timestamp_millis.unwrap());
    });
    let corrected = times.iter().filter(|time| **time == now - 600_000);
    let is_near = |time: &&i64| (now..now + 60_000).contains(*time);
    let others = times.iter().filter(is_near);
    assert_eq!((corrected.count(), others.count()), (100, 100), "{times:?}");
}

/// Kafka 4 refuses what is more than an hour ahead, and a gateway that believes its clock cannot
/// know better: nothing is said of the time then.
#[test]
fn records_of_a_clock_three_hours_ahead_are_restamped_and_none_is_dead() {
    let kafka = Kafka::start();
    kafka.create_topic("t", 2);
    let ahead = real_millis() + 3 * HOUR;
    let (store, _dir) = open(&Machine::new(ahead, true), None);
    fill(&store, 3000, Some(ahead));
    let drained = drain(&store, &kafka);
    assert_eq!((drained.shipped, drained.counters.dead_lettered), (3000, 0));
    let mut count = 0;
    kafka.consume_each("t", |record| {
        count += 1;
        assert_eq!(record.header("ferry-time"), Some(&*ahead.to_string()));
        assert_eq!(record.timestamp_millis, None, "-1 is what says none");
    });
    assert_eq!(count, 3000);
}

/// A sensor whose clock is ahead, behind a gateway whose clock is right.
#[test]
fn a_timestamp_that_was_given_three_hours_ahead_becomes_now() {
    let kafka = Kafka::start();
    kafka.create_topic("t", 1);
    let now = real_millis();
    let (store, _dir) = open(&Machine::new(now, true), None);
    let given = now + 3 * HOUR;
    fill(&store, 100, None);
    fill(&store, 1, Some(given));
    fill(&store, 100, None);
    let drained = drain(&store, &kafka);
    assert_eq!((drained.shipped, drained.counters.dead_lettered), (201, 0));
    let records = kafka.consume("t");
    for record in &records {
        let time = record.timestamp_millis.unwrap();
        assert!((now..now + 60_000).contains(&time), "{record:?}");
    }
    let restamped: Vec<_> = records
        .iter()
        .filter_map(|r| r.header("ferry-time"))
        .collect();
    assert_eq!(restamped, [given.to_string()]);
}
