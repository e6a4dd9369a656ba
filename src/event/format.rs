//! What an event looks like as a message: the formats, and how one is told from another.
//!
//! Pure. Owns the JSON of our own and the wrapper `{event_type, payload, producer}`; CloudEvents are
//! [`cloud`](super::cloud)'s. Must not know where a message goes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, Event, ParseError, cloud};
use crate::message::{Header, header};

/// What an event looks like in Kafka.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum EventFormat {
    /// One JSON object with all of it: `id, type, source, version, time, correlation_id, data`.
    #[default]
    Json,
    /// `{"event_type": ..., "payload": ..., "producer": ...}`: type, data and source. The correlation id
    /// is a header; id, version and time are left out.
    Wrapped,
    /// A CloudEvent in binary mode: the value is the data, headers `ce_*` have the rest.
    CloudEventsBinary,
    /// A CloudEvent in structured mode: one JSON object, and a content type that says so.
    CloudEventsStructured,
}

/// An event as a message has it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Encoded {
    pub(super) headers: Vec<(&'static str, String)>,
    /// The value: JSON.
    pub value: Vec<u8>,
}

impl Encoded {
    /// The headers, in order.
    #[must_use]
    pub fn headers(&self) -> Vec<Header<'_>> {
        let headers = self.headers.iter();
        headers
            .map(|(name, value)| Header {
                name,
                value: Some(value.as_bytes()),
            })
            .collect()
    }
}

/// The names are those of the Python producer that this format is for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped<E, P> {
    event_type: E,
    payload: P,
    producer: E,
}

impl Event {
    /// Writes it.
    ///
    /// # Errors
    ///
    /// [`Error::Attribute`]: a part of it cannot stand in this format.
    pub fn encode(&self, format: EventFormat) -> Result<Encoded, Error> {
        let attributes = [
            ("id", Some(&self.id)),
            ("type", Some(&self.event_type)),
            ("source", Some(&self.source)),
            ("version", self.version.as_ref()),
            ("correlation id", self.correlation_id.as_ref()),
        ];
        for (name, text) in attributes {
            text.map_or(Ok(()), |text| check(format, name, text))?;
        }
        Ok(match format {
            EventFormat::Json => Encoded {
                headers: Vec::new(),
                value: serde_json::to_vec(self).map_err(Error::Data)?,
            },
            EventFormat::Wrapped => Encoded {
                headers: match &self.correlation_id {
                    Some(id) => vec![(header::CORRELATION_ID, id.clone())],
                    None => Vec::new(),
                },
                value: serde_json::to_vec(&Wrapped {
                    event_type: &self.event_type,
                    payload: &self.data,
                    producer: &self.source,
                })
                .map_err(Error::Data)?,
            },
            EventFormat::CloudEventsBinary => cloud::binary(self)?,
            EventFormat::CloudEventsStructured => cloud::structured(self)?,
        })
    }

    /// Reads an event back, whichever format it is in. What it says beyond the fields of [`Event`] is
    /// passed over; what its format leaves out is empty.
    ///
    /// # Errors
    ///
    /// [`ParseError`]: it is none, or its data is no JSON.
    pub fn parse<'a>(
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
        value: Option<&[u8]>,
    ) -> Result<Self, ParseError> {
        let headers: Vec<_> = headers.into_iter().collect();
        let header = |name: &str| {
            let (_, value) = headers.iter().find(|(given, _)| *given == name)?;
            str::from_utf8((*value)?).ok()
        };
        // Kafka protocol binding for CloudEvents 1.0, 3: the content type tells the mode.
        let content_type = header(header::CONTENT_TYPE);
        if let Some(content_type) = content_type.filter(|found| cloud::is_structured(found)) {
            return cloud::parse_structured(content_type, value);
        }
        if header(header::ce::SPEC_VERSION).is_some() {
            return cloud::parse_binary(header, value);
        }
        let value: Value = serde_json::from_slice(value.unwrap_or_default())?;
        if let Ok(wrapped) = Wrapped::<String, Value>::deserialize(&value) {
            return Ok(Self {
                id: String::new(),
                event_type: wrapped.event_type,
                source: wrapped.producer,
                version: None,
                time: None,
                correlation_id: header(header::CORRELATION_ID).map(Into::into),
                data: wrapped.payload,
                topic: None,
                key: None,
            });
        }
        Ok(serde_json::from_value(value)?)
    }
}

