//! A record that breaks the connection: it must not hold up its lane.
//!
//! Owns what a lost connection says about the transaction under way. Must not know why it was lost.
//! Invariants: a loss counts only while nothing of the transaction is acknowledged; a record is parked
//! when the connection was lost with it alone, and never dies of that.

use super::Error;
use super::committer::Committer;
use super::transact::{Load, Transaction, Turn};
use crate::ship::health::{HoldReason, SUSPICION_CONFIRMED};
use crate::ship::suspect::TRANSPORT;

/// Losses of the connection in one transaction, and nothing of it acknowledged between, after which
/// one of its records is suspected; some ten seconds. Nothing comes twice of that, so fewer than without
/// transactions are enough, and they fit into one.
const SUSPICION: u32 = 8;

impl Committer<'_> {
    /// Whether what is in a transaction is suspected to break the connection.
    pub(super) fn is_suspected(&self, open: &Transaction) -> bool {
        let source = &self.sources[self.current];
        let held = source.hold.as_ref().map(|hold| &hold.why);
        let is_confirmed = open.load == Load::Span
            && (held == Some(&HoldReason::Suspect) || source.is_suspicion());
        let enough = if is_confirmed {
            SUSPICION_CONFIRMED
        } else {
            SUSPICION
        };
        !open.carried.is_empty() && open.losses >= enough
    }

    /// The search for what breaks the connection goes on by halves, a transaction a piece; alone, its
    /// partition is held and parked.
    pub(super) fn suspected(&mut self, mut open: Transaction) -> Result<Turn, Error> {
        self.let_go(&mut open);
        let carried = &open.carried;
        match (open.load, &carried[..]) {
            (Load::Letters { are_copies }, [only]) => {
                self.letter_hopeless(*only, are_copies, TRANSPORT, &HoldReason::Suspect);
            }
            (Load::Letters { .. }, carried) => self.letters_withheld(carried),
            (Load::Span | Load::Base, [only]) => self.hold_alone(*only, HoldReason::Suspect)?,
            (Load::Span | Load::Base, carried) => {
                self.sources[self.current].search(carried, true);
            }
        }
        Ok(Turn::Spent(
            "a record is suspected to break the connection".to_owned(),
        ))
    }
}
