//! A disk in memory that keeps a trace of every operation, fails on demand, and loses power.
//!
//! Owns: the difference between what was written and what was synced, per sector of 512 bytes; names
//! that are not durable before their directory was synced; the faults. Must not know: what the bytes
//! mean.
//!
//! It may have a capacity: a write that needs more is done up to there and fails. It may do harm that
//! nobody is told of, and remembers where ([`Wound`]). A page may be unreadable: a read that touches it
//! fails until it is written anew.
//!
//! Invariants: `sync` of a file makes its bytes and length durable, and not its name; what `sync`
//! failed to write is clean in the cache and (by chance) absent from the medium, as on Linux;
//! that failure is told once to every handle of the file; `drop_cache` shows the medium again; one seed repeats clock, randomness and every power cut;
//! the same operations give the same [`digest`](Faulty::digest).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use ferrylog::wal::fs::{Access, Entry, File, Fs};

use crate::random::Random;

pub(crate) const PAGE: u64 = 4096;
const SECTOR: usize = 512;
pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;

pub(crate) type Page = Arc<[u8; PAGE as usize]>;

/// What the engine asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    CreateDir,
    List,
    Create,
    Open,
    Read,
    Write,
    Sync,
    /// A sync through a handle that wrote nothing but zeros: filling ahead, clearing a header.
    SyncZeros,
    Len,
    SetLen,
    DropCache,
    Rename,
    Remove,
    SyncDir,
    Lock,
    Random,
}

/// One operation, as the disk saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    /// The file's name when it was opened; of a rename, the new name. Empty for the directory.
    pub(crate) name: String,
    /// Which file it was, whatever its name became. Zero where there is none.
    pub(crate) inode: u64,
    pub(crate) position: u64,
    pub(crate) len: u64,
    /// What a write of a single page wrote.
    pub(crate) page: Option<Page>,
    /// A write of nothing but zeros.
    pub(crate) zeros: bool,
    pub(crate) failed: bool,
}

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// With this error, and nothing done. A failed sync leaves its pages clean in the cache, and
    /// some of them on the medium.
    Errno(i32),
    /// A write of which the first half was done; else as `Errno(EIO)`.
    Half,
    /// Done, but reported as failed.
    Done,
    /// A sync that leaves its pages dirty; else as `Errno(EIO)`.
    KeepDirty,
    /// A sync that does nothing and reports success; the next one makes up for it.
    Lie,
    /// A sync that reports success, and one of its pages never reaches the medium.
    LosePage,
    /// As `LosePage`, and the page lands on another page of the file.
    MisplacePage,
}

/// Bytes of a file that are not what was written, and nobody was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wound {
    pub(crate) name: String,
    pub(crate) range: Range<u64>,
}

/// Which operations fail: those of a kind on files whose name begins with `name`, from the
/// `skip`-th on, `times` of them.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Option<Kind>,
    pub(crate) name: &'static str,
    pub(crate) skip: usize,
    pub(crate) times: usize,
    pub(crate) failure: Failure,
}

/// How much of what was not synced outlives a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Survivors {
    None,
    All,
    /// Each sector by chance; some turn to garbage.
    Some,
}

#[derive(Clone, Default)]
struct Inode {
    medium: BTreeMap<u64, Page>,
    medium_len: u64,
    /// Pages that differ from the medium, or did.
    cache: BTreeMap<u64, Page>,
    dirty: BTreeSet<u64>,
    /// Dirty pages of which a sync said that they are durable.
    lied: BTreeSet<u64>,
    len: u64,
    /// Syncs that failed.
    errors: u64,
    /// Pages that the medium does not give any more.
    unreadable: BTreeSet<u64>,
}

/// A change of names that is not durable yet.
#[derive(Clone)]
enum Naming {
    Add(String, u64),
    Move(String, String, u64),
    Remove(String),
}

type Hook = (Kind, &'static str, Box<dyn FnOnce() + Send>);

#[derive(Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending: Vec<Naming>,
    locked: BTreeSet<String>,
    next_inode: u64,
    trace: Vec<Op>,
    faults: Vec<Fault>,
    fired: usize,
    held: Option<Kind>,
    waiting: usize,
    dead: bool,
    /// Operations until it dies.
    dies_in: Option<usize>,
    now: i64,
    wounds: Vec<(u64, Range<u64>)>,
    digest: u64,
    hook: Option<Hook>,
    /// Bytes that all files together may take.
    capacity: Option<u64>,
}

