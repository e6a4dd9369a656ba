//! Payloads at rest: compressed, encrypted, or as they are (`docs/format.md`, F12).
//!
//! Owns: the way of a group from its plain bytes to the stored ones, and of a stored payload back.
//! Must not know: files, or which segment has which key.
//!
//! Invariants: a group keeps its plain bytes until it is durable, so it can be placed again (R2), with
//! another nonce; what is stored is never longer than [`OVERHEAD`] beyond the plain payload; a checksum
//! always covers the stored bytes, so that structure is judged without a key.

use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use bytes::Bytes;

use super::cipher::{Key, Keys, NONCE_LEN, TAG_LEN, decrypt, encrypt};
use super::compress::{Compressor, decompress};
use super::error::Error;
use super::frame::{Codec, HEADER_LEN, Header, Kind, PAGE, Packing, u32_at};
use super::group::{Group, Place};
use super::options::{BUFFER_BYTES, MAX_BATCH_BYTES, Options};

/// Bytes that encryption adds to a payload.
pub(crate) const OVERHEAD: usize = NONCE_LEN + TAG_LEN;
/// Bytes in front of a compressed payload: the length of the plain one.
const PLAIN_LEN: usize = 4;
/// Bytes of a header that are known before the payload's checksum, with the salt.
const ASSOCIATED_LEN: usize = 60;

/// Gives groups their stored form. One memory for all of them, in the hands of whoever writes.
#[derive(Debug)]
pub(crate) struct Packer {
    compressor: Compressor,
    /// The group at hand is worth compressing.
    packs: bool,
    out: Vec<u8>,
    used: usize,
}

/// What encrypts one group.
#[derive(Clone, Copy)]
struct Cipher<'a> {
    key: &'a Key,
    nonce: [u8; NONCE_LEN],
}

