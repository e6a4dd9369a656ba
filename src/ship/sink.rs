//! The seam between the shipper and Kafka: what the loop needs, and the real thing behind it.
//!
//! Public because tests put a scripted one in its place. Invariants asked of every sink: records
//! of one partition arrive in the order they were sent, until one of them fails; each record taken
//! is reported at most once; after [`Sink::rebuild`] nothing taken before is reported or sent.

use std::thread;
use std::time::{Duration, Instant};

use super::LinkOptions;
use crate::kafka::{
    self, Breaks, ErrorClass, Failure, Leader, Outcome, Outgoing, Persistence, Probed, Prober,
    Producer, Report, SendError, Settings, Trouble,
};

/// Where records go.
pub trait Sink {
    /// Hands one record over. Never blocks.
    ///
    /// # Errors
    ///
    /// [`SendError::QueueFull`]: the same record again after a poll. [`SendError::Failed`]: it was
    /// not taken.
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError>;

    /// What is sent carefully to this partition until [`Sink::end_piece`] goes to the cluster as one
    /// batch, which it takes or refuses as a whole. False: only one record may be sent.
    fn begin_piece(&mut self, topic: &str, partition: i32) -> bool;

    /// See [`Sink::begin_piece`].
    fn end_piece(&mut self, topic: &str, partition: i32);

    /// Appends what became of records. If nothing did, it may wait for that, up to `timeout`.
    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>);

    /// How many records were taken and not reported.
    fn in_flight(&self) -> usize;

    /// Asks how many partitions a topic has. Creates no topic. Blocks up to `timeout`.
    ///
    /// # Errors
    ///
    /// [`kafka::Error::Unreachable`] if nobody answered; every other error is an answer.
    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error>;

    /// The partitions of a topic that the cluster has no leader for, as far as it says. Blocks up to
    /// `timeout`.
    fn leaderless(&mut self, _topic: &str, _timeout: Duration) -> Vec<u32> {
        Vec::new()
    }

    /// Who leads a partition, asked for a few bytes. Blocks up to `timeout` for the cluster, and as long for
    /// the leader.
    ///
    /// # Errors
    ///
    /// As [`Sink::partitions`]: the leader was not asked then.
    fn leader(
        &mut self,
        topic: &str,
        partition: u32,
        timeout: Duration,
    ) -> Result<Leader, kafka::Error> {
        match self.leaderless(topic, timeout).contains(&partition) {
            true => Ok(Leader::None),
            false => Ok(Leader::Answers),
        }
    }

    /// Gives back, as in doubt, what was sent carefully and not reported.
    fn rebuild_careful(&mut self) {}

    /// How often established connections broke since this was last asked: those of what is sent
    /// carefully, or those of the rest.
    fn breaks(&mut self, _is_careful: bool) -> Breaks {
        Breaks::default()
    }

    /// What is sent carefully from now on may take this long to cross the link, until nothing more is.
    fn be_patient(&mut self, _longest: Duration) {}

    /// What went wrong with the connection since this was last asked.
    fn trouble(&mut self) -> Option<Trouble>;

    /// Looks whether anybody is there, cheaply: starts a probe unless one is under way, and gives
    /// its verdicts once they are in. Never blocks.
    fn probe(&mut self, link: &LinkOptions) -> Option<Probed>;

    /// Starts anew. What was taken and not reported is in doubt, but for what was sent carefully,
    /// which goes on.
    ///
    /// # Errors
    ///
    /// [`kafka::Error`] if the configuration is not accepted.
    fn rebuild(&mut self) -> Result<(), kafka::Error>;

    /// Who is on the other side, for a person.
    fn address(&self) -> &str;

    /// What time it is for who ships into it. A scripted one may let a day pass in seconds.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Lets time pass.
    fn pause(&mut self, pause: Duration) {
        thread::sleep(pause);
    }

    /// Nothing can be done for `wait` unless a record is appended: for how long to wait for one. A scripted one
    /// that lets the time pass itself says zero.
    fn rest(&mut self, wait: Duration) -> Duration {
        wait
    }
}

/// How long the producer for what may be refused is kept without use.
const CAREFUL_IDLE: Duration = Duration::from_secs(60);

/// How long there is none after one that was spent: what spends it at once costs next to nothing.
const CAREFUL_PAUSE: Duration = Duration::from_millis(100);

/// A Kafka cluster as a sink.
#[derive(Debug)]
pub struct KafkaSink {
    settings: Settings,
    producer: Producer,
    /// For what may be refused, and when it was last of use.
    careful: Option<(Producer, Instant)>,
    /// When one was spent last.
    careful_spent: Option<Instant>,
    /// What went wrong with it, untold.
    careful_trouble: Option<Trouble>,
    /// How long its requests may take, if that is longer than usual.
    patience: Option<Duration>,
    /// What one that was ended gave back, unreported.
    given_back: Vec<Report>,
    prober: Prober,
}

impl KafkaSink {
    /// Creates the producer. A cluster that is away is no error.
    ///
    /// # Errors
    ///
    /// [`kafka::Error`] if the configuration is not accepted.
    pub fn new(settings: Settings) -> Result<KafkaSink, kafka::Error> {
        let producer = Producer::new(&settings)?;
        Ok(KafkaSink {
            settings,
            producer,
            careful: None,
            careful_spent: None,
            careful_trouble: None,
            patience: None,
            given_back: Vec::new(),
            prober: Prober::default(),
        })
    }
}

