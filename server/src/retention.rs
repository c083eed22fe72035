//! Periodic removal of what is old: ended events, records and logs, replaced revisions, packages,
//! images. Each process removes packages that it fetched and images that it built; the rest is
//! done by the controller role.

use std::sync::Arc;
use std::time::Duration;

use hanshu_controller::Controller;
use hanshu_core::ports::{
    EventQueue, HistoryBounds, ImageBuilder, InvocationHistory, InvocationJournal, PackageStore,
};
use hanshu_core::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Pause between two rounds.
const INTERVAL: Duration = Duration::from_secs(60);
/// A replaced revision is kept at least so long, and for as long as an event that has not ended
/// names it. The time is for events that are about to be accepted: a gateway whose catalog is
/// behind accepts them for a revision that was replaced already.
const REVISION_AGE_MIN: Duration = Duration::from_secs(3_600);

/// Removes old data of the whole installation, round after round.
pub(crate) struct RetentionJob {
    pub(crate) controller: Controller,
    pub(crate) queue: Arc<dyn EventQueue>,
    pub(crate) journal: Arc<dyn InvocationJournal>,
    pub(crate) history: Arc<dyn InvocationHistory>,
    pub(crate) history_bounds: HistoryBounds,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long an ended event keeps its state and result.
    pub(crate) keep_results: Duration,
}

impl RetentionJob {
    pub(crate) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            self.round(self.clock.now()).await;
        }
    }

    /// One that fails does not keep the others from being done.
    async fn round(&self, now: Timestamp) {
        match self.queue.collect(now - self.keep_results).await {
            Ok(0) => {}
            Ok(events) => info!(events, "Ended events were dropped"),
            Err(error) => warn!(%error, "Could not drop ended events"),
        }
        if let Err(error) = self.journal.collect(now).await {
            warn!(%error, "Could not drop old records and logs");
        }
        match self.history.collect(&self.history_bounds, now).await {
            Ok(0) => {}
            Ok(events) => info!(events, "Events were dropped from the history"),
            Err(error) => warn!(%error, "Could not drop events from the history"),
        }
        match self.controller.collect(&*self.queue, now - REVISION_AGE_MIN).await {
            Ok(0) => {}
            Ok(packages) => info!(packages, "Packages that nothing names were removed"),
            Err(error) => warn!(%error, "Could not remove old packages"),
        }
    }
}

/// Removes packages that were fetched from the controller and that no live revision names. One that
/// a queued event still needs is fetched again.
pub(crate) struct FetchedPackageCleanup {
    pub(crate) controller: Controller,
    pub(crate) packages: Arc<dyn PackageStore>,
}

impl FetchedPackageCleanup {
    pub(crate) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            let keep = self.controller.catalog().snapshot().packages();
            if let Err(error) = self.packages.collect(&keep).await {
                warn!(%error, "Could not remove fetched packages");
            }
        }
    }
}

/// Pause between two rounds over images, whose recipes change only with the program.
const IMAGES_INTERVAL: Duration = Duration::from_secs(3_600);
/// Pause before the first round, to leave the start undisturbed.
const IMAGES_FIRST: Duration = Duration::from_secs(60);

