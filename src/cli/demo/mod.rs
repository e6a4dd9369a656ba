//! `ferrylog demo`: the whole story on an embedded Kafka, in a directory of its own.
//!
//! 1. A child process appends at full speed and ships; in the middle it gets SIGKILL. What it had
//!    acknowledged is known here, outside of it.
//! 2. The store is reopened, and appending and shipping go on.
//! 3. The broker goes away; appending goes on. The broker returns; all arrives.
//! 4. Everything is read back from the broker and compared, record by record.
//!
//! Invariant: exit code 0 means that the broker holds every record, each partition in order, and
//! that the conservation line balances.

pub(super) mod append;
mod check;
mod record;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{
    Global,
    drain::{of_kafka, of_ship},
    failure::{self, Ended, Exit, Failure},
    output::{self, Progress},
    signals,
    status::Records,
};
use crate::{
    kafka::{Consumer, MockKafka, Settings},
    message::header,
    ship::{self, Drained, ShipOptions, Until},
    store::{Lane, Store},
    wal::Options,
};
use check::{Check, Found, Numbers};
use record::{LEN_MAX, TOPICS};

/// The embedded broker drops a partition's oldest records beyond 5 MiB. So many partitions are made
/// that each stays below it, even where keys fall unevenly and batches do not compress.
const PARTITION_BYTES: u64 = 4 << 20;
/// How long the broker stays away after the last record was appended.
const OUTAGE: Duration = Duration::from_secs(1);
/// Nothing arrived for this long: something is wrong with the demonstration itself.
const STUCK: Duration = Duration::from_secs(60);
/// How often the directory is removed while something still appears in it.
const REMOVALS_MAX: usize = 100;
/// What a shell shows for SIGKILL.
const SIGKILL: i32 = 9;

/// Show the whole story on an embedded Kafka: full speed, a kill, an outage, everything arrives
///
/// Needs no broker, works in a temporary directory of its own whatever --data says, and leaves
/// nothing behind, also when it is stopped. Exit code 0 only if the broker ends up with every
/// record, in order in each partition, and the conservation line balances.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Records to append
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    records: u64,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<Exit, Ended> {
    let stage = Stage::set()?;
    let mut story = Story::new(global, arguments.records)?;
    let partitions = (story.records * LEN_MAX)
        .div_ceil(PARTITION_BYTES)
        .div_ceil(TOPICS.len() as u64);
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    let kafka = MockKafka::start(1).map_err(|error| of_kafka(&error))?;
    for topic in TOPICS {
        kafka
            .create_topic(topic, partitions)
            .map_err(|error| of_kafka(&error))?;
    }
    story.tell(format!(
        "an embedded Kafka is up: {}, {partitions} partitions each",
        output::count(TOPICS.len() as u64, "topic"),
    ))?;
    let settings = Settings::new(kafka.bootstrap_servers());

    let acknowledged = kill_in_the_middle(&mut story, &stage, &settings)?;

    let store_failure = |error: crate::store::Error| failure::of_store(&error, &stage.path);
    let store = Store::open(&stage.path, Options::default()).map_err(store_failure)?;
    let lane = store.lane();
    let numbers = Numbers {
        log_id: lane.log_id(),
        survived: lane.totals().accepted,
        resumed: lane.marks().next,
    };
    story.tell(format!(
        "reopened: {} survived, {} of them shipped",
        output::count(numbers.survived, "record"),
        output::number(lane.totals().shipped),
    ))?;
    if numbers.survived < acknowledged {
        let lost = acknowledged - numbers.survived;
        return Err(story.wrong(format!(
            "{lost} acknowledged records did not survive the kill"
        )));
    }

    let drained =
        append_through_an_outage(&mut story, &store, &kafka, &settings, numbers.survived)?;
    let check = read_back(&mut story, &settings, partitions, numbers)?;
    let records = Records::of(&lane.totals());
    story.fact("copies", check.copies);
    story.fact("rebuilds", drained.rebuilds);
    story.end(&records)?;
    store.close().map_err(store_failure)?;
    verdict(&story, &check, &records)
}

/// Whether all of it was as it must be.
fn verdict(story: &Story<'_>, check: &Check, records: &Records) -> Result<Exit, Ended> {
    if let Some(wrong) = &check.wrong {
        let more = output::count(check.wrong_count, "record");
        return Err(story.wrong(format!("{more} wrong, the first one: {wrong}")));
    }
    if check.distinct != story.records {
        return Err(story.wrong(format!(
            "the broker holds {} of {}",
            output::number(check.distinct),
            output::count(story.records, "record"),
        )));
    }
    if !records.balances || records.queued > 0 {
        return Err(story.wrong("the conservation line does not balance".into()));
    }
    Ok(Exit::Done)
}

/// Waits for the child process to end.
fn wait_for(stage: &Stage) -> io::Result<ExitStatus> {
    let Some(mut child) = stage.child.lock().take() else {
        // A signal took it, and is about to end this process, too.
        loop {
            thread::park();
        }
    };
    child.wait()
}

