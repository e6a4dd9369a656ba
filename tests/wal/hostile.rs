//! Directories that nobody sane would make, on the real file system: each ends in a clear result
//! within seconds, and what was not touched still comes out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferrylog::wal::{Error, View, Wal};

use crate::common::{
    BODY, Records, assert_no_engine_thread_panicked, describe, drain_past_damage, options, sized,
};

const TIB: u64 = 1 << 40;
const CURSORS: [&str; 2] = ["cursor-a", "cursor-b"];
/// No file of the log has it.
const FREE: &str = "segment-00000077";

/// Three segments with two records each, closed.
struct Log {
    dir: tempfile::TempDir,
    records: Records,
    /// Its segment files, oldest first.
    segments: [PathBuf; 3],
}

/// What was found: places in [`Log::records`].
type Found = Result<Vec<usize>, Error>;

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut records = Records::new();
        for life in 0..3 {
            let wal = Wal::open(dir.path(), options()).unwrap();
            for number in 0..2 {
                let bytes = sized(life * 10 + number, 5000);
                records.push((wal.append_wait(&bytes).unwrap(), bytes));
            }
            wal.close().unwrap();
        }
        let segments = View::open(dir.path()).unwrap().segments();
        let segments: Vec<PathBuf> = segments.into_iter().map(|s| s.path).collect();
        Self {
            dir,
            records,
            segments: segments.try_into().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn places(&self, found: &Records) -> Vec<usize> {
        // What this test appends to an opened log.
        let appended = found.iter().filter(|(_, bytes)| bytes.len() != 10);
        let place = |record| self.records.iter().position(|known| known == record);
        appended
            .map(|record| place(record).unwrap_or_else(|| panic!("invented: {}", record.0)))
            .collect()
    }

    fn look(&self) -> Found {
        let view = View::open(self.dir.path())?;
        view.verify(&mut |_, _| ())?;
        let (found, _) = drain_past_damage(view.reader(view.marks().first))?;
        Ok(self.places(&found))
    }

    fn open(&self) -> Found {
        let wal = Wal::open(self.dir.path(), options())?;
        assert!(wal.totals().balances());
        let (found, _) = drain_past_damage(wal.reader(wal.marks().first))?;
        wal.append_wait(&sized(99, 10))?;
        wal.close()?;
        Ok(self.places(&found))
    }
}

/// A log that was changed, looked at and opened, in bounded time.
#[track_caller]
fn after(change: impl FnOnce(&Log)) -> (Log, Found, Found) {
    let log = Log::new();
    change(&log);
    let begun = Instant::now();
    let (seen, opened) = (log.look(), log.open());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_no_engine_thread_panicked();
    (log, seen, opened)
}

/// Everything comes out, again and again.
#[track_caller]
fn assert_whole(change: impl FnOnce(&Log)) -> Log {
    let (log, seen, opened) = after(change);
    for found in [seen, opened, log.look(), log.open()] {
        let found = found.unwrap_or_else(|error| panic!("{}", describe(&error)));
        assert_eq!(found, [0, 1, 2, 3, 4, 5]);
    }
    log
}

/// What was not touched comes out, or the log is refused as corrupt.
#[track_caller]
fn assert_rest(untouched: &[usize], change: impl FnOnce(&Log)) {
    let (_, seen, opened) = after(change);
    for found in [seen, opened] {
        match found {
            Ok(found) => assert_eq!(found, untouched),
            Err(Error::Corrupt { .. }) => {}
            Err(error) => panic!("{}", describe(&error)),
        }
    }
}

/// Looking shows everything, opening names this file.
#[track_caller]
fn assert_named(name: &str, change: impl FnOnce(&Log)) {
    let (_, seen, opened) = after(change);
    assert_eq!(seen.unwrap(), [0, 1, 2, 3, 4, 5]);
    let error = opened.expect_err(name);
    assert!(describe(&error).contains(name), "{}", describe(&error));
}

