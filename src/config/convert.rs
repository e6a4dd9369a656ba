//! From the configuration to the options of the rooms below.
//!
//! Pure. Must not know where a value came from. Invariant: the defaults make the defaults.

use std::collections::BTreeMap;

use super::error::{Error, Place, Problem};
use super::keys::{
    ClusterConfig, Config, DEFAULT_ROUTE, LaneConfig, LinkConfig, ROUTES, TenantConfig, TopicConfig,
};
use super::secret::Property;
use super::section::Section;
use super::value::{Delivery, Rate};
use crate::event::{self, EventOptions, Routes};
use crate::kafka::Settings;
use crate::ship::exactly_once::ExactlyOnceOptions;
use crate::ship::{
    self, Backoff, DeadLetterShipping, LinkOptions, RetryOverride, RetryOverrides, RetryPolicy,
    ShipOptions,
};
use crate::store::{
    DEFAULT_LANE, DeadLetterOptions, LaneOptions, MAIN_CLUSTER, StoreOptions, TenantOptions,
};
use crate::wal::{Keys, Options};

/// The property by which a cluster knows its client.
const CLIENT_ID: &str = "client.id";

/// Lanes that are there without a section of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Preset {
    /// None but `default`.
    #[default]
    None,
    /// [`StoreOptions::priorities`](crate::store::StoreOptions::priorities).
    Priorities,
}

impl Config {
    /// What the store is opened with.
    #[must_use]
    pub fn store_options(&self) -> StoreOptions {
        let wal = self.wal_options();
        let preset = match self.store.lanes {
            Preset::None => StoreOptions::new(wal.clone()),
            Preset::Priorities => StoreOptions::priorities(&wal),
        };
        let (mut default, mut lanes) = (preset.default, preset.lanes);
        for (name, lane) in &self.lanes {
            let own = match name.as_str() {
                DEFAULT_LANE => &mut default,
                name => lanes
                    .entry(name.into())
                    .or_insert_with(|| LaneOptions::new(wal.clone())),
            };
            lane.apply(own);
        }
        let topics = self.topics.iter();
        let tenants = self.tenants.iter();
        StoreOptions {
            default,
            lanes,
            topic_clusters: topics
                .filter_map(|(name, topic)| Some((name.clone(), topic.cluster.clone()?)))
                .collect(),
            tenants: tenants
                .map(|(name, tenant)| (name.clone(), tenant.options()))
                .collect(),
            tenant_header: self.store.tenant_header.clone(),
            dead_letters: DeadLetterOptions {
                quota_bytes: self.dead_letter.quota.0,
                retention: self.dead_letter.retention,
                on_full: self.dead_letter.on_full,
            },
            ..StoreOptions::default()
        }
    }

    /// How a log is kept whose lane says nothing else.
    fn wal_options(&self) -> Options {
        let store = &self.store;
        Options {
            durability: store.durability,
            quota_bytes: store.quota.0,
            on_full: store.on_full,
            segment_size: store.segment_size.0,
            sync_interval: store.sync_interval,
            linger: store.linger,
            on_corruption: store.on_corruption,
            compression: store.compression,
            keys: self.keys(),
            ..Options::default()
        }
    }

    /// The keys of what lies on disk: for [`StoreView::open_with`](crate::store::StoreView::open_with).
    #[must_use]
    pub fn keys(&self) -> Keys {
        let file = self.store.encryption_key_file.as_ref();
        file.map(|file| file.keys().clone()).unwrap_or_default()
    }

    /// Where the cluster is, and how it is spoken to; `None` if no bootstrap servers are given.
    #[must_use]
    pub fn settings(&self) -> Option<Settings> {
        let servers = self.kafka.bootstrap_servers.as_ref()?;
        Some(self.reached_at(servers, Some(&self.properties)))
    }

    /// Where all clusters are, by name; `None` if no bootstrap servers are given for the main one.
    #[must_use]
    pub fn clusters(&self) -> Option<BTreeMap<String, Settings>> {
        let others = self.clusters.iter().filter_map(|(name, cluster)| {
            let servers = cluster.bootstrap_servers.as_ref()?;
            let properties = self.cluster_properties.get(name);
            Some((name.clone(), self.reached_at(servers, properties)))
        });
        let main = (MAIN_CLUSTER.to_owned(), self.settings()?);
        Some(others.chain([main]).collect())
    }

    /// How records are shipped.
    #[must_use]
    pub fn delivery(&self) -> ship::Delivery {
        match self.kafka.delivery {
            Delivery::Idempotent => ship::Delivery::AtLeastOnce(Box::new(self.ship_options())),
            Delivery::ExactlyOnce => {
                ship::Delivery::ExactlyOnce(Box::new(self.exactly_once_options()))
            }
        }
    }

