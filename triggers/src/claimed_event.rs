//! One claimed event, from its claim to its settling. It is prepared and settled on the general
//! runtime and runs on the data plane. Its hold is renewed while it runs; a settle that fails is
//! repeated for as long as the hold lasts.
//!
//! The stages are types, so that none can be skipped: [`ClaimedEvent`] → [`PreparedInvocation`] →
//! [`Settlement`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hanshu_core::ports::{
    CancelReach, CatalogError, Claim, EventEnd, EventSource, HoldStatus, QueueError, RetryOutcome,
};
use hanshu_core::{
    AsyncPolicy, Attempt, Backoff, Event, Failure, FunctionId, Invocation, InvocationMode, Outcome,
    Refusal, Revision, StatusCode, Timestamp, Verdict,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::dispatch_context::{DispatchContext, lost_outcome};
use crate::fair_queue::RunFeedback;
use crate::metrics;
use crate::retry::{RetryDecision, RetryInput};

/// An event that this node has claimed, with what its settling needs.
pub(crate) struct ClaimedEvent {
    pub(crate) context: DispatchContext,
    pub(crate) source: Arc<dyn EventSource>,
    pub(crate) claim: Claim,
    /// How long the claim holds, from `claimed_at`.
    pub(crate) hold: Duration,
    /// When the claim, or its last renewal, was asked for: the hold may have begun then.
    pub(crate) claimed_at: Instant,
    /// Cancelled when the server's grace is over.
    pub(crate) cut_off: CancellationToken,
}

/// An event whose revision is known: it runs as soon as it has a slot.
pub(crate) struct PreparedInvocation {
    claimed: ClaimedEvent,
    revision: Arc<Revision>,
}

/// What is left to do with an event that ran, or needs no run: store its end or its next attempt.
pub(crate) struct Settlement {
    claimed: ClaimedEvent,
    attempt: Option<Attempt>,
    action: SettleAction,
}

/// What becomes of a claim.
enum SettleAction {
    End(EventEnd),
    Retry(Timestamp),
    /// Due again at once: it did not run, or not to its end.
    PutBack,
}

/// Why a run is over.
enum RunEnd {
    Finished(Outcome),
    /// The server's grace was over before the outcome came.
    CutOff,
}

/// Between tries of a settle.
const SETTLE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// Deadline of one renewal, or one settle.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Deadline for putting an event back when the server stops.
const PUT_BACK_TIMEOUT: Duration = Duration::from_secs(2);

impl ClaimedEvent {
    /// Finds the revision that is to run; `Err` if the event needs no run.
    pub(crate) async fn prepare(self) -> Result<PreparedInvocation, Settlement> {
        let now = self.context.clock.now();
        if self.claim.tries == 1 {
            let waited = Duration::try_from(now.duration_since(self.claim.accepted_at));
            metrics::event_waited(waited.unwrap_or_default());
        }
        if self.claim.cancel_requested {
            // Whoever held it before was lost; it must not run again.
            let action = SettleAction::End(EventEnd::Cancelled);
            return Err(Settlement { claimed: self, attempt: None, action });
        }
        if self.claim.expires_at <= now {
            let action = SettleAction::End(EventEnd::Expired(None));
            return Err(Settlement { claimed: self, attempt: None, action });
        }
        match self.resolve().await {
            Ok(revision) => Ok(PreparedInvocation { claimed: self, revision }),
            Err(CatalogError::Unavailable) => {
                let reason = "the registry cannot be reached".to_owned();
                let outcome = Outcome::refused(Refusal::Unavailable { reason }, now);
                Err(self.decide(&AsyncPolicy::default(), outcome, 0).1)
            }
            Err(gone) => {
                let failure = Failure::seen(StatusCode::FunctionNotFound, gone.to_string());
                let action = SettleAction::End(EventEnd::Failed(failure));
                Err(Settlement { claimed: self, attempt: None, action })
            }
        }
    }

    async fn resolve(&self) -> Result<Arc<Revision>, CatalogError> {
        let (function, catalog) = (&self.claim.queue.function, &self.context.catalog);
        catalog.pinned(function, self.claim.version, &self.claim.revision).await
    }

    /// Renews the hold, and cancels the invocation if somebody asked for that; `false` if another
    /// node has the claim now. (What runs here runs to its end then, and its settle is refused:
    /// delivery is at least once.)
    async fn renew(&mut self) -> bool {
        let asked_at = Instant::now();
        let renewed = self.source.extend(&self.claim.receipt, self.hold);
        match timeout(STORE_TIMEOUT.min(self.hold / 3), renewed).await {
            Ok(Ok(HoldStatus::Extended)) => self.claimed_at = asked_at,
            Ok(Ok(HoldStatus::CancelRequested)) => {
                self.claimed_at = asked_at;
                self.cancel_run().await;
            }
            Ok(Err(QueueError::Stale(_))) => {
                warn!(request_id = %self.claim.request_id, "A running event's hold was lost");
                return false;
            }
            Ok(Err(error)) => debug!(%error, "A hold could not be renewed yet"),
            Err(_) => debug!("A hold could not be renewed in time"),
        }
        true
    }

    /// Cancels the invocation. Usually whoever asked for it has done so already; this is for a node
    /// that could not be reached, or an event that had not begun to run then.
    async fn cancel_run(&self) {
        let request_id = self.claim.request_id;
        match timeout(STORE_TIMEOUT, self.context.invoke.cancel(request_id)).await {
            Ok(CancelReach::Reached) => debug!(%request_id, "A running event is cancelled"),
            // It is tried again at the next renewal.
            Ok(CancelReach::NotFound | CancelReach::Unknown) | Err(_) => {
                debug!(%request_id, "A running event could not be cancelled yet");
            }
        }
    }

    /// Decides what follows an outcome. `throttled_runs` are the function's consecutive throttled
    /// runs before this one.
    fn decide(
        self,
        policy: &AsyncPolicy,
        outcome: Outcome,
        throttled_runs: u32,
    ) -> (RunFeedback, Settlement) {
        let input = RetryInput {
            attempt: self.claim.attempt,
            tries: self.claim.tries,
            expires_at: self.claim.expires_at,
            now: self.context.clock.now(),
            jitter: rand::random(),
        };
        let decision = self.context.policy.decide(policy, &outcome.verdict, input);
        let feedback = match &outcome.verdict {
            Verdict::Refused(refusal) if refusal.is_throttle() => RunFeedback::Throttled(
                self.context.policy.pause(refusal, throttled_runs + 1, input.jitter),
            ),
            Verdict::Refused(_) => RunFeedback::NotRun,
            // How long it ran says nothing of how long the function takes.
            Verdict::Failed(_) if outcome.verdict.is_cancelled() => RunFeedback::NotRun,
            Verdict::Returned(_) | Verdict::Failed(_) => RunFeedback::Ran(outcome.report.duration),
        };
        let attempt = Attempt {
            number: self.claim.attempt,
            started_at: outcome.report.started_at,
            ended_at: Some(outcome.report.started_at + outcome.report.duration),
            status: Some(outcome.verdict.status()),
            node: outcome.report.node.or_else(|| Some(self.context.node.clone())),
            cold: outcome.report.cold,
        };
        let (failure, attempt) = match &outcome.verdict {
            Verdict::Returned(_) => (None, Some(attempt)),
            Verdict::Failed(failure) => (Some(failure.clone()), Some(attempt)),
            Verdict::Refused(refusal) => {
                (Some(Failure::seen(refusal.status(), refusal.to_string())), None)
            }
        };
        let (attempt, action) = match (decision, outcome.verdict, failure) {
            (RetryDecision::RetryAt { due, counts }, ..) => {
                (attempt.filter(|_| counts), SettleAction::Retry(due))
            }
            (RetryDecision::Cancel, ..) => (attempt, SettleAction::End(EventEnd::Cancelled)),
            (RetryDecision::Expire, _, failure) => {
                (attempt, SettleAction::End(EventEnd::Expired(failure)))
            }
            (_, Verdict::Returned(json), _) => {
                (attempt, SettleAction::End(EventEnd::Succeeded(json)))
            }
            (_, _, Some(failure)) => (attempt, SettleAction::End(EventEnd::Failed(failure))),
            (_, _, None) => (attempt, SettleAction::Retry(input.now)),
        };
        (feedback, Settlement { claimed: self, attempt, action })
    }

    /// Settles once; returns the label of the metric.
    async fn settle_once(
        &self,
        attempt: &Option<Attempt>,
        action: &SettleAction,
    ) -> Result<&'static str, QueueError> {
        let receipt = &self.claim.receipt;
        let (due, attempt) = match action {
            SettleAction::End(end) => {
                self.source.end(receipt, attempt.clone(), end.clone()).await?;
                return Ok(end_label(end));
            }
            SettleAction::Retry(due) => (*due, attempt.clone()),
            SettleAction::PutBack => (self.context.clock.now(), None),
        };
        let attempted = attempt.is_some();
        Ok(match self.source.retry(receipt, due, attempt).await? {
            RetryOutcome::Waiting if attempted => "retry",
            RetryOutcome::Waiting => "refused",
            RetryOutcome::Cancelled => end_label(&EventEnd::Cancelled),
        })
    }
}