impl Packer {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        if !options.keys.are_of_use() {
            return Err(Error::Options {
                reason: "keys are given, and this build is without the feature encryption".into(),
            });
        }
        Ok(Self {
            compressor: Compressor::new(options.compression)?,
            packs: false,
            out: Vec::new(),
            used: 0,
        })
    }

    /// The bytes to write at this place: whole pages. `key` is the segment's, one of `keys`.
    pub(crate) fn place<'a>(
        &'a mut self,
        group: &'a mut Group,
        place: Place,
        (key, keys): (Option<NonZeroU32>, &Keys),
        random: impl Fn() -> io::Result<u64>,
    ) -> io::Result<&'a [u8]> {
        if key.is_none() && self.compressor.packing() == Packing::None {
            return Ok(group.place(place));
        }
        let mut cipher = match key {
            None => None,
            Some(id) => Some(Cipher {
                key: keys.get(id).ok_or_else(|| io::Error::other("no key"))?,
                nonce: draw_nonce(random)?,
            }),
        };
        self.used = 0;
        // What takes a page takes it also when it is smaller.
        self.packs = group.padded_len() > PAGE;
        for (header, payload) in group.frames(place) {
            self.push(header, payload, place, cipher)?;
            cipher.iter_mut().for_each(Cipher::step);
        }
        self.pad(PAGE);
        // One large group does not keep its memory for ever.
        if self.out.len() > 2 * BUFFER_BYTES {
            self.out.truncate(self.used.max(BUFFER_BYTES));
            self.out.shrink_to_fit();
        }
        Ok(&self.out[..self.used])
    }

    fn push(
        &mut self,
        mut header: Header,
        payload: &[u8],
        place: Place,
        cipher: Option<Cipher<'_>>,
    ) -> io::Result<()> {
        self.pad(HEADER_LEN);
        let at = self.used;
        let start = at + HEADER_LEN;
        let cipher = cipher.filter(|_| holds_user_bytes(header.kind));
        let body = start + cipher.map_or(0, |_| NONCE_LEN);
        let most = payload
            .len()
            .max(PLAIN_LEN + self.compressor.bound(payload.len()));
        self.reserve(body + most + TAG_LEN);
        let packed = match header.kind {
            Kind::Records if self.packs => self.pack(payload, body),
            Kind::Records
            | Kind::Dictionary
            | Kind::Start
            | Kind::Seal
            | Kind::Gap
            | Kind::Ignorable(_) => None,
        };
        header.codec = Codec {
            packing: packed.map_or(Packing::None, |_| self.compressor.packing()),
            encrypted: cipher.is_some(),
        };
        let plain_end = body + packed.unwrap_or(payload.len());
        if packed.is_none() {
            self.out[body..plain_end].copy_from_slice(payload);
        }
        let end = plain_end + cipher.map_or(0, |_| TAG_LEN);
        header.position = place.position + at as u64;
        header.payload_len = u32::try_from(end - start).unwrap_or(u32::MAX);
        if let Some(Cipher { key, nonce }) = cipher {
            let (head, rest) = self.out[at..end].split_at_mut(HEADER_LEN);
            header.encode(place.salt, head);
            rest[..NONCE_LEN].copy_from_slice(&nonce);
            let (plain, tag) = rest[NONCE_LEN..].split_at_mut(plain_end - body);
            let sealed = encrypt(key, nonce, &associated(head, place.salt), plain);
            tag.copy_from_slice(&sealed.ok_or_else(|| io::Error::other("encryption failed"))?);
        }
        header.payload_crc = crc32fast::hash(&self.out[start..end]);
        header.encode(place.salt, &mut self.out[at..start]);
        self.used = end;
        Ok(())
    }

    /// F12: compresses to this place of the memory, where that makes it smaller; returns the length.
    fn pack(&mut self, payload: &[u8], at: usize) -> Option<usize> {
        let (len, out) = self.out[at..].split_at_mut(PLAIN_LEN);
        let packed = PLAIN_LEN + self.compressor.compress(payload, out)?;
        len.copy_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
        (packed < payload.len()).then_some(packed)
    }

    fn reserve(&mut self, len: usize) {
        if self.out.len() < len {
            self.out.resize(len.next_multiple_of(BUFFER_BYTES), 0);
        }
    }

    fn pad(&mut self, to: usize) {
        let end = self.used.next_multiple_of(to);
        self.reserve(end);
        self.out[self.used..end].fill(0);
        self.used = end;
    }
}

impl Cipher<'_> {
    /// The nonce of the group's next frame.
    fn step(&mut self) {
        let (_, counter) = self.nonce.split_at_mut(NONCE_LEN - 8);
        let mut next = [0; 8];
        next.copy_from_slice(counter);
        counter.copy_from_slice(&u64::from_le_bytes(next).wrapping_add(1).to_le_bytes());
    }
}

/// F12: a random nonce for each write; its frames count on from it. Derived from the place it would
/// come twice, because a place may be written twice: with a page of pending frames, or in a file that
/// was restored.
fn draw_nonce(random: impl Fn() -> io::Result<u64>) -> io::Result<[u8; NONCE_LEN]> {
    let mut nonce = [0; NONCE_LEN];
    for part in nonce.chunks_exact_mut(8) {
        part.copy_from_slice(&random()?.to_le_bytes());
    }
    Ok(nonce)
}

/// F12: what is encrypted in an encrypted segment.
fn holds_user_bytes(kind: Kind) -> bool {
    match kind {
        Kind::Records | Kind::Dictionary => true,
        Kind::Start | Kind::Seal | Kind::Gap | Kind::Ignorable(_) => false,
    }
}

/// F12: whether a frame of this kind may have this codec.
pub(crate) fn may_have(kind: Kind, codec: Codec) -> bool {
    match kind {
        Kind::Records | Kind::Ignorable(_) => true,
        Kind::Dictionary => codec.packing == Packing::None,
        Kind::Start | Kind::Seal | Kind::Gap => codec == Codec::PLAIN,
    }
}

