//! An event as a CloudEvent 1.0 in Kafka.
//!
//! Pure. Owns the two modes of the *Kafka Protocol Binding for CloudEvents* 1.0 and the *JSON Event
//! Format for CloudEvents* 1.0, as far as data is JSON. Must not know other formats.
//!
//! An event's correlation id is the attribute `correlationid` of the extension *Correlation*; its
//! version is the attribute `version`, which is our own.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Encoded, Error, Event, ParseError, Time};
use crate::message::header::{CONTENT_TYPE, ce};

/// The version of the specification.
const SPEC_VERSION: &str = "1.0";
/// How the media type of every event format begins (binding, 3).
const CLOUDEVENTS: &str = "application/cloudevents";
/// The media type of the JSON event format, as the binding writes it (3.3.1).
const STRUCTURED: &str = "application/cloudevents+json; charset=UTF-8";
const JSON: &str = "application/json";

/// What is wrong with an attribute, if anything is.
pub(super) fn wrong(name: &str, text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("is empty")
    } else if text.chars().any(char::is_control) {
        // CloudEvents 1.0, "Type System": U+0000 to U+001F and U+007F to U+009F.
        Some("has control characters")
    } else if name == "source" && !is_uri_reference(text) {
        Some("is no URI reference, which a CloudEvent wants")
    } else {
        None
    }
}

/// Whether it has nothing but what a URI reference is made of (RFC 3986, 2). Its grammar beyond that
/// refuses little.
fn is_uri_reference(text: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    let is_escape = |behind: &str| {
        let digits = behind.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    text.bytes().all(is_allowed) && text.split('%').skip(1).all(is_escape)
}

/// Binary mode: the value is the data, the headers are the attributes (binding, 3.2).
pub(super) fn binary(event: &Event) -> Result<Encoded, Error> {
    let mut headers = vec![
        (CONTENT_TYPE, JSON.to_owned()),
        (ce::SPEC_VERSION, SPEC_VERSION.to_owned()),
        (ce::ID, event.id.clone()),
        (ce::SOURCE, event.source.clone()),
        (ce::TYPE, event.event_type.clone()),
    ];
    let time = event.time.map(|time| time.to_string());
    let optional = [
        (ce::TIME, time.as_ref()),
        (ce::CORRELATION_ID, event.correlation_id.as_ref()),
        (ce::VERSION, event.version.as_ref()),
    ];
    let given = |(name, value): (_, Option<&String>)| Some((name, value?.clone()));
    headers.extend(optional.into_iter().filter_map(given));
    Ok(Encoded {
        headers,
        value: serde_json::to_vec(&event.data).map_err(Error::Data)?,
    })
}

pub(super) fn parse_binary<'a>(
    header: impl Fn(&str) -> Option<&'a str>,
    value: Option<&[u8]>,
) -> Result<Event, ParseError> {
    check_version(header(ce::SPEC_VERSION))?;
    check_content_type(header(CONTENT_TYPE))?;
    let needed = |header: Option<&str>, name| {
        let text = header.map(str::to_owned);
        text.ok_or(ParseError::Attribute { name })
    };
    let time = header(ce::TIME).map(str::parse);
    Ok(Event {
        id: needed(header(ce::ID), "id")?,
        event_type: needed(header(ce::TYPE), "type")?,
        source: needed(header(ce::SOURCE), "source")?,
        version: header(ce::VERSION).map(Into::into),
        time: time
            .transpose()
            .map_err(|_| ParseError::Attribute { name: "time" })?,
        correlation_id: header(ce::CORRELATION_ID).map(Into::into),
        // No value is no data (binding, 3.2.2).
        data: value.map_or(Ok(Value::Null), serde_json::from_slice)?,
        topic: None,
        key: None,
    })
}

/// The JSON object of structured mode. The members are the attributes' names.
#[derive(Serialize, Deserialize)]
struct Structured<T, D> {
    specversion: T,
    id: T,
    source: T,
    #[serde(rename = "type")]
    event_type: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<T>,
    data: D,
}

/// Structured mode: the value is all of it (binding, 3.3; JSON event format, 3).
pub(super) fn structured(event: &Event) -> Result<Encoded, Error> {
    let value = Structured {
        specversion: SPEC_VERSION,
        id: &event.id,
        source: &event.source,
        event_type: &event.event_type,
        time: event.time,
        datacontenttype: Some(JSON),
        correlationid: event.correlation_id.as_deref(),
        version: event.version.as_deref(),
        data: &event.data,
    };
    Ok(Encoded {
        headers: vec![(CONTENT_TYPE, STRUCTURED.to_owned())],
        value: serde_json::to_vec(&value).map_err(Error::Data)?,
    })
}

/// Whether a content type says that the value is all of a CloudEvent (binding, 3).
pub(super) fn is_structured(content_type: &str) -> bool {
    let begin = content_type.as_bytes().get(..CLOUDEVENTS.len());
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(CLOUDEVENTS.as_bytes()))
}

pub(super) fn parse_structured(
    content_type: &str,
    value: Option<&[u8]>,
) -> Result<Event, ParseError> {
    check_content_type(Some(content_type))?;
    let value: Value = serde_json::from_slice(value.unwrap_or_default())?;
    // Before the rest, which a later version may have changed.
    check_version(value["specversion"].as_str())?;
    // Bytes, which the data of an event here is not (JSON event format, 3.1.2).
    if value.get("data_base64").is_some() {
        let found = "data_base64".to_owned();
        return Err(ParseError::ContentType { found });
    }
    let read = Structured::<String, Option<Value>>::deserialize(value)?;
    check_content_type(read.datacontenttype.as_deref())?;
    Ok(Event {
        id: read.id,
        event_type: read.event_type,
        source: read.source,
        version: read.version,
        time: read.time,
        correlation_id: read.correlationid,
        data: read.data.unwrap_or_default(),
        topic: None,
        key: None,
    })
}

fn check_version(found: Option<&str>) -> Result<(), ParseError> {
    match found {
        Some(SPEC_VERSION) => Ok(()),
        found => Err(ParseError::SpecVersion {
            found: found.unwrap_or_default().into(),
        }),
    }
}

/// Whether data of this type is JSON: its media type is `*/json` or `*/*+json`, or none is given (JSON
/// event format, 3.1).
fn check_content_type(given: Option<&str>) -> Result<(), ParseError> {
    let Some(given) = given else {
        return Ok(());
    };
    let media_type = given.split(';').next().unwrap_or_default().trim();
    let subtype = media_type.rsplit('/').next().unwrap_or_default();
    let format = subtype.rsplit('+').next().unwrap_or_default();
    if format.eq_ignore_ascii_case("json") {
        return Ok(());
    }
    Err(ParseError::ContentType {
        found: given.into(),
    })
}
