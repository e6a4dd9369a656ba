//! How a dead letter looks as a Kafka message: copied to the dead-letter topic, or sent again to where
//! it belongs.
//!
//! Pure. Owns the names of the headers and the shape of the envelope (`schemas/dead_letter.json`). It
//! must not know who sends, nor when.
//!
//! Invariants: a copy names its origin, so a consumer can drop what comes twice; what is sent again has
//! the content of the letter and no header about its death; a copy that does not fit is a pointer,
//! which says where the bytes are and is never larger than [`POINTER_LEN_MAX`].

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::Serialize;

use crate::message::header::{self, connect, dlq};
use crate::message::{Header, Invalid, Message, check_topic};
use crate::store::{Body, StoredLetter};
use crate::wal::LogId;

/// Headers that begin so tell of a death; they are not sent again.
pub const ERROR_HEADERS: [&str; 2] = [dlq::PREFIX, connect::PREFIX];
/// Most bytes of a pointer record: all of its texts are bounded.
pub const POINTER_LEN_MAX: usize = 4096;
/// Stands for the topic of a record whose bytes are no message.
const NO_TOPIC: &str = "undecodable";
/// A pointer keeps a key of this length; consumers see which partition's order it belongs to.
const POINTER_KEY_MAX: usize = 256;

/// How a copy in the dead-letter topic tells of the death.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum DeadLetterStyle {
    /// The record as it was, with headers `dlq.*` as text.
    #[default]
    Native,
    /// The record as it was, with the headers of Kafka Connect.
    Connect,
    /// One JSON object that holds the record and the rest.
    Envelope,
}

/// The topic of the copies: one for all, or one for each topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetterTopic(String);

impl DeadLetterTopic {
    const PLACE: &str = "{topic}";

    /// A name, or a template in which `{topic}` stands for the record's topic: `{topic}.dlq`.
    ///
    /// # Errors
    ///
    /// [`Invalid::Topic`] if no topic can be called so, or if it would be the record's own.
    pub fn new(template: &str) -> Result<Self, Invalid> {
        if template == Self::PLACE {
            return Err(Invalid::Topic {
                topic: template.into(),
                reason: "dead letters would go to the topic that they were refused by",
            });
        }
        check_topic(&template.replace(Self::PLACE, "t"))?;
        Ok(Self(template.into()))
    }

    /// What it was made of.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.0
    }

    /// The topic for a record of this one.
    ///
    /// # Errors
    ///
    /// [`Invalid::Topic`] if both together are longer than a topic may be: the copy can never be sent.
    pub fn of(&self, topic: Option<&str>) -> Result<String, Invalid> {
        let name = self.0.replace(Self::PLACE, topic.unwrap_or(NO_TOPIC));
        check_topic(&name)?;
        Ok(name)
    }
}

/// What of the dead letters goes to Kafka, beside those that somebody decided to send again.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeadLetterShipping {
    /// The topic that gets a copy of each dead letter; none, if `None`.
    pub topic: Option<DeadLetterTopic>,
    /// How a copy tells of the death.
    pub style: DeadLetterStyle,
    /// Most bytes of a copy, as [`LetterMessage::wire_len`] has it. Instead of a larger one, and of
    /// one that is refused as too large, a pointer is sent.
    pub len_max: usize,
}

impl Default for DeadLetterShipping {
    fn default() -> Self {
        Self {
            topic: None,
            style: DeadLetterStyle::default(),
            // What librdkafka takes by default (`message.max.bytes`), and brokers and topics do.
            len_max: 1_000_000,
        }
    }
}

impl DeadLetterShipping {
    /// Why copies must not go to their topic, where this one is that of records which name none.
    pub(crate) fn refuses(&self, default_topic: &str) -> Option<&'static str> {
        let topic = self.topic.as_ref()?.of(Some(default_topic)).ok()?;
        (topic == default_topic).then_some(
            "is the default topic as well: what could not be delivered would be read as if it had been",
        )
    }
}

/// A message to be sent for a letter.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LetterMessage {
    /// Where it goes.
    pub topic: String,
    /// The partition it must go to; `None` leaves that to the key.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Milliseconds since 1970; `None` is the time of sending.
    pub timestamp_millis: Option<i64>,
}

