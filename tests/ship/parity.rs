//! What the users of older systems configured, through the file and its variables, against a cluster: rows
//! of `docs/parity.md` that no other test here shows.
//!
//! Each test writes the lines of a file and opens a producer by them.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::config::{Config, Environment, load};
use ferrylog::event::{EventOptions, typed::ApiRequest};
use ferrylog::kafka::Rung;
use ferrylog::kafka::{Consumer, MockKafka, Settings};
use ferrylog::message::{Header, MessageRef, header};
use ferrylog::producer::{Builder, NotDelivered};
use ferrylog::ship::{Progress, RungState};
use ferrylog::store::{Stage, Store};
use ferrylog::wal::{Options, Wal};
use ferrylog::{Outcome, Producer};
use tempfile::TempDir;

use crate::producer::{DEADLINE, until, with_value};
use crate::read::records;

/// A cluster, and a directory for a store and for the file.
struct Site {
    mock: MockKafka,
    dir: TempDir,
}

impl Site {
    fn new(topics: &[&str]) -> Site {
        let mock = MockKafka::start(1).unwrap();
        for topic in topics {
            mock.create_topic(topic, 1).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        Site { mock, dir }
    }

    /// The configuration with these lines, for a store of this name.
    fn config(&self, store: &str, lines: &str) -> Config {
        let file = self.dir.path().join("ferrylog.toml");
        let dir = self.dir.path().join(store);
        let servers = self.mock.bootstrap_servers();
        let text = format!(
            "store.dir = {dir:?}\nkafka.bootstrap_servers = \"{servers}\"\n\
             {lines}\n"
        );
        std::fs::write(&file, text).unwrap();
        load(Some(&file), &Environment::default(), &[])
            .unwrap()
            .config
    }

    fn open(&self, lines: &str) -> Producer {
        builder(&self.config("store", lines)).open().unwrap()
    }
}

fn builder(config: &Config) -> Builder {
    Producer::builder(&config.store.dir, config.settings().unwrap())
        .store(config.store_options())
        .ship(config.ship_options())
        .default_topic(config.kafka.default_topic.clone().unwrap_or_default())
}

/// Tries as often as a test wants it.
const BACKOFF: &str = "{ initial = \"1ms\", max = \"20ms\" }";

fn progress(producer: &Producer) -> Option<Progress> {
    producer.status().clusters.remove(0).progress
}

/// What is known of a rung once that is so.
fn rung(producer: &Producer, rung: Rung, is_so: impl Fn(&RungState) -> bool) -> RungState {
    let state = || {
        let progress = progress(producer)?;
        let mut rungs = progress.ladder.rungs().iter();
        rungs.find(|state| state.rung == rung).cloned()
    };
    let mut found = None;
    until("the rung", || {
        found = state().filter(&is_so);
        found.is_some()
    });
    found.unwrap()
}

/// `bufferMessage(key, payload)`.
#[test]
fn a_message_of_no_topic_goes_to_the_default_topic_with_its_key_and_its_payload() {
    let site = Site::new(&["telemetry"]);
    let producer = site.open("kafka.default_topic = \"telemetry\"");
    let message = MessageRef {
        key: Some(b"pump-7"),
        ..with_value("", b"{\"bar\": 3}")
    };
    let receipt = producer.send(&message).unwrap();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    let found = records(&site.mock, "telemetry").remove(0);
    assert_eq!(found.key.as_deref(), Some("pump-7"));
    assert_eq!(found.value, "{\"bar\": 3}");
}

/// Without a timer or a batch that has to be full.
#[test]
fn a_single_message_is_shipped_at_once() {
    let site = Site::new(&["t"]);
    let producer = site.open("");
    drop(producer.send(&with_value("t", b"first")).unwrap());
    producer.health(DEADLINE).unwrap();
    let sent = Instant::now();
    let receipt = producer.send(&with_value("t", b"second")).unwrap();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    assert!(sent.elapsed() < Duration::from_secs(10), "{sent:?}");
}

#[test]
fn the_drain_rate_of_the_file_is_kept() {
    let site = Site::new(&["t"]);
    let producer = site.open("shipping.drain_rate = \"40 KiB/s\"");
    let started = Instant::now();
    for _ in 0..100 {
        drop(producer.send(&with_value("t", &[b'x'; 1024])).unwrap());
    }
    assert!(producer.close(DEADLINE).unwrap().is_empty());
    // One second's worth may have gathered, and the last record goes beyond it.
    let least = Duration::from_millis(1_400);
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());
    assert_eq!(records(&site.mock, "t").len(), 100);
}

