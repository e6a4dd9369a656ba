//! The producer: what a program on the gateway holds.
//!
//! - [`send`](Producer::send) appends to the store and returns at once; no network is needed for it, nor
//!   for opening. Nothing that Kafka says reaches the one who sends.
//! - A [`Receipt`] tells when its records are on disk and what became of them in the end; both can be
//!   waited for by a thread or a task. Who does not ask pays nothing for it.
//! - A thread for each cluster ships what the store holds for it, begins again whenever it fails, and
//!   says why nothing moves. Another one brings what is due later to its lane when it is.
//!
//! ```text
//! send --> interceptors --> Store::routed --> Lane::append --> Receipt
//!                                                 |               ^ what became of it
//!                         Delivery::drain, a thread a cluster ----+
//! ```
//!
//! Owns: the store and those threads, from [`Builder::open`] to [`Producer::close`]. Must not know
//! librdkafka, files, or any async runtime: futures need a waker and nothing else.
//!
//! Invariants: one thread ships from a store to each cluster, also while its settings change; the store is closed after they have ended, whoever
//! still holds a receipt; nothing is allocated for a record that is sent, or kept for one whose
//! receipt is dropped.

mod block;
mod builder;
mod change;
mod due;
mod error;
mod events;
mod intercept;
mod receipt;
mod shipping;
mod status;
mod threads;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub use self::builder::Builder;
pub use self::error::{ChangeError, CloseError, NotDelivered, NotDurable, OpenError, SendError};
pub use self::intercept::{Draft, DraftHeader};
pub use self::receipt::{Delivered, Durable, Outcome, Receipt};
pub use self::shipping::Shipping;
pub use self::status::{Closed, ClusterStatus, LaneStatus, Stats, Status, Trouble, Unhealthy};

use self::block::{block_on, on_a_thread};
use self::due::Scheduling;
use self::receipt::Origin;
use self::shipping::Shared;
use crate::kafka::Settings;
use crate::message::{Header, MessageRef};
use crate::store::{self, Lane, Routed, Store};
use crate::wal::{Durability, SeqNo, Ticket};

/// How long a task leaves the memory of a lane to others that were before it.
const ROOM_PAUSE: Duration = Duration::from_millis(2);

/// Appends to a store and ships it to Kafka. Cheap to clone; all clones are the same producer.
///
/// Dropping the last one stops shipping, finishes what is in flight for
/// [`ShipOptions::stop_grace`](crate::ship::ShipOptions::stop_grace) and closes the store: what was
/// acknowledged is shipped by the next one. [`close`](Self::close) can wait for longer, and tells.
#[derive(Clone)]
pub struct Producer {
    owner: Arc<Owner>,
}

/// What ends with the last clone, although receipts may still hold what is shared.
struct Owner {
    shared: Arc<Shared>,
}

