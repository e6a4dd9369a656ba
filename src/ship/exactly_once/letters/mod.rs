//! Dead letters in transactions of their own: sent again to where they belong, or copied to the
//! dead-letter topic.
//!
//! Owns which go next; what becomes of them stands in `report`. Must not know how a letter looks in Kafka
//! (that is [`dead_letter`]) nor why it died. The first lane of their cluster ships them, between its own transactions.
//!
//! Invariants: an intent names each letter of its transaction; what became of a letter is durable,
//! here or in the intents that follow, before anything else is committed; a verdict falls only on one
//! that was alone in its transaction, and never makes another dead letter; where their log fails,
//! they wait and nothing else does.

mod report;

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use report::{decide_by_hand, settle_owed};

use super::committer::Committer;
use super::source::Hold;
use super::transact::{Carried, Load, Transaction, Turn};
use super::{Error, Until};
use crate::kafka::Outgoing;
use crate::ship::budget;
use crate::ship::dead_letter::{self, LetterMessage};
use crate::ship::health::HoldReason;
use crate::ship::place::partition_of;
use crate::store::{self, DeadLetters, SENT_LETTERS_MAX, SentLetters, StoredLetter};
use crate::wal::{LogId, SeqNo};

/// Most bytes of letters in a transaction; one may always be in it.
const BYTES_MAX: usize = 1024 * 1024;

/// How long to wait between two walks over them; for each that was passed by, this much longer.
const WALK_PAUSE: Duration = Duration::from_millis(100);
const PASSED_PAUSE: Duration = Duration::from_millis(1);
const PASSED_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often letters are looked at that were kept for too long, and how full their log is.
const CARE_INTERVAL: Duration = Duration::from_secs(60);

/// From how many percent on a full log is an alarm.
const FILL_ALARM: u8 = 80;

/// How long a poll waits while there is no room.
const POLL_WAIT: Duration = Duration::from_millis(1);

/// How long to wait after their log failed.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// Kafka's codes for a topic nobody can have, and for a partition that is not there.
const NO_TOPIC: i32 = 17;
const NO_PARTITION: i32 = 3;

/// What is known of the dead letters that are to be sent.
#[derive(Debug)]
pub(in crate::ship::exactly_once) struct Letters {
    /// Whether it is this lane that ships them.
    is_ours: bool,
    /// Most in a transaction: fewer after a refusal, down to one, which is a verdict.
    most: usize,
    /// Those of the next transaction.
    batch: Vec<Ready>,
    /// Partitions that take none for a while.
    lines: HashMap<usize, Hold>,
    /// Too large for the dead-letter topic: a pointer goes there.
    pointers: HashSet<SeqNo>,
    next_look: Instant,
    next_care: Instant,
    fill_percent: u8,
    /// Whether those that are left can only go once a person changes something.
    pub(in crate::ship::exactly_once) is_stuck: bool,
    /// Whether the next record of a log cannot go before theirs can be opened.
    pub(in crate::ship::exactly_once) is_needed: bool,
    /// Why and since when their log takes or gives nothing.
    trouble: Option<(String, Instant)>,
    /// What was said about the letter that was refused last.
    pub(in crate::ship::exactly_once) refused: Option<String>,
}

/// A letter that is made ready.
#[derive(Debug)]
struct Ready {
    seq: SeqNo,
    message: LetterMessage,
    index: usize,
    partition: u32,
}

/// The letters of the next transaction.
enum Chosen {
    /// There are some.
    Batch {
        are_copies: bool,
    },
    /// None may go now.
    None,
    Silent(String),
}

/// What there is to do about a letter.
enum Found {
    Ready(Ready),
    /// Its partition takes none now; whether only a person can help.
    Passed(bool),
    /// It was given up.
    Over,
    Silent(String),
}

impl Letters {
    pub(in crate::ship::exactly_once) fn new(is_ours: bool, now: Instant) -> Letters {
        Letters {
            is_ours,
            most: SENT_LETTERS_MAX,
            batch: Vec::new(),
            lines: HashMap::new(),
            pointers: HashSet::new(),
            next_look: now,
            next_care: now,
            fill_percent: 0,
            is_stuck: false,
            is_needed: false,
            trouble: None,
            refused: None,
        }
    }

    /// The alarm about their room, if there is one.
    pub(in crate::ship::exactly_once) fn alarm(&self) -> Option<String> {
        let percent = self.fill_percent;
        (percent >= FILL_ALARM).then(|| format!("the dead letters are {percent} % full"))
    }
}

