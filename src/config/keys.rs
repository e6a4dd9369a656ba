//! Every key, once: its name, its type, its default, and what it means.
//!
//! Reading, unknown keys, the example, the schema and `config show` all go by this table. It must
//! not know where a value comes from. A default is the library's own: it is taken from there.
//!
//! Invariant: a key that stands here has an effect; what the library cannot do yet is in
//! [`NOT_YET`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::secret::Property;
use super::value::{Delivery, Limit, Rate, Setting, Size};
use crate::kafka::Require;
use crate::ship::dead_letter::{DeadLetterStyle, DeadLetterTopic};
use crate::ship::exactly_once::{ExactlyOnceOptions, ProgressIn};
use crate::ship::{
    DrainWindow, LinkOptions, OnBadTimestamp, OnExhausted, OnPoison, Profile, RetryPolicy,
    ShipOptions,
};
use crate::store::{DeadLetterOptions, OnLettersFull, Order};
use crate::wal::{Compression, Durability, OnCorruption, OnFull, Options};

/// A key within its section.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Lines that say what it means.
    pub(super) about: &'static [&'static str],
    /// A value for the example, in TOML, where there is none by default.
    pub(super) example: Option<&'static str>,
}

/// A section: settings by the names of their keys.
pub(super) trait Section {
    fn keys(&self) -> &'static [Key];
    fn setting(&self, key: &str) -> Option<&dyn Setting>;
    fn setting_mut(&mut self, key: &str) -> Option<&mut dyn Setting>;
}

