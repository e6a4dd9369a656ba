//! Exactly once: from a lane of the log into Kafka, a transaction at a time.
//!
//! - A transaction carries one contiguous span of one log, the lane's own or one of its parking logs,
//!   from the oldest unsettled record on. Each record in it is sent in it, or was settled here before.
//!   Nothing else is open below its end.
//! - With it goes a progress record; what was about to be committed is durable here (the *intent*)
//!   after every record of it was acknowledged and before the commit is asked for.
//! - So a process that ends at any moment leaves at most one transaction in doubt, and one fetch at
//!   an exact place decides it: the progress record is there, or something behind it is.
//!
//! ```text
//! span of the log --> records + progress record --> all acknowledged --> intent, synced --> commit
//!        ^                                                                                   |
//!        +------------------------------ settled <-------------------------------------------+
//! ```
//!
//! Owns the order of these steps. Must not know librdkafka or how the intent is kept. One blocking
//! loop per lane. What it decides stands in pure files beside it: `decide` (what a found progress
//! record means), `pace` (how large a transaction may be), `record` (its bytes).
//!
//! Invariants: a span is settled only by an acknowledged commit, or by its own nonce read back. A
//! producer in whose transaction anything went wrong with the transport carries no second one. What
//! cannot be decided stops the lane; it never guesses.

mod committer;
mod connect;
mod decide;
mod error;
mod exhausted;
mod lanes;
mod letters;
mod pace;
mod partitions;
mod progress;
mod record;
mod resolve;
mod silent;
mod source;
mod span;
mod suspect;
mod transact;
mod undo;
mod verdict;

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use committer::Committer;
pub use error::Halt;

use super::progress::Teller;
use super::{Drained, Error, Profile, Progress, ShipOptions, Until};
use crate::kafka::Settings;
use crate::store::{self, Lane, Order, Store};
use crate::wal::{Class, LogId, SeqNo};

/// Why a lane has no second stream here, and what to have instead of it.
pub(crate) const ONE_STREAM: &str = "a transaction confirms all that is before it in its lane, so none of it may wait; what \
     must arrive first needs a lane of its own";

/// The milliseconds that librdkafka takes for `transaction.timeout.ms`.
const TIMEOUTS: std::ops::RangeInclusive<u128> = 1_000..=i32::MAX as u128;

/// Where the progress is kept that tells whether a transaction was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ProgressIn {
    /// A record in a compacted topic: it stays.
    #[default]
    Topic,
    /// The offsets of a consumer group that is called like the transactional id, under that topic, of
    /// which nothing else is used. One request reads it, whatever other gateways do. Kafka
    /// forgets it after `offsets.retention.minutes` (7 days) without a transaction, and what is in doubt
    /// then is for a person to decide.
    Offsets,
}

/// How to ship exactly once.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExactlyOnceOptions {
    /// What is the same as without transactions. A stop waits for the transaction under way, not
    /// for [`ShipOptions::stop_grace`].
    pub ship: ShipOptions,
    /// What the transactional id begins with; the identity of the log and the lane follow.
    pub transactional_id_prefix: String,
    /// Where the progress is kept. It may be another one in the next run.
    pub progress: ProgressIn,
    /// The compacted topic that keeps the progress records. It is created if it is missing.
    pub progress_topic: String,
    /// Most records in a transaction.
    pub max_records: u64,
    /// Most bytes of keys and values in a transaction; one record may always be in it.
    pub max_bytes: u64,
    /// How long a transaction takes records; then it waits for their acknowledgements. 200 ms if
    /// `None`, 10 s on a link that is metered.
    pub max_time: Option<Duration>,
    /// `transaction.timeout.ms`: how long one may last before the cluster aborts it; 1 s at least.
    pub transaction_timeout: Duration,
}

impl Default for ExactlyOnceOptions {
    fn default() -> ExactlyOnceOptions {
        ExactlyOnceOptions {
            ship: ShipOptions::default(),
            transactional_id_prefix: "ferrylog".to_owned(),
            progress: ProgressIn::default(),
            progress_topic: "ferrylog-progress".to_owned(),
            // A commit costs 18 to 34 ms whatever it holds: then it costs little beside the records.
            max_records: 50_000,
            max_bytes: 16 * 1024 * 1024,
            max_time: None,
            transaction_timeout: Duration::from_secs(30),
        }
    }
}

impl ExactlyOnceOptions {
    /// Whether all of it makes sense together. It is looked at before anything is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] says which one does not.
    pub fn check(&self) -> Result<(), Error> {
        self.ship.check()?;
        if !TIMEOUTS.contains(&self.transaction_timeout.as_millis()) {
            let reason = "must be 1 s to 24 days".to_owned();
            let key = "transaction_timeout";
            return Err(Error::Option { key, reason });
        }
        let key = "max_time";
        self.too_slow()
            .map_or(Ok(()), |reason| Err(Error::Option { key, reason }))
    }

    /// Why a transaction would take records for too long, if it would.
    pub(crate) fn too_slow(&self) -> Option<String> {
        let most = self.transaction_timeout;
        let is_too_slow = self.max_time.is_some_and(|time| time >= most);
        is_too_slow.then(|| format!("must be less than {most:?}, after which the cluster aborts"))
    }