impl KafkaSink {
    /// The producer for what may be refused.
    fn careful(&mut self) -> Result<&mut Producer, SendError> {
        let now = Instant::now();
        let is_soon = |spent| now.saturating_duration_since(spent) < CAREFUL_PAUSE;
        let (producer, used) = match self.careful.take() {
            Some(careful) => self.careful.insert(careful),
            None if self.careful_spent.is_some_and(is_soon) => return Err(SendError::QueueFull),
            // Its configuration is the other one's, which was accepted.
            None => match Producer::careful(&self.settings, self.patience) {
                Ok(producer) => self.careful.insert((producer, now)),
                Err(_) => return Err(SendError::QueueFull),
            },
        };
        *used = now;
        Ok(producer)
    }

    /// Takes the reports of the careful producer, and ends it where it is spent, or of no use for long.
    fn poll_careful(&mut self, reports: &mut Vec<Report>) {
        if let Some((producer, used)) = &mut self.careful {
            producer.poll(Duration::ZERO, reports);
            let is_idle = producer.in_flight() == 0 && used.elapsed() > CAREFUL_IDLE;
            let trouble = producer.trouble();
            self.careful_trouble = trouble.clone().or(self.careful_trouble.take());
            let spent = trouble.filter(|trouble| trouble.class == ErrorClass::Fatal);
            if let Some(trouble) = spent {
                self.end_careful(trouble.code, trouble.reason);
                self.careful_spent = Some(Instant::now());
            } else if is_idle {
                (self.careful, self.patience) = (None, None);
            }
        }
        reports.append(&mut self.given_back);
    }

    /// Ends the careful producer; what it did not report is in doubt.
    fn end_careful(&mut self, code: i32, why: String) {
        let Some((mut producer, _)) = self.careful.take() else {
            return;
        };
        producer.poll(Duration::ZERO, &mut self.given_back);
        let failure = Failure {
            class: ErrorClass::Fatal,
            code,
            name: why,
            persistence: Persistence::Possibly,
        };
        let in_doubt = |token| Report {
            token,
            outcome: Outcome::Failed(Box::new(failure.clone())),
        };
        let outstanding = producer.outstanding();
        self.given_back
            .extend(outstanding.into_iter().map(in_doubt));
    }
}

impl Sink for KafkaSink {
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), SendError> {
        if record.is_careful {
            self.careful()?.send(record)
        } else {
            self.producer.send(record)
        }
    }

    fn begin_piece(&mut self, topic: &str, partition: i32) -> bool {
        self.careful()
            .is_ok_and(|producer| producer.pause(topic, partition))
    }

    fn end_piece(&mut self, topic: &str, partition: i32) {
        if let Ok(producer) = self.careful() {
            producer.resume(topic, partition);
        }
    }

    fn poll(&mut self, timeout: Duration, reports: &mut Vec<Report>) {
        self.poll_careful(reports);
        let wait = if reports.is_empty() {
            timeout
        } else {
            Duration::ZERO
        };
        self.producer.poll(wait, reports);
    }

    fn in_flight(&self) -> usize {
        let careful = self.careful.as_ref().map_or(0, |(p, _)| p.in_flight());
        self.producer.in_flight() + careful + self.given_back.len()
    }

    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error> {
        Ok(self.producer.partitions(topic, timeout)?.count)
    }

    fn leaderless(&mut self, topic: &str, timeout: Duration) -> Vec<u32> {
        let asked = self.producer.partitions(topic, timeout);
        asked.map(|of| of.leaderless).unwrap_or_default()
    }

    fn leader(
        &mut self,
        topic: &str,
        partition: u32,
        timeout: Duration,
    ) -> Result<Leader, kafka::Error> {
        self.producer.leader(topic, partition, timeout)
    }

    fn rebuild_careful(&mut self) {
        self.end_careful(0, String::new());
    }

    fn breaks(&mut self, is_careful: bool) -> Breaks {
        match (is_careful, &mut self.careful) {
            (false, _) => self.producer.breaks(),
            (true, Some((careful, _))) => careful.breaks(),
            (true, None) => Breaks::default(),
        }
    }

    fn be_patient(&mut self, longest: Duration) {
        if self.patience.replace(longest) != Some(longest) {
            self.end_careful(0, String::new());
        }
    }

    fn trouble(&mut self) -> Option<Trouble> {
        // What ends the careful producer ends with it.
        let careful = self.careful_trouble.take();
        let careful = careful.filter(|trouble| trouble.class != ErrorClass::Fatal);
        self.producer.trouble().or(careful)
    }

    fn probe(&mut self, link: &LinkOptions) -> Option<Probed> {
        if !link.enabled {
            return Some(Probed::default());
        }
        self.prober.poll(|| link.plan(&self.settings))
    }

    fn rebuild(&mut self) -> Result<(), kafka::Error> {
        // The old one is dropped after this: what it still held is purged with it.
        self.producer = Producer::new(&self.settings)?;
        Ok(())
    }

    fn address(&self) -> &str {
        &self.settings.bootstrap_servers
    }
}
