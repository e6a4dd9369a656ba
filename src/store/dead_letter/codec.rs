//! The bytes of a dead letter, and of a change of its state. `docs/format.md`, "Dead letters", is the
//! specification.
//!
//! Owns nothing but the layout: pure functions over byte slices. It must not know what a change
//! means, nor whether the letter it speaks of is there.
//!
//! Invariants: what is decoded equals what was encoded, but for texts that were too long, which are
//! cut; [`decode`] of any bytes ends with a record or an error, and allocates no more than they hold.

#![deny(clippy::indexing_slicing)]

use std::{error, fmt};

use bytes::Bytes;

use super::letter::{
    Body, CLASS_LEN_MAX, Cause, Content, LANE_LEN_MAX, Letter, Origin, REASON_LEN_MAX, Stage,
};
use crate::{
    message::{
        TOPIC_LEN_MAX,
        codec::{self, DecodeError, In, Out, Topic, len_u64, prefixed_len, varint_len},
    },
    wal::{LogId, SeqNo},
};

/// First byte of every record.
const VERSION: u8 = 1;
const KIND_LETTER: u8 = 1;
const KIND_CHANGE: u8 = 2;

// Flags of a letter.
const RAW: u64 = 1 << 0;
const REPLACES: u64 = 1 << 1;
const KNOWN: u64 = RAW | REPLACES;

/// Most bytes that a letter takes beyond its message as the lane has it: the texts in full length,
/// a topic that stands inline, a partition and a time that the message may not have, and numbers.
pub(super) const LETTER_OVERHEAD_MAX: usize =
    LANE_LEN_MAX + CLASS_LEN_MAX + REASON_LEN_MAX + TOPIC_LEN_MAX + 128;

/// What is said about letters that stand already.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Change {
    /// To be sent again.
    Pending,
    /// Not to be sent again: withdrawn, or refused once more.
    Kept,
    /// Kafka has it where it belongs.
    Replayed,
    /// Given up.
    Dropped,
    /// The dead-letter topic has it.
    Copied,
    /// The dead-letter topic refused it.
    CopyRefused(i32),
}

/// Most numbers that one record of a change names: it stays well below a frame of the log.
pub(crate) const CHANGE_SEQS_MAX: usize = 4096;

/// One record of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Letter(Box<Body>),
    Change { change: Change, seqs: Vec<SeqNo> },
}

/// Why bytes are no record of this log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Malformed {
    /// Written by a version of this crate that is not known here.
    Version {
        /// The version byte found.
        found: u8,
    },
    /// Neither a letter nor a change, or a flag, stage or change that is not known here.
    Unknown {
        /// What it is.
        what: &'static str,
        /// The number found.
        found: u64,
    },
    /// A text is no UTF-8, or longer than any that is written.
    Text,
    /// A change names no letter, or the same one twice.
    Numbers,
    /// A part is not what it should be, or the message is none.
    Part(DecodeError),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => {
                write!(f, "dead-letter version {found} is not known, {VERSION} is")
            }
            Self::Unknown { what, found } => write!(f, "a {what} of number {found} is not known"),
            Self::Text => write!(f, "a text of the letter is no utf-8, or too long"),
            Self::Numbers => write!(f, "the numbers of a change do not rise"),
            Self::Part(part) => part.fmt(f),
        }
    }
}

impl error::Error for Malformed {}

impl From<DecodeError> for Malformed {
    fn from(part: DecodeError) -> Self {
        Self::Part(part)
    }
}

