//! What a real cluster refuses for itself: it is found alone, kept, copied, and sent again once the
//! cause is gone; everything else arrives in order.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::dead_letter::{DeadLetterStyle, DeadLetterTopic};
use ferrylog::ship::{self, Drained, ShipOptions};
use ferrylog::store::{DeadLetters, Store};
use ferrylog::wal::{Durability, Options};
use serde_json::Value;
use tempfile::TempDir;

use crate::gateway::{Gateway, content_of};
use crate::kafka::{Consumed, Kafka};
use crate::program::run;
use crate::random;
use crate::shipping::Shipping;

/// Values of this length are refused where the limit is half of it.
const LARGE: usize = 4000;
const LIMIT: (&str, &str) = ("max.message.bytes", "2000");

/// A store of which each record `n` is made from `n`: one in a hundred is bad, at no regular distance.
struct Scratch {
    store: Arc<Store>,
    seed: u64,
    _dir: TempDir,
}

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.durability = Durability::Os;
        Scratch {
            store: Arc::new(Store::open(dir.path().join("store"), options).unwrap()),
            seed: random::seed(),
            _dir: dir,
        }
    }

    fn is_bad(&self, n: u64) -> bool {
        (n ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < (1 << 32) / 100
    }

    fn bad(&self, count: u64) -> BTreeSet<u64> {
        (0..count).filter(|&n| self.is_bad(n)).collect()
    }

    /// Key and value: what is bad is too long, or has no key.
    fn content(&self, n: u64, bad_is_long: bool) -> (Option<Vec<u8>>, Vec<u8>) {
        let is_long = bad_is_long && self.is_bad(n);
        let (key, value) = content_of(self.seed, n, if is_long { LARGE } else { 100 });
        let key = key.filter(|_| bad_is_long || !self.is_bad(n));
        (key, value)
    }

    fn fill(&self, topic: &str, count: u64, bad_is_long: bool) {
        let lane = self.store.lane();
        for n in lane.totals().accepted..count {
            let (key, value) = self.content(n, bad_is_long);
            let message = MessageRef {
                key: key.as_deref(),
                value: Some(&value),
                ..MessageRef::to(topic)
            };
            // The sync below waits for all of them.
            drop(lane.append(&message).unwrap());
        }
        lane.sync().unwrap();
    }

    fn drain(&self, kafka: &Kafka, options: &ShipOptions) -> Drained {
        let stop = AtomicBool::new(false);
        let settings = settings(kafka);
        let drained = ship::drain(&self.store, &settings, options, &stop, &mut |_| {}).unwrap();
        assert!(self.store.lane().totals().balances());
        drained
    }

    fn letters(&self) -> &DeadLetters {
        self.store.dead_letters().unwrap()
    }

    /// The origins of all letters that lie open; each is its record, byte for byte.
    fn check_letters(&self, bad_is_long: bool, code: i32) -> BTreeSet<u64> {
        let letters = self.letters();
        let mut origins = BTreeSet::new();
        for seq in letters.open_letters(|_, _, _| true) {
            let body = letters.get(seq).unwrap().unwrap().body;
            let origin = body.origin.seq.get();
            assert_eq!((&*body.class, body.code), ("poison", code), "{origin}");
            let message = body.content.unwrap();
            let (key, value) = self.content(origin, bad_is_long);
            assert_eq!(message.key.as_deref(), key.as_deref(), "{origin}");
            assert_eq!(message.value.as_deref(), Some(&*value), "{origin}");
            assert!(origins.insert(origin), "{origin} is there twice");
        }
        origins
    }

    /// First copies are in order but for those sent again, none comes twice, and just those of
    /// `expected` are there.
    fn check(
        &self,
        kafka: &Kafka,
        topic: &str,
        expected: &BTreeSet<u64>,
        replayed: &BTreeSet<u64>,
    ) {
        let mut found = BTreeSet::new();
        let mut newest = BTreeMap::new();
        for record in kafka.consume(topic) {
            let n = origin(&record);
            assert!(found.insert(n), "{n} comes twice");
            if !replayed.contains(&n) {
                let before = newest.insert(record.partition, n);
                assert!(before < Some(n), "{n} after {before:?}");
            }
        }
        assert_eq!(&found, expected, "{topic}");
    }
}

fn settings(kafka: &Kafka) -> Settings {
    // The limit is on what is compressed.
    let mut properties = kafka.client_properties();
    properties.push(("compression.type".to_owned(), "none".to_owned()));
    Settings {
        properties,
        ..Settings::new(kafka.bootstrap_servers())
    }
}

fn origin(record: &Consumed) -> u64 {
    let id = record.header("ferry-id").unwrap();
    id.split_once('-').unwrap().1.parse().unwrap()
}

fn to_topic(template: &str, style: DeadLetterStyle) -> ShipOptions {
    let mut options = ShipOptions::default();
    options.dead_letters.topic = Some(DeadLetterTopic::new(template).unwrap());
    options.dead_letters.style = style;
    options
}

