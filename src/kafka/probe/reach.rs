//! The sockets of a probe: resolve, connect, ask, each before one common deadline.
//!
//! Runs on a probe's own thread, because resolving a name may block for long. Must not know what a
//! verdict is used for. Invariant: after the deadline nothing but the resolver blocks.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ping::{self, Ping};
use super::wire;

/// How names become addresses; the system's resolver, unless a test puts its own here.
pub(super) type Resolve = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

pub(super) fn system_resolver() -> Resolve {
    Arc::new(|address| Ok(address.to_socket_addrs()?.collect()))
}

/// Connects to the first of the addresses that takes it. Each gets an equal part of the time that
/// is left, so that one that swallows everything leaves some to the next.
pub(super) fn connect(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let time = part(left(deadline)?, addresses.len() - index);
        match TcpStream::connect_timeout(address, time) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The time of the first of so many addresses.
fn part(left: Duration, addresses: usize) -> Duration {
    left / u32::try_from(addresses).unwrap_or(u32::MAX)
}

/// Whether a Kafka broker is at the other end.
pub(super) fn ask_kafka(mut stream: TcpStream, deadline: Instant) -> Result<(), String> {
    send(&mut stream, &wire::api_versions_request(), deadline)?;
    let mut first = [0; 4];
    receive(&mut stream, &mut first, deadline)?;
    let mut answer = vec![0; wire::answer_len(first)?];
    receive(&mut stream, &mut answer, deadline)?;
    wire::judge_answer(&answer)
}

/// Whether a TLS server is at the other end.
pub(super) fn ask_tls(mut stream: TcpStream, host: &str, deadline: Instant) -> Result<(), String> {
    let mut random = [0; 32];
    for bytes in random.chunks_mut(8) {
        // Not secret, only different each time: no key follows from it.
        let number = RandomState::new().build_hasher().finish();
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    send(&mut stream, &wire::client_hello(host, random), deadline)?;
    let mut header = [0; wire::TLS_HEADER_LEN];
    receive(&mut stream, &mut header, deadline)?;
    Ok(wire::judge_tls(header)?)
}

/// Whether the page is the expected one.
pub(super) fn ask_page(
    mut stream: TcpStream,
    page: &Ping,
    deadline: Instant,
) -> Result<(), String> {
    send(&mut stream, page.request().as_bytes(), deadline)?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while answer.len() < ping::ANSWER_MAX_LEN {
        match receive_some(&mut stream, &mut piece, deadline) {
            Ok(0) => break,
            Ok(len) => answer.extend(piece.iter().take(len)),
            // A reset behind a whole answer leaves the answer.
            Err(error) if answer.is_empty() => return Err(error.to_string()),
            Err(_) => break,
        }
    }
    page.judge(&answer)
}

fn send(stream: &mut TcpStream, bytes: &[u8], deadline: Instant) -> Result<(), String> {
    let sent = left(deadline).and_then(|left| {
        stream.set_write_timeout(Some(left))?;
        stream.write_all(bytes)
    });
    sent.map_err(|error| error.to_string())
}

fn receive(stream: &mut TcpStream, bytes: &mut [u8], deadline: Instant) -> Result<(), String> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match receive_some(stream, rest, deadline) {
            Ok(0) => return Err("closes the connection without an answer".to_owned()),
            Ok(len) => rest = rest.split_at_mut(len).1,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

fn receive_some(stream: &mut TcpStream, bytes: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Linux tells a receive timeout as "try again", which helps nobody.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            done => return done,
        }
    }
}

/// What is left until the deadline; an error if nothing is.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < Duration::from_millis(1) {
        return Err(late());
    }
    Ok(left)
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_leaves_an_equal_part_of_the_time_to_those_behind_it() {
        let seconds = Duration::from_secs;
        let parts = [
            part(seconds(6), 3),
            part(seconds(4), 2),
            part(seconds(2), 1),
        ];
        assert_eq!(parts, [seconds(2); 3]);
    }
}
