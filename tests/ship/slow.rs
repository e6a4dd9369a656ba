//! A record that takes the link longer than a request may.

use std::cell::Cell;
use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ferrylog::kafka::{self, Breaks, Leader, Outgoing, Probed, Report, SendError};
use ferrylog::message::MessageRef;
use ferrylog::ship::{self, Drained, LinkOptions, LinkState, OnTooSlow, ShipOptions, Sink};

use crate::sink::{Passing, Scripted, forward, in_doubt};
use crate::support::{Scratch, options};

const COUNT: u64 = 200;

/// What a thin link leaves of the flight budget: a large record is alone on its way.
const THIN: u64 = 32 * 1024;

/// Every twentieth record is a large one.
fn is_large(n: u64) -> bool {
    n % 20 == 10
}

fn filled() -> Scratch {
    let scratch = Scratch::new();
    for n in 0..COUNT {
        let value = vec![b'v'; if is_large(n) { 60_000 } else { 10 }];
        let message = MessageRef {
            partition: Some((n % 4) as i32),
            value: Some(&value),
            ..MessageRef::to("t")
        };
        drop(scratch.store.lane().append(&message).unwrap());
    }
    scratch.store.lane().sync().unwrap();
    scratch
}

fn drain(scratch: &Scratch, sink: &mut Scripted, on_too_slow: OnTooSlow) -> Drained {
    let mut options = options();
    options.on_too_slow = on_too_slow;
    options.max_in_flight_bytes = THIN;
    options.too_slow_after = Duration::from_millis(50);
    let stop = AtomicBool::new(false);
    ship::drain_into(&scratch.store, sink, &options, &stop, &mut |_| {}).unwrap()
}

