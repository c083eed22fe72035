//! The registry's counter: every change advances it, and readers reconcile by it.

use sqlx::{AnyConnection, query, query_scalar};

use crate::sql::error::DatabaseError;

const ADVANCE: &str = "
UPDATE counters SET value = value + 1 WHERE name = 'registry' RETURNING value";

const LOCK: &str = "
UPDATE counters SET value = value WHERE name = 'registry'";

const READ: &str = "
SELECT value FROM counters WHERE name = 'registry'";

pub(super) const STATEMENTS: &[&str] = &[ADVANCE, LOCK, READ];

/// Advances the counter and returns its new value. Its row stays locked until the transaction
/// ends, so that the registry's writers run one after the other.
pub(super) async fn advance_registry_counter(tx: &mut AnyConnection) -> Result<i64, DatabaseError> {
    Ok(query_scalar(ADVANCE).fetch_one(tx).await?)
}

/// Takes the counter's lock for a change that readers need not see.
pub(super) async fn lock(tx: &mut AnyConnection) -> Result<(), DatabaseError> {
    query(LOCK).execute(tx).await?;
    Ok(())
}

pub(super) async fn read(tx: &mut AnyConnection) -> Result<i64, DatabaseError> {
    Ok(query_scalar(READ).fetch_one(tx).await?)
}
