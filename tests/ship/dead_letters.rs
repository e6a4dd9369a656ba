//! The dead-letter log on a disk: what it keeps, what a crash leaves of it, and what it gives up.

use std::{os::unix::fs::FileExt, path::Path, sync::Arc};

use ferrylog::{
    message::{Header, MessageRef},
    store::{
        Cause, Content, Copied, DeadLetterOptions, DeadLetters, Error, LETTERS_MAX, Letter,
        MAIN_CLUSTER, OnLettersFull, Origin, REASON_LEN_MAX, Stage, State, Store, StoreView,
        StoredLetter,
    },
    wal::{self, LogId, Options, SeqNo, fs::Fs, fs::RealFs},
};

use crate::faulty::{Faulty, Survivors};
use crate::random::Random;

const LANE: LogId = LogId::new([7; 16]);
/// The smallest: segments of 1 MiB, and room for seven of them.
const SMALL: u64 = 8 << 20;

fn origin(n: u64) -> Origin {
    Origin {
        log_id: LANE,
        seq: SeqNo::new(n),
    }
}

fn letter(n: u64, content: Content<'_>) -> Letter<'_> {
    Letter {
        origin: origin(n),
        lane: "default",
        cause: Cause {
            class: "poison",
            code: 10,
            stage: Stage::Produce,
            reason: "message too large",
            attempts: 1,
            first_attempt_millis: 1_000,
            last_attempt_millis: 2_000,
        },
        content,
    }
}

fn of_value(value: &[u8]) -> Content<'_> {
    Content::Message(MessageRef {
        partition: Some(1),
        key: Some(b"k"),
        timestamp_millis: Some(5),
        value: Some(value),
        ..MessageRef::to("t")
    })
}

fn options(on_full: OnLettersFull) -> DeadLetterOptions {
    let mut options = DeadLetterOptions::default();
    options.quota_bytes = SMALL;
    options.on_full = on_full;
    options
}

fn open<F: Fs>(fs: Arc<F>, dir: &Path, options: DeadLetterOptions) -> DeadLetters<F> {
    DeadLetters::open_on(fs, dir, options, &Options::default()).unwrap()
}

/// On a simulated disk.
fn on(disk: &Arc<Faulty>) -> DeadLetters<Faulty> {
    open(
        disk.clone(),
        Path::new("dead-letters"),
        options(OnLettersFull::Hold),
    )
}

fn value_of(letter: &StoredLetter) -> &[u8] {
    letter
        .body
        .content
        .as_ref()
        .unwrap()
        .value
        .as_deref()
        .unwrap()
}

/// Every letter that lies open, by origin: its number, state, copy and value.
fn lying<F: Fs>(letters: &DeadLetters<F>) -> Vec<(u64, u64, State, Copied, Vec<u8>)> {
    letters
        .open_letters(|_, _, _| true)
        .into_iter()
        .map(|seq| {
            let letter = letters.get(seq).unwrap().unwrap();
            let origin = letter.body.origin.seq.get();
            let value = value_of(&letter).to_vec();
            (origin, seq.get(), letter.state, letter.copied, value)
        })
        .collect()
}

fn assert_balances<F: Fs>(letters: &DeadLetters<F>) {
    let (totals, counts) = (letters.totals(), letters.counts());
    assert!(totals.balances(), "{totals:?}");
    let open = counts.kept + counts.pending + counts.unreadable;
    assert_eq!(totals.queued, open, "{totals:?} {counts:?}");
}

