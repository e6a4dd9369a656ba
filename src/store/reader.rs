//! Reading a lane: records back into messages.
//!
//! Owns the names of the topics met by one reader, and the time that a record is given: its own, the
//! append's, or the corrected one. It must not know who reads, nor what becomes of a record.
//!
//! Invariants: a record that is no message is handed on with its bytes. Reading a message allocates nothing
//! once its topic is known, but for what the log itself does.

use std::{collections::HashMap, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{Error, boots::Boots, clock, parking};
use crate::{
    message::{
        Message,
        codec::{self, DecodeError},
    },
    wal::{Reader, SeqNo, View, Wal},
};

/// First byte of a definition that names a topic. Other kinds of definitions may follow.
pub(super) const DEFINES_TOPIC: u8 = b't';

/// A record of a lane.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// Its number in the log it was read from.
    pub seq: SeqNo,
    /// Its number in its lane, which is its identity. The same, unless it was read from a parking
    /// log.
    pub origin: SeqNo,
    /// When it was appended to its lane: microseconds since 1970, as the machine believed then.
    pub time_micros: i64,
    /// Its bytes as its lane keeps them.
    pub raw: Bytes,
    /// What it holds.
    pub message: Result<Message, Undecodable>,
}

/// A record that is no message: its bytes are kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Undecodable {
    /// The bytes.
    pub raw: Bytes,
    /// Why they are no message.
    pub reason: DecodeError,
}

/// Reads the records of a lane in order. It borrows the lane, so that a store cannot be closed
/// under it.
#[derive(Debug)]
pub struct LaneReader<'a> {
    pub(super) reader: Reader,
    definitions: Definitions<'a>,
    /// Whether its records stand in a parking log.
    is_parked: bool,
    boots: &'a Boots,
    names: Names,
}

impl<'a> LaneReader<'a> {
    pub(super) fn new(reader: Reader, definitions: Definitions<'a>, boots: &'a Boots) -> Self {
        Self {
            reader,
            definitions,
            is_parked: false,
            boots,
            names: Names::default(),
        }
    }

    /// The same, for records as they stand in a parking log.
    pub(super) fn of_parked(mut self) -> Self {
        self.is_parked = true;
        self
    }

    /// The next record, or `None` while nothing more is on disk: ask again later.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if the file cannot be read or its bytes are not what was written.
    #[expect(
        clippy::should_implement_trait,
        reason = "the end is not final: more may come"
    )]
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        let Some(record) = self.reader.next()? else {
            return Ok(None);
        };
        let parked = self.is_parked.then(|| parking::unwrap(&record)).flatten();
        let (origin, time_micros, raw) =
            parked.unwrap_or((record.seq, record.time_micros, record.payload));
        let (names, definitions) = (&mut self.names, &self.definitions);
        let mut message = codec::decode(&raw, time_micros / 1_000, |id| {
            names.get(id, |id| definitions.topic(id))
        });
        if let Ok(message) = &mut message
            && let Some(uptime) = message.uptime
            && !message.timestamp_given
            && let Some(wall_millis) = clock::wall_millis(uptime, self.boots)
        {
            // Its clock was wrong when it was appended, and has been right since.
            message.timestamp_millis = wall_millis;
        }
        Ok(Some(Entry {
            seq: record.seq,
            origin,
            time_micros,
            message: message.map_err(|reason| Undecodable {
                raw: raw.clone(),
                reason,
            }),
            raw,
        }))
    }

    /// Passes over what [`next`](Self::next) just called corrupt; returns the numbers that cannot be
    /// read.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if the file cannot be read.
    pub fn skip_damage(&mut self) -> Result<Range<SeqNo>, Error> {
        Ok(self.reader.skip_damage()?)
    }

    /// The number of the record to be read next.
    #[must_use]
    pub fn position(&self) -> SeqNo {
        self.reader.position()
    }
}

/// Names of the topics met so far: each is one allocation, not one a record.
#[derive(Default, Debug)]
struct Names {
    by_id: HashMap<u32, Arc<str>>,
    /// The one asked for last: most records are of the topic of the one before them.
    last: Option<(u32, Arc<str>)>,
}

impl Names {
    /// The name of an id; `find` knows those that have one.
    fn get(&mut self, id: u32, find: impl FnOnce(u32) -> Option<Arc<str>>) -> Option<Arc<str>> {
        if let Some((last, name)) = &self.last
            && *last == id
        {
            return Some(Arc::clone(name));
        }
        let name = match self.by_id.get(&id) {
            Some(known) => Arc::clone(known),
            None => {
                let found = find(id)?;
                self.by_id.insert(id, Arc::clone(&found));
                found
            }
        };
        self.last = Some((id, Arc::clone(&name)));
        Some(name)
    }
}

/// Where the definitions of a log are found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Definitions<'a> {
    Log(&'a Wal),
    View(&'a View),
}

impl Definitions<'_> {
    fn topic(&self, id: u32) -> Option<Arc<str>> {
        let definition = match self {
            Self::Log(wal) => wal.definition(id),
            Self::View(view) => view.definition(id),
        }?;
        let (&kind, name) = definition.split_first()?;
        let name = str::from_utf8(name).ok()?;
        (kind == DEFINES_TOPIC).then(|| Arc::from(name))
    }
}
