//! What an operator does to a cluster while it runs: topics, their configuration, users, rights,
//! quotas.
//!
//! Owns the calls. Knows nothing of processes. Invariant: when a call on a topic returns, each of
//! its partitions has a leader.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::broker::light_java;
use super::wire::{self, Operation, Resource};
use super::{Kafka, START_DEADLINE, wait_for};

/// Operating.
impl Kafka {
    /// Sends a record in a transaction and dies: it stays open until the broker ends it.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) fn leave_transaction_open(&self, topic: &str, id: &str, timeout: Duration) {
        let producer: BaseProducer = self
            .client_config()
            .set("transactional.id", id)
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .create()
            .unwrap();
        let limit = Duration::from_secs(20);
        producer.init_transactions(limit).unwrap();
        producer.begin_transaction().unwrap();
        let record = BaseRecord::<[u8], [u8]>::to(topic).partition(0);
        producer.send(record.key(b"dead").payload(b"dead")).unwrap();
        producer.flush(limit).unwrap();
    }

    /// Writes to the offsets of a group in a transaction and dies: it stays open until the broker ends
    /// it. All partitions, as if nobody knew which one is used.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) fn leave_offsets_open(
        &self,
        group: &str,
        topic: &str,
        partitions: i32,
        timeout: Duration,
    ) {
        let producer: BaseProducer = self
            .client_config()
            .set("transactional.id", "another")
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .create()
            .unwrap();
        let limit = Duration::from_secs(20);
        producer.init_transactions(limit).unwrap();
        producer.begin_transaction().unwrap();
        let consumer: BaseConsumer = self
            .client_config()
            .set("group.id", group)
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Offset(7))
                .unwrap();
        }
        let group = consumer.group_metadata().unwrap();
        producer
            .send_offsets_to_transaction(&list, &group, limit)
            .unwrap();
    }

    /// Takes over a transactional id: what is open with it is ended when this returns.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) fn take_over(&self, transactional_id: &str) {
        let producer: BaseProducer = self
            .client_config()
            .set("transactional.id", transactional_id)
            .create()
            .unwrap();
        producer.init_transactions(Duration::from_secs(20)).unwrap();
    }

    /// Deletes a group and its offsets.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) fn delete_group(&self, group: &str) {
        let results = block_on(self.admin().delete_groups(&[group], &AdminOptions::new()));
        for result in results.expect("admin") {
            result.unwrap_or_else(|(group, code)| panic!("deleting group {group}: {code}"));
        }
    }

    /// Creates a topic and waits until each partition has a leader.
    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) {
        self.create_topic_with(topic, partitions, &[]);
    }

    /// Creates a topic with topic configurations such as `("max.message.bytes", "1000")`.
    pub(crate) fn create_topic_with(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let replication = TopicReplication::Fixed(1);
        self.create(NewTopic::new(topic, partitions, replication), config);
    }

    /// Creates a topic with a partition for each of these lists of brokers (from 0 on): its first
    /// one leads, the others follow.
    pub(crate) fn create_topic_on(&self, topic: &str, replicas: &[&[usize]]) {
        let node = |broker: &usize| i32::try_from(broker + 1).unwrap();
        let nodes: Vec<Vec<i32>> = replicas
            .iter()
            .map(|brokers| brokers.iter().map(node).collect())
            .collect();
        let nodes: Vec<&[i32]> = nodes.iter().map(Vec::as_slice).collect();
        let count = i32::try_from(nodes.len()).unwrap();
        let replication = TopicReplication::Variable(&nodes);
        self.create(NewTopic::new(topic, count, replication), &[]);
        let leaders = self.leaders(topic);
        let wanted: Vec<i32> = nodes.iter().map(|nodes| nodes[0]).collect();
        assert_eq!(leaders, wanted, "the leaders of {topic}");
    }

    fn create<'a>(&self, mut new: NewTopic<'a>, config: &[(&'a str, &'a str)]) {
        for (name, value) in config {
            new = new.set(name, value);
        }
        let topic = new.name;
        let partitions = match &new.replication {
            TopicReplication::Variable(replicas) => replicas.len(),
            TopicReplication::Fixed(_) => usize::try_from(new.num_partitions).unwrap(),
        };
        let created = || {
            let created = block_on(self.admin().create_topics([&new], &AdminOptions::new()));
            created.expect("admin").remove(0)
        };
        wait_for("a broker for a new topic", START_DEADLINE, || {
            match created() {
                Ok(_) => true,
                // One that was silent for a moment is no broker for a moment.
                Err((_, RDKafkaErrorCode::InvalidReplicationFactor)) => false,
                Err((topic, code)) => panic!("creating topic {topic}: {code}"),
            }
        });
        wait_for("leaders of a new topic", START_DEADLINE, || {
            let leaders = self.leaders(topic);
            leaders.len() == partitions && leaders.iter().all(|&leader| leader >= 0)
        });
    }

    /// The node that leads each partition; -1 where none does.
    pub(crate) fn leaders(&self, topic: &str) -> Vec<i32> {
        let consumer = self.consumer();
        let Ok(metadata) = consumer.fetch_metadata(Some(topic), Duration::from_secs(5)) else {
            return Vec::new();
        };
        let partitions = metadata.topics()[0].partitions().iter();
        let leader = |error: Option<_>, leader| if error.is_some() { -1 } else { leader };
        partitions.map(|p| leader(p.error(), p.leader())).collect()
    }

    /// Gives a topic more partitions, `count` in all, and waits until each has a leader.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) fn add_partitions(&self, topic: &str, count: usize) {
        let more = NewPartitions::new(topic, count);
        let added = block_on((self.admin()).create_partitions([&more], &AdminOptions::new()));
        for result in added.expect("admin") {
            result.unwrap_or_else(|(topic, code)| panic!("adding partitions to {topic}: {code}"));
        }
        wait_for("leaders of new partitions", START_DEADLINE, || {
            let leaders = self.leaders(topic);
            leaders.len() == count && leaders.iter().all(|&leader| leader >= 0)
        });
    }

    /// Deletes a topic.
    pub(crate) fn delete_topic(&self, topic: &str) {
        let results = block_on(self.admin().delete_topics(&[topic], &AdminOptions::new()));
        for result in results.expect("admin") {
            result.unwrap_or_else(|(topic, code)| panic!("deleting topic {topic}: {code}"));
        }
    }

    /// Sets these configurations of a topic, and all others to what they are by default.
    pub(crate) fn alter_topic(&self, topic: &str, config: &[(&str, &str)]) {
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in config {
            alter = alter.set(name, value);
        }
        let results = block_on(self.admin().alter_configs([&alter], &AdminOptions::new()));
        for result in results.expect("admin") {
            result.unwrap_or_else(|(resource, code)| panic!("altering {resource:?}: {code}"));
        }
    }

    /// Allows a user to do this; needs [`super::Builder::with_acls`].
    pub(crate) fn grant(&self, user: &str, resource: Resource<'_>, operation: Operation) {
        wire::grant(self.direct_port(), user, resource, operation);
    }

    /// Takes away whatever a user was allowed to do with it.
    pub(crate) fn withdraw(&self, user: &str, resource: Resource<'_>) {
        wire::withdraw(self.direct_port(), user, resource);
    }

    /// Limits what the clients of this `client.id` may produce together; `None` ends that.
    pub(crate) fn limit_client(&self, client_id: &str, bytes_per_second: Option<u32>) {
        let rate = bytes_per_second.map(f64::from);
        wire::limit_client(self.direct_port(), client_id, rate);
    }

    /// Gives a user a password, from now on.
    pub(crate) fn set_password(&self, user: &str, password: &str) {
        let home = self.home.path();
        let ran = light_java(&self.jars, home)
            .arg("kafka.admin.ConfigCommand")
            .args(["--bootstrap-server", &self.direct_servers(), "--alter"])
            .args(["--entity-type", "users", "--entity-name", user])
            .arg("--add-config")
            .arg(format!("SCRAM-SHA-256=[password={password}]"))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client_config().create().unwrap()
    }
}

/// Runs one future on this thread: the admin client has threads of its own and needs no runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
