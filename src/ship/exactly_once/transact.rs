//! One transaction: take records, wait for them, make the intent durable, commit, settle.
//!
//! Owns this order, in which every step has its reason. Invariants: the intent is durable before the
//! commit is asked for, and after every record of the transaction was acknowledged; a span is settled
//! only after its commit was acknowledged; what went wrong once inside a transaction spends the
//! producer, and what is in doubt is looked up before anything else is sent.

use std::mem;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::committer::Committer;
use super::progress::PROGRESS;
use super::record::ProgressRecord;
use super::span::{self, Next};
use super::undo::ABORT_TIMEOUT;
use super::{Error, ProgressIn, Until};
use crate::kafka::{ErrorClass, Failure, Outcome, TransactionClass, TransactionError};
use crate::store::{Intent, Nonce};
use crate::wal::{Class, SeqNo};

/// Records handed over between two polls: reports are taken while librdkafka still has work.
const RECORDS_PER_TURN: usize = 2048;

/// How long a poll waits when there is nothing to hand over; doubled while nothing is reported.
const POLL_WAIT: Duration = Duration::from_millis(1);
const QUIET_POLLS: u32 = 16;
const QUIET_DOUBLINGS_MAX: u32 = 4;

/// Shortest time that is left for a commit.
const COMMIT_TIMEOUT_MIN: Duration = Duration::from_secs(5);

/// How a turn ended.
pub(super) enum Turn {
    /// Go on.
    Done,
    /// Everything on disk was shipped.
    Dry,
    /// Nothing of this log may be shipped now.
    Held,
    /// The cluster does not answer.
    Silent(String),
    /// The producer is to be replaced.
    Spent(String),
}

/// What a transaction carries beside its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// A span of the current log.
    Span,
    /// Dead letters.
    Letters { are_copies: bool },
    /// Nothing: the next one is told from it.
    Base,
}

/// A record in the transaction under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub(super) seq: SeqNo,
    /// What it takes of the budget; nothing once it is acknowledged.
    pub(super) cost: u32,
    /// Index of its topic-partition; [`index`](Carried::index) as others take it.
    pub(super) partition: u32,
}

impl Carried {
    pub(super) fn index(&self) -> usize {
        usize::try_from(self.partition).unwrap_or(usize::MAX)
    }
}

/// The transaction under way.
#[derive(Debug)]
pub(super) struct Transaction {
    begin: SeqNo,
    pub(super) started: Instant,
    /// After it the cluster may have aborted it.
    pub(super) deadline: Instant,
    /// In the order in which they were handed over; their tokens are their places.
    pub(super) carried: Vec<Carried>,
    pub(super) bytes: u64,
    /// Records of its span that were settled before they were read.
    pub(super) passed: u64,
    pub(super) load: Load,
    /// Where the progress record went, once that is known.
    pub(super) progress: Option<Option<i64>>,
    pub(super) failure: Option<Failure>,
    /// It was the progress that failed, and no record.
    pub(super) is_progress_failed: bool,
    /// What went wrong with the transport.
    pub(super) taint: Option<String>,
    /// A request was given up on: what it carried begins anew.
    has_timed_out: bool,
    /// How often the connection was lost since something was acknowledged.
    pub(super) losses: u32,
    quiet_polls: u32,
}