impl Producer {
    /// Opens the store in `dir`, or makes a new one, and ships it to the cluster behind these
    /// addresses, all as the defaults are. Connects to nothing before it returns.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub fn open(
        dir: impl AsRef<Path>,
        bootstrap_servers: impl Into<String>,
    ) -> Result<Self, OpenError> {
        Self::builder(dir, Settings::new(bootstrap_servers)).open()
    }

    /// Sets up a producer for the store in `dir` and this cluster.
    pub fn builder(dir: impl AsRef<Path>, kafka: Settings) -> Builder {
        Builder::new(dir.as_ref(), kafka)
    }

    /// Appends a message to the lane of its topic, the default topic if it names none. One that is
    /// [due](MessageRef::due) later waits on disk until then, over restarts.
    ///
    /// Waits only while the memory of the lane is used up by records that are not on disk yet, which
    /// on a full disk may be long: see [`OnFull`](crate::wal::OnFull). Allocates nothing once the topic is known.
    ///
    /// # Errors
    ///
    /// [`SendError`] says what to do next. Nothing was appended.
    pub fn send(&self, message: &MessageRef<'_>) -> Result<Receipt<'_>, SendError> {
        self.append(message, Lane::append, Store::schedule)
    }

    /// [`send`](Self::send) that never waits: for tasks that must not block, and for readings that
    /// are worth nothing later.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`SendError::Full`] where that would wait.
    pub fn try_send(&self, message: &MessageRef<'_>) -> Result<Receipt<'_>, SendError> {
        self.append(message, Lane::try_append, Store::try_schedule)
    }

    /// [`send`](Self::send) for tasks: where that would block, this is pending. Dropped before it is
    /// ready it has appended nothing.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_async(&self, message: &MessageRef<'_>) -> Result<Receipt<'_>, SendError> {
        self.check_open()?;
        if self.shared().interceptors.is_empty() {
            return self.append_async(&self.with_topic(message)).await;
        }
        let draft = self.shared().interceptors.run(&self.with_topic(message))?;
        let headers = draft.headers();
        self.append_async(&draft.message(&headers)).await
    }

    /// Appends messages of which a crash leaves all or none; their topics must be of one lane.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), [`SendError::SeveralLanes`], [`SendError::SomeDueLater`]; a message that is refused refuses all
    /// of them.
    pub fn send_batch(&self, messages: &[MessageRef<'_>]) -> Result<Receipt<'_>, SendError> {
        let drafts = self.drafts(messages)?;
        let headers: Vec<Vec<Header<'_>>> = drafts.iter().map(Draft::headers).collect();
        let left = self.left(messages, &drafts, &headers);
        self.append_batch(&left, Lane::append_batch, Store::schedule)
    }

    /// [`send_batch`](Self::send_batch) for tasks: where that would block, this is pending. Dropped
    /// before it is ready it has appended nothing.
    ///
    /// # Errors
    ///
    /// As [`send_batch`](Self::send_batch).
    pub async fn send_batch_async(
        &self,
        messages: &[MessageRef<'_>],
    ) -> Result<Receipt<'_>, SendError> {
        let drafts = self.drafts(messages)?;
        let headers: Vec<Vec<Header<'_>>> = drafts.iter().map(Draft::headers).collect();
        let left = self.left(messages, &drafts, &headers);
        let append = |schedule| self.append_batch(&left, Lane::try_append_batch, schedule);
        match left.first() {
            Some(first) => self.when_there_is_room(first, append).await,
            None => append(Store::try_schedule),
        }
    }

    /// Waits until everything that was sent before is on disk.
    ///
    /// # Errors
    ///
    /// [`NotDurable`]: of at least one lane it is not. The others were synced all the same.
    pub fn flush(&self) -> Result<(), NotDurable> {
        let mut flushed = Ok(());
        for lane in self.shared().store.lanes() {
            let synced = lane.sync().map(drop).map_err(NotDurable::from);
            flushed = flushed.and(synced);
        }
        let schedule = self.shared().store.sync_schedule();
        flushed.and(schedule.map_err(NotDurable::from))
    }

    /// [`flush`](Self::flush) for tasks.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub async fn flush_async(&self) -> Result<(), NotDurable> {
        let store = &self.shared().store;
        let lanes = store.lanes().iter().map(|lane| {
            let marks = lane.marks();
            (marks.durable < marks.next).then(|| lane.ticket_of(marks.durable..marks.next))
        });
        let unsynced = lanes.chain([store.all_unsynced_scheduled()]).flatten();
        let unsynced: Vec<_> = unsynced.map(Ticket::hurried).collect();
        let mut flushed = Ok(());
        for synced in unsynced {
            flushed = flushed.and(synced.await.map(drop).map_err(NotDurable::from));
        }
        flushed
    }

    /// Takes nothing more, ships until the store is empty or the time is over, then stops shipping
    /// and closes the store. Says what is left there: it is shipped by the next producer. What is due later
    /// is not waited for.
    ///
    /// Takes up to [`ShipOptions::stop_grace`](crate::ship::ShipOptions::stop_grace) longer than `within`
    /// if records are in flight at the end of it; in transactions, until the one under way has ended.
    /// Closing again tells what was left; of several who close at once each waits for the end, which is that
    /// of the one who waits the shortest.
    /// In a callback another producer may be closed, which is waited for: of two whose callbacks close each
    /// other none ends.
    ///
    /// # Errors
    ///
    /// [`CloseError::Store`] if a log could not be closed cleanly: what was acknowledged is safe.
    /// [`CloseError::InCallback`] at once, whatever `within` is, where a callback on one of the producer's own
    /// threads, or a task's waker, calls this: it ends soon after the callback.
    pub fn close(&self, within: Duration) -> Result<Closed, CloseError> {
        let shared = self.shared();
        shared.refuse_more();
        if shared.is_own_thread() {
            shared.stop();
            return Err(CloseError::InCallback);
        }
        shared.hurry();
        let deadline = Instant::now().checked_add(within);
        // Whatever is said: it is counted below.
        drop(block_on(shared.store.emptied(), deadline));
        shared.stop();
        let ended = shared.ended();
        let closed = shared.closed(&shared.news());
        ended.map(|()| closed).map_err(CloseError::Store)
    }

    /// [`close`](Self::close) for tasks. Once it was polled it goes on by itself, on a thread of its own:
    /// dropped before it is ready, the producer closes all the same.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close).
    pub async fn close_async(&self, within: Duration) -> Result<Closed, CloseError> {
        if self.shared().is_own_thread() {
            return self.close(within);
        }
        let producer = self.clone();
        on_a_thread("ferrylog close", move || producer.close(within)).await
    }

    /// Appends a message as the interceptors leave it.
    fn append(
        &self,
        message: &MessageRef<'_>,
        append: impl for<'a> FnOnce(&'a Lane, &MessageRef<'_>) -> Result<Ticket<'a>, store::Error>,
        schedule: Scheduling,
    ) -> Result<Receipt<'_>, SendError> {
        self.check_open()?;
        // Set only where there is need of them; a single append at the end is compiled in here, two
        // cost each message half as much again.
        let (routed, draft, headers, left);
        let mut message = message;
        if message.topic.is_empty() {
            routed = self.with_topic(message);
            message = &routed;
        }
        let interceptors = &self.shared().interceptors;
        if !interceptors.is_empty() {
            draft = interceptors.run(message)?;
            headers = draft.headers();
            left = draft.message(&headers);
            message = &left;
        }
        self.append_to_lane(message, append, schedule)
    }

    #[inline]
    fn append_to_lane(
        &self,
        message: &MessageRef<'_>,
        append: impl for<'a> FnOnce(&'a Lane, &MessageRef<'_>) -> Result<Ticket<'a>, store::Error>,
        schedule: Scheduling,
    ) -> Result<Receipt<'_>, SendError> {
        let Routed { place, topic, .. } = self.shared().store.routed(message);
        let named;
        let mut message = message;
        if message.due.is_some() || matches!(topic, Cow::Owned(_)) {
            let later = MessageRef {
                topic: &topic,
                ..*message
            };
            if message.due.is_some() && !self.is_due(message)? {
                return self.schedule(place, &[later], schedule);
            }
            named = MessageRef { due: None, ..later };
            message = &named;
        }
        let lane = self.lane(place);
        match append(lane, message) {
            Ok(ticket) => Ok(self.receipt(place, ticket.range())),
            Err(error) => Err(self.not_sent(lane, error)),
        }
    }

    async fn append_async(&self, message: &MessageRef<'_>) -> Result<Receipt<'_>, SendError> {
        let append = |schedule| self.append_to_lane(message, Lane::try_append, schedule);
        self.when_there_is_room(message, append).await
    }

    /// Appends without blocking, again and again until there is room; `first` tells in which log.
    async fn when_there_is_room<'a>(
        &'a self,
        first: &MessageRef<'_>,
        append: impl Fn(Scheduling) -> Result<Receipt<'a>, SendError>,
    ) -> Result<Receipt<'a>, SendError> {
        loop {
            self.check_open()?;
            let full = match append(Store::try_schedule) {
                Err(full @ SendError::Full { .. }) => full,
                sent => return sent,
            };
            let lane = self.lane(self.shared().store.routed(first).place);
            let Some(oldest) = self.unsynced(lane, first) else {
                // All is on disk by now: there is room, or it is not room that is missing. Nobody waits for a
                // sync either who has his turn before this.
                match append(Store::schedule_in_turn) {
                    Err(SendError::Full { .. }) if self.lacks_memory(lane, first) => {
                        // Others took it first, or what has no number has it until a sync.
                        on_a_thread("ferrylog room", || thread::sleep(ROOM_PAUSE)).await;
                        continue;
                    }
                    Err(SendError::Full { .. }) => return Err(full),
                    sent => return sent,
                }
            };
            // A sync gives room. Where it is not to be waited for, this says so.
            oldest
                .reaching(Durability::Disk)
                .await
                .map_err(|error| self.not_sent(lane, error.into()))?;
        }
    }

    /// Whether it is the memory of its lane alone that a message waits for.
    fn lacks_memory(&self, lane: &Lane, message: &MessageRef<'_>) -> bool {
        let is_later = |due| !self.shared().store.is_due(due);
        !message.due.is_some_and(is_later) && lane.shortage().is_none()
    }

    /// Messages as the interceptors leave them, if there are any interceptors.
    fn drafts<'m>(&'m self, messages: &'m [MessageRef<'m>]) -> Result<Vec<Draft<'m>>, SendError> {
        self.check_open()?;
        let interceptors = &self.shared().interceptors;
        if interceptors.is_empty() {
            return Ok(Vec::new());
        }
        let run = |message| interceptors.run(&self.with_topic(message));
        messages.iter().map(run).collect()
    }

    /// What is to be appended for these messages, of which the drafts were made.
    fn left<'m>(
        &'m self,
        messages: &'m [MessageRef<'m>],
        drafts: &'m [Draft<'m>],
        headers: &'m [Vec<Header<'m>>],
    ) -> Cow<'m, [MessageRef<'m>]> {
        if !drafts.is_empty() {
            let left = drafts.iter().zip(headers);
            return left
                .map(|(draft, headers)| draft.message(headers))
                .collect();
        }
        match messages.iter().any(|message| message.topic.is_empty()) {
            true => messages.iter().map(|m| self.with_topic(m)).collect(),
            false => Cow::Borrowed(messages),
        }
    }

    fn append_batch(
        &self,
        messages: &[MessageRef<'_>],
        append: impl for<'a> FnOnce(&'a Lane, &[MessageRef<'_>]) -> Result<Ticket<'a>, store::Error>,
        schedule: Scheduling,
    ) -> Result<Receipt<'_>, SendError> {
        let Some(first) = messages.first() else {
            return Ok(self.receipt(0, SeqNo::ZERO..SeqNo::ZERO));
        };
        let store = &self.shared().store;
        let place = store.routed(first).place;
        let routed: Vec<Routed<'_>> = messages.iter().map(|m| store.routed(m)).collect();
        if let Some(other) = routed.iter().find(|routed| routed.place != place) {
            return Err(SendError::SeveralLanes {
                first: self.lane(place).name().into(),
                other: self.lane(other.place).name().into(),
            });
        }
        let named = messages.iter().zip(&routed);
        let named = named.map(|(message, Routed { topic, .. })| MessageRef { topic, ..*message });
        let (lane, mut named) = (self.lane(place), named.collect::<Vec<_>>());
        let (mut timed, mut later) = (0, 0);
        for message in named.iter().filter(|message| message.due.is_some()) {
            timed += 1;
            later += usize::from(!self.is_due(message)?);
        }
        match later {
            0 => named.iter_mut().for_each(|message| message.due = None),
            // Which of them are due changes while there is no room; those that are go at once.
            _ if timed == named.len() => return self.schedule(place, &named, schedule),
            _ => return Err(SendError::SomeDueLater),
        }
        let appended = append(lane, &named);
        let range = appended
            .map_err(|error| self.not_sent(lane, error))?
            .range();
        Ok(self.receipt(place, range))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    /// What a lane said. One that is closed while somebody waits for its space says that it failed.
    fn not_sent(&self, lane: &Lane, error: store::Error) -> SendError {
        match SendError::of(lane, error) {
            SendError::Failed { .. } if !self.shared().takes_records() => SendError::Closed,
            error => error,
        }
    }

    fn check_open(&self) -> Result<(), SendError> {
        if self.shared().takes_records() {
            Ok(())
        } else {
            Err(SendError::Closed)
        }
    }

    /// The message with its topic: the default one if it names none.
    fn with_topic<'a>(&'a self, message: &MessageRef<'a>) -> MessageRef<'a> {
        let topic = match message.topic {
            "" => &self.shared().default_topic,
            topic => topic,
        };
        MessageRef { topic, ..*message }
    }

    fn lane(&self, place: usize) -> &Lane {
        &self.shared().store.lanes()[place]
    }

    #[inline]
    fn receipt(&self, lane: usize, range: Range<SeqNo>) -> Receipt<'_> {
        Receipt {
            origin: Origin::Borrowed(self.shared()),
            lane,
            is_scheduled: false,
            first: range.start,
            count: range.end.get() - range.start.get(),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("totals", &self.shared().store.totals())
            .finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.refuse_more();
        self.shared.stop();
        // Where the last clone was in a callback, nobody waits.
        if !self.shared.is_own_thread() {
            // An error is what recovery is for; `close` tells it.
            drop(self.shared.ended());
        }
    }
}
