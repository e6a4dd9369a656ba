//! A transaction that cannot be committed: it is taken back, and conclusions are drawn.
//!
//! Owns what a failure means for the next transaction. Must not know what becomes of a record that was
//! refused alone (`verdict`). Invariants: what is in doubt judges no record; a refusal of several is
//! searched by halves, a transaction a piece.

use std::mem;
use std::time::{Duration, Instant};

use super::Error;
use super::committer::Committer;
use super::silent::{Late, is_large, silent};
use super::transact::{Carried, Load, Transaction, Turn};
use crate::kafka::{ErrorClass, TransactionClass, TransactionError};
use crate::ship::health::HoldReason;
use crate::ship::hold::tells_of_missing;
use crate::ship::{OnTooSlow, slow};

/// How long an abort may take before the producer is replaced instead.
pub(super) const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The sentence for a transaction of which all was taken but its progress.
pub(super) const NO_PROGRESS: &str =
    "the progress is not acknowledged, and nothing is committed without it: look at its topic";

impl Committer<'_> {
    /// Takes back a transaction that cannot be committed, and draws the conclusions.
    pub(super) fn undo(&mut self, mut open: Transaction) -> Result<Turn, Error> {
        self.aborted += 1;
        let Some(failure) = open.failure.take() else {
            if self.is_suspected(&open) {
                return self.suspected(open);
            }
            return self.late(open);
        };
        // No wait for what is in flight: behind a refusal it may not be sent, and only the abort
        // gives it back.
        let failed = self.producer.failed();
        let is_for_now = failure.class == ErrorClass::Transient && !open.is_progress_failed;
        let aborted = self.producer.abort(ABORT_TIMEOUT, &mut self.reports);
        self.reports.clear();
        self.let_go(&mut open);
        let error = failed.unwrap_or(TransactionError {
            step: "send in a transaction",
            // librdkafka itself did not take the record, and the transaction knows nothing of it.
            class: match failure.class {
                ErrorClass::Fatal => TransactionClass::Fatal,
                _ => TransactionClass::Abortable,
            },
            failure,
        });
        if error.class != TransactionClass::Abortable {
            return Ok(self.spent(&error));
        }
        match error.failure.class {
            _ if tells_of_missing(&error.failure) && self.has_moved(&open.carried) => {}
            class @ (ErrorClass::Poison | ErrorClass::BadTime | ErrorClass::Held)
                if open.is_progress_failed =>
            {
                return Err(self.progress_refused(class, error.failure));
            }
            class @ (ErrorClass::Poison
            | ErrorClass::BadTime
            | ErrorClass::Held
            | ErrorClass::Transient)
                if class != ErrorClass::Transient || is_for_now =>
            {
                match open.load {
                    Load::Letters { are_copies } => {
                        self.letters_refused(&open.carried, are_copies, &error.failure);
                    }
                    Load::Span | Load::Base => self.refused(&open.carried, error)?,
                }
            }
            ErrorClass::Blocked => {
                self.blocked(&error);
                open.taint.get_or_insert_with(|| error.to_string());
            }
            // Nobody's refusal.
            _ => {}
        }
        self.sources[self.current].rewind();
        Ok(match (aborted, open.taint) {
            (Err(error), _) => self.spent(&error),
            (Ok(()), Some(taint)) => Turn::Spent(taint),
            (Ok(()), None) => Turn::Done,
        })
    }

    /// What was not acknowledged takes nothing of the budget any more.
    pub(super) fn let_go(&mut self, open: &mut Transaction) {
        for carried in open.carried.iter_mut().filter(|c| c.cost > 0) {
            let cost = mem::take(&mut carried.cost);
            self.budget.give_back(carried.index(), u64::from(cost));
        }
        self.in_flight = 0;
    }

    /// What was sent did not arrive in the time of a transaction: the next one is smaller, and without the
    /// partitions that took nothing. What is large is judged once nothing is on the link any more.
    fn late(&mut self, mut open: Transaction) -> Result<Turn, Error> {
        let (large, silent): (Vec<Carried>, _) = silent(&open).into_iter().partition(is_large);
        let are_taken = open.carried.iter().all(|carried| carried.cost == 0);
        self.let_go(&mut open);
        let records = u64::try_from(open.carried.len()).unwrap_or(u64::MAX);
        let had = self.pace.timeout();
        // A trial of a silent partition says nothing about the link.
        if records > 1 || silent.is_empty() {
            self.budget.timed_out();
            self.pace.timed_out(records);
        }
        let longest = self.options.ship.too_slow_after;
        let is_trial = records == 1 && self.is_silent_trial(&open);
        match &open.carried[..] {
            // Nobody's fault but of the progress.
            _ if are_taken => {
                self.note = Some(NO_PROGRESS.to_owned());
                self.pause(NO_PROGRESS)?;
            }
            _ if !silent.is_empty() => self.hold_silent(silent, &open)?,
            _ => {
                self.late = Some(Late {
                    large,
                    is_hopeless: records == 1 && had >= longest.min(self.pace.timeout_max()),
                    source: self.current,
                    load: open.load,
                    bytes: open.bytes,
                    started: open.started,
                    ended: Instant::now(),
                });
            }
        }
        if is_trial {
            self.tried_in_vain(open.started);
        }
        Ok(Turn::Spent(open.taint.unwrap_or_else(|| {
            format!("a transaction of {records} records was not done in its time")
        })))
    }

    /// A record did not cross the link although it was alone and had the longest time that there is.
    pub(super) fn too_slow(&mut self, only: Carried, bytes: u64, load: Load) -> Result<(), Error> {
        let waited = self.options.ship.too_slow_after;
        let why = HoldReason::TooSlow { bytes, waited };
        self.pace.begin_anew();
        if let Load::Letters { are_copies } = load {
            self.letter_hopeless(only, are_copies, slow::TIMED_OUT, &why);
            return Ok(());
        }
        match self.options.ship.on_too_slow {
            OnTooSlow::Hold => self.hold_alone(only, why),
            // No broker refused it: no attempt is counted, it is the operator's choice.
            OnTooSlow::DeadLetter => self.bury_slow(only, &slow::failure(bytes, waited)),
        }
    }

    /// Goes on with the search for the refused record; where it was alone, its partition is held.
    fn refused(&mut self, carried: &[Carried], error: TransactionError) -> Result<(), Error> {
        self.counters.refused += u64::try_from(carried.len()).unwrap_or(0);
        match carried {
            [only] => self.refused_alone(*only, error.failure),
            _ => {
                self.sources[self.current].search(carried, false);
                Ok(())
            }
        }
    }
}
