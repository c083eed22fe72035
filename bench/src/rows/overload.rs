//! Five times as much as a function can take: 2,000 calls a second to one that does 400.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::client::Client;
use crate::metrics::Metrics;
use crate::oha::{self, Answered};
use crate::report::{Line, Target, median, percentile};
use crate::run::{Run, sources};
use crate::server::{Server, Settings};

const NAME: &str = "overloaded";
const EVENT: &str = r#"{"sleep":0.02}"#;
/// Calls a second: concurrency 8, 20 ms each.
const CAPACITY: f64 = 400.0;
const OFFERED: u32 = 2000;
/// More than the line and the sandboxes take, so that a call is never late for want of one.
const CONNECTIONS: u32 = 1500;
/// How long counters may need to come back to zero. Looked at a little longer, to tell by how much.
const BACK_WITHIN: Duration = Duration::from_secs(1);
const LOOKED_AT: Duration = Duration::from_secs(10);
/// Calls before and after, whose middle is compared.
const PROBES: usize = 50;

pub(super) async fn run(row: &'static str, run: &Run) -> anyhow::Result<Vec<Line>> {
    let seconds = if run.measure.quick { 10 } else { 60 };
    let server = Server::start(run, Settings::docker()).await?;
    server.deploy(&sources().join("functions/sleep-python")).await?;
    let request = server.call(NAME, EVENT.as_bytes())?;
    Client::once(&request).await?;
    let before = probes(&server).await?;
    let seen = oha::run(run.dir(), &request, (OFFERED, CONNECTIONS), seconds).await?;
    let ended = Instant::now();
    let back = until_zero(&server, ended).await?;
    tokio::time::sleep(BACK_WITHIN.saturating_sub(ended.elapsed())).await;
    let after = probes(&server).await?;
    let mut lines = answers(row, &seen, seconds)?;
    lines.push(
        Line::new(row, "counters are zero after", "s").ours([back]).target(Target::AtMost(1.0)),
    );
    lines.push(
        Line::new(row, "p50 after / before", "ms")
            .ours([after])
            .ceiling([before])
            .target(Target::RatioAtMost(1.1)),
    );
    let started = server.metrics().await?.started();
    lines.push(Line::new(row, "sandboxes started", "").ours([started]).target(Target::AtMost(8.0)));
    lines.extend(crate::warm::whole(row, &server).await?);
    Ok(lines)
}

fn answers(row: &'static str, seen: &[Answered], seconds: u64) -> anyhow::Result<Vec<Line>> {
    let of = |status: u16| seen.iter().filter(move |answer| answer.status == status);
    let (fine, refused) = (of(200).count(), of(429).count());
    let others = seen.len() - fine - refused;
    let per_second =
        |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / span(seconds);
    let offered = per_second(seen.len());
    ensure!(f64::from(OFFERED) * 0.8 < offered, "only {offered:.0} calls/s could be offered");
    let waits: Vec<f64> = of(429).map(|answer| answer.took_s * 1e3).collect();
    ensure!(!waits.is_empty(), "nothing was refused");
    let p99 = percentile(&waits, 0.99).unwrap_or(f64::NAN);
    let most = percentile(&waits, 1.0).unwrap_or(f64::NAN);
    Ok(vec![
        Line::new(row, "answered", "/s")
            .ours([per_second(fine)])
            .ceiling([CAPACITY])
            .target(Target::RatioAtLeast(0.9))
            .note(format!("{offered:.0}/s were offered for {seconds} s")),
        Line::new(row, "neither 200 nor 429", "")
            .ours([f64::from(u32::try_from(others)?)])
            .target(Target::AtMost(0.0)),
        Line::new(row, "429 after (p99)", "ms").ours([p99]).target(Target::AtMost(50.0)).note(
            format!(
                "{refused} were refused since the line was full, the slowest after {most:.0} ms"
            ),
        ),
    ])
}

fn span(seconds: u64) -> f64 {
    Duration::from_secs(seconds).as_secs_f64()
}

/// Milliseconds of a call in the middle of some.
async fn probes(server: &Server) -> anyhow::Result<f64> {
    let mut client = server.client().await?;
    let mut times = Vec::new();
    for _ in 0..PROBES {
        times.push(client.invoke(NAME, EVENT).await?.fine()?.took_ms());
    }
    Ok(median(&times).unwrap_or(f64::NAN))
}

/// Seconds until nobody waits and nothing runs, starts or stops.
async fn until_zero(server: &Server, since: Instant) -> anyhow::Result<f64> {
    loop {
        if busy(&server.metrics().await?) < 1.0 {
            return Ok(since.elapsed().as_secs_f64());
        }
        ensure!(since.elapsed() < LOOKED_AT, "counters are not zero within {LOOKED_AT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn busy(metrics: &Metrics) -> f64 {
    let states = ["starting", "busy", "stopping"]
        .map(|state| metrics.one(&format!("hanshu_sandboxes{{state=\"{state}\"}}")));
    states.iter().sum::<f64>() + metrics.sum("hanshu_invocations_waiting")
}
