//! Threads that work for another one, which waits for their end.
//!
//! Owns: which one that is, their beginning and their end. Must not know what they do.
//!
//! Invariants: whoever knows a thread that ships knows by it all those on which it does, a callback's too;
//! of those that work together all begin, or none.

use std::cell::Cell;
use std::thread::{self, ThreadId};
use std::{io, panic};

use parking_lot::Mutex;

thread_local! {
    static WORKS_FOR: Cell<Option<ThreadId>> = const { Cell::new(None) };
}

/// The thread that this one works for: itself, if nobody said otherwise.
pub(crate) fn principal() -> ThreadId {
    WORKS_FOR.get().unwrap_or_else(|| thread::current().id())
}

/// Does each of these on a thread of its own that works for this one, which does something else until they
/// have ended. A panic of one of them is this one's.
///
/// # Errors
///
/// The system gives fewer threads: nothing was done.
pub(super) fn work_together<T: Send>(
    jobs: Vec<impl FnOnce() -> T + Send>,
    meanwhile: impl FnOnce(),
) -> io::Result<Vec<T>> {
    let principal = principal();
    let are_all_there = Mutex::new(false);
    thread::scope(|scope| {
        let mut gate = are_all_there.lock();
        let threads = jobs.into_iter().map(|job| {
            let work = || {
                let begins = *are_all_there.lock();
                WORKS_FOR.set(Some(principal));
                begins.then(job)
            };
            thread::Builder::new().spawn_scoped(scope, work)
        });
        let threads: io::Result<Vec<_>> = threads.collect();
        *gate = threads.is_ok();
        drop(gate);
        let threads = threads?;
        meanwhile();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(ended) => ended,
            Err(panic) => panic::resume_unwind(panic),
        });
        Ok(ended.flatten().collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_work_for_the_one_who_waits_and_tell_it_in_their_order() {
        let own = principal();
        let jobs = (0..8).map(|n| move || (n, principal())).collect();
        let mut has_waited = false;
        let ended = work_together(jobs, || has_waited = true).unwrap();
        assert_eq!(ended, (0..8).map(|n| (n, own)).collect::<Vec<_>>());
        assert!(has_waited);
    }

    #[test]
    fn a_panic_of_one_is_told_when_all_have_ended() {
        let ended = Mutex::new(0);
        let jobs = (0..4).map(|n| {
            let ended = &ended;
            move || {
                *ended.lock() += 1;
                assert_ne!(n, 1, "one of them");
            }
        });
        let jobs = jobs.collect();
        let worked = panic::catch_unwind(panic::AssertUnwindSafe(|| work_together(jobs, || {})));
        assert!(worked.is_err());
        assert_eq!(*ended.lock(), 4);
    }
}
