//! The program as a user meets it: what each command does, what it says when something is wrong,
//! and its exit codes. Needs no broker.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panic"
)]

#[path = "cli/config.rs"]
mod config;
#[path = "cli/dead_letters.rs"]
mod dead_letters;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ferrylog::{
    kafka::MockKafka,
    message::{Due, MessageRef},
    store::{Store, StoreOptions},
    wal::{Options, SeqNo},
};
use program::{ferrylog, run, run_on, start};
use serde_json::Value;
use tempfile::TempDir;

/// A directory for a store that is not there yet.
fn new_store() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    (dir, data)
}

/// The values of the exported records, in order.
fn exported(data: &Path) -> Vec<Vec<u8>> {
    run(data, ["export"])
        .expect_json(0)
        .iter()
        .map(|line| bytes(line, "value", "value_base64").unwrap())
        .collect()
}

fn bytes(line: &Value, text: &str, base64: &str) -> Option<Vec<u8>> {
    match (&line[text], &line[base64]) {
        (Value::String(text), Value::Null) => Some(text.clone().into_bytes()),
        (Value::Null, Value::String(base64)) => Some(BASE64.decode(base64).unwrap()),
        (Value::Null, Value::Null) => None,
        _ => panic!("not one of {text} and {base64}: {line}"),
    }
}

/// Every file below `dir`, with its content.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// Flips a bit of this text wherever it stands in the first file that holds it, a tail slot or its place;
/// returns the file and the last position.
fn rot(data: &Path, text: &[u8]) -> (PathBuf, usize) {
    let places = |bytes: &[u8]| -> Vec<usize> {
        let windows = bytes.windows(text.len()).enumerate();
        let found = windows.filter(|(_, window)| *window == text);
        found.map(|(at, _)| at).collect()
    };
    let mut files = content(data).into_iter();
    let (path, mut bytes) = files.find(|(_, bytes)| !places(bytes).is_empty()).unwrap();
    let places = places(&bytes);
    for at in &places {
        bytes[*at] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    (path, *places.last().unwrap())
}

#[test]
fn help_names_every_command_and_every_exit_code() {
    let (_dir, data) = new_store();
    let help = run(&data, ["--help"]).expect(0);
    let codes = ["Exit codes", "  0  ", "  1  ", "  2  ", "  3  "];
    for word in ["--data", "--config", "--json"].into_iter().chain(codes) {
        assert!(help.contains(word), "no {word:?} in {help}");
    }
    for command in [
        "demo",
        "send",
        "drain",
        "repair",
        "status",
        "verify",
        "export",
        "dead-letters",
        "config",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        let help = run(&data, [command, "--help"]).expect(0);
        assert!(help.contains("Usage: ferrylog"), "{help}");
    }
    assert!(run(&data, ["--version"]).expect(0).starts_with("ferrylog "));
    assert!(!data.exists(), "help made a store");
}

#[test]
fn wrong_arguments_end_with_2_and_make_nothing() {
    let (_dir, data) = new_store();
    let cases: &[&[&str]] = &[
        &[],
        &["fly"],
        &["send"],
        &["send", "--topic", "t", "--durability", "sure"],
        &["send", "--topic", "no good"],
        &["send", "--topic", "t", "--key-separator", ""],
        &["send", "--topic", "t", "--lane", "No lane"],
        &["export", "--from", "x"],
    ];
    for arguments in cases {
        let ran = run(&data, *arguments);
        assert!(!ran.err.is_empty(), "{arguments:?} says nothing");
        ran.expect(2);
        let json = run(&data, arguments.iter().chain(&["--json"]));
        assert_eq!(json.exit, Some(2), "{json:?}");
        let told: Value = serde_json::from_str(&json.err).unwrap();
        assert_eq!(told["error"]["kind"], "usage", "{told}");
    }
    assert!(!data.exists());
}

#[test]
fn what_is_sent_comes_back_bit_exact_and_in_order() {
    let (_dir, data) = new_store();
    let input = b"first\n\n21.4 \xc2\xb0C\r\n\xff\x00\xfe\na\rb\nlast, without a line end";
    let told = run_on(&data, ["send", "--topic", "temps"], input).expect(0);
    assert!(
        told.contains("6 records for temps accepted and on disk (SeqNo 0 to 5)"),
        "{told}"
    );
    let expected: [&[u8]; 6] = [
        b"first",
        b"",
        b"21.4 \xc2\xb0C",
        b"\xff\x00\xfe",
        b"a\rb",
        b"last, without a line end",
    ];
    assert_eq!(exported(&data), expected);

    let lines = run(&data, ["export"]).expect_json(0);
    for (seq, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], seq, "{line}");
        assert_eq!(line["lane"], "default", "{line}");
        assert_eq!(line["topic"], "temps", "{line}");
        assert!(line["timestamp"].as_i64().unwrap() > 0, "{line}");
        for null in ["partition", "key", "schema"] {
            assert!(
                line[null].is_null() && line.get(null).is_some(),
                "{null} of {line}"
            );
        }
        assert_eq!(line["headers"], Value::Array(vec![]), "{line}");
        assert_eq!(line["attempts"], 0, "{line}");
    }
}