struct Shared {
    disk: Mutex<Disk>,
    changed: Condvar,
    random: Mutex<Random>,
}

/// The disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct Faulty(Arc<Shared>);

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

/// An open file of the disk.
#[derive(Debug)]
pub(crate) struct Handle {
    disk: Faulty,
    name: String,
    inode: u64,
    state: Mutex<HandleState>,
}

#[derive(Clone, Copy, Default, Debug)]
struct HandleState {
    wrote_zeros: bool,
    wrote_more: bool,
    /// Failed syncs of the file that this handle was told of.
    errors_told: u64,
}

/// A held lock.
#[derive(Debug)]
pub(crate) struct Held(Faulty, String);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock_disk().locked.remove(&self.1);
    }
}

impl Faulty {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = Disk {
            next_inode: 1,
            now: 1_700_000_000_000_000,
            ..Disk::default()
        };
        Self::with(disk, Random(seed))
    }

    fn with(disk: Disk, random: Random) -> Self {
        Self(Arc::new(Shared {
            disk: Mutex::new(disk),
            changed: Condvar::new(),
            random: Mutex::new(random),
        }))
    }

    fn lock_disk(&self) -> MutexGuard<'_, Disk> {
        self.0.disk.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn draw(&self) -> u64 {
        self.0.random.lock().unwrap().next()
    }

    // ---- what a test asks for ----

    pub(crate) fn fail(&self, fault: Fault) {
        self.lock_disk().faults.push(fault);
    }

    /// Fails the next `times` operations of this kind on files whose name begins so.
    pub(crate) fn fail_next(&self, kind: Kind, name: &'static str, times: usize, failure: Failure) {
        self.fail(Fault {
            kind: Some(kind),
            name,
            skip: 0,
            times,
            failure,
        });
    }

    /// Operations that failed on demand so far.
    pub(crate) fn fired(&self) -> usize {
        self.lock_disk().fired
    }

    pub(crate) fn heal(&self) {
        self.lock_disk().faults.clear();
    }

    /// The disk has room for so many bytes, or any number.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.lock_disk().capacity = bytes;
    }

    /// The lengths of all files together.
    pub(crate) fn total_len(&self) -> u64 {
        let disk = self.lock_disk();
        disk.names
            .values()
            .map(|inode| disk.inodes[inode].len)
            .sum()
    }

    /// Bytes that all files take.
    pub(crate) fn used(&self) -> u64 {
        self.lock_disk().used()
    }

    /// Holds operations of this kind until [`release`](Self::release).
    pub(crate) fn hold(&self, kind: Kind) {
        self.lock_disk().held = Some(kind);
    }

    pub(crate) fn release(&self) {
        self.lock_disk().held = None;
        self.0.changed.notify_all();
    }

    /// Waits until `count` operations are held.
    pub(crate) fn await_held(&self, count: usize) {
        let mut disk = self.lock_disk();
        while disk.waiting < count {
            let (guard, timeout) = self
                .0
                .changed
                .wait_timeout(disk, std::time::Duration::from_secs(20))
                .unwrap();
            disk = guard;
            assert!(!timeout.timed_out(), "nothing was held");
        }
    }

    /// Runs once, before the next operation of this kind on a file whose name begins so.
    pub(crate) fn before(
        &self,
        kind: Kind,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) {
        self.lock_disk().hook = Some((kind, name, Box::new(run)));
    }

    /// What [`before`](Self::before) was to run is not run any more.
    pub(crate) fn disarm(&self) {
        let hook = self.lock_disk().hook.take();
        // It may hold a log that closes now.
        drop(hook);
    }

    pub(crate) fn trace(&self) -> Vec<Op> {
        self.lock_disk().trace.clone()
    }

    pub(crate) fn clear_trace(&self) {
        self.lock_disk().trace.clear();
    }

    /// Of all operations so far, those of earlier lives included, and of all that was written.
    pub(crate) fn digest(&self) -> u64 {
        self.lock_disk().digest
    }

    pub(crate) fn set_clock(&self, now_micros: i64) {
        self.lock_disk().now = now_micros;
    }

    // ---- the files, behind the engine's back ----

    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let disk = self.lock_disk();
        let names = disk.names.keys().filter(|name| name.starts_with(prefix));
        names.cloned().collect()
    }

    pub(crate) fn file_len(&self, name: &str) -> u64 {
        let disk = self.lock_disk();
        disk.inodes[&disk.names[name]].len
    }

    pub(crate) fn bytes(&self, name: &str, position: u64, len: usize) -> Vec<u8> {
        let disk = self.lock_disk();
        let mut out = vec![0; len];
        let read = disk.inodes[&disk.names[name]].read(&mut out, position);
        out.truncate(read);
        out
    }

    /// Changes bytes durably: rot, or a stranger's hand.
    pub(crate) fn overwrite(&self, name: &str, position: u64, bytes: &[u8]) {
        let mut disk = self.lock_disk();
        let inode = disk.names[name];
        let inode = disk.inodes.get_mut(&inode).unwrap();
        inode.write(bytes, position);
        inode.sync();
    }

    /// The medium does not give this page any more, in no cache either.
    pub(crate) fn make_unreadable(&self, name: &str, page: u64) {
        let mut disk = self.lock_disk();
        let inode = disk.names[name];
        disk.inodes.get_mut(&inode).unwrap().unreadable.insert(page);
        disk.wounds.push((inode, page * PAGE..(page + 1) * PAGE));
    }

    /// Creates or replaces a file, durably.
    pub(crate) fn put(&self, name: &str, bytes: &[u8], len: u64) {
        let mut disk = self.lock_disk();
        let number = disk.next_inode;
        disk.next_inode += 1;
        let mut inode = Inode::default();
        inode.write(bytes, 0);
        inode.len = len;
        inode.sync();
        disk.inodes.insert(number, inode);
        disk.names.insert(name.into(), number);
        disk.durable_names.insert(name.into(), number);
    }

    /// A sector of a file, or the 16 KiB of flash around it, turns to something else on the medium;
    /// what is cached stays until it is dropped.
    pub(crate) fn rot(&self, name: &str, position: u64, len: u64) {
        let mut random = Random(self.draw());
        let mut disk = self.lock_disk();
        let number = disk.names[name];
        let range = position / len * len..(position / len + 1) * len;
        let zeros = random.one_in(3);
        let inode = disk.inodes.get_mut(&number).unwrap();
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            let mut bytes = inode.medium.get(&page).map_or([0; PAGE as usize], |p| **p);
            for (position, byte) in (page * PAGE..).zip(&mut bytes) {
                if range.contains(&position) {
                    *byte = if zeros { 0 } else { random.next() as u8 };
                }
            }
            // Where the file ends it stays.
            if page * PAGE < inode.medium_len {
                inode.medium.insert(page, Arc::new(bytes));
            }
        }
        disk.wounds.push((number, range));
    }

    /// Where it has done harm that nobody was told of, as far as the files are still there.
    pub(crate) fn wounds(&self) -> Vec<Wound> {
        let disk = self.lock_disk();
        let of = |inode: u64| disk.names.iter().find(move |(_, i)| **i == inode);
        let wounds = disk.wounds.iter().filter_map(|(inode, range)| {
            Some(Wound {
                name: of(*inode)?.0.clone(),
                range: range.clone(),
            })
        });
        wounds.collect()
    }

    pub(crate) fn set_file_len(&self, name: &str, len: u64) {
        let mut disk = self.lock_disk();
        let inode = disk.names[name];
        let inode = disk.inodes.get_mut(&inode).unwrap();
        inode.set_len(len);
        inode.sync();
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut disk = self.lock_disk();
        disk.names.remove(name);
        disk.durable_names.remove(name);
    }

    /// Two files change their contents.
    pub(crate) fn swap(&self, a: &str, b: &str) {
        let mut disk = self.lock_disk();
        let (inode_a, inode_b) = (disk.names[a], disk.names[b]);
        for (name, inode) in [(a, inode_b), (b, inode_a)] {
            disk.names.insert(name.into(), inode);
            disk.durable_names.insert(name.into(), inode);
        }
    }

    // ---- the ends of a life ----

    /// Everything fails from now on: whoever still holds the log cannot change the disk.
    pub(crate) fn die(&self) {
        let mut disk = self.lock_disk();
        disk.dead = true;
        disk.held = None;
        drop(disk);
        self.0.changed.notify_all();
    }

    /// It dies so many operations later, in the middle of one: of a write half of the pages are done.
    pub(crate) fn die_in(&self, operations: usize) {
        self.lock_disk().dies_in = Some(operations);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.lock_disk().dead
    }

    /// The disk as it is now, for another life. The page cache is the same; this one goes on.
    pub(crate) fn copy(&self) -> Self {
        let disk = self.lock_disk();
        let copy = Disk {
            inodes: disk.inodes.clone(),
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            pending: disk.pending.clone(),
            next_inode: disk.next_inode,
            now: disk.now,
            capacity: disk.capacity,
            wounds: disk.wounds.clone(),
            digest: disk.digest,
            ..Disk::default()
        };
        drop(disk);
        Self::with(copy, Random(self.draw()))
    }

    /// `kill -9`: this disk dies, what was written goes on with its page cache.
    pub(crate) fn kill(&self) -> Self {
        let copy = self.copy();
        self.die();
        copy
    }

    /// Power loss: this disk dies; what was synced goes on, and of the rest what `survivors` says.
    pub(crate) fn power_cut(&self, survivors: Survivors) -> Self {
        let after = self.kill();
        after.lose_power(survivors);
        after
    }

    /// Power loss of a disk that nobody uses.
    pub(crate) fn lose_power(&self, survivors: Survivors) {
        let mut random = Random(self.draw());
        let mut survives = move || match survivors {
            Survivors::None => false,
            Survivors::All => true,
            Survivors::Some => random.one_in(2),
        };
        let mut garbage = Random(self.draw());
        let mut disk = self.lock_disk();
        let disk = &mut *disk;
        for naming in disk.pending.drain(..) {
            if survives() {
                naming.apply(&mut disk.durable_names);
            }
        }
        disk.names = disk.durable_names.clone();
        for (number, inode) in &mut disk.inodes {
            for page in std::mem::take(&mut inode.lied) {
                disk.wounds.push((*number, page * PAGE..(page + 1) * PAGE));
            }
            for page in std::mem::take(&mut inode.dirty) {
                let new = inode.cache[&page].clone();
                let mut old = inode.medium.get(&page).map_or([0; PAGE as usize], |p| **p);
                for at in (0..PAGE as usize).step_by(SECTOR) {
                    if survives() {
                        old[at..at + SECTOR].copy_from_slice(&new[at..at + SECTOR]);
                    } else if survivors == Survivors::Some && garbage.one_in(8) {
                        old[at..at + SECTOR].fill_with(|| garbage.next() as u8);
                    }
                }
                inode.medium.insert(page, Arc::new(old));
            }
            inode.cache.clear();
            if survives() {
                inode.medium_len = inode.len;
            }
            inode.len = inode.medium_len;
        }
    }

    // ---- the way of every operation ----

    /// Counts an operation, holds it, and says how it fails.
    fn enter(
        &self,
        kind: Kind,
        name: &str,
        inode: u64,
        position: u64,
        len: u64,
    ) -> (MutexGuard<'_, Disk>, Option<Failure>) {
        let mut disk = self.lock_disk();
        if disk
            .hook
            .as_ref()
            .is_some_and(|(k, prefix, _)| *k == kind && name.starts_with(prefix))
            && let Some((_, _, run)) = disk.hook.take()
        {
            drop(disk);
            run();
            disk = self.lock_disk();
        }
        if disk.held == Some(kind) {
            disk.waiting += 1;
            self.0.changed.notify_all();
            while disk.held == Some(kind) {
                disk = self.0.changed.wait(disk).unwrap();
            }
            disk.waiting -= 1;
        }
        let mut failure = disk.dead.then_some(Failure::Errno(EIO));
        match &mut disk.dies_in {
            Some(0) => {
                disk.dies_in = None;
                disk.dead = true;
                failure = Some(Failure::Half);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        for fault in &mut disk.faults {
            let matches = fault.kind.is_none_or(|k| k == kind) && name.starts_with(fault.name);
            if !matches || fault.times == 0 || failure.is_some() {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else {
                fault.times -= 1;
                failure = Some(fault.failure);
            }
        }
        disk.fired += usize::from(failure.is_some());
        disk.mix(&(kind, name, inode, position, len, failure.is_some()));
        disk.trace.push(Op {
            kind,
            name: name.into(),
            inode,
            position,
            len,
            page: None,
            zeros: false,
            failed: failure.is_some(),
        });
        (disk, failure)
    }

    /// An operation that is done or not done.
    fn simple(&self, kind: Kind, name: &str) -> io::Result<MutexGuard<'_, Disk>> {
        let (disk, failure) = self.enter(kind, name, 0, 0, 0);
        match failure {
            None => Ok(disk),
            Some(failure) => Err(failure.error()),
        }
    }
}

impl Failure {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Errno(errno) => errno,
            Self::Half
            | Self::Done
            | Self::KeepDirty
            | Self::Lie
            | Self::LosePage
            | Self::MisplacePage => EIO,
        })
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add(name, inode) => _ = names.insert(name.clone(), *inode),
            Self::Move(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Remove(name) => _ = names.remove(name),
        }
    }
}

