//! The relay itself: each of its faults does what it says, and only that.
//!
//! The broker here is a thread that sends back what it gets, unless it only listens.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::kafka::relay::{Relay, Request};
use crate::kafka::wait_for;

/// Longest wait for what must come.
const SOON: Duration = Duration::from_secs(20);

/// How long to wait for what must not come.
const NEVER: Duration = Duration::from_millis(100);

struct Line {
    relay: Relay,
    /// What the broker got, piece by piece; empty at the end of a connection.
    arrived: Receiver<Vec<u8>>,
}

impl Line {
    fn new() -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = listener.local_addr().unwrap().port();
        let (tell, arrived) = channel();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (mut connection, tell) = (connection.unwrap(), tell.clone());
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    loop {
                        let read = connection.read(&mut buffer).unwrap_or(0);
                        // Fails when the test is over, which is no concern of the broker.
                        let _ = tell.send(buffer[..read].to_vec());
                        if read == 0 {
                            return;
                        }
                        let _ = connection.write_all(&buffer[..read]);
                    }
                });
            }
        });
        let relay = Relay::start(0, broker);
        Line { relay, arrived }
    }

    fn connect(&self) -> Client {
        let socket = TcpStream::connect(("127.0.0.1", self.relay.port())).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Client(socket)
    }

    /// What the broker gets of a connection to its end.
    fn all_that_arrives(&self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let piece = self.arrived.recv_timeout(SOON).unwrap();
            if piece.is_empty() {
                return all;
            }
            all.extend(piece);
        }
    }
}

