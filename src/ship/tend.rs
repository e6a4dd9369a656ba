//! What is done about a link that is lost and a producer that is spent.
//!
//! The other half of the loop. Invariants: nothing but an acknowledgement settles a record; a
//! producer is replaced only after its last reports were taken, and what is still in doubt then is
//! sent again from the oldest record on.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::health::HoldReason;
use super::link::{Block, LinkState, Look, local_minute};
use super::shipper::Shipper;
use super::{Error, Sink};
use crate::kafka::{self, ErrorClass, Failure, Leader, Persistence};

/// Pause while the link is down: nothing is missed, and a gateway's processor may sleep.
const DOWN_PAUSE: Duration = Duration::from_millis(20);

/// Pause while a probe is under way: its verdict is awaited.
const PROBING_PAUSE: Duration = Duration::from_millis(2);

/// How long the cluster may take to tell about a topic; bounds how late a stop is seen.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// How long who leads a partition may take to answer, over a new connection on a thin link.
pub(super) const LEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A link in use that is silent for this long is doubted.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long a spent producer may still report what it knows.
const REBUILD_GRACE: Duration = Duration::from_secs(5);

/// What the cluster said about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// How many partitions it has.
    Count,
    /// Not to be had: it is held.
    No,
    /// Nothing: the link is lost.
    Silence,
}

