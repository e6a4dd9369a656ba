//! Order, loss and duplicates under every fault the script knows.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::kafka::{self, ErrorClass, Outgoing, Probed, Report, Rung, SendError, Trouble};
use ferrylog::message::{Header, MessageRef};
use ferrylog::ship::{self, Error, LinkOptions, LinkState, Sink, Until};
use ferrylog::store;
use ferrylog::wal::{self, Class, OnCorruption, OnFull, Options, SeqNo};

use crate::random::Random;
use crate::sink::{Fault, Scripted, forward};
use crate::support::{Scratch, options};

const SEEDS: std::ops::Range<u64> = 0..40;

/// First copies are in order, and every number of `expected` is there.
fn check_first_copies(sink: &Scripted, expected: std::ops::Range<u64>) {
    let mut found = HashSet::new();
    for seqs in sink.seqs() {
        let mut newest = None;
        for seq in seqs {
            if found.insert(seq) {
                assert!(newest < Some(seq), "{seq} after {newest:?}");
                newest = Some(seq);
            }
        }
    }
    assert_eq!(found, expected.collect(), "lost or invented");
}

#[test]
fn every_record_arrives_once_and_in_order() {
    for seed in SEEDS {
        let scratch = Scratch::new();
        scratch.fill("t", 0..3000);
        let mut sink = Scripted::new(seed, 4);
        let drained = scratch.drain(&mut sink).unwrap();
        assert_eq!((drained.shipped, drained.is_empty), (3000, true));
        assert_eq!(sink.sent_count, 3000);
        check_first_copies(&sink, 0..3000);
        assert_eq!(scratch.queued(), 0);
        // A second run has nothing to send.
        assert_eq!(scratch.drain(&mut sink).unwrap().shipped, 0);
        assert_eq!(sink.sent_count, 3000);
    }
}

#[test]
fn a_key_stays_in_its_partition() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..2000);
    let mut sink = Scripted::new(1, 5);
    scratch.drain(&mut sink).unwrap();
    let mut homes = std::collections::HashMap::new();
    for (partition, records) in &sink.written {
        for key in records.iter().filter_map(|r| r.key.clone()) {
            assert_eq!(homes.entry(key).or_insert(partition), &partition);
        }
    }
    assert_eq!(homes.len(), 17);
}

#[test]
fn a_link_lost_midway_costs_neither_a_record_nor_a_duplicate() {
    for seed in SEEDS {
        let scratch = Scratch::new();
        scratch.fill("t", 0..3000);
        let mut sink = Scripted::new(seed, 3);
        let mut random = Random(seed);
        for _ in 0..3 {
            let polls = random.below(5) as u32;
            let at = random.below(2900) as usize;
            sink.faults.push_back((at, Fault::Link { polls }));
        }
        let drained = scratch.drain(&mut sink).unwrap();
        assert_eq!((drained.shipped, drained.rebuilds), (3000, 0));
        assert_eq!(sink.sent_count, 3000);
        check_first_copies(&sink, 0..3000);
    }
}

#[test]
fn a_spent_producer_is_replaced_and_first_copies_stay_in_order() {
    for seed in SEEDS {
        let scratch = Scratch::new();
        scratch.fill("t", 0..3000);
        let mut sink = Scripted::new(seed, 3);
        let mut at = 0;
        let mut random = Random(seed);
        for _ in 0..4 {
            at += random.below(700) as usize;
            sink.faults.push_back((at, Fault::Spent));
        }
        let drained = scratch.drain(&mut sink).unwrap();
        assert_eq!((drained.rebuilds, sink.rebuild_count), (4, 4));
        assert_eq!(drained.shipped, 3000, "each is counted once");
        check_first_copies(&sink, 0..3000);
        assert_eq!(scratch.queued(), 0);
    }
}

