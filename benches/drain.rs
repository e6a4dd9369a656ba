//! How fast a lane drains, at least once and exactly once, beside a bare librdkafka producer on the same topic of the same broker,
//! which is measured with transactions of the same size, too; and how much memory the program takes for it.
//!
//! `cargo bench --features kafka-tests --bench drain` prints the tables of `docs/benchmarks.md`: bare
//! and drain alternate, medians of several rounds. The broker is a real Apache Kafka on loopback
//! (Java 17 and Maven are needed), and shares the machine with what is measured. Each round gives one ratio. The bare producer
//! has its records in memory and keeps nothing but a count of acknowledgements; in transactions it writes no progress.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

#[path = "../tests/support/kafka.rs"]
mod kafka;
// Without the rest of `support`, which counts allocations.
#[path = "support/table.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part")]
mod table;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::exactly_once::{self, ExactlyOnceOptions};
use ferrylog::ship::{self, ShipOptions};
use ferrylog::store::{Store, StoreOptions, Trust};
use ferrylog::wal::Durability;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use tempfile::TempDir;

use kafka::Kafka;
use table::Pairs;

const TOPIC: &str = "readings";
const PARTITIONS: i32 = 4;
/// Records of a run, by their length.
const RUNS: [(usize, u64); 2] = [(256, 1_000_000), (1024, 400_000)];
/// What the bare producer may have in flight: as many bytes as `drain` may.
const IN_FLIGHT: u64 = 64 * 1024 * 1024;
/// What `drain` counts for a record besides its bytes.
const OVERHEAD: u64 = 256;
const ROUNDS: usize = 7;
/// Rounds before them: the broker's Java machine compiles what it runs often, on the same cores.
const WARMUPS: usize = 2;
/// Records of a transaction, on either side.
const TRANSACTION: u64 = 50_000;
const LONGEST: Duration = Duration::from_secs(60);
/// Rows of the table: the header, and where in a round's runs those of the bare producer begin, and ours.
const ROWS: [(&str, usize, usize); 3] = [
    ("on neither", 0, 2),
    ("on both", 4, 6),
    ("on ours alone", 0, 6),
];

/// Backlogs whose draining is watched from outside: length and count of records.
const BACKLOGS: [(usize, u64); 3] = [(100, 5_000_000), (1024, 2_000_000), (1 << 20, 2_000)];

fn main() {
    let broker = Kafka::with().measured().start();
    println!("{PARTITIONS} partitions, medians of {ROUNDS} rounds\n");
    println!(
        "| record | compression | `ferry-id` | bare | bare, in transactions | drain | / bare | exactly once | / bare | / bare in transactions |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (len, count) in RUNS {
        for compression in ["lz4", "none"] {
            compare(&broker, compression, len, count);
        }
    }
    println!("\n| backlog | took | peak memory |");
    println!("|---|---|---|");
    for (len, count) in BACKLOGS {
        watch_memory(&broker, len, count);
    }
}

fn compare(broker: &Kafka, compression: &str, len: usize, count: u64) {
    let mut rows: [[Pairs; 3]; ROWS.len()] = Default::default();
    for round in 0..WARMUPS + ROUNDS {
        broker.create_topic(TOPIC, PARTITIONS);
        let times = [false, true].map(|with_header| {
            [
                produce(broker, compression, len, count, with_header, None),
                produce(
                    broker,
                    compression,
                    len,
                    count,
                    with_header,
                    Some(TRANSACTION),
                ),
                drain(broker, compression, len, count, with_header),
                drain_exactly_once(broker, compression, len, count, with_header),
            ]
        });
        broker.delete_topic(TOPIC);
        if round >= WARMUPS {
            let rates = times.as_flattened();
            let rate = |run: usize| count as f64 / rates[run].as_secs_f64();
            for (pairs, (_, bare, ours)) in rows.iter_mut().zip(ROWS) {
                pairs[0].push(rate(ours), rate(bare));
                pairs[1].push(rate(ours + 1), rate(bare));
                pairs[2].push(rate(ours + 1), rate(bare + 1));
            }
        }
    }
    for ([drain, once, within], (header, ..)) in rows.iter().zip(ROWS) {
        println!(
            "| {len} B | {compression} | {header} | {:.0}/s | {:.0}/s | {:.0}/s | {:.2} | {:.0}/s | {:.2} | {:.2} |",
            drain.limits.median(),
            within.limits.median(),
            drain.figures.median(),
            drain.ratios.median(),
            once.figures.median(),
            once.ratios.median(),
            within.ratios.median(),
        );
    }
}

