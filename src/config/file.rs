//! The file: from TOML to what was given, each with its line.
//!
//! Pure. Owns the walk over the tables and `${VARIABLE}`. Must not know what a value means.
//!
//! Invariants: what is no key is told with the allowed names, and nothing below it is looked at; a
//! complaint about the syntax never repeats the line, which may hold a secret.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::error::{Place, Problem};
use super::given::{Given, unknown};
use super::keys;
use super::path::{self, Known};
use super::value::Raw;
use crate::message::check_topic;
use crate::store::is_lane_name;

const NAME: &str = "cannot be its name: use 1 to 64 of a-z, 0-9, '-' and '_'";

/// A walk over the tables of a file.
pub(super) struct Walk<'a> {
    file: &'a Path,
    text: &'a str,
    environment: &'a Environment,
    given: Vec<Given>,
    problems: Vec<Problem>,
}

/// What a file gives, and what is wrong with it.
pub(super) fn read(
    file: &Path,
    text: &str,
    environment: &Environment,
) -> (Vec<Given>, Vec<Problem>) {
    let mut walk = Walk {
        file,
        text,
        environment,
        given: Vec::new(),
        problems: Vec::new(),
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        walk.problems.push(Problem {
            place: walk.place(at),
            key: None,
            reason: format!("this is no TOML: {}", error.message()),
        });
    }
    // What a broken file says is a guess.
    if errors.is_empty() {
        walk.table(table.get_ref(), &mut Vec::new());
    }
    (walk.given, walk.problems)
}

impl Walk<'_> {
    fn place(&self, at: usize) -> Place {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        Place::File {
            file: self.file.into(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        }
    }

    fn table(&mut self, table: &DeTable<'_>, path: &mut Vec<String>) {
        for (key, value) in table {
            path.push(key.get_ref().as_ref().to_owned());
            let place = self.place(key.span().start);
            match path::look(path) {
                known @ (Known::Later(_) | Known::Unknown(_)) => {
                    self.problems.push(unknown(known, path, &place));
                }
                Known::Section => self.section(value, path, &place),
                // A property's or an event type's name in parts: `security.protocol` without quotes.
                Known::Key if path::is_free(path) && value.get_ref().is_table() => {
                    self.section(value, path, &place);
                }
                Known::Key => self.value(value, path, &place),
            }
            path.pop();
        }
    }

    fn section(&mut self, value: &Spanned<DeValue<'_>>, path: &mut Vec<String>, place: &Place) {
        let key = path::join(path);
        let Some(table) = value.get_ref().as_table() else {
            let reason = format!("is a section: write it as [{key}], once");
            self.problems.push(Problem::new(place, &key, reason));
            return;
        };
        if let [kind, name] = path.as_slice()
            && keys::NAMED.iter().any(|(named, _)| named == kind)
        {
            let wrong = match kind.as_str() {
                "topics" => check_topic(name).err().map(|error| error.to_string()),
                _ if is_lane_name(name) => None,
                _ => Some(NAME.to_owned()),
            };
            if let Some(wrong) = wrong {
                self.problems.push(Problem::new(place, &key, wrong));
                return;
            }
            // It is one also if nothing is said about it.
            self.given.push(Given {
                key,
                raw: Raw::Section,
                place: place.clone(),
                is_substituted: false,
            });
        }
        self.table(table, path);
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, path: &[String], place: &Place) {
        let key = path::join(path);
        let mut missing = Vec::new();
        let mut is_substituted = false;
        let raw = raw(value.get_ref(), &mut |text| {
            let substituted = substitute(text, self.environment, &mut missing);
            is_substituted |= substituted != text;
            substituted
        });
        for variable in &missing {
            let why = self.environment.why_not(variable);
            let reason = format!("names the variable {variable}, which {why}");
            self.problems.push(Problem::new(place, &key, reason));
        }
        if missing.is_empty() {
            self.given.push(Given {
                key,
                raw,
                place: place.clone(),
                is_substituted,
            });
        }
    }
}

fn raw(value: &DeValue<'_>, substitute: &mut dyn FnMut(&str) -> String) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(substitute(text)),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            match i64::from_str_radix(&digits, number.radix()) {
                Ok(number) => Raw::Integer(number),
                Err(_) => Raw::Other("a number that is too large"),
            }
        }
        DeValue::Float(number) => match number.as_str().replace('_', "").parse() {
            Ok(number) => Raw::Float(number),
            Err(_) => Raw::Other("a number that is too large"),
        },
        DeValue::Boolean(is) => Raw::Bool(*is),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(parts) => {
            let parts = parts.iter();
            Raw::List(parts.map(|part| raw(part.get_ref(), substitute)).collect())
        }
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// Puts variables in the place of their names; `$${` is `${`. What is not there is named in `missing`.
/// What is not closed, or can be no variable's name, is an ordinary text: it may be a password.
fn substitute(text: &str, environment: &Environment, missing: &mut Vec<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("${") {
        rest = from;
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            continue;
        }
        out.push_str(before);
        match from.split_once('}').filter(|(name, _)| is_name(name)) {
            None => out.push_str("${"),
            Some((name, behind)) => {
                rest = behind;
                match environment.get(name) {
                    Some(value) => out.push_str(value),
                    None => missing.push(name.to_owned()),
                }
            }
        }
    }
    out.push_str(rest);
    out
}

fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, Vec<String>> {
        let environment = Environment::of([("A", "x"), ("B", "${A}")]);
        let mut missing = Vec::new();
        let out = substitute(text, &environment, &mut missing);
        if missing.is_empty() {
            Ok(out)
        } else {
            Err(missing)
        }
    }

    #[test]
    fn a_variable_takes_the_place_of_its_name_once() {
        for (text, expected) in [
            ("", ""),
            ("${A}", "x"),
            ("a${A}b${A}", "axbx"),
            ("$A $", "$A $"),
            ("$${A}", "${A}"),
            // What a variable holds is taken as it is.
            ("${B}", "${A}"),
        ] {
            assert_eq!(with(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_not_there_is_named() {
        assert_eq!(with("${C}"), Err(vec!["C".into()]));
        assert_eq!(with("${A}${C}${D}"), Err(vec!["C".into(), "D".into()]));
    }

    #[test]
    fn what_can_be_no_variable_is_an_ordinary_text() {
        for text in ["${", "${A", "${}", "${a b}", "x${!y", "$"] {
            assert_eq!(with(text).as_deref(), Ok(text));
        }
    }
}
