//! librdkafka's embedded mock cluster: brokers on loopback inside this process.
//!
//! Owns the cluster for the demonstration and for tests of outages. Must not be used for anything
//! that has to last: it keeps at most 5 MiB or 100,000 batches per partition and silently drops
//! the oldest, and neither fences producers nor hides aborted records.

use std::fmt;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::{Error, ErrorClass, code_of, number_and_name};

/// All brokers of the cluster, in librdkafka's numbering.
const ALL_BROKERS: i32 = -1;

/// A mock cluster. Stays on the thread that started it; dropping it shuts it down.
pub struct MockKafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl fmt::Debug for MockKafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockKafka")
            .field("bootstrap_servers", &self.bootstrap_servers())
            .finish()
    }
}

impl MockKafka {
    /// Starts a cluster of `brokers` on free loopback ports.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if librdkafka cannot open its sockets.
    pub fn start(brokers: i32) -> Result<MockKafka, Error> {
        let cluster = MockCluster::new(brokers).map_err(of("starting the mock cluster", ""))?;
        Ok(MockKafka { cluster })
    }

    /// The addresses clients use.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Creates a topic.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it exists already.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        self.cluster
            .create_topic(topic, partitions, 1)
            .map_err(of("creating a topic", topic))
    }

    /// Takes every broker away: connections break, new ones are refused.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the cluster does not take the command.
    pub fn down(&self) -> Result<(), Error> {
        self.cluster
            .broker_down(ALL_BROKERS)
            .map_err(of("taking the brokers down", ""))
    }

    /// Brings every broker back, on the same addresses.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the cluster does not take the command.
    pub fn up(&self) -> Result<(), Error> {
        self.cluster
            .broker_up(ALL_BROKERS)
            .map_err(of("bringing the brokers back", ""))
    }

    /// Delays every answer, as a long line does.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the cluster does not take the command.
    pub fn round_trip(&self, time: Duration) -> Result<(), Error> {
        self.cluster
            .broker_round_trip_time(ALL_BROKERS, time)
            .map_err(of("setting the round trip time", ""))
    }

    /// Answers the next produce requests with these of Kafka's error codes, one each.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for a number that is no code.
    pub fn refuse_produce(&self, codes: &[i32]) -> Result<(), Error> {
        let codes = codes
            .iter()
            .map(|&code| {
                RDKafkaRespErr::try_from(code).map_err(|_| Error::Configuration {
                    reason: format!("{code} is no error code of Kafka"),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.cluster.request_errors(RDKafkaApiKey::Produce, &codes);
        Ok(())
    }
}

fn of(action: &'static str, topic: &str) -> impl FnOnce(KafkaError) -> Error {
    move |error| {
        let (code, name) = number_and_name(code_of(&error));
        Error::Refused {
            action,
            topic: topic.to_owned(),
            class: ErrorClass::Fatal,
            code,
            name,
        }
    }
}
