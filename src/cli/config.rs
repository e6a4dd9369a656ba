//! `ferrylog config`: looks at a configuration, and helps to write one.
//!
//! Owns the words; what is right and what is shown is the configuration's own business.

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::{
    GlobalArguments,
    failure::{Ended, Exit, Failure},
    output,
};
use crate::config;

/// Check, show or begin a configuration
///
/// It is read from the file that --config names, with the environment on top (FERRYLOG__SECTION__KEY), and
/// what a command is told on top of that. Exit code 2: it is wrong, and all that is wrong is named.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check it; nothing is opened and nobody connected to
    Check,
    /// Show what is in effect, and where each value comes from; secrets are hidden
    Show,
    /// Print a file with every key, its meaning and its default
    Example,
    /// Print a JSON Schema, for editors
    Schema,
}

pub(super) fn run(global: &GlobalArguments, arguments: &Arguments) -> Result<Exit, Ended> {
    let mut out = output::stdout();
    match arguments.action {
        Action::Check => {
            let loaded = global.load(Vec::new())?;
            let given = loaded.given();
            let has_cluster = loaded.config.clusters().is_some();
            if global.json {
                output::json(&json!({ "given": given, "has_cluster": has_cluster }))?;
            } else {
                writeln!(
                    out,
                    "the configuration is right: {} given",
                    output::count(given as u64, "value")
                )?;
                if !has_cluster {
                    writeln!(
                        out,
                        "it names no cluster to ship to: that is kafka.bootstrap_servers"
                    )?;
                }
            }
        }
        Action::Show => {
            let rows = global.load(Vec::new())?.rows();
            if global.json {
                output::json(&rows)?;
            } else {
                out.write_all(config::toml(&rows).as_bytes())?;
            }
        }
        Action::Example if global.json => output::json(&config::example())?,
        Action::Example => out.write_all(config::example().as_bytes())?,
        Action::Schema if global.json => output::json(&config::schema())?,
        Action::Schema => writeln!(out, "{:#}", config::schema())?,
    }
    Ok(Exit::Done)
}

/// Tells what is wrong with a configuration.
pub(super) fn failure(error: &config::Error) -> Failure {
    Failure::new(Exit::Usage, "configuration", error.to_string())
        .problems(json!(error.problems))
        .next("nothing was done; `ferrylog config example` prints every key with its meaning")
}
