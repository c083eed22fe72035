//! Removes what carries this node's label and is nobody's: what a killed server left, and what
//! could not be removed while the engine was away, or gave up half-way. What is left is tried again
//! until it is gone, in a task of its own.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptions, ListNetworksOptions, RemoveContainerOptions,
};
use futures_util::StreamExt as _;
use futures_util::stream;
use hanshu_core::NodeId;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::engine::{DockerEngine, EngineError};
use super::labels;

/// Containers removed at once.
const AT_ONCE: usize = 4;

/// Before the next try at what is left: the first, and the longest pause.
const AGAIN_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What came of a look for strays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SweepResult {
    /// How many there were.
    pub(super) found: u32,
    /// How many of them could not be removed.
    pub(super) left: u32,
}

/// Removes what is nobody's; where something is left, again and again, one task at a time.
#[derive(Debug)]
pub(super) struct ContainerSweeper {
    engine: Arc<DockerEngine>,
    node: NodeId,
    /// Names of the containers that are somebody's. All others of this node are strays.
    live: Mutex<HashSet<String>>,
    tasks: TaskTracker,
    closing: CancellationToken,
    /// How often a sweep was asked for since the last one that left nothing.
    wanted: AtomicU32,
}

impl ContainerSweeper {
    pub(super) fn new(engine: Arc<DockerEngine>, node: NodeId, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            engine,
            node,
            live: Mutex::default(),
            tasks,
            closing: CancellationToken::new(),
            wanted: AtomicU32::new(0),
        })
    }

    /// No more tries.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Names of the containers that are somebody's.
    pub(super) fn live(&self) -> MutexGuard<'_, HashSet<String>> {
        // A panic elsewhere leaves a set that is still true.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is left, or may be: it is looked for soon, and until it is gone.
    pub(super) fn again(self: &Arc<Self>) {
        if 0 < self.wanted.fetch_add(1, Ordering::AcqRel) {
            return;
        }
        let (sweeping, closing) = (until_clean(Arc::downgrade(self)), self.closing.clone());
        self.tasks.spawn(async move { closing.run_until_cancelled(sweeping).await });
    }

    /// Tries to remove every stray, once.
    ///
    /// # Errors
    /// The engine is away.
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
            let strays = found.into_iter().filter(|one| !one.names.iter().flatten().any(is_live));
            strays.filter_map(|one| one.id).collect()
        };
        let found = u32::try_from(strays.len()).unwrap_or(u32::MAX);
        let mut left = 0;
        let mut removals = stream::iter(strays)
            .map(|id| async move {
                let options = RemoveContainerOptions { force: true, v: true, link: false };
                let removed = docker.remove_container(&id, Some(options));
                self.engine.ask("remove a container", removed).await
            })
            .buffer_unordered(AT_ONCE);
        while let Some(removed) = removals.next().await {
            match removed {
                Ok(()) | Err(EngineError::NotFound { .. }) => {}
                Err(away @ EngineError::Away { .. }) => return Err(away),
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
    let mut pause = AGAIN_PAUSE.0;
    loop {
        sleep(pause).await;
        let Some(sweeper) = sweeper.upgrade() else { return };
        let seen = sweeper.wanted.load(Ordering::Acquire);
        let swept = match sweeper.engine.client().await {
            Ok((docker, _)) => sweeper.containers(&docker).await,
            Err(error) => Err(error),
        };
        let clean = matches!(swept, Ok(SweepResult { left: 0, .. }));
        // Whoever asked meanwhile may have asked for what this look has not seen.
        let asked = &sweeper.wanted;
        if clean && asked.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return;
        }
        pause = (pause * 2).min(AGAIN_PAUSE.1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::time::Instant;

    use super::super::fake_engine::{ScriptedEngine, VERSION};
    use super::*;

    /// What the engine has, and how often it refuses to remove it.
    struct BusyEngine {
        container: AtomicBool,
        refusals: Mutex<u32>,
    }

    fn sweeper(stubborn: &Arc<BusyEngine>) -> (Arc<ContainerSweeper>, ScriptedEngine) {
        let its = Arc::clone(stubborn);
        let fake = ScriptedEngine::new(move |method, path| match (method, path) {
            (_, "/version") => Some((200, VERSION.to_owned())),
            ("GET", "/containers/json") if its.container.load(Ordering::Relaxed) => {
                Some((200, r#"[{"Id":"one","Names":["/hanshu-one"],"State":"dead"}]"#.to_owned()))
            }
            ("DELETE", "/containers/one") => {
                let mut refusals = its.refusals.lock().unwrap();
                if 0 < *refusals {
                    *refusals -= 1;
                    return Some((500, r#"{"message":"device or resource busy"}"#.to_owned()));
                }
                its.container.store(false, Ordering::Relaxed);
                Some((204, String::new()))
            }
            _ => Some((200, "[]".to_owned())),
        });
        let tasks = TaskTracker::new();
        let engine = DockerEngine::new(Some(&fake.address), tasks.clone());
        (ContainerSweeper::new(engine, NodeId::new(), tasks), fake)
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_engine_does_not_remove_is_tried_again_until_it_is_gone() {
        let stubborn =
            Arc::new(BusyEngine { container: AtomicBool::new(true), refusals: Mutex::new(4) });
        let (sweeper, _fake) = sweeper(&stubborn);
        let (docker, _) = sweeper.engine.client().await.unwrap();
        let swept = sweeper.containers(&docker).await.unwrap();
        assert_eq!(swept, SweepResult { found: 1, left: 1 });
        let begun = Instant::now();
        sweeper.again();
        sweeper.again();
        sweeper.tasks.close();
        sweeper.tasks.wait().await;
        assert!(!stubborn.container.load(Ordering::Relaxed));
        // 1 + 2 + 4 + 8 seconds: one task, however many ask.
        assert_eq!(begun.elapsed().as_secs(), 15);
        assert_eq!(sweeper.wanted.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_somebodys_is_left_alone() {
        let stubborn =
            Arc::new(BusyEngine { container: AtomicBool::new(true), refusals: Mutex::new(0) });
        let (sweeper, _fake) = sweeper(&stubborn);
        sweeper.live().insert("hanshu-one".to_owned());
        let (docker, _) = sweeper.engine.client().await.unwrap();
        let swept = sweeper.containers(&docker).await.unwrap();
        assert_eq!(swept, SweepResult { found: 0, left: 0 });
        assert!(stubborn.container.load(Ordering::Relaxed));
    }
}