/// One of two windows that make a day is open.
#[test]
fn outside_of_the_drain_window_of_the_file_all_waits_and_says_so() {
    let site = Site::new(&["t"]);
    let producers = ["00:00-12:00", "12:00-00:00"].map(|hours| {
        let lines = format!("link.backoff = {BACKOFF}\nshipping.drain_window = \"{hours}\"");
        let producer = builder(&site.config(&hours.replace(':', ""), &lines)).open();
        let producer = producer.unwrap();
        let receipt = producer.send(&with_value("t", hours.as_bytes())).unwrap();
        let receipt = receipt.into_owned();
        (producer, receipt)
    });
    let is_delivered = |place: usize| {
        let receipt = &producers[place].1;
        receipt.outcomes().next().flatten() == Some(Outcome::Shipped)
    };
    until("one of them", || is_delivered(0) || is_delivered(1));
    let (closed, receipt) = &producers[usize::from(is_delivered(0))];
    until("it says why", || {
        let why = closed.status().why.unwrap_or_default();
        why.contains("outside of the drain window")
    });
    let waits = receipt.delivered().wait_for(Duration::ZERO);
    assert_eq!(waits, Err(NotDelivered::TimedOut));
}

/// The wait is drawn from all of the first minute, so one of many is long.
#[test]
fn a_metered_link_is_tried_again_after_up_to_a_minute_and_says_when() {
    let site = Site::new(&["t"]);
    site.mock.down().unwrap();
    let producers = (0..12).map(|n: u32| {
        let config = site.config(&n.to_string(), "link.profile = \"metered\"");
        let producer = builder(&config).open().unwrap();
        drop(producer.send(&with_value("t", b"1")).unwrap());
        producer
    });
    let producers: Vec<Producer> = producers.collect();
    // How long, after how many tries: the first one without a network, and the next one at once.
    let wait_of = |producer: &Producer| {
        let progress = progress(producer)?;
        let (_, wait) = progress.link.split_once("next try in ")?;
        let wait = wait.split(' ').next()?.parse::<u64>().ok()?;
        Some((wait, progress.link_tries))
    };
    until("all wait", || {
        producers.iter().all(|p| wait_of(p).is_some())
    });
    let waits: Vec<(u64, u64)> = producers.iter().filter_map(wait_of).collect();
    println!("{waits:?} s");
    // One that waited for a moment only is at its second wait by now, which is drawn from two minutes.
    let is_right = |(wait, tries): &(u64, u64)| *wait <= 60 << tries.saturating_sub(2);
    assert!(waits.iter().all(is_right), "{waits:?}");
    assert!(waits.iter().any(|(wait, _)| *wait > 5), "{waits:?}");
}