    /// Whether records are shipped in transactions, by [`exactly_once_options`](Self::exactly_once_options).
    #[must_use]
    pub fn is_exactly_once(&self) -> bool {
        self.kafka.delivery == Delivery::ExactlyOnce
    }

    /// How to ship at least once.
    #[must_use]
    pub fn ship_options(&self) -> ShipOptions {
        let Rate(drain_rate) = self.shipping.drain_rate;
        ShipOptions {
            id_header: self.kafka.id_header,
            max_in_flight_bytes: self.shipping.max_in_flight_bytes.0,
            link: self.link.options(),
            links: self.links(),
            interval: self.shipping.interval,
            drain_rate,
            drain_window: self.shipping.drain_window.clone(),
            retry: self.retry_policy(),
            retry_overrides: RetryOverrides {
                lanes: overrides(&self.lanes, LaneConfig::retry),
                topics: overrides(&self.topics, TopicConfig::retry),
                tenants: overrides(&self.tenants, TenantConfig::retry),
            },
            dead_letters: DeadLetterShipping {
                topic: self.dead_letter.topic.clone(),
                style: self.dead_letter.style,
                ..DeadLetterShipping::default()
            },
            on_bad_timestamp: self.shipping.on_bad_timestamp,
            on_too_slow: self.shipping.on_too_slow,
            park_after: self.shipping.park_after,
            parked_quota: self.shipping.parked_quota.0,
            ..ShipOptions::default()
        }
    }

    /// How to ship exactly once.
    #[must_use]
    pub fn exactly_once_options(&self) -> ExactlyOnceOptions {
        ExactlyOnceOptions {
            ship: self.ship_options(),
            progress: self.kafka.progress,
            max_records: self.kafka.txn_max_records,
            max_bytes: self.kafka.txn_max_bytes.0,
            max_time: self.kafka.txn_max_time,
            ..ExactlyOnceOptions::default()
        }
    }

    /// How the links of clusters are watched that have something to say of it; the others follow the main one.
    pub(super) fn links(&self) -> BTreeMap<String, LinkOptions> {
        let own = self.clusters.iter();
        let own = own.filter(|(_, cluster)| cluster.says_of_link());
        own.map(|(name, cluster)| (name.clone(), cluster.link(&self.link).options()))
            .collect()
    }

    /// How events are made, and where they go.
    #[must_use]
    pub fn event_options(&self) -> EventOptions {
        let default = EventOptions::default();
        let source = self.events.source.as_ref().or(self.kafka.gateway.as_ref());
        EventOptions {
            source: source.cloned().unwrap_or(default.source),
            version: self.events.version.clone(),
            format: self.events.format,
            routes: self.event_routes(),
        }
    }

    /// Where events go: for [`Producer::set_routes`](crate::Producer::set_routes).
    #[must_use]
    pub fn event_routes(&self) -> Routes {
        // What is wrong is refused where it comes in.
        self.read_routes().0
    }

    /// The same, and what is wrong: each key, and why.
    pub(crate) fn read_routes(&self) -> (Routes, Vec<(String, event::Error)>) {
        let (mut routes, mut wrong) = (Routes::default(), Vec::new());
        for (pattern, topic) in &self.routes {
            if let Err(error) = add_route(&mut routes, pattern, topic) {
                wrong.push((format!("{ROUTES}.{pattern}"), error));
            }
        }
        (routes, wrong)
    }

    /// Refuses a program's own routes that are wrong. Those of a file were looked at when it was loaded.
    pub(crate) fn check_routes(&self) -> Result<(), Error> {
        let (_, wrong) = self.read_routes();
        wrong.into_iter().next().map_or(Ok(()), |(key, error)| {
            let reason = format!("is refused: {error}");
            Err(Problem::new(&Place::Default, &key, reason).into())
        })
    }

    fn reached_at(
        &self,
        servers: &str,
        properties: Option<&BTreeMap<String, Property>>,
    ) -> Settings {
        let given = properties.into_iter().flatten();
        let mut all: BTreeMap<String, String> = given
            .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
            .collect();
        if let Some(gateway) = &self.kafka.gateway {
            all.entry(CLIENT_ID.to_owned())
                .or_insert_with(|| gateway.clone());
        }
        Settings {
            properties: all.into_iter().collect(),
            ..Settings::new(servers)
        }
    }

