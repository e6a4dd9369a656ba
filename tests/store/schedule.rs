//! What is due later: it waits over restarts, on clocks that jump, and goes to its lane once.

use std::fs;
use std::future::Future;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use ferrylog::message::{Due, Expires, Message, MessageRef};
use ferrylog::store::{
    Error, LaneOptions, SCHEDULE_QUOTA_MIN, SCHEDULED_MAX, ScheduleOptions, Store, StoreOptions,
    StoreView, TimeSource,
};
use ferrylog::wal::{Class, Durability, OnFull, Options, SeqNo};
use tempfile::tempdir;

use crate::random::Random;
use crate::time::{HOUR, Machine, real_millis};

static GO: AtomicBool = AtomicBool::new(false);

fn options(machine: &Arc<Machine>) -> StoreOptions {
    let mut wal = Options::default();
    wal.durability = Durability::Memory;
    wal.segment_size = 1 << 20;
    let mut schedule = ScheduleOptions::default();
    schedule.quota_bytes = SCHEDULE_QUOTA_MIN;
    let mut options = StoreOptions::new(wal.clone());
    let mut alarms = LaneOptions::new(wal);
    alarms.topics = vec!["alarm*".into()];
    options.lanes.insert("alarms".into(), alarms);
    options.schedule = schedule;
    options.clock.source = Arc::clone(machine) as Arc<dyn TimeSource>;
    options
}

fn open(dir: &Path, machine: &Arc<Machine>) -> Store {
    Store::open_with(dir, &options(machine)).unwrap()
}

fn schedule_to(store: &Store, topic: &str, value: &[u8], due: Due) -> Result<SeqNo, Error> {
    let message = MessageRef {
        due: Some(due),
        value: Some(value),
        ..MessageRef::to(topic)
    };
    Ok(store.schedule(store.route(topic), &[message])?.seq())
}

fn schedule(store: &Store, value: &str, due: Due) -> SeqNo {
    schedule_to(store, "temps", value.as_bytes(), due).unwrap()
}

fn fire(store: &Store) -> u64 {
    let fired = store.fire_due(&GO).unwrap();
    let totals = store.totals();
    assert!(totals.balances(), "{totals:?}");
    assert_eq!(totals.scheduled, store.scheduled().waiting);
    fired
}

/// What is on disk in the lane of a topic.
fn messages(store: &Store, topic: &str) -> Vec<Message> {
    store.route(topic).sync().unwrap();
    let mut reader = store.route(topic).reader(SeqNo::ZERO);
    let entries = std::iter::from_fn(|| reader.next().unwrap());
    entries.map(|entry| entry.message.unwrap()).collect()
}

fn values(store: &Store) -> Vec<String> {
    let value = |message: Message| String::from_utf8(message.value.unwrap().into()).unwrap();
    messages(store, "temps").into_iter().map(value).collect()
}

#[test]
fn a_time_of_day_is_met_by_a_clock_that_is_trusted_and_by_no_other() {
    let dir = tempdir().unwrap();
    let start = real_millis();
    let machine = Machine::boot(1, 5_000);
    let store = open(dir.path(), &machine);
    schedule(&store, "past", Due::At(4_000));
    schedule(&store, "later", Due::At(start + HOUR.cast_signed()));
    assert_eq!(fire(&store), 0, "what time is it?");
    let seen = store.scheduled();
    assert_eq!((seen.waiting, seen.need_clock), (2, 2));
    assert_eq!(seen.next_millis, Some(4_000));

    machine.synchronise(start);
    machine.pass(1_000);
    assert_eq!(fire(&store), 1);
    assert_eq!(values(&store), ["past"]);
    let seen = store.scheduled();
    assert_eq!((seen.waiting, seen.need_clock), (1, 0));
    assert_eq!(seen.next_millis, Some(start + HOUR.cast_signed()));

    // Half an hour on, and then a whole one back.
    machine.pass(HOUR / 2);
    machine.synchronise(start - HOUR.cast_signed() / 2);
    machine.pass(HOUR);
    assert_eq!(fire(&store), 0);
    machine.pass(HOUR / 2);
    assert_eq!(fire(&store), 1);
    machine.synchronise(start - HOUR.cast_signed());
    machine.pass(3 * HOUR);
    assert_eq!(fire(&store), 0);
    assert_eq!(values(&store), ["past", "later"]);
}

