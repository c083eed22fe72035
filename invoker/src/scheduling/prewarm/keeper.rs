//! Makes prewarmed sandboxes, and removes those that died or are too many: off every call's path.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use crate::sandbox::capacity::{CapacityReservation, CapacityShortage};
use crate::sandbox::launch::PrewarmedSandbox;
use crate::sandbox::shape::SandboxShape;
use crate::scheduling::node::NodeContext;

/// Without news, this often: for those that died, and for an average that has sunk.
const ROUND: Duration = Duration::from_millis(500);
/// After a failure nothing is tried for so long: the engine may be away.
const REST: Duration = Duration::from_secs(5);
/// Who waits for what is leaving looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Made at once. More would take the processor from calls that are being answered.
const MAKERS: usize = 2;

/// Keeps prewarmed sandboxes until the node stops; then removes them.
pub(crate) async fn run(node: Arc<NodeContext>) {
    let prewarm = Arc::clone(&node.prewarm);
    if !prewarm.are_on() {
        return;
    }
    let makers = Arc::new(tokio::sync::Semaphore::new(MAKERS));
    loop {
        let news = time::timeout(ROUND, prewarm.changed.notified());
        if node.stop.run_until_cancelled(news).await.is_none() {
            break;
        }
        discard(&node, prewarm.useless());
        keep_room(&node);
        while !prewarm.is_start_under_way()
            && let Ok(maker) = Arc::clone(&makers).try_acquire_owned()
            && let Some(kind) = prewarm.begin()
        {
            let its = Arc::clone(&node);
            node.tasks.spawn(async move {
                make(&its, kind).await;
                drop(maker);
                its.prewarm.changed.notify_one();
            });
        }
    }
    discard(&node, prewarm.close());
}

/// Where starts have had to wait for room lately, keeps free what the next prewarmed sandbox needs to
/// become a function's sandbox.
fn keep_room(node: &Arc<NodeContext>) {
    let prewarm = &node.prewarm;
    let Some(before) = prewarm.may_replace() else { return };
    if 0 < node.capacity.missing(prewarm.growth_mb()) && node.pools.evict_idle_since(before) {
        prewarm.stays_short_of_room();
    }
}

/// Makes one, or rests for a while.
async fn make(node: &Arc<NodeContext>, kind: SandboxShape) {
    let prewarm = &node.prewarm;
    let made = match room(node, kind).await {
        Some(place) => node.launcher.make_prewarmed(kind, place).await.map_err(Some),
        None => Err(None),
    };
    let rest = match &made {
        Ok(_) => Duration::ZERO,
        Err(None) => ROUND,
        Err(Some(reason)) => {
            tracing::warn!(reason, family = ?kind.family, "Could not make a prewarmed sandbox");
            REST
        }
    };
    if !rest.is_zero() {
        let _ = node.stop.run_until_cancelled(time::sleep(rest)).await;
    }
    if let Some(late) = prewarm.end(kind, made.ok()) {
        late.discard().await;
    }
    // A start may have waited for this one.
    node.capacity.look_again();
}

/// Room for one. An idle sandbox goes for it only where the next start would most likely have it
/// go anyway: that start then finds a prewarmed sandbox, and need not wait for an end.
async fn room(node: &Arc<NodeContext>, kind: SandboxShape) -> Option<CapacityReservation> {
    let prewarm = &node.prewarm;
    let mut evicted = false;
    loop {
        match node.capacity.enter(kind.prewarmed_mb()) {
            Ok(place) => {
                if evicted {
                    prewarm.stays_short_of_room();
                }
                return Some(place);
            }
            Err(CapacityShortage::Leaving) => {}
            Err(CapacityShortage::Full { .. }) => {
                let before = prewarm.may_replace().filter(|_| !evicted)?;
                evicted = node.pools.evict_idle_since(before);
                if !evicted {
                    return None;
                }
            }
            Err(CapacityShortage::TooLarge { .. }) => return None,
        }
        let freed = time::timeout(LOOK_AGAIN, node.capacity.freed());
        let _ = node.stop.run_until_cancelled(freed).await?;
    }
}

fn discard(node: &Arc<NodeContext>, prewarm: Vec<PrewarmedSandbox>) {
    for prewarmed in prewarm {
        node.tasks.spawn(prewarmed.discard());
    }
}
