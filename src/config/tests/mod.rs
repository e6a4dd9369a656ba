//! What a configuration promises, seen from outside of its files.

mod contract;
mod effect;
mod refused;
mod secrets;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde_json::Value as Json;

use super::keys::{NAMED, SECTIONS};
use super::*;
use crate::wal::{Durability, OnFull};

const FILE: &str = "ferrylog.toml";

fn no_secret(_: &Path) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

fn with(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Error> {
    let environment = Environment::of(environment.iter().copied());
    settle(Some((Path::new(FILE), text)), &environment, &[], &no_secret)
}

fn loaded(text: &str) -> Loaded {
    with(text, &[]).unwrap()
}

/// The variable that sets a key.
fn variable_of(key: &str) -> String {
    format!("FERRYLOG__{}", key.replace('.', "__").to_uppercase())
}

/// Values by their keys, without their places.
fn values(loaded: &Loaded) -> Vec<(String, Json)> {
    loaded
        .rows()
        .into_iter()
        .map(|row| (row.key, row.value))
        .collect()
}

#[test]
fn an_empty_file_is_the_defaults() {
    let loaded = loaded("");
    assert_eq!(
        format!("{:?}", loaded.config),
        format!("{:?}", Config::default())
    );
    assert_eq!(loaded.given(), 0);
}

#[test]
fn the_example_says_every_default_and_is_accepted() {
    let example = example();
    let loaded = loaded(&example);
    assert_eq!(
        format!("{:?}", loaded.config),
        format!("{:?}", Config::default())
    );
    // What stands there has a default, what does not has none.
    for row in loaded.rows() {
        assert_eq!(
            loaded.is_given(&row.key),
            !row.value.is_null(),
            "{}",
            row.key
        );
    }
}

#[test]
fn the_example_is_accepted_with_all_that_it_shows() {
    let lines = example();
    let shown = lines.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
        _ => line,
    });
    let text = shown.collect::<Vec<_>>().join("\n");
    // What is no default needs what it goes with, and the file of the secret be there.
    let text = text.replace("\"idempotent\"", "\"exactly_once\"");
    let read = |path: &Path| match path.to_str() {
        Some("/etc/ferrylog/key") => Ok(format!("1 {}", "0f".repeat(32))),
        _ => Ok("secret\n".to_owned()),
    };
    let file = Some((Path::new(FILE), text.as_str()));
    let loaded = settle(file, &Environment::default(), &[], &read).unwrap();
    assert!(loaded.rows().iter().all(|row| !row.value.is_null()));
    let expected: usize = SECTIONS.iter().map(|(_, keys)| keys.len()).sum();
    let named: usize = NAMED.iter().map(|(_, keys)| 1 + keys.len()).sum();
    // Four properties, and two routes.
    assert_eq!(loaded.given(), expected + 4 + named + 2);
    let properties = loaded.config.settings().unwrap().properties;
    assert!(properties.contains(&("sasl.password".into(), "secret".into())));
}

#[test]
fn the_schema_is_the_one_in_schemas() {
    let written = include_str!("../../../schemas/config.json");
    let expected = format!("{:#}\n", schema());
    assert!(
        written == expected,
        "`ferrylog config schema > schemas/config.json`"
    );
}

#[test]
fn the_schema_names_the_keys_of_the_table() {
    fn names(schema: &Json, prefix: &str, found: &mut BTreeSet<String>) {
        for (name, part) in schema["properties"].as_object().unwrap() {
            let key = format!("{prefix}{name}");
            if part["properties"].is_object() {
                names(part, &format!("{key}."), found);
            } else {
                found.insert(key);
            }
        }
    }
    let mut found = BTreeSet::new();
    names(&schema(), "", &mut found);
    for row in Loaded::default().rows() {
        assert!(found.remove(&row.key), "{}", row.key);
    }
    let rest: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(
        rest,
        [
            "clusters",
            "kafka.properties",
            "lanes",
            "routes",
            "tenants",
            "topics"
        ]
    );
}

