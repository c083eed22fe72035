//! Builds runtime images that an invoker lacks when it joins a cluster: deploys before that built
//! none on its node. With all roles in one process every deploy has built its image there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hanshu_controller::{CatalogSnapshot, Controller};
use hanshu_core::RuntimeFamily;
use hanshu_core::ports::ImageBuilder;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Pause after a failure, for instance while a package mirror is down.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// Builds the images that live functions need and this node's engine lacks.
pub(crate) struct MissingImageBuilder {
    pub(crate) controller: Controller,
    pub(crate) images: Arc<dyn ImageBuilder>,
}

impl MissingImageBuilder {
    /// Builds one image after the other until `stop` is cancelled. Calls that need an image that is
    /// not there yet are refused with that reason.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut snapshots = self.controller.catalog().watch();
        let mut present = BTreeSet::new();
        loop {
            let needed = families(&snapshots.borrow_and_update());
            let missing: Vec<_> = needed.difference(&present).copied().collect();
            let mut failed = false;
            for family in missing {
                let Some(built) = stop.run_until_cancelled(self.ensure(family)).await else {
                    return;
                };
                match built {
                    true => present.extend([family]),
                    false => failed = true,
                }
            }
            let next = async {
                let changed = snapshots.changed();
                match failed {
                    true => drop(tokio::time::timeout(RETRY_PAUSE, changed).await),
                    false => drop(changed.await),
                }
            };
            if stop.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }

    async fn ensure(&self, family: RuntimeFamily) -> bool {
        let log_progress = |line: &str| match line.starts_with("building ") {
            true => info!(family = family.as_str(), "A function needs an image: {line}"),
            false => debug!(family = family.as_str(), "{line}"),
        };
        match self.images.ensure(family, &log_progress).await {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, family = family.as_str(), "Could not build a runtime's image");
                false
            }
        }
    }
}

/// The runtime families of all functions in the catalog and their live older versions.
fn families(snapshot: &CatalogSnapshot) -> BTreeSet<RuntimeFamily> {
    snapshot.live().map(|revision| revision.config.runtime.family()).collect()
}
