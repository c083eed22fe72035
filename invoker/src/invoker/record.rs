//! Outcomes: completed, counted and recorded.

use std::time::Duration;

use hanshu_core::{
    ColdStart, Failure, InvocationMode, InvocationRecord, LOG_TAIL_BYTES_MAX, Outcome, Report,
    Verdict,
};

use super::target::InvocationTarget;
use crate::sandbox::logs::EventOutput;
use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::AcquireError;

/// The outcome of an event that got no sandbox, recorded.
pub(super) fn record_refused(
    node: &NodeContext,
    target: &InvocationTarget,
    error: AcquireError,
) -> Outcome {
    let AcquireError { verdict, log, init } = error;
    // What the runtime printed while it failed to load belongs to the first who waited for it.
    let failed = matches!(verdict, Verdict::Failed(_)) && !verdict.is_cancelled();
    let memory_mb = target.revision.config.memory_mb;
    let cold_start =
        init.filter(|_| failed).map(|total| ColdStart { total, memory_mb, ..ColdStart::default() });
    let output = match log {
        None => EventOutput::empty(cold_start),
        Some(log) => {
            log.begin(target.request_id, target.wants_tail(), cold_start);
            log.end()
        }
    };
    let report = Report {
        started_at: node.launcher.sink.clock.now(),
        duration: Duration::ZERO,
        cold: failed,
        init: init.filter(|_| failed),
        memory_bytes: 0,
        node: failed.then(|| node.launcher.node.clone()),
        log_tail: None,
    };
    record(node, target, Outcome { verdict, report }, output)
}

/// Counts and records an outcome, and adds the tail of its output.
pub(super) fn record(
    node: &NodeContext,
    target: &InvocationTarget,
    mut outcome: Outcome,
    output: EventOutput,
) -> Outcome {
    node.metrics.ended(&outcome);
    node.metrics.log_bytes_dropped(output.dropped_bytes);
    outcome.report.log_tail = output.tail.map(|mut tail| {
        // Replacing invalid bytes may have made it longer.
        let over = tail.len().saturating_sub(LOG_TAIL_BYTES_MAX);
        let from = (over..tail.len()).find(|at| tail.is_char_boundary(*at)).unwrap_or(tail.len());
        tail.split_off(from)
    });
    let attempt = match (target.mode, &outcome.verdict) {
        (InvocationMode::Sync { .. }, _) => 1,
        // The event stays in its queue and nothing has happened to it: no record.
        (InvocationMode::Async { .. }, Verdict::Refused(_)) if output.first => return outcome,
        (InvocationMode::Async { attempt }, _) => attempt,
    };
    let report = &outcome.report;
    let error = match &outcome.verdict {
        Verdict::Returned(_) => None,
        Verdict::Failed(failure) => Some(failure.clone()),
        Verdict::Refused(refusal) => Some(Failure::seen(refusal.status(), refusal.to_string())),
    };
    node.launcher.sink.journal.record(InvocationRecord {
        request_id: target.request_id,
        function: target.revision.function.clone(),
        version: target.revision.version,
        trigger: target.trigger.clone(),
        called_by: target.called_by.clone(),
        attempt,
        started_at: report.started_at,
        duration: report.duration,
        status: outcome.verdict.status(),
        error,
        cold: report.cold,
        init: report.init,
        cold_start: output.cold_start,
        memory_mb: target.revision.config.memory_mb,
        memory_bytes: report.memory_bytes,
        node: report.node.clone(),
        first: output.first,
    });
    outcome
}
