//! Acceptance of asynchronous calls, 1 KB, durable, 64 clients; against the bare store.

use std::time::Duration;

use crate::ceiling::{self, BareRedis};
use crate::client::BenchClient;
use crate::report::{MeasuredFigure, PromiseTarget};
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};
use crate::wrk;

const CLIENTS: u32 = 64;
const BYTES: usize = 1024;
/// Each event sleeps this long, so that only acceptance is measured.
const SLEEP_S: u32 = 30;
const NAME: &str = "one-at-a-time";

/// Into the SQLite queue.
pub(super) async fn sqlite(
    row: &'static str,
    run: &BenchRun,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let time = Duration::from_secs(run.measure.seconds);
    for _ in 0..run.measure.repeats {
        ours.push(accepted(run, BenchServerSettings::docker()).await?);
        let producers = u64::from(CLIENTS);
        bare.push(ceiling::inserted_per_second(run.dir(), &event(), producers, time)?);
    }
    Ok(vec![line(row, ours, bare, "SQLite, WAL, synchronous = FULL, one commit for all that wait")])
}

/// Into a Redis that syncs before it answers.
pub(super) async fn redis(
    row: &'static str,
    run: &BenchRun,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let time = Duration::from_secs(run.measure.seconds);
    for _ in 0..run.measure.repeats {
        // A new one for each measurement: none is slowed by what an earlier one left.
        let redis = BareRedis::start(run).await?;
        ours.push(
            accepted(run, BenchServerSettings::docker().with("HANSHU_QUEUE", redis.url())).await?,
        );
        drop(redis);
        let redis = BareRedis::start(run).await?;
        let producers = usize::try_from(CLIENTS)?;
        bare.push(redis.added_per_second(&event(), producers, time).await?);
    }
    Ok(vec![line(row, ours, bare, "appendfsync always; bare: 64 producers on one connection")])
}

fn line(row: &'static str, ours: Vec<f64>, bare: Vec<f64>, note: &str) -> MeasuredFigure {
    MeasuredFigure::new(row, "accepted", "/s")
        .ours(ours)
        .ceiling(bare)
        .target(PromiseTarget::RatioAtLeast(0.5))
        .note(note)
}

fn event() -> Vec<u8> {
    let open = format!("{{\"sleep\":{SLEEP_S},\"data\":\"");
    let fill = "x".repeat(BYTES - open.len() - 2);
    format!("{open}{fill}\"}}").into_bytes()
}

async fn accepted(run: &BenchRun, settings: BenchServerSettings) -> anyhow::Result<f64> {
    let server = BenchServer::start(run, settings.with("HANSHU_GRACE_S", 0)).await?;
    server.deploy(&crate_dir().join("functions/sleep-python")).await?;
    let mut request = server.call(NAME, &event())?;
    BenchClient::once(&server.call(NAME, b"{}")?).await?;
    request.headers.push(("prefer", "respond-async".into()));
    wrk::run(run.dir(), &request, CLIENTS, 1).await?.expect_no_errors()?;
    let result =
        wrk::run(run.dir(), &request, CLIENTS, run.measure.seconds).await?.expect_complete()?;
    Ok(result.per_second())
}
