//! The topics met so far and how many partitions each has.
//!
//! Pure. Must not know how the counts are asked for. Invariants: a topic's partitions get
//! consecutive small numbers, which the budget and the flight use instead of names; a count does
//! not change while the shipper runs, so that a key stays in its partition.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

/// One topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    /// Index of its partition 0; the others follow.
    first: usize,
    pub(super) count: NonZeroU32,
}

impl Topic {
    /// The index of one of its partitions.
    pub(super) fn index(self, partition: u32) -> usize {
        assert!(partition < self.count.get(), "no such partition");
        self.first + usize::try_from(partition).unwrap_or(usize::MAX)
    }
}

/// Topics by name.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_name: HashMap<Arc<str>, Topic>,
    /// The topic asked for last: most records go where the one before them went.
    last: Option<(Arc<str>, Topic)>,
    /// In the order of their indexes.
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

    /// Remembers a topic's count; the first one stays.
    pub(super) fn insert(&mut self, name: &Arc<str>, count: NonZeroU32) {
        if self.by_name.contains_key(name) {
            return;
        }
        let topic = Topic {
            first: self.next_index,
            count,
        };
        self.next_index += usize::try_from(count.get()).unwrap_or(usize::MAX);
        self.names.push((Arc::clone(name), topic));
        self.by_name.insert(Arc::clone(name), topic);
    }

    /// The topic and partition that an index stands for.
    pub(super) fn named(&self, index: usize) -> Option<(&Arc<str>, i32)> {
        let after = self
            .names
            .partition_point(|(_, topic)| topic.first <= index);
        let (name, topic) = self.names.get(after.checked_sub(1)?)?;
        Some((name, i32::try_from(index - topic.first).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_of_topics_do_not_overlap_and_lead_back_to_them() {
        let mut topics = Topics::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        topics.insert(&a, NonZeroU32::new(3).unwrap());
        topics.insert(&b, NonZeroU32::new(2).unwrap());
        let index = topics.get(&b).unwrap().index(1);
        assert_eq!(index, 4);
        assert_eq!(topics.named(index), Some((&b, 1)));
        assert_eq!(topics.named(2), Some((&a, 2)));
    }

    #[test]
    fn a_count_stays_as_it_was_first_known() {
        let mut topics = Topics::default();
        let name: Arc<str> = "a".into();
        topics.insert(&name, NonZeroU32::new(3).unwrap());
        topics.insert(&name, NonZeroU32::new(6).unwrap());
        assert_eq!(topics.get(&name).unwrap().count.get(), 3);
    }
}
