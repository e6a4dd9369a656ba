//! Gaps: numbers that were promised and can no longer be read, and where the rest of them lies.
//!
//! Owns: [`Gap`], its bytes in a gap frame (`docs/format.md`, F11), looking numbers up. Must not know:
//! files, or how a gap is found.
//!
//! Invariant: the start of every segment names all gaps of the live ones once more, as it repeats the
//! dictionary: so the newest segment alone tells them, and they outlive both cursor slots.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{u32_at, u64_at};
use super::seq::SeqNo;

/// The directory inside a log's own that keeps copies of damaged regions.
pub(crate) const QUARANTINE: &str = "quarantine";
/// Bytes of one gap in a gap frame.
pub(crate) const GAP_LEN: usize = 48;
/// Most damaged regions of a segment that are told apart; all further ones count as one.
pub(crate) const MAX_GAPS: usize = 1024;
/// Most gaps of a log: the start of every segment names all of them, and the smallest one must have
/// room for it.
pub(crate) const MOST_GAPS: usize = 4 * MAX_GAPS;
/// What is said where there are more.
pub(crate) const TOO_MANY: &str = "more damaged regions than a log can name";
const FLAG_QUARANTINED: u32 = 1;

/// Why records are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The bytes are there, but no longer what was written.
    Damaged,
    /// The file of a whole segment is missing.
    MissingSegment,
    /// The end of the log is missing.
    MissingTail,
    /// The disk does not give the bytes any more (row K).
    Unreadable,
}

impl Cause {
    const ALL: [Self; 4] = [
        Self::Damaged,
        Self::MissingSegment,
        Self::MissingTail,
        Self::Unreadable,
    ];

    const fn code(self) -> u32 {
        match self {
            Self::Damaged => 1,
            Self::MissingSegment => 2,
            Self::MissingTail => 3,
            Self::Unreadable => 4,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "damaged",
            Self::MissingSegment => "missing with a whole segment",
            Self::MissingTail => "missing at the end of the log",
            Self::Unreadable => "unreadable",
        })
    }
}

/// Records that were promised and can no longer be read: settled as [`lost`](super::Class::Lost).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Gap {
    /// Their numbers. Empty where what is damaged held no record.
    pub seqs: Range<SeqNo>,
    /// Why.
    pub cause: Cause,
    /// Number of the segment in which they should be, or behind which.
    pub segment: u64,
    /// First byte of the damaged region in the segment's file.
    pub position: u64,
    /// Its length in bytes.
    pub len: u64,
    /// A copy of the region is kept.
    pub quarantined: bool,
}

impl Gap {
    /// A gap without a region.
    pub(crate) fn new(seqs: Range<SeqNo>, cause: Cause, segment: u64) -> Self {
        Self {
            seqs,
            cause,
            segment,
            position: 0,
            len: 0,
            quarantined: false,
        }
    }

    /// The file with the copy of the region, within the log's directory. Pages that could not be read
    /// are zeros in it.
    pub fn quarantine(&self) -> Option<PathBuf> {
        self.quarantined.then(|| self.quarantine_path())
    }

    /// There is something to keep, and no copy of it.
    pub(crate) fn is_pinned(&self) -> bool {
        self.len > 0 && !self.quarantined
    }

    /// Where a copy goes: the name says what it is a copy of.
    pub(crate) fn quarantine_path(&self) -> PathBuf {
        PathBuf::from(QUARANTINE).join(format!("{:08}-{}", self.segment, self.position))
    }

    /// F11: writes one gap; `out` is exactly [`GAP_LEN`] bytes.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        for (at, number) in [
            self.seqs.start.get(),
            self.seqs.end.get(),
            self.segment,
            self.position,
            self.len,
        ]
        .into_iter()
        .enumerate()
        {
            out[8 * at..8 * at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let flags = if self.quarantined {
            FLAG_QUARANTINED
        } else {
            0
        };
        out[40..44].copy_from_slice(&self.cause.code().to_le_bytes());
        out[44..48].copy_from_slice(&flags.to_le_bytes());
    }
}

