//! What is asked before a message is appended: what it may do, and that nothing of it stays behind.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrylog::kafka::MockKafka;
use ferrylog::message::MessageRef;
use ferrylog::{Outcome, Producer, SendError};

use crate::producer::{DEADLINE, block_on, builder, with_value};
use crate::read::records;

fn refused(sent: Result<ferrylog::Receipt<'_>, SendError>) -> String {
    match sent {
        Err(SendError::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

/// A producer that adds a header, moves what is for `t` to `u`, and refuses empty values; how often it
/// was asked is counted.
fn producer(dir: &std::path::Path, mock: &MockKafka) -> (Producer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let producer = builder(&dir.join("store"), mock)
        .default_topic("t")
        .intercept(move |message| {
            counted.fetch_add(1, Ordering::SeqCst);
            message.add_header("site", "17");
            match message.value.as_deref() {
                None | Some([]) => Err("it is empty".into()),
                Some(b"panic") => panic!("what is this?"),
                Some(_) => Ok(()),
            }
        })
        .intercept(|message| {
            assert_eq!(message.header("site"), Some(&b"17"[..]), "the second");
            if message.topic == "t" {
                message.topic = "u".into();
            }
            let value = message.value.take().unwrap_or_default();
            message.value = Some(value.to_ascii_uppercase().into());
            Ok(())
        })
        .open();
    (producer.unwrap(), asked)
}

#[test]
fn an_interceptor_changes_what_is_appended_however_it_is_sent() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("u", 1).unwrap();
    mock.create_topic("v", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (producer, asked) = producer(dir.path(), &mock);
    let (unnamed, named) = (with_value("", b"a"), with_value("t", b"b"));
    let receipts = [
        producer.send(&unnamed).unwrap(),
        producer.try_send(&named).unwrap(),
        block_on(producer.send_async(&with_value("", b"c"))).unwrap(),
        producer
            .send_batch(&[unnamed, named, with_value("v", b"d")])
            .unwrap(),
        block_on(producer.send_batch_async(&[unnamed, named])).unwrap(),
    ];
    assert_eq!(asked.load(Ordering::SeqCst), 8, "once for each");
    for receipt in &receipts {
        assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    }
    let found = records(&mock, "u");
    let values: Vec<&str> = found.iter().map(|record| &*record.value).collect();
    assert_eq!(values, ["A", "B", "C", "A", "B", "A", "B"]);
    for record in found.iter().chain(&records(&mock, "v")) {
        assert_eq!((record.header("site"), &record.key), (Some("17"), &None));
    }
    assert!(producer.close(DEADLINE).unwrap().is_empty());
}

#[test]
fn what_an_interceptor_refuses_or_panics_over_is_not_appended_and_the_next_one_is() {
    let mock = MockKafka::start(1).unwrap();
    mock.create_topic("u", 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (producer, _) = producer(dir.path(), &mock);
    let (good, empty) = (with_value("t", b"a"), with_value("t", b""));
    for _ in 0..3 {
        assert_eq!(refused(producer.send(&MessageRef::to("t"))), "it is empty");
        assert_eq!(refused(producer.try_send(&empty)), "it is empty");
        let sent = block_on(producer.send_async(&empty));
        assert_eq!(refused(sent), "it is empty");
        let batch = [good, empty, good];
        assert_eq!(refused(producer.send_batch(&batch)), "it is empty");
        let sent = block_on(producer.send_batch_async(&batch));
        assert_eq!(refused(sent), "it is empty");
        let panicked = refused(producer.send(&with_value("t", b"panic")));
        assert!(panicked.contains("what is this?"), "{panicked}");
    }
    assert_eq!(producer.stats().totals.accepted, 0, "whole or not at all");
    let receipt = producer.send(&good).unwrap();
    assert_eq!(receipt.delivered().wait(), Ok(Outcome::Shipped));
    // What one makes of a message is checked like any other.
    let wrong = builder(&dir.path().join("other"), &mock)
        .intercept(|message| {
            message.topic = "no topic".into();
            Ok(())
        })
        .open()
        .unwrap();
    let invalid = wrong.send(&good).unwrap_err();
    assert!(matches!(invalid, SendError::Invalid(_)), "{invalid}");
    assert!(producer.close(DEADLINE).unwrap().is_empty());
    let closed = producer.send(&empty).unwrap_err();
    assert!(
        matches!(closed, SendError::Closed),
        "before anybody is asked"
    );
    let found = records(&mock, "u");
    let ids: HashSet<&str> = found.iter().filter_map(|r| r.header("ferry-id")).collect();
    assert_eq!(ids, HashSet::from([&*receipt.id()]));
}
