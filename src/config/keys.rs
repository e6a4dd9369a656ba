//! Every key, once: its name, its type, its default, and what it means.
//!
//! Reading, unknown keys, the example, the schema and `config show` all go by this table. It must
//! not know where a value comes from. A default is the library's own: it is taken from there.
//!
//! Invariant: a key that stands here has an effect; what the library cannot do yet is in
//! [`LATER`], with the part that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::convert::Preset;
use super::key_file::KeyFile;
use super::path::{join, split, unquoted};
use super::secret::Property;
use super::section::{Key, Section, section, section_with_retry};
use super::value::{Delivery, Limit, Rate, Setting, Size};
use crate::event::{EventFormat, EventOptions};
use crate::kafka::Require;
use crate::ship::dead_letter::{DeadLetterStyle, DeadLetterTopic};
use crate::ship::exactly_once::{ExactlyOnceOptions, ProgressIn};
use crate::ship::{
    DrainWindow, LinkOptions, OnBadTimestamp, OnExhausted, OnPoison, OnTooSlow, Profile,
    RetryOverride, RetryPolicy, ShipOptions,
};
use crate::store::{DeadLetterOptions, OnLettersFull, Order, TENANT_HEADER};
use crate::wal::{Compression, Durability, OnCorruption, OnFull, Options};

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
        /// How long a sync waits for company at durability `disk`, at most 1 s and `sync_interval`: fewer syncs,
        /// less flash wear, acknowledgements so much later.
        "linger" => linger: Duration = Options::default().linger;
        /// What opening does where promised records are gone: go on behind them, or refuse.
        "on_corruption" => on_corruption: OnCorruption = Options::default().on_corruption;
        /// How records are compressed on disk.
        "compression" => compression: Compression = Options::default().compression;
        /// A file with the keys of what lies on disk, `NUMBER HEX` on each line: the first is written with, the
        /// others open what is older.
        "encryption_key_file" ~ "\"/etc/ferrylog/key\"" => encryption_key_file: Option<KeyFile> = None;
        /// Lanes without a section of their own: none, or high, normal and low, which share the link 8 : 4 : 1.
        "lanes" => lanes: Preset = Preset::default();
        /// The header that names the tenant of a record.
        "tenant_header" => tenant_header: String = TENANT_HEADER.into();
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
        /// The name of this site: the `client.id` by which all clusters know it, and the source of its events,
        /// where neither is given.
        "gateway" ~ "\"site-17\"" => gateway: Option<String> = None;
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
        /// How often what is there is shipped, such as "1m": always, if 0s.
        "interval" => interval: Duration = ShipOptions::default().interval;
        /// Hours of the day in local time, such as "22:00-06:00"; always, if empty.
        "drain_window" => drain_window: DrainWindow = ShipOptions::default().drain_window;
        /// A partition that takes nothing for longer gets a parking log of its own.
        "park_after" => park_after: Duration = ShipOptions::default().park_after;
        /// Most bytes of records that wait in parking logs.
        "parked_quota" => parked_quota: Size = Size(ShipOptions::default().parked_quota);
        /// What is done about a record whose timestamp Kafka refuses.
        "on_bad_timestamp" => on_bad_timestamp: OnBadTimestamp = ShipOptions::default().on_bad_timestamp;
        /// What is done about a record that cannot cross the link in 300 s.
        "on_too_slow" => on_too_slow: OnTooSlow = ShipOptions::default().on_too_slow;
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
    /// What the events of a program say about themselves. Their topics stand in `[routes]`.
    EventsConfig {
        /// Who says them: kafka.gateway by default, else ferrylog.
        "source" ~ "\"/sites/17\"" => source: Option<String> = None;
        /// The version of what they say.
        "version" ~ "\"1.0\"" => version: Option<String> = EventOptions::default().version;
        /// What they look like in Kafka.
        "format" => format: EventFormat = EventOptions::default().format;
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
    /// One more cluster, for the lanes, topics and tenants that name it. `[clusters.NAME.properties]` is as
    /// `[kafka.properties]`; nothing of that holds for it. Of `[link]` all holds but its targets, unless it is
    /// said here.
    ClusterConfig {
        /// Brokers to start from.
        "bootstrap_servers" ~ "\"audit.example:9092\"" => bootstrap_servers: Option<String> = None;
        /// Its link, where that is otherwise than `[link]`: whether the way to it is probed.
        "link.enabled" ~ "true" => enabled: Option<bool> = None;
        /// What to connect to, as host:port; its bootstrap servers if empty.
        "link.targets" => targets: Vec<String> = Vec::new();
        /// How many of them must be there.
        "link.require" ~ "\"any\"" => require: Option<Require> = None;
        /// A page that answers with status 204, or with ping_body, and not with a redirect; none if empty.
        "link.ping_url" ~ "\"http://ping.example/\"" => ping_url: Option<Option<String>> = None;
        /// What the page says, without white space around it; status 204 if empty.
        "link.ping_body" ~ "\"ok\"" => ping_body: Option<Option<String>> = None;
        /// How long the whole probe may take: up to 60s.
        "link.timeout" ~ "\"5s\"" => timeout: Option<Duration> = None;
        /// The longest wait before the second try; as its profile has it if empty.
        "link.backoff.initial" ~ "\"250ms\"" => backoff_initial: Option<Option<Duration>> = None;
        /// By how much the wait grows with each try; as its profile has it if empty.
        "link.backoff.multiplier" ~ "2.0" => backoff_multiplier: Option<Option<f64>> = None;
        /// The longest wait at all; as its profile has it if empty.
        "link.backoff.max" ~ "\"5s\"" => backoff_max: Option<Option<Duration>> = None;
        /// How long the link must stay up for the waits to start over.
        "link.stable" ~ "\"10s\"" => stable: Option<Duration> = None;
        /// What a try costs: nothing to speak of, or money.
        "link.profile" ~ "\"normal\"" => profile: Option<Profile> = None;
    }
}

