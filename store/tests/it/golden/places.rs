//! Golden files brought where a store opens them: copies of files, a schema of PostgreSQL, keys of
//! Redis.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use hanshu_core::ports::EventQueue;
use hanshu_core::{ManualClock, Timestamp};
use hanshu_store::{RedisOptions, RedisQueue, SqlDatabase, SqlDatabaseOptions, SqlQueue};
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::files::GoldenVersion;
use crate::databases::postgres_url;

/// A database that an earlier program wrote.
pub(crate) struct GoldenDb {
    /// For messages: `v1 sqlite`.
    pub(crate) name: String,
    pub(crate) version: GoldenVersion,
    pub(crate) url: String,
    /// What the program that wrote it answered about it.
    pub(crate) answers: Value,
    _folder: Option<TempDir>,
}

/// A queue that an earlier program wrote, on a clock that stands where that program ended.
pub(crate) struct GoldenQueue {
    pub(crate) name: String,
    pub(crate) queue: Arc<dyn EventQueue>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) answers: Value,
    _db: Option<GoldenDb>,
}

impl GoldenDb {
    pub(crate) async fn open(&self) -> SqlDatabase {
        SqlDatabase::open_with(&self.url, &SqlDatabaseOptions::default()).await.unwrap()
    }
}

/// All databases of a version that can be had here.
pub(crate) async fn databases(version: GoldenVersion) -> Vec<GoldenDb> {
    let mut all = vec![sqlite(version)];
    all.extend(postgres(version).await);
    all
}

pub(crate) fn sqlite(version: GoldenVersion) -> GoldenDb {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hanshu.db");
    fs::copy(version.path("sqlite/hanshu.db"), &file).unwrap();
    GoldenDb {
        name: format!("{} sqlite", version.name),
        version,
        url: format!("sqlite:{}", file.display()),
        answers: version.json("sqlite/answers.json"),
        _folder: Some(folder),
    }
}

pub(crate) async fn postgres(version: GoldenVersion) -> Option<GoldenDb> {
    let url = postgres_url().await?;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let dump = AssertSqlSafe(version.text("postgres/dump.sql"));
    sqlx::raw_sql(dump).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    Some(GoldenDb {
        name: format!("{} postgres", version.name),
        version,
        url,
        answers: version.json("postgres/answers.json"),
        _folder: None,
    })
}

/// All queues of a version that can be had here.
pub(crate) async fn queues(version: GoldenVersion) -> Vec<GoldenQueue> {
    let mut all = Vec::new();
    for golden in databases(version).await {
        let clock = clock_of(&golden.answers);
        let held = Arc::<ManualClock>::clone(&clock);
        let queue = Arc::new(SqlQueue::start(golden.open().await, held, &TaskTracker::new()));
        let (name, answers) = (golden.name.clone(), golden.answers.clone());
        all.push(GoldenQueue { name, queue, clock, answers, _db: Some(golden) });
    }
    all.extend(redis(version).await);
    all
}

fn clock_of(answers: &Value) -> Arc<ManualClock> {
    let at: Timestamp = answers["writtenAt"].as_str().unwrap().parse().unwrap();
    Arc::new(ManualClock::at(at))
}

async fn redis(version: GoldenVersion) -> Option<GoldenQueue> {
    let (url, name) = crate::queue_kinds::redis_corner()?;
    let mut connection = connect(&url).await;
    for line in version.text("redis/dump.jsonl").lines() {
        restore(&mut connection, &name, &serde_json::from_str(line).unwrap()).await;
    }
    let answers = version.json("redis/answers.json");
    let clock = clock_of(&answers);
    let options = RedisOptions { name, ..RedisOptions::default() };
    let held = Arc::<ManualClock>::clone(&clock);
    let queue = RedisQueue::connect(&url, held, &TaskTracker::new(), &options).await.unwrap();
    let name = format!("{} redis", version.name);
    Some(GoldenQueue { name, queue: Arc::new(queue), clock, answers, _db: None })
}

pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Writes one key of a dump, under the test's own name of the installation. Users' streams are
/// not the queue's.
async fn restore(connection: &mut MultiplexedConnection, name: &str, line: &Value) {
    let Some(rest) = line["key"].as_str().unwrap().strip_prefix("{hanshu:") else { return };
    let (key, value) = (format!("{{{name}:{rest}"), &line["value"]);
    let mut commands = redis::pipe();
    match line["type"].as_str().unwrap() {
        "string" => {
            commands.cmd("SET").arg(&key).arg(value.as_str().unwrap()).ignore();
        }
        "hash" => {
            for (field, text) in value.as_object().unwrap() {
                commands.cmd("HSET").arg(&key).arg(field).arg(text.as_str().unwrap()).ignore();
            }
        }
        "zset" => {
            for (member, score) in value.as_object().unwrap() {
                commands.cmd("ZADD").arg(&key).arg(score.as_str().unwrap()).arg(member).ignore();
            }
        }
        "stream" => {
            for entry in value["entries"].as_array().unwrap() {
                commands.cmd("XADD").arg(&key).arg(entry["id"].as_str().unwrap());
                let fields = entry["fields"].as_array().unwrap();
                let texts: Vec<_> = fields.iter().map(|each| each.as_str().unwrap()).collect();
                commands.arg(texts).ignore();
            }
        }
        other => panic!("{key}: {other}"),
    }
    if let Some(ttl_ms) = line["ttlMs"].as_i64() {
        commands.cmd("PEXPIRE").arg(&key).arg(ttl_ms).ignore();
    }
    let () = commands.query_async(connection).await.unwrap();
}

/// Copies a folder of golden files.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
