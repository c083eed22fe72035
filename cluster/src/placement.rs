//! Which node an invocation goes to: pure.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use hanshu_core::ports::InvokerNode;
use hanshu_core::{Digest, FunctionId, NodeId, Revision};

/// A node whose connection failed is asked last for this long.
const LEFT_OUT: Duration = Duration::from_secs(5);
/// Sandboxes that were not used for this long are assumed to have been removed.
const WARM_KEPT: Duration = Duration::from_secs(300);

/// What we know of the nodes from our own calls.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    nodes: HashMap<NodeId, NodeLoad>,
    warm: HashMap<Digest, HashMap<NodeId, WarmRevision>>,
}

#[derive(Debug, Default)]
struct NodeLoad {
    in_flight: usize,
    left_out_until: Option<Instant>,
}

/// One revision on one node.
#[derive(Debug)]
struct WarmRevision {
    in_flight: usize,
    /// So many ran at once: about so many sandboxes are there.
    peak: usize,
    seen: Instant,
}

impl Placement {
    /// The nodes to ask, best first.
    ///
    /// A function with a limit always goes to the same node, so that the node's own count is the
    /// cluster's. Any other goes where a sandbox of it is likely to be idle, else where the fewest
    /// of our calls are.
    pub(crate) fn order<'a>(
        &self,
        now: Instant,
        live: &'a [InvokerNode],
        revision: &Revision,
    ) -> Vec<&'a InvokerNode> {
        let mut nodes: Vec<_> = live.iter().collect();
        if revision.config.concurrency.is_some() {
            nodes.sort_by_cached_key(|node| {
                let weight = rendezvous(&revision.function, &node.id);
                (self.is_left_out(now, &node.id), Reverse(weight), node.id.clone())
            });
        } else {
            nodes.sort_by_cached_key(|node| {
                let load = self.nodes.get(&node.id).map_or(0, |load| load.in_flight);
                let cold = !self.has_idle(&revision.digest, &node.id);
                (self.is_left_out(now, &node.id), cold, load, node.id.clone())
            });
        }
        nodes
    }

    /// Notes that a call is sent to a node.
    pub(crate) fn begin(&mut self, now: Instant, node: &NodeId, revision: &Digest) {
        self.nodes.entry(node.clone()).or_default().in_flight += 1;
        let nodes = self.warm.entry(revision.clone()).or_default();
        let new = WarmRevision { in_flight: 0, peak: 0, seen: now };
        let warm = nodes.entry(node.clone()).or_insert(new);
        warm.in_flight += 1;
        warm.peak = warm.peak.max(warm.in_flight);
        warm.seen = now;
    }

    /// A call came back, or was given up.
    pub(crate) fn end(&mut self, now: Instant, node: &NodeId, revision: &Digest) {
        if let Some(load) = self.nodes.get_mut(node) {
            load.in_flight = load.in_flight.saturating_sub(1);
        }
        let warm = self.warm.get_mut(revision).and_then(|nodes| nodes.get_mut(node));
        if let Some(warm) = warm {
            warm.in_flight = warm.in_flight.saturating_sub(1);
            warm.seen = now;
        }
    }

    /// The node could not be reached, or takes no work.
    pub(crate) fn leave_out(&mut self, now: Instant, node: &NodeId) {
        self.nodes.entry(node.clone()).or_default().left_out_until = Some(now + LEFT_OUT);
        for nodes in self.warm.values_mut() {
            if let Some(warm) = nodes.get_mut(node) {
                warm.peak = 0;
            }
        }
    }

    /// Removes nodes without a lease, and sandboxes that are assumed to have been removed.
    pub(crate) fn forget(&mut self, now: Instant, live: &[InvokerNode]) {
        let is_live = |id: &NodeId| live.iter().any(|node| node.id == *id);
        self.nodes.retain(|id, load| 0 < load.in_flight || is_live(id));
        for nodes in self.warm.values_mut() {
            nodes.retain(|id, warm| {
                0 < warm.in_flight || (is_live(id) && now < warm.seen + WARM_KEPT)
            });
        }
        self.warm.retain(|_, nodes| !nodes.is_empty());
    }

    fn is_left_out(&self, now: Instant, node: &NodeId) -> bool {
        let until = self.nodes.get(node).and_then(|load| load.left_out_until);
        until.is_some_and(|until| now < until)
    }

    fn has_idle(&self, revision: &Digest, node: &NodeId) -> bool {
        let warm = self.warm.get(revision).and_then(|nodes| nodes.get(node));
        warm.is_some_and(|warm| warm.in_flight < warm.peak)
    }
}

/// How much a function belongs to a node: the same in every process and build (FNV-1a, then the
/// finalizer of `SplitMix64` to spread it).
fn rendezvous(function: &FunctionId, node: &NodeId) -> u64 {
    let parts = [function.namespace.as_str(), "/", function.name.as_str(), "@", node.as_str()];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
