//! The native API's JSON, in and out.
//!
//! Field names are camelCase, durations are whole seconds with `S` at the end, times are RFC 3339
//! in UTC. What we read refuses unknown fields; what we write may grow, so clients ignore what
//! they do not know.

mod functions;
mod history;
mod invocations;
mod logs;
mod params;
mod problem;
mod queues;
mod status;
mod triggers;
mod versions;

pub use functions::{
    AsyncSettings, DeployFunction, DeployLine, DeployedFunction, FunctionDetail, FunctionList,
    FunctionSummary,
};
pub use history::InvocationList;
pub use invocations::{
    AttemptView, FunctionFailure, InvocationAccepted, InvocationCaller, InvocationError,
    InvocationTrigger, InvocationView,
};
pub use logs::{LogLineView, LogPageView};
pub use params::{
    FunctionListParams, InvocationListParams, InvocationParams, LogParams, NamespaceParams,
};
pub use problem::ProblemBody;
pub use queues::{QueueList, QueueView};
pub use status::{Health, NotReady, Readiness};
pub use triggers::{
    TriggerChange, TriggerDetail, TriggerFired, TriggerList, TriggerSettings, TriggerTick,
};
pub use versions::{VersionList, VersionView};
