//! A server that has nothing to do.

use std::time::Duration;

use crate::cpu;
use crate::report::{Line, Target};
use crate::run::Run;
use crate::server::{Server, Settings};

pub(super) async fn run(row: &'static str, run: &Run) -> anyhow::Result<Vec<Line>> {
    let mut server = Server::start(run, Settings::docker()).await?;
    let mut ready = Vec::new();
    for _ in 0..run.measure.repeats {
        // Not the first start: that one makes the database.
        server.restart().await?;
        ready.push(server.ready_after.as_secs_f64() * 1e3);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let watched = Duration::from_secs(if run.measure.quick { 5 } else { 10 });
    let side = server.side()?;
    let before = side.spent()?;
    tokio::time::sleep(watched).await;
    let spent = side.spent()?.saturating_sub(before);
    let (rss, _) = cpu::memory_mb(server.pid())?;
    Ok(vec![
        Line::new(row, "RSS", "MB").ours([rss]).target(Target::AtMost(40.0)),
        Line::new(row, "CPU", "% of a core")
            .ours([100.0 * spent.as_secs_f64() / watched.as_secs_f64()])
            .target(Target::AtMost(0.5))
            .note(format!("over {} s, in ticks of 10 ms", watched.as_secs())),
        Line::new(row, "ready after start", "ms").ours(ready).target(Target::AtMost(300.0)),
    ])
}
