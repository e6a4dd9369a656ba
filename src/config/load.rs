//! From everything that was given to one configuration, or to all that is wrong with it.
//!
//! Owns the order: defaults, the variables of the older service, the file, `FERRYLOG__...`, the
//! command line; what comes later wins. Reads the file and the files of secrets and keys, and nothing else.
//!
//! Invariant: a configuration that is returned passed every check that needs no disk and no network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value as Json;

use super::environment::Environment;
use super::error::{Error, Place, Problem};
use super::given::Given;
use super::key_file::KeyFile;
use super::keys::{Config, KEY_FILE, ROUTES, SECTIONS};
use super::path;
use super::secret::Property;
use super::value::Raw;
use super::{check, file};
use crate::kafka;

/// A value from the command line. It is printed without the value, which may be a secret.
#[derive(Clone)]
pub struct Argument {
    /// The key that it stands for, as `kafka.delivery`.
    pub key: String,
    /// Its value, as it would stand in a variable.
    pub value: String,
    /// How the user knows it, as `--exactly-once`.
    pub option: &'static str,
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, option, .. } = self;
        write!(f, "{option} for {key}")
    }
}

/// A configuration, and where each value comes from.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// It.
    pub config: Config,
    places: BTreeMap<String, Place>,
    /// Keys whose values hold a variable.
    substituted: BTreeSet<String>,
}

/// One value, to be shown.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// Its key.
    pub key: String,
    /// Itself; `***` for a secret, null for none.
    pub value: Json,
    /// Where it was written.
    pub place: Place,
}

impl Loaded {
    /// Where a value was written.
    #[must_use]
    pub fn place(&self, key: &str) -> &Place {
        self.places.get(key).unwrap_or(&Place::Default)
    }

    /// Whether somebody wrote it.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Whether a variable is in it, which an error does not repeat.
    pub(super) fn is_substituted(&self, key: &str) -> bool {
        self.substituted.contains(key)
    }

    /// How many values were given.
    #[must_use]
    pub fn given(&self) -> usize {
        self.places.len()
    }

    /// Every value, section by section.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut push = |key: String, value: Json| {
            let place = self.place(&key).clone();
            rows.push(Row { key, value, place });
        };
        let named = self.config.named();
        let single = SECTIONS.iter().map(|(section, _)| (*section).to_owned());
        for name in single.chain(named) {
            let Some(section) = self.config.section(&name) else {
                continue;
            };
            for key in section.keys() {
                let value = section.setting(key.name).map(|setting| setting.shown());
                push(format!("{name}.{}", key.name), value.unwrap_or_default());
            }
            let cluster = name.strip_prefix("clusters.");
            let properties = match cluster {
                None => (name == "kafka").then_some(&self.config.properties),
                Some(cluster) => self.config.cluster_properties.get(cluster),
            };
            if let Some(properties) = properties {
                for (property, value) in properties {
                    let value = match value {
                        Property::Plain(text) => text.clone(),
                        Property::Secret(secret) => secret.to_string(),
                    };
                    let section = path::properties(cluster);
                    push(format!("{section}.{property}"), value.into());
                }
            }
        }
        for (pattern, topic) in &self.config.routes {
            push(format!("{ROUTES}.{pattern}"), topic.as_str().into());
        }
        rows
    }
}

/// Reads a configuration: the file, if one is named, with the environment and the command line on top.
///
/// # Errors
///
/// [`Error`] with everything that is wrong, each with its place. Nothing was changed.
pub fn load(
    file: Option<&Path>,
    environment: &Environment,
    arguments: &[Argument],
) -> Result<Loaded, Error> {
    let text = match file {
        None => None,
        Some(file) => Some(fs::read_to_string(file).map_err(|error| Problem {
            place: Place::Default,
            key: None,
            reason: format!("could not read the file {}: {error}", file.display()),
        })?),
    };
    let file = file.zip(text.as_deref());
    settle(file, environment, arguments, &|path| {
        fs::read_to_string(path)
    })
}

