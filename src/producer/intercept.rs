//! Interceptors: what may change a message, or refuse it, before it is appended.
//!
//! Owns the shape in which they see it, their order, and what a panic of one comes to. Must not know
//! what is done with the message afterwards.
//!
//! Invariant: what one refuses, or panics over, leaves nothing behind: not in the store, and no lock
//! held.

use std::borrow::Cow;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::SendError;
use crate::message::{Due, Expires, Header, MessageRef, Uptime};
use crate::ship::restart::said;

/// A header's name and value; `None` is Kafka's null.
pub type DraftHeader<'a> = (Cow<'a, str>, Option<Cow<'a, [u8]>>);

/// A message before it is appended, for an interceptor to look at and to change. What is not changed
/// is not copied.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Draft<'a> {
    /// The topic it goes to; the default topic, if the message names none.
    pub topic: Cow<'a, str>,
    /// The lane that keeps it; `None`, or one that the options do not have: the one that claims its topic.
    pub lane: Option<Cow<'a, str>>,
    /// The partition it must go to; `None` leaves that to the key.
    pub partition: Option<i32>,
    /// The key; `None` is Kafka's null.
    pub key: Option<Cow<'a, [u8]>>,
    /// Headers, in order.
    pub headers: Vec<DraftHeader<'a>>,
    /// Milliseconds since 1970; `None` is the time of the append.
    pub timestamp_millis: Option<i64>,
    /// When it is not worth sending any more; `None` leaves that to the lane.
    pub expires: Option<Expires>,
    /// When it is to be appended to its lane; `None`: at once.
    pub due: Option<Due>,
    /// The value; `None` is Kafka's null, a tombstone.
    pub value: Option<Cow<'a, [u8]>>,
    uptime: Option<Uptime>,
}

impl<'a> Draft<'a> {
    fn new(message: &MessageRef<'a>) -> Self {
        let headers = message.headers.iter();
        Self {
            topic: message.topic.into(),
            lane: message.lane.map(Cow::Borrowed),
            partition: message.partition,
            key: message.key.map(Cow::Borrowed),
            headers: headers
                .map(|header| (header.name.into(), header.value.map(Cow::Borrowed)))
                .collect(),
            timestamp_millis: message.timestamp_millis,
            expires: message.expires,
            due: message.due,
            value: message.value.map(Cow::Borrowed),
            uptime: message.uptime,
        }
    }

    /// The value of the first header of this name, if there is one that is not null.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.headers.iter().find(|(given, _)| given == name)?;
        value.as_deref()
    }

    /// Adds a header behind the others.
    pub fn add_header(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Vec<u8>>) {
        let value = Cow::Owned(value.into());
        self.headers.push((name.into(), Some(value)));
    }

    pub(super) fn headers(&self) -> Vec<Header<'_>> {
        let headers = self.headers.iter();
        headers
            .map(|(name, value)| Header {
                name,
                value: value.as_deref(),
            })
            .collect()
    }

    /// The message, with its [`headers`](Self::headers).
    pub(super) fn message<'b>(&'b self, headers: &'b [Header<'b>]) -> MessageRef<'b> {
        MessageRef {
            topic: &self.topic,
            lane: self.lane.as_deref(),
            partition: self.partition,
            key: self.key.as_deref(),
            headers,
            timestamp_millis: self.timestamp_millis,
            expires: self.expires,
            due: self.due,
            uptime: self.uptime,
            value: self.value.as_deref(),
        }
    }
}

type Interceptor = dyn Fn(&mut Draft<'_>) -> Result<(), String> + Send + Sync;

/// All of a producer, in the order in which they are asked.
#[derive(Clone, Default)]
pub(super) struct Interceptors(Vec<Arc<Interceptor>>);

impl Interceptors {
    pub(super) fn push(
        &mut self,
        interceptor: impl Fn(&mut Draft<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.0.push(Arc::new(interceptor));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What becomes of a message: each sees what the ones before it left, and the first refusal ends it.
    pub(super) fn run<'a>(&self, message: &MessageRef<'a>) -> Result<Draft<'a>, SendError> {
        let mut draft = Draft::new(message);
        for interceptor in &self.0 {
            // A draft that a panic left half changed goes no further.
            panic::catch_unwind(AssertUnwindSafe(|| interceptor(&mut draft)))
                .unwrap_or_else(|panic| Err(format!("an interceptor panicked: {}", said(&*panic))))
                .map_err(|reason| SendError::Refused { reason })?;
        }
        Ok(draft)
    }
}

impl fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interceptors", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [Header<'_>; 2] = [
        Header {
            name: "unit",
            value: Some(b"C"),
        },
        Header {
            name: "null",
            value: None,
        },
    ];

    fn message() -> MessageRef<'static> {
        MessageRef {
            lane: Some("high"),
            partition: Some(3),
            key: Some(b"k"),
            headers: &HEADERS,
            timestamp_millis: Some(1),
            expires: Some(Expires::After(5)),
            due: Some(Due::At(9)),
            uptime: Some(Uptime { boot: 1, millis: 2 }),
            value: Some(b"v"),
            ..MessageRef::to("t")
        }
    }

    #[test]
    fn what_nobody_changes_comes_out_as_it_went_in_and_is_not_copied() {
        let mut interceptors = Interceptors::default();
        interceptors.push(|draft| {
            assert_eq!(draft.header("unit"), Some(&b"C"[..]));
            assert_eq!((draft.header("null"), draft.header("none")), (None, None));
            Ok(())
        });
        let draft = interceptors.run(&message()).unwrap();
        assert_eq!(draft.message(&draft.headers()), message());
        assert!(matches!(
            (&draft.topic, &draft.value),
            (Cow::Borrowed(_), Some(Cow::Borrowed(_)))
        ));
    }

    #[test]
    fn each_sees_what_the_ones_before_it_left_and_the_first_refusal_ends_it() {
        let mut interceptors = Interceptors::default();
        interceptors.push(|draft| {
            draft.add_header("site", "17");
            Ok(())
        });
        interceptors.push(|draft| {
            let site = draft.header("site").map(<[u8]>::to_vec);
            draft.value = site.map(Into::into);
            Ok(())
        });
        let draft = interceptors.run(&message()).unwrap();
        assert_eq!(draft.headers.len(), 3);
        assert_eq!(draft.value.as_deref(), Some(&b"17"[..]));
        interceptors.push(|_| Err("no".into()));
        interceptors.push(|_| panic!("never asked"));
        let refused = interceptors.run(&message()).unwrap_err();
        assert!(matches!(refused, SendError::Refused { reason } if reason == "no"));
    }

    #[test]
    fn a_panic_is_a_refusal_with_its_words() {
        let mut interceptors = Interceptors::default();
        interceptors.push(|_| panic!("what is {}", 1 / 3));
        let refused = interceptors.run(&message()).unwrap_err().to_string();
        assert!(refused.contains("panicked: what is 0"), "{refused}");
    }
}
