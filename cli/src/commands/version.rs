//! `hanshu version`.

use hanshu_gateway::wire::Health;
use reqwest::Method;
use serde::Serialize;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::Printer;

#[derive(Serialize)]
struct Versions {
    program: &'static str,
    server: Option<String>,
}

pub(super) async fn run(client: Option<Client>, printer: Printer) -> Result<Exit, Error> {
    let server = match client {
        Some(client) => client.json::<Health>(client.plain(Method::GET, "/healthz")).await.ok(),
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
