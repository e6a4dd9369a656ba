//! Threads that block until each of their records is on disk: hundreds of them share one sync.
//!
//! `cargo run --example threads [DIR] [BOOTSTRAP_SERVERS]`

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::{MessageRef, Producer};

const THREADS: u64 = 64;
const RECORDS: u64 = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or("ferrylog-data".into());
    run(&dir, &arguments.next().unwrap_or("127.0.0.1:9092".into()))
}

pub(crate) fn run(dir: &str, servers: &str) -> Result<(), Box<dyn Error>> {
    let producer = Producer::open(dir, servers)?;
    let start = Instant::now();
    thread::scope(|scope| {
        let machines = (0..THREADS).map(|number| {
            let producer = &producer;
            scope.spawn(move || machine(number, producer).map_err(|error| error.to_string()))
        });
        let machines: Vec<_> = machines.collect();
        let ended = machines.into_iter().map(|machine| {
            machine
                .join()
                .unwrap_or_else(|_| Err("a machine panicked".into()))
        });
        ended.collect::<Result<(), String>>()
    })?;
    let each = start.elapsed() / u32::try_from(RECORDS)?;
    println!(
        "{} records are on disk; a thread waited {each:?} for each",
        THREADS * RECORDS
    );
    let closed = producer.close(Duration::from_secs(30))?;
    println!(
        "{} are in Kafka, {} wait",
        closed.totals.shipped, closed.totals.queued
    );
    Ok(())
}

fn machine(number: u64, producer: &Producer) -> Result<(), Box<dyn Error>> {
    let key = format!("machine-{number}");
    for part in 0..RECORDS {
        let value = format!("part {part} is done");
        let receipt = producer.send(&MessageRef {
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..MessageRef::to("parts")
        })?;
        // Only now may the machine forget it.
        receipt.durable().wait()?;
    }
    Ok(())
}