/// Each of these arrived once, in order.
fn check(sink: &Scripted, expected: impl Iterator<Item = u64>) {
    let mut found: Vec<u64> = sink.seqs().concat();
    for seqs in sink.seqs() {
        assert!(seqs.is_sorted_by(|a, b| a < b), "order, or a duplicate");
    }
    found.sort_unstable();
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn what_takes_longer_than_a_request_may_is_given_the_longest_time_and_arrives() {
    for seed in 0..5 {
        let scratch = filled();
        let mut sink = Scripted::new(seed, 4);
        sink.slow = (0..COUNT).filter(|&n| is_large(n)).collect();
        let drained = drain(&scratch, &mut sink, OnTooSlow::DeadLetter);
        assert!(drained.is_empty, "{:?}", drained.held);
        assert!(scratch.store.dead_letters_if_any().unwrap().is_none());
        check(&sink, 0..COUNT);
    }
}

#[test]
fn what_does_not_cross_even_so_is_held_and_only_its_own_partition_waits() {
    let scratch = filled();
    let mut sink = Scripted::new(7, 4);
    sink.too_slow = HashSet::from([90]);
    let drained = drain(&scratch, &mut sink, OnTooSlow::Hold);
    let [held] = &drained.held[..] else {
        panic!("{:?}", drained.held);
    };
    assert_eq!(held.partition, Some(2));
    assert_eq!(held.why.kind(), "too_slow");
    let told = held.why.to_string();
    assert_eq!(
        told,
        "too big for this link: 60000 bytes did not cross it in 0 s"
    );
    check(&sink, (0..COUNT).filter(|n| n % 4 != 2 || *n < 90));
    assert!(scratch.store.dead_letters_if_any().unwrap().is_none());
    // On a better link.
    sink.too_slow.clear();
    sink.forget();
    assert!(drain(&scratch, &mut sink, OnTooSlow::Hold).is_empty);
    check(&sink, 0..COUNT);
}

#[test]
fn what_does_not_cross_goes_to_the_dead_letters_without_an_attempt_where_that_is_the_policy() {
    let scratch = filled();
    let mut sink = Scripted::new(8, 4);
    sink.too_slow = HashSet::from([90, 110]);
    let drained = drain(&scratch, &mut sink, OnTooSlow::DeadLetter);
    assert!(drained.is_empty, "{:?}", drained.held);
    check(&sink, (0..COUNT).filter(|n| ![90, 110].contains(n)));
    let letters = scratch.store.dead_letters().unwrap();
    let all = letters.open_letters(|_, _, _| true);
    assert_eq!(all.len(), 2);
    for seq in all {
        let body = letters.get(seq).unwrap().unwrap().body;
        assert_eq!(
            (body.class.as_str(), body.code, body.attempts),
            ("network", -185, 0)
        );
        let told = "too big for this link: 60000 bytes did not cross it in 0 s";
        assert!(body.reason.contains(told), "{}", body.reason);
    }
    let totals = scratch.store.lane().totals();
    assert!(totals.balances());
    assert_eq!(totals.dead_lettered, 2);
}

/// A link that is dead times out what fills the flight, and that says nothing about a record.
#[test]
fn a_large_record_that_is_not_alone_is_never_too_slow() {
    let scratch = filled();
    let mut sink = Scripted::new(10, 4);
    sink.too_slow = HashSet::from([89, 90, 91, 92]);
    let mut options = options();
    options.too_slow_after = Duration::from_millis(50);
    options.timeout = Some(Duration::from_millis(500));
    let stop = AtomicBool::new(false);
    let ended = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(sink.rebuild_count, 0);
}

/// A link that is dead times a record out as well, and says nothing about it.
#[test]
fn a_small_record_is_never_too_slow() {
    let scratch = filled();
    let mut sink = Scripted::new(9, 4);
    sink.too_slow = HashSet::from([91]);
    let mut options = options();
    options.too_slow_after = Duration::from_millis(50);
    options.max_in_flight_bytes = THIN;
    options.timeout = Some(Duration::from_millis(500));
    let stop = AtomicBool::new(false);
    let ended = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(sink.rebuild_count, 0);
}

/// What users have: 60 s for a request, 300 s at most.
const REQUEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(300);

/// Bytes a second that a thin line carries.
const RATE: u64 = 4000;

/// A record that is on its way over a thin line.
struct Crossing {
    partition: i32,
    is_careful: bool,
    token: u64,
    value: Vec<u8>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    /// When its request began, and how long it has crossed since.
    since: Instant,
    crossed: Duration,
}

/// A thin line in a time of its own. A large record has its connection to itself for as long
/// as it takes, and who asks there waits behind it. Whoever knocks is let in, also where the broker hangs.
struct Thin {
    cluster: Scripted,
    began: Instant,
    now: Instant,
    /// How much of it is over, for who has lent this.
    elapsed: Rc<Cell<Duration>>,
    crossing: Option<Crossing>,
    /// How long a request may take that is sent carefully.
    patience: Duration,
    /// When the broker hangs, in seconds.
    hangs: Range<u64>,
    /// Something on the way lets no probe through.
    is_probe_blocked: bool,
    /// What a connection that is given up leaves on the line, and until when it does.
    clogs_for: Duration,
    clogged_until: Instant,
    breaks: [Breaks; 2],
    given_back: Vec<Report>,
    /// Another broker tells about topics while this one hangs.
    others_answer: bool,
    /// Whether that one leads nothing meanwhile, by what the other one says.
    is_leaderless: bool,
    /// Partitions whose broker cannot be reached for so long, or until a large record has crossed; and what it was
    /// sent.
    mute: Range<i32>,
    mute_for: Duration,
    owed: Vec<Crossing>,
}

impl Thin {
    fn new(hangs: Range<u64>) -> Thin {
        let now = Instant::now();
        Thin {
            cluster: Scripted::new(3, 1),
            began: now,
            now,
            elapsed: Rc::default(),
            crossing: None,
            patience: REQUEST,
            hangs,
            is_probe_blocked: false,
            clogs_for: Duration::ZERO,
            clogged_until: now,
            breaks: Default::default(),
            given_back: Vec::new(),
            others_answer: false,
            is_leaderless: false,
            mute: 0..0,
            mute_for: Duration::MAX,
            owed: Vec::new(),
        }
    }

    fn is_hung(&self) -> bool {
        self.hangs.contains(&(self.now - self.began).as_secs())
    }

    fn passes(&mut self, time: Duration) {
        let is_hung = self.is_hung();
        self.now += time;
        self.elapsed.set(self.now - self.began);
        if !self.mute.is_empty() && self.elapsed.get() >= self.mute_for {
            self.arrives();
        }
        let Some(crossing) = &mut self.crossing else {
            return;
        };
        if !is_hung {
            crossing.crossed += time;
        }
        let limit = if crossing.is_careful {
            self.patience
        } else {
            REQUEST
        };
        if crossing.crossed >= Duration::from_secs(crossing.value.len() as u64 / RATE) {
            self.arrives();
        } else if self.now - crossing.since >= limit {
            (crossing.since, crossing.crossed) = (self.now, Duration::ZERO);
            self.breaks[usize::from(crossing.is_careful)].timeouts += 1;
        }
    }

    fn arrives(&mut self) {
        let crossing = self.crossing.take();
        let mut owed = Vec::new();
        if self.mute_for == Duration::MAX || self.elapsed.get() >= self.mute_for {
            self.mute = 0..0;
            owed = std::mem::take(&mut self.owed);
        }
        for record in owed.into_iter().chain(crossing) {
            let headers = record.headers.iter();
            let headers: Vec<_> = headers
                .map(|(name, value)| (&**name, value.as_deref()))
                .collect();
            let outgoing = Outgoing {
                topic: "t",
                partition: record.partition,
                key: None,
                value: Some(&record.value),
                headers: &headers,
                timestamp_millis: 1,
                token: record.token,
                is_careful: record.is_careful,
            };
            while self.cluster.send(&outgoing) == Err(SendError::QueueFull) {}
        }
    }
}

impl Sink for Thin {
    forward!(cluster: begin_piece end_piece trouble address);

    fn probe(&mut self, link: &LinkOptions) -> Option<Probed> {
        match self.is_probe_blocked {
            true => Some(Err("no route to host".to_owned()).into()),
            false => self.cluster.probe(link),
        }
    }

    fn leader(&mut self, _: &str, n: u32, timeout: Duration) -> Result<Leader, kafka::Error> {
        if self.mute.contains(&n.cast_signed()) {
            self.passes(timeout);
            return Ok(Leader::Silent);
        }
        if !self.is_hung() {
            return Ok(Leader::Answers);
        }
        if self.is_leaderless {
            return Ok(Leader::None);
        }
        self.passes(timeout);
        Ok(Leader::Silent)
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        let value = record.value.unwrap();
        let is_mute = self.mute.contains(&record.partition);
        if value.len() < 1000 && !is_mute {
            return self.cluster.send(record);
        }
        let headers = record.headers.iter();
        let record = Crossing {
            partition: record.partition,
            is_careful: record.is_careful,
            token: record.token,
            value: value.to_owned(),
            headers: headers
                .map(|&(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            since: self.now,
            crossed: Duration::ZERO,
        };
        if is_mute {
            self.owed.push(record);
        } else {
            assert!(self.crossing.replace(record).is_none(), "it is alone");
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        self.passes(timeout);
        if !self.is_hung() {
            self.cluster.poll(timeout, reports);
        }
        reports.append(&mut self.given_back);
    }

    fn in_flight(&self) -> usize {
        self.cluster.in_flight()
            + usize::from(self.crossing.is_some())
            + self.given_back.len()
            + self.owed.len()
    }

    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error> {
        let waits = self.crossing.as_ref().is_some_and(|c| !c.is_careful);
        let is_mute = self.is_hung() && !self.others_answer;
        if !waits && !is_mute && self.now >= self.clogged_until {
            return self.cluster.partitions(topic, timeout);
        }
        self.passes(timeout);
        Err(kafka::Error::Unreachable {
            action: "asking for the partitions",
            timeout,
            code: -185,
            name: "timed out".to_owned(),
        })
    }

    fn breaks(&mut self, is_careful: bool) -> Breaks {
        std::mem::take(&mut self.breaks[usize::from(is_careful)])
    }

    fn be_patient(&mut self, longest: Duration) {
        self.patience = longest;
    }

    fn rebuild_careful(&mut self) {
        let is_careful = |record: &mut Crossing| record.is_careful;
        let given_back = self.owed.extract_if(.., is_careful);
        let given_back = given_back.chain(self.crossing.take_if(is_careful));
        self.clogged_until = self.now + self.clogs_for;
        let given_back = given_back.map(|record| in_doubt(record.token));
        self.given_back.extend(given_back);
        self.cluster.rebuild_careful();
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        self.crossing.take_if(|crossing| !crossing.is_careful);
        self.owed.retain(|record| record.is_careful);
        self.cluster.rebuild()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn pause(&mut self, pause: Duration) {
        self.passes(pause);
    }

    fn rest(&mut self, wait: Duration) -> Duration {
        self.passes(wait);
        Duration::ZERO
    }
}

/// Drains records of which the eleventh takes the line so long. What became of it, and whether the link was ever
/// anything but up once it was.
fn drain_thin(takes: u64, mut thin: Thin, on_too_slow: OnTooSlow) -> (Drained, Thin, bool) {
    let scratch = Scratch::new();
    scratch.fill_with("t", 10, b"before");
    scratch.fill_with("t", 1, &vec![b'v'; (RATE * takes) as usize]);
    scratch.fill_with("t", 10, b"behind");
    let mut options = ShipOptions::default();
    options.timeout = Some(Duration::from_secs(4000));
    options.max_in_flight_bytes = THIN;
    options.too_slow_after = LONGEST;
    options.on_too_slow = on_too_slow;
    let (stop, mut was_up, mut is_steady) = (AtomicBool::new(false), false, true);
    let mut tell = |now: &ship::Progress| {
        was_up |= now.link_state == LinkState::Up;
        is_steady &= !was_up || now.link_state == LinkState::Up;
    };
    let drained = ship::drain_into(&scratch.store, &mut thin, &options, &stop, &mut tell).unwrap();
    println!("{:.1?}, {:?}", thin.now - thin.began, drained.held);
    (drained, thin, is_steady)
}

#[test]
fn a_link_that_is_silent_behind_a_large_record_stays_up_until_that_arrives_or_is_held() {
    for takes in [20, 50, 59, 61, 90, 250, 299] {
        let (drained, thin, is_steady) = drain_thin(takes, Thin::new(0..0), OnTooSlow::Hold);
        assert!(drained.is_empty && is_steady, "{takes} s");
        check(&thin.cluster, 0..21);
    }
    let (drained, thin, is_steady) = drain_thin(450, Thin::new(0..0), OnTooSlow::Hold);
    assert_eq!(drained.held[0].why.kind(), "too_slow");
    assert!(is_steady);
    check(&thin.cluster, 0..10);
    // The line is busy for a while with what is of no use any more.
    let mut thin = Thin::new(0..0);
    thin.clogs_for = Duration::from_secs(20);
    let (drained, thin, _) = drain_thin(450, thin, OnTooSlow::DeadLetter);
    assert_eq!(drained.counters.dead_lettered, 1);
    check(&thin.cluster, (0..21).filter(|n| *n != 10));
}

/// A large record is on its way when the broker hangs, or while it does so.
#[test]
fn a_broker_that_hangs_for_longer_than_any_request_makes_no_record_too_slow() {
    for begins in [1, 10, 40, 70, 140] {
        for lasts in [200, 400, 3000] {
            let thin = Thin::new(begins..begins + lasts);
            let (drained, thin, _) = drain_thin(90, thin, OnTooSlow::DeadLetter);
            assert!(drained.is_empty);
            assert_eq!(drained.counters.dead_lettered, 0, "{begins} s, {lasts} s");
            check(&thin.cluster, 0..21);
        }
    }
}

/// What is held is tried carefully, and at first with the usual time for a request.
#[test]
fn a_slow_record_is_found_in_a_trial_too() {
    let scratch = filled();
    let mut sink = Scripted::new(11, 4);
    sink.slow = HashSet::from([90]);
    sink.flaky = HashSet::from([90]);
    let mut sink = Passing::new(sink, |cluster: &mut Scripted, _| {
        if cluster.refusals > 0 {
            cluster.flaky.clear();
        }
    });
    let mut options = options();
    options.max_in_flight_bytes = THIN;
    options.too_slow_after = Duration::from_millis(50);
    options.timeout = Some(Duration::from_secs(5));
    let stop = AtomicBool::new(false);
    let drained = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
    assert!(drained.unwrap().is_empty);
    check(&sink.cluster, 0..COUNT);
}

/// Another broker answers about the topic meanwhile: that nobody leads the partition, or that the one does
/// that hangs.
#[test]
fn a_broker_that_hangs_beside_another_one_makes_no_record_too_slow() {
    for (begins, lasts, is_leaderless) in [
        (40, 400, false),
        (40, 400, true),
        (140, 1000, false),
        (140, 1000, true),
    ] {
        let mut thin = Thin::new(begins..begins + lasts);
        (thin.others_answer, thin.is_leaderless) = (true, is_leaderless);
        let (drained, thin, _) = drain_thin(90, thin, OnTooSlow::DeadLetter);
        assert!(drained.is_empty);
        assert_eq!(drained.counters.dead_lettered, 0, "{begins} s, {lasts} s");
        check(&thin.cluster, 0..21);
    }
}

#[test]
fn a_slow_record_arrives_where_no_probe_gets_through() {
    let mut thin = Thin::new(0..0);
    thin.is_probe_blocked = true;
    let (drained, thin, _) = drain_thin(90, thin, OnTooSlow::Hold);
    assert!(drained.is_empty);
    check(&thin.cluster, 0..21);
}

/// A small record is without an answer, and leaves no room for a large one whose acknowledgement would tell of
/// that.
#[test]
fn a_small_record_whose_broker_cannot_be_reached_holds_up_no_large_one() {
    let scratch = Scratch::new();
    let large = vec![b'v'; (RATE * 20) as usize];
    let of = |partition, value| MessageRef {
        partition: Some(partition),
        value: Some(value),
        ..MessageRef::to("t")
    };
    for n in 0..20 {
        let message = match n {
            5 => of(1, b"silent"),
            15 => of(0, &large),
            _ => of(0, b"small"),
        };
        drop(scratch.store.lane().append(&message).unwrap());
    }
    scratch.store.lane().sync().unwrap();
    let mut thin = Thin::new(0..0);
    (thin.cluster, thin.mute) = (Scripted::new(3, 2), 1..2);
    let mut options = ShipOptions::default();
    options.timeout = Some(Duration::from_secs(4000));
    options.max_in_flight_bytes = THIN;
    let (stop, mut was_held) = (AtomicBool::new(false), false);
    let mut tell = |now: &ship::Progress| {
        was_held |= now.held.iter().any(|held| held.why.kind() == "silent");
    };
    let drained = ship::drain_into(&scratch.store, &mut thin, &options, &stop, &mut tell).unwrap();
    let took = thin.now - thin.began;
    println!("{took:.1?}");
    assert!(drained.is_empty && was_held);
    assert!(took < Duration::from_secs(300), "{took:.1?}");
    check(&thin.cluster, 0..20);
}

/// A line of which one broker cannot be reached for an hour: that of all partitions but the first.
struct Stranded<'a> {
    partitions: i32,
    /// What is sent at first, each to a partition, and so long.
    first: &'a [(i32, usize)],
    /// It is in the dead letters.
    are_letters: bool,
    /// How long a record for partition 0 is that is appended after a quarter of the hour, and of two.
    later: Option<usize>,
    max_in_flight: u64,
}

const HOUR: u64 = 3600;

impl Stranded<'_> {
    /// For how long nothing was shipped while a record was appended every ten seconds; in the hour, and in its
    /// second half. And how long after that everything was.
    fn gaps(&self) -> [u64; 3] {
        let scratch = Scratch::new();
        let append = |partition, value: &[u8]| {
            let message = MessageRef {
                partition: Some(partition),
                value: Some(value),
                ..MessageRef::to("t")
            };
            drop(scratch.store.lane().append(&message).unwrap());
            scratch.store.lane().sync().unwrap();
        };
        for &(partition, len) in self.first {
            append(partition, &vec![b'v'; len]);
        }
        let mut thin = Thin::new(0..0);
        thin.cluster = Scripted::new(3, self.partitions.cast_unsigned());
        thin.mute = 1..self.partitions;
        thin.mute_for = Duration::from_secs(HOUR);
        let mut count = self.first.len() as u64;
        if self.are_letters {
            thin.cluster.poison = (0..count).collect();
            scratch.drain(&mut thin.cluster).unwrap();
            thin.cluster.poison.clear();
            let letters = scratch.store.dead_letters().unwrap();
            let all = letters.open_letters(|_, _, _| true);
            assert_eq!(letters.mark_pending(&all).unwrap(), count);
        }
        let mut options = ShipOptions::default();
        options.timeout = Some(Duration::from_secs(2 * HOUR));
        options.max_in_flight_bytes = self.max_in_flight;
        let (stop, elapsed) = (AtomicBool::new(false), Rc::clone(&thin.elapsed));
        let (mut ticks, mut shipped, mut gaps) = (0, (0, 0), [0, 0]);
        let mut tell = |now: &ship::Progress| {
            let seconds = elapsed.get().as_secs();
            if seconds >= HOUR {
                return;
            }
            if seconds >= ticks * 10 {
                let len = self.later.filter(|_| [90, 180].contains(&ticks));
                append(0, &vec![b'l'; len.unwrap_or(4)]);
                (ticks, count) = (ticks + 1, count + 1);
            }
            let gap = seconds - shipped.1;
            gaps[0] = gap.max(gaps[0]);
            if shipped.1 >= HOUR / 2 {
                gaps[1] = gap.max(gaps[1]);
            }
            if now.shipped > shipped.0 {
                shipped = (now.shipped, seconds);
            }
        };
        let drained = ship::drain_into(&scratch.store, &mut thin, &options, &stop, &mut tell);
        assert!(drained.unwrap().is_empty);
        let behind = elapsed.get().as_secs() - HOUR;
        println!("{gaps:?} s, then {behind} s");
        assert!(ticks > HOUR / 20);
        check(&thin.cluster, 0..count);
        [gaps[0], gaps[1], behind]
    }
}

/// Whether that is large or a lot, of one partition or of several, and whether there is room for more beside it or
/// not.
#[test]
fn what_is_sent_to_a_broker_that_cannot_be_reached_holds_up_no_other_for_good() {
    let base = Stranded {
        partitions: 2,
        first: &[(0, 10), (1, 80_000)],
        are_letters: false,
        later: None,
        max_in_flight: THIN,
    };
    let many = [vec![(0, 10)], vec![(1, 900); 80], vec![(0, 10)]].concat();
    let of_ten: Vec<_> = (0..11)
        .map(|n| (n, 80_000.min(n as usize * 80_000 + 10)))
        .collect();
    for stranded in [
        Stranded {
            first: &many,
            max_in_flight: 64 << 20,
            ..base
        },
        Stranded { ..base },
        Stranded {
            first: &[(0, 10), (1, 33_000), (1, 33_000), (0, 10)],
            max_in_flight: 100_000,
            ..base
        },
        Stranded {
            partitions: 11,
            first: &of_ten,
            ..base
        },
        Stranded {
            first: &[(1, 80_000)],
            are_letters: true,
            ..base
        },
        Stranded {
            partitions: 11,
            first: &of_ten[1..],
            are_letters: true,
            ..base
        },
        // A small one that is tried all the time.
        Stranded {
            first: &[(0, 10), (1, 10)],
            later: Some(80_000),
            ..base
        },
        Stranded {
            first: &[(0, 10), (1, 10)],
            later: Some(400_000),
            max_in_flight: 64 << 20,
            ..base
        },
        Stranded {
            first: &[(1, 10)],
            are_letters: true,
            later: Some(80_000),
            ..base
        },
    ] {
        let [in_all, later, behind] = stranded.gaps();
        assert!(in_all < 450 && later < 30, "{in_all} s, {later} s");
        assert!(behind < 300, "{behind} s");
    }
}
