//! A producer from a configuration file: all of it, in one line.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ferrylog::config::{Config, Environment, Property, load};
use ferrylog::kafka::{MockKafka, Settings};
use ferrylog::message::Header;
use ferrylog::producer::{Builder, ChangeError, OpenError, Shipping};
use ferrylog::ship::exactly_once::ExactlyOnceOptions;
use ferrylog::ship::{Delivery, ShipOptions};
use ferrylog::store::MAIN_CLUSTER;
use ferrylog::{MessageRef, Outcome, Producer};
use serde_json::json;
use tempfile::TempDir;

use crate::producer::{DEADLINE, with_value};

struct Site {
    dir: TempDir,
    main: MockKafka,
    audit: MockKafka,
}

impl Site {
    fn new() -> Self {
        let [main, audit] = [(); 2].map(|()| MockKafka::start(1).unwrap());
        for topic in ["temps", "alarms.fire", "people", "everything"] {
            main.create_topic(topic, 1).unwrap();
        }
        for topic in ["acme.temps", "ledger"] {
            audit.create_topic(topic, 1).unwrap();
        }
        let dir = TempDir::new().unwrap();
        Self { dir, main, audit }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ferrylog.toml")
    }

    /// A file with something of every section, and this behind it.
    fn write(&self, more: &str) -> PathBuf {
        let text = format!(
            "[store]\ndir = {:?}\ndurability = \"os\"\ntenant_header = \"who\"\n\
             [kafka]\nbootstrap_servers = \"{}\"\ndefault_topic = \"temps\"\ngateway = \"site-17\"\n\
             [clusters.audit]\nbootstrap_servers = \"{}\"\n\
             [lanes.alarms]\ntopics = [\"alarms.*\"]\nweight = 8\ndurability = \"disk\"\n\
             [tenants.acme]\ncluster = \"audit\"\ntopic_prefix = \"acme.\"\nretry.max_attempts = 3\n\
             [topics.ledger]\ncluster = \"audit\"\n\
             [routes]\n\"user.*\" = \"people\"\ndefault = \"everything\"\n\
             [events]\nversion = \"1.0\"\nformat = \"cloudevents_structured\"\n{more}",
            self.dir.path().join("data"),
            self.main.bootstrap_servers(),
            self.audit.bootstrap_servers(),
        );
        fs::write(self.file(), text).unwrap();
        self.file()
    }

    fn config(&self, more: &str) -> Config {
        let file = self.write(more);
        load(Some(&file), &Environment::default(), &[])
            .unwrap()
            .config
    }
}

#[test]
fn all_of_a_file_is_had_in_one_line_and_every_record_goes_where_it_says() {
    let site = Site::new();
    let producer = Producer::from_config(site.write("")).unwrap();
    let lanes = producer.status().lanes;
    let lanes: Vec<(&str, &str)> = lanes
        .iter()
        .map(|lane| (lane.name.as_str(), lane.cluster.as_str()))
        .collect();
    for lane in [("default", "main"), ("alarms", "main")] {
        assert!(lanes.contains(&lane), "{lanes:?}");
    }
    let of_acme = [Header {
        name: "who",
        value: Some(b"acme"),
    }];
    let mut receipts = vec![
        producer.send(&with_value("", b"21.4")).unwrap(),
        producer.send(&with_value("alarms.fire", b"yes")).unwrap(),
        producer.send(&with_value("ledger", b"1")).unwrap(),
    ];
    let reading = MessageRef {
        headers: &of_acme,
        ..with_value("temps", b"3")
    };
    receipts.push(producer.send(&reading).unwrap());
    for (event, topic) in [("user.left", "people"), ("door.opened", "everything")] {
        assert_eq!(producer.routes().topic_of(event), Some(topic));
        receipts.push(producer.event(event, &json!({"a": 1})).unwrap());
    }
    for receipt in &receipts {
        assert_eq!(receipt.delivered().wait_for(DEADLINE), Ok(Outcome::Shipped));
    }
    let event = producer.event_builder().event("a", &()).unwrap();
    assert_eq!(
        (event.source.as_str(), event.version.as_deref()),
        ("site-17", Some("1.0"))
    );
    let shipping = producer.shipping();
    assert_eq!(
        shipping.delivery.ship().retry_overrides.tenants["acme"].max_attempts,
        Some(3)
    );
    for kafka in shipping.clusters.values() {
        assert!(
            kafka
                .properties
                .contains(&("client.id".into(), "site-17".into()))
        );
    }
    assert!(producer.close(DEADLINE).unwrap().is_empty());
    let end = |mock: &MockKafka, topic: &str| {
        let consumer =
            ferrylog::kafka::Consumer::new(&Settings::new(mock.bootstrap_servers())).unwrap();
        consumer.end(topic, 0, DEADLINE).unwrap()
    };
    for (mock, topic) in [
        (&site.main, "temps"),
        (&site.main, "alarms.fire"),
        (&site.main, "people"),
        (&site.main, "everything"),
        (&site.audit, "acme.temps"),
        (&site.audit, "ledger"),
    ] {
        assert_eq!(end(mock, topic), 1, "{topic}");
    }
}

