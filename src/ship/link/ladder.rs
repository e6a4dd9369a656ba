//! What each rung of the probe said last, since when, and how often.
//!
//! Pure; time is passed in. Must not know how a rung is climbed or what follows from it. Its size
//! does not grow, however long an outage is.

use std::time::Instant;

use crate::kafka::Rung;

/// The rungs by which a link is judged.
#[derive(Clone, Debug)]
pub struct Ladder {
    rungs: [RungState; Rung::ALL.len()],
}

/// What one rung said.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RungState {
    /// Which.
    pub rung: Rung,
    /// How often it passed.
    pub passed: u64,
    /// How often it failed.
    pub failed: u64,
    /// When it last began to pass, or to fail; `None` if it was never climbed.
    pub since: Option<Instant>,
    /// Why it failed the last time it was climbed; `None` if it passed.
    pub why: Option<String>,
}

impl Default for Ladder {
    /// None was climbed.
    fn default() -> Ladder {
        let unknown = |rung| RungState {
            rung,
            passed: 0,
            failed: 0,
            since: None,
            why: None,
        };
        Ladder {
            rungs: Rung::ALL.map(unknown),
        }
    }
}

impl Ladder {
    /// Each rung, in the order in which they are climbed.
    pub fn rungs(&self) -> &[RungState] {
        &self.rungs
    }

    /// A rung was climbed.
    pub(super) fn record(&mut self, rung: Rung, verdict: Result<(), &str>, now: Instant) {
        let Some(state) = self.rungs.iter_mut().find(|state| state.rung == rung) else {
            return;
        };
        if state.since.is_none() || state.why.is_some() != verdict.is_err() {
            state.since = Some(now);
        }
        match verdict {
            Ok(()) => state.passed += 1,
            Err(_) => state.failed += 1,
        }
        state.why = verdict.err().map(str::to_owned);
    }

    pub(super) fn has_passed(&self, rung: Rung) -> bool {
        let mut rungs = self.rungs.iter();
        rungs.any(|state| state.rung == rung && state.passed > 0)
    }

    /// Since when the probe passes, by all of its rungs; `None` if it fails or was never made.
    pub(super) fn passes_since(&self) -> Option<Instant> {
        let climbed = |state: &&RungState| state.rung != Rung::Metadata && state.since.is_some();
        let mut passes_since = None;
        for state in self.rungs.iter().filter(climbed) {
            if state.why.is_some() {
                return None;
            }
            passes_since = passes_since.max(state.since);
        }
        passes_since
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rung_counts_and_keeps_since_when_and_why() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut ladder = Ladder::default();
        ladder.record(Rung::Tcp, Err("refused"), at(1));
        ladder.record(Rung::Tcp, Err("no route"), at(2));
        let tcp = &ladder.rungs()[0];
        assert_eq!((tcp.passed, tcp.failed, tcp.since), (0, 2, Some(at(1))));
        assert_eq!(tcp.why.as_deref(), Some("no route"));
        ladder.record(Rung::Tcp, Ok(()), at(3));
        let tcp = &ladder.rungs()[0];
        assert_eq!((tcp.passed, tcp.failed, tcp.since), (1, 2, Some(at(3))));
        assert_eq!(tcp.why, None);
    }

    #[test]
    fn the_probe_passes_since_the_last_of_its_rungs_does() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut ladder = Ladder::default();
        assert_eq!(ladder.passes_since(), None);
        ladder.record(Rung::Tcp, Ok(()), at(1));
        ladder.record(Rung::ApiVersions, Err("mute"), at(1));
        assert_eq!(ladder.passes_since(), None);
        ladder.record(Rung::Tcp, Ok(()), at(2));
        ladder.record(Rung::ApiVersions, Ok(()), at(2));
        ladder.record(Rung::Metadata, Err("silent"), at(3));
        assert_eq!(ladder.passes_since(), Some(at(2)));
    }
}
