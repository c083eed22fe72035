//! Functions, their `$LATEST` and their versions.

use hanshu_core::ports::{NewDeployment, StoreError};
use hanshu_core::{Digest, FunctionId, Qualifier, Revision, Timestamp};
use sqlx::{AnyConnection, query, query_as, query_scalar};

use super::revisions;
use crate::sql::error::DatabaseError;
use crate::sql::row::{RowContext, micros};

const LATEST: &str = "
SELECT latest FROM functions WHERE namespace = $1 AND name = $2";

const INSERT: &str = "
INSERT INTO functions (namespace, name, latest, created_at, updated_at)
VALUES ($1, $2, $3, $4, $4)";

const UPDATE: &str = "
UPDATE functions SET latest = $3, updated_at = $4 WHERE namespace = $1 AND name = $2";

const DELETE: &str = "
DELETE FROM functions WHERE namespace = $1 AND name = $2";

const NEWEST_VERSION: &str = "
SELECT number, digest FROM versions
WHERE namespace = $1 AND function = $2 ORDER BY number DESC LIMIT 1";

const INSERT_VERSION: &str = "
INSERT INTO versions (namespace, function, number, digest, published_at)
VALUES ($1, $2, $3, $4, $5)";

const DELETE_VERSIONS: &str = "
DELETE FROM versions WHERE namespace = $1 AND function = $2";

pub(super) const STATEMENTS: &[&str] =
    &[LATEST, INSERT, UPDATE, DELETE, NEWEST_VERSION, INSERT_VERSION, DELETE_VERSIONS];

row! {
    /// A version and the revision it names.
    #[derive(Debug)]
    struct VersionRow {
        number: i64,
        digest: String,
    }
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
    revisions::insert(tx, deployment).await?;
    let statement = if before.is_some() { UPDATE } else { INSERT };
    query(statement)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .bind(deployment.revision.as_str())
        .bind(micros(deployment.now))
        .execute(&mut *tx)
        .await?;
    if let Some(replaced) = before {
        revisions::set_replaced(tx, function, &replaced, deployment.now).await?;
    }
    Ok(true)
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
    let Some((config, code)) = revisions::select(tx, function, &digest).await? else {
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
    revisions::delete_all(tx, function).await?;
    let mut functions = 0;
    for statement in [DELETE_VERSIONS, DELETE] {
        functions = query(statement)
            .bind(function.namespace.as_str())
            .bind(function.name.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
    }
    Ok(functions != 0)
}

pub(super) fn no_function(function: &FunctionId) -> StoreError {
    StoreError::NotFound(format!("function `{function}` does not exist"))
}