impl Committer<'_> {
    /// Ships one transaction of the current log, if there is anything to ship.
    pub(super) fn transact(&mut self) -> Result<Turn, Error> {
        let begin = self.sources[self.current].stream.marks().acked;
        let mut passed = 0;
        let next = self.next(&mut passed)?;
        if !matches!(next, Next::Ready(_)) {
            self.keep_passed(passed)?;
        }
        match next {
            Next::Ready(place) if self.is_vain(place) => {
                self.keep_passed(passed)?;
                return Ok(Turn::Held);
            }
            Next::Ready(_) => {}
            Next::Dry if passed > 0 => return Ok(Turn::Done),
            Next::Dry => return Ok(Turn::Dry),
            Next::Silent(why) => return Ok(Turn::Silent(why)),
            Next::Held => return Ok(Turn::Held),
            Next::Stuck(error) => return Err(error),
        }
        if !self.shared.has_room(Instant::now()) {
            self.keep_passed(passed)?;
            self.progressed = Instant::now();
            self.pause("")?;
            return Ok(Turn::Done);
        }
        self.carry_out(begin, passed, Load::Span)
    }

    /// Makes durable what was settled without a transaction: the next one begins behind it, and after a crash
    /// its intent would have it shipped.
    fn keep_passed(&mut self, passed: u64) -> Result<(), Error> {
        self.settle_parked()?;
        if passed > 0 {
            self.sources[self.current].stream.save_cursor()?;
        }
        Ok(())
    }

    /// One transaction, from its begin to its end.
    pub(super) fn carry_out(
        &mut self,
        begin: SeqNo,
        passed: u64,
        load: Load,
    ) -> Result<Turn, Error> {
        // What went wrong before is over: no transaction was open.
        self.forget_trouble();
        if let Err(error) = self.producer.begin() {
            return Ok(self.spent(&error));
        }
        let load = match self.needs_base(Instant::now()) {
            true => Load::Base,
            false => load,
        };
        let mut open = Transaction::new(begin, passed, load, self.pace.timeout());
        let filled = self.fill(&mut open);
        self.in_flight = 0;
        match filled {
            Ok(Some(intent)) => self.commit(open, intent),
            Ok(None) => self.undo(open),
            Err(error) => {
                self.let_go(&mut open);
                // Else readers would wait for its timeout.
                let _ = self.producer.abort(ABORT_TIMEOUT, &mut self.reports);
                Err(error)
            }
        }
    }

    /// Everything before the commit; `None` if the transaction cannot be committed.
    fn fill(&mut self, open: &mut Transaction) -> Result<Option<Intent>, Error> {
        match open.load {
            Load::Span => self.take(open)?,
            Load::Letters { .. } => {
                self.take_letters(open);
                if open.carried.is_empty() {
                    return Ok(None);
                }
            }
            Load::Base => {}
        }
        // What was settled here must not be forgotten once a mark covers it.
        self.settle_parked()?;
        let nonce = self.intents.draw()?;
        let end = match open.load {
            Load::Span => self.sources[self.current].position(),
            Load::Letters { .. } | Load::Base => open.begin,
        };
        let is_in_offsets = self.options.progress == ProgressIn::Offsets;
        let previous = match is_in_offsets {
            true => self.registered.map_or(Nonce::NONE, |(nonce, _)| nonce),
            false => self.committed_nonce(),
        };
        let record = ProgressRecord {
            nonce,
            previous,
            mark: if self.current == 0 {
                end
            } else {
                self.lane.marks().acked
            },
        };
        if open.failure.is_none() && !is_in_offsets {
            self.send_progress(open, &record);
        }
        self.wait_for_reports(open);
        if open.failure.is_some() || self.producer.producer().in_flight() > 0 {
            return Ok(None);
        }
        if is_in_offsets {
            self.put_progress(open, &record)?;
        }
        let Some(partition_offset) = open.progress.filter(|_| open.failure.is_none()) else {
            return Ok(None);
        };
        let intent = self.intend(open, &record, end, partition_offset)?;
        self.intents.write(intent.clone())?;
        Ok(Some(intent))
    }

    /// What is about to be committed. All that it confirms is durable.
    fn intend(
        &self,
        open: &Transaction,
        record: &ProgressRecord,
        end: SeqNo,
        partition_offset: Option<i64>,
    ) -> Result<Intent, Error> {
        let stream = self.sources[self.current].stream;
        if open.passed > 0 {
            stream.save_cursor()?;
        }
        let (log, letters) = match self.letters_of(open)? {
            Some((log, letters)) => (log, Some(letters)),
            None => (stream.log_id(), None),
        };
        // An intent confirms the one before it in its own log only.
        if let Some(last) = self.intents.intent()
            && last.log != log
            && let Some(other) = self.stream_of(last.log)
        {
            other.save_cursor()?;
        }
        let is_in_offsets = self.options.progress == ProgressIn::Offsets;
        Ok(Intent {
            nonce: record.nonce,
            previous: record.previous,
            log,
            span: open.begin..end,
            letters,
            cluster_id: self.cluster_id.clone(),
            topic: self.options.progress_topic.clone(),
            partition: self.progress_partition,
            partition_offset,
            previous_partition_offset: self.progress_offset().filter(|_| !is_in_offsets),
            is_in_offsets,
            // Of a base nothing is in doubt.
            is_aborted: open.load == Load::Base,
        })
    }

    /// Hands records over until the transaction is full, its time is over, or nothing is left.
    fn take(&mut self, open: &mut Transaction) -> Result<(), Error> {
        let source = &self.sources[self.current];
        let piece = match (&source.bisect, &source.hold) {
            // A trial.
            (_, Some(_)) => 1,
            _ if self.current > 0 && !source.has_taken => 1,
            (Some(bisect), None) => bisect.piece(),
            (None, None) => usize::MAX,
        };
        let records = usize::try_from(self.pace.records()).unwrap_or(usize::MAX);
        let records = records.min(piece);
        let until = open.started + self.options.max_time();
        loop {
            let mut is_held = false;
            let now = Instant::now();
            for _ in 0..RECORDS_PER_TURN {
                if open.carried.len() >= records || open.bytes >= self.options.max_bytes {
                    return Ok(());
                }
                match self.next(&mut open.passed)? {
                    Next::Ready(place) if self.send(place, now, open) => {}
                    Next::Dry if self.options.ship.until == Until::Empty => return Ok(()),
                    Next::Ready(_) | Next::Dry => {
                        is_held = true;
                        break;
                    }
                    // It is told when it is met as the first of a transaction.
                    Next::Silent(_) | Next::Held | Next::Stuck(_) => return Ok(()),
                }
            }
            self.collect(open, if is_held { POLL_WAIT } else { Duration::ZERO });
            let is_over = Instant::now() >= until || self.is_stopped();
            if is_over || open.failure.is_some() || open.taint.is_some() {
                return Ok(());
            }
            self.show_often();
        }
    }

    /// Waits until everything is reported, something failed, or the time is over.
    pub(super) fn wait_for_reports(&mut self, open: &mut Transaction) {
        self.producer.hurry();
        while self.producer.producer().in_flight() > 0
            && open.failure.is_none()
            && !self.is_suspected(open)
        {
            let doublings = (open.quiet_polls / QUIET_POLLS).min(QUIET_DOUBLINGS_MAX);
            self.collect(open, POLL_WAIT * (1 << doublings));
            // A record that was not across by then will not be by the end.
            let is_given_up = open.has_timed_out && open.carried.len() == 1;
            if is_given_up || Instant::now() >= self.deadline(open) {
                return;
            }
            self.show_often();
        }
    }

    /// Polls, and notes what became of the records.
    pub(super) fn collect(&mut self, open: &mut Transaction, wait: Duration) {
        let mut reports = mem::take(&mut self.reports);
        self.producer.producer().poll(wait, &mut reports);
        let now = Instant::now();
        let is_quiet = reports.is_empty();
        open.quiet_polls = if is_quiet { open.quiet_polls + 1 } else { 0 };
        for report in reports.drain(..) {
            let partition_offset = match report.outcome {
                Outcome::Delivered {
                    partition_offset, ..
                } => partition_offset,
                // The cluster has it already, and does not say where.
                Outcome::Failed(failure) if failure.class == ErrorClass::Accepted => -1,
                Outcome::Failed(failure) if report.token == PROGRESS => {
                    open.progress_failed(*failure);
                    continue;
                }
                Outcome::Failed(failure) => {
                    open.record_failed(*failure);
                    continue;
                }
            };
            if report.token == PROGRESS {
                open.progress = Some(Some(partition_offset).filter(|place| *place >= 0));
                continue;
            }
            let index = usize::try_from(report.token).unwrap_or(usize::MAX);
            if let Some(carried) = open.carried.get_mut(index) {
                let cost = mem::take(&mut carried.cost);
                open.losses = 0;
                self.budget.acknowledge(carried.index(), u64::from(cost));
            }
        }
        self.reports = reports;
        self.in_flight = self.producer.producer().in_flight();
        if !is_quiet {
            self.budget.measure(now);
        }
        if let Some(trouble) = self.producer.producer().trouble() {
            if trouble.class == ErrorClass::Fatal {
                open.fail(&trouble.reason);
            }
            open.taint.get_or_insert(trouble.reason);
        }
        let breaks = self.producer.producer().breaks();
        open.has_timed_out |= breaks.timeouts > 0;
        if breaks.losses > 0 {
            open.losses = open.losses.saturating_add(breaks.losses);
            open.taint
                .get_or_insert_with(|| "the connection was lost".to_owned());
        }
    }

    /// What went wrong before the transaction says nothing about it.
    pub(super) fn forget_trouble(&mut self) {
        self.producer.producer().trouble();
        self.producer.producer().breaks();
    }

    /// The commit, and what follows from it.
    fn commit(&mut self, open: Transaction, intent: Intent) -> Result<Turn, Error> {
        let left = open.deadline.saturating_duration_since(Instant::now());
        if let Err(error) = self.producer.commit(left.max(COMMIT_TIMEOUT_MIN)) {
            if self.producer.is_fenced() {
                self.fenced();
            }
            return Ok(Turn::Spent(error.to_string()));
        }
        let now = Instant::now();
        if intent.is_in_offsets {
            self.registered = Some((intent.nonce, now));
        }
        match intent.letters {
            Some(letters) => {
                self.letters_arrived(intent.log, &letters)?;
                self.free_lines(&open.carried);
            }
            None if open.load == Load::Base => {}
            None => self.settled(&open, intent.span),
        }
        self.transactions += 1;
        self.fences = 0;
        self.note = None;
        self.progressed = now;
        self.link.acknowledged(now);
        // D8: a request of it may still be under way somewhere, and would join the next one.
        Ok(match open.taint {
            Some(why) => Turn::Spent(why),
            None => Turn::Done,
        })
    }

    /// What was committed is settled.
    fn settled(&mut self, open: &Transaction, span: Range<SeqNo>) {
        let current = self.current;
        self.replaced
            .retain(|(source, seq), _| *source != current || *seq >= span.end);
        let source = &mut self.sources[current];
        source.stream.settle(span, Class::Shipped);
        source.attempted = None;
        source.has_taken = true;
        source.taken(&open.carried);
        let was_silent = source.is_silent();
        source.hold = None;
        if was_silent {
            self.try_silent_again();
        }
        let records = u64::try_from(open.carried.len()).unwrap_or(u64::MAX);
        self.taken(&open.carried);
        self.counters.shipped += records;
        self.counters.shipped_bytes += open.bytes;
        self.pace.committed(records);
    }

    pub(super) fn spent(&mut self, error: &TransactionError) -> Turn {
        if error.class == TransactionClass::Fenced || self.producer.is_fenced() {
            self.fenced();
        }
        Turn::Spent(error.to_string())
    }
}

