//! Compares what Kafka has with what was appended. Pure: records in, verdict out.
//!
//! Invariants of a good outcome: every reading is there, its bytes and its identity are those that
//! were appended, and in each partition the first copies stand in the order in which they were
//! appended. Further copies are counted; they carry the identity of the first.

use std::collections::HashMap;

use super::record::{Reading, TOPICS, number_of};
use crate::wal::{LogId, SeqNo};

/// A record as Kafka has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// The header `ferry-id`.
    pub(super) id: Option<&'a str>,
}

/// The numbers of the readings in the log: dense up to the kill, and again behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) log_id: LogId,
    /// Readings that survived the kill; their numbers in the log are those of the readings.
    pub(super) survived: u64,
    /// The number in the log of the first reading behind it.
    pub(super) resumed: SeqNo,
}

impl Numbers {
    fn id(&self, number: u64) -> String {
        let seq = match number.checked_sub(self.survived) {
            None => SeqNo::new(number),
            Some(later) => self.resumed + later,
        };
        format!("{}-{seq}", self.log_id)
    }
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Check {
    numbers: Numbers,
    seen: Vec<bool>,
    /// The newest first copy of each partition.
    newest: HashMap<(Option<usize>, i32), u64>,
    expected: Reading,
    pub(super) distinct: u64,
    pub(super) copies: u64,
    /// The first thing that is wrong, and how many are.
    pub(super) wrong: Option<String>,
    pub(super) wrong_count: u64,
}

impl Check {
    pub(super) fn new(records: u64, numbers: Numbers) -> Self {
        Self {
            numbers,
            seen: vec![false; usize::try_from(records).unwrap_or(0)],
            newest: HashMap::new(),
            expected: Reading::default(),
            distinct: 0,
            copies: 0,
            wrong: None,
            wrong_count: 0,
        }
    }

    /// Takes one record, in the order of its partition.
    pub(super) fn record(&mut self, found: &Found<'_>) {
        if let Err(wrong) = self.judge(found) {
            self.wrong_count += 1;
            self.wrong.get_or_insert(wrong);
        }
    }

    fn judge(&mut self, found: &Found<'_>) -> Result<(), String> {
        let Found {
            topic, partition, ..
        } = *found;
        let place = || format!("topic {topic}, partition {partition}");
        let number = found.value.and_then(number_of);
        let slot = number.and_then(|number| usize::try_from(number).ok());
        let (Some(number), Some(seen)) = (number, slot.and_then(|slot| self.seen.get_mut(slot)))
        else {
            return Err(format!("{}: a record that was never appended", place()));
        };
        let expected = self.expected.make(number);
        if (expected.topic, expected.key, expected.value) != (topic, found.key, found.value) {
            return Err(format!(
                "{}: reading {number} is not what was appended",
                place()
            ));
        }
        let id = self.numbers.id(number);
        if found.id != Some(&id) {
            return Err(format!(
                "{}: reading {number} should be {id}, and is {:?}",
                place(),
                found.id
            ));
        }
        if std::mem::replace(seen, true) {
            self.copies += 1;
            return Ok(());
        }
        self.distinct += 1;
        // The topic is one of ours: it was compared above.
        let topic = TOPICS.iter().position(|ours| *ours == topic);
        let newest = self.newest.entry((topic, partition)).or_insert(number);
        if *newest > number {
            return Err(format!(
                "{}: reading {number} came behind {newest}",
                place()
            ));
        }
        *newest = number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Numbers = Numbers {
        log_id: LogId::new([0xab; 16]),
        survived: 6,
        resumed: SeqNo::new(1_000),
    };

    /// A check that was given these readings, all of one partition per topic.
    fn checked(readings: &[u64]) -> Check {
        let mut check = Check::new(12, NUMBERS);
        let mut reading = Reading::default();
        for &number in readings {
            let id = NUMBERS.id(number);
            let message = reading.make(number);
            check.record(&Found {
                topic: message.topic,
                partition: 0,
                key: message.key,
                value: message.value,
                id: Some(&id),
            });
        }
        check
    }

    #[test]
    fn all_in_order_is_right() {
        let check = checked(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(
            (check.distinct, check.copies, check.wrong_count),
            (12, 0, 0)
        );
    }

    #[test]
    fn the_numbers_go_on_behind_the_kill() {
        let log = "ab".repeat(16);
        assert_eq!(NUMBERS.id(5), format!("{log}-5"));
        assert_eq!(NUMBERS.id(6), format!("{log}-1000"));
    }

    #[test]
    fn a_copy_is_counted_and_one_missing_is_missed() {
        let check = checked(&[0, 4, 0, 4, 8]);
        assert_eq!((check.distinct, check.copies, check.wrong_count), (3, 2, 0));
    }

    #[test]
    fn a_first_copy_out_of_order_is_wrong() {
        let check = checked(&[0, 8, 4]);
        assert_eq!(check.wrong_count, 1);
        assert!(check.wrong.unwrap().contains("reading 4 came behind 8"));
    }

    #[test]
    fn what_was_not_appended_is_wrong() {
        let mut reading = Reading::default();
        let (invented, id) = (reading.make(12), NUMBERS.id(12));
        let good = Found {
            topic: invented.topic,
            partition: 0,
            key: invented.key,
            value: invented.value,
            id: Some(&id),
        };
        let mut check = Check::new(12, NUMBERS);
        check.record(&good);
        assert!(check.wrong.unwrap().contains("never appended"));

        for changed in [
            Found {
                key: Some(b"other"),
                ..good
            },
            Found {
                topic: "other",
                ..good
            },
            Found { id: None, ..good },
            Found {
                value: Some(b"{\"n\":3,"),
                ..good
            },
            Found {
                value: None,
                ..good
            },
        ] {
            let mut check = Check::new(13, NUMBERS);
            check.record(&changed);
            assert_eq!((check.distinct, check.wrong_count), (0, 1), "{changed:?}");
        }
    }
}
