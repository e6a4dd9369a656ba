//! A recovery callback: the program itself decides about a record that Kafka refuses for good.
//!
//! `cargo run --example recovery [DIR] [BOOTSTRAP_SERVERS]`; the topic is to take 1 MB a record, which is
//! the default. Needs a cluster, which a mock is not.

use std::error::Error;
use std::time::Duration;

use ferrylog::kafka::{ErrorClass, Settings};
use ferrylog::ship::{FailedRecord, Recovery, Replacement};
use ferrylog::{MessageRef, Producer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or("ferrylog-data".into());
    let outcome = run(&dir, &arguments.next().unwrap_or("127.0.0.1:9092".into()))?;
    println!("the picture that was too large was {outcome}");
    Ok(())
}

pub(crate) fn run(dir: &str, servers: &str) -> Result<ferrylog::Outcome, Box<dyn Error>> {
    let mut settings = Settings::new(servers);
    // Pictures are compressed as they are.
    let property = ("compression.type".into(), "none".into());
    settings.properties.push(property);
    let producer = Producer::builder(dir, settings)
        .on_exhausted(recover)
        .open()?;
    let receipt = producer.send(&MessageRef {
        key: Some(b"camera-3"),
        value: Some(&vec![0x5a; 4 << 20]),
        ..MessageRef::to("pictures")
    })?;
    let outcome = receipt.delivered().wait()?;
    producer.close(Duration::from_secs(10))?;
    Ok(outcome)
}

/// Runs on the thread that ships: it must not block.
fn recover(failed: &FailedRecord<'_>) -> Recovery {
    eprintln!("{} was refused: {}", failed.seq, failed.failure);
    match failed.failure.class {
        // The note that it was too large is worth more than nothing.
        ErrorClass::Poison => Recovery::Replace(Replacement {
            key: failed.message.key.as_ref().map(|key| key.to_vec()),
            value: Some(b"a picture that was too large".to_vec()),
            // Those of the record.
            headers: None,
        }),
        _ if failed.attempts < 20 => Recovery::Retry(Duration::from_secs(30)),
        // It is kept there, to be looked at and sent again.
        _ => Recovery::DeadLetter,
    }
}
