//! A sink that plays a cluster by script: it delivers in random pieces, loses its link, spends
//! its producer and refuses records when it is told to.
//!
//! As the real one, it keeps the order of a partition, and what it holds when its producer is spent
//! was either written or not, without a report.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrylog::kafka::{
    self, Breaks, ErrorClass, Failure, Outcome, Outgoing, Persistence, Probed, Report, SendError,
    Trouble,
};
use ferrylog::ship::{LinkOptions, Sink};

use crate::random::Random;

/// What a producer that is ended tells of a record that it did not report.
pub(crate) fn in_doubt(token: u64) -> Report {
    let failure = Failure {
        class: ErrorClass::Fatal,
        code: 0,
        name: String::new(),
        persistence: Persistence::Possibly,
    };
    let outcome = Outcome::Failed(Box::new(failure));
    Report { token, outcome }
}

/// What a sink around another one leaves to it, by the names of the methods.
macro_rules! forward {
    ($to:ident: $($method:ident)*) => { $(forward!(@$method $to);)* };
    (@send $to:ident) => {
        fn send(
            &mut self,
            record: &ferrylog::kafka::Outgoing<'_>,
        ) -> Result<(), ferrylog::kafka::SendError> {
            self.$to.send(record)
        }
    };
    (@begin_piece $to:ident) => {
        fn begin_piece(&mut self, topic: &str, partition: i32) -> bool {
            self.$to.begin_piece(topic, partition)
        }
    };
    (@end_piece $to:ident) => {
        fn end_piece(&mut self, topic: &str, partition: i32) {
            self.$to.end_piece(topic, partition);
        }
    };
    (@poll $to:ident) => {
        fn poll(
            &mut self,
            timeout: std::time::Duration,
            reports: &mut Vec<ferrylog::kafka::Report>,
        ) {
            self.$to.poll(timeout, reports);
        }
    };
    (@in_flight $to:ident) => {
        fn in_flight(&self) -> usize {
            self.$to.in_flight()
        }
    };
    (@partitions $to:ident) => {
        fn partitions(
            &mut self,
            topic: &str,
            timeout: std::time::Duration,
        ) -> Result<u32, ferrylog::kafka::Error> {
            self.$to.partitions(topic, timeout)
        }
    };
    (@trouble $to:ident) => {
        fn trouble(&mut self) -> Option<ferrylog::kafka::Trouble> {
            self.$to.trouble()
        }
    };
    (@probe $to:ident) => {
        fn probe(
            &mut self,
            link: &ferrylog::ship::LinkOptions,
        ) -> Option<ferrylog::kafka::Probed> {
            self.$to.probe(link)
        }
    };
    (@rebuild $to:ident) => {
        fn rebuild(&mut self) -> Result<(), ferrylog::kafka::Error> {
            self.$to.rebuild()
        }
    };
    (@leaderless $to:ident) => {
        fn leaderless(&mut self, topic: &str, timeout: std::time::Duration) -> Vec<u32> {
            self.$to.leaderless(topic, timeout)
        }
    };
    (@rebuild_careful $to:ident) => {
        fn rebuild_careful(&mut self) {
            self.$to.rebuild_careful();
        }
    };
    (@breaks $to:ident) => {
        fn breaks(&mut self, is_careful: bool) -> ferrylog::kafka::Breaks {
            self.$to.breaks(is_careful)
        }
    };
    (@be_patient $to:ident) => {
        fn be_patient(&mut self, patience: std::time::Duration) {
            self.$to.be_patient(patience);
        }
    };
    (@address $to:ident) => {
        fn address(&self) -> &str {
            self.$to.address()
        }
    };
}
pub(crate) use forward;

/// What happens once so many records were written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The link is lost for so many polls; nothing is lost on it.
    Link { polls: u32 },
    /// The producer is spent; a random part of each partition's queue was written unreported.
    Spent,
    /// The next record is refused, and the producer is spent by that.
    Refused,
}

/// A value that is taken, whatever record it stands in the place of.
pub(crate) const HARMLESS: &[u8] = b"harmless";

/// A record as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) timestamp_millis: i64,
    pub(crate) topic: String,
}

impl Written {
    /// Whether it is a copy of a dead letter.
    pub(crate) fn is_copy(&self) -> bool {
        self.topic.ends_with(".dlq")
    }