#[test]
fn of_several_values_the_later_source_wins() {
    let key = "retry.max_attempts";
    let older = ("KAFKA_RETRY_MAX", "3");
    let newer = ("FERRYLOG__RETRY__MAX_ATTEMPTS", "5");
    let argument = Argument {
        key: key.into(),
        value: "6".into(),
        option: "--attempts",
    };
    let text = "retry.max_attempts = 7";
    let of = |text: &str, variables: &[(&str, &str)], arguments: &[Argument]| {
        let environment = Environment::of(variables.iter().copied());
        let file = Some((Path::new(FILE), text));
        let loaded = settle(file, &environment, arguments, &no_secret).unwrap();
        (
            loaded.config.retry.max_attempts,
            loaded.place(key).to_string(),
        )
    };
    assert_eq!(of("", &[], &[]), (10, "default".into()));
    assert_eq!(of("", &[older], &[]), (4, "KAFKA_RETRY_MAX".into()));
    assert_eq!(of(text, &[older], &[]), (7, "ferrylog.toml:1".into()));
    assert_eq!(of(text, &[older, newer], &[]), (5, newer.0.into()));
    assert_eq!(
        of(text, &[older, newer], &[argument]),
        (6, "--attempts".into())
    );
}

#[test]
fn every_key_can_be_set_by_a_variable() {
    let plain = |value: &Json| match value {
        Json::Array(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| part.as_str().unwrap()).collect();
            parts.join(",")
        }
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let of_lanes = loaded(EVERY_SECTION).rows();
    for row in of_lanes.iter().filter(|row| !row.value.is_null()) {
        let given = [(variable_of(&row.key), plain(&row.value))];
        let given: Vec<_> = given
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let loaded = with(EVERY_SECTION, &given).unwrap();
        let now = loaded
            .rows()
            .into_iter()
            .find(|now| now.key == row.key)
            .unwrap();
        assert_eq!(
            (&now.value, now.place.to_string().as_str()),
            (&row.value, given[0].0)
        );
    }
}

#[test]
fn a_variable_in_a_text_is_replaced_and_never_shown_in_an_error() {
    let environment = [("DIR", "/data"), ("SECRET", "hunter2")];
    let text = "store.dir = \"${DIR}/log\"\nlink.targets = [\"${DIR}:1\", \"$${DIR}\"]";
    let loaded = with(text, &environment).unwrap();
    assert_eq!(loaded.config.store.dir, Path::new("/data/log"));
    assert_eq!(loaded.config.link.targets, ["/data:1", "${DIR}"]);
    // Somebody put it in the wrong place.
    let told = with("store.durability = \"${SECRET}\"", &environment)
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("disk | os | memory") && !told.contains("hunter2"),
        "{told}"
    );
    for key in [
        "kafka.bootstrap_servers",
        "kafka.default_topic",
        "kafka.properties.\"linger.ms\"",
        "link.ping_url",
    ] {
        let text = format!("{key} = \"a b ${{SECRET}}\"");
        let told = with(&text, &environment).unwrap_err().to_string();
        assert!(
            told.contains("is refused") && !told.contains("hunter2"),
            "{told}"
        );
    }
    let told = with("\nstore.dir = \"${NOWHERE}\"", &environment)
        .unwrap_err()
        .to_string();
    assert_eq!(
        told,
        "ferrylog.toml:2: `store.dir` names the variable NOWHERE, which is not set"
    );
}

#[test]
fn what_is_shown_can_be_read_and_is_the_same() {
    let text = "[store]\nquota = \"8 GiB\"\n[kafka]\nbootstrap_servers = \"a:1\"\n\
        [kafka.properties]\nsecurity.protocol = \"ssl\"\n\"client.id\" = \"a\\\"\\\\b\\tc\\u007f\"\n\
        [link]\nbackoff.initial = \"1s\"\n[lanes.x-1]\ntopics = [\"a\", \"b*\"]\n[lanes.y]\n\
        [routes]\n\"a.*\" = \"x\"\nb.c = \"y\"\ndefault = \"\"\n";
    let first = loaded(text);
    let shown = toml(&first.rows());
    assert_eq!(values(&loaded(&shown)), values(&first), "{shown}");
}

