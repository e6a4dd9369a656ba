//! What a record is before and after the log: a message for one Kafka topic.
//!
//! Owns the two shapes of a message, the borrowed one that is appended ([`MessageRef`]) and the
//! one that is read back ([`Message`], slices of the log's read buffer), their limits, and their
//! bytes ([`codec`]); the names of headers ([`header`]), and patterns of names.
//!
//! It must not know the log that keeps the bytes, the client that sends them, or where an interned
//! topic name is kept: names are resolved by a function that the caller passes in.
//!
//! Invariants: a message that passes [`MessageRef::check`] can be sent by any Kafka client, and
//! what is decoded equals what was encoded, but for a missing timestamp, which becomes the time of
//! the append.

pub mod codec;
pub mod header;
pub(crate) mod pattern;

use std::{error, fmt, sync::Arc};

use bytes::Bytes;

/// Longest topic name, in bytes: Kafka's own limit.
pub const TOPIC_LEN_MAX: usize = 249;
/// Longest key, in bytes. A key chooses a partition; one that is larger is a value in disguise.
pub const KEY_LEN_MAX: usize = 64 * 1024;
/// Most bytes that the headers of one message may take in the log, lengths included. This bounds
/// their number too: a header takes two bytes at least.
pub const HEADERS_LEN_MAX: usize = 64 * 1024;

/// Largest number of milliseconds in an [`Expires`], which shares 63 bits with a flag, or a [`Due`].
const MILLIS_MAX: u64 = (1 << 62) - 1;

/// One header of a message. Kafka allows the same name twice and a value that is null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// Its name, which may be empty.
    pub name: &'a str,
    /// Its value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

/// A message as it is appended. It borrows everything, so that appending copies each byte once.
///
/// ```
/// use ferrylog::message::MessageRef;
///
/// let reading = MessageRef { key: Some(b"site-17"), value: Some(b"21.4"), ..MessageRef::to("temps") };
/// assert!(reading.check().is_ok());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageRef<'a> {
    /// The topic it goes to.
    pub topic: &'a str,
    /// The lane that keeps it, such as a priority, as the options name it; `None`, or one that they do not
    /// have: the one that claims its topic. Consumers do not see it.
    pub lane: Option<&'a str>,
    /// The partition it must go to; `None` leaves that to the key.
    pub partition: Option<i32>,
    /// The key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since 1970; `None` is the time of the append.
    pub timestamp_millis: Option<i64>,
    /// When it is not worth sending any more; `None` leaves that to the lane.
    pub expires: Option<Expires>,
    /// When it is to be appended to its lane; `None`: at once. Its lane never sees it earlier: it waits
    /// in the store's schedule log.
    pub due: Option<Due>,
    /// When it was appended, told without a wall clock. A lane fills it in while its wall clock
    /// cannot be trusted; otherwise it costs nothing.
    pub uptime: Option<Uptime>,
    /// The value; `None` is Kafka's null, a tombstone.
    pub value: Option<&'a [u8]>,
}

/// When a message is not worth sending any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Expires {
    /// So many milliseconds after its append, below 2^62.
    After(u64),
    /// At this time, in milliseconds since 1970, 0 to 2^62 - 1.
    At(i64),
}

/// When a message is to be appended to its lane. What its timestamp and expiry leave open counts from
/// then on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Due {
    /// So many milliseconds after it was accepted, below 2^62; no wall clock is needed for that within
    /// a boot of the machine.
    After(u64),
    /// At this time, in milliseconds since 1970, 0 to 2^62 - 1. While the wall clock cannot be trusted
    /// it waits.
    At(i64),
}

/// A moment told by how long the machine has been up, time asleep included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uptime {
    /// Names the boot: a random number that the machine draws at each.
    pub boot: u64,
    /// Milliseconds since that boot.
    pub millis: u64,
}

impl<'a> MessageRef<'a> {
    /// A message to `topic` with every other part empty.
    #[must_use]
    pub const fn to(topic: &'a str) -> Self {
        Self {
            topic,
            lane: None,
            partition: None,
            key: None,
            headers: &[],
            timestamp_millis: None,
            expires: None,
            due: None,
            uptime: None,
            value: None,
        }
    }

    /// Checks everything that Kafka or the log would refuse whatever happens later, but for the
    /// length of the whole, which is the log's to judge.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the first part that is wrong. The message can never be accepted as it is.
    pub fn check(&self) -> Result<(), Invalid> {
        check_topic(self.topic)?;
        self.check_all_but_topic()
    }

