//! What comes from files of its own, and is shown nowhere.

use std::io;
use std::path::Path;

use super::FILE;
use crate::config::{Environment, settle, toml};

#[test]
fn a_secret_comes_from_a_file_and_is_shown_nowhere() {
    let read = |path: &Path| match path.to_str() {
        Some("/run/secret") => Ok("hunter2\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let from = |text: &str, variables: &[(&str, &str)]| {
        let environment = Environment::of(variables.iter().copied());
        settle(Some((Path::new(FILE), text)), &environment, &[], &read)
    };
    let in_file = "[kafka.properties]\n\"sasl.password_file\" = \"/run/secret\"";
    let variable = (
        "FERRYLOG__KAFKA__PROPERTIES__SASL_PASSWORD_FILE",
        "/run/secret",
    );
    let in_both = "kafka.properties.\"sasl.password\" = \"other\"";
    for (text, variables) in [
        (in_file, [].as_slice()),
        ("", &[variable]),
        (in_both, &[variable]),
    ] {
        let loaded = from(text, variables).unwrap();
        assert_eq!(
            loaded.config.properties["sasl.password"].reveal(),
            "hunter2"
        );
        let shown = format!(
            "{:?}{loaded:?}{}{}",
            loaded.config.properties,
            toml(&loaded.rows()),
            serde_json::to_string(&loaded.rows()).unwrap(),
        );
        assert!(
            shown.contains("***") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
    let told = from(&in_file.replace("secret", "nothing"), &[])
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("/run/nothing") && told.starts_with("ferrylog.toml:2: "),
        "{told}"
    );
    let twice = format!("{in_file}\n\"sasl.password\" = \"hunter2\"");
    let told = from(&twice, &[]).unwrap_err().to_string();
    assert!(
        told.contains("is given twice") && !told.contains("hunter2"),
        "{told}"
    );
    // What is no secret is not read from a file.
    let told = from("kafka.properties.\"client.id_file\" = \"/run/secret\"", &[]);
    assert!(told.unwrap_err().to_string().contains("client.id_file"));
}

#[test]
fn keys_come_from_a_file_and_are_shown_nowhere() {
    let digits = "0f1e".repeat(16);
    let text = format!("2 {digits}\n1 {}", "ab".repeat(32));
    let read = |path: &Path| match path.to_str() {
        Some("/run/keys") => Ok(text.clone()),
        Some("/run/none") => Ok(digits.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let from = |path: &str| {
        let file = format!("\n[store]\nencryption_key_file = \"{path}\"");
        let file = Some((Path::new(FILE), file.as_str()));
        settle(file, &Environment::default(), &[], &read)
    };
    let loaded = from("/run/keys").unwrap();
    let wal = loaded.config.store_options().default.wal;
    assert_eq!(wal.keys.current().map(|id| id.get()), Some(2));
    let shown = format!("{loaded:?}{}{wal:?}", toml(&loaded.rows()));
    assert!(shown.contains("/run/keys") && !shown.contains("1e0f") && !shown.contains("30,"));
    for (path, part) in [
        ("/run/none", "line 1 is no key"),
        ("/run/gone", "not found"),
    ] {
        let told = from(path).unwrap_err().to_string();
        let start = format!("ferrylog.toml:3: `store.encryption_key_file` names the file {path}");
        assert!(told.starts_with(&start) && told.contains(part), "{told}");
        assert!(!told.contains("0f1e"), "{told}");
    }
}

#[test]
fn other_keys_at_the_same_path_are_told_by_their_name_and_not_shown() {
    let file = "[store]\nencryption_key_file = \"/run/keys\"";
    let with = |keys: &str| {
        let file = Some((Path::new(FILE), file));
        let read = |_: &Path| Ok(keys.to_owned());
        let loaded = settle(file, &Environment::default(), &[], &read);
        loaded.unwrap().config
    };
    let [a, b] = ["0f1e", "abcd"].map(|digits| digits.repeat(16));
    let before = with(&format!("1 {a}"));
    for other in [format!("1 {b}"), format!("2 {a}"), format!("2 {b}\n1 {a}")] {
        let keys = before.reopening(&with(&other));
        assert_eq!(keys, ["store.encryption_key_file"], "{other}");
    }
    // What is no key is no news.
    let same = with(&format!("# of the site\n1  {}\n", a.to_uppercase()));
    assert!(before.reopening(&same).is_empty());
}
