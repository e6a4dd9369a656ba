//! The producer: librdkafka's, polled by one thread, with our own book of what is in flight.
//!
//! Owns the librdkafka producer and the slab that turns a delivery report back into the caller's
//! token. Must not know what the token stands for. Invariants: one report per record taken, never
//! a second one; nothing is flushed (that costs 100 ms at least); dropping the producer purges what it still holds, and
//! the fate of that is in doubt.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::breaks::{BreakCount, Breaks};
use super::classify::{ErrorClass, Persistence, classify};
use super::client::{Settings, configuration_error, without_secrets};
use super::hand_over::Topics;
use super::{Error, code_of, number_and_name};

/// Most events handled by one poll; an event is a whole batch of reports.
const EVENTS_PER_POLL: usize = 64;

/// A record handed over for sending. Borrows everything; librdkafka copies it.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// Which partition: never left to librdkafka.
    pub partition: i32,
    /// The key; none is not an empty one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since 1970. Zero is sent as the time of sending: librdkafka's own rule.
    pub timestamp_millis: i64,
    /// Comes back in the report.
    pub token: u64,
    /// Whether it may be refused: it then goes by a producer of its own, so that a refusal
    /// disturbs nothing else.
    pub is_careful: bool,
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The token it was sent with.
    pub token: u64,
    /// Delivered or not.
    pub outcome: Outcome,
}

/// Delivered or not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All in-sync replicas have it.
    Delivered {
        /// Its partition.
        partition: i32,
        /// Its place there.
        partition_offset: i64,
    },
    /// It was given back. In a box, as it is rare: a report is moved three times.
    Failed(Box<Failure>),
}

/// Why a record was given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means.
    pub class: ErrorClass,
    /// librdkafka's or Kafka's code.
    pub code: i32,
    /// The code's name and text.
    pub name: String,
    /// Whether the cluster may have it all the same.
    pub persistence: Persistence,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, code {}", self.name, self.code)
    }
}

/// Why a record was not taken at all. No report follows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// librdkafka's queue is full. Poll, then try again.
    QueueFull,
    /// It cannot be taken by this producer.
    Failed(Failure),
}

/// What librdkafka reported about the client as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// [`ErrorClass::Fatal`]: this producer is spent. [`ErrorClass::Blocked`]: it was turned away.
    /// Else the connection, and it tries by itself.
    pub class: ErrorClass,
    /// Kafka's or librdkafka's code.
    pub code: i32,
    /// Whether requests went without an answer for too long.
    pub timed_out: bool,
    /// librdkafka's words.
    pub reason: String,
}

/// A producer. Used by one thread.
pub struct Producer {
    /// Before the client: that is the order in which they are dropped.
    topics: Topics,
    pub(super) inner: BaseProducer<Inbox>,
    slab: Slab,
    /// Reports of the poll in progress; kept to reuse its memory.
    batch: Vec<(usize, Outcome)>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// Creates a producer. Connects in the background: a cluster that is away is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] and [`Error::Configuration`], as [`Settings::check`].
    pub fn new(settings: &Settings) -> Result<Producer, Error> {
        Producer::with(settings.producer_config()?)
    }

    /// Creates a producer that goes on after a refusal: what stands behind a refused record in its
    /// queue may overtake it. So of one partition no more than one batch is handed over to it at
    /// a time, which [`Producer::pause`] makes sure is one.
    ///
    /// A request may take as long as `patience` says, at most [`SOCKET_TIMEOUT_MAX`](super::SOCKET_TIMEOUT_MAX),
    /// instead of the usual time.
    ///
    /// # Errors
    ///
    /// As [`Producer::new`].
    pub fn careful(settings: &Settings, patience: Option<Duration>) -> Result<Producer, Error> {
        Producer::with(settings.careful_producer_config(patience)?)
    }

    pub(super) fn with(config: ClientConfig) -> Result<Producer, Error> {
        let inner = config
            .create_with_context(Inbox::default())
            .map_err(|error| configuration_error(&error))?;
        Ok(Producer {
            topics: Topics::default(),
            inner,
            slab: Slab::default(),
            batch: Vec::new(),
        })
    }

    /// Keeps what is handed over for a partition until [`Producer::resume`]: all of it then goes as
    /// one batch, if that is below librdkafka's limits for one. False: the partition is not known
    /// yet, and nothing is kept.
    pub fn pause(&self, topic: &str, partition: i32) -> bool {
        self.is_open(topic, partition, false)
    }

    /// Lets go what [`Producer::pause`] kept.
    pub fn resume(&self, topic: &str, partition: i32) -> bool {
        let is_known = self.is_open(topic, partition, true);
        // Else librdkafka's own threads see it within a second. It times out at once.
        let _ = self.inner.flush(Duration::ZERO);
        is_known
    }

