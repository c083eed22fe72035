//! A function's triggers: list, switch, fire.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use hanshu_api::wire::{TriggerChange, TriggerDetail, TriggerFired, TriggerList};
use hanshu_core::{ErrorKind, PermissionTarget, TriggerId};
use http::{HeaderValue, StatusCode};

use super::functions::no_function;
use crate::extract::{FunctionParam, JsonBody, TriggerParam};
use crate::function_view;
use crate::headers::{FAULT, REQUEST_ID, id_value};
use crate::middleware::Caller;
use crate::problem::Problem;
use crate::state::Gateway;

/// A function's triggers, by name.
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    FunctionParam(id): FunctionParam,
) -> Result<Json<TriggerList>, Problem> {
    caller.check(PermissionTarget::Function(&id))?;
    let snapshot = gateway.controller.catalog().snapshot();
    let entry = snapshot.function(&id).ok_or_else(|| no_function(&id))?;
    let triggers = function_view::triggers(&gateway, &entry.triggers);
    Ok(Json(TriggerList { namespace: id.namespace, function: id.name, triggers }))
}

/// Switches a trigger on or off, until the next deploy says otherwise.
pub(crate) async fn change(
    State(gateway): State<Gateway>,
    caller: Caller,
    TriggerParam(id): TriggerParam,
    JsonBody(change): JsonBody<TriggerChange>,
) -> Result<Json<TriggerDetail>, Problem> {
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
    Ok(function_view::trigger(gateway, trigger.ok_or_else(|| no_trigger(id))?))
}

/// Queues a timer's event now, through the same path as its ticks.
pub(crate) async fn fire(
    State(gateway): State<Gateway>,
    caller: Caller,
    TriggerParam(id): TriggerParam,
) -> Result<Response, Problem> {
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
