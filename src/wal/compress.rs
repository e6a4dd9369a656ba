//! Compression of payloads: what a caller may choose, and what this build can do.
//!
//! Owns: every name of a compression library. Must not know: frames, keys, files.
//!
//! Invariants: what would not become smaller stays as it is; the same bytes give the same bytes, so
//! that a group that is rewritten (R2) takes the same room; a length read from disk is checked before
//! memory is taken for it (R12).

use std::fmt;

use super::error::Error;
use super::frame::Packing;
use super::rest::Sealed;

/// How records are compressed on disk, a frame (up to 64 KiB of them) at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: little work, for any processor. Needs the feature `lz4`.
    Lz4,
    /// Zstandard, for slow links to the disk and small disks. Needs the feature `zstd`.
    Zstd {
        /// 1 (least work) to 22 (smallest); 3 is a good start.
        level: i32,
    },
}

/// Compresses one payload after the other; what it needs for that is allocated once.
pub(crate) enum Compressor {
    None,
    #[cfg(feature = "lz4")]
    Lz4(lz4_flex::block::CompressTable),
    #[cfg(feature = "zstd")]
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Result<Self, Error> {
        let refused = |reason: String| Err(Error::Options { reason });
        match compression {
            Compression::None => Ok(Self::None),
            Compression::Zstd { level } if !(1..=22).contains(&level) => {
                refused(format!("the level of zstd is {level}: use 1 to 22"))
            }
            // Always the large table: which one is used changes the output.
            #[cfg(feature = "lz4")]
            Compression::Lz4 => Ok(Self::Lz4(lz4_flex::block::CompressTable::large())),
            #[cfg(feature = "zstd")]
            Compression::Zstd { level } => zstd::bulk::Compressor::new(level)
                .map(Self::Zstd)
                .or_else(|error| refused(format!("zstd at level {level}: {error}"))),
            #[allow(unreachable_patterns, reason = "what this build lacks")]
            Compression::Lz4 | Compression::Zstd { .. } => refused(format!(
                "compression is {compression:?}, and this build is without the feature of that name"
            )),
        }
    }

    /// What a frame that it made smaller says of itself.
    pub(crate) fn packing(&self) -> Packing {
        match self {
            Self::None => Packing::None,
            #[cfg(feature = "lz4")]
            Self::Lz4(_) => Packing::Lz4,
            #[cfg(feature = "zstd")]
            Self::Zstd(_) => Packing::Zstd,
        }
    }

    /// Bytes that [`compress`](Self::compress) needs to work in.
    pub(crate) fn bound(&self, len: usize) -> usize {
        match self {
            Self::None => len,
            #[cfg(feature = "lz4")]
            Self::Lz4(_) => lz4_flex::block::get_maximum_output_size(len),
            #[cfg(feature = "zstd")]
            Self::Zstd(_) => zstd::zstd_safe::compress_bound(len),
        }
    }

    /// Compresses into the start of `out`; `None` where that cannot be done.
    #[cfg_attr(
        not(any(feature = "lz4", feature = "zstd")),
        expect(unused_variables, reason = "this build compresses nothing")
    )]
    pub(crate) fn compress(&mut self, plain: &[u8], out: &mut [u8]) -> Option<usize> {
        match self {
            Self::None => None,
            #[cfg(feature = "lz4")]
            Self::Lz4(table) => lz4_flex::block::compress_into_with_table(plain, out, table).ok(),
            #[cfg(feature = "zstd")]
            Self::Zstd(context) => context.compress_to_buffer(plain, out).ok(),
        }
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compressor({:?})", self.packing())
    }
}

/// Fills `out`, which is as long as the plain payload is said to be.
pub(crate) fn decompress(packing: Packing, bytes: &[u8], out: &mut [u8]) -> Result<(), Sealed> {
    let len = match packing {
        Packing::None => None,
        Packing::Lz4 => lz4(bytes, out)?,
        Packing::Zstd => zstd(bytes, out)?,
    };
    match len {
        Some(len) if len == out.len() => Ok(()),
        Some(_) | None => Err(Sealed::Malformed("the payload does not decompress")),
    }
}

#[cfg(feature = "lz4")]
fn lz4(bytes: &[u8], out: &mut [u8]) -> Result<Option<usize>, Sealed> {
    Ok(lz4_flex::block::decompress_into(bytes, out).ok())
}

#[cfg(not(feature = "lz4"))]
fn lz4(_: &[u8], _: &mut [u8]) -> Result<Option<usize>, Sealed> {
    Err(Sealed::Lacking("lz4"))
}

#[cfg(feature = "zstd")]
fn zstd(bytes: &[u8], out: &mut [u8]) -> Result<Option<usize>, Sealed> {
    Ok(zstd::bulk::decompress_to_buffer(bytes, out).ok())
}

#[cfg(not(feature = "zstd"))]
fn zstd(_: &[u8], _: &mut [u8]) -> Result<Option<usize>, Sealed> {
    Err(Sealed::Lacking("zstd"))
}