#[test]
fn a_dead_letter_comes_back_byte_for_byte_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let all_bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let headers = [
        Header {
            name: "",
            value: None,
        },
        Header {
            name: "dlq.x",
            value: Some(&all_bytes[..300]),
        },
        Header {
            name: "dlq.x",
            value: Some(b""),
        },
    ];
    let full = MessageRef {
        partition: Some(i32::MAX),
        key: Some(&all_bytes[..1000]),
        headers: &headers,
        timestamp_millis: Some(i64::MAX),
        value: Some(&all_bytes),
        ..MessageRef::to("temps.raw")
    };
    let tombstone = MessageRef {
        timestamp_millis: Some(0),
        ..MessageRef::to("t")
    };
    let contents = [
        Content::Message(full),
        Content::Message(tombstone),
        Content::Raw(&all_bytes),
    ];
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert!(store.dead_letters_if_any().unwrap().is_none());
    assert!(!dir.path().join("dead-letters").exists());
    for (n, content) in (0..).zip(contents) {
        store
            .dead_letters()
            .unwrap()
            .add(&letter(n, content))
            .unwrap();
    }
    store.close().unwrap();

    let store = Store::open(dir.path(), Options::default()).unwrap();
    let letters = store.dead_letters_if_any().unwrap().unwrap();
    let seqs = letters.open_letters(|_, _, _| true);
    assert_eq!(seqs.len(), contents.len());
    for ((n, content), seq) in (0..).zip(contents).zip(seqs) {
        let read = letters.get(seq).unwrap().unwrap();
        assert_eq!(read.body.origin, origin(n));
        assert_eq!(read.body.cause(), letter(n, content).cause);
        assert_eq!(read.body.lane, "default");
        match (&read.body.content, content) {
            (Err(raw), Content::Raw(kept)) => assert_eq!(raw, kept),
            (Ok(message), Content::Message(kept)) => {
                assert_eq!(&*message.topic, kept.topic);
                assert_eq!(message.partition, kept.partition);
                assert_eq!(message.key.as_deref(), kept.key);
                assert_eq!(message.headers().collect::<Vec<_>>(), kept.headers);
                assert_eq!(Some(message.timestamp_millis), kept.timestamp_millis);
                assert_eq!(message.value.as_deref(), kept.value);
            }
            other => panic!("another kind: {other:?}"),
        }
        assert!(letters.holds(LANE, SeqNo::new(n)));
    }
    assert!(!letters.holds(LANE, SeqNo::new(3)));
    assert!(!letters.holds(LogId::new([8; 16]), SeqNo::ZERO));
    assert_balances(letters);
}

#[test]
fn what_was_added_or_decided_is_there_after_a_power_loss_at_any_moment() {
    for seed in 0..40 {
        let disk = Arc::new(Faulty::new(seed));
        let mut random = Random(seed);
        let letters = on(&disk);
        // What each call said when it returned.
        let mut said: Vec<(State, Copied)> = Vec::new();
        let mut seqs: Vec<SeqNo> = Vec::new();
        for n in 0..random.below(30) {
            seqs.push(letters.add(&letter(n, of_value(&n.to_le_bytes()))).unwrap());
            said.push((State::Kept, Copied::No));
            let at = random.below(seqs.len() as u64) as usize;
            let seq = [seqs[at]];
            let (state, copied) = &mut said[at];
            let is_open = state.is_open();
            match random.below(6) {
                0 if letters.mark_pending(&seq).unwrap() == 1 => *state = State::Pending,
                1 if letters.mark_kept(&seq).unwrap() == 1 => *state = State::Kept,
                2 if letters.mark_replayed(&seq).unwrap() == 1 => *state = State::Replayed,
                3 if letters.drop_letters(&seq).unwrap() == 1 => *state = State::Dropped,
                4 if letters.mark_copied(&seq).unwrap() == 1 => *copied = Copied::Yes,
                5 if letters.mark_copy_refused(seq[0], 3).unwrap() => *copied = Copied::Refused(3),
                _ => {}
            }
            assert!(
                is_open || !said[at].0.is_open(),
                "seed {seed}: an end was left"
            );
        }
        assert_balances(&letters);
        let survivor = Arc::new(disk.power_cut(Survivors::Some));
        let letters_after = on(&survivor);
        for (n, (seq, (state, copied))) in (0_u64..).zip(seqs.iter().zip(&said)) {
            let read = letters_after.get(*seq).unwrap().unwrap();
            assert_eq!(
                (read.state, read.copied),
                (*state, *copied),
                "seed {seed}, letter {n}"
            );
            assert_eq!(value_of(&read), n.to_le_bytes(), "seed {seed}");
            assert!(letters_after.holds(LANE, SeqNo::new(n)), "seed {seed}");
            // The cut came before the lane knew: it adds them again, and nothing is kept twice.
            let again = letters_after.add(&letter(n, of_value(b"again"))).unwrap();
            assert_eq!(again, *seq, "seed {seed}");
        }
        assert_balances(&letters_after);
        drop(letters);
    }
}

