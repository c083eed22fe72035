//! One claimed event: from its claim to its settling. Its hold is renewed while it runs; a settle
//! that fails is tried again for as long as the hold lasts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hanshu_core::ports::{
    Catalog, CatalogError, Claim, Ended, EventQueue, EventSource, Invoke, QueueError, Receipt,
};
use hanshu_core::{
    AsyncPolicy, Attempt, Clock, Event, Failure, Invocation, Mode, NodeId, Outcome, Qualifier,
    Refusal, Revision, StatusCode, Timestamp, Verdict,
};
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::metrics;
use crate::retry::{Decision, RetryPolicy, Standing};

/// What dispatchers and stream sources work with.
#[derive(Clone)]
pub struct Parts {
    /// Our queues.
    pub queue: Arc<dyn EventQueue>,
    /// Which revision an event is for.
    pub catalog: Arc<dyn Catalog>,
    /// Runs them.
    pub invoke: Arc<dyn Invoke>,
    /// For due times and expiry.
    pub clock: Arc<dyn Clock>,
    /// This node: claims are made in its name.
    pub node: NodeId,
    /// The data plane: invocations run there.
    pub data: Handle,
    /// What follows an attempt.
    pub policy: RetryPolicy,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("node", &self.node).finish_non_exhaustive()
    }
}

/// How a claim ended for its function's share of the places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It ran, or needed no run.
    Yes,
    /// It was refused for want of a place: stay away from the function for so long.
    Throttled(Duration),
}

/// One claimed event, with what its settling needs.
pub(crate) struct Dispatch {
    pub(crate) parts: Parts,
    pub(crate) source: Arc<dyn EventSource>,
    pub(crate) claim: Claim,
    pub(crate) hold: Duration,
    /// When the claim was asked for: the hold is not longer than from then.
    pub(crate) claimed_at: Instant,
    /// Refusals of the function in a row, for its pause.
    pub(crate) strikes: u32,
    pub(crate) work: CancellationToken,
}

/// What becomes of a claim.
enum Settle {
    End(Ended),
    Retry(Timestamp),
}

/// Between tries of a settle: doubles up to the second figure.
const SETTLE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// One renewal, or one settle.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// What is left for giving events back when the server stops.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(2);

impl Dispatch {
    /// Runs the event and settles it.
    pub(crate) async fn run(mut self) -> Ran {
        let now = self.parts.clock.now();
        if self.claim.tries == 1 {
            let waited = Duration::try_from(now.duration_since(self.claim.accepted_at));
            metrics::event_waited(waited.unwrap_or_default());
        }
        if self.claim.expires_at <= now {
            self.settle(None, Settle::End(Ended::Expired(None))).await;
            return Ran::Yes;
        }
        let function = match self.resolve().await {
            Ok(function) => function,
            Err(CatalogError::Unavailable) => {
                let reason = "the registry cannot be reached".to_owned();
                return self.decide(&AsyncPolicy::default(), refused(reason, now)).await;
            }
            Err(gone) => {
                let failure = Failure::seen(StatusCode::FunctionNotFound, gone.to_string());
                self.settle(None, Settle::End(Ended::Failed(failure))).await;
                return Ran::Yes;
            }
        };
        let policy = function.config.async_policy.clone();
        match self.invoke(function).await {
            Some(outcome) => self.decide(&policy, outcome).await,
            None => {
                self.give_back().await;
                Ran::Yes
            }
        }
    }

    async fn resolve(&self) -> Result<Arc<Revision>, CatalogError> {
        let (function, catalog) = (&self.claim.queue.function, &self.parts.catalog);
        match &self.claim.revision {
            Some(revision) => catalog.pinned(function, self.claim.version, revision).await,
            None => catalog.resolve(&function.namespace, &function.name, Qualifier::Latest),
        }
    }

    /// Runs on the data plane; `None` if the server's grace was over before the answer came.
    async fn invoke(&mut self, function: Arc<Revision>) -> Option<Outcome> {
        let invocation = Invocation {
            request_id: self.claim.request_id,
            function,
            event: Event { origin: self.claim.origin.clone(), payload: self.claim.payload.clone() },
            mode: Mode::Async { attempt: self.claim.attempt },
        };
        let mut running = spawn(&self.parts, invocation);
        let every = self.hold / 3;
        let mut renewal = interval_at(self.claimed_at + every, every);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ours = true;
        let work = self.work.clone();
        loop {
            tokio::select! {
                biased;
                outcome = running.answer() => return Some(outcome),
                () = work.cancelled() => return None,
                // Dropped in the middle, a renewal may or may not have happened: both are fine.
                _ = renewal.tick(), if ours => ours = self.renew().await,
            }
        }
    }

    /// Whether the claim is still ours. (If it is not, what runs here runs to its end, and its
    /// settle will be refused: at least once.)
    async fn renew(&mut self) -> bool {
        let asked_at = Instant::now();
        let renewed = self.source.extend(&self.claim.receipt, self.hold);
        match timeout(STORE_TIMEOUT.min(self.hold / 3), renewed).await {
            Ok(Ok(())) => self.claimed_at = asked_at,
            Ok(Err(QueueError::Stale(_))) => {
                warn!(request_id = %self.claim.request_id, "A running event's hold was lost");
                return false;
            }
            Ok(Err(error)) => debug!(%error, "A hold could not be renewed yet"),
            Err(_) => debug!("A hold could not be renewed in time"),
        }
        true
    }

