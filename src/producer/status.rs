//! What a producer says about itself.
//!
//! Owns: which of several troubles is told first. Must not know how any of them comes about.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Producer;
use super::block::on_a_thread;
use super::shipping::{News, Shared};
use crate::ship::{Counters, Held, LinkState, Progress, lanes_of_none};
use crate::store::{DeadLetterCounts, DeadLetters, MAIN_CLUSTER, Scheduled};
use crate::wal::Totals;

/// Where everything stands, as of a moment ago.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The lanes, `default` first.
    pub lanes: Vec<LaneStatus>,
    /// What became of every record, in all lanes and over restarts.
    pub totals: Totals,
    /// What is due later, and is in no lane yet.
    pub scheduled: Scheduled,
    /// The clusters that records are shipped to.
    pub clusters: Vec<ClusterStatus>,
    /// Why nothing moves, or not everything, a sentence for each cause; none if all is well.
    pub why: Option<String>,
    /// Whether it takes nothing more because it was closed.
    pub is_closed: bool,
}

/// Where shipping to a cluster stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Its name.
    pub name: String,
    /// What its shipper said last, a few times a second: the link, what is held, what was counted;
    /// none before it first did.
    pub progress: Option<Progress>,
    /// The error that shipping ended with, until it has begun again and tried something.
    pub trouble: Option<Trouble>,
}

/// Where a lane stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaneStatus {
    /// Its name.
    pub name: String,
    /// The cluster that its records go to.
    pub cluster: String,
    /// What became of every record of its log; *moved* ones are in parking logs.
    pub totals: Totals,
    /// Why there is no space for it, if there is none.
    pub shortage: Option<String>,
    /// Why its log takes nothing more, if it failed.
    pub failure: Option<String>,
}

/// Shipping ended with an error, and begins again after a pause.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trouble {
    /// The error, with its causes.
    pub error: String,
    /// When.
    pub since: Instant,
    /// How long it pauses.
    pub pause: Duration,
}

/// What was counted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// What became of every record, in all lanes and over restarts.
    pub totals: Totals,
    /// Records that were not appended for lack of space since the producer was opened.
    pub refused: u64,
    /// The dead letters, over restarts; nothing before the shipper first looked at them.
    pub dead_letters: DeadLetterCounts,
    /// How often shipping began again after an error since then.
    pub restarts: u32,
    /// What the shippers counted since each last began.
    pub shipping: Counters,
}

/// What is left of a closed producer's store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Closed {
    /// What became of every record; `queued` and `scheduled` are what is left for the next producer.
    pub totals: Totals,
    /// Why something is left, as far as it was said.
    pub why: Option<String>,
}

impl Closed {
    /// Whether nothing is left, nor anything that is due later.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.totals.queued + self.totals.scheduled == 0
    }
}

/// Why a producer is not healthy, the worst first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Unhealthy {
    /// It was closed.
    Closed,
    /// The log of a lane failed and takes nothing more: close the producer and open another one.
    Failed {
        /// The lane.
        lane: String,
        /// The first failure.
        reason: String,
    },
    /// There is no space for a lane.
    NoSpace {
        /// The lane.
        lane: String,
        /// What is full.
        reason: String,
    },
    /// Shipping ended with an error and begins again after a pause.
    Shipping {
        /// To which cluster.
        cluster: String,
        /// The error, with its causes.
        error: String,
    },
    /// There is no link. Records are taken and kept.
    Offline {
        /// To which cluster.
        cluster: String,
        /// Since when and why.
        why: String,
    },
    /// Some partitions take nothing. Everything else is shipped.
    Held {
        /// Of which cluster.
        cluster: String,
        /// Which ones, each with its reason.
        held: Vec<Held>,
    },
    /// A lane holds records for a cluster that this producer was not given. Give it, and they are
    /// shipped.
    NoCluster {
        /// The lane.
        lane: String,
        /// The cluster that its name says.
        cluster: String,
    },
    /// Something that is due does not get to its lane, and waits. Everything else does.
    Scheduled {
        /// Which and why.
        reason: String,
    },
}

