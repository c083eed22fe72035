//! Calls of a small function during a stream of 6 MB calls to another.

use super::warm_sync::EVENT;
use crate::client::BenchClient;
use crate::report::{MeasuredFigure, PromiseTarget};
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};
use crate::wrk;

/// Seconds of the stream before and after the small function is timed.
const MARGIN_S: u64 = 1;

pub(super) async fn run(row: &'static str, run: &BenchRun) -> anyhow::Result<Vec<MeasuredFigure>> {
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    server.deploy(&crate_dir().join("functions/echo-python")).await?;
    let small = server.call("echo-python", EVENT)?;
    let large = super::large_bodies::event((6 << 20) - 64);
    let large = server.call("echo-large-python", &large)?;
    BenchClient::once(&small).await?;
    BenchClient::once(&large).await?;
    let seconds = run.measure.seconds;
    let (mut alone, mut beside, mut streamed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.measure.repeats {
        wrk::run(run.dir(), &small, 1, 1).await?.expect_no_errors()?;
        alone.push(wrk::run(run.dir(), &small, 1, seconds).await?.expect_complete()?.p99 / 1e3);
        let stream = wrk::run(run.dir(), &large, 1, seconds + 2 * MARGIN_S);
        let timed = async {
            tokio::time::sleep(std::time::Duration::from_secs(MARGIN_S)).await;
            wrk::run(run.dir(), &small, 1, seconds).await
        };
        let (stream, timed) = tokio::join!(stream, timed);
        streamed.push(stream?.expect_complete()?.per_second());
        beside.push(timed?.expect_complete()?.p99 / 1e3);
    }
    Ok(vec![
        MeasuredFigure::new(row, "small function's p99", "ms")
            .ours(beside)
            .target(PromiseTarget::AtMost(5.0)),
        MeasuredFigure::new(row, "the same alone", "ms").ours(alone),
        MeasuredFigure::new(row, "6 MB calls meanwhile", "/s").ours(streamed),
    ])
}
