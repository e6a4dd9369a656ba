//! What is refused, and how that is told.

use super::super::keys::LATER;
use super::{loaded, with};

/// What is wrong, a sentence each.
#[track_caller]
fn wrong(text: &str) -> Vec<String> {
    let error = with(text, &[]).unwrap_err();
    error.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_what_is_allowed() {
    let told = wrong("[store]\ndir = \"a\"\nqouta = \"8 GiB\"\n\n[shop]\na = 1\n");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("ferrylog.toml:3: `store.qouta` is no key, is `quota` meant?"));
    assert!(
        told[0].contains("allowed there: dir, durability, quota, "),
        "{}",
        told[0]
    );
    assert!(
        told[1].starts_with("ferrylog.toml:5: `shop` is no key"),
        "{}",
        told[1]
    );
    assert!(told[1].contains("store, kafka, link, "), "{}", told[1]);
}

/// A file, the key that is wrong in it, and a part of what is told.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "store.quota = \"8 GB\"",
        "store.quota",
        "KiB, MiB, GiB or TiB",
    ),
    (
        "store.durability = \"dsk\"",
        "store.durability",
        "disk | os | memory",
    ),
    (
        "store.sync_interval = \"5\"",
        "store.sync_interval",
        "ms, s, m, h or d",
    ),
    (
        "store.sync_interval = 5",
        "store.sync_interval",
        "ms, s, m, h or d",
    ),
    ("retry.max_attempts = 0", "retry.max_attempts", "from 1 on"),
    (
        "retry.backoff.jitter = \"yes\"",
        "retry.backoff.jitter",
        "true or false",
    ),
    (
        "retry.backoff.multiplier = 0.5",
        "retry.backoff.multiplier",
        "from 1 to 100",
    ),
    (
        "shipping.drain_window = \"22-6\"",
        "shipping.drain_window",
        "22:00-06:00",
    ),
    (
        "shipping.drain_rate = \"fast\"",
        "shipping.drain_rate",
        "64 KiB/s",
    ),
    (
        "dead_letter.topic = \"{topic}\"",
        "dead_letter.topic",
        "{topic}.dlq",
    ),
    ("link.targets = \"a:1\"", "link.targets", "a list of texts"),
    (
        "lanes.a.order = \"none\"",
        "lanes.a.order",
        "fifo | loose | live_first",
    ),
    (
        "events.format = \"xml\"",
        "events.format",
        "json | wrapped | cloudevents_binary | cloudevents_structured",
    ),
    ("store.dir = 1979-05-27", "store.dir", "a path"),
    ("store.dir = {a = 1}", "store.dir", "a path"),
    (
        "kafka.properties.\"linger.ms\" = [1]",
        "kafka.properties.linger.ms",
        "a number",
    ),
];