fn set_len(path: &Path, len: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

/// Not by a program: a child would hold on to the locks of the other tests until it runs.
fn make_pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn replace_by_directory(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
}

#[test]
fn r12_a_segment_cut_zeroed_or_gone_costs_its_own_records() {
    assert_rest(&[0, 1, 2, 4, 5], |log| {
        set_len(&log.segments[1], BODY + 10_000);
    });
    assert_rest(&[0, 1, 2, 3, 4], |log| {
        set_len(&log.segments[2], BODY + 10_000);
    });
    for (hit, rest) in [[2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3]]
        .iter()
        .enumerate()
    {
        for len in [0, 100] {
            assert_rest(rest, |log| set_len(&log.segments[hit], len));
        }
        assert_rest(rest, |log| {
            let len = fs::metadata(&log.segments[hit]).unwrap().len();
            fs::write(&log.segments[hit], vec![0; len as usize]).unwrap();
        });
        assert_rest(rest, |log| fs::remove_file(&log.segments[hit]).unwrap());
        assert_rest(rest, |log| replace_by_directory(&log.segments[hit]));
        // A link is no file of ours, wherever it leads.
        assert_rest(rest, |log| {
            let elsewhere = log.path("elsewhere");
            fs::rename(&log.segments[hit], &elsewhere).unwrap();
            symlink(elsewhere, &log.segments[hit]).unwrap();
        });
    }
    assert_rest(&[], |log| {
        log.segments
            .iter()
            .for_each(|s| fs::remove_file(s).unwrap());
    });
}

#[test]
fn f3_names_carry_no_order() {
    assert_whole(|log| {
        let [a, b, c] = &log.segments;
        fs::rename(a, log.path("x")).unwrap();
        fs::rename(b, a).unwrap();
        fs::rename(c, b).unwrap();
        fs::rename(log.path("x"), c).unwrap();
    });
}

/// Whichever of the two names comes first: the copy that goes further counts, the other is left.
#[test]
fn a_copy_of_a_segment_never_stands_in_for_the_whole_one() {
    for name in ["segment-00000000", FREE] {
        for segment in 0..3 {
            for len in [None, Some(BODY), Some(BODY + 10_000)] {
                let copy = |log: &Log| {
                    fs::copy(&log.segments[segment], log.path(name)).unwrap();
                    if let Some(len) = len {
                        set_len(&log.path(name), len);
                    }
                };
                assert_whole(copy);
                let log = Log::new();
                copy(&log);
                let before = fs::read(log.path(name)).unwrap();
                log.open().unwrap();
                assert!(len.is_none() || fs::read(log.path(name)).unwrap() == before);
            }
        }
    }
}

#[test]
fn a_foreign_segment_is_left_alone() {
    let other = Log::new();
    let log = assert_whole(|log| _ = fs::copy(&other.segments[2], log.path(FREE)).unwrap());
    let left = fs::read(log.path(FREE)).unwrap();
    assert!(left == fs::read(&other.segments[2]).unwrap());
}

#[test]
fn f9_a_garbage_cursor_costs_no_record() {
    let garbage: [&[u8]; 3] = [&[0xa5; 9000], &[], &[0; 4096]];
    for bytes in garbage {
        for damaged in [&CURSORS[..1], &CURSORS[1..], &CURSORS] {
            assert_whole(|log| {
                for name in damaged {
                    fs::write(log.path(name), bytes).unwrap();
                }
            });
        }
    }
    assert_whole(|log| {
        for name in CURSORS {
            fs::remove_file(log.path(name)).unwrap();
        }
    });
    assert_whole(|log| set_len(&log.path(CURSORS[0]), TIB));
}

#[test]
fn r12_junk_beside_a_log_is_passed_over() {
    let junk = [
        "segment-",
        "segment-abc",
        "segment-1",
        "segment-00000000000001",
        "segment-00000003.bak",
        "segment-18446744073709551615",
        "segment-281474976710655",
        "segment-00000078",
        "cursor-c",
        "core",
        "x.tmp",
    ];
    assert_whole(|log| {
        for name in junk {
            fs::write(log.path(name), b"junk").unwrap();
        }
        let no_text = OsStr::from_bytes(b"segment-\xff");
        fs::write(log.dir.path().join(no_text), b"junk").unwrap();
    });
    for name in junk {
        assert_whole(|log| fs::write(log.path(name), b"junk").unwrap());
    }
}

/// Also where the next new segment would be made.
#[test]
fn r12_what_is_no_file_is_passed_over() {
    let next = |log: &Log| {
        (1..20)
            .map(|n| log.path(&format!("segment-{n:08}")))
            .collect::<Vec<_>>()
    };
    let free = |log: &Log| {
        next(log)
            .into_iter()
            .filter(|path| !path.exists())
            .collect::<Vec<_>>()
    };
    assert_whole(|log| {
        free(log)
            .iter()
            .for_each(|path| fs::create_dir(path).unwrap())
    });
    assert_whole(|log| {
        free(log)
            .iter()
            .for_each(|path| symlink("/nowhere", path).unwrap())
    });
    assert_whole(|log| free(log).iter().for_each(|path| make_pipe(path)));
    assert_whole(|log| symlink(&log.segments[1], log.path(FREE)).unwrap());
    assert_whole(|log| {
        for name in ["x.tmp", "cursor-c", "quarantine"] {
            fs::create_dir(log.path(name)).unwrap();
        }
    });
}

#[test]
fn r12_what_stands_in_the_place_of_a_cursor_or_the_lock_is_named() {
    for name in [CURSORS[0], CURSORS[1], "lock"] {
        assert_named(name, |log| replace_by_directory(&log.path(name)));
        assert_named(name, |log| {
            fs::remove_file(log.path(name)).unwrap();
            symlink("/dev/zero", log.path(name)).unwrap();
        });
        // Nobody waits for a writer of the pipe.
        assert_named(name, |log| {
            fs::remove_file(log.path(name)).unwrap();
            make_pipe(&log.path(name));
        });
    }
}

#[test]
fn r12_a_sparse_terabyte_is_neither_read_nor_allocated() {
    assert_whole(|log| {
        let file = File::create(log.path(FREE)).unwrap();
        file.set_len(TIB).unwrap();
    });
    assert_whole(|log| {
        fs::write(log.path(FREE), b"junk").unwrap();
        set_len(&log.path(FREE), TIB);
    });
    for segment in 0..3 {
        assert_whole(|log| set_len(&log.segments[segment], TIB));
    }
    assert_whole(|log| log.segments.iter().for_each(|path| set_len(path, TIB)));
    // Without a header: frames are all that names it.
    for segment in 0..3 {
        assert_whole(|log| {
            let file = File::options()
                .write(true)
                .open(&log.segments[segment])
                .unwrap();
            for position in [0, 64 << 10] {
                file.write_all_at(&[0xa5; 4096], position).unwrap();
            }
            file.set_len(TIB).unwrap();
        });
    }
}
