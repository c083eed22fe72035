//! Calls to frozen sandboxes, against calls at the same pace to warm ones.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::client::BenchClient;
use crate::process_stats;
use crate::report::{MeasuredFigure, PromiseTarget, median, percentile};
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};

/// Idle time after which the first server freezes a sandbox.
const FREEZE_AFTER_MS: u64 = 10;
/// Pause between calls to the second server: about as long as the first needs to freeze.
const PACE: Duration = Duration::from_millis(30);
/// Longest wait until a sandbox is frozen.
const FROZEN_WITHIN: Duration = Duration::from_secs(5);
const NAME: &str = "echo-python";

pub(super) async fn run(row: &'static str, run: &BenchRun) -> anyhow::Result<Vec<MeasuredFigure>> {
    let cold = started(run, FREEZE_AFTER_MS).await?;
    let warm = started(run, 0).await?;
    let (mut to_cold, mut to_warm) = (cold.client().await?, warm.client().await?);
    let calls = run.samples(120, 40);
    let (mut frozen, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..run.measure.repeats {
        for _ in 0..calls {
            until_frozen(&cold).await?;
            frozen.push(timed(&mut to_cold).await?);
        }
        for _ in 0..calls {
            tokio::time::sleep(PACE).await;
            beside.push(timed(&mut to_warm).await?);
        }
    }
    let p99 = |values: &[f64]| percentile(values, 0.99).unwrap_or(f64::NAN);
    Ok(vec![
        MeasuredFigure::new(row, "p99 above the warm one", "ms")
            .ours([p99(&frozen) - p99(&beside)])
            .target(PromiseTarget::AtMost(1.0))
            .note(format!(
                "{} calls to frozen sandboxes: p99 {:.3} ms against {:.3} ms",
                frozen.len(),
                p99(&frozen),
                p99(&beside)
            )),
        MeasuredFigure::new(row, "p50", "ms")
            .ours(median(&frozen).into_iter().collect::<Vec<_>>())
            .ceiling(median(&beside).into_iter().collect::<Vec<_>>()),
    ])
}

async fn started(run: &BenchRun, freeze_after_ms: u64) -> anyhow::Result<BenchServer> {
    let settings =
        BenchServerSettings::docker().with("HANSHU_POOL__FREEZE_AFTER_MS", freeze_after_ms);
    let server = BenchServer::start(run, settings).await?;
    server.deploy(&crate_dir().join("functions").join(NAME)).await?;
    server.client().await?.invoke(NAME, "{}").await?.expect_success()?;
    Ok(server)
}

async fn timed(client: &mut BenchClient) -> anyhow::Result<f64> {
    Ok(client.invoke(NAME, "{}").await?.expect_success()?.took_ms())
}

/// Waits until the control groups of all the server's containers are frozen.
async fn until_frozen(server: &BenchServer) -> anyhow::Result<()> {
    let containers = server.side()?.containers;
    ensure!(!containers.is_empty(), "the server has no containers");
    let begun = Instant::now();
    while !containers.iter().all(|id| process_stats::is_frozen(id)) {
        ensure!(begun.elapsed() < FROZEN_WITHIN, "no sandbox was frozen within {FROZEN_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
