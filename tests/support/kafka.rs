//! A real Apache Kafka for tests: one broker or several on loopback, up in about two seconds.
//!
//! Owns the cluster: how it is set up, started, hung, killed. Each broker listens twice: for the
//! tests' own clients, past every fault and restriction; and for the clients under test, in the
//! protocol of the test's choice, through a relay if it likes. Knows nothing of ferrylog. What is
//! missing on the machine is a panic that says so, never a skipped test.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its own part"
)]
#![allow(clippy::big_endian_bytes, reason = "Kafka's requests are big-endian")]

#[path = "kafka/admin.rs"]
mod admin;
#[path = "kafka/broker.rs"]
mod broker;
#[path = "kafka/jars.rs"]
mod jars;
#[path = "kafka/keys.rs"]
mod keys;
#[path = "kafka/reader.rs"]
mod reader;
#[path = "relay.rs"]
pub(crate) mod relay;
#[path = "kafka/wire.rs"]
mod wire;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use tempfile::TempDir;

pub(crate) use broker::Protocol;
pub(crate) use reader::{Consumed, Watch};
pub(crate) use relay::Relay;
pub(crate) use wire::{Operation, Resource};

use broker::{Broker, Common, free_port};
use keys::Keys;

/// Longest wait for a broker to answer; a loaded machine needs far more than the usual two seconds.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// The user of a cluster with passwords.
pub(crate) const USER: &str = "gateway";

/// That user's first password.
pub(crate) const PASSWORD: &str = "right";

/// A cluster. Dropping it kills the processes and removes their data.
pub(crate) struct Kafka {
    jars: PathBuf,
    home: TempDir,
    protocol: Protocol,
    keys: Option<Keys>,
    brokers: Vec<Broker>,
}

/// How a cluster is set up; see [`Kafka::with`].
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    brokers: usize,
    common: Common,
    has_valid_certificate: bool,
}

impl Builder {
    /// So many brokers; the first one is also the controller, without which nothing changes.
    pub(crate) fn brokers(mut self, count: usize) -> Builder {
        self.brokers = count;
        self
    }

    /// Clients reach each broker through a relay; see [`Kafka::relay`].
    pub(crate) fn relayed(mut self) -> Builder {
        self.common.is_relayed = true;
        self
    }

    /// How clients have to speak.
    pub(crate) fn protocol(mut self, protocol: Protocol) -> Builder {
        self.common.protocol = protocol;
        self
    }

    /// Brokers show a certificate that ran out, until [`Kafka::renew_certificate`].
    pub(crate) fn expired_certificate(mut self) -> Builder {
        self.has_valid_certificate = false;
        self.protocol(Protocol::Ssl)
    }

    /// The Java machine as it is for users: for measurements.
    pub(crate) fn measured(mut self) -> Builder {
        self.common.is_measured = true;
        self
    }

    /// A property of all brokers.
    pub(crate) fn property(mut self, name: &str, value: &str) -> Builder {
        let property = (name.to_owned(), value.to_owned());
        self.common.properties.push(property);
        self
    }

    /// [`USER`] may do what it is granted, and nothing else.
    pub(crate) fn with_acls(self) -> Builder {
        let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
        self.protocol(Protocol::Scram)
            .property("authorizer.class.name", authorizer)
            .property("super.users", "User:ANONYMOUS")
    }

    /// Chooses ports and formats directories, but starts nothing: nobody listens there until
    /// [`Kafka::restart`].
    pub(crate) fn prepare(mut self) -> Kafka {
        let jars = jars::jars();
        let home = tempfile::Builder::new()
            .prefix("ferrylog-kafka-")
            .tempdir()
            .unwrap();
        let has_keys = matches!(self.common.protocol, Protocol::Ssl | Protocol::SaslSsl);
        let keys = has_keys.then(|| Keys::make(home.path()));
        if let Some(keys) = &keys {
            keys.show(self.has_valid_certificate);
            self.common.properties.extend(keys.properties());
        }
        self.common.controller_port = free_port();
        let more = match self.common.protocol {
            Protocol::Scram => vec![
                "--add-scram".to_owned(),
                format!("SCRAM-SHA-256=[name={USER},password={PASSWORD}]"),
            ],
            Protocol::Plaintext | Protocol::Ssl | Protocol::SaslSsl => Vec::new(),
        };
        let cluster = random_uuid();
        let prepare = |node| {
            let home = home.path().join(format!("broker-{node}"));
            let broker = Broker::prepare(&jars, home, node, &self.common);
            broker.format(node, &cluster, &more);
            broker
        };
        Kafka {
            brokers: (1..=self.brokers).map(prepare).collect(),
            protocol: self.common.protocol,
            jars,
            home,
            keys,
        }
    }

