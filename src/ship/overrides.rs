//! Which retry policy a record has: that of all, and what its lane, topic and tenant say otherwise.
//!
//! Pure. Must not know when it is asked. Invariants: each field has the value of the most specific that
//! says one: the tenant's, else the topic's, else the lane's, else that of all. Lanes and topics are
//! named as in the options, without cluster and prefix.

use std::collections::BTreeMap;
use std::time::Duration;

use super::retry::{OnExhausted, OnPoison, RetryPolicy};
use super::topics::Topics;
use super::{FailedRecord, ShipOptions};
use crate::kafka::Failure;
use crate::message::Message;
use crate::store::{Entry, Lane, Store};

/// What the records of a lane, topic or tenant do otherwise than [`ShipOptions::retry`] says. What is
/// `None` is as there.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RetryOverride {
    /// As [`RetryPolicy::max_attempts`].
    pub max_attempts: Option<u32>,
    /// As [`RetryPolicy::initial_backoff`].
    pub initial_backoff: Option<Duration>,
    /// As [`RetryPolicy::multiplier`].
    pub multiplier: Option<f64>,
    /// As [`RetryPolicy::max_backoff`].
    pub max_backoff: Option<Duration>,
    /// As [`RetryPolicy::jitter`].
    pub jitter: Option<bool>,
    /// As [`RetryPolicy::on_exhausted`].
    pub on_exhausted: Option<OnExhausted>,
    /// As [`RetryPolicy::on_poison`].
    pub on_poison: Option<OnPoison>,
}

impl RetryOverride {
    /// Whether nothing is otherwise.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            max_attempts: None,
            initial_backoff: None,
            multiplier: None,
            max_backoff: None,
            jitter: None,
            on_exhausted: None,
            on_poison: None,
        } = self
        else {
            return false;
        };
        true
    }

    fn apply(&self, policy: &mut RetryPolicy) {
        let with = self.clone();
        policy.max_attempts = with.max_attempts.unwrap_or(policy.max_attempts);
        policy.initial_backoff = with.initial_backoff.unwrap_or(policy.initial_backoff);
        policy.multiplier = with.multiplier.unwrap_or(policy.multiplier);
        policy.max_backoff = with.max_backoff.unwrap_or(policy.max_backoff);
        policy.jitter = with.jitter.unwrap_or(policy.jitter);
        if let Some(on_exhausted) = with.on_exhausted {
            policy.on_exhausted = on_exhausted;
        }
        policy.on_poison = with.on_poison.unwrap_or(policy.on_poison);
    }
}

/// Whose records have another retry policy, by name. A tenant's counts before a topic's, and that before
/// a lane's, field by field.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RetryOverrides {
    /// By lane, as the store's options name it: for all its clusters and tenants.
    pub lanes: BTreeMap<String, RetryOverride>,
    /// By topic, without the prefix of a tenant.
    pub topics: BTreeMap<String, RetryOverride>,
    /// By tenant.
    pub tenants: BTreeMap<String, RetryOverride>,
}

impl RetryOverrides {
    fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.topics.is_empty() && self.tenants.is_empty()
    }

    fn of(&self, all: &RetryPolicy, lane: &str, topic: &str, tenant: Option<&str>) -> RetryPolicy {
        let mut policy = all.clone();
        let by_tenant = tenant.and_then(|tenant| self.tenants.get(tenant));
        // The most specific last.
        let found = [self.lanes.get(lane), self.topics.get(topic), by_tenant];
        for found in found.into_iter().flatten() {
            found.apply(&mut policy);
        }
        policy
    }
}

/// The policy of a record of a lane.
pub(super) fn of_record(
    options: &ShipOptions,
    store: &Store,
    lane: &Lane,
    entry: &Entry,
) -> RetryPolicy {
    let overrides = &options.retry_overrides;
    if overrides.is_empty() {
        return options.retry.clone();
    }
    let parts = lane.parts();
    let (tenant, topic) = match &entry.message {
        Ok(message) => tenant_of(store, lane, message),
        Err(_) => (parts.tenant.as_deref(), ""),
    };
    overrides.of(&options.retry, &parts.lane, topic, tenant)
}

/// The policy by which a partition of a topic waits that takes nothing of a lane: records of several tenants
/// may wait there, so those count that their topic alone tells.
pub(super) fn of_topic(
    options: &ShipOptions,
    store: &Store,
    lane: &Lane,
    topic: &str,
) -> RetryPolicy {
    let overrides = &options.retry_overrides;
    if overrides.is_empty() {
        return options.retry.clone();
    }
    let (tenant, plain) = store.told_of_topic(topic);
    overrides.of(&options.retry, &lane.parts().lane, plain, tenant)
}

/// The tenant of a record, and its topic without the prefix. What its lane says stays true when the
/// options change.
fn tenant_of<'a>(
    store: &'a Store,
    lane: &'a Lane,
    message: &'a Message,
) -> (Option<&'a str>, &'a str) {
    let (told, plain) = store.told_of(message);
    (lane.parts().tenant.as_deref().or(told), plain)
}

/// How dead letters for a topic-partition wait that takes none: as records of that topic do.
pub(super) fn of_letters(
    options: &ShipOptions,
    store: &Store,
    topics: &Topics,
    index: usize,
) -> RetryPolicy {
    match topics.named(index) {
        Some((topic, ..)) => of_topic(options, store, store.route(topic), topic),
        None => options.retry.clone(),
    }
}

/// What a recovery callback is shown.
pub(super) fn failed<'a>(
    store: &'a Store,
    lane: &'a Lane,
    entry: &Entry,
    message: &'a Message,
    attempts: u32,
    failure: &'a Failure,
) -> FailedRecord<'a> {
    FailedRecord {
        seq: entry.origin,
        lane: lane.name(),
        tenant: tenant_of(store, lane, message).0,
        message,
        attempts,
        failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All eight ways to say something or nothing at the three places.
    #[test]
    fn the_tenants_policy_counts_before_the_topics_that_before_the_lanes_and_that_before_all() {
        for said in 0..8_u32 {
            let with = |bit: u32, attempts| {
                let over = RetryOverride {
                    max_attempts: (said & bit != 0).then_some(attempts),
                    // Each says one thing that no other does.
                    multiplier: (bit == 1).then_some(1.5),
                    jitter: (bit == 2).then_some(false),
                    on_poison: (bit == 4).then_some(OnPoison::Halt),
                    ..RetryOverride::default()
                };
                [("x".to_owned(), over)].into()
            };
            let overrides = RetryOverrides {
                lanes: with(1, 1),
                topics: with(2, 2),
                tenants: with(4, 3),
            };
            let all = RetryPolicy::default();
            for met in 0..8_u32 {
                let name = |bit: u32| if met & bit == 0 { "y" } else { "x" };
                let policy = overrides.of(&all, name(1), name(2), Some(name(4)));
                let both = said & met;
                let expected = match both {
                    4.. => 3,
                    2 | 3 => 2,
                    1 => 1,
                    _ => all.max_attempts,
                };
                assert_eq!(policy.max_attempts, expected, "said {said}, met {met}");
                assert_eq!(policy.multiplier, if met & 1 == 0 { 2.0 } else { 1.5 });
                assert_eq!(policy.jitter, met & 2 == 0);
                assert_eq!(policy.on_poison == OnPoison::Halt, met & 4 != 0);
            }
            let nobody = overrides.of(&all, "y", "y", None);
            assert_eq!(nobody.max_attempts, all.max_attempts);
        }
    }
}
