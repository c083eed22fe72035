//! Makes stem cells, and removes those that died or are too many: off every call's path.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use super::Kind;
use crate::admission::{Place, Shortage};
use crate::launch::Stem;
use crate::node::Node;

/// Without news, this often: for those that died, and for an average that has sunk.
const ROUND: Duration = Duration::from_millis(500);
/// After a failure nothing is tried for so long: the engine may be away.
const REST: Duration = Duration::from_secs(5);
/// Who waits for what is leaving looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Made at once. More would take the processor from calls that are being answered.
const MAKERS: usize = 2;

/// Keeps stem cells until the node stops; then removes them.
pub(crate) async fn run(node: Arc<Node>) {
    let stems = Arc::clone(&node.launcher.stems);
    if !stems.are_on() {
        return;
    }
    let makers = Arc::new(tokio::sync::Semaphore::new(MAKERS));
    loop {
        let news = time::timeout(ROUND, stems.changed.notified());
        if node.stop.run_until_cancelled(news).await.is_none() {
            break;
        }
        discard(&node, stems.useless());
        keep_room(&node);
        while !stems.is_start_under_way()
            && let Ok(maker) = Arc::clone(&makers).try_acquire_owned()
            && let Some(kind) = stems.begin()
        {
            let its = Arc::clone(&node);
            node.spawn(async move {
                make(&its, kind).await;
                drop(maker);
                its.launcher.stems.changed.notify_one();
            });
        }
    }
    discard(&node, stems.close());
}

/// Where starts have had to wait for room lately, keeps free what the next stem cell needs to
/// become a function's sandbox.
fn keep_room(node: &Arc<Node>) {
    let stems = &node.launcher.stems;
    let Some(before) = stems.may_replace() else { return };
    if 0 < node.admission.missing(stems.growth_mb()) && node.evict_idle_since(before) {
        stems.stays_short_of_room();
    }
}

/// Makes one, or rests for a while.
async fn make(node: &Arc<Node>, kind: Kind) {
    let stems = &node.launcher.stems;
    let made = match room(node, kind).await {
        Some(place) => node.launcher.make_stem(kind, place).await.map_err(Some),
        None => Err(None),
    };
    let rest = match &made {
        Ok(_) => Duration::ZERO,
        Err(None) => ROUND,
        Err(Some(reason)) => {
            tracing::warn!(reason, family = ?kind.family, "Could not make a stem cell");
            REST
        }
    };
    if !rest.is_zero() {
        let _ = node.stop.run_until_cancelled(time::sleep(rest)).await;
    }
    if let Some(late) = stems.end(kind, made.ok()) {
        late.discard().await;
    }
    // A start may have waited for this one.
    node.admission.look_again();
}

/// Room for one. An idle sandbox goes for it only where the next start would most likely have it
/// go anyway: that start then finds a stem cell, and need not wait for an end.
async fn room(node: &Arc<Node>, kind: Kind) -> Option<Place> {
    let stems = &node.launcher.stems;
    let mut evicted = false;
    loop {
        match node.admission.enter(kind.stem_mb()) {
            Ok(place) => {
                if evicted {
                    stems.stays_short_of_room();
                }
                return Some(place);
            }
            Err(Shortage::Leaving) => {}
            Err(Shortage::Full { .. }) => {
                let before = stems.may_replace().filter(|_| !evicted)?;
                evicted = node.evict_idle_since(before);
                if !evicted {
                    return None;
                }
            }
            Err(Shortage::TooLarge { .. }) => return None,
        }
        let freed = time::timeout(LOOK_AGAIN, node.admission.freed());
        let _ = node.stop.run_until_cancelled(freed).await?;
    }
}

fn discard(node: &Arc<Node>, stems: Vec<Stem>) {
    for stem in stems {
        node.spawn(stem.discard());
    }
}
