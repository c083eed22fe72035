//! A small function beside a stream of 6 MB calls to another.

use super::sync::EVENT;
use crate::client::Client;
use crate::report::{Line, Target};
use crate::run::{Run, sources};
use crate::server::{Server, Settings};
use crate::wrk;

/// Seconds that the stream goes on before and after the small function is timed.
const MARGIN_S: u64 = 1;

pub(super) async fn run(row: &'static str, run: &Run) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(run, Settings::docker()).await?;
    server.deploy(&sources().join("functions/echo-python")).await?;
    let small = server.call("echo-python", EVENT)?;
    let large = super::bodies::event((6 << 20) - 64);
    let large = server.call("echo-large-python", &large)?;
    Client::once(&small).await?;
    Client::once(&large).await?;
    let seconds = run.measure.seconds;
    let (mut alone, mut beside, mut streamed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.measure.repeats {
        wrk::run(run.dir(), &small, 1, 1).await?.unbroken()?;
        alone.push(wrk::run(run.dir(), &small, 1, seconds).await?.faultless()?.p99 / 1e3);
        let stream = wrk::run(run.dir(), &large, 1, seconds + 2 * MARGIN_S);
        let timed = async {
            tokio::time::sleep(std::time::Duration::from_secs(MARGIN_S)).await;
            wrk::run(run.dir(), &small, 1, seconds).await
        };
        let (stream, timed) = tokio::join!(stream, timed);
        streamed.push(stream?.faultless()?.per_second());
        beside.push(timed?.faultless()?.p99 / 1e3);
    }
    Ok(vec![
        Line::new(row, "small function's p99", "ms").ours(beside).target(Target::AtMost(5.0)),
        Line::new(row, "the same alone", "ms").ours(alone),
        Line::new(row, "6 MB calls meanwhile", "/s").ours(streamed),
    ])
}
