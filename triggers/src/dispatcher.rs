//! One claimed event: from its claim to its settling. It is prepared and settled on the general
//! runtime and runs on the data plane. Its hold is renewed while it runs; a settle that fails is
//! tried again for as long as the hold lasts.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hanshu_core::ports::{
    CatalogError, Claim, EventEnd, EventQueue, EventSource, Invoke, QueueError, Receipt,
    RevisionCatalog,
};
use hanshu_core::{
    AsyncPolicy, Attempt, Clock, Event, Failure, FunctionId, Invocation, InvocationMode, NodeId,
    Outcome, Qualifier, Refusal, Revision, StatusCode, Timestamp, Verdict,
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
    pub catalog: Arc<dyn RevisionCatalog>,
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
    /// It ran for so long.
    For(Duration),
    /// It was refused for want of a place: stay away from the function for so long.
    Throttled(Duration),
    /// It was refused otherwise, or cut off.
    No,
}

/// One claimed event, with what its settling needs.
pub(crate) struct Held {
    pub(crate) parts: Parts,
    pub(crate) source: Arc<dyn EventSource>,
    pub(crate) claim: Claim,
    pub(crate) hold: Duration,
    /// When the claim was asked for: the hold is not longer than from then.
    pub(crate) claimed_at: Instant,
    pub(crate) work: CancellationToken,
}

/// One that can be run: as soon as it has a place.
pub(crate) struct Dispatch {
    pub(crate) held: Held,
    function: Arc<Revision>,
}

/// One that has run, or needs no run: what is left is to tell its queue.
pub(crate) struct After {
    held: Held,
    attempt: Option<Attempt>,
    settle: Settle,
}

/// What becomes of a claim.
enum Settle {
    End(EventEnd),
    Retry(Timestamp),
    /// Due again at once: it was not run, or not to its end.
    GiveBack,
}

/// Between tries of a settle: doubles up to the second figure.
const SETTLE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// One renewal, or one settle.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// What is left for giving events back when the server stops.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(2);

impl Held {
    /// Finds out what it is to run; `Err` if it needs no run.
    pub(crate) async fn prepare(self) -> Result<Dispatch, After> {
        let now = self.parts.clock.now();
        if self.claim.tries == 1 {
            let waited = Duration::try_from(now.duration_since(self.claim.accepted_at));
            metrics::event_waited(waited.unwrap_or_default());
        }
        if self.claim.expires_at <= now {
            let settle = Settle::End(EventEnd::Expired(None));
            return Err(After { held: self, attempt: None, settle });
        }
        match self.resolve().await {
            Ok(function) => Ok(Dispatch { held: self, function }),
            Err(CatalogError::Unavailable) => {
                let reason = "the registry cannot be reached".to_owned();
                let outcome = refused(reason, now);
                Err(self.decide(&AsyncPolicy::default(), outcome, 0).1)
            }
            Err(gone) => {
                let failure = Failure::seen(StatusCode::FunctionNotFound, gone.to_string());
                let settle = Settle::End(EventEnd::Failed(failure));
                Err(After { held: self, attempt: None, settle })
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

    /// What follows an outcome; `strikes` are the function's refusals in a row before this one.
    fn decide(self, policy: &AsyncPolicy, outcome: Outcome, strikes: u32) -> (Ran, After) {
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
                Ran::Throttled(self.parts.policy.pause(refusal, strikes + 1, at.jitter))
            }
            Verdict::Refused(_) => Ran::No,
            Verdict::Returned(_) | Verdict::Failed(_) => Ran::For(outcome.report.duration),
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
            (Decision::Expire, _, failure) => (attempt, Settle::End(EventEnd::Expired(failure))),
            (_, Verdict::Returned(json), _) => (attempt, Settle::End(EventEnd::Succeeded(json))),
            (_, _, Some(failure)) => (attempt, Settle::End(EventEnd::Failed(failure))),
            (_, _, None) => (attempt, Settle::Retry(at.now)),
        };
        (ran, After { held: self, attempt, settle })
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
            Settle::GiveBack => self.source.retry(receipt, self.parts.clock.now(), None).await,
        }
    }
}

impl Dispatch {
    /// Whose.
    pub(crate) fn function(&self) -> &FunctionId {
        &self.held.claim.queue.function
    }