#[test]
fn an_interval_is_over_when_the_machine_was_up_for_it_whatever_the_wall_clock_does() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let mut store = open(dir.path(), &machine);
    schedule(&store, "in an hour", Due::After(HOUR));
    for step in [
        real_millis(),
        6_000,
        real_millis() + 100 * HOUR.cast_signed(),
    ] {
        machine.synchronise(step);
        machine.pass(HOUR / 4);
        assert_eq!(fire(&store), 0);
        store.close().unwrap();
        store = open(dir.path(), &machine);
    }
    machine.pass(HOUR / 4 - 1);
    assert_eq!(fire(&store), 0);
    machine.pass(1);
    assert_eq!(fire(&store), 1);
}

#[test]
fn over_a_restart_of_the_machine_an_interval_counts_between_two_trusted_ends_or_from_the_opening() {
    let dir = tempdir().unwrap();
    let start = real_millis();
    let first = Machine::boot(1, 5_000);
    let store = open(dir.path(), &first);
    first.synchronise(start);
    first.pass(1_000);
    schedule(&store, "known", Due::After(2 * HOUR));
    store.close().unwrap();
    let unknown = Machine::boot(2, 5_000);
    let store = open(dir.path(), &unknown);
    schedule(&store, "unknown", Due::After(2 * HOUR));
    unknown.pass(HOUR);
    assert_eq!(fire(&store), 0);
    store.close().unwrap();

    let third = Machine::boot(3, 5_000);
    let store = open(dir.path(), &third);
    third.pass(HOUR);
    assert_eq!(fire(&store), 0, "an hour at least, but how many more?");
    third.synchronise(start + 2 * HOUR.cast_signed());
    third.pass(1_000);
    assert_eq!(fire(&store), 1);
    assert_eq!(values(&store), ["known"]);
    third.pass(HOUR - 1_001);
    assert_eq!(fire(&store), 0);
    third.pass(1);
    assert_eq!(fire(&store), 1);
    assert_eq!(values(&store), ["known", "unknown"]);
}

#[test]
fn what_waits_is_counted_over_restarts_and_seen_from_outside() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let store = open(dir.path(), &machine);
    assert!(!dir.path().join("schedule").exists());
    assert!(
        StoreView::open(dir.path())
            .unwrap()
            .scheduled(&store.now())
            .unwrap()
            .is_none()
    );
    schedule(&store, "a", Due::After(HOUR));
    schedule(&store, "b", Due::After(2 * HOUR));
    assert_eq!(store.totals().accepted, 2);
    store.close().unwrap();

    let store = open(dir.path(), &machine);
    let totals = store.totals();
    assert_eq!(
        (totals.accepted, totals.scheduled, totals.queued),
        (2, 2, 0)
    );
    let view = StoreView::open(dir.path()).unwrap();
    assert_eq!(
        view.scheduled(&store.now()).unwrap().unwrap(),
        store.scheduled()
    );
    machine.pass(HOUR);
    assert_eq!(fire(&store), 1);
    let totals = store.totals();
    assert_eq!(
        (totals.accepted, totals.scheduled, totals.queued),
        (2, 1, 1)
    );
    store.close().unwrap();
    let view = StoreView::open(dir.path()).unwrap();
    let store = open(dir.path(), &machine);
    let seen = view.scheduled(&store.now()).unwrap().unwrap();
    assert_eq!((seen.waiting, seen.lost), (1, 0));
    let verified = view.schedule_log().unwrap().unwrap().verify(&mut |_, _| ());
    assert_eq!(verified.unwrap().findings, []);
}

#[test]
fn a_message_goes_to_its_lane_as_it_was_given_and_what_it_left_open_counts_from_there() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    machine.synchronise(real_millis());
    let store = open(dir.path(), &machine);
    let given = MessageRef {
        partition: Some(3),
        key: Some(b"k"),
        timestamp_millis: Some(42),
        expires: Some(Expires::After(HOUR / 2)),
        due: Some(Due::After(HOUR)),
        ..MessageRef::to("alarm-1")
    };
    let open_time = MessageRef {
        timestamp_millis: None,
        expires: None,
        ..given
    };
    let lane = store.route("alarm-1");
    assert!(matches!(lane.append(&given), Err(Error::NotDue)));
    let first = store.schedule(lane, &[given, open_time]).unwrap().seq();
    machine.pass(HOUR);
    assert_eq!(fire(&store), 2);
    assert_eq!(values(&store), Vec::<String>::new());
    let messages = messages(&store, "alarm-1");
    let [ours, open_time] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert_eq!(
        (ours.partition, ours.key.as_deref()),
        (Some(3), Some(&b"k"[..]))
    );
    assert_eq!((ours.timestamp_millis, ours.timestamp_given), (42, true));
    assert_eq!(ours.expires, given.expires);
    assert_eq!(ours.scheduled, Some(first.get()));
    assert!(!open_time.timestamp_given);
    assert_eq!(open_time.scheduled, Some(first.get() + 1));
    let (fired_to, seq) = store.fired(first).unwrap();
    assert_eq!((fired_to.name(), seq), ("alarms", SeqNo::ZERO));
}

