//! `cargo xtask suite`: every test of the workspace, with its binaries side by side. Many of them
//! mostly wait, for sandboxes, servers and deadlines, which `cargo test` does one after the other.
//!
//! `cargo xtask suite WORD…` runs the jobs whose names contain a word, and `suite -- FILTER…` hands
//! what follows to each binary.

mod build;
mod job;
mod lanes;
mod outcome;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use build::BuildOutput;
use outcome::SuiteReport;

/// Jobs at a time. More than processors, since the long ones mostly wait.
const LANES: usize = 3;
/// The longest that one job may take.
const JOB_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Tests that may be ignored, as `BINARY::TEST`: none.
const MAY_BE_IGNORED: [&str; 0] = [];

/// The words of the command line.
#[derive(Debug, Default)]
pub(crate) struct SuiteOptions {
    /// Parts of names of jobs; empty: all.
    jobs: Vec<String>,
    /// Filters for each binary.
    filters: Vec<String>,
    lanes: usize,
}

impl SuiteOptions {
    /// Reads `[--lanes N] [WORD…] [-- FILTER…]`.
    pub(crate) fn read(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self { lanes: LANES, ..Self::default() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--" => options.filters.extend(words.by_ref().map(ToString::to_string)),
                "--lanes" => {
                    let count = words.next().and_then(|count| count.parse().ok());
                    options.lanes =
                        count.filter(|count| 0 < *count).context("--lanes wants 1 …")?;
                }
                word if word.starts_with('-') => bail!("suite has no `{word}`"),
                word => options.jobs.push(word.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Builds, runs and reports.
///
/// # Errors
/// A build, a test or a deadline failed, or a test was not run.
pub(crate) fn run(options: &SuiteOptions) -> anyhow::Result<()> {
    let begun = Instant::now();
    let built = build::all()?;
    say(&format!("suite: {} binaries after {} s", built.tests.len(), begun.elapsed().as_secs()));
    let mut jobs = job::all(&built.tests)?;
    jobs.retain(|job| {
        options.jobs.is_empty() || options.jobs.iter().any(|it| job.name.contains(it))
    });
    if jobs.is_empty() {
        bail!("no job has a name with one of {:?}", options.jobs);
    }
    let logs = logs(&built)?;
    let outcomes = lanes::run(&jobs, options, &built, &logs)?;
    let report = SuiteReport::of(&jobs, outcomes, &MAY_BE_IGNORED, options.filters.is_empty());
    say(&report.failures());
    say(&report.table(begun.elapsed()));
    match report.wrong().as_slice() {
        [] => Ok(()),
        wrong => bail!("suite:\n  {}\nwhole outputs: {}", wrong.join("\n  "), logs.display()),
    }
}

/// A new folder for the outputs.
fn logs(built: &BuildOutput) -> anyhow::Result<PathBuf> {
    let logs = built.target.join("suite");
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("{}", logs.display()))?;
    }
    fs::create_dir_all(&logs).with_context(|| format!("{}", logs.display()))?;
    Ok(logs)
}

/// A line of progress. Who does not listen misses it.
fn say(text: &str) {
    if !text.is_empty() {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}
