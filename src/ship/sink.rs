//! The seam between the shipper and Kafka: what the loop needs, and the real thing behind it.
//!
//! Public because tests put a scripted one in its place. Invariants asked of every sink: records
//! of one partition arrive in the order they were sent, until one of them fails; each record taken
//! is reported at most once; after [`Sink::rebuild`] nothing taken before is reported or sent.

use std::thread;
use std::time::{Duration, Instant};

use super::LinkOptions;
use crate::kafka::{
    self, Breaks, ErrorClass, Failure, Outcome, Outgoing, Persistence, Probed, Prober, Producer,
    Report, SendError, Settings, Trouble,
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
}

/// How long the producer for what may be refused is kept without use.
const CAREFUL_IDLE: Duration = Duration::from_secs(60);

/// A Kafka cluster as a sink.
#[derive(Debug)]
pub struct KafkaSink {
    settings: Settings,
    producer: Producer,
    /// For what may be refused, and when it was last of use.
    careful: Option<(Producer, Instant)>,
    /// What went wrong with it, untold.
    careful_trouble: Option<Trouble>,
    /// How long its requests may take, if that is longer than usual.
    patience: Option<Duration>,
    /// Whether it is to be replaced with the next poll.
    gives_back: bool,
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
            careful_trouble: None,
            patience: None,
            gives_back: false,
            prober: Prober::default(),
        })
    }
}

impl KafkaSink {
    /// The producer for what may be refused.
    fn careful(&mut self) -> Result<&mut Producer, SendError> {
        let now = Instant::now();
        let (producer, used) = match self.careful.take() {
            Some(careful) => self.careful.insert(careful),
            // Its configuration is the other one's, which was accepted.
            None => match Producer::careful(&self.settings, self.patience) {
                Ok(producer) => self.careful.insert((producer, now)),
                Err(_) => return Err(SendError::QueueFull),
            },
        };
        *used = now;
        Ok(producer)
    }

    /// Takes the reports of the careful producer, and replaces it where it is spent.
    fn poll_careful(&mut self, reports: &mut Vec<Report>) {
        let Some((producer, used)) = &mut self.careful else {
            return;
        };
        producer.poll(Duration::ZERO, reports);
        let trouble = producer.trouble();
        self.careful_trouble = trouble.clone().or(self.careful_trouble.take());
        let spent = trouble.filter(|trouble| trouble.class == ErrorClass::Fatal);
        let is_spent = spent.is_some() || std::mem::take(&mut self.gives_back);
        if is_spent {
            let failure = Failure {
                class: ErrorClass::Fatal,
                code: spent.as_ref().map_or(0, |trouble| trouble.code),
                name: spent.map_or_else(String::new, |trouble| trouble.reason),
                persistence: Persistence::Possibly,
            };
            let in_doubt = |token| Report {
                token,
                outcome: Outcome::Failed(Box::new(failure.clone())),
            };
            reports.extend(producer.outstanding().into_iter().map(in_doubt));
        }
        let is_idle = producer.in_flight() == 0 && used.elapsed() > CAREFUL_IDLE;
        if is_spent || is_idle {
            self.careful = None;
        }
        if is_idle {
            self.patience = None;
        }
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
        self.producer.in_flight() + careful
    }

    fn partitions(&mut self, topic: &str, timeout: Duration) -> Result<u32, kafka::Error> {
        Ok(self.producer.partitions(topic, timeout)?.count)
    }

    fn leaderless(&mut self, topic: &str, timeout: Duration) -> Vec<u32> {
        let asked = self.producer.partitions(topic, timeout);
        asked.map(|of| of.leaderless).unwrap_or_default()
    }

    fn rebuild_careful(&mut self) {
        self.gives_back = self.careful.is_some();
    }

    fn breaks(&mut self, is_careful: bool) -> Breaks {
        match (is_careful, &mut self.careful) {
            (false, _) => self.producer.breaks(),
            (true, Some((careful, _))) => careful.breaks(),
            (true, None) => Breaks::default(),
        }
    }

    fn be_patient(&mut self, longest: Duration) {
        if self.patience.replace(longest) == Some(longest) {
            return;
        }
        match &self.careful {
            Some((careful, _)) if careful.in_flight() > 0 => self.gives_back = true,
            _ => self.careful = None,
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
