//! Events through a producer: what the users of two services find again, claim by claim. Formats and
//! routes alone are tested where they are.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ferrylog::event::typed::{
    ApiError, ApiRequest, EventData, SystemAlert, UserLoggedIn, UserRegistered,
};
use ferrylog::event::{Event, EventFormat, EventOptions, Routes};
use ferrylog::kafka::MockKafka;
use ferrylog::message::{Header, MessageRef, header};
use ferrylog::producer::{Builder, NotDelivered, Unhealthy};
use ferrylog::store::{LaneOptions, Reading, StoreOptions, TimeSource};
use ferrylog::{Outcome, Producer, SendError};
use serde_json::{Value, json};

use crate::producer::{DEADLINE, block_on, builder, until};
use crate::read::{Record, records};

/// 2026-11-21T20:51:53.004Z.
const NOW_MILLIS: i64 = 1_795_294_313_004;

/// A machine whose clock stands still.
#[derive(Debug)]
struct Stopped(i64);

impl TimeSource for Stopped {
    fn boot(&self) -> u64 {
        1
    }

    fn read(&self) -> Reading {
        Reading {
            wall_millis: self.0,
            uptime_millis: 1,
        }
    }

    fn is_synchronised(&self) -> bool {
        true
    }
}

fn at(wall_millis: i64) -> StoreOptions {
    let mut store = StoreOptions::default();
    store.clock.source = Arc::new(Stopped(wall_millis));
    store
}

fn of_service(dir: &Path, mock: &MockKafka, format: EventFormat) -> Builder {
    let mut events = EventOptions::new("auth-service");
    events.version = Some("1.0".into());
    events.format = format;
    builder(&dir.join("store"), mock)
        .store(at(NOW_MILLIS))
        .events(events)
}

fn kafka(topics: &[&str]) -> MockKafka {
    let mock = MockKafka::start(1).unwrap();
    for topic in topics {
        mock.create_topic(topic, 1).unwrap();
    }
    mock
}

fn json_of(record: &Record) -> Value {
    serde_json::from_str(&record.value).unwrap()
}

/// The one record of a topic.
fn only(mock: &MockKafka, topic: &str) -> Record {
    let mut found = records(mock, topic);
    assert_eq!(found.len(), 1, "{topic}");
    found.remove(0)
}

/// The Python producer's `send_event(topic, event_type, payload, key)`.
#[test]
fn a_wrapped_event_has_event_type_payload_and_producer_in_the_topic_and_with_the_key_given() {
    let mock = kafka(&["orders"]);
    let dir = tempfile::tempdir().unwrap();
    let producer = of_service(dir.path(), &mock, EventFormat::Wrapped);
    let producer = producer.open().unwrap();
    let events = producer.event_builder();
    let payload = json!({"order": 7, "items": ["a", "b"]});
    let keyed = events.event("order_created", &payload).unwrap();
    let keyed = keyed.to("orders").with_key("customer-3");
    let keyless = events.event("order_paid", &payload).unwrap().to("orders");
    for event in [keyed, keyless] {
        let receipt = producer.send_event(&event).unwrap();
        assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    }
    let found = records(&mock, "orders");
    let keys: Vec<Option<&str>> = found.iter().map(|r| r.key.as_deref()).collect();
    assert_eq!(keys, [Some("customer-3"), None]);
    for (record, event_type) in found.iter().zip(["order_created", "order_paid"]) {
        let expected = json!({
            "event_type": event_type, "payload": payload, "producer": "auth-service",
        });
        assert_eq!(json_of(record), expected);
        let names: Vec<&str> = record.headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["ferry-id"], "and nothing in the headers");
    }
}