/// The bytes of one record: half of it differs from record to record.
fn fill(value: &mut [u8], n: u64) {
    let mut word = n;
    let half = value.len() / 2;
    for chunk in value[..half].chunks_exact_mut(8) {
        word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

/// Appends the records to a new store.
fn append(dir: &Path, len: usize, count: u64) -> Store {
    let mut options = StoreOptions::default();
    options.default.wal.durability = Durability::Os;
    // As where the clock is synchronised: a record carries no other time with it.
    options.clock.trust = Trust::Plausible;
    let store = Store::open_with(dir, &options).unwrap();
    let mut value = vec![b'.'; len];
    for n in 0..count {
        fill(&mut value, n);
        let message = MessageRef {
            value: Some(&value),
            ..MessageRef::to(TOPIC)
        };
        drop(store.lane().append(&message).unwrap());
    }
    store.lane().sync().unwrap();
    store
}

/// Appends the records, drains them, and returns how long the draining took.
fn drain(broker: &Kafka, compression: &str, len: usize, count: u64, with_header: bool) -> Duration {
    let (_dir, store, settings, options) = backlog(broker, compression, len, count, with_header);
    let stop = AtomicBool::new(false);
    let drained = ship::drain(&store, &settings, &options, &stop, &mut |_| {}).unwrap();
    assert_eq!((drained.shipped, drained.is_empty), (count, true));
    drained.elapsed
}

/// The same in transactions of 50,000 records: neither time nor bytes end them before.
fn drain_exactly_once(
    broker: &Kafka,
    compression: &str,
    len: usize,
    count: u64,
    with_header: bool,
) -> Duration {
    let (_dir, store, settings, ship) = backlog(broker, compression, len, count, with_header);
    let mut options = ExactlyOnceOptions::default();
    options.ship = ship;
    options.max_bytes = u64::MAX;
    options.max_time = Some(Duration::from_secs(10));
    let stop = AtomicBool::new(false);
    let committed = exactly_once::drain(&store, &settings, &options, &stop, &mut |_| {}).unwrap();
    let drained = committed.drained;
    assert_eq!((drained.shipped, drained.is_empty), (count, true));
    assert!(
        committed.transactions <= count.div_ceil(TRANSACTION) + 1,
        "{}",
        committed.transactions
    );
    drained.elapsed
}

/// A store with records to drain, and how.
fn backlog(
    broker: &Kafka,
    compression: &str,
    len: usize,
    count: u64,
    with_header: bool,
) -> (TempDir, Store, Settings, ShipOptions) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = append(dir.path(), len, count);
    let settings = Settings {
        properties: vec![("compression.type".to_owned(), compression.to_owned())],
        ..Settings::new(broker.bootstrap_servers())
    };
    let mut options = ShipOptions::default();
    options.id_header = with_header;
    (dir, store, settings, options)
}

/// Runs the program on a backlog, and tells the most memory that it had.
fn watch_memory(broker: &Kafka, len: usize, count: u64) {
    broker.create_topic_with(TOPIC, PARTITIONS, &[("max.message.bytes", "20000000")]);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    append(dir.path(), len, count).close().unwrap();
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ferrylog"))
        .arg("--data")
        .arg(dir.path())
        .args(["drain", "--bootstrap-servers", &broker.bootstrap_servers()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The system keeps the peak itself, as long as the process lives.
    let mut peak_kib = 0;
    while child.try_wait().unwrap().is_none() {
        peak_kib = peak(child.id()).unwrap_or(peak_kib);
        thread::sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
    let took = started.elapsed();
    broker.delete_topic(TOPIC);
    let peak_mib = peak_kib / 1024;
    println!("| {count} records of {len} B | {took:.1?} | {peak_mib} MiB |");
}

/// The peak of a process' memory in KiB, while it lives.
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
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

/// Sends the records with a bare producer: librdkafka as `drain` sets it up, and nothing else. In transactions of so many
/// records, if any.
fn produce(
    broker: &Kafka,
    compression: &str,
    len: usize,
    count: u64,
    with_header: bool,
    transaction: Option<u64>,
) -> Duration {
    let in_flight = IN_FLIGHT / (len as u64 + OVERHEAD);
    let started = Instant::now();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("compression.type", compression)
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "2147483647");
    if transaction.is_some() {
        config.set("transactional.id", "bare");
    }
    let producer: BaseProducer<Count> = config.create_with_context(Count::default()).unwrap();
    if transaction.is_some() {
        producer.init_transactions(LONGEST).unwrap();
        producer.begin_transaction().unwrap();
    }
    let acknowledged = || producer.context().0.load(Ordering::Relaxed);
    let commit = |sent: u64| {
        // Sends what lingers; `flush` and `commit_transaction` by themselves wait for up to a tenth of a second.
        while acknowledged() < sent {
            let _ = producer.flush(Duration::ZERO);
            producer.poll(Duration::from_millis(1));
        }
        producer.commit_transaction(LONGEST).unwrap();
    };
    let mut value = vec![b'.'; len];
    for n in 0..count {
        if n > 0 && transaction.is_some_and(|records| n % records == 0) {
            commit(n);
            producer.begin_transaction().unwrap();
        }
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
            while n - acknowledged() > in_flight {
                thread::sleep(Duration::from_millis(1));
                producer.poll(Duration::ZERO);
            }
        }
    }
    if transaction.is_some() {
        commit(count);
    }
    while acknowledged() < count {
        thread::sleep(Duration::from_millis(1));
        producer.poll(Duration::ZERO);
    }
    started.elapsed()
}
