//! Prints the result of a soak.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use crate::event_log::EventLog;
use crate::fault_plan::{plan, server_name};
use crate::resource_usage::{UsageSample, table};
use crate::run_checks::ServerCounts;
use crate::run_ledger::CallTally;

/// What is needed to repeat a soak.
#[derive(Debug)]
pub(crate) struct SoakParameters {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
}

/// The result of a soak, but for its violations.
#[derive(Debug, Default)]
pub(crate) struct SoakReport {
    pub(crate) tallies: Vec<CallTally>,
    pub(crate) counts: Vec<ServerCounts>,
    pub(crate) descriptors: Vec<DescriptorCounts>,
    pub(crate) samples: Vec<UsageSample>,
    /// Containers that a killed engine has lost.
    pub(crate) lost: usize,
    /// How long after the load the last accepted event ended.
    pub(crate) drained: Duration,
}

/// A server's open descriptors after its start, and when it is idle at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DescriptorCounts {
    pub(crate) new: u64,
    pub(crate) end: u64,
}

/// Prints a line of progress on standard error.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "soak: {text}");
}

/// Prints the tables and, where something was violated, the seed and the event log.
pub(crate) fn print(parameters: &SoakParameters, report: &SoakReport, event_log: &EventLog) {
    let mut text = String::new();
    let (violation_count, violations) = event_log.violations();
    if violation_count != 0 {
        let _ = writeln!(text, "\nEvent log:");
        for line in event_log.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    let _ = writeln!(text, "\nFaults, seed {}, {:?}:", parameters.seed, parameters.length);
    let mut faults: BTreeMap<String, usize> = BTreeMap::new();
    for fault in plan(parameters.seed, parameters.length) {
        *faults.entry(fault.kind.to_string()).or_default() += 1;
    }
    for (fault, times) in faults {
        let _ = writeln!(text, "  {times:>5}  {fault}");
    }
    for (server, tally) in report.tallies.iter().enumerate() {
        let _ = writeln!(text, "\nCalls of {}, by result:", server_name(server));
        for ((kind, result), times) in tally {
            let _ = writeln!(text, "  {times:>7}  {} {result}", kind.as_str());
        }
    }
    let _ = writeln!(
        text,
        "\n{:<10} {:>8} {:>10} {:>13} {:>8} {:>6} {:>21} {:>16}",
        "server",
        "accepted",
        "cancelled",
        "run again",
        "runs",
        "ticks",
        "ticks while it was down",
        "descriptors"
    );
    for (server, counts) in report.counts.iter().enumerate() {
        let ServerCounts { accepted, cancelled, ran_again, runs, ticks, ticks_missed } = counts;
        let descriptors = report.descriptors.get(server).copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<10} {accepted:>8} {cancelled:>10} {ran_again:>13} {runs:>8} {ticks:>6} {ticks_missed:>21} {:>16}",
            server_name(server),
            format!("{} -> {}", descriptors.new, descriptors.end)
        );
    }
    let _ = writeln!(text, "\nAll accepted events had ended {:?} after the load.", report.drained);
    if report.lost != 0 {
        let count = report.lost;
        let _ = writeln!(text, "{count} containers were lost by a killed dockerd.");
    }
    let _ = writeln!(text, "\n{}", table(&report.samples));
    if violation_count == 0 {
        let _ = writeln!(text, "No violations: seed {}, {:?}.", parameters.seed, parameters.length);
    } else {
        for each in violations {
            let _ = writeln!(text, "  {each}");
        }
        let seconds = parameters.length.as_secs();
        let _ = writeln!(
            text,
            "{violation_count} violations. To repeat: make soak SOAK={seconds}s SEED={}",
            parameters.seed
        );
    }
    let _ = std::io::stdout().write_all(text.as_bytes());
}