#[test]
fn a_lane_has_what_it_says_and_else_what_the_store_says() {
    let loaded = loaded(
        "[store]\ndurability = \"os\"\non_full = \"reject\"\n[lanes.default]\nweight = 4\n\
         [lanes.a]\ntopics = [\"a.*\"]\ndurability = \"disk\"\nquota = \"1 GiB\"\n[lanes.b]\n",
    );
    let options = loaded.config.store_options();
    let (a, b) = (&options.lanes["a"], &options.lanes["b"]);
    assert_eq!(
        (a.wal.durability, a.wal.quota_bytes),
        (Durability::Disk, Some(1 << 30))
    );
    assert_eq!(
        (b.wal.durability, b.wal.quota_bytes),
        (Durability::Os, None)
    );
    assert_eq!(
        (a.wal.on_full, b.wal.on_full),
        (OnFull::Reject, OnFull::Reject)
    );
    assert_eq!(
        (options.default.weight, b.weight, options.lanes.len()),
        (4, 1, 2)
    );
}

#[test]
fn events_go_where_the_routes_say() {
    let text = "[routes]\n\"user.*\" = \"people\"\nuser.deleted = \"audit\"\ndefault = \"events\"";
    let routes = loaded(text).config.event_routes();
    for (event_type, topic) in [
        ("user.logged_in", "people"),
        ("user.deleted", "audit"),
        // Built in.
        ("api.error", "error-events"),
        ("door.opened", "events"),
    ] {
        assert_eq!(routes.topic_of(event_type), Some(topic), "{event_type}");
    }
    let variable = ("FERRYLOG__ROUTES__DEFAULT", "");
    let loaded = with(text, &[variable]).unwrap();
    assert_eq!(loaded.place("routes.default").to_string(), variable.0);
    let routes = loaded.config.event_routes();
    assert_eq!(routes.topic_of("door.opened"), None, "the default topic's");
}

/// One of each section that has a name of its own.
const EVERY_SECTION: &str = "[kafka]\nbootstrap_servers = \"a:1\"\n\
    [clusters.b]\nbootstrap_servers = \"b:1\"\n[tenants.c]\nquota = \"1 GiB\"\n[topics.d]\n\
    retry.max_attempts = 3\n[lanes.a]\ntopics = [\"x\"]\n";

