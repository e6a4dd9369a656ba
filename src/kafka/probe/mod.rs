//! Cheap signs of life: a TCP connection, an answer that only a broker gives, an expected page.
//!
//! Owns the threads that connect, and how the verdicts about several servers become one. Must not
//! know what it is used for. Invariants: the caller never waits; a server has at most one
//! thread, so that a resolver that hangs costs one for each server, however often it is probed;
//! nothing secret is sent.

mod ping;
mod reach;
mod servers;
mod wire;

use std::fmt;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::Settings;
use reach::Resolve;

pub use ping::Ping;
pub(crate) use servers::{bad_server, names_none};

/// The most servers that are probed; of a longer list the first ones.
pub const TARGETS_MAX: usize = 16;

/// The most threads at a time; more than one for each server and the page can only hang where the
/// list of servers was changed meanwhile.
const THREADS_MAX: usize = 2 * (TARGETS_MAX + 1);

/// A step up from "a cable is plugged in" to "our records can be delivered".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rung {
    /// A TCP connection.
    Tcp,
    /// An answer to `ApiVersions`, which a broker gives before any authentication; where TLS is
    /// configured, an answer in TLS.
    ApiVersions,
    /// A page that only answers as expected where no login page is in the way.
    Ping,
    /// An answer about our own topics, over the producer itself.
    Metadata,
}

impl Rung {
    /// All of them, in the order in which they are climbed.
    pub const ALL: [Rung; 4] = [Rung::Tcp, Rung::ApiVersions, Rung::Ping, Rung::Metadata];
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rung::Tcp => "tcp",
            Rung::ApiVersions => "api versions",
            Rung::Ping => "ping",
            Rung::Metadata => "metadata",
        })
    }
}

/// How many servers must pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Require {
    /// One is enough.
    #[default]
    Any,
    /// Each one.
    All,
}

/// What a probe found out: the verdicts of the rungs that were climbed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Each rung with its verdict, in the order in which they were climbed; none if there was
    /// nothing to climb.
    pub rungs: Vec<(Rung, Result<(), String>)>,
}

impl Probed {
    /// Nothing, or why not.
    ///
    /// # Errors
    ///
    /// The reason of the lowest rung that failed.
    pub fn verdict(&self) -> Result<(), &str> {
        let reasons = self.rungs.iter().filter_map(|(_, verdict)| {
            let reason = verdict.as_ref().err()?;
            Some(reason.as_str())
        });
        reasons.take(1).map(Err).next().unwrap_or(Ok(()))
    }
}

/// A verdict without details, as of the lowest rung.
impl From<Result<(), String>> for Probed {
    fn from(verdict: Result<(), String>) -> Probed {
        Probed {
            rungs: vec![(Rung::Tcp, verdict)],
        }
    }
}

/// What a server is asked once it is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// It need not be a broker.
    Nothing,
    Kafka,
    Tls,
}

/// What to probe.
#[derive(Clone, Debug)]
pub struct Plan {
    targets: Vec<(String, Question)>,
    require: Require,
    ping: Option<Ping>,
    timeout: Duration,
}

impl Plan {
    /// Probes `targets`, or the bootstrap servers if there are none, and a page if there is one, all
    /// within `timeout`. Only bootstrap servers are expected to answer as brokers: another target
    /// may be a gateway on the way.
    pub fn new(
        settings: &Settings,
        targets: &[String],
        require: Require,
        ping: Option<Ping>,
        timeout: Duration,
    ) -> Plan {
        let protocol = settings.security_protocol();
        let bootstrap = |server: servers::Server| {
            let protocol = server.protocol.as_deref().unwrap_or(protocol);
            let question = if protocol.to_ascii_lowercase().ends_with("ssl") {
                Question::Tls
            } else {
                Question::Kafka
            };
            (server.address, question)
        };
        let bootstrap: Vec<_> = servers::servers(&settings.bootstrap_servers)
            .map(bootstrap)
            .collect();
        let mut chosen: Vec<(String, Question)> = targets
            .iter()
            .flat_map(|list| servers::servers(list))
            .map(|target| {
                let known = bootstrap.iter().find(|(known, _)| *known == target.address);
                known.map_or((target.address, Question::Nothing), Clone::clone)
            })
            .collect();
        if chosen.is_empty() {
            chosen = bootstrap;
        }
        chosen.truncate(TARGETS_MAX);
        Plan {
            targets: chosen,
            require,
            ping,
            timeout,
        }
    }
}