/// Lets a child process append half of the records, and kills it in the middle of that. Returns how
/// many it had acknowledged.
fn kill_in_the_middle(
    story: &mut Story<'_>,
    stage: &Stage,
    settings: &Settings,
) -> Result<u64, Ended> {
    let io_failure = |action: &str, error: io::Error| {
        Failure::new(
            Exit::Unreachable,
            "io",
            format!("could not {action}: {error}"),
        )
        .next("the demonstration needs to start itself as a second process")
    };
    let program = env::current_exe().map_err(|error| io_failure("find this program", error))?;
    // Under the lock: a signal finds the child or prevents it.
    let mut stage_child = stage.child.lock();
    let child = Command::new(program)
        .arg("--data")
        .arg(&stage.path)
        .args([
            "demo-append",
            "--bootstrap-servers",
            &settings.bootstrap_servers,
        ])
        .args(["--records", &(story.records / 2).to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| io_failure("start a child process", error))?;
    let child = stage_child.insert(child);
    let stdout = child.stdout.take();
    // It reads its standard input, which closes with this process, and ends then.
    let _stdin = child.stdin.take();
    drop(stage_child);
    story.tell(
        "a child process appends at full speed and ships; each acknowledgement follows its sync"
            .into(),
    )?;

    let mut acknowledged = 0;
    let since = Instant::now();
    let mut killed = None;
    if let Some(stdout) = stdout {
        for line in BufReader::new(stdout).lines() {
            // A line that the kill cut short acknowledges nothing.
            let Some(count) = line.ok().and_then(|line| line.parse().ok()) else {
                break;
            };
            acknowledged = count;
            if killed.is_none() && acknowledged >= story.records / 4 {
                if let Some(child) = &mut *stage.child.lock() {
                    child.kill().map_err(|error| io_failure("kill it", error))?;
                }
                killed = Some(since.elapsed());
            }
        }
    }
    let status = wait_for(stage).map_err(|error| io_failure("wait for it", error))?;
    let is_killed = status.signal() == Some(SIGKILL);
    let Some(elapsed) = killed.filter(|_| is_killed) else {
        return Err(story.wrong(format!("the child process ended by itself: {status:?}")));
    };
    story.tell(format!(
        "SIGKILL: {} were acknowledged, {}",
        output::count(acknowledged, "record"),
        output::rate(acknowledged, elapsed),
    ))?;
    story.fact("acknowledged_before_kill", acknowledged);
    Ok(acknowledged)
}

/// Appends the rest, most of it while the broker is away, and waits until all has arrived.
fn append_through_an_outage(
    story: &mut Story<'_>,
    store: &Store,
    kafka: &MockKafka,
    settings: &Settings,
    survived: u64,
) -> Result<Drained, Ended> {
    let lane = store.lane();
    let stop = AtomicBool::new(false);
    let options = ShipOptions {
        until: Until::Stopped,
        ..ShipOptions::default()
    };
    thread::scope(|scope| {
        let shipping = scope.spawn(|| ship::drain(store, settings, &options, &stop, &mut |_| {}));
        let told = outage(story, lane, kafka, survived, &shipping)
            .and_then(|()| wait_until_shipped(story, lane, &shipping));
        stop.store(true, Ordering::Relaxed);
        let drained = shipping.join();
        told?;
        match drained {
            Ok(Ok(drained)) => Ok(drained),
            Ok(Err(error)) => Err(of_ship(&error, story.global).into()),
            Err(_) => Err(story.wrong("the shipping thread panicked".into())),
        }
    })
}

fn outage<T>(
    story: &mut Story<'_>,
    lane: &Lane,
    kafka: &MockKafka,
    survived: u64,
    shipping: &ScopedJoinHandle<'_, T>,
) -> Result<(), Ended> {
    let store_failure = |error| failure::of_store(&error, &story.global.data);
    let outage_from = survived + (story.records - survived) / 4;
    append::append(lane, survived..outage_from).map_err(store_failure)?;
    // The broker shall go away in the middle of shipping.
    let before = lane.totals().shipped;
    while lane.totals().shipped == before && !shipping.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
    kafka.down().map_err(|error| of_kafka(&error))?;
    let since = Instant::now();
    story.tell(format!(
        "the broker goes away, {} shipped so far; appending goes on",
        output::number(lane.totals().shipped)
    ))?;
    append::append(lane, outage_from..story.records).map_err(store_failure)?;
    let count = story.records - outage_from;
    story.tell(format!(
        "{} appended without a broker, all on disk, {}",
        output::count(count, "record"),
        output::rate(count, since.elapsed()),
    ))?;
    story.fact("appended_without_broker", count);
    story.fact(
        "append_records_per_second",
        per_second(count, since.elapsed()),
    );
    thread::sleep(OUTAGE.saturating_sub(since.elapsed()));
    kafka.up().map_err(|error| of_kafka(&error))?;
    story.tell(format!(
        "the broker is back after {:.1} s",
        since.elapsed().as_secs_f64()
    ))
}

fn wait_until_shipped<T>(
    story: &mut Story<'_>,
    lane: &Lane,
    shipping: &ScopedJoinHandle<'_, T>,
) -> Result<(), Ended> {
    let (since, before) = (Instant::now(), lane.totals().queued);
    let mut progress = Progress::new("shipping");
    let (mut queued, mut moved) = (before, since);
    while queued > 0 {
        // An end of the shipper is told by its own error.
        if shipping.is_finished() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
        let now = lane.totals().queued;
        if now < queued {
            (queued, moved) = (now, Instant::now());
        } else if moved.elapsed() > STUCK {
            return Err(story.wrong(format!("{queued} records do not move")));
        }
        progress.records(before - queued, Some(before));
    }
    drop(progress);
    story.tell(format!(
        "all arrived: {} since then, {}",
        output::count(before, "record"),
        output::rate(before, since.elapsed()),
    ))?;
    story.fact(
        "shipped_records_per_second",
        per_second(before, since.elapsed()),
    );
    Ok(())
}

/// Reads everything back from the broker and compares it.
fn read_back(
    story: &mut Story<'_>,
    settings: &Settings,
    partitions: i32,
    numbers: Numbers,
) -> Result<Check, Ended> {
    let since = Instant::now();
    let kafka_failure = |error: crate::kafka::Error| of_kafka(&error);
    let mut consumer = Consumer::new(settings).map_err(kafka_failure)?;
    let mut total = 0;
    for topic in TOPICS {
        for partition in 0..partitions {
            let end = consumer
                .end(topic, partition, STUCK)
                .map_err(kafka_failure)?;
            total += u64::try_from(end).unwrap_or(0);
        }
    }
    let assigned = TOPICS.map(|topic| (topic, partitions.unsigned_abs()));
    consumer.assign(&assigned).map_err(kafka_failure)?;

    let mut check = Check::new(story.records, numbers);
    let mut progress = Progress::new("comparing");
    let (mut count, mut moved) = (0, since);
    while count < total {
        let polled = consumer
            .poll(Duration::from_millis(100), &mut |record| {
                check.record(&Found {
                    topic: record.topic(),
                    partition: record.partition(),
                    key: record.key(),
                    value: record.value(),
                    id: record.header(header::ID),
                });
            })
            .map_err(kafka_failure)?;
        if polled > 0 {
            (count, moved) = (count + polled as u64, Instant::now());
        } else if moved.elapsed() > STUCK {
            return Err(story.wrong(format!("the broker gave {count} of {total} records")));
        }
        progress.records(count, Some(total));
    }
    drop(progress);
    story.tell(format!(
        "read back and compared: {}, {} more than once, {}",
        output::count(check.distinct, "record"),
        output::number(check.copies),
        output::rate(count, since.elapsed()),
    ))?;
    Ok(check)
}

/// Tells the story: a line a step, or one JSON object at the end.
struct Story<'a> {
    global: &'a Global,
    records: u64,
    since: Instant,
    facts: Map<String, Value>,
}

