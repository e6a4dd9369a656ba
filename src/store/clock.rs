//! What time it is, whether that can be believed, and how old a record is.
//!
//! Owns the clocks of the machine behind a seam, the verdict on the wall clock, and what follows from it
//! for ages and deadlines. A gateway may boot in 1970, and be told the time hours later.
//!
//! It must not know logs, nor what becomes of a record that expired.
//!
//! Invariants: a wall clock that is not trusted makes nothing expire. Within a boot an age never
//! depends on the wall clock of a record that was appended under one. Once trusted, the offset
//! between a boot's uptime and the wall clock is kept, so that its records have a right time for ever.

use std::{
    fmt::Debug,
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::boots::Boots;
use crate::message::{Expires, Uptime};

/// 2026-01-01: nobody had a ferrylog before. A wall clock that is earlier is not set.
const NOT_BEFORE_MILLIS: i64 = 1_767_225_600_000;
/// How long a negative answer about synchronisation holds: it costs a system call.
const GLANCE_MILLIS: u64 = 1_000;
/// Made by systemd-timesyncd when it has set the clock; gone with the next boot.
const SYNCHRONISED_FILE: &str = "/run/systemd/timesync/synchronized";

/// The clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Wall clock: milliseconds since 1970, as the machine believes it.
    pub wall_millis: i64,
    /// Milliseconds since the machine booted, time asleep included.
    pub uptime_millis: u64,
}

impl Reading {
    const fn is_set(&self) -> bool {
        self.wall_millis >= NOT_BEFORE_MILLIS
    }
}

/// The clocks of a machine; tests put their own behind it.
pub trait TimeSource: Send + Sync + Debug {
    /// A random number that stays the same from boot to boot only.
    fn boot(&self) -> u64;
    /// Both clocks, now.
    fn read(&self) -> Reading;
    /// Whether the wall clock was set from a source of time since the boot.
    fn is_synchronised(&self) -> bool;
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemTime {
    boot: u64,
    synchronised_files: Vec<PathBuf>,
}

impl SystemTime {
    /// The clock counts as synchronised once systemd-timesyncd says so, or one of these files is
    /// there: for other services that set the clock. They must not outlive a boot.
    #[must_use]
    pub fn new(mut synchronised_files: Vec<PathBuf>) -> Self {
        synchronised_files.push(SYNCHRONISED_FILE.into());
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            boot: boot
                .ok()
                .and_then(|text| boot_number(&text))
                // Then each start of this process counts as a boot of its own: ages are not known
                // beyond it, which expires nothing.
                .unwrap_or_else(|| RandomState::new().build_hasher().finish()),
            synchronised_files,
        }
    }
}

/// 64 bits of the kernel's UUID: both halves, because neither is all random.
fn boot_number(uuid: &str) -> Option<u64> {
    let digits: String = uuid.trim().chars().filter(|c| *c != '-').collect();
    let uuid = u128::from_str_radix(&digits, 16).ok()?;
    let [high, low] = [uuid >> 64, uuid & u128::from(u64::MAX)].map(u64::try_from);
    Some(high.ok()? ^ low.ok()?)
}

impl TimeSource for SystemTime {
    fn boot(&self) -> u64 {
        self.boot
    }

    fn read(&self) -> Reading {
        #[cfg(target_os = "linux")]
        let up = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let up = rustix::time::ClockId::Monotonic;
        let millis = |clock| {
            let now = rustix::time::clock_gettime(clock);
            now.tv_sec
                .saturating_mul(1_000)
                .saturating_add(now.tv_nsec / 1_000_000)
        };
        Reading {
            wall_millis: millis(rustix::time::ClockId::Realtime),
            uptime_millis: millis(up).max(0).unsigned_abs(),
        }
    }

    fn is_synchronised(&self) -> bool {
        self.synchronised_files.iter().any(|file| file.exists())
    }
}

/// When a wall clock is believed. Neither believes one that stands before 2026.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Trust {
    /// Once it was synchronised since the boot.
    #[default]
    Synchronised,
    /// Always: for machines with a good battery-backed clock.
    Plausible,
}

/// How a store tells the time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClockOptions {
    /// When the wall clock is believed. Default: [`Trust::Synchronised`].
    pub trust: Trust,
    /// The clocks. Default: the machine's, [`SystemTime`].
    pub source: Arc<dyn TimeSource>,
}

impl Default for ClockOptions {
    fn default() -> Self {
        Self {
            trust: Trust::default(),
            source: Arc::new(SystemTime::new(Vec::new())),
        }
    }
}

impl ClockOptions {
    /// What time it is, and whether that can be believed.
    #[must_use]
    pub fn now(&self) -> Now {
        self.judge(|_| self.source.is_synchronised())
    }

    fn judge(&self, is_synchronised: impl FnOnce(u64) -> bool) -> Now {
        let reading = self.source.read();
        let is_trusted = reading.is_set()
            && (self.trust == Trust::Plausible || is_synchronised(reading.uptime_millis));
        Now {
            reading,
            boot: self.source.boot(),
            is_trusted,
        }
    }
}

