//! hyper's timer for one connection: one entry in the runtime's timers, whatever hyper asks for.
//!
//! hyper makes a new sleep for the head of each request and drops it when the head is there. Each
//! would be entered into the runtime's timers and so wake its reactor once more. Deadlines here
//! only grow, so one entry that is moved when it is due serves them all.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// The timer of one connection, with at most one entry in the runtime.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionTimer(Arc<Mutex<Option<TimerEntry>>>);

type TimerEntry = Pin<Box<tokio::time::Sleep>>;

struct TimerSleep {
    deadline: Instant,
    timer: ConnectionTimer,
}

impl Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(TimerSleep { deadline, timer: self.clone() })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl Sleep for TimerSleep {}

impl Future for TimerSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = tokio::time::Instant::from_std(self.deadline);
        let mut entry = self.timer.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entry.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < entry.deadline() {
            entry.as_mut().reset(deadline);
        }
        loop {
            ready!(entry.as_mut().poll(cx));
            if deadline <= entry.deadline() {
                return Poll::Ready(());
            }
            entry.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_sleep_ends_at_its_own_deadline() {
        let timer = ConnectionTimer::default();
        let begun = tokio::time::Instant::now();
        let at = |seconds| begun.into_std() + Duration::from_secs(seconds);
        // One that is dropped leaves its entry behind.
        assert!(
            tokio::time::timeout(Duration::from_secs(1), timer.sleep_until(at(60))).await.is_err()
        );
        timer.sleep_until(at(90)).await;
        assert_eq!(begun.elapsed().as_secs(), 90);
        timer.sleep_until(at(95)).await;
        assert_eq!(begun.elapsed().as_secs(), 95);
        let long = timer.sleep_until(at(300));
        assert!(tokio::time::timeout(Duration::from_secs(1), long).await.is_err());
        timer.sleep(Duration::from_secs(1)).await;
        assert_eq!(begun.elapsed().as_secs(), 97);
    }
}
