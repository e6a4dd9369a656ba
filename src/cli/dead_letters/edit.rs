//! `ferrylog dead-letters edit`: another content for a letter.
//!
//! Owns what can be changed, and how. The letter that is edited is given up, and a new one takes its
//! place; both or neither.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::super::{
    Global,
    failure::{self, Ended, Exit, Failure},
    input, output,
};
use crate::{
    message::{Header, MessageRef},
    store::{DeadLetters, StoredLetter},
    wal::SeqNo,
};

/// Put a corrected letter in the place of one; what is not named stays as it is
///
/// The new letter has another number, which is printed, and is sent with `replay` as the old one would
/// have been. Where topic or key change, the partition is chosen anew.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Number of the letter
    #[arg(value_name = "SEQ")]
    seq: u64,

    /// Take the value from this file; - is standard input
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,

    /// Another key
    #[arg(long, value_name = "TEXT", conflicts_with = "no_key")]
    key: Option<String>,

    /// No key
    #[arg(long)]
    no_key: bool,

    /// Another topic; needed where the bytes are no message
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,

    /// Set a header, in the place of all of its name; may be given many times
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,

    /// Remove all headers of this name; may be given many times
    #[arg(long, value_name = "NAME")]
    remove_header: Vec<String>,

    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("it has no `=`")?;
    Ok((name.into(), value.into()))
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<Exit, Ended> {
    if !arguments.changes_anything() {
        return Err(
            Failure::new(Exit::Usage, "usage", "nothing to change is named")
                .next("name a --value-file, a --key, a --topic or a --header")
                .into(),
        );
    }
    let value = arguments.value_file.as_deref().map(read).transpose()?;
    let none = || super::none(Some(arguments.seq));
    let store = super::open(global)?.ok_or_else(none)?;
    let edited = store
        .dead_letters()
        .map_err(|error| failure::of_store(&error, &global.data).into())
        .and_then(|letters| edit(global, arguments, value.as_deref(), letters));
    let closed = store.close();
    let new = edited?;
    closed.map_err(|error| failure::of_store(&error, &global.data))?;
    tell(global, arguments, new)
}

/// Returns the number of the new letter, if one was made.
fn edit(
    global: &Global,
    arguments: &Arguments,
    value: Option<&[u8]>,
    letters: &DeadLetters,
) -> Result<Option<SeqNo>, Ended> {
    let store_failure = |error| failure::of_store(&error, &global.data);
    let seq = SeqNo::new(arguments.seq);
    let letter = super::open_letter(letters, seq).map_err(store_failure)?;
    arguments.with_edited(&letter, value, |message| {
        if arguments.dry_run {
            let checked = message.check().map_err(crate::store::Error::Invalid);
            return Ok(checked.map(|()| None).map_err(store_failure)?);
        }
        Ok(Some(letters.edit(seq, message).map_err(store_failure)?))
    })
}

fn tell(global: &Global, arguments: &Arguments, new: Option<SeqNo>) -> Result<Exit, Ended> {
    let old = arguments.seq;
    if global.json {
        let new = new.map(SeqNo::get);
        output::json(&json!({"replaces": old, "seq": new, "dry_run": arguments.dry_run}))?;
        return Ok(Exit::Done);
    }
    let mut out = output::stdout();
    match new {
        Some(new) => writeln!(
            out,
            "dead letter {new} took the place of {old}; `ferrylog dead-letters replay {new}` has it sent"
        )?,
        None => writeln!(out, "dead letter {old} would be replaced")?,
    }
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        fs::read(path).map(|read| bytes = read)
    };
    read.map(|()| bytes).map_err(|error| {
        input::unreadable(Exit::Usage, &error)
            .context(&path.display().to_string())
            .fact("nothing was changed")
            .next("name a file with the new value")
    })
}

impl Arguments {
    fn changes_anything(&self) -> bool {
        self.value_file.is_some()
            || self.key.is_some()
            || self.no_key
            || self.topic.is_some()
            || !self.header.is_empty()
            || !self.remove_header.is_empty()
    }

    /// Hands on the message as it is to be. Bytes that are no message become the value of one.
    fn with_edited<T>(
        &self,
        letter: &StoredLetter,
        value: Option<&[u8]>,
        use_it: impl FnOnce(&MessageRef<'_>) -> Result<T, Ended>,
    ) -> Result<T, Ended> {
        let body = &letter.body;
        let topic = self.topic.as_deref().or_else(|| body.topic());
        let topic = topic.ok_or_else(|| {
            let text = "the bytes are no message, so they have no topic; nothing was changed";
            Failure::new(Exit::Usage, "usage", text).next("name one with --topic")
        })?;
        let (headers, key, old_value, partition, timestamp_millis) = match &body.content {
            Ok(message) => (
                message.headers().collect(),
                message.key.as_deref(),
                message.value.as_deref(),
                message.partition,
                message.timestamp_millis,
            ),
            Err(raw) => (
                Vec::new(),
                None,
                Some(&raw[..]),
                None,
                body.first_attempt_millis,
            ),
        };
        let key_now = match (&self.key, self.no_key) {
            (Some(key), _) => Some(key.as_bytes()),
            (None, true) => None,
            (None, false) => key,
        };
        let stays = key_now == key && body.topic() == Some(topic);
        use_it(&MessageRef {
            partition: partition.filter(|_| stays),
            key: key_now,
            headers: &self.headers(headers),
            timestamp_millis: Some(timestamp_millis.max(0)),
            value: value.or(old_value),
            // Who edits a record wants it sent, however late.
            ..MessageRef::to(topic)
        })
    }

    /// The old headers without those that are named, then those that are set.
    fn headers<'a>(&'a self, old: Vec<Header<'a>>) -> Vec<Header<'a>> {
        let is_named = |header: &Header<'_>| {
            let removed = self.remove_header.iter().any(|name| name == header.name);
            removed || self.header.iter().any(|(name, _)| name == header.name)
        };
        let kept = old.into_iter().filter(|header| !is_named(header));
        let set = self.header.iter().map(|(name, value)| Header {
            name,
            value: Some(value.as_bytes()),
        });
        kept.chain(set).collect()
    }
}
