//! What recovery decides: a pure function of what was found (`docs/durability.md`, the recovery
//! table).
//!
//! Owns: the judgement of where the log ends and which promised numbers are gone. Must not know:
//! files; the caller scans, and acts.
//!
//! Invariants: a checksum error is the end of the log only where the bytes are provably not
//! promised (R9), and that end is no corruption (P5); nothing promised is passed over without a gap,
//! and nothing else is ever in one.

use std::ops::Range;

use super::cursor::Slot;
use super::gap::Cause;
use super::scan::{At, Tail};
use super::seq::SeqNo;

/// What the chain says of the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The newest one.
    Newest,
    /// The newest one that is there; the cursor names a later one.
    NewestLeft,
    /// Its successor is there, and says where it ends; or the file between them is missing.
    Older { hole: bool },
}

/// What stands where a stretch of whole frames stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtStop {
    /// Zeros, or an earlier life of the file.
    Blank,
    /// Something of this life that is not whole.
    Invalid,
    /// The disk does not give it.
    Unreadable,
}

/// The first header of this life behind the stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Follows {
    /// There is none.
    Nothing,
    /// Its frame begins at or below W: everything before it was promised.
    Promised,
    /// Its frame begins above W.
    Unpromised,
}

/// The row of the table that applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Row {
    /// The end.
    A,
    /// The end, behind it an unfinished write.
    B,
    /// Unsynced writes landed out of order: cut here, report what is behind.
    C,
    /// Promised records are gone: a gap up to the frame that follows; on behind it.
    D,
    /// Promised records are gone, and none that was promised follows: a gap up to W, the end.
    E,
    /// The next segment is missing: a gap up to W.
    I,
    /// The newest segment is missing: a gap up to W.
    J,
    /// It cannot be read, and no write that was torn looks like that: a gap up to the frame that
    /// follows, on behind it; up to W where none does. The file is kept.
    K,
}

/// The recovery table. `promised`: W is above the stop.
pub(crate) const fn row(place: Place, at: AtStop, follows: Follows, promised: bool) -> Row {
    match (at, follows, promised) {
        (AtStop::Unreadable, _, _) => Row::K,
        (AtStop::Blank, Follows::Nothing, false) => Row::A,
        (AtStop::Invalid, Follows::Nothing, false) => Row::B,
        (_, Follows::Promised | Follows::Unpromised, false) => Row::C,
        (_, Follows::Promised, true) => Row::D,
        (AtStop::Invalid, Follows::Nothing, true) | (_, Follows::Unpromised, true) => Row::E,
        (AtStop::Blank, Follows::Nothing, true) => match place {
            Place::Newest | Place::Older { hole: false } => Row::E,
            Place::Older { hole: true } => Row::I,
            Place::NewestLeft => Row::J,
        },
    }
}

/// A damaged region, and the promised numbers that were in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Region {
    pub seqs: Range<SeqNo>,
    pub cause: Cause,
    pub position: u64,
    /// `None`: up to the end of the file.
    pub end: Option<u64>,
}

/// Where a segment ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub row: Row,
    pub position: u64,
    pub next_seq: SeqNo,
    /// The scan's stretches that count.
    pub stretches: usize,
    /// What is damaged in front of the end.
    pub regions: Vec<Region>,
}

impl End {
    /// Of a log without segments.
    pub(crate) fn empty(position: u64, next_seq: SeqNo) -> Self {
        Self {
            row: Row::A,
            position,
            next_seq,
            stretches: 0,
            regions: Vec::new(),
        }
    }
}

