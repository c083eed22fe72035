//! The server's tasks, and stopping them in two phases: first no new work is taken, then, after a
//! grace period, running work is cancelled.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// The cancellation tokens of both phases, and the tracker of all tasks.
#[derive(Clone, Debug)]
pub(crate) struct ServerLifecycle {
    /// Cancelled first: listeners, timers and dispatchers take no new work.
    pub(crate) stop_intake: CancellationToken,
    /// Cancelled when the grace period is over: running invocations stop.
    pub(crate) stop_work: CancellationToken,
    /// Cancelled when a task ended that must run until the stop: the server stops with an error.
    pub(crate) task_failed: CancellationToken,
    /// All tasks: stopping waits for them.
    pub(crate) tasks: TaskTracker,
    general: Handle,
}

impl ServerLifecycle {
    /// Tasks will run on `general`.
    pub(crate) fn new(general: Handle) -> Self {
        Self {
            stop_intake: CancellationToken::new(),
            stop_work: CancellationToken::new(),
            task_failed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            general,
        }
    }

    /// Runs a task until `stop_intake` is cancelled. If it ends before, the server stops.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let (stop_intake, task_failed) = (self.stop_intake.clone(), self.task_failed.clone());
        let watched = async move {
            task.await;
            if !stop_intake.is_cancelled() {
                error!(task = name, "A task ended that must not; the server stops");
                task_failed.cancel();
            }
        };
        // A panic drops `watched` before it ends; then the guard cancels the token.
        let guard = self.task_failed.clone().drop_guard();
        self.tasks.spawn_on(
            async move {
                watched.await;
                guard.disarm();
            },
            &self.general,
        );
    }

    /// Stops taking work, waits at most `grace` for the tasks to end, then cancels what still runs.
    /// `true` if all tasks had ended.
    pub(crate) async fn drain(&self, grace: Duration) -> bool {
        self.stop_intake.cancel();
        self.tasks.close();
        let drained = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        self.stop_work.cancel();
        drained
    }
}
