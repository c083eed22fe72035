//! The contract of `InvocationJournal`, on files and on databases.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::ports::{InvocationJournal, JournalError, LogCursor, LogPage, LogQuery};
use hanshu_core::{
    FunctionId, InvocationRecord, LogBatch, LogSource, Namespace, Qualifier, RequestId, StatusCode,
    Timestamp,
};
use hanshu_store::{JournalWriter, SegmentJournal, SegmentOptions, SqlJournal, SqlJournalOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::databases::databases;

/// A journal, and what keeps it alive.
pub(crate) struct TestJournal {
    pub(crate) name: String,
    pub(crate) journal: Arc<dyn InvocationJournal>,
    _keep: Box<dyn std::any::Any>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl TestJournal {
    pub(crate) fn new(
        name: String,
        journal: Arc<dyn InvocationJournal>,
        writer: JournalWriter,
        keep: Box<dyn std::any::Any>,
    ) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(writer.run(stop.clone()));
        Self { name, journal, _keep: keep, stop, tasks }
    }

    /// As at the end of a server.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn read(&self, query: &LogQuery) -> LogPage {
        self.journal.read(query).await.unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

async fn journals() -> Vec<TestJournal> {
    let folder = tempfile::tempdir().unwrap();
    // Small, so that every test crosses segments.
    let options = SegmentOptions { segment_bytes: 2000, ..SegmentOptions::default() };
    let (journal, writer) = SegmentJournal::open(folder.path(), options).unwrap();
    let mut all =
        vec![TestJournal::new("files".into(), Arc::new(journal), writer, Box::new(folder))];
    for test in databases().await {
        let (journal, writer) = SqlJournal::new(test.db.clone(), SqlJournalOptions::default());
        all.push(TestJournal::new(test.name.into(), Arc::new(journal), writer, Box::new(test)));
    }
    all
}

pub(crate) fn function(name: &str) -> FunctionId {
    FunctionId { namespace: Namespace::default(), name: name.parse().unwrap() }
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// One line of output.
pub(crate) fn line(name: &str, id: Option<RequestId>, second: i64, text: &str) -> LogBatch {
    LogBatch {
        request_id: id,
        function: function(name),
        version: Qualifier::Latest,
        time: at(second),
        lines: vec![text.into()],
        first: false,
        cold_start: None,
    }
}

pub(crate) fn record(name: &str, request_id: RequestId, attempt: u32) -> InvocationRecord {
    InvocationRecord {
        request_id,
        function: function(name),
        version: Qualifier::Latest,
        trigger: None,
        called_by: None,
        attempt,
        started_at: at(1_800_000_000 + i64::from(attempt)),
        duration: Duration::from_millis(7),
        status: StatusCode::Success,
        error: None,
        cold: false,
        init: None,
        cold_start: None,
        memory_mb: 128,
        memory_bytes: 0,
        node: Some("node-1".parse().unwrap()),
        first: false,
    }
}

pub(crate) fn all_of(name: &str) -> LogQuery {
    LogQuery {
        function: function(name),
        request_id: None,
        since: None,
        after: None,
        limit: 1000,
        wait: Duration::ZERO,
    }
}

/// What the function wrote.
pub(crate) fn texts(page: &LogPage) -> Vec<&str> {
    let own = page.lines.iter().filter(|line| line.from == LogSource::Function);
    own.map(|line| line.text.as_str()).collect()
}

/// `count` lines of `name`, numbered, one second apart, among lines of another function.
async fn filled(world: &TestJournal, name: &str, count: i64) {
    for n in 0..count {
        world.journal.log(line(name, None, 1000 + n, &format!("line {n}")));
        world.journal.log(line("noise", None, 1000 + n, "noise"));
    }
    world.journal.flush().await.unwrap();
}

#[tokio::test]
async fn a_record_is_found_by_its_request_id() {
    for world in journals().await {
        let id = RequestId::new();
        for attempt in [2, 1, 3] {
            world.journal.record(record("hello", id, attempt));
            world.journal.record(record("hello", RequestId::new(), 1));
        }
        world.journal.log(line("hello", Some(id), 5, "not a record"));
        world.journal.flush().await.unwrap();
        let found = world.journal.find(id).await.unwrap();
        let expected = [1, 2, 3].map(|attempt| record("hello", id, attempt));
        assert_eq!(found, expected, "{}", world.name);
        let unknown = world.journal.find(RequestId::new()).await.unwrap();
        assert_eq!(unknown, vec![], "{}", world.name);
    }
}

#[tokio::test]
async fn a_functions_log_is_its_own_and_in_order() {
    for world in journals().await {
        filled(&world, "hello", 30).await;
        let page = world.read(&all_of("hello")).await;
        let expected: Vec<_> = (0..30).map(|n| format!("line {n}")).collect();
        assert_eq!(texts(&page), expected, "{}", world.name);
        assert_eq!(world.read(&all_of("absent")).await.lines, vec![], "{}", world.name);
    }
}

#[tokio::test]
async fn without_a_place_the_newest_entries_are_shown() {
    for world in journals().await {
        filled(&world, "hello", 30).await;
        let page = world.read(&LogQuery { limit: 2, ..all_of("hello") }).await;
        assert_eq!(texts(&page), ["line 28", "line 29"], "{}", world.name);
        let next = LogQuery { after: Some(page.next), ..all_of("hello") };
        assert_eq!(texts(&world.read(&next).await), Vec::<&str>::new(), "{}", world.name);
        world.journal.log(line("hello", None, 2000, "later"));
        world.journal.flush().await.unwrap();
        assert_eq!(texts(&world.read(&next).await), ["later"], "{}", world.name);
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_overlap() {
    for world in journals().await {
        filled(&world, "hello", 25).await;
        let mut query = LogQuery { since: Some(at(1003)), limit: 4, ..all_of("hello") };
        let mut seen = Vec::new();
        loop {
            let page = world.read(&query).await;
            if page.lines.is_empty() {
                break;
            }
            assert!(texts(&page).len() <= 4, "{}", world.name);
            seen.extend(texts(&page).into_iter().map(str::to_owned));
            query.after = Some(page.next);
        }
        let expected: Vec<_> = (3..25).map(|n| format!("line {n}")).collect();
        assert_eq!(seen, expected, "{}", world.name);
    }
}

#[tokio::test]
async fn one_requests_log_is_read_alone() {
    for world in journals().await {
        let ids: Vec<RequestId> = (0..5).map(|_| RequestId::new()).collect();
        let now = 1_900_000_000;
        for turn in 0..4 {
            for (n, id) in ids.iter().enumerate() {
                let batch = line("hello", Some(*id), now + turn, &format!("{n}/{turn}"));
                world.journal.log(LogBatch { first: turn == 0, ..batch });
            }
            world.journal.log(line("hello", None, now, "late"));
        }
        world.journal.record(record("hello", ids[3], 1));
        world.journal.flush().await.unwrap();
        let query = LogQuery { request_id: Some(ids[3]), ..all_of("hello") };
        let page = world.read(&query).await;
        let shown: Vec<_> = page.lines.iter().map(|line| line.text.as_str()).collect();
        let id = ids[3];
        let start = format!("START RequestId: {id}");
        assert_eq!(shown[..5], [&start, "3/0", "3/1", "3/2", "3/3"], "{}", world.name);
        assert_eq!(shown[5], format!("END RequestId: {id}"), "{}", world.name);
        assert!(page.lines.iter().all(|line| line.request_id == Some(id)), "{}", world.name);
        let after = LogQuery { after: Some(page.next), ..query };
        assert_eq!(world.read(&after).await.lines, vec![], "{}", world.name);
    }
}

#[tokio::test]
async fn any_text_survives() {
    for world in journals().await {
        let texts_in = ["", "\0 zero", "中文 ✓ \u{fffd}", "\"quotes\" \\ and \ttabs", "\r"];
        let lines = texts_in.map(str::to_owned).to_vec();
        world.journal.log(LogBatch { lines, ..line("hello", None, 5, "") });
        let long = "x".repeat(1_000_000);
        world.journal.log(line("hello", None, 6, &long));
        world.journal.flush().await.unwrap();
        let page = world.read(&all_of("hello")).await;
        assert_eq!(texts(&page)[..5], texts_in, "{}", world.name);
        assert_eq!(texts(&page)[5].len(), long.len(), "{}", world.name);
    }
}

#[tokio::test]
async fn a_reader_that_waits_is_told_of_the_next_line() {
    for world in journals().await {
        filled(&world, "noise", 3).await;
        let wait = Duration::from_secs(20);
        let query = LogQuery { wait, ..all_of("hello") };
        let writing = async {
            // The reader is let in first.
            tokio::task::yield_now().await;
            world.journal.log(line("noise", None, 1, "not this one"));
            world.journal.flush().await.unwrap();
            world.journal.log(line("hello", None, 2, "here"));
        };
        let begun = std::time::Instant::now();
        let (page, ()) = tokio::join!(world.read(&query), writing);
        assert_eq!(texts(&page), ["here"], "{}", world.name);
        assert!(begun.elapsed() < wait / 2, "{}: {:?}", world.name, begun.elapsed());
    }
}

#[tokio::test]
async fn a_reader_waits_no_longer_than_it_says() {
    for world in journals().await {
        let query = LogQuery { wait: Duration::from_millis(50), ..all_of("hello") };
        let begun = std::time::Instant::now();
        assert_eq!(world.read(&query).await.lines, vec![], "{}", world.name);
        let took = begun.elapsed();
        assert!(Duration::from_millis(50) <= took, "{}: {took:?}", world.name);
        assert!(took < Duration::from_secs(5), "{}: {took:?}", world.name);
    }
}

#[tokio::test]
async fn a_foreign_cursor_is_refused() {
    for world in journals().await {
        for text in ["", "x", "1:", "-", "1:2:3"] {
            let query = LogQuery { after: Some(LogCursor(text.into())), ..all_of("hello") };
            let error = world.journal.read(&query).await.unwrap_err();
            assert!(matches!(error, JournalError::ForeignCursor(_)), "{}: {error}", world.name);
        }
    }
}

#[tokio::test]
async fn what_was_handed_over_before_the_end_is_written() {
    for world in journals().await {
        for n in 0..100 {
            world.journal.log(line("hello", None, n, "x"));
        }
        world.stop().await;
        let page = world.read(&all_of("hello")).await;
        assert_eq!(texts(&page).len(), 100, "{}", world.name);
        assert!(world.journal.flush().await.is_err(), "{}: nobody writes any more", world.name);
    }
}

#[tokio::test]
async fn two_nodes_share_one_journal_in_the_database() {
    for test in databases().await {
        let worlds = ["one", "two"].map(|node| {
            let (journal, writer) = SqlJournal::new(test.db.clone(), SqlJournalOptions::default());
            TestJournal::new(
                format!("{} {node}", test.name),
                Arc::new(journal),
                writer,
                Box::new(()),
            )
        });
        let mut after = world_end(&worlds[0]).await;
        let mut seen = 0;
        for n in 0..20 {
            for world in &worlds {
                world.journal.log(line("hello", None, n, "x"));
            }
            let query = LogQuery { after: Some(after), ..all_of("hello") };
            let page = worlds[0].read(&query).await;
            seen += texts(&page).len();
            after = page.next;
        }
        for world in &worlds {
            world.journal.flush().await.unwrap();
        }
        let rest = LogQuery { after: Some(after), ..all_of("hello") };
        seen += texts(&worlds[1].read(&rest).await).len();
        assert_eq!(seen, 40, "{}", test.name);
    }
}

async fn world_end(world: &TestJournal) -> LogCursor {
    world.read(&all_of("hello")).await.next
}

#[tokio::test]
async fn a_database_keeps_so_many_entries_and_no_older_ones() {
    for test in databases().await {
        let options = SqlJournalOptions { entries_max: 10, age_max: Duration::from_secs(100) };
        let (journal, writer) = SqlJournal::new(test.db.clone(), options);
        let name = test.name.to_owned();
        let world = TestJournal::new(name, Arc::new(journal), writer, Box::new(test));
        for n in 0..30 {
            world.journal.log(line("hello", None, 1000 + n, &format!("line {n}")));
        }
        world.journal.flush().await.unwrap();
        assert_eq!(world.journal.collect(at(1125)).await.unwrap(), 25, "{}", world.name);
        let page = world.read(&all_of("hello")).await;
        assert_eq!(texts(&page).len(), 5, "{}", world.name);
        for n in 30..50 {
            world.journal.log(line("hello", None, 1000 + n, &format!("line {n}")));
        }
        world.journal.flush().await.unwrap();
        assert_eq!(world.journal.collect(at(1100)).await.unwrap(), 15, "{}", world.name);
        let page = world.read(&all_of("hello")).await;
        assert_eq!(texts(&page)[0], "line 40", "{}", world.name);
    }
}
