//! Warm calls through an HTTP trigger, whose key is checked.

use anyhow::Context as _;
use serde_json::Value;

use super::sync::EVENT;
use crate::ceiling::Language;
use crate::report::Line;
use crate::run::{Run, sources};
use crate::server::{Server, Settings};
use crate::warm::{self, Load};
use crate::wrk::Request;

pub(super) async fn run(
    row: &'static str,
    run: &Run,
    language: Language,
    connections: u32,
) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(run, Settings::docker()).await?;
    let name = format!("http-{}", language.name());
    server.deploy(&sources().join("functions").join(&name)).await?;
    let view = server.client().await?.get(&format!("/v1/functions/{name}/triggers")).await?;
    let view: Value = serde_json::from_slice(&view)?;
    let key = view.pointer("/triggers/0/key").and_then(Value::as_str);
    let request = Request {
        url: format!("{}/echo", server.http_url()?),
        headers: vec![
            ("content-type", "application/json".into()),
            ("x-hanshu-key", key.context("the trigger has no key")?.into()),
        ],
        body: EVENT.to_vec(),
    };
    let load = Load { language, connections, event: EVENT.to_vec(), memory_mb: 128 };
    let (pairs, best) = warm::in_turns(run, &server, &request, &load).await?;
    let mut lines = warm::rated(row, &pairs, best, 0.5);
    lines.extend(warm::whole(row, &server).await?);
    Ok(lines)
}
