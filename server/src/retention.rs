//! What is old is dropped: ended events, records and logs, replaced revisions, packages. Every
//! process drops packages that it only fetched; the rest is the controller role's.

use std::sync::Arc;
use std::time::Duration;

use hanshu_controller::Controller;
use hanshu_core::ports::{EventQueue, ImageBuilder, InvocationJournal, PackageStore};
use hanshu_core::{ASYNC_AGE_MAX, Clock, Timestamp};
use metrics::{Unit, describe_gauge, gauge};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between rounds.
const INTERVAL: Duration = Duration::from_secs(60);
/// A replaced revision is kept this long beyond the longest life of an event that may name it.
const REVISION_MARGIN: Duration = Duration::from_secs(3_600);

/// Collects, round after round.
pub(crate) struct Retention {
    pub(crate) controller: Controller,
    pub(crate) queue: Arc<dyn EventQueue>,
    pub(crate) journal: Arc<dyn InvocationJournal>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long an ended event keeps its state and result.
    pub(crate) keep_results: Duration,
}

impl Retention {
    pub(crate) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            self.round(self.clock.now()).await;
        }
    }

    /// Each part on its own: one that fails does not keep the others from it.
    async fn round(&self, now: Timestamp) {
        match self.queue.collect(now - self.keep_results).await {
            Ok(0) => {}
            Ok(events) => info!(events, "Ended events were dropped"),
            Err(error) => warn!(%error, "Could not drop ended events"),
        }
        if let Err(error) = self.journal.collect(now).await {
            warn!(%error, "Could not drop old records and logs");
        }
        match self.controller.collect(now - (ASYNC_AGE_MAX + REVISION_MARGIN)).await {
            Ok(0) => {}
            Ok(packages) => info!(packages, "Packages that nothing names were removed"),
            Err(error) => warn!(%error, "Could not remove old packages"),
        }
    }
}

/// Drops packages that were fetched from the controller and that nothing live names. One that an
/// event still needs is fetched again.
pub(crate) struct FetchedPackages {
    pub(crate) controller: Controller,
    pub(crate) packages: Arc<dyn PackageStore>,
}

impl FetchedPackages {
    pub(crate) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            let keep = self.controller.catalog().snapshot().packages();
            if let Err(error) = self.packages.collect(&keep).await {
                warn!(%error, "Could not remove fetched packages");
            }
        }
    }
}

/// Between two looks at images; a recipe changes with the program only.
const IMAGES_INTERVAL: Duration = Duration::from_secs(3_600);
/// The first look, when the start is over.
const IMAGES_FIRST: Duration = Duration::from_secs(60);

/// Removes images that an earlier program made.
pub(crate) async fn drop_images(images: Arc<dyn ImageBuilder>, stop: CancellationToken) {
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

/// Between two looks at the queues for the metrics.
const DEPTHS_INTERVAL: Duration = Duration::from_secs(5);
const WAITING: &str = "hanshu_queue_waiting";
const RUNNING: &str = "hanshu_queue_running";

/// Keeps the queues' depths in the metrics: all queues together, since names are unbounded.
pub(crate) async fn show_depths(queue: Arc<dyn EventQueue>, stop: CancellationToken) {
    describe_gauge!(WAITING, Unit::Count, "Events that wait, in all queues together");
    describe_gauge!(RUNNING, Unit::Count, "Events that are held by a dispatcher");
    while stop.run_until_cancelled(tokio::time::sleep(DEPTHS_INTERVAL)).await.is_some() {
        let Ok(queues) = queue.stats().await else { continue };
        let sum = |depth: fn(&hanshu_core::ports::QueueStats) -> u64| {
            u32::try_from(queues.iter().map(depth).sum::<u64>()).unwrap_or(u32::MAX)
        };
        gauge!(WAITING).set(sum(|queue| queue.waiting));
        gauge!(RUNNING).set(sum(|queue| queue.running));
    }
}
