//! One event in a sandbox, from the lease to its record, whoever is left to see it through.
//!
//! If the caller's future is dropped in the middle (the client hung up), the event goes on in a
//! task of the general runtime until its answer or its deadline, is recorded, and the sandbox is
//! given back in health.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::{
    ColdStart, Failure, Invocation, InvocationMode, InvocationRecord, LOG_TAIL_BYTES_MAX, Outcome,
    Refusal, Report, RequestId, Revision, RuntimeFamily, StatusCode, Timestamp, TriggerName,
    Verdict,
};
use hanshu_runtimes::wire::BODY_BYTES_MAX;
use tokio::time::Instant;

use crate::sandbox::control::SandboxEnd;
use crate::sandbox::exchange::{ConnectionError, EventExchange, ExchangeError, RuntimeAnswer};
use crate::sandbox::launch::{ending, failure_of, out_of_memory};
use crate::sandbox::logs::EventOutput;
use crate::sandbox::start_message::millis;
use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::{AcquireError, Lease};

/// After the data connection has ended: how long the shim may take to say why.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(100);

/// Whose event it is.
#[derive(Clone, Debug)]
pub(crate) struct InvocationTarget {
    pub(crate) request_id: RequestId,
    pub(crate) revision: Arc<Revision>,
    pub(crate) trigger: Option<TriggerName>,
    pub(crate) mode: InvocationMode,
}

/// An event in a sandbox. Dropping it moves it to a task of its own.
pub(crate) struct Execution {
    node: Arc<NodeContext>,
    event: Option<EventExecution>,
}

struct EventExecution {
    subject: InvocationTarget,
    lease: Lease,
    exchange: EventExchange,
    started_at: Timestamp,
    begun: Instant,
    deadline: Instant,
    /// For the first event of a sandbox that was started for it: how long that took.
    init: Option<Duration>,
}

/// What came of an event that was handed to a sandbox.
pub(crate) enum ExecutionResult {
    /// It ended so.
    Ended(Box<Outcome>),
    /// The sandbox ended first: the event can be handed to another.
    NotBegun,
}

/// Why there is no answer.
enum RunError {
    TimedOut,
    Exchange(ExchangeError),
}

impl InvocationTarget {
    /// The parts of an invocation: whose it is, and the event.
    pub(crate) fn of(invocation: Invocation) -> (Self, hanshu_core::Event) {
        let Invocation { request_id, function, event, mode } = invocation;
        let trigger = event.origin.trigger().cloned();
        (Self { request_id, revision: function, trigger, mode }, event)
    }

    /// Whether its work is as a rule done by children of the runtime.
    fn runs_children(&self) -> bool {
        match self.revision.config.runtime.family() {
            RuntimeFamily::Shell | RuntimeFamily::Custom => true,
            RuntimeFamily::Python | RuntimeFamily::Nodejs | RuntimeFamily::Go => false,
        }
    }

    fn wants_tail(&self) -> bool {
        matches!(self.mode, InvocationMode::Sync { tail: true, .. })
    }
}

impl Execution {
    /// Hands the event to the sandbox.
    ///
    /// # Errors
    /// The event is over the limit: the failure, and the subject back.
    pub(crate) fn begin(
        node: &Arc<NodeContext>,
        lease: Lease,
        subject: InvocationTarget,
        event: &hanshu_core::Event,
    ) -> Result<Self, Box<(InvocationTarget, Verdict)>> {
        let timeout = subject.revision.config.timeout;
        let payload = Bytes::clone(&event.payload);
        let length = payload.len();
        let exchange =
            EventExchange::new(subject.request_id, &event.origin, millis(timeout), payload);
        let Ok(exchange) = exchange else {
            let message = format!("the event has {length} bytes, more than {BODY_BYTES_MAX}");
            let failure = Failure::seen(StatusCode::UserCodeError, message);
            return Err(Box::new((subject, Verdict::Failed(failure))));
        };
        let instance = lease.instance();
        let cold = instance.first_use() && lease.waited;
        let init = cold.then_some(instance.init);
        let cold_start = cold.then_some(instance.cold_start);
        instance.log.begin(subject.request_id, subject.wants_tail(), cold_start);
        let begun = Instant::now();
        let event = EventExecution {
            subject,
            exchange,
            started_at: node.launcher.outlet.clock.now(),
            begun,
            deadline: begun + timeout,
            init,
            lease,
        };
        Ok(Self { node: Arc::clone(node), event: Some(event) })
    }

