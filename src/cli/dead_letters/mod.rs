//! `ferrylog dead-letters`: what Kafka refused for good: look at it, send it again, correct it, give it up.
//!
//! Owns the subcommands and their words. It must not know how a letter is kept, nor how it is sent:
//! `replay` only says that it is to be sent, and who ships does it.
//!
//! Invariants: `list` and `show` take no lock and change nothing. What was named and does not lie open
//! is told before anything is changed.

mod edit;
mod filter;
mod line;

use std::io::Write;

use serde_json::json;

use super::{
    Global,
    failure::{self, Ended, Exit, Failure},
    output,
};
use crate::{
    store::{DeadLetterView, DeadLetters, Store, StoreView, StoredLetter},
    wal::SeqNo,
};
use filter::Filter;
use line::Line;

/// Look at what Kafka refused for good; send it again, correct it, or give it up
///
/// A dead letter lies in the store until somebody decides about it, or until its retention is over.
/// list and show work on a store that another process has open; the others do not.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(List),
    Show(Show),
    /// Have letters sent again with the next drain
    ///
    /// Choose them by number or by filter.
    Replay(Decide),
    Edit(edit::Arguments),
    /// Give letters up for good
    ///
    /// Choose them by number or by filter. Their bytes go with the next release of their segment.
    Drop(Decide),
}

/// List letters, oldest first, one a line
///
/// Those that lie open: kept, or pending for replay.
#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    filter: Filter,

    /// Also those that were replayed, dropped or given up, as long as their bytes are there
    #[arg(long)]
    all: bool,
}

/// Show letters in full
///
/// Keys and values that are no UTF-8 are shown as base64.
#[derive(Debug, clap::Args)]
struct Show {
    /// Numbers of the letters
    #[arg(value_name = "SEQ", required = true)]
    seqs: Vec<u64>,
}

// No doc comment: clap would show it in the place of the command's own.
#[derive(Debug, clap::Args)]
struct Decide {
    #[command(flatten)]
    filter: Filter,

    /// All letters that lie open
    #[arg(long)]
    all: bool,

    /// Only say which letters it would be
    #[arg(long)]
    dry_run: bool,
}

/// What is decided about letters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    Replay,
    Drop,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<Exit, Ended> {
    match &arguments.command {
        Command::List(arguments) => list(global, arguments),
        Command::Show(arguments) => show(global, arguments),
        Command::Replay(arguments) => decide(global, arguments, Decision::Replay),
        Command::Edit(arguments) => edit::run(global, arguments),
        Command::Drop(arguments) => decide(global, arguments, Decision::Drop),
    }
}

fn list(global: &Global, arguments: &List) -> Result<Exit, Ended> {
    let store_failure = |error| failure::of_store(&error, &global.data);
    arguments.filter.check()?;
    let mut out = std::io::BufWriter::new(output::stdout());
    let mut count = 0;
    let Some(view) = view(global)? else {
        return told(global, &mut out, count).map(|()| Exit::Done);
    };
    let mut letters = view.letters();
    while let Some(letter) = letters.next().map_err(store_failure)? {
        let is_asked_for = arguments.all || letter.state.is_open();
        if is_asked_for && arguments.filter.passes(&letter) {
            let line = Line::brief(&letter);
            if global.json {
                output::json_line(&mut out, &line)?;
            } else {
                line.tell(&mut out)?;
            }
            count += 1;
        }
    }
    told(global, &mut out, count)?;
    tell_damage(global, &view)
}

/// The last line of a list for people.
fn told(global: &Global, out: &mut impl Write, count: u64) -> Result<(), Ended> {
    if !global.json {
        writeln!(out, "{}", output::count(count, "dead letter"))?;
    }
    Ok(out.flush()?)
}

fn show(global: &Global, arguments: &Show) -> Result<Exit, Ended> {
    let view = view(global)?.ok_or_else(|| none(arguments.seqs.first().copied()))?;
    let mut out = output::stdout();
    for &seq in &arguments.seqs {
        let letter = view.get(SeqNo::new(seq));
        let letter = letter.map_err(|error| failure::of_store(&error, &global.data))?;
        let letter = letter.ok_or_else(|| none(Some(seq)))?;
        let line = Line::full(&letter);
        if global.json {
            output::json_line(&mut out, &line)?;
        } else {
            output::table(&mut out, &line.rows())?;
        }
    }
    tell_damage(global, &view)
}

/// The dead letters, to look at; `None`: there never was one.
fn view(global: &Global) -> Result<Option<DeadLetterView>, Failure> {
    let store_failure = |error| failure::of_store(&error, &global.data);
    let store = StoreView::open_with(&global.data, global.keys()).map_err(store_failure)?;
    store.dead_letters().map_err(store_failure)
}

/// Letters that cannot be read are never passed over in silence.
fn tell_damage(global: &Global, view: &DeadLetterView) -> Result<Exit, Ended> {
    if view.damaged() == 0 {
        return Ok(Exit::Done);
    }
    let text = format!(
        "{} of the dead letters cannot be read any more",
        output::count(view.damaged(), "record")
    );
    Failure::new(Exit::Wrong, "corrupt", text)
        .next("`ferrylog verify` names every damaged region")
        .tell(global.json);
    Ok(Exit::Wrong)
}

fn none(seq: Option<u64>) -> Failure {
    let which = seq.map_or(String::new(), |seq| format!(" {seq}"));
    let text = format!("there is no dead letter{which}");
    Failure::new(Exit::Wrong, "no_such_letter", text)
        .next("`ferrylog dead-letters list --all` shows what is there")
}

