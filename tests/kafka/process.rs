//! The running test once more, in a process of its own, which can be killed as a crash would.
//!
//! Owns that process: its arguments, what it prints, its end. Knows nothing of what it does. Invariant:
//! none outlives its test.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{self, JoinHandle};

const ARGUMENTS: &str = "FERRYLOG_TEST_PROCESS";

/// In such a process: what it was started with.
pub(crate) fn arguments() -> Option<Vec<String>> {
    let arguments = env::var(ARGUMENTS).ok()?;
    Some(serde_json::from_str(&arguments).unwrap())
}

/// In such a process: waits until it is told to end, by whoever started it or by his own end.
pub(crate) fn wait_for_the_end() {
    assert_eq!(io::stdin().read(&mut [0]).unwrap(), 0);
}

/// Such a process.
pub(crate) struct Process {
    child: Child,
    listener: Option<JoinHandle<()>>,
    /// Closed, it is what ends it.
    stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts the running test with these arguments, and listens to each line that it prints; those of
    /// the test harness are among them.
    pub(crate) fn start(
        arguments: &[&str],
        mut hear: impl FnMut(&str) + Send + 'static,
    ) -> Process {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg(thread::current().name().unwrap())
            .env(ARGUMENTS, serde_json::to_string(arguments).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let listener = thread::spawn(move || {
            let mut line = String::new();
            // A kill may cut the last one.
            while out.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
                hear(line.trim_end());
                line.clear();
            }
        });
        Process {
            stdin: child.stdin.take(),
            child,
            listener: Some(listener),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL. It must not have ended by itself. Everything it printed was heard then.
    pub(crate) fn kill(mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended by itself: {ended:?}");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.listener.take().unwrap().join().unwrap();
    }

    /// Tells it to end, and waits until it has done so well.
    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        self.listener.take().unwrap().join().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both may fail only because it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
