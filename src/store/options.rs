//! What a store is opened with: its lanes, and what each of them is for.
//!
//! Owns the shape of the options and their defaults. It must not know files, nor which record goes
//! where: that is `route` and `router`.
//!
//! Invariants: options that pass [`StoreOptions::check`] can be refused by the disk alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    ClockOptions, DeadLetterOptions, Error, LANE_NAME_LEN_MAX, LaneName, MAIN_CLUSTER,
    ScheduleOptions, is_lane_name, router::Router,
};
use crate::wal;

/// The lane that every store has.
pub const DEFAULT_LANE: &str = "default";
/// The header that names a record's tenant, unless [`StoreOptions::tenant_header`] says otherwise.
pub const TENANT_HEADER: &str = "tenant";
/// Most lanes that options may make, those of tenants and clusters among them: each is a log with files
/// and threads of its own.
pub const LANES_MAX: usize = 64;
/// Largest weight. Beyond it the lightest lane would wait for gigabytes between two of its turns.
pub const WEIGHT_MAX: u32 = 1000;

/// Which records of a lane may overtake which, for one partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Order {
    /// None: first copies are in Kafka in the order of their numbers.
    #[default]
    Fifo,
    /// Those of a refused batch may be overtaken. A permission that nothing makes use of yet: it is
    /// shipped as [`Order::Fifo`].
    Loose,
    /// After an outage the newest go at once while the backlog drains beside them; the order holds
    /// inside each of the two streams. Not in transactions.
    LiveFirst,
}

/// What one lane is opened with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaneOptions {
    /// How its log is kept: durability, quota, what happens when it is full. All of it is the
    /// lane's own, so each lane may hold `memory_budget` bytes of memory.
    pub wal: wal::Options,
    /// The topics whose records go here, by name or by pattern: `*` stands for any characters, also
    /// none. Of the patterns that fit a topic the one with the most other characters wins.
    pub topics: Vec<String>,
    /// The lane's share of the link beside other lanes that have something to ship, in bytes:
    /// 1 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// Age beyond which a record is settled as expired instead of shipped; `None`: never.
    pub expires_after: Option<Duration>,
    /// Which of its records may overtake which.
    pub order: Order,
    /// The cluster that its records go to, unless their topic or tenant has another. What is in the
    /// lane when this is changed goes where it was to go: see [`LaneName`](super::LaneName).
    pub cluster: String,
}

impl LaneOptions {
    /// A lane on a log with these options, of weight 1, whose records never expire and go to
    /// [`MAIN_CLUSTER`].
    #[must_use]
    pub fn new(wal: wal::Options) -> Self {
        Self {
            wal,
            topics: Vec::new(),
            weight: 1,
            expires_after: None,
            order: Order::Fifo,
            cluster: MAIN_CLUSTER.into(),
        }
    }
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self::new(wal::Options::default())
    }
}

/// What is different for the records of one tenant: those whose header
/// [`tenant_header`](StoreOptions::tenant_header) is its name, and, without that header, those whose
/// topic begins with its prefix.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TenantOptions {
    /// The cluster that they go to. Then they are kept in lanes of their own.
    pub cluster: Option<String>,
    /// Most bytes of the files of each lane of it. Then they are kept in lanes of their own, and one
    /// that is full concerns nobody else.
    pub quota_bytes: Option<u64>,
    /// What their topics begin with in Kafka: it is put in front where it is missing. Lanes and topics
    /// are named without it.
    pub topic_prefix: String,
}

impl TenantOptions {
    /// Whether it has lanes of its own.
    pub(super) fn is_apart(&self) -> bool {
        self.cluster.is_some() || self.quota_bytes.is_some()
    }
}

/// What a store is opened with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// The lane of every topic that no other lane claims. A lane that is found in the directory but
    /// not named in [`lanes`](Self::lanes) is opened with these, too.
    pub default: LaneOptions,
    /// The other lanes, by name.
    pub lanes: BTreeMap<String, LaneOptions>,
    /// The clusters of topics that do not go to that of their lane, by the topic's name.
    pub topic_clusters: BTreeMap<String, String>,
    /// What is different for whom.
    pub tenants: BTreeMap<String, TenantOptions>,
    /// The header that names a record's tenant. A name that is not among
    /// [`tenants`](Self::tenants) is as none.
    pub tenant_header: String,
    /// How it tells the time.
    pub clock: ClockOptions,
    /// How dead letters are kept.
    pub dead_letters: DeadLetterOptions,
    /// How what is due later is kept.
    pub schedule: ScheduleOptions,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            default: LaneOptions::default(),
            lanes: BTreeMap::new(),
            topic_clusters: BTreeMap::new(),
            tenants: BTreeMap::new(),
            tenant_header: TENANT_HEADER.into(),
            clock: ClockOptions::default(),
            dead_letters: DeadLetterOptions::default(),
            schedule: ScheduleOptions::default(),
        }
    }
}

impl StoreOptions {
    /// A store with the one lane `default`.
    #[must_use]
    pub fn new(wal: wal::Options) -> Self {
        Self {
            default: LaneOptions::new(wal),
            ..Self::default()
        }
    }

    /// Lanes `high`, `normal` and `low` that share the link 8 : 4 : 1, all on logs with these
    /// options. `default` weighs as much as `normal`.
    #[must_use]
    pub fn priorities(wal: &wal::Options) -> Self {
        let lane = |weight| LaneOptions {
            weight,
            ..LaneOptions::new(wal.clone())
        };
        let lanes = [("high", 8), ("normal", 4), ("low", 1)];
        Self {
            default: lane(4),
            lanes: lanes
                .map(|(name, weight)| (name.into(), lane(weight)))
                .into(),
            ..Self::default()
        }
    }

