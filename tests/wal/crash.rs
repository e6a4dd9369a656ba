//! Short lives that end in every way, from a printed seed: what was promised is there in the next one.
//!
//! [`history`] drives a log on any disk that is dressed as one, and panics at the first promise that
//! is broken (`oracle.rs`); `planted.rs` shows that it sees. Without threads the seed decides who does
//! what when, and the same seed is the same history.

use std::future::{Future, IntoFuture};
use std::mem;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use ferrylog::wal::fs::Fs;
use ferrylog::wal::{Class, Durability, Error, OnFull, Options, SeqNo, Ticket, Wal, Worker};

use crate::common::{
    append_all, assert_no_engine_thread_panicked, assert_same, describe, drain_past_damage,
    draw_at_rest, keys, open, open_still, read_all, sized, try_open_with, until, view, with_level,
};
use crate::faulty::{EIO, ENOSPC, Failure, Fault, Faulty, Kind, Survivors};
use crate::oracle::{CLASSES, Found, Known, check, read};
use crate::random::Random;

/// Who does the background work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pace {
    /// Threads, as they come.
    Threads,
    /// The seed.
    Steps,
}

/// What a history may meet.
#[derive(Clone, Copy, Debug)]
struct Weather {
    pace: Pace,
    /// Operations fail, and the disk is full now and then.
    errors: bool,
    /// The disk does harm and tells nobody.
    harm: bool,
    on_full: OnFull,
    quota: Option<u64>,
}

impl Weather {
    fn of(pace: Pace, random: &mut Random) -> Self {
        let calm = pace == Pace::Threads;
        let policies = [
            OnFull::Block,
            OnFull::Reject,
            OnFull::DropOldest,
            OnFull::DropNewest,
        ];
        Self {
            pace,
            errors: !calm && random.one_in(2),
            harm: !calm && random.one_in(3),
            on_full: policies[random.below(4) as usize],
            quota: (!calm && random.one_in(4)).then(|| (4 + random.below(4)) << 20),
        }
    }

    /// Space may be short, and a wait for it may have no end.
    fn may_be_full(self) -> bool {
        self.errors || self.quota.is_some()
    }

    fn options(self, random: &mut Random) -> Options {
        let levels = [Durability::Memory, Durability::Os, Durability::Disk];
        let mut options = with_level(levels[random.below(3) as usize]);
        options.on_full = self.on_full;
        options.quota_bytes = self.quota;
        options
    }
}

/// What was appended while something else was going on.
type Meanwhile = Arc<Mutex<Vec<(Range<SeqNo>, Vec<u8>)>>>;

/// One life of a log.
struct Life<'a, F: Fs> {
    at: &'a str,
    wal: Arc<Wal<F>>,
    disk: &'a Faulty,
    known: &'a mut Known,
    random: &'a mut Random,
    weather: Weather,
    meanwhile: Meanwhile,
}