/// Makes a struct of a list of keys: `"key" ~ example => field: type = default`.
macro_rules! section {
    (
        $(#[$head:meta])*
        $name:ident {
            $(
                $(#[doc = $about:literal])+
                $key:literal $(~ $example:literal)? => $field:ident: $type:ty = $default:expr;
            )+
        }
    ) => {
        $(#[$head])*
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[doc = $about])+ pub $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $name {
            pub(super) const KEYS: &[Key] = &[$(Key {
                name: $key,
                about: &[$($about),+],
                example: [$(Some($example),)? None][0],
            },)+];
        }

        impl Section for $name {
            fn keys(&self) -> &'static [Key] {
                Self::KEYS
            }

            fn setting(&self, key: &str) -> Option<&dyn Setting> {
                match key {
                    $($key => Some(&self.$field),)+
                    _ => None,
                }
            }

            fn setting_mut(&mut self, key: &str) -> Option<&mut dyn Setting> {
                match key {
                    $($key => Some(&mut self.$field),)+
                    _ => None,
                }
            }
        }
    };
}

section! {
    /// Where records are kept, and how safely.
    StoreConfig {
        /// Directory of the store.
        "dir" => dir: PathBuf = "./ferrylog-data".into();
        /// What an acknowledgement means: on disk after a sync, with the operating system, or in memory.
        "durability" => durability: Durability = Options::default().durability;
        /// Most bytes of the files of each lane; at least three segments.
        "quota" => quota: Limit = Limit(Options::default().quota_bytes);
        /// What an append meets when there is no space. `ferrylog send` rejects unless this is set.
        "on_full" => on_full: OnFull = Options::default().on_full;
        /// Bytes of a segment file: 1 MiB to 4 GiB, a multiple of 4 KiB.
        "segment_size" => segment_size: Size = Size(Options::default().segment_size);
        /// Longest time that written data stays unsynced at durability `os`.
        "sync_interval" => sync_interval: Duration = Options::default().sync_interval;
        /// What opening does where promised records are gone: go on behind them, or refuse.
        "on_corruption" => on_corruption: OnCorruption = Options::default().on_corruption;
        /// How records are compressed on disk.
        "compression" => compression: Compression = Options::default().compression;
    }
}

section! {
    /// The cluster, and how records get there. Properties of librdkafka stand in `[kafka.properties]`.
    KafkaConfig {
        /// Brokers to start from: host:port, with commas between.
        "bootstrap_servers" ~ "\"kafka.example:9092\"" => bootstrap_servers: Option<String> = None;
        /// At least once with an idempotent producer, or exactly once in transactions.
        "delivery" => delivery: Delivery = Delivery::default();
        /// Where the progress of transactions is kept: in a topic, or in the offsets of a group under
        /// it, which Kafka forgets after a week without a transaction.
        "progress" => progress: ProgressIn = exactly_once().progress;
        /// Most records in a transaction.
        "txn.max_records" => txn_max_records: u64 = exactly_once().max_records;
        /// Most bytes of keys and values in a transaction; one record may always be in it.
        "txn.max_bytes" => txn_max_bytes: Size = Size(exactly_once().max_bytes);
        /// How long a transaction takes records: 200ms by default, 10s where link.profile is metered.
        "txn.max_time" ~ "\"200ms\"" => txn_max_time: Option<Duration> = exactly_once().max_time;
        /// The topic of records that name none.
        "default_topic" ~ "\"telemetry\"" => default_topic: Option<String> = None;
        /// Whether each record gets the header `ferry-id`, by which consumers can drop duplicates.
        "id_header" => id_header: bool = ShipOptions::default().id_header;
    }
}

section! {
    /// How the link is watched, and when a lost one is tried again.
    LinkConfig {
        /// Whether the way is probed before the cluster itself is asked.
        "enabled" => enabled: bool = LinkOptions::default().enabled;
        /// What to connect to, as host:port; the bootstrap servers if empty.
        "targets" => targets: Vec<String> = LinkOptions::default().targets;
        /// How many of them must be there.
        "require" => require: Require = LinkOptions::default().require;
        /// A page that answers with status 204, or with ping_body, and not with a redirect.
        "ping_url" ~ "\"http://ping.example/\"" => ping_url: Option<String> = LinkOptions::default().ping_url;
        /// What the page says, without white space around it.
        "ping_body" ~ "\"ok\"" => ping_body: Option<String> = LinkOptions::default().ping_body;
        /// How long the whole probe may take: up to 60s.
        "timeout" => timeout: Duration = LinkOptions::default().timeout;
        /// The longest wait before the second try: 250ms by default, 60s where profile is metered.
        "backoff.initial" ~ "\"250ms\"" => backoff_initial: Option<Duration> = None;
        /// By how much the wait grows with each try: 2 by default.
        "backoff.multiplier" ~ "2.0" => backoff_multiplier: Option<f64> = None;
        /// The longest wait at all: 5s by default, 30m where profile is metered.
        "backoff.max" ~ "\"5s\"" => backoff_max: Option<Duration> = None;
        /// How long the link must stay up for the waits to start over.
        "stable" => stable: Duration = LinkOptions::default().backoff().stable;
        /// What a try costs: nothing to speak of, or money.
        "profile" => profile: Profile = LinkOptions::default().profile;
    }
}

section! {
    /// How much is sent, and when.
    ShippingConfig {
        /// Memory that records in flight may take.
        "max_in_flight_bytes" => max_in_flight_bytes: Size = Size(ShipOptions::default().max_in_flight_bytes);
        /// Most bytes of keys and values in a second, before compression.
        "drain_rate" => drain_rate: Rate = Rate(ShipOptions::default().drain_rate);
        /// Hours of the day in local time, such as "22:00-06:00"; always, if empty.
        "drain_window" => drain_window: DrainWindow = ShipOptions::default().drain_window;
        /// A partition that takes nothing for longer gets a parking log of its own.
        "park_after" => park_after: Duration = ShipOptions::default().park_after;
        /// Most bytes of records that wait in parking logs.
        "parked_quota" => parked_quota: Size = Size(ShipOptions::default().parked_quota);
        /// What is done about a record whose timestamp Kafka refuses.
        "on_bad_timestamp" => on_bad_timestamp: OnBadTimestamp = ShipOptions::default().on_bad_timestamp;
    }
}

section! {
    /// What is done about a record that Kafka refuses.
    RetryConfig {
        /// Attempts after which a record is exhausted. Only a refusal of this record alone counts.
        "max_attempts" => max_attempts: u32 = RetryPolicy::default().max_attempts;
        /// Wait after the first failure in a row.
        "backoff.initial" => backoff_initial: Duration = RetryPolicy::default().initial_backoff;
        /// Each further wait is this many times as long.
        "backoff.multiplier" => backoff_multiplier: f64 = RetryPolicy::default().multiplier;
        /// The longest wait.
        "backoff.max" => backoff_max: Duration = RetryPolicy::default().max_backoff;
        /// Whether a wait is drawn evenly from nothing to its length.
        "backoff.jitter" => backoff_jitter: bool = RetryPolicy::default().jitter;
        /// What becomes of a record whose attempts are exhausted.
        "on_exhausted" => on_exhausted: OnExhausted = RetryPolicy::default().on_exhausted;
        /// What becomes of a record that is refused for what it is.
        "on_poison" => on_poison: OnPoison = RetryPolicy::default().on_poison;
    }
}

section! {
    /// How dead letters are kept, and what of them goes to Kafka.
    DeadLetterConfig {
        /// Topic that gets a copy of each; {topic} in it stands for the record's own.
        "topic" ~ "\"{topic}.dlq\"" => topic: Option<DeadLetterTopic> = ShipOptions::default().dead_letters.topic;
        /// How a copy tells why the record died: in headers, in those of Kafka Connect, or as JSON.
        "style" => style: DeadLetterStyle = ShipOptions::default().dead_letters.style;
        /// How long a letter is kept that nobody decides about.
        "retention" => retention: Duration = DeadLetterOptions::default().retention;
        /// Most bytes that they take: at least 8 MiB.
        "quota" => quota: Size = Size(DeadLetterOptions::default().quota_bytes);
        /// What happens to a new one when there is no room.
        "on_full" => on_full: OnLettersFull = DeadLetterOptions::default().on_full;
    }
}

section! {
    /// A lane: a log of its own. What is not given is as in `[store]`.
    LaneConfig {
        /// The topics whose records go here; `*` stands for any characters.
        "topics" ~ "[\"alarms.*\"]" => topics: Vec<String> = Vec::new();
        /// Its share of the link beside other lanes: 1 to 1000.
        "weight" => weight: u32 = 1;
        /// What an acknowledgement means.
        "durability" ~ "\"disk\"" => durability: Option<Durability> = None;
        /// Most bytes of its files.
        "quota" ~ "\"1 GiB\"" => quota: Option<Limit> = None;
        /// What an append meets when there is no space.
        "on_full" ~ "\"reject\"" => on_full: Option<OnFull> = None;
        /// Age beyond which a record is settled as expired instead of shipped.
        "expires_after" ~ "\"24h\"" => expires_after: Option<Duration> = None;
        /// Whether the newest records go first after an outage, beside the backlog.
        "order" => order: Order = Order::default();
    }
}

fn exactly_once() -> ExactlyOnceOptions {
    ExactlyOnceOptions::default()
}

/// Everything that a user may choose. `docs/configuration.md` has the files and variables it is read
/// from.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// `[store]`
    pub store: StoreConfig,
    /// `[kafka]`
    pub kafka: KafkaConfig,
    /// `[kafka.properties]`: librdkafka properties by name.
    pub properties: BTreeMap<String, Property>,
    /// `[link]`
    pub link: LinkConfig,
    /// `[shipping]`
    pub shipping: ShippingConfig,
    /// `[retry]`
    pub retry: RetryConfig,
    /// `[dead_letter]`
    pub dead_letter: DeadLetterConfig,
    /// `[lanes.NAME]`. The one called `default` takes the topics that no other one claims.
    pub lanes: BTreeMap<String, LaneConfig>,
    /// `[routes]`: topics of events by patterns of their types; `default` is for the rest.
    pub routes: BTreeMap<String, String>,
}

