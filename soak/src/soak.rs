//! A soak from beginning to end, inside its namespaces.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cleanup_checks::{self, LATE_RUN_WATCH};
use crate::event_log::EventLog;
use crate::fault_plan::{SERVER_COUNT, plan, server_name};
use crate::load::{ServerUnderTest, start};
use crate::report::{DescriptorCounts, SoakParameters, SoakReport, print, progress};
use crate::resource_usage::{UsageSample, check_growth, process_usage, watch};
use crate::run_checks::{ClockReading, ServerCounts, TickWindow, check};
use crate::run_ledger::RunLedger;
use crate::testbed::{LAST_FAULT_TIMEOUT, Testbed};
use crate::{SoakOptions, collector};

/// How long timers take to learn of a trigger after a deploy.
const TIMERS_KNOWN: Duration = Duration::from_secs(3);
/// A tick that could not be queued is tried again within 5 s: the last ones get this long.
const LAST_TICKS: Duration = Duration::from_secs(8);
/// Longest wait for calls in flight after the load.
const LAST_CALL: Duration = Duration::from_secs(120);
/// From this length on growth is checked.
const LONG: Duration = Duration::from_secs(300);

/// What was sampled during the load.
struct LoadResult {
    samples: Vec<UsageSample>,
    tick_window: TickWindow,
}

/// Runs a soak and prints its report; 0 if nothing was violated, else 1.
///
/// # Errors
/// The soak could not be prepared, or a service could not be restarted.
pub(crate) async fn soak(options: SoakOptions) -> anyhow::Result<u8> {
    let work = options.work.clone().context("--work is missing")?;
    let seed = options.seed.context("--seed is missing")?;
    let event_log = Arc::new(EventLog::new());
    progress(&format!("seed {seed}, {:?} of load on {}", options.length, options.hanshu.display()));
    let report = match run_phases(&options, &work, seed, &event_log).await {
        Ok(report) => report,
        Err(error) => {
            event_log.report_violation(format!("the soak could not go on: {error:#}"));
            SoakReport::default()
        }
    };
    let succeeded = event_log.violations().0 == 0;
    print(&SoakParameters { seed, length: options.length }, &report, &event_log);
    if !succeeded && options.keep {
        std::fs::write(work.join("event-log"), event_log.lines().join("\n"))?;
        progress(&format!("kept in {}", work.display()));
    }
    Ok(u8::from(!succeeded))
}

async fn run_phases(
    options: &SoakOptions,
    work: &Path,
    seed: u64,
    event_log: &Arc<EventLog>,
) -> anyhow::Result<SoakReport> {
    let ledgers: Vec<_> = (0..SERVER_COUNT).map(|_| Arc::new(RunLedger::default())).collect();
    let listener = collector::listen()?;
    let tasks = TaskTracker::new();
    tasks.spawn(collector::collect(listener, Arc::new(ledgers.clone()), tasks.clone()));
    let testbed = Arc::new(Testbed::prepare(work, &options.hanshu, event_log.clone()).await?);
    let mut targets = Vec::new();
    let mut new = Vec::new();
    let mut before = HashSet::new();
    for (index, (site, ledger)) in testbed.sites.iter().zip(ledgers).enumerate() {
        let server = site.server.lock().await;
        let access = server.access()?;
        new.push(process_usage(server.pid().unwrap_or_default()).descriptors);
        before.extend(
            cleanup_checks::files(&site.data).into_iter().filter(|file| file.contains("docker")),
        );
        targets.push(ServerUnderTest { index, access, ledger, event_log: event_log.clone() });
    }
    progress("both servers are up");
    let loaded = load(&testbed, &targets, options.length, seed).await?;
    progress("the load is over; waiting for the end of what was accepted");
    sleep(LAST_TICKS).await;
    let begun = Instant::now();
    for (target, site) in targets.iter().zip(&testbed.sites) {
        cleanup_checks::wait_for_events(target, site).await;
    }
    let drained = begun.elapsed();
    sleep(LATE_RUN_WATCH).await;
    let mut counts: Vec<ServerCounts> = Vec::new();
    let mut descriptors = Vec::new();
    for ((target, site), new) in targets.iter().zip(&testbed.sites).zip(new) {
        cleanup_checks::wait_until_idle(target).await;
        let end = cleanup_checks::check_descriptors(target, site, new).await;
        descriptors.push(DescriptorCounts { new, end });
        counts.push(check(target, loaded.tick_window));
    }
    for target in &targets {
        cleanup_checks::stop_server(target, &testbed, &before)
            .await
            .with_context(|| server_name(target.index))?;
    }
    testbed.end_lost_containers().await?;
    for each in cleanup_checks::leftovers(&testbed).await? {
        event_log.report_violation(format!("left over: {each}"));
    }
    if LONG <= options.length {
        check_growth(&loaded.samples, event_log);
    }
    let tallies = targets.iter().map(|target| target.ledger.tally()).collect();
    let lost = testbed.lost.load(Ordering::Relaxed);
    let testbed = Arc::into_inner(testbed).context("the testbed is still in use")?;
    if let Err(error) = testbed.tear_down().await {
        event_log.report_violation(format!("stopping the services: {error:#}"));
    }
    let samples = loaded.samples;
    Ok(SoakReport { tallies, counts, descriptors, samples, drained, lost })
}

/// Runs all clients and injects all faults for this long.
async fn load(
    testbed: &Arc<Testbed>,
    targets: &[ServerUnderTest],
    length: Duration,
    seed: u64,
) -> anyhow::Result<LoadResult> {
    sleep(TIMERS_KNOWN).await;
    let event_log = targets.first().context("no servers")?.event_log.clone();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let from = ClockReading::now();
    event_log.record("the load begins");
    for target in targets {
        start(target, seed, &stop, &tasks);
    }
    let watched = watch(testbed.clone(), event_log.clone(), length, stop.clone());
    let watched = tasks.spawn(watched);
    let faults = tasks.spawn(testbed.clone().inject(plan(seed, length)));
    sleep(length).await;
    timeout(LAST_FAULT_TIMEOUT, faults).await.context("a fault does not end")??;
    let until = ClockReading::now();
    event_log.record("the load ends");
    stop.cancel();
    tasks.close();
    if timeout(LAST_CALL, tasks.wait()).await.is_err() {
        event_log.report_violation(format!("clients still wait for answers after {LAST_CALL:?}"));
    }
    Ok(LoadResult { samples: watched.await?, tick_window: TickWindow { from, until } })
}
