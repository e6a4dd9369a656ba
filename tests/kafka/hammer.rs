//! 64 threads and 64 tasks send through one producer while the broker comes and goes, and the process
//! is killed: what was called durable is on disk, what was called delivered is in Kafka.
//!
//! The producer lives in a process of its own: the same test, told by its environment to send. There are
//! three, with `KAFKA_LONG=1` of a minute each; in the second the tasks have a runtime of several threads.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ferrylog::message::MessageRef;
use ferrylog::store::StoreView;
use ferrylog::wal::SeqNo;
use ferrylog::{Outcome, Producer, Receipt};

use crate::copies;
use crate::gateway::Gateway;
use crate::kafka::{Kafka, wait_for};
use crate::process::{self, Process};
use crate::random::{self, Random};

const THREADS: u64 = 64;
const TASKS: u64 = 64;
const TOPIC: &str = "hammered";

/// Records of one sender that may wait for Kafka: what bounds a run without a broker.
const UNDELIVERED: usize = 128;

/// The most memory that the sending process may have taken, in KiB.
const MEMORY: u64 = 160 << 10;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn what_128_senders_were_told_is_true_after_kills_of_the_process_and_of_the_broker() {
    if let Some(arguments) = process::arguments() {
        return send_until_told_to_stop(&arguments);
    }
    let mut random = Random(random::seed());
    let seconds = if env::var_os("KAFKA_LONG").is_some() {
        60
    } else {
        5
    };
    let gateway = Gateway::new();
    let mut kafka = Kafka::start();
    kafka.create_topic(TOPIC, 4);

    let mut told = Told::default();
    for run in 0..3 {
        let sending = Sending::start(run, &gateway.data, &kafka);
        wait_for("the first delivery", SOON, || sending.delivered() > 0);
        let down = Duration::from_millis(500 + random.below(2_000));
        let up = Duration::from_millis(random.below(1_000));
        for half in 0..2 {
            // The faults themselves, as all sleeps here.
            thread::sleep(Duration::from_secs(seconds) / 2 - down);
            if half == 0 {
                kafka.stop();
                thread::sleep(down);
                kafka.restart();
            } else {
                kafka.pause();
                thread::sleep(down);
                kafka.resume();
            }
        }
        thread::sleep(up);
        let ended = sending.stop(if run == 2 {
            Process::end
        } else {
            Process::kill
        });
        println!(
            "run {run}: {} durable, {} delivered, at most {} KiB",
            ended.durable.len(),
            ended.delivered.len(),
            ended.memory
        );
        assert!(ended.memory < MEMORY, "{} KiB", ended.memory);
        told.add(ended);
        expect_on_disk(&gateway.data, &told);
    }
    let status = gateway.status();
    let count = status.count("accepted");
    status.expect_all_shipped(count);
    expect_in_kafka(&kafka, &status.log_id, count, &told);
}

/// What a process said; records by their numbers.
#[derive(Default)]
struct Told {
    durable: HashMap<u64, String>,
    delivered: BTreeSet<u64>,
    memory: u64,
}

impl Told {
    fn add(&mut self, other: Told) {
        for (seq, value) in other.durable {
            let before = self.durable.insert(seq, value);
            assert_eq!(before, None, "{seq} was given twice");
        }
        self.delivered.extend(other.delivered);
    }

    /// A line of the process; those of the test harness are not for us.
    fn hear(&mut self, line: &str) {
        if let Some(seq) = line.strip_prefix('+') {
            self.delivered.insert(seq.parse().unwrap());
        } else if let Some((seq, value)) = line.split_once(' ')
            && let Ok(seq) = seq.parse()
        {
            self.durable.insert(seq, value.to_owned());
        }
    }
}

/// A process that sends, and what it said.
struct Sending {
    process: Process,
    told: Arc<Mutex<Told>>,
}

impl Sending {
    fn start(run: u32, data: &Path, kafka: &Kafka) -> Sending {
        let told = Arc::new(Mutex::new(Told::default()));
        let heard = Arc::clone(&told);
        let (servers, run) = (kafka.bootstrap_servers(), run.to_string());
        let arguments = [data.to_str().unwrap(), &servers, &run];
        let hear = move |line: &str| heard.lock().unwrap().hear(line);
        let process = Process::start(&arguments, hear);
        Sending { process, told }
    }

    fn delivered(&self) -> usize {
        self.told.lock().unwrap().delivered.len()
    }

    /// Ends it this way; all that it said.
    fn stop(self, end: fn(Process)) -> Told {
        let memory = peak_memory(self.process.id());
        end(self.process);
        let mut told = std::mem::take(&mut *self.told.lock().unwrap());
        told.memory = memory;
        told
    }
}

/// The most memory that a process has had, in KiB.
fn peak_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.unwrap().split_whitespace().next();
    words.unwrap().parse().unwrap()
}

/// What was called durable is in the log, unless the log has settled it.
fn expect_on_disk(data: &Path, told: &Told) {
    let view = StoreView::open(data).unwrap();
    let lane = &view.lanes()[0];
    let marks = lane.marks();
    let mut there = HashMap::new();
    let mut reader = lane.reader(marks.acked);
    while let Some(entry) = reader.next().unwrap() {
        let value = entry.message.unwrap().value.unwrap();
        there.insert(entry.seq, String::from_utf8(value.to_vec()).unwrap());
    }
    println!("{} are in the log from {} on", there.len(), marks.acked);
    for (seq, value) in &told.durable {
        let seq = SeqNo::new(*seq);
        assert!(seq < marks.durable, "{seq} is not on disk");
        if seq >= marks.acked {
            assert_eq!(there.get(&seq), Some(value), "{seq}");
        }
    }
}

