//! How a command ends, and how a failure is told.
//!
//! Owns the exit codes and the sentence that says what to do next. It must not know what a command
//! does.

use std::{error::Error, fmt::Write, io, path::Path, process::ExitCode};

use serde_json::{Value, json};

use crate::{store, wal};

/// The exit codes; `ferrylog --help` explains them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// Everything that was asked for is done.
    Done = 0,
    /// What was looked at is wrong, or not all of it could be done.
    Wrong = 1,
    /// The command or its configuration is wrong: nothing was done.
    Usage = 2,
    /// Kafka, the disk or the store could not be reached.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Ended {
    /// Whoever read the output has gone (`ferrylog export | head`): nobody is left to tell.
    ClosedPipe,
    /// Something failed.
    Failed(Box<Failure>),
}

impl Ended {
    /// Adds `fact` behind the message, where there is one.
    pub(super) fn fact(self, fact: &str) -> Self {
        match self {
            Self::ClosedPipe => Self::ClosedPipe,
            Self::Failed(failure) => failure.fact(fact).into(),
        }
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.into())
    }
}

/// Only writing to standard output returns a bare error: every other one names its file.
impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Failure::new(
            Exit::Unreachable,
            "output",
            format!("could not write the output: {error}"),
        )
        .into()
    }
}

/// One clear message, and what to do next.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// A word for programs; stable.
    kind: &'static str,
    message: String,
    next: Option<String>,
    /// What is wrong, one by one, where that is more than a sentence.
    problems: Option<Box<Value>>,
}

