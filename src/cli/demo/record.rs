//! The readings of the demonstration. Record `n` is the same wherever it is made: the process that
//! appends it, the one that goes on after the kill, and the check of what Kafka has.

use std::fmt::Write;

use crate::message::MessageRef;

/// Readings go to these in turn.
pub(super) const TOPICS: [&str; 4] = ["temps", "doors", "power", "alarms"];
/// Keys that each topic has.
const SITES: u64 = 1_000;
/// More than a reading takes in a batch, with key, `ferry-id` and framing, before compression.
pub(super) const LEN_MAX: u64 = 128;

/// One reading; made over and over in the same memory.
#[derive(Debug, Default)]
pub(super) struct Reading {
    topic: &'static str,
    key: String,
    value: String,
}

impl Reading {
    /// Becomes record `number`.
    pub(super) fn make(&mut self, number: u64) -> MessageRef<'_> {
        let turn = number % TOPICS.len() as u64;
        self.topic = TOPICS[usize::try_from(turn).unwrap_or(0)];
        let site = number / TOPICS.len() as u64 % SITES;
        let tenths = number * 7_919 % 400;
        self.key.clear();
        self.value.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.key, "site-{site}");
        let _ = write!(
            self.value,
            "{{\"n\":{number},\"celsius\":{}.{}}}",
            tenths / 10,
            tenths % 10
        );
        MessageRef {
            key: Some(self.key.as_bytes()),
            value: Some(self.value.as_bytes()),
            ..MessageRef::to(self.topic)
        }
    }
}

/// The number of the reading that has this value.
pub(super) fn number_of(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).ok()?;
    let (number, _) = text.strip_prefix("{\"n\":")?.split_once(',')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_tells_its_number() {
        let mut reading = Reading::default();
        for number in [0, 1, 4_001, u64::from(u32::MAX)] {
            let message = reading.make(number);
            assert_eq!(message.check(), Ok(()));
            assert_eq!(number_of(message.value.unwrap()), Some(number));
        }
        assert_eq!(number_of(b"{\"n\":"), None);
        assert_eq!(number_of(b"\xff"), None);
    }
}
