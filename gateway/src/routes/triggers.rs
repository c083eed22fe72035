//! A function's triggers: list, switch, fire.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use hanshu_api::wire::{NamespaceParams, TriggerChange, TriggerDetail, TriggerFired, TriggerList};
use hanshu_core::{ErrorKind, FunctionId, FunctionName, PermissionTarget, TriggerId, TriggerName};
use http::{HeaderValue, StatusCode};

use super::functions::no_function;
use crate::extract::{JsonBody, One, Query, Two};
use crate::headers::{FAULT, REQUEST_ID, id_value};
use crate::middleware::Caller;
use crate::problem::Problem;
use crate::state::Gateway;
use crate::view;

/// A function's triggers, by name.
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    One(name): One<FunctionName>,
    Query(place): Query<NamespaceParams>,
) -> Result<Json<TriggerList>, Problem> {
    let id = FunctionId { namespace: place.namespace, name };
    caller.check(PermissionTarget::Function(&id))?;
    let snapshot = gateway.controller.catalog().snapshot();
    let entry = snapshot.function(&id).ok_or_else(|| no_function(&id))?;
    let triggers = view::triggers(&gateway, &entry.triggers);
    Ok(Json(TriggerList { namespace: id.namespace, function: id.name, triggers }))
}

/// Switches a trigger on or off, until the next deploy says otherwise.
pub(crate) async fn change(
    State(gateway): State<Gateway>,
    caller: Caller,
    Two(name, trigger): Two<FunctionName, TriggerName>,
    Query(place): Query<NamespaceParams>,
    JsonBody(change): JsonBody<TriggerChange>,
) -> Result<Json<TriggerDetail>, Problem> {
    let function = FunctionId { namespace: place.namespace, name };
    let id = TriggerId { function, name: trigger };
    gateway.controller.enable_trigger(&caller.actor, &id, change.enabled).await.map_err(
        |error| {
            if error.kind() == ErrorKind::NotFound { no_trigger(&id) } else { error.into() }
        },
    )?;
    find(&gateway, &id).map(Json)
}

fn find(gateway: &Gateway, id: &TriggerId) -> Result<TriggerDetail, Problem> {
    let snapshot = gateway.controller.catalog().snapshot();
    let entry = snapshot.function(&id.function).ok_or_else(|| no_function(&id.function))?;
    let trigger = entry.triggers.iter().find(|trigger| trigger.id == *id);
    Ok(view::trigger(gateway, trigger.ok_or_else(|| no_trigger(id))?))
}

/// Queues a timer's event now, through the same path as its ticks.
pub(crate) async fn fire(
    State(gateway): State<Gateway>,
    caller: Caller,
    Two(name, trigger): Two<FunctionName, TriggerName>,
    Query(place): Query<NamespaceParams>,
) -> Result<Response, Problem> {
    let function = FunctionId { namespace: place.namespace, name };
    let id = TriggerId { function, name: trigger };
    let snapshot = gateway.controller.catalog().snapshot();
    let found = snapshot.triggers.iter().find(|trigger| trigger.id == id);
    let found = found.ok_or_else(|| no_trigger(&id))?;
    let request_id =
        hanshu_triggers::fire_timer(&caller.actor, &gateway.intake, found).await?.request_id;
    let headers = [(REQUEST_ID, id_value(request_id)), (FAULT, HeaderValue::from_static("none"))];
    Ok((StatusCode::ACCEPTED, headers, Json(TriggerFired { request_id })).into_response())
}

fn no_trigger(id: &TriggerId) -> Problem {
    Problem::new(ErrorKind::NotFound, format!("trigger `{id}` does not exist"))
        .code("trigger_not_found")
        .hint("`hanshu trigger list` shows what there is")
}
