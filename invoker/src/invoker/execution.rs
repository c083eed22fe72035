//! One event in a sandbox, from the lease to its record.
//!
//! If the caller's future is dropped in the middle (the client hung up), the event continues in a task
//! of the general runtime until its answer or its deadline, is recorded, and the sandbox is returned in
//! good health. Dropping the lease with the future would be simpler, but cost a warm sandbox for each
//! client that hangs up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::{Event, Failure, Outcome, Refusal, Report, StatusCode, Timestamp, Verdict};
use hanshu_runtimes::wire::BODY_BYTES_MAX;
use tokio::time::Instant;

use super::record::record;
use super::target::InvocationTarget;
use crate::sandbox::control::SandboxEnd;
use crate::sandbox::deadlines::CurrentEvent;
use crate::sandbox::exchange::{ConnectionError, EventExchange, ExchangeError, RuntimeAnswer};
use crate::sandbox::instance::SandboxInstance;
use crate::sandbox::launch::{exit_text, out_of_memory, to_failure};
use crate::sandbox::start_message::to_millis;
use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::Lease;

/// How long the shim may take to report the end of a runtime whose connection has ended.
const EXIT_REPORT_WAIT: Duration = Duration::from_millis(100);

/// An event in a sandbox, which continues when this is dropped: in a task of its own, to its end and
/// its record.
pub(super) struct ContinuingExecution {
    node: Arc<NodeContext>,
    execution: Option<EventExecution>,
}

struct EventExecution {
    target: InvocationTarget,
    lease: Lease,
    exchange: EventExchange,
    started_at: Timestamp,
    event: CurrentEvent,
    /// How long the start of the sandbox took, for the event that it was started for.
    init: Option<Duration>,
}

/// How an event that was handed to a sandbox ended.
pub(super) enum ExecutionResult {
    /// With this outcome, which is recorded.
    Ended(Box<Outcome>),
    /// The sandbox ended before it had read the event, which can be handed to another.
    NotBegun,
}

/// Why an event was not handed to a sandbox.
pub(super) struct HandOverError {
    pub(super) target: InvocationTarget,
    pub(super) verdict: Verdict,
}

/// Why a sandbox gave no answer.
enum RunError {
    TimedOut,
    Exchange {
        error: ExchangeError,
        /// How the sandbox ended, where that is known.
        end: Option<SandboxEnd>,
    },
}

impl ContinuingExecution {
    /// Hands the event to the sandbox.
    ///
    /// # Errors
    /// The event is over the limit.
    pub(super) fn begin(
        node: &Arc<NodeContext>,
        lease: Lease,
        target: InvocationTarget,
        event: &Event,
    ) -> Result<Self, Box<HandOverError>> {
        let timeout = target.revision.config.timeout;
        let payload = Bytes::clone(&event.payload);
        let length = payload.len();
        let request_id = target.request_id;
        let exchange = EventExchange::new(request_id, &event.origin, to_millis(timeout), payload);
        let Ok(exchange) = exchange else {
            let message = format!("the event has {length} bytes, more than {BODY_BYTES_MAX}");
            let failure = Failure::seen(StatusCode::UserCodeError, message);
            return Err(Box::new(HandOverError { target, verdict: Verdict::Failed(failure) }));
        };
        let instance = lease.instance();
        let cold = instance.first_use() && lease.waited;
        let init = cold.then_some(instance.init);
        let cold_start = cold.then_some(instance.cold_start);
        instance.log.begin(request_id, target.wants_tail(), cold_start);
        instance.calls.set_event(request_id, event.origin.depth());
        let begun = Instant::now();
        let execution = EventExecution {
            target,
            exchange,
            started_at: node.launcher.sink.clock.now(),
            event: CurrentEvent { request_id, begun, deadline: begun + timeout },
            init,
            lease,
        };
        Ok(Self { node: Arc::clone(node), execution: Some(execution) })
    }

    /// Runs the event to its outcome and its record; or, where it `may_be_handed_on`, to the end of a
    /// sandbox that had not read it.
    pub(super) async fn outcome(mut self, may_be_handed_on: bool) -> Option<ExecutionResult> {
        let answer = self.execution.as_mut()?.answer(&self.node).await;
        // Nothing is awaited from here on, so that nothing can be dropped half-way.
        let execution = self.execution.take()?;
        let unread = matches!(
            &answer,
            Err(RunError::Exchange {
                error: ExchangeError::Connection(ConnectionError::Unread),
                ..
            })
        );
        let instance = execution.lease.instance();
        let cancelled = instance.watch.end(execution.event.request_id);
        let stopped = cancelled || instance.handle.was_killed_for_shutdown();
        if unread && may_be_handed_on && !stopped {
            tracing::warn!(instance = %instance.id, "A sandbox was lost before it began");
            instance.log.end();
            return Some(ExecutionResult::NotBegun);
        }
        Some(ExecutionResult::Ended(Box::new(execution.finish(&self.node, answer, cancelled))))
    }
}