/// What is written and not reported may come twice, and only that: as a run that was written
/// before, with the same identity.
#[test]
fn duplicates_repeat_a_run_with_the_same_identity() {
    let mut repeated = 0;
    for seed in SEEDS {
        let scratch = Scratch::new();
        scratch.fill("t", 0..2000);
        let mut sink = Scripted::new(seed, 2);
        sink.faults.push_back((1000, Fault::Spent));
        scratch.drain(&mut sink).unwrap();
        for records in sink.written.values() {
            for record in records {
                let same = |r: &&crate::sink::Written| r.value == record.value;
                assert!(records.iter().filter(same).all(|r| r == record));
            }
        }
        repeated += sink.written_count - 2000;
        check_first_copies(&sink, 0..2000);
        for seqs in sink.seqs() {
            let steps_back = seqs.windows(2).filter(|w| w[1] <= w[0]).count();
            assert!(
                steps_back <= 1,
                "{steps_back} runs were repeated by one fault"
            );
        }
    }
    assert!(repeated > 0, "nothing was ever repeated");
}

/// A batch is refused once, and its records are taken one by one: nobody was to blame.
#[test]
fn a_batch_that_is_refused_once_arrives_in_order_without_a_dead_letter() {
    for seed in SEEDS {
        let scratch = Scratch::new();
        scratch.fill("t", 0..2000);
        let mut sink = Scripted::new(seed, 2);
        sink.faults.push_back((700, Fault::Refused));
        let drained = scratch.drain(&mut sink).unwrap();
        assert_eq!((drained.shipped, drained.rebuilds), (2000, 1));
        assert_eq!(sink.written_count, 2000, "nothing twice");
        check_first_copies(&sink, 0..2000);
    }
}

#[test]
fn a_report_that_comes_twice_settles_once() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..1000);
    let mut sink = Scripted::new(3, 2);
    sink.reports_twice = true;
    assert_eq!(scratch.drain(&mut sink).unwrap().shipped, 1000);
    assert_eq!(scratch.queued(), 0);
}

#[test]
fn what_is_settled_above_the_low_mark_is_not_sent_again() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..100);
    let lane = scratch.store.lane();
    lane.settle(SeqNo::new(10)..SeqNo::new(20), Class::Shipped);
    lane.settle(SeqNo::new(50)..SeqNo::new(51), Class::Shipped);
    let mut sink = Scripted::new(4, 1);
    assert_eq!(scratch.drain(&mut sink).unwrap().shipped, 89);
    let expected = (0..100).filter(|n| !(10..20).contains(n) && *n != 50);
    assert_eq!(sink.seqs(), [expected.collect::<Vec<_>>()]);
}

#[test]
fn a_stop_finishes_what_is_in_flight_and_the_next_run_goes_on_without_duplicates() {
    for seed in SEEDS {
        let scratch = Scratch::new();
        scratch.fill("t", 0..3000);
        let mut sink = Scripted::new(seed, 3);
        let stop = Arc::new(AtomicBool::new(false));
        sink.stop = Some((1000, Arc::clone(&stop)));
        let drained =
            ship::drain_into(&scratch.store, &mut sink, &options(), &stop, &mut |_| {}).unwrap();
        assert!(!drained.is_empty && drained.shipped >= 1000 && drained.shipped < 3000);
        assert_eq!(
            sink.written_count, sink.sent_count,
            "what was in flight is finished"
        );
        assert_eq!(scratch.queued(), 3000 - drained.shipped);

        scratch.drain(&mut sink).unwrap();
        assert_eq!(sink.sent_count, 3000);
        check_first_copies(&sink, 0..3000);
    }
}

#[test]
fn what_is_appended_while_shipping_goes_on_is_shipped_too() {
    let scratch = Scratch::new();
    let mut sink = Scripted::new(6, 2);
    let stop = AtomicBool::new(false);
    let mut options = options();
    options.until = Until::Stopped;
    thread::scope(|scope| {
        scope.spawn(|| {
            for part in 0..10 {
                scratch.fill("t", part * 100..part * 100 + 100);
            }
        });
        let mut progress = |p: &ship::Progress| {
            if p.shipped == 1000 {
                stop.store(true, Ordering::Relaxed);
            }
        };
        ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut progress).unwrap();
    });
    check_first_copies(&sink, 0..1000);
}

