//! `ferrylog export`: every record that is still there, as JSON lines.
//!
//! The shape of a line is a contract with programs in other languages: keys are only ever added.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    Global,
    failure::{self, Ended, Exit},
    output::{self, Progress},
};
use crate::{
    message::{Expires, Header, Message},
    store::{self, Entry, LaneView, StoreView, Undecodable},
    wal::{self, SeqNo},
};

/// Output is written in pieces of this size.
const BUFFER_BYTES: usize = 256 * 1024;
/// Records between two looks at the clock.
const RECORDS_PER_GLANCE: u64 = 4096;

/// Print every record that is still there as a JSON line
///
/// Not only what waits for Kafka: also what was shipped and is not reclaimed yet. Keys and values
/// that are no UTF-8 stand as base64 in key_base64 and value_base64, likewise for headers. A record
/// that is no message has `error` and `raw_base64` instead. One that expires by itself has `expires_at`,
/// in milliseconds since 1970, or `expires_after`, in milliseconds since its append.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// First record number [default: the oldest]
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,

    /// Record number to stop before [default: the end]
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<Exit, Ended> {
    let store = StoreView::open_with(&global.data, global.keys())
        .map_err(|error| failure::of_store(&error, &global.data))?;
    let mut out = io::BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
    let mut is_whole = true;
    for lane in store.lanes() {
        is_whole &= export(lane, global, arguments, &mut out)?;
    }
    out.flush()?;
    Ok(if is_whole { Exit::Done } else { Exit::Wrong })
}

/// Prints what can be read. False: some records cannot; each damaged stretch was told.
fn export(
    lane: &LaneView,
    global: &Global,
    arguments: &Arguments,
    out: &mut impl Write,
) -> Result<bool, Ended> {
    let marks = lane.marks();
    let from = arguments
        .from
        .map_or(marks.first, SeqNo::new)
        .max(marks.first);
    let to = arguments.to.map_or(marks.next, SeqNo::new).min(marks.next);
    let mut progress = Progress::new("exporting");
    let mut reader = lane.reader(from);
    let mut is_whole = lane.damage().is_none();
    for count in 0.. {
        let entry = match reader.next() {
            Ok(Some(entry)) if entry.seq < to => entry,
            Ok(_) => break,
            Err(error) => {
                // What was read before the fault is good: it must not be lost in a buffer.
                out.flush()?;
                let failure = failure::of_store(&error, &global.data);
                if !matches!(error, store::Error::Log(wal::Error::Corrupt { .. })) {
                    return Err(failure.into());
                }
                is_whole = false;
                let passed = reader
                    .skip_damage()
                    .map_err(|error| failure::of_store(&error, &global.data))?;
                // Both ends are numbers that are left out, as everywhere in what people read.
                let last = passed.end.get().saturating_sub(1);
                let fact = format!("SeqNo {} to {last} left out", passed.start);
                failure.fact(&fact).tell(global.json);
                continue;
            }
        };
        output::json_line(out, &Line::of(lane.name(), &entry))?;
        if count % RECORDS_PER_GLANCE == 0 {
            progress.records(entry.seq - from, Some(to - from));
        }
    }
    Ok(is_whole)
}

/// One line of the export.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    lane: &'a str,
    #[serde(flatten)]
    record: Record<'a>,
}

impl<'a> Line<'a> {
    fn of(lane: &'a str, entry: &'a Entry) -> Self {
        Self {
            seq: entry.seq.get(),
            lane,
            record: match &entry.message {
                Ok(message) => Record::Message(message),
                Err(undecodable) => Record::Undecodable(undecodable),
            },
        }
    }
}

enum Record<'a> {
    Message(&'a Message),
    Undecodable(&'a Undecodable),
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Message(message) => {
                map.serialize_entry("topic", &*message.topic)?;
                map.serialize_entry("partition", &message.partition)?;
                serialize_bytes(&mut map, ("key", "key_base64"), message.key.as_deref())?;
                map.serialize_entry("headers", &Headers(message))?;
                map.serialize_entry("timestamp", &message.timestamp_millis)?;
                serialize_bytes(
                    &mut map,
                    ("value", "value_base64"),
                    message.value.as_deref(),
                )?;
                // No record has one yet: schemas and counted refusals come with later versions.
                map.serialize_entry("schema", &None::<&str>)?;
                map.serialize_entry("attempts", &0)?;
                match message.expires {
                    Some(Expires::After(millis)) => {
                        map.serialize_entry("expires_after", &millis)?
                    }
                    Some(Expires::At(millis)) => map.serialize_entry("expires_at", &millis)?,
                    None => {}
                }
            }
            Self::Undecodable(undecodable) => {
                map.serialize_entry("error", &undecodable.reason.to_string())?;
                map.serialize_entry("raw_base64", &BASE64.encode(&undecodable.raw))?;
            }
        }
        map.end()
    }
}

