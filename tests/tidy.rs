//! The rules of the house, as far as a program can see them: layers, sizes, headings, labels, links.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "what cannot go on here panics"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder with one of these endings, as (path from the root, text).
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if endings
                .iter()
                .any(|ending| path.to_string_lossy().ends_with(ending))
            {
                let name = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no {endings:?} below {folder}");
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    files("src", &[".rs"])
}

/// The part of a source before its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\n").next().unwrap()
}

/// The code of a source: no comments.
fn code(text: &str) -> String {
    let lines = without_tests(text)
        .lines()
        .map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_arrow_only_points_down() {
    let forbidden: &[(&str, &[&str])] = &[
        (
            "src/wal/",
            &[
                "tokio",
                "rdkafka",
                "crate::message",
                "crate::store",
                "crate::kafka",
                "crate::ship",
                "crate::event",
                "crate::config",
                "crate::producer",
                "crate::cli",
            ],
        ),
        (
            "src/message/",
            &[
                "tokio",
                "rdkafka",
                "crate::wal",
                "crate::store",
                "crate::kafka",
                "crate::ship",
                "crate::event",
                "crate::config",
                "crate::producer",
                "crate::cli",
            ],
        ),
        (
            "src/event/",
            &[
                "tokio",
                "rdkafka",
                "crate::wal",
                "crate::store",
                "crate::kafka",
                "crate::ship",
                "crate::config",
                "crate::producer",
                "crate::cli",
            ],
        ),
        (
            "src/kafka/",
            &[
                "tokio",
                "crate::wal",
                "crate::message",
                "crate::store",
                "crate::ship",
                "crate::event",
                "crate::config",
                "crate::producer",
                "crate::cli",
            ],
        ),
        (
            "src/store/",
            &[
                "tokio",
                "rdkafka",
                "crate::kafka",
                "crate::ship",
                "crate::event",
                "crate::config",
                "crate::producer",
                "crate::cli",
            ],
        ),
        (
            "src/ship/",
            &[
                "tokio",
                "rdkafka",
                "crate::config",
                "crate::producer",
                "crate::cli",
            ],
        ),
        (
            "src/config/",
            &["tokio", "rdkafka::", "crate::producer", "crate::cli"],
        ),
        ("src/producer/", &["tokio", "rdkafka", "crate::cli"]),
        ("src/cli/", &["rdkafka"]),
    ];
    for (name, text) in sources() {
        for word in forbidden
            .iter()
            .filter(|(room, _)| name.starts_with(room))
            .flat_map(|(_, words)| *words)
        {
            assert!(!code(&text).contains(word), "{name} names {word}");
        }
        if name.starts_with("src/wal/") && name != "src/wal/fs.rs" {
            for word in ["std::fs", "std::net", "rustix"] {
                assert!(
                    !code(&text).contains(word),
                    "{name} names {word}: only wal/fs.rs calls the system"
                );
            }
        }
    }
}

#[test]
fn every_file_says_what_it_owns() {
    let tests = files("tests", &[".rs"]);
    for (name, text) in sources()
        .into_iter()
        .chain(tests)
        .chain(files("benches", &[".rs"]))
    {
        assert!(
            text.starts_with("//!") || text.starts_with("#![cfg_attr(feature = \"kafka\", doc"),
            "{name} does not open with //!"
        );
    }
}

#[test]
fn files_and_functions_are_short() {
    for (name, text) in sources() {
        let lines = without_tests(&text).lines().count();
        assert!(lines <= 500, "{name} has {lines} lines without its tests");
        for (first, len) in functions(without_tests(&text)) {
            assert!(len <= 70, "{name}:{first}: a function of {len} lines");
        }
    }
}

/// Functions by first line and length, told by their indentation.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        let is_function = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn "]
            .iter()
            .any(|start| bare.starts_with(start));
        let closing = format!("{}}}", " ".repeat(indent));
        // One without a body says what a trait wants.
        let is_function = is_function && !line.ends_with(';');
        if is_function && let Some(len) = lines[index..].iter().position(|line| *line == closing) {
            found.push((index + 1, len + 1));
        }
    }
    found
}

#[test]
fn nothing_is_left_unfinished() {
    for (name, text) in sources().into_iter().chain(files("tests", &[".rs"])) {
        for word in [
            concat!("FIX", "ME"),
            concat!("XX", "X"),
            concat!("TO", "DO"),
            concat!("#[ign", "ore"),
        ] {
            assert!(!text.contains(word), "{name} contains {word}");
        }
    }
}

