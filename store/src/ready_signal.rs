//! Notifies dispatchers that a queue may have become ready.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time;

/// A notification that is not lost if it comes while no task waits: the next wait then returns at
/// once.
#[derive(Debug, Default)]
pub(crate) struct ReadySignal {
    notify: Notify,
    /// Number of notifications so far.
    sent: AtomicU64,
    /// Of these, how many a wait has seen.
    seen: AtomicU64,
}

impl ReadySignal {
    /// Wakes who waits: something may have become ready.
    pub(crate) fn notify(&self) {
        self.sent.fetch_add(1, Ordering::AcqRel);
        self.notify.notify_waiters();
    }

    /// Returns after a notification, or after `at_most`.
    pub(crate) async fn wait(&self, at_most: Duration) {
        // Made before the count is read, so that a notification between the two is not missed.
        let notified = self.notify.notified();
        if self.sent.load(Ordering::Acquire) == self.seen.load(Ordering::Acquire) {
            let _ = time::timeout(at_most, notified).await;
        }
        self.seen.store(self.sent.load(Ordering::Acquire), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_notification_before_the_wait_is_seen_once() {
        let signal = ReadySignal::default();
        signal.notify();
        let long = Duration::from_secs(60);
        time::timeout(Duration::from_secs(1), signal.wait(long)).await.unwrap();
        assert!(time::timeout(Duration::from_millis(20), signal.wait(long)).await.is_err());
    }
}
