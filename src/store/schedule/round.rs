//! Which of what is due goes to its lane next, and which has to wait.
//!
//! Owns the choice of a batch, and what follows where a lane refuses one. It must not know the order of
//! steps by which a batch gets there.
//!
//! Invariants: what one lane or one record is refused for holds up no other. Nothing goes to a cluster that
//! its lane's name did not say. What waits though it is due is told in a sentence, by its lane or here.

use super::{Schedule, fire::Firing, index::Slip};
use crate::{
    store::{Error, Lane, LaneName, Now},
    wal::{self, SeqNo},
};

/// Most records and bytes of a batch. One record that is longer goes alone.
const BATCH_MAX: usize = 1024;
const BATCH_BYTES_MAX: u64 = 256 << 10;

/// What was met since it was begun to bring to their lanes what is due.
#[derive(Debug)]
pub(super) struct Round {
    /// Most records of a batch.
    most: usize,
    /// Lanes that refused one.
    passed: Vec<String>,
    /// Why the first of them did.
    error: Option<Error>,
}

impl Default for Round {
    fn default() -> Self {
        Self {
            most: BATCH_MAX,
            passed: Vec::new(),
            error: None,
        }
    }
}

impl Round {
    /// Fails as the first lane that was passed.
    pub(super) fn ended(self) -> Result<(), Error> {
        self.error.map_or(Ok(()), Err)
    }

    fn passes(&self, lane: &Lane) -> bool {
        self.passed.iter().any(|passed| passed == lane.name())
    }
}

impl Schedule {
    /// What is longest overdue for a lane that takes records, and what else is due for the same one: where
    /// each stands, and its id.
    pub(super) fn next_batch<'a>(
        &self,
        lanes: &'a [Lane],
        now: &Now,
        round: &Round,
    ) -> Option<(&'a Lane, Vec<(SeqNo, u64)>)> {
        let state = self.state.lock();
        let takes = |lane: &&Lane| takes_records(lane) && !round.passes(lane);
        let taker = |name: &String| lane_of(lanes, name).filter(takes);
        let takers: Vec<Option<&Lane>> = state.lanes.0.iter().map(taker).collect();
        let due = state.index.due(now);
        let mut due = due.filter(|(_, slip)| takers[slip.lane].is_some());
        let (first, Slip { lane, seq, len, .. }) = due.next()?;
        let mut room = BATCH_BYTES_MAX.saturating_sub(len);
        let mut batch = vec![(seq, first)];
        for (id, slip) in due.filter(|(_, slip)| slip.lane == lane) {
            if batch.len() == round.most || room < slip.len {
                break;
            }
            room -= slip.len;
            batch.push((slip.seq, id));
        }
        Some((takers[lane]?, batch))
    }

    /// A lane refused a batch, and that is written down. Where it is for one of the records, goes on with
    /// half of them, down to that one, which waits until the store is opened anew: its lane may have other
    /// options then.
    pub(super) fn refused(&self, open: &Firing, error: Error, round: &mut Round) {
        let is_for_a_record = matches!(
            error,
            Error::Invalid(_) | Error::NotDue | Error::Log(wal::Error::TooLarge { .. })
        );
        match *open.ids {
            _ if !is_for_a_record => {
                round.passed.push(open.lane.clone());
                round.error.get_or_insert(error);
            }
            [id] => {
                let mut state = self.state.lock();
                state.index.hold(id);
                state.held.get_or_insert_with(|| {
                    format!(
                        "record {id} does not go to lane {}, and waits until the store is opened anew: {error}",
                        open.lane
                    )
                });
                round.most = BATCH_MAX;
            }
            ref ids => round.most = ids.len() / 2,
        }
    }

    /// Why something that is due waits all the same, if it is not for its lane to say.
    pub(super) fn why_waits(&self, lanes: &[Lane], now: &Now) -> Option<String> {
        let held = self.state.lock().why_held();
        let why: Vec<String> = held.into_iter().chain(self.why_gone(lanes, now)).collect();
        (!why.is_empty()).then(|| why.join("; "))
    }

    fn why_gone(&self, lanes: &[Lane], now: &Now) -> Option<String> {
        let state = self.state.lock();
        let names = state.lanes.0.iter();
        let gone: Vec<bool> = names.map(|name| lane_of(lanes, name).is_none()).collect();
        if !gone.contains(&true) {
            return None;
        }
        let mut due = state.index.due(now).filter(|(_, slip)| gone[slip.lane]);
        let place = due.next()?.1.lane;
        let count = 1 + due.filter(|(_, slip)| slip.lane == place).count();
        let name = state.lanes.name(place);
        Some(format!(
            "the store has no lane {name} any more, nor another one of its cluster, for {count} records"
        ))
    }
}

/// Whether there is no reason to wait with appending to a lane.
fn takes_records(lane: &Lane) -> bool {
    lane.shortage().is_none() && lane.failure().is_none()
}

pub(super) fn named<'a>(lanes: &'a [Lane], name: &str) -> Option<&'a Lane> {
    lanes.iter().find(|lane| lane.name() == name)
}

/// The lane of this name. One that was taken away by hand is stood in for by another of its cluster, of its
/// tenant or of none: nobody is sent what its lane's name did not say.
pub(super) fn lane_of<'a>(lanes: &'a [Lane], name: &str) -> Option<&'a Lane> {
    let stands_in = || {
        let gone = LaneName::parse(name)?;
        let of_tenant = |lane: &Lane| lane.parts().tenant == gone.tenant;
        let fits = |lane: &Lane| {
            lane.cluster() == gone.cluster && (of_tenant(lane) || lane.parts().tenant.is_none())
        };
        let fitting = lanes.iter().filter(|lane| fits(lane));
        fitting.min_by_key(|lane| !of_tenant(lane))
    };
    named(lanes, name).or_else(stands_in)
}
