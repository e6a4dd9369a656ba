//! The engine alone: a log of bytes, its reader, and what is settled. No Kafka in it.
//!
//! `cargo run --no-default-features --example engine [DIR]`

use std::error::Error;

use ferrylog::wal::{Class, Durability, Options, Wal};

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().nth(1).unwrap_or("readings".into()))
}

pub(crate) fn run(dir: &str) -> Result<(), Box<dyn Error>> {
    let mut options = Options::default();
    options.durability = Durability::Disk;
    options.quota_bytes = Some(256 << 20);
    let wal = Wal::open(dir, options)?;
    println!("{} records wait from before", wal.totals().queued);

    // On disk when this returns. A batch is kept whole, or not at all.
    wal.append_wait(b"39.4 F")?;
    wal.append_batch(&[b"39.2 F", b"39.0 F"])?.wait()?;

    // A reader sees what is on disk; what is settled never comes again, and its space is used anew.
    let mut reader = wal.reader(wal.marks().acked);
    while let Some(record) = reader.next()? {
        println!(
            "{}: {}",
            record.seq,
            String::from_utf8_lossy(&record.payload)
        );
        wal.settle(record.seq..record.seq + 1, Class::Shipped);
    }
    assert!(wal.totals().balances());
    wal.close()?;
    Ok(())
}
