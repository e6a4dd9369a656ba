//! A producer from a configuration, and other settings while it runs.
//!
//! Owns which settings can be changed without opening it anew. Must not know how anything is shipped, nor
//! what the keys of a configuration mean.
//!
//! Invariants: what is refused is refused whole, and the settings before it go on (D11); no change touches
//! what the store holds.

use super::{ChangeError, Producer, Shipping};

impl Producer {
    /// Where it ships, and how, at present: to be changed and handed to
    /// [`set_shipping`](Self::set_shipping).
    #[must_use]
    pub fn shipping(&self) -> Shipping {
        Shipping::clone(&self.shared().shipping())
    }

    /// Ships to other clusters, or in another way, from now on, for all clones: addresses and secrets,
    /// the link, rates and hours, policies, at least or exactly once.
    ///
    /// Returns at once. Each cluster's thread first ends what is in flight, for
    /// [`ShipOptions::stop_grace`](crate::ship::ShipOptions::stop_grace), or the transaction under way, and goes on with what is
    /// next: nothing is lost, receipts stay valid, and what was not acknowledged by then is sent again with the
    /// same `ferry-id`. The function of [`Builder::on_exhausted`](super::Builder::on_exhausted) stays.
    ///
    /// ```no_run
    /// # let producer = ferrylog::Producer::open("ferrylog-data", "127.0.0.1:9092")?;
    /// let mut shipping = producer.shipping();
    /// shipping.delivery.ship_mut().drain_rate = std::num::NonZeroU64::new(64 * 1024);
    /// producer.set_shipping(shipping)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ChangeError`]: nothing was changed.
    pub fn set_shipping(&self, shipping: Shipping) -> Result<(), ChangeError> {
        self.shared().change(|current| *current = shipping)
    }
}

#[cfg(feature = "config")]
mod configured {
    use std::path::Path;

    use super::super::{Builder, ChangeError, OpenError, Producer, Shipping};
    use crate::config::{self, Config, Environment};

    impl Producer {
        /// Opens all that a configuration file says, with the environment on top: the store with its lanes and
        /// tenants, its clusters and how records get there, what its events look like. Connects to nothing
        /// before it returns.
        ///
        /// ```no_run
        /// let producer = ferrylog::Producer::from_config("ferrylog.toml")?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        ///
        /// # Errors
        ///
        /// [`OpenError::Configuration`] with all that is wrong, or as [`Builder::open`].
        pub fn from_config(file: impl AsRef<Path>) -> Result<Self, OpenError> {
            let environment = Environment::of_process();
            let loaded = config::load(Some(file.as_ref()), &environment, &[]);
            let loaded = loaded.map_err(OpenError::Configuration)?;
            Builder::from_config(&loaded.config)?.open()
        }

        /// Goes by another configuration from now on, for all clones, as [`set_shipping`](Self::set_shipping) and
        /// [`set_routes`](Self::set_routes) would.
        ///
        /// What the program set itself, in the [`Builder`] or since, stays where this configuration says the same as
        /// the one before. What counts as one there is each cluster's [`Settings`](crate::kafka::Settings), the
        /// [`delivery`](Shipping::delivery), and the routes: a single key that is new in it replaces all of it, so a
        /// new `shipping.drain_rate` takes back an [`exactly_once`](Builder::exactly_once) that the file does not say.
        /// Files that librdkafka itself reads, such as certificates, are not looked into: `set_shipping` with what
        /// [`shipping`](Self::shipping) says has them read again.
        ///
        /// # Errors
        ///
        /// [`ChangeError`]: nothing was changed. [`ChangeError::Reopen`] names the keys that differ and are only
        /// looked at when a store is opened.
        pub fn set_config(&self, config: &Config) -> Result<(), ChangeError> {
            let mut current = self.shared().config.lock();
            let before = current.as_ref().ok_or(ChangeError::NotConfigured)?;
            let keys = before.reopening(config);
            if !keys.is_empty() {
                return Err(ChangeError::Reopen { keys });
            }
            let [said, says] = [before, config].map(Shipping::of);
            let (said, says) = (
                said.map_err(ChangeError::Wrong)?,
                says.map_err(ChangeError::Wrong)?,
            );
            if says == said {
                self.check_open().map_err(|_| ChangeError::Closed)?;
            } else {
                self.shared()
                    .change(|shipping| shipping.follow(&said, says))?;
            }
            let routes = config.event_routes();
            if routes != before.event_routes() {
                self.set_routes(routes);
            }
            *current = Some(config.clone());
            Ok(())
        }
    }

    impl Builder {
        /// As a configuration says; what is set behind this counts instead. Of the lanes, tenants, clusters and
        /// policies in it all is taken over, of the events their source, version, format and routes.
        ///
        /// # Errors
        ///
        /// [`OpenError::Configuration`]: it names no bootstrap servers.
        pub fn from_config(config: &Config) -> Result<Self, OpenError> {
            let shipping = Shipping::of(config)?;
            let mut builder = Self::shipping_by(&config.store.dir, shipping)
                .store(config.store_options())
                .events(config.event_options())
                .default_topic(config.kafka.default_topic.clone().unwrap_or_default());
            builder.config = Some(Box::new(config.clone()));
            Ok(builder)
        }
    }

    impl Shipping {
        /// As a configuration says, whose routes are right, too.
        fn of(config: &Config) -> Result<Self, OpenError> {
            let routes = config.check_routes();
            routes.map_err(OpenError::Configuration)?;
            let clusters = config.clusters();
            let missing = || config::Error::missing("kafka.bootstrap_servers");
            Ok(Self {
                clusters: clusters.ok_or_else(|| OpenError::Configuration(missing()))?,
                delivery: config.delivery(),
            })
        }

        /// Takes over what a configuration says otherwise than the one before it.
        fn follow(&mut self, said: &Self, says: Self) {
            self.clusters.retain(|name, _| {
                says.clusters.contains_key(name) || !said.clusters.contains_key(name)
            });
            for (name, kafka) in says.clusters {
                if said.clusters.get(&name) != Some(&kafka) {
                    self.clusters.insert(name, kafka);
                }
            }
            if says.delivery != said.delivery {
                self.delivery = says.delivery;
            }
        }
    }
}
