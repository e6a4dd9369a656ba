//! Medians of many rounds, and the rows of `docs/benchmarks.md`.
//!
//! Owns: how a figure is told. Must not know: how it came about.

use std::fmt::Display;
use std::time::Duration;

/// What was measured in all rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The value that this part of all values is below.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * part).round() as usize]
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Median, and the quartiles around it: half of all rounds lie between them.
    pub(crate) fn told(&self, digits: usize) -> String {
        let [low, median, high] = [0.25, 0.5, 0.75].map(|part| self.quantile(part));
        format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
    }
}

/// What is measured and its limit, taking turns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) figures: Series,
    pub(crate) limits: Series,
    pub(crate) ratios: Series,
}

impl Pairs {
    /// One round of both.
    pub(crate) fn push(&mut self, figure: f64, limit: f64) {
        self.figures.push(figure);
        self.limits.push(limit);
        self.ratios.push(figure / limit);
    }

    /// One row: figures with so many digits, and the ratio of each round to its own limit.
    pub(crate) fn row(&self, what: &str, unit: &str, digits: usize, goal: Goal) {
        let figure = format!("{} {unit}", self.figures.told(digits));
        let limit = format!("{} {unit}", self.limits.told(digits));
        let met = goal.is_met_by(self.ratios.median());
        row(what, figure, limit, self.ratios.told(2), goal.told(), met);
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// It is stated, and judged elsewhere.
    None,
}

impl Goal {
    pub(crate) fn is_met_by(self, value: f64) -> &'static str {
        let met = match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
            Self::None => return "-",
        };
        if met { "yes" } else { "**no**" }
    }

    pub(crate) fn told(self) -> String {
        match self {
            Self::AtLeast(goal) => format!("at least {goal}"),
            Self::AtMost(goal) => format!("at most {goal}"),
            Self::None => "-".into(),
        }
    }
}

/// The head of a table, with what else the machine had to do.
pub(crate) fn head() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    println!("Load when this began: {load}. Medians of all rounds; in brackets their quartiles.\n");
    row("what", "measured", "limit", "ratio", "goal", "met");
    println!("|---|---|---|---|---|---|");
}

pub(crate) fn row(
    what: impl Display,
    figure: impl Display,
    limit: impl Display,
    ratio: impl Display,
    goal: impl Display,
    met: impl Display,
) {
    println!("| {what} | {figure} | {limit} | {ratio} | {goal} | {met} |");
}

/// A figure without a limit of its own.
pub(crate) fn figure(what: &str, value: f64, told: impl Display, goal: Goal) {
    row(what, told, "-", "-", goal.told(), goal.is_met_by(value));
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Millions a second.
pub(crate) fn millions(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64() / 1e6
}