impl LetterMessage {
    /// Bytes of a batch that holds it alone, uncompressed, at most: what a broker compares with its
    /// limit.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        const BATCH: usize = 61;
        // Length, attributes, two distances, and the lengths of key, value and headers.
        const RECORD: usize = 5 + 1 + 10 + 5 + 3 * 5;
        const HEADER: usize = 2 * 5;
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let header = |(name, value): &(String, Option<Bytes>)| HEADER + name.len() + len(value);
        let headers: usize = self.headers.iter().map(header).sum();
        BATCH + RECORD + self.content_len() + headers
    }

    /// Bytes of key and value.
    pub(super) fn content_len(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        len(&self.key) + len(&self.value)
    }

    /// The headers as they are handed over.
    pub(super) fn header_refs(&self) -> Vec<(&str, Option<&[u8]>)> {
        let headers = self.headers.iter();
        headers
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect()
    }

    fn header(&mut self, name: &str, value: impl Into<String>) {
        let value = Some(Bytes::from(value.into()));
        self.headers.push((name.into(), value));
    }
}

/// The copy of a letter for the dead-letter topic; a pointer to the bytes in the log `kept_in`, if it
/// would be larger than `len_max`.
///
/// Its time is the time of sending: the record's own may be what it was refused for.
///
/// # Errors
///
/// [`Invalid::Topic`] if the topic's name would be too long.
pub fn copy(
    letter: &StoredLetter,
    kept_in: LogId,
    topic: &DeadLetterTopic,
    style: DeadLetterStyle,
    len_max: usize,
) -> Result<LetterMessage, Invalid> {
    let body = &letter.body;
    let (key, value, headers) = match &body.content {
        Ok(message) => (
            message.key.clone(),
            message.value.clone(),
            message.headers().map(owned).collect(),
        ),
        Err(raw) => (None, Some(raw.clone()), Vec::new()),
    };
    let mut copy = LetterMessage {
        topic: topic.of(body.topic())?,
        partition: None,
        key,
        value,
        headers,
        timestamp_millis: None,
    };
    match style {
        DeadLetterStyle::Native => add_native(&mut copy, body),
        DeadLetterStyle::Connect => add_connect(&mut copy, body),
        DeadLetterStyle::Envelope => {
            copy.headers = Vec::new();
            copy.value = Some(envelope(body).into());
        }
    }
    copy.header(header::ID, body.origin.to_string());
    if copy.wire_len() <= len_max {
        return Ok(copy);
    }
    let len = content_len(body);
    copy.key.take_if(|key| key.len() > POINTER_KEY_MAX);
    copy.value = None;
    copy.headers = Vec::new();
    match style {
        DeadLetterStyle::Connect => add_connect(&mut copy, body),
        DeadLetterStyle::Native | DeadLetterStyle::Envelope => add_native(&mut copy, body),
    }
    copy.header(header::ID, body.origin.to_string());
    copy.header(dlq::KEPT_LOG_ID, kept_in.to_string());
    copy.header(dlq::KEPT_SEQ, letter.seq.to_string());
    copy.header(dlq::KEPT_BYTES, len.to_string());
    Ok(copy)
}

/// A letter as it is sent again. `None`: its bytes are no message; only an edited one can be sent.
///
/// Unedited it has the identity it always had. Edited it is another record: named by the log of the
/// dead letters, with the origin beside it. `id_header` is as for every other record.
#[must_use]
pub fn replay(letter: &StoredLetter, kept_in: LogId, id_header: bool) -> Option<LetterMessage> {
    let body = &letter.body;
    let message = body.content.as_ref().ok()?;
    let of_a_death = |header: &Header<'_>| {
        let prefixes = ERROR_HEADERS.iter();
        prefixes
            .clone()
            .any(|prefix| header.name.starts_with(prefix))
    };
    let headers = message.headers().filter(|header| !of_a_death(header));
    let mut again = LetterMessage {
        topic: (*message.topic).into(),
        partition: message.partition,
        key: message.key.clone(),
        value: message.value.clone(),
        headers: headers.map(owned).collect(),
        timestamp_millis: Some(message.timestamp_millis),
    };
    if !id_header {
        return Some(again);
    }
    if body.replaces.is_some() {
        again.header(header::ID, format!("{kept_in}-d{}", letter.seq));
        again.header(header::ORIGIN, body.origin.to_string());
    } else {
        again.header(header::ID, body.origin.to_string());
    }
    Some(again)
}