impl<F: Fs> Life<'_, F> {
    /// An error that this life may meet; any other is a broken promise.
    #[track_caller]
    fn accept(&self, error: &Error) {
        let expected = self.weather.may_be_full() || self.disk.is_dead();
        assert!(expected, "{}: {}", self.at, describe(error));
    }

    fn record(&mut self) -> Vec<u8> {
        let random = &mut *self.random;
        let len = match random.below(12) {
            0 => 0,
            1..6 => random.below(40),
            6..10 => random.below(3000),
            _ => random.below(100_000),
        };
        sized(random.next(), len as usize)
    }

    /// Some of the background work, as the seed has it.
    fn work(&mut self) {
        if self.weather.pace == Pace::Threads {
            return;
        }
        for _ in 0..self.random.below(4) {
            self.wal.step(Worker::ALL[self.random.below(3) as usize]);
        }
    }

    /// All of the background work, as long as there is any. False: it has no end.
    fn work_through(&self) -> bool {
        (0..100).any(|_| {
            // Not one of them may have anything to do; what the keeper waits for comes in time.
            let busy = [Worker::Flusher, Worker::Syncer].map(|worker| self.wal.step(worker));
            self.wal.step(Worker::Keeper);
            busy == [false, false] && self.wal.shortage().is_none()
        })
    }

    /// Waits for a ticket as a thread would, or as a task whose wake-ups others bring about.
    fn wait(&self, ticket: Ticket<'_, F>, level: Durability, by_steps: bool) -> bool {
        if !by_steps {
            let waited = ticket.wait_for(level);
            return waited.inspect_err(|error| self.accept(error)).is_ok();
        }
        let end = ticket.range().end;
        let mut future = ticket.into_future();
        let mut context = Context::from_waker(Waker::noop());
        if let std::task::Poll::Ready(Err(error)) = Pin::new(&mut future).poll(&mut context) {
            self.accept(&error);
            return false;
        }
        let worked = self.work_through();
        let reached = self.wal.marks().durable >= end;
        let calm = !self.weather.may_be_full() && !self.disk.is_dead();
        assert!(
            !calm || worked && reached,
            "{}: nobody makes {end} durable",
            self.at
        );
        reached
    }

    /// One append of a record or a batch, and perhaps a wait for it.
    fn append(&mut self, records: Vec<Vec<u8>>, level: Option<Durability>) {
        let is_short = self.wal.shortage().is_some();
        // Nobody but a step ends a linger there.
        let lingers = !self.wal.options().linger.is_zero();
        let by_steps = self.weather.may_be_full() || self.random.one_in(3) || lingers;
        let by_steps = by_steps && self.weather.pace == Pace::Steps;
        let wal = self.wal.clone();
        let next = wal.marks().next;
        let ticket = match &records[..] {
            [record] if self.weather.pace == Pace::Steps => wal.try_append(record),
            // While space is short it could wait for ever.
            _ if is_short => return,
            [record] => wal.append(record),
            batch => wal.append_batch(batch),
        };
        let ticket = match ticket {
            Ok(ticket) => ticket,
            Err(error) => {
                self.accept(&error);
                assert_eq!(wal.marks().next, next, "nothing was appended");
                return;
            }
        };
        self.known.give(ticket.range(), &records);
        if records.len() > 1 {
            self.known.batches.push(ticket.range());
        }
        let end = ticket.range().end;
        match level {
            Some(level) if self.wait(ticket, level, by_steps) => {
                self.known.acknowledge(end, level);
            }
            _ => {}
        }
    }

    fn save(&mut self) {
        match self.wal.save_cursor() {
            Ok(()) => self.known.saved = self.known.settled.clone(),
            Err(error) => self.accept(&error),
        }
    }

    fn sync(&mut self) -> bool {
        let end = self.wal.marks().next;
        let durable = if self.weather.may_be_full() {
            self.work_through();
            self.wal.marks().durable
        } else {
            match self.wal.sync() {
                Ok(durable) => durable,
                Err(error) => {
                    self.accept(&error);
                    return false;
                }
            }
        };
        self.known.acknowledge(durable, Durability::Disk);
        assert!(durable >= end || self.weather.may_be_full());
        durable >= end
    }

    /// One thing that a user does, or that happens.
    fn act(&mut self) {
        match self.random.below(20) {
            0..8 => {
                let levels = [Some(Durability::Disk), Some(Durability::Os), None, None];
                let level = levels[self.random.below(4) as usize];
                let record = self.record();
                self.append(vec![record], level);
            }
            8..12 => {
                let most = if self.random.one_in(4) { 300 } else { 8 };
                let count = 1 + self.random.below(most);
                let random = &mut *self.random;
                let batch: Vec<Vec<u8>> = (0..count)
                    .map(|_| sized(random.next(), random.below(1500) as usize))
                    .collect();
                let level = self.random.one_in(3).then_some(Durability::Disk);
                self.append(batch, level);
            }
            12 => _ = self.sync(),
            13..17 => self.settle(),
            17 => self.save(),
            18 => self.define(),
            _ if self.random.one_in(3) => self.trouble(),
            _ => {}
        }
    }

    fn define(&mut self) {
        if self.wal.shortage().is_some() {
            return;
        }
        let len = 1 + self.random.below(60) as usize;
        let text = vec![b'a' + self.random.below(26) as u8; len];
        match self.wal.define(&text) {
            Ok(id) => {
                let id = id.unwrap();
                assert_eq!(self.wal.definition(id).unwrap(), text);
                self.known.definitions.insert(id, text);
            }
            Err(error) => self.accept(&error),
        }
    }

    fn settle(&mut self) {
        let marks = self.wal.marks();
        let (acked, durable) = (marks.acked, marks.durable);
        if acked == durable {
            return;
        }
        let random = &mut *self.random;
        let from = if random.one_in(2) {
            0
        } else {
            random.below((durable - acked).min(50))
        };
        let range = acked + from..(acked + from + random.below(40)).min(durable);
        let class = CLASSES[random.below(5) as usize];
        self.known.settle(&self.wal, range, class);
    }

    /// Something goes wrong with the disk from now on.
    fn trouble(&mut self) {
        self.known.sync_failed = true;
        self.disk.heal();
        if self.weather.harm && self.random.one_in(2) {
            let harm = [Failure::Lie, Failure::LosePage, Failure::MisplacePage];
            let harm = harm[self.random.below(3) as usize];
            let name = ["segment-", "segment-", "cursor-"][self.random.below(3) as usize];
            return self.disk.fail_next(Kind::Sync, name, 1, harm);
        }
        if !self.weather.errors {
            let failure = [Failure::Errno(EIO), Failure::KeepDirty, Failure::Done];
            let failure = failure[self.random.below(3) as usize];
            return self.disk.fail_next(Kind::Sync, "segment-", 1, failure);
        }
        let random = &mut *self.random;
        if random.one_in(3) {
            let room = self.disk.used() + random.below(40) * 4096;
            return self.disk.set_capacity(Some(room));
        }
        let kinds = [
            Some(Kind::Write),
            Some(Kind::Write),
            Some(Kind::Sync),
            Some(Kind::SyncZeros),
            Some(Kind::SyncDir),
            Some(Kind::Create),
            Some(Kind::Rename),
            None,
        ];
        let failures = [
            Failure::Errno(EIO),
            Failure::Errno(ENOSPC),
            Failure::Half,
            Failure::Done,
            Failure::KeepDirty,
        ];
        self.disk.fail(Fault {
            kind: kinds[random.below(8) as usize],
            name: ["", "segment-", "cursor-"][random.below(3) as usize],
            skip: random.below(6) as usize,
            times: 1 + random.below(3) as usize,
            failure: failures[random.below(5) as usize],
        });
    }

    /// Trouble ends: so does a shortage, and what was staged is written.
    fn relief(&mut self) {
        self.disk.heal();
        self.disk.set_capacity(None);
        if self.weather.quota.is_none() && !self.disk.is_dead() {
            self.work_through();
            let shortage = self.wal.shortage();
            assert!(
                shortage.is_none() || self.disk.is_dead(),
                "{}: space is back, and still {shortage:?}",
                self.at
            );
        }
    }

    /// The next sync of a segment, or write of a cursor, has company.
    fn arm(&mut self) {
        let (wal, meanwhile) = (self.wal.clone(), self.meanwhile.clone());
        let record = self.record();
        let append = {
            let wal = wal.clone();
            move || {
                if let Ok(ticket) = wal.try_append(&record) {
                    meanwhile.lock().unwrap().push((ticket.range(), record));
                }
            }
        };
        let (saves, works) = (self.random.one_in(2), self.random.one_in(2));
        if self.random.one_in(2) {
            self.disk.before(Kind::Sync, "segment-", move || {
                append();
                if saves {
                    // Whether it could be saved is nobody's business here.
                    drop(wal.save_cursor());
                }
            });
        } else {
            let kind = [Kind::Write, Kind::Sync][self.random.below(2) as usize];
            self.disk.before(kind, "cursor-", move || {
                append();
                if works {
                    wal.step(Worker::Flusher);
                }
                wal.step(Worker::Syncer);
            });
        }
    }

    fn disarm(&mut self) {
        self.disk.disarm();
        for (range, record) in mem::take(&mut *self.meanwhile.lock().unwrap()) {
            self.known.give(range, &[record]);
        }
    }

    fn live(&mut self) {
        for _ in 0..self.random.below(60) {
            if self.disk.is_dead() {
                return;
            }
            let armed = self.weather.pace == Pace::Steps && self.random.one_in(4);
            if armed {
                self.arm();
            }
            self.act();
            self.work();
            self.disarm();
            if self.weather.errors && self.random.one_in(15) {
                self.relief();
            }
            let marks = self.wal.marks();
            assert!(marks.first <= marks.acked && marks.acked <= marks.durable);
            assert!(marks.durable <= marks.next);
            assert!(self.wal.totals().balances());
        }
        // Now and then everything goes, so that files live again.
        if self.random.one_in(6) && !self.disk.is_dead() && self.sync() {
            self.settle_all();
        }
    }

    fn settle_all(&mut self) {
        let marks = self.wal.marks();
        self.known
            .settle(&self.wal, marks.acked..marks.durable, Class::Shipped);
        self.save();
        self.save();
        if self.weather.pace == Pace::Steps {
            _ = self.work_through();
        } else if view(self.disk).is_ok_and(|view| view.segments().len() > 2) {
            until("release", || self.wal.marks().first > marks.first);
        }
    }
}

