//! The bytes of one page of an intent file (F16).
//!
//! Pure. Must not know where a page is kept. Invariant: bytes that are no page, or one of another
//! version, are no slot; which of the two, [`is_whole`] tells.

use super::{Intent, Nonce, Owed, SENT_LETTERS_MAX, SentLetters};
use crate::wal::{LogId, SeqNo};

pub(super) const PAGE: usize = 4096;
const MAGIC: [u8; 8] = *b"FERRYINT";
const VERSION: u16 = 1;
pub(super) const CHECKSUM_AT: usize = PAGE - 4;
/// Times that this store was opened to ship: older ones are forgotten.
pub(super) const SESSIONS_MAX: usize = 128;
const SESSIONS_AT: usize = 2048;
/// A topic's name and a cluster's id; both are far shorter.
const TEXTS_AT: usize = 256;
const TEXT_MAX: usize = 255;
const LOG_AT: usize = 184;
const OWED_LOG_AT: usize = 200;
const LETTERS_AT: usize = 768;
const _: () = assert!(SESSIONS_AT + 8 * SESSIONS_MAX <= CHECKSUM_AT);
const _: () = assert!(TEXTS_AT + 2 * TEXT_MAX <= LETTERS_AT);
const _: () = assert!(LETTERS_AT + 8 * SENT_LETTERS_MAX <= SESSIONS_AT);

/// What the newest page holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) generation: u64,
    /// The log it belongs to: that of another log which was in its place is nothing to this one.
    pub(super) log_id: LogId,
    pub(super) identity: LogId,
    pub(super) inode: u64,
    pub(super) machine: [u8; 16],
    /// Newest first.
    pub(super) sessions: Vec<u64>,
    pub(super) intent: Option<Intent>,
    /// Where the intent has letters, they are the same.
    pub(super) owed: Option<Owed>,
}

pub(super) fn checksum(page: &[u8; PAGE]) -> [u8; 4] {
    crc32fast::hash(&page[..CHECKSUM_AT]).to_le_bytes()
}

pub(super) fn is_whole(page: &[u8; PAGE]) -> bool {
    page[..8] == MAGIC && page[CHECKSUM_AT..] == checksum(page)
}

impl Slot {
    pub(super) fn encode(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(16, &self.generation.to_le_bytes());
        put(24, &self.identity.bytes());
        put(40, &self.inode.to_le_bytes());
        put(48, &self.machine);
        put(168, &self.log_id.bytes());
        put(10, &[length_byte(self.sessions.len())]);
        for (index, session) in self.sessions.iter().enumerate() {
            put(SESSIONS_AT + 8 * index, &session.to_le_bytes());
        }
        if let Some(intent) = &self.intent {
            let owed = self.owed.as_ref();
            let letters = intent.letters.as_ref().or(owed.map(|owed| &owed.letters));
            let flags = 1
                | u8::from(intent.is_aborted) << 1
                | u8::from(intent.partition_offset.is_some()) << 2
                | u8::from(intent.previous_partition_offset.is_some()) << 3
                | u8::from(intent.is_in_offsets) << 4
                | u8::from(letters.is_some_and(|l| l.are_copies)) << 5
                | u8::from(letters.is_some_and(|l| l.is_done)) << 6
                | u8::from(owed.is_some()) << 7;
            let letters = letters.iter().flat_map(|letters| &letters.seqs);
            for (index, seq) in letters.clone().enumerate() {
                put(LETTERS_AT + 8 * index, &seq.get().to_le_bytes());
            }
            put(14, &[length_byte(letters.count())]);
            let (topic, cluster) = (intent.topic.as_bytes(), intent.cluster_id.as_bytes());
            put(11, &[flags]);
            put(12, &[length_byte(topic.len()), length_byte(cluster.len())]);
            for (at, nonce) in [(64, &intent.nonce), (96, &intent.previous)] {
                put(at, &nonce.bits);
                put(at + 16, &nonce.session.to_le_bytes());
                put(at + 24, &nonce.number.to_le_bytes());
            }
            put(128, &intent.span.start.get().to_le_bytes());
            put(136, &intent.span.end.get().to_le_bytes());
            put(144, &intent.partition_offset.unwrap_or(0).to_le_bytes());
            let previous = intent.previous_partition_offset.unwrap_or(0);
            put(152, &previous.to_le_bytes());
            put(LOG_AT, &intent.log.bytes());
            if let Some(owed) = owed {
                put(OWED_LOG_AT, &owed.log.bytes());
            }
            put(160, &intent.partition.to_le_bytes());
            put(TEXTS_AT, topic);
            put(TEXTS_AT + TEXT_MAX, cluster);
        }
        let sum = checksum(&page);
        page[CHECKSUM_AT..].copy_from_slice(&sum);
        page
    }

