//! The current triggers, published by the server from the controller's catalog. A watched state,
//! not a stream of changes: a missed wake-up costs nothing, since readers compare states.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::TriggerSet;
use tokio::sync::watch;

use crate::http::route::RouteTable;

/// The writing end: one per process.
#[derive(Debug)]
pub struct TriggersFeed(watch::Sender<WatchedTriggers>);

/// The reading end. Reading neither waits nor allocates.
#[derive(Clone, Debug)]
pub struct TriggersView(watch::Receiver<WatchedTriggers>);

#[derive(Clone, Debug, Default)]
struct WatchedTriggers {
    triggers: TriggerSet,
    routes: Arc<RouteTable>,
}

impl TriggersFeed {
    /// Starts with no triggers.
    pub fn new() -> (Self, TriggersView) {
        let (sender, receiver) = watch::channel(WatchedTriggers::default());
        (Self(sender), TriggersView(receiver))
    }

    /// Replaces all triggers, including disabled ones. Compiles the routes that changed; wakes
    /// the readers only if something did.
    pub fn replace(&self, triggers: impl Into<TriggerSet>) {
        let (before, triggers) = (self.0.borrow().clone(), triggers.into());
        let changed = triggers.changed_since(&before.triggers);
        if changed.is_empty() {
            return;
        }
        let routes = before.routes.with(&changed).map_or(before.routes, Arc::new);
        self.0.send_replace(WatchedTriggers { triggers, routes });
    }
}

impl TriggersView {
    /// All current triggers, including disabled ones.
    pub fn triggers(&self) -> TriggerSet {
        self.0.borrow().triggers.clone()
    }

    /// The routes of the enabled HTTP triggers.
    pub fn routes(&self) -> Arc<RouteTable> {
        self.0.borrow().routes.clone()
    }

    /// All current triggers; [`Self::changed`] then waits for the next change after these.
    pub(crate) fn take(&mut self) -> TriggerSet {
        self.0.borrow_and_update().triggers.clone()
    }

    /// Returns at the next change, and after `at_most` in any case (also when the feed is gone).
    pub(crate) async fn changed(&mut self, at_most: Duration) {
        if let Ok(Err(_)) = tokio::time::timeout(at_most, self.0.changed()).await {
            tokio::time::sleep(at_most).await;
        }
    }
}
