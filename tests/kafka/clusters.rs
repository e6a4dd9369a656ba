//! Two clusters at once through one producer: each gets what is its own and nothing else, whatever
//! becomes of the other one, of the line, or of the process.
//!
//! Both clusters have all the topics: what goes astray arrives, and is seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ferrylog::kafka::Settings;
use ferrylog::message::{Due, Header, MessageRef};
use ferrylog::producer::{Builder, Unhealthy};
use ferrylog::ship::exactly_once::ExactlyOnceOptions;
use ferrylog::ship::{OnPoison, RetryOverride, ShipOptions};
use ferrylog::store::{StoreOptions, StoreView, TenantOptions};
use ferrylog::wal::OnFull;
use ferrylog::{Outcome, Producer, Receipt, SendError};

use crate::copies::{self, Content};
use crate::gateway::{Gateway, content, content_of};
use crate::kafka::{Kafka, wait_for};
use crate::process::{self, Process};
use crate::random::{self, Random};

const AUDIT: &str = "audit";

/// Of the main cluster, and of the other one.
const TOPICS: [&str; 2] = ["temps", "ledger"];

const SOON: Duration = Duration::from_secs(60);

/// The main cluster and the other one.
fn two(topics: &[&str]) -> [Kafka; 2] {
    [(); 2].map(|()| {
        let kafka = Kafka::start();
        for topic in topics {
            kafka.create_topic(topic, 2);
        }
        kafka
    })
}

/// A producer whose `ledger` goes to the other cluster.
fn builder(data: &Path, main: &str, audit: &str) -> Builder {
    let mut store = StoreOptions::default();
    store.topic_clusters.insert("ledger".into(), AUDIT.into());
    Producer::builder(data, Settings::new(main))
        .cluster(AUDIT, Settings::new(audit))
        .store(store)
}

/// The identity of the log that a receipt is from.
fn log_of(receipt: &Receipt<'_>) -> String {
    receipt.id().split_once('-').unwrap().0.to_owned()
}

fn message<'a>(topic: &'a str, (key, value): &'a Content) -> MessageRef<'a> {
    MessageRef {
        key: key.as_deref(),
        value: Some(value),
        ..MessageRef::to(topic)
    }
}

fn is_delivered(receipt: &Receipt<'_>) {
    assert_eq!(
        receipt.delivered().wait_for(SOON),
        Ok(Outcome::Shipped),
        "{receipt:?}"
    );
}

#[test]
fn while_one_cluster_hangs_or_is_down_the_other_is_served_at_full_rate_and_then_both_have_theirs() {
    const COUNT: u64 = 60_000;
    let seed = random::seed();
    let [main, mut audit] = two(&TOPICS);
    let gateway = Gateway::new();
    let servers = [&main, &audit].map(Kafka::bootstrap_servers);
    let producer = builder(&gateway.data, &servers[0], &servers[1]);
    let producer = producer.open().unwrap();
    let send = |n| {
        let content = content(seed, n);
        TOPICS.map(|topic| producer.send(&message(topic, &content)).unwrap())
    };
    let mut usual = Duration::MAX;
    let mut logs = None;
    for (round, fault) in ["none", "hangs", "down"].into_iter().enumerate() {
        match fault {
            "hangs" => audit.pause(),
            "down" => audit.stop(),
            _ => {}
        }
        let started = Instant::now();
        let first = COUNT * round as u64;
        (first..first + COUNT - 1).for_each(|n| drop(send(n)));
        let newest = send(first + COUNT - 1);
        is_delivered(&newest[0]);
        let took = started.elapsed();
        println!("{fault}: {took:.1?}");
        if fault == "none" {
            is_delivered(&newest[1]);
            usual = took;
        } else {
            assert_eq!(newest[1].outcomes().next(), Some(None), "{fault}");
            // What waits for the other one waits for seconds.
            let limit = 2 * usual + Duration::from_secs(1);
            assert!(took < limit, "{fault}: {took:.1?}, else {usual:.1?}");
        }
        logs = Some(newest.each_ref().map(log_of));
    }
    wait_for("the news", SOON, || {
        let health = producer.health(Duration::ZERO);
        matches!(health, Err(Unhealthy::Offline { cluster, .. }) if cluster == AUDIT)
    });
    assert_eq!(producer.stats().totals.queued, 2 * COUNT);
    audit.restart();
    let closed = producer.close(SOON).unwrap();
    assert!(closed.is_empty(), "{closed:?}");

    let logs = logs.unwrap();
    for (place, kafka) in [main, audit].iter().enumerate() {
        let (own, other) = (TOPICS[place], TOPICS[1 - place]);
        assert_eq!(kafka.watch(other).total(), 0, "{other} is not its own");
        let repeats = copies::check(kafka, own, &logs[place], 3 * COUNT, |n| content(seed, n));
        println!("{own}: {repeats:?}");
        assert!(place == 1 || repeats.duplicates == 0, "{repeats:?}");
    }
}

