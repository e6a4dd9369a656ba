//! Compares what a topic holds with what was sent to it.
//!
//! The judge of these tests: first copies in order, none missing, none invented; further copies
//! only as runs that begin at or before the end of what was there, each equal to its first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::kafka::{Consumed, Kafka};

/// The content of a record: key and value.
pub(crate) type Content = (Option<Vec<u8>>, Vec<u8>);

/// What there is beside the first copies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repeats {
    /// Copies beyond the first.
    pub(crate) duplicates: usize,
    /// The most runs in one partition that go back to repeat something.
    pub(crate) runs: usize,
}

/// Reads a topic and judges it: it must hold records 0 to `count` of the log, as `content` made
/// them.
pub(crate) fn check(
    kafka: &Kafka,
    topic: &str,
    log_id: &str,
    count: u64,
    content: impl Fn(u64) -> Content,
) -> Repeats {
    check_those(kafka, topic, log_id, (0..count).collect(), content)
}

/// The same where the topic must hold just these records of the log.
pub(crate) fn check_those(
    kafka: &Kafka,
    topic: &str,
    log_id: &str,
    expected: BTreeSet<u64>,
    content: impl Fn(u64) -> Content,
) -> Repeats {
    let mut partitions: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    let mut keys = HashMap::new();
    kafka.consume_each(topic, |record| {
        let seq = identify(&record, log_id);
        let (key, value) = content(seq);
        assert_eq!(record.key, key, "the key of {seq}");
        assert!(
            record.value.as_deref() == Some(&value[..]),
            "{seq} is not what was sent"
        );
        if let Some(key) = key {
            let partition = *keys.entry(key).or_insert(record.partition);
            assert_eq!(record.partition, partition, "the key of {seq} is parted");
        }
        partitions.entry(record.partition).or_default().push(seq);
    });
    judge(&partitions, &expected)
}

/// The number of a record, from the one header that it must have.
pub(crate) fn identify(record: &Consumed, log_id: &str) -> u64 {
    assert_eq!(record.headers.len(), 1, "{:?}", record.headers);
    let id = record.header("ferry-id").expect("a ferry-id");
    let (log, seq) = id.split_once('-').expect("two parts");
    assert_eq!(log, log_id);
    seq.parse().expect("a number")
}

/// The judge himself: numbers by partition, in the order they arrived in.
pub(crate) fn judge(partitions: &BTreeMap<i32, Vec<u64>>, expected: &BTreeSet<u64>) -> Repeats {
    let mut missing = expected.clone();
    let mut repeats = Repeats {
        duplicates: 0,
        runs: 0,
    };
    for (partition, seqs) in partitions {
        let firsts = first_copies(*partition, seqs);
        let runs = repeated_runs(*partition, seqs, &firsts);
        repeats.duplicates += seqs.len() - firsts.len();
        repeats.runs = repeats.runs.max(runs);
        for seq in firsts {
            assert!(expected.contains(&seq), "{seq} was never sent here");
            assert!(missing.remove(&seq), "{seq} is in two partitions");
        }
    }
    if let Some(first) = missing.first() {
        let (lost, count) = (missing.len(), expected.len());
        panic!("{lost} of {count} are lost, from {first} on");
    }
    repeats
}

/// The first copies of a partition, which must be in order.
fn first_copies(partition: i32, seqs: &[u64]) -> Vec<u64> {
    let mut seen = HashSet::new();
    let firsts: Vec<u64> = seqs.iter().copied().filter(|&s| seen.insert(s)).collect();
    for pair in firsts.windows(2) {
        let [before, after] = pair else { continue };
        assert!(
            before < after,
            "partition {partition}: {after} came first after {before}"
        );
    }
    firsts
}

/// How often a partition goes back. Between that each record must follow its predecessor.
fn repeated_runs(partition: i32, seqs: &[u64], firsts: &[u64]) -> usize {
    let place = |seq: u64| firsts.partition_point(|&first| first < seq);
    let mut runs = 0;
    for pair in seqs.windows(2) {
        let [before, after] = pair else { continue };
        if after <= before {
            runs += 1;
        } else {
            assert_eq!(
                place(*after),
                place(*before) + 1,
                "partition {partition}: a hole between {before} and {after}"
            );
        }
    }
    runs
}

fn judged(seqs: &[u64], count: u64) -> Repeats {
    let partitions = BTreeMap::from([(0, seqs.to_vec())]);
    judge(&partitions, &(0..count).collect())
}

#[test]
fn runs_that_are_repeated_are_counted() {
    let repeats = judged(&[0, 1, 2, 1, 2, 3, 2, 3, 4], 5);
    assert_eq!((repeats.duplicates, repeats.runs), (4, 2));
}

#[test]
#[should_panic(expected = "1 of 4 are lost, from 2 on")]
fn a_record_that_is_missing_is_seen() {
    judged(&[0, 1, 3], 4);
}

#[test]
#[should_panic(expected = "1 came first after 2")]
fn a_first_copy_out_of_order_is_seen() {
    judged(&[0, 2, 1, 2, 3], 4);
}

#[test]
#[should_panic(expected = "a hole between 1 and 3")]
fn a_hole_in_a_repeated_run_is_seen() {
    judged(&[0, 1, 2, 3, 4, 1, 3, 4, 5], 6);
}
