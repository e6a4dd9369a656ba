//! A log as it lies in its directory: read, judged, unchanged.
//!
//! Owns: putting together what the survey, the chain and the scan of the newest segment say. Must not
//! know: what is done about it (`open`), or who only looks (`view`).
//!
//! Invariant: nothing here writes, except that [`Found::pool`] clears headers once `open` has decided.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;

use super::dictionary::Dictionary;
use super::directory::{Segment, Survey};
use super::error::Error;
use super::frame::{Decoded, HEADER_LEN, Header, Kind, u64_at};
use super::fs::{Access, Fs};
use super::options::MAX_BATCH_BYTES;
use super::pool::{Pool, clear_headers};
use super::reader::Live;
use super::recovery::{End, Row, judge};
use super::scan::{At, Life, Tail, Window, scan_tail, search};
use super::segment::{BODY, EndKind, FIELDS_LEN, PageFound, Predecessor, SegmentHeader};
use super::seq::{LogId, SeqNo};
use super::settled::{Class, Settled};

/// A log as it lies in its directory, judged but unchanged.
#[derive(Debug)]
pub(crate) struct Found {
    pub survey: Survey,
    pub log_id: LogId,
    /// Oldest first; empty where a new log has no segment yet.
    pub chain: Vec<Segment>,
    /// The scan of the newest segment.
    pub tail: Option<Tail>,
    /// Everything below it was declared durable somewhere (W).
    pub promised: SeqNo,
    pub definitions: Vec<(u32, bytes::Bytes)>,
}

impl Found {
    /// Reads the log in `dir`; `None` where there is none.
    pub(crate) fn of<F: Fs>(fs: &F, dir: &Path) -> Result<Option<Self>, Error> {
        let mut survey = Survey::of(fs, dir)?;
        leave_copies(fs, &mut survey.segments)?;
        if !survey.is_log() {
            return Ok(None);
        }
        let Some(log_id) = survey.log_id()? else {
            return Err(Error::corrupt(
                dir,
                0,
                "no segment and no cursor has a valid header",
            ));
        };
        let chain = survey.chain(dir, log_id)?;
        let Some(newest) = chain.last() else {
            return Self::without_segments(dir, survey, log_id).map(Some);
        };
        let tail = scan(fs, newest, newest.file_len)?;
        if let (position, At::Unknown(found)) = &tail.stop {
            let found = format!("{found}, at position {position}");
            return Err(Error::Version {
                path: newest.path.clone(),
                found,
            });
        }
        let header = &newest.header;
        let promised = [tail.promise, header.durable_seq, header.previous.next_seq]
            .into_iter()
            .chain(survey.slot().map(|slot| slot.synced))
            .fold(SeqNo::ZERO, SeqNo::max);
        let mut definitions = tail.definitions.clone();
        if tail.records == 0
            && let [.., older, _] = &chain[..]
        {
            // The newest one may have lost its preamble with the records it never got.
            definitions.splice(0..0, scan(fs, older, header.previous.end)?.definitions);
        }
        Ok(Some(Self {
            survey,
            log_id,
            tail: Some(tail),
            chain,
            promised,
            definitions,
        }))
    }

    /// A crash between a new log's cursor and its first segment; or all segments are gone.
    fn without_segments(dir: &Path, survey: Survey, log_id: LogId) -> Result<Self, Error> {
        match survey.slot() {
            Some(slot) if slot.newest == (0, 0) => Ok(Self {
                survey,
                log_id,
                chain: Vec::new(),
                tail: None,
                promised: SeqNo::ZERO,
                definitions: Vec::new(),
            }),
            slot => {
                let newest = slot.map_or(0, |slot| slot.newest.0);
                let reason = format!(
                    "the cursor names segment number {newest}, but no segment has a valid header"
                );
                Err(Error::corrupt(dir, 0, reason))
            }
        }
    }

    /// Where the log ends, or the error of a row that needs repair.
    pub(crate) fn end(&self) -> Result<End, Error> {
        let (Some(tail), Some(newest)) = (&self.tail, self.chain.last()) else {
            return Ok(End {
                row: Row::A,
                position: BODY,
                next_seq: SeqNo::ZERO,
            });
        };
        judge(tail, self.promised).map_err(|missing| {
            let (position, at) = &tail.stop;
            let reason = format!(
                "record {missing} should be here: everything below {} was declared durable; found {at:?}",
                self.promised
            );
            Error::corrupt(&newest.path, *position, reason)
        })
    }

