//! Several lanes of one `drain --exactly-once`: each goes its own way, and none waits for another.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::producer::Unhealthy;
use ferrylog::ship::exactly_once::{self, ExactlyOnceOptions};
use ferrylog::ship::{Error, Recovery, Until};
use ferrylog::store::{LaneOptions, Store, StoreOptions};
use ferrylog::wal::{Durability, Options};
use ferrylog::{Outcome, Producer};

use crate::exactly_once::EXACTLY_ONCE;
use crate::gateway::{Gateway, content_of};
use crate::kafka::{Kafka, wait_for};
use crate::lanes::fill;
use crate::random;

const SOON: Duration = Duration::from_secs(60);

/// A lane of its own for each of these topics.
fn lanes(topics: &[&str]) -> StoreOptions {
    let mut log = Options::default();
    log.durability = Durability::Os;
    let mut options = StoreOptions::new(log.clone());
    for topic in topics {
        let mut lane = LaneOptions::new(log.clone());
        lane.topics = vec![(*topic).to_owned()];
        options.lanes.insert((*topic).to_owned(), lane);
    }
    options
}

fn open(gateway: &Gateway, topics: &[&str]) -> Store {
    Store::open_with(&gateway.data, &lanes(topics)).unwrap()
}

/// 64 kbit/s, bulk first, and no end of any lane but by a stop.
#[test]
fn an_alarm_is_committed_within_ten_seconds_whatever_lies_in_bulk_and_waits_for_no_lanes_end() {
    const RATE: u32 = 64_000 / 8;
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    kafka.create_topic("bulk", 4);
    kafka.create_topic("alarm", 1);
    let gateway = Gateway::new();
    let store = open(&gateway, &["bulk", "alarm"]);
    fill(&store, "bulk", seed, 2_000, 400);
    kafka.relay(0).limit(RATE);
    let mut options = ExactlyOnceOptions::default();
    options.ship.until = Until::Stopped;
    let settings = Settings::new(kafka.bootstrap_servers());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let run = || exactly_once::drain(&store, &settings, &options, &stop, &mut |_| {});
        let shipping = scope.spawn(run);
        wait_for("bulk", SOON, || kafka.consume("bulk").len() >= 50);
        for n in 1..=3 {
            let raised = Instant::now();
            fill(&store, "alarm", seed, 1, 100);
            wait_for("the alarm", SOON, || kafka.consume("alarm").len() == n);
            let took = raised.elapsed();
            println!("alarm {n}: {took:.1?}");
            assert!(took < Duration::from_secs(10), "{took:?}");
        }
        assert!(store.route("bulk").totals().queued > 0, "nothing is left");
        kafka.relay(0).pass();
        wait_for("the rest", SOON, || store.totals().queued == 0);
        stop.store(true, Ordering::Relaxed);
        let committed = shipping.join().unwrap().unwrap();
        assert_eq!(committed.drained.shipped, 2_003);
    });
    store.close().unwrap();
    assert_eq!(kafka.consume("bulk").len(), 2_000);
}

