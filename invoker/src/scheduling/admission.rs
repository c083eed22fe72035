//! Room on the node for a start: free memory, else that of prewarmed and of idle sandboxes.

use std::time::Duration;

use hanshu_core::{Refusal, Revision, Verdict};
use tokio::time::{self, Instant};

use crate::sandbox::capacity::{CapacityReservation, CapacityShortage};
use crate::sandbox::launch::PrewarmedSandbox;
use crate::sandbox::shape::can_be_prewarmed;
use crate::scheduling::node::NodeContext;

/// A start that waits for room looks again after this, whether or not it was woken.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a start begins with.
pub(crate) enum StartBasis {
    /// Room for the sandbox.
    Capacity(CapacityReservation),
    /// A prewarmed sandbox, whose room was grown to the function's.
    Prewarmed(Box<PrewarmedSandbox>),
}

/// Waits for room on the node for a sandbox of the revision, and stops idle sandboxes of any function
/// for it. `None` when the start is not wanted any more, which `still_wanted` is asked before each wait.
/// A prewarmed sandbox has some room already.
///
/// # Errors
/// The node is too small for the function.
pub(crate) async fn admit(
    node: &NodeContext,
    revision: &Revision,
    still_wanted: impl Fn() -> bool,
) -> Result<Option<StartBasis>, Verdict> {
    let mb = u64::from(revision.config.memory_mb);
    let suits = can_be_prewarmed(&revision.config);
    let shape = node.launcher.shape(revision);
    let mut prewarmed = suits.then(|| node.prewarm.take(shape)).flatten();
    loop {
        prewarmed = prewarmed.or_else(|| suits.then(|| node.prewarm.take_late(shape)).flatten());
        let tried = match prewarmed.take() {
            None => node.capacity.reserve(mb).map(StartBasis::Capacity),
            Some(mut taken) => match taken.capacity().grow(mb) {
                Ok(()) => Ok(StartBasis::Prewarmed(Box::new(taken))),
                Err(shortage) => {
                    prewarmed = Some(taken);
                    Err(shortage)
                }
            },
        };
        match tried {
            Ok(basis) => return Ok(Some(basis)),
            Err(CapacityShortage::TooLarge { memory_mb }) => {
                put_back(node, prewarmed);
                return Err(Verdict::Refused(Refusal::Capacity {
                    reason: format!(
                        "the function needs {mb} MB and the node has {memory_mb} MB for all"
                    ),
                }));
            }
            Err(CapacityShortage::Leaving) => {}
            Err(CapacityShortage::Full { memory_mb, sandboxes }) => {
                let has_mb = prewarmed.as_mut().map_or(0, |taken| taken.capacity().mb());
                if !make_room(node, node.capacity.missing_mb(mb - has_mb.min(mb))) {
                    tracing::debug!(memory_mb, sandboxes, "A start waits for room");
                }
            }
        }
        if !still_wanted() {
            put_back(node, prewarmed);
            return Ok(None);
        }
        let _ = time::timeout(LOOK_AGAIN, node.capacity.release()).await;
    }
}

/// Puts back a prewarmed sandbox that the start does not need.
fn put_back(node: &NodeContext, prewarmed: Option<PrewarmedSandbox>) {
    if let Some(late) = prewarmed.and_then(|prewarmed| node.prewarm.put_back(prewarmed)) {
        node.tasks.spawn(late.discard());
    }
}

/// Makes room for a start that lacks `missing_mb` MiB: stops prewarmed sandboxes if they are enough
/// (those that are starting are waited for), else the sandbox that has been idle longest, else all
/// prewarmed sandboxes. `false`: none can be stopped.
fn make_room(node: &NodeContext, missing_mb: u64) -> bool {
    let mut freed = node.prewarm.free(missing_mb).unwrap_or_default();
    if freed.is_empty() && node.prewarm.starting_have(missing_mb) {
        return true;
    }
    if freed.is_empty() && !node.pools.evict_idle_since(Instant::now()) {
        freed = node.prewarm.free_all();
        if freed.is_empty() {
            return false;
        }
    }
    for prewarmed in freed {
        node.tasks.spawn(prewarmed.discard());
    }
    true
}
