//! The API's error body (RFC 9457), and the status of each kind of error there. (HTTP triggers
//! answer clients of a function and have responses of their own:
//! `hanshu_triggers::http::response`.)

use std::borrow::Cow;

use bytes::Bytes;
use hanshu_api::wire::ProblemBody;
use hanshu_core::ports::{CatalogError, JournalError, QueueError, StoreError};
use hanshu_core::{ErrorKind, ForbiddenError, NameError, Refusal, RequestId};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use tracing::error;

use crate::headers::{FAULT, REQUEST_ID, id_value};
use crate::http_server::{Body, PayloadError};

/// Seconds in `Retry-After` of a refusal for lack of capacity.
const THROTTLE_RETRY_S: u32 = 1;
/// Seconds in `Retry-After` where something was unavailable.
const UNAVAILABLE_RETRY_S: u32 = 5;
/// Longest value that is repeated to the caller, in characters.
const VALUE_CHARS_MAX: usize = 80;

/// Why the platform refuses, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(Box<ProblemFields>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ProblemFields {
    status: StatusCode,
    code: &'static str,
    detail: String,
    hint: Cow<'static, str>,
    field: Option<String>,
    value: Option<String>,
    rule: Option<String>,
    retry_after_s: Option<u32>,
    allow: Option<&'static str>,
    close: bool,
}

