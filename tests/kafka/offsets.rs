//! `drain --exactly-once --progress offsets`: the same promise, told by the offsets of a group.

use std::path::Path;
use std::time::{Duration, Instant};

use ferrylog::ship::exactly_once::ProgressIn;

use crate::exactly_once::{
    EXACTLY_ONCE, check, check_a_moved_store_goes_on, copy, kill_in_commit, kill_in_doubt, ship,
};
use crate::gateway::Gateway;
use crate::kafka::{Kafka, Operation, Resource, USER};
use crate::program::{Ran, run};
use crate::random::{self, Random};

const IN_OFFSETS: [&str; 3] = [EXACTLY_ONCE, "--progress", "offsets"];
const IN_TOPIC: [&str; 3] = [EXACTLY_ONCE, "--progress", "topic"];
const FEW: [&str; 2] = ["--transaction-records", "1000"];

fn small(progress: [&'static str; 3]) -> Vec<&'static str> {
    [&progress[..], &FEW].concat()
}

/// The group that a gateway's offsets are of.
fn group(gateway: &Gateway) -> String {
    format!("ferrylog.{}.default", gateway.status().log_id)
}

fn drain(data: &Path, kafka: &Kafka) -> Ran {
    let servers = kafka.bootstrap_servers();
    let arguments = ["drain", "--json", "--bootstrap-servers", &servers];
    run(data, arguments.into_iter().chain(IN_OFFSETS))
}

/// One run in three keeps its progress in the topic: what was begun is told from where it was kept.
#[test]
fn kills_inside_the_commit_lose_and_repeat_nothing_wherever_the_progress_is() {
    const COUNT: u64 = 40_000;
    const KILLS: u64 = 18;
    let seed = random::seed();
    let mut random = Random(seed);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 4);
    let mut killed = 0;
    for kill in 0..KILLS {
        let progress = if kill % 3 == 2 { IN_TOPIC } else { IN_OFFSETS };
        let drain = gateway.start_drain(&kafka, &small(progress));
        // Before EndTxn, inside of it, and after it before the cursor.
        let delay = Duration::from_micros(random.below(40_000));
        killed += u64::from(kill_in_commit(&gateway, drain, delay));
    }
    let queued = gateway.status().count("queued");
    println!("{killed} kills, {queued} of {COUNT} still queued");
    assert!(queued > 0 && killed == KILLS, "it was killed in the middle");
    gateway.drain(&kafka, &IN_OFFSETS).expect(0);
    check(&kafka, "numbers", &gateway, seed, COUNT);
    let told = gateway.drain(&kafka, &IN_OFFSETS).expect_json(0).remove(0);
    assert_eq!(told["shipped"], 0, "{told}");
}

#[test]
fn a_store_that_moved_goes_on_and_an_old_backup_stops_until_it_is_another_gateway() {
    const COUNT: u64 = 2_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 2);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    gateway.drain(&kafka, &IN_OFFSETS).expect(0);
    check_a_moved_store_goes_on(&kafka, seed, &IN_OFFSETS);

    gateway.send("numbers", seed ^ 1, COUNT);
    let (backup, _backup_dir) = copy(&gateway);
    gateway.drain(&kafka, &IN_OFFSETS).expect(0);
    let before = kafka.watch("numbers").total();
    let message = drain(&backup, &kafka).expect_failure(1, "foreign");
    println!("{message}");
    assert_eq!(kafka.watch("numbers").total(), before, "it sent something");
    gateway.send("numbers", seed ^ 2, COUNT);
    gateway.drain(&kafka, &IN_OFFSETS).expect(0);

    run(&backup, ["repair", "--json", "--new-identity"]).expect_json(0);
    let told = drain(&backup, &kafka).expect_json(0).remove(0);
    assert_eq!(told["shipped"], COUNT, "{told}");
    assert_eq!(kafka.consume("numbers").len() as u64, 4 * COUNT);
}

#[test]
fn of_two_processes_with_one_identity_one_stops_and_nothing_is_lost() {
    const COUNT: u64 = 40_000;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 2);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let (clone, _dir) = copy(&gateway);
    let watch = kafka.watch("numbers");
    let original = gateway.start_drain(&kafka, &small(IN_OFFSETS));
    watch.wait_for_growth(0, COUNT / 20);
    let message = drain(&clone, &kafka).expect_failure(1, "foreign");
    println!("{message}");
    original.end().expect(0);
    check(&kafka, "numbers", &gateway, seed, COUNT);
}

/// The cluster forgot it, as it does after a week without a transaction.
#[test]
fn where_the_group_is_gone_a_resolved_store_goes_on_alarmed_and_one_in_doubt_asks() {
    const COUNT: u64 = 5_000;
    let seed = random::seed();
    let kafka = Kafka::with().relayed().start();
    kafka.create_topic("numbers", 2);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    gateway.drain(&kafka, &IN_OFFSETS).expect(0);
    kafka.delete_group(&group(&gateway));
    gateway.send("numbers", seed ^ 1, COUNT);
    let ran = gateway.drain(&kafka, &IN_OFFSETS);
    assert!(ran.err.contains("does not have the progress"), "{ran:?}");
    ran.expect(0);
    assert_eq!(kafka.consume("numbers").len() as u64, 2 * COUNT);
    // It was laid anew, and tells again.
    gateway.send("numbers", seed ^ 2, COUNT);
    let ran = gateway.drain(&kafka, &IN_OFFSETS);
    assert!(!ran.err.contains("progress"), "{ran:?}");
    ran.expect(0);

    for (decision, is_sent) in [("sent", true), ("not-sent", false)] {
        let gateway = Gateway::new();
        gateway.send("numbers", seed, COUNT);
        kill_after_the_base(&gateway, &kafka);
        kafka.delete_group(&group(&gateway));
        let ran = gateway.drain(&kafka, &IN_OFFSETS);
        println!("{}", ran.expect_failure(1, "in_doubt"));
        let queued = gateway.status().count("queued");
        run(&gateway.data, ["repair", "--json", "--in-doubt", decision]).expect(0);
        let left = gateway.status().count("queued");
        assert_eq!(left < queued, is_sent, "{left} of {queued}");
        let before = kafka.consume("numbers").len() as u64;
        gateway.drain(&kafka, &IN_OFFSETS).expect(0);
        assert_eq!(kafka.consume("numbers").len() as u64, before + left);
    }
}

