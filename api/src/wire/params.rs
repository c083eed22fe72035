//! Query parameters.

use hanshu_core::{Namespace, RequestId};
use serde::Deserialize;
use utoipa::IntoParams;

/// Where a function lives.
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
    /// Of one invocation only.
    #[param(value_type = Option<String>)]
    pub request_id: Option<RequestId>,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// Journal entries of the page, at most 10,000; 1,000 if absent.
    pub limit: Option<usize>,
    /// If there are none yet: wait so many seconds for some, at most 60.
    pub wait: Option<u64>,
}
