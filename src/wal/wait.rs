//! Waiting for a watermark: blocking threads and async tasks alike, without an allocation per record.
//!
//! Owns: who waits for which number, and waking those that are covered, once. Must not know: what
//! moves a watermark.

use std::cell::Cell;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::options::Durability;
use super::seq::SeqNo;

/// Who waits, and for what.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    count: AtomicUsize,
    /// Those of them that wait for a sync.
    for_disk: AtomicUsize,
    /// Tells futures apart.
    next: AtomicU64,
    list: Mutex<Vec<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    /// `None`: a thread.
    id: Option<u64>,
    end: SeqNo,
    level: Durability,
    waker: Waker,
}

impl Waiters {
    /// Adds a thread. The caller looks at the watermark once more afterwards: a wake-up between its
    /// first look and this call went to somebody else.
    pub(crate) fn add(&self, end: SeqNo, level: Durability, waker: &Waker) {
        let mut list = self.list.lock();
        if list
            .iter()
            .any(|w| (w.id, w.end, w.level) == (None, end, level) && w.waker.will_wake(waker))
        {
            return;
        }
        self.push(&mut list, None, end, level, waker);
    }

    /// [`add`](Self::add) for a future, which has no id the first time, and may have another waker each
    /// time. It is taken out again by [`remove`](Self::remove), unless it was woken.
    pub(crate) fn add_future(
        &self,
        id: Option<u64>,
        end: SeqNo,
        level: Durability,
        waker: &Waker,
    ) -> u64 {
        let id = id.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
        let mut list = self.list.lock();
        let Some(known) = list.iter_mut().find(|w| w.id == Some(id)) else {
            self.push(&mut list, Some(id), end, level, waker);
            return id;
        };
        let former = mem::replace(&mut known.waker, waker.clone());
        // A waker is the program's own code: it ends where nobody is locked out.
        drop(list);
        drop(former);
        id
    }

    /// Takes a future out that waits no longer.
    pub(crate) fn remove(&self, id: u64) {
        let mut list = self.list.lock();
        let at = list.iter().position(|w| w.id == Some(id));
        let removed = at.map(|at| list.swap_remove(at));
        self.recount(&list);
        drop(list);
        drop(removed);
    }

    fn push(
        &self,
        list: &mut Vec<Waiter>,
        id: Option<u64>,
        end: SeqNo,
        level: Durability,
        waker: &Waker,
    ) {
        list.push(Waiter {
            id,
            end,
            level,
            waker: waker.clone(),
        });
        self.recount(list);
    }

    /// Whether somebody waits.
    pub(crate) fn are_some(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Whether somebody waits for a sync.
    pub(crate) fn want_disk(&self) -> bool {
        self.for_disk.load(Ordering::SeqCst) > 0
    }

    fn recount(&self, list: &[Waiter]) {
        let for_disk = list.iter().filter(|w| w.level == Durability::Disk).count();
        self.for_disk.store(for_disk, Ordering::SeqCst);
        self.count.store(list.len(), Ordering::SeqCst);
    }

    /// Wakes those that `covered` says have what they wait for.
    pub(crate) fn wake(&self, covered: impl Fn(SeqNo, Durability) -> bool) {
        if !self.are_some() {
            return;
        }
        let mut woken = Vec::new();
        {
            let mut list = self.list.lock();
            let mut at = 0;
            while at < list.len() {
                if covered(list[at].end, list[at].level) {
                    woken.push(list.swap_remove(at).waker);
                } else {
                    at += 1;
                }
            }
            self.recount(&list);
        }
        wake_each(woken);
    }
}

thread_local! {
    static IS_WAKING: Cell<bool> = const { Cell::new(false) };
}

/// Wakes each of them, whatever the others do: a waker is the program's own code, and may panic, which
/// nobody else is to suffer from; its hook has told it.
pub(crate) fn wake_each(wakers: impl IntoIterator<Item = Waker>) {
    let was_waking = IS_WAKING.replace(true);
    for waker in wakers {
        drop(panic::catch_unwind(AssertUnwindSafe(|| waker.wake())));
    }
    IS_WAKING.set(was_waking);
}

/// Whether this thread is in a waker that was called here: it may be a log's own, or hold what a log needs
/// to be shut, and is not to wait for that.
#[cfg(feature = "kafka")]
pub(crate) fn is_waking() -> bool {
    IS_WAKING.get()
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// Runs with this thread's waker; [`thread::park`] returns after it was woken.
pub(crate) fn with_thread_waker<T>(run: impl FnOnce(&Waker) -> T) -> T {
    WAKER.with(run)
}

/// A bell for one background thread.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Spares the lock where the bell has been rung already.
    rung: AtomicBool,
    state: Mutex<Rung>,
    ringing: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rung {
    #[default]
    No,
    Soon,
    /// At this time at the latest.
    By(Instant),
    Now,
    Stop,
}

/// Why a wait for a [`Bell`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// It rang.
    Ring,
    /// The thread is to end.
    Stop,
}

impl Bell {
    /// There is work that may wait for company.
    pub(crate) fn ring_soon(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.raise(Rung::Soon);
        }
    }

