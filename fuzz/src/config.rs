//! A text as a configuration: what must hold whatever it is.
//!
//! No panic; what is refused is refused with a place or a key, and without the secret of a variable;
//! what is accepted, is accepted again as it is shown, and is the same.

#![allow(unreachable_pub, reason = "a target calls it")]

use std::io;
use std::path::Path;

use ferrylog::config::{Environment, Error, Loaded, settle, toml};
use serde_json::Value;

const SECRET: &str = "hunter2";

fn read(text: &str) -> Result<Loaded, Error> {
    let environment = Environment::of([("SECRET", SECRET), ("SERVERS", "a:1,b:2")]);
    let no_file = |_: &Path| Err(io::ErrorKind::NotFound.into());
    settle(Some((Path::new("f"), text)), &environment, &[], &no_file)
}

fn values(loaded: &Loaded) -> Vec<(String, Value)> {
    let rows = loaded.rows().into_iter();
    rows.map(|row| (row.key, row.value)).collect()
}

/// A configuration from these bytes.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // librdkafka loads what this names.
    if text.contains("plugin") || text.contains(SECRET) {
        return;
    }
    match read(text) {
        Ok(loaded) => {
            let shown = toml(&loaded.rows());
            // What a variable held may look like one.
            if shown.contains("${") {
                return;
            }
            let again = read(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
            assert_eq!(values(&again), values(&loaded), "{shown}");
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            let told = error.to_string();
            assert!(!told.contains(SECRET), "{told}");
        }
    }
}