/// The headers of a message, in order.
pub(super) struct Headers<'a>(pub(super) &'a Message);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.headers().map(HeaderLine))
    }
}

struct HeaderLine<'a>(Header<'a>);

impl Serialize for HeaderLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.0.name)?;
        serialize_bytes(&mut map, ("value", "value_base64"), self.0.value)?;
        map.end()
    }
}

/// Text as it is, other bytes as base64 under the other name, nothing as null.
pub(super) fn serialize_bytes<M: SerializeMap>(
    map: &mut M,
    (text_name, base64_name): (&'static str, &'static str),
    bytes: Option<&[u8]>,
) -> Result<(), M::Error> {
    match bytes.map(str::from_utf8) {
        None => map.serialize_entry(text_name, &None::<&str>),
        Some(Ok(text)) => map.serialize_entry(text_name, text),
        Some(Err(_)) => map.serialize_entry(base64_name, &BASE64.encode(bytes.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{
        MessageRef,
        codec::{self, Topic},
    };

    fn line(message: &MessageRef<'_>) -> String {
        let mut payload = vec![0; codec::encoded_len(message, Topic::Inline)];
        codec::encode(message, Topic::Inline, &mut payload);
        let payload = Bytes::from(payload);
        let entry = Entry {
            seq: SeqNo::new(7),
            origin: SeqNo::new(7),
            time_micros: 1_000_000,
            raw: payload.clone(),
            message: codec::decode(&payload, 1_000, |_| None).map_err(|reason| Undecodable {
                raw: payload.clone(),
                reason,
            }),
        };
        serde_json::to_string(&Line::of("default", &entry)).unwrap()
    }

    #[test]
    fn a_line_has_every_key_of_the_contract_in_order() {
        let message = MessageRef {
            partition: Some(3),
            key: Some(b"site-17"),
            headers: &[Header {
                name: "unit",
                value: Some(b"C"),
            }],
            timestamp_millis: Some(5),
            value: Some("21.4 °C".as_bytes()),
            ..MessageRef::to("temps")
        };
        assert_eq!(
            line(&message),
            r#"{"seq":7,"lane":"default","topic":"temps","partition":3,"key":"site-17","headers":[{"name":"unit","value":"C"}],"timestamp":5,"value":"21.4 °C","schema":null,"attempts":0}"#
        );
        assert_eq!(
            line(&MessageRef::to("temps")),
            r#"{"seq":7,"lane":"default","topic":"temps","partition":null,"key":null,"headers":[],"timestamp":1000,"value":null,"schema":null,"attempts":0}"#
        );
    }

    #[test]
    fn a_line_tells_when_a_record_expires_by_itself() {
        for (expires, end) in [
            (Expires::At(9), r#","expires_at":9}"#),
            (Expires::After(8), r#","expires_after":8}"#),
        ] {
            let line = line(&MessageRef {
                expires: Some(expires),
                ..MessageRef::to("t")
            });
            assert!(line.ends_with(end), "{line}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_stand_as_base64() {
        let message = MessageRef {
            key: Some(b"\xff"),
            headers: &[Header {
                name: "h",
                value: Some(b"\xfe"),
            }],
            value: Some(b"\x00\xff"),
            ..MessageRef::to("t")
        };
        let line = line(&message);
        assert!(line.contains(r#""key_base64":"/w==""#), "{line}");
        assert!(
            line.contains(r#"{"name":"h","value_base64":"/g=="}"#),
            "{line}"
        );
        assert!(line.contains(r#""value_base64":"AP8=""#), "{line}");
        assert!(
            !line.contains(r#""key":"#) && !line.contains(r#""value":"#),
            "{line}"
        );
    }

    #[test]
    fn a_record_that_is_no_message_keeps_its_bytes() {
        let entry = Entry {
            seq: SeqNo::new(9),
            origin: SeqNo::new(9),
            time_micros: 0,
            raw: Bytes::from_static(b"\x02"),
            message: Err(Undecodable {
                raw: Bytes::from_static(b"\x02"),
                reason: codec::DecodeError::Version { found: 2 },
            }),
        };
        assert_eq!(
            serde_json::to_string(&Line::of("default", &entry)).unwrap(),
            r#"{"seq":9,"lane":"default","error":"message version 2 is not known, 1 is","raw_base64":"Ag=="}"#
        );
    }
}
