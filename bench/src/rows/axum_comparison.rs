//! A warm call against the cost of HTTP alone: a minimal axum server.

use std::process::Child;

use super::warm_sync::EVENT;
use crate::ceiling::subcommand;
use crate::client::BenchClient;
use crate::process_stats::MeasuredProcesses;
use crate::report::MeasuredFigure;
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};
use crate::warm_calls::{self, PairedSamples};
use crate::wrk::LoadRequest;

const CONNECTIONS: u32 = 16;

/// The axum server's process, killed when this is dropped.
struct AxumServer(Child);

impl Drop for AxumServer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(super) async fn run(row: &'static str, run: &BenchRun) -> anyhow::Result<Vec<MeasuredFigure>> {
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    server.deploy(&crate_dir().join("functions/echo-python")).await?;
    let ours = server.call("echo-python", EVENT)?;
    BenchClient::once(&ours).await?;
    let (child, port) = subcommand(&["hello"])?;
    let bare_server = AxumServer(child);
    let bare_request = LoadRequest {
        url: format!("http://127.0.0.1:{port}/"),
        headers: vec![("content-type", "application/json".into())],
        body: EVENT.to_vec(),
    };
    let side = MeasuredProcesses { processes: vec![bare_server.0.id()], containers: Vec::new() };
    let mut pairs = PairedSamples::default();
    for _ in 0..run.measure.repeats {
        pairs.ours.push(warm_calls::sample(run, &server.side()?, &ours, CONNECTIONS).await?);
        pairs.ceiling.push(warm_calls::sample(run, &side, &bare_request, CONNECTIONS).await?);
    }
    Ok(vec![pairs.rate(row)])
}
