//! The programs of `docs/examples` that a mock cluster cannot serve.

#![allow(dead_code, reason = "each has a main of its own")]

use std::collections::BTreeSet;

use ferrylog::Outcome;

use crate::gateway::Gateway;
use crate::kafka::Kafka;

#[path = "../../docs/examples/exactly_once.rs"]
mod exactly_once;
#[path = "../../docs/examples/recovery.rs"]
mod recovery;

#[test]
fn a_producer_in_transactions_commits_what_it_was_given_once() {
    let gateway = Gateway::new();
    let kafka = Kafka::start();
    kafka.create_topic("billing", 3);
    for run in 1..=2 {
        exactly_once::run(gateway.data.to_str().unwrap(), &kafka.bootstrap_servers()).unwrap();
        let count = 1_000 * run;
        gateway.status().expect_all_shipped(count);
        let records = kafka.consume("billing");
        let ids: BTreeSet<_> = records
            .iter()
            .map(|record| record.header("ferry-id"))
            .collect();
        assert_eq!((ids.len() as u64, records.len() as u64), (count, count));
    }
}

#[test]
fn a_callback_sends_a_note_in_the_place_of_what_is_refused() {
    let gateway = Gateway::new();
    let kafka = Kafka::start();
    kafka.create_topic("pictures", 3);
    let servers = kafka.bootstrap_servers();
    let outcome = recovery::run(gateway.data.to_str().unwrap(), &servers).unwrap();
    assert_eq!(outcome, Outcome::Shipped);
    gateway.status().expect_all_shipped(1);
    let records = kafka.consume("pictures");
    let [note] = &records[..] else {
        panic!("{} records", records.len());
    };
    assert_eq!(note.key.as_deref(), Some(&b"camera-3"[..]));
    let value = String::from_utf8_lossy(note.value.as_ref().unwrap());
    assert_eq!(value, "a picture that was too large");
}
