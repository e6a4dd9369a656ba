//! Events of a producer: made, written, routed and sent as messages.
//!
//! Owns the routes, which may change while it runs. Must not know what an event looks like.
//!
//! Invariant: all events of a batch are routed by the same routes.

use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;

use super::{Producer, Receipt, SendError};
use crate::event::typed::EventData;
use crate::event::{self, Encoded, Event, EventBuilder, EventFormat, EventOptions, Routes, Time};
use crate::message::{Header, MessageRef};

/// What its events are made with.
#[derive(Debug)]
pub(super) struct Events {
    source: String,
    version: Option<String>,
    format: EventFormat,
    /// Taken for as long as it takes to copy a pointer.
    routes: RwLock<Arc<Routes>>,
}

impl Events {
    pub(super) fn new(options: EventOptions) -> Self {
        Self {
            source: options.source,
            version: options.version,
            format: options.format,
            routes: RwLock::new(Arc::new(options.routes)),
        }
    }
}

/// An event and its bytes.
struct Written<'a> {
    event: &'a Event,
    encoded: Encoded,
}

impl Written<'_> {
    fn headers(&self) -> Vec<Header<'_>> {
        self.encoded.headers()
    }

    fn messages<'b>(
        all: &'b [Self],
        routes: &'b Routes,
        headers: &'b [Vec<Header<'b>>],
    ) -> Vec<MessageRef<'b>> {
        let each = all.iter().zip(headers);
        each.map(|(written, headers)| written.message(routes, headers))
            .collect()
    }

    fn message<'b>(&'b self, routes: &'b Routes, headers: &'b [Header<'b>]) -> MessageRef<'b> {
        let topic = self.event.topic.as_deref();
        let topic = topic.or_else(|| routes.topic_of(&self.event.event_type));
        MessageRef {
            key: self.event.key.as_deref(),
            headers,
            value: Some(&self.encoded.value),
            // Without a name it is for the default topic.
            ..MessageRef::to(topic.unwrap_or_default())
        }
    }
}

impl Producer {
    /// Makes an event of this type and sends it: [`event_builder`](Self::event_builder) and
    /// [`send_event`](Self::send_event) in one.
    ///
    /// ```no_run
    /// # let producer = ferrylog::Producer::open("ferrylog-data", "127.0.0.1:9092")?;
    /// producer.event("door.opened", &serde_json::json!({"door": 3}))?.durable().wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send_event`](Self::send_event).
    pub fn event(
        &self,
        event_type: &str,
        payload: &(impl Serialize + ?Sized),
    ) -> Result<Receipt<'_>, SendError> {
        self.send_event(&self.event_builder().event(event_type, payload)?)
    }

    /// As [`event`](Self::event) with a payload that knows its type.
    ///
    /// # Errors
    ///
    /// As [`send_event`](Self::send_event).
    pub fn typed_event<T: EventData>(&self, payload: &T) -> Result<Receipt<'_>, SendError> {
        self.event(T::TYPE, payload)
    }

    /// Makes events of this producer's source and version, with the time of its store: none while the
    /// clock of the machine stands before 2026.
    #[must_use]
    pub fn event_builder(&self) -> EventBuilder {
        let shared = Arc::clone(self.shared());
        let events = &self.shared().events;
        let builder = EventBuilder::with_clock(&events.source, move || {
            let now = shared.store.now();
            now.is_set()
                .then(|| Time::from_millis(now.reading.wall_millis))
        });
        match &events.version {
            Some(version) => builder.version(version),
            None => builder,
        }
    }

    /// Sends an event as [`send`](Self::send) sends a message: to the topic that it names, else to that
    /// of its type, else to the default topic.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`SendError::Event`]: it cannot be written.
    pub fn send_event(&self, event: &Event) -> Result<Receipt<'_>, SendError> {
        let (written, routes) = (self.written(event)?, self.routes());
        self.send(&written.message(&routes, &written.headers()))
    }

    /// As [`send_event`](Self::send_event), and never waits: see [`try_send`](Self::try_send).
    ///
    /// # Errors
    ///
    /// As [`send_event`](Self::send_event), and [`SendError::Full`] where that would wait.
    pub fn try_send_event(&self, event: &Event) -> Result<Receipt<'_>, SendError> {
        let (written, routes) = (self.written(event)?, self.routes());
        self.try_send(&written.message(&routes, &written.headers()))
    }

    /// As [`send_event`](Self::send_event) for tasks: see [`send_async`](Self::send_async).
    ///
    /// # Errors
    ///
    /// As [`send_event`](Self::send_event).
    pub async fn send_event_async(&self, event: &Event) -> Result<Receipt<'_>, SendError> {
        let (written, routes) = (self.written(event)?, self.routes());
        let headers = written.headers();
        self.send_async(&written.message(&routes, &headers)).await
    }

    /// Sends events of which a crash leaves all or none; their topics must be of one lane.
    ///
    /// # Errors
    ///
    /// As [`send_event`](Self::send_event), and [`SendError::SeveralLanes`]; one event that is refused
    /// refuses all of them.
    pub fn send_events(&self, events: &[Event]) -> Result<Receipt<'_>, SendError> {
        let (written, routes) = (self.all_written(events)?, self.routes());
        let headers: Vec<Vec<Header<'_>>> = written.iter().map(Written::headers).collect();
        self.send_batch(&Written::messages(&written, &routes, &headers))
    }

    /// As [`send_events`](Self::send_events) for tasks: see [`send_batch_async`](Self::send_batch_async).
    ///
    /// # Errors
    ///
    /// As [`send_events`](Self::send_events).
    pub async fn send_events_async(&self, events: &[Event]) -> Result<Receipt<'_>, SendError> {
        let (written, routes) = (self.all_written(events)?, self.routes());
        let headers: Vec<Vec<Header<'_>>> = written.iter().map(Written::headers).collect();
        let messages = Written::messages(&written, &routes, &headers);
        self.send_batch_async(&messages).await
    }

    fn all_written<'e>(&self, events: &'e [Event]) -> Result<Vec<Written<'e>>, SendError> {
        events.iter().map(|event| self.written(event)).collect()
    }

    /// The routes of its events.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.shared().events.routes.read())
    }

    /// Replaces the routes of its events, for all clones, from the next event on.
    pub fn set_routes(&self, routes: Routes) {
        *self.shared().events.routes.write() = Arc::new(routes);
    }

    /// Routes events of these types to a topic from now on: [`Routes::set`].
    ///
    /// # Errors
    ///
    /// [`event::Error::Route`]: nothing was changed.
    pub fn set_route(&self, pattern: &str, topic: &str) -> Result<(), event::Error> {
        // Two who change them at once see each other's change.
        let mut routes = self.shared().events.routes.write();
        Arc::make_mut(&mut routes).set(pattern, topic)
    }

    fn written<'a>(&self, event: &'a Event) -> Result<Written<'a>, SendError> {
        let encoded = event.encode(self.shared().events.format)?;
        Ok(Written { event, encoded })
    }
}