    /// There is work that somebody waits for who may wait so long for company. The first one says how
    /// long they all wait.
    pub(crate) fn ring_within(&self, linger: Duration) {
        self.rung.store(true, Ordering::SeqCst);
        let mut state = self.state.lock();
        if *state <= Rung::Soon {
            *state = Rung::By(Instant::now() + linger);
            self.ringing.notify_one();
        }
    }

    /// There is work that somebody waits for.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.raise(Rung::Now);
    }

    pub(crate) fn stop(&self) {
        self.raise(Rung::Stop);
    }

    fn raise(&self, to: Rung) {
        let mut state = self.state.lock();
        if *state < to {
            *state = to;
            self.ringing.notify_one();
        }
    }

    /// Waits until it rings, and `delay` longer where the work may wait for company.
    pub(crate) fn wait(&self, delay: Duration) -> Heard {
        let mut state = self.state.lock();
        while *state == Rung::No {
            self.ringing.wait(&mut state);
        }
        let soon = Instant::now() + delay;
        loop {
            let deadline = match *state {
                Rung::Soon => soon,
                Rung::By(deadline) => deadline.min(soon),
                Rung::No | Rung::Now | Rung::Stop => break,
            };
            if self.ringing.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        self.heard(&mut state)
    }

    /// [`wait`](Self::wait) as if its time had come; `None`: it has not rung.
    pub(crate) fn hear(&self) -> Option<Heard> {
        let mut state = self.state.lock();
        (*state != Rung::No).then(|| self.heard(&mut state))
    }

    fn heard(&self, state: &mut Rung) -> Heard {
        if *state == Rung::Stop {
            return Heard::Stop;
        }
        *state = Rung::No;
        self.rung.store(false, Ordering::SeqCst);
        Heard::Ring
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    pub(in crate::wal) struct Count(pub(in crate::wal) AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_future_is_kept_once_whoever_polls_it_and_not_at_all_once_it_is_dropped() {
        let (waiters, end) = (Waiters::default(), SeqNo::new(1));
        let wakers = [(); 2].map(|()| Arc::<Count>::default());
        let poll = |id, of: &Arc<Count>| {
            let waker = Waker::from(Arc::clone(of));
            waiters.add_future(id, end, Durability::Disk, &waker)
        };
        let first = poll(None, &wakers[0]);
        assert_eq!(poll(Some(first), &wakers[1]), first);
        assert_eq!(Arc::strong_count(&wakers[0]), 1, "the newest waker counts");
        let second = poll(None, &wakers[1]);
        assert_ne!(first, second, "of two futures of one task each waits");
        waiters.remove(first);
        assert!(waiters.are_some() && waiters.want_disk());
        waiters.wake(|_, _| true);
        let woken = wakers
            .each_ref()
            .map(|woken| woken.0.load(Ordering::SeqCst));
        assert_eq!(woken, [0, 1]);
        assert_eq!(poll(Some(second), &wakers[0]), second, "polled anew");
        waiters.remove(second);
        assert!(!waiters.are_some() && !waiters.want_disk());
        assert_eq!(wakers.each_ref().map(Arc::strong_count), [1, 1]);
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const LINGER: Duration = Duration::from_millis(30);

    /// How long the bell is waited for.
    fn waited(bell: &Bell, delay: Duration) -> Duration {
        let begun = Instant::now();
        assert_eq!(bell.wait(delay), Heard::Ring);
        begun.elapsed()
    }

    #[test]
    fn who_lingers_waits_as_long_as_the_first_one_says() {
        let bell = Bell::default();
        let begun = Instant::now();
        bell.ring_within(LINGER);
        bell.ring_within(HOUR);
        // What nobody waits for does not put it off.
        bell.ring_soon();
        assert!(waited(&bell, HOUR) < HOUR && begun.elapsed() >= LINGER);
        // It is over: the next one begins anew.
        bell.ring_within(LINGER);
        assert!(waited(&bell, HOUR) < HOUR && begun.elapsed() >= 2 * LINGER);
        // No longer than what nobody waits for.
        bell.ring_within(HOUR);
        assert!(waited(&bell, LINGER) >= LINGER);
    }

    #[test]
    fn a_bell_that_lingers_is_hurried_and_stopped() {
        let bell = Bell::default();
        bell.ring_within(HOUR);
        bell.ring();
        assert!(waited(&bell, HOUR) < HOUR);
        for early in [Bell::ring_within, |bell: &Bell, _| bell.ring_soon()] {
            thread::scope(|scope| {
                early(&bell, HOUR);
                let waiting = scope.spawn(|| waited(&bell, HOUR));
                bell.ring();
                assert!(waiting.join().unwrap() < HOUR);
            });
        }
        bell.ring_soon();
        thread::scope(|scope| {
            scope.spawn(|| bell.ring_within(LINGER));
            assert!(waited(&bell, HOUR) < HOUR);
        });
        bell.ring_within(HOUR);
        bell.stop();
        assert_eq!(bell.wait(HOUR), Heard::Stop);
    }
}
