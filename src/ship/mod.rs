//! Shipping: from the lanes of a store into Kafka. This loop is the delivery promise.
//!
//! - A record leaves the log only when every in-sync replica acknowledged it. No outage is too
//!   long, and no error of Kafka or librdkafka is final for what waits: a spent producer is
//!   replaced, a partition that takes nothing is held and then parked, and a record that is refused
//!   for itself goes to the dead letters.
//! - The first copies of a partition's records arrive in the order of their numbers, over retries,
//!   reconnects and restarts. A copy that is sent twice repeats a run of records and carries the
//!   same `ferry-id`.
//! - Only what is on disk is read, so Kafka never has what a power loss could take from us.
//!
//! ```text
//! readers --> place: partition, hold, budget --> sink --reports--> flight --> settle --> cursor
//!                 |                                  |
//!                 +-- parking log <-- care <-------- judge --> dead letters --> letters --> sink
//! ```
//!
//! Owns the order of these steps. Must not know librdkafka (that is behind [`Sink`]) or how a log
//! keeps its bytes. It blocks on the caller's thread; what it decides stands in pure files beside
//! it, with time and randomness passed in.
//!
//! Invariants: the records of a partition are handed over in the order of their numbers in each
//! log; a record that was handed over is settled by its own report and nothing else; what is in doubt when a producer is replaced is sent again, from
//! the oldest unsettled record on.

mod bisect;
mod budget;
mod care;
mod clusters;
mod collect;
mod content;
mod crew;
pub mod dead_letter;
mod error;
pub mod exactly_once;
mod health;
mod hold;
mod judge;
mod letters;
mod link;
mod overrides;
mod partition;
mod place;
mod progress;
mod restamp;
pub(crate) mod restart;
mod retry;
mod settle;
#[doc(hidden)]
pub mod share;
mod shipper;
mod sink;
mod slow;
mod source;
mod storm;
mod stranded;
mod streams;
mod suspect;
mod tend;
mod topics;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub(crate) use crew::principal;

pub use clusters::{Delivery, Ended, drain_all, lanes_of, lanes_of_none};
pub use dead_letter::DeadLetterShipping;
pub use error::Error;
pub use hold::HoldReason;
pub use link::{
    Backoff, BadWindow, Block, DrainWindow, Ladder, LinkOptions, LinkState, Profile, RungState,
};
pub use overrides::{RetryOverride, RetryOverrides};
pub use progress::{Counters, Drained, Held, Histogram, Lost, Progress};
pub use retry::{FailedRecord, OnExhausted, OnPoison, Recovery, Replacement, RetryPolicy};
pub use sink::{KafkaSink, Sink};

use progress::Teller;

use crate::kafka::{SOCKET_TIMEOUT_MAX, Settings};
use crate::store::{Lane, MAIN_CLUSTER, Store};

/// What is done about a record whose timestamp Kafka refuses: Kafka 4 takes none that is more than
/// an hour ahead (`message.timestamp.after.max.ms`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnBadTimestamp {
    /// It is sent with another one, and its own in the header [`TIME`](crate::message::header::TIME).
    #[default]
    Restamp,
    /// It goes to the dead letters.
    DeadLetter,
}

/// What is done about a record that does not cross the link in [`ShipOptions::too_slow_after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnTooSlow {
    /// Its partition is held in front of it; it is tried once an hour.
    #[default]
    Hold,
    /// It goes to the dead letters, and its partition goes on.
    DeadLetter,
}

/// When shipping is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// When the lane is empty.
    Empty,
    /// Only when told to stop.
    Stopped,
}

/// How to ship.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ShipOptions {
    /// The cluster whose lanes are shipped: those whose name says so. All others are left alone.
    pub cluster: String,
    /// When it is done.
    pub until: Until,
    /// Gives up after this long without an acknowledgement while something waits, counted anew when
    /// the link comes up; never, if `None`.
    pub timeout: Option<Duration>,
    /// Whether each record gets the header [`ID`](crate::message::header::ID), by which consumers can drop duplicates.
    pub id_header: bool,
    /// Memory that records in flight may take.
    pub max_in_flight_bytes: u64,
    /// How the link is watched, and when a lost one is tried again.
    pub link: LinkOptions,
    /// The same of other clusters than [`MAIN_CLUSTER`], by name. One that is not named here is watched as
    /// [`link`](Self::link) says, at its bootstrap servers.
    pub links: BTreeMap<String, LinkOptions>,
    /// Once so long everything on disk is shipped, and nothing between: for a link that costs by the
    /// connection, or a radio that may sleep. Always, if zero; not looked at where shipping ends when all
    /// is shipped ([`Until::Empty`]).
    pub interval: Duration,
    /// The most bytes of keys and values that are handed over in a second, before compression; no
    /// limit, if `None`.
    pub drain_rate: Option<NonZeroU64>,
    /// The hours of the day in which records are shipped.
    pub drain_window: DrainWindow,
    /// What is done about records that Kafka refuses.
    pub retry: RetryPolicy,
    /// Whose records have another policy.
    pub retry_overrides: RetryOverrides,
    /// What of the dead letters goes to Kafka.
    pub dead_letters: DeadLetterShipping,
    /// What is done about a record whose timestamp Kafka refuses.
    pub on_bad_timestamp: OnBadTimestamp,
    /// What is done about a record that is too big for the link.
    pub on_too_slow: OnTooSlow,
    /// How long a record may take to cross the link, alone; at most 300 s, librdkafka's longest wait for
    /// an answer. What needs longer than `socket.timeout.ms` is given this time.
    pub too_slow_after: Duration,
    /// How long a partition is held before its records are moved to a parking log, so that its
    /// lane goes on without it.
    pub park_after: Duration,
    /// Most bytes of records that wait in parking logs.
    pub parked_quota: u64,
    /// How long a stop waits for what is in flight. The rest is sent again by the next run.
    pub stop_grace: Duration,
}

