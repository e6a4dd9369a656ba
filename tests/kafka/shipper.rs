//! The loop of `ship`, called as a library, against a broker that dies, refuses or is quick.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::{self, Drained, Error, Progress, ShipOptions};
use ferrylog::store::Store;
use ferrylog::wal::{Durability, Options};
use tempfile::TempDir;

use crate::kafka::{Consumed, Kafka};

struct Scratch {
    store: Store,
    _dir: TempDir,
}

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.durability = Durability::Os;
        let store = Store::open(dir.path().join("store"), options).unwrap();
        Scratch { store, _dir: dir }
    }

    /// Appends `count` records of `len` bytes that begin with their number; every third has a key.
    fn fill(&self, topic: &str, count: u64, len: usize) {
        let mut value = vec![b'.'; len];
        for n in 0..count {
            let number = format!("{n:010} ");
            value[..number.len()].copy_from_slice(number.as_bytes());
            // Bodies that differ, so that compression has something to do.
            let body = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            value[number.len()..number.len() + 8].copy_from_slice(&body);
            let key = (n % 3 == 0).then(|| (n % 1000).to_le_bytes());
            let message = MessageRef {
                key: key.as_ref().map(|k| &k[..]),
                value: Some(&value),
                ..MessageRef::to(topic)
            };
            // The sync below waits for all of them.
            drop(self.store.lane().append(&message).unwrap());
        }
        self.store.lane().sync().unwrap();
    }

    fn drain(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Drained, Error> {
        self.drain_with(settings, &ShipOptions::default(), progress)
    }

    fn drain_with(
        &self,
        settings: &Settings,
        options: &ShipOptions,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Drained, Error> {
        let stop = AtomicBool::new(false);
        ship::drain(&self.store, settings, options, &stop, progress)
    }
}

fn seq(record: &Consumed) -> u64 {
    let id = record.header("ferry-id").unwrap();
    id.split_once('-').unwrap().1.parse().unwrap()
}

/// First copies in order in each partition, each of `count` numbers there; returns duplicates.
fn check_first_copies(records: &[Consumed], count: u64) -> usize {
    let mut found = HashSet::new();
    let mut newest = std::collections::HashMap::new();
    let mut duplicates = 0;
    for record in records {
        let seq = seq(record);
        if !found.insert(seq) {
            duplicates += 1;
            continue;
        }
        let before = newest.insert(record.partition, seq);
        assert!(before < Some(seq), "{seq} after {before:?}");
        let number = format!("{seq:010} ");
        assert!(
            record
                .value
                .as_ref()
                .unwrap()
                .starts_with(number.as_bytes())
        );
    }
    assert_eq!(found.len(), usize::try_from(count).unwrap());
    duplicates
}

/// The broker keeps its data and its address over a crash, so that tests may rely on both.
#[test]
fn a_broker_restarts_on_its_data() {
    let mut broker = Kafka::start();
    broker.create_topic("kept", 3);
    let address = broker.bootstrap_servers();
    broker.stop();
    broker.restart();
    assert_eq!(broker.bootstrap_servers(), address);
    assert_eq!(broker.consume("kept"), []);
    broker.delete_topic("kept");
}

#[test]
fn a_broker_killed_midway_costs_neither_a_record_nor_a_duplicate() {
    const COUNT: u64 = 200_000;
    let mut broker = Kafka::start();
    broker.create_topic("t", 3);
    let settings = Settings::new(broker.bootstrap_servers());
    let scratch = Scratch::new();
    scratch.fill("t", COUNT, 200);
    let mut kills = 0;
    let mut options = ShipOptions::default();
    // It lasts for some reports of its progress.
    options.drain_rate = NonZeroU64::new(20_000_000);
    let drained = scratch.drain_with(&settings, &options, &mut |progress| {
        if kills < 2 && progress.shipped > kills * COUNT / 3 && progress.queued > 0 {
            kills += 1;
            broker.stop();
            broker.restart();
        }
    });
    let drained = drained.unwrap();
    assert_eq!((drained.shipped, drained.is_empty), (COUNT, true));
    assert!(
        kills > 0,
        "the broker was killed while records were on their way"
    );
    let duplicates = check_first_copies(&broker.consume("t"), COUNT);
    println!(
        "{kills} kills, {} rebuilds, {duplicates} duplicates",
        drained.rebuilds
    );
    assert_eq!(duplicates, 0);
    assert_eq!(scratch.store.lane().totals().queued, 0);
}

#[test]
fn a_record_over_the_brokers_limit_is_held_back_and_no_sibling_with_it() {
    let broker = Kafka::start();
    broker.create_topic_with("small", 1, &[("max.message.bytes", "2000")]);
    let none = ("compression.type".to_owned(), "none".to_owned());
    let settings = Settings {
        properties: vec![none],
        ..Settings::new(broker.bootstrap_servers())
    };
    let scratch = Scratch::new();
    scratch.fill("small", 500, 100);
    let large = vec![b'x'; 5000];
    let message = MessageRef {
        value: Some(&large),
        ..MessageRef::to("small")
    };
    scratch.store.lane().append_wait(&message).unwrap();
    let started = std::time::Instant::now();
    let drained = scratch.drain(&settings, &mut |_| {}).unwrap();
    println!("{:?}: {drained:?}", started.elapsed());
    let ended = (drained.shipped, drained.counters.dead_lettered);
    assert_eq!(ended, (500, 1));
    let letters = scratch.store.dead_letters().unwrap();
    let kept = letters.open_letters(|_, _, _| true);
    let letter = letters.get(kept[0]).unwrap().unwrap();
    assert_eq!((kept.len(), letter.body.origin.seq.get()), (1, 500));
    assert_eq!(check_first_copies(&broker.consume("small"), 500), 0);
}

#[test]
fn a_topic_that_does_not_exist_is_named_and_not_created() {
    let broker = Kafka::start();
    let settings = Settings::new(broker.bootstrap_servers());
    let scratch = Scratch::new();
    scratch.fill("misspelt", 10, 100);
    let drained = scratch.drain(&settings, &mut |_| {}).unwrap();
    assert_eq!(&*drained.held[0].topic, "misspelt");
    assert_eq!(drained.held[0].why.kind(), "unknown_topic");
    // Once it is there, everything goes.
    broker.create_topic("misspelt", 2);
    assert_eq!(scratch.drain(&settings, &mut |_| {}).unwrap().shipped, 10);
    assert_eq!(check_first_copies(&broker.consume("misspelt"), 10), 0);
}
