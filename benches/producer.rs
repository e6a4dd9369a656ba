//! What a producer adds to the engine: time and allocations of a record that is sent.
//!
//! `cargo bench --bench producer` prints the rows of `docs/benchmarks.md`: one lane, records of 256 B,
//! level `os`. The engine alone and the producer take turns in the same run. No cluster: the shipper
//! tries for one meanwhile, as it does in an outage.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::store::{StoreOptions, Trust};
use ferrylog::wal::{Durability, OnFull, Wal};
use ferrylog::{MessageRef, Producer};

use support::table::{self, Goal, Pairs, figure, millions};
use support::{allocations, directory, with_level};

const VALUE: [u8; 256] = [0x5a; 256];
/// Records of one burst: 8 MiB, half of the default memory budget.
const RECORDS: u64 = 32 << 10;
const ROUNDS: usize = 61;
/// Nobody ships the records: the oldest ones go, in both.
const QUOTA: u64 = 512 << 20;

fn main() {
    let dir = directory();
    let mut options = with_level(Durability::Os);
    options.quota_bytes = Some(QUOTA);
    options.on_full = OnFull::DropOldest;
    let wal = Wal::open(dir.path().join("engine"), options.clone()).expect("a log");
    let nobody = Settings::new("127.0.0.1:1");
    let mut options = StoreOptions::new(options);
    // As on a gateway whose clock was set. Else each record is stamped with two clocks more.
    options.clock.trust = Trust::Plausible;
    let producer = Producer::builder(dir.path().join("store"), nobody)
        .store(options)
        .open()
        .expect("a producer");

    for _ in 0..64 {
        engine(&wal);
        sent(&producer);
    }
    let (mut bursts, mut allocated, mut by_engine) = (Pairs::default(), 0, 0);
    for _ in 0..ROUNDS {
        let (alone, own) = engine(&wal);
        by_engine += own;
        let (time, own) = sent(&producer);
        bursts.push(millions(RECORDS, time), millions(RECORDS, alone));
        allocated += own;
    }
    table::head();
    bursts.row(
        "`Producer::send`, one lane, `os`, values of 256 B, bursts of 8 MiB; limit: the engine alone",
        "M/s",
        2,
        Goal::AtLeast(0.67),
    );
    let sends = RECORDS * ROUNDS as u64;
    figure(
        &format!("allocations a send, by {sends} sends, receipts dropped"),
        allocated as f64 / sends as f64,
        format!("{allocated} in all, {by_engine} by the engine alone"),
        Goal::AtMost(0.001),
    );
}

/// A burst into the engine. That the length is the same every time is not for the compiler to know, as it does
/// not with the producer.
fn engine(wal: &Wal) -> (Duration, u64) {
    let value = black_box(&VALUE[..]);
    let before = allocations::counts().1;
    let start = Instant::now();
    for _ in 0..RECORDS {
        drop(wal.append(value).expect("appended"));
    }
    let time = start.elapsed();
    let own = allocations::counts().1 - before;
    wal.sync().expect("synced");
    (time, own)
}

/// The same through the producer, and the allocations of it.
fn sent(producer: &Producer) -> (Duration, u64) {
    let message = MessageRef {
        value: Some(black_box(&VALUE[..])),
        ..MessageRef::to("readings")
    };
    let before = allocations::counts().1;
    let start = Instant::now();
    for _ in 0..RECORDS {
        drop(producer.send(&message).expect("sent"));
    }
    let time = start.elapsed();
    let own = allocations::counts().1 - before;
    producer.flush().expect("synced");
    (time, own)
}
