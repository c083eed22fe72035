//! Periodic removal of what is old: ended events, records and logs, replaced revisions, packages,
//! images. Each process removes packages that it fetched and images that it built; the rest is
//! done by the controller role.

use std::sync::Arc;
use std::time::Duration;

use hanshu_controller::Controller;
use hanshu_core::ports::{
    EventQueue, HistoryBounds, ImageBuilder, InvocationHistory, InvocationJournal, PackageStore,
};
use hanshu_core::{ASYNC_AGE_MAX, Clock, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Pause between two rounds.
const INTERVAL: Duration = Duration::from_secs(60);
/// A replaced revision is kept this long beyond the longest life of an event that may name it.
const REVISION_MARGIN: Duration = Duration::from_secs(3_600);

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
        match self.controller.collect(now - (ASYNC_AGE_MAX + REVISION_MARGIN)).await {
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
