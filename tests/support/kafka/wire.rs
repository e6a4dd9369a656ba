//! Requests to a broker that the client library has no call for, written by hand.
//!
//! Owns the bytes of access rules and quotas. Knows nothing of topics or processes. Invariant: a
//! request that is not granted panics.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::reader::ANSWER_DEADLINE;

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const ALTER_CLIENT_QUOTAS: i16 = 49;

/// The last versions without tagged fields.
const ACLS_VERSION: i16 = 1;
const QUOTAS_VERSION: i16 = 0;

/// Kafka's numbers in access rules.
const ANY: u8 = 1;
const ALLOW: u8 = 3;
const LITERAL: u8 = 3;

/// What a rule is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resource<'a> {
    /// A topic, by its name; `*` means all.
    Topic(&'a str),
    Group(&'a str),
    TransactionalId(&'a str),
    Cluster,
}

/// What it allows. To write implies to describe.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Read,
    Write,
    Describe,
    Create,
    IdempotentWrite,
}

/// The body of a request.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn byte(mut self, value: u8) -> Body {
        self.0.push(value);
        self
    }

    fn count(mut self, value: i32) -> Body {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn double(mut self, value: f64) -> Body {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn text(mut self, value: &str) -> Body {
        let len = i16::try_from(value.len()).unwrap();
        self.0.extend(len.to_be_bytes());
        self.0.extend(value.as_bytes());
        self
    }

    fn resource(self, resource: Resource<'_>) -> Body {
        let (kind, name) = match resource {
            Resource::Topic(name) => (2, name),
            Resource::Group(name) => (3, name),
            Resource::TransactionalId(name) => (5, name),
            Resource::Cluster => (4, "kafka-cluster"),
        };
        self.byte(kind).text(name).byte(LITERAL)
    }
}

impl Operation {
    fn number(self) -> u8 {
        match self {
            Operation::Read => 3,
            Operation::Write => 4,
            Operation::Create => 5,
            Operation::Describe => 8,
            Operation::IdempotentWrite => 12,
        }
    }
}

/// Allows `user` to do this.
pub(super) fn grant(port: u16, user: &str, resource: Resource<'_>, operation: Operation) {
    let body = Body::default().count(1).resource(resource);
    let body = body.text(&format!("User:{user}")).text("*");
    let body = body.byte(operation.number()).byte(ALLOW);
    ask(port, CREATE_ACLS, ACLS_VERSION, &body);
}

/// Takes away whatever `user` was allowed to do with it.
pub(super) fn withdraw(port: u16, user: &str, resource: Resource<'_>) {
    let body = Body::default().count(1).resource(resource);
    let body = body.text(&format!("User:{user}")).text("*");
    let body = body.byte(ANY).byte(ANY);
    ask(port, DELETE_ACLS, ACLS_VERSION, &body);
}

/// Limits what the clients of this `client.id` may produce together; `None` ends that.
pub(super) fn limit_client(port: u16, client_id: &str, bytes_per_second: Option<f64>) {
    let body = Body::default().count(1);
    let body = body.count(1).text("client-id").text(client_id);
    let body = body.count(1).text("producer_byte_rate");
    let body = body.double(bytes_per_second.unwrap_or_default());
    let body = body.byte(u8::from(bytes_per_second.is_none())).byte(0);
    ask(port, ALTER_CLIENT_QUOTAS, QUOTAS_VERSION, &body);
}

/// Sends one request and expects its one result to be good.
fn ask(port: u16, key: i16, version: i16, body: &Body) {
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    let correlation = 1_i32;
    request.extend(correlation.to_be_bytes());
    request.extend(Body::default().text("ferrylog-tests").0);
    request.extend(&body.0);

    let mut broker = TcpStream::connect(("127.0.0.1", port)).unwrap();
    broker.set_read_timeout(Some(ANSWER_DEADLINE)).unwrap();
    let len = i32::try_from(request.len()).unwrap();
    broker.write_all(&len.to_be_bytes()).unwrap();
    broker.write_all(&request).unwrap();
    // Length, correlation id, throttle time, number of results, and the first one's code.
    let mut answer = [0; 18];
    broker.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4..8], correlation.to_be_bytes());
    assert_eq!(answer[12..16], 1_i32.to_be_bytes(), "one result");
    let code = i16::from_be_bytes([answer[16], answer[17]]);
    assert_eq!(code, 0, "request {key} was refused");
}
