//! An invoker that returns what it was told to, and can be cancelled.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{CancelReach, Invoke};
use hanshu_core::{Failure, Invocation, Outcome, Report, RequestId, Verdict};
use tokio::sync::watch;

use super::START;

/// Returns the verdict that it was made with, by default the event itself at once. Counts runs.
pub(crate) struct EchoInvoker {
    pub(crate) takes: Mutex<Duration>,
    pub(crate) verdict: Box<dyn Fn(&Invocation) -> Verdict + Send + Sync>,
    pub(crate) seen: Mutex<Vec<Invocation>>,
    pub(crate) running: Mutex<(usize, usize)>,
    /// Invocations that run.
    pub(crate) current: Mutex<Vec<RequestId>>,
    /// Those of them that were cancelled.
    pub(crate) cancelled: watch::Sender<Vec<RequestId>>,
}

impl EchoInvoker {
    pub(crate) fn new() -> Self {
        Self::returning(|invocation| Verdict::Returned(invocation.event.payload.clone()))
    }

    pub(crate) fn returning(
        verdict: impl Fn(&Invocation) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        Self {
            takes: Mutex::new(Duration::ZERO),
            verdict: Box::new(verdict),
            seen: Mutex::default(),
            running: Mutex::default(),
            current: Mutex::default(),
            cancelled: watch::Sender::default(),
        }
    }

    pub(crate) fn taking(self, time: Duration) -> Self {
        *self.takes.lock().unwrap() = time;
        self
    }

    /// The largest number of invocations that ever ran at once.
    pub(crate) fn most(&self) -> usize {
        self.running.lock().unwrap().1
    }
}

#[async_trait]
impl Invoke for EchoInvoker {
    async fn invoke(&self, invocation: Invocation) -> Outcome {
        {
            let mut running = self.running.lock().unwrap();
            running.0 += 1;
            running.1 = running.1.max(running.0);
        }
        let takes = *self.takes.lock().unwrap();
        let id = invocation.request_id;
        self.current.lock().unwrap().push(id);
        let mut cancelled = self.cancelled.subscribe();
        let verdict = tokio::select! {
            () = tokio::time::sleep(takes) => (self.verdict)(&invocation),
            _ = cancelled.wait_for(|all| all.contains(&id)) => {
                Verdict::Failed(Failure::cancelled())
            }
        };
        self.current.lock().unwrap().retain(|current| *current != id);
        self.running.lock().unwrap().0 -= 1;
        self.seen.lock().unwrap().push(invocation);
        let report = Report {
            started_at: START.parse().unwrap(),
            duration: takes,
            cold: false,
            init: None,
            memory_bytes: 0,
            node: None,
            log_tail: None,
        };
        Outcome { verdict, report }
    }

    async fn cancel(&self, request_id: RequestId) -> CancelReach {
        if !self.current.lock().unwrap().contains(&request_id) {
            return CancelReach::NotFound;
        }
        self.cancelled.send_modify(|all| all.push(request_id));
        CancelReach::Reached
    }
}
