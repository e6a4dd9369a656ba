//! A record that is refused for now, again and again, although its partition takes others.
//!
//! Owns the count of attempts, the proof, and what the retry policy says then. Must not know how a
//! record is sent. D3: an attempt counts only where the record was refused alone, and it is exhausted
//! only if it is refused once more after the broker took the one behind it. That one is sent in a
//! transaction that is taken back, so nothing is passed and nobody reads it; in the lane itself nothing
//! is counted, as a refused record's partition is parked first.

use std::time::{Duration, Instant};

use super::Error;
use super::committer::Committer;
use super::span::{Next, Place};
use super::transact::{Load, Transaction, Turn};
use super::undo::ABORT_TIMEOUT;
use crate::kafka::{ErrorClass, Failure};
use crate::ship::health::HoldReason;
use crate::ship::retry::Decide;
use crate::ship::{OnExhausted, Recovery, RetryPolicy, judge, overrides};
use crate::store::Entry;
use crate::wal::{Class, SeqNo};

/// How long a poll waits for the answer.
const POLL_WAIT: Duration = Duration::from_millis(1);

/// So soon after it the first record is tried once more, or the proof is made again.
const PROOF_HOLDS: Duration = Duration::from_secs(10);

/// Records of other partitions that are passed over to find one that proves something.
const LOOK: usize = 10_000;

/// How often the oldest record of a parking log was refused alone, and what was said last.
#[derive(Debug)]
pub(super) struct Attempted {
    pub(super) seq: SeqNo,
    pub(super) attempts: u32,
    /// How often it may be.
    most: u32,
    failure: Failure,
    /// Of which partition, by its index: a parking log may hold several.
    partition: usize,
    /// Records of that partition behind it that prove nothing: they are refused for themselves.
    passed: usize,
    /// When the broker took another record of that partition since.
    proved: Option<Instant>,
}

impl Attempted {
    /// Whether another record was taken just now. In a longer time much may change.
    fn is_proved(&self) -> bool {
        self.proved.is_some_and(|at| at.elapsed() < PROOF_HOLDS)
    }
}