#[test]
fn what_is_longest_overdue_goes_first_and_of_two_what_was_accepted_first() {
    let dir = tempdir().unwrap();
    let start = real_millis();
    let machine = Machine::boot(1, start);
    machine.synchronise(start);
    machine.pass(1_000);
    let store = open(dir.path(), &machine);
    let now = store.now().reading.wall_millis;
    schedule(&store, "3", Due::After(3_000));
    schedule(&store, "2", Due::At(now + 2_000));
    schedule(&store, "1", Due::After(1_000));
    schedule(&store, "2 again", Due::After(2_000));
    schedule_to(&store, "alarm", b"2", Due::After(2_000)).unwrap();
    schedule(&store, "4", Due::At(now + 4_001));
    machine.pass(4_000);
    assert_eq!(fire(&store), 5);
    assert_eq!(values(&store), ["1", "2", "2 again", "3"]);
    assert_eq!(messages(&store, "alarm").len(), 1);
    machine.pass(1);
    assert_eq!(fire(&store), 1);
}

#[test]
fn a_multitude_that_is_due_at_once_goes_in_batches_and_in_order() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let store = open(dir.path(), &machine);
    let values: Vec<String> = (0..2_500).map(|n| n.to_string()).collect();
    for values in values.chunks(500) {
        let messages: Vec<MessageRef<'_>> = values
            .iter()
            .map(|value| MessageRef {
                due: Some(Due::After(HOUR)),
                value: Some(value.as_bytes()),
                ..MessageRef::to("temps")
            })
            .collect();
        drop(store.schedule(store.lane(), &messages).unwrap());
    }
    let large = vec![b'x'; 200_000];
    for _ in 0..5 {
        schedule_to(&store, "temps", &large, Due::After(HOUR)).unwrap();
    }
    machine.pass(HOUR);
    assert_eq!(fire(&store), 2_505);
    let fired = self::values(&store);
    assert_eq!(fired[..2_500], values);
    assert!(
        fired[2_500..]
            .iter()
            .all(|value| value.len() == large.len())
    );
    assert_eq!(fired.len(), 2_505);
}

#[test]
fn a_lane_that_is_full_does_not_hold_up_another_one() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let mut options = options(&machine);
    options.default.wal.quota_bytes = Some(4 << 20);
    options.default.wal.on_full = OnFull::Reject;
    options.default.wal.max_spares = 0;
    let store = Store::open_with(dir.path(), &options).unwrap();
    let large = vec![b'x'; 100_000];
    let bulk = MessageRef {
        value: Some(&large),
        ..MessageRef::to("temps")
    };
    while store.lane().append_wait(&bulk).is_ok() {}
    while store.lane().shortage().is_none() {
        drop(store.lane().append(&bulk));
        drop(store.lane().sync());
    }
    schedule(&store, "bulk", Due::After(1_000));
    schedule_to(&store, "alarm", b"alarm", Due::After(2_000)).unwrap();
    machine.pass(2_000);
    assert_eq!(fire(&store), 1);
    assert_eq!(messages(&store, "alarm").len(), 1);
    assert_eq!(store.scheduled().waiting, 1);

    // The lane tries for space by itself, for what is in memory first.
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.scheduled().waiting > 0 {
        assert!(Instant::now() < deadline, "{:?}", store.scheduled());
        let end = store.lane().marks().durable;
        store.lane().settle(SeqNo::ZERO..end, Class::Shipped);
        drop(store.fire_due(&GO));
        std::thread::yield_now();
    }
    assert_eq!(fire(&store), 0);
}

