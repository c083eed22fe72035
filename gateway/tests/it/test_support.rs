//! Implementations of the ports behind the gateway, for tests.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::{
    AccessKey, BuildProgress, CancelOutcome, DeployResult, EndedEvent, EventQueue, EventSource,
    FunctionEntry, FunctionRegistry, FunctionRow, HistoryBounds, HistoryEntry, HistoryPage,
    HistoryQuery, ImageBuilder, ImageError, InvocationHistory, InvocationJournal, JournalError,
    LogCursor, LogPage, LogQuery, NewDeployment, NewEvent, PackageError, PackageStore, PushOutcome,
    QueueError, QueueName, QueueStats, ReadyQueues, RegistryChanges, RegistrySnapshot,
    ReplacedRevision, StoreError,
};
use hanshu_core::{
    AsyncState, Digest, FunctionConfig, FunctionId, InvocationRecord, InvocationState, LogBatch,
    Qualifier, RequestId, Revision, RuntimeFamily, Timestamp, TriggerId,
};
use tempfile::TempDir;

pub(crate) fn start() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

/// A registry in memory.
#[derive(Default)]
pub(crate) struct MemoryRegistry(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    counter: i64,
    functions: BTreeMap<FunctionId, FunctionEntry>,
    keys: Vec<AccessKey>,
}

fn missing(what: &impl ToString) -> StoreError {
    StoreError::NotFound(format!("`{}` does not exist", what.to_string()))
}

impl MemoryRegistry {
    pub(crate) fn counter(&self) -> i64 {
        self.0.lock().unwrap().counter
    }
}

#[async_trait]
impl FunctionRegistry for MemoryRegistry {
    async fn deploy(&self, wanted: NewDeployment) -> Result<DeployResult, StoreError> {
        let mut tables = self.0.lock().unwrap();
        tables.counter += 1;
        let NewDeployment { function, config, code, revision: digest, triggers, now } = wanted;
        let latest = Qualifier::Latest;
        let revision =
            Revision { function: function.clone(), version: latest, digest, code, config };
        let old = tables.functions.remove(&function);
        let changed = old.as_ref().is_none_or(|old| old.revisions[0].0.digest != revision.digest);
        let mut removed = vec![];
        let mut revisions = vec![(revision, now)];
        if let Some(old) = old {
            let gone = |id: &TriggerId| !triggers.iter().any(|trigger| trigger.id == *id);
            removed.extend(old.triggers.into_iter().map(|each| each.id).filter(gone));
            revisions.extend(old.revisions.into_iter().skip(1));
        }
        let row = FunctionRow { created_at: now, updated_at: now };
        let entry = FunctionEntry { row, revisions, triggers: triggers.clone() };
        tables.functions.insert(function, entry);
        Ok(DeployResult { changed, triggers, removed })
    }

    async fn publish(&self, id: &FunctionId, now: Timestamp) -> Result<Revision, StoreError> {
        let mut tables = self.0.lock().unwrap();
        tables.counter += 1;
        let entry = tables.functions.get_mut(id).ok_or_else(|| missing(id))?;
        let number = u32::try_from(entry.revisions.len()).unwrap();
        let revision = entry.revisions[0].0.as_version(Qualifier::Version(number));
        entry.revisions.push((revision.clone(), now));
        Ok(revision)
    }

    async fn delete(&self, id: &FunctionId) -> Result<(), StoreError> {
        let mut tables = self.0.lock().unwrap();
        tables.counter += 1;
        tables.functions.remove(id).map(|_| ()).ok_or_else(|| missing(id))
    }

    async fn enable(&self, id: &TriggerId, enabled: bool) -> Result<(), StoreError> {
        let mut tables = self.0.lock().unwrap();
        tables.counter += 1;
        let entry = tables.functions.get_mut(&id.function).ok_or_else(|| missing(id))?;
        let trigger = entry.triggers.iter_mut().find(|trigger| trigger.id == *id);
        trigger.ok_or_else(|| missing(id))?.enabled = enabled;
        Ok(())
    }