    /// Starts all brokers and waits until they answer.
    pub(crate) fn start(self) -> Kafka {
        let mut kafka = self.prepare();
        kafka.restart();
        kafka
    }
}

impl Kafka {
    /// Starts one broker on a free port and waits until it answers.
    pub(crate) fn start() -> Kafka {
        Kafka::with().start()
    }

    /// One broker that does not run yet.
    pub(crate) fn prepare() -> Kafka {
        Kafka::with().prepare()
    }

    /// A cluster to be described: one broker, plain text, unless said otherwise.
    pub(crate) fn with() -> Builder {
        Builder {
            brokers: 1,
            common: Common::default(),
            has_valid_certificate: true,
        }
    }

    /// The addresses clients under test use.
    pub(crate) fn bootstrap_servers(&self) -> String {
        servers(self.brokers.iter().map(Broker::advertised_port))
    }

    /// The librdkafka properties such a client needs to get in.
    pub(crate) fn client_properties(&self) -> Vec<(String, String)> {
        let login = |mechanism: &str| {
            vec![
                ("sasl.mechanisms", mechanism.to_owned()),
                ("sasl.username", USER.to_owned()),
                ("sasl.password", PASSWORD.to_owned()),
            ]
        };
        let trusted = || {
            let trusted = self.keys.as_ref().unwrap().trusted();
            ("ssl.ca.location", trusted.to_str().unwrap().to_owned())
        };
        let (protocol, mut properties) = match self.protocol {
            Protocol::Plaintext => return Vec::new(),
            Protocol::Scram => ("sasl_plaintext", login("SCRAM-SHA-256")),
            Protocol::Ssl => ("ssl", vec![trusted()]),
            Protocol::SaslSsl => ("sasl_ssl", login("PLAIN")),
        };
        if self.protocol == Protocol::SaslSsl {
            properties.push(trusted());
        }
        properties.push(("security.protocol", protocol.to_owned()));
        let named = properties.into_iter();
        named
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// The line to a broker, from 0 on.
    pub(crate) fn relay(&self, broker: usize) -> &Relay {
        let relay = self.brokers[broker].relay.as_ref();
        relay.expect("a cluster with relays")
    }

    /// Kills all brokers as a crash would (SIGKILL). Their data stays for [`Kafka::restart`].
    pub(crate) fn stop(&mut self) {
        self.brokers.iter_mut().for_each(Broker::stop);
    }

    /// Kills one broker, from 0 on.
    pub(crate) fn stop_broker(&mut self, broker: usize) {
        self.brokers[broker].stop();
    }

    /// Stops all brokers where they stand (SIGSTOP): they hang, and their connections stay open.
    pub(crate) fn pause(&self) {
        self.brokers.iter().for_each(|b| b.signal("-STOP"));
    }

    /// Lets paused brokers go on.
    pub(crate) fn resume(&self) {
        self.brokers.iter().for_each(|b| b.signal("-CONT"));
    }

    /// Starts the brokers that do not run, on the directories and ports they were prepared with,
    /// and waits until all answer.
    pub(crate) fn restart(&mut self) {
        let stopped = self.brokers.iter_mut().filter(|broker| !broker.runs());
        stopped.for_each(Broker::start);
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let is_late = Instant::now() >= deadline;
            let brokers = self.brokers.iter_mut();
            brokers.for_each(|broker| broker.expect_alive(is_late));
            if self.answers() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether each broker by itself tells of all of them.
    fn answers(&self) -> bool {
        let knows_all = |broker: &Broker| {
            let mut config = self.client_config();
            config.set("bootstrap.servers", servers([broker.direct_port]));
            let consumer: rdkafka::consumer::BaseConsumer = config.create().unwrap();
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(2));
            metadata.is_ok_and(|m| m.brokers().len() == self.brokers.len())
        };
        self.brokers.iter().all(knows_all)
    }

    /// Has brokers show a certificate that is valid, from their next start on.
    pub(crate) fn renew_certificate(&self) {
        self.keys.as_ref().expect("a cluster with TLS").show(true);
    }

    fn direct_servers(&self) -> String {
        servers(self.brokers.iter().map(|broker| broker.direct_port))
    }

    fn direct_port(&self) -> u16 {
        self.brokers[0].direct_port
    }
}

fn servers(ports: impl IntoIterator<Item = u16>) -> String {
    let servers = ports.into_iter().map(|port| format!("127.0.0.1:{port}"));
    servers.collect::<Vec<_>>().join(",")
}

/// 16 bytes in Base64, as Kafka names clusters.
fn random_uuid() -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let digit = |_| {
        let random = RandomState::new().build_hasher().finish();
        char::from(digits[usize::try_from(random % 62).unwrap()])
    };
    // The last digit has two bits.
    (0..21).map(digit).chain(['A']).collect()
}

/// Waits until `condition` holds; panics with `what` after `limit`.
pub(crate) fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
