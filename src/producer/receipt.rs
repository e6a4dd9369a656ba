//! Receipts: where records stand that were sent.
//!
//! Owns: what can be asked about them, and the two ways to wait for an answer. Must not know how
//! records come to disk or to Kafka.
//!
//! Invariant: a receipt is numbers and a reference to the store. Nothing is kept for it elsewhere, so
//! dropping it takes nothing back, and asking late is answered as well.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, Range};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::block::block_on;
use super::shipping::Shared;
use super::{NotDelivered, NotDurable};
use crate::store::{Lane, Settlement};
use crate::wal::{Acknowledged, Class, Durability, SeqNo, Ticket};

/// One or more records that were sent together.
///
/// It borrows its producer, so that who asks nothing pays nothing;
/// [`into_owned`](Self::into_owned) makes one to keep, or to hand to another task.
#[derive(Clone)]
#[must_use = "that a record is on disk is known only when its receipt was asked"]
pub struct Receipt<'a> {
    pub(super) origin: Origin<'a>,
    /// Its place in the store.
    pub(super) lane: usize,
    /// They were due later: their numbers are the schedule's.
    pub(super) is_scheduled: bool,
    pub(super) first: SeqNo,
    /// How many they are. Beside the first one its end would be copied with it as one word of 16 bytes, and wait
    /// for every store before it.
    pub(super) count: u64,
}

/// Whose records they are.
#[derive(Clone)]
pub(super) enum Origin<'a> {
    Borrowed(&'a Arc<Shared>),
    Counted(Counted),
}

/// A count that is dropped as a value. Dropped in its place it would be copied before, and the receipt that
/// it may be in: whoever asks nothing of his would wait for every store before that.
#[derive(Clone)]
pub(super) struct Counted(Option<Arc<Shared>>);

impl Deref for Origin<'_> {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Arc<Shared> {
        match self {
            Origin::Borrowed(shared) => shared,
            Origin::Counted(Counted(Some(shared))) => shared,
            Origin::Counted(Counted(None)) => unreachable!("it is dropped"),
        }
    }
}

impl Drop for Counted {
    #[inline]
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            uncount(shared);
        }
    }
}

#[cold]
fn uncount(shared: Arc<Shared>) {
    drop(shared);
}

/// What became of a record in the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Kafka has it: all in-sync replicas acknowledged it.
    Shipped,
    /// It was refused for good and stands in the dead letters, on disk, until somebody decides about it.
    DeadLettered,
    /// It grew too old, as its expiry or its lane's says.
    Expired,
    /// It was given up, for space or by the retry policy, as the options say.
    Dropped,
    /// The disk does not give it any more.
    Lost,
    /// It is settled, and nobody knows how any more: so many records were settled as something else
    /// than shipped since then that the oldest were forgotten. The totals have counted it.
    Unknown,
}

impl Outcome {
    /// Whether Kafka has it.
    #[must_use]
    pub fn is_shipped(self) -> bool {
        self == Self::Shipped
    }
}

impl From<Class> for Outcome {
    fn from(class: Class) -> Self {
        match class {
            Class::Shipped => Self::Shipped,
            Class::DeadLettered => Self::DeadLettered,
            Class::Expired => Self::Expired,
            Class::Dropped => Self::Dropped,
            Class::Lost => Self::Lost,
            Class::Moved | Class::Void | Class::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shipped => "shipped",
            Self::DeadLettered => "dead-lettered",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        })
    }
}