impl Transaction {
    /// One that may last for `timeout` from now on.
    pub(super) fn new(begin: SeqNo, passed: u64, load: Load, timeout: Duration) -> Transaction {
        let started = Instant::now();
        Transaction {
            begin,
            started,
            deadline: started + timeout,
            carried: Vec::new(),
            bytes: 0,
            passed,
            load,
            progress: None,
            failure: None,
            is_progress_failed: false,
            taint: None,
            has_timed_out: false,
            losses: 0,
            quiet_polls: 0,
        }
    }

    /// The first refusal tells more than what librdkafka gives back because of it. Whether this is it.
    pub(super) fn failed(&mut self, failure: Failure) -> bool {
        let is_known = self
            .failure
            .as_ref()
            .is_some_and(|known| known.class != ErrorClass::Fatal);
        if !is_known {
            self.failure = Some(failure);
        }
        !is_known
    }

    pub(super) fn record_failed(&mut self, failure: Failure) {
        let is_refused = !failure.class.is_retryable();
        if self.failed(failure) && is_refused {
            self.is_progress_failed = false;
        }
    }

    /// The progress failed. What librdkafka gives back or does not take for the refusal of a record
    /// says nothing about it.
    pub(super) fn progress_failed(&mut self, failure: Failure) {
        let is_its_own = !failure.class.is_retryable();
        self.is_progress_failed |= self.failed(failure) && is_its_own;
    }

