//! Finding out what became of the last transaction, and whether this store is the only one of its name.
//!
//! Owns the reading; what follows from it stands in `decide`. Invariant: nothing is concluded from
//! a part of the progress topic that is not stable.

use std::time::{Duration, Instant};

use super::committer::{Committer, PAUSE};
use super::decide::{self, Found, Look, Place, Verdict};
use super::error::Halt;
use super::record::ProgressRecord;
use super::undo::NO_PROGRESS;
use super::{Error, ProgressIn};
use crate::kafka::{self, Registered, Scan, Scanned};
use crate::store::Nonce;
use crate::wal::Class;

/// How long one question to the cluster may take; bounds how late a stop is seen.
const TRY: Duration = Duration::from_secs(3);

/// Until it is asked again whether a transaction is still open: a pause, doubled up to this. It may be open for
/// 15 minutes, and the question may cost money.
const UNSTABLE_WAIT_MAX: Duration = Duration::from_secs(1);

/// Until then a reader that does not get on has only just begun.
const SOON: Duration = Duration::from_secs(2);

/// What was read.
#[derive(Debug, Default)]
struct Looked {
    newest: Option<Newest>,
    /// The place that was looked for is not there any more, or not yet.
    is_gone: bool,
}

#[derive(Debug)]
enum Newest {
    Record(ProgressRecord),
    /// A newer version of this program wrote it.
    Unknown,
}