#[test]
fn a_file_of_readings_comes_back_line_by_line() {
    let (_dir, data) = new_store();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/seattle-temps.csv");
    run(&data, ["send", "--topic", "temps", file]).expect(0);
    let readings = fs::read_to_string(file).unwrap();
    let expected: Vec<&[u8]> = readings.lines().map(str::as_bytes).collect();
    assert_eq!(exported(&data), expected);
}

#[test]
fn every_durability_is_on_disk_when_send_ends() {
    for level in ["disk", "os", "memory"] {
        let (_dir, data) = new_store();
        run_on(
            &data,
            ["send", "--topic", "t", "--durability", level],
            b"a\nb\n",
        )
        .expect(0);
        assert_eq!(exported(&data), [b"a", b"b"], "{level}");
    }
}

#[test]
fn keys_are_split_off_at_the_separator() {
    let (_dir, data) = new_store();
    let input = b"site-1\t21.4\nsite-2\t\n\xff\tx\ty\n";
    run_on(
        &data,
        ["send", "--topic", "t", "--key-separator", "\\t"],
        input,
    )
    .expect(0);
    let lines = run(&data, ["export"]).expect_json(0);
    let keys: Vec<_> = lines
        .iter()
        .map(|line| bytes(line, "key", "key_base64").unwrap())
        .collect();
    assert_eq!(keys, [&b"site-1"[..], b"site-2", b"\xff"]);
    assert_eq!(exported(&data), [&b"21.4"[..], b"", b"x\ty"]);
}

#[test]
fn what_is_due_later_waits_in_the_store_and_goes_when_it_is_due() {
    let (_dir, data) = new_store();
    let waiting = |data: &Path| {
        let status = run(data, ["status", "--json"]).expect_json(0).remove(0);
        status["schedule"]["waiting"].as_u64().unwrap()
    };
    let send = |due: &str| run_on(&data, ["send", "--topic", "t", "--due", due], b"1\n2\n");
    for due in ["1h", "PT1H", "2999-01-01T00:00:00Z"] {
        let told = send(due).expect(0);
        assert!(
            told.starts_with("2 records for t accepted and on disk until due"),
            "{told}"
        );
    }
    assert_eq!((waiting(&data), exported(&data).len()), (6, 0));
    // What is due at once needs no schedule.
    let told = send("0s").expect(0);
    assert!(told.contains("(SeqNo 0 to 1)"), "{told}");
    assert_eq!((waiting(&data), exported(&data).len()), (6, 2));

    let json = ["send", "--topic", "t", "--due", "1ms", "--json"];
    let told = run_on(&data, json, b"3\n").expect_json(0).remove(0);
    assert_eq!(
        (&told["scheduled"], &told["accepted"]),
        (&true.into(), &1.into())
    );
    assert!(told["first_seq"].is_null());
    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("t", 1).unwrap();
    let servers = kafka.bootstrap_servers();
    run(&data, ["drain", "--bootstrap-servers", &servers]).expect(0);
    let status = run(&data, ["status", "--json"]).expect_json(0).remove(0);
    assert_eq!(status["lanes"][0]["records"]["shipped"], 3, "{status}");
    assert_eq!(waiting(&data), 6);

    for wrong in ["soon", "10", "1969-12-31T00:00:00Z"] {
        let refused = send(wrong);
        assert_eq!(refused.exit, Some(2), "{refused:?}");
        assert!(refused.err.contains("--due"), "{refused:?}");
    }
    let both = run(&data, ["send", "--topic", "t", "--due", "1s", "--acks"]);
    assert!(
        both.exit == Some(2) && both.err.contains("--acks"),
        "{both:?}"
    );
}

