//! A producer of transactions: librdkafka's calls, each blocking for a bounded time.
//!
//! Owns the steps (init, begin, commit, abort) and what each one's error means for the transaction.
//! Must not know what is sent in it, nor decide what is done about an error. Invariants: a commit
//! is only asked for when nothing is in flight; whatever error it ends with, its outcome is in doubt.

use std::time::{Duration, Instant};

use std::error;
use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;

use super::classify::{Persistence, classify};
use super::client::Settings;
use super::producer::{Failure, Producer, Report};
use super::register::Register;
use super::{Error, code_of, number_and_name};

/// How long one try of an abort waits for records in flight, whose reports only a poll takes.
const ABORT_TRY: Duration = Duration::from_millis(20);

/// A coordinator that librdkafka is told of before it knows the brokers it takes for unknown, and asks again
/// after this time.
const COORDINATOR_RETRY: Duration = Duration::from_millis(500);

/// A producer whose records arrive a transaction at a time. Used by one thread.
#[derive(Debug)]
pub struct TransactionalProducer {
    producer: Producer,
}

/// What an error means for the transaction it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionClass {
    /// Nothing happened yet; the same step may be tried again.
    Retriable,
    /// The transaction must be aborted; the producer may go on.
    Abortable,
    /// Another producer took over this transactional id; this one is spent.
    Fenced,
    /// This producer is spent.
    Fatal,
    /// The transaction may be committed or not.
    InDoubt,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionError {
    /// The step.
    pub step: &'static str,
    /// What it means.
    pub class: TransactionClass,
    /// Why, in librdkafka's words.
    pub failure: Failure,
}

impl fmt::Display for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", self.step, self.failure)
    }
}

impl error::Error for TransactionError {}

impl TransactionalProducer {
    /// Creates a producer. Connects in the background: a cluster that is away is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] and [`Error::Configuration`], as [`Settings::check`].
    pub fn new(
        settings: &Settings,
        transactional_id: &str,
        timeout: Duration,
    ) -> Result<TransactionalProducer, Error> {
        let config = settings.transactional_config(transactional_id, timeout)?;
        let producer = Producer::with(config)?;
        Ok(TransactionalProducer { producer })
    }

    /// Sends and polls between begin and commit.
    pub fn producer(&mut self) -> &mut Producer {
        &mut self.producer
    }

    /// Takes over the transactional id: an older producer with it is fenced, and its transaction
    /// ended. Blocks up to `timeout`.
    ///
    /// # Errors
    ///
    /// [`TransactionClass::Retriable`]: call it again. Else the producer is spent.
    pub fn init(&mut self, timeout: Duration) -> Result<(), TransactionError> {
        let started = Instant::now();
        // Only so that the brokers are known: whatever is wrong, what follows says it better.
        self.cluster_id(COORDINATOR_RETRY.min(timeout / 2));
        let left = timeout.saturating_sub(started.elapsed());
        let done = self.producer.client().init_transactions(left);
        done.map_err(|error| self.failure("take over the transactional id", &error))
    }

    /// Begins a transaction. Asks nobody.
    ///
    /// # Errors
    ///
    /// The producer is spent.
    pub fn begin(&mut self) -> Result<(), TransactionError> {
        let begun = self.producer.client().begin_transaction();
        begun.map_err(|error| self.failure("begin a transaction", &error))
    }

    /// Why the transaction under way failed, if it did. Asks nobody.
    pub fn failed(&self) -> Option<TransactionError> {
        // In a transaction another one cannot begin; librdkafka's reason is that, or the failure.
        let error = self.producer.client().begin_transaction().err()?;
        let is_under_way = code_of(&error) == RDKafkaErrorCode::State;
        (!is_under_way).then(|| self.failure("go on with a transaction", &error))
    }

    /// Sends what is queued now, without waiting for fuller batches.
    pub fn hurry(&mut self) {
        // It times out at once, which is the point.
        let _ = self.producer.client().flush(Duration::ZERO);
    }

    /// Writes to a register, as a part of the transaction. Blocks up to `timeout`.
    ///
    /// # Errors
    ///
    /// The transaction cannot be committed.
    pub fn put(
        &mut self,
        register: &Register,
        number: i64,
        value: &str,
        timeout: Duration,
    ) -> Result<(), TransactionError> {
        let entry = register.entry(number, value);
        let client = self.producer.client();
        let put = client.send_offsets_to_transaction(&entry, &register.metadata, timeout);
        put.map_err(|error| self.failure("write the offsets of a group", &error))
    }

    /// Commits what was sent. Blocks up to `timeout`.
    ///
    /// # Errors
    ///
    /// Always [`TransactionClass::InDoubt`]: a request whose answer was lost may have been heard.
    ///
    /// # Panics
    ///
    /// Panics if anything is in flight: waiting for that is the caller's matter.
    pub fn commit(&mut self, timeout: Duration) -> Result<(), TransactionError> {
        assert_eq!(self.producer.in_flight(), 0, "a commit waits for nothing");
        let committed = self.producer.client().commit_transaction(timeout);
        committed.map_err(|error| TransactionError {
            class: TransactionClass::InDoubt,
            ..self.failure("commit a transaction", &error)
        })
    }

    /// Takes back what was sent; what was not reported yet is reported. Blocks up to `timeout`.
    ///
    /// # Errors
    ///
    /// The producer is to be replaced: whoever takes over its transactional id aborts for it.
    pub fn abort(
        &mut self,
        timeout: Duration,
        reports: &mut Vec<Report>,
    ) -> Result<(), TransactionError> {
        let deadline = Instant::now() + timeout;
        loop {
            let aborted = self.producer.client().abort_transaction(ABORT_TRY);
            self.producer.poll(Duration::ZERO, reports);
            let Err(error) = aborted else { return Ok(()) };
            let failure = self.failure("abort a transaction", &error);
            if failure.class != TransactionClass::Retriable || Instant::now() >= deadline {
                return Err(failure);
            }
        }
    }

    /// Whether another producer took over the transactional id, as far as this one knows.
    pub fn is_fenced(&self) -> bool {
        let fatal = self.producer.client().client().fatal_error();
        fatal.is_some_and(|(code, _)| is_fenced(code))
    }

    /// The identity of the cluster; `None` if nobody answered.
    pub fn cluster_id(&self, timeout: Duration) -> Option<String> {
        self.producer.client().client().fetch_cluster_id(timeout)
    }

    fn failure(&self, step: &'static str, error: &KafkaError) -> TransactionError {
        let code = code_of(error);
        let (is_fatal, is_retriable, is_abortable) = match error {
            KafkaError::Transaction(error) => (
                error.is_fatal(),
                error.is_retriable(),
                error.txn_requires_abort(),
            ),
            _ => (false, code == RDKafkaErrorCode::OperationTimedOut, false),
        };
        let class = if is_fenced(code) || self.is_fenced() {
            TransactionClass::Fenced
        } else if is_fatal {
            TransactionClass::Fatal
        } else if is_abortable {
            TransactionClass::Abortable
        } else if is_retriable {
            TransactionClass::Retriable
        } else {
            TransactionClass::Fatal
        };
        let (number, name) = number_and_name(code);
        let name = match error {
            KafkaError::Transaction(error) => format!("{name}: {}", error.string()),
            _ => name,
        };
        TransactionError {
            step,
            class,
            failure: Failure {
                class: classify(code, Persistence::No),
                persistence: Persistence::No,
                code: number,
                name,
            },
        }
    }
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