#[test]
fn clusters_tenants_and_topics_become_options() {
    let text = "[store]\nlanes = \"priorities\"\ntenant_header = \"who\"\n[kafka]\nbootstrap_servers = \"a:1\"\n\
         [clusters.audit]\nbootstrap_servers = \"b:1\"\n[clusters.audit.properties]\n\
         security.protocol = \"ssl\"\n\"sasl.password_file\" = \"/run/secret\"\n\
         [tenants.acme]\ncluster = \"main\"\nquota = \"1 GiB\"\ntopic_prefix = \"acme.\"\n\
         retry = { max_attempts = 3, backoff = { max = \"1s\" } }\n\
         [topics.\"a.b\"]\ncluster = \"audit\"\nretry.on_poison = \"halt\"\n\
         [lanes.high]\ntopics = [\"alarms.*\"]\ncluster = \"audit\"\nretry.backoff.jitter = false\n\
         [lanes.low]\nweight = 2\n";
    let read = |_: &Path| Ok("hunter2\n".to_owned());
    let file = Some((Path::new(FILE), text));
    let loaded = settle(file, &Environment::default(), &[], &read).unwrap();
    let config = &loaded.config;
    let clusters = config.clusters().unwrap();
    assert_eq!(clusters["main"].bootstrap_servers, "a:1");
    let audit = &clusters["audit"];
    let password = ("sasl.password".to_owned(), "hunter2".to_owned());
    assert!(audit.bootstrap_servers == "b:1" && audit.properties.contains(&password));
    assert!(clusters["main"].properties.is_empty());

    let store = config.store_options();
    assert_eq!(store.tenant_header, "who");
    assert_eq!(store.topic_clusters["a.b"], "audit");
    let acme = &store.tenants["acme"];
    assert_eq!(
        (
            acme.cluster.as_deref(),
            acme.quota_bytes,
            acme.topic_prefix.as_str()
        ),
        (Some("main"), Some(1 << 30), "acme.")
    );
    let lanes: Vec<_> = store
        .lanes
        .iter()
        .map(|(n, l)| (n.as_str(), l.weight, l.cluster.as_str()))
        .collect();
    assert_eq!(
        lanes,
        [
            ("high", 8, "audit"),
            ("low", 2, "main"),
            ("normal", 4, "main")
        ]
    );
    assert_eq!(
        (store.default.weight, &store.lanes["high"].topics[..]),
        (4, &["alarms.*".to_owned()][..])
    );

    let retry = config.ship_options().retry_overrides;
    assert_eq!(retry.tenants["acme"].max_attempts, Some(3));
    assert_eq!(
        retry.tenants["acme"].max_backoff,
        Some(std::time::Duration::from_secs(1))
    );
    assert!(retry.topics["a.b"].on_poison.is_some() && retry.topics["a.b"].max_attempts.is_none());
    assert_eq!(retry.lanes["high"].jitter, Some(false));
    assert_eq!(retry.lanes.len(), 1, "nothing is said of the others");

    let shown = toml(&loaded.rows());
    assert!(
        !shown.contains("hunter2") && shown.contains("topics.\"a.b\".cluster"),
        "{shown}"
    );
}

#[test]
fn a_cluster_has_a_link_of_its_own_where_it_says_something_of_it() {
    let text = "[link]\nping_url = \"http://a/\"\nping_body = \"ok\"\ntimeout = \"7s\"\n\
         targets = [\"a:1\"]\nbackoff = { initial = \"1s\", max = \"2s\" }\n\
         [clusters]\nplain.bootstrap_servers = \"b:1\"\n\
         empty = { bootstrap_servers = \"b:1\", link = {} }\n\
         body = { bootstrap_servers = \"b:1\", link.ping_body = \"\" }\n\
         quiet = { bootstrap_servers = \"b:1\", link.ping_url = \"\" }\n\
         off = { bootstrap_servers = \"b:1\", link = { enabled = false, ping_url = \"\" } }\n\
         costly = { bootstrap_servers = \"b:1\", link = { profile = \"metered\", \
         backoff = { initial = \"\", max = \"\" } } }\n\
         same = { bootstrap_servers = \"b:1\", link.timeout = \"7s\" }\n";
    let loaded = loaded(text);
    let ship = loaded.config.ship_options();
    let names: Vec<&str> = ship.links.keys().map(String::as_str).collect();
    assert_eq!(names, ["body", "costly", "off", "quiet", "same"]);
    let page = |name: &str| {
        (
            ship.links[name].ping_url.as_deref(),
            ship.links[name].ping_body.as_deref(),
        )
    };
    assert_eq!(page("same"), (Some("http://a/"), Some("ok")));
    assert_eq!(page("body"), (Some("http://a/"), None));
    assert_eq!((page("quiet"), page("off")), ((None, None), (None, None)));
    let costly = &ship.links["costly"];
    assert_eq!(costly.backoff(), costly.profile.backoff());
    assert!(
        ship.links
            .values()
            .all(|link| link.timeout.as_secs() == 7 && link.targets.is_empty())
    );

    // To say that there is none is shown as that, and read again.
    let shown = toml(&loaded.rows());
    assert!(
        shown.contains("clusters.quiet.link.ping_url = \"\""),
        "{shown}"
    );
    let again = self::loaded(&shown).config.ship_options();
    assert_eq!(again.links, ship.links);
}
