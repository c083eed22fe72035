//! A minimal axum server: the cost of HTTP alone on this machine.

use std::io::Write as _;

use anyhow::Context as _;
use axum::Router;
use axum::routing::post;
use tokio::net::TcpListener;

/// Serves until it is killed; prints its port once it listens.
///
/// # Errors
/// If it cannot listen.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    let hello = || async { r#"{"message":"hello"}"# };
    axum::serve(listener, Router::new().route("/", post(hello))).await.context("hello")
}
