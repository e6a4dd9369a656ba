//! Dead letters that are sent again, and copies of them, against a cluster by script.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ferrylog::ship::dead_letter::{DeadLetterStyle, DeadLetterTopic};
use ferrylog::ship::{self, DeadLetterShipping, Drained, Progress, RetryOverride, ShipOptions};
use ferrylog::store::{Copied, DeadLetters, State};
use ferrylog::wal::SeqNo;

use crate::sink::{Fault, Passing, Scripted, Written};
use crate::support::{Scratch, options};

fn copying() -> ShipOptions {
    let mut options = options();
    options.dead_letters.topic = Some(DeadLetterTopic::new("{topic}.dlq").unwrap());
    options
}

fn drain(scratch: &Scratch, sink: &mut Scripted, options: &ShipOptions) -> Drained {
    let stop = AtomicBool::new(false);
    ship::drain_into(&scratch.store, sink, options, &stop, &mut |_| {}).unwrap()
}

fn letters(scratch: &Scratch) -> &DeadLetters {
    scratch.store.dead_letters().unwrap()
}

/// Buries `poison` of `count` records.
fn with_letters(seed: u64, count: u64, poison: &[u64]) -> (Scratch, Scripted) {
    let scratch = Scratch::new();
    scratch.fill("t", 0..count);
    let mut sink = Scripted::new(seed, 3);
    sink.poison = poison.iter().copied().collect();
    let drained = scratch.drain(&mut sink).unwrap();
    assert_eq!(drained.counters.dead_lettered, poison.len() as u64);
    (scratch, sink)
}

fn replay_all(scratch: &Scratch) -> Vec<SeqNo> {
    let all = letters(scratch).open_letters(|_, _, _| true);
    letters(scratch).mark_pending(&all).unwrap();
    all
}

fn records(sink: &Scripted) -> Vec<&Written> {
    let all = sink.written.values().flatten();
    all.filter(|record| !record.is_copy()).collect()
}

fn copies(sink: &Scripted) -> Vec<&Written> {
    let all = sink.written.values().flatten();
    all.filter(|record| record.is_copy()).collect()
}

#[test]
fn once_the_cause_is_gone_a_replay_delivers_each_letter_once_under_its_old_identity() {
    for seed in 0..8 {
        let poison: Vec<u64> = (0..2000).step_by(97).collect();
        let (scratch, mut sink) = with_letters(seed, 2000, &poison);
        sink.poison.clear();
        sink.reports_twice = seed % 2 == 0;
        replay_all(&scratch);
        // Beside new records, over a link that is lost, and with a producer that is spent.
        scratch.fill("t", 2000..3000);
        let at = sink.written_count;
        sink.faults.push_back((at + 20, Fault::Link { polls: 30 }));
        sink.faults.push_back((at + 100, Fault::Spent));
        let drained = scratch.drain(&mut sink).unwrap();
        assert!(drained.is_empty, "{:?}", drained.held);
        assert_eq!(drained.counters.replayed, poison.len() as u64);
        let count = |n: u64| records(&sink).iter().filter(|r| r.seq() == n).count();
        for n in &poison {
            assert_eq!(count(*n), 1, "{n}");
        }
        let found: HashSet<u64> = records(&sink).iter().map(|r| r.seq()).collect();
        assert_eq!(found.len(), 3000);
        for record in records(&sink) {
            let n = record.seq();
            assert_eq!(record.value, Some(n.to_string().into_bytes()));
        }
        let counts = letters(&scratch).counts();
        assert_eq!((counts.kept, counts.pending), (0, 0));
        assert_eq!(counts.replayed, poison.len() as u64);
        assert!(letters(&scratch).totals().balances());
    }
}

#[test]
fn a_letter_that_is_refused_once_more_is_kept_and_makes_no_other() {
    let (scratch, mut sink) = with_letters(21, 300, &[10, 20, 30]);
    sink.poison = HashSet::from([20]);
    let all = replay_all(&scratch);
    let mut told = None;
    let stop = AtomicBool::new(false);
    let drained = ship::drain_into(
        &scratch.store,
        &mut sink,
        &options(),
        &stop,
        &mut |now: &Progress| told.clone_from(&now.letter_refused),
    );
    let drained = drained.unwrap();
    assert!(drained.is_empty);
    let counters = &drained.counters;
    assert_eq!((counters.replayed, counters.replays_refused), (2, 1));
    assert_eq!(counters.dead_lettered, 0);
    let told = told.unwrap();
    assert!(
        told.contains("refused once more") && told.contains("87"),
        "{told}"
    );
    let states = all
        .iter()
        .map(|&seq| letters(&scratch).get(seq).unwrap().unwrap().state);
    let kept: Vec<State> = states.collect();
    assert_eq!(kept.iter().filter(|s| **s == State::Kept).count(), 1);
    assert_eq!(letters(&scratch).open_letters(|_, _, _| true).len(), 1);
}