/// As [`load`] with the text of a file; `read_secret` reads the file that a secret is in.
///
/// # Errors
///
/// As [`load`].
pub fn settle(
    file: Option<(&Path, &str)>,
    environment: &Environment,
    arguments: &[Argument],
    read_secret: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Loaded, Error> {
    let from_file = file.map(|(name, text)| file::read(name, text, environment));
    let layers = [
        environment.read_older(),
        from_file.unwrap_or_default(),
        environment.read(),
        (arguments.iter().map(Given::from).collect(), Vec::new()),
    ];
    let mut all: BTreeMap<String, Given> = BTreeMap::new();
    let mut problems = Vec::new();
    for (given, wrong) in layers {
        problems.extend(wrong);
        let mut layer = BTreeMap::new();
        for mut given in given {
            read_file(&mut given, read_secret, &mut problems);
            let place = given.place.clone();
            if let Some(other) = layer.insert(given.key.clone(), given)
                && !matches!(place, Place::Argument { .. })
            {
                let reason = format!("is given twice, also as {}", other.place);
                problems.push(Problem::new(&place, &other.key, reason));
            }
        }
        all.append(&mut layer);
    }
    let mut loaded = Loaded::default();
    for given in all.into_values() {
        match set(&mut loaded.config, &given) {
            Ok(()) => {
                if given.is_substituted {
                    loaded.substituted.insert(given.key.clone());
                }
                loaded.places.insert(given.key, given.place);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if let Err(problem) = read_keys(&mut loaded, read_secret) {
        problems.push(problem);
    }
    // What is wrong by itself would be told twice.
    if problems.is_empty() {
        problems = check::problems(&loaded);
    }
    if problems.is_empty() {
        return Ok(loaded);
    }
    problems.sort();
    Err(Error { problems })
}

impl From<&Argument> for Given {
    fn from(argument: &Argument) -> Self {
        Self {
            key: argument.key.clone(),
            raw: Raw::Plain(argument.value.clone()),
            place: Place::Argument {
                option: argument.option,
            },
            is_substituted: false,
        }
    }
}

/// Where a file holds the value of a secret property, puts the value in its place.
fn read_file(
    given: &mut Given,
    read: &dyn Fn(&Path) -> io::Result<String>,
    problems: &mut Vec<Problem>,
) {
    let property = path::property(&given.key);
    let stem = property.and_then(|(cluster, name)| Some((cluster, name.strip_suffix("_file")?)));
    let Some((cluster, stem)) = stem.filter(|(_, stem)| kafka::is_secret(stem)) else {
        return;
    };
    let key = format!("{}.{stem}", path::properties(cluster));
    let Some(path) = given.raw.text().map(PathBuf::from) else {
        problems.push(Problem::new(&given.place, &given.key, "is no path"));
        return;
    };
    match read(&path) {
        Ok(text) => {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            given.raw = Raw::Text(text.into());
        }
        Err(error) => {
            let reason = format!(
                "names the file {}, which cannot be read: {error}",
                path.display()
            );
            problems.push(Problem::new(&given.place, &given.key, reason));
        }
    }
    given.key = key;
}

/// Takes the keys out of the file that is named for them.
fn read_keys(
    loaded: &mut Loaded,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<(), Problem> {
    let Some(file) = &loaded.config.store.encryption_key_file else {
        return Ok(());
    };
    let path = file.path();
    let wrong = |why: &dyn fmt::Display| {
        let reason = format!(
            "names the file {}, of which no key is had: {why}",
            path.display()
        );
        Problem::new(loaded.place(KEY_FILE), KEY_FILE, reason)
    };
    let text = read(path).map_err(|error| wrong(&error))?;
    let read = KeyFile::new(path, &text).map_err(|error| wrong(&error))?;
    loaded.config.store.encryption_key_file = Some(read);
    Ok(())
}

/// What stands behind the name of a section.
pub(super) fn below<'a>(section: &str, key: &'a str) -> Option<&'a str> {
    key.strip_prefix(section)?.strip_prefix('.')
}

fn set(config: &mut Config, given: &Given) -> Result<(), Problem> {
    let Given {
        key, raw, place, ..
    } = given;
    let refused = |allowed: &str, is_shown: bool| {
        let written = if is_shown && !given.is_substituted {
            raw.to_string()
        } else {
            "what is written there".to_owned()
        };
        Problem::new(place, key, format!("cannot be {written}: use {allowed}"))
    };
    if let Some((cluster, name)) = path::property(key) {
        let value = Property::read(name, raw)
            .ok_or_else(|| refused("a text, a number, true or false", false))?;
        let properties = config.properties_of(cluster);
        properties.insert(name.to_owned(), value);
        return Ok(());
    }
    if let Some(pattern) = below(ROUTES, key) {
        let topic = raw.text().ok_or_else(|| refused("a topic's name", true))?;
        config.routes.insert(pattern.into(), topic.into());
        return Ok(());
    }
    if let Raw::Section = raw {
        config.declare(key);
        return Ok(());
    }
    let Some(setting) = config.setting_mut(key) else {
        return Err(Problem::new(place, key, "is no key"));
    };
    if setting.set(raw) {
        return Ok(());
    }
    Err(refused(&setting.kind().allowed(), true))
}