    /// The value of the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        Some(String::from_utf8(value.clone()?).unwrap())
    }

    /// The number in the identity header.
    pub(crate) fn seq(&self) -> u64 {
        let id = self.headers.iter().find(|(name, _)| name == "ferry-id");
        let id = String::from_utf8(id.unwrap().1.clone().unwrap()).unwrap();
        id.split_once('-').unwrap().1.parse().unwrap()
    }

    /// What it takes of the flight budget.
    pub(crate) fn cost(&self) -> u64 {
        let len = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| 128 + name.len() + len(value))
            .sum();
        (256 + len(&self.key) + len(&self.value) + headers) as u64
    }
}

pub(crate) struct Scripted {
    random: Random,
    /// Partitions of every topic; none: no topic exists.
    pub(crate) partition_count: Option<u32>,
    /// Faults by the count of written records at which they happen, in order.
    pub(crate) faults: VecDeque<(usize, Fault)>,
    /// Whether anybody can be reached at all.
    pub(crate) is_reachable: bool,
    /// Reports everything twice.
    pub(crate) reports_twice: bool,
    /// Tells the shipper to stop once so many records were written.
    pub(crate) stop: Option<(usize, Arc<AtomicBool>)>,
    /// The same once so many bytes were written.
    pub(crate) stop_at_bytes: Option<(u64, Arc<AtomicBool>)>,
    /// Fewer records than this are delivered in a poll.
    pub(crate) steps_max: u64,
    written_bytes: u64,
    /// What the cluster has, by partition.
    pub(crate) written: BTreeMap<i32, Vec<Written>>,
    pub(crate) sent_count: usize,
    pub(crate) rebuild_count: u32,
    pub(crate) written_count: usize,
    queued: BTreeMap<i32, VecDeque<(u64, Written)>>,
    /// What was sent carefully, one batch a partition; the open one still grows.
    careful: BTreeMap<(String, i32), VecDeque<(u64, Written)>>,
    open: Option<(String, i32)>,
    /// Records that are refused, and every batch with one of them.
    pub(crate) poison: HashSet<u64>,
    pub(crate) refusals: u32,
    /// Most bytes of a value in a dead-letter topic, which is one whose name ends with `.dlq`.
    pub(crate) copy_len_max: usize,
    /// Records that are not taken now, in every batch that holds one.
    pub(crate) flaky: HashSet<u64>,
    /// Records on which the connection is lost.
    pub(crate) killers: HashSet<u64>,
    /// So many of the next batches that are sent carefully lose the connection, whatever is in them.
    pub(crate) careful_breaks: u32,
    /// Records that cross the link only in the longest time there is, and those that do not even so.
    pub(crate) slow: HashSet<u64>,
    pub(crate) too_slow: HashSet<u64>,
    /// Whether what is sent carefully has the longest time there is.
    is_patient: bool,
    /// Topics that do not exist.
    pub(crate) missing: HashSet<String>,
    /// The partition whose broker is gone, while that is so: what it is given lies there.
    pub(crate) leaderless: Option<(i32, Arc<AtomicBool>)>,
    /// The numbers that each topic and partition holds, in its order.
    pub(crate) by_topic: BTreeMap<(String, i32), Vec<u64>>,
    reports: Vec<Report>,
    pub(crate) away_polls: u32,
    is_spent: bool,
    trouble: Option<Trouble>,
    /// Connections that broke: of the main producer, of the careful one.
    breaks: [Breaks; 2],
}

impl Scripted {
    pub(crate) fn new(seed: u64, partition_count: u32) -> Scripted {
        println!("seed {seed}");
        Scripted {
            random: Random(seed),
            partition_count: Some(partition_count),
            faults: VecDeque::new(),
            is_reachable: true,
            reports_twice: false,
            stop: None,
            steps_max: 200,
            stop_at_bytes: None,
            written_bytes: 0,
            written: BTreeMap::new(),
            sent_count: 0,
            rebuild_count: 0,
            written_count: 0,
            queued: BTreeMap::new(),
            careful: BTreeMap::new(),
            open: None,
            poison: HashSet::new(),
            refusals: 0,
            copy_len_max: usize::MAX,
            flaky: HashSet::new(),
            killers: HashSet::new(),
            careful_breaks: 0,
            slow: HashSet::new(),
            too_slow: HashSet::new(),
            is_patient: false,
            missing: HashSet::new(),
            leaderless: None,
            by_topic: BTreeMap::new(),
            reports: Vec::new(),
            away_polls: 0,
            is_spent: false,
            trouble: None,
            breaks: Default::default(),
        }
    }

