//! `ferrylog drain`: ships what is there, then ends.
//!
//! Owns the arguments and the words; the loop is the shipper's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::json;

use super::{
    Global,
    failure::{self, Ended, Exit, Failure},
    output::{self, Progress},
    signals,
    status::Records,
};
use crate::{
    config::{Argument, Secret, duration},
    kafka,
    ship::{self, Counters, Drained, Held, LinkState, exactly_once::Halt},
    store::{Lane, MAIN_CLUSTER, StoreView},
};

/// Ship what the store holds to Kafka, then end
///
/// Each configured cluster is shipped to by itself, and the worst of them is the exit code. 0: the store is
/// empty. 1: records, or dead letters to be sent again, remain because Kafka refuses them, or because of a
/// signal; or some could not be read any more, which are named. 3: Kafka could not be reached. Whatever the
/// end, what remains is shipped by the next run. A record that is due later waits, and does not count.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Brokers to start from, as host:port with commas between
    #[arg(long, value_name = "B")]
    bootstrap_servers: Option<String>,

    /// How long to go without a usable link before giving up: seconds, or with a unit, such as 5m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = timeout)]
    timeout: Duration,

    /// In transactions: whoever reads what is committed sees each record once
    #[arg(long)]
    exactly_once: bool,

    /// Where the progress of the transactions is kept: a record in the topic `ferrylog-progress`, or the
    /// offsets of a group under it, which Kafka forgets after a week without a transaction
    #[arg(long, value_name = "WHERE", value_parser = ["topic", "offsets"])]
    progress: Option<String>,

    /// Most records in a transaction [default: 50000]
    #[arg(long, value_name = "COUNT")]
    transaction_records: Option<u64>,

    /// Topic that gets a copy of each dead letter; {topic} in it stands for the record's own
    #[arg(long, value_name = "NAME")]
    dead_letter_topic: Option<String>,

    /// How a copy tells why the record died: in headers, in those of Kafka Connect, or as one JSON object
    #[arg(long, value_name = "STYLE", value_parser = ["native", "connect", "envelope"])]
    dead_letter_style: Option<String>,

    /// A librdkafka property, for TLS and SASL for example; may be given many times
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    property: Vec<(String, Secret)>,
}

impl Arguments {
    /// What is said here in place of the configuration.
    pub(super) fn configuration(&self) -> Vec<Argument> {
        let exactly_once = self.exactly_once.then(|| "exactly_once".to_owned());
        let records = self.transaction_records.map(|count| count.to_string());
        let given = [
            (
                "kafka.bootstrap_servers",
                "--bootstrap-servers",
                self.bootstrap_servers.clone(),
            ),
            ("kafka.delivery", "--exactly-once", exactly_once),
            ("kafka.progress", "--progress", self.progress.clone()),
            ("kafka.txn.max_records", "--transaction-records", records),
            (
                "dead_letter.topic",
                "--dead-letter-topic",
                self.dead_letter_topic.clone(),
            ),
            (
                "dead_letter.style",
                "--dead-letter-style",
                self.dead_letter_style.clone(),
            ),
        ];
        let argument = |(key, option, value): (&str, _, Option<String>)| {
            let key = key.to_owned();
            value.map(|value| Argument { key, value, option })
        };
        let properties = self.property.iter().map(|(name, value)| Argument {
            key: format!("kafka.properties.{name}"),
            value: value.reveal().to_owned(),
            option: "--property",
        });
        given
            .into_iter()
            .filter_map(argument)
            .chain(properties)
            .collect()
    }
}

fn property(text: &str) -> Result<(String, Secret), &'static str> {
    // The value may be a secret: what is wrong is told without it.
    let (name, value) = text.split_once('=').ok_or("it has no `=`")?;
    Ok((name.into(), Secret::new(value)))
}