#[test]
fn drain_names_what_is_due_and_has_no_lane_to_go_to() {
    let (_dir, data) = new_store();
    let mut options = StoreOptions::default();
    let clusters = &mut options.topic_clusters;
    clusters.insert("ledger".to_owned(), "audit".to_owned());
    let store = Store::open_with(&data, &options).unwrap();
    let later = MessageRef {
        due: Some(Due::After(1)),
        ..MessageRef::to("ledger")
    };
    drop(store.schedule(store.route("ledger"), &[later]).unwrap());
    store.close().unwrap();
    fs::remove_dir_all(data.join("lanes/default@audit")).unwrap();
    run_on(&data, ["send", "--topic", "t"], b"1\n").expect(0);

    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("t", 1).unwrap();
    let servers = kafka.bootstrap_servers();
    let drained = run(&data, ["drain", "--bootstrap-servers", &servers]);
    assert_eq!(drained.exit, Some(1), "{drained:?}");
    let told = "what is due does not get to its lane: the store has no lane default@audit";
    assert!(drained.err.contains(told), "{drained:?}");
    assert!(
        drained.out.contains("1 record"),
        "the rest goes: {drained:?}"
    );
}

#[test]
fn files_and_standard_input_are_read_in_the_order_given() {
    let (dir, data) = new_store();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    fs::write(&one, "1\n2").unwrap();
    fs::write(&two, "5\n").unwrap();
    let arguments = [
        "send",
        "--topic",
        "t",
        one.to_str().unwrap(),
        "-",
        two.to_str().unwrap(),
    ];
    run_on(&data, arguments, b"3\n4\n").expect(0);
    assert_eq!(exported(&data), [b"1", b"2", b"3", b"4", b"5"]);
}

#[test]
fn acks_name_each_record_once_and_in_order() {
    let (_dir, data) = new_store();
    let acks = run_on(
        &data,
        ["send", "--topic", "t", "--acks"],
        &b"x\n".repeat(10_000),
    )
    .expect(0);
    let expected: String = (0..10_000).map(|seq| format!("{seq}\n")).collect();
    assert_eq!(acks, expected);
}

/// Whoever does not hear that records were accepted would send them again.
#[test]
fn an_output_that_cannot_be_written_is_a_failure_that_says_what_was_accepted() {
    for more in [&[][..], &["--json"], &["--acks"]] {
        let (_dir, data) = new_store();
        let mut command = ferrylog(&data, [&["send", "--topic", "t"], more].concat());
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(full.unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"a\nb\n").unwrap();
        let ran: program::Ran = child.wait_with_output().unwrap().into();
        assert_eq!(ran.exit, Some(3), "{ran:?}");
        assert!(
            ran.err.contains("accepted and on disk: 2 records"),
            "{ran:?}"
        );
        assert_eq!(exported(&data), [b"a", b"b"]);
    }
}

#[test]
fn an_ack_comes_while_the_input_is_still_open() {
    let (_dir, data) = new_store();
    let mut child = start(ferrylog(&data, ["send", "--topic", "t", "--acks"]));
    let mut stdin = child.stdin.take().unwrap();
    let mut acks = BufReader::new(child.stdout.take().unwrap()).lines();
    for seq in 0..5 {
        stdin.write_all(b"reading\n").unwrap();
        assert_eq!(acks.next().unwrap().unwrap(), seq.to_string());
        // What is acknowledged can be seen from outside, while the store is open.
        assert_eq!(exported(&data).len(), seq + 1);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn sending_goes_on_where_the_last_send_ended() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"a\nb\n").expect(0);
    let told = run_on(&data, ["send", "--topic", "u", "--json"], b"c\n").expect_json(0);
    assert_eq!(told[0]["accepted"], 1);
    assert_eq!(
        (&told[0]["first_seq"], &told[0]["last_seq"]),
        (&2.into(), &2.into())
    );
    assert_eq!(exported(&data), [b"a", b"b", b"c"]);
}

