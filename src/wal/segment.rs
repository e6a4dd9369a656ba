//! Segment headers and the geometry of a segment file.
//!
//! Owns: the header page, the reserved area, the seal (`docs/format.md`, F1 to F3, F8). Must not
//! know: how files are found or which segments are live.

use std::num::NonZeroU32;

use super::frame::{MAX_SEGMENT_NUMBER, PAGE, u32_at, u64_at};
use super::options::{MAX_SEGMENT_SIZE, is_segment_size};
use super::seq::{LogId, SeqNo};

/// F1: where frames begin; below are the header copies, the tail slots, and zeros.
pub(crate) const BODY: u64 = 128 << 10;
/// F1: the two header copies, far enough apart that one flash page never holds both.
pub(crate) const HEADER_POSITIONS: [u64; 2] = [0, 64 << 10];
/// F1, F13: the two tail slots, far enough apart that one flash page never holds both.
pub(crate) const SLOT_POSITIONS: [u64; 2] = [32 << 10, 96 << 10];
/// F2: the header's fields, which the start frame repeats.
pub(crate) const FIELDS_LEN: usize = 160;
/// F8: the seal's index names a frame about this often. It is no evidence of anything (R7).
pub(crate) const INDEX_STEP: u64 = 256 << 10;

const MAGIC: [u8; 8] = *b"FERRYSEG";
/// Format version; it names the layout of this page and of everything behind it.
pub(crate) const VERSION: u16 = 1;
const CHECKSUM_CRC32: u32 = 1;
/// F2: the segment's last records may stand in a tail slot: who does not look there must not judge.
const TAIL_SLOTS: u64 = 1;
/// F12: the one AEAD, and where its nonces come from.
const AEAD_XCHACHA20_POLY1305: u16 = 1;
const NONCE_RANDOM: u16 = 1;
/// The two fields read as one.
const ENCRYPTION: u32 = (NONCE_RANDOM as u32) << 16 | AEAD_XCHACHA20_POLY1305 as u32;
const CRC_AT: usize = PAGE - 4;
const SEAL_FIXED_LEN: usize = 40;

/// How a segment ended, as its successor tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndKind {
    /// There is no predecessor.
    Genesis,
    /// By a seal frame.
    Sealed,
    /// By recovery, at the end of what was found.
    Torn,
    /// By a failed write or sync, at the last durable position.
    IoError,
    /// By a full disk.
    DiskFull,
}

impl EndKind {
    const ALL: [Self; 5] = [
        Self::Genesis,
        Self::Sealed,
        Self::Torn,
        Self::IoError,
        Self::DiskFull,
    ];

    const fn code(self) -> u32 {
        match self {
            Self::Genesis => 0,
            Self::Sealed => 1,
            Self::Torn => 2,
            Self::IoError => 3,
            Self::DiskFull => 4,
        }
    }
}

/// What a segment's header says of its predecessor: a promise, since the predecessor was synced
/// before the header was written (R13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Predecessor {
    pub number: u64,
    pub salt: u64,
    /// Position behind its last frame; nothing at or above it counts.
    pub end: u64,
    /// The number after its last record; nothing at or above it counts.
    pub next_seq: SeqNo,
    pub kind: EndKind,
}

impl Predecessor {
    /// The predecessor of a log's first segment.
    pub(crate) const NONE: Self = Self {
        number: 0,
        salt: 0,
        end: 0,
        next_seq: SeqNo::ZERO,
        kind: EndKind::Genesis,
    };
}

/// A segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub log_id: LogId,
    pub number: u64,
    pub salt: u64,
    pub base_seq: SeqNo,
    pub created_micros: i64,
    pub size: u64,
    /// The key that its records and definitions are encrypted with.
    pub key: Option<NonZeroU32>,
    pub seq_limit: SeqNo,
    pub durable_seq: SeqNo,
    pub previous: Predecessor,
}

/// What a header page turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageFound {
    /// A valid header.
    Header(SegmentHeader),
    /// Nothing but zeros: a spare, or a file that never had a life.
    Blank,
    /// The checksum holds, but this version must not touch it: why.
    Refused(&'static str),
    /// The disk does not give it.
    Unreadable,
    /// None of these.
    Damaged,
}

