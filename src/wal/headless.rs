//! Files that lost both header copies: what their frames still tell.
//!
//! Owns: reading a header from a start frame. Must not know: whether such a file is live; that is the
//! chain's and the cursor's to say (`found`).

use std::io;
use std::path::Path;

use super::frame::{Decoded, HEADER_LEN, Header, Kind};
use super::fs::{Access, Fs};
use super::options::{MAX_BATCH_BYTES, MAX_SEGMENT_SIZE};
use super::scan::{Life, search};
use super::segment::{BODY, FIELDS_LEN, PageFound, SegmentHeader};
use super::seq::SeqNo;
use super::window::Window;

/// What the start frame of a file tells: the header, and the largest promise about records in it.
///
/// A promise up to what was durable when the segment began is one about its predecessor, and reaches
/// only to that one's end: the numbers in between are void. Without this, a crash while recovery begins
/// a segment would look like a loss.
pub(crate) fn told_by_start<F: Fs>(
    fs: &F,
    path: &Path,
) -> io::Result<Option<(SegmentHeader, SeqNo)>> {
    let file = fs.open(path, Access::Read)?;
    let mut window = Window::new(MAX_SEGMENT_SIZE);
    let start = window.slice(&file, BODY, HEADER_LEN + FIELDS_LEN)?;
    if start.len() < HEADER_LEN + FIELDS_LEN {
        return Ok(None);
    }
    let fields = &start[HEADER_LEN..];
    let PageFound::Header(header) = SegmentHeader::decode_fields(fields) else {
        return Ok(None);
    };
    let (number, salt) = (header.number, header.salt);
    match Header::decode(&start, salt) {
        Decoded::Header(own)
            if own.kind == Kind::Start
                && (own.segment, own.position) == (number, BODY)
                && own.covers(fields) => {}
        Decoded::Header(_) | Decoded::Unknown(_) | Decoded::Invalid => return Ok(None),
    }
    window.limit = header.size + MAX_BATCH_BYTES as u64;
    window.read_slots(&file, Life { number, salt })?;
    let mut promised = header.previous.next_seq;
    search(&mut window, &file, Life { number, salt }, BODY, |frame| {
        if frame.durable_seq > header.durable_seq {
            promised = promised.max(frame.durable_seq);
        }
        true
    })?;
    Ok(Some((header, promised)))
}
