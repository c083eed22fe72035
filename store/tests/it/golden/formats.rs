//! What this program writes has the format of the newest golden files: the same tables and columns,
//! keys of Redis and frames of segments, and in every kept JSON the same keys. A format that
//! changes needs a new version of golden files, so that it can always be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use hanshu_core::ManualClock;
use hanshu_store::{
    RedisOptions, RedisQueue, SegmentJournal, SegmentOptions, SqlDatabase, SqlJournal,
    SqlJournalOptions, SqlQueue, SqlRegistry,
};
use serde_json::{Value, json};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::files::newest;
use super::journal::journals;
use super::places::{GoldenDb, connect, copy_folder, postgres, queues, sqlite};
use super::replay;
use crate::databases::{file, postgres_url};
use crate::queue_kinds::{new_clock, redis_corner};

/// What to do where the two differ.
const MISSING: &str = "the format has changed: add golden files of it with \
                       `store/tests/golden/write`, or list it in store/tests/golden/pending until \
                       there are (see store/tests/golden/README.md)";

/// Parts of a format: by place (a table's column, a frame's kind, a key of Redis), what is there.
#[derive(Debug, Default, PartialEq, Eq)]
struct StoredFormat(BTreeMap<String, BTreeSet<String>>);

impl StoredFormat {
    fn add(&mut self, place: &str, part: impl Into<String>) {
        self.0.entry(place.to_owned()).or_default().insert(part.into());
    }

    /// Notes the keys of text that is JSON, or lines of JSON; other text has no format.
    fn add_text(&mut self, place: &str, text: &str) {
        for line in text.lines() {
            if let Ok(json @ Value::Object(_)) = serde_json::from_str(line) {
                self.add_json(place, "", &json);
            }
        }
    }

    /// Notes a field of a hash or of a stream's entry.
    fn add_field(&mut self, place: &str, field: &str, text: &str) {
        self.add(place, format!("field {field}"));
        if !USERS.contains(&field) {
            self.add_text(&format!("{place} {field}"), text);
        }
    }

