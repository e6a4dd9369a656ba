//! `ferrylog config`, and how the other commands go by a configuration.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ferrylog::{config::example, kafka::MockKafka};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    new_store,
    program::{Ran, ferrylog, run, run_on},
};

/// The program without a word about where the store is.
fn program<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrylog"));
    command
        .args(arguments)
        .env_remove("FERRYLOG_DATA")
        .env_remove("FERRYLOG_CONFIG");
    command
}

fn ran(mut command: Command) -> Ran {
    command.output().unwrap().into()
}

/// A file with this text, and a directory for a store that is not there yet.
fn written(text: &str) -> (TempDir, PathBuf, String) {
    let (dir, data) = new_store();
    let file = dir.path().join("ferrylog.toml");
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (dir, data, file)
}

fn lanes(data: &Path) -> Vec<String> {
    let status = run(data, ["status", "--json"]).expect_json(0).remove(0);
    let lanes = status["lanes"].as_array().unwrap().iter();
    lanes
        .filter(|lane| lane["records"]["accepted"] != 0)
        .map(|lane| lane["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_files_to_begin_with_are_accepted() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples");
    let files = fs::read_dir(examples)
        .unwrap()
        .map(|file| file.unwrap().path());
    let files: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|end| end == "toml"))
        .collect();
    assert!(!files.is_empty());
    for file in files {
        let mut check = program(["config", "check", "--config", file.to_str().unwrap()]);
        check.envs([("KAFKA_KEY", "key"), ("KAFKA_SECRET", "secret")]);
        ran(check).expect(0);
    }
}

#[test]
fn the_example_is_printed_and_checked() {
    let printed = ran(program(["config", "example"])).expect(0);
    assert_eq!(printed, example());
    let (_dir, _, file) = written(&printed);
    ran(program(["config", "check", "--config", &file])).expect(0);
    let told = ran(program(["config", "check", "--config", &file, "--json"])).expect_json(0);
    assert!(told[0]["given"].as_u64().unwrap() > 30);
}

#[test]
fn a_check_says_when_no_cluster_is_named_to_ship_to() {
    for (toml, has_cluster) in [
        ("", false),
        ("kafka.bootstrap_servers = \"127.0.0.1:9\"", true),
    ] {
        let (_dir, _, file) = written(toml);
        let check = ["config", "check", "--config", &file];
        let told = ran(program(check)).expect(0);
        assert_eq!(!told.contains("kafka.bootstrap_servers"), has_cluster);
        let json = ran(program(check.into_iter().chain(["--json"]))).expect_json(0);
        assert_eq!(json[0]["has_cluster"], has_cluster);
    }
}

#[test]
fn with_a_file_of_keys_nothing_can_be_read_on_disk_and_all_of_it_with_them() {
    let secret = "the valve is open";
    let (dir, data, file) = written("");
    let key = dir.path().join("key");
    fs::write(&key, format!("1 {}\n", "0f".repeat(32))).unwrap();
    let toml = format!("store.encryption_key_file = {key:?}\nstore.durability = \"os\"\n");
    fs::write(&file, toml).unwrap();
    let with_keys = |command: &str| run(&data, [command, "--config", &file]);
    let sending = ["send", "--topic", "valves", "--config", &file];
    run_on(&data, sending, secret.as_bytes()).expect(0);
    let files = crate::content(&data);
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(
        !files
            .iter()
            .any(|(_, bytes)| holds(bytes, secret) || holds(bytes, "valves"))
    );
    assert!(with_keys("export").expect(0).contains(secret));
    for command in ["status", "verify"] {
        with_keys(command).expect(0);
        // What became of records, and whether their bytes are sound, can be told without a key.
        run(&data, [command]).expect(0);
    }
    let told = run(&data, ["export"]);
    assert!(told.exit != Some(0) && told.err.contains("key"), "{told:?}");
    // Another key that opens nothing.
    fs::write(&key, format!("1 {}\n", "1e".repeat(32))).unwrap();
    let told = with_keys("export");
    assert!(told.exit != Some(0) && told.err.contains("key"), "{told:?}");
}