impl Default for ShipOptions {
    fn default() -> ShipOptions {
        ShipOptions {
            cluster: MAIN_CLUSTER.into(),
            until: Until::Empty,
            // Longer than a broker's restart, shorter than a person's patience.
            timeout: Some(Duration::from_secs(60)),
            id_header: true,
            // 100,000 records of 256 bytes: seconds of work for a fast link.
            max_in_flight_bytes: 64 * 1024 * 1024,
            link: LinkOptions::default(),
            links: BTreeMap::new(),
            interval: Duration::ZERO,
            drain_rate: None,
            drain_window: DrainWindow::default(),
            retry: RetryPolicy::default(),
            retry_overrides: RetryOverrides::default(),
            dead_letters: DeadLetterShipping::default(),
            on_bad_timestamp: OnBadTimestamp::default(),
            on_too_slow: OnTooSlow::default(),
            too_slow_after: SOCKET_TIMEOUT_MAX,
            // Longer than an election of a leader.
            park_after: Duration::from_secs(30),
            parked_quota: 4 * 1024 * 1024 * 1024,
            stop_grace: Duration::from_secs(5),
        }
    }
}

impl ShipOptions {
    /// Looks whether the values make sense. Nothing is connected to.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] with the key and what is wrong with its value.
    pub fn check(&self) -> Result<(), Error> {
        self.link.check()?;
        for (cluster, link) in &self.links {
            link.check().map_err(|error| match error {
                Error::Option { key, reason } => Error::Option {
                    key,
                    reason: format!("of the cluster {cluster}: {reason}"),
                },
                error => error,
            })?;
        }
        Ok(())
    }

    /// When to hand over, as of now.
    fn pulse(&self, now: Instant) -> link::Pulse {
        let interval = match self.until {
            Until::Empty => Duration::ZERO,
            Until::Stopped => self.interval,
        };
        link::Pulse::new(interval, now)
    }
}

/// Ships the lanes of one cluster ([`ShipOptions::cluster`]) to it, on this thread. [`drain_all`] ships to
/// several.
///
/// Resumes at the lanes' cursors and saves them at the end. `stop` ends it early: what is in flight
/// is finished for [`ShipOptions::stop_grace`]. `progress` is called a few times a second.
///
/// # Errors
///
/// [`Error`] says whose turn it is; [`Error::Option`] also where no lane belongs to the cluster. Nothing is
/// lost: the next run goes on from there.
pub fn drain(
    store: &Store,
    kafka: &Settings,
    options: &ShipOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Drained, Error> {
    let mut sink = KafkaSink::new(kafka.clone())?;
    drain_into(store, &mut sink, options, stop, progress)
}

/// Ships a store's lanes into any sink; otherwise as [`drain`].
///
/// # Errors
///
/// As [`drain`].
pub fn drain_into<S: Sink>(
    store: &Store,
    sink: &mut S,
    options: &ShipOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Drained, Error> {
    options.check()?;
    let lanes = some_lanes_of(store, &options.cluster)?;
    let mut progress = Teller::new(store, &options.cluster).before(progress);
    shipper::Shipper::new(store, lanes, sink, options, stop, &mut progress).run()
}

/// The lanes of a cluster, of which there must be one.
fn some_lanes_of<'a>(store: &'a Store, cluster: &str) -> Result<Vec<&'a Lane>, Error> {
    let lanes = lanes_of(store, cluster);
    if lanes.is_empty() {
        return Err(Error::Option {
            key: "cluster",
            reason: format!("no lane of the store belongs to `{cluster}`"),
        });
    }
    Ok(lanes)
}
