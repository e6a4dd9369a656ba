//! What is settled, in memory, and the conservation law.
//!
//! Owns: the one final outcome of every SeqNo ([`Settled`], pure). Must not know: files, or who
//! settles a record and why.
//!
//! Invariants: the first settlement of a SeqNo stays; the low mark never moves back; the totals count
//! each settled number once (P6).

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;

use super::options::MAX_WINDOW;
use super::outcome::Outcomes;
use super::seq::SeqNo;

/// The one final outcome of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Class {
    /// The sink has acknowledged it.
    Shipped,
    /// It stands durably in the dead-letter log.
    DeadLettered,
    /// A policy let it grow too old.
    Expired,
    /// A policy gave it up for space.
    Dropped,
    /// It stands durably in another log of the store.
    Moved,
    /// It was promised and can no longer be read.
    Lost,
    /// The number was skipped after an unclean end: neither accepted nor lost.
    Void,
    /// Settled, but both cursor slots were lost and with them how.
    Unknown,
}

impl Class {
    /// All classes, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Shipped,
        Self::DeadLettered,
        Self::Expired,
        Self::Dropped,
        Self::Moved,
        Self::Lost,
        Self::Void,
        Self::Unknown,
    ];

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Shipped => 0,
            Self::DeadLettered => 1,
            Self::Expired => 2,
            Self::Dropped => 3,
            Self::Moved => 4,
            Self::Lost => 5,
            Self::Void => 6,
            Self::Unknown => 7,
        }
    }

    /// F9: on disk and in the ring, 0 stands for "not settled".
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Shipped => 1,
            Self::DeadLettered => 2,
            Self::Expired => 3,
            Self::Dropped => 4,
            Self::Moved => 5,
            Self::Lost => 6,
            Self::Void => 7,
            Self::Unknown => 8,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.code() == code)
    }

    /// Whether a slot may forget a settlement of this class above the low mark: the records are
    /// then queued again. A loss or a drop is never forgotten.
    const fn may_requeue(self) -> bool {
        match self {
            Self::Shipped | Self::DeadLettered | Self::Moved | Self::Unknown => true,
            Self::Expired | Self::Dropped | Self::Lost | Self::Void => false,
        }
    }
}

/// Records by their final outcome, and those that have none yet.
///
/// `accepted = shipped + dead_lettered + expired + dropped + moved + lost + unknown + queued`, at
/// all times, over restarts and crashes (`docs/durability.md`, P6). Void numbers are neither
/// accepted nor settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each field is the count of the class of its name"
)]
pub struct Totals {
    /// Appended, in the life of the log.
    pub accepted: u64,
    pub shipped: u64,
    pub dead_lettered: u64,
    pub expired: u64,
    pub dropped: u64,
    pub moved: u64,
    pub lost: u64,
    pub unknown: u64,
    pub void: u64,
    /// Not settled yet.
    pub queued: u64,
    /// Waits for its time in a log beside; of one log alone always 0.
    pub scheduled: u64,
}

impl Totals {
    /// Adds those of another log.
    pub(crate) fn add(&mut self, other: &Totals) {
        self.accepted += other.accepted;
        self.shipped += other.shipped;
        self.dead_lettered += other.dead_lettered;
        self.expired += other.expired;
        self.dropped += other.dropped;
        self.moved += other.moved;
        self.lost += other.lost;
        self.unknown += other.unknown;
        self.void += other.void;
        self.queued += other.queued;
        self.scheduled += other.scheduled;
    }

    /// Whether each accepted record is settled once, queued or scheduled.
    pub fn balances(&self) -> bool {
        let settled = self.shipped
            + self.dead_lettered
            + self.expired
            + self.dropped
            + self.moved
            + self.lost
            + self.unknown;
        self.accepted == settled + self.queued + self.scheduled
    }
}

/// F9: settled runs that a slot of the cursor holds.
pub(crate) const MAX_RUNS: usize = 160;