impl<'a> Story<'a> {
    fn new(global: &'a Global, records: u64) -> Result<Self, Ended> {
        let story = Self {
            global,
            records,
            since: Instant::now(),
            facts: Map::new(),
        };
        if !global.json {
            writeln!(
                output::stdout(),
                "{} through a kill and an outage:",
                output::count(records, "record")
            )?;
        }
        Ok(story)
    }

    fn tell(&self, text: String) -> Result<(), Ended> {
        if !self.global.json {
            let at = self.since.elapsed().as_secs_f64();
            writeln!(output::stdout(), "{at:5.1} s  {text}")?;
        }
        Ok(())
    }

    fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.into(), value.into());
    }

    fn end(&mut self, records: &Records) -> Result<(), Ended> {
        if self.global.json {
            self.fact("records", json!(records));
            self.fact("seconds", self.since.elapsed().as_secs_f64());
            return output::json(&self.facts);
        }
        self.tell(records.line())
    }

    /// What must not be, told as a failure.
    fn wrong(&self, message: String) -> Ended {
        Failure::new(Exit::Wrong, "demo", message)
            .next("this is a bug: please report it with this output")
            .into()
    }
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    (count as f64 / elapsed.as_secs_f64().max(1e-9)).round()
}

/// The demonstration's own directory and child process: gone whatever the end, a signal's too.
struct Stage {
    path: PathBuf,
    child: Arc<Mutex<Option<Child>>>,
}

impl Stage {
    fn set() -> Result<Self, Failure> {
        let path = env::temp_dir().join(format!("ferrylog-demo-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| {
            Failure::new(
                Exit::Unreachable,
                "io",
                format!("could not make {}: {error}", path.display()),
            )
            .next("set TMPDIR to a directory that can be written")
        })?;
        let child = Arc::default();
        let stage = Self { path, child };
        let on_signal = Self {
            path: stage.path.clone(),
            child: Arc::clone(&stage.child),
        };
        signals::before_the_end(move || drop(on_signal))?;
        Ok(stage)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().take() {
            // It may be gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        // The store of another thread may be making a file in it just now: then once more. Left
        // behind, it is what temporary directories are cleaned for.
        for _ in 0..REMOVALS_MAX {
            if fs::remove_dir_all(&self.path).is_ok() {
                break;
            }
        }
    }
}
