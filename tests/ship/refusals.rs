//! What happens to the others when one record, one partition or one topic is refused.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ferrylog::kafka::ErrorClass;
use ferrylog::ship::{self, Drained, OnExhausted, OnPoison, Recovery, Replacement, ShipOptions};
use ferrylog::store::Body;
use ferrylog::wal::{Options, SeqNo};

use crate::random::Random;
use crate::sink::{HARMLESS, Scripted, Written};
use crate::support::{Scratch, forget_cursor, options};

/// First copies are in order, none comes twice, and just those of `expected` are there.
fn check(sink: &Scripted, expected: impl Iterator<Item = u64>) {
    let mut found = Vec::new();
    for seqs in sink.seqs() {
        assert!(seqs.is_sorted_by(|a, b| a < b), "order, or a duplicate");
        found.extend(seqs);
    }
    found.sort_unstable();
    assert_eq!(found, expected.collect::<Vec<_>>());
}

/// The origins of all dead letters, in the order of their burial.
fn buried(scratch: &Scratch) -> Vec<u64> {
    let letters = scratch.store.dead_letters_if_any().unwrap();
    let Some(letters) = letters else {
        return Vec::new();
    };
    let all = letters.open_letters(|_, _, _| true);
    let origin = |seq| letters.get(seq).unwrap().unwrap().body.origin.seq.get();
    all.into_iter().map(origin).collect()
}

fn drain(scratch: &Scratch, sink: &mut Scripted, options: &ShipOptions) -> Drained {
    let stop = AtomicBool::new(false);
    ship::drain_into(&scratch.store, sink, options, &stop, &mut |_| {}).unwrap()
}

#[test]
fn one_in_a_hundred_is_refused_and_each_alone_goes_to_the_dead_letters() {
    for seed in 0..12 {
        let scratch = Scratch::new();
        scratch.fill("t", 0..3000);
        let mut sink = Scripted::new(seed, 3);
        let mut random = Random(seed);
        sink.poison = (0..3000).filter(|_| random.below(100) == 0).collect();
        let drained = scratch.drain(&mut sink).unwrap();
        assert!(drained.is_empty, "{:?}", drained.held);
        check(&sink, (0..3000).filter(|n| !sink.poison.contains(n)));
        let dead: HashSet<u64> = buried(&scratch).into_iter().collect();
        assert_eq!(dead, sink.poison, "each, and no sibling with it");
        let totals = scratch.store.lane().totals();
        assert!(totals.balances());
        assert_eq!(totals.dead_lettered, dead.len() as u64);
        println!(
            "{:?}: {} refusals, {} rebuilds",
            drained.elapsed, sink.refusals, drained.rebuilds
        );
        // The main producer meets few of them.
        assert!(drained.rebuilds < 12, "{}", drained.rebuilds);
    }
}

#[test]
fn a_dead_letter_holds_the_record_byte_for_byte_with_class_and_code() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..50);
    let mut sink = Scripted::new(1, 2);
    sink.poison = HashSet::from([20]);
    let drained = scratch.drain(&mut sink).unwrap();
    assert_eq!(drained.counters.dead_lettered, 1);
    let letters = scratch.store.dead_letters().unwrap();
    let letter = letters.get(SeqNo::new(0)).unwrap().unwrap();
    let Body {
        lane,
        class,
        code,
        content,
        ..
    } = &letter.body;
    assert_eq!((&**lane, &**class, *code), ("default", "poison", 87));
    let message = content.as_ref().unwrap();
    assert_eq!(message.value.as_deref(), Some(&b"20"[..]));
    assert_eq!(message.key.as_deref(), Some(&b"key-3"[..]));
}