/// Where the librdkafka properties are.
pub(super) const PROPERTIES: &str = "kafka.properties";
/// Where the lanes are.
pub(super) const LANES: &str = "lanes";
/// Where the routes of events are.
pub(super) const ROUTES: &str = "routes";
/// The route of event types that no other one fits.
pub(super) const DEFAULT_ROUTE: &str = "default";

/// The sections of which there is one.
pub(super) const SECTIONS: [(&str, &[Key]); 6] = [
    ("store", StoreConfig::KEYS),
    ("kafka", KafkaConfig::KEYS),
    ("link", LinkConfig::KEYS),
    ("shipping", ShippingConfig::KEYS),
    ("retry", RetryConfig::KEYS),
    ("dead_letter", DeadLetterConfig::KEYS),
];

/// Keys and sections of later versions.
pub(super) const NOT_YET: [&str; 11] = [
    "clusters",
    "tenants",
    "registry",
    "topics",
    "jobs",
    "http",
    "log",
    "store.linger",
    "store.encryption_key_file",
    "kafka.gateway",
    "shipping.on_too_slow",
];

impl Config {
    pub(super) fn section(&self, name: &str) -> Option<&dyn Section> {
        Some(match name {
            "store" => &self.store,
            "kafka" => &self.kafka,
            "link" => &self.link,
            "shipping" => &self.shipping,
            "retry" => &self.retry,
            "dead_letter" => &self.dead_letter,
            _ => self.lanes.get(name.strip_prefix("lanes.")?)?,
        })
    }