impl Unhealthy {
    /// Whether records are taken all the same: then nothing is lost, it only waits.
    #[must_use]
    pub fn takes_records(&self) -> bool {
        match self {
            Self::Closed | Self::Failed { .. } | Self::NoSpace { .. } => false,
            Self::Shipping { .. }
            | Self::Offline { .. }
            | Self::Held { .. }
            | Self::NoCluster { .. }
            | Self::Scheduled { .. } => true,
        }
    }
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Shipping { cluster, .. }
        | Self::Offline { cluster, .. }
        | Self::Held { cluster, .. } = self
            && cluster != MAIN_CLUSTER
        {
            write!(f, "cluster {cluster}: ")?;
        }
        match self {
            Self::Closed => f.write_str("the producer is closed"),
            Self::Failed { lane, reason } => write!(f, "the log of lane {lane} failed: {reason}"),
            Self::NoSpace { lane, reason } => write!(f, "no space for lane {lane}: {reason}"),
            Self::Shipping { error, .. } => write!(f, "shipping pauses after an error: {error}"),
            Self::Offline { why, .. } => write!(f, "the link is {why}"),
            Self::NoCluster { lane, cluster } => write!(
                f,
                "lane {lane} waits for the cluster `{cluster}`, which nobody gave"
            ),
            Self::Scheduled { reason } => {
                write!(f, "what is due does not get to its lane: {reason}")
            }
            Self::Held { held, .. } => {
                let mut told = held.iter();
                if let Some(first) = told.next() {
                    first.fmt(f)?;
                }
                told.try_for_each(|held| write!(f, "; {held}"))
            }
        }
    }
}

impl Error for Unhealthy {}

/// A task that asks on another thread, which is told when nobody waits for the answer any more.
struct Asking<'a> {
    shared: &'a Arc<Shared>,
    is_asked: Arc<AtomicBool>,
}

impl<'a> Asking<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        let is_asked = Arc::new(AtomicBool::new(true));
        Self { shared, is_asked }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.is_asked.store(false, Ordering::SeqCst);
        self.shared.look_again();
    }
}

/// What stands for the schedule log among the lanes.
const SCHEDULE: &str = "schedule";

/// What of what is due later waits for a clock, where that is worth a word.
fn waits(scheduled: &Scheduled) -> Option<String> {
    match scheduled.need_clock {
        0 => None,
        count => Some(format!(
            "{count} records are due at a time of day, and the clock cannot be trusted yet"
        )),
    }
}

impl Producer {
    /// Where everything stands. Costs a look at each lane.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = self.shared();
        let news = shared.news();
        let mut why: Vec<String> = shared
            .wrong(&news)
            .iter()
            .map(Unhealthy::to_string)
            .collect();
        if why.is_empty() {
            // What is not unhealthy may still be said, of dead letters for one.
            let said = |news: &News| news.progress.as_ref()?.why.clone();
            why = news.iter().filter_map(said).collect();
        }
        let scheduled = shared.store.scheduled();
        why.extend(waits(&scheduled));
        if !shared.takes_records() {
            why.insert(0, Unhealthy::Closed.to_string());
        }
        Status {
            lanes: shared.lanes(),
            totals: shared.store.totals(),
            why: (!why.is_empty()).then(|| why.join("; ")),
            scheduled,
            clusters: news
                .into_iter()
                .filter(|news| news.is_given)
                .map(ClusterStatus::from)
                .collect(),
            is_closed: !shared.takes_records(),
        }
    }

    /// Whether all is well: at once if so, else when it has become so within this time. A cluster is asked for
    /// when there is something to ship: while nothing waits, one that was not tried yet is no trouble.
    ///
    /// # Errors
    ///
    /// [`Unhealthy`]: why not, at the end of it. [`Unhealthy::takes_records`] parts those that stop the
    /// one who sends from those that only delay delivery.
    pub fn health(&self, within: Duration) -> Result<(), Unhealthy> {
        let shared = self.shared();
        let deadline = Instant::now().checked_add(within);
        shared.ask(deadline, |news| shared.health(news))
    }

    /// [`health`](Self::health) for tasks, which waits on a thread of its own. Dropped before it is ready it
    /// asks no longer, and keeps nothing open.
    ///
    /// # Errors
    ///
    /// As [`health`](Self::health).
    pub async fn health_async(&self, within: Duration) -> Result<(), Unhealthy> {
        let now = self.health(Duration::ZERO);
        if now.is_ok() || within.is_zero() {
            return now;
        }
        // No clone, which would keep the producer open for as long as is asked.
        let asking = Asking::new(self.shared());
        let (shared, is_asked) = (Arc::clone(asking.shared), Arc::clone(&asking.is_asked));
        on_a_thread("ferrylog health", move || {
            let deadline = Instant::now().checked_add(within);
            shared.ask(deadline, |news| match is_asked.load(Ordering::SeqCst) {
                true => shared.health(news),
                false => Ok(()),
            })
        })
        .await
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let news = shared.news();
        let refused = shared.store.lanes().iter().map(|lane| lane.refused());
        let mut shipping = Counters::default();
        for told in news.iter().filter_map(|news| news.progress.as_ref()) {
            shipping.add(&told.counters);
        }
        Stats {
            totals: shared.store.totals(),
            refused: refused.sum(),
            dead_letters: shared
                .store
                .dead_letters_opened()
                .map(DeadLetters::counts)
                .unwrap_or_default(),
            restarts: news.iter().map(|news| news.restarts).sum(),
            shipping,
        }
    }
}

