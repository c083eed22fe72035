//! Whether there is room on the node for another sandbox: memory and slots. Pure, with a thin
//! shell that hands out [`CapacityReservation`]s.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What the node can hold and holds. Pure.
#[derive(Debug)]
pub(crate) struct CapacityLedger {
    memory_mb: u64,
    slots: u32,
    used_mb: u64,
    used: u32,
    leaving_mb: u64,
    leaving: u32,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CapacityShortage {
    /// There never will be.
    TooLarge {
        /// MiB that the node has.
        memory_mb: u64,
    },
    /// What is leaving makes room enough: wait for it.
    Leaving,
    /// Somebody idle has to go first.
    Full {
        /// MiB that the node has.
        memory_mb: u64,
        /// Sandboxes on the node.
        sandboxes: u32,
    },
}

impl CapacityLedger {
    /// Room for `memory_mb` MiB in at most `slots` sandboxes.
    pub(crate) fn new(memory_mb: u64, slots: u32) -> Self {
        Self { memory_mb, slots, used_mb: 0, used: 0, leaving_mb: 0, leaving: 0 }
    }

    /// Takes a slot and its memory, or says why not.
    pub(crate) fn take(&mut self, mb: u64) -> Result<(), CapacityShortage> {
        if self.memory_mb < mb || self.slots == 0 {
            return Err(CapacityShortage::TooLarge { memory_mb: self.memory_mb });
        }
        if self.used_mb + mb <= self.memory_mb && self.used < self.slots {
            self.used_mb += mb;
            self.used += 1;
            return Ok(());
        }
        let used_mb = self.used_mb.saturating_sub(self.leaving_mb);
        let used = self.used.saturating_sub(self.leaving);
        if used_mb + mb <= self.memory_mb && used < self.slots {
            return Err(CapacityShortage::Leaving);
        }
        Err(CapacityShortage::Full { memory_mb: self.memory_mb, sandboxes: self.used })
    }

    /// Takes more memory for a slot that has `from` MiB, or says why not.
    pub(crate) fn grow(&mut self, from: u64, to: u64) -> Result<(), CapacityShortage> {
        if self.memory_mb < to {
            return Err(CapacityShortage::TooLarge { memory_mb: self.memory_mb });
        }
        let others_mb = self.used_mb.saturating_sub(from);
        if others_mb + to <= self.memory_mb {
            self.used_mb = others_mb + to;
            return Ok(());
        }
        if others_mb.saturating_sub(self.leaving_mb) + to <= self.memory_mb {
            return Err(CapacityShortage::Leaving);
        }
        Err(CapacityShortage::Full { memory_mb: self.memory_mb, sandboxes: self.used })
    }

    /// MiB that would have to become free for `mb` more, beside what is leaving.
    pub(crate) fn missing(&self, mb: u64) -> u64 {
        (self.used_mb.saturating_sub(self.leaving_mb) + mb).saturating_sub(self.memory_mb)
    }

    fn leave(&mut self, mb: u64) {
        self.leaving_mb += mb;
        self.leaving += 1;
    }

    fn give_back(&mut self, mb: u64, left: bool) {
        self.used_mb = self.used_mb.saturating_sub(mb);
        self.used = self.used.saturating_sub(1);
        if left {
            self.leaving_mb = self.leaving_mb.saturating_sub(mb);
            self.leaving = self.leaving.saturating_sub(1);
        }
    }
}

/// The node's room, shared by all starts. Never touched by a warm invocation.
#[derive(Debug)]
pub(crate) struct NodeCapacity {
    /// MiB in all.
    pub(crate) memory_mb: u64,
    room: Mutex<CapacityLedger>,
    freed: Notify,
}

/// A sandbox's room on the node; given back when dropped.
#[derive(Debug)]
pub(crate) struct CapacityReservation {
    admission: Arc<NodeCapacity>,
    mb: u64,
    leaving: bool,
    /// Whether what it is for was started, as its backend says.
    up: Arc<AtomicBool>,
}

impl NodeCapacity {
    pub(crate) fn new(room: CapacityLedger) -> Arc<Self> {
        let memory_mb = room.memory_mb;
        Arc::new(Self { memory_mb, room: Mutex::new(room), freed: Notify::new() })
    }

