//! A store in a temporary directory, records to ship from it, and seeded randomness.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ferrylog::message::MessageRef;
use ferrylog::ship::{self, Backoff, Drained, Error, ShipOptions, Sink};
use ferrylog::store::Store;
use ferrylog::wal::Options;
use tempfile::TempDir;

/// A store that is removed at the end of the test.
pub(crate) struct Scratch {
    pub(crate) store: Store,
    _dir: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), Options::default()).unwrap();
        Scratch { store, _dir: dir }
    }

    /// Appends records `from..to` to a topic: the value is the number, every third has no key.
    pub(crate) fn fill(&self, topic: &str, range: std::ops::Range<u64>) {
        for n in range {
            let value = n.to_string();
            let key = format!("key-{}", n % 17);
            let key = (n % 3 != 0).then_some(key.as_bytes());
            let message = MessageRef {
                key,
                value: Some(value.as_bytes()),
                ..MessageRef::to(topic)
            };
            // The sync below waits for all of them.
            drop(self.store.lane().append(&message).unwrap());
        }
        self.store.lane().sync().unwrap();
    }

    pub(crate) fn queued(&self) -> u64 {
        let totals = self.store.lane().totals();
        assert!(totals.balances(), "{totals:?}");
        totals.queued
    }

    pub(crate) fn drain<S: Sink>(&self, sink: &mut S) -> Result<Drained, Error> {
        let stop = AtomicBool::new(false);
        ship::drain_into(self.store.lane(), sink, &options(), &stop, &mut |_| {})
    }
}

/// Options for a test: no wait is longer than it must be.
pub(crate) fn options() -> ShipOptions {
    let mut options = ShipOptions::default();
    options.timeout = Some(Duration::from_secs(60));
    options.backoff = Backoff {
        initial: Duration::from_millis(1),
        max: Duration::from_millis(20),
        stable: Duration::from_secs(10),
    };
    options.probe_timeout = Duration::from_secs(1);
    options
}

/// SplitMix64: enough for tests, and the same for ever.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        usize::try_from(z % u64::try_from(bound).unwrap()).unwrap()
    }
}
