//! Waiting for a future on a thread, and for a thread in a task.
//!
//! Owns: nothing. Must not know what is waited for. Needs no runtime, and therefore has no timer: what
//! waits for a time does so on a thread.

use std::future::{self, Future};
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use crate::wal::wait::with_thread_waker;

/// Polls a future on this thread until it is ready; `None`: the deadline came first.
pub(super) fn block_on<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = pin!(future);
    with_thread_waker(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            let Some(deadline) = deadline else {
                thread::park();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    })
}

/// What a thread found, once it did, and who is to be woken then.
type Found<T> = Mutex<(Option<thread::Result<T>>, Option<Waker>)>;

/// Runs something that blocks on a thread of its own, to its end even if this is dropped before; here
/// where there can be no thread. A panic goes on in who awaits it.
pub(super) async fn on_a_thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> T {
    let run = Arc::new(Mutex::new(Some(run)));
    let found: Arc<Found<T>> = Arc::default();
    let (its_run, its_found) = (Arc::clone(&run), Arc::clone(&found));
    let spawned = thread::Builder::new().name(name.into()).spawn(move || {
        let run = its_run.lock().take();
        let result = run.map(|run| panic::catch_unwind(AssertUnwindSafe(run)));
        let waker = {
            let mut found = its_found.lock();
            found.0 = result;
            found.1.take()
        };
        waker.map(Waker::wake)
    });
    let unspawned = spawned.err().and_then(|_| run.lock().take());
    if let Some(run) = unspawned {
        return run();
    }
    let ended = future::poll_fn(|context| {
        let mut found = found.lock();
        match found.0.take() {
            Some(result) => Poll::Ready(result),
            None => {
                found.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    });
    ended
        .await
        .unwrap_or_else(|panic| panic::resume_unwind(panic))
}