/// F12: the associated data: the header without magic and checksums, then the salt.
fn associated(header: &[u8], salt: u64) -> [u8; ASSOCIATED_LEN] {
    let mut data = [0; ASSOCIATED_LEN];
    data[..44].copy_from_slice(&header[8..52]);
    data[44..52].copy_from_slice(&header[56..64]);
    data[52..].copy_from_slice(&salt.to_le_bytes());
    data
}

/// Why the stored bytes of a frame, which are whole, do not give its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sealed {
    /// The key is not there.
    NoKey,
    /// They were encrypted with another key, or are not what was encrypted.
    OtherKey,
    /// This build lacks a feature.
    Lacking(&'static str),
    /// No writer wrote them so.
    Malformed(&'static str),
}

impl Sealed {
    /// The same as an error about a frame of this file.
    pub(crate) fn into_error(self, path: &Path, position: u64, key: Option<NonZeroU32>) -> Error {
        let path = path.to_path_buf();
        let id = key.map_or(0, NonZeroU32::get);
        match self {
            Self::NoKey => Error::Key {
                path,
                id,
                is_given: false,
            },
            Self::OtherKey => Error::Key {
                path,
                id,
                is_given: true,
            },
            Self::Lacking(feature) => Error::Feature { path, feature },
            Self::Malformed(what) => Error::corrupt(path, position, what),
        }
    }
}

/// The plain payload of a whole frame, header and stored bytes, in a segment with this salt and key.
pub(crate) fn unpack(
    header: &Header,
    frame: &Bytes,
    salt: u64,
    key: Option<NonZeroU32>,
    keys: &Keys,
) -> Result<Bytes, Sealed> {
    let payload = match (key, header.codec.encrypted) {
        (None, false) => frame.slice(HEADER_LEN..),
        (Some(id), true) => opened(frame, salt, keys.get(id))?,
        (None, true) => return Err(Sealed::Malformed("an encrypted frame in a plain segment")),
        (Some(_), false) => return Err(Sealed::Malformed("a plain frame in an encrypted segment")),
    };
    if header.codec.packing == Packing::None {
        return Ok(payload);
    }
    let len = payload.get(..PLAIN_LEN).map(|len| u32_at(len, 0));
    let len = len.and_then(|len| usize::try_from(len).ok());
    // R12: what is claimed is bounded before memory is taken for it.
    let Some(len) = len.filter(|len| *len <= MAX_BATCH_BYTES) else {
        return Err(Sealed::Malformed("it claims to hold more than a frame can"));
    };
    let mut plain = vec![0; len];
    decompress(header.codec.packing, &payload[PLAIN_LEN..], &mut plain)?;
    Ok(plain.into())
}

fn opened(frame: &Bytes, salt: u64, key: Option<&Key>) -> Result<Bytes, Sealed> {
    if cfg!(not(feature = "encryption")) {
        return Err(Sealed::Lacking("encryption"));
    }
    let key = key.ok_or(Sealed::NoKey)?;
    let (header, stored) = frame.split_at(HEADER_LEN);
    let parts = stored
        .split_first_chunk::<NONCE_LEN>()
        .and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk::<TAG_LEN>()?)));
    let Some((nonce, (ciphertext, tag))) = parts else {
        return Err(Sealed::Malformed("too short to be encrypted"));
    };
    let mut plain = ciphertext.to_vec();
    decrypt(key, *nonce, &associated(header, salt), &mut plain, *tag).ok_or(Sealed::OtherKey)?;
    Ok(plain.into())
}

#[cfg(test)]
#[cfg(all(feature = "encryption", feature = "lz4", feature = "zstd"))]
mod tests {
    use super::super::compress::Compression;
    use super::super::frame::{Decoded, holds_records, record_at};
    use super::super::seq::SeqNo;
    use super::super::staging::{Need, Staging};
    use super::*;
    use std::cell::Cell;

    const PLACE: Place = Place {
        segment: 1,
        salt: 0x1122_3344_5566_7788,
        position: 132 << 10,
        durable_seq: SeqNo::ZERO,
        acked_seq: SeqNo::ZERO,
    };

    fn key(id: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(id)
    }