impl Committer<'_> {
    /// Whether letters are to be sent.
    pub(in crate::ship::exactly_once) fn letters_wait(&self) -> bool {
        let are_copied = self.options.ship.dead_letters.topic.is_some();
        self.letters.is_ours && wait(self.store, self.lane.cluster(), are_copied)
    }

    /// A transaction of letters, if there are any that may go.
    pub(in crate::ship::exactly_once) fn letters_turn(&mut self) -> Result<Turn, Error> {
        let now = Instant::now();
        let is_ours = self.letters.is_ours || self.intents.owed().is_some();
        if !is_ours || now < self.letters.next_look {
            return Ok(Turn::Held);
        }
        self.letters.next_look = now + WALK_PAUSE;
        self.current = 0;
        self.letters.batch.clear();
        let chosen = match self.choose_letters(now) {
            Ok(chosen) => chosen,
            Err(error) => {
                self.letters.failed(&error, now);
                return Ok(Turn::Held);
            }
        };
        self.letters.trouble = None;
        match chosen {
            Chosen::Batch { are_copies } => {
                self.letters.next_look = now;
                self.letters.is_stuck = false;
                let begin = self.lane.marks().acked;
                self.carry_out(begin, 0, Load::Letters { are_copies })
            }
            Chosen::None => Ok(Turn::Held),
            Chosen::Silent(why) => Ok(Turn::Silent(why)),
        }
    }

    /// Makes the letters of the next transaction ready. Whatever fails here is their log.
    fn choose_letters(&mut self, now: Instant) -> Result<Chosen, store::Error> {
        settle_owed(self.store, &mut self.intents)?;
        let log = self.store.dead_letters_if_any()?;
        let Some(log) = log.filter(|_| self.letters.is_ours) else {
            return Ok(Chosen::None);
        };
        self.care_for(log, now)?;
        let (mut passed, mut is_definite) = (0_u32, true);
        // A letter that is replayed is over, and gets no copy any more.
        for are_copies in [true, false] {
            if are_copies && self.options.ship.dead_letters.topic.is_none() {
                continue;
            }
            let mut after = None;
            let mut bytes = 0;
            let most = usize::try_from(self.pace.records()).unwrap_or(usize::MAX);
            let most = most.min(self.letters.most);
            while self.letters.batch.len() < most && bytes < BYTES_MAX {
                let next = match are_copies {
                    false => log.next_pending(self.lane.cluster(), after)?,
                    true => log.next_uncopied(self.lane.cluster(), after)?,
                };
                let Some(letter) = next else { break };
                after = Some(letter.seq);
                match self.find_place(log, &letter, are_copies, now)? {
                    Found::Ready(ready) => {
                        bytes += ready.message.wire_len();
                        self.letters.batch.push(ready);
                    }
                    Found::Passed(is_stuck) => {
                        passed = passed.saturating_add(1);
                        is_definite &= is_stuck;
                    }
                    Found::Over => {}
                    Found::Silent(why) => return Ok(Chosen::Silent(why)),
                }
            }
            if !self.letters.batch.is_empty() {
                return Ok(Chosen::Batch { are_copies });
            }
        }
        let pause = PASSED_PAUSE.saturating_mul(passed);
        self.letters.next_look = now + pause.clamp(WALK_PAUSE, PASSED_PAUSE_MAX);
        self.letters.is_stuck = is_definite;
        Ok(Chosen::None)
    }

    /// Gives up what was kept for too long, and sees how much room there is.
    fn care_for(&mut self, log: &DeadLetters, now: Instant) -> Result<(), store::Error> {
        if now < self.letters.next_care {
            return Ok(());
        }
        self.letters.next_care = now + CARE_INTERVAL;
        let time = self.lane.now();
        if time.is_trusted {
            log.expire(time.reading.wall_millis)?;
        }
        self.letters.fill_percent = log.fill_percent();
        Ok(())
    }

    /// The message of a letter; `None`: there is none to be sent. The error is a code and the reason
    /// for which there never will be.
    fn message_of(
        &self,
        log: &DeadLetters,
        letter: &StoredLetter,
        is_copy: bool,
    ) -> Result<Option<LetterMessage>, (i32, String)> {
        let options = &self.options.ship.dead_letters;
        match (is_copy, &options.topic) {
            (true, Some(topic)) => {
                let is_pointer = self.letters.pointers.contains(&letter.seq);
                let len_max = if is_pointer { 0 } else { options.len_max };
                let copy = dead_letter::copy(letter, log.log_id(), topic, options.style, len_max);
                let copy = copy.map_err(|invalid| (NO_TOPIC, invalid.to_string()));
                copy.map(Some)
            }
            (true, None) => Ok(None),
            (false, _) => {
                let id_header = self.options.ship.id_header;
                let again = dead_letter::replay(letter, log.log_id(), id_header);
                let again =
                    again.ok_or_else(|| (0, "its bytes are no message; edit it".to_owned()));
                again.map(Some)
            }
        }
    }

    /// Makes the message of a letter, and says where it goes.
    fn find_place(
        &mut self,
        log: &DeadLetters,
        letter: &StoredLetter,
        is_copy: bool,
        now: Instant,
    ) -> Result<Found, store::Error> {
        let seq = letter.seq;
        let message = match self.message_of(log, letter, is_copy) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Found::Over),
            Err((code, why)) => {
                self.give_letter_up(log, seq, is_copy, code, &why)?;
                return Ok(Found::Over);
            }
        };
        let topic: Arc<str> = message.topic.as_str().into();
        let known = self.topics.get(&topic);
        let line = known.and_then(|topic| self.letters.lines.get(&topic.nowhere()));
        // One that was missing may have been created.
        let is_due = line.is_some_and(|line| line.is_due(now));
        if (known.is_none() || is_due)
            && let Err(why) = self.ask(&topic)
        {
            return Ok(Found::Silent(why));
        }
        let Some(known) = self.topics.get(&topic) else {
            return Ok(Found::Silent(String::new()));
        };
        let index = partition_of(known, message.partition, seq, message.key.as_deref());
        if let Some(line) = self.letters.lines.get(&index)
            && !line.is_due(now)
        {
            return Ok(Found::Passed(line.is_stuck()));
        }
        let is_leaderless = match self.is_still_leaderless(&topic, index) {
            Ok(is_leaderless) => is_leaderless,
            Err(why) => return Ok(Found::Silent(why)),
        };
        match self.topics.named(index).and_then(|(.., number)| number) {
            Some(_) if is_leaderless => {
                self.hold_line(index, HoldReason::NoLeader, now);
                Ok(Found::Passed(false))
            }
            Some(partition) => Ok(Found::Ready(Ready {
                seq,
                message,
                index,
                partition,
            })),
            None if known.count == 0 => {
                self.hold_line(index, HoldReason::UnknownTopic, now);
                Ok(Found::Passed(false))
            }
            None => {
                let why = format!("topic `{topic}` has no such partition");
                self.give_letter_up(log, seq, is_copy, NO_PARTITION, &why)?;
                Ok(Found::Over)
            }
        }
    }

    /// Hands the letters over that were made ready, as far as there is time and room.
    pub(in crate::ship::exactly_once) fn take_letters(&mut self, open: &mut Transaction) {
        let batch = mem::take(&mut self.letters.batch);
        for ready in &batch {
            while !self.send_letter(ready, open) {
                self.collect(open, POLL_WAIT);
                let is_over = Instant::now() >= open.deadline || self.is_stopped();
                if is_over || open.failure.is_some() || open.taint.is_some() {
                    return;
                }
                self.show_often();
            }
        }
    }

    /// Hands a letter to librdkafka; false if it has to wait.
    fn send_letter(&mut self, ready: &Ready, open: &mut Transaction) -> bool {
        let now = Instant::now();
        let message = &ready.message;
        let (headers, len) = (message.header_refs(), message.content_len());
        let cost = budget::cost(len, &headers);
        let room = self.budget.room(ready.index, cost);
        if room != budget::Room::Yes || !self.shared.has_room(now) {
            return false;
        }
        let sent = self.producer.producer().send(&Outgoing {
            topic: &message.topic,
            partition: i32::try_from(ready.partition).unwrap_or(i32::MAX),
            key: message.key.as_deref(),
            value: message.value.as_deref(),
            headers: &headers,
            // Zero is the time of sending.
            timestamp_millis: message.timestamp_millis.unwrap_or(0),
            token: u64::try_from(open.carried.len()).unwrap_or(u64::MAX),
            is_careful: false,
        });
        let carried = Carried {
            seq: ready.seq,
            cost: u32::try_from(cost).unwrap_or(u32::MAX),
            partition: u32::try_from(ready.index).unwrap_or(u32::MAX),
        };
        self.carried(sent, carried, len, now, open)
    }

    /// What the intent of a transaction of letters says of them; none if it carries no letters.
    pub(in crate::ship::exactly_once) fn letters_of(
        &self,
        open: &Transaction,
    ) -> Result<Option<(LogId, SentLetters)>, Error> {
        let Load::Letters { are_copies } = open.load else {
            return Ok(None);
        };
        let log = self.store.dead_letters()?.log_id();
        let letters = SentLetters {
            seqs: open.carried.iter().map(|carried| carried.seq).collect(),
            are_copies,
            is_done: false,
        };
        Ok(Some((log, letters)))
    }
}

/// Whether letters are to be sent again, or copied.
fn wait(store: &store::Store, cluster: &str, are_copied: bool) -> bool {
    let log = store.dead_letters_if_any().ok().flatten();
    log.is_some_and(|log| log.has_pending(cluster) || (are_copied && log.has_uncopied(cluster)))
}

/// Whether a lane that ends has to be run once more, for letters that others wrote meanwhile.
pub(in crate::ship::exactly_once) fn are_left(
    store: &store::Store,
    options: &super::ExactlyOnceOptions,
) -> bool {
    let are_copied = options.ship.dead_letters.topic.is_some();
    options.ship.until == Until::Empty
        && are_copied
        && wait(store, &options.ship.cluster, are_copied)
}
