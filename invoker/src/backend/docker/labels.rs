//! The names and labels by which everything that a node made in an engine is found again.

use std::collections::HashMap;

use hanshu_core::{InstanceId, NodeId};

/// The label of everything that belongs to a node; its value is the node's id.
pub(super) const LABEL: &str = "hanshu";

/// The name of a sandbox's container.
pub(super) fn container_name(instance: InstanceId) -> String {
    format!("hanshu-{instance}")
}

/// A filter for what carries the node's label.
pub(super) fn of_node(node: &NodeId) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{LABEL}={node}")])])
}
