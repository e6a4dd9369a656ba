//! `ferrylog send`: appends lines.
//!
//! A thread reads the input in chunks, this one cuts it into lines and appends them without a wait
//! between, and with `--acks` a third one prints what has become durable. The input may block for
//! ever (a terminal, a pipe); a signal still ends the command, because only its own thread waits
//! for it.
//!
//! Invariants: a SeqNo is printed only after a sync that covers its record; exit code 0 means that
//! every line is on disk; every other end says how many are.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    Global, due,
    failure::{self, Ended, Exit, Failure},
    input::{self, Chunk, Source},
    lines::{Lines, TooLong},
    output::{self, Progress},
    signals,
};
use crate::{
    message::{self, Due, MessageRef},
    store::{
        self, DEFAULT_LANE, LANE_NAME_LEN_MAX, Lane, LaneOptions, Routed, Store, StoreOptions,
        is_lane_name,
    },
    wal::{Durability, OnFull, SeqNo},
};

/// How often a waiting thread looks at what it must stop for.
const GLANCE: Duration = Duration::from_millis(100);

/// Append lines to the store, one record a line; no Kafka is needed
///
/// A line ends with a line feed, or with a carriage return and a line feed; neither is part of the
/// record. An empty line is a record with an empty value. A line that is refused (over the limit,
/// or without the key separator) ends the command: the lines before it stay accepted, and the
/// message says how many.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Topic that the records are for [default: as kafka.default_topic says]
    #[arg(long)]
    topic: Option<String>,

    /// Lane that keeps the records, made if need be [default: the one that claims the topic]
    #[arg(long, value_name = "NAME", value_parser = lane_name)]
    lane: Option<String>,

    /// Split each line at the first S into key and value (\t is a tab)
    #[arg(long, value_name = "S", value_parser = key_separator)]
    key_separator: Option<String>,

    /// What makes a record accepted: disk (a sync), os (a write), memory (nothing) [default: as configured, disk]
    #[arg(long, value_name = "LEVEL")]
    durability: Option<Durability>,

    /// Have the records wait in the store: for an interval (10s, "1h 30m", PT10S) from their append on, or until a
    /// time (2026-11-21T20:51:53Z). They go to their lane when somebody ships and they are due
    #[arg(long, value_name = "WHEN", value_parser = due::due)]
    due: Option<Due>,

    /// Print each record's number, one a line, as soon as it is on disk
    #[arg(long, conflicts_with = "due")]
    acks: bool,

    /// Files to read; none or - is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn lane_name(text: &str) -> Result<String, String> {
    if is_lane_name(text) {
        return Ok(text.into());
    }
    Err(format!(
        "use 1 to {LANE_NAME_LEN_MAX} of a-z, 0-9, '-' and '_'"
    ))
}

