//! A registry in memory with fixed functions, which stores only access keys.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use hanshu_core::ports::{
    AccessKey, DeployResult, FunctionEntry, FunctionRegistry, FunctionRow, NewDeployment,
    RegistryChanges, RegistrySnapshot, ReplacedRevision, StoreError,
};
use hanshu_core::{
    AsyncPolicy, Digest, FunctionConfig, FunctionId, FunctionName, Namespace, Qualifier, Revision,
    Timestamp, TriggerId,
};

#[derive(Debug, Default)]
pub(crate) struct FixedRegistry {
    functions: Vec<FunctionEntry>,
    keys: Mutex<Vec<AccessKey>>,
}

impl FixedRegistry {
    /// Functions with these names.
    pub(crate) fn functions(names: &[FunctionName]) -> anyhow::Result<Self> {
        let functions = names.iter().map(entry).collect::<anyhow::Result<_>>()?;
        Ok(Self { functions, ..Self::default() })
    }
}

fn entry(name: &FunctionName) -> anyhow::Result<FunctionEntry> {
    let revision = Revision {
        function: FunctionId { namespace: Namespace::default(), name: name.clone() },
        version: Qualifier::Latest,
        digest: Digest::from_bytes([7; 32]),
        code: Digest::from_bytes([8; 32]),
        config: FunctionConfig {
            runtime: "python".parse()?,
            handler: "index.main_handler".to_owned(),
            memory_mb: 128,
            timeout: std::time::Duration::from_secs(3),
            init_timeout: std::time::Duration::from_secs(10),
            concurrency: None,
            network: None,
            async_policy: AsyncPolicy::default(),
            env: BTreeMap::new(),
        },
    };
    let at = Timestamp::UNIX_EPOCH;
    Ok(FunctionEntry {
        row: FunctionRow { created_at: at, updated_at: at },
        revisions: vec![(revision, at)],
        triggers: Vec::new(),
    })
}

fn not_kept<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("nothing is deployed while instructions are counted".into()))
}

#[async_trait]
impl FunctionRegistry for FixedRegistry {
    async fn deploy(&self, _: NewDeployment) -> Result<DeployResult, StoreError> {
        not_kept()
    }

    async fn publish(&self, _: &FunctionId, _: Timestamp) -> Result<Revision, StoreError> {
        not_kept()
    }

    async fn delete(&self, _: &FunctionId) -> Result<(), StoreError> {
        not_kept()
    }

    async fn enable(&self, _: &TriggerId, _: bool) -> Result<(), StoreError> {
        not_kept()
    }

    async fn changes(&self, since: i64) -> Result<RegistryChanges, StoreError> {
        let all = RegistrySnapshot { counter: 1, functions: self.functions.clone() };
        Ok(if since == 1 { RegistryChanges::Unchanged } else { RegistryChanges::All(all) })
    }

    async fn revision(
        &self,
        _: &FunctionId,
        _: &Digest,
    ) -> Result<Option<(FunctionConfig, Digest)>, StoreError> {
        not_kept()
    }

    async fn replaced(&self, _: Timestamp) -> Result<Vec<ReplacedRevision>, StoreError> {
        not_kept()
    }

    async fn forget(&self, _: &[ReplacedRevision], _: Timestamp) -> Result<(), StoreError> {
        not_kept()
    }

    async fn packages(&self) -> Result<Vec<Digest>, StoreError> {
        not_kept()
    }

    async fn add_key(&self, key: AccessKey) -> Result<(), StoreError> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<AccessKey>, StoreError> {
        Ok(self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
