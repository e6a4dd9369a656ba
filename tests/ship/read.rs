//! Reading back what arrived in a topic of one partition.

use std::time::{Duration, Instant};

use ferrylog::kafka::{Consumer, MockKafka, Settings};
use ferrylog::message::header::{self, ce};

use crate::producer::DEADLINE;

const HEADERS: [&str; 13] = [
    header::ID,
    header::CONTENT_TYPE,
    header::CORRELATION_ID,
    header::IDEMPOTENCY_KEY,
    header::TRACEPARENT,
    ce::SPEC_VERSION,
    ce::ID,
    ce::SOURCE,
    ce::TYPE,
    ce::TIME,
    ce::CORRELATION_ID,
    ce::VERSION,
    "site",
];

/// A record as a consumer sees it.
pub(crate) struct Record {
    pub(crate) key: Option<String>,
    pub(crate) value: String,
    /// Those of `HEADERS` that it has.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Record {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| *given == name);
        found.map(|(_, value)| &**value)
    }
}

/// All records of a topic, in order.
pub(crate) fn records(mock: &MockKafka, topic: &str) -> Vec<Record> {
    let settings = Settings::new(mock.bootstrap_servers());
    let mut consumer = Consumer::new(&settings).unwrap();
    let count = consumer.end(topic, 0, DEADLINE).unwrap();
    consumer.assign(&[(topic, 1)]).unwrap();
    let mut records = Vec::new();
    let text = |bytes: &[u8]| str::from_utf8(bytes).unwrap().to_owned();
    let deadline = Instant::now() + DEADLINE;
    while records.len() < usize::try_from(count).unwrap() {
        assert!(Instant::now() < deadline, "{} of {count}", records.len());
        consumer
            .poll(Duration::from_millis(100), &mut |record| {
                let given = |name: &&'static str| Some((*name, record.header(name)?.to_owned()));
                records.push(Record {
                    key: record.key().map(text),
                    value: text(record.value().unwrap()),
                    headers: HEADERS.iter().filter_map(given).collect(),
                });
            })
            .unwrap();
    }
    records
}
