//! `ferrylog dead-letters`: what it shows, what it decides, and what it refuses.

use std::path::Path;

use ferrylog::{
    message::{Header, MessageRef},
    store::{Cause, Content, Letter, Origin, Stage, Store},
    wal::{LogId, Options, SeqNo},
};
use serde_json::{Value, json};

use crate::{
    new_store,
    program::{run, run_on},
    rot,
};

/// Noon of 2026-11-20, plus so many hours.
fn hour(n: i64) -> i64 {
    1_795_176_000_000 + n * 3_600_000
}

/// Six letters, an hour apart: 0 to 3 of topic `temps`, 4 of `doors` and another class, 5 no message.
fn six_letters(data: &Path) {
    six_letters_with(data, "");
}

/// The same with more behind each value.
fn six_letters_with(data: &Path, more: &str) {
    let store = Store::open(data, Options::default()).unwrap();
    let headers = [
        Header {
            name: "unit",
            value: Some(b"C"),
        },
        Header {
            name: "raw",
            value: Some(b"\xff"),
        },
    ];
    for n in 0..6_i64 {
        let key = format!("site-{n}");
        let value = format!("value {n}{more}");
        let message = MessageRef {
            partition: Some(2),
            key: Some(key.as_bytes()),
            headers: &headers,
            timestamp_millis: Some(77),
            value: Some(value.as_bytes()),
            ..MessageRef::to(if n == 4 { "doors" } else { "temps" })
        };
        let content = match n {
            5 => Content::Raw(b"\x02\xff"),
            _ => Content::Message(message),
        };
        let letter = Letter {
            origin: Origin {
                log_id: LogId::new([7; 16]),
                seq: SeqNo::new(100 + n.unsigned_abs()),
            },
            lane: "default",
            cause: Cause {
                class: if n == 4 { "expired" } else { "poison" },
                code: 10,
                stage: Stage::Produce,
                reason: "message too large\x1b[2J",
                attempts: 1,
                first_attempt_millis: hour(0),
                last_attempt_millis: hour(n),
            },
            content,
        };
        store.dead_letters().unwrap().add(&letter).unwrap();
    }
    store.close().unwrap();
}

fn command<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["dead-letters"], arguments].concat()
}

/// The numbers and states of a list.
fn listed(data: &Path, arguments: &[&str]) -> Vec<(u64, String)> {
    let lines = run(data, command(&[&["list", "--json"], arguments].concat())).expect_json(0);
    let state = |line: &Value| line["state"].as_str().unwrap().to_owned();
    let pair = |line: &Value| (line["seq"].as_u64().unwrap(), state(line));
    lines.iter().map(pair).collect()
}

fn numbers(data: &Path, arguments: &[&str]) -> Vec<u64> {
    let all = listed(data, arguments).into_iter();
    all.map(|(seq, _)| seq).collect()
}

#[test]
fn a_store_without_dead_letters_says_so_and_gets_none() {
    let (_dir, data) = new_store();
    let none = run(&data, command(&["list", "--json"])).expect_failure(2, "no_store");
    assert!(none.contains("no store"), "{none}");
    run(&data, command(&["replay", "--all", "--json"])).expect_failure(2, "no_store");
    assert!(!data.exists(), "looking made a store");

    run_on(&data, ["send", "--topic", "t"], b"x\n").expect(0);
    assert_eq!(run(&data, command(&["list"])).expect(0), "0 dead letters\n");
    run(&data, command(&["drop", "--all"])).expect(0);
    run(&data, command(&["show", "0", "--json"])).expect_failure(1, "no_such_letter");
    run(&data, command(&["edit", "0", "--no-key", "--json"])).expect_failure(1, "no_such_letter");
    assert_eq!(
        run(&data, ["status", "--json"]).expect_json(0)[0]["dead_letters"],
        Value::Null
    );
    assert!(!data.join("dead-letters").exists());
}

