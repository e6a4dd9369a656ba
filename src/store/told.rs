//! The file `shipping`: what the shipper told last, for whoever looks at the store from outside. That of
//! another cluster than the main one is `shipping@CLUSTER`.
//!
//! Owns its bytes and its way to the disk. Must not know what is told. Invariant: it is never needed.
//! It is not synced, and whatever is wrong with it, there is none.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{MAIN_CLUSTER, Store, StoreView};

const FILE: &str = "shipping";
const FIRST_LINE: &str = "ferrylog shipping 1";
/// A reason is a sentence; what is longer is cut.
const WHY_LEN_MAX: usize = 4096;

/// What the shipper of a store told last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// The process that ships, or did.
    pub pid: u32,
    /// When, by the wall clock: milliseconds since 1970.
    pub at_millis: u64,
    /// Why nothing moves; `None`: nothing held it back.
    pub why: Option<String>,
}

impl Told {
    /// How long ago that was, as far as the wall clock can tell.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_millis(now_millis().saturating_sub(self.at_millis))
    }

    /// Whether its process is still there, as far as this machine can tell.
    #[must_use]
    pub fn is_running(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }

    fn encode(&self) -> String {
        let why = self.why.as_deref().unwrap_or_default();
        format!("{FIRST_LINE}\n{}\n{}\n{why}", self.pid, self.at_millis)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.splitn(4, '\n');
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let pid = lines.next()?.parse().ok()?;
        let at_millis = lines.next()?.parse().ok()?;
        let why = lines.next()?;
        Some(Self {
            pid,
            at_millis,
            why: (!why.is_empty()).then(|| why.to_owned()),
        })
    }
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

impl Store {
    /// Leaves word why nothing moves to a cluster, for [`StoreView::told`]. That it cannot be written is
    /// no error.
    pub fn tell(&self, cluster: &str, why: Option<&str>) {
        let told = Told {
            pid: std::process::id(),
            at_millis: now_millis(),
            why: why.map(|why| why.chars().take(WHY_LEN_MAX).collect()),
        };
        let file = self.dir.join(name(cluster));
        let temporary = file.with_added_extension("tmp");
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600);
        let written = opened
            .open(&temporary)
            .and_then(|mut file| file.write_all(told.encode().as_bytes()))
            .and_then(|()| fs::rename(&temporary, file));
        if written.is_err() {
            // On a full disk; it takes none of it away.
            let _ = fs::remove_file(temporary);
        }
    }
}

impl StoreView {
    /// What the shipper to a cluster told last; `None`: none ever did.
    #[must_use]
    pub fn told(&self, cluster: &str) -> Option<Told> {
        Told::decode(&fs::read_to_string(self.dir.join(name(cluster))).ok()?)
    }
}

fn name(cluster: &str) -> String {
    match cluster {
        MAIN_CLUSTER => FILE.to_owned(),
        _ => format!("{FILE}@{cluster}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_read_back_and_anything_else_is_nothing() {
        for why in [None, Some("the link is down\nfor long".to_owned())] {
            let told = Told {
                pid: 7,
                at_millis: 9,
                why,
            };
            assert_eq!(Told::decode(&told.encode()), Some(told));
        }
        for text in [
            "",
            FIRST_LINE,
            "ferrylog shipping 2\n7\n9\n",
            "ferrylog shipping 1\nx\n9\n",
        ] {
            assert_eq!(Told::decode(text), None, "{text:?}");
        }
    }
}