#[test]
fn too_much_is_refused_in_words_and_taken_again_when_some_was_due() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let store = open(dir.path(), &machine);
    let large = vec![b'x'; 300_000];
    let mut taken = 0;
    let full = loop {
        match schedule_to(&store, "temps", &large, Due::After(HOUR)) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::ScheduleFull { .. }), "{full}");
    assert!(full.to_string().contains("quota"), "{full}");
    assert!(
        taken * large.len() as u64 >= SCHEDULE_QUOTA_MIN / 2,
        "{taken}"
    );
    assert_eq!(store.scheduled().waiting, taken);
    machine.pass(HOUR);
    assert_eq!(fire(&store), taken);
    schedule_to(&store, "temps", &large, Due::After(HOUR)).unwrap();
    machine.pass(HOUR);
    assert_eq!(fire(&store), 1);

    let many = vec![
        MessageRef {
            due: Some(Due::After(HOUR)),
            ..MessageRef::to("temps")
        };
        SCHEDULED_MAX / 16
    ];
    for _ in 0..16 {
        drop(store.schedule(store.lane(), &many).unwrap());
    }
    let full = store.schedule(store.lane(), &many[..1]).unwrap_err();
    assert!(full.to_string().contains("65536 records wait"), "{full}");
    let long = vec![b'x'; 600_000];
    let refused = schedule_to(&store, "temps", &long, Due::After(HOUR)).unwrap_err();
    assert!(matches!(refused, Error::ScheduleFull { .. }), "{refused}");
}

#[test]
fn a_record_that_is_due_in_a_year_holds_no_space_but_its_own() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let mut store = open(dir.path(), &machine);
    let year = 24 * 365 * HOUR;
    let first = schedule(&store, "in a year", Due::After(year));
    let large = vec![b'x'; 100_000];
    for round in 0..60 {
        for _ in 0..5 {
            schedule_to(&store, "alarm", &large, Due::After(1_000)).unwrap();
        }
        machine.pass(1_000);
        assert_eq!(fire(&store), 5);
        let alarms = store.route("alarm");
        let end = alarms.sync().unwrap();
        alarms.settle(SeqNo::ZERO..end, Class::Shipped);
        if round % 20 == 19 {
            store.close().unwrap();
            store = open(dir.path(), &machine);
        }
    }
    let files = fs::read_dir(dir.path().join("schedule")).unwrap();
    let segments = files.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("segment-")
    });
    let segments = segments.count();
    assert!(
        segments <= 6,
        "{segments} segments of 1 MiB for 30 MB that are gone"
    );
    assert_eq!(store.scheduled().waiting, 1);
    machine.pass(year);
    assert_eq!(fire(&store), 1);
    let messages = messages(&store, "temps");
    assert_eq!(
        messages[0].scheduled,
        Some(first.get()),
        "it is the same one still"
    );
    assert_eq!(messages.len(), 1);
}

/// As [`options`], with topics of another cluster.
fn with_audit(machine: &Arc<Machine>, topics: &[&str]) -> StoreOptions {
    let mut options = options(machine);
    let clusters = topics
        .iter()
        .map(|topic| ((*topic).to_owned(), "audit".to_owned()));
    options.topic_clusters.extend(clusters);
    options
}

#[test]
fn what_is_due_for_a_lane_that_was_taken_away_goes_to_no_other_cluster() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let store = Store::open_with(dir.path(), &with_audit(&machine, &["ledger"])).unwrap();
    assert_eq!(store.route("ledger").name(), "default@audit");
    schedule_to(&store, "ledger", b"ours", Due::After(1_000)).unwrap();
    store.close().unwrap();
    fs::remove_dir_all(dir.path().join("lanes/default@audit")).unwrap();

    let store = open(dir.path(), &machine);
    machine.pass(1_000);
    schedule(&store, "other", Due::After(0));
    assert_eq!(fire(&store), 1);
    assert_eq!(values(&store), ["other"]);
    let seen = store.scheduled();
    let why = seen.why.unwrap();
    assert!(
        seen.waiting == 1 && why.contains("no lane default@audit"),
        "{why}"
    );
    store.close().unwrap();

    // Another one of that cluster stands in for it.
    let store = Store::open_with(dir.path(), &with_audit(&machine, &["alarm"])).unwrap();
    assert_eq!(store.route("alarm").name(), "alarms@audit");
    assert_eq!(fire(&store), 1);
    assert_eq!(store.scheduled().why, None);
    assert_eq!(values(&store), ["other"]);
    let fired = &messages(&store, "alarm")[0];
    assert_eq!(fired.value.as_deref(), Some(&b"ours"[..]));
}

