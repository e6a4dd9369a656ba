//! Opening a log: what is found, and the steps from there to a log that takes records.
//!
//! Owns: the order of recovery's reads and writes (`docs/durability.md`, "Opening"). Must not know:
//! how the verdict is reached (`recovery`), or anything about a running log.
//!
//! Order of durable steps: sync and re-read (R3); decide; a cursor without the clean mark and with
//! a new limit (R4b); the new segment's header; the cut of the old newest segment (R4). Until the
//! decision nothing is changed, and no step writes into a segment that holds records.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, RwLock};

use super::core::{Core, Files};
use super::cursor::{Class, Settled, Slot};
use super::dictionary::Dictionary;
use super::directory::{CURSORS, LOCK, Segment, Survey};
use super::error::Error;
use super::frame::{Decoded, HEADER_LEN, Header, Kind, u64_at};
use super::fs::{Access, File, Fs};
use super::keeper::{CursorFiles, replace};
use super::options::{MAX_BATCH_BYTES, Options, SEQ_JUMP, SEQ_LEAD};
use super::pool::{Fill, Pool, clear_headers};
use super::reader::{Live, Segments};
use super::recovery::{End, Row, continue_at, ended_cleanly, judge};
use super::scan::{At, Life, Tail, Window, scan_tail, search};
use super::segment::{BODY, EndKind, FIELDS_LEN, Predecessor};
use super::seq::{LogId, SeqNo};
use super::staging::Staging;
use super::wait::{Bell, Waiters};
use super::writer::Atomics;

/// What opening found and did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Opened {
    /// There was no log; this one is new.
    pub created: bool,
    /// The log was closed in order, or is new.
    pub clean: bool,
    /// Recoveries from an unclean end so far, this one included.
    pub unclean_ends: u64,
    /// The number after the last record that was found.
    pub recovered_end: SeqNo,
    /// Numbers skipped so that none is given twice: neither accepted nor lost.
    pub void: Range<SeqNo>,
    /// Bytes of an unfinished write behind the end: never acknowledged at level `disk`.
    pub unproven_bytes: u64,
    /// Both cursor slots were lost: what is settled was taken from the frames, and records may be
    /// shipped again.
    pub cursor_lost: bool,
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            recovered_end,
            unproven_bytes,
            ..
        } = self;
        if self.created {
            return f.write_str("new log");
        }
        if self.clean {
            return write!(f, "closed in order; goes on at {recovered_end}");
        }
        write!(f, "recovered up to {recovered_end} after an unclean end")?;
        if *unproven_bytes > 0 {
            write!(
                f,
                "; an unfinished write of {unproven_bytes} bytes behind it was cut off"
            )?;
        }
        if self.cursor_lost {
            f.write_str("; both cursor files were lost, records may be shipped again")?;
        }
        Ok(())
    }
}

/// A log as it lies in its directory, judged but unchanged.
#[derive(Debug)]
pub(crate) struct Found {
    pub survey: Survey,
    pub log_id: LogId,
    /// Oldest first; empty where a new log has no segment yet.
    pub chain: Vec<Segment>,
    /// The scan of the newest segment.
    pub tail: Option<Tail>,
    /// Everything below it was declared durable somewhere (W).
    pub promised: SeqNo,
    pub definitions: Vec<(u32, bytes::Bytes)>,
}