impl SegmentHeader {
    /// F2: the fields, as the header page and the start frame hold them.
    pub(crate) fn encode_fields(&self) -> [u8; FIELDS_LEN] {
        let mut out = [0; FIELDS_LEN];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &CHECKSUM_CRC32.to_le_bytes());
        put(32, &TAIL_SLOTS.to_le_bytes());
        put(40, &self.log_id.bytes());
        put(56, &self.number.to_le_bytes());
        put(64, &self.salt.to_le_bytes());
        put(72, &self.base_seq.get().to_le_bytes());
        put(80, &self.created_micros.to_le_bytes());
        put(88, &self.size.to_le_bytes());
        if let Some(key) = self.key {
            put(96, &key.get().to_le_bytes());
            put(100, &AEAD_XCHACHA20_POLY1305.to_le_bytes());
            put(102, &NONCE_RANDOM.to_le_bytes());
        }
        put(104, &self.seq_limit.get().to_le_bytes());
        put(112, &self.durable_seq.get().to_le_bytes());
        put(120, &self.previous.number.to_le_bytes());
        put(128, &self.previous.salt.to_le_bytes());
        put(136, &self.previous.end.to_le_bytes());
        put(144, &self.previous.next_seq.get().to_le_bytes());
        put(152, &self.previous.kind.code().to_le_bytes());
        out
    }

    /// F2: one header page.
    pub(crate) fn encode_page(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[..FIELDS_LEN].copy_from_slice(&self.encode_fields());
        seal_page(&mut page);
        page
    }

    /// Reads a header page.
    pub(crate) fn decode_page(page: &[u8]) -> PageFound {
        if page.len() != PAGE {
            return PageFound::Damaged;
        }
        if page.iter().all(|&byte| byte == 0) {
            return PageFound::Blank;
        }
        if !page_holds(page) {
            return PageFound::Damaged;
        }
        Self::decode_fields(page)
    }

    /// Reads the fields of a page or start frame whose checksum held.
    pub(crate) fn decode_fields(fields: &[u8]) -> PageFound {
        if fields.len() < FIELDS_LEN || fields[0..8] != MAGIC {
            return PageFound::Damaged;
        }
        if u16::from_le_bytes([fields[8], fields[9]]) != VERSION {
            return PageFound::Refused("format version");
        }
        if u32_at(fields, 12) != CHECKSUM_CRC32 {
            return PageFound::Refused("checksum kind");
        }
        // The words at 24 and 32: features that forbid writing, and features that forbid reading.
        if u64_at(fields, 24) != 0 || u64_at(fields, 32) & !TAIL_SLOTS != 0 {
            return PageFound::Refused("feature");
        }
        let key = NonZeroU32::new(u32_at(fields, 96));
        let how = u32_at(fields, 100);
        if how != if key.is_some() { ENCRYPTION } else { 0 } {
            return PageFound::Refused("encryption");
        }
        let code = u32_at(fields, 152);
        let Some(kind) = EndKind::ALL.into_iter().find(|kind| kind.code() == code) else {
            return PageFound::Refused("kind of end");
        };
        let mut id = [0; 16];
        id.copy_from_slice(&fields[40..56]);
        let header = Self {
            log_id: LogId::new(id),
            number: u64_at(fields, 56),
            salt: u64_at(fields, 64),
            base_seq: SeqNo::new(u64_at(fields, 72)),
            created_micros: u64_at(fields, 80).cast_signed(),
            size: u64_at(fields, 88),
            key,
            seq_limit: SeqNo::new(u64_at(fields, 104)),
            durable_seq: SeqNo::new(u64_at(fields, 112)),
            previous: Predecessor {
                number: u64_at(fields, 120),
                salt: u64_at(fields, 128),
                end: u64_at(fields, 136),
                next_seq: SeqNo::new(u64_at(fields, 144)),
                kind,
            },
        };
        if header.is_plausible() {
            PageFound::Header(header)
        } else {
            PageFound::Damaged
        }
    }

    /// F3: what no writer of this format writes is not believed.
    fn is_plausible(&self) -> bool {
        let previous = &self.previous;
        (1..MAX_SEGMENT_NUMBER).contains(&self.number)
            && previous.number < self.number
            && is_segment_size(self.size)
            && previous.end <= MAX_SEGMENT_SIZE
            && previous.next_seq <= self.base_seq
            && [self.base_seq, self.seq_limit, self.durable_seq]
                .iter()
                .all(|seq| *seq < SeqNo::LIMIT)
    }
}