/// F11: the gaps of a gap frame's payload, or `None` where it is malformed.
pub(crate) fn decode_gaps(payload: &[u8]) -> Option<Vec<Gap>> {
    let gap = |bytes: &[u8]| {
        let seqs = SeqNo::new(u64_at(bytes, 0))..SeqNo::new(u64_at(bytes, 8));
        let code = u32_at(bytes, 40);
        let cause = Cause::ALL.into_iter().find(|cause| cause.code() == code)?;
        (!seqs.is_empty()).then(|| Gap {
            seqs,
            cause,
            segment: u64_at(bytes, 16),
            position: u64_at(bytes, 24),
            len: u64_at(bytes, 32),
            quarantined: u32_at(bytes, 44) & FLAG_QUARANTINED != 0,
        })
    };
    let entries = payload.chunks_exact(GAP_LEN);
    if !entries.remainder().is_empty() || entries.len() > MOST_GAPS {
        return None;
    }
    entries.map(gap).collect()
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.seqs;
        match end - start {
            0 => f.write_str("no record")?,
            1 => write!(f, "record {start}")?,
            _ => write!(f, "records {start} to {}", end.get() - 1)?,
        }
        write!(
            f,
            ", {}, segment number {} at position {}",
            self.cause, self.segment, self.position
        )
    }
}

/// All gaps of the live segments, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps(Arc<[Gap]>);

impl Gaps {
    pub(crate) fn new(mut gaps: Vec<Gap>) -> Self {
        gaps.retain(|gap| !gap.seqs.is_empty());
        gaps.sort_by_key(|gap| (gap.seqs.start, gap.seqs.end));
        gaps.dedup();
        Self(gaps.into())
    }

    /// One more, and without those of released segments: whose numbers are below `first`.
    pub(crate) fn with(&self, gap: &Gap, first: SeqNo) -> Self {
        let all = self.0.iter().filter(|known| known.seqs.end > first);
        Self::new(all.chain([gap]).cloned().collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Gap> + Clone {
        self.0.iter()
    }

    /// The first number at or above `seq` that is in no gap.
    pub(crate) fn end_at(&self, seq: SeqNo) -> SeqNo {
        self.0.iter().fold(seq, |seq, gap| {
            if gap.seqs.contains(&seq) {
                gap.seqs.end
            } else {
                seq
            }
        })
    }

    /// Bytes of the payload that holds all gaps.
    pub(crate) fn payload_len(&self) -> usize {
        GAP_LEN * self.0.len()
    }

    /// Writes all gaps; `out` is exactly [`payload_len`](Self::payload_len) bytes.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        for (gap, out) in self.0.iter().zip(out.chunks_exact_mut(GAP_LEN)) {
            gap.encode(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(start: u64, end: u64) -> Gap {
        Gap {
            seqs: SeqNo::new(start)..SeqNo::new(end),
            cause: Cause::MissingTail,
            segment: 3,
            position: 135_168,
            len: 4096,
            quarantined: true,
        }
    }

    #[test]
    fn f11_gaps_survive_a_round_trip_and_no_truncation() {
        let gaps = Gaps::new(vec![gap(9, 12), gap(2, 5)]);
        let mut payload = vec![0; gaps.payload_len()];
        gaps.encode(&mut payload);
        assert_eq!(decode_gaps(&payload), Some(vec![gap(2, 5), gap(9, 12)]));
        for len in 1..GAP_LEN {
            assert_eq!(decode_gaps(&payload[..len]), None, "{len} bytes");
        }
        payload[40] = 99;
        assert_eq!(decode_gaps(&payload), None, "an unknown cause");
    }

    #[test]
    fn numbers_in_gaps_that_touch_are_passed_at_once() {
        let gaps = Gaps::new(vec![gap(5, 7), gap(2, 5), gap(9, 12)]);
        let ends = [1, 2, 4, 6, 7, 8, 11].map(|seq| gaps.end_at(SeqNo::new(seq)).get());
        assert_eq!(ends, [1, 7, 7, 7, 7, 8, 12]);
    }
}