/// Kills a drain with a transaction of records in doubt, whose outcome is decided by then.
fn kill_after_the_base(gateway: &Gateway, kafka: &Kafka) {
    kill_in_doubt(gateway, kafka, &small(IN_OFFSETS), 1);
    // Whatever is open is ended, as the next start would.
    kafka.take_over(&group(gateway));
}

/// A base that was killed is no doubt, and no alarm.
#[test]
fn a_first_transaction_that_is_killed_is_told_from_its_base() {
    const COUNT: u64 = 3_000;
    const KILLS: u64 = 8;
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 2);
    for kill in 0..KILLS {
        let gateway = Gateway::new();
        gateway.send("numbers", seed, COUNT);
        let drain = gateway.start_drain(&kafka, &small(IN_OFFSETS));
        let delay = Duration::from_millis(kill % 4 * 12);
        assert!(kill_in_commit(&gateway, drain, delay));
        let ran = gateway.drain(&kafka, &IN_OFFSETS);
        assert!(!ran.err.contains("progress"), "{ran:?}");
        ran.expect(0);
        let id = gateway.status().log_id;
        let mut once = std::collections::BTreeSet::new();
        kafka.consume_each("numbers", |record| {
            let ferry_id = record.header("ferry-id").unwrap();
            if ferry_id.starts_with(&id) {
                assert!(
                    once.insert(ferry_id.to_owned()),
                    "{ferry_id} is there twice"
                );
            }
        });
        assert_eq!(once.len() as u64, COUNT);
    }
}

#[test]
fn an_open_transaction_on_the_same_offsets_is_waited_for() {
    const COUNT: u64 = 20_000;
    const DEAD_FOR: Duration = Duration::from_secs(12);
    let seed = random::seed();
    let kafka = Kafka::start();
    kafka.create_topic("numbers", 2);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let drain = gateway.start_drain(&kafka, &small(IN_OFFSETS));
    kafka.watch("numbers").wait_for_growth(0, 1000);
    assert!(kill_in_commit(&gateway, drain, Duration::from_millis(5)));
    kafka.leave_offsets_open(&group(&gateway), "ferrylog-progress", 16, DEAD_FOR);
    let died = Instant::now();
    let mut told = Vec::new();
    let set = |options: &mut ferrylog::ship::exactly_once::ExactlyOnceOptions| {
        options.progress = ProgressIn::Offsets;
    };
    let committed = ship(&gateway, &kafka, set, &mut |now| {
        told.extend(now.why.clone().filter(|why| why.contains("resolving")));
    });
    println!("{:?}, {:?}: {committed:?}", died.elapsed(), told.last());
    assert!(died.elapsed() > DEAD_FOR, "decided while it was open");
    assert!(told.len() > 1, "it does not say what it waits for");
    check(&kafka, "numbers", &gateway, seed, COUNT);
}

#[test]
fn a_gateway_that_may_not_use_its_group_says_so_and_ships_nothing() {
    const COUNT: u64 = 100;
    let seed = random::seed();
    let kafka = Kafka::with().with_acls().start();
    kafka.create_topic("numbers", 1);
    kafka.create_topic("ferrylog-progress", 16);
    let gateway = Gateway::new();
    gateway.send("numbers", seed, COUNT);
    let group = group(&gateway);
    kafka.grant(USER, Resource::Topic("numbers"), Operation::Write);
    kafka.grant(USER, Resource::TransactionalId(&group), Operation::Write);
    kafka.grant(
        USER,
        Resource::Topic("ferrylog-progress"),
        Operation::Describe,
    );
    let more: Vec<String> = kafka
        .client_properties()
        .into_iter()
        .flat_map(|(name, value)| ["--property".to_owned(), format!("{name}={value}")])
        .collect();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let arguments = [&IN_OFFSETS[..], &more].concat();
    let message = gateway
        .drain(&kafka, &arguments)
        .expect_failure(1, "progress_topic");
    println!("{message}");
    assert!(message.contains("GroupAuthorizationFailed"), "{message}");
    // The group alone is not enough: a transaction's offsets need the topic, too.
    kafka.grant(USER, Resource::Group(&group), Operation::Read);
    let message = gateway
        .drain(&kafka, &arguments)
        .expect_failure(1, "progress_topic");
    println!("{message}");
    assert!(message.contains("TopicAuthorizationFailed"), "{message}");
    assert_eq!(gateway.status().count("queued"), COUNT);
    kafka.grant(USER, Resource::Topic("ferrylog-progress"), Operation::Read);
    gateway.drain(&kafka, &arguments).expect(0);
    gateway.status().expect_all_shipped(COUNT);
}
