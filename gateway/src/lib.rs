//! Speaking HTTP: the native API, HTTP triggers, metrics.
//!
//! A listener is [`serve`]d on the data plane with what answers it: [`Api`], [`HttpTriggers`], or
//! another implementation of [`Answer`]. Each answers invocations there and then, and hands
//! everything else to the general runtime.

mod api;
mod api_handler;
mod convert;
mod extract;
mod forward;
mod front;
mod function_api;
mod headers;
mod http_trigger;
mod invocation_view;
mod metrics;
mod middleware;
mod ndjson;
mod outcome;
mod problem;
mod routes;
mod state;
mod view;

pub use api::Api;
pub use front::{Answer, Body, FrontOptions, RequestBody, serve};
pub use function_api::FunctionApi;
pub use http_trigger::HttpTriggers;
pub use problem::Problem;
pub use state::{CheckReadiness, Gateway, GatewayParts, Options};