    /// Runs it, on the caller's own task: to be called on the data plane. One that waited so long
    /// for its place that its hold may soon be over is put back: it must not begin here after it
    /// ended elsewhere.
    pub(crate) async fn run(mut self, strikes: u32) -> (Ran, After) {
        if self.held.claimed_at + self.held.hold / 2 < Instant::now() {
            return (Ran::No, self.give_back());
        }
        let policy = self.function.config.async_policy.clone();
        match self.invoke().await {
            Some(outcome) => self.held.decide(&policy, outcome, strikes),
            None => (Ran::No, self.give_back()),
        }
    }

    /// Not to be run here, or not now.
    pub(crate) fn give_back(self) -> After {
        After { held: self.held, attempt: None, settle: Settle::GiveBack }
    }

    /// `None` if the server's grace was over before the answer came.
    async fn invoke(&mut self) -> Option<Outcome> {
        let held = &mut self.held;
        let invocation = Invocation {
            request_id: held.claim.request_id,
            function: self.function.clone(),
            event: Event { origin: held.claim.origin.clone(), payload: held.claim.payload.clone() },
            mode: InvocationMode::Async { attempt: held.claim.attempt },
        };
        let invoke = held.parts.invoke.clone();
        let running = AssertUnwindSafe(invoke.invoke(invocation)).catch_unwind();
        tokio::pin!(running);
        let every = held.hold / 3;
        let mut renewal = interval_at(held.claimed_at + every, every);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ours = true;
        let work = held.work.clone();
        loop {
            tokio::select! {
                biased;
                outcome = &mut running => return Some(outcome.unwrap_or_else(|_| {
                    warn!("An invocation was lost");
                    lost(&*held.parts.clock)
                })),
                () = work.cancelled() => return None,
                // Dropped in the middle, a renewal may or may not have happened: both are fine.
                // What runs goes on meanwhile only when this is over; holds are long.
                _ = renewal.tick(), if ours => ours = held.renew().await,
            }
        }
    }
}

impl After {
    /// Tells the queue, and tries again while the hold lasts. What cannot be settled is claimed
    /// again, by whoever comes, when the hold is over.
    pub(crate) async fn keep(self) {
        let Self { held, attempt, settle } = self;
        if matches!(settle, Settle::GiveBack) {
            return give_back(held).await;
        }
        let until = held.claimed_at + held.hold;
        let mut pause = SETTLE_PAUSE.0;
        loop {
            let error = match timeout(STORE_TIMEOUT, held.settle_once(&attempt, &settle)).await {
                Ok(Ok(())) => return metrics::event_settled(how(&settle, attempt.is_some())),
                Ok(Err(error @ QueueError::Stale(_))) => {
                    warn!(%error, "An event's end came too late: it runs once more");
                    return metrics::event_settled("lost");
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the queue did not answer in time".to_owned(),
            };
            if until <= Instant::now() + pause {
                let request_id = held.claim.request_id;
                warn!(error, %request_id, "An event's end could not be kept: it runs once more");
                return metrics::event_settled("lost");
            }
            sleep(pause).await;
            pause = (pause * 2).min(SETTLE_PAUSE.1);
        }
    }
}

/// The event is due again at once, for another node or the next start. Where even that fails, its
/// hold runs out.
async fn give_back(held: Held) {
    let request_id = held.claim.request_id;
    match timeout(GIVE_BACK_TIMEOUT, held.settle_once(&None, &Settle::GiveBack)).await {
        Ok(Ok(())) => debug!(%request_id, "An event was put back"),
        Ok(Err(_)) | Err(_) => {
            warn!(%request_id, "An event could not be put back; it is due when its hold is over");
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
                lost(&*self.clock)
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lost(clock: &dyn Clock) -> Outcome {
    refused("the invocation was lost on its node".to_owned(), clock.now())
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
        Settle::End(EventEnd::Succeeded(_)) => "succeeded",
        Settle::End(EventEnd::Failed(_)) => "failed",
        Settle::End(EventEnd::Expired(_)) => "expired",
        Settle::Retry(_) if attempted => "retry",
        Settle::Retry(_) | Settle::GiveBack => "refused",
    }
}