#[test]
fn each_letter_is_copied_once_and_stays_here() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..1000);
    let mut sink = Scripted::new(22, 3);
    sink.poison = (0..1000).step_by(50).collect();
    sink.reports_twice = true;
    let drained = drain(&scratch, &mut sink, &copying());
    assert!(drained.is_empty);
    let counters = &drained.counters;
    assert_eq!((counters.dead_lettered, counters.copied), (20, 20));
    // A second run has nothing to copy.
    assert_eq!(drain(&scratch, &mut sink, &copying()).counters.copied, 0);
    let copies = copies(&sink);
    let origins: HashSet<u64> = copies.iter().map(|copy| copy.seq()).collect();
    assert_eq!((copies.len(), &origins), (20, &sink.poison));
    for copy in copies {
        assert_eq!(copy.topic, "t.dlq");
        assert_eq!(copy.header("dlq.code").unwrap(), "87");
        assert_eq!(copy.header("dlq.topic").unwrap(), "t");
        let seq = copy.seq().to_string();
        assert_eq!(copy.value.as_deref(), Some(seq.as_bytes()));
    }
    let counts = letters(&scratch).counts();
    assert_eq!((counts.kept, counts.copied), (20, 20));
}

#[test]
fn a_copy_that_is_too_large_becomes_a_pointer_and_one_that_is_refused_again_is_marked_so() {
    let (scratch, mut sink) = with_letters(23, 300, &[5, 250]);
    // A value of one byte passes, one of three does not, and a pointer has none.
    sink.copy_len_max = 1;
    let drained = drain(&scratch, &mut sink, &copying());
    assert_eq!(drained.counters.copied, 2);
    let found = copies(&sink);
    let by = |n: u64| found.iter().find(|copy| copy.seq() == n).unwrap();
    assert_eq!(by(5).value.as_deref(), Some(&b"5"[..]));
    assert_eq!(by(250).value, None);
    assert_eq!(by(250).header("dlq.kept-seq").unwrap(), "1");
    assert!(by(250).header("dlq.kept-bytes").is_some());

    let (scratch, mut sink) = with_letters(24, 300, &[5]);
    let mut options = copying();
    let name = "n".repeat(244);
    options.dead_letters.topic =
        Some(DeadLetterTopic::new(&format!("{name}{{topic}}.dlq")).unwrap());
    options.dead_letters.style = DeadLetterStyle::Envelope;
    let drained = drain(&scratch, &mut sink, &options);
    assert!(drained.is_empty);
    assert_eq!(drained.counters.copied, 1, "249 bytes are allowed");
    let (scratch, mut sink) = with_letters(25, 300, &[5]);
    scratch.fill("tt", 300..301);
    sink.poison.insert(300);
    let drained = drain(&scratch, &mut sink, &options);
    assert!(drained.is_empty);
    let counters = &drained.counters;
    assert_eq!((counters.copied, counters.copies_refused), (1, 1));
    let newest = letters(&scratch)
        .open_letters(|_, _, _| true)
        .pop()
        .unwrap();
    let letter = letters(&scratch).get(newest).unwrap().unwrap();
    assert_eq!(
        (letter.state, letter.copied),
        (State::Kept, Copied::Refused(17))
    );
}

#[test]
fn a_missing_dead_letter_topic_holds_the_copying_and_nothing_else() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..1000);
    let mut sink = Scripted::new(26, 3);
    sink.poison = HashSet::from([7, 500]);
    sink.missing.insert("t.dlq".to_owned());
    let drained = drain(&scratch, &mut sink, &copying());
    assert_eq!(drained.shipped, 998);
    assert!(!drained.is_empty);
    let held: Vec<_> = drained
        .held
        .iter()
        .map(|h| (&*h.topic, h.why.kind()))
        .collect();
    assert_eq!(held, [("t.dlq", "unknown_topic")]);
    sink.missing.clear();
    let drained = drain(&scratch, &mut sink, &copying());
    assert!(drained.is_empty && drained.held.is_empty(), "{drained:?}");
    assert_eq!((drained.counters.copied, copies(&sink).len()), (2, 2));
}

