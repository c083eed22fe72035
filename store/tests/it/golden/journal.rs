//! Records and log lines of golden journals: segments in files, and rows in a database.

use std::collections::BTreeSet;
use std::time::Duration;

use hanshu_core::ports::{InvocationJournal, LogQuery};
use hanshu_core::{FunctionId, InvocationRecord, RequestId};
use hanshu_store::{SegmentJournal, SegmentOptions, SqlJournal, SqlJournalOptions};
use serde_json::Value;
use tempfile::TempDir;

use super::files::versions;
use super::places::{GoldenDb, copy_folder, postgres};
use super::{answers, files::GoldenVersion};

/// A journal that an earlier program wrote.
pub(crate) struct GoldenJournal {
    pub(crate) name: String,
    pub(crate) journal: Box<dyn InvocationJournal>,
    pub(crate) answers: Value,
    _folder: Option<TempDir>,
    _db: Option<GoldenDb>,
}

/// A few calls in Docker are kept for their starts alone.
const DOCKER: &str = " docker";

/// All journals of a version that can be had here.
pub(crate) async fn journals(version: GoldenVersion) -> Vec<GoldenJournal> {
    let mut all = vec![
        segments(version, "segments", ("sqlite/journal/", "sqlite/answers.json")),
        segments(version, DOCKER, ("docker/journal/", "docker/answers.json")),
    ];
    if let Some(golden) = postgres(version).await {
        let (journal, _) = SqlJournal::new(golden.open().await, SqlJournalOptions::default());
        all.push(GoldenJournal {
            name: golden.name.clone(),
            journal: Box::new(journal),
            answers: golden.answers.clone(),
            _folder: None,
            _db: Some(golden),
        });
    }
    all
}

impl GoldenJournal {
    fn is_small(&self) -> bool {
        self.name.ends_with(DOCKER)
    }

    /// One for the whole log of each function.
    pub(crate) fn queries(&self) -> Vec<LogQuery> {
        self.answers["logs"].as_array().unwrap().iter().map(|each| query(each, 1000)).collect()
    }
}

fn segments(version: GoldenVersion, what: &str, (files, answers): (&str, &str)) -> GoldenJournal {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&version.path(files), folder.path());
    let (journal, _) = SegmentJournal::open(folder.path(), SegmentOptions::default()).unwrap();
    GoldenJournal {
        name: format!("{} {}", version.name, what.trim()),
        journal: Box::new(journal),
        answers: version.json(answers),
        _folder: Some(folder),
        _db: None,
    }
}

fn query(answer: &Value, limit: usize) -> LogQuery {
    let text = |key: &str| answer[key].as_str().unwrap();
    let function = FunctionId {
        namespace: text("namespace").parse().unwrap(),
        name: text("function").parse().unwrap(),
    };
    let wait = Duration::ZERO;
    LogQuery { function, request_id: None, since: None, after: None, limit, wait }
}

/// The lines of an answer, in this program's words.
fn expected_lines(answer: &Value) -> Vec<Value> {
    let mut lines = answer["lines"].as_array().unwrap().clone();
    for line in lines.iter_mut().filter(|line| line["from"] == "platform") {
        line["text"] =
            line["text"].as_str().unwrap().replace(" Sandbox: stem", " Sandbox: prewarmed").into();
    }
    lines
}

