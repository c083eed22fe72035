//! The registry on SQL: each method is one transaction, which advances the counter if it changed
//! anything and is rolled back if not.

mod access_keys;
mod changes;
mod counter;
mod functions;
mod revisions;
mod snapshot;
mod triggers;

use async_trait::async_trait;
use hanshu_core::ports::{
    AccessKey, DeployResult, FunctionRegistry, NewDeployment, RegistryChanges, ReplacedRevision,
    StoreError,
};
use hanshu_core::{Digest, FunctionConfig, FunctionId, Revision, Timestamp, TriggerId};
use sqlx::{Any, Transaction, query_scalar};

use crate::sql::database::SqlDatabase;
use crate::sql::error::DatabaseError;

const PING: &str = "SELECT 1";

/// Every statement of the registry.
pub(super) fn statements() -> Vec<&'static str> {
    let tables = [
        access_keys::STATEMENTS,
        changes::STATEMENTS,
        counter::STATEMENTS,
        functions::STATEMENTS,
        revisions::STATEMENTS,
        snapshot::STATEMENTS,
        triggers::STATEMENTS,
        &[PING],
    ];
    tables.concat()
}

/// Functions, versions, triggers and access keys in a database.
#[derive(Clone, Debug)]
pub struct SqlRegistry {
    db: SqlDatabase,
}

impl SqlRegistry {
    /// The registry of that database.
    pub fn new(db: SqlDatabase) -> Self {
        Self { db }
    }

    /// Begins a change; `None` if it is about no function.
    async fn change(
        &self,
        function: Option<&FunctionId>,
    ) -> Result<Transaction<'static, Any>, DatabaseError> {
        let mut tx = self.db.begin().await?;
        changes::log_change(&mut tx, function).await?;
        Ok(tx)
    }
}

async fn commit(tx: Transaction<'static, Any>) -> Result<(), DatabaseError> {
    Ok(tx.commit().await?)
}

async fn roll_back(tx: Transaction<'static, Any>) -> Result<(), DatabaseError> {
    Ok(tx.rollback().await?)
}

#[async_trait]
impl FunctionRegistry for SqlRegistry {
    async fn deploy(&self, deployment: NewDeployment) -> Result<DeployResult, StoreError> {
        self.db
            .within(async {
                let mut tx = self.change(Some(&deployment.function)).await?;
                let changed = functions::point_latest(&mut tx, &deployment).await?;
                let wanted = &deployment.triggers;
                let diff = triggers::replace(&mut tx, &deployment.function, wanted).await?;
                match changed || diff.changed {
                    true => commit(tx).await?,
                    false => roll_back(tx).await?,
                }
                let (triggers, removed) = (diff.triggers, diff.removed);
                Ok(DeployResult { changed, triggers, removed })
            })
            .await
    }

    async fn publish(&self, function: &FunctionId, now: Timestamp) -> Result<Revision, StoreError> {
        self.db
            .within(async {
                let mut tx = self.change(Some(function)).await?;
                let published = functions::publish(&mut tx, function, now).await?;
                match published.is_new {
                    true => commit(tx).await?,
                    false => roll_back(tx).await?,
                }
                Ok(published.revision)
            })
            .await
    }

    async fn delete(&self, function: &FunctionId) -> Result<(), StoreError> {
        self.db
            .within(async {
                let mut tx = self.change(Some(function)).await?;
                triggers::delete_all(&mut tx, function).await?;
                if !functions::delete(&mut tx, function).await? {
                    return Err(functions::no_function(function));
                }
                Ok(commit(tx).await?)
            })
            .await
    }

    async fn enable(&self, trigger: &TriggerId, enabled: bool) -> Result<(), StoreError> {
        self.db
            .within(async {
                let mut tx = self.change(Some(&trigger.function)).await?;
                if !triggers::enable(&mut tx, trigger, enabled).await? {
                    return Err(StoreError::NotFound(format!(
                        "trigger `{trigger}` does not exist"
                    )));
                }
                Ok(commit(tx).await?)
            })
            .await
    }

    async fn changes(&self, since: i64) -> Result<RegistryChanges, StoreError> {
        self.db
            .within(async {
                let mut tx = self.db.begin_snapshot().await?;
                let changes = changes::since(&mut tx, since).await?;
                commit(tx).await?;
                Ok(changes)
            })
            .await
    }

    async fn revision(
        &self,
        function: &FunctionId,
        digest: &Digest,
    ) -> Result<Option<(FunctionConfig, Digest)>, StoreError> {
        self.db
            .within(async {
                let mut connection =
                    self.db.reader().acquire().await.map_err(DatabaseError::from)?;
                Ok(revisions::select(&mut connection, function, digest).await?)
            })
            .await
    }

    async fn replaced(&self, before: Timestamp) -> Result<Vec<ReplacedRevision>, StoreError> {
        self.db
            .within(async {
                let mut connection =
                    self.db.reader().acquire().await.map_err(DatabaseError::from)?;
                Ok(revisions::replaced(&mut connection, before).await?)
            })
            .await
    }

    async fn forget(
        &self,
        revisions: &[ReplacedRevision],
        before: Timestamp,
    ) -> Result<(), StoreError> {
        self.db
            .within(async {
                let mut tx = self.db.begin().await?;
                revisions::forget(&mut tx, revisions, before).await?;
                Ok(commit(tx).await?)
            })
            .await
    }

    async fn packages(&self) -> Result<Vec<Digest>, StoreError> {
        self.db
            .within(async {
                let mut connection =
                    self.db.reader().acquire().await.map_err(DatabaseError::from)?;
                Ok(revisions::packages(&mut connection).await?)
            })
            .await
    }

    async fn add_key(&self, key: AccessKey) -> Result<(), StoreError> {
        self.db
            .within(async {
                let mut tx = self.change(None).await?;
                access_keys::add(&mut tx, &key).await?;
                Ok(commit(tx).await?)
            })
            .await
    }

    async fn keys(&self) -> Result<Vec<AccessKey>, StoreError> {
        self.db
            .within(async {
                let mut connection =
                    self.db.reader().acquire().await.map_err(DatabaseError::from)?;
                Ok(access_keys::all(&mut connection).await?)
            })
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.db
            .within(async {
                let answer = query_scalar::<_, i32>(PING).fetch_one(self.db.reader()).await;
                answer.map(|_| ()).map_err(|error| DatabaseError::from(error).into())
            })
            .await
    }
}
