//! Every way in which a link or a broker fails, in the middle of a backlog: nothing is lost, nothing
//! is out of order, nothing arrives twice while our process lives.
//!
//! A client's timeouts are shortened, so that an outage is longer than each of them in seconds; with
//! `KAFKA_LONG=1` they are what users have, and the outages last as long as that takes.

use std::env;
use std::thread;
use std::time::{Duration, Instant};
#[cfg(feature = "root-tests")]
use std::{fs, path::Path, process::Command};

use crate::copies::{self, Repeats};
use crate::gateway::{Gateway, Running, content_of};
use crate::kafka::relay::Request;
use crate::kafka::{Kafka, Relay, Watch, wait_for};
use crate::random::{self, Random};

const COUNT: u64 = 300_000;
const LEN: usize = 100;

/// Longest wait for what must happen at last.
const SOON: Duration = Duration::from_secs(60);

/// Far longer than any outage here: it is not what ends one.
const PATIENCE: &[&str] = &["--timeout", "600"];

fn is_long() -> bool {
    env::var_os("KAFKA_LONG").is_some()
}

/// The client's timeouts, and an outage that is longer than all of them.
fn timeouts() -> (Vec<&'static str>, Duration) {
    if is_long() {
        return (PATIENCE.to_vec(), Duration::from_secs(200));
    }
    let short = [
        "--property",
        "socket.timeout.ms=2000",
        "--property",
        "request.timeout.ms=1000",
        "--property",
        "reconnect.backoff.max.ms=1000",
    ];
    ([PATIENCE, &short].concat(), Duration::from_secs(10))
}

/// A backlog that is being shipped.
struct Backlog {
    gateway: Gateway,
    topic: &'static str,
    seed: u64,
    count: u64,
    started: Instant,
}

impl Backlog {
    fn send(topic: &'static str) -> Backlog {
        let seed = random::seed();
        let gateway = Gateway::new();
        let records = (0..COUNT).map(|number| content_of(seed, number, LEN));
        gateway.send_each(topic, records);
        Backlog {
            gateway,
            topic,
            seed,
            count: COUNT,
            started: Instant::now(),
        }
    }

    /// Starts to ship it, and waits until a tenth has arrived.
    fn start(&self, kafka: &Kafka, more: &[&str]) -> (Running, Watch) {
        kafka.create_topic(self.topic, 4);
        let drain = self.gateway.start_drain(kafka, more);
        let watch = kafka.watch(self.topic);
        watch.wait_for_growth(0, self.count / 10);
        (drain, watch)
    }

    /// The fault is there, and there is something left that it can hurt.
    fn expect_midway(&self, drain: &mut Running) {
        let queued = self.gateway.status().count("queued");
        assert!(queued > 0 && !drain.has_ended(), "it came too late");
        println!("{}: {queued} queued", self.topic);
    }

    /// Waits for the end, and judges what arrived.
    fn end(&self, kafka: &Kafka, drain: Running) {
        let ended = drain.end();
        println!("{}", ended.err);
        ended.expect(0);
        let status = self.gateway.status();
        status.expect_all_shipped(self.count);
        let content = |number| content_of(self.seed, number, LEN);
        let repeats = copies::check(kafka, self.topic, &status.log_id, self.count, content);
        let took = self.started.elapsed();
        println!("{}: {took:.1?}, {repeats:?}", self.topic);
        let none = Repeats {
            duplicates: 0,
            runs: 0,
        };
        assert_eq!(repeats, none, "{}", self.topic);
    }
}

#[test]
fn a_broker_that_hangs_for_half_a_minute_costs_nothing() {
    let kafka = Kafka::start();
    let backlog = Backlog::send("hung");
    let (mut drain, _) = backlog.start(&kafka, PATIENCE);
    kafka.pause();
    // The fault itself, as all sleeps here.
    thread::sleep(Duration::from_secs(30));
    backlog.expect_midway(&mut drain);
    kafka.resume();
    backlog.end(&kafka, drain);
}

