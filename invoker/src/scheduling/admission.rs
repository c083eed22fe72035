//! Room on the node for a start: what is free, else prewarmed sandboxes and idle ones go for it.

use std::time::Duration;

use hanshu_core::{Refusal, Revision, Verdict};
use tokio::time::{self, Instant};

use crate::sandbox::capacity::{CapacityReservation, CapacityShortage};
use crate::sandbox::launch::PrewarmedSandbox;
use crate::sandbox::shape::SandboxShape;
use crate::scheduling::node::NodeContext;

/// A start that waits for room looks again after this, whether or not it was woken.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a start begins with.
pub(crate) enum StartBasis {
    /// Room, and nothing in it.
    Capacity(CapacityReservation),
    /// A prewarmed sandbox, with room for the function.
    PrewarmedSandbox(Box<PrewarmedSandbox>),
}

/// Waits for room on the node for a sandbox of the revision, making idle sandboxes of any function
/// go; `None` when the start is not wanted any more, which `still_wanted` is asked before each
/// wait. A prewarmed sandbox has some room already.
///
/// # Errors
/// The node is too small for the function.
pub(crate) async fn admit(
    node: &NodeContext,
    revision: &Revision,
    still_wanted: impl Fn() -> bool,
) -> Result<Option<StartBasis>, Verdict> {
    let mb = u64::from(revision.config.memory_mb);
    let suits = SandboxShape::suits(&revision.config);
    let kind = node.launcher.kind(revision);
    let mut prewarmed = suits.then(|| node.prewarm.take(kind)).flatten();
    loop {
        prewarmed = prewarmed.or_else(|| suits.then(|| node.prewarm.take_late(kind)).flatten());
        let tried = match prewarmed.take() {
            None => node.capacity.enter(mb).map(StartBasis::Capacity),
            Some(mut its) => match its.place().grow(mb) {
                Ok(()) => Ok(StartBasis::PrewarmedSandbox(Box::new(its))),
                Err(shortage) => {
                    prewarmed = Some(its);
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
                let has = prewarmed.as_mut().map_or(0, |prewarmed| prewarmed.place().mb());
                if !make_room(node, node.capacity.missing(mb - has.min(mb))) {
                    tracing::debug!(memory_mb, sandboxes, "A start waits for room");
                }
            }
        }
        if !still_wanted() {
            put_back(node, prewarmed);
            return Ok(None);
        }
        let _ = time::timeout(LOOK_AGAIN, node.capacity.freed()).await;
    }
}

/// Takes back a prewarmed sandbox that a start has no use for.
fn put_back(node: &NodeContext, prewarmed: Option<PrewarmedSandbox>) {
    if let Some(late) = prewarmed.and_then(|prewarmed| node.prewarm.put_back(prewarmed)) {
        node.tasks.spawn(late.discard());
    }
}

/// Makes room for a start that lacks `missing_mb` MiB: prewarmed sandboxes go if that is enough
/// (those that are being made are waited for), else the sandbox that has been idle longest, else
/// whatever prewarmed sandboxes there are. `false`: nothing can go.
fn make_room(node: &NodeContext, missing_mb: u64) -> bool {
    let mut given = node.prewarm.give_way(missing_mb).unwrap_or_default();
    if given.is_empty() && node.prewarm.will_give(missing_mb) {
        return true;
    }
    if given.is_empty() && !node.pools.evict_idle_since(Instant::now()) {
        given = node.prewarm.give_up();
        if given.is_empty() {
            return false;
        }
    }
    for prewarmed in given {
        node.tasks.spawn(prewarmed.discard());
    }
    true
}
