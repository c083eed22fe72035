//! Speaking HTTP: the native API, HTTP triggers, metrics.
//!
//! A listener is [`serve`]d on the data plane with what answers it: [`Api`], [`HttpTriggers`], or
//! another [`RequestHandler`]. Each answers invocations there and then, and hands
//! everything else to the general runtime.

mod api;
mod api_handler;
mod deploy_request;
mod extract;
mod forward;
mod function_api;
mod function_view;
mod headers;
mod http_server;
mod http_trigger;
mod invocation_view;
mod metrics;
mod middleware;
mod ndjson;
mod outcome_response;
mod problem;
mod routes;
mod state;

pub use api::Api;
pub use function_api::FunctionApi;
pub use http_server::{Body, HttpServerOptions, RequestBody, RequestHandler, serve};
pub use http_trigger::HttpTriggers;
pub use problem::Problem;
pub use state::{CheckReadiness, Gateway, GatewayOptions, GatewayParts};
