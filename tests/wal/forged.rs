//! What has a right checksum, and yet is nothing that a writer wrote: it is not believed beyond reason.

use ferrylog::wal::{Error, SeqNo};

use crate::common::{append_sized, open, read_all, sized, try_open, view};
use crate::damage::frames;
use crate::faulty::{Faulty, Kind, Survivors};

/// A log of one record, and behind it a gap frame that names these numbers as lost.
fn with_gaps(gaps: impl Iterator<Item = (u64, u64)>) -> Faulty {
    let disk = Faulty::new(120);
    let wal = open(&disk);
    wal.append_wait(&sized(0, 5000)).unwrap();
    let disk = disk.power_cut(Survivors::None);
    drop(wal);
    let name = disk.names("segment-").remove(0);
    let at = frames(&disk, &name, 1)[0] + 8192;
    let mut payload = Vec::new();
    for (from, to) in gaps {
        for field in [from, to, 1, at, 64, 1] {
            payload.extend_from_slice(&u64::to_le_bytes(field));
        }
    }
    let u64_at = |at| u64::from_le_bytes(disk.bytes(&name, at, 8).try_into().unwrap());
    let (number, salt) = (u64_at(56), u64_at(64));
    let mut frame = vec![0; 64];
    let magic = u32::from_le_bytes(*b"FRAM") ^ salt as u32;
    frame[..4].copy_from_slice(&magic.to_le_bytes());
    frame[8..16].copy_from_slice(&((number << 26) | (at / 64)).to_le_bytes());
    frame[16..24].copy_from_slice(&1u64.to_le_bytes());
    frame[48..52].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    frame[52..56].copy_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    frame[60] = 5;
    let crc = crc32fast::hash(&[&salt.to_le_bytes(), &frame[8..64]].concat());
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(&name, at, &[frame, payload].concat());
    disk
}

#[test]
fn r12_a_gap_of_numbers_that_nobody_gave_is_not_believed() {
    let ends = [1 << 40, (1 << 62) - 1, 1 << 62, u64::MAX];
    for gap in ends.map(|end| (1, end)).into_iter().chain([(0, 2), (7, 9)]) {
        let disk = with_gaps([gap].into_iter());
        let wal = open(&disk);
        let seq = wal.append_wait(&sized(7, 100)).unwrap();
        assert!(!wal.is_settled(seq), "{gap:?}: settled as lost at once");
        assert!(wal.totals().balances(), "{gap:?}");
        assert_eq!(read_all(&wal).len(), 2, "{gap:?}");
        wal.close().unwrap();
        assert!(!open(&disk).opened().cursor_lost, "{gap:?}");
    }
}

/// Nor repeated in segment after segment, none of which would have room for it.
#[test]
fn r12_more_gaps_than_a_log_has_end_in_a_clear_result() {
    for count in [22_000, 300_000] {
        let disk = with_gaps((0..count).map(|n| (2 * n, 2 * n + 1)));
        view(&disk).unwrap().verify(&mut |_, _| ()).unwrap();
        match try_open(&disk) {
            Ok(wal) => assert!(wal.append_wait(&sized(1, 100)).is_ok()),
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
        }
        assert!(disk.names("segment-").len() < 5);
    }
}

#[test]
fn r12_verify_reads_no_more_at_once_than_a_frame() {
    let disk = Faulty::new(121);
    let wal = open(&disk);
    append_sized(&wal, 0..30, 50_000);
    wal.close().unwrap();
    for name in disk.names("segment-") {
        for copy in [0, 64 << 10] {
            let mut page = disk.bytes(&name, copy, 4096);
            if page.len() == 4096 && page[120..128] != [0; 8] {
                // The predecessor ends at 1 GiB, it says.
                page[136..144].copy_from_slice(&(1u64 << 30).to_le_bytes());
                let crc = crc32fast::hash(&page[..4092]).to_le_bytes();
                page[4092..].copy_from_slice(&crc);
                disk.overwrite(&name, copy, &page);
            }
        }
        disk.set_file_len(&name, 1 << 40);
    }
    disk.clear_trace();
    let viewed = view(&disk).unwrap();
    viewed.verify(&mut |_, _| ()).unwrap();
    assert!(viewed.reader(SeqNo::ZERO).next().unwrap().is_some());
    let trace = disk.trace();
    let reads = trace.iter().filter(|op| op.kind == Kind::Read);
    let most = reads.map(|op| op.len).max().unwrap();
    assert!(most < 64 << 20, "{most} bytes at once");
}
