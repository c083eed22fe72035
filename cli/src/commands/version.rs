//! `hanshu version`.

use serde::Serialize;

use crate::client::Server;
use crate::error::{Error, Exit};
use crate::output::Printer;

#[derive(Serialize)]
struct Versions {
    program: &'static str,
    server: Option<String>,
}

pub(super) async fn run(server: Option<Server>, printer: Printer) -> Result<Exit, Error> {
    let server = match server {
        Some(server) => server.client.health().await.ok(),
        None => None,
    };
    let versions = Versions {
        program: env!("CARGO_PKG_VERSION"),
        server: server.map(|health| health.version),
    };
    printer.show(&versions, |versions| {
        let server = versions.server.as_deref().unwrap_or("none answers");
        format!("hanshu {}\nserver {server}", versions.program)
    })?;
    Ok(Exit::Done)
}
