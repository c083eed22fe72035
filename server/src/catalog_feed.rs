//! Feeds every new snapshot of the catalog to the triggers and to the invoker's pools.

use std::sync::Arc;
use std::time::Duration;

use hanshu_controller::CachedCatalog;
use hanshu_invoker::Invoker;
use hanshu_triggers::{TriggersFeed, TriggersView};
use tokio::time::Instant;

use crate::lifecycle::ServerLifecycle;

/// Pause between two full passes over the catalog. A change itself visits only the functions that
/// it is about.
const FULL_PASS_INTERVAL: Duration = Duration::from_secs(5);

/// Starts the task; returns the view of the triggers that it keeps up to date.
pub(crate) fn start(
    catalog: &CachedCatalog,
    invoker: Option<Arc<Invoker>>,
    lifecycle: &ServerLifecycle,
) -> TriggersView {
    let (feed, view) = TriggersFeed::new();
    let mut snapshots = catalog.watch();
    let stop = lifecycle.stop_intake.clone();
    feed.replace(snapshots.borrow_and_update().triggers.clone());
    lifecycle.spawn("catalog feed", async move {
        let mut previous = Arc::default();
        let mut last_full_pass = Instant::now();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            feed.replace(snapshot.triggers.clone());
            let full_pass = FULL_PASS_INTERVAL <= last_full_pass.elapsed();
            if let Some(invoker) = &invoker {
                let retire = |(function, keep): (&_, &[_])| invoker.retire(function, keep);
                snapshot.revisions_since(&previous).for_each(retire);
                // A queued event of a replaced revision makes a pool that must be retired again.
                if full_pass {
                    snapshot.revisions().for_each(retire);
                }
                invoker.expect(snapshot.live());
            }
            if full_pass {
                last_full_pass = Instant::now();
            }
            previous = snapshot;
            let next =
                tokio::time::timeout_at(last_full_pass + FULL_PASS_INTERVAL, snapshots.changed());
            if stop.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    });
    view
}