#[test]
fn the_probe_goes_to_the_targets_of_the_file_and_never_stands_in_the_way() {
    let site = Site::new(&["t"]);
    site.mock.down().unwrap();
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    let reached = somebody.local_addr().unwrap();
    // No process listens on the port that a connection was made from.
    let nobody = TcpStream::connect(reached).unwrap().local_addr().unwrap();
    let targets = |require: &str| {
        let both = format!("targets = [\"{nobody}\", \"{reached}\"]\n");
        format!("[link]\n{both}require = \"{require}\"\ntimeout = \"2s\"\nbackoff = {BACKOFF}")
    };
    let any = builder(&site.config("any", &targets("any")))
        .open()
        .unwrap();
    let all = builder(&site.config("all", &targets("all")))
        .open()
        .unwrap();
    let producers = [&any, &all];
    let receipts = producers.map(|producer| producer.send(&with_value("t", b"1")).unwrap());
    rung(&any, Rung::Tcp, |tcp| tcp.passed > 0 && tcp.failed == 0);
    let tcp = rung(&all, Rung::Tcp, |tcp| tcp.failed > 0);
    let why = tcp.why.unwrap();
    assert!(
        why.contains(&nobody.to_string()) && !why.contains(&reached.to_string()),
        "{why}"
    );
    site.mock.up().unwrap();
    for receipt in receipts {
        assert_eq!(receipt.delivered().wait_for(DEADLINE), Ok(Outcome::Shipped));
    }
}

#[test]
fn without_the_probe_the_cluster_itself_is_asked() {
    let site = Site::new(&["t"]);
    site.mock.down().unwrap();
    let producer = site.open(&format!("[link]\nenabled = false\nbackoff = {BACKOFF}"));
    let receipt = producer.send(&with_value("t", b"1")).unwrap();
    until("it is tried again and again", || {
        progress(&producer).is_some_and(|progress| progress.link_tries > 3)
    });
    let waits = receipt.delivered().wait_for(Duration::ZERO);
    assert_eq!(waits, Err(NotDelivered::TimedOut));
    let climbed = progress(&producer).unwrap();
    let rungs = climbed.ladder.rungs().iter();
    let probes = rungs.filter(|state| state.rung != Rung::Metadata);
    assert!(
        probes.clone().all(|state| state.since.is_none()),
        "{climbed:?}"
    );
    site.mock.up().unwrap();
    assert_eq!(receipt.delivered().wait_for(DEADLINE), Ok(Outcome::Shipped));
}

/// The application-level ping that was wished for.
#[test]
fn a_page_may_be_asked_as_well_and_a_captive_portal_is_named() {
    let site = Site::new(&["t"]);
    site.mock.down().unwrap();
    let page = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/generate_204", page.local_addr().unwrap());
    let is_logged_in = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&is_logged_in);
    thread::spawn(move || {
        for connection in page.incoming() {
            let mut connection = connection.unwrap();
            let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
            // Whoever asks may hang up.
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let answer = match is_open.load(Ordering::Relaxed) {
                false => "302 Found\r\nLocation: http://login.example/",
                true => "204 No Content",
            };
            let _ = write!(connection, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        }
    });
    // A listener in the place of a broker, so that this rung is reached.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lines = format!(
        "[link]\ntargets = [\"{}\"]\nping_url = \"{url}\"\nbackoff = {BACKOFF}",
        listener.local_addr().unwrap()
    );
    let producer = site.open(&lines);
    let receipt = producer.send(&with_value("t", b"1")).unwrap();
    let portal = rung(&producer, Rung::Ping, |ping| ping.why.is_some())
        .why
        .unwrap();
    assert!(portal.contains("captive portal"), "{portal}");
    is_logged_in.store(true, Ordering::Relaxed);
    rung(&producer, Rung::Ping, |ping| ping.why.is_none());
    site.mock.up().unwrap();
    assert_eq!(receipt.delivered().wait_for(DEADLINE), Ok(Outcome::Shipped));
}

