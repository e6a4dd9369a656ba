//! Several lanes on one link, and the two streams of a `live_first` lane.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferrylog::Producer;
use ferrylog::kafka::{self, Outcome, Outgoing, Report, SendError};
use ferrylog::message::MessageRef;
use ferrylog::producer::OpenError;
use ferrylog::ship::exactly_once::{self, ExactlyOnceOptions};
use ferrylog::ship::{self, Sink};
use ferrylog::store::{LaneOptions, Order, Store, StoreOptions};
use ferrylog::wal::{Durability, Options};
use tempfile::TempDir;

use crate::random::Random;
use crate::sink::{Fault, Passing, Scripted, forward};
use crate::support::options;

fn quick() -> Options {
    let mut options = Options::default();
    options.durability = Durability::Os;
    options
}

fn open(options: &StoreOptions) -> (Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path().join("store"), options).unwrap();
    (store, dir)
}

fn fill(store: &Store, topic: &str, count: u64, len: usize) {
    let (lane, value) = (store.route(topic), vec![7; len]);
    for n in 0..count {
        let key = n.to_string();
        let message = MessageRef {
            key: Some(key.as_bytes()),
            value: Some(&value),
            ..MessageRef::to(topic)
        };
        // The sync below waits for all of them.
        drop(lane.append(&message).unwrap());
    }
    lane.sync().unwrap();
}

/// Large records beside small ones: the small must not take each bit of room from the large.
#[test]
fn ten_lanes_share_a_thin_link_by_their_weights_whatever_the_sizes() {
    const WEIGHTS: [u64; 10] = [8, 8, 8, 4, 4, 4, 4, 1, 1, 1];
    const SIZES: [usize; 10] = [12_000, 100, 900, 100, 12_000, 3000, 500, 100, 3000, 12_000];
    /// What goes over the link in this test.
    const BYTES: u64 = 40_000_000;
    let sum: u64 = WEIGHTS.iter().sum();
    let mut store_options = StoreOptions::new(quick());
    for (n, weight) in WEIGHTS.into_iter().enumerate() {
        let mut lane = LaneOptions::new(quick());
        lane.topics = vec![format!("t{n}")];
        lane.weight = u32::try_from(weight).unwrap();
        store_options.lanes.insert(format!("lane-{n}"), lane);
    }
    let (store, _dir) = open(&store_options);
    for (n, size) in SIZES.into_iter().enumerate() {
        let share = BYTES * WEIGHTS[n] / sum;
        fill(
            &store,
            &format!("t{n}"),
            share * 3 / 2 / (size as u64 + 400),
            size,
        );
    }
    let mut sink = Scripted::new(1, 1);
    // Room comes back bit by bit.
    sink.steps_max = 4;
    let stop = Arc::new(AtomicBool::new(false));
    sink.stop_at_bytes = Some((BYTES, Arc::clone(&stop)));
    let mut thin = options();
    thin.max_in_flight_bytes = 128 * 1024;
    ship::drain_into(&store, &mut sink, &thin, &stop, &mut |_| {}).unwrap();

    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for record in sink.written.values().flatten() {
        *bytes.entry(&record.topic).or_default() += record.cost();
    }
    let total: u64 = bytes.values().sum();
    for (n, weight) in WEIGHTS.into_iter().enumerate() {
        let got = bytes[&*format!("t{n}")] as f64 / total as f64;
        let fair = weight as f64 / sum as f64;
        println!(
            "weight {weight}, {} bytes a record: {got:.4}, fair {fair:.4}",
            SIZES[n]
        );
        assert!(
            (got - fair).abs() <= fair / 10.0,
            "lane {n}: {got} of {fair}"
        );
    }
}

/// Of those that wait when the link comes up so many go first.
const NEWEST: u64 = 1000;

/// A lane that takes records while it is shipped: a few all the time, and many in each outage.
struct Gateway<'a> {
    sink: Scripted,
    store: &'a Store,
    /// Records that come in an outage.
    flood: u64,
    is_away: bool,
    /// Where every second record goes that comes while the link is up.
    second: &'static str,
    /// Nothing comes until the cluster answered, so that it is known where the log ends then.
    is_quiet: bool,
    end: u64,
    /// Where the log ended when the link came up.
    cuts: Vec<u64>,
    /// Records that came while the link was up: their numbers, and how many were written then.
    fresh: Vec<(u64, usize)>,
}