    /// The section of this name; a lane is made where there is none.
    fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
        Some(match name {
            "store" => &mut self.store,
            "kafka" => &mut self.kafka,
            "link" => &mut self.link,
            "shipping" => &mut self.shipping,
            "retry" => &mut self.retry,
            "dead_letter" => &mut self.dead_letter,
            _ => {
                let lane = name.strip_prefix("lanes.")?;
                self.lanes.entry(lane.to_owned()).or_default()
            }
        })
    }

    /// The value of a known key, but for properties; that of a lane which is not there is its default.
    pub(super) fn value(&self, key: &str) -> Option<Json> {
        let (section, name) = split(key)?;
        let shown = |section: &dyn Section| Some(section.setting(name)?.shown());
        match self.section(section) {
            Some(section) => shown(section),
            None => shown(&LaneConfig::default()),
        }
    }

    /// Makes a lane with the defaults, if this is the section of one.
    pub(super) fn declare_lane(&mut self, key: &str) -> bool {
        let lane = key
            .strip_prefix("lanes.")
            .filter(|name| !name.contains('.'));
        lane.is_some_and(|_| self.section_mut(key).is_some())
    }

    /// The setting of a known key, but for properties.
    pub(super) fn setting_mut(&mut self, key: &str) -> Option<&mut dyn Setting> {
        let (section, name) = split(key)?;
        self.section_mut(section)?.setting_mut(name)
    }
}

/// The section of a key, and its name in there.
fn split(key: &str) -> Option<(&str, &str)> {
    let dots = if key.starts_with("lanes.") { 2 } else { 1 };
    let (at, _) = key.match_indices('.').nth(dots - 1)?;
    Some((&key[..at], &key[at + 1..]))
}

/// What a path of names leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// A value.
    Key,
    /// More names.
    Section,
    /// Something of a later version.
    NotYet,
    /// Nothing; what could stand in place of the last name, if the names before it are known.
    Unknown(Vec<&'static str>),
}