    /// Checks everything that can be told without a disk.
    ///
    /// # Errors
    ///
    /// [`Error::Options`] names the lane and what is wrong with it, [`Error::Lane`] what its log says;
    /// [`Error::Routing`] names the topic or tenant that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// All that [`check`](Self::check) refuses, in its order.
    pub(crate) fn problems(&self) -> Vec<Error> {
        let mut problems = self.name_problems();
        let are_named = problems.is_empty();
        problems.extend(self.dead_letters.check().err());
        problems.extend(self.schedule.check().err());
        for (name, options) in self.all() {
            if !(1..=WEIGHT_MAX).contains(&options.weight) {
                let reason = format!("its weight is {}: use 1 to {WEIGHT_MAX}", options.weight);
                problems.push(refused(name, reason));
            }
            if options.expires_after.is_some_and(|after| after.is_zero()) {
                let reason = "its expires_after is zero: no record would be shipped";
                problems.push(refused(name, reason.into()));
            }
            let log = options.wal.check().map_err(Error::of_lane(name));
            problems.extend(log.err());
        }
        // Routes lead to lanes by their names; the lanes of tenants are as those.
        if are_named {
            let is_good = problems.is_empty();
            match Router::new(self) {
                Ok(router) if is_good => problems.extend(self.problems_of_tenants(&router)),
                Ok(_) => {}
                Err(error) => problems.push(error),
            }
        }
        problems
    }

    fn name_problems(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        for name in self.lanes.keys() {
            if !is_lane_name(name) {
                let reason = format!(
                    "a name is 1 to {LANE_NAME_LEN_MAX} of a-z, 0-9, '-' and '_', not {} bytes of anything",
                    name.len()
                );
                problems.push(refused(name, reason));
            }
            if name == DEFAULT_LANE {
                problems.push(refused(
                    name,
                    "its options stand apart from the others'".into(),
                ));
            }
        }
        for (name, options) in self.all() {
            if !is_lane_name(&options.cluster) {
                let reason = format!("no cluster is called {:?}", options.cluster);
                problems.push(refused(name, reason));
            }
        }
        problems
    }

    /// What the quota of a tenant makes wrong.
    fn problems_of_tenants(&self, router: &Router) -> Vec<Error> {
        let of = |name: &LaneName| {
            let checked = self.of(name).wal.check();
            checked.map_err(Error::of_lane(&name.to_string())).err()
        };
        router.names().iter().filter_map(of).collect()
    }

    /// What a lane of this name is opened with: as the one that its first part names, with the quota of
    /// its tenant.
    pub(super) fn of(&self, name: &LaneName) -> LaneOptions {
        let mut all = self.all();
        let found = all.find(|(lane, _)| *lane == name.lane);
        let mut options = found.map_or_else(|| self.of_unnamed(), |(_, lane)| lane.clone());
        let tenant = name.tenant.as_ref().and_then(|name| self.tenants.get(name));
        if let Some(quota) = tenant.and_then(|tenant| tenant.quota_bytes) {
            options.wal.quota_bytes = Some(quota);
        }
        options
    }

    /// The clusters that are named here; [`MAIN_CLUSTER`] always.
    #[must_use]
    pub fn clusters(&self) -> BTreeSet<&str> {
        let lanes = self.all().map(|(_, lane)| lane.cluster.as_str());
        let topics = self.topic_clusters.values().map(String::as_str);
        let tenants = self.tenants.values();
        let tenants = tenants.filter_map(|tenant| tenant.cluster.as_deref());
        let named = lanes.chain(topics).chain(tenants);
        named.chain([MAIN_CLUSTER]).collect()
    }

    /// Every lane that is named here, `default` first, the others by name.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &LaneOptions)> {
        let others = self.lanes.iter().map(|(name, lane)| (name.as_str(), lane));
        std::iter::once((DEFAULT_LANE, &self.default)).chain(others)
    }

    /// What a lane is opened with that is on disk and not named here: the log of `default`, and no
    /// topics, so that it drains and grows no more. Nothing expires that was not told to.
    pub(super) fn of_unnamed(&self) -> LaneOptions {
        LaneOptions {
            weight: self.default.weight,
            ..LaneOptions::new(self.default.wal.clone())
        }
    }
}

fn refused(lane: &str, reason: String) -> Error {
    let lane = lane.chars().take(LANE_NAME_LEN_MAX).collect();
    Error::Options { lane, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn the_preset_passes_and_weighs_8_4_1() {
        let options = StoreOptions::priorities(&wal::Options::default());
        options.check().unwrap();
        let weights: Vec<(&str, u32)> = options.all().map(|(n, lane)| (n, lane.weight)).collect();
        assert_eq!(
            weights,
            [("default", 4), ("high", 8), ("low", 1), ("normal", 4)]
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn wrong_options_are_refused_with_the_name_of_the_lane() {
        let with = |name: &str, lane: LaneOptions| {
            let mut options = StoreOptions::default();
            options.lanes.insert(name.into(), lane);
            options.check().unwrap_err().to_string()
        };
        let weight = |weight| LaneOptions {
            weight,
            ..LaneOptions::default()
        };
        let small = LaneOptions::new(wal::Options {
            segment_size: 1,
            ..wal::Options::default()
        });
        for (text, part) in [
            (with("A", LaneOptions::default()), "lane A"),
            (with("default", LaneOptions::default()), "lane default"),
            (with("x", weight(0)), "weight is 0"),
            (with("x", weight(1001)), "weight is 1001"),
            (with("x", small), "lane x: segment_size is 1"),
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
