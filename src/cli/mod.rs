//! The command line: `ferrylog <command>`, one file a command.
//!
//! Owns the arguments, the exit codes, and the words in which a result or a failure is told. It
//! must not know how a log keeps its bytes or how Kafka is spoken to: it asks the store and the
//! shipper.
//!
//! Invariants: results go to standard output, everything else to standard error. A command that
//! ends with 0 did all that it was asked for.

mod config;
mod dead_letters;
mod demo;
mod drain;
mod due;
mod export;
mod failure;
mod input;
mod lines;
mod output;
mod repair;
mod send;
mod signals;
mod status;
mod verify;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    config::{Argument, Environment, Loaded},
    store::{Store, StoreOptions},
    wal::{Gap, Keys},
};
use failure::{Ended, Exit, Failure};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  it found what it looked for to be wrong: corrupt bytes, a refused record, records that remain
  2  usage or configuration: nothing was done
  3  it could not reach what it needs: Kafka, the disk, or a store that another process holds";

/// A write-ahead log for the edge that ferries itself to Kafka.
#[derive(Debug, Parser)]
#[command(name = "ferrylog", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: GlobalArguments,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, clap::Args)]
struct GlobalArguments {
    /// Directory of the store [default: as store.dir says, ./ferrylog-data]
    #[arg(long, global = true, value_name = "DIR", env = "FERRYLOG_DATA")]
    data: Option<PathBuf>,

    /// Configuration file; `ferrylog config example` prints one
    #[arg(long, global = true, value_name = "FILE", env = "FERRYLOG_CONFIG")]
    config: Option<PathBuf>,

    /// Print JSON: results on standard output, failures on standard error
    #[arg(long, global = true)]
    json: bool,
}

impl GlobalArguments {
    /// The configuration with what the command says on top.
    fn load(&self, command: Vec<Argument>) -> Result<Loaded, Failure> {
        let mut arguments = command;
        if let Some(data) = &self.data {
            let Some(value) = data.to_str() else {
                return Err(Failure::new(Exit::Usage, "usage", "--data is no UTF-8")
                    .next("name the directory in another way"));
            };
            arguments.push(Argument {
                key: "store.dir".into(),
                value: value.into(),
                option: "--data or FERRYLOG_DATA",
            });
        }
        let environment = Environment::of_process();
        crate::config::load(self.config.as_deref(), &environment, &arguments)
            .map_err(|error| config::failure(&error))
    }

    fn with(&self, loaded: Loaded) -> Global {
        Global {
            data: loaded.config.store.dir.clone(),
            json: self.json,
            loaded,
        }
    }
}

/// What every command is told.
#[derive(Debug)]
struct Global {
    /// Directory of the store.
    data: PathBuf,
    json: bool,
    loaded: Loaded,
}

impl Global {
    /// The keys of what lies on disk.
    fn keys(&self) -> Keys {
        self.loaded.config.keys()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Send(send::Arguments),
    Drain(drain::Arguments),
    Repair(repair::Arguments),
    Status(status::Arguments),
    Verify(verify::Arguments),
    Export(export::Arguments),
    DeadLetters(dead_letters::Arguments),
    Config(config::Arguments),
    /// The process that `demo` kills.
    #[command(hide = true)]
    DemoAppend(demo::append::Arguments),
}

/// Runs one command and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // A failure to understand the arguments must be told in the format that they ask for.
    let json = arguments.iter().any(|argument| argument == "--json");
    let ended = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => dispatch(&arguments),
        Err(error) => usage(&error, json),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(Ended::ClosedPipe) => Exit::Done.into(),
        Err(Ended::Failed(failure)) => {
            failure.tell(json);
            failure.exit.into()
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<Exit, Ended> {
    let from_command = match &arguments.command {
        Command::Config(config) => return config::run(&arguments.global, config),
        Command::Drain(arguments) => arguments.configuration(),
        _ => Vec::new(),
    };
    let loaded = arguments.global.load(from_command)?;
    let global = &arguments.global.with(loaded);
    match &arguments.command {
        Command::Demo(arguments) => demo::run(global, arguments),
        Command::Send(arguments) => send::run(global, arguments),
        Command::Drain(arguments) => drain::run(global, arguments),
        Command::Repair(arguments) => repair::run(global, arguments),
        Command::Status(arguments) => status::run(global, arguments),
        Command::Verify(arguments) => verify::run(global, arguments),
        Command::Export(arguments) => export::run(global, arguments),
        Command::DeadLetters(arguments) => dead_letters::run(global, arguments),
        Command::DemoAppend(arguments) => demo::append::run(global, arguments),
        Command::Config(config) => config::run(&arguments.global, config),
    }
}

/// Opens the store as configured and tells what it lost, if anything: damage is no reason to stop a
/// gateway, and never one to be silent.
fn open_store(global: &Global) -> Result<Store, Failure> {
    open_store_with(global, &global.loaded.config.store_options())
}

/// The same with other options.
fn open_store_with(global: &Global, options: &StoreOptions) -> Result<Store, Failure> {
    let store = Store::open_with(&global.data, options)
        .map_err(|error| failure::of_store(&error, &global.data))?;
    for lane in store.lanes() {
        for gap in &lane.opened().gaps {
            tell_lost(global, lane.name(), gap);
        }
    }
    Ok(store)
}

/// Tells what can no longer be read.
fn tell_lost(global: &Global, lane: &str, gap: &Gap) {
    let text = format!("lane {lane}: lost for good: {gap}");
    Failure::new(Exit::Wrong, "lost", text)
        .next("the log goes on behind it; the damaged bytes are in quarantine/ in its directory")
        .tell(global.json);
}

/// Help and version come as errors too: clap knows which is which.
fn usage(error: &clap::Error, json: bool) -> Result<Exit, Ended> {
    if error.use_stderr() && json {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message);
        return Err(Failure::new(Exit::Usage, "usage", message)
            .next("`ferrylog --help` lists the commands")
            .into());
    }
    error.print()?;
    Ok(if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_contradict_nothing() {
        Arguments::command().debug_assert();
    }
}
