//! How the server is: alive, ready, and in numbers.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};

use crate::state::Gateway;
use crate::wire::{Health, Readiness};

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The process is alive.
#[utoipa::path(
    get, path = "/healthz", tag = "status", operation_id = "health", security(()),
    responses((status = 200, description = "Alive", body = Health))
)]
pub(crate) async fn healthz() -> Json<Health> {
    Json(health())
}

pub(crate) fn health() -> Health {
    Health { status: "ok".into(), version: env!("CARGO_PKG_VERSION").into() }
}

/// Whether it can serve.
#[utoipa::path(
    get, path = "/readyz", tag = "status", operation_id = "readiness", security(()),
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot: see the reasons", body = Readiness),
    )
)]
pub(crate) async fn readyz(State(gateway): State<Gateway>) -> (StatusCode, Json<Readiness>) {
    let reasons = gateway.readiness.reasons().await;
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, reasons }))
}

/// The metrics, as Prometheus reads them.
#[utoipa::path(
    get, path = "/metrics", tag = "status", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text", body = String,
        content_type = "text/plain"))
)]
pub(crate) async fn metrics(
    State(gateway): State<Gateway>,
) -> ([(HeaderName, &'static str); 1], String) {
    let text = gateway.prometheus.as_ref().map(|recorder| recorder.render()).unwrap_or_default();
    ([(CONTENT_TYPE, METRICS_TYPE)], text)
}