/// Ends a life in some way; the disk for the next one, and whether the page cache is the same.
fn end<F: Fs>(
    wal: Wal<F>,
    disk: &Faulty,
    known: &mut Known,
    random: &mut Random,
    weather: Weather,
) -> (Faulty, bool) {
    let end = wal.marks().next;
    let way = random.below(6);
    if way == 0 && !disk.is_dead() {
        match wal.close() {
            Ok(marks) => {
                assert_eq!((marks.durable, marks.next), (end, end));
                known.acknowledge(end, Durability::Disk);
                known.saved = known.settled.clone();
            }
            // The seal's sync failed: the next life begins as after a crash.
            Err(error) => assert!(
                known.sync_failed || weather.may_be_full() || disk.is_dead(),
                "{}",
                describe(&error)
            ),
        }
        return (disk.copy(), false);
    }
    match way {
        0..3 => (disk.kill(), true),
        3 => (disk.power_cut(Survivors::None), false),
        4 => (disk.power_cut(Survivors::All), false),
        _ => (disk.power_cut(Survivors::Some), false),
    }
}

/// While nobody looks.
fn rot(disk: &Faulty, random: &mut Random) {
    let mut names = disk.names("segment-");
    // One cursor at most: without both the log says so, and ships again.
    if !disk.wounds().iter().any(|w| w.name.starts_with("cursor-")) {
        names.push(["cursor-a", "cursor-b"][random.below(2) as usize].into());
        names.retain(|name| disk.names(name).first() == Some(name));
    }
    let name = &names[random.below(names.len() as u64) as usize];
    let len = [512, 512, 16 << 10][random.below(3) as usize];
    let position = random.below(disk.file_len(name).max(1));
    if random.one_in(4) {
        disk.make_unreadable(name, position / 4096);
    } else {
        disk.rot(name, position, len);
    }
}