struct Client(TcpStream);

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn hears_nothing(&mut self) -> bool {
        self.0.set_read_timeout(Some(NEVER)).unwrap();
        let heard = self.0.read(&mut [0]);
        self.0.set_read_timeout(Some(SOON)).unwrap();
        heard.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }

    #[track_caller]
    fn expect_reset(&mut self) {
        let mut last = [0; 4096];
        let error = loop {
            match self.0.read(&mut last) {
                Ok(0) => panic!("closed, not reset"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// A request with this key, correlation id and length on the wire.
fn request(key: u16, correlation: u32, len: usize) -> Vec<u8> {
    let mut bytes = u32::try_from(len - 4).unwrap().to_be_bytes().to_vec();
    bytes.extend(key.to_be_bytes());
    bytes.extend(9_u16.to_be_bytes());
    bytes.extend(correlation.to_be_bytes());
    bytes.resize(len, b'r');
    bytes
}

#[test]
fn what_is_sent_arrives_in_order_both_ways_and_an_end_is_passed_on() {
    let line = Line::new();
    let mut client = line.connect();
    let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut sending = Client(client.0.try_clone().unwrap());
    let bytes = sent.clone();
    let sender = thread::spawn(move || sending.send(&bytes));
    assert!(client.receive(sent.len()) == sent);
    sender.join().unwrap();
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(line.all_that_arrives() == sent);
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0);
    let relay = &line.relay;
    let len = sent.len() as u64;
    assert_eq!((relay.carried_up(), relay.carried_down()), (len, len));
    assert_eq!(relay.connected(), 1);
}

#[test]
fn a_cut_resets_both_ends_and_lets_new_connections_pass() {
    let line = Line::new();
    let mut client = line.connect();
    client.send(b"before");
    client.receive(6);
    line.relay.cut();
    client.expect_reset();
    assert_eq!(line.all_that_arrives(), b"before");
    let mut client = line.connect();
    client.send(b"after");
    assert_eq!(client.receive(5), b"after");
}

#[test]
fn refused_connections_pass_again_on_the_same_port() {
    let line = Line::new();
    let mut client = line.connect();
    client.send(b"x");
    client.receive(1);
    line.relay.refuse();
    client.expect_reset();
    let address = ("127.0.0.1", line.relay.port());
    let deadline = Instant::now() + SOON;
    let refused = || {
        let tried = TcpStream::connect(address);
        tried.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    };
    while !refused() {
        assert!(Instant::now() < deadline, "not refused");
    }
    line.relay.pass();
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "refused");
    }
}

/// However the stream is cut into pieces, and whatever precedes it.
#[test]
fn a_cut_in_a_request_lets_exactly_so_many_bytes_of_it_through() {
    for (bytes, piece) in [(12, 1), (13, 5), (200, 7), (200, 1000), (499, 1000)] {
        let line = Line::new();
        line.relay.cut_in_request(Request::Produce, 1, bytes);
        let mut client = line.connect();
        client.0.set_nodelay(true).unwrap();
        let before = [request(3, 1, 100), request(0, 2, 300), request(18, 3, 12)].concat();
        let stream = [before.clone(), request(0, 4, 500)].concat();
        // It may have been cut already: a write that hears of a reset leaves nothing to a read.
        let mut pieces = stream.chunks(piece);
        let refused = pieces.find_map(|piece| client.0.write_all(piece).err());
        let arrived = line.all_that_arrives();
        let (len, expected) = (arrived.len(), &stream[..before.len() + bytes]);
        assert!(arrived == expected, "{bytes} {piece}: {len} arrived");
        assert!(!line.relay.is_armed());
        match refused {
            Some(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            None => client.expect_reset(),
        }
    }
}

/// The broker sends back what it got, so an answer begins with its length and the key and version
/// of the request: these stand for the correlation id here.
#[test]
fn a_cut_before_an_answer_lets_the_whole_request_through_and_loses_the_answer() {
    let line = Line::new();
    line.relay.cut_before_answer(Request::Produce, 0);
    let mut client = line.connect();
    let other = request(3, 1, 100);
    client.send(&other);
    assert_eq!(client.receive(100), other);
    let key_and_version = u32::from_be_bytes([0, 0, 0, 9]);
    let lost = request(0, key_and_version, 5000);
    client.send(&lost);
    let mut heard = Vec::new();
    let error = client.0.read_to_end(&mut heard).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(heard.len() < 8, "{} bytes of the answer", heard.len());
    assert_eq!(line.all_that_arrives(), [other, lost].concat());
}

/// However the stream is cut into pieces.
#[test]
fn a_connection_over_which_something_forbidden_is_sent_is_reset_before_it_arrives() {
    for piece in [1, 5, 1000] {
        let line = Line::new();
        line.relay.forbid(b"forbidden");
        for _ in 0..2 {
            let mut client = line.connect();
            client.send(b"forbid nothing");
            assert_eq!(client.receive(14), b"forbid nothing");
            let mut pieces = b"it is forbidden".chunks(piece);
            let refused = pieces.find_map(|piece| client.0.write_all(piece).err());
            match refused {
                Some(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                None => client.expect_reset(),
            }
            let arrived = line.all_that_arrives();
            let whole = b"forbid nothingit is forbidden";
            assert!(whole.starts_with(&arrived) && arrived.len() < whole.len());
        }
        assert_eq!(line.relay.forbade(), 2);
    }
}

#[test]
fn a_half_open_connection_is_reset_when_it_should_carry_again() {
    let line = Line::new();
    let mut client = line.connect();
    line.relay.swallow_answers();
    client.send(b"heard");
    assert_eq!(line.arrived.recv_timeout(SOON).unwrap(), b"heard");
    assert!(client.hears_nothing());
    line.relay.pass();
    client.send(b"too late");
    client.expect_reset();

    let mut client = line.connect();
    line.all_that_arrives();
    line.relay.swallow_requests();
    client.send(b"not heard");
    assert!(line.arrived.recv_timeout(NEVER).is_err());
    line.relay.pass();
    client.send(b"too late");
    client.expect_reset();
}

#[test]
fn a_black_hole_keeps_connections_and_takes_new_ones() {
    let line = Line::new();
    let mut old = line.connect();
    old.send(b"x");
    assert_eq!(old.receive(1), b"x");
    line.relay.black_hole();
    let mut new = line.connect();
    for client in [&mut old, &mut new] {
        client.send(b"y");
        assert!(client.hears_nothing());
    }
    assert_eq!(line.arrived.try_iter().collect::<Vec<_>>(), [b"x"]);
    wait_for("both connections", SOON, || line.relay.connected() == 2);
}

#[test]
fn a_delay_is_taken_each_way_and_costs_no_throughput() {
    const DELAY: Duration = Duration::from_millis(60);
    let line = Line::new();
    line.relay.delay(DELAY);
    let mut client = line.connect();
    let started = Instant::now();
    // Far more than one piece in each delay.
    for _ in 0..200 {
        client.send(&[b'd'; 4096]);
    }
    client.receive(200 * 4096);
    let took = started.elapsed();
    assert!(took >= 2 * DELAY, "{took:?}");
    assert!(took < 100 * DELAY, "{took:?}");
}

#[test]
fn a_thin_line_carries_its_rate_for_all_connections_together() {
    const RATE: u32 = 20_000;
    const EACH: usize = 20_000;
    let line = Line::new();
    line.relay.limit(RATE);
    let mut clients = [line.connect(), line.connect()];
    let started = Instant::now();
    for client in &mut clients {
        client.send(&[b't'; EACH]);
    }
    wait_for("all of it", SOON, || {
        line.relay.carried_up() == 2 * EACH as u64
    });
    let (took, takes) = (started.elapsed(), Duration::from_secs(2));
    println!("{took:?}");
    assert!(took >= takes && took < 2 * takes, "{took:?}");
}
