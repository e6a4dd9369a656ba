//! Sending what is due later.
//!
//! Owns: where such a message goes. Must not know how it is kept, nor when it is fired. Nothing here is
//! on the way of a message that is due at once.

use super::{Producer, Receipt, SendError};
use crate::message::MessageRef;
use crate::store::{self, Lane, Store};
use crate::wal::Ticket;

/// How the store takes what is due later: it waits for room, or not.
pub(super) type Scheduling =
    for<'a> fn(&'a Store, &Lane, &[MessageRef<'_>]) -> Result<Ticket<'a>, store::Error>;

impl Producer {
    /// Whether a message with a due time goes to its lane at once.
    #[cold]
    pub(super) fn is_due(&self, message: &MessageRef<'_>) -> Result<bool, SendError> {
        message.check().map_err(SendError::Invalid)?;
        Ok(message
            .due
            .is_none_or(|due| self.shared().store.is_due(due)))
    }

    /// Has messages wait until they are due, all or none.
    #[cold]
    pub(super) fn schedule(
        &self,
        place: usize,
        messages: &[MessageRef<'_>],
        schedule: Scheduling,
    ) -> Result<Receipt<'_>, SendError> {
        let lane = self.lane(place);
        let scheduled = schedule(&self.shared().store, lane, messages);
        let range = scheduled
            .map_err(|error| self.not_sent(lane, error))?
            .range();
        Ok(Receipt {
            is_scheduled: true,
            ..self.receipt(place, range)
        })
    }

    /// The oldest record that is not on disk yet in the log that a message goes to, if there is one.
    pub(super) fn unsynced<'a>(
        &'a self,
        lane: &'a Lane,
        message: &MessageRef<'_>,
    ) -> Option<Ticket<'a>> {
        let store = &self.shared().store;
        if message.due.is_some_and(|due| !store.is_due(due)) {
            return store.unsynced_scheduled();
        }
        let marks = lane.marks();
        (marks.durable < marks.next).then(|| lane.ticket_of(marks.durable..marks.durable + 1))
    }
}
