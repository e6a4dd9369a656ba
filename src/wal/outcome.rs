//! How each number was settled since the log was opened, and who waits to hear it.
//!
//! Owns: the memory of outcomes ([`Outcomes`], pure) and the list of those who wait ([`Watch`]). Must
//! not know: who settles a record and why.
//!
//! Nearly all records are shipped: only the others are kept, as ranges. Nothing is kept for a record
//! that nobody asks for, and nothing at all when one is appended.
//!
//! Invariants: memory is bounded by [`RUNS_MAX`], and what was forgotten for that is called unknown,
//! never shipped. Who registers and then looks misses nothing: a settlement looks at the list after
//! it happened, under the lock that the look takes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use super::error::Error;
use super::fs::Fs;
use super::seq::SeqNo;
use super::settled::Class;
use super::wait::wake_each;
use super::{Ticket, Wal};

/// Most ranges of records that were not shipped: half a megabyte at most.
const RUNS_MAX: usize = 8192;

/// How records were settled, as far as it was not by being shipped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes {
    /// By first number: the end and the class. None over another.
    runs: BTreeMap<SeqNo, (SeqNo, Class)>,
    /// What is settled below, and in no run, may have been forgotten.
    known_from: SeqNo,
}

impl Outcomes {
    /// Nothing is known of what was settled below this mark.
    pub(crate) fn from(low: SeqNo) -> Self {
        Self {
            runs: BTreeMap::new(),
            known_from: low,
        }
    }

    /// Takes in a range that was settled just now, none of it before.
    pub(crate) fn note(&mut self, range: Range<SeqNo>, class: Class) {
        if class == Class::Shipped || range.is_empty() {
            return;
        }
        if let Some((_, (end, same))) = self.runs.range_mut(..range.start).next_back()
            && *end == range.start
            && *same == class
        {
            *end = range.end;
            return;
        }
        self.runs.insert(range.start, (range.end, class));
        if self.runs.len() > RUNS_MAX
            && let Some((_, (end, _))) = self.runs.pop_first()
        {
            self.known_from = self.known_from.max(end);
        }
    }

    /// How a number was settled that is settled.
    pub(crate) fn of(&self, seq: SeqNo) -> Class {
        match self.runs.range(..=seq).next_back() {
            Some((_, (end, class))) if seq < *end => *class,
            _ if seq < self.known_from => Class::Unknown,
            _ => Class::Shipped,
        }
    }
}

/// Who waits for a number to be settled.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    count: AtomicUsize,
    /// Tells those apart that wait for the same number.
    next: AtomicU64,
    list: Mutex<BTreeMap<(SeqNo, u64), Waker>>,
}

impl Watch {
    /// Whether anybody waits. To be asked under the lock of what is settled, after a change.
    pub(crate) fn is_watched(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Has a waker woken once, when the number may be settled. The caller looks again after this returns:
    /// it may have been settled before.
    pub(crate) fn add(&self, seq: SeqNo, waker: &Waker) -> Watched<'_> {
        let (id, waker) = (self.next.fetch_add(1, Ordering::Relaxed), waker.clone());
        let watched = Watched {
            watch: self,
            seq,
            id,
            waker: waker.clone(),
        };
        let mut list = self.list.lock();
        list.insert((seq, id), waker);
        self.count.store(list.len(), Ordering::SeqCst);
        watched
    }

    fn remove(&self, seq: SeqNo, id: u64) {
        let mut list = self.list.lock();
        let removed = list.remove(&(seq, id));
        self.count.store(list.len(), Ordering::SeqCst);
        // A waker is the program's own code: it ends where nobody is locked out.
        drop(list);
        drop(removed);
    }

    /// Wakes those that wait for numbers in a range.
    pub(crate) fn wake(&self, range: Range<SeqNo>) {
        let mut woken = Vec::new();
        {
            let mut list = self.list.lock();
            let keys = list.range((range.start, 0)..(range.end, 0));
            let keys: Vec<(SeqNo, u64)> = keys.map(|(key, _)| *key).collect();
            woken.extend(keys.iter().filter_map(|key| list.remove(key)));
            self.count.store(list.len(), Ordering::SeqCst);
        }
        wake_each(woken);
    }

