//! The bridge that functions with a network are on: one for each node, without traffic between
//! its containers.

use std::collections::HashMap;
use std::fmt::Write as _;

use bollard::Docker;
use bollard::models::NetworkCreateRequest;
use hanshu_core::NodeId;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::engine::{DockerEngine, EngineError};
use super::firewall::HostFirewall;
use super::labels::LABEL;
use crate::backend::host::SandboxHost;

/// The bridge of a node.
#[derive(Debug)]
pub(super) struct FunctionNetwork {
    node: NodeId,
    name: String,
    interface: String,
    firewall: Result<HostFirewall, String>,
    /// Whether it is there, as far as we know. Held while it is made, so that it is made once.
    there: Mutex<bool>,
    tasks: TaskTracker,
}

impl FunctionNetwork {
    /// `host` is the engine's machine, or why it is out of reach.
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
            there: Mutex::new(false),
            tasks,
        }
    }

    /// Why no firewall rules keep functions from the host, if none do.
    pub(super) fn firewall_refused(&self) -> Option<String> {
        self.firewall.as_ref().err().cloned()
    }

    /// The network's name, when it is there.
    pub(super) async fn ensure(
        &self,
        engine: &DockerEngine,
        docker: &Docker,
    ) -> Result<&str, EngineError> {
        let mut there = self.there.lock().await;
        if *there {
            return Ok(&self.name);
        }
        let inspected = docker
            .inspect_network(&self.name, None::<bollard::query_parameters::InspectNetworkOptions>);
        match engine.ask("look at a network", inspected).await {
            Ok(_) => {}
            Err(EngineError::NotFound { .. }) => {
                engine.ask("create a network", docker.create_network(self.request())).await?;
            }
            Err(error) => return Err(error),
        }
        self.raise_firewall().await;
        *there = true;
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

    /// The next one who needs it looks whether it is there.
    pub(super) async fn forget(&self) {
        *self.there.lock().await = false;
    }

    async fn raise_firewall(&self) {
        let Ok(firewall) = self.firewall.clone() else { return };
        let raised = self.tasks.spawn_blocking(move || firewall.raise()).await;
        if let Ok(Err(error)) = raised {
            // Said, not fatal: the bridge's own rules hold.
            tracing::warn!(%error, "Could not keep functions from the host's services");
        }
    }

    /// Removes our firewall rules.
    pub(super) async fn clear_firewall(&self) {
        let Ok(firewall) = self.firewall.clone() else { return };
        self.forget().await;
        let _ = self.tasks.spawn_blocking(move || firewall.clear()).await;
    }
}

/// The kernel's bound is 15 characters, a node's id may have 40.
fn interface(node: &NodeId) -> String {
    let mut name = String::from("hanshu-");
    for byte in Sha256::digest(node.to_string()).iter().take(4) {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
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
