//! Meter readings that are billed: in transactions, so that readers of what is committed see each of
//! them once, whatever crashes.
//!
//! `cargo run --example exactly_once [DIR] [BOOTSTRAP_SERVERS]`; needs a cluster, which a mock is not.

use std::error::Error;
use std::time::Duration;

use ferrylog::kafka::Settings;
use ferrylog::ship::exactly_once::ExactlyOnceOptions;
use ferrylog::{MessageRef, Producer};

const READINGS: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or("ferrylog-data".into());
    run(&dir, &arguments.next().unwrap_or("127.0.0.1:9092".into()))
}

pub(crate) fn run(dir: &str, servers: &str) -> Result<(), Box<dyn Error>> {
    let mut options = ExactlyOnceOptions::default();
    options.transactional_id_prefix = "meters".to_owned();
    let producer = Producer::builder(dir, Settings::new(servers))
        .exactly_once(options)
        .open()?;
    for hour in 0..READINGS {
        let value = format!("{hour} h: {} kWh", hour * 3 % 7);
        // What goes in no receipt is asked for later, or never.
        drop(producer.send(&MessageRef {
            key: Some(b"meter-4711"),
            value: Some(value.as_bytes()),
            ..MessageRef::to("billing")
        })?);
    }
    producer.flush()?;
    let closed = producer.close(Duration::from_secs(60))?;
    println!(
        "{} committed, {} wait",
        closed.totals.shipped, closed.totals.queued
    );
    Ok(())
}
