//! What becomes of a record that is refused for now although its partition takes others, under
//! `exactly_once`. The mock cluster proves nothing about transactions; what the policy is asked is seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ferrylog::kafka::{MockKafka, Settings};
use ferrylog::ship::exactly_once::{self, Committed, ExactlyOnceOptions, ProgressIn};
use ferrylog::ship::{Error, OnExhausted, Recovery, Replacement};

use crate::support::Scratch;

const ATTEMPTS: u32 = 3;

/// Kafka's code for an error that it has no name for.
const UNKNOWN: i32 = -1;

/// Kafka's code for a record that is refused for what it is.
const INVALID_RECORD: i32 = 87;

/// Kafka's code for a request that it carried out.
const TAKEN: i32 = 0;

/// Two records, and what the requests that carry them are answered with; later ones are taken.
fn ship(codes: &[i32], on_exhausted: OnExhausted) -> (Scratch, Committed) {
    let (scratch, ended) = ship_for(Duration::from_secs(60), codes, on_exhausted);
    (scratch, ended.unwrap())
}

fn ship_for(
    timeout: Duration,
    codes: &[i32],
    on_exhausted: OnExhausted,
) -> (Scratch, Result<Committed, Error>) {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 1).unwrap();
    mock.create_topic("ferrylog-progress", 1).unwrap();
    let scratch = Scratch::new();
    scratch.fill("t", 0..2);
    mock.refuse_produce(codes).unwrap();
    let mut options = ExactlyOnceOptions::default();
    // Else the record of the progress would be refused.
    options.progress = ProgressIn::Offsets;
    options.ship.timeout = Some(timeout);
    options.ship.retry.initial_backoff = Duration::from_millis(10);
    options.ship.retry.max_attempts = ATTEMPTS;
    options.ship.retry.on_exhausted = on_exhausted;
    let settings = Settings::new(mock.bootstrap_servers());
    let stop = AtomicBool::new(false);
    let ended = exactly_once::drain(&scratch.store, &settings, &options, &stop, &mut |_| {});
    (scratch, ended)
}

/// Together, alone in the lane, and then from the parking log, but for the last time.
const UNTIL_PROOF: usize = 2 + ATTEMPTS as usize - 1;

/// The mock cluster refuses the first request behind refused ones by itself: it misses their numbers.
const PROOF: [i32; 2] = [TAKEN; 2];

/// All refusals of the first record: the one behind it is taken before the last one.
fn until_exhausted() -> Vec<i32> {
    [&[UNKNOWN; UNTIL_PROOF][..], &PROOF, &[UNKNOWN]].concat()
}

#[test]
fn an_exhausted_record_is_a_dead_letter_with_its_attempts_and_the_one_behind_it_goes() {
    let (scratch, committed) = ship(&until_exhausted(), OnExhausted::DeadLetter);
    println!("{committed:?}");
    let counters = &committed.drained.counters;
    assert_eq!((counters.shipped, counters.dead_lettered), (1, 1));
    let letters = scratch.store.dead_letters().unwrap();
    let open = letters.open_letters(|_, _, _| true);
    let letter = letters.get(open[0]).unwrap().unwrap();
    assert_eq!(
        (letter.body.attempts, letter.body.code),
        (ATTEMPTS, UNKNOWN)
    );
    assert_eq!(letter.body.origin.seq.get(), 0);
}

#[test]
fn a_record_is_not_exhausted_while_the_one_behind_it_is_refused_too() {
    // The proof fails once; then it takes as many again.
    let again = [&[UNKNOWN; ATTEMPTS as usize - 1][..], &PROOF].concat();
    let codes = [&[UNKNOWN; UNTIL_PROOF][..], &[UNKNOWN], &again].concat();
    let (_, committed) = ship(&codes, OnExhausted::Drop);
    println!("{committed:?}");
    let counters = &committed.drained.counters;
    assert_eq!((counters.shipped, counters.dropped), (2, 0));
    let (_, committed) = ship(&[&codes[..], &[UNKNOWN]].concat(), OnExhausted::Drop);
    let counters = &committed.drained.counters;
    assert_eq!((counters.shipped, counters.dropped), (1, 1));
}

#[test]
fn a_drain_in_which_all_that_is_left_is_held_ends_with_its_timeout() {
    let timeout = Duration::from_secs(5);
    let (scratch, ended) = ship_for(timeout, &[UNKNOWN; 10_000], OnExhausted::DeadLetter);
    let Err(Error::Held { held }) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!((held.len(), held[0].why.kind()), (1, "not_now"));
    assert_eq!(scratch.store.totals().queued, 2);
}

/// Whenever it ends.
#[test]
fn a_refusal_of_all_records_kills_none_when_it_ends() {
    for times in 1..3 * UNTIL_PROOF {
        let (_, committed) = ship(&vec![UNKNOWN; times], OnExhausted::Drop);
        let counters = &committed.drained.counters;
        assert_eq!((counters.shipped, counters.dropped), (2, 0), "{times}");
    }
}

#[test]
fn the_recovery_callback_is_asked_and_its_answers_are_carried_out() {
    carries_out(ATTEMPTS, &until_exhausted());
    // Once is enough: together, alone in the lane, and alone in the parking log.
    carries_out(1, &[INVALID_RECORD; 3]);
}

/// The callback is asked once, after so many attempts.
fn carries_out(attempts: u32, codes: &[i32]) {
    let code = codes[0];
    for (answer, shipped, dropped) in [
        (Recovery::DeadLetter, 1, 0),
        (Recovery::Drop, 1, 1),
        (Recovery::Retry(Duration::from_millis(10)), 2, 0),
        (
            Recovery::Replace(Replacement {
                key: None,
                value: Some(b"instead".to_vec()),
                headers: None,
            }),
            2,
            0,
        ),
    ] {
        let asked = Arc::new(AtomicU32::new(0));
        let calls = Arc::clone(&asked);
        let given = answer.clone();
        let callback = OnExhausted::Callback(Arc::new(move |failed| {
            calls.fetch_add(1, Ordering::Relaxed);
            // In its parking log it is the first one as well.
            assert_eq!((failed.seq.get(), failed.attempts), (0, attempts));
            assert_eq!(failed.failure.code, code);
            given.clone()
        }));
        let (_, committed) = ship(codes, callback);
        let counters = &committed.drained.counters;
        assert_eq!(
            (counters.shipped, counters.dropped, counters.dead_lettered),
            (shipped, dropped, 2 - shipped - dropped),
            "{code}: {answer:?}"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 1, "{code}: {answer:?}");
        // The key and the number of the second; `instead` or nothing in the place of the first.
        let first = match answer {
            Recovery::Replace(_) => "instead".len(),
            Recovery::Retry(_) => "0".len(),
            _ => 0,
        };
        let bytes = (first + "key-11".len()) as u64;
        assert_eq!(counters.shipped_bytes, bytes, "{code}: {answer:?}");
    }
}
