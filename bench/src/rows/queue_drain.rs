//! The rate at which queued events run, against synchronous calls of the same function.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http::Method;

use crate::client::BenchClient;
use crate::report::{MeasuredFigure, PromiseTarget};
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};
use crate::wrk;

const NAME: &str = "four";
const SANDBOXES: usize = 4;
const CONNECTIONS: u32 = 16;
/// Fewest events for a rate.
const EVENTS_MIN: f64 = 1000.0;
/// Longest wait until the queue is empty.
const DRAINED_WITHIN: Duration = Duration::from_secs(120);
const DONE: &str = "hanshu_async_events_total{how=\"succeeded\"}";

pub(super) async fn run(row: &'static str, run: &BenchRun) -> anyhow::Result<Vec<MeasuredFigure>> {
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    server.deploy(&crate_dir().join("functions/sleep-python")).await?;
    let sync = server.call(NAME, b"{}")?;
    BenchClient::once(&sync).await?;
    wrk::run(run.dir(), &sync, CONNECTIONS, 1).await?.expect_no_errors()?;
    let (mut drained, mut called) = (Vec::new(), Vec::new());
    for _ in 0..run.measure.repeats {
        drained.push(drain(run, &server).await?);
        wrk::run(run.dir(), &sync, CONNECTIONS, 1).await?.expect_no_errors()?;
        let result = wrk::run(run.dir(), &sync, CONNECTIONS, run.measure.seconds).await?;
        called.push(result.expect_complete()?.per_second());
    }
    let mut figures = vec![
        MeasuredFigure::new(row, "drained", "/s")
            .ours(drained)
            .ceiling(called)
            .target(PromiseTarget::RatioAtLeast(0.5))
            .note("the ceiling is ours, synchronous, at 16 connections"),
    ];
    figures.extend(crate::warm_calls::server_figures(row, &server).await?);
    Ok(figures)
}

/// Fills the queue while all sandboxes sleep, then measures the rate of the middle eight tenths.
async fn drain(run: &BenchRun, server: &BenchServer) -> anyhow::Result<f64> {
    let seconds = run.measure.seconds.min(3);
    let before = server.metrics().await?.one(DONE);
    let mut client = server.client().await?;
    let path = format!("/v1/functions/{NAME}/invocations");
    let hold = Bytes::from(format!("{{\"sleep\":{}}}", seconds + 1));
    let later = [("prefer", "respond-async")];
    for _ in 0..SANDBOXES {
        client.send(Method::POST, &path, &later, hold.clone()).await?.expect_success()?;
    }
    let mut request = server.call(NAME, b"{}")?;
    request.headers.push(("prefer", "respond-async".into()));
    let sent = wrk::run(run.dir(), &request, CONNECTIONS, seconds).await?.expect_complete()?;
    let all = wrk::as_f64(sent.requests);
    ensure!(EVENTS_MIN <= all, "only {all} events were queued");
    let (from, to) = (before + 0.1 * all, before + 0.9 * all);
    let begun = Instant::now();
    let (mut first, mut last) = (None, None);
    while last.is_none() {
        ensure!(begun.elapsed() < DRAINED_WITHIN, "the queue is not empty yet");
        let done = server.metrics().await?.one(DONE);
        let now = Instant::now();
        if first.is_none() && from <= done {
            first = Some((now, done));
        }
        if to <= done {
            last = Some((now, done));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (Some((t1, c1)), Some((t2, c2))) = (first, last) else { anyhow::bail!("nothing drained") };
    ensure!(c1 < c2, "the queue was empty before it could be looked at: {all} events");
    let rate = (c2 - c1) / (t2 - t1).as_secs_f64();
    until_empty(server, before + all).await?;
    Ok(rate)
}

async fn until_empty(server: &BenchServer, all: f64) -> anyhow::Result<()> {
    let begun = Instant::now();
    while server.metrics().await?.one(DONE) < all {
        ensure!(begun.elapsed() < DRAINED_WITHIN, "the last events do not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
