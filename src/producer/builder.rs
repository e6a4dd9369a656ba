//! What a producer is opened with.
//!
//! Owns: the settings, their defaults, and refusing wrong ones before anything is touched. Must not
//! know how anything is shipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::events::Events;
use super::intercept::{Draft, Interceptors};
use super::shipping::{self, News, Shared};
use super::{OpenError, Owner, Producer};
use crate::event::EventOptions;
use crate::kafka::Settings;
use crate::message::check_topic;
use crate::ship::exactly_once::{self, ExactlyOnceOptions};
use crate::ship::{Delivery, FailedRecord, OnExhausted, Recovery, ShipOptions, lanes_of};
use crate::store::{DEFAULT_LANE, MAIN_CLUSTER, Store, StoreOptions};

/// What a producer is opened with.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct Builder {
    dir: PathBuf,
    clusters: BTreeMap<String, Settings>,
    store: StoreOptions,
    delivery: Delivery,
    on_exhausted: Option<OnExhausted>,
    default_topic: String,
    interceptors: Interceptors,
    events: EventOptions,
}

impl Builder {
    pub(super) fn new(dir: &Path, kafka: Settings) -> Self {
        Self {
            dir: dir.into(),
            clusters: [(MAIN_CLUSTER.to_owned(), kafka)].into(),
            store: StoreOptions::default(),
            delivery: Delivery::AtLeastOnce(Box::default()),
            on_exhausted: None,
            default_topic: String::new(),
            interceptors: Interceptors::default(),
            events: EventOptions::default(),
        }
    }

    /// The lanes of the store, what goes to which, and how they are kept.
    pub fn store(mut self, options: StoreOptions) -> Self {
        self.store = options;
        self
    }

    /// How it ships: at least once. `until` and `timeout` do not count: a producer ships until it is
    /// closed, and no outage is too long.
    pub fn ship(mut self, options: ShipOptions) -> Self {
        self.delivery = Delivery::AtLeastOnce(Box::new(options));
        self
    }

    /// Ships in transactions: each record once for readers of what is committed. Otherwise as
    /// [`ship`](Self::ship).
    pub fn exactly_once(mut self, options: ExactlyOnceOptions) -> Self {
        self.delivery = Delivery::ExactlyOnce(Box::new(options));
        self
    }

    /// One more cluster, for the lanes, topics and tenants of the store's options that name it. Each cluster
    /// has a thread of its own: what is wrong with one does not hold up the others.
    pub fn cluster(mut self, name: impl Into<String>, kafka: Settings) -> Self {
        self.clusters.insert(name.into(), kafka);
        self
    }

    /// Asks this function what becomes of a record whose attempts are exhausted, or that is refused for what
    /// it is, in place of what [`RetryPolicy::on_exhausted`](crate::ship::RetryPolicy::on_exhausted) says. A
    /// lane, topic or tenant that says something of its own keeps that. It runs on the shipping thread of the record's cluster,
    /// and must not block for long.
    pub fn on_exhausted(
        mut self,
        decide: impl Fn(&FailedRecord<'_>) -> Recovery + Send + Sync + 'static,
    ) -> Self {
        self.on_exhausted = Some(OnExhausted::Callback(Arc::new(decide)));
        self
    }

    /// Where a message goes that names no topic. Without this it is refused.
    pub fn default_topic(mut self, topic: impl Into<String>) -> Self {
        self.default_topic = topic.into();
        self
    }

    /// Who says its events, what they look like, and where they go.
    pub fn events(mut self, options: EventOptions) -> Self {
        self.events = options;
        self
    }

    /// Lets every message through this before it is appended: it may change the message, and refuse it
    /// with a reason. Several are asked in the order in which they are given. It runs on the thread or
    /// task that sends, which waits for it. A panic of it refuses that message and nothing else.
    ///
    /// ```
    /// # use ferrylog::{Producer, kafka::Settings};
    /// let builder = Producer::builder("ferrylog-data", Settings::new("127.0.0.1:9092"))
    ///     .intercept(|message| {
    ///         message.add_header("site", "17");
    ///         match message.key {
    ///             Some(_) => Ok(()),
    ///             None => Err("readings of no device".into()),
    ///         }
    ///     });
    /// ```
    pub fn intercept(
        mut self,
        interceptor: impl Fn(&mut Draft<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.interceptors.push(interceptor);
        self
    }

    /// Opens the store, or makes a new one, and begins to ship. Connects to nothing before it returns:
    /// whether there is a network makes no difference to it.
    ///
    /// # Errors
    ///
    /// [`OpenError::Topic`], [`OpenError::Event`], [`OpenError::Cluster`], [`OpenError::Ship`]: a setting is wrong, and nothing was touched.
    /// [`OpenError::Store`]: as [`Store::open_with`]. [`OpenError::Thread`]: the system gave no thread;
    /// the store is closed again.
    pub fn open(mut self) -> Result<Producer, OpenError> {
        self.check()?;
        if let Some(on_exhausted) = self.on_exhausted.take() {
            self.delivery.ship_mut().retry.on_exhausted = on_exhausted;
        }
        let store = Store::open_with(&self.dir, &self.store).map_err(OpenError::Store)?;
        let is_used = |(name, _): &(String, Settings)| !lanes_of(&store, name).is_empty();
        let used: Vec<_> = self.clusters.clone().into_iter().filter(is_used).collect();
        let names = used.iter().map(|(name, _)| name.clone());
        let news = names.map(News::of).collect();
        let events = Events::new(self.events);
        let topic = self.default_topic.into();
        let shared = Shared::new(store, topic, self.interceptors, events, self.clusters, news);
        let shared = Arc::new(shared);
        let shippers = Mutex::default();
        let owner = Arc::new(Owner { shared, shippers });
        let theirs = Arc::clone(&owner.shared);
        let firing = thread::Builder::new()
            .name("ferrylog-due".into())
            .spawn(move || shipping::fire(&theirs))
            .map_err(OpenError::Thread)?;
        owner.shippers.lock().push(firing);
        let count = used.len();
        for (place, (name, kafka)) in used.into_iter().enumerate() {
            let theirs = Arc::clone(&owner.shared);
            let delivery = self.delivery.of_cluster(&name, count);
            // Where there is no thread, the others end with the owner.
            let shipper = thread::Builder::new()
                .name("ferrylog-ship".into())
                .spawn(move || shipping::run(&theirs, place, &kafka, delivery))
                .map_err(OpenError::Thread)?;
            owner.shippers.lock().push(shipper);
        }
        Ok(Producer { owner })
    }

    /// Everything that is wrong without a look at the disk.
    fn check(&self) -> Result<(), OpenError> {
        if !self.default_topic.is_empty() {
            check_topic(&self.default_topic).map_err(OpenError::Topic)?;
        }
        self.events.check().map_err(OpenError::Event)?;
        for kafka in self.clusters.values() {
            kafka.check().map_err(crate::ship::Error::Kafka)?;
        }
        let named = self.store.clusters();
        let unknown = named
            .into_iter()
            .find(|name| !self.clusters.contains_key(*name));
        if let Some(name) = unknown {
            let name = name.to_owned();
            return Err(OpenError::Cluster { name });
        }
        if let Delivery::ExactlyOnce(_) = &self.delivery {
            exactly_once::check_order(DEFAULT_LANE, self.store.default.order)?;
            for (name, lane) in &self.store.lanes {
                exactly_once::check_order(name, lane.order)?;
            }
        }
        Ok(self.delivery.ship().link.check()?)
    }
}
