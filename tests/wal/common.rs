//! Short words for what every test of the engine says.

use std::num::NonZeroU32;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferrylog::wal::fs::Fs;
use ferrylog::wal::{
    Compression, Durability, Error, Keys, OnCorruption, Options, Reader, SeqNo, View, Wal,
};

use crate::faulty::Faulty;
use crate::random::Random;

pub(crate) const DIR: &str = "/log";
pub(crate) const BODY: u64 = 128 << 10;

/// Small segments, and no sync that nobody asked for.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.segment_size = 1 << 20;
    options.sync_interval = Duration::from_secs(3600);
    options
}

pub(crate) fn with_level(level: Durability) -> Options {
    let mut options = options();
    options.durability = level;
    options.keys = keys(0);
    options
}

/// The key of this id, in every test.
pub(crate) fn key(id: u32) -> (NonZeroU32, [u8; 32]) {
    (NonZeroU32::new(id).unwrap(), [id as u8; 32])
}

/// Keys 1 to 3, of which none or one is written with; none where the build is without encryption.
pub(crate) fn keys(current: u32) -> Keys {
    if cfg!(not(feature = "encryption")) {
        return Keys::none();
    }
    let all = (1..4).map(key);
    let keys = all.fold(Keys::none(), |keys, (id, key)| keys.read_with(id, key));
    match current {
        0 => keys,
        id => keys.write_with(key(id).0, key(id).1),
    }
}

/// Chooses compression and a key, as far as the build has them.
pub(crate) fn draw_at_rest(options: &mut Options, random: &mut Random) {
    options.compression = match random.below(4) {
        0 if cfg!(feature = "lz4") => Compression::Lz4,
        1 if cfg!(feature = "zstd") => Compression::Zstd { level: 1 },
        _ => Compression::None,
    };
    options.keys = keys(random.below(4) as u32);
}

pub(crate) fn try_open_with<F: Fs + Clone>(disk: &F, options: Options) -> Result<Wal<F>, Error> {
    watch_threads();
    Wal::open_on(Arc::new(disk.clone()), Path::new(DIR), options)
}

/// Opens without threads: nothing happens in the background but what the test does by steps.
pub(crate) fn open_still<F: Fs + Clone>(disk: &F, options: Options) -> Result<Wal<F>, Error> {
    Wal::open_still(Arc::new(disk.clone()), Path::new(DIR), options)
}

/// Opens, but not where promised records are gone.
pub(crate) fn try_open_strictly(disk: &Faulty) -> Result<Wal<Faulty>, Error> {
    let mut options = options();
    options.on_corruption = OnCorruption::Refuse;
    try_open_with(disk, options)
}

pub(crate) fn try_open(disk: &Faulty) -> Result<Wal<Faulty>, Error> {
    try_open_with(disk, options())
}

#[track_caller]
pub(crate) fn open(disk: &Faulty) -> Wal<Faulty> {
    try_open(disk).unwrap_or_else(|error| panic!("{}", describe(&error)))
}

pub(crate) fn view(disk: &Faulty) -> Result<View<Faulty>, Error> {
    View::open_on(Arc::new(disk.clone()), Path::new(DIR))
}

pub(crate) fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// A record whose length and bytes follow from its number.
pub(crate) fn record(number: u64) -> Vec<u8> {
    sized(number, (number * 7919 % 3000) as usize)
}

/// A record of this length whose bytes follow from its number.
pub(crate) fn sized(number: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len)
        .map(|at| (number.wrapping_mul(31) as usize + at * 7) as u8)
        .collect();
    for (to, from) in bytes.iter_mut().zip(number.to_le_bytes()) {
        *to = from;
    }
    bytes
}

pub(crate) type Records = Vec<(SeqNo, Vec<u8>)>;

pub(crate) fn drain<F: Fs>(mut reader: Reader<F>) -> Result<Records, Error> {
    let mut records = Records::new();
    while let Some(record) = reader.next()? {
        records.push((record.seq, record.payload.to_vec()));
    }
    Ok(records)
}

/// Everything that is whole, past all damage, and the numbers that were in it.
pub(crate) fn drain_past_damage<F: Fs>(
    mut reader: Reader<F>,
) -> Result<(Records, Vec<Range<SeqNo>>), Error> {
    let (mut records, mut lost) = (Records::new(), Vec::new());
    loop {
        match reader.next() {
            Ok(Some(record)) => records.push((record.seq, record.payload.to_vec())),
            Ok(None) => return Ok((records, lost)),
            Err(Error::Corrupt { .. }) => lost.push(reader.skip_damage()?),
            Err(error) => return Err(error),
        }
        assert!(lost.len() <= 1 << 16, "it skips without an end");
    }
}

/// Everything that is durable, in order.
#[track_caller]
pub(crate) fn read_all<F: Fs>(wal: &Wal<F>) -> Records {
    loop {
        match drain(wal.reader(wal.marks().first)) {
            // The keeper was faster.
            Err(Error::Released { .. }) => {}
            read => return read.unwrap_or_else(|error| panic!("{}", describe(&error))),
        }
    }
}

/// Compares without printing anybody's bytes.
#[track_caller]
pub(crate) fn assert_same(found: &Records, expected: &Records) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.0, expected.0, "record at {at}");
        assert!(found.1 == expected.1, "bytes of record {}", found.0);
    }
    assert_eq!(found.len(), expected.len(), "records");
}

/// Appends these records one by one, each acknowledged before the next.
#[track_caller]
pub(crate) fn append_all(wal: &Wal<Faulty>, numbers: Range<u64>) -> Records {
    append_each(wal, numbers, record)
}

/// The same, of records that do not fit into a page together with others: a frame each, in its place.
#[track_caller]
pub(crate) fn append_apart(wal: &Wal<Faulty>, numbers: Range<u64>) -> Records {
    append_each(wal, numbers, |number| {
        sized(number, 4096 + (number * 7919 % 3000) as usize)
    })
}

/// The same, of this length.
#[track_caller]
pub(crate) fn append_sized(wal: &Wal<Faulty>, numbers: Range<u64>, len: usize) -> Records {
    append_each(wal, numbers, |number| sized(number, len))
}

/// A group for each, written and not synced.
pub(crate) fn write_sized(wal: &Wal<Faulty>, numbers: Range<u64>, len: usize) {
    for number in numbers {
        let ticket = wal.append(&sized(number, len)).unwrap();
        ticket.wait_for(Durability::Os).unwrap();
    }
}

#[track_caller]
fn append_each(wal: &Wal<Faulty>, numbers: Range<u64>, record: impl Fn(u64) -> Vec<u8>) -> Records {
    numbers
        .map(|number| {
            let bytes = record(number);
            let seq = wal
                .append_wait(&bytes)
                .unwrap_or_else(|error| panic!("{}", describe(&error)));
            (seq, bytes)
        })
        .collect()
}

/// Waits for a condition that another thread brings about.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// From now on a panic of one of the engine's own threads is counted.
fn watch_threads() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let name = std::thread::current().name().map(str::to_owned);
            if name.is_some_and(|name| name.starts_with("wal-")) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            print(info);
        }));
    });
}

#[track_caller]
pub(crate) fn assert_no_engine_thread_panicked() {
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "engine threads panicked");
}