/// What time it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Now {
    /// Both clocks.
    pub reading: Reading,
    /// Names the boot.
    pub boot: u64,
    /// Whether the wall clock can be believed.
    pub is_trusted: bool,
}

impl Now {
    /// Whether the wall clock stands where one does that somebody set: it may be wrong all the same.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.reading.is_set()
    }

    /// The verdict in words, with what follows from it.
    #[must_use]
    pub const fn verdict(&self) -> &'static str {
        if self.is_trusted {
            "right, as far as this machine can tell"
        } else if !self.is_set() {
            "not set: before 2026; no deadline is met, and of earlier boots nothing expires"
        } else {
            "not known to be synchronised since the boot; no deadline is met, and of earlier boots nothing expires"
        }
    }
}

/// The clock of an open store.
#[derive(Debug)]
pub(super) struct Clock {
    options: ClockOptions,
    boots: Boots,
    /// The last verdict. Appends look only at this while it is good.
    is_trusted: AtomicBool,
    /// Latched: see [`Clock::is_synchronised`].
    synchronised: AtomicBool,
    /// The uptime before which the source is not asked again.
    ask_at: AtomicU64,
}

impl Clock {
    /// The clock of the store in `dir`.
    pub(super) fn open(dir: &Path, options: ClockOptions) -> Self {
        let clock = Self {
            options,
            boots: Boots::load(dir),
            is_trusted: AtomicBool::new(false),
            synchronised: AtomicBool::new(false),
            ask_at: AtomicU64::new(0),
        };
        clock.now();
        clock
    }

    pub(super) fn boots(&self) -> &Boots {
        &self.boots
    }

    /// Reads the clocks; the first time in a boot that the wall clock is right, that is written down.
    pub(super) fn now(&self) -> Now {
        let now = self.options.judge(|uptime| self.is_synchronised(uptime));
        if now.is_trusted {
            let reading = now.reading;
            self.boots
                .learn(now.boot, offset(reading), reading.uptime_millis);
        }
        self.is_trusted.store(now.is_trusted, Ordering::Relaxed);
        now
    }

    /// What an append is stamped with: nothing while the wall clock can be believed.
    #[inline]
    pub(super) fn uptime(&self) -> Option<Uptime> {
        match self.is_trusted.load(Ordering::Relaxed) {
            true => None,
            false => self.look_for_uptime(),
        }
    }

    #[cold]
    fn look_for_uptime(&self) -> Option<Uptime> {
        let now = self.now();
        (!now.is_trusted).then_some(Uptime {
            boot: now.boot,
            millis: now.reading.uptime_millis,
        })
    }

    /// Once is enough for a boot: a clock that was right and lost its source drifts by seconds a day. (The kernel's
    /// own flag falls after nine hours without a source, in any outage that matters.)
    fn is_synchronised(&self, uptime_millis: u64) -> bool {
        if self.synchronised.load(Ordering::Relaxed) {
            return true;
        }
        if uptime_millis < self.ask_at.load(Ordering::Relaxed) {
            return false;
        }
        let is_synchronised = self.options.source.is_synchronised();
        self.synchronised.store(is_synchronised, Ordering::Relaxed);
        self.ask_at.store(
            uptime_millis.saturating_add(GLANCE_MILLIS),
            Ordering::Relaxed,
        );
        is_synchronised
    }
}

/// What is added to an uptime to get a wall time, in milliseconds.
fn offset(reading: Reading) -> i64 {
    reading
        .wall_millis
        .saturating_sub_unsigned(reading.uptime_millis)
}

/// The wall time of a moment in a boot of which the offset is known.
pub(super) fn wall_millis(uptime: Uptime, boots: &Boots) -> Option<i64> {
    let offset = boots.offset(uptime.boot)?;
    Some(offset.saturating_add_unsigned(uptime.millis))
}

/// When a record was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Appended {
    /// By the wall clock of that moment.
    pub(super) wall_millis: i64,
    /// If that clock could not be believed.
    pub(super) uptime: Option<Uptime>,
}

impl Appended {
    /// How old it is; `None` if nobody knows. A clock that went backwards makes nothing younger than
    /// new.
    pub(super) fn age(self, now: &Now, boots: &Boots) -> Option<Duration> {
        let millis = match self.uptime {
            Some(uptime) if uptime.boot == now.boot => {
                now.reading.uptime_millis.saturating_sub(uptime.millis)
            }
            // Across boots only the wall clock leads, and only if it is right at both ends.
            Some(_) | None if !now.is_trusted => return None,
            Some(uptime) => since(now, wall_millis(uptime, boots)?),
            None if self.wall_millis < NOT_BEFORE_MILLIS => return None,
            None => since(now, self.wall_millis),
        };
        Some(Duration::from_millis(millis))
    }
}

fn since(now: &Now, wall_millis: i64) -> u64 {
    let millis = now.reading.wall_millis.saturating_sub(wall_millis);
    millis.max(0).unsigned_abs()
}