#[test]
fn a_file_that_is_wrong_opens_nothing_and_says_why() {
    let site = Site::new();
    let wrong = site.write("[store2]\na = 1\n");
    let told = Producer::from_config(&wrong).unwrap_err();
    assert!(matches!(told, OpenError::Configuration(_)), "{told}");
    assert!(told.to_string().contains("`store2` is no key"), "{told}");
    fs::write(
        &wrong,
        format!("store.dir = {:?}", site.dir.path().join("data")),
    )
    .unwrap();
    let told = Producer::from_config(&wrong).unwrap_err();
    assert_eq!(told.to_string(), "`kafka.bootstrap_servers` must be given");
    assert!(!site.dir.path().join("data").exists());
}

#[test]
fn another_configuration_is_gone_by_while_it_runs_or_refused_whole() {
    let site = Site::new();
    let first = site.config("");
    let producer = Builder::from_config(&first).unwrap().open().unwrap();
    producer.set_route("mine.*", "temps").unwrap();

    let second = site.config("[shipping]\ndrain_rate = \"1 MiB/s\"\n[retry]\nmax_attempts = 4\n");
    producer.set_config(&second).unwrap();
    let shipping = producer.shipping();
    let ship = shipping.delivery.ship();
    assert_eq!(
        (ship.drain_rate.unwrap().get(), ship.retry.max_attempts),
        (1 << 20, 4)
    );
    // What a program set stays where the file says nothing new.
    assert_eq!(producer.routes().topic_of("mine.a"), Some("temps"));
    let mut third = second.clone();
    third.routes.insert("user.*".into(), "no topic!".into());
    let told = producer.set_config(&third).unwrap_err().to_string();
    assert!(
        told.contains("user.*") && told.contains("no topic!"),
        "{told}"
    );
    third.routes.insert("user.*".into(), "everything".into());
    producer.set_config(&third).unwrap();
    assert_eq!(producer.routes().topic_of("user.left"), Some("everything"));
    assert_eq!(producer.routes().topic_of("mine.a"), Some("everything"));

    let told =
        producer
            .set_config(&site.config(
                "[retry]\nmax_attempts = 5\n[lanes.more]\n[dead_letter]\nquota = \"2 GiB\"\n",
            ))
            .unwrap_err();
    let ChangeError::Reopen { keys } = &told else {
        panic!("{told}")
    };
    assert_eq!(*keys, ["dead_letter.quota", "lanes.more"]);
    assert_eq!(producer.shipping().delivery.ship().retry.max_attempts, 4);
    let receipt = producer.send(&with_value("temps", b"1")).unwrap();
    assert_eq!(receipt.delivered().wait_for(DEADLINE), Ok(Outcome::Shipped));

    let dir = TempDir::new().unwrap();
    let plain = Producer::open(dir.path(), site.main.bootstrap_servers()).unwrap();
    let told = plain.set_config(&first).unwrap_err();
    assert!(matches!(told, ChangeError::NotConfigured), "{told}");
}

