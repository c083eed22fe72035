//! All pools of a node, by function: for what concerns all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use hanshu_core::{FunctionId, lock};
use tokio::time::Instant;

use crate::metrics::SandboxCounts;
use crate::scheduling::pool::FunctionPool;
use crate::scheduling::pool::state::PoolCounts;

/// All pools of a node. No warm invocation uses it. Cleared at the end: a pool holds the starter of its
/// sandboxes, which holds this.
#[derive(Debug, Default)]
pub(crate) struct PoolRegistry {
    pools: Mutex<HashMap<FunctionId, Arc<FunctionPool>>>,
}

impl PoolRegistry {
    /// The function's pool, made where there is none.
    pub(crate) fn get_or_make(
        &self,
        function: &FunctionId,
        make: impl FnOnce() -> Arc<FunctionPool>,
    ) -> Arc<FunctionPool> {
        let mut pools = lock(&self.pools);
        if let Some(pool) = pools.get(function) {
            return Arc::clone(pool);
        }
        let pool = make();
        pools.insert(function.clone(), Arc::clone(&pool));
        pool
    }

    pub(crate) fn all(&self) -> Vec<Arc<FunctionPool>> {
        lock(&self.pools).values().cloned().collect()
    }

    /// Drops a function's pool if nothing is left in it.
    pub(crate) fn forget_if_empty(&self, function: &FunctionId) {
        let mut pools = lock(&self.pools);
        if pools.get(function).is_some_and(|pool| pool.is_empty()) {
            pools.remove(function);
        }
    }

    pub(crate) fn clear(&self) {
        lock(&self.pools).clear();
    }

    /// How many sandboxes are in which state.
    pub(crate) fn counts(&self) -> SandboxCounts {
        let mut all = SandboxCounts::default();
        for pool in self.all() {
            let PoolCounts { starting, idle, busy, stopping, waiting } = pool.counts();
            all.starting += starting;
            all.idle += idle;
            all.busy += busy;
            all.stopping += stopping;
            all.waiting += waiting;
            let frozen = pool.idle().iter().filter(|(_, _, instance)| instance.is_frozen()).count();
            all.frozen += u32::try_from(frozen).unwrap_or(u32::MAX);
        }
        all
    }

    /// Stops the sandbox that has been idle longest, of whatever function, if it has been idle since `before`
    /// or earlier; `false` if there is none.
    pub(crate) fn evict_idle_since(&self, before: Instant) -> bool {
        let pools = self.all();
        let idle = pools.iter().flat_map(|pool| {
            pool.idle().into_iter().map(move |(key, since, _)| (since, key, pool))
        });
        let oldest = idle.min_by_key(|(since, key, _)| (*since, *key));
        let Some((_, key, pool)) = oldest.filter(|(since, ..)| *since <= before) else {
            return false;
        };
        pool.evict(key);
        true
    }
}