#[test]
fn a_list_shows_what_passes_every_filter() {
    let (_dir, data) = new_store();
    six_letters(&data);
    let cases: &[(&[&str], &[u64])] = &[
        (&[], &[0, 1, 2, 3, 4, 5]),
        (&["3", "1", "99"], &[1, 3]),
        (&["--topic", "temps"], &[0, 1, 2, 3]),
        (&["--class", "expired"], &[4]),
        (&["--key", "site-2"], &[2]),
        (&["--since", "2026-11-20T14:00:00Z"], &[2, 3, 4, 5]),
        (&["--until", "2026-11-20T15:00+01:00"], &[0, 1]),
        (
            &[
                "--since",
                "2026-11-20T13:00:00Z",
                "--until",
                "2026-11-20T14:00:00Z",
            ],
            &[1],
        ),
        (&["--topic", "temps", "--class", "expired"], &[]),
        (&["--since", "0s"], &[]),
    ];
    for (arguments, expected) in cases {
        assert_eq!(numbers(&data, arguments), *expected, "{arguments:?}");
    }
    let text = run(&data, command(&["list", "--topic", "doors"])).expect(0);
    assert!(text.contains("     4  kept      2026-11-20T16:00:00.000Z  doors  expired (10): "));
    assert!(
        text.ends_with("\n1 dead letter\n") && !text.contains('\x1b'),
        "{text:?}"
    );
    run(
        &data,
        command(&["list", "--json", "--since", "7d", "--until", "8d"]),
    )
    .expect_failure(2, "usage");
    run(&data, command(&["list", "--since", "yesterday"])).expect(2);
}