    /// The newest segment holds nothing: it is begun anew instead of cut.
    pub(crate) fn newest_is_empty(&self) -> bool {
        self.tail
            .as_ref()
            .is_some_and(|tail| tail.records == 0 && tail.after.is_none())
            && self
                .chain
                .last()
                .is_some_and(|newest| self.promised <= newest.header.base_seq)
    }

    /// The live segments with their ends, and the void numbers between them.
    pub(crate) fn live(&self, end: End) -> (VecDeque<Live>, Vec<Range<SeqNo>>) {
        let mut live = VecDeque::new();
        let mut voids = Vec::new();
        for (index, segment) in self.chain.iter().enumerate() {
            let header = &segment.header;
            if header.previous.next_seq < header.base_seq {
                voids.push(header.previous.next_seq..header.base_seq);
            }
            let (end, next_seq) = match self.chain.get(index + 1).map(|next| next.header.previous) {
                Some(named) => (named.end, named.next_seq),
                None => (end.position, end.next_seq),
            };
            live.push_back(Live {
                life: Life {
                    number: header.number,
                    salt: header.salt,
                },
                path: segment.path.clone(),
                base_seq: header.base_seq,
                void_from: header.previous.next_seq,
                end,
                next_seq,
            });
        }
        (live, voids)
    }

    /// What is settled, as the cursor tells it, or else the frames (row M).
    pub(crate) fn settled(&self, voids: Vec<Range<SeqNo>>) -> Settled {
        if let Some(slot) = self.survey.slot() {
            return Settled::new(slot.origin, slot.low, slot.totals, &slot.runs, voids);
        }
        let first = self
            .chain
            .first()
            .map_or(SeqNo::ZERO, |segment| segment.header.base_seq);
        let low = self
            .tail
            .as_ref()
            .map_or(SeqNo::ZERO, |tail| tail.acked.min(tail.next_seq))
            .max(first);
        let mut totals = [0; Class::ALL.len()];
        totals[Class::ALL.len() - 1] = low.get();
        Settled::new(SeqNo::ZERO, low, totals, &[], voids)
    }

    /// Numbers that were reserved for the life that ended.
    pub(crate) fn limits(&self) -> impl Iterator<Item = SeqNo> {
        let slots = self
            .survey
            .slots
            .iter()
            .flatten()
            .map(|slot| slot.seq_limit);
        slots.chain(self.chain.iter().map(|segment| segment.header.seq_limit))
    }

    /// Row H, as far as it is decided today: a file that lost both header copies is a spare, unless
    /// its frames promise records that are nowhere else.
    pub(crate) fn check_headless<F: Fs>(&self, fs: &F, end: End) -> Result<(), Error> {
        for headless in self
            .survey
            .headless
            .iter()
            .filter(|headless| !headless.blank)
        {
            let path = &headless.path;
            let promised = promise_without_header(fs, path).map_err(Error::io("read", path))?;
            if promised > end.next_seq {
                let reason = format!(
                    "both header copies are lost, and the records in it up to {promised} were declared durable"
                );
                return Err(Error::corrupt(path, 0, reason));
            }
        }
        Ok(())
    }
}

/// Of two files that claim one life somebody made one by copying: the one that goes further counts.
/// The other is left as it is, so that whoever made it may have it back.
fn leave_copies<F: Fs>(fs: &F, segments: &mut Vec<Segment>) -> Result<(), Error> {
    let mut kept: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments.drain(..) {
        match kept.last_mut() {
            Some(twin) if twin.header == segment.header => {
                let reach = |one: &Segment| Ok(scan(fs, one, one.file_len)?.end);
                if reach(twin)? < reach(&segment)? {
                    *twin = segment;
                }
            }
            Some(_) | None => kept.push(segment),
        }
    }
    *segments = kept;
    Ok(())
}

fn scan<F: Fs>(fs: &F, segment: &Segment, limit: u64) -> Result<Tail, Error> {
    let file = fs
        .open(&segment.path, Access::Read)
        .map_err(Error::io("open", &segment.path))?;
    let life = Life {
        number: segment.header.number,
        salt: segment.header.salt,
    };
    // A length far beyond the segment's own is not looked at: it may be a sparse terabyte.
    let limit = limit.min(segment.header.size + MAX_BATCH_BYTES as u64);
    scan_tail(&file, life, segment.header.base_seq, limit).map_err(Error::io("read", &segment.path))
}