impl Found {
    /// Reads the log in `dir`; `None` where there is none.
    pub(crate) fn of<F: Fs>(fs: &F, dir: &Path) -> Result<Option<Self>, Error> {
        let survey = Survey::of(fs, dir)?;
        if !survey.is_log() {
            return Ok(None);
        }
        let Some(log_id) = survey.log_id()? else {
            return Err(Error::corrupt(
                dir,
                0,
                "no segment and no cursor has a valid header",
            ));
        };
        let chain = survey.chain(dir, log_id)?;
        let Some(newest) = chain.last() else {
            return Self::without_segments(dir, survey, log_id).map(Some);
        };
        let tail = scan(fs, newest, newest.file_len)?;
        if let (position, At::Unknown(found)) = &tail.stop {
            let found = format!("{found}, at position {position}");
            return Err(Error::Version {
                path: newest.path.clone(),
                found,
            });
        }
        let header = &newest.header;
        let promised = [tail.promise, header.durable_seq, header.previous.next_seq]
            .into_iter()
            .chain(survey.slot().map(|slot| slot.synced))
            .fold(SeqNo::ZERO, SeqNo::max);
        let mut definitions = tail.definitions.clone();
        if tail.records == 0
            && let [.., older, _] = &chain[..]
        {
            // The newest one may have lost its preamble with the records it never got.
            definitions.splice(0..0, scan(fs, older, header.previous.end)?.definitions);
        }
        Ok(Some(Self {
            survey,
            log_id,
            tail: Some(tail),
            chain,
            promised,
            definitions,
        }))
    }

    /// A crash between a new log's cursor and its first segment; or all segments are gone.
    fn without_segments(dir: &Path, survey: Survey, log_id: LogId) -> Result<Self, Error> {
        match survey.slot() {
            Some(slot) if slot.newest == (0, 0) => Ok(Self {
                survey,
                log_id,
                chain: Vec::new(),
                tail: None,
                promised: SeqNo::ZERO,
                definitions: Vec::new(),
            }),
            slot => {
                let newest = slot.map_or(0, |slot| slot.newest.0);
                let reason = format!(
                    "the cursor names segment number {newest}, but no segment has a valid header"
                );
                Err(Error::corrupt(dir, 0, reason))
            }
        }
    }

    /// Where the log ends, or the error of a row that needs repair.
    pub(crate) fn end(&self) -> Result<End, Error> {
        let (Some(tail), Some(newest)) = (&self.tail, self.chain.last()) else {
            return Ok(End {
                row: Row::A,
                position: BODY,
                next_seq: SeqNo::ZERO,
            });
        };
        judge(tail, self.promised).map_err(|missing| {
            let (position, at) = &tail.stop;
            let reason = format!(
                "record {missing} should be here: everything below {} was declared durable; found {at:?}",
                self.promised
            );
            Error::corrupt(&newest.path, *position, reason)
        })
    }

    /// The newest segment holds nothing: it is begun anew instead of cut.
    fn newest_is_empty(&self) -> bool {
        self.tail
            .as_ref()
            .is_some_and(|tail| tail.records == 0 && tail.after.is_none())
            && self
                .chain
                .last()
                .is_some_and(|newest| self.promised <= newest.header.base_seq)
    }

    /// The live segments with their ends, and the void numbers between them.
    pub(crate) fn live(&self, end: End) -> (VecDeque<Live>, Vec<Range<SeqNo>>) {
        let mut live = VecDeque::new();
        let mut voids = Vec::new();
        for (index, segment) in self.chain.iter().enumerate() {
            let header = &segment.header;
            if header.previous.next_seq < header.base_seq {
                voids.push(header.previous.next_seq..header.base_seq);
            }
            let (end, next_seq) = match self.chain.get(index + 1).map(|next| next.header.previous) {
                Some(named) => (named.end, named.next_seq),
                None => (end.position, end.next_seq),
            };
            live.push_back(Live {
                life: Life {
                    number: header.number,
                    salt: header.salt,
                },
                path: segment.path.clone(),
                base_seq: header.base_seq,
                end,
                next_seq,
            });
        }
        (live, voids)
    }

    /// What is settled, as the cursor tells it, or else the frames (row M).
    pub(crate) fn settled(&self, voids: Vec<Range<SeqNo>>) -> Settled {
        if let Some(slot) = self.survey.slot() {
            return Settled::new(slot.origin, slot.low, slot.totals, &slot.runs, voids);
        }
        let first = self
            .chain
            .first()
            .map_or(SeqNo::ZERO, |segment| segment.header.base_seq);
        let low = self
            .tail
            .as_ref()
            .map_or(SeqNo::ZERO, |tail| tail.acked)
            .max(first);
        let mut totals = [0; Class::ALL.len()];
        totals[Class::ALL.len() - 1] = low.get();
        Settled::new(SeqNo::ZERO, low, totals, &[], voids)
    }