#[test]
fn nothing_to_send_is_no_failure() {
    let (_dir, data) = new_store();
    let told = run_on(&data, ["send", "--topic", "t"], b"").expect(0);
    assert!(told.contains("0 records"), "{told}");
    assert!(exported(&data).is_empty());
}

#[test]
fn export_takes_a_range() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"0\n1\n2\n3\n4\n").expect(0);
    let values = |arguments: &[&str]| -> Vec<String> {
        let lines = run(&data, ["export"].iter().chain(arguments)).expect_json(0);
        lines
            .iter()
            .map(|line| line["value"].as_str().unwrap().into())
            .collect()
    };
    assert_eq!(values(&["--from", "1", "--to", "3"]), ["1", "2"]);
    assert_eq!(values(&["--from", "3"]), ["3", "4"]);
    assert_eq!(values(&["--to", "1"]), ["0"]);
    assert!(values(&["--from", "9"]).is_empty());
}

#[test]
fn export_into_a_closed_pipe_ends_quietly() {
    let (_dir, data) = new_store();
    run_on(
        &data,
        ["send", "--topic", "t"],
        &b"some reading or other\n".repeat(20_000),
    )
    .expect(0);
    let mut child = start(ferrylog(&data, ["export"]));
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    drop(out);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}

#[test]
fn status_balances_and_counts_what_waits() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"a\nb\nc\n").expect(0);
    let status = run(&data, ["status"]).expect(0);
    assert!(
        status.contains("first 0 <= acked 0 <= durable 3 <= next 3"),
        "{status}"
    );
    assert!(
        status.contains("3 accepted = 0 shipped + 3 queued: balances"),
        "{status}"
    );
    assert!(status.contains("3 records wait for Kafka"), "{status}");
    assert!(
        !status.contains('\x1b'),
        "colour without a terminal: {status:?}"
    );

    let status = run(&data, ["status", "--json"]).expect_json(0).remove(0);
    let lane = &status["lanes"][0];
    assert_eq!(lane["marks"]["durable"], 3, "{status}");
    assert_eq!(lane["records"]["queued"], 3, "{status}");
    assert_eq!(lane["records"]["balances"], true, "{status}");
    assert_eq!(lane["log_id"].as_str().unwrap().len(), 32, "{status}");
}

#[test]
fn status_and_verify_see_what_is_parked() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"a\n").expect(0);
    {
        let store = Store::open(&data, Options::default()).unwrap();
        let log = store.parking_log(store.lane(), &"t".into(), Some(3));
        let log = log.unwrap().unwrap();
        log.append(SeqNo::new(0), 0, b"a reading that is parked")
            .unwrap();
        log.sync().unwrap();
        store.close().unwrap();
    }
    let status = run(&data, ["status", "--json"]).expect_json(0).remove(0);
    let parked = &status["parked"][0];
    assert_eq!(parked["name"], "default/t/3", "{status}");
    assert_eq!(parked["records"]["queued"], 1, "{status}");
    let status = run(&data, ["status"]).expect(0);
    let line = "default/t/3: 1 accepted = 0 shipped + 1 queued: balances";
    assert!(status.contains(line), "{status}");

    let verified = run(&data, ["verify", "--json"]).expect_json(0).remove(0);
    assert_eq!(verified["parked"][0]["records"], 1, "{verified}");
    rot(&data, b"that is parked");
    let verified = run(&data, ["verify"]).expect(1);
    assert!(
        verified.contains("parked default/t/3: CORRUPT"),
        "{verified}"
    );
}

#[test]
fn status_says_whether_the_clock_can_be_believed() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"a\n").expect(0);
    let status = run(&data, ["status", "--json"]).expect_json(0).remove(0);
    let clock = &status["clock"];
    assert!(clock["trusted"].is_boolean(), "{status}");
    let verdict = clock["verdict"].as_str().unwrap();
    assert!(run(&data, ["status"]).expect(0).contains(verdict));
}

