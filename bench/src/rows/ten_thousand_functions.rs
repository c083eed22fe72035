//! 10,000 functions with a timer each, all due in the same second.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::warm_sync::EVENT;
use crate::client::BenchClient;
use crate::report::{MeasuredFigure, PromiseTarget, percentile};
use crate::run::{BenchRun, crate_dir, now};
use crate::server::{BenchServer, BenchServerSettings};
use crate::wrk;

const NAME: &str = "echo-python";
/// Deploys that run at once.
const CLIENTS: usize = 8;
/// Functions that are deployed first, to estimate how long all take.
const TRIED: usize = 400;
/// Time for the measurements between the last deploy and the ticks' second.
const MARGIN: Duration = Duration::from_secs(12);
/// Factors by which all deploys may take longer than estimated.
const SLOWER: [f64; 3] = [1.3, 2.0, 4.0];
/// How late the last tick may be before the row fails.
const LOOKED_AT: Duration = Duration::from_secs(30);
const QUEUED: &str = "hanshu_timer_ticks_total{how=\"queued\"}";

pub(super) async fn run(row: &'static str, run: &BenchRun) -> anyhow::Result<Vec<MeasuredFigure>> {
    let all = run.samples(10_000, 1_000);
    let settings = BenchServerSettings::docker().with("HANSHU_GRACE_S", 0);
    let mut crowded = BenchServer::start(run, settings.clone()).await?;
    let alone = BenchServer::start(run, settings).await?;
    for server in [&crowded, &alone] {
        server.deploy(&crate_dir().join("functions/echo-python")).await?;
        BenchClient::once(&server.call(NAME, EVENT)?).await?;
    }
    let begun = Instant::now();
    deploy(&crowded, 0..TRIED, "0 0 0 1 1 * 2099").await?;
    let each = begun.elapsed() / u32::try_from(TRIED)?;
    // Twice the load's time, for warm-ups and wrk's start.
    let load = Duration::from_secs(run.measure.seconds + 2) * run.measure.repeats * 2;
    let rest = load + MARGIN;
    let due = deploy_all(&crowded, all, each * u32::try_from(all)?, rest).await?;
    let deployed = begun.elapsed();
    crowded.restart().await?;
    let start = crowded.ready_after.as_secs_f64();
    let mut figures = vec![
        MeasuredFigure::new(row, "start", "s")
            .ours([start])
            .target(PromiseTarget::AtMost(1.0))
            .note(format!("{all} functions and timers, deployed in {deployed:.0?}")),
        warm(row, run, &crowded, &alone).await?,
    ];
    figures.extend(ticks(row, &crowded, due, all).await?);
    Ok(figures)
}

/// Deploys all functions with a timer that is due once, `rest` after the estimated end; again with
/// a later second if the deploys take longer.
async fn deploy_all(
    server: &BenchServer,
    all: usize,
    seemed: Duration,
    rest: Duration,
) -> anyhow::Result<Timestamp> {
    for slower in SLOWER {
        let whole = seemed.mul_f64(slower) + rest;
        let due = now().as_second() + i64::try_from(whole.as_secs())?;
        let due = Timestamp::from_second(due)?;
        deploy(server, 0..all, &due.strftime("%S %M %H %d %m * %Y").to_string()).await?;
        if rest.as_secs_f64() * 0.8 < due.duration_since(now()).as_secs_f64() {
            return Ok(due);
        }
    }
    anyhow::bail!("deploys take ever longer: {seemed:?} would have been expected")
}

/// The p50 of warm calls of one function, beside all the others and alone.
async fn warm(
    row: &'static str,
    run: &BenchRun,
    crowded: &BenchServer,
    alone: &BenchServer,
) -> anyhow::Result<MeasuredFigure> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for server in [crowded, alone] {
        BenchClient::once(&server.call(NAME, EVENT)?).await?;
    }
    for _ in 0..run.measure.repeats {
        for (server, times) in [(crowded, &mut ours), (alone, &mut bare)] {
            let request = server.call(NAME, EVENT)?;
            wrk::run(run.dir(), &request, 1, 1).await?.expect_no_errors()?;
            let result = wrk::run(run.dir(), &request, 1, run.measure.seconds).await?;
            times.push(result.expect_complete()?.p50);
        }
    }
    Ok(MeasuredFigure::new(row, "warm p50 among many / alone", "us")
        .ours(ours)
        .ceiling(bare)
        .target(PromiseTarget::RatioAtMost(1.05)))
}

async fn deploy(
    server: &BenchServer,
    which: std::ops::Range<usize>,
    cron: &str,
) -> anyhow::Result<()> {
    let view = server.client().await?.get(&format!("/v1/functions/{NAME}")).await?;
    let view: Value = serde_json::from_slice(&view)?;
    let code = view.get("code").and_then(Value::as_str).context("the function's code")?;
    let body = json!({
        "runtime": "python", "handler": "index.main_handler", "code": code,
        "triggers": [{ "type": "timer", "cron": cron }],
    });
    let body = Bytes::from(serde_json::to_vec(&body)?);
    let workers = (0..CLIENTS).map(|worker| {
        let (body, which) = (body.clone(), which.clone());
        async move {
            let mut client = server.client().await?;
            for index in which.filter(|index| index % CLIENTS == worker) {
                let path = format!("/v1/functions/many-{index}");
                client.send(Method::PUT, &path, &[], body.clone()).await?.expect_success()?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(workers).await.map(drop)
}

/// Waits for the second in which all timers are due, and records when each tick was queued.
async fn ticks(
    row: &'static str,
    server: &BenchServer,
    due: Timestamp,
    all: usize,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let left = due.duration_since(now());
    ensure!(!left.is_negative(), "deploys took too long: the ticks' second is over");
    tokio::time::sleep(left.unsigned_abs()).await;
    let all = wrk::as_f64(u64::try_from(all)?);
    let mut client = server.client().await?;
    let mut late = Vec::new();
    while wrk::as_f64(u64::try_from(late.len())?) < all {
        let text = client.get("/metrics").await?;
        let metrics = crate::server_metrics::ServerMetrics::read(&String::from_utf8_lossy(&text));
        let after = now().duration_since(due).as_secs_f64();
        while wrk::as_f64(u64::try_from(late.len())?) < metrics.one(QUEUED).min(all) {
            late.push(after);
        }
        ensure!(after < LOOKED_AT.as_secs_f64(), "{} of {all} ticks were queued", late.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let metrics = server.metrics().await?;
    let (queued, ticks) = (metrics.one(QUEUED), metrics.sum("hanshu_timer_ticks_total"));
    let last = late.last().copied().unwrap_or(f64::NAN);
    let p99 = percentile(&late, 0.99).unwrap_or(f64::NAN);
    Ok(vec![
        MeasuredFigure::new(row, "ticks queued late (p99)", "s")
            .ours([p99])
            .target(PromiseTarget::AtMost(1.0))
            .note(format!("the last one after {last:.2} s")),
        MeasuredFigure::new(row, "ticks not queued just once", "")
            .ours([(queued - all).abs() + (ticks - queued)])
            .target(PromiseTarget::AtMost(0.0))
            .note(format!(
                "{queued} of {all} queued, {} duplicate, late or refused",
                ticks - queued
            )),
    ])
}
