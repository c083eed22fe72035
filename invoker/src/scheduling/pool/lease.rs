//! The right to use one sandbox for one event.

use std::sync::Arc;

use tokio::time::Instant;

use super::FunctionPool;
use super::state::{PoolInput, SandboxKey};
use crate::sandbox::exchange::DataConnection;
use crate::sandbox::instance::SandboxInstance;

/// The right to use one sandbox, until it is dropped. It also keeps the sandbox's pool alive.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<FunctionPool>,
    key: SandboxKey,
    instance: Arc<SandboxInstance>,
    conn: Option<Box<DataConnection>>,
    health: LeaseHealth,
    /// Whether its holder stood in line for it.
    pub(crate) waited: bool,
}

#[derive(Clone, Copy, Debug)]
enum LeaseHealth {
    /// Nothing was done with the sandbox, or it was done with.
    Good,
    /// An event was begun and nobody said that it ended well.
    Tainted,
    /// Only the platform used it: it counts as idle since then.
    Lent(Instant),
}

impl Lease {
    pub(super) fn new(
        pool: Arc<FunctionPool>,
        key: SandboxKey,
        instance: Arc<SandboxInstance>,
        conn: Option<Box<DataConnection>>,
    ) -> Self {
        Self { pool, key, instance, conn, health: LeaseHealth::Good, waited: false }
    }

    pub(super) fn lent(mut self, idle_since: Instant) -> Self {
        self.health = LeaseHealth::Lent(idle_since);
        self
    }

    pub(crate) fn instance(&self) -> &Arc<SandboxInstance> {
        &self.instance
    }

    /// Whether the sandbox is as it was left: alive and silent.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.instance.leash.has_ended() && self.conn.as_ref().is_some_and(|conn| conn.is_fresh())
    }

    /// The connection, for an event: from here on the lease is tainted.
    pub(crate) fn begin(&mut self) -> Option<&mut DataConnection> {
        self.health = LeaseHealth::Tainted;
        self.conn.as_deref_mut()
    }

    /// Says that the sandbox must not be used again.
    pub(crate) fn taint(&mut self) {
        self.health = LeaseHealth::Tainted;
    }

    /// Gives the sandbox back in good health. A lease that is dropped without it after an event
    /// was begun has its sandbox stopped.
    pub(crate) fn finish(mut self) {
        self.health = LeaseHealth::Good;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let conn = self.conn.take();
        let key = self.key;
        let input = match self.health {
            LeaseHealth::Good => PoolInput::Released { key, healthy: conn.is_some() },
            LeaseHealth::Tainted => PoolInput::Released { key, healthy: false },
            LeaseHealth::Lent(idle_since) => PoolInput::Returned { key, idle_since },
        };
        self.pool.take_back(key, conn, input);
    }
}