#[test]
fn each_lane_keeps_its_own_records_and_every_command_sees_all_lanes() {
    let (_dir, data) = new_store();
    let send = |lane, lines| run_on(&data, ["send", "--topic", "t", "--lane", lane], lines);
    send("high", b"a\nb\n").expect(0);
    send("low", b"c\n").expect(0);
    send("default", b"d\n").expect(0);
    send("high", b"e\n").expect(0);

    let status = run(&data, ["status", "--json"]).expect_json(0).remove(0);
    let lanes: Vec<(&str, u64)> = status["lanes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lane| {
            let queued = lane["records"]["queued"].as_u64().unwrap();
            (lane["name"].as_str().unwrap(), queued)
        })
        .collect();
    assert_eq!(lanes, [("default", 1), ("high", 3), ("low", 1)]);
    let told = run(&data, ["verify"]).expect(0);
    for (lane, _) in lanes {
        assert!(told.contains(&format!("lane {lane}: sound")), "{told}");
    }
    let lines: Vec<String> = run(&data, ["export"])
        .expect_json(0)
        .iter()
        .map(|line| format!("{} {}", line["lane"], line["value"]).replace('"', ""))
        .collect();
    assert_eq!(lines, ["default d", "high a", "high b", "high e", "low c"]);
}

#[test]
fn verify_calls_a_sound_store_sound() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], &b"reading\n".repeat(1_000)).expect(0);
    let told = run(&data, ["verify"]).expect(0);
    assert!(
        told.contains("sound") && told.contains("1,000 records"),
        "{told}"
    );
    let told = run(&data, ["verify", "--json"]).expect_json(0).remove(0);
    assert_eq!(
        (&told["sound"], &told["lanes"][0]["records"]),
        (&true.into(), &1_000.into())
    );
}

#[test]
fn verify_names_a_changed_byte_and_nothing_is_written_over_it() {
    let (_dir, data) = new_store();
    run_on(
        &data,
        ["send", "--topic", "t"],
        &b"a reading that will rot\n".repeat(100),
    )
    .expect(0);
    let (path, position) = rot(&data, b"that will");
    let before = content(&data);

    let told = run(&data, ["verify", "--json"]).expect_json(1).remove(0);
    let finding = &told["lanes"][0]["findings"][0];
    assert_eq!(finding["kind"], "corrupt", "{told}");
    assert_eq!(finding["file"], path.to_str().unwrap(), "{told}");
    let (start, length) = (
        finding["position"].as_u64().unwrap(),
        finding["length"].as_u64().unwrap(),
    );
    assert!(
        (start..start + length).contains(&(position as u64)),
        "{position} not in {told}"
    );
    assert_eq!(
        (&finding["first_seq"], &finding["end_seq"]),
        (&0.into(), &100.into()),
        "{told}"
    );
    assert!(run(&data, ["verify"]).expect(1).contains("CORRUPT"));

    assert_eq!(content(&data), before, "looking changed the store");
}

#[test]
fn export_passes_over_what_is_damaged_prints_the_rest_and_ends_with_1() {
    let (_dir, data) = new_store();
    for line in ["before\n", "this will rot\n", "behind\n"] {
        run_on(&data, ["send", "--topic", "t"], line.as_bytes()).expect(0);
    }
    rot(&data, b"will rot");
    let ran = run(&data, ["export", "--json"]);
    assert!(ran.err.contains("SeqNo 1 to 1 left out"), "{ran:?}");
    let lines = ran.expect_json(1);
    let values: Vec<&str> = lines.iter().map(|l| l["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["before", "behind"]);
}

#[test]
fn a_log_that_lost_records_says_so_and_goes_on() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"this will rot\n").expect(0);
    rot(&data, b"will rot");

    let ran = run_on(&data, ["send", "--topic", "t", "--json"], b"and on\n");
    assert!(ran.err.contains("lost for good: record 0"), "{ran:?}");
    ran.expect(0);
    let told = run(&data, ["status", "--json"]).expect_json(0).remove(0);
    let records = &told["lanes"][0]["records"];
    assert_eq!(records["lost"], 1, "{told}");
    assert_eq!(
        (&records["queued"], &records["balances"]),
        (&1.into(), &true.into())
    );
    // It was told once, and is known from now on.
    let ran = run_on(&data, ["send", "--topic", "t"], b"quietly\n");
    assert_eq!((ran.exit, ran.err.as_str()), (Some(0), ""), "{ran:?}");
}

