//! The configuration as a JSON Schema, for editors and for who writes files by program.
//!
//! Pure. Made of the table of keys; `schemas/config.json` is its copy. Invariant: what the schema
//! refuses is refused by the program.

use serde_json::{Map, Value as Json, json};

use super::keys::{Config, NAMED, SECTIONS};
use super::section::{Key, Section};
use super::value::{Kind, UNLIMITED};

/// The schema.
#[must_use]
pub fn schema() -> Json {
    let config = Config::default();
    let mut sections = Map::new();
    for (name, keys) in SECTIONS {
        if let Some(section) = config.section(name) {
            sections.insert(name.into(), of_section(keys, section));
        }
    }
    let properties = json!({
        "description": "Properties of librdkafka; NAME_file names a file that holds a secret.",
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    });
    sections["kafka"]["properties"]["properties"] = properties.clone();
    for (kind, keys) in NAMED {
        let mut config = Config::default();
        let name = format!("{kind}.x");
        config.declare(&name);
        let Some(section) = config.section(&name) else {
            continue;
        };
        let mut schema = of_section(keys, section);
        if kind == "clusters" {
            schema["properties"]["properties"] = properties.clone();
        }
        let pattern = match kind {
            "topics" => "^[a-zA-Z0-9._-]{1,249}$",
            _ => "^[a-z0-9_-]{1,64}$",
        };
        sections.insert(
            kind.into(),
            json!({
                "type": "object",
                "propertyNames": {"pattern": pattern},
                "additionalProperties": schema,
            }),
        );
    }
    let description = "Topics of events by patterns of their types; default is for the rest.";
    sections.insert(
        "routes".into(),
        json!({
            "description": description,
            "type": "object",
            "additionalProperties": {"type": "string"},
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of ferrylog",
        "type": "object",
        "properties": sections,
        "additionalProperties": false,
        "$defs": {"variable": {
            "description": "A text with an environment variable in it.",
            "type": "string",
            "pattern": "\\$\\{[A-Za-z0-9_]+\\}",
        }},
    })
}

fn of_section(keys: &[Key], section: &dyn Section) -> Json {
    let mut object = empty();
    for key in keys {
        let Some(setting) = section.setting(key.name) else {
            continue;
        };
        let mut schema = of_kind(setting.kind());
        let about: Vec<&str> = key.about.iter().map(|line| line.trim()).collect();
        schema["description"] = about.join(" ").into();
        let default = setting.shown();
        if !default.is_null() {
            schema["default"] = default;
        } else {
            // An empty text is none.
            let or_none = json!({"anyOf": [schema, {"const": ""}]});
            schema = or_none;
        }
        let mut place = &mut object;
        let mut names: Vec<&str> = key.name.split('.').collect();
        let last = names.pop().unwrap_or_default();
        for name in names {
            if place["properties"][name].is_null() {
                place["properties"][name] = empty();
            }
            place = &mut place["properties"][name];
        }
        place["properties"][last] = schema;
    }
    object
}

fn empty() -> Json {
    json!({"type": "object", "properties": {}, "additionalProperties": false})
}

fn of_kind(kind: Kind) -> Json {
    const SIZE: &str = "^ *[0-9]+ *(B|KiB|MiB|GiB|TiB) *$";
    const RATE: &str = "^ *[0-9]+ *(B|KiB|MiB|GiB|TiB) *(/s)?$";
    let variable = json!({"$ref": "#/$defs/variable"});
    let size = |pattern: &str, is_limit: bool| {
        let mut of = vec![
            json!({"type": "string", "pattern": pattern}),
            json!({"type": "integer", "minimum": 1}),
            variable.clone(),
        ];
        if is_limit {
            of.push(json!({"const": UNLIMITED}));
        }
        json!({"anyOf": of})
    };
    match kind {
        Kind::Text(_) => json!({"type": "string"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Count => json!({"type": "integer", "minimum": 1}),
        Kind::Factor => json!({"type": "number", "minimum": 1, "maximum": 100}),
        Kind::Size => size(SIZE, false),
        Kind::Limit => size(SIZE, true),
        Kind::Rate => size(RATE, true),
        Kind::Duration => json!({"anyOf": [
            {"type": "string", "pattern": "^( *[0-9]+ *(ms|s|m|h|d) *)+$"},
            variable,
        ]}),
        Kind::List => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Words(words) => json!({"anyOf": [{"enum": words}, variable]}),
    }
}
