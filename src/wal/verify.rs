//! Checking every byte of every live segment, changing nothing.
//!
//! Owns: the findings and their wording. Must not know: repair.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::directory::Segment;
use super::error::Error;
use super::frame::PAGE;
use super::fs::{Access, File, Fs};
use super::gap::{Cause, Gap, Gaps};
use super::recovery::Row;
use super::scan::{At, Step, Walk};
use super::segment::{BODY, EndKind, HEADER_POSITIONS, SLOT_POSITIONS};
use super::seq::SeqNo;
use super::view::View;
use super::window::{CHUNK, Window};

use FindingKind::{Corrupt, Lost, Torn, Unreadable};

/// What [`View::verify`] went over, and what it found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Live segments.
    pub segments: u64,
    /// Frames whose checksum holds.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that is not as it should be, in the order of the log.
    pub findings: Vec<Finding>,
}

impl Verified {
    /// Whether nothing promised is damaged but what is known to be lost, and all can be read. A torn tail
    /// is expected after a crash.
    pub fn is_clean(&self) -> bool {
        let mut kinds = self.findings.iter().map(|finding| finding.kind);
        kinds.all(|kind| matches!(kind, Torn | Lost))
    }
}

/// What a damaged region is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FindingKind {
    /// An unfinished write: nothing of it was acknowledged at level `disk`. Expected after a crash.
    Torn,
    /// Bytes changed after they were promised.
    Corrupt,
    /// The disk does not give the bytes, whatever they are.
    Unreadable,
    /// Corrupt or unreadable, but known: the records are settled as lost, and the log went on without them.
    Lost,
}

/// One region that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Expected or not.
    pub kind: FindingKind,
    /// The file.
    pub path: PathBuf,
    /// First byte of the region.
    pub position: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The records that were in it, where that is known.
    pub seqs: Option<Range<SeqNo>>,
    /// What is wrong.
    pub reason: String,
}

/// One segment while it is being checked.
struct Check<'a, F: File> {
    path: &'a Path,
    file: F,
    window: Window,
    walk: Walk,
    /// Where its records end, and with which number.
    end: (u64, SeqNo),
    /// The largest durable mark in a whole frame.
    promise: SeqNo,
    known: &'a Gaps,
    fresh: &'a [Gap],
    result: &'a mut Verified,
}

impl<F: Fs> View<F> {
    /// Checks every byte of every live segment. `progress` gets the bytes checked and their total.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if something cannot be read at all. Damage is no error: see
    /// [`Verified::findings`].
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified, Error> {
        let mut result = Verified::default();
        let chain = &self.found.chain;
        let (live, _) = self.found.live();
        let known = self.segments.1.lock().clone();
        let total = live.iter().map(|live| live.end).sum();
        for (index, (segment, live)) in chain.iter().zip(&live).enumerate() {
            self.check_reserved(segment, &mut result)?;
            let file = self.fs.open(&segment.path, Access::Read);
            let mut window = Window::new(live.end);
            window.reset(live.end, live.stand_ins.clone());
            let mut check = Check {
                path: &segment.path,
                file: file.map_err(Error::io("open", &segment.path))?,
                window,
                walk: Walk::new(live.life, live.base_seq),
                end: (live.end, live.next_seq),
                promise: SeqNo::ZERO,
                known: &known,
                fresh: &self.found.fresh,
                result: &mut result,
            };
            check.frames().map_err(Error::io("read", &segment.path))?;
            let ended = chain.get(index + 1).map(|next| next.header.previous.kind);
            check.header_copies(segment, ended);
            result.segments += 1;
            result.bytes += live.end;
            progress(result.bytes, total);
        }
        self.check_end(&mut result);
        Ok(result)
    }

    /// The zeros between header copies and tail slots.
    fn check_reserved(&self, segment: &Segment, result: &mut Verified) -> Result<(), Error> {
        let path = &segment.path;
        let mut finding = |kind: FindingKind, position: u64, reason: &str| {
            result.findings.push(Finding {
                kind,
                path: path.clone(),
                position,
                len: PAGE as u64,
                seqs: None,
                reason: reason.into(),
            });
        };
        let file = self
            .fs
            .open(path, Access::Read)
            .map_err(Error::io("open", path))?;
        let mut window = Window::new(BODY);
        let mut position = 0;
        while position < BODY {
            let kept = HEADER_POSITIONS.contains(&position) || SLOT_POSITIONS.contains(&position);
            let page = window
                .get(&file, position, PAGE)
                .map_err(Error::io("read", path))?;
            if !kept && page.iter().any(|&byte| byte != 0) {
                finding(Corrupt, position, "the reserved area is not zero");
            }
            if window.lacks(position, PAGE as u64) {
                finding(Unreadable, position, "a reserved page cannot be read");
            }
            position += PAGE as u64;
        }
        Ok(())
    }