#[test]
fn an_unknown_topic_is_named_and_nothing_is_lost() {
    let scratch = Scratch::new();
    scratch.fill("no-such-topic", 0..10);
    let mut sink = Scripted::new(7, 1);
    sink.partition_count = None;
    let drained = scratch.drain(&mut sink).unwrap();
    assert!(!drained.is_empty);
    let told = drained.held[0].to_string();
    assert!(
        told.contains("no-such-topic") && told.contains("create it"),
        "{told}"
    );
    assert_eq!((scratch.queued(), sink.sent_count), (10, 0));
    // Once it is there, everything goes.
    sink.partition_count = Some(3);
    assert!(scratch.drain(&mut sink).unwrap().is_empty);
    check_first_copies(&sink, 0..10);
}

#[test]
fn a_partition_that_does_not_exist_is_named_and_holds_up_no_other() {
    let scratch = Scratch::new();
    let message = MessageRef {
        partition: Some(4),
        ..MessageRef::to("t")
    };
    scratch.store.lane().append_wait(&message).unwrap();
    scratch.fill("t", 1..100);
    let mut sink = Scripted::new(8, 4);
    let drained = scratch.drain(&mut sink).unwrap();
    assert_eq!((drained.shipped, drained.is_empty), (99, false));
    let told = drained.held[0].to_string();
    assert!(told.contains("partition 4, and the topic has 4"), "{told}");
    assert_eq!(scratch.queued(), 1);
    check_first_copies(&sink, 1..100);
}

#[test]
fn a_cluster_that_cannot_be_reached_ends_the_wait_after_the_timeout() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..10);
    let mut sink = Scripted::new(9, 1);
    sink.is_reachable = false;
    let mut options = options();
    options.timeout = Some(Duration::from_millis(300));
    let stop = AtomicBool::new(false);
    let mut states = Vec::new();
    let error = ship::drain_into(
        &scratch.store,
        &mut sink,
        &options,
        &stop,
        &mut |progress| {
            states.push(progress.link_state);
        },
    );
    let Error::Unreachable { servers, why, .. } = error.unwrap_err() else {
        panic!("not unreachable");
    };
    assert_eq!(servers, "scripted:9092");
    assert!(!why.is_empty());
    assert!(states.iter().all(|s| *s != LinkState::Up), "{states:?}");
    assert_eq!((scratch.queued(), sink.sent_count), (10, 0));
}

/// Metadata answers, the link seems fine, and nothing is ever acknowledged.
struct Mute {
    in_flight: usize,
}

impl Sink for Mute {
    fn send(&mut self, _: &Outgoing<'_>) -> Result<(), SendError> {
        self.in_flight += 1;
        Ok(())
    }

    fn begin_piece(&mut self, _: &str, _: i32) -> bool {
        false
    }

    fn end_piece(&mut self, _: &str, _: i32) {}

    fn poll(&mut self, timeout: Duration, _: &mut Vec<Report>) {
        thread::sleep(timeout);
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn partitions(&mut self, _: &str, _: Duration) -> Result<u32, kafka::Error> {
        Ok(1)
    }

    /// So that the cluster is asked again and again.
    fn trouble(&mut self) -> Option<Trouble> {
        Some(Trouble {
            class: ErrorClass::Network,
            code: -195,
            timed_out: false,
            reason: "a doubt".to_owned(),
        })
    }

    fn probe(&mut self, _: &LinkOptions) -> Option<Probed> {
        Some(Probed::default())
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        self.in_flight = 0;
        Ok(())
    }

    fn address(&self) -> &'static str {
        "mute:9092"
    }
}