/// A settled stretch above the low mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub range: Range<SeqNo>,
    pub class: Class,
}

/// What is settled, in memory: a low mark, and one byte for each SeqNo of the window above it.
///
/// Void and lost stretches above the mark are kept apart from the window: they may be long, and are
/// told by the segments, so that neither a crash loop nor a bad disk can fill the cursor with them.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    origin: SeqNo,
    low: SeqNo,
    /// Codes of the SeqNos from `low` on that are in no span; zero: not settled. The front is never
    /// settled.
    window: VecDeque<u8>,
    settled_in_window: u64,
    /// What the segments tell: void and lost, above `low`, in order, none over another.
    spans: VecDeque<Run>,
    /// Of spans, only what lies below `low` is counted.
    totals: [u64; Class::ALL.len()],
    outcomes: Outcomes,
}

impl Settled {
    /// The state that a slot and the chain of segments describe.
    pub(crate) fn new(
        origin: SeqNo,
        low: SeqNo,
        totals: [u64; Class::ALL.len()],
        runs: &[Run],
        voids: impl IntoIterator<Item = Range<SeqNo>>,
        gaps: impl IntoIterator<Item = Range<SeqNo>>,
    ) -> Self {
        let mut settled = Self {
            origin,
            low,
            window: VecDeque::new(),
            settled_in_window: 0,
            spans: VecDeque::new(),
            totals,
            outcomes: Outcomes::from(low),
        };
        for void in voids {
            settled.add_span(void, Class::Void);
        }
        for gap in gaps {
            // The first settlement stays: what a slot tells was before the loss.
            let mut start = gap.start;
            for run in runs {
                settled.add_span(start..run.range.start.min(gap.end), Class::Lost);
                start = start.max(run.range.end);
            }
            settled.add_span(start..gap.end, Class::Lost);
        }
        for run in runs {
            // The slot's totals hold its runs already.
            settled.totals[run.class.index()] -= run.range.end - run.range.start;
            settled.settle(run.range.clone(), run.class);
        }
        settled
    }

    pub(crate) fn low(&self) -> SeqNo {
        self.low
    }

    /// Declares numbers void that were skipped; they lie above everything handed out so far.
    pub(crate) fn add_void(&mut self, range: Range<SeqNo>) {
        self.add_span(range, Class::Void);
    }

    /// Takes in what the segments tell of numbers that nothing in the window is about. Where spans
    /// overlap the first one stays.
    fn add_span(&mut self, range: Range<SeqNo>, class: Class) {
        let mut start = range.start.max(self.low);
        let mut at = 0;
        while start < range.end {
            match self.spans.get(at) {
                Some(span) if span.range.end <= start => at += 1,
                Some(span) if span.range.start <= start => start = span.range.end,
                next => {
                    let end = next.map_or(range.end, |next| next.range.start.min(range.end));
                    let range = start..end;
                    self.outcomes.note(range.clone(), class);
                    self.spans.insert(at, Run { range, class });
                    start = end;
                }
            }
        }
        self.advance();
    }

    /// Settles a range; numbers that are settled already keep their class. Returns how many were new.
    pub(crate) fn settle(&mut self, range: Range<SeqNo>, class: Class) -> u64 {
        let mut fresh = 0;
        let mut seq = range.start.max(self.low);
        while seq < range.end {
            let next_span = self.spans.iter().find(|span| seq < span.range.end);
            let stretch_end = match next_span {
                Some(span) if span.range.start <= seq => {
                    seq = span.range.end;
                    continue;
                }
                Some(span) => span.range.start.min(range.end),
                None => range.end,
            };
            let Some(at) = self.window_index(seq) else {
                break;
            };
            let len = usize::try_from(stretch_end - seq).unwrap_or(MAX_WINDOW);
            let end = at.saturating_add(len).min(MAX_WINDOW);
            if self.window.len() < end {
                self.window.resize(end, 0);
            }
            let mut run = seq..seq;
            for (code, seq) in self.window.range_mut(at..end).zip(seq.get()..) {
                if *code != 0 {
                    continue;
                }
                *code = class.code();
                fresh += 1;
                let seq = SeqNo::new(seq);
                if run.end != seq {
                    self.outcomes.note(run, class);
                    run = seq..seq;
                }
                run.end = seq + 1;
            }
            self.outcomes.note(run, class);
            seq = stretch_end;
        }
        self.settled_in_window += fresh;
        self.totals[class.index()] += fresh;
        self.advance();
        fresh
    }

