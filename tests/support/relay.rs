//! A line between a client and a broker, on loopback, that a test can spoil while it is in use.
//!
//! Owns the listening port, the connections through it, and the faults. Knows of Kafka only how a
//! request begins, so that it can cut in the middle of one; what is encrypted it can carry, but
//! not cut there. Invariants: bytes that are carried stay in order; a connection that lost a byte
//! never carries another one, but is reset as soon as it should.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};

/// Read at once from a fast line.
const PIECE: usize = 64 * 1024;

/// Pieces that a thin line carries in a second: none takes long.
const THIN_PIECES: u32 = 16;

/// What a thin line holds of what it was given and did not carry yet: what it carries in two
/// seconds, as a modem does. With 4 KB the system drops packets that no buffer has room for, and
/// the line lies idle until they are sent again, up to half of the time.
const THIN_BUFFER_SECONDS: u32 = 2;

/// Pieces on their way: more than a delayed line of the tests ever holds.
const PIECES_MAX: usize = 1024;

/// How often a thread that waits for a socket looks whether it should.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Far longer than a system takes to say that it has bytes.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);

/// As in Linux's `asm-generic/ioctls.h`.
const TIOCOUTQ: Opcode = 0x5411;

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// To the broker.
    Up,
    /// To the client.
    Down,
}

/// A kind of request, by its key in Kafka's protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    Produce = 0,
    Metadata = 3,
    /// A commit or an abort.
    EndTxn = 26,
}

/// Where to cut a connection, once.
#[derive(Clone, Copy, Debug)]
struct Trap {
    request: Request,
    /// Such requests that pass before.
    others: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many bytes into the request.
    Within(usize),
    /// Before its answer: the broker has acted on it.
    BeforeAnswer,
    /// Nowhere: from its answer on, all answers are lost.
    Unanswered,
}

#[derive(Clone, Debug, Default)]
struct Faults {
    refuse: bool,
    swallow_up: bool,
    swallow_down: bool,
    delay: Duration,
    bytes_per_second: Option<u32>,
    trap: Option<Trap>,
    /// What no connection may carry to the broker.
    forbidden: Option<&'static [u8]>,
}

/// One direction of the whole line.
#[derive(Debug)]
struct Lane {
    carried: AtomicU64,
    /// When a limited line will have carried what it was given.
    free: Mutex<Instant>,
}

#[derive(Debug)]
struct Shared {
    broker: SocketAddr,
    faults: Mutex<Faults>,
    connections: Mutex<Vec<Weak<Connection>>>,
    connected: AtomicU64,
    forbade: AtomicU64,
    up: Lane,
    down: Lane,
    is_closed: AtomicBool,
}

/// The line. Dropping it cuts what goes through it.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

impl Relay {
    /// Listens on `port` of loopback and carries each connection to `broker`, a port there.
    pub(crate) fn start(port: u16, broker: u16) -> Relay {
        let lane = || Lane {
            carried: AtomicU64::new(0),
            free: Mutex::new(Instant::now()),
        };
        let shared = Arc::new(Shared {
            broker: (Ipv4Addr::LOCALHOST, broker).into(),
            faults: Mutex::default(),
            connections: Mutex::default(),
            connected: AtomicU64::new(0),
            forbade: AtomicU64::new(0),
            up: lane(),
            down: lane(),
            is_closed: AtomicBool::new(false),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&accepting, port, listener));
        Relay { port, shared }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends every fault. What lost bytes meanwhile is reset when it is next used.
    pub(crate) fn pass(&self) {
        *self.faults() = Faults::default();
    }

    /// Resets all connections; new ones pass.
    pub(crate) fn cut(&self) {
        let connections = self.shared.connections.lock().unwrap();
        connections
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|c| c.cut());
    }

    /// Resets all connections and refuses new ones, as where nobody listens.
    pub(crate) fn refuse(&self) {
        self.faults().refuse = true;
        self.cut();
    }

    /// Resets the connection of the request that comes after `others` of its kind, when `bytes` of
    /// it have gone to the broker; at least its first 12 go.
    pub(crate) fn cut_in_request(&self, request: Request, others: u32, bytes: usize) {
        let place = Place::Within(bytes);
        self.trap(request, others, place);
    }

    /// Resets the connection of the request that comes after `others` of its kind, when the broker
    /// has answered it; the answer is lost.
    pub(crate) fn cut_before_answer(&self, request: Request, others: u32) {
        self.trap(request, others, Place::BeforeAnswer);
    }

