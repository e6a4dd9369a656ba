//! A producer that is of no use while a probe passes.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ferrylog::kafka::{self, Outgoing, Report, SendError, Trouble};
use ferrylog::message::MessageRef;
use ferrylog::ship::{self, ShipOptions, Sink};

use crate::sink::{Scripted, forward};
use crate::support::Scratch;

/// A cluster whose producer swallows what it is given once it was given one for partition 1, until it is
/// replaced; in a time of its own.
struct Swallows {
    cluster: Scripted,
    now: Instant,
    is_stale: bool,
    swallowed: usize,
    rebuilds: u32,
}

impl Swallows {
    fn new() -> Swallows {
        Swallows {
            cluster: Scripted::new(5, 2),
            now: Instant::now(),
            is_stale: false,
            swallowed: 0,
            rebuilds: 0,
        }
    }
}

impl Sink for Swallows {
    forward!(cluster: begin_piece end_piece rebuild_careful probe address);

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        self.is_stale |= self.rebuilds == 0 && record.partition == 1;
        if !self.is_stale {
            return self.cluster.send(record);
        }
        self.swallowed += 1;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        self.now += timeout;
        self.cluster.poll(timeout, reports);
    }

    fn in_flight(&self) -> usize {
        self.cluster.in_flight() + self.swallowed
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

    fn trouble(&mut self) -> Option<Trouble> {
        None
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        self.rebuilds += 1;
        self.is_stale = false;
        self.swallowed = 0;
        self.cluster.rebuild()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn pause(&mut self, pause: Duration) {
        self.now += pause;
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

#[test]
fn a_producer_of_no_use_is_replaced_whatever_the_size_of_what_it_holds() {
    for len in [10, 100_000] {
        let scratch = Scratch::new();
        fill(&scratch, 0, 10, 10);
        fill(&scratch, 1, 1, len);
        let mut sink = Swallows::new();
        let mut options = ShipOptions::default();
        options.timeout = Some(Duration::from_secs(3600));
        let stop = AtomicBool::new(false);
        let drained = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
        assert_eq!(sink.rebuilds, 1, "{len}");
        assert!(drained.unwrap().is_empty, "{len}");
    }
}
