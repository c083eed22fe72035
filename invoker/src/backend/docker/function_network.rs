//! The network of functions that have one: a bridge for each node, without traffic between its
//! containers.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::NetworkCreateRequest;
use hanshu_core::{NodeId, hex};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::engine::{DockerEngine, EngineError};
use super::firewall::HostFirewall;
use super::labels::LABEL;
use crate::backend::host::SandboxHost;

/// The bridge network of a node.
#[derive(Debug)]
pub(super) struct FunctionNetwork {
    node: NodeId,
    name: String,
    interface: String,
    firewall: Result<HostFirewall, String>,
    /// Whether it is known to exist. Locked while it is made, so that it is made once.
    exists: Mutex<bool>,
    tasks: TaskTracker,
}

impl FunctionNetwork {
    /// `host` is the engine's machine, or why it cannot be reached.
    pub(super) fn new(node: &NodeId, host: Result<SandboxHost, &str>, tasks: TaskTracker) -> Self {
        let interface = interface(node);
        let firewall = match host {
            Ok(host) => HostFirewall::find(host, node, &interface),
            Err(reason) => Err(reason.to_owned()),
        };
        Self {
            node: node.clone(),
            name: format!("hanshu-{node}"),
            interface,
            firewall,
            exists: Mutex::new(false),
            tasks,
        }
    }

    /// Why no firewall rules keep functions from the host, if none do.
    pub(super) fn firewall_refused(&self) -> Option<String> {
        self.firewall.as_ref().err().cloned()
    }

    /// Makes the network where it does not exist, and returns its name.
    pub(super) async fn ensure(
        &self,
        engine: &DockerEngine,
        docker: &Docker,
    ) -> Result<&str, EngineError> {
        let mut exists = self.exists.lock().await;
        if *exists {
            return Ok(&self.name);
        }
        let inspected = docker
            .inspect_network(&self.name, None::<bollard::query_parameters::InspectNetworkOptions>);
        match engine.ask("inspect a network", inspected).await {
            Ok(_) => {}
            Err(EngineError::NotFound { .. }) => {
                engine.ask("create a network", docker.create_network(self.request())).await?;
            }
            Err(error) => return Err(error),
        }
        self.apply_firewall().await;
        *exists = true;
        Ok(&self.name)
    }

    fn request(&self) -> NetworkCreateRequest {
        let options = [
            ("com.docker.network.bridge.name", self.interface.as_str()),
            ("com.docker.network.bridge.enable_icc", "false"),
        ];
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        NetworkCreateRequest {
            name: self.name.clone(),
            driver: Some("bridge".into()),
            options: Some(options.map(owned).into()),
            labels: Some(HashMap::from([(LABEL.to_owned(), self.node.to_string())])),
            ..Default::default()
        }
    }

    /// Has the next start check again whether the network exists.
    pub(super) async fn forget(&self) {
        *self.exists.lock().await = false;
    }

    async fn apply_firewall(&self) {
        let Ok(firewall) = self.firewall.clone() else { return };
        let applied = self.tasks.spawn_blocking(move || firewall.apply()).await;
        if let Ok(Err(error)) = applied {
            // Not fatal: traffic between functions is still off.
            tracing::warn!(%error, "Could not keep functions from the host's services");
        }
    }

    /// Removes this node's firewall rules.
    pub(super) async fn clear_firewall(&self) {
        let Ok(firewall) = self.firewall.clone() else { return };
        self.forget().await;
        let _ = self.tasks.spawn_blocking(move || firewall.clear()).await;
    }
}

/// The interface's name: the kernel allows 15 characters, a node's id may have 40.
fn interface(node: &NodeId) -> String {
    let digest = hex(&Sha256::digest(node.to_string()));
    format!("hanshu-{}", digest.get(..8).unwrap_or(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_name_is_short_enough_for_the_kernel() {
        let node: NodeId = "a-very-long-node-id-of-forty-characters0".parse().unwrap();
        assert_eq!(interface(&node).len(), 15);
    }
}