    /// Sees the event through to its outcome and its record; or, where that `may_be_again`, up to
    /// a sandbox that ended before it had read the event.
    pub(crate) async fn outcome(mut self, may_be_again: bool) -> Option<ExecutionResult> {
        let answer = self.event.as_mut()?.answer(&self.node).await;
        // From here on nothing that is dropped is left to itself but last words.
        let event = self.event.take()?;
        let unread = matches!(
            &answer,
            Err((RunError::Exchange(ExchangeError::Conn(ConnectionError::Unread)), _))
        );
        let instance = event.lease.instance();
        if unread && may_be_again && !instance.leash.was_taken_away() {
            tracing::warn!(instance = %instance.id, "A sandbox was lost before it began");
            instance.log.end();
            return Some(ExecutionResult::NotBegun);
        }
        Some(ExecutionResult::Ended(Box::new(event.settle(&self.node, answer))))
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        if let Some(mut event) = self.event.take() {
            let node = Arc::clone(&self.node);
            self.node.tasks.spawn(async move {
                let answer = event.answer(&node).await;
                event.settle(&node, answer);
            });
        }
    }
}

/// What came of an event, with all that must be waited for.
type AnswerResult = Result<RuntimeAnswer, (RunError, Option<SandboxEnd>)>;

impl EventExecution {
    /// Waits for the answer until the deadline. May be dropped and called again.
    async fn answer(&mut self, node: &Arc<NodeContext>) -> AnswerResult {
        let Self { lease, exchange, deadline, begun, .. } = self;
        let instance = Arc::clone(lease.instance());
        let Some(conn) = lease.begin() else {
            return Err((RunError::Exchange(ConnectionError::Ended.into()), None));
        };
        let expiry = instance.watch.until(&node.deadlines, *begun, *deadline);
        let fault = tokio::select! {
            biased;
            answer = exchange.drive(conn) => match answer {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            },
            () = expiry => {
                instance.leash.kill();
                return Err((RunError::TimedOut, None));
            }
        };
        let end = match &fault {
            ExchangeError::Conn(ConnectionError::Ended | ConnectionError::Unread) => {
                instance.leash.end_within(LAST_WORDS_WAIT).await
            }
            _ => None,
        };
        instance.leash.kill();
        Err((RunError::Exchange(fault), end))
    }

    /// Gives the sandbox back and makes outcome and record.
    fn settle(self, node: &NodeContext, answer: AnswerResult) -> Outcome {
        let Self { subject, lease, started_at, begun, init, .. } = self;
        let duration = begun.elapsed();
        let instance = Arc::clone(lease.instance());
        let log = instance.log.end();
        let memory_bytes = instance.memory_bytes();
        let verdict = match answer {
            // The runtime lives and may not know: its shell went on without the child.
            Ok(_) if subject.runs_children() && instance.lost_a_child_to_memory() => {
                drop(lease);
                Verdict::Failed(out_of_memory(subject.revision.config.memory_mb))
            }
            Ok(RuntimeAnswer { result, last }) => {
                if last {
                    drop(lease);
                } else {
                    lease.finish();
                }
                match result {
                    Ok(value) => Verdict::Returned(value),
                    Err(failure) => Verdict::Failed(failure_of(failure)),
                }
            }
            Err((missing, end)) => {
                let verdict = missing.verdict(&subject, &instance, end.as_ref());
                drop(lease);
                verdict
            }
        };
        let report = Report {
            started_at,
            duration,
            cold: init.is_some(),
            init,
            memory_bytes,
            node: Some(node.launcher.node.clone()),
            log_tail: None,
        };
        close(node, &subject, Outcome { verdict, report }, log)
    }
}

