//! The configuration as a user was promised it, key by key.
//!
//! `contract.toml` is that promise: every key of it is in effect, or belongs to a part that is named.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::super::keys::LATER;
use super::super::path::{Known, join, look};
use super::{FILE, loaded};
use crate::config::{Environment, Error, Loaded, settle, toml as shown};
use crate::event::EventFormat;
use crate::ship::{OnExhausted, Profile};
use crate::store::Order;
use crate::wal::{Durability, OnFull};

/// With the one key in it that stands there as a comment.
fn contract() -> String {
    let text = include_str!("contract.toml");
    let name = "# encryption_key_file";
    assert!(text.contains(name));
    text.replace(name, "encryption_key_file")
}

const SECRETS: [(&str, &str); 4] = [
    ("KAFKA_KEY", "key"),
    ("KAFKA_SECRET", "hunter2"),
    ("SR_KEY", "key"),
    ("SR_SECRET", "hunter2"),
];

fn read(text: &str) -> Result<Loaded, Error> {
    let environment = Environment::of(SECRETS);
    let key = |_: &Path| Ok(format!("7 {}\n", "0f".repeat(32)));
    settle(Some((Path::new(FILE), text)), &environment, &[], &key)
}

/// Every path that has a value, and every list of tables.
fn leaves(table: &DeTable<'_>, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    for (key, value) in table {
        path.push(key.get_ref().as_ref().to_owned());
        match value.get_ref() {
            DeValue::Table(table) if look(path) == Known::Section => leaves(table, path, found),
            _ => found.push(path.clone()),
        }
        path.pop();
    }
}

/// The contract as far as this version goes: without the keys that belong to other parts.
fn of_this_version() -> String {
    let is_later = |header: &str| {
        let path: Vec<String> = header.split('.').map(Into::into).collect();
        matches!(look(&path), Known::Later(_)) || header == "topics.telemetry"
    };
    let mut text = String::new();
    let mut skips = false;
    for line in contract().lines() {
        let header = line.split_once(']').map(|(header, _)| header);
        if let Some(header) = header.filter(|_| line.starts_with('[')) {
            skips = is_later(header.trim_start_matches('['));
        }
        if !skips {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[test]
fn every_key_of_the_contract_is_one_or_belongs_to_a_part_that_is_named() {
    let text = contract();
    let (table, errors) = DeTable::parse_recoverable(&text);
    assert!(errors.is_empty(), "{errors:?}");
    let mut found = Vec::new();
    leaves(table.get_ref(), &mut Vec::new(), &mut found);
    assert!(found.len() >= 70, "{found:?}");
    let mut later = BTreeSet::new();
    for path in &found {
        match look(path) {
            Known::Key => {}
            Known::Later(_) => assert!(later.insert(join(path))),
            known => panic!("{}: {known:?}", join(path)),
        }
    }
    // Of each that is not here yet the reader is told so, and of nothing else.
    let told = read(&text).unwrap_err();
    let mut refused = BTreeSet::new();
    for problem in &told.problems {
        assert!(problem.reason.contains("belongs to "), "{problem}");
        refused.insert(problem.key.clone().unwrap());
    }
    assert_eq!(refused, later);
    assert_eq!(
        later.len(),
        LATER.len(),
        "no key is put off that nobody was promised"
    );
}

#[test]
fn the_rest_of_the_contract_is_accepted_and_means_what_it_says() {
    let text = of_this_version();
    let loaded = read(&text).unwrap();
    assert_eq!(
        format!("{:?}", loaded.config),
        format!(
            "{:?}",
            read(&shown(&loaded.rows()).replace("\"***\"", "\"hunter2\""))
                .unwrap()
                .config
        ),
        "as it is shown"
    );
    let config = &loaded.config;
    let store = config.store_options();
    let (wal, alarms) = (&store.default.wal, &store.lanes["alarms"]);
    assert_eq!(
        (wal.quota_bytes, wal.on_full),
        (Some(8 << 30), OnFull::Block)
    );
    assert_eq!((alarms.weight, alarms.order), (8, Order::LiveFirst));
    assert_eq!(alarms.wal.durability, Durability::Disk);
    assert_eq!(alarms.expires_after, Some(Duration::from_secs(86_400)));
    assert_eq!(store.tenants["acme"].cluster.as_deref(), Some("audit"));
    let clusters = config.clusters().unwrap();
    assert_eq!(clusters["audit"].bootstrap_servers, "audit.example:9092");
    let main = &clusters["main"].properties;
    for (name, value) in [
        ("client.id", "site-17"),
        ("security.protocol", "SASL_SSL"),
        ("sasl.password", "hunter2"),
    ] {
        assert!(
            main.contains(&(name.into(), value.into())),
            "{name}: {main:?}"
        );
    }
    let ship = config.ship_options();
    assert_eq!(ship.link.profile, Profile::Normal);
    assert_eq!(ship.retry.max_attempts, 10);
    assert!(matches!(ship.retry.on_exhausted, OnExhausted::DeadLetter));
    assert_eq!(ship.retry_overrides.tenants["acme"].max_attempts, Some(3));
    assert_eq!(config.kafka.default_topic.as_deref(), Some("telemetry"));
    let key = store.default.wal.keys.current().unwrap();
    assert_eq!((key.get(), config.keys().current()), (7, Some(key)));
    let events = config.event_options();
    assert_eq!(
        (events.source.as_str(), events.format),
        ("site-17", EventFormat::Json)
    );
    assert_eq!(events.routes.topic_of("user.left"), Some("user-events"));
    assert_eq!(events.routes.topic_of("door.opened"), Some("events"));
}

#[test]
fn a_file_with_nothing_but_the_servers_works() {
    let config = loaded("[kafka]\nbootstrap_servers = \"kafka.example:9092\"").config;
    assert!(config.clusters().is_some());
}