section_with_retry! {
    /// A tenant: the records whose header store.tenant_header is its name, or whose topic begins with its
    /// prefix.
    TenantConfig {
        /// The cluster that they go to; they are kept in lanes of their own then.
        "cluster" ~ "\"main\"" => cluster: Option<String> = None;
        /// Most bytes of each lane of its own, which it has then.
        "quota" ~ "\"1 GiB\"" => quota: Option<Size> = None;
        /// What their topics begin with in Kafka. It is put in front where it is missing; lanes and topics are
        /// named here without it.
        "topic_prefix" ~ "\"acme.\"" => topic_prefix: Option<String> = None;
    }
}

section_with_retry! {
    /// A topic that is otherwise than its lane.
    TopicConfig {
        /// The cluster that its records go to.
        "cluster" ~ "\"main\"" => cluster: Option<String> = None;
    }
}

section_with_retry! {
    /// A lane: a log of its own. What is not given is as in `[store]` and `[retry]`.
    LaneConfig {
        /// The topics whose records go here; `*` stands for any characters.
        "topics" ~ "[\"alarms.*\"]" => topics: Vec<String> = Vec::new();
        /// Its share of the link beside other lanes: 1 to 1000; 1 by default, or as store.lanes has it.
        "weight" ~ "8" => weight: Option<u32> = None;
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
        /// The cluster that its records go to: main, which is that of `[kafka]`, or one of `[clusters]`.
        "cluster" ~ "\"main\"" => cluster: Option<String> = None;
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
    /// `[events]`
    pub events: EventsConfig,
    /// `[clusters.NAME]`
    pub clusters: BTreeMap<String, ClusterConfig>,
    /// `[clusters.NAME.properties]`: librdkafka properties by name, by cluster.
    pub cluster_properties: BTreeMap<String, BTreeMap<String, Property>>,
    /// `[tenants.NAME]`
    pub tenants: BTreeMap<String, TenantConfig>,
    /// `[topics.NAME]`
    pub topics: BTreeMap<String, TopicConfig>,
    /// `[lanes.NAME]`. The one called `default` takes the topics that no other one claims.
    pub lanes: BTreeMap<String, LaneConfig>,
    /// `[routes]`: topics of events by patterns of their types; `default` is for the rest.
    pub routes: BTreeMap<String, String>,
}

/// Where the librdkafka properties are: those of the main cluster, and the last name of the others'.
pub(super) const PROPERTIES: &str = "kafka.properties";
pub(super) const OF_CLUSTER: &str = "properties";
/// What names the file of keys.
pub(super) const KEY_FILE: &str = "store.encryption_key_file";
/// Where the lanes are.
pub(super) const LANES: &str = "lanes";
/// Where the routes of events are.
pub(super) const ROUTES: &str = "routes";
/// The route of event types that no other one fits.
pub(super) const DEFAULT_ROUTE: &str = "default";

/// The sections of which there may be many, each with a name.
pub(super) const NAMED: [(&str, &[Key]); 4] = [
    ("clusters", ClusterConfig::KEYS),
    ("tenants", TenantConfig::KEYS),
    ("topics", TopicConfig::KEYS),
    (LANES, LaneConfig::KEYS),
];

/// The sections of which there is one.
pub(super) const SECTIONS: [(&str, &[Key]); 7] = [
    ("store", StoreConfig::KEYS),
    ("kafka", KafkaConfig::KEYS),
    ("link", LinkConfig::KEYS),
    ("shipping", ShippingConfig::KEYS),
    ("retry", RetryConfig::KEYS),
    ("dead_letter", DeadLetterConfig::KEYS),
    ("events", EventsConfig::KEYS),
];

/// Keys and sections of parts that this version does not have, and the part; `*` stands for any name.
pub(super) const LATER: [(&str, &str); 8] = [
    ("registry", REGISTRY),
    ("topics.*.schema", REGISTRY),
    ("topics.*.format", REGISTRY),
    ("topics.*.subject_strategy", REGISTRY),
    ("topics.*.validate", REGISTRY),
    ("jobs", "jobs from Kafka"),
    ("http", AGENT),
    ("log", AGENT),
];
const REGISTRY: &str = "schemas and their registry";
const AGENT: &str = "the agent";

impl Config {
    pub(super) fn section(&self, name: &str) -> Option<&dyn Section> {
        Some(match name {
            "store" => &self.store,
            "kafka" => &self.kafka,
            "link" => &self.link,
            "shipping" => &self.shipping,
            "retry" => &self.retry,
            "dead_letter" => &self.dead_letter,
            "events" => &self.events,
            _ => {
                let (kind, name) = name.split_once('.')?;
                match kind {
                    "clusters" => self.clusters.get(name)?,
                    "tenants" => self.tenants.get(name)?,
                    "topics" => self.topics.get(unquoted(name))?,
                    LANES => self.lanes.get(name)?,
                    _ => return None,
                }
            }
        })
    }

    /// The section of this name; one of a name of its own is made where there is none.
    fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
        Some(match name {
            "store" => &mut self.store,
            "kafka" => &mut self.kafka,
            "link" => &mut self.link,
            "shipping" => &mut self.shipping,
            "retry" => &mut self.retry,
            "dead_letter" => &mut self.dead_letter,
            "events" => &mut self.events,
            _ => {
                let (kind, name) = name.split_once('.')?;
                match kind {
                    "clusters" => self.clusters.entry(name.into()).or_default(),
                    "tenants" => self.tenants.entry(name.into()).or_default(),
                    "topics" => self.topics.entry(unquoted(name).into()).or_default(),
                    LANES => self.lanes.entry(name.into()).or_default(),
                    _ => return None,
                }
            }
        })
    }

    /// The sections that have names of their own, as in keys.
    pub(super) fn named(&self) -> Vec<String> {
        let clusters = self.clusters.keys().map(|name| format!("clusters.{name}"));
        let tenants = self.tenants.keys().map(|name| format!("tenants.{name}"));
        let topics = self.topics.keys();
        let topics = topics.map(|name| join(&["topics".into(), name.clone()]));
        let lanes = self.lanes.keys().map(|name| format!("{LANES}.{name}"));
        clusters.chain(tenants).chain(topics).chain(lanes).collect()
    }

    /// The properties of a cluster; `None`: of the main one.
    pub(super) fn properties_of(
        &mut self,
        cluster: Option<&str>,
    ) -> &mut BTreeMap<String, Property> {
        match cluster {
            None => &mut self.properties,
            Some(name) => {
                // It is one also if nothing else is said of it.
                self.clusters.entry(name.into()).or_default();
                self.cluster_properties.entry(name.into()).or_default()
            }
        }
    }

    /// The value of a known key, but for properties; that of a section which is not there is its default.
    pub(super) fn value(&self, key: &str) -> Option<Json> {
        let (section, name) = split(key)?;
        let shown = |section: &dyn Section| Some(section.setting(name)?.shown());
        match self.section(section) {
            Some(section) => shown(section),
            None => shown(Self::default().section_mut(section)?),
        }
    }

    /// The keys that another configuration says otherwise and that count only when a store is opened, as
    /// [`Producer::set_config`](crate::Producer::set_config) has it. All others can be changed while it runs.
    #[must_use]
    pub fn reopening(&self, other: &Self) -> Vec<String> {
        let single = SECTIONS.iter().map(|(name, _)| (*name).to_owned());
        let names = single.chain(self.named()).chain(other.named());
        let names: BTreeSet<String> = names.collect();
        let mut keys = Vec::new();
        for name in &names {
            let section = self.section(name).or_else(|| other.section(name));
            let listed = section.map_or(&[][..], |section| section.keys());
            let is_both = self.section(name).is_some() == other.section(name).is_some();
            if !is_both && is_of_store(name) {
                keys.push(name.clone());
                continue;
            }
            let listed = listed.iter().filter(|key| !changes_live(name, key.name));
            let listed = listed.map(|key| format!("{name}.{}", key.name));
            keys.extend(listed.filter(|key| self.differs(other, key)));
        }
        keys
    }

    /// Whether another configuration says something else of a key. What is in the file of keys is never shown,
    /// and may be another one at the same path.
    fn differs(&self, other: &Self, key: &str) -> bool {
        self.value(key) != other.value(key) || key == KEY_FILE && self.keys() != other.keys()
    }

    /// Makes a section of a name of its own, with the defaults.
    pub(super) fn declare(&mut self, key: &str) {
        let _ = self.section_mut(key);
    }

    /// The setting of a known key, but for properties.
    pub(super) fn setting_mut(&mut self, key: &str) -> Option<&mut dyn Setting> {
        let (section, name) = split(key)?;
        self.section_mut(section)?.setting_mut(name)
    }
}

