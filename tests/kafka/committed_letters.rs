//! Dead letters under `drain --exactly-once`: sent again and copied, each once, through kills.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::Progress;
use ferrylog::ship::dead_letter::DeadLetterTopic;
use ferrylog::ship::exactly_once::{self, Committed, ExactlyOnceOptions};
use ferrylog::store::{
    Cause, Content, DeadLetterOptions, DeadLetters, LaneOptions, Letter, Origin, Stage, Store,
    StoreOptions,
};
use ferrylog::wal::fs::RealFs;
use ferrylog::wal::{Class, Options, SeqNo};

use crate::exactly_once::{EXACTLY_ONCE, kill_in_commit};
use crate::gateway::{self, Gateway, content_of};
use crate::kafka::{Kafka, wait_for};
use crate::random::{self, Random};

const LIMIT: (&str, &str) = ("max.message.bytes", "20000");
const LARGE: usize = 30_000;
const PLAIN: [&str; 3] = [EXACTLY_ONCE, "--property", "compression.type=none"];
/// Longest wait for what must happen at last.
const SOON: Duration = Duration::from_secs(60);

const COPYING: [&str; 2] = ["--dead-letter-topic", "{topic}.dlq"];

/// The numbers of the records that a topic's records are, or are copies of: each once.
fn numbers(kafka: &Kafka, topic: &str) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    kafka.consume_each(topic, |record| {
        let id = record.header("ferry-id").or(record.header("dlq.seq"));
        let id = id.unwrap();
        let number = id.rsplit('-').next().unwrap().parse().unwrap();
        assert!(numbers.insert(number), "{number} is twice in {topic}");
    });
    numbers
}

#[test]
fn letters_are_sent_again_and_copied_once_through_kills_inside_the_commit() {
    const COUNT: u64 = 4_000;
    const KILLS: u64 = 16;
    let seed = random::seed();
    let mut random = Random(seed);
    let is_bad = |n: u64| (1000..3000).contains(&n);
    let kafka = Kafka::start();
    kafka.create_topic("t", 2);
    kafka.create_topic("t.dlq", 2);
    let gateway = Gateway::new();
    gateway.send_each("t", (0..COUNT).map(|n| content_of(seed, n, 100)));
    bury(&gateway, is_bad);
    gateway.drain(&kafka, &PLAIN).expect(0);
    let bad: BTreeSet<u64> = (0..COUNT).filter(|n| is_bad(*n)).collect();
    let all: BTreeSet<u64> = (0..COUNT).collect();
    let good: BTreeSet<u64> = all.difference(&bad).copied().collect();
    assert_eq!(numbers(&kafka, "t"), good);

    // The older half is sent again, and all are copied.
    let store = Store::open(&gateway.data, Options::default()).unwrap();
    let letters = store.dead_letters().unwrap();
    let open = letters.open_letters(|_, _, _| true);
    letters.mark_pending(&open[..open.len() / 2]).unwrap();
    store.close().unwrap();
    let again: BTreeSet<u64> = bad.iter().copied().filter(|n| *n < 2000).collect();
    let arguments = [&PLAIN[..], &COPYING].concat();
    let mut killed = 0;
    for kill in 0..KILLS {
        let offsets = ["--progress", "offsets"];
        let progress = if kill % 2 == 0 { &offsets[..] } else { &[] };
        let drain = gateway.start_drain(&kafka, &[&arguments[..], progress].concat());
        // Steps through the commit, which takes a few milliseconds, and beyond it.
        let delay = Duration::from_micros(kill / 2 * 1500 + random.below(1500));
        killed += u64::from(kill_in_commit(&gateway, drain, delay));
    }
    println!("{killed} kills");
    assert!(killed >= 8, "it was killed in the middle");
    gateway.drain(&kafka, &arguments).expect(0);
    assert_eq!(numbers(&kafka, "t"), &good | &again);
    assert_eq!(numbers(&kafka, "t.dlq"), bad);
    let told = gateway.drain(&kafka, &arguments).expect_json(0).remove(0);
    assert_eq!((&told["replayed"], &told["copied"]), (&0.into(), &0.into()));
}

