//! The metrics of this crate. `docs/operations.md` explains them; their names are stable.

use hanshu_core::{ColdStart, Outcome, RuntimeFamily, Verdict};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::sandbox::shape::prewarmed_families;

/// How many sandboxes are in which state, and how many callers wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxCounts {
    /// Starting, or waiting for room to start.
    pub starting: u32,
    /// Ready and unused, frozen or not.
    pub idle: u32,
    /// The frozen ones among the idle.
    pub frozen: u32,
    /// Used by an event or by the maintenance.
    pub busy: u32,
    /// Sandboxes that are being removed.
    pub stopping: u32,
    /// Callers that wait for a sandbox.
    pub waiting: u32,
}

/// Handles that are looked up once, so that a warm invocation only adds.
pub(crate) struct InvokerMetrics {
    returned: Counter,
    failed: Counter,
    refused: Counter,
    cold: Counter,
    seconds: Histogram,
    start_seconds: Histogram,
    start_failures: Counter,
    started: [Counter; 2],
    log_bytes_cut: Counter,
    sandboxes: [Gauge; 4],
    waiting: Gauge,
    prewarmed: Vec<(RuntimeFamily, Gauge)>,
}

impl InvokerMetrics {
    /// Handles of the process' recorder, which must have been set before.
    pub(crate) fn new() -> Self {
        let ended =
            |verdict: &'static str| counter!("hanshu_invocations_total", "verdict" => verdict);
        let state = |state: &'static str| gauge!("hanshu_sandboxes", "state" => state);
        Self {
            returned: ended("returned"),
            failed: ended("failed"),
            refused: ended("refused"),
            cold: counter!("hanshu_cold_invocations_total"),
            seconds: histogram!("hanshu_invocation_seconds"),
            start_seconds: histogram!("hanshu_sandbox_start_seconds"),
            started: ["fresh", "prewarmed"]
                .map(|kind| counter!("hanshu_cold_starts_total", "kind" => kind)),
            start_failures: counter!("hanshu_sandbox_start_failures_total"),
            log_bytes_cut: counter!("hanshu_log_bytes_cut_total"),
            sandboxes: ["starting", "idle", "busy", "stopping"].map(state),
            waiting: gauge!("hanshu_invocations_waiting"),
            prewarmed: prewarmed_families()
                .map(|family| {
                    (family, gauge!("hanshu_prewarmed_sandboxes", "runtime" => family.as_str()))
                })
                .collect(),
        }
    }

    pub(crate) fn ended(&self, outcome: &Outcome) {
        match &outcome.verdict {
            Verdict::Returned(_) => self.returned.increment(1),
            Verdict::Failed(_) => self.failed.increment(1),
            Verdict::Refused(_) => return self.refused.increment(1),
        }
        if outcome.report.cold {
            self.cold.increment(1);
        }
        self.seconds.record(outcome.report.duration.as_secs_f64());
    }

    pub(crate) fn started(&self, start: &ColdStart) {
        self.start_seconds.record(start.total.as_secs_f64());
        let [fresh, prewarmed] = &self.started;
        if start.from_prewarmed { prewarmed.increment(1) } else { fresh.increment(1) }
    }

    pub(crate) fn start_failed(&self) {
        self.start_failures.increment(1);
    }

    pub(crate) fn log_bytes_dropped(&self, bytes: u64) {
        if 0 < bytes {
            self.log_bytes_cut.increment(bytes);
        }
    }

    /// How many prewarmed sandboxes of each family are ready.
    pub(crate) fn prewarmed(&self, ready: impl Fn(RuntimeFamily) -> usize) {
        for (family, gauge) in &self.prewarmed {
            gauge.set(f64::from(u32::try_from(ready(*family)).unwrap_or(u32::MAX)));
        }
    }

    pub(crate) fn sandboxes(&self, sandboxes: SandboxCounts) {
        let SandboxCounts { starting, idle, frozen: _, busy, stopping, waiting } = sandboxes;
        for (gauge, count) in self.sandboxes.iter().zip([starting, idle, busy, stopping]) {
            gauge.set(f64::from(count));
        }
        self.waiting.set(f64::from(waiting));
    }
}