    /// Wakes everybody: there will be no more news.
    pub(crate) fn wake_all(&self) {
        self.wake(SeqNo::ZERO..SeqNo::LIMIT);
    }
}

/// A registration for the outcome of one record; dropping it takes it back.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    watch: &'a Watch,
    seq: SeqNo,
    id: u64,
    waker: Waker,
}

impl Watched<'_> {
    /// Whether it is this waker's, for this number, in this list.
    pub(crate) fn is(&self, watch: &Watch, seq: SeqNo, waker: &Waker) -> bool {
        std::ptr::eq(self.watch, watch) && self.seq == seq && self.waker.will_wake(waker)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.watch.remove(self.seq, self.id);
    }
}

impl<F: Fs> Wal<F> {
    /// Whether this number has its outcome already.
    pub fn is_settled(&self, seq: SeqNo) -> bool {
        self.core.settled.lock().is_settled(seq)
    }

    /// Below this everything is settled; takes no lock.
    #[cfg(feature = "kafka")]
    pub(crate) fn acked(&self) -> SeqNo {
        self.core.files.marks.acked()
    }

    /// At or above this nothing is settled.
    #[cfg(feature = "kafka")]
    pub(crate) fn settled_end(&self) -> SeqNo {
        self.core.settled.lock().end()
    }

    /// The outcome of a record; `None`: it has none yet. Exact for what was settled since the log was
    /// opened, but for the oldest of many records that were not shipped; otherwise
    /// [`Class::Unknown`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], or [`Error::Failed`] where it is not on disk: it has no outcome and will
    /// get none while this log is open.
    pub fn outcome(&self, seq: SeqNo) -> Result<Option<Class>, Error> {
        if let Some(class) = self.core.settled.lock().outcome(seq) {
            return Ok(Some(class));
        }
        if self.is_shut() {
            return Err(Error::Closed);
        }
        if self.core.files.marks.durable() <= seq {
            self.core.check_failed()?;
        }
        Ok(None)
    }

    /// Who waits for outcomes of this log's records.
    pub(crate) fn watch(&self) -> &Watch {
        &self.core.watch
    }

