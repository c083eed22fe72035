//! The API's description, generated from the code that answers it.

use std::collections::BTreeMap;

use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    Content, ContentBuilder, ObjectBuilder, PathItem, Ref, RefOr, Required, ResponseBuilder, Schema,
};
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
    modifiers(&Keys, &Problems, &Names, &Bodies),
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

/// What every route can answer besides its own, and what type a refusal has everywhere.
struct Problems;

/// The type of a refusal's body (RFC 9457).
const PROBLEM_TYPE: &str = "application/problem+json";

impl Modify for Problems {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for operation in operations(openapi) {
            let open = operation.security.is_some();
            let responses = &mut operation.responses.responses;
            if !open {
                add(responses, "400", "A value breaks a rule");
                add(responses, "401", "No valid secret id and key");
                add(responses, "503", "Something is away: try again after `Retry-After` seconds");
                add(responses, "default", "Another refusal of the platform");
            }
            for response in responses.values_mut() {
                let RefOr::T(response) = response else { continue };
                let content = std::mem::take(&mut response.content);
                for (kind, content) in content {
                    let kind = if is_problem(&content) { PROBLEM_TYPE.into() } else { kind };
                    response.content.insert(kind, content);
                }
            }
        }
    }
}

/// Parameters that are names: which ones are valid.
struct Names;

impl Modify for Names {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for operation in operations(openapi) {
            for parameter in operation.parameters.iter_mut().flatten() {
                let pattern = match parameter.name.as_str() {
                    "name" => "^[A-Za-z]([A-Za-z0-9_-]{0,58})[A-Za-z0-9]$",
                    "namespace" | "trigger" => "^[A-Za-z]([A-Za-z0-9_-]{0,58}[A-Za-z0-9])?$",
                    "qualifier" => "^([$]LATEST|[1-9][0-9]{0,8})$",
                    "digest" => "^[0-9a-f]{64}$",
                    "id" | "requestId" => UUID_PATTERN,
                    _ => continue,
                };
                if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema {
                    schema.pattern = Some(pattern.into());
                }
            }
        }
    }
}

/// What the derived schemas cannot say.
struct Bodies;

impl Modify for Bodies {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for operation in operations(openapi) {
            let Some(body) = &mut operation.request_body else { continue };
            if let Some(zip) = body.content.get_mut("application/zip") {
                // Bytes have no schema.
                zip.schema = None;
            }
            if operation.operation_id.as_deref() == Some("invoke") {
                body.required = Some(Required::False);
            }
        }
        let schemas = openapi.components.as_mut().map(|components| &mut components.schemas);
        let view = schemas.and_then(|schemas| schemas.get_mut("InvocationView"));
        if let Some(RefOr::T(Schema::Object(view))) = view {
            view.required = view.properties.keys().cloned().collect();
            let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
            let any = any.description(Some("What the function returned: any JSON, or `null`."));
            view.properties.insert("result".into(), any.build().into());
        }
    }
}

const UUID_PATTERN: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

fn operations(openapi: &mut utoipa::openapi::OpenApi) -> impl Iterator<Item = &mut Operation> {
    openapi.paths.paths.values_mut().flat_map(|path| {
        let PathItem { get, put, post, delete, head, patch, .. } = path;
        [get, put, post, delete, head, patch].into_iter().filter_map(Option::as_mut)
    })
}

fn add(
    responses: &mut BTreeMap<String, RefOr<utoipa::openapi::Response>>,
    status: &str,
    what: &str,
) {
    responses.entry(status.into()).or_insert_with(|| {
        let schema = Ref::from_schema_name("ProblemBody");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        ResponseBuilder::new().description(what).content(PROBLEM_TYPE, content).build().into()
    });
}

fn is_problem(content: &Content) -> bool {
    matches!(&content.schema, Some(RefOr::Ref(to)) if to.ref_location.ends_with("/ProblemBody"))
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
    fn every_refusal_is_a_problem_document_and_described() {
        let described = serde_json::to_value(description()).unwrap();
        for (path, methods) in described["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap();
                for (status, response) in responses {
                    let plain = &response["content"]["application/json"]["schema"]["$ref"];
                    assert_ne!(
                        plain, "#/components/schemas/ProblemBody",
                        "{method} {path} {status}"
                    );
                }
                if path.starts_with("/v1/") {
                    for status in ["400", "401", "default"] {
                        assert!(responses.contains_key(status), "{method} {path}: no {status}");
                    }
                }
            }
        }
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