/// Looks a path up.
pub(super) fn look(path: &[String]) -> Known {
    let all = patterns();
    let later = |later: &&str| later.split('.').eq(path.iter().map(String::as_str));
    if NOT_YET.iter().any(later) {
        return Known::NotYet;
    }
    let begins = |pattern: &[&str], path: &[String]| {
        let mut pairs = pattern.iter().zip(path);
        pattern.len() >= path.len() && pairs.all(|(name, part)| *name == "*" || *name == part)
    };
    // The name of a property or an event type may be written in parts.
    let path = match path {
        [a, _, ..] if a == ROUTES => &path[..2],
        [a, b, _, ..] if PROPERTIES.split('.').eq([a.as_str(), b]) => &path[..3],
        _ => path,
    };
    let mut fitting = all
        .iter()
        .filter(|pattern| begins(pattern, path))
        .peekable();
    if fitting.peek().is_some() {
        let is_key = fitting.any(|pattern| pattern.len() == path.len());
        return if is_key { Known::Key } else { Known::Section };
    }
    let Some((_, before)) = path.split_last() else {
        return Known::Section;
    };
    let siblings = all.iter().filter(|pattern| begins(pattern, before));
    let mut names: Vec<&'static str> = siblings
        .filter_map(|p| p.get(before.len()).copied())
        .collect();
    names.dedup();
    Known::Unknown(names)
}

/// Whether the names above the last one are part of a name that is free.
pub(super) fn may_be_in_parts(path: &[String]) -> bool {
    let key = path.join(".");
    [PROPERTIES, ROUTES].iter().any(|free| {
        let below = key.strip_prefix(free);
        below.is_some_and(|below| below.starts_with('.'))
    })
}

/// Every key, as names; `*` stands for any.
fn patterns() -> Vec<Vec<&'static str>> {
    let mut all = Vec::new();
    for (section, keys) in SECTIONS {
        for key in keys {
            let names = std::iter::once(section).chain(key.name.split('.'));
            all.push(names.collect());
        }
        if section == "kafka" {
            all.push(vec!["kafka", "properties", "*"]);
        }
    }
    for key in LaneConfig::KEYS {
        let names = [LANES, "*"].into_iter().chain(key.name.split('.'));
        all.push(names.collect());
    }
    all.push(vec![ROUTES, "*"]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(path: &str) -> Known {
        look(&path.split('.').map(Into::into).collect::<Vec<_>>())
    }

    #[test]
    fn every_key_has_a_setting_and_no_two_have_one_name() {
        let mut config = Config::default();
        let mut seen = std::collections::BTreeSet::new();
        let lane = [("lanes.a", LaneConfig::KEYS)];
        for (section, keys) in SECTIONS.into_iter().chain(lane) {
            for key in keys {
                let key = format!("{section}.{}", key.name);
                assert!(config.setting_mut(&key).is_some(), "{key}");
                assert_eq!(look_up(&key), Known::Key, "{key}");
                assert!(seen.insert(key));
            }
        }
        assert_eq!(config.lanes.len(), 1);
    }

    #[test]
    fn a_path_is_a_key_a_section_something_of_later_or_unknown() {
        for section in [
            "store",
            "retry.backoff",
            "kafka.txn",
            "kafka.properties",
            "lanes",
            "lanes.x",
            "routes",
        ] {
            assert_eq!(look_up(section), Known::Section, "{section}");
        }
        for key in [
            "kafka.properties.a",
            "kafka.properties.security.protocol",
            "lanes.x.weight",
            "routes.default",
            "routes.user.*",
        ] {
            assert_eq!(look_up(key), Known::Key, "{key}");
        }
        for later in NOT_YET {
            assert_eq!(look_up(later), Known::NotYet, "{later}");
        }
        let Known::Unknown(names) = look_up("retry.backoff.first") else {
            panic!()
        };
        assert_eq!(names, ["initial", "multiplier", "max", "jitter"]);
        let Known::Unknown(names) = look_up("shop") else {
            panic!()
        };
        assert_eq!(names.len(), SECTIONS.len() + 2);
        assert_eq!(look_up("store.dir.x"), Known::Unknown(vec![]));
    }
}