/// Cuts the power after each operation that an edit makes, one after the other.
#[test]
fn an_edit_is_there_whole_or_not_at_all_wherever_the_power_fails() {
    let (mut edited, mut untouched) = (0, 0);
    for operations in 0.. {
        let disk = Arc::new(Faulty::new(operations as u64));
        let letters = on(&disk);
        let old = letters.add(&letter(1, of_value(b"old"))).unwrap();
        disk.die_in(operations);
        let Content::Message(new) = of_value(b"new") else {
            unreachable!()
        };
        let told = letters.edit(old, &new);
        let survivor = Arc::new(disk.power_cut(Survivors::Some));
        drop(letters);

        let letters = on(&survivor);
        assert_balances(&letters);
        let lying = lying(&letters);
        let [(1, seq, State::Kept, Copied::No, value)] = lying.as_slice() else {
            panic!("{operations} operations: {lying:?}");
        };
        if *seq == old.get() {
            assert_eq!((value.as_slice(), told.is_err()), (&b"old"[..], true));
            untouched += 1;
        } else {
            assert_eq!(value, b"new");
            let letter = letters.get(SeqNo::new(*seq)).unwrap().unwrap();
            assert_eq!(letter.body.replaces, Some(old));
            assert_eq!(letters.get(old).unwrap().unwrap().state, State::Dropped);
            edited += 1;
        }
        assert!(letters.holds(LANE, SeqNo::new(1)));
        if told.is_ok() && !survivor.is_dead() && edited > 3 {
            break;
        }
    }
    assert!(edited > 0 && untouched > 0, "{edited} {untouched}");
}

#[test]
fn a_replay_is_a_change_of_state_that_outlives_a_reopen() {
    let disk = Arc::new(Faulty::new(1));
    let letters = on(&disk);
    let seqs = [0, 1, 2, 3].map(|n| letters.add(&letter(n, of_value(&[n as u8; 500]))).unwrap());
    assert_eq!(letters.next_pending(MAIN_CLUSTER, None).unwrap(), None);
    assert_eq!(
        letters.mark_pending(&[seqs[2], seqs[0], seqs[2]]).unwrap(),
        2
    );
    assert_eq!(letters.mark_pending(&seqs[..3]).unwrap(), 1);
    let bytes = letters.counts().bytes;

    let letters = reopened(letters, &disk);
    let mut after = None;
    for seq in &seqs[..3] {
        let next = letters.next_pending(MAIN_CLUSTER, after).unwrap().unwrap();
        assert_eq!((next.seq, next.state), (*seq, State::Pending));
        after = Some(next.seq);
    }
    assert_eq!(letters.next_pending(MAIN_CLUSTER, after).unwrap(), None);
    // Refused once more: it lies here as before, and makes no letter of its own.
    assert_eq!(letters.mark_kept(&seqs[1..2]).unwrap(), 1);
    assert_eq!(letters.mark_replayed(&[seqs[0], seqs[2]]).unwrap(), 2);
    assert_eq!(letters.mark_replayed(&seqs[..1]).unwrap(), 0, "once");
    assert_eq!(
        letters.drop_letters(&seqs[2..]).unwrap(),
        1,
        "a replayed one is not dropped"
    );

    let letters = reopened(letters, &disk);
    let counts = letters.counts();
    assert_eq!((counts.kept, counts.pending), (1, 0));
    assert_eq!((counts.replayed, counts.dropped), (2, 1));
    assert_eq!(counts.bytes, bytes, "no letter was appended twice");
    assert_eq!(
        lying(&letters),
        [(1, seqs[1].get(), State::Kept, Copied::No, vec![1; 500])]
    );
    // In the order of age: what is kept stands before nothing that was settled.
    assert_balances(&letters);
}

