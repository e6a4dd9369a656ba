//! The progress that goes with each transaction: as a record of its own, or into the offsets of a group.
//!
//! Owns what a transaction tells of the one before it, and when nothing could be told from that. Must
//! not know how it is found again (`resolve`).

use std::time::{Duration, Instant};

use super::committer::Committer;
use super::decide::Last;
use super::error::Halt;
use super::record::ProgressRecord;
use super::transact::Transaction;
use super::{Error, ProgressIn};
use crate::kafka::{self, ErrorClass, Failure, Outgoing, SendError};
use crate::store::Nonce;

/// What the offsets hold is written anew when it is that old, before anything depends on it: brokers
/// forget it after a week, or what they are told instead.
const BASE_AGE: Duration = Duration::from_secs(24 * 3600);

/// The token of the progress record.
pub(super) const PROGRESS: u64 = u64::MAX;

impl Committer<'_> {
    /// The nonce of the last committed transaction.
    pub(super) fn committed_nonce(&self) -> Nonce {
        let intent = self.intents.intent();
        intent.map_or(Nonce::NONE, |intent| match self.last() {
            Last::Committed => intent.nonce,
            Last::Never | Last::Aborted | Last::Open => intent.previous,
        })
    }

    /// Where its progress record is.
    pub(super) fn progress_offset(&self) -> Option<i64> {
        let intent = self.intents.intent()?;
        if intent.cluster_id != self.cluster_id {
            return None;
        }
        match self.last() {
            Last::Committed => intent.partition_offset.or(intent.previous_partition_offset),
            Last::Never | Last::Aborted | Last::Open => intent.previous_partition_offset,
        }
    }

    pub(super) fn send_progress(&mut self, open: &mut Transaction, record: &ProgressRecord) {
        let key = self.progress_key();
        let value = record.encode();
        let outgoing = Outgoing {
            topic: &self.options.progress_topic,
            partition: self.progress_partition,
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &[],
            // Zero is the time of sending.
            timestamp_millis: 0,
            token: PROGRESS,
            is_careful: false,
        };
        match self.producer.producer().send(&outgoing) {
            Ok(()) => {}
            // The queue is not bounded: it cannot be full.
            Err(SendError::QueueFull) => open.fail("the queue is full"),
            Err(SendError::Failed(failure)) => open.progress_failed(failure),
        }
    }

    /// Whether the offsets hold nothing that the next transaction can be told from.
    pub(super) fn needs_base(&self, now: Instant) -> bool {
        let is_fresh = |at| now.saturating_duration_since(at) < BASE_AGE;
        let is_laid = self.registered.is_some_and(|(_, at)| is_fresh(at));
        self.options.progress == ProgressIn::Offsets && !is_laid
    }

    /// Writes the progress into the offsets of the group. Everything else was acknowledged: what fails
    /// is this.
    pub(super) fn put_progress(
        &mut self,
        open: &mut Transaction,
        record: &ProgressRecord,
    ) -> Result<(), Error> {
        let left = open.deadline.saturating_duration_since(Instant::now());
        self.register()?;
        let Some(register) = &self.register else {
            return Ok(());
        };
        let mark = i64::try_from(record.mark.get()).unwrap_or(i64::MAX);
        match self.producer.put(register, mark, &record.to_text(), left) {
            Ok(()) => open.progress = Some(None),
            Err(error) => open.progress_failed(error.failure),
        }
        // What went wrong with the transport meanwhile.
        self.collect(open, Duration::ZERO);
        Ok(())
    }

    pub(super) fn progress_refused(&self, class: ErrorClass, failure: Failure) -> Error {
        let topic = self.options.progress_topic.clone();
        Error::ExactlyOnce(Halt::ProgressTopic {
            topic: topic.clone(),
            source: kafka::Error::Refused {
                action: "writing the progress",
                topic,
                class,
                code: failure.code,
                name: failure.name,
            },
        })
    }
}