/// The labels that a document defines: `- P1 ...` or `F1. ...` at the start of a line.
fn labels(document: &str, letter: char) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let found: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.trim_start_matches("- ").split([' ', '.']).next())
        .filter(|word| {
            word.starts_with(letter)
                && word.len() > 1
                && word[1..].starts_with(|c: char| c.is_ascii_digit())
        })
        .map(str::to_owned)
        .collect();
    assert!(!found.is_empty(), "no labels {letter} in {document}");
    found
}

/// Whether a text cites a label: as a word, in any case, also as part of a test's name.
fn cites(text: &str, label: &str) -> bool {
    let text = text.to_lowercase();
    let label = label.to_lowercase();
    text.match_indices(&label).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + label.len()..].chars().next();
        !before.is_some_and(|c| c.is_ascii_alphanumeric())
            && !after.is_some_and(|c| c.is_ascii_alphanumeric())
    })
}

#[test]
fn every_label_is_cited_by_the_code_and_by_a_test() {
    let sources = sources();
    let tests: Vec<String> = files("tests", &[".rs"])
        .into_iter()
        .filter(|(name, _)| name != "tests/tidy.rs")
        .map(|(_, text)| text)
        .chain(
            sources
                .iter()
                .filter_map(|(_, text)| Some(text.split_once("\n#[cfg(test)]\n")?.1.to_owned())),
        )
        .collect();
    let mut missing = Vec::new();
    for (document, letter) in [
        ("docs/format.md", 'F'),
        ("docs/durability.md", 'R'),
        ("docs/durability.md", 'P'),
    ] {
        for label in labels(document, letter) {
            if !sources
                .iter()
                .any(|(_, text)| cites(without_tests(text), &label))
            {
                missing.push(format!("{label}: no source"));
            }
            if !tests.iter().any(|text| cites(text, &label)) {
                missing.push(format!("{label}: no test"));
            }
        }
    }
    assert!(missing.is_empty(), "labels that nothing cites: {missing:?}");
}

/// A word in backticks with three underscores or more is the name of a test.
#[test]
fn every_test_that_a_document_names_is_there() {
    let tests = files("tests", &[".rs"]);
    let mut named = 0;
    for (name, text) in files("docs", &[".md"]) {
        for word in text.split('`').skip(1).step_by(2) {
            // So were metrics called that somebody looks for.
            let is_test = word.matches('_').count() >= 3
                && !word.starts_with("kafka_")
                && word
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
            if is_test {
                let function = format!("fn {word}(");
                let is_there = tests.iter().any(|(_, text)| text.contains(&function));
                assert!(is_there, "{name} names the test {word}");
                named += 1;
            }
        }
    }
    assert!(named >= 10, "{named} tests are named");
}

/// The rows of a document's tables: section and first cell, and the second cell.
fn rows(document: &str) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let mut section = "";
    let mut rows = Vec::new();
    for line in text.lines() {
        section = line.strip_prefix("## ").unwrap_or(section);
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", first, second, ""] = cells[..]
            && !first.starts_with("---")
            && !["there", "row"].contains(&first)
        {
            rows.push((section.to_owned(), first.to_owned(), second.to_owned()));
        }
    }
    rows
}

/// Who moves here from another system was promised each row of these tables by a test.
#[test]
fn every_row_of_migrating_has_its_tests() {
    let named = |document| -> Vec<(String, String)> {
        let rows = rows(document).into_iter();
        rows.map(|(section, row, _)| (section, row)).collect()
    };
    let (promised, shown) = (named("docs/migrating.md"), named("docs/parity.md"));
    assert!(promised.len() > 50, "{} rows", promised.len());
    for (place, row) in promised.iter().enumerate() {
        let is_shown = shown.get(place) == Some(row);
        assert!(is_shown, "docs/parity.md has not, at its place, {row:?}");
    }
    assert_eq!(shown.len(), promised.len(), "rows that nobody promised");

    let tests = ["tests/ship", "tests/kafka", "tests/cli"].map(|folder| files(folder, &[".rs"]));
    let is_test = |name: &str| {
        let function = format!("#[test]\nfn {name}(");
        let mut texts = tests.iter().flatten().map(|(_, text)| text);
        texts.any(|text| text.contains(&function))
    };
    for (section, row, named) in rows("docs/parity.md") {
        let words: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!words.is_empty(), "{section}: no test shows {row}");
        for word in words {
            assert!(is_test(word), "{section}: {row}: there is no test {word}");
        }
    }
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut documents = files("docs", &[".md"]);
    for name in ["README.md", "CHANGELOG.md"] {
        documents.push((name.into(), fs::read_to_string(root().join(name)).unwrap()));
    }
    for (name, text) in documents {
        let folder: PathBuf = root().join(Path::new(&name).parent().unwrap());
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") {
                continue;
            }
            let target = if path.is_empty() {
                root().join(&name)
            } else {
                folder.join(path)
            };
            assert!(target.exists(), "{name} links to {link}");
            if !anchor.is_empty() {
                let headings = fs::read_to_string(&target).unwrap();
                let is_there = headings
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| {
                        let is_kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
                        let heading = line.trim_start_matches(['#', ' ']).to_lowercase();
                        let kept: String = heading.chars().filter(is_kept).collect();
                        kept.replace(' ', "-") == anchor
                    });
                assert!(is_there, "{name} links to {link}: no such heading");
            }
        }
    }
}

