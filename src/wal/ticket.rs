//! Tickets: what an append gives back, to wait for, to await, or to drop.
//!
//! Owns: the two ways to wait for an acknowledgement. Must not know: who writes or syncs.

use std::future::{Future, IntoFuture};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::core::Core;
use super::error::Error;
use super::fs::{Fs, RealFs};
use super::options::Durability;
use super::seq::SeqNo;

/// A record, or batch, on its way to disk. Wait for it, await it, or drop it.
#[derive(Debug)]
#[must_use = "an append is acknowledged only when its ticket was waited for"]
pub struct Ticket<'a, F: Fs = RealFs> {
    pub(super) core: &'a Core<F>,
    pub(super) first: SeqNo,
    pub(super) end: SeqNo,
}

impl<'a, F: Fs> Ticket<'a, F> {
    /// The record's number; of a batch, the first one's.
    pub fn seq(&self) -> SeqNo {
        self.first
    }

    /// The numbers of all records.
    pub fn range(&self) -> Range<SeqNo> {
        self.first..self.end
    }

    /// Whether [`wait`](Self::wait) would return at once.
    pub fn is_acknowledged(&self) -> bool {
        self.core
            .reached(self.end, self.core.files.options.durability)
    }

    /// Waits until the record is acknowledged at the log's level.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`]: the outcome is unknown; the record may come back after recovery.
    /// [`Error::Full`], unless [`Options::on_full`](crate::wal::Options::on_full) says to wait: it is written when space returns.
    pub fn wait(self) -> Result<SeqNo, Error> {
        let level = self.core.files.options.durability;
        self.wait_for(level)
    }

    /// Waits until the record is acknowledged at this level, whatever the log's is.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_for(self, level: Durability) -> Result<SeqNo, Error> {
        self.reaching(level).wait()
    }

    /// [`wait_for`](Self::wait_for) as a future.
    pub fn reaching(self, level: Durability) -> Acknowledged<'a, F> {
        Acknowledged {
            ticket: self,
            level,
            waits: None,
        }
    }

    /// [`reaching`](Self::reaching) the disk without a wait for company ([`Options::linger`](crate::wal::Options::linger)),
    /// as [`Wal::sync`](crate::wal::Wal::sync).
    pub fn hurried(self) -> Acknowledged<'a, F> {
        self.core.files.marks.set_urgent(self.end);
        self.reaching(Durability::Disk)
    }
}

impl<'a, F: Fs> IntoFuture for Ticket<'a, F> {
    type Output = Result<SeqNo, Error>;
    type IntoFuture = Acknowledged<'a, F>;

    fn into_future(self) -> Acknowledged<'a, F> {
        let level = self.core.files.options.durability;
        self.reaching(level)
    }
}

/// The future of a [`Ticket`]. Dropping it takes nothing back.
#[derive(Debug)]
pub struct Acknowledged<'a, F: Fs = RealFs> {
    ticket: Ticket<'a, F>,
    level: Durability,
    /// As whom it stands among those who wait.
    waits: Option<u64>,
}

impl<F: Fs> Acknowledged<'_, F> {
    /// Waits on this thread, as [`Ticket::wait_for`].
    ///
    /// # Errors
    ///
    /// As [`Ticket::wait`].
    pub fn wait(self) -> Result<SeqNo, Error> {
        self.ticket.core.wait(self.ticket.end, self.level)?;
        Ok(self.ticket.first)
    }
}

impl<F: Fs> Drop for Acknowledged<'_, F> {
    fn drop(&mut self) {
        if let Some(id) = self.waits {
            self.ticket.core.waiters.remove(id);
        }
    }
}

impl<F: Fs> Future for Acknowledged<'_, F> {
    type Output = Result<SeqNo, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ticket { core, first, end } = self.ticket;
        let level = self.level;
        if core.reached(end, level) {
            // Whoever brought it there takes it out.
            self.waits = None;
            return Poll::Ready(Ok(first));
        }
        let waker = context.waker();
        let id = core.waiters.add_future(self.waits, end, level, waker);
        self.waits = Some(id);
        core.ring_for(level);
        if core.reached(end, level) {
            return Poll::Ready(Ok(first));
        }
        match core.check_failed().and_then(|()| core.check_space()) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}