fn reopened(letters: DeadLetters<Faulty>, disk: &Arc<Faulty>) -> DeadLetters<Faulty> {
    letters.close().unwrap();
    on(disk)
}

#[test]
fn a_walk_over_uncopied_letters_meets_each_until_it_is_copied_or_refused() {
    let disk = Arc::new(Faulty::new(2));
    let letters = on(&disk);
    let contents: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; 3000]).collect();
    let all: Vec<Letter<'_>> = (0..)
        .zip(&contents)
        .map(|(n, v)| letter(n, of_value(v)))
        .collect();
    let seqs = letters.add_all(&all).unwrap();
    assert_eq!(
        letters.add_all(&all[10..20]).unwrap(),
        seqs[10..20],
        "the old numbers"
    );
    assert_eq!(letters.counts().kept, 100);
    let mut met = Vec::new();
    while let Some(next) = letters
        .next_uncopied(MAIN_CLUSTER, met.last().copied())
        .unwrap()
    {
        assert_eq!(value_of(&next), contents[met.len()]);
        met.push(next.seq);
    }
    assert_eq!(met, seqs);
    letters.mark_copied(&seqs[..99]).unwrap();
    assert!(letters.mark_copy_refused(seqs[99], 10).unwrap());
    assert!(
        !letters.mark_copy_refused(seqs[0], 10).unwrap(),
        "the topic has it"
    );
    let letters = reopened(letters, &disk);
    assert_eq!(letters.next_uncopied(MAIN_CLUSTER, None).unwrap(), None);
    let counts = letters.counts();
    assert_eq!(
        (counts.copied, counts.copy_refused, counts.kept),
        (99, 1, 100)
    );
}

/// Adds letters of 100 kB until one is refused, or a hundred; returns how many were taken.
fn fill<F: Fs>(letters: &DeadLetters<F>, from: u64) -> u64 {
    for n in from..from + 200 {
        match letters.add(&letter(n, of_value(&[n as u8; 100_000]))) {
            Ok(_) => {}
            Err(Error::DeadLettersFull { .. }) => return n - from,
            Err(error) => panic!("{error}"),
        }
    }
    200
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

#[test]
fn a_full_log_holds_and_changes_nothing_until_somebody_decides() {
    let dir = tempfile::tempdir().unwrap();
    let letters = open(Arc::new(RealFs), dir.path(), options(OnLettersFull::Hold));
    assert!(letters.fill_percent() < 20);
    let taken = fill(&letters, 0);
    assert!(
        (40..60).contains(&taken),
        "{taken} letters of 100 kB in 8 MiB"
    );
    assert_eq!(letters.fill_percent(), 100);
    assert!(bytes_in(dir.path()) <= SMALL);
    let before = (letters.counts(), letters.totals());
    assert_eq!(fill(&letters, taken), 0);
    assert_eq!(
        (letters.counts(), letters.totals()),
        before,
        "nothing changed"
    );
    assert!(!letters.holds(LANE, SeqNo::new(taken)));
    assert_eq!(lying(&letters).len() as u64, taken, "nothing was given up");

    // Decisions are taken also when it is full, and the oldest segment makes room.
    let oldest: Vec<SeqNo> = (0..20).map(SeqNo::new).collect();
    assert!(letters.drop_letters(&oldest).unwrap() > 10);
    assert!(fill(&letters, taken) >= 10);
    assert!(bytes_in(dir.path()) <= SMALL);
    assert_balances(&letters);
    letters.close().unwrap();
    let letters = open(Arc::new(RealFs), dir.path(), options(OnLettersFull::Hold));
    assert_eq!(fill(&letters, 1000), 0, "also after a reopen");
    assert_balances(&letters);
}

#[test]
fn what_the_topic_has_makes_room_before_anything_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let letters = open(Arc::new(RealFs), dir.path(), options(OnLettersFull::Hold));
    let taken = fill(&letters, 0);
    let copied = letters.open_letters(|seq, _, _| seq < SeqNo::new(taken / 2));
    letters.mark_copied(&copied).unwrap();
    assert!(fill(&letters, taken) >= taken / 4);
    let lying = lying(&letters);
    let only_here = lying
        .iter()
        .filter(|(n, ..)| (taken / 2 + 1..taken).contains(n))
        .count();
    assert_eq!(
        only_here as u64,
        taken - taken / 2 - 1,
        "what is nowhere else stays"
    );
    assert_balances(&letters);
}

