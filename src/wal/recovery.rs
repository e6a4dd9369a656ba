//! What recovery decides: a pure function of what was found (`docs/durability.md`, the recovery
//! table).
//!
//! Owns: the judgement of where the log ends. Must not know: files; the caller scans, and acts.
//!
//! Invariants: a checksum error is the end of the log only where the bytes are provably not
//! promised (R9), and that end is no corruption (P5); what needs repair is refused with a name and a position, and nothing is changed.

use super::cursor::Slot;
use super::scan::{At, Tail};
use super::seq::SeqNo;

/// What stands where the whole frames of the newest segment stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtStop {
    /// Zeros, or an earlier life of the file.
    Blank,
    /// Something of this life that is not whole.
    Invalid,
}

/// The row of the table that applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Row {
    /// The end of the log.
    A,
    /// The end of the log, behind it an unfinished write.
    B,
    /// Unsynced writes landed out of order: cut here, report what is behind.
    C,
    /// Promised records are missing, and whole frames follow.
    D,
    /// Promised records are missing, and nothing follows.
    E,
}

/// The recovery table. `frames_follow`: valid headers behind the stop; `promised`: some record at
/// or behind the stop was declared durable.
pub(crate) const fn row(at: AtStop, frames_follow: bool, promised: bool) -> Row {
    match (at, frames_follow, promised) {
        (AtStop::Blank, false, false) => Row::A,
        (AtStop::Invalid, false, false) => Row::B,
        (AtStop::Blank | AtStop::Invalid, true, false) => Row::C,
        (AtStop::Blank | AtStop::Invalid, true, true) => Row::D,
        (AtStop::Blank | AtStop::Invalid, false, true) => Row::E,
    }
}

/// Where the log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub row: Row,
    pub position: u64,
    pub next_seq: SeqNo,
}

/// Judges the newest segment. `promised` is the largest promise known from anywhere: "everything
/// below this number is durable".
///
/// # Errors
///
/// The first number that is missing although it was promised (rows D, E, J).
pub(crate) fn judge(tail: &Tail, promised: SeqNo) -> Result<End, SeqNo> {
    let at = match tail.stop.1 {
        At::Nothing => AtStop::Blank,
        At::Frame(_) | At::BadPayload(_) | At::BadHeader | At::Unknown(_) => AtStop::Invalid,
    };
    match row(at, tail.after.is_some(), promised > tail.next_seq) {
        Row::D | Row::E => Err(tail.next_seq),
        row => {
            // A batch is recovered whole or not at all; below a promise nothing is cut.
            let (position, next_seq) = tail
                .unfinished
                .filter(|&(_, first)| first >= promised)
                .unwrap_or((tail.end, tail.next_seq));
            Ok(End {
                row,
                position,
                next_seq,
            })
        }
    }
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
        type Condition = fn(AtStop, bool, bool) -> bool;
        let table: [(Row, Condition); 5] = [
            (Row::A, |at, follow, promised| {
                at == AtStop::Blank && !follow && !promised
            }),
            (Row::B, |at, follow, promised| {
                at == AtStop::Invalid && !follow && !promised
            }),
            (Row::C, |_, follow, promised| follow && !promised),
            (Row::D, |_, follow, promised| follow && promised),
            (Row::E, |_, follow, promised| !follow && promised),
        ];
        for at in [AtStop::Blank, AtStop::Invalid] {
            for (follow, promised) in [(false, false), (false, true), (true, false), (true, true)] {
                let rows: Vec<Row> = table
                    .iter()
                    .filter(|(_, holds)| holds(at, follow, promised))
                    .map(|(row, _)| *row)
                    .collect();
                assert_eq!(
                    rows,
                    [row(at, follow, promised)],
                    "{at:?} {follow} {promised}"
                );
            }
        }
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