#[test]
fn attempts_and_the_waits_between_them_are_those_of_the_file() {
    let site = Site::new(&["t"]);
    site.mock.down().unwrap();
    let producer = site.open(&format!(
        "link.backoff = {BACKOFF}\n[retry]\nmax_attempts = 3\n\
         backoff = {{ initial = \"100ms\", multiplier = 3.0, jitter = false }}"
    ));
    let send = |value: &[u8]| producer.send(&with_value("t", value)).unwrap();
    let receipts = [send(b"refused"), send(b"taken")];
    producer.flush().unwrap();
    // Both together, which counts nothing, and the first one alone for three times; then the one behind
    // it is taken.
    site.mock.refuse_produce(&[-1; 4]).unwrap();
    let started = Instant::now();
    site.mock.up().unwrap();
    let outcomes = receipts.map(|receipt| receipt.delivered().wait().unwrap());
    assert_eq!(outcomes, [Outcome::DeadLettered, Outcome::Shipped]);
    let least = Duration::from_millis(100 + 300 + 900);
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());
    until("the shipper told", || {
        producer.stats().shipping.refused == 5
    });
    producer.close(DEADLINE).unwrap();
    let store = Store::open(site.dir.path().join("store"), Options::default()).unwrap();
    let letters = store.dead_letters().unwrap();
    let letter = letters.open_letters(|_, _, _| true).remove(0);
    let body = letters.get(letter).unwrap().unwrap().body;
    assert_eq!(
        (body.attempts, &*body.class, body.code),
        (3, "transient", -1)
    );
    assert!(body.first_attempt_millis <= body.last_attempt_millis);
}

#[test]
fn bytes_that_are_no_message_go_to_the_dead_letter_topic_as_they_are() {
    let site = Site::new(&["t", "all.dlq"]);
    let config = site.config("store", "dead_letter.topic = \"all.dlq\"");
    // A log that somebody else wrote to.
    let path = &config.store.dir;
    Store::open(path, Options::default())
        .unwrap()
        .close()
        .unwrap();
    let log = Wal::open(path.join("lanes/default"), Options::default()).unwrap();
    log.append_wait(b"\xff no message").unwrap();
    log.close().unwrap();
    let producer = builder(&config).open().unwrap();
    let receipt = producer.send(&with_value("t", b"1")).unwrap();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    until("the copy", || producer.stats().shipping.copied == 1);
    assert!(producer.close(DEADLINE).unwrap().is_empty());

    let settings = Settings::new(site.mock.bootstrap_servers());
    let mut consumer = Consumer::new(&settings).unwrap();
    consumer.assign(&[("all.dlq", 1)]).unwrap();
    let mut found = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while found.is_empty() {
        assert!(Instant::now() < deadline);
        consumer
            .poll(Duration::from_millis(100), &mut |record| {
                let stage = record.header(header::dlq::STAGE).unwrap().to_owned();
                found.push((stage, record.value().unwrap().to_vec()));
            })
            .unwrap();
    }
    assert_eq!(found, [("decode".to_owned(), b"\xff no message".to_vec())]);
    // And it stays here.
    let store = Store::open(path, Options::default()).unwrap();
    let letters = store.dead_letters().unwrap();
    let letter = letters.open_letters(|_, _, _| true).remove(0);
    let body = letters.get(letter).unwrap().unwrap().body;
    assert_eq!((body.stage, body.attempts), (Stage::Decode, 0));
}

const OF_ACME: [Header<'static>; 1] = [Header {
    name: "tenant",
    value: Some(b"acme"),
}];

#[test]
fn lanes_topics_and_tenants_of_the_file_have_policies_of_their_own() {
    let topics = ["of-lane", "of-topic", "of-tenant", "of-all"];
    let site = Site::new(&topics);
    let producer = site.open(
        "[kafka.properties]\n\"message.max.bytes\" = \"2000\"\n\
         [lanes.slow]\ntopics = [\"of-lane\"]\nretry.on_poison = \"halt\"\n\
         [topics.of-topic]\nretry.on_poison = \"halt\"\n\
         [topics.of-tenant]\nretry.on_poison = \"halt\"\n\
         [tenants.acme]\nretry.on_poison = \"dead_letter\"\n",
    );
    // What is longer the client refuses as a broker would.
    let too_large = [b'x'; 5000];
    let receipts = topics.map(|topic| {
        let mut message = with_value(topic, &too_large);
        if topic == "of-tenant" {
            message.headers = &OF_ACME;
        }
        producer.send(&message).unwrap()
    });
    for place in [2, 3] {
        let outcome = receipts[place].delivered().wait_for(DEADLINE);
        assert_eq!(outcome, Ok(Outcome::DeadLettered), "{}", topics[place]);
    }
    let held = || {
        let mut topics: Vec<String> = progress(&producer)
            .into_iter()
            .flat_map(|progress| progress.held)
            .filter(|held| held.why.kind() == "halted")
            .map(|held| held.topic.to_string())
            .collect();
        topics.sort();
        topics
    };
    until("both are halted", || held().len() == 2);
    assert_eq!(held(), ["of-lane", "of-topic"]);
}