/// Removes images that an earlier version of the program built.
pub(crate) async fn remove_old_images(images: Arc<dyn ImageBuilder>, stop: CancellationToken) {
    let mut pause = IMAGES_FIRST;
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = IMAGES_INTERVAL;
        match images.collect().await {
            Ok(0) => {}
            Ok(images) => info!(images, "Images of an earlier program were removed"),
            Err(error) => warn!(%error, "Could not remove old images"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use hanshu_controller::{AccessKeys, MasterKey};
    use hanshu_core::ports::{
        BuildProgress, EventEnd, FunctionRegistry as _, ImageError, NewDeployment, NewEvent,
        PackageError,
    };
    use hanshu_core::{
        AsyncPolicy, Digest, Event, FunctionConfig, FunctionId, ManualClock, Origin, Qualifier,
        RequestId, RuntimeFamily,
    };
    use hanshu_store::{
        SqlDatabase, SqlHistory, SqlJournal, SqlJournalOptions, SqlQueue, SqlRegistry,
    };
    use tokio_util::task::TaskTracker;

    use super::*;

    const LONG: Duration = Duration::from_secs(24 * 3_600);

    /// Notes which packages are kept.
    #[derive(Default)]
    struct FakePackages(Mutex<Vec<Digest>>);

    #[async_trait]
    impl PackageStore for FakePackages {
        async fn has(&self, _: &Digest) -> bool {
            true
        }

        async fn put(&self, _: &Digest, _: Bytes) -> Result<(), PackageError> {
            Ok(())
        }

        async fn zip(&self, digest: &Digest) -> Result<Bytes, PackageError> {
            Err(PackageError::Missing(digest.clone()))
        }

        async fn folder(&self, digest: &Digest) -> Result<PathBuf, PackageError> {
            Err(PackageError::Missing(digest.clone()))
        }

        async fn collect(&self, keep: &[Digest]) -> Result<u64, PackageError> {
            *self.0.lock().unwrap() = keep.to_vec();
            Ok(0)
        }
    }

    struct NoImages;

    #[async_trait]
    impl ImageBuilder for NoImages {
        async fn ensure(&self, _: RuntimeFamily, _: BuildProgress<'_>) -> Result<(), ImageError> {
            Ok(())
        }
    }

    fn function() -> FunctionId {
        FunctionId { namespace: "default".parse().unwrap(), name: "hello".parse().unwrap() }
    }

    /// A revision whose package has the next digest.
    fn deployment(revision: u8, now: Timestamp) -> NewDeployment {
        NewDeployment {
            function: function(),
            config: FunctionConfig {
                runtime: "python".parse().unwrap(),
                handler: "index.main_handler".into(),
                memory_mb: 128,
                timeout: Duration::from_secs(3),
                init_timeout: Duration::from_secs(65),
                concurrency: None,
                network: None,
                async_policy: AsyncPolicy::default(),
                env: std::collections::BTreeMap::new(),
            },
            code: digest(revision + 1),
            revision: digest(revision),
            triggers: Vec::new(),
            now,
        }
    }

    fn digest(number: u8) -> Digest {
        Digest::from_bytes([number; 32])
    }

    struct TestRetention {
        registry: SqlRegistry,
        queue: SqlQueue,
        queue_database: SqlDatabase,
        packages: Arc<FakePackages>,
        clock: Arc<ManualClock>,
        job: RetentionJob,
    }

    impl TestRetention {
        async fn new() -> Self {
            let (database, queue_database) = (memory().await, memory().await);
            let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH + LONG));
            let registry = SqlRegistry::new(database.clone());
            let queue = SqlQueue::start(queue_database.clone(), clock.clone(), &TaskTracker::new());
            let packages = Arc::new(FakePackages::default());
            let controller = Controller::new(
                Arc::new(registry.clone()),
                packages.clone(),
                Arc::new(NoImages),
                Arc::new(AccessKeys::new(MasterKey::generate())),
                clock.clone(),
            );
            let job = RetentionJob {
                controller,
                queue: Arc::new(queue.clone()),
                journal: Arc::new(
                    SqlJournal::new(database.clone(), SqlJournalOptions::default()).0,
                ),
                history: Arc::new(SqlHistory::new(database)),
                history_bounds: HistoryBounds::default(),
                clock: clock.clone(),
                keep_results: LONG,
            };
            Self { registry, queue, queue_database, packages, clock, job }
        }

        async fn deploy(&self, revision: u8) {
            self.registry.deploy(deployment(revision, self.clock.now())).await.unwrap();
        }

        async fn push(&self, revision: u8) {
            let now = self.clock.now();
            let event = NewEvent {
                request_id: RequestId::new(),
                queue: "default/hello".parse().unwrap(),
                version: Qualifier::Latest,
                revision: digest(revision),
                event: Event { origin: Origin::Direct, payload: Bytes::from_static(b"1") },
                accepted_at: now,
                expires_at: now + 4 * LONG,
                max_waiting: 10,
                tick: None,
                rerun_of: None,
            };
            self.queue.push(event).await.unwrap();
        }

        async fn end_one(&self) {
            let source = self.queue.source(&"default/hello".parse().unwrap());
            let claims = source.claim(1, LONG, &hanshu_core::NodeId::new()).await.unwrap();
            source.end(&claims[0].receipt, None, EventEnd::Expired(None)).await.unwrap();
        }

        /// Which of the first nine revisions are stored after a round, and which packages it kept.
        async fn after_round(&self, passed: Duration) -> (Vec<u8>, Vec<Digest>) {
            self.clock.advance(passed);
            self.job.round(self.clock.now()).await;
            let mut stored = Vec::new();
            for number in 1..10 {
                let found = self.registry.revision(&function(), &digest(number)).await.unwrap();
                stored.extend(found.map(|_| number));
            }
            let mut packages = self.packages.0.lock().unwrap().clone();
            packages.sort();
            (stored, packages)
        }
    }

    async fn memory() -> SqlDatabase {
        SqlDatabase::open("sqlite::memory:").await.unwrap()
    }

    #[tokio::test]
    async fn a_replaced_revision_is_kept_while_an_event_names_it() {
        let test = TestRetention::new().await;
        test.deploy(1).await;
        test.push(1).await;
        test.deploy(3).await;
        let both = (vec![1, 3], vec![digest(2), digest(4)]);
        assert_eq!(test.after_round(2 * LONG).await, both, "the event waits");
        test.end_one().await;
        assert_eq!(test.after_round(Duration::ZERO).await, (vec![3], vec![digest(4)]));
    }

    #[tokio::test]
    async fn a_replaced_revision_is_kept_for_an_hour_in_any_case() {
        let test = TestRetention::new().await;
        test.deploy(1).await;
        test.deploy(3).await;
        assert_eq!(test.after_round(Duration::from_secs(3_599)).await.0, [1, 3]);
        assert_eq!(test.after_round(Duration::from_secs(2)).await.0, [3]);
    }

    #[tokio::test]
    async fn nothing_is_forgotten_while_the_queue_cannot_be_asked() {
        let test = TestRetention::new().await;
        test.deploy(1).await;
        test.deploy(3).await;
        test.queue_database.close().await;
        assert_eq!(test.after_round(2 * LONG).await, (vec![1, 3], vec![]));
    }
}
