//! Access keys, their secrets encrypted by the caller.

use hanshu_core::ports::{AccessKey, StoreError};
use sqlx::{AnyConnection, query, query_as};

use crate::sql::error::DatabaseError;
use crate::sql::row::{RowContext, micros};

const INSERT: &str = "
INSERT INTO access_keys (id, sealed, created_at) VALUES ($1, $2, $3)
ON CONFLICT (id) DO NOTHING";

const ALL: &str = "
SELECT id, sealed, created_at FROM access_keys ORDER BY created_at, id";

pub(super) const STATEMENTS: &[&str] = &[INSERT, ALL];

row! {
    #[derive(Debug)]
    struct AccessKeyRow {
        id: String,
        sealed: String,
        created_at: i64,
    }
}

pub(super) async fn add(tx: &mut AnyConnection, key: &AccessKey) -> Result<(), StoreError> {
    let done = query(INSERT)
        .bind(&key.id)
        .bind(&key.sealed)
        .bind(micros(key.created_at))
        .execute(tx)
        .await
        .map_err(DatabaseError::from)?;
    match done.rows_affected() {
        0 => Err(StoreError::Conflict(format!("access key `{}` exists already", key.id))),
        _ => Ok(()),
    }
}

pub(super) async fn all(tx: &mut AnyConnection) -> Result<Vec<AccessKey>, DatabaseError> {
    let rows: Vec<AccessKeyRow> = query_as(ALL).fetch_all(tx).await?;
    let decoded = rows.into_iter().map(|row| {
        let created_at = RowContext::new("access_keys", &row.id).time(row.created_at)?;
        Ok(AccessKey { id: row.id, sealed: row.sealed, created_at })
    });
    decoded.collect()
}