    pub(super) fn decode(page: &[u8; PAGE]) -> Option<Self> {
        if !is_whole(page) || page[8..10] != VERSION.to_le_bytes() {
            return None;
        }
        let session_count = usize::from(page[10]);
        if session_count > SESSIONS_MAX {
            return None;
        }
        let sessions = (0..session_count).map(|index| u64_at(page, SESSIONS_AT + 8 * index));
        let (intent, owed) = if page[11] == 0 {
            (None, None)
        } else {
            let (intent, owed) = decode_intent(page)?;
            (Some(intent), owed)
        };
        Some(Self {
            generation: u64_at(page, 16),
            log_id: LogId::new(sixteen_at(page, 168)),
            identity: LogId::new(sixteen_at(page, 24)),
            inode: u64_at(page, 40),
            machine: sixteen_at(page, 48),
            sessions: sessions.collect(),
            intent,
            owed,
        })
    }
}

fn decode_intent(page: &[u8; PAGE]) -> Option<(Intent, Option<Owed>)> {
    let flag = |bit: u8| page[11] & 1 << bit != 0;
    let text = |at: usize, len: u8| {
        let bytes = page.get(at..at + usize::from(len))?;
        Some(str::from_utf8(bytes).ok()?.to_owned())
    };
    let nonce = |at| Nonce {
        bits: sixteen_at(page, at),
        session: u64_at(page, at + 16),
        number: u64_at(page, at + 24),
    };
    let partition_offset = |at| u64_at(page, at).cast_signed();
    let (start, end) = (u64_at(page, 128), u64_at(page, 136));
    let letter_count = usize::from(page[14]);
    if letter_count > SENT_LETTERS_MAX {
        return None;
    }
    let letter = |index| SeqNo::new(u64_at(page, LETTERS_AT + 8 * index));
    let letters = (letter_count > 0).then(|| SentLetters {
        seqs: (0..letter_count).map(letter).collect(),
        are_copies: flag(5),
        is_done: flag(6),
    });
    let log = LogId::new(sixteen_at(page, LOG_AT));
    let owed_log = LogId::new(sixteen_at(page, OWED_LOG_AT));
    let owed = letters.clone().filter(|_| flag(7));
    let owed = owed.map(|letters| Owed {
        log: owed_log,
        letters,
    });
    // An intent about letters is about their log.
    let letters = letters.filter(|_| owed.is_none() || owed_log == log);
    let intent = Intent {
        nonce: nonce(64),
        previous: nonce(96),
        log,
        span: SeqNo::new(start)..SeqNo::new(end),
        letters,
        cluster_id: text(TEXTS_AT + TEXT_MAX, page[13])?,
        is_in_offsets: flag(4),
        topic: text(TEXTS_AT, page[12])?,
        partition: i32::from_le_bytes([page[160], page[161], page[162], page[163]]),
        partition_offset: flag(2).then(|| partition_offset(144)),
        previous_partition_offset: flag(3).then(|| partition_offset(152)),
        is_aborted: flag(1),
    };
    Some((intent, owed))
}

fn length_byte(len: usize) -> u8 {
    let byte = u8::try_from(len);
    assert!(byte.is_ok(), "longer than 255");
    byte.unwrap_or(0)
}