impl<'a> Gateway<'a> {
    fn new(sink: Scripted, store: &'a Store, backlog: u64) -> Gateway<'a> {
        fill(store, "t", backlog, 10);
        Gateway {
            sink,
            store,
            flood: 11_000,
            is_away: false,
            second: "t",
            is_quiet: false,
            end: backlog,
            cuts: vec![backlog - NEWEST],
            fresh: Vec::new(),
        }
    }

    fn drain(&mut self, stop: &AtomicBool) {
        let store = self.store;
        ship::drain_into(store, self, &options(), stop, &mut |_| {}).unwrap();
        self.cuts.push(self.end - NEWEST);
    }

    fn cut(&mut self) {
        self.cuts.push(self.end - NEWEST);
        self.is_quiet = true;
    }

    /// All arrived, and the first copies of each stream of a partition are in order.
    fn check(&self) {
        let mut found = HashSet::new();
        for seqs in self.sink.seqs() {
            let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
            for seq in seqs {
                if found.insert(seq) {
                    let stream = self.cuts.partition_point(|cut| *cut <= seq);
                    let before = newest.insert(stream, seq);
                    assert!(before < Some(seq), "{seq} after {before:?}");
                }
            }
        }
        assert_eq!(found.len() as u64, self.end, "lost");
        let totals = self.store.lane().totals();
        assert!(totals.balances() && totals.queued == 0, "{totals:?}");
        assert_eq!(totals.shipped, self.end);
    }
}

impl Sink for Gateway<'_> {
    forward!(sink: begin_piece end_piece in_flight trouble probe address);

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        if self.sink.sent_count % 50 == 49 && !self.is_quiet && self.end < 60_000 {
            let topic = ["t", self.second][self.fresh.len() % 2];
            fill(self.store, topic, 1, 10);
            self.fresh.push((self.end, self.sink.written_count));
            self.end += 1;
        }
        self.sink.send(record)
    }

    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        self.sink.poll(timeout, reports);
        let is_taken = |report: &Report| matches!(report.outcome, Outcome::Delivered { .. });
        self.is_quiet &= !reports.iter().any(is_taken);
        let is_away = self.sink.away_polls > 0;
        if is_away && !self.is_away {
            fill(self.store, "t", self.flood, 10);
            self.end += self.flood;
            self.cut();
        }
        self.is_away = is_away;
    }

    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error> {
        let answer = self.sink.partitions(topic, timeout);
        self.is_quiet &= answer.is_err();
        answer
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        self.cut();
        self.sink.rebuild()
    }
}

fn live_first() -> StoreOptions {
    let mut options = StoreOptions::new(quick());
    options.default.order = Order::LiveFirst;
    options
}

#[test]
fn the_newest_records_go_at_once_while_the_backlog_drains_beside_them() {
    let (store, _dir) = open(&live_first());
    let mut gateway = Gateway::new(Scripted::new(1, 1), &store, 12_000);
    gateway.drain(&AtomicBool::new(false));
    gateway.check();
    let written = &gateway.sink.seqs()[0];
    assert!(gateway.fresh.len() > 200, "{}", gateway.fresh.len());
    // The first ones stand behind the newest of those that waited.
    for &(seq, before) in gateway.fresh.iter().filter(|(_, before)| *before > 2500) {
        let at = written.iter().position(|s| *s == seq).unwrap();
        // What was in flight, and one turn of the backlog's.
        assert!(at - before < 600, "{seq} was the {at}-th after {before}");
    }
    assert_eq!(written.len(), 12_000 + gateway.fresh.len(), "sent twice");
    let first = written.iter().position(|seq| *seq == 11_999).unwrap();
    assert!(
        first < 2500,
        "the newest of those that waited was the {first}-th"
    );
}

#[test]
fn both_streams_keep_their_order_over_outages_rebuilds_and_restarts() {
    for seed in 0..8 {
        let (store, _dir) = open(&live_first());
        let mut random = Random(seed);
        let mut sink = Scripted::new(seed, 3);
        let mut at = 0;
        for n in 0..9 {
            at += 500 + random.below(3000) as usize;
            let polls = 2 + random.below(4) as u32;
            let fault = [Fault::Link { polls }, Fault::Spent, Fault::Refused][n % 3];
            sink.faults.push_back((at, fault));
        }
        let mut gateway = Gateway::new(sink, &store, 12_000);
        for _ in 0..3 {
            let stop = Arc::new(AtomicBool::new(false));
            let at = gateway.sink.written_count + 1000 + random.below(6000) as usize;
            gateway.sink.stop = Some((at, Arc::clone(&stop)));
            gateway.drain(&stop);
            assert!(stop.load(Ordering::Relaxed));
        }
        gateway.drain(&AtomicBool::new(false));
        gateway.check();
        assert!(gateway.sink.faults.is_empty());
        let spent = gateway.sink.rebuild_count;
        assert!(spent >= 6, "{spent}");
    }
}

#[test]
fn what_is_refused_for_itself_is_found_in_either_stream() {
    for seed in 0..4 {
        let (store, _dir) = open(&live_first());
        let mut sink = Scripted::new(seed, 2);
        sink.poison = [77, 10_999, 11_001, 12_001].into();
        let mut gateway = Gateway::new(sink, &store, 12_000);
        let store = gateway.store;
        let stop = AtomicBool::new(false);
        ship::drain_into(store, &mut gateway, &options(), &stop, &mut |_| {}).unwrap();
        let totals = store.lane().totals();
        assert_eq!((totals.dead_lettered, totals.queued), (4, 0), "{totals:?}");
        assert_eq!(totals.shipped, gateway.end - 4);
        let seqs = gateway.sink.seqs();
        for seqs in &seqs {
            for is_live in [false, true] {
                let of_stream = seqs.iter().filter(|seq| (**seq >= 11_000) == is_live);
                assert!(of_stream.is_sorted(), "seed {seed}");
            }
        }
    }
}

