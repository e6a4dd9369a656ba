//! A log as it lies in its directory: read, judged, unchanged.
//!
//! Owns: putting together what the survey, the chain and the scan of the newest segment say. Must not
//! know: what is done about it (`open`), or who only looks (`view`).
//!
//! Invariant: nothing here writes.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::directory::{Segment, Survey};
use super::error::Error;
use super::frame::{HEADER_LEN, Header};
use super::fs::{Access, Fs};
use super::gap::{Cause, Gap, Gaps};
use super::headless::told_by_start;
use super::options::MAX_BATCH_BYTES;
use super::reader::Live;
use super::recovery::{End, Place, Region, Row, judge};
use super::scan::{At, Life, Stretch, Tail, scan_tail};
use super::segment::{BODY, EndKind, Predecessor, SegmentHeader};
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
    /// Where the newest segment ends.
    pub end: End,
    /// Where the others end: position and number.
    ends: Vec<(u64, SeqNo)>,
    /// Everything below it was declared durable somewhere (W).
    pub promised: SeqNo,
    /// Frames with definitions, as they are stored.
    pub definitions: Vec<(Header, Bytes)>,
    /// Gaps that an earlier recovery made.
    pub known: Vec<Gap>,
    /// Gaps that this one has to make.
    pub fresh: Vec<Gap>,
}

impl Found {
    /// Reads the log in `dir`; `None` where there is none.
    pub(crate) fn of<F: Fs>(fs: &F, dir: &Path) -> Result<Option<Self>, Error> {
        let mut survey = Survey::of(fs, dir)?;
        leave_copies(fs, &mut survey.segments)?;
        if !survey.is_log() {
            return Ok(None);
        }
        loop {
            let found = Self::judged(fs, dir, survey)?;
            // What is adopted may lead to others, and no file is adopted twice.
            let Some((path, header)) = found.unclaimed(fs)? else {
                return Ok(Some(found));
            };
            survey = found.survey;
            survey.adopt(&path, header);
        }
    }

    fn judged<F: Fs>(fs: &F, dir: &Path, survey: Survey) -> Result<Self, Error> {
        let Some(log_id) = survey.log_id()? else {
            return Err(Error::corrupt(
                dir,
                0,
                "no segment and no cursor has a valid header",
            ));
        };
        let mut found = Self {
            chain: survey.chain(log_id),
            log_id,
            tail: None,
            end: End::empty(BODY, SeqNo::ZERO),
            ends: Vec::new(),
            promised: survey.slot().map_or(SeqNo::ZERO, |slot| slot.synced),
            definitions: Vec::new(),
            known: Vec::new(),
            fresh: Vec::new(),
            survey,
        };
        match found.chain.last().cloned() {
            Some(newest) => found.judge_newest(fs, &newest)?,
            None => found.miss_all(),
        }
        found.judge_older(fs)?;
        found.miss_oldest();
        Ok(found)
    }

    fn judge_newest<F: Fs>(&mut self, fs: &F, newest: &Segment) -> Result<(), Error> {
        let tail = scan(fs, newest, u64::MAX)?;
        for stretch in &tail.stretches {
            if let (position, At::Unknown(found)) = &stretch.stop {
                let found = format!("{found}, at position {position}");
                let path = newest.path.clone();
                return Err(Error::Version { path, found });
            }
        }
        let header = &newest.header;
        self.promised = [tail.promise, header.durable_seq, header.previous.next_seq]
            .into_iter()
            .fold(self.promised, SeqNo::max);
        let place = match self.survey.slot() {
            Some(slot) if slot.newest.0 > header.number => Place::NewestLeft,
            Some(_) | None => Place::Newest,
        };
        self.end = judge(&tail, self.promised, place);
        self.take_in(&tail, self.end.stretches);
        for region in self.end.regions.clone() {
            self.miss(gap_of(region, newest));
        }
        self.tail = Some(tail);
        Ok(())
    }

    /// A crash between a new log's cursor and its first segment; or all segments are gone.
    fn miss_all(&mut self) {
        if let Some(slot) = self.survey.slot() {
            let (low, newest) = (slot.low, slot.newest.0);
            self.end = End::empty(BODY, self.promised.max(low));
            if low < self.promised {
                self.miss(Gap::new(low..self.promised, Cause::MissingTail, newest));
            }
        }
    }

