//! The loop as a service has it: called as a library, on a thread of its own, until it is told to
//! stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ferrylog::kafka::Settings;
use ferrylog::ship::{self, Drained, Error, Progress, ShipOptions, Until};
use ferrylog::store::Store;

/// Longest wait for what must happen at last.
const SOON: Duration = Duration::from_secs(60);

/// The loop at work. Stopped at the end of a test, whatever that is.
pub(crate) struct Shipping {
    stop: Arc<AtomicBool>,
    newest: Arc<Mutex<Option<Progress>>>,
    thread: Option<JoinHandle<Result<Drained, Error>>>,
}

impl Shipping {
    /// Ships a store on a thread of its own, until it is told to stop.
    pub(crate) fn start(
        store: &Arc<Store>,
        settings: Settings,
        mut options: ShipOptions,
    ) -> Shipping {
        options.until = Until::Stopped;
        options.timeout = None;
        let stop = Arc::new(AtomicBool::new(false));
        let newest = Arc::new(Mutex::new(None));
        let (told, tells) = (Arc::clone(&stop), Arc::clone(&newest));
        let store = Arc::clone(store);
        let thread = thread::spawn(move || {
            ship::drain(&store, &settings, &options, &told, &mut |progress| {
                *tells.lock().unwrap() = Some(progress.clone());
            })
        });
        Shipping {
            stop,
            newest,
            thread: Some(thread),
        }
    }

    /// What it told last.
    pub(crate) fn newest(&self) -> Option<Progress> {
        self.newest.lock().unwrap().clone()
    }

    /// Waits until it tells of a state like that.
    pub(crate) fn wait_for(&self, what: &str, is_it: impl Fn(&Progress) -> bool) -> Progress {
        let deadline = Instant::now() + SOON;
        loop {
            let newest = self.newest();
            if let Some(newest) = newest.as_ref().filter(|progress| is_it(progress)) {
                return newest.clone();
            }
            assert!(Instant::now() < deadline, "waited for {what}: {newest:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it holds partitions of this topic for this reason.
    pub(crate) fn wait_until_held(&self, topic: &str, kind: &str) -> Progress {
        let progress = self.wait_for("a hold", |progress| {
            let mut held = progress.held.iter();
            held.any(|held| *held.topic == *topic && held.why.kind() == kind)
        });
        println!("{:?}", progress.why);
        assert!(progress.held.iter().all(|held| *held.topic == *topic));
        progress
    }

    /// Waits until everything is shipped, and nothing is held any more.
    pub(crate) fn wait_until_empty(&self) -> Progress {
        self.wait_for("the end", |progress| {
            progress.queued == 0 && progress.held.is_empty()
        })
    }

    pub(crate) fn end(mut self) -> Drained {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        thread.join().unwrap().unwrap()
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has failed for another reason.
            let _ = thread.join();
        }
    }
}