#[test]
fn a_line_over_the_limit_is_refused_by_file_and_line_and_the_earlier_ones_stay() {
    let (dir, data) = new_store();
    let file = dir.path().join("readings");
    let mut input = b"one\ntwo\n".to_vec();
    input.resize(input.len() + (17 << 20), b'x');
    input.extend_from_slice(b"\nfour\n");
    fs::write(&file, input).unwrap();
    let file = file.to_str().unwrap();

    let message =
        run(&data, ["send", "--json", "--topic", "t", file]).expect_failure(1, "too_large");
    assert!(message.contains(&format!("{file}:3: ")), "{message}");
    assert!(
        message.contains("accepted and on disk: 2 records (SeqNo 0 to 1)"),
        "{message}"
    );
    assert_eq!(exported(&data), [b"one", b"two"]);
}

#[test]
fn a_record_just_over_the_limit_is_refused_too() {
    let (_dir, data) = new_store();
    // Whatever the limit is: between these two lengths it is met exactly.
    let mut refused = 0;
    for len in [(8 << 20) - 100_000, 16 << 20] {
        let mut line = vec![b'x'; len];
        line.push(b'\n');
        let ran = run_on(&data, ["send", "--json", "--topic", "t"], &line);
        if ran.exit != Some(0) {
            let message = ran.expect_failure(1, "too_large");
            assert!(message.contains("standard input:1: "), "{message}");
            refused += 1;
        }
    }
    assert!(refused > 0);
    run(&data, ["verify"]).expect(0);
}

#[test]
fn a_line_without_the_separator_is_refused() {
    let (_dir, data) = new_store();
    let arguments = ["send", "--json", "--topic", "t", "--key-separator", ":"];
    let message = run_on(&data, arguments, b"k:v\nkv\nk:w\n").expect_failure(1, "refused");
    assert!(message.starts_with("standard input:2: "), "{message}");
    assert!(message.contains("1 record (SeqNo 0 to 0)"), "{message}");
    assert_eq!(exported(&data), [b"v"]);
}

#[test]
fn a_file_that_is_not_there_is_told_before_anything_is_sent() {
    let (dir, data) = new_store();
    let there = dir.path().join("there");
    fs::write(&there, "1\n").unwrap();
    let arguments = [
        "send",
        "--topic",
        "t",
        there.to_str().unwrap(),
        "/no/such/file",
    ];
    let ran = run(&data, arguments);
    assert!(
        ran.err.contains("/no/such/file") && ran.err.contains("nothing was sent"),
        "{ran:?}"
    );
    ran.expect(2);
    assert!(!data.exists());
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    let before = content(dir.path());
    for arguments in [
        &["send", "--topic", "t"][..],
        &["status"],
        &["verify"],
        &["export"],
    ] {
        let message =
            run(dir.path(), arguments.iter().chain(&["--json"])).expect_failure(2, "not_a_store");
        assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
    }
    assert_eq!(content(dir.path()), before);
}

#[test]
fn looking_at_a_store_that_is_not_there_makes_none() {
    let (_dir, data) = new_store();
    for command in ["status", "verify", "export"] {
        run(&data, [command, "--json"]).expect_failure(2, "no_store");
        assert!(!data.exists(), "{command}");
    }
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let (_dir, data) = new_store();
    fs::write(&data, "no directory").unwrap();
    run(&data, ["send", "--topic", "t", "--json"]).expect_failure(2, "wrong_path");
    run(&data, ["status", "--json"]).expect_failure(2, "wrong_path");
    assert_eq!(fs::read(&data).unwrap(), b"no directory");
}

