//! The right to use one sandbox for one event.

use std::sync::Arc;

use tokio::time::Instant;

use super::Pool;
use super::state::{Input, SandboxKey};
use crate::sandbox::exchange::DataConn;
use crate::sandbox::instance::Instance;

/// The right to use one sandbox, until it is dropped. It also keeps the sandbox's pool alive.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    key: SandboxKey,
    instance: Arc<Instance>,
    conn: Option<Box<DataConn>>,
    health: Health,
    /// Whether its holder stood in line for it.
    pub(crate) waited: bool,
}

#[derive(Clone, Copy, Debug)]
enum Health {
    /// Nothing was done with the sandbox, or it was done with.
    Good,
    /// An event was begun and nobody said that it ended well.
    Tainted,
    /// Only the platform used it: it counts as idle since then.
    Lent(Instant),
}

impl Lease {
    pub(super) fn new(
        pool: Arc<Pool>,
        key: SandboxKey,
        instance: Arc<Instance>,
        conn: Option<Box<DataConn>>,
    ) -> Self {
        Self { pool, key, instance, conn, health: Health::Good, waited: false }
    }

    pub(super) fn lent(mut self, idle_since: Instant) -> Self {
        self.health = Health::Lent(idle_since);
        self
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Whether the sandbox is as it was left: alive and silent.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.instance.leash.has_ended() && self.conn.as_ref().is_some_and(|conn| conn.is_fresh())
    }

    /// The connection, for an event: from here on the lease is tainted.
    pub(crate) fn begin(&mut self) -> Option<&mut DataConn> {
        self.health = Health::Tainted;
        self.conn.as_deref_mut()
    }

    /// Says that the sandbox must not be used again.
    pub(crate) fn taint(&mut self) {
        self.health = Health::Tainted;
    }

    /// Gives the sandbox back in good health. A lease that is dropped without it after an event
    /// was begun has its sandbox stopped.
    pub(crate) fn finish(mut self) {
        self.health = Health::Good;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let conn = self.conn.take();
        let key = self.key;
        let input = match self.health {
            Health::Good => Input::Released { key, healthy: conn.is_some() },
            Health::Tainted => Input::Released { key, healthy: false },
            Health::Lent(idle_since) => Input::Returned { key, idle_since },
        };
        self.pool.take_back(key, conn, input);
    }
}