    /// The numbers each partition holds, in its order.
    pub(crate) fn seqs(&self) -> Vec<Vec<u64>> {
        let seqs = |records: &Vec<Written>| records.iter().map(Written::seq).collect();
        self.written.values().map(seqs).collect()
    }

    /// What a new process would start with.
    pub(crate) fn forget(&mut self) {
        self.queued.clear();
        self.careful.clear();
        self.reports.clear();
        self.trouble = None;
    }

    fn write(&mut self, partition: i32, record: Written) {
        let place = (record.topic.clone(), partition);
        if record.headers.iter().any(|(name, _)| name == "ferry-id") {
            self.by_topic.entry(place).or_default().push(record.seq());
        }
        self.written_bytes += record.cost();
        self.written.entry(partition).or_default().push(record);
        self.written_count += 1;
        if let Some((at, stop)) = &self.stop_at_bytes
            && self.written_bytes >= *at
        {
            stop.store(true, Ordering::Relaxed);
        }
        if let Some((at, stop)) = &self.stop
            && self.written_count >= *at
        {
            stop.store(true, Ordering::Relaxed);
            self.stop = None;
        }
    }

    fn spend(&mut self, reason: &str) {
        self.is_spent = true;
        self.trouble = Some(Trouble {
            class: ErrorClass::Fatal,
            code: -195,
            timed_out: false,
            reason: reason.to_owned(),
        });
    }

    fn play(&mut self, fault: Fault, partition: i32) {
        match fault {
            Fault::Link { polls } => {
                self.away_polls = polls;
                self.trouble = Some(Trouble {
                    class: ErrorClass::Network,
                    code: -195,
                    timed_out: true,
                    reason: "connection reset".to_owned(),
                });
            }
            Fault::Spent => {
                let partitions: Vec<i32> = self.queued.keys().copied().collect();
                for partition in partitions {
                    let queue = self.queued.remove(&partition).unwrap();
                    let in_doubt = self.random.below(queue.len() as u64 + 1) as usize;
                    for (_, record) in queue.into_iter().take(in_doubt) {
                        self.write(partition, record);
                    }
                }
                self.spend("out of order sequence");
            }
            Fault::Refused => {
                let (token, _) = self
                    .queued
                    .get_mut(&partition)
                    .unwrap()
                    .pop_front()
                    .unwrap();
                self.fail(token, ErrorClass::Poison, 10);
                for (_, queue) in std::mem::take(&mut self.queued) {
                    for (token, _) in queue {
                        self.fail(token, ErrorClass::Fatal, -152);
                    }
                }
                self.spend("gapless guarantee");
            }
        }
    }

    /// Whether a partition has a leader.
    fn is_led(&self, partition: i32) -> bool {
        let gone = self.leaderless.as_ref();
        gone.is_none_or(|(which, is_gone)| *which != partition || !is_gone.load(Ordering::Relaxed))
    }

    fn fail(&mut self, token: u64, class: ErrorClass, code: i32) {
        let name = "scripted".to_owned();
        let failure = Failure {
            class,
            code,
            name,
            persistence: Persistence::No,
        };
        let outcome = Outcome::Failed(Box::new(failure));
        self.reports.push(Report { token, outcome });
    }

    /// Takes or refuses a batch that was sent carefully.
    fn careful_step(&mut self) {
        let is_open = |place: &(String, i32)| self.open.as_ref() == Some(place);
        let ready = |place: &&(String, i32)| !is_open(place) && self.is_led(place.1);
        let Some(place) = self.careful.keys().find(ready).cloned() else {
            return;
        };
        let is_broken = self.careful_breaks > 0;
        self.careful_breaks = self.careful_breaks.saturating_sub(1);
        if is_broken || self.kills(self.careful[&place].iter().map(|(_, record)| record)) {
            self.breaks[1].losses += 1;
            return;
        }
        let is_in = |those: &HashSet<u64>| {
            let mut batch = self.careful[&place].iter();
            !those.is_empty() && batch.any(|(_, record)| those.contains(&record.seq()))
        };
        if is_in(&self.too_slow) || (is_in(&self.slow) && !self.is_patient) {
            self.breaks[1].timeouts += 1;
            return;
        }
        let batch = self.careful.remove(&place).unwrap();
        let partition = place.1;
        let verdict = self.verdict(batch.iter().map(|(_, record)| record));
        self.refusals += u32::from(verdict.is_some());
        for (token, record) in batch {
            if let Some((class, code)) = verdict {
                self.fail(token, class, code);
            } else {
                self.deliver(partition, token, record);
            }
        }
    }

