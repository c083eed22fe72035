//! The live functions, versions and triggers: all of them in three queries, or those of one
//! function.

use std::collections::BTreeMap;

use hanshu_core::ports::{FunctionEntry, FunctionRow, RegistrySnapshot};
use hanshu_core::{FunctionId, Qualifier, Revision, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row as _, query_as};

use super::triggers::{self, TriggerRow};
use crate::sql::error::DatabaseError;
use crate::sql::row::RowContext;
use crate::stored::StoredFunctionConfig;

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

pub(super) const STATEMENTS: &[&str] = &[FUNCTIONS, VERSIONS, TRIGGERS, FUNCTION, VERSIONS_OF];

row! {
    /// A function with its `$LATEST`.
    #[derive(Debug)]
    struct LatestRow {
        namespace: String,
        name: String,
        latest: String,
        code: String,
        config: String,
        created_at: i64,
        updated_at: i64,
    }
}

row! {
    /// A version with its revision.
    #[derive(Debug)]
    struct PublishedVersionRow {
        namespace: String,
        function: String,
        digest: String,
        code: String,
        config: String,
        number: i64,
        published_at: i64,
    }
}

/// A trigger and its function.
#[derive(Debug)]
struct FunctionTriggerRow {
    namespace: String,
    function: String,
    trigger: TriggerRow,
}

impl<'r> FromRow<'r, AnyRow> for FunctionTriggerRow {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let trigger = TriggerRow::from_row(row)?;
        let (namespace, function) = (row.try_get("namespace")?, row.try_get("function")?);
        Ok(Self { namespace, function, trigger })
    }
}

/// Reads all of it. The caller's transaction sees one moment, that of `counter`.
pub(super) async fn read(
    tx: &mut AnyConnection,
    counter: i64,
) -> Result<RegistrySnapshot, DatabaseError> {
    let mut all = BTreeMap::new();
    let rows: Vec<LatestRow> = query_as(FUNCTIONS).fetch_all(&mut *tx).await?;
    for row in &rows {
        let (id, entry) = row.decode()?;
        all.insert(id, entry);
    }
    let rows: Vec<PublishedVersionRow> = query_as(VERSIONS).fetch_all(&mut *tx).await?;
    for row in &rows {
        let id = function_id(&row.namespace, &row.function)?;
        let Some(entry) = all.get_mut(&id) else { continue };
        entry.revisions.push(row.decode(id)?);
    }
    let rows: Vec<FunctionTriggerRow> = query_as(TRIGGERS).fetch_all(tx).await?;
    for row in &rows {
        let id = function_id(&row.namespace, &row.function)?;
        let Some(entry) = all.get_mut(&id) else { continue };
        entry.triggers.push(row.trigger.decode(&id)?);
    }
    for entry in all.values_mut() {
        entry.triggers.sort_by(|a, b| a.id.name.cmp(&b.id.name));
    }
    Ok(RegistrySnapshot { counter, functions: all.into_values().collect() })
}

/// Reads one function as [`read`] would; `None` if there is none.
pub(super) async fn read_one(
    tx: &mut AnyConnection,
    id: &FunctionId,
) -> Result<Option<FunctionEntry>, DatabaseError> {
    let (namespace, name) = (id.namespace.as_str(), id.name.as_str());
    let found: Option<LatestRow> =
        query_as(FUNCTION).bind(namespace).bind(name).fetch_optional(&mut *tx).await?;
    let Some(row) = found else { return Ok(None) };
    let (_, mut entry) = row.decode()?;
    let rows: Vec<PublishedVersionRow> =
        query_as(VERSIONS_OF).bind(namespace).bind(name).fetch_all(&mut *tx).await?;
    for row in &rows {
        entry.revisions.push(row.decode(id.clone())?);
    }
    entry.triggers = triggers::of_function(tx, id).await?.into_values().collect();
    Ok(Some(entry))
}

impl LatestRow {
    fn decode(&self) -> Result<(FunctionId, FunctionEntry), DatabaseError> {
        let id = function_id(&self.namespace, &self.name)?;
        let key = id.to_string();
        let row = RowContext::new("functions", &key);
        let updated_at = row.time(self.updated_at)?;
        let dates = FunctionRow { created_at: row.time(self.created_at)?, updated_at };
        let digest = &self.latest;
        let latest = revision(&id, Qualifier::Latest, [digest, &self.code, &self.config])?;
        let revisions = vec![(latest, updated_at)];
        Ok((id, FunctionEntry { row: dates, revisions, triggers: Vec::new() }))
    }
}

impl PublishedVersionRow {
    fn decode(&self, id: FunctionId) -> Result<(Revision, Timestamp), DatabaseError> {
        let key = id.to_string();
        let row = RowContext::new("versions", &key);
        let version = Qualifier::Version(row.number(self.number)?);
        let revision = revision(&id, version, [&self.digest, &self.code, &self.config])?;
        Ok((revision, row.time(self.published_at)?))
    }
}

/// From the texts of its digest, its package's digest and its configuration.
fn revision(
    function: &FunctionId,
    version: Qualifier,
    [digest, code, config]: [&str; 3],
) -> Result<Revision, DatabaseError> {
    let key = format!("{function} {version}");
    let row = RowContext::new("revisions", &key);
    let config: StoredFunctionConfig<'_> = row.json(config)?;
    let (digest, code, config) = (row.parse(digest)?, row.parse(code)?, config.into());
    Ok(Revision { function: function.clone(), version, digest, code, config })
}

fn function_id(namespace: &str, name: &str) -> Result<FunctionId, DatabaseError> {
    let row = RowContext::new("functions", name);
    Ok(FunctionId { namespace: row.parse(namespace)?, name: row.parse(name)? })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::SqlDatabase;

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

    /// Compared with single reads of a third of them in the same run, since how long a read takes
    /// depends on what else the machine does.
    #[tokio::test]
    async fn ten_thousand_functions_are_not_read_one_by_one() {
        let db = SqlDatabase::open("sqlite::memory:").await.unwrap();
        for statement in FILL {
            let filling = sqlx::query(statement).bind("ab".repeat(32)).bind(CONFIG);
            filling.execute(db.writer()).await.unwrap();
        }
        let mut tx = db.begin_snapshot().await.unwrap();
        let begun = Instant::now();
        let all = read(&mut tx, 1).await.unwrap();
        let together = begun.elapsed();
        assert_eq!(all.functions.len(), 10_000);
        let begun = Instant::now();
        for entry in all.functions.iter().take(3_333) {
            let id = &entry.revisions[0].0.function;
            assert!(read_one(&mut tx, id).await.unwrap().is_some());
        }
        let single = begun.elapsed();
        assert!(together < single, "all: {together:?}, a third of them singly: {single:?}");
    }
}
