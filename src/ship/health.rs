//! Whether a partition takes records, and how many it may be given now.
//!
//! Pure; time and randomness are passed in. Must not know Kafka or the log. Invariants: what is
//! acknowledged ends a hold, whatever its reason; a held partition is given one record at a time,
//! and a searched one a piece at a time, so that what comes back judges exactly that; nothing here
//! counts an attempt.

use std::time::{Duration, Instant};

use super::bisect::{Bisect, Refusal};
pub(super) use super::hold::{HoldReason, reason_of, reason_of_leader};
use super::retry::{Attempted, Judged, RetryPolicy, WAIT_MAX};
use super::settle::State;
use crate::kafka::Failure;
use crate::wal::SeqNo;

/// A partition is held when nothing of it was acknowledged for this long while others get theirs.
pub(super) const SILENT: Duration = Duration::from_secs(5);

/// Others were acknowledged this much later than a partition that owes an answer.
const PASSED_OVER: Duration = Duration::from_secs(1);

/// Where none of them was acknowledged for this long, it was an outage, and no partition's own silence.
const OUTAGE: Duration = Duration::from_millis(2500);

/// So often, and nothing of a partition acknowledged between, an outage excuses its silence: on a thin
/// line each answer looks like the end of one.
const EXCUSES_MAX: u32 = 10;

/// Verdicts in a row on one topic, with nothing acknowledged between, after which it is held: a
/// limit that was changed by mistake must not empty the log.
pub(super) const STORM: u32 = 100;

/// Losses of the connection with records of a partition on their way, and nothing of it acknowledged
/// between, after which one of them is suspected: more than a bad line makes by itself, because what
/// is suspected costs a new producer, and so may come twice.
pub(super) const SUSPICION: u32 = 20;

/// So many explain why nothing is acknowledged.
const LOSSES_TELL: u32 = 2;

/// The same as the first, for a piece that a suspicion began the search with, and for a record that was
/// found so.
pub(super) const SUSPICION_CONFIRMED: u32 = 1;

/// Records that must be taken as one piece before a search is over.
const PROBATION: usize = 1024;

/// What a partition does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It takes what comes.
    Flowing,
    /// It takes nothing but a trial now and then.
    Held { why: HoldReason, since: Instant },
    /// A batch was refused: who is to blame is searched for.
    Searched(Search),
}

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sought {
    /// A record that is refused.
    Refused,
    /// One that breaks the connection.
    Breaker,
    /// One that takes longer to cross the link than a request may.
    Slow,
}

/// A search among the records of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Search {
    pub(super) source: usize,
    pub(super) bisect: Bisect,
    /// Records of the piece that is under way; 0: none is.
    handed: usize,
    /// What the cluster said to that piece.
    refused: Option<Failure>,
    /// Whether some of that piece is in doubt.
    is_in_doubt: bool,
    /// What is searched for.
    sought: Sought,
    /// Whether that piece broke the connection, or did not cross the link in time.
    is_blamed: bool,
    /// It is one record, which is too slow, and is not to be held for that.
    too_slow: Option<Failure>,
    /// The newest record that was taken.
    taken: Option<SeqNo>,
}

/// How the piece of a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Taken, or refused as a whole: the next one follows.
    Next,
    /// It was one record, refused for itself.
    Verdict(Failure),
    /// It was one record, which did not cross the link in time.
    TooSlow(Failure),
    /// Everything that came back is behind.
    Over,
}

/// One partition.
#[derive(Clone, Debug)]
pub(super) struct Health {
    pub(super) phase: Phase,
    /// Records handed over and not reported.
    pub(super) outstanding: usize,
    /// On which way; all of them go on one.
    is_tried: bool,
    /// How often the connection was lost since these were handed over or one was acknowledged.
    losses: u32,
    /// When it was last heard of, or began to owe an answer.
    last_sign: Instant,
    /// Outages that ended since these were handed over or one was acknowledged.
    excuses: u32,
    /// Failed trials since anything was acknowledged.
    pub(super) failures: u32,
    next_trial: Instant,
    /// Whether its leader answered before the trial that is under way.
    pub(super) is_asked: bool,
    /// Records refused for themselves since anything was acknowledged.
    pub(super) verdicts: u32,
    /// By source and number.
    judged: Judged<(usize, SeqNo)>,
    /// The record that was refused alone, not for itself.
    pub(super) attempted: Option<Attempted>,
}