impl Disk {
    fn mix(&mut self, what: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.digest, what).hash(&mut hasher);
        self.digest = hasher.finish();
    }

    /// A sync that reports success. One of its pages may be lost, or land elsewhere.
    fn sync_silently(&mut self, number: u64, failure: Failure, random: u64) {
        let inode = self.inodes.get_mut(&number).unwrap();
        if failure == Failure::Lie {
            inode.lied = inode.dirty.clone();
            return;
        }
        let dirty: Vec<u64> = inode.dirty.iter().copied().collect();
        let lost = dirty.get(random as usize % dirty.len().max(1)).copied();
        let kept = lost.map(|page| {
            inode.dirty.remove(&page);
            (page, inode.cache[&page].clone())
        });
        inode.sync();
        let Some((page, bytes)) = kept else { return };
        self.wounds.push((number, page * PAGE..(page + 1) * PAGE));
        if failure == Failure::MisplacePage && inode.medium_len > PAGE {
            let other = random / 7 % (inode.medium_len / PAGE);
            if other != page {
                inode.medium.insert(other, bytes);
                self.wounds.push((number, other * PAGE..(other + 1) * PAGE));
            }
        }
    }

    /// Of the files that have a name.
    fn used(&self) -> u64 {
        let pages = |inode: &u64| self.inodes[inode].pages().count() as u64;
        self.names.values().map(pages).sum::<u64>() * PAGE
    }

    /// How many of these bytes there is room for.
    fn room_for(&self, inode: u64, position: u64, len: usize) -> usize {
        let Some(capacity) = self.capacity else {
            return len;
        };
        let mut free = capacity.saturating_sub(self.used()) / PAGE;
        let file = &self.inodes[&inode];
        let mut fits = 0;
        each_page(position, len, |page, _, in_buffer| {
            let has = file.page(page).is_some() && page * PAGE < file.len;
            if fits == in_buffer.start && (has || free > 0) {
                free -= u64::from(!has);
                fits = in_buffer.end;
            }
        });
        fits
    }

    fn rename(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending.push(naming);
    }
}

