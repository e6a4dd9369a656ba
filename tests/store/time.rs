//! Time on a gateway that boots in 1970: nothing expires wrongly, and what was stamped then is
//! corrected once the time is known.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferrylog::message::{Expires, MessageRef};
use ferrylog::store::{Entry, Lane, Reading, Store, StoreOptions, StoreView, TimeSource, Trust};
use ferrylog::wal::SeqNo;
use tempfile::tempdir;

pub(crate) const HOUR: u64 = 3_600_000;

/// A machine whose clocks the test sets.
#[derive(Debug)]
pub(crate) struct Machine {
    boot: u64,
    state: Mutex<(Reading, bool)>,
}

impl Machine {
    /// Just booted, and not synchronised.
    pub(crate) fn boot(boot: u64, wall_millis: i64) -> Arc<Self> {
        let reading = Reading {
            wall_millis,
            uptime_millis: 10_000,
        };
        Arc::new(Self {
            boot,
            state: Mutex::new((reading, false)),
        })
    }

    pub(crate) fn pass(&self, millis: u64) {
        let reading = &mut self.state.lock().unwrap().0;
        reading.uptime_millis += millis;
        reading.wall_millis += millis.cast_signed();
    }

    /// The step comes.
    pub(crate) fn synchronise(&self, wall_millis: i64) {
        let mut state = self.state.lock().unwrap();
        state.0.wall_millis = wall_millis;
        state.1 = true;
    }
}

impl TimeSource for Machine {
    fn boot(&self) -> u64 {
        self.boot
    }

    fn read(&self) -> Reading {
        self.state.lock().unwrap().0
    }

    fn is_synchronised(&self) -> bool {
        self.state.lock().unwrap().1
    }
}

pub(crate) fn real_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

fn open(dir: &Path, machine: &Arc<Machine>, trust: Trust) -> Store {
    let mut options = StoreOptions::default();
    options.default.expires_after = Some(Duration::from_millis(HOUR));
    options.clock.trust = trust;
    options.clock.source = Arc::clone(machine) as Arc<dyn TimeSource>;
    Store::open_with(dir, &options).unwrap()
}

fn append(lane: &Lane, expires: Option<Expires>, timestamp_millis: Option<i64>) {
    let message = MessageRef {
        expires,
        timestamp_millis,
        value: Some(b"v"),
        ..MessageRef::to("t")
    };
    lane.append_wait(&message).unwrap();
}

fn entries(lane: &Lane) -> Vec<Entry> {
    let mut reader = lane.reader(SeqNo::new(0));
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

fn timestamps(entries: &[Entry]) -> Vec<i64> {
    let timestamp = |entry: &Entry| entry.message.as_ref().unwrap().timestamp_millis;
    entries.iter().map(timestamp).collect()
}

fn expired(lane: &Lane) -> Vec<bool> {
    let now = lane.now();
    let entries = entries(lane);
    entries.iter().map(|e| lane.is_expired(e, &now)).collect()
}

#[test]
fn within_a_boot_an_age_needs_no_wall_clock_and_a_step_changes_none() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let store = open(dir.path(), &machine, Trust::Synchronised);
    let lane = store.lane();
    append(lane, None, None);
    append(lane, Some(Expires::After(HOUR / 2)), None);
    append(lane, Some(Expires::After(2 * HOUR)), None);
    assert_eq!(expired(lane), [false, false, false]);
    machine.pass(HOUR / 2);
    assert_eq!(expired(lane), [false, true, false]);

    machine.synchronise(real_millis());
    assert_eq!(
        expired(lane),
        [false, true, false],
        "56 years later, or not"
    );
    machine.pass(HOUR / 2);
    assert_eq!(expired(lane), [true, true, false]);
    let age = lane.age_of(&entries(lane)[0], &lane.now());
    assert_eq!(age, Some(Duration::from_millis(HOUR)));
}