    /// Numbers that were reserved for the life that ended.
    fn limits(&self) -> impl Iterator<Item = SeqNo> {
        let slots = self
            .survey
            .slots
            .iter()
            .flatten()
            .map(|slot| slot.seq_limit);
        slots.chain(self.chain.iter().map(|segment| segment.header.seq_limit))
    }

    /// Row H, as far as it is decided today: a file that lost both header copies is a spare, unless
    /// its frames promise records that are nowhere else.
    fn check_headless<F: Fs>(&self, fs: &F, end: End) -> Result<(), Error> {
        for headless in self
            .survey
            .headless
            .iter()
            .filter(|headless| !headless.blank)
        {
            let path = &headless.path;
            let promised = promise_without_header(fs, path).map_err(Error::io("read", path))?;
            if promised > end.next_seq {
                let reason = format!(
                    "both header copies are lost, and the records in it up to {promised} were declared durable"
                );
                return Err(Error::corrupt(path, 0, reason));
            }
        }
        Ok(())
    }
}

fn scan<F: Fs>(fs: &F, segment: &Segment, limit: u64) -> Result<Tail, Error> {
    let file = fs
        .open(&segment.path, Access::Read)
        .map_err(Error::io("open", &segment.path))?;
    let life = Life {
        number: segment.header.number,
        salt: segment.header.salt,
    };
    // A length far beyond the segment's own is not looked at: it may be a sparse terabyte.
    let limit = limit.min(segment.header.size + MAX_BATCH_BYTES as u64);
    scan_tail(&file, life, segment.header.base_seq, limit).map_err(Error::io("read", &segment.path))
}

/// The largest promise in the frames of a file whose start frame is all that names its life.
fn promise_without_header<F: Fs>(fs: &F, path: &Path) -> std::io::Result<SeqNo> {
    let file = fs.open(path, Access::Read)?;
    let mut window = Window::new(super::options::MAX_SEGMENT_SIZE);
    let start = window.slice(&file, BODY, HEADER_LEN + FIELDS_LEN)?;
    if start.len() < HEADER_LEN + FIELDS_LEN {
        return Ok(SeqNo::ZERO);
    }
    let salt = u64_at(&start, HEADER_LEN + 64);
    let number = match Header::decode(&start, salt) {
        Decoded::Header(header) if header.kind == Kind::Start => header.segment,
        Decoded::Header(_) | Decoded::Unknown(_) | Decoded::Invalid => return Ok(SeqNo::ZERO),
    };
    let mut promised = SeqNo::ZERO;
    search(&mut window, &file, Life { number, salt }, BODY, |header| {
        promised = promised.max(header.durable_seq);
        true
    })?;
    Ok(promised)
}

/// Opens the log in `dir`, making one where there is none.
pub(crate) fn open<F: Fs>(
    fs: Arc<F>,
    dir: &Path,
    options: Options,
) -> Result<(Core<F>, Opened, F::Lock), Error> {
    options.check()?;
    fs.create_dir(dir)
        .map_err(Error::io("create directory", dir))?;
    let lock_path = dir.join(LOCK);
    let lock = fs.lock(&lock_path).map_err(Error::io("lock", &lock_path))?;
    let lock = lock.ok_or(Error::Locked { path: lock_path })?;
    let survey = Survey::of(&*fs, dir)?;
    for path in &survey.temporary {
        fs.remove(path).map_err(Error::io("remove", path))?;
    }
    let created = !survey.is_log();
    if created {
        create_log(&*fs, dir)?;
    } else {
        sync_and_drop_cache(&*fs, dir, &survey)?;
    }
    let found = Found::of(&*fs, dir)?.ok_or_else(|| Error::NotALog { path: dir.into() })?;
    let end = found.end()?;
    found.check_headless(&*fs, end)?;
    let (core, opened) = go_on(fs, dir, options, found, end, created)?;
    Ok((core, opened, lock))
}

