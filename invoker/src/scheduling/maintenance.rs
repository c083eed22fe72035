//! The rounds that are made once a second: keep-alive, late output, freezing, gauges.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::FunctionPool;

/// Between two rounds. Short, so that sandboxes freeze about when they should.
const ROUND: Duration = Duration::from_millis(500);

/// Makes rounds until the node stops.
pub(crate) async fn run(node: Arc<NodeContext>) {
    let mut rounds = time::interval(ROUND);
    rounds.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while node.stop.run_until_cancelled(rounds.tick()).await.is_some() {
        for pool in node.pools.all() {
            pool.tick();
            round(&pool, node.launcher.options.freeze_after()).await;
        }
        node.metrics.sandboxes(node.pools.sandboxes());
        node.metrics.prewarming(|family| node.prewarm.ready(family));
    }
}

/// Looks after one pool's idle sandboxes.
async fn round(pool: &Arc<FunctionPool>, freeze_after: Option<Duration>) {
    for (key, idle_since, instance) in pool.idle() {
        if instance.is_frozen() {
            continue;
        }
        instance.log.late();
        let long = freeze_after.is_some_and(|after| idle_since + after <= Instant::now());
        if long
            && instance.may_freeze()
            && let Some(mut lease) = pool.borrow(key, idle_since)
        {
            // What it still says before it freezes.
            lease.instance().freeze().await;
            lease.instance().log.late();
            if !lease.is_fresh() {
                lease.taint();
            }
        }
    }
}