/// Of a backup, one lane went on elsewhere since.
#[test]
fn a_lane_that_only_a_person_can_help_holds_up_no_other() {
    const COUNT: u64 = 1_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    for topic in ["first", "second"] {
        kafka.create_topic(topic, 1);
    }
    let gateway = Gateway::new();
    let drain = |store: &Store, told: &mut Vec<String>| {
        let settings = Settings::new(kafka.bootstrap_servers());
        let (options, stop) = (ExactlyOnceOptions::default(), AtomicBool::new(false));
        exactly_once::drain(store, &settings, &options, &stop, &mut |now| {
            told.extend(now.why.clone());
        })
    };
    let store = open(&gateway, &["first", "second"]);
    for topic in ["first", "second"] {
        fill(&store, topic, seed, COUNT, 100);
    }
    let committed = drain(&store, &mut Vec::new()).unwrap();
    assert_eq!(committed.drained.shipped, 2 * COUNT);
    store.close().unwrap();
    let of_first = gateway.data.join("lanes/first.intent");
    let backup = gateway.data.join("lanes/backup");
    fs::copy(&of_first, &backup).unwrap();
    let store = open(&gateway, &["first", "second"]);
    fill(&store, "first", seed, COUNT, 100);
    drain(&store, &mut Vec::new()).unwrap();
    for topic in ["first", "second"] {
        fill(&store, topic, seed, COUNT, 100);
    }
    store.close().unwrap();
    fs::rename(&backup, &of_first).unwrap();
    let store = open(&gateway, &["first", "second"]);
    let mut told = Vec::new();
    let error = drain(&store, &mut told).unwrap_err();
    assert!(matches!(error, Error::ExactlyOnce(_)), "{error}");
    println!("{:?}", told.last());
    let is_named = |why: &String| why.contains("lane `first`: stopped: another store ships");
    assert!(told.iter().any(is_named), "{told:?}");
    assert_eq!(store.route("first").totals().queued, COUNT);
    assert_eq!(store.route("second").totals().queued, 0);
    store.close().unwrap();
    assert_eq!(kafka.consume("second").len() as u64, 2 * COUNT);
}

#[test]
fn ten_lanes_are_drained_within_the_memory_of_one() {
    const COUNT: u64 = 12_000;
    const PEAK_MAX_KIB: u64 = 160 * 1024;
    let seed = random::seed();
    let kafka = Kafka::start();
    let topics: Vec<String> = (0..10).map(|n| format!("t{n}")).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let gateway = Gateway::new();
    let store = open(&gateway, &topics);
    for topic in &topics {
        kafka.create_topic(topic, 1);
        fill(&store, topic, seed, COUNT, 1024);
    }
    store.close().unwrap();
    let mut drain = gateway.start_drain(&kafka, &[EXACTLY_ONCE]);
    let status = format!("/proc/{}/status", drain.id());
    let mut peak = 0;
    while !drain.has_ended() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        thread::sleep(Duration::from_millis(5));
    }
    println!("peak: {} MiB", peak / 1024);
    drain.end().expect(0);
    assert!(peak > 0 && peak < PEAK_MAX_KIB, "{peak} KiB");
    for topic in topics {
        assert_eq!(kafka.consume(topic).len() as u64, COUNT, "{topic}");
    }
}

/// What is too large is refused, and its callback asked, which panics until the other lane is done.
#[test]
fn a_lane_whose_callback_panics_says_so_and_begins_again_and_no_other_one_waits() {
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic_with("small", 1, &[("max.message.bytes", "20000")]);
    kafka.create_topic("other", 1);
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let gateway = Gateway::new();
    let settings = Settings::new(kafka.bootstrap_servers());
    let producer = Producer::builder(&gateway.data, settings)
        .store(lanes(&["small", "other"]))
        .exactly_once(ExactlyOnceOptions::default())
        .on_exhausted(move |_| {
            let is_well = is_well.load(Ordering::SeqCst);
            assert!(is_well, "a function of the program");
            Recovery::DeadLetter
        });
    let producer = producer.open().unwrap();
    let send = |topic, len| {
        let message = MessageRef {
            // Which does not compress.
            value: Some(&content_of(seed, 0, len).1),
            ..MessageRef::to(topic)
        };
        producer.send(&message).unwrap()
    };
    let outcome = |receipt: ferrylog::Receipt<'_>| receipt.delivered().wait_for(SOON).unwrap();
    let large = send("small", 30_000);
    let trouble = || match producer.health(Duration::ZERO) {
        Err(Unhealthy::Shipping { error, .. }) => error,
        _ => String::new(),
    };
    wait_for("word of it", SOON, || {
        let said = trouble();
        said.contains("lane `small`") && said.contains("a function of the program")
    });
    println!("{}", trouble());
    assert_eq!(outcome(send("other", 10)), Outcome::Shipped);
    assert_eq!(large.outcomes().next(), Some(None));
    well.store(true, Ordering::SeqCst);
    assert_eq!(outcome(large), Outcome::DeadLettered);
    assert_eq!(outcome(send("small", 10)), Outcome::Shipped);
    producer.health(SOON).unwrap();
}
