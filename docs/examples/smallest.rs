//! The smallest producer: one reading, on disk, then in Kafka.
//!
//! `cargo run --example smallest [DIR] [BOOTSTRAP_SERVERS]`

use std::error::Error;
use std::time::Duration;

use ferrylog::{MessageRef, Producer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or("ferrylog-data".into());
    run(&dir, &arguments.next().unwrap_or("127.0.0.1:9092".into()))
}

pub(crate) fn run(dir: &str, servers: &str) -> Result<(), Box<dyn Error>> {
    let producer = Producer::open(dir, servers)?;
    let receipt = producer.send(&MessageRef {
        key: Some(b"site-17"),
        value: Some(b"21.4"),
        ..MessageRef::to("temps")
    })?;
    receipt.durable().wait()?;
    println!("{} is on disk", receipt.id());
    println!("it was {}", receipt.delivered().wait()?);
    producer.close(Duration::from_secs(10))?;
    Ok(())
}