#[test]
fn the_schema_is_printed() {
    let printed = ran(program(["config", "schema"])).expect(0);
    assert!(printed == include_str!("../../schemas/config.json"));
}

#[test]
fn a_wrong_configuration_stops_every_command_before_it_does_anything() {
    let text = "[store]\nquota = \"8 GB\"\n\n[retry]\nmax_atempts = 3\n";
    let (_dir, data, file) = written(text);
    let commands: [&[&str]; 10] = [
        &["config", "check"],
        &["config", "show"],
        &["send", "--topic", "t"],
        &["drain", "--bootstrap-servers", "127.0.0.1:1"],
        &["status"],
        &["verify"],
        &["dead-letters", "list"],
        &["demo"],
        &["export"],
        &["repair", "--in-doubt", "sent"],
    ];
    for command in commands {
        let arguments = [command, &["--config", &file, "--json"]].concat();
        let ran = run(&data, arguments);
        let told: Value = serde_json::from_str(&ran.err).unwrap();
        let problems = &told["error"]["problems"];
        assert_eq!(problems[0]["key"], "store.quota", "{told}");
        assert_eq!(
            problems[0]["place"],
            json!({"from": "file", "file": file, "line": 2})
        );
        assert_eq!(problems[1]["key"], "retry.max_atempts", "{told}");
        let message = ran.expect_failure(2, "configuration");
        assert!(message.contains(":5: `retry.max_atempts` is no key, is `max_attempts` meant?"));
    }
    assert!(!data.exists());
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let (_dir, data) = new_store();
    let arguments = ["status", "--json", "--config", "no-such-file.toml"];
    let message = run(&data, arguments).expect_failure(2, "configuration");
    assert!(message.contains("no-such-file.toml"), "{message}");
}

#[test]
fn what_is_in_effect_is_shown_with_its_place_and_no_secret() {
    let text = "[kafka.properties]\n\"sasl.password\" = \"${FERRY_TEST_SECRET}\"\n\
                \"ssl.key.password\" = \"hunter3\"\n[lanes.a]\nweight = 8\n";
    let (_dir, _, file) = written(text);
    let show = |more: &[&str]| {
        let mut command = program(["config", "show", "--data", "elsewhere"]);
        command
            .args(more)
            .env("FERRYLOG_CONFIG", &file)
            .env("FERRY_TEST_SECRET", "hunter2")
            .env("FERRYLOG__STORE__QUOTA", "1 GiB")
            .env("KAFKA_BROKERS", "kafka.example:9092");
        let ran = ran(command);
        assert!(!ran.out.contains("hunter") && ran.err.is_empty(), "{ran:?}");
        ran
    };
    let text = show(&[]).expect(0);
    for (value, place) in [
        ("store.dir = \"elsewhere\"", "--data or FERRYLOG_DATA"),
        ("store.quota = \"1 GiB\"", "FERRYLOG__STORE__QUOTA"),
        ("store.durability = \"disk\"", "default"),
        (
            "kafka.bootstrap_servers = \"kafka.example:9092\"",
            "KAFKA_BROKERS",
        ),
        (
            "kafka.properties.\"sasl.password\" = \"***\"",
            &format!("{file}:2"),
        ),
        ("lanes.a.weight = 8", &format!("{file}:5")),
    ] {
        let line = text.lines().find(|line| line.starts_with(value));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!(" # {place}"))),
            "{value}: {text}"
        );
    }
    let rows = show(&["--json"]).expect_json(0).remove(0);
    let row = |key: &str| {
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|row| row["key"] == key).unwrap().clone()
    };
    let expected = json!({"file": file, "from": "file", "line": 3});
    let secret = row("kafka.properties.ssl.key.password");
    assert_eq!(
        (&secret["value"], &secret["place"]),
        (&"***".into(), &expected)
    );
    assert_eq!(row("dead_letter.topic")["value"], Value::Null);
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    let (_dir, data) = new_store();
    let mut command = ferrylog(&data, ["status", "--json"]);
    command.env("FERRYLOG__STORE__QOUTA", "1 GiB");
    let message = ran(command).expect_failure(2, "configuration");
    assert!(
        message.starts_with("FERRYLOG__STORE__QOUTA: `store.qouta` is no key"),
        "{message}"
    );
}