/// The bytes of a letter; `replaces` is the one whose place it takes.
///
/// # Panics
///
/// Panics if its message does not pass [`MessageRef::check`](crate::message::MessageRef::check).
pub(crate) fn letter(letter: &Letter<'_>, replaces: Option<SeqNo>) -> Vec<u8> {
    let Cause {
        class,
        code,
        stage,
        reason,
        attempts,
        first_attempt_millis,
        last_attempt_millis,
    } = letter.cause;
    let texts = [
        cut(letter.lane, LANE_LEN_MAX),
        cut(class, CLASS_LEN_MAX),
        cut(reason, REASON_LEN_MAX),
    ];
    let flags = match letter.content {
        Content::Message(_) => 0,
        Content::Raw(_) => RAW,
    } | replaces.map_or(0, |_| REPLACES);
    let numbers = [
        letter.origin.seq.get(),
        zigzag(code.into()),
        stage_code(stage),
        attempts.into(),
        zigzag(first_attempt_millis),
        zigzag(last_attempt_millis),
    ];
    let content_len = match &letter.content {
        Content::Message(message) => codec::encoded_len(message, Topic::Inline),
        Content::Raw(raw) => raw.len(),
    };
    let len = 2
        + varint_len(flags)
        + 16
        + replaces.map_or(0, |seq| varint_len(seq.get()))
        + numbers.into_iter().map(varint_len).sum::<usize>()
        + texts
            .map(|text| prefixed_len(text.as_bytes()))
            .iter()
            .sum::<usize>()
        + content_len;

    let mut bytes = vec![0; len];
    let mut out = Out(&mut bytes);
    out.bytes(&[VERSION, KIND_LETTER]);
    out.varint(flags);
    out.bytes(&letter.origin.log_id.bytes());
    if let Some(seq) = replaces {
        out.varint(seq.get());
    }
    numbers.into_iter().for_each(|number| out.varint(number));
    texts
        .into_iter()
        .for_each(|text| out.prefixed(text.as_bytes()));
    match &letter.content {
        Content::Message(message) => codec::encode(message, Topic::Inline, out.0),
        Content::Raw(raw) => out.bytes(raw),
    }
    bytes
}

/// The bytes of a change of these letters, whose numbers rise.
pub(crate) fn change(change: Change, seqs: &[SeqNo]) -> Vec<u8> {
    let (what, code) = change_code(change);
    let code = code.map(|code| zigzag(code.into()));
    // The first number, then the distance from one to the next.
    let mut last = SeqNo::ZERO;
    let distances: Vec<u64> = seqs
        .iter()
        .map(|&seq| {
            let distance = seq - last;
            last = seq;
            distance
        })
        .collect();
    let len = 2
        + varint_len(what)
        + code.map_or(0, varint_len)
        + varint_len(len_u64(seqs.len()))
        + distances.iter().map(|&d| varint_len(d)).sum::<usize>();
    let mut bytes = vec![0; len];
    let mut out = Out(&mut bytes);
    out.bytes(&[VERSION, KIND_CHANGE]);
    out.varint(what);
    if let Some(code) = code {
        out.varint(code);
    }
    out.varint(len_u64(seqs.len()));
    distances
        .into_iter()
        .for_each(|distance| out.varint(distance));
    bytes
}

/// Reads one record back. Its message's parts are slices of `payload`.
///
/// # Errors
///
/// [`Malformed`] says what is wrong with the bytes.
pub(crate) fn decode(payload: &Bytes) -> Result<Entry, Malformed> {
    let mut rest = In(payload);
    let [version] = *rest.take(1)? else {
        return Err(DecodeError::Truncated.into());
    };
    if version != VERSION {
        return Err(Malformed::Version { found: version });
    }
    let [kind] = *rest.take(1)? else {
        return Err(DecodeError::Truncated.into());
    };
    match kind {
        KIND_LETTER => decode_letter(payload, rest).map(|body| Entry::Letter(Box::new(body))),
        KIND_CHANGE => decode_change(rest),
        kind => Err(Malformed::Unknown {
            what: "record",
            found: kind.into(),
        }),
    }
}

fn decode_letter(payload: &Bytes, mut rest: In<'_>) -> Result<Body, Malformed> {
    let flags = rest.varint()?;
    if flags & !KNOWN != 0 {
        let what = "flag";
        return Err(Malformed::Unknown { what, found: flags });
    }
    let log_id = <[u8; 16]>::try_from(rest.take(16)?).map_err(|_| DecodeError::Truncated)?;
    let replaces = match flags & REPLACES {
        0 => None,
        _ => Some(SeqNo::new(rest.varint()?)),
    };
    let origin = Origin {
        log_id: LogId::new(log_id),
        seq: SeqNo::new(rest.varint()?),
    };
    let code = i32::try_from(unzigzag(rest.varint()?)).map_err(|_| DecodeError::Range)?;
    let stage = rest.varint()?;
    let stage = Stage::ALL
        .into_iter()
        .find(|known| stage_code(*known) == stage)
        .ok_or(Malformed::Unknown {
            what: "stage",
            found: stage,
        })?;
    let attempts = u32::try_from(rest.varint()?).map_err(|_| DecodeError::Range)?;
    let first_attempt_millis = unzigzag(rest.varint()?);
    let last_attempt_millis = unzigzag(rest.varint()?);
    let lane = text(&mut rest, LANE_LEN_MAX)?;
    let class = text(&mut rest, CLASS_LEN_MAX)?;
    let reason = text(&mut rest, REASON_LEN_MAX)?;
    let content = payload.slice_ref(rest.0);
    let content = if flags & RAW != 0 {
        Err(content)
    } else {
        // Its topic stands inline and its time was given: neither is looked up.
        Ok(codec::decode(&content, 0, |_| None)?)
    };
    Ok(Body {
        origin,
        replaces,
        lane,
        class,
        code,
        stage,
        reason,
        attempts,
        first_attempt_millis,
        last_attempt_millis,
        content,
    })
}

