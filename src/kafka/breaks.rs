//! How often librdkafka's connections broke, counted from what it logs.
//!
//! Pure. Must not know what was on its way. librdkafka reports no connection that the other end
//! closes (`log.connection.close`), and of identical errors one in 30 s; but of each it writes a
//! line of the debug context `broker`, which has none for a record or a request.
//!
//! Invariant: only what ended an *established* connection counts: a cluster that refuses
//! connections, or is gone, says nothing about what it is sent.

use std::sync::atomic::{AtomicU32, Ordering};

/// Connections that broke since this was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaks {
    /// Lost: closed or reset by the other end, or by what is between.
    pub losses: u32,
    /// Given up, because a request went without an answer for too long.
    pub timeouts: u32,
}

/// How one connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Loss,
    Timeout,
}

/// The facility of librdkafka's line about a connection that ended.
const FACILITY: &str = "FAIL";

/// What a line says, if it is about an established connection.
fn read(facility: &str, line: &str) -> Option<Break> {
    if facility != FACILITY || !line.contains(" in state UP") {
        return None;
    }
    // Errors are written twice, the second time as such and without the code.
    if line.contains("(_TRANSPORT)") {
        Some(Break::Loss)
    } else if line.contains("(_TIMED_OUT)") {
        Some(Break::Timeout)
    } else {
        None
    }
}

/// The count, written by librdkafka's threads.
#[derive(Debug, Default)]
pub(super) struct BreakCount {
    losses: AtomicU32,
    timeouts: AtomicU32,
}

impl BreakCount {
    /// librdkafka logged a line.
    pub(super) fn logged(&self, facility: &str, line: &str) {
        match read(facility, line) {
            Some(Break::Loss) => _ = self.losses.fetch_add(1, Ordering::Relaxed),
            Some(Break::Timeout) => _ = self.timeouts.fetch_add(1, Ordering::Relaxed),
            None => {}
        }
    }

    /// The breaks since this was last asked.
    pub(super) fn take(&self) -> Breaks {
        Breaks {
            losses: self.losses.swap(0, Ordering::Relaxed),
            timeouts: self.timeouts.swap(0, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_established_connection_that_ends_is_counted_once_however_often_it_is_told() {
        let count = BreakCount::default();
        let lines = [
            // As librdkafka 2.12 writes them.
            "[thrd:127.0.0.1:1/1]: 127.0.0.1:1/1: Disconnected (after 3ms in state UP) (_TRANSPORT)",
            "[thrd:127.0.0.1:1/1]: 127.0.0.1:1/1: Receive failed: Connection reset by peer \
             (after 3ms in state UP, 7 identical error(s) suppressed) (_TRANSPORT): identical to \
             last error: error log suppressed",
            "[thrd:127.0.0.1:1/1]: 127.0.0.1:1/1: 1 request(s) timed out: disconnect (average rtt \
             2.1ms) (after 60012ms in state UP) (_TIMED_OUT)",
            "[thrd:127.0.0.1:1/1]: 127.0.0.1:1/1: Receive failed: Connection reset by peer \
             (after 3ms in state UP)",
            "[thrd:127.0.0.1:1/1]: 127.0.0.1:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection \
             refused (after 0ms in state CONNECT) (_TRANSPORT)",
            "[thrd:127.0.0.1:1/1]: 127.0.0.1:1/1: Disconnected (after 1ms in state \
             APIVERSION_QUERY) (_TRANSPORT)",
            "[thrd:127.0.0.1:1/1]: 127.0.0.1:1/1: broker handle terminating (after 1ms in state UP) \
             (_DESTROY)",
        ];
        for line in lines {
            count.logged("FAIL", line);
            count.logged("STATE", line);
        }
        let counted = Breaks {
            losses: 2,
            timeouts: 1,
        };
        assert_eq!(count.take(), counted);
        assert_eq!(count.take(), Breaks::default());
    }
}
