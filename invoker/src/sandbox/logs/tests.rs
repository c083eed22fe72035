//! A log over a real FIFO.

use std::io::Write;

use hanshu_core::{ManualClock, RequestId};

use super::*;
use crate::sandbox::run_dir::RunDir;
use crate::test_support::{MemoryJournal, revision};

struct LogScene {
    _temp: tempfile::TempDir,
    log: Arc<SandboxLog>,
    journal: Arc<MemoryJournal>,
    writer: File,
}

fn scene() -> LogScene {
    let temp = tempfile::tempdir().unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    let dir = RunDir::make(temp.path(), hanshu_core::InstanceId::new(), uid).unwrap();
    let journal = Arc::new(MemoryJournal::default());
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let sink = JournalSink { journal: Arc::clone(&journal) as _, clock };
    let writer = File::options().write(true).open(dir.path.join("out")).unwrap();
    let log = Arc::new(SandboxLog::new(dir.output, Arc::new(revision("hello")), sink));
    LogScene { _temp: temp, log, journal, writer }
}

#[test]
fn output_belongs_to_the_event_it_was_written_in() {
    let mut scene = scene();
    let (first, second) = (RequestId::new(), RequestId::new());
    scene.writer.write_all(b"loading\n").unwrap();
    scene.log.begin(first, true, None);
    scene.writer.write_all(b"one\ntwo").unwrap();
    let ended = scene.log.end();
    assert!(!ended.first);
    assert_eq!(ended.tail.unwrap(), "loading\none\ntwo");
    scene.writer.write_all(b"too late\n").unwrap();
    scene.log.begin(second, false, None);
    assert!(scene.log.end().first, "it printed nothing");
    assert_eq!(scene.journal.lines(Some(first)), ["loading", "one", "two"]);
    assert_eq!(scene.journal.lines(None), ["too late"]);
    assert_eq!(scene.journal.lines(Some(second)), [""; 0]);
}

#[test]
fn how_the_sandbox_came_up_goes_with_the_first_entry_and_only_with_that() {
    let mut scene = scene();
    let cold_start = Some(ColdStart { memory_mb: 128, ..ColdStart::default() });
    scene.log.begin(RequestId::new(), false, cold_start);
    assert_eq!(scene.log.end().cold_start, cold_start, "it printed nothing: the record tells");
    scene.log.begin(RequestId::new(), false, cold_start);
    scene.writer.write_all(b"one\n").unwrap();
    assert_eq!(scene.log.end().cold_start, None, "the journal has it");
    scene.log.begin(RequestId::new(), false, None);
    scene.writer.write_all(b"two\n").unwrap();
    scene.log.end();
    let batches = scene.journal.batches.lock().unwrap();
    let told: Vec<_> = batches.iter().map(|batch| batch.cold_start).collect();
    assert_eq!(told, [cold_start, None]);
}

#[test]
fn late_output_is_handed_over_while_nobody_calls() {
    let mut scene = scene();
    scene.log.begin(RequestId::new(), false, None);
    scene.writer.write_all(b"during\n").unwrap();
    scene.log.write_unowned();
    assert_eq!(scene.journal.lines(None), [""; 0], "an event runs");
    scene.log.end();
    scene.writer.write_all(b"after\n").unwrap();
    scene.log.write_unowned();
    assert_eq!(scene.journal.lines(None), ["after"]);
}

#[tokio::test]
async fn a_talkative_event_is_read_while_it_runs() {
    const MEGABYTES: usize = 20;
    let LogScene { _temp, log, journal, mut writer } = scene();
    let request_id = RequestId::new();
    log.begin(request_id, false, None);
    let follower = Arc::clone(&log);
    let writing = tokio::task::spawn_blocking(move || {
        let line = [b'x'; 1023];
        for _ in 0..MEGABYTES * 1024 {
            writer.write_all(&line).unwrap();
            writer.write_all(b"\n").unwrap();
        }
    });
    tokio::select! {
        () = follower.follow() => unreachable!(),
        written = writing => written.unwrap(),
    }
    let ended = log.end();
    assert!(0 < ended.dropped_bytes);
    let lines = journal.lines(Some(request_id));
    let kept: usize =
        lines.iter().filter(|line| line.len() == 1023).map(|line| line.len() + 1).sum();
    assert_eq!(kept + usize::try_from(ended.dropped_bytes).unwrap(), MEGABYTES * 1024 * 1024);
    assert_eq!(lines.iter().filter(|line| line.starts_with("[…")).count(), 1);
}

#[tokio::test]
async fn a_running_events_lines_can_be_followed() {
    let LogScene { _temp, log, journal, mut writer } = scene();
    let request_id = RequestId::new();
    log.begin(request_id, false, None);
    writer.write_all(b"one\nhalf").unwrap();
    let follower = Arc::clone(&log);
    let seen = async {
        while journal.lines(Some(request_id)).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = follower.follow() => unreachable!(),
        () = seen => {}
    }
    assert_eq!(journal.lines(Some(request_id)), ["one"]);
    writer.write_all(b" line\n").unwrap();
    log.end();
    assert_eq!(journal.lines(Some(request_id)), ["one", "half line"]);
    let firsts: Vec<_> = journal.batches.lock().unwrap().iter().map(|batch| batch.first).collect();
    assert_eq!(firsts, [true, false]);
}
