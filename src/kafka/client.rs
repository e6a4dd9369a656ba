//! From settings to a librdkafka configuration: our defaults, and what may not be overridden.
//!
//! Must not know what is sent. Invariants: a property that would break a promise is refused by
//! name with the reason (never silently replaced); values of secret properties are never printed.

use std::fmt;
use std::time::Duration;

use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaType;

use super::Error;
use super::consumer::Silent;
use super::{bad_server, names_none};

/// Where the cluster is, and any librdkafka property on top of our defaults.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of one or more brokers, separated by commas.
    pub bootstrap_servers: String,
    /// librdkafka properties, by name; those that would break a promise are refused.
    pub properties: Vec<(String, String)>,
}

/// The defaults, and why each differs from librdkafka's own.
const DEFAULTS: &[(&str, &str)] = &[
    // An acknowledgement means that every in-sync replica has it, once per producer, in order.
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // A refused batch stops the producer, so that nothing behind it overtakes it.
    ("enable.gapless.guarantee", "true"),
    ("max.in.flight.requests.per.connection", "5"),
    // librdkafka never gives a record up by itself: no outage is too long.
    ("message.timeout.ms", "0"),
    ("linger.ms", "5"),
    ("batch.size", "1000000"),
    ("compression.type", "lz4"),
    // Above the largest record the log takes: whether it is too large is for the broker to say.
    ("message.max.bytes", "20000000"),
    // The flight budget bounds what is queued; librdkafka's own limits stay out of its way.
    ("queue.buffering.max.messages", "0"),
    ("queue.buffering.max.kbytes", "2147483647"),
    ("socket.timeout.ms", "60000"),
    ("socket.keepalive.enable", "true"),
    // For half of this a client waits before its second connection, also when it has only just begun.
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "5000"),
    // A misspelt topic is an error to be seen, not a new topic.
    ("allow.auto.create.topics", "false"),
    ("log.connection.close", "false"),
    // How often connections break is counted from it; see `breaks`.
    ("debug", "broker"),
    ("enable.metrics.push", "false"),
    ("client.id", "ferrylog"),
];

/// The longest that librdkafka waits for the answer to a request.
pub const SOCKET_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// Properties that would break a promise, with the reason.
const FORBIDDEN: &[(&[&str], &str)] = &[
    (
        &["bootstrap.servers", "metadata.broker.list"],
        "give the brokers as bootstrap servers, which the probe of the link reads too",
    ),
    (
        &["acks", "request.required.acks"],
        "a record leaves the log only when all in-sync replicas have it",
    ),
    (
        &["enable.idempotence"],
        "without it retries reorder and duplicate records",
    ),
    (
        &["enable.gapless.guarantee"],
        "without it records overtake a refused one",
    ),
    (
        &["message.timeout.ms", "delivery.timeout.ms"],
        "no outage is long enough to give a record up; a limit on age belongs to the record",
    ),
    (
        &["retries", "message.send.max.retries"],
        "no outage is long enough to give a record up",
    ),
    (
        &["transactional.id"],
        "it is derived from the log's own identity",
    ),
    (
        &["partitioner"],
        "partitions are chosen before librdkafka sees a record, as the Java client chooses them",
    ),
    (
        &["test.mock.*"],
        "a cluster inside this process keeps nothing",
    ),
    (
        &["delivery.report.only.error"],
        "a record leaves the log only by its delivery report",
    ),
    (
        &["debug", "log_level", "log.queue"],
        "lost connections are counted from librdkafka's lines, which are shown nowhere; `status` says what is wrong",
    ),
];

impl Settings {
    /// Settings for a cluster, with our defaults alone.
    pub fn new(bootstrap_servers: impl Into<String>) -> Settings {
        Settings {
            bootstrap_servers: bootstrap_servers.into(),
            properties: Vec::new(),
        }
    }

    /// Checks every property, and all of them together, without connecting to anything. Files that they name
    /// are not read: a certificate may come later, and records are taken without it.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] for a property that would break a promise, [`Error::Configuration`]
    /// for one that librdkafka does not know or whose value it does not take, and for those that contradict
    /// each other.
    pub fn check(&self) -> Result<(), Error> {
        self.check_each()?;
        let mut config = self.producer_config()?;
        config.remove("bootstrap.servers");
        let files = self.properties.iter().map(|(name, _)| name);
        files
            .filter(|name| name.ends_with(".location"))
            .for_each(|name| _ = config.remove(name));
        let refused = |error| configuration_error(&error);
        let native = config.create_native_config().map_err(refused)?;
        Client::new(&config, native, RDKafkaType::RD_KAFKA_PRODUCER, Silent)
            .map(drop)
            .map_err(refused)
    }

    /// Checks each property alone.
    pub(crate) fn check_each(&self) -> Result<(), Error> {
        self.producer_config()?
            .create_native_config()
            .map(drop)
            .map_err(|error| configuration_error(&error))
    }

    /// What is spoken to brokers, as `security.protocol` says; the last of several counts.
    pub(super) fn security_protocol(&self) -> &str {
        let mut given = self.properties.iter().rev();
        let found = given.find(|(name, _)| name == "security.protocol");
        found.map_or("plaintext", |(_, value)| value.as_str())
    }

