//! The cheapest sign of life: a TCP connection to any of the servers.
//!
//! Owns the parsing of a server list and the threads that connect. Must not know what the verdict
//! is used for. Invariant: the caller never waits; a server that hangs costs a thread for the
//! timeout, not the caller.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// Kafka's port where a server is given without one.
const DEFAULT_PORT: u16 = 9092;

/// A probe under way. Ask it with [`Probe::poll`].
pub struct Probe {
    answers: Receiver<Result<(), String>>,
    deadline: Instant,
    timeout: Duration,
    reasons: Vec<String>,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe")
            .field("deadline", &self.deadline)
            .field("reasons", &self.reasons)
            .finish_non_exhaustive()
    }
}

impl Probe {
    /// Starts connecting to every server at once.
    pub fn start(bootstrap_servers: &str, timeout: Duration) -> Probe {
        let (sender, answers) = mpsc::channel();
        for server in servers(bootstrap_servers) {
            let sender = sender.clone();
            let connect = move || {
                let answer = connect(&server, timeout).map_err(|e| format!("{server}: {e}"));
                // The verdict may be in already, and nobody listening any more.
                let _ = sender.send(answer);
            };
            // A thread that cannot be started is a server that did not answer.
            let _ = thread::Builder::new()
                .name("ferrylog-probe".to_owned())
                .spawn(connect);
        }
        Probe {
            answers,
            deadline: Instant::now() + timeout,
            timeout,
            reasons: Vec::new(),
        }
    }

    /// The verdict, once there is one: reachable as soon as one server is, or why none was.
    pub fn poll(&mut self) -> Option<Result<(), String>> {
        loop {
            match self.answers.try_recv() {
                Ok(Ok(())) => return Some(Ok(())),
                Ok(Err(reason)) => self.reasons.push(reason),
                Err(TryRecvError::Disconnected) => return Some(Err(self.reasons.join("; "))),
                Err(TryRecvError::Empty) if Instant::now() < self.deadline => return None,
                Err(TryRecvError::Empty) => {
                    self.reasons
                        .push(format!("no answer within {:?}", self.timeout));
                    return Some(Err(self.reasons.join("; ")));
                }
            }
        }
    }
}

/// The `host:port` of each server in a list as librdkafka reads it: separated by commas, with an
/// optional `PROTOCOL://` in front and an optional port.
fn servers(bootstrap_servers: &str) -> Vec<String> {
    let with_port = |server: &str| {
        let address = server.split_once("://").map_or(server, |(_, rest)| rest);
        let port_follows = match address.rsplit_once(':') {
            // Colons inside brackets belong to an IPv6 address.
            Some((host, port)) => {
                !port.contains(']') && (host.ends_with(']') || !host.contains(':'))
            }
            None => false,
        };
        if port_follows {
            address.to_owned()
        } else {
            format!("{address}:{DEFAULT_PORT}")
        }
    };
    bootstrap_servers
        .split(',')
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .map(with_port)
        .collect()
}

/// The first server of a list that no connection could be made to, as it reads.
pub(super) fn bad_server(bootstrap_servers: &str) -> Option<String> {
    let is_bad = |server: &String| {
        let parts = server.rsplit_once(':');
        !parts.is_some_and(|(host, port)| {
            let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
            is_port && !host.is_empty() && !host.contains(char::is_whitespace)
        })
    };
    servers(bootstrap_servers).into_iter().find(is_bad)
}

fn connect(server: &str, timeout: Duration) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn verdict(bootstrap_servers: &str) -> Result<(), String> {
        let mut probe = Probe::start(bootstrap_servers, Duration::from_secs(5));
        loop {
            if let Some(verdict) = probe.poll() {
                return verdict;
            }
            thread::yield_now();
        }
    }

    /// A loopback address on which nothing listens.
    fn closed_port() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    }

    #[test]
    fn one_server_that_listens_is_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        assert_eq!(verdict(&format!("{},{open}", closed_port())), Ok(()));
    }

    #[test]
    fn when_none_listens_each_is_named() {
        let (a, b) = (closed_port(), closed_port());
        let reason = verdict(&format!("{a}, {b}")).unwrap_err();
        assert!(reason.contains(&a) && reason.contains(&b), "{reason}");
    }

    #[test]
    fn server_lists_are_read_as_librdkafka_reads_them() {
        assert_eq!(
            servers("a:1, SASL_SSL://b:2 ,c,,[::1]:3,[::1],::1"),
            ["a:1", "b:2", "c:9092", "[::1]:3", "[::1]:9092", "::1:9092"]
        );
    }
}