#[test]
fn a_broker_that_is_killed_and_restarted_costs_nothing() {
    let mut kafka = Kafka::start();
    let backlog = Backlog::send("killed");
    let (mut drain, watch) = backlog.start(&kafka, PATIENCE);
    for kill in 1..=2 {
        let before = watch.total();
        kafka.stop();
        // Longer than a partition may be silent.
        thread::sleep(Duration::from_secs(4 * kill));
        backlog.expect_midway(&mut drain);
        kafka.restart();
        watch.wait_for_growth(before, COUNT / 20);
    }
    backlog.end(&kafka, drain);
}

#[test]
fn a_cluster_that_is_unreachable_for_longer_than_every_timeout_costs_nothing() {
    let (more, outage) = timeouts();
    let kafka = Kafka::with().relayed().start();
    let backlog = Backlog::send("unreachable");
    let (mut drain, _) = backlog.start(&kafka, &more);
    kafka.relay(0).refuse();
    thread::sleep(outage);
    backlog.expect_midway(&mut drain);
    kafka.relay(0).pass();
    backlog.end(&kafka, drain);
}

/// In the head of a request, in its middle, and when the broker has acted on it already: that one
/// is sent again, and it is the broker that must keep it once.
#[test]
fn connections_cut_in_requests_and_before_answers_cost_nothing() {
    let kafka = Kafka::with().relayed().start();
    let relay = kafka.relay(0);
    let backlog = Backlog::send("cut");
    // Connects again at once, so that there is time for many cuts.
    let hasty = ["--property", "reconnect.backoff.max.ms=500"];
    let (mut drain, _) = backlog.start(&kafka, &[PATIENCE, &hasty].concat());
    let mut random = Random(backlog.seed);
    let mut cuts = 0;
    while cuts < 12 {
        let others = random.below(3) as u32;
        if cuts % 2 == 0 {
            relay.cut_in_request(Request::Produce, others, random.below(20_000) as usize);
        } else {
            relay.cut_before_answer(Request::Produce, others);
        }
        wait_for("the cut", SOON, || !relay.is_armed() || drain.has_ended());
        if drain.has_ended() {
            break;
        }
        cuts += 1;
    }
    println!("{cuts} cuts, {} connections", relay.connected());
    assert!(cuts >= 6, "too few cuts");
    relay.pass();
    backlog.end(&kafka, drain);
}

#[test]
fn a_connection_that_is_half_open_or_swallows_everything_costs_nothing() {
    let (more, outage) = timeouts();
    let kafka = Kafka::with().relayed().start();
    let relay = kafka.relay(0);
    let faults: [(_, fn(&Relay)); 3] = [
        ("answers-lost", Relay::swallow_answers),
        ("requests-lost", Relay::swallow_requests),
        ("black-hole", Relay::black_hole),
    ];
    for (topic, fault) in faults {
        let backlog = Backlog::send(topic);
        let (mut drain, _) = backlog.start(&kafka, &more);
        fault(relay);
        thread::sleep(outage);
        backlog.expect_midway(&mut drain);
        relay.pass();
        backlog.end(&kafka, drain);
    }
}

#[test]
fn a_line_that_takes_200_ms_each_way_costs_nothing() {
    const DELAY: Duration = Duration::from_millis(200);
    let kafka = Kafka::with().relayed().start();
    kafka.relay(0).delay(DELAY);
    let backlog = Backlog::send("delayed");
    let (mut drain, _) = backlog.start(&kafka, PATIENCE);
    backlog.expect_midway(&mut drain);
    backlog.end(&kafka, drain);
}

