//! `ferrylog status`: what a store holds, promises and has settled.
//!
//! It only looks, so it works while another process appends, and after that process has died.

use std::path::Path;

use serde::Serialize;

use super::{
    Global,
    failure::{self, Ended, Exit},
    output,
};
use crate::{
    store::{
        ClockOptions, DeadLetterView, LaneView, MAIN_CLUSTER, Now, Scheduled, StoreView, Told,
    },
    wal::Totals,
};

/// What an acknowledgement of this store is worth; `docs/durability.md` and delivery say it in full.
const PROMISE: &str = "what was accepted leaves this store only when Kafka has it (acks=all): at least once, in order per partition";

/// Show what the store holds, what became of every record, and whether the sum is right
///
/// Works on a store that another process has open, and on one whose process has died. Exit code 1
/// if the conservation line does not balance or the store is damaged.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(global: &Global, Arguments {}: &Arguments) -> Result<Exit, Ended> {
    let store = StoreView::open_with(&global.data, global.keys())
        .map_err(|error| failure::of_store(&error, &global.data))?;
    let store_failure = |error| failure::of_store(&error, &global.data);
    let lanes: Vec<Lane> = store.lanes().iter().map(Lane::of).collect();
    let parked = store.parking_logs().map_err(store_failure)?;
    let parked: Vec<Lane> = parked.iter().map(Lane::of).collect();
    let well = |lane: &Lane| lane.records.balances && lane.damage.is_none();
    let now = ClockOptions::default().now();
    let letters = store.dead_letters().map_err(store_failure)?;
    let letters = letters.as_ref().map(DeadLetters::of);
    let letters_well = letters.as_ref().is_none_or(|letters| letters.balances);
    let scheduled = store.scheduled(&now).map_err(store_failure)?;
    let all_well = letters_well && lanes.iter().chain(&parked).all(well);
    let clusters = clusters(global, &store, &lanes, &parked);
    let shipping = store.told(MAIN_CLUSTER);
    if global.json {
        output::json(&Status {
            data: &global.data,
            promise: PROMISE,
            clock: Clock {
                trusted: now.is_trusted,
                verdict: now.verdict(),
            },
            shipping: shipping.as_ref().map(Shipping::of),
            clusters,
            lanes,
            parked,
            dead_letters: letters,
            schedule: scheduled.as_ref().map(Schedule::of),
        })?;
    } else {
        let mut out = output::stdout();
        let mut rows = vec![
            ("store", global.data.display().to_string()),
            ("promise", PROMISE.into()),
            ("clock", now.verdict().into()),
        ];
        rows.extend(shipping.map(|told| ("shipping", line(&told))));
        rows.extend(clusters.iter().flat_map(Cluster::rows));
        for lane in &lanes {
            rows.extend(lane.rows());
        }
        for log in &parked {
            rows.extend(log.parked_rows());
        }
        rows.extend(
            letters
                .iter()
                .map(|letters| ("dead letters", letters.line())),
        );
        let scheduled = scheduled.as_ref().map(Schedule::of);
        rows.extend(scheduled.map(|waiting| ("scheduled", waiting.line(&now))));
        output::table(&mut out, &rows)?;
    }
    Ok(if all_well { Exit::Done } else { Exit::Wrong })
}

#[derive(Serialize)]
struct Status<'a> {
    data: &'a Path,
    promise: &'static str,
    clock: Clock,
    /// Null: nothing was ever shipped from here.
    shipping: Option<Shipping>,
    clusters: Vec<Cluster>,
    lanes: Vec<Lane>,
    /// The parking logs, named LANE/TOPIC/PARTITION: what waits for a partition that takes nothing.
    parked: Vec<Lane>,
    /// Null: there never was one.
    dead_letters: Option<DeadLetters>,
    /// What waits until it is due; no lane has it yet. Null: nothing ever did.
    schedule: Option<Schedule>,
}

/// What waits until it is due.
#[derive(Serialize)]
struct Schedule {
    waiting: u64,
    /// Null: nothing waits. By this machine's clock as it is now.
    next_millis: Option<i64>,
    /// How many wait for a clock that can be trusted, too.
    need_clock: u64,
    lost: u64,
    bytes: u64,
}

impl Schedule {
    fn of(scheduled: &Scheduled) -> Self {
        Self {
            waiting: scheduled.waiting,
            next_millis: scheduled.next_millis,
            need_clock: scheduled.need_clock,
            lost: scheduled.lost,
            bytes: scheduled.bytes,
        }
    }

