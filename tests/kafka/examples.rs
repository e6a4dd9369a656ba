//! The program of `docs/examples` that a mock cluster cannot serve.

#![allow(dead_code, reason = "it has a main of its own")]

use std::collections::BTreeSet;

use crate::gateway::Gateway;
use crate::kafka::Kafka;

#[path = "../../docs/examples/exactly_once.rs"]
mod exactly_once;

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
