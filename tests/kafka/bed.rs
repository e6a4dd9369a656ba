//! The cluster itself: each thing that an operator does to it is seen by a bare client.
//!
//! What these tests establish is what the others rest on: that a fault is really there.

use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, error::KafkaError};

use crate::kafka::{Kafka, Operation, PASSWORD, Protocol, Resource, USER, wait_for};

/// Longest wait for a change to be seen by clients.
const SOON: Duration = Duration::from_secs(30);

/// Keeps the code of the newest error and of the newest report.
#[derive(Default)]
struct Seen {
    trouble: std::sync::Mutex<Option<(RDKafkaErrorCode, String)>>,
    report: std::sync::Mutex<Option<Result<(), RDKafkaErrorCode>>>,
}

impl ClientContext for Seen {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap();
        // That all brokers are down is the sequel.
        if code != RDKafkaErrorCode::AllBrokersDown {
            *self.trouble.lock().unwrap() = Some((code, reason.to_owned()));
        }
    }
}

impl ProducerContext for Seen {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let report = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap()),
        };
        *self.report.lock().unwrap() = Some(report);
    }
}

/// A producer with few opinions of its own.
struct Client(BaseProducer<Seen>);

impl Client {
    fn new(kafka: &Kafka, more: &[(&str, &str)]) -> Client {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.bootstrap_servers());
        config.set("acks", "all").set("linger.ms", "0");
        config.set("client.id", "bed").set("retries", "0");
        for (name, value) in kafka.client_properties() {
            config.set(name, value);
        }
        for (name, value) in more {
            config.set(*name, *value);
        }
        Client(config.create_with_context(Seen::default()).unwrap())
    }

    /// Sends one record and waits for its report.
    fn send(&self, topic: &str, partition: i32, key: Option<&[u8]>, value: &[u8]) -> Reported {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic);
        record = record.partition(partition).payload(value);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Err((error, _)) = self.0.send(record) {
            return Err(error.rdkafka_error_code().unwrap());
        }
        let seen = self.0.context();
        wait_for("a report", SOON, || {
            self.0.poll(Duration::from_millis(1));
            seen.report.lock().unwrap().is_some()
        });
        seen.report.lock().unwrap().take().unwrap()
    }

    /// Waits for an error of the client itself.
    fn trouble(&self) -> (RDKafkaErrorCode, String) {
        let seen = self.0.context();
        wait_for("trouble", SOON, || {
            self.0.poll(Duration::from_millis(1));
            seen.trouble.lock().unwrap().is_some()
        });
        seen.trouble.lock().unwrap().take().unwrap()
    }

    /// Sends again and again until the report is this one.
    fn expect(&self, topic: &str, value: &[u8], wanted: Reported) {
        wait_for("the report", SOON, || {
            self.send(topic, 0, None, value) == wanted
        });
    }
}

type Reported = Result<(), RDKafkaErrorCode>;

#[test]
fn limits_of_a_topic_and_of_a_client_are_what_the_broker_goes_by() {
    let kafka = Kafka::start();
    kafka.create_topic_with("limited", 1, &[("max.message.bytes", "1000")]);
    let client = Client::new(&kafka, &[]);
    let large = [b'x'; 5000];
    let refused = Err(RDKafkaErrorCode::MessageSizeTooLarge);
    assert_eq!(client.send("limited", 0, None, &large), refused);
    kafka.alter_topic("limited", &[]);
    client.expect("limited", &large, Ok(()));

    kafka.create_topic_with("compacted", 1, &[("cleanup.policy", "compact")]);
    let refused = Err(RDKafkaErrorCode::InvalidRecord);
    assert_eq!(client.send("compacted", 0, None, b"x"), refused);
    assert_eq!(client.send("compacted", 0, Some(b"k"), b"x"), Ok(()));

    // The first ones are answered at once and are to be paid for by the next.
    kafka.limit_client("bed", Some(20_000));
    let throttled = |client: &Client| {
        let started = Instant::now();
        for _ in 0..4 {
            assert_eq!(client.send("limited", 0, None, &[b'x'; 100_000]), Ok(()));
        }
        started.elapsed() > Duration::from_secs(1)
    };
    wait_for("the quota", SOON, || throttled(&client));
    kafka.limit_client("bed", None);
    let client = Client::new(&kafka, &[]);
    wait_for("the end of the quota", SOON, || !throttled(&client));
}

