//! Functions: `PUT`, `GET` and `DELETE /v1/functions/{name}`, `GET /v1/functions`.

use std::collections::BTreeMap;

use hanshu_core::{Digest, FunctionName, Namespace, Timestamp, TriggerName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::ProblemBody;
use super::triggers::{TriggerDetail, TriggerSettings};

/// What `$LATEST` of a function shall be, and all of its triggers: whatever is left out takes its
/// default, and a trigger that is not listed is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeployFunction {
    /// `python`, `nodejs`, `go`, `shell`, `custom`, or an SCF name such as `Python3.10`.
    #[schema(example = "python")]
    pub runtime: String,
    /// What to call, such as `index.main_handler`.
    #[schema(example = "index.main_handler")]
    pub handler: String,
    /// The package's SHA-256, 64 lower-case hexadecimal characters; uploaded before.
    pub code: String,
    /// MiB; 128 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Seconds one event may take, 1 to 900; 3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Seconds the runtime may take to load the code, 3 to 300; 65 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_timeout_s: Option<u32>,
    /// At most so many invocations at once in the whole cluster; as the nodes allow if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Whether the function may use the network; as the backend can if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<bool>,
    /// What happens to queued events.
    #[serde(default, rename = "async", skip_serializing_if = "Option::is_none")]
    pub async_settings: Option<AsyncSettings>,
    /// The function's own variables: at most 4 KB, names and values together.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// All triggers of the function.
    #[serde(default)]
    pub triggers: Vec<TriggerSettings>,
}

/// What happens to a function's queued events. What is left out takes its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AsyncSettings {
    /// Attempts that may end in the function's fault, the first included; 3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Seconds between them; 60 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_delay_s: Option<u32>,
    /// Seconds after which an event expires; 21,600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u32>,
    /// Events that may wait in one queue; 100,000 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<u32>,
}

/// What a deploy did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeployedFunction {
    /// The function's namespace.
    #[schema(value_type = String)]
    pub namespace: Namespace,
    /// The function's name in the namespace.
    #[schema(value_type = String)]
    pub name: FunctionName,
    /// Digest of configuration and code together.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Whether code or configuration changed.
    pub changed: bool,
    /// The triggers as they now are.
    pub triggers: Vec<TriggerDetail>,
    /// Names of triggers that were removed.
    #[schema(value_type = Vec<String>)]
    pub removed: Vec<TriggerName>,
}

/// One line of a deploy's `application/x-ndjson` answer. The last is `deployed` or `problem`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum DeployLine {
    /// What is being done, for people.
    Progress(String),
    /// The deploy is done: the function as it is now.
    Deployed(DeployedFunction),
    /// The deploy was refused or failed.
    Problem(ProblemBody),
}

/// A function in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionSummary {
    /// The function's namespace.
    #[schema(value_type = String)]
    pub namespace: Namespace,
    /// The function's name in the namespace.
    #[schema(value_type = String)]
    pub name: FunctionName,
    /// The runtime, as the user named it.
    pub runtime: String,
    /// Memory limit in MiB.
    pub memory_mb: u32,
    /// The longest time that one event may take, in seconds.
    pub timeout_s: u64,
    /// Of `$LATEST`: configuration and code together.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// The newest published version, if there is one.
    pub newest_version: Option<u32>,
    /// How many triggers it has.
    pub triggers: usize,
    /// When it was first deployed.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When `$LATEST` last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// Functions, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionList {
    /// Those of the namespace that was asked for, or all.
    pub functions: Vec<FunctionSummary>,
}

/// A function with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionDetail {
    /// The function's namespace.
    #[schema(value_type = String)]
    pub namespace: Namespace,
    /// The function's name in the namespace.
    #[schema(value_type = String)]
    pub name: FunctionName,
    /// Of `$LATEST`: configuration and code together.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// The package's SHA-256.
    #[schema(value_type = String)]
    pub code: Digest,
    /// The runtime, as the user named it.
    pub runtime: String,
    /// The handler, as the user named it.
    pub handler: String,
    /// Memory limit in MiB.
    pub memory_mb: u32,
    /// The longest time that one event may take, in seconds.
    pub timeout_s: u64,
    /// The longest time until user code is loaded, in seconds.
    pub init_timeout_s: u64,
    /// At most so many at once in the whole cluster.
    pub concurrency: Option<u32>,
    /// Whether it may use the network; `null`: as the backend can.
    pub network: Option<bool>,
    /// What happens to queued events; every field is there.
    #[serde(rename = "async")]
    pub async_settings: AsyncSettings,
    /// The function's own variables.
    pub env: BTreeMap<String, String>,
    /// Its triggers, by name.
    pub triggers: Vec<TriggerDetail>,
    /// Published versions, from the lowest.
    pub versions: Vec<super::versions::VersionView>,
    /// When it was first deployed.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When `$LATEST` last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}