#[test]
fn a_topic_that_comes_while_its_letters_wait_gets_them() {
    let (scratch, mut sink) = with_letters(27, 300, &[7, 200]);
    replay_all(&scratch);
    sink.missing.insert("t".to_owned());
    let drained = drain(&scratch, &mut sink, &options());
    assert_eq!((drained.is_empty, drained.counters.replayed), (false, 0));
    assert_eq!(drained.held[0].why.kind(), "unknown_topic");
    assert_eq!(letters(&scratch).counts().pending, 2);
    sink.missing.clear();
    sink.poison.clear();
    assert_eq!(drain(&scratch, &mut sink, &options()).counters.replayed, 2);
}

#[test]
fn a_letter_that_is_not_taken_now_waits_and_loses_nothing() {
    let (scratch, mut sink) = with_letters(28, 300, &[7, 200]);
    replay_all(&scratch);
    sink.poison.clear();
    sink.flaky = HashSet::from([7]);
    let mut options = options();
    options.retry.initial_backoff = Duration::from_millis(1);
    options.retry.max_backoff = Duration::from_millis(2);
    options.timeout = Some(Duration::from_secs(2));
    let stop = AtomicBool::new(false);
    let ended = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
    let Err(ship::Error::Held { held }) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!((&*held[0].topic, held[0].why.kind()), ("t", "not_now"));
    let counts = letters(&scratch).counts();
    assert_eq!((counts.kept, counts.pending), (0, counts.pending));
    assert!(counts.pending >= 1);
    sink.flaky.clear();
    options.timeout = Some(Duration::from_secs(60));
    assert!(drain(&scratch, &mut sink, &options).is_empty);
    assert_eq!(letters(&scratch).counts().replayed, 2);
}

#[test]
fn a_refused_letter_never_judges_records_of_a_lane_that_are_searched_beside_it() {
    for seed in 30..42 {
        let old: Vec<u64> = (0..600).step_by(60).collect();
        let (scratch, mut sink) = with_letters(seed, 600, &old);
        replay_all(&scratch);
        scratch.fill("t", 600..2000);
        let new: HashSet<u64> = (600..2000).step_by(70).collect();
        sink.poison.extend(&new);
        let drained = drain(&scratch, &mut sink, &copying());
        assert!(drained.is_empty);
        assert_eq!(drained.counters.replays_refused, old.len() as u64);
        let all = letters(&scratch).open_letters(|_, _, _| true);
        let origin = |&seq| {
            letters(&scratch)
                .get(seq)
                .unwrap()
                .unwrap()
                .body
                .origin
                .seq
                .get()
        };
        let dead: HashSet<u64> = all.iter().map(origin).collect();
        assert_eq!(
            dead, sink.poison,
            "each, no sibling with it, and none twice"
        );
        assert_eq!(all.len(), sink.poison.len());
        assert_eq!(copies(&sink).len(), all.len());
    }
}

#[test]
fn what_is_shipped_of_the_dead_letters_is_nothing_by_default() {
    let shipping = DeadLetterShipping::default();
    assert_eq!(shipping.topic, None);
    let (scratch, mut sink) = with_letters(43, 100, &[50]);
    let drained = drain(&scratch, &mut sink, &options());
    assert!(drained.is_empty, "a letter that is kept is nobody's turn");
    assert_eq!(sink.written_count, 99);
}

/// More than go at a time, so that the first ones are over before the last ones are copied.
#[test]
fn letters_that_are_to_be_sent_again_are_copied_first() {
    let poison: Vec<u64> = (0..2000).step_by(10).collect();
    let (scratch, mut sink) = with_letters(44, 2000, &poison);
    sink.poison.clear();
    replay_all(&scratch);
    let drained = drain(&scratch, &mut sink, &copying());
    assert!(drained.is_empty);
    let counters = &drained.counters;
    let count = poison.len() as u64;
    assert_eq!((counters.replayed, counters.copied), (count, count));
    let copied: HashSet<u64> = copies(&sink).iter().map(|copy| copy.seq()).collect();
    assert_eq!(copied, poison.into_iter().collect());
}

#[test]
fn a_letter_that_is_not_taken_is_tried_again_by_the_policy_of_its_topic() {
    let (scratch, mut sink) = with_letters(45, 20, &[7]);
    sink.poison.clear();
    sink.flaky = HashSet::from([7]);
    replay_all(&scratch);
    let mut sink = Passing::new(sink, |cluster: &mut Scripted, since| {
        if cluster.refusals > 3 || since > Duration::from_secs(20) {
            cluster.flaky.clear();
        }
    });
    let mut options = options();
    options.retry.initial_backoff = Duration::from_secs(600);
    options.retry.max_backoff = Duration::from_secs(600);
    let mut of_topic = RetryOverride::default();
    of_topic.initial_backoff = Some(Duration::from_millis(1));
    of_topic.max_backoff = Some(Duration::from_millis(2));
    options
        .retry_overrides
        .topics
        .insert("t".to_owned(), of_topic);
    let stop = AtomicBool::new(false);
    let drained = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
    assert_eq!(drained.unwrap().counters.replayed, 1);
}

