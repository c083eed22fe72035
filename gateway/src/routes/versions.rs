//! Published versions of functions.

use axum::Json;
use axum::extract::State;
use hanshu_api::wire::{VersionList, VersionView};
use hanshu_core::{ErrorKind, FunctionId, PermissionTarget};
use http::StatusCode;

use super::functions::no_function;
use crate::extract::FunctionParam;
use crate::function_view;
use crate::middleware::Caller;
use crate::problem::Problem;
use crate::state::Gateway;

/// A function's versions, from the lowest.
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    FunctionParam(id): FunctionParam,
) -> Result<Json<VersionList>, Problem> {
    caller.check(PermissionTarget::Function(&id))?;
    let versions = version_views(&gateway, &id).ok_or_else(|| no_function(&id))?;
    Ok(Json(VersionList { versions }))
}

/// Publishes `$LATEST` as the next version; the newest one again if nothing has changed since.
pub(crate) async fn publish(
    State(gateway): State<Gateway>,
    caller: Caller,
    FunctionParam(id): FunctionParam,
) -> Result<(StatusCode, Json<VersionView>), Problem> {
    let published = gateway.controller.publish(&caller.actor, &id).await?;
    let versions = version_views(&gateway, &id).unwrap_or_default();
    let wanted = published.version.to_string();
    let version = versions.into_iter().find(|each| each.version.to_string() == wanted);
    // Published and deleted in the same moment.
    let gone =
        || Problem::new(ErrorKind::Conflict, format!("function `{id}` was deleted meanwhile"));
    Ok((StatusCode::CREATED, Json(version.ok_or_else(gone)?)))
}

fn version_views(gateway: &Gateway, id: &FunctionId) -> Option<Vec<VersionView>> {
    let snapshot = gateway.controller.catalog().snapshot();
    snapshot.function(id).map(function_view::versions)
}