fn timeout(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().map(Duration::from_secs);
    let timeout = seconds.ok().or_else(|| duration(text));
    timeout.ok_or("use seconds, or a duration such as 90s or \"1h 30m\"")
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<Exit, Ended> {
    let config = &global.loaded.config;
    let clusters = config.clusters().ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "configuration",
            "no bootstrap servers are given",
        )
        .next(
            "name them with --bootstrap-servers, or in the configuration: kafka.bootstrap_servers",
        )
    })?;
    for settings in clusters.values() {
        settings.check().map_err(|error| of_kafka(&error))?;
    }
    let stop = signals::stop_flag()?;
    let store_failure = |error| failure::of_store(&error, &global.data);
    // Looked at first, because opening would make a store where there is none.
    StoreView::open_with(&global.data, global.keys()).map_err(store_failure)?;
    let store = super::open_store(global)?;
    let mut lanes = store.lanes().iter();
    let mut is_whole = lanes.all(|lane| lane.opened().gaps.is_empty());

    // What is due when this begins goes along; what is not, waits. Why it did not go is told at the end.
    drop(store.fire_due(&stop));

    let mut progress = Progress::new("shipping");
    let mut newest: BTreeMap<String, ship::Progress> = BTreeMap::new();
    let mut down = BTreeSet::new();
    let mut show = |cluster: &str, now: &ship::Progress| {
        is_whole &= now.lost.is_empty();
        for lost in &now.lost {
            super::tell_lost(global, &lost.lane, &lost.gap);
        }
        tell_link(global, cluster, now, &mut down);
        newest.insert(cluster.into(), now.clone());
        let shipped: u64 = newest.values().map(|now| now.shipped).sum();
        let queued: u64 = newest.values().map(|now| now.queued).sum();
        progress.records(shipped, Some(shipped + queued));
        progress.message(&links(&newest));
    };
    let mut delivery = config.delivery();
    delivery.ship_mut().timeout = Some(arguments.timeout);
    let ended = ship::drain_all(&store, &clusters, &delivery, &stop, &mut show);
    drop(progress);
    let records = Records::of(&store.totals());
    let mut failures = Vec::new();
    let mut all = Shipped::default();
    for (cluster, ended) in ended {
        match ended {
            Ok(ended) => {
                tell_alarm(global, ended.alarm);
                all.add(cluster, ended.drained);
            }
            Err(error) => {
                let failure = of_cluster(&cluster, of_ship(&error, global));
                failures.push(failure.fact(&format!("{} in the store", records.waiting())));
            }
        }
    }
    for lane in ship::lanes_of_none(&store, &clusters) {
        failures.push(nowhere(lane));
    }
    failures.extend(store.scheduled().why.map(|why| unfired(&why)));
    store.close().map_err(store_failure)?;
    finish(global, &all, failures, &records, is_whole)
}

/// Tells how it ended with each cluster; the worst is told last, and its code is the command's.
fn finish(
    global: &Global,
    all: &Shipped,
    mut failures: Vec<Failure>,
    records: &Records,
    is_whole: bool,
) -> Result<Exit, Ended> {
    let told = match all.clusters.is_empty() {
        true => Ok(Exit::Done),
        false => tell(global, all, records, failures.is_empty()),
    };
    let exit = match told {
        Ok(exit) if is_whole => exit,
        Ok(_) => Exit::Wrong,
        Err(Ended::Failed(failure)) => {
            failures.push(*failure);
            Exit::Wrong
        }
        Err(closed) => return Err(closed),
    };
    failures.sort_by_key(|failure| failure.exit as u8);
    let Some(worst) = failures.pop() else {
        return Ok(exit);
    };
    failures
        .iter()
        .for_each(|failure| failure.tell(global.json));
    Err(worst.into())
}

/// Tells once that a link went, and once that it is back, where no bar shows it.
fn tell_link(global: &Global, cluster: &str, now: &ship::Progress, down: &mut BTreeSet<String>) {
    let is_news = match now.link_state {
        LinkState::Up => down.remove(cluster),
        LinkState::Down | LinkState::Blocked(_) => down.insert(cluster.to_owned()),
        LinkState::Disabled | LinkState::Unknown | LinkState::Probing => false,
    };
    if is_news && !global.json && !io::stderr().is_terminal() {
        // Where standard error is closed, nobody wants to know.
        let _ = writeln!(io::stderr(), "ferrylog: link to {cluster}: {}", now.link);
    }
}

/// The links in words.
fn links(newest: &BTreeMap<String, ship::Progress>) -> String {
    let told = newest.iter().map(|(cluster, now)| match newest.len() {
        1 => now.link.clone(),
        _ => format!("{cluster}: {}", now.link),
    });
    told.collect::<Vec<_>>().join("; ")
}

/// Names the cluster that a failure is about.
fn of_cluster(cluster: &str, failure: Failure) -> Failure {
    match cluster {
        MAIN_CLUSTER => failure,
        _ => failure.context(&format!("cluster {cluster}")),
    }
}

