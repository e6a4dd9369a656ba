//! Types with few values, and the words for them.
//!
//! Pure. Must not know which key has which type. Invariant: each value has one word, and reads back by it.

use std::mem;

use serde_json::Value as Json;

use super::convert::Preset;
use super::value::{Delivery, Kind, Raw, Value};
use crate::event::EventFormat;
use crate::kafka::Require;
use crate::ship::dead_letter::DeadLetterStyle;
use crate::ship::exactly_once::ProgressIn;
use crate::ship::{OnBadTimestamp, OnExhausted, OnPoison, OnTooSlow, Profile};
use crate::store::{OnLettersFull, Order};
use crate::wal::{Compression, Durability, OnCorruption, OnFull};

/// A type with few values, and the words for them.
macro_rules! words {
    ($type:ty { $($word:literal = $value:expr),+ $(,)? }) => {
        impl Value for $type {
            const KIND: Kind = Kind::Words(&[$($word),+]);

            fn read(raw: &Raw) -> Option<Self> {
                match raw.text()? {
                    $($word => Some($value),)+
                    _ => None,
                }
            }

            fn shown(&self) -> Json {
                let mut all = [$(($word, $value)),+].into_iter();
                let found = all.find(|(_, value)| mem::discriminant(value) == mem::discriminant(self));
                found.map_or(Json::Null, |(word, _)| word.into())
            }
        }
    };
}

words!(Durability { "disk" = Self::Disk, "os" = Self::Os, "memory" = Self::Memory });
words!(OnFull {
    "block" = Self::Block,
    "reject" = Self::Reject,
    "drop_oldest" = Self::DropOldest,
    "drop_newest" = Self::DropNewest,
});
words!(OnCorruption { "quarantine" = Self::Quarantine, "refuse" = Self::Refuse });
// More than level 3 costs an edge processor more than it saves.
words!(Compression {
    "none" = Self::None,
    "lz4" = Self::Lz4,
    "zstd" = Self::Zstd { level: 3 },
});
words!(Preset { "none" = Self::None, "priorities" = Self::Priorities });
words!(Delivery { "idempotent" = Self::Idempotent, "exactly_once" = Self::ExactlyOnce });
words!(ProgressIn { "topic" = Self::Topic, "offsets" = Self::Offsets });
words!(Require { "any" = Self::Any, "all" = Self::All });
words!(Profile { "normal" = Self::Normal, "metered" = Self::Metered });
words!(OnTooSlow { "hold" = Self::Hold, "dead_letter" = Self::DeadLetter });
words!(OnBadTimestamp { "restamp" = Self::Restamp, "dead_letter" = Self::DeadLetter });
words!(OnExhausted {
    "dead_letter" = Self::DeadLetter,
    "halt" = Self::Halt,
    "drop" = Self::Drop,
});
words!(OnPoison { "dead_letter" = Self::DeadLetter, "halt" = Self::Halt });
words!(DeadLetterStyle {
    "native" = Self::Native,
    "connect" = Self::Connect,
    "envelope" = Self::Envelope,
});
words!(OnLettersFull { "hold" = Self::Hold, "drop_oldest" = Self::DropOldest });
words!(Order {
    "fifo" = Self::Fifo,
    "loose" = Self::Loose,
    "live_first" = Self::LiveFirst,
});
words!(EventFormat {
    "json" = Self::Json,
    "wrapped" = Self::Wrapped,
    "cloudevents_binary" = Self::CloudEventsBinary,
    "cloudevents_structured" = Self::CloudEventsStructured,
});

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[test]
    fn every_word_reads_back_as_its_value() {
        fn words<T: Value + fmt::Debug>() {
            let Kind::Words(words) = T::KIND else {
                panic!()
            };
            for word in words {
                let value = T::read(&Raw::Text((*word).to_owned())).unwrap();
                assert_eq!(value.shown(), *word);
            }
            assert!(T::read(&Raw::Text("no such word".into())).is_none());
        }
        words::<Durability>();
        words::<OnFull>();
        words::<OnCorruption>();
        words::<Compression>();
        words::<Delivery>();
        words::<ProgressIn>();
        words::<Require>();
        words::<Profile>();
        words::<OnBadTimestamp>();
        words::<OnTooSlow>();
        words::<OnExhausted>();
        words::<OnPoison>();
        words::<DeadLetterStyle>();
        words::<OnLettersFull>();
        words::<Order>();
        words::<EventFormat>();
    }
}
