//! The line under `drain --exactly-once`: cut on a commit, or thin.

use std::thread;
use std::time::{Duration, Instant};

use crate::copies;
use crate::exactly_once::{EXACTLY_ONCE, SMALL, check};
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
