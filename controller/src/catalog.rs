//! What is live, in memory, kept fresh by the registry's counter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use hanshu_core::ports::{Catalog, CatalogError, FunctionEntry, Registry, StoreError};
use hanshu_core::{Digest, FunctionId, FunctionName, Namespace, Qualifier, Revision, Trigger};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often the counter is asked for: a change made by another node is seen this late at most.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Replaced revisions that are kept in memory for events that name them.
const PINNED_MAX: usize = 1_024;

/// Everything that is live at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The registry's counter.
    pub counter: i64,
    functions: HashMap<Namespace, HashMap<FunctionName, Arc<Live>>>,
    /// All triggers of all functions, enabled or not.
    pub triggers: Vec<Trigger>,
}

/// One function in the snapshot.
#[derive(Debug)]
struct Live {
    entry: FunctionEntry,
    latest: Option<Arc<Revision>>,
    versions: HashMap<u32, Arc<Revision>>,
}

/// The catalog: answers from memory, and reconciles with the registry.
pub struct CachedCatalog {
    registry: Arc<dyn Registry>,
    now: ArcSwap<Snapshot>,
    changed: watch::Sender<Arc<Snapshot>>,
    pinned: Mutex<HashMap<(FunctionId, Digest), Arc<Revision>>>,
    /// One refresh at a time: an older snapshot never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
}

impl Snapshot {
    fn new(counter: i64, entries: Vec<FunctionEntry>) -> Self {
        let mut functions: HashMap<Namespace, HashMap<FunctionName, Arc<Live>>> = HashMap::new();
        let mut triggers = Vec::new();
        for entry in entries {
            let Some((first, _)) = entry.revisions.first() else { continue };
            let id = first.function.clone();
            triggers.extend(entry.triggers.iter().cloned());
            let live = Arc::new(Live::new(entry));
            functions.entry(id.namespace).or_default().insert(id.name, live);
        }
        Self { counter, functions, triggers }
    }

    /// One function with everything that belongs to it.
    pub fn function(&self, id: &FunctionId) -> Option<&FunctionEntry> {
        self.functions.get(&id.namespace)?.get(&id.name).map(|live| &live.entry)
    }

    /// All functions of a namespace, ordered by name; of all namespaces without one.
    pub fn list(&self, namespace: Option<&Namespace>) -> Vec<&FunctionEntry> {
        let mut all: Vec<_> = self
            .functions
            .iter()
            .filter(|(each, _)| namespace.is_none_or(|wanted| wanted == *each))
            .flat_map(|(namespace, functions)| {
                functions.iter().map(move |(name, live)| ((namespace, name), &live.entry))
            })
            .collect();
        all.sort_by_key(|(key, _)| *key);
        all.into_iter().map(|(_, entry)| entry).collect()
    }

    /// The packages of every live revision.
    pub fn packages(&self) -> Vec<Digest> {
        let all = self.functions.values().flat_map(HashMap::values);
        let revisions = all.flat_map(|live| &live.entry.revisions);
        let codes: std::collections::BTreeSet<_> =
            revisions.map(|(revision, _)| revision.code.clone()).collect();
        codes.into_iter().collect()
    }

    /// Every live revision of every function.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Revision>> {
        let all = self.functions.values().flat_map(HashMap::values);
        all.flat_map(|live| live.latest.iter().chain(live.versions.values()))
    }

    /// Digests of every live revision of every function: pools of others are retired.
    pub fn revisions(&self) -> HashMap<FunctionId, Vec<Digest>> {
        let all = self.functions.values().flat_map(HashMap::values);
        all.filter_map(|live| {
            let (first, _) = live.entry.revisions.first()?;
            let digests = live.entry.revisions.iter().map(|(each, _)| each.digest.clone());
            Some((first.function.clone(), digests.collect()))
        })
        .collect()
    }
}

impl Live {
    fn new(entry: FunctionEntry) -> Self {
        let mut latest = None;
        let mut versions = HashMap::new();
        for (revision, _) in &entry.revisions {
            let shared = Arc::new(revision.clone());
            match revision.version {
                Qualifier::Latest => latest = Some(shared),
                Qualifier::Version(number) => drop(versions.insert(number, shared)),
            }
        }
        Self { entry, latest, versions }
    }
}

impl CachedCatalog {
    /// An empty catalog: [`CachedCatalog::refresh`] fills it.
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self {
            registry,
            now: ArcSwap::default(),
            changed: watch::Sender::new(Arc::default()),
            pinned: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    /// What is live now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.now.load_full()
    }

    /// Tells of every new snapshot. A reader that was slow sees the newest only.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.changed.subscribe()
    }

    /// Reads the registry anew if its counter has moved.
    ///
    /// # Errors
    /// The registry is away; what was known stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _one = self.refreshing.lock().await;
        let known = self.now.load().counter;
        if known != 0 && self.registry.counter().await? == known {
            return Ok(());
        }
        let read = self.registry.snapshot().await?;
        let snapshot = Arc::new(Snapshot::new(read.counter, read.functions));
        self.now.store(snapshot.clone());
        self.changed.send_replace(snapshot);
        Ok(())
    }

    /// Keeps refreshing until `stop`. A registry that is away is asked again at every interval.
    pub async fn run(&self, stop: CancellationToken) {
        let mut away = false;
        while stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
            match self.refresh().await {
                Ok(()) => away = false,
                Err(error) if !away => {
                    away = true;
                    warn!(%error, "Could not refresh the catalog; what is known stays in use");
                }
                Err(_) => {}
            }
        }
    }

    fn live(&self, id: &FunctionId) -> Option<Arc<Live>> {
        self.now.load().functions.get(&id.namespace)?.get(&id.name).cloned()
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
impl Catalog for CachedCatalog {
    fn resolve(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
        qualifier: Qualifier,
    ) -> Result<Arc<Revision>, CatalogError> {
        let now = self.now.load();
        let id = || FunctionId { namespace: namespace.clone(), name: name.clone() };
        let live = now.functions.get(namespace).and_then(|functions| functions.get(name));
        let live = live.ok_or_else(|| CatalogError::NoFunction(id()))?;
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
