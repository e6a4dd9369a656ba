//! One value in the offsets of a consumer group that no consumer is in: a transaction writes it, one
//! request reads it.
//!
//! Owns the group's name and its place, a topic-partition. Must not know what the value means.
//! Invariants: what a transaction wrote is read once it was committed, and never before; while one
//! that wrote to it is open, nothing is read at all.

use std::fmt;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Settings, configuration_error};
use super::consumer::Silent;
use super::{Error, code_of};

/// A value in the offsets of a group.
pub struct Register {
    settings: Settings,
    group: String,
    topic: String,
    partition: i32,
    pub(super) metadata: ConsumerGroupMetadata,
    /// What told the metadata serves the first read, too; each other has one of its own, as they hold
    /// connections.
    first: Option<BaseConsumer<Silent>>,
}

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Registered {
    /// Nothing: nobody ever wrote to it, or the cluster forgot it.
    Nothing,
    /// What the last committed transaction wrote.
    Value(String),
    /// A transaction that wrote to it is open: look again later.
    Unstable,
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("group", &self.group)
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl Register {
    /// The register of a group under a topic-partition, which must exist when it is written to.
    /// Connects in the background.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] and [`Error::Configuration`], as [`Settings::check`].
    pub fn new(
        settings: &Settings,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Register, Error> {
        let consumer = consumer(settings, group, "read_committed")?;
        let metadata = consumer.group_metadata();
        let metadata = metadata.ok_or_else(|| Error::Configuration {
            reason: format!("there can be no group `{group}`"),
        })?;
        Ok(Register {
            settings: settings.clone(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition,
            metadata,
            first: Some(consumer),
        })
    }

    /// Reads it. Blocks up to twice `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] or [`Error::Refused`].
    pub fn read(&mut self, timeout: Duration) -> Result<Registered, Error> {
        let stable = match self.first.take() {
            Some(consumer) => consumer,
            None => consumer(&self.settings, &self.group, "read_committed")?,
        };
        let read = self.fetch(&stable, timeout);
        if !matches!(read, Err(Error::Unreachable { .. })) {
            return read;
        }
        // librdkafka asks again and again while the answer is that it is not stable, and tells nobody.
        let any = consumer(&self.settings, &self.group, "read_uncommitted")?;
        self.fetch(&any, timeout).map(|_| Registered::Unstable)
    }

    fn fetch(
        &self,
        consumer: &BaseConsumer<Silent>,
        timeout: Duration,
    ) -> Result<Registered, Error> {
        const ACTION: &str = "reading the offsets of a group";
        let failed = |code| Error::of(ACTION, &self.topic, timeout, code);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, self.partition);
        let list = consumer.committed_offsets(list, timeout).map_err(|error| {
            // Who may not use the group is told so by an event only.
            let mut events = std::iter::from_fn(|| consumer.poll(Duration::ZERO));
            let refused = RDKafkaErrorCode::GroupAuthorizationFailed;
            let is_refused = events.any(|event| event.is_err_and(|e| code_of(&e) == refused));
            failed(if is_refused { refused } else { code_of(&error) })
        })?;
        let Some(found) = list.find_partition(&self.topic, self.partition) else {
            return Err(failed(RDKafkaErrorCode::UnknownPartition));
        };
        let code = found.error().err().map(|error| code_of(&error));
        match (code, found.offset()) {
            (None, Offset::Offset(_)) => Ok(Registered::Value(found.metadata().to_owned())),
            (None, _) => Ok(Registered::Nothing),
            (Some(code), _) => Err(failed(code)),
        }
    }

    /// What a transaction is to write.
    pub(super) fn entry(&self, number: i64, value: &str) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        let mut entry = list.add_partition(&self.topic, self.partition);
        // Only an offset below zero is refused; without one nothing would be written.
        let _ = entry.set_offset(Offset::Offset(number.max(0)));
        entry.set_metadata(value);
        list
    }
}

/// A consumer that is in no group, and names one. One that reads what is committed reads what is stable.
fn consumer(
    settings: &Settings,
    group: &str,
    isolation: &str,
) -> Result<BaseConsumer<Silent>, Error> {
    settings
        .consumer_config()?
        .set("group.id", group)
        .set("isolation.level", isolation)
        .create_with_context(Silent)
        .map_err(|error| configuration_error(&error))
}