#[test]
fn over_a_restart_of_the_machine_nothing_expires_until_both_ends_are_known() {
    let dir = tempdir().unwrap();
    let start = real_millis();
    // Boots 1 and 2 begin in 1970; only the first is told the time, an hour before the second.
    let first = Machine::boot(1, 5_000);
    let store = open(dir.path(), &first, Trust::Synchronised);
    append(store.lane(), None, None);
    append(store.lane(), Some(Expires::At(start)), None);
    first.synchronise(start);
    assert_eq!(expired(store.lane()), [false, true]);
    store.close().unwrap();

    let second = Machine::boot(2, 5_000);
    let store = open(dir.path(), &second, Trust::Synchronised);
    append(store.lane(), None, None);
    assert_eq!(expired(store.lane()), [false; 3], "what time is it?");
    second.pass(1_000 * HOUR);
    assert_eq!(expired(store.lane()), [false, false, true]);
    store.close().unwrap();

    let third = Machine::boot(3, 5_000);
    let store = open(dir.path(), &third, Trust::Synchronised);
    assert_eq!(expired(store.lane()), [false; 3]);
    third.synchronise(start + HOUR.cast_signed());
    // Nobody will ever know when the last one was appended.
    third.pass(1_000);
    assert_eq!(expired(store.lane()), [true, true, false]);
}

#[test]
fn the_step_corrects_what_was_stamped_before_it_also_after_a_restart() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    let store = open(dir.path(), &machine, Trust::Synchronised);
    let lane = store.lane();
    append(lane, None, None);
    append(lane, None, Some(42));
    machine.pass(30_000);
    append(lane, None, None);
    let before = timestamps(&entries(lane));
    assert_eq!(before[1], 42);

    let step = real_millis() + 7 * HOUR.cast_signed();
    machine.synchronise(step);
    machine.pass(1_000);
    // From the next look at the clock on, by whomever: here by an append.
    append(lane, None, None);
    let corrected = [step - 30_000, 42, step];
    assert_eq!(timestamps(&entries(lane))[..3], corrected);
    assert!(before[0] != corrected[0] && before[2] != corrected[2]);
    drop(store);

    for boot in [1, 2] {
        let machine = Machine::boot(boot, 5_000);
        let store = open(dir.path(), &machine, Trust::Synchronised);
        let later = timestamps(&entries(store.lane()));
        assert_eq!(later[..3], corrected, "boot {boot}");
        drop(store);
        let view = StoreView::open(dir.path()).unwrap();
        let mut reader = view.lanes()[0].reader(SeqNo::new(0));
        let seen: Vec<Entry> = std::iter::from_fn(|| reader.next().unwrap()).collect();
        assert_eq!(timestamps(&seen)[..3], corrected, "boot {boot}");
    }
    // Without the file nothing is lost but the correction.
    fs::remove_file(dir.path().join("boots")).unwrap();
    let store = open(dir.path(), &Machine::boot(2, 5_000), Trust::Synchronised);
    assert_eq!(timestamps(&entries(store.lane()))[..3], before);
}

#[test]
fn a_record_of_a_trusted_clock_carries_nothing_new() {
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, real_millis());
    let store = open(dir.path(), &machine, Trust::Synchronised);
    append(store.lane(), None, None);
    machine.synchronise(real_millis());
    machine.pass(1_000);
    append(store.lane(), None, None);
    append(store.lane(), None, None);
    let uptimes: Vec<bool> = entries(store.lane())
        .iter()
        .map(|entry| entry.message.as_ref().unwrap().uptime.is_some())
        .collect();
    assert_eq!(uptimes, [true, false, false]);
    store.close().unwrap();

    // After a restart its age is the difference of two right wall clocks.
    let next = Machine::boot(2, 5_000);
    let store = open(dir.path(), &next, Trust::Synchronised);
    assert_eq!(expired(store.lane()), [false; 3]);
    next.synchronise(real_millis() + 2 * HOUR.cast_signed());
    next.pass(1_000);
    assert_eq!(expired(store.lane()), [true; 3]);
}

#[test]
fn a_plausible_clock_is_trusted_only_where_the_options_say_so_and_1970_never() {
    for (trust, wall_millis, is_trusted) in [
        (Trust::Synchronised, real_millis(), false),
        (Trust::Plausible, real_millis(), true),
        (Trust::Plausible, 5_000, false),
    ] {
        let dir = tempdir().unwrap();
        let store = open(dir.path(), &Machine::boot(1, wall_millis), trust);
        assert_eq!(
            store.now().is_trusted,
            is_trusted,
            "{trust:?} {wall_millis}"
        );
    }
    // Nor does a synchronisation to 1970 make it right.
    let dir = tempdir().unwrap();
    let machine = Machine::boot(1, 5_000);
    machine.synchronise(6_000);
    let store = open(dir.path(), &machine, Trust::Synchronised);
    assert!(!store.now().is_trusted);
    assert!(!dir.path().join("boots").exists());
}
