//! Starts prewarmed sandboxes and removes those that died or are not needed, off the path of calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time;

use crate::sandbox::capacity::{CapacityReservation, CapacityShortage};
use crate::sandbox::launch::PrewarmedSandbox;
use crate::sandbox::shape::SandboxShape;
use crate::scheduling::node::NodeContext;

/// The longest time between two rounds: sandboxes die, and an average sinks.
const ROUND: Duration = Duration::from_millis(500);
/// After a failure the next start waits for this long: the engine may be unavailable.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// A start that waits for room looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Starts at once. More would take the processor from running calls.
const STARTS_MAX: usize = 2;

/// Keeps prewarmed sandboxes until the node stops; then removes them.
pub(crate) async fn run(node: Arc<NodeContext>) {
    let prewarm = Arc::clone(&node.prewarm);
    if !prewarm.is_enabled() {
        return;
    }
    let start_slots = Arc::new(Semaphore::new(STARTS_MAX));
    loop {
        let changed = time::timeout(ROUND, prewarm.changed());
        if node.stop.run_until_cancelled(changed).await.is_none() {
            break;
        }
        discard_all(&node, prewarm.take_unneeded());
        keep_room_to_grow(&node);
        while !prewarm.is_start_in_progress()
            && let Ok(slot) = Arc::clone(&start_slots).try_acquire_owned()
            && let Some(shape) = prewarm.begin()
        {
            let context = Arc::clone(&node);
            node.tasks.spawn(async move {
                start_one(&context, shape).await;
                drop(slot);
                context.prewarm.notify_changed();
            });
        }
    }
    discard_all(&node, prewarm.close());
}

/// Where starts had to wait for room lately, keeps free what the next prewarmed sandbox needs to become
/// a function's sandbox.
fn keep_room_to_grow(node: &Arc<NodeContext>) {
    let prewarm = &node.prewarm;
    let Some(before) = prewarm.may_replace_idle_since() else { return };
    if 0 < node.capacity.missing_mb(prewarm.growth_mb()) && node.pools.evict_idle_since(before) {
        prewarm.note_shortage();
    }
}

/// Starts one, or pauses where that is impossible.
async fn start_one(node: &Arc<NodeContext>, shape: SandboxShape) {
    let prewarm = &node.prewarm;
    let started = match reserve(node, shape).await {
        Some(capacity) => node.launcher.prewarm(shape, capacity).await.map_err(Some),
        None => Err(None),
    };
    let pause = match &started {
        Ok(_) => Duration::ZERO,
        Err(None) => ROUND,
        Err(Some(reason)) => {
            tracing::warn!(reason, family = ?shape.family, "Could not start a prewarmed sandbox");
            FAILURE_PAUSE
        }
    };
    if !pause.is_zero() {
        let _ = node.stop.run_until_cancelled(time::sleep(pause)).await;
    }
    if let Some(late) = prewarm.end(shape, started.ok()) {
        late.discard().await;
    }
    // A start may have waited for this one.
    node.capacity.notify_waiting();
}

/// Room for one. An idle sandbox is stopped for it only where the next start would most likely stop it
/// anyway: that start then finds a prewarmed sandbox and need not wait for an end.
async fn reserve(node: &Arc<NodeContext>, shape: SandboxShape) -> Option<CapacityReservation> {
    let prewarm = &node.prewarm;
    let mut evicted = false;
    loop {
        match node.capacity.reserve(shape.prewarmed_mb()) {
            Ok(capacity) => {
                if evicted {
                    prewarm.note_shortage();
                }
                return Some(capacity);
            }
            Err(CapacityShortage::Leaving) => {}
            Err(CapacityShortage::Full { .. }) => {
                let before = prewarm.may_replace_idle_since().filter(|_| !evicted)?;
                evicted = node.pools.evict_idle_since(before);
                if !evicted {
                    return None;
                }
            }
            Err(CapacityShortage::TooLarge { .. }) => return None,
        }
        let released = time::timeout(LOOK_AGAIN, node.capacity.release());
        let _ = node.stop.run_until_cancelled(released).await?;
    }
}

fn discard_all(node: &Arc<NodeContext>, prewarmed: Vec<PrewarmedSandbox>) {
    for sandbox in prewarmed {
        node.tasks.spawn(sandbox.discard());
    }
}
