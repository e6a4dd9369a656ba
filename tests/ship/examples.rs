//! The programs of `docs/examples`, run as they are against a mock cluster.

#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each has a main of its own, and may panic"
)]

use ferrylog::kafka::MockKafka;
use ferrylog::store::StoreView;

#[path = "../../docs/examples/clusters.rs"]
mod clusters;
#[path = "../../docs/examples/engine.rs"]
mod engine;
#[path = "../../docs/examples/sensors.rs"]
mod sensors;
#[path = "../../docs/examples/smallest.rs"]
mod smallest;
#[path = "../../docs/examples/threads.rs"]
mod threads;

/// A directory for a store, and a cluster with these topics.
struct Stage {
    dir: tempfile::TempDir,
    mock: MockKafka,
}

impl Stage {
    fn new(topics: &[&str]) -> Stage {
        let mock = MockKafka::start(1).unwrap();
        for topic in topics {
            mock.create_topic(topic, 4).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        Stage { dir, mock }
    }

    fn store(&self) -> String {
        self.dir.path().join("store").to_str().unwrap().to_owned()
    }

    /// Shipped and queued, by lane.
    fn expect(&self, expected: &[(&str, u64)]) {
        let view = StoreView::open(self.store()).unwrap();
        let lanes = view.lanes().iter();
        let found: Vec<(&str, u64, u64)> = lanes
            .map(|lane| (lane.name(), lane.totals().shipped, lane.totals().queued))
            .collect();
        let expected: Vec<_> = expected.iter().map(|(name, n)| (*name, *n, 0)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_smallest_one_delivers_its_reading() {
    let stage = Stage::new(&["temps"]);
    smallest::run(&stage.store(), &stage.mock.bootstrap_servers()).unwrap();
    stage.expect(&[("default", 1)]);
}

#[test]
fn sensors_on_tokio_deliver_a_year_of_readings_and_its_alarms() {
    let stage = Stage::new(&["readings", "alarms"]);
    let (sent, alarms) = sensors::run(&stage.store(), &stage.mock.bootstrap_servers()).unwrap();
    assert_eq!(sent, 8_759);
    stage.expect(&[("alarms", alarms), ("default", sent)]);
}

#[test]
fn threads_that_wait_for_the_disk_deliver_all_they_sent() {
    let stage = Stage::new(&["parts"]);
    threads::run(&stage.store(), &stage.mock.bootstrap_servers()).unwrap();
    stage.expect(&[("default", 6_400)]);
}

#[test]
fn each_of_two_clusters_gets_what_is_its_own() {
    let (hall, acme) = (Stage::new(&["temps"]), Stage::new(&["hall-3.temps"]));
    let servers = [&hall, &acme].map(|stage| stage.mock.bootstrap_servers());
    clusters::run(&hall.store(), &servers[0], &servers[1]).unwrap();
    hall.expect(&[("default", 1_000), ("default@acme~acme", 1_000)]);
}

#[test]
fn the_engine_reads_back_what_it_took() {
    let dir = tempfile::tempdir().unwrap();
    engine::run(dir.path().join("log").to_str().unwrap()).unwrap();
}
