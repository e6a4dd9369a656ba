//! Taking over the transactional id, and finding the place of the progress records.
//!
//! Owns what must be true of a producer before its first transaction, and its replacement. Invariants:
//! whoever took over the id before is fenced, and what it had open is aborted, when this is done.

use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use super::committer::{Committer, random};
use super::error::Halt;
use super::{Error, record};
use crate::kafka::{self, ErrorClass, Register, TransactionClass, TransactionalProducer};
use crate::ship::link::Block;
use crate::ship::partition;
use crate::wal::SeqNo;

/// How long one try waits for the cluster; bounds how late a stop is seen.
const TRY: Duration = Duration::from_secs(3);

/// librdkafka's code for an operation whose time is over.
const TIMED_OUT: i32 = -185;

/// Kafka's code for a transaction timeout above its `transaction.max.timeout.ms`.
const TIMEOUT_REFUSED: i32 = 50;

/// Kafka's code for a transactional id whose last transaction is not ended.
const CONCURRENT: i32 = 51;

/// The sentence for that. Its end has to be written to each partition that it holds records of.
const ENDING: &str = "the cluster has not ended the last transaction yet: a partition of it may have \
     no leader, or too few replicas";

/// A producer that is fenced so often in a row has a twin.
const FENCES_MAX: u32 = 3;

/// How long one with a twin waits before it takes over again.
const FENCED_WAIT: Duration = Duration::from_secs(30);

/// How the topic of the progress records is created: only the newest record of each lane counts, and
/// what is older goes soon.
const PROGRESS_PARTITIONS: i32 = 16;
const PROGRESS_CONFIG: &[(&str, &str)] =
    &[("cleanup.policy", "compact"), ("segment.bytes", "16777216")];

/// The sentence for two gateways with one identity.
const TWIN: &str =
    "two gateways with one identity: each takes over the transactional id of the other";