    /// From the request on that comes after `others` of its kind, what clients send arrives, what
    /// brokers answer is lost.
    pub(crate) fn swallow_answers_from(&self, request: Request, others: u32) {
        self.trap(request, others, Place::Unanswered);
    }

    fn trap(&self, request: Request, others: u32, place: Place) {
        self.faults().trap = Some(Trap {
            request,
            others,
            place,
        });
    }

    /// Resets each connection over which these bytes are sent to the broker, before they get there: as
    /// something on the way does that looks into what it carries.
    pub(crate) fn forbid(&self, bytes: &'static [u8]) {
        self.faults().forbidden = Some(bytes);
    }

    /// How often that was done.
    pub(crate) fn forbade(&self) -> u64 {
        self.shared.forbade.load(Ordering::Relaxed)
    }

    /// Whether the request that was asked for is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        self.faults().trap.is_some()
    }

    /// Half open: what clients send arrives, what brokers answer is lost.
    pub(crate) fn swallow_answers(&self) {
        self.faults().swallow_down = true;
    }

    /// Half open the other way round.
    pub(crate) fn swallow_requests(&self) {
        self.faults().swallow_up = true;
    }

    /// Nothing arrives anywhere, and all connections stay.
    pub(crate) fn black_hole(&self) {
        let mut faults = self.faults();
        (faults.swallow_up, faults.swallow_down) = (true, true);
    }

    /// Every byte takes this long, each way.
    pub(crate) fn delay(&self, delay: Duration) {
        self.faults().delay = delay;
    }

    /// A thin line: so many bytes a second each way for all connections together. Those made from
    /// now on find a small buffer before it.
    pub(crate) fn limit(&self, bytes_per_second: u32) {
        self.faults().bytes_per_second = Some(bytes_per_second);
    }

    /// Bytes that reached the broker.
    pub(crate) fn carried_up(&self) -> u64 {
        self.shared.up.carried.load(Ordering::Relaxed)
    }

    /// Bytes that reached clients.
    pub(crate) fn carried_down(&self) -> u64 {
        self.shared.down.carried.load(Ordering::Relaxed)
    }

    /// Connections that were made.
    pub(crate) fn connected(&self) -> u64 {
        self.shared.connected.load(Ordering::Relaxed)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults.lock().unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
        self.cut();
    }
}

/// Accepts connections until the line is dropped; without a listener while it refuses them.
fn accept(shared: &Arc<Shared>, port: u16, listener: TcpListener) {
    let mut listener = Some(listener);
    while !shared.is_closed.load(Ordering::Relaxed) {
        let faults = shared.faults.lock().unwrap().clone();
        if faults.refuse {
            listener = None;
            thread::sleep(LOOK_INTERVAL);
            continue;
        }
        // The port may be in use for a moment, by a connection that ends.
        if listener.is_none() {
            listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        }
        let Some(listening) = &listener else {
            thread::sleep(LOOK_INTERVAL);
            continue;
        };
        listening.set_nonblocking(true).unwrap();
        match listening.accept() {
            Ok((client, _)) => connect(shared, client, &faults),
            Err(_) => thread::sleep(LOOK_INTERVAL),
        }
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream, faults: &Faults) {
    client.set_nonblocking(false).unwrap();
    // A broker that is not there resets the client, as it would itself.
    let Ok(broker) = TcpStream::connect(shared.broker) else {
        let _ = set_socket_linger(&client, Some(Duration::ZERO));
        return;
    };
    if let Some(rate) = faults.bytes_per_second {
        let buffer = usize::try_from(rate * THIN_BUFFER_SECONDS).unwrap();
        for socket in [&client, &broker] {
            set_socket_recv_buffer_size(socket, buffer).unwrap();
        }
    }
    for socket in [&client, &broker] {
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(LOOK_INTERVAL)).unwrap();
    }
    let connection = Arc::new(Connection {
        client,
        broker,
        is_cut: AtomicBool::new(false),
        is_damaged: AtomicBool::new(false),
        unanswered: Mutex::new(None),
    });
    let mut connections = shared.connections.lock().unwrap();
    connections.retain(|c| c.strong_count() > 0);
    connections.push(Arc::downgrade(&connection));
    drop(connections);
    shared.connected.fetch_add(1, Ordering::Relaxed);
    for way in [Way::Up, Way::Down] {
        let (given, taken) = sync_channel(PIECES_MAX);
        let (reading, writing) = (Arc::clone(&connection), Arc::clone(&connection));
        let (reads_for, writes_for) = (Arc::clone(shared), Arc::clone(shared));
        thread::spawn(move || reading.read(way, &reads_for, &given));
        thread::spawn(move || writing.write(way, &writes_for, &taken));
    }
}