fn poison_is_found_and_replayed(bad_is_long: bool, config: (&str, &str), code: i32) {
    const COUNT: u64 = 20_000;
    let kafka = Kafka::start();
    kafka.create_topic_with("t", 2, &[config]);
    let scratch = Scratch::new();
    scratch.fill("t", COUNT, bad_is_long);
    let bad = scratch.bad(COUNT);
    let drained = scratch.drain(&kafka, &ShipOptions::default());
    println!(
        "{} bad of {COUNT}: {:?}, {} rebuilds, {} came back",
        bad.len(),
        drained.elapsed,
        drained.rebuilds,
        drained.counters.refused,
    );
    assert!(drained.is_empty, "{:?}", drained.held);
    assert_eq!(scratch.check_letters(bad_is_long, code), bad);
    let all: BTreeSet<u64> = (0..COUNT).collect();
    let good: BTreeSet<u64> = all.difference(&bad).copied().collect();
    scratch.check(&kafka, "t", &good, &bad);

    // As long as the cause is there a replay changes nothing.
    let letters = scratch.letters();
    let open = letters.open_letters(|_, _, _| true);
    letters.mark_pending(&open[..10]).unwrap();
    let drained = scratch.drain(&kafka, &ShipOptions::default());
    assert_eq!(
        (drained.is_empty, drained.counters.replays_refused),
        (true, 10)
    );
    assert_eq!(scratch.check_letters(bad_is_long, code), bad);

    kafka.alter_topic("t", &[]);
    letters.mark_pending(&open).unwrap();
    let drained = scratch.drain(&kafka, &ShipOptions::default());
    println!("replayed {}: {:?}", open.len(), drained.elapsed);
    assert!(drained.is_empty, "{:?}", drained.held);
    assert_eq!(drained.counters.replayed, bad.len() as u64);
    assert_eq!(letters.counts().kept + letters.counts().pending, 0);
    scratch.check(&kafka, "t", &all, &bad);
}

#[test]
fn records_over_a_topics_limit_are_found_alone_and_delivered_once_it_is_raised() {
    poison_is_found_and_replayed(true, LIMIT, 10);
}

#[test]
fn records_without_a_key_for_a_compacted_topic_are_found_alone_and_delivered_once_it_is_not() {
    poison_is_found_and_replayed(false, ("cleanup.policy", "compact"), 87);
}

