//! Opening a log: what is found, and the steps from there to a log that takes records.
//!
//! Owns: the order of recovery's reads and writes (`docs/durability.md`, "Opening"). Must not know:
//! how the verdict is reached (`recovery`), or anything about a running log.
//!
//! Order of durable steps: sync and re-read (R3); decide; copies of what is damaged; a cursor without the clean mark and with
//! a new limit (R4b); the new segment's header; the cut of the old newest segment (R4). Until the
//! decision nothing is changed, and no step writes into a segment that holds records.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, RwLock};

use super::active::{Active, Files};
use super::ballast::give_up;
use super::core::Core;
use super::cursor::Slot;
use super::dictionary::Dictionary;
use super::directory::{CURSORS, LOCK, Survey};
use super::error::Error;
use super::found::Found;
use super::frame::{MAX_SEGMENT_NUMBER, PAGE};
use super::fs::{Access, File, Fs};
use super::gap::Gap;
use super::keeper::{CursorFiles, replace};
use super::ledger::Ledger;
use super::marks::Atomics;
use super::options::{OnCorruption, Options, SEQ_JUMP, SEQ_LEAD};
use super::outcome::Watch;
use super::pool::{Fill, Pool};
use super::quarantine::quarantine;
use super::reader::{Live, Segments};
use super::recovery::{continue_at, ended_cleanly};
use super::rest::Packer;
use super::seq::{LogId, SeqNo};
use super::settled::{Class, Settled};
use super::shortage::Shortage;
use super::staging::Staging;
use super::wait::{Bell, Waiters};

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
    /// What was promised and is gone, found just now. Numbers that were settled before keep their
    /// outcome; the others are settled as [`Lost`](super::Class::Lost).
    pub gaps: Vec<Gap>,
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
        if self.clean && self.gaps.is_empty() {
            return write!(f, "closed in order; goes on at {recovered_end}");
        }
        write!(f, "recovered up to {recovered_end} after an unclean end")?;
        if *unproven_bytes > 0 {
            write!(
                f,
                "; an unfinished write of {unproven_bytes} bytes behind it was cut off"
            )?;
        }
        for gap in &self.gaps {
            write!(f, "; lost: {gap}")?;
        }
        if self.cursor_lost {
            f.write_str("; both cursor files were lost, records may be shipped again")?;
        }
        Ok(())
    }
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
    let (core, opened) = match recover(fs.clone(), dir, options.clone(), created) {
        // On a full disk the ballast is what the first pages of the new segment are written to.
        Err(error) if error.is_full() && give_up(&*fs, dir)? => recover(fs, dir, options, created)?,
        recovered => recovered?,
    };
    core.ballast.begin("not looked for yet".into());
    Ok((core, opened, lock))
}

/// Reads, decides, goes on. Called again after any failure it finds the same records.
fn recover<F: Fs>(
    fs: Arc<F>,
    dir: &Path,
    options: Options,
    created: bool,
) -> Result<(Core<F>, Opened), Error> {
    let mut found = Found::of(&*fs, dir)?.ok_or_else(|| Error::NotALog { path: dir.into() })?;
    if options.on_corruption == OnCorruption::Refuse
        && let Some(damage) = found.damage(dir)
    {
        return Err(damage);
    }
    // Without its definitions a log cannot go on: the key is asked for before anything is changed.
    let dictionary = found.dictionary(&options.keys)?;
    quarantine(&*fs, dir, &mut found)?;
    go_on(fs, dir, options, &found, (created, dictionary))
}

/// A new log is its cursor: it appears whole, and names no segment yet.
fn create_log<F: Fs>(fs: &F, dir: &Path) -> Result<(), Error> {
    let random = || fs.random().map_err(Error::io("draw randomness for", dir));
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random()?.to_le_bytes());
    id[8..].copy_from_slice(&random()?.to_le_bytes());
    let nothing = Settled::new(SeqNo::ZERO, SeqNo::ZERO, [0; Class::ALL.len()], &[], [], []);
    let slot = Slot {
        generation: 1,
        clean: true,
        ..slot_of(LogId::new(id), &nothing)
    };
    replace(fs, dir, &dir.join(CURSORS[0]), &slot.encode())?;
    Ok(())
}

