//! What becomes of records by their reports: settled, or back to wait for their next turn.
//!
//! Owns the way from a report to the log's settlement. Must not know what a refusal means.
//! Invariants: a report counts once; the log is told of a settlement at once where it moves the
//! low mark, and of the others a few times a second.

use std::mem;
use std::time::{Duration, Instant};

use super::health::Health;
use super::letters::LETTERS;
use super::place::source_of;
use super::settle::State;
use super::shipper::Shipper;
use super::{Error, Sink};
use crate::kafka::{ErrorClass, Failure, Outcome};
use crate::wal::Class;

/// How long a poll waits when there is nothing to hand over.
pub(super) const POLL_WAIT: Duration = Duration::from_millis(1);

/// How often the log is told of what is settled behind the oldest unsettled record; the cursor
/// is not saved more often either.
const TELL_INTERVAL: Duration = Duration::from_millis(100);

impl<S: Sink> Shipper<'_, S> {
    /// Polls the sink, settles what was acknowledged, and judges what came back. Returns the time
    /// after the poll.
    pub(super) fn collect(&mut self, wait: Duration) -> Result<Instant, Error> {
        let mut reports = mem::take(&mut self.reports);
        self.sink.poll(wait, &mut reports);
        let now = self.sink.now();
        let taken_before = self.counters.acknowledged();
        self.quiet_polls = if reports.is_empty() {
            self.quiet_polls.saturating_add(1)
        } else {
            0
        };
        let mut is_outage_over = false;
        for report in reports.drain(..) {
            match report.outcome {
                Outcome::Failed(failure) if failure.class != ErrorClass::Accepted => {
                    self.came_back(report.token, *failure, now);
                }
                Outcome::Delivered { .. } | Outcome::Failed(_) => {
                    is_outage_over |= self.delivered(report.token, now);
                }
            }
        }
        self.reports = reports;
        if is_outage_over {
            for health in &mut self.health {
                health.outage_ended(now);
            }
        }
        if self.counters.acknowledged() > taken_before {
            self.progressed = now;
            self.is_unproven = false;
            self.acknowledged = Some(now);
            self.link_acknowledged(now);
            self.budget.measure(now);
            self.tell_front();
        }
        self.mark_letters(now);
        self.judge(now)?;
        for index in mem::take(&mut self.doomed) {
            self.exhausted(index, now)?;
        }
        if now.saturating_duration_since(self.told) >= TELL_INTERVAL {
            self.tell_all();
            self.told = now;
        }
        Ok(now)
    }

    /// A record was taken. True if that ends an outage.
    fn delivered(&mut self, token: u64, now: Instant) -> bool {
        let (place, token) = source_of(token);
        if place == LETTERS {
            self.letter_delivered(token, now);
            return false;
        }
        let Some(source) = self.sources.get_mut(place) else {
            return false;
        };
        let Some(flown) = source.flight.settle(token, Class::Shipped) else {
            return false;
        };
        let index = flown.index();
        self.budget.acknowledge(index, u64::from(flown.cost));
        self.counters.shipped += 1;
        self.counters.shipped_bytes += u64::from(flown.len);
        let took = self.millis(now).wrapping_sub(flown.at_millis);
        self.counters.delivery.record(took);
        let health = &mut self.health[index];
        let ends_outage = health.ends_outage(self.acknowledged, now);
        self.needs_care |= health.acknowledged(flown.seq, now);
        if let Some(attempted) = &health.attempted {
            if attempted.is(place, flown.seq) {
                health.attempted = None;
            } else if attempted.is_proved_by(flown.at_millis) {
                self.doomed.push(index);
            }
        }
        ends_outage
    }

    /// A record came back: it waits for its next turn.
    fn came_back(&mut self, token: u64, failure: Failure, now: Instant) {
        let (place, token) = source_of(token);
        if place == LETTERS {
            return self.letter_came_back(token, failure, now);
        }
        let Some(source) = self.sources.get_mut(place) else {
            return;
        };
        let was_careful = source.flight.state(token) == Some(State::Tried);
        let Some(flown) = source.flight.give_back(token) else {
            return;
        };
        let index = flown.index();
        source.leave(index, flown.seq);
        self.needs_care = true;
        self.budget.give_back(index, u64::from(flown.cost));
        self.health[index].came_back();
        match failure.class {
            // librdkafka gave the record back although it may try for ever: only a new producer
            // takes it again in order.
            ErrorClass::Fatal | ErrorClass::Network if was_careful => {
                self.health[index].piece_in_doubt();
            }
            ErrorClass::Fatal | ErrorClass::Network => {
                self.spent.get_or_insert_with(|| failure.to_string());
            }
            _ => self.refused(place, index, flown.seq, was_careful, &failure),
        }
    }

    fn tell_front(&mut self) {
        for source in &mut self.sources {
            let stream = source.stream;
            source
                .flight
                .tell_front(|run, class| stream.settle(run, class));
        }
    }

    pub(super) fn tell_all(&mut self) {
        self.tell_front();
        for source in &mut self.sources {
            let stream = source.stream;
            source
                .flight
                .tell_all(|run, class| stream.settle(run, class));
        }
    }

    /// Polls until everything in flight is reported, or `grace` is over.
    pub(super) fn finish_flight(&mut self, grace: Duration) {
        let deadline = self.sink.now() + grace;
        while self.sink.in_flight() > self.stuck() && self.sink.now() < deadline {
            if self.collect(POLL_WAIT).is_err() {
                return;
            }
        }
    }

    /// Records handed over to partitions that owe an answer for long.
    fn stuck(&self) -> usize {
        let stuck = self.health.iter().map(Health::stuck);
        stuck.sum::<usize>() + self.letters.silent(self.sink.now())
    }
}
