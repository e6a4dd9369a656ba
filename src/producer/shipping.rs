//! The threads that ship, and what they share with those who send and ask.
//!
//! Owns: beginning again after an error or with other settings, and the last news. Must not know what is
//! shipped or why it fails: it hands on the sentence.
//!
//! Invariants: each ends when it is told to, and for nothing else: an error or a panic only makes it
//! pause, and no other. A cluster is one thread's for ever, so that nothing is shipped by two, whatever
//! changes meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::events::Events;
use super::intercept::Interceptors;
use super::status::Trouble;
use super::threads::Threads;
use super::{ChangeError, OpenError};
#[cfg(feature = "config")]
use crate::config::Config;
use crate::kafka::Settings;
use crate::ship::exactly_once;
use crate::ship::restart::{self, Restarts};
use crate::ship::{self, Delivery, LinkState, OnExhausted, Progress, Until};
use crate::store::{Lane, Order, Store};

/// The pause after a panic of what brings records to their lane when they are due.
const FIRE_PAUSE: Duration = Duration::from_secs(1);

/// What clones, receipts and the shippers share.
pub(super) struct Shared {
    pub(super) store: Store,
    /// Empty: there is none.
    pub(super) default_topic: Box<str>,
    pub(super) interceptors: Interceptors,
    pub(super) events: Events,
    /// What decides about exhausted records whatever else is changed, if it was given.
    on_exhausted: Option<OnExhausted>,
    shipping: Mutex<Arc<Shipping>>,
    /// What all of it was made of, if it was.
    #[cfg(feature = "config")]
    pub(super) config: Mutex<Option<Config>>,
    /// The clusters that have a lane, and so a thread; the places of what goes by them.
    places: Vec<String>,
    /// Raised where a thread is to look at its settings again, or to end.
    again: Vec<AtomicBool>,
    refuses: AtomicBool,
    stop: AtomicBool,
    pub(super) threads: Threads,
    news: Mutex<Vec<News>>,
    /// Notified with every change of the news, and when it is to stop.
    changed: Condvar,
}

/// Where records are shipped, and how: what can be changed while a producer runs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Shipping {
    /// The clusters by name: that of [`MAIN_CLUSTER`](crate::store::MAIN_CLUSTER), and all that a lane,
    /// topic or tenant names.
    pub clusters: BTreeMap<String, Settings>,
    /// How.
    pub delivery: Delivery,
}

impl Shipping {
    /// Everything that is wrong without a look at the disk, where records that name no topic go to this one,
    /// and all to these clusters from lanes of these orders.
    pub(super) fn check<'a>(
        &self,
        default_topic: &str,
        named: impl IntoIterator<Item = &'a str>,
        lanes: impl IntoIterator<Item = (&'a str, Order)>,
    ) -> Result<(), OpenError> {
        for kafka in self.clusters.values() {
            kafka.check().map_err(ship::Error::Kafka)?;
        }
        let mut named = named.into_iter();
        if let Some(name) = named.find(|name| !self.clusters.contains_key(*name)) {
            let name = name.to_owned();
            return Err(OpenError::Cluster { name });
        }
        if let Delivery::ExactlyOnce(_) = &self.delivery {
            for (lane, order) in lanes {
                exactly_once::check_order(lane, order)?;
            }
        }
        let letters = &self.delivery.ship().dead_letters;
        if let Some(reason) = letters.refuses(default_topic) {
            return Err(OpenError::Ship(ship::Error::Option {
                key: "dead_letter.topic",
                reason: reason.to_owned(),
            }));
        }
        Ok(match &self.delivery {
            Delivery::AtLeastOnce(options) => options.check(),
            Delivery::ExactlyOnce(options) => options.check(),
        }?)
    }
}

