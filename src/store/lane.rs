//! A lane: one log whose records are messages.
//!
//! Owns the way between a message and a record: the codec, and the names of the topics, which
//! stand once in the log's dictionary and as a number in each record.
//!
//! It must not know where the messages go, nor how the log keeps its bytes.
//!
//! Invariants: a record never carries the number of a topic whose definition is not before it in
//! the log. Appending a message allocates nothing once its topic is known.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Error, LaneName, LaneOptions, MAIN_CLUSTER, Now, Order,
    boots::Boots,
    clock::{self, Appended, Clock},
    dead_letter,
    intent::{self, IntentFile},
    names::Names,
    reader::{DEFINES_TOPIC, Definitions, Entry, LaneReader},
};
use crate::{
    message::{
        MessageRef,
        codec::{Parts, Topic},
    },
    wal::{
        self, Class, Encode, Gap, LogId, Marks, Opened, Reader, SegmentInfo, SeqNo, Ticket, Totals,
        Verified, View, Wal,
    },
};

/// One log of messages, open for appending and settling.
#[derive(Debug)]
pub struct Lane {
    name: String,
    parts: LaneName,
    pub(super) wal: Wal,
    weight: u32,
    order: Order,
    expires_after: Option<Duration>,
    is_configured: bool,
    clock: Arc<Clock>,
    /// Numbers of the topics met so far. It holds what the log's dictionary holds, and that is
    /// bounded: a topic that did not fit there is not kept here either.
    topics: Names,
    intents: PathBuf,
    identity: LogId,
}

impl Lane {
    pub(super) fn open(
        parts: LaneName,
        dir: &Path,
        clock: Arc<Clock>,
        mut options: LaneOptions,
        is_configured: bool,
    ) -> Result<Self, Error> {
        dead_letter::leave_room(&mut options.wal);
        let name = parts.to_string();
        let wal = Wal::open(dir, options.wal).map_err(Error::of_lane(&name))?;
        let intents = dir.with_added_extension("intent");
        let identity = intent::identity(&intents, wal.log_id())?;
        Ok(Self {
            name,
            parts,
            wal,
            weight: options.weight,
            order: options.order,
            expires_after: options.expires_after,
            is_configured,
            clock,
            topics: Names::default(),
            intents,
            identity,
        })
    }

    pub(super) fn shut(&self) -> Result<(), Error> {
        Ok(self.wal.shut()?)
    }

    /// The name of the lane.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its name says: which lane of the options it is, or was, for which cluster and tenant.
    #[must_use]
    pub const fn parts(&self) -> &LaneName {
        &self.parts
    }