impl Drop for ContinuingExecution {
    fn drop(&mut self) {
        if let Some(mut execution) = self.execution.take() {
            let node = Arc::clone(&self.node);
            self.node.tasks.spawn(async move {
                let answer = execution.answer(&node).await;
                let watch = &execution.lease.instance().watch;
                let cancelled = watch.end(execution.event.request_id);
                execution.finish(&node, answer, cancelled);
            });
        }
    }
}

impl EventExecution {
    /// Waits for the answer until the deadline. May be dropped and called again.
    async fn answer(&mut self, node: &Arc<NodeContext>) -> Result<RuntimeAnswer, RunError> {
        let Self { lease, exchange, event, .. } = self;
        let instance = Arc::clone(lease.instance());
        let Some(conn) = lease.begin() else {
            return Err(RunError::Exchange { error: ConnectionError::Ended.into(), end: None });
        };
        let expiry = instance.watch.until_deadline(&node.deadlines, *event);
        let error = tokio::select! {
            biased;
            answer = exchange.drive(conn) => match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            },
            () = expiry => {
                instance.handle.kill();
                return Err(RunError::TimedOut);
            }
        };
        let end = match &error {
            ExchangeError::Connection(ConnectionError::Ended | ConnectionError::Unread) => {
                instance.handle.end_within(EXIT_REPORT_WAIT).await
            }
            _ => None,
        };
        instance.handle.kill();
        Err(RunError::Exchange { error, end })
    }

    /// Returns the sandbox, and makes the outcome and its record.
    fn finish(
        self,
        node: &NodeContext,
        answer: Result<RuntimeAnswer, RunError>,
        cancelled: bool,
    ) -> Outcome {
        let Self { target, lease, started_at, event, init, .. } = self;
        let duration = event.begun.elapsed();
        let instance = Arc::clone(lease.instance());
        let output = instance.log.end();
        let memory_bytes = instance.memory_bytes();
        let config = &target.revision.config;
        let runtime = config.runtime.family().profile();
        let verdict = match answer {
            // SIGTERM may still take effect: the sandbox must not be used again.
            _ if cancelled => {
                drop(lease);
                cancelled_verdict(answer)
            }
            // The runtime goes on without the child, and may not know.
            Ok(_) if runtime.works_in_children && instance.child_was_oom_killed() => {
                drop(lease);
                Verdict::Failed(out_of_memory(config.memory_mb))
            }
            Ok(RuntimeAnswer { result, last }) => {
                if last {
                    drop(lease);
                } else {
                    lease.finish();
                }
                match result {
                    Ok(value) => Verdict::Returned(value),
                    Err(failure) => Verdict::Failed(to_failure(failure)),
                }
            }
            Err(error) => {
                let verdict = error.into_verdict(&target, &instance);
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
        record(node, &target, Outcome { verdict, report }, output)
    }
}

/// A cancelled event that returned a value all the same was faster. Whatever else it ended with is taken
/// to be the effect of the cancellation.
fn cancelled_verdict(answer: Result<RuntimeAnswer, RunError>) -> Verdict {
    match answer {
        Ok(RuntimeAnswer { result: Ok(value), .. }) => Verdict::Returned(value),
        Ok(RuntimeAnswer { result: Err(_), .. }) | Err(_) => Verdict::Failed(Failure::cancelled()),
    }
}

impl RunError {
    fn into_verdict(self, target: &InvocationTarget, instance: &SandboxInstance) -> Verdict {
        let config = &target.revision.config;
        let (error, end) = match self {
            Self::Exchange { error, end } => (error, end),
            Self::TimedOut => {
                return Verdict::Failed(Failure::seen(
                    StatusCode::TimeLimitReached,
                    format!("Invoking task timed out after {} seconds", config.timeout.as_secs()),
                ));
            }
        };
        if instance.handle.was_killed_for_shutdown() {
            let reason = "this node stopped before the function had answered".into();
            return Verdict::Refused(Refusal::Sandbox { reason });
        }
        if instance.ran_out_of_memory(end.as_ref()) {
            return Verdict::Failed(out_of_memory(config.memory_mb));
        }
        match error {
            ExchangeError::Connection(ConnectionError::Ended | ConnectionError::Unread) => {
                let message = match end {
                    Some(SandboxEnd::Exited(exited)) => {
                        format!("User process exit when running ({})", exit_text(&exited))
                    }
                    Some(SandboxEnd::Lost) | None => "User process exit when running".into(),
                };
                Verdict::Failed(Failure::seen(StatusCode::ProcessExit, message))
            }
            ExchangeError::Connection(ConnectionError::Io(error)) => {
                tracing::warn!(%error, instance = %instance.id, "The runtime's connection failed");
                let reason = "the runtime's connection failed".into();
                Verdict::Refused(Refusal::Sandbox { reason })
            }
            error => {
                tracing::warn!(%error, instance = %instance.id, request_id = %target.request_id,
                    "A runtime broke the protocol");
                Verdict::Failed(Failure::seen(StatusCode::UserCodeError, error.to_string()))
            }
        }
    }
}