#[test]
fn a_line_has_every_key_of_the_contract_in_order() {
    let (_dir, data) = new_store();
    six_letters(&data);
    let line = run(&data, command(&["show", "0", "--json"])).expect(0);
    let expected = concat!(
        r#"{"seq":0,"state":"kept","copied":"no","copy_code":null,"replaces":null,"lane":"default","#,
        r#""log_id":"07070707070707070707070707070707","origin_seq":100,"class":"poison","code":10,"#,
        r#""stage":"produce","reason":"message too large\u001b[2J","attempts":1,"#,
        r#""first_attempt":"2026-11-20T12:00:00.000Z","last_attempt":"2026-11-20T12:00:00.000Z","#,
        r#""topic":"temps","partition":2,"key":"site-0","timestamp":77,"#,
        r#""headers":[{"name":"unit","value":"C"},{"name":"raw","value_base64":"/w=="}],"#,
        r#""value":"value 0"}"#,
        "\n"
    );
    assert_eq!(line, expected);
    let raw = &run(&data, command(&["show", "5", "--json"])).expect_json(0)[0];
    assert_eq!(
        (&raw["topic"], &raw["raw_base64"]),
        (&Value::Null, &json!("Av8="))
    );
    let text = run(&data, command(&["show", "0"])).expect(0);
    for part in [
        "07070707070707070707070707070707-100 of lane default",
        "value 0",
        "unit: C",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn replay_and_drop_decide_about_what_was_chosen_and_nothing_else() {
    let (_dir, data) = new_store();
    six_letters(&data);
    let nothing = run(&data, command(&["replay", "--json"])).expect_failure(2, "usage");
    assert!(nothing.contains("no letter is chosen"), "{nothing}");
    run(&data, command(&["drop", "--all", "3", "--json"])).expect_failure(2, "usage");

    let dry = run(&data, command(&["replay", "--topic", "temps", "--dry-run"])).expect(0);
    assert_eq!(dry, "4 dead letters would be sent again: 0 1 2 3\n");
    assert!(listed(&data, &[]).iter().all(|(_, state)| state == "kept"));

    let told = run(&data, command(&["replay", "0", "1", "--json"])).expect_json(0);
    let expected = json!({"decision": "replay", "dry_run": false, "seqs": [0, 1], "left_out": []});
    assert_eq!(told[0], expected);
    let told = run(&data, command(&["drop", "--class", "expired"])).expect(0);
    assert_eq!(told, "1 dead letter dropped\n");
    // One number of several that does not lie open: nothing is changed.
    let missing =
        run(&data, command(&["drop", "2", "4", "--json"])).expect_failure(1, "no_such_letter");
    assert!(missing.contains("dead letter 4"), "{missing}");
    let states = |arguments: &[&str]| {
        let all = listed(&data, arguments).into_iter();
        all.map(|(_, state)| state).collect::<Vec<_>>()
    };
    assert_eq!(states(&[]), ["pending", "pending", "kept", "kept", "kept"]);
    assert_eq!(states(&["--all"])[4], "dropped");

    // What is no message cannot be sent as it is.
    let all = run(&data, command(&["replay", "--all"]));
    assert!(all.err.contains("edit 5 --topic TOPIC"), "{all:?}");
    assert!(all.expect(1).starts_with("4 dead letters to be sent again"));

    let status = &run(&data, ["status", "--json"]).expect_json(0)[0]["dead_letters"];
    let counts = ["kept", "pending", "dropped", "replayed"].map(|name| status[name].as_u64());
    assert_eq!(counts, [Some(1), Some(4), Some(1), Some(0)]);
    assert_eq!(status["balances"], true);
    let status = run(&data, ["status"]).expect(0);
    assert!(status.contains("1 kept, 4 pending, 1 dropped"), "{status}");
}

#[test]
fn an_edited_letter_takes_the_place_of_the_old_one() {
    let (_dir, data) = new_store();
    six_letters(&data);
    run(&data, command(&["edit", "1", "--json"])).expect_failure(2, "usage");
    run(
        &data,
        command(&["edit", "1", "--value-file", "no-such", "--json"]),
    )
    .expect_failure(2, "input");
    run(&data, command(&["edit", "1", "--topic", "a b", "--json"])).expect_failure(1, "refused");
    let dry = command(&["edit", "1", "--no-key", "--dry-run"]);
    assert_eq!(
        run(&data, dry).expect(0),
        "dead letter 1 would be replaced\n"
    );
    assert_eq!(numbers(&data, &[]), [0, 1, 2, 3, 4, 5]);

    let edit = [
        "edit",
        "1",
        "--value-file",
        "-",
        "--header",
        "unit=K",
        "--remove-header",
        "raw",
    ];
    let told = run_on(&data, command(&[&edit[..], &["--json"]].concat()), b"294.5").expect_json(0);
    assert_eq!(told[0], json!({"replaces": 1, "seq": 6, "dry_run": false}));
    let new = &run(&data, command(&["show", "6", "--json"])).expect_json(0)[0];
    let expected = json!([{"name": "unit", "value": "K"}]);
    assert_eq!(
        (&new["value"], &new["headers"]),
        (&json!("294.5"), &expected)
    );
    let same = [
        "topic",
        "partition",
        "key",
        "timestamp",
        "class",
        "origin_seq",
        "lane",
    ];
    let old = &run(&data, command(&["show", "1", "--json"])).expect_json(0)[0];
    for name in same {
        assert_eq!(new[name], old[name], "{name}");
    }
    assert_eq!(
        (&old["state"], &new["replaces"]),
        (&json!("dropped"), &json!(1))
    );
    run(&data, command(&["edit", "1", "--no-key", "--json"])).expect_failure(1, "no_such_letter");

    // Another key may belong to another partition; what is no message becomes one with a topic.
    run(&data, command(&["edit", "2", "--key", "k"])).expect(0);
    run(&data, command(&["edit", "5", "--no-key", "--json"])).expect_failure(2, "usage");
    run(&data, command(&["edit", "5", "--topic", "raw"])).expect(0);
    let lines = run(&data, command(&["show", "8", "10", "--json"])).expect_json(0);
    assert_eq!(
        (&lines[0]["key"], &lines[0]["partition"]),
        (&json!("k"), &Value::Null)
    );
    assert_eq!(
        (&lines[1]["topic"], &lines[1]["value_base64"]),
        (&json!("raw"), &json!("Av8="))
    );
    assert_eq!(numbers(&data, &[]), [0, 3, 4, 6, 8, 10]);
}

#[test]
fn a_store_that_is_open_can_be_looked_at_and_nothing_else() {
    let (_dir, data) = new_store();
    six_letters(&data);
    let store = Store::open(&data, Options::default()).unwrap();
    assert_eq!(numbers(&data, &[]).len(), 6);
    run(&data, command(&["show", "3"])).expect(0);
    for arguments in [
        &["replay", "--all", "--json"][..],
        &["drop", "1", "--json"],
        &["edit", "1", "--no-key", "--json"],
    ] {
        let locked = run(&data, command(arguments)).expect_failure(3, "locked");
        assert!(!locked.is_empty());
    }
    store.close().unwrap();
    run(&data, command(&["drop", "1"])).expect(0);
}

#[test]
fn a_damaged_letter_is_told_and_the_others_are_shown() {
    let (_dir, data) = new_store();
    // Each in pages of its own: what lies in one page is damaged together.
    six_letters_with(&data, &" ".repeat(10_000));
    rot(&data.join("dead-letters"), b"value 2");
    let verified = run(&data, ["verify", "--json"]).expect_json(1);
    assert_eq!(verified[0]["dead_letters"]["sound"], false);
    assert_eq!(verified[0]["lanes"][0]["sound"], true);
    let list = run(&data, command(&["list", "--json"]));
    assert!(list.err.contains("cannot be read any more"), "{list:?}");
    let left: Vec<u64> = list
        .expect_json(1)
        .iter()
        .map(|line| line["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(left, [0, 1, 3, 4, 5]);
    // Opening gives up what cannot be read, with its count, and goes on.
    run(&data, command(&["drop", "--topic", "doors"])).expect(0);
    let status = &run(&data, ["status", "--json"]).expect_json(0)[0]["dead_letters"];
    assert_eq!(status["lost"], 1, "{status}");
    assert_eq!(status["balances"], true);
}