#[test]
fn sending_goes_by_the_configuration() {
    let text = "[store]\ndir = \"DATA\"\n[kafka]\ndefault_topic = \"alarms.fire\"\n\
                [lanes.alarms]\ntopics = [\"alarms.*\"]\n";
    let (_dir, data, file) = written(text);
    fs::write(&file, text.replace("DATA", data.to_str().unwrap())).unwrap();
    let send = |more: &[&str]| {
        let mut command = program(["send", "--config", &file]);
        command.args(more).arg(&file);
        ran(command)
    };
    // The store, the topic and the lane are the configuration's to say ...
    send(&[]).expect(0);
    assert_eq!(lanes(&data), ["alarms"]);
    // ... if nobody says anything else.
    send(&["--topic", "t"]).expect(0);
    send(&["--lane", "other"]).expect(0);
    assert_eq!(lanes(&data), ["alarms", "default", "other"]);
    let (_dir, elsewhere) = new_store();
    send(&["--data", elsewhere.to_str().unwrap(), "--topic", "t"]).expect(0);
    assert_eq!(lanes(&elsewhere), ["default"]);
    // Without either there is no topic.
    let message = run(&data, ["send", "--json", &file]).expect_failure(2, "usage");
    assert!(message.contains("no topic"), "{message}");
}

#[test]
fn sending_stops_at_the_quota() {
    let text = "[store]\nsegment_size = \"1 MiB\"\nquota = \"3 MiB\"\n";
    let (_dir, data, file) = written(text);
    let line = "x".repeat(100_000) + "\n";
    let arguments = ["send", "--topic", "t", "--config", &file, "--json"];
    let ran = run_on(&data, arguments, line.repeat(60).as_bytes());
    ran.expect_failure(3, "disk_full");
}

#[test]
fn draining_goes_by_the_configuration() {
    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("t", 1).unwrap();
    let servers = kafka.bootstrap_servers();
    let text =
        format!("kafka.bootstrap_servers = \"{servers}\"\nlanes.a.expires_after = \"1ms\"\n");
    let (_dir, data, file) = written(&text);
    run_on(&data, ["send", "--topic", "t"], b"a\nb\n").expect(0);
    run_on(&data, ["send", "--topic", "t", "--lane", "a"], b"c\n").expect(0);
    let drain = ["drain", "--json", "--config", &file];
    let told = run(&data, drain).expect_json(0).remove(0);
    assert_eq!(
        (&told["shipped"], &told["empty"]),
        (&2.into(), &true.into()),
        "{told}"
    );
    // By a variable of the service that this one replaces, and by our own, which wins.
    run_on(&data, ["send", "--topic", "t"], b"d\n").expect(0);
    let mut command = ferrylog(&data, ["drain", "--json"]);
    command
        .env("KAFKA_BROKERS", "127.0.0.1:1")
        .env("FERRYLOG__KAFKA__BOOTSTRAP_SERVERS", &servers);
    assert_eq!(ran(command).expect_json(0)[0]["shipped"], 1);
}