#[test]
fn a_wrong_value_is_told_with_its_line_and_what_is_allowed() {
    for (text, key, part) in WRONG {
        let told = wrong(&format!("\n{text}"));
        assert_eq!(told.len(), 1, "{told:?}");
        let start = format!("ferrylog.toml:2: `{key}` cannot be ");
        assert!(
            told[0].starts_with(&start) && told[0].contains(part),
            "{}",
            told[0]
        );
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_in_the_order_of_the_lines() {
    let told = wrong("store.quota = 1.5\nretry.max_attempts = true\nhttp = 1\nstore.x = 1\n");
    let lines: Vec<_> = told
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let expected = [1, 2, 3, 4].map(|line| format!("ferrylog.toml:{line}:"));
    assert_eq!(lines, expected);
    // What the store refuses, too.
    let told = wrong(
        "[dead_letter]\nquota = \"1 MiB\"\n[lanes.a]\ntopics = [\"a b\"]\nweight = 1001\n\
         expires_after = \"0s\"\n[lanes.b]\nquota = \"1 MiB\"\n",
    );
    let keys = told.iter().map(|line| line.split('`').nth(1).unwrap());
    let expected = [
        "dead_letter.quota",
        "lanes.a.topics",
        "lanes.a.weight",
        "lanes.a.expires_after",
        "lanes.b.quota",
    ];
    assert_eq!(keys.collect::<Vec<_>>(), expected, "{told:#?}");
}

#[test]
fn what_the_library_cannot_do_yet_is_refused_as_that() {
    for (key, part) in LATER {
        let key = key.replace('*', "x");
        for text in [format!("{key} = \"x\""), format!("[{key}.a]\nb = 1")] {
            let told = wrong(&text);
            assert_eq!(told.len(), 1, "{told:?}");
            let end = format!("`{key}` belongs to {part}, which this version does not have");
            assert!(told[0].ends_with(&end), "{told:?}");
        }
    }
    let told = wrong("[[jobs]]\ntopic = \"a\"\n\n[[jobs]]\n");
    assert!(told[0].contains("`jobs` belongs to jobs from Kafka"));
}

/// The same for what is wrong beside something else.
const CONTRADICTIONS: &[(&str, &str, &str)] = &[
    (
        "kafka.progress = \"offsets\"",
        "kafka.progress",
        "exactly_once",
    ),
    (
        "kafka.txn.max_records = 7",
        "kafka.txn.max_records",
        "exactly_once",
    ),
    (
        "kafka.txn.max_time = \"1s\"",
        "kafka.txn.max_time",
        "exactly_once",
    ),
    (
        "[kafka]\ndelivery = \"exactly_once\"\ntxn.max_time = \"30s\"",
        "kafka.txn.max_time",
        "30s",
    ),
    (
        "dead_letter.style = \"connect\"",
        "dead_letter.style",
        "dead_letter.topic",
    ),
    (
        "dead_letter.quota = \"1 MiB\"",
        "dead_letter.quota",
        "refused",
    ),
    ("link.ping_body = \"ok\"", "link.ping_body", "link.ping_url"),
    ("link.timeout = \"2m\"", "link.timeout", "60"),
    ("link.targets = [\"a:0\"]", "link.targets", "`a:0`"),
    ("link.targets = [\"a:1\", \"\"]", "link.targets", "empty"),
    (
        "link.backoff.initial = \"1h\"",
        "link.backoff.initial",
        "initial",
    ),
    (
        "[link]\nenabled = false\ntargets = [\"a:1\"]",
        "link.targets",
        "link.enabled",
    ),
    (
        "retry.backoff.initial = \"1h\"",
        "retry.backoff.initial",
        "retry.backoff.max",
    ),
    (
        "topics.\"a.b\".retry.backoff.initial = \"1h\"",
        "topics.\"a.b\".retry.backoff.initial",
        "less than retry.backoff.initial",
    ),
    (
        "lanes.bulk.retry.backoff.max = \"1ms\"",
        "lanes.bulk.retry.backoff.max",
        "less than retry.backoff.initial",
    ),
    (
        "store.segment_size = \"1 KiB\"",
        "store.segment_size",
        "1 MiB to 4 GiB",
    ),
    (
        "store.linger = \"2s\"",
        "store.linger",
        "is 2s: use at most sync_interval and 1 s",
    ),
    (
        "store.linger = \"20ms\"\nstore.sync_interval = \"10ms\"",
        "store.linger",
        "here 10ms",
    ),
    ("store.quota = \"100 MiB\"", "store.quota", "three segments"),
    (
        "lanes.a.quota = \"1 MiB\"",
        "lanes.a.quota",
        "three segments",
    ),
    ("lanes.a.weight = 1001", "lanes.a.weight", "1 to 1000"),
    (
        "lanes.a.topics = [\"a b\"]",
        "lanes.a.topics",
        "no topic fits",
    ),
    (
        "[lanes.a]\ntopics = [\"x*\"]\n[lanes.b]\ntopics = [\"*y\"]",
        "lanes.b.topics",
        "longer",
    ),
    ("[lanes.\"A.b\"]\nweight = 1", "lanes.A.b", "a-z"),
    (
        "[tenants.acme]\ncluster = \"adit\"\n[clusters.audit]\nbootstrap_servers = \"a:1\"",
        "tenants.acme.cluster",
        "main, audit",
    ),
    (
        "lanes.a.cluster = \"x\"",
        "lanes.a.cluster",
        "is no cluster; allowed there: main",
    ),
    (
        "[lanes.a]\ntopics = [\"a\"]\ncluster = \"AUDIT\"",
        "lanes.a.cluster",
        "is no cluster; allowed there: main",
    ),
    (
        "tenants.acme.cluster = \"AUDIT\"",
        "tenants.acme.cluster",
        "is no cluster; allowed there: main",
    ),
    (
        "[lanes.a]\ntopics = [\"weights\"]\n[lanes.b]\ntopics = [\"weights\"]",
        "lanes.b.topics",
        "weights",
    ),
    (
        "topics.\"a.b\".cluster = \"x\"",
        "topics.\"a.b\".cluster",
        "is no cluster",
    ),
    ("[clusters.x]", "clusters.x", "needs bootstrap_servers"),
    (
        "clusters.main.bootstrap_servers = \"a:1\"",
        "clusters.main",
        "is the cluster of [kafka]",
    ),
    (
        "[clusters.x]\nbootstrap_servers = \"a:1\"\nlink.backoff.initial = \"1h\"",
        "clusters.x.link.backoff.initial",
        "longest wait of 5s",
    ),
    (
        "link.backoff.max = \"10s\"\n[clusters.x]\nbootstrap_servers = \"a:1\"\nlink.profile = \"metered\"",
        "clusters.x.link.profile",
        "longest wait of 10s",
    ),
    (
        "link.backoff.initial = \"2s\"\n[clusters.x]\nbootstrap_servers = \"a:1\"\nlink.backoff.max = \"1s\"",
        "clusters.x.link.backoff.max",
        "initial one of 2s",
    ),
    (
        "link.ping_url = \"http://a/\"\n[clusters.x]\nbootstrap_servers = \"a:1\"\nlink = { ping_url = \"\", ping_body = \"ok\" }",
        "clusters.x.link.ping_body",
        "link.ping_url",
    ),
    (
        "link.timeout = \"2m\"\n[clusters.x]\nbootstrap_servers = \"a:1\"\nlink.profile = \"metered\"",
        "link.timeout",
        "60",
    ),
    (
        "[clusters.x]\nbootstrap_servers = \"a:1\"\nlink = { enabled = false, timeout = \"1s\" }",
        "clusters.x.link.timeout",
        "link.enabled",
    ),
    (
        "clusters.x.bootstrap_servers = \"a:0\"",
        "clusters.x.bootstrap_servers",
        "host:port",
    ),
    (
        "[clusters.x]\nbootstrap_servers = \"a:1\"\nproperties.acks = 1",
        "clusters.x.properties.acks",
        "in-sync",
    ),
    ("[tenants.A]", "tenants.A", "a-z"),
    ("[topics.\"a b\"]", "topics.a b", "only a-z"),
    (
        "tenants.a.quota = \"1 MiB\"",
        "tenants.a.quota",
        "three segments",
    ),
    (
        "tenants.a.topic_prefix = \"a b\"",
        "tenants.a.topic_prefix",
        "no topic can begin",
    ),
    (
        "tenants.a.topic_prefix = \"x.\"\ntenants.b.topic_prefix = \"x.\"",
        "tenants.b.topic_prefix",
        "the same prefix",
    ),
    (
        "kafka.bootstrap_servers = \"a:0\"",
        "kafka.bootstrap_servers",
        "host:port",
    ),
    (
        "kafka.default_topic = \"a b\"",
        "kafka.default_topic",
        "a b",
    ),
    ("kafka.gateway = \"a b\"", "kafka.gateway", "a-z"),
    (
        "dead_letter.retention = \"0s\"",
        "dead_letter.retention",
        "zero",
    ),
    (
        "kafka.default_topic = \"t\"\ndead_letter.topic = \"t\"",
        "dead_letter.topic",
        "is the default topic as well",
    ),
    (
        "lanes.a = { topics = [\"a.*\"], expires_after = \"0s\" }",
        "lanes.a.expires_after",
        "zero",
    ),
    ("store.tenant_header = \"\"", "store.tenant_header", "empty"),
    (
        "[events]\nformat = \"cloudevents_binary\"\nsource = \"a b\"",
        "events.source",
        "source",
    ),
    (
        "[events]\nformat = \"cloudevents_binary\"\nversion = \"\\u0000\"",
        "events.version",
        "version",
    ),
    ("routes.default = \"a b\"", "routes.default", "a b"),
    ("routes.a = \"\"", "routes.a", "empty"),
    (
        "[routes]\n\"x*\" = \"s\"\n\"*y\" = \"t\"",
        "routes.x*",
        "leads to t",
    ),
    (
        "kafka.properties.acks = 1",
        "kafka.properties.acks",
        "in-sync",
    ),
    (
        "kafka.properties.\"no.such\" = 1",
        "kafka.properties.no.such",
        "no.such",
    ),
];

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (text, key, part) in CONTRADICTIONS {
        let told = wrong(text);
        assert_eq!(told.len(), 1, "{text}: {told:?}");
        assert!(
            told[0].contains(&format!("`{key}` ")) && told[0].contains(part),
            "{told:?}"
        );
    }
    for (key, value, part) in [
        ("shipping.park_after", "\"7s\"", ""),
        (
            "lanes.a.order",
            "\"live_first\"",
            "must arrive first needs a lane of its own",
        ),
    ] {
        let told = wrong(&format!(
            "kafka.delivery = \"exactly_once\"\n{key} = {value}"
        ));
        assert_eq!(told.len(), 1, "{told:?}");
        let start = format!("ferrylog.toml:2: `{key}` is of no use with ");
        assert!(told[0].starts_with(&start), "{told:?}");
        assert!(told[0].contains(part), "{told:?}");
        loaded(&format!("{key} = {value}"));
    }
    // What repeats the default contradicts nothing.
    loaded(
        "kafka.progress = \"topic\"\nkafka.txn = { max_records = 50_000, max_time = \"200ms\" }",
    );
    loaded("link.profile = \"metered\"\nkafka.txn.max_time = \"10s\"");
}

#[test]
fn a_complaint_about_the_syntax_has_a_line_and_not_its_text() {
    for text in [
        "[kafka.properties]\n\"sasl.password\" = \"hunter2\n",
        "[kafka.properties]\n\"sasl.password\" = hunter2",
        "[kafka.properties]\n\"sasl.password\" = \"hunter2\" hunter2",
    ] {
        let told = wrong(text);
        assert!(
            told[0].starts_with("ferrylog.toml:2: this is no TOML: "),
            "{told:?}"
        );
        assert!(!told.concat().contains("hunter2"), "{told:?}");
    }
}

#[test]
fn an_error_in_a_variable_names_it() {
    for (name, value, part) in [
        (
            "FERRYLOG__STORE__QUOTA",
            "8 GB",
            "`store.quota` cannot be \"8 GB\"",
        ),
        (
            "FERRYLOG__KAFKA__PROPERTIES__ACKS",
            "1",
            "`kafka.properties.acks`",
        ),
        ("KAFKA_BROKERS", "a:0", "`kafka.bootstrap_servers`"),
        ("KAFKA_RETRY_BACKOFF", "soon", "`retry.backoff.initial`"),
        (
            "KAFKA_FLUSH_TIMEOUT",
            "soon",
            "`kafka.properties.linger.ms`",
        ),
    ] {
        let told = with("", &[(name, value)]).unwrap_err().to_string();
        assert!(
            told.starts_with(&format!("{name}: ")) && told.contains(part),
            "{told}"
        );
    }
}
