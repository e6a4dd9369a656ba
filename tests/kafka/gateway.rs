//! A gateway with the program on it: a store, and `ferrylog` run on it as a user would.

use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command};

use ferrylog::message::MessageRef;
use ferrylog::store::Lane;
use serde_json::Value;
use tempfile::TempDir;

use crate::copies::Content;
use crate::kafka::Kafka;
use crate::program::{Ran, ferrylog, run, run_on, start};
use crate::random::Random;

/// One store. It does not exist before the first `send`.
pub(crate) struct Gateway {
    pub(crate) data: PathBuf,
    _dir: TempDir,
}

impl Gateway {
    pub(crate) fn new() -> Gateway {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        Gateway { data, _dir: dir }
    }

    /// Sends `count` records with keys, made from `seed`.
    pub(crate) fn send(&self, topic: &str, seed: u64, count: u64) {
        self.send_each(topic, (0..count).map(|number| content(seed, number)));
    }

    /// Sends records with keys that fit into lines.
    pub(crate) fn send_each(&self, topic: &str, records: impl Iterator<Item = Content>) {
        let mut lines = Vec::new();
        for (key, value) in records {
            lines.extend_from_slice(&key.unwrap());
            lines.push(b'\t');
            lines.extend_from_slice(&value);
            lines.push(b'\n');
        }
        let arguments = ["send", "--topic", topic, "--key-separator", "\\t"];
        run_on(&self.data, arguments, &lines).expect(0);
    }

    /// Runs `drain` to its end.
    pub(crate) fn drain(&self, kafka: &Kafka, more: &[&str]) -> Ran {
        let servers = kafka.bootstrap_servers();
        run(&self.data, drain_arguments(&servers, more))
    }

    /// Starts `drain` and leaves it running.
    pub(crate) fn start_drain(&self, kafka: &Kafka, more: &[&str]) -> Running {
        let servers = kafka.bootstrap_servers();
        Running::start(self.drain_command(&servers, more))
    }

    /// Starts one that does not end soon, however fast the machine is: it ships so many bytes a second.
    pub(crate) fn start_slow_drain(&self, kafka: &Kafka, rate: u64, more: &[&str]) -> Running {
        let mut command = self.drain_command(&kafka.bootstrap_servers(), more);
        command.env("FERRYLOG__SHIPPING__DRAIN_RATE", format!("{rate}B/s"));
        Running::start(command)
    }

    /// What `start_drain` starts, for any servers.
    pub(crate) fn drain_command(&self, servers: &str, more: &[&str]) -> Command {
        ferrylog(&self.data, drain_arguments(servers, more))
    }

    /// The lane as `status` tells it, which also says that nothing is wrong with it.
    pub(crate) fn status(&self) -> Status {
        let told = run(&self.data, ["status", "--json"])
            .expect_json(0)
            .remove(0);
        let lane = &told["lanes"][0];
        assert_eq!(lane["records"]["balances"], true, "{told}");
        Status {
            log_id: lane["log_id"].as_str().unwrap().to_owned(),
            records: lane["records"].clone(),
        }
    }
}

fn drain_arguments<'a>(servers: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["drain", "--json", "--bootstrap-servers", servers];
    arguments.extend_from_slice(more);
    arguments
}

/// See [`Gateway::status`].
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) log_id: String,
    records: Value,
}

impl Status {
    /// How many records are of a class, such as `queued`.
    pub(crate) fn count(&self, class: &str) -> u64 {
        self.records[class].as_u64().unwrap()
    }

    /// Every record has left for Kafka.
    pub(crate) fn expect_all_shipped(&self, count: u64) {
        let counts = ["accepted", "shipped", "queued"].map(|class| self.count(class));
        assert_eq!(counts, [count, count, 0], "{self:?}");
    }
}

/// A process that runs; killed if a test fails before its end.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(command: Command) -> Running {
        Running(Some(start(command)))
    }

    /// Kills it as a crash would. It must not have ended by itself.
    pub(crate) fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), None, "it ended by itself: {ended:?}");
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    /// What Ctrl-C sends.
    pub(crate) fn interrupt(&self) {
        let id = self.0.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for its own end.
    pub(crate) fn end(mut self) -> Ran {
        let child = self.0.take().unwrap();
        child.wait_with_output().unwrap().into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Both may fail only because it is gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What [`Gateway::send`] sends: one of a thousand keys; 20 to 600 bytes that do not compress.
pub(crate) fn content(seed: u64, number: u64) -> Content {
    let len = 20 + Random(!seed ^ (number << 20)).below(581) as usize;
    content_of(seed, number, len)
}

/// A record with one of a thousand keys, and so many bytes that do not compress.
pub(crate) fn content_of(seed: u64, number: u64, len: usize) -> Content {
    let mut random = Random(seed ^ (number << 20));
    let key = format!("key-{}", random.below(1000));
    let mut value = Vec::with_capacity(len + 8);
    while value.len() < len {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(len);
    for byte in &mut value {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b'.';
        }
    }
    (Some(key.into_bytes()), value)
}

/// Appends records with keys, these numbers' content of this length, each for the topic of its number, and
/// waits until they are on disk.
pub(crate) fn fill<'t>(
    lane: &Lane,
    numbers: Range<u64>,
    seed: u64,
    len: usize,
    topic: impl Fn(u64) -> &'t str,
) {
    for n in numbers {
        let (key, value) = content_of(seed, n, len);
        let message = MessageRef {
            key: key.as_deref(),
            value: Some(&value),
            ..MessageRef::to(topic(n))
        };
        // The sync below waits for all of them.
        drop(lane.append(&message).unwrap());
    }
    lane.sync().unwrap();
}
