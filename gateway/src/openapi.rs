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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::routes::table;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let described = serde_json::to_value(description()).unwrap();
        assert!(described["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut told = BTreeSet::new();
        for (path, methods) in described["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                told.insert(format!("{method} {path}"));
            }
        }
        let routes = table().into_iter().map(|route| format!("{} {}", route.method, route.path));
        let mut answered: BTreeSet<_> = routes.collect();
        answered.insert("post /v1/functions/{name}/invocations".into());
        assert_eq!(told, answered);
    }

    #[test]
    fn every_wire_type_is_described() {
        let described = serde_json::to_value(description()).unwrap();
        let schemas = described["components"]["schemas"].as_object().unwrap();
        let sources = [
            include_str!("wire/functions.rs"),
            include_str!("wire/invocations.rs"),
            include_str!("wire/logs.rs"),
            include_str!("wire/problem.rs"),
            include_str!("wire/queues.rs"),
            include_str!("wire/status.rs"),
            include_str!("wire/triggers.rs"),
            include_str!("wire/versions.rs"),
        ];
        let mut types = 0;
        for line in sources.iter().flat_map(|source| source.lines()) {
            let kind = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
            let Some(name) = kind.and_then(|rest| rest.split(' ').next()) else { continue };
            assert!(schemas.contains_key(name), "{name} is not described");
            types += 1;
        }
        assert_eq!(types, schemas.len(), "{:?}", schemas.keys());
    }
}
