//! Revisions: inserted by deploys, kept while they are live or events name them.

use hanshu_core::ports::{NewDeployment, ReplacedRevision};
use hanshu_core::{Digest, FunctionConfig, FunctionId, Timestamp};
use sqlx::{AnyConnection, query, query_as, query_scalar};

use super::counter;
use crate::sql::error::DatabaseError;
use crate::sql::row::{RowContext, micros, to_json};
use crate::stored::StoredFunctionConfig;

const INSERT: &str = "
INSERT INTO revisions (namespace, function, digest, code, config, replaced_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (namespace, function, digest) DO NOTHING";

const SET_REPLACED: &str = "
UPDATE revisions SET replaced_at = $4 WHERE namespace = $1 AND function = $2 AND digest = $3";

const SELECT: &str = "
SELECT code, config FROM revisions WHERE namespace = $1 AND function = $2 AND digest = $3";

const REPLACED: &str = "
SELECT namespace, function, digest FROM revisions
WHERE replaced_at < $1
  AND NOT EXISTS (
    SELECT 1 FROM functions
    WHERE functions.namespace = revisions.namespace AND functions.name = revisions.function
      AND functions.latest = revisions.digest)
  AND NOT EXISTS (
    SELECT 1 FROM versions
    WHERE versions.namespace = revisions.namespace AND versions.function = revisions.function
      AND versions.digest = revisions.digest)";

const FORGET: &str = "
DELETE FROM revisions
WHERE namespace = $1 AND function = $2 AND digest = $3 AND replaced_at < $4
  AND NOT EXISTS (
    SELECT 1 FROM functions
    WHERE functions.namespace = revisions.namespace AND functions.name = revisions.function
      AND functions.latest = revisions.digest)
  AND NOT EXISTS (
    SELECT 1 FROM versions
    WHERE versions.namespace = revisions.namespace AND versions.function = revisions.function
      AND versions.digest = revisions.digest)";

const PACKAGES: &str = "
SELECT DISTINCT code FROM revisions";

const DELETE_ALL: &str = "
DELETE FROM revisions WHERE namespace = $1 AND function = $2";

pub(super) const STATEMENTS: &[&str] =
    &[INSERT, SET_REPLACED, SELECT, REPLACED, FORGET, PACKAGES, DELETE_ALL];

row! {
    /// A revision's package and configuration.
    #[derive(Debug)]
    struct RevisionContentRow {
        code: String,
        config: String,
    }
}

row! {
    #[derive(Debug)]
    struct RevisionKeyRow {
        namespace: String,
        function: String,
        digest: String,
    }
}

/// Inserts the deployment's revision, unless it is stored already.
pub(super) async fn insert(
    tx: &mut AnyConnection,
    deployment: &NewDeployment,
) -> Result<(), DatabaseError> {
    query(INSERT)
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

/// Notes when a revision ceased to be `$LATEST`.
pub(super) async fn set_replaced(
    tx: &mut AnyConnection,
    function: &FunctionId,
    digest: &Digest,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    query(SET_REPLACED)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .bind(digest.as_str())
        .bind(micros(now))
        .execute(tx)
        .await?;
    Ok(())
}

/// A revision's configuration and package.
pub(super) async fn select(
    tx: &mut AnyConnection,
    function: &FunctionId,
    digest: &Digest,
) -> Result<Option<(FunctionConfig, Digest)>, DatabaseError> {
    let found: Option<RevisionContentRow> = query_as(SELECT)
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

/// Revisions that nothing in the registry points to and that were replaced before a time.
pub(super) async fn replaced(
    tx: &mut AnyConnection,
    before: Timestamp,
) -> Result<Vec<ReplacedRevision>, DatabaseError> {
    let rows: Vec<RevisionKeyRow> = query_as(REPLACED).bind(micros(before)).fetch_all(tx).await?;
    let decoded = rows.iter().map(|RevisionKeyRow { namespace, function, digest }| {
        let row = RowContext::new("revisions", digest);
        let function = FunctionId { namespace: row.parse(namespace)?, name: row.parse(function)? };
        Ok(ReplacedRevision { function, digest: row.parse(digest)? })
    });
    decoded.collect()
}

/// Deletes those of the revisions that nothing points to still. No live function changes, so the
/// counter does not either; its lock keeps a deploy from making one of them live meanwhile.
pub(super) async fn forget(
    tx: &mut AnyConnection,
    revisions: &[ReplacedRevision],
    before: Timestamp,
) -> Result<(), DatabaseError> {
    counter::lock(&mut *tx).await?;
    for ReplacedRevision { function, digest } in revisions {
        query(FORGET)
            .bind(function.namespace.as_str())
            .bind(function.name.as_str())
            .bind(digest.as_str())
            .bind(micros(before))
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// The packages that any revision names.
pub(super) async fn packages(tx: &mut AnyConnection) -> Result<Vec<Digest>, DatabaseError> {
    let codes: Vec<String> = query_scalar(PACKAGES).fetch_all(tx).await?;
    codes.iter().map(|code| RowContext::new("revisions", code).parse(code)).collect()
}

/// Deletes all revisions of a function.
pub(super) async fn delete_all(
    tx: &mut AnyConnection,
    function: &FunctionId,
) -> Result<(), DatabaseError> {
    query(DELETE_ALL)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .execute(tx)
        .await?;
    Ok(())
}