    /// Takes in a loss that the segments tell of only now: what is settled keeps its outcome. Returns how
    /// many numbers are lost by it.
    pub(crate) fn lose(&mut self, range: Range<SeqNo>) -> u64 {
        let lost = self.totals(SeqNo::LIMIT).lost;
        let unsettled = self.unsettled(range.clone());
        let mut outcomes = mem::take(&mut self.outcomes);
        for unsettled in unsettled {
            outcomes.note(unsettled, Class::Lost);
        }
        let spans = |class| {
            let spans = self.spans.iter().filter(move |span| span.class == class);
            spans.map(|span| span.range.clone())
        };
        *self = Self::new(
            self.origin,
            self.low,
            self.totals,
            &self.runs(),
            spans(Class::Void),
            spans(Class::Lost).chain([range]),
        );
        self.outcomes = outcomes;
        self.totals(SeqNo::LIMIT).lost - lost
    }

    pub(crate) fn is_settled(&self, seq: SeqNo) -> bool {
        seq < self.low
            || self.spans.iter().any(|span| span.range.contains(&seq))
            || self
                .window_index(seq)
                .and_then(|at| self.window.get(at))
                .is_some_and(|&code| code != 0)
    }

    /// At or above this nothing is settled.
    #[cfg(any(test, feature = "kafka"))]
    pub(crate) fn end(&self) -> SeqNo {
        let spans = self.spans.iter().map(|run| run.range.end - run.range.start);
        // Spans above the window are counted in it: at most too much.
        let of_window = self.low + (self.window.len() as u64) + spans.sum();
        let of_spans = self.spans.back().map_or(self.low, |run| run.range.end);
        of_window.max(of_spans)
    }

    /// How a number was settled, if it was.
    pub(crate) fn outcome(&self, seq: SeqNo) -> Option<Class> {
        self.is_settled(seq).then(|| self.outcomes.of(seq))
    }

    /// What of a range is not settled, lowest first.
    fn unsettled(&self, range: Range<SeqNo>) -> Vec<Range<SeqNo>> {
        let runs = self.runs();
        let settled = runs.iter().chain(&self.spans);
        let mut settled: Vec<&Range<SeqNo>> = settled.map(|run| &run.range).collect();
        settled.sort_by_key(|run| run.start);
        let (mut found, mut start) = (Vec::new(), range.start.max(self.low));
        for run in settled {
            found.push(start..run.start.min(range.end));
            start = start.max(run.end);
        }
        found.push(start..range.end);
        found.retain(|unsettled| !unsettled.is_empty());
        found
    }

    /// Place in the window of a SeqNo at or above `low` that is in no span.
    fn window_index(&self, seq: SeqNo) -> Option<usize> {
        let spans: u64 = self
            .spans
            .iter()
            .take_while(|span| span.range.end <= seq)
            .map(|span| span.range.end - span.range.start)
            .sum();
        usize::try_from(seq - self.low - spans)
            .ok()
            .filter(|&at| at < MAX_WINDOW)
    }