/// Probes again and again, one plan at a time.
pub struct Prober {
    resolve: Resolve,
    /// The threads that may still run, by what they connect to.
    running: Vec<(String, Weak<()>)>,
    climb: Option<Climb>,
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober")
            .field("running", &self.running.len())
            .field("climb", &self.climb)
            .finish_non_exhaustive()
    }
}

impl Default for Prober {
    fn default() -> Prober {
        Prober {
            resolve: reach::system_resolver(),
            running: Vec::new(),
            climb: None,
        }
    }
}

impl Prober {
    /// The verdict of the probe under way once there is one. Starts a probe if none is under way.
    /// Never blocks.
    pub fn poll(&mut self, plan: impl FnOnce() -> Plan) -> Option<Probed> {
        let mut climb = match self.climb.take() {
            Some(climb) => climb,
            None => self.start(plan()),
        };
        let probed = climb.poll(Instant::now());
        if probed.is_none() {
            self.climb = Some(climb);
        }
        probed
    }

    fn start(&mut self, plan: Plan) -> Climb {
        let (sender, steps) = mpsc::channel();
        let deadline = Instant::now() + plan.timeout;
        let mut climb = Climb {
            found: vec![Found::default(); plan.targets.len()],
            ping: None,
            plan,
            steps,
            deadline,
        };
        self.running.retain(|(_, thread)| thread.strong_count() > 0);
        for (index, (address, question)) in climb.plan.targets.iter().enumerate() {
            let job = Job {
                address: address.clone(),
                question: *question,
                resolve: Arc::clone(&self.resolve),
                deadline,
            };
            let sender = sender.clone();
            if let Err(why) = self.run(address, move |mark| job.climb(index, &sender, mark)) {
                climb.found[index].tcp = Some(Err(format!("{address}: {why}")));
            }
        }
        if let Some(page) = climb.plan.ping.clone() {
            let address = page.address.clone();
            let resolve = Arc::clone(&self.resolve);
            let ask = move |mark| {
                let verdict = reach_page(&page, &resolve, deadline);
                drop(mark);
                let _ = sender.send(Step::Ping(verdict));
            };
            if let Err(why) = self.run(&format!("http://{address}"), ask) {
                climb.ping = Some(Err(format!("{address}: {why}")));
            }
        }
        climb
    }

    /// Runs something on a thread of its own, unless the last one for the same is still at it: it
    /// counts as such until it drops the mark that it is given.
    fn run<F>(&mut self, what: &str, job: F) -> Result<(), &'static str>
    where
        F: FnOnce(Arc<()>) + Send + 'static,
    {
        if self.running.iter().any(|(running, _)| running == what) {
            return Err("the last probe of it still waits, most likely for its name");
        }
        if self.running.len() >= THREADS_MAX {
            return Err("too many probes wait");
        }
        let mark = Arc::new(());
        let thread = Arc::downgrade(&mark);
        thread::Builder::new()
            .name("ferrylog-probe".to_owned())
            .spawn(move || job(mark))
            .map_err(|_| "no thread could be started for it")?;
        self.running.push((what.to_owned(), thread));
        Ok(())
    }
}

/// A step that a thread tells. The verdict may be in already, and nobody listening any more.
enum Step {
    Resolved(usize),
    Target(usize, Rung, Result<(), String>),
    Ping(Result<(), String>),
}

/// What one thread climbs.
struct Job {
    address: String,
    question: Question,
    resolve: Resolve,
    deadline: Instant,
}