fn decide(global: &Global, arguments: &Decide, decision: Decision) -> Result<Exit, Ended> {
    arguments.filter.check()?;
    if arguments.all != arguments.filter.is_empty() {
        let text = if arguments.all {
            "--all and a choice of letters contradict each other"
        } else {
            "no letter is chosen"
        };
        let next =
            "give numbers or a filter, or --all for all that lie open; --dry-run shows which";
        return Err(Failure::new(Exit::Usage, "usage", text).next(next).into());
    }
    let Some(store) = open(global)? else {
        return match arguments.filter.seqs().first() {
            Some(&seq) => Err(none(Some(seq)).into()),
            None => tell(global, arguments.dry_run, decision, &Chosen::default()),
        };
    };
    let decided = decide_in(global, arguments, decision, &store);
    let closed = store.close();
    let exit = decided?;
    closed.map_err(|error| failure::of_store(&error, &global.data))?;
    Ok(exit)
}

fn decide_in(
    global: &Global,
    arguments: &Decide,
    decision: Decision,
    store: &Store,
) -> Result<Exit, Ended> {
    let store_failure = |error| failure::of_store(&error, &global.data);
    let letters = store.dead_letters().map_err(store_failure)?;
    let chosen = choose(letters, &arguments.filter, decision).map_err(store_failure)?;
    if let Some(missing) = chosen.missing {
        let text = format!("no dead letter {missing} lies open; nothing was changed");
        return Err(Failure::new(Exit::Wrong, "no_such_letter", text)
            .next("`ferrylog dead-letters list --all` shows what became of it")
            .into());
    }
    if !arguments.dry_run {
        match decision {
            Decision::Replay => letters.mark_pending(&chosen.seqs),
            Decision::Drop => letters.drop_letters(&chosen.seqs),
        }
        .map_err(store_failure)?;
    }
    tell(global, arguments.dry_run, decision, &chosen)
}

/// The letters that a decision is about.
#[derive(Default)]
struct Chosen {
    seqs: Vec<SeqNo>,
    /// Chosen, but no message: they cannot be sent as they are.
    raw: Vec<SeqNo>,
    /// A number that was given and does not lie open.
    missing: Option<u64>,
}

fn choose(
    letters: &DeadLetters,
    filter: &Filter,
    decision: Decision,
) -> Result<Chosen, crate::store::Error> {
    let mut chosen = Chosen::default();
    let open = letters.open_letters(|_, _, _| true);
    let is_missing = |seq: &&u64| open.binary_search(&SeqNo::new(**seq)).is_err();
    chosen.missing = filter.seqs().iter().find(is_missing).copied();
    for seq in open {
        if !filter.may_pass(seq) {
            continue;
        }
        // One that cannot be read was counted as lost meanwhile.
        let Some(letter) = letters.get(seq)?.filter(|letter| filter.passes(letter)) else {
            continue;
        };
        if decision == Decision::Replay && letter.body.content.is_err() {
            chosen.raw.push(seq);
        } else {
            chosen.seqs.push(seq);
        }
    }
    Ok(chosen)
}

fn tell(
    global: &Global,
    dry_run: bool,
    decision: Decision,
    chosen: &Chosen,
) -> Result<Exit, Ended> {
    let numbers = |seqs: &[SeqNo]| seqs.iter().map(|seq| seq.get()).collect::<Vec<_>>();
    if global.json {
        output::json(&json!({
            "decision": match decision {
                Decision::Replay => "replay",
                Decision::Drop => "drop",
            },
            "dry_run": dry_run,
            "seqs": numbers(&chosen.seqs),
            "left_out": numbers(&chosen.raw),
        }))?;
    } else {
        let count = output::count(chosen.seqs.len() as u64, "dead letter");
        let what = match (decision, dry_run) {
            (Decision::Replay, false) => "to be sent again; `ferrylog drain` sends them",
            (Decision::Replay, true) => "would be sent again",
            (Decision::Drop, false) => "dropped",
            (Decision::Drop, true) => "would be dropped",
        };
        let mut out = output::stdout();
        write!(out, "{count} {what}")?;
        if dry_run && !chosen.seqs.is_empty() {
            let seqs: Vec<String> = chosen.seqs.iter().map(ToString::to_string).collect();
            write!(out, ": {}", seqs.join(" "))?;
        }
        writeln!(out)?;
    }
    let Some(first) = chosen.raw.first() else {
        return Ok(Exit::Done);
    };
    let text = format!(
        "{} left out: the bytes are no message",
        output::count(chosen.raw.len() as u64, "dead letter")
    );
    Failure::new(Exit::Wrong, "undecodable", text)
        .next(format!(
            "`ferrylog dead-letters edit {first} --topic TOPIC` makes a message of one"
        ))
        .tell(global.json);
    Ok(Exit::Wrong)
}

/// The store, with its lock. `None`: it has no dead letters. Makes neither.
fn open(global: &Global) -> Result<Option<Store>, Failure> {
    if view(global)?.is_none() {
        return Ok(None);
    }
    super::open_store(global).map(Some)
}

/// The letter of this number, if it lies open.
fn open_letter(letters: &DeadLetters, seq: SeqNo) -> Result<StoredLetter, crate::store::Error> {
    letters
        .get(seq)?
        .filter(|letter| letter.state.is_open())
        .ok_or(crate::store::Error::NoSuchLetter { seq })
}
