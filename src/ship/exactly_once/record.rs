//! The progress record: what each transaction tells about itself, in the compacted topic or in the
//! offsets of a group.
//!
//! Pure. Owns its bytes (F17). Must not know how it is sent or found. Invariant: what this version does not
//! understand is told from what is not there.

use std::fmt::Write as _;

use crate::store::Nonce;
use crate::wal::{LogId, SeqNo};

const VERSION: u8 = 1;
const LEN: usize = 1 + 32 + 32 + 8;

/// What one committed transaction says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProgressRecord {
    pub(super) nonce: Nonce,
    /// That of the transaction before it.
    pub(super) previous: Nonce,
    /// Everything below is settled by it and those before it.
    pub(super) mark: SeqNo,
}

/// The key of a lane's records; it contains nothing else.
pub(super) fn key(identity: LogId, lane: &str) -> String {
    format!("{identity}/{lane}")
}

impl ProgressRecord {
    pub(super) fn encode(&self) -> [u8; LEN] {
        let mut bytes = [VERSION; LEN];
        let mut at = 1;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        for nonce in [&self.nonce, &self.previous] {
            put(&nonce.bits);
            put(&nonce.session.to_le_bytes());
            put(&nonce.number.to_le_bytes());
        }
        put(&self.mark.get().to_le_bytes());
        bytes
    }

    /// Its bytes in hexadecimal: what stands in the offsets of a group is text.
    pub(super) fn to_text(self) -> String {
        let mut text = String::with_capacity(2 * LEN);
        for byte in self.encode() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// `None` if this text is no such record.
    pub(super) fn of_text(text: &str) -> Option<ProgressRecord> {
        let digits = text.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        ProgressRecord::decode(&digits.map(byte).collect::<Option<Vec<u8>>>()?)
    }

    /// `None` if these bytes are no such record: a newer version wrote them.
    pub(super) fn decode(bytes: &[u8]) -> Option<ProgressRecord> {
        let (&version, mut rest) = bytes.split_first()?;
        if version != VERSION || bytes.len() != LEN {
            return None;
        }
        let mut take = || {
            let (field, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            Some(*field)
        };
        let mut nonce = || {
            let (low, high) = (take()?, take()?);
            let mut bits = [0; 16];
            bits[..8].copy_from_slice(&low);
            bits[8..].copy_from_slice(&high);
            let session = u64::from_le_bytes(take()?);
            let number = u64::from_le_bytes(take()?);
            Some(Nonce {
                bits,
                session,
                number,
            })
        };
        let (own, previous) = (nonce()?, nonce()?);
        Some(ProgressRecord {
            nonce: own,
            previous,
            mark: SeqNo::new(u64::from_le_bytes(take()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f17_a_record_survives_its_bytes_and_other_bytes_are_none() {
        let nonce = |n: u8| Nonce {
            bits: [n; 16],
            session: u64::from(n) << 40,
            number: u64::from(n),
        };
        let record = ProgressRecord {
            nonce: nonce(1),
            previous: nonce(2),
            mark: SeqNo::new(1 << 50),
        };
        let bytes = record.encode();
        assert_eq!(bytes[..17], [[1].as_slice(), &[1; 16]].concat());
        assert_eq!(bytes[33..49], [2; 16]);
        assert_eq!(bytes[65..], (1_u64 << 50).to_le_bytes());
        assert_eq!(ProgressRecord::decode(&bytes), Some(record));
        assert_eq!(ProgressRecord::decode(&bytes[..LEN - 1]), None);
        assert_eq!(ProgressRecord::decode(&[]), None);
        let text = record.to_text();
        assert_eq!(ProgressRecord::of_text(&text), Some(record));
        for none in ["", "01", &text[1..], &text.replace('1', "g")] {
            assert_eq!(ProgressRecord::of_text(none), None, "{none}");
        }
        let mut newer = bytes;
        newer[0] = 2;
        assert_eq!(ProgressRecord::decode(&newer), None);
    }

    #[test]
    fn the_key_names_log_and_lane() {
        let key = key(LogId::new([0xab; 16]), "default");
        assert_eq!(key, format!("{}/default", "ab".repeat(16)));
    }
}
