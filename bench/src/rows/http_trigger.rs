//! Warm calls through an HTTP trigger with a key.

use anyhow::Context as _;
use serde_json::Value;

use super::warm_sync::EVENT;
use crate::ceiling::WorkerLanguage;
use crate::report::MeasuredFigure;
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};
use crate::warm_calls::{self, WarmLoad};
use crate::wrk::LoadRequest;

pub(super) async fn run(
    row: &'static str,
    run: &BenchRun,
    language: WorkerLanguage,
    connections: u32,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    let name = format!("http-{}", language.name());
    server.deploy(&crate_dir().join("functions").join(&name)).await?;
    let view = server.client().await?.get(&format!("/v1/functions/{name}/triggers")).await?;
    let view: Value = serde_json::from_slice(&view)?;
    let key = view.pointer("/triggers/0/key").and_then(Value::as_str);
    let request = LoadRequest {
        url: format!("{}/echo", server.http_url()?),
        headers: vec![
            ("content-type", "application/json".into()),
            ("x-hanshu-key", key.context("the trigger has no key")?.into()),
        ],
        body: EVENT.to_vec(),
    };
    let load = WarmLoad { language, connections, event: EVENT.to_vec(), memory_mb: 128 };
    let (pairs, best_workers) = warm_calls::measure_in_turns(run, &server, &request, &load).await?;
    let mut figures = warm_calls::rate_figures(row, &pairs, best_workers, 0.5);
    figures.extend(warm_calls::server_figures(row, &server).await?);
    Ok(figures)
}
