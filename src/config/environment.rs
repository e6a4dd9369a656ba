//! The environment: `FERRYLOG__SECTION__KEY`, and the variables of the service this one replaces.
//!
//! Pure: the variables are handed in. Owns the way from a variable's name to a key. Must not know
//! what a value means.
//!
//! Invariant: a variable that begins with `FERRYLOG__` and is no key is told, never passed over.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::time::Duration;

use super::error::{Place, Problem};
use super::given::{Given, unknown};
use super::path::{self, Known};
use super::value::{self, Raw, Value};

const PREFIX: &str = "FERRYLOG__";

/// Variables by name. Printed by their names alone: a value may be a secret.
#[derive(Clone, Default)]
pub struct Environment {
    /// `None`: it is no UTF-8.
    variables: BTreeMap<String, Option<String>>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.into_string().ok()))
        });
        Self {
            variables: variables.collect(),
        }
    }

    /// These variables.
    #[must_use]
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables.into_iter();
        Self {
            variables: variables
                .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
                .collect(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.as_deref()
    }

    /// Why a variable cannot be had.
    pub(super) fn why_not(&self, name: &str) -> &'static str {
        if self.variables.contains_key(name) {
            "is no UTF-8"
        } else {
            "is not set"
        }
    }

    /// What the variables with our prefix give.
    pub(super) fn read(&self) -> (Vec<Given>, Vec<Problem>) {
        let (mut given, mut problems) = (Vec::new(), Vec::new());
        for (name, value) in &self.variables {
            let Some(path) = name.strip_prefix(PREFIX).map(path_of) else {
                continue;
            };
            let place = Place::Environment {
                variable: name.clone(),
            };
            let key = || path::join(&path);
            match (path::look(&path), value) {
                (Known::Key, Some(value)) => given.push(Given {
                    key: key(),
                    raw: Raw::Plain(value.clone()),
                    place,
                    is_substituted: false,
                }),
                (Known::Key, None) => {
                    problems.push(Problem::new(&place, &key(), "is no UTF-8"));
                }
                (Known::Section, _) => {
                    let reason = "is a section: a variable gives one value";
                    problems.push(Problem::new(&place, &key(), reason));
                }
                (known, _) => problems.push(unknown(known, &path, &place)),
            }
        }
        (given, problems)
    }

    /// What the variables of the older service give.
    pub(super) fn read_older(&self) -> (Vec<Given>, Vec<Problem>) {
        let (mut given, mut problems) = (Vec::new(), Vec::new());
        for (variable, key, convert, allowed) in OLDER {
            // What a deployment leaves empty is not set.
            let Some(value) = self.get(variable).filter(|value| !value.is_empty()) else {
                continue;
            };
            let place = Place::Environment {
                variable: variable.to_owned(),
            };
            match convert(value) {
                Some(text) => given.push(Given {
                    key: key.to_owned(),
                    raw: Raw::Plain(text),
                    place,
                    is_substituted: false,
                }),
                None => {
                    let reason = format!("cannot be {value:?}: use {allowed}");
                    problems.push(Problem::new(&place, key, reason));
                }
            }
        }
        (given, problems)
    }
}

/// The names that a variable's name stands for. A property's dots are underscores in it.
fn path_of(name: &str) -> Vec<String> {
    let mut path: Vec<String> = name.split("__").map(str::to_ascii_lowercase).collect();
    if let Some(len) = path::properties_len(&path).filter(|len| path.len() > *len) {
        let property = path.split_off(len).join("_");
        let (stem, file) = match property.strip_suffix("_file") {
            Some(stem) => (stem, "_file"),
            None => (property.as_str(), ""),
        };
        // The only property with an underscore of its own.
        let stem = match stem {
            "log_level" => stem.to_owned(),
            stem => stem.replace('_', "."),
        };
        path.push(format!("{stem}{file}"));
    }
    path
}

/// A variable, the key it stands for, what its value is for that, and what is allowed.
type Older = (
    &'static str,
    &'static str,
    fn(&str) -> Option<String>,
    &'static str,
);

