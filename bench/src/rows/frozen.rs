//! Calls that find their sandbox frozen, against calls at the same pace that find it warm.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::client::Client;
use crate::cpu;
use crate::report::{Line, Target, median, percentile};
use crate::run::{Run, sources};
use crate::server::{Server, Settings};

/// Idle time after which the first server freezes.
const FREEZE_AFTER_MS: u64 = 10;
/// Between calls to the second server: about what the first needs to freeze.
const PACE: Duration = Duration::from_millis(30);
/// Until a sandbox must be seen frozen.
const FROZEN_WITHIN: Duration = Duration::from_secs(5);
const NAME: &str = "echo-python";

pub(super) async fn run(row: &'static str, run: &Run) -> anyhow::Result<Vec<Line>> {
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
        Line::new(row, "p99 above the warm one", "ms")
            .ours([p99(&frozen) - p99(&beside)])
            .target(Target::AtMost(1.0))
            .note(format!(
                "{} calls that were seen frozen: p99 {:.3} ms against {:.3} ms",
                frozen.len(),
                p99(&frozen),
                p99(&beside)
            )),
        Line::new(row, "p50", "ms")
            .ours(median(&frozen).into_iter().collect::<Vec<_>>())
            .ceiling(median(&beside).into_iter().collect::<Vec<_>>()),
    ])
}

async fn started(run: &Run, freeze_after_ms: u64) -> anyhow::Result<Server> {
    let settings = Settings::docker().with("HANSHU_POOL__FREEZE_AFTER_MS", freeze_after_ms);
    let server = Server::start(run, settings).await?;
    server.deploy(&sources().join("functions").join(NAME)).await?;
    server.client().await?.invoke(NAME, "{}").await?.fine()?;
    Ok(server)
}

async fn timed(client: &mut Client) -> anyhow::Result<f64> {
    Ok(client.invoke(NAME, "{}").await?.fine()?.took_ms())
}

/// Until all of the server's containers are frozen, by their control groups.
async fn until_frozen(server: &Server) -> anyhow::Result<()> {
    let containers = server.side()?.containers;
    ensure!(!containers.is_empty(), "the server has no containers");
    let begun = Instant::now();
    while !containers.iter().all(|id| cpu::frozen(id)) {
        ensure!(begun.elapsed() < FROZEN_WITHIN, "no sandbox was frozen within {FROZEN_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
