//! The numbers of topics by their names, as an append finds them.
//!
//! Owns: a look-up without a lock for the first names of a log. Must not know where numbers come from.
//!
//! Invariants: what was inserted is found, under the number it was first inserted with. It grows with
//! the names inserted, and by nothing else.

use std::{collections::HashMap, sync::OnceLock};

use parking_lot::RwLock;

/// A log has few topics: this many places seldom give two of them the same.
const SLOTS: usize = 256;

type Slot = OnceLock<Known>;

#[derive(Debug)]
struct Known {
    name: Box<str>,
    ends: Ends,
    number: u32,
}

/// Names and numbers. Nothing is ever taken out.
#[derive(Debug)]
pub(super) struct Names {
    /// By a number made of the name; who comes second to a slot goes to the others.
    slots: Box<[Slot; SLOTS]>,
    others: RwLock<HashMap<Box<str>, u32>>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            slots: Box::new([const { Slot::new() }; SLOTS]),
            others: RwLock::default(),
        }
    }
}

impl Names {
    #[inline]
    pub(super) fn get(&self, name: &str) -> Option<u32> {
        let ends = Ends::of(name);
        let known = self.slots[ends.slot()].get()?;
        if known.ends == ends && (ends.are_all() || *known.name == *name) {
            return Some(known.number);
        }
        self.others.read().get(name).copied()
    }

    pub(super) fn insert(&self, name: &str, number: u32) {
        let ends = Ends::of(name);
        let known = self.slots[ends.slot()].get_or_init(|| Known {
            name: name.into(),
            ends,
            number,
        });
        if *known.name != *name {
            self.others.write().entry(name.into()).or_insert(number);
        }
    }
}

/// The ends of a name and its length: as fast for a long one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ends {
    first: u64,
    last: u64,
    len: usize,
}

impl Ends {
    #[inline]
    fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let end = |part: Option<&[u8; 8]>| match part {
            Some(part) => u64::from_le_bytes(*part),
            None => bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        Self {
            first: end(bytes.first_chunk()),
            last: end(bytes.last_chunk()),
            len: bytes.len(),
        }
    }

    /// Whether they are the whole name: then those of another one differ.
    #[inline]
    fn are_all(self) -> bool {
        self.len <= 16
    }

    #[inline]
    fn slot(self) -> usize {
        let mixed = self.first ^ self.last.rotate_left(23) ^ self.len as u64;
        // The upper bits of the product depend on all of them.
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % SLOTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_number_whether_or_not_it_has_a_slot_of_its_own() {
        let names = Names::default();
        let all: Vec<String> = (0..1_000).map(|n| format!("topic-{n}")).collect();
        for (number, name) in (0..).zip(&all) {
            assert_eq!(names.get(name), None, "{name}");
            names.insert(name, number);
            names.insert(name, number + 1);
            assert_eq!(names.get(name), Some(number), "{name}");
        }
        for (number, name) in (0..).zip(&all) {
            assert_eq!(names.get(name), Some(number), "{name}");
        }
        assert!(!names.others.read().is_empty(), "no two shared a slot");
    }

    #[test]
    fn names_that_differ_in_one_byte_are_two_however_long_they_are() {
        for len in 0..40 {
            let name = "a".repeat(len);
            let names = Names::default();
            names.insert(&name, 1);
            for at in 0..len {
                let other = format!("{}b{}", &name[..at], &name[at + 1..]);
                assert_eq!(names.get(&other), None, "{other}");
            }
            assert_eq!(names.get(&format!("{name}a")), None);
            assert_eq!(names.get(&name), Some(1));
        }
    }
}