#[test]
fn the_repository_speaks_of_the_product_alone() {
    let everything = sources()
        .into_iter()
        .chain(files("tests", &[".rs", ".xml"]))
        .chain(files("docs", &[".md"]));
    for (name, text) in everything.filter(|(name, _)| name != "tests/tidy.rs") {
        for word in ["/work/", "/root/", "/tmp/", "/home/"] {
            assert!(
                !text.contains(word),
                "{name} contains a path of one machine: {word}"
            );
        }
    }
}

/// Public types that may not get another value or field without a break, and why that is right.
const CLOSED: [(&str, &str); 24] = [
    ("MessageRef", SENDS),
    ("Header", SENDS),
    ("Replacement", SENDS),
    ("Uptime", "two numbers of a machine"),
    ("Settings", "what else there is to set is a property"),
    ("Argument", "a key, its value, and how the user knows it"),
    ("Size", NUMBER),
    ("Limit", NUMBER),
    ("Rate", NUMBER),
    ("Breaks", SINK),
    ("Probed", SINK),
    ("Outgoing", SINK),
    ("Report", SINK),
    ("Failure", SINK),
    ("Trouble", SINK),
    ("Reading", "a source of time makes it"),
    ("Topic", "the format of a record has no third way"),
    ("Letter", LETTER),
    ("Origin", LETTER),
    ("Cause", LETTER),
    ("Access", HIDDEN),
    ("Entry", HIDDEN),
    ("Worker", HIDDEN),
    ("Durability", "the three levels are the promise"),
];
const SENDS: &str = "a program writes it, with what it leaves open behind `..`";
const NUMBER: &str = "a number with a unit";
const SINK: &str = "a sink of a test makes it, or takes it apart";
const LETTER: &str = "who adds a letter says all of it";
const HIDDEN: &str = "for tests";

/// Whether a type outside of this crate may be made, or taken apart, by all its parts.
fn is_open(lines: &[&str], at: usize) -> bool {
    let above = lines[..at].iter().rev();
    let mut above = above.take_while(|line| !line.is_empty() && **line != "}");
    if above.any(|line| *line == "#[non_exhaustive]") {
        return false;
    }
    if lines[at].starts_with("pub enum ") {
        return true;
    }
    let Some((_, tuple)) = lines[at].split_once('(') else {
        let body = lines[at + 1..].iter().take_while(|line| **line != "}");
        let mut fields =
            body.filter(|line| line.starts_with("    ") && !line.trim().starts_with(['/', '#']));
        return fields.all(|line| line.starts_with("    pub ")) && !lines[at].ends_with(';');
    };
    tuple.starts_with("pub ")
}

#[test]
fn what_will_grow_may_grow() {
    let mut closed: BTreeSet<&str> = CLOSED.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines: Vec<&str> = without_tests(&text).lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let named = line
                .strip_prefix("pub enum ")
                .or(line.strip_prefix("pub struct "));
            let Some(named) = named.filter(|_| is_open(&lines, at)) else {
                continue;
            };
            let end = named.find(|c: char| !c.is_alphanumeric()).unwrap();
            if !closed.remove(&named[..end]) {
                wrong.push(format!("{name}: {line}"));
            }
        }
    }
    let wrong = wrong.join("\n");
    assert!(
        wrong.is_empty(),
        "#[non_exhaustive], or a reason in CLOSED:\n{wrong}"
    );
    assert!(closed.is_empty(), "no such types: {closed:?}");
}