/// A crash between the dead letter and the mark that covers it.
#[test]
fn a_record_that_stands_among_the_dead_letters_is_neither_sent_nor_buried_again() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    {
        let scratch = Scratch::new();
        scratch.fill("t", 0..50);
        let mut sink = Scripted::new(1, 1);
        sink.poison = HashSet::from([20]);
        scratch.drain(&mut sink).unwrap();
        copy_tree(&scratch.store_dir(), &copy);
    }
    forget_cursor(&copy, "default");
    let store = ferrylog::store::Store::open(&copy, Options::default()).unwrap();
    let mut sink = Scripted::new(2, 1);
    let stop = AtomicBool::new(false);
    ship::drain_into(&store, &mut sink, &options(), &stop, &mut |_| {}).unwrap();
    let sent = sink.seqs().concat();
    assert!(!sent.is_empty(), "the settlements were not forgotten");
    assert!(!sent.contains(&20));
    let letters = store.dead_letters().unwrap();
    assert_eq!(letters.open_letters(|_, _, _| true).len(), 1);
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            // The log makes spare files meanwhile, under another name first.
            match std::fs::copy(entry.path(), target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

#[test]
fn a_limit_lowered_under_a_backlog_makes_no_more_than_a_hundred_dead_letters() {
    for park_after in [ShipOptions::default().park_after, Duration::ZERO] {
        let scratch = Scratch::new();
        scratch.fill("t", 0..5000);
        let mut sink = Scripted::new(5, 2);
        sink.poison = (1000..5000).collect();
        let mut options = options();
        options.park_after = park_after;
        let drained = drain(&scratch, &mut sink, &options);
        assert!(!drained.is_empty);
        assert!(buried(&scratch).len() <= 100, "{}", buried(&scratch).len());
        let kinds: Vec<&str> = drained.held.iter().map(|held| held.why.kind()).collect();
        assert_eq!(kinds, ["everything_refused"; 2]);
        let moved = scratch.store.lane().totals().moved;
        assert_eq!(moved > 0, park_after.is_zero(), "{moved} are parked");
        // A new process begins no new hundred.
        let before = buried(&scratch).len();
        for _ in 0..3 {
            assert!(!drain(&scratch, &mut sink, &options).is_empty);
        }
        // Nothing tells what was moved to a parking log from what was taken: those begin one more.
        let most = if park_after.is_zero() { 200 } else { 100 };
        assert!(buried(&scratch).len() <= most, "{before} before");
        // Once the limit is raised again, what is left goes.
        sink.poison.clear();
        let dead: HashSet<u64> = buried(&scratch).into_iter().collect();
        assert!(drain(&scratch, &mut sink, &options).is_empty);
        check(&sink, (0..5000).filter(|n| !dead.contains(n)));
    }
}

#[test]
fn where_the_policy_is_to_stop_a_partition_stops_in_front_of_the_refused_record() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..500);
    let mut sink = Scripted::new(6, 2);
    sink.poison = HashSet::from([250]);
    let mut options = options();
    options.retry.on_poison = OnPoison::Halt;
    let drained = drain(&scratch, &mut sink, &options);
    assert_eq!(drained.held.len(), 1);
    assert_eq!(drained.held[0].why.kind(), "halted");
    assert!(buried(&scratch).is_empty());
    let stopped = drained.held[0].partition.unwrap();
    for (&partition, records) in &sink.written {
        let last = records.last().unwrap().seq();
        if i32::try_from(stopped).unwrap() == partition {
            assert!(last < 250, "{last} overtook it");
        } else {
            assert!(last > 450, "another partition was stopped, too");
        }
    }
    sink.poison.clear();
    assert!(drain(&scratch, &mut sink, &options).is_empty);
    check(&sink, 0..500);
}

#[test]
fn a_topic_that_is_missing_for_long_is_parked_and_its_records_come_in_order_once_it_is_there() {
    let scratch = Scratch::new();
    let mut sink = Scripted::new(7, 3);
    sink.missing = HashSet::from(["gone".to_owned()]);
    for part in 0..10 {
        scratch.fill("t", part * 200..part * 200 + 100);
        scratch.fill("gone", part * 200 + 100..part * 200 + 200);
    }
    let mut options = options();
    options.park_after = Duration::from_millis(1);
    let drained = drain(&scratch, &mut sink, &options);
    assert_eq!(drained.shipped, 1000);
    assert_eq!(drained.counters.parked, 1000);
    // The lane goes on without them: nothing of it is held up.
    let totals = scratch.store.lane().totals();
    assert_eq!(
        (totals.shipped, totals.moved, totals.queued),
        (1000, 1000, 0)
    );
    let parked: u64 = scratch
        .store
        .parking_logs()
        .map(|log| log.totals().queued)
        .sum();
    assert_eq!(parked, 1000);

    // More of both, and the topic comes.
    scratch.fill("gone", 2000..2100);
    scratch.fill("t", 2100..2200);
    sink.missing.clear();
    let drained = drain(&scratch, &mut sink, &options);
    assert!(drained.is_empty, "{:?}", drained.held);
    let content = |n: u64| (n / 100) % 2 == 1 && n < 2000 || (2000..2100).contains(&n);
    let mut found = HashSet::new();
    for ((topic, _), records) in &sink.by_topic {
        let seqs: Vec<u64> = records.clone();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{topic}: {seqs:?}");
        for seq in seqs {
            assert_eq!(topic == "gone", content(seq), "{seq} in {topic}");
            assert!(found.insert(seq));
        }
    }
    assert_eq!(found.len(), 2200);
}

