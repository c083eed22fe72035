//! The queues that can be had here: SQLite always, PostgreSQL and Redis where `TEST_POSTGRES_URL`
//! and `TEST_REDIS_URL` name one. In CI they must.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::ports::{Claim, EventQueue, NewEvent, QueueName};
use hanshu_core::{
    Attempt, Clock, Digest, Event, Failure, ManualClock, NodeId, Origin, Qualifier, RequestId,
    StatusCode, Timestamp,
};
use hanshu_store::{RedisOptions, RedisQueue, SqlDatabase, SqlQueue};
use tokio_util::task::TaskTracker;

use crate::databases::{TestDb, databases, file, memory};

pub(crate) const HOLD: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A queue of a test's own, on a clock of its own.
pub(crate) struct TestQueue {
    pub(crate) name: &'static str,
    pub(crate) queue: Arc<dyn EventQueue>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) place: QueuePlace,
}

/// Where it is kept.
pub(crate) enum QueuePlace {
    Sql(TestDb),
    Redis { url: String, name: String },
}

/// Each kind once, empty.
pub(crate) async fn kinds() -> Vec<TestQueue> {
    let mut all: Vec<TestQueue> = databases().await.into_iter().map(sql).collect();
    all.extend(redis().await);
    all
}

/// Those kept outside of the process' memory.
pub(crate) async fn lasting_kinds() -> Vec<TestQueue> {
    kinds().await.into_iter().filter(|kind| kind.name != "sqlite memory").collect()
}

/// Those that several processes share.
pub(crate) async fn shared_kinds() -> Vec<TestQueue> {
    kinds().await.into_iter().filter(|kind| !kind.name.starts_with("sqlite")).collect()
}

pub(crate) async fn sqlite_memory() -> TestQueue {
    sql(memory().await)
}

pub(crate) async fn sqlite_file() -> TestQueue {
    sql(file().await)
}

fn sql(test: TestDb) -> TestQueue {
    let clock = new_clock();
    let queue =
        SqlQueue::start(test.db.clone(), Arc::<ManualClock>::clone(&clock), &TaskTracker::new());
    TestQueue { name: test.name, queue: Arc::new(queue), clock, place: QueuePlace::Sql(test) }
}

/// A corner of the Redis that the tests were given.
pub(crate) async fn redis() -> Option<TestQueue> {
    let (url, name) = redis_corner()?;
    let place = QueuePlace::Redis { url, name };
    let clock = new_clock();
    Some(TestQueue { name: "redis", queue: place.open(Arc::clone(&clock)).await, clock, place })
}

/// The Redis that the tests were given, and a name of an installation that nobody else has.
pub(crate) fn redis_corner() -> Option<(String, String)> {
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        assert!(std::env::var("CI").is_err(), "CI tests Redis: set TEST_REDIS_URL");
        eprintln!("TEST_REDIS_URL is not set: Redis is not tested");
        return None;
    };
    Some((url, format!("t{}", uuid::Uuid::new_v4().simple())))
}

/// A clock that stands at the time now: Redis compares keep times with its own.
pub(crate) fn new_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(hanshu_core::SystemClock.now()))
}

impl QueuePlace {
    /// The same queues once more, as another process would have them.
    pub(crate) async fn open(&self, clock: Arc<ManualClock>) -> Arc<dyn EventQueue> {
        match self {
            Self::Sql(test) if test.name == "sqlite memory" => {
                Arc::new(SqlQueue::start(test.db.clone(), clock, &TaskTracker::new()))
            }
            Self::Sql(test) => open_sql(&test.url, clock).await,
            Self::Redis { url, name } => open_redis(url, name, clock).await,
        }
    }

    /// What [`reopen`] needs to find the place again.
    pub(crate) fn address(&self) -> (String, String) {
        match self {
            Self::Sql(test) => (test.url.clone(), String::new()),
            Self::Redis { url, name } => (url.clone(), name.clone()),
        }
    }
}

/// The queues at an address, from another process.
pub(crate) async fn reopen(url: &str, name: &str) -> Arc<dyn EventQueue> {
    if name.is_empty() {
        open_sql(url, new_clock()).await
    } else {
        open_redis(url, name, new_clock()).await
    }
}

async fn open_sql(url: &str, clock: Arc<ManualClock>) -> Arc<dyn EventQueue> {
    let db = SqlDatabase::open(url).await.unwrap();
    Arc::new(SqlQueue::start(db, clock, &TaskTracker::new()))
}

async fn open_redis(url: &str, name: &str, clock: Arc<ManualClock>) -> Arc<dyn EventQueue> {
    let options = RedisOptions { name: name.into(), ..RedisOptions::default() };
    Arc::new(RedisQueue::connect(url, clock, &TaskTracker::new(), &options).await.unwrap())
}

impl TestQueue {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// An event that was accepted now.
    pub(crate) fn event(&self, queue: &str) -> NewEvent {
        event(queue, self.now())
    }

    /// Pushes an event and gives its id.
    pub(crate) async fn push(&self, queue: &str) -> RequestId {
        let event = self.event(queue);
        let id = event.request_id;
        self.queue.push(event).await.unwrap();
        id
    }

    pub(crate) async fn claim(&self, queue: &str, max: usize) -> Vec<Claim> {
        self.queue.source(&name(queue)).claim(max, HOLD, &node()).await.unwrap()
    }

    /// The one event that is due there.
    pub(crate) async fn claim_one(&self, queue: &str) -> Claim {
        let mut claims = self.claim(queue, 2).await;
        assert_eq!(claims.len(), 1, "{}: {claims:?}", self.name);
        claims.pop().unwrap()
    }

    /// The claimed attempt, as it would be when it has run for a second.
    pub(crate) fn attempt(&self, claim: &Claim, status: StatusCode) -> Option<Attempt> {
        Some(Attempt {
            number: claim.attempt,
            started_at: self.now(),
            ended_at: Some(self.now() + Duration::from_secs(1)),
            status: Some(status),
            node: Some(node()),
            cold: true,
        })
    }
}

pub(crate) fn event(queue: &str, now: Timestamp) -> NewEvent {
    let payload =
        Bytes::from_static("{\"n\": 1, \"text\": \"\u{e9}\\u0000 \u{1f600}\"}".as_bytes());
    NewEvent {
        request_id: RequestId::new(),
        queue: name(queue),
        version: Qualifier::Latest,
        revision: digest(1),
        event: Event { origin: Origin::Direct, payload },
        accepted_at: now,
        expires_at: now + 6 * Duration::from_secs(3600),
        max_waiting: 100_000,
        tick: None,
        rerun_of: None,
    }
}

pub(crate) fn name(queue: &str) -> QueueName {
    queue.parse().unwrap()
}

pub(crate) fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

pub(crate) fn node() -> NodeId {
    "node-1".parse().unwrap()
}

pub(crate) fn failure(message: &str) -> Failure {
    Failure {
        status_code: StatusCode::UserException,
        error_code: 1,
        error_message: message.into(),
        error_type: Some("ValueError".into()),
        stack_trace: Some("at line 1".into()),
    }
}

pub(crate) fn ids(claims: &[Claim]) -> Vec<RequestId> {
    claims.iter().map(|claim| claim.request_id).collect()
}
