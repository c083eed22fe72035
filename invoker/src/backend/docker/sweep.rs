//! Removes what carries this node's label and is nobody's: what a killed server left, and what
//! could not be removed while the engine was away.

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptions, ListNetworksOptions, RemoveContainerOptions,
};
use futures_util::StreamExt as _;
use futures_util::stream;

use super::{EngineError, Shared, spec};

/// Containers removed at once.
const AT_ONCE: usize = 4;

/// Removes strays; returns how many there were.
pub(super) async fn containers(docker: &Docker, shared: &Shared) -> Result<u32, EngineError> {
    let options = ListContainersOptions {
        all: true,
        filters: Some(spec::filter(&shared.options.node)),
        ..Default::default()
    };
    let listed = docker.list_containers(Some(options));
    let found = shared.engine.ask("list containers", listed).await?;
    let strays: Vec<_> = {
        let live = shared.live();
        let is_live = |name: &String| live.contains(name.trim_start_matches('/'));
        let strays = found.into_iter().filter(|one| !one.names.iter().flatten().any(is_live));
        strays.filter_map(|one| one.id).collect()
    };
    let count = u32::try_from(strays.len()).unwrap_or(u32::MAX);
    let mut removals = stream::iter(strays)
        .map(|id| async move {
            let options = RemoveContainerOptions { force: true, v: true, link: false };
            let removed = docker.remove_container(&id, Some(options));
            shared.engine.ask("remove a container", removed).await
        })
        .buffer_unordered(AT_ONCE);
    while let Some(removed) = removals.next().await {
        match removed {
            Ok(()) | Err(EngineError::NotFound { .. }) => {}
            Err(away @ EngineError::Away { .. }) => return Err(away),
            Err(error @ EngineError::Failed { .. }) => {
                tracing::warn!(%error, "Could not remove a container that was left behind");
            }
        }
    }
    Ok(count)
}

/// Removes this node's networks that no container uses.
pub(super) async fn networks(docker: &Docker, shared: &Shared) -> Result<(), EngineError> {
    let options = ListNetworksOptions { filters: Some(spec::filter(&shared.options.node)) };
    let listed = docker.list_networks(Some(options));
    for network in shared.engine.ask("list networks", listed).await? {
        let Some(id) = network.id else { continue };
        match shared.engine.ask("remove a network", docker.remove_network(&id)).await {
            Ok(()) | Err(EngineError::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, "Could not remove a network"),
        }
    }
    Ok(())
}