/// Records of both streams stand in one parking log, each stream in its own order.
#[test]
fn both_streams_are_parked_while_their_topic_is_missing_and_arrive_once_it_is_there() {
    for seed in 0..4 {
        let (store, _dir) = open(&live_first());
        let mut sink = Scripted::new(seed, 1);
        sink.missing.insert("gone".to_owned());
        fill(&store, "gone", 3000, 10);
        let mut gateway = Gateway::new(sink, &store, 12_000);
        (gateway.end, gateway.cuts, gateway.second) = (15_000, Vec::new(), "gone");
        let stop = AtomicBool::new(false);
        let mut options = options();
        options.park_after = Duration::ZERO;
        let store = gateway.store;
        let drained = ship::drain_into(store, &mut gateway, &options, &stop, &mut |_| {}).unwrap();
        let totals = store.lane().totals();
        assert!(
            !drained.is_empty && totals.queued == 0,
            "{drained:?} {totals:?}"
        );
        assert!(totals.moved > 3000, "{totals:?}");
        // The store as a whole still has them.
        let all = store.totals();
        assert!(all.balances(), "{all:?}");
        assert_eq!((all.accepted, all.moved), (gateway.end, 0));
        assert_eq!(all.queued, totals.moved);

        gateway.sink.missing.clear();
        let drained = ship::drain_into(store, &mut gateway, &options, &stop, &mut |_| {}).unwrap();
        assert!(drained.is_empty);
        let mut found = 0;
        for seqs in gateway.sink.by_topic.values() {
            found += seqs.len() as u64;
            for is_live in [false, true] {
                let of_stream = seqs.iter().filter(|seq| (**seq >= 14_000) == is_live);
                assert!(of_stream.is_sorted(), "seed {seed}");
            }
        }
        assert_eq!(found, gateway.end, "seed {seed}");
    }
}

/// A topic is missing while its records come, which are read and left behind; it appears when all others
/// were written a while ago.
#[test]
fn what_was_read_and_left_behind_is_of_one_stream_though_the_link_goes_while_it_is_read_again() {
    for seed in 0..2 {
        let (store, _dir) = open(&live_first());
        fill(&store, "t", 100, 10);
        let mut sink = Scripted::new(seed, 1);
        sink.missing.insert("late".to_owned());
        sink.faults.push_back((10_800, Fault::Link { polls: 30 }));
        let (mut others, mut idle_polls) = (0, 0);
        let mut late = Passing::new(sink, |cluster: &mut Scripted, _| {
            // When the link is up: what waited then is not far behind.
            if others == 0 && cluster.sent_count > 0 {
                others = 10_100;
                fill(&store, "t", 10_000, 10);
                fill(&store, "late", 14_000, 10);
            } else if cluster.written_count == others {
                idle_polls += 1;
                if idle_polls == 20 {
                    cluster.missing.clear();
                }
            }
        });
        let mut options = options();
        options.park_after = Duration::from_secs(3600);
        options.until = ship::Until::Stopped;
        let stop = AtomicBool::new(false);
        let mut progress = |progress: &ship::Progress| {
            stop.fetch_or(progress.queued == 0, Ordering::Relaxed);
        };
        ship::drain_into(&store, &mut late, &options, &stop, &mut progress).unwrap();
        assert!(late.cluster.faults.is_empty());
        let written = &late.cluster.by_topic[&("late".to_owned(), 0)];
        assert!(written.iter().copied().eq(10_100..24_100), "seed {seed}");
    }
}

#[test]
fn a_lane_with_two_streams_is_refused_where_it_is_to_be_shipped_in_transactions() {
    let told = |error: ship::Error| {
        let told = error.to_string();
        assert!(told.contains("lane `default`"), "{told}");
        assert!(told.contains("a lane of its own"), "{told}");
    };
    let (store, dir) = open(&live_first());
    // Nobody is there: it is not even tried.
    let (kafka, nobody) = (kafka::Settings::new("127.0.0.1:1"), AtomicBool::new(false));
    let options = ExactlyOnceOptions::default();
    let each = exactly_once::drain(&store, &kafka, &options, &nobody, &mut |_| {});
    told(each.unwrap_err());
    let lane = store.lane();
    let one = exactly_once::drain_lane(&store, lane, &kafka, &options, &nobody, &mut |_| {});
    told(one.unwrap_err());
    let opened = Producer::builder(dir.path().join("other"), kafka)
        .store(live_first())
        .exactly_once(options)
        .open();
    match opened {
        Err(OpenError::Ship(error)) => told(error),
        other => panic!("{other:?}"),
    }
    assert!(!dir.path().join("other").exists(), "nothing was touched");
}
