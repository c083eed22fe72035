//! What is live: everything in three queries, however many functions there are, or one function.

use std::collections::BTreeMap;

use hanshu_core::ports::{FunctionEntry, FunctionRow, RegistrySnapshot};
use hanshu_core::{FunctionId, Qualifier, Revision, Timestamp};
use sqlx::{AnyConnection, query_as};

use super::row::RowOf;
use super::triggers;
use crate::error::Error;

const FUNCTIONS: &str = "
SELECT f.namespace, f.name, f.latest, r.code, r.config, f.created_at, f.updated_at
FROM functions f
JOIN revisions r ON r.namespace = f.namespace AND r.function = f.name AND r.digest = f.latest";

const VERSIONS: &str = "
SELECT v.namespace, v.function, v.digest, r.code, r.config, v.number, v.published_at
FROM versions v
JOIN revisions r
  ON r.namespace = v.namespace AND r.function = v.function AND r.digest = v.digest
ORDER BY v.number";

const TRIGGERS: &str = "
SELECT namespace, function, name, spec, enabled FROM triggers";

const FUNCTION: &str = "
SELECT f.namespace, f.name, f.latest, r.code, r.config, f.created_at, f.updated_at
FROM functions f
JOIN revisions r ON r.namespace = f.namespace AND r.function = f.name AND r.digest = f.latest
WHERE f.namespace = $1 AND f.name = $2";

const VERSIONS_OF: &str = "
SELECT v.namespace, v.function, v.digest, r.code, r.config, v.number, v.published_at
FROM versions v
JOIN revisions r
  ON r.namespace = v.namespace AND r.function = v.function AND r.digest = v.digest
WHERE v.namespace = $1 AND v.function = $2
ORDER BY v.number";

pub(crate) const STATEMENTS: &[&str] = &[FUNCTIONS, VERSIONS, TRIGGERS, FUNCTION, VERSIONS_OF];

/// Namespace, function, digest, code, config, and two numbers: the function's two dates, or the
/// version's number and date.
type RevisionRow = (String, String, String, String, String, i64, i64);

/// Reads all of it. The caller's transaction sees one moment, that of `counter`.
pub(crate) async fn read(tx: &mut AnyConnection, counter: i64) -> Result<RegistrySnapshot, Error> {
    let mut all = BTreeMap::new();
    let rows: Vec<RevisionRow> = query_as(FUNCTIONS).fetch_all(&mut *tx).await?;
    for row in &rows {
        let (id, entry) = function(row)?;
        all.insert(id, entry);
    }
    let rows: Vec<RevisionRow> = query_as(VERSIONS).fetch_all(&mut *tx).await?;
    for row in &rows {
        let id = id(&row.0, &row.1)?;
        let Some(entry) = all.get_mut(&id) else { continue };
        entry.revisions.push(version(id, row)?);
    }
    let rows: Vec<(String, String, String, String, i64)> = query_as(TRIGGERS).fetch_all(tx).await?;
    for (namespace, function, name, spec, enabled) in &rows {
        let id = id(namespace, function)?;
        let Some(entry) = all.get_mut(&id) else { continue };
        entry.triggers.push(triggers::decode(&id, (name, spec, *enabled))?);
    }
    for entry in all.values_mut() {
        entry.triggers.sort_by(|a, b| a.id.name.cmp(&b.id.name));
    }
    Ok(RegistrySnapshot { counter, functions: all.into_values().collect() })
}

/// Reads one function as [`read`] would; `None` if there is none.
pub(crate) async fn read_one(
    tx: &mut AnyConnection,
    id: &FunctionId,
) -> Result<Option<FunctionEntry>, Error> {
    let (namespace, name) = (id.namespace.as_str(), id.name.as_str());
    let found: Option<RevisionRow> =
        query_as(FUNCTION).bind(namespace).bind(name).fetch_optional(&mut *tx).await?;
    let Some(row) = found else { return Ok(None) };
    let (_, mut entry) = function(&row)?;
    let rows: Vec<RevisionRow> =
        query_as(VERSIONS_OF).bind(namespace).bind(name).fetch_all(&mut *tx).await?;
    for row in &rows {
        entry.revisions.push(version(id.clone(), row)?);
    }
    entry.triggers = triggers::of_function(tx, id).await?.into_values().collect();
    Ok(Some(entry))
}

fn function(row: &RevisionRow) -> Result<(FunctionId, FunctionEntry), Error> {
    let id = id(&row.0, &row.1)?;
    let key = id.to_string();
    let of = RowOf::new("functions", &key);
    let updated_at = of.time(row.6)?;
    let dates = FunctionRow { created_at: of.time(row.5)?, updated_at };
    let latest = revision(id.clone(), Qualifier::Latest, row)?;
    let entry =
        FunctionEntry { row: dates, revisions: vec![(latest, updated_at)], triggers: Vec::new() };
    Ok((id, entry))
}

fn version(id: FunctionId, row: &RevisionRow) -> Result<(Revision, Timestamp), Error> {
    let key = id.to_string();
    let of = RowOf::new("versions", &key);
    let version = Qualifier::Version(of.number(row.5)?);
    Ok((revision(id, version, row)?, of.time(row.6)?))
}

fn revision(
    function: FunctionId,
    version: Qualifier,
    row: &RevisionRow,
) -> Result<Revision, Error> {
    let key = format!("{function} {version}");
    let of = RowOf::new("revisions", &key);
    let (digest, code, config) = (of.parse(&row.2)?, of.parse(&row.3)?, of.json(&row.4)?);
    Ok(Revision { function, version, digest, code, config })
}

fn id(namespace: &str, name: &str) -> Result<FunctionId, Error> {
    let of = RowOf::new("functions", name);
    Ok(FunctionId { namespace: of.parse(namespace)?, name: of.parse(name)? })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::Db;

    /// One function's config as the registry writes it.
    const CONFIG: &str = r#"{"runtime":"python","handler":"index.main_handler","memory_mb":128,
        "timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,
        "network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},
        "max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}"#;

    const FILL: [&str; 2] = [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO functions SELECT 'default', 'fn' || i, $1, 1, 2 FROM n WHERE $2 <> ''",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO revisions SELECT 'default', 'fn' || i, $1, $1, $2, 0 FROM n",
    ];

    #[tokio::test]
    async fn ten_thousand_functions_are_read_in_a_moment() {
        let db = Db::open("sqlite::memory:").await.unwrap();
        for statement in FILL {
            let filling = sqlx::query(statement).bind("ab".repeat(32)).bind(CONFIG);
            filling.execute(db.writer()).await.unwrap();
        }
        let begun = Instant::now();
        let mut tx = db.begin_snapshot().await.unwrap();
        let all = read(&mut tx, 1).await.unwrap();
        assert_eq!(all.functions.len(), 10_000);
        // 0.4 s here, unoptimised; a query for each function would take many seconds.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