/// What is known of one shipper.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    pub(super) cluster: String,
    /// Whether anybody said where that is.
    pub(super) is_given: bool,
    /// What follows was told under the settings before.
    pub(super) is_stale: bool,
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
        shipping: Shipping,
        on_exhausted: Option<OnExhausted>,
    ) -> Self {
        let places: BTreeSet<&str> = store.lanes().iter().map(Lane::cluster).collect();
        let places: Vec<String> = places.into_iter().map(Into::into).collect();
        let news = places.iter().map(|cluster| News {
            cluster: cluster.clone(),
            ..News::default()
        });
        let shared = Self {
            news: Mutex::new(news.collect()),
            again: places.iter().map(|_| AtomicBool::new(false)).collect(),
            places,
            store,
            default_topic,
            interceptors,
            events,
            on_exhausted,
            shipping: Mutex::new(Arc::new(shipping.clone())),
            #[cfg(feature = "config")]
            config: Mutex::new(None),
            refuses: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            threads: Threads::default(),
            changed: Condvar::new(),
        };
        shared.ship_by(&mut shared.news.lock(), shipping);
        shared
    }

    /// The same, made of this.
    #[cfg(feature = "config")]
    pub(super) fn configured(self, config: Option<Box<Config>>) -> Self {
        *self.config.lock() = config.map(|config| *config);
        self
    }

    /// How many threads ship.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// How it ships at present.
    pub(super) fn shipping(&self) -> Arc<Shipping> {
        Arc::clone(&self.shipping.lock())
    }

    /// Ships otherwise from now on, as soon as what is in flight has ended. Of two who change something at
    /// once the later one sees the other's change.
    pub(super) fn change(&self, change: impl FnOnce(&mut Shipping)) -> Result<(), ChangeError> {
        let mut news = self.news.lock();
        if !self.takes_records() {
            return Err(ChangeError::Closed);
        }
        let mut shipping = Shipping::clone(&self.shipping());
        change(&mut shipping);
        let lanes = self.store.lanes().iter();
        let orders = lanes.clone().map(|lane| (lane.name(), lane.order()));
        let named = lanes.filter(|lane| lane.is_configured());
        let checked = shipping.check(&self.default_topic, named.map(Lane::cluster), orders);
        checked.map_err(ChangeError::Wrong)?;
        self.ship_by(&mut news, shipping);
        Ok(())
    }

    /// Ships by these settings, which were checked. The news are locked: who ends a pause by this sees them.
    fn ship_by(&self, news: &mut [News], mut shipping: Shipping) {
        if let Some(on_exhausted) = &self.on_exhausted {
            let retry = &mut shipping.delivery.ship_mut().retry;
            retry.on_exhausted = on_exhausted.clone();
        }
        for news in news {
            news.is_given = shipping.clusters.contains_key(&news.cluster);
            news.is_stale = true;
        }
        *self.shipping.lock() = Arc::new(shipping);
        self.raise_all();
    }

    /// Has those that rest between two beats ship what is there: nothing more is taken.
    pub(super) fn hurry(&self) {
        // What is set meanwhile raises them too.
        let news = self.news.lock();
        // A pause after an error is over, too.
        let places = self.again.iter().zip(&*news);
        for (again, _) in places.filter(|(_, news)| news.trouble.is_some()) {
            again.store(true, Ordering::SeqCst);
        }
        self.changed.notify_all();
        if !self.shipping().delivery.ship().interval.is_zero() {
            self.raise_all();
        }
    }

    /// The settings of one cluster, if anybody said where it is, as a producer goes by them: until it is
    /// told to stop, and without a rest once nothing more is taken.
    fn shipping_of(&self, place: usize) -> Option<(Settings, Delivery)> {
        let shipping = self.shipping();
        let cluster = &self.places[place];
        let kafka = shipping.clusters.get(cluster)?.clone();
        let is_given = |name: &&String| shipping.clusters.contains_key(*name);
        let count = self.places.iter().filter(is_given).count();
        let mut delivery = shipping.delivery.of_cluster(cluster, count);
        let options = delivery.ship_mut();
        options.until = Until::Stopped;
        options.timeout = None;
        if !self.takes_records() {
            options.interval = Duration::ZERO;
        }
        Some((kafka, delivery))
    }

    /// Has every thread look at its settings, and at whether it is to end. The news are locked.
    fn raise_all(&self) {
        self.again
            .iter()
            .for_each(|again| again.store(true, Ordering::SeqCst));
        self.changed.notify_all();
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
        self.raise_all();
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
            // Once it was stopped nothing changes any more.
            if answer.is_ok() || self.stop.load(Ordering::SeqCst) {
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

    /// Has all who ask look again.
    pub(super) fn look_again(&self) {
        // Under the lock: who is about to wait has seen what is new, or is woken.
        let _news = self.news.lock();
        self.changed.notify_all();
    }

    fn told(&self, place: usize, progress: &Progress) {
        let mut all = self.news.lock();
        let news = &mut all[place];
        news.progress = Some(progress.clone());
        // One that has tried nothing, and has something to try, is not out of it yet.
        if progress.link_state != LinkState::Unknown || progress.queued == 0 {
            news.trouble = None;
        }
        self.changed.notify_all();
    }

    /// Begins anew at this place, by the settings that are there. False: it is to stop.
    fn begin(&self, place: usize) -> bool {
        let news = &mut self.news.lock()[place];
        // What is changed from here on raises it anew.
        self.again[place].store(false, Ordering::SeqCst);
        if std::mem::take(&mut news.is_stale) {
            (news.progress, news.trouble) = (None, None);
        }
        !self.stop.load(Ordering::SeqCst)
    }

    /// Waits after an error, or until there is something to look at. False: the time was over first.
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
            let is_over = self.again[place].load(Ordering::SeqCst);
            if is_over || self.changed.wait_until(&mut all, deadline).timed_out() {
                return is_over;
            }
        }
    }

    /// Waits until there is something to look at.
    fn rest(&self, place: usize) {
        let mut all = self.news.lock();
        all[place].progress = None;
        all[place].trouble = None;
        while !self.again[place].load(Ordering::SeqCst) {
            self.changed.wait(&mut all);
        }
    }
}

