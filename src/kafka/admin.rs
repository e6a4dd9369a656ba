//! Creating a topic, where that is allowed.
//!
//! Owns the one administrative request this crate makes. Must not know what the topic is for.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::client::{Settings, configuration_error};
use super::{Error, code_of};

/// Creates a topic with the cluster's default replication. One that is there already is no error.
///
/// # Errors
///
/// [`Error::Unreachable`] if nobody answered within `timeout`, [`Error::Refused`] with the cluster's
/// reason, [`Error::Forbidden`] and [`Error::Configuration`] as [`Settings::check`].
pub fn create_topic(
    settings: &Settings,
    topic: &str,
    partitions: i32,
    config: &[(&str, &str)],
    timeout: Duration,
) -> Result<(), Error> {
    const ACTION: &str = "creating a topic";
    let client: AdminClient<DefaultClientContext> = settings
        .admin_config()?
        .create()
        .map_err(|error| configuration_error(&error))?;
    // Minus one: as many replicas as the cluster gives to topics that do not say.
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    for (name, value) in config {
        new = new.set(name, value);
    }
    let options = AdminOptions::new()
        .request_timeout(Some(timeout))
        .operation_timeout(Some(timeout));
    let results = block_on(client.create_topics([&new], &options))
        .map_err(|error| Error::of(ACTION, topic, timeout, code_of(&error)))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(Error::of(ACTION, topic, timeout, code)),
        }
    }
    Ok(())
}

/// Waits for one future on this thread: the client below has threads of its own.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