/// One of two clusters is away, then nobody says where it is, then it is there.
#[test]
fn draining_goes_to_each_cluster_by_itself_and_names_the_one_that_is_away() {
    let [main, audit] = [(); 2].map(|()| {
        let kafka = MockKafka::start(1).unwrap();
        kafka.create_topic("t", 1).unwrap();
        kafka.create_topic("ledger", 1).unwrap();
        kafka
    });
    let of_main = format!(
        "kafka.bootstrap_servers = \"{}\"\n",
        main.bootstrap_servers()
    );
    let with_audit = |servers: &str| {
        let of_audit = format!("clusters.audit.bootstrap_servers = \"{servers}\"\n");
        format!("{of_main}{of_audit}topics.ledger.cluster = \"audit\"\n")
    };
    let (_dir, data, file) = written(&with_audit("127.0.0.1:1"));
    for topic in ["t", "ledger"] {
        let send = ["send", "--topic", topic, "--config", &file];
        run_on(&data, send, b"a\nb\n").expect(0);
    }
    assert_eq!(lanes(&data), ["default", "default@audit"]);
    let drain = |timeout| {
        let command = ["drain", "--json", "--timeout", timeout, "--config", &file];
        run(&data, command)
    };
    let ran = drain("5");
    let told: Value = serde_json::from_str(ran.out.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&told["shipped"], &told["empty"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(told["clusters"][0]["name"], "main", "{told}");
    let message = ran.expect_failure(3, "unreachable");
    assert!(message.starts_with("cluster audit: "), "{message}");
    assert!(
        message.ends_with("2 records wait in the store"),
        "{message}"
    );
    let status = || {
        run(&data, ["status", "--json", "--config", &file])
            .expect_json(0)
            .remove(0)
    };
    let of_audit = |status: &Value| {
        let clusters = status["clusters"].as_array().unwrap();
        clusters
            .iter()
            .find(|of| of["name"] == "audit")
            .unwrap()
            .clone()
    };
    let told = of_audit(&status());
    assert_eq!(
        (&told["configured"], &told["queued"]),
        (&json!(true), &json!(2))
    );
    assert!(told["shipping"]["why"].is_string(), "{told}");

    fs::write(&file, &of_main).unwrap();
    let message = drain("60").expect_failure(1, "no_cluster");
    let expected =
        "lane default@audit holds 2 records for the cluster `audit`, which is not configured";
    assert_eq!(message, expected);
    assert_eq!(of_audit(&status())["configured"], false);
    let text = run(&data, ["status", "--config", &file]).expect(0);
    assert!(
        text.contains("say where it is in [clusters.audit]"),
        "{text}"
    );

    fs::write(&file, with_audit(&audit.bootstrap_servers())).unwrap();
    let told = drain("60").expect_json(0).remove(0);
    assert_eq!(
        (&told["shipped"], &told["empty"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(told["records"]["queued"], 0);
}

#[test]
fn draining_to_nowhere_is_told() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"a\n").expect(0);
    let message = run(&data, ["drain", "--json"]).expect_failure(2, "configuration");
    assert!(message.contains("no bootstrap servers"), "{message}");
}

/// Two tries at least: a log file is not to fill with them.
#[test]
fn without_a_terminal_a_link_that_is_down_is_told_once() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"a\n").expect(0);
    let drain = [
        "drain",
        "--bootstrap-servers",
        "127.0.0.1:1",
        "--timeout",
        "2",
    ];
    let ran = run(&data, drain);
    let mut lines = ran.err.lines();
    let link = lines.next().unwrap();
    assert!(link.starts_with("ferrylog: link to main: down"), "{link}");
    let end = lines.next().unwrap();
    assert!(end.contains("1 record waits in the store"), "{end}");
    assert_eq!(ran.exit, Some(3));
}

#[test]
fn an_option_that_contradicts_is_told_by_its_name() {
    let (_dir, data) = new_store();
    let drain = ["drain", "--json", "--bootstrap-servers", "127.0.0.1:1"];
    for (option, value, part) in [
        ("--transaction-records", "7", "kafka.delivery"),
        ("--progress", "offsets", "kafka.delivery"),
        ("--dead-letter-style", "connect", "dead_letter.topic"),
        ("--dead-letter-topic", "{topic}", "{topic}.dlq"),
        ("--property", "acks=1", "in-sync"),
    ] {
        let arguments = drain.iter().copied().chain([option, value]);
        let message = run(&data, arguments).expect_failure(2, "configuration");
        assert!(
            message.starts_with(option) && message.contains(part),
            "{message}"
        );
    }
}
