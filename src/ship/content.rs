//! What is sent of a record: its own key, value and headers, or what a callback put in their place; and
//! behind them the headers that are ours.
//!
//! Pure. Must not know where it is sent. Invariant: a record without headers of its own costs no
//! allocation.

use std::collections::HashMap;

use super::retry::Replacement;
use crate::message::Message;
use crate::store::Entry;
use crate::wal::SeqNo;

/// What callbacks put in the place of records, by source and number.
pub(super) type Replaced = HashMap<(usize, SeqNo), Replacement>;

/// A header, by name and value.
pub(super) type Given<'m> = (&'m str, Option<&'m [u8]>);

pub(super) struct Content<'m> {
    pub(super) key: Option<&'m [u8]>,
    pub(super) value: Option<&'m [u8]>,
    message: &'m Message,
    replacement: Option<&'m Replacement>,
}

impl<'m> Content<'m> {
    pub(super) fn of(
        replaced: &'m Replaced,
        source: usize,
        entry: &Entry,
        message: &'m Message,
    ) -> Self {
        let replacement = match replaced.is_empty() {
            true => None,
            false => replaced.get(&(source, entry.seq)),
        };
        let (key, value) = match replacement {
            Some(instead) => (instead.key.as_deref(), instead.value.as_deref()),
            None => (message.key.as_deref(), message.value.as_deref()),
        };
        Self {
            key,
            value,
            message,
            replacement,
        }
    }

    /// Bytes of its key and value.
    pub(super) fn len(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    /// All headers; they stand in `joined` where they are not only `own`.
    pub(super) fn headers<'b>(
        &'b self,
        own: &'b [Given<'b>],
        time: Option<Given<'b>>,
        joined: &'b mut Vec<Given<'b>>,
    ) -> &'b [Given<'b>] {
        match self
            .replacement
            .and_then(|instead| instead.headers.as_ref())
        {
            Some(instead) => {
                let instead = instead.iter();
                joined.extend(instead.map(|(name, value)| (&**name, value.as_deref())));
            }
            None => joined.extend(self.message.headers().map(|h| (h.name, h.value))),
        }
        if joined.is_empty() && time.is_none() {
            return own;
        }
        joined.extend(own.iter().copied().chain(time));
        joined
    }
}
