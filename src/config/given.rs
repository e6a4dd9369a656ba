//! A key with what was written for it, before anybody looked whether that makes sense.
//!
//! Pure. Owns what is said about a name that is no key. Must not know where keys are read from.

use super::error::{Place, Problem};
use super::path::{self, Known};
use super::value::Raw;

/// What somebody wrote.
#[derive(Clone)]
pub(super) struct Given {
    /// Names with dots between.
    pub(super) key: String,
    pub(super) raw: Raw,
    pub(super) place: Place,
    /// Whether a variable is in it. Then it is not repeated: it may be a secret in the wrong place.
    pub(super) is_substituted: bool,
}

/// What is wrong with a path that leads to no key.
pub(super) fn unknown(known: Known, names_to_it: &[String], place: &Place) -> Problem {
    let key = path::join(names_to_it);
    let names = match known {
        Known::Unknown(names) => names,
        Known::Later(part) => {
            let reason = format!("belongs to {part}, which this version does not have");
            return Problem::new(place, &key, reason);
        }
        Known::Key | Known::Section => Vec::new(),
    };
    let last = names_to_it.last().map_or("", String::as_str);
    let near = nearest(last, &names).map(|near| format!(", is `{near}` meant?"));
    let near = near.unwrap_or_default();
    let allowed = match names.as_slice() {
        [] => String::new(),
        names => format!("; allowed there: {}", names.join(", ")),
    };
    Problem::new(place, &key, format!("is no key{near}{allowed}"))
}

/// The name that this one was probably meant to be.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let far = |other: &&&str| distance(name, other);
    let best = names.iter().min_by_key(far)?;
    (distance(name, best) <= 1 + best.len() / 4).then_some(*best)
}

/// How many characters must be put in, left out or changed to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // Longer names are near to nothing.
    for (i, x) in a.chars().take(100).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_if_it_is_near() {
        let names = ["durability", "quota", "on_full", "dir"];
        for (name, near) in [
            ("qouta", Some("quota")),
            ("quotas", Some("quota")),
            ("durabilty", Some("durability")),
            ("onfull", Some("on_full")),
            ("di", Some("dir")),
            ("", None),
            ("something_else", None),
        ] {
            assert_eq!(nearest(name, &names), near, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("x", &[]), None);
    }
}
