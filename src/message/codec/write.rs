//! Writing a message: which parts it has, how long they are, and their bytes.
//!
//! Owns the writing half of the codec. Invariant: what most messages have not costs them one look at the
//! flags, which are made once.

#![deny(clippy::indexing_slicing)]

use super::{
    BOOT_LEN, EXPIRES, HEADERS, KEY, Out, PARTITION, SCHEDULED, TIMESTAMP, TOPIC_INLINE, UPTIME,
    VALUE, VERSION, from_expires, from_i32, from_i64, header_block_len, len_u64, prefixed_len,
    varint_len,
};
use crate::message::{Invalid, MessageRef, Uptime};

/// How a topic is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    /// By the number under which the log knows its name.
    Id(u32),
    /// By name, in every message: the log's dictionary is full.
    Inline,
}

/// Bytes that [`encode`] needs for `message`.
#[must_use]
pub fn encoded_len(message: &MessageRef<'_>, topic: Topic) -> usize {
    Parts::of(message, topic).encoded_len()
}

/// Writes `message` into `out`.
///
/// # Panics
///
/// Panics if `out` is not [`encoded_len`] bytes long, or if the message does not pass
/// [`MessageRef::check`] because of its partition, timestamp or expiry.
pub fn encode(message: &MessageRef<'_>, topic: Topic, out: &mut [u8]) {
    Parts::of(message, topic).encode(out);
}

/// What is written of a message. It borrows it: a copy for each append is felt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    message: &'a MessageRef<'a>,
    topic: Topic,
    /// Where the message has none.
    uptime: Option<Uptime>,
    /// The number by which the schedule log knew it.
    scheduled: Option<u64>,
    /// Which parts there are.
    pub(super) flags: u64,
}

impl<'a> Parts<'a> {
    #[inline]
    pub(crate) fn of(message: &'a MessageRef<'a>, topic: Topic) -> Self {
        let part = |present: bool, flag: u64| if present { flag } else { 0 };
        let flags = part(topic == Topic::Inline, TOPIC_INLINE)
            | part(message.partition.is_some(), PARTITION)
            | part(message.timestamp_millis.is_some(), TIMESTAMP)
            | part(!message.headers.is_empty(), HEADERS)
            | part(message.key.is_some(), KEY)
            | part(message.value.is_some(), VALUE)
            | part(message.uptime.is_some(), UPTIME)
            | part(message.expires.is_some(), EXPIRES);
        Self {
            message,
            topic,
            uptime: None,
            scheduled: None,
            flags,
        }
    }

    /// The moment of its append, unless the message has one.
    pub(crate) fn set_uptime(&mut self, uptime: Uptime) {
        self.uptime = Some(uptime);
        self.flags |= UPTIME;
    }

    /// The message's own, or the other one.
    fn uptime(&self) -> Option<Uptime> {
        self.message.uptime.or(self.uptime)
    }

    /// With the number by which the schedule log knew it.
    pub(crate) fn scheduled_as(mut self, number: u64) -> Self {
        self.scheduled = Some(number);
        self.flags |= SCHEDULED;
        self
    }

    /// Whether it has a part that most messages have not.
    #[inline]
    fn is_special(&self) -> bool {
        self.flags & !(KEY | VALUE) != 0
    }

    /// What Kafka or the log would refuse whatever happens later, but for topic and due time.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        match self.flags & !VALUE {
            // Nothing that could be wrong is there.
            0 => Ok(()),
            _ => self.message.check_all_but_topic(),
        }
    }

    #[inline]
    pub(crate) fn encoded_len(&self) -> usize {
        let message = self.message;
        let topic_len = match self.topic {
            Topic::Id(id) => varint_len(id.into()),
            Topic::Inline => prefixed_len(message.topic.as_bytes()),
        };
        let special_len = match self.is_special() {
            true => self.special_len(),
            false => 0,
        };
        1 + varint_len(self.flags)
            + topic_len
            + special_len
            + message.key.map_or(0, prefixed_len)
            + message.value.map_or(0, <[u8]>::len)
    }

    fn special_len(&self) -> usize {
        let message = self.message;
        let header_len = match header_block_len(message.headers) {
            0 => 0,
            block_len => varint_len(len_u64(block_len)) + block_len,
        };
        message.partition.map_or(0, |p| varint_len(from_i32(p)))
            + message
                .timestamp_millis
                .map_or(0, |t| varint_len(from_i64(t)))
            + self
                .uptime()
                .map_or(0, |uptime| BOOT_LEN + varint_len(uptime.millis))
            + message.expires.map_or(0, |e| varint_len(from_expires(e)))
            + self.scheduled.map_or(0, varint_len)
            + header_len
    }

    #[inline]
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let message = self.message;
        let mut out = Out(out);
        out.bytes(&[VERSION]);
        out.varint(self.flags);
        match self.topic {
            Topic::Id(id) => out.varint(id.into()),
            Topic::Inline => out.prefixed(message.topic.as_bytes()),
        }
        if self.is_special() {
            self.encode_special(&mut out);
        }
        if let Some(key) = message.key {
            out.prefixed(key);
        }
        if let Some(value) = message.value {
            out.bytes(value);
        }
        assert!(out.0.is_empty(), "the buffer is longer than the message");
    }

    fn encode_special(&self, out: &mut Out<'_>) {
        let message = self.message;
        if let Some(partition) = message.partition {
            out.varint(from_i32(partition));
        }
        if let Some(timestamp_millis) = message.timestamp_millis {
            out.varint(from_i64(timestamp_millis));
        }
        if let Some(uptime) = self.uptime() {
            out.bytes(&uptime.boot.to_le_bytes());
            out.varint(uptime.millis);
        }
        if let Some(expires) = message.expires {
            out.varint(from_expires(expires));
        }
        if let Some(number) = self.scheduled {
            out.varint(number);
        }
        if !message.headers.is_empty() {
            out.varint(len_u64(header_block_len(message.headers)));
            for header in message.headers {
                out.prefixed(header.name.as_bytes());
                match header.value {
                    None => out.varint(0),
                    Some(value) => {
                        out.varint(len_u64(value.len()) + 1);
                        out.bytes(value);
                    }
                }
            }
        }
    }
}
