//! What of the dead letters is under way, and where the walks over them have come to.
//!
//! Pure; time is passed in. Must not know the sink, nor what a report means. Invariants: a letter that
//! is on its way, or whose end is not written down yet, is not met again; one that came back is met
//! again before those behind it; a walk passes a partition by for good.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ship::dead_letter::LetterMessage;
use crate::ship::health::{HoldReason, SILENT};
use crate::ship::slow::LARGE;
use crate::store::{self, DeadLetters};
use crate::wal::SeqNo;

/// How long to wait between two walks, at least.
pub(super) const WALK_PAUSE: Duration = Duration::from_millis(100);

/// Where a walk passed letters by, the wait is this long for each, and at most that long: what is
/// held for long must not be read again and again.
const PASSED_PAUSE: Duration = Duration::from_millis(1);
const PASSED_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long to wait after the log of the dead letters failed.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// From how many percent on a full log is an alarm.
const FILL_ALARM: u8 = 80;

/// What a letter is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    Replay = 0,
    Copy = 1,
}

/// What became of a letter, to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Replayed,
    Kept,
    Copied,
    CopyRefused(i32),
}

/// A letter that is made ready.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) seq: SeqNo,
    pub(super) message: LetterMessage,
    pub(super) topic: Arc<str>,
}

/// A letter that was handed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flying {
    pub(super) place: u64,
    pub(super) errand: Errand,
    pub(super) seq: SeqNo,
    pub(super) index: usize,
    pub(super) cost: u64,
    /// Bytes of its key and value.
    pub(super) len: u64,
    pub(super) at: Instant,
}

/// A topic-partition that takes no letter for a while.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) why: HoldReason,
    pub(super) since: Instant,
    pub(super) failures: u32,
    pub(super) next_try: Instant,
}

/// A walk over the letters of one errand, oldest first.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) after: Option<SeqNo>,
    pub(super) next: Option<Ready>,
    pub(super) is_over: bool,
}

/// What became of one letter in this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is on its way, or needs no way, or was passed by: on to the next.
    Done,
    /// It waits for the one before it, or for room.
    Waits,
}

/// Everything about dead letters that are to be sent.
#[derive(Debug)]
pub(in crate::ship) struct Letters<'a> {
    pub(super) log: Option<&'a DeadLetters>,
    pub(super) walks: [Walk; 2],
    /// Partitions that letters of this walk were passed by for, and how many letters.
    pub(super) passed: HashSet<usize>,
    pub(super) passed_count: u32,
    /// Whether all of these can only go once a person changes something.
    pub(super) is_definite: bool,
    /// The same of the last walk that came to its end.
    pub(super) is_stuck: bool,
    pub(super) flying: Vec<Flying>,
    pub(super) next_place: u64,
    pub(super) lines: HashMap<usize, Line>,
    /// Reported, and not written down yet.
    pub(super) ended: Vec<(SeqNo, End)>,
    /// Too large for the dead-letter topic: a pointer goes there.
    pub(super) pointers: HashSet<SeqNo>,
    /// How often the connection was lost since these were handed over or one was acknowledged.
    pub(super) losses: u32,
    /// One of them may be why: they go alone.
    pub(super) is_suspicious: bool,
    /// The one that takes longer than a request may: it gets all the time that there is.
    pub(super) slow: Option<SeqNo>,
    pub(super) next_look: Instant,
    pub(super) expired: Option<Instant>,
    pub(super) fill: Option<(u8, Instant)>,
    /// Why and since when the log takes or gives nothing.
    pub(super) trouble: Option<(String, Instant)>,
    /// What was said about the letter that was refused last.
    pub(in crate::ship) refused: Option<String>,
}

