//! Shipping: from a lane of the log into Kafka. This loop is the delivery promise.
//!
//! - A record leaves the log only when every in-sync replica acknowledged it. No outage is too
//!   long, and no error of Kafka or librdkafka is final for what waits: a spent producer is
//!   replaced, a refusal ends the run and keeps the record.
//! - The first copies of a partition's records arrive in the order of their numbers, over retries,
//!   reconnects and restarts. A copy that is sent twice repeats a run of records and carries the
//!   same `ferry-id`.
//! - Only what is on disk is read, so Kafka never has what a power loss could take from us.
//!
//! ```text
//! lane reader --> partition --> budget --> sink --reports--> flight --> lane.settle --> cursor
//! ```
//!
//! Owns the order of these steps. Must not know librdkafka (that is behind [`Sink`]) or how a log
//! keeps its bytes. It blocks on the caller's thread; what it decides stands in pure files beside
//! it, with time and randomness passed in.
//!
//! Invariants: records are handed over in the order of their numbers; a record is settled by its
//! own report and nothing else; what is in doubt when a producer is replaced is sent again, from
//! the oldest unsettled record on.

#[allow(dead_code, reason = "what meets a refusal follows")]
mod bisect;
mod budget;
mod error;
mod link;
mod partition;
#[allow(dead_code, reason = "what meets a refusal follows")]
mod retry;
mod settle;
#[doc(hidden)]
pub mod share;
mod shipper;
mod sink;
mod tend;
mod topics;

use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use error::Error;
pub use link::{
    Backoff, BadWindow, Block, DrainWindow, Ladder, LinkOptions, LinkState, Profile, RungState,
};
pub use retry::{FailedRecord, OnExhausted, OnPoison, Recovery, Replacement, RetryPolicy};
pub use sink::{KafkaSink, Sink};

use crate::kafka::Settings;
use crate::store::Lane;
use crate::wal::Gap;

/// The header that carries a record's identity: the log's id, `-`, its number.
pub const ID_HEADER: &str = "ferry-id";

/// When shipping is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When the lane is empty.
    Empty,
    /// Only when told to stop.
    Stopped,
}

/// How to ship.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShipOptions {
    /// When it is done.
    pub until: Until,
    /// Gives up after this long without an acknowledgement while something waits, counted anew when
    /// the link comes up; never, if `None`.
    pub timeout: Option<Duration>,
    /// Whether each record gets the header [`ID_HEADER`], by which consumers can drop duplicates.
    pub id_header: bool,
    /// Memory that records in flight may take.
    pub max_in_flight_bytes: u64,
    /// How the link is watched, and when a lost one is tried again.
    pub link: LinkOptions,
    /// The most bytes of keys and values that are handed over in a second, before compression; no
    /// limit, if `None`.
    pub drain_rate: Option<NonZeroU64>,
    /// The hours of the day in which records are shipped.
    pub drain_window: DrainWindow,
    /// How long a stop waits for what is in flight. The rest is sent again by the next run.
    pub stop_grace: Duration,
}

impl Default for ShipOptions {
    fn default() -> ShipOptions {
        ShipOptions {
            until: Until::Empty,
            // Longer than a broker's restart, shorter than a person's patience.
            timeout: Some(Duration::from_secs(60)),
            id_header: true,
            // 100,000 records of 256 bytes: seconds of work for a fast link.
            max_in_flight_bytes: 64 * 1024 * 1024,
            link: LinkOptions::default(),
            drain_rate: None,
            drain_window: DrainWindow::default(),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// How far shipping is; handed to the caller a few times a second, and at once when something was lost.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Records acknowledged since the start.
    pub shipped: u64,
    /// Bytes of their keys and values.
    pub shipped_bytes: u64,
    /// Records in the lane without an outcome.
    pub queued: u64,
    /// Records handed over and not acknowledged.
    pub in_flight: usize,
    /// Records acknowledged per second since the last call.
    pub records_per_second: u64,
    /// The state of the link.
    pub link_state: LinkState,
    /// The state of the link in one sentence, with since when and why.
    pub link: String,
    /// How often the state of the link changed; tries that change nothing do not count.
    pub link_changes: u64,
    /// How often a link that was not up was tried.
    pub link_tries: u64,
    /// What each rung of the probe said last.
    pub ladder: Ladder,
    /// What could not be read any more since the last call: given up, settled as lost.
    pub lost: Vec<Gap>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Records acknowledged.
    pub shipped: u64,
    /// Bytes of their keys and values.
    pub shipped_bytes: u64,
    /// How often the producer was replaced.
    pub rebuilds: u32,
    /// Whether the lane was empty at the end; if not, it was told to stop.
    pub is_empty: bool,
    /// How long it took.
    pub elapsed: Duration,
}

/// Ships a lane to Kafka on this thread.
///
/// Resumes at the lane's cursor and saves it at the end. `stop` ends it early: what is in flight
/// is finished for [`ShipOptions::stop_grace`]. `progress` is called a few times a second.
///
/// # Errors
///
/// [`Error`] says whose turn it is. Nothing is lost: the next run goes on from there.
pub fn drain(
    lane: &Lane,
    kafka: &Settings,
    options: &ShipOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Drained, Error> {
    let mut sink = KafkaSink::new(kafka.clone())?;
    drain_into(lane, &mut sink, options, stop, progress)
}

/// Ships a lane into any sink; otherwise as [`drain`].
///
/// # Errors
///
/// As [`drain`].
pub fn drain_into<S: Sink>(
    lane: &Lane,
    sink: &mut S,
    options: &ShipOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Drained, Error> {
    options.link.check()?;
    shipper::Shipper::new(lane, sink, options, stop, progress).run()
}
