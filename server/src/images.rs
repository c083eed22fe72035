//! Runtime images on an invoker that joins a cluster: deploys before it was there made none here.
//!
//! With all roles in one process a deploy has always passed through it, and nothing is made at the
//! start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hanshu_controller::{Controller, Snapshot};
use hanshu_core::RuntimeFamily;
use hanshu_core::ports::ImageBuilder;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A mirror that is away is not asked more often.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Makes the images that live functions need and this node's engine lacks.
pub(crate) struct JoinImages {
    pub(crate) controller: Controller,
    pub(crate) images: Arc<dyn ImageBuilder>,
}

impl JoinImages {
    /// In the background, one after the other, until `stop`. A call meanwhile is told so.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut snapshots = self.controller.catalog().watch();
        let mut there = BTreeSet::new();
        loop {
            let needed = families(&snapshots.borrow_and_update());
            let lacking: Vec<_> = needed.difference(&there).copied().collect();
            let mut failed = false;
            for family in lacking {
                let Some(made) = stop.run_until_cancelled(self.ensure(family)).await else {
                    return;
                };
                match made {
                    true => there.extend([family]),
                    false => failed = true,
                }
            }
            let next = async {
                let changed = snapshots.changed();
                match failed {
                    true => drop(tokio::time::timeout(TRY_AGAIN, changed).await),
                    false => drop(changed.await),
                }
            };
            if stop.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }

    async fn ensure(&self, family: RuntimeFamily) -> bool {
        let told = |line: &str| match line.starts_with("building ") {
            true => info!(family = family.as_str(), "A function needs an image: {line}"),
            false => debug!(family = family.as_str(), "{line}"),
        };
        match self.images.ensure(family, &told).await {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, family = family.as_str(), "Could not make a runtime's image");
                false
            }
        }
    }
}

/// What functions of the catalog run in, older versions of them included.
fn families(snapshot: &Snapshot) -> BTreeSet<RuntimeFamily> {
    snapshot.live().map(|revision| revision.config.runtime.family()).collect()
}
