//! A record that takes the link longer than a request may.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ferrylog::message::MessageRef;
use ferrylog::ship::{self, Drained, OnTooSlow};

use crate::sink::Scripted;
use crate::support::{Scratch, options};

const COUNT: u64 = 200;

/// What a thin link leaves of the flight budget: a large record is alone on its way.
const THIN: u64 = 32 * 1024;

/// Every twentieth record is a large one.
fn is_large(n: u64) -> bool {
    n % 20 == 10
}

fn filled() -> Scratch {
    let scratch = Scratch::new();
    for n in 0..COUNT {
        let value = vec![b'v'; if is_large(n) { 60_000 } else { 10 }];
        let message = MessageRef {
            partition: Some((n % 4) as i32),
            value: Some(&value),
            ..MessageRef::to("t")
        };
        drop(scratch.store.lane().append(&message).unwrap());
    }
    scratch.store.lane().sync().unwrap();
    scratch
}

fn drain(scratch: &Scratch, sink: &mut Scripted, on_too_slow: OnTooSlow) -> Drained {
    let mut options = options();
    options.on_too_slow = on_too_slow;
    options.max_in_flight_bytes = THIN;
    options.too_slow_after = Duration::from_millis(50);
    let stop = AtomicBool::new(false);
    ship::drain_into(&scratch.store, sink, &options, &stop, &mut |_| {}).unwrap()
}

/// Each of these arrived once, in order.
fn check(sink: &Scripted, expected: impl Iterator<Item = u64>) {
    let mut found: Vec<u64> = sink.seqs().concat();
    for seqs in sink.seqs() {
        assert!(seqs.is_sorted_by(|a, b| a < b), "order, or a duplicate");
    }
    found.sort_unstable();
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn what_takes_longer_than_a_request_may_is_given_the_longest_time_and_arrives() {
    for seed in 0..5 {
        let scratch = filled();
        let mut sink = Scripted::new(seed, 4);
        sink.slow = (0..COUNT).filter(|&n| is_large(n)).collect();
        let drained = drain(&scratch, &mut sink, OnTooSlow::DeadLetter);
        assert!(drained.is_empty, "{:?}", drained.held);
        assert!(scratch.store.dead_letters_if_any().unwrap().is_none());
        check(&sink, 0..COUNT);
    }
}

#[test]
fn what_does_not_cross_even_so_is_held_and_only_its_own_partition_waits() {
    let scratch = filled();
    let mut sink = Scripted::new(7, 4);
    sink.too_slow = HashSet::from([90]);
    let drained = drain(&scratch, &mut sink, OnTooSlow::Hold);
    let [held] = &drained.held[..] else {
        panic!("{:?}", drained.held);
    };
    assert_eq!(held.partition, Some(2));
    assert_eq!(held.why.kind(), "too_slow");
    let told = held.why.to_string();
    assert_eq!(
        told,
        "too big for this link: 60000 bytes did not cross it in 0 s"
    );
    check(&sink, (0..COUNT).filter(|n| n % 4 != 2 || *n < 90));
    assert!(scratch.store.dead_letters_if_any().unwrap().is_none());
    // On a better link.
    sink.too_slow.clear();
    sink.forget();
    assert!(drain(&scratch, &mut sink, OnTooSlow::Hold).is_empty);
    check(&sink, 0..COUNT);
}

#[test]
fn what_does_not_cross_goes_to_the_dead_letters_without_an_attempt_where_that_is_the_policy() {
    let scratch = filled();
    let mut sink = Scripted::new(8, 4);
    sink.too_slow = HashSet::from([90, 110]);
    let drained = drain(&scratch, &mut sink, OnTooSlow::DeadLetter);
    assert!(drained.is_empty, "{:?}", drained.held);
    check(&sink, (0..COUNT).filter(|n| ![90, 110].contains(n)));
    let letters = scratch.store.dead_letters().unwrap();
    let all = letters.open_letters(|_, _, _| true);
    assert_eq!(all.len(), 2);
    for seq in all {
        let body = letters.get(seq).unwrap().unwrap().body;
        assert_eq!(
            (body.class.as_str(), body.code, body.attempts),
            ("network", -185, 0)
        );
        let told = "too big for this link: 60000 bytes did not cross it in 0 s";
        assert!(body.reason.contains(told), "{}", body.reason);
    }
    let totals = scratch.store.lane().totals();
    assert!(totals.balances());
    assert_eq!(totals.dead_lettered, 2);
}

/// A link that is dead times out what fills the flight, and that says nothing about a record.
#[test]
fn a_large_record_that_is_not_alone_is_never_too_slow() {
    let scratch = filled();
    let mut sink = Scripted::new(10, 4);
    sink.too_slow = HashSet::from([89, 90, 91, 92]);
    let mut options = options();
    options.too_slow_after = Duration::from_millis(50);
    options.timeout = Some(Duration::from_millis(500));
    let stop = AtomicBool::new(false);
    let ended = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(sink.rebuild_count, 0);
}

/// A link that is dead times a record out as well, and says nothing about it.
#[test]
fn a_small_record_is_never_too_slow() {
    let scratch = filled();
    let mut sink = Scripted::new(9, 4);
    sink.too_slow = HashSet::from([91]);
    let mut options = options();
    options.too_slow_after = Duration::from_millis(50);
    options.max_in_flight_bytes = THIN;
    options.timeout = Some(Duration::from_millis(500));
    let stop = AtomicBool::new(false);
    let ended = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(sink.rebuild_count, 0);
}