/// Makes dead letters of these records, as a broker's refusals would.
fn bury(gateway: &Gateway, is_bad: impl Fn(u64) -> bool) {
    let store = Store::open(&gateway.data, Options::default()).unwrap();
    let lane = store.lane();
    let mut reader = lane.reader(lane.marks().first);
    while let Some(entry) = reader.next().unwrap() {
        if !is_bad(entry.seq.get()) {
            continue;
        }
        let message = entry.message.unwrap();
        message.with_ref(|message| bury_one(&store, entry.seq, message));
    }
    lane.save_cursor().unwrap();
    store.close().unwrap();
}

/// Makes a dead letter of a record of the first lane, and returns its number.
pub(crate) fn bury_one(store: &Store, seq: SeqNo, message: &MessageRef<'_>) -> SeqNo {
    let lane = store.lane();
    let letter = Letter {
        origin: Origin {
            log_id: lane.log_id(),
            seq,
        },
        lane: lane.name(),
        cause: Cause {
            class: "poison",
            code: 10,
            stage: Stage::Produce,
            reason: "a test's",
            attempts: 1,
            first_attempt_millis: 0,
            last_attempt_millis: 0,
        },
        content: Content::Message(*message),
    };
    let number = store.dead_letters().unwrap().add(&letter).unwrap();
    lane.settle(seq..seq + 1, Class::DeadLettered);
    number
}

fn ship(store: &Store, kafka: &Kafka, topic: Option<&str>) -> Committed {
    let mut settings = Settings::new(kafka.bootstrap_servers());
    let plain = ("compression.type".to_owned(), "none".to_owned());
    settings.properties.push(plain);
    let mut options = ExactlyOnceOptions::default();
    options.ship.dead_letters.topic = topic.map(|topic| DeadLetterTopic::new(topic).unwrap());
    let stop = AtomicBool::new(false);
    exactly_once::drain(store, &settings, &options, &stop, &mut |_| {}).unwrap()
}

/// In a lane that is not the one that ships the letters.
#[test]
fn refused_letters_stay_and_missing_topics_hold_only_them_and_too_large_copies_become_pointers() {
    const COUNT: u64 = 300;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic_with("t", 1, &[LIMIT]);
    let gateway = Gateway::new();
    let mut options = StoreOptions::new(Options::default());
    let mut lane = LaneOptions::new(Options::default());
    lane.topics = vec!["t".to_owned()];
    options.lanes.insert("other".to_owned(), lane);
    let store = Store::open_with(&gateway.data, &options).unwrap();
    let lane = store.route("t");
    let is_bad = |n: u64| n % 100 == 50;
    for n in 0..COUNT {
        let (key, value) = content_of(seed, n, if is_bad(n) { LARGE } else { 100 });
        let message = MessageRef {
            key: key.as_deref(),
            value: Some(&value),
            ..MessageRef::to("t")
        };
        drop(lane.append(&message).unwrap());
    }
    lane.sync().unwrap();

    let committed = ship(&store, &kafka, Some("dead"));
    let drained = &committed.drained;
    println!("{:?}", drained.held);
    assert_eq!(
        (drained.shipped, drained.counters.dead_lettered),
        (COUNT - 3, 3)
    );
    assert_eq!((drained.is_empty, drained.held.len()), (false, 1));
    assert_eq!(
        (&*drained.held[0].topic, drained.held[0].why.kind()),
        ("dead", "unknown_topic")
    );

    kafka.create_topic_with("dead", 1, &[LIMIT]);
    let letters = store.dead_letters().unwrap();
    let open = letters.open_letters(|_, _, _| true);
    letters.mark_pending(&open).unwrap();
    let committed = ship(&store, &kafka, Some("dead"));
    let counters = &committed.drained.counters;
    assert!(committed.drained.is_empty, "{:?}", committed.drained.held);
    assert_eq!((counters.copied, counters.copies_refused), (3, 0));
    assert_eq!((counters.replayed, counters.replays_refused), (0, 3));
    for copy in kafka.consume("dead") {
        assert_eq!(copy.value, None, "a pointer");
        assert!(copy.header("dlq.kept-seq").is_some());
    }
    assert_eq!(letters.counts().kept, 3);

    kafka.alter_topic("t", &[]);
    letters.mark_pending(&open).unwrap();
    let committed = ship(&store, &kafka, None);
    assert_eq!(committed.drained.counters.replayed, 3);
    assert_eq!(numbers(&kafka, "t"), (0..COUNT).collect());
    assert_eq!(numbers(&kafka, "dead").len(), 3);
    store.close().unwrap();
}

