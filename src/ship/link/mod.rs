//! What is known about the way to the cluster, since when and why; and when to try again.
//!
//! Pure; time and randomness are passed in. Must not know how a try is made. Invariants: an
//! acknowledgement means up, whatever any probe says; one verdict alone takes no link down; the
//! wait between tries only starts over after the link was up for [`Backoff::stable`]; nothing here
//! grows with the length of an outage.

mod backoff;
mod block;
mod ladder;
mod options;
mod pulse;
mod rate;
mod rebuild;
mod window;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::kafka::{Probed, Rung};
use rebuild::Uselessness;

pub(super) use backoff::jittered;
pub use backoff::{Backoff, Profile};
pub use block::Block;
pub use ladder::{Ladder, RungState};
pub use options::LinkOptions;
pub(super) use pulse::Pulse;
pub(super) use rate::DrainRate;
pub use window::{BadWindow, DrainWindow};
pub(super) use window::{Look, WindowClock, local_minute};

/// A link that acknowledged something within this time is up, unless its own producer is silent.
const FRESH: Duration = Duration::from_secs(30);

/// So many verdicts against a link that was up take it down: two rungs, or one of them twice.
const VERDICTS_NEEDED: u32 = 2;

/// A cluster that turned us away is tried no more often than this on average: each try counts there
/// as a failed login.
const BLOCKED_WAIT: Duration = Duration::from_secs(60);

/// The state of the way to one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LinkState {
    /// Not to be used, by the operator's choice.
    Disabled,
    /// Not tried yet.
    #[default]
    Unknown,
    /// The last try failed.
    Down,
    /// A try is under way.
    Probing,
    /// The cluster answers.
    Up,
    /// The cluster answers, and turns us away. It is tried again, rarely.
    Blocked(Block),
}

/// What is known, whether a try is under way or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Disabled,
    Unknown,
    Down,
    Up,
    Blocked(Block),
}

/// What may happen to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Disabled,
    Enabled,
    /// The producer was answered, or something acknowledged.
    Answered,
    /// The producer got no answer.
    Unanswered,
    /// A rung of the probe failed.
    Unreachable,
    /// There is no connection any more, for sure.
    Lost,
    Blocked(Block),
}

/// The table of states.
fn next(from: Settled, event: Event) -> Settled {
    match (from, event) {
        (_, Event::Disabled) => Settled::Disabled,
        (Settled::Disabled, Event::Enabled) => Settled::Unknown,
        (Settled::Disabled, _) => Settled::Disabled,
        (from, Event::Enabled) => from,
        (_, Event::Answered) => Settled::Up,
        (_, Event::Blocked(block)) => Settled::Blocked(block),
        (_, Event::Lost) => Settled::Down,
        // A verdict alone takes no link down: enough of them are a loss.
        (Settled::Up, Event::Unanswered | Event::Unreachable) => Settled::Up,
        // A producer that was turned away gets no answer either: that is no news.
        (Settled::Blocked(block), Event::Unanswered) => Settled::Blocked(block),
        (Settled::Blocked(_), Event::Unreachable) => Settled::Down,
        (Settled::Unknown | Settled::Down, Event::Unanswered | Event::Unreachable) => Settled::Down,
    }
}

/// The way to one cluster.
#[derive(Debug)]
pub(super) struct Link {
    settled: Settled,
    since: Instant,
    /// A try is under way; never while up or disabled.
    is_trying: bool,
    why: String,
    /// How much of `why` is the reason itself; an explanation follows.
    reason_len: usize,
    backoff: Backoff,
    /// Losses in a row without a stable time between them.
    losses: u32,
    next_try: Instant,
    /// The configuration changed: the cluster itself is to be asked, whatever the probe says.
    is_changed: bool,
    /// Verdicts against a link that is up, since the cluster last answered.
    against: u32,
    /// The producer itself got no answer, since the cluster last answered.
    is_silent: bool,
    /// When the cluster last answered, or there was last nothing to ask it for.
    last_sign: Instant,
    /// When something was last acknowledged.
    acknowledged: Option<Instant>,
    /// When something was last acknowledged, or nothing was in flight, or the link came up.
    last_use: Instant,
    rebuilt: Option<Instant>,
    ladder: Ladder,
    tries: u64,
    changes: u64,
}

