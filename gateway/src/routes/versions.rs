//! Published versions.

use axum::Json;
use axum::extract::State;
use hanshu_api::wire::{NamespaceParams, VersionList, VersionView};
use hanshu_core::{ErrorKind, FunctionId, FunctionName, PermissionTarget};
use http::StatusCode;

use super::functions::no_function;
use crate::extract::{One, Query};
use crate::middleware::Caller;
use crate::problem::Problem;
use crate::state::Gateway;
use crate::view;

/// A function's versions, from the lowest.
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    One(name): One<FunctionName>,
    Query(place): Query<NamespaceParams>,
) -> Result<Json<VersionList>, Problem> {
    let id = FunctionId { namespace: place.namespace, name };
    caller.check(PermissionTarget::Function(&id))?;
    let versions = all(&gateway, &id).ok_or_else(|| no_function(&id))?;
    Ok(Json(VersionList { versions }))
}

/// Publishes `$LATEST` as the next version; the newest one again if nothing has changed since.
pub(crate) async fn publish(
    State(gateway): State<Gateway>,
    caller: Caller,
    One(name): One<FunctionName>,
    Query(place): Query<NamespaceParams>,
) -> Result<(StatusCode, Json<VersionView>), Problem> {
    let id = FunctionId { namespace: place.namespace, name };
    let published = gateway.controller.publish(&caller.actor, &id).await?;
    let versions = all(&gateway, &id).unwrap_or_default();
    let wanted = published.version.to_string();
    let version = versions.into_iter().find(|each| each.version.to_string() == wanted);
    // Published and deleted in the same moment.
    let gone =
        || Problem::new(ErrorKind::Conflict, format!("function `{id}` was deleted meanwhile"));
    Ok((StatusCode::CREATED, Json(version.ok_or_else(gone)?)))
}

fn all(gateway: &Gateway, id: &FunctionId) -> Option<Vec<VersionView>> {
    let snapshot = gateway.controller.catalog().snapshot();
    snapshot.function(id).map(view::versions)
}
