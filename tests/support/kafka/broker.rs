//! One broker: its process, its ports, its directory.
//!
//! Owns what is written into its properties. Knows nothing of topics. Invariants: ports and
//! directory stay over its whole life, so that clients find it again after a crash; the process
//! is killed, by its id, at the end.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use super::relay::Relay;
use super::{PASSWORD, USER};

/// How a client has to speak on the broker's own listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Protocol {
    #[default]
    Plaintext,
    /// SCRAM-SHA-256 without encryption.
    Scram,
    /// TLS; the key store is [`super::keys`]'s.
    Ssl,
    /// Both at once, with the password in plain: what clouds have.
    SaslSsl,
}

/// What all brokers of a cluster share.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    pub(super) protocol: Protocol,
    pub(super) is_relayed: bool,
    pub(super) is_measured: bool,
    pub(super) properties: Vec<(String, String)>,
    /// Of the only controller, on the first broker.
    pub(super) controller_port: u16,
}

pub(super) struct Broker {
    jars: PathBuf,
    home: PathBuf,
    /// For the tests themselves, and between brokers.
    pub(super) direct_port: u16,
    client_port: u16,
    pub(super) relay: Option<Relay>,
    is_measured: bool,
    process: Option<Child>,
}

impl Broker {
    /// Chooses its ports and writes its properties; nothing listens there yet. Nodes are numbered
    /// from 1.
    pub(super) fn prepare(jars: &Path, home: PathBuf, node: usize, common: &Common) -> Broker {
        fs::create_dir_all(&home).unwrap();
        let (direct_port, client_port) = (free_port(), free_port());
        let relay = common
            .is_relayed
            .then(|| Relay::start(free_port(), client_port));
        let broker = Broker {
            jars: jars.to_owned(),
            home,
            direct_port,
            client_port,
            relay,
            is_measured: common.is_measured,
            process: None,
        };
        let properties = broker.properties(node, common);
        fs::write(broker.home.join("server.properties"), properties).unwrap();
        broker
    }

    /// The port clients are told.
    pub(super) fn advertised_port(&self) -> u16 {
        self.relay.as_ref().map_or(self.client_port, Relay::port)
    }

    fn properties(&self, node: usize, common: &Common) -> String {
        let Common {
            controller_port, ..
        } = common;
        let (direct, client, advertised) =
            (self.direct_port, self.client_port, self.advertised_port());
        let (roles, controller) = if node == 1 {
            let listener = format!(",CONTROLLER://127.0.0.1:{controller_port}");
            ("broker,controller", listener)
        } else {
            ("broker", String::new())
        };
        let protocol = match common.protocol {
            Protocol::Plaintext => "PLAINTEXT",
            Protocol::Scram => "SASL_PLAINTEXT",
            Protocol::Ssl => "SSL",
            Protocol::SaslSsl => "SASL_SSL",
        };
        let mechanism = match common.protocol {
            Protocol::SaslSsl => "PLAIN",
            Protocol::Plaintext | Protocol::Scram | Protocol::Ssl => "SCRAM-SHA-256",
        };
        // Records with old timestamps must stay, or a test reads less than was delivered: so no
        // retention. A killed broker may register again only when its session is over.
        let mut text = format!(
            "process.roles={roles}\n\
             node.id={node}\n\
             listeners=DIRECT://127.0.0.1:{direct},CLIENT://127.0.0.1:{client}{controller}\n\
             advertised.listeners=DIRECT://127.0.0.1:{direct},CLIENT://127.0.0.1:{advertised}\n\
             controller.listener.names=CONTROLLER\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}\n\
             inter.broker.listener.name=DIRECT\n\
             listener.security.protocol.map=\
             DIRECT:PLAINTEXT,CLIENT:{protocol},CONTROLLER:PLAINTEXT\n\
             sasl.enabled.mechanisms={mechanism}\n\
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
            self.home.join("data").display()
        );
        if common.protocol == Protocol::Scram {
            text.push_str(
                "listener.name.client.scram-sha-256.sasl.jaas.config=\
                 org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
            );
        }
        if common.protocol == Protocol::SaslSsl {
            writeln!(
                text,
                "listener.name.client.plain.sasl.jaas.config=\
                 org.apache.kafka.common.security.plain.PlainLoginModule required \
                 user_{USER}=\"{PASSWORD}\";"
            )
            .unwrap();
        }
        for (name, value) in &common.properties {
            writeln!(text, "{name}={value}").unwrap();
        }
        text
    }

    /// Formats its directory for a cluster. `more`: users, for one.
    pub(super) fn format(&self, node: usize, cluster: &str, more: &[String]) {
        let mut command = light_java(&self.jars, &self.home);
        command.args(["kafka.tools.StorageTool", "format"]);
        if node == 1 {
            command.arg("--standalone");
        }
        let formatted = command
            .args(["-t", cluster, "-c"])
            .arg(self.home.join("server.properties"))
            .args(more)
            .output()
            .unwrap();
        assert!(
            formatted.status.success(),
            "formatting the broker's directory failed: {}{}",
            String::from_utf8_lossy(&formatted.stdout),
            String::from_utf8_lossy(&formatted.stderr)
        );
    }

    /// Starts the process; whether it answers is for others to say.
    pub(super) fn start(&mut self) {
        assert!(self.process.is_none(), "the broker is running already");
        let log = File::create(self.home.join("kafka.log")).unwrap();
        let mut java = if self.is_measured {
            users_java(&self.jars, &self.home)
        } else {
            light_java(&self.jars, &self.home)
        };
        let process = java
            .arg("kafka.Kafka")
            .arg(self.home.join("server.properties"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// SIGKILL.
    pub(super) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both may fail only because the process is gone already, which is what is wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the broker runs");
        let sent = Command::new("kill")
            .args([signal, &process.id().to_string()])
            .status();
        assert!(sent.unwrap().success(), "kill {signal}");
    }

    /// Panics with its log if the process has ended, or its time is over.
    pub(super) fn expect_alive(&mut self, is_late: bool) {
        let exited = self.process.as_mut().unwrap().try_wait().unwrap();
        if exited.is_some() || is_late {
            let log = fs::read_to_string(self.home.join("kafka.log")).unwrap_or_default();
            panic!("Kafka did not start (exit {exited:?}, late {is_late}):\n{log}");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A light JVM: it starts quickly and leaves the cores to the program under test. A class is to
/// follow.
pub(super) fn light_java(jars: &Path, home: &Path) -> Command {
    java(
        jars,
        home,
        &["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"],
    )
}

/// As `bin/kafka-server-start.sh` and `bin/kafka-run-class.sh` of Kafka start it. With half of that memory
/// G1 marks all the time beside requests of 1 MB: an eighth of two cores.
fn users_java(jars: &Path, home: &Path) -> Command {
    let options = [
        "-Xmx1G",
        "-Xms1G",
        "-server",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent",
        "-XX:MaxInlineLevel=15",
    ];
    java(jars, home, &options)
}

fn java(jars: &Path, home: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("java");
    command
        .args(options)
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .arg("-cp")
        .arg(jars.join("*"))
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// A port that no connection is given by the system: one that is closed for a while must not be
/// taken by a client that looks for it (which may even find itself there).
pub(super) fn free_port() -> u16 {
    // Nobody may listen there yet when the next one is looked for.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1000 {
        let random = RandomState::new().build_hasher().finish();
        let port = 10_000 + u16::try_from(random % 20_000).unwrap();
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free && GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
    panic!("no port of loopback is free");
}
