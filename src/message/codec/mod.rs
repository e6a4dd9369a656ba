//! The bytes of a message in the log. `docs/format.md`, "Message codec", is the specification.
//!
//! Owns nothing but the layout: pure functions over byte slices. It must not know where a topic id
//! comes from, nor judge whether a message makes sense: [`MessageRef::check`](super::MessageRef::check) did that before.
//!
//! Invariants: [`encode`] fills exactly the [`encoded_len`] bytes and allocates nothing;
//! [`decode`] of any bytes ends with a message or an error, and allocates nothing but the name of
//! a topic that stands inline.

#![deny(clippy::indexing_slicing)]

mod write;

use std::{error, fmt, sync::Arc};

use bytes::Bytes;

pub(crate) use self::write::Parts;
pub use self::write::{Topic, encode, encoded_len};
use super::{Expires, Header, Message, TOPIC_LEN_MAX, Uptime, check_topic};

/// First byte of every message.
const VERSION: u8 = 1;

// The flags, a varint of its own: one byte, unless a message expires by itself or was scheduled.
const TOPIC_INLINE: u64 = 1 << 0;
const PARTITION: u64 = 1 << 1;
const TIMESTAMP: u64 = 1 << 2;
const HEADERS: u64 = 1 << 3;
const KEY: u64 = 1 << 4;
const VALUE: u64 = 1 << 5;
const UPTIME: u64 = 1 << 6;
const EXPIRES: u64 = 1 << 7;
const SCHEDULED: u64 = 1 << 8;
const KNOWN: u64 =
    TOPIC_INLINE | PARTITION | TIMESTAMP | HEADERS | KEY | VALUE | UPTIME | EXPIRES | SCHEDULED;

/// Bytes of the number that names a boot. It is random: a varint would make it longer.
const BOOT_LEN: usize = 8;

/// Reads a message back. Its parts are slices of `payload`; `append_millis` is the time of the
/// append, used where the message has no timestamp of its own; `resolve` knows the topics' names.
///
/// # Errors
///
/// [`DecodeError`] says what is wrong with the bytes.
pub fn decode(
    payload: &Bytes,
    append_millis: i64,
    resolve: impl FnOnce(u32) -> Option<Arc<str>>,
) -> Result<Message, DecodeError> {
    let mut rest = In(payload);
    let [version] = *rest.take(1)? else {
        return Err(DecodeError::Truncated);
    };
    if version != VERSION {
        return Err(DecodeError::Version { found: version });
    }
    let flags = rest.varint()?;
    if flags & !KNOWN != 0 {
        return Err(DecodeError::UnknownParts { flags });
    }
    let has = |flag| flags & flag != 0;

    let topic = if has(TOPIC_INLINE) {
        topic_of(rest.prefixed()?)?
    } else {
        let id = u32::try_from(rest.varint()?).map_err(|_| DecodeError::Range)?;
        resolve(id).ok_or(DecodeError::UnknownTopic { id })?
    };
    let partition = if has(PARTITION) {
        Some(i32::try_from(rest.varint()?).map_err(|_| DecodeError::Range)?)
    } else {
        None
    };
    let timestamp_millis = if has(TIMESTAMP) {
        i64::try_from(rest.varint()?).map_err(|_| DecodeError::Range)?
    } else {
        append_millis
    };
    let uptime = has(UPTIME).then(|| rest.uptime()).transpose()?;
    let expires = has(EXPIRES).then(|| to_expires(rest.varint()?));
    let expires = expires.transpose()?;
    let scheduled = has(SCHEDULED).then(|| rest.varint()).transpose()?;
    let headers = if has(HEADERS) {
        HeaderBlock::check(payload.slice_ref(rest.prefixed()?))?
    } else {
        HeaderBlock::default()
    };
    let key = if has(KEY) {
        Some(payload.slice_ref(rest.prefixed()?))
    } else {
        None
    };
    let value = if has(VALUE) {
        Some(payload.slice_ref(rest.0))
    } else if rest.0.is_empty() {
        None
    } else {
        return Err(DecodeError::Trailing { len: rest.0.len() });
    };
    Ok(Message {
        topic,
        partition,
        key,
        timestamp_millis,
        timestamp_given: has(TIMESTAMP),
        expires,
        uptime,
        scheduled,
        value,
        headers,
    })
}

