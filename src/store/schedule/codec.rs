//! The bytes of the schedule log. F18 in `docs/format.md` is the specification.
//!
//! Owns nothing but the layout: pure functions over byte slices. It must not know what is due, nor
//! whether what a mark speaks of is there.
//!
//! Invariants: what is decoded equals what was encoded; [`decode`] of any bytes ends with an entry or
//! an error, and allocates no more than they hold.

#![deny(clippy::indexing_slicing)]

use bytes::Bytes;

use super::due::Accepted;
use crate::{
    message::{
        Due, MessageRef, TOPIC_LEN_MAX, Uptime,
        codec::{self, DecodeError, In, Parts, Topic},
    },
    store::LANE_LEN_MAX,
    wal::SeqNo,
};

/// First byte of every entry.
pub(super) const VERSION: u8 = 1;
const KIND_SCHEDULED: u8 = 1;
const KIND_FIRING: u8 = 2;
const KIND_FIRED: u8 = 3;
const KIND_CALLED_OFF: u8 = 4;

// Flags of a record that waits.
const AGAIN: u64 = 1 << 0;
const AT: u64 = 1 << 1;
const WALL: u64 = 1 << 2;
const KNOWN: u64 = AGAIN | AT | WALL;

/// Most bytes that an entry takes beyond its message as a lane has it: a topic and a lane in full
/// length, and numbers.
pub(super) const OVERHEAD_MAX: usize = TOPIC_LEN_MAX + LANE_LEN_MAX + 64;

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// A record waits.
    Scheduled(Scheduled),
    /// These are about to be appended to a lane, at or behind this number of it.
    Firing {
        lane: String,
        from: SeqNo,
        ids: Vec<u64>,
    },
    /// What the entry of this number announced was done.
    Fired { firing: SeqNo },
    /// It was not.
    CalledOff { firing: SeqNo },
}

/// A record that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Scheduled {
    /// Its first number in this log, if that is not this one's.
    pub(super) id: Option<u64>,
    pub(super) due: Due,
    pub(super) accepted: Accepted,
    pub(super) lane: String,
    /// The bytes of a message, its topic inline; they decode.
    pub(super) message: Bytes,
}

/// Why bytes are no entry: another version's, or nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Foreign;

impl From<DecodeError> for Foreign {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// A message as it waits.
pub(super) fn message(message: &MessageRef<'_>) -> Vec<u8> {
    // The entry has that.
    let message = MessageRef {
        uptime: None,
        ..*message
    };
    let parts = Parts::of(&message, Topic::Inline);
    let mut out = vec![0; parts.encoded_len()];
    parts.encode(&mut out);
    out
}

pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut out = vec![VERSION];
    match entry {
        Entry::Scheduled(scheduled) => scheduled.encode(&mut out),
        Entry::Firing { lane, from, ids } => {
            out.push(KIND_FIRING);
            put_text(&mut out, lane);
            put(&mut out, from.get());
            put(&mut out, ids.len() as u64);
            ids.iter().for_each(|id| put(&mut out, *id));
        }
        Entry::Fired { firing } => {
            out.push(KIND_FIRED);
            put(&mut out, firing.get());
        }
        Entry::CalledOff { firing } => {
            out.push(KIND_CALLED_OFF);
            put(&mut out, firing.get());
        }
    }
    out
}

impl Scheduled {
    fn encode(&self, out: &mut Vec<u8>) {
        let (millis, at) = match self.due {
            Due::After(millis) => (millis, 0),
            Due::At(millis) => (millis.max(0).unsigned_abs(), AT),
        };
        // A wall clock that is believed is behind 1970.
        let wall = self.accepted.wall_millis.filter(|millis| *millis >= 0);
        out.push(KIND_SCHEDULED);
        let again = self.id.map_or(0, |_| AGAIN);
        put(out, again | at | wall.map_or(0, |_| WALL));
        self.id.into_iter().for_each(|id| put(out, id));
        put(out, millis);
        out.extend_from_slice(&self.accepted.uptime.boot.to_le_bytes());
        put(out, self.accepted.uptime.millis);
        wall.into_iter().for_each(|at| put(out, at.unsigned_abs()));
        put_text(out, &self.lane);
        out.extend_from_slice(&self.message);
    }

    fn decode(rest: &mut In<'_>, payload: &Bytes) -> Result<Self, Foreign> {
        let flags = rest.varint()?;
        if flags & !KNOWN != 0 {
            return Err(Foreign);
        }
        let has = |flag| flags & flag != 0;
        let id = has(AGAIN).then(|| rest.varint()).transpose()?;
        let millis = rest.varint()?;
        let due = if has(AT) {
            Due::At(i64::try_from(millis).map_err(|_| Foreign)?)
        } else {
            Due::After(millis)
        };
        let boot = rest.take(8)?.first_chunk().ok_or(Foreign)?;
        let uptime = Uptime {
            boot: u64::from_le_bytes(*boot),
            millis: rest.varint()?,
        };
        let wall = has(WALL).then(|| rest.varint()).transpose()?;
        let wall = wall.map(i64::try_from).transpose().map_err(|_| Foreign)?;
        let lane = text(rest)?;
        let message = payload.slice_ref(rest.0);
        codec::decode(&message, 0, |_| None)?;
        Ok(Self {
            id,
            due,
            accepted: Accepted {
                uptime,
                wall_millis: wall,
            },
            lane,
            message,
        })
    }
}