fn add_native(copy: &mut LetterMessage, body: &Body) {
    if let Ok(message) = &body.content {
        copy.header(dlq::TOPIC, &*message.topic);
        if let Some(partition) = message.partition {
            copy.header(dlq::PARTITION, partition.to_string());
        }
        copy.header(dlq::TIMESTAMP, message.timestamp_millis.to_string());
    }
    copy.header(dlq::CLASS, &*body.class);
    copy.header(dlq::CODE, body.code.to_string());
    copy.header(dlq::STAGE, body.stage.name());
    copy.header(dlq::REASON, &*body.reason);
    copy.header(dlq::ATTEMPTS, body.attempts.to_string());
    copy.header(dlq::FIRST_ATTEMPT, time_text(body.first_attempt_millis));
    copy.header(dlq::LAST_ATTEMPT, time_text(body.last_attempt_millis));
    copy.header(dlq::LANE, &*body.lane);
    copy.header(dlq::SEQ, body.origin.seq.to_string());
    copy.header(dlq::LOG_ID, body.origin.log_id.to_string());
}

/// The names are Kafka Connect's (`DeadLetterQueueReporter`), and so is their order. What has no
/// counterpart there is left out: a lane is the connector, its log has one task, and the number in it
/// is the offset.
fn add_connect(copy: &mut LetterMessage, body: &Body) {
    if let Ok(message) = &body.content {
        copy.header(connect::TOPIC, &*message.topic);
        if let Some(partition) = message.partition {
            copy.header(connect::PARTITION, partition.to_string());
        }
    }
    copy.header(connect::OFFSET, body.origin.seq.to_string());
    copy.header(connect::CONNECTOR_NAME, &*body.lane);
    copy.header(connect::TASK_ID, "0");
    copy.header(connect::STAGE, body.stage.name().to_uppercase());
    copy.header(connect::CLASS_NAME, "ferrylog");
    copy.header(connect::EXCEPTION_CLASS_NAME, &*body.class);
    copy.header(connect::EXCEPTION_MESSAGE, &*body.reason);
}

/// A time as headers, JSON and people have it: `2026-11-21T20:51:53.004Z`. What lies beyond the years
/// that have four digits is the first or last moment of them.
#[must_use]
pub fn time_text(millis: i64) -> String {
    let bound = if millis < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    };
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(bound);
    format!("{time:.3}")
}

fn owned(header: Header<'_>) -> (String, Option<Bytes>) {
    let value = header.value.map(Bytes::copy_from_slice);
    (header.name.into(), value)
}

/// Bytes of a record's key, value and headers.
fn content_len(body: &Body) -> usize {
    match &body.content {
        Err(raw) => raw.len(),
        Ok(message) => {
            let header = |h: Header<'_>| h.name.len() + h.value.map_or(0, <[u8]>::len);
            let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
            len(&message.key) + len(&message.value) + message.headers().map(header).sum::<usize>()
        }
    }
}

/// The JSON envelope: everything in the value, for consumers that read no headers.
#[derive(Serialize)]
struct Envelope<'a> {
    event: Event<'a>,
    topic: Option<&'a str>,
    partition: Option<i32>,
    failure_reason: &'a str,
    attempt_count: u32,
    first_attempt: String,
    last_attempt: String,
    class: &'a str,
    code: i32,
    stage: &'static str,
    lane: &'a str,
    seq: u64,
    log_id: String,
}

/// The record: a message, or the bytes that are none.
#[derive(Serialize)]
#[serde(untagged)]
enum Event<'a> {
    Message {
        key_base64: Option<String>,
        value_base64: Option<String>,
        headers: Vec<EventHeader<'a>>,
        timestamp: String,
    },
    Raw {
        raw_base64: String,
    },
}

#[derive(Serialize)]
struct EventHeader<'a> {
    name: &'a str,
    value_base64: Option<String>,
}

impl<'a> Event<'a> {
    fn of(message: &'a Message) -> Self {
        let base64 = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| BASE64.encode(bytes));
        let header = |header: Header<'a>| EventHeader {
            name: header.name,
            value_base64: header.value.map(|value| BASE64.encode(value)),
        };
        Self::Message {
            key_base64: base64(&message.key),
            value_base64: base64(&message.value),
            headers: message.headers().map(header).collect(),
            timestamp: time_text(message.timestamp_millis),
        }
    }
}

