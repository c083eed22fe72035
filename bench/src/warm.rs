//! Warm calls in a closed loop: ours and the ceiling in turns, with what each call cost.

use anyhow::ensure;

use crate::ceiling::{Language, Workers};
use crate::client::Client;
use crate::cpu::{self, Side};
use crate::metrics::Metrics;
use crate::report::{Line, Target};
use crate::run::Run;
use crate::server::Server;
use crate::wrk::{self, Request, Seen, as_f64};

/// Seconds of load before each timed piece.
const WARM_UP_S: u64 = 1;
/// Seconds of load of several connections before all pieces: until there are as many sandboxes as
/// serve best.
const SETTLE_S: u64 = 6;

/// One timed piece of load.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Processor time of the side's processes and containers, per answered call.
    pub(crate) cpu_us: f64,
}

impl Sample {
    fn new(seen: &Seen, spent: std::time::Duration) -> Self {
        Self {
            per_second: seen.per_second(),
            p50_us: seen.p50,
            p99_us: seen.p99,
            cpu_us: spent.as_secs_f64() * 1e6 / as_f64(seen.requests),
        }
    }
}

/// Ours and the ceiling, repetition by repetition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) ours: Vec<Sample>,
    pub(crate) ceiling: Vec<Sample>,
}

impl Pairs {
    /// A line of one property of the samples.
    pub(crate) fn line(
        &self,
        (row, figure): (&'static str, &str),
        unit: &'static str,
        of: fn(&Sample) -> f64,
        target: Target,
    ) -> Line {
        let values = |samples: &[Sample]| samples.iter().map(of).collect::<Vec<_>>();
        Line::new(row, figure, unit)
            .ours(values(&self.ours))
            .ceiling(values(&self.ceiling))
            .target(target)
    }
}

/// Sends `request` to a side and sees what it costs. The first second is not counted.
///
/// # Errors
/// Where an answer is not a success.
pub(crate) async fn sample(
    run: &Run,
    side: &Side,
    request: &Request,
    connections: u32,
) -> anyhow::Result<Sample> {
    wrk::run(run.dir(), request, connections, WARM_UP_S).await?.unbroken()?;
    let before = side.spent()?;
    let seen = wrk::run(run.dir(), request, connections, run.measure.seconds).await?.faultless()?;
    Ok(Sample::new(&seen, side.spent()?.saturating_sub(before)))
}

/// What a row of warm calls is about.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) language: Language,
    pub(crate) connections: u32,
    pub(crate) event: Vec<u8>,
    /// MiB of a sandbox and of the ceiling's containers.
    pub(crate) memory_mb: u32,
}

/// Measures `request` on `server` and the same event on the ceiling, in turns.
///
/// # Errors
/// Where an answer of either is not a success.
pub(crate) async fn in_turns(
    run: &Run,
    server: &Server,
    request: &Request,
    load: &Load,
) -> anyhow::Result<(Pairs, u32)> {
    Client::once(request).await?;
    let settle = if load.connections == 1 { WARM_UP_S } else { SETTLE_S };
    wrk::run(run.dir(), request, load.connections, settle).await?.unbroken()?;
    let most = Workers::tried_most(run, load.connections);
    let workers = Workers::start(run, load.language, most, load.memory_mb).await?;
    let best = workers.use_best(run, &load.event, load.connections).await?;
    let bare = workers.request(&load.event);
    let mut pairs = Pairs::default();
    for _ in 0..run.measure.repeats {
        pairs.ours.push(sample(run, &server.side()?, request, load.connections).await?);
        pairs.ceiling.push(sample(run, &workers.side(), &bare, load.connections).await?);
    }
    Ok((pairs, best))
}

/// The rate, which is to be at least so much of the ceiling's; p50 and the processor are told.
pub(crate) fn rated(row: &'static str, pairs: &Pairs, best: u32, at_least: f64) -> Vec<Line> {
    let rate = Target::RatioAtLeast(at_least);
    vec![
        pairs
            .line((row, "requests/s"), "/s", |sample| sample.per_second, rate)
            .note(format!("the ceiling served best with {best} workers")),
        pairs.line((row, "p50"), "us", |sample| sample.p50_us, Target::Told),
        pairs.line((row, "server CPU per call"), "us", |sample| sample.cpu_us, Target::Told),
    ]
}

/// Records that were lost, sandboxes, and memory: told for every row of warm calls.
///
/// # Errors
/// Where the server does not say.
pub(crate) async fn whole(row: &'static str, server: &Server) -> anyhow::Result<Vec<Line>> {
    let metrics = server.metrics().await?;
    let (rss, _) = cpu::memory_mb(server.pid())?;
    Ok(vec![dropped(row, &metrics)?, Line::new(row, "server RSS", "MB").ours([rss])])
}

/// Of all invocations so far, in per cent.
fn dropped(row: &'static str, metrics: &Metrics) -> anyhow::Result<Line> {
    let all = metrics.invocations();
    ensure!(0.0 < all, "the server counted no invocations");
    let lost = metrics.dropped_records();
    Ok(Line::new(row, "dropped records", "%")
        .ours([100.0 * lost / all])
        .target(Target::AtMost(0.1))
        .note(format!(
            "{lost:.0} of {all:.0} records, and {:.0} lines of output",
            metrics.dropped_lines()
        )))
}

/// The tail over the middle, of each sample.
pub(crate) fn tail(sample: &Sample) -> f64 {
    sample.p99_us / sample.p50_us
}