const OLDER: [Older; 7] = [
    (
        "KAFKA_BROKERS",
        "kafka.bootstrap_servers",
        same,
        "host:port",
    ),
    (
        "KAFKA_CLIENT_ID",
        "kafka.properties.client.id",
        same,
        "a text",
    ),
    (
        "KAFKA_RETRY_MAX",
        "retry.max_attempts",
        // It counted what came after the first attempt.
        |text| Some(text.trim().parse::<u32>().ok()?.checked_add(1)?.to_string()),
        "a whole number from 0 on",
    ),
    (
        "KAFKA_RETRY_BACKOFF",
        "retry.backoff.initial",
        |text| millis_of(text).map(|millis| format!("{millis}ms")),
        "a duration such as \"100ms\"",
    ),
    (
        "KAFKA_FLUSH_MESSAGES",
        "kafka.properties.batch.num.messages",
        |text| u32::read(&Raw::Plain(text.into())).map(|number| number.to_string()),
        "a whole number from 1 on",
    ),
    (
        "KAFKA_FLUSH_BYTES",
        "kafka.properties.batch.size",
        |text| value::Size::read(&Raw::Plain(text.into())).map(|size| size.0.to_string()),
        "bytes, or a size such as \"1 MiB\"",
    ),
    (
        "KAFKA_FLUSH_TIMEOUT",
        "kafka.properties.linger.ms",
        |text| millis_of(text).map(|millis| millis.to_string()),
        "a duration such as \"1s\"",
    ),
];

/// A duration as the older service writes it, which knows fractions (`1.5s`) and a bare 0.
fn millis_of(text: &str) -> Option<u128> {
    let text = text.trim();
    let fraction = || Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok();
    let time = value::duration(text).or_else(fraction);
    let zero = || (text == "0").then_some(Duration::ZERO);
    Some(time.or_else(zero)?.as_millis())
}

fn same(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_printed() {
        let printed = format!("{:?}", Environment::of([("SECRET", "hunter2")]));
        assert_eq!(printed, "{\"SECRET\"}");
    }

    #[test]
    fn a_topic_with_a_dot_in_it_is_one_name() {
        let (given, problems) =
            Environment::of([("FERRYLOG__TOPICS__LEDGER.V2__CLUSTER", "audit")]).read();
        assert!(problems.is_empty());
        assert_eq!(given[0].key, "topics.\"ledger.v2\".cluster");
    }

    #[test]
    fn durations_of_the_older_service_are_understood() {
        for (text, millis) in [
            ("100ms", Some(100)),
            ("1.5s", Some(1500)),
            ("1m30s", Some(90_000)),
            ("0", Some(0)),
            ("soon", None),
            ("-1s", None),
            ("5", None),
        ] {
            assert_eq!(millis_of(text), millis, "{text}");
        }
    }

    #[test]
    fn a_variable_names_a_key() {
        for (name, key) in [
            ("KAFKA__BOOTSTRAP_SERVERS", "kafka.bootstrap_servers"),
            ("RETRY__BACKOFF__INITIAL", "retry.backoff.initial"),
            ("LANES__ALARMS__WEIGHT", "lanes.alarms.weight"),
            (
                "KAFKA__PROPERTIES__SECURITY_PROTOCOL",
                "kafka.properties.security.protocol",
            ),
            ("KAFKA__PROPERTIES__LOG_LEVEL", "kafka.properties.log_level"),
            (
                "KAFKA__PROPERTIES__SASL_PASSWORD_FILE",
                "kafka.properties.sasl.password_file",
            ),
        ] {
            assert_eq!(path_of(name).join("."), key);
        }
    }

    #[test]
    fn a_variable_that_is_no_key_is_told_by_its_name() {
        let environment = Environment::of([
            ("FERRYLOG__STORE__QUOTAS", "1"),
            ("FERRYLOG__STORE", "1"),
            ("FERRYLOG__HTTP", "1"),
            ("FERRYLOG__", "1"),
            ("FERRYLOG_DATA", "1"),
        ]);
        let (given, problems) = environment.read();
        assert!(given.is_empty());
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[3].contains("FERRYLOG__STORE__QUOTAS") && told[3].contains("`quota`"));
    }

    #[test]
    fn the_older_variables_are_read_with_their_meaning() {
        let environment = Environment::of([
            ("KAFKA_BROKERS", "a:1,b:2"),
            ("KAFKA_CLIENT_ID", ""),
            ("KAFKA_RETRY_MAX", "3"),
            ("KAFKA_RETRY_BACKOFF", "100ms"),
            ("KAFKA_FLUSH_MESSAGES", "100"),
            ("KAFKA_FLUSH_BYTES", "1048576"),
            ("KAFKA_FLUSH_TIMEOUT", "1s"),
        ]);
        let (given, problems) = environment.read_older();
        assert!(problems.is_empty(), "{problems:?}");
        let texts: Vec<_> = given
            .iter()
            .map(|given| given.raw.text().unwrap())
            .collect();
        assert_eq!(texts, ["a:1,b:2", "4", "100ms", "100", "1048576", "1000"]);
        let wrong = Environment::of([("KAFKA_FLUSH_BYTES", "many"), ("KAFKA_RETRY_MAX", "-1")]);
        let (_, problems) = wrong.read_older();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].to_string().starts_with("KAFKA_RETRY_MAX: "));
    }
}
