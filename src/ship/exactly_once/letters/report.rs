//! What becomes of dead letters by their transactions, and of their log.
//!
//! Owns what is written down about a letter. Must not know which go next. Invariants: what a commit says
//! of letters is written down, or owed by the intents that follow, before anything else is committed;
//! a letter that is refused once more lies where it was; where the log fails, nothing but the letters
//! is held up.

use std::ops::Range;
use std::time::Instant;

use super::{Letters, TROUBLE_PAUSE};
use crate::kafka::{ErrorClass, Failure};
use crate::ship::exactly_once::Error;
use crate::ship::exactly_once::committer::{Committer, random};
use crate::ship::exactly_once::source::Hold;
use crate::ship::exactly_once::transact::Carried;
use crate::ship::health::{HoldReason, reason_of};
use crate::ship::{Held, overrides};
use crate::store::{self, DeadLetters, IntentFile, SENT_LETTERS_MAX, SentLetters, Store};
use crate::wal::{LogId, SeqNo};

/// The name under which the log of the dead letters is told of, where it fails.
const LOG_NAME: &str = "(dead letters)";

/// Kafka's codes for a record and a batch that are too large.
const TOO_LARGE: [i32; 2] = [10, 18];

impl Letters {
    /// Their log, if there is one, for a record that must not be sent before it is looked up there. `None`:
    /// it cannot be opened, or could not a moment ago.
    pub(in crate::ship::exactly_once) fn opened<'a>(
        &mut self,
        store: &'a Store,
    ) -> Option<Option<&'a DeadLetters>> {
        let now = Instant::now();
        if self.is_needed && self.trouble.is_some() && now < self.next_look {
            return None;
        }
        let opened = store.dead_letters_if_any();
        let was_needed = std::mem::replace(&mut self.is_needed, opened.is_err());
        match opened {
            Ok(log) => {
                if was_needed {
                    self.trouble = None;
                }
                Some(log)
            }
            Err(error) => {
                self.failed(&error, now);
                None
            }
        }
    }

    /// Letters for this partition wait at least until then.
    pub(in crate::ship::exactly_once) fn pause_line(&mut self, index: usize, until: Instant) {
        if let Some(line) = self.lines.get_mut(&index) {
            line.next_try = line.next_try.max(until);
        }
    }

    /// Their log takes or gives nothing: they wait, and nothing else does.
    pub(super) fn failed(&mut self, error: &store::Error, now: Instant) {
        let since = self.trouble.as_ref().map_or(now, |(_, since)| *since);
        self.trouble = Some((error.to_string(), since));
        self.next_look = now + TROUBLE_PAUSE;
        self.is_stuck = true;
    }
}

impl Committer<'_> {
    /// A transaction of letters was committed: what became of them is written down.
    pub(in crate::ship::exactly_once) fn letters_arrived(
        &mut self,
        log: LogId,
        letters: &SentLetters,
    ) -> Result<(), Error> {
        match mark(self.store, log, letters) {
            Ok(()) => self.intents.note_letters_done(false)?,
            Err(error) => {
                self.letters.failed(&error, Instant::now());
                self.intents.note_letters_done(true)?;
            }
        }
        let count = u64::try_from(letters.seqs.len()).unwrap_or(0);
        if letters.are_copies {
            self.counters.copied += count;
        } else {
            self.counters.replayed += count;
        }
        for seq in letters.seqs.iter().filter(|_| letters.are_copies) {
            self.letters.pointers.remove(seq);
        }
        if letters.seqs.len() >= self.letters.most {
            self.letters.most = (2 * self.letters.most).min(SENT_LETTERS_MAX);
        }
        Ok(())
    }

    /// These partitions took letters.
    pub(in crate::ship::exactly_once) fn free_lines(&mut self, carried: &[Carried]) {
        for carried in carried {
            self.letters.lines.remove(&carried.index());
        }
    }

    /// A transaction of letters was refused: fewer go next; of one alone, that is the verdict.
    pub(in crate::ship::exactly_once) fn letters_refused(
        &mut self,
        carried: &[Carried],
        are_copies: bool,
        failure: &Failure,
    ) {
        let [only] = carried else {
            return self.letters_withheld(carried);
        };
        let is_too_large = TOO_LARGE.contains(&failure.code);
        if are_copies && is_too_large && self.letters.pointers.insert(only.seq) {
            return;
        }
        if matches!(failure.class, ErrorClass::Poison | ErrorClass::BadTime) {
            self.letter_over(only.seq, are_copies, failure.code, &failure.to_string());
        } else {
            self.hold_line(only.index(), reason_of(failure), Instant::now());
        }
    }

    /// Letters cannot go together, and nobody knows for which one: half as many.
    pub(in crate::ship::exactly_once) fn letters_withheld(&mut self, carried: &[Carried]) {
        self.letters.most = (carried.len() / 2).max(1);
    }

    /// A letter, alone, breaks the connection or does not cross it: to try it again and again would hold
    /// up its lane. A copy may be a pointer.
    pub(in crate::ship::exactly_once) fn letter_hopeless(
        &mut self,
        only: Carried,
        are_copies: bool,
        code: i32,
        why: &HoldReason,
    ) {
        if !(are_copies && self.letters.pointers.insert(only.seq)) {
            self.letter_over(only.seq, are_copies, code, &why.to_string());
        }
    }

    fn letter_over(&mut self, seq: SeqNo, is_copy: bool, code: i32, why: &str) {
        let given_up = match self.store.dead_letters() {
            Ok(log) => self.give_letter_up(log, seq, is_copy, code, why),
            Err(error) => Err(error),
        };
        if let Err(error) = given_up {
            self.letters.failed(&error, Instant::now());
        }
    }

    /// A letter is not to be sent as it is: it lies where it was, and a person decides.
    pub(super) fn give_letter_up(
        &mut self,
        log: &DeadLetters,
        seq: SeqNo,
        is_copy: bool,
        code: i32,
        why: &str,
    ) -> Result<(), store::Error> {
        let what = if is_copy {
            log.mark_copy_refused(seq, code)?;
            self.counters.copies_refused += 1;
            self.letters.pointers.remove(&seq);
            "as a copy"
        } else {
            log.mark_kept(&[seq])?;
            self.counters.replays_refused += 1;
            "once more"
        };
        self.letters.refused = Some(format!("dead letter {seq} was refused {what}: {why}"));
        Ok(())
    }

    pub(in crate::ship::exactly_once) fn hold_line(
        &mut self,
        index: usize,
        why: HoldReason,
        now: Instant,
    ) {
        let before = self.letters.lines.remove(&index);
        let options = &self.options.ship;
        let policy = overrides::of_letters(options, self.store, &self.topics, index);
        let hold = Hold::again(before, why, &policy, now, random());
        self.letters.lines.insert(index, hold);
    }

    /// What holds letters back.
    pub(in crate::ship::exactly_once) fn held_letters(&self, now: Instant) -> Vec<Held> {
        let trouble = self.letters.trouble.iter().map(|(why, since)| Held {
            topic: LOG_NAME.into(),
            partition: None,
            why: HoldReason::NoDeadLetters(why.clone()),
            lasted: now.saturating_duration_since(*since),
        });
        let mut held: Vec<Held> = trouble.collect();
        if self.letters_wait() {
            let lines = self.letters.lines.iter();
            held.extend(lines.filter_map(|(&index, line)| {
                let (topic, _, partition) = self.topics.named(index)?;
                let is_current = self.topics.is_current(index);
                is_current.then(|| line.told(topic, partition, now))
            }));
        }
        held
    }
}

