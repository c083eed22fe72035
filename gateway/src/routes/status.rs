//! How the server is: alive, ready, and in numbers.

use axum::Json;
use axum::extract::State;
use hanshu_api::wire::{Health, Readiness};
use hanshu_core::PermissionTarget;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
use serde::Serialize;

use crate::middleware::Caller;
use crate::problem::Problem;
use crate::state::Gateway;

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The process is alive.
pub(crate) async fn healthz() -> Result<Json<Health>, Problem> {
    Ok(Json(health()))
}

pub(crate) fn health() -> Health {
    Health { status: "ok".into(), version: env!("CARGO_PKG_VERSION").into() }
}

/// Whether it can serve.
pub(crate) async fn readyz(
    State(gateway): State<Gateway>,
) -> Result<(StatusCode, Json<Readiness>), Problem> {
    let reasons = gateway.readiness.reasons().await;
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(Readiness { ready, reasons })))
}

/// The metrics, as Prometheus reads them.
pub(crate) async fn metrics(
    State(gateway): State<Gateway>,
    caller: Caller,
) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    caller.check(PermissionTarget::Server)?;
    let text = gateway.prometheus.as_ref().map(|recorder| recorder.render()).unwrap_or_default();
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text))
}

/// The API's OpenAPI description.
pub(crate) async fn openapi() -> Result<Json<impl Serialize>, Problem> {
    Ok(Json(hanshu_api::openapi()))
}
