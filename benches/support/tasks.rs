//! A runtime of one thread, as small as one can be: it polls what was woken, and sleeps.
//!
//! Owns: the queue of woken tasks. Must not know: what they wait for.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};

#[derive(Debug)]
struct Queue {
    woken: Mutex<VecDeque<usize>>,
    thread: Thread,
}

#[derive(Debug)]
struct Task {
    index: usize,
    /// It is in the queue already.
    queued: AtomicBool,
    queue: Arc<Queue>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            let mut woken = self.queue.woken.lock().expect("nobody panicked");
            woken.push_back(self.index);
            drop(woken);
            self.queue.thread.unpark();
        }
    }
}

/// Runs all of them on this thread until the last one is done.
pub(crate) fn run(futures: impl IntoIterator<Item = impl Future<Output = ()>>) {
    let queue = Arc::new(Queue {
        woken: Mutex::default(),
        thread: thread::current(),
    });
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).map(Some).collect();
    let tasks: Vec<Arc<Task>> = (0..running.len())
        .map(|index| {
            Arc::new(Task {
                index,
                queued: AtomicBool::new(false),
                queue: queue.clone(),
            })
        })
        .collect();
    let wakers: Vec<Waker> = tasks.iter().cloned().map(Waker::from).collect();
    wakers.iter().for_each(Waker::wake_by_ref);
    let mut left = running.len();
    while left > 0 {
        let woken = queue.woken.lock().expect("nobody panicked").pop_front();
        let Some(index) = woken else {
            thread::park();
            continue;
        };
        tasks[index].queued.store(false, Ordering::SeqCst);
        let Some(future) = &mut running[index] else {
            continue;
        };
        let polled = pin!(future).poll(&mut Context::from_waker(&wakers[index]));
        if polled.is_ready() {
            running[index] = None;
            left -= 1;
        }
    }
}