#[test]
fn a_directory_that_may_not_be_written_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = ferrylog(&dir.path().join("data"), ["send", "--topic", "t", "--json"]);
    let program = TempDir::new().unwrap();
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        // Nothing is forbidden to root: let somebody else try, with a program he may execute.
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = program.path().join("ferrylog");
        // By another process: a file that this one has open for writing could be inherited by a
        // child that another test starts right now, and would then be busy.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_ferrylog"))
            .arg(&copy)
            .status();
        assert!(copied.unwrap().success());
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new(copy);
        command
            .args(arguments)
            .uid(65534)
            .gid(65534)
            .current_dir("/");
    }
    let ran: program::Ran = command.output().unwrap().into();
    let message = ran.expect_failure(2, "permission");
    assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
}

#[test]
fn a_second_process_on_the_same_store_is_refused_and_may_still_look() {
    let (_dir, data) = new_store();
    let mut child = start(ferrylog(&data, ["send", "--topic", "t", "--acks"]));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"mine\n").unwrap();
    let mut acks = BufReader::new(child.stdout.take().unwrap());
    let mut ack = String::new();
    acks.read_line(&mut ack).unwrap();
    assert_eq!(ack, "0\n");

    let message = run_on(&data, ["send", "--topic", "t", "--json"], b"not mine\n")
        .expect_failure(3, "locked");
    assert!(message.contains("another process"), "{message}");
    assert_eq!(exported(&data), [b"mine"]);
    run(&data, ["status"]).expect(0);
    run(&data, ["verify"]).expect(0);

    stdin.write_all(b"mine again\n").unwrap();
    drop(stdin);
    let mut rest = String::new();
    acks.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "1\n");
    assert!(child.wait().unwrap().success());
    assert_eq!(exported(&data), [&b"mine"[..], b"mine again"]);
}

#[test]
fn a_signal_ends_send_cleanly_with_its_input_still_open() {
    for signal in ["-INT", "-TERM"] {
        let (_dir, data) = new_store();
        let mut child = start(ferrylog(
            &data,
            ["send", "--topic", "t", "--acks", "--json"],
        ));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"a\nb\n").unwrap();
        let mut acks = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(acks.next().unwrap().unwrap(), "0");
        assert_eq!(acks.next().unwrap().unwrap(), "1");

        let killed = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let ended: program::Ran = child.wait_with_output().unwrap().into();
        let message = ended.expect_failure(1, "stopped");
        assert!(
            message.contains("accepted and on disk: 2 records"),
            "{message}"
        );
        drop(stdin);
        assert_eq!(exported(&data), [b"a", b"b"]);
        // A clean stop leaves a clean mark: the numbers go on without a hole.
        let told = run_on(&data, ["send", "--topic", "t", "--json"], b"c\n").expect_json(0);
        assert_eq!(told[0]["first_seq"], 2, "{signal}");
    }
}

#[test]
fn the_directory_can_be_named_by_the_environment() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"a\n").expect(0);
    let ran: program::Ran = Command::new(env!("CARGO_BIN_EXE_ferrylog"))
        .arg("status")
        .env("FERRYLOG_DATA", &data)
        .output()
        .unwrap()
        .into();
    assert!(ran.expect(0).contains(data.to_str().unwrap()));
}

#[test]
fn an_unknown_broker_is_told_and_everything_is_kept() {
    let (_dir, data) = new_store();
    run_on(&data, ["send", "--topic", "t"], b"a\nb\n").expect(0);
    // A port that was free a moment ago, and on which nobody listens now.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = listener.local_addr().unwrap().to_string();
    drop(listener);
    let arguments = [
        "drain",
        "--json",
        "--timeout",
        "1",
        "--bootstrap-servers",
        &broker,
    ];
    let message = run(&data, arguments).expect_failure(3, "unreachable");
    assert!(message.contains(&broker), "{message}");
    assert!(message.contains("2 records wait"), "{message}");
    assert_eq!(exported(&data), [b"a", b"b"]);
}

#[test]
fn draining_a_store_that_is_not_there_makes_none() {
    let (_dir, data) = new_store();
    let arguments = ["drain", "--json", "--bootstrap-servers", "127.0.0.1:1"];
    run(&data, arguments).expect_failure(2, "no_store");
    assert!(!data.exists());
}