impl Link {
    pub(super) fn new(backoff: Backoff, now: Instant) -> Link {
        let why = "not tried yet".to_owned();
        Link {
            settled: Settled::Unknown,
            since: now,
            is_trying: false,
            reason_len: why.len(),
            why,
            backoff,
            losses: 0,
            next_try: now,
            is_changed: false,
            against: 0,
            is_silent: false,
            last_sign: now,
            acknowledged: None,
            last_use: now,
            rebuilt: None,
            ladder: Ladder::default(),
            tries: 0,
            changes: 0,
        }
    }

    pub(super) fn state(&self) -> LinkState {
        match self.settled {
            Settled::Disabled => LinkState::Disabled,
            Settled::Up => LinkState::Up,
            _ if self.is_trying => LinkState::Probing,
            Settled::Unknown => LinkState::Unknown,
            Settled::Down => LinkState::Down,
            Settled::Blocked(block) => LinkState::Blocked(block),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.settled == Settled::Up
    }

    /// For how long it has been up, without a loss.
    pub(super) fn up_for(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.since);
        if self.is_up() { since } else { Duration::ZERO }
    }

    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// What each rung said.
    pub(super) fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// How many tries were started.
    pub(super) fn tries(&self) -> u64 {
        self.tries
    }

    /// How often the state changed. A try that changes nothing is no change: by this, what is told of
    /// an outage does not grow with its length.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a try should be started now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.settled {
            Settled::Unknown | Settled::Down | Settled::Blocked(_) => {
                !self.is_trying && now >= self.next_try
            }
            Settled::Disabled | Settled::Up => false,
        }
    }

    /// A try was started. Since when and why it was down stays.
    pub(super) fn trying(&mut self) {
        if !matches!(self.settled, Settled::Disabled | Settled::Up) {
            self.is_trying = true;
            self.tries += 1;
        }
    }

    /// Sets when to try again. The next try is made at once, and asks the cluster itself.
    #[allow(dead_code, reason = "a single drain changes no option while it runs")]
    pub(super) fn set_backoff(&mut self, backoff: Backoff, now: Instant) {
        self.backoff = backoff;
        self.next_try = now;
        self.is_changed = true;
    }

    /// Not to be used from now on.
    pub(super) fn disabled(&mut self, why: &str, now: Instant) {
        self.happened(Event::Disabled, now);
        self.is_trying = false;
        self.explain_anew(why);
    }

    /// To be used again; the first try is made at once.
    pub(super) fn enabled(&mut self, now: Instant) {
        if self.settled == Settled::Disabled {
            self.happened(Event::Enabled, now);
            self.explain_anew("not tried yet");
            self.losses = 0;
            self.next_try = now;
        }
    }

    /// The cluster turned the producer away. While something is acknowledged it did so to a
    /// connection too many, and that is a doubt only.
    pub(super) fn blocked(&mut self, block: Block, why: &str, now: Instant, random: u64) {
        if self.is_up() && self.is_up_by_definition(now) {
            self.explain_anew(why);
            return;
        }
        self.forgive_if_stable(now);
        let is_news = self.is_trying || next(self.settled, Event::Blocked(block)) != self.settled;
        self.happened(Event::Blocked(block), now);
        if self.settled == Settled::Disabled {
            return;
        }
        self.explain_anew(why);
        if is_news {
            self.schedule(now, random);
        }
    }

    /// The cluster answered the producer.
    pub(super) fn answered(&mut self, now: Instant) {
        self.ladder.record(Rung::Metadata, Ok(()), now);
        self.alive(now);
    }

    /// The cluster acknowledged something.
    pub(super) fn acknowledged(&mut self, now: Instant) {
        self.acknowledged = Some(now);
        self.last_use = now;
        self.alive(now);
    }

    fn alive(&mut self, now: Instant) {
        let was_up = self.is_up();
        self.happened(Event::Answered, now);
        self.last_sign = now;
        self.against = 0;
        self.is_silent = false;
        if self.is_up() {
            self.is_trying = false;
            self.is_changed = false;
            self.explain_anew("");
            if !was_up {
                self.last_use = now;
            }
        }
    }

    /// There is nothing to ask the cluster for, so its silence means nothing.
    pub(super) fn idle(&mut self, now: Instant) {
        self.last_sign = now;
        self.last_use = now;
    }

    /// Whether a probe of a link that is up says nothing against it: each rung passed, or never did, as where
    /// something on the way lets no probe through.
    pub(super) fn is_no_news(&self, probed: &Probed) -> bool {
        let is_none = |(rung, verdict): &(Rung, Result<(), String>)| {
            verdict.is_ok() || !self.ladder.has_passed(*rung)
        };
        self.is_up() && probed.rungs.iter().all(is_none)
    }

    /// The producer's own connection is busy with a record: what it is asked would wait behind that, so its
    /// silence means nothing.
    pub(super) fn busy(&mut self, now: Instant) {
        self.idle(now);
        self.against = 0;
    }

    /// How long the cluster has been silent while it was needed.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_sign)
    }

    /// The verdicts of a probe are in. True if the cluster itself is to be asked next: the probe
    /// passed; or it failed and is not to be believed alone, because the link is up, the waits are
    /// at their longest, or the configuration changed. A probe only times the tries.
    pub(super) fn climbed(&mut self, probed: &Probed, now: Instant, random: u64) -> bool {
        let ask_anyway = self.is_changed || self.is_at_maximum();
        for (rung, verdict) in &probed.rungs {
            let verdict = verdict.as_ref().map(|_| ()).map_err(String::as_str);
            self.ladder.record(*rung, verdict, now);
        }
        let mut passed = true;
        for why in probed.rungs.iter().filter_map(|(_, v)| v.as_ref().err()) {
            self.failed(Event::Unreachable, why, now, random);
            passed = false;
        }
        passed || self.is_up() || ask_anyway
    }

    /// The producer got no answer when the cluster was asked.
    pub(super) fn unanswered(&mut self, why: &str, now: Instant, random: u64) {
        self.ladder.record(Rung::Metadata, Err(why), now);
        self.is_silent = true;
        self.is_changed = false;
        self.failed(Event::Unanswered, why, now, random);
    }

    /// One verdict against the link.
    fn failed(&mut self, event: Event, why: &str, now: Instant, random: u64) {
        if self.is_up() {
            self.against = self.against.saturating_add(1);
            self.explain_anew(why);
            if self.against >= VERDICTS_NEEDED && !self.is_up_by_definition(now) {
                self.lost(why, now, random);
            }
            return;
        }
        let is_news = self.is_trying || next(self.settled, event) != self.settled;
        self.happened(event, now);
        if self.settled == Settled::Down {
            self.explain_anew(why);
        }
        if is_news {
            self.schedule(now, random);
        }
    }

    /// Whether verdicts do not count: something was acknowledged just now, and the producer gets
    /// answers as far as is known.
    fn is_up_by_definition(&self, now: Instant) -> bool {
        let is_fresh = |at| now.saturating_duration_since(at) < FRESH;
        self.acknowledged.is_some_and(is_fresh) && !self.is_silent
    }

    /// Whether verdicts stand against a link that is up: it is to be probed again.
    pub(super) fn is_doubted(&self) -> bool {
        self.is_up() && self.against > 0
    }

    /// There is no connection any more, for sure. `random` is evenly spread over all of `u64`.
    pub(super) fn lost(&mut self, why: &str, now: Instant, random: u64) {
        self.forgive_if_stable(now);
        self.happened(Event::Lost, now);
        if self.settled == Settled::Disabled {
            return;
        }
        self.explain_anew(why);
        self.schedule(now, random);
    }

    /// The producer was replaced: whether the new one gets through is not known yet.
    pub(super) fn rebuilt(&mut self, why: &str, now: Instant, random: u64) {
        self.rebuilt = Some(now);
        self.lost(why, now, random);
    }

    /// Why a producer that is not known to be spent should be replaced, if it should.
    pub(super) fn rebuild_due(&self, is_in_flight: bool, now: Instant) -> Option<&'static str> {
        let since = |at| now.saturating_duration_since(at);
        let is_down = self.settled == Settled::Down;
        let passes_since = self.ladder.passes_since().filter(|_| is_down);
        let in_use = self.is_up() && is_in_flight;
        rebuild::rebuild_due(Uselessness {
            unanswered: passes_since.map(|passes_since| since(passes_since.max(self.since))),
            unacknowledged: in_use.then(|| since(self.last_use)),
            rebuilt: self.rebuilt.map(since),
        })
    }

    /// Adds what else is known about why it is down; replaces what was added before.
    pub(super) fn explain(&mut self, more: &str) {
        self.why.truncate(self.reason_len);
        if !self.why.contains(more) {
            // Writing to a string cannot fail.
            let _ = write!(self.why, " ({more})");
        }
    }

    fn explain_anew(&mut self, why: &str) {
        why.clone_into(&mut self.why);
        self.reason_len = why.len();
    }

    fn happened(&mut self, event: Event, now: Instant) {
        let to = next(self.settled, event);
        if to != self.settled {
            self.settled = to;
            self.since = now;
            self.changes += 1;
        }
    }

    fn forgive_if_stable(&mut self, now: Instant) {
        if self.is_up() && now.saturating_duration_since(self.since) >= self.backoff.stable {
            self.losses = 0;
        }
    }

    /// Ends the try and times the next one.
    fn schedule(&mut self, now: Instant, random: u64) {
        self.is_trying = false;
        self.against = 0;
        let longest = self.longest_wait();
        let wait = match self.settled {
            Settled::Blocked(_) => {
                // No try at once: a person has to act first, and accounts are locked by many.
                let longest = longest.max(BLOCKED_WAIT);
                longest / 2 + jittered(longest, random)
            }
            Settled::Disabled | Settled::Unknown | Settled::Down | Settled::Up => {
                jittered(longest, random)
            }
        };
        self.next_try = now + wait;
        self.losses = self.losses.saturating_add(1);
    }

    /// Whether waits have grown to their maximum: then the cluster itself is asked whatever the
    /// probe says.
    fn is_at_maximum(&self) -> bool {
        self.longest_wait() >= self.backoff.max
    }

    fn longest_wait(&self) -> Duration {
        self.backoff.longest_wait(self.losses)
    }

    /// One sentence for a person who wonders why nothing moves.
    pub(super) fn sentence(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        let mut text = match self.settled {
            Settled::Unknown if self.is_trying => {
                return "being tried for the first time".to_owned();
            }
            Settled::Unknown => return "not tried yet".to_owned(),
            Settled::Disabled => format!("disabled for {seconds} s"),
            Settled::Down => format!("down for {seconds} s"),
            Settled::Up => format!("up for {seconds} s"),
            Settled::Blocked(block) => format!("blocked for {seconds} s, {block}"),
        };
        // Writing to a string cannot fail.
        if matches!(self.settled, Settled::Down | Settled::Blocked(_)) {
            let wait = self.next_try.saturating_duration_since(now);
            let _ = match wait.as_secs() {
                _ if self.is_trying => write!(text, ", being tried"),
                0 => write!(text, ", next try at once"),
                seconds => write!(text, ", next try in {seconds} s"),
            };
        }
        if self.is_up() && !self.why.is_empty() {
            text.push_str(", doubted");
        }
        if !self.why.is_empty() {
            let _ = write!(text, ": {}", self.why);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATEST: u64 = u64::MAX;

    fn new() -> (Link, Instant) {
        let now = Instant::now();
        (Link::new(Backoff::default(), now), now)
    }

    fn probed(rungs: &[(Rung, Result<(), &str>)]) -> Probed {
        let own =
            |&(rung, verdict): &(Rung, Result<(), &str>)| (rung, verdict.map_err(str::to_owned));
        Probed {
            rungs: rungs.iter().map(own).collect(),
        }
    }

    fn refused() -> Probed {
        probed(&[(Rung::Tcp, Err("refused"))])
    }

    /// The wait until the next try is due, to the millisecond.
    fn wait(link: &Link, now: Instant) -> u128 {
        let wait = link.next_try.saturating_duration_since(now).as_nanos();
        wait.div_ceil(1_000_000)
    }

    const BLOCKS: [Block; 3] = [Block::Authentication, Block::Authorization, Block::Version];

    fn all_settled() -> Vec<Settled> {
        let mut all = vec![
            Settled::Disabled,
            Settled::Unknown,
            Settled::Down,
            Settled::Up,
        ];
        all.extend(BLOCKS.map(Settled::Blocked));
        all
    }

    #[test]
    fn every_event_in_every_state_leads_where_the_table_says() {
        use Settled::{Disabled, Down, Unknown, Up};
        let auth = Settled::Blocked(Block::Authentication);
        let version = Block::Version;
        let rows = [
            (Event::Disabled, [Disabled; 5]),
            (Event::Enabled, [Unknown, Unknown, Down, Up, auth]),
            (Event::Answered, [Disabled, Up, Up, Up, Up]),
            (Event::Unanswered, [Disabled, Down, Down, Up, auth]),
            (Event::Unreachable, [Disabled, Down, Down, Up, Down]),
            (Event::Lost, [Disabled, Down, Down, Down, Down]),
            (Event::Blocked(version), {
                let blocked = Settled::Blocked(version);
                [Disabled, blocked, blocked, blocked, blocked]
            }),
        ];
        for (event, expected) in rows {
            for (from, to) in [Disabled, Unknown, Down, Up, auth]
                .into_iter()
                .zip(expected)
            {
                assert_eq!(next(from, event), to, "{from:?} {event:?}");
            }
        }
    }

    /// A link in each state, with a try under way and without.
    fn links(now: Instant) -> Vec<Link> {
        let mut links = Vec::new();
        for settled in all_settled() {
            for is_trying in [false, true] {
                let mut link = Link::new(Backoff::default(), now);
                match settled {
                    Settled::Unknown => {}
                    Settled::Disabled => link.disabled("switched off", now),
                    Settled::Down => link.lost("refused", now, LATEST),
                    Settled::Up => link.answered(now),
                    Settled::Blocked(block) => link.blocked(block, "no", now, LATEST),
                }
                if is_trying {
                    link.trying();
                }
                assert_eq!(link.settled, settled);
                links.push(link);
            }
        }
        links
    }

    /// So many things the loop may tell a link.
    const TOLD: usize = 14;

    fn tell(link: &mut Link, what: usize, now: Instant) {
        match what {
            0 => link.trying(),
            1 => link.answered(now),
            2 => link.acknowledged(now),
            3 => link.idle(now),
            4 => drop(link.climbed(&refused(), now, LATEST)),
            5 => drop(link.climbed(&Probed::default(), now, LATEST)),
            6 => link.unanswered("silent", now, LATEST),
            7 => link.lost("reset", now, LATEST),
            8 => link.blocked(Block::Authentication, "no", now, LATEST),
            9 => link.rebuilt("fatal", now, LATEST),
            10 => link.explain("more"),
            11 => link.disabled("switched off", now),
            12 => link.enabled(now),
            13 => link.set_backoff(Profile::Metered.backoff(), now),
            _ => unreachable!("nothing else is told"),
        }
    }

    #[test]
    fn whatever_a_link_is_told_it_stays_one_that_goes_on_by_itself() {
        let now = Instant::now();
        let far = now + 3 * Profile::Metered.backoff().max;
        for (first, second) in (0..TOLD).flat_map(|n| (0..TOLD).map(move |m| (n, m))) {
            for mut link in links(now) {
                let from = link.state();
                tell(&mut link, first, now);
                tell(&mut link, second, now);
                // A try is under way, due some time, or not needed.
                let is_due = link.is_due(far);
                let is_alive = match link.state() {
                    LinkState::Disabled | LinkState::Up => !link.is_trying && !is_due,
                    LinkState::Probing => link.is_trying && !is_due,
                    LinkState::Unknown | LinkState::Down | LinkState::Blocked(_) => is_due,
                };
                assert!(is_alive, "{from:?} {first} {second}: {link:?}");
                assert!(!link.sentence(far).is_empty());
                // Only who disabled it may enable it.
                if from == LinkState::Disabled && first != 12 && second != 12 {
                    assert_eq!(link.state(), LinkState::Disabled);
                }
            }
        }
    }

    #[test]
    fn the_first_try_is_made_at_once_and_waits_double_up_to_the_maximum() {
        let (mut link, now) = new();
        assert!(link.is_due(now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            link.trying();
            link.lost("refused", now, LATEST);
            waits.push(wait(&link, now));
        }
        assert_eq!(waits, [0, 250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert!(link.is_at_maximum());
        assert!(!link.is_due(now));
        assert!(link.is_due(now + Duration::from_secs(5)));
        assert_eq!(link.tries(), 8);
    }

    #[test]
    fn a_link_that_flaps_keeps_its_waits_and_a_stable_one_starts_over() {
        let (mut link, mut now) = new();
        for _ in 0..5 {
            link.lost("refused", now, LATEST);
        }
        assert_eq!(wait(&link, now), 2000);
        link.answered(now);
        now += Duration::from_secs(9);
        link.lost("reset", now, LATEST);
        assert_eq!(wait(&link, now), 4000);
        link.answered(now);
        now += Duration::from_secs(10);
        link.lost("reset", now, LATEST);
        assert_eq!(wait(&link, now), 0);
    }

    #[test]
    fn an_answer_means_up_whatever_a_probe_says() {
        let (mut link, now) = new();
        link.lost("refused", now, LATEST);
        link.trying();
        assert_eq!(link.state(), LinkState::Probing);
        link.answered(now);
        assert!(link.is_up() && link.why().is_empty());
    }

    #[test]
    fn one_verdict_takes_no_link_down_and_two_rungs_do() {
        let (mut link, now) = new();
        link.answered(now);
        assert!(link.climbed(&refused(), now, LATEST), "it asks the cluster");
        assert!(link.is_up() && link.is_doubted());
        link.unanswered("timed out", now, LATEST);
        assert_eq!(link.state(), LinkState::Down);
        assert!(!link.is_doubted());
    }

    #[test]
    fn one_rung_that_fails_twice_takes_a_link_down() {
        let (mut link, now) = new();
        link.answered(now);
        for is_up in [true, false] {
            assert!(link.climbed(&Probed::default(), now, LATEST));
            link.unanswered("timed out", now, LATEST);
            assert_eq!(link.is_up(), is_up);
        }
    }

    #[test]
    fn an_answer_between_two_verdicts_makes_the_second_the_first() {
        let (mut link, now) = new();
        link.answered(now);
        link.climbed(&refused(), now, LATEST);
        link.answered(now);
        link.climbed(&refused(), now, LATEST);
        assert!(link.is_up());
    }

    #[test]
    fn a_link_that_acknowledged_within_half_a_minute_is_up_whatever_probes_say() {
        let both = probed(&[(Rung::Tcp, Ok(())), (Rung::Ping, Err("a captive portal"))]);
        let (mut link, now) = new();
        link.acknowledged(now);
        for seconds in 0..30 {
            link.climbed(&both, now + Duration::from_secs(seconds), LATEST);
            link.blocked(Block::Authorization, "one broker", now, LATEST);
            assert!(link.is_up(), "{seconds}");
        }
        link.climbed(&both, now + Duration::from_secs(30), LATEST);
        assert!(!link.is_up());
        // Unless the producer itself gets no answer.
        link.acknowledged(now);
        link.climbed(&refused(), now, LATEST);
        link.unanswered("timed out", now, LATEST);
        assert!(!link.is_up());
    }

    #[test]
    fn a_failed_probe_only_times_the_tries() {
        let (mut link, now) = new();
        let mut asked = 0;
        for _ in 0..20 {
            link.trying();
            asked += u32::from(link.climbed(&refused(), now, LATEST));
        }
        assert_eq!(asked, 14, "at each maximum, which six losses lead to");

        let (mut link, now) = new();
        link.lost("reset", now, LATEST);
        link.set_backoff(Profile::Metered.backoff(), now);
        assert!(link.is_due(now));
        link.trying();
        assert!(
            link.climbed(&refused(), now, LATEST),
            "the configuration changed"
        );
        link.unanswered("timed out", now, LATEST);
        link.trying();
        assert!(!link.climbed(&refused(), now, LATEST), "it was asked since");
    }

    #[test]
    fn a_blocked_link_is_tried_rarely_and_goes_on_by_itself() {
        let (mut link, start) = new();
        let (mut now, mut tries) = (start, 0);
        link.answered(now);
        link.blocked(Block::Authentication, "SASL: bad password", now, 0);
        while now < start + Duration::from_secs(3600) {
            if link.is_due(now) {
                link.trying();
                assert_eq!(link.state(), LinkState::Probing);
                assert!(link.climbed(&Probed::default(), now, 0));
                link.unanswered("timed out", now, 0);
                assert_eq!(link.state(), LinkState::Blocked(Block::Authentication));
                link.blocked(Block::Authentication, "SASL: bad password", now, 0);
                tries += 1;
            }
            now += Duration::from_secs(1);
        }
        assert!((60..=120).contains(&tries), "{tries}");
        assert_eq!(link.changes(), 2, "up, blocked");
        assert_eq!(
            link.sentence(now),
            "blocked for 3600 s, the cluster does not accept the credentials, next try at once: \
             SASL: bad password"
        );
        link.answered(now);
        assert!(link.is_up());
    }

    #[test]
    fn a_disabled_link_is_not_tried_until_it_is_enabled() {
        let (mut link, now) = new();
        link.disabled("switched off by the configuration", now);
        assert!(!link.is_due(now + Duration::from_secs(3600)));
        assert_eq!(
            link.sentence(now + Duration::from_secs(5)),
            "disabled for 5 s: switched off by the configuration"
        );
        link.enabled(now);
        assert!(link.is_due(now));
        assert_eq!(link.sentence(now), "not tried yet");
    }

    #[test]
    fn how_long_it_is_down_counts_from_the_loss_and_not_from_the_last_try() {
        let (mut link, now) = new();
        link.lost("connection refused", now, LATEST);
        let later = now + Duration::from_secs(42);
        link.trying();
        assert_eq!(
            link.sentence(later),
            "down for 42 s, being tried: connection refused"
        );
        for _ in 0..9 {
            link.lost("no route to host", later, LATEST);
        }
        assert_eq!(
            link.sentence(later),
            "down for 42 s, next try in 4 s: no route to host"
        );
        link.answered(later);
        assert_eq!(link.sentence(later), "up for 0 s");
        link.climbed(&refused(), later, LATEST);
        assert_eq!(link.sentence(later), "up for 0 s, doubted: refused");
    }

    #[test]
    fn an_explanation_replaces_the_one_before() {
        let (mut link, now) = new();
        link.lost("refused", now, LATEST);
        for doubt in ["a reset", "a timeout", "refused"] {
            link.explain(doubt);
        }
        assert_eq!(link.why(), "refused");
        link.explain("a timeout");
        assert_eq!(link.why(), "refused (a timeout)");
    }

    #[test]
    fn silence_counts_only_while_something_is_wanted() {
        let (mut link, now) = new();
        let later = now + Duration::from_secs(30);
        assert_eq!(link.silent_for(later), Duration::from_secs(30));
        link.idle(later);
        assert_eq!(link.silent_for(later), Duration::ZERO);
    }

    #[test]
    fn a_producer_is_of_no_use_if_the_probe_passes_and_no_broker_answers_it() {
        let (mut link, start) = new();
        let mut rebuilds = Vec::new();
        let passes = probed(&[(Rung::Tcp, Ok(())), (Rung::ApiVersions, Ok(()))]);
        for second in 0..7200 {
            let now = start + Duration::from_secs(second);
            // Ten minutes of a real outage first: they do not count.
            let verdicts = if second < 600 { &refused() } else { &passes };
            link.trying();
            link.climbed(verdicts, now, 0);
            link.unanswered("timed out", now, 0);
            if link.rebuild_due(true, now).is_some() {
                link.rebuilt("of no use", now, 0);
                rebuilds.push(second);
            }
        }
        assert_eq!(rebuilds, [900, 2700, 4500, 6300]);
    }

    #[test]
    fn a_producer_is_of_no_use_if_the_link_is_up_and_nothing_is_acknowledged() {
        let (mut link, start) = new();
        let at = |seconds| start + Duration::from_secs(seconds);
        link.acknowledged(start);
        // Metadata answers are no use.
        link.answered(at(299));
        assert_eq!(link.rebuild_due(true, at(299)), None);
        assert_eq!(link.rebuild_due(false, at(300)), None);
        assert!(link.rebuild_due(true, at(300)).is_some());
        link.idle(at(300));
        assert_eq!(link.rebuild_due(true, at(301)), None);
    }

    /// SplitMix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A day without a network, a tick each 20 ms while a try is under way or due, as in the loop.
    fn day_of_outage(backoff: Backoff) -> Link {
        let mut seed = 7;
        let start = Instant::now();
        let mut link = Link::new(backoff, start);
        link.acknowledged(start);
        link.climbed(&refused(), start, 0);
        link.unanswered("timed out", start, 0);
        let mut now = start;
        while now < start + Duration::from_secs(24 * 3600) {
            now = now.max(link.next_try);
            assert!(link.is_due(now));
            link.trying();
            // The name cannot be resolved at times: other reasons, the same state.
            let other = random(&mut seed).is_multiple_of(2);
            let why = if other {
                "no such name"
            } else {
                "network is unreachable"
            };
            now += Duration::from_millis(20);
            if link.climbed(&probed(&[(Rung::Tcp, Err(why))]), now, random(&mut seed)) {
                link.unanswered("all brokers down", now, random(&mut seed));
            }
            link.explain("a doubt");
            assert!(link.why().len() < 64, "{}", link.why());
            assert_eq!(link.rebuild_due(true, now), None);
        }
        link
    }

    #[test]
    fn a_day_of_outage_costs_tries_by_the_backoff_and_one_change_of_state() {
        let link = day_of_outage(Backoff::default());
        assert_eq!(link.changes(), 2, "up, down");
        // One in 2.5 s on average: half of the longest wait.
        assert!((33_000..36_000).contains(&link.tries()), "{}", link.tries());
        let link = day_of_outage(Profile::Metered.backoff());
        assert_eq!(link.changes(), 2, "up, down");
        assert!((70..140).contains(&link.tries()), "{}", link.tries());
    }

    #[test]
    fn a_thousand_links_that_are_lost_at_once_do_not_try_in_step() {
        let (mut seed, start) = (11, Instant::now());
        let mut tries = Vec::new();
        for _ in 0..1000 {
            let mut link = Link::new(Backoff::default(), start);
            link.answered(start);
            link.lost("reset", start, random(&mut seed));
            let mut now = start;
            while now < start + Duration::from_secs(60) {
                now = now.max(link.next_try);
                link.trying();
                link.climbed(&refused(), now, random(&mut seed));
                tries.push(now.saturating_duration_since(start).as_millis());
            }
        }
        // The first try is made at once, by all. After the waits have grown, no 100 ms see more than
        // twice their share of 1000 links with a try in 2.5 s.
        let mut counts = vec![0; 600];
        for at in tries.iter().filter(|at| (10_000..60_000).contains(*at)) {
            counts[usize::try_from(*at / 100).unwrap()] += 1;
        }
        let most = counts.iter().max().unwrap();
        assert!(*most < 80, "{most} tries in 100 ms");
        let least = counts[100..].iter().min().unwrap();
        assert!(*least > 10, "{least} tries in 100 ms");
    }
}