/// Four lives on a disk; `dress` is what stands between the log and it. Returns the digest of all that
/// was done to the disk. `at_rest` draws how each life stores its records, and whether who waits lingers;
/// `None`: as they are, and nobody.
pub(crate) fn history<F: Fs + Clone>(
    seed: u64,
    pace: Pace,
    mut at_rest: Option<Random>,
    dress: impl Fn(&Faulty) -> F,
) -> u64 {
    let at = &format!("seed {seed}, {pace:?}");
    let mut random = Random(seed);
    let weather = Weather::of(pace, &mut random);
    let mut disk = Faulty::new(seed);
    let mut known = Known {
        gives_up_oldest: weather.on_full == OnFull::DropOldest,
        ..Known::default()
    };
    let mut killed = false;
    for _ in 0..4 {
        let mut options = weather.options(&mut random);
        if let Some(at_rest) = &mut at_rest {
            draw_at_rest(&mut options, at_rest);
            options.linger = Duration::from_millis([0, 0, 1, 5][at_rest.below(4) as usize]);
        }
        if weather.errors && random.one_in(3) {
            // Something fails while it opens; the next time it does not.
            disk.fail(Fault {
                kind: None,
                name: "",
                skip: random.below(60) as usize,
                times: 1,
                failure: [Failure::Errno(EIO), Failure::Errno(ENOSPC)][random.below(2) as usize],
            });
            drop(open_at(pace, &dress(&disk), options.clone()));
            disk.heal();
            killed = false;
        }
        let wal = open_at(pace, &dress(&disk), options.clone())
            .unwrap_or_else(|error| panic!("{at}: {}", describe(&error)));
        let found = check(&wal, &known, killed, at);
        if pace == Pace::Steps && random.one_in(3) {
            recover_again(&disk.copy(), &dress, &wal, &found, at);
        }
        known.go_on(&wal, &found, at);
        if pace == Pace::Steps && random.one_in(3) {
            disk.die_in(random.below(150) as usize);
        }
        let mut life = Life {
            at,
            wal: Arc::new(wal),
            disk: &disk,
            known: &mut known,
            random: &mut random,
            weather,
            meanwhile: Meanwhile::default(),
        };
        life.live();
        let wal = Arc::into_inner(life.wal).unwrap();
        let before = disk.clone();
        (disk, killed) = end(wal, &disk, &mut known, &mut random, weather);
        disk.heal();
        disk.set_capacity(None);
        // A recovery that is cut short changes nothing for the next one.
        if random.one_in(3) {
            disk = recover_halfway(&disk, random.below(60) as usize);
            disk.lose_power(Survivors::Some);
            killed = false;
        }
        if weather.harm && random.one_in(2) {
            rot(&disk, &mut random);
        }
        known.note_harm(&before, &disk);
        if disk.wounds().is_empty() {
            let verified = view(&disk).unwrap().verify(&mut |_, _| ()).unwrap();
            assert!(verified.is_clean(), "{at}: {:?}", verified.findings);
        }
    }
    let wal = open_at(pace, &dress(&disk), with_level(Durability::Disk))
        .unwrap_or_else(|error| panic!("{at}: {}", describe(&error)));
    let found = check(&wal, &known, killed, at);
    recover_again(&disk.copy(), &dress, &wal, &found, at);
    drop(wal);
    let viewed = view(&disk).unwrap().with_keys(keys(0)).unwrap();
    // Meanwhile a segment of which all was settled may have gone.
    let still: Vec<_> = found
        .records
        .into_iter()
        .filter(|(seq, _)| *seq >= viewed.marks().first)
        .collect();
    assert_same(
        &drain_past_damage(viewed.reader(viewed.marks().first))
            .unwrap()
            .0,
        &still,
    );
    disk.digest()
}

