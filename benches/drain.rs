//! How fast a lane drains, beside a bare librdkafka producer on the same topic of the same broker.
//!
//! `cargo bench --features kafka-tests --bench drain` prints the ratio table of
//! `docs/benchmarks.md`: bare and drain alternate, medians of several rounds. The broker is a real Apache
//! Kafka on loopback (Java 17 and Maven are needed), and shares the machine with what is measured.
//! The bare producer has its records in memory and keeps nothing but a count of acknowledgements.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

#[path = "../tests/support/kafka.rs"]
mod kafka;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::{self, ShipOptions};
use ferrylog::store::Store;
use ferrylog::wal::{Durability, Options};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use kafka::Kafka;

const TOPIC: &str = "readings";
const COUNT: u64 = 1_000_000;
const LEN: usize = 256;
const PARTITIONS: i32 = 4;
/// What the bare producer may have in flight: what `drain` may, for records of this size.
const IN_FLIGHT: u64 = 100_000;
const ROUNDS: usize = 5;

fn main() {
    let broker = Kafka::start();
    println!("records of {LEN} B, {PARTITIONS} partitions, medians of {ROUNDS} rounds\n");
    println!("| compression | header | bare | drain | drain / bare |");
    println!("|---|---|---|---|---|");
    for compression in ["lz4", "none"] {
        let mut rates: [Vec<f64>; 4] = Default::default();
        // The first round warms the broker up.
        for round in 0..=ROUNDS {
            broker.create_topic(TOPIC, PARTITIONS);
            let times = [
                produce(&broker, compression, false),
                drain(&broker, compression, false),
                produce(&broker, compression, true),
                drain(&broker, compression, true),
            ];
            broker.delete_topic(TOPIC);
            for (rates, time) in rates.iter_mut().zip(times).filter(|_| round > 0) {
                rates.push(COUNT as f64 / time.as_secs_f64());
            }
        }
        let [bare, drain, bare_with_id, drain_with_id] = rates.map(median);
        for (header, bare, drain) in [
            ("none", bare, drain),
            ("`ferry-id`", bare_with_id, drain_with_id),
            ("`ferry-id` on ours alone", bare, drain_with_id),
        ] {
            let ratio = drain / bare;
            println!("| {compression} | {header} | {bare:.0}/s | {drain:.0}/s | {ratio:.2} |");
        }
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The bytes of one record: half of it differs from record to record.
fn fill(value: &mut [u8], n: u64) {
    let mut word = n;
    for chunk in value[..LEN / 2].chunks_exact_mut(8) {
        word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

/// Appends the records, drains them, and returns how long the draining took.
fn drain(broker: &Kafka, compression: &str, with_header: bool) -> Duration {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut options = Options::default();
    options.durability = Durability::Os;
    let store = Store::open(dir.path(), options).unwrap();
    let mut value = [b'.'; LEN];
    for n in 0..COUNT {
        fill(&mut value, n);
        let message = MessageRef {
            value: Some(&value),
            ..MessageRef::to(TOPIC)
        };
        drop(store.lane().append(&message).unwrap());
    }
    store.lane().sync().unwrap();
    let settings = Settings {
        properties: vec![("compression.type".to_owned(), compression.to_owned())],
        ..Settings::new(broker.bootstrap_servers())
    };
    let mut options = ShipOptions::default();
    options.id_header = with_header;
    let stop = AtomicBool::new(false);
    let drained = ship::drain(&store, &settings, &options, &stop, &mut |_| {}).unwrap();
    assert_eq!((drained.shipped, drained.is_empty), (COUNT, true));
    drained.elapsed
}

/// Counts acknowledgements.
#[derive(Default)]
struct Count(AtomicU64);

impl ClientContext for Count {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        result.as_ref().expect("delivered");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends the records with a bare producer: librdkafka as `drain` sets it up, and nothing else.
fn produce(broker: &Kafka, compression: &str, with_header: bool) -> Duration {
    let started = Instant::now();
    let producer: BaseProducer<Count> = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("compression.type", compression)
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "2147483647")
        .create_with_context(Count::default())
        .unwrap();
    let mut value = [b'.'; LEN];
    let acknowledged = || producer.context().0.load(Ordering::Relaxed);
    for n in 0..COUNT {
        fill(&mut value, n);
        let mut record = BaseRecord::<(), [u8]>::to(TOPIC)
            .payload(&value)
            .partition((n / 1024) as i32 % PARTITIONS)
            .timestamp(1_700_000_000_000);
        if with_header {
            let id = format!("0123456789abcdef0123456789abcdef-{n}");
            record = record.headers(OwnedHeaders::new().insert(Header {
                key: "ferry-id",
                value: Some(id.as_bytes()),
            }));
        }
        while let Err((error, again)) = producer.send(record) {
            assert_eq!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::QueueFull)
            );
            producer.poll(Duration::ZERO);
            record = again;
        }
        if n % 2048 == 0 {
            producer.poll(Duration::ZERO);
            while n - acknowledged() > IN_FLIGHT {
                thread::sleep(Duration::from_millis(1));
                producer.poll(Duration::ZERO);
            }
        }
    }
    while acknowledged() < COUNT {
        thread::sleep(Duration::from_millis(1));
        producer.poll(Duration::ZERO);
    }
    started.elapsed()
}
