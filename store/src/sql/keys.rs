//! Access keys, their secrets encrypted by the caller.

use hanshu_core::ports::{AccessKey, StoreError};
use sqlx::{AnyConnection, query, query_as};

use super::row::{RowOf, micros};
use crate::error::Error;

const INSERT: &str = "
INSERT INTO access_keys (id, sealed, created_at) VALUES ($1, $2, $3)
ON CONFLICT (id) DO NOTHING";

const ALL: &str = "
SELECT id, sealed, created_at FROM access_keys ORDER BY created_at, id";

pub(crate) const STATEMENTS: &[&str] = &[INSERT, ALL];

pub(crate) async fn add(tx: &mut AnyConnection, key: &AccessKey) -> Result<(), StoreError> {
    let done = query(INSERT)
        .bind(&key.id)
        .bind(&key.sealed)
        .bind(micros(key.created_at))
        .execute(tx)
        .await
        .map_err(Error::from)?;
    match done.rows_affected() {
        0 => Err(StoreError::Conflict(format!("access key `{}` exists already", key.id))),
        _ => Ok(()),
    }
}

pub(crate) async fn all(tx: &mut AnyConnection) -> Result<Vec<AccessKey>, Error> {
    let rows: Vec<(String, String, i64)> = query_as(ALL).fetch_all(tx).await?;
    let decoded = rows.into_iter().map(|(id, sealed, created_at)| {
        let created_at = RowOf::new("access_keys", &id).time(created_at)?;
        Ok(AccessKey { id, sealed, created_at })
    });
    decoded.collect()
}
