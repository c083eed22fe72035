//! An invoker whose functions do what their names say.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::{CancelReach, Invoke};
use hanshu_core::{
    Failure, Invocation, InvocationMode, NodeId, Outcome, Refusal, Report, RequestId, StatusCode,
    Verdict,
};
use tokio::sync::Notify;

use crate::test_support::start;

/// An invoker whose functions do what their names say; any other returns its event.
#[derive(Default)]
pub(crate) struct Echo {
    /// Calls of `waits` and `held` that began.
    pub(crate) began: Notify,
    /// Calls of `waits` that were dropped in the middle.
    pub(crate) dropped: Notify,
    /// Lets a call of `held` end.
    pub(crate) release: Notify,
    /// What a cancellation finds; nothing if absent.
    pub(crate) reach: Mutex<Option<CancelReach>>,
    /// All calls so far.
    pub(crate) calls: AtomicUsize,
    /// Says its name in reports.
    pub(crate) node: Option<NodeId>,
}

struct Dropped<'a>(Option<&'a Notify>);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if let Some(notify) = self.0 {
            notify.notify_one();
        }
    }
}

fn failed(status_code: StatusCode) -> Verdict {
    Verdict::Failed(Failure {
        status_code,
        error_code: 1,
        error_message: "a secret reason".into(),
        error_type: None,
        stack_trace: Some("index.py, line 3".into()),
    })
}

impl Echo {
    async fn verdict(&self, invocation: &Invocation) -> Verdict {
        match invocation.function.function.name.as_str() {
            "raises" => failed(StatusCode::UserException),
            "late" => failed(StatusCode::TimeLimitReached),
            "stopped" => Verdict::Failed(Failure::cancelled()),
            "throttled" => Verdict::Refused(Refusal::Concurrency { limit: 3 }),
            "broken" => Verdict::Refused(Refusal::Sandbox { reason: "it did not start".into() }),
            "stopping" => {
                Verdict::Refused(Refusal::Unavailable { reason: "the node is stopping".into() })
            }
            "page" => Verdict::Returned(Bytes::from_static(
                br#"{"statusCode":201,"headers":{"content-type":"text/html"},"body":"<p>hi"}"#,
            )),
            "wrong-page" => Verdict::Returned(Bytes::from_static(br#"{"statusCode":"x"}"#)),
            "held" => {
                self.began.notify_one();
                self.release.notified().await;
                Verdict::Returned(Bytes::from_static(b"\"released\""))
            }
            "waits" => {
                let mut dropped = Dropped(Some(&self.dropped));
                self.began.notify_one();
                tokio::time::sleep(Duration::from_secs(30)).await;
                dropped.0 = None;
                Verdict::Returned(Bytes::from_static(b"null"))
            }
            _ => Verdict::Returned(invocation.event.payload.clone()),
        }
    }
}

#[async_trait]
impl Invoke for Echo {
    async fn invoke(&self, invocation: Invocation) -> Outcome {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let verdict = self.verdict(&invocation).await;
        let tail = match invocation.mode {
            InvocationMode::Sync { tail, .. } => tail.then(|| "the log's end".to_owned()),
            InvocationMode::Async { .. } => None,
        };
        let report = Report {
            started_at: start(),
            duration: Duration::from_micros(1_234),
            cold: false,
            init: None,
            memory_bytes: 0,
            node: self.node.clone(),
            log_tail: tail,
        };
        Outcome { verdict, report }
    }

    async fn cancel(&self, _: RequestId) -> CancelReach {
        self.reach.lock().unwrap().unwrap_or(CancelReach::NotFound)
    }
}