#[test]
fn a_property_that_would_break_a_promise_is_refused() {
    let (_dir, data) = new_store();
    let arguments = [
        "drain",
        "--json",
        "--bootstrap-servers",
        "127.0.0.1:1",
        "--property",
        "acks=1",
    ];
    let message = run(&data, arguments).expect_failure(2, "configuration");
    assert!(message.contains("`kafka.properties.acks`"), "{message}");
}

#[test]
fn drain_ships_everything_and_a_second_one_nothing() {
    let (_dir, data) = new_store();
    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("temps", 4).unwrap();
    run_on(
        &data,
        ["send", "--topic", "temps"],
        &b"21.4\n".repeat(5_000),
    )
    .expect(0);
    let brokers = kafka.bootstrap_servers();
    let arguments = ["drain", "--json", "--bootstrap-servers", &brokers];
    for shipped in [5_000, 0] {
        let told = run(&data, arguments).expect_json(0).remove(0);
        assert_eq!(
            (&told["shipped"], &told["empty"]),
            (&shipped.into(), &true.into()),
            "{told}"
        );
        assert_eq!(told["records"]["shipped"], 5_000, "{told}");
        assert_eq!(told["records"]["balances"], true, "{told}");
    }
    let status = run(&data, ["status"]).expect(0);
    assert!(
        status.contains("5,000 accepted = 5,000 shipped + 0 queued: balances"),
        "{status}"
    );
    assert!(status.contains("no record waits for Kafka"), "{status}");
}

#[test]
fn a_topic_that_does_not_exist_is_told_and_everything_is_kept() {
    let (_dir, data) = new_store();
    let kafka = MockKafka::start(1).unwrap();
    run_on(&data, ["send", "--topic", "misspelt"], b"a\n").expect(0);
    let brokers = kafka.bootstrap_servers();
    let arguments = ["drain", "--json", "--bootstrap-servers", &brokers];
    let message = run(&data, arguments).expect_failure(1, "unknown_topic");
    assert!(
        message.contains("misspelt") && message.contains("1 record waits"),
        "{message}"
    );
    assert_eq!(exported(&data), [b"a"]);
    // Whoever looks later is told why it is still there.
    let status = run(&data, ["status", "--json"]).expect_json(0).remove(0);
    assert_eq!(status["shipping"]["running"], false, "{status}");
    let why = status["shipping"]["why"].as_str().unwrap();
    assert!(why.contains("misspelt"), "{why}");
    assert!(run(&data, ["status"]).expect(0).contains("misspelt"));
}

#[test]
fn the_demonstration_tells_its_story_and_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("not-touched");
    let ran = |arguments: &[&str]| -> program::Ran {
        ferrylog(&data, arguments)
            .env("TMPDIR", dir.path())
            .output()
            .unwrap()
            .into()
    };
    let told = ran(&["demo", "--records", "20000"]).expect(0);
    for part in [
        "SIGKILL",
        "the broker goes away",
        "the broker is back",
        "read back and compared: 20,000 records",
        "20,000 accepted = 20,000 shipped + 0 queued: balances",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    let told = ran(&["demo", "--records", "20000", "--json"])
        .expect_json(0)
        .remove(0);
    assert_eq!(told["records"]["shipped"], 20_000, "{told}");
    assert_eq!(told["records"]["balances"], true, "{told}");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "something is left"
    );
}

#[test]
fn a_demonstration_that_is_stopped_leaves_nothing_behind_either() {
    let dir = TempDir::new().unwrap();
    let left = || fs::read_dir(dir.path()).unwrap().count();
    // While the child process appends, and behind it.
    for lines in [3, 5] {
        let mut command = ferrylog(dir.path(), ["demo"]);
        let mut child = start({
            command.env("TMPDIR", dir.path());
            command
        });
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..lines {
            out.next().unwrap().unwrap();
        }
        assert_eq!(left(), 1);
        let killed = Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        // The child process holds standard error, too: its end is waited for with it.
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130), "{ended:?}");
        assert_eq!(left(), 0, "after {lines} lines");
    }
}
