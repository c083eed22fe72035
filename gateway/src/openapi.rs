//! The API's description, generated from the code that answers it.

use axum::Json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::routes::{
    functions, invocations, invoke, logs, packages, queues, status, triggers, versions,
};
use crate::wire;

#[derive(OpenApi)]
#[openapi(
    info(title = "hanshu", description = "Self-hosted cloud functions: the native API"),
    paths(
        invoke::invoke,
        invocations::show,
        functions::list,
        functions::show,
        functions::deploy,
        functions::delete,
        versions::list,
        versions::publish,
        triggers::list,
        triggers::change,
        triggers::fire,
        logs::read,
        packages::has,
        packages::put,
        queues::list,
        status::metrics,
        status::healthz,
        status::readyz,
        serve,
    ),
    components(schemas(wire::FunctionFailure, wire::DeployLine)),
    security(("key" = [])),
    modifiers(&Keys),
)]
struct Description;

struct Keys;

impl Modify for Keys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
        components.add_security_scheme("key", basic);
    }
}

/// The description as a value.
pub(crate) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "status", operation_id = "openapi", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
pub(crate) async fn serve() -> Json<utoipa::openapi::OpenApi> {
    Json(description())
}
