//! Whether the broker that leads a partition can be reached from here.
//!
//! Owns the question. Metadata may come from any broker, and names one that this client cannot reach;
//! only the leader itself tells the bounds of a partition (`ListOffsets`). Must not know why it is asked.

use std::time::Duration;

use rdkafka::producer::Producer as _;

use super::classify::{ErrorClass, Persistence, classify};
use super::{Error, Producer, code_of};

/// Who leads a partition, as far as it is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leader {
    /// A broker that answers.
    Answers,
    /// A broker that the cluster names and that does not answer.
    Silent,
    /// Nobody.
    None,
}

impl Producer {
    /// Asks who leads a partition for a few bytes. What else is on the way to that broker has to
    /// cross before the question does. Blocks up to `timeout` for the cluster, and as long for the leader.
    ///
    /// # Errors
    ///
    /// As [`Producer::partitions`]: nobody was asked then.
    pub fn leader(
        &mut self,
        topic: &str,
        partition: u32,
        timeout: Duration,
    ) -> Result<Leader, Error> {
        let known = self.partitions(topic, timeout)?;
        if known.leaderless.contains(&partition) {
            return Ok(Leader::None);
        }
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let client = self.inner.client();
        let asked = client.fetch_watermarks(topic, number, timeout);
        let is_silence = |code| classify(code, Persistence::No) == ErrorClass::Network;
        Ok(match asked.map_err(|error| code_of(&error)) {
            Err(code) if is_silence(code) => Leader::Silent,
            // A refusal is an answer.
            Ok(_) | Err(_) => Leader::Answers,
        })
    }
}
