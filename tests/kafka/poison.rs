//! Records that Kafka refuses for themselves: each alone stands in the dead letters, byte for byte,
//! and goes out from there when the cause is gone. A topic that refuses everything kills nothing.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ferrylog::message::MessageRef;
use ferrylog::store::Store;
use ferrylog::wal::{Durability, Options};
use serde_json::Value;

use crate::copies::{self, Content};
use crate::gateway::{Gateway, content_of};
use crate::kafka::Kafka;
use crate::program::run;
use crate::random;

/// What Kafka says.
const MESSAGE_TOO_LARGE: i64 = 10;
const INVALID_RECORD: i64 = 87;

/// Letters that one topic may make in a row.
const STORM: usize = 100;

/// Appends record by record, which the command line could not: some have no key.
fn append(gateway: &Gateway, records: impl Iterator<Item = (String, Content)>) {
    let mut options = Options::default();
    options.durability = Durability::Os;
    let store = Store::open(&gateway.data, options).unwrap();
    for (topic, (key, value)) in records {
        let message = MessageRef {
            key: key.as_deref(),
            value: Some(&value),
            ..MessageRef::to(&topic)
        };
        // The sync below waits for all of them.
        drop(store.lane().append(&message).unwrap());
    }
    store.lane().sync().unwrap();
    store.close().unwrap();
}

/// The dead letters that lie open, by the number that the record had.
fn letters(gateway: &Gateway) -> BTreeMap<u64, Value> {
    let listed = run(&gateway.data, ["dead-letters", "list", "--json"]).expect_json(0);
    let numbered = listed
        .into_iter()
        .map(|line| (number(&line["origin_seq"]), line));
    numbered.collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// Key or value of a line, as bytes.
fn bytes(line: &Value, name: &str) -> Option<Vec<u8>> {
    if let Some(text) = line[name].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    let encoded = line[format!("{name}_base64")].as_str()?;
    Some(BASE64.decode(encoded).unwrap())
}

/// How often each record of the log is in a topic, whatever their order.
fn copies_of(kafka: &Kafka, topic: &str, content: impl Fn(u64) -> Content) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    kafka.consume_each(topic, |record| {
        let id = record.header("ferry-id").unwrap();
        let seq: u64 = id.split_once('-').unwrap().1.parse().unwrap();
        let (key, value) = content(seq);
        assert_eq!(
            (record.key.clone(), record.value.clone()),
            (key, Some(value))
        );
        *found.entry(seq).or_default() += 1;
    });
    found
}

#[track_caller]
fn expect_each_once(found: &BTreeMap<u64, usize>, expected: impl Iterator<Item = u64>) {
    let missing = expected.filter(|n| !found.contains_key(n)).count();
    let twice = found.values().filter(|&&copies| copies > 1).count();
    assert_eq!(
        (missing, twice),
        (0, 0),
        "missing, and there more than once"
    );
}

#[test]
fn one_bad_record_in_a_hundred_is_set_aside_alone_and_replayed_when_the_cause_is_gone() {
    const COUNT: u64 = 20_000;
    const TOPICS: [&str; 2] = ["limited", "compacted"];
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic_with("limited", 2, &[("max.message.bytes", "50000")]);
    kafka.create_topic_with("compacted", 2, &[("cleanup.policy", "compact")]);
    let topic = |n: u64| TOPICS[(n % 2) as usize];
    let is_bad = |n: u64| n % 200 == 50 || n % 200 == 51;
    // Half of the bad ones is too large for one topic, the other half lacks the key the other needs.
    let content = |n: u64| match (is_bad(n), topic(n)) {
        (true, "limited") => content_of(seed, n, 60_000),
        (true, _) => (None, content_of(seed, n, 100).1),
        (false, _) => content_of(seed, n, 100),
    };
    let gateway = Gateway::new();
    append(
        &gateway,
        (0..COUNT).map(|n| (topic(n).to_owned(), content(n))),
    );

    let told = gateway.drain(&kafka, &[]).expect_json(1).remove(0);
    println!("{told}");
    let bad: BTreeSet<u64> = (0..COUNT).filter(|&n| is_bad(n)).collect();
    let status = gateway.status();
    assert_eq!(status.count("dead_lettered"), bad.len() as u64);
    assert_eq!(status.count("queued"), 0);
    for name in TOPICS {
        let good = (0..COUNT)
            .filter(|&n| topic(n) == name && !is_bad(n))
            .collect();
        let repeats = copies::check_those(&kafka, name, &status.log_id, good, content);
        println!("{name}: {repeats:?}");
        assert_eq!(repeats.duplicates, 0);
    }

    let letters = letters(&gateway);
    assert_eq!(letters.keys().copied().collect::<BTreeSet<_>>(), bad);
    let shown: Vec<String> = letters
        .values()
        .map(|letter| letter["seq"].to_string())
        .collect();
    let show = ["dead-letters", "show", "--json"]
        .into_iter()
        .map(String::from);
    for letter in run(&gateway.data, show.chain(shown)).expect_json(0) {
        let n = number(&letter["origin_seq"]);
        let code = if topic(n) == "limited" {
            MESSAGE_TOO_LARGE
        } else {
            INVALID_RECORD
        };
        assert_eq!(letter["code"], code, "{n}");
        assert_eq!(
            (&letter["class"], &letter["stage"]),
            (&"poison".into(), &"produce".into())
        );
        assert_eq!(letter["topic"], topic(n));
        let (key, value) = content(n);
        assert_eq!(
            (bytes(&letter, "key"), bytes(&letter, "value")),
            (key, Some(value))
        );
    }

    kafka.alter_topic("limited", &[]);
    kafka.alter_topic("compacted", &[("cleanup.policy", "delete")]);
    run(&gateway.data, ["dead-letters", "replay", "--all"]).expect(0);
    gateway.drain(&kafka, &[]).expect(0);
    for name in TOPICS {
        let found = copies_of(&kafka, name, content);
        expect_each_once(&found, (0..COUNT).filter(|&n| topic(n) == name));
    }
    assert_eq!(
        run(&gateway.data, ["dead-letters", "list", "--json"]).expect(0),
        ""
    );
}

#[test]
fn a_limit_lowered_by_mistake_makes_no_more_than_a_hundred_dead_letters() {
    const COUNT: u64 = 100_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic_with("lowered", 1, &[("max.message.bytes", "100")]);
    let content = |n| content_of(seed, n, 200);
    let gateway = Gateway::new();
    append(
        &gateway,
        (0..COUNT).map(|n| ("lowered".to_owned(), content(n))),
    );

    let message = gateway
        .drain(&kafka, &[])
        .expect_failure(1, "everything_refused");
    println!("{message}");
    let letters = letters(&gateway);
    println!("{} dead letters", letters.len());
    assert!(letters.len() <= STORM, "{} dead letters", letters.len());
    assert_eq!(kafka.watch("lowered").total(), 0);

    kafka.alter_topic("lowered", &[]);
    // What was set aside stays so until somebody decides about it.
    gateway.drain(&kafka, &[]).expect(0);
    let found = copies_of(&kafka, "lowered", content);
    assert_eq!(found.len() + letters.len(), COUNT as usize);
    run(&gateway.data, ["dead-letters", "replay", "--all"]).expect(0);
    gateway.drain(&kafka, &[]).expect(0);
    let found = copies_of(&kafka, "lowered", content);
    expect_each_once(&found, 0..COUNT);
}