#[test]
fn a_message_arrives_with_all_its_parts() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("t", 4).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::open(dir.path().join("store"), mock.bootstrap_servers()).unwrap();
    let headers = [Header {
        name: "site",
        value: Some(b"17"),
    }];
    let full = MessageRef {
        partition: Some(3),
        key: Some(b"k"),
        headers: &headers,
        timestamp_millis: Some(1_795_294_313_004),
        ..with_value("t", b"v")
    };
    let tombstone = MessageRef {
        value: None,
        headers: &[],
        ..full
    };
    let receipt = producer.send_batch(&[full, tombstone]).unwrap();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    let mut consumer = Consumer::new(&Settings::new(mock.bootstrap_servers())).unwrap();
    consumer.assign(&[("t", 4)]).unwrap();
    let mut found = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while found.len() < 2 {
        assert!(Instant::now() < deadline, "{found:?}");
        consumer
            .poll(Duration::from_millis(100), &mut |record| {
                found.push((
                    (record.partition(), record.timestamp_millis()),
                    record.key().map(<[u8]>::to_vec),
                    record.header("site").map(str::to_owned),
                    record.value().map(<[u8]>::to_vec),
                ));
            })
            .unwrap();
    }
    let (place, key) = ((3, full.timestamp_millis), Some(b"k".to_vec()));
    let expected = [
        (place, key.clone(), Some("17".into()), Some(b"v".to_vec())),
        (place, key, None, None),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_variables_of_the_older_service_are_all_that_a_producer_needs() {
    let site = Site::new(&["api-events"]);
    let servers = site.mock.bootstrap_servers();
    let environment = Environment::of([
        ("KAFKA_BROKERS", &*servers),
        ("KAFKA_CLIENT_ID", "api-gateway"),
        ("KAFKA_RETRY_MAX", "3"),
        ("KAFKA_RETRY_BACKOFF", "100ms"),
        ("KAFKA_FLUSH_MESSAGES", "100"),
        ("KAFKA_FLUSH_BYTES", "1048576"),
        ("KAFKA_FLUSH_TIMEOUT", "1s"),
    ]);
    let mut config = load(None, &environment, &[]).unwrap().config;
    config.store.dir = site.dir.path().join("store");
    let retry = config.ship_options().retry;
    assert_eq!(
        (retry.max_attempts, retry.initial_backoff),
        (4, Duration::from_millis(100))
    );
    let mut events = EventOptions::new("api-gateway");
    events.routes = config.event_routes();
    let producer = builder(&config).events(events).open().unwrap();
    let builder = producer.event_builder();
    let mut request = ApiRequest::default();
    request.path = "/orders".into();
    request.request_time = builder.now();
    let sent = Instant::now();
    let receipt = producer
        .send_event(&builder.typed(&request).unwrap())
        .unwrap();
    assert_eq!(receipt.delivered().wait_for(DEADLINE), Ok(Outcome::Shipped));
    // The flush timeout is how long a batch waits for more.
    assert!(
        sent.elapsed() >= Duration::from_millis(900),
        "{:?}",
        sent.elapsed()
    );
    let value = records(&site.mock, "api-events").remove(0).value;
    assert!(value.contains("\"path\":\"/orders\""), "{value}");
}