    pub(crate) fn check_all_but_topic(&self) -> Result<(), Invalid> {
        if let Some(partition) = self.partition.filter(|partition| *partition < 0) {
            return Err(Invalid::Partition { partition });
        }
        if let Some(millis) = self.timestamp_millis.filter(|millis| *millis < 0) {
            return Err(Invalid::Timestamp { millis });
        }
        match self.expires {
            Some(Expires::After(millis)) if millis > MILLIS_MAX => {
                return Err(Invalid::Expires);
            }
            Some(Expires::At(millis)) if !(0..=MILLIS_MAX.cast_signed()).contains(&millis) => {
                return Err(Invalid::Expires);
            }
            Some(Expires::After(_) | Expires::At(_)) | None => {}
        }
        match self.due {
            Some(Due::After(millis)) if millis > MILLIS_MAX => return Err(Invalid::Due),
            Some(Due::At(millis)) if !(0..=MILLIS_MAX.cast_signed()).contains(&millis) => {
                return Err(Invalid::Due);
            }
            Some(Due::After(_) | Due::At(_)) | None => {}
        }
        let key_len = self.key.map_or(0, <[u8]>::len);
        if key_len > KEY_LEN_MAX {
            return Err(Invalid::Key { len: key_len });
        }
        let headers_len = codec::header_block_len(self.headers);
        if headers_len > HEADERS_LEN_MAX {
            return Err(Invalid::Headers { len: headers_len });
        }
        Ok(())
    }
}

/// Checks a topic name against Kafka's rule: 1 to 249 of `a-z A-Z 0-9 . _ -`, neither `.` nor `..`.
///
/// # Errors
///
/// [`Invalid::Topic`] with the name and what is wrong with it.
pub fn check_topic(topic: &str) -> Result<(), Invalid> {
    let reason = if topic.is_empty() {
        "it is empty"
    } else if topic.len() > TOPIC_LEN_MAX {
        "it is longer than 249 bytes"
    } else if topic == "." || topic == ".." {
        "'.' and '..' are reserved"
    } else if !topic.bytes().all(is_topic_byte) {
        "only a-z, A-Z, 0-9, '.', '_' and '-' are allowed"
    } else {
        return Ok(());
    };
    Err(Invalid::Topic {
        topic: topic.chars().take(TOPIC_LEN_MAX).collect(),
        reason,
    })
}

const fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// A message as it is read: its parts are slices of the log's read buffer, its topic is shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The topic it goes to.
    pub topic: Arc<str>,
    /// The partition it must go to; `None` leaves that to the key.
    pub partition: Option<i32>,
    /// The key; `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// Milliseconds since 1970: as given, else the time of the append.
    pub timestamp_millis: i64,
    /// Whether the timestamp was given by whoever appended the message; then nobody corrects it.
    pub timestamp_given: bool,
    /// When it is not worth sending any more; `None` leaves that to the lane.
    pub expires: Option<Expires>,
    /// When it was appended, if the wall clock could not be trusted then.
    pub uptime: Option<Uptime>,
    /// The number by which the schedule log knew it, if it waited there until it was due.
    pub scheduled: Option<u64>,
    /// The value; `None` is Kafka's null, a tombstone.
    pub value: Option<Bytes>,
    /// The headers as they lie in the log. Only [`codec::decode`] makes them, after a check of
    /// every one: so reading them again cannot fail.
    headers: codec::HeaderBlock,
}

impl Message {
    /// The headers, in order.
    #[must_use]
    pub fn headers(&self) -> codec::Headers<'_> {
        self.headers.iter()
    }

    /// Hands it on in the shape that can be appended again.
    pub fn with_ref<T>(&self, use_it: impl FnOnce(&MessageRef<'_>) -> T) -> T {
        let headers: Vec<Header<'_>> = self.headers().collect();
        use_it(&MessageRef {
            // A clock before 1970 is no time that Kafka takes.
            timestamp_millis: Some(self.timestamp_millis.max(0)),
            ..self.as_given(&headers)
        })
    }

    /// As it was given, with what was left open still open; `headers` are its own.
    pub(crate) fn as_given<'a>(&'a self, headers: &'a [Header<'a>]) -> MessageRef<'a> {
        MessageRef {
            topic: &self.topic,
            lane: None,
            partition: self.partition,
            key: self.key.as_deref(),
            headers,
            timestamp_millis: self.timestamp_given.then_some(self.timestamp_millis),
            expires: self.expires,
            due: None,
            uptime: self.uptime,
            value: self.value.as_deref(),
        }
    }
}

