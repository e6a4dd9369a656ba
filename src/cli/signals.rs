//! A clean stop on SIGINT and SIGTERM; the second one stops at once.

use std::{
    io, process,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

use super::failure::{Exit, Failure};

/// What a shell expects of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// A flag that the first signal sets. Nothing that was acknowledged depends on a clean stop, so the
/// second signal ends the process where it stands.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag still unset.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(cannot_listen)?;
    }
    Ok(stop)
}

/// Runs `clean` when a signal comes, and ends the process.
pub(super) fn before_the_end(clean: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(cannot_listen)?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            clean();
            process::exit(INTERRUPTED);
        }
    });
    Ok(())
}

fn cannot_listen(error: io::Error) -> Failure {
    Failure::new(
        Exit::Unreachable,
        "io",
        format!("could not listen for signals: {error}"),
    )
}
