//! The API's routes, as a list.

pub(crate) mod functions;
pub(crate) mod history;
pub(crate) mod invocations;
pub(crate) mod invoke;
pub(crate) mod logs;
pub(crate) mod packages;
pub(crate) mod queues;
pub(crate) mod status;
pub(crate) mod triggers;
pub(crate) mod versions;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use hanshu_core::Permission;

use crate::api_handler::{ApiHandler, respond};
use crate::middleware::{authorize_route, request_id};
use crate::problem::Problem;
use crate::state::Gateway;

/// One row of the route table.
pub(crate) struct ApiRoute {
    /// In lower case, as in OpenAPI.
    #[cfg_attr(not(test), expect(dead_code, reason = "compared with OpenAPI by a test"))]
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) access: RouteAccess,
    handler: MethodRouter<Gateway>,
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteAccess {
    /// Anybody, without a key.
    Open,
    /// Whoever has this permission for what the request is about.
    Needs(Permission),
}

/// Paths of the table that anybody may use.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/openapi.json"];

/// Whether anybody may use this path.
pub(crate) fn is_open(path: &str) -> bool {
    OPEN_PATHS.contains(&path)
}

/// Every route but `POST /v1/functions/{name}/invocations`, which the front answers itself.
#[rustfmt::skip]
pub(crate) fn route_table() -> Vec<ApiRoute> {
    use Permission::{
        ManageFunctions, ManageInvocations, ManageTriggers, ReadFunctions, ReadInvocations, ReadLogs, ReadServer,
    };
    use RouteAccess::{Needs, Open};
    vec![
        get("/v1/functions", Needs(ReadFunctions), functions::list),
        get("/v1/functions/{name}", Needs(ReadFunctions), functions::show),
        put("/v1/functions/{name}", Needs(ManageFunctions), functions::deploy),
        delete("/v1/functions/{name}", Needs(ManageFunctions), functions::delete),
        get("/v1/functions/{name}/versions", Needs(ReadFunctions), versions::list),
        post("/v1/functions/{name}/versions", Needs(ManageFunctions), versions::publish),
        get("/v1/functions/{name}/triggers", Needs(ReadFunctions), triggers::list),
        patch("/v1/functions/{name}/triggers/{trigger}", Needs(ManageTriggers), triggers::change),
        post("/v1/functions/{name}/triggers/{trigger}/fire", Needs(ManageTriggers), triggers::fire),
        get("/v1/functions/{name}/logs", Needs(ReadLogs), logs::read),
        get("/v1/invocations", Needs(ReadInvocations), history::list),
        get("/v1/invocations/{id}", Needs(ReadInvocations), invocations::show),
        post("/v1/invocations/{id}/cancel", Needs(ManageInvocations), history::cancel),
        post("/v1/invocations/{id}/rerun", Needs(ManageInvocations), history::rerun),
        head("/v1/packages/{digest}", Needs(ManageFunctions), packages::has),
        put("/v1/packages/{digest}", Needs(ManageFunctions), packages::put),
        get("/v1/queues", Needs(ReadServer), queues::list),
        get("/metrics", Needs(ReadServer), status::metrics),
        get("/healthz", Open, status::healthz),
        get("/readyz", Open, status::readyz),
        get("/openapi.json", Open, status::openapi),
    ]
}

pub(crate) fn router(gateway: Gateway) -> Router {
    let empty = Router::new();
    route_table()
        .into_iter()
        .fold(empty, |router, route| router.route(route.path, route.guarded()))
        .fallback(no_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(gateway)
}

impl ApiRoute {
    /// The handler, behind the check of the route's permission.
    fn guarded(self) -> MethodRouter<Gateway> {
        match self.access {
            RouteAccess::Open => self.handler,
            RouteAccess::Needs(permission) => {
                self.handler.route_layer(from_fn_with_state(permission, authorize_route))
            }
        }
    }
}

async fn no_route(request: Request) -> Response {
    let problem = Problem::no_route(request.uri().path());
    problem.answer(request_id(request.extensions())).map(axum::body::Body::new)
}

/// axum adds the `Allow` header.
async fn method_not_allowed(request: Request) -> Response {
    let problem = Problem::method_not_allowed(None);
    problem.answer(request_id(request.extensions())).map(axum::body::Body::new)
}

macro_rules! method {
    ($name:ident, $filter:ident) => {
        fn $name<H, Args>(path: &'static str, access: RouteAccess, handler: H) -> ApiRoute
        where
            H: ApiHandler<Args>,
            Args: 'static,
        {
            let handle = |State(gateway): State<Gateway>, request: Request| {
                respond(handler, gateway, request)
            };
            let handler = on(MethodFilter::$filter, handle);
            ApiRoute { method: stringify!($name), path, access, handler }
        }
    };
}

method!(get, GET);
method!(head, HEAD);
method!(put, PUT);
method!(post, POST);
method!(patch, PATCH);
method!(delete, DELETE);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{OPEN_PATHS, RouteAccess, route_table};

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let described = serde_json::to_value(hanshu_api::openapi()).unwrap();
        assert!(described["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut operations = BTreeSet::new();
        for (path, methods) in described["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                operations.insert(format!("{method} {path}"));
            }
        }
        let routes =
            route_table().into_iter().map(|route| format!("{} {}", route.method, route.path));
        let mut answered: BTreeSet<_> = routes.collect();
        answered.insert("post /v1/functions/{name}/invocations".into());
        assert_eq!(operations, answered);
    }

    #[test]
    fn exactly_the_open_paths_need_no_permission() {
        let open = route_table().into_iter().filter(|route| route.access == RouteAccess::Open);
        let open: Vec<_> = open.map(|route| (route.method, route.path)).collect();
        assert_eq!(open, OPEN_PATHS.map(|path| ("get", path)));
    }
}
