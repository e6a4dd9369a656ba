//! What is wrong although each value by itself is not.
//!
//! Owns the contradictions between keys. What a room below refuses is its own rule: it is asked, and
//! its answer told with the place. Must not know the disk or the network.

use std::fmt::Display;

use serde_json::Value as Json;

use super::error::Problem;
use super::keys::{Config, KEY_FILE, LANES};
use super::load::Loaded;
use super::path;
use super::value::Value;
use crate::event;
use crate::kafka::{self, Settings};
use crate::message;
use crate::ship::exactly_once;
use crate::ship::{LinkOptions, RetryOverride, RetryPolicy};
use crate::store::MAIN_CLUSTER;
use crate::{ship, store, wal};

/// Any address: what is checked with it is about something else.
const SOMEWHERE: &str = "localhost";

const NO_NAME: &str = "a name is 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'";

/// All of it.
pub(super) fn problems(loaded: &Loaded) -> Vec<Problem> {
    let mut check = Check {
        loaded,
        problems: Vec::new(),
    };
    check.kafka();
    check.clusters();
    check.exactly_once();
    check.link();
    check.retry();
    check.store();
    check.events();
    check.dead_letter();
    check.problems
}

struct Check<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn config(&self) -> &Config {
        &self.loaded.config
    }

    fn add(&mut self, key: &str, reason: impl Into<String>) {
        self.problems
            .push(Problem::new(self.loaded.place(key), key, reason));
    }

    /// Tells what a room below says, which may repeat the value.
    fn refused(&mut self, key: &str, why: impl Display) {
        if self.loaded.is_substituted(key) {
            return self.add(key, "is refused, with what the variable in it holds");
        }
        self.add(key, format!("is refused: {why}"));
    }

    /// Whether a value is another than the default. One that repeats the default contradicts nothing.
    fn is_changed(&self, key: &str) -> bool {
        let default = match key {
            // Of a link that is metered it is another one.
            "kafka.txn.max_time" => {
                let mut options = self.config().exactly_once_options();
                options.max_time = None;
                Some(Value::shown(&options.max_time()))
            }
            key => Config::default().value(key),
        };
        // None is none, said or not.
        let some = |value: Option<Json>| value.filter(|value| !value.is_null() && value != "");
        self.loaded.is_given(key) && some(self.config().value(key)) != some(default)
    }

    fn kafka(&mut self) {
        let config = self.config().clone();
        if let Some(servers) = &config.kafka.bootstrap_servers
            && let Err(error) = Settings::new(servers).check_each()
        {
            self.refused("kafka.bootstrap_servers", error);
        }
        let of_others = config.cluster_properties.iter();
        let of_others = of_others.map(|(cluster, properties)| (Some(cluster.as_str()), properties));
        let all = [(None, &config.properties)].into_iter().chain(of_others);
        if let Some(gateway) = &config.kafka.gateway
            && message::check_topic(gateway).is_err()
        {
            self.refused("kafka.gateway", NO_NAME);
        }
        let each = all.flat_map(|(cluster, properties)| {
            let section = path::properties(cluster);
            properties
                .iter()
                .map(move |(name, value)| (format!("{section}.{name}"), name, value))
        });
        for (key, name, value) in each {
            let alone = Settings {
                properties: vec![(name.clone(), value.reveal().to_owned())],
                ..Settings::new(SOMEWHERE)
            };
            match alone.check_each() {
                Ok(()) => {}
                Err(kafka::Error::Forbidden { reason, .. }) => {
                    self.add(&key, format!("cannot be set: {reason}"));
                }
                Err(kafka::Error::Configuration { reason }) => self.refused(&key, reason),
                Err(error) => self.refused(&key, error),
            }
        }
        if self.problems.is_empty() {
            self.properties_together();
        }
        if let Some(topic) = &config.kafka.default_topic
            && let Err(error) = message::check_topic(topic)
        {
            self.refused("kafka.default_topic", error);
        }
    }

    /// What contradicts is told of the property that librdkafka names, or of the first one.
    fn properties_together(&mut self) {
        for (cluster, settings) in self.config().clusters().unwrap_or_default() {
            let Err(error) = settings.check() else {
                continue;
            };
            let reason = error.to_string();
            let own = Some(cluster.as_str()).filter(|cluster| *cluster != MAIN_CLUSTER);
            let names = || settings.properties.iter().map(|(name, _)| name);
            let named = names().find(|name| reason.contains(name.as_str()));
            if let Some(name) = named.or_else(|| names().next()) {
                let key = format!("{}.{name}", path::properties(own));
                self.refused(&key, reason);
            }
        }
    }

    /// Every cluster is somewhere, and every one that is named is there.
    fn clusters(&mut self) {
        let config = self.config().clone();
        for (name, cluster) in &config.clusters {
            let section = format!("clusters.{name}");
            let key = format!("{section}.bootstrap_servers");
            if name == MAIN_CLUSTER {
                self.add(&section, "is the cluster of [kafka]");
            } else if let Some(servers) = &cluster.bootstrap_servers {
                if let Err(error) = Settings::new(servers).check_each() {
                    self.refused(&key, error);
                }
            } else {
                self.add(&section, "needs bootstrap_servers");
            }
        }
        let names = [MAIN_CLUSTER].into_iter();
        let names: Vec<&str> = names
            .chain(config.clusters.keys().map(String::as_str))
            .collect();
        for section in config.named() {
            let key = format!("{section}.cluster");
            let named = config.value(&key);
            let Some(named) = named.as_ref().and_then(|value| value.as_str()) else {
                continue;
            };
            if !names.contains(&named) {
                let names = names.join(", ");
                self.add(&key, format!("is no cluster; allowed there: {names}"));
            }
        }
    }

    fn exactly_once(&mut self) {
        let options = self.config().exactly_once_options();
        if self.config().is_exactly_once() {
            if let Some(reason) = options.too_slow() {
                self.add("kafka.txn.max_time", reason);
            }
            let of_no_use = "is of no use with kafka.delivery = \"exactly_once\"";
            let orders: Vec<String> = (self.config().lanes.keys())
                .map(|lane| format!("{LANES}.{lane}.order"))
                .collect();
            for key in orders {
                if self.is_changed(&key) {
                    self.add(&key, format!("{of_no_use}: {}", exactly_once::ONE_STREAM));
                }
            }
            // A partition is parked at once there.
            let key = "shipping.park_after";
            if self.is_changed(key) {
                self.add(key, of_no_use);
            }
            return;
        }
        let transactional = [
            "progress",
            "txn.max_records",
            "txn.max_bytes",
            "txn.max_time",
        ];
        for key in transactional.map(|key| format!("kafka.{key}")) {
            if self.is_changed(&key) {
                self.add(
                    &key,
                    "is of no use without kafka.delivery = \"exactly_once\"",
                );
            }
        }
    }

    fn link(&mut self) {
        let main = self.config().link.options();
        self.one_link("", &main);
        // What is wrong with the main one would be told again.
        if main.check().is_ok() {
            for (cluster, link) in self.config().links() {
                self.one_link(&format!("clusters.{cluster}."), &link);
            }
        }
    }

    fn one_link(&mut self, prefix: &str, link: &LinkOptions) {
        if let Err(ship::Error::Option { key, reason }) = link.check() {
            self.refused(&self.of_link(prefix, key), reason);
        }
        if link.enabled {
            return;
        }
        for key in [
            "link.targets",
            "link.require",
            "link.ping_url",
            "link.timeout",
        ] {
            let key = format!("{prefix}{key}");
            if self.is_changed(&key) {
                self.add(&key, "is of no use with link.enabled = false");
            }
        }
    }

    /// The key of a link that a complaint is about: the one that somebody wrote, of those that contradict
    /// each other. For a cluster that is its own, since the main link is right by itself.
    fn of_link(&self, prefix: &str, key: &str) -> String {
        let named = |key| format!("{prefix}{key}");
        let keys = [key, "link.backoff.initial", "link.profile"].map(named);
        let mut written = keys.into_iter().filter(|key| self.loaded.is_given(key));
        written.next().unwrap_or_else(|| named(key))
    }

    fn retry(&mut self) {
        let ship = self.config().ship_options();
        self.one_retry("", &ship.retry, &RetryOverride::default());
        // What is wrong with the main one would be told again.
        if ship.retry.max_backoff < ship.retry.initial_backoff {
            return;
        }
        let by = ship.retry_overrides;
        let all = [
            ("lanes", by.lanes),
            ("topics", by.topics),
            ("tenants", by.tenants),
        ];
        let waits = |retry: &RetryOverride| (retry.initial_backoff, retry.max_backoff);
        let says = |retry: &RetryOverride| waits(retry) != (None, None);
        let kinds = all.iter().filter(|(_, by)| by.values().any(says)).count();
        for (section, overrides) in all {
            for (name, retry) in overrides {
                // A record may have the other one from a section of another kind.
                let (initial, max) = waits(&retry);
                if initial.is_some() != max.is_some() && kinds > 1 {
                    continue;
                }
                let section = path::join(&[section.to_owned(), name]);
                self.one_retry(&format!("{section}."), &ship.retry, &retry);
            }
        }
    }

    fn one_retry(&mut self, prefix: &str, main: &RetryPolicy, retry: &RetryOverride) {
        let initial = retry.initial_backoff.unwrap_or(main.initial_backoff);
        if retry.max_backoff.unwrap_or(main.max_backoff) >= initial {
            return;
        }
        // The one that somebody wrote is the one to look at.
        let keys =
            ["retry.backoff.max", "retry.backoff.initial"].map(|key| format!("{prefix}{key}"));
        let written = keys.iter().find(|key| self.loaded.is_given(key));
        self.add(
            written.unwrap_or(&keys[0]),
            "makes retry.backoff.max less than retry.backoff.initial",
        );
    }

    fn dead_letter(&mut self) {
        let key = "dead_letter.topic";
        if self.config().dead_letter.topic.is_none() && self.is_changed("dead_letter.style") {
            self.add(
                "dead_letter.style",
                "is of no use without dead_letter.topic",
            );
        }
        let options = self.config().ship_options();
        let default = self.config().kafka.default_topic.as_deref();
        if let Some(reason) = options.dead_letters.refuses(default.unwrap_or_default()) {
            self.add(key, reason);
        }
    }

    fn events(&mut self) {
        if let Err(error) = self.config().event_options().check() {
            let key = match &error {
                event::Error::Attribute { name, .. } if *name == "version" => "events.version",
                _ => "events.source",
            };
            self.refused(key, error);
        }
        for (key, error) in self.config().read_routes().1 {
            self.refused(&key, error);
        }
    }

    fn store(&mut self) {
        for error in self.config().store_options().problems() {
            self.of_store(&error);
        }
    }

    fn of_store(&mut self, error: &store::Error) {
        let (key, reason) = match error {
            store::Error::Options { lane, reason } if self.config().lanes.contains_key(lane) => {
                (self.of_lane(lane, reason), reason.clone())
            }
            store::Error::Lane {
                lane,
                source: wal::Error::Options { reason },
            } => (self.of_log(lane, reason), reason.clone()),
            store::Error::Routing { what, reason } => (self.of_routing(what), reason.clone()),
            error => {
                let reason = error.to_string();
                let is_quota = !reason.contains("retention");
                let key = if is_quota { "quota" } else { "retention" };
                (format!("dead_letter.{key}"), reason)
            }
        };
        let told = |problem: &Problem| {
            problem
                .key
                .as_deref()
                .is_some_and(|k| k.ends_with(".cluster"))
        };
        if reason.starts_with("no cluster is called") && self.problems.iter().any(told) {
            // With the names that there are.
            return;
        }
        self.refused(&key, reason);
    }

    /// The key of a lane that a complaint is about.
    fn of_lane(&self, lane: &str, reason: &str) -> String {
        let keys = ["weight", "expires_after"];
        let key = keys
            .into_iter()
            .find(|key| reason.starts_with(&format!("its {key}")));
        let lane = format!("{LANES}.{lane}");
        let key = format!("{lane}.{}", key.unwrap_or("topics"));
        if self.loaded.is_given(&key) {
            key
        } else {
            lane
        }
    }

    /// The key of a tenant that a complaint is about; of a topic, or all, their section.
    fn of_routing(&self, what: &str) -> String {
        if what == "tenant_header" {
            return "store.tenant_header".to_owned();
        }
        let name = what.strip_prefix("tenant ");
        match name.map(|name| name.trim_matches('"')) {
            Some(name) => format!("tenants.{name}.topic_prefix"),
            None => LANES.to_owned(),
        }
    }

    /// The key that a log's complaint is about: it begins with the name of the option.
    fn of_log(&self, lane: &str, reason: &str) -> String {
        // That of a tenant's own is its tenant's.
        let quota = match lane.split_once('~') {
            Some((_, tenant)) => format!("tenants.{tenant}.quota"),
            None => format!("{LANES}.{lane}.quota"),
        };
        if reason.starts_with("segment_size") {
            "store.segment_size".into()
        } else if reason.starts_with("linger") {
            "store.linger".into()
        } else if reason.starts_with("quota") {
            let is_its = self.loaded.is_given(&quota);
            if is_its { quota } else { "store.quota".into() }
        } else if reason.starts_with("keys") {
            KEY_FILE.into()
        } else {
            "store.compression".into()
        }
    }
}