    /// The cluster that its records go to, whatever the options say by now.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.parts.cluster
    }

    /// Its share of the link beside other lanes that have something to ship; at least 1.
    #[must_use]
    pub const fn weight(&self) -> u32 {
        self.weight
    }

    /// Which of its records may overtake which.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Age beyond which a record of it is settled as expired instead of shipped.
    #[must_use]
    pub const fn expires_after(&self) -> Option<Duration> {
        self.expires_after
    }

    /// Whether the options named it. One that was only found on disk has no topics: it drains.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        self.is_configured
    }

    /// The identity of its log.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.wal.log_id()
    }

    /// As whom it ships: its log's id, unless it was a copy and a repair gave it another one.
    #[must_use]
    pub const fn identity(&self) -> LogId {
        self.identity
    }

    /// Opens the file that keeps what is about to be committed, or makes it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if that is not possible, or a newer version wrote it.
    pub fn intents(&self) -> Result<IntentFile, Error> {
        IntentFile::open(&self.intents, self.wal.log_id())
    }

    /// What was found when it was opened.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        self.wal.opened()
    }

    /// Appends one message; the ticket tells its number at once and its durability when asked.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] or [`wal::Error::TooLarge`](crate::wal::Error::TooLarge): it was not appended and
    /// never can be. [`Error::NotDue`]: it has a due time. Any other [`Error::Log`]: the log takes nothing more.
    #[inline]
    pub fn append(&self, message: &MessageRef<'_>) -> Result<Ticket<'_>, Error> {
        self.encoded(message, Wal::define, |encoded| self.wal.append(encoded))
    }

    /// [`append`](Self::append) that does not block.
    ///
    /// # Errors
    ///
    /// As [`Lane::append`], and [`wal::Error::Busy`] where that would block: nothing was appended.
    pub fn try_append(&self, message: &MessageRef<'_>) -> Result<Ticket<'_>, Error> {
        let append = |encoded: &Encoded<'_>| self.wal.try_append(encoded);
        self.encoded(message, Wal::try_define, append)
    }

    /// A ticket for records that were appended since the store was opened, to wait for them again.
    ///
    /// # Panics
    ///
    /// Panics if the range reaches beyond the end of the log.
    pub fn ticket_of(&self, range: Range<SeqNo>) -> Ticket<'_> {
        self.wal.ticket_of(range)
    }

    /// Appends one message and waits for the log's durability.
    ///
    /// # Errors
    ///
    /// As [`Lane::append`]; where the wait failed, the outcome is not known.
    pub fn append_wait(&self, message: &MessageRef<'_>) -> Result<SeqNo, Error> {
        let append = |encoded: &Encoded<'_>| self.wal.append_wait(encoded);
        self.encoded(message, Wal::define, append)
    }

    /// Appends messages of which a crash leaves all or none.
    ///
    /// # Errors
    ///
    /// As [`Lane::append`]; one message that is refused refuses them all.
    pub fn append_batch(&self, messages: &[MessageRef<'_>]) -> Result<Ticket<'_>, Error> {
        let encode = |message| self.encoded(message, Wal::define, |encoded| Ok(*encoded));
        let encoded: Result<Vec<_>, Error> = messages.iter().map(encode).collect();
        Ok(self.wal.append_batch(&encoded?)?)
    }

    /// [`append_batch`](Self::append_batch) that does not block.
    ///
    /// # Errors
    ///
    /// As [`append_batch`](Self::append_batch), and [`wal::Error::Busy`] where that would block: nothing
    /// was appended.
    pub fn try_append_batch(&self, messages: &[MessageRef<'_>]) -> Result<Ticket<'_>, Error> {
        let encode = |message| self.encoded(message, Wal::try_define, |encoded| Ok(*encoded));
        let encoded: Result<Vec<_>, Error> = messages.iter().map(encode).collect();
        Ok(self.wal.try_append_batch(&encoded?)?)
    }

    /// Appends, without blocking, messages that were due, with the number by which each waited: all or
    /// none.
    pub(super) fn append_fired(
        &self,
        fired: &[(u64, MessageRef<'_>)],
    ) -> Result<Ticket<'_>, Error> {
        let encoded = fired.iter().map(|(number, message)| {
            self.encoded(message, Wal::try_define, |Encoded { parts, .. }| {
                let parts = parts.scheduled_as(*number);
                let len = parts.encoded_len();
                Ok(Encoded { parts, len })
            })
        });
        let encoded: Vec<Encoded<'_>> = encoded.collect::<Result<_, Error>>()?;
        Ok(self.wal.try_append_batch(&encoded)?)
    }

    /// Waits until everything appended before is on disk, and returns the end of it.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if a write or sync failed: what was not acknowledged has no known outcome.
    pub fn sync(&self) -> Result<SeqNo, Error> {
        Ok(self.wal.sync()?)
    }

    /// A reader of a parking log of this lane.
    pub(super) fn parked_reader(&self, reader: Reader) -> LaneReader<'_> {
        LaneReader::new(reader, Definitions::Log(&self.wal), self.clock.boots()).of_parked()
    }

    /// Reads what is on disk, from `from` on.
    #[must_use]
    pub fn reader(&self, from: SeqNo) -> LaneReader<'_> {
        let definitions = Definitions::Log(&self.wal);
        LaneReader::new(self.wal.reader(from), definitions, self.clock.boots())
    }

    /// Gives up what [`LaneReader::next`] just called corrupt, so that all readers go on behind it; `None` if
    /// nothing is missing there any more.
    ///
    /// # Errors
    ///
    /// As [`Wal::give_up`]: nothing was settled.
    ///
    /// # Panics
    ///
    /// Panics if the reader is another lane's.
    pub fn give_up(&self, reader: &mut LaneReader<'_>) -> Result<Option<Gap>, Error> {
        Ok(self.wal.give_up(&mut reader.reader)?)
    }

    /// Gives a range its one final outcome; what has one already keeps it.
    pub fn settle(&self, range: Range<SeqNo>, class: Class) {
        self.wal.settle(range, class);
    }

    /// Whether a record has its final outcome.
    #[must_use]
    pub fn is_settled(&self, seq: SeqNo) -> bool {
        self.wal.is_settled(seq)
    }

    /// Makes all settlements durable now.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if the cursor cannot be written.
    pub fn save_cursor(&self) -> Result<(), Error> {
        Ok(self.wal.save_cursor()?)
    }

    /// Waits until something beyond `beyond` is on disk or the time is over; returns the end of
    /// what is on disk.
    pub fn wait_durable(&self, beyond: SeqNo, timeout: Duration) -> SeqNo {
        self.wal.wait_durable(beyond, timeout)
    }

    /// Where the log begins, is settled up to, is on disk up to, and ends.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.wal.marks()
    }

    /// What became of every record so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.wal.totals()
    }

    /// Why there is no space for its log right now, if there is none.
    #[must_use]
    pub fn shortage(&self) -> Option<String> {
        self.wal.shortage()
    }

    /// Records that were not appended for lack of space since the store was opened.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.wal.refused()
    }

    /// Why its log takes nothing more until it is opened again, if that is so.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.wal.failure()
    }

    /// How old a record is; `None` if nobody knows, because a clock was not right at one of the ends.
    #[must_use]
    pub fn age_of(&self, entry: &Entry, now: &Now) -> Option<Duration> {
        let uptime = entry.message.as_ref().ok()?.uptime;
        let appended = Appended {
            wall_millis: entry.time_micros / 1_000,
            uptime,
        };
        appended.age(now, self.clock.boots())
    }

    /// Whether a record is too old to be handed over: by what it says itself, else by
    /// [`expires_after`](Self::expires_after). Of a record whose age nobody knows: never.
    #[must_use]
    pub fn is_expired(&self, entry: &Entry, now: &Now) -> bool {
        let expires = entry.message.as_ref().ok().and_then(|m| m.expires);
        clock::is_expired(expires, self.expires_after, now, || self.age_of(entry, now))
    }

    /// What time it is, as [`Store::now`](super::Store::now).
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Encodes a message and does `then` with it: a copy of it would cost a tenth of an append.
    #[inline]
    fn encoded<'a, T>(
        &self,
        message: &'a MessageRef<'a>,
        define: impl FnOnce(&Wal, &[u8]) -> Result<Option<u32>, wal::Error>,
        then: impl FnOnce(&Encoded<'a>) -> Result<T, wal::Error>,
    ) -> Result<T, Error> {
        if message.due.is_some() {
            return Err(Error::NotDue);
        }
        let topic = match self.topics.get(message.topic) {
            Some(id) => Topic::Id(id),
            None => {
                message.check()?;
                self.define(message.topic, define)?
            }
        };
        let parts = Parts::of(message, topic);
        let mut encoded = Encoded { parts, len: 0 };
        if let Some(uptime) = self.clock.uptime() {
            encoded.parts.set_uptime(uptime);
        }
        encoded.parts.check()?;
        encoded.len = encoded.parts.encoded_len();
        Ok(then(&encoded)?)
    }

    /// How the name of a topic that was not met yet is written in this log.
    #[cold]
    fn define(
        &self,
        topic: &str,
        define: impl FnOnce(&Wal, &[u8]) -> Result<Option<u32>, wal::Error>,
    ) -> Result<Topic, Error> {
        let mut definition = Vec::with_capacity(1 + topic.len());
        definition.push(DEFINES_TOPIC);
        definition.extend_from_slice(topic.as_bytes());
        let Some(id) = define(&self.wal, &definition)? else {
            return Ok(Topic::Inline);
        };
        self.topics.insert(topic, id);
        Ok(Topic::Id(id))
    }
}