/// Names a lane whose cluster is not configured.
fn nowhere(lane: &Lane) -> Failure {
    let cluster = lane.cluster();
    let message = format!(
        "lane {} holds {} for the cluster `{cluster}`, which is not configured",
        lane.name(),
        output::count(lane.totals().queued, "record"),
    );
    Failure::new(Exit::Wrong, "no_cluster", message).next(format!(
        "say where it is, in the configuration: [clusters.{cluster}]"
    ))
}

/// Names what is due and did not get to its lane.
fn unfired(why: &str) -> Failure {
    let message = format!("what is due does not get to its lane: {why}");
    let next =
        "nothing is lost: configure that lane, or another one of its cluster, and drain again";
    Failure::new(Exit::Wrong, "scheduled", message).next(next)
}

/// What was shipped, to each cluster and to all.
#[derive(Default)]
struct Shipped {
    clusters: Vec<(String, Drained)>,
    counters: Counters,
    held: Vec<Held>,
}

impl Shipped {
    fn add(&mut self, cluster: String, drained: Drained) {
        self.counters.add(&drained.counters);
        self.held.extend(drained.held.iter().cloned());
        self.clusters.push((cluster, drained));
    }

    fn is_empty(&self) -> bool {
        self.clusters.iter().all(|(_, drained)| drained.is_empty)
    }

    /// How much to which cluster, if there are several.
    fn each(&self) -> Vec<(&'static str, String)> {
        let each = self.clusters.iter().map(|(name, drained)| {
            let told = output::count(drained.shipped, "record");
            ("to", format!("{name}: {told}"))
        });
        each.filter(|_| self.clusters.len() > 1).collect()
    }

    fn elapsed(&self) -> Duration {
        let all = self.clusters.iter().map(|(_, drained)| drained.elapsed);
        all.max().unwrap_or_default()
    }
}

fn tell(
    global: &Global,
    drained: &Shipped,
    records: &Records,
    is_well: bool,
) -> Result<Exit, Ended> {
    let counters = &drained.counters;
    if global.json {
        output::json(&json!({
            "shipped": counters.shipped,
            "bytes": counters.shipped_bytes,
            "seconds": drained.elapsed().as_secs_f64(),
            "empty": drained.is_empty() && is_well,
            "dead_lettered": counters.dead_lettered,
            "replayed": counters.replayed,
            "replays_refused": counters.replays_refused,
            "copied": counters.copied,
            "copies_refused": counters.copies_refused,
            "held": drained.held.iter().map(|held| json!({
                "topic": &*held.topic,
                "partition": held.partition,
                "kind": held.why.kind(),
                "why": held.why.to_string(),
                "seconds": held.lasted.as_secs(),
            })).collect::<Vec<_>>(),
            "clusters": drained.clusters.iter().map(|(name, drained)| json!({
                "name": name,
                "shipped": drained.shipped,
                "bytes": drained.shipped_bytes,
                "empty": drained.is_empty,
            })).collect::<Vec<_>>(),
            "records": records,
        }))?;
    } else {
        let rows = [
            (
                "shipped",
                format!(
                    "{}, {}, {}",
                    output::count(counters.shipped, "record"),
                    output::bytes(counters.shipped_bytes),
                    output::rate(counters.shipped, drained.elapsed()),
                ),
            ),
            ("records", records.line()),
        ];
        let letters = letters(counters);
        let rows = rows
            .into_iter()
            .chain(drained.each())
            .chain(letters.map(|told| ("dead letters", told)));
        output::table(&mut output::stdout(), &rows.collect::<Vec<_>>())?;
    }
    if !drained.held.is_empty() {
        return Err(held(&drained.held, records).into());
    }
    if drained.is_empty() {
        let refused = counters.dead_lettered + counters.replays_refused;
        return Ok(if refused > 0 { Exit::Wrong } else { Exit::Done });
    }
    Err(Failure::new(
        Exit::Wrong,
        "stopped",
        format!("stopped by a signal; {} in the store", records.waiting()),
    )
    .next("run it again: it goes on from there")
    .into())
}

