//! Where everything slow runs: tasks on the general runtime, counted so that stopping can wait.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// The node's background tasks. Invocations do not run here but where `invoke` is called.
#[derive(Clone, Debug)]
pub(crate) struct BackgroundTasks {
    tracker: TaskTracker,
    runtime: Handle,
}

impl BackgroundTasks {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { tracker: TaskTracker::new(), runtime }
    }

    /// Runs a task that [`BackgroundTasks::ended`] waits for.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn_on(task, &self.runtime)
    }

    /// Runs a task that lasts as long as its handle and that nobody waits for.
    pub(crate) fn spawn_uncounted<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(task)
    }

    /// From here on [`BackgroundTasks::ended`] returns once no task is left.
    pub(crate) fn close(&self) {
        self.tracker.close();
    }

    /// Waits until no task is left.
    pub(crate) async fn ended(&self) {
        self.tracker.wait().await;
    }
}