#[test]
fn copies_in_each_style_are_what_a_consumer_of_the_dead_letter_topic_reads() {
    const COUNT: u64 = 1_000;
    let kafka = Kafka::start();
    let styles = [
        DeadLetterStyle::Native,
        DeadLetterStyle::Connect,
        DeadLetterStyle::Envelope,
    ];
    for style in styles {
        let topic = format!("{style:?}").to_lowercase();
        kafka.create_topic_with(&topic, 2, &[LIMIT]);
        let scratch = Scratch::new();
        scratch.fill(&topic, COUNT, true);
        let bad = scratch.bad(COUNT);
        let options = to_topic("{topic}.dlq", style);

        // Without the topic only the copying waits.
        let drained = scratch.drain(&kafka, &options);
        assert_eq!(drained.shipped, COUNT - bad.len() as u64);
        let held: Vec<_> = drained
            .held
            .iter()
            .map(|h| (&*h.topic, h.why.kind()))
            .collect();
        let dlq = format!("{topic}.dlq");
        assert_eq!((drained.is_empty, held.len(), held[0].0), (false, 1, &*dlq));
        println!("{}", drained.held[0]);

        kafka.create_topic(&dlq, 2);
        let drained = scratch.drain(&kafka, &options);
        assert!(drained.is_empty, "{:?}", drained.held);
        assert_eq!(drained.counters.copied, bad.len() as u64);
        let copies = kafka.consume(&dlq);
        let origins: BTreeSet<u64> = copies.iter().map(origin).collect();
        assert_eq!((copies.len(), &origins), (bad.len(), &bad));
        let log_id = scratch.store.lane().log_id().to_string();
        for copy in &copies {
            let n = origin(copy);
            let (key, value) = scratch.content(n, true);
            assert_eq!(copy.key, key);
            let read = |name: &str| copy.header(name).unwrap();
            match style {
                DeadLetterStyle::Native => {
                    assert_eq!(copy.value.as_deref(), Some(&*value));
                    assert_eq!((read("dlq.code"), read("dlq.class")), ("10", "poison"));
                    assert_eq!((read("dlq.topic"), read("dlq.log-id")), (&*topic, &*log_id));
                }
                DeadLetterStyle::Connect => {
                    assert_eq!(copy.value.as_deref(), Some(&*value));
                    assert_eq!(read("__connect.errors.topic"), topic);
                    assert_eq!(read("__connect.errors.offset"), n.to_string());
                }
                DeadLetterStyle::Envelope => {
                    let told: Value = serde_json::from_slice(copy.value.as_ref().unwrap()).unwrap();
                    assert_eq!((&told["code"], &told["seq"]), (&10.into(), &n.into()));
                    let text = |name: &str| told[name].as_str().unwrap().to_owned();
                    assert_eq!(
                        (text("topic"), &told["attempt_count"]),
                        (topic.clone(), &1.into())
                    );
                    let reason = text("failure_reason");
                    assert!(reason.contains("MessageSizeTooLarge"), "{reason}");
                    let attempts = ["first_attempt", "last_attempt"].map(text);
                    let is_time = |text: &String| text.parse::<jiff::Timestamp>().is_ok();
                    assert!(
                        attempts.iter().all(is_time) && attempts.is_sorted(),
                        "{attempts:?}"
                    );
                    let text = told["event"]["value_base64"].as_str().unwrap();
                    assert_eq!(BASE64.decode(text).unwrap(), value);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_copy_that_the_dead_letter_topic_finds_too_large_becomes_a_pointer() {
    const COUNT: u64 = 500;
    let kafka = Kafka::start();
    kafka.create_topic_with("t", 1, &[LIMIT]);
    kafka.create_topic_with("dead", 1, &[LIMIT]);
    let scratch = Scratch::new();
    scratch.fill("t", COUNT, true);
    let bad = scratch.bad(COUNT);
    let drained = scratch.drain(&kafka, &to_topic("dead", DeadLetterStyle::Native));
    let counters = &drained.counters;
    assert_eq!(
        (counters.copied, counters.copies_refused),
        (bad.len() as u64, 0)
    );
    let copies = kafka.consume("dead");
    assert_eq!(copies.len(), bad.len());
    let kept_in = scratch.letters().log_id().to_string();
    for copy in copies {
        assert_eq!(copy.value, None);
        assert_eq!(copy.header("dlq.kept-log-id"), Some(&*kept_in));
        let seq = copy.header("dlq.kept-seq").unwrap().parse().unwrap();
        let letter = scratch.letters().get(ferrylog::wal::SeqNo::new(seq));
        let body = letter.unwrap().unwrap().body;
        assert_eq!(body.origin.seq.get(), origin(&copy));
    }
}

/// One loop, as in a service: nobody starts it again.
#[test]
fn a_limit_lowered_under_a_backlog_makes_a_hundred_dead_letters_at_most_and_raised_lets_the_rest_go()
 {
    const COUNT: u64 = 100_000;
    let kafka = Kafka::start();
    kafka.create_topic_with("t", 2, &[("max.message.bytes", "100")]);
    let scratch = Scratch::new();
    scratch.fill("t", COUNT, false);
    let started = std::time::Instant::now();
    let shipping = Shipping::start(&scratch.store, settings(&kafka), ShipOptions::default());
    let progress = shipping.wait_until_held("t", "everything_refused");
    println!(
        "held after {:?}, {} letters, {} rebuilds, {} came back",
        started.elapsed(),
        progress.counters.dead_lettered,
        progress.counters.rebuilds,
        progress.counters.refused,
    );
    kafka.alter_topic("t", &[]);
    let progress = shipping.wait_until_empty();
    let dead = progress.counters.dead_lettered;
    assert!((90..=100).contains(&dead), "{dead}");
    println!("{:?}", shipping.end());
    let letters = scratch.letters();
    let open = letters.open_letters(|_, _, _| true);
    let of = |&seq| letters.get(seq).unwrap().unwrap().body.origin.seq.get();
    let dead: BTreeSet<u64> = open.iter().map(of).collect();
    let rest = (0..COUNT).filter(|n| !dead.contains(n)).collect();
    scratch.check(&kafka, "t", &rest, &BTreeSet::new());
}

/// As a user does it.
#[test]
fn dead_letters_replay_and_drain_deliver_what_was_refused() {
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic_with("t", 1, &[LIMIT]);
    let gateway = Gateway::new();
    let len = |n: u64| if n % 50 == 7 { LARGE } else { 100 };
    gateway.send_each("t", (0..200).map(|n| content_of(seed, n, len(n))));
    let none = ["--property", "compression.type=none"];
    let told = gateway.drain(&kafka, &none).expect_json(1).remove(0);
    assert_eq!(
        (&told["dead_lettered"], &told["empty"]),
        (&4.into(), &true.into())
    );
    kafka.alter_topic("t", &[]);
    kafka.create_topic("t.dlq", 1);
    run(&gateway.data, ["dead-letters", "replay", "--topic", "t"]).expect(0);
    let copying = [
        "--dead-letter-topic",
        "{topic}.dlq",
        "--dead-letter-style",
        "connect",
    ];
    let more: Vec<&str> = none.into_iter().chain(copying).collect();
    let told = gateway.drain(&kafka, &more).expect_json(0).remove(0);
    assert_eq!(told["replayed"], 4, "{told}");
    let found: HashSet<u64> = kafka.consume("t").iter().map(origin).collect();
    assert_eq!((found.len(), kafka.consume("t").len()), (200, 200));
    let refused = gateway.drain(&kafka, &["--dead-letter-topic", "{topic}"]);
    assert_eq!(refused.exit, Some(2), "its own topic");
}