/// Ships to the cluster at this place until told to stop.
pub(super) fn run(shared: &Shared, place: usize) {
    let (store, again) = (&shared.store, &shared.again[place]);
    let mut restarts = Restarts::new();
    while shared.begin(place) {
        let Some((kafka, delivery)) = shared.shipping_of(place) else {
            shared.rest(place);
            continue;
        };
        let began = Instant::now();
        let progress = &mut |progress: &Progress| shared.told(place, progress);
        let ship = AssertUnwindSafe(|| delivery.drain(store, &kafka, again, progress));
        let shipped = panic::catch_unwind(ship);
        if again.load(Ordering::SeqCst) {
            restarts = Restarts::new();
            continue;
        }
        let pause = restarts.pause(began.elapsed());
        if shared.pause(place, restart::told(&shipped), pause) {
            restarts = Restarts::new();
        }
    }
}

/// Brings what is due to its lane until told to stop.
pub(super) fn fire(shared: &Shared) {
    let stop = &shared.stop;
    while !stop.load(Ordering::SeqCst) {
        let firing = AssertUnwindSafe(|| shared.store.fire_until(stop));
        if panic::catch_unwind(firing).is_err() && !stop.load(Ordering::SeqCst) {
            // The panic has been told; the next round says in the status what stands in the way.
            thread::sleep(FIRE_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventOptions;
    use crate::ship::ShipOptions;
    use crate::store::{MAIN_CLUSTER, StoreOptions};

    const HOUR: Duration = Duration::from_secs(3600);

    fn every(interval: Duration) -> Shipping {
        let options = ShipOptions {
            interval,
            ..ShipOptions::default()
        };
        Shipping {
            clusters: [(MAIN_CLUSTER.to_owned(), Settings::new("127.0.0.1:1"))].into(),
            delivery: Delivery::AtLeastOnce(Box::new(options)),
        }
    }

    fn shared(shipping: Shipping) -> (Shared, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), &StoreOptions::default()).unwrap();
        let events = Events::new(EventOptions::default());
        let shared = Shared::new(
            store,
            "".into(),
            Interceptors::default(),
            events,
            shipping,
            None,
        );
        shared.again[0].store(false, Ordering::SeqCst);
        (shared, dir)
    }

    #[test]
    fn who_closes_rests_no_more_and_takes_no_setting_back_whatever_is_set_meanwhile() {
        let set = |shared: &Shared| shared.change(|shipping| *shipping = every(HOUR));
        let before: fn(&Shared) = |_| ();
        let between: fn(&Shared) = |shared| {
            // It had looked whether records are taken before the close.
            shared.ship_by(&mut shared.news.lock(), every(HOUR));
        };
        for (begins_with, meanwhile) in [(HOUR, before), (Duration::ZERO, between)] {
            let (shared, _dir) = shared(every(begins_with));
            let interval = || shared.shipping_of(0).unwrap().1.ship().interval;
            assert_eq!(interval(), begins_with);
            shared.refuse_more();
            meanwhile(&shared);
            shared.hurry();
            assert!(shared.again[0].load(Ordering::SeqCst), "it looks again");
            assert_eq!(interval(), Duration::ZERO);
            assert_eq!(*shared.shipping(), every(HOUR), "and finds what was set");
            let told = set(&shared).unwrap_err();
            assert!(matches!(told, ChangeError::Closed), "{told}");
        }
    }

    #[test]
    fn what_was_told_under_other_settings_is_no_news_of_these() {
        let (shared, _dir) = shared(every(Duration::ZERO));
        let is_well = || shared.news()[0].wrong().is_none();
        let tell = || {
            let told = Progress {
                link_state: LinkState::Up,
                ..Progress::default()
            };
            shared.told(0, &told);
        };
        assert!(shared.begin(0) && !is_well());
        tell();
        assert!(is_well());
        shared.change(|_| ()).unwrap();
        assert!(!is_well());
        // The last word of the one before.
        tell();
        assert!(!is_well());
        assert!(shared.begin(0) && !is_well());
        tell();
        assert!(is_well());
    }

    #[test]
    fn an_error_is_told_until_the_next_try_tells_something_else() {
        let (shared, _dir) = shared(every(Duration::ZERO));
        let tell = |link_state, queued| {
            let told = Progress {
                link_state,
                queued,
                ..Progress::default()
            };
            shared.told(0, &told);
            shared.news()[0].trouble.is_some()
        };
        let ends_it = [
            (LinkState::Unknown, 0),
            (LinkState::Down, 1),
            (LinkState::Up, 1),
        ];
        for (link_state, queued) in ends_it {
            assert!(!shared.pause(0, "an error".into(), Duration::ZERO));
            assert!(tell(LinkState::Unknown, 1), "nothing was tried");
            assert!(!tell(link_state, queued), "{link_state:?}, {queued}");
        }
    }

    #[test]
    fn who_closes_waits_for_no_pause_after_an_error() {
        let (shared, _dir) = shared(every(Duration::ZERO));
        thread::scope(|scope| {
            let paused = scope.spawn(|| shared.pause(0, "an error".into(), HOUR));
            while shared.news()[0].trouble.is_none() {
                thread::yield_now();
            }
            shared.refuse_more();
            shared.hurry();
            assert!(paused.join().unwrap());
        });
    }

    #[test]
    fn of_two_who_change_it_none_undoes_the_other() {
        let (shared, _dir) = shared(every(Duration::ZERO));
        thread::scope(|scope| {
            for name in ["a", "b"] {
                let shared = &shared;
                scope.spawn(move || {
                    for n in 0..50 {
                        let there = Settings::new(format!("127.0.0.1:{}", n + 1));
                        let insert = |shipping: &mut Shipping| {
                            shipping.clusters.insert(format!("{name}{n}"), there);
                        };
                        shared.change(insert).unwrap();
                    }
                });
            }
        });
        assert_eq!(shared.shipping().clusters.len(), 1 + 2 * 50);
    }
}