impl Shared {
    /// What is left at the end.
    pub(super) fn closed(&self, news: &[News]) -> Closed {
        let totals = self.store.totals();
        let wrong = self.wrong(news).into_iter().next();
        let wrong = wrong.filter(|_| totals.queued > 0);
        Closed {
            totals,
            why: wrong.map(|why| why.to_string()),
        }
    }

    fn lanes(&self) -> Vec<LaneStatus> {
        let lanes = self.store.lanes().iter();
        lanes
            .map(|lane| LaneStatus {
                name: lane.name().into(),
                cluster: lane.cluster().into(),
                totals: lane.totals(),
                shortage: lane.shortage(),
                failure: lane.failure(),
            })
            .collect()
    }

    fn health(&self, news: &[News]) -> Result<(), Unhealthy> {
        if !self.takes_records() {
            return Err(Unhealthy::Closed);
        }
        self.wrong(news).into_iter().next().map_or(Ok(()), Err)
    }

    /// What is wrong beside being closed, the worst first.
    fn wrong(&self, news: &[News]) -> Vec<Unhealthy> {
        let mut wrong = Vec::new();
        for lane in self.store.lanes() {
            let name = lane.name().to_owned();
            if let Some(reason) = lane.failure() {
                wrong.push(Unhealthy::Failed { lane: name, reason });
            } else if let Some(reason) = lane.shortage() {
                wrong.push(Unhealthy::NoSpace { lane: name, reason });
            }
        }
        if let Some(reason) = self.store.schedule_failure() {
            let lane = SCHEDULE.to_owned();
            wrong.push(Unhealthy::Failed { lane, reason });
        }
        wrong.extend(news.iter().filter_map(News::wrong));
        for lane in lanes_of_none(&self.store, &self.shipping().clusters) {
            wrong.push(Unhealthy::NoCluster {
                lane: lane.name().into(),
                cluster: lane.cluster().into(),
            });
        }
        if let Some(reason) = self.store.scheduled().why {
            wrong.push(Unhealthy::Scheduled { reason });
        }
        wrong.sort_by_key(|wrong| match wrong {
            Unhealthy::Closed | Unhealthy::Failed { .. } => 0,
            Unhealthy::NoSpace { .. } => 1,
            Unhealthy::Shipping { .. } => 2,
            Unhealthy::Offline { .. } => 3,
            Unhealthy::Held { .. } => 4,
            Unhealthy::NoCluster { .. } => 5,
            Unhealthy::Scheduled { .. } => 6,
        });
        wrong
    }
}

impl From<News> for ClusterStatus {
    fn from(news: News) -> Self {
        Self {
            name: news.cluster,
            progress: news.progress,
            trouble: news.trouble,
        }
    }
}

impl News {
    pub(super) fn wrong(&self) -> Option<Unhealthy> {
        if !self.is_given {
            return None;
        }
        let cluster = self.cluster.clone();
        let nothing_yet = self.progress.is_none() && self.trouble.is_none();
        if self.is_stale || nothing_yet {
            let why = "not tried yet".to_owned();
            return Some(Unhealthy::Offline { cluster, why });
        }
        let of_lane = self.progress.as_ref().and_then(|p| p.trouble.as_ref());
        let of_all = self.trouble.as_ref().map(|trouble| &trouble.error);
        if let Some(error) = of_all.or(of_lane).cloned() {
            return Some(Unhealthy::Shipping { cluster, error });
        }
        let progress = self.progress.as_ref()?;
        let is_online = match progress.link_state {
            LinkState::Up => true,
            // It is tried when there is something to ship.
            LinkState::Unknown => progress.queued == 0 || progress.rests.is_some(),
            LinkState::Disabled | LinkState::Down | LinkState::Probing | LinkState::Blocked(_) => {
                false
            }
        };
        if !is_online {
            let why = progress.link.clone();
            return Some(Unhealthy::Offline { cluster, why });
        }
        let held = progress.held.clone();
        (!held.is_empty()).then_some(Unhealthy::Held { cluster, held })
    }
}
