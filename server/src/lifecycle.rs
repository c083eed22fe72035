//! Stopping in two halves: first no new work, then, after a grace, no work at all.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// The tokens that everything heeds, and the tasks that everything is.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    /// Cancelled first. Listeners, timers and queue claims heed it.
    pub(crate) intake: CancellationToken,
    /// Cancelled when the grace is over. Invocations and sandboxes heed it.
    pub(crate) work: CancellationToken,
    /// Cancelled when a task ended that must not: the server stops with an error.
    pub(crate) broken: CancellationToken,
    tasks: TaskTracker,
    general: Handle,
}

impl Lifecycle {
    /// Nothing runs yet; tasks will run on `general`.
    pub(crate) fn new(general: Handle) -> Self {
        Self {
            intake: CancellationToken::new(),
            work: CancellationToken::new(),
            broken: CancellationToken::new(),
            tasks: TaskTracker::new(),
            general,
        }
    }

    /// Runs a task for as long as the server takes work. If it ends before, the server stops.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let (intake, broken) = (self.intake.clone(), self.broken.clone());
        let watched = async move {
            task.await;
            if !intake.is_cancelled() {
                error!(task = name, "A task ended that must not; the server stops");
                broken.cancel();
            }
        };
        // A panic drops `watched` half-way: the guard tells.
        let guard = self.broken.clone().drop_guard();
        self.tasks.spawn_on(
            async move {
                watched.await;
                guard.disarm();
            },
            &self.general,
        );
    }

    /// Waits for the tasks to end, at most `grace`; then cancels what is left.
    pub(crate) async fn wind_down(&self, grace: Duration) -> bool {
        self.intake.cancel();
        self.tasks.close();
        let drained = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        self.work.cancel();
        drained
    }
}