    async fn decide(self, policy: &AsyncPolicy, outcome: Outcome) -> Ran {
        let at = Standing {
            attempt: self.claim.attempt,
            tries: self.claim.tries,
            expires_at: self.claim.expires_at,
            now: self.parts.clock.now(),
            jitter: rand::random(),
        };
        let decision = self.parts.policy.decide(policy, &outcome.verdict, at);
        let ran = match &outcome.verdict {
            Verdict::Refused(refusal) if refusal.is_throttle() => {
                let strikes = self.strikes + 1;
                Ran::Throttled(self.parts.policy.pause(refusal, strikes, at.jitter))
            }
            Verdict::Returned(_) | Verdict::Failed(_) | Verdict::Refused(_) => Ran::Yes,
        };
        let attempt = Attempt {
            number: self.claim.attempt,
            started_at: outcome.report.started_at,
            ended_at: Some(outcome.report.started_at + outcome.report.duration),
            status: Some(outcome.verdict.status()),
            node: outcome.report.node.or_else(|| Some(self.parts.node.clone())),
            cold: outcome.report.cold,
        };
        let (failure, attempt) = match &outcome.verdict {
            Verdict::Returned(_) => (None, Some(attempt)),
            Verdict::Failed(failure) => (Some(failure.clone()), Some(attempt)),
            Verdict::Refused(refusal) => {
                (Some(Failure::seen(refusal.status(), refusal.to_string())), None)
            }
        };
        let (attempt, settle) = match (decision, outcome.verdict, failure) {
            (Decision::RetryAt { due, counts }, ..) => {
                (attempt.filter(|_| counts), Settle::Retry(due))
            }
            (Decision::Expire, _, failure) => (attempt, Settle::End(Ended::Expired(failure))),
            (_, Verdict::Returned(json), _) => (attempt, Settle::End(Ended::Succeeded(json))),
            (_, _, Some(failure)) => (attempt, Settle::End(Ended::Failed(failure))),
            (_, _, None) => (attempt, Settle::Retry(at.now)),
        };
        self.settle(attempt, settle).await;
        ran
    }

    /// Settles, and tries again while the hold lasts. What cannot be settled is claimed again,
    /// by whoever comes, when the hold is over.
    async fn settle(&self, attempt: Option<Attempt>, settle: Settle) {
        let until = self.claimed_at + self.hold;
        let mut pause = SETTLE_PAUSE.0;
        loop {
            let error = match timeout(STORE_TIMEOUT, self.settle_once(&attempt, &settle)).await {
                Ok(Ok(())) => return metrics::event_settled(how(&settle, attempt.is_some())),
                Ok(Err(error @ QueueError::Stale(_))) => {
                    warn!(%error, "An event's end came too late: it runs once more");
                    return metrics::event_settled("lost");
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the queue did not answer in time".to_owned(),
            };
            if until <= Instant::now() + pause {
                let request_id = self.claim.request_id;
                warn!(error, %request_id, "An event's end could not be kept: it runs once more");
                return metrics::event_settled("lost");
            }
            sleep(pause).await;
            pause = (pause * 2).min(SETTLE_PAUSE.1);
        }
    }

    async fn settle_once(
        &self,
        attempt: &Option<Attempt>,
        settle: &Settle,
    ) -> Result<(), QueueError> {
        // One claim is settled once; the receipt is written anew only because a settle that
        // failed has consumed it.
        let Receipt { key, claim } = &self.claim.receipt;
        let receipt = Receipt { key: key.clone(), claim: *claim };
        match settle {
            Settle::End(ended) => self.source.end(receipt, attempt.clone(), ended.clone()).await,
            Settle::Retry(due) => self.source.retry(receipt, *due, attempt.clone()).await,
        }
    }

    /// The server stops: the event is due again at once, for another node or the next start. Where
    /// even that fails, its hold runs out.
    async fn give_back(self) {
        let request_id = self.claim.request_id;
        let settle = Settle::Retry(self.parts.clock.now());
        let given_back = self.settle_once(&None, &settle);
        match timeout(GIVE_BACK_TIMEOUT, given_back).await {
            Ok(Ok(())) => warn!(%request_id, "A running event was cut off and put back"),
            Ok(Err(_)) | Err(_) => {
                warn!(%request_id, "A running event was cut off; it is due when its hold is over");
            }
        }
    }
}

/// An invocation on the data plane. Dropping it gives the answer up, and the invocation with it.
pub(crate) struct Running {
    task: tokio::task::JoinHandle<Outcome>,
    clock: Arc<dyn Clock>,
}

/// Starts an invocation on the data plane.
pub(crate) fn spawn(parts: &Parts, invocation: Invocation) -> Running {
    let invoke = parts.invoke.clone();
    // The tracker is not waited for: whoever holds the `Running` waits, or aborts it.
    let task =
        TaskTracker::new().spawn_on(async move { invoke.invoke(invocation).await }, &parts.data);
    Running { task, clock: parts.clock.clone() }
}

impl Running {
    /// Waits for the answer. May be dropped and called again.
    pub(crate) async fn answer(&mut self) -> Outcome {
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) => {
                warn!(%error, "An invocation was lost");
                refused("the invocation was lost on its node".to_owned(), self.clock.now())
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn refused(reason: String, started_at: Timestamp) -> Outcome {
    let report = hanshu_core::Report {
        started_at,
        duration: Duration::ZERO,
        cold: false,
        init: None,
        memory_bytes: 0,
        node: None,
        log_tail: None,
    };
    Outcome { verdict: Verdict::Refused(Refusal::Unavailable { reason }), report }
}

fn how(settle: &Settle, attempted: bool) -> &'static str {
    match settle {
        Settle::End(Ended::Succeeded(_)) => "succeeded",
        Settle::End(Ended::Failed(_)) => "failed",
        Settle::End(Ended::Expired(_)) => "expired",
        Settle::Retry(_) if attempted => "retry",
        Settle::Retry(_) => "refused",
    }
}
