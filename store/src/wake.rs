//! Tells whoever waits that a queue may have become ready.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time;

/// Wakes a dispatcher. A push that happens while nobody waits is not forgotten: the next wait
/// returns at once.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    notify: Notify,
    rung: AtomicU64,
    heard: AtomicU64,
}

impl Wake {
    /// Something may have become ready.
    pub(crate) fn ring(&self) {
        self.rung.fetch_add(1, Ordering::AcqRel);
        self.notify.notify_waiters();
    }

    /// Returns after a ring, or after `at_most`.
    pub(crate) async fn wait(&self, at_most: Duration) {
        // Made before the count is read, so that a ring between the two is not missed.
        let notified = self.notify.notified();
        if self.rung.load(Ordering::Acquire) == self.heard.load(Ordering::Acquire) {
            let _ = time::timeout(at_most, notified).await;
        }
        self.heard.store(self.rung.load(Ordering::Acquire), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ring_before_the_wait_is_heard_once() {
        let wake = Wake::default();
        wake.ring();
        let long = Duration::from_secs(60);
        time::timeout(Duration::from_secs(1), wake.wait(long)).await.unwrap();
        assert!(time::timeout(Duration::from_millis(20), wake.wait(long)).await.is_err());
    }
}
