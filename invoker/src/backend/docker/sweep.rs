//! Removes containers and networks that carry this node's label and belong to no sandbox: what a
//! killed server left, and what the engine could not remove when asked. What remains is tried again
//! in a task of its own until it is gone.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptions, ListNetworksOptions, RemoveContainerOptions,
};
use futures_util::StreamExt as _;
use futures_util::stream;
use hanshu_core::{Backoff, NodeId, lock};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::engine::{DockerEngine, EngineError};
use super::labels;

/// Containers removed concurrently.
const REMOVALS_MAX: usize = 4;

/// Before the next try at what remains.
const SWEEP_BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SweepResult {
    /// Containers of no sandbox.
    pub(super) found: u32,
    /// Those of them that could not be removed.
    pub(super) left: u32,
}

/// Removes what belongs to no sandbox; where something remains, again and again in one task.
#[derive(Debug)]
pub(super) struct ContainerSweeper {
    engine: Arc<DockerEngine>,
    node: NodeId,
    /// Names of the containers that belong to a sandbox.
    live: Mutex<HashSet<String>>,
    tasks: TaskTracker,
    closing: CancellationToken,
    /// Sweeps requested since the last one that left nothing.
    requested: AtomicU32,
}

impl ContainerSweeper {
    pub(super) fn new(engine: Arc<DockerEngine>, node: NodeId, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            engine,
            node,
            live: Mutex::default(),
            tasks,
            closing: CancellationToken::new(),
            requested: AtomicU32::new(0),
        })
    }

    /// Ends the task.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Names of the containers that belong to a sandbox. All others of this node are removed.
    pub(super) fn live(&self) -> MutexGuard<'_, HashSet<String>> {
        lock(&self.live)
    }

    /// Sweeps soon, and again until nothing remains.
    pub(super) fn again(self: &Arc<Self>) {
        if 0 < self.requested.fetch_add(1, Ordering::AcqRel) {
            return;
        }
        let (sweeping, closing) = (until_clean(Arc::downgrade(self)), self.closing.clone());
        self.tasks.spawn(async move { closing.run_until_cancelled(sweeping).await });
    }

    /// Tries once to remove every container that belongs to no sandbox.
    ///
    /// # Errors
    /// The engine is unavailable.
    pub(super) async fn containers(&self, docker: &Docker) -> Result<SweepResult, EngineError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(labels::of_node(&self.node)),
            ..Default::default()
        };
        let listed = docker.list_containers(Some(options));
        let found = self.engine.ask("list containers", listed).await?;
        let strays: Vec<_> = {
            let live = self.live();
            let is_live = |name: &String| live.contains(name.trim_start_matches('/'));
            let strays =
                found.into_iter().filter(|found| !found.names.iter().flatten().any(is_live));
            strays.filter_map(|found| found.id).collect()
        };
        let found = u32::try_from(strays.len()).unwrap_or(u32::MAX);
        let mut left = 0;
        let mut removals = stream::iter(strays)
            .map(|id| async move {
                let options = RemoveContainerOptions { force: true, v: true, link: false };
                let removed = docker.remove_container(&id, Some(options));
                self.engine.ask("remove a container", removed).await
            })
            .buffer_unordered(REMOVALS_MAX);
        while let Some(removed) = removals.next().await {
            match removed {
                Ok(()) | Err(EngineError::NotFound { .. }) => {}
                Err(error @ EngineError::Unavailable { .. }) => return Err(error),
                Err(error @ EngineError::Failed { .. }) => {
                    left += 1;
                    tracing::warn!(%error, "Could not remove a container that was left behind");
                }
            }
        }
        Ok(SweepResult { found, left })
    }

    /// Removes this node's networks that no container uses.
    pub(super) async fn networks(&self, docker: &Docker) -> Result<(), EngineError> {
        let options = ListNetworksOptions { filters: Some(labels::of_node(&self.node)) };
        let listed = docker.list_networks(Some(options));
        for network in self.engine.ask("list networks", listed).await? {
            let Some(id) = network.id else { continue };
            match self.engine.ask("remove a network", docker.remove_network(&id)).await {
                Ok(()) | Err(EngineError::NotFound { .. }) => {}
                Err(error) => tracing::warn!(%error, "Could not remove a network"),
            }
        }
        Ok(())
    }
}