impl Committer<'_> {
    /// Makes this producer the only one with its id. False when told to stop.
    pub(super) fn connect(&mut self) -> Result<bool, Error> {
        // A producer takes over once; what is asked after that may be asked again.
        let mut has_taken_over = false;
        loop {
            if !self.await_turn()? {
                return Ok(false);
            }
            if !has_taken_over && let Err(error) = self.producer.init(self.try_time()) {
                self.not_connected(error)?;
                continue;
            }
            has_taken_over = true;
            let Some(cluster_id) = self.producer.cluster_id(TRY) else {
                self.lost("the cluster does not say which it is");
                continue;
            };
            if !cluster_id.is_empty() && cluster_id != self.cluster_id {
                self.cluster_id = cluster_id;
            }
            match self.find_progress_topic() {
                Ok(()) => {}
                Err(kafka::Error::Unreachable { name, .. }) => {
                    self.lost(&name);
                    continue;
                }
                Err(source) => {
                    return Err(Error::ExactlyOnce(Halt::ProgressTopic {
                        topic: self.options.progress_topic.clone(),
                        source,
                    }));
                }
            }
            // Its place may be another one.
            (self.register, self.registered) = (None, None);
            let now = Instant::now();
            self.link.answered(now);
            self.budget.reconnected(now);
            return Ok(true);
        }
    }

    /// Waits until the link may be tried. False when told to stop.
    fn await_turn(&mut self) -> Result<bool, Error> {
        while !self.link.is_up() && !self.link.is_due(Instant::now()) {
            if self.is_stopped() {
                return Ok(false);
            }
            let why = self.link.why().to_owned();
            self.pause(&why)?;
        }
        if !self.link.is_up() {
            self.link.trying();
        }
        self.show_often();
        Ok(!self.is_stopped())
    }

    /// How long one question may take: not longer than the caller waits.
    fn try_time(&self) -> Duration {
        let timeout = self.options.ship.timeout.unwrap_or(TRY);
        let left = timeout.saturating_sub(self.progressed.elapsed());
        left.clamp(TRY / 10, TRY)
    }

    fn not_connected(&mut self, error: kafka::TransactionError) -> Result<(), Error> {
        match (error.class, error.failure.class) {
            _ if error.failure.code == TIMEOUT_REFUSED && self.pace.refused() => {
                self.link.answered(Instant::now());
                self.renew(&error.to_string())
            }
            (_, ErrorClass::Blocked) => {
                self.blocked(&error);
                self.renew(&error.to_string())
            }
            (_, ErrorClass::Held | ErrorClass::Poison) => {
                Err(Error::ExactlyOnce(Halt::Transactions(error)))
            }
            (TransactionClass::Retriable, _) => {
                let why = match error.failure.code {
                    TIMED_OUT => "no answer".to_owned(),
                    CONCURRENT => ENDING.to_owned(),
                    _ => error.failure.to_string(),
                };
                self.lost(&why);
                Ok(())
            }
            (TransactionClass::Fenced, _) => {
                self.link.answered(Instant::now());
                self.fenced();
                self.renew(&error.to_string())
            }
            (
                TransactionClass::Abortable | TransactionClass::Fatal | TransactionClass::InDoubt,
                _,
            ) => {
                self.lost(&error.failure.to_string());
                self.renew(&error.to_string())
            }
        }
    }

    /// The cluster lets this client do no transactions. It is tried again after half a minute and more.
    pub(super) fn blocked(&mut self, error: &kafka::TransactionError) {
        let (why, now) = (error.to_string(), Instant::now());
        // There is no second producer for which it may be up.
        if self.link.is_up() {
            self.link.lost(&why, now, random());
        }
        let block = Block::of(error.failure.code);
        self.link.blocked(block, &why, now, random());
    }

    pub(super) fn lost(&mut self, why: &str) {
        self.link.lost(why, Instant::now(), random());
    }

    /// Another producer took over the id.
    pub(super) fn fenced(&mut self) {
        self.is_fenced = true;
        self.fences += 1;
        if self.fences >= FENCES_MAX {
            self.note = Some(TWIN.to_owned());
            self.alarm = Some(TWIN.to_owned());
        }
    }

    /// Asks the cluster again and again until it answers. False when told to stop.
    pub(super) fn await_link(&mut self) -> Result<bool, Error> {
        loop {
            if !self.await_turn()? {
                return Ok(false);
            }
            match self.find_progress_topic() {
                Err(kafka::Error::Unreachable { name, .. }) => self.lost(&name),
                // Any answer is a sign of life.
                Ok(()) | Err(_) => {
                    let now = Instant::now();
                    self.link.answered(now);
                    self.budget.reconnected(now);
                    return Ok(true);
                }
            }
        }
    }

    /// Replaces a producer that is spent. What it had open is aborted by the next one.
    pub(super) fn renew(&mut self, why: &str) -> Result<(), Error> {
        self.counters.rebuilds += 1;
        self.in_flight = 0;
        if self.fences >= FENCES_MAX {
            let until = Instant::now() + FENCED_WAIT;
            while Instant::now() < until && !self.is_stopped() {
                self.pause(TWIN)?;
            }
        } else if self.is_fenced {
            // Whoever has the id may be about to commit: not in step with it.
            let longest =
                u64::try_from(self.options.ship.link.backoff().max.as_millis()).unwrap_or(0);
            thread::sleep(Duration::from_millis(random() % longest.max(1) / 4));
        }
        self.producer =
            TransactionalProducer::new(self.kafka, &self.transactional_id, self.pace.timeout())?;
        self.link.explain(why);
        Ok(())
    }

    /// Finds the topic of the progress records, or creates it.
    fn find_progress_topic(&mut self) -> Result<(), kafka::Error> {
        let topic = &self.options.progress_topic;
        let producer = self.producer.producer();
        let count = match producer.partitions(topic, TRY) {
            Err(kafka::Error::UnknownTopic { .. }) => {
                let (count, config) = (PROGRESS_PARTITIONS, PROGRESS_CONFIG);
                kafka::create_topic(self.kafka, topic, count, config, TRY)?;
                producer.partitions(topic, TRY)
            }
            answered => answered,
        }?
        .count;
        // A topic keeps a lane's records in one partition, whatever its count becomes.
        let known = self.intents.intent().filter(|intent| {
            let (partition, topic) = (u32::try_from(intent.partition), &intent.topic);
            intent.cluster_id == self.cluster_id
                && *topic == self.options.progress_topic
                && partition.is_ok_and(|partition| partition < count)
        });
        self.progress_partition = match known {
            Some(intent) => intent.partition,
            None => {
                let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
                let identity = self.intents.identity().to_string();
                let chosen = partition::choose(SeqNo::ZERO, Some(identity.as_bytes()), count);
                i32::try_from(chosen).unwrap_or(0)
            }
        };
        Ok(())
    }

    /// The offsets that may keep the progress.
    pub(super) fn register(&mut self) -> Result<&mut Register, kafka::Error> {
        let register = match self.register.take() {
            Some(register) => register,
            None => Register::new(
                self.kafka,
                &self.transactional_id,
                &self.options.progress_topic,
                self.progress_partition,
            )?,
        };
        Ok(self.register.insert(register))
    }

    pub(super) fn progress_key(&self) -> String {
        record::key(self.intents.identity(), self.lane.name())
    }
}