fn key_separator(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    Ok(text.replace("\\t", "\t"))
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<Exit, Ended> {
    let named = topic(global, arguments)?;
    let sources = input::sources(&arguments.files)?;
    let total_bytes = sources.iter().map(Source::len).sum();
    let stop = signals::stop_flag()?;
    let options = options(global, arguments);
    let limit = options.default.wal.max_record_bytes;
    let store_failure = |error: &store::Error| failure::of_store(error, &global.data);
    let store = super::open_store_with(global, &options)?;
    let routed = route(&store, arguments, named);
    let (lane, topic) = (&store.lanes()[routed.place], &*routed.topic);
    let due = arguments.due.filter(|due| !store.is_due(*due));

    let started = Instant::now();
    let mut sending = Sending {
        arguments,
        topic,
        due,
        store: &store,
        lane,
        chunks: input::read(sources.clone()),
        sources: &sources,
        stop: &stop,
        limit,
        first: lane.marks().next,
        last: None,
        count: 0,
        bytes: 0,
    };
    let end = AtomicU64::new(u64::MAX);
    let (appended, synced, printed) = thread::scope(|scope| {
        let (lane, first, end) = (sending.lane, sending.first, &end);
        let printing = arguments
            .acks
            .then(|| scope.spawn(move || print_acks(lane, first, end)));
        let appended = sending.append_all(total_bytes);
        let synced = sending.sync();
        let durable = *synced.as_ref().unwrap_or(&lane.marks().durable);
        end.store(durable.get(), Ordering::Release);
        let printed = printing.map_or(Ok(()), |printing| {
            let panicked = |_| Err(io::Error::other("the printing thread panicked"));
            printing.join().unwrap_or_else(panicked)
        });
        (appended, synced, printed)
    });
    let sent = sending.sent(started);
    let closed = synced.and_then(|_| store.close());
    if let Err(error) = closed {
        let fact = format!(
            "of the {} taken, those not printed by --acks may or may not be kept",
            output::count(sent.count, "record")
        );
        return Err(store_failure(&error).fact(&fact).into());
    }
    match appended {
        // Whoever does not hear of it must not send it again.
        Ok(()) => printed
            .map_err(Ended::from)
            .and_then(|()| sent.tell(global, arguments, topic))
            .map(|()| Exit::Done)
            .map_err(|ended| ended.fact(&sent.accepted())),
        Err(Refused { place, failure }) => {
            Err(failure.context(&place).fact(&sent.before_it()).into())
        }
    }
}

/// Where the records go.
fn route<'a>(store: &Store, arguments: &'a Arguments, topic: &'a str) -> Routed<'a> {
    store.routed(&MessageRef {
        lane: arguments.lane.as_deref(),
        ..MessageRef::to(topic)
    })
}

/// The topic that the records are for.
fn topic<'a>(global: &'a Global, arguments: &'a Arguments) -> Result<&'a str, Failure> {
    let configured = &global.loaded.config.kafka.default_topic;
    let topic = arguments.topic.as_ref().or(configured.as_ref());
    let Some(topic) = topic else {
        return Err(Failure::new(Exit::Usage, "usage", "no topic is given")
            .next("name it with --topic, or in the configuration: kafka.default_topic"));
    };
    match message::check_topic(topic) {
        Ok(()) => Ok(topic),
        Err(error) => Err(Failure::new(Exit::Usage, "usage", error.to_string())),
    }
}

fn options(global: &Global, arguments: &Arguments) -> StoreOptions {
    let mut config = global.loaded.config.clone();
    if !global.loaded.is_given("store.on_full") {
        config.store.on_full = OnFull::Reject; // whoever started this has the input still
    }
    let mut options = config.store_options();
    if let Some(name) = &arguments.lane
        && name != DEFAULT_LANE
    {
        let lane = || LaneOptions::new(options.default.wal.clone());
        options.lanes.entry(name.clone()).or_insert_with(lane);
    }
    if let Some(durability) = arguments.durability {
        let all = options.lanes.values_mut().chain([&mut options.default]);
        all.for_each(|lane| lane.wal.durability = durability);
    }
    options
}

/// What ended the appending early, and where.
struct Refused {
    place: String,
    failure: Failure,
}

/// The appending half of the command.
struct Sending<'a> {
    arguments: &'a Arguments,
    topic: &'a str,
    /// When they are due, if that is later.
    due: Option<Due>,
    store: &'a Store,
    lane: &'a Lane,
    chunks: Receiver<Chunk>,
    sources: &'a [Source],
    stop: &'a AtomicBool,
    limit: usize,
    first: SeqNo,
    last: Option<SeqNo>,
    count: u64,
    bytes: u64,
}

impl Sending<'_> {
    fn append_all(&mut self, total_bytes: Option<u64>) -> Result<(), Refused> {
        let mut progress = Progress::new("sending");
        let mut read_bytes = 0;
        for source in self.sources {
            let mut lines = Lines::new(self.limit);
            loop {
                match self.next_chunk().map_err(|failure| Refused {
                    place: source.name(),
                    failure,
                })? {
                    Chunk::Bytes(chunk) => {
                        lines
                            .feed(&chunk, |line| self.append(line))
                            .map_err(|error| self.refused(source, &lines, error))?;
                        read_bytes += chunk.len() as u64;
                        progress.bytes(read_bytes, total_bytes);
                    }
                    Chunk::End => break,
                    Chunk::Failed(error) => {
                        return Err(Refused {
                            place: source.name(),
                            failure: input::unreadable(Exit::Unreachable, &error),
                        });
                    }
                }
            }
            lines
                .finish(|line| self.append(line))
                .map_err(|error| self.refused(source, &lines, error))?;
        }
        Ok(())
    }

    /// Waits until all of it is on disk; how much of the lane is.
    fn sync(&self) -> Result<SeqNo, store::Error> {
        match self.due {
            None => self.lane.sync(),
            Some(_) => self
                .store
                .sync_schedule()
                .map(|()| self.lane.marks().durable),
        }
    }

    fn sent(&self, started: Instant) -> Sent {
        Sent {
            count: self.count,
            bytes: self.bytes,
            seqs: self.last.map(|last| (self.first, last)),
            waits: self.due.is_some(),
            elapsed: started.elapsed(),
        }
    }

    fn next_chunk(&self) -> Result<Chunk, Failure> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Failure::new(Exit::Wrong, "stopped", "stopped by a signal")
                    .next("send the rest of the input again"));
            }
            match self.chunks.recv_timeout(GLANCE) {
                Ok(chunk) => return Ok(chunk),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let error = io::Error::other("the reading thread ended");
                    return Ok(Chunk::Failed(error));
                }
            }
        }
    }

    fn append(&mut self, line: &[u8]) -> Result<(), LineError> {
        let (key, value) = match &self.arguments.key_separator {
            None => (None, line),
            Some(separator) => {
                let (key, value) =
                    split_once(line, separator.as_bytes()).ok_or(LineError::NoSeparator)?;
                (Some(key), value)
            }
        };
        let message = MessageRef {
            key,
            value: Some(value),
            due: self.due,
            ..MessageRef::to(self.topic)
        };
        if self.due.is_some() {
            // It has no number in its lane yet.
            drop(self.store.schedule(self.lane, &[message])?);
        } else {
            self.last = Some(self.lane.append(&message)?.seq());
        }
        self.count += 1;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn refused(&self, source: &Source, lines: &Lines, error: LineError) -> Refused {
        let failure = match error {
            LineError::TooLong => Failure::new(
                Exit::Wrong,
                "too_large",
                format!(
                    "the line is longer than the limit of {} bytes",
                    output::number(self.limit as u64)
                ),
            )
            .next("split the record; a smaller one is accepted"),
            LineError::NoSeparator => Failure::new(
                Exit::Wrong,
                "refused",
                format!(
                    "the line has no key separator {:?}",
                    self.arguments.key_separator.as_deref().unwrap_or_default()
                ),
            )
            .next("correct the line, then send from it on"),
            LineError::Store(error) => failure::of_store(&error, Path::new("")),
        };
        Refused {
            place: format!("{}:{}", source.name(), lines.number()),
            failure,
        }
    }
}

