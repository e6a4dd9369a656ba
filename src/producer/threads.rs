//! The threads of a producer, and their end.
//!
//! Owns: who waits for whom, and when the store is shut. Must not know what they do.
//!
//! Invariants: none of them waits for the end of another, whatever a callback on it does; the last one to end
//! shuts the store, so that nobody ships from it any more when somebody else may have its directory.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex};

use super::shipping::Shared;
use crate::{ship, store, wal};

/// Those of a producer that did not end yet.
#[derive(Default)]
pub(super) struct Threads {
    running: Mutex<Vec<ThreadId>>,
    /// Notified when there is none any more.
    ended: Condvar,
    /// Why the store was not shut cleanly, until somebody is told.
    failure: Mutex<Option<store::Error>>,
}

impl Shared {
    /// Starts a thread, which is to end soon after [`stop`](Self::stop).
    pub(super) fn start(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce(&Self) + Send + 'static,
    ) -> io::Result<()> {
        let theirs = Arc::clone(self);
        // It does not end before it is among them.
        let mut running = self.threads.running.lock();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            // A panic has been told; nobody is to wait for this thread in vain.
            drop(panic::catch_unwind(AssertUnwindSafe(|| run(&theirs))));
            theirs.end();
        })?;
        running.push(thread.thread().id());
        Ok(())
    }

    fn end(&self) {
        let threads = &self.threads;
        let mut running = threads.running.lock();
        if running.len() > 1 {
            let own = ship::principal();
            return running.retain(|id| *id != own);
        }
        drop(running);
        // It is still one of them: nobody is told before the store is shut.
        let shut = self.store.shut();
        *threads.failure.lock() = shut.err();
        threads.running.lock().clear();
        threads.ended.notify_all();
    }

    /// Whether this thread is one of them, or works for one, or is in a waker, where it may be a log's.
    pub(super) fn is_own_thread(&self) -> bool {
        if wal::wait::is_waking() {
            return true;
        }
        let own = ship::principal();
        self.threads.running.lock().contains(&own)
    }

    /// Waits until all have ended and the store is shut; not for one of them. An error of that is told once.
    pub(super) fn ended(&self) -> Result<(), store::Error> {
        let mut running = self.threads.running.lock();
        while !running.is_empty() {
            self.threads.ended.wait(&mut running);
        }
        self.threads.failure.lock().take().map_or(Ok(()), Err)
    }
}
