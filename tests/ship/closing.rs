//! Closing from where it cannot be waited for, a callback or a waker on a thread that is to end, and beside what
//! was begun before.

use std::future::Future;
use std::mem;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use ferrylog::kafka::{MockKafka, Settings};
use ferrylog::message::{Due, MessageRef};
use ferrylog::producer::{Builder, CloseError, Closed, Unhealthy};
use ferrylog::ship::Recovery;
use ferrylog::ship::exactly_once::{ExactlyOnceOptions, ProgressIn};
use ferrylog::store::{LaneOptions, Store, StoreOptions};
use ferrylog::wal::{Durability, Options};
use ferrylog::{Producer, SendError};
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

/// What a task's executor has somebody call, where it is no executor's.
struct InWaker<F>(F);

impl<F: Fn() + Send + Sync> Wake for InWaker<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Asks, as a task would, whether a message is on disk, and has this called once it is.
fn once_durable(producer: &Producer, call: impl Fn() + Send + Sync + 'static) {
    let receipt = producer.send(&with_value("t", b"1")).unwrap();
    let waker = Waker::from(Arc::new(InWaker(call)));
    let mut durable = receipt.durable();
    let polled = Pin::new(&mut durable).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "nothing was synced yet");
    // Dropped, it would not wait any more.
    mem::forget(durable);
}

/// Without a cluster, and without a sync that nobody asks for.
fn nobody(store: &Path) -> Producer {
    let mut log = Options::default();
    log.durability = Durability::Os;
    log.sync_interval = Duration::from_secs(3600);
    log.linger = Duration::from_secs(1);
    Producer::builder(store, Settings::new("127.0.0.1:1"))
        .store(StoreOptions::new(log))
        .open()
        .unwrap()
}

#[test]
fn a_waker_that_panics_takes_nothing_from_the_others_nor_from_who_closes() {
    let dir = TempDir::new().unwrap();
    let producer = nobody(dir.path());
    let woken = Arc::new(AtomicU32::new(0));
    for _ in 0..2 {
        for panics in [true, false] {
            let woken = Arc::clone(&woken);
            once_durable(&producer, move || {
                assert!(!panics, "a waker of the program");
                woken.fetch_add(1, Ordering::SeqCst);
            });
        }
        producer.flush().unwrap();
    }
    until("the others are woken", || woken.load(Ordering::SeqCst) == 2);
    once_durable(&producer, || panic!("a waker of the program"));
    let (tell, told) = mpsc::channel();
    let closes = producer.clone();
    thread::spawn(move || tell.send(closes.close(Duration::ZERO)));
    let closed = told.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!(closed.totals.queued, 5);
    assert!(!is_taken(dir.path()));
}

#[test]
fn a_waker_that_closes_does_not_wait_for_the_log_that_woke_it() {
    let dir = TempDir::new().unwrap();
    let producer = nobody(dir.path());
    let (tell, told) = mpsc::channel();
    let closes = producer.clone();
    once_durable(&producer, move || {
        tell.send(closes.close(Duration::MAX)).unwrap();
    });
    let flushes = producer.clone();
    thread::spawn(move || flushes.flush());
    let closed = told.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(closed, Err(CloseError::InCallback)), "{closed:?}");
    assert_eq!(producer.close(DEADLINE).unwrap().totals.queued, 1);
    assert!(!is_taken(dir.path()));
    // And nobody waits for better news.
    let told = producer.health(Duration::MAX).unwrap_err();
    assert!(matches!(told, Unhealthy::Closed), "{told}");
}

#[test]
fn what_is_due_later_and_comes_too_late_opens_nothing_behind_a_close() {
    let dir = TempDir::new().unwrap();
    let (tell, told) = mpsc::channel();
    let (go_on, gone_on) = mpsc::channel();
    let gone_on = Mutex::new(gone_on);
    let producer = Producer::builder(dir.path(), Settings::new("127.0.0.1:1"))
        .intercept(move |_| {
            tell.send(()).unwrap();
            gone_on.lock().unwrap().recv().unwrap();
            Ok(())
        })
        .open()
        .unwrap();
    let sends = producer.clone();
    let sending = thread::spawn(move || {
        let later = MessageRef {
            due: Some(Due::After(3_600_000)),
            ..with_value("t", b"1")
        };
        sends.send(&later).map(drop)
    });
    told.recv_timeout(DEADLINE).unwrap();
    producer.close(Duration::ZERO).unwrap();
    go_on.send(()).unwrap();
    let sent = sending.join().unwrap();
    assert!(matches!(sent, Err(SendError::Closed)), "{sent:?}");
    assert!(!dir.path().join("schedule").exists());
}