fn topic_of(name: &[u8]) -> Result<Arc<str>, DecodeError> {
    // The length first: what is wrong with a name is told with the name.
    let name = Some(name).filter(|name| name.len() <= TOPIC_LEN_MAX);
    name.and_then(|name| str::from_utf8(name).ok())
        .filter(|name| check_topic(name).is_ok())
        .map(Arc::from)
        .ok_or(DecodeError::Topic)
}

/// Bytes that the headers take in the log, their lengths included.
#[must_use]
pub(super) fn header_block_len(headers: &[Header<'_>]) -> usize {
    let header_len = |header: &Header<'_>| {
        prefixed_len(header.name.as_bytes())
            + header.value.map_or(1, |value| {
                varint_len(len_u64(value.len()) + 1) + value.len()
            })
    };
    headers.iter().map(header_len).sum()
}

/// The headers of a message as they lie in the log, each of them checked.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct HeaderBlock(Bytes);

impl HeaderBlock {
    fn check(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut rest = In(&bytes);
        while !rest.0.is_empty() {
            rest.header()?;
        }
        Ok(Self(bytes))
    }

    pub(super) fn iter(&self) -> Headers<'_> {
        Headers(In(&self.0))
    }
}

/// The headers of a message, in order.
#[derive(Clone, Debug)]
pub struct Headers<'a>(In<'a>);

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        // Every header was read once by `HeaderBlock::check`: an error here is the end.
        self.0.header().ok()
    }
}

/// Why bytes are no message. They are kept as they are: a record that does not decode is handed on
/// raw, never dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a part.
    Truncated,
    /// Written by a version of this crate that is not known here.
    Version {
        /// The version byte found.
        found: u8,
    },
    /// The flags name parts that are not known here: written by a newer version.
    UnknownParts {
        /// The flags found.
        flags: u64,
    },
    /// A number does not fit its part.
    Range,
    /// The log does not know the name of this topic.
    UnknownTopic {
        /// The number that stands for it.
        id: u32,
    },
    /// An inline topic is no valid name.
    Topic,
    /// The name of a header is no UTF-8.
    HeaderName,
    /// Bytes follow a message without a value.
    Trailing {
        /// How many.
        len: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the message ends inside one of its parts"),
            Self::Version { found } => {
                write!(f, "message version {found} is not known, {VERSION} is")
            }
            Self::UnknownParts { flags } => write!(
                f,
                "message flags {flags:#x} name parts that are not known, {KNOWN:#x} are"
            ),
            Self::Range => write!(f, "a number of the message is out of range"),
            Self::UnknownTopic { id } => write!(f, "the log has no name for topic number {id}"),
            Self::Topic => write!(f, "the message's inline topic is no valid name"),
            Self::HeaderName => write!(f, "the name of a header is no utf-8"),
            Self::Trailing { len } => write!(f, "{len} bytes follow a message without a value"),
        }
    }
}

impl error::Error for DecodeError {}

/// What is left to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl<'a> In<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits > u64::MAX >> shift {
                return Err(DecodeError::Range);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Range)
    }

    pub(crate) fn prefixed(&mut self) -> Result<&'a [u8], DecodeError> {
        // A length that does not fit the address space does not fit the message either.
        let len = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        self.take(len)
    }

    fn uptime(&mut self) -> Result<Uptime, DecodeError> {
        let (boot, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(Uptime {
            boot: u64::from_le_bytes(*boot),
            millis: self.varint()?,
        })
    }

    fn header(&mut self) -> Result<Header<'a>, DecodeError> {
        let name = str::from_utf8(self.prefixed()?).map_err(|_| DecodeError::HeaderName)?;
        let value = match self.varint()?.checked_sub(1) {
            None => None,
            Some(len) => {
                Some(self.take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?)?)
            }
        };
        Ok(Header { name, value })
    }
}

