//! The fuzzer's seeds, its findings among them, and some mutations of each: what it found stays found,
//! also where no fuzzer runs.

use std::fs;
use std::path::Path;

use crate::common::assert_no_engine_thread_panicked;
use crate::random::{self, Random};
use crate::targets;

fn run(target: &str, run: fn(&[u8])) {
    let mut random = Random(random::seed());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let entries = fs::read_dir(folder.join(target)).unwrap();
    let mut seeds: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty());
    for path in seeds {
        println!("{}", path.display());
        let seed = fs::read(path).unwrap();
        run(&seed);
        for _ in 0..20 {
            let mut bytes = seed.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
            run(&bytes);
        }
    }
    assert_no_engine_thread_panicked();
}

#[test]
fn f5_r12_a_changed_frame_under_right_checksums_is_judged() {
    run("frame", targets::frame);
}

#[test]
fn f5_r12_a_changed_segment_under_right_checksums_is_judged() {
    run("segment", targets::segment);
}

#[test]
fn r12_a_changed_directory_is_judged() {
    run("directory", targets::directory);
}

#[test]
fn f10_r12_a_changed_cursor_under_a_right_checksum_is_judged() {
    run("cursor", targets::cursor);
}

#[test]
fn f18_a_changed_entry_of_the_schedule_decodes_to_what_it_encodes_to_or_not_at_all() {
    run("schedule", targets::schedule);
}

#[test]
fn a_changed_message_decodes_to_what_it_encodes_to_or_not_at_all() {
    run("message", targets::message);
}
