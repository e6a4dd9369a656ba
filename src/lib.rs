//! A write-ahead log for the edge that ferries itself to Kafka.

pub mod wal;