/// Puts the checksum of a page into its last four bytes (headers and cursor slots).
pub(crate) fn seal_page(page: &mut [u8; PAGE]) {
    let crc = crc32fast::hash(&page[..CRC_AT]);
    page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// Whether a page's checksum holds.
pub(crate) fn page_holds(page: &[u8]) -> bool {
    page.len() == PAGE && u32_at(page, CRC_AT) == crc32fast::hash(&page[..CRC_AT])
}

/// F8: what a seal frame says of its segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seal {
    pub count: u64,
    pub first_seq: SeqNo,
    pub last_seq: SeqNo,
    pub first_time_micros: i64,
    pub last_time_micros: i64,
    /// Frames by first SeqNo and position, one about every [`INDEX_STEP`], in order.
    pub index: Vec<(SeqNo, u64)>,
}

impl Seal {
    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        SEAL_FIXED_LEN + 16 * self.index.len()
    }

    /// Bytes to keep free in a segment of this size for the group that seals it.
    pub(crate) fn room(segment_size: u64) -> u64 {
        let index = 16 * (segment_size / INDEX_STEP + 1);
        (64 + SEAL_FIXED_LEN as u64 + index).next_multiple_of(PAGE as u64)
    }

    /// Writes the payload; `out` is exactly [`Self::len`] bytes.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        out[0..8].copy_from_slice(&self.count.to_le_bytes());
        out[8..16].copy_from_slice(&self.first_seq.get().to_le_bytes());
        out[16..24].copy_from_slice(&self.last_seq.get().to_le_bytes());
        out[24..32].copy_from_slice(&self.first_time_micros.to_le_bytes());
        out[32..40].copy_from_slice(&self.last_time_micros.to_le_bytes());
        for (entry, (seq, position)) in out[SEAL_FIXED_LEN..].chunks_exact_mut(16).zip(&self.index)
        {
            entry[..8].copy_from_slice(&seq.get().to_le_bytes());
            entry[8..].copy_from_slice(&position.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log_id: LogId::new([7; 16]),
            number: 3,
            salt: 0xfeed,
            base_seq: SeqNo::new(100),
            created_micros: -5,
            size: 1 << 20,
            key: NonZeroU32::new(7),
            seq_limit: SeqNo::new(1 << 24),
            durable_seq: SeqNo::new(99),
            previous: Predecessor {
                number: 2,
                salt: 0xbeef,
                end: BODY + 64,
                next_seq: SeqNo::new(98),
                kind: EndKind::Torn,
            },
        }
    }

    #[test]
    fn header_survives_a_round_trip() {
        assert_eq!(
            SegmentHeader::decode_page(&header().encode_page()),
            PageFound::Header(header())
        );
        assert_eq!(SegmentHeader::decode_page(&[0; PAGE]), PageFound::Blank);
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of loops; the others take the same ways")]
    fn any_flipped_bit_of_a_header_page_damages_it() {
        let mut page = header().encode_page();
        for bit in 0..PAGE * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentHeader::decode_page(&page),
                PageFound::Damaged,
                "bit {bit}"
            );
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_feature_that_must_be_understood_is_refused() {
        let plain = SegmentHeader {
            key: None,
            ..header()
        };
        for (at, bytes) in [
            (8, 2u64),
            (12, 2),
            (24, 1),
            (32, 2),
            (96, 1),
            (100, 1),
            (152, 99),
        ] {
            let mut page = plain.encode_page();
            page[at..at + 4].copy_from_slice(&bytes.to_le_bytes()[..4]);
            seal_page(&mut page);
            let found = SegmentHeader::decode_page(&page);
            assert!(
                matches!(found, PageFound::Refused(_)),
                "field at {at}: {found:?}"
            );
        }
    }
}
