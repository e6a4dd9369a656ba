//! The threads that ship, and what they share with those who send and ask.
//!
//! Owns: beginning again after an error, and the last news. Must not know what is shipped or why it
//! fails: it hands on the sentence.
//!
//! Invariant: each ends when it is told to, and for nothing else: an error or a panic only makes it
//! pause, and no other.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::events::Events;
use super::intercept::Interceptors;
use super::status::Trouble;
use crate::kafka::Settings;
use crate::ship::{self, Delivery, Progress, Until};
use crate::store::Store;

/// The pause after a first error, and the longest one; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What ran for so long begins with the shortest pause again.
const STABLE: Duration = Duration::from_secs(60);

/// What clones, receipts and the shippers share.
pub(super) struct Shared {
    pub(super) store: Store,
    /// Empty: there is none.
    pub(super) default_topic: Box<str>,
    pub(super) interceptors: Interceptors,
    pub(super) events: Events,
    pub(super) clusters: BTreeMap<String, Settings>,
    refuses: AtomicBool,
    stop: AtomicBool,
    /// Of each cluster that has a lane.
    news: Mutex<Vec<News>>,
    /// Notified with every change of the news, and when it is to stop.
    changed: Condvar,
}

/// What is known of one shipper.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    pub(super) cluster: String,
    pub(super) progress: Option<Progress>,
    pub(super) trouble: Option<Trouble>,
    pub(super) restarts: u32,
}

impl News {
    /// Of the shipper to this cluster, which has not said anything.
    pub(super) fn of(cluster: String) -> Self {
        Self {
            cluster,
            ..Self::default()
        }
    }
}

impl Shared {
    pub(super) fn new(
        store: Store,
        default_topic: Box<str>,
        interceptors: Interceptors,
        events: Events,
        clusters: BTreeMap<String, Settings>,
        news: Vec<News>,
    ) -> Self {
        Self {
            store,
            default_topic,
            interceptors,
            events,
            clusters,
            refuses: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            news: Mutex::new(news),
            changed: Condvar::new(),
        }
    }

    pub(super) fn takes_records(&self) -> bool {
        !self.refuses.load(Ordering::Relaxed)
    }

    pub(super) fn refuse_more(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        // Under the lock: who is about to pause has seen it, or is woken.
        let _news = self.news.lock();
        self.stop.store(true, Ordering::SeqCst);
        self.changed.notify_all();
        self.store.wake_schedule();
    }

    pub(super) fn news(&self) -> Vec<News> {
        self.news.lock().clone()
    }

    /// Asks again with every change, until there is an answer or the time is over; then it gives the
    /// last one.
    pub(super) fn ask<T, E>(
        &self,
        deadline: Option<Instant>,
        ask: impl Fn(&[News]) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut news = self.news.lock();
        loop {
            let answer = ask(&news);
            if answer.is_ok() {
                return answer;
            }
            match deadline {
                Some(deadline) => {
                    if self.changed.wait_until(&mut news, deadline).timed_out() {
                        return ask(&news);
                    }
                }
                None => self.changed.wait(&mut news),
            }
        }
    }

    fn told(&self, place: usize, progress: &Progress) {
        let mut all = self.news.lock();
        let news = &mut all[place];
        news.progress = Some(progress.clone());
        news.trouble = None;
        self.changed.notify_all();
    }

    /// Waits after an error. True: it is to stop.
    fn pause(&self, place: usize, error: String, pause: Duration) -> bool {
        let mut all = self.news.lock();
        let news = &mut all[place];
        news.restarts = news.restarts.saturating_add(1);
        news.trouble = Some(Trouble {
            error,
            since: Instant::now(),
            pause,
        });
        self.changed.notify_all();
        let deadline = Instant::now() + pause;
        loop {
            let is_over = self.stop.load(Ordering::SeqCst);
            if is_over || self.changed.wait_until(&mut all, deadline).timed_out() {
                return is_over;
            }
        }
    }
}

/// Ships to the cluster at this place until told to stop.
pub(super) fn run(shared: &Shared, place: usize, kafka: &Settings, mut delivery: Delivery) {
    let options = delivery.ship_mut();
    options.until = Until::Stopped;
    options.timeout = None;
    let (store, stop) = (&shared.store, &shared.stop);
    let mut pause = PAUSE_MIN;
    loop {
        let began = Instant::now();
        let progress = &mut |progress: &Progress| shared.told(place, progress);
        let ship = AssertUnwindSafe(|| delivery.drain(store, kafka, stop, progress));
        let shipped = panic::catch_unwind(ship);
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let error = match shipped {
            Ok(Ok(_)) => "it ended although it was not told to".to_owned(),
            Ok(Err(error)) => told(&error),
            Err(panic) => format!("it panicked: {}", said(&*panic)),
        };
        if began.elapsed() >= STABLE {
            pause = PAUSE_MIN;
        }
        if shared.pause(place, error, pause) {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Brings what is due to its lane until told to stop.
pub(super) fn fire(shared: &Shared) {
    let stop = &shared.stop;
    while !stop.load(Ordering::SeqCst) {
        let firing = AssertUnwindSafe(|| shared.store.fire_until(stop));
        if panic::catch_unwind(firing).is_err() && !stop.load(Ordering::SeqCst) {
            // The panic has been told; the next round says in the status what stands in the way.
            thread::sleep(PAUSE_MIN);
        }
    }
}

/// An error with its causes, on one line.
fn told(error: &ship::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

pub(super) fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a word")
}
