//! A cluster that is there and takes nothing for a while: throttled, short of replicas, not letting us
//! in. When the cause is gone, it goes on by itself.
//!
//! Invariant: nothing is lost, nothing is out of order, nothing arrives twice.

use std::thread;
use std::time::{Duration, Instant};

use crate::copies;
use crate::gateway::{Gateway, Running, content};
use crate::kafka::{Kafka, PASSWORD, Protocol, USER};
use crate::random;

const COUNT: u64 = 100_000;

/// How long the cause lasts.
const LASTS: Duration = Duration::from_secs(6);

const PATIENCE: &[&str] = &["--timeout", "600"];

/// Arguments for a cluster that asks who we are.
fn arguments(kafka: &Kafka) -> Vec<String> {
    let patience = PATIENCE.iter().map(|&argument| argument.to_owned());
    let properties = kafka.client_properties().into_iter();
    let given =
        properties.flat_map(|(name, value)| ["--property".into(), format!("{name}={value}")]);
    patience.chain(given).collect()
}

fn start(gateway: &Gateway, kafka: &Kafka, arguments: &[String]) -> Running {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    gateway.start_drain(kafka, &arguments)
}

/// Waits for the end, and judges what arrived.
fn end(gateway: &Gateway, kafka: &Kafka, topic: &str, seed: u64, drain: Running) {
    drain.end().expect(0);
    let status = gateway.status();
    status.expect_all_shipped(COUNT);
    let content = |number| content(seed, number);
    let repeats = copies::check(kafka, topic, &status.log_id, COUNT, content);
    println!("{topic}: {repeats:?}");
    assert_eq!(repeats.duplicates, 0);
}

#[test]
fn a_quota_slows_shipping_down_and_does_nothing_else() {
    const RATE: u32 = 1_000_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("throttled", 4);
    kafka.limit_client("ferrylog", Some(RATE));
    let gateway = Gateway::new();
    gateway.send("throttled", seed, COUNT);
    let started = Instant::now();
    let mut drain = gateway.start_drain(&kafka, PATIENCE);
    thread::sleep(LASTS);
    let (took, arrived) = (started.elapsed(), kafka.watch("throttled").total());
    println!("{arrived} records arrived in {took:.1?} at {RATE} B/s");
    assert!(!drain.has_ended() && arrived < COUNT / 2, "not throttled");
    kafka.limit_client("ferrylog", None);
    end(&gateway, &kafka, "throttled", seed, drain);
}

#[test]
fn too_few_replicas_hold_shipping_up_until_there_are_enough() {
    let seed = random::seed();
    let mut kafka = Kafka::with().brokers(2).start();
    let replicas: &[&[usize]] = &[&[0, 1], &[1, 0], &[0, 1], &[1, 0]];
    kafka.create_topic_on("replicated", replicas);
    kafka.alter_topic("replicated", &[("min.insync.replicas", "2")]);
    let gateway = Gateway::new();
    gateway.send("replicated", seed, COUNT);
    let watch = kafka.watch("replicated");
    let mut drain = gateway.start_drain(&kafka, PATIENCE);
    watch.wait_for_growth(0, COUNT / 10);
    kafka.stop_broker(1);
    thread::sleep(LASTS);
    let queued = gateway.status().count("queued");
    println!("{queued} queued");
    assert!(queued > 0 && !drain.has_ended(), "it came too late");
    kafka.restart();
    end(&gateway, &kafka, "replicated", seed, drain);
}

#[test]
fn a_wrong_password_keeps_everything_until_it_is_right() {
    let seed = random::seed();
    let kafka = Kafka::with().protocol(Protocol::Scram).start();
    kafka.create_topic("locked", 4);
    kafka.set_password(USER, "another");
    let gateway = Gateway::new();
    gateway.send("locked", seed, COUNT);
    let mut drain = start(&gateway, &kafka, &arguments(&kafka));
    thread::sleep(LASTS);
    assert_eq!(gateway.status().count("queued"), COUNT);
    assert!(!drain.has_ended());
    kafka.set_password(USER, PASSWORD);
    end(&gateway, &kafka, "locked", seed, drain);
}

#[test]
fn a_certificate_that_ran_out_keeps_everything_until_it_is_renewed() {
    let seed = random::seed();
    let mut kafka = Kafka::with().expired_certificate().start();
    kafka.create_topic("expired", 4);
    let gateway = Gateway::new();
    gateway.send("expired", seed, COUNT);
    let mut drain = start(&gateway, &kafka, &arguments(&kafka));
    thread::sleep(LASTS);
    assert_eq!(gateway.status().count("queued"), COUNT);
    assert!(!drain.has_ended());
    kafka.stop();
    kafka.renew_certificate();
    kafka.restart();
    end(&gateway, &kafka, "expired", seed, drain);
}