impl Committer<'_> {
    /// Decides the last transaction. False when told to stop.
    pub(super) fn resolve(&mut self) -> Result<bool, Error> {
        self.settle_confirmed()?;
        let last = self.last();
        let intent = self.intents.intent().cloned();
        let is_same_cluster = intent.as_ref().is_some_and(|intent| {
            intent.cluster_id == self.cluster_id && intent.topic == self.options.progress_topic
        });
        let by_options = self.options.progress == ProgressIn::Offsets;
        let place = Place {
            is_copy: self.intents.is_copy(),
            is_fenced: self.is_fenced,
            is_same_cluster,
            is_in_offsets: intent.as_ref().map_or(by_options, |i| i.is_in_offsets),
        };
        let partition_offset = intent.as_ref().and_then(|i| i.partition_offset);
        let previous = intent.as_ref().and_then(|i| i.previous_partition_offset);
        let look = decide::look(last, place, partition_offset, previous);
        if look != Look::Nowhere {
            let Some(looked) = self.look_up(look)? else {
                return Ok(false);
            };
            let found = match &looked.newest {
                None => Found::Nothing,
                Some(Newest::Record(record)) => Found::of(self.intents.knows(&record.nonce)),
                Some(Newest::Unknown) => Found::Foreign,
            };
            let is_first = intent.is_none_or(|intent| intent.previous == Nonce::NONE);
            let passed = decide::passed(look, last, found, looked.is_gone, is_first);
            let passed = is_same_cluster && passed;
            if let (Look::Offsets, Some(Newest::Record(record))) = (look, &looked.newest) {
                self.registered = Some((record.nonce, Instant::now()));
            }
            self.act(decide::judge(last, found, passed), &looked)?;
        }
        self.is_fenced = false;
        // What that says is seen with the next transaction.
        self.note.take_if(|note| *note != NO_PROGRESS);
        Ok(true)
    }

    /// The newest intent confirms all before it, also what the cursor was not saved for.
    fn settle_confirmed(&mut self) -> Result<(), Error> {
        let Some(intent) = self.intents.intent() else {
            return Ok(());
        };
        let Some(stream) = self.stream_of(intent.log) else {
            return Ok(());
        };
        let marks = stream.marks();
        if intent.span.end > marks.durable {
            return Err(self.foreign(&format!(
                "records up to {} were shipped, and the log ends at {}: it is older than that",
                intent.span.end, marks.durable
            )));
        }
        if marks.acked < intent.span.start {
            let confirmed = marks.acked..intent.span.start;
            stream.settle(confirmed, Class::Shipped);
        }
        Ok(())
    }

    fn act(&mut self, verdict: Verdict, looked: &Looked) -> Result<(), Error> {
        let intent = self.intents.intent();
        let letters = intent.and_then(|i| Some((i.log, i.letters.clone()?)));
        let span = intent.map(|intent| (intent.log, intent.span.clone()));
        match verdict {
            Verdict::GoOn => {}
            Verdict::GoOnAlarmed => {
                let alarm = "the cluster does not have the progress that this store had: another \
                    cluster, or one that lost it; shipping goes on from what is settled here";
                self.alarm = Some(alarm.to_owned());
            }
            Verdict::Sent => {
                if let Some((log, letters)) = letters {
                    self.letters_arrived(log, &letters)?;
                    self.transactions += 1;
                } else if let Some((log, span)) = span
                    && let Some(stream) = self.stream_of(log)
                {
                    stream.settle(span, Class::Shipped);
                    stream.save_cursor()?;
                    self.transactions += 1;
                }
                // Who said so did not know.
                self.intents.note_aborted(false)?;
            }
            Verdict::NotSent => {
                self.intents.note_aborted(true)?;
                self.aborted += 1;
            }
            Verdict::InDoubt => {
                let is_in_offsets = self.intents.intent().is_some_and(|i| i.is_in_offsets);
                let why = if is_in_offsets {
                    "the offsets of their group hold nothing of it: forgotten, or another cluster"
                } else if looked.is_gone {
                    "their place in the progress topic is not there any more"
                } else {
                    "this cluster, or its progress topic, is not the one they were sent to"
                };
                return Err(Error::ExactlyOnce(Halt::InDoubt {
                    span: span.map(|(_, span)| span).unwrap_or_default(),
                    letters: letters.map_or_else(Vec::new, |(_, letters)| letters.seqs),
                    why: why.to_owned(),
                }));
            }
            Verdict::Foreign => {
                let why = match &looked.newest {
                    Some(Newest::Record(record)) => format!(
                        "the newest progress is up to record {}, and not this store's",
                        record.mark
                    ),
                    Some(Newest::Unknown) | None => {
                        "the newest progress is of a newer version".to_owned()
                    }
                };
                return Err(self.foreign(&why));
            }
        }
        Ok(())
    }

    fn foreign(&self, why: &str) -> Error {
        Error::ExactlyOnce(Halt::Foreign {
            identity: self.transactional_id.clone(),
            why: why.to_owned(),
        })
    }

    /// Reads the progress topic; `None` when told to stop.
    fn look_up(&mut self, look: Look) -> Result<Option<Looked>, Error> {
        let started = Instant::now();
        loop {
            match self.read(look, started) {
                Ok(looked) => return Ok(looked),
                Err(Reading::Failed(kafka::Error::Unreachable { name, .. })) => {
                    self.lost(&name);
                    if !self.await_link()? {
                        return Ok(None);
                    }
                }
                Err(Reading::Failed(source)) => {
                    return Err(Error::ExactlyOnce(Halt::ProgressTopic {
                        topic: self.options.progress_topic.clone(),
                        source,
                    }));
                }
                Err(Reading::Over(error)) => return Err(error),
            }
        }
    }

    fn read(&mut self, look: Look, started: Instant) -> Result<Option<Looked>, Reading> {
        if look == Look::Offsets {
            return self.read_offsets(started);
        }
        let topic = self.options.progress_topic.as_str();
        let partition = self.progress_partition;
        let (low, end) = kafka::bounds(self.kafka, topic, partition, TRY)?;
        let (from, until) = match look {
            Look::Nowhere | Look::Offsets => return Ok(Some(Looked::default())),
            Look::At(exact) => (exact, exact + 1),
            Look::From(from) => (from.unwrap_or(low), end),
        };
        let is_gone = from < low || until > end || from > end;
        let (from, until) = if is_gone { (low, end) } else { (from, until) };
        let mut looked = Looked {
            newest: None,
            is_gone,
        };
        let key = self.progress_key();
        let mut scan = Scan::new(self.kafka, topic, partition, from, until)?;
        let mut wait = Duration::ZERO;
        loop {
            let scanned = scan.step(TRY, &mut |record| {
                if record.key() == Some(key.as_bytes()) {
                    looked.newest = record.value().map(|value| {
                        ProgressRecord::decode(value).map_or(Newest::Unknown, Newest::Record)
                    });
                }
            })?;
            wait = match scanned {
                Scanned::Done => return Ok(Some(looked)),
                Scanned::Going => {
                    if started.elapsed() >= SOON {
                        self.note_unstable(from, started);
                    }
                    PAUSE
                }
                Scanned::Unstable(stable) => {
                    self.note_unstable(stable, started);
                    (2 * wait).clamp(PAUSE, UNSTABLE_WAIT_MAX)
                }
            };
            self.wait(wait)?;
            if self.is_stopped() {
                return Ok(None);
            }
        }
    }

    /// Reads the offsets of the group once they are stable; `None` when told to stop.
    fn read_offsets(&mut self, started: Instant) -> Result<Option<Looked>, Reading> {
        loop {
            let newest = match self.register()?.read(TRY)? {
                Registered::Nothing => None,
                Registered::Value(text) => {
                    let record = ProgressRecord::of_text(&text);
                    Some(record.map_or(Newest::Unknown, Newest::Record))
                }
                Registered::Unstable => {
                    self.note = Some(format!(
                        "resolving for {} s whether the last transaction was committed: another one that wrote to the offsets of {} is \
                         open and ends within its own timeout, 15 minutes at most unless the brokers allow more",
                        started.elapsed().as_secs(),
                        self.transactional_id
                    ));
                    self.wait(PAUSE)?;
                    if self.is_stopped() {
                        return Ok(None);
                    }
                    continue;
                }
            };
            return Ok(Some(Looked {
                newest,
                is_gone: false,
            }));
        }
    }

    /// Waits so long, a pause at least. The cluster answers: nothing here is a lost link.
    fn wait(&mut self, time: Duration) -> Result<(), Reading> {
        let started = Instant::now();
        loop {
            self.progressed = Instant::now();
            self.pause("").map_err(Reading::Over)?;
            if started.elapsed() >= time || self.is_stopped() {
                return Ok(());
            }
        }
    }

    fn note_unstable(&mut self, stable: i64, started: Instant) {
        self.note = Some(format!(
            "resolving for {} s whether the last transaction was committed: another one is open behind {stable} in partition {} of {} \
             and ends within its own timeout, 15 minutes at most unless the brokers allow more",
            started.elapsed().as_secs(),
            self.progress_partition,
            self.options.progress_topic
        ));
    }
}

/// Why reading ended early.
enum Reading {
    Failed(kafka::Error),
    Over(Error),
}

impl From<kafka::Error> for Reading {
    fn from(error: kafka::Error) -> Reading {
        Reading::Failed(error)
    }
}
