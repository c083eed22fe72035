//! User ids for sandboxes: one for each, as long as it lives.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use hanshu_core::lock;

/// The user ids that this node may give to sandboxes.
#[derive(Debug)]
pub(crate) struct UserIdPool {
    /// `None`: the node is not root, so everything runs as the node's own user.
    free: Option<Mutex<BTreeSet<u32>>>,
    own: u32,
}

/// A sandbox's user id, free again when dropped.
#[derive(Debug)]
pub(crate) struct SandboxUserId {
    number: u32,
    pool: Arc<UserIdPool>,
}

impl UserIdPool {
    /// `count` ids from `first` on where this process is root, else its own.
    pub(crate) fn new(first: u32, count: u32) -> Arc<Self> {
        let own = nix::unistd::geteuid();
        let free =
            own.is_root().then(|| Mutex::new((first..first.saturating_add(count)).collect()));
        Arc::new(Self { free, own: own.as_raw() })
    }

    /// An id that no other sandbox has; `None` when all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<SandboxUserId> {
        let number = match &self.free {
            None => self.own,
            Some(free) => lock(free).pop_first()?,
        };
        Some(SandboxUserId { number, pool: Arc::clone(self) })
    }
}

impl SandboxUserId {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for SandboxUserId {
    fn drop(&mut self) {
        if let Some(free) = &self.pool.free {
            lock(free).insert(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sandboxes_never_share_a_user_where_the_node_is_root() {
        let uids = UserIdPool::new(700_000, 2);
        let (first, second) = (uids.take().unwrap(), uids.take().unwrap());
        if nix::unistd::geteuid().is_root() {
            assert_ne!(first.number(), second.number());
            assert!(uids.take().is_none());
            drop(second);
            assert_eq!(uids.take().unwrap().number(), 700_001);
        } else {
            assert_eq!(first.number(), second.number());
        }
    }
}
