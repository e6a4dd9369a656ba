//! Several clusters at once: a shipping thread for each.
//!
//! Owns which lanes are whose, what the clusters share, and that none waits for another. Must not know
//! how anything is shipped.
//!
//! Invariants: a lane is shipped to the cluster that its name says and to no other; together the
//! clusters keep within one flight budget, one drain rate and one quota of what is parked, of which
//! each has its part for itself, so that one that is down or slow takes nothing from the others.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use super::exactly_once::{self, ExactlyOnceOptions};
use super::{Drained, Error, Progress, ShipOptions, crew};
use crate::kafka::Settings;
use crate::store::{Lane, Store};

/// How records are shipped.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Delivery {
    /// At least once.
    AtLeastOnce(Box<ShipOptions>),
    /// In transactions, each record once for readers of what is committed.
    ExactlyOnce(Box<ExactlyOnceOptions>),
}

/// How shipping to one cluster ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended {
    /// What was done.
    pub drained: Drained,
    /// What a person should know although shipping went on.
    pub alarm: Option<String>,
}

impl Delivery {
    /// What is the same with and without transactions.
    #[must_use]
    pub fn ship(&self) -> &ShipOptions {
        match self {
            Self::AtLeastOnce(options) => options,
            Self::ExactlyOnce(options) => &options.ship,
        }
    }

    /// The same, to be changed.
    pub fn ship_mut(&mut self) -> &mut ShipOptions {
        match self {
            Self::AtLeastOnce(options) => options,
            Self::ExactlyOnce(options) => &mut options.ship,
        }
    }

    /// The same for one cluster of so many: with its part of what they share, and a link of its own.
    #[must_use]
    pub fn of_cluster(&self, cluster: &str, count: usize) -> Self {
        let mut own = self.clone();
        let ship = own.ship_mut();
        let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
        if cluster != crate::store::MAIN_CLUSTER {
            match ship.links.remove(cluster) {
                Some(link) => ship.link = link,
                None => ship.link.targets.clear(),
            }
        }
        ship.cluster = cluster.into();
        ship.max_in_flight_bytes /= count;
        ship.parked_quota /= count;
        let rate = ship.drain_rate.map(|rate| (rate.get() / count).max(1));
        ship.drain_rate = rate.and_then(NonZeroU64::new);
        own
    }

    /// Ships the lanes of one cluster, as [`drain`](super::drain) or [`exactly_once::drain`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn drain(
        &self,
        store: &Store,
        kafka: &Settings,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Ended, Error> {
        match self {
            Self::AtLeastOnce(options) => {
                let drained = super::drain(store, kafka, options, stop, progress)?;
                Ok(Ended {
                    drained,
                    alarm: None,
                })
            }
            Self::ExactlyOnce(options) => {
                let committed = exactly_once::drain(store, kafka, options, stop, progress)?;
                Ok(Ended {
                    drained: committed.drained,
                    alarm: committed.alarm,
                })
            }
        }
    }
}

/// The lanes of a cluster.
#[must_use]
pub fn lanes_of<'a>(store: &'a Store, cluster: &str) -> Vec<&'a Lane> {
    let lanes = store.lanes().iter();
    lanes.filter(|lane| lane.cluster() == cluster).collect()
}

/// The lanes whose cluster is none of these and that hold something: it waits until somebody says
/// where that cluster is.
#[must_use]
pub fn lanes_of_none<'a>(store: &'a Store, clusters: &BTreeMap<String, Settings>) -> Vec<&'a Lane> {
    let is_left = |lane: &&Lane| {
        let parked = store.parking_logs().filter(|log| log.lane() == lane.name());
        let parked: u64 = parked.map(|log| log.totals().queued).sum();
        !clusters.contains_key(lane.cluster()) && lane.totals().queued + parked > 0
    };
    store.lanes().iter().filter(is_left).collect()
}

/// Ships a store's lanes to these clusters, each on a thread of its own, and ends when the last one does.
/// A cluster without a lane is left alone. `progress` is called on this thread, with the cluster that it is
/// about.
///
/// Each cluster ends by itself, as [`Delivery::drain`]: what goes wrong with one concerns no other.
pub fn drain_all(
    store: &Store,
    clusters: &BTreeMap<String, Settings>,
    delivery: &Delivery,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&str, &Progress),
) -> BTreeMap<String, Result<Ended, Error>> {
    let wanted = |(name, _): &(&String, &Settings)| !lanes_of(store, name).is_empty();
    let wanted: Vec<(&String, &Settings)> = clusters.iter().filter(wanted).collect();
    let count = wanted.len();
    let (tell, told) = mpsc::channel();
    let ship = |&(name, kafka): &(&String, &Settings)| {
        let (tell, name, kafka) = (tell.clone(), name.clone(), kafka.clone());
        let own = delivery.of_cluster(&name, count);
        move || {
            let mut show = |now: &Progress| {
                // Nobody listens any more when this cannot be sent.
                let _ = tell.send((name.clone(), now.clone()));
            };
            own.drain(store, &kafka, stop, &mut show)
        }
    };
    let jobs = wanted.iter().map(ship).collect();
    drop(tell);
    let names = wanted.iter().map(|(name, _)| (*name).clone());
    // It owns what is told: where it ends early nobody listens any more.
    let show = move || told.iter().for_each(|(name, now)| progress(&name, &now));
    match crew::work_together(jobs, show) {
        Ok(ended) => names.zip(ended).collect(),
        Err(error) => {
            // None was begun, each for this reason.
            let why = |name| (name, Err(Error::Thread(error.kind().into())));
            names.map(why).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ship::LinkOptions;
    use crate::store::MAIN_CLUSTER;

    #[test]
    fn a_cluster_has_a_link_of_its_own_or_that_of_the_main_one_without_its_targets() {
        let mut ship = ShipOptions::default();
        ship.link.timeout = Duration::from_secs(7);
        ship.link.targets = vec!["a:1".into()];
        let own = LinkOptions {
            targets: vec!["b:1".into()],
            ..LinkOptions::default()
        };
        ship.links.insert("audit".into(), own.clone());
        let main = ship.link.clone();
        let all = Delivery::AtLeastOnce(Box::new(ship));
        let link = |cluster| all.of_cluster(cluster, 3).ship().link.clone();
        assert_eq!(link(MAIN_CLUSTER), main);
        assert_eq!(link("audit"), own);
        let rest = LinkOptions {
            targets: Vec::new(),
            ..main
        };
        assert_eq!(link("other"), rest);
    }
}