/// Whether a section that comes or goes makes another store.
fn is_of_store(section: &str) -> bool {
    section.starts_with("lanes.") || section.starts_with("tenants.")
}

/// Whether a key can be changed while a producer runs.
pub(super) fn changes_live(section: &str, key: &str) -> bool {
    match section {
        "kafka" => !matches!(key, "default_topic" | "gateway"),
        "link" | "shipping" | "retry" => true,
        "dead_letter" => matches!(key, "topic" | "style"),
        "store" | "events" => false,
        // Of a section with a name of its own.
        _ => section.starts_with("clusters.") || key.starts_with("retry."),
    }
}

#[cfg(test)]
mod tests {
    use super::super::path::{Known, look};
    use super::*;

    #[test]
    fn every_key_has_a_setting_and_no_two_have_one_name() {
        let mut config = Config::default();
        let mut seen = BTreeSet::new();
        let named = NAMED.map(|(kind, keys)| (format!("{kind}.a"), keys));
        let single = SECTIONS.map(|(section, keys)| (section.to_owned(), keys));
        for (section, keys) in single.into_iter().chain(named) {
            for key in keys {
                let key = format!("{section}.{}", key.name);
                assert!(config.setting_mut(&key).is_some(), "{key}");
                assert_eq!(
                    look(&key.split('.').map(Into::into).collect::<Vec<_>>()),
                    Known::Key,
                    "{key}"
                );
                assert!(seen.insert(key));
            }
        }
        assert_eq!((config.lanes.len(), config.topics.len()), (1, 1));
    }
}