impl Health {
    pub(super) fn new(now: Instant) -> Health {
        Health {
            phase: Phase::Flowing,
            outstanding: 0,
            is_tried: false,
            losses: 0,
            last_sign: now,
            excuses: 0,
            failures: 0,
            next_trial: now,
            is_asked: false,
            verdicts: 0,
            judged: Judged::NONE,
            attempted: None,
        }
    }

    /// A record was refused for itself; returns how often. It is one more only the first time.
    pub(super) fn judged(&mut self, source: usize, seq: SeqNo) -> u32 {
        let count = self.judged.again((source, seq));
        self.verdicts += u32::from(count == 1);
        count
    }

    pub(super) fn is_flowing(&self) -> bool {
        self.phase == Phase::Flowing
    }

    /// How many records of a source may be handed over now.
    pub(super) fn allowance(&self, source: usize, now: Instant) -> usize {
        match &self.phase {
            Phase::Flowing => usize::MAX,
            _ if self.outstanding > 0 => 0,
            Phase::Held { .. } => usize::from(now >= self.next_trial),
            Phase::Searched(search) if search.source == source => search.bisect.piece(),
            Phase::Searched(_) => 0,
        }
    }

    /// A record was handed over, on that way.
    pub(super) fn handed_over(&mut self, to: State, now: Instant) {
        if self.outstanding == 0 {
            self.count_silence_from(now);
        }
        self.outstanding += 1;
        self.is_tried = to == State::Tried;
    }

    /// It was heard of, or owed nothing until now.
    fn count_silence_from(&mut self, now: Instant) {
        self.last_sign = now;
        self.losses = 0;
        self.excuses = 0;
    }

    /// Whether what it owes an answer for was handed over as a trial.
    pub(super) fn is_tried(&self) -> bool {
        self.is_tried && self.outstanding > 0
    }

    /// A record of it was acknowledged. True if that ended a hold.
    pub(super) fn acknowledged(&mut self, seq: SeqNo, now: Instant) -> bool {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.count_silence_from(now);
        self.failures = 0;
        self.verdicts = 0;
        match &mut self.phase {
            Phase::Flowing => false,
            Phase::Searched(search) => {
                search.taken = search.taken.max(Some(seq));
                false
            }
            Phase::Held { .. } => {
                self.phase = Phase::Flowing;
                true
            }
        }
    }

    /// Searches among `refused` records of a source that came back, the newest of which is `last`.
    pub(super) fn search(&mut self, source: usize, refused: usize, last: SeqNo) {
        self.phase = Phase::Searched(Search {
            source,
            bisect: Bisect::new(refused, last),
            handed: 0,
            refused: None,
            is_in_doubt: false,
            sought: Sought::Refused,
            is_blamed: false,
            too_slow: None,
            taken: None,
        });
    }

    /// Searches for what breaks the connection among so many records that are on their way.
    pub(super) fn search_suspect(&mut self, source: usize, last: SeqNo) {
        self.search(source, self.outstanding, last);
        if let Phase::Searched(search) = &mut self.phase {
            search.sought = Sought::Breaker;
        }
    }

    /// What is on its way is sent again with all the time that there is.
    pub(super) fn search_slow(&mut self, source: usize, last: SeqNo) {
        self.search(source, self.outstanding, last);
        if let Phase::Searched(search) = &mut self.phase {
            search.sought = Sought::Slow;
        }
    }

    /// What is under way carefully, of which this is the last, gets all the time that there is from now on.
    pub(super) fn turns_slow(&mut self, source: usize, last: SeqNo) {
        if let Phase::Searched(search) = &mut self.phase {
            search.sought = Sought::Slow;
        } else {
            self.search_slow(source, last);
            self.piece_handed_over(self.outstanding);
        }
    }

    /// A piece of so many records is under way.
    pub(super) fn piece_handed_over(&mut self, handed: usize) {
        if let Phase::Searched(search) = &mut self.phase {
            (search.handed, search.refused) = (handed, None);
        }
    }

    /// The cluster refused the piece that is under way, or more of what was sent before the search.
    pub(super) fn piece_refused(&mut self, source: usize, last: SeqNo, failure: Failure) {
        if let Phase::Searched(search) = &mut self.phase
            && search.source == source
        {
            search.bisect.reaches(last);
            search.refused = Some(failure);
        }
    }

