//! The process of the demonstration that is killed: appends readings at full speed, ships them, and
//! says on standard output how many are acknowledged.
//!
//! Invariant: a count is printed only after a sync that covers it, so whoever read it may rely on
//! it whatever happens to this process.

use std::{
    io::{self, Read, Write},
    ops::Range,
    process,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::record::Reading;
use crate::{
    cli::{
        Global,
        drain::of_ship,
        failure::{self, Ended, Exit},
    },
    kafka::Settings,
    ship::{self, ShipOptions, Until},
    store::{self, Lane, Store},
    wal::{Options, SeqNo},
};

/// Append the demonstration's readings until killed
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[arg(long)]
    records: u64,
    #[arg(long)]
    bootstrap_servers: String,
}

pub(in crate::cli) fn run(global: &Global, arguments: &Arguments) -> Result<Exit, Ended> {
    // The parent holds the other end: it closes when the parent is gone, and then this may end
    // where it stands, as a kill would end it.
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(0);
    });
    let store_failure = |error| failure::of_store(&error, &global.data);
    let store = Store::open(&global.data, Options::default()).map_err(store_failure)?;
    let (lane, first) = (store.lane(), store.lane().marks().next);
    let settings = Settings::new(&arguments.bootstrap_servers);
    let options = ShipOptions {
        until: Until::Stopped,
        ..ShipOptions::default()
    };
    let (stop, end) = (&AtomicBool::new(false), &AtomicU64::new(u64::MAX));
    thread::scope(|scope| {
        let shipping = scope.spawn(|| ship::drain(&store, &settings, &options, stop, &mut |_| {}));
        let printing = scope.spawn(move || print_acknowledged(lane, first, end));
        // The kill shall hit both, appending and shipping: so the second has to be under way.
        let appended = append(lane, 0..arguments.records / 8).and_then(|()| {
            while lane.totals().shipped == 0 && !shipping.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
            append(lane, arguments.records / 8..arguments.records)
        });
        // All is well until the kill: only a failure ends this.
        stop.store(appended.is_err(), Ordering::Relaxed);
        let shipped = shipping.join();
        end.store(lane.marks().durable.get(), Ordering::Release);
        appended.map_err(store_failure)?;
        if let Ok(ended) = printing.join() {
            ended?;
        }
        match shipped {
            Ok(Err(error)) => Err(of_ship(&error, global).into()),
            Ok(Ok(_)) | Err(_) => Ok(Exit::Done),
        }
    })
}

/// Appends these readings without a wait between, then waits until all of them are on disk.
pub(super) fn append(lane: &Lane, mut numbers: Range<u64>) -> Result<(), store::Error> {
    let mut reading = Reading::default();
    numbers.try_for_each(|number| lane.append(&reading.make(number)).map(drop))?;
    lane.sync().map(drop)
}

fn print_acknowledged(lane: &Lane, first: SeqNo, end: &AtomicU64) -> io::Result<()> {
    let mut printed = first;
    let mut out = io::stdout().lock();
    while printed.get() < end.load(Ordering::Acquire) {
        let durable = lane.wait_durable(printed, Duration::from_millis(50));
        if durable > printed {
            writeln!(out, "{}", durable - first)?;
            out.flush()?;
            printed = durable;
        }
    }
    Ok(())
}
