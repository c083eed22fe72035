//! Memory and processor time of an idle server, and its start.

use std::time::Duration;

use crate::process_stats;
use crate::report::{MeasuredFigure, PromiseTarget};
use crate::run::BenchRun;
use crate::server::{BenchServer, BenchServerSettings};

pub(super) async fn run(row: &'static str, run: &BenchRun) -> anyhow::Result<Vec<MeasuredFigure>> {
    let mut server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    let mut ready = Vec::new();
    for _ in 0..run.measure.repeats {
        // Not the first start: that creates the database.
        server.restart().await?;
        ready.push(server.ready_after.as_secs_f64() * 1e3);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let watched = Duration::from_secs(if run.measure.quick { 5 } else { 10 });
    let side = server.side()?;
    let before = side.cpu_time()?;
    tokio::time::sleep(watched).await;
    let cpu_time = side.cpu_time()?.saturating_sub(before);
    let rss = process_stats::resident_memory(server.pid())?.now_mb;
    Ok(vec![
        MeasuredFigure::new(row, "RSS", "MB").ours([rss]).target(PromiseTarget::AtMost(40.0)),
        MeasuredFigure::new(row, "CPU", "% of a core")
            .ours([100.0 * cpu_time.as_secs_f64() / watched.as_secs_f64()])
            .target(PromiseTarget::AtMost(0.5))
            .note(format!("over {} s, in ticks of 10 ms", watched.as_secs())),
        MeasuredFigure::new(row, "ready after start", "ms")
            .ours(ready)
            .target(PromiseTarget::AtMost(300.0)),
    ])
}
