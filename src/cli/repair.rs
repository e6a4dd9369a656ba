//! `ferrylog repair`: what only a person can decide about shipping exactly once.
//!
//! Owns the arguments and the words; what is kept is the store's.

use serde_json::json;

use super::{
    Global,
    failure::{self, Ended, Exit, Failure},
    output,
};
use crate::{
    ship::exactly_once,
    store::{Lane, Store, StoreView},
};

/// Decide what shipping exactly once could not decide
///
/// `drain --exactly-once` says when one of these is needed. Nothing is sent by this command.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("decision").required(true))]
pub(super) struct Arguments {
    /// The last transaction is in doubt: its records are in Kafka, or they are not
    #[arg(long, group = "decision", value_name = "WHAT")]
    in_doubt: Option<InDoubt>,

    /// This store is a copy of another that lives on: ship as another gateway from now on, under a
    /// new transactional id and with new `ferry-id` headers. What the store still holds is sent,
    /// also if the other one sends it, too
    #[arg(long, group = "decision")]
    new_identity: bool,

    /// The lane
    #[arg(long, value_name = "NAME", default_value = "default")]
    lane: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum InDoubt {
    /// They are in Kafka: they are settled as shipped
    Sent,
    /// They are not: they are sent again
    NotSent,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<Exit, Ended> {
    let store_failure = |error| failure::of_store(&error, &global.data);
    // Looked at first, because opening would make a store where there is none.
    StoreView::open_with(&global.data, global.keys()).map_err(store_failure)?;
    let store = super::open_store(global)?;
    let Some(lane) = store.lane_named(&arguments.lane) else {
        let text = format!("there is no lane `{}`", arguments.lane);
        let failure = Failure::new(Exit::Usage, "no_lane", text);
        return Err(failure.next("`ferrylog status` lists the lanes").into());
    };
    let told = match arguments.in_doubt {
        Some(decision) => decide(global, &store, lane, decision)?,
        None => renew(global, &store, lane)?,
    };
    store.close().map_err(store_failure)?;
    if global.json {
        output::json(&told.1)?;
    } else {
        output::table(&mut output::stdout(), &[("done", told.0)])?;
    }
    Ok(Exit::Done)
}

type Told = (String, serde_json::Value);

fn decide(global: &Global, store: &Store, lane: &Lane, decision: InDoubt) -> Result<Told, Ended> {
    let is_sent = decision == InDoubt::Sent;
    let decided = exactly_once::decide_by_hand(store, lane, is_sent)
        .map_err(|error| failure::of_store(&error, &global.data))?;
    let Some(decided) = decided else {
        let failure = Failure::new(Exit::Wrong, "not_in_doubt", "no transaction is in doubt");
        return Err(failure
            .next("`ferrylog drain --exactly-once` goes on")
            .into());
    };
    let numbers = decided.numbers;
    let (first, last) = (numbers.start.get(), numbers.end.get().saturating_sub(1));
    let what = match decided.are_letters {
        true => "what it carried of the dead letters",
        false => "records",
    };
    let (word, text) = match decision {
        InDoubt::Sent => ("sent", "settled as shipped"),
        InDoubt::NotSent => ("not_sent", "to be sent again"),
    };
    Ok((
        format!("{what} {first} to {last} are {text}"),
        json!({ "decision": word, "from": first, "to": last, "dead_letters": decided.are_letters }),
    ))
}

fn renew(global: &Global, store: &Store, lane: &Lane) -> Result<Told, Ended> {
    let store_failure = |error| failure::of_store(&error, &global.data);
    let before = lane.intents().map_err(store_failure)?.identity();
    let identity = exactly_once::renew_identity(store, lane).map_err(store_failure)?;
    Ok((
        format!(
            "lane {} ships as {identity} from now on, no longer as {before}",
            lane.name()
        ),
        json!({ "lane": lane.name(), "identity": identity.to_string(), "before": before.to_string() }),
    ))
}
