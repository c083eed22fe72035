//! Five times the capacity of a function: 2,000 calls a second to one that can do 400.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::client::BenchClient;
use crate::oha::{self, OfferedLoad, OhaSample};
use crate::report::{MeasuredFigure, PromiseTarget, median, percentile};
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};
use crate::server_metrics::ServerMetrics;

const NAME: &str = "overloaded";
const EVENT: &str = r#"{"sleep":0.02}"#;
/// Calls per second at concurrency 8 and 20 ms each.
const CAPACITY: f64 = 400.0;
const OFFERED: u32 = 2000;
/// More than the wait queue and the sandboxes take, so that no call waits for a connection.
const CONNECTIONS: u32 = 1500;
/// How soon the counters must be zero again, and how long they are watched.
const BACK_WITHIN: Duration = Duration::from_secs(1);
const LOOKED_AT: Duration = Duration::from_secs(10);
/// Calls before and after the load whose medians are compared.
const PROBES: usize = 50;

pub(super) async fn run(row: &'static str, run: &BenchRun) -> anyhow::Result<Vec<MeasuredFigure>> {
    let seconds = if run.measure.quick { 10 } else { 60 };
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    server.deploy(&crate_dir().join("functions/sleep-python")).await?;
    let request = server.call(NAME, EVENT.as_bytes())?;
    BenchClient::once(&request).await?;
    let before = probes(&server).await?;
    let load = OfferedLoad { rate: OFFERED, connections: CONNECTIONS, seconds };
    let samples = oha::run(run.dir(), &request, load).await?;
    let ended = Instant::now();
    let back = until_zero(&server, ended).await?;
    tokio::time::sleep(BACK_WITHIN.saturating_sub(ended.elapsed())).await;
    let after = probes(&server).await?;
    let mut figures = answers(row, &samples, seconds)?;
    figures.push(
        MeasuredFigure::new(row, "counters are zero after", "s")
            .ours([back])
            .target(PromiseTarget::AtMost(1.0)),
    );
    figures.push(
        MeasuredFigure::new(row, "p50 after / before", "ms")
            .ours([after])
            .ceiling([before])
            .target(PromiseTarget::RatioAtMost(1.1)),
    );
    let started = server.metrics().await?.started();
    figures.push(
        MeasuredFigure::new(row, "sandboxes started", "")
            .ours([started])
            .target(PromiseTarget::AtMost(8.0)),
    );
    figures.extend(crate::warm_calls::server_figures(row, &server).await?);
    Ok(figures)
}

fn answers(
    row: &'static str,
    samples: &[OhaSample],
    seconds: u64,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let of = |status: u16| samples.iter().filter(move |answer| answer.status == status);
    let (fine, refused) = (of(200).count(), of(429).count());
    let others = samples.len() - fine - refused;
    let per_second =
        |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / span(seconds);
    let offered = per_second(samples.len());
    ensure!(f64::from(OFFERED) * 0.8 < offered, "only {offered:.0} calls/s could be offered");
    let waits: Vec<f64> = of(429).map(|answer| answer.took_s * 1e3).collect();
    ensure!(!waits.is_empty(), "nothing was refused");
    let p99 = percentile(&waits, 0.99).unwrap_or(f64::NAN);
    let most = percentile(&waits, 1.0).unwrap_or(f64::NAN);
    Ok(vec![
        MeasuredFigure::new(row, "answered", "/s")
            .ours([per_second(fine)])
            .ceiling([CAPACITY])
            .target(PromiseTarget::RatioAtLeast(0.9))
            .note(format!("{offered:.0}/s were offered for {seconds} s")),
        MeasuredFigure::new(row, "neither 200 nor 429", "")
            .ours([f64::from(u32::try_from(others)?)])
            .target(PromiseTarget::AtMost(0.0)),
        MeasuredFigure::new(row, "429 after (p99)", "ms")
            .ours([p99])
            .target(PromiseTarget::AtMost(50.0))
            .note(format!(
                "{refused} were refused since the wait queue was full, the slowest after {most:.0} ms"
            )),
    ])
}

fn span(seconds: u64) -> f64 {
    Duration::from_secs(seconds).as_secs_f64()
}

/// Median milliseconds of a few calls.
async fn probes(server: &BenchServer) -> anyhow::Result<f64> {
    let mut client = server.client().await?;
    let mut times = Vec::new();
    for _ in 0..PROBES {
        times.push(client.invoke(NAME, EVENT).await?.expect_success()?.took_ms());
    }
    Ok(median(&times).unwrap_or(f64::NAN))
}

/// Seconds until no call waits and no sandbox is starting, busy or stopping.
async fn until_zero(server: &BenchServer, since: Instant) -> anyhow::Result<f64> {
    loop {
        if busy(&server.metrics().await?) < 1.0 {
            return Ok(since.elapsed().as_secs_f64());
        }
        ensure!(since.elapsed() < LOOKED_AT, "counters are not zero within {LOOKED_AT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn busy(metrics: &ServerMetrics) -> f64 {
    let states = ["starting", "busy", "stopping"]
        .map(|state| metrics.one(&format!("hanshu_sandboxes{{state=\"{state}\"}}")));
    states.iter().sum::<f64>() + metrics.sum("hanshu_invocations_waiting")
}
