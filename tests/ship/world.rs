//! A cluster, and the way to it, that brings faults by seed: batches that are refused, records that
//! are not taken for a while, topics that come and go, lost links and spent producers.
//!
//! As the real one, it keeps the order of a partition, and takes or refuses a batch as a whole.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferrylog::kafka::{
    self, ErrorClass, Failure, Outcome, Outgoing, Persistence, Probed, Report, SendError, Trouble,
};
use ferrylog::ship::{LinkOptions, Sink};

use crate::random::Random;

type Place = (String, i32);
/// The number that a record holds, and its identity.
type Held = (u64, String);
type Batch = VecDeque<(u64, Held)>;

/// A cluster and the way to it.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) counts: HashMap<String, Option<u32>>,
    pub(crate) poison: HashSet<u64>,
    /// Refused so often with "not now", alone or in a batch.
    pub(crate) flaky: HashMap<u64, u32>,
    /// Refused by the client library itself.
    pub(crate) unsendable: HashSet<u64>,
    pub(crate) written: BTreeMap<Place, Vec<Held>>,
    /// Written, and nobody was told.
    pub(crate) in_doubt: HashSet<u64>,
    /// Delivered since the last poll.
    unpolled: Vec<u64>,
    queued: BTreeMap<Place, Batch>,
    pub(crate) careful: BTreeMap<Place, Batch>,
    open: Option<Place>,
    pub(crate) reports: Vec<Report>,
    trouble: Option<Trouble>,
    is_spent: bool,
    pub(crate) away_polls: u64,
    /// One in so many steps brings a fault; 0: none.
    pub(crate) faults: u64,
    /// Stops the shipper after so many more records.
    pub(crate) stop_after: Option<u64>,
    pub(crate) is_stopped: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        World {
            random: Random(seed),
            counts: HashMap::new(),
            poison: HashSet::new(),
            flaky: HashMap::new(),
            unsendable: HashSet::new(),
            written: BTreeMap::new(),
            in_doubt: HashSet::new(),
            unpolled: Vec::new(),
            queued: BTreeMap::new(),
            careful: BTreeMap::new(),
            open: None,
            reports: Vec::new(),
            trouble: None,
            is_spent: false,
            away_polls: 0,
            faults: 0,
            stop_after: None,
            is_stopped: false,
        }
    }

    fn fail(&mut self, token: u64, class: ErrorClass, code: i32) {
        let failure = Failure {
            class,
            code,
            name: "chaos".to_owned(),
            persistence: Persistence::No,
        };
        let outcome = Outcome::Failed(Box::new(failure));
        self.reports.push(Report { token, outcome });
    }

    fn deliver(&mut self, place: &Place, token: u64, record: Held) {
        let records = self.written.entry(place.clone()).or_default();
        self.unpolled.push(record.0);
        records.push(record);
        let partition_offset = i64::try_from(records.len()).unwrap();
        let partition = place.1;
        let outcome = Outcome::Delivered {
            partition,
            partition_offset,
        };
        self.reports.push(Report { token, outcome });
        if let Some(left) = &mut self.stop_after {
            *left = left.saturating_sub(1);
            self.is_stopped |= *left == 0;
        }
    }

    /// What a batch is refused with.
    fn verdict(&mut self, place: &Place, batch: &[(u64, Held)]) -> Option<(ErrorClass, i32)> {
        if self.counts.get(&place.0).copied().flatten().is_none() {
            return Some((ErrorClass::Held, 3));
        }
        if batch.iter().any(|(_, (n, _))| self.poison.contains(n)) {
            return Some((ErrorClass::Poison, 87));
        }
        for (_, (n, _)) in batch {
            if let Some(left) = self.flaky.get_mut(n)
                && *left > 0
            {
                *left -= 1;
                return Some((ErrorClass::Transient, -1));
            }
        }
        None
    }

    pub(crate) fn spend(&mut self) {
        self.is_spent = true;
        self.trouble = Some(Trouble {
            class: ErrorClass::Fatal,
            code: -195,
            timed_out: false,
            reason: "spent".to_owned(),
        });
    }

    /// What was in flight comes back or not; a part of it was written.
    pub(crate) fn lose_producer(&mut self) {
        for (place, queue) in std::mem::take(&mut self.queued) {
            let written = self.random.below(queue.len() as u64 + 1) as usize;
            for (token, record) in queue.into_iter().take(written) {
                if self.verdict(&place, &[(token, record.clone())]).is_some() {
                    break;
                }
                self.in_doubt.insert(record.0);
                self.written.entry(place.clone()).or_default().push(record);
            }
        }
        self.spend();
    }

    /// The process ends: what is on its way is in doubt, and so is what it was not told of.
    pub(crate) fn lose_process(&mut self) {
        self.lose_careful();
        self.lose_producer();
        self.reports.clear();
        self.in_doubt.extend(self.unpolled.drain(..));
    }

    /// The same of the careful one, which says so.
    pub(crate) fn lose_careful(&mut self) {
        for (place, queue) in std::mem::take(&mut self.careful) {
            // A batch is taken whole or not at all.
            let is_written = self.random.one_in(2);
            let batch: Vec<(u64, Held)> = queue.into_iter().collect();
            let is_written = is_written && self.verdict(&place, &batch).is_none();
            for (token, record) in batch {
                if is_written {
                    self.in_doubt.insert(record.0);
                    self.written.entry(place.clone()).or_default().push(record);
                }
                self.fail(token, ErrorClass::Fatal, -150);
            }
        }
    }

    fn step(&mut self) {
        if self.away_polls > 0 {
            return;
        }
        if self.faults > 0 && self.random.one_in(self.faults) {
            match self.random.below(3) {
                0 if !self.is_spent => self.lose_producer(),
                1 if self.open.is_none() => self.lose_careful(),
                _ => {
                    self.away_polls = self.random.below(4);
                    self.trouble = Some(Trouble {
                        class: ErrorClass::Network,
                        code: -195,
                        timed_out: true,
                        reason: "reset".to_owned(),
                    });
                }
            }
            return;
        }
        if let Some((place, batch)) = self.careful.pop_first() {
            let batch: Vec<(u64, Held)> = batch.into_iter().collect();
            let verdict = self.verdict(&place, &batch);
            for (token, record) in batch {
                match verdict {
                    Some((class, code)) => self.fail(token, class, code),
                    None => self.deliver(&place, token, record),
                }
            }
        }
        self.queued.retain(|_, queue| !queue.is_empty());
        if self.queued.is_empty() || self.is_spent {
            return;
        }
        let chosen = self.random.below(self.queued.len() as u64) as usize;
        let place = self.queued.keys().nth(chosen).unwrap().clone();
        let len = 1 + self.random.below(30) as usize;
        let queue = self.queued.get_mut(&place).unwrap();
        let batch: Vec<(u64, Held)> = queue.drain(..len.min(queue.len())).collect();
        match self.verdict(&place, &batch) {
            None => {
                for (token, record) in batch {
                    self.deliver(&place, token, record);
                }
            }
            Some((class, code)) => {
                for (token, _) in batch {
                    self.fail(token, class, code);
                }
                for (_, queue) in std::mem::take(&mut self.queued) {
                    for (token, _) in queue {
                        self.fail(token, ErrorClass::Fatal, -152);
                    }
                }
                self.spend();
            }
        }
    }
}