impl RunError {
    fn verdict(
        self,
        subject: &InvocationTarget,
        instance: &crate::sandbox::instance::SandboxInstance,
        end: Option<&SandboxEnd>,
    ) -> Verdict {
        let config = &subject.revision.config;
        let fault = match self {
            Self::TimedOut => {
                return Verdict::Failed(Failure::seen(
                    StatusCode::TimeLimitReached,
                    format!("Invoking task timed out after {} seconds", config.timeout.as_secs()),
                ));
            }
            Self::Exchange(fault) => fault,
        };
        if instance.leash.was_taken_away() {
            let reason = "this node stopped before the function had answered".into();
            return Verdict::Refused(Refusal::Sandbox { reason });
        }
        if instance.ran_out_of_memory(end) {
            return Verdict::Failed(out_of_memory(config.memory_mb));
        }
        match (fault, end) {
            (
                ExchangeError::Conn(ConnectionError::Ended | ConnectionError::Unread),
                Some(SandboxEnd::Exited(exited)),
            ) => Verdict::Failed(Failure::seen(
                StatusCode::ProcessExit,
                format!("User process exit when running ({})", ending(exited)),
            )),
            (
                ExchangeError::Conn(ConnectionError::Ended | ConnectionError::Unread),
                Some(SandboxEnd::Lost) | None,
            ) => {
                let message = "User process exit when running";
                Verdict::Failed(Failure::seen(StatusCode::ProcessExit, message))
            }
            (ExchangeError::Conn(ConnectionError::Io(error)), _) => {
                tracing::warn!(%error, instance = %instance.id, "The runtime's connection failed");
                let reason = "the runtime's connection failed".into();
                Verdict::Refused(Refusal::Sandbox { reason })
            }
            (fault, _) => {
                tracing::warn!(%fault, instance = %instance.id, request_id = %subject.request_id,
                    "A runtime broke the protocol");
                Verdict::Failed(Failure::seen(StatusCode::UserCodeError, fault.to_string()))
            }
        }
    }
}

/// The outcome of an event that got no sandbox.
pub(crate) fn turned_away(
    node: &NodeContext,
    subject: &InvocationTarget,
    turned: AcquireError,
) -> Outcome {
    let AcquireError { verdict, log, init } = turned;
    // What the runtime printed while it failed to load belongs to who waited for it first.
    let failed = matches!(verdict, Verdict::Failed(_));
    let memory_mb = subject.revision.config.memory_mb;
    let cold_start =
        init.filter(|_| failed).map(|total| ColdStart { total, memory_mb, ..ColdStart::default() });
    let ended = match log {
        None => EventOutput::nothing(cold_start),
        Some(log) => {
            log.begin(subject.request_id, subject.wants_tail(), cold_start);
            log.end()
        }
    };
    let report = Report {
        started_at: node.launcher.outlet.clock.now(),
        duration: Duration::ZERO,
        cold: failed,
        init: init.filter(|_| failed),
        memory_bytes: 0,
        node: failed.then(|| node.launcher.node.clone()),
        log_tail: None,
    };
    close(node, subject, Outcome { verdict, report }, ended)
}

/// Counts and records an outcome.
fn close(
    node: &NodeContext,
    subject: &InvocationTarget,
    mut outcome: Outcome,
    log: EventOutput,
) -> Outcome {
    node.metrics.ended(&outcome);
    node.metrics.cut(log.cut);
    outcome.report.log_tail = log.tail.map(|mut tail| {
        // Replacing invalid bytes may have made it longer.
        let over = tail.len().saturating_sub(LOG_TAIL_BYTES_MAX);
        let from = (over..tail.len()).find(|at| tail.is_char_boundary(*at)).unwrap_or(tail.len());
        tail.split_off(from)
    });
    let attempt = match (subject.mode, &outcome.verdict) {
        (InvocationMode::Sync { .. }, _) => 1,
        // It stays in its queue: nothing has happened to it.
        (InvocationMode::Async { .. }, Verdict::Refused(_)) if log.first => return outcome,
        (InvocationMode::Async { attempt }, _) => attempt,
    };
    let report = &outcome.report;
    let error = match &outcome.verdict {
        Verdict::Returned(_) => None,
        Verdict::Failed(failure) => Some(failure.clone()),
        Verdict::Refused(refusal) => Some(Failure::seen(refusal.status(), refusal.to_string())),
    };
    node.launcher.outlet.journal.record(InvocationRecord {
        request_id: subject.request_id,
        function: subject.revision.function.clone(),
        version: subject.revision.version,
        trigger: subject.trigger.clone(),
        attempt,
        started_at: report.started_at,
        duration: report.duration,
        status: outcome.verdict.status(),
        error,
        cold: report.cold,
        init: report.init,
        cold_start: log.cold_start,
        memory_mb: subject.revision.config.memory_mb,
        memory_bytes: report.memory_bytes,
        node: report.node.clone(),
        first: log.first,
    });
    outcome
}