/// What is on its way.
enum Piece {
    Bytes(Instant, Vec<u8>),
    Cut,
}

/// One connection through the line. When its last thread lets it go, its sockets are closed.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    broker: TcpStream,
    is_cut: AtomicBool,
    /// It lost a byte.
    is_damaged: AtomicBool,
    /// The request whose answer is to be lost.
    unanswered: Mutex<Option<u32>>,
}

impl Connection {
    /// Resets both ends: closing a socket that does not linger does that.
    fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        for socket in [&self.client, &self.broker] {
            // Both fail only where the connection has ended.
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// Takes what one end sends, finds the place to cut at, and keeps to the line's rate.
    fn read(&self, way: Way, shared: &Shared, given: &SyncSender<Piece>) {
        let (mut source, head_len) = match way {
            Way::Up => (&self.client, Frames::REQUEST_HEAD),
            Way::Down => (&self.broker, Frames::ANSWER_HEAD),
        };
        let mut frames = Frames::new(head_len);
        let mut buffer = vec![0; PIECE];
        // What was sent last, as far as it may be the beginning of what is forbidden.
        let mut before = Vec::new();
        // Bytes until the cut, once it is decided.
        let mut left: Option<usize> = None;
        loop {
            let limit = shared.faults.lock().unwrap().bytes_per_second;
            let thin = limit.map(|rate| usize::try_from(rate * THIN_BUFFER_SECONDS).unwrap());
            let most = thin.map_or(PIECE, |piece| piece.clamp(1, PIECE));
            let read = match source.read(&mut buffer[..most]) {
                Ok(read) if read > 0 && !self.is_cut.load(Ordering::Relaxed) => read,
                Ok(_) | Err(_) => return,
            };
            frames.feed(&buffer[..read], |head, end| {
                if left.is_none() {
                    let bytes = match way {
                        Way::Up => self.cut_at_request(shared, head),
                        Way::Down => self.cut_at_answer(head),
                    };
                    left = bytes.map(|bytes| (end + bytes).saturating_sub(head_len));
                }
            });
            if way == Way::Up && shared.forbids(&mut before, &buffer[..read]) {
                left = Some(0);
            }
            let carried = left.map_or(read, |left| left.min(read));
            if let Some(rate) = limit {
                shared.lane(way).wait(carried, rate);
            }
            let due = Instant::now() + shared.faults.lock().unwrap().delay;
            let piece = Piece::Bytes(due, buffer[..carried].to_vec());
            if given.send(piece).is_err() {
                return;
            }
            left = left.map(|left| left - carried);
            if left == Some(0) {
                // The other thread cuts, after it has written what comes before.
                let _ = given.send(Piece::Cut);
                return;
            }
        }
    }

    /// How much of this request may pass before the cut, if it is the one.
    fn cut_at_request(&self, shared: &Shared, head: &[u8]) -> Option<usize> {
        let mut faults = shared.faults.lock().unwrap();
        let trap = faults.trap.as_mut()?;
        if head[4..6] != (trap.request as u16).to_be_bytes() {
            return None;
        }
        if trap.others > 0 {
            trap.others -= 1;
            return None;
        }
        let place = trap.place;
        faults.trap = None;
        match place {
            Place::Within(bytes) => Some(bytes.max(Frames::REQUEST_HEAD)),
            Place::BeforeAnswer => {
                *self.unanswered.lock().unwrap() = Some(number(&head[8..12]));
                None
            }
            Place::Unanswered => {
                faults.swallow_down = true;
                None
            }
        }
    }

    fn cut_at_answer(&self, head: &[u8]) -> Option<usize> {
        let unanswered = *self.unanswered.lock().unwrap();
        (unanswered? == number(&head[4..8])).then_some(0)
    }

    /// Gives the other end what is due, or loses it.
    fn write(&self, way: Way, shared: &Shared, taken: &Receiver<Piece>) {
        let sink = match way {
            Way::Up => &self.broker,
            Way::Down => &self.client,
        };
        for piece in taken {
            let Piece::Bytes(due, bytes) = piece else {
                self.wait_for_arrival(sink);
                return self.cut();
            };
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if shared.swallows(way) {
                self.is_damaged.store(true, Ordering::Relaxed);
            } else if self.is_damaged.load(Ordering::Relaxed) || !self.put(sink, &bytes) {
                return self.cut();
            } else {
                let carried = &shared.lane(way).carried;
                carried.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        // One end closed its half; the other one hears of it, if the line carries anything.
        let is_whole = !self.is_damaged.load(Ordering::Relaxed) && !shared.swallows(way);
        if is_whole && !self.is_cut.load(Ordering::Relaxed) {
            let _ = sink.shutdown(Shutdown::Write);
        }
    }

    /// Until the other end's system has all that was put, or it has been gone for long: a reset takes
    /// back what was not sent yet, which of many small pieces is most.
    fn wait_for_arrival(&self, sink: &TcpStream) {
        let until = Instant::now() + ARRIVES_WITHIN;
        let is_over = || self.is_cut.load(Ordering::Relaxed) || Instant::now() > until;
        while !is_over() && unacknowledged(sink) > 0 {
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// False if the other end is gone, or the connection was cut meanwhile.
    fn put(&self, mut sink: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.is_cut.load(Ordering::Relaxed) {
            match sink.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_timeout(error.kind()) => {}
                Err(_) => return false,
            }
        }
        bytes.is_empty()
    }
}

/// Bytes put into a socket that the other end's system has not said it has; none where that is gone.
#[expect(unsafe_code, reason = "the system knows, and nothing safe asks it")]
fn unacknowledged(socket: &TcpStream) -> i32 {
    // SAFETY: for a socket TIOCOUTQ, which is SIOCOUTQ, writes one int (tcp(7)).
    unsafe { ioctl(socket, Getter::<{ TIOCOUTQ }, i32>::new()) }.unwrap_or(0)
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl Shared {
    fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// Whether what is forbidden ends in these bytes.
    fn forbids(&self, before: &mut Vec<u8>, bytes: &[u8]) -> bool {
        let Some(forbidden) = self.faults.lock().unwrap().forbidden else {
            return false;
        };
        before.extend_from_slice(bytes);
        let is_there = before.windows(forbidden.len()).any(|w| w == forbidden);
        let kept = before.len().saturating_sub(forbidden.len() - 1);
        before.drain(..kept);
        self.forbade
            .fetch_add(u64::from(is_there), Ordering::Relaxed);
        is_there
    }

    fn swallows(&self, way: Way) -> bool {
        let faults = self.faults.lock().unwrap();
        match way {
            Way::Up => faults.swallow_up,
            Way::Down => faults.swallow_down,
        }
    }
}

impl Lane {
    /// Waits until a line of this rate has carried these bytes and all before them.
    fn wait(&self, bytes: usize, bytes_per_second: u32) {
        let takes = Duration::from_secs_f64(bytes as f64 / f64::from(bytes_per_second));
        let until = {
            let mut free = self.free.lock().unwrap();
            *free = (*free).max(Instant::now()) + takes;
            *free
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// Finds where requests or answers begin in a stream: each begins with its length.
#[derive(Debug)]
struct Frames {
    head_len: usize,
    head: Vec<u8>,
    /// Bytes of the present frame behind its head.
    left: usize,
}

impl Frames {
    /// Length, key, version, correlation id.
    const REQUEST_HEAD: usize = 12;
    /// Length, correlation id.
    const ANSWER_HEAD: usize = 8;

    fn new(head_len: usize) -> Frames {
        Frames {
            head_len,
            head: Vec::new(),
            left: 0,
        }
    }

    /// Hands over each head that becomes whole in these bytes, and the place behind it in them.
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8], usize)) {
        let mut at = 0;
        while at < bytes.len() {
            let skipped = self.left.min(bytes.len() - at);
            (self.left, at) = (self.left - skipped, at + skipped);
            let taken = (self.head_len - self.head.len()).min(bytes.len() - at);
            self.head.extend_from_slice(&bytes[at..at + taken]);
            at += taken;
            if self.head.len() == self.head_len {
                each(&self.head, at);
                self.left = (number(&self.head[..4]) as usize + 4).saturating_sub(self.head_len);
                self.head.clear();
            }
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}
