//! Frames: the checksummed unit of a segment, and the records inside one.
//!
//! Owns: the 64 bytes of a frame header and the layout of a payload (`docs/format.md`, F4 to F7).
//! Must not know: files, segments, or what a caller does with a verdict.
//!
//! Invariants: a header proves by itself which life of which segment and which position it belongs
//! to (R8, R10); a length read here is compared with what is left before it is used (R12).

use super::seq::SeqNo;

/// Bytes of a frame header; frames start at multiples of it.
pub(crate) const HEADER_LEN: usize = 64;
/// Groups start at multiples of it, so that no write touches a page with older records in it (R1).
pub(crate) const PAGE: usize = 4096;
/// Bytes in front of each record.
pub(crate) const RECORD_HEADER_LEN: usize = 8;
/// F4: frame magic, "FRAM" read as a little-endian number, XORed with the low half of the salt.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"FRAM");
/// F4: this frame's batch goes on in the next frame.
pub(crate) const FLAG_MORE: u16 = 1;
/// F4: flags that must be understood; the upper byte may be ignored.
const FLAGS_MUST: u16 = 0x00ff;
/// F4: position / 64 takes the low 26 bits of the place, the segment number the other 38.
const POSITION_BITS: u32 = 26;
/// Largest segment number that fits.
pub(crate) const MAX_SEGMENT_NUMBER: u64 = (1 << (64 - POSITION_BITS)) - 1;

const _: () = assert!(PAGE.is_multiple_of(HEADER_LEN));
const _: () = assert!((4u64 << 30) / (HEADER_LEN as u64) <= 1 << POSITION_BITS);

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Records with SeqNos of their own.
    Records,
    /// The segment header's content once more; the first frame of a segment.
    Start,
    /// The end of a full segment, with a sparse index.
    Seal,
    /// Definitions of ids.
    Dictionary,
    /// Numbers that can no longer be read.
    Gap,
    /// A kind of a later version that may be skipped.
    Ignorable(u8),
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Records => 1,
            Self::Start => 2,
            Self::Seal => 3,
            Self::Dictionary => 4,
            Self::Gap => 5,
            Self::Ignorable(code) => code,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Records),
            2 => Some(Self::Start),
            3 => Some(Self::Seal),
            4 => Some(Self::Dictionary),
            5 => Some(Self::Gap),
            128.. => Some(Self::Ignorable(code)),
            _ => None,
        }
    }
}

/// F12: how a payload is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packing {
    /// Not at all.
    None,
    Lz4,
    Zstd,
}

impl Packing {
    const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }
}

/// F12: what stands between a payload and its stored bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Codec {
    pub packing: Packing,
    pub encrypted: bool,
}

impl Codec {
    /// The payload is stored as it is.
    pub(crate) const PLAIN: Self = Self {
        packing: Packing::None,
        encrypted: false,
    };
    const ENCRYPTED: u8 = 0x80;

    const fn code(self) -> u8 {
        self.packing.code() | if self.encrypted { Self::ENCRYPTED } else { 0 }
    }

    fn from_code(code: u8) -> Option<Self> {
        let packing = code & !Self::ENCRYPTED;
        let packing = Packing::ALL.into_iter().find(|p| p.code() == packing)?;
        Some(Self {
            packing,
            encrypted: code & Self::ENCRYPTED != 0,
        })
    }
}

/// A frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub segment: u64,
    pub position: u64,
    /// First record's number; for kinds without records the number the next record gets.
    pub first_seq: SeqNo,
    /// `durable_seq` when the frame was built: a promise about everything below it (R5).
    pub durable_seq: SeqNo,
    /// `acked_seq` when the frame was built.
    pub acked_seq: SeqNo,
    pub base_time_micros: i64,
    pub payload_len: u32,
    pub payload_crc: u32,
    pub count: u32,
    pub kind: Kind,
    pub codec: Codec,
    pub more: bool,
}