    /// Where each segment ends that has a successor: as that one says. What stands in front of a hole
    /// is scanned, and so is the second newest where the newest may lack what its start repeats.
    fn judge_older<F: Fs>(&mut self, fs: &F) -> Result<(), Error> {
        let repeats = self.end.regions.is_empty()
            && self
                .tail
                .as_ref()
                .is_some_and(|tail| tail.stretches[0].records > 0);
        let chain = std::mem::take(&mut self.chain);
        for (index, pair) in chain.windows(2).enumerate() {
            let [segment, next] = pair else { continue };
            let (hole, previous) = (!segment.is_followed_by(next), &next.header.previous);
            let mut end = (previous.end, previous.next_seq);
            if hole || (index + 2 == chain.len() && !repeats) {
                let limit = if hole { u64::MAX } else { previous.end };
                let tail = scan(fs, segment, limit)?;
                let judged = judge(&tail, previous.next_seq, Place::Older { hole });
                self.take_in(&tail, judged.stretches);
                for region in judged.regions {
                    self.miss(gap_of(region, segment));
                }
                if hole {
                    end.0 = judged.position;
                }
            }
            self.ends.push(end);
        }
        self.chain = chain;
        Ok(())
    }

    /// The oldest segment that the cursor names is missing.
    fn miss_oldest(&mut self) {
        let (Some(first), Some(slot)) = (self.chain.first(), self.survey.slot()) else {
            return;
        };
        let previous = first.header.previous;
        if previous.number > 0 && previous.number >= slot.oldest && slot.low < previous.next_seq {
            let seqs = slot.low..previous.next_seq;
            self.miss(Gap::new(seqs, Cause::MissingSegment, previous.number));
        }
    }

    /// What a segment repeats of those before it.
    fn take_in(&mut self, tail: &Tail, stretches: usize) {
        for stretch in &tail.stretches[..stretches] {
            self.definitions.extend(stretch.definitions.iter().cloned());
            self.known.extend(stretch.gaps.iter().cloned());
        }
    }

    /// Adds a gap, unless it is known. What held no record is told where the log goes on without it.
    fn miss(&mut self, gap: Gap) {
        let known = if gap.seqs.is_empty() {
            self.tail.is_some()
        } else {
            Gaps::new(self.known.clone()).end_at(gap.seqs.start) >= gap.seqs.end
        };
        if !known {
            self.fresh.push(gap);
        }
    }

    /// All gaps of the live segments.
    pub(crate) fn gaps(&self) -> Gaps {
        let first = self
            .chain
            .first()
            .map_or(SeqNo::ZERO, |first| first.header.base_seq);
        let live = self.told().filter(|gap| gap.seqs.end > first);
        Gaps::new(live.cloned().collect())
    }

    /// Gaps that were known, and those that are found just now.
    fn told(&self) -> impl Iterator<Item = &Gap> {
        self.known.iter().chain(&self.fresh)
    }

    /// What has to be repaired, as an error.
    pub(crate) fn damage(&self, dir: &Path) -> Option<Error> {
        let gap = self.fresh.first()?;
        let reason = match gap.cause {
            Cause::Damaged => format!(
                "record {} should be here: everything below {} was declared durable",
                gap.seqs.start, self.promised
            ),
            Cause::MissingSegment | Cause::MissingTail | Cause::Unreadable => gap.to_string(),
        };
        let segment = self.segment(gap.segment);
        let path = segment.map_or(dir, |segment| &segment.path);
        Some(Error::corrupt(path, gap.position, reason))
    }

    /// The live segment of this number.
    pub(crate) fn segment(&self, number: u64) -> Option<&Segment> {
        let mut segments = self.chain.iter();
        segments.find(|segment| segment.header.number == number)
    }