#[test]
fn started_with_kafka_down_events_are_queued_and_sent_in_order_when_it_comes() {
    let mock = kafka(&["default-events"]);
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = of_service(dir.path(), &mock, EventFormat::Wrapped);
    let producer = producer.open().unwrap();
    let send = |n: u32| producer.event("counted", &n).unwrap();
    let queued = send(0);
    queued.durable().wait().unwrap();
    let answer = queued.delivered().wait_for(Duration::ZERO);
    assert_eq!(answer, Err(NotDelivered::TimedOut), "queued, and no error");
    until("it says why", || producer.status().why.is_some());
    let receipts: Vec<_> = (1..500).map(send).collect();
    mock.up().unwrap();
    let mut numbers: Vec<u32> = Vec::new();
    // Over a second outage as well.
    assert_eq!(receipts[0].delivered().wait(), Ok(Outcome::Shipped));
    mock.down().unwrap();
    let rest: Vec<_> = (500..1000).map(send).collect();
    mock.up().unwrap();
    assert_eq!(rest[499].delivered().wait(), Ok(Outcome::Shipped));
    for record in records(&mock, "default-events") {
        let number = json_of(&record)["payload"].as_u64().unwrap();
        let number = u32::try_from(number).unwrap();
        // The mock keeps what an idempotent producer sends twice.
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    assert!(producer.close(DEADLINE).unwrap().is_empty());
}

#[test]
fn many_threads_send_events_and_each_finds_its_own_in_order() {
    let mock = kafka(&["default-events"]);
    let dir = tempfile::tempdir().unwrap();
    let producer = of_service(dir.path(), &mock, EventFormat::Json);
    let producer = producer.open().unwrap();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let producer = producer.clone();
            thread::spawn(move || {
                for n in 0..100 {
                    drop(producer.event("counted", &[thread, n]).unwrap());
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert!(producer.close(DEADLINE).unwrap().is_empty());
    let mut next = [0; 8];
    let mut ids = std::collections::HashSet::new();
    for record in records(&mock, "default-events") {
        let event: Event = serde_json::from_str(&record.value).unwrap();
        let [thread, n]: [usize; 2] = serde_json::from_value(event.data).unwrap();
        assert_eq!(n, next[thread]);
        next[thread] += 1;
        assert!(ids.insert(event.id), "each has an id of its own");
    }
    assert_eq!(next, [100; 8]);
}

fn checked<T: EventData>(producer: &Producer, mock: &MockKafka, topic: &str, data: &T) -> Value {
    let receipt = producer.typed_event(data).unwrap();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    let found = records(mock, topic);
    let mut event = json_of(found.last().unwrap());
    let id = event["id"].take();
    assert_eq!(id.as_str().unwrap().len(), 36);
    let around = json!({
        "id": null,
        "type": T::TYPE,
        "source": "auth-service",
        "version": "1.0",
        "time": "2026-11-21T20:51:53.004Z",
        "data": event["data"],
    });
    assert_eq!(event, around);
    event["data"].take()
}

#[test]
fn typed_events_arrive_in_their_topics_with_exactly_their_fields() {
    let mock = kafka(&["user-events", "api-events", "error-events", "system-events"]);
    let dir = tempfile::tempdir().unwrap();
    let producer = of_service(dir.path(), &mock, EventFormat::Json);
    let producer = producer.open().unwrap();
    let now = producer.event_builder().now();
    let time = "2026-11-21T20:51:53.004Z";

    let mut login = UserLoggedIn::default();
    login.user_id = "42".into();
    login.email = "a@b.example".into();
    login.login_time = now;
    login.remember_me = true;
    login.device_info = json!({"os": "linux"});
    let expected = json!({
        "user_id": "42", "email": "a@b.example", "ip_address": "", "user_agent": "",
        "login_time": time, "session_id": "", "remember_me": true, "login_method": "",
        "device_info": {"os": "linux"}, "location": null,
    });
    assert_eq!(checked(&producer, &mock, "user-events", &login), expected);

    let mut registered = UserRegistered::default();
    registered.first_name = "Ada".into();
    registered.registration_time = now;
    let expected = json!({
        "user_id": "", "email": "", "first_name": "Ada", "last_name": "",
        "registration_time": time, "ip_address": "", "registration_source": "",
        "email_verified": false, "organization_id": null,
    });
    let data = checked(&producer, &mock, "user-events", &registered);
    assert_eq!(data, expected);

    let mut request = ApiRequest::default();
    (request.method, request.path) = ("GET".into(), "/health".into());
    (request.status_code, request.duration_millis) = (200, 12);
    let expected = json!({
        "request_id": "", "user_id": null, "method": "GET", "path": "/health",
        "status_code": 200, "duration": 12, "ip_address": "", "request_time": null,
        "response_size": 0, "request_size": 0,
    });
    assert_eq!(checked(&producer, &mock, "api-events", &request), expected);

    let mut error = ApiError::default();
    (error.status_code, error.error_code) = (500, "E17".into());
    let expected = json!({
        "request_id": "", "method": "", "path": "", "status_code": 500, "error_type": "",
        "error_message": "", "error_code": "E17", "error_time": null,
    });
    assert_eq!(checked(&producer, &mock, "error-events", &error), expected);

    let mut alert = SystemAlert::default();
    alert.alert_type = "disk".into();
    alert.metadata.insert("free".into(), 3.into());
    let expected = json!({
        "alert_id": "", "type": "disk", "service": "", "component": "", "message": "",
        "severity": "", "alert_time": null, "metadata": {"free": 3}, "resolved": false,
    });
    assert_eq!(checked(&producer, &mock, "system-events", &alert), expected);
}

#[test]
fn the_time_of_an_event_is_its_stores_and_there_is_none_while_the_clock_is_not_set() {
    let mock = kafka(&["default-events"]);
    let dir = tempfile::tempdir().unwrap();
    let unset = builder(&dir.path().join("store"), &mock).store(at(86_400_000));
    let producer = unset.open().unwrap();
    assert_eq!(producer.event_builder().now(), None);
    let receipt = producer.event("a", &1).unwrap();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    let mut event = json_of(&only(&mock, "default-events"));
    event["id"].take();
    let expected = json!({"id": null, "type": "a", "source": "ferrylog", "data": 1});
    assert_eq!(event, expected);
}

#[test]
fn cloudevents_arrive_as_their_binding_says_and_read_back() {
    let mock = kafka(&["auth-events"]);
    let dir = tempfile::tempdir().unwrap();
    let mut sent = Vec::new();
    for format in [
        EventFormat::CloudEventsBinary,
        EventFormat::CloudEventsStructured,
    ] {
        let producer = of_service(dir.path(), &mock, format).open().unwrap();
        let events = producer.event_builder().correlation_id("login 7");
        let event = events.event("user.token_refreshed", &json!({"n": 1}));
        sent.push(event.unwrap());
        drop(producer.send_event(&sent[sent.len() - 1]).unwrap());
        assert!(producer.close(DEADLINE).unwrap().is_empty());
    }
    let found = records(&mock, "auth-events");
    assert_eq!(found.len(), 2);
    for (record, event) in found.iter().zip(&sent) {
        let headers = record.headers.iter();
        let headers = headers.map(|(name, value)| (*name, Some(value.as_bytes())));
        let read = Event::parse(headers, Some(record.value.as_bytes()));
        assert_eq!(read.unwrap(), *event);
    }
    let [binary, structured] = &found[..] else {
        panic!()
    };
    assert_eq!(json_of(binary), json!({"n": 1}));
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_type", "user.token_refreshed"),
        ("ce_source", "auth-service"),
        ("ce_time", "2026-11-21T20:51:53.004Z"),
        ("ce_correlationid", "login 7"),
        ("ce_version", "1.0"),
    ] {
        assert_eq!(binary.header(name), Some(value));
    }
    let content_type = structured.header("content-type").unwrap();
    assert!(content_type.starts_with("application/cloudevents+json"));
    assert_eq!(structured.header("ce_id"), None);
}

/// `SetTopicMapping`, the default topic, and what has none.
#[test]
fn routes_change_while_it_runs_for_all_clones_and_what_none_fits_has_the_default_topic() {
    let mock = kafka(&["user-events", "people", "rest", "telemetry"]);
    let dir = tempfile::tempdir().unwrap();
    let producer = of_service(dir.path(), &mock, EventFormat::Wrapped)
        .default_topic("telemetry")
        .open()
        .unwrap();
    let clone = producer.clone();
    drop(producer.event("user.logged_out", &1).unwrap());
    clone.set_route("user.*", "people").unwrap();
    clone.set_route("user.*", "no topic").unwrap_err();
    drop(producer.event("user.logged_out", &2).unwrap());
    let mut routes = Routes::clone(&producer.routes());
    routes.set_default(Some("rest")).unwrap();
    producer.set_routes(routes);
    drop(clone.event("door.opened", &3).unwrap());
    producer.set_routes(Routes::none());
    let receipt = clone.event("user.logged_out", &4).unwrap();
    receipt.durable().wait().unwrap();
    assert!(producer.close(DEADLINE).unwrap().is_empty());
    for (topic, number) in [
        ("user-events", 1),
        ("people", 2),
        ("rest", 3),
        ("telemetry", 4),
    ] {
        assert_eq!(json_of(&only(&mock, topic))["payload"], number);
    }

    let mut events = EventOptions::default();
    events.routes = Routes::none();
    let other = builder(&dir.path().join("other"), &mock).events(events);
    let homeless = other.open().unwrap().event("a", &1).unwrap_err();
    assert!(matches!(homeless, SendError::Invalid(_)), "{homeless}");
}

/// `PublishBatch`.
#[test]
fn a_batch_of_events_is_taken_whole_or_not_at_all() {
    let mock = kafka(&["user-events", "api-events"]);
    let dir = tempfile::tempdir().unwrap();
    let mut store = at(NOW_MILLIS);
    let mut high = LaneOptions::default();
    high.topics = vec!["system-*".into()];
    store.lanes.insert("high".into(), high);
    let producer = of_service(dir.path(), &mock, EventFormat::CloudEventsBinary)
        .store(store)
        .open()
        .unwrap();
    let events = producer.event_builder();
    let event = |event_type: &str| events.event(event_type, &json!({"n": 1})).unwrap();
    let mut too_large = event("api.request");
    too_large.data = Value::String("x".repeat(17 << 20));
    for (wrong, what) in [
        (event(""), "of no type"),
        (event("user.registered").to("no topic"), "of no topic"),
        (event("system.alert"), "of another lane"),
        (too_large, "too large"),
    ] {
        let batch = [event("user.logged_in"), wrong, event("api.request")];
        let refused = producer.send_events(&batch);
        assert!(refused.is_err(), "{what}");
        let refused = block_on(goes_anywhere(producer.send_events_async(&batch)));
        assert!(refused.is_err(), "{what}, in a task");
        assert_eq!(producer.stats().totals.accepted, 0, "{what}");
    }
    let batch = [event("user.logged_in"), event("api.request")];
    let receipt = producer.send_events(&batch).unwrap();
    let each = || receipt.outcomes().flatten().collect::<Vec<_>>();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    assert_eq!(each(), [Outcome::Shipped; 2]);
    assert_eq!(producer.send_events(&[]).unwrap().outcomes().count(), 0);
    let none = block_on(producer.send_events_async(&[])).unwrap();
    assert_eq!(none.outcomes().count(), 0);
    for (topic, event) in ["user-events", "api-events"].iter().zip(&batch) {
        assert_eq!(only(&mock, topic).header("ce_id"), Some(&*event.id));
    }
}

#[test]
fn events_can_be_sent_by_tasks_and_without_waiting() {
    let mock = kafka(&["default-events"]);
    let dir = tempfile::tempdir().unwrap();
    let producer = of_service(dir.path(), &mock, EventFormat::Json);
    let producer = producer.open().unwrap();
    let event = producer.event_builder().event("a", &1).unwrap();
    let receipts = [
        block_on(goes_anywhere(producer.send_event_async(&event))).unwrap(),
        producer.try_send_event(&event).unwrap(),
    ];
    for receipt in &receipts {
        assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    }
    let ids: Vec<Value> = records(&mock, "default-events")
        .iter()
        .map(|record| json_of(record)["id"].clone())
        .collect();
    assert_eq!(
        ids,
        [&*event.id, &*event.id],
        "sent twice it is the same event"
    );
}

/// `HealthCheck(deadline)`.
#[test]
fn health_answers_at_once_if_all_is_well_and_says_why_not_at_the_deadline() {
    let mock = kafka(&["default-events"]);
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = of_service(dir.path(), &mock, EventFormat::Json);
    let producer = producer.open().unwrap();
    drop(producer.event("a", &1).unwrap());
    let (started, deadline) = (Instant::now(), Duration::from_millis(200));
    let unhealthy = producer.health(deadline).unwrap_err();
    assert!(started.elapsed() >= deadline, "it had the time to get well");
    assert!(started.elapsed() < DEADLINE / 2);
    assert!(
        matches!(unhealthy, Unhealthy::Offline { .. }),
        "{unhealthy}"
    );
    mock.up().unwrap();
    producer.health(DEADLINE).unwrap();
    let started = Instant::now();
    producer.health(DEADLINE).unwrap();
    assert!(started.elapsed() < DEADLINE / 2, "at once");
}

/// `GetStats`: what the metrics of that service said.
#[test]
fn stats_count_what_was_taken_sent_and_failed() {
    let mock = kafka(&["default-events"]);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = ferrylog::kafka::Settings::new(mock.bootstrap_servers());
    // What is longer the client refuses as a broker would.
    let property = ("message.max.bytes".to_owned(), "2000".to_owned());
    settings.properties.push(property);
    let producer = Producer::builder(dir.path().join("store"), settings)
        .ship(crate::support::options())
        .open()
        .unwrap();
    for _ in 0..10 {
        drop(producer.event("a", &1).unwrap());
    }
    let refused = producer.event("a", &"x".repeat(3000)).unwrap();
    assert_eq!(refused.delivered().wait(), Ok(Outcome::DeadLettered));
    until("all have their outcome", || {
        producer.stats().totals.queued == 0
    });
    let totals = producer.stats().totals;
    let counted = (totals.accepted, totals.shipped, totals.dead_lettered);
    assert_eq!(counted, (11, 10, 1));
    assert!(totals.balances());
    assert_eq!(producer.stats().dead_letters.kept, 1);
    until("the shipper told", || {
        producer.stats().shipping.dead_lettered == 1
    });
}

/// `Close`.
#[test]
fn closing_sends_what_is_queued_and_takes_no_more_events() {
    let mock = kafka(&["default-events"]);
    mock.down().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let producer = of_service(dir.path(), &mock, EventFormat::Json);
    let producer = producer.open().unwrap();
    let events = producer.event_builder();
    for n in 0..200 {
        drop(producer.event("a", &n).unwrap());
    }
    mock.up().unwrap();
    let closed = producer.close(DEADLINE).unwrap();
    assert!(closed.is_empty() && closed.totals.shipped == 200);
    let numbers: Vec<Value> = records(&mock, "default-events")
        .iter()
        .map(|record| json_of(record)["data"].clone())
        .collect();
    assert_eq!(numbers, (0..200).map(Value::from).collect::<Vec<_>>());
    let late = producer.event("a", &1).unwrap_err();
    assert!(matches!(late, SendError::Closed), "{late}");
    // A builder outlives its producer.
    assert!(events.event("a", &1).is_ok());
}

#[test]
fn headers_that_mean_something_to_others_pass_through() {
    let mock = kafka(&["t"]);
    let dir = tempfile::tempdir().unwrap();
    let producer = builder(&dir.path().join("store"), &mock).open().unwrap();
    let names = [
        header::TRACEPARENT,
        header::IDEMPOTENCY_KEY,
        header::CORRELATION_ID,
    ];
    let headers = names.map(|name| Header {
        name,
        value: Some(name.as_bytes()),
    });
    let message = MessageRef {
        headers: &headers,
        value: Some(b"1"),
        ..MessageRef::to("t")
    };
    let receipt = producer.send(&message).unwrap();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    let record = only(&mock, "t");
    for name in names {
        assert_eq!(record.header(name), Some(name));
    }
    assert_eq!(record.header(header::ID), Some(&*receipt.id()));
}

/// It may be sent from one thread of a runtime to another.
fn goes_anywhere<T: Send>(future: T) -> T {
    future
}
