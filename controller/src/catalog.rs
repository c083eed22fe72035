//! What is live, in memory, kept fresh by the registry's counter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use hanshu_core::ports::{
    CatalogError, FunctionRegistry, RegistryChanges, RevisionCatalog, StoreError,
};
use hanshu_core::{Digest, FunctionId, FunctionName, Namespace, Qualifier, Revision};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::snapshot::{CatalogSnapshot, LiveFunction};

/// How often the counter is asked for: a change made by another node is seen this late at most.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Replaced revisions that are kept in memory for events that name them.
const PINNED_MAX: usize = 1_024;

/// The catalog: answers from memory, and reconciles with the registry.
pub struct CachedCatalog {
    registry: Arc<dyn FunctionRegistry>,
    now: ArcSwap<CatalogSnapshot>,
    changed: watch::Sender<Arc<CatalogSnapshot>>,
    pinned: Mutex<HashMap<(FunctionId, Digest), Arc<Revision>>>,
    /// One refresh at a time: an older snapshot never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
}

impl CachedCatalog {
    /// An empty catalog: [`CachedCatalog::refresh`] fills it.
    pub fn new(registry: Arc<dyn FunctionRegistry>) -> Self {
        Self {
            registry,
            now: ArcSwap::default(),
            changed: watch::Sender::new(Arc::default()),
            pinned: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    /// The functions, versions and triggers that are deployed now.
    pub fn snapshot(&self) -> Arc<CatalogSnapshot> {
        self.now.load_full()
    }

    /// Tells of every new snapshot. A reader that was slow sees the newest only.
    pub fn watch(&self) -> watch::Receiver<Arc<CatalogSnapshot>> {
        self.changed.subscribe()
    }

    /// Reads what has changed in the registry, if anything has.
    ///
    /// # Errors
    /// The registry is unavailable; the snapshot stays as it was.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _one = self.refreshing.lock().await;
        let known = self.now.load_full();
        let snapshot = match self.registry.changes(known.counter).await? {
            RegistryChanges::Unchanged => return Ok(()),
            RegistryChanges::Some { counter, functions } => known.with(counter, functions),
            // Nothing was ever deployed.
            RegistryChanges::All(read) if read.counter == 0 && known.counter == 0 => return Ok(()),
            RegistryChanges::All(read) => CatalogSnapshot::new(read),
        };
        let snapshot = Arc::new(snapshot);
        self.now.store(snapshot.clone());
        self.changed.send_replace(snapshot);
        Ok(())
    }

    /// Keeps refreshing until `stop`. An unavailable registry is asked again at every interval.
    pub async fn run(&self, stop: CancellationToken) {
        let mut unavailable = false;
        while stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
            match self.refresh().await {
                Ok(()) => unavailable = false,
                Err(error) if !unavailable => {
                    unavailable = true;
                    warn!(%error, "Could not refresh the catalog; what is known stays in use");
                }
                Err(_) => {}
            }
        }
    }

    fn live(&self, id: &FunctionId) -> Option<Arc<LiveFunction>> {
        self.now.load().find(&id.namespace, &id.name).cloned()
    }
}

impl std::fmt::Debug for CachedCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedCatalog")
            .field("counter", &self.now.load().counter)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RevisionCatalog for CachedCatalog {
    fn resolve(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
        qualifier: Qualifier,
    ) -> Result<Arc<Revision>, CatalogError> {
        let now = self.now.load();
        let id = || FunctionId { namespace: namespace.clone(), name: name.clone() };
        let live = now.find(namespace, name).ok_or_else(|| CatalogError::NoFunction(id()))?;
        let revision = match qualifier {
            Qualifier::Latest => live.latest.as_ref(),
            Qualifier::Version(number) => live.versions.get(&number),
        };
        revision.cloned().ok_or_else(|| CatalogError::NoVersion(id(), qualifier))
    }

    async fn pinned(
        &self,
        function: &FunctionId,
        version: Qualifier,
        digest: &Digest,
    ) -> Result<Arc<Revision>, CatalogError> {
        let gone = || CatalogError::NoFunction(function.clone());
        let mut live = self.live(function);
        if live.is_none() {
            self.refresh().await.map_err(|_| CatalogError::Unavailable)?;
            live = self.live(function);
        }
        let live = live.ok_or_else(gone)?;
        let all = live.latest.iter().chain(live.versions.values());
        if let Some(found) = all.into_iter().find(|r| r.version == version && r.digest == *digest) {
            return Ok(found.clone());
        }
        let key = (function.clone(), digest.clone());
        let known = {
            let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
            pinned.get(&key).cloned()
        };
        if let Some(found) = known.filter(|r| r.version == version) {
            return Ok(found);
        }
        let row = self.registry.revision(function, digest).await;
        let (config, code) = row.map_err(|_| CatalogError::Unavailable)?.ok_or_else(gone)?;
        let function = function.clone();
        let found = Arc::new(Revision { function, version, digest: digest.clone(), code, config });
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if PINNED_MAX <= pinned.len() {
            pinned.clear();
        }
        pinned.insert(key, found.clone());
        Ok(found)
    }
}