#[test]
fn parked_records_outlive_the_process_and_are_not_sent_twice() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let open =
        |dir: &std::path::Path| ferrylog::store::Store::open(dir, Options::default()).unwrap();
    let stop = AtomicBool::new(false);
    let mut options = options();
    options.park_after = Duration::from_millis(1);
    let mut sink = Scripted::new(8, 3);
    sink.missing = HashSet::from(["t".to_owned()]);
    {
        let store = open(&dir.path().join("s"));
        for n in 0..500_u64 {
            let text = n.to_string();
            let message = ferrylog::message::MessageRef {
                value: Some(text.as_bytes()),
                ..ferrylog::message::MessageRef::to("t")
            };
            drop(store.lane().append(&message).unwrap());
        }
        store.lane().sync().unwrap();
        ship::drain_into(&store, &mut sink, &options, &stop, &mut |_| {}).unwrap();
        assert_eq!(store.lane().totals().moved, 500);
        copy_tree(&dir.path().join("s"), &copy);
    }
    // A crash that forgot the settlements of the lane: its records stand in both logs.
    forget_cursor(&copy, "default");
    let store = open(&copy);
    assert!(store.lane().totals().queued > 0, "they were not forgotten");
    sink.missing.clear();
    let drained = ship::drain_into(&store, &mut sink, &options, &stop, &mut |_| {}).unwrap();
    assert!(drained.is_empty);
    check(&sink, 0..500);
}

#[test]
fn a_record_that_is_refused_again_and_again_while_others_pass_is_exhausted() {
    for (on_exhausted, dead) in [(OnExhausted::DeadLetter, 1), (OnExhausted::Drop, 0)] {
        let scratch = Scratch::new();
        scratch.fill("t", 0..300);
        let mut sink = Scripted::new(9, 1);
        sink.flaky = HashSet::from([100]);
        let mut options = options();
        options.retry.max_attempts = 3;
        options.retry.initial_backoff = Duration::from_millis(1);
        options.retry.on_exhausted = on_exhausted;
        let drained = drain(&scratch, &mut sink, &options);
        assert!(drained.is_empty, "{:?}", drained.held);
        assert_eq!(buried(&scratch).len(), dead);
        assert_eq!(drained.counters.dropped, 1 - dead as u64);
        check(&sink, (0..300).filter(|n| *n != 100));
    }
}

#[test]
fn the_callback_decides_about_records_that_are_refused_for_what_they_are() {
    let harmless = Recovery::Replace(Replacement {
        key: None,
        value: Some(HARMLESS.to_vec()),
        headers: Some(vec![("why".to_owned(), Some(b"repaired".to_vec()))]),
    });
    let soon = Recovery::Retry(Duration::from_millis(1));
    // The answers to the first question about a record, and to each later one.
    for (first, then, dropped, dead) in [
        (Recovery::DeadLetter, None, 0, 4),
        (Recovery::Drop, None, 4, 0),
        (harmless.clone(), None, 0, 0),
        (soon.clone(), Some(Recovery::Drop), 4, 0),
        (soon, Some(harmless), 0, 0),
    ] {
        let scratch = Scratch::new();
        scratch.fill("t", 0..600);
        let mut sink = Scripted::new(11, 2);
        sink.poison = HashSet::from([0, 200, 201, 599]);
        let asked = Arc::new([const { AtomicU64::new(0) }; 600]);
        let mut options = options();
        let (counts, answers) = (Arc::clone(&asked), (first.clone(), then.clone()));
        options.retry.on_exhausted = OnExhausted::Callback(Arc::new(move |failed| {
            let before = counts[failed.seq.get() as usize].fetch_add(1, Ordering::Relaxed);
            assert_eq!(u64::from(failed.attempts), before + 1);
            assert_eq!(failed.failure.code, 87);
            assert_eq!(failed.failure.class, ErrorClass::Poison);
            let later = answers.1.as_ref().filter(|_| before > 0);
            later.unwrap_or(&answers.0).clone()
        }));
        let drained = drain(&scratch, &mut sink, &options);
        assert!(drained.is_empty, "{first:?}: {:?}", drained.held);
        let gone = dropped + dead > 0;
        let is_left = |n: &u64| !(gone && sink.poison.contains(n));
        check(&sink, (0..600).filter(is_left));
        // The headers, too, are what it was answered; the identity stays.
        let is_replaced = |record: &&Written| record.header("why").as_deref() == Some("repaired");
        let replaced = sink.written.values().flatten().filter(is_replaced);
        let is_in = |record: &Written| sink.poison.contains(&record.seq());
        let replaced: Vec<bool> = replaced.map(is_in).collect();
        assert_eq!(replaced, vec![true; if gone { 0 } else { 4 }], "{first:?}");
        assert_eq!(buried(&scratch).len() as u64, dead, "{first:?}");
        let totals = scratch.store.totals();
        assert_eq!((totals.dropped, totals.balances()), (dropped, true));
        let times = if then.is_some() { 2 } else { 1 };
        for (n, asked) in (0_u64..).zip(asked.iter()) {
            let times = if sink.poison.contains(&n) { times } else { 0 };
            assert_eq!(asked.load(Ordering::Relaxed), times, "{first:?}: {n}");
        }
    }
}