/// Why a message can never be accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Invalid {
    /// The topic name breaks Kafka's rule.
    Topic {
        /// The name, cut to 249 characters.
        topic: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A partition is 0 or more.
    Partition {
        /// The one given.
        partition: i32,
    },
    /// A timestamp is 0 or more.
    Timestamp {
        /// The one given, in milliseconds.
        millis: i64,
    },
    /// The deadline or the time to live is negative, or beyond 2^62 - 1 milliseconds.
    Expires,
    /// The time when it is due, or until then, is negative, or beyond 2^62 - 1 milliseconds.
    Due,
    /// The key is longer than [`KEY_LEN_MAX`].
    Key {
        /// Its length.
        len: usize,
    },
    /// The headers take more than [`HEADERS_LEN_MAX`].
    Headers {
        /// What they take.
        len: usize,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic { topic, reason } => write!(f, "no valid topic name: {topic:?}: {reason}"),
            Self::Partition { partition } => {
                write!(f, "no valid partition: {partition} is negative")
            }
            Self::Timestamp { millis } => {
                write!(f, "no valid timestamp: {millis} ms is negative")
            }
            Self::Expires => write!(f, "no valid expiry: use 0 to 2^62 - 1 milliseconds"),
            Self::Due => write!(f, "no valid due time: use 0 to 2^62 - 1 milliseconds"),
            Self::Key { len } => write!(
                f,
                "the key is {len} bytes long, {KEY_LEN_MAX} are the limit"
            ),
            Self::Headers { len } => {
                write!(
                    f,
                    "the headers take {len} bytes, {HEADERS_LEN_MAX} are the limit"
                )
            }
        }
    }
}

impl error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rule() {
        for good in ["a", "temps", "A.b_c-9", "...", &"x".repeat(249)] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "tëmps",
            "a\0",
            &"x".repeat(250),
        ] {
            assert!(check_topic(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_kafka_or_the_log_would_refuse_is_refused_at_once() {
        let good = MessageRef::to("t");
        assert_eq!(good.check(), Ok(()));

        let long = vec![0; KEY_LEN_MAX + 1];
        let key = MessageRef {
            key: Some(&long),
            ..good
        };
        assert_eq!(
            key.check(),
            Err(Invalid::Key {
                len: KEY_LEN_MAX + 1
            })
        );
        let key = MessageRef {
            key: Some(&long[1..]),
            ..good
        };
        assert_eq!(key.check(), Ok(()));

        let header = [Header {
            name: "n",
            value: Some(&long),
        }];
        let headers = MessageRef {
            headers: &header,
            ..good
        };
        assert!(matches!(headers.check(), Err(Invalid::Headers { .. })));

        let partition = MessageRef {
            partition: Some(-1),
            ..good
        };
        assert_eq!(partition.check(), Err(Invalid::Partition { partition: -1 }));
        for (expires, is_good) in [
            (Expires::After(0), true),
            (Expires::After(u64::MAX >> 2), true),
            (Expires::After(1 << 62), false),
            (Expires::At(i64::MAX >> 1), true),
            (Expires::At(1 << 62), false),
            (Expires::At(-1), false),
        ] {
            let expiring = MessageRef {
                expires: Some(expires),
                ..good
            };
            assert_eq!(expiring.check().is_ok(), is_good, "{expires:?}");
        }
        for (due, is_good) in [
            (Due::After(0), true),
            (Due::After(u64::MAX >> 2), true),
            (Due::After(1 << 62), false),
            (Due::At(i64::MAX >> 1), true),
            (Due::At(1 << 62), false),
            (Due::At(-1), false),
        ] {
            let due = MessageRef {
                due: Some(due),
                ..good
            };
            assert_eq!(due.check().is_ok(), is_good, "{:?}", due.due);
        }
        let timestamp = MessageRef {
            timestamp_millis: Some(-1),
            ..good
        };
        assert_eq!(timestamp.check(), Err(Invalid::Timestamp { millis: -1 }));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let topic = check_topic("a b").unwrap_err().to_string();
        assert!(
            topic.contains("\"a b\"") && topic.contains("only a-z"),
            "{topic}"
        );
        let key = Invalid::Key { len: 70_000 }.to_string();
        assert!(key.contains("70000") && key.contains("65536"), "{key}");
    }
}
