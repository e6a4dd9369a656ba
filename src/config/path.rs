//! Names in a row, and the keys they make.
//!
//! Pure. Owns how a key is written and taken apart, and what a path of names leads to. Must not know
//! values. Invariant: a key tells its parts, whatever the names in it.

use super::keys::{LATER, NAMED, OF_CLUSTER, PROPERTIES, ROUTES, SECTIONS};

/// A path as a key. The name of a topic with dots in it stands in quotes, so that a key tells its parts.
pub(super) fn join(path: &[String]) -> String {
    match path {
        [topics, name, rest @ ..] if topics == "topics" && name.contains('.') => {
            let rest = rest.iter().map(|part| format!(".{part}"));
            format!("{topics}.\"{name}\"{}", rest.collect::<String>())
        }
        _ => path.join("."),
    }
}

pub(super) fn unquoted(name: &str) -> &str {
    name.trim_matches('"')
}

/// The section of a key, and its name in there.
pub(super) fn split(key: &str) -> Option<(&str, &str)> {
    let named = NAMED.iter().any(|(kind, _)| {
        let rest = key.strip_prefix(kind);
        rest.is_some_and(|rest| rest.starts_with('.'))
    });
    let from = match key.find("\".") {
        Some(quote) if named => quote,
        _ => 0,
    };
    let dots = if named && from == 0 { 2 } else { 1 };
    let (at, _) = key[from..].match_indices('.').nth(dots - 1)?;
    Some((&key[..from + at], &key[from + at + 1..]))
}

/// The cluster and the name of a librdkafka property, if that is what a key is for.
pub(super) fn property(key: &str) -> Option<(Option<&str>, &str)> {
    let of_main = key
        .strip_prefix(PROPERTIES)
        .and_then(|rest| rest.strip_prefix('.'));
    if let Some(name) = of_main {
        return Some((None, name));
    }
    let (cluster, rest) = key.strip_prefix("clusters.")?.split_once('.')?;
    let name = rest.strip_prefix(OF_CLUSTER)?.strip_prefix('.')?;
    Some((Some(cluster), name))
}

/// The section of the properties of a cluster.
pub(super) fn properties(cluster: Option<&str>) -> String {
    match cluster {
        None => PROPERTIES.to_owned(),
        Some(name) => format!("clusters.{name}.{OF_CLUSTER}"),
    }
}

/// How many names lead to the properties that a path is in, if it is in any.
pub(super) fn properties_len(path: &[String]) -> Option<usize> {
    match path {
        [a, b, ..] if PROPERTIES.split('.').eq([a.as_str(), b]) => Some(2),
        [a, _, b, ..] if a == "clusters" && b == OF_CLUSTER => Some(3),
        _ => None,
    }
}

/// How many names lead to one that is free, which may be written in parts: a property's, or that of a type
/// of events.
fn free_len(path: &[String]) -> Option<usize> {
    let is_route = path.first().is_some_and(|name| name == ROUTES);
    properties_len(path).or(is_route.then_some(1))
}

/// Whether a path leads to a name that is free, or to a part of it.
pub(super) fn is_free(path: &[String]) -> bool {
    free_len(path).is_some_and(|len| path.len() > len)
}

