//! Definitions: short byte strings that records name by an id.
//!
//! Owns: the ids of one log, also as they were found. Must not know: what the strings mean, or when they are written.
//!
//! Invariant: an id never changes its meaning within a log; all definitions fit into one frame, which
//! is repeated at the start of every segment.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::cipher::Keys;
use super::error::Error;
use super::found::Found;
use super::frame::{definitions, encode_definition, record_span};
use super::options::MAX_DICTIONARY_BYTES;
use super::rest::{Sealed, unpack};
use super::segment::SegmentHeader;

/// No log has more definitions: each takes eight bytes at least.
const MAX_DEFINITIONS: u32 = 8192;

const _: () = assert!(MAX_DEFINITIONS as usize == MAX_DICTIONARY_BYTES / 8);

/// The definitions of a log.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    ids: HashMap<Bytes, u32>,
    /// In the order of ids: the same definitions are the same bytes.
    texts: BTreeMap<u32, Bytes>,
    payload_len: usize,
    next_id: u32,
}

impl Dictionary {
    /// The id of these bytes, if they are defined.
    pub(crate) fn id(&self, text: &[u8]) -> Option<u32> {
        self.ids.get(text).copied()
    }

    pub(crate) fn text(&self, id: u32) -> Option<Bytes> {
        self.texts.get(&id).cloned()
    }

    /// Takes in what was found on disk; the first meaning of an id stays.
    pub(crate) fn insert(&mut self, id: u32, text: Bytes) {
        if self.texts.contains_key(&id) {
            return;
        }
        self.payload_len += record_span(text.len());
        self.next_id = self.next_id.max(id.saturating_add(1));
        self.ids.insert(text.clone(), id);
        self.texts.insert(id, text);
    }

    /// Ids that were given may have been lost: the next one lies beyond all of them, and a placeholder
    /// without bytes keeps it so.
    pub(crate) fn skip_ids(&mut self) {
        let id = self.next_id.saturating_add(MAX_DEFINITIONS);
        self.insert(id, Bytes::new());
    }

    /// Gives new bytes an id, or `None` where they do not fit any more.
    pub(crate) fn define(&mut self, text: &[u8]) -> Option<u32> {
        if self.payload_len + record_span(text.len()) > MAX_DICTIONARY_BYTES {
            return None;
        }
        let id = self.next_id;
        self.insert(id, Bytes::copy_from_slice(text));
        Some(id)
    }

    /// Bytes of the payload that holds all definitions.
    pub(crate) fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Writes all definitions; `out` is exactly [`payload_len`](Self::payload_len) bytes.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let mut rest = out;
        for (id, text) in &self.texts {
            let (slot, behind) = rest.split_at_mut(record_span(text.len()));
            encode_definition(*id, text, slot);
            rest = behind;
        }
    }
}

impl Found {
    /// All definitions; an error where they are encrypted and do not open.
    pub(crate) fn dictionary(&self, keys: &Keys) -> Result<Dictionary, Error> {
        let mut dictionary = Dictionary::default();
        for (header, frame) in &self.definitions {
            let Some(segment) = self.segment(header.segment) else {
                continue;
            };
            let SegmentHeader { salt, key, .. } = segment.header;
            let sealed = |why: Sealed| why.into_error(&segment.path, header.position, key);
            let payload = unpack(header, frame, salt, key, keys).map_err(sealed)?;
            let malformed = || sealed(Sealed::Malformed("no definitions"));
            for (id, text) in definitions(&payload).ok_or_else(malformed)? {
                dictionary.insert(id, Bytes::copy_from_slice(text));
            }
        }
        if !self.fresh.is_empty() {
            // What is lost may have defined ids that records behind it use.
            dictionary.skip_ids();
        }
        Ok(dictionary)
    }
}