impl Inode {
    /// The pages that take room.
    fn pages(&self) -> impl Iterator<Item = u64> {
        let pages: BTreeSet<u64> = self
            .medium
            .keys()
            .chain(self.cache.keys())
            .copied()
            .collect();
        pages.into_iter().filter(|page| page * PAGE < self.len)
    }

    fn page(&self, page: u64) -> Option<&Page> {
        self.cache.get(&page).or_else(|| self.medium.get(&page))
    }

    fn read(&self, out: &mut [u8], position: u64) -> usize {
        let len = (out.len() as u64).min(self.len.saturating_sub(position)) as usize;
        each_page(position, len, |page, in_page, in_buffer| {
            match self.page(page) {
                Some(bytes) => out[in_buffer].copy_from_slice(&bytes[in_page]),
                None => out[in_buffer].fill(0),
            }
        });
        len
    }

    fn can_read(&self, position: u64, len: usize) -> bool {
        let end = self.len.min(position + len as u64);
        let touched = position / PAGE..end.div_ceil(PAGE);
        touched.is_empty() || self.unreadable.range(touched).next().is_none()
    }

    fn write(&mut self, bytes: &[u8], position: u64) {
        each_page(position, bytes.len(), |page, in_page, in_buffer| {
            self.unreadable.remove(&page);
            let mut new = self.page(page).map_or([0; PAGE as usize], |p| **p);
            new[in_page].copy_from_slice(&bytes[in_buffer]);
            self.cache.insert(page, Arc::new(new));
            self.dirty.insert(page);
        });
        self.len = self.len.max(position + bytes.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let behind: Vec<u64> = self
                .medium
                .keys()
                .chain(self.cache.keys())
                .copied()
                .filter(|page| (page + 1) * PAGE > len)
                .collect();
            for page in behind {
                let from = len.max(page * PAGE);
                let zeros = vec![0; ((page + 1) * PAGE - from) as usize];
                self.write(&zeros, from);
            }
        }
        self.len = len;
    }