/// What happened to dead letters, as far as anything did.
fn letters(counters: &Counters) -> Option<String> {
    let told = [
        (counters.dead_lettered, "new"),
        (counters.replayed, "sent again"),
        (counters.replays_refused, "refused once more"),
        (counters.copied, "copied"),
        (counters.copies_refused, "refused as copies"),
    ];
    let told: Vec<String> = told
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", output::number(count)))
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// Names what Kafka does not take, each with its reason.
fn held(held: &[Held], records: &Records) -> Failure {
    let told: Vec<String> = held.iter().map(ToString::to_string).collect();
    let mut message = told.join("; ");
    // Else only dead letters wait.
    if records.queued > 0 {
        message = format!("{message}; {} in the store", records.waiting());
    }
    let kind = match held {
        [only] => only.why.kind(),
        _ => "held",
    };
    Failure::new(Exit::Wrong, kind, message)
        .next("correct what the cluster complains about, then run it again")
}

/// Tells what a person should know although shipping went on.
fn tell_alarm(global: &Global, alarm: Option<String>) {
    if let Some(alarm) = alarm {
        Failure::new(Exit::Wrong, "alarm", alarm)
            .next("nothing is lost; look for another gateway with a copy of this store")
            .tell(global.json);
    }
}

fn of_halt(halt: &Halt) -> (Exit, &'static str, &'static str) {
    match halt {
        Halt::InDoubt { .. } => (
            Exit::Wrong,
            "in_doubt",
            "look whether the cluster has them, then `ferrylog repair --in-doubt sent` or `not-sent`",
        ),
        Halt::Foreign { .. } => (
            Exit::Wrong,
            "foreign",
            "stop the other gateway; if both shall live: `ferrylog repair --new-identity` on one, which sends again what its \
             store still holds",
        ),
        Halt::ProgressTopic { .. } => (
            Exit::Wrong,
            "progress_topic",
            "allow this client to read and write it (with --progress offsets to read it, and to read the group named like the transactional \
             id), or create it: `kafka-topics.sh --create --topic ferrylog-progress \
             --partitions 16 --config cleanup.policy=compact --config segment.bytes=16777216`",
        ),
        Halt::Transactions(_) => (
            Exit::Wrong,
            "transactions",
            "allow this client to use its transactional id, then run it again",
        ),
    }
}

/// Tells why shipping ended; the error says itself what to do where Kafka is the cause.
pub(super) fn of_ship(error: &ship::Error, global: &Global) -> Failure {
    let (exit, kind, next) = match error {
        ship::Error::Unreachable { .. } => (
            Exit::Unreachable,
            "unreachable",
            "look at the address and the network, or give it more time with --timeout",
        ),
        ship::Error::Held { .. } => (
            Exit::Wrong,
            "held",
            "correct what the cluster complains about, then run it again",
        ),
        ship::Error::Option { .. } => (Exit::Usage, "usage", "correct the option"),
        ship::Error::ExactlyOnce(halt) => of_halt(halt),
        ship::Error::Kafka(error) => return of_kafka(error),
        ship::Error::Store(error) => return failure::of_store(error, &global.data),
        ship::Error::Thread(_) => (
            Exit::Unreachable,
            "threads",
            "allow this user or service more threads, then run it again",
        ),
    };
    Failure::new(exit, kind, failure::chain(error)).next(next)
}

pub(super) fn of_kafka(error: &kafka::Error) -> Failure {
    let (exit, kind, next) = match error {
        kafka::Error::Forbidden { .. } | kafka::Error::Configuration { .. } => (
            Exit::Usage,
            "configuration",
            "correct the property, then run it again",
        ),
        kafka::Error::Unreachable { .. } => (
            Exit::Unreachable,
            "unreachable",
            "look at the address and the network",
        ),
        kafka::Error::UnknownTopic { .. } => (
            Exit::Wrong,
            "unknown_topic",
            "create the topic, then run it again",
        ),
        kafka::Error::Refused { .. } => (
            Exit::Wrong,
            "refused",
            "correct what the cluster complains about, then run it again",
        ),
    };
    Failure::new(exit, kind, failure::chain(error)).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_split_at_the_first_equals_sign_and_never_repeated_in_an_error() {
        let good = property("sasl.password=a=b").unwrap();
        assert_eq!((good.0.as_str(), good.1.reveal()), ("sasl.password", "a=b"));
        assert_eq!(property("hunter2").unwrap_err(), "it has no `=`");
    }

    #[test]
    fn a_timeout_without_a_unit_is_in_seconds() {
        for (text, expected) in [("90", 90), ("90s", 90), ("1h 30m", 5400), ("0", 0)] {
            assert_eq!(timeout(text), Ok(Duration::from_secs(expected)));
        }
        for wrong in ["", "soon", "-1", "1.5", "5 parsecs"] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
    }
}