/// A new log is its cursor: it appears whole, and names no segment yet.
fn create_log<F: Fs>(fs: &F, dir: &Path) -> Result<(), Error> {
    let random = || fs.random().map_err(Error::io("draw randomness for", dir));
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random()?.to_le_bytes());
    id[8..].copy_from_slice(&random()?.to_le_bytes());
    let slot = Slot {
        log_id: LogId::new(id),
        generation: 1,
        low: SeqNo::ZERO,
        oldest: 0,
        newest: (0, 0),
        synced: SeqNo::ZERO,
        seq_limit: SeqNo::ZERO + SEQ_LEAD,
        origin: SeqNo::ZERO,
        totals: [0; Class::ALL.len()],
        unclean_ends: 0,
        clean: true,
        runs: Vec::new(),
    };
    replace(fs, dir, &dir.join(CURSORS[0]), &slot.encode())?;
    Ok(())
}

/// R3: what a killed process left in memory becomes durable, and what is read comes from the medium.
fn sync_and_drop_cache<F: Fs>(fs: &F, dir: &Path, survey: &Survey) -> Result<(), Error> {
    let newest = survey.segments.last().map(|segment| segment.path.clone());
    for path in CURSORS.map(|name| dir.join(name)).into_iter().chain(newest) {
        let file = match fs.open(&path, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            file => file.map_err(Error::io("open", &path))?,
        };
        file.sync().map_err(Error::io("sync", &path))?;
        file.drop_cache()
            .map_err(Error::io("drop the cache of", &path))?;
    }
    fs.sync_dir(dir).map_err(Error::io("sync", dir))
}

/// From the verdict to a log that takes records.
fn go_on<F: Fs>(
    fs: Arc<F>,
    dir: &Path,
    options: Options,
    found: Found,
    end: End,
    created: bool,
) -> Result<(Core<F>, Opened), Error> {
    let newest = found
        .chain
        .last()
        .map(|s| (s.header.number, s.header.salt))
        .unwrap_or_default();
    let clean = ended_cleanly(found.survey.slot(), newest, end.next_seq);
    let cursor_lost = found.survey.slot().is_none();
    let base = continue_at(
        end.next_seq,
        clean,
        found.limits(),
        if cursor_lost { SEQ_JUMP } else { 0 },
    );
    let slot_ends = found.survey.slot().map_or(0, |slot| slot.unclean_ends);
    let opened = Opened {
        created,
        clean,
        unclean_ends: slot_ends + u64::from(!clean),
        recovered_end: end.next_seq,
        void: end.next_seq..base,
        unproven_bytes: found.unproven_bytes(end),
        cursor_lost,
    };

    let empty = found.newest_is_empty();
    let (mut live, voids) = found.live(end);
    let mut settled = found.settled(voids);
    settled.add_void(end.next_seq..base);
    let saved = found.survey.slots.clone();
    let mut cursor = CursorFiles::open(&*fs, dir, saved, opened.unclean_ends)?;
    let seq_limit = base + SEQ_LEAD;
    let oldest = live
        .iter()
        .find(|l| l.next_seq > settled.low())
        .map_or(newest.0, |l| l.life.number);
    let (runs, totals) = settled.to_slot_parts();
    let first_save = Slot {
        log_id: found.log_id,
        generation: 0,
        low: settled.low(),
        oldest: oldest.min(newest.0),
        newest,
        synced: end.next_seq,
        seq_limit,
        origin: SeqNo::ZERO,
        totals,
        unclean_ends: opened.unclean_ends,
        clean: false,
        runs,
    };
    cursor.save(&*fs, dir, first_save)?;

    let files = Files {
        dir: dir.into(),
        log_id: found.log_id,
        marks: Atomics::new(base, settled.low()),
        pool: Mutex::new(found.pool(&*fs)?),
        fill: Fill::default(),
        dictionary: RwLock::new(found.dictionary()),
        keeper: Bell::default(),
        options,
        fs,
    };
    let previous = found.predecessor(end, empty);
    let number = found
        .survey
        .segments
        .iter()
        .map(|s| s.header.number)
        .max()
        .unwrap_or(0)
        + 1;
    let header = files.new_header(number, base, seq_limit, previous)?;
    let begun = files.begin_segment(header, &mut VecDeque::new())?.sync()?;

    if let Some(old) = found.chain.last() {
        if empty {
            live.pop_back();
            // Its header stayed until the new one was durable.
            let max = files.options.max_spares;
            files
                .pool
                .lock()
                .release(&*files.fs, &files.dir, old.path.clone(), max)?;
        } else {
            cut(&*files.fs, &old.path, end.position)?;
        }
    }
    live.push_back(Live {
        end: begun.ledger.durable_end,
        ..begun.writer.live()
    });
    let core = Core {
        staging: Mutex::new(Staging::new(
            base,
            base + SEQ_LEAD / 2,
            files.options.memory_budget,
        )),
        space: Condvar::new(),
        writer: Mutex::new(begun.writer),
        sync: Mutex::new(()),
        ledger: Mutex::new(begun.ledger),
        segments: Arc::new(Segments(Mutex::new(live))),
        settled: Mutex::new(settled),
        cursor: Mutex::new(cursor),
        waiters: Waiters::default(),
        flusher: Bell::default(),
        syncer: Bell::default(),
        failure: OnceLock::new(),
        background: Mutex::new(None),
        files,
    };
    Ok((core, opened))
}