pub(super) fn decode(payload: &Bytes) -> Result<Entry, Foreign> {
    let mut rest = In(payload);
    let [VERSION, kind] = *rest.take(2)? else {
        return Err(Foreign);
    };
    let entry = match kind {
        KIND_SCHEDULED => return Scheduled::decode(&mut rest, payload).map(Entry::Scheduled),
        KIND_FIRING => {
            let (lane, from) = (text(&mut rest)?, number(&mut rest)?);
            let count = rest.varint()?;
            // Each takes a byte at least: so the count allocates no more than is there.
            if count > rest.0.len() as u64 {
                return Err(Foreign);
            }
            let ids = (0..count).map(|_| rest.varint());
            let ids = ids.collect::<Result<_, _>>()?;
            Entry::Firing { lane, from, ids }
        }
        KIND_FIRED => Entry::Fired {
            firing: number(&mut rest)?,
        },
        KIND_CALLED_OFF => Entry::CalledOff {
            firing: number(&mut rest)?,
        },
        _ => return Err(Foreign),
    };
    if rest.0.is_empty() {
        Ok(entry)
    } else {
        Err(Foreign)
    }
}

/// Any bytes as an entry: `None`, they are none; else whether it is the same once it was written again. For
/// who feeds it any bytes.
#[doc(hidden)]
#[must_use]
pub fn reread(payload: &Bytes) -> Option<bool> {
    let entry = decode(payload).ok()?;
    Some(decode(&encode(&entry).into()) == Ok(entry))
}

fn number(rest: &mut In<'_>) -> Result<SeqNo, Foreign> {
    let number = rest.varint()?;
    if number < SeqNo::LIMIT.get() {
        Ok(SeqNo::new(number))
    } else {
        Err(Foreign)
    }
}

fn text(rest: &mut In<'_>) -> Result<String, Foreign> {
    let text = str::from_utf8(rest.prefixed()?).map_err(|_| Foreign)?;
    Ok(text.to_owned())
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests may fail by panic")]
mod tests {
    use super::*;
    use crate::message::codec::tests::documented;

    fn scheduled(id: Option<u64>, due: Due, wall_millis: Option<i64>) -> Entry {
        Entry::Scheduled(Scheduled {
            id,
            due,
            accepted: Accepted {
                uptime: Uptime {
                    boot: 0x0807_0605_0403_0201,
                    millis: 300,
                },
                wall_millis,
            },
            lane: "high".into(),
            message: Bytes::from_static(&[1, 0x21, 1, b't', b'v']),
        })
    }

    fn entries() -> Vec<Entry> {
        let firing = |count| Entry::Firing {
            lane: "default".into(),
            from: SeqNo::new(7),
            ids: (0..count).map(|n| n * 1_000).collect(),
        };
        vec![
            scheduled(None, Due::After(60_000), None),
            scheduled(Some(u64::MAX), Due::At(0), Some(1_700_000_000_000)),
            scheduled(Some(0), Due::At(i64::MAX), Some(0)),
            scheduled(None, Due::After(u64::MAX), Some(i64::MAX)),
            firing(0),
            firing(1_000),
            Entry::Fired {
                firing: SeqNo::new(300),
            },
            Entry::CalledOff {
                firing: SeqNo::ZERO,
            },
        ]
    }

    #[test]
    fn f18_what_is_decoded_equals_what_was_encoded() {
        for entry in entries() {
            let bytes: Bytes = encode(&entry).into();
            assert_eq!(reread(&bytes), Some(true));
            assert_eq!(decode(&bytes), Ok(entry));
        }
    }

    #[test]
    fn f18_every_cut_of_a_mark_and_whatever_a_newer_version_wrote_is_refused() {
        for entry in entries() {
            let whole = encode(&entry);
            for len in 0..whole.len() {
                let cut = decode(&Bytes::copy_from_slice(&whole[..len]));
                // Only a message reaches to the end, and is judged when it is read.
                assert!(
                    cut.is_err() || matches!(entry, Entry::Scheduled(_)),
                    "{len}"
                );
            }
            let mut longer = whole.clone();
            longer.push(0);
            assert!(decode(&longer.into()).is_err() || matches!(entry, Entry::Scheduled(_)));
            for newer in [[2, whole[1]], [1, 9]] {
                let newer = [&newer, &whole[2..]].concat();
                assert_eq!(decode(&newer.into()), Err(Foreign));
            }
        }
        let unknown_part = Bytes::from_static(&[1, 1, 8, 0, 0]);
        assert_eq!(decode(&unknown_part), Err(Foreign));
        // A count that promises more than there is allocates nothing.
        let many = [1, 2, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(decode(&Bytes::copy_from_slice(&many)), Err(Foreign));
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn f18_every_changed_byte_is_an_entry_or_an_error() {
        for entry in &entries()[..4] {
            let whole = encode(entry);
            for position in 0..whole.len() {
                for byte in 0..=u8::MAX {
                    let mut changed = whole.clone();
                    changed[position] = byte;
                    drop(decode(&changed.into()));
                }
            }
        }
    }

    /// The worked example of the format document is what is written here.
    #[test]
    fn f18_the_worked_example_holds() {
        let entry = Entry::Scheduled(Scheduled {
            id: None,
            due: Due::After(60_000),
            accepted: Accepted {
                uptime: Uptime {
                    boot: 0x0807_0605_0403_0201,
                    millis: 300,
                },
                wall_millis: Some(1_700_000_000_000),
            },
            lane: "high".into(),
            message: message(&MessageRef {
                value: Some(b"v"),
                ..MessageRef::to("temps")
            })
            .into(),
        });
        assert_eq!(encode(&entry), documented("### A worked entry"));
    }
}
