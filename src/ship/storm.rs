//! How many records in a row a topic had refused before this run began.
//!
//! Owns how that is found out: the dead letters and the log know it, so it outlives the process. Must
//! not know what follows from it. Invariant: a record of the topic that was settled otherwise, or moved to a
//! parking log, ends the row of its log; one that still waits neither ends it nor counts.

use std::iter;

use crate::store::{DeadLetters, Lane, Store, Stream};
use crate::wal::SeqNo;

/// How far to look, in records, each way: its partitions are not equally far. Where more of other
/// topics lie between, a storm is found anew.
const LOOK: u64 = 20_000;

/// The refused records of a topic in a row, around the one with this number in its log, and around the
/// oldest that waits in each other log that holds records of it. What cannot be read any more does not
/// count.
pub(super) fn earlier<'s>(
    store: &'s Store,
    stream: Stream<'_>,
    letters: Option<&DeadLetters>,
    topic: &'s str,
    seq: SeqNo,
) -> u32 {
    let Some(letters) = letters else {
        return 0;
    };
    let of_lane = |lane: &'s Lane| {
        let logs = store.parking_logs();
        let its = logs.filter(move |log| log.lane() == lane.name() && **log.topic() == *topic);
        let parked = its.map(move |log| Stream::of_parking(lane, log));
        iter::once(Stream::of_lane(lane)).chain(parked)
    };
    let all = store.lanes().iter().flat_map(of_lane);
    let others = all.filter(|other| other.log_id() != stream.log_id());
    let others = others.map(|other| around(other, letters, topic, other.marks().acked));
    others.sum::<u32>() + around(stream, letters, topic, seq)
}

fn around(stream: Stream<'_>, letters: &DeadLetters, topic: &str, seq: SeqNo) -> u32 {
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