    #[expect(unsafe_code, reason = "the binding offers this for consumers alone")]
    fn is_open(&self, topic: &str, partition: i32, is_open: bool) -> bool {
        use rdkafka::bindings::{rd_kafka_pause_partitions, rd_kafka_resume_partitions};
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let client = self.inner.client().native_ptr();
        // SAFETY: both pointers are those of living objects, which outlive the calls; librdkafka
        // writes nothing but the error of the list's element.
        let code = unsafe {
            if is_open {
                rd_kafka_resume_partitions(client, list.ptr())
            } else {
                rd_kafka_pause_partitions(client, list.ptr())
            }
        };
        let is_known = list.elements().iter().all(|found| found.error().is_ok());
        RDKafkaErrorCode::from(code) == RDKafkaErrorCode::NoError && is_known
    }

    /// The tokens of what was taken and not reported. Whoever drops the producer after this knows
    /// what is in doubt.
    pub fn outstanding(&self) -> Vec<u64> {
        self.slab.tokens()
    }

    /// Hands one record over. Never blocks.
    ///
    /// # Errors
    ///
    /// [`SendError::QueueFull`]: poll and try again. [`SendError::Failed`]: not taken, and trying
    /// again as it is will not help unless its class says so.
    pub fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        let slot = self.slab.insert(record.token);
        let client = self.inner.client().native_ptr();
        self.topics.produce(client, record, slot).map_err(|code| {
            self.slab.take(slot);
            match code {
                RDKafkaErrorCode::QueueFull => SendError::QueueFull,
                code => SendError::Failed(failure(code, Persistence::No)),
            }
        })
    }

    /// Takes what librdkafka has to report; if that is nothing, waits for `timeout` and looks again.
    ///
    /// librdkafka's own poll with a timeout is never used: through this binding it does not return
    /// early, and turns the processor for the last millisecond of it.
    pub fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        if !self.poll_events(reports) && !timeout.is_zero() {
            thread::sleep(timeout);
            self.poll_events(reports);
        }
    }

    /// Handles the events that are there, each a whole batch of reports; false if there were none.
    fn poll_events(&mut self, reports: &mut Vec<Report>) -> bool {
        let mut found = false;
        for _ in 0..EVENTS_PER_POLL {
            self.inner.poll(Duration::ZERO);
            let is_reported = self.collect(reports);
            found |= is_reported;
            // Behind a line there may be errors and reports.
            if !is_reported
                && !self
                    .inner
                    .context()
                    .has_logged
                    .swap(false, Ordering::Relaxed)
            {
                break;
            }
        }
        found
    }

    /// Moves the reports out of the inbox; false if there were none.
    fn collect(&mut self, reports: &mut Vec<Report>) -> bool {
        mem::swap(&mut *self.inner.context().reports.lock(), &mut self.batch);
        let found = !self.batch.is_empty();
        for (slot, outcome) in self.batch.drain(..) {
            let token = self.slab.take(slot);
            reports.push(Report { token, outcome });
        }
        found
    }

    /// What went wrong with the client since this was last asked; the gravest only.
    pub fn trouble(&mut self) -> Option<Trouble> {
        self.inner.context().trouble.lock().take()
    }

    /// How often its connections broke since this was last asked.
    pub fn breaks(&mut self) -> Breaks {
        self.inner.context().breaks.take()
    }

    /// The client below, for what is done with whole transactions.
    pub(super) fn client(&self) -> &impl rdkafka::producer::Producer<Inbox> {
        &self.inner
    }

    /// How many records were taken and not reported yet.
    pub fn in_flight(&self) -> usize {
        self.slab.len()
    }

    /// Asks the cluster for the partitions of a topic. Creates no topic.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] if nobody answered or the topic is not ready,
    /// [`Error::UnknownTopic`], or [`Error::Refused`] with the cluster's reason.
    pub fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<Partitions, Error> {
        const ACTION: &str = "asking for the partitions";
        let metadata = self
            .inner
            .client()
            .fetch_metadata(Some(topic), timeout)
            .map_err(|error| Error::of(ACTION, topic, timeout, code_of(&error)))?;
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else {
            return Err(Error::UnknownTopic {
                topic: topic.to_owned(),
            });
        };
        if let Some(code) = found.error() {
            return Err(Error::of(ACTION, topic, timeout, code.into()));
        }
        let numbers = found.partitions().iter();
        let without = numbers.filter(|partition| partition.leader() < 0);
        let without = without.filter_map(|partition| u32::try_from(partition.id()).ok());
        match u32::try_from(found.partitions().len()) {
            Ok(count) if count > 0 => Ok(Partitions {
                count,
                leaderless: without.collect(),
            }),
            // A topic that is being created.
            _ => Err(Error::of(
                ACTION,
                topic,
                timeout,
                RDKafkaErrorCode::LeaderNotAvailable,
            )),
        }
    }
}

