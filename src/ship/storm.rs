//! How many records in a row a topic had refused before this run began.
//!
//! Owns how that is found out: the dead letters and the log know it, so it outlives the process. Must
//! not know what follows from it. Invariant: a record of the topic that was settled otherwise ends the
//! row; one that still waits neither ends it nor counts.

use crate::store::{DeadLetters, Stream};
use crate::wal::SeqNo;

/// How far to look, in records, each way: its partitions are not equally far. Where more of other
/// topics lie between, a storm is found anew.
const LOOK: u64 = 20_000;

/// The refused records of a topic in a row, around the one with this number. What cannot be read any
/// more does not count.
pub(super) fn around(
    stream: Stream<'_>,
    letters: Option<&DeadLetters>,
    topic: &str,
    seq: SeqNo,
) -> u32 {
    let Some(letters) = letters else {
        return 0;
    };
    let log_id = stream.lane().log_id();
    let from = SeqNo::new(seq.get().saturating_sub(LOOK));
    let mut reader = stream.reader(from.max(stream.marks().first));
    let mut in_a_row = 0;
    while let Ok(Some(entry)) = stream.next(&mut reader) {
        if entry.seq > seq + LOOK {
            break;
        }
        let message = entry.message.as_ref();
        let is_its = message.is_ok_and(|message| *message.topic == *topic);
        if !is_its || !stream.is_settled(entry.seq) {
            continue;
        }
        in_a_row = match letters.holds(log_id, entry.origin) {
            true => in_a_row + 1,
            false => 0,
        };
    }
    in_a_row
}
