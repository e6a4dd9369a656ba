//! What the cluster says about the partitions of a topic: how many there are, and which nobody leads.
//!
//! Owns the question, and which partition a record goes to by the answer. Must not know what is done with
//! one that takes nothing.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::committer::Committer;
use super::transact::Carried;
use crate::kafka::{self, Partitions};
use crate::message::Message;
use crate::ship::partition;
use crate::ship::topics::Topic;
use crate::store::Entry;

/// How long the cluster may take to tell about a topic; bounds how late a stop is seen.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

impl Committer<'_> {
    /// Asks the cluster for the partitions of a topic; the error is silence.
    pub(super) fn ask(&mut self, topic: &Arc<str>) -> Result<(), String> {
        let asked = self.producer.producer().partitions(topic, METADATA_TIMEOUT);
        match asked {
            Ok(partitions) => self.learn(topic, &partitions),
            Err(kafka::Error::Unreachable { name, .. }) => {
                return Err(format!("no answer about topic `{topic}`: {name}"));
            }
            // Missing or forbidden: it takes nothing.
            Err(_) => _ = self.topics.insert(topic, 0),
        }
        Ok(())
    }

    /// Whether a topic of these records has other partitions than was known, or is gone: then nobody
    /// was refused, and what is placed anew goes by that.
    pub(super) fn has_moved(&mut self, carried: &[Carried]) -> bool {
        let indexes: BTreeSet<u32> = carried.iter().map(|carried| carried.partition).collect();
        let of = |index: u32| {
            let (topic, ..) = self.topics.named(usize::try_from(index).ok()?)?;
            Some(Arc::clone(topic))
        };
        let topics: BTreeSet<Arc<str>> = indexes.into_iter().filter_map(of).collect();
        let mut has_moved = false;
        for topic in &topics {
            let before = self.topics.get(topic);
            // Silence says nothing about it, and each question would wait for as long.
            if self.is_stopped() || self.ask(topic).is_err() {
                break;
            }
            has_moved |= self.topics.get(topic) != before;
        }
        has_moved
    }

    /// Whether the cluster had no leader for a partition when it was asked last.
    pub(super) fn is_leaderless(&self, index: usize) -> bool {
        // Looking into an empty set makes a hash all the same.
        !self.leaderless.is_empty() && self.leaderless.contains(&index)
    }

    /// The same, and asked anew where it had none; the error is silence.
    pub(super) fn is_still_leaderless(
        &mut self,
        topic: &Arc<str>,
        index: usize,
    ) -> Result<bool, String> {
        if self.is_leaderless(index) {
            self.ask(topic)?;
        }
        Ok(self.is_leaderless(index))
    }

    /// The partitions of a topic, and which of them have a leader.
    fn learn(&mut self, topic: &Arc<str>, partitions: &Partitions) {
        self.topics.insert(topic, partitions.count);
        let Some(known) = self.topics.get(topic) else {
            return;
        };
        for number in 0..known.count {
            let index = known.index(number);
            if partitions.leaderless.contains(&number) {
                self.leaderless.insert(index);
            } else {
                self.leaderless.remove(&index);
            }
        }
    }
}

/// The partition a record names, else the one its key or number chooses; `None`: the topic does not
/// have it.
pub(super) fn partition_of(entry: &Entry, message: &Message, topic: Topic) -> Option<u32> {
    let count = NonZeroU32::new(topic.count)?;
    match message.partition {
        None => Some(partition::choose(
            entry.origin,
            message.key.as_deref(),
            count,
        )),
        Some(named) => u32::try_from(named).ok().filter(|&n| n < count.get()),
    }
}