    /// Whether sending a batch loses the connection.
    fn kills<'a>(&self, mut batch: impl Iterator<Item = &'a Written>) -> bool {
        !self.killers.is_empty() && batch.any(|record| self.killers.contains(&record.seq()))
    }

    /// What a batch is refused with, if it is.
    fn verdict<'a>(
        &self,
        mut batch: impl Iterator<Item = &'a Written> + Clone,
    ) -> Option<(ErrorClass, i32)> {
        let mut again = batch.clone().filter(|record| !record.is_copy());
        let too_large = |record: &Written| {
            let len = record.value.as_ref().map_or(0, Vec::len);
            record.is_copy() && len > self.copy_len_max
        };
        if batch.clone().any(too_large) {
            return Some((ErrorClass::Poison, 10));
        }
        let is_poison = |record: &Written| {
            let is_harmless = record.is_copy() || record.value.as_deref() == Some(HARMLESS);
            !is_harmless && self.poison.contains(&record.seq())
        };
        if batch.any(is_poison) {
            return Some((ErrorClass::Poison, 87));
        }
        let is_flaky = again.any(|record| self.flaky.contains(&record.seq()));
        is_flaky.then_some((ErrorClass::Transient, -1))
    }

    /// Refuses a batch of the main producer if there is poison among the next records of a
    /// partition: that spends it.
    fn refuses(&mut self, partition: i32) -> bool {
        let len = 1 + self.random.below(30) as usize;
        let queue = &self.queued[&partition];
        let batch = || queue.iter().take(len);
        let Some((class, code)) = self.verdict(batch().map(|(_, record)| record)) else {
            return false;
        };
        self.refusals += 1;
        let refused: Vec<u64> = batch().map(|(token, _)| *token).collect();
        let queue = self.queued.get_mut(&partition).unwrap();
        queue.drain(..refused.len());
        for token in refused {
            self.fail(token, class, code);
        }
        for (_, queue) in std::mem::take(&mut self.queued) {
            for (token, _) in queue {
                self.fail(token, ErrorClass::Fatal, -152);
            }
        }
        self.spend("gapless guarantee");
        true
    }

    /// Delivers the oldest record of a random partition, unless a fault comes first.
    fn step(&mut self) {
        if self.away_polls == 0 {
            self.careful_step();
        }
        self.queued.retain(|_, queue| !queue.is_empty());
        if self.queued.is_empty() || self.away_polls > 0 || self.is_spent {
            return;
        }
        let chosen = self.random.below(self.queued.len() as u64) as usize;
        let partition = *self.queued.keys().nth(chosen).unwrap();
        if !self.is_led(partition) {
            return;
        }
        if let Some(&(at, fault)) = self.faults.front()
            && self.written_count >= at
        {
            self.faults.pop_front();
            self.play(fault, partition);
            return;
        }
        if !(self.poison.is_empty() && self.flaky.is_empty()) && self.refuses(partition) {
            return;
        }
        if self.kills(self.queued[&partition].iter().take(30).map(|(_, r)| r)) {
            self.breaks[0].losses += 1;
            return;
        }
        let first = &self.queued[&partition][0].1;
        let is_first = |n: &u64| first.seq() == *n;
        if self.slow.iter().any(is_first) || self.too_slow.iter().any(is_first) {
            self.breaks[0].timeouts += 1;
            self.trouble = Some(Trouble {
                class: ErrorClass::Network,
                code: -185,
                timed_out: true,
                reason: "1 request(s) timed out".to_owned(),
            });
            return;
        }
        let queue = self.queued.get_mut(&partition).unwrap();
        let (token, record) = queue.pop_front().unwrap();
        self.deliver(partition, token, record);
    }

    fn deliver(&mut self, partition: i32, token: u64, record: Written) {
        self.write(partition, record);
        let partition_offset = i64::try_from(self.written[&partition].len()).unwrap();
        let outcome = Outcome::Delivered {
            partition,
            partition_offset,
        };
        let report = Report { token, outcome };
        if self.reports_twice {
            self.reports.push(report.clone());
        }
        self.reports.push(report);
    }
}