impl Job {
    /// Climbs as far as it gets. The mark is dropped before the last word, so that whoever hears it
    /// may start the next thread.
    fn climb(&self, index: usize, sender: &Sender<Step>, mark: Arc<()>) {
        let address = &self.address;
        let tell = |rung, verdict: Result<(), String>| {
            let verdict = verdict.map_err(|why| format!("{address}: {why}"));
            let _ = sender.send(Step::Target(index, rung, verdict));
        };
        let connected = (self.resolve)(address).and_then(|addresses| {
            let _ = sender.send(Step::Resolved(index));
            reach::connect(&addresses, self.deadline)
        });
        let stream = match (connected, self.question) {
            (Ok(_), Question::Nothing) => {
                drop(mark);
                return tell(Rung::Tcp, Ok(()));
            }
            (Err(error), _) => {
                drop(mark);
                return tell(Rung::Tcp, Err(error.to_string()));
            }
            (Ok(stream), Question::Kafka | Question::Tls) => stream,
        };
        tell(Rung::Tcp, Ok(()));
        let verdict = match self.question {
            Question::Tls => {
                let host = address.rsplit_once(':').map_or("", |(host, _)| host);
                reach::ask_tls(stream, host, self.deadline)
            }
            Question::Kafka | Question::Nothing => reach::ask_kafka(stream, self.deadline),
        };
        drop(mark);
        tell(Rung::ApiVersions, verdict);
    }
}

fn reach_page(page: &Ping, resolve: &Resolve, deadline: Instant) -> Result<(), String> {
    let stream = resolve(&page.address)
        .and_then(|addresses| reach::connect(&addresses, deadline))
        .map_err(|error| error.to_string());
    stream
        .and_then(|stream| reach::ask_page(stream, page, deadline))
        .map_err(|why| format!("{}: {why}", page.address))
}

/// What is known of one server.
#[derive(Clone, Debug, Default)]
struct Found {
    is_resolved: bool,
    tcp: Option<Result<(), String>>,
    api_versions: Option<Result<(), String>>,
}

/// A probe under way.
struct Climb {
    plan: Plan,
    /// One for each target.
    found: Vec<Found>,
    ping: Option<Result<(), String>>,
    steps: Receiver<Step>,
    deadline: Instant,
}

impl fmt::Debug for Climb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Climb")
            .field("plan", &self.plan)
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

impl Climb {
    fn poll(&mut self, now: Instant) -> Option<Probed> {
        loop {
            match self.steps.try_recv() {
                Ok(Step::Resolved(index)) => self.found[index].is_resolved = true,
                Ok(Step::Target(index, Rung::Tcp, verdict)) => {
                    self.found[index].tcp = Some(verdict);
                }
                Ok(Step::Target(index, _, verdict)) => {
                    self.found[index].api_versions = Some(verdict);
                }
                Ok(Step::Ping(verdict)) => self.ping = Some(verdict),
                Err(TryRecvError::Empty) if now < self.deadline => break,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    self.give_up_waiting();
                    break;
                }
            }
        }
        self.probed()
    }

    /// Whatever is not known by now has failed.
    fn give_up_waiting(&mut self) {
        let timeout = self.plan.timeout;
        for ((address, question), found) in self.plan.targets.iter().zip(&mut self.found) {
            let what = if found.is_resolved {
                "connection"
            } else {
                "address for the name"
            };
            found
                .tcp
                .get_or_insert_with(|| Err(format!("{address}: no {what} within {timeout:?}")));
            if *question != Question::Nothing {
                found
                    .api_versions
                    .get_or_insert_with(|| Err(format!("{address}: no answer within {timeout:?}")));
            }
        }
        if let Some(page) = &self.plan.ping {
            let late = || Err(format!("{}: no answer within {timeout:?}", page.address));
            self.ping.get_or_insert_with(late);
        }
    }

    /// The verdicts, once enough is known for all of them. What follows a failure is not waited
    /// for.
    fn probed(&self) -> Option<Probed> {
        let require = self.plan.require;
        let tcp = joint(require, self.found.iter().map(|found| found.tcp.as_ref()))?;
        let mut is_passing = tcp.is_ok();
        let mut rungs = vec![(Rung::Tcp, tcp)];

        let asked = self.plan.targets.iter().zip(&self.found);
        let mut asked = asked
            .filter(|((_, question), _)| *question != Question::Nothing)
            .map(|(_, found)| match &found.tcp {
                Some(Err(_)) => found.tcp.as_ref(),
                Some(Ok(())) | None => found.api_versions.as_ref(),
            })
            .peekable();
        if is_passing && asked.peek().is_some() {
            let verdict = joint(require, asked)?;
            is_passing = verdict.is_ok();
            rungs.push((Rung::ApiVersions, verdict));
        }
        match (&self.plan.ping, &self.ping) {
            (Some(_), Some(verdict)) => rungs.push((Rung::Ping, verdict.clone())),
            (Some(_), None) if is_passing => return None,
            (Some(_), None) | (None, _) => {}
        }
        Some(Probed { rungs })
    }
}