/// R4: nothing behind the end can ever be taken for a record again.
fn cut<F: Fs>(fs: &F, path: &Path, end: u64) -> Result<(), Error> {
    let file = fs
        .open(path, Access::Write)
        .map_err(Error::io("open", path))?;
    if file.len().map_err(Error::io("measure", path))? > end {
        file.set_len(end).map_err(Error::io("cut", path))?;
        file.sync().map_err(Error::io("sync", path))?;
    }
    Ok(())
}

impl Found {
    fn dictionary(&self) -> Dictionary {
        let mut dictionary = Dictionary::default();
        for (id, text) in &self.definitions {
            // A copy: the slice would hold on to a whole read buffer.
            dictionary.insert(*id, bytes::Bytes::copy_from_slice(text));
        }
        dictionary
    }

    /// Files that hold nothing live. Other logs' files are left alone.
    fn pool<F: Fs>(&self, fs: &F) -> Result<Pool, Error> {
        let off_chain = self.survey.segments.iter().filter(|segment| {
            segment.header.log_id == self.log_id
                && !self.chain.iter().any(|live| live.path == segment.path)
        });
        let damaged = self
            .survey
            .headless
            .iter()
            .filter(|headless| !headless.blank);
        for path in off_chain
            .clone()
            .map(|s| &s.path)
            .chain(damaged.map(|h| &h.path))
        {
            clear_headers(fs, path)?;
        }
        let headless = self.survey.headless.iter().map(|headless| &headless.path);
        let spares = off_chain
            .map(|segment| &segment.path)
            .chain(headless)
            .cloned()
            .collect();
        Ok(Pool::new(spares, self.survey.largest_identity))
    }

    fn predecessor(&self, end: End, empty: bool) -> Predecessor {
        match self.chain.last().map(|newest| newest.header) {
            None => Predecessor::NONE,
            Some(header) if empty => header.previous,
            Some(header) => Predecessor {
                number: header.number,
                salt: header.salt,
                end: end.position,
                next_seq: end.next_seq,
                kind: match &self.tail {
                    Some(tail) if tail.sealed && end.row == Row::A => EndKind::Sealed,
                    Some(_) | None => EndKind::Torn,
                },
            },
        }
    }

    /// Bytes of this life behind the end.
    fn unproven_bytes(&self, end: End) -> u64 {
        let Some(tail) = &self.tail else { return 0 };
        let torn = match &tail.stop {
            (position, At::BadPayload(header)) => position + header.span(),
            (position, At::BadHeader) => position + HEADER_LEN as u64,
            (position, At::Frame(_) | At::Unknown(_) | At::Nothing) => *position,
        };
        let behind = tail
            .after
            .map_or(0, |header| header.position + header.span());
        torn.max(behind).max(tail.end).saturating_sub(end.position)
    }
}
