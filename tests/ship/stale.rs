//! A producer, or a broker, that is of no use while a probe passes.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ferrylog::kafka::{self, Outgoing, Report, SendError};
use ferrylog::message::MessageRef;
use ferrylog::ship::{self, ShipOptions, Sink};

use crate::sink::{Scripted, forward, in_doubt};
use crate::support::Scratch;

/// A cluster of which some partitions swallow what they are given, in a time of its own.
struct Swallows {
    cluster: Scripted,
    now: Instant,
    /// What is swallowed: this partition, or all that a producer is given that was not replaced.
    partition: Option<i32>,
    is_stale: bool,
    swallowed: Vec<(u64, bool)>,
    given_back: Vec<Report>,
    rebuilds: u32,
}

impl Swallows {
    fn new(partition: Option<i32>) -> Swallows {
        Swallows {
            cluster: Scripted::new(5, 2),
            now: Instant::now(),
            partition,
            is_stale: false,
            swallowed: Vec::new(),
            given_back: Vec::new(),
            rebuilds: 0,
        }
    }
}

impl Sink for Swallows {
    forward!(cluster: begin_piece end_piece probe address);

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        let is_swallowed = match self.partition {
            Some(partition) => record.partition == partition,
            None => {
                // The last one of its use.
                self.is_stale |= self.rebuilds == 0 && record.partition == 1;
                self.is_stale && !record.is_careful
            }
        };
        if !is_swallowed {
            return self.cluster.send(record);
        }
        self.swallowed.push((record.token, record.is_careful));
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        self.now += timeout;
        self.cluster.poll(timeout, reports);
        reports.append(&mut self.given_back);
    }

    fn in_flight(&self) -> usize {
        self.cluster.in_flight() + self.swallowed.len() + self.given_back.len()
    }

    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error> {
        if !self.is_stale {
            return self.cluster.partitions(topic, timeout);
        }
        self.now += timeout;
        Err(kafka::Error::Unreachable {
            action: "asking for the partitions",
            timeout,
            code: -185,
            name: "timed out".to_owned(),
        })
    }

    fn trouble(&mut self) -> Option<kafka::Trouble> {
        None
    }

    fn rebuild_careful(&mut self) {
        self.cluster.rebuild_careful();
        let careful = self.swallowed.iter().filter(|(_, careful)| *careful);
        self.given_back
            .extend(careful.map(|(token, _)| in_doubt(*token)));
        self.swallowed.retain(|(_, careful)| !careful);
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        self.rebuilds += 1;
        self.is_stale = false;
        self.swallowed.retain(|(_, careful)| *careful);
        self.cluster.rebuild()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn pause(&mut self, pause: Duration) {
        self.now += pause;
    }

    fn rest(&mut self, wait: Duration) -> Duration {
        self.now += wait;
        Duration::ZERO
    }
}

fn fill(scratch: &Scratch, partition: i32, count: u64, len: usize) {
    let value = vec![b'v'; len];
    let message = MessageRef {
        partition: Some(partition),
        value: Some(&value),
        ..MessageRef::to("t")
    };
    for _ in 0..count {
        drop(scratch.store.lane().append(&message).unwrap());
    }
    scratch.store.lane().sync().unwrap();
}

fn hour() -> ShipOptions {
    let mut options = ShipOptions::default();
    options.timeout = Some(Duration::from_secs(3600));
    options
}

#[test]
fn a_producer_of_no_use_is_replaced_whatever_the_size_of_what_it_holds() {
    for len in [10, 100_000] {
        let scratch = Scratch::new();
        fill(&scratch, 0, 10, 10);
        fill(&scratch, 1, 1, len);
        let mut sink = Swallows::new(None);
        let stop = AtomicBool::new(false);
        let drained = ship::drain_into(&scratch.store, &mut sink, &hour(), &stop, &mut |_| {});
        assert_eq!(sink.rebuilds, 1, "{len}");
        assert!(drained.unwrap().is_empty, "{len}");
    }
}

/// The cluster has a leader for the partition, and we cannot get there.
#[test]
fn a_broker_that_cannot_be_reached_holds_up_no_other_whatever_the_size_of_what_it_is_sent() {
    for len in [10, 100_000] {
        let scratch = Scratch::new();
        fill(&scratch, 0, 1, len);
        fill(&scratch, 1, 100, 10);
        let mut sink = Swallows::new(Some(0));
        let stop = AtomicBool::new(false);
        let _ = ship::drain_into(&scratch.store, &mut sink, &hour(), &stop, &mut |_| {});
        assert_eq!(sink.cluster.written_count, 100, "{len}");
    }
}