/// Judges one segment. `promised` is W, the largest promise known from anywhere: "everything below
/// this number is durable".
pub(crate) fn judge(tail: &Tail, promised: SeqNo, place: Place) -> End {
    let mut end = End::empty(0, SeqNo::ZERO);
    for stretch in &tail.stretches {
        end.stretches += 1;
        (end.position, end.next_seq) = (stretch.end, stretch.next_seq);
        let at = match stretch.stop.1 {
            At::Nothing => AtStop::Blank,
            // Nothing was ever written behind a seal.
            At::Unreadable if stretch.sealed => AtStop::Blank,
            At::Unreadable => AtStop::Unreadable,
            At::Frame(_) | At::BadPayload(_) | At::BadHeader | At::Unknown(_) => AtStop::Invalid,
        };
        let follows = match &stretch.after {
            None => Follows::Nothing,
            Some(header) if header.first_seq <= promised => Follows::Promised,
            Some(_) => Follows::Unpromised,
        };
        end.row = row(place, at, follows, promised > stretch.next_seq);
        let after = stretch.after.as_ref();
        let on_behind = match end.row {
            Row::D | Row::K => after,
            Row::A | Row::B | Row::C | Row::E | Row::I | Row::J => None,
        };
        if on_behind.is_none() {
            // A batch is recovered whole or not at all; below a promise nothing is cut.
            let unfinished = stretch.unfinished.filter(|&(_, first)| first >= promised);
            (end.position, end.next_seq) = unfinished.unwrap_or((end.position, end.next_seq));
        }
        let cause = match end.row {
            Row::A | Row::B | Row::C => return end,
            Row::D | Row::E => Cause::Damaged,
            Row::I => Cause::MissingSegment,
            Row::J => Cause::MissingTail,
            Row::K => Cause::Unreadable,
        };
        let from = end.next_seq;
        end.next_seq = on_behind.map_or(promised.max(from), |header| header.first_seq);
        let region = Region {
            seqs: from..end.next_seq,
            cause,
            position: stretch.stop.0,
            end: after.map(|header| header.position),
        };
        match end.regions.last_mut() {
            // Nothing whole lies between: it is one region.
            Some(last) if last.end == Some(region.position) && last.cause == cause => {
                last.seqs.end = region.seqs.end;
                last.end = region.end;
            }
            _ => end.regions.push(region),
        }
        if on_behind.is_none() {
            return end;
        }
    }
    end
}

/// R4b: the number the log goes on with. Everything from `end` up to it is void.
pub(crate) fn continue_at(
    end: SeqNo,
    clean: bool,
    limits: impl Iterator<Item = SeqNo>,
    jump: u64,
) -> SeqNo {
    if clean {
        end
    } else {
        limits.max().unwrap_or(SeqNo::ZERO).max(end) + jump
    }
}

/// The clean mark counts only in the slot that names the newest segment and the end found.
pub(crate) fn ended_cleanly(slot: Option<&Slot>, newest: (u64, u64), end: SeqNo) -> bool {
    slot.is_some_and(|slot| {
        slot.clean && slot.newest == newest && slot.synced == end && slot.settled_end() <= end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table once more, row by row, as `docs/durability.md` states it.
    #[test]
    fn every_combination_matches_exactly_one_row() {
        use AtStop::{Blank, Invalid, Unreadable};
        use Follows::{Nothing, Promised, Unpromised};
        type Condition = fn(Place, AtStop, Follows, bool) -> bool;
        let table: [(Row, Condition); 8] = [
            (Row::A, |_, at, follows, w| {
                at == Blank && follows == Nothing && !w
            }),
            (Row::B, |_, at, follows, w| {
                at == Invalid && follows == Nothing && !w
            }),
            (Row::C, |_, at, follows, w| {
                at != Unreadable && follows != Nothing && !w
            }),
            (Row::D, |_, at, follows, w| {
                at != Unreadable && follows == Promised && w
            }),
            (Row::E, |place, at, follows, w| {
                let missing = matches!(place, Place::NewestLeft | Place::Older { hole: true });
                let nothing = follows == Nothing && (at == Invalid || !missing);
                w && at != Unreadable && (follows == Unpromised || nothing)
            }),
            (Row::I, |place, at, follows, w| {
                w && at == Blank && follows == Nothing && place == Place::Older { hole: true }
            }),
            (Row::J, |place, at, follows, w| {
                w && at == Blank && follows == Nothing && place == Place::NewestLeft
            }),
            (Row::K, |_, at, _, _| at == Unreadable),
        ];
        let mut met = 0;
        for place in [
            Place::Newest,
            Place::NewestLeft,
            Place::Older { hole: false },
            Place::Older { hole: true },
        ] {
            for at in [Blank, Invalid, Unreadable] {
                for follows in [Nothing, Promised, Unpromised] {
                    for w in [false, true] {
                        let rows: Vec<Row> = table
                            .iter()
                            .filter(|(_, holds)| holds(place, at, follows, w))
                            .map(|(row, _)| *row)
                            .collect();
                        let expected = row(place, at, follows, w);
                        assert_eq!(rows, [expected], "{place:?} {at:?} {follows:?} {w}");
                        met += 1;
                    }
                }
            }
        }
        assert_eq!(met, 72);
    }

    #[test]
    fn r4b_after_an_unclean_end_the_log_goes_on_at_the_largest_limit() {
        let seq = SeqNo::new;
        assert_eq!(continue_at(seq(7), true, [seq(100)].into_iter(), 0), seq(7));
        assert_eq!(
            continue_at(seq(7), false, [seq(100), seq(90)].into_iter(), 0),
            seq(100)
        );
        assert_eq!(continue_at(seq(7), false, [].into_iter(), 1000), seq(1007));
        assert_eq!(continue_at(seq(7), false, [seq(3)].into_iter(), 0), seq(7));
    }
}