    /// How long a transaction takes records.
    pub(crate) fn max_time(&self) -> Duration {
        // How long a reader waits at most for what was sent, beside the commit itself; where bytes
        // cost money, a transaction's own are to be few beside the records'.
        let by_profile = match self.ship.link.profile {
            Profile::Metered => Duration::from_secs(10),
            _ => Duration::from_millis(200),
        };
        self.max_time.unwrap_or(by_profile)
    }
}

/// What was done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Committed {
    /// Records committed and the like, as without transactions.
    pub drained: Drained,
    /// Transactions committed.
    pub transactions: u64,
    /// Transactions aborted, by us or by the cluster.
    pub aborted: u64,
    /// What a person should know although shipping went on.
    pub alarm: Option<String>,
}

/// Whether a lane of this order can be shipped so.
pub(crate) fn check_order(lane: &str, order: Order) -> Result<(), Error> {
    match order {
        Order::Fifo | Order::Loose => Ok(()),
        Order::LiveFirst => Err(Error::Option {
            key: "order",
            reason: format!(
                "lane `{lane}` cannot be shipped live first in transactions: {ONE_STREAM}"
            ),
        }),
    }
}

/// Ships the lanes of one cluster to it, each record once for readers of what is committed.
///
/// As [`drain_lane`] for each, all at once on threads of their own, within one flight budget, drain
/// rate and quota of what is parked. `progress` is called on this thread.
///
/// # Errors
///
/// As [`drain_lane`], once all lanes have ended: one that fails holds up no other, and says so in
/// [`Progress::why`]. With [`Until::Stopped`] a lane of several that fails, or whose callback panics, begins
/// again after a pause of 1 s, doubled up to 60 s, and says so in [`Progress::trouble`]; what it counts
/// begins anew, and its error is told here if it is still in one when it is stopped. [`Error::Option`] is
/// told before anything is sent.
pub fn drain(
    store: &Store,
    kafka: &Settings,
    options: &ExactlyOnceOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Committed, Error> {
    options.check()?;
    for lane in super::lanes_of(store, &options.ship.cluster) {
        check_order(lane.name(), lane.order())?;
    }
    let mut progress = Teller::new(store, &options.ship.cluster).before(progress);
    lanes::drain(store, kafka, options, stop, &mut progress)
}

/// Ships one lane and its parking logs; otherwise as [`drain`].
///
/// Looks up first what became of the last transaction of the run before. `stop` ends it after the
/// transaction under way. `progress` is called a few times a second.
///
/// # Errors
///
/// [`Error`] says whose turn it is; [`Error::ExactlyOnce`] what only a person can decide;
/// [`Error::Option`] that the lane is to be shipped [`Order::LiveFirst`], which it cannot be. Nothing is
/// lost and nothing sent twice: the next run goes on from there.
pub fn drain_lane(
    store: &Store,
    lane: &Lane,
    kafka: &Settings,
    options: &ExactlyOnceOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Committed, Error> {
    options.check()?;
    check_order(lane.name(), lane.order())?;
    let shared = lanes::Shared::new(options);
    Committer::new(store, lane, kafka, options, &shared, stop, progress)?.run()
}

/// Makes a lane another gateway by hand: its store is a copy of one that lives on. It ships under the
/// identity that this gives from now on, and what was in doubt is sent again; not so the dead letters that
/// are known to be committed.
///
/// # Errors
///
/// [`store::Error`]: it has its identity still; call it again.
pub fn renew_identity(store: &Store, lane: &Lane) -> Result<LogId, store::Error> {
    let mut intents = lane.intents()?;
    letters::settle_owed(store, &mut intents)?;
    intents.renew_identity()
}

/// What a transaction carried that was decided by hand.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Decided {
    /// The numbers of its records, or the range that those of its dead letters are in.
    pub numbers: Range<SeqNo>,
    /// Whether it carried dead letters.
    pub are_letters: bool,
}

/// Decides by hand whether the last transaction was sent; `None` if none is in doubt.
///
/// # Errors
///
/// [`store::Error`]: nothing is decided, or it is and not durable yet; call it again.
pub fn decide_by_hand(
    store: &Store,
    lane: &Lane,
    is_sent: bool,
) -> Result<Option<Decided>, store::Error> {
    let mut intents = lane.intents()?;
    let Some(intent) = intents.intent().cloned() else {
        return Ok(None);
    };
    if let Some(sent) = &intent.letters {
        let decided = letters::decide_by_hand(store, &mut intents, intent.log, sent, is_sent)?;
        return Ok(decided.map(|numbers| Decided {
            numbers,
            are_letters: true,
        }));
    }
    let Some(stream) = source::stream_of(store, lane, intent.log) else {
        return Ok(None);
    };
    let acked = stream.marks().acked;
    if intent.is_aborted || acked >= intent.span.end {
        return Ok(None);
    }
    // All before the span is confirmed by the intent itself.
    let end = if is_sent {
        intent.span.end
    } else {
        intent.span.start.max(acked)
    };
    stream.settle(acked..end, Class::Shipped);
    stream.save_cursor()?;
    if !is_sent {
        intents.note_aborted(true)?;
    }
    Ok(Some(Decided {
        numbers: intent.span,
        are_letters: false,
    }))
}
