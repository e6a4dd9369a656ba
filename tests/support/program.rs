//! Runs the program as a user does: arguments, standard streams, exit code.

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

/// The program under test, told where its store is.
pub(crate) fn ferrylog<S: AsRef<OsStr>>(
    data: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrylog"));
    command
        .arg("--data")
        .arg(data)
        .args(arguments)
        .env_remove("FERRYLOG_DATA")
        .env_remove("FERRYLOG_CONFIG")
        .stdin(Stdio::null());
    command
}

/// Starts the program with all its streams in our hands.
pub(crate) fn start(mut command: Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a finished run left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Standard output, if the exit code is the expected one.
    #[track_caller]
    pub(crate) fn expect(self, exit: i32) -> String {
        assert_eq!(self.exit, Some(exit), "{self:?}");
        self.out
    }

    /// Standard output as JSON lines, if the exit code is the expected one.
    #[track_caller]
    pub(crate) fn expect_json(self, exit: i32) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap();
        self.expect(exit).lines().map(parse).collect()
    }

    /// The failure as `--json` tells it, if the exit code is the expected one.
    #[track_caller]
    pub(crate) fn expect_failure(self, exit: i32, kind: &str) -> String {
        assert_eq!(self.exit, Some(exit), "{self:?}");
        let told: Value = serde_json::from_str(&self.err).unwrap();
        let error = &told["error"];
        assert_eq!(
            (&error["kind"], &error["exit"]),
            (&kind.into(), &exit.into()),
            "{told}"
        );
        assert!(!error["next"].is_null(), "no next step: {told}");
        error["message"].as_str().unwrap().to_owned()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            exit: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs the program to its end.
pub(crate) fn run<S: AsRef<OsStr>>(data: &Path, arguments: impl IntoIterator<Item = S>) -> Ran {
    ferrylog(data, arguments).output().unwrap().into()
}

/// Runs the program to its end on this standard input.
pub(crate) fn run_on<S: AsRef<OsStr>>(
    data: &Path,
    arguments: impl IntoIterator<Item = S>,
    input: &[u8],
) -> Ran {
    let mut child = start(ferrylog(data, arguments));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that refuses its input closes the pipe before it is all written.
        scope.spawn(move || {
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap().into()
    })
}