    /// How the piece under way ended, once all of it was reported.
    pub(super) fn piece_ended(&mut self) -> Option<Piece> {
        let Phase::Searched(search) = &mut self.phase else {
            return None;
        };
        if self.outstanding > 0 || search.handed == 0 {
            return None;
        }
        let handed = std::mem::take(&mut search.handed);
        let is_blamed = std::mem::take(&mut search.is_blamed);
        // Of this piece alone: it may have arrived after all.
        let too_slow = search.too_slow.take();
        if std::mem::take(&mut search.is_in_doubt) {
            if is_blamed {
                search.bisect.refused(handed);
            }
            return Some(too_slow.map_or(Piece::Next, Piece::TooSlow));
        }
        let Some(failure) = search.refused.take() else {
            search.bisect.taken(handed);
            let is_behind = search.taken.is_some_and(|seq| search.bisect.is_over(seq));
            // Where one was refused others may follow: a large piece has to be taken first.
            let is_over = is_behind && handed >= PROBATION;
            return Some(if is_over { Piece::Over } else { Piece::Next });
        };
        Some(match search.bisect.refused(handed) {
            Refusal::Halved => Piece::Next,
            Refusal::Verdict => Piece::Verdict(failure),
        })
    }

    /// A record came back.
    pub(super) fn came_back(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// The connection was lost so often while what it owes an answer for was on its way.
    pub(super) fn connection_lost(&mut self, times: u32) {
        if self.outstanding > 0 {
            self.losses = self.losses.saturating_add(times);
        }
    }

    /// Whether the connection was lost often enough to suspect what was on its way.
    pub(super) fn is_suspected(&self) -> bool {
        let enough = match self.is_suspicious() {
            true => SUSPICION_CONFIRMED,
            false => SUSPICION,
        };
        self.outstanding > 0 && self.losses >= enough
    }

    /// Whether it is searched or held for what breaks the connection.
    pub(super) fn is_suspicious(&self) -> bool {
        match &self.phase {
            Phase::Flowing => false,
            Phase::Held { why, .. } => *why == HoldReason::Suspect,
            Phase::Searched(search) => search.sought == Sought::Breaker,
        }
    }

    /// Whether what it is given gets all the time that there is.
    pub(super) fn is_slow(&self) -> bool {
        match &self.phase {
            Phase::Flowing => false,
            Phase::Held { why, .. } => matches!(why, HoldReason::TooSlow { .. }),
            Phase::Searched(search) => search.sought == Sought::Slow,
        }
    }

    /// What is under way is to blame, for lost connections or the time it takes: a piece counts as
    /// refused. True if it is one record.
    pub(super) fn blame(&mut self) -> bool {
        self.losses = 0;
        match &mut self.phase {
            Phase::Searched(search) if self.outstanding > 1 => {
                search.is_blamed = true;
                if search.sought == Sought::Refused {
                    search.sought = Sought::Breaker;
                }
                false
            }
            Phase::Flowing | Phase::Held { .. } | Phase::Searched(_) => true,
        }
    }

    /// The record that is under way is too slow: told once it came back.
    pub(super) fn piece_too_slow(&mut self, failure: Failure) {
        if let Phase::Searched(search) = &mut self.phase {
            (search.is_blamed, search.too_slow) = (true, Some(failure));
        }
    }

    /// What is under way of a search is in doubt: it says nothing, and is handed over again.
    pub(super) fn piece_in_doubt(&mut self) {
        if let Phase::Searched(search) = &mut self.phase {
            search.is_in_doubt = true;
        }
    }

    /// Whether it is held for what trying again and again would tell no better.
    pub(super) fn is_tried_enough(&self) -> bool {
        self.failures >= 2 || self.is_slow()
    }

    /// Since when and why it is held.
    pub(super) fn held(&self) -> Option<(&HoldReason, Instant)> {
        match &self.phase {
            Phase::Held { why, since } => Some((why, *since)),
            Phase::Flowing | Phase::Searched(_) => None,
        }
    }

    /// Whether it is held because it does not answer.
    pub(super) fn is_mute(&self) -> bool {
        let why = self.held().map(|(why, _)| why);
        matches!(why, Some(HoldReason::Silent | HoldReason::NoLeader))
    }

    /// How many answers it owes where it is held for that, or because of what it was given.
    pub(super) fn stuck(&self) -> usize {
        match self.held() {
            Some(_) if self.is_mute() => self.outstanding,
            None if self.is_suspicious() || self.is_slow() => self.outstanding,
            _ => 0,
        }
    }

    pub(super) fn is_held_for(&self, time: Duration, now: Instant) -> bool {
        let held = self.held();
        held.is_some_and(|(_, since)| now.saturating_duration_since(since) >= time)
    }

    /// Holds it, and says when to try again. A hold that goes on keeps its beginning.
    pub(super) fn hold(
        &mut self,
        why: HoldReason,
        policy: &RetryPolicy,
        now: Instant,
        random: u64,
    ) {
        self.failures = self.failures.saturating_add(1);
        let wait = policy.wait(self.failures, random);
        self.hold_for(why, wait, now);
    }

    /// Holds it and tries again after `wait`.
    pub(super) fn hold_for(&mut self, why: HoldReason, wait: Duration, now: Instant) {
        self.next_trial = now + wait.min(WAIT_MAX);
        let since = match self.phase {
            Phase::Held { since, .. } => since,
            Phase::Flowing | Phase::Searched(_) => now,
        };
        self.phase = Phase::Held { why, since };
    }

    /// Its next trial may begin.
    pub(super) fn try_now(&mut self, now: Instant) {
        self.next_trial = self.next_trial.min(now);
    }

    /// It takes what comes again.
    pub(super) fn release(&mut self) {
        self.phase = Phase::Flowing;
        self.failures = 0;
    }

    /// Whether it owes answers for too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.is_silent_for(SILENT, now)
    }

