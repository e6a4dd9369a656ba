//! The main job with real input: readings sent while there is no broker anywhere, delivered later.

use std::fs;

use crate::copies::{self, Repeats};
use crate::gateway::Gateway;
use crate::kafka::Kafka;
use crate::program::run;

const READINGS: &str = "tests/data/seattle-temps.csv";

#[test]
fn readings_sent_without_a_broker_arrive_line_by_line_and_only_once() {
    let text = fs::read_to_string(READINGS).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // A heading and 8,759 readings.
    assert_eq!(lines.len(), 8_760);
    let count = lines.len() as u64;

    let gateway = Gateway::new();
    run(&gateway.data, ["send", "--topic", "temps", READINGS]).expect(0);
    assert_eq!(gateway.status().count("queued"), count);

    let kafka = Kafka::start();
    kafka.create_topic("temps", 1);
    let told = gateway.drain(&kafka, &[]).expect_json(0).remove(0);
    assert_eq!(
        (&told["shipped"], &told["empty"]),
        (&count.into(), &true.into())
    );
    let status = gateway.status();
    status.expect_all_shipped(count);

    // In one partition, "in order and none twice" means: exactly these lines.
    let arrived = kafka.consume("temps");
    let values: Vec<&str> = arrived
        .iter()
        .map(|record| std::str::from_utf8(record.value.as_deref().unwrap()).unwrap())
        .collect();
    assert!(values == lines, "not the lines of the file");
    let line = |seq: u64| (None, lines[seq as usize].as_bytes().to_vec());
    let repeats = copies::check(&kafka, "temps", &status.log_id, count, line);
    let none = Repeats {
        duplicates: 0,
        runs: 0,
    };
    assert_eq!(repeats, none);

    let ends = kafka.watch("temps").ends();
    assert_eq!(ends, [8_760]);
    let told = gateway.drain(&kafka, &[]).expect_json(0).remove(0);
    assert_eq!(told["shipped"], 0, "{told}");
    assert_eq!(kafka.watch("temps").ends(), ends);
}