impl Problem {
    /// A problem of a kind, with the kind's own code and hint.
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let (status, code, hint) = response_of_kind(kind);
        let mut problem = Self::with(status, code, detail, hint);
        if matches!(kind, ErrorKind::Throttled | ErrorKind::Unavailable) {
            problem.0.retry_after_s = Some(match kind {
                ErrorKind::Throttled => THROTTLE_RETRY_S,
                _ => UNAVAILABLE_RETRY_S,
            });
        }
        problem
    }

    fn with(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(ProblemFields {
            status,
            code,
            detail: detail.into(),
            hint: hint.into(),
            field: None,
            value: None,
            rule: None,
            retry_after_s: None,
            allow: None,
            close: false,
        }))
    }

    /// A field, parameter or header breaks its rule.
    pub(crate) fn value(
        field: impl Into<String>,
        value: impl Into<String>,
        rule: impl Into<String>,
    ) -> Self {
        let (field, rule) = (field.into(), rule.into());
        let value: String = value.into().chars().take(VALUE_CHARS_MAX).collect();
        let detail = format!("`{field}` is `{value}`: expected {rule}");
        let mut problem = Self::new(ErrorKind::Invalid, detail);
        problem.0.field = Some(field);
        problem.0.value = Some(value);
        problem.0.rule = Some(rule);
        problem
    }

    /// A field of a JSON body is missing, unknown, or of another type.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        let (field, reason) = (field.into(), reason.into());
        let at = if field == "." { String::new() } else { format!("`{field}`: ") };
        let mut problem = Self::new(ErrorKind::Invalid, format!("{at}{reason}"));
        problem.0.field = Some(field).filter(|field| field != ".");
        problem.0.rule = Some(reason);
        problem
    }

    /// A body that is not JSON, or not the JSON that is wanted.
    pub(crate) fn invalid_json(detail: impl Into<String>) -> Self {
        let hint = "send one JSON text in UTF-8 as the body (no body at all counts as `{}`)";
        Self::with(StatusCode::BAD_REQUEST, "invalid_json", detail, hint)
    }

    /// No key, or a wrong one.
    pub(crate) fn unauthenticated() -> Self {
        Self::new(ErrorKind::Unauthenticated, "the request carries no valid secret id and key")
    }

    /// A body over its limit, bytes; `code` is `event_too_large` or alike. The connection is
    /// closed, since the rest of the body is not read.
    pub(crate) fn too_large(code: &'static str, limit: u64) -> Self {
        let what = code.split('_').next().unwrap_or_default();
        let detail = format!("the {what} is larger than {limit} bytes");
        let hint = "send less: store large data elsewhere and send a reference to it";
        let mut problem = Self::with(StatusCode::PAYLOAD_TOO_LARGE, code, detail, hint);
        problem.0.close = true;
        problem
    }

    /// A body that could not be read.
    pub(crate) fn payload(error: PayloadError, code: &'static str, limit: usize) -> Self {
        match error {
            PayloadError::TooLarge => Self::too_large(code, limit as u64),
            PayloadError::Stalled => {
                let (detail, hint) = ("the body did not arrive in time", "send it without pauses");
                let status = StatusCode::REQUEST_TIMEOUT;
                let mut problem = Self::with(status, "body_timeout", detail, hint);
                problem.0.close = true;
                problem
            }
            PayloadError::Broken => {
                Self::new(ErrorKind::Invalid, "the body could not be read to its end")
            }
        }
    }

    /// The path is not one of the API.
    pub(crate) fn no_route(path: &str) -> Self {
        let path: String = path.chars().take(VALUE_CHARS_MAX).collect();
        let hint = "see /openapi.json for the paths of the API";
        let detail = format!("nothing answers at `{path}`");
        Self::with(StatusCode::NOT_FOUND, "no_route", detail, hint)
    }

    /// The path is there, the method is not.
    pub(crate) fn method_not_allowed(allow: impl Into<Option<&'static str>>) -> Self {
        let allow = allow.into();
        let detail = "this path does not answer that method";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let hint = "use a method that the `Allow` header names";
        let mut problem = Self::with(status, "method_not_allowed", detail, hint);
        problem.0.allow = allow;
        problem
    }

    /// Says in which part of the request the field is.
    #[must_use]
    pub(crate) fn within(mut self, place: &str) -> Self {
        if let Some(field) = &mut self.0.field {
            *field = format!("{place}.{field}");
        }
        self.0.detail = format!("{place}: {}", self.0.detail);
        self
    }

    /// Replaces the kind's hint.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = hint.into();
        self
    }

    /// Replaces the kind's code.
    #[must_use]
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// The HTTP status of its response.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Its JSON, as the problem of this request.
    pub(crate) fn body(&self, request_id: RequestId) -> ProblemBody {
        ProblemBody {
            kind: "about:blank".into(),
            title: self.0.status.canonical_reason().unwrap_or("Error").into(),
            status: self.0.status.as_u16(),
            code: self.0.code.into(),
            detail: self.0.detail.clone(),
            hint: self.0.hint.clone().into_owned(),
            request_id: Some(request_id),
            field: self.0.field.clone(),
            value: self.0.value.clone(),
            rule: self.0.rule.clone(),
        }
    }

    /// The whole response to this request.
    pub(crate) fn answer(&self, request_id: RequestId) -> http::Response<Body> {
        let text = serde_json::to_vec(&self.body(request_id)).unwrap_or_default();
        let mut response = http::Response::new(Body::from(Bytes::from(text)));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(FAULT, HeaderValue::from_static("platform"));
        headers.insert(REQUEST_ID, id_value(request_id));
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.0.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.0.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A kind's status, code and hint.
fn response_of_kind(kind: ErrorKind) -> (StatusCode, &'static str, &'static str) {
    match kind {
        ErrorKind::Invalid => {
            (StatusCode::BAD_REQUEST, "invalid_value", "correct the value and send it again")
        }
        ErrorKind::Unauthenticated => (
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "send `Authorization: Basic` with the secret id as user and the secret key as \
             password; the server writes both to credentials.env in its data folder",
        ),
        ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "use a key that may do this"),
        ErrorKind::NotFound => (
            StatusCode::NOT_FOUND,
            "not_found",
            "check the name and the namespace; `hanshu list` shows what there is",
        ),
        ErrorKind::Conflict => {
            (StatusCode::CONFLICT, "conflict", "look at what is there now, then decide")
        }
        ErrorKind::Throttled => {
            (StatusCode::TOO_MANY_REQUESTS, "throttled", "try again after `Retry-After` seconds")
        }
        ErrorKind::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "try again after `Retry-After` seconds; /readyz says what is missing",
        ),
        ErrorKind::Internal => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "look for the request id in the server's log",
        ),
    }
}

/// An internal failure: all of it in the log, none of it to the caller.
pub(crate) fn internal(error: &dyn std::fmt::Display) -> Problem {
    error!(%error, "A request failed");
    Problem::new(ErrorKind::Internal, "the server failed at this request")
}

fn problem_from_error(kind: ErrorKind, error: &dyn std::fmt::Display) -> Problem {
    match kind {
        ErrorKind::Internal => internal(error),
        ErrorKind::Invalid
        | ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Throttled
        | ErrorKind::Unavailable => Problem::new(kind, error.to_string()),
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::value(error.field(), error.value(), error.rule())
    }
}

