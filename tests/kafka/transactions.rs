//! The line under `drain --exactly-once`: cut on a commit, or thin.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ferrylog::message::MessageRef;
use ferrylog::ship::exactly_once::ExactlyOnceOptions;
use ferrylog::store::Store;
use ferrylog::wal::Options;

use crate::copies;
use crate::exactly_once::{EXACTLY_ONCE, SMALL, check, ship};
use crate::gateway::{Gateway, content_of};
use crate::kafka::relay::Request;
use crate::kafka::{Kafka, wait_for};
use crate::random::{self, Random};

/// Longest wait for what comes by itself.
const SOON: Duration = Duration::from_secs(60);

/// Before the broker reads the commit, and when it has acted on it already; with a program that
/// lives on, and one that dies of it.
#[test]
fn commits_that_are_cut_off_from_the_broker_or_from_their_answer_lose_and_repeat_nothing() {
    const COUNT: u64 = 100_000;
    const ROUNDS: u32 = 16;
    let seed = random::seed();
    let mut random = Random(seed);
    let kafka = Kafka::with().relayed().start();
    let relay = kafka.relay(0);
    kafka.create_topic("numbers", 4);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let mut drain = gateway.start_drain(&kafka, &SMALL);
    for round in 0..ROUNDS {
        let others = random.below(4) as u32;
        if round % 2 == 0 {
            relay.cut_in_request(Request::EndTxn, others, 0);
        } else {
            relay.cut_before_answer(Request::EndTxn, others);
        }
        wait_for("the cut", SOON, || !relay.is_armed() || drain.has_ended());
        assert!(!drain.has_ended(), "it was done before round {round}");
        if round % 4 >= 2 {
            // A moment on either side of the cut itself.
            thread::sleep(Duration::from_micros(random.below(10_000)));
            drain.kill();
            drain = gateway.start_drain(&kafka, &SMALL);
        }
    }
    println!("{} connections", relay.connected());
    drain.end().expect(0);
    check(&kafka, "numbers", &gateway, seed, COUNT);
}

/// 64 kbit/s, bytes that do not compress. What was committed counts, and what it cost to get there.
#[test]
fn a_thin_line_carries_transactions_at_seven_tenths_of_its_rate_and_more() {
    const RATE: u32 = 64_000 / 8;
    const VALUE: usize = 400;
    const MEASURED: Duration = Duration::from_secs(40);
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    let relay = kafka.relay(0);
    kafka.create_topic("thin", 4);
    let gateway = Gateway::new();
    let content = |number| content_of(seed, number, VALUE);
    // More than crosses in that time.
    let count = MEASURED.as_secs() * u64::from(RATE) / VALUE as u64 * 3 / 2;
    gateway.send_each("thin", (0..count).map(content));
    relay.limit(RATE);
    let mut drain = gateway.start_drain(&kafka, &[EXACTLY_ONCE]);
    let started = Instant::now();
    let mut committed = 0;
    for _ in 0..4 {
        // The fault itself.
        thread::sleep(MEASURED / 4);
        committed = kafka.consume("thin").len();
        println!("{:.1?}: {committed} committed", started.elapsed());
    }
    let could = started.elapsed().as_secs_f64() * f64::from(RATE);
    assert!(
        !drain.has_ended() && (committed as u64) < count,
        "nothing was left"
    );
    let carried = relay.carried_up() as f64;
    relay.pass();
    drain.end().expect(0);
    let status = gateway.status();
    let repeats = copies::check(&kafka, "thin", &status.log_id, count, content);
    assert_eq!(repeats.duplicates, 0);
    // A record is its key, its value and the header that names it.
    let header = "ferry-id".len() + status.log_id.len() + "-1234".len();
    let record = "key-123".len() + VALUE + header;
    let of_records = (committed * record) as f64 / could;
    println!(
        "of {could:.0} B: carried {:.2}, records {of_records:.2}",
        carried / could
    );
    assert!(of_records >= 0.7, "{of_records:.2}");
}

/// The clock of the gateway was a year ahead for a while.
#[test]
fn records_with_a_refused_timestamp_go_with_another_one_and_keep_theirs_in_a_header() {
    const COUNT: u64 = 2_000;
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    let seed = random::seed();
    let kafka = Kafka::start();
    let hour = [("message.timestamp.after.max.ms", "3600000")];
    kafka.create_topic_with("timed", 2, &hour);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let is_ahead = |seq: u64| (500..700).contains(&seq);
    let time = |seq| match is_ahead(seq) {
        true => (now + YEAR).as_millis() as i64,
        false => now.as_millis() as i64,
    };
    let gateway = Gateway::new();
    let store = Store::open(&gateway.data, Options::default()).unwrap();
    for seq in 0..COUNT {
        let (key, value) = content_of(seed, seq, 100);
        let message = MessageRef {
            key: key.as_deref(),
            value: Some(&value),
            timestamp_millis: Some(time(seq)),
            ..MessageRef::to("timed")
        };
        drop(store.lane().append(&message).unwrap());
    }
    store.lane().sync().unwrap();
    store.close().unwrap();
    let committed = ship(&gateway, &kafka, |_| {}, &mut |_| {});
    println!("{committed:?}");
    gateway.status().expect_all_shipped(COUNT);
    let mut seen = BTreeSet::new();
    kafka.consume_each("timed", |record| {
        let id = record.header("ferry-id").unwrap();
        let seq: u64 = id.split_once('-').unwrap().1.parse().unwrap();
        assert!(seen.insert(seq), "{seq} is there twice");
        let own = time(seq).to_string();
        assert_eq!(record.header("ferry-time"), is_ahead(seq).then_some(&*own));
        let at = record.timestamp_millis.unwrap();
        assert!(at.abs_diff(now.as_millis() as i64) < 600_000, "{seq}: {at}");
    });
    assert_eq!(seen.len() as u64, COUNT);
}

/// It was fast, and then does not carry within a transaction's time what a transaction holds.
#[test]
fn transactions_that_time_out_become_small_enough_for_the_line() {
    const RATE: u32 = 64_000 / 8;
    // So many that the line gets thin, by what is told four times a second, before they are across.
    const COUNT: u64 = 40_000;
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    let relay = kafka.relay(0);
    kafka.create_topic("thin", 4);
    let gateway = Gateway::new();
    let content = |number| content_of(seed, number, 400);
    gateway.send_each("thin", (0..COUNT).map(content));
    let set = |options: &mut ExactlyOnceOptions| {
        options.transaction_timeout = Duration::from_secs(4);
        options.max_records = 500;
    };
    let (mut is_thin, mut thin_from, mut came_through) = (false, None, 0);
    let committed = ship(&gateway, &kafka, set, &mut |now| {
        if !is_thin && now.shipped > 0 {
            is_thin = true;
            relay.limit(RATE);
        }
        if now.counters.rebuilds > 0 {
            let from = *thin_from.get_or_insert(now.shipped);
            came_through = came_through.max(now.shipped - from);
        }
        // Enough was seen: the rest goes fast.
        if came_through > 200 {
            relay.pass();
        }
    });
    println!("{committed:?}, {came_through} came through");
    assert!(committed.aborted > 0 && came_through > 200);
    let log_id = gateway.status().log_id;
    let repeats = copies::check(&kafka, "thin", &log_id, COUNT, content);
    assert_eq!(repeats.duplicates, 0);
}