    pub(super) fn fail(&mut self, why: &str) {
        self.failed(span::failure(why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Persistence;

    /// Whether the progress is blamed, after failures of it (`true`) and of records, in this order.
    fn blames_the_progress(failures: &[(bool, ErrorClass)]) -> bool {
        let mut open = Transaction::new(SeqNo::ZERO, 0, Load::Span, Duration::ZERO);
        for &(is_progress, class) in failures {
            let failure = Failure {
                class,
                persistence: Persistence::No,
                code: 0,
                name: String::new(),
            };
            if is_progress {
                open.progress_failed(failure);
            } else {
                open.record_failed(failure);
            }
        }
        open.is_progress_failed
    }

    #[test]
    fn the_progress_is_blamed_for_its_own_refusal_alone() {
        use ErrorClass::{Fatal, Held, Poison};
        assert!(blames_the_progress(&[(true, Held)]));
        assert!(blames_the_progress(&[(false, Fatal), (true, Held)]));
        assert!(blames_the_progress(&[(true, Held), (false, Fatal)]));
        // A record is refused, and the progress is not taken or given back for it.
        assert!(!blames_the_progress(&[(true, Fatal)]));
        assert!(!blames_the_progress(&[(true, Fatal), (false, Poison)]));
        assert!(!blames_the_progress(&[(false, Poison), (true, Fatal)]));
    }
}