    /// The configuration of a producer.
    pub(super) fn producer_config(&self) -> Result<ClientConfig, Error> {
        self.refuse_forbidden()?;
        let mut config = self.base_config();
        config.set_log_level(RDKafkaLogLevel::Debug);
        for (name, value) in DEFAULTS {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(main_name(name), value);
        }
        Ok(config)
    }

    /// The configuration of a producer that goes on after a refusal.
    pub(super) fn careful_producer_config(
        &self,
        patience: Option<Duration>,
    ) -> Result<ClientConfig, Error> {
        let mut config = self.producer_config()?;
        if let Some(patience) = patience {
            let millis = patience.min(SOCKET_TIMEOUT_MAX).as_millis();
            config.set("socket.timeout.ms", millis.max(1000).to_string());
        }
        config
            .set("enable.gapless.guarantee", "false")
            .set("linger.ms", "0");
        Ok(config)
    }

    /// The configuration of a producer of transactions.
    pub(super) fn transactional_config(
        &self,
        id: &str,
        timeout: Duration,
    ) -> Result<ClientConfig, Error> {
        let mut config = self.producer_config()?;
        // A request must be given up within the transaction that it belongs to, and a record may
        // take as long to cross as that lasts.
        let mut socket_timeout = timeout.min(SOCKET_TIMEOUT_MAX);
        let named = |name: &str| self.properties.iter().find(|(n, _)| n == name);
        if let Some((_, given)) = named("socket.timeout.ms")
            && let Ok(given) = given.parse()
        {
            socket_timeout = socket_timeout.min(Duration::from_millis(given));
        }
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .set("socket.timeout.ms", socket_timeout.as_millis().to_string())
            // A refused batch fails its transaction, which takes nothing with it that overtakes.
            .set("enable.gapless.guarantee", "false");
        Ok(config)
    }

    /// The configuration of a client that administers.
    pub(super) fn admin_config(&self) -> Result<ClientConfig, Error> {
        self.refuse_forbidden()?;
        let mut config = self.base_config();
        // It asks a question or two, for which somebody waits.
        config.set("reconnect.backoff.ms", "20");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        Ok(config)
    }

    /// The configuration of a consumer that reads partitions by itself, in no group.
    pub(super) fn consumer_config(&self) -> Result<ClientConfig, Error> {
        let mut config = self.admin_config()?;
        config
            .set("group.id", "ferrylog-reader")
            .set("enable.auto.commit", "false")
            .set("check.crcs", "true")
            // A record that is gone is an error: it must not be skipped unseen.
            .set("auto.offset.reset", "error");
        Ok(config)
    }