impl Failure {
    pub(super) fn new(exit: Exit, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit,
            kind,
            message: message.into(),
            next: None,
            problems: None,
        }
    }

    /// Adds what is wrong, one by one, for programs.
    pub(super) fn problems(mut self, problems: Value) -> Self {
        self.problems = Some(problems.into());
        self
    }

    /// Adds the step that helps.
    pub(super) fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    /// Puts `context` in front of the message.
    pub(super) fn context(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Adds `fact` behind the message.
    pub(super) fn fact(mut self, fact: &str) -> Self {
        self.message = format!("{}; {fact}", self.message);
        self
    }

    /// Writes the failure to standard error.
    pub(super) fn tell(&self, json: bool) {
        let text = if json {
            let mut error = json!({
                "kind": self.kind,
                "message": self.message,
                "next": self.next,
                "exit": self.exit as u8,
            });
            if let Some(problems) = &self.problems {
                error["problems"] = (**problems).clone();
            }
            json!({ "error": error }).to_string()
        } else {
            let mut text = format!("ferrylog: {}", self.message);
            if let Some(next) = &self.next {
                text.push_str("\n  next: ");
                text.push_str(next);
            }
            text
        };
        // Where standard error is closed, the exit code is all that is left to say.
        let _ = io::Write::write_fmt(&mut io::stderr().lock(), format_args!("{text}\n"));
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Tells what the store in `data` refused.
pub(super) fn of_store(error: &store::Error, data: &Path) -> Failure {
    let data = data.display();
    let (exit, kind, next) = match error {
        store::Error::NotAStore { .. } => (
            Exit::Usage,
            "not_a_store",
            "nothing was written there; name the store, or a new directory, with --data".into(),
        ),
        store::Error::NoStore { .. } => (
            Exit::Usage,
            "no_store",
            format!(
                "`ferrylog send --data {data} --topic TOPIC` makes one; name another with --data"
            ),
        ),
        store::Error::Io { source, path, .. } => of_io(source, path),
        store::Error::Invalid(_) => (
            Exit::Wrong,
            "refused",
            "correct the record and send it again".into(),
        ),
        store::Error::DeadLettersFull { .. } => (
            Exit::Unreachable,
            "dead_letters_full",
            "`ferrylog dead-letters list` shows what lies there; replay or drop it".into(),
        ),
        store::Error::ScheduleFull { .. } => (
            Exit::Unreachable,
            "schedule_full",
            "send it again when some of what waits was due".into(),
        ),
        store::Error::NotDue => (Exit::Wrong, "refused", "send it without a due time".into()),
        store::Error::NoSuchLetter { .. } => (
            Exit::Wrong,
            "no_such_letter",
            "`ferrylog dead-letters list` shows what lies there".into(),
        ),
        store::Error::Options { .. } | store::Error::Routing { .. } => (
            Exit::Usage,
            "configuration",
            "nothing was changed; correct the options of the lane".into(),
        ),
        store::Error::Log(error) | store::Error::Lane { source: error, .. } => of_log(error),
    };
    Failure::new(exit, kind, chain(error)).next(next)
}

fn of_log(error: &wal::Error) -> (Exit, &'static str, String) {
    match error {
        wal::Error::Io { source, path, .. } => of_io(source, path),
        wal::Error::Corrupt { .. } => (
            Exit::Wrong,
            "corrupt",
            "nothing was changed; `ferrylog verify` names every damaged region".into(),
        ),
        wal::Error::TooLarge { .. } => (
            Exit::Wrong,
            "too_large",
            "split the record; a smaller one is accepted".into(),
        ),
        wal::Error::Full { .. } | wal::Error::Dropped { .. } => (
            Exit::Unreachable,
            "disk_full",
            "what was acknowledged is safe; free some space, then start again".into(),
        ),
        wal::Error::Busy | wal::Error::Closed | wal::Error::Failed { .. } => (
            Exit::Unreachable,
            "failed",
            "what was acknowledged is safe; look at the disk, then start again".into(),
        ),
        wal::Error::Locked { .. } => (
            Exit::Unreachable,
            "locked",
            "stop the process that has the store open, or wait for it; `status`, `verify` and `export` work meanwhile"
                .into(),
        ),
        wal::Error::NotALog { .. } => (
            Exit::Usage,
            "no_store",
            "name the store with --data".into(),
        ),
        wal::Error::Version { .. } => (
            Exit::Usage,
            "version",
            "nothing was changed; install a newer ferrylog".into(),
        ),
        wal::Error::Key { .. } => (
            Exit::Usage,
            "key",
            "give the key that the segment was written with".into(),
        ),
        wal::Error::Feature { .. } => (
            Exit::Usage,
            "feature",
            "use a build with that feature".into(),
        ),
        wal::Error::ForeignLog { .. } => (
            Exit::Usage,
            "foreign_log",
            "nothing was changed; move the files of the other log away".into(),
        ),
        wal::Error::Released { .. } => (
            Exit::Wrong,
            "released",
            "start at the oldest record that is left".into(),
        ),
        wal::Error::Options { .. } => (Exit::Usage, "usage", "correct the option".into()),
    }
}

fn of_io(error: &io::Error, path: &Path) -> (Exit, &'static str, String) {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (
            Exit::Usage,
            "permission",
            format!("let this user write to {path}, or name another directory with --data"),
        ),
        io::ErrorKind::NotADirectory | io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => (
            Exit::Usage,
            "wrong_path",
            format!(
                "{path} must be a directory that can be made or used; name another with --data"
            ),
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
            Exit::Unreachable,
            "disk_full",
            "what was acknowledged is safe; make room, then start again".into(),
        ),
        _ => (
            Exit::Unreachable,
            "io",
            "what was acknowledged is safe; look at the disk, then start again".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_its_causes_and_the_next_step() {
        let error = store::Error::Io {
            action: "make the directory",
            path: "/data".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        let failure = of_store(&error, Path::new("/data"));
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(
            failure.message,
            "could not make the directory /data: permission denied"
        );
        assert!(failure.next.unwrap().contains("--data"));
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let ended = Ended::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(ended, Ended::ClosedPipe));
        let ended = Ended::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(ended, Ended::Failed(failure) if failure.exit == Exit::Unreachable));
    }
}
