//! The log of the registry's changes: what a reader that knows a counter has missed.

use std::collections::BTreeSet;

use hanshu_core::FunctionId;
use hanshu_core::ports::RegistryChanges;
use sqlx::{AnyConnection, query, query_as};

use super::{counter, snapshot};
use crate::sql::error::DatabaseError;
use crate::sql::row::RowContext;

/// Newest changes that are kept.
const KEPT_MAX: i64 = 10_000;
/// A reader that has missed more reads everything: that takes four queries, not three for each
/// function.
const READ_MAX: i64 = 300;

const INSERT: &str = "
INSERT INTO registry_changes (counter, namespace, function) VALUES ($1, $2, $3)";

const INSERT_OTHER: &str = "
INSERT INTO registry_changes (counter) VALUES ($1)";

const TRIM: &str = "
DELETE FROM registry_changes WHERE counter <= $1";

const SINCE: &str = "
SELECT namespace, function FROM registry_changes WHERE $1 < counter AND counter <= $2";

pub(super) const STATEMENTS: &[&str] = &[INSERT, INSERT_OTHER, TRIM, SINCE];

row! {
    /// A change: of which function, if of one.
    #[derive(Debug)]
    struct ChangeRow {
        namespace: Option<String>,
        function: Option<String>,
    }
}

/// Advances the counter and logs the change; `None` if it is about no function.
pub(super) async fn log_change(
    tx: &mut AnyConnection,
    function: Option<&FunctionId>,
) -> Result<(), DatabaseError> {
    let counter = counter::advance_registry_counter(&mut *tx).await?;
    let insert = match function {
        Some(id) => query(INSERT).bind(counter).bind(id.namespace.as_str()).bind(id.name.as_str()),
        None => query(INSERT_OTHER).bind(counter),
    };
    insert.execute(&mut *tx).await?;
    query(TRIM).bind(counter - KEPT_MAX).execute(tx).await?;
    Ok(())
}

/// What has changed since the counter was `known`. The caller's transaction sees one moment.
pub(super) async fn since(
    tx: &mut AnyConnection,
    known: i64,
) -> Result<RegistryChanges, DatabaseError> {
    let counter = counter::read(&mut *tx).await?;
    if counter == known && known != 0 {
        return Ok(RegistryChanges::Unchanged);
    }
    match missed(&mut *tx, known, counter).await? {
        Some(ids) => {
            let mut functions = Vec::new();
            for id in ids {
                let entry = snapshot::read_one(&mut *tx, &id).await?;
                functions.push((id, entry));
            }
            Ok(RegistryChanges::Some { counter, functions })
        }
        None => Ok(RegistryChanges::All(snapshot::read(tx, counter).await?)),
    }
}

/// The functions that changes after `known` up to `counter` are about. `None`: not all of them are
/// in the log (it was trimmed, or an older program advanced the counter), or there are too many.
async fn missed(
    tx: &mut AnyConnection,
    known: i64,
    counter: i64,
) -> Result<Option<BTreeSet<FunctionId>>, DatabaseError> {
    let count = counter - known;
    if known == 0 || !(0..=READ_MAX).contains(&count) {
        return Ok(None);
    }
    let rows: Vec<ChangeRow> = query_as(SINCE).bind(known).bind(counter).fetch_all(tx).await?;
    if usize::try_from(count) != Ok(rows.len()) {
        return Ok(None);
    }
    let mut ids = BTreeSet::new();
    for row in &rows {
        let (Some(namespace), Some(function)) = (&row.namespace, &row.function) else { continue };
        let of = RowContext::new("registry_changes", function);
        ids.insert(FunctionId { namespace: of.parse(namespace)?, name: of.parse(function)? });
    }
    Ok(Some(ids))
}

#[cfg(test)]
mod tests {
    use hanshu_core::Namespace;
    use sqlx::query_scalar;

    use super::*;
    use crate::SqlDatabase;

    /// Logs one change on top of this many.
    async fn after(changes: i64) -> SqlDatabase {
        let db = SqlDatabase::open("sqlite::memory:").await.unwrap();
        let set = "UPDATE counters SET value = $1 WHERE name = 'registry'";
        query(set).bind(changes).execute(db.writer()).await.unwrap();
        let name = "hello".parse().unwrap();
        let id = FunctionId { namespace: Namespace::default(), name };
        let mut tx = db.begin().await.unwrap();
        log_change(&mut tx, Some(&id)).await.unwrap();
        tx.commit().await.unwrap();
        db
    }

    async fn changes_since(db: &SqlDatabase, known: i64) -> RegistryChanges {
        let mut tx = db.begin_snapshot().await.unwrap();
        since(&mut tx, known).await.unwrap()
    }

    #[tokio::test]
    async fn a_gap_in_the_log_is_answered_with_everything() {
        let db = after(100).await;
        assert!(matches!(
            changes_since(&db, 100).await,
            RegistryChanges::Some { counter: 101, .. }
        ));
        // As after an older program's change, which advances the counter and logs nothing.
        assert!(matches!(changes_since(&db, 99).await, RegistryChanges::All(_)));
    }

    #[tokio::test]
    async fn the_log_keeps_the_newest_changes() {
        let db = after(KEPT_MAX).await;
        let mut tx = db.begin().await.unwrap();
        for _ in 0..3 {
            log_change(&mut tx, None).await.unwrap();
        }
        let insert = "INSERT INTO registry_changes (counter) VALUES (3), (4), (5)";
        query(insert).execute(&mut *tx).await.unwrap();
        log_change(&mut tx, None).await.unwrap();
        tx.commit().await.unwrap();
        let all = "SELECT counter FROM registry_changes ORDER BY counter";
        let kept: Vec<i64> = query_scalar(all).fetch_all(db.reader()).await.unwrap();
        assert_eq!(kept, [1, 2, 3, 4, 5].map(|n| KEPT_MAX + n), "5 was the 10,000th from the end");
    }
}
