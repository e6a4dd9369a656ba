//! The longest append while a segment ends and the next one begins, with the budget not full.
//!
//! Segments of 4 MiB, one thread with 4,096 tickets open: a sixteenth of the budget. Every append is
//! timed. A rotation lasts from the seal's write to the write of the new header.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrylog::wal::{Durability, Wal};

use crate::RECORD;
use crate::support::meter::{Call, Kind, Meter};
use crate::support::table::{Goal, Series, micros, row};
use crate::support::{directory, stream, with_level};

const SEGMENT: u64 = 4 << 20;
const RECORDS: u64 = 256 << 10;
const ROUNDS: usize = 11;
/// Appends that took longer are looked at one by one.
const LONG: Duration = Duration::from_micros(5);

pub(crate) fn rows() {
    for level in [Durability::Os, Durability::Disk] {
        let (mut p99, mut longest, mut over) = <(Series, Series, Series)>::default();
        let mut all = Series::default();
        let mut rotations = 0;
        let dir = directory();
        let meter = Meter::default();
        let mut options = with_level(level);
        options.segment_size = SEGMENT;
        let wal = Wal::open_on(Arc::new(meter.clone()), dir.path(), options).expect("a log");
        meter.trace();
        // The first round warms up.
        for round in 0..=ROUNDS {
            let run = run(&wal, &meter);
            if round > 0 {
                p99.push(run.p99);
                longest.push(run.longest);
                over.push(run.longest - run.p99);
                all.push(run.longest_of_all);
                rotations += run.rotations;
            }
        }
        row(
            format!(
                "`{level}`, longest append during a rotation of {ROUNDS} times {}; limit: the p99 of all; longest at any time: {} us",
                rotations / ROUNDS,
                all.told(0)
            ),
            format!("{} us", longest.told(0)),
            format!("{} us", p99.told(1)),
            format!("{} us more", over.told(0)),
            "at most 1000 us more",
            Goal::AtMost(1000.0).is_met_by(over.median()),
        );
    }
}

struct Run {
    p99: f64,
    longest: f64,
    longest_of_all: f64,
    rotations: usize,
}

fn run(wal: &Wal<Meter>, meter: &Meter) -> Run {
    let mut times: Vec<u32> = Vec::with_capacity(RECORDS as usize);
    let mut long: Vec<(Instant, Instant)> = Vec::with_capacity(RECORDS as usize);
    stream(wal, RECORDS, true, || {
        let start = Instant::now();
        let ticket = wal.append(&RECORD).expect("appended");
        let end = Instant::now();
        let time = end - start;
        times.push(time.as_nanos() as u32);
        if time > LONG {
            long.push((start, end));
        }
        ticket
    });
    wal.sync().expect("synced");
    times.sort_unstable();
    let windows = rotations(&meter.take_trace());
    let during = |(start, end): &(Instant, Instant)| {
        windows.iter().any(|(from, to)| start < to && from < end)
    };
    let longest = |times: &mut dyn Iterator<Item = &(Instant, Instant)>| {
        let times = times.map(|(start, end)| micros(*end - *start));
        times.fold(micros(LONG), f64::max)
    };
    Run {
        p99: f64::from(times[times.len() / 100 * 99]) / 1000.0,
        longest: longest(&mut long.iter().filter(|append| during(append))),
        longest_of_all: longest(&mut long.iter()),
        rotations: windows.len(),
    }
}

/// From the last write before the last sync of one segment to the header of the next one: all three
/// are made by one thread (R13).
fn rotations(calls: &[Call]) -> Vec<(Instant, Instant)> {
    let begun = calls.iter().enumerate();
    begun
        .filter(|(_, call)| call.kind == Kind::Begin)
        .filter_map(|(at, begin)| {
            let mut own = calls[..at]
                .iter()
                .rev()
                .filter(|call| call.thread == begin.thread);
            let sync = own.find(|call| call.kind == Kind::Sync && call.path != begin.path)?;
            let seal = own.find(|call| call.kind == Kind::Write && call.path == sync.path)?;
            Some((seal.start, begin.end))
        })
        .collect()
}
