//! The response of an HTTP trigger for an outcome: pure. A client learns neither the message nor
//! the stack of an error: those are for the function's owner, in its log.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hanshu_core::{ErrorKind, Outcome, Refusal, RequestId, StatusCode, Verdict};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::hop_by_hop::hop_by_hop_headers;
use crate::intake_error::IntakeError;

/// The response to the client. The gateway adds `x-request-id` and `x-fault`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTriggerResponse {
    /// From 200 to 599.
    pub status: u16,
    /// Without hop-by-hop headers and `content-length`.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The value of `x-fault`.
    pub fault: FaultOwner,
    /// The stable code of the problem document, where the body is one.
    pub code: Option<&'static str>,
}

/// Who is responsible for an error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOwner {
    /// Neither: the response is no error of the function or the platform.
    None,
    /// The function failed or returned something invalid.
    Function,
    /// The platform refused or failed.
    Platform,
}

impl FaultOwner {
    /// The value of the header `x-fault`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Function => "function",
            Self::Platform => "platform",
        }
    }
}

impl HttpTriggerResponse {
    /// A response without headers and body.
    pub fn empty(status: u16, fault: FaultOwner) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), fault, code: None }
    }

    /// A problem document (RFC 9457). `title` is for the client: it must reveal nothing internal.
    pub fn problem(
        status: u16,
        fault: FaultOwner,
        code: &'static str,
        title: &str,
        request_id: RequestId,
    ) -> Self {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": title,
            "status": status,
            "code": code,
            "requestId": request_id,
        });
        let kind = HeaderValue::from_static("application/problem+json");
        Self {
            status,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, kind)]),
            body: body.to_string().into(),
            fault,
            code: Some(code),
        }
    }
}

/// How long a throttled client is asked to wait.
const RETRY_LATER: Duration = Duration::from_secs(1);

/// Turns an outcome into the response of an HTTP trigger.
pub fn response_to_outcome(outcome: &Outcome, request_id: RequestId) -> HttpTriggerResponse {
    let function = |status, code, title| {
        HttpTriggerResponse::problem(status, FaultOwner::Function, code, title, request_id)
    };
    match &outcome.verdict {
        Verdict::Returned(json) => returned(json).unwrap_or_else(|| {
            function(502, "invalid_response", "the function's answer is not a valid HTTP answer")
        }),
        Verdict::Failed(failure) if failure.status_code == StatusCode::TimeLimitReached => {
            function(504, "function_timeout", "the function did not answer in time")
        }
        Verdict::Failed(failure) if failure.status_code == StatusCode::RequestCanceled => {
            function(502, "function_cancelled", "the function was cancelled")
        }
        Verdict::Failed(_) => function(502, "function_failed", "the function failed"),
        Verdict::Refused(refusal) => refused(refusal, request_id),
    }
}

/// The response for a call that the intake refused.
pub fn response_to_refused_call(error: &IntakeError, request_id: RequestId) -> HttpTriggerResponse {
    let (status, title) = match (error, error.kind()) {
        (IntakeError::TooLarge { .. }, _) => (413, "the request is too large for an event"),
        (_, ErrorKind::NotFound) => (404, "there is no such function"),
        (_, ErrorKind::Throttled) => (429, "too many requests"),
        (_, ErrorKind::Unavailable) => (503, "the service is not available"),
        (_, ErrorKind::Invalid) => (400, "the request cannot be passed to a function"),
        _ => (500, "the service failed"),
    };
    let fault = FaultOwner::Platform;
    with_retry_after(HttpTriggerResponse::problem(status, fault, error.code(), title, request_id))
}

fn refused(refusal: &Refusal, request_id: RequestId) -> HttpTriggerResponse {
    let (status, code, title) = match refusal {
        Refusal::Concurrency { .. } => (429, "concurrency_exceeded", "too many requests at once"),
        Refusal::Capacity { .. } => (429, "no_capacity", "too many requests at once"),
        Refusal::WaitQueueFull { .. } => (429, "wait_queue_full", "too many requests at once"),
        Refusal::Sandbox { .. } => (503, "sandbox_failed", "the service is not available"),
        Refusal::Gone { .. } => (404, "function_not_found", "there is no such function"),
        Refusal::Unavailable { .. } => (503, "unavailable", "the service is not available"),
    };
    with_retry_after(HttpTriggerResponse::problem(
        status,
        FaultOwner::Platform,
        code,
        title,
        request_id,
    ))
}

fn with_retry_after(mut answer: HttpTriggerResponse) -> HttpTriggerResponse {
    if matches!(answer.status, 429 | 503) {
        answer.headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_LATER.as_secs()));
    }
    answer
}

/// The shape in which a function returns a whole HTTP response. Other keys are ignored.
#[derive(Deserialize)]
struct IntegrationResponse<'a> {
    #[serde(rename = "statusCode", borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(rename = "isBase64Encoded", borrow)]
    base64: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum HeaderValues {
    One(String),
    Many(Vec<String>),
}

/// The response that a returned value describes; `None` if it has a `statusCode` and is not valid.
fn returned(json: &Bytes) -> Option<HttpTriggerResponse> {
    let object = json.trim_ascii_start().starts_with(b"{");
    // A value that cannot be read so (a lone surrogate in a key) has no `statusCode` for us.
    let integrated = if object { serde_json::from_slice(json).ok() } else { None };
    let Some(IntegrationResponse { status: Some(status), headers, body, base64 }) = integrated
    else {
        let mut answer = HttpTriggerResponse::empty(200, FaultOwner::None);
        answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.body = json.clone();
        return Some(answer);
    };
    // Below 200 are interim answers, after which the client waits for another.
    let status = read::<u16>(status).filter(|status| (200..=599).contains(status))?;
    let mut answer = HttpTriggerResponse::empty(status, FaultOwner::None);
    if let Some(headers) = headers {
        answer.headers = read_headers(headers)?;
    }
    let base64 = base64.map_or(Some(false), |flag| read::<Option<bool>>(flag)?.or(Some(false)))?;
    let body = match body {
        Some(body) => read::<Option<Cow<'_, str>>>(body)?.unwrap_or_default(),
        None => Cow::Borrowed(""),
    };
    let body =
        if base64 { STANDARD.decode(body.as_bytes()).ok()? } else { body.into_owned().into() };
    if !matches!(status, 204 | 304) {
        answer.body = body.into();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers.entry(CONTENT_TYPE).or_insert(text);
    }
    Some(answer)
}

fn read<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Option<T> {
    serde_json::from_str(json.get()).ok()
}

fn read_headers(json: &RawValue) -> Option<HeaderMap> {
    let map: Option<serde_json::Map<String, serde_json::Value>> = read(json)?;
    let mut headers = HeaderMap::new();
    for (name, values) in map.unwrap_or_default() {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let values = match serde_json::from_value(values).ok()? {
            HeaderValues::One(value) => vec![value],
            HeaderValues::Many(values) => values,
        };
        for value in values {
            headers.try_append(name.clone(), HeaderValue::try_from(value).ok()?).ok()?;
        }
    }
    drop_own(&mut headers);
    Some(headers)
}

/// Drops the headers that belong to the connection or to the platform.
fn drop_own(headers: &mut HeaderMap) {
    for name in hop_by_hop_headers(headers) {
        headers.remove(name);
    }
    for name in ["content-length", "x-fault", "x-request-id"] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
