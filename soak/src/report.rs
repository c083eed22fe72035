//! What a soak prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use crate::checks::Counts;
use crate::chronicle::Chronicle;
use crate::ledger::Way;
use crate::plan::{name, plan};
use crate::samples::{Sample, table};

/// What is needed to do it again.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) tallies: Vec<BTreeMap<(Way, String), u64>>,
    pub(crate) counts: Vec<Counts>,
    /// Of each server: when it was new, and at the end.
    pub(crate) descriptors: Vec<(u64, u64)>,
    pub(crate) samples: Vec<Sample>,
    /// Containers that a killed engine forgot.
    pub(crate) forgotten: usize,
    /// How long the end of what was accepted took.
    pub(crate) drained: Duration,
}

/// Says how far it is, on standard error.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "soak: {text}");
}

/// The tables, and, where something was wrong, the seed and the line of events.
pub(crate) fn print(outline: &Outline, report: &Report, chronicle: &Chronicle) {
    let mut text = String::new();
    let (wrong, shown) = chronicle.wrongs();
    if wrong != 0 {
        let _ = writeln!(text, "\nThe line of events:");
        for line in chronicle.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    let _ = writeln!(text, "\nFaults, seed {}, {:?}:", outline.seed, outline.length);
    let mut faults: BTreeMap<String, usize> = BTreeMap::new();
    for blow in plan(outline.seed, outline.length) {
        *faults.entry(blow.fault.to_string()).or_default() += 1;
    }
    for (fault, times) in faults {
        let _ = writeln!(text, "  {times:>5}  {fault}");
    }
    for (world, tally) in report.tallies.iter().enumerate() {
        let _ = writeln!(text, "\nCalls of {}, by what came of them:", name(world));
        for ((way, how), times) in tally {
            let _ = writeln!(text, "  {times:>7}  {} {how}", way.word());
        }
    }
    let _ = writeln!(
        text,
        "\n{:<10} {:>8} {:>13} {:>8} {:>6} {:>21} {:>16}",
        "server",
        "accepted",
        "of these twice",
        "runs",
        "ticks",
        "ticks while it was away",
        "descriptors"
    );
    for (world, counts) in report.counts.iter().enumerate() {
        let Counts { accepted, ran_again, runs, ticks, ticks_missed } = counts;
        let (new, end) = report.descriptors.get(world).copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<10} {accepted:>8} {ran_again:>13} {runs:>8} {ticks:>6} {ticks_missed:>21} {:>16}",
            name(world),
            format!("{new} -> {end}")
        );
    }
    let _ = writeln!(text, "\nWhat was accepted had ended {:?} after the load.", report.drained);
    if report.forgotten != 0 {
        let count = report.forgotten;
        let _ = writeln!(text, "{count} containers were forgotten by a killed dockerd.");
    }
    let _ = writeln!(text, "\n{}", table(&report.samples));
    if wrong == 0 {
        let _ = writeln!(text, "All is well: seed {}, {:?}.", outline.seed, outline.length);
    } else {
        for each in shown {
            let _ = writeln!(text, "  {each}");
        }
        let seconds = outline.length.as_secs();
        let _ = writeln!(
            text,
            "{wrong} things are wrong. Again: make soak SOAK={seconds}s SEED={}",
            outline.seed
        );
    }
    let _ = std::io::stdout().write_all(text.as_bytes());
}
