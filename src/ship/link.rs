//! What is known about the way to the cluster, since when and why; and when to try again.
//!
//! Pure; time and randomness are passed in. Must not know how a try is made. Invariants: an
//! acknowledgement means up, whatever any probe says; the wait between tries only starts over
//! after the link was up for [`Backoff::stable`].

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// When to try again after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the second try; the first is made at once.
    pub initial: Duration,
    /// The longest wait at all. A try costs one SYN; longer waits only deliver later.
    pub max: Duration,
    /// The link must stay up this long for the waits to start over.
    pub stable: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            initial: Duration::from_millis(250),
            max: Duration::from_secs(5),
            stable: Duration::from_secs(10),
        }
    }
}

/// The state of the way to one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Not tried yet.
    Unknown,
    /// The last try failed.
    Down,
    /// A try is under way.
    Probing,
    /// The cluster answers.
    Up,
}

/// The way to one cluster.
#[derive(Debug)]
pub(super) struct Link {
    state: LinkState,
    since: Instant,
    why: String,
    backoff: Backoff,
    /// Losses in a row without a stable time between them.
    losses: u32,
    next_try: Instant,
    /// When the cluster last answered, or there was last nothing to ask it for.
    last_sign: Instant,
}

impl Link {
    pub(super) fn new(backoff: Backoff, now: Instant) -> Link {
        Link {
            state: LinkState::Unknown,
            since: now,
            why: "not tried yet".to_owned(),
            backoff,
            losses: 0,
            next_try: now,
            last_sign: now,
        }
    }

    pub(super) fn state(&self) -> LinkState {
        self.state
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }

    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// Whether a try should be started now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.state {
            LinkState::Unknown | LinkState::Down => now >= self.next_try,
            LinkState::Probing | LinkState::Up => false,
        }
    }

    /// A try was started. Since when and why it was down stays.
    pub(super) fn trying(&mut self) {
        self.state = LinkState::Probing;
    }

    /// The cluster answered.
    pub(super) fn answered(&mut self, now: Instant) {
        if self.state != LinkState::Up {
            self.state = LinkState::Up;
            self.since = now;
            self.why.clear();
        }
        self.last_sign = now;
    }

    /// There is nothing to ask the cluster for, so its silence means nothing.
    pub(super) fn idle(&mut self, now: Instant) {
        self.last_sign = now;
    }

    /// How long the cluster has been silent while it was needed.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_sign)
    }

    /// A try failed, or the connection was lost. `random` is evenly spread over all of `u64`.
    pub(super) fn lost(&mut self, why: &str, now: Instant, random: u64) {
        if self.is_up() && now.saturating_duration_since(self.since) >= self.backoff.stable {
            self.losses = 0;
        }
        if matches!(self.state, LinkState::Up | LinkState::Unknown) {
            self.since = now;
        }
        self.state = LinkState::Down;
        why.clone_into(&mut self.why);
        self.next_try = now + jittered(self.longest_wait(), random);
        self.losses = self.losses.saturating_add(1);
    }

    /// Adds what else is known about why it is down.
    pub(super) fn explain(&mut self, more: &str) {
        if !self.why.contains(more) {
            self.why = format!("{} ({more})", self.why);
        }
    }

    /// Whether waits have grown to their maximum: then the cluster itself is asked whatever the
    /// probe says, because a probe only times the tries.
    pub(super) fn is_at_maximum(&self) -> bool {
        self.longest_wait() >= self.backoff.max
    }

    fn longest_wait(&self) -> Duration {
        match self.losses.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 2u32.saturating_pow(doublings);
                self.backoff
                    .initial
                    .saturating_mul(factor)
                    .min(self.backoff.max)
            }
        }
    }

    /// One sentence for a person who wonders why nothing moves.
    pub(super) fn sentence(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        let mut text = match self.state {
            LinkState::Unknown => "not tried yet".to_owned(),
            LinkState::Down => format!("down for {seconds} s"),
            LinkState::Probing => format!("trying, down for {seconds} s"),
            LinkState::Up => format!("up for {seconds} s"),
        };
        if self.state != LinkState::Unknown && !self.why.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {}", self.why);
        }
        text
    }
}

/// A wait between nothing and `longest`, so that a fleet does not try in step.
pub(super) fn jittered(longest: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    // The high half of the product is `random` scaled to `nanos`, below it.
    let scaled = (u128::from(nanos) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATEST: u64 = u64::MAX;

    fn new() -> (Link, Instant) {
        let now = Instant::now();
        (Link::new(Backoff::default(), now), now)
    }

    /// The wait until the next try is due, to the millisecond.
    fn wait(link: &Link, now: Instant) -> u128 {
        let wait = link.next_try.saturating_duration_since(now).as_nanos();
        wait.div_ceil(1_000_000)
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
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let longest = Duration::from_secs(4);
        assert_eq!(jittered(longest, 0), Duration::ZERO);
        assert_eq!(jittered(longest, u64::MAX / 2 + 1), Duration::from_secs(2));
        assert!(jittered(longest, u64::MAX) <= longest);
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
    fn how_long_it_is_down_counts_from_the_loss_and_not_from_the_last_try() {
        let (mut link, now) = new();
        link.lost("connection refused", now, LATEST);
        let later = now + Duration::from_secs(42);
        link.trying();
        link.lost("no route to host", later, LATEST);
        assert_eq!(link.sentence(later), "down for 42 s: no route to host");
        link.answered(later);
        assert_eq!(link.sentence(later), "up for 0 s");
    }

    #[test]
    fn silence_counts_only_while_something_is_wanted() {
        let (mut link, now) = new();
        let later = now + Duration::from_secs(30);
        assert_eq!(link.silent_for(later), Duration::from_secs(30));
        link.idle(later);
        assert_eq!(link.silent_for(later), Duration::ZERO);
    }
}
