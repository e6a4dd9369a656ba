//! Which partition a record goes to, decided here and never by librdkafka.
//!
//! Pure. Must not know topics, links or librdkafka. Invariant: a record that has a key goes where
//! Kafka's Java client would put it, so that one key stays in one partition whoever produces it;
//! a record goes to the same partition each time it is sent, as long as the partition count holds.

use std::num::NonZeroU32;

use crate::wal::SeqNo;

/// Records without a key change partition after this many: full batches, yet an even spread.
const STICKY_RECORDS: u64 = 1024;

/// The partition of a record, of `count`.
pub(super) fn choose(seq: SeqNo, key: Option<&[u8]>, count: NonZeroU32) -> u32 {
    match key {
        // The sign bit is dropped, as the Java client's `toPositive` does.
        Some(key) => (murmur2(key) & 0x7fff_ffff) % count,
        None => {
            let chosen = (seq.get() / STICKY_RECORDS) % u64::from(count.get());
            // Below a `u32`, so this never falls back.
            u32::try_from(chosen).unwrap_or(0)
        }
    }
}

/// Kafka's 32-bit MurmurHash2, bit for bit (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Java's array lengths are `int`s; the hash takes the low 32 bits of the length.
    let len = u32::try_from(data.len() & 0xffff_ffff).unwrap_or(0);
    let mut hash = SEED ^ len;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, &byte) in (0u32..).zip(rest) {
            hash ^= u32::from(byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of `UtilsTest.testMurmur2` in Apache Kafka.
    #[test]
    fn the_hash_is_the_java_clients() {
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn an_empty_key_is_a_key() {
        let count = NonZeroU32::new(64).unwrap();
        let at = |seq| choose(SeqNo::new(seq), Some(b""), count);
        assert_eq!(at(0), at(1_000_000));
    }

    #[test]
    fn records_without_a_key_stay_together_and_spread_evenly() {
        let count = NonZeroU32::new(3).unwrap();
        let mut found = [0; 3];
        for seq in 0..STICKY_RECORDS * 6 {
            let partition = choose(SeqNo::new(seq), None, count);
            assert_eq!(u64::from(partition), (seq / 1024) % 3);
            found[partition as usize] += 1;
        }
        assert_eq!(found, [2048; 3]);
    }

    #[test]
    fn a_partition_is_always_below_the_count() {
        for count in [1, 2, 7, u32::MAX] {
            let count = NonZeroU32::new(count).unwrap();
            for seq in [0, 1023, 1024, u64::MAX] {
                assert!(choose(SeqNo::new(seq), None, count) < count.get());
                assert!(choose(SeqNo::new(seq), Some(&seq.to_le_bytes()), count) < count.get());
            }
        }
    }
}