impl PreparedInvocation {
    /// The function that runs.
    pub(crate) fn function(&self) -> &FunctionId {
        &self.claimed.claim.queue.function
    }

    /// Runs the event on the caller's own task: to be called on the data plane. An event that
    /// waited for its slot until its hold is half over is put back instead, so that it cannot
    /// begin here after it ended elsewhere.
    pub(crate) async fn run(mut self, throttled_runs: u32) -> (RunFeedback, Settlement) {
        if self.claimed.claimed_at + self.claimed.hold / 2 < Instant::now() {
            return (RunFeedback::NotRun, self.put_back());
        }
        let policy = self.revision.config.async_policy.clone();
        match self.invoke().await {
            RunEnd::Finished(outcome) => self.claimed.decide(&policy, outcome, throttled_runs),
            RunEnd::CutOff => (RunFeedback::NotRun, self.put_back()),
        }
    }

    /// The settlement of an event that is not to run here, or not now.
    pub(crate) fn put_back(self) -> Settlement {
        Settlement { claimed: self.claimed, attempt: None, action: SettleAction::PutBack }
    }

    /// Runs the invocation while renewing the hold. Everything that may end a run early is an arm
    /// of this loop.
    async fn invoke(&mut self) -> RunEnd {
        let claimed = &mut self.claimed;
        let claim = &claimed.claim;
        let invocation = Invocation {
            request_id: claim.request_id,
            function: self.revision.clone(),
            event: Event { origin: claim.origin.clone(), payload: claim.payload.clone() },
            mode: InvocationMode::Async { attempt: claim.attempt },
        };
        let invoke = claimed.context.invoke.clone();
        let run = AssertUnwindSafe(invoke.invoke(invocation)).catch_unwind();
        tokio::pin!(run);
        let every = claimed.hold / 3;
        let mut renewal = interval_at(claimed.claimed_at + every, every);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_hold = true;
        let cut_off = claimed.cut_off.clone();
        loop {
            tokio::select! {
                biased;
                outcome = &mut run => return RunEnd::Finished(outcome.unwrap_or_else(|_| {
                    warn!("An invocation was lost");
                    lost_outcome(&*claimed.context.clock)
                })),
                () = cut_off.cancelled() => return RunEnd::CutOff,
                // A renewal that is dropped half way may have happened or not: both are fine. The
                // run is not polled meanwhile; a hold is long enough for that.
                _ = renewal.tick(), if has_hold => has_hold = claimed.renew().await,
            }
        }
    }
}

