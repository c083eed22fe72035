//! How jobs ended: what their summaries say, the table, and what is wrong.

use std::fmt::Write as _;
use std::process::ExitStatus;
use std::time::Duration;

use super::JOB_DEADLINE;
use super::job::Job;

/// How a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JobOutcome {
    passed: usize,
    failed: usize,
    /// Names of tests that were not run.
    ignored: Vec<String>,
    /// Whether there was a summary, and the status says success.
    good: bool,
    late: bool,
    took: Duration,
    /// All that it printed.
    output: String,
}

impl JobOutcome {
    /// Reads the output of a test binary. No status: it was late.
    pub(super) fn read(
        text: &str,
        status: Option<ExitStatus>,
        took: Duration,
        output: String,
    ) -> Self {
        let summary = text.lines().rev().find_map(|line| line.strip_prefix("test result: "));
        let count = |what: &str| {
            let part =
                summary?.split([';', '.']).find_map(|part| part.trim().strip_suffix(what))?;
            part.trim().parse::<usize>().ok()
        };
        let ignored = text.lines().filter_map(|line| {
            let (name, how) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
            how.starts_with("ignored").then(|| name.to_owned())
        });
        Self {
            passed: count("passed").unwrap_or(0),
            failed: count("failed").unwrap_or(0),
            ignored: ignored.collect(),
            good: summary.is_some() && status.is_some_and(|status| status.success()),
            late: status.is_none(),
            took,
            output,
        }
    }

    /// A line of progress.
    pub(super) fn line(&self, name: &str) -> String {
        let what = match (self.good, self.late) {
            (true, _) => format!("{} passed", self.passed),
            (false, true) => format!("NOT DONE after {} s", JOB_DEADLINE.as_secs()),
            (false, false) => format!("FAILED: {} of {}", self.failed, self.passed + self.failed),
        };
        format!("  {name:<28} {what}, {:.1} s", self.took.as_secs_f64())
    }
}

/// All outcomes, with what must hold of them.
pub(super) struct SuiteReport<'a> {
    rows: Vec<(&'a Job, JobOutcome)>,
    may_be_ignored: &'a [&'a str],
    /// Every test of each job was to be run.
    whole: bool,
}

impl<'a> SuiteReport<'a> {
    pub(super) fn of(
        jobs: &'a [Job],
        outcomes: Vec<JobOutcome>,
        may_be_ignored: &'a [&'a str],
        whole: bool,
    ) -> Self {
        Self { rows: jobs.iter().zip(outcomes).collect(), may_be_ignored, whole }
    }

    /// The whole output of each job that failed.
    pub(super) fn failures(&self) -> String {
        let failed = self.rows.iter().filter(|(_, outcome)| !outcome.good);
        let shown = failed.map(|(job, outcome)| format!("--- {}\n{}", job.name, outcome.output));
        shown.collect::<Vec<_>>().join("\n")
    }

    /// Jobs by the time they took, and the sums.
    pub(super) fn table(&self, took: Duration) -> String {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(_, outcome)| std::cmp::Reverse(outcome.took));
        let mut text =
            format!("{:<30}{:>8}{:>8}{:>8}{:>9}", "", "passed", "failed", "ignored", "s");
        let mut line = |name: &str, [passed, failed, ignored]: [usize; 3], took: Duration| {
            let seconds = took.as_secs_f64();
            let _ = write!(text, "\n{name:<30}{passed:>8}{failed:>8}{ignored:>8}{seconds:>9.1}");
        };
        let mut sum = [0; 3];
        for (job, outcome) in rows {
            let counts = [outcome.passed, outcome.failed, outcome.ignored.len()];
            sum = [sum[0] + counts[0], sum[1] + counts[1], sum[2] + counts[2]];
            line(&job.name, counts, outcome.took);
        }
        line("all, with the build", sum, took);
        text
    }

    /// What is wrong, a line each.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (job, outcome) in &self.rows {
            let name = &job.name;
            if outcome.late {
                wrong.push(format!("{name}: not done after {} s", JOB_DEADLINE.as_secs()));
            } else if !outcome.good {
                wrong.push(format!("{name}: {} failed", outcome.failed));
            } else if self.whole && outcome.passed + outcome.ignored.len() != job.tests {
                wrong.push(format!("{name}: {} of {} were run", outcome.passed, job.tests));
            }
            let is_fine = |test: &String| {
                let whole = format!("{}::{test}", job.binary.name);
                self.may_be_ignored.contains(&&*whole)
            };
            let ignored = outcome.ignored.iter().filter(|test| !is_fine(test));
            wrong.extend(ignored.map(|test| format!("{name}: {test} is ignored")));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::super::build::TestBinary;
    use super::*;

    fn read(text: &str, code: i32) -> JobOutcome {
        let status = ExitStatus::from_raw(code << 8);
        JobOutcome::read(text, Some(status), Duration::from_secs(1), text.to_owned())
    }

    fn wrong(outcome: JobOutcome, tests: usize) -> Vec<String> {
        let binary = TestBinary { name: "a it".into(), program: "p".into(), folder: "f".into() };
        let job = Job { name: "a it".into(), binary, arguments: Vec::new(), threads: None, tests };
        SuiteReport::of(&[job], vec![outcome], &["a it::may"], true).wrong()
    }

    const GOOD: &str = "running 2 tests\ntest x ... ok\ntest y::z ... ok\n\ntest result: ok. 2 \
                        passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.1s\n";

    #[test]
    fn a_summary_is_read() {
        let outcome = read(GOOD, 0);
        assert!(outcome.good, "{outcome:?}");
        assert_eq!((outcome.passed, outcome.failed), (2, 0));
        assert_eq!(wrong(outcome, 2), Vec::<String>::new());
    }

    #[test]
    fn failures_aborts_and_tests_that_were_not_run_are_wrong() {
        let failed = "test result: FAILED. 1 passed; 2 failed; 0 ignored; finished in 0.1s\n";
        assert_eq!(wrong(read(failed, 101), 3), ["a it: 2 failed"]);
        assert_eq!(wrong(read("running 2 tests\n", 134), 2), ["a it: 0 failed"]);
        assert_eq!(wrong(read("", 0), 0), ["a it: 0 failed"], "no summary");
        assert_eq!(wrong(read(GOOD, 0), 3), ["a it: 2 of 3 were run"]);
        let late = JobOutcome::read(GOOD, None, Duration::ZERO, String::new());
        assert_eq!(wrong(late, 2).len(), 1);
    }

    #[test]
    fn an_ignored_test_is_wrong_unless_it_is_listed() {
        let text = |name: &str| {
            format!(
                "test {name} ... ignored, slow\ntest result: ok. 0 passed; 0 failed; 1 ignored\n"
            )
        };
        assert_eq!(wrong(read(&text("b::c"), 0), 1), ["a it: b::c is ignored"]);
        assert_eq!(wrong(read(&text("may"), 0), 1), Vec::<String>::new());
    }
}
