//! The right to use one sandbox for one event.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::time::Instant;

use super::state::{PoolInput, SandboxKey};
use crate::sandbox::exchange::DataConnection;
use crate::sandbox::instance::SandboxInstance;

/// Where a lease returns its sandbox to.
pub(crate) trait LeaseOwner: Debug {
    /// Takes back the sandbox with its connection; `input` says in which state.
    fn take_back(
        self: &Arc<Self>,
        key: SandboxKey,
        conn: Option<Box<DataConnection>>,
        input: PoolInput,
    );
}

/// The right to use one sandbox, until it is dropped. It also keeps the sandbox's pool alive.
#[derive(Debug)]
pub(crate) struct SandboxLease<P: LeaseOwner> {
    pool: Arc<P>,
    key: SandboxKey,
    instance: Arc<SandboxInstance>,
    conn: Option<Box<DataConnection>>,
    health: LeaseHealth,
    /// Whether its holder waited for it.
    pub(crate) waited: bool,
}

#[derive(Clone, Copy, Debug)]
enum LeaseHealth {
    /// The sandbox can be used again.
    Good,
    /// An event was begun and has not ended well so far.
    Tainted,
    /// The maintenance borrowed an idle sandbox, which counts as idle since then.
    Borrowed(Instant),
}

impl<P: LeaseOwner> SandboxLease<P> {
    pub(super) fn new(
        pool: Arc<P>,
        key: SandboxKey,
        instance: Arc<SandboxInstance>,
        conn: Option<Box<DataConnection>>,
    ) -> Self {
        Self { pool, key, instance, conn, health: LeaseHealth::Good, waited: false }
    }

    /// Makes it the maintenance's.
    pub(super) fn borrowed(mut self, idle_since: Instant) -> Self {
        self.health = LeaseHealth::Borrowed(idle_since);
        self
    }

    pub(crate) fn instance(&self) -> &Arc<SandboxInstance> {
        &self.instance
    }

    /// Whether the sandbox is alive and has sent nothing unasked.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.instance.handle.has_ended() && self.conn.as_ref().is_some_and(|conn| conn.is_fresh())
    }

    /// The connection, for an event: from here on the lease is tainted.
    pub(crate) fn begin(&mut self) -> Option<&mut DataConnection> {
        self.health = LeaseHealth::Tainted;
        self.conn.as_deref_mut()
    }

    /// Has the sandbox stopped when the lease is dropped.
    pub(crate) fn taint(&mut self) {
        self.health = LeaseHealth::Tainted;
    }

    /// Returns the sandbox for further use. A lease that is dropped without it after an event was
    /// begun has its sandbox stopped.
    pub(crate) fn finish(mut self) {
        self.health = LeaseHealth::Good;
    }
}

impl<P: LeaseOwner> Drop for SandboxLease<P> {
    fn drop(&mut self) {
        let conn = self.conn.take();
        let key = self.key;
        let input = match self.health {
            LeaseHealth::Good => PoolInput::Released { key, healthy: conn.is_some() },
            LeaseHealth::Tainted => PoolInput::Released { key, healthy: false },
            LeaseHealth::Borrowed(idle_since) => PoolInput::Returned { key, idle_since },
        };
        self.pool.take_back(key, conn, input);
    }
}
