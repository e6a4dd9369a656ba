//! A record that may be what breaks the connection.
//!
//! Owns the count of losses with the same oldest record on its way. Must not know why a connection
//! is lost. Invariant: no record dies of a suspicion; it is held when it stood alone.

use std::time::Instant;

use super::Sink;
use super::health::{HoldReason, Phase};
use super::shipper::Shipper;
use super::source::Source;
use crate::wal::SeqNo;

/// Losses of the connection with the same oldest record on its way, after which it is suspected.
const SUSPICION: u32 = 20;

/// How far behind a suspected record the search for it goes.
const WINDOW_OF_SUSPICION: u64 = 1024;

impl<S: Sink> Shipper<'_, S> {
    /// A connection was lost although the cluster is there. The same oldest record on its way each
    /// time may be what breaks it: then it is searched for like a refused one, and held when it
    /// stood alone. It never dies of that.
    pub(super) fn suspect(&mut self, now: Instant) {
        let under_way = |(place, source): (usize, &Source<'_>)| {
            source.flight.oldest_under_way().map(|flown| (place, flown))
        };
        let oldest = self.sources.iter().enumerate().filter_map(under_way);
        let Some((source, flown)) = oldest.min_by_key(|(_, flown)| flown.at_millis) else {
            self.suspicion = None;
            return;
        };
        let same = |known: &(usize, SeqNo, u32)| (known.0, known.1) == (source, flown.seq);
        let losses = self
            .suspicion
            .filter(same)
            .map_or(1, |(.., losses)| losses + 1);
        self.suspicion = Some((source, flown.seq, losses));
        if losses < SUSPICION {
            return;
        }
        self.suspicion = None;
        self.needs_care = true;
        let index = flown.index();
        let outstanding = self.health[index].outstanding;
        match &self.health[index].phase {
            Phase::Flowing => {
                self.was_refused = true;
                self.health[index].search(source, outstanding, flown.seq + WINDOW_OF_SUSPICION);
                self.spent
                    .get_or_insert_with(|| "a record is suspected to break the connection".into());
            }
            Phase::Searched(_) if outstanding > 1 => {
                self.health[index].piece_suspected();
                self.sink.rebuild_careful();
            }
            Phase::Searched(_) | Phase::Held { .. } => {
                self.hold(index, HoldReason::Suspect, now);
                self.sink.rebuild_careful();
            }
        }
    }
}