/// What 64 bytes turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decoded {
    /// A header of this life of the segment.
    Header(Header),
    /// Its checksum holds, but a kind, codec or flag in it must be understood and is not.
    Unknown(&'static str),
    /// No header of this life.
    Invalid,
}

impl Header {
    /// Number after the last record.
    pub(crate) fn end_seq(&self) -> SeqNo {
        self.first_seq + u64::from(self.count)
    }

    /// Bytes from this frame's start to where the next one of its group starts.
    pub(crate) fn span(&self) -> u64 {
        (HEADER_LEN as u64 + u64::from(self.payload_len)).next_multiple_of(HEADER_LEN as u64)
    }

    /// Whether the payload is the one the header was made for.
    pub(crate) fn covers(&self, payload: &[u8]) -> bool {
        payload.len() as u64 == u64::from(self.payload_len)
            && crc32fast::hash(payload) == self.payload_crc
    }

    /// Writes the header into the first 64 bytes of `out`.
    pub(crate) fn encode(&self, salt: u64, out: &mut [u8]) {
        assert!(self.segment <= MAX_SEGMENT_NUMBER);
        assert!(self.position.is_multiple_of(HEADER_LEN as u64));
        let place = (self.segment << POSITION_BITS) | (self.position / HEADER_LEN as u64);
        let flags = if self.more { FLAG_MORE } else { 0 };
        out[0..4].copy_from_slice(&(MAGIC ^ low_half(salt)).to_le_bytes());
        out[8..16].copy_from_slice(&place.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_seq.get().to_le_bytes());
        out[24..32].copy_from_slice(&self.durable_seq.get().to_le_bytes());
        out[32..40].copy_from_slice(&self.acked_seq.get().to_le_bytes());
        out[40..48].copy_from_slice(&self.base_time_micros.to_le_bytes());
        out[48..52].copy_from_slice(&self.payload_len.to_le_bytes());
        out[52..56].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[56..60].copy_from_slice(&self.count.to_le_bytes());
        out[60] = self.kind.code();
        out[61] = self.codec.code();
        out[62..64].copy_from_slice(&flags.to_le_bytes());
        let crc = header_crc(salt, &out[..HEADER_LEN]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header of the life that `salt` names.
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Decoded {
        let Some(bytes) = bytes.get(..HEADER_LEN) else {
            return Decoded::Invalid;
        };
        if u32_at(bytes, 0) != MAGIC ^ low_half(salt) || u32_at(bytes, 4) != header_crc(salt, bytes)
        {
            return Decoded::Invalid;
        }
        let Some(kind) = Kind::from_code(bytes[60]) else {
            return Decoded::Unknown("a frame kind that must be understood");
        };
        let Some(codec) = Codec::from_code(bytes[61]) else {
            return Decoded::Unknown("a frame codec");
        };
        let flags = u16::from_le_bytes([bytes[62], bytes[63]]);
        if flags & FLAGS_MUST & !FLAG_MORE != 0 {
            return Decoded::Unknown("a frame flag that must be understood");
        }
        let place = u64_at(bytes, 8);
        let header = Self {
            segment: place >> POSITION_BITS,
            position: (place & ((1 << POSITION_BITS) - 1)) * HEADER_LEN as u64,
            first_seq: SeqNo::new(u64_at(bytes, 16)),
            durable_seq: SeqNo::new(u64_at(bytes, 24)),
            acked_seq: SeqNo::new(u64_at(bytes, 32)),
            base_time_micros: u64_at(bytes, 40).cast_signed(),
            payload_len: u32_at(bytes, 48),
            payload_crc: u32_at(bytes, 52),
            count: u32_at(bytes, 56),
            kind,
            codec,
            more: flags & FLAG_MORE != 0,
        };
        let seqs = [header.end_seq(), header.durable_seq, header.acked_seq];
        if seqs.iter().all(|seq| *seq < SeqNo::LIMIT) {
            Decoded::Header(header)
        } else {
            Decoded::Invalid
        }
    }
}

/// Whether a header of this life stood here once: its magic is left, or all the rest of it is.
pub(crate) fn was_header(bytes: &[u8], salt: u64) -> bool {
    bytes.get(..HEADER_LEN).is_some_and(|bytes| {
        u32_at(bytes, 0) == MAGIC ^ low_half(salt) || u32_at(bytes, 4) == header_crc(salt, bytes)
    })
}

/// F5: over the salt and everything behind the checksum field.
fn header_crc(salt: u64, header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&header[8..HEADER_LEN]);
    hasher.finalize()
}

fn low_half(salt: u64) -> u32 {
    let [a, b, c, d, ..] = salt.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The four bytes at `at` as a number; the caller has checked the length.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The eight bytes at `at` as a number; the caller has checked the length.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)
}