fn envelope(body: &Body) -> Vec<u8> {
    let message = body.content.as_ref();
    let envelope = Envelope {
        event: match message {
            Ok(message) => Event::of(message),
            Err(raw) => Event::Raw {
                raw_base64: BASE64.encode(raw),
            },
        },
        topic: body.topic(),
        partition: message.ok().and_then(|message| message.partition),
        failure_reason: &body.reason,
        attempt_count: body.attempts,
        first_attempt: time_text(body.first_attempt_millis),
        last_attempt: time_text(body.last_attempt_millis),
        class: &body.class,
        code: body.code,
        stage: body.stage.name(),
        lane: &body.lane,
        seq: body.origin.seq.get(),
        log_id: body.origin.log_id.to_string(),
    };
    // Strings, numbers and lists of them: there is nothing in it that cannot be written.
    serde_json::to_vec(&envelope).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageRef;
    use crate::message::codec::{self, Topic};
    use crate::store::{Copied, Origin, Stage, State};
    use crate::wal::SeqNo;
    use serde_json::Value;

    const KEPT_IN: LogId = LogId::new([0xcd; 16]);
    const ORIGIN: &str = "abababababababababababababababab-300";

    const HEADERS: [Header<'_>; 4] = [
        Header {
            name: "unit",
            value: Some(b"\xff"),
        },
        Header {
            name: "dlq.topic",
            value: Some(b"before"),
        },
        Header {
            name: "null",
            value: None,
        },
        Header {
            name: "__connect.errors.stage",
            value: Some(b"X"),
        },
    ];

    fn message(value: &[u8]) -> Message {
        let message = MessageRef {
            partition: Some(3),
            key: Some(b"k\xfe"),
            headers: &HEADERS,
            timestamp_millis: Some(1_700_000_000_000),
            value: Some(value),
            ..MessageRef::to("temps")
        };
        let mut bytes = vec![0; codec::encoded_len(&message, Topic::Inline)];
        codec::encode(&message, Topic::Inline, &mut bytes);
        codec::decode(&bytes.into(), 0, |_| None).unwrap()
    }

    fn letter(content: Result<Message, Bytes>) -> StoredLetter {
        StoredLetter {
            seq: SeqNo::new(17),
            state: State::Pending,
            copied: Copied::No,
            body: Body {
                origin: Origin {
                    log_id: LogId::new([0xab; 16]),
                    seq: SeqNo::new(300),
                },
                replaces: None,
                lane: "default".into(),
                class: "poison".into(),
                code: 10,
                stage: Stage::Produce,
                reason: "message \"too\" large".into(),
                attempts: 2,
                first_attempt_millis: 1_700_000_000_000,
                last_attempt_millis: 1_700_000_060_500,
                content,
            },
        }
    }

    fn copied(letter: &StoredLetter, style: DeadLetterStyle, len_max: usize) -> LetterMessage {
        let topic = DeadLetterTopic::new("{topic}.dlq").unwrap();
        copy(letter, KEPT_IN, &topic, style, len_max).unwrap()
    }

    fn texts(headers: &[(String, Option<Bytes>)]) -> Vec<(&str, &str)> {
        headers
            .iter()
            .map(|(name, value)| {
                let value = value.as_deref().unwrap_or(b"<null>");
                (name.as_str(), str::from_utf8(value).unwrap_or("<bytes>"))
            })
            .collect()
    }

    #[test]
    fn a_native_copy_is_the_record_with_its_death_in_text_behind_it() {
        let copy = copied(
            &letter(Ok(message(b"21.4"))),
            DeadLetterStyle::Native,
            10_000,
        );
        assert_eq!(copy.topic, "temps.dlq");
        assert_eq!((copy.partition, copy.timestamp_millis), (None, None));
        assert_eq!(copy.key.as_deref(), Some(&b"k\xfe"[..]));
        assert_eq!(copy.value.as_deref(), Some(&b"21.4"[..]));
        let expected = [
            ("unit", "<bytes>"),
            ("dlq.topic", "before"),
            ("null", "<null>"),
            ("__connect.errors.stage", "X"),
            ("dlq.topic", "temps"),
            ("dlq.partition", "3"),
            ("dlq.timestamp", "1700000000000"),
            ("dlq.class", "poison"),
            ("dlq.code", "10"),
            ("dlq.stage", "produce"),
            ("dlq.reason", "message \"too\" large"),
            ("dlq.attempts", "2"),
            ("dlq.first-attempt", "2023-11-14T22:13:20.000Z"),
            ("dlq.last-attempt", "2023-11-14T22:14:20.500Z"),
            ("dlq.lane", "default"),
            ("dlq.seq", "300"),
            ("dlq.log-id", "abababababababababababababababab"),
            ("ferry-id", ORIGIN),
        ];
        assert_eq!(texts(&copy.headers), expected);
    }

    #[test]
    fn a_connect_copy_has_the_names_that_kafka_connect_gives() {
        let copy = copied(&letter(Ok(message(b"v"))), DeadLetterStyle::Connect, 10_000);
        let expected = [
            ("__connect.errors.topic", "temps"),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "300"),
            ("__connect.errors.connector.name", "default"),
            ("__connect.errors.task.id", "0"),
            ("__connect.errors.stage", "PRODUCE"),
            ("__connect.errors.class.name", "ferrylog"),
            ("__connect.errors.exception.class.name", "poison"),
            (
                "__connect.errors.exception.message",
                "message \"too\" large",
            ),
            ("ferry-id", ORIGIN),
        ];
        assert_eq!(texts(&copy.headers)[HEADERS.len()..], expected);
    }

    /// As much of JSON Schema as `schemas/dead_letter.json` uses.
    fn fits(schema: &Value, value: &Value) -> bool {
        let is = |kind: &Value| match kind.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "null" => value.is_null(),
            other => panic!("a type this test does not know: {other}"),
        };
        schema
            .as_object()
            .unwrap()
            .iter()
            .all(|(word, rule)| match word.as_str() {
                "$schema" | "title" | "description" => true,
                "contentEncoding" => value
                    .as_str()
                    .is_none_or(|text| BASE64.decode(text).is_ok()),
                "format" => value
                    .as_str()
                    .is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
                "type" => rule
                    .as_array()
                    .map_or_else(|| is(rule), |kinds| kinds.iter().any(is)),
                "enum" => rule.as_array().unwrap().contains(value),
                "oneOf" => {
                    1 == rule
                        .as_array()
                        .unwrap()
                        .iter()
                        .filter(|s| fits(s, value))
                        .count()
                }
                "items" => value
                    .as_array()
                    .is_some_and(|all| all.iter().all(|one| fits(rule, one))),
                "required" => {
                    let names = rule.as_array().unwrap();
                    names
                        .iter()
                        .all(|name| value.get(name.as_str().unwrap()).is_some())
                }
                "properties" => value.as_object().is_some_and(|parts| {
                    parts
                        .iter()
                        .all(|(name, part)| rule.get(name).is_some_and(|s| fits(s, part)))
                }),
                // Every object of ours names all it may have.
                "additionalProperties" => rule == &Value::Bool(false),
                other => panic!("a rule this test does not know: {other}"),
            })
    }

    #[test]
    fn an_envelope_is_what_the_schema_says() {
        let schema = include_str!("../../schemas/dead_letter.json");
        let schema: Value = serde_json::from_str(schema).unwrap();
        let raw = Bytes::from_static(b"\x02\xff");
        for content in [Ok(message(b"21.4\xff")), Err(raw)] {
            let is_message = content.is_ok();
            let copy = copied(&letter(content), DeadLetterStyle::Envelope, 10_000);
            let json: Value = serde_json::from_slice(&copy.value.unwrap()).unwrap();
            assert!(fits(&schema, &json), "{json}");
            assert_eq!(json["failure_reason"], "message \"too\" large");
            assert_eq!(json["attempt_count"], 2);
            if is_message {
                assert_eq!(copy.topic, "temps.dlq");
                assert_eq!(json["event"]["value_base64"], "MjEuNP8=");
                assert_eq!(json["event"]["headers"][2]["value_base64"], Value::Null);
                assert_eq!(copy.key.as_deref(), Some(&b"k\xfe"[..]));
            } else {
                assert_eq!(copy.topic, "undecodable.dlq");
                assert_eq!(json["event"]["raw_base64"], "Av8=");
            }
            // No part may be missing, or another one be there.
            for name in json.as_object().unwrap().keys() {
                let mut less = json.clone();
                less.as_object_mut().unwrap().remove(name);
                assert!(!fits(&schema, &less), "{name} is not required");
            }
            let mut more = json;
            more["x"] = Value::Null;
            assert!(!fits(&schema, &more));
        }
    }

    #[test]
    fn a_copy_that_does_not_fit_is_a_pointer_to_its_bytes() {
        let large = letter(Ok(message(&[7; 5000])));
        for style in [
            DeadLetterStyle::Native,
            DeadLetterStyle::Connect,
            DeadLetterStyle::Envelope,
        ] {
            let whole = copied(&large, style, usize::MAX);
            assert!(whole.wire_len() > 5000);
            let same = copied(&large, style, whole.wire_len());
            assert_eq!(same, whole, "the limit itself fits");
            let pointer = copied(&large, style, whole.wire_len() - 1);
            assert_eq!(pointer.value, None);
            assert!(pointer.wire_len() <= POINTER_LEN_MAX);
            let headers = texts(&pointer.headers);
            // Key, value, and what the four headers hold.
            let len = 2 + 5000 + (4 + 1) + (9 + 6) + 4 + (22 + 1);
            for expected in [
                ("ferry-id", ORIGIN),
                ("dlq.kept-log-id", "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"),
                ("dlq.kept-seq", "17"),
                ("dlq.kept-bytes", len.to_string().as_str()),
            ] {
                assert!(headers.contains(&expected), "{expected:?} in {headers:?}");
            }
        }
    }

    #[test]
    fn a_pointer_is_small_whatever_the_letter_says() {
        let mut worst = letter(Ok(message(&[0; 100_000])));
        worst.body.lane = "l".repeat(crate::store::LANE_LEN_MAX);
        worst.body.class = "c".repeat(crate::store::CLASS_LEN_MAX);
        worst.body.reason = "r".repeat(crate::store::REASON_LEN_MAX);
        if let Ok(message) = &mut worst.body.content {
            message.topic = "t".repeat(240).into();
            message.key = Some(vec![0; POINTER_KEY_MAX].into());
        }
        let pointer = copied(&worst, DeadLetterStyle::Native, POINTER_LEN_MAX);
        assert!(pointer.value.is_none() && pointer.key.is_some());
        let len = pointer.wire_len();
        assert!((2000..=POINTER_LEN_MAX).contains(&len), "{len}");
    }

    #[test]
    fn a_replay_is_the_record_without_its_death() {
        let again = replay(&letter(Ok(message(b"21.4"))), KEPT_IN, true).unwrap();
        assert_eq!((again.topic.as_str(), again.partition), ("temps", Some(3)));
        assert_eq!(again.timestamp_millis, Some(1_700_000_000_000));
        assert_eq!(again.value.as_deref(), Some(&b"21.4"[..]));
        let expected = [
            ("unit", "<bytes>"),
            ("null", "<null>"),
            ("ferry-id", ORIGIN),
        ];
        assert_eq!(texts(&again.headers), expected);
        let without = replay(&letter(Ok(message(b"21.4"))), KEPT_IN, false).unwrap();
        assert_eq!(texts(&without.headers), expected[..2]);
    }

    #[test]
    fn an_edited_letter_is_another_record_that_names_its_origin() {
        let mut edited = letter(Ok(message(b"new")));
        edited.body.replaces = Some(SeqNo::new(4));
        let again = replay(&edited, KEPT_IN, true).unwrap();
        let expected = [
            ("ferry-id", "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd-d17"),
            ("ferry-origin", ORIGIN),
        ];
        assert_eq!(texts(&again.headers)[2..], expected);
    }

    #[test]
    fn bytes_that_are_no_message_are_copied_but_not_sent_again() {
        let raw = letter(Err(Bytes::from_static(b"\x02\xff")));
        let copy = copied(&raw, DeadLetterStyle::Native, 10_000);
        assert_eq!(
            (copy.key, copy.value.as_deref()),
            (None, Some(&b"\x02\xff"[..]))
        );
        assert_eq!(copy.topic, "undecodable.dlq");
        assert_eq!(
            copy.headers[0].0, "dlq.class",
            "it has no topic and no time"
        );
        assert_eq!(replay(&raw, KEPT_IN, true), None);
    }

    #[test]
    fn every_time_has_a_text() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert!(time_text(i64::MAX).starts_with("9999-12-30"));
        assert!(time_text(i64::MIN).starts_with("-009999-01-02"));
    }

    #[test]
    fn a_template_that_can_name_no_topic_is_refused() {
        let of = |template: &str, topic: &str| DeadLetterTopic::new(template)?.of(Some(topic));
        assert_eq!(of("{topic}.dlq", "a.b"), Ok("a.b.dlq".into()));
        assert_eq!(of("dlq-{topic}", "x"), Ok("dlq-x".into()));
        assert_eq!(of("errors", "x"), Ok("errors".into()));
        for template in ["", "{topic}", "{other}", "a b", &"x".repeat(250)] {
            assert!(DeadLetterTopic::new(template).is_err(), "{template}");
        }
        assert!(of("{topic}.dlq", &"x".repeat(246)).is_err());
    }
}