#[test]
fn what_a_program_set_stays_until_the_configuration_says_something_new_there() {
    let site = Site::new();
    let config = |more: &str| site.config(more);
    let mut own = ShipOptions::default();
    own.stop_grace = Duration::from_secs(2);
    let builder = Builder::from_config(&config("")).unwrap();
    let producer = builder.ship(own).open().unwrap();
    let mut shipping = producer.shipping();
    let mut here = Settings::new(site.main.bootstrap_servers());
    here.properties.push(("linger.ms".into(), "7".into()));
    shipping.clusters.insert(MAIN_CLUSTER.into(), here);
    let nowhere = Settings::new("127.0.0.1:1");
    shipping.clusters.insert("spare".into(), nowhere);
    producer.set_shipping(shipping.clone()).unwrap();

    // Nothing is new, then only what is no shipping.
    producer.set_config(&config("")).unwrap();
    assert_eq!(producer.shipping(), shipping);
    let mut routed = config("");
    routed.routes.insert("user.*".into(), "everything".into());
    producer.set_config(&routed).unwrap();
    assert_eq!(producer.shipping(), shipping);

    // A secret is news also where it is not shown, and of its cluster alone.
    let secret = "[clusters.audit.properties]\n\"sasl.password\" = \"hunter2\"\n";
    producer.set_config(&config(secret)).unwrap();
    let audit = config(secret).clusters().unwrap().remove("audit");
    shipping.clusters.insert("audit".into(), audit.unwrap());
    assert_eq!(producer.shipping(), shipping);

    let limited = format!("{secret}[shipping]\ndrain_rate = \"1 MiB/s\"\n");
    producer.set_config(&config(&limited)).unwrap();
    shipping.delivery = config(&limited).delivery();
    assert_eq!(producer.shipping(), shipping);

    producer.close(Duration::ZERO).unwrap();
    for config in [config(&limited), config("")] {
        let told = producer.set_config(&config).unwrap_err();
        assert!(matches!(told, ChangeError::Closed), "{told}");
    }
}

#[test]
fn a_configuration_that_is_new_elsewhere_takes_no_exactly_once_back() {
    let site = Site::new();
    let builder = Builder::from_config(&site.config("")).unwrap();
    let builder = builder.exactly_once(ExactlyOnceOptions::default());
    let producer = builder.open().unwrap();
    let mut other = site.config("");
    other
        .properties
        .insert("linger.ms".into(), Property::new("linger.ms", "7"));
    producer.set_config(&other).unwrap();
    let Shipping {
        clusters, delivery, ..
    } = producer.shipping();
    assert!(matches!(delivery, Delivery::ExactlyOnce(_)), "{delivery:?}");
    assert_eq!(clusters, other.clusters().unwrap());
}

#[test]
fn a_change_of_the_link_reaches_every_cluster_that_says_nothing_of_its_own() {
    let site = Site::new();
    let more = "[clusters.own]\nbootstrap_servers = \"127.0.0.1:1\"\nlink.timeout = \"3s\"\n";
    let producer = Producer::from_config(site.write(more)).unwrap();
    let mut shipping = producer.shipping();
    shipping.delivery.ship_mut().link.timeout = Duration::from_secs(9);
    producer.set_shipping(shipping).unwrap();
    let delivery = producer.shipping().delivery;
    let timeouts = ["main", "audit", "own"].map(|cluster| {
        let delivery = delivery.of_cluster(cluster, 3);
        delivery.ship().link.timeout.as_secs()
    });
    assert_eq!(timeouts, [9, 9, 3]);
}
