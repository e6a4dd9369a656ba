//! `drain --exactly-once`, judged by a consumer that reads what is committed: kills at any moment,
//! kills inside the commit, copies of a store, another cluster.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::message::MessageRef;
use ferrylog::ship::Progress;
use ferrylog::ship::exactly_once::{self, Committed, ExactlyOnceOptions};
use ferrylog::store::Store;
use ferrylog::wal::Options;

use crate::copies::{self, Repeats};
use crate::gateway::{Gateway, Running, content};
use crate::kafka::relay::Request;
use crate::kafka::{Kafka, wait_for};
use crate::program::{run, run_on};
use crate::random::{self, Random};

pub(crate) const EXACTLY_ONCE: &str = "--exactly-once";

/// Small transactions, so that there are many in a short time.
pub(crate) const SMALL: [&str; 3] = [EXACTLY_ONCE, "--transaction-records", "1000"];

/// Longest wait for the next commit of a drain that runs.
const COMMITS_WITHIN: Duration = Duration::from_secs(60);

const NO_REPEATS: Repeats = Repeats {
    duplicates: 0,
    runs: 0,
};

/// Every record is there once and in order.
pub(crate) fn check(kafka: &Kafka, topic: &str, gateway: &Gateway, seed: u64, count: u64) {
    let status = gateway.status();
    status.expect_all_shipped(count);
    let content = |seq| content(seed, seq);
    let repeats = copies::check(kafka, topic, &status.log_id, count, content);
    assert_eq!(repeats, NO_REPEATS);
}

/// What the gateway was about to commit, as bytes; none before the first time.
fn intent(data: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(data.join("lanes/default.intent")).ok()?;
    bytes.iter().any(|byte| *byte != 0).then_some(bytes)
}

/// Kills a drain `delay` after it made another intent durable; false if it ended before.
pub(crate) fn kill_in_commit(gateway: &Gateway, mut drain: Running, delay: Duration) -> bool {
    let before = intent(&gateway.data);
    while intent(&gateway.data) == before {
        if drain.has_ended() {
            drain.end().expect(0);
            return false;
        }
        thread::yield_now();
    }
    // The place of the cut within the commit, and no wait for anything.
    thread::sleep(delay);
    if drain.has_ended() {
        drain.end().expect(0);
        return false;
    }
    drain.kill();
    true
}

/// Kills a drain that committed a transaction, after so many `others`, and was not told so.
pub(crate) fn kill_in_doubt(gateway: &Gateway, kafka: &Kafka, arguments: &[&str], others: u32) {
    let relay = kafka.relay(0);
    relay.swallow_answers_from(Request::EndTxn, others);
    let drain = gateway.start_drain(kafka, arguments);
    wait_for("a commit", COMMITS_WITHIN, || !relay.is_armed());
    drain.kill();
    relay.pass();
}

#[test]
fn a_backlog_arrives_in_transactions_and_a_second_run_sends_nothing() {
    const COUNT: u64 = 200_000;
    let seed = random::seed();
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 4);
    let told = gateway
        .drain(&kafka, &[EXACTLY_ONCE])
        .expect_json(0)
        .remove(0);
    println!("{told}");
    assert_eq!(told["shipped"], COUNT, "{told}");
    check(&kafka, "numbers", &gateway, seed, COUNT);
    let ends = kafka.watch("numbers").ends();
    // The markers of the transactions stand there, too.
    assert!(ends.iter().sum::<i64>() > COUNT as i64, "{ends:?}");
    let told = gateway
        .drain(&kafka, &[EXACTLY_ONCE])
        .expect_json(0)
        .remove(0);
    assert_eq!(told["shipped"], 0, "{told}");
    assert_eq!(kafka.watch("numbers").ends(), ends);
}