fn expect_in_kafka(kafka: &Kafka, log_id: &str, count: u64, told: &Told) {
    let mut partitions: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    let mut values: HashMap<u64, String> = HashMap::new();
    kafka.consume_each(TOPIC, |record| {
        let seq = copies::identify(&record, log_id);
        let value = String::from_utf8(record.value.unwrap()).unwrap();
        let first = values.entry(seq).or_insert_with(|| value.clone());
        assert_eq!(*first, value, "the copies of {seq}");
        partitions.entry(record.partition).or_default().push(seq);
    });
    // Numbers leap where a process was killed: what counts is how many there are.
    assert_eq!(values.len() as u64, count);
    let repeats = copies::judge(&partitions, &values.keys().copied().collect());
    println!("{count} records: {repeats:?}");
    for (seq, value) in &told.durable {
        assert_eq!(values.get(seq), Some(value), "{seq}");
    }
    assert!(told.delivered.iter().all(|seq| values.contains_key(seq)));
}

/// What the test runs in a process of its own.
fn send_until_told_to_stop(arguments: &[String]) {
    let [dir, servers, run] = arguments else {
        panic!("{arguments:?}");
    };
    let producer = Producer::open(dir, servers).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let out = Arc::new(Mutex::new(BufWriter::new(io::stdout())));
    let sender = |number: u64| Sender {
        producer: producer.clone(),
        out: Arc::clone(&out),
        stop: Arc::clone(&stop),
        name: format!("{run}.{number}"),
        sent: 0,
        undelivered: VecDeque::new(),
    };
    let mut threads: Vec<JoinHandle<()>> = (0..THREADS)
        .map(|number| {
            let sender = sender(number);
            thread::spawn(move || sender.send_as_a_thread())
        })
        .collect();
    let tasks: Vec<Sender> = (THREADS..THREADS + TASKS).map(sender).collect();
    let mut runtime = match &**run {
        "1" => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    threads.push(thread::spawn(move || {
        runtime.build().unwrap().block_on(async {
            let tasks = tasks
                .into_iter()
                .map(|task| tokio::spawn(task.send_as_a_task()));
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
    }));
    process::wait_for_the_end();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    let closed = producer.close(SOON).unwrap();
    assert!(closed.is_empty(), "{closed:?}");
    out.lock().unwrap().flush().unwrap();
}

/// One of those who send, and what it waits for.
struct Sender {
    producer: Producer,
    out: Arc<Mutex<BufWriter<io::Stdout>>>,
    stop: Arc<AtomicBool>,
    name: String,
    sent: u64,
    undelivered: VecDeque<Receipt<'static>>,
}

impl Sender {
    fn send_as_a_thread(mut self) {
        while let Some(value) = self.next() {
            let receipt = self.producer.send(&self.message(&value));
            let receipt = receipt.unwrap().into_owned();
            receipt.durable().wait().unwrap();
            if let Some(oldest) = self.is_durable(receipt, &value) {
                let outcome = oldest.delivered().wait();
                self.is_delivered(&oldest, outcome.unwrap());
            }
        }
    }

    async fn send_as_a_task(mut self) {
        while let Some(value) = self.next() {
            let receipt = self.producer.send_async(&self.message(&value)).await;
            let receipt = receipt.unwrap().into_owned();
            receipt.durable().await.unwrap();
            if let Some(oldest) = self.is_durable(receipt, &value) {
                let outcome = oldest.delivered().await;
                self.is_delivered(&oldest, outcome.unwrap());
            }
        }
    }

    fn next(&mut self) -> Option<String> {
        self.sent += 1;
        let goes_on = !self.stop.load(Ordering::Relaxed);
        goes_on.then(|| format!("{}.{}.{:0>100}", self.name, self.sent, 0))
    }

    fn message<'a>(&'a self, value: &'a str) -> MessageRef<'a> {
        MessageRef {
            key: Some(self.name.as_bytes()),
            value: Some(value.as_bytes()),
            ..MessageRef::to(TOPIC)
        }
    }

    /// Gives back the receipt to wait for before more is sent.
    fn is_durable(&mut self, receipt: Receipt<'static>, value: &str) -> Option<Receipt<'static>> {
        self.tell(format_args!("{} {value}", receipt.range().start));
        self.undelivered.push_back(receipt);
        let is_enough = self.undelivered.len() > UNDELIVERED;
        is_enough.then(|| self.undelivered.pop_front()).flatten()
    }

    fn is_delivered(&self, receipt: &Receipt<'_>, outcome: Outcome) {
        assert_eq!(outcome, Outcome::Shipped);
        self.tell(format_args!("+{}", receipt.range().start));
    }

    fn tell(&self, line: fmt::Arguments<'_>) {
        // Written at once, a line is never parted: the test harness says something of its own after a minute.
        let line = format!("{line}\n");
        self.out.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }
}
