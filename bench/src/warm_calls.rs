//! Warm calls in a closed loop, of hanshu and the ceiling alternately, with the cost of each call.

use anyhow::ensure;

use crate::ceiling::{ContainerWorkers, WorkerLanguage};
use crate::client::BenchClient;
use crate::process_stats::{self, MeasuredProcesses};
use crate::report::{MeasuredFigure, PromiseTarget};
use crate::run::BenchRun;
use crate::server::BenchServer;
use crate::server_metrics::ServerMetrics;
use crate::wrk::{self, LoadRequest, WrkResult, as_f64};

/// Seconds of load before each timed load.
const WARM_UP_S: u64 = 1;
/// Seconds of load on several connections before the first timed load: until the number of sandboxes
/// has settled.
const SETTLE_S: u64 = 6;

/// The result of one timed load.
#[derive(Clone, Debug)]
pub(crate) struct TimedLoad {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Processor time of the measured processes and containers per answered call.
    pub(crate) cpu_us: f64,
}

impl TimedLoad {
    fn new(result: &WrkResult, cpu_time: std::time::Duration) -> Self {
        Self {
            per_second: result.per_second(),
            p50_us: result.p50,
            p99_us: result.p99,
            cpu_us: cpu_time.as_secs_f64() * 1e6 / as_f64(result.requests),
        }
    }
}

/// The samples of hanshu and the ceiling, repetition by repetition.
#[derive(Clone, Debug, Default)]
pub(crate) struct PairedSamples {
    pub(crate) ours: Vec<TimedLoad>,
    pub(crate) ceiling: Vec<TimedLoad>,
}

impl PairedSamples {
    /// A figure of one property of the samples.
    pub(crate) fn figure(
        &self,
        row: &'static str,
        name: &str,
        unit: &'static str,
        of: fn(&TimedLoad) -> f64,
    ) -> MeasuredFigure {
        let values = |samples: &[TimedLoad]| samples.iter().map(of).collect::<Vec<_>>();
        MeasuredFigure::new(row, name, unit).ours(values(&self.ours)).ceiling(values(&self.ceiling))
    }

    pub(crate) fn rate(&self, row: &'static str) -> MeasuredFigure {
        self.figure(row, "requests/s", "/s", |sample| sample.per_second)
    }

    pub(crate) fn p50(&self, row: &'static str) -> MeasuredFigure {
        self.figure(row, "p50", "us", |sample| sample.p50_us)
    }

    /// The ratio p99 ÷ p50.
    pub(crate) fn tail(&self, row: &'static str) -> MeasuredFigure {
        self.figure(row, "p99/p50", "", |sample| sample.p99_us / sample.p50_us)
    }

    /// Processor time of the server and its containers per call.
    pub(crate) fn cpu(&self, row: &'static str) -> MeasuredFigure {
        self.figure(row, "server CPU per call", "us", |sample| sample.cpu_us)
    }
}

/// Sends `request` under load and measures what it costs. The warm-up is not counted.
///
/// # Errors
/// If an answer is not a success.
pub(crate) async fn sample(
    run: &BenchRun,
    side: &MeasuredProcesses,
    request: &LoadRequest,
    connections: u32,
) -> anyhow::Result<TimedLoad> {
    wrk::run(run.dir(), request, connections, WARM_UP_S).await?.expect_no_errors()?;
    let before = side.cpu_time()?;
    let result =
        wrk::run(run.dir(), request, connections, run.measure.seconds).await?.expect_complete()?;
    Ok(TimedLoad::new(&result, side.cpu_time()?.saturating_sub(before)))
}

/// The load of a row of warm calls.
#[derive(Clone, Debug)]
pub(crate) struct WarmLoad {
    pub(crate) language: WorkerLanguage,
    pub(crate) connections: u32,
    pub(crate) event: Vec<u8>,
    /// Memory limit of a sandbox and of the ceiling's containers, MiB.
    pub(crate) memory_mb: u32,
}

/// Measures `request` on `server` and the same event on the ceiling, alternately.
///
/// # Errors
/// If an answer of either is not a success.
pub(crate) async fn measure_in_turns(
    run: &BenchRun,
    server: &BenchServer,
    request: &LoadRequest,
    load: &WarmLoad,
) -> anyhow::Result<(PairedSamples, u32)> {
    BenchClient::once(request).await?;
    let settle = if load.connections == 1 { WARM_UP_S } else { SETTLE_S };
    wrk::run(run.dir(), request, load.connections, settle).await?.expect_no_errors()?;
    let most = ContainerWorkers::worker_count_max(run, load.connections);
    let workers = ContainerWorkers::start(run, load.language, most, load.memory_mb).await?;
    let best = workers.choose_worker_count(run, &load.event, load.connections).await?;
    let bare = workers.request(&load.event);
    let mut pairs = PairedSamples::default();
    for _ in 0..run.measure.repeats {
        pairs.ours.push(sample(run, &server.side()?, request, load.connections).await?);
        pairs.ceiling.push(sample(run, &workers.side(), &bare, load.connections).await?);
    }
    Ok((pairs, best))
}

/// The rate, with this target for its ratio to the ceiling; p50 and processor time without targets.
pub(crate) fn rate_figures(
    row: &'static str,
    pairs: &PairedSamples,
    best_workers: u32,
    at_least: f64,
) -> Vec<MeasuredFigure> {
    vec![
        pairs
            .rate(row)
            .target(PromiseTarget::RatioAtLeast(at_least))
            .note(format!("the ceiling served best with {best_workers} workers")),
        pairs.p50(row),
        pairs.cpu(row),
    ]
}

/// Dropped records and memory of the server, reported for every row of warm calls.
///
/// # Errors
/// If the server does not answer.
pub(crate) async fn server_figures(
    row: &'static str,
    server: &BenchServer,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let metrics = server.metrics().await?;
    let rss = process_stats::resident_memory(server.pid())?.now_mb;
    Ok(vec![dropped(row, &metrics)?, MeasuredFigure::new(row, "server RSS", "MB").ours([rss])])
}

/// Dropped records in per cent of all invocations so far.
fn dropped(row: &'static str, metrics: &ServerMetrics) -> anyhow::Result<MeasuredFigure> {
    let all = metrics.invocations();
    ensure!(0.0 < all, "the server counted no invocations");
    let lost = metrics.dropped_records();
    Ok(MeasuredFigure::new(row, "dropped records", "%")
        .ours([100.0 * lost / all])
        .target(PromiseTarget::AtMost(0.1))
        .note(format!(
            "{lost:.0} of {all:.0} records, and {:.0} lines of output",
            metrics.dropped_lines()
        )))
}