/// The largest promise about records in a file whose start frame is all that names its life.
///
/// A promise up to the segment's own base is one about its predecessor, and reaches only to that
/// one's end: the numbers in between are void. Without this, a crash while recovery begins a segment
/// would look like a loss.
fn promise_without_header<F: Fs>(fs: &F, path: &Path) -> std::io::Result<SeqNo> {
    let file = fs.open(path, Access::Read)?;
    let mut window = Window::new(super::options::MAX_SEGMENT_SIZE);
    let start = window.slice(&file, BODY, HEADER_LEN + FIELDS_LEN)?;
    if start.len() < HEADER_LEN + FIELDS_LEN {
        return Ok(SeqNo::ZERO);
    }
    let salt = u64_at(&start, HEADER_LEN + 64);
    let own = match Header::decode(&start, salt) {
        Decoded::Header(header) if header.kind == Kind::Start => header,
        Decoded::Header(_) | Decoded::Unknown(_) | Decoded::Invalid => return Ok(SeqNo::ZERO),
    };
    let fields = &start[HEADER_LEN..];
    let mut promised = match SegmentHeader::decode_fields(fields) {
        PageFound::Header(header) if own.covers(fields) => header.previous.next_seq,
        _ => SeqNo::ZERO,
    };
    let number = own.segment;
    search(&mut window, &file, Life { number, salt }, BODY, |header| {
        if header.durable_seq > own.first_seq {
            promised = promised.max(header.durable_seq);
        }
        true
    })?;
    Ok(promised)
}

impl Found {
    pub(crate) fn dictionary(&self) -> Dictionary {
        let mut dictionary = Dictionary::default();
        for (id, text) in &self.definitions {
            // A copy: the slice would hold on to a whole read buffer.
            dictionary.insert(*id, bytes::Bytes::copy_from_slice(text));
        }
        dictionary
    }

    /// Number and salt of the newest segment; zeros where there is none.
    pub(crate) fn newest(&self) -> (u64, u64) {
        let newest = self.chain.last().map(|s| (s.header.number, s.header.salt));
        newest.unwrap_or_default()
    }

    /// The largest segment number in any header.
    pub(crate) fn largest_number(&self) -> u64 {
        let numbers = self.survey.segments.iter().map(|s| s.header.number);
        numbers.max().unwrap_or(0)
    }

    /// Files that hold nothing live. Other logs' files are left alone.
    pub(crate) fn pool<F: Fs>(&self, fs: &F) -> Result<Pool, Error> {
        let off_chain = self.survey.segments.iter().filter(|segment| {
            segment.header.log_id == self.log_id
                && !self.chain.iter().any(|live| live.path == segment.path)
        });
        let damaged = self
            .survey
            .headless
            .iter()
            .filter(|headless| !headless.blank);
        for path in off_chain
            .clone()
            .map(|s| &s.path)
            .chain(damaged.map(|h| &h.path))
        {
            clear_headers(fs, path)?;
        }
        let headless = self.survey.headless.iter().map(|headless| &headless.path);
        let spares = off_chain
            .map(|segment| &segment.path)
            .chain(headless)
            .cloned()
            .collect();
        Ok(Pool::new(spares, self.survey.largest_identity))
    }

    pub(crate) fn predecessor(&self, end: End) -> Predecessor {
        match self.chain.last().map(|newest| newest.header) {
            None => Predecessor::NONE,
            Some(header) if self.newest_is_empty() => header.previous,
            Some(header) => Predecessor {
                number: header.number,
                salt: header.salt,
                end: end.position,
                next_seq: end.next_seq,
                kind: match &self.tail {
                    Some(tail) if tail.sealed && end.row == Row::A => EndKind::Sealed,
                    Some(_) | None => EndKind::Torn,
                },
            },
        }
    }

    /// Bytes of this life behind the end.
    pub(crate) fn unproven_bytes(&self, end: End) -> u64 {
        let Some(tail) = &self.tail else { return 0 };
        let torn = match &tail.stop {
            (position, At::BadPayload(header)) => position + header.span(),
            (position, At::BadHeader) => position + HEADER_LEN as u64,
            (position, At::Frame(_) | At::Unknown(_) | At::Nothing) => *position,
        };
        let behind = tail
            .after
            .map_or(0, |header| header.position + header.span());
        torn.max(behind).max(tail.end).saturating_sub(end.position)
    }
}