    /// Pages of the newest segment cannot be read.
    pub(crate) fn tail_is_unreadable(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.unreadable)
    }

    /// The newest segment holds nothing: it is begun anew instead of cut.
    pub(crate) fn newest_is_empty(&self) -> bool {
        let nothing = |tail: &Tail| tail.stretches.len() == 1 && tail.stretches[0].records == 0;
        !self.tail_is_unreadable()
            && self.tail.as_ref().is_some_and(nothing)
            && self
                .chain
                .last()
                .is_some_and(|newest| self.promised <= newest.header.base_seq)
    }

    /// The live segments with their ends, and the void numbers between them.
    pub(crate) fn live(&self) -> (VecDeque<Live>, Vec<Range<SeqNo>>) {
        let mut live = VecDeque::new();
        let mut voids = Vec::new();
        let newest = (self.end.position, self.end.next_seq);
        let gaps = self.told().filter(|gap| gap.cause == Cause::Unreadable);
        let mut unreadable: Vec<u64> = gaps.map(|gap| gap.segment).collect();
        if self.tail_is_unreadable() {
            unreadable.push(self.newest().0);
        }
        let ends = self.ends.iter().copied().chain([newest]);
        for (segment, (end, next_seq)) in self.chain.iter().zip(ends) {
            let header = &segment.header;
            if header.previous.next_seq < header.base_seq {
                voids.push(header.previous.next_seq..header.base_seq);
            }
            live.push_back(Live {
                life: Life {
                    number: header.number,
                    salt: header.salt,
                },
                path: segment.path.clone(),
                key: header.key,
                base_seq: header.base_seq,
                void_from: header.previous.next_seq,
                end,
                next_seq,
                stand_ins: Vec::new(),
                unreadable: segment.unreadable || unreadable.contains(&header.number),
            });
        }
        if let (Some(newest), Some(tail)) = (live.back_mut(), &self.tail) {
            newest.stand_ins.clone_from(&tail.stand_ins);
        }
        (live, voids)
    }

    /// What is settled, as the cursor tells it, or else the frames (row M).
    pub(crate) fn settled(&self, voids: Vec<Range<SeqNo>>) -> Settled {
        let gaps = Gaps::new(self.told().cloned().collect());
        let gaps = gaps.iter().map(|gap| gap.seqs.clone());
        if let Some(slot) = self.survey.slot() {
            return Settled::new(slot.origin, slot.low, slot.totals, &slot.runs, voids, gaps);
        }
        let first = self
            .chain
            .first()
            .map_or(SeqNo::ZERO, |segment| segment.header.base_seq);
        let low = self
            .counted()
            .iter()
            .map(|stretch| stretch.acked)
            .fold(SeqNo::ZERO, SeqNo::max)
            .min(self.end.next_seq)
            .max(first);
        let mut totals = [0; Class::ALL.len()];
        totals[Class::Unknown.index()] = low.get();
        let mut from = SeqNo::ZERO;
        for gap in gaps.clone() {
            // Of these it is known.
            let lost = gap.end.min(low) - gap.start.max(from);
            totals[Class::Lost.index()] += lost;
            totals[Class::Unknown.index()] -= lost;
            from = from.max(gap.end);
        }
        Settled::new(SeqNo::ZERO, low, totals, &[], voids, gaps)
    }

    /// The stretches of the newest segment up to where the log ends.
    fn counted(&self) -> &[Stretch] {
        self.tail
            .as_ref()
            .and_then(|tail| tail.stretches.get(..self.end.stretches))
            .unwrap_or_default()
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

    /// Rows G and H: a file that lost both header copies is live if the chain or the cursor names the
    /// life that its start frame tells, or if its frames promise records that are nowhere else.
    fn unclaimed<F: Fs>(&self, fs: &F) -> Result<Option<(PathBuf, SegmentHeader)>, Error> {
        let slot = self.survey.slot();
        let oldest = slot.map_or(0, |slot| slot.oldest);
        let named = self.chain.iter().map(|segment| {
            let previous = segment.header.previous;
            (previous.number, previous.salt)
        });
        let named: Vec<(u64, u64)> = named.chain(slot.map(|slot| slot.newest)).collect();
        let headless = self.survey.headless.iter();
        for path in headless.filter(|h| !h.blank).map(|h| &h.path) {
            let told = told_by_start(fs, path).map_err(Error::io("read", path))?;
            let Some((header, promised)) = told else {
                continue;
            };
            let life = (header.number, header.salt);
            let newer = self.chain.last().is_none_or(|l| l.header.number < life.0);
            let live = named.contains(&life) && (newer || self.segment(life.0).is_none());
            if header.log_id == self.log_id
                && life.0 >= oldest
                && (live || newer && promised > self.recovered_end())
            {
                return Ok(Some((path.clone(), header)));
            }
        }
        Ok(None)
    }

    /// The number after the last record that is there.
    fn recovered_end(&self) -> SeqNo {
        self.counted()
            .last()
            .map_or(SeqNo::ZERO, |stretch| stretch.next_seq)
    }
}