    fn base_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    fn refuse_forbidden(&self) -> Result<(), Error> {
        let bad = |reason| Err(Error::Configuration { reason });
        if names_none(&self.bootstrap_servers) {
            return bad("no bootstrap servers are given, as host:port".to_owned());
        }
        if let Some(server) = bad_server(&self.bootstrap_servers) {
            return bad(format!(
                "`{server}` among the bootstrap servers is no host:port"
            ));
        }
        for (property, _) in &self.properties {
            let is_same =
                |other: &str| other != property && main_name(other) == main_name(property);
            if let Some((other, _)) = self.properties.iter().find(|(name, _)| is_same(name)) {
                return bad(format!(
                    "`{property}` and `{other}` are one property: give one of them"
                ));
            }
            for (names, reason) in FORBIDDEN {
                let is_meant = |name: &&str| match name.strip_suffix('*') {
                    Some(start) => property.starts_with(start),
                    None => property == name,
                };
                if names.iter().any(is_meant) {
                    return Err(Error::Forbidden {
                        property: property.clone(),
                        reason,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Other names that librdkafka has for properties (`_RK_C_ALIAS` in its `rdkafka_conf.c`), but for those that
/// are forbidden. It takes whichever of two names is set last, and the order in which they are set is random.
const ALIASES: &[(&str, &str)] = &[
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("sasl.mechanism", "sasl.mechanisms"),
    (
        "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.client.id",
    ),
    (
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.client.secret",
    ),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
];

/// The one name under which a property is set.
fn main_name(property: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == property);
    alias.map_or(property, |(_, name)| name)
}

/// Shows the names of all properties, but no value that may be a secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): &(String, String)| {
            let value = if is_secret(name) { "***" } else { value };
            format!("{name}={value}")
        };
        f.debug_struct("Settings")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field(
                "properties",
                &self.properties.iter().map(shown).collect::<Vec<_>>(),
            )
            .finish()
    }
}

/// Whether a property's value must not be shown, told by its name.
#[must_use]
pub fn is_secret(property: &str) -> bool {
    let mut words = property.split(['.', '_']);
    words.any(|word| {
        matches!(
            word,
            "password" | "secret" | "key" | "pem" | "token" | "jaas" | "oauthbearer"
        )
    })
}

/// What librdkafka says, without what follows the name of a property whose value is a secret: it quotes
/// values, or parts of them.
pub(super) fn without_secrets(text: &str) -> String {
    let is_name = |word: &str| {
        let name = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        name.contains('.') && is_secret(name)
    };
    let mut shown = String::new();
    for word in text.split_inclusive(' ') {
        shown.push_str(word);
        if is_name(word) {
            shown.push_str("(what follows may hold a secret)");
            break;
        }
    }
    shown
}

/// librdkafka's complaint, without the value of a secret property.
pub(super) fn configuration_error(error: &KafkaError) -> Error {
    let reason = match error {
        KafkaError::ClientConfig(_, _, name, _) if is_secret(name) => {
            format!("the value of `{name}` is not accepted")
        }
        KafkaError::ClientConfig(_, text, ..) => text.clone(),
        KafkaError::ClientCreation(text) => text.clone(),
        other => other.to_string(),
    };
    Error::Configuration { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Settings {
        Settings {
            properties: vec![(name.to_owned(), value.to_owned())],
            ..Settings::new("127.0.0.1:9092")
        }
    }

    #[test]
    fn the_defaults_are_accepted() {
        Settings::new("127.0.0.1:9092").check().unwrap();
    }

    #[test]
    fn a_property_that_would_break_a_promise_is_refused_by_name() {
        for (names, _) in FORBIDDEN {
            for name in *names {
                let name = &name.replace('*', "num.brokers");
                let error = with(name, "0").check().unwrap_err();
                assert!(matches!(&error, Error::Forbidden { property, .. } if property == name));
                assert!(error.to_string().contains(name), "{error}");
            }
        }
    }

    #[test]
    fn a_property_under_two_names_is_refused_and_under_one_twice_the_last_counts() {
        let mut settings = with("linger.ms", "7");
        settings.properties.push(("linger.ms".into(), "9".into()));
        let config = settings.producer_config().unwrap();
        assert_eq!(config.get("linger.ms"), Some("9"));
        let other = ("queue.buffering.max.ms".into(), "8".into());
        settings.properties.push(other);
        let error = settings.check().unwrap_err().to_string();
        let are_named = ["linger.ms", "queue.buffering.max.ms"].map(|name| error.contains(name));
        assert_eq!(are_named, [true, true], "{error}");
    }

    #[test]
    fn any_other_property_of_librdkafka_is_taken() {
        with("compression.type", "zstd").check().unwrap();
        let mut settings = with("sasl.mechanisms", "SCRAM-SHA-256");
        for (name, value) in [
            ("security.protocol", "sasl_ssl"),
            ("sasl.username", "gateway"),
            ("sasl.password", "hunter2"),
        ] {
            settings.properties.push((name.into(), value.into()));
        }
        settings.check().unwrap();
    }

    #[test]
    fn an_unknown_property_is_refused() {
        let error = with("no.such.property", "1").check().unwrap_err();
        assert!(error.to_string().contains("no.such.property"), "{error}");
    }

    #[test]
    fn properties_that_contradict_each_other_are_refused_though_each_is_right() {
        for (name, value) in [("max.in.flight", "6"), ("reconnect.backoff.max.ms", "1")] {
            let settings = with(name, value);
            settings.check_each().unwrap();
            let refused = settings.check();
            assert!(
                matches!(refused, Err(Error::Configuration { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn a_file_that_is_not_there_yet_is_no_reason_to_take_no_records() {
        let mut settings = with("security.protocol", "ssl");
        let file = ("ssl.ca.location".into(), "/no/such/file".into());
        settings.properties.push(file);
        settings.check().unwrap();
    }

    #[test]
    fn secrets_are_printed_neither_in_errors_nor_in_debug_lines() {
        let settings = with("sasl.password", "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"));
        // Not a valid value: librdkafka would quote it.
        let error = with("ssl.key.password.no.such", "hunter2")
            .check()
            .unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");

        let said = "Unrecognized sasl.oauthbearer.config beginning at: hunter2 scope=x";
        let shown = without_secrets(said);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.starts_with("Unrecognized sasl.oauthbearer.config "));
        let harmless = "10.0.0.1:9092: the key of record 3.5 is not right";
        assert_eq!(without_secrets(harmless), harmless);
    }

    #[test]
    fn an_alias_takes_the_place_of_the_name_it_stands_for() {
        for (alias, name) in ALIASES {
            let value = if *name == "compression.type" {
                "zstd"
            } else {
                "3"
            };
            let config = with(alias, value).producer_config().unwrap();
            assert_eq!((config.get(name), config.get(alias)), (Some(value), None));
        }
    }

    #[test]
    fn servers_that_nobody_can_connect_to_are_refused() {
        for servers in [
            " ",
            ",",
            "localhost:",
            "localhost:abc",
            "a:1,b:99999",
            "a:0",
            ":9092",
            "a b:1",
        ] {
            let refused = Settings::new(servers).check();
            assert!(
                matches!(refused, Err(Error::Configuration { .. })),
                "{servers}"
            );
        }
        for servers in [
            "localhost",
            "a:1, b:2,",
            "[::1]:9092",
            "::1",
            "SASL_SSL://kafka.example:9093",
        ] {
            Settings::new(servers).check().unwrap();
        }
    }
}