async fn records(golden: &GoldenJournal, id: &str) -> Vec<InvocationRecord> {
    golden.journal.find(id.parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn every_line_of_every_function_is_there() {
    for golden in all_journals().await {
        let mut count = 0;
        for answer in golden.answers["logs"].as_array().unwrap() {
            let page = golden.journal.read(&query(answer, 1000)).await.unwrap();
            let lines: Vec<_> = page.lines.iter().map(answers::line).collect();
            assert_eq!(lines, expected_lines(answer), "{}", golden.name);
            count += lines.len();
        }
        assert!(golden.is_small() || 100 < count, "{}: {count} lines", golden.name);
    }
}

#[tokio::test]
async fn the_lines_of_one_invocation_are_found_and_pages_follow_each_other() {
    for golden in all_journals().await {
        for answer in golden.answers["logs"].as_array().unwrap() {
            let all = expected_lines(answer);
            let epoch = Some(hanshu_core::Timestamp::UNIX_EPOCH);
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let wanted = LogQuery { since: epoch, after, ..query(answer, 3) };
                let page = golden.journal.read(&wanted).await.unwrap();
                if page.lines.is_empty() {
                    break;
                }
                paged.extend(page.lines.iter().map(answers::line));
                after = Some(page.next);
            }
            assert_eq!(paged, all, "{}", golden.name);
            let ids: BTreeSet<_> =
                all.iter().filter_map(|line| line["requestId"].as_str()).collect();
            for id in ids {
                let request_id: RequestId = id.parse().unwrap();
                let wanted = LogQuery { request_id: Some(request_id), ..query(answer, 1000) };
                let page = golden.journal.read(&wanted).await.unwrap();
                let found = page.lines.iter().map(answers::line);
                let expected = all.iter().filter(|line| line["requestId"] == *id).cloned();
                assert!(found.eq(expected), "{}: {id}", golden.name);
            }
        }
    }
}

#[tokio::test]
async fn every_synchronous_call_has_its_record() {
    for golden in all_journals().await {
        let queued = golden.answers["queued"].as_array().unwrap();
        let mut states = BTreeSet::new();
        for (id, answer) in answers::by(&golden.answers["invocations"], "requestId") {
            if queued.contains(&id.as_str().into()) {
                continue;
            }
            let found = answers::recorded(&records(&golden, &id).await);
            assert_eq!(found, answers::without_kind(&answer), "{}", golden.name);
            let kind = answer["trigger"]["kind"].as_str().unwrap_or("none").to_owned();
            states.insert((answer["error"]["statusCode"].as_u64(), kind));
        }
        if golden.is_small() {
            continue;
        }
        // Fine, and the function's faults; for want of a place in its concurrency or on the node.
        for status in [None, Some(430), Some(433), Some(437), Some(443), Some(432), Some(449)] {
            let call = (status, "none".to_owned());
            assert!(states.contains(&call), "{}: no {status:?} in {states:?}", golden.name);
        }
        assert!(states.contains(&(None, "http".to_owned())), "{}: {states:?}", golden.name);
    }
}

/// Their states are beside the queue, with times of its own.
#[tokio::test]
async fn every_attempt_of_a_queued_event_has_its_record() {
    for golden in all_journals().await {
        let invocations = answers::by(&golden.answers["invocations"], "requestId");
        let mut count = 0;
        for id in golden.answers["queued"].as_array().unwrap() {
            let id = id.as_str().unwrap();
            let outline = |attempt: &Value| {
                ["number", "statusCode", "node", "cold"].map(|key| attempt[key].clone())
            };
            let attempts = invocations[id]["attempts"].as_array().unwrap();
            let ended = attempts.iter().filter(|each| !each["statusCode"].is_null());
            let expected: Vec<_> = ended.map(outline).collect();
            let records = records(&golden, id).await;
            let found: Vec<_> =
                records.iter().map(|record| outline(&answers::attempt(record))).collect();
            assert_eq!(found, expected, "{}: {id}", golden.name);
            let version = invocations[id]["version"].as_str().unwrap();
            assert!(records.iter().all(|record| record.version.to_string() == version));
            count += found.len();
        }
        assert!(golden.is_small() || 9 < count, "{}: {count} attempts", golden.name);
    }
}

#[tokio::test]
async fn cold_and_warm_ones_are_told_apart_and_cold_ones_have_their_figures() {
    for golden in all_journals().await {
        let (mut cold, mut warm, mut failed_starts) = (0, 0, 0);
        for id in answers::by(&golden.answers["invocations"], "requestId").into_keys() {
            for record in records(&golden, &id).await {
                assert_eq!(record.cold, record.init.is_some(), "{}: {id}", golden.name);
                match record.cold_start {
                    Some(start) => {
                        assert!(record.first, "{}: {id}", golden.name);
                        assert_eq!(Some(start.total), record.init, "{}: {id}", golden.name);
                        assert_eq!(start.memory_mb, record.memory_mb, "{}: {id}", golden.name);
                        failed_starts += usize::from(start.parts.is_none());
                    }
                    // They are in the batch of its first lines.
                    None => assert!(!(record.cold && record.first), "{}: {id}", golden.name),
                }
                cold += usize::from(record.cold);
                warm += usize::from(!record.cold);
            }
        }
        let found = (cold, warm, failed_starts);
        let enough = 5 < cold && 5 < warm && 0 < failed_starts;
        assert!(golden.is_small() || enough, "{}: {found:?}", golden.name);
    }
}

#[tokio::test]
async fn a_start_out_of_a_prewarmed_sandbox_is_told_from_another() {
    for golden in all_journals().await.into_iter().filter(GoldenJournal::is_small) {
        let mut starts = BTreeSet::new();
        for id in answers::by(&golden.answers["invocations"], "requestId").into_keys() {
            let records = records(&golden, &id).await;
            starts.extend(
                records.iter().filter_map(|record| record.cold_start).map(|it| it.from_prewarmed),
            );
        }
        assert_eq!(starts, [false, true].into(), "{}", golden.name);
    }
}

async fn all_journals() -> Vec<GoldenJournal> {
    let mut all = Vec::new();
    for version in versions() {
        all.extend(journals(version).await);
    }
    all
}
