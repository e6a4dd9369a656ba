//! What a producer is opened with.
//!
//! Owns: the settings, their defaults, and refusing wrong ones before anything is touched. Must not
//! know how anything is shipped.

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::events::Events;
use super::intercept::{Draft, Interceptors};
use super::shipping::{self, Shared, Shipping};
use super::{OpenError, Owner, Producer};
#[cfg(feature = "config")]
use crate::config::Config;
use crate::event::EventOptions;
use crate::kafka::Settings;
use crate::message::check_topic;
use crate::ship::exactly_once::ExactlyOnceOptions;
use crate::ship::{Delivery, FailedRecord, OnExhausted, Recovery, ShipOptions};
use crate::store::{DEFAULT_LANE, MAIN_CLUSTER, Store, StoreOptions};

/// What a producer is opened with.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct Builder {
    dir: PathBuf,
    store: StoreOptions,
    shipping: Shipping,
    on_exhausted: Option<OnExhausted>,
    default_topic: String,
    interceptors: Interceptors,
    events: EventOptions,
    /// What all of it was made of, if it was.
    #[cfg(feature = "config")]
    pub(super) config: Option<Box<Config>>,
}

impl Builder {
    pub(super) fn new(dir: &Path, kafka: Settings) -> Self {
        let shipping = Shipping {
            clusters: [(MAIN_CLUSTER.to_owned(), kafka)].into(),
            delivery: Delivery::AtLeastOnce(Box::default()),
        };
        Self::shipping_by(dir, shipping)
    }

    pub(super) fn shipping_by(dir: &Path, shipping: Shipping) -> Self {
        Self {
            dir: dir.into(),
            store: StoreOptions::default(),
            shipping,
            on_exhausted: None,
            default_topic: String::new(),
            interceptors: Interceptors::default(),
            events: EventOptions::default(),
            #[cfg(feature = "config")]
            config: None,
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
        self.shipping.delivery = Delivery::AtLeastOnce(Box::new(options));
        self
    }

    /// Ships in transactions: each record once for readers of what is committed. Otherwise as
    /// [`ship`](Self::ship).
    pub fn exactly_once(mut self, options: ExactlyOnceOptions) -> Self {
        self.shipping.delivery = Delivery::ExactlyOnce(Box::new(options));
        self
    }

    /// One more cluster, for the lanes, topics and tenants of the store's options that name it. Each cluster
    /// has a thread of its own: what is wrong with one does not hold up the others.
    pub fn cluster(mut self, name: impl Into<String>, kafka: Settings) -> Self {
        self.shipping.clusters.insert(name.into(), kafka);
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
    pub fn open(self) -> Result<Producer, OpenError> {
        self.check()?;
        let store = Store::open_with(&self.dir, &self.store).map_err(OpenError::Store)?;
        let shared = Shared::new(
            store,
            self.default_topic.into(),
            self.interceptors,
            Events::new(self.events),
            self.shipping,
            self.on_exhausted,
        );
        #[cfg(feature = "config")]
        let shared = shared.configured(self.config);
        let shared = Arc::new(shared);
        let owner = Arc::new(Owner { shared });
        // Where there is no thread, the others end with the owner.
        let firing = owner.shared.start("ferrylog-due", shipping::fire);
        firing.map_err(OpenError::Thread)?;
        for place in 0..owner.shared.places() {
            let run = move |shared: &Shared| shipping::run(shared, place);
            let shipper = owner.shared.start("ferrylog-ship", run);
            shipper.map_err(OpenError::Thread)?;
        }
        Ok(Producer { owner })
    }

    /// Everything that is wrong without a look at the disk.
    fn check(&self) -> Result<(), OpenError> {
        if !self.default_topic.is_empty() {
            check_topic(&self.default_topic).map_err(OpenError::Topic)?;
        }
        self.events.check().map_err(OpenError::Event)?;
        let default = (DEFAULT_LANE, self.store.default.order);
        let lanes = self.store.lanes.iter();
        let lanes = lanes.map(|(name, lane)| (name.as_str(), lane.order));
        self.shipping.check(
            &self.default_topic,
            self.store.clusters(),
            iter::once(default).chain(lanes),
        )
    }
}