    fn retry_policy(&self) -> RetryPolicy {
        let retry = &self.retry;
        RetryPolicy {
            max_attempts: retry.max_attempts,
            initial_backoff: retry.backoff_initial,
            multiplier: retry.backoff_multiplier,
            max_backoff: retry.backoff_max,
            jitter: retry.backoff_jitter,
            on_exhausted: retry.on_exhausted.clone(),
            on_poison: retry.on_poison,
        }
    }
}

/// Adds what one key of `[routes]` says.
fn add_route(routes: &mut Routes, pattern: &str, topic: &str) -> Result<(), event::Error> {
    match pattern {
        DEFAULT_ROUTE => routes.set_default(Some(topic).filter(|topic| !topic.is_empty())),
        _ => routes.set(pattern, topic),
    }
}

/// What those say otherwise that say anything.
fn overrides<T>(
    named: &BTreeMap<String, T>,
    retry: fn(&T) -> RetryOverride,
) -> BTreeMap<String, RetryOverride> {
    let named = named.iter().map(|(name, of)| (name.clone(), retry(of)));
    named.filter(|(_, retry)| !retry.is_empty()).collect()
}

impl LaneConfig {
    /// Makes a lane what is said here of it.
    fn apply(&self, lane: &mut LaneOptions) {
        lane.topics.clone_from(&self.topics);
        lane.weight = self.weight.unwrap_or(lane.weight);
        lane.expires_after = self.expires_after;
        lane.order = self.order;
        if let Some(cluster) = &self.cluster {
            lane.cluster.clone_from(cluster);
        }
        let wal = &mut lane.wal;
        wal.durability = self.durability.unwrap_or(wal.durability);
        wal.quota_bytes = self.quota.map_or(wal.quota_bytes, |quota| quota.0);
        wal.on_full = self.on_full.unwrap_or(wal.on_full);
    }
}

impl ClusterConfig {
    /// Whether it has a key of a link.
    fn says_of_link(&self) -> bool {
        let shown = |of: &Self, key| of.setting(key).map(|setting| setting.shown());
        let mut keys = Self::KEYS.iter().map(|key| key.name);
        keys.any(|key| key.starts_with("link.") && shown(self, key) != shown(&Self::default(), key))
    }

    /// What it says, and else as the main link is; the targets of that are no way to this cluster.
    fn link(&self, main: &LinkConfig) -> LinkConfig {
        let ping_url = self.ping_url.clone().unwrap_or(main.ping_url.clone());
        // Where no page is asked it has nothing to say.
        let ping_body = main.ping_body.clone().filter(|_| ping_url.is_some());
        LinkConfig {
            enabled: self.enabled.unwrap_or(main.enabled),
            targets: self.targets.clone(),
            require: self.require.unwrap_or(main.require),
            ping_body: self.ping_body.clone().unwrap_or(ping_body),
            ping_url,
            timeout: self.timeout.unwrap_or(main.timeout),
            backoff_initial: self.backoff_initial.unwrap_or(main.backoff_initial),
            backoff_multiplier: self.backoff_multiplier.unwrap_or(main.backoff_multiplier),
            backoff_max: self.backoff_max.unwrap_or(main.backoff_max),
            stable: self.stable.unwrap_or(main.stable),
            profile: self.profile.unwrap_or(main.profile),
        }
    }
}

impl TenantConfig {
    fn options(&self) -> TenantOptions {
        TenantOptions {
            cluster: self.cluster.clone(),
            quota_bytes: self.quota.map(|quota| quota.0),
            topic_prefix: self.topic_prefix.clone().unwrap_or_default(),
        }
    }
}

impl LinkConfig {
    pub(super) fn options(&self) -> LinkOptions {
        let by_profile = self.profile.backoff();
        let backoff = Backoff {
            initial: self.backoff_initial.unwrap_or(by_profile.initial),
            multiplier: self.backoff_multiplier.unwrap_or(by_profile.multiplier),
            max: self.backoff_max.unwrap_or(by_profile.max),
            stable: self.stable,
        };
        LinkOptions {
            enabled: self.enabled,
            targets: self.targets.clone(),
            require: self.require,
            ping_url: self.ping_url.clone(),
            ping_body: self.ping_body.clone(),
            timeout: self.timeout,
            profile: self.profile,
            backoff: (backoff != by_profile).then_some(backoff),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_the_defaults() {
        let config = Config::default();
        let made = config.exactly_once_options();
        assert_eq!(
            format!("{made:?}"),
            format!("{:?}", ExactlyOnceOptions::default())
        );
        let made = config.store_options();
        assert_eq!(
            format!("{made:?}"),
            format!("{:?}", StoreOptions::default())
        );
        assert!(config.settings().is_none());
        assert_eq!(config.event_options(), EventOptions::default());
    }
}