impl Settlement {
    /// Settles the claim, and repeats that while the hold lasts. What cannot be settled is claimed
    /// again by any node when the hold is over.
    pub(crate) async fn settle(self) {
        let Self { claimed, attempt, action } = self;
        if matches!(action, SettleAction::PutBack) {
            return put_back(claimed).await;
        }
        let until = claimed.claimed_at + claimed.hold;
        for tries in 1.. {
            let settled = timeout(STORE_TIMEOUT, claimed.settle_once(&attempt, &action)).await;
            let error = match settled {
                Ok(Ok(label)) => return metrics::event_settled(label),
                Ok(Err(error @ QueueError::Stale(_))) => {
                    warn!(%error, "An event's end came too late: it runs once more");
                    return metrics::event_settled("lost");
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the queue did not answer in time".to_owned(),
            };
            let pause = SETTLE_BACKOFF.delay(tries);
            if until <= Instant::now() + pause {
                let request_id = claimed.claim.request_id;
                warn!(error, %request_id, "An event's end could not be kept: it runs once more");
                return metrics::event_settled("lost");
            }
            sleep(pause).await;
        }
    }
}

/// Makes the event due again at once, for another node or the next start. If that fails too, it is
/// due when its hold is over.
async fn put_back(claimed: ClaimedEvent) {
    let request_id = claimed.claim.request_id;
    let settled = claimed.settle_once(&None, &SettleAction::PutBack);
    match timeout(PUT_BACK_TIMEOUT, settled).await {
        Ok(Ok(_)) => debug!(%request_id, "An event was put back"),
        Ok(Err(_)) | Err(_) => {
            warn!(%request_id, "An event could not be put back; it is due when its hold is over");
        }
    }
}

/// The label of the metric.
fn end_label(end: &EventEnd) -> &'static str {
    match end {
        EventEnd::Succeeded(_) => "succeeded",
        EventEnd::Failed(_) => "failed",
        EventEnd::Expired(_) => "expired",
        EventEnd::Cancelled => "cancelled",
    }
}
