//! A bare consumer: reads the partitions of a topic from their beginning, in no group.
//!
//! Serves the demonstration and the tests, which read back what was shipped. Invariant: a record
//! that is no longer there is an error, never skipped.

use std::fmt;
use std::str;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::classify::{ErrorClass, Persistence, classify};
use super::client::{Settings, configuration_error};
use super::{Error, code_of};

/// Most records handed over by one poll.
const RECORDS_PER_POLL: usize = 4096;

/// A consumer of whole partitions.
pub struct Consumer {
    inner: BaseConsumer<Silent>,
}

/// A record as it is read; borrows librdkafka's buffer.
pub struct Consumed<'a> {
    message: BorrowedMessage<'a>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Consumed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumed")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("partition_offset", &self.partition_offset())
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// Creates a consumer. Connects in the background.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] and [`Error::Configuration`], as [`Settings::check`].
    pub fn new(settings: &Settings) -> Result<Consumer, Error> {
        Consumer::isolated(settings.consumer_config()?, "read_committed")
    }

    /// One that reads what was written before: behind the mark of the last commit, which is no record, a
    /// broker would wait half a second for more.
    pub(super) fn of_the_past(settings: &Settings) -> Result<Consumer, Error> {
        let mut config = settings.consumer_config()?;
        config.set("fetch.wait.max.ms", "10");
        Consumer::isolated(config, "read_committed")
    }

    /// One that can be asked for [`bounds`](Consumer::bounds) alone, which takes in what belongs to
    /// transactions that are open or aborted. In no group it also ends at once: to leave one takes 100 ms.
    pub(super) fn of_everything(settings: &Settings) -> Result<Consumer, Error> {
        Consumer::isolated(settings.admin_config()?, "read_uncommitted")
    }

    fn isolated(mut config: ClientConfig, isolation: &str) -> Result<Consumer, Error> {
        let inner = config
            .set("isolation.level", isolation)
            .create_with_context(Silent)
            .map_err(|error| configuration_error(&error))?;
        Ok(Consumer { inner })
    }

    /// Reads these partitions (topic, number of partitions) from their beginning, and no others.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] if librdkafka refuses the list.
    pub fn assign(&mut self, topics: &[(&str, u32)]) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        for &(topic, partitions) in topics {
            for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
                list.add_partition_offset(topic, partition, Offset::Beginning)
                    .map_err(|error| configuration_error(&error))?;
            }
        }
        self.inner
            .assign(&list)
            .map_err(|error| configuration_error(&error))
    }

    /// Reads one partition from an exact place on, and no other.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] if librdkafka refuses the list.
    pub fn assign_at(
        &mut self,
        topic: &str,
        partition: i32,
        partition_offset: i64,
    ) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(partition_offset))
            .and_then(|()| self.inner.assign(&list))
            .map_err(|error| configuration_error(&error))
    }

    /// The place behind everything that was passed in a partition, whether it was handed over or
    /// belongs to an aborted transaction; `None` if the partition is not assigned.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        let list = self.inner.position().ok()?;
        let found = list.find_partition(topic, partition)?;
        match found.offset() {
            Offset::Offset(partition_offset) => Some(partition_offset),
            // Nothing was passed yet.
            _ => Some(-1),
        }
    }

    /// The partition offset behind the newest record of a partition that this consumer may see: in
    /// front of it no transaction is open.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], [`Error::UnknownTopic`] or [`Error::Refused`].
    pub fn end(&self, topic: &str, partition: i32, timeout: Duration) -> Result<i64, Error> {
        self.bounds(topic, partition, timeout).map(|(_, end)| end)
    }

    /// The partition offset of the oldest record that is still there, and [`Consumer::end`].
    ///
    /// # Errors
    ///
    /// As [`Consumer::end`].
    pub fn bounds(
        &self,
        topic: &str,
        partition: i32,
        timeout: Duration,
    ) -> Result<(i64, i64), Error> {
        let started = Instant::now();
        // Without it librdkafka looks for the leader before it has a connection, and again after 100 ms.
        let asked = self.inner.fetch_metadata(Some(topic), timeout);
        let left = || timeout.saturating_sub(started.elapsed());
        asked
            .and_then(|_| self.inner.fetch_watermarks(topic, partition, left()))
            .map_err(|error| Error::of("asking for the end", topic, timeout, code_of(&error)))
    }

    /// Hands over what has arrived, waiting up to `timeout` for the first; returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if a record is gone or cannot be read. A lost connection is no error:
    /// librdkafka connects again.
    pub fn poll(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(&Consumed<'_>),
    ) -> Result<usize, Error> {
        let mut count = 0;
        let mut wait = timeout;
        while count < RECORDS_PER_POLL {
            match self.inner.poll(wait) {
                Some(Ok(message)) => {
                    each(&Consumed { message });
                    count += 1;
                    wait = Duration::ZERO;
                }
                Some(Err(error)) if is_away(&error) || is_about_the_group(&error) => break,
                Some(Err(error)) => {
                    return Err(Error::of("reading", "", timeout, code_of(&error)));
                }
                None => break,
            }
        }
        Ok(count)
    }
}

impl Consumed<'_> {
    /// Its topic.
    pub fn topic(&self) -> &str {
        self.message.topic()
    }

    /// Its partition.
    pub fn partition(&self) -> i32 {
        self.message.partition()
    }

    /// Its place in the partition.
    pub fn partition_offset(&self) -> i64 {
        self.message.offset()
    }

    /// Its key.
    pub fn key(&self) -> Option<&[u8]> {
        self.message.key()
    }

    /// Its value.
    pub fn value(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    /// Its timestamp, in milliseconds since 1970.
    pub fn timestamp_millis(&self) -> Option<i64> {
        self.message.timestamp().to_millis()
    }

    /// The value of the first header of that name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.message.headers()?;
        let header = headers.iter().find(|header| header.key == name)?;
        str::from_utf8(header.value?).ok()
    }
}

/// Takes librdkafka's log lines and says nothing: what matters comes as an error of a poll.
pub(super) struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Silent {}

/// librdkafka reads only with the name of a group, asks for its coordinator, and reads without it: this
/// client is in none, and needs no right to any.
fn is_about_the_group(error: &KafkaError) -> bool {
    code_of(error) == RDKafkaErrorCode::GroupAuthorizationFailed
}

/// Whether an error only says that nobody is there now, which polling again may mend.
fn is_away(error: &KafkaError) -> bool {
    let class = classify(code_of(error), Persistence::No);
    matches!(class, ErrorClass::Network | ErrorClass::Transient)
}