/// One record in ten is for a topic that is missing until the end is near.
///
/// `FERRYLOG_TEST_KILLS=100,5,500000` for the long one: kills of the program, of the broker, records.
#[test]
fn kills_of_the_program_and_the_broker_at_any_moment_lose_and_repeat_nothing() {
    /// All kills together see less than there is.
    const RATE: u64 = 1_000_000;
    let given = std::env::var("FERRYLOG_TEST_KILLS").unwrap_or("10,1,60000".to_owned());
    let plan: Vec<u64> = given.split(',').map(|n| n.parse().unwrap()).collect();
    let [kills, broker_kills, count] = plan[..] else {
        panic!("three numbers: {given}");
    };
    let seed = random::seed();
    let mut random = Random(seed);
    let gateway = Gateway::new();
    append(&gateway, seed, count);
    let mut kafka = Kafka::start();
    kafka.create_topic("numbers", 4);
    let watch = kafka.watch("numbers");
    let mut queued = count;
    for kill in 1..=kills {
        if kill == kills - kills / 10 {
            assert!(gateway.status().count("moved") > 0, "nothing was parked");
            kafka.create_topic("missing", 4);
        }
        let before = watch.total();
        let drain = gateway.start_slow_drain(&kafka, RATE, &SMALL);
        if kill % 4 == 0 {
            // While it opens the store, takes over, or looks up what became of the last one.
            thread::sleep(Duration::from_micros(random.below(200_000)));
        } else {
            watch.wait_for_growth(before, 1 + random.below(count / kills));
            thread::sleep(Duration::from_micros(random.below(30_000)));
        }
        if kill * broker_kills / kills > (kill - 1) * broker_kills / kills {
            kafka.stop();
            kafka.restart();
            println!("the broker was killed");
            // It goes on with the broker that is back; the next kill is of it again.
            let delay = Duration::from_micros(random.below(30_000));
            kill_in_commit(&gateway, drain, delay);
        } else {
            drain.kill();
        }
        let was_queued = queued;
        let status = gateway.status();
        queued = status.count("queued");
        let parked = status.count("moved");
        println!("kill {kill}: {queued} of {was_queued} still queued, {parked} were parked");
        assert!(queued <= was_queued, "the cursor went back");
    }
    println!("{queued} of {count} still queued");
    assert!(queued > 0, "it was killed to the end");
    gateway.drain(&kafka, &[EXACTLY_ONCE]).expect(0);
    let status = gateway.status();
    let counts = ["accepted", "queued"].map(|class| status.count(class));
    assert_eq!(counts, [count, 0]);
    for topic in ["numbers", "missing"] {
        let expected = (0..count).filter(|seq| topic_of(*seq) == topic).collect();
        let content = |seq| content(seed, seq);
        let repeats = copies::check_those(&kafka, topic, &status.log_id, expected, content);
        assert_eq!(repeats, NO_REPEATS, "{topic}");
    }
}

/// Where record `seq` of [`append`] goes.
fn topic_of(seq: u64) -> &'static str {
    if seq % 10 == 7 { "missing" } else { "numbers" }
}

/// Appends records for two topics.
fn append(gateway: &Gateway, seed: u64, count: u64) {
    let store = Store::open(&gateway.data, Options::default()).unwrap();
    for seq in 0..count {
        let (key, value) = content(seed, seq);
        let message = MessageRef {
            key: key.as_deref(),
            value: Some(&value),
            ..MessageRef::to(topic_of(seq))
        };
        drop(store.lane().append(&message).unwrap());
    }
    store.lane().sync().unwrap();
    store.close().unwrap();
}

#[test]
fn kills_inside_the_commit_lose_and_repeat_nothing() {
    const COUNT: u64 = 60_000;
    const KILLS: u64 = 20;
    /// Two transactions at once, and two a second: all kills together see less than there is.
    const RATE: u64 = 640_000;
    let seed = random::seed();
    let mut random = Random(seed);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 4);
    let (mut killed, mut queued) = (0, COUNT);
    for _ in 0..KILLS {
        let drain = gateway.start_slow_drain(&kafka, RATE, &SMALL);
        // A commit takes 5 to 34 ms.
        killed += u64::from(kill_in_commit(
            &gateway,
            drain,
            Duration::from_micros(random.below(40_000)),
        ));
        queued = gateway.status().count("queued");
    }
    println!("{killed} kills, {queued} of {COUNT} still queued");
    assert!(queued > 0 && killed == KILLS, "it was killed in the middle");
    gateway.drain(&kafka, &[EXACTLY_ONCE]).expect(0);
    check(&kafka, "numbers", &gateway, seed, COUNT);
}