impl<'a> Letters<'a> {
    pub(in crate::ship) fn new(now: Instant) -> Letters<'a> {
        Letters {
            log: None,
            walks: [Walk::default(), Walk::default()],
            passed: HashSet::new(),
            passed_count: 0,
            is_definite: true,
            is_stuck: false,
            flying: Vec::new(),
            next_place: 0,
            lines: HashMap::new(),
            ended: Vec::new(),
            pointers: HashSet::new(),
            losses: 0,
            is_suspicious: false,
            slow: None,
            next_look: now,
            expired: None,
            fill: None,
            trouble: None,
            refused: None,
        }
    }

    /// How many were handed over and not reported.
    pub(in crate::ship) fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// What the oldest of them takes of the flight budget, and since when it is on its way.
    pub(in crate::ship) fn oldest(&self) -> Option<(u64, Instant)> {
        let oldest = self.flying.iter().min_by_key(|flying| flying.at)?;
        Some((oldest.cost, oldest.at))
    }

    /// Of these, how many are without an answer for long.
    pub(in crate::ship) fn silent(&self, now: Instant) -> usize {
        let silent = |flying: &&Flying| is_silent(flying, now);
        self.flying.iter().filter(silent).count()
    }

    /// How many may be with a request: what any link carries is without an answer for long else.
    pub(in crate::ship) fn moving(&self, now: Instant) -> usize {
        self.flying.iter().filter(|f| !is_stuck(f, now)).count()
    }

    /// Whether one that lies with a producer that cannot send it is for this partition.
    pub(in crate::ship) fn is_stuck_at(&self, index: usize, now: Instant) -> bool {
        let mut flying = self.flying.iter();
        flying.any(|f| f.index == index && is_stuck(f, now))
    }

    /// A leader answers again: what waits for one may go.
    pub(in crate::ship) fn try_silent_again(&mut self, now: Instant) {
        for line in self.lines.values_mut() {
            if matches!(line.why, HoldReason::Silent | HoldReason::NoLeader) {
                line.next_try = line.next_try.min(now);
            }
        }
    }

    /// Whether one is on its way to this partition: nothing else may go there carefully.
    pub(in crate::ship) fn is_on_its_way(&self, index: usize) -> bool {
        self.flying.iter().any(|flying| flying.index == index)
    }

    /// Whether all that waits can only go once a person changes something.
    pub(in crate::ship) fn is_stuck(&self) -> bool {
        self.trouble.is_some() || (self.is_stuck && self.flying.is_empty())
    }

    /// The alarm about its room, if there is one.
    pub(in crate::ship) fn alarm(&self) -> Option<String> {
        let (percent, _) = self.fill?;
        (percent >= FILL_ALARM).then(|| format!("the dead letters are {percent} % full"))
    }

    pub(super) fn is_under_way(&self, errand: Errand, seq: SeqNo) -> bool {
        let flies = |flying: &Flying| flying.errand == errand && flying.seq == seq;
        let is_its = |end: End| match errand {
            Errand::Replay => matches!(end, End::Replayed | End::Kept),
            Errand::Copy => matches!(end, End::Copied | End::CopyRefused(_)),
        };
        let ended = |&(of, end): &(SeqNo, End)| of == seq && is_its(end);
        self.flying.iter().any(flies) || self.ended.iter().any(ended)
    }

    pub(super) fn walk(&mut self, errand: Errand) -> &mut Walk {
        let [replay, copy] = &mut self.walks;
        match errand {
            Errand::Replay => replay,
            Errand::Copy => copy,
        }
    }

    /// Whether the walk over what is to be copied has not passed a letter yet: one that is replayed is
    /// over, and gets no copy any more.
    pub(super) fn awaits_copy(&self, seq: SeqNo) -> bool {
        let [_, copy] = &self.walks;
        match &copy.next {
            Some(next) => next.seq <= seq,
            None => !copy.is_over && copy.after < Some(seq),
        }
    }

    /// A letter that came back is met again by its walk.
    pub(super) fn walk_back(&mut self, errand: Errand, seq: SeqNo) {
        let walk = self.walk(errand);
        let before = seq.get().checked_sub(1).map(SeqNo::new);
        if walk.after >= Some(seq) {
            *walk = Walk {
                after: before,
                next: None,
                is_over: false,
            };
        }
    }

    /// Both walks are over: they begin anew after a while.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        let pause = PASSED_PAUSE.saturating_mul(self.passed_count);
        self.next_look = now + pause.clamp(WALK_PAUSE, PASSED_PAUSE_MAX);
        self.is_stuck = self.is_definite && self.flying.is_empty();
        // All that there is was taken: it was the line.
        self.is_suspicious &= self.passed_count > 0 || !self.flying.is_empty();
        self.walks = [Walk::default(), Walk::default()];
        self.passed.clear();
        self.passed_count = 0;
        self.is_definite = true;
    }

    pub(super) fn failed(&mut self, error: &store::Error, now: Instant) {
        let since = self.trouble.as_ref().map_or(now, |(_, since)| *since);
        self.trouble = Some((error.to_string(), since));
        self.next_look = now + TROUBLE_PAUSE;
    }
}

pub(super) fn is_silent(flying: &Flying, now: Instant) -> bool {
    now.saturating_duration_since(flying.at) >= SILENT
}

fn is_stuck(flying: &Flying, now: Instant) -> bool {
    flying.cost < LARGE && is_silent(flying, now)
}