impl Committer<'_> {
    /// A record of the current log was refused for now: the count, where its log is a parking log. Its
    /// last one is returned, where the policy has the say from here.
    pub(super) fn attempted(
        &mut self,
        partition: usize,
        entry: &Entry,
        failure: &Failure,
    ) -> Option<Attempted> {
        if self.current == 0 {
            return None;
        }
        let (seq, most) = (entry.seq, self.policy(entry).max_attempts);
        let before = self.sources[self.current].attempted.take();
        let before = before.filter(|before| before.seq == seq);
        let attempted = Attempted {
            seq,
            attempts: before.as_ref().map_or(0, |before| before.attempts) + 1,
            most,
            failure: failure.clone(),
            partition,
            passed: before.as_ref().map_or(0, |before| before.passed),
            proved: None,
        };
        if before.is_some_and(|before| before.is_proved()) {
            return Some(attempted);
        }
        self.sources[self.current].attempted = Some(attempted);
        None
    }

    /// The retry policy of a record.
    pub(super) fn policy(&self, entry: &Entry) -> RetryPolicy {
        overrides::of_record(&self.options.ship, self.store, self.lane, entry)
    }

    /// Whether the oldest record of a log was refused often enough.
    pub(super) fn is_to_be_proved(&self, place: usize) -> bool {
        let attempted = self.sources[place].attempted.as_ref();
        attempted.is_some_and(|a| a.attempts + 1 >= a.most && !a.is_proved())
    }

    /// Whether another record of its partition was taken just now.
    pub(super) fn is_proved(&self, place: usize) -> bool {
        let attempted = self.sources[place].attempted.as_ref();
        attempted.is_some_and(Attempted::is_proved)
    }

    /// Tries the record behind the one that was refused: if it is taken, the next refusal of the first
    /// is its last. `None`: there is none, or another one is the oldest by now.
    pub(super) fn prove(&mut self) -> Result<Option<Turn>, Error> {
        let source = &mut self.sources[self.current];
        let Some(attempted) = source.attempted.take() else {
            return Ok(None);
        };
        source.rewind();
        let mut first = None;
        while let Some(entry) = source.read()? {
            if !source.stream.is_settled(entry.seq) {
                first = Some(entry.seq);
                break;
            }
        }
        if first != Some(attempted.seq) {
            source.rewind();
            return Ok(None);
        }
        let Some(place) = self.another(&attempted)? else {
            let source = &mut self.sources[self.current];
            source.rewind();
            // It goes on being tried.
            source.attempted = Some(attempted);
            return Ok(None);
        };
        self.forget_trouble();
        if let Err(error) = self.producer.begin() {
            self.attempt_again(attempted);
            return Ok(Some(self.spent(&error)));
        }
        let mut open = Transaction::new(attempted.seq, 0, Load::Span, self.pace.timeout());
        while !self.send(place, Instant::now(), &mut open)
            && open.failure.is_none()
            && open.taint.is_none()
        {
            if Instant::now() >= open.deadline || self.is_stopped() {
                break;
            }
            self.collect(&mut open, POLL_WAIT);
        }
        self.wait_for_reports(&mut open);
        let is_done = !open.carried.is_empty() && self.producer.producer().in_flight() == 0;
        let failure = self.producer.failed().map(|error| error.failure);
        let aborted = self.producer.abort(ABORT_TIMEOUT, &mut self.reports);
        self.reports.clear();
        self.let_go(&mut open);
        self.aborted += 1;
        self.sources[self.current].rewind();
        let said = failure.or(open.failure.take());
        self.conclude(attempted, is_done, said, open.taint.is_some());
        Ok(Some(match (aborted, open.taint) {
            (Err(error), _) => self.spent(&error),
            (Ok(()), Some(taint)) => Turn::Spent(taint),
            (Ok(()), None) => Turn::Done,
        }))
    }

    /// What the answer to another record says about the first one.
    fn conclude(
        &mut self,
        attempted: Attempted,
        is_taken: bool,
        said: Option<Failure>,
        is_tainted: bool,
    ) {
        match said {
            None if is_taken => self.attempt_again(Attempted {
                proved: Some(Instant::now()),
                ..attempted
            }),
            // It says nothing, as it is refused for itself.
            Some(failure) if matches!(failure.class, ErrorClass::Poison | ErrorClass::BadTime) => {
                self.attempt_again(Attempted {
                    passed: attempted.passed + 1,
                    ..attempted
                });
            }
            // It is the partition, and nobody is to blame: the count starts over.
            Some(failure) if failure.class.is_refusal() => {
                self.hold(self.current, HoldReason::NotNow(failure));
            }
            // The numbers of what was refused before are missing: with others it goes.
            Some(failure) if failure.class == ErrorClass::Fatal && !is_tainted => {
                self.attempt_again(attempted);
            }
            // It says nothing. The first one is tried again, and then this.
            None | Some(_) => {
                self.hold(self.current, HoldReason::NotNow(attempted.failure.clone()));
                self.attempt_again(Attempted {
                    attempts: attempted.attempts.saturating_sub(1),
                    ..attempted
                });
            }
        }
    }

    fn attempt_again(&mut self, attempted: Attempted) {
        self.sources[self.current].attempted = Some(attempted);
    }

    /// Goes on to the next record of the same partition that may prove something.
    fn another(&mut self, attempted: &Attempted) -> Result<Option<Place>, Error> {
        let mut passed = 0;
        for _ in 0..LOOK {
            let Next::Ready(place) = self.next(&mut 0)? else {
                break;
            };
            if place.index == attempted.partition {
                if passed == attempted.passed {
                    return Ok(Some(place));
                }
                passed += 1;
            }
            self.sources[self.current].pending = None;
        }
        Ok(None)
    }

    /// Carries out what the policy says.
    pub(super) fn exhausted(&mut self, entry: &Entry, attempted: Attempted) -> Result<(), Error> {
        let Attempted {
            attempts, failure, ..
        } = attempted;
        match self.policy(entry).on_exhausted {
            OnExhausted::DeadLetter => self.bury(entry, &failure, attempts)?,
            OnExhausted::Halt => self.hold(self.current, HoldReason::Halted(failure)),
            OnExhausted::Drop => self.give_up(entry)?,
            OnExhausted::Callback(decide) => self.recover(entry, &failure, attempts, &*decide)?,
        }
        Ok(())
    }

    /// Asks the callback about the oldest record of a parking log, and carries out its answer.
    pub(super) fn recover(
        &mut self,
        entry: &Entry,
        failure: &Failure,
        attempts: u32,
        decide: &Decide,
    ) -> Result<(), Error> {
        let Ok(message) = &entry.message else {
            return Ok(());
        };
        let (store, lane) = (self.store, self.lane);
        match decide(&overrides::failed(
            store, lane, entry, message, attempts, failure,
        )) {
            Recovery::DeadLetter => self.bury(entry, failure, attempts)?,
            Recovery::Drop => self.give_up(entry)?,
            Recovery::Retry(after) => {
                self.sources[self.current].hold_for(HoldReason::Recovering, after);
            }
            Recovery::Replace(replacement) => {
                let place = (self.current, entry.seq);
                self.replaced.insert(place, replacement);
                let now = Duration::ZERO;
                self.sources[self.current].hold_for(HoldReason::Recovering, now);
            }
        }
        Ok(())
    }

    fn bury(&mut self, entry: &Entry, failure: &Failure, attempts: u32) -> Result<(), Error> {
        let parked = self.sources[self.current].stream.parked();
        let partition = parked.and_then(|log| log.partition());
        match judge::bury(self.store, self.lane, entry, partition, failure, attempts) {
            Ok(()) => {
                self.sources[self.current].hold = None;
                self.dead_lettered(entry)
            }
            Err(error) => {
                let why = HoldReason::NoDeadLetters(error.to_string());
                self.hold(self.current, why);
                Ok(())
            }
        }
    }

    fn give_up(&mut self, entry: &Entry) -> Result<(), Error> {
        let source = &mut self.sources[self.current];
        source.hold = None;
        let stream = source.stream;
        stream.settle(entry.seq..entry.seq + 1, Class::Dropped);
        stream.save_cursor()?;
        self.counters.dropped += 1;
        Ok(())
    }
}