impl<S: Sink> Shipper<'_, S> {
    /// Keeps the picture of the link true, replaces a spent producer, and ends a wait that is too
    /// long.
    pub(super) fn tend(&mut self, now: Instant) -> Result<(), Error> {
        if let Some(trouble) = self.sink.trouble() {
            if trouble.timed_out {
                self.budget.timed_out();
            }
            match trouble.class {
                ErrorClass::Fatal => self.spent = Some(trouble.reason),
                ErrorClass::Blocked => self.blocked(trouble.code, &trouble.reason, now),
                _ => _ = self.doubt.get_or_insert(trouble.reason),
            }
        }
        self.watch_breaks(now)?;
        if let Some(why) = self.spent.take() {
            return self.rebuild(&why);
        }
        self.keep_to_the_window(now);
        if !self.link_wanted() {
            self.nothing_asked(now);
            return Ok(());
        }
        // A cluster that answers and acknowledges nothing is of no use either.
        let waited = now.saturating_duration_since(self.progressed);
        if let Some(timeout) = self.options.timeout
            && waited >= timeout
        {
            return Err(self.unreachable(waited, now));
        }
        if let Some(why) = self.link.rebuild_due(self.is_busy(), now) {
            return self.rebuild(why);
        }
        if self.link.is_up() && self.is_busy() && self.link.silent_for(now) >= SILENCE_MAX {
            self.doubt
                .get_or_insert_with(|| "nothing was acknowledged".to_owned());
        }
        if self.link.is_due(now) {
            self.link.trying();
        }
        self.try_link(now)?;
        match self.link.state() {
            LinkState::Up => {}
            LinkState::Probing => self.sink.pause(PROBING_PAUSE),
            LinkState::Disabled | LinkState::Unknown | LinkState::Down | LinkState::Blocked(_) => {
                self.sink.pause(DOWN_PAUSE);
            }
        }
        Ok(())
    }

    /// Whether anything waits for the cluster.
    pub(super) fn link_wanted(&self) -> bool {
        let wants = |s: &super::source::Source<'_>| s.pending.is_some() || !s.flight.is_empty();
        self.sources.iter().any(wants) || self.letters_wait()
    }

    /// Outside of the drain window the link is not used, and no time runs out.
    fn keep_to_the_window(&mut self, now: Instant) {
        let window = &self.options.drain_window;
        match self.window.look(window, now, local_minute) {
            Some(Look::Closed(why)) => self.link.disabled(&why, now),
            Some(Look::Opened) => self.link.enabled(now),
            None => {}
        }
        if self.link.state() == LinkState::Disabled {
            self.nothing_asked(now);
        }
    }

    /// Nothing is wanted of the cluster: no time runs out.
    pub(super) fn nothing_asked(&mut self, now: Instant) {
        self.link.idle(now);
        self.progressed = now;
    }

    /// Goes on with a try of a link that is not up, or doubted. A probe only says when it is
    /// worth asking the cluster itself; when waits are at their longest it is asked anyway.
    fn try_link(&mut self, now: Instant) -> Result<(), Error> {
        let is_doubted = self.link.is_up() && self.doubt.is_some();
        if !is_doubted && self.link.state() != LinkState::Probing {
            return Ok(());
        }
        let Some(probed) = self.sink.probe(&self.options.link) else {
            return Ok(());
        };
        let doubt = self.doubt.take();
        if self.link.is_no_news(&probed) && self.is_silent_behind_one(now) {
            self.link.busy(now);
        } else if self.link.climbed(&probed, self.sink.now(), random())
            && let Some(topic) = self.wanted()
        {
            self.ask(&topic, now)?;
        }
        if let Some(doubt) = doubt {
            if self.link.is_doubted() {
                self.doubt = Some(doubt);
            } else if !self.link.is_up() {
                self.link.explain(&doubt);
            }
        }
        Ok(())
    }

    /// A topic that is being shipped to.
    fn wanted(&self) -> Option<Arc<str>> {
        let pending = self.sources.iter().find_map(|source| {
            let message = source.pending.as_ref()?.message.as_ref().ok()?;
            Some(Arc::clone(&message.topic))
        });
        let flown = pending.or_else(|| {
            let flown = self.sources.iter().find_map(|s| s.flight.front())?;
            let index = usize::try_from(flown.partition).ok()?;
            let (topic, ..) = self.topics.named(index)?;
            Some(Arc::clone(topic))
        });
        flown.or_else(|| self.letter_topic())
    }

    /// Asks the cluster for the partitions of a topic. Any answer is a sign of life; silence is a
    /// lost link, not an error.
    pub(super) fn ask(&mut self, topic: &Arc<str>, now: Instant) -> Result<Answer, Error> {
        match self.sink.partitions(topic, METADATA_TIMEOUT) {
            Ok(count) => {
                self.link_answered(now);
                self.learn(topic, count, now);
                Ok(Answer::Count)
            }
            Err(kafka::Error::Unreachable { name, code, .. }) => {
                let why = format!("{name}, code {code}");
                self.link.unanswered(&why, self.sink.now(), random());
                Ok(Answer::Silence)
            }
            Err(kafka::Error::UnknownTopic { .. }) => {
                self.link_answered(now);
                self.not_to_be_had(topic, &HoldReason::UnknownTopic, now);
                Ok(Answer::No)
            }
            Err(kafka::Error::Refused {
                class: ErrorClass::Blocked,
                code,
                name,
                ..
            }) => {
                self.blocked(code, &name, now);
                Ok(Answer::Silence)
            }
            Err(kafka::Error::Refused {
                class, code, name, ..
            }) => {
                self.link_answered(now);
                let failure = Failure {
                    class,
                    code,
                    name,
                    persistence: Persistence::No,
                };
                self.not_to_be_had(topic, &HoldReason::Refused(failure), now);
                Ok(Answer::No)
            }
            Err(source) => Err(source.into()),
        }
    }

    /// The cluster told how many partitions a topic has. Another count than before holds only once
    /// nothing is on its way by the old one.
    fn learn(&mut self, topic: &Arc<str>, count: u32, now: Instant) {
        let known = self.topics.get(topic);
        if let Some(known) = known.filter(|known| known.count != count) {
            let owes = |partition| self.health[known.index(partition)].outstanding > 0;
            if (0..known.count).any(owes) {
                return;
            }
        }
        if self.topics.insert(topic, count) {
            self.fit_lists(now);
            self.capture_known(topic);
            self.needs_care = true;
        }
    }

    /// Whether a link that was up since then is there now: the cluster answers about a partition's
    /// topic. To be called when nothing is on the link but what a connection left there that was given
    /// up, which may be what a thin one carries in seconds.
    pub(super) fn is_there(
        &mut self,
        index: usize,
        since: Duration,
        now: Instant,
    ) -> Result<bool, Error> {
        let topic = self.topics.named(index).map(|(name, ..)| Arc::clone(name));
        let Some(topic) = topic.filter(|_| self.link.up_for(now) >= since) else {
            return Ok(false);
        };
        let deadline = now + SILENCE_MAX;
        while self.sink.now() < deadline && !self.is_stopped() {
            if self.ask(&topic, now)? != Answer::Silence {
                return Ok(true);
            }
            if matches!(self.link.state(), LinkState::Blocked(_)) {
                break;
            }
            self.sink.pause(DOWN_PAUSE);
        }
        Ok(false)
    }

    /// Who leads a partition, while nothing else is on the link: it may be another broker that answered
    /// so far. `None`: nobody tells.
    pub(super) fn leader(&mut self, index: usize) -> Option<Leader> {
        let (name, _, number) = self.topics.named(index)?;
        self.sink.leader(name, number?, LEADER_TIMEOUT).ok()
    }

    fn not_to_be_had(&mut self, topic: &Arc<str>, why: &HoldReason, now: Instant) {
        if self.topics.get(topic).is_none() {
            self.topics.insert(topic, 0);
            self.fit_lists(now);
            self.capture_known(topic);
        }
        let Some(known) = self.topics.get(topic) else {
            return;
        };
        // A topic that went away: every partition of it that is held for that is told.
        for partition in 0..known.count {
            let index = known.index(partition);
            if self.health[index].held().is_some() {
                self.hold(index, why.clone(), now);
            }
        }
        self.hold(known.nowhere(), why.clone(), now);
    }

    /// Replaces a spent producer.
    fn rebuild(&mut self, why: &str) -> Result<(), Error> {
        self.finish_flight(REBUILD_GRACE);
        self.spent = None;
        self.counters.rebuilds += 1;
        self.tell_all();
        let now = self.sink.now();
        let (health, budget) = (&mut self.health, &mut self.budget);
        for source in &mut self.sources {
            source.recall(|flown| {
                health[flown.index()].came_back();
                budget.give_back(flown.index(), u64::from(flown.cost));
            });
        }
        self.is_unproven = true;
        self.sink.rebuild()?;
        self.needs_care = true;
        // A refusal says nothing about the link.
        if !std::mem::take(&mut self.was_refused) {
            self.link.rebuilt(why, now, random());
        }
        Ok(())
    }

    /// The cluster turns this client away.
    pub(super) fn blocked(&mut self, code: i32, why: &str, now: Instant) {
        self.link.blocked(Block::of(code), why, now, random());
    }

    fn link_answered(&mut self, now: Instant) {
        self.link_alive(now);
        self.link.answered(now);
    }

    pub(super) fn link_acknowledged(&mut self, now: Instant) {
        self.link_alive(now);
        self.link.acknowledged(now);
    }

    fn link_alive(&mut self, now: Instant) {
        if !self.link.is_up() {
            self.budget.reconnected(now);
            self.came_up = true;
            // Producers that fail one after the other are no progress.
            if !self.is_unproven {
                self.progressed = now;
            }
        }
    }

    fn unreachable(&self, waited: Duration, now: Instant) -> Error {
        let held = self.all_held(now);
        if self.link.is_up() && !held.is_empty() {
            return Error::Held { held };
        }
        let why = match self.link.why() {
            "" => "the cluster answers, but acknowledges nothing",
            why => why,
        };
        Error::Unreachable {
            servers: self.sink.address().to_owned(),
            waited,
            why: why.to_owned(),
        }
    }
}

/// Evenly spread, and different each time: what the standard library seeds its tables with.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