impl From<ForbiddenError> for Problem {
    fn from(error: ForbiddenError) -> Self {
        Self::new(ErrorKind::Forbidden, error.to_string())
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        let detail = error.to_string();
        match error {
            CatalogError::NoFunction(_) => {
                Self::new(ErrorKind::NotFound, detail).code("function_not_found")
            }
            CatalogError::NoVersion(..) => Self::new(ErrorKind::NotFound, detail)
                .code("version_not_found")
                .hint("`hanshu show` lists the versions; `hanshu publish` makes one"),
            CatalogError::Unavailable => {
                Self::new(ErrorKind::Unavailable, detail).code("registry_unavailable")
            }
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        let problem = problem_from_error(error.kind(), &error);
        match error {
            QueueError::Full { .. } => problem.code("queue_full"),
            QueueError::Unavailable(_) => problem.code("queue_unavailable"),
            QueueError::Stale(_) | QueueError::Internal(_) => problem,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        problem_from_error(error.kind(), &error)
    }
}

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Self {
        Self::new(ErrorKind::Unavailable, error.to_string())
    }
}

impl From<hanshu_controller::ControllerError> for Problem {
    fn from(error: hanshu_controller::ControllerError) -> Self {
        use hanshu_controller::ControllerError;
        let kind = error.kind();
        match error {
            ControllerError::Invalid { field, value, rule } => Self::value(field, value, rule),
            ControllerError::RevisionCatalog(error) => error.into(),
            ControllerError::NoPackage(digest) => {
                let detail = format!("package `{digest}` has not been uploaded");
                Self::new(kind, detail)
                    .code("package_not_found")
                    .hint("PUT the zip to /v1/packages/{digest} first, then deploy again")
            }
            ControllerError::Package(_) if kind == ErrorKind::Invalid => {
                Self::new(kind, error.to_string())
                    .code("bad_package")
                    .hint("make the zip anew; `hanshu deploy` makes one that fits from a folder")
            }
            ControllerError::Image(_) => Self::new(kind, error.to_string()).code("no_image").hint(
                "see that the Docker engine runs and has what the message names, then deploy again",
            ),
            ControllerError::Store(_) if kind == ErrorKind::NotFound => {
                Self::new(kind, error.to_string()).code("function_not_found")
            }
            other => problem_from_error(kind, &other),
        }
    }
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Concurrency { .. } => Self::new(ErrorKind::Throttled, detail)
                .code("concurrency_exceeded")
                .hint("try again later, call it async, or raise the function's `concurrency`"),
            Refusal::Capacity { .. } => Self::new(ErrorKind::Throttled, detail)
                .code("no_capacity")
                .hint("try again later, call it async, or give the platform more memory"),
            Refusal::WaitQueueFull { .. } => {
                Self::new(ErrorKind::Throttled, detail).code("wait_queue_full")
            }
            Refusal::Sandbox { .. } => {
                Self::new(ErrorKind::Unavailable, detail).code("sandbox_failed")
            }
            Refusal::Gone { .. } => {
                Self::new(ErrorKind::NotFound, detail).code("function_not_found")
            }
            Refusal::Unavailable { .. } => Self::new(ErrorKind::Unavailable, detail),
        }
    }
}

impl From<hanshu_triggers::IntakeError> for Problem {
    fn from(error: hanshu_triggers::IntakeError) -> Self {
        use hanshu_triggers::IntakeError;
        let code = error.code();
        match error {
            IntakeError::InvalidJson { .. } => Self::invalid_json(error.to_string()),
            IntakeError::TooLarge { bytes_max, .. } => Self::too_large(code, bytes_max as u64),
            IntakeError::Function(error) => Self::from(error),
            IntakeError::Queue(error) => Self::from(error),
            IntakeError::TooDeep => Self::new(ErrorKind::Forbidden, error.to_string())
                .code(code)
                .hint("return the work to do instead of calling on, and call from one place"),
            other => problem_from_error(other.kind(), &other).code(code),
        }
    }
}

impl From<hanshu_triggers::TriggerError> for Problem {
    fn from(error: hanshu_triggers::TriggerError) -> Self {
        use hanshu_triggers::TriggerError;
        match error {
            TriggerError::Field { field, value, rule } => Self::value(field, value, rule),
            other => {
                let field = match other {
                    TriggerError::Cron(hanshu_triggers::CronError::Zone(_)) => "timezone",
                    _ => "cron",
                };
                let mut problem = problem_from_error(other.kind(), &other);
                problem.0.field = Some(field.into());
                problem
            }
        }
    }
}
