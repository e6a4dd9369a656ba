//! The thread that ships, and what it shares with those who send and ask.
//!
//! Owns: beginning again after an error, and the last news. Must not know what is shipped or why it
//! fails: it hands on the sentence.
//!
//! Invariant: it ends when it is told to, and for nothing else: an error or a panic only makes it
//! pause.

use std::any::Any;
use std::error::Error as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::builder::Delivery;
use super::events::Events;
use super::intercept::Interceptors;
use super::status::Trouble;
use crate::kafka::Settings;
use crate::ship::{self, Progress, Until, exactly_once};
use crate::store::Store;

/// The pause after a first error, and the longest one; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What ran for so long begins with the shortest pause again.
const STABLE: Duration = Duration::from_secs(60);

/// What clones, receipts and the shipper share.
pub(super) struct Shared {
    pub(super) store: Store,
    /// Empty: there is none.
    pub(super) default_topic: Box<str>,
    pub(super) interceptors: Interceptors,
    pub(super) events: Events,
    refuses: AtomicBool,
    stop: AtomicBool,
    news: Mutex<News>,
    /// Notified with every change of the news, and when it is to stop.
    changed: Condvar,
}

/// What is known of the shipper.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    pub(super) progress: Option<Progress>,
    pub(super) trouble: Option<Trouble>,
    pub(super) restarts: u32,
}

impl Shared {
    pub(super) fn new(
        store: Store,
        default_topic: Box<str>,
        interceptors: Interceptors,
        events: Events,
    ) -> Self {
        Self {
            store,
            default_topic,
            interceptors,
            events,
            refuses: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            news: Mutex::default(),
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
    }

    pub(super) fn news(&self) -> News {
        self.news.lock().clone()
    }

    /// Asks again with every change, until there is an answer or the time is over; then it gives the
    /// last one.
    pub(super) fn ask<T, E>(
        &self,
        deadline: Option<Instant>,
        ask: impl Fn(&News) -> Result<T, E>,
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

    fn told(&self, progress: &Progress) {
        let mut news = self.news.lock();
        news.progress = Some(progress.clone());
        news.trouble = None;
        self.changed.notify_all();
    }

    /// Waits after an error. True: it is to stop.
    fn pause(&self, error: String, pause: Duration) -> bool {
        let mut news = self.news.lock();
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
            if is_over || self.changed.wait_until(&mut news, deadline).timed_out() {
                return is_over;
            }
        }
    }
}

/// Ships until told to stop.
pub(super) fn run(shared: &Shared, kafka: &Settings, mut delivery: Delivery) {
    let options = match &mut delivery {
        Delivery::AtLeastOnce(options) => options,
        Delivery::ExactlyOnce(options) => &mut options.ship,
    };
    options.until = Until::Stopped;
    options.timeout = None;
    let mut pause = PAUSE_MIN;
    loop {
        let began = Instant::now();
        let shipped = panic::catch_unwind(AssertUnwindSafe(|| ship(shared, kafka, &delivery)));
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let error = match shipped {
            Ok(Ok(())) => "it ended although it was not told to".to_owned(),
            Ok(Err(error)) => told(&error),
            Err(panic) => format!("it panicked: {}", said(&*panic)),
        };
        if began.elapsed() >= STABLE {
            pause = PAUSE_MIN;
        }
        if shared.pause(error, pause) {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn ship(shared: &Shared, kafka: &Settings, delivery: &Delivery) -> Result<(), ship::Error> {
    let (store, stop) = (&shared.store, &shared.stop);
    let progress = &mut |progress: &Progress| shared.told(progress);
    match delivery {
        Delivery::AtLeastOnce(options) => {
            ship::drain(store, kafka, options, stop, progress).map(drop)
        }
        Delivery::ExactlyOnce(options) => {
            exactly_once::drain(store, kafka, options, stop, progress).map(drop)
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