/// One verdict from those about several servers; `None` while it depends on one that is not in.
fn joint<'a>(
    require: Require,
    verdicts: impl Iterator<Item = Option<&'a Result<(), String>>>,
) -> Option<Result<(), String>> {
    let (mut passed, mut waiting, mut reasons) = (0, 0, Vec::new());
    for verdict in verdicts {
        match verdict {
            Some(Ok(())) => passed += 1,
            Some(Err(reason)) => reasons.push(reason.as_str()),
            None => waiting += 1,
        }
    }
    let is_decided = match require {
        Require::Any => passed > 0 || waiting == 0,
        Require::All => !reasons.is_empty() || waiting == 0,
    };
    let has_passed = match require {
        Require::Any => passed > 0,
        Require::All => reasons.is_empty(),
    };
    is_decided.then(|| has_passed.then_some(()).ok_or_else(|| reasons.join("; ")))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A listener whose every connection gets this, after something was received.
    fn server(answer: &'static [u8]) -> String {
        serve(move |mut stream| {
            let mut received = [0; 512];
            if stream.read(&mut received).is_ok() {
                let _ = stream.write_all(answer);
            }
        })
    }

    fn broker() -> String {
        let answer = wire::api_versions_answer(&[0, 1, 3, 18]);
        server(answer.leak())
    }

    fn serve(each: impl Fn(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || listener.incoming().flatten().for_each(each));
        address
    }

    /// Accepts and says nothing, for as long as the listener lives.
    fn mute() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    /// A loopback address on which nothing listens.
    fn closed() -> String {
        mute().1
    }

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_secs(1);

    fn plan(bootstrap: &str, timeout: Duration) -> Plan {
        Plan::new(&Settings::new(bootstrap), &[], Require::Any, None, timeout)
    }

    fn climb(prober: &mut Prober, plan: &Plan) -> Probed {
        let started = Instant::now();
        loop {
            if let Some(probed) = prober.poll(|| plan.clone()) {
                return probed;
            }
            assert!(started.elapsed() < 2 * LONG, "no verdict");
            thread::yield_now();
        }
    }

    fn probe(plan: &Plan) -> Probed {
        climb(&mut Prober::default(), plan)
    }

    /// The rungs that were climbed, and the reason of the last one if it failed.
    fn outcome(probed: &Probed) -> (Vec<Rung>, Option<&str>) {
        let rungs = probed.rungs.iter().map(|(rung, _)| *rung).collect();
        (rungs, probed.verdict().err())
    }

    #[test]
    fn a_broker_passes_both_rungs() {
        let probed = probe(&plan(&broker(), LONG));
        let rungs = vec![Rung::Tcp, Rung::ApiVersions];
        assert_eq!(outcome(&probed), (rungs, None));
    }

    #[test]
    fn a_closed_port_fails_the_first_rung_and_each_server_is_named() {
        let (a, b) = (closed(), closed());
        let probed = probe(&plan(&format!("{a}, {b}"), LONG));
        let (rungs, reason) = outcome(&probed);
        assert_eq!(rungs, [Rung::Tcp]);
        let reason = reason.unwrap();
        assert!(reason.contains(&a) && reason.contains(&b), "{reason}");
    }

    #[test]
    fn a_port_that_never_answers_fails_the_second_rung_at_the_timeout() {
        let (_listener, address) = mute();
        let started = Instant::now();
        let probed = probe(&plan(&address, SHORT));
        assert!(started.elapsed() >= SHORT);
        let (rungs, reason) = outcome(&probed);
        assert_eq!(rungs, [Rung::Tcp, Rung::ApiVersions]);
        assert!(reason.unwrap().contains("no answer"), "{reason:?}");
    }

    #[test]
    fn what_is_no_broker_fails_the_second_rung_with_the_reason() {
        let controller = wire::api_versions_answer(&[3, 18]).leak();
        let huge = wire::api_versions_answer(&[0; 20_000]).leak();
        let broker = wire::api_versions_answer(&[0, 3]).leak();
        for (answer, why) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "not as Kafka"),
            (&[0x15, 3, 3, 0, 2, 2, 10], "answers in TLS"),
            (&[], "closes the connection"),
            (&broker[..broker.len() - 1], "closes the connection"),
            (controller, "controller"),
            (huge, "not as Kafka"),
        ] {
            let probed = probe(&plan(&server(answer), LONG));
            let (rungs, reason) = outcome(&probed);
            assert_eq!(rungs, [Rung::Tcp, Rung::ApiVersions]);
            assert!(reason.unwrap().contains(why), "{why}: {reason:?}");
        }
    }

    #[test]
    fn where_tls_is_configured_any_tls_record_is_an_answer() {
        for (answer, why) in [
            (&[0x16, 3, 3, 0, 90, 2][..], None),
            (&[0x15, 3, 1, 0, 2, 2, 70], None),
            (b"HTTP/1.1 400 Bad Request\r\n", Some("not in TLS")),
            (&[0x16, 3], Some("closes the connection")),
        ] {
            let mut settings = Settings::new(server(answer));
            settings
                .properties
                .push(("security.protocol".to_owned(), "SASL_SSL".to_owned()));
            let probed = probe(&Plan::new(&settings, &[], Require::Any, None, LONG));
            let (rungs, reason) = outcome(&probed);
            assert_eq!(rungs, [Rung::Tcp, Rung::ApiVersions]);
            match why {
                None => assert_eq!(reason, None),
                Some(why) => assert!(reason.unwrap().contains(why), "{reason:?}"),
            }
        }
    }

    #[test]
    fn a_protocol_in_front_of_a_server_counts_for_it() {
        let address = server(&[0x16, 3, 3, 0, 90]);
        let probed = probe(&plan(&format!("SSL://{address}"), LONG));
        assert_eq!(probed.verdict(), Ok(()));
        let probed = probe(&plan(&address, LONG));
        assert!(probed.verdict().is_err());
    }

    #[test]
    fn one_of_any_is_enough_and_of_all_each_is_needed() {
        let (_listener, mute) = mute();
        let (open, closed) = (broker(), closed());
        let lists = [
            (vec![&open, &closed], true, false),
            (vec![&open, &mute], true, false),
            (vec![&closed, &mute], false, false),
            (vec![&open], true, true),
        ];
        for (list, any, all) in lists {
            let list: Vec<String> = list.into_iter().cloned().collect();
            let settings = Settings::new(list.join(","));
            for (require, passes) in [(Require::Any, any), (Require::All, all)] {
                let plan = Plan::new(&settings, &[], require, None, SHORT);
                let probed = probe(&plan);
                assert_eq!(probed.verdict().is_ok(), passes, "{list:?} {require:?}");
            }
        }
    }

    #[test]
    fn a_target_that_is_no_bootstrap_server_need_not_be_a_broker() {
        let (_listener, gateway) = mute();
        let settings = Settings::new(closed());
        let plan = Plan::new(&settings, &[gateway], Require::All, None, LONG);
        assert_eq!(outcome(&probe(&plan)), (vec![Rung::Tcp], None));
    }

    #[test]
    fn a_redirect_is_a_captive_portal_whatever_the_brokers_address_answers() {
        let portal = server(b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n");
        let page = server(b"HTTP/1.1 204 No Content\r\n\r\n");
        let settings = Settings::new(broker());
        for (address, why) in [(page, None), (portal, Some("captive portal"))] {
            let ping = Ping::new(&format!("http://{address}/"), None).unwrap();
            let plan = Plan::new(&settings, &[], Require::Any, Some(ping), LONG);
            let probed = probe(&plan);
            let (rungs, reason) = outcome(&probed);
            assert_eq!(rungs, [Rung::Tcp, Rung::ApiVersions, Rung::Ping]);
            assert_eq!(why.is_some(), reason.is_some_and(|r| r.contains("captive")));
        }
    }

    #[test]
    fn a_page_that_hangs_fails_at_the_timeout() {
        let (_listener, address) = mute();
        let ping = Ping::new(&format!("http://{address}/"), None).unwrap();
        let settings = Settings::new(broker());
        let probed = probe(&Plan::new(&settings, &[], Require::Any, Some(ping), SHORT));
        assert!(probed.verdict().unwrap_err().contains("no answer"));
    }

    fn prober(
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Prober {
        Prober {
            resolve: Arc::new(resolve),
            ..Prober::default()
        }
    }

    #[test]
    fn a_name_that_resolves_later_passes_then() {
        let broker: SocketAddr = broker().parse().unwrap();
        let asked = AtomicUsize::new(0);
        let mut prober = prober(move |name| {
            assert_eq!(name, "kafka.example:9092");
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Err(io::Error::other("no such name")),
                1 => Ok(Vec::new()),
                _ => Ok(vec![broker]),
            }
        });
        let plan = plan("kafka.example", LONG);
        for why in ["no such name", "no address"] {
            let probed = climb(&mut prober, &plan);
            assert!(probed.verdict().unwrap_err().contains(why));
        }
        assert_eq!(climb(&mut prober, &plan).verdict(), Ok(()));
    }

    #[test]
    fn an_address_that_is_dead_leaves_time_for_the_next_one() {
        let (dead, alive) = (closed().parse().unwrap(), broker().parse().unwrap());
        let mut prober = prober(move |_| Ok(vec![dead, alive]));
        assert_eq!(climb(&mut prober, &plan("name", LONG)).verdict(), Ok(()));
    }

    #[test]
    fn a_resolver_that_hangs_costs_one_thread_however_often_it_is_probed() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let (release, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let alive: SocketAddr = broker().parse().unwrap();
        let mut prober = prober(move |_| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                let _ = gate.lock().unwrap().recv();
            }
            Ok(vec![alive])
        });
        let late = climb(&mut prober, &plan("name", SHORT));
        assert!(late.verdict().unwrap_err().contains("no address"));
        for _ in 0..1000 {
            let busy = climb(&mut prober, &plan("name", SHORT));
            assert!(busy.verdict().unwrap_err().contains("still waits"));
            assert_eq!(prober.running.len(), 1);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        release.send(()).unwrap();
        // It ends by itself now; then the name is probed again.
        let started = Instant::now();
        while climb(&mut prober, &plan("name", LONG)).verdict().is_err() {
            assert!(started.elapsed() < LONG);
            thread::yield_now();
        }
    }

    #[test]
    fn threads_are_bounded_where_the_list_changes_and_every_name_hangs() {
        let (release, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let mut prober = prober(move |_| {
            let _ = gate.lock().unwrap().recv();
            Err(io::Error::other("gone"))
        });
        for n in 0..100 {
            let plan = plan(&format!("name-{n}"), Duration::from_millis(1));
            assert!(climb(&mut prober, &plan).verdict().is_err());
            assert!(prober.running.len() <= THREADS_MAX);
        }
        assert_eq!(prober.running.len(), THREADS_MAX);
        drop(release);
    }

    #[test]
    fn the_caller_never_waits() {
        let (_listener, address) = mute();
        let mut prober = Prober::default();
        let plan = plan(&address, LONG);
        let started = Instant::now();
        for _ in 0..1000 {
            assert_eq!(prober.poll(|| plan.clone()), None);
        }
        assert!(started.elapsed() < LONG / 2);
    }

    #[test]
    fn joint_verdicts_are_right_for_every_combination() {
        let verdicts = [None, Some(Ok(())), Some(Err("no".to_owned()))];
        for a in &verdicts {
            for b in &verdicts {
                let joint = |require| joint(require, [a.as_ref(), b.as_ref()].into_iter());
                let count = |wanted: &Option<Result<(), String>>| {
                    [a, b].iter().filter(|found| **found == wanted).count()
                };
                let (waiting, passed) = (count(&verdicts[0]), count(&verdicts[1]));
                let failed = 2 - waiting - passed;
                let any = joint(Require::Any);
                assert_eq!(any.is_none(), passed == 0 && waiting > 0);
                assert_eq!(any.is_some_and(|v| v.is_ok()), passed > 0);
                let all = joint(Require::All);
                assert_eq!(all.is_none(), failed == 0 && waiting > 0);
                assert_eq!(all.is_some_and(|v| v.is_ok()), passed == 2);
            }
        }
    }
}