    pub(super) fn is_silent_for(&self, time: Duration, now: Instant) -> bool {
        self.outstanding > 0 && now.saturating_duration_since(self.last_sign) >= time
    }

    /// Whether its answer would end an outage, if nobody else had one meanwhile: `acknowledged` tells.
    pub(super) fn ends_outage(&self, acknowledged: Option<Instant>, now: Instant) -> bool {
        let is_long = |since: Instant| now.saturating_duration_since(since) >= OUTAGE;
        self.outstanding > 0 && is_long(self.last_sign) && acknowledged.is_none_or(is_long)
    }

    /// An outage is over, after which another partition is heard of first: the silence of this one begins anew.
    pub(super) fn outage_ended(&mut self, now: Instant) {
        if self.excuses < EXCUSES_MAX {
            self.excuses += 1;
            self.last_sign = now;
        }
    }

    /// The way on which its records are handed over.
    pub(super) fn way(&self) -> State {
        match self.phase {
            Phase::Flowing => State::InFlight,
            Phase::Held { .. } | Phase::Searched(_) => State::Tried,
        }
    }

    /// Whether others got an acknowledgement well after it was last heard of, and no lost connections are why.
    pub(super) fn is_passed_over(&self, acknowledged: Option<Instant>) -> bool {
        let since = |at: Instant| at.saturating_duration_since(self.last_sign);
        self.losses < LOSSES_TELL && acknowledged.is_some_and(|at| since(at) >= PASSED_OVER)
    }