    /// What stands behind the last record of the newest segment.
    fn check_end(&self, result: &mut Verified) {
        let Some(newest) = self.found.chain.last() else {
            return;
        };
        let (kind, position, len, reason) = match self.found.end.row {
            Row::B | Row::C => (
                Torn,
                self.found.end.position,
                self.found.unproven_bytes().max(1),
                "an unfinished write, never acknowledged at level disk",
            ),
            Row::K => match self.found.fresh.iter().find(|gap| gap.seqs.is_empty()) {
                None => return,
                Some(gap) => (
                    Unreadable,
                    gap.position,
                    gap.len,
                    "the disk cannot read what is behind the last record",
                ),
            },
            // What was promised and is gone was told with its segment.
            Row::A | Row::D | Row::E | Row::I | Row::J => return,
        };
        result.findings.push(Finding {
            kind,
            path: newest.path.clone(),
            position,
            len,
            seqs: None,
            reason: reason.into(),
        });
    }
}

/// What a gap that nobody knows yet is a finding of.
fn kind_of(gap: &Gap) -> FindingKind {
    match gap.cause {
        Cause::Unreadable => Unreadable,
        Cause::Damaged | Cause::MissingSegment | Cause::MissingTail => Corrupt,
    }
}

impl<F: File> Check<'_, F> {
    /// Walks to the segment's end, over damaged stretches to the next whole frame.
    fn frames(&mut self) -> std::io::Result<()> {
        while self.walk.position < self.end.0 {
            match self.walk.step(&mut self.window, &self.file)? {
                Step::Frame { header, padding } => {
                    self.result.frames += 1;
                    self.result.records += u64::from(header.count);
                    self.promise = self.promise.max(header.durable_seq);
                    self.check_zero(padding)?;
                }
                Step::Stop(At::Nothing) if self.walk.expected >= self.end.1 => {
                    return self.check_zero(self.walk.position..self.end.0);
                }
                Step::Stop(at) => self.skip(&at)?,
            }
        }
        if self.walk.expected < self.end.1 {
            let missing = self.walk.expected;
            let gap = self.known.iter().chain(self.fresh);
            let mut gaps = gap.filter(|gap| gap.seqs.contains(&missing));
            let (kind, region) = match gaps.next() {
                None => (Corrupt, self.end.0..self.end.0),
                Some(gap) => (kind_of(gap), gap.position..gap.position + gap.len),
            };
            self.damage(kind, region, self.end.1, "records are missing");
        }
        Ok(())
    }

    /// Passes a damaged stretch.
    fn skip(&mut self, found: &At) -> std::io::Result<()> {
        let (walk, expected) = (&self.walk, self.walk.expected);
        let next = walk.landing(&mut self.window, &self.file, expected, self.end)?;
        let kind = match found {
            At::Unreadable => Unreadable,
            _ => Corrupt,
        };
        self.damage(kind, self.walk.position..next.0, next.1, found.reason());
        self.walk.jump(next);
        Ok(())
    }

    /// Both copies were durable with the first sync of the segment. Was there one?
    fn header_copies(&mut self, segment: &Segment, ended: Option<EndKind>) {
        let synced = self.promise > segment.header.durable_seq
            || ended.is_some_and(|kind| kind != EndKind::Torn);
        if !segment.both_copies && !segment.unreadable {
            let kind = if synced { Corrupt } else { Torn };
            let reason = "one of the two header copies is damaged; the other one stands in";
            self.finding(kind, 0..BODY, self.walk.expected, reason);
        }
    }

    /// Padding holds nothing, and no checksum covers it: where only the first sectors of a write
    /// reached the disk before a crash, the records in them count and the rest is what was there.
    fn check_zero(&mut self, padding: Range<u64>) -> std::io::Result<()> {
        let expected = self.walk.expected;
        let (mut position, mut is_zero) = (padding.start, true);
        while position < padding.end {
            let want = usize::try_from(padding.end - position)
                .unwrap_or(CHUNK)
                .min(CHUNK);
            let bytes = self.window.get(&self.file, position, want)?;
            if bytes.is_empty() {
                break;
            }
            is_zero &= bytes.iter().all(|&byte| byte == 0);
            position += bytes.len() as u64;
        }
        if self
            .window
            .lacks(padding.start, padding.end - padding.start)
        {
            self.finding(Unreadable, padding, expected, "the padding cannot be read");
        } else if !is_zero {
            self.finding(Torn, padding, expected, "the padding is not zero");
        }
        Ok(())
    }

    /// Records that should be in this region are not.
    fn damage(&mut self, kind: FindingKind, region: Range<u64>, up_to: SeqNo, reason: &str) {
        let expected = self.walk.expected;
        let known = expected < up_to && up_to <= self.known.end_at(expected);
        let kind = if known { Lost } else { kind };
        self.finding(kind, region, up_to, reason);
    }

    fn finding(&mut self, kind: FindingKind, region: Range<u64>, up_to: SeqNo, reason: &str) {
        let seqs = self.walk.expected..up_to;
        self.result.findings.push(Finding {
            kind,
            path: self.path.into(),
            position: region.start,
            // A frame may reach beyond the end that a damaged header or promise names.
            len: region.end.saturating_sub(region.start),
            seqs: (!seqs.is_empty()).then_some(seqs),
            reason: reason.into(),
        });
    }
}