#[test]
fn a_record_that_does_not_fit_its_lane_any_more_waits_alone_and_is_tried_once_an_opening() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let mut options = options(&machine);
    options.schedule = ScheduleOptions::default();
    let open = |options: &StoreOptions| Store::open_with(dir.path(), options).unwrap();
    options.default.wal.segment_size = 8 << 20;
    let store = open(&options);
    let large = vec![b'x'; 900_000];
    // The larger ones stand in the midst of a batch, and alone.
    let small: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    for (n, value) in small.iter().enumerate() {
        schedule(&store, value, Due::After(1_000));
        if n == 25 {
            let refused = format!("refused {}", "x".repeat(200_000));
            schedule(&store, &refused, Due::After(1_000));
        }
    }
    schedule_to(&store, "temps", &large, Due::After(2_000)).unwrap();
    schedule_to(&store, "alarm", b"alarm", Due::After(3_000)).unwrap();
    store.close().unwrap();

    options.default.wal.segment_size = 1 << 20;
    options.default.wal.max_record_bytes = 100_000;
    let store = open(&options);
    machine.pass(3_000);
    assert_eq!(fire(&store), 41, "all but those two");
    assert_eq!(values(&store), small);
    assert_eq!(messages(&store, "alarm").len(), 1);
    let seen = store.scheduled();
    let why = seen.why.unwrap();
    assert_eq!(
        (seen.waiting, seen.need_clock, seen.next_millis),
        (2, 0, None)
    );
    assert!(
        why.contains("record 26 does not go to lane default"),
        "{why}"
    );
    assert!(why.ends_with("others like it: 1"), "{why}");
    // It is not tried again: nothing is written for it.
    let before = schedule(&store, "far", Due::After(HOUR));
    assert_eq!(fire(&store), 0);
    assert_eq!(schedule(&store, "far", Due::After(HOUR)), before + 1);
    store.close().unwrap();

    options.default.wal.max_record_bytes = Options::default().max_record_bytes;
    options.default.wal.segment_size = 8 << 20;
    let store = open(&options);
    assert_eq!(fire(&store), 2);
    assert_eq!(
        (store.scheduled().why, store.scheduled().waiting),
        (None, 2)
    );
    assert_eq!(values(&store).len(), 42);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn woken(counts: &[Arc<Count>]) -> Vec<usize> {
    let woken = counts.iter().map(|count| count.0.load(Ordering::SeqCst));
    woken.collect()
}

#[test]
fn who_waits_for_what_is_due_is_kept_once_and_not_at_all_once_it_is_dropped() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let store = open(dir.path(), &machine);
    let first = schedule(&store, "a", Due::After(HOUR));
    let second = schedule(&store, "b", Due::After(2 * HOUR));
    let counts: [Arc<Count>; 3] = Default::default();
    let wakers = counts.each_ref().map(|count| Waker::from(count.clone()));
    // The count itself, and the waker here.
    let kept = || counts.each_ref().map(|count| Arc::strong_count(count) > 2);
    {
        let mut first = pin!(store.settlement_of_scheduled(first..first + 1));
        let mut poll = |waker| first.as_mut().poll(&mut Context::from_waker(waker));
        for waker in [0, 0, 1, 1] {
            assert!(poll(&wakers[waker]).is_pending());
        }
        assert_eq!(kept(), [false, true, false], "the newest waker counts");
        let mut second = pin!(store.settlement_of_scheduled(second..second + 1));
        let polled = second.as_mut().poll(&mut Context::from_waker(&wakers[2]));
        assert!(polled.is_pending());
        machine.pass(HOUR);
        assert_eq!(fire(&store), 1);
        assert_eq!(woken(&counts), [0, 1, 0], "each by its own record");

        store
            .lane()
            .settle(SeqNo::ZERO..SeqNo::new(1), Class::Shipped);
        let polled = poll(&wakers[1]);
        assert!(
            matches!(polled, Poll::Ready(Ok(Class::Shipped))),
            "{polled:?}"
        );
    }
    assert_eq!(kept(), [false; 3], "who is gone is not kept");
    machine.pass(HOUR);
    assert_eq!(fire(&store), 1);
    assert_eq!(woken(&counts), [0, 1, 0], "nor woken");
}