/// What a path of names leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// A value.
    Key,
    /// More names.
    Section,
    /// Something of this part, which a later version will have.
    Later(&'static str),
    /// Nothing; what could stand in place of the last name, if the names before it are known.
    Unknown(Vec<&'static str>),
}

/// Looks a path up.
pub(super) fn look(path: &[String]) -> Known {
    let all = patterns();
    let begins = |pattern: &[&str], path: &[String]| {
        let mut pairs = pattern.iter().zip(path);
        pattern.len() >= path.len() && pairs.all(|(name, part)| *name == "*" || *name == part)
    };
    for (later, part) in LATER {
        let later: Vec<&str> = later.split('.').collect();
        if later.len() == path.len() && begins(&later, path) {
            return Known::Later(part);
        }
    }
    // A property's name may be written in parts.
    let path = match free_len(path) {
        Some(len) if path.len() > len => &path[..=len],
        _ => path,
    };
    let mut fitting = all
        .iter()
        .filter(|pattern| begins(pattern, path))
        .peekable();
    if fitting.peek().is_some() {
        let is_key = fitting.any(|pattern| pattern.len() == path.len());
        return if is_key { Known::Key } else { Known::Section };
    }
    let Some((_, before)) = path.split_last() else {
        return Known::Section;
    };
    let siblings = all.iter().filter(|pattern| begins(pattern, before));
    let mut names: Vec<&'static str> = siblings
        .filter_map(|p| p.get(before.len()).copied())
        .collect();
    names.dedup();
    Known::Unknown(names)
}

/// Every key, as names; `*` stands for any.
fn patterns() -> Vec<Vec<&'static str>> {
    let mut all = Vec::new();
    for (section, keys) in SECTIONS {
        for key in keys {
            let names = std::iter::once(section).chain(key.name.split('.'));
            all.push(names.collect());
        }
        if section == "kafka" {
            all.push(vec!["kafka", "properties", "*"]);
        }
    }
    for (kind, keys) in NAMED {
        for key in keys {
            let names = [kind, "*"].into_iter().chain(key.name.split('.'));
            all.push(names.collect());
        }
        if kind == "clusters" {
            all.push(vec![kind, "*", OF_CLUSTER, "*"]);
        }
    }
    all.push(vec![ROUTES, "*"]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn look_up(path: &str) -> Known {
        look(&path.split('.').map(Into::into).collect::<Vec<_>>())
    }

    #[test]
    fn a_path_is_a_key_a_section_something_of_later_or_unknown() {
        for section in [
            "store",
            "retry.backoff",
            "kafka.txn",
            "kafka.properties",
            "lanes",
            "lanes.x",
            "topics.x",
            "tenants.x.retry",
            "clusters.x.properties",
            "routes",
        ] {
            assert_eq!(look_up(section), Known::Section, "{section}");
        }
        for key in [
            "kafka.properties.a",
            "kafka.properties.security.protocol",
            "lanes.x.weight",
            "clusters.x.properties.security.protocol",
            "tenants.x.retry.backoff.max",
            "routes.default",
            "routes.user.*",
        ] {
            assert_eq!(look_up(key), Known::Key, "{key}");
        }
        for (later, part) in LATER {
            assert_eq!(look_up(later), Known::Later(part), "{later}");
        }
        let Known::Unknown(names) = look_up("retry.backoff.first") else {
            panic!()
        };
        assert_eq!(names, ["initial", "multiplier", "max", "jitter"]);
        let Known::Unknown(names) = look_up("shop") else {
            panic!()
        };
        assert_eq!(names.len(), SECTIONS.len() + NAMED.len() + 1);
        assert_eq!(look_up("store.dir.x"), Known::Unknown(vec![]));
    }

    #[test]
    fn a_key_of_a_topic_with_dots_tells_its_parts() {
        for (name, key) in [("a", "topics.a"), ("a.b.c", "topics.\"a.b.c\"")] {
            let path = |rest: &[&str]| {
                let all = ["topics", name].into_iter().chain(rest.iter().copied());
                join(&all.map(Into::into).collect::<Vec<String>>())
            };
            assert_eq!(path(&[]), key);
            let whole = path(&["retry", "max_attempts"]);
            assert_eq!(split(&whole), Some((key, "retry.max_attempts")));
            let mut config = Config::default();
            config.declare(key);
            assert!(config.topics.contains_key(name) && config.section(key).is_some());
        }
        assert_eq!(split("store.quota"), Some(("store", "quota")));
        assert_eq!(
            property("clusters.a.properties.x.y"),
            Some((Some("a"), "x.y"))
        );
        assert_eq!(property("kafka.properties.x"), Some((None, "x")));
        assert_eq!(property("clusters.a.bootstrap_servers"), None);
    }
}