/// Copies the store as an operator would; nothing runs on it.
pub(crate) fn copy(gateway: &Gateway) -> (PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("data");
    let mut copying = Command::new("cp");
    copying.arg("-a").arg(&gateway.data).arg(&to);
    assert!(copying.status().unwrap().success());
    (to, dir)
}

fn drain(data: &Path, kafka: &Kafka) -> crate::program::Ran {
    let servers = kafka.bootstrap_servers();
    let arguments = ["drain", "--json", "--bootstrap-servers", &servers];
    run(data, arguments.into_iter().chain([EXACTLY_ONCE]))
}

/// One that was restored elsewhere, with nothing sent meanwhile.
pub(crate) fn check_a_moved_store_goes_on(kafka: &Kafka, seed: u64, arguments: &[&str]) {
    kafka.create_topic("moved", 2);
    let old = Gateway::new();
    old.send("moved", seed, 10);
    old.drain(kafka, arguments).expect(0);
    let (moved, _dir) = copy(&old);
    run_on(&moved, ["send", "--topic", "moved"], b"one more\n").expect(0);
    let servers = kafka.bootstrap_servers();
    let drain = ["drain", "--json", "--bootstrap-servers", &servers];
    let ran = run(&moved, drain.iter().chain(arguments).copied());
    let told = ran.expect_json(0).remove(0);
    assert_eq!(told["shipped"], 1, "{told}");
    assert_eq!(kafka.consume("moved").len(), 11);
}

#[test]
fn a_store_that_moved_goes_on_and_a_copy_of_one_that_went_on_stops_until_it_is_another_gateway() {
    const COUNT: u64 = 3_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 2);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    gateway.drain(&kafka, &[EXACTLY_ONCE]).expect(0);

    check_a_moved_store_goes_on(&kafka, seed, &[EXACTLY_ONCE]);

    // The original takes and sends more; then the copy has something to send, too: an old backup.
    gateway.send("numbers", seed ^ 1, COUNT);
    let (backup, _backup_dir) = copy(&gateway);
    gateway.drain(&kafka, &[EXACTLY_ONCE]).expect(0);
    let before = kafka.watch("numbers").total();
    let message = drain(&backup, &kafka).expect_failure(1, "foreign");
    println!("{message}");
    assert!(
        message.contains("another store ships as ferrylog."),
        "{message}"
    );
    assert_eq!(kafka.consume("numbers").len() as u64, 2 * COUNT);
    assert_eq!(kafka.watch("numbers").total(), before, "it sent something");
    // The original is not disturbed for good.
    gateway.send("numbers", seed ^ 2, COUNT);
    gateway.drain(&kafka, &[EXACTLY_ONCE]).expect(0);

    let told = run(&backup, ["repair", "--json", "--new-identity"]).expect_json(0);
    println!("{}", told[0]);
    let told = drain(&backup, &kafka).expect_json(0).remove(0);
    assert_eq!(told["shipped"], COUNT, "{told}");
    assert_eq!(kafka.consume("numbers").len() as u64, 4 * COUNT);
}

#[test]
fn of_two_processes_with_one_identity_one_stops_and_says_so_and_nothing_is_lost() {
    const COUNT: u64 = 60_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 2);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let (clone, _dir) = copy(&gateway);
    let watch = kafka.watch("numbers");
    let original = gateway.start_drain(&kafka, &SMALL);
    watch.wait_for_growth(0, COUNT / 20);
    let servers = kafka.bootstrap_servers();
    let arguments = ["drain", "--json", "--bootstrap-servers", &servers];
    let ended = run(&clone, arguments.into_iter().chain(SMALL));
    let message = ended.expect_failure(1, "foreign");
    println!("{message}");
    // It was disturbed once, and goes on.
    original.end().expect(0);
    check(&kafka, "numbers", &gateway, seed, COUNT);
    // What the clone holds is still there.
    let status = run(&clone, ["status", "--json"]).expect_json(0).remove(0);
    assert_eq!(status["lanes"][0]["records"]["queued"], COUNT, "{status}");
}

