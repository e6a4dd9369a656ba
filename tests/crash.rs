//! Kills the appending process at random moments and compares what is left with what it had
//! acknowledged, as told through a pipe to this process, which is not killed.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panic"
)]

#[path = "support/program.rs"]
#[allow(dead_code, reason = "shared: not every test needs all of it")]
mod program;
#[path = "support/random.rs"]
mod random;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use program::{ferrylog, run, run_on, start};
use random::Random;
use tempfile::TempDir;

const CYCLES: u64 = 50;
const RECORD_LEN_MAX: f64 = 100_000.0;

/// The bytes of record `number` of a cycle: 1 B to 100 KB, small ones as often as large ones, any
/// byte but the two that end a line.
fn record(seed: u64, cycle: u64, number: u64) -> Vec<u8> {
    let mut random = Random(seed ^ (cycle << 40) ^ number);
    random.next();
    let len = RECORD_LEN_MAX.powf(random.fraction()).ceil() as usize;
    let mut record: Vec<u8> = Vec::with_capacity(len + 8);
    while record.len() < len {
        record.extend_from_slice(&random.next().to_le_bytes());
    }
    record.truncate(len);
    for byte in &mut record {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b'.';
        }
    }
    record
}

/// How a cycle ends.
#[derive(Clone, Copy, Debug)]
enum Kill {
    /// This long after the start, nothing sent: in the middle of recovery, or soon after.
    Early(Duration),
    /// When this many records were acknowledged, and a moment later.
    AfterAcks(u64, Duration),
}

impl Kill {
    fn choose(random: &mut Random, cycle: u64) -> Self {
        let micros = Duration::from_micros;
        match cycle % 10 {
            3 | 7 => Self::Early(micros(random.below(20_000))),
            // Long enough to fill a segment: the kill hits the next one, or the change to it.
            5 if cycle % 20 == 5 => {
                Self::AfterAcks(6_000 + random.below(3_000), micros(random.below(3_000)))
            }
            _ => Self::AfterAcks(1 + random.below(500), micros(random.below(3_000))),
        }
    }
}

/// Runs one process to its violent end; returns the numbers it acknowledged.
fn cycle(data: &Path, seed: u64, cycle: u64, kill: Kill) -> Vec<u64> {
    let mut child = start(ferrylog(data, ["send", "--topic", "numbers", "--acks"]));
    let mut stdin = child.stdin.take().unwrap();
    let mut acks = BufReader::new(child.stdout.take().unwrap());
    let mut heard = Vec::new();
    thread::scope(|scope| {
        match kill {
            Kill::Early(moment) => thread::sleep(moment),
            Kill::AfterAcks(count, moment) => {
                scope.spawn(move || {
                    // Until the pipe breaks: the process is busy when it is killed.
                    for number in 0.. {
                        let mut line = record(seed, cycle, number);
                        line.push(b'\n');
                        if stdin.write_all(&line).is_err() {
                            break;
                        }
                    }
                });
                hear(&mut acks, &mut heard, count);
                thread::sleep(moment);
            }
        }
        child.kill().unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), None, "it ended by itself: {ended:?}");
        // What was printed before the kill was acknowledged before the kill.
        hear(&mut acks, &mut heard, u64::MAX);
    });
    heard
}

/// Reads acknowledgements until there are `count`, or no more.
fn hear(acks: &mut impl BufRead, heard: &mut Vec<u64>, count: u64) {
    let mut line = String::new();
    while (heard.len() as u64) < count {
        line.clear();
        acks.read_line(&mut line).unwrap();
        // A line that the kill cut short acknowledges nothing.
        let Some(number) = line.strip_suffix('\n') else {
            break;
        };
        heard.push(number.parse().unwrap());
    }
}

/// The live records: number and bytes.
fn exported(data: &Path) -> Vec<(u64, Vec<u8>)> {
    run(data, ["export"])
        .expect_json(0)
        .iter()
        .map(|line| {
            let value = match line["value"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => BASE64
                    .decode(line["value_base64"].as_str().unwrap())
                    .unwrap(),
            };
            (line["seq"].as_u64().unwrap(), value)
        })
        .collect()
}

#[test]
fn fifty_kills_lose_nothing_acknowledged_and_invent_nothing() {
    // Given again, a seed repeats the records and the plan of the kills, though not the moments.
    let seed = random::seed();
    let mut random = Random(seed);
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");

    // The numbers that each cycle with records acknowledged.
    let mut acknowledged: Vec<(u64, Vec<u64>)> = Vec::new();
    for number in 0..CYCLES {
        let kill = Kill::choose(&mut random, number);
        let heard = cycle(&data, seed, number, kill);
        if let (Some(first), Some(last)) = (heard.first(), heard.last()) {
            let dense: Vec<u64> = (*first..=*last).collect();
            assert_eq!(
                heard, dense,
                "cycle {number}: acknowledgements out of order"
            );
            acknowledged.push((number, heard));
        }
        // A kill so early that there is no store yet leaves nothing to verify.
        if data.join("lanes").is_dir() && !acknowledged.is_empty() {
            run(&data, ["verify"]).expect(0);
        }
    }

    let before_recovery = exported(&data);
    run_on(&data, ["send", "--topic", "numbers"], b"").expect(0);
    run(&data, ["verify"]).expect(0);
    let records = exported(&data);
    assert_eq!(
        before_recovery.len(),
        records.len(),
        "recovery changed what can be read"
    );
    assert!(
        before_recovery == records,
        "recovery changed what can be read"
    );
    compare(seed, &acknowledged, &records);

    let status = run(&data, ["status", "--json"]).expect_json(0).remove(0);
    let lane = &status["lanes"][0]["records"];
    assert_eq!(lane["queued"], records.len(), "{status}");
    assert_eq!(lane["accepted"], records.len(), "{status}");
}

/// Per cycle the records are the first ones that were sent, without a hole, and at least those
/// that were acknowledged: so none is lost, twice, out of order, or invented.
fn compare(seed: u64, acknowledged: &[(u64, Vec<u64>)], records: &[(u64, Vec<u8>)]) {
    let mut rest = records;
    for (place, (cycle, heard)) in acknowledged.iter().enumerate() {
        // Numbers grow over all cycles: this one's records end where the next one's begin.
        let end = acknowledged
            .get(place + 1)
            .map_or(u64::MAX, |(_, next)| next[0]);
        let (own, others) = rest.split_at(rest.partition_point(|(seq, _)| *seq < end));
        assert!(
            own.len() >= heard.len(),
            "cycle {cycle}: {} acknowledged, {} left",
            heard.len(),
            own.len()
        );
        for (number, (seq, bytes)) in own.iter().enumerate() {
            assert_eq!(*seq, heard[0] + number as u64, "cycle {cycle}: a hole");
            assert!(
                *bytes == record(seed, *cycle, number as u64),
                "cycle {cycle}: record {number}, SeqNo {seq} is not what was sent"
            );
        }
        rest = others;
    }
    assert!(rest.is_empty(), "{} records belong to no cycle", rest.len());
    let count: usize = acknowledged.iter().map(|(_, heard)| heard.len()).sum();
    println!("{count} acknowledged, {} kept", records.len());
}