#[test]
fn rights_and_passwords_are_granted_and_withdrawn_while_it_runs() {
    let kafka = Kafka::with().with_acls().start();
    kafka.create_topic("t", 1);
    kafka.grant(USER, Resource::Topic("t"), Operation::Describe);
    let client = Client::new(&kafka, &[]);
    let denied = Err(RDKafkaErrorCode::TopicAuthorizationFailed);
    client.expect("t", b"x", denied);
    kafka.grant(USER, Resource::Topic("t"), Operation::Write);
    client.expect("t", b"x", Ok(()));
    kafka.withdraw(USER, Resource::Topic("t"));
    client.expect("t", b"x", denied);

    let client = Client::new(&kafka, &[("sasl.password", "wrong")]);
    let (code, reason) = client.trouble();
    assert_eq!(code, RDKafkaErrorCode::Authentication, "{reason}");
    kafka.set_password(USER, "wrong");
    kafka.grant(USER, Resource::Topic("t"), Operation::Write);
    client.expect("t", b"x", Ok(()));
    kafka.set_password(USER, PASSWORD);
    let (code, reason) = Client::new(&kafka, &[("sasl.password", "wrong")]).trouble();
    assert_eq!(code, RDKafkaErrorCode::Authentication, "{reason}");
}

#[test]
fn partitions_are_led_by_the_brokers_of_choice_and_replicated() {
    let mut kafka = Kafka::with().brokers(2).start();
    kafka.create_topic_on("alone", &[&[0], &[1]]);
    kafka.create_topic_on("copied", &[&[1, 0]]);
    let client = Client::new(&kafka, &[]);
    for (topic, partition) in [("alone", 0), ("alone", 1), ("copied", 0)] {
        let sent = client.send(topic, partition, None, b"x");
        assert_eq!(sent, Ok(()), "{topic} {partition}");
    }
    kafka.stop_broker(1);
    assert_eq!(client.send("alone", 0, None, b"y"), Ok(()));
    // The other replica takes over; who led alone has no successor.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap_servers())
        .create()
        .unwrap();
    let leader = |topic, partition: usize| {
        let metadata = consumer.fetch_metadata(Some(topic), SOON).unwrap();
        metadata.topics()[0].partitions()[partition].leader()
    };
    wait_for("a successor", SOON, || leader("copied", 0) == 1);
    client.expect("copied", b"y", Ok(()));
    // A topic with one replica is content with that one, whatever its configuration says.
    kafka.alter_topic("copied", &[("min.insync.replicas", "2")]);
    client.expect("copied", b"x", Err(RDKafkaErrorCode::NotEnoughReplicas));
    wait_for("no leader", SOON, || leader("alone", 1) == -1);
    kafka.restart();
    wait_for("the leader", SOON, || leader("alone", 1) == 2);
    assert_eq!(client.send("alone", 1, None, b"y"), Ok(()));
    assert_eq!(kafka.watch("alone").ends(), [2, 2]);
    client.expect("copied", b"x", Ok(()));
}

/// Clients are told the relay's address: nothing they do goes past it.
#[test]
fn all_a_client_does_goes_through_the_relay() {
    let kafka = Kafka::with().relayed().protocol(Protocol::Scram).start();
    kafka.create_topic("t", 1);
    let relay = kafka.relay(0);
    assert_eq!(relay.carried_up(), 0, "the tests' own clients pass it by");
    let client = Client::new(&kafka, &[]);
    let value = [b'x'; 10_000];
    assert_eq!(client.send("t", 0, None, &value), Ok(()));
    assert!(relay.carried_up() > 10_000);
    relay.refuse();
    let (code, reason) = client.trouble();
    assert_eq!(code, RDKafkaErrorCode::BrokerTransportFailure, "{reason}");
    let carried = relay.carried_up();
    relay.pass();
    client.expect("t", &value, Ok(()));
    assert!(relay.carried_up() > carried + 10_000);
}
