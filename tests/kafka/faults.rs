//! A broker that is not there, lacks the topic, or hangs.

use std::thread;
use std::time::{Duration, Instant};

use crate::copies;
use crate::gateway::{Gateway, content};
use crate::kafka::Kafka;
use crate::program::run;
use crate::random;

#[test]
fn a_broker_or_a_topic_that_is_missing_is_named_and_once_there_everything_arrives() {
    const COUNT: u64 = 1_000;
    let seed = random::seed();
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let before = run(&gateway.data, ["export"]).expect(0);
    let is_kept = || {
        let status = gateway.status();
        assert_eq!(
            (status.count("queued"), status.count("shipped")),
            (COUNT, 0)
        );
        assert!(
            run(&gateway.data, ["export"]).expect(0) == before,
            "changed"
        );
    };

    // Nobody listens there yet.
    let mut kafka = Kafka::prepare();
    let started = Instant::now();
    let ran = gateway.drain(&kafka, &["--timeout", "2"]);
    let (elapsed, message) = (started.elapsed(), ran.expect_failure(3, "unreachable"));
    println!("{elapsed:?}: {message}");
    assert!(message.contains(&kafka.bootstrap_servers()), "{message}");
    assert!(message.contains("1,000 records wait"), "{message}");
    // It keeps to its timeout: a request of the client's own may take 3 s more.
    let limit = Duration::from_secs(2)..Duration::from_secs(10);
    assert!(limit.contains(&elapsed), "{elapsed:?}");
    is_kept();

    kafka.restart();
    let message = gateway
        .drain(&kafka, &[])
        .expect_failure(1, "unknown_topic");
    println!("{message}");
    assert!(message.contains("`numbers`"), "{message}");
    assert!(message.contains("create it"), "{message}");
    assert!(message.contains("1,000 records wait"), "{message}");
    is_kept();

    // Fails if the topic has been created meanwhile.
    kafka.create_topic("numbers", 3);
    gateway.drain(&kafka, &[]).expect(0);
    let status = gateway.status();
    status.expect_all_shipped(COUNT);
    let content = |seq| content(seed, seq);
    let repeats = copies::check(&kafka, "numbers", &status.log_id, COUNT, content);
    assert_eq!(repeats.duplicates, 0);
}

/// Once with requests that wait for the broker, once with requests that time out and are sent
/// again while it hangs: it may see them twice, and must keep them once.
#[test]
fn a_broker_that_hangs_midway_costs_neither_a_record_nor_the_order() {
    const COUNT: u64 = 200_000;
    const HANGS: Duration = Duration::from_secs(5);
    /// So that it is still in the middle when it hangs.
    const RATE: u64 = 20_000_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    for (topic, more) in [
        ("patient", &[][..]),
        ("hasty", &["--property", "socket.timeout.ms=1500"][..]),
    ] {
        let gateway = Gateway::new();
        gateway.send(topic, seed, COUNT);
        kafka.create_topic(topic, 4);
        let mut drain = gateway.start_slow_drain(&kafka, RATE, more);
        kafka.watch(topic).wait_for_growth(0, COUNT / 10);
        kafka.pause();
        // The fault itself, and no wait for anything.
        thread::sleep(HANGS);
        let queued = gateway.status().count("queued");
        assert!(queued > 0 && !drain.has_ended(), "it hung in the middle");
        kafka.resume();
        drain.end().expect(0);
        let status = gateway.status();
        status.expect_all_shipped(COUNT);
        let content = |seq| content(seed, seq);
        let repeats = copies::check(&kafka, topic, &status.log_id, COUNT, content);
        println!("{topic}: {queued} queued while it hung; {repeats:?}");
        assert_eq!(repeats.duplicates, 0, "{topic}");
    }
}