    async fn changes(&self, since: i64) -> Result<RegistryChanges, StoreError> {
        let tables = self.0.lock().unwrap();
        if since == tables.counter && since != 0 {
            return Ok(RegistryChanges::Unchanged);
        }
        let functions = tables.functions.values().cloned().collect();
        Ok(RegistryChanges::All(RegistrySnapshot { counter: tables.counter, functions }))
    }

    async fn revision(
        &self,
        _function: &FunctionId,
        _digest: &Digest,
    ) -> Result<Option<(FunctionConfig, Digest)>, StoreError> {
        Ok(None)
    }

    async fn replaced(&self, _before: Timestamp) -> Result<Vec<ReplacedRevision>, StoreError> {
        Ok(vec![])
    }

    async fn forget(&self, _: &[ReplacedRevision], _before: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    async fn packages(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(vec![])
    }

    async fn add_key(&self, key: AccessKey) -> Result<(), StoreError> {
        self.0.lock().unwrap().keys.push(key);
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<AccessKey>, StoreError> {
        Ok(self.0.lock().unwrap().keys.clone())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Packages in memory; each unpacks to a folder with `index.py`. A zip of `bad` is refused.
pub(crate) struct MemoryPackages {
    pub(crate) kept: Mutex<HashMap<Digest, Bytes>>,
    folder: TempDir,
}

impl MemoryPackages {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("index.py"), "").unwrap();
        Self { kept: Mutex::default(), folder }
    }
}

#[async_trait]
impl PackageStore for MemoryPackages {
    async fn has(&self, digest: &Digest) -> bool {
        self.kept.lock().unwrap().contains_key(digest)
    }

    async fn put(&self, digest: &Digest, zip: Bytes) -> Result<(), PackageError> {
        if zip == "bad" {
            return Err(PackageError::Refused("entry `../x` leaves the package".into()));
        }
        self.kept.lock().unwrap().insert(digest.clone(), zip);
        Ok(())
    }

    async fn zip(&self, digest: &Digest) -> Result<Bytes, PackageError> {
        let found = self.kept.lock().unwrap().get(digest).cloned();
        found.ok_or_else(|| PackageError::Missing(digest.clone()))
    }

    async fn folder(&self, digest: &Digest) -> Result<PathBuf, PackageError> {
        self.zip(digest).await.map(|_| self.folder.path().to_owned())
    }

    async fn collect(&self, _keep: &[Digest]) -> Result<u64, PackageError> {
        Ok(0)
    }
}

/// Images that take two lines; Go's cannot be made.
pub(crate) struct Images;

#[async_trait]
impl ImageBuilder for Images {
    async fn ensure(
        &self,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        progress("step 1 of 2");
        progress("step 2 of 2");
        if family == RuntimeFamily::GO {
            return Err(ImageError("debootstrap is missing".into()));
        }
        Ok(())
    }
}

/// A queue in memory that nobody works off: tests end its events.
#[derive(Default)]
pub(crate) struct MemoryQueue {
    pub(crate) states: Mutex<BTreeMap<RequestId, AsyncState>>,
    /// Makes the queue unavailable.
    pub(crate) away: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl EventQueue for MemoryQueue {
    async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError> {
        if self.away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(QueueError::Unavailable("connection refused".into()));
        }
        let mut states = self.states.lock().unwrap();
        if event.max_waiting as usize <= states.len() {
            return Err(QueueError::Full { queue: event.queue, waiting: states.len() as u64 });
        }
        let state = AsyncState {
            request_id: event.request_id,
            function: event.queue.function,
            version: event.version,
            trigger: event.queue.trigger,
            called_by: event.event.origin.caller().cloned(),
            state: InvocationState::Queued,
            attempts: vec![],
            accepted_at: event.accepted_at,
            ended_at: None,
            result: None,
            error: None,
            rerun_of: event.rerun_of,
        };
        states.insert(event.request_id, state);
        Ok(PushOutcome::Accepted)
    }

    async fn ready(&self, _max: usize) -> Result<ReadyQueues, QueueError> {
        Ok(ReadyQueues::default())
    }

    async fn changed(&self, at_most: Duration) {
        tokio::time::sleep(at_most).await;
    }

    fn source(&self, queue: &QueueName) -> Arc<dyn EventSource> {
        panic!("nobody claims from {queue} here")
    }

    async fn state(&self, request_id: RequestId) -> Result<Option<AsyncState>, QueueError> {
        Ok(self.states.lock().unwrap().get(&request_id).cloned())
    }

    async fn cancel(&self, request_id: RequestId) -> Result<CancelOutcome, QueueError> {
        let mut states = self.states.lock().unwrap();
        let Some(state) = states.get_mut(&request_id) else { return Ok(CancelOutcome::Unknown) };
        match state.state {
            ended if ended.has_ended() => return Ok(CancelOutcome::Ended(ended)),
            InvocationState::Running => return Ok(CancelOutcome::Requested),
            _ => state.state = InvocationState::Cancelled,
        }
        Ok(CancelOutcome::Cancelled)
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        let states = self.states.lock().unwrap();
        let stats = states.values().map(|state| QueueStats {
            queue: QueueName { function: state.function.clone(), trigger: state.trigger.clone() },
            waiting: 1,
            running: 0,
            oldest: Some(state.accepted_at - Duration::from_secs(90)),
            dead_lettered: 0,
        });
        Ok(stats.collect())
    }

    async fn collect(&self, _ended_before: Timestamp) -> Result<u64, QueueError> {
        Ok(0)
    }

    async fn pinned(&self) -> Result<Vec<Digest>, QueueError> {
        Ok(vec![])
    }

    async fn durability_warnings(&self) -> Vec<String> {
        vec![]
    }
}

/// A journal whose records are seen only after a flush.
#[derive(Default)]
pub(crate) struct MemoryJournal {
    pub(crate) handed_over: Mutex<Vec<InvocationRecord>>,
    written: Mutex<Vec<InvocationRecord>>,
    pub(crate) asked: Mutex<Vec<LogQuery>>,
    pub(crate) page: Mutex<Option<LogPage>>,
}

#[async_trait]
impl InvocationJournal for MemoryJournal {
    fn record(&self, record: InvocationRecord) {
        self.handed_over.lock().unwrap().push(record);
    }

    fn log(&self, _batch: LogBatch) {}

    async fn flush(&self) -> Result<(), JournalError> {
        self.written.lock().unwrap().append(&mut self.handed_over.lock().unwrap());
        Ok(())
    }

    async fn find(&self, request_id: RequestId) -> Result<Vec<InvocationRecord>, JournalError> {
        let written = self.written.lock().unwrap();
        Ok(written.iter().filter(|record| record.request_id == request_id).cloned().collect())
    }

    async fn read(&self, query: &LogQuery) -> Result<LogPage, JournalError> {
        self.asked.lock().unwrap().push(query.clone());
        let page = self.page.lock().unwrap().clone();
        Ok(page.unwrap_or(LogPage { lines: vec![], next: LogCursor("0".into()) }))
    }

    async fn collect(&self, _now: Timestamp) -> Result<u64, JournalError> {
        Ok(0)
    }
}

/// A history that has what a test put there.
#[derive(Debug, Default)]
pub(crate) struct FixedHistory {
    pub(crate) entries: Mutex<Vec<(HistoryEntry, Option<Bytes>)>>,
    /// What was asked for last.
    pub(crate) asked: Mutex<Option<HistoryQuery>>,
}

#[async_trait]
impl InvocationHistory for FixedHistory {
    async fn record(&self, _events: &[EndedEvent]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn page(&self, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        *self.asked.lock().unwrap() = Some(query.clone());
        let entries = self.entries.lock().unwrap();
        let events = entries.iter().map(|(entry, _)| entry.state.clone()).collect();
        Ok(HistoryPage { events, next: query.after, searched_to: None })
    }

    async fn find(&self, request_id: RequestId) -> Result<Option<HistoryEntry>, StoreError> {
        let entries = self.entries.lock().unwrap();
        let found = entries.iter().find(|(entry, _)| entry.state.request_id == request_id);
        Ok(found.map(|(entry, _)| entry.clone()))
    }

    async fn input(&self, request_id: RequestId) -> Result<Option<Bytes>, StoreError> {
        let entries = self.entries.lock().unwrap();
        let found = entries.iter().find(|(entry, _)| entry.state.request_id == request_id);
        Ok(found.and_then(|(_, input)| input.clone()))
    }

    async fn collect(&self, _bounds: &HistoryBounds, _now: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}