/// Why a line was not appended.
enum LineError {
    TooLong,
    NoSeparator,
    Store(store::Error),
}

impl From<TooLong> for LineError {
    fn from(TooLong: TooLong) -> Self {
        Self::TooLong
    }
}

impl From<store::Error> for LineError {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

fn split_once<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line
        .windows(separator.len())
        .position(|window| window == separator)?;
    let (key, rest) = line.split_at_checked(at)?;
    Some((key, rest.get(separator.len()..)?))
}

/// What was accepted, and is on disk.
struct Sent {
    count: u64,
    bytes: u64,
    seqs: Option<(SeqNo, SeqNo)>,
    /// Whether they wait until they are due.
    waits: bool,
    elapsed: Duration,
}

impl Sent {
    fn range(&self) -> String {
        self.seqs
            .map(|(first, last)| format!(" (SeqNo {first} to {last})"))
            .unwrap_or_default()
    }

    fn before_it(&self) -> String {
        match self.count {
            0 => "nothing before it was accepted".into(),
            _ => format!("what came before it is {}", self.accepted()),
        }
    }

    fn accepted(&self) -> String {
        format!(
            "accepted and on disk: {}{}",
            output::count(self.count, "record"),
            self.range()
        )
    }

    fn tell(&self, global: &Global, arguments: &Arguments, topic: &str) -> Result<(), Ended> {
        if global.json {
            return output::json(&json!({
                "accepted": self.count,
                "bytes": self.bytes,
                "first_seq": self.seqs.map(|(first, _)| first.get()),
                "last_seq": self.seqs.map(|(_, last)| last.get()),
                "scheduled": self.waits,
                "seconds": self.elapsed.as_secs_f64(),
            }));
        }
        let text = format!(
            "{} for {} accepted and on disk{}{}, {}\n",
            output::count(self.count, "record"),
            topic,
            self.range(),
            if self.waits { " until due" } else { "" },
            output::rate(self.count, self.elapsed),
        );
        // Standard output belongs to the acknowledgements where they were asked for.
        if arguments.acks {
            io::stderr().lock().write_all(text.as_bytes())?;
        } else {
            output::stdout().write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

/// Prints the numbers from `printed` on as they become durable, until `end` is known and reached.
fn print_acks(lane: &Lane, mut printed: SeqNo, end: &AtomicU64) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    while printed.get() < end.load(Ordering::Acquire) {
        let since = Instant::now();
        let durable = lane.wait_durable(printed, GLANCE);
        if durable <= printed {
            // A log that has failed does not wait; the appending thread is told why.
            thread::sleep(GLANCE.saturating_sub(since.elapsed()));
            continue;
        }
        let numbers = printed.get()..durable.get();
        let written = numbers
            .into_iter()
            .try_for_each(|seq| writeln!(out, "{seq}"));
        match written.and_then(|()| out.flush()) {
            // Nobody hears the acknowledgements any more: the records are still welcome.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        printed = durable;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        let cases = [
            ("k:v", ":", Some(("k", "v"))),
            ("k:v:w", ":", Some(("k", "v:w"))),
            (":v", ":", Some(("", "v"))),
            ("k:", ":", Some(("k", ""))),
            ("k=>v", "=>", Some(("k", "v"))),
            ("kv", ":", None),
            ("", ":", None),
        ];
        for (line, separator, expected) in cases {
            let expected = expected.map(|(key, value)| (key.as_bytes(), value.as_bytes()));
            assert_eq!(
                split_once(line.as_bytes(), separator.as_bytes()),
                expected,
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_backslash_t_is_a_tab_and_an_empty_separator_is_refused() {
        assert_eq!(key_separator("\\t").as_deref(), Ok("\t"));
        assert_eq!(key_separator(":").as_deref(), Ok(":"));
        assert!(key_separator("").is_err());
    }
}
