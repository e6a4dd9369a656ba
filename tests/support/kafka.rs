//! A real Apache Kafka for tests: one broker on loopback, up in about two seconds.
//!
//! Owns the jars (fetched once by Maven into the build directory), the broker's process, its data
//! and a consumer that reads topics back. Knows nothing of ferrylog. What is missing on the machine
//! is a panic that says so, never a skipped test.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::{self, File};
use std::future::Future;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

const POM: &str = include_str!("kafka/pom.xml");

/// Longest wait for a broker to answer; a loaded machine needs far more than the usual two seconds.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// One broker. Dropping it kills the process and removes its data.
pub(crate) struct Kafka {
    jars: PathBuf,
    home: TempDir,
    port: u16,
    process: Option<Child>,
}

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

impl Kafka {
    /// Starts a broker on a free port and waits until it answers.
    pub(crate) fn start() -> Kafka {
        let mut kafka = Kafka::prepare();
        kafka.restart();
        kafka
    }

    /// Formats a broker's directory and chooses its port, but does not start it: nothing listens
    /// there until [`Kafka::restart`].
    pub(crate) fn prepare() -> Kafka {
        let jars = jars();
        let home = tempfile::Builder::new()
            .prefix("ferrylog-kafka-")
            .tempdir()
            .unwrap();
        // Records with old timestamps must stay, or a test reads less than was delivered: so no
        // retention. A killed broker may register again only when its session is over. The port is
        // kept for the broker's life, so that clients find it again after a restart.
        let (port, controller) = (free_port(), free_port());
        let log_dirs = home.path().join("data");
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             inter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.num.partitions=1\n\
             auto.create.topics.enable=false\n\
             broker.session.timeout.ms=2000\n\
             broker.heartbeat.interval.ms=500\n\
             log.retention.ms=-1\n",
            log_dirs.display()
        );
        fs::write(home.path().join("server.properties"), properties).unwrap();
        let kafka = Kafka {
            jars,
            home,
            port,
            process: None,
        };
        kafka.format();
        kafka
    }

    /// The address clients use.
    pub(crate) fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the broker as a crash would (SIGKILL). Its data stays for [`Kafka::restart`].
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both may fail only because the process is gone already, which is what is wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops the broker where it stands (SIGSTOP): it hangs, and its connections stay open.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets a paused broker go on.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the broker runs");
        let sent = Command::new("kill")
            .args([signal, &process.id().to_string()])
            .status();
        assert!(sent.unwrap().success(), "kill {signal}");
    }

    /// Starts the broker on the directory and port it was prepared with.
    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "the broker is running already");
        let log = File::create(self.log_path()).unwrap();
        let process = self
            .java("kafka.Kafka")
            .arg(self.home.path().join("server.properties"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        self.wait_until_it_answers();
    }

    /// Creates a topic and waits until each partition has a leader.
    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) {
        self.create_topic_with(topic, partitions, &[]);
    }

    /// Creates a topic with topic configurations such as `("max.message.bytes", "1000")`.
    pub(crate) fn create_topic_with(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in config {
            new = new.set(name, value);
        }
        let results =
            block_on(self.admin().create_topics([&new], &AdminOptions::new())).expect("admin");
        for result in results {
            result.unwrap_or_else(|(topic, code)| panic!("creating topic {topic}: {code}"));
        }
        let consumer = self.consumer();
        wait_for("leaders of a new topic", START_DEADLINE, || {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5));
            metadata.is_ok_and(|m| {
                let found = m.topics()[0].partitions();
                found.len() == usize::try_from(partitions).unwrap()
                    && found.iter().all(|p| p.leader() >= 0 && p.error().is_none())
            })
        });
    }

    /// Deletes a topic.
    pub(crate) fn delete_topic(&self, topic: &str) {
        let results = block_on(self.admin().delete_topics(&[topic], &AdminOptions::new()));
        for result in results.expect("admin") {
            result.unwrap_or_else(|(topic, code)| panic!("deleting topic {topic}: {code}"));
        }
    }

    /// A look at how far a topic has grown, on a connection that stays.
    pub(crate) fn watch(&self, topic: &str) -> Watch {
        let consumer = self.consumer();
        let metadata = consumer
            .fetch_metadata(Some(topic), Duration::from_secs(20))
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
    pub(crate) fn consume_each(&self, topic: &str, mut each: impl FnMut(Consumed)) {
        let consumer = self.consumer();
        let metadata = consumer
            .fetch_metadata(Some(topic), Duration::from_secs(20))
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        let mut ends = Vec::new();
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition.id(), Duration::from_secs(20))
                .unwrap();
            if low < high {
                assignment
                    .add_partition_offset(topic, partition.id(), Offset::Offset(low))
                    .unwrap();
                ends.push((partition.id(), high));
            }
        }
        consumer.assign(&assignment).unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
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

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client_config().create().unwrap()
    }

    fn consumer(&self) -> BaseConsumer {
        self.client_config()
            .set("group.id", "ferrylog-tests")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .create()
            .unwrap()
    }

    fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap_servers());
        config.set("allow.auto.create.topics", "false");
        config
    }

    /// A light JVM: it starts quickly and leaves the cores to the program under test.
    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(class)
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }

    fn format(&self) {
        let id = self
            .java("kafka.tools.StorageTool")
            .arg("random-uuid")
            .output()
            .unwrap();
        let id = String::from_utf8(id.stdout).unwrap();
        let formatted = self
            .java("kafka.tools.StorageTool")
            .args(["format", "--standalone", "-t", id.trim(), "-c"])
            .arg(self.home.path().join("server.properties"))
            .output()
            .unwrap();
        assert!(
            formatted.status.success(),
            "formatting the broker's directory failed: {}{}",
            String::from_utf8_lossy(&formatted.stdout),
            String::from_utf8_lossy(&formatted.stderr)
        );
    }

    fn wait_until_it_answers(&mut self) {
        let log = self.log_path();
        let deadline = Instant::now() + START_DEADLINE;
        let address = self.bootstrap_servers();
        let consumer = self.consumer();
        loop {
            let process = self.process.as_mut().unwrap();
            let exited = process.try_wait().unwrap();
            let late = Instant::now() >= deadline;
            if exited.is_some() || late {
                let log = fs::read_to_string(&log).unwrap_or_default();
                panic!("Kafka did not start (exit {exited:?}, late {late}):\n{log}");
            }
            if TcpStream::connect(&address).is_ok()
                && consumer
                    .fetch_metadata(None, Duration::from_secs(2))
                    .is_ok_and(|m| !m.brokers().is_empty())
            {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("kafka.log")
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.stop();
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
            let limit = Duration::from_secs(20);
            let (_, end) = self
                .consumer
                .fetch_watermarks(&self.topic, partition, limit)
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

/// Waits until `condition` holds; panics with `what` after `limit`.
pub(crate) fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(20));
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

/// The directory with Kafka's jars, fetched by Maven the first time.
fn jars() -> PathBuf {
    for (program, argument, package) in [("java", "-version", "Java 17"), ("mvn", "-v", "Maven 3")]
    {
        let found = Command::new(program)
            .arg(argument)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        assert!(
            found,
            "`{program}` does not run: the tests against a real Kafka need {package} \
             (Debian: apt install openjdk-17-jre-headless maven)"
        );
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-4.1.1");
    let libs = cache.join("libs");
    fs::create_dir_all(&cache).unwrap();
    // Test binaries may run side by side; the first one fetches, the others wait here.
    let lock = File::create(cache.join("lock")).unwrap();
    lock.lock().unwrap();
    if !libs.exists() {
        fs::write(cache.join("pom.xml"), POM).unwrap();
        let partial = cache.join("libs.partial");
        let fetched = Command::new("mvn")
            .args(["-q", "-B", "dependency:copy-dependencies"])
            .arg(format!("-DoutputDirectory={}", partial.display()))
            .current_dir(&cache)
            .output()
            .unwrap();
        assert!(
            fetched.status.success(),
            "Maven could not fetch Apache Kafka:\n{}{}",
            String::from_utf8_lossy(&fetched.stdout),
            String::from_utf8_lossy(&fetched.stderr)
        );
        fs::rename(partial, &libs).unwrap();
    }
    libs
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
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