fn decode_change(mut rest: In<'_>) -> Result<Entry, Malformed> {
    let what = rest.varint()?;
    let change = match what {
        1 => Change::Pending,
        2 => Change::Kept,
        3 => Change::Replayed,
        4 => Change::Dropped,
        5 => Change::Copied,
        6 => {
            let code = unzigzag(rest.varint()?);
            Change::CopyRefused(i32::try_from(code).map_err(|_| DecodeError::Range)?)
        }
        found => {
            let what = "change";
            return Err(Malformed::Unknown { what, found });
        }
    };
    let count = rest.varint()?;
    // A number takes a byte at least: a count beyond that is refused before anything is allocated.
    if count == 0 || count > len_u64(rest.0.len().min(CHANGE_SEQS_MAX)) {
        return Err(Malformed::Numbers);
    }
    let mut seqs: Vec<SeqNo> = Vec::new();
    for _ in 0..count {
        let distance = rest.varint()?;
        let seq = match seqs.last() {
            None => Some(distance),
            Some(_) if distance == 0 => None,
            Some(last) => last.get().checked_add(distance),
        };
        seqs.push(SeqNo::new(seq.ok_or(Malformed::Numbers)?));
    }
    match rest.0.len() {
        0 => Ok(Entry::Change { change, seqs }),
        len => Err(DecodeError::Trailing { len }.into()),
    }
}

fn text(rest: &mut In<'_>, len_max: usize) -> Result<String, Malformed> {
    let bytes = rest.prefixed()?;
    let text = str::from_utf8(bytes).ok();
    let text = text.filter(|text| text.len() <= len_max);
    text.map(str::to_owned).ok_or(Malformed::Text)
}

/// The start of a text that fits, in whole characters.
fn cut(text: &str, len_max: usize) -> &str {
    text.get(..text.floor_char_boundary(len_max))
        .unwrap_or(text)
}

const fn stage_code(stage: Stage) -> u64 {
    match stage {
        Stage::Decode => 1,
        Stage::Schema => 2,
        Stage::Route => 3,
        Stage::Produce => 4,
    }
}

const fn change_code(change: Change) -> (u64, Option<i32>) {
    match change {
        Change::Pending => (1, None),
        Change::Kept => (2, None),
        Change::Replayed => (3, None),
        Change::Dropped => (4, None),
        Change::Copied => (5, None),
        Change::CopyRefused(code) => (6, Some(code)),
    }
}