/// What is left to be filled.
pub(crate) struct Out<'a>(pub(crate) &'a mut [u8]);

impl Out<'_> {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let (head, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        self.0 = rest;
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        loop {
            let low = low_seven_bits(value);
            value >>= 7;
            if value == 0 {
                return self.bytes(&[low]);
            }
            self.bytes(&[low | 0x80]);
        }
    }

    pub(crate) fn prefixed(&mut self, bytes: &[u8]) {
        self.varint(len_u64(bytes.len()));
        self.bytes(bytes);
    }
}

const fn low_seven_bits(value: u64) -> u8 {
    (value & 0x7f) as u8
}

pub(crate) const fn varint_len(value: u64) -> usize {
    match value.checked_ilog2() {
        None => 1,
        Some(highest_bit) => highest_bit as usize / 7 + 1,
    }
}

pub(crate) const fn prefixed_len(bytes: &[u8]) -> usize {
    varint_len(len_u64(bytes.len())) + bytes.len()
}

/// A length as it is written; `usize` never has more than 64 bits.
pub(crate) const fn len_u64(len: usize) -> u64 {
    len as u64
}

fn from_i32(partition: i32) -> u64 {
    from_i64(partition.into())
}

/// The lowest bit says which of the two it is.
fn from_expires(expires: Expires) -> u64 {
    let (millis, is_deadline) = match expires {
        Expires::After(millis) => (millis, 0),
        Expires::At(millis) => (from_i64(millis), 1),
    };
    assert!(millis >> 62 == 0, "MessageRef::check refuses more");
    millis << 1 | is_deadline
}

fn to_expires(value: u64) -> Result<Expires, DecodeError> {
    let millis = value >> 1;
    if millis >> 62 != 0 {
        return Err(DecodeError::Range);
    }
    Ok(if value & 1 == 0 {
        Expires::After(millis)
    } else {
        Expires::At(millis.cast_signed())
    })
}

fn from_i64(value: i64) -> u64 {
    assert!(value >= 0, "MessageRef::check refuses negative numbers");
    value.unsigned_abs()
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests may fail by panic, and cut random numbers"
)]
pub(crate) mod tests {
    use super::*;
    use crate::message::MessageRef;

    /// The bytes of a worked example in `docs/format.md`, under this heading.
    pub(crate) fn documented(heading: &str) -> Vec<u8> {
        let document = include_str!("../../../docs/format.md");
        let (_, section) = document.split_once(heading).unwrap();
        let (_, block) = section.split_once("```text\n").unwrap();
        let (block, _) = block.split_once("```").unwrap();
        block
            .lines()
            .flat_map(|line| line.split('|').next().unwrap().split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect()
    }

    /// SplitMix64: small, and the same everywhere.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, end: u64) -> u64 {
            self.next() % end
        }

        fn bytes(&mut self, len_end: u64) -> Vec<u8> {
            (0..self.below(len_end))
                .map(|_| low_seven_bits(self.next()) ^ 0xa5)
                .collect()
        }

        fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
            (self.below(2) == 0).then(|| make(self))
        }
    }

    /// Owned parts of a generated message.
    struct Drawn {
        topic: String,
        interned: Topic,
        partition: Option<i32>,
        key: Option<Vec<u8>>,
        headers: Vec<(String, Option<Vec<u8>>)>,
        timestamp_millis: Option<i64>,
        uptime: Option<Uptime>,
        expires: Option<Expires>,
        value: Option<Vec<u8>>,
    }

    impl Drawn {
        fn generate(random: &mut Random) -> Self {
            const CHARACTERS: &[u8] = b"abcXYZ019._-";
            let topic_len = 1 + random.below(TOPIC_LEN_MAX as u64);
            let topic: String = (0..topic_len)
                .map(|_| CHARACTERS[random.below(12) as usize] as char)
                .collect();
            let header_count = random.below(5);
            Self {
                // A name of dots alone may be one of the reserved ones.
                topic: if topic_len < 3 { "ab".into() } else { topic },
                interned: match random.maybe(Random::next) {
                    Some(id) => Topic::Id((id >> random.below(32) & u64::from(u32::MAX)) as u32),
                    None => Topic::Inline,
                },
                partition: random.maybe(|r| (r.next() >> 33 >> r.below(31)) as i32),
                key: random.maybe(|r| r.bytes(300)),
                headers: (0..header_count)
                    .map(|n| (format!("h{n}"), random.maybe(|r| r.bytes(200))))
                    .collect(),
                timestamp_millis: random.maybe(|r| (r.next() >> 1 >> r.below(63)) as i64),
                uptime: random.maybe(|r| Uptime {
                    boot: r.next(),
                    millis: r.next() >> r.below(64),
                }),
                expires: random.maybe(|r| {
                    let millis = r.next() >> 2 >> r.below(62);
                    match r.below(2) {
                        0 => Expires::After(millis),
                        _ => Expires::At(millis as i64),
                    }
                }),
                value: random.maybe(|r| r.bytes(2_000)),
            }
        }

        fn with<T>(&self, use_it: impl FnOnce(MessageRef<'_>) -> T) -> T {
            let headers: Vec<Header<'_>> = self
                .headers
                .iter()
                .map(|(name, value)| Header {
                    name,
                    value: value.as_deref(),
                })
                .collect();
            use_it(MessageRef {
                topic: &self.topic,
                lane: None,
                partition: self.partition,
                key: self.key.as_deref(),
                headers: &headers,
                timestamp_millis: self.timestamp_millis,
                uptime: self.uptime,
                expires: self.expires,
                due: None,
                value: self.value.as_deref(),
            })
        }

        fn encoded(&self) -> Bytes {
            self.with(|message| {
                assert_eq!(message.check(), Ok(()));
                let mut out = vec![0xee; encoded_len(&message, self.interned)];
                encode(&message, self.interned, &mut out);
                out.into()
            })
        }

        fn resolver(&self) -> impl FnOnce(u32) -> Option<Arc<str>> + use<> {
            let (known, name) = (self.interned, Arc::from(self.topic.as_str()));
            move |id| (Topic::Id(id) == known).then_some(name)
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn what_is_decoded_equals_what_was_encoded() {
        let seed = 0xfe44_1706;
        let mut random = Random(seed);
        for round in 0..2_000 {
            let parts = Drawn::generate(&mut random);
            let place = format!("seed {seed:#x}, round {round}");
            let message = decode(&parts.encoded(), 77, parts.resolver())
                .unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(*message.topic, *parts.topic, "{place}");
            assert_eq!(message.partition, parts.partition, "{place}");
            assert_eq!(message.key.as_deref(), parts.key.as_deref(), "{place}");
            assert_eq!(
                message.timestamp_millis,
                parts.timestamp_millis.unwrap_or(77),
                "{place}"
            );
            assert_eq!(message.timestamp_given, parts.timestamp_millis.is_some());
            assert_eq!(message.uptime, parts.uptime, "{place}");
            assert_eq!(message.expires, parts.expires, "{place}");
            assert_eq!(message.value.as_deref(), parts.value.as_deref(), "{place}");
            parts.with(|given| {
                assert!(
                    message.headers().eq(given.headers.iter().copied()),
                    "{place}"
                );
            });
        }
    }

    /// The parts of a message lie inside the bytes it was read from: so decoding can neither
    /// invent bytes nor allocate more than the input holds.
    fn check_parts_lie_inside(message: &Message, payload: &Bytes) {
        let range = payload.as_ptr_range();
        let inside = |part: &[u8]| {
            let part = part.as_ptr_range();
            part.is_empty() || (range.start <= part.start && part.end <= range.end)
        };
        assert!(message.key.as_deref().is_none_or(inside));
        assert!(message.value.as_deref().is_none_or(inside));
        for header in message.headers() {
            assert!(inside(header.name.as_bytes()) && header.value.is_none_or(inside));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn every_truncation_is_a_message_or_an_error() {
        let seed = 0x7201_c47e;
        let mut random = Random(seed);
        for round in 0..60 {
            let parts = Drawn::generate(&mut random);
            let whole = parts.encoded();
            let value_len = parts.value.as_ref().map_or(0, Vec::len);
            for len in 0..whole.len() {
                let cut = whole.slice(..len);
                match decode(&cut, 0, parts.resolver()) {
                    Ok(message) => {
                        // Only the value reaches to the end, so only it may come back shorter.
                        assert!(
                            whole.len() - len <= value_len,
                            "seed {seed:#x}, {round}, {len}"
                        );
                        check_parts_lie_inside(&message, &cut);
                    }
                    Err(error) => assert_eq!(
                        error,
                        DecodeError::Truncated,
                        "seed {seed:#x}, {round}, {len}"
                    ),
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn every_single_byte_change_is_a_message_or_an_error() {
        let seed = 0xb17f_1195;
        let mut random = Random(seed);
        let (mut messages, mut errors) = (0, 0);
        for _ in 0..20 {
            let mut parts = Drawn::generate(&mut random);
            parts.value = parts
                .value
                .map(|value| value[..value.len().min(20)].to_vec());
            let whole = parts.encoded();
            for position in 0..whole.len() {
                for byte in 0..=u8::MAX {
                    let mut changed = whole.to_vec();
                    changed[position] = byte;
                    let changed = Bytes::from(changed);
                    match decode(&changed, 0, parts.resolver()) {
                        Ok(message) => {
                            check_parts_lie_inside(&message, &changed);
                            messages += 1;
                        }
                        Err(error) => {
                            assert!(!error.to_string().is_empty());
                            errors += 1;
                        }
                    }
                }
            }
        }
        assert!(messages > 0 && errors > 0, "seed {seed:#x}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn any_bytes_are_a_message_or_an_error() {
        let seed = 0x9a2b_a9e5;
        let mut random = Random(seed);
        for _ in 0..50_000 {
            let mut bytes = random.bytes(64);
            // Most random bytes end at the version: let half of them get past it.
            if let Some(first) = bytes.first_mut().filter(|_| random.below(2) == 0) {
                *first = VERSION;
            }
            let payload = Bytes::from(bytes);
            if let Ok(message) = decode(&payload, 0, |id| (id < 64).then(|| Arc::from("t"))) {
                check_parts_lie_inside(&message, &payload);
            }
        }
    }

    #[test]
    fn numbers_at_every_edge_survive() {
        for shift in 0..64 {
            for value in [1 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = [0; 10];
                let bytes = &mut bytes[..varint_len(value)];
                Out(bytes).varint(value);
                let mut rest = In(bytes);
                assert_eq!((rest.varint(), rest.0.len()), (Ok(value), 0), "{value}");
            }
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_out_of_range() {
        let eleven_bytes = [0xff; 11];
        assert_eq!(In(&eleven_bytes).varint(), Err(DecodeError::Range));
        let bit_64 = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02];
        assert_eq!(In(&bit_64).varint(), Err(DecodeError::Range));
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused_not_guessed() {
        let newer = Bytes::from_static(&[2, 0, 0]);
        assert_eq!(
            decode(&newer, 0, |_| None),
            Err(DecodeError::Version { found: 2 })
        );
        // Bit 9 is the next one.
        let newer_part = Bytes::from_static(&[1, 0xa0, 0x04, 0, b'v']);
        assert_eq!(
            decode(&newer_part, 0, |_| Some("t".into())),
            Err(DecodeError::UnknownParts { flags: 0x220 })
        );
    }

    /// Builds that know only the first six flags refuse what the next two announce: the bits they
    /// call unknown are set.
    #[test]
    fn a_record_of_an_untrusted_clock_is_refused_by_older_builds_and_a_trusted_one_is_not() {
        const KNOWN_BEFORE: u64 = 0x3f;
        let plain = MessageRef {
            value: Some(b"v"),
            ..MessageRef::to("t")
        };
        let uptime = Some(Uptime {
            boot: 7,
            millis: 90_000,
        });
        let untrusted = MessageRef { uptime, ..plain };
        let expiring = MessageRef {
            expires: Some(Expires::After(9)),
            ..plain
        };
        for (message, is_known, len) in [
            (plain, true, 4),
            (untrusted, false, 15),
            (expiring, false, 6),
        ] {
            let flags = Parts::of(&message, Topic::Id(0)).flags;
            assert_eq!(flags & !KNOWN_BEFORE == 0, is_known);
            assert_eq!(encoded_len(&message, Topic::Id(0)), len);
        }
    }

    #[test]
    fn a_record_that_was_due_later_says_by_which_number_it_waited() {
        let message = MessageRef {
            expires: Some(Expires::After(9)),
            value: Some(b"v"),
            ..MessageRef::to("t")
        };
        for number in [0, 300, u64::MAX] {
            let parts = Parts::of(&message, Topic::Id(0)).scheduled_as(number);
            let mut out = vec![0; parts.encoded_len()];
            parts.encode(&mut out);
            let read = decode(&out.into(), 0, |_| Some("t".into())).unwrap();
            assert_eq!(read.scheduled, Some(number));
            assert_eq!(
                (read.expires, read.value.as_deref()),
                (message.expires, message.value)
            );
        }
    }

    #[test]
    fn an_unknown_topic_number_is_named() {
        let payload = Bytes::from_static(&[1, 0x20, 9, b'v']);
        let error = decode(&payload, 0, |_| None).unwrap_err();
        assert_eq!(error, DecodeError::UnknownTopic { id: 9 });
        assert!(error.to_string().contains("topic number 9"));
    }

    #[test]
    fn an_expiry_beyond_any_clock_is_out_of_range() {
        let payload = Bytes::from_static(&[
            1, 0x80, 0x01, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
        ]);
        assert_eq!(
            decode(&payload, 0, |_| Some("t".into())),
            Err(DecodeError::Range)
        );
    }

    #[test]
    fn bytes_behind_a_tombstone_are_refused() {
        let payload = Bytes::from_static(&[1, 0, 0, 1, 2]);
        assert_eq!(
            decode(&payload, 0, |_| Some("t".into())),
            Err(DecodeError::Trailing { len: 2 })
        );
    }

    #[test]
    fn an_empty_value_is_no_tombstone() {
        for value in [None, Some(&b""[..])] {
            let message = MessageRef {
                value,
                ..MessageRef::to("t")
            };
            let mut out = vec![0; encoded_len(&message, Topic::Id(0))];
            encode(&message, Topic::Id(0), &mut out);
            let read = decode(&out.into(), 0, |_| Some("t".into())).unwrap();
            assert_eq!(read.value.as_deref(), value);
        }
    }

    /// The worked example of the format document is what is written here.
    #[test]
    fn the_worked_example_holds() {
        let message = MessageRef {
            topic: "temps",
            lane: None,
            partition: Some(3),
            key: Some(b"site-17"),
            headers: &[
                Header {
                    name: "unit",
                    value: Some(b"C"),
                },
                Header {
                    name: "raw",
                    value: None,
                },
            ],
            timestamp_millis: Some(1_700_000_000_000),
            expires: None,
            due: None,
            uptime: None,
            value: Some(b"21.4"),
        };
        let mut out = vec![0; encoded_len(&message, Topic::Id(1))];
        encode(&message, Topic::Id(1), &mut out);

        assert_eq!(out, documented("### A worked message"));
    }
}
