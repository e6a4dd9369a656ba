//! What became of the last transaction, and whose store this is: two tables.
//!
//! Pure. Must not know how anything is looked up. Invariants: what is not known for sure is never
//! decided here but by a person; a nonce that this store did not draw is never passed over.

use crate::store::{Intent, Known};

/// What the store knows of its last transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// There never was one.
    Never,
    /// The cursor is behind its span.
    Committed,
    /// It was found aborted.
    Aborted,
    /// It may be either.
    Open,
}

/// Where its outcome stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing is to be looked up.
    Nowhere,
    /// Exactly there.
    At(i64),
    /// From there to the end as it is now; from the beginning where no place is known.
    From(Option<i64>),
    /// The one value that the offsets of the group hold.
    Offsets,
}

/// What is known about the place of this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The store was copied, restored or moved.
    pub(super) is_copy: bool,
    /// Another producer took over its transactional id.
    pub(super) is_fenced: bool,
    /// The last transaction went to the cluster that is there now, and to the same topic.
    pub(super) is_same_cluster: bool,
    /// The progress is in the offsets of a group.
    pub(super) is_in_offsets: bool,
}

/// Says where to look. `partition_offset` is that of the last transaction, `previous` that of the one
/// before.
pub(super) fn look(
    last: Last,
    place: Place,
    partition_offset: Option<i64>,
    previous: Option<i64>,
) -> Look {
    if place.is_in_offsets {
        // One request, whoever asks: and it tells whether the group still holds anything.
        return Look::Offsets;
    }
    if last == Last::Never || !place.is_same_cluster {
        return Look::From(None);
    }
    if place.is_copy || place.is_fenced {
        return Look::From(partition_offset.or(previous));
    }
    match (last, partition_offset) {
        (Last::Open, Some(exact)) => Look::At(exact),
        (Last::Open, None) => Look::From(previous),
        (Last::Never | Last::Committed | Last::Aborted, _) => Look::Nowhere,
    }
}

/// What the newest progress record is that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// None where it was looked for.
    Nothing,
    /// One of this store.
    Ours(Ours),
    /// One that another store wrote.
    Foreign,
}

/// Which of this store's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ours {
    Last,
    Previous,
    Older,
}

