//! Warm calls of a Go function over scf-go-lib's protocol, against a bare net/rpc loop.

use super::warm_sync::EVENT;
use crate::ceiling::WorkerLanguage;
use crate::report::MeasuredFigure;
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};
use crate::warm_calls::{self, WarmLoad};

pub(super) async fn run(
    row: &'static str,
    run: &BenchRun,
    connections: u32,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    server.deploy(&crate_dir().join("functions/echo-go")).await?;
    let request = server.call("echo-go", EVENT)?;
    let language = WorkerLanguage::Go;
    let load = WarmLoad { language, connections, event: EVENT.to_vec(), memory_mb: 128 };
    let (pairs, best_workers) = warm_calls::measure_in_turns(run, &server, &request, &load).await?;
    let mut figures = warm_calls::rate_figures(row, &pairs, best_workers, 0.5);
    figures.extend(warm_calls::server_figures(row, &server).await?);
    Ok(figures)
}
