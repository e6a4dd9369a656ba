//! A clean stop on SIGINT and SIGTERM; the second one stops at once.

use std::sync::{Arc, atomic::AtomicBool};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
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
            .map_err(|error| {
                Failure::new(
                    Exit::Unreachable,
                    "io",
                    format!("could not listen for signals: {error}"),
                )
            })?;
    }
    Ok(stop)
}
