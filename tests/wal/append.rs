//! What is appended is read back, in order, over close and reopen.

use ferrylog::wal::{Class, Options, Record, SeqNo, View, Wal};

fn read_all(wal: &Wal) -> Vec<Record> {
    let mut reader = wal.reader(wal.marks().first);
    std::iter::from_fn(|| reader.next().expect("readable")).collect()
}

fn options() -> Options {
    let mut options = Options::default();
    options.segment_size = 1 << 20;
    options
}

/// A record whose length and bytes follow from its number.
fn record(number: u64) -> Vec<u8> {
    let len = (number * 7919 % 3000) as usize;
    (0..len).map(|at| (number as usize + at) as u8).collect()
}

#[test]
fn what_is_appended_is_read_back_over_reopening_and_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    for life in 0..5u64 {
        let wal = Wal::open(dir.path(), options()).unwrap();
        assert_eq!(wal.opened().created, life == 0);
        assert!(wal.opened().clean, "{:?}", wal.opened());
        assert_eq!(wal.marks().next, SeqNo::new(next));
        for _ in 0..1000 {
            let ticket = wal.append(&record(next)).unwrap();
            assert_eq!(ticket.seq(), SeqNo::new(next));
            next += 1;
            if next % 100 == 0 {
                ticket.wait().unwrap();
            }
        }
        wal.sync().unwrap();
        let records = read_all(&wal);
        assert_eq!(records.len() as u64, next);
        for (number, found) in records.iter().enumerate() {
            assert_eq!(found.seq, SeqNo::new(number as u64));
            assert_eq!(found.payload, record(number as u64), "record {number}");
        }
        assert!(wal.totals().balances());
        assert_eq!(wal.totals().queued, next);
        wal.close().unwrap();
        let view = View::open(dir.path()).unwrap();
        let verified = view.verify(&mut |_, _| ()).unwrap();
        assert_eq!(verified.findings, [], "{verified:?}");
        assert_eq!(verified.records, next);
    }
}

#[test]
fn settled_segments_are_released_and_their_files_live_again() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), options()).unwrap();
    for number in 0..20_000 {
        drop(wal.append(&record(number)).unwrap());
        if number % 500 == 499 {
            let durable = wal.sync().unwrap();
            wal.settle(wal.marks().acked..durable, Class::Shipped);
        }
    }
    let totals = wal.totals();
    assert!(totals.balances());
    assert_eq!((totals.shipped, totals.queued), (20_000, 0));
    wal.close().unwrap();
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    let wal = Wal::open(dir.path(), options()).unwrap();
    assert_eq!(wal.marks().next, SeqNo::new(20_000));
    assert!(
        files < 40,
        "{files} files are left of 30 MB in segments of 1 MiB"
    );
    assert!(wal.marks().first > SeqNo::ZERO, "segments were released");
    assert!(
        wal.reader(wal.marks().acked).next().unwrap().is_none(),
        "nothing is left to ship"
    );
    assert_eq!(wal.totals().shipped, 20_000);
}