/// Whether a record is too old to be sent: by what it says itself, else by its lane's limit.
pub(super) fn is_expired(
    expires: Option<Expires>,
    limit: Option<Duration>,
    now: &Now,
    age: impl FnOnce() -> Option<Duration>,
) -> bool {
    let limit = match expires {
        Some(Expires::At(millis)) => {
            return now.is_trusted && now.reading.wall_millis >= millis;
        }
        Some(Expires::After(millis)) => Some(Duration::from_millis(millis)),
        None => limit,
    };
    limit.is_some_and(|limit| age().is_some_and(|age| age >= limit))
}

#[cfg(test)]
pub(in crate::store) mod tests {
    use super::*;

    pub(in crate::store) const NOW: i64 = 1_800_000_000_000;

    pub(in crate::store) fn now(wall_millis: i64, uptime_millis: u64, is_trusted: bool) -> Now {
        Now {
            reading: Reading {
                wall_millis,
                uptime_millis,
            },
            boot: 1,
            is_trusted,
        }
    }

    /// Boots 2 and 3 ran before this one; of boot 2 the time is known.
    pub(in crate::store) fn boots() -> Boots {
        let dir = tempfile::tempdir().unwrap();
        Boots::load(dir.path()).learn(2, NOW - 100_000, 0);
        Boots::load(dir.path())
    }

    /// Every combination of where a record comes from and what is known now.
    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn an_age_is_known_within_a_boot_or_between_two_trusted_ends() {
        let boots = boots();
        let at = |wall_millis, boot: u64, millis| Appended {
            wall_millis,
            uptime: (boot > 0).then_some(Uptime { boot, millis }),
        };
        let (trusted, untrusted) = (now(NOW, 50_000, true), now(NOW, 50_000, false));
        for (what, appended, by_trusted, by_untrusted) in [
            ("trusted", at(NOW - 7_000, 0, 0), Some(7_000), None),
            (
                "trusted, later than now",
                at(NOW + 7_000, 0, 0),
                Some(0),
                None,
            ),
            ("unmarked, of 1970", at(7_000, 0, 0), None, None),
            ("this boot", at(3, 1, 20_000), Some(30_000), Some(30_000)),
            (
                "this boot, wrong far ahead",
                at(2 * NOW, 1, 20_000),
                Some(30_000),
                Some(30_000),
            ),
            (
                "this boot, later than now",
                at(3, 1, 60_000),
                Some(0),
                Some(0),
            ),
            ("a boot of known time", at(3, 2, 40_000), Some(60_000), None),
            ("a boot of unknown time", at(3, 3, 40_000), None, None),
            (
                "a boot of unknown time, plausible",
                at(NOW - 1, 3, 40_000),
                None,
                None,
            ),
        ] {
            let millis = |now| appended.age(now, &boots).map(|age| age.as_millis());
            assert_eq!(millis(&trusted), by_trusted, "{what}");
            assert_eq!(millis(&untrusted), by_untrusted, "{what}, untrusted now");
        }
    }

    #[test]
    fn what_is_not_known_expires_nothing_and_a_records_own_word_counts() {
        let seconds = Duration::from_secs;
        let (trusted, untrusted) = (now(NOW, 50_000, true), now(NOW, 50_000, false));
        for (expires, limit, age, by_trusted, by_untrusted) in [
            (None, None, Some(9), false, false),
            (None, Some(9), Some(9), true, true),
            (None, Some(9), Some(8), false, false),
            (None, Some(9), None, false, false),
            (Some(Expires::After(5_000)), Some(9), Some(5), true, true),
            (
                Some(Expires::After(20_000)),
                Some(9),
                Some(10),
                false,
                false,
            ),
            (Some(Expires::After(0)), None, None, false, false),
            (Some(Expires::At(NOW)), None, None, true, false),
            (Some(Expires::At(NOW + 1)), Some(9), Some(10), false, false),
        ] {
            for (now, expected) in [(&trusted, by_trusted), (&untrusted, by_untrusted)] {
                let expired = is_expired(expires, limit.map(seconds), now, || age.map(seconds));
                assert_eq!(expired, expected, "{expires:?} {limit:?} {age:?} {now:?}");
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn a_boot_has_a_number_of_64_bits() {
        let uuid = "00000000-0000-0001-8000-0000000000ff\n";
        assert_eq!(boot_number(uuid), Some(0x8000_0000_0000_00fe));
        assert_eq!(boot_number("none"), None);
        let (a, b) = (SystemTime::new(Vec::new()), SystemTime::new(Vec::new()));
        assert_eq!(a.boot(), b.boot());
    }

    #[test]
    #[cfg_attr(miri, ignore = "it calls the system")]
    fn the_machines_clocks_go_forward_and_a_file_says_that_they_are_right() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("synchronised");
        let time = SystemTime::new(vec![file.clone()]);
        let (first, second) = (time.read(), time.read());
        assert!(first.uptime_millis > 0 && second.uptime_millis >= first.uptime_millis);
        let before = time.is_synchronised();
        fs::write(file, "").unwrap();
        assert!(time.is_synchronised());
        assert_eq!(before, Path::new(SYNCHRONISED_FILE).exists());
    }
}
