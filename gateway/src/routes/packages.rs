//! Packages by digest.

use std::time::Duration;

use axum::extract::{Request, State};
use hanshu_core::{Digest, ErrorKind, PACKAGE_BYTES_MAX};
use http::StatusCode;
use tokio::time::timeout;

use crate::extract::PathParam;
use crate::http_server::read_payload;
use crate::middleware::Caller;
use crate::problem::Problem;
use crate::state::Gateway;

/// How long an upload waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a package was uploaded already, so that unchanged code is not sent again.
pub(crate) async fn has(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathParam(digest): PathParam<Digest>,
) -> Result<StatusCode, Problem> {
    if gateway.controller.has_package(&caller.actor, &digest).await? {
        return Ok(StatusCode::OK);
    }
    let detail = format!("package `{digest}` is not here");
    Err(Problem::new(ErrorKind::NotFound, detail).code("package_not_found"))
}

/// Stores a package: a zip of at most 256 MiB whose SHA-256 is the digest.
pub(crate) async fn put(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathParam(digest): PathParam<Digest>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let limit = usize::try_from(PACKAGE_BYTES_MAX).unwrap_or(usize::MAX);
    let busy = || Problem::new(ErrorKind::Throttled, "other packages are being uploaded");
    let _turn = timeout(TURN_TIMEOUT, gateway.uploads().acquire()).await.map_err(|_| busy())?;
    let zip = read_payload(request.into_body(), limit).await;
    let zip = zip.map_err(|error| Problem::payload(error, "package_too_large", limit))?;
    gateway.controller.put_package(&caller.actor, &digest, zip).await?;
    Ok(StatusCode::NO_CONTENT)
}