/// Small numbers of either sign become small: 0, -1, 1, -2 are 0, 1, 2, 3.
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;
    use crate::message::{Header, Message, MessageRef};

    const HEADERS: &[Header<'_>] = &[
        Header {
            name: "unit",
            value: Some(b"C"),
        },
        Header {
            name: "raw",
            value: None,
        },
    ];

    /// The letter of the worked example.
    fn example() -> Letter<'static> {
        Letter {
            origin: Origin {
                log_id: LogId::new([0xab; 16]),
                seq: SeqNo::new(300),
            },
            lane: "default",
            cause: Cause {
                class: "poison",
                code: 10,
                stage: Stage::Produce,
                reason: "too large",
                attempts: 1,
                first_attempt_millis: 1_700_000_000_000,
                last_attempt_millis: 1_700_000_000_500,
            },
            content: Content::Message(MessageRef {
                partition: Some(3),
                key: Some(b"site-17"),
                headers: HEADERS,
                timestamp_millis: Some(1_700_000_000_000),
                value: Some(b"21.4"),
                ..MessageRef::to("temps")
            }),
        }
    }

    fn read(bytes: Vec<u8>) -> Body {
        match decode(&bytes.into()) {
            Ok(Entry::Letter(body)) => *body,
            other => panic!("no letter: {other:?}"),
        }
    }

    fn assert_same(body: &Body, letter: &Letter<'_>, replaces: Option<SeqNo>) {
        assert_eq!(body.origin, letter.origin);
        assert_eq!(body.replaces, replaces);
        assert_eq!(body.lane, letter.lane);
        assert_eq!(body.cause(), letter.cause);
        match (&body.content, &letter.content) {
            (Ok(read), Content::Message(message)) => assert_same_message(read, message),
            (Err(read), Content::Raw(raw)) => assert_eq!(read, raw),
            other => panic!("another kind of content: {other:?}"),
        }
    }

    fn assert_same_message(read: &Message, message: &MessageRef<'_>) {
        assert_eq!(&*read.topic, message.topic);
        assert_eq!(read.partition, message.partition);
        assert_eq!(read.key.as_deref(), message.key);
        assert_eq!(read.headers().collect::<Vec<_>>(), message.headers);
        assert_eq!(Some(read.timestamp_millis), message.timestamp_millis);
        assert_eq!(read.value.as_deref(), message.value);
    }

    /// Letters of every shape: each stage, each content, with and without a predecessor.
    fn letters() -> Vec<(Letter<'static>, Option<SeqNo>)> {
        let mut all = Vec::new();
        let bare = MessageRef {
            timestamp_millis: Some(0),
            ..MessageRef::to("t")
        };
        let Content::Message(full) = example().content else {
            unreachable!("the example is a message")
        };
        for stage in Stage::ALL {
            for content in [
                Content::Message(full),
                Content::Message(bare),
                Content::Raw(b"\x02\xff"),
                Content::Raw(b""),
            ] {
                for (code, replaces) in [
                    (0, None),
                    (i32::MIN, Some(SeqNo::ZERO)),
                    (i32::MAX, Some(SeqNo::new(u64::MAX))),
                ] {
                    let mut letter = example();
                    letter.content = content;
                    letter.cause.stage = stage;
                    letter.cause.code = code;
                    letter.cause.attempts = code.unsigned_abs();
                    letter.cause.first_attempt_millis = code.into();
                    letter.cause.last_attempt_millis = i64::MAX - i64::from(code.max(0));
                    all.push((letter, replaces));
                }
            }
        }
        all
    }

    #[test]
    fn a_letter_comes_back_as_it_was_kept() {
        for (kept, replaces) in letters() {
            assert_same(&read(letter(&kept, replaces)), &kept, replaces);
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_two_characters() {
        let long = "ä".repeat(1000);
        let mut kept = example();
        (kept.lane, kept.cause.class, kept.cause.reason) = (&long, &long, &long);
        let body = read(letter(&kept, None));
        assert_eq!(body.lane, "ä".repeat(127));
        assert_eq!(body.class, "ä".repeat(16));
        assert_eq!(body.reason, "ä".repeat(512));
    }

    #[test]
    fn no_letter_takes_more_than_its_message_and_the_overhead() {
        let long = "x".repeat(2000);
        let topic = "t".repeat(TOPIC_LEN_MAX);
        let message = MessageRef {
            value: Some(&[7; 5000]),
            ..MessageRef::to(&topic)
        };
        let in_the_lane = codec::encoded_len(&message, Topic::Id(0));
        let kept = Letter {
            origin: Origin {
                log_id: LogId::new([0xff; 16]),
                seq: SeqNo::new(u64::MAX),
            },
            lane: &long,
            cause: Cause {
                class: &long,
                code: i32::MIN,
                stage: Stage::Produce,
                reason: &long,
                attempts: u32::MAX,
                first_attempt_millis: i64::MIN,
                last_attempt_millis: i64::MIN,
            },
            content: Content::Message(MessageRef {
                partition: Some(i32::MAX),
                timestamp_millis: Some(i64::MAX),
                ..message
            }),
        };
        let len = letter(&kept, Some(SeqNo::new(u64::MAX))).len();
        assert!(len <= in_the_lane + LETTER_OVERHEAD_MAX, "{len}");
        assert!(len > in_the_lane + LETTER_OVERHEAD_MAX - 64, "{len}");
    }

    #[test]
    fn a_change_comes_back_as_it_was_made() {
        let changes = [
            Change::Pending,
            Change::Kept,
            Change::Replayed,
            Change::Dropped,
            Change::Copied,
            Change::CopyRefused(i32::MIN),
            Change::CopyRefused(10),
        ];
        let lists = [
            vec![SeqNo::ZERO],
            vec![SeqNo::ZERO, SeqNo::new(1), SeqNo::new(u64::MAX)],
            (0..CHANGE_SEQS_MAX as u64)
                .map(|n| SeqNo::new(n * 300))
                .collect(),
        ];
        for made in changes {
            for seqs in lists.clone() {
                let read = decode(&change(made, &seqs).into());
                assert_eq!(read, Ok(Entry::Change { change: made, seqs }));
            }
        }
    }

    #[test]
    fn a_change_that_names_nothing_or_one_twice_is_refused() {
        let twice = change(Change::Pending, &[SeqNo::new(5), SeqNo::new(5)]);
        assert_eq!(decode(&twice.into()), Err(Malformed::Numbers));
        let nothing = change(Change::Pending, &[]);
        assert_eq!(decode(&nothing.into()), Err(Malformed::Numbers));
        let mut beyond = change(
            Change::Pending,
            &[SeqNo::new(u64::MAX), SeqNo::new(u64::MAX)],
        );
        *beyond.last_mut().unwrap() = 1;
        assert_eq!(decode(&beyond.into()), Err(Malformed::Numbers));
        // A count of 2^63 with one number behind it.
        let mut huge = vec![VERSION, KIND_CHANGE, 1];
        huge.extend([
            0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 5,
        ]);
        assert_eq!(decode(&huge.into()), Err(Malformed::Numbers));
    }

    /// All that any bytes may be: a record or an error that says something.
    fn survives(bytes: Vec<u8>) -> bool {
        match decode(&bytes.into()) {
            Ok(_) => true,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                false
            }
        }
    }

    fn records() -> Vec<Vec<u8>> {
        let letters = letters().into_iter().map(|(kept, old)| letter(&kept, old));
        let numbers: Vec<SeqNo> = [3, 4, 900].map(SeqNo::new).into();
        let changes = [Change::Replayed, Change::CopyRefused(-3)].map(|c| change(c, &numbers));
        letters.chain(changes).collect()
    }

    #[test]
    fn no_truncation_and_no_change_of_a_byte_panics() {
        let (mut read, mut refused) = (0, 0);
        for whole in records() {
            for len in 0..whole.len() {
                survives(whole[..len].to_vec());
            }
            for at in 0..whole.len() {
                for byte in 0..=u8::MAX {
                    let mut forged = whole.clone();
                    forged[at] = byte;
                    *(if survives(forged) {
                        &mut read
                    } else {
                        &mut refused
                    }) += 1;
                }
            }
        }
        assert!(read > 0 && refused > 0);
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused_not_guessed() {
        let with = |at: usize, byte: u8| {
            let mut bytes = letter(&example(), None);
            bytes[at] = byte;
            decode(&bytes.into()).unwrap_err()
        };
        assert_eq!(with(0, 2), Malformed::Version { found: 2 });
        let (what, found) = ("record", 3);
        assert_eq!(with(1, 3), Malformed::Unknown { what, found });
        let (what, found) = ("flag", 4);
        assert_eq!(with(2, 4), Malformed::Unknown { what, found });
        let change = decode(&vec![VERSION, KIND_CHANGE, 7, 1, 0].into()).unwrap_err();
        let (what, found) = ("change", 7);
        assert_eq!(change, Malformed::Unknown { what, found });
    }

    /// The worked examples of the format document are what is written here.
    #[test]
    fn the_worked_examples_hold() {
        let document = include_str!("../../../docs/format.md");
        let (_, section) = document.split_once("### A worked dead letter").unwrap();
        let documented: Vec<Vec<u8>> = section
            .split("```")
            .filter_map(|block| block.strip_prefix("text\n"))
            .take(2)
            .map(|block| {
                block
                    .lines()
                    .flat_map(|line| line.split('|').next().unwrap().split_whitespace())
                    .map(|byte| u8::from_str_radix(byte, 16).unwrap())
                    .collect()
            })
            .collect();
        let seqs = [SeqNo::new(7), SeqNo::new(9), SeqNo::new(400)];
        let written = [letter(&example(), None), change(Change::Pending, &seqs)];
        assert_eq!(documented, written, "{written:02x?}");
    }
}