    fn keys(first: u8) -> Keys {
        let bytes = std::array::from_fn(|n| first + u8::try_from(n).unwrap());
        Keys::none().write_with(key(7).unwrap(), bytes)
    }

    fn packer(compression: Compression) -> Packer {
        let options = Options {
            compression,
            ..Options::default()
        };
        Packer::new(&options).unwrap()
    }

    fn group(records: &[(&[u8], i64)]) -> Group {
        let mut staging = Staging::new(SeqNo::ZERO, SeqNo::new(1000), 8 << 20);
        for (record, now) in records {
            let need = Need::of(&[record]);
            staging.make_room(need).unwrap();
            staging.append(&[record], need, *now);
        }
        staging.take().unwrap()
    }

    /// Counts bytes: 0x40, 0x41 ...
    fn counting() -> impl Fn() -> io::Result<u64> {
        let next = Cell::new(0x4746_4544_4342_4140);
        move || Ok(next.replace(next.get() + 0x0808_0808_0808_0808))
    }

    fn header(bytes: &[u8]) -> Header {
        match Header::decode(bytes, PLACE.salt) {
            Decoded::Header(header) => header,
            other => panic!("{other:?}"),
        }
    }

    /// The bytes under "A worked frame at rest" in `docs/format.md`.
    fn worked_example() -> Vec<u8> {
        let text = include_str!("../../docs/format.md");
        let section = text.split("### A worked frame at rest").nth(1).unwrap();
        let hex = section.split("```hex\n").nth(1).unwrap();
        hex.split("```")
            .next()
            .unwrap()
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect()
    }

