//! How much memory and how many sandboxes the node can hold, and who has how much of it. Pure, with
//! a thin shell that hands out [`CapacityReservation`]s.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hanshu_core::lock;
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

/// Why there is no room for a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CapacityShortage {
    /// There never will be.
    TooLarge {
        /// MiB that the node has.
        memory_mb: u64,
    },
    /// There will be when the sandboxes that are being stopped are gone.
    Leaving,
    /// A sandbox has to be stopped first.
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

    /// Takes a slot with `mb` MiB.
    fn take(&mut self, mb: u64) -> Result<(), CapacityShortage> {
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

    /// Gives a slot of `from` MiB the memory of `to` MiB.
    fn grow(&mut self, from: u64, to: u64) -> Result<(), CapacityShortage> {
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

    /// MiB that must become free for `mb` more, beside what is being stopped.
    fn missing_mb(&self, mb: u64) -> u64 {
        (self.used_mb.saturating_sub(self.leaving_mb) + mb).saturating_sub(self.memory_mb)
    }

    fn mark_leaving(&mut self, mb: u64) {
        self.leaving_mb += mb;
        self.leaving += 1;
    }

    fn give_back(&mut self, mb: u64, was_leaving: bool) {
        self.used_mb = self.used_mb.saturating_sub(mb);
        self.used = self.used.saturating_sub(1);
        if was_leaving {
            self.leaving_mb = self.leaving_mb.saturating_sub(mb);
            self.leaving = self.leaving.saturating_sub(1);
        }
    }
}

/// The node's capacity, shared by all starts. A warm invocation never touches it.
#[derive(Debug)]
pub(crate) struct NodeCapacity {
    /// MiB in all.
    pub(crate) memory_mb: u64,
    ledger: Mutex<CapacityLedger>,
    released: Notify,
}

/// A sandbox's memory and slot on the node; given back when dropped.
#[derive(Debug)]
pub(crate) struct CapacityReservation {
    capacity: Arc<NodeCapacity>,
    mb: u64,
    leaving: bool,
    /// Whether the backend has started the sandbox that it is for.
    started: Arc<AtomicBool>,
}

impl NodeCapacity {
    pub(crate) fn new(ledger: CapacityLedger) -> Arc<Self> {
        let memory_mb = ledger.memory_mb;
        Arc::new(Self { memory_mb, ledger: Mutex::new(ledger), released: Notify::new() })
    }

    /// Room for one sandbox, or why there is none.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        mb: u64,
    ) -> Result<CapacityReservation, CapacityShortage> {
        lock(&self.ledger).take(mb)?;
        let started = Arc::default();
        Ok(CapacityReservation { capacity: Arc::clone(self), mb, leaving: false, started })
    }

    /// MiB that must become free for `mb` more, beside what is being stopped.
    pub(crate) fn missing_mb(&self, mb: u64) -> u64 {
        lock(&self.ledger).missing_mb(mb)
    }

    /// Wakes all starts that wait for room: something else than a release may have made it.
    pub(crate) fn notify_waiting(&self) {
        self.released.notify_waiters();
    }

    /// Waits until a reservation is given back. May return for nothing and may miss one: callers try
    /// again after a while in any case.
    pub(crate) async fn release(&self) {
        self.released.notified().await;
    }
}

impl CapacityReservation {
    /// Notes that the backend has started the sandbox: the rest of the start is the function's time.
    pub(crate) fn mark_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// A flag that tells from now on whether the backend has started the sandbox.
    pub(crate) fn started_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.started)
    }

    /// Changes its memory to `mb` MiB.
    ///
    /// # Errors
    /// Why that is impossible; the reservation stays as it is.
    pub(crate) fn grow(&mut self, mb: u64) -> Result<(), CapacityShortage> {
        lock(&self.capacity.ledger).grow(self.mb, mb)?;
        self.mb = mb;
        Ok(())
    }

    /// MiB that are reserved.
    pub(crate) fn mb(&self) -> u64 {
        self.mb
    }

    /// Notes that the sandbox is being stopped, so that no second one is stopped for the same need.
    pub(crate) fn mark_leaving(&mut self) {
        if !self.leaving {
            self.leaving = true;
            lock(&self.capacity.ledger).mark_leaving(self.mb);
        }
    }
}

impl Drop for CapacityReservation {
    fn drop(&mut self) {
        lock(&self.capacity.ledger).give_back(self.mb, self.leaving);
        self.capacity.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_slots_are_never_reserved_twice() {
        let capacity = NodeCapacity::new(CapacityLedger::new(256, 3));
        let first = capacity.reserve(128).unwrap();
        let mut second = capacity.reserve(128).unwrap();
        let full = CapacityShortage::Full { memory_mb: 256, sandboxes: 2 };
        assert_eq!(capacity.reserve(64).unwrap_err(), full);
        second.mark_leaving();
        assert_eq!(capacity.reserve(64).unwrap_err(), CapacityShortage::Leaving);
        drop(second);
        drop(first);
        let small: Vec<_> = (0..3).map(|_| capacity.reserve(64).unwrap()).collect();
        assert!(matches!(capacity.reserve(64), Err(CapacityShortage::Full { .. })), "three slots");
        drop(small);
        assert!(capacity.reserve(256).is_ok());
    }

    #[test]
    fn a_small_reservation_grows_when_there_is_memory_and_keeps_its_slot() {
        let capacity = NodeCapacity::new(CapacityLedger::new(256, 2));
        let mut small = capacity.reserve(16).unwrap();
        let mut large = capacity.reserve(192).unwrap();
        assert!(matches!(small.grow(128), Err(CapacityShortage::Full { .. })));
        assert_eq!(capacity.missing_mb(128 - small.mb()), 64);
        large.mark_leaving();
        assert_eq!(small.grow(128), Err(CapacityShortage::Leaving));
        drop(large);
        assert_eq!(small.grow(128), Ok(()));
        let other = capacity.reserve(128).unwrap();
        assert!(capacity.reserve(1).is_err());
        drop((small, other));
        assert!(capacity.reserve(256).is_ok(), "a reservation that grew is given back whole");
    }

    #[test]
    fn a_sandbox_larger_than_the_node_is_told_apart() {
        let capacity = NodeCapacity::new(CapacityLedger::new(256, 3));
        let too_large = CapacityShortage::TooLarge { memory_mb: 256 };
        assert_eq!(capacity.reserve(257).unwrap_err(), too_large);
    }
}
