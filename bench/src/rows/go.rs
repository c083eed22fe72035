//! Warm calls of a Go function over scf-go-lib's messages, against net/rpc's bare loop.

use super::sync::EVENT;
use crate::ceiling::Language;
use crate::report::Line;
use crate::run::{Run, sources};
use crate::server::{Server, Settings};
use crate::warm::{self, Load};

pub(super) async fn run(
    row: &'static str,
    run: &Run,
    connections: u32,
) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(run, Settings::docker()).await?;
    server.deploy(&sources().join("functions/echo-go")).await?;
    let request = server.call("echo-go", EVENT)?;
    let language = Language::Go;
    let load = Load { language, connections, event: EVENT.to_vec(), memory_mb: 128 };
    let (pairs, best) = warm::in_turns(run, &server, &request, &load).await?;
    let mut lines = warm::rated(row, &pairs, best, 0.5);
    lines.extend(warm::whole(row, &server).await?);
    Ok(lines)
}
