//! Functions, their revisions and versions.

use hanshu_core::ports::{NewDeployment, StoreError};
use hanshu_core::{Digest, FunctionConfig, FunctionId, Qualifier, Revision, Timestamp};
use sqlx::{AnyConnection, FromRow, query, query_as, query_scalar};

use super::counter;
use crate::sql::error::DatabaseError;
use crate::sql::row::{RowContext, micros, to_json};
use crate::stored::StoredFunctionConfig;

const LATEST: &str = "
SELECT latest FROM functions WHERE namespace = $1 AND name = $2";

const INSERT: &str = "
INSERT INTO functions (namespace, name, latest, created_at, updated_at)
VALUES ($1, $2, $3, $4, $4)";

const UPDATE: &str = "
UPDATE functions SET latest = $3, updated_at = $4 WHERE namespace = $1 AND name = $2";

const DELETE: &str = "
DELETE FROM functions WHERE namespace = $1 AND name = $2";

const INSERT_REVISION: &str = "
INSERT INTO revisions (namespace, function, digest, code, config, replaced_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (namespace, function, digest) DO NOTHING";

const REPLACE_REVISION: &str = "
UPDATE revisions SET replaced_at = $4 WHERE namespace = $1 AND function = $2 AND digest = $3";

const REVISION: &str = "
SELECT code, config FROM revisions WHERE namespace = $1 AND function = $2 AND digest = $3";

const DELETE_REVISIONS: &str = "
DELETE FROM revisions WHERE namespace = $1 AND function = $2";

const FORGET_REVISIONS: &str = "
DELETE FROM revisions
WHERE replaced_at < $1
  AND NOT EXISTS (
    SELECT 1 FROM functions
    WHERE functions.namespace = revisions.namespace AND functions.name = revisions.function
      AND functions.latest = revisions.digest)
  AND NOT EXISTS (
    SELECT 1 FROM versions
    WHERE versions.namespace = revisions.namespace AND versions.function = revisions.function
      AND versions.digest = revisions.digest)";

const CODES: &str = "
SELECT DISTINCT code FROM revisions";

const NEWEST_VERSION: &str = "
SELECT number, digest FROM versions
WHERE namespace = $1 AND function = $2 ORDER BY number DESC LIMIT 1";

const INSERT_VERSION: &str = "
INSERT INTO versions (namespace, function, number, digest, published_at)
VALUES ($1, $2, $3, $4, $5)";

const DELETE_VERSIONS: &str = "
DELETE FROM versions WHERE namespace = $1 AND function = $2";

pub(super) const STATEMENTS: &[&str] = &[
    LATEST,
    INSERT,
    UPDATE,
    DELETE,
    INSERT_REVISION,
    REPLACE_REVISION,
    REVISION,
    DELETE_REVISIONS,
    FORGET_REVISIONS,
    CODES,
    NEWEST_VERSION,
    INSERT_VERSION,
    DELETE_VERSIONS,
];

/// A revision's package and configuration.
#[derive(Debug, FromRow)]
struct RevisionContentRow {
    code: String,
    config: String,
}

/// A version and the revision it names.
#[derive(Debug, FromRow)]
struct VersionRow {
    number: i64,
    digest: String,
}

/// What publishing `$LATEST` came to.
#[derive(Debug)]
pub(super) struct PublishResult {
    /// The newest version.
    pub(super) revision: Revision,
    /// Whether it was made now.
    pub(super) is_new: bool,
}

/// The digest of `$LATEST`; `None` if there is no such function.
pub(super) async fn latest(
    tx: &mut AnyConnection,
    function: &FunctionId,
) -> Result<Option<Digest>, DatabaseError> {
    let found: Option<String> = query_scalar(LATEST)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .fetch_optional(tx)
        .await?;
    let key = function.to_string();
    RowContext::new("functions", &key).parse_option(found.as_deref())
}

/// Makes the deployment's revision the function's `$LATEST`. Whether that changed anything.
pub(super) async fn point_latest(
    tx: &mut AnyConnection,
    deployment: &NewDeployment,
) -> Result<bool, DatabaseError> {
    let function = &deployment.function;
    let before = latest(tx, function).await?;
    if before.as_ref() == Some(&deployment.revision) {
        return Ok(false);
    }
    insert_revision(tx, deployment).await?;
    let statement = if before.is_some() { UPDATE } else { INSERT };
    query(statement)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .bind(deployment.revision.as_str())
        .bind(micros(deployment.now))
        .execute(&mut *tx)
        .await?;
    if let Some(replaced) = before {
        query(REPLACE_REVISION)
            .bind(function.namespace.as_str())
            .bind(function.name.as_str())
            .bind(replaced.as_str())
            .bind(micros(deployment.now))
            .execute(tx)
            .await?;
    }
    Ok(true)
}

async fn insert_revision(
    tx: &mut AnyConnection,
    deployment: &NewDeployment,
) -> Result<(), DatabaseError> {
    query(INSERT_REVISION)
        .bind(deployment.function.namespace.as_str())
        .bind(deployment.function.name.as_str())
        .bind(deployment.revision.as_str())
        .bind(deployment.code.as_str())
        .bind(to_json("revisions", &StoredFunctionConfig::from(&deployment.config))?)
        .bind(micros(deployment.now))
        .execute(tx)
        .await?;
    Ok(())
}

/// A revision's configuration and package.
pub(super) async fn revision(
    tx: &mut AnyConnection,
    function: &FunctionId,
    digest: &Digest,
) -> Result<Option<(FunctionConfig, Digest)>, DatabaseError> {
    let found: Option<RevisionContentRow> = query_as(REVISION)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .bind(digest.as_str())
        .fetch_optional(tx)
        .await?;
    let key = format!("{function} {}", digest.short());
    let row = RowContext::new("revisions", &key);
    let Some(found) = found else { return Ok(None) };
    let config: StoredFunctionConfig<'_> = row.json(&found.config)?;
    Ok(Some((config.into(), row.parse(&found.code)?)))
}

/// Publishes `$LATEST`, unless the newest version is the same revision.
pub(super) async fn publish(
    tx: &mut AnyConnection,
    function: &FunctionId,
    now: Timestamp,
) -> Result<PublishResult, StoreError> {
    let Some(digest) = latest(tx, function).await? else {
        return Err(no_function(function));
    };
    let Some((config, code)) = revision(tx, function, &digest).await? else {
        let reason = format!("`$LATEST` names revision {}, which is not stored", digest.short());
        let key = function.to_string();
        return Err(DatabaseError::Row { table: "functions", key, reason }.into());
    };
    let newest: Option<VersionRow> = query_as(NEWEST_VERSION)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(DatabaseError::from)?;
    let (number, is_new) = match newest {
        Some(newest) if newest.digest == digest.as_str() => (newest.number, false),
        Some(newest) => (newest.number + 1, true),
        None => (1, true),
    };
    let key = function.to_string();
    let version = Qualifier::Version(RowContext::new("versions", &key).number(number)?);
    let revision = Revision { function: function.clone(), version, digest, code, config };
    if is_new {
        insert_version(tx, &revision, number, now).await?;
    }
    Ok(PublishResult { revision, is_new })
}

async fn insert_version(
    tx: &mut AnyConnection,
    revision: &Revision,
    number: i64,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    query(INSERT_VERSION)
        .bind(revision.function.namespace.as_str())
        .bind(revision.function.name.as_str())
        .bind(number)
        .bind(revision.digest.as_str())
        .bind(micros(now))
        .execute(tx)
        .await?;
    Ok(())
}

/// Removes a function with its revisions and versions. Whether there was one.
pub(super) async fn delete(
    tx: &mut AnyConnection,
    function: &FunctionId,
) -> Result<bool, DatabaseError> {
    let mut functions = 0;
    for statement in [DELETE_VERSIONS, DELETE_REVISIONS, DELETE] {
        functions = query(statement)
            .bind(function.namespace.as_str())
            .bind(function.name.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
    }
    Ok(functions != 0)
}

/// Forgets what nothing points to and was replaced before; returns the packages still named.
/// Nothing live changes, so the counter does not either.
pub(super) async fn collect(
    tx: &mut AnyConnection,
    before: Timestamp,
) -> Result<Vec<Digest>, DatabaseError> {
    counter::lock(&mut *tx).await?;
    query(FORGET_REVISIONS).bind(micros(before)).execute(&mut *tx).await?;
    let codes: Vec<String> = query_scalar(CODES).fetch_all(tx).await?;
    codes.iter().map(|code| RowContext::new("revisions", code).parse(code)).collect()
}

pub(super) fn no_function(function: &FunctionId) -> StoreError {
    StoreError::NotFound(format!("function `{function}` does not exist"))
}