impl Receipt<'_> {
    /// The same, bound to nothing: it can be asked when its producer is closed and dropped, too. It keeps
    /// three open files of a closed store for that; another producer may have the directory.
    ///
    /// ```no_run
    /// use ferrylog::{MessageRef, Producer, Receipt};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let producer = Producer::open("ferrylog-data", "127.0.0.1:9092")?;
    /// let receipt: Receipt<'static> = producer.send(&MessageRef::to("temps"))?.into_owned();
    /// let waiting = std::thread::spawn(move || receipt.delivered().wait());
    /// producer.close(std::time::Duration::from_secs(10))?;
    /// println!("{:?}", waiting.join());
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_owned(self) -> Receipt<'static> {
        Receipt {
            origin: Origin::Counted(Counted(Some(Arc::clone(&self.origin)))),
            lane: self.lane,
            is_scheduled: self.is_scheduled,
            first: self.first,
            count: self.count,
        }
    }

    /// The lane they were appended to, or will be when they are due.
    #[must_use]
    pub fn lane(&self) -> &str {
        self.at().name()
    }

    /// Their numbers in that lane; of what was due later, in the schedule log.
    #[must_use]
    pub fn range(&self) -> Range<SeqNo> {
        self.first..self.first + self.count
    }

    /// The identity of the first of them, as Kafka gets it in the header
    /// [`ID`](crate::message::header::ID). Of what was due later it is that in the schedule log; Kafka gets
    /// the [`fired_id`](Self::fired_id).
    #[must_use]
    pub fn id(&self) -> String {
        let scheduled = self.is_scheduled.then(|| self.origin.store.schedule_id());
        let log = scheduled.flatten().unwrap_or_else(|| self.at().identity());
        format!("{log}-{}", self.first)
    }

    /// Whether they were due later when they were sent, and so wait on disk until they are.
    #[must_use]
    pub const fn is_scheduled(&self) -> bool {
        self.is_scheduled
    }

    /// Of what was due later: the identity of the first of them in its lane, as Kafka gets it. `None`: it
    /// is not due yet, or so many were since that it is not known any more.
    #[must_use]
    pub fn fired_id(&self) -> Option<String> {
        let scheduled = Some(self.first).filter(|_| self.is_scheduled);
        let (lane, seq) = self.origin.store.fired(scheduled?)?;
        Some(format!("{}-{seq}", lane.identity()))
    }

    /// To wait until they are on disk, whatever the level of their lane: `receipt.durable().wait()?` or
    /// `receipt.durable().await?`.
    pub fn durable(&self) -> Durable<'_> {
        let reached = self.ticket().reaching(Durability::Disk);
        Durable { reached }
    }

    /// To wait for what becomes of them: `receipt.delivered().wait()?` or
    /// `receipt.delivered().await?`. Of several records it tells the first outcome that is not
    /// [`Outcome::Shipped`]. What is due later it follows through its firing.
    pub fn delivered(&self) -> Delivered<'_> {
        let store = &self.origin.store;
        let settlement = if self.is_scheduled {
            store.settlement_of_scheduled(self.range())
        } else {
            store.settlement(self.at(), self.range())
        };
        Delivered { settlement }
    }

    /// What became of each of them so far; `None`: nothing yet.
    pub fn outcomes(&self) -> impl Iterator<Item = Option<Outcome>> + '_ {
        let lane = self.at();
        (0..self.count).map(move |n| {
            let (store, seq) = (&self.origin.store, self.first + n);
            let outcome = if self.is_scheduled {
                store.outcome_of_scheduled(seq)
            } else {
                store.outcome(lane, seq)
            };
            Some(outcome.ok()??.into())
        })
    }

    fn at(&self) -> &Lane {
        &self.origin.store.lanes()[self.lane]
    }

    fn ticket(&self) -> Ticket<'_> {
        let store = &self.origin.store;
        let scheduled = self
            .is_scheduled
            .then(|| store.ticket_of_scheduled(self.range()));
        let ticket = scheduled.flatten();
        ticket.unwrap_or_else(|| self.at().ticket_of(self.range()))
    }
}

impl fmt::Debug for Receipt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("lane", &self.lane())
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}

/// Waits until records are on disk: [`Receipt::durable`]. Dropping it forgets the question.
#[derive(Debug)]
#[must_use = "it waits for nothing until it is awaited, or told to wait"]
pub struct Durable<'a> {
    reached: Acknowledged<'a>,
}

impl Durable<'_> {
    /// Waits on this thread, which does the writing and syncing itself where nobody else is at it.
    ///
    /// # Errors
    ///
    /// [`NotDurable`] says whether they may still come to disk.
    pub fn wait(self) -> Result<(), NotDurable> {
        self.reached.wait()?;
        Ok(())
    }
}

impl Future for Durable<'_> {
    type Output = Result<(), NotDurable>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.reached).poll(context)?;
        polled.map(|_| Ok(()))
    }
}

/// Waits for what becomes of records: [`Receipt::delivered`]. It can be awaited as well; dropping it
/// forgets the question.
#[derive(Debug)]
#[must_use = "it waits for nothing until it is awaited, or told to wait"]
pub struct Delivered<'a> {
    settlement: Settlement<'a>,
}

impl Delivered<'_> {
    /// Waits on this thread, for as long as the outage lasts.
    ///
    /// # Errors
    ///
    /// [`NotDelivered::Closed`], [`NotDelivered::Failed`]: this producer will not tell it.
    pub fn wait(self) -> Result<Outcome, NotDelivered> {
        block_on(self, None).unwrap_or(Err(NotDelivered::TimedOut))
    }

    /// Waits on this thread for so long.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), and [`NotDelivered::TimedOut`]: ask again whenever you like.
    pub fn wait_for(self, timeout: Duration) -> Result<Outcome, NotDelivered> {
        let deadline = Instant::now().checked_add(timeout);
        block_on(self, deadline).unwrap_or(Err(NotDelivered::TimedOut))
    }
}

impl Future for Delivered<'_> {
    type Output = Result<Outcome, NotDelivered>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.settlement).poll(context)?;
        polled.map(|class| Ok(class.into()))
    }
}
