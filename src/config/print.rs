//! The configuration as text: an example to start from, and what is in effect.
//!
//! Pure. Must not know where the text goes. Invariant: both are files that can be read; the example
//! says the defaults.

use std::fmt::Write;

use serde_json::Value as Json;

use super::error::Place;
use super::keys::{Config, NAMED, ROUTES, SECTIONS};
use super::load::{Row, below};
use super::path;
use super::section::{Key, Section};

const HEAD: &str = "\
# The configuration of ferrylog. Every key has a default, which stands here; a file with nothing but
# kafka.bootstrap_servers works. A line that begins with # and no blank shows a value for a key that
# has none by default.
#
# FERRYLOG__KAFKA__BOOTSTRAP_SERVERS=... in the environment wins over this file, and so does each other
# key by its name. ${VARIABLE} in a text is replaced.
";

const OF_PROPERTIES: &str = "
# Any property of librdkafka that breaks no promise. NAME_file names a file that holds a secret.
[kafka.properties]
#\"security.protocol\" = \"SASL_SSL\"
#\"sasl.mechanisms\" = \"PLAIN\"
#\"sasl.username\" = \"site-17\"
#\"sasl.password_file\" = \"/run/secrets/kafka\"
";

/// Headings of the sections that have names of their own.
const OF_NAMED: [&str; 4] = [
    "
# More clusters. Lanes, topics and tenants name them; `main` is that of [kafka].
#[clusters.audit]
",
    "
# Tenants: the records whose header store.tenant_header is the name, or whose topic begins with the prefix.
# Of a retry policy each key that is given counts: a tenant's before a topic's before a lane's before [retry].
#[tenants.acme]
",
    "
# Topics that are otherwise than their lane.
#[topics.ledger]
",
    "
# Lanes: logs of their own, for topics by name or pattern. What is not given is as in [store] and [retry].
#[lanes.alarms]
",
];

const OF_CLUSTER: &str = "\
# As [kafka.properties].
#[clusters.audit.properties]
";

const OF_ROUTES: &str = "
# Topics of events by type, where `*` stands for any characters. They count before the routes that are
# built in; `default` is for types that nothing fits: if empty, those have kafka.default_topic.
[routes]
#\"user.*\" = \"user-events\"
#default = \"default-events\"
";

/// A file with every key, its meaning and its default.
#[must_use]
pub fn example() -> String {
    let config = Config::default();
    let mut out = HEAD.to_owned();
    for (name, keys) in SECTIONS {
        let _ = write!(out, "\n[{name}]\n");
        if let Some(section) = config.section(name) {
            for key in keys {
                push_key(&mut out, key, section, "");
            }
        }
        if name == "kafka" {
            out.push_str(OF_PROPERTIES);
        }
    }
    for ((kind, keys), heading) in NAMED.into_iter().zip(OF_NAMED) {
        out.push_str(heading);
        let mut config = Config::default();
        let name = format!("{kind}.x");
        config.declare(&name);
        let Some(section) = config.section(&name) else {
            continue;
        };
        for key in keys {
            // The section is not there, so none of its keys may be.
            push_key(&mut out, key, section, "#");
        }
        if kind == "clusters" {
            out.push_str(OF_CLUSTER);
        }
    }
    out.push_str(OF_ROUTES);
    out
}

/// Writes a key, with `mark` in front of it.
fn push_key(out: &mut String, key: &Key, section: &dyn Section, mark: &str) {
    for line in key.about {
        let _ = writeln!(out, "# {}", line.trim());
    }
    let setting = section.setting(key.name);
    let kind = setting.map(|setting| setting.kind().allowed());
    if let Some(allowed) = kind.filter(|allowed| allowed.contains(" | ")) {
        let _ = writeln!(out, "# {allowed}");
    }
    let value = setting.map(|setting| setting.shown()).unwrap_or_default();
    let name = key.name;
    let _ = match key.example {
        Some(example) => writeln!(out, "#{name} = {example}"),
        None => writeln!(out, "{mark}{name} = {}", literal(&value)),
    };
}

/// What is in effect, with the place of each value behind it.
#[must_use]
pub fn toml(rows: &[Row]) -> String {
    let lines: Vec<(String, &Place)> = rows
        .iter()
        .map(|row| {
            let routed = below(ROUTES, &row.key).map(|name| (ROUTES.to_owned(), name));
            let free = path::property(&row.key).map(|(of, name)| (path::properties(of), name));
            let key = match free.or(routed) {
                Some((section, name)) => format!("{section}.{}", literal(&name.into())),
                None => row.key.clone(),
            };
            let line = match &row.value {
                Json::Null => format!("#{key} ="),
                value => format!("{key} = {}", literal(value)),
            };
            (line, &row.place)
        })
        .collect();
    let width = lines
        .iter()
        .map(|(line, _)| line.chars().count())
        .filter(|width| *width <= 60);
    let width = width.max().unwrap_or(0);
    let mut out = String::new();
    for (line, place) in lines {
        // A name of a file may hold anything.
        let place: String = place
            .to_string()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        let _ = writeln!(out, "{line:width$}  # {place}");
    }
    out
}

/// A value in TOML.
fn literal(value: &Json) -> String {
    match value {
        Json::Array(parts) => {
            let parts: Vec<String> = parts.iter().map(literal).collect();
            format!("[{}]", parts.join(", "))
        }
        // The escapes of JSON are escapes of TOML, which wants one more.
        other => other.to_string().replace('\u{7f}', "\\u007F"),
    }
}