/// What a topic holds that one log shipped with just these headers beside its identity: numbers by
/// partition, in the order they are in.
fn numbers(
    kafka: &Kafka,
    topic: &str,
    log: &str,
    headers: &[Header<'_>],
    content: impl Fn(u64) -> Content,
) -> BTreeMap<i32, Vec<u64>> {
    let mut partitions: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    kafka.consume_each(topic, |mut record| {
        let own = record
            .headers
            .extract_if(.., |(name, _)| name != "ferry-id");
        let own: Vec<_> = own.collect();
        let own = own.iter().map(|(name, value)| Header {
            name,
            value: value.as_deref(),
        });
        assert_eq!(own.collect::<Vec<_>>(), headers, "{topic}");
        let seq = copies::identify(&record, log);
        let found = (record.key, record.value.unwrap());
        assert!(found == content(seq), "{topic}: {seq} is not what was sent");
        partitions.entry(record.partition).or_default().push(seq);
    });
    partitions
}

const OF_ACME: [Header<'static>; 1] = [Header {
    name: "tenant",
    value: Some(b"acme"),
}];

/// `acme` is told by a header, `beta` by the prefix of its topics; both have the other cluster.
fn with_tenants() -> (StoreOptions, ShipOptions) {
    let mut store = StoreOptions::default();
    store.default.wal.on_full = OnFull::Reject;
    store.default.wal.segment_size = 3 << 20;
    for name in ["acme", "beta"] {
        let mut tenant = TenantOptions::default();
        tenant.cluster = Some(AUDIT.into());
        tenant.topic_prefix = format!("{name}.");
        tenant.quota_bytes = (name == "beta").then_some(9 << 20);
        store.tenants.insert(name.into(), tenant);
    }
    let mut halts = RetryOverride::default();
    halts.on_poison = Some(OnPoison::Halt);
    let mut ship = ShipOptions::default();
    ship.retry.max_backoff = Duration::from_secs(1);
    ship.retry_overrides.tenants.insert("acme".into(), halts);
    (store, ship)
}

