//! Invokers' leases on SQL, by the database's clock.

use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::NodeId;
use hanshu_core::ports::{InvokerNode, NodeRegistry, StoreError};
use sqlx::{AnyConnection, query, query_as, query_scalar};

use super::database::SqlDatabase;
use super::error::DatabaseError;
use super::row::RowContext;

const RENEW: &str = "
INSERT INTO nodes (id, url, memory_mb, lease_until) VALUES ($1, $2, $3, $4)
ON CONFLICT (id)
DO UPDATE SET url = excluded.url, memory_mb = excluded.memory_mb,
  lease_until = excluded.lease_until";

const LEAVE: &str = "
DELETE FROM nodes WHERE id = $1";

const FORGET: &str = "
DELETE FROM nodes WHERE lease_until < $1";

const LIVE: &str = "
SELECT id, url, memory_mb FROM nodes WHERE lease_until > $1";

pub(super) const STATEMENTS: &[&str] = &[RENEW, LEAVE, FORGET, LIVE];

/// A lease that ran out so long ago is forgotten.
const KEPT_US: i64 = 24 * 3600 * 1_000_000;

row! {
    #[derive(Debug)]
    struct NodeRow {
        id: String,
        url: String,
        memory_mb: i64,
    }
}

/// Invokers' leases in a database.
#[derive(Clone, Debug)]
pub struct SqlNodes {
    db: SqlDatabase,
}

impl SqlNodes {
    /// The leases in that database.
    pub fn new(db: SqlDatabase) -> Self {
        Self { db }
    }

    async fn now(&self, tx: &mut AnyConnection) -> Result<i64, DatabaseError> {
        Ok(query_scalar(self.db.dialect().now()).fetch_one(tx).await?)
    }
}

#[async_trait]
impl NodeRegistry for SqlNodes {
    async fn renew(&self, node: &InvokerNode, lease: Duration) -> Result<(), StoreError> {
        let lease_us = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 2);
        let work = async {
            let mut tx = self.db.begin().await?;
            let now = self.now(&mut tx).await?;
            query(FORGET).bind(now.saturating_sub(KEPT_US)).execute(&mut *tx).await?;
            query(RENEW)
                .bind(node.id.as_str())
                .bind(&node.url)
                .bind(i64::try_from(node.memory_mb).unwrap_or(i64::MAX))
                .bind(now.saturating_add(lease_us))
                .execute(&mut *tx)
                .await?;
            Ok::<_, DatabaseError>(tx.commit().await?)
        };
        Ok(self.db.within(work).await?)
    }

    async fn leave(&self, id: &NodeId) -> Result<(), StoreError> {
        let work = async {
            query(LEAVE).bind(id.as_str()).execute(self.db.writer()).await?;
            Ok::<_, DatabaseError>(())
        };
        Ok(self.db.within(work).await?)
    }

    async fn live(&self) -> Result<Vec<InvokerNode>, StoreError> {
        let work = async {
            let mut connection = self.db.reader().acquire().await?;
            let now = self.now(&mut connection).await?;
            let rows: Vec<NodeRow> = query_as(LIVE).bind(now).fetch_all(&mut *connection).await?;
            let decoded = rows.into_iter().map(|NodeRow { id, url, memory_mb }| {
                let row = RowContext::new("nodes", &id);
                let memory_mb = row.number(memory_mb)?;
                Ok(InvokerNode { id: row.parse(&id)?, url, memory_mb })
            });
            let mut nodes = decoded.collect::<Result<Vec<_>, DatabaseError>>()?;
            // Not by the database: its collation may differ from ours.
            nodes.sort_by(|a, b| a.id.cmp(&b.id));
            Ok::<_, DatabaseError>(nodes)
        };
        Ok(self.db.within(work).await?)
    }
}