/// The partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partitions {
    /// How many there are; they are numbered from 0 on.
    pub count: u32,
    /// Those that no broker leads now.
    pub leaderless: Vec<u32>,
}

fn failure(code: RDKafkaErrorCode, persistence: Persistence) -> Failure {
    let (number, name) = number_and_name(code);
    Failure {
        class: classify(code, persistence),
        code: number,
        name,
        persistence,
    }
}

/// What librdkafka knows about where a record that came back is.
fn persistence(message: &BorrowedMessage<'_>) -> Persistence {
    use rdkafka::bindings::{rd_kafka_message_status, rd_kafka_msg_status_t as Status};
    // SAFETY: the pointer is the borrowed message's own, which outlives the call; the function
    // only reads.
    #[expect(unsafe_code, reason = "the binding has no safe way to ask")]
    let status = unsafe { rd_kafka_message_status(message.ptr()) };
    match status {
        Status::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => Persistence::No,
        Status::RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED => Persistence::Possibly,
        Status::RD_KAFKA_MSG_STATUS_PERSISTED => Persistence::Yes,
    }
}

/// Where librdkafka's callbacks leave what they bring, until the poll that caused them collects it.
#[derive(Default)]
pub(super) struct Inbox {
    reports: Mutex<Vec<(usize, Outcome)>>,
    trouble: Mutex<Option<Trouble>>,
    breaks: BreakCount,
    /// Since it was last asked.
    has_logged: AtomicBool,
}

impl ClientContext for Inbox {
    /// Errors come as events too, but for connections that break.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        self.has_logged.store(true, Ordering::Relaxed);
        self.breaks.logged(facility, line);
    }

    /// Called twice for each event, so it only remembers the gravest: a connection that is turned
    /// away is reported as such first, and then as one that is lost.
    fn error(&self, error: KafkaError, reason: &str) {
        let code = code_of(&error);
        let class = classify(code, Persistence::No);
        let gravity = |class| match class {
            ErrorClass::Fatal => 2,
            ErrorClass::Blocked => 1,
            _ => 0,
        };
        let mut trouble = self.trouble.lock();
        let known = trouble.as_ref().map_or(0, |known| gravity(known.class));
        if gravity(class) >= known {
            *trouble = Some(Trouble {
                class,
                code: number_and_name(code).0,
                timed_out: matches!(
                    code,
                    RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::OperationTimedOut
                ),
                reason: without_secrets(reason),
            });
        }
    }
}

impl ProducerContext for Inbox {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        let outcome = match result {
            Ok(message) => Outcome::Delivered {
                partition: message.partition(),
                partition_offset: message.offset(),
            },
            Err((error, message)) => {
                Outcome::Failed(Box::new(failure(code_of(error), persistence(message))))
            }
        };
        self.reports.lock().push((slot, outcome));
    }
}

/// Tokens of what is in flight, by slot. librdkafka hands back a `usize`, which has 32 bits on
/// small machines, so the token itself cannot ride along.
#[derive(Default)]
struct Slab {
    tokens: Vec<u64>,
    free: Vec<usize>,
}

impl Slab {
    fn insert(&mut self, token: u64) -> usize {
        if let Some(slot) = self.free.pop() {
            self.tokens[slot] = token;
            slot
        } else {
            self.tokens.push(token);
            self.tokens.len() - 1
        }
    }

    fn take(&mut self, slot: usize) -> u64 {
        self.free.push(slot);
        self.tokens[slot]
    }

    fn tokens(&self) -> Vec<u64> {
        let mut is_free = vec![false; self.tokens.len()];
        for &slot in &self.free {
            is_free[slot] = true;
        }
        let taken = self.tokens.iter().zip(is_free);
        taken
            .filter_map(|(token, free)| (!free).then_some(*token))
            .collect()
    }

    fn len(&self) -> usize {
        self.tokens.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gives_its_token_back_and_is_used_again() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert(70), slab.insert(71));
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.take(a), 70);
        assert_eq!(slab.tokens(), [71]);
        assert_eq!(slab.insert(72), a);
        assert_eq!((slab.take(b), slab.take(a)), (71, 72));
        assert_eq!(slab.len(), 0);
    }

    #[test]
    fn the_gravest_trouble_is_kept() {
        let inbox = Inbox::default();
        inbox.error(KafkaError::Global(RDKafkaErrorCode::Fatal), "spent");
        inbox.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1");
        let trouble = inbox.trouble.lock().take().unwrap();
        assert_eq!(trouble.class, ErrorClass::Fatal);
        assert_eq!(trouble.reason, "spent");
    }
}
