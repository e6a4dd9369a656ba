//! Reading a part of one partition, of which the outcome of every transaction is known.
//!
//! Owns the waiting for the last stable offset. Must not know what the records mean.
//!
//! Invariants: a transaction's records count as absent only when the reader's own position is
//! behind them; an "end of partition" decides nothing, because it may be that of a transaction
//! which is still open in front of them.

use std::thread;
use std::time::Duration;

use super::Error;
use super::client::Settings;
use super::consumer::{Consumed, Consumer};

/// How far one look reads at most before it returns to its caller.
const POLL: Duration = Duration::from_millis(100);

/// Reads from one partition offset to another, both exact.
#[derive(Debug)]
pub struct Scan {
    /// `None` where nothing is to be read, or all was.
    consumer: Option<Consumer>,
    topic: String,
    partition: i32,
    from: i64,
    until: i64,
    is_stable: bool,
}

/// How far a scan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scanned {
    /// Everything up to the end was handed over.
    Done,
    /// Call it again.
    Going,
    /// A transaction at or behind this partition offset is still open: call it again later.
    Unstable(i64),
}

/// The first partition offset that is still there, and the one behind the newest record, whatever
/// became of its transaction.
///
/// # Errors
///
/// [`Error::Unreachable`], [`Error::UnknownTopic`] or [`Error::Refused`].
pub fn bounds(
    settings: &Settings,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> Result<(i64, i64), Error> {
    Consumer::of_everything(settings)?.bounds(topic, partition, timeout)
}

impl Scan {
    /// Begins to read `from..until`. Both must be within [`bounds`].
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] and [`Error::Configuration`], as [`Settings::check`].
    pub fn new(
        settings: &Settings,
        topic: &str,
        partition: i32,
        from: i64,
        until: i64,
    ) -> Result<Scan, Error> {
        let consumer = (from < until).then(|| Consumer::of_the_past(settings));
        Ok(Scan {
            consumer: consumer.transpose()?,
            topic: topic.to_owned(),
            partition,
            from,
            until,
            is_stable: false,
        })
    }

    /// Reads on for a moment; `each` gets every record whose transaction was committed.
    ///
    /// # Errors
    ///
    /// As [`Consumer::poll`], [`Consumer::end`] and [`Consumer::assign_at`]. It may be called again after
    /// [`Error::Unreachable`].
    pub fn step(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(&Consumed<'_>),
    ) -> Result<Scanned, Error> {
        let Some(consumer) = &mut self.consumer else {
            return Ok(Scanned::Done);
        };
        if !self.is_stable {
            // A consumer that reads what is committed is told the last stable offset as the end.
            let stable = consumer.end(&self.topic, self.partition, timeout)?;
            if stable < self.until {
                return Ok(Scanned::Unstable(stable));
            }
            // Not before: it would ask for more all the time that a transaction stays open.
            consumer.assign_at(&self.topic, self.partition, self.from)?;
            self.is_stable = true;
        }
        // Where the position is not known nothing was passed.
        let has_passed = |consumer: &Consumer| {
            let position = consumer.position(&self.topic, self.partition);
            position.is_some_and(|position| position >= self.until)
        };
        if !has_passed(consumer) {
            consumer.poll(POLL, each)?;
            if !has_passed(consumer) {
                return Ok(Scanned::Going);
            }
        }
        // To end it takes a tenth of a second. Without a thread it ends here.
        let consumer = self.consumer.take();
        drop(thread::Builder::new().spawn(move || drop(consumer)));
        Ok(Scanned::Done)
    }
}