#[test]
fn in_another_cluster_a_resolved_store_goes_on_alarmed_and_one_in_doubt_asks() {
    const COUNT: u64 = 5_000;
    let seed = random::seed();
    let (first, second) = (Kafka::with().relayed().start(), Kafka::start());
    for kafka in [&first, &second] {
        kafka.create_topic("numbers", 2);
    }
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    gateway.drain(&first, &[EXACTLY_ONCE]).expect(0);
    gateway.send("numbers", seed ^ 1, COUNT);
    let ran = gateway.drain(&second, &[EXACTLY_ONCE]);
    assert!(ran.err.contains("does not have the progress"), "{ran:?}");
    ran.expect(0);
    // Its markers follow the commit that was acknowledged.
    wait_for("what was committed", Duration::from_secs(60), || {
        second.consume("numbers").len() as u64 == COUNT
    });

    // Killed with a transaction in doubt, then moved.
    for (decision, is_sent) in [("sent", true), ("not-sent", false)] {
        let gateway = Gateway::new();
        gateway.send("numbers", seed, COUNT);
        kill_in_doubt(&gateway, &first, &SMALL, 0);
        let ran = gateway.drain(&second, &[EXACTLY_ONCE]);
        println!("{}", ran.expect_failure(1, "in_doubt"));
        let before = second.consume("numbers").len() as u64;
        let queued = gateway.status().count("queued");
        let told = run(&gateway.data, ["repair", "--json", "--in-doubt", decision]);
        println!("{}", told.expect_json(0)[0]);
        let left = gateway.status().count("queued");
        assert_eq!(left < queued, is_sent, "{left} of {queued}");
        gateway.drain(&second, &[EXACTLY_ONCE]).expect(0);
        assert_eq!(second.consume("numbers").len() as u64, before + left);
        run(&gateway.data, ["repair", "--json", "--in-doubt", decision])
            .expect_failure(1, "not_in_doubt");
    }
}

#[test]
fn another_gateways_dead_transaction_is_waited_for_and_then_the_right_thing_is_decided() {
    const COUNT: u64 = 10_000;
    const DEAD_FOR: Duration = Duration::from_secs(12);
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    kafka.create_topic("numbers", 2);
    // All gateways in one partition.
    let compacted = [("cleanup.policy", "compact")];
    kafka.create_topic_with("ferrylog-progress", 1, &compacted);
    let gateway = Gateway::new();
    let records = |numbers: Range<u64>| numbers.map(|n| content(seed, n));
    gateway.send_each("numbers", records(0..COUNT / 2));
    gateway.drain(&kafka, &SMALL).expect(0);
    gateway.send_each("numbers", records(COUNT / 2..COUNT));
    kafka.leave_transaction_open("ferrylog-progress", "dead", DEAD_FOR);
    let died = Instant::now();
    // Behind what is open: only that tells what became of it.
    kill_in_doubt(&gateway, &kafka, &SMALL, 0);
    let mut told = Vec::new();
    let committed = ship(&gateway, &kafka, |_| {}, &mut |now| {
        let why = now.why.clone().filter(|why| why.contains("resolving"));
        told.extend(why.map(|why| (why, Instant::now(), kafka.relay(0).carried_up())));
    });
    println!("{:?}, {:?}: {committed:?}", died.elapsed(), told.last());
    assert!(died.elapsed() > DEAD_FOR, "decided while it was open");
    let [(_, begun, before), .., (_, ended, after)] = &told[..] else {
        panic!("it does not say what it waits for: {told:?}");
    };
    let asked = (after - before) as f64 / ended.duration_since(*begun).as_secs_f64();
    println!("{asked:.0} bytes a second to ask whether it is still open");
    assert!(asked < 1_000.0, "{told:?}");
    check(&kafka, "numbers", &gateway, seed, COUNT);
}

