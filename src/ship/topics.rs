//! The topics met so far and how many partitions each has.
//!
//! Pure. Must not know how the counts are asked for. Invariants: a topic's partitions get
//! consecutive small numbers, which the budget, the flight and the health use instead of names,
//! and one more stands for records that no partition can be named for; a number once given keeps
//! its meaning.

use std::collections::HashMap;
use std::sync::Arc;

/// One topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    /// Index of its partition 0; the others follow, and then the one for no partition.
    first: usize,
    /// How many partitions it has; 0: the cluster does not have it, or does not say.
    pub(super) count: u32,
    /// Its own number, from 0 on.
    pub(super) ordinal: usize,
}

impl Topic {
    /// The index of one of its partitions.
    pub(super) fn index(self, partition: u32) -> usize {
        assert!(partition < self.count, "no such partition");
        self.first + to_usize(partition)
    }

    /// The index for records that no partition can be named for.
    pub(super) fn nowhere(self) -> usize {
        self.first + to_usize(self.count)
    }
}

fn to_usize(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Topics by name.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_name: HashMap<Arc<str>, Topic>,
    /// The topic asked for last: most records go where the one before them went.
    last: Option<(Arc<str>, Topic)>,
    /// In the order of their indexes, with those of earlier counts.
    names: Vec<(Arc<str>, Topic)>,
    next_index: usize,
}

impl Topics {
    /// What is known of a topic.
    pub(super) fn get(&mut self, name: &Arc<str>) -> Option<Topic> {
        if let Some((last, topic)) = &self.last
            && Arc::ptr_eq(last, name)
        {
            return Some(*topic);
        }
        let topic = *self.by_name.get(name)?;
        self.last = Some((Arc::clone(name), topic));
        Some(topic)
    }

    /// Remembers a topic's count. With another count than before it gets indexes of its own; true
    /// if it did.
    pub(super) fn insert(&mut self, name: &Arc<str>, count: u32) -> bool {
        let known = self.by_name.get(name);
        if known.is_some_and(|topic| topic.count == count) {
            return false;
        }
        let topic = Topic {
            first: self.next_index,
            count,
            ordinal: known.map_or(self.by_name.len(), |topic| topic.ordinal),
        };
        self.next_index += to_usize(count) + 1;
        self.names.push((Arc::clone(name), topic));
        self.by_name.insert(Arc::clone(name), topic);
        self.last = None;
        true
    }

    /// How many indexes were given.
    pub(super) fn indexes(&self) -> usize {
        self.next_index
    }

    /// How many topics were met.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The topic that an index stands for, and its partition if it is for one.
    pub(super) fn named(&self, index: usize) -> Option<(&Arc<str>, Topic, Option<u32>)> {
        let after = self
            .names
            .partition_point(|(_, topic)| topic.first <= index);
        let (name, topic) = self.names.get(after.checked_sub(1)?)?;
        let partition = u32::try_from(index - topic.first).ok()?;
        Some((name, *topic, (partition < topic.count).then_some(partition)))
    }

    /// Whether an index is of the count that holds now.
    pub(super) fn is_current(&self, index: usize) -> bool {
        self.named(index)
            .is_some_and(|(name, topic, _)| self.by_name.get(name) == Some(&topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_of_topics_do_not_overlap_and_lead_back_to_them() {
        let mut topics = Topics::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        topics.insert(&a, 3);
        topics.insert(&b, 2);
        let topic = topics.get(&b).unwrap();
        assert_eq!((topic.index(1), topic.nowhere()), (5, 6));
        let found = |index| topics.named(index).map(|(name, _, p)| (name.clone(), p));
        assert_eq!(found(5), Some((b.clone(), Some(1))));
        assert_eq!(found(6), Some((b.clone(), None)));
        assert_eq!(found(2), Some((a.clone(), Some(2))));
        assert_eq!(found(3), Some((a.clone(), None)));
        assert_eq!(topics.indexes(), 7);
    }

    #[test]
    fn another_count_gets_indexes_of_its_own_and_the_old_ones_keep_their_meaning() {
        let mut topics = Topics::default();
        let name: Arc<str> = "a".into();
        assert!(topics.insert(&name, 0));
        let nowhere = topics.get(&name).unwrap().nowhere();
        assert!(topics.insert(&name, 3) && !topics.insert(&name, 3));
        let topic = topics.get(&name).unwrap();
        assert_ne!(topic.index(0), nowhere);
        assert_eq!(topics.named(nowhere).unwrap().2, None);
        assert!(topics.is_current(topic.index(0)) && !topics.is_current(nowhere));
        assert_eq!((topic.ordinal, topics.len()), (0, 1));
    }
}