/// The careful producer has one connection to each broker, for trials and searches as well.
#[test]
fn a_letter_that_breaks_the_connection_is_kept_with_the_reason_and_holds_up_nothing() {
    for seed in 50..56 {
        let old: Vec<u64> = (0..600).step_by(20).collect();
        let (scratch, mut sink) = with_letters(seed, 600, &old);
        replay_all(&scratch);
        scratch.fill("t", 600..2000);
        sink.poison = (600..2000).step_by(70).collect();
        sink.killers = HashSet::from([300]);
        let mut options = options();
        options.retry.initial_backoff = Duration::from_millis(1);
        options.retry.max_backoff = Duration::from_millis(20);
        let (mut told, stop) = (None, AtomicBool::new(false));
        let ended = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |now| {
            told = now.letter_refused.clone().or(told.take());
        });
        let drained = ended.unwrap();
        assert!(drained.is_empty, "{:?}", drained.held);
        let counters = &drained.counters;
        let again = old.len() as u64 - 1;
        assert_eq!((counters.replayed, counters.replays_refused), (again, 1));
        let told = told.unwrap();
        assert!(told.contains("the connection is lost"), "{told}");
        let kept = letters(&scratch).open_letters(|_, _, _| true);
        let origin = |seq: &SeqNo| letters(&scratch).get(*seq).unwrap().unwrap().body.origin;
        let kept: HashSet<u64> = kept.iter().map(|seq| origin(seq).seq.get()).collect();
        let mut expected = sink.poison.clone();
        expected.insert(300);
        assert_eq!(kept, expected, "no record is blamed for it");
        // The reason may be gone some day.
        sink.killers.clear();
        sink.poison.clear();
        replay_all(&scratch);
        assert!(drain(&scratch, &mut sink, &options).is_empty);
        let found: HashSet<u64> = records(&sink).iter().map(|r| r.seq()).collect();
        assert_eq!(found.len(), 2000);
    }
}

#[test]
fn a_line_that_only_breaks_keeps_no_letter_from_its_place() {
    let old: Vec<u64> = (0..600).step_by(20).collect();
    let (scratch, mut sink) = with_letters(60, 600, &old);
    sink.poison.clear();
    replay_all(&scratch);
    // Enough to suspect them, and then one too few to blame the first one that goes alone.
    sink.careful_breaks = 20 + 4;
    // One loss in a poll.
    sink.steps_max = 2;
    let mut options = options();
    options.retry.initial_backoff = Duration::from_millis(1);
    options.retry.max_backoff = Duration::from_millis(2);
    let drained = drain(&scratch, &mut sink, &options);
    assert!(drained.is_empty);
    assert_eq!(sink.careful_breaks, 0);
    assert_eq!(drained.counters.replayed, old.len() as u64);
}

/// One that does not cross the line in the longest time there is, beside others.
#[test]
fn a_letter_that_is_too_large_for_the_link_is_kept_and_holds_up_nothing() {
    let scratch = Scratch::new();
    for n in 0..100_u64 {
        let value = vec![b'v'; if n == 50 { 60_000 } else { 10 }];
        scratch.fill_with("t", 1, &value);
    }
    let mut sink = Scripted::new(61, 3);
    sink.poison = HashSet::from([20, 50, 80]);
    assert_eq!(scratch.drain(&mut sink).unwrap().counters.dead_lettered, 3);
    sink.poison.clear();
    sink.too_slow = HashSet::from([50]);
    replay_all(&scratch);
    scratch.fill("t", 100..200);
    let mut options = options();
    options.max_in_flight_bytes = 32 * 1024;
    options.too_slow_after = Duration::from_millis(50);
    let drained = drain(&scratch, &mut sink, &options);
    assert!(drained.is_empty, "{:?}", drained.held);
    let counters = &drained.counters;
    assert_eq!((counters.replayed, counters.replays_refused), (2, 1));
    assert_eq!(letters(&scratch).counts().kept, 1);
    // On a better link, with all the time that there is.
    sink.too_slow.clear();
    sink.slow = HashSet::from([50]);
    replay_all(&scratch);
    assert_eq!(drain(&scratch, &mut sink, &options).counters.replayed, 1);
}