/// Ships with the library, which has more options and tells what it is doing.
pub(crate) fn ship(
    gateway: &Gateway,
    kafka: &Kafka,
    set: impl FnOnce(&mut ExactlyOnceOptions),
    progress: &mut dyn FnMut(&Progress),
) -> Committed {
    let store = Store::open(&gateway.data, Options::default()).unwrap();
    let settings = Settings::new(kafka.bootstrap_servers());
    let mut options = ExactlyOnceOptions::default();
    set(&mut options);
    let stop = AtomicBool::new(false);
    let committed = exactly_once::drain(&store, &settings, &options, &stop, progress);
    store.close().unwrap();
    committed.unwrap()
}

/// Each reads what the others wrote, and their marks, before it begins. Where starts fall into librdkafka's waits,
/// two in five do; a machine that stops for a moment may look like it.
#[test]
fn a_start_in_transactions_falls_into_no_wait_of_half_a_second() {
    const STARTS: usize = 20;
    const WAIT: Duration = Duration::from_millis(450);
    const SLOW_MAX: usize = 5;
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 4);
    kafka.create_topic("progress", 1);
    let start = |n| {
        let gateway = Gateway::new();
        gateway.send("numbers", n, 1);
        let set = |options: &mut ExactlyOnceOptions| options.progress_topic = "progress".into();
        let committed = ship(&gateway, &kafka, set, &mut |_| {});
        assert_eq!(committed.drained.shipped, 1);
        committed.drained.elapsed
    };
    // The cluster's first transaction makes it a topic.
    start(0);
    let times: Vec<Duration> = (1..=STARTS as u64).map(start).collect();
    println!("{times:?}");
    let quickest = times.iter().min().unwrap();
    let slow = times.iter().filter(|time| **time >= *quickest + WAIT);
    let slow = slow.count();
    assert!(slow <= SLOW_MAX, "{slow} of {STARTS}: {times:?}");
}

/// Answers are lost from one of its first questions on, for longer than it waits for one.
#[test]
fn a_start_that_is_not_answered_takes_the_id_over_no_second_time() {
    const LOST: Duration = Duration::from_secs(4);
    let kafka = Kafka::with().relayed().start();
    kafka.create_topic("numbers", 4);
    let relay = kafka.relay(0);
    for others in 0..6 {
        let gateway = Gateway::new();
        gateway.send("numbers", others.into(), 1);
        relay.swallow_answers_from(Request::Metadata, others);
        let has_ended = AtomicBool::new(false);
        let mut told = BTreeSet::new();
        let committed = thread::scope(|scope| {
            scope.spawn(|| {
                while relay.is_armed() && !has_ended.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                }
                // The fault itself.
                thread::sleep(LOST);
                relay.pass();
                relay.cut();
            });
            let mut tell = |now: &Progress| _ = told.insert(now.link.clone());
            let committed = ship(&gateway, &kafka, |_| {}, &mut tell);
            has_ended.store(true, Ordering::Relaxed);
            committed
        });
        println!("{others}: {:.1?}, {told:?}", committed.drained.elapsed);
        assert_eq!(committed.drained.shipped, 1);
        // What librdkafka says to who takes over twice.
        assert!(!told.iter().any(|link| link.contains("Erroneous state")));
    }
}

#[test]
fn a_transaction_that_timed_out_is_sent_again_and_stays_one() {
    const COUNT: u64 = 60_000;
    const TIMEOUT: Duration = Duration::from_secs(4);
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 4);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let mut hung = false;
    let small = |options: &mut ExactlyOnceOptions| {
        options.transaction_timeout = TIMEOUT;
        options.max_records = 1000;
        // It lasts for some reports of its progress.
        options.ship.drain_rate = NonZeroU64::new(5_000_000);
    };
    let committed = thread::scope(|scope| {
        ship(&gateway, &kafka, small, &mut |now| {
            if now.shipped > COUNT / 4 && !hung {
                hung = true;
                kafka.pause();
                // The fault itself, longer than the transaction may last.
                scope.spawn(|| {
                    thread::sleep(2 * TIMEOUT);
                    kafka.resume();
                });
            }
        })
    });
    println!("{committed:?}");
    assert!(hung && committed.drained.rebuilds > 0, "{committed:?}");
    check(&kafka, "numbers", &gateway, seed, COUNT);
}

