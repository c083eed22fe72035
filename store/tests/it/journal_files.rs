//! What the journal in files promises besides: crashes, bounds, a full ring.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hanshu_core::ports::{InvocationJournal, LogQuery};
use hanshu_core::{LogBatch, RequestId};
use hanshu_store::{DroppedEntries, SegmentJournal, SegmentOptions};

use crate::journal::{TestJournal, all_of, at, line, record, texts};

const SMALL: SegmentOptions = SegmentOptions {
    segment_bytes: 4_000,
    bytes_max: 1_000_000,
    age_max: Duration::from_secs(1000),
};

fn open(folder: &Path, options: SegmentOptions) -> TestJournal {
    let (journal, writer) = SegmentJournal::open(folder, options).unwrap();
    TestJournal::new("files".into(), Arc::new(journal), writer, Box::new(()))
}

fn files(folder: &Path, suffix: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    found.sort();
    found
}

async fn lines_of(world: &TestJournal) -> usize {
    texts(&world.journal.read(&all_of("hello")).await.unwrap()).len()
}

async fn write(world: &TestJournal, lines: std::ops::Range<i64>) {
    for n in lines {
        world.journal.log(line("hello", None, 1000 + n, &format!("line {n}")));
    }
    world.journal.flush().await.unwrap();
}

#[tokio::test]
async fn a_frame_that_was_cut_off_is_dropped_and_the_rest_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path(), SMALL);
    write(&world, 0..5).await;
    world.stop().await;
    let last = files(folder.path(), ".log").pop().unwrap();
    let whole = std::fs::read(&last).unwrap();
    for cut in [1, 7, 40, 100] {
        std::fs::write(&last, &whole[..whole.len() - cut]).unwrap();
        let again = open(folder.path(), SMALL);
        assert_eq!(lines_of(&again).await, 4, "{cut} bytes cut off");
        write(&again, 4..5).await;
        assert_eq!(lines_of(&again).await, 5, "and it is written on, {cut}");
        again.stop().await;
    }
}

#[tokio::test]
async fn garbage_at_the_end_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path(), SMALL);
    write(&world, 0..5).await;
    world.stop().await;
    let last = files(folder.path(), ".log").pop().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    let zeros = bytes.len() - 30;
    bytes[zeros..].fill(0);
    bytes.extend_from_slice(&[0; 5000]);
    std::fs::write(&last, &bytes).unwrap();
    assert_eq!(lines_of(&open(folder.path(), SMALL)).await, 4);
}

#[tokio::test]
async fn everything_is_found_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let id = RequestId::new();
    let world = open(folder.path(), SMALL);
    write(&world, 0..40).await;
    world.journal.record(record("hello", id, 1));
    write(&world, 40..80).await;
    world.stop().await;
    assert!(3 < files(folder.path(), ".log").len(), "several segments");
    let indexes = files(folder.path(), ".index");
    assert_eq!(indexes.len() + 1, files(folder.path(), ".log").len(), "one each when closed");
    // Also with an index gone, and one damaged.
    std::fs::remove_file(&indexes[0]).unwrap();
    std::fs::write(&indexes[1], "damaged").unwrap();
    let again = open(folder.path(), SMALL);
    assert_eq!(lines_of(&again).await, 80);
    assert_eq!(again.journal.find(id).await.unwrap(), [record("hello", id, 1)]);
    assert_eq!(files(folder.path(), ".index").len(), indexes.len(), "made again");
}

#[tokio::test]
async fn the_oldest_segments_go_when_the_journal_is_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let options = SegmentOptions { bytes_max: 20_000, ..SMALL };
    let world = open(folder.path(), options);
    write(&world, 0..400).await;
    let bytes: u64 =
        files(folder.path(), ".log").iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= 20_000 + 4_000, "{bytes}");
    let page = world.journal.read(&all_of("hello")).await.unwrap();
    assert_eq!(texts(&page).last(), Some(&"line 399"));
    assert!(texts(&page).len() < 200);
    // A reader that was far behind goes on with what is left.
    let behind =
        LogQuery { after: Some(hanshu_core::ports::LogCursor("1:0".into())), ..all_of("hello") };
    let late = world.journal.read(&behind).await.unwrap();
    assert_eq!(late.lines, page.lines);
}

#[tokio::test]
async fn old_segments_are_collected() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path(), SMALL);
    write(&world, 0..100).await;
    assert_eq!(world.journal.collect(at(1990)).await.unwrap(), 0, "none is 1000 s old");
    let freed = world.journal.collect(at(2050)).await.unwrap();
    assert!(4_000 <= freed, "{freed}");
    let page = world.journal.read(&all_of("hello")).await.unwrap();
    let kept = texts(&page).len();
    assert!((50..75).contains(&kept), "whole segments go: {kept}");
}

#[tokio::test]
async fn a_full_ring_drops_counts_and_never_waits() {
    let folder = tempfile::tempdir().unwrap();
    // Its writer does not run.
    let (journal, _writer) = SegmentJournal::open(folder.path(), SMALL).unwrap();
    let lines = vec!["x".to_owned(); 10];
    for _ in 0..17_000 {
        journal.log(LogBatch { lines: lines.clone(), ..line("hello", None, 1, "") });
    }
    let dropped = journal.dropped();
    assert_eq!(dropped, DroppedEntries { lines: (17_000 - 16_384) * 10, records: 0 });
    journal.record(record("hello", RequestId::new(), 1));
    assert_eq!(journal.dropped().records, 1);
}

#[tokio::test]
async fn the_ring_is_bounded_in_bytes_too() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _writer) = SegmentJournal::open(folder.path(), SMALL).unwrap();
    let megabyte = "x".repeat(1024 * 1024);
    for _ in 0..40 {
        journal.log(line("hello", None, 1, &megabyte));
    }
    let dropped = journal.dropped().lines;
    assert!((8..=10).contains(&dropped), "{dropped}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_had_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = SegmentJournal::open(&file, SMALL).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}