#[test]
fn a_cluster_that_answers_and_acknowledges_nothing_ends_the_wait_after_the_timeout() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..10);
    let mut options = options();
    options.timeout = Some(Duration::from_millis(300));
    options.stop_grace = Duration::from_millis(10);
    let stop = AtomicBool::new(false);
    let ended = ship::drain_into(
        &scratch.store,
        &mut Mute { in_flight: 0 },
        &options,
        &stop,
        &mut |_| {},
    );
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(
        error.to_string().contains("acknowledges nothing"),
        "{error}"
    );
    assert_eq!(scratch.queued(), 10);
}

#[test]
fn an_empty_lane_needs_no_cluster() {
    let scratch = Scratch::new();
    let mut sink = Scripted::new(10, 1);
    sink.is_reachable = false;
    let drained = scratch.drain(&mut sink).unwrap();
    assert_eq!((drained.shipped, drained.is_empty), (0, true));
}

#[test]
fn producers_that_fail_one_after_the_other_end_the_wait_after_the_timeout() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..10);
    let mut sink = Scripted::new(11, 1);
    sink.faults = (0..100_000).map(|_| (0, Fault::Spent)).collect();
    let mut options = options();
    options.timeout = Some(Duration::from_secs(2));
    let stop = AtomicBool::new(false);
    // Each of them writes something and reports nothing.
    let error = ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {});
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(sink.rebuild_count > 2, "{}", sink.rebuild_count);
    assert_eq!(scratch.queued(), 10);
}

#[test]
fn everything_of_a_record_travels_and_its_identity_with_it() {
    let scratch = Scratch::new();
    let headers = [
        Header {
            name: "traceparent",
            value: Some(b"00-1"),
        },
        Header {
            name: "empty",
            value: None,
        },
    ];
    let message = MessageRef {
        key: Some(b""),
        headers: &headers,
        timestamp_millis: Some(1_234),
        value: None,
        ..MessageRef::to("t")
    };
    let lane = scratch.store.lane();
    lane.append_wait(&message).unwrap();
    let mut sink = Scripted::new(12, 1);
    scratch.drain(&mut sink).unwrap();
    let written = &sink.written[&0][0];
    assert_eq!(written.key, Some(vec![]));
    assert_eq!(written.value, None);
    assert_eq!(written.timestamp_millis, 1_234);
    let id = format!("{}-0", lane.log_id());
    let expected = [
        ("traceparent".to_owned(), Some(b"00-1".to_vec())),
        ("empty".to_owned(), None),
        ("ferry-id".to_owned(), Some(id.into_bytes())),
    ];
    assert_eq!(written.headers, expected);
}

#[test]
fn the_identity_header_can_be_left_out() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..1);
    let mut options = options();
    options.id_header = false;
    let mut sink = Scripted::new(13, 1);
    let stop = AtomicBool::new(false);
    ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {}).unwrap();
    assert_eq!(sink.written[&0][0].headers, []);
}

/// Flips a byte of these, wherever they stand in the store's segments.
fn rot(scratch: &Scratch, text: &[u8]) {
    let files = std::fs::read_dir(scratch.lane_dir()).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    for path in paths.filter(|path| path.to_str().unwrap().contains("segment-")) {
        let mut bytes = std::fs::read(&path).unwrap();
        // In a tail slot, and in its place.
        let windows = bytes.windows(text.len()).enumerate();
        let found = windows.filter(|(_, found)| *found == text);
        let places: Vec<usize> = found.map(|(at, _)| at).collect();
        places.iter().for_each(|&at| bytes[at] ^= 1);
        std::fs::write(&path, bytes).unwrap();
        if !places.is_empty() {
            return;
        }
    }
    panic!("the text is in no segment");
}

/// A store of 2,000 records with one among them that rots once it is on disk.
fn rotten(options: Options) -> Scratch {
    let scratch = Scratch::with(options);
    scratch.fill("t", 0..1000);
    let message = MessageRef {
        value: Some(b"this will rot"),
        ..MessageRef::to("t")
    };
    scratch.store.lane().append_wait(&message).unwrap();
    scratch.fill("t", 1001..2001);
    rot(&scratch, b"this will rot");
    scratch
}

