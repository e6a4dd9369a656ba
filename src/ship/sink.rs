//! The seam between the shipper and Kafka: what the loop needs, and the real thing behind it.
//!
//! Public because tests put a scripted one in its place. Invariants asked of every sink: records
//! of one partition arrive in the order they were sent, until one of them fails; each record taken
//! is reported at most once; after [`Sink::rebuild`] nothing taken before is reported or sent.

use std::time::Duration;

use super::LinkOptions;
use crate::kafka::{
    self, Outgoing, Probed, Prober, Producer, Report, SendError, Settings, Trouble,
};

/// Where records go.
pub trait Sink {
    /// Hands one record over. Never blocks.
    ///
    /// # Errors
    ///
    /// [`SendError::QueueFull`]: the same record again after a poll. [`SendError::Failed`]: it was
    /// not taken.
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError>;

    /// Appends what became of records. If nothing did, it may wait for that, up to `timeout`.
    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>);

    /// How many records were taken and not reported.
    fn in_flight(&self) -> usize;

    /// Asks how many partitions a topic has. Creates no topic. Blocks up to `timeout`.
    ///
    /// # Errors
    ///
    /// [`kafka::Error::Unreachable`] if nobody answered; every other error is an answer.
    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error>;

    /// What went wrong with the connection since this was last asked.
    fn trouble(&mut self) -> Option<Trouble>;

    /// Looks whether anybody is there, cheaply: starts a probe unless one is under way, and gives
    /// its verdicts once they are in. Never blocks.
    fn probe(&mut self, link: &LinkOptions) -> Option<Probed>;

    /// Starts anew. What was taken and not reported is in doubt.
    ///
    /// # Errors
    ///
    /// [`kafka::Error`] if the configuration is not accepted.
    fn rebuild(&mut self) -> Result<(), kafka::Error>;

    /// Who is on the other side, for a person.
    fn address(&self) -> &str;
}

/// A Kafka cluster as a sink.
#[derive(Debug)]
pub struct KafkaSink {
    settings: Settings,
    producer: Producer,
    prober: Prober,
}

impl KafkaSink {
    /// Creates the producer. A cluster that is away is no error.
    ///
    /// # Errors
    ///
    /// [`kafka::Error`] if the configuration is not accepted.
    pub fn new(settings: Settings) -> Result<KafkaSink, kafka::Error> {
        let producer = Producer::new(&settings)?;
        Ok(KafkaSink {
            settings,
            producer,
            prober: Prober::default(),
        })
    }
}

impl Sink for KafkaSink {
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        self.producer.send(record)
    }

    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        self.producer.poll(timeout, reports);
    }

    fn in_flight(&self) -> usize {
        self.producer.in_flight()
    }

    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error> {
        self.producer.partitions(topic, timeout)
    }

    fn trouble(&mut self) -> Option<Trouble> {
        self.producer.trouble()
    }

    fn probe(&mut self, link: &LinkOptions) -> Option<Probed> {
        if !link.enabled {
            return Some(Probed::default());
        }
        self.prober.poll(|| link.plan(&self.settings))
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        // The old one is dropped after this: what it still held is purged with it.
        self.producer = Producer::new(&self.settings)?;
        Ok(())
    }

    fn address(&self) -> &str {
        &self.settings.bootstrap_servers
    }
}
