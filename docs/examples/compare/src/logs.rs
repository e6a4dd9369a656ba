//! The logs that are compared, behind one face.
//!
//! Owns: how each one is opened and asked, and what its acknowledgement means. Must not know: threads
//! or time. Segments are 64 MiB where a log lets one choose; the rest is its default.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ferrylog::wal::{Class, Durability, Options, Wal};

/// Bytes of a segment.
pub const SEGMENT: u64 = 64 << 20;

/// One log. Errors end the run: a comparison with a log that failed says nothing.
pub trait Log: Sync {
    fn name(&self) -> &'static str;
    /// What holds when [`durable`](Self::durable) and [`append`](Self::append) return.
    fn meaning(&self) -> &'static str;
    /// Appends and returns once the record survives a power cut. False: the crate cannot.
    fn durable(&self, thread: u32, record: &[u8]) -> bool;
    /// Appends without a sync. False: the crate cannot.
    fn append(&self, record: &[u8]) -> bool;
    /// Between two turns, outside what is measured: gives up what was appended.
    fn rest(&self) {}
}

/// A ferrylog at one level. What is acknowledged is settled at once, as a consumer would.
pub struct Ferry {
    pub wal: Arc<Wal>,
    name: &'static str,
}

impl Ferry {
    pub fn open(dir: &Path, name: &'static str, level: Durability) -> Self {
        let mut options = Options::default();
        options.durability = level;
        let wal = Wal::open(dir.join(name), options).expect("ferrylog opens");
        let wal = Arc::new(wal);
        Self { wal, name }
    }
}

impl Log for Ferry {
    fn name(&self) -> &'static str {
        self.name
    }

    fn meaning(&self) -> &'static str {
        "durable: fdatasync; append: staged in memory, synced after 4 MiB or 1 s"
    }

    fn durable(&self, _thread: u32, record: &[u8]) -> bool {
        let seq = self.wal.append_wait(record).expect("durable");
        self.wal.settle(seq..seq + 1, Class::Shipped);
        true
    }

    fn append(&self, record: &[u8]) -> bool {
        drop(self.wal.append(record).expect("appended"));
        true
    }

    fn rest(&self) {
        let end = self.wal.sync().expect("synced");
        self.wal.settle(self.wal.marks().acked..end, Class::Shipped);
    }
}

pub struct Okay(okaywal::WriteAheadLog);

impl Okay {
    pub fn open(dir: &Path) -> Self {
        let log = okaywal::Configuration::default_for(dir.join("okaywal"))
            .preallocate_bytes(SEGMENT as u32)
            .checkpoint_after_bytes(SEGMENT / 4 * 3)
            .open(okaywal::LogVoid)
            .expect("okaywal opens");
        Self(log)
    }
}

impl Log for Okay {
    fn name(&self) -> &'static str {
        "okaywal 0.3.1"
    }

    fn meaning(&self) -> &'static str {
        "durable: fdatasync, shared by those who commit; has no append without it"
    }

    fn durable(&self, _thread: u32, record: &[u8]) -> bool {
        let mut entry = self.0.begin_entry().expect("begun");
        entry.write_chunk(record).expect("written");
        entry.commit().expect("durable");
        true
    }

    fn append(&self, _record: &[u8]) -> bool {
        false
    }
}

pub struct Raft(raft_engine::Engine);

impl Raft {
    pub fn open(dir: &Path) -> Self {
        let config = raft_engine::Config {
            dir: dir.join("raft-engine").to_string_lossy().into_owned(),
            target_file_size: raft_engine::ReadableSize(SEGMENT),
            // Few enough that its files are recycled, as ours are.
            purge_threshold: raft_engine::ReadableSize(2 * SEGMENT),
            ..raft_engine::Config::default()
        };
        Self(raft_engine::Engine::open(config).expect("raft-engine opens"))
    }

    /// Each thread writes one key of its own again and again, so that nothing piles up in memory.
    fn put(&self, thread: u32, record: &[u8], sync: bool) {
        let mut batch = raft_engine::LogBatch::default();
        batch
            .put(u64::from(thread) + 1, b"key".to_vec(), record.to_vec())
            .expect("put");
        self.0.write(&mut batch, sync).expect("written");
    }
}

impl Log for Raft {
    fn name(&self) -> &'static str {
        "raft-engine 0.4.2"
    }

    fn meaning(&self) -> &'static str {
        "durable: fdatasync, shared by those who write; append: pwrite"
    }

    fn durable(&self, thread: u32, record: &[u8]) -> bool {
        self.put(thread, record, true);
        true
    }

    fn append(&self, record: &[u8]) -> bool {
        self.put(0, record, false);
        true
    }

    fn rest(&self) {
        self.0.sync().expect("synced");
        self.0.purge_expired_files().expect("purged");
    }
}

pub struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
}

impl Fjall {
    pub fn open(dir: &Path) -> Self {
        let database = fjall::Database::builder(dir.join("fjall"))
            .open()
            .expect("fjall opens");
        let keyspace = database
            .keyspace("log", fjall::KeyspaceCreateOptions::default)
            .expect("a keyspace");
        Self { database, keyspace }
    }
}

impl Log for Fjall {
    fn name(&self) -> &'static str {
        "fjall 3.1.13"
    }

    fn meaning(&self) -> &'static str {
        "durable: fdatasync of its journal; append: write to the system; keeps an LSM tree besides"
    }

    fn durable(&self, thread: u32, record: &[u8]) -> bool {
        self.keyspace
            .insert(thread.to_be_bytes(), record)
            .expect("inserted");
        self.database
            .persist(fjall::PersistMode::SyncData)
            .expect("durable");
        true
    }

    fn append(&self, record: &[u8]) -> bool {
        self.keyspace
            .insert(0u32.to_be_bytes(), record)
            .expect("inserted");
        true
    }
}

/// Appends through one `&mut`; its flush leaves the file to the system, so nothing of it is durable.
pub struct Commit(Mutex<commitlog::CommitLog>);

impl Commit {
    pub fn open(dir: &Path) -> Self {
        let mut options = commitlog::LogOptions::new(dir.join("commitlog"));
        options.segment_max_bytes(SEGMENT as usize);
        let log = commitlog::CommitLog::new(options).expect("commitlog opens");
        Self(Mutex::new(log))
    }
}

impl Log for Commit {
    fn name(&self) -> &'static str {
        "commitlog 0.2.0"
    }

    fn meaning(&self) -> &'static str {
        "append: write to the system; never syncs its records, so it has no durable append"
    }

    fn durable(&self, _thread: u32, _record: &[u8]) -> bool {
        false
    }

    fn append(&self, record: &[u8]) -> bool {
        let mut log = self.0.lock().expect("nobody panicked");
        log.append_msg(record).expect("appended");
        true
    }
}
