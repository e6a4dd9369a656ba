//! What a producer is opened with.
//!
//! Owns: the settings, their defaults, and refusing wrong ones before anything is touched. Must not
//! know how anything is shipped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::events::Events;
use super::intercept::{Draft, Interceptors};
use super::shipping::{self, Shared};
use super::{OpenError, Owner, Producer};
use crate::event::EventOptions;
use crate::kafka::Settings;
use crate::message::check_topic;
use crate::ship::ShipOptions;
use crate::ship::exactly_once::ExactlyOnceOptions;
use crate::store::{Store, StoreOptions};

/// What a producer is opened with.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct Builder {
    dir: PathBuf,
    kafka: Settings,
    store: StoreOptions,
    delivery: Delivery,
    default_topic: String,
    interceptors: Interceptors,
    events: EventOptions,
}

/// How it ships.
#[derive(Clone, Debug)]
pub(super) enum Delivery {
    AtLeastOnce(Box<ShipOptions>),
    ExactlyOnce(Box<ExactlyOnceOptions>),
}

impl Delivery {
    fn ship(&self) -> &ShipOptions {
        match self {
            Self::AtLeastOnce(options) => options,
            Self::ExactlyOnce(options) => &options.ship,
        }
    }
}

impl Builder {
    pub(super) fn new(dir: &Path, kafka: Settings) -> Self {
        Self {
            dir: dir.into(),
            kafka,
            store: StoreOptions::default(),
            delivery: Delivery::AtLeastOnce(Box::default()),
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
    /// [`OpenError::Topic`], [`OpenError::Event`], [`OpenError::Ship`]: a setting is wrong, and nothing was touched.
    /// [`OpenError::Store`]: as [`Store::open_with`]. [`OpenError::Thread`]: the system gave no thread;
    /// the store is closed again.
    pub fn open(self) -> Result<Producer, OpenError> {
        if !self.default_topic.is_empty() {
            check_topic(&self.default_topic).map_err(OpenError::Topic)?;
        }
        self.events.check().map_err(OpenError::Event)?;
        self.kafka.check().map_err(crate::ship::Error::Kafka)?;
        self.delivery.ship().link.check()?;
        let store = Store::open_with(&self.dir, &self.store).map_err(OpenError::Store)?;
        let events = Events::new(self.events);
        let shared = Shared::new(store, self.default_topic.into(), self.interceptors, events);
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let (kafka, delivery) = (self.kafka, self.delivery);
        let shipper = thread::Builder::new()
            .name("ferrylog-ship".into())
            .spawn(move || shipping::run(&theirs, &kafka, delivery))
            .map_err(OpenError::Thread)?;
        let shipper = Mutex::new(Some(shipper));
        let owner = Arc::new(Owner { shared, shipper });
        Ok(Producer { owner })
    }
}