    fn advance(&mut self) {
        loop {
            if self
                .spans
                .front()
                .is_some_and(|span| span.range.start == self.low)
                && let Some(Run { range, class }) = self.spans.pop_front()
            {
                self.totals[class.index()] += range.end - range.start;
                self.low = range.end;
            } else if self.window.front().is_some_and(|&code| code != 0) {
                self.window.pop_front();
                self.settled_in_window -= 1;
                self.low = self.low + 1;
            } else {
                return;
            }
        }
    }

    /// The settled stretches above the low mark, lowest first.
    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut seq = self.low;
        let mut spans = self.spans.iter().peekable();
        for &code in &self.window {
            while let Some(span) = spans.next_if(|span| span.range.start == seq) {
                seq = span.range.end;
            }
            if let Some(class) = Class::from_code(code) {
                match runs.last_mut() {
                    Some(last) if last.range.end == seq && last.class == class => {
                        last.range.end = seq + 1;
                    }
                    _ => runs.push(Run {
                        range: seq..seq + 1,
                        class,
                    }),
                }
            }
            seq = seq + 1;
        }
        runs
    }

    /// What a slot can hold of this: runs that do not fit are queued again, in the runs and in the
    /// totals alike; those that must not be forgotten come first.
    pub(crate) fn to_slot_parts(&self) -> (Vec<Run>, [u64; Class::ALL.len()]) {
        let runs = self.runs();
        let must = runs
            .iter()
            .filter(|run| !run.class.may_requeue())
            .count()
            .min(MAX_RUNS);
        let (mut room, mut must_room) = (MAX_RUNS - must, must);
        let mut totals = self.totals;
        let kept = runs
            .into_iter()
            .filter(|run| {
                let room = if run.class.may_requeue() {
                    &mut room
                } else {
                    &mut must_room
                };
                let keep = *room > 0;
                if keep {
                    *room -= 1;
                } else {
                    totals[run.class.index()] -= run.range.end - run.range.start;
                }
                keep
            })
            .collect();
        (kept, totals)
    }

    /// The conservation law's terms, for a log whose next number is `next`.
    pub(crate) fn totals(&self, next: SeqNo) -> Totals {
        let above = |class: Class| -> u64 {
            let spans = self.spans.iter().filter(|span| span.class == class);
            spans
                .map(|span| span.range.end.min(next) - span.range.start)
                .sum()
        };
        let (voids, gaps) = (above(Class::Void), above(Class::Lost));
        let of = |class: Class| self.totals[class.index()];
        let void = of(Class::Void) + voids;
        Totals {
            accepted: (next - self.origin).saturating_sub(void),
            shipped: of(Class::Shipped),
            dead_lettered: of(Class::DeadLettered),
            expired: of(Class::Expired),
            dropped: of(Class::Dropped),
            moved: of(Class::Moved),
            lost: of(Class::Lost) + gaps,
            unknown: of(Class::Unknown),
            void,
            queued: (next - self.low).saturating_sub(voids + gaps + self.settled_in_window),
            scheduled: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_or_above_the_end_nothing_is_settled_however_it_was_before() {
        let at = SeqNo::new;
        let (first, ranges) = (at(5), [5..6, 7..9, 9..10, 12..13]);
        // Each range in each of four ways: not at all, as shipped, as void, as lost.
        for ways in 0..4_u32.pow(4) {
            let mut settled = Settled::new(first, first, [0; Class::ALL.len()], &[], [], []);
            assert_eq!(settled.end(), first);
            for (n, range) in ranges.iter().enumerate() {
                let range = at(range.start)..at(range.end);
                match ways / 4_u32.pow(u32::try_from(n).unwrap()) % 4 {
                    0 => {}
                    1 => assert_ne!(settled.settle(range, Class::Shipped), 0),
                    2 => settled.add_void(range),
                    _ => assert_ne!(settled.lose(range), 0),
                }
                let above = (settled.end().get()..40).map(at);
                assert!(
                    above.into_iter().all(|seq| !settled.is_settled(seq)),
                    "{ways}"
                );
            }
        }
    }
}