    #[test]
    fn f12_the_worked_frame_at_rest_is_what_is_written_and_opens() {
        let base = 1_767_225_600_000_000;
        let mut group = group(&[(b"temps", base), (b"39.4", base + 3000)]);
        let mut packer = packer(Compression::Lz4);
        let bytes = packer
            .place(&mut group, PLACE, (key(7), &keys(0)), counting())
            .unwrap();
        let example = worked_example();
        let text = |bytes: &[u8]| -> Vec<String> {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let len = HEADER_LEN + header(bytes).payload_len as usize;
        assert_eq!(text(&bytes[..len]).join(" "), text(&example).join(" "));
        assert!(bytes[len..].iter().all(|&byte| byte == 0));

        let frame = Bytes::from(example);
        let header = header(&frame);
        assert!(header.covers(&frame[HEADER_LEN..]));
        let plain = unpack(&header, &frame, PLACE.salt, key(7), &keys(0)).unwrap();
        assert!(holds_records(&plain, 2));
        let first = record_at(&plain, 0).unwrap();
        assert_eq!(&plain[first.start..first.end], b"temps");
    }

    #[test]
    fn f12_a_payload_opens_only_under_its_own_header_with_its_own_key() {
        let mut group = group(&[(&[7; 9000], 5)]);
        let mut packer = packer(Compression::Zstd { level: 3 });
        let keys_given = keys(0);
        let bytes = packer
            .place(&mut group, PLACE, (key(7), &keys_given), counting())
            .unwrap();
        let len = HEADER_LEN + header(bytes).payload_len as usize;
        assert!(len < 200, "9000 times the same byte in {len}");
        let frame = Bytes::copy_from_slice(&bytes[..len]);
        let header = header(&frame);
        let open = |frame: &Bytes, salt, id, keys: &Keys| {
            unpack(&header, frame, salt, id, keys).map(|plain| plain.len())
        };
        let (salt, id) = (PLACE.salt, key(7));
        assert_eq!(open(&frame, salt, id, &keys_given), Ok(9008));
        assert_eq!(open(&frame, salt, id, &keys(1)), Err(Sealed::OtherKey));
        assert_eq!(open(&frame, salt, id, &Keys::none()), Err(Sealed::NoKey));
        assert_eq!(
            open(&frame, salt ^ 1, id, &keys_given),
            Err(Sealed::OtherKey)
        );
        for at in 0..len {
            let mut changed = frame.to_vec();
            changed[at] ^= 0x10;
            let is_bound = !(0..8).contains(&at) && !(52..56).contains(&at);
            let opened = open(&changed.into(), salt, id, &keys_given);
            assert_eq!(opened == Err(Sealed::OtherKey), is_bound, "byte {at}");
        }
        // Neither is taken for the other.
        let malformed = |opened| matches!(opened, Err(Sealed::Malformed(_)));
        assert!(malformed(open(&frame, salt, None, &keys_given)));
    }

    #[test]
    fn r12_f12_a_length_that_is_claimed_is_checked_before_memory_is_taken() {
        let mut group = group(&[(&[7; 9000], 5)]);
        let mut packer = packer(Compression::Lz4);
        let bytes = packer
            .place(&mut group, PLACE, (None, &Keys::none()), counting())
            .unwrap();
        let header = header(bytes);
        assert_eq!(header.codec.packing, Packing::Lz4);
        let len = HEADER_LEN + header.payload_len as usize;
        for claim in [
            u32::MAX,
            u32::try_from(MAX_BATCH_BYTES + 1).unwrap(),
            9007,
            9009,
            0,
        ] {
            let mut frame = bytes[..len].to_vec();
            frame[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&claim.to_le_bytes());
            let unpacked = unpack(&header, &frame.into(), PLACE.salt, None, &Keys::none());
            assert!(matches!(unpacked, Err(Sealed::Malformed(_))), "{claim}");
        }
        for cut in 0..len - HEADER_LEN {
            let frame = Bytes::copy_from_slice(&bytes[..HEADER_LEN + cut]);
            let unpacked = unpack(&header, &frame, PLACE.salt, None, &Keys::none());
            assert!(matches!(unpacked, Err(Sealed::Malformed(_))), "{cut} bytes");
        }
    }

    #[test]
    fn r2_f12_a_group_placed_again_has_the_same_length_and_another_nonce_in_each_frame() {
        let records: Vec<Vec<u8>> = (0..5).map(|n| vec![n; 40_000]).collect();
        let records: Vec<(&[u8], i64)> = records.iter().map(|record| (&record[..], 5)).collect();
        let mut group = group(&records);
        let mut packer = packer(Compression::None);
        let (keys, random) = (keys(0), counting());
        let mut nonces = std::collections::BTreeSet::new();
        let mut lens = Vec::new();
        for position in [132 << 10, 132 << 10, 512 << 10] {
            let place = Place { position, ..PLACE };
            let most = group.padded_len_with(OVERHEAD);
            let bytes = packer
                .place(&mut group, place, (key(7), &keys), &random)
                .unwrap();
            assert!(bytes.len() <= most);
            lens.push(bytes.len());
            let mut at = 0;
            while bytes[at..at + 4] != [0; 4] {
                let header = header(&bytes[at..]);
                assert_eq!(header.position, position + at as u64);
                let nonce = &bytes[at + HEADER_LEN..at + HEADER_LEN + NONCE_LEN];
                assert!(nonces.insert(nonce.to_vec()), "a nonce twice");
                at += usize::try_from(header.span()).unwrap();
            }
        }
        assert_eq!(nonces.len(), 3 * 5);
        assert!(lens.iter().all(|len| *len == lens[0]));
    }

    #[test]
    fn f12_what_does_not_become_smaller_is_stored_as_it_is() {
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..200_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state.to_le_bytes()[7]
            })
            .collect();
        for compression in [Compression::Lz4, Compression::Zstd { level: 22 }] {
            for record in [&noise[..], &noise[..3], b""] {
                let mut group = group(&[(record, 5)]);
                let plain = group.padded_len();
                let mut packer = packer(compression);
                let bytes = packer
                    .place(&mut group, PLACE, (None, &Keys::none()), counting())
                    .unwrap();
                assert_eq!(bytes.len(), plain);
                let header = header(bytes);
                assert_eq!(header.codec, Codec::PLAIN);
                let len = HEADER_LEN + header.payload_len as usize;
                assert!(holds_records(&bytes[HEADER_LEN..len], 1));
            }
        }
    }
}