/// Of two files that claim one life somebody made one by copying: the one that goes further counts.
/// The other is left as it is, so that whoever made it may have it back.
fn leave_copies<F: Fs>(fs: &F, segments: &mut Vec<Segment>) -> Result<(), Error> {
    let mut kept: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments.drain(..) {
        match kept.last_mut() {
            Some(twin) if twin.header == segment.header => {
                let reach = |one: &Segment| {
                    let stretches = scan(fs, one, u64::MAX)?.stretches;
                    Ok(stretches.last().map(|last| last.end))
                };
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
    // A tail slot may stand in for a page that the file does not reach yet. What lies far beyond the
    // segment's size is not looked at: it may be a sparse terabyte.
    let limit = limit.min(segment.header.size + MAX_BATCH_BYTES as u64);
    scan_tail(&file, life, segment.header.base_seq, limit).map_err(Error::io("read", &segment.path))
}

impl Found {
    /// Number and salt of the newest segment; zeros where there is none.
    pub(crate) fn newest(&self) -> (u64, u64) {
        let newest = self.chain.last().map(|s| (s.header.number, s.header.salt));
        newest.unwrap_or_default()
    }

    /// The largest segment number in any header or cursor slot: that of a missing segment is not given
    /// again.
    pub(crate) fn largest_number(&self) -> u64 {
        let numbers = self.survey.segments.iter().map(|s| s.header.number);
        let named = self.survey.slots.iter().flatten().map(|s| s.newest.0);
        numbers.chain(named).max().unwrap_or(0)
    }

    pub(crate) fn predecessor(&self) -> Predecessor {
        let end = &self.end;
        match self.chain.last().map(|newest| newest.header) {
            None => Predecessor {
                next_seq: end.next_seq,
                ..Predecessor::NONE
            },
            Some(header) if self.newest_is_empty() => header.previous,
            Some(header) => Predecessor {
                number: header.number,
                salt: header.salt,
                end: end.position,
                next_seq: end.next_seq,
                kind: match self.counted().last() {
                    Some(last) if last.sealed && end.row == Row::A => EndKind::Sealed,
                    Some(_) | None => EndKind::Torn,
                },
            },
        }
    }

    /// Bytes of this life behind the end that were not promised.
    pub(crate) fn unproven_bytes(&self) -> u64 {
        let Some(last) = self.counted().last() else {
            return 0;
        };
        let after = last.after;
        let behind = after.map_or(0, |header| header.position + header.span());
        let torn = match &last.stop {
            (position, At::BadPayload(header)) => position + header.span(),
            (position, At::BadHeader) => position + HEADER_LEN as u64,
            (position, At::Frame(_) | At::Unknown(_) | At::Unreadable | At::Nothing) => *position,
        };
        let from = match self.end.row {
            Row::A | Row::B | Row::C | Row::D | Row::K => self.end.position,
            // The damaged region was promised; only what follows it was not.
            Row::E | Row::I | Row::J => after.map_or(u64::MAX, |header| header.position),
        };
        torn.max(behind).max(last.end).saturating_sub(from)
    }
}

/// What is lost with a damaged region of this segment.
fn gap_of(region: Region, segment: &Segment) -> Gap {
    let end = region.end.unwrap_or(segment.file_len);
    Gap {
        position: region.position,
        len: match region.cause {
            Cause::Damaged | Cause::Unreadable => end.saturating_sub(region.position),
            Cause::MissingSegment | Cause::MissingTail => 0,
        },
        ..Gap::new(region.seqs, region.cause, segment.header.number)
    }
}