#[test]
fn the_oldest_letters_are_given_up_where_the_policy_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let letters = open(
        Arc::new(RealFs),
        dir.path(),
        options(OnLettersFull::DropOldest),
    );
    assert_eq!(fill(&letters, 0), 200);
    assert!(bytes_in(dir.path()) <= SMALL);
    let lying = lying(&letters);
    let origins: Vec<u64> = lying.iter().map(|(n, ..)| *n).collect();
    let first = 200 - origins.len() as u64;
    assert!(first > 100 && origins.len() > 40, "{origins:?}");
    assert_eq!(
        origins,
        (first..200).collect::<Vec<_>>(),
        "the newest, without a hole"
    );
    let counts = letters.counts();
    assert_eq!((counts.kept, counts.dropped), (200 - first, first));
    assert!(!letters.holds(LANE, SeqNo::ZERO));
    assert_balances(&letters);
}

#[test]
fn a_letter_that_met_a_full_disk_is_kept_once() {
    let disk = Arc::new(Faulty::new(3));
    let letters = on(&disk);
    let taken = fill(&letters, 0).min(20);
    let disk = Arc::new(Faulty::new(4));
    let letters = {
        drop(letters);
        on(&disk)
    };
    for n in 0..taken {
        letters
            .add(&letter(n, of_value(&[n as u8; 100_000])))
            .unwrap();
    }
    disk.set_capacity(Some(disk.used()));
    let refused = fill(&letters, taken) + taken;
    assert!(refused < 200, "the disk was never full");
    let again = letters.add(&letter(refused, of_value(b"again")));
    assert!(
        matches!(again, Err(Error::DeadLettersFull { .. })),
        "{again:?}"
    );
    assert!(
        !letters.holds(LANE, SeqNo::new(refused)),
        "it is not durable"
    );
    disk.set_capacity(None);
    // Space comes back to the log in a round of its housekeeping.
    let seq = loop {
        match letters.add(&letter(refused, of_value(&[refused as u8; 100_000]))) {
            Ok(seq) => break seq,
            Err(Error::DeadLettersFull { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let lying = lying(&letters);
    let of_it: Vec<_> = lying.iter().filter(|(n, ..)| *n == refused).collect();
    assert_eq!((of_it.len(), of_it[0].1), (1, seq.get()));
    assert_eq!(
        of_it[0].4,
        vec![refused as u8; 100_000],
        "as it was given first"
    );
    assert_balances(&letters);
}

#[test]
fn only_what_was_kept_for_longer_than_the_retention_expires() {
    const DAY: i64 = 24 * 3_600_000;
    let start = 1_800_000_000_000;
    let disk = Arc::new(Faulty::new(5));
    // A clock that was never set, then 31 letters a day apart.
    disk.set_clock(1_000_000);
    let letters = on(&disk);
    letters.add(&letter(1000, of_value(b"1970"))).unwrap();
    for day in 0..31 {
        disk.set_clock((start + day * DAY) * 1000);
        letters.add(&letter(day as u64, of_value(b"v"))).unwrap();
    }
    assert_eq!(letters.expire(start + 30 * DAY).unwrap(), 0);
    assert_eq!(
        letters.expire(0).unwrap(),
        0,
        "a clock that steps back expires nothing"
    );
    assert_eq!(letters.expire(start + 32 * DAY).unwrap(), 2);
    assert_eq!(letters.expire(start + 32 * DAY).unwrap(), 0);
    let letters = reopened(letters, &disk);
    let counts = letters.counts();
    assert_eq!((counts.kept, counts.expired), (30, 2));
    let lying = lying(&letters);
    assert_eq!(
        (lying[0].0, lying[1].0),
        (1000, 2),
        "an unknown age does not expire"
    );
    assert_eq!(
        letters.mark_pending(&[SeqNo::new(1)]).unwrap(),
        0,
        "it is gone"
    );
    assert_balances(&letters);
}

#[test]
fn a_look_at_a_store_that_is_open_sees_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let look = || StoreView::open(dir.path()).unwrap().dead_letters().unwrap();
    assert!(look().is_none());
    let letters = store.dead_letters().unwrap();
    for n in 0..3 {
        letters.add(&letter(n, of_value(&[n as u8]))).unwrap();
    }
    letters.mark_pending(&[SeqNo::new(1)]).unwrap();
    let seen = look().unwrap();
    assert_eq!(seen.log_id(), letters.log_id());
    assert_eq!((seen.counts().kept, seen.counts().pending), (2, 1));
    let mut reader = seen.letters();
    for n in 0..3 {
        let read = reader.next().unwrap().unwrap();
        assert_eq!((read.seq, value_of(&read)), (SeqNo::new(n), &[n as u8][..]));
        assert_eq!(read.state == State::Pending, n == 1);
    }
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(
        seen.get(SeqNo::new(3)).unwrap(),
        None,
        "a change is no letter"
    );
}

/// Else the largest records would be the only ones that no policy can take out of the way.
#[test]
fn the_largest_record_of_a_lane_can_be_kept_and_edited() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let lane = store.lane();
    let topic = "t".repeat(249);
    let value = vec![7; 16 << 20];
    let of_len = |len: usize| MessageRef {
        value: Some(&value[..len]),
        ..MessageRef::to(&topic)
    };
    // The largest value that the lane takes.
    let (mut taken, mut refused) = (0, value.len());
    while taken + 1 < refused {
        let middle = usize::midpoint(taken, refused);
        match lane.append_wait(&of_len(middle)) {
            Ok(_) => taken = middle,
            Err(Error::Log(wal::Error::TooLarge { .. })) => refused = middle,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(taken > value.len() - 5000, "{taken}");
    let long = "x".repeat(5000);
    let largest = MessageRef {
        partition: Some(i32::MAX),
        timestamp_millis: Some(i64::MAX),
        ..of_len(taken)
    };
    let mut letter = letter(u64::MAX, Content::Message(largest));
    (letter.lane, letter.cause.class, letter.cause.reason) = (&long, &long, &long);
    let letters = store.dead_letters().unwrap();
    let seq = letters.add(&letter).unwrap();
    let seq = letters.edit(seq, &largest).unwrap();
    let read = letters.get(seq).unwrap().unwrap();
    assert_eq!(value_of(&read).len(), taken);
    assert_eq!(read.body.reason.len(), REASON_LEN_MAX);
}

#[test]
fn letters_are_bounded_in_number_too() {
    let count = LETTERS_MAX as u64 + 1000;
    let all: Vec<Letter<'_>> = (0..count).map(|n| letter(n, Content::Raw(b""))).collect();
    for (on_full, kept) in [
        (OnLettersFull::Hold, LETTERS_MAX as u64),
        // A sixteenth of them goes at once.
        (OnLettersFull::DropOldest, count - LETTERS_MAX as u64 / 16),
    ] {
        let mut options = DeadLetterOptions::default();
        options.on_full = on_full;
        let dir = tempfile::tempdir().unwrap();
        let letters = open(Arc::new(RealFs), dir.path(), options);
        let added = letters.add_all(&all);
        assert_eq!(added.is_ok(), on_full == OnLettersFull::DropOldest);
        let check = |letters: &DeadLetters| {
            assert_eq!(letters.counts().kept, kept);
            assert_eq!(
                letters.fill_percent() == 100,
                on_full == OnLettersFull::Hold
            );
            assert!(letters.holds(LANE, SeqNo::new(LETTERS_MAX as u64 - 1)));
            assert_balances(letters);
        };
        check(&letters);
        letters.close().unwrap();
        let letters = open(Arc::new(RealFs), dir.path(), options);
        check(&letters);
        // One in the way that nobody decided about does not keep the others from making room.
        let others = letters.open_letters(|seq, _, _| seq > SeqNo::new(LETTERS_MAX as u64 / 8));
        letters.drop_letters(&others).unwrap();
        assert_eq!(letters.add_all(&all[..10]).unwrap().len(), 10);
        let new = [letter(count, Content::Raw(b""))];
        letters.add_all(&new).unwrap();
        assert!(letters.fill_percent() < 20);
        assert_balances(&letters);
    }
}

#[test]
fn a_letter_that_is_damaged_while_the_log_is_open_stops_no_walk() {
    let dir = tempfile::tempdir().unwrap();
    let letters = open(Arc::new(RealFs), dir.path(), options(OnLettersFull::Hold));
    let seqs: Vec<SeqNo> = (0..4_u8)
        .map(|n| {
            letters
                .add(&letter(n.into(), of_value(&[b'a' + n; 10_000])))
                .unwrap()
        })
        .collect();
    letters.mark_pending(&seqs).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        // A file that takes another's place may be gone by now.
        let Ok(mut bytes) = std::fs::read(&path) else {
            continue;
        };
        let found = bytes.windows(64).position(|window| window == [b'b'; 64]);
        if let Some(at) = found {
            bytes[at] ^= 1;
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
        }
    }
    let mut met = Vec::new();
    while let Some(next) = letters
        .next_pending(MAIN_CLUSTER, met.last().copied())
        .unwrap()
    {
        assert_eq!(value_of(&next).len(), 10_000);
        met.push(next.seq);
    }
    assert_eq!(met, [seqs[0], seqs[2], seqs[3]]);
    assert_eq!(letters.totals().lost, 1);
    assert_eq!(
        letters.mark_replayed(&seqs).unwrap(),
        3,
        "the lost one is no letter any more"
    );
    assert_balances(&letters);
}

/// A refused record is as secret as the others.
#[cfg(feature = "encryption")]
#[test]
fn letters_are_encrypted_with_the_keys_of_the_lanes() {
    let dir = tempfile::tempdir().unwrap();
    let secret = b"nobody reads this from the disk".repeat(10);
    let on_disk = || {
        let files = std::fs::read_dir(dir.path().join("dead-letters")).unwrap();
        let holds = |bytes: Vec<u8>| bytes.windows(20).any(|window| window == &secret[..20]);
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .any(holds)
    };
    let mut wal = Options::default();
    wal.keys = wal::Keys::none().write_with(1.try_into().unwrap(), [9; 32]);
    let store = Store::open(dir.path(), wal.clone()).unwrap();
    let first = letter(1, of_value(&secret));
    store.dead_letters().unwrap().add(&first).unwrap();
    store.close().unwrap();
    assert!(!on_disk());

    let store = Store::open(dir.path(), wal).unwrap();
    let letters = store.dead_letters().unwrap();
    let read = letters.get(SeqNo::ZERO).unwrap().unwrap();
    assert_eq!(value_of(&read), secret);
}