#[test]
fn what_cannot_be_read_any_more_is_told_and_holds_nothing_up() {
    let scratch = rotten(Options::default());
    let mut sink = Scripted::new(1, 3);
    let mut lost = Vec::new();
    let stop = AtomicBool::new(false);
    let drained = ship::drain_into(&scratch.store, &mut sink, &options(), &stop, &mut |now| {
        lost.extend(now.lost.iter().map(|lost| lost.gap.seqs.clone()))
    })
    .unwrap();
    assert_eq!(lost, [SeqNo::new(1000)..SeqNo::new(1001)]);
    assert_eq!((drained.shipped, drained.is_empty), (2000, true));
    let seqs: HashSet<u64> = sink.seqs().into_iter().flatten().collect();
    assert_eq!(seqs, (0..1000).chain(1001..2001).collect());
    assert_eq!(scratch.queued(), 0);
    assert_eq!(scratch.store.lane().totals().lost, 1);
}

#[test]
fn where_damage_is_to_be_refused_shipping_ends_in_front_of_it() {
    let mut options = Options::default();
    options.on_corruption = OnCorruption::Refuse;
    let scratch = rotten(options);
    let error = scratch.drain(&mut Scripted::new(1, 3)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Store(store::Error::Log(wal::Error::Corrupt { .. }))
        ),
        "{error}"
    );
    assert_eq!(scratch.queued(), 1001);
    assert_eq!(scratch.store.lane().totals().lost, 0);
}

/// Fills the lane while records go through it.
struct Flood<'a> {
    sink: Scripted,
    scratch: &'a Scratch,
    at: usize,
}

impl Sink for Flood<'_> {
    forward!(sink: begin_piece end_piece poll in_flight partitions trouble probe rebuild address);

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        if self.sink.sent_count == self.at {
            self.at = usize::MAX;
            self.scratch.fill_with("t", 10_000, &[7; 1000]);
        }
        self.sink.send(record)
    }
}

/// The oldest segments leave, with what is read next in them.
#[test]
fn what_is_dropped_for_space_while_shipping_goes_on_is_passed() {
    let mut options = Options::default();
    options.segment_size = 1 << 20;
    options.quota_bytes = Some(6 << 20);
    options.on_full = OnFull::DropOldest;
    let scratch = Scratch::with(options);
    scratch.fill_with("t", 3000, &[7; 1000]);
    let mut sink = Flood {
        sink: Scripted::new(1, 3),
        scratch: &scratch,
        at: 100,
    };
    let drained = scratch.drain(&mut sink).unwrap();
    assert!(drained.is_empty);
    assert_eq!(scratch.queued(), 0);
    let totals = scratch.store.lane().totals();
    assert!(totals.dropped > 1000, "{totals:?}");
    assert_eq!(totals.shipped + totals.dropped, 13_000, "{totals:?}");
    let sent: Vec<u64> = sink.sink.seqs().into_iter().flatten().collect();
    assert_eq!(sent.iter().max(), Some(&12_999));
    // All of the first 3,000 were dropped, and no more of them is sent than was before.
    let dropped = sent.iter().filter(|seq| **seq < 3_000).count();
    assert!((100..=101).contains(&dropped), "{dropped}");
}

#[test]
fn no_more_is_handed_over_than_the_drain_rate_allows() {
    let scratch = Scratch::new();
    scratch.fill_with("t", 700, &[7; 1000]);
    let mut options = options();
    options.drain_rate = std::num::NonZeroU64::new(200_000);
    // Shorter than the whole takes: being held back by the rate is no silence of the cluster.
    options.timeout = Some(Duration::from_secs(2));
    let stop = AtomicBool::new(false);
    let mut sink = Scripted::new(3, 2);
    let mut is_told = false;
    let drained = ship::drain_into(
        &scratch.store,
        &mut sink,
        &options,
        &stop,
        &mut |progress| {
            is_told |= progress.link.ends_with("held back by the drain rate");
        },
    );
    let drained = drained.unwrap();
    assert!(is_told);
    assert_eq!((drained.shipped, drained.is_empty), (700, true));
    // One second's worth passes at once, then 500 kB in two and a half.
    assert!(
        drained.elapsed >= Duration::from_millis(2_490),
        "{drained:?}"
    );
    check_first_copies(&sink, 0..700);
}