fn open_at<F: Fs + Clone>(pace: Pace, disk: &F, options: Options) -> Result<Wal<F>, Error> {
    match pace {
        Pace::Threads => try_open_with(disk, options),
        Pace::Steps => open_still(disk, options),
    }
}

/// A second recovery finds what the first one found.
fn recover_again<F: Fs + Clone>(
    disk: &Faulty,
    dress: impl Fn(&Faulty) -> F,
    first: &Wal<F>,
    found: &Found,
    at: &str,
) {
    let second = open_at(Pace::Steps, &dress(disk), with_level(Durability::Disk))
        .unwrap_or_else(|error| panic!("{at}, again: {}", describe(&error)));
    let mut again = read(&second, at).records;
    let from = first.marks().first.max(second.marks().first);
    again.retain(|(seq, _)| *seq >= from);
    let found: Vec<_> = found
        .records
        .iter()
        .filter(|(seq, _)| *seq >= from)
        .cloned()
        .collect();
    assert_same(&again, &found);
    for (seq, _) in &found {
        let settled = [first, &second].map(|wal| wal.is_settled(*seq));
        assert_eq!(settled[0], settled[1], "{at}, again: {seq}");
    }
    // A page of the new segment that cannot be read is told, although nothing was on it.
    let gaps = &second.opened().gaps;
    let fresh: Vec<_> = gaps.iter().filter(|gap| !gap.seqs.is_empty()).collect();
    assert!(fresh.is_empty(), "{at}, again: {fresh:?} are known by now");
    let totals = [first, &second].map(Wal::totals);
    let outcomes = totals.map(|t| (t.shipped, t.dropped, t.lost, t.queued));
    assert_eq!(outcomes[0], outcomes[1], "{at}, again");
}

/// Opens, and dies at some operation.
pub(crate) fn recover_halfway(disk: &Faulty, operation: usize) -> Faulty {
    disk.die_in(operation);
    drop(open_at(Pace::Steps, disk, with_level(Durability::Disk)));
    disk.kill()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs histories on four threads.
fn run_seeds(pace: Pace, default: u64) {
    let seeds = variable("WAL_SEEDS").unwrap_or(default);
    let from = variable("WAL_SEED").unwrap_or(0);
    println!("seeds {from} to {} (WAL_SEED, WAL_SEEDS)", from + seeds);
    let next = AtomicU64::new(from);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= from + seeds {
                        return;
                    }
                    // Even seeds are the same in every build.
                    let at_rest = (seed % 2 == 1).then_some(Random(!seed));
                    history(seed, pace, at_rest, Faulty::clone);
                }
            });
        }
    });
    assert_no_engine_thread_panicked();
}

/// All of P1, P2, P3, P4, P5 and P6 at once.
#[test]
fn whatever_ends_a_life_the_next_one_keeps_its_promises() {
    run_seeds(Pace::Threads, 100);
}

/// The same on a worse disk, and each history can be repeated.
#[test]
fn whatever_the_disk_does_the_next_life_keeps_its_promises() {
    run_seeds(Pace::Steps, 1000);
}

#[test]
fn the_same_seed_is_the_same_history_operation_by_operation() {
    for seed in 0..20 {
        let at_rest = || Some(Random(!seed));
        let digests = [0, 1].map(|_| history(seed, Pace::Steps, at_rest(), Faulty::clone));
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
}

#[test]
fn a_second_recovery_equals_the_first() {
    for seed in 0..20 {
        let disk = Faulty::new(seed);
        let wal = open(&disk);
        append_all(&wal, 0..10);
        drop(wal.append(&sized(11, 200_000)).unwrap());
        let disk = disk.power_cut(Survivors::Some);
        let first = read_all(&open(&disk.copy()));
        assert_same(&read_all(&open(&disk)), &first);
    }
}
