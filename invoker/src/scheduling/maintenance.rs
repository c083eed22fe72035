//! The rounds that are made twice a second: keep-alive, output that belongs to no event, freezing, gauges.
//!
//! The engine's pause was not enough for freezing: it takes 6 ms, which the next call would wait for again.
//! A sandbox is frozen by a write to a control group file that is kept open, and thawed by the call that
//! needs it, whose p99 stays within 1 ms of a warm one's (`frozen` in docs/promises.md). A timer for each
//! idle sandbox would wake the reactor with every call; one task looks at all of them instead.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::FunctionPool;

/// Between two rounds: sandboxes freeze at most so late.
const ROUND: Duration = Duration::from_millis(500);

/// Makes rounds until the node stops.
pub(crate) async fn run(node: Arc<NodeContext>) {
    let mut rounds = time::interval(ROUND);
    rounds.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while node.stop.run_until_cancelled(rounds.tick()).await.is_some() {
        for pool in node.pools.all() {
            pool.tick();
            maintain_idle(&pool, node.launcher.options.freeze_after()).await;
        }
        node.metrics.sandboxes(node.pools.counts());
        node.metrics.prewarmed(|family| node.prewarm.ready(family));
    }
}

/// Writes late output of a pool's idle sandboxes and freezes those that are idle for long.
async fn maintain_idle(pool: &Arc<FunctionPool>, freeze_after: Option<Duration>) {
    for (key, idle_since, instance) in pool.idle() {
        if instance.is_frozen() {
            continue;
        }
        instance.log.write_unowned();
        let long = freeze_after.is_some_and(|after| idle_since + after <= Instant::now());
        if long
            && instance.may_freeze()
            && let Some(mut lease) = pool.borrow(key, idle_since)
        {
            lease.instance().freeze().await;
            // What it printed before it was frozen.
            lease.instance().log.write_unowned();
            if !lease.is_fresh() {
                lease.taint();
            }
        }
    }
}
