//! Closing from where it cannot be waited for: a callback on a thread that is to end.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ferrylog::Producer;
use ferrylog::kafka::{MockKafka, Settings};
use ferrylog::producer::{Builder, CloseError, Closed};
use ferrylog::ship::Recovery;
use ferrylog::ship::exactly_once::{ExactlyOnceOptions, ProgressIn};
use ferrylog::store::{LaneOptions, Store, StoreOptions};
use ferrylog::wal::Options;
use tempfile::TempDir;

use crate::producer::{DEADLINE, until, with_value};
use crate::support::options;

/// A cluster, a store, and a callback that is asked about a record and is given a clone of its producer.
struct Site {
    dir: TempDir,
    mock: MockKafka,
    /// Where the callback finds it.
    slot: Arc<Mutex<Option<Producer>>>,
    is_exactly_once: bool,
}

/// With two lanes, each of which has a thread of its own then.
fn in_transactions(builder: Builder) -> Builder {
    let mut store = StoreOptions::default();
    store.lanes.insert("other".into(), LaneOptions::default());
    let mut once = ExactlyOnceOptions::default();
    once.ship = options();
    once.progress = ProgressIn::Offsets;
    builder.store(store).exactly_once(once)
}

impl Site {
    fn new(is_exactly_once: bool) -> Self {
        let mock = MockKafka::start(1).unwrap();
        for topic in ["t", "ferrylog-progress"] {
            mock.create_topic(topic, 1).unwrap();
        }
        let (dir, slot) = (TempDir::new().unwrap(), Arc::default());
        Self {
            dir,
            mock,
            slot,
            is_exactly_once,
        }
    }

    /// With what the callback tells of it.
    fn open<T: Send + 'static>(
        &self,
        in_callback: impl Fn(Producer, &Path) -> T + Send + Sync + 'static,
    ) -> (Producer, Receiver<T>) {
        let mut settings = Settings::new(self.mock.bootstrap_servers());
        // What is longer the client refuses as a broker would.
        let property = ("message.max.bytes".to_owned(), "2000".to_owned());
        settings.properties.push(property);
        let (tell, told) = mpsc::channel();
        let (slot, store) = (Arc::clone(&self.slot), self.store());
        let builder = Producer::builder(&store, settings);
        let builder = match self.is_exactly_once {
            false => builder.ship(options()),
            true => in_transactions(builder),
        };
        let builder = builder.on_exhausted(move |_| {
            until("it is handed over", || slot.lock().unwrap().is_some());
            let producer = slot.lock().unwrap().take().unwrap();
            tell.send(in_callback(producer, &store)).unwrap();
            Recovery::Drop
        });
        (builder.open().unwrap(), told)
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Has the callback asked, which gets this clone.
    fn refused(&self, producer: Producer) {
        drop(producer.send(&with_value("t", &[b'x'; 5000])).unwrap());
        *self.slot.lock().unwrap() = Some(producer);
    }

    /// What was left, by the store itself, once it is closed.
    fn left(&self) -> u64 {
        let open = || Store::open(self.store(), Options::default());
        until("it closes by itself", || open().is_ok());
        let totals = open().unwrap().totals();
        assert!(totals.balances(), "{totals:?}");
        totals.queued
    }
}

fn is_taken(store: &Path) -> bool {
    Store::open(store, Options::default()).is_err()
}

#[test]
fn a_callback_that_closes_does_not_wait_for_itself_and_the_producer_closes_behind_it() {
    [false, true]
        .map(Site::new)
        .iter()
        .for_each(closes_in_a_callback);
}

fn closes_in_a_callback(site: &Site) {
    let (producer, told) = site.open(|producer, store| {
        // However long it would wait.
        let closed = producer.close(Duration::MAX);
        (closed, is_taken(store))
    });
    site.refused(producer.clone());
    let told = told.recv_timeout(DEADLINE);
    let (closed, is_taken) = told.unwrap_or_else(|_| panic!("{:?}", producer.status()));
    assert!(matches!(closed, Err(CloseError::InCallback)), "{closed:?}");
    assert!(is_taken, "its shipper still runs");
    let left = site.left();
    // Whoever closes after that finds it closed.
    let closed = producer.close(DEADLINE).unwrap();
    assert_eq!(closed.totals.queued, left);
}

#[test]
fn who_closes_while_a_callback_does_waits_for_the_end_and_no_longer() {
    [false, true].map(Site::new).iter().for_each(several_close);
}

fn several_close(site: &Site) {
    let (producer, told) = site.open(|producer, _| {
        until("the others close", || producer.status().is_closed);
        producer.close(DEADLINE)
    });
    // Nobody makes this topic, so the store does not get empty.
    drop(producer.send(&with_value("never", b"1")).unwrap());
    site.refused(producer.clone());
    let (tell, closed) = mpsc::channel();
    for _ in 0..2 {
        let (producer, tell) = (producer.clone(), tell.clone());
        thread::spawn(move || {
            tell.send(producer.close(Duration::from_secs(3600)))
                .unwrap()
        });
    }
    let in_callback = told.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(in_callback, Err(CloseError::InCallback)));
    for _ in 0..2 {
        let Closed { totals, .. } = closed.recv_timeout(DEADLINE).unwrap().unwrap();
        assert!(totals.balances() && totals.queued > 0, "{totals:?}");
        assert!(
            !is_taken(&site.store()),
            "it is closed for whoever was told"
        );
    }
}

#[test]
fn the_last_clone_may_be_dropped_in_a_callback_and_the_store_is_closed_behind_it() {
    for site in [false, true].map(Site::new) {
        let (producer, told) = site.open(|producer, store| {
            drop(producer);
            is_taken(store)
        });
        site.refused(producer);
        let is_taken = told.recv_timeout(DEADLINE).unwrap();
        assert!(is_taken, "its shipper still runs");
        site.left();
    }
}