    /// A ticket for records that were appended to this log since it was opened.
    ///
    /// # Panics
    ///
    /// Panics if the range reaches beyond the end of the log.
    pub fn ticket_of(&self, range: Range<SeqNo>) -> Ticket<'_, F> {
        assert!(
            range.end <= self.core.staging.lock().next_seq,
            "what was not appended has no ticket"
        );
        Ticket {
            core: &self.core,
            first: range.start,
            end: range.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::wal::settled::Settled;
    use crate::wal::wait::tests::Count;

    fn seqs(range: Range<u64>) -> Range<SeqNo> {
        SeqNo::new(range.start)..SeqNo::new(range.end)
    }

    #[test]
    fn what_is_in_no_run_was_shipped_and_what_was_forgotten_is_unknown() {
        let mut outcomes = Outcomes::from(SeqNo::new(10));
        outcomes.note(seqs(12..14), Class::Expired);
        outcomes.note(seqs(14..15), Class::Expired);
        outcomes.note(seqs(15..16), Class::Dropped);
        outcomes.note(seqs(16..17), Class::Shipped);
        let of = |outcomes: &Outcomes, seq| outcomes.of(SeqNo::new(seq));
        for (seq, class) in [
            (9, Class::Unknown),
            (10, Class::Shipped),
            (11, Class::Shipped),
            (12, Class::Expired),
            (14, Class::Expired),
            (15, Class::Dropped),
            (16, Class::Shipped),
        ] {
            assert_eq!(of(&outcomes, seq), class, "{seq}");
        }
        assert_eq!(outcomes.runs.len(), 2, "runs that touch are one");
        for n in 0..RUNS_MAX as u64 {
            outcomes.note(seqs(100 + 2 * n..101 + 2 * n), Class::DeadLettered);
        }
        assert_eq!(outcomes.runs.len(), RUNS_MAX);
        assert_eq!(of(&outcomes, 12), Class::Unknown);
        assert_eq!(of(&outcomes, 15), Class::Unknown);
        assert_eq!(of(&outcomes, 16), Class::Shipped);
        assert_eq!(of(&outcomes, 100), Class::DeadLettered);
        assert_eq!(of(&outcomes, 101), Class::Shipped);
    }

    #[test]
    fn a_loss_tells_of_what_was_not_settled_before_it() {
        let zero = SeqNo::ZERO;
        let mut settled = Settled::new(zero, zero, [0; Class::ALL.len()], &[], [], []);
        settled.settle(seqs(0..2), Class::Expired);
        settled.settle(seqs(4..5), Class::Shipped);
        settled.settle(seqs(6..7), Class::DeadLettered);
        assert_eq!(settled.lose(seqs(1..8)), 4);
        settled.settle(seqs(0..10), Class::Shipped);
        let told = (0..11).map(|seq| settled.outcome(SeqNo::new(seq)));
        let (shipped, lost) = (Some(Class::Shipped), Some(Class::Lost));
        let (expired, dead) = (Some(Class::Expired), Some(Class::DeadLettered));
        let all = [
            expired, expired, lost, lost, shipped, lost, dead, lost, shipped, shipped, None,
        ];
        assert_eq!(told.collect::<Vec<_>>(), all);
        assert_eq!(settled.totals(SeqNo::new(10)).lost, 4);
    }

    #[test]
    fn each_is_woken_once_by_its_own_number() {
        let watch = Watch::default();
        let counts: Vec<Arc<Count>> = (0..4).map(|_| Arc::default()).collect();
        let mut watched: Vec<Watched<'_>> = [5, 5, 6, 7]
            .into_iter()
            .zip(&counts)
            .map(|(seq, count)| watch.add(SeqNo::new(seq), &Waker::from(Arc::clone(count))))
            .collect();
        drop(watched.pop());
        watch.wake(seqs(0..5));
        let woken =
            || -> Vec<usize> { counts.iter().map(|c| c.0.load(Ordering::SeqCst)).collect() };
        assert_eq!(woken(), [0, 0, 0, 0]);
        watch.wake(seqs(5..6));
        watch.wake(seqs(5..6));
        assert_eq!(woken(), [1, 1, 0, 0]);
        assert!(watch.is_watched());
        watch.wake_all();
        assert_eq!(woken(), [1, 1, 1, 0]);
        assert!(!watch.is_watched());
    }

    /// One that waits registers, then looks; one that settles changes, then looks for waiters. In
    /// every order of the four steps the first one knows at the end.
    #[test]
    fn in_every_order_of_registering_and_settling_nobody_waits_for_ever() {
        let (mut orders, seq) = (0, SeqNo::new(3));
        // Which two of the four steps are the waiter's.
        for order in 0_u32..16 {
            if order.count_ones() != 2 {
                continue;
            }
            orders += 1;
            let (watch, count) = (Watch::default(), Arc::<Count>::default());
            let waker = Waker::from(Arc::clone(&count));
            let (mut is_settled, mut saw, mut waiter, mut settler) = (false, false, 0, 0);
            let mut watched = Vec::new();
            for step in 0..4 {
                let is_waiter = order & (1 << step) != 0;
                match (is_waiter, if is_waiter { waiter } else { settler }) {
                    (true, 0) => watched.push(watch.add(seq, &waker)),
                    (true, _) => saw = is_settled,
                    (false, 0) => is_settled = true,
                    (false, _) => {
                        if watch.is_watched() {
                            watch.wake(seq..seq + 1);
                        }
                    }
                }
                *(if is_waiter { &mut waiter } else { &mut settler }) += 1;
            }
            let was_woken = count.0.load(Ordering::SeqCst) == 1;
            assert!(saw || was_woken, "order {order:04b}");
        }
        assert_eq!(orders, 6);
    }
}