impl Found {
    pub(super) fn of(known: Known) -> Found {
        match known {
            Known::Newest => Found::Ours(Ours::Last),
            Known::Previous => Found::Ours(Ours::Previous),
            Known::Older => Found::Ours(Ours::Older),
            Known::Never => Found::Foreign,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on from what is settled here.
    GoOn,
    /// The last transaction was committed: settle its span.
    Sent,
    /// The last transaction was aborted: its span is sent again.
    NotSent,
    /// Go on from what is settled here, and tell that the cluster does not have what it had.
    GoOnAlarmed,
    /// Nobody knows what became of the last transaction: a person decides.
    InDoubt,
    /// Another store ships as this one: a person decides.
    Foreign,
}

/// Whether what was found is all that there was since the last transaction, and that is decided.
/// `is_gone`: its place was not read; `is_first`: none before it was committed there.
pub(super) fn passed(look: Look, last: Last, found: Found, is_gone: bool, is_first: bool) -> bool {
    match look {
        // What is there was not overwritten, so the last transaction was not committed. Where nothing
        // is, it may have been, and be forgotten: but for one that had nothing in it, see `base`.
        Look::Offsets => found != Found::Nothing || (last == Last::Aborted && is_first),
        Look::Nowhere | Look::At(_) | Look::From(_) => !is_gone,
    }
}

/// Judges what was found. `passed`: what was read covers the very place of the last transaction, in
/// the cluster that it was sent to, and all of that is decided.
pub(super) fn judge(last: Last, found: Found, passed: bool) -> Verdict {
    match (last, found) {
        // A nonce of ours although there never was a transaction is no nonce of ours.
        (_, Found::Foreign) | (Last::Never, Found::Ours(_)) => Verdict::Foreign,
        (Last::Never, Found::Nothing) | (Last::Committed, Found::Ours(Ours::Last)) => Verdict::GoOn,
        (Last::Aborted | Last::Open, Found::Ours(Ours::Last)) => Verdict::Sent,
        (Last::Aborted, Found::Ours(Ours::Previous)) => Verdict::GoOn,
        // Nothing else is written between a place and its end where all of that was aborted.
        (Last::Aborted, Found::Nothing) if passed => Verdict::GoOn,
        (Last::Committed, Found::Nothing | Found::Ours(Ours::Previous | Ours::Older))
        | (Last::Aborted, Found::Nothing | Found::Ours(Ours::Older)) => Verdict::GoOnAlarmed,
        (Last::Open, Found::Nothing | Found::Ours(Ours::Previous)) if passed => Verdict::NotSent,
        (Last::Open, Found::Nothing | Found::Ours(Ours::Previous | Ours::Older)) => {
            Verdict::InDoubt
        }
    }
}

/// What the store knows, by the newest intent and the mark below which everything is settled in the
/// log that it is about.
pub(super) fn last(intent: Option<&Intent>, acked: crate::wal::SeqNo) -> Last {
    match intent {
        None => Last::Never,
        Some(intent) if intent.is_aborted => Last::Aborted,
        Some(intent) => {
            let is_over = match &intent.letters {
                Some(letters) => letters.is_done,
                None => acked >= intent.span.end,
            };
            if is_over { Last::Committed } else { Last::Open }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: [Last; 4] = [Last::Never, Last::Committed, Last::Aborted, Last::Open];
    const FOUNDS: [Found; 5] = [
        Found::Nothing,
        Found::Ours(Ours::Last),
        Found::Ours(Ours::Previous),
        Found::Ours(Ours::Older),
        Found::Foreign,
    ];

    fn every(mut check: impl FnMut(Last, Found, bool, Verdict)) {
        for last in LASTS {
            for found in FOUNDS {
                for passed in [false, true] {
                    check(last, found, passed, judge(last, found, passed));
                }
            }
        }
    }

    /// The table as the documentation has it, row by row.
    #[test]
    fn the_table_is_as_written() {
        use Verdict::{Foreign, GoOn, GoOnAlarmed, InDoubt, NotSent, Sent};
        // Nothing, last, previous, older, foreign; without having passed the place, and with it.
        let table = [
            (Last::Never, [GoOn, Foreign, Foreign, Foreign, Foreign]),
            (
                Last::Committed,
                [GoOnAlarmed, GoOn, GoOnAlarmed, GoOnAlarmed, Foreign],
            ),
            (
                Last::Aborted,
                [GoOnAlarmed, Sent, GoOn, GoOnAlarmed, Foreign],
            ),
            (Last::Open, [InDoubt, Sent, InDoubt, InDoubt, Foreign]),
        ];
        let passed_differs = [
            ((Last::Aborted, Found::Nothing), GoOn),
            ((Last::Open, Found::Nothing), NotSent),
            ((Last::Open, Found::Ours(Ours::Previous)), NotSent),
        ];
        every(|last, found, passed, verdict| {
            let (_, row) = table.iter().find(|(l, _)| *l == last).unwrap();
            let column = FOUNDS.iter().position(|f| *f == found).unwrap();
            let special = passed_differs.iter().find(|(at, _)| *at == (last, found));
            let expected = match special {
                Some((_, verdict)) if passed => *verdict,
                _ => row[column],
            };
            assert_eq!(verdict, expected, "{last:?} {found:?} passed: {passed}");
        });
    }

    #[test]
    fn what_another_store_wrote_always_stops() {
        every(|_, found, _, verdict| {
            assert!(found != Found::Foreign || verdict == Verdict::Foreign);
        });
    }

    #[test]
    fn a_span_is_called_sent_only_by_its_own_nonce_and_not_sent_only_by_its_own_place() {
        every(|last, found, passed, verdict| {
            if verdict == Verdict::Sent {
                assert_eq!(found, Found::Ours(Ours::Last));
            }
            if verdict == Verdict::NotSent {
                assert!(last == Last::Open && passed);
            }
            // What may be either is never passed over in silence.
            if last == Last::Open {
                assert!(!matches!(verdict, Verdict::GoOn | Verdict::GoOnAlarmed));
            }
        });
    }

    /// The one value of a group tells what came before the last transaction, or nothing at all.
    #[test]
    fn in_offsets_nothing_found_is_no_proof_that_the_last_transaction_was_aborted() {
        for last in LASTS {
            for found in FOUNDS {
                for is_first in [false, true] {
                    let passed = passed(Look::Offsets, last, found, false, is_first);
                    let verdict = judge(last, found, passed);
                    if (last, found) == (Last::Open, Found::Nothing) {
                        assert_eq!(verdict, Verdict::InDoubt);
                    }
                    if (last, found) == (Last::Open, Found::Ours(Ours::Previous)) {
                        assert_eq!(verdict, Verdict::NotSent);
                    }
                    // The base of a new store, killed before it was committed: no alarm.
                    if (last, found) == (Last::Aborted, Found::Nothing) {
                        assert_eq!(verdict == Verdict::GoOn, is_first);
                    }
                }
            }
        }
    }

    #[test]
    fn one_fetch_is_enough_unless_the_store_or_the_cluster_changed() {
        for last in LASTS {
            for bits in 0..8 {
                let place = Place {
                    is_copy: bits & 1 != 0,
                    is_fenced: bits & 2 != 0,
                    is_same_cluster: bits & 4 != 0,
                    is_in_offsets: false,
                };
                let in_offsets = Place {
                    is_in_offsets: true,
                    ..place
                };
                assert_eq!(look(last, in_offsets, None, None), Look::Offsets);
                for offset in [None, Some(70)] {
                    let looked = look(last, place, offset, Some(40));
                    let is_usual = bits == 4;
                    let expected = match (last, is_usual) {
                        (Last::Never, _) => Look::From(None),
                        (Last::Committed | Last::Aborted, true) => Look::Nowhere,
                        (Last::Open, true) => offset.map_or(Look::From(Some(40)), Look::At),
                        (_, false) if !place.is_same_cluster => Look::From(None),
                        (_, false) => Look::From(Some(offset.unwrap_or(40))),
                    };
                    assert_eq!(looked, expected, "{last:?} {place:?} {offset:?}");
                }
            }
        }
    }
}