    /// Room for one sandbox, or why there is none.
    pub(crate) fn enter(
        self: &Arc<Self>,
        mb: u64,
    ) -> Result<CapacityReservation, CapacityShortage> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner).take(mb)?;
        Ok(CapacityReservation {
            admission: Arc::clone(self),
            mb,
            leaving: false,
            up: Arc::default(),
        })
    }

    /// MiB that would have to become free for `mb` more, beside what is leaving.
    pub(crate) fn missing(&self, mb: u64) -> u64 {
        self.room.lock().unwrap_or_else(PoisonError::into_inner).missing(mb)
    }

    /// There may be room now for who waits.
    pub(crate) fn look_again(&self) {
        self.freed.notify_waiters();
    }

    /// Waits until somebody gave room back. May wake for nothing and may miss one: callers look
    /// again after a while in any case.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl CapacityReservation {
    /// Says that the backend has started the sandbox: what it still needs is the function's time.
    pub(crate) fn is_up(&self) {
        self.up.store(true, Ordering::Release);
    }

    /// Tells, from now on, whether the sandbox was started.
    pub(crate) fn watch(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.up)
    }

    /// Makes it one of `mb` MiB, or says why that cannot be; then it stays as it is.
    pub(crate) fn grow(&mut self, mb: u64) -> Result<(), CapacityShortage> {
        let mut room = self.admission.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.grow(self.mb, mb)?;
        self.mb = mb;
        Ok(())
    }

    /// MiB.
    pub(crate) fn mb(&self) -> u64 {
        self.mb
    }

    /// Says that the sandbox is being stopped, so that nobody else has to go for the same need.
    pub(crate) fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.admission.room.lock().unwrap_or_else(PoisonError::into_inner).leave(self.mb);
        }
    }
}

impl Drop for CapacityReservation {
    fn drop(&mut self) {
        let mut room = self.admission.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.give_back(self.mb, self.leaving);
        drop(room);
        self.admission.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_slots_are_never_promised_twice() {
        let admission = NodeCapacity::new(CapacityLedger::new(256, 3));
        let first = admission.enter(128).unwrap();
        let mut second = admission.enter(128).unwrap();
        let full = CapacityShortage::Full { memory_mb: 256, sandboxes: 2 };
        assert_eq!(admission.enter(64).unwrap_err(), full);
        second.leave();
        assert_eq!(admission.enter(64).unwrap_err(), CapacityShortage::Leaving);
        drop(second);
        drop(first);
        let small: Vec<_> = (0..3).map(|_| admission.enter(64).unwrap()).collect();
        assert!(matches!(admission.enter(64), Err(CapacityShortage::Full { .. })), "three slots");
        drop(small);
        assert!(admission.enter(256).is_ok());
    }

    #[test]
    fn a_small_place_grows_when_there_is_memory_and_keeps_its_slot() {
        let admission = NodeCapacity::new(CapacityLedger::new(256, 2));
        let mut small = admission.enter(16).unwrap();
        let mut large = admission.enter(192).unwrap();
        assert!(matches!(small.grow(128), Err(CapacityShortage::Full { .. })));
        assert_eq!(admission.missing(128 - small.mb()), 64);
        large.leave();
        assert_eq!(small.grow(128), Err(CapacityShortage::Leaving));
        drop(large);
        assert_eq!(small.grow(128), Ok(()));
        let other = admission.enter(128).unwrap();
        assert!(admission.enter(1).is_err());
        drop((small, other));
        assert!(admission.enter(256).is_ok(), "what grew was given back whole");
    }

    #[test]
    fn what_is_larger_than_the_node_is_told_apart() {
        let admission = NodeCapacity::new(CapacityLedger::new(256, 3));
        assert_eq!(
            admission.enter(257).unwrap_err(),
            CapacityShortage::TooLarge { memory_mb: 256 }
        );
    }
}
