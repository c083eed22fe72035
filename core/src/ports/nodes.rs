//! Which invokers there are, known by a lease.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::registry::StoreError;
use crate::id::NodeId;

/// An invoker that takes invocations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokerNode {
    /// The node's id, which is kept in its data folder.
    pub id: NodeId,
    /// `http://host:port` of its internal listener.
    pub url: String,
    /// MiB it may use for sandboxes.
    pub memory_mb: u64,
}

/// Keeps invokers' leases.
#[async_trait]
pub trait NodeRegistry: Send + Sync {
    /// Adds the node, or renews its lease for `lease` from now (the store's clock).
    ///
    /// # Errors
    /// The store cannot be reached.
    async fn renew(&self, node: &InvokerNode, lease: Duration) -> Result<(), StoreError>;

    /// Ends a node's lease at once.
    ///
    /// # Errors
    /// The store cannot be reached.
    async fn leave(&self, id: &NodeId) -> Result<(), StoreError>;

    /// The nodes whose leases run, ordered by id.
    ///
    /// # Errors
    /// The store cannot be reached.
    async fn live(&self) -> Result<Vec<InvokerNode>, StoreError>;
}