/// A slot with what is settled, and nothing else of note.
fn slot_of(log_id: LogId, settled: &Settled) -> Slot {
    let (runs, totals) = settled.to_slot_parts();
    Slot {
        log_id,
        generation: 0,
        low: settled.low(),
        oldest: 0,
        newest: (0, 0),
        synced: SeqNo::ZERO,
        seq_limit: SeqNo::ZERO + SEQ_LEAD,
        origin: SeqNo::ZERO,
        totals,
        unclean_ends: 0,
        clean: false,
        runs,
    }
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
    found: &Found,
    (created, dictionary): (bool, Dictionary),
) -> Result<(Core<F>, Opened), Error> {
    let end = &found.end;
    let newest = found.newest();
    let slot = found.survey.slot();
    let clean = ended_cleanly(slot, newest, end.next_seq);
    let base = next_seq(dir, found, clean)?;
    let keep = options.keep_from.unwrap_or(SeqNo::LIMIT);
    let opened = Opened {
        created,
        clean,
        unclean_ends: slot.map_or(0, |slot| slot.unclean_ends) + u64::from(!clean),
        recovered_end: end.next_seq,
        void: end.next_seq..base,
        unproven_bytes: found.unproven_bytes(),
        cursor_lost: slot.is_none(),
        gaps: found.fresh.clone(),
    };

    let (mut live, voids) = found.live();
    let mut settled = found.settled(voids);
    settled.add_void(end.next_seq..base);
    let saved = found.survey.slots.clone();
    let mut cursor = CursorFiles::open(&*fs, dir, saved, opened.unclean_ends)?;
    let first_save = Slot {
        oldest: oldest_needed(&live, settled.low().min(keep), newest.0),
        newest,
        synced: end.next_seq,
        seq_limit: base + SEQ_LEAD,
        unclean_ends: opened.unclean_ends,
        ..slot_of(found.log_id, &settled)
    };
    cursor.save(&*fs, dir, first_save)?;

    let files = Files {
        dir: dir.into(),
        log_id: found.log_id,
        marks: Atomics::new(base, settled.low()),
        pool: Mutex::new(Pool::of(&*fs, &found.survey, found.log_id, &found.chain)?),
        fill: Fill::default(),
        packer: Mutex::new(Packer::new(&options)?),
        dictionary: RwLock::new(dictionary),
        gaps: Mutex::new(found.gaps()),
        keeper: Bell::default(),
        last_number: found.largest_number().into(),
        options,
        fs,
    };
    let active = begin(&files, found, base)?;
    if found.newest_is_empty() {
        live.pop_back();
    }
    live.push_back(Live {
        end: active.position,
        ..active.live()
    });
    Ok((core(files, active, live, settled, cursor), opened))
}

/// The oldest segment that a slot has to name.
pub(crate) fn oldest_needed(live: &VecDeque<Live>, low: SeqNo, newest: u64) -> u64 {
    let needed = live.iter().find(|live| live.next_seq > low);
    needed.map_or(newest, |live| live.life.number.min(newest))
}

/// The number of the next record (R4b).
fn next_seq(dir: &Path, found: &Found, clean: bool) -> Result<SeqNo, Error> {
    let cursor_lost = found.survey.slot().is_none();
    let jump = if cursor_lost { SEQ_JUMP } else { 0 };
    let base = continue_at(found.end.next_seq, clean, found.limits(), jump);
    if base + SEQ_LEAD >= SeqNo::LIMIT || found.largest_number() >= MAX_SEGMENT_NUMBER - 1 {
        return Err(Error::corrupt(dir, 0, "no number is left to go on with"));
    }
    Ok(base)
}

/// Begins the segment in which the log goes on, and ends the one before, in this order.
fn begin<F: Fs>(files: &Files<F>, found: &Found, base: SeqNo) -> Result<Active<F>, Error> {
    let previous = found.predecessor();
    let header = files.new_header(base, base + SEQ_LEAD, previous)?;
    let mut active = files.begin_segment(header, &mut VecDeque::new())?;
    active.sync()?;
    match files.reserve_rest(&active.path) {
        Ok(()) => active.reserved = true,
        // Beyond the quota opening goes on, but takes no more than the header's pages.
        Err(error) if error.is_full() => files.fill.stop(),
        Err(error) => return Err(error),
    }
    match found.chain.last() {
        None => {}
        Some(old) if found.newest_is_empty() => {
            let (fs, path) = (&*files.fs, old.path.clone());
            files
                .pool
                .lock()
                .release(fs, &files.dir, path, files.options.max_spares)?;
        }
        // What could not be copied stays where it is, and so does what the disk may give once more.
        Some(_) if found.fresh.iter().any(Gap::is_pinned) || found.tail_is_unreadable() => {}
        Some(old) => cut(&*files.fs, &old.path, found.end.position)?,
    }
    Ok(active)
}

fn core<F: Fs>(
    files: Files<F>,
    active: Active<F>,
    live: VecDeque<Live>,
    settled: Settled,
    cursor: CursorFiles<F>,
) -> Core<F> {
    let base = active.header.base_seq;
    let budget = files.options.memory_budget;
    let gaps = Mutex::new(files.gaps.lock().clone());
    Core {
        staging: Mutex::new(Staging::new(base, base + SEQ_LEAD / 2, budget)),
        space: Condvar::new(),
        ledger: Mutex::new(Ledger::new(&active, true, base)),
        writer: Mutex::new(active),
        sync: Mutex::new(()),
        segments: Arc::new(Segments(Mutex::new(live), gaps)),
        settled: Mutex::new(settled),
        keep: AtomicU64::new(files.options.keep_from.unwrap_or(SeqNo::LIMIT).get()),
        giving_up: Mutex::new(()),
        cursor: Mutex::new(cursor),
        waiters: Waiters::default(),
        watchers: Waiters::default(),
        missed: AtomicBool::new(false),
        watch: Watch::default(),
        flusher: Bell::default(),
        syncer: Bell::default(),
        failure: OnceLock::new(),
        background: Mutex::new(None),
        shortage: Shortage::default(),
        ballast: Shortage::default(),
        files,
    }
}

/// R4: nothing behind the end can ever be taken for a record again. The page in which it lies stays
/// whole, because cutting it would write it again (R1); what is behind the end there does not count,
/// by the successor's header.
fn cut<F: Fs>(fs: &F, path: &Path, end: u64) -> Result<(), Error> {
    let end = end.next_multiple_of(PAGE as u64);
    let file = fs
        .open(path, Access::Write)
        .map_err(Error::io("open", path))?;
    if file.len().map_err(Error::io("measure", path))? > end {
        file.set_len(end).map_err(Error::io("cut", path))?;
        file.sync().map_err(Error::io("sync", path))?;
    }
    Ok(())
}