async fn until_clean(sweeper: Weak<ContainerSweeper>) {
    for tries in 1.. {
        sleep(SWEEP_BACKOFF.delay(tries)).await;
        let Some(sweeper) = sweeper.upgrade() else { return };
        let seen = sweeper.requested.load(Ordering::Acquire);
        let swept = match sweeper.engine.client().await {
            Ok((docker, _)) => sweeper.containers(&docker).await,
            Err(error) => Err(error),
        };
        let clean = matches!(swept, Ok(SweepResult { left: 0, .. }));
        // A request that came meanwhile may be about a container that this sweep has not seen.
        let requested = &sweeper.requested;
        if clean && requested.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::time::Instant;

    use super::super::scripted_engine::{ScriptedEngine, VERSION};
    use super::*;

    /// An engine with one container that it refuses to remove some times.
    struct BusyEngine {
        container: AtomicBool,
        refusals: Mutex<u32>,
    }

    fn sweeper(busy: &Arc<BusyEngine>) -> (Arc<ContainerSweeper>, ScriptedEngine) {
        let engine = Arc::clone(busy);
        let scripted = ScriptedEngine::new(move |method, path| match (method, path) {
            (_, "/version") => Some((200, VERSION.to_owned())),
            ("GET", "/containers/json") if engine.container.load(Ordering::Relaxed) => {
                Some((200, r#"[{"Id":"one","Names":["/hanshu-one"],"State":"dead"}]"#.to_owned()))
            }
            ("DELETE", "/containers/one") => {
                let mut refusals = engine.refusals.lock().unwrap();
                if 0 < *refusals {
                    *refusals -= 1;
                    return Some((500, r#"{"message":"device or resource busy"}"#.to_owned()));
                }
                engine.container.store(false, Ordering::Relaxed);
                Some((204, String::new()))
            }
            _ => Some((200, "[]".to_owned())),
        });
        let tasks = TaskTracker::new();
        let engine = DockerEngine::new(Some(&scripted.address), tasks.clone());
        (ContainerSweeper::new(engine, NodeId::new(), tasks), scripted)
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_engine_does_not_remove_is_tried_again_until_it_is_gone() {
        let busy =
            Arc::new(BusyEngine { container: AtomicBool::new(true), refusals: Mutex::new(4) });
        let (sweeper, _scripted) = sweeper(&busy);
        let (docker, _) = sweeper.engine.client().await.unwrap();
        let swept = sweeper.containers(&docker).await.unwrap();
        assert_eq!(swept, SweepResult { found: 1, left: 1 });
        let begun = Instant::now();
        sweeper.again();
        sweeper.again();
        sweeper.tasks.close();
        sweeper.tasks.wait().await;
        assert!(!busy.container.load(Ordering::Relaxed));
        // 1 + 2 + 4 + 8 seconds: one task, however many ask.
        assert_eq!(begun.elapsed().as_secs(), 15);
        assert_eq!(sweeper.requested.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_of_a_sandbox_is_left_alone() {
        let busy =
            Arc::new(BusyEngine { container: AtomicBool::new(true), refusals: Mutex::new(0) });
        let (sweeper, _scripted) = sweeper(&busy);
        sweeper.live().insert("hanshu-one".to_owned());
        let (docker, _) = sweeper.engine.client().await.unwrap();
        let swept = sweeper.containers(&docker).await.unwrap();
        assert_eq!(swept, SweepResult { found: 0, left: 0 });
        assert!(busy.container.load(Ordering::Relaxed));
    }
}
