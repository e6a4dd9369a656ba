//! What the link knows of a real broker: by probes, and when it turns us away.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ferrylog::kafka::{Plan, Probed, Prober, Require, Rung, Settings};
use ferrylog::message::MessageRef;
use ferrylog::ship::{self, Block, LinkState, ShipOptions};
use ferrylog::store::Store;
use ferrylog::wal::Options;

use crate::kafka::Kafka;

fn probe(settings: &Settings, timeout: Duration) -> Probed {
    let mut prober = Prober::default();
    let plan = || Plan::new(settings, &[], Require::Any, None, timeout);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(probed) = prober.poll(plan) {
            return probed;
        }
        assert!(Instant::now() < deadline, "no verdict");
        std::thread::yield_now();
    }
}

/// The kernel takes connections for a process that hangs: only the second rung tells.
#[test]
fn a_broker_that_hangs_takes_connections_and_passes_no_probe() {
    let kafka = Kafka::start();
    let settings = Settings::new(kafka.bootstrap_servers());
    let long = Duration::from_secs(30);
    assert_eq!(
        probe(&settings, long).rungs,
        [(Rung::Tcp, Ok(())), (Rung::ApiVersions, Ok(()))]
    );
    kafka.pause();
    let hanging = probe(&settings, Duration::from_millis(500));
    kafka.resume();
    assert_eq!(hanging.rungs[0], (Rung::Tcp, Ok(())));
    assert_eq!(hanging.rungs[1].0, Rung::ApiVersions);
    assert!(hanging.verdict().unwrap_err().contains("no answer"));
    assert_eq!(probe(&settings, long).verdict(), Ok(()));
}

#[test]
fn a_broker_without_tls_does_not_pass_where_tls_is_configured() {
    let kafka = Kafka::start();
    let mut settings = Settings::new(kafka.bootstrap_servers());
    let tls = ("security.protocol".to_owned(), "ssl".to_owned());
    settings.properties.push(tls);
    let probed = probe(&settings, Duration::from_secs(30));
    println!("{probed:?}");
    assert_eq!(probed.rungs[0], (Rung::Tcp, Ok(())));
    assert!(probed.rungs[1].1.is_err());
}

/// The broker has no SASL on this listener, and turns such a client away.
#[test]
fn a_cluster_that_turns_us_away_is_blocked_says_why_and_is_tried_rarely() {
    let kafka = Kafka::start();
    kafka.create_topic("t", 1);
    let mut settings = Settings::new(kafka.bootstrap_servers());
    for (name, value) in [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "u"),
        ("sasl.password", "hunter2"),
    ] {
        settings
            .properties
            .push((name.to_owned(), value.to_owned()));
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), Options::default()).unwrap();
    let message = MessageRef {
        value: Some(b"kept"),
        ..MessageRef::to("t")
    };
    drop(store.lane().append(&message).unwrap());
    store.lane().sync().unwrap();

    let mut options = ShipOptions::default();
    options.timeout = Some(Duration::from_secs(20));
    let stop = AtomicBool::new(false);
    let (mut blocked, mut counts) = (None, (0, 0));
    let ended = ship::drain(&store, &settings, &options, &stop, &mut |progress| {
        if progress.link_state == LinkState::Blocked(Block::Authentication) {
            assert!(!progress.link.contains("hunter2"));
            blocked.get_or_insert_with(|| progress.link.clone());
        }
        counts = (progress.link_tries, progress.link_changes);
    });
    let sentence = blocked.expect("the state was seen");
    println!("{counts:?}: {sentence}: {}", ended.unwrap_err());
    assert!(
        sentence.contains("does not accept the credentials"),
        "{sentence}"
    );
    // Down once before the first answer is in, and blocked from then on.
    let (tries, changes) = counts;
    assert!(tries <= 6 && changes <= 4, "{counts:?}");
    assert_eq!(store.lane().totals().queued, 1);
}
