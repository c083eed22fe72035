//! Query parameters of the native API.

use hanshu_core::{FunctionName, Namespace, RequestId, TriggerName};
use serde::Deserialize;
use utoipa::IntoParams;

/// The namespace of a function.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NamespaceParams {
    /// `default` if absent.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    pub namespace: Namespace,
}

/// Which functions a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FunctionListParams {
    /// All namespaces if absent.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    pub namespace: Option<Namespace>,
}

/// How long to wait for an invocation's end.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InvocationParams {
    /// If it has not ended: wait so many seconds for its end, at most 60.
    pub wait: Option<u64>,
}

/// Chooses ended invocations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InvocationListParams {
    /// `default` if absent.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    pub namespace: Namespace,
    /// Only of this function, if given.
    #[param(value_type = Option<String>)]
    pub function: Option<FunctionName>,
    /// Of one of that function's triggers only.
    #[param(value_type = Option<String>)]
    pub trigger: Option<TriggerName>,
    /// Of these states only, with commas between them: `succeeded`, `failed`, `expired`,
    /// `cancelled`.
    pub state: Option<String>,
    /// Ended at or after this: RFC 3339, or an age such as `90s`, `10m`, `2h`, `1d`.
    pub from: Option<String>,
    /// Ended before this: likewise.
    pub to: Option<String>,
    /// Only those whose function's name, request id, or error's type or message contain this text,
    /// upper or lower case.
    pub q: Option<String>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// Invocations of the page, at most 1,000; 100 if absent.
    pub limit: Option<usize>,
}

/// Which lines of a function's log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogParams {
    /// `default` if absent.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    pub namespace: Namespace,
    /// Written at or after this: RFC 3339, or an age such as `90s`, `10m`, `2h`, `1d`.
    pub since: Option<String>,
    /// Only of this invocation, if given.
    #[param(value_type = Option<String>)]
    pub request_id: Option<RequestId>,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// Journal entries of the page, at most 10,000; 1,000 if absent.
    pub limit: Option<usize>,
    /// If there are none yet: wait so many seconds for some, at most 60.
    pub wait: Option<u64>,
}
