//! Events: something happened, of a type, told by a source.
//!
//! - An [`EventBuilder`] knows once who tells, and makes events of any payload, or of the typed ones in
//!   [`typed`].
//! - [`Event::encode`] writes one as JSON or as a CloudEvent ([`EventFormat`]), [`Event::parse`] reads
//!   it back.
//! - [`Routes`] say which topic an event goes to by its type.
//!
//! ```
//! use ferrylog::event::{Event, EventBuilder, EventFormat};
//!
//! let events = EventBuilder::new("/sites/17").version("1.0");
//! let event = events.event("door.opened", &serde_json::json!({"door": 3}))?;
//! let encoded = event.encode(EventFormat::CloudEventsBinary)?;
//! let headers = encoded.headers();
//! let headers = headers.iter().map(|header| (header.name, header.value));
//! assert_eq!(Event::parse(headers, Some(&encoded.value))?, event);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Owns what an event is and how it looks. Must not know logs, Kafka clients or a producer, nor where
//! the time comes from: that is handed in.
//!
//! Invariants: an event that was made has an id of its own; what is encoded as a CloudEvent is one.

mod cloud;
mod error;
mod format;
mod routes;
mod time;
pub mod typed;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::error::{Error, ParseError};
pub use self::format::{Encoded, EventFormat};
pub use self::routes::Routes;
pub use self::time::Time;

/// Something that happened.
///
/// As JSON it has the members `id`, `type`, `source`, `version`, `time`, `correlation_id` and `data`;
/// those that are `None` are left out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Unique within its source: consumers know by it what comes twice.
    pub id: String,
    /// What kind of event it is, such as `user.logged_in`. Its route goes by this.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Who says it: a name, or a URI reference. A CloudEvent wants the latter.
    pub source: String,
    /// The version of what stands in `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it happened; `None`: the clock was not set. Kafka's timestamp is corrected then, once the
    /// time is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// What it belongs to: a request, an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// What is said about it.
    #[serde(default)]
    pub data: Value,
    /// The topic it goes to whatever the routes say. No part of the event itself.
    #[serde(skip)]
    pub topic: Option<String>,
    /// The key of its record: events of one key keep their order. No part of the event itself.
    #[serde(skip)]
    pub key: Option<Vec<u8>>,
}

impl Event {
    /// Sends it to this topic, whatever the routes say.
    #[must_use]
    pub fn to(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Gives its record this key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Says what it belongs to.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }
}

/// Makes events of one source. Cheap to clone.
#[derive(Clone)]
pub struct EventBuilder {
    source: String,
    version: Option<String>,
    correlation_id: Option<String>,
    now: Arc<dyn Fn() -> Option<Time> + Send + Sync>,
}

impl EventBuilder {
    /// Events of this source, with the time of the system. That of a producer knows the source, and
    /// whether the clock is set: [`Producer::event_builder`](crate::Producer::event_builder).
    #[must_use]
    pub fn new(source: impl Into<String>) -> Self {
        Self::with_clock(source, || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let millis = i64::try_from(now.ok()?.as_millis()).ok()?;
            Some(Time::from_millis(millis))
        })
    }

    /// As [`new`](Self::new) with another clock; `None`: it is not set.
    pub fn with_clock(
        source: impl Into<String>,
        now: impl Fn() -> Option<Time> + Send + Sync + 'static,
    ) -> Self {
        Self {
            source: source.into(),
            version: None,
            correlation_id: None,
            now: Arc::new(now),
        }
    }

    /// The events have this version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The events belong to this.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// What time it is, for what an event says about itself; `None`: the clock is not set.
    #[must_use]
    pub fn now(&self) -> Option<Time> {
        (self.now)()
    }

    /// An event of this type that happened now, with an id of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Data`]: the payload has no JSON. [`Error::Random`]: the system gave nothing to make an
    /// id of.
    pub fn event(
        &self,
        event_type: impl Into<String>,
        payload: &(impl Serialize + ?Sized),
    ) -> Result<Event, Error> {
        Ok(Event {
            id: uuid(random().map_err(Error::Random)?),
            event_type: event_type.into(),
            source: self.source.clone(),
            version: self.version.clone(),
            time: self.now(),
            correlation_id: self.correlation_id.clone(),
            data: serde_json::to_value(payload).map_err(Error::Data)?,
            topic: None,
            key: None,
        })
    }

    /// An event whose type the payload knows.
    ///
    /// # Errors
    ///
    /// As [`event`](Self::event).
    pub fn typed<T: typed::EventData>(&self, payload: &T) -> Result<Event, Error> {
        self.event(T::TYPE, payload)
    }
}

impl fmt::Debug for EventBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBuilder")
            .field("source", &self.source)
            .field("version", &self.version)
            .field("correlation_id", &self.correlation_id)
            .finish_non_exhaustive()
    }
}

/// How a producer makes its events, and where they go.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EventOptions {
    /// Who says them. Default: `ferrylog`.
    pub source: String,
    /// The version of what they say, if there is one.
    pub version: Option<String>,
    /// What they look like.
    pub format: EventFormat,
    /// Where they go.
    pub routes: Routes,
}

impl EventOptions {
    /// Events of this source, otherwise as the default is.
    #[must_use]
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            version: None,
            format: EventFormat::default(),
            routes: Routes::default(),
        }
    }

    /// Checks what would be refused with every event.
    ///
    /// # Errors
    ///
    /// [`Error::Attribute`] if the source or the version cannot stand in this format.
    pub fn check(&self) -> Result<(), Error> {
        format::check(self.format, "source", &self.source)?;
        let version = self.version.as_deref();
        version.map_or(Ok(()), |text| format::check(self.format, "version", text))
    }
}

impl Default for EventOptions {
    fn default() -> Self {
        Self::new("ferrylog")
    }
}

fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[filled..], flags) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// A UUID of version 4 (RFC 9562, 5.4): all of it random but for six bits.
fn uuid(random: [u8; 16]) -> String {
    let number = u128::from_le_bytes(random);
    let number = number & !(0xf << 76) | (0x4 << 76);
    let number = number & !(0b11 << 62) | (0b10 << 62);
    let digits = format!("{number:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn an_id_is_a_uuid_of_version_4() {
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let ids = (0..1000).map(|_| uuid(random().unwrap()));
        assert_eq!(ids.collect::<HashSet<_>>().len(), 1000);
    }

    #[test]
    fn a_builder_says_once_what_all_its_events_say() {
        let time = Time::from_millis(1_522_900_584_000);
        let events = EventBuilder::with_clock("/s", move || Some(time))
            .version("1.1")
            .correlation_id("order 7");
        let [a, b] = ["a", "b"].map(|kind| events.event(kind, &[1]).unwrap());
        assert_ne!(a.id, b.id);
        for (event, event_type) in [(a, "a"), (b, "b")] {
            let expected = Event {
                id: event.id.clone(),
                event_type: event_type.into(),
                source: "/s".into(),
                version: Some("1.1".into()),
                time: Some(time),
                correlation_id: Some("order 7".into()),
                data: serde_json::json!([1]),
                topic: None,
                key: None,
            };
            assert_eq!(event, expected);
        }
        let unset = EventBuilder::with_clock("/s", || None);
        assert_eq!(unset.event("a", &()).unwrap().time, None);
        let json = unset.event("a", &f64::NAN).unwrap().data;
        assert_eq!(json, Value::Null, "as serde_json has it");
        let no_json = std::collections::HashMap::from([((1, 2), 3)]);
        let refused = unset.event("a", &no_json).unwrap_err();
        assert!(matches!(refused, Error::Data(_)), "{refused}");
    }
}