    fn line(&self, now: &Now) -> String {
        let mut line = format!("{} until due", output::count(self.waiting, "record"));
        if let Some(next) = self.next_millis {
            let left = next.saturating_sub(now.reading.wall_millis).max(0) / 1_000;
            line.push_str(&format!(", the next in {left} s"));
        }
        if self.need_clock > 0 {
            let count = output::number(self.need_clock);
            line.push_str(&format!("; {count} not before the clock can be trusted"));
        }
        if self.lost > 0 {
            let count = output::number(self.lost);
            line.push_str(&format!("; {count} may be lost, their bytes are damaged"));
        }
        line
    }
}

/// Whether this machine's wall clock can be believed now.
#[derive(Serialize)]
struct Clock {
    trusted: bool,
    verdict: &'static str,
}

/// A cluster that lanes belong to.
#[derive(Serialize)]
struct Cluster {
    name: String,
    /// Whether the configuration says where it is.
    configured: bool,
    queued: u64,
    /// What its shipper told last; null: none ever did.
    shipping: Option<Shipping>,
    #[serde(skip)]
    line: Option<String>,
}

/// The clusters that lanes belong to, the main one too.
fn clusters(global: &Global, store: &StoreView, lanes: &[Lane], parked: &[Lane]) -> Vec<Cluster> {
    let known = global.loaded.config.clusters().unwrap_or_default();
    let mut names: Vec<&str> = lanes.iter().map(|lane| lane.cluster.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: &str| {
        let told = store.told(name);
        let logs = lanes.iter().chain(parked);
        let queued = logs.filter(|log| log.cluster == name);
        Cluster {
            name: name.into(),
            // The main one may be named on a command line.
            configured: name == MAIN_CLUSTER || known.contains_key(name),
            queued: queued.map(|log| log.records.queued).sum(),
            shipping: told.as_ref().map(Shipping::of),
            line: told.map(|told| line(&told)),
        }
    };
    names.into_iter().map(of).collect()
}

impl Cluster {
    /// What is to be said of it beside the main one's.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        let name = &self.name;
        let told = self.line.as_ref().filter(|_| name != MAIN_CLUSTER);
        rows.extend(told.map(|line| ("shipping", format!("to {name}: {line}"))));
        if !self.configured && self.queued > 0 {
            let queued = output::count(self.queued, "record");
            rows.push((
                "held",
                format!("{queued} for the cluster `{name}`, which is not configured: say where it is in [clusters.{name}]"),
            ));
        }
        rows
    }
}

/// What the shipper told last.
#[derive(Serialize)]
struct Shipping {
    pid: u32,
    running: bool,
    at_millis: u64,
    /// Why nothing moves; null: nothing holds it back.
    why: Option<String>,
}

impl Shipping {
    fn of(told: &Told) -> Self {
        Self {
            pid: told.pid,
            running: told.is_running(),
            at_millis: told.at_millis,
            why: told.why.clone(),
        }
    }
}

fn line(told: &Told) -> String {
    let who = if told.is_running() {
        format!("process {}", told.pid)
    } else {
        "ended".to_owned()
    };
    let why = told.why.as_deref().unwrap_or("nothing held it back");
    format!("{who}, {} s ago: {why}", told.age().as_secs())
}

#[derive(Serialize)]
struct Lane {
    name: String,
    /// Where its records go.
    cluster: String,
    log_id: String,
    marks: Marks,
    records: Records,
    segments: u64,
    bytes: u64,
    /// Why the log would not open for appending, if it would not.
    damage: Option<String>,
}

#[derive(Serialize)]
struct Marks {
    first: u64,
    acked: u64,
    durable: u64,
    next: u64,
}