    /// One record was refused alone, for what says nothing about it: an attempt. Where it was beside
    /// one that was attempted before, it is the partition, and nobody is to blame.
    pub(super) fn attempt(
        &mut self,
        source: usize,
        seq: SeqNo,
        failure: Failure,
        most: u32,
        at_millis: u32,
    ) {
        let count = match self.attempted.take() {
            None => 0,
            Some(attempted) if attempted.is(source, seq) => attempted.count,
            Some(_) => return,
        };
        self.attempted = Some(Attempted {
            source,
            seq,
            count: count.saturating_add(1),
            most,
            failure,
            at_millis,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{ErrorClass, Persistence};
    use crate::ship::retry::PROOF_MILLIS;

    fn failure(class: ErrorClass) -> Failure {
        Failure {
            class,
            code: 29,
            name: "no".to_owned(),
            persistence: Persistence::No,
        }
    }

    fn policy() -> RetryPolicy {
        RetryPolicy {
            jitter: false,
            ..RetryPolicy::default()
        }
    }

    #[test]
    fn a_held_partition_is_given_one_record_after_each_wait_and_flows_after_an_acknowledgement() {
        let now = Instant::now();
        let mut health = Health::new(now);
        assert_eq!(health.allowance(0, now), usize::MAX);
        health.hold(reason_of(&failure(ErrorClass::Held)), &policy(), now, 0);
        assert_eq!(health.allowance(0, now), 0);
        let later = now + Duration::from_millis(200);
        assert_eq!(health.allowance(0, later), 1);
        health.handed_over(State::InFlight, later);
        assert_eq!(health.allowance(0, later), 0, "one at a time");
        health.came_back();
        health.hold(reason_of(&failure(ErrorClass::Held)), &policy(), later, 0);
        assert_eq!(health.allowance(0, later + Duration::from_millis(399)), 0);
        assert_eq!(health.held().unwrap().1, now, "it began with the first");
        health.handed_over(State::InFlight, later);
        assert!(health.acknowledged(SeqNo::ZERO, later));
        assert!(health.is_flowing());
        assert_eq!(health.failures, 0);
    }

    #[test]
    fn a_searched_partition_is_given_a_piece_of_one_source_at_a_time() {
        let now = Instant::now();
        let mut health = Health::new(now);
        health.search(2, 100, SeqNo::new(99));
        assert_eq!(
            (health.allowance(2, now), health.allowance(1, now)),
            (50, 0)
        );
        health.handed_over(State::Tried, now);
        health.piece_handed_over(1);
        assert_eq!(health.allowance(2, now), 0);
        assert_eq!(health.piece_ended(), None);
        assert!(!health.acknowledged(SeqNo::new(0), now));
        assert_eq!(health.piece_ended(), Some(Piece::Next));
        assert_eq!(health.allowance(2, now), 49, "half of those that are left");
    }

    #[test]
    fn a_record_that_crossed_at_last_leaves_its_blame_to_no_other() {
        let now = Instant::now();
        let mut health = Health::new(now);
        health.search_slow(0, SeqNo::new(0));
        health.handed_over(State::Tried, now);
        health.piece_handed_over(1);
        // Its time is over, and the acknowledgement was on its way.
        assert!(health.blame());
        health.piece_too_slow(failure(ErrorClass::Network));
        health.acknowledged(SeqNo::new(0), now);
        assert_eq!(health.piece_ended(), Some(Piece::Next));
        // The one behind it comes back, as its producer was spent.
        health.handed_over(State::Tried, now);
        health.piece_handed_over(1);
        health.piece_in_doubt();
        health.came_back();
        assert_eq!(health.piece_ended(), Some(Piece::Next));
    }

    #[test]
    fn a_piece_is_judged_when_all_of_it_was_reported() {
        let now = Instant::now();
        let mut health = Health::new(now);
        health.search(0, 4, SeqNo::new(3));
        for _ in 0..2 {
            health.handed_over(State::Tried, now);
        }
        health.piece_handed_over(2);
        health.came_back();
        health.piece_refused(0, SeqNo::new(1), failure(ErrorClass::Poison));
        assert_eq!(health.piece_ended(), None, "one is outstanding");
        health.came_back();
        assert_eq!(health.piece_ended(), Some(Piece::Next));
        // A piece that a lost producer took with it judges nobody.
        health.handed_over(State::Tried, now);
        health.piece_handed_over(1);
        health.came_back();
        health.piece_in_doubt();
        assert_eq!(health.piece_ended(), Some(Piece::Next));
        health.handed_over(State::Tried, now);
        health.piece_handed_over(1);
        health.came_back();
        let poison = failure(ErrorClass::Poison);
        health.piece_refused(0, SeqNo::new(0), poison.clone());
        assert_eq!(health.piece_ended(), Some(Piece::Verdict(poison)));
        health.handed_over(State::Tried, now);
        health.piece_handed_over(1);
        health.acknowledged(SeqNo::new(3), now);
        assert_eq!(health.piece_ended(), Some(Piece::Next), "a small piece");
        health.handed_over(State::Tried, now);
        health.piece_handed_over(PROBATION);
        health.acknowledged(SeqNo::new(4), now);
        assert_eq!(health.piece_ended(), Some(Piece::Over));
    }

    /// Every way to be under way, and every number of losses around those that count.
    #[test]
    fn losses_of_the_connection_blame_what_was_on_its_way_when_there_are_enough() {
        let now = Instant::now();
        let flowing = Health::new(now);
        let mut refused = Health::new(now);
        refused.search(0, 8, SeqNo::new(7));
        let mut suspicious = Health::new(now);
        suspicious.search_suspect(0, SeqNo::new(7));
        let held = |why| {
            let mut health = Health::new(now);
            health.hold(why, &policy(), now, 0);
            health
        };
        let (silent, suspect) = (held(HoldReason::Silent), held(HoldReason::Suspect));
        for (health, enough) in [
            (flowing, SUSPICION),
            (refused, SUSPICION),
            (silent, SUSPICION),
            (suspicious, SUSPICION_CONFIRMED),
            (suspect, SUSPICION_CONFIRMED),
        ] {
            for outstanding in 0..3 {
                for losses in 0..=SUSPICION {
                    let mut health = health.clone();
                    (0..outstanding).for_each(|_| health.handed_over(State::Tried, now));
                    health.connection_lost(losses);
                    let is_any = outstanding > 0;
                    assert_eq!(health.is_suspected(), is_any && losses >= enough);
                    let is_search = matches!(health.phase, Phase::Searched(_));
                    assert_eq!(health.blame(), !is_search || outstanding < 2);
                    assert!(!health.is_suspected(), "each loss counts once");
                }
            }
        }
        // Something arrived: it was not that.
        let mut health = Health::new(now);
        (0..2).for_each(|_| health.handed_over(State::InFlight, now));
        health.connection_lost(SUSPICION);
        assert!(health.is_suspected());
        let later = now + PASSED_OVER;
        assert!(!health.is_passed_over(Some(later)), "it is known why");
        health.acknowledged(SeqNo::ZERO, now);
        assert!(!health.is_suspected() && health.is_passed_over(Some(later)));
    }

    #[test]
    fn silence_counts_from_when_an_answer_began_to_be_owed() {
        let now = Instant::now();
        let mut health = Health::new(now);
        let later = now + Duration::from_secs(60);
        assert!(!health.is_silent(later));
        health.handed_over(State::InFlight, later);
        assert!(!health.is_silent(later + Duration::from_secs(4)));
        assert!(health.is_silent(later + SILENT));
        assert!(!health.is_passed_over(Some(later)));
        assert!(health.is_passed_over(Some(later + PASSED_OVER)));
        health.came_back();
        assert!(!health.is_silent(later + SILENT));
    }

    #[test]
    fn an_outage_of_all_partitions_is_no_silence_of_one_but_for_one_that_is_never_heard_of() {
        let begin = Instant::now();
        let mut health = Health::new(begin);
        health.handed_over(State::InFlight, begin);
        let mut now = begin + OUTAGE;
        assert!(health.ends_outage(None, now) && health.ends_outage(Some(begin), now));
        let recent = Some(begin + PASSED_OVER);
        assert!(!health.ends_outage(recent, now), "others were heard of");
        for _ in 0..EXCUSES_MAX {
            now += 10 * SILENT;
            health.outage_ended(now);
            assert!(!health.is_silent(now) && !health.is_passed_over(Some(now)));
            assert!(health.is_silent(now + SILENT));
        }
        now += 10 * SILENT;
        health.outage_ended(now);
        assert!(health.is_silent(now) && health.is_passed_over(Some(now)));
        // A record that was handed over a moment ago, after a long rest.
        let mut health = Health::new(begin);
        health.handed_over(State::InFlight, now);
        assert!(!health.ends_outage(Some(begin), now));
    }

    #[test]
    fn attempts_are_counted_for_one_record_of_one_log() {
        let mut health = Health::new(Instant::now());
        let mut attempt = |source, seq| {
            let not_now = failure(ErrorClass::Transient);
            health.attempt(source, SeqNo::new(seq), not_now, 10, 0);
            health.attempted.as_ref().map_or(0, |a| a.count)
        };
        assert_eq!([attempt(0, 3), attempt(0, 3)], [1, 2]);
        assert_eq!([attempt(0, 4), attempt(0, 4)], [0, 1], "another one");
        assert_eq!([attempt(1, 4), attempt(1, 4)], [0, 1], "of another log");
    }

    #[test]
    fn only_what_is_handed_over_soon_after_the_last_attempt_proves_anything() {
        let mut health = Health::new(Instant::now());
        for (count, at) in [(1, 100), (2, 5000), (3, 20_000)] {
            let not_now = failure(ErrorClass::Transient);
            health.attempt(0, SeqNo::ZERO, not_now, 2, at);
            let attempted = health.attempted.as_ref().unwrap();
            assert_eq!(attempted.is_proved_by(at), count >= 2);
            assert_eq!(attempted.is_proved_by(at + PROOF_MILLIS - 1), count >= 2);
            assert!(!attempted.is_proved_by(at + PROOF_MILLIS));
        }
    }
}
