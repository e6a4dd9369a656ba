//! What is done about a link that is lost and a producer that is spent.
//!
//! The other half of the loop. Invariants: nothing but an acknowledgement settles a record; a
//! producer is replaced only after its last reports were taken, and what is still in doubt then is
//! sent again from the oldest record on.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::link::{Block, LinkState, local_minute};
use super::shipper::Shipper;
use super::{Error, Sink};
use crate::kafka::{self, ErrorClass};
use crate::wal::SeqNo;

/// Pause while the link is down: nothing is missed, and a gateway's processor may sleep.
const DOWN_PAUSE: Duration = Duration::from_millis(20);

/// Pause while a probe is under way: its verdict is awaited.
const PROBING_PAUSE: Duration = Duration::from_millis(2);

/// How long the cluster may take to tell about a topic; bounds how late a stop is seen.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// A link in use that is silent for this long is doubted.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long a spent producer may still report what it knows.
const REBUILD_GRACE: Duration = Duration::from_secs(5);

/// Producers built in a row without one acknowledgement before it is given up.
const REBUILDS_IN_VAIN_MAX: u32 = 10;

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
                ErrorClass::Blocked => {
                    let block = Block::of(trouble.code);
                    self.link.blocked(block, &trouble.reason, now, random());
                }
                _ => {
                    self.doubt.get_or_insert(trouble.reason);
                }
            }
        }
        if let Some(why) = self.spent.take() {
            return self.rebuild(&why);
        }
        self.keep_to_the_window(now);
        if self.pending.is_none() && self.flight.is_empty() {
            self.nothing_asked(now);
            return Ok(());
        }
        // A cluster that answers and acknowledges nothing is of no use either.
        let waited = now.saturating_duration_since(self.progressed);
        if let Some(timeout) = self.options.timeout
            && waited >= timeout
        {
            return Err(self.unreachable(waited));
        }
        if let Some(why) = self.link.rebuild_due(!self.flight.is_empty(), now) {
            return self.rebuild(why);
        }
        if self.link.is_up() && self.link.silent_for(now) >= SILENCE_MAX {
            self.doubt
                .get_or_insert_with(|| "nothing was acknowledged".to_owned());
        }
        if self.link.is_due(now) {
            self.link.trying();
        }
        self.try_link(now)?;
        match self.link.state() {
            LinkState::Up => {}
            LinkState::Probing => thread::sleep(PROBING_PAUSE),
            LinkState::Disabled | LinkState::Unknown | LinkState::Down | LinkState::Blocked(_) => {
                thread::sleep(DOWN_PAUSE);
            }
        }
        Ok(())
    }

    /// Outside of the drain window the link is not used, and no time runs out.
    fn keep_to_the_window(&mut self, now: Instant) {
        let window = &self.options.drain_window;
        match self.window.look(window, now, local_minute) {
            Some(Some(why)) => self.link.disabled(&why, now),
            Some(None) => self.link.enabled(now),
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
        if self.link.climbed(&probed, Instant::now(), random())
            && let Some((topic, seq)) = self.wanted()
        {
            self.ask(&topic, seq, now)?;
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

    /// A topic that is being shipped to, and the first record that waits for it.
    fn wanted(&self) -> Option<(Arc<str>, SeqNo)> {
        if let Some(pending) = &self.pending {
            return Some((Arc::clone(&pending.message.topic), pending.seq));
        }
        let flown = self.flight.front()?;
        let index = usize::try_from(flown.partition).ok()?;
        let (topic, _) = self.topics.named(index)?;
        Some((Arc::clone(topic), flown.seq))
    }

    /// Asks the cluster for the partitions of a topic. Any answer is a sign of life; silence is a
    /// lost link, not an error.
    pub(super) fn ask(&mut self, topic: &Arc<str>, seq: SeqNo, now: Instant) -> Result<(), Error> {
        match self.sink.partitions(topic, METADATA_TIMEOUT) {
            Ok(count) => {
                self.link_answered(now);
                let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
                self.topics.insert(topic, count);
                Ok(())
            }
            Err(kafka::Error::Unreachable { name, code, .. }) => {
                let why = format!("{name}, code {code}");
                self.link.unanswered(&why, Instant::now(), random());
                Ok(())
            }
            Err(kafka::Error::UnknownTopic { topic }) => {
                self.link_answered(now);
                Err(Error::UnknownTopic { topic, seq })
            }
            Err(source) => {
                self.link_answered(now);
                Err(Error::Topic {
                    topic: topic.to_string(),
                    seq,
                    source,
                })
            }
        }
    }

    /// Replaces a spent producer.
    fn rebuild(&mut self, why: &str) -> Result<(), Error> {
        self.finish_flight(REBUILD_GRACE);
        self.spent = None;
        // The refusal of a record spends the producer too, and is the better reason.
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        self.rebuilds += 1;
        self.rebuilds_in_vain += 1;
        if self.rebuilds_in_vain > REBUILDS_IN_VAIN_MAX {
            return Err(Error::Spent {
                rebuilds: REBUILDS_IN_VAIN_MAX,
                reason: why.to_owned(),
            });
        }
        self.tell_all();
        let position = self.reader.position();
        let pending = self.pending.take().map(|pending| pending.seq);
        let resume = self.flight.front().map(|flown| flown.seq).or(pending);
        self.settled_below = self.settled_below.max(position);
        self.reader = self.lane.reader(resume.unwrap_or(position));
        self.flight.clear();
        self.budget.cleared();
        self.sink.rebuild()?;
        self.link.rebuilt(why, Instant::now(), random());
        Ok(())
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
            self.progressed = now;
        }
    }

    fn unreachable(&self, waited: Duration) -> Error {
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
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
