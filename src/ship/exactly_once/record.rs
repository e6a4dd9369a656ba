//! The progress record: what each transaction tells about itself in the compacted topic.
//!
//! Pure. Owns its bytes. Must not know how it is sent or found. Invariant: what this version does not
//! understand is told from what is not there.

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
    fn a_record_survives_its_bytes_and_other_bytes_are_none() {
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
        assert_eq!(ProgressRecord::decode(&bytes), Some(record));
        assert_eq!(ProgressRecord::decode(&bytes[..LEN - 1]), None);
        assert_eq!(ProgressRecord::decode(&[]), None);
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