/// A look at a log, or why there is none.
type Viewed = Result<View, wal::Error>;

/// One log of messages, to look at.
#[derive(Debug)]
pub struct LaneView {
    name: String,
    view: View,
    boots: Arc<Boots>,
}

impl LaneView {
    pub(super) fn open(name: &str, view: Viewed, boots: Arc<Boots>) -> Result<Self, Error> {
        let view = view.map_err(Error::of_lane(name))?;
        let name = name.into();
        Ok(Self { name, view, boots })
    }

    /// The name of the lane.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that its records go to: its name says so. That of a parking log begins with its
    /// lane's.
    #[must_use]
    pub fn cluster(&self) -> String {
        let lane = self.name.split('/').next().and_then(LaneName::parse);
        lane.map_or_else(|| MAIN_CLUSTER.into(), |name| name.cluster)
    }

    /// The identity of its log.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.view.log_id()
    }

    /// Where the log begins, is settled up to, is on disk up to, and ends.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.view.marks()
    }

    /// What became of every record so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.view.totals()
    }

    /// Why the log would not open for appending, if it would not.
    #[must_use]
    pub fn damage(&self) -> Option<&wal::Error> {
        self.view.damage()
    }

    /// The files that hold records.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.view.segments()
    }

    /// Whether a record has its final outcome.
    #[must_use]
    pub fn is_settled(&self, seq: SeqNo) -> bool {
        self.view.is_settled(seq)
    }

    /// Reads every record that is there, from `from` on.
    #[must_use]
    pub fn reader(&self, from: SeqNo) -> LaneReader<'_> {
        let definitions = Definitions::View(&self.view);
        LaneReader::new(self.view.reader(from), definitions, &self.boots)
    }

    /// Checks every byte of every segment; `progress` hears how many are done, of how many.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if the files cannot be read at all; what is wrong in them is a finding.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified, Error> {
        Ok(self.view.verify(progress)?)
    }
}

/// A checked message with its topic's place in the dictionary: what the log copies from.
#[derive(Clone, Copy, Debug)]
struct Encoded<'a> {
    parts: Parts<'a>,
    /// The log asks more than once.
    len: usize,
}

impl Encode for Encoded<'_> {
    fn encoded_len(&self) -> usize {
        self.len
    }

    fn encode(&self, out: &mut [u8]) {
        self.parts.encode(out);
    }
}
