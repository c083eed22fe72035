//! Warm calls through the native API: Python and Node in Docker, 100 B in and out.

use crate::ceiling::WorkerLanguage;
use crate::report::{MeasuredFigure, PromiseTarget};
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};
use crate::warm_calls::{self, WarmLoad};
use crate::wrk::as_f64;

/// An event of 100 bytes.
pub(super) const EVENT: &[u8] = br#"{"name":"world","number":17,"list":[1,2,3],"nested":{"key":"value"},"text":"some words to fill it."}"#;

pub(super) async fn run(
    row: &'static str,
    run: &BenchRun,
    language: WorkerLanguage,
    connections: u32,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    let name = format!("echo-{}", language.name());
    server.deploy(&crate_dir().join("functions").join(&name)).await?;
    let request = server.call(&name, EVENT)?;
    let load = WarmLoad { language, connections, event: EVENT.to_vec(), memory_mb: 128 };
    let (pairs, best_workers) = warm_calls::measure_in_turns(run, &server, &request, &load).await?;
    let mut figures = vec![
        pairs
            .rate(row)
            .target(PromiseTarget::RatioAtLeast(0.6))
            .note(format!("the ceiling served best with {best_workers} workers")),
    ];
    if connections == 1 {
        figures.push(pairs.p50(row).target(PromiseTarget::RatioAtMost(1.7)));
        figures.push(pairs.cpu(row).target(PromiseTarget::RatioAtMost(1.8)));
    } else {
        figures.push(pairs.tail(row).target(PromiseTarget::RatioAtMost(1.5)));
        figures.push(pairs.p50(row));
        figures.push(pairs.cpu(row));
    }
    figures.push(sandboxes(row, &server).await?);
    figures.extend(warm_calls::server_figures(row, &server).await?);
    Ok(figures)
}

/// Sandboxes must not exceed twice the cores, the limit of a function without `concurrency`.
async fn sandboxes(row: &'static str, server: &BenchServer) -> anyhow::Result<MeasuredFigure> {
    let cores = as_f64(u64::try_from(std::thread::available_parallelism()?.get())?);
    let started = server.metrics().await?.started();
    Ok(MeasuredFigure::new(row, "sandboxes started", "")
        .ours([started])
        .target(PromiseTarget::AtMost(2.0 * cores)))
}
