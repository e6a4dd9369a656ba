//! `drain` is killed again and again, and interrupted once.

use std::thread;
use std::time::Duration;

use crate::copies::{self, Repeats};
use crate::gateway::{Gateway, content};
use crate::kafka::{Kafka, wait_for};
use crate::random::{self, Random};

const COUNT: u64 = 300_000;

/// Longest wait for what must happen at last.
const SOON: Duration = Duration::from_secs(60);

/// One drain ships so many bytes at once, and as many a second: nothing here sees the end before it is
/// told to.
const RATE: u64 = 5_000_000;

#[test]
fn ten_kills_of_drain_lose_nothing_and_repeat_only_what_was_in_doubt() {
    const KILLS: u64 = 10;
    // Given again, a seed repeats the records and the plan of the kills, though not the moments.
    let seed = random::seed();
    let mut random = Random(seed);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 4);
    let watch = kafka.watch("numbers");

    let mut queued = COUNT;
    for kill in 1..=KILLS {
        let before = watch.total();
        let drain = gateway.start_slow_drain(&kafka, RATE, &[]);
        if kill % 4 == 0 {
            // While it opens the store, connects, or hands over its first records.
            thread::sleep(Duration::from_micros(random.below(60_000)));
        } else {
            watch.wait_for_growth(before, 1 + random.below(COUNT / KILLS / 2));
            thread::sleep(Duration::from_micros(random.below(3_000)));
        }
        let mut settled = queued;
        if kill % 4 == 1 {
            wait_for("a cursor on disk", SOON, || {
                settled = gateway.status().count("queued");
                settled < queued
            });
        }
        drain.kill();
        let (arrived, was_queued) = (watch.total() - before, queued);
        queued = gateway.status().count("queued");
        println!("kill {kill}: {arrived} arrived, {queued} of {was_queued} still queued");
        assert!(queued <= settled, "the cursor went back");
        assert!(
            was_queued - queued <= arrived,
            "settled without an acknowledgement"
        );
    }

    let repeats = drain_the_rest(&gateway, &kafka, seed, queued);
    println!("{COUNT} records, {KILLS} kills: {repeats:?}");
    assert!(repeats.runs <= KILLS as usize, "more than one run a kill");
}

#[test]
fn an_interrupted_drain_finishes_what_is_in_flight_and_the_next_one_sends_the_rest_once() {
    let seed = random::seed();
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 4);
    let watch = kafka.watch("numbers");

    let drain = gateway.start_slow_drain(&kafka, RATE, &[]);
    watch.wait_for_growth(0, COUNT / 10);
    drain.interrupt();
    let message = drain.end().expect_failure(1, "stopped");
    let (status, arrived) = (gateway.status(), watch.total());
    let queued = status.count("queued");
    println!("{arrived} arrived before the end, {queued} queued");
    assert!(queued > 0, "it was stopped in the middle");
    assert_eq!(status.count("shipped"), arrived);
    assert_eq!(arrived + queued, COUNT);
    assert!(message.contains("records wait"), "{message}");

    let repeats = drain_the_rest(&gateway, &kafka, seed, queued);
    assert_eq!(repeats.duplicates, 0);
}

/// The last drain, of what is still queued; and the judgement of all that arrived.
fn drain_the_rest(gateway: &Gateway, kafka: &Kafka, seed: u64, queued: u64) -> Repeats {
    let told = gateway.drain(kafka, &[]).expect_json(0).remove(0);
    assert_eq!(told["shipped"], queued, "{told}");
    let status = gateway.status();
    status.expect_all_shipped(COUNT);
    let content = |seq| content(seed, seq);
    copies::check(kafka, "numbers", &status.log_id, COUNT, content)
}
