//! Runs jobs on a bounded number of lanes, each job with a deadline.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use super::build::BuildOutput;
use super::job::Job;
use super::outcome::JobOutcome;
use super::{JOB_DEADLINE, SuiteOptions, say};

/// The longest that a job's output may stay open after its end.
const OUTPUT_WAIT: Duration = Duration::from_secs(10);
/// How often a job is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The outcome of each job, in the jobs' order.
pub(super) fn run(
    jobs: &[Job],
    options: &SuiteOptions,
    built: &BuildOutput,
    logs: &Path,
) -> anyhow::Result<Vec<JobOutcome>> {
    let next = AtomicUsize::new(0);
    let outcomes: Vec<_> = jobs.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..options.lanes {
            scope.spawn(|| {
                while let Some((job, outcome)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    jobs.get(at).zip(outcomes.get(at))
                } {
                    let ended = one(job, options, built, logs);
                    if let Ok(ended) = &ended {
                        say(&ended.line(&job.name));
                    }
                    if let Ok(mut outcome) = outcome.lock() {
                        *outcome = Some(ended);
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_iter().zip(jobs).map(|(outcome, job)| {
        let ended = outcome.into_inner().ok().flatten();
        ended.unwrap_or_else(|| Err(anyhow!("its lane failed"))).with_context(|| job.name.clone())
    });
    outcomes.collect()
}

/// Runs one job to its end, or to its deadline.
fn one(
    job: &Job,
    options: &SuiteOptions,
    built: &BuildOutput,
    logs: &Path,
) -> anyhow::Result<JobOutcome> {
    let begun = Instant::now();
    let log = logs.join(job.name.replace([' ', ':'], "-")).with_extension("log");
    let file = File::create(&log).with_context(|| format!("{}", log.display()))?;
    let mut command = Command::new(&job.binary.program);
    command
        .args(&job.arguments)
        .args(&options.filters)
        .args(job.threads.map(|threads| format!("--test-threads={threads}")))
        .current_dir(&job.binary.folder)
        // What is missing fails here; on a developer's machine tests only say so.
        .env("CI", "true")
        .env("CARGO", &built.cargo)
        .env("CARGO_MANIFEST_DIR", &job.binary.folder)
        .env("HANSHU_TEST_PROGRAM", &built.shim)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("{}", job.binary.program.display()))?;
    let stdout = child.stdout.take().context("no output")?;
    let (send, copied) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(copy(stdout, file, begun)));
    let status = wait(&mut child, begun)?;
    let took = begun.elapsed();
    // It ends with the last process that holds the pipe: without it there is no summary.
    let text = copied.recv_timeout(OUTPUT_WAIT).unwrap_or_default();
    let whole = std::fs::read_to_string(&log).with_context(|| format!("{}", log.display()))?;
    Ok(JobOutcome::read(&text, status, took, whole))
}

/// Copies lines to the log, each with the second at which it came; all of them.
fn copy(from: impl std::io::Read, mut log: File, begun: Instant) -> String {
    let mut text = String::new();
    let mut lines = BufReader::new(from).split(b'\n');
    while let Some(Ok(line)) = lines.next() {
        let line = String::from_utf8_lossy(&line);
        let _ = writeln!(log, "[{:6.1}] {line}", begun.elapsed().as_secs_f64());
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Waits for its end; `None`: it was late, and was killed with all that it had started.
fn wait(child: &mut Child, begun: Instant) -> anyhow::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if JOB_DEADLINE < begun.elapsed() {
            let below = descendants(child.id());
            child.kill()?;
            for process in below {
                let _ = Command::new("kill").args(["-9", &process.to_string()]).status();
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// All processes below one.
fn descendants(of: u32) -> Vec<u32> {
    let mut found = vec![of];
    let mut looked = 0;
    while let Some(process) = found.get(looked).copied() {
        looked += 1;
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_late_job_started_is_found() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let sleeper: u32 = line.trim().parse().unwrap();
        assert_eq!(descendants(shell.id()), [sleeper]);
        shell.kill().unwrap();
        Command::new("kill").args(["-9", &sleeper.to_string()]).status().unwrap();
        shell.wait().unwrap();
    }
}