/// As a process leaves it that ended between a commit and what is written down of it, and then the log of
/// the letters cannot be opened.
#[test]
fn letters_that_were_committed_while_their_log_fails_hold_up_nothing_and_are_not_sent_again() {
    const COUNT: u64 = 500;
    let seed = random::seed();
    let is_bad = |n: u64| n % 10 == 5;
    let bad = COUNT / 10;
    let kafka = Kafka::start();
    kafka.create_topic("t", 2);
    let gateway = Gateway::new();
    gateway.send_each("t", (0..COUNT).map(|n| content_of(seed, n, 100)));
    bury(&gateway, is_bad);
    gateway.drain(&kafka, &PLAIN).expect(0);
    let store = Store::open(&gateway.data, Options::default()).unwrap();
    let letters = store.dead_letters().unwrap();
    let open = letters.open_letters(|_, _, _| true);
    letters.mark_pending(&open).unwrap();
    store.close().unwrap();
    let (log, before) = (
        gateway.data.join("dead-letters"),
        gateway.data.join("before"),
    );
    let copy = |from: &Path, to: &Path| {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    copy(&log, &before);
    let told = gateway.drain(&kafka, &PLAIN).expect_json(0).remove(0);
    assert_eq!(told["replayed"], bad);
    fs::remove_dir_all(&log).unwrap();
    copy(&before, &log);
    let store = Store::open(&gateway.data, Options::default()).unwrap();
    let mut intents = store.lane().intents().unwrap();
    let mut intent = intents.intent().unwrap().clone();
    intent.letters.as_mut().unwrap().is_done = false;
    intents.write(intent).unwrap();
    drop(intents);

    // Whoever has it open keeps others out.
    let (options, log_options) = (DeadLetterOptions::default(), Options::default());
    let locked = DeadLetters::open_on(Arc::new(RealFs), &log, options, &log_options).unwrap();
    let more = |count: u64| {
        let new = store.lane().totals().accepted..count;
        gateway::fill(store.lane(), new, seed, 100, |_| "t");
    };
    let is_told = |told: Progress| {
        let held = &told.held[..];
        held.len() == 1 && &*held[0].topic == "(dead letters)"
    };
    let options = ExactlyOnceOptions::default();
    crate::committed_holds::ship(&store, &kafka, &options, |now| {
        wait_for("the reason", SOON, || is_told(now()));
        println!("{:?}", now().why);
        more(2 * COUNT);
        wait_for("the records", SOON, || store.lane().totals().queued == 0);
        assert!(is_told(now()));
    });
    // What is there at the start may have a letter, as far as anybody can tell.
    more(3 * COUNT);
    crate::committed_holds::ship(&store, &kafka, &options, |now| {
        wait_for("the reason", SOON, || is_told(now()));
        assert_eq!(store.lane().totals().queued, COUNT);
        locked.close().unwrap();
        wait_for("the letters", SOON, || now().held.is_empty());
        wait_for("the records", SOON, || store.lane().totals().queued == 0);
    });
    let counts = store.dead_letters().unwrap().counts();
    assert_eq!((counts.pending, counts.replayed), (0, bad));
    assert_eq!(numbers(&kafka, "t"), (0..3 * COUNT).collect());
    store.close().unwrap();
}
