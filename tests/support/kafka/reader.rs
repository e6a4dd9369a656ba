//! Reads topics back: what they hold, and how far they have grown.
//!
//! Owns what a consumer is told. Knows nothing of brokers or faults. Invariant: it reads what is
//! there now, to the end that was there when it began.

use std::thread;
use std::time::{Duration, Instant};
use std::{fs, iter};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Kafka, START_DEADLINE};

/// Longest wait for one answer.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// Longest time for reading a topic to its end.
const READ_DEADLINE: Duration = Duration::from_secs(120);

/// Longest wait for the end of transactions: the one of a process that was killed stays open.
const MARKERS_DEADLINE: Duration = Duration::from_secs(10);

/// A record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Consumed {
    pub(crate) partition: i32,
    pub(crate) partition_offset: i64,
    pub(crate) timestamp_millis: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Consumed {
    /// The value of the first header called `name`, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

/// Reading.
impl Kafka {
    /// A look at how far a topic has grown, on a connection that stays.
    pub(crate) fn watch(&self, topic: &str) -> Watch {
        let consumer = self.consumer();
        let metadata = consumer
            .fetch_metadata(Some(topic), ANSWER_DEADLINE)
            .unwrap();
        let partitions = metadata.topics()[0].partitions().iter();
        Watch {
            partitions: partitions.map(|partition| partition.id()).collect(),
            topic: topic.to_owned(),
            consumer,
        }
    }

    /// Reads every record a topic holds now, partition by partition, each in order.
    pub(crate) fn consume(&self, topic: &str) -> Vec<Consumed> {
        let mut records = Vec::new();
        self.consume_each(topic, |record| records.push(record));
        records.sort_by_key(|r| (r.partition, r.partition_offset));
        records
    }

    /// Hands over every record a topic holds now; order is kept within a partition only.
    ///
    /// A commit is acknowledged before its markers are in the partitions, so it waits for them.
    pub(crate) fn consume_each(&self, topic: &str, mut each: impl FnMut(Consumed)) {
        let begun = Instant::now();
        let consumer = self.consumer();
        let metadata = consumer
            .fetch_metadata(Some(topic), ANSWER_DEADLINE)
            .unwrap();
        let uncommitted: BaseConsumer = self
            .client_config()
            .set("isolation.level", "read_uncommitted")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        let mut ends = Vec::new();
        for partition in metadata.topics()[0].partitions() {
            let watermarks = |consumer: &BaseConsumer| {
                let watermarks = consumer.fetch_watermarks(topic, partition.id(), ANSWER_DEADLINE);
                watermarks.unwrap()
            };
            let (_, written) = watermarks(&uncommitted);
            let (low, high) = iter::repeat_with(|| watermarks(&consumer))
                .take_while(|_| begun.elapsed() < MARKERS_DEADLINE)
                .find(|(_, high)| *high >= written)
                .unwrap_or_else(|| watermarks(&consumer));
            if low < high {
                assignment
                    .add_partition_offset(topic, partition.id(), Offset::Offset(low))
                    .unwrap();
                ends.push((partition.id(), high));
            }
        }
        consumer.assign(&assignment).unwrap();
        let deadline = Instant::now() + READ_DEADLINE;
        while !ends.is_empty() {
            assert!(Instant::now() < deadline, "{topic}: not read to {ends:?}");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let record = detach(&message);
                    let (partition, next) = (record.partition, record.partition_offset + 1);
                    each(record);
                    ends.retain(|&(p, end)| p != partition || next < end);
                }
                // A partition that ends in a control record or a gap ends by this report.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ends.retain(|&(p, _)| p != partition);
                }
                Some(Err(error)) => panic!("consuming {topic}: {error}"),
                None => {}
            }
        }
    }

    /// The bytes of a partition's first segment, as the first broker has it on its disk.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) fn segment(&self, topic: &str, partition: i32) -> Vec<u8> {
        let name = format!("broker-1/data/{topic}-{partition}/00000000000000000000.log");
        fs::read(self.home.path().join(name)).unwrap()
    }

    pub(super) fn consumer(&self) -> BaseConsumer {
        self.client_config()
            .set("group.id", "ferrylog-tests")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .create()
            .unwrap()
    }

    /// A client of the tests' own: directly to the brokers, past every fault and restriction.
    pub(super) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.direct_servers());
        config.set("allow.auto.create.topics", "false");
        // It must see what happens when a broker returns, before others have done it all.
        config.set("reconnect.backoff.max.ms", "100");
        config
    }
}

/// See [`Kafka::watch`].
pub(crate) struct Watch {
    consumer: BaseConsumer,
    topic: String,
    partitions: Vec<i32>,
}

impl Watch {
    /// The end of each partition: the partition offset of its next record.
    pub(crate) fn ends(&self) -> Vec<i64> {
        let end = |&partition| {
            let (_, end) = self
                .consumer
                .fetch_watermarks(&self.topic, partition, ANSWER_DEADLINE)
                .unwrap();
            end
        };
        self.partitions.iter().map(end).collect()
    }

    /// How many records the topic holds, copies included.
    pub(crate) fn total(&self) -> u64 {
        u64::try_from(self.ends().iter().sum::<i64>()).unwrap()
    }

    /// Waits until the topic holds `count` records more than the `before` it held.
    pub(crate) fn wait_for_growth(&self, before: u64, count: u64) {
        let deadline = Instant::now() + START_DEADLINE;
        while self.total() < before + count {
            assert!(
                Instant::now() < deadline,
                "{}: {} of {count} records more after {START_DEADLINE:?}",
                self.topic,
                self.total() - before
            );
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn detach<M: Message>(message: &M) -> Consumed {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let owned = |h: rdkafka::message::Header<'_, &[u8]>| {
            (h.key.to_owned(), h.value.map(<[u8]>::to_vec))
        };
        (0..headers.count())
            .map(|i| owned(headers.get(i)))
            .collect()
    });
    Consumed {
        partition: message.partition(),
        partition_offset: message.offset(),
        timestamp_millis: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