/// Spoils every place in the schedule log where these bytes stand: those of a tail stand at two.
fn spoil(dir: &Path, bytes: &[u8]) {
    let mut spoilt = 0;
    for file in fs::read_dir(dir.join("schedule")).unwrap() {
        let path = file.unwrap().path();
        // Of the others some come and go.
        if !path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("segment-")
        {
            continue;
        }
        let all = fs::read(&path).unwrap();
        let parts = all.windows(bytes.len()).enumerate();
        for (at, _) in parts.filter(|(_, part)| *part == bytes) {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            let spoil = vec![0xee; bytes.len()];
            file.write_all_at(&spoil, at as u64).unwrap();
            spoilt += 1;
        }
    }
    assert!(spoilt > 0);
}

/// Found by who fires, or by who appends it again.
#[test]
fn who_waits_for_a_record_that_the_disk_lost_hears_that_it_is_lost() {
    let large = vec![b'x'; 100_000];
    for is_due in [true, false] {
        let dir = tempdir().unwrap();
        let machine = Machine::boot(1, 5_000);
        let store = open(dir.path(), &machine);
        let value = "a value that can be found";
        let lost = schedule(&store, value, Due::After(HOUR));
        store.sync_schedule().unwrap();
        // Memory stands in for the tail of a log: this is the tail from here on.
        let kept = schedule_to(&store, "temps", &large, Due::After(2 * HOUR)).unwrap();
        store.sync_schedule().unwrap();
        spoil(dir.path(), value.as_bytes());
        let count = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut told = pin!(store.settlement_of_scheduled(lost..lost + 1));
        assert!(told.as_mut().poll(&mut context).is_pending());
        assert_eq!(store.outcome_of_scheduled(lost).unwrap(), None);
        if is_due {
            machine.pass(HOUR);
            assert_eq!(fire(&store), 0);
        } else {
            while count.0.load(Ordering::SeqCst) == 0 {
                assert!(store.scheduled().lost == 0, "lost, and nobody was told");
                schedule_to(&store, "alarm", &large, Due::After(1_000)).unwrap();
                machine.pass(1_000);
                fire(&store);
            }
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        let polled = told.as_mut().poll(&mut context);
        assert!(matches!(polled, Poll::Ready(Ok(Class::Lost))), "{polled:?}");
        let asked = [lost, kept].map(|seq| store.outcome_of_scheduled(seq).unwrap());
        assert_eq!(asked, [Some(Class::Lost), None]);
        let totals = store.totals();
        assert_eq!((totals.lost, totals.scheduled), (1, 1));
        assert!(totals.balances(), "{totals:?}");
    }
}

/// Random lives: what was accepted is in its lane once, and never before its time.
#[test]
fn whatever_happens_each_record_is_fired_once_and_never_early() {
    for seed in 0..4 {
        let mut random = Random(seed);
        let dir = tempdir().unwrap();
        let machine = Machine::boot(1, real_millis());
        machine.synchronise(real_millis());
        let mut store = open(dir.path(), &machine);
        let mut passed = 0;
        let mut due: Vec<u64> = Vec::new();
        for _ in 0..80 {
            match random.below(8) {
                0..4 => {
                    let millis = random.below(50_000);
                    let by = match random.below(2) {
                        0 => Due::After(millis),
                        _ => {
                            let now = store.now().reading.wall_millis;
                            Due::At(now + millis.cast_signed())
                        }
                    };
                    schedule(&store, &due.len().to_string(), by);
                    due.push(passed + millis);
                }
                4..6 => {
                    let millis = random.below(8_000);
                    machine.pass(millis);
                    passed += millis;
                }
                6 => drop(fire(&store)),
                _ => {
                    drop(store);
                    store = open(dir.path(), &machine);
                }
            }
            let fired = values(&store);
            let early = |value: &&String| due[value.parse::<usize>().unwrap()] > passed;
            assert_eq!(fired.iter().find(early), None, "seed {seed}");
        }
        machine.pass(50_000);
        fire(&store);
        let mut fired: Vec<usize> = values(&store).iter().map(|v| v.parse().unwrap()).collect();
        fired.sort_unstable();
        assert_eq!(fired, (0..due.len()).collect::<Vec<_>>(), "seed {seed}");
    }
}