/// The seam, with a flag to stop by.
pub(crate) struct Chaos<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) stop: &'a AtomicBool,
    /// What happens to the world with each poll.
    pub(crate) at_poll: &'a mut dyn FnMut(&mut World),
}

impl Sink for Chaos<'_> {
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        if self.in_flight() >= 400
            || self.world.random.one_in(100)
            || (self.world.is_spent && !record.is_careful)
        {
            return Err(SendError::QueueFull);
        }
        let world = &mut *self.world;
        let text = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        let n: u64 = text.parse().unwrap();
        if world.unsendable.contains(&n) {
            return Err(SendError::Failed(Failure {
                class: ErrorClass::Poison,
                code: 10,
                name: "too large".to_owned(),
                persistence: Persistence::No,
            }));
        }
        let id = record.headers.iter().find(|(name, _)| *name == "ferry-id");
        let id = String::from_utf8(id.unwrap().1.unwrap().to_vec()).unwrap();
        let place = (record.topic.to_owned(), record.partition);
        let queues = if record.is_careful {
            &mut world.careful
        } else {
            &mut world.queued
        };
        let queue = queues.entry(place).or_default();
        queue.push_back((record.token, (n, id)));
        Ok(())
    }

    fn begin_piece(&mut self, topic: &str, partition: i32) -> bool {
        self.world.open = Some((topic.to_owned(), partition));
        true
    }

    fn end_piece(&mut self, _: &str, _: i32) {
        self.world.open = None;
    }

    fn poll(&mut self, _: Duration, reports: &mut Vec<Report>) {
        (self.at_poll)(self.world);
        self.world.away_polls = self.world.away_polls.saturating_sub(1);
        for _ in 0..self.world.random.below(40) {
            self.world.step();
        }
        reports.append(&mut self.world.reports);
        self.world.unpolled.clear();
        if self.world.is_stopped {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn in_flight(&self) -> usize {
        let queues = self
            .world
            .queued
            .values()
            .chain(self.world.careful.values());
        queues.map(VecDeque::len).sum::<usize>() + self.world.reports.len()
    }

    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error> {
        if self.world.away_polls > 0 {
            return Err(kafka::Error::Unreachable {
                action: "asking for the partitions",
                timeout,
                code: -195,
                name: "chaos".to_owned(),
            });
        }
        let count = self.world.counts.get(topic).copied().flatten();
        count.ok_or_else(|| kafka::Error::UnknownTopic {
            topic: topic.to_owned(),
        })
    }

    fn trouble(&mut self) -> Option<Trouble> {
        self.world.trouble.take()
    }

    fn probe(&mut self, _: &LinkOptions) -> Option<Probed> {
        let is_there = self.world.away_polls == 0;
        Some(is_there.then_some(()).ok_or("away".to_owned()).into())
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        self.world.queued.clear();
        self.world.is_spent = false;
        Ok(())
    }

    fn address(&self) -> &'static str {
        "chaos:9092"
    }
}
