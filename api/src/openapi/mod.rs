//! The API's OpenAPI description: generated from the wire types and the list of operations.

mod operations;
mod trigger_schemas;

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    Content, ContentBuilder, ObjectBuilder, PathItem, Ref, RefOr, Required, ResponseBuilder, Schema,
};
use utoipa::{Modify, OpenApi};

use crate::wire::{DeployLine, FunctionFailure};

#[derive(OpenApi)]
#[openapi(
    info(title = "hanshu", description = "Self-hosted cloud functions: the native API"),
    paths(
        operations::invoke,
        operations::show_invocation,
        operations::list_invocations,
        operations::cancel_invocation,
        operations::rerun_invocation,
        operations::list_functions,
        operations::show_function,
        operations::deploy,
        operations::delete_function,
        operations::list_versions,
        operations::publish,
        operations::list_triggers,
        operations::change_trigger,
        operations::fire_trigger,
        operations::read_logs,
        operations::has_package,
        operations::put_package,
        operations::list_queues,
        operations::metrics,
        operations::health,
        operations::readiness,
        operations::openapi_document,
    ),
    components(schemas(FunctionFailure, DeployLine)),
    security(("key" = [])),
    modifiers(&AccessKeyScheme, &CommonProblems, &NamePatterns, &BodySchemas),
)]
struct Description;

/// How requests are authenticated.
struct AccessKeyScheme;

impl Modify for AccessKeyScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
        components.add_security_scheme("key", basic);
    }
}

/// What every route can answer besides its own, and what type a refusal has everywhere.
struct CommonProblems;

/// The type of a refusal's body (RFC 9457).
const PROBLEM_TYPE: &str = "application/problem+json";

impl Modify for CommonProblems {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for operation in operations_of(openapi) {
            let open = operation.security.is_some();
            let responses = &mut operation.responses.responses;
            if !open {
                add(responses, "400", "A value breaks a rule");
                add(responses, "401", "No valid secret id and key");
                add(
                    responses,
                    "503",
                    "A service is unavailable: try again after `Retry-After` seconds",
                );
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

/// Which values of the path's and the query's names are valid.
struct NamePatterns;

/// A namespace: 1 to 60 characters.
const NAMESPACE_PATTERN: &str = "^[A-Za-z]([A-Za-z0-9_-]{0,58}[A-Za-z0-9])?$";
/// A function's name: 2 to 60 characters.
const FUNCTION_PATTERN: &str = "^[A-Za-z][A-Za-z0-9_-]{0,58}[A-Za-z0-9]$";
/// A trigger's name: 1 to 100 characters.
const TRIGGER_PATTERN: &str = "^[A-Za-z]([A-Za-z0-9_-]{0,98}[A-Za-z0-9])?$";
const QUALIFIER_PATTERN: &str = "^([$]LATEST|[1-9][0-9]{0,8})$";
const DIGEST_PATTERN: &str = "^[0-9a-f]{64}$";
const UUID_PATTERN: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

impl Modify for NamePatterns {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for operation in operations_of(openapi) {
            for parameter in operation.parameters.iter_mut().flatten() {
                let pattern = match parameter.name.as_str() {
                    "name" => FUNCTION_PATTERN,
                    "namespace" => NAMESPACE_PATTERN,
                    "trigger" => TRIGGER_PATTERN,
                    "qualifier" => QUALIFIER_PATTERN,
                    "digest" => DIGEST_PATTERN,
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

/// Corrections that the derived schemas cannot express.
struct BodySchemas;

impl Modify for BodySchemas {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for operation in operations_of(openapi) {
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

fn operations_of(openapi: &mut utoipa::openapi::OpenApi) -> impl Iterator<Item = &mut Operation> {
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

/// The description, as JSON is made of it.
pub fn openapi() -> impl Serialize {
    Description::openapi()
}

#[cfg(test)]
mod tests {
    use hanshu_core::{FunctionName, Namespace, TriggerName};

    use super::*;

    fn described() -> serde_json::Value {
        serde_json::to_value(openapi()).unwrap()
    }

    #[test]
    fn every_refusal_is_a_problem_document_and_described() {
        let described = described();
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
        let described = described();
        let schemas = described["components"]["schemas"].as_object().unwrap();
        let sources = [
            include_str!("../wire/functions.rs"),
            include_str!("../wire/history.rs"),
            include_str!("../wire/invocations.rs"),
            include_str!("../wire/logs.rs"),
            include_str!("../wire/problem.rs"),
            include_str!("../wire/queues.rs"),
            include_str!("../wire/status.rs"),
            include_str!("../wire/triggers.rs"),
            include_str!("../wire/versions.rs"),
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

    /// How many characters a pattern of a name allows: `{0,N}` and the letters around it.
    fn longest(pattern: &str) -> usize {
        let (_, rest) = pattern.split_once("{0,").unwrap();
        rest.split_once('}').unwrap().0.parse::<usize>().unwrap() + 2
    }

    #[test]
    fn the_patterns_of_names_allow_what_the_names_do() {
        let name = |length: usize| "a".repeat(length);
        let longest_function = longest(FUNCTION_PATTERN);
        assert!(name(longest_function).parse::<FunctionName>().is_ok());
        assert!(name(longest_function + 1).parse::<FunctionName>().is_err());
        let longest_namespace = longest(NAMESPACE_PATTERN);
        assert!(name(longest_namespace).parse::<Namespace>().is_ok());
        assert!(name(longest_namespace + 1).parse::<Namespace>().is_err());
        let longest_trigger = longest(TRIGGER_PATTERN);
        assert!(name(longest_trigger).parse::<TriggerName>().is_ok());
        assert!(name(longest_trigger + 1).parse::<TriggerName>().is_err());
    }
}
