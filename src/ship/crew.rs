//! Threads that work for another one, which waits for their end.
//!
//! Owns: which one that is. Must not know what they do.
//!
//! Invariant: whoever knows a thread that ships knows by it all those on which it does, a callback's too.

use std::cell::Cell;
use std::thread::{self, ThreadId};

thread_local! {
    static WORKS_FOR: Cell<Option<ThreadId>> = const { Cell::new(None) };
}

/// The thread that this one works for: itself, if nobody said otherwise.
pub(crate) fn principal() -> ThreadId {
    WORKS_FOR.get().unwrap_or_else(|| thread::current().id())
}

/// Has this thread work for another one.
pub(super) fn work_for(principal: ThreadId) {
    WORKS_FOR.set(Some(principal));
}