/// With one record among them that is larger than brokers take.
#[test]
fn tenants_have_a_cluster_a_prefix_a_policy_and_a_quota_of_their_own_and_one_that_is_full_hurts_nobody()
 {
    const COUNT: u64 = 3_000;
    const TOO_LARGE: u64 = 1_000;
    let seed = random::seed();
    let [main, audit] = two(&["t", "acme.t", "beta.t"]);
    let gateway = Gateway::new();
    let (store, ship) = with_tenants();
    let producer = Producer::builder(&gateway.data, Settings::new(main.bootstrap_servers()))
        .cluster(AUDIT, Settings::new(audit.bootstrap_servers()))
        .store(store)
        .ship(ship)
        .open()
        .unwrap();
    let small = |n| {
        let len = if n == TOO_LARGE { 1_500_000 } else { 200 };
        content_of(seed, n, len)
    };
    let large = |n| content_of(!seed, n, 100_000);
    let of_beta = |n| {
        let receipt = producer.send(&message("beta.t", &large(n)))?;
        // Only what is on disk tells that there is no more room.
        drop(receipt.durable().wait());
        Ok::<Receipt<'_>, SendError>(receipt)
    };

    audit.pause();
    let (mut of_all, mut of_acme, mut beta) = (Vec::new(), Vec::new(), Vec::new());
    let mut refused = 0;
    for n in 0..COUNT {
        let content = small(n);
        of_all.push(producer.send(&message("t", &content)).unwrap());
        let tenants = MessageRef {
            headers: &OF_ACME,
            ..message("t", &content)
        };
        of_acme.push(producer.send(&tenants).unwrap());
        if n % 10 == 0 {
            match of_beta(beta.len() as u64) {
                Ok(receipt) => beta.push(receipt),
                Err(SendError::Full { lane, .. }) => {
                    assert_eq!(lane, "default@audit~beta");
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("beta: {} taken, {refused} refused", beta.len());
    assert!(beta.len() > 10 && refused > 10);
    for (n, receipt) in of_all.iter().enumerate() {
        let expected = match n as u64 {
            TOO_LARGE => Outcome::DeadLettered,
            _ => Outcome::Shipped,
        };
        assert_eq!(receipt.delivered().wait_for(SOON), Ok(expected), "{n}");
    }
    assert_eq!(
        of_acme[0].outcomes().next(),
        Some(None),
        "its cluster hangs"
    );

    audit.resume();
    beta.iter().for_each(is_delivered);
    let behind = wait_for_some("room for beta", || of_beta(beta.len() as u64).ok());
    is_delivered(&behind);
    beta.push(behind);
    wait_for("acme's policy", SOON, || {
        let why = producer.status().why.unwrap_or_default();
        why.contains("topic `acme.t`") && why.contains("stopped in front of a refused record")
    });
    assert_eq!(of_acme[TOO_LARGE as usize].outcomes().next(), Some(None));
    audit.alter_topic("acme.t", &[("max.message.bytes", "2000000")]);
    of_acme.iter().for_each(is_delivered);
    assert!(producer.close(SOON).unwrap().is_empty());

    let all = || (0..COUNT).collect::<BTreeSet<u64>>();
    let mut without = all();
    without.remove(&TOO_LARGE);
    let of_beta = (0..beta.len() as u64).collect();
    let judged = |kafka, topic, receipt, headers: &[_], content: &dyn Fn(u64) -> Content, all| {
        let found = numbers(kafka, topic, &log_of(receipt), headers, content);
        println!("{topic}: {:?}", copies::judge(&found, &all));
    };
    judged(&main, "t", &of_all[0], &[], &small, without);
    judged(&audit, "acme.t", &of_acme[0], &OF_ACME, &small, all());
    judged(&audit, "beta.t", &beta[0], &[], &large, of_beta);
    for (kafka, topic) in [(&main, "acme.t"), (&main, "beta.t"), (&audit, "t")] {
        assert_eq!(kafka.watch(topic).total(), 0, "{topic} is not its own");
    }
}

fn wait_for_some<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let mut answer = None;
    wait_for(what, SOON, || {
        answer = ask();
        answer.is_some()
    });
    answer.unwrap()
}

/// The arguments of a process with a producer for these clusters.
struct Place<'a> {
    data: &'a Path,
    main: &'a str,
    audit: &'a str,
    run: &'a str,
}

impl Place<'_> {
    fn of(arguments: &[String]) -> Place<'_> {
        let [data, main, audit, run] = arguments else {
            panic!("{arguments:?}");
        };
        let data = Path::new(data);
        Place {
            data,
            main,
            audit,
            run,
        }
    }

    fn builder(&self) -> Builder {
        builder(self.data, self.main, self.audit)
    }
}

/// A process that does this test's part, and the lines that it printed.
fn start(data: &Path, servers: &[String; 2], run: u64) -> (Process, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&heard);
    let hear = move |line: &str| lines.lock().unwrap().push(line.to_owned());
    let [main, audit] = servers;
    let arguments = [data.to_str().unwrap(), main, audit, &run.to_string()];
    (Process::start(&arguments, hear), heard)
}

