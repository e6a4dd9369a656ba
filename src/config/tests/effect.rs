//! A key that is listed does something.

use std::path::Path;

use serde_json::Value as Json;

use super::super::file;
use super::super::value::Kind;
use super::{EVERY_SECTION, FILE, loaded, variable_of};
use crate::config::{Config, Environment, KeyFile, Loaded};

/// A value in TOML that is another one than this.
fn other(before: &Loaded, key: &str, value: &Json) -> String {
    match (key, value) {
        ("link.backoff.multiplier" | "retry.backoff.multiplier", _) => "3.5".into(),
        ("kafka.default_topic" | "kafka.bootstrap_servers", _) => "\"other\"".into(),
        ("events.source" | "events.version" | "kafka.gateway", _) => "\"other\"".into(),
        ("link.ping_url" | "link.ping_body" | "store.dir", _) => "\"http://other/\"".into(),
        ("dead_letter.topic", _) => "\"other\"".into(),
        ("shipping.drain_window", _) => "\"01:00-02:00\"".into(),
        ("lanes.a.topics" | "link.targets" | "clusters.b.link.targets", _) => "[\"other\"]".into(),
        ("lanes.a.quota" | "store.quota" | "tenants.c.quota", _) => "\"2 GiB\"".into(),
        ("clusters.b.bootstrap_servers" | "store.tenant_header", _) => "\"other\"".into(),
        ("clusters.b.link.enabled", _) => "false".into(),
        (_, Json::Bool(is)) => (!is).to_string(),
        (_, Json::Number(_)) => "77".into(),
        (key, Json::String(text)) if text.contains("iB") || text == "unlimited" => {
            let size = if key == "store.segment_size" {
                "4 MiB"
            } else {
                "77 MiB"
            };
            format!("\"{size}\"")
        }
        (key, Json::Null) => match before.config.clone().setting_mut(key).unwrap().kind() {
            Kind::Count => "7".into(),
            Kind::Factor => "3.5".into(),
            Kind::Bool => "true".into(),
            Kind::Text(_) => "\"other\"".into(),
            Kind::Words(words) => format!("\"{}\"", words[1]),
            _ => "\"7s\"".into(),
        },
        (_, Json::String(text)) if text.starts_with(|c: char| c.is_ascii_digit()) => {
            "\"7s\"".into()
        }
        (key, Json::String(text)) => {
            let kind = before.config.clone().setting_mut(key).unwrap().kind();
            let Kind::Words(words) = kind else {
                panic!("{key}")
            };
            format!("\"{}\"", words.iter().find(|word| *word != text).unwrap())
        }
        (key, value) => panic!("{key} {value}"),
    }
}

/// Every key changed to something else changes what the rooms below are given, while they run or when
/// they are opened.
#[test]
fn no_key_is_without_effect() {
    let live = |config: &Config| {
        let ship = config.exactly_once_options();
        let rest = (config.is_exactly_once(), config.clusters());
        format!("{ship:?} {rest:?}")
    };
    let opened = |config: &Config| {
        let rest = (&config.store.dir, &config.kafka.default_topic);
        let (store, events) = (config.store_options(), config.event_options());
        format!("{store:?} {events:?} {rest:?}")
    };
    let before = loaded(EVERY_SECTION);
    for row in before.rows() {
        let value = other(&before, &row.key, &row.value);
        // Contradictions are not what is looked for here.
        let mut config = before.config.clone();
        let changed = format!("{} = {value}", row.key);
        let parsed = file::read(Path::new(FILE), &changed, &Environment::default());
        let given = parsed
            .0
            .into_iter()
            .find(|given| given.key == row.key)
            .unwrap();
        assert!(
            config.setting_mut(&row.key).unwrap().set(&given.raw),
            "{changed}"
        );
        if let Some(file) = &mut config.store.encryption_key_file {
            // Keys are read when all is known that was given.
            *file = KeyFile::new(file.path(), &format!("7 {}", "0f".repeat(32))).unwrap();
        }
        let is_live = live(&config) != live(&before.config);
        let is_opened = opened(&config) != opened(&before.config);
        assert!(is_live || is_opened, "{changed}");
        // What counts only when a store is opened is told to who would change it while it runs.
        let expected: &[&str] = if is_opened { &[&row.key] } else { &[] };
        assert_eq!(before.config.reopening(&config), expected, "{changed}");
    }
}

/// Also one that has no value by itself.
#[test]
fn every_key_is_changed_by_its_variable() {
    let before = loaded(EVERY_SECTION);
    for row in before.rows() {
        let value = other(&before, &row.key, &row.value);
        let value = value.trim_matches(['"', '[', ']']);
        let variable = variable_of(&row.key);
        let (given, problems) = Environment::of([(variable.as_str(), value)]).read();
        assert!(problems.is_empty(), "{variable}: {problems:?}");
        let mut config = before.config.clone();
        let is_set = config.setting_mut(&row.key).unwrap().set(&given[0].raw);
        assert!(is_set && given[0].key == row.key, "{variable}");
        assert_ne!(
            format!("{config:?}"),
            format!("{:?}", before.config),
            "{variable}"
        );
    }
}