/// Ships within a window of hours; whether it was open.
fn ships_within(window: &str) -> bool {
    let scratch = Scratch::new();
    scratch.fill("t", 0..100);
    let mut options = options();
    options.drain_window = window.parse().unwrap();
    let timeout = Duration::from_secs(2);
    options.timeout = Some(timeout);
    let stop = AtomicBool::new(false);
    let mut sink = Scripted::new(4, 2);
    let (started, mut was_closed) = (Instant::now(), false);
    let drained = ship::drain_into(
        &scratch.store,
        &mut sink,
        &options,
        &stop,
        &mut |progress| {
            if progress.link_state == LinkState::Disabled {
                let why = format!("outside of the drain window {window}, which opens at");
                assert!(progress.link.contains(&why), "{}", progress.link);
                was_closed = true;
                // The timeout does not run while nothing may be sent.
                stop.store(started.elapsed() > timeout, Ordering::Relaxed);
            }
        },
    );
    let drained = drained.unwrap();
    assert_eq!(drained.is_empty, !was_closed);
    assert_eq!(scratch.queued(), if was_closed { 100 } else { 0 });
    drained.is_empty
}

#[test]
fn outside_of_the_drain_window_nothing_is_sent_and_no_time_runs_out() {
    // Again if the first pair saw noon or midnight pass.
    let is_one_open = || ships_within("00:00-12:00") != ships_within("12:00-24:00");
    assert!(is_one_open() || is_one_open());
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_is_sent() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..10);
    let mut options = options();
    options.link.ping_url = Some("https://example.org/".to_owned());
    let stop = AtomicBool::new(false);
    let mut sink = Scripted::new(5, 1);
    let error =
        ship::drain_into(&scratch.store, &mut sink, &options, &stop, &mut |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("link.ping_url: "), "{error}");
    assert_eq!((sink.sent_count, scratch.queued()), (0, 10));
}

/// Records get through, and probes never do: a firewall lets only one of them pass.
struct Unprobeable {
    sink: Scripted,
}

impl Sink for Unprobeable {
    forward!(sink: send poll in_flight partitions rebuild address);

    fn begin_piece(&mut self, _: &str, _: i32) -> bool {
        false
    }

    fn end_piece(&mut self, _: &str, _: i32) {}

    /// So that it is probed again and again.
    fn trouble(&mut self) -> Option<Trouble> {
        Some(Trouble {
            class: ErrorClass::Network,
            code: -195,
            timed_out: false,
            reason: "a doubt".to_owned(),
        })
    }

    fn probe(&mut self, _: &LinkOptions) -> Option<Probed> {
        Some(Err("no route to host".to_owned()).into())
    }
}

#[test]
fn a_probe_that_never_passes_delays_the_first_try_and_stops_nothing() {
    let scratch = Scratch::new();
    scratch.fill("t", 0..20_000);
    let mut sink = Unprobeable {
        sink: Scripted::new(6, 3),
    };
    let stop = AtomicBool::new(false);
    let mut last = (0, 0, 0);
    let drained = ship::drain_into(
        &scratch.store,
        &mut sink,
        &options(),
        &stop,
        &mut |progress| {
            let tcp = &progress.ladder.rungs()[0];
            assert_eq!((tcp.rung, tcp.passed), (Rung::Tcp, 0));
            last = (progress.link_tries, progress.link_changes, tcp.failed);
        },
    );
    assert_eq!(drained.unwrap().shipped, 20_000);
    let (tries, changes, failed) = last;
    // Tried until the waits were at their longest, 1 ms to 20 ms; then up, and up it stayed.
    assert_eq!((tries, changes), (7, 2), "down, up");
    assert!(failed > tries, "{failed}");
    check_first_copies(&sink.sink, 0..20_000);
}