/// Writes down what became of letters. Another log than that they were in is left alone.
fn mark(store: &Store, log: LogId, letters: &SentLetters) -> Result<(), store::Error> {
    let Some(found) = store.dead_letters_if_any()? else {
        return Ok(());
    };
    if found.log_id() == log && letters.are_copies {
        found.mark_copied(&letters.seqs)?;
    } else if found.log_id() == log {
        found.mark_replayed(&letters.seqs)?;
    }
    Ok(())
}

/// Writes down what became of letters that were committed while their log took nothing.
pub(in crate::ship::exactly_once) fn settle_owed(
    store: &Store,
    intents: &mut IntentFile,
) -> Result<(), store::Error> {
    if let Some(owed) = intents.owed() {
        mark(store, owed.log, &owed.letters)?;
        intents.forget_owed();
    }
    Ok(())
}

/// Decides by hand whether letters were sent.
pub(in crate::ship::exactly_once) fn decide_by_hand(
    store: &Store,
    intents: &mut IntentFile,
    log: LogId,
    letters: &SentLetters,
    is_sent: bool,
) -> Result<Option<Range<SeqNo>>, store::Error> {
    let is_aborted = intents.intent().is_some_and(|intent| intent.is_aborted);
    if is_aborted || letters.is_done {
        return Ok(None);
    }
    if is_sent {
        mark(store, log, letters)?;
        intents.note_letters_done(false)?;
    } else {
        intents.note_aborted(true)?;
    }
    let (first, last) = (letters.seqs.iter().min(), letters.seqs.iter().max());
    Ok(first.zip(last).map(|(first, last)| *first..*last + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageRef;
    use crate::ship::exactly_once::renew_identity;
    use crate::store::{Cause, Content, Intent, Letter, Nonce, Origin, Stage};
    use crate::wal::{self, SeqNo};

    #[test]
    fn another_identity_leaves_no_letter_to_be_sent_again_that_was_committed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), wal::Options::default()).unwrap();
        let lane = store.lane();
        let found = store.dead_letters().unwrap();
        let letter = Letter {
            origin: Origin {
                log_id: lane.log_id(),
                seq: SeqNo::ZERO,
            },
            lane: lane.name(),
            cause: Cause {
                class: "poison",
                code: 10,
                stage: Stage::Produce,
                reason: "a test's",
                attempts: 1,
                first_attempt_millis: 0,
                last_attempt_millis: 0,
            },
            content: Content::Message(MessageRef::to("t")),
        };
        let seqs = vec![found.add(&letter).unwrap()];
        found.mark_pending(&seqs).unwrap();
        let mut intents = lane.intents().unwrap();
        let intent = Intent {
            nonce: intents.draw().unwrap(),
            previous: Nonce::NONE,
            log: found.log_id(),
            span: seqs[0]..seqs[0] + 1,
            letters: Some(SentLetters {
                seqs,
                are_copies: false,
                is_done: false,
            }),
            cluster_id: "a cluster".into(),
            is_in_offsets: false,
            topic: "ferrylog-progress".into(),
            partition: 0,
            partition_offset: None,
            previous_partition_offset: None,
            is_aborted: false,
        };
        intents.write(intent).unwrap();
        intents.note_letters_done(true).unwrap();
        let before = intents.identity();
        drop(intents);
        assert_ne!(renew_identity(&store, lane).unwrap(), before);
        let counts = found.counts();
        assert_eq!((counts.pending, counts.replayed), (0, 1));
    }
}