/// Bytes that a record of this length takes in a payload.
pub(crate) const fn record_span(len: usize) -> usize {
    (RECORD_HEADER_LEN + len).next_multiple_of(8)
}

/// Writes a record's header and clears its padding; returns where the record's bytes go.
///
/// `out` is exactly [`record_span`] bytes long.
pub(crate) fn encode_record(len: u32, time_delta_millis: u16, out: &mut [u8]) -> &mut [u8] {
    out[0..4].copy_from_slice(&len.to_le_bytes());
    out[4..6].fill(0); // attributes
    out[6..8].copy_from_slice(&time_delta_millis.to_le_bytes());
    let (record, padding) = out[RECORD_HEADER_LEN..].split_at_mut(len as usize);
    padding.fill(0);
    record
}

/// One record's place in a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordAt {
    pub time_delta_millis: u16,
    pub start: usize,
    pub end: usize,
    /// Where the next record begins.
    pub next: usize,
}

/// F6: the record that begins at `at`, or `None` where none fits.
#[inline]
pub(crate) fn record_at(payload: &[u8], at: usize) -> Option<RecordAt> {
    let header = payload.get(at..)?.get(..RECORD_HEADER_LEN)?;
    let len = usize::try_from(u32_at(header, 0)).ok()?;
    // The lower half of the attributes must be understood, and none is defined.
    if header[4] != 0 {
        return None;
    }
    let start = at + RECORD_HEADER_LEN;
    let end = start.checked_add(len)?;
    let next = end.checked_next_multiple_of(8)?;
    (next <= payload.len()).then_some(RecordAt {
        time_delta_millis: u16::from_le_bytes([header[6], header[7]]),
        start,
        end,
        next,
    })
}

/// F6: whether a payload is exactly `count` records.
pub(crate) fn holds_records(payload: &[u8], count: u32) -> bool {
    let mut at = 0;
    for _ in 0..count {
        match record_at(payload, at) {
            Some(record) => at = record.next,
            None => return false,
        }
    }
    at == payload.len()
}

/// F6: makes the records of a payload later by so much; false where one cannot say so: then those
/// before it are later.
pub(crate) fn delay_records(payload: &mut [u8], millis: u16) -> bool {
    let mut at = 0;
    while let Some(record) = record_at(payload, at) {
        let Some(delta) = record.time_delta_millis.checked_add(millis) else {
            return false;
        };
        payload[at + 6..at + 8].copy_from_slice(&delta.to_le_bytes());
        at = record.next;
    }
    true
}

/// F7: the definitions of a dictionary payload, or `None` where it is malformed.
pub(crate) fn definitions(payload: &[u8]) -> Option<Vec<(u32, &[u8])>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let header = payload.get(at..)?.get(..DEFINITION_HEADER_LEN)?;
        let len = usize::try_from(u32_at(header, 4)).ok()?;
        let start = at + DEFINITION_HEADER_LEN;
        let end = start.checked_add(len)?;
        found.push((u32_at(header, 0), payload.get(start..end)?));
        at = end.next_multiple_of(8);
    }
    Some(found)
}

/// Bytes in front of each definition.
pub(crate) const DEFINITION_HEADER_LEN: usize = 8;