impl Sink for Scripted {
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        let is_full = self.in_flight() >= 500 || self.random.below(100) == 0;
        if is_full || (self.is_spent && !record.is_careful) {
            return Err(SendError::QueueFull);
        }
        let headers = record.headers.iter();
        let written = Written {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers
                .map(|&(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            timestamp_millis: record.timestamp_millis,
            topic: record.topic.to_owned(),
        };
        self.sent_count += 1;
        let queue = if record.is_careful {
            let place = (record.topic.to_owned(), record.partition);
            self.careful.entry(place).or_default()
        } else {
            self.queued.entry(record.partition).or_default()
        };
        queue.push_back((record.token, written));
        Ok(())
    }

    fn begin_piece(&mut self, topic: &str, partition: i32) -> bool {
        self.open = Some((topic.to_owned(), partition));
        true
    }

    fn end_piece(&mut self, _: &str, _: i32) {
        self.open = None;
    }

    fn leaderless(&mut self, _: &str, _: Duration) -> Vec<u32> {
        let gone = self.leaderless.iter().filter(|(n, _)| !self.is_led(*n));
        gone.map(|(n, _)| n.unsigned_abs()).collect()
    }

    fn rebuild_careful(&mut self) {
        for (_, batch) in std::mem::take(&mut self.careful) {
            for (token, _) in batch {
                self.fail(token, ErrorClass::Fatal, -152);
            }
        }
    }

    fn poll(&mut self, _: Duration, reports: &mut Vec<Report>) {
        self.away_polls = self.away_polls.saturating_sub(1);
        for _ in 0..self.random.below(self.steps_max) {
            self.step();
        }
        reports.append(&mut self.reports);
    }

    fn in_flight(&self) -> usize {
        let queues = self.queued.values().chain(self.careful.values());
        queues.map(VecDeque::len).sum::<usize>() + self.reports.len()
    }

    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error> {
        if !self.is_reachable || self.away_polls > 0 {
            return Err(kafka::Error::Unreachable {
                action: "asking for the partitions",
                timeout,
                code: -195,
                name: "scripted".to_owned(),
            });
        }
        let count = self
            .partition_count
            .filter(|_| !self.missing.contains(topic));
        count.ok_or_else(|| kafka::Error::UnknownTopic {
            topic: topic.to_owned(),
        })
    }

    fn breaks(&mut self, is_careful: bool) -> Breaks {
        std::mem::take(&mut self.breaks[usize::from(is_careful)])
    }

    fn be_patient(&mut self, _: Duration) {
        self.is_patient = true;
    }

    fn trouble(&mut self) -> Option<Trouble> {
        self.trouble.take()
    }

    fn probe(&mut self, _: &LinkOptions) -> Option<Probed> {
        // A verdict takes a while.
        if self.random.below(3) > 0 {
            return None;
        }
        let is_there = self.is_reachable && self.away_polls == 0;
        let verdict = is_there.then_some(()).ok_or("refused".to_owned());
        Some(verdict.into())
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        self.rebuild_count += 1;
        self.queued.clear();
        self.is_spent = false;
        Ok(())
    }

    fn address(&self) -> &str {
        "scripted:9092"
    }
}

/// A cluster to which something happens as time passes since it was asked first.
pub(crate) struct Passing<F> {
    pub(crate) cluster: Scripted,
    began: Option<Instant>,
    happens: F,
}

impl<F: FnMut(&mut Scripted, Duration)> Passing<F> {
    pub(crate) fn new(cluster: Scripted, happens: F) -> Passing<F> {
        Passing {
            cluster,
            began: None,
            happens,
        }
    }
}

impl<F: FnMut(&mut Scripted, Duration)> Sink for Passing<F> {
    forward!(cluster: send begin_piece end_piece in_flight partitions leaderless trouble breaks);
    forward!(cluster: be_patient probe rebuild rebuild_careful address);

    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        let since = self.began.get_or_insert_with(Instant::now).elapsed();
        (self.happens)(&mut self.cluster, since);
        self.cluster.poll(timeout, reports);
    }
}
