//! `hanshu version` prints the versions of program and server.

use serde::Serialize;

use crate::client::ServerConnection;
use crate::error::{CommandStatus, Error};
use crate::output::Printer;

#[derive(Serialize)]
struct VersionReport {
    program: &'static str,
    server: Option<String>,
}

pub(super) async fn run(
    server: Option<ServerConnection>,
    printer: Printer,
) -> Result<CommandStatus, Error> {
    let server = match server {
        Some(server) => server.client.health().await.ok(),
        None => None,
    };
    let versions = VersionReport {
        program: env!("CARGO_PKG_VERSION"),
        server: server.map(|health| health.version),
    };
    printer.show(&versions, |versions| {
        let server = versions.server.as_deref().unwrap_or("none answers");
        format!("hanshu {}\nserver {server}", versions.program)
    })?;
    Ok(CommandStatus::Done)
}
