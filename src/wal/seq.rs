//! The two identities of the engine: a record's [`SeqNo`] and a log's [`LogId`].
//!
//! Owns: their arithmetic and their text. Must not know: files, time, where a number comes from.

use std::fmt;
use std::ops::{Add, Sub};

/// The number of a record in its log: given at append, increasing, never reused, and dense but for
/// *void* ranges that an unclean end leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SeqNo(u64);

impl SeqNo {
    /// The first number of every log.
    pub const ZERO: Self = Self(0);

    /// No log gets so far; a number on disk that does is damage, whatever its checksum says (R12).
    pub(crate) const LIMIT: Self = Self(1 << 62);

    /// Wraps a plain number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add<u64> for SeqNo {
    type Output = Self;

    /// Saturates: a number read from a damaged file must not wrap around to a small one.
    fn add(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl Sub for SeqNo {
    type Output = u64;

    /// The count of numbers from `earlier` up to `self`; zero where `earlier` is the later one.
    fn sub(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Sixteen random bytes that name a log for ever; shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId([u8; 16]);

impl LogId {
    /// Wraps the sixteen bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}