fn u64_at(page: &[u8; PAGE], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&page[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn sixteen_at(page: &[u8; PAGE], at: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&page[at..at + 16]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_each_field_of_an_intent_stands_where_the_format_says() {
        let nonce = |n: u8| Nonce {
            bits: [n; 16],
            session: u64::from(n) + 1,
            number: u64::from(n) + 2,
        };
        let intent = Intent {
            nonce: nonce(0x10),
            previous: nonce(0x20),
            log: LogId::new([0x30; 16]),
            span: SeqNo::new(0x31)..SeqNo::new(0x32),
            letters: Some(SentLetters {
                seqs: vec![SeqNo::new(0x33), SeqNo::new(0x34)],
                are_copies: true,
                is_done: true,
            }),
            cluster_id: "cluster".into(),
            is_in_offsets: true,
            topic: "topic".into(),
            partition: 0x35,
            partition_offset: Some(0x36),
            previous_partition_offset: Some(0x37),
            is_aborted: true,
        };
        let slot = Slot {
            generation: 0x01,
            log_id: LogId::new([0x02; 16]),
            identity: LogId::new([0x03; 16]),
            inode: 0x04,
            machine: [0x05; 16],
            sessions: vec![0x06, 0x07],
            intent: Some(intent),
            owed: None,
        };
        let page = slot.encode();
        for (at, field) in [
            (0, &b"FERRYINT\x01\x00\x02\x7f\x05\x07\x02\x00\x01"[..]),
            (24, &[0x03; 16]),
            (40, &[0x04]),
            (48, &[0x05; 16]),
            (64, &[0x10; 16]),
            (80, &[0x11]),
            (88, &[0x12]),
            (96, &[0x20; 16]),
            (112, &[0x21]),
            (120, &[0x22]),
            (128, &[0x31, 0, 0, 0, 0, 0, 0, 0, 0x32]),
            (144, &[0x36, 0, 0, 0, 0, 0, 0, 0, 0x37]),
            (160, &[0x35]),
            (168, &[0x02; 16]),
            (184, &[0x30; 16]),
            (256, b"topic\0"),
            (511, b"cluster\0"),
            (768, &[0x33, 0, 0, 0, 0, 0, 0, 0, 0x34]),
            (2048, &[0x06, 0, 0, 0, 0, 0, 0, 0, 0x07]),
            (4092, &crc32fast::hash(&page[..4092]).to_le_bytes()),
        ] {
            assert_eq!(&page[at..at + field.len()], field, "at {at}");
        }
        assert_eq!(Slot::decode(&page), Some(slot));
    }

    #[test]
    fn f16_letters_that_are_owed_stand_beside_an_intent_about_another_log() {
        let (letters_log, lane_log) = (LogId::new([0x30; 16]), LogId::new([0x31; 16]));
        let letters = SentLetters {
            seqs: vec![SeqNo::new(0x33), SeqNo::new(0x34)],
            are_copies: false,
            is_done: true,
        };
        let intent = |log, letters| Intent {
            nonce: Nonce::NONE,
            previous: Nonce::NONE,
            log,
            span: SeqNo::ZERO..SeqNo::new(1),
            letters,
            cluster_id: String::new(),
            is_in_offsets: false,
            topic: String::new(),
            partition: 0,
            partition_offset: None,
            previous_partition_offset: None,
            is_aborted: false,
        };
        let about_them = intent(letters_log, Some(letters.clone()));
        for intent in [about_them, intent(lane_log, None)] {
            let slot = Slot {
                generation: 1,
                log_id: lane_log,
                identity: lane_log,
                inode: 0,
                machine: [0; 16],
                sessions: Vec::new(),
                intent: Some(intent),
                owed: Some(Owed {
                    log: letters_log,
                    letters: letters.clone(),
                }),
            };
            let page = slot.encode();
            assert_eq!((page[11], &page[200..216]), (0xc1, &[0x30; 16][..]));
            assert_eq!(
                page[768..784],
                [[0x33, 0, 0, 0, 0, 0, 0, 0], [0x34, 0, 0, 0, 0, 0, 0, 0]].concat()
            );
            assert_eq!(Slot::decode(&page), Some(slot));
        }
    }
}