/// Whether an attribute can stand in this format.
pub(super) fn check(format: EventFormat, name: &'static str, text: &str) -> Result<(), Error> {
    let reason = match format {
        EventFormat::Json | EventFormat::Wrapped if name != "type" => None,
        EventFormat::Json | EventFormat::Wrapped => text.is_empty().then_some("is empty"),
        EventFormat::CloudEventsBinary | EventFormat::CloudEventsStructured => {
            cloud::wrong(name, text)
        }
    };
    reason.map_or(Ok(()), |reason| Err(Error::Attribute { name, reason }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventBuilder, EventOptions, Time};
    use serde_json::json;

    pub(crate) const FORMATS: [EventFormat; 4] = [
        EventFormat::Json,
        EventFormat::Wrapped,
        EventFormat::CloudEventsBinary,
        EventFormat::CloudEventsStructured,
    ];

    /// The event of the examples in the specification, as far as it has these parts.
    fn event() -> Event {
        Event {
            id: "1234-1234-1234".into(),
            event_type: "com.example.someevent".into(),
            source: "/mycontext/subcontext".into(),
            version: Some("1.1".into()),
            time: Some(Time::from_millis(1_522_900_584_000)),
            correlation_id: Some("txn-abc-123".into()),
            data: json!({"appinfoA": "abc", "appinfoB": 123, "appinfoC": true}),
            topic: None,
            key: None,
        }
    }

    fn bare() -> Event {
        Event {
            version: None,
            time: None,
            correlation_id: None,
            data: json!("I'm just a string"),
            ..event()
        }
    }

    fn parse(encoded: &Encoded) -> Result<Event, ParseError> {
        let headers = encoded.headers();
        let headers = headers.iter().map(|h| (h.name, h.value));
        Event::parse(headers, Some(&encoded.value))
    }

    fn check_encoded(event: &Event, format: EventFormat, headers: &[(&str, &str)], value: &str) {
        let encoded = event.encode(format).unwrap();
        let found = encoded.headers();
        let found: Vec<_> = found
            .iter()
            .map(|h| (h.name, str::from_utf8(h.value.unwrap()).unwrap()))
            .collect();
        assert_eq!(found, headers, "{format:?}");
        assert_eq!(str::from_utf8(&encoded.value).unwrap(), value, "{format:?}");
    }

    #[test]
    fn json_has_the_members_of_an_event_and_no_others() {
        let value = r#"{"id":"1234-1234-1234","type":"com.example.someevent","source":"/mycontext/subcontext","version":"1.1","time":"2018-04-05T03:56:24.000Z","correlation_id":"txn-abc-123","data":{"appinfoA":"abc","appinfoB":123,"appinfoC":true}}"#;
        check_encoded(&event(), EventFormat::Json, &[], value);
        let value = r#"{"id":"1234-1234-1234","type":"com.example.someevent","source":"/mycontext/subcontext","data":"I'm just a string"}"#;
        check_encoded(&bare(), EventFormat::Json, &[], value);
    }

    #[test]
    fn wrapped_has_event_type_payload_and_producer_and_nothing_else() {
        let value = r#"{"event_type":"com.example.someevent","payload":{"appinfoA":"abc","appinfoB":123,"appinfoC":true},"producer":"/mycontext/subcontext"}"#;
        let headers = [("correlation-id", "txn-abc-123")];
        check_encoded(&event(), EventFormat::Wrapped, &headers, value);
        let value = r#"{"event_type":"com.example.someevent","payload":"I'm just a string","producer":"/mycontext/subcontext"}"#;
        check_encoded(&bare(), EventFormat::Wrapped, &[], value);
    }

    /// Kafka protocol binding for CloudEvents 1.0, 3.2: names and values of the headers, and the data
    /// as it is.
    #[test]
    fn a_binary_cloudevent_is_as_the_specification_writes_it() {
        let headers = [
            ("content-type", "application/json"),
            ("ce_specversion", "1.0"),
            ("ce_id", "1234-1234-1234"),
            ("ce_source", "/mycontext/subcontext"),
            ("ce_type", "com.example.someevent"),
            ("ce_time", "2018-04-05T03:56:24.000Z"),
            ("ce_correlationid", "txn-abc-123"),
            ("ce_version", "1.1"),
        ];
        let value = r#"{"appinfoA":"abc","appinfoB":123,"appinfoC":true}"#;
        check_encoded(&event(), EventFormat::CloudEventsBinary, &headers, value);
        // JSON event format, 3.2, the last example: a text is a JSON text.
        let value = "\"I'm just a string\"";
        check_encoded(
            &bare(),
            EventFormat::CloudEventsBinary,
            &headers[..5],
            value,
        );
    }

    /// Kafka protocol binding for CloudEvents 1.0, 3.3; JSON event format 1.0, 3.
    #[test]
    fn a_structured_cloudevent_is_as_the_specification_writes_it() {
        let headers = [(
            "content-type",
            "application/cloudevents+json; charset=UTF-8",
        )];
        let value = r#"{"specversion":"1.0","id":"1234-1234-1234","source":"/mycontext/subcontext","type":"com.example.someevent","time":"2018-04-05T03:56:24.000Z","datacontenttype":"application/json","correlationid":"txn-abc-123","version":"1.1","data":{"appinfoA":"abc","appinfoB":123,"appinfoC":true}}"#;
        check_encoded(
            &event(),
            EventFormat::CloudEventsStructured,
            &headers,
            value,
        );
    }

    #[test]
    fn what_was_written_reads_back_in_every_format() {
        for data in [json!(null), json!([1, {"a": "ä\u{1}"}]), json!(1.5)] {
            for event in [event(), bare()] {
                let event = Event {
                    data: data.clone(),
                    ..event
                };
                for format in FORMATS {
                    let mut expected = event.clone();
                    if format == EventFormat::Wrapped {
                        expected = Event {
                            id: String::new(),
                            version: None,
                            time: None,
                            ..expected
                        };
                    }
                    let read = parse(&event.encode(format).unwrap()).unwrap();
                    assert_eq!(read, expected, "{format:?}");
                }
            }
        }
    }

    /// Vectors written out from the specifications' examples, not by this code.
    #[test]
    fn what_others_write_is_understood() {
        let structured = |content_type: &'static str, value: &str| {
            let headers = [(header::CONTENT_TYPE, Some(content_type.as_bytes()))];
            Event::parse(headers, Some(value.as_bytes()))
        };
        let value = r#"{
            "specversion" : "1.0",
            "type" : "com.example.someevent",
            "source" : "/mycontext",
            "subject": null,
            "id" : "C234-1234-1234",
            "time" : "2018-04-05T17:31:00Z",
            "comexampleextension1" : "value",
            "comexampleothervalue" : 5,
            "datacontenttype" : "application/json",
            "data" : {"appinfoA" : "abc", "appinfoB" : 123, "appinfoC" : true}
        }"#;
        let read = structured("Application/CloudEvents+JSON;charset=utf-8", value).unwrap();
        let expected = Event {
            id: "C234-1234-1234".into(),
            source: "/mycontext".into(),
            version: None,
            time: Some("2018-04-05T17:31:00Z".parse().unwrap()),
            correlation_id: None,
            ..event()
        };
        assert_eq!(read, expected);
        let xml = value.replace("application/json", "application/xml");
        assert!(matches!(
            structured("application/cloudevents+json", &xml),
            Err(ParseError::ContentType { found }) if found == "application/xml"
        ));
        let bytes = value.replace("\"data\"", "\"data_base64\"");
        assert!(matches!(
            structured("application/cloudevents+json", &bytes),
            Err(ParseError::ContentType { .. })
        ));
        let later = value.replace("\"1.0\"", "\"2.0\"");
        assert!(matches!(
            structured("application/cloudevents+json", &later),
            Err(ParseError::SpecVersion { found }) if found == "2.0"
        ));
        let binary = structured("application/cloudevents+avro", value).unwrap_err();
        assert!(matches!(binary, ParseError::ContentType { .. }), "{binary}");

        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_type", "com.example.someevent"),
            ("ce_source", "/mycontext/subcontext"),
            ("ce_id", "1234-1234-1234"),
            ("ce_time", "2018-04-05T03:56:24Z"),
            (
                "content-type",
                "application/vnd.example+json; charset=utf-8",
            ),
        ];
        let bytes = headers.map(|(name, value)| (name, Some(value.as_bytes())));
        let value = br#"{"appinfoA" : "abc", "appinfoB" : 123, "appinfoC" : true}"#;
        let read = Event::parse(bytes, Some(value)).unwrap();
        let expected = Event {
            version: None,
            correlation_id: None,
            ..event()
        };
        assert_eq!(read, expected);
        for missing in ["type", "source", "id"] {
            let left = bytes
                .into_iter()
                .filter(|(name, _)| *name != format!("ce_{missing}"));
            let error = Event::parse(left, Some(value)).unwrap_err();
            assert!(matches!(error, ParseError::Attribute { name } if name == missing));
        }
        // No value is no data.
        let read = Event::parse(bytes, None).unwrap();
        assert_eq!(read.data, Value::Null);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for value in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"id":"1","type":"t"}"#,
            r#"{"id":1,"type":"t","source":"s"}"#,
        ] {
            let error = Event::parse([], Some(value.as_bytes())).unwrap_err();
            assert!(matches!(error, ParseError::Json(_)), "{value}: {error}");
        }
    }

    #[test]
    fn what_no_cloudevent_may_have_is_refused_before_it_is_written() {
        let refused = |event: Event| {
            let cloud = [FORMATS[2], FORMATS[3]].map(|format| event.encode(format).unwrap_err());
            let [
                Error::Attribute { name, .. },
                Error::Attribute { name: other, .. },
            ] = cloud
            else {
                panic!("{cloud:?}");
            };
            assert_eq!(name, other);
            // JSON of our own takes any text.
            assert!(event.encode(EventFormat::Json).is_ok());
            name
        };
        let with = |change: fn(&mut Event)| {
            let mut event = event();
            change(&mut event);
            event
        };
        assert_eq!(refused(with(|e| e.id.clear())), "id");
        assert_eq!(refused(with(|e| e.id = "a\n".into())), "id");
        assert_eq!(refused(with(|e| e.event_type = "a\u{7f}".into())), "type");
        for source in ["", "my service", "ä", "a%2", "<a>"] {
            let mut event = event();
            event.source = source.into();
            assert_eq!(refused(event), "source", "{source}");
        }
        for source in [
            "my-service",
            "urn:a:b",
            "https://x.example/a%20b?c#d",
            "//[::1]/",
        ] {
            let mut event = event();
            event.source = source.into();
            assert!(event.encode(FORMATS[2]).is_ok(), "{source}");
        }
        assert_eq!(
            refused(with(|e| e.version = Some(String::new()))),
            "version"
        );
        let correlation = with(|e| e.correlation_id = Some(String::new()));
        assert_eq!(refused(correlation), "correlation id");
        let nameless = EventBuilder::new("s").event("", &()).unwrap();
        for format in FORMATS {
            assert!(nameless.encode(format).is_err());
        }

        let mut options = EventOptions::new("my service");
        assert!(options.check().is_ok());
        options.format = EventFormat::CloudEventsBinary;
        assert!(options.check().is_err());
        options.source = "my-service".into();
        assert!(options.check().is_ok());
        options.version = Some(String::new());
        assert!(options.check().is_err());
    }
}
