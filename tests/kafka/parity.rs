//! Rows of `docs/parity.md` that only a real cluster can show: how it is logged into, and what it is sent.

use std::fs;
use std::process::Command;

use ferrylog::{MessageRef, Outcome, Producer};
use tempfile::TempDir;

use crate::gateway::Gateway;
use crate::kafka::{Kafka, PASSWORD, Protocol, USER};
use crate::program::{Ran, ferrylog};

/// The lines of `docs/examples/confluent-cloud.toml`, for this cluster and any time of the day.
fn example(kafka: &Kafka) -> (TempDir, String) {
    let text = include_str!("../../docs/examples/confluent-cloud.toml");
    let properties = kafka.client_properties();
    let (_, trusted) = properties
        .iter()
        .find(|(name, _)| name == "ssl.ca.location")
        .unwrap();
    let section = "[kafka.properties]";
    assert!(text.contains(section));
    let text = text
        .replace(
            "pkc-00000.europe-west1.gcp.confluent.cloud:9092",
            &kafka.bootstrap_servers(),
        )
        .replace(
            section,
            &format!("{section}\n\"ssl.ca.location\" = \"{trusted}\""),
        );
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("drain_window"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("ferrylog.toml");
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (dir, file)
}

#[test]
fn the_example_for_a_cloud_logs_in_over_tls_with_a_key_and_its_secret() {
    let kafka = Kafka::with().protocol(Protocol::SaslSsl).start();
    kafka.create_topic("telemetry", 2);
    let gateway = Gateway::new();
    let (_dir, file) = example(&kafka);
    let run = |arguments: &[&str], secret: &str| {
        let arguments = [arguments, &["--config", &file, "--json"]].concat();
        let mut command: Command = ferrylog(&gateway.data, arguments);
        command.env("KAFKA_KEY", USER).env("KAFKA_SECRET", secret);
        Ran::from(command.output().unwrap())
    };
    let input = fs::read_to_string(&file).unwrap();
    let count = input.lines().count() as u64;
    run(&["send", &file], PASSWORD).expect(0);
    let refused = run(&["drain", "--timeout", "3"], "another");
    assert!(!refused.err.contains("another"), "{refused:?}");
    let message = refused.expect_failure(3, "unreachable");
    assert!(
        message.contains("Invalid username or password"),
        "{message}"
    );
    assert_eq!(gateway.status().count("queued"), count);
    run(&["drain"], PASSWORD).expect(0);
    gateway.status().expect_all_shipped(count);
    assert_eq!(kafka.watch("telemetry").total(), count);
}

#[test]
fn what_is_sent_by_default_is_compressed_with_lz4_and_numbered_by_an_idempotent_producer() {
    const ATTRIBUTES: usize = 21;
    const PRODUCER_ID: usize = 43;
    const LZ4: u8 = 3;
    let kafka = Kafka::start();
    kafka.create_topic("t", 1);
    let gateway = Gateway::new();
    let producer = Producer::open(&gateway.data, kafka.bootstrap_servers()).unwrap();
    let message = MessageRef {
        value: Some(&[b'x'; 1000]),
        ..MessageRef::to("t")
    };
    let receipt = producer.send_batch(&[message; 100]).unwrap();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    let batch = kafka.segment("t", 0);
    assert!(batch.len() < 20_000, "{} bytes", batch.len());
    // The codec in the last three bits, and no -1 for an identity.
    assert_eq!(batch[ATTRIBUTES + 1] & 0b111, LZ4);
    let id: [u8; 8] = batch[PRODUCER_ID..PRODUCER_ID + 8].try_into().unwrap();
    assert!(i64::from_be_bytes(id) >= 0, "{id:?}");
}