/// One topic of three is missing, and each third record is for it.
#[test]
fn a_missing_topic_is_parked_through_kills_and_arrives_in_order_when_it_is_created() {
    const COUNT: u64 = 9_000;
    /// A third of a second's worth at once, and as much a second: several lives of it see no end.
    const RATE: u64 = 300_000;
    let seed = random::seed();
    let mut random = Random(seed);
    let mut kafka = Kafka::start();
    kafka.create_topic("first", 2);
    kafka.create_topic("second", 2);
    let gateway = Gateway::new();
    for part in 0..6 {
        let topic = ["first", "missing", "second"][part % 3];
        gateway.send(topic, seed, COUNT / 6);
    }
    let mut kills = 0;
    for _ in 0..6 {
        let mut drain = gateway.start_slow_drain(&kafka, RATE, &SMALL);
        thread::sleep(Duration::from_micros(random.below(900_000)));
        if drain.has_ended() {
            drain.end().expect_failure(1, "unknown_topic");
            continue;
        }
        drain.kill();
        kills += 1;
    }
    println!("{kills} kills");
    assert!(kills >= 3, "{kills} kills");
    let message = gateway
        .drain(&kafka, &SMALL)
        .expect_failure(1, "unknown_topic");
    println!("{message}");
    assert!(message.contains("`missing`"), "{message}");
    assert_eq!(gateway.status().count("moved"), COUNT / 3);
    assert_eq!(gateway.status().count("queued"), 0);
    kafka.create_topic("missing", 2);
    let mut killed = gateway.start_drain(&kafka, &SMALL);
    kafka.watch("missing").wait_for_growth(0, 1);
    if killed.has_ended() {
        killed.end().expect(0);
    } else {
        killed.kill();
    }
    kafka.stop();
    kafka.restart();
    gateway.drain(&kafka, &SMALL).expect(0);
    for topic in ["first", "missing", "second"] {
        let mut seen = [0; 2];
        let records = kafka.consume(topic);
        assert_eq!(records.len() as u64, COUNT / 3, "{topic}");
        for record in records {
            let id = record.header("ferry-id").unwrap();
            let seq: u64 = id.split_once('-').unwrap().1.parse().unwrap();
            let newest = &mut seen[record.partition as usize];
            assert!(*newest <= seq, "{topic}: {seq} after {newest}");
            *newest = seq + 1;
        }
    }
}

#[test]
fn a_record_that_is_refused_alone_goes_to_the_dead_letters_and_its_siblings_arrive_once() {
    const COUNT: usize = 600;
    let poison = [0, 250, 251, COUNT - 1];
    let kafka = Kafka::start();
    kafka.create_topic_with("small", 1, &[("max.message.bytes", "20000")]);
    let gateway = Gateway::new();
    let mut random = Random(random::seed());
    let mut lines = Vec::new();
    for number in 0..COUNT {
        let len = if poison.contains(&number) { 30_000 } else { 20 };
        let mut line = format!("{number} ").into_bytes();
        line.extend((0..len).map(|_| b'a' + random.below(26) as u8));
        lines.push(String::from_utf8(line).unwrap());
    }
    let input = lines.join("\n") + "\n";
    run_on(
        &gateway.data,
        ["send", "--topic", "small"],
        input.as_bytes(),
    )
    .expect(0);
    let none = ["--property", "compression.type=none"];
    let told = gateway
        .drain(&kafka, &[&[EXACTLY_ONCE][..], &none].concat())
        .expect_json(1)
        .remove(0);
    println!("{told}");
    let status = gateway.status();
    let counts = ["shipped", "dead_lettered", "queued"].map(|class| status.count(class));
    assert_eq!(counts, [COUNT as u64 - 4, 4, 0]);
    let arrived = kafka.consume("small").into_iter();
    let arrived: Vec<String> = arrived
        .map(|record| String::from_utf8(record.value.unwrap()).unwrap())
        .collect();
    let good = |(number, _): &(usize, &String)| !poison.contains(number);
    let expected = lines.iter().enumerate().filter(good);
    assert!(
        expected.map(|(_, line)| line).eq(&arrived),
        "not the others, in order"
    );
}