fn has_said(heard: &Mutex<Vec<String>>, line: &str) -> bool {
    heard.lock().unwrap().iter().any(|heard| heard == line)
}

/// Not after the log's own clock, which is the system's coarse one: a tick behind.
fn now_millis() -> i64 {
    const TICK_MAX: i64 = 20;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap() - TICK_MAX
}

/// Records of a run for each topic, due one after the other within this time.
const LATER: u64 = 1_000;
const LATER_WITHIN: u64 = 2_000;

#[test]
fn what_is_due_later_is_fired_once_over_kills_and_offline_and_never_early() {
    if let Some(arguments) = process::arguments() {
        return send_for_later(&Place::of(&arguments));
    }
    const KILLS: u64 = 4;
    let mut random = Random(random::seed());
    let [main, mut audit] = two(&TOPICS);
    let servers = [&main, &audit].map(Kafka::bootstrap_servers);
    audit.stop();
    let gateway = Gateway::new();
    for run in 0..KILLS {
        let (process, heard) = start(&gateway.data, &servers, run);
        wait_for("all is durable", SOON, || has_said(&heard, "sent"));
        // While it fires.
        thread::sleep(Duration::from_millis(random.below(LATER_WITHIN)));
        process.kill();
    }
    let (process, heard) = start(&gateway.data, &servers, KILLS);
    wait_for("all is fired", SOON, || has_said(&heard, "fired"));
    audit.restart();
    process.end();

    for (topic, kafka) in TOPICS.iter().zip([main, audit]) {
        let mut ids: HashMap<String, String> = HashMap::new();
        let mut copies = 0;
        kafka.consume_each(topic, |record| {
            let id = record.header("ferry-id").unwrap().to_owned();
            let value = String::from_utf8(record.value.unwrap()).unwrap();
            let due: i64 = value.rsplit(' ').next().unwrap().parse().unwrap();
            let fired = record.timestamp_millis.unwrap();
            assert!(fired >= due, "{value} came at {fired}");
            copies += 1;
            // Another copy of the same is what at least once allows.
            let first = ids.entry(value).or_insert_with(|| id.clone());
            assert_eq!(*first, id, "fired twice");
        });
        println!("{topic}: {} of {copies} records", ids.len());
        assert_eq!(ids.len() as u64, LATER * (KILLS + 1), "{topic}");
    }
}

fn send_for_later(place: &Place<'_>) {
    let producer = place.builder().open().unwrap();
    for n in 0..LATER {
        let after = 100 + n * LATER_WITHIN / LATER;
        for topic in TOPICS {
            let due = now_millis() + after.cast_signed();
            let value = format!("{} {n} {due}", place.run);
            let message = MessageRef {
                value: Some(value.as_bytes()),
                due: Some(Due::After(after)),
                ..MessageRef::to(topic)
            };
            assert!(producer.send(&message).unwrap().is_scheduled());
        }
    }
    producer.flush().unwrap();
    println!("sent");
    wait_for("the last one", SOON, || {
        producer.status().scheduled.waiting == 0
    });
    println!("fired");
    process::wait_for_the_end();
    assert!(producer.close(SOON).unwrap().is_empty());
}

/// Records of a run for each topic.
const ONCE: u64 = 10_000;