    fn add_json(&mut self, place: &str, path: &str, json: &Value) {
        match json {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let path = format!("{path}.{key}");
                    self.add(place, path.clone());
                    self.add_json(place, &path, value);
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.add_json(place, &format!("{path}[]"), item);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Each part as a line.
    fn parts(&self) -> BTreeSet<String> {
        let all = self.0.iter();
        all.flat_map(|(place, parts)| parts.iter().map(move |part| format!("{place} {part}")))
            .collect()
    }

    /// What differs is in the list of what the next golden files are to have, word for word.
    #[track_caller]
    fn assert_same(&self, golden: &Self, kind: &str) {
        let (now, golden) = (self.parts(), golden.parts());
        assert!(!golden.is_empty());
        let added = now.difference(&golden).map(|part| format!("{kind} + {part}"));
        let gone = golden.difference(&now).map(|part| format!("{kind} - {part}"));
        let found: BTreeSet<_> = added.chain(gone).collect();
        let listed = include_str!("../../golden/pending").lines();
        let of_kind = listed.filter(|line| line.starts_with(&format!("{kind} ")));
        let expected: BTreeSet<_> = of_kind.map(str::to_owned).collect();
        let new = found.difference(&expected).map(String::as_str).collect::<Vec<_>>().join("\n");
        let old = expected.difference(&found).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(found == expected, "{MISSING}\nto be listed:\n{new}\nlisted in vain:\n{old}");
    }
}

/// Columns and fields whose JSON is users' own.
const USERS: [&str; 2] = ["payload", "result"];

/// Columns, their types and indexes in SQLite, as rows of one text.
const SQLITE_SCHEMA: &str = "
SELECT m.name || '.' || p.name || ' ' || p.type || ' ' || p.\"notnull\" || ' ' || p.pk AS line
FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS p WHERE m.type = 'table'
UNION ALL SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL
UNION ALL SELECT 'migration ' || version FROM _sqlx_migrations";

/// The same in PostgreSQL.
const POSTGRES_SCHEMA: &str = "
SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable AS line
FROM information_schema.columns WHERE table_schema = current_schema()
UNION ALL
SELECT replace(indexdef, current_schema() || '.', '') FROM pg_indexes
WHERE schemaname = current_schema()
UNION ALL SELECT 'migration ' || version FROM _sqlx_migrations";

/// Columns of text in SQLite.
const SQLITE_TEXTS: &str = "
SELECT m.name AS of_table, p.name AS of_column
FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS p
WHERE m.type = 'table' AND p.type = 'TEXT' AND m.name <> '_sqlx_migrations'";

/// Columns of text in PostgreSQL.
const POSTGRES_TEXTS: &str = "
SELECT CAST(table_name AS TEXT) AS of_table, CAST(column_name AS TEXT) AS of_column
FROM information_schema.columns
WHERE table_schema = current_schema() AND data_type = 'text'
  AND table_name <> '_sqlx_migrations'";

/// A database's format, as it is: it is not migrated.
async fn format_of_database(url: &str) -> StoredFormat {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    let is_sqlite = url.starts_with("sqlite:");
    let (schema, texts) = match is_sqlite {
        true => (SQLITE_SCHEMA, SQLITE_TEXTS),
        false => (POSTGRES_SCHEMA, POSTGRES_TEXTS),
    };
    let mut format = StoredFormat::default();
    let lines: Vec<String> = sqlx::query_scalar(schema).fetch_all(&mut connection).await.unwrap();
    for line in lines {
        format.add("schema", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let columns: Vec<(String, String)> =
        sqlx::query_as(texts).fetch_all(&mut connection).await.unwrap();
    for (table, column) in columns {
        if USERS.contains(&column.as_str()) {
            continue;
        }
        // Output and records are different things in one column.
        let kind = if table == "journal" { "CAST(kind AS TEXT)" } else { "''" };
        let select = format!(
            "SELECT {kind} AS kind, {column} AS value FROM {table} WHERE {column} IS NOT NULL"
        );
        let rows = sqlx::query(AssertSqlSafe(select)).fetch_all(&mut connection).await.unwrap();
        for row in rows {
            let (kind, text): (String, String) = (row.get("kind"), row.get("value"));
            format.add_text(&format!("{table}{kind}.{column}"), &text);
        }
    }
    connection.close().await.unwrap();
    format
}

#[tokio::test]
async fn a_database_of_sqlite_has_the_format_of_the_newest_golden_one() {
    let golden = sqlite(newest());
    // One node keeps its journal in files.
    let test = file().await;
    rewrite(&golden, &test.db, 0).await;
    test.db.close().await;
    let golden = format_of_database(&sqlite(newest()).url).await;
    format_of_database(&test.url).await.assert_same(&golden, "sqlite");
}

#[tokio::test]
async fn a_database_of_postgres_has_the_format_of_the_newest_golden_one() {
    let Some(golden) = postgres(newest()).await else { return };
    let url = postgres_url().await.unwrap();
    let db = SqlDatabase::open(&url).await.unwrap();
    rewrite(&golden, &db, 1).await;
    let (journal, writer) = SqlJournal::new(db.clone(), SqlJournalOptions::default());
    let tasks = TaskTracker::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    let from = journals(newest()).await.pop().unwrap();
    replay::journal(&from, &journal).await;
    db.close().await;
    let untouched = postgres(newest()).await.unwrap();
    let golden = format_of_database(&untouched.url).await;
    format_of_database(&url).await.assert_same(&golden, "postgres");
}

/// Writes what a golden database holds into an empty one. The queue is the version's n-th.
async fn rewrite(golden: &GoldenDb, db: &SqlDatabase, number: usize) {
    let from = SqlRegistry::new(golden.open().await);
    replay::registry(&from, &SqlRegistry::new(db.clone())).await;
    let (clock, tasks) = (new_clock(), TaskTracker::new());
    let queue = SqlQueue::start(db.clone(), Arc::<ManualClock>::clone(&clock), &tasks);
    let from = queues(newest()).await.swap_remove(number);
    replay::queue(&from, &queue, &clock).await;
}

/// Names of files with digits and endings, an index' head and length, and what frames hold. Reads
/// frames by itself: length, checksum, kind, function, request, time (4, 4, 1, 8, 8, 8 bytes), JSON.
fn format_of_segments(folder: &Path) -> StoredFormat {
    let mut format = StoredFormat::default();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let (name, bytes) = (path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap());
        format.add("file", name.replace(|c: char| c.is_ascii_digit(), "0"));
        if name.ends_with(".index") {
            let magic = String::from_utf8_lossy(&bytes[..8]).into_owned();
            format.add("index", format!("{magic} {}", bytes.len()));
            continue;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length =
                usize::try_from(u32::from_le_bytes(rest[..4].try_into().unwrap())).unwrap();
            let frame = &rest[8..8 + length];
            assert_eq!(crc32fast::hash(frame).to_le_bytes(), rest[4..8], "{name}");
            format.add_text(
                &format!("frame {}", frame[0]),
                std::str::from_utf8(&frame[25..]).unwrap(),
            );
            rest = &rest[8 + length..];
        }
    }
    format
}

#[tokio::test]
async fn segments_have_the_format_of_the_newest_golden_ones() {
    let folder = tempfile::tempdir().unwrap();
    let options = SegmentOptions { segment_bytes: 16 * 1024, ..SegmentOptions::default() };
    let (journal, writer) = SegmentJournal::open(folder.path(), options).unwrap();
    let tasks = TaskTracker::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    replay::journal(&journals(newest()).await.swap_remove(0), &journal).await;
    let golden = tempfile::tempdir().unwrap();
    copy_folder(&newest().path("sqlite/journal/"), golden.path());
    let golden = format_of_segments(golden.path());
    format_of_segments(folder.path()).assert_same(&golden, "segments");
}

/// By kind of key: its type, and the fields of events' hashes and streams with what is in them.
fn format_of_redis(lines: &[Value], prefix: &str) -> StoredFormat {
    let mut format = StoredFormat::default();
    for line in lines {
        let Some(rest) = line["key"].as_str().unwrap().strip_prefix(prefix) else { continue };
        let mut parts = rest.split(':');
        let key = format!("{}:{}", parts.next().unwrap(), parts.next().unwrap());
        format.add(&key, line["type"].as_str().unwrap());
        if key.ends_with(":event") {
            for (field, value) in line["value"].as_object().unwrap() {
                format.add_field(&key, field, value.as_str().unwrap());
            }
        }
        for entry in line["value"]["entries"].as_array().into_iter().flatten() {
            for pair in entry["fields"].as_array().unwrap().chunks(2) {
                format.add_field(&key, pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            }
        }
    }
    format
}

#[tokio::test]
async fn keys_of_redis_have_the_format_of_the_newest_golden_ones() {
    let Some((url, name)) = redis_corner() else { return };
    let clock = new_clock();
    let options = RedisOptions { name: name.clone(), ..RedisOptions::default() };
    let held = Arc::<ManualClock>::clone(&clock);
    let queue = RedisQueue::connect(&url, held, &TaskTracker::new(), &options).await.unwrap();
    replay::queue(&queues(newest()).await.pop().unwrap(), &queue, &clock).await;
    let now = dump(&url, &name).await;
    let dump = newest().text("redis/dump.jsonl");
    let golden: Vec<_> = dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let golden = format_of_redis(&golden, "{hanshu:");
    format_of_redis(&now, &format!("{{{name}:")).assert_same(&golden, "redis");
}

/// The keys of an installation, as lines of a dump.
async fn dump(url: &str, name: &str) -> Vec<Value> {
    let mut connection = connect(url).await;
    let mut keys = redis::cmd("KEYS");
    let keys: Vec<String> =
        keys.arg(format!("{{{name}:*")).query_async(&mut connection).await.unwrap();
    let mut lines = Vec::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await.unwrap();
        let value = match kind.as_str() {
            "hash" => {
                let fields: BTreeMap<String, String> =
                    redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await.unwrap();
                json!(fields)
            }
            "stream" => {
                let mut range = redis::cmd("XRANGE");
                let entries: Vec<(String, Vec<String>)> =
                    range.arg(&key).arg("-").arg("+").query_async(&mut connection).await.unwrap();
                let entry = |(id, fields)| json!({ "id": id, "fields": fields });
                json!({ "entries": entries.into_iter().map(entry).collect::<Vec<_>>() })
            }
            _ => Value::Null,
        };
        lines.push(json!({ "key": key, "type": kind, "value": value }));
    }
    lines
}