/// F7: writes one definition; `out` is exactly [`record_span`] of its length.
pub(crate) fn encode_definition(id: u32, bytes: &[u8], out: &mut [u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    assert!(len as usize == bytes.len());
    out[0..4].copy_from_slice(&id.to_le_bytes());
    out[4..8].copy_from_slice(&len.to_le_bytes());
    let (text, padding) = out[DEFINITION_HEADER_LEN..].split_at_mut(bytes.len());
    text.copy_from_slice(bytes);
    padding.fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x1122_3344_5566_7788;

    fn header() -> Header {
        Header {
            segment: 0x2a_0000_0001,
            position: (4 << 30) - 64,
            first_seq: SeqNo::new(7),
            durable_seq: SeqNo::new(5),
            acked_seq: SeqNo::new(3),
            base_time_micros: -1,
            payload_len: 24,
            payload_crc: 9,
            count: 2,
            kind: Kind::Records,
            codec: Codec {
                packing: Packing::Zstd,
                encrypted: true,
            },
            more: true,
        }
    }

    #[test]
    fn header_survives_a_round_trip() {
        let mut bytes = [0; HEADER_LEN];
        header().encode(SALT, &mut bytes);
        assert_eq!(Header::decode(&bytes, SALT), Decoded::Header(header()));
    }

    #[test]
    fn r8_any_flipped_bit_of_a_header_invalidates_it() {
        let mut bytes = [0; HEADER_LEN];
        header().encode(SALT, &mut bytes);
        for bit in 0..HEADER_LEN * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes, SALT), Decoded::Invalid, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn r10_a_header_of_another_life_is_invalid() {
        let mut bytes = [0; HEADER_LEN];
        header().encode(SALT, &mut bytes);
        for bit in 0..64 {
            assert_eq!(
                Header::decode(&bytes, SALT ^ 1 << bit),
                Decoded::Invalid,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_record_that_reaches_past_its_payload_is_none() {
        let mut payload = [0; 24];
        encode_record(10, 0, &mut payload).fill(1);
        assert!(holds_records(&payload, 1));
        for len in 0..24 {
            assert_eq!(record_at(&payload[..len], 0), None, "{len} bytes");
        }
        payload[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(record_at(&payload, 0), None);
    }

    #[test]
    fn definitions_survive_a_round_trip_and_no_truncation() {
        let mut payload = vec![0; record_span(5) + record_span(0)];
        encode_definition(3, b"temps", &mut payload[..record_span(5)]);
        encode_definition(4, b"", &mut payload[record_span(5)..]);
        assert_eq!(
            definitions(&payload),
            Some(vec![(3, &b"temps"[..]), (4, &b""[..])])
        );
        for len in 1..record_span(5) - 3 {
            assert_eq!(definitions(&payload[..len]), None, "{len} bytes");
        }
    }

    /// The bytes under "A worked frame" in `docs/format.md`.
    fn worked_example() -> Vec<u8> {
        let text = include_str!("../../docs/format.md");
        let hex = text
            .split("```hex\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .unwrap();
        hex.split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect()
    }

    #[test]
    fn f4_f5_f6_the_worked_frame_is_what_is_written() {
        use crate::wal::group::Place;
        use crate::wal::staging::{Need, Staging};
        let base = 1_767_225_600_000_000;
        let mut staging = Staging::new(SeqNo::ZERO, SeqNo::new(10), 1 << 20);
        for (record, now) in [(&b"temps"[..], base), (&b"39.4"[..], base + 3000)] {
            let need = Need::of(&[record]);
            staging.make_room(need).unwrap();
            staging.append(&[record], need, now);
        }
        let mut group = staging.take().unwrap();
        let bytes = group.place(Place {
            segment: 1,
            salt: SALT,
            position: 132 << 10,
            durable_seq: SeqNo::ZERO,
            acked_seq: SeqNo::ZERO,
        });
        let example = worked_example();
        let written: Vec<String> = bytes[..example.len()]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let stated: Vec<String> = example.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(written.join(" "), stated.join(" "));
        assert!(bytes[example.len()..].iter().all(|&byte| byte == 0));
    }
}
