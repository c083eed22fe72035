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
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Uri;

use crate::problem::Problem;
use crate::state::Gateway;

/// One route of the table.
pub(crate) struct Route {
    /// In lower case, as in OpenAPI.
    #[cfg_attr(not(test), expect(dead_code, reason = "compared with OpenAPI by a test"))]
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    handler: MethodRouter<Gateway>,
}

/// Every route but `POST /v1/functions/{name}/invocations`, which the front answers itself.
#[rustfmt::skip]
pub(crate) fn table() -> Vec<Route> {
    vec![
        get("/v1/functions", functions::list),
        get("/v1/functions/{name}", functions::show),
        put("/v1/functions/{name}", functions::deploy),
        delete("/v1/functions/{name}", functions::delete),
        get("/v1/functions/{name}/versions", versions::list),
        post("/v1/functions/{name}/versions", versions::publish),
        get("/v1/functions/{name}/triggers", triggers::list),
        patch("/v1/functions/{name}/triggers/{trigger}", triggers::change),
        post("/v1/functions/{name}/triggers/{trigger}/fire", triggers::fire),
        get("/v1/functions/{name}/logs", logs::read),
        get("/v1/invocations", history::list),
        get("/v1/invocations/{id}", invocations::show),
        post("/v1/invocations/{id}/cancel", history::cancel),
        post("/v1/invocations/{id}/rerun", history::rerun),
        head("/v1/packages/{digest}", packages::has),
        put("/v1/packages/{digest}", packages::put),
        get("/v1/queues", queues::list),
        get("/metrics", status::metrics),
        get("/healthz", status::healthz),
        get("/readyz", status::readyz),
        get("/openapi.json", status::openapi),
    ]
}

pub(crate) fn router(gateway: Gateway) -> Router {
    let empty = Router::new();
    table()
        .into_iter()
        .fold(empty, |router, route| router.route(route.path, route.handler))
        .fallback(no_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(gateway)
}

async fn no_route(uri: Uri) -> Problem {
    Problem::no_route(uri.path())
}

/// axum adds the `Allow` header.
async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed(None)
}

macro_rules! method {
    ($name:ident, $filter:ident) => {
        fn $name<H, T>(path: &'static str, handler: H) -> Route
        where
            H: Handler<T, Gateway>,
            T: 'static,
        {
            Route { method: stringify!($name), path, handler: on(MethodFilter::$filter, handler) }
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

    use super::table;

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
        let routes = table().into_iter().map(|route| format!("{} {}", route.method, route.path));
        let mut answered: BTreeSet<_> = routes.collect();
        answered.insert("post /v1/functions/{name}/invocations".into());
        assert_eq!(operations, answered);
    }
}
