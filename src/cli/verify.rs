//! `ferrylog verify`: checks every byte and names what is wrong with it.
//!
//! It only looks, and judges nothing above the last promise: a torn tail is what a crash leaves
//! behind, not damage.

use serde::Serialize;

use super::{
    Global,
    failure::{self, Ended, Exit},
    output::{self, Progress},
};
use crate::{
    store::{LaneView, StoreView},
    wal,
};

/// Check every byte of every segment; changes nothing
///
/// Names each torn or corrupt region by file, position and record numbers. A torn end is what a
/// crash leaves behind; only corrupt regions make the exit code 1.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(global: &Global, Arguments {}: &Arguments) -> Result<Exit, Ended> {
    let store_failure = |error| failure::of_store(&error, &global.data);
    let store = StoreView::open_with(&global.data, global.keys()).map_err(store_failure)?;
    let mut lanes = Vec::new();
    let parked = store.parking_logs().map_err(store_failure)?;
    let dead_letters = store.dead_letter_log().map_err(store_failure)?;
    let schedule = store.schedule_log().map_err(store_failure)?;
    let beside = parked.iter().chain(&dead_letters).chain(&schedule);
    for lane in store.lanes().iter().chain(beside) {
        let mut progress = Progress::new("verifying");
        let verified = lane
            .verify(&mut |done, total| progress.bytes(done, Some(total)))
            .map_err(store_failure)?;
        lanes.push(Lane::of(lane, &verified));
    }
    let sound = lanes.iter().all(|lane| lane.sound);
    let schedule = schedule.and_then(|_| lanes.pop());
    let dead_letters = dead_letters.and_then(|_| lanes.pop());
    let parked = lanes.split_off(store.lanes().len());
    if global.json {
        output::json(&Verified {
            sound,
            lanes,
            parked,
            dead_letters,
            schedule,
        })?;
    } else {
        let mut out = output::stdout();
        for lane in &lanes {
            lane.tell(&mut out, "lane ")?;
        }
        for log in &parked {
            log.tell(&mut out, "parked ")?;
        }
        for log in dead_letters.iter().chain(&schedule) {
            log.tell(&mut out, "")?;
        }
    }
    Ok(if sound { Exit::Done } else { Exit::Wrong })
}

#[derive(Serialize)]
struct Verified {
    sound: bool,
    lanes: Vec<Lane>,
    /// The parking logs, by lane, topic and partition.
    parked: Vec<Lane>,
    dead_letters: Option<Lane>,
    /// What is due later.
    schedule: Option<Lane>,
}

#[derive(Serialize)]
struct Lane {
    name: String,
    sound: bool,
    segments: u64,
    frames: u64,
    records: u64,
    bytes: u64,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    kind: &'static str,
    file: String,
    position: u64,
    length: u64,
    /// First record number of the region, where it is known.
    first_seq: Option<u64>,
    /// The number behind its last record.
    end_seq: Option<u64>,
    reason: String,
}

impl Lane {
    fn of(lane: &LaneView, verified: &wal::Verified) -> Self {
        Self {
            name: lane.name().into(),
            sound: verified.is_clean(),
            segments: verified.segments,
            frames: verified.frames,
            records: verified.records,
            bytes: verified.bytes,
            findings: verified.findings.iter().map(Finding::of).collect(),
        }
    }

    fn tell(&self, out: &mut impl std::io::Write, kind: &str) -> std::io::Result<()> {
        let verdict = if self.sound {
            output::good("sound")
        } else {
            output::bad("CORRUPT")
        };
        writeln!(
            out,
            "{kind}{}: {verdict}, {} in {} and {}, {} checked",
            self.name,
            output::count(self.records, "record"),
            output::count(self.frames, "frame"),
            output::count(self.segments, "segment"),
            output::bytes(self.bytes),
        )?;
        for finding in &self.findings {
            let seqs = match (finding.first_seq, finding.end_seq) {
                (Some(first), Some(end)) if first < end => {
                    format!(", SeqNo {first} to {}", end - 1)
                }
                _ => String::new(),
            };
            writeln!(
                out,
                "  {:8}  {} at position {}, {}{seqs}: {}",
                finding.kind,
                finding.file,
                finding.position,
                output::bytes(finding.length),
                finding.reason,
            )?;
        }
        Ok(())
    }
}

impl Finding {
    fn of(finding: &wal::Finding) -> Self {
        Self {
            kind: match finding.kind {
                wal::FindingKind::Torn => "torn",
                wal::FindingKind::Corrupt => "corrupt",
                wal::FindingKind::Unreadable => "unreadable",
                wal::FindingKind::Lost => "lost",
            },
            file: finding.path.display().to_string(),
            position: finding.position,
            length: finding.len,
            first_seq: finding.seqs.as_ref().map(|seqs| seqs.start.get()),
            end_seq: finding.seqs.as_ref().map(|seqs| seqs.end.get()),
            reason: finding.reason.clone(),
        }
    }
}