    fn sync(&mut self) {
        self.lied.clear();
        for page in std::mem::take(&mut self.dirty) {
            if let Some(bytes) = self.cache.remove(&page) {
                self.medium.insert(page, bytes);
            }
        }
        self.medium_len = self.len;
    }
}

/// Calls `visit` with each page that a range touches, the part of the page and the part of the range.
fn each_page(position: u64, len: usize, mut visit: impl FnMut(u64, Range<usize>, Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = position + done as u64;
        let start = (at % PAGE) as usize;
        let count = (PAGE as usize - start).min(len - done);
        visit(at / PAGE, start..start + count, done..done + count);
        done += count;
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

impl Fs for Faulty {
    type File = Handle;
    type Lock = Held;

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.simple(Kind::CreateDir, "").map(drop)
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<Entry>> {
        let disk = self.simple(Kind::List, "")?;
        let entry = |(name, inode): (&String, &u64)| Entry {
            name: name.clone(),
            len: disk.inodes[inode].len,
        };
        Ok(disk.names.iter().map(entry).collect())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Handle> {
        let name = file_name(path);
        let kind = match access {
            Access::CreateNew => Kind::Create,
            Access::Read | Access::Write => Kind::Open,
        };
        let mut disk = self.simple(kind, &name)?;
        let inode = match (kind, disk.names.get(&name)) {
            (Kind::Create, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Kind::Create, None) => {
                let inode = disk.next_inode;
                disk.next_inode += 1;
                disk.inodes.insert(inode, Inode::default());
                disk.rename(Naming::Add(name.clone(), inode));
                inode
            }
            (_, Some(inode)) => *inode,
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        let state = HandleState {
            errors_told: disk.inodes[&inode].errors,
            ..HandleState::default()
        };
        Ok(Handle {
            disk: self.clone(),
            name,
            inode,
            state: Mutex::new(state),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (file_name(from), file_name(to));
        let mut disk = self.simple(Kind::Rename, &to)?;
        let inode = *disk.names.get(&from).ok_or(io::ErrorKind::NotFound)?;
        disk.rename(Naming::Move(from, to, inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = file_name(path);
        let mut disk = self.simple(Kind::Remove, &name)?;
        if !disk.names.contains_key(&name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.rename(Naming::Remove(name));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut disk = self.simple(Kind::SyncDir, "")?;
        disk.pending.clear();
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Held>> {
        let name = file_name(path);
        let mut disk = self.simple(Kind::Lock, &name)?;
        Ok(disk
            .locked
            .insert(name.clone())
            .then(|| Held(self.clone(), name)))
    }

    fn now_micros(&self) -> i64 {
        let mut disk = self.lock_disk();
        disk.now += 50;
        disk.now
    }

    fn random(&self) -> io::Result<u64> {
        drop(self.simple(Kind::Random, "")?);
        Ok(self.draw())
    }
}

impl Handle {
    fn enter(
        &self,
        kind: Kind,
        position: u64,
        len: usize,
    ) -> (MutexGuard<'_, Disk>, Option<Failure>) {
        self.disk
            .enter(kind, &self.name, self.inode, position, len as u64)
    }

    fn simple(&self, kind: Kind, len: u64) -> io::Result<MutexGuard<'_, Disk>> {
        let (disk, failure) = self.disk.enter(kind, &self.name, self.inode, 0, len);
        match failure {
            None => Ok(disk),
            Some(failure) => Err(failure.error()),
        }
    }
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let (disk, failure) = self.enter(Kind::Read, position, buffer.len());
        match failure {
            None => {
                let inode = &disk.inodes[&self.inode];
                if !inode.can_read(position, buffer.len()) {
                    return Err(io::Error::from_raw_os_error(EIO));
                }
                Ok(inode.read(buffer, position))
            }
            Some(failure) => Err(failure.error()),
        }
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let (mut disk, failure) = self.enter(Kind::Write, position, bytes.len());
        let zeros = bytes.iter().all(|&byte| byte == 0);
        let mut state = self.state.lock().unwrap();
        state.wrote_zeros |= zeros;
        state.wrote_more |= !zeros;
        drop(state);
        disk.mix(&bytes);
        if let Some(op) = disk.trace.last_mut() {
            op.page = <[u8; PAGE as usize]>::try_from(bytes).ok().map(Arc::new);
            op.zeros = zeros;
        }
        let room = disk.room_for(self.inode, position, bytes.len());
        if failure.is_none() && room < bytes.len() {
            if let Some(op) = disk.trace.last_mut() {
                op.failed = true;
            }
            disk.fired += 1;
            let inode = disk.inodes.get_mut(&self.inode).unwrap();
            inode.write(&bytes[..room], position);
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let dead = disk.dead;
        let inode = disk.inodes.get_mut(&self.inode).unwrap();
        match failure {
            None | Some(Failure::Done) => inode.write(bytes, position),
            // The end of a process leaves each page of a write old or new.
            Some(Failure::Half) if dead => {
                inode.write(
                    &bytes[..bytes.len() / 2 / PAGE as usize * PAGE as usize],
                    position,
                );
            }
            Some(Failure::Half) => inode.write(&bytes[..bytes.len() / 2], position),
            Some(_) => {}
        }
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn sync(&self) -> io::Result<()> {
        let state = *self.state.lock().unwrap();
        let kind = match (state.wrote_zeros, state.wrote_more) {
            (true, false) => Kind::SyncZeros,
            (_, true) | (false, false) => Kind::Sync,
        };
        let (mut disk, failure) = self.enter(kind, 0, 0);
        let silent = [Failure::Lie, Failure::LosePage, Failure::MisplacePage];
        if let Some(silent) = failure.filter(|failure| silent.contains(failure)) {
            disk.sync_silently(self.inode, silent, self.disk.draw());
            return Ok(());
        }
        let dead = disk.dead;
        let inode = disk.inodes.get_mut(&self.inode).unwrap();
        match failure {
            _ if dead => {}
            None | Some(Failure::Done) => inode.sync(),
            Some(Failure::KeepDirty) => {}
            Some(_) => {
                for page in std::mem::take(&mut inode.dirty) {
                    if self.disk.draw().is_multiple_of(2) {
                        inode.medium.insert(page, inode.cache[&page].clone());
                    }
                }
            }
        }
        inode.errors += u64::from(failure.is_some());
        let told = std::mem::replace(&mut self.state.lock().unwrap().errors_told, inode.errors);
        match failure {
            Some(failure) => Err(failure.error()),
            None if told < inode.errors => {
                if let Some(op) = disk.trace.last_mut() {
                    op.failed = true;
                }
                Err(io::Error::from_raw_os_error(EIO))
            }
            None => Ok(()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.simple(Kind::Len, 0)?.inodes[&self.inode].len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.simple(Kind::SetLen, len)?;
        disk.inodes.get_mut(&self.inode).unwrap().set_len(len);
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut disk = self.simple(Kind::DropCache, 0)?;
        let inode = disk.inodes.get_mut(&self.inode).unwrap();
        let dirty = std::mem::take(&mut inode.dirty);
        inode.cache.retain(|page, _| dirty.contains(page));
        inode.dirty = dirty;
        Ok(())
    }
}