#[test]
fn two_clusters_get_each_record_once_over_kills_inside_the_commits_of_either() {
    if let Some(arguments) = process::arguments() {
        return send_once(&Place::of(&arguments));
    }
    const KILLS: u64 = 6;
    /// The run in which the other cluster is down; the main one is who commits then.
    const DOWN: u64 = 4;
    let mut random = Random(random::seed());
    let [main, mut audit] = two(&TOPICS);
    let servers = [&main, &audit].map(Kafka::bootstrap_servers);
    let gateway = Gateway::new();
    let mut durable = Vec::new();
    for run in 0..KILLS {
        let (process, heard) = start(&gateway.data, &servers, run);
        if run == DOWN {
            audit.stop();
        }
        let lane = ["default", "default@audit"][usize::from(run % 2 == 1)];
        let commits = 1 + random.below(6);
        wait_for_commits(&gateway.data, lane, commits);
        thread::sleep(Duration::from_micros(random.below(5_000)));
        process.kill();
        durable.extend(has_said(&heard, "durable").then_some(run));
        println!("run {run}: killed {commits} commits of {lane} later");
        if run == DOWN {
            audit.restart();
        }
    }
    let (process, heard) = start(&gateway.data, &servers, KILLS);
    wait_for("all is durable", SOON, || has_said(&heard, "durable"));
    process.end();
    durable.push(KILLS);

    let accepted = accepted(&gateway.data);
    for (topic, kafka) in TOPICS.iter().zip([main, audit]) {
        let (mut found, mut newest) = (BTreeMap::<u64, BTreeSet<u64>>::new(), [0; 2]);
        for record in kafka.consume(topic) {
            let id = record.header("ferry-id").unwrap().split_once('-').unwrap();
            let seq: u64 = id.1.parse().unwrap();
            let newest = &mut newest[record.partition as usize];
            assert!(*newest <= seq, "{topic}: {seq} behind {newest}");
            *newest = seq + 1;
            let value = String::from_utf8(record.value.unwrap()).unwrap();
            let [of, run, n] = value.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{value}");
            };
            assert_eq!(of, *topic, "it is not its own");
            let run = found.entry(run.parse().unwrap()).or_default();
            assert!(run.insert(n.parse().unwrap()), "{value} is there twice");
        }
        let count: usize = found.values().map(BTreeSet::len).sum();
        println!("{topic}: {count}, durable runs: {durable:?}");
        assert_eq!(count as u64, accepted[*topic], "{topic}");
        for run in &durable {
            assert_eq!(found[run].len() as u64, ONCE, "{topic}: run {run}");
        }
        for (run, numbers) in found {
            // What was appended when the process was killed is on disk up to some record.
            assert_eq!(
                numbers.len() as u64,
                numbers.last().map_or(0, |last| last + 1),
                "{topic}: a hole in run {run}"
            );
        }
    }
}

/// How many records each topic's lane took; all of them are shipped.
fn accepted(data: &Path) -> HashMap<&'static str, u64> {
    let view = StoreView::open(data).unwrap();
    let of = |topic| {
        let lane = if topic == TOPICS[0] {
            "default"
        } else {
            "default@audit"
        };
        let lane = view.lanes().iter().find(|view| view.name() == lane);
        let totals = lane.unwrap().totals();
        assert_eq!(totals.shipped, totals.accepted);
        (topic, totals.accepted)
    };
    TOPICS.map(of).into()
}

/// Waits until a lane is about to commit for so many times.
fn wait_for_commits(data: &Path, lane: &str, count: u64) {
    let intent = || fs::read(data.join(format!("lanes/{lane}.intent"))).unwrap_or_default();
    let (mut before, deadline) = (intent(), Instant::now() + SOON);
    for _ in 0..count {
        while intent() == before {
            assert!(Instant::now() < deadline, "{lane} commits nothing");
            thread::yield_now();
        }
        before = intent();
    }
}

fn send_once(place: &Place<'_>) {
    let mut options = ExactlyOnceOptions::default();
    options.max_records = 500;
    let producer = place.builder().exactly_once(options).open().unwrap();
    for n in 0..ONCE {
        let key = format!("key-{}", n % 97);
        for topic in TOPICS {
            let value = format!("{topic} {} {n}", place.run);
            let message = MessageRef {
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                ..MessageRef::to(topic)
            };
            drop(producer.send(&message).unwrap());
        }
    }
    producer.flush().unwrap();
    println!("durable");
    process::wait_for_the_end();
    assert!(producer.close(SOON).unwrap().is_empty());
}
