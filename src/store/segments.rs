//! How the store's own logs, of dead letters and of what is due later, are cut into segments.
//!
//! Pure. Must not know what they hold. Invariant: all segments of a log and its other files together stay
//! within its quota.

/// Largest segment: half of it holds the largest record of a lane.
const SIZE_MAX: u64 = 32 << 20;
/// Smallest segment that a log can have.
const SIZE_MIN: u64 = 1 << 20;
/// A quota holds so many segments, so that what is given up at once is a small part of it.
const PER_QUOTA: u64 = 32;
/// Bytes of what is no segment: cursor files, the one that replaces one, ballast.
const OTHER_FILES: u64 = 128 << 10;

/// The size of the segments of a log with this quota.
pub(super) fn size(quota_bytes: u64) -> u64 {
    let size = ((quota_bytes - OTHER_FILES) / PER_QUOTA).clamp(SIZE_MIN, SIZE_MAX);
    size / 4096 * 4096
}

/// How many segments of this size the quota has room for.
pub(super) const fn count(quota_bytes: u64, size: u64) -> u64 {
    (quota_bytes - OTHER_FILES) / size
}