impl Lane {
    fn of(lane: &LaneView) -> Self {
        let (marks, segments) = (lane.marks(), lane.segments());
        Self {
            name: lane.name().into(),
            cluster: lane.cluster(),
            log_id: lane.log_id().to_string(),
            marks: Marks {
                first: marks.first.get(),
                acked: marks.acked.get(),
                durable: marks.durable.get(),
                next: marks.next.get(),
            },
            records: Records::of(&lane.totals()),
            segments: segments.len() as u64,
            bytes: segments.iter().map(|segment| segment.file_bytes).sum(),
            damage: lane.damage().map(|error| failure::chain(error)),
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let waiting = match self.records.queued {
            0 => "no record waits for Kafka".into(),
            _ => format!(
                "{} for Kafka; `ferrylog drain` ships them",
                self.records.waiting()
            ),
        };
        let mut rows = vec![
            ("lane", format!("{}, log {}", self.name, self.log_id)),
            (
                "marks",
                format!(
                    "first {} <= acked {} <= durable {} <= next {}",
                    self.marks.first, self.marks.acked, self.marks.durable, self.marks.next
                ),
            ),
            ("records", self.records.line()),
            ("queue", waiting),
            (
                "disk",
                format!(
                    "{}, {}",
                    output::count(self.segments, "segment"),
                    output::bytes(self.bytes)
                ),
            ),
        ];
        rows.extend(self.damage_row());
        rows
    }

    /// Those of a parking log.
    fn parked_rows(&self) -> Vec<(&'static str, String)> {
        let line = format!("{}: {}", self.name, self.records.line());
        let mut rows = vec![("parked", line)];
        rows.extend(self.damage_row());
        rows
    }

    fn damage_row(&self) -> Option<(&'static str, String)> {
        let damage = self.damage.as_ref()?;
        Some(("damage", output::bad(damage)))
    }
}

/// What Kafka refused for good.
#[derive(Serialize)]
struct DeadLetters {
    log_id: String,
    kept: u64,
    pending: u64,
    replayed: u64,
    dropped: u64,
    expired: u64,
    copied: u64,
    copy_refused: u64,
    /// By this version: a newer one wrote them.
    unreadable: u64,
    lost: u64,
    bytes: u64,
    balances: bool,
}

impl DeadLetters {
    fn of(letters: &DeadLetterView) -> Self {
        let (counts, totals) = (letters.counts(), letters.totals());
        Self {
            log_id: letters.log_id().to_string(),
            kept: counts.kept,
            pending: counts.pending,
            replayed: counts.replayed,
            dropped: counts.dropped,
            expired: counts.expired,
            copied: counts.copied,
            copy_refused: counts.copy_refused,
            unreadable: counts.unreadable,
            lost: totals.lost,
            bytes: counts.bytes,
            balances: totals.balances(),
        }
    }

    fn line(&self) -> String {
        let classes = [
            ("kept", self.kept),
            ("pending", self.pending),
            ("replayed", self.replayed),
            ("dropped", self.dropped),
            ("expired", self.expired),
            ("lost", self.lost),
            ("unreadable", self.unreadable),
            ("copied", self.copied),
            ("copies refused", self.copy_refused),
        ];
        let told: Vec<String> = classes
            .into_iter()
            .filter(|&(class, count)| count > 0 || class == "kept")
            .map(|(class, count)| format!("{} {class}", output::number(count)))
            .collect();
        let told = told.join(", ");
        match self.kept {
            0 => told,
            _ => format!("{told}; `ferrylog dead-letters list` shows them"),
        }
    }
}

/// What became of every record: `accepted` is the sum of all others.
#[derive(Serialize)]
pub(super) struct Records {
    accepted: u64,
    shipped: u64,
    dead_lettered: u64,
    expired: u64,
    dropped: u64,
    moved: u64,
    lost: u64,
    unknown: u64,
    pub(super) queued: u64,
    /// Waits until it is due, in no lane yet; of one lane always 0.
    pub(super) scheduled: u64,
    pub(super) balances: bool,
}

impl Records {
    pub(super) fn of(totals: &Totals) -> Self {
        Self {
            accepted: totals.accepted,
            shipped: totals.shipped,
            dead_lettered: totals.dead_lettered,
            expired: totals.expired,
            dropped: totals.dropped,
            moved: totals.moved,
            lost: totals.lost,
            unknown: totals.unknown,
            queued: totals.queued,
            scheduled: totals.scheduled,
            balances: totals.balances(),
        }
    }

    /// How many wait for Kafka, in words.
    pub(super) fn waiting(&self) -> String {
        let verb = if self.queued == 1 { "waits" } else { "wait" };
        format!("{} {verb}", output::count(self.queued, "record"))
    }

    /// The conservation line. Classes without a record are left out, but for the two that every
    /// reader looks for.
    pub(super) fn line(&self) -> String {
        let classes = [
            ("shipped", self.shipped),
            ("dead-lettered", self.dead_lettered),
            ("expired", self.expired),
            ("dropped", self.dropped),
            ("moved", self.moved),
            ("lost", self.lost),
            ("unknown", self.unknown),
            ("queued", self.queued),
            ("scheduled", self.scheduled),
        ];
        let sum: Vec<String> = classes
            .into_iter()
            .filter(|&(class, count)| count > 0 || class == "shipped" || class == "queued")
            .map(|(class, count)| format!("{} {class}", output::number(count)))
            .collect();
        let verdict = if self.balances {
            output::good("balances")
        } else {
            output::bad("DOES NOT BALANCE")
        };
        format!(
            "{} accepted = {}: {verdict}",
            output::number(self.accepted),
            sum.join(" + ")
        )
    }
}