#[test]
fn a_broker_that_is_started_only_after_us_gets_everything() {
    let (more, outage) = timeouts();
    let mut kafka = Kafka::prepare();
    let backlog = Backlog::send("late");
    let mut drain = backlog.gateway.start_drain(&kafka, &more);
    thread::sleep(outage);
    backlog.expect_midway(&mut drain);
    kafka.restart();
    kafka.create_topic(backlog.topic, 4);
    backlog.end(&kafka, drain);
}

#[cfg(feature = "root-tests")]
#[test]
fn a_name_that_resolves_only_later_is_found_then() {
    const NAME: &str = "broker.ferrylog.test";
    let (more, outage) = timeouts();
    let kafka = Kafka::start();
    let backlog = Backlog::send("unnamed");
    kafka.create_topic(backlog.topic, 4);
    let servers = kafka.bootstrap_servers().replace("127.0.0.1", NAME);
    let names = tempfile::NamedTempFile::new().unwrap();
    let command = backlog.gateway.drain_command(&servers, &more);
    let mut drain = Running::start(with_names(names.path(), &command));
    thread::sleep(outage);
    backlog.expect_midway(&mut drain);
    fs::write(names.path(), format!("127.0.0.1 {NAME}\n")).unwrap();
    backlog.end(&kafka, drain);
}

/// Runs a program that knows no names but those in this file, by mount points of its own.
#[cfg(feature = "root-tests")]
fn with_names(names: &Path, program: &Command) -> Command {
    const SCRIPT: &str = "mount --bind \"$1\" /etc/hosts && \
                          mount --bind \"$2\" /etc/nsswitch.conf && shift 2 && exec \"$@\"";
    let sources = names.with_extension("sources");
    fs::write(&sources, "hosts: files\n").unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", SCRIPT])
        .arg("sh")
        .args([names, &sources])
        .arg(program.get_program())
        .args(program.get_args())
        .env_remove("FERRYLOG_DATA");
    command
}

/// 64 kbit/s, bytes that do not compress: most of what the line can carry are records.
#[test]
fn a_thin_line_is_used_for_records_to_seven_tenths_and_more() {
    const RATE: u32 = 64_000 / 8;
    const VALUE: usize = 400;
    let measured = Duration::from_secs(if is_long() { 180 } else { 40 });
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    let relay = kafka.relay(0);
    kafka.create_topic("thin", 4);
    let gateway = Gateway::new();
    let content = |number| content_of(seed, number, VALUE);
    // More than crosses in that time.
    let count = measured.as_secs() * u64::from(RATE) / VALUE as u64 * 3 / 2;
    gateway.send_each("thin", (0..count).map(content));
    relay.limit(RATE);
    let watch = kafka.watch("thin");
    let started = Instant::now();
    let mut drain = gateway.start_drain(&kafka, PATIENCE);
    for _ in 0..4 {
        thread::sleep(measured / 4);
        let (arrived, carried) = (watch.total(), relay.carried_up());
        println!(
            "{:.1?}: {arrived} arrived, {carried} B carried",
            started.elapsed()
        );
    }
    let could = started.elapsed().as_secs_f64() * f64::from(RATE);
    let arrived = watch.total();
    assert!(!drain.has_ended() && arrived < count, "nothing was left");
    let carried = relay.carried_up();
    // The rest goes without the limit.
    relay.pass();
    drain.end().expect(0);
    let status = gateway.status();
    let repeats = copies::check(&kafka, "thin", &status.log_id, count, content);
    assert_eq!(repeats.duplicates, 0);

    // A record is its key, its value and the header that names it.
    let header = "ferry-id".len() + status.log_id.len() + "-1234".len();
    let record = "key-123".len() + VALUE + header;
    let told = |bytes: u64| bytes as f64 / could;
    let of_values = told(arrived * VALUE as u64);
    let of_records = told(arrived * record as u64);
    println!(
        "of {could:.0} B: carried {:.2}, records {of_records:.2}, values alone {of_values:.2}",
        told(carried)
    );
    assert!(of_records >= 0.7, "{of_records:.2}");
}
