//! A store in a temporary directory, and records to ship from it.

use std::path::{Path, PathBuf};
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
    dir: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), options).unwrap();
        Scratch { store, dir }
    }

    /// Where the store is.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Where the files of the lane are.
    pub(crate) fn lane_dir(&self) -> PathBuf {
        self.dir.path().join("store/lanes/default")
    }

    /// Appends so many records of this value, without a key.
    pub(crate) fn fill_with(&self, topic: &str, count: u64, value: &[u8]) {
        let message = MessageRef {
            value: Some(value),
            ..MessageRef::to(topic)
        };
        for _ in 0..count {
            drop(self.store.lane().append(&message).unwrap());
        }
        self.store.lane().sync().unwrap();
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
        ship::drain_into(&self.store, sink, &options(), &stop, &mut |_| {})
    }
}

/// Options for a test: no wait is longer than it must be.
pub(crate) fn options() -> ShipOptions {
    let mut options = ShipOptions::default();
    options.timeout = Some(Duration::from_secs(60));
    let mut backoff = Backoff::default();
    backoff.initial = Duration::from_millis(1);
    backoff.max = Duration::from_millis(20);
    options.link.backoff = Some(backoff);
    options.link.timeout = Duration::from_secs(1);
    options
}

/// Takes a store's lane its cursor, as if what became of its records had not reached the disk: it counts from
/// where the segments say.
pub(crate) fn forget_cursor(store: &Path, lane: &str) {
    for slot in ["cursor-a", "cursor-b"] {
        // There may be one alone.
        drop(std::fs::remove_file(
            store.join("lanes").join(lane).join(slot),
        ));
    }
}