#[test]
fn while_nothing_of_a_partition_is_taken_no_attempt_is_counted() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..300);
    let mut sink = Scripted::new(10, 1);
    sink.flaky = (100..300).collect();
    let mut options = options();
    options.retry.max_attempts = 3;
    options.retry.initial_backoff = Duration::from_millis(1);
    options.retry.max_backoff = Duration::from_millis(2);
    options.timeout = Some(Duration::from_secs(2));
    let stop = AtomicBool::new(false);
    let ended = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
    assert!(matches!(ended, Err(ship::Error::Held { .. })), "{ended:?}");
    assert!(buried(&scratch).is_empty());
    assert_eq!(scratch.queued(), 200);
    sink.flaky.clear();
    assert!(drain(&scratch, &mut sink, &options).is_empty);
    check(&sink, 0..300);
}

/// A record that makes the cluster, or something on the way, drop the connection each time.
#[test]
fn a_record_that_breaks_the_connection_is_found_and_held_and_never_dies_of_it() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..600);
    let mut sink = Scripted::new(12, 2);
    sink.killers = HashSet::from([200]);
    let mut options = options();
    options.retry.initial_backoff = Duration::from_millis(1);
    let held = drain(&scratch, &mut sink, &options).held;
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].why.kind(), "suspect");
    assert!(buried(&scratch).is_empty());
    let stopped = i32::try_from(held[0].partition.unwrap()).unwrap();
    for (&partition, records) in &sink.written {
        let last = records.last().unwrap().seq();
        if partition == stopped {
            assert!(last < 200, "{last} overtook it");
        } else {
            assert!(last > 550, "another partition was stopped, too");
        }
    }
    sink.killers.clear();
    sink.forget();
    assert!(drain(&scratch, &mut sink, &options).is_empty);
    check(&sink, 0..600);
}

#[test]
fn what_has_no_leader_is_parked_with_one_new_producer_and_comes_in_order_once_it_has_one() {
    for park_after in [0, 1] {
        let scratch = Scratch::new();
        scratch.fill("t", 0..3000);
        let mut sink = Scripted::new(3 + park_after, 3);
        let is_gone = Arc::new(AtomicBool::new(true));
        sink.leaderless = Some((1, Arc::clone(&is_gone)));
        let mut options = options();
        options.park_after = Duration::from_secs(park_after);
        let stop = AtomicBool::new(false);
        // Its broker returns when all of it is parked.
        let mut progress = |progress: &ship::Progress| {
            if progress.counters.parked > 0 && scratch.queued() == 0 {
                is_gone.store(false, Ordering::Relaxed);
            }
        };
        let drained =
            ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut progress).unwrap();
        assert!(drained.is_empty);
        assert!(drained.counters.parked > 0);
        assert_eq!(drained.rebuilds, 1);
        check(&sink, 0..3000);
    }
}

/// The quota bounds what waits, not what ever did.
#[test]
fn what_was_shipped_from_a_parking_log_leaves_its_room_to_others() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..3000);
    let mut sink = Scripted::new(7, 3);
    let is_gone = Arc::new(AtomicBool::new(true));
    sink.leaderless = Some((1, Arc::clone(&is_gone)));
    let mut options = options();
    options.park_after = Duration::ZERO;
    // A third of the records, of some 30 bytes, once and a half.
    options.parked_quota = 1500 * 30;
    options.until = ship::Until::Stopped;
    let stop = AtomicBool::new(false);
    let mut rounds = 0;
    let mut progress = |_: &ship::Progress| {
        let (lane, all) = (scratch.queued(), scratch.store.totals().queued);
        if all == 0 && rounds < 2 {
            rounds += 1;
            scratch.fill("t", 3000 * rounds..3000 * (rounds + 1));
            is_gone.store(true, Ordering::Relaxed);
        } else if all == 0 {
            stop.store(true, Ordering::Relaxed);
        } else if lane == 0 {
            is_gone.store(false, Ordering::Relaxed);
        }
    };
    let drained =
        ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut progress).unwrap();
    assert!(
        drained.counters.parked > 2 * 1500,
        "{}",
        drained.counters.parked
    );
    check(&sink, 0..9000);
}
